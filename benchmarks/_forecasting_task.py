"""The forecasting problem all methods are given: splits, windows, fillings of gaps."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from _common import DATA_SETS, Split, load
from numpy.typing import NDArray

from tsvae.demo.baselines import fill_from_earlier_season, interpolate_gaps
from tsvae.demo.linear import history_windows
from tsvae.demo.report import ForecastScores

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
FILLINGS = ("lines", "last", "season")
GAPS = ("entries", "days")
DAY = 24  # rows of a block


class Outcome(NamedTuple):
    """A line of the table, and what should be known about how it came about."""

    scores: ForecastScores
    details: dict[str, Any] = {}  # noqa: RUF012 - never changed


class Task(NamedTuple):
    """One forecasting problem in standardised units."""

    data: str
    target: pd.DataFrame  # complete
    visible: pd.DataFrame  # what a method may see: NaN where hidden
    split: Split
    horizon: int
    context: int
    period: int
    chunk: int

    @property
    def origins(self) -> Rows:
        """Rows before each test window; the first ones reach back across the border."""
        return np.arange(self.split.validation_end, self.split.test_end - self.horizon + 1)

    def chunks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield origins and the (N, H, F) values to forecast from them."""
        windows = self._windows(self.target)
        for start in range(0, len(self.origins), self.chunk):
            origins = self.origins[start : start + self.chunk]
            yield origins, windows[origins].transpose(0, 2, 1)

    def validation_windows(self, every: int) -> tuple[Rows, Array]:
        """Origins of the validation part and what is visible of the (N, H, F) values there."""
        last = self.split.validation_end - self.horizon
        origins = np.arange(self.split.train_end, last + 1, every)
        return origins, self._windows(self.visible)[origins].transpose(0, 2, 1)

    def _windows(self, frame: pd.DataFrame) -> Array:
        return np.lib.stride_tricks.sliding_window_view(frame.to_numpy(), self.horizon, axis=0)

    @property
    def fillings(self) -> tuple[str, ...]:
        """Ways to fill the gaps, of which a method that cannot take them chooses one."""
        if not self.visible.isna().to_numpy().any():
            return FILLINGS[:1]
        return FILLINGS if self.period > 1 else FILLINGS[:2]  # else the season is the last value

    def histories(self, origins: Rows, window: int, filling: str) -> Array:
        """Cut the (N, W, F) rows before each origin, filled without looking past it."""
        return history_windows(self.carried(filling), origins, window)

    def filled(self, end: int, filling: str) -> Array:
        """Fill the first `end` rows, to learn from."""
        rows = self.carried(filling)[:end]
        return np.column_stack([interpolate_gaps(column) for column in rows.T])

    def carried(self, filling: str) -> Array:
        """All rows, in whose gaps values go on from row to row or season to season.

        What lines are to close is still missing.
        """
        rows = self.visible.to_numpy()
        if filling == "lines":
            return rows
        return fill_from_earlier_season(rows, self.period if filling == "season" else 1)


def hide(shape: tuple[int, int], share: float, gaps: str, seed: int) -> NDArray[np.bool_]:
    """Draw which entries are hidden: each by itself, or blocks of a day of one variable.

    Parameters
    ----------
    shape : (int, int)
        Rows, at least a day of them, and variables.
    share : float
        Share to hide. Blocks are drawn until it is reached and may overlap.
    gaps : {"entries", "days"}
    seed : int

    Returns
    -------
    ndarray of bool, of the given shape
    """
    rng = np.random.default_rng(seed)
    if gaps == "entries":
        return rng.random(shape) < share
    hidden = np.zeros(shape, dtype=bool)
    n_open = share * hidden.size
    while n_open > 0:
        block = hidden[rng.integers(shape[0] - DAY + 1) :, rng.integers(shape[1])][:DAY]
        n_open -= DAY - int(block.sum())
        block[:] = True
    return hidden


def make_task(options: argparse.Namespace) -> Task:
    frame = load(options.data)
    if options.features:
        frame = frame[options.features]
    data_set = DATA_SETS[options.data]
    split = data_set.split(len(frame))
    train = frame.iloc[: split.train_end]
    target = (frame - train.mean()) / train.std(ddof=0)
    hidden = hide(target.shape, options.missing, options.gaps, options.seed)
    return Task(
        options.data,
        target,
        target.mask(hidden),
        split,
        options.horizon,
        options.context,
        data_set.period,
        options.chunk,
    )
