"""Which samples have both measurements, and which one alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsvae._records.signals import Signals

__all__ = ["Problem", "Rows", "pair_rows"]

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_FEWEST_HELD_OUT = 5  # to measure the spread on
_FEWEST_PAIRS = 20  # fewer are not split for validation
_FEWEST_TRAINED = 2  # pairs that are never held out: one has no correlation


@dataclass(frozen=True, eq=False)
class Problem:
    """Training data in the caller's units.

    Attributes
    ----------
    x, y : Signals
    x_errors, y_errors : ndarray of shape (B, W, F) or None
        Error bars.
    y_form : str
        What y was before it became a table; see :func:`tsvae._linker.plumbing.as_table`.
    """

    x: Signals
    y: Signals
    x_errors: Array | None = None
    y_errors: Array | None = None
    y_form: str = "table"


@dataclass(frozen=True, eq=False)
class Rows:
    """Numbers of rows by what is known of them.

    Attributes
    ----------
    pairs, held_out : ndarray of int
        Samples with both sides: for training, and for validation.
    only_x, only_y : ndarray of int
        Samples with one.
    """

    pairs: Indices
    held_out: Indices
    only_x: Indices
    only_y: Indices


def pair_rows(x: Signals, y: Signals, validation_fraction: float, seed: int) -> Rows:
    """Sort samples, and hold some pairs out.

    Parameters
    ----------
    x, y : Signals
        Row by row of the same samples.
    validation_fraction : float
        Share of the pairs, at least 5; none are held out of fewer than 20.
    seed : int

    Returns
    -------
    Rows

    Raises
    ------
    ValueError
        If no sample has both sides.
    """
    has_x, has_y = (side.mask.any(axis=(1, 2)) for side in (x, y))
    pairs = np.flatnonzero(has_x & has_y)
    if not len(pairs):
        raise ValueError(
            f"no row has both X and y: {has_x.sum()} rows have X alone and {has_y.sum()} have y "
            "alone. Rows of X and y are the same samples, and an all-NaN row is a missing "
            "measurement; at least one sample needs both, and dozens are better."
        )
    held_out = pairs[:0]
    if len(pairs) >= _FEWEST_PAIRS and validation_fraction > 0.0:
        n = min(
            max(_FEWEST_HELD_OUT, round(validation_fraction * len(pairs))),
            len(pairs) - _FEWEST_TRAINED,
        )
        held_out = np.sort(np.random.default_rng(seed).choice(pairs, n, replace=False))
        pairs = np.setdiff1d(pairs, held_out)
    return Rows(pairs, held_out, np.flatnonzero(has_x & ~has_y), np.flatnonzero(~has_x & has_y))
