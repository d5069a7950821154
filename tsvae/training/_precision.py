"""Fabric's precision plugins without casts of inputs and outputs.

Fabric rounds every input of a mixed-precision module to half precision, targets and masks
included. Here only the arithmetic of the networks is mixed: batches and results keep their
precision. This module imports lightning-fabric and is itself imported on a fit only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning_fabric.plugins import DoublePrecision, MixedPrecision
from lightning_fabric.plugins.precision import Precision
from torch import Tensor


class UnchangedPrecision(Precision):
    """The model and its batches as they are."""

    precision = "32-true"

    def convert_input(self, data: Any) -> Any:
        """Leave the batch as it is."""
        return data

    def convert_output(self, data: Any) -> Any:
        """Leave the result as it is."""
        return data


class Float64Precision(DoublePrecision):
    """Model and batches in float64; results stay in float64 as well."""

    def convert_output(self, data: Any) -> Any:
        """Leave the result as it is."""
        return data


class NetworkPrecision(MixedPrecision):
    """Autocast without casts of batches.

    Parameters
    ----------
    precision : {"16-mixed", "bf16-mixed"}
        Kind of half precision.
    device : str
        Device type.
    whole_step : bool
        Autocast the whole step; False leaves it to the hooks of :func:`autocast_modules`.
    """

    def __init__(self, precision: Any, device: str, whole_step: bool) -> None:
        super().__init__(precision, device)
        self.whole_step = whole_step

    def convert_input(self, data: Any) -> Any:
        """Leave the batch as it is."""
        return data

    def convert_output(self, data: Any) -> Any:
        """Leave the result as it is."""
        return data

    def forward_context(self) -> AbstractContextManager:
        """Autocast for the whole step, if that is wanted."""
        return self.network_context() if self.whole_step else nullcontext()

    def network_context(self) -> AbstractContextManager:
        """Autocast for one network."""
        return torch.autocast(self.device, dtype=self._desired_input_dtype)


def build_precision(name: str, device: torch.device, whole_step: bool) -> Precision:
    """Plugin for a precision setting."""
    if name == "64-true":
        return Float64Precision()
    if name == "32-true":
        return UnchangedPrecision()
    return NetworkPrecision(name, device.type, whole_step)


class AutocastHooks:
    """Forward hooks that run given modules under autocast and return float32 results.

    Parameters
    ----------
    modules : sequence of Module
        Networks; everything outside them (filters, smoothers) keeps full precision.
    precision : NetworkPrecision
        Source of the autocast context.
    """

    def __init__(self, modules: list[torch.nn.Module], precision: NetworkPrecision) -> None:
        self._precision = precision
        self._open: list[AbstractContextManager] = []
        self._handles = []
        for module in modules:
            self._handles.append(module.register_forward_pre_hook(self._enter))
            self._handles.append(module.register_forward_hook(self._exit, always_call=True))

    def _enter(self, module: torch.nn.Module, args: Any) -> None:
        context = self._precision.network_context()
        context.__enter__()
        self._open.append(context)

    def _exit(self, module: torch.nn.Module, args: Any, output: Any) -> Any:
        from lightning_utilities.core.apply_func import apply_to_collection

        self._open.pop().__exit__(None, None, None)
        return apply_to_collection(output, Tensor, _to_full)

    def remove(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()


def _to_full(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
