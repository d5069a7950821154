"""Learning how smoothed states show values at gaps."""

from __future__ import annotations

import numpy as np
import torch

from tsvae.estimation.building import Sizes
from tsvae.estimation.fitting import TrainingData
from tsvae.models import SVAE
from tsvae.models.predictive import fit_smoothing_readout
from tsvae.panel import gather

__all__ = ["learn_to_fill"]

_FILL_SHARE = 0.2  # of entries, hidden singly and in blocks each
_FILL_BLOCKS = (4, 12, 24)
_FILL_ENTRIES = 50_000  # of windows that filling gaps is learned on


def learn_to_fill(model: SVAE, data: TrainingData, sizes: Sizes, seed: int) -> None:
    """Hide entries of some training windows, and fit how smoothed states show them."""
    rng = np.random.default_rng(seed)
    width = min(sizes.window, int(data.lengths.max()))
    rows = np.maximum(data.lengths - width, 0)
    at_most = max(2, _FILL_ENTRIES // (width * data.values.shape[-1]))
    per_series = max(1, at_most // len(rows))
    series = np.repeat(np.arange(len(rows))[:at_most], per_series)
    share = np.tile(np.linspace(0.0, 1.0, per_series), len(rows[:at_most]))
    starts = np.round(share * rows[series]).astype(np.int64)
    x, mask = gather(data.values, series, starts, width), gather(data.mask, series, starts, width)
    visible = mask & ~_holes(mask.shape, rng)
    inputs = None if data.inputs is None else gather(data.inputs, series, starts, width)
    fit_smoothing_readout(
        model,
        torch.tensor(np.where(mask, x, 0.0), dtype=torch.float32),
        torch.tensor(mask),
        torch.tensor(visible),
        None if inputs is None else torch.tensor(inputs, dtype=torch.float32),
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
