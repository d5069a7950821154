"""A linear map of inputs side by side, some of which all series or steps share.

``W [x, m]`` is ``W_x x + W_m m``: a mask that all series share is multiplied once, not once for
each of them, and neither the joint input nor gradients by slices of W are ever put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Columns of shared parts from which what they save outweighs a sum over the rows that share them.
LEAST_COLUMNS = 64


def linear_of_parts(parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """Affine map of parts side by side.

    Parameters
    ----------
    parts : sequence of Tensor (..., n)
        Leading axes as broadcasting takes them.
    weight : Tensor (out, N)
        N is the sum of the n.
    bias : Tensor (out,) or None

    Returns
    -------
    Tensor (..., out)

    Examples
    --------
    >>> x, mask = torch.ones(2, 5, 3), torch.zeros(1, 1, 1)
    >>> linear_of_parts((x, mask), torch.ones(1, 4), None).shape
    torch.Size([2, 5, 1])
    """
    if len(parts) == 1:
        return functional.linear(parts[0], weight, bias)
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    if not _split_pays(parts, shape):
        return functional.linear(joined(parts), weight, bias)
    mapped: Tensor = _Linear.apply(weight, bias, *parts)  # type: ignore[no-untyped-call]
    return mapped


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Put parts side by side, ``(..., N)``."""
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, -1) for part in parts], dim=-1)


def _split_pays(parts: Sequence[Tensor], shape: torch.Size) -> bool:
    """Whether parts are multiplied one by one; autocast and compilers want plain operations."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(parts[0].device.type):
        return False
    return sum(p.shape[-1] for p in parts if p.shape[:-1] != shape) >= LEAST_COLUMNS


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *parts)
        mapped = [
            part @ columns.mT for part, columns in zip(parts, _columns(weight, parts), strict=True)
        ]
        mapped.sort(key=torch.numel)  # additions to the small ones are cheap
        if bias is not None:
            mapped[0] = mapped[0] + bias
        return reduce(torch.add, mapped)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *parts = ctx.saved_tensors
        columns = _columns(weight, parts)
        of_weight = torch.empty_like(weight)
        of_parts: list[Tensor | None] = []
        for i, (part, into) in enumerate(zip(parts, _columns(of_weight, parts), strict=True)):
            own = grad.sum_to_size(*part.shape[:-1], grad.shape[-1])
            upstream, given = own.flatten(0, -2), part.flatten(0, -2)
            product = torch.mul if len(given) == 1 else torch.mm  # a BLAS is slow there
            product(upstream.mT, given, out=into)
            of_parts.append(own @ columns[i] if ctx.needs_input_grad[2 + i] else None)
        of_bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return of_weight, of_bias, *of_parts


def _columns(weight: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """Columns of the weight that belong to each part."""
    edges = accumulate((part.shape[-1] for part in parts), initial=0)
    return [weight[:, start:stop] for start, stop in pairwise(edges)]
