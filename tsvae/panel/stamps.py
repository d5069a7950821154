"""Time stamps of rows: made canonical, checked for order and duplicates."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .cells import plain_label
from .clock import kind_of


class Remedies(NamedTuple):
    """Code that messages suggest, for the place where the stamps are.

    ``resample`` has a slot ``{freq}``.
    """

    source: str
    sort: str
    merge: str
    resample: str


def index_remedies(name: str) -> Remedies:
    """Return the remedies for stamps in the index of a frame."""
    return Remedies(
        source=f"{name}.index",
        sort=f"{name}.sort_index()",
        merge=f"{name}.groupby(level=0).mean()",
        resample=f"{name}.resample({{freq!r}}).mean()",
    )


@dataclass(frozen=True, eq=False)
class StampTable:
    """The time stamp and the series of every input row.

    Parameters
    ----------
    stamps : pd.Index
        Canonical stamps (see :func:`canonical_stamps`).
    codes : ndarray of shape (N,) or None
        Which stamp each row has; None: row i has stamp i.
    series : ndarray of shape (N,)
        Series number of each row.
    series_labels : pd.Index or None
        Label of each series, for messages.
    name : str
        How messages call the data.
    remedies : Remedies
        What messages suggest.
    """

    stamps: pd.Index
    codes: np.ndarray | None
    series: np.ndarray
    series_labels: pd.Index | None
    name: str
    remedies: Remedies

    def per_row(self, values: np.ndarray) -> np.ndarray:
        """Spread one value per stamp over the rows."""
        return values if self.codes is None else values[self.codes]

    @cached_property
    def order(self) -> np.ndarray | None:
        """Row numbers sorted by series, rows of a series in the given order; None if sorted."""
        if (np.diff(self.series) >= 0).all():
            return None
        return np.argsort(self.series, kind="stable")

    def sorted(self, values: np.ndarray) -> np.ndarray:
        """Return per-row values series after series."""
        return values if self.order is None else values[self.order]

    def row(self, sorted_row: int) -> int:
        """Return the caller's row number of a row in series order."""
        return int(sorted_row if self.order is None else self.order[sorted_row])

    def stamp(self, row: int) -> Any:
        """Return the stamp of the caller's row."""
        return self.stamps[row if self.codes is None else self.codes[row]]

    def place(self, row: int) -> str:
        """Name a row for a message: number, series label, stamp."""
        where = f"row {row}"
        if self.series_labels is not None:
            where += f", series {plain_label(self.series_labels[self.series[row]])!r}"
        return f"{where}, time {self.stamp(row)}"

    def gaps(self, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return gaps between neighbouring rows of a series and the later rows of each pair.

        Parameters
        ----------
        ordinals : ndarray of shape (len(stamps),)
            One integer per stamp.

        Returns
        -------
        gap : ndarray of shape (M,)
        row : ndarray of shape (M,)
            Caller's row number of the later row.
        """
        gap = np.diff(self.sorted(self.per_row(ordinals)))
        same = np.diff(self.sorted(self.series)) == 0
        later = np.arange(1, len(self.series)) if self.order is None else self.order[1:]
        return gap[same], later[same]


def canonical_stamps(index: pd.Index, name: str, source: str) -> pd.Index:
    """Return stamps as a Datetime-, Period-, Timedelta- or int64 index, or cftime objects.

    Parameters
    ----------
    index : pd.Index
        Stamps of any kind.
    name, source : str
        How messages call the data, and the expression that gives its stamps (``"X.index"``).

    Raises
    ------
    ValueError
        If stamps are missing, not whole numbers, of mixed time zones or not times at all.
    """
    if isinstance(index.dtype, pd.CategoricalDtype):
        index = pd.Index(np.asarray(index), name=index.name)
    kind = getattr(index.dtype, "kind", "O")
    if isinstance(index, (pd.PeriodIndex, pd.DatetimeIndex, pd.TimedeltaIndex)):
        stamps = index
    elif kind == "M":
        stamps = pd.DatetimeIndex(index)
    elif kind == "m":
        stamps = pd.TimedeltaIndex(index)
    elif kind in "iu":
        _refuse_missing(index, name)
        return pd.Index(index.to_numpy(dtype=np.int64), name=index.name)
    elif kind == "f":
        _refuse_missing(index, name)
        stamps = _whole_floats(index, name, source)
    else:
        stamps = _object_stamps(index, name, source)
    _refuse_missing(stamps, name)
    return stamps


def _refuse_missing(stamps: pd.Index, name: str) -> None:
    missing = np.asarray(stamps.isna())
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise ValueError(
            f"The time stamp of row {row} of {name} is missing (NaT). Drop the row or fill in its "
            "time."
        )


def _whole_floats(index: pd.Index, name: str, source: str) -> pd.Index:
    values = index.to_numpy(dtype=np.float64)
    bad = values != np.floor(values)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"Float time stamps must be whole numbers, but row {row} of {name} has "
            f"{values[row]}. Convert them, for example pd.to_timedelta({source}, unit='s')."
        )
    return pd.Index(values.astype(np.int64), name=index.name)


def _object_stamps(index: pd.Index, name: str, source: str) -> pd.Index:
    """Sort out object and string indexes by what they hold."""
    values = index.to_numpy(dtype=object)
    missing = np.asarray(index.isna())
    first = values[~missing][0] if (~missing).any() else None
    kind = type(first)
    if missing.any() and not isinstance(first, str):
        _refuse_missing(index, name)
    odd = [row for row, value in enumerate(values) if not isinstance(value, kind)]
    if kind.__module__.startswith("cftime") and not odd:
        return index
    if isinstance(first, (datetime.date, np.datetime64)):
        return _object_datetimes(index, values, name, source)
    if odd:
        raise ValueError(
            f"The time stamps of {name} mix types: row {odd[0]} has "
            f"{type(values[odd[0]]).__name__} {values[odd[0]]!r} after {kind.__name__}. "
            "Give all of them one type, for example with pd.to_datetime."
        )
    if isinstance(first, (pd.Period, datetime.timedelta, int, float, np.number)):
        inferred = index.infer_objects()
        if inferred.dtype != object:
            return canonical_stamps(inferred, name, source)
    raise ValueError(
        f"The time axis of {name} holds {kind.__name__} values (first: {first!r}), not time "
        f"stamps. Convert it, for example pd.to_datetime({source}), name the column that holds "
        f"the time with time=, or use {name}.reset_index(drop=True) for rows without stamps."
    )


def _object_datetimes(index: pd.Index, values: np.ndarray, name: str, source: str) -> pd.Index:
    zones = [str(getattr(value, "tzinfo", None)) for value in values]
    odd = [row for row, zone in enumerate(zones) if zone != zones[0]]
    if odd:
        raise ValueError(
            f"The time stamps of {name} have mixed time zones: row {odd[0]} has {zones[odd[0]]}, "
            f"row 0 has {zones[0]}. Use pd.to_datetime({source}, utc=True)."
        )
    return pd.DatetimeIndex(pd.to_datetime(list(values)), name=index.name)


def raw_ordinals(stamps: pd.Index) -> np.ndarray:
    """Return integers that order stamps (ticks, period ordinals, microseconds)."""
    kind = kind_of(stamps)
    if kind == "integer":
        return stamps.to_numpy()
    if kind == "cftime":
        from .clock import CFTimeClock

        first = stamps[0]
        clock = CFTimeClock(calendar=first.calendar, has_year_zero=bool(first.has_year_zero))
        return clock.ordinals(stamps)
    return stamps.asi8  # type: ignore[attr-defined]


def check_order(table: StampTable, ordinals: np.ndarray) -> None:
    """Raise if a series has duplicate or unsorted stamps.

    Raises
    ------
    ValueError
        Names the first offending row, its stamp and the remedy.
    """
    gap, row = table.gaps(ordinals)
    if (gap > 0).all():
        return
    duplicate = _first_duplicate(table, ordinals)
    if duplicate is not None:
        raise ValueError(
            f"{table.name} has duplicate time stamps: {table.place(duplicate)} appears before. "
            f"Merge them, for example {table.remedies.merge}, or drop one of each."
        )
    first = int(row[np.flatnonzero(gap < 0)[0]])
    raise ValueError(
        f"The time stamps of {table.name} are not sorted: {table.place(first)} comes after a "
        f"later stamp. Use {table.remedies.sort}."
    )


def _first_duplicate(table: StampTable, ordinals: np.ndarray) -> int | None:
    frame = pd.DataFrame({"s": table.series, "t": table.per_row(ordinals)})
    rows = np.flatnonzero(frame.duplicated().to_numpy())
    return int(rows[0]) if len(rows) else None
