r"""Coupling of states at the origin of a forecast.

The groups of a bank of filters each take the same value for their own, while it is the sum of all
that explains it. What one group has seen tells how to correct another one,

.. math::
    \hat x_{T+h} = C A^h (I + \Delta)\, E[z_T | x_{1..T}],

with one matrix :math:`\Delta` for all horizons; each variable has its own, close to a common one
(module ``own_couplings``). With rows :math:`E_h = C A^h`, second moments S of the states and R of
futures with states, it minimises

.. math::
    \sum_h w_h \Big( e_h(\Delta) + \lambda s\, \frac{e_h}{\bar e} |E_h \Delta|^2 \Big)
    + \lambda s \epsilon |\Delta|^2,

where e_h is the mean squared error h steps ahead and s the mean variance of a state: noise and
errors that are larger ask for a stronger prior, as in a Bayesian regression. Both quadratic forms
in the rows are brought to a diagonal together, as is S: each penalty costs three products.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tsvae.models.response_squares import Seen

__all__ = ["CouplingRows", "CouplingSquares", "StateCoupling", "coupling_rows"]

_EVENNESS = 0.1  # epsilon, of the mean of the rows' squares
_LEAST = 1e-12


class StateCoupling(nn.Module):
    """Linear corrections of the states from which forecasts start.

    Parameters
    ----------
    latent_dim : int
        D.
    n_features : int
        F, of the data.

    Attributes
    ----------
    matrix : Parameter (F, D, D)
        Delta of each variable.
    bridged : Tensor of bool (F,)
        Variables whose short gaps are bridged first, see :mod:`tsvae.models.gaps`.
    """

    bridged: Tensor

    def __init__(self, latent_dim: int, n_features: int) -> None:
        super().__init__()
        self.register_buffer("bridged", torch.ones(n_features, dtype=torch.bool))
        self.matrix = nn.Parameter(torch.zeros(n_features, latent_dim, latent_dim))

    def forward(self, states: Tensor) -> Tensor:
        """Corrected means ``(N, ..., D)``; N = chains, the variables of a series side by side."""
        by_variable = states.unflatten(0, (-1, len(self.matrix))).transpose(0, 1)
        moved = by_variable.flatten(1, -2) @ self.matrix.mT
        return states + moved.view_as(by_variable).transpose(0, 1).flatten(0, 1)


class CouplingSquares(NamedTuple):
    """The least squares of couplings, brought to a diagonal.

    Attributes
    ----------
    left : Tensor (D, D)
        T, with T' P T = I and T' A T diagonal.
    right : Tensor (..., D, D)
        Eigenvectors of S.
    curvature : Tensor (..., D, D)
        Products of the eigenvalues.
    slope : Tensor (..., D, D)
    """

    left: Tensor
    right: Tensor
    curvature: Tensor
    slope: Tensor

    def solve(self, penalty: float) -> Tensor:
        """Delta ``(..., D, D)``; 0 for an infinite penalty."""
        return self.left @ (self.slope / (self.curvature + penalty)) @ self.right.mT


class CouplingRows(NamedTuple):
    """The forecasts that a coupling may change; what they have in common for all states.

    Attributes
    ----------
    rows : Tensor (H, D)
        E, forecasts per unit of a state.
    weighted : Tensor (H, D)
        w E.
    left : Tensor (D, D)
        See :class:`CouplingSquares`.
    values : Tensor (D,)
        Diagonal of T' A T.
    """

    rows: Tensor
    weighted: Tensor
    left: Tensor
    values: Tensor

    def squares(self, seen: Seen, base: Tensor | None = None) -> CouplingSquares:
        """Prepare the least squares of couplings.

        Parameters
        ----------
        seen : Seen
            Moments of the states; ``(..., D, D)`` for several at once.
        base : Tensor (H, D), optional
            Forecasts that are to be changed; the rows themselves by default.
        """
        base = self.rows if base is None else base
        size = seen.past.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(_LEAST)[..., None, None]
        variances, right = torch.linalg.eigh(seen.past / size)
        left_over = (seen.cross - base @ seen.past) / size
        slope = self.left.T @ (self.weighted.T @ left_over) @ right
        curvature = self.values.clamp_min(0.0)[:, None] * variances.clamp_min(0.0).unsqueeze(-2)
        return CouplingSquares(self.left, right, curvature, slope)


def coupling_rows(rows: Tensor, weights: Tensor, errors: Tensor) -> CouplingRows:
    """Prepare what all couplings of these forecasts share.

    Parameters
    ----------
    rows : Tensor (H, D)
        E, forecasts per unit of a state.
    weights : Tensor (H,)
        Of the steps ahead.
    errors : Tensor (H,)
        Mean squared errors without coupling.

    Returns
    -------
    CouplingRows
    """
    weighted = weights[:, None] * rows
    prior = rows.T @ ((errors / errors.mean().clamp_min(_LEAST))[:, None] * weighted)
    even = (_EVENNESS * prior.diagonal().mean()).clamp_min(_LEAST)
    prior = prior + even * torch.eye(len(prior), dtype=prior.dtype)
    white = torch.linalg.inv(torch.linalg.cholesky(prior))
    values, vectors = torch.linalg.eigh(white @ (rows.T @ weighted) @ white.T)
    return CouplingRows(rows, weighted, white.T @ vectors, values)
