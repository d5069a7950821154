r"""How much the scale of errors follows what a window shows, by their Laplace likelihood.

With scale :math:`c_{kf} \exp(\theta' d)`, one c for each group of steps and variable and features d
of window and step, the best c are in closed form, and what remains,

.. math::
    \sum_{kf} n_{kf} \log \sum |e| \exp(-\theta' d) + \sum \theta' d,

is convex in the exponents :math:`\theta`: a few Newton steps. Estimates are shrunk to 0 by their
variance over blocks of time left out in turn, each a Newton step away.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_exponents"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_N_BLOCKS = 10  # of time (or series), left out in turn
_N_NEWTON = 20
_LONGEST_STEP = 0.5
_CLOSE = 1e-6
_LARGEST = 1.5  # exponent
_TINY = 1e-12


class _Sums(NamedTuple):
    """Sums over the entries of every block (J), group of steps (K) and variable (F)."""

    entries: Array  # (J, K, F)
    size: Array  # (J, K, F), of |e| exp(-theta' d)
    slope: Array  # (J, K, F, D), of the same times d
    bend: Array  # (J, K, F, D, D), of the same times d d'
    weight: Array  # (J, D), of d


def fit_exponents(
    errors: Array, seen: Mask, features: Array, groups: list[NDArray[np.int64]]
) -> Array:
    """Exponents of features, at least 0.

    Parameters
    ----------
    errors : ndarray (N, H, F)
        0 where not seen.
    seen : bool ndarray (N, H, F)
    features : ndarray (N, H, F, D)
        About 0 on the mean.
    groups : list of ndarray
        Steps ahead that share a level.

    Returns
    -------
    ndarray (D,)
        0 where there are fewer windows than blocks.
    """
    found = np.zeros(features.shape[-1])
    if len(errors) < _N_BLOCKS:
        return found
    use = np.array([bool(np.ptp(part[seen]) > _CLOSE) for part in np.moveaxis(features, -1, 0)])
    while use.any():
        theta, others = _minimise(np.abs(errors), seen, features[..., use], groups)
        if (theta >= 0).all():
            variance = (_N_BLOCKS - 1) / _N_BLOCKS * np.square(others - others.mean(0)).sum(0)
            share = np.maximum(0.0, 1.0 - variance / np.maximum(theta**2, _TINY))
            found[use] = np.minimum(theta, _LARGEST) * share
            break
        use[np.flatnonzero(use)[theta.argmin()]] = False
    return found


def _minimise(
    errors: Array, seen: Mask, features: Array, groups: list[NDArray[np.int64]]
) -> tuple[Array, Array]:
    """Best exponents ``(D,)``, and those without each block ``(J, D)``."""
    theta = np.zeros(features.shape[-1])
    for _ in range(_N_NEWTON):
        sums = _sum_up(errors, seen, features, groups, theta)
        step = _newton(*(part.sum(0) for part in sums))
        step *= min(1.0, _LONGEST_STEP / max(np.abs(step).max(), _TINY))
        theta = theta + step
        if np.abs(step).max() < _CLOSE:
            break
    sums = _sum_up(errors, seen, features, groups, theta)
    rest = (tuple(part.sum(0) - part[j] for part in sums) for j in range(_N_BLOCKS))
    return theta, np.stack([theta + _newton(*parts) for parts in rest])


def _sum_up(
    errors: Array, seen: Mask, features: Array, groups: list[NDArray[np.int64]], theta: Array
) -> _Sums:
    scaled = errors * np.exp(-(features @ theta))
    blocks = np.linspace(0, len(errors), _N_BLOCKS + 1).astype(np.int64)[:-1]
    steps = [int(group[0]) for group in groups]

    def total(values: Array) -> Array:
        return np.add.reduceat(np.add.reduceat(values, steps, axis=1), blocks, axis=0)

    sloped = scaled[..., None] * features
    size = features.shape[-1]
    bend = np.empty((len(blocks), len(steps), errors.shape[-1], size, size))
    for i in range(size):
        bend[..., i, :] = total(sloped[..., [i]] * features)
    weight = np.add.reduceat((seen[..., None] * features).sum((1, 2)), blocks, axis=0)
    return _Sums(total(seen.astype(float)), total(scaled), total(sloped), bend, weight)


def _newton(count: Array, size: Array, slope: Array, bend: Array, weight: Array) -> Array:
    """Newton step of the exponents."""
    known = (count > 0) & (size > _TINY)
    share = (np.where(known, count, 0.0) / np.maximum(size, _TINY))[..., None]
    mean = np.where(known, 1.0 / np.maximum(size, _TINY), 0.0)[..., None] * slope
    gradient = weight - (share * slope).sum((0, 1))
    spread = share[..., None] * (bend - mean[..., :, None] * slope[..., None, :])
    curvature = spread.sum((0, 1))
    ridge = (_TINY + _CLOSE * np.trace(curvature)) * np.eye(len(weight))
    step: Array = -np.linalg.solve(curvature + ridge, gradient)
    return step
