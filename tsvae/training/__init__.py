"""One short training loop for every model of the library.

A model is known by ``training_step(batch, step) -> LossResult`` alone.
"""

from __future__ import annotations

from tsvae.training.augment import Augmentation, Augmented, observed_lengths
from tsvae.training.callbacks import (
    Callback,
    Checkpoint,
    FabricLogger,
    ProgressBar,
    ReconstructionRecorder,
)
from tsvae.training.config import TrainingConfig
from tsvae.training.data import WindowEpoch, WindowIndex, WindowLoader
from tsvae.training.devices import resolve_device
from tsvae.training.errors import DivergenceError
from tsvae.training.log import TrainingLog
from tsvae.training.loop import train
from tsvae.training.optim import NaturalDescent
from tsvae.training.range_test import RangeTest, learning_rate_range_test
from tsvae.training.result import LossResult
from tsvae.training.schedules import BetaSchedule, Plateau, learning_rate_factor
from tsvae.training.sklearn_callbacks import (
    SklearnCallbacks,
    callback_support_mixin,
    with_callbacks,
)
from tsvae.training.splits import SeriesRange, ValidationSplit, split_validation
from tsvae.training.state import TrainingState, load_checkpoint
from tsvae.training.threads import pinned_threads

__all__ = [
    "Augmentation",
    "Augmented",
    "BetaSchedule",
    "Callback",
    "Checkpoint",
    "DivergenceError",
    "FabricLogger",
    "LossResult",
    "NaturalDescent",
    "Plateau",
    "ProgressBar",
    "RangeTest",
    "ReconstructionRecorder",
    "SeriesRange",
    "SklearnCallbacks",
    "TrainingConfig",
    "TrainingLog",
    "TrainingState",
    "ValidationSplit",
    "WindowEpoch",
    "WindowIndex",
    "WindowLoader",
    "callback_support_mixin",
    "learning_rate_factor",
    "learning_rate_range_test",
    "load_checkpoint",
    "observed_lengths",
    "pinned_threads",
    "resolve_device",
    "split_validation",
    "train",
    "with_callbacks",
]
