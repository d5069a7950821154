"""Fresh memory for large arrays.

Every first touch of a page of 4 KB is a call of the system, and arrays of tens of megabytes go back
to it as soon as they are dropped. numpy asks Linux for huge pages, where it gives them on request,
so that such arrays are taken from numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

# numpy asks from so many bytes on.
LARGE = 1 << 22
ALIGNMENT = 64  # bytes: a line of the cache, as torch has it


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Allocate without initialising, with the type and device of ``like``.

    Parameters
    ----------
    shape : sequence of int
    like : Tensor

    Returns
    -------
    Tensor
        Contiguous.
    """
    size = prod(shape) * like.element_size()
    if size < LARGE or like.device.type != "cpu":
        return like.new_empty(shape)
    raw = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return torch.from_numpy(raw[start : start + size]).view(like.dtype).view(*shape)
