"""pandas frequency aliases <-> (unit, number, anchor)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.tseries import offsets

from .units import UnitName, weekday

_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_WEEKDAYS = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]
_DAY_SECONDS = 86_400.0
_SECONDS = {
    "day": _DAY_SECONDS,
    "business": _DAY_SECONDS * 7 / 5,
    "month": _DAY_SECONDS * 365.25 / 12,
}
_MONTH_OFFSETS: list[tuple[Any, int, str]] = [
    (offsets.MonthBegin, 1, "1"),
    (offsets.MonthEnd, 1, "end"),
    (offsets.BusinessMonthBegin, 1, "bstart"),
    (offsets.BusinessMonthEnd, 1, "bend"),
    (offsets.QuarterBegin, 3, "1"),
    (offsets.QuarterEnd, 3, "end"),
    (offsets.BQuarterBegin, 3, "bstart"),
    (offsets.BQuarterEnd, 3, "bend"),
    (offsets.YearBegin, 12, "1"),
    (offsets.YearEnd, 12, "end"),
    (offsets.BYearBegin, 12, "bstart"),
    (offsets.BYearEnd, 12, "bend"),
]


class FreqSpec(NamedTuple):
    """A parsed frequency: ``number`` units (nanoseconds for ticks) per step."""

    unit: UnitName
    number: int
    anchor: str | None = None


def parse_offset(offset: Any) -> FreqSpec:
    """Classify a pandas offset.

    Raises
    ------
    ValueError
        If the offset has no even grid here (custom business days, semi-months, ...), or is not
        positive.
    """
    if offset.n < 1:
        raise ValueError(f"freq must be a positive step, got {offset.freqstr!r}.")
    # Day is a Tick in pandas 2 and a calendar day in pandas 3: always a calendar day here.
    if type(offset) is offsets.Day:
        return FreqSpec("day", offset.n)
    if isinstance(offset, offsets.Tick):
        return FreqSpec("tick", offset.nanos)
    if type(offset) is offsets.Week:
        return FreqSpec("day", 7 * offset.n)
    if type(offset) is offsets.BusinessDay:
        return FreqSpec("business", offset.n)
    for kind, months, anchor in _MONTH_OFFSETS:
        if type(offset) is kind:
            return FreqSpec("month", months * offset.n, anchor)
    raise ValueError(
        f"freq={offset.freqstr!r} is not supported; use a fixed step ('15min', 'h'), days, weeks, "
        "business days or month, quarter and year starts or ends ('D', 'W', 'B', 'MS', 'QE', "
        "'YS'), or number the rows with integers."
    )


def parse_freq(freq: Any) -> FreqSpec:
    """Parse an alias, offset or timedelta.

    Examples
    --------
    >>> parse_freq("QS")
    FreqSpec(unit='month', number=3, anchor='1')
    """
    if isinstance(freq, (bool, int, float, np.number)) or freq is None:
        raise TypeError(
            f"freq must be a pandas alias, offset or timedelta for a calendar time axis, "
            f"got {freq!r}; for example 'h', '15min', 'D', 'W', 'MS'."
        )
    try:
        offset = pd.tseries.frequencies.to_offset(freq)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"freq={freq!r} is not a pandas frequency; for example 'h', '15min', 'D', 'W', 'MS'. "
            f"({error})"
        ) from error
    return parse_offset(offset)


def step_seconds(unit: str) -> float:
    """Return the mean length of one calendar unit in seconds."""
    return _SECONDS[unit]


def month_freq(step: int, month: int, anchor: str) -> str | None:
    """Return the pandas alias of a month grid through ``month``; None for days such as the 15th."""
    prefix = {"1": ("", "S"), "end": ("", "E"), "bstart": ("B", "S"), "bend": ("B", "E")}
    if anchor not in prefix:
        return None
    business, side = prefix[anchor]
    multiple, letter = step, "M"
    if step % 12 == 0:
        multiple, letter = step // 12, "Y"
    elif step % 3 == 0:
        multiple, letter = step // 3, "Q"
    alias = f"{business}{letter}{side}"
    if letter != "M":
        alias += f"-{_MONTHS[_anchor_month(letter, side, month % 12)]}"
    return alias if multiple == 1 else f"{multiple}{alias}"


def _anchor_month(letter: str, side: str, month: int) -> int:
    """Return pandas' name-giving month: the year's last quarter end, its first quarter start."""
    if letter == "Y":
        return month
    return month % 3 + 9 if side == "E" else month % 3


def week_freq(step: int, day: int) -> str:
    """Return the alias of a day grid through ``day``: weeks where the step is whole weeks."""
    if step % 7:
        return "D" if step == 1 else f"{step}D"
    alias = f"W-{_WEEKDAYS[int(weekday(np.array(day)))]}"
    return alias if step == 7 else f"{step // 7}{alias}"


def nice_freq(seconds: float) -> str:
    """Return a round alias near a length, for the remedies in error messages."""
    sizes = {"1s": 1, "10s": 10, "1min": 60, "5min": 300, "10min": 600, "15min": 900}
    sizes |= {"30min": 1800, "1h": 3600, "3h": 10_800, "6h": 21_600, "12h": 43_200}
    sizes |= {"1D": 86_400, "1W": 604_800, "1MS": 2_629_800, "1QS": 7_889_400, "1YS": 31_557_600}
    logs = np.log(np.array(list(sizes.values()), dtype=float))
    nearest = int(np.argmin(np.abs(logs - np.log(max(seconds, 1e-9)))))
    return list(sizes)[nearest]
