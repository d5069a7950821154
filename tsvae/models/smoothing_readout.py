r"""Reading smoothed values out of states that were fitted to forecasts.

The groups of a bank of filters each follow the data in their own way, and their weights are those
of forecasts. The value at a hidden entry is another combination of the same smoothed states,

.. math::
    x_t = C_s\, E[z_t | x] + d_s + noise, \qquad
    Var = \alpha\, C_s S_t C_s' + R_s,

found by ridge regression on entries that were hidden to fit it; :math:`\alpha` and R_s by
non-negative least squares of the squared residuals.
"""

from __future__ import annotations

import torch
from scipy.optimize import nnls
from torch import Tensor, nn

__all__ = ["SmoothingReadout", "fit_smoothing", "fit_spread"]

_PENALTIES = tuple(10.0**k for k in range(-6, 2))  # of the mean curvature
_LEAST_VARIANCE = 1e-6


class SmoothingReadout(nn.Module):
    """Linear map from smoothed states to values.

    Parameters
    ----------
    latent_dim : int
        D.
    n_features : int
        F.
    """

    matrix: Tensor
    offset: Tensor
    spread: Tensor
    variance: Tensor

    def __init__(self, latent_dim: int, n_features: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.zeros(n_features, latent_dim))  # C_s
        self.register_buffer("offset", torch.zeros(n_features))  # d_s
        self.register_buffer("spread", torch.ones(n_features))  # alpha
        self.register_buffer("variance", torch.ones(n_features))  # R_s

    def mean(self, states: Tensor) -> Tensor:
        """Values ``(..., F)`` at states ``(..., D)``."""
        return states @ self.matrix.T + self.offset

    def total_variance(self, emitted: Tensor) -> Tensor:
        """Variance of values, given that of the states as the matrix shows it."""
        return self.spread * emitted + self.variance


@torch.no_grad()
def fit_smoothing(readout: SmoothingReadout, states: Tensor, values: Tensor) -> None:
    """Set matrix and offset by ridge regression, its penalty chosen on the later half.

    Parameters
    ----------
    readout : SmoothingReadout
        Of one feature.
    states : Tensor (N, D)
        Smoothed means at hidden entries, in an order whose halves are far apart.
    values : Tensor (N,)
        What was hidden.
    """
    x = torch.cat((states.double(), torch.ones_like(states[:, :1]).double()), dim=1)
    y = values.double()
    half = len(x) // 2
    errors = []
    for penalty in _PENALTIES:
        weights = _ridge(x[:half], y[:half], penalty)
        errors.append(float((y[half:] - x[half:] @ weights).square().mean()))
    best = min(range(len(errors)), key=errors.__getitem__)
    weights = _ridge(x, y, _PENALTIES[best])
    readout.matrix.copy_(weights[:-1])
    readout.offset.copy_(weights[-1:])


@torch.no_grad()
def fit_spread(readout: SmoothingReadout, residual: Tensor, emitted: Tensor) -> None:
    """Set the variance by non-negative least squares.

    Parameters
    ----------
    readout : SmoothingReadout
    residual, emitted : Tensor (N,)
        Errors at hidden entries, and the states' variance as the matrix shows it.
    """
    columns = torch.stack((emitted.double(), torch.ones_like(emitted).double()), dim=1)
    found = nnls(columns.cpu().numpy(), residual.double().square().cpu().numpy())[0]
    readout.spread.fill_(float(found[0]))
    readout.variance.fill_(max(float(found[1]), _LEAST_VARIANCE))


def _ridge(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    gram = x.T @ x
    size = gram.diagonal()[:-1].mean().clamp_min(torch.finfo(x.dtype).tiny)
    ridge = torch.full_like(gram.diagonal(), float(penalty * size))
    ridge[-1] = 1e-9 * gram[-1, -1]
    return torch.linalg.solve(gram + torch.diag(ridge), x.T @ y)
