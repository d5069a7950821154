"""From stamps of rows to a grid: starts, lengths and the grid row of every input row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .clock import Clock
from .infer import infer_clock
from .stamps import StampTable, check_order, raw_ordinals

_MAX_GRID = 10_000_000
_MAX_BLOWUP = 100


class Grid(NamedTuple):
    """The rows of a container on its time grid."""

    clock: Clock
    starts: np.ndarray
    lengths: np.ndarray
    row_step: np.ndarray


def build_grid(
    table: StampTable, n_series: int, freq: Any = None, source: pd.Index | None = None
) -> Grid:
    """Check stamps, find their clock and place every row.

    Parameters
    ----------
    table : StampTable
    n_series : int
        Number of series, B.
    freq : str, offset, timedelta, int or Clock, optional
        The time step, if known.
    source : pd.Index, optional
        The caller's index, for its own frequency.

    Raises
    ------
    ValueError
        If stamps are duplicate, unsorted, off the grid, or the grid is absurdly large.
    """
    check_order(table, raw_ordinals(table.stamps))
    clock = infer_clock(table, freq, source)
    placed = clock.place(table.stamps, table.name)
    position = table.per_row(placed.position)
    if not placed.on_grid.all():
        row = int(np.flatnonzero(~table.per_row(placed.on_grid))[0])
        raise ValueError(
            f"{table.place(row)} of {table.name} does not lie on the time grid (step {clock.freq}) "
            "of the data it is compared with. Resample it to that grid."
        )
    starts, ends = _ends(table, position, n_series)
    lengths = ends - starts + 1
    _check_size(n_series * int(lengths.max()), table, clock)
    return Grid(clock, starts, lengths, position - starts[table.series])


def _ends(table: StampTable, position: np.ndarray, n_series: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last position of each series (rows are sorted in time)."""
    series = table.sorted(table.series)
    first = np.flatnonzero(np.diff(series, prepend=-1))
    last = np.append(first[1:], len(series)) - 1
    ordered = table.sorted(position)
    return ordered[first], ordered[last]


def _check_size(size: int, table: StampTable, clock: Clock) -> None:
    n_rows = len(table.series)
    if size > _MAX_GRID and size > _MAX_BLOWUP * n_rows:
        raise ValueError(
            f"A time grid of {size:,} rows for the {n_rows:,} rows of {table.name} is more than "
            f"{_MAX_BLOWUP} times its size (step {clock.freq}). Pass a coarser freq=, resample, or "
            f"correct stray stamps (first {table.stamps.min()}, last {table.stamps.max()})."
        )
