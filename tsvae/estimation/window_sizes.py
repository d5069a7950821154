"""How large the movements in a window are: as a whole, and by the phase of its season."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cycle_of", "phase_sizes", "window_sizes"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FEWEST_ENTRIES = 8  # of a window whose size is known
_FEWEST_CYCLES = 3  # of a season whose phases are told apart
_HALF_LIFE = 7.0  # cycles after which a difference counts half
_TINY = 1e-12


def window_sizes(values: Array, mask: Mask) -> Array:
    """Log standard deviation ``(N, F)`` of the observed entries of windows; NaN for too few."""
    count = mask.sum(1)
    mean = np.where(mask, values, 0.0).sum(1) / count.clip(1)
    square = np.where(mask, (values - mean[:, None]) ** 2, 0.0).sum(1) / count.clip(1)
    return np.where(count >= _FEWEST_ENTRIES, np.log(np.sqrt(square) + _TINY), np.nan)


def cycle_of(periods: list[float], context: int) -> int:
    """First period, in whole steps, of which a window shows enough cycles; 0 for none.

    Examples
    --------
    >>> cycle_of([24.0, 168.0], 512)
    24
    >>> cycle_of([365.25], 512)
    0
    """
    whole = (round(period) for period in periods)
    return next((cycle for cycle in whole if 2 <= cycle <= context // _FEWEST_CYCLES), 0)


def phase_sizes(values: Array, mask: Mask, cycle: int, horizon: int) -> Array:
    """Log size of changes from one cycle to the next at the phases of the steps ahead.

    The root of the mean square of differences between entries a cycle apart, at each step's own
    phase; differences of ``7`` cycles ago count half as much as the latest.

    Parameters
    ----------
    values : ndarray (N, T, F)
        Windows that end where forecasts begin.
    mask : bool ndarray (N, T, F)
    cycle : int
        Steps of a season.
    horizon : int
        H.

    Returns
    -------
    ndarray (N, H, F)
        NaN where a phase has no two entries that follow each other.

    Examples
    --------
    >>> x = np.array([0.0, 0, 1, 0, 2, 0, 3, 0]).reshape(1, 8, 1)
    >>> np.exp(phase_sizes(x, np.ones_like(x, bool), 2, 4)).round(6).ravel().tolist()
    [1.0, 0.0, 1.0, 0.0]
    """
    n_windows, n_steps, n_features = values.shape
    n_cycles = n_steps // cycle
    if n_cycles < 2:
        return np.full((n_windows, horizon, n_features), np.nan)
    shape = (n_windows, n_cycles, cycle, n_features)
    x = values[:, n_steps - n_cycles * cycle :].reshape(shape)
    seen = mask[:, n_steps - n_cycles * cycle :].reshape(shape)
    both = seen[:, 1:] & seen[:, :-1]
    ago = np.arange(n_cycles - 2, -1, -1)
    weight = both * (0.5 ** (ago / _HALF_LIFE))[:, None, None]
    square = (weight * np.diff(x, axis=1) ** 2).sum(1)
    total = weight.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.where(total > 0, np.log(np.sqrt(square / total) + _TINY), np.nan)
    found: Array = size[:, np.arange(horizon) % cycle]
    return found
