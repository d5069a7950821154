"""Epochs of steps, validation, stopping: the loop proper, on one process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tsvae.training.callbacks import Callback, CallbackList, ProgressBar
from tsvae.training.config import TrainingConfig
from tsvae.training.devices import Batch, Runtime
from tsvae.training.errors import divergence
from tsvae.training.log import TrainingLog, Value
from tsvae.training.meter import Meter
from tsvae.training.optim import clip_gradients, split_parameters
from tsvae.training.result import LossResult
from tsvae.training.schedules import learning_rate_factor
from tsvae.training.state import TrainingState

__all__ = ["BatchSource", "Request", "Run", "ValidationSource"]

BatchSource = Callable[[int, torch.Generator], Iterable[Batch]]
ValidationSource = BatchSource | Iterable[Batch]


@dataclass
class Request:
    """Arguments of :func:`train`, as one picklable object for spawned processes."""

    batches: BatchSource
    validation_batches: ValidationSource | None
    config: TrainingConfig
    generator: torch.Generator
    callbacks: Sequence[Callback]
    log: TrainingLog
    resume: Mapping[str, Any] | None


class Run:
    """One run: epochs of steps, validation, stopping, callbacks."""

    def __init__(self, runtime: Runtime, state: TrainingState, request: Request) -> None:
        self.runtime, self.state, self.config = runtime, state, request.config
        self.batches, self.validation_batches = request.batches, request.validation_batches
        callbacks = list(request.callbacks)
        if self.config.verbose and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(ProgressBar())
        self.callbacks = CallbackList(callbacks if runtime.is_main else [])
        self.network = split_parameters(state.model).network
        self.optimizers = list(state.optimizers.values())
        self.grad_norm: Tensor | None = None
        self.started = time.monotonic() - state.elapsed
        self.stop_reason: str | None = "patience" if state.stopping.stopped else None
        self.keep_best = self.validation_batches is not None or self.config.patience is not None

    def train(self) -> None:
        """Train to the end; give back the best state, whatever ends it."""
        state = self.state
        try:
            self.callbacks.on_fit_start(state)
            self._check_limits()
            while self.stop_reason is None:
                self._epoch()
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self.stop_reason = "interrupted" if interrupted else type(error).__name__
            raise
        finally:
            if state.best.restore(state.model):
                state.log.best_epoch = state.best.epoch
            state.log.stop_reason = self.stop_reason
            self.callbacks.on_fit_end(state)

    def _epoch(self) -> None:
        state, meter = self.state, Meter()
        for group in self._groups(self.batches(state.epoch, state.generator)):
            self._step(group, meter)
            if self._check_limits(within_epoch=True):
                break
        means = meter.means()
        objective = self.runtime.mean(means.pop("objective", math.nan))
        epoch = state.epoch
        state.epoch += 1
        self._check_limits()
        validation = self._validate_if_due(epoch)
        self._judge(objective, validation, epoch)
        state.elapsed = time.monotonic() - self.started
        row: dict[str, Value] = {"epoch": epoch, "step": state.step, "objective": objective}
        row |= {"validation": validation, "learning_rate": self._network_rate()}
        row["seconds"] = state.elapsed
        state.log.append(row | {name: v for name, v in means.items() if name not in row})
        wants_stop = self.runtime.broadcast(self.callbacks.on_epoch_end(state))
        if wants_stop and self.stop_reason is None:
            self.stop_reason = "callback"

    def _groups(self, batches: Iterable[Batch]) -> Iterator[list[Batch]]:
        """Batches of one optimizer step; each process takes its share of them."""
        world, rank = self.runtime.world_size, self.runtime.fabric.global_rank
        iterator = iter(batches)
        while group := list(islice(iterator, self.config.accumulate * world)):
            if world > 1:
                # Every process must do the same number of backward passes: a short group is
                # filled up from its own beginning.
                n = math.ceil(len(group) / world)
                group = [group[(i * world + rank) % len(group)] for i in range(n)]
            yield group

    def _step(self, group: list[Batch], meter: Meter) -> None:
        state, runtime = self.state, self.runtime
        self._set_rates()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for index, raw in enumerate(group):
            batch = runtime.move(raw)
            with runtime.no_sync(index + 1 < len(group)):
                result = runtime.training_step(batch, state.step)
                self._check_finite(result)
                scale = len(group)
                runtime.backward(result.objective / scale if scale > 1 else result.objective)
            meter.add(result)
        self._clip()
        runtime.apply(self.optimizers)
        state.step += 1
        state.batch, state.result = batch, result
        self.callbacks.on_step_end(state)

    def _clip(self) -> None:
        """Clip the networks' gradient; natural directions have a length that means something."""
        if self.config.clip_norm is None or not self.network:
            return
        self.runtime.unscale(self.state.optimizers["network"])
        self.grad_norm = clip_gradients(self.network, self.config.clip_norm)

    def _set_rates(self) -> None:
        state, config = self.state, self.config
        peaks = {"network": state.learning_rate, "natural": config.natural_learning_rate}
        names = {
            "network": config.lr_schedule,
            "natural": config.natural_lr_schedule or config.lr_schedule,
        }
        for group, optimizer in state.optimizers.items():
            factor = learning_rate_factor(
                names[group], state.step, state.total_steps, config.warmup_steps
            )
            if names[group] == "plateau":
                factor *= state.plateau.value
            for parameters in optimizer.param_groups:
                parameters["lr"] = peaks[group] * factor

    def _network_rate(self) -> float:
        optimizer = self.state.optimizers.get("network", self.optimizers[0])
        return float(optimizer.param_groups[0]["lr"])

    def _check_finite(self, result: LossResult, *, validating: bool = False) -> None:
        # The one read from the device in a step: without it NaN would reach the parameters.
        value = self.runtime.mean(result.objective.item())
        if not math.isfinite(value):
            raise divergence(
                value,
                result.diagnostics,
                epoch=self.state.epoch,
                step=self.state.step,
                learning_rate=self._network_rate(),
                grad_norm=self.grad_norm if self.state.scaler is None else None,
                validating=validating,
            )

    def _validate_if_due(self, epoch: int) -> float | None:
        source = self.validation_batches
        due = (epoch + 1) % self.config.validation_every == 0 or self.stop_reason is not None
        if source is None or not due:
            return None
        state, runtime, meter = self.state, self.runtime, Meter()
        state.model.eval()
        try:
            with torch.no_grad(), state.common_random_numbers() as fixed, runtime.context():
                for raw in source(epoch, fixed) if callable(source) else source:
                    result = state.model.training_step(runtime.move(raw), state.step)  # type: ignore[operator]
                    self._check_finite(LossResult(*result), validating=True)
                    meter.add(LossResult(*result))
        finally:
            state.model.train()
        means = meter.means()
        if not means:
            raise ValueError("validation_batches gave no batch; give None to train without.")
        return means["objective"]

    def _judge(self, objective: float, validation: float | None, epoch: int) -> None:
        """Update best state, patience and plateau by the epoch's criterion."""
        state = self.state
        criterion = objective if self.validation_batches is None else validation
        if criterion is None:
            return
        # Before beta is complete, training objectives are smaller for that reason alone; the
        # validation criterion is free of beta and counts from the start.
        if validation is not None or state.step >= self.config.early_stopping_start:
            state.plateau.update(criterion)
            if self.keep_best:
                state.best.offer(state.model, criterion, epoch)
        if state.stopping.update(criterion, epoch=epoch, step=state.step):
            self.stop_reason = self.stop_reason or "patience"

    def _check_limits(self, *, within_epoch: bool = False) -> bool:
        """Note the reason if a limit is reached; time is common to all processes."""
        state, config = self.state, self.config
        if self.stop_reason is None:
            if config.max_steps is not None and state.step >= config.max_steps:
                self.stop_reason = "max_steps"
            elif state.epoch >= config.max_epochs:
                self.stop_reason = "max_epochs"
            elif self._out_of_time(within_epoch):
                self.stop_reason = "max_time"
        return self.stop_reason is not None

    def _out_of_time(self, within_epoch: bool) -> bool:
        limit = self.config.max_time
        if limit is None or (within_epoch and self.runtime.world_size > 1):
            return False
        return self.runtime.broadcast(time.monotonic() - self.started >= limit)
