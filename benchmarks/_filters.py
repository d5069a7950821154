"""Classical denoisers of records (N, T): wavelet shrinkage, Savitzky-Golay, Wiener."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MEDIAN_OF_NORMAL = 0.6745  # median of |x| for a standard normal x

WAVELETS = ("db4", "sym4", "sym8", "bior4.4")
LEVELS = (3, 4, 5, 6)
SAVGOL_WINDOWS = range(5, 32, 2)
SAVGOL_ORDERS = (2, 4)


class Tuned(NamedTuple):
    """A filter with the settings that were best on the training half."""

    apply: Callable[[Array], Array]
    settings: dict[str, Any]


def bayes_shrink(
    x: Array, *, wavelet: str, level: int, noise_variance: float | None = None
) -> Array:
    """Soft-threshold wavelet coefficients, one threshold a level and record.

    Chang, Yu & Vetterli (2000), IEEE Trans. Image Processing 9, 1532: threshold sigma^2 / sigma_x,
    with sigma, if it is not given, from the median of the finest coefficients. Where gaps have been
    interpolated, that is too small.
    """
    import pywt

    approximation, *details = pywt.wavedec(x, wavelet, level=level, axis=-1)
    if noise_variance is None:
        finest = np.abs(details[-1])
        variance = (np.median(finest, axis=-1, keepdims=True) / MEDIAN_OF_NORMAL) ** 2
    else:
        variance = np.float64(noise_variance)
    shrunk = [approximation]
    for detail in details:
        of_signal = np.mean(detail**2, axis=-1, keepdims=True) - variance
        with np.errstate(divide="ignore"):
            threshold = np.where(of_signal > 0, variance / np.sqrt(of_signal.clip(0)), np.inf)
        shrunk.append(np.sign(detail) * (np.abs(detail) - threshold).clip(0))
    return pywt.waverec(shrunk, wavelet, axis=-1)[..., : x.shape[-1]]


def savitzky_golay(x: Array, *, window: int, order: int) -> Array:
    """Fit a polynomial to the neighbours of each step."""
    from scipy.signal import savgol_filter

    return savgol_filter(x, window, order, axis=-1)


def tune(
    function: Callable[..., Array], grid: Iterable[dict[str, Any]], noisy: Array, clean: Array
) -> Tuned:
    """Choose the settings with the least squared error on the training half."""

    def error(settings: dict[str, Any]) -> float:
        return float(np.mean((function(noisy, **settings) - clean) ** 2))

    best = min(grid, key=error)
    return Tuned(lambda x: function(x, **best), best)


def tune_wavelet(noisy: Array, clean: Array, noise_variance: float) -> Tuned:
    import pywt

    grid = (
        {"wavelet": name, "level": level, "noise_variance": variance}
        for name in WAVELETS
        for level in LEVELS
        for variance in (None, noise_variance)
        if level <= pywt.dwt_max_level(noisy.shape[-1], name)
    )
    return tune(bayes_shrink, grid, noisy, clean)


def tune_savitzky_golay(noisy: Array, clean: Array, noise_variance: float) -> Tuned:
    grid = ({"window": w, "order": k} for w in SAVGOL_WINDOWS for k in SAVGOL_ORDERS if k < w)
    return tune(savitzky_golay, grid, noisy, clean)


class Wiener:
    """Best linear estimate of a window from the covariance of clean windows and of white noise."""

    def __init__(self, clean: Array, noise_variance: float) -> None:
        self.mean = clean.mean(axis=0)
        self.covariance = np.cov(clean, rowvar=False, bias=True)
        self.noise = noise_variance * np.eye(clean.shape[1])

    def apply(self, x: Array) -> Array:
        """Estimate complete windows."""
        gain = np.linalg.solve(self.covariance + self.noise, self.covariance)
        return self.mean + (x - self.mean) @ gain

    def apply_to_observed(self, x: Array) -> Array:
        """Estimate windows with NaN from what is observed: the same, without interpolation."""
        return np.stack([self._one(row) for row in x])

    def _one(self, row: Array) -> Array:
        seen = np.isfinite(row)
        both = (self.covariance + self.noise)[np.ix_(seen, seen)]
        weights = np.linalg.solve(both, (row - self.mean)[seen])
        return self.mean + self.covariance[:, seen] @ weights


def interpolate(x: Array) -> Array:
    """Fill NaN in records (N, T) by straight lines; the ends repeat the nearest value."""
    steps = np.arange(x.shape[1])
    filled = x.copy()
    for row in filled:
        seen = np.isfinite(row)
        row[~seen] = np.interp(steps[~seen], steps[seen], row[seen])
    return filled
