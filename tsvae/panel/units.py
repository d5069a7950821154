"""Calendar units: wall-clock ticks <-> consecutive integers (days, business days, months).

A *wall* time is an int64 count of ticks (``s``, ``ms``, ``us`` or ``ns``) since 1970-01-01 without
a time zone. Each unit numbers its stamps consecutively, so equal steps are equal integer gaps even
where months have 28 to 31 days. ``to_ordinal`` rounds to the unit's stamp at or before; a stamp is
on the unit's grid exactly if ``to_wall(to_ordinal(wall)) == wall``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UnitName = Literal["tick", "day", "business", "month"]
# Monday 1970-01-05, so that weekday arithmetic starts on a Monday.
_FIRST_MONDAY = 4


def ticks_per_day(resolution: str) -> int:
    """Return the number of ticks in a civil day."""
    return 86_400 * TICKS_PER_SECOND[resolution]


@dataclass(frozen=True)
class CalendarUnit:
    """How stamps sit in the calendar.

    Parameters
    ----------
    name : {"tick", "day", "business", "month"}
        What consecutive integers count.
    time_of_day : int
        Ticks after midnight of every stamp (unused by ``"tick"``).
    anchor : str
        Place within the month: ``"1"`` to ``"31"`` (clipped to the month's length), ``"end"``,
        ``"bstart"``, ``"bend"`` (first and last business day). Used by ``"month"`` only.
    """

    name: UnitName = "tick"
    time_of_day: int = 0
    anchor: str = "1"

    def to_ordinal(self, wall: np.ndarray, resolution: str) -> np.ndarray:
        """Return the numbers of the stamps at or before ``wall``."""
        if self.name == "tick":
            return wall
        days = np.floor_divide(wall, ticks_per_day(resolution))
        if self.name == "day":
            return days
        if self.name == "business":
            week, weekday = np.divmod(days - _FIRST_MONDAY, 7)
            return 5 * week + np.minimum(weekday, 4)
        return days.view("M8[D]").astype("M8[M]").astype(np.int64)

    def to_wall(self, ordinal: np.ndarray, resolution: str) -> np.ndarray:
        """Return the wall times of numbered stamps."""
        if self.name == "tick":
            return ordinal
        if self.name == "day":
            days = ordinal
        elif self.name == "business":
            week, weekday = np.divmod(ordinal, 5)
            days = 7 * week + weekday + _FIRST_MONDAY
        else:
            days = month_days(ordinal, self.anchor)
        return days * ticks_per_day(resolution) + self.time_of_day


TICK_UNIT = CalendarUnit()


def month_days(month: np.ndarray, anchor: str) -> np.ndarray:
    """Return the day number (since 1970-01-01) of the anchor in each month (since 1970-01)."""
    first = month.astype("M8[M]").astype("M8[D]").astype(np.int64)
    last = (month + 1).astype("M8[M]").astype("M8[D]").astype(np.int64) - 1
    if anchor == "end":
        return last
    if anchor == "bstart":
        weekday = (first - _FIRST_MONDAY) % 7
        return first + np.where(weekday >= 5, 7 - weekday, 0)
    if anchor == "bend":
        weekday = (last - _FIRST_MONDAY) % 7
        return last - np.maximum(weekday - 4, 0)
    return np.minimum(first + int(anchor) - 1, last)


def month_anchor(days: np.ndarray) -> str | None:
    """Return the anchor that all days share, or None.

    Month ends come before days of the month (30 April, 30 June: month ends), fixed days before
    business days.
    """
    months = days.view("M8[D]").astype("M8[M]").astype(np.int64)
    day_of_month = int((days - month_days(months, "1")).max()) + 1 if len(days) else 1
    for anchor in ("end", str(day_of_month), "bstart", "bend"):
        if np.array_equal(month_days(months, anchor), days):
            return anchor
    return None


def weekday(days: np.ndarray) -> np.ndarray:
    """Return the weekday of day numbers since 1970-01-01, Monday = 0."""
    return (days - _FIRST_MONDAY) % 7
