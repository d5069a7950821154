"""Calendar covariates and natural seasonal periods of a time axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .clock import CalendarFields
from .index import PanelIndex

_HOUR, _DAY, _WEEK = 3_600.0, 86_400.0, 604_800.0
# Longer seasons than this are no lag anybody models directly (a year of minutes).
_MAX_PERIOD = 12_000
_HARMONICS = {"hour_of_day": 2, "day_of_week": 3, "day_of_year": 2}


class CalendarFeatures(NamedTuple):
    """Calendar covariates and their names.

    Attributes
    ----------
    values : ndarray of shape (B, T, U)
        Between -1 and 1; read-only where series share the stamps.
    names : list of str
        Names of the U covariates.
    """

    values: np.ndarray
    names: list[str]


def calendar_features(
    index: PanelIndex,
    horizon: int = 0,
    names: str | Sequence[str] = "auto",
    *,
    positions: np.ndarray | None = None,
) -> CalendarFeatures:
    """Return sines and cosines of the hour of day, day of week and day of year.

    Parameters
    ----------
    index : PanelIndex
    horizon : int, default=0
        Steps after the last grid row to add.
    names : "auto" or list of {"hour_of_day", "day_of_week", "day_of_year"}
        Which cycles; ``"auto"`` takes those at least two steps long.
    positions : int ndarray of shape (T,) or (B, T), optional
        Grid rows (relative to each series' first) instead of ``0 .. n_steps + horizon - 1``.

    Returns
    -------
    CalendarFeatures
        ``values`` of shape (B, T, U), read-only and not copied where all series share the stamps.
        U = 0 for axes outside the calendar (integers, timedeltas, no stamps) and yearly steps.

    Raises
    ------
    ValueError
        If a name is unknown.

    Examples
    --------
    >>> import pandas as pd
    >>> from tsvae.panel import read_panel
    >>> daily = pd.Series(np.arange(9.0), index=pd.date_range("2024-01-01", periods=9))
    >>> calendar_features(read_panel(daily).index).values.shape
    (1, 9, 10)
    """
    if positions is None:
        positions = np.arange(index.n_steps + horizon)
    positions = np.asarray(positions, dtype=np.int64)
    cycles = _cycles(index, names)
    shape = (index.n_series, positions.shape[-1])
    if not cycles or not positions.size:
        return CalendarFeatures(np.zeros((*shape, 0)), [])
    shared = positions.ndim == 1 and bool((index.starts == index.starts[0]).all())
    starts = index.starts[:1] if shared else index.starts
    absolute = starts[:, None] + positions
    low = int(absolute.min())
    fields = index.calendar_fields(np.arange(low, int(absolute.max()) + 1))
    assert fields is not None
    table, columns = _harmonics(fields, cycles)
    values = table[absolute - low]
    return CalendarFeatures(np.broadcast_to(values, (*shape, len(columns))), columns)


def _cycles(index: PanelIndex, names: str | Sequence[str]) -> list[str]:
    chosen = list(_HARMONICS) if isinstance(names, str) and names == "auto" else names
    if isinstance(chosen, str) or set(chosen) - set(_HARMONICS):
        raise ValueError(f"names must be 'auto' or a list of {list(_HARMONICS)}, got {names!r}.")
    seconds = index.clock.seconds
    if seconds is None or index.clock.kind not in ("datetime", "period", "cftime"):
        return []
    if names != "auto":
        return list(chosen)
    lengths = {"hour_of_day": _DAY, "day_of_week": _WEEK, "day_of_year": 360 * _DAY}
    # Whole cycles fall on the same phase: a daily step has no hour, a weekly one no weekday.
    return [name for name in chosen if seconds * 2 <= lengths[name]]


def _harmonics(fields: CalendarFields, cycles: list[str]) -> tuple[np.ndarray, list[str]]:
    phases = {
        "hour_of_day": fields.day_fraction,
        "day_of_week": fields.weekday / 7,
        "day_of_year": fields.year_fraction,
    }
    columns, names = [], []
    for cycle in cycles:
        for order in range(1, _HARMONICS[cycle] + 1):
            angle = 2 * np.pi * order * phases[cycle]
            columns += [np.sin(angle), np.cos(angle)]
            names += [f"{cycle}_sin{order}", f"{cycle}_cos{order}"]
    return np.stack(columns, axis=-1), names


def seasonal_periods(index: PanelIndex) -> list[float]:
    """Return the natural seasonal periods of the time step, in steps, ascending.

    Minute, hour, day, week and year, as far as they hold 2 to 12,000 steps (minutes only for
    steps up to a second, hours up to a minute).

    Parameters
    ----------
    index : PanelIndex

    Returns
    -------
    list of float
        Empty for axes outside the calendar (integers, timedeltas, no stamps).

    Examples
    --------
    >>> import pandas as pd
    >>> from tsvae.panel import read_panel
    >>> hours = pd.date_range("2024-01-01", periods=9, freq="h")
    >>> seasonal_periods(read_panel(pd.Series(range(9), index=hours)).index)
    [24.0, 168.0, 8766.0]
    """
    clock = index.clock
    seconds = clock.seconds
    if seconds is None or clock.kind not in ("datetime", "period", "cftime"):
        return []
    fields = index.calendar_fields(index.starts[:1])
    assert fields is not None
    candidates = [_DAY, _WEEK, fields.days_per_year * _DAY]
    if seconds <= 60:
        candidates.insert(0, _HOUR)
    if seconds <= 1:
        candidates.insert(0, 60.0)
    periods = [round(candidate / seconds, 6) for candidate in candidates]
    # A month is longer than a week: 12 steps a year is all there is to a monthly axis.
    return [period for period in periods if 2 <= period <= _MAX_PERIOD]
