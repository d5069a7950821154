"""Find the one time step of a table of stamps, or say why there is none."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .clock import (
    CFTimeClock,
    Clock,
    DatetimeClock,
    IntegerClock,
    PeriodClock,
    TimedeltaClock,
    kind_of,
)
from .fields import timedelta, zone_name
from .frequency import FreqSpec, nice_freq, parse_freq, parse_offset
from .stamps import StampTable
from .units import TICKS_PER_SECOND, CalendarUnit, month_anchor, ticks_per_day, weekday

_RESOLUTIONS = ["s", "ms", "us", "ns"]
_MIN_MONTH_DAYS = 28


class _Failure(NamedTuple):
    """The first row whose gap is not a whole number of steps."""

    row: int
    gap: int
    step: int
    across_series: bool


def infer_clock(table: StampTable, freq: Any = None, source: pd.Index | None = None) -> Clock:
    """Return the clock on which all stamps lie.

    Parameters
    ----------
    table : StampTable
        Sorted stamps without duplicates.
    freq : str, offset, timedelta, int or Clock, optional
        The step if the caller knows it.
    source : pd.Index, optional
        The caller's index; its own ``freq`` or ``step`` is used when ``freq`` is None.

    Returns
    -------
    Clock

    Raises
    ------
    ValueError
        If no single step fits.
    """
    if isinstance(freq, Clock):
        return freq
    kind = kind_of(table.stamps)
    if kind == "integer":
        return _integer_clock(table, freq, source)
    if kind == "period":
        return _period_clock(table, freq)
    spec = None if freq is None else parse_freq(freq)
    if spec is None and getattr(source, "freq", None) is not None and kind != "cftime":
        spec = _own_spec(source)
    if kind == "timedelta":
        return _timedelta_clock(table, spec, freq)
    if kind == "cftime":
        return _cftime_clock(table, spec, freq)
    return _datetime_clock(table, spec, freq)


def _own_spec(source: Any) -> FreqSpec | None:
    """Parse an index's own frequency; exotic ones (semi-months, ...) fall back to inference."""
    try:
        return parse_offset(source.freq)
    except ValueError:
        return None


def _step_of(table: StampTable, ordinals: np.ndarray) -> int | None:
    """Return the smallest gap within a series, else between series, None for a single stamp."""
    gap, _ = table.gaps(ordinals)
    if not len(gap):
        gap = np.diff(np.unique(ordinals))
    return int(gap.min()) if len(gap) else None


def _origin(table: StampTable, ordinals: np.ndarray) -> int:
    return int(table.per_row(ordinals).min())


def _failure(table: StampTable, ordinals: np.ndarray, step: int) -> _Failure | None:
    """Return the first row off the grid: by its gap, else by its series' phase."""
    gap, row = table.gaps(ordinals)
    off = np.flatnonzero(gap % step)
    if len(off):
        return _Failure(int(row[off[0]]), int(gap[off[0]]), step, False)
    offset = table.per_row(ordinals) - _origin(table, ordinals)
    off = np.flatnonzero(offset % step)
    return _Failure(int(off[0]), int(offset[off[0]]), step, True) if len(off) else None


def _raise_uneven(table: StampTable, failure: _Failure, show: Any, remedy: str) -> None:
    if failure.across_series:
        raise ValueError(
            f"The series of {table.name} do not share one time grid: {table.place(failure.row)} "
            f"lies {show(failure.gap)} after the first stamp, not a whole multiple of the step "
            f"{show(failure.step)}. Pass a finer freq=, or resample all series to one grid."
        )
    raise ValueError(
        f"Cannot infer one time step of {table.name}: the smallest gap is {show(failure.step)}, "
        f"but {table.place(failure.row)} follows {show(failure.gap)} after the stamp before it, "
        f"not a whole multiple. {remedy}"
    )


def _raise_off_grid(table: StampTable, row: int, freq: Any) -> None:
    raise ValueError(
        f"{table.place(row)} of {table.name} is not on the grid of freq={freq!r} that starts at "
        f"{table.stamp(0)}. Pass a finer freq=, or resample first, for example "
        f"{table.remedies.resample.format(freq=freq)}."
    )


def _check_given(table: StampTable, clock: Clock, freq: Any) -> None:
    """Raise if a stamp lies off the grid of a given frequency."""
    on_grid = table.per_row(clock.place(table.stamps, table.name).on_grid)
    if not on_grid.all():
        _raise_off_grid(table, int(np.flatnonzero(~on_grid)[0]), freq)


