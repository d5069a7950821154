"""The state of a run: what callbacks see and what a checkpoint holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tsvae.training.config import TrainingConfig
from tsvae.training.log import TrainingLog
from tsvae.training.result import LossResult
from tsvae.training.rng import get_random_states, set_random_states
from tsvae.training.schedules import Plateau
from tsvae.training.stopping import BestState, EarlyStopping

__all__ = ["TrainingState", "load_checkpoint", "save_checkpoint"]

_FORMAT = "tsvae-checkpoint-1"


@dataclass
class TrainingState:
    """Everything a run consists of; handed to callbacks.

    Parameters
    ----------
    model : Module
        The model being trained, on its device.
    config : TrainingConfig
        Settings.
    generator : torch.Generator
        The run's source of randomness.
    log : TrainingLog
        Rows of the epochs so far.
    device : torch.device
        Where the model and the batches are.
    optimizers : dict of str to Optimizer
        ``"network"`` and ``"natural"``, as far as they exist.
    learning_rate : float
        Peak rate of the network group (resolved if the setting was "auto").
    total_steps : int
        Planned optimizer steps.
    validation_seed : int
        Seed of the validation pass, the same in every epoch.
    stopping : EarlyStopping
        Patience of the run.
    plateau : Plateau
        Factor of the learning rate under the "plateau" schedule.
    best : BestState
        Weights of the best epoch so far.
    scaler : torch.amp.GradScaler or None
        Loss scaling of float16; None otherwise.
    epoch, step : int
        Epochs and optimizer steps completed.
    elapsed : float
        Seconds of training so far, earlier parts of a resumed run included.
    batch, result
        Last batch and what the model returned for it.
    """

    model: nn.Module
    config: TrainingConfig
    generator: torch.Generator
    log: TrainingLog
    device: torch.device
    optimizers: dict[str, Optimizer]
    learning_rate: float
    total_steps: int
    validation_seed: int
    stopping: EarlyStopping
    plateau: Plateau
    best: BestState = field(default_factory=BestState)
    scaler: torch.amp.GradScaler | None = None
    epoch: int = 0
    step: int = 0
    elapsed: float = 0.0
    batch: Mapping[str, Tensor] | None = None
    result: LossResult | None = None

    @property
    def generators(self) -> dict[str, torch.Generator]:
        """The run's generator and the model's own (its ``generator`` attribute), if any."""
        generators = {"run": self.generator}
        own = getattr(self.model, "generator", None)
        if isinstance(own, torch.Generator) and own is not self.generator:
            generators["model"] = own
        return generators

    @contextmanager
    def common_random_numbers(self) -> Iterator[torch.Generator]:
        """Draw the same numbers in every validation pass, and leave training's untouched."""
        saved = get_random_states(self.generators, self.device)
        try:
            fixed = torch.Generator(self.generator.device).manual_seed(self.validation_seed)
            for generator in (*self.generators.values(), torch.default_generator):
                generator.manual_seed(self.validation_seed)
            if self.device.type == "cuda":
                torch.cuda.default_generators[self.device.index].manual_seed(self.validation_seed)
            yield fixed
        finally:
            set_random_states(saved, self.generators, self.device)

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint: tensors and plain values only."""
        return {
            "format": _FORMAT,
            "epoch": self.epoch,
            "step": self.step,
            "elapsed": self.elapsed,
            "learning_rate": self.learning_rate,
            "total_steps": self.total_steps,
            "validation_seed": self.validation_seed,
            "model": self.model.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "stopping": self.stopping.state_dict(),
            "plateau": self.plateau.state_dict(),
            "best": self.best.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "random": get_random_states(self.generators, self.device),
            "log": {**self.log.to_dict(), "rows": list(self.log.rows)},
            "config": self.config.to_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint made by :meth:`state_dict`.

        Raises
        ------
        ValueError
            If the checkpoint belongs to another optimizer or another model.
        """
        self._check_compatible(state)
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.stopping.load_state_dict(state["stopping"])
        self.plateau.load_state_dict(state["plateau"])
        self.best.load_state_dict(state["best"])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.elapsed = float(state["elapsed"])
        self.learning_rate = float(state["learning_rate"])
        self.validation_seed = int(state["validation_seed"])
        restored = TrainingLog.from_dict(state["log"])
        self.log.rows[:] = restored.rows
        set_random_states(state["random"], self.generators, self.device)

    def _check_compatible(self, state: Mapping[str, Any]) -> None:
        old, new = state["config"]["optimizer"], self.config.optimizer
        if old != new or set(state["optimizers"]) != set(self.optimizers):
            raise ValueError(
                f"The checkpoint was written with optimizer={old!r} and parameter groups "
                f"{sorted(state['optimizers'])}, this run has optimizer={new!r} and "
                f"{sorted(self.optimizers)}. Resume with the settings of the checkpoint."
            )
        if set(state["model"]) != set(self.model.state_dict()):
            raise ValueError(
                "The checkpoint belongs to another model: its tensors are "
                f"{sorted(state['model'])[:5]}..., this model's are "
                f"{sorted(self.model.state_dict())[:5]}... Build the model with the same settings."
            )


def save_checkpoint(state: TrainingState, path: str | os.PathLike[str]) -> None:
    """Write a run's state to a file, by a rename so that no half file is ever seen.

    Parameters
    ----------
    state : TrainingState
        Run to save.
    path : path-like
        File to write; missing folders are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    torch.save(state.state_dict(), partial)
    os.replace(partial, target)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint without running any code from it.

    Parameters
    ----------
    path : path-like
        File written by :class:`tsvae.training.Checkpoint`.

    Returns
    -------
    dict

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or no checkpoint of this library.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no checkpoint {str(path)!r}; give resume=None to start.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch errors all mean the same to the user
        raise ValueError(
            f"{str(path)!r} cannot be read as a checkpoint ({type(error).__name__}); the file is "
            "damaged or was written by another program."
        ) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"{str(path)!r} is no tsvae checkpoint ({_FORMAT}).")
    return state
