r"""How much noise inputs get in training: what else keeps networks off chance in few pairs.

Noise at the input acts as a penalty on slopes (Bishop 1995, Neural Computation 7, 108). Its
standard deviation in column j is :math:`c\,\sigma_j`:

- :math:`\sigma_j` is what the other columns of a record do not tell of it, by ridge regressions on
  records left out. Neighbours in a smooth profile tell each other nearly all, columns of a table
  little: what one entry says alone is what a network can mistake for a rule.
- :math:`c^2 = \min(1, K (1 - R^2) / (n R^2))` is a ridge regression's best penalty over the number
  n of pairs, with K coefficients; :math:`R^2`, what one side tells of the other, is that of kernel
  ridge regressions, each pair predicted from all others.

In float64 and by torch, whose number of threads the caller fixes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["noise_share", "predictability", "training_noise", "unexplained"]

_MOST_ROWS = 500
_FOLDS = 5
_FEWEST_ROWS = 2 * _FOLDS
_COLUMN_PENALTIES = tuple(10.0**k for k in range(-5, 3))  # in mean variances
_WIDTHS = (0.05, 0.3, 2.0)  # of kernels, in inverse variances of a record
_PENALTIES = tuple(10.0**k for k in range(-4, 1))
_COEFFICIENTS = 100.0  # K: on five tables 200 and 400 were no better but for one
_LEAST_R2 = 0.05
_TINY = 1e-12


def training_noise(
    wanted: float | str, values: Tensor, mask: Tensor, given: Tensor, other: Tensor
) -> Tensor:
    """Choose the standard deviation of the noise on each column of one side.

    Parameters
    ----------
    wanted : float or "auto"
        In standard deviations of each column.
    values : Tensor (N, P)
        Records of this side; 0 where not observed.
    mask : bool Tensor (N, P)
    given : Tensor (M, P)
        Those with a partner, and
    other : Tensor (M, Q)
        these partners.

    Returns
    -------
    Tensor (P,)
    """
    if wanted != "auto":
        return float(wanted) * values.std(0, correction=0)
    share = noise_share(predictability(given, other), len(given))
    return share * unexplained(values, mask)


def unexplained(values: Tensor, mask: Tensor) -> Tensor:
    """Measure the standard deviation of each column about what the others tell of it.

    Parameters
    ----------
    values : Tensor (N, P)
        0 where not observed.
    mask : bool Tensor (N, P)

    Returns
    -------
    Tensor (P,)
        At most that of the column itself, and this of fewer than ten records.
    """
    rows = _some(len(values))
    values, mask = values[rows].double(), mask[rows]
    own = values.var(0, correction=0)
    if len(values) < _FEWEST_ROWS:
        return own.sqrt()
    square = values.new_zeros(len(_COLUMN_PENALTIES), values.shape[1])
    for fold in range(_FOLDS):
        out = torch.arange(len(values)) % _FOLDS == fold
        square += _left_out_squares(values[~out], values[out], mask[out])
    error = square / mask.sum(0).clamp_min(1)
    return torch.minimum(error[error.sum(1).argmin()], own).sqrt()


def _left_out_squares(known: Tensor, new: Tensor, seen: Tensor) -> Tensor:
    """Sum squared errors of each column of new rows, for each penalty.

    With P the inverse of the penalised covariance, column j misses by (x P)_j / P_jj.
    """
    mean = known.mean(0)
    _, size, directions = torch.linalg.svd(known - mean, full_matrices=False)
    power = size**2
    unit = max(float(power.sum()) / known.shape[1], _TINY)
    scores = (new - mean) @ directions.mT
    sums = []
    for penalty in _COLUMN_PENALTIES:
        share = power / (power + penalty * unit)
        diagonal = 1.0 - share @ directions**2
        missed = (new - mean - (scores * share) @ directions) / diagonal.clamp_min(_TINY)
        sums.append((seen * missed**2).sum(0))
    return torch.stack(sums)


def predictability(given: Tensor, wanted: Tensor) -> float:
    """R2 of one side's records from the other's, each predicted from all other pairs.

    Parameters
    ----------
    given : Tensor (N, P)
    wanted : Tensor (N, Q)

    Returns
    -------
    float
        Of the best of a few kernel ridge regressions; 0 of fewer than ten pairs.
    """
    rows = _some(len(given))
    if len(rows) < _FEWEST_ROWS:
        return 0.0
    given, wanted = given[rows].double(), wanted[rows].double()
    wanted = wanted - wanted.mean(0)
    total, scale = float(wanted.square().sum()), float(given.var(0, correction=0).sum())
    if not (total > 0.0 and scale > 0.0):
        return 0.0
    distance = torch.cdist(given, given).square() / scale
    return 1.0 - min(min(_press(torch.exp(-width * distance), wanted)) for width in _WIDTHS) / total


def _press(kernel: Tensor, wanted: Tensor) -> list[float]:
    """Squared errors of each record predicted from the others, for each penalty."""
    size, vectors = torch.linalg.eigh(kernel)
    turned = vectors.mT @ wanted
    found = []
    for penalty in _PENALTIES:
        inverse = 1.0 / (size.clamp_min(0.0) + penalty)
        missed = (vectors @ (inverse[:, None] * turned)) / (vectors**2 @ inverse)[:, None]
        found.append(float(missed.square().sum()))
    return found


def noise_share(r2: float, n_pairs: int) -> float:
    """Part c of what is unexplained that serves as noise; 0 to 1."""
    r2 = min(max(r2, _LEAST_R2), 1.0)
    return min(1.0, math.sqrt(_COEFFICIENTS * (1.0 - r2) / (r2 * max(n_pairs, 1))))


def _some(n: int) -> Tensor:
    """Numbers of at most ``_MOST_ROWS`` rows, in random order: neighbours may be alike."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:_MOST_ROWS]
