"""Long series in overlapping pieces, so that passes over them need bounded memory.

A piece is about as long as a training window and has a level of its own. Pieces of one length,
of all series, go through the model together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "batches_of_pieces"]

Int = NDArray[np.int64]


class Batch(NamedTuple):
    """Pieces of one length.

    Attributes
    ----------
    series, begin : ndarray (N,)
        Series and first row of each piece.
    width : int
        Rows of each piece.
    start, stop : ndarray (N,)
        Rows of the series that the piece answers for.
    """

    series: Int
    begin: Int
    width: int
    start: Int
    stop: Int


def batches_of_pieces(
    n_series: int,
    n_steps: int,
    body: int,
    *,
    look_ahead: bool,
    most_rows: int,
    mix: bool = True,
) -> Iterator[Batch]:
    """Cut series into pieces of ``body`` rows between margins of as many rows.

    Parameters
    ----------
    n_series, n_steps : int
    body : int
        Rows that a piece answers for.
    look_ahead : bool
        Whether pieces have a margin after their body, too.
    most_rows : int
        Rows of a batch, all its pieces together; at least one piece.
    mix : bool, default=True
        Whether pieces of different times may share a batch.

    Yields
    ------
    Batch
        Each row of each series has one piece that answers for it.

    Examples
    --------
    >>> cut = batches_of_pieces(1, 10, 3, look_ahead=False, most_rows=12)
    >>> [(b.begin.tolist(), b.width, b.start.tolist(), b.stop.tolist()) for b in cut]
    [([0], 3, [0], [3]), ([6], 4, [9], [10]), ([0, 3], 6, [3, 6], [6, 9])]
    """
    start = np.arange(0, n_steps, body, dtype=np.int64)
    stop = np.minimum(start + body, n_steps)
    begin = np.maximum(start - body, 0)
    end = np.minimum(stop + body, n_steps) if look_ahead else stop
    for pieces in _alike(end - begin, mix):
        width = int((end - begin)[pieces[0]])
        piece = np.repeat(pieces, n_series)
        series = np.tile(np.arange(n_series), len(pieces))
        size = max(1, most_rows // width)
        for first in range(0, len(piece), size):
            part = slice(first, first + size)
            own = piece[part]
            yield Batch(series[part], begin[own], width, start[own], stop[own])


def _alike(widths: Int, mix: bool) -> Iterator[Int]:
    """Pieces that may share a batch."""
    if not mix:
        yield from np.arange(len(widths))[:, None]
        return
    for width in np.unique(widths):
        yield np.flatnonzero(widths == width)
