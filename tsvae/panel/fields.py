"""Calendar fields of datetimes and elapsed times as pandas objects."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .units import ticks_per_day


class CalendarFields(NamedTuple):
    """Where stamps lie in day, week and year."""

    day_fraction: np.ndarray
    weekday: np.ndarray
    year_fraction: np.ndarray
    days_per_year: float


def datetime_fields(stamps: pd.DatetimeIndex) -> CalendarFields:
    """Return calendar fields of datetimes in their own time zone."""
    wall = stamps.tz_localize(None) if stamps.tz is not None else stamps
    day_ticks = ticks_per_day(wall.unit)
    day_fraction = (wall.asi8 % day_ticks) / day_ticks
    weekdays = wall.day_of_week.to_numpy() + day_fraction
    length = np.where(wall.is_leap_year, 366, 365)
    year_fraction = (wall.day_of_year.to_numpy() - 1 + day_fraction) / length
    return CalendarFields(day_fraction, weekdays, year_fraction, 365.25)


def cftime_fields(dates: np.ndarray, days_per_year: float) -> CalendarFields:
    """Return calendar fields of cftime dates."""
    seconds = [d.hour * 3600 + d.minute * 60 + d.second + d.microsecond / 1e6 for d in dates]
    day_fraction = np.array(seconds, dtype=float) / 86_400
    day_of_year = np.array([d.dayofyr - 1 for d in dates], dtype=float)
    weekdays = np.array([d.dayofwk for d in dates], dtype=float)
    year_fraction = (day_of_year + day_fraction) / days_per_year
    return CalendarFields(day_fraction, weekdays + day_fraction, year_fraction, days_per_year)


def timedelta(ticks: int, resolution: str) -> pd.Timedelta:
    """Return an elapsed time of so many ticks."""
    unit: Any = resolution
    return pd.Timedelta(np.timedelta64(int(ticks), unit))


def tick_freq(ticks: int, resolution: str) -> str:
    """Return the pandas alias of a fixed step.

    Examples
    --------
    >>> tick_freq(900, "s")
    '15min'
    """
    return pd.tseries.frequencies.to_offset(timedelta(ticks, resolution)).freqstr


def zone_name(tz: Any) -> str:
    """Return a name from which pandas can rebuild a time zone.

    Raises
    ------
    ValueError
        If the zone has no such name.
    """
    # dateutil zones print as the path of their file.
    name = str(tz)
    if "zoneinfo/" in name:
        name = name.split("zoneinfo/")[-1].rstrip("')")
    try:
        pd.Timestamp(0, tz=name)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"The time zone {tz!r} has no name; use tz_convert with one such as 'Europe/Berlin'."
        ) from error
    return name
