"""Training a model of the autoencoder family on signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tsvae._denoiser.batches import SignalBatches
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

__all__ = ["TrainingSignals", "fit_model", "hides_entries", "planned_steps", "training_config"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Parameters = Mapping[str, Any]

_EPOCH_STEPS = (20, 50)  # fewest and most steps that make an epoch
_FEWEST_RECORDS = 20  # fewer are not split for validation
_ANNEALED_BY = 0.5  # part of a short fit after which beta has its final value


@dataclass(frozen=True, eq=False)
class TrainingSignals:
    """Signals in model units.

    Attributes
    ----------
    values : ndarray of shape (B, T, F)
    mask : bool ndarray of shape (B, T, F)
    lengths : ndarray of shape (B,)
    window : int
        W; T for records.
    clean, clean_mask : ndarray of shape (B, T, F) or None
        Targets.
    conditions : ndarray of shape (B, C) or None
    dense : bool
        Whether dense layers read whole records.
    """

    values: Array
    mask: Mask
    lengths: NDArray[np.int64]
    window: int
    clean: Array | None = None
    clean_mask: Mask | None = None
    conditions: Array | None = None
    dense: bool = False

    @property
    def n_windows(self) -> int:
        """Windows that show every step about once."""
        return max(1, int(np.ceil(np.maximum(self.lengths / self.window, 1.0).sum())))


def planned_steps(signals: TrainingSignals, params: Parameters) -> int:
    """Optimizer steps of one epoch: about one look at the data, within bounds."""
    once = int(np.ceil(signals.n_windows / params["batch_size"]))
    return int(np.clip(once, *_EPOCH_STEPS))


def training_config(params: Parameters, total_steps: int) -> TrainingConfig:
    """Return the settings of the training loop."""
    names = (
        *("max_epochs", "batch_size", "learning_rate", "optimizer", "lr_schedule"),
        *("warmup_steps", "clip_norm", "patience", "min_delta", "max_time", "device"),
        *("precision", "n_threads"),
    )
    return TrainingConfig(
        **{name: params[name] for name in names},
        early_stopping_start=annealing_end(params, total_steps),
        verbose=bool(params["verbose"]),
    )


def annealing_end(params: Parameters, total_steps: int) -> int:
    """Step from which the KL terms have their full weight, within the first half of a fit."""
    if params["model"] in ("ae", "vq"):
        return 0
    return min(int(params["annealing_steps"]), int(_ANNEALED_BY * total_steps))


def _augmentation(signals: TrainingSignals, params: Parameters, hides: bool) -> Augmentation | None:
    fraction = params["mask_fraction"] if hides else 0.0
    length = int(params["block_length"])
    if not fraction and not params["noise_scale"]:
        return None
    if length and hides:
        entries = signals.window * signals.values.shape[-1]
        blocks = max(1, round(fraction * entries / length))
        return Augmentation(
            n_blocks=blocks, block_length=length, noise_scale=params["noise_scale"], shared=False
        )
    # Dense layers that have only seen a quarter hidden misread records of which nothing is;
    # convolutions see many shares anyway, in pieces of one record.
    return Augmentation(
        random_fraction=fraction,
        noise_scale=params["noise_scale"],
        shared=False,
        varied=signals.dense,
    )


def fit_model(
    model: Any,
    signals: TrainingSignals,
    params: Parameters,
    generator: torch.Generator,
    callbacks: Sequence[Callback] = (),
) -> TrainingLog:
    """Train ``model`` in place.

    Parameters
    ----------
    model : BaseAutoencoder
        Built.
    signals : TrainingSignals
    params : mapping
        Of the estimator.
    generator : torch.Generator
    callbacks : sequence of Callback

    Returns
    -------
    TrainingLog
    """
    steps = planned_steps(signals, params)
    total = steps * int(params["max_epochs"])
    if hasattr(model, "beta_schedule"):
        end = annealing_end(params, total)
        model.beta_schedule = BetaSchedule(0.0, float(params["beta"]), 0, end)
    batches = _batches(signals, params, steps, generator)
    return train(
        model,
        batches.train,
        validation_batches=batches.validation,
        config=training_config(params, total),
        generator=generator,
        callbacks=callbacks,
    )


def hides_entries(params: Parameters, supervised: bool) -> bool:
    """Whether training asks for hidden entries alone."""
    chosen = params["self_supervision"] == "blind_spot" and params["mask_fraction"] > 0.0
    return bool(chosen and not supervised)


class _Batches(NamedTuple):
    train: SignalBatches
    validation: SignalBatches | None


def _batches(
    signals: TrainingSignals, params: Parameters, steps: int, generator: torch.Generator
) -> _Batches:
    """Batches of random windows, and of those held out for validation."""
    tensors = _tensors(signals)
    many = len(signals.values) >= _FEWEST_RECORDS
    whole = signals.window == signals.values.shape[1]
    split = split_validation(
        tensors["lengths"],
        params["validation_fraction"] if many or not whole else 0.0,
        signals.window,
        by="series" if many else "time",
        generator=generator,
    )
    blind = hides_entries(params, signals.clean is not None)
    size = int(params["batch_size"])
    shared = {
        **tensors,
        "batch_size": size,
        "augmentation": _augmentation(signals, params, hides=blind),
    }
    given = signals.conditions
    conditions = None if given is None else torch.tensor(given, dtype=torch.float32)

    def complete(loader: WindowLoader, resample: bool = False) -> SignalBatches:
        return SignalBatches(loader, signals.clean is not None, conditions, blind, resample)

    drawn = WindowLoader(**shared, ranges=split.train, n_windows=size * steps)
    training = complete(drawn, bool(params["resample_noise"]))
    if split.validation is None:
        return _Batches(training, None)
    held_out = WindowLoader(**shared, ranges=split.validation, random_start=False, shuffle=False)
    return _Batches(training, complete(held_out))


def _tensors(signals: TrainingSignals) -> dict[str, Any]:
    inputs = None
    if signals.clean is not None:
        assert signals.clean_mask is not None
        both = np.concatenate([signals.clean, signals.clean_mask], axis=-1)
        inputs = torch.tensor(both, dtype=torch.float32)
    return {
        "values": torch.tensor(signals.values, dtype=torch.float32),
        "mask": torch.tensor(signals.mask),
        "inputs": inputs,
        "lengths": torch.as_tensor(signals.lengths),
        "window": signals.window,
    }
