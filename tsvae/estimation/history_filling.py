"""Histories as forecasts see them: hidden entries filled from all variables.

A bank of filters knows one variable and what its values tell, not what a gap leaves open; the other
variables, and what came after the gap, tell more. Entries that stay unknown after that, such as
those of long gaps in all variables at once, are left hidden.

Only what lies before the origin may be looked at. Histories of neighbouring origins share the
pieces in their inside, whose place follows the clock; the first and the last one are their own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.estimation.joint_filling import (
    OVERLAP,
    WIDTH,
    Blend,
    JointFilling,
    Margins,
    Pieces,
    phases_of,
)
from tsvae.panel import PanelIndex, gather

__all__ = ["Shown", "fill_histories", "fill_series", "rows_inside"]

Array = NDArray[np.float64]
Int = NDArray[np.int64]
Mask = NDArray[np.bool_]

_MOST_OPEN = 0.65  # of a variable's variance, in an entry that counts as filled
_ENTRIES_AT_ONCE = 10_000_000  # of windows that are filled together
_NORMAL = {"steps": 0}  # innovations: a third of the time of heavy tails, as good a forecast


class Shown(NamedTuple):
    """Values, 0 where unknown, and which are known: observed or filled."""

    values: Array
    known: Mask


class _Uses(NamedTuple):
    """Which pieces the windows are made of.

    Attributes
    ----------
    window : ndarray (Q,)
    piece : ndarray (Q,)
        Place among the pieces.
    """

    window: Int
    piece: Int


def fill_series(filling: JointFilling, values: Array, mask: Mask, index: PanelIndex) -> Shown:
    """Fill the hidden entries of whole series.

    Parameters
    ----------
    filling : JointFilling
    values : ndarray (B, T, F)
        Model units, effects taken off, 0 where hidden.
    mask : bool ndarray (B, T, F)
    index : PanelIndex

    Returns
    -------
    Shown
    """
    phase = phases_of(index, filling.clock, filling.fit.n_phases)
    found = filling.fill(values, mask, ~mask & _before_last(mask), phase, **_NORMAL)
    return _certain(filling, found, values, mask)


def fill_histories(
    filling: JointFilling,
    values: Array,
    mask: Mask,
    index: PanelIndex,
    series: Int,
    starts: Int,
    ends: Int,
) -> Shown:
    """Fill the hidden entries of windows, each from what it shows.

    Parameters
    ----------
    filling : JointFilling
    values : ndarray (B, T, F)
        Of the series, in model units, effects taken off, 0 where hidden.
    mask : bool ndarray (B, T, F)
    index : PanelIndex
        Of the series.
    series, starts, ends : ndarray (N,)
        Rows of each window.

    Returns
    -------
    Shown
        ``(N, W, F)`` with the rows of the longest window.
    """
    inside = rows_inside(starts, ends)
    width = inside.shape[1]
    known = gather(mask, series, starts, width) & inside
    filled = gather(values, series, starts, width) * inside
    phase = phases_of(index, filling.clock, filling.fit.n_phases)
    at_once = max(1, _ENTRIES_AT_ONCE // (width * values.shape[-1]))
    for first in range(0, len(series), at_once):
        some = slice(first, first + at_once)
        pieces, uses = _share_pieces(
            ~mask, np.asarray(index.starts), series[some], starts[some], ends[some]
        )
        found = list(filling.fill_pieces(values, mask, phase, pieces, **_NORMAL))
        blended = _blend(found, pieces, uses, starts[some], filled[some])
        blended = blended._replace(scale=filling.widening * blended.scale)
        filled[some], known[some] = _certain(filling, blended, filled[some], known[some])
    return Shown(filled, known)


def _blend(
    found: list[Margins], pieces: Pieces, uses: _Uses, starts: Int, windows: Array
) -> Margins:
    """Put pieces where the windows have them."""
    blend = Blend(windows.shape)
    for window, piece in zip(uses.window.tolist(), uses.piece.tolist(), strict=True):
        blend.add(window, int(pieces.begin[piece] - starts[window]), found[piece])
    return blend.margins(windows)


def rows_inside(starts: Int, ends: Int) -> Mask:
    """Tell the rows of each window from those that only longer ones have, ``(N, W, 1)``."""
    lengths = ends - starts
    width = max(int(lengths.max(initial=1)), 1)
    inside: Mask = (np.arange(width) < lengths[:, None])[..., None]
    return inside


def _certain(filling: JointFilling, found: Margins, values: Array, mask: Mask) -> Shown:
    """Keep what is filled where enough is known of it, up to the last row with a value."""
    allowed = np.sqrt(_MOST_OPEN) * filling.fit.scale.numpy()
    filled = ~mask & _before_last(mask) & (found.scale <= allowed)
    return Shown(np.where(filled, found.mean, np.where(mask, values, 0.0)), mask | filled)


def _before_last(mask: Mask) -> Mask:
    """Rows up to the last one of a series in which something is observed, ``(B, T, 1)``."""
    rows = np.asarray(mask.any(-1))
    later: Mask = np.logical_or.accumulate(rows[:, ::-1], axis=1)[:, ::-1, None]
    return later


def _share_pieces(
    hidden: Mask, origin: Int, series: Int, starts: Int, ends: Int
) -> tuple[Pieces, _Uses]:
    """Pieces with something to fill that cover the windows, each once."""
    step = WIDTH - OVERLAP
    first = starts + (-(origin[series] + starts)) % step
    begin = first[:, None] + step * np.arange(int((ends - starts).max(initial=0)) // step + 1)
    begin = np.concatenate(
        [starts[:, None], np.maximum(ends - WIDTH, starts)[:, None], begin], axis=1
    )
    stop = begin + WIDTH
    stop[:, 0] = np.minimum(stop[:, 0], ends)
    stop[:, 1] = ends
    rows = np.cumsum(np.pad(hidden.any(-1), ((0, 0), (1, 0))), axis=1)
    inside = stop <= ends[:, None]
    at = np.minimum(stop, rows.shape[1] - 1), np.minimum(begin, rows.shape[1] - 1)
    gaps = rows[series[:, None], at[0]] > rows[series[:, None], at[1]]
    window, column = np.nonzero(inside & gaps)
    keys = np.stack([series[window], begin[window, column], stop[window, column]])
    found, piece = np.unique(keys, axis=1, return_inverse=True)
    both = np.unique(np.stack([window, piece.reshape(-1)]), axis=1)  # head and tail may be one
    return Pieces(*found), _Uses(*both)
