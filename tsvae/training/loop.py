"""The training loop of every model in the library.

It knows a model by ``training_step(batch, step) -> LossResult`` alone. Three optional members
are used where they exist: ``natural_parameters()`` (parameters whose gradients are natural
directions), ``network_modules()`` (modules that mixed precision may touch) and ``generator``
(the model's own random generator, saved in checkpoints).
"""

from __future__ import annotations

import atexit
import math
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tsvae.training.callbacks import Callback
from tsvae.training.config import TrainingConfig
from tsvae.training.devices import Runtime, close_process_group, launch
from tsvae.training.errors import memory_errors_name_batch_size
from tsvae.training.log import TrainingLog
from tsvae.training.optim import build_optimizers, split_parameters
from tsvae.training.range_test import learning_rate_range_test
from tsvae.training.rng import clone_generator, draw_seed, isolated_random_state
from tsvae.training.run import BatchSource, Request, Run, ValidationSource
from tsvae.training.schedules import Plateau
from tsvae.training.state import TrainingState, load_checkpoint
from tsvae.training.stopping import EarlyStopping
from tsvae.training.threads import pinned_threads

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["train"]


@dataclass
class Outcome:
    """What a spawned process hands back to the caller's."""

    log: TrainingLog
    model_state: dict[str, Tensor]
    generator_state: Tensor


def train(
    model: nn.Module,
    batches: BatchSource,
    *,
    validation_batches: ValidationSource | None = None,
    config: TrainingConfig | None = None,
    generator: torch.Generator,
    callbacks: Sequence[Callback] = (),
    log: TrainingLog | None = None,
    resume: Mapping[str, Any] | str | os.PathLike[str] | None = None,
) -> TrainingLog:
    """Train a model in place.

    Parameters
    ----------
    model : Module
        Has ``training_step(batch, step) -> LossResult``. It stays the caller's plain module,
        in the mode and on the device it came with.
    batches : callable
        ``batches(epoch, generator)`` gives the epoch's batches, dictionaries of tensors. An
        iterable with a length saves one count before the first epoch.
    validation_batches : callable or iterable, optional
        The same for validation, or any iterable that can be gone through many times. Each pass
        gets the same random numbers.
    config : TrainingConfig, optional
        Settings; the defaults if not given.
    generator : torch.Generator
        Source of all randomness; global random states stay as they are.
    callbacks : sequence of Callback
        Called at the start, after steps and epochs, and at the end.
    log : TrainingLog, optional
        Log to extend; a new one by default.
    resume : checkpoint or path, optional
        State to continue from, written by :class:`Checkpoint`. With equal settings the result
        is bit-identical to that of a run without interruption.

    Returns
    -------
    TrainingLog

    Raises
    ------
    DivergenceError
        If the objective is NaN or infinite.
    MemoryError
        If memory runs out; names a smaller ``batch_size``.
    TypeError, ValueError
        If an argument is of no use.

    Notes
    -----
    The best state by validation is restored at the end; without validation, the best by the
    training objective if ``patience`` is set, else the last state stands. That also holds when
    training ends by an exception.

    With ``num_devices > 1`` each step takes one batch per device. Strategy "ddp" starts the
    script once more per device; "ddp_spawn" starts fresh processes, to which model, batches and
    callbacks are pickled: what callbacks gather there stays there.

    Examples
    --------
    >>> import torch
    >>> from tsvae.training import LossResult
    >>> class Line(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.slope = torch.nn.Parameter(torch.zeros(()))
    ...     def training_step(self, batch, step):
    ...         return LossResult(((batch["y"] - self.slope * batch["x"]) ** 2).mean(), {})
    >>> x = torch.linspace(-1, 1, 8)
    >>> line = Line()
    >>> log = train(
    ...     line,
    ...     lambda epoch, generator: [{"x": x, "y": 3 * x}],
    ...     config=TrainingConfig(max_epochs=200, learning_rate=0.1, device="cpu"),
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> round(line.slope.item(), 2)
    3.0
    """
    _check_arguments(model, batches, validation_batches)
    config = config or TrainingConfig()
    state = load_checkpoint(resume) if isinstance(resume, str | os.PathLike) else resume
    request = Request(
        batches,
        validation_batches,
        config,
        generator,
        callbacks,
        TrainingLog() if log is None else log,
        state,
    )
    fabric = launch(model, config)
    if config.num_devices == 1:
        return _fit(fabric, model, request).log
    if not any(word in config.strategy for word in ("spawn", "fork", "notebook")):
        atexit.register(close_process_group)
        return fabric.launch(_fit, model, request).log  # type: ignore[arg-type,no-any-return]
    # Pickled by value: sharing tensors between processes by file descriptors is fragile.
    payload = pickle.dumps((model, request))
    outcome: Outcome = pickle.loads(fabric.launch(_fit_pickled, payload))  # type: ignore[arg-type]
    model.load_state_dict(outcome.model_state)
    generator.set_state(outcome.generator_state)
    request.log.rows[:] = outcome.log.rows
    request.log.stop_reason = outcome.log.stop_reason
    request.log.best_epoch = outcome.log.best_epoch
    return request.log