def _integer_clock(table: StampTable, freq: Any, source: pd.Index | None) -> Clock:
    ordinals = table.stamps.to_numpy()
    if freq is not None and (isinstance(freq, bool) or not isinstance(freq, (int, np.integer))):
        raise TypeError(
            f"freq must be an integer for the integer time axis of {table.name}, got {freq!r}."
        )
    if freq is not None and freq < 1:
        raise ValueError(f"freq must be a positive step, got {freq!r}.")
    own = source.step if isinstance(source, pd.RangeIndex) else 1
    step = int(freq) if freq is not None else _step_of(table, ordinals) or abs(own)
    dtype = "range" if isinstance(source, pd.RangeIndex) else _plain_dtype(source)
    clock = IntegerClock(step=step, origin=_origin(table, ordinals), dtype=dtype)
    failure = _failure(table, ordinals, step)
    if failure is not None and freq is not None:
        _raise_off_grid(table, failure.row, freq)
    if failure is not None:
        _raise_uneven(table, failure, str, "Pass freq=1 (or the step that is meant).")
    return clock


def _plain_dtype(source: pd.Index | None) -> str:
    """Return the numpy dtype of integer labels; nullable and object ones become int64."""
    if source is None or isinstance(source, pd.MultiIndex):
        return "int64"
    dtype = source.dtype
    return str(dtype) if isinstance(dtype, np.dtype) and dtype.kind in "iuf" else "int64"


def _period_clock(table: StampTable, freq: Any) -> Clock:
    periods = table.stamps
    own = periods.freqstr  # type: ignore[attr-defined]
    if freq is not None and str(freq) != own:
        raise ValueError(
            f"freq={freq!r} differs from the freq {own!r} of the periods of {table.name}; leave "
            f"freq out, or convert with {table.name}.index.asfreq({freq!r})."
        )
    ordinals = periods.asi8  # type: ignore[attr-defined]
    step = int(periods.freq.n)  # type: ignore[attr-defined]
    failure = _failure(table, ordinals, step)
    if failure is not None:
        _raise_off_grid(table, failure.row, own)
    return PeriodClock(step=step, origin=_origin(table, ordinals), period=own)


def _in_ticks(spec: FreqSpec, resolution: str, freq: Any) -> int:
    """Return the ticks of a fixed step; ValueError for calendar steps."""
    per_second = TICKS_PER_SECOND[resolution]
    nanos = spec.number if spec.unit == "tick" else spec.number * 86_400 * 10**9
    if spec.unit not in ("tick", "day"):
        raise ValueError(f"freq={freq!r} needs calendar stamps; use a fixed step such as '1s'.")
    return nanos * per_second // 10**9


def _finer(resolution: str, spec: FreqSpec | None) -> str:
    """Return the coarsest resolution, at least as fine as given, that holds the step."""
    if spec is None or spec.unit != "tick":
        return resolution
    start = _RESOLUTIONS.index(resolution)
    for unit in _RESOLUTIONS[start:]:
        if spec.number * TICKS_PER_SECOND[unit] % 10**9 == 0:
            return unit
    return "ns"


def _timedelta_clock(table: StampTable, spec: FreqSpec | None, freq: Any) -> Clock:
    resolution = _finer(table.stamps.unit, spec)  # type: ignore[attr-defined]
    ordinals = TimedeltaClock(resolution=resolution).ordinals(table.stamps)
    step = _step_of(table, ordinals) if spec is None else _in_ticks(spec, resolution, freq)
    clock = TimedeltaClock(step, _origin(table, ordinals), resolution)
    return _finish_ticks(table, clock, ordinals, None if spec is None else freq, resolution)


def _finish_ticks(
    table: StampTable, clock: Clock, ordinals: np.ndarray, freq: Any, resolution: str
) -> Clock:
    """Check that all stamps are whole steps apart and explain jitter otherwise."""
    if clock.step is None:
        return clock
    if freq is not None:
        _check_given(table, clock, freq)
        return clock
    failure = _failure(table, ordinals, clock.step)
    if failure is None:
        return clock
    gap, _ = table.gaps(ordinals)
    near = nice_freq(float(np.median(gap)) / TICKS_PER_SECOND[resolution])
    remedy = (
        f"Put the stamps on an even grid, for example {table.remedies.resample.format(freq=near)}, "
        "or pass freq= if they lie on a finer grid."
    )
    _raise_uneven(table, failure, lambda ticks: str(timedelta(ticks, resolution)), remedy)
    raise AssertionError("unreachable")


