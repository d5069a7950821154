"""Range of the training records of a side: outside of it predictions are extrapolations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsvae._linker.gaps import Growth, share_known

__all__ = ["SideRange", "fit_range", "range_bounds"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_QUANTILE = 0.99  # of the training records
_MARGIN = 1.5  # times that quantile is still within the range
_ARRAYS = ("location", "whitening", "farthest", "noise", "worst")
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
    farther, worse : Growth
        Of both bounds, for records of which less is known.
    """

    location: Array
    whitening: Array
    farthest: float
    noise: Array
    worst: float
    farther: Growth = field(default_factory=Growth.none)
    worse: Growth = field(default_factory=Growth.none)

    def outside(self, values: Array, mask: Mask, own: Array, posterior: Array) -> Mask:
        """Whether records (N, W, F), reconstructed as ``own``, are unlike those of training."""
        distance, misfit = self.measures(values, mask, own, posterior)
        known = share_known(mask)
        far = distance > self.farthest * self.farther.at(known)
        return far | (misfit > self.worst * self.worse.at(known))

    def measures(
        self, values: Array, mask: Mask, own: Array, posterior: Array
    ) -> tuple[Array, Array]:
        """Mahalanobis distance of each code, and root mean square of each residual over noise."""
        distance = np.linalg.norm((posterior[:, 0] - self.location) @ self.whitening, axis=1)
        square = np.where(mask, ((values - own) / self.noise) ** 2, 0.0).sum(axis=(1, 2))
        return distance, np.sqrt(square / np.maximum(mask.sum(axis=(1, 2)), 1))

    def to_arrays(self) -> dict[str, Array]:
        """Arrays by name."""
        arrays = {name: np.asarray(getattr(self, name)) for name in _ARRAYS}
        for name in ("farther", "worse"):
            growth: Growth = getattr(self, name)
            arrays |= {f"{name}_known": growth.known, f"{name}_times": growth.times}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> SideRange:
        """Inverse of :meth:`to_arrays`."""
        found = {name: np.asarray(value, dtype=float) for name, value in arrays.items()}
        farthest, worst = (float(found.pop(name)) for name in ("farthest", "worst"))
        farther, worse = (
            Growth(found.pop(f"{name}_known"), found.pop(f"{name}_times"))
            for name in ("farther", "worse")
        )
        return cls(farthest=farthest, worst=worst, farther=farther, worse=worse, **found)


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
    farthest, worst = range_bounds(known, values, mask, own, posterior)
    return SideRange(location, whitening, farthest, noise, worst)


def range_bounds(
    known: SideRange, values: Array, mask: Mask, own: Array, posterior: Array
) -> tuple[float, float]:
    """Bounds on distance and misfit: 1.5 times what 99 % of the records have."""
    measures = known.measures(values, mask, own, posterior)
    farthest, worst = (
        float(max(_MARGIN * np.quantile(measure, _QUANTILE), _LEAST)) for measure in measures
    )
    return farthest, worst
