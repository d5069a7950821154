"""Learning how smoothed states show values at gaps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.building import Sizes
from tsvae.estimation.fitting import TrainingData
from tsvae.models import SVAE
from tsvae.models.predictive import fit_smoothing_readout
from tsvae.panel import gather

__all__ = ["HeldOut", "hold_out", "learn_to_fill"]

_FILL_SHARE = 0.2  # of entries, hidden singly and in blocks each
_FILL_BLOCKS = (4, 12, 24)
_FILL_ENTRIES = 50_000  # of windows that filling gaps is learned on


class HeldOut(NamedTuple):
    """Windows in which some entries are hidden.

    Attributes
    ----------
    series, begin : ndarray (N,)
    values : ndarray (N, T, F)
        0 where not observed.
    mask, visible : bool ndarray (N, T, F)
        What is observed, and what is shown of it.
    inputs : ndarray (N, T, U) or None
    """

    series: NDArray[np.int64]
    begin: NDArray[np.int64]
    values: NDArray[np.float64]
    mask: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    inputs: NDArray[np.float64] | None

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """Entries that are hidden though observed."""
        return self.mask & ~self.visible

    @property
    def input_tensor(self) -> Tensor | None:
        """``inputs`` as the model reads them."""
        return None if self.inputs is None else torch.tensor(self.inputs, dtype=torch.float32)


def hold_out(
    data: TrainingData, first: NDArray[np.int64], window: int, entries: int, seed: int
) -> HeldOut:
    """Hide entries, singly and in blocks, of windows spread evenly over the data.

    Parameters
    ----------
    data : TrainingData
    first : ndarray (B,)
        First row of each series that windows may have; its length: none.
    window : int
        Rows of a window, where there are so many.
    entries : int
        Number in all windows, about.
    seed : int

    Returns
    -------
    HeldOut
    """
    rng = np.random.default_rng(seed)
    width = min(window, int((data.lengths - first).max()))
    own = np.flatnonzero(data.lengths > first)
    at_most = max(2, entries // (width * data.values.shape[-1]))
    per_series = max(1, at_most // len(own))
    own = own[:at_most]
    series = np.repeat(own, per_series)
    share = np.tile(np.linspace(0.0, 1.0, per_series), len(own))
    room = np.maximum(data.lengths - width - first, 0)[series]
    begin = first[series] + np.round(share * room).astype(np.int64)
    x, mask = gather(data.values, series, begin, width), gather(data.mask, series, begin, width)
    visible = mask & ~_holes(mask.shape, rng)
    inputs = None if data.inputs is None else gather(data.inputs, series, begin, width)
    return HeldOut(series, begin, np.where(mask, x, 0.0), mask, visible, inputs)


def learn_to_fill(model: SVAE, data: TrainingData, sizes: Sizes, seed: int) -> None:
    """Hide entries of some training windows, and fit how smoothed states show them."""
    held = hold_out(data, np.zeros_like(data.lengths), sizes.window, _FILL_ENTRIES, seed)
    fit_smoothing_readout(
        model,
        torch.tensor(held.values, dtype=torch.float32),
        torch.tensor(held.mask),
        torch.tensor(held.visible),
        held.input_tensor,
    )


def _holes(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Entries to hide: single ones, and blocks of a few lengths."""
    holes = rng.random(shape) < _FILL_SHARE
    for length in _FILL_BLOCKS:
        begins = rng.random(shape) < _FILL_SHARE / length / len(_FILL_BLOCKS)
        reach = np.cumsum(begins, axis=1)
        before = np.zeros_like(reach)
        before[:, length:] = reach[:, :-length]
        holes |= reach > before
    return holes