def _cftime_clock(table: StampTable, spec: FreqSpec | None, freq: Any) -> Clock:
    first = table.stamps[0]
    base = {"calendar": first.calendar, "has_year_zero": bool(first.has_year_zero)}
    ticks = CFTimeClock(**base).ordinals(table.stamps)
    for unit in _cftime_months(table, spec, ticks):
        draft = CFTimeClock(unit=unit, **base)
        months = draft.ordinals(table.stamps)
        step = _step_of(table, months) if spec is None else spec.number
        if step is None or not draft.matches(table.stamps, months).all():
            continue
        if _failure(table, months, step) is None:
            return CFTimeClock(step, _origin(table, months), unit=unit, **base)
    if spec is not None and spec.unit == "month":
        _raise_off_grid(table, 0, freq)
    step = _step_of(table, ticks) if spec is None else _in_ticks(spec, "us", freq)
    clock = CFTimeClock(step, _origin(table, ticks), **base)
    return _finish_ticks(table, clock, ticks, None if spec is None else freq, "us")


def _cftime_months(
    table: StampTable, spec: FreqSpec | None, ticks: np.ndarray
) -> list[CalendarUnit]:
    """Return the month units that may fit, in order of preference."""
    step = _step_of(table, ticks)
    if spec is None and (step is None or step < _MIN_MONTH_DAYS * ticks_per_day("us")):
        return []
    if spec is not None and spec.unit != "month":
        return []
    time_of_day = int(ticks[0] % ticks_per_day("us"))
    days = [d.day for d in table.stamps]
    at_end = all(d.day == d.daysinmonth for d in table.stamps)
    anchors = (["end"] if at_end else []) + [str(max(days))]
    return [CalendarUnit("month", time_of_day, anchor) for anchor in anchors]


def _datetime_clock(table: StampTable, spec: FreqSpec | None, freq: Any) -> Clock:
    stamps = table.stamps
    resolution = _finer(stamps.unit, spec)  # type: ignore[attr-defined]
    tz = None if stamps.tz is None else zone_name(stamps.tz)  # type: ignore[attr-defined]
    base = {"resolution": resolution, "tz": tz}
    for unit in _datetime_units(table, spec, resolution):
        draft = DatetimeClock(unit=unit, **base)  # type: ignore[arg-type]
        ordinals = draft.ordinals(stamps)
        step = _step_of(table, ordinals) if spec is None else spec.number
        if spec is not None and spec.unit == "tick":
            step = _in_ticks(spec, resolution, freq)
        clock = DatetimeClock(step, _origin(table, ordinals), unit=unit, **base)  # type: ignore[arg-type]
        if spec is not None:
            _check_given(table, clock, freq if freq is not None else clock.freq)
            return clock
        if step is None or _failure(table, ordinals, step) is None:
            return clock
    return _finish_ticks(table, *_tick_clock(table, base, resolution), None, resolution)


def _tick_clock(
    table: StampTable, base: dict[str, Any], resolution: str
) -> tuple[Clock, np.ndarray]:
    draft = DatetimeClock(**base)
    ordinals = draft.ordinals(table.stamps)
    step = _step_of(table, ordinals)
    return DatetimeClock(step, _origin(table, ordinals), **base), ordinals


def _datetime_units(
    table: StampTable, spec: FreqSpec | None, resolution: str
) -> list[CalendarUnit]:
    """Return the calendar units that may fit, the most specific first."""
    stamps: Any = table.stamps
    wall = (stamps if stamps.tz is None else stamps.tz_localize(None)).as_unit(resolution).asi8
    day_ticks = ticks_per_day(resolution)
    time_of_day = int(wall[0] % day_ticks)
    days = wall // day_ticks
    if spec is not None:
        given = _given_anchor(days, spec) if spec.unit == "month" else "1"
        return [CalendarUnit(spec.unit, time_of_day, given)]
    if (wall % day_ticks != time_of_day).any():
        return [CalendarUnit("tick")]
    units = [CalendarUnit("day", time_of_day)]
    gap, row = table.gaps(days)
    step = _step_of(table, days)
    if step is not None and step >= _MIN_MONTH_DAYS and (anchor := month_anchor(days)):
        units.insert(0, CalendarUnit("month", time_of_day, anchor))
    if step == 1 and _is_business(days, gap, table.per_row(days)[row]):
        units.insert(0, CalendarUnit("business", time_of_day))
    return units


def _given_anchor(days: np.ndarray, spec: FreqSpec) -> str:
    """Prefer the anchor that the alias names, if the stamps have it."""
    from .units import month_days

    months = days.view("M8[D]").astype("M8[M]").astype(np.int64)
    wanted = spec.anchor or "1"
    if np.array_equal(month_days(months, wanted), days):
        return wanted
    return month_anchor(days) or wanted


def _is_business(days: np.ndarray, gap: np.ndarray, later: np.ndarray) -> bool:
    """Say whether no stamp is on a weekend and some rows step from Friday to Monday."""
    return bool((weekday(days) < 5).all() and ((gap == 3) & (weekday(later) == 0)).any())
