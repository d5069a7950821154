r"""Dynamics, encoder and decoder that forecast as a fitted bank of responses does.

A rotation of radius :math:`\lambda` whose two coordinates are seen with precision l and moved by
noise q I has isotropic moments: predicted variance p, filtered variance s, with

.. math::
    s\,l = \kappa, \qquad p\,l = \frac{\kappa}{1 - \kappa}, \qquad
    q\,l = \frac{\kappa}{1 - \kappa} - \lambda^2 \kappa,

for the gain :math:`\kappa` that the bank was fitted with. The chain starts at its steady state, so
that every step has this gain. Forecast means do not depend on l: only the product q l counts. The
variance h steps ahead does,

.. math::
    R + \sum_g \frac{|c_g|^2}{l_g}
    \Big( \lambda_g^{2h} \kappa_g + q_g l_g \sum_{i < h} \lambda_g^{2i} \Big),

and 1 / l_g and R are found by bounded least squares against the errors of the fit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.optimize import lsq_linear, nnls
from torch import Tensor

from tsvae.lds import LDSParameters, make_parameters
from tsvae.models.response_fit import FittedResponses
from tsvae.models.start import FilterBank

__all__ = ["FittedStart", "fitted_start"]

_LEAST_SHARE = 0.05  # of the variance one step ahead that is observation noise, at least
_LEAST_ERROR = 1e-6  # squared, of standardised data
_RANGE = 10.0  # of the precisions of groups: all see the same values


class FittedStart(NamedTuple):
    """Where a model begins that forecasts as fitted.

    Attributes
    ----------
    dynamics : LDSParameters
        G groups of two.
    bank : FilterBank
        Encoder and decoder of one variable.
    coupling : Tensor (F, D, D)
        Of the states at the origin of a forecast, for each variable.
    noise_scale : float
        Standard deviation of the observation noise.
    """

    dynamics: LDSParameters
    bank: FilterBank
    coupling: Tensor
    noise_scale: float


def fitted_start(fitted: FittedResponses, couplings: Tensor) -> FittedStart:
    """Turn fitted responses into parameters of the model.

    Parameters
    ----------
    fitted : FittedResponses
    couplings : Tensor (F, D, D)
        Of each variable, coordinates as in :class:`FittedResponses`.

    Returns
    -------
    FittedStart
    """
    kappa, radius = fitted.gain, fitted.radius
    predicted = kappa / (1.0 - kappa)  # p l
    noise = predicted - radius**2 * kappa  # q l
    variances = _variances(fitted, noise)
    spread = variances.inverse_precision
    cosine, sine = radius * fitted.angles.cos(), radius * fitted.angles.sin()
    rotation = torch.stack((cosine, -sine, sine, cosine), dim=1).unflatten(1, (2, 2))
    eye = torch.eye(2, dtype=torch.float64).expand_as(rotation)
    start = make_parameters(
        rotation,
        (noise * spread)[:, None, None] * eye,
        initial_covariance=(predicted * spread)[:, None, None] * eye,
        input_matrix=rotation.new_zeros(len(radius), 2, 0),
    )
    single = {name: part.float() for name, part in start._asdict().items() if part is not None}
    precision = spread.reciprocal()[:, None].expand(-1, 2)
    shown = torch.tensor([1.0, 0.0]).expand(len(radius), 2)
    bank = FilterBank(
        precision.flatten().float(), shown.flatten(), fitted.amplitude.flatten().float()
    )
    coupling = _pairs(_pairs(couplings.mT).mT).float()
    return FittedStart(LDSParameters(**single), bank, coupling, variances.noise**0.5)


def _pairs(columns: Tensor) -> Tensor:
    """First coordinates of all groups, then second ones -> the two of each group together."""
    return columns.unflatten(-1, (2, -1)).mT.flatten(-2)


class _Variances(NamedTuple):
    inverse_precision: Tensor  # (G,), 1 / l
    noise: float  # R


def _variances(fitted: FittedResponses, noise: Tensor) -> _Variances:
    """Shares of the forecast variance of states and of observation noise."""
    errors = fitted.errors.clamp_min(_LEAST_ERROR)
    steps = torch.arange(1, len(errors) + 1, dtype=torch.float64)[:, None]
    square = fitted.amplitude.square().sum(1)
    power = fitted.radius ** (2.0 * steps)  # (H, G)
    count = torch.cumsum(power / fitted.radius**2, dim=0)
    growth = square * (power * fitted.gain + noise * count)
    ones = torch.ones_like(errors)
    columns = torch.cat((growth, ones[:, None]), dim=1) / errors[:, None]
    ends = nnls(torch.stack((columns[:, :-1].sum(1), columns[:, -1]), dim=1).numpy(), ones.numpy())
    reach = growth[0].sum().clamp_min(_LEAST_ERROR)  # 0 for data that never move
    common = max(float(ends[0][0]), _LEAST_SHARE * float(errors.min() / reach))
    least = _LEAST_SHARE * float(errors[0])
    upper = [common * _RANGE] * len(square) + [float(errors[0])]
    lower = [common / _RANGE] * len(square) + [min(least, 0.5 * upper[-1])]
    found = torch.as_tensor(
        lsq_linear(columns.numpy(), ones.numpy(), (lower, upper)).x, dtype=torch.float64
    )
    return _Variances(found[:-1], float(found[-1]))
