"""Range of the training records of a side: outside of it predictions are extrapolations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SideRange", "fit_range"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_QUANTILE = 0.99  # of the training records
_MARGIN = 1.5  # times that quantile is still within the range
_RIDGE = 1e-6  # of the largest variance of a code entry, and of the prior's
_LEAST = 1.0  # bound where training records hardly differ: rounding is no extrapolation


@dataclass(frozen=True, eq=False)
class SideRange:
    """What codes and errors of reconstruction training records have.

    Attributes
    ----------
    location : ndarray of shape (D,)
    whitening : ndarray of shape (D, D)
        Inverse square root of the codes' covariance.
    farthest : float
        Largest distance of a code within the range.
    noise : ndarray of shape (W, F)
        Root mean square residuals of reconstructions.
    worst : float
        Largest root mean square of residuals over noise within the range.
    """

    location: Array
    whitening: Array
    farthest: float
    noise: Array
    worst: float

    def outside(self, values: Array, mask: Mask, own: Array, posterior: Array) -> Mask:
        """Whether records (N, W, F), reconstructed as ``own``, are unlike those of training."""
        distance, misfit = _measures(self, values, mask, own, posterior)
        return (distance > self.farthest) | (misfit > self.worst)

    def to_arrays(self) -> dict[str, Array]:
        """Arrays by name."""
        return {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> SideRange:
        """Inverse of :meth:`to_arrays`."""
        found = {name: np.asarray(value, dtype=float) for name, value in arrays.items()}
        farthest, worst = (float(found.pop(name)) for name in ("farthest", "worst"))
        return cls(farthest=farthest, worst=worst, **found)


def _measures(
    known: SideRange, values: Array, mask: Mask, own: Array, posterior: Array
) -> tuple[Array, Array]:
    """Mahalanobis distance of each code, and root mean square of each residual over noise."""
    distance = np.linalg.norm((posterior[:, 0] - known.location) @ known.whitening, axis=1)
    square = np.where(mask, ((values - own) / known.noise) ** 2, 0.0).sum(axis=(1, 2))
    return distance, np.sqrt(square / np.maximum(mask.sum(axis=(1, 2)), 1))


def fit_range(values: Array, mask: Mask, own: Array, posterior: Array) -> SideRange:
    """Measure the range of training records.

    Parameters
    ----------
    values : ndarray of shape (N, W, F)
        In model units.
    mask : bool ndarray of shape (N, W, F)
    own : ndarray of shape (N, W, F)
        Their reconstructions.
    posterior : ndarray of shape (N, 2, D)

    Returns
    -------
    SideRange
        Its bounds are 1.5 times the 99 % quantiles over the records.
    """
    codes = posterior[:, 0]
    location = codes.mean(axis=0)
    covariance = (codes - location).T @ (codes - location) / len(codes)
    sizes, directions = np.linalg.eigh(covariance)
    floor = _RIDGE * max(sizes[-1], 1.0)
    whitening = directions / np.sqrt(np.maximum(sizes, floor))
    count = np.maximum(mask.sum(axis=0), 1)
    power = np.where(mask, (values - own) ** 2, 0.0).sum(axis=0) / count
    overall = power.mean(axis=0)
    noise = np.sqrt(np.maximum(power, np.maximum(1e-3 * overall, 1e-12)))
    known = SideRange(location, whitening, 0.0, noise, 0.0)
    measures = _measures(known, values, mask, own, posterior)
    bounds = [max(_MARGIN * np.quantile(measure, _QUANTILE), _LEAST) for measure in measures]
    return SideRange(location, whitening, float(bounds[0]), noise, float(bounds[1]))
