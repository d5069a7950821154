"""Callbacks of the training loop."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from tsvae.training.state import TrainingState, save_checkpoint

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = [
    "Callback",
    "CallbackList",
    "Checkpoint",
    "FabricLogger",
    "ProgressBar",
    "ReconstructionRecorder",
]


class Callback:
    """Base class: hooks that do nothing.

    Any object with some of these methods will do. Hooks get the run's
    :class:`~tsvae.training.TrainingState`; they may read everything in it. They are called by
    the main process only.
    """

    def on_fit_start(self, state: TrainingState) -> None:
        """Before the first step (or the first one after a resume)."""

    def on_step_end(self, state: TrainingState) -> None:
        """After each optimizer step; must be quick."""

    def on_epoch_end(self, state: TrainingState) -> bool | None:
        """After each epoch, its row in ``state.log``; True ends training."""

    def on_fit_end(self, state: TrainingState) -> None:
        """When training has ended, the best state restored; also after an exception."""


class CallbackList(Callback):
    """Several callbacks as one; calls only the hooks that do something.

    Parameters
    ----------
    callbacks : sequence of Callback
        Called in this order.

    Raises
    ------
    TypeError
        If one of them has none of the hooks, or is a class instead of an object.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        hooks = ("on_fit_start", "on_step_end", "on_epoch_end", "on_fit_end")
        for callback in callbacks:
            if isinstance(callback, type) or not any(hasattr(callback, h) for h in hooks):
                raise TypeError(
                    f"callbacks must be objects with some of the methods {', '.join(hooks)}; "
                    f"got {callback!r}."
                )
        self._hooks = {name: list(_overridden(callbacks, name)) for name in hooks}

    def on_fit_start(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_fit_start`."""
        for hook in self._hooks["on_fit_start"]:
            hook(state)

    def on_step_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_step_end`."""
        for hook in self._hooks["on_step_end"]:
            hook(state)

    def on_epoch_end(self, state: TrainingState) -> bool:
        """See :meth:`Callback.on_epoch_end`."""
        # All are called, also after one has asked for the end.
        return any([bool(hook(state)) for hook in self._hooks["on_epoch_end"]])

    def on_fit_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_fit_end`."""
        for hook in self._hooks["on_fit_end"]:
            hook(state)


def _overridden(callbacks: Iterable[Any], name: str) -> Iterable[Any]:
    for callback in callbacks:
        hook = getattr(callback, name, None)
        if hook is not None and getattr(type(callback), name, None) is not getattr(Callback, name):
            yield hook


class ReconstructionRecorder(Callback):
    """Keeps what the model makes of one fixed sample, epoch for epoch.

    Calls ``model.reconstruct(batch)`` in eval mode, if the model has that method. Training is
    not disturbed: random states are put back. Each run starts a new record; one that is resumed
    goes on with it.

    Parameters
    ----------
    sample_batch : mapping of str to Tensor, optional
        Batch to reconstruct; the first one of the run by default, which takes no preparation and
        works inside an estimator's ``fit``.
    every : int, default=1
        Epochs between records.

    Attributes
    ----------
    batch : mapping of str to Tensor or None
        What was reconstructed; None before the first step.
    epochs : list of int
        Epochs of the records.
    reconstructions : list
        What the model returned, on the CPU.
    """

    def __init__(self, sample_batch: Mapping[str, Tensor] | None = None, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be an integer >= 1, got {every!r}.")
        self.sample_batch = sample_batch
        self.every = every
        self.batch = sample_batch
        self.epochs: list[int] = []
        self.reconstructions: list[Any] = []

    def on_fit_start(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_fit_start`."""
        if state.step == 0:
            self.batch, self.epochs, self.reconstructions = self.sample_batch, [], []

    def on_step_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_step_end`."""
        if self.batch is None:
            self.batch = _to_cpu(dict(state.batch or {}))

    def on_epoch_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_epoch_end`."""
        reconstruct = getattr(state.model, "reconstruct", None)
        if reconstruct is None or (state.epoch - 1) % self.every:
            return
        batch = {name: value.to(state.device) for name, value in (self.batch or {}).items()}
        training = state.model.training
        state.model.eval()
        try:
            with torch.no_grad(), state.common_random_numbers():
                result = reconstruct(batch)
        finally:
            state.model.train(training)
        self.epochs.append(state.epoch - 1)
        self.reconstructions.append(_to_cpu(result))


def _to_cpu(value: Any) -> Any:
    """Tensors in nested containers, detached and copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: _to_cpu(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_to_cpu, value))
    if isinstance(value, list | tuple):
        return type(value)(map(_to_cpu, value))
    return value


class ProgressBar(Callback):
    """A tqdm bar over the steps; added by ``verbose=True``.

    Parameters
    ----------
    **settings
        Passed to ``tqdm`` (``file``, ``mininterval``, ...).
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self._bar: tqdm[Any] | None = None

    def on_fit_start(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_fit_start`."""
        from tqdm import tqdm

        settings = {"desc": "fit", "unit": "step"} | self.settings
        self._bar = tqdm(total=state.total_steps, initial=state.step, **settings)

    def on_step_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_step_end`."""
        if self._bar is not None:
            self._bar.update()

    def on_epoch_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_epoch_end`."""
        if self._bar is None:
            return
        row = state.log.rows[-1]
        shown = {"epoch": state.epoch}
        shown |= {n: f"{row[n]:.4g}" for n in ("objective", "validation") if row[n] is not None}  # type: ignore[misc]
        self._bar.set_postfix(shown, refresh=False)

    def on_fit_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_fit_end`."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bar": None}


class MetricLogger(Protocol):
    """What Fabric's loggers have in common."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write metrics."""

    def finalize(self, status: str) -> None:
        """Close files."""


class FabricLogger(Callback):
    """Writes the log's rows with one of lightning-fabric's loggers.

    Parameters
    ----------
    logger : {"csv", "tensorboard"} or logger
        Kind of logger, made when training starts, or an object with ``log_metrics`` and
        ``finalize`` (Fabric's loggers, Lightning's ``WandbLogger``, ...).
    root_dir : path-like, default="logs"
        Folder to write to.
    name : str, default="tsvae"
        Name of the folder below it.
    version : int or str, optional
        Name of the run; the next free number by default.
    """

    def __init__(
        self,
        logger: str | MetricLogger = "csv",
        root_dir: str | os.PathLike[str] = "logs",
        name: str = "tsvae",
        version: int | str | None = None,
    ) -> None:
        if isinstance(logger, str) and logger not in ("csv", "tensorboard"):
            raise ValueError(f"logger must be 'csv', 'tensorboard' or a logger, got {logger!r}.")
        self.logger = logger
        self.root_dir, self.name, self.version = root_dir, name, version
        self._active: MetricLogger | None = None

    def on_fit_start(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_fit_start`."""
        self._active = self._make() if isinstance(self.logger, str) else self.logger

    def on_epoch_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_epoch_end`."""
        assert self._active is not None
        row = {n: float(v) for n, v in state.log.rows[-1].items() if v is not None}
        step = int(row.pop("step"))
        self._active.log_metrics(row, step=step)

    def on_fit_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_fit_end`."""
        if self._active is not None:
            self._active.finalize("success")
            self._active = None

    def _make(self) -> MetricLogger:
        from lightning_fabric import loggers

        kind: Any = loggers.CSVLogger if self.logger == "csv" else loggers.TensorBoardLogger
        try:
            made: MetricLogger = kind(
                os.fspath(self.root_dir), name=self.name, version=self.version
            )
        except ModuleNotFoundError as error:
            raise ImportError(
                "FabricLogger('tensorboard') needs TensorBoard; run: pip install tensorboard."
            ) from error
        return made

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_active": None}


class Checkpoint(Callback):
    """Saves the run's state so that ``train(..., resume=path)`` can go on with it.

    The file holds tensors and plain values only: loading it runs no code. It is replaced in one
    move, so an interruption leaves the old one.

    Parameters
    ----------
    path : path-like
        File to write.
    every : int, default=1
        Epochs between saves.
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be an integer >= 1, got {every!r}.")
        self.path = path
        self.every = every

    def on_epoch_end(self, state: TrainingState) -> None:
        """See :meth:`Callback.on_epoch_end`."""
        if state.epoch % self.every == 0:
            save_checkpoint(state, self.path)
