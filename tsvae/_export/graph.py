"""A fitted denoiser as torch modules in the caller's units: what becomes an ONNX graph.

Shapes: B records, T steps, F variables, D numbers per code, C columns of conditions.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsvae._denoiser.coder import possible_codes
from tsvae._denoiser.denoising import DenoiserFit

__all__ = ["Part", "PartModule", "check_part", "input_names", "make_module", "output_name"]

Part = Literal["encode", "decode", "denoise"]

_OUTPUTS = {"encode": "code", "decode": "decoded", "denoise": "denoised"}


def check_part(part: str) -> None:
    """Raise if there is no such part."""
    if part not in get_args(Part):
        raise ValueError(f"part must be 'encode', 'decode' or 'denoise', got {part!r}.")


def input_names(fitted: DenoiserFit, part: Part) -> list[str]:
    """Names of the graph's inputs, in their order."""
    names = ["code"] if part == "decode" else ["signal", "mask"]
    return names if fitted.conditions is None else [*names, "condition"]


def output_name(part: Part) -> str:
    """Name of the graph's output."""
    return _OUTPUTS[part]


class PartModule(nn.Module):
    """Shared by the parts: the model in eval mode, units, missing values, conditions.

    Parameters
    ----------
    fitted : DenoiserFit
    dtype : torch.dtype
        Of inputs and outputs; the networks compute in float32.
    """

    location: Tensor
    spread: Tensor
    gain: Tensor

    def __init__(self, fitted: DenoiserFit, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = copy.deepcopy(fitted.model).to("cpu", torch.float32)
        self.columns = [] if fitted.conditions is None else fitted.conditions.columns
        scaler, one = fitted.scaler, np.ones_like(fitted.scaler.location)
        low, high = (_model_units(scaler, sign * np.inf * one) for sign in (-1, 1))
        self.limits = float(low.min()), float(high.max())
        self.dtype = dtype
        for name, array in (
            ("location", scaler.location),
            ("spread", scaler.spread),
            ("gain", np.where(scaler.constant, 0.0, scaler.spread)),
        ):
            self.register_buffer(name, torch.as_tensor(array, dtype=dtype))
        self.eval().requires_grad_(False)

    def read(self, signal: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Model units, 0 where missing, and what is seen: mask true and not NaN."""
        seen = mask & ~torch.isnan(signal)
        x = ((signal - self.location) / self.spread).clamp(*self.limits)
        return torch.where(seen, x, torch.zeros_like(x)).float(), seen

    def write(self, x_hat: Tensor) -> Tensor:
        """Turn the decoder's output into expected values in the caller's units."""
        return self.model.expected_values(x_hat).to(self.dtype) * self.gain + self.location

    def given(self, condition: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Conditions as the model reads them: standardised numbers, indicators of categories."""
        parts = []
        for place, column in enumerate(self.columns):
            value = condition[0][:, place : place + 1]
            if "categories" in column:
                known = torch.arange(len(column["categories"]), dtype=self.dtype)
                parts.append((value == known).to(self.dtype))
            else:
                parts.append((value - column["mean"]) / column["std"])
        return {"condition": torch.cat(parts, dim=1).float()} if parts else {}


class _Encode(PartModule):
    def forward(self, signal: Tensor, mask: Tensor, *condition: Tensor) -> Tensor:
        x, seen = self.read(signal, mask)
        found = self.model.encode(x, seen, **self.given(condition)).mu[:, 0]
        codes = possible_codes(self.model, found)
        return self.model.flatten_codes(codes).to(self.dtype)  # type: ignore[no-any-return]


class _Decode(PartModule):
    def forward(self, code: Tensor, *condition: Tensor) -> Tensor:
        z = code.float().reshape(-1, *self.model.latent_shape)  # keeps B free when traced
        z = possible_codes(self.model, z)
        return self.write(self.model.decode(z, **self.given(condition)).x_hat)


class _Denoise(PartModule):
    def forward(self, signal: Tensor, mask: Tensor, *condition: Tensor) -> Tensor:
        x, seen = self.read(signal, mask)
        return self.write(self.model(x, mask=seen, **self.given(condition)).x_hat[:, 0])


_MODULES: dict[str, type[PartModule]] = {
    "encode": _Encode,
    "decode": _Decode,
    "denoise": _Denoise,
}


def make_module(fitted: DenoiserFit, part: Part, dtype: torch.dtype) -> PartModule:
    """Part of a denoiser, in eval mode on the CPU; shares nothing with it."""
    return _MODULES[part](fitted, dtype)


def _model_units(scaler: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = scaler.forward(values, np.ones(values.shape, dtype=bool))
    return scaled
