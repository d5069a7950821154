# ruff: noqa: D102 -- overriding methods share the docstring of the base class
"""Clocks: time stamps <-> integer positions on an evenly spaced grid.

A clock numbers stamps in its own unit (ticks, days, business days, months, periods, integers:
the *ordinal*) and counts every ``step`` ordinals as one grid position:
``ordinal = origin + step * position``. Positions may be negative (before the origin).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from .fields import CalendarFields, cftime_fields, datetime_fields, tick_freq
from .frequency import month_freq, parse_offset, step_seconds, week_freq
from .serialize import cftime_index
from .units import TICK_UNIT, TICKS_PER_SECOND, CalendarUnit


class Placement(NamedTuple):
    """Grid positions of stamps and which of them lie on the grid."""

    position: np.ndarray
    on_grid: np.ndarray


@dataclass(frozen=True)
class Clock:
    """No stamps: rows are numbered one after the other."""

    step: int | None = 1
    origin: int = 0

    kind: ClassVar[str] = "none"
    noun: ClassVar[str] = "no time stamps"

    def ordinals(self, stamps: pd.Index) -> np.ndarray:
        """Return stamps as integers in the clock's unit, rounded down."""
        return stamps.to_numpy(dtype=np.int64)

    def labels(self, ordinals: np.ndarray) -> pd.Index:
        """Return the stamps of ordinals."""
        return pd.Index(ordinals)

    def matches(self, stamps: pd.Index, ordinals: np.ndarray) -> np.ndarray:
        """Say which stamps are exactly those of their ordinals."""
        return np.ones(len(stamps), dtype=bool)

    def check_kind(self, stamps: pd.Index, name: str) -> None:
        """Raise if stamps are of another kind than the clock's."""
        kind = kind_of(stamps)
        if kind != self.kind:
            raise ValueError(
                f"The time axis of {name} has {_CLOCKS[kind].noun} (first: {stamps[0]}), but "
                f"{self.noun} are expected, as in the data it is compared with. Convert the index."
            )

    def place(self, stamps: pd.Index, name: str = "X") -> Placement:
        """Return the grid position of every stamp (rounded down) and whether it is on the grid."""
        self.check_kind(stamps, name)
        ordinals = self.ordinals(stamps)
        exact = self.matches(stamps, ordinals)
        offset = ordinals - self.origin
        if self.step is None:
            if offset.any():
                raise ValueError(unknown_step_message(name))
            return Placement(offset, exact)
        position = np.floor_divide(offset, self.step)
        return Placement(position, exact & (position * self.step == offset))

    def stamps(self, positions: np.ndarray, name: str = "X") -> pd.Index:
        """Return the stamps at grid positions."""
        positions = np.asarray(positions, dtype=np.int64)
        if self.step is None:
            if positions.any():
                raise ValueError(unknown_step_message(name))
            return self.labels(positions + self.origin)
        return self.labels(self.origin + self.step * positions)

    @property
    def freq(self) -> str | int | None:
        """The step as a pandas alias (or an integer), None where there is none."""
        return None

    @property
    def seconds(self) -> float | None:
        """Mean length of a step in seconds, None where it has none."""
        return None

    def fields(self, positions: np.ndarray) -> CalendarFields | None:
        """Return calendar fields of grid positions; None for clocks outside the calendar."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the clock as plain JSON values."""
        return {"kind": self.kind} | dataclasses.asdict(self)


@dataclass(frozen=True)
class IntegerClock(Clock):
    """Integers (or whole floats) ``dtype`` apart by ``step``."""

    dtype: str = "int64"

    kind: ClassVar[str] = "integer"
    noun: ClassVar[str] = "integer time stamps"

    def labels(self, ordinals: np.ndarray) -> pd.Index:
        if self.dtype == "range" and len(ordinals) and (np.diff(ordinals) == self.step).all():
            step = self.step or 1
            return pd.RangeIndex(int(ordinals[0]), int(ordinals[-1]) + step, step)
        return pd.Index(ordinals.astype("int64" if self.dtype == "range" else self.dtype))

    @property
    def freq(self) -> int | None:
        return self.step


