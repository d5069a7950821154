"""Arrays to tensors and back: batches of one size, and parts of a file by prefix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["arrays_of", "filled_batch", "part_of"]


def filled_batch(array: NDArray[Any], size: int, like: Tensor) -> Tensor:
    """Tensor of ``size`` rows, zeros after those of the array."""
    dtype = torch.bool if array.dtype == bool else like.dtype
    filled = np.zeros((size, *array.shape[1:]), dtype=array.dtype)
    filled[: len(array)] = array
    return torch.from_numpy(filled).to(like.device, dtype)


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def arrays_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    """Arrays of the tensors whose names begin with a prefix."""
    return {name: value.numpy() for name, value in part_of(tensors, prefix).items()}
