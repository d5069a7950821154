"""Log density of the normal distribution, with gradients in few passes over the data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def normal_log_prob(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Log density of normal values.

    Every training step of wide data goes through it: written by hand, value and gradients take
    half as many passes over the entries as by automatic differentiation.

    Parameters
    ----------
    x, loc, scale : Tensor
        Values, means and standard deviations; broadcastable to each other.

    Returns
    -------
    Tensor
        In nats; differentiable once.

    Examples
    --------
    >>> normal_log_prob(torch.zeros(2), torch.zeros(()), torch.ones(()))
    tensor([-0.9189, -0.9189])
    """
    density: Tensor = _LogDensity.apply(x, loc, scale)  # type: ignore[no-untyped-call]
    return density


class _LogDensity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        inverse = scale.reciprocal()
        z = (x - loc) * inverse
        ctx.save_for_backward(z, inverse)
        ctx.shapes = x.shape, loc.shape
        return torch.addcmul(-torch.log(scale) - HALF_LOG_TWO_PI, z, z, value=-0.5)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        z, inverse = ctx.saved_tensors
        x_shape, loc_shape = ctx.shapes
        weighted = grad * z
        of_scale = None
        if ctx.needs_input_grad[2]:
            change = (weighted * z).sum_to_size(inverse.shape) - grad.sum_to_size(inverse.shape)
            of_scale = change * inverse
        if not any(ctx.needs_input_grad[:2]):
            return None, None, of_scale
        of_loc = weighted.mul_(inverse)
        of_x = -of_loc.sum_to_size(x_shape) if ctx.needs_input_grad[0] else None
        return of_x, of_loc.sum_to_size(loc_shape), of_scale
