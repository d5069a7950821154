"""Index arithmetic of windows: which windows there are, and only those copied out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .index import check_horizon


class WindowStarts(NamedTuple):
    """Where the windows are.

    Attributes
    ----------
    series : int ndarray of shape (W,)
        Series number of each window.
    start : int ndarray of shape (W,)
        Its first grid row.
    """

    series: np.ndarray
    start: np.ndarray


class Origins(NamedTuple):
    """Forecast origins: the rows before ``origin`` are history.

    Attributes
    ----------
    series : int ndarray of shape (W,)
        Series number of each origin.
    origin : int ndarray of shape (W,)
        First grid row to forecast.
    """

    series: np.ndarray
    origin: np.ndarray


def window_starts(
    lengths: np.ndarray,
    window: int,
    stride: int = 1,
    mask: np.ndarray | None = None,
    *,
    min_observed: int = 1,
    cover_end: bool = True,
) -> WindowStarts:
    """Return the windows of every series.

    Parameters
    ----------
    lengths : int ndarray of shape (B,)
        Grid rows of each series.
    window : int
        Rows of a window. A shorter series has one window, from its first row.
    stride : int, default=1
        Rows between window starts.
    mask : bool ndarray of shape (B, T, F), optional
        Drops windows with fewer than ``min_observed`` observed values.
    min_observed : int, default=1
        Used with ``mask``.
    cover_end : bool, default=True
        Whether to add the window that ends at each series' last row if the stride misses it.

    Returns
    -------
    WindowStarts
        Series after series, starts ascending.

    Examples
    --------
    >>> window_starts(np.array([5, 2]), window=3, stride=2)
    WindowStarts(series=array([0, 0, 1]), start=array([0, 2, 0]))
    """
    window = check_horizon(window, "window")
    stride = check_horizon(stride, "stride")
    lengths = np.asarray(lengths, dtype=np.int64)
    last = np.maximum(lengths - window, 0)
    count = last // stride + 1
    extra = (last % stride > 0) if cover_end else np.zeros(len(lengths), dtype=bool)
    count = np.where(lengths > 0, count + extra, 0)
    series = np.repeat(np.arange(len(lengths)), count)
    within = np.arange(len(series)) - np.repeat(np.cumsum(count) - count, count)
    starts = WindowStarts(series, np.minimum(within * stride, last[series]))
    if mask is None:
        return starts
    enough = count_observed(mask, starts, window) >= min_observed
    return WindowStarts(starts.series[enough], starts.start[enough])


def count_observed(mask: np.ndarray, starts: WindowStarts, window: int) -> np.ndarray:
    """Return the number of observed values in each window.

    Uses cumulative sums per series: O(B T F + W), no window is copied.

    Parameters
    ----------
    mask : bool ndarray of shape (B, T, F)
        True = observed.
    starts : WindowStarts
    window : int
        Rows of a window; rows past T count nothing.

    Returns
    -------
    int ndarray of shape (W,)
    """
    n_steps = mask.shape[1]
    per_row = mask.reshape(*mask.shape[:2], -1).sum(axis=2)
    total = np.zeros((mask.shape[0], n_steps + 1), dtype=np.int64)
    np.cumsum(per_row, axis=1, out=total[:, 1:])
    stop = np.minimum(starts.start + window, n_steps)
    return total[starts.series, stop] - total[starts.series, starts.start]


def gather(values: np.ndarray, series: np.ndarray, start: np.ndarray, window: int) -> np.ndarray:
    """Copy out the requested windows only.

    Parameters
    ----------
    values : ndarray of shape (B, T, ...)
    series, start : int ndarray of shape (W,)
        Which windows; ``0 <= start``.
    window : int
        Rows of a window. Rows past T are zero (False for masks).

    Returns
    -------
    ndarray of shape (W, window, ...)

    Examples
    --------
    >>> gather(np.arange(8).reshape(2, 4), np.array([1, 0]), np.array([1, 0]), 2)
    array([[5, 6],
           [0, 1]])
    """
    series, start = np.asarray(series), np.asarray(start)
    if len(start) and start.min() < 0:
        raise ValueError(f"start must not be negative, got {start.min()}.")
    n_steps = values.shape[1]
    if n_steps >= window and (not len(start) or start.max() + window <= n_steps):
        view = np.moveaxis(sliding_window_view(values, window, axis=1), -1, 2)
        return np.ascontiguousarray(view[series, start])
    rows = start[:, None] + np.arange(window)
    inside = rows < n_steps
    out = values[series[:, None], np.minimum(rows, n_steps - 1)]
    out[~inside] = 0
    return out


def rolling_origins(
    lengths: np.ndarray,
    horizon: int,
    *,
    n_origins: int | None = None,
    step: int | None = None,
    min_history: int = 1,
) -> Origins:
    """Return rolling forecast origins, counted back from each series' end.

    The last origin of a series leaves exactly ``horizon`` rows after it.

    Parameters
    ----------
    lengths : int ndarray of shape (B,)
    horizon : int
        Rows that follow each origin.
    n_origins : int, optional
        At most so many per series (the latest ones); None: all that fit.
    step : int, optional
        Rows between origins; ``horizon`` by default (forecasts do not overlap).
    min_history : int, default=1
        Fewest rows before an origin.

    Returns
    -------
    Origins
        Series after series, origins ascending. Series too short have none.

    Examples
    --------
    >>> rolling_origins(np.array([10]), horizon=3, min_history=2)
    Origins(series=array([0, 0]), origin=array([4, 7]))
    """
    horizon = check_horizon(horizon)
    step = horizon if step is None else check_horizon(step, "step")
    min_history = check_horizon(min_history, "min_history")
    lengths = np.asarray(lengths, dtype=np.int64)
    last = lengths - horizon
    count = np.maximum((last - min_history) // step + 1, 0)
    if n_origins is not None:
        count = np.minimum(count, check_horizon(n_origins, "n_origins"))
    series = np.repeat(np.arange(len(lengths)), count)
    within = np.arange(len(series)) - np.repeat(np.cumsum(count) - count, count)
    back = count[series] - 1 - within
    return Origins(series, last[series] - back * step)
