"""What reconstructions leave out and is more than noise, given back: a local Wiener filter.

A model knows what training records have in common. Where a record differs, the residual is the
record's own: large in one place and smooth along time, as noise is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

__all__ = ["ResidualFilter", "fit_filter"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SCALES = (8.0, 4.0, 2.0, 1.0)  # steps, standard deviations of the smoothing kernels
_SPANS = 32  # so many times a scale must fit into a record
_NEIGHBOURHOOD = (2.0, 8.0)  # of the local power: times the scale, and at least so many steps
_MARGIN = 2.0  # times the noise's power counts as noise, since local power is uncertain
_SPIKE = 4.0  # spreads beyond its neighbours' sizes
_MAD_TO_SIGMA = 1.4826  # of the normal distribution
_LEAST_WEIGHT = 1e-3  # of known entries under a kernel; less is a gap
_MOST_VALUES = 2**20  # filtered at once


@dataclass(frozen=True, eq=False)
class ResidualFilter:
    """Filter that keeps of residuals what stands out from noise.

    Attributes
    ----------
    scales : ndarray of shape (K,)
        Standard deviations of the smoothing kernels in steps, coarse to fine. None: the filter
        keeps nothing.
    noise : ndarray of shape (K, F)
        Power of the noise smoothed at each scale, in what coarser scales left.
    spread : ndarray of shape (F,)
        Standard deviation of the noise itself.

    Notes
    -----
    First an entry is brought within four spreads of the larger of its neighbours' sizes, so that
    a single spike stays noise. At each scale the residual is then smoothed to s by a normal
    kernel, p is the mean of s^2 in the neighbourhood, and s max(0, p - 2 v) / p is kept and taken
    off the residual, with v the noise's power: a Wiener filter with local variance (Lee 1980, IEEE
    PAMI 2, 165) on what a model leaves in place of deviations from a local mean.
    """

    scales: Array
    noise: Array
    spread: Array

    def __call__(self, residual: Array, mask: Mask) -> Array:
        """Return what residuals (N, W, F), known where ``mask``, hold beyond noise."""
        size = max(1, _MOST_VALUES // max(1, residual[:1].size))
        kept = np.zeros_like(residual)
        for begin in range(0, len(residual) if len(self.scales) else 0, size):
            part = slice(begin, begin + size)
            seen = mask[part]
            left = _without_spikes(np.where(seen, residual[part], 0.0), self.spread)
            for scale, noise in zip(self.scales, self.noise, strict=True):
                taken = _kept(_smooth(left, seen, scale), noise)
                left -= np.where(seen, taken, 0.0)
                kept[part] += taken
        return kept

    def to_arrays(self) -> dict[str, Array]:
        """Arrays by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> ResidualFilter:
        """Inverse of :meth:`to_arrays`."""
        return cls(**{name: np.asarray(value, dtype=float) for name, value in arrays.items()})


def fit_filter(residual: Array, mask: Mask) -> ResidualFilter:
    """Measure the noise at each scale on the residuals of training records.

    Parameters
    ----------
    residual : ndarray of shape (N, W, F)
        Signals minus reconstructions, in model units.
    mask : bool ndarray of shape (N, W, F)
        Where the signals are observed.

    Returns
    -------
    ResidualFilter

    Notes
    -----
    By medians, since noise is everywhere and what a model does not know is in few places; where
    it is everywhere too it counts as noise.
    """
    left, noise = np.where(mask, residual, 0.0), []
    spread = np.sqrt(_median_power(left, mask))
    left = _without_spikes(left, spread)
    scales = [scale for scale in _SCALES if scale * _SPANS <= residual.shape[1]]
    for scale in scales:
        smoothed = _smooth(left, mask, scale)
        noise.append(_median_power(smoothed.values, mask))
        left -= np.where(mask, _kept(smoothed, noise[-1]), 0.0)
    power = np.array(noise).reshape(len(scales), mask.shape[2])
    return ResidualFilter(np.array(scales), power, spread)


def _without_spikes(residual: Array, spread: Array) -> Array:
    """Bring entries within some spreads of their neighbours' sizes."""
    sizes = np.pad(np.abs(residual), ((0, 0), (1, 1), (0, 0)))
    bound = np.maximum(sizes[:, :-2], sizes[:, 2:]) + _SPIKE * spread
    limited: Array = np.clip(residual, -bound, bound)
    return limited


class _Smoothed(NamedTuple):
    """Residuals at one scale: values, their local power, and the noise's, 1 where all is known."""

    values: Array
    power: Array
    noisier: Array


def _smooth(residual: Array, mask: Mask, scale: float) -> _Smoothed:
    """Average known residuals along time; unknown ones are 0."""
    known = mask[:1] if mask.all() else mask
    weight = known.astype(float)
    total = _average(weight, scale)
    gap = total < _LEAST_WEIGHT
    total[gap] = 1.0
    values = np.where(gap, 0.0, _average(residual, scale) / total)
    # The square of a normal kernel is one of a variance half as large.
    noisier = np.where(gap, 1.0, _average(weight, scale / np.sqrt(2.0)) / total**2)
    wide = max(_NEIGHBOURHOOD[0] * scale, _NEIGHBOURHOOD[1])
    around = np.maximum(_average(weight, wide), _LEAST_WEIGHT)
    power = _average(np.where(known, values, 0.0) ** 2, wide) / around
    return _Smoothed(values, power, noisier)


def _kept(smoothed: _Smoothed, noise: Array) -> Array:
    excess = np.maximum(smoothed.power - _MARGIN * noise * smoothed.noisier, 0.0)
    gain = excess / np.where(smoothed.power > 0.0, smoothed.power, 1.0)
    kept: Array = gain * smoothed.values
    return kept


def _average(values: Array, scale: float) -> Array:
    """Weighted sum along time by a normal kernel of sum 1; nothing lies beyond the ends."""
    summed: Array = gaussian_filter1d(values, scale, axis=1, mode="constant")
    return summed


def _median_power(values: Array, mask: Mask) -> Array:
    """Power (F,) of the normal distribution that has the median size of known values."""
    power = []
    for feature in range(values.shape[2]):
        sizes = np.abs(values[..., feature][mask[..., feature]])
        power.append((_MAD_TO_SIGMA * np.median(sizes)) ** 2 if len(sizes) else 0.0)
    return np.array(power)
