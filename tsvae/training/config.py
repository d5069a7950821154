"""Settings of a training run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any, Literal

__all__ = ["TrainingConfig"]

OptimizerName = Literal["adam", "adamw", "adafactor"]
ScheduleName = Literal["cosine", "constant", "plateau", "one_cycle"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("adam", "adamw", "adafactor"),
    "lr_schedule": ("cosine", "constant", "plateau", "one_cycle"),
    "precision": ("32-true", "bf16-mixed", "16-mixed", "64-true"),
}
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|gpu)(:\d+)?")
_STRATEGY = re.compile(r"auto|ddp(_\w+)?")

#: name -> (lowest value, is the lowest value itself allowed, must be an integer)
_BOUNDS: dict[str, tuple[float, bool, bool]] = {
    "max_epochs": (0, True, True),
    "max_steps": (1, True, True),
    "batch_size": (1, True, True),
    "natural_learning_rate": (0.0, True, False),
    "weight_decay": (0.0, True, False),
    "warmup_steps": (0, True, True),
    "clip_norm": (0.0, False, False),
    "accumulate": (1, True, True),
    "num_devices": (1, True, True),
    "n_threads": (1, True, True),
    "patience": (1, True, True),
    "min_delta": (0.0, True, False),
    "min_epochs": (0, True, True),
    "early_stopping_start": (0, True, True),
    "validation_every": (1, True, True),
    "max_time": (0.0, False, False),
}
_MAY_BE_NONE = {"max_steps", "weight_decay", "clip_norm", "n_threads", "patience", "max_time"}


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of :func:`tsvae.training.train`.

    Parameters
    ----------
    max_epochs : int, default=100
        Passes over the training batches.
    max_steps : int or None, default=None
        Upper limit of optimizer steps over the whole run.
    batch_size : int, default=32
        Windows per batch. The loop itself does not cut batches; the number is named in an
        out-of-memory error, and loaders are built from it.
    learning_rate : float or "auto", default=1e-3
        Peak rate of the network group; ``"auto"`` runs a range test first.
    natural_learning_rate : float, default=0.1
        Peak rate of the natural-gradient group, in units of the conjugate update
        (1 would replace the posterior by the one of the current batch).
    optimizer : {"adam", "adamw", "adafactor"}, default="adam"
        Optimizer of the network group.
    weight_decay : float or None, default=None
        Weight decay of the network group; None is the optimizer's own default.
    lr_schedule : {"cosine", "constant", "plateau", "one_cycle"}, default="cosine"
        Shape of the network group's rate. ``"plateau"`` multiplies by 0.5 after 5 epochs
        without improvement; ``"one_cycle"`` rises for 30 % of the run, then falls to ~0.
    natural_lr_schedule : same choices or None, default=None
        Shape of the natural group's rate; None is the same as ``lr_schedule``.
    warmup_steps : int, default=0
        Steps of linear warm-up before the schedule begins (``"one_cycle"`` has its own).
    clip_norm : float or None, default=1.0
        Largest norm of the network group's gradient. The natural group is never clipped:
        its step size has a meaning of its own.
    accumulate : int, default=1
        Batches whose mean gradient makes one optimizer step.
    precision : {"32-true", "bf16-mixed", "16-mixed", "64-true"}, default="32-true"
        "mixed" runs the modules named by ``model.network_modules()`` (or, without that method,
        the whole step) in half precision; "64-true" converts the model to float64. "32-true"
        leaves the model's own dtype as it is.
    device : {"auto", "cpu", "cuda", "cuda:<index>", "gpu", "mps"}, default="auto"
        "auto" is the first CUDA device, else the CPU.
    keep_on_device : bool, default=False
        Leave the model on that device afterwards; by default it goes back to where it was.
    strategy : str, default="auto"
        Fabric's strategy for several devices: "ddp", "ddp_spawn", ...
    num_devices : int, default=1
        Number of devices; more than one only by choice.
    n_threads : int or None, default=None
        CPU threads of torch during training; None leaves the number as it is.
    patience : int or None, default=None
        Epochs without improvement before training stops; None never stops early.
    min_delta : float, default=0.0
        Smallest decrease of the criterion that counts as an improvement.
    min_epochs : int, default=0
        No early stop before so many epochs.
    early_stopping_start : int, default=0
        Step from which epochs count for ``patience`` (the end of a beta warm-up).
    validation_every : int, default=1
        Epochs between validation passes.
    max_time : float or None, default=None
        Seconds after which training ends in good order.
    verbose : bool, default=False
        Show a progress bar.

    Raises
    ------
    ValueError, TypeError
        If a setting is out of range or of the wrong type.

    Examples
    --------
    >>> TrainingConfig(max_epochs=5).lr_schedule
    'cosine'
    >>> TrainingConfig(accumulate=0)
    Traceback (most recent call last):
        ...
    ValueError: accumulate must be an integer >= 1, got 0.
    """

    max_epochs: int = 100
    max_steps: int | None = None
    batch_size: int = 32
    learning_rate: float | Literal["auto"] = 1e-3
    natural_learning_rate: float = 0.1
    optimizer: OptimizerName = "adam"
    weight_decay: float | None = None
    lr_schedule: ScheduleName = "cosine"
    natural_lr_schedule: ScheduleName | None = None
    warmup_steps: int = 0
    clip_norm: float | None = 1.0
    accumulate: int = 1
    precision: Precision = "32-true"
    device: str = "auto"
    keep_on_device: bool = False
    strategy: str = "auto"
    num_devices: int = 1
    n_threads: int | None = None
    patience: int | None = None
    min_delta: float = 0.0
    min_epochs: int = 0
    early_stopping_start: int = 0
    validation_every: int = 1
    max_time: float | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        for name in _BOUNDS:
            _check_bound(name, getattr(self, name))
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        if self.natural_lr_schedule is not None:
            _check_choice("natural_lr_schedule", self.natural_lr_schedule, _CHOICES["lr_schedule"])
        _check_learning_rate(self.learning_rate)
        _check_pattern("device", self.device, _DEVICE, "'auto', 'cpu', 'cuda', 'cuda:0' or 'mps'")
        _check_pattern("strategy", self.strategy, _STRATEGY, "'auto', 'ddp' or 'ddp_spawn'")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a plain dictionary."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_bound(name: str, value: Any) -> None:
    if value is None and name in _MAY_BE_NONE:
        return
    low, closed, integer = _BOUNDS[name]
    kind = "an integer" if integer else "a number"
    text = f"{name} must be {kind} {'>=' if closed else '>'} {low:g}, got {value!r}."
    if not _is_number(value) or (integer and int(value) != value):
        raise TypeError(text)
    if math.isnan(value) or value < low or (value == low and not closed):
        raise ValueError(text)


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def _check_learning_rate(value: Any) -> None:
    text = f"learning_rate must be a number > 0 or 'auto', got {value!r}."
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(text)
    elif not _is_number(value):
        raise TypeError(text)
    elif not value > 0 or math.isinf(value):
        raise ValueError(text)


def _check_pattern(name: str, value: Any, pattern: re.Pattern[str], expected: str) -> None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ValueError(f"{name} must be {expected}, got {value!r}.")
