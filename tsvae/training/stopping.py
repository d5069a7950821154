"""Early stopping and the best state of a run, kept in memory on the CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["BestState", "EarlyStopping"]


@dataclass
class EarlyStopping:
    """Counts epochs without improvement of the criterion.

    Parameters
    ----------
    patience : int or None
        Such epochs that are endured; None never stops.
    min_delta : float, default=0.0
        Smallest decrease that counts as an improvement.
    min_epochs : int, default=0
        No stop before so many epochs.
    start_step : int, default=0
        Epochs that end before this step are not counted.

    Examples
    --------
    >>> stopping = EarlyStopping(patience=2)
    >>> [stopping.update(c, epoch=e, step=0) for e, c in enumerate([3.0, 2.0, 2.5, 2.1])]
    [False, False, False, True]
    """

    patience: int | None
    min_delta: float = 0.0
    min_epochs: int = 0
    start_step: int = 0
    reference: float = math.inf
    bad_epochs: int = 0
    stopped: bool = False

    def update(self, criterion: float, *, epoch: int, step: int) -> bool:
        """Take the criterion of an epoch; return True if training should stop."""
        if step < self.start_step:
            return False
        if criterion < self.reference - self.min_delta:
            self.reference, self.bad_epochs = criterion, 0
        else:
            self.bad_epochs += 1
        self.stopped = (
            self.patience is not None
            and self.bad_epochs >= self.patience
            and epoch + 1 >= self.min_epochs
        )
        return self.stopped

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {
            "reference": self.reference,
            "bad_epochs": self.bad_epochs,
            "stopped": self.stopped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.reference, self.bad_epochs = float(state["reference"]), int(state["bad_epochs"])
        self.stopped = bool(state["stopped"])


class BestState:
    """Copy of a model's state at its lowest criterion so far."""

    def __init__(self) -> None:
        self.criterion = math.inf
        self.epoch: int | None = None
        self.tensors: dict[str, Tensor] = {}

    def offer(self, model: nn.Module, criterion: float, epoch: int) -> None:
        """Keep the model's state if the criterion is the lowest so far."""
        if criterion < self.criterion:
            self.criterion, self.epoch = criterion, epoch
            self._copy(model)

    def _copy(self, model: nn.Module) -> None:
        # Buffers of the first copy are used again: no allocation in later epochs.
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if not isinstance(value, Tensor):
                    continue
                if name in self.tensors:
                    self.tensors[name].copy_(value)
                else:
                    self.tensors[name] = value.detach().to("cpu", copy=True)

    def restore(self, model: nn.Module) -> bool:
        """Load the kept state into the model; return whether there was one."""
        if self.epoch is None:
            return False
        model.load_state_dict(self.tensors, strict=False)
        return True

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"criterion": self.criterion, "epoch": self.epoch, "tensors": dict(self.tensors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.criterion, self.epoch = float(state["criterion"]), state["epoch"]
        self.tensors = {name: value.clone() for name, value in state["tensors"].items()}
