"""Devices, precision and processes of a run, through lightning-fabric.

Fabric is imported and created inside :func:`launch`, and whatever that leaves behind in the
process (environment variables, log handlers) is taken back.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tsvae.training.config import TrainingConfig
from tsvae.training.result import LossResult

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Runtime", "launch", "resolve_device"]

Batch = Mapping[str, Tensor]


def resolve_device(device: str = "auto") -> torch.device:
    """Turn a device setting into a device that is there.

    Parameters
    ----------
    device : str
        "auto" (the first CUDA device, else the CPU), "cpu", "cuda", "cuda:1", "gpu", "mps".

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If that device is not available.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    has_cuda = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda", 0) if has_cuda else torch.device("cpu")
    try:
        wanted = torch.device(device.replace("gpu", "cuda"))
    except RuntimeError:
        raise ValueError(
            f"device={device!r} is not known. Use 'auto', 'cpu', 'cuda', 'cuda:0' or 'mps'."
        ) from None
    if wanted.type == "cuda":
        wanted = torch.device("cuda", wanted.index or 0)
        if not has_cuda or wanted.index >= torch.cuda.device_count():
            raise _unavailable(device, f"{torch.cuda.device_count() if has_cuda else 0} CUDA")
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise _unavailable(device, "0 MPS")
    return wanted


def _unavailable(device: str, found: str) -> ValueError:
    return ValueError(
        f"device={device!r} is not available: torch {torch.__version__} sees {found} devices. "
        "Use device='cpu' or device='auto'."
    )


@contextmanager
def _unchanged_process() -> Iterator[None]:
    """Restore environment variables and the log settings of Fabric after the block."""
    environment = dict(os.environ)
    logger = logging.getLogger("lightning_fabric")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


class _StepModule(nn.Module):
    """Gives ``training_step`` the name ``forward``, the only one that DDP listens to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, step: int) -> LossResult:
        """Run the model's training step."""
        return self.model.training_step(batch, step)  # type: ignore[operator]


@dataclass
class Runtime:
    """Fabric with what the loop needs of it; no trace of it stays on the model.

    Parameters
    ----------
    fabric : Fabric
        Device, precision and processes.
    config : TrainingConfig
        Settings of the run.
    """

    fabric: Fabric
    config: TrainingConfig
    _model: Any = None
    _step_module: Any = None
    _hooks: Any = None

    def __post_init__(self) -> None:
        self.world_size = self.fabric.world_size

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        return self.fabric.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and calls callbacks."""
        return self.fabric.is_global_zero

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """Loss scale of "16-mixed"."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def setup(self, model: nn.Module) -> None:
        """Move the model to the device (in place) and prepare its training step."""
        precision = self.fabric.strategy.precision
        if self.world_size > 1:
            self._step_module = self.fabric.setup_module(_StepModule(model))
        else:
            # Fabric's wrapper costs more per step than the rest of the loop and does nothing here.
            self.fabric.to_device(precision.convert_module(model))
        self._model = model
        if self.config.precision.endswith("mixed") and hasattr(model, "network_modules"):
            from tsvae.training._precision import AutocastHooks, NetworkPrecision

            assert isinstance(precision, NetworkPrecision)
            self._hooks = AutocastHooks(list(model.network_modules()), precision)  # type: ignore[operator]

    def close(self) -> None:
        """Take hooks and wrappers off the model."""
        if self._hooks is not None:
            self._hooks.remove()
        self._model = self._step_module = self._hooks = None

    def move(self, batch: Batch) -> dict[str, Tensor]:
        """Batch on the device, in float64 where the precision asks for it."""
        device, double = self.device, self.config.precision == "64-true"
        moved = {}
        for name, value in batch.items():
            dtype = torch.float64 if double and value.is_floating_point() else value.dtype
            moved[name] = value.to(device=device, dtype=dtype, non_blocking=True)
        return moved

    def training_step(self, batch: Batch, step: int) -> LossResult:
        """Objective of a batch in train mode."""
        if self._step_module is not None:
            return LossResult(*self._step_module(batch, step))
        with self.context():
            return LossResult(*self._model.training_step(batch, step))

    def context(self) -> AbstractContextManager:
        """Precision context for calls that do not go through :meth:`training_step`."""
        return self.fabric.autocast()

    def no_sync(self, enabled: bool) -> AbstractContextManager:
        """Hold back the exchange of gradients between processes."""
        if self.world_size == 1:
            return nullcontext()
        return self.fabric.no_backward_sync(self._step_module, enabled=enabled)

    def backward(self, objective: Tensor) -> None:
        """Gradients of an objective, scaled if the precision needs it."""
        self.fabric.backward(objective)

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring gradients back to their own scale before they are clipped."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def apply(self, optimizers: list[Optimizer]) -> None:
        """One step of every optimizer, with one update of the loss scale for all."""
        if self.scaler is None:
            for optimizer in optimizers:
                optimizer.step()
            return
        for optimizer in optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()

    def broadcast(self, value: Any) -> Any:
        """Give every process the value of the main one."""
        return value if self.world_size == 1 else self.fabric.broadcast(value)

    def mean(self, value: float) -> float:
        """Mean of a number over the processes."""
        if self.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        return float(self.fabric.all_reduce(total, reduce_op="mean"))  # type: ignore[arg-type]


def launch(model: nn.Module, config: TrainingConfig) -> Fabric:
    """Create Fabric for a run: one device unless ``config.num_devices`` says otherwise.

    Parameters
    ----------
    model : Module
        Only asked whether it names its ``network_modules()``.
    config : TrainingConfig
        Device, precision, strategy.

    Returns
    -------
    Fabric

    Raises
    ------
    ValueError
        If the device is not available or cannot work in that precision.
    """
    device = resolve_device(config.device)
    if config.precision == "16-mixed" and device.type != "cuda":
        raise ValueError(
            f"precision='16-mixed' needs a CUDA device, but device={config.device!r} is the "
            f"{device.type}. Use precision='bf16-mixed' or '32-true'."
        )
    # Fabric(strategy="ddp", devices=1) would open a process group for nothing.
    several = config.num_devices > 1
    with _unchanged_process():
        from lightning_fabric import Fabric

        from tsvae.training._precision import build_precision

        logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
        return Fabric(
            accelerator=device.type,
            devices=config.num_devices if several or device.type != "cuda" else [device.index or 0],
            strategy=(config.strategy if config.strategy != "auto" else "ddp")
            if several
            else "auto",
            plugins=[
                build_precision(config.precision, device, not hasattr(model, "network_modules"))
            ],
        )


def close_process_group() -> None:
    """Close the process group, if one is open.

    Fabric leaves a gloo group open; its threads then die with the process, now and then by an
    abort.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
