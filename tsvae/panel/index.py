"""PanelIndex: where the rows of a container lie on the grid, and how to go back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .clock import CalendarFields, Clock, clock_from_dict
from .layout import Layout, layout_from_dict
from .serialize import decode_array, decode_index, encode_array, encode_index


class RowPositions(NamedTuple):
    """Where each row of a container lies on the grid.

    Attributes
    ----------
    series : int ndarray of shape (N,)
        Series number.
    step : int ndarray of shape (N,)
        Grid row.
    """

    series: np.ndarray
    step: np.ndarray


class StampCodes(NamedTuple):
    """Distinct stamps and the one that each row has."""

    stamps: pd.Index
    codes: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class PanelIndex:
    """Everything needed to return from grid arrays to the caller's container.

    Attributes
    ----------
    layout : Layout
        Kind of container, variable labels, dims, coords, attrs.
    clock : Clock
        Time stamps <-> grid positions.
    starts : ndarray of shape (B,)
        Grid position of each series' first row, relative to the clock's origin.
    lengths : ndarray of shape (B,)
        Number of grid rows of each series.
    series : pd.Index or None
        Labels of the series; None where they have none.
    row_series, row_step : ndarray of shape (N,)
        Series number and grid row of every input row, in the caller's order.
    row_labels : pd.Index or None
        The caller's row labels (frames only).
    """

    layout: Layout
    clock: Clock
    starts: np.ndarray
    lengths: np.ndarray
    series: pd.Index | None
    row_series: np.ndarray
    row_step: np.ndarray
    row_labels: pd.Index | None = None

    @property
    def n_series(self) -> int:
        """Number of series, B."""
        return len(self.starts)

    @property
    def n_steps(self) -> int:
        """Grid rows of the longest series, T."""
        return int(self.lengths.max(initial=0))

    @property
    def n_rows(self) -> int:
        """Number of rows of the caller's container, N."""
        return len(self.row_series)

    @property
    def variables(self) -> list[Any]:
        """Labels of the variables, length F."""
        return self.layout.variables

    @property
    def freq(self) -> str | int | None:
        """The time step as pandas alias or integer; None if unknown or without an alias."""
        return self.clock.freq

    @property
    def has_stamps(self) -> bool:
        """Whether rows carry time stamps."""
        return self.clock.kind != "none"

    def describe(self) -> str:
        """Return a one-line summary for messages.

        Examples
        --------
        >>> from tsvae.panel import read_panel
        >>> read_panel(np.zeros((5, 2))).index.describe()
        'array of 1 series x 5 steps x 2 variables'
        """
        text = f"{self.layout.noun} of {self.n_series} series x {self.n_steps} steps"
        text += f" x {len(self.variables)} variables"
        if not self.has_stamps or not self.n_rows:
            return text
        ends = self.starts + self.lengths - 1
        first, last = self.clock.stamps(np.array([self.starts.min(), ends.max()]))
        step = "unknown" if self.clock.step is None else self.freq or f"{self.clock.step} months"
        return f"{text} ({first} to {last}, step {step})"

    def __repr__(self) -> str:
        return f"PanelIndex({self.describe()})"

    def row_positions(self) -> RowPositions:
        """Return series number and grid row of every input row, in the caller's order."""
        return RowPositions(self.row_series, self.row_step)

    def take_rows(self, values: np.ndarray) -> np.ndarray:
        """Pick the input rows out of grid values.

        Parameters
        ----------
        values : ndarray of shape (B, T, ...)

        Returns
        -------
        ndarray of shape (N, ...)
        """
        return values[self.row_series, self.row_step]

    def row_stamps(self) -> StampCodes:
        """Return the distinct stamps of the rows and which one each row has."""
        position = self.starts[self.row_series] + self.row_step
        unique, codes = _distinct(position)
        return StampCodes(self.clock.stamps(unique), codes)

    def calendar_fields(self, positions: np.ndarray) -> CalendarFields | None:
        """Return calendar fields at clock positions; None outside the calendar."""
        return self.clock.fields(positions)

    def future(self, horizon: int) -> PanelIndex:
        """Return the index of the next ``horizon`` steps after each series' last row.

        Parameters
        ----------
        horizon : int
            Number of steps, at least 1.

        Returns
        -------
        PanelIndex
            Same kind of container; its grid row 0 is the first step after the last row.

        Raises
        ------
        TypeError, ValueError
            If horizon is not a positive integer, or the time step is unknown.
        """
        horizon = check_horizon(horizon)
        steps = np.arange(horizon)
        index = dataclasses.replace(
            self,
            layout=self.layout.without_rows(),
            starts=self.starts + self.lengths,
            lengths=np.full(self.n_series, horizon),
            row_series=np.repeat(np.arange(self.n_series), horizon),
            row_step=np.tile(steps, self.n_series),
            row_labels=None,
        )
        if self.clock.step is None:
            self.clock.stamps(steps + 1)  # raises, naming the remedy
        return index

    def positions(self, other: PanelIndex, name: str = "X") -> RowPositions:
        """Locate the rows of another index on this one's grid.

        Parameters
        ----------
        other : PanelIndex
            Index of data with the same series. Without stamps its rows follow this one's last.
        name : str
            How messages call the other data.

        Returns
        -------
        RowPositions
            For each row of ``other``: series number here, and grid row here (negative before the
            first row, ``>= lengths[series]`` after the last).

        Raises
        ------
        ValueError
            If a series is unknown or a stamp does not lie on this grid.
        """
        matched = self.match_series(other, name)
        series = matched[other.row_series]
        if not (self.has_stamps and other.has_stamps):
            # An array beside a frame has no stamps to compare: rows simply go on.
            return RowPositions(series, self.lengths[series] + other.row_step)
        stamps, codes = other.row_stamps()
        placed = self.clock.place(stamps, name)
        bad = np.flatnonzero(~placed.on_grid[codes])
        if len(bad):
            row = int(bad[0])
            raise ValueError(
                f"Row {row} of {name} (time {stamps[codes[row]]}) does not lie on the time grid of "
                f"the data it is compared with: {self.describe()}. Resample it to that grid."
            )
        return RowPositions(series, placed.position[codes] - self.starts[series])

    def match_series(self, other: PanelIndex, name: str = "X") -> np.ndarray:
        """Return the number here of each series of ``other``, shape (B_other,)."""
        if self.series is not None and other.series is not None:
            found = self.series.get_indexer(other.series)
            if (found < 0).any():
                unknown = other.series[found < 0][0]
                raise ValueError(
                    f"Series {unknown!r} of {name} is not among the {self.n_series} known series "
                    f"(first: {self.series[0]!r}). Give its own history, or drop it."
                )
            return found
        if self.n_series != other.n_series:
            raise ValueError(
                f"{name} has {other.n_series} series, but {self.n_series} are expected."
            )
        return np.arange(self.n_series)

    def continues(self, other: PanelIndex) -> bool:
        """Say whether the rows of ``other`` start right after this one's, series for series.

        Data without stamps never continues: nothing shows that it does.
        """
        if not (self.has_stamps and other.has_stamps) or not other.n_rows:
            return False
        try:
            series, step = self.positions(other)
        except ValueError:
            return False
        first = np.full(self.n_series, np.iinfo(np.int64).max)
        np.minimum.at(first, series, step)
        present = np.unique(series)
        return bool((first[present] == self.lengths[present]).all())

    def with_rows(self, rows: PanelIndex) -> PanelIndex:
        """Return an index with this one's layout (variables) and the rows of another.

        Used to write values of the target's variables at the rows of the covariates.
        """
        return dataclasses.replace(rows, layout=self.layout.without_rows())

    def select_rows(self, keep: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> PanelIndex:
        """Return the index of a part of the grid.

        Parameters
        ----------
        keep : bool ndarray of shape (N,)
            Which rows stay.
        starts, lengths : ndarray of shape (B,)
            The part of each series, in clock positions and grid rows.
        """
        shift = starts - self.starts
        series = self.row_series[keep]
        return dataclasses.replace(
            self,
            layout=self.layout.take_rows(keep, self.n_series),
            starts=starts,
            lengths=lengths,
            row_series=series,
            row_step=self.row_step[keep] - shift[series],
            row_labels=None if self.row_labels is None else self.row_labels[keep],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the index as plain JSON values (see :meth:`from_dict`)."""
        return {
            "layout": self.layout.to_dict(),
            "clock": self.clock.to_dict(),
            "starts": encode_array(self.starts),
            "lengths": encode_array(self.lengths),
            "series": encode_index(self.series),
            "row_series": encode_array(self.row_series),
            "row_step": encode_array(self.row_step),
            "row_labels": encode_index(self.row_labels),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PanelIndex:
        """Rebuild an index from :meth:`to_dict`."""
        missing = {f.name for f in dataclasses.fields(cls)} - set(data)
        if missing:
            raise ValueError(f"A saved index lacks {sorted(missing)}; the file is damaged.")
        return cls(
            layout=layout_from_dict(data["layout"]),
            clock=clock_from_dict(data["clock"]),
            starts=decode_array(data["starts"]),
            lengths=decode_array(data["lengths"]),
            series=decode_index(data["series"]),
            row_series=decode_array(data["row_series"]),
            row_step=decode_array(data["row_step"]),
            row_labels=decode_index(data["row_labels"]),
        )


def check_horizon(horizon: Any, name: str = "horizon") -> int:
    """Return a positive integer or raise.

    Examples
    --------
    >>> check_horizon(0)
    Traceback (most recent call last):
    ...
    ValueError: horizon must be at least 1, got 0.
    """
    if isinstance(horizon, (bool, np.bool_)) or not isinstance(horizon, Integral):
        got = repr(horizon) if np.ndim(horizon) == 0 else f"a {type(horizon).__name__}"
        raise TypeError(f"{name} must be a positive integer, got {got}.")
    if horizon < 1:
        raise ValueError(f"{name} must be at least 1, got {horizon}.")
    return int(horizon)


def _distinct(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted distinct positions and codes, without sorting where the range is short."""
    if not len(position):
        return position, position
    low, high = int(position.min()), int(position.max())
    if high - low <= 4 * len(position) + 1000:
        used = np.zeros(high - low + 1, dtype=bool)
        used[position - low] = True
        return np.flatnonzero(used) + low, (np.cumsum(used) - 1)[position - low]
    unique, codes = np.unique(position, return_inverse=True)
    return unique, codes


def consecutive_index(layout: Layout, n_series: int, n_steps: int) -> PanelIndex:
    """Return the index of arrays: no stamps, all series equally long, rows series after series."""
    return PanelIndex(
        layout=layout,
        clock=Clock(),
        starts=np.zeros(n_series, dtype=np.int64),
        lengths=np.full(n_series, n_steps, dtype=np.int64),
        series=None,
        row_series=np.repeat(np.arange(n_series), n_steps),
        row_step=np.tile(np.arange(n_steps), n_series),
    )


__all__ = ["PanelIndex", "RowPositions", "check_horizon", "consecutive_index"]