@dataclass(frozen=True)
class DatetimeClock(Clock):
    """Datetimes: elapsed ticks below a day (UTC if tz-aware), calendar units from a day up."""

    resolution: str = "ns"
    tz: str | None = None
    unit: CalendarUnit = TICK_UNIT

    kind: ClassVar[str] = "datetime"
    noun: ClassVar[str] = "datetime stamps"

    def check_kind(self, stamps: pd.Index, name: str) -> None:
        super().check_kind(stamps, name)
        if (stamps.tz is None) != (self.tz is None):  # type: ignore[attr-defined]
            have, want = ("no time zone", self.tz) if self.tz else (stamps.tz, "no time zone")  # type: ignore[attr-defined]
            remedy = f"tz_localize({self.tz!r})" if self.tz else "tz_localize(None)"
            raise ValueError(
                f"The time stamps of {name} have {have}, but {want} is expected, as in the data it "
                f"is compared with. Use {name}.{remedy}."
            )

    def _wall(self, stamps: pd.DatetimeIndex) -> pd.DatetimeIndex:
        if self.tz is None:
            return stamps
        if self.unit.name == "tick":
            return stamps.tz_convert(None)
        return stamps.tz_convert(self.tz).tz_localize(None)

    def ordinals(self, stamps: pd.Index) -> np.ndarray:
        wall = self._wall(stamps)
        ticks = wall.asi8
        mine, theirs = TICKS_PER_SECOND[self.resolution], TICKS_PER_SECOND[wall.unit]
        ticks = ticks * (mine // theirs) if mine >= theirs else ticks // (theirs // mine)
        return self.unit.to_ordinal(ticks, self.resolution)

    def labels(self, ordinals: np.ndarray) -> pd.DatetimeIndex:
        wall = self.unit.to_wall(ordinals, self.resolution)
        stamps = pd.DatetimeIndex(wall.view(f"M8[{self.resolution}]"))
        if self.tz is None:
            return stamps
        if self.unit.name == "tick":
            return stamps.tz_localize("UTC").tz_convert(self.tz)
        first = np.ones(len(stamps), dtype=bool)
        return stamps.tz_localize(self.tz, ambiguous=first, nonexistent="shift_forward")

    def matches(self, stamps: pd.Index, ordinals: np.ndarray) -> np.ndarray:
        if self.unit.name == "tick":
            return np.asarray(stamps == self.labels(ordinals))
        wall = self.unit.to_wall(ordinals, self.resolution).view(f"M8[{self.resolution}]")
        same = np.asarray(self._wall(stamps) == pd.DatetimeIndex(wall))
        if self.tz is not None and not same.all():
            # A wall time that a DST change skips is shifted; compare the instants then.
            same |= np.asarray(stamps == self.labels(ordinals))
        return same

    @property
    def freq(self) -> str | None:
        if self.step is None:
            return None
        if self.unit.name == "tick":
            return tick_freq(self.step, self.resolution)
        if self.unit.name == "month":
            return month_freq(self.step, self.origin, self.unit.anchor)
        if self.unit.name == "day":
            return week_freq(self.step, self.origin)
        return "B" if self.step == 1 else f"{self.step}B"

    @property
    def seconds(self) -> float | None:
        if self.step is None:
            return None
        per = 1 / TICKS_PER_SECOND[self.resolution] if self.unit.name == "tick" else 0.0
        return self.step * (per or step_seconds(self.unit.name))

    def fields(self, positions: np.ndarray) -> CalendarFields:
        return datetime_fields(self.stamps(positions))  # type: ignore[arg-type]


@dataclass(frozen=True)
class TimedeltaClock(Clock):
    """Elapsed times without a calendar."""

    resolution: str = "ns"

    kind: ClassVar[str] = "timedelta"
    noun: ClassVar[str] = "timedelta stamps"

    def ordinals(self, stamps: pd.Index) -> np.ndarray:
        mine, theirs = TICKS_PER_SECOND[self.resolution], TICKS_PER_SECOND[stamps.unit]  # type: ignore[attr-defined]
        ticks = stamps.asi8  # type: ignore[attr-defined]
        return ticks * (mine // theirs) if mine >= theirs else ticks // (theirs // mine)

    def labels(self, ordinals: np.ndarray) -> pd.TimedeltaIndex:
        return pd.TimedeltaIndex(ordinals.view(f"m8[{self.resolution}]"))

    def matches(self, stamps: pd.Index, ordinals: np.ndarray) -> np.ndarray:
        return np.asarray(stamps == self.labels(ordinals))

    @property
    def freq(self) -> str | None:
        if self.step is None:
            return None
        return tick_freq(self.step, self.resolution)

    @property
    def seconds(self) -> float | None:
        return None if self.step is None else self.step / TICKS_PER_SECOND[self.resolution]


@dataclass(frozen=True)
class PeriodClock(Clock):
    """Periods of one pandas frequency; ordinals are pandas' period ordinals."""

    period: str = "D"

    kind: ClassVar[str] = "period"
    noun: ClassVar[str] = "periods"

    def check_kind(self, stamps: pd.Index, name: str) -> None:
        super().check_kind(stamps, name)
        if stamps.freqstr != self.period:  # type: ignore[attr-defined]
            raise ValueError(
                f"The periods of {name} have freq {stamps.freqstr!r}, but {self.period!r} is "  # type: ignore[attr-defined]
                f"expected, as in the data it is compared with. Use index.asfreq({self.period!r})."
            )

    def ordinals(self, stamps: pd.Index) -> np.ndarray:
        return stamps.asi8  # type: ignore[attr-defined]

    def labels(self, ordinals: np.ndarray) -> pd.PeriodIndex:
        return pd.PeriodIndex.from_ordinals(ordinals, freq=self.period)

    @property
    def freq(self) -> str | None:
        return self.period

    @property
    def seconds(self) -> float | None:
        base = pd.PeriodDtype(self.period).freq
        multiple = (self.step or 1) / base.n
        return multiple * offset_seconds(base)

    def fields(self, positions: np.ndarray) -> CalendarFields:
        return datetime_fields(self.stamps(positions).to_timestamp(how="start"))  # type: ignore[attr-defined]


@dataclass(frozen=True)
class CFTimeClock(Clock):
    """cftime dates of one climate calendar: elapsed microseconds, or months."""

    calendar: str = "standard"
    has_year_zero: bool = False
    unit: CalendarUnit = TICK_UNIT

    kind: ClassVar[str] = "cftime"
    noun: ClassVar[str] = "cftime stamps"
    _epoch: ClassVar[str] = "microseconds since 1970-01-01"

    def check_kind(self, stamps: pd.Index, name: str) -> None:
        super().check_kind(stamps, name)
        if stamps[0].calendar != self.calendar:
            raise ValueError(
                f"The cftime stamps of {name} use the calendar {stamps[0].calendar!r}, but "
                f"{self.calendar!r} is expected, as in the data it is compared with."
            )

    def _options(self) -> dict[str, Any]:
        return {"calendar": self.calendar, "has_year_zero": self.has_year_zero}

    def ordinals(self, stamps: pd.Index) -> np.ndarray:
        import cftime

        dates = np.asarray(stamps)
        if self.unit.name == "month":
            return np.array([12 * d.year + d.month - 1 for d in dates], dtype=np.int64)
        ticks = cftime.date2num(dates, self._epoch, **self._options())
        return np.asarray(ticks, dtype=np.int64)

    def labels(self, ordinals: np.ndarray) -> pd.Index:
        import cftime

        if self.unit.name == "month":
            dates = [self._month_date(int(month)) for month in ordinals]
        else:
            dates = cftime.num2date(ordinals, self._epoch, **self._options())
        values = np.empty(len(ordinals), dtype=object)
        values[:] = dates
        return cftime_index(values)

    def _month_date(self, month: int) -> Any:
        import cftime

        first = cftime.datetime(month // 12, month % 12 + 1, 1, **self._options())
        anchor = self.unit.anchor
        length = first.daysinmonth
        day = length if anchor == "end" else min(int(anchor), length)
        micros = np.timedelta64(self.unit.time_of_day, "us").item()
        return first.replace(day=day) + micros

    def matches(self, stamps: pd.Index, ordinals: np.ndarray) -> np.ndarray:
        if self.unit.name == "tick":
            return np.ones(len(stamps), dtype=bool)
        return np.asarray(stamps) == np.asarray(self.labels(ordinals))

    @property
    def freq(self) -> str | None:
        if self.step is None:
            return None
        if self.unit.name == "month":
            return month_freq(self.step, self.origin, self.unit.anchor)
        return tick_freq(self.step, "us")

    @property
    def seconds(self) -> float | None:
        if self.step is None:
            return None
        if self.unit.name == "month":
            return self.step * self._days_per_year() * 7200.0
        return self.step / 1e6

    def _days_per_year(self) -> float:
        known = {"360_day": 360.0, "noleap": 365.0, "365_day": 365.0, "all_leap": 366.0}
        return known.get(self.calendar, 366.0 if self.calendar == "366_day" else 365.25)

    def fields(self, positions: np.ndarray) -> CalendarFields:
        return cftime_fields(np.asarray(self.stamps(positions)), self._days_per_year())


_CLOCKS: dict[str, type[Clock]] = {
    c.kind: c
    for c in (Clock, IntegerClock, DatetimeClock, TimedeltaClock, PeriodClock, CFTimeClock)
}


def clock_from_dict(data: dict[str, Any]) -> Clock:
    """Invert :meth:`Clock.to_dict`."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in _CLOCKS:
        raise ValueError(f"Unknown clock kind {kind!r} in a saved index.")
    if isinstance(fields.get("unit"), dict):
        fields["unit"] = CalendarUnit(**fields["unit"])
    return _CLOCKS[kind](**fields)


def kind_of(stamps: pd.Index) -> str:
    """Return the clock kind of a canonical stamp index."""
    if isinstance(stamps, pd.DatetimeIndex):
        return "datetime"
    if isinstance(stamps, pd.PeriodIndex):
        return "period"
    if isinstance(stamps, pd.TimedeltaIndex):
        return "timedelta"
    return "cftime" if stamps.dtype == object else "integer"


def unknown_step_message(name: str) -> str:
    """Explain an unknown time step and its remedy."""
    return (
        f"The time step of {name} is unknown: it has a single time stamp and its index carries no "
        "freq. Pass freq= (for example freq='h' or freq='MS'), or give at least two rows."
    )


def offset_seconds(offset: Any) -> float:
    """Return the mean length of a pandas offset in seconds."""
    spec = parse_offset(offset)
    per = 1e-9 if spec.unit == "tick" else step_seconds(spec.unit)
    return spec.number * per
