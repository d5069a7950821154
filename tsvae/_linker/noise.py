r"""How much noise inputs get in training: what else keeps networks off chance in few pairs.

Noise at the input acts as a penalty on slopes (Bishop 1995, Neural Computation 7, 108). Its
standard deviation in column j is :math:`c\,\sigma_j`:

- :math:`\sigma_j` is what the other columns of a record do not tell of it, by ridge regressions on
  records left out. Neighbours in a smooth profile tell each other nearly all, columns of a table
  little: what one entry says alone is what a network can mistake for a rule.
- :math:`c^2 = \min(1, K (1 - R^2) / (n R^2))` is a ridge regression's best penalty over the number
  n of pairs, with K coefficients; :math:`R^2`, what one side tells of the other, is that of kernel
  ridge regressions, each pair predicted from all others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import rbf_kernel

__all__ = ["noise_share", "predictability", "training_noise", "unexplained"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MOST_ROWS = 500
_FOLDS = 5
_FEWEST_ROWS = 2 * _FOLDS
_COLUMN_PENALTIES = np.logspace(-5, 2, 8)  # in mean variances
_WIDTHS = (0.05, 0.3, 2.0)  # of kernels, in inverse variances of a record
_PENALTIES = np.logspace(-4, 0, 5)
_COEFFICIENTS = 100.0  # K: on nine tables 200 and 400 are no better on average, none far worse
_LEAST_R2 = 0.05
_TINY = 1e-12


def training_noise(
    wanted: float | str, values: Array, mask: Mask, given: Array, other: Array
) -> Array:
    """Choose the standard deviation of the noise on each column of one side.

    Parameters
    ----------
    wanted : float or "auto"
        In standard deviations of each column.
    values : ndarray (N, P)
        Records of this side; 0 where not observed.
    mask : bool ndarray (N, P)
    given : ndarray (M, P)
        Those with a partner, and
    other : ndarray (M, Q)
        these partners.

    Returns
    -------
    ndarray (P,)
    """
    if wanted != "auto":
        return float(wanted) * values.std(axis=0)
    share = noise_share(predictability(given, other), len(given))
    return share * unexplained(values, mask)


def unexplained(values: Array, mask: Mask) -> Array:
    """Measure the standard deviation of each column about what the others tell of it.

    Parameters
    ----------
    values : ndarray (N, P)
        0 where not observed.
    mask : bool ndarray (N, P)

    Returns
    -------
    ndarray (P,)
        At most that of the column itself, and this of fewer than ten records.
    """
    rows = _some(len(values))
    values, mask = values[rows], mask[rows]
    own: Array = values.var(axis=0)
    if len(values) < _FEWEST_ROWS:
        return np.sqrt(own)
    square = np.zeros((len(_COLUMN_PENALTIES), values.shape[1]))
    for fold in range(_FOLDS):
        out = np.arange(len(values)) % _FOLDS == fold
        square += _left_out_squares(values[~out], values[out], mask[out])
    error = square / np.maximum(mask.sum(axis=0), 1)
    return np.sqrt(np.minimum(error[error.sum(axis=1).argmin()], own))


def _left_out_squares(known: Array, new: Array, seen: Mask) -> Array:
    """Sum squared errors of each column of new rows, for each penalty.

    With P the inverse of the penalised covariance, column j misses by (x P)_j / P_jj.
    """
    mean = known.mean(axis=0)
    _, size, directions = np.linalg.svd(known - mean, full_matrices=False)
    power = size**2
    unit = max(power.sum() / known.shape[1], _TINY)
    scores = (new - mean) @ directions.T
    sums = []
    for penalty in _COLUMN_PENALTIES * unit:
        share = power / (power + penalty)
        diagonal = 1.0 - share @ directions**2
        missed = (new - mean - (scores * share) @ directions) / np.maximum(diagonal, _TINY)
        sums.append((seen * missed**2).sum(axis=0))
    return np.stack(sums)


def predictability(given: Array, wanted: Array) -> float:
    """R2 of one side's records from the other's, each predicted from all other pairs.

    Parameters
    ----------
    given : ndarray (N, P)
    wanted : ndarray (N, Q)

    Returns
    -------
    float
        Of the best of a few kernel ridge regressions; 0 of fewer than ten pairs.
    """
    rows = _some(len(given))
    if len(rows) < _FEWEST_ROWS:
        return 0.0
    given, wanted = given[rows], wanted[rows] - wanted[rows].mean(axis=0)
    total, scale = np.square(wanted).sum(), given.var(axis=0).sum()
    if not (total > 0.0 and scale > 0.0):
        return 0.0
    errors = (
        e for width in _WIDTHS for e in _press(rbf_kernel(given, gamma=width / scale), wanted)
    )
    return float(1.0 - min(errors) / total)


def _press(kernel: Array, wanted: Array) -> list[float]:
    """Squared errors of each record predicted from the others, for each penalty."""
    size, vectors = np.linalg.eigh(kernel)
    turned = vectors.T @ wanted
    found = []
    for penalty in _PENALTIES:
        inverse = 1.0 / (np.maximum(size, 0.0) + penalty)
        missed = (vectors @ (inverse[:, None] * turned)) / (vectors**2 @ inverse)[:, None]
        found.append(float(np.square(missed).sum()))
    return found


def noise_share(r2: float, n_pairs: int) -> float:
    """Part c of what is unexplained that serves as noise; 0 to 1."""
    r2 = float(np.clip(r2, _LEAST_R2, 1.0))
    return float(min(1.0, np.sqrt(_COEFFICIENTS * (1.0 - r2) / (r2 * max(n_pairs, 1)))))


def _some(n: int) -> NDArray[np.int64]:
    """Numbers of at most ``_MOST_ROWS`` rows, in random order: neighbours may be alike."""
    return np.random.default_rng(0).permutation(n)[:_MOST_ROWS]