def _fit_pickled(fabric: Fabric, payload: bytes) -> bytes:
    """Run on a spawned process, which has nothing of the caller's."""
    model, request = pickle.loads(payload)
    log = _fit(fabric, model, request).log
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    fabric.barrier()
    close_process_group()
    return pickle.dumps(Outcome(log, state, request.generator.get_state()))


def _check_arguments(model: nn.Module, batches: Any, validation_batches: Any) -> None:
    if not callable(getattr(model, "training_step", None)):
        raise TypeError(
            f"model must have a method training_step(batch, step) -> LossResult; "
            f"{type(model).__name__} has none."
        )
    if not callable(batches):
        raise TypeError(
            "batches must be a callable (epoch, generator) -> iterable of batches, got "
            f"{type(batches).__name__}."
        )
    if isinstance(validation_batches, Iterator):
        raise TypeError(
            "validation_batches is an iterator, which is empty after one pass; give a list or a "
            "callable (epoch, generator) -> iterable of batches."
        )


def _fit(fabric: Fabric, model: nn.Module, request: Request) -> Request:
    """Run on one process: set up, train, clean up."""
    parameter = next(model.parameters(), torch.zeros(()))
    home, was_training = parameter.device, model.training
    config = request.config
    runtime = Runtime(fabric, config)
    with ExitStack() as stack:
        stack.enter_context(pinned_threads(config.n_threads))
        stack.enter_context(isolated_random_state(request.generator, runtime.device))
        stack.callback(_hand_back, model, runtime, home, was_training, config.keep_on_device)
        stack.enter_context(memory_errors_name_batch_size(config.batch_size))
        runtime.setup(model)
        Run(runtime, _start(model, runtime, request), request).train()
    return request


def _hand_back(
    model: nn.Module, runtime: Runtime, home: torch.device, was_training: bool, keep: bool
) -> None:
    """Leave the model as a plain module without gradients."""
    runtime.close()
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    if not keep:
        model.to(home)


def _start(model: nn.Module, runtime: Runtime, request: Request) -> TrainingState:
    """State before the first step, or that of the checkpoint."""
    config, generator = request.config, request.generator
    model.train()
    validation_seed = draw_seed(generator)
    learning_rate = 0.0
    if request.resume is not None:
        learning_rate = float(request.resume["learning_rate"])
    elif config.learning_rate == "auto":
        learning_rate = learning_rate_range_test(
            model, request.batches, config=config, generator=generator, runtime=runtime
        ).suggestion
    else:
        learning_rate = config.learning_rate
    state = TrainingState(
        model=model,
        config=config,
        generator=generator,
        log=request.log,
        device=runtime.device,
        optimizers=build_optimizers(split_parameters(model), config, learning_rate),
        learning_rate=learning_rate,
        total_steps=_planned_steps(request.batches, config, generator, runtime.world_size),
        validation_seed=validation_seed,
        stopping=EarlyStopping(
            config.patience, config.min_delta, config.min_epochs, config.early_stopping_start
        ),
        plateau=Plateau(min_delta=config.min_delta),
        scaler=runtime.scaler,
    )
    if request.resume is not None:
        state.load_state_dict(request.resume)
    return state


def _planned_steps(
    batches: BatchSource, config: TrainingConfig, generator: torch.Generator, world_size: int
) -> int:
    """Optimizer steps of the whole run; schedules are stretched over them."""
    first = batches(0, clone_generator(generator))
    try:
        count = len(first)  # type: ignore[arg-type]
    except TypeError:
        count = sum(1 for _ in first)
    if count == 0:
        raise ValueError(
            "batches(epoch, generator) gave no batch for epoch 0; there is nothing to train on."
        )
    steps = config.max_epochs * math.ceil(count / (config.accumulate * world_size))
    return steps if config.max_steps is None else min(steps, config.max_steps)
