"""Training a structured VAE on a panel: loaders, schedules, the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tsvae.estimation.building import Sizes
from tsvae.models import SVAE
from tsvae.training import (
    Augmentation,
    BetaSchedule,
    Callback,
    TrainingConfig,
    TrainingLog,
    WindowLoader,
    split_validation,
    train,
)

__all__ = ["TrainingData", "fit_model", "schedule_beta"]

#: Fewest and most steps that make an epoch, whatever the size of the data.
_EPOCH_STEPS = (20, 50)
_VALIDATION_WINDOWS = 8


@dataclass(frozen=True)
class TrainingData:
    """Panel in model units.

    Attributes
    ----------
    values : ndarray (B, T, F)
    mask : bool ndarray (B, T, F)
    lengths : ndarray (B,)
    inputs : ndarray (B, T, U) or None
    """

    values: NDArray[np.float64]
    mask: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    inputs: NDArray[np.float64] | None

    def without_last(self, rows: int) -> TrainingData:
        """Return the data without the last ``rows`` rows of each series."""
        lengths = np.maximum(self.lengths - rows, 0)
        n_steps = int(lengths.max(initial=0))
        inside = (np.arange(n_steps) < lengths[:, None])[..., None]
        return TrainingData(
            self.values[:, :n_steps] * inside,
            self.mask[:, :n_steps] & inside,
            lengths,
            None if self.inputs is None else self.inputs[:, :n_steps],
        )


def steps_per_epoch(data: TrainingData, sizes: Sizes, windows: int) -> int:
    """Count the steps that look at the data about once, within bounds."""
    once = int(np.ceil(data.lengths.sum() / sizes.window / windows))
    low, high = _EPOCH_STEPS
    return int(np.clip(once, low, high))


def schedule_beta(beta: BetaSchedule, total_steps: int) -> BetaSchedule:
    """Beta schedule that reaches its end within the first 30 % of a short fit."""
    return beta.fit_to(total_steps)


def fit_model(
    model: SVAE,
    data: TrainingData,
    sizes: Sizes,
    config: TrainingConfig,
    *,
    validation_fraction: float,
    augmentation: Augmentation | None,
    generator: torch.Generator,
    callbacks: Sequence[Callback] = (),
    beta: BetaSchedule | None = None,
) -> TrainingLog:
    """Train ``model`` in place.

    Parameters
    ----------
    model : SVAE
    data : TrainingData
    sizes : Sizes
    config : TrainingConfig
    validation_fraction : float
        Part set aside for validation: whole series if there are many, else the last part of the
        time. None is set aside if it would not hold one horizon.
    augmentation : Augmentation or None
        Hides entries from the encoder.
    generator : torch.Generator
    callbacks : sequence of Callback
    beta : BetaSchedule or None
        Fitted to the length of this run.

    Returns
    -------
    TrainingLog
    """
    windows = config.batch_size
    steps = steps_per_epoch(data, sizes, windows)
    total = config.max_steps or config.max_epochs * steps
    if not total:
        return TrainingLog(stop_reason="max_epochs")
    if beta is not None:
        model.beta = schedule_beta(beta, total)
        config = replace(config, early_stopping_start=min(model.beta.complete_step, total))
    # The loss is per value; natural steps are in units of the full data's conjugate update.
    config = replace(
        config, natural_learning_rate=config.natural_learning_rate * max(int(data.mask.sum()), 1)
    )
    lengths = torch.as_tensor(data.lengths)
    shortest = int(validation_fraction * data.lengths.max())
    fraction = validation_fraction if shortest >= sizes.horizon else 0.0
    split = split_validation(lengths, fraction, sizes.window, generator=generator)
    tensors: dict[str, Any] = {
        "values": torch.tensor(data.values, dtype=torch.float32),
        "mask": torch.tensor(data.mask),
        "inputs": None if data.inputs is None else torch.tensor(data.inputs, dtype=torch.float32),
        "lengths": lengths,
        "window": sizes.window,
    }
    loader = WindowLoader(
        **tensors,
        batch_size=windows,
        ranges=split.train,
        n_windows=windows * steps,
        augmentation=augmentation,
    )
    held_out = None
    if split.validation is not None:
        held_out = WindowLoader(
            **tensors,
            batch_size=max(windows, _VALIDATION_WINDOWS),
            ranges=split.validation,
            random_start=False,
            shuffle=False,
        )
    return train(
        model,
        loader,
        validation_batches=held_out,
        config=config,
        generator=generator,
        callbacks=callbacks,
    )
