"""Numbers per series from component-first states, with hand-written gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.components import outer_sums, symmetric, times_vector
from tsvae.lds.grouped_covariances import ALL
from tsvae.lds.grouped_means import SERIES, ChainInputs, GroupedMeans

_Gradient = Tensor | None


def quadratic_sums(states: Tensor, weight: Tensor, linear: Tensor | None = None) -> Tensor:
    """Per series ``sum_t,g x'Wx / 2 - b'x``: ``(P, R)`` from ``x (K, T, P, R, G)``.

    ``weight`` (K, K, ...) and ``linear`` (K, ...) broadcast over time, patterns and series.
    """
    total: Tensor = _QuadraticSums.apply(states, weight, linear)  # type: ignore[no-untyped-call]
    return total


class _QuadraticSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, linear: Tensor | None) -> Tensor:
        pulled = times_vector(weight, states)
        slope = pulled if linear is None else pulled - linear
        ctx.save_for_backward(states, slope)
        ctx.shapes = weight.shape, None if linear is None else linear.shape
        total = pulled.mul(states).sum((0, 1, 4)).mul_(0.5)
        return total if linear is None else total - (linear * states).sum((0, 1, 4))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[_Gradient, ...]:
        states, slope = ctx.saved_tensors
        weight_shape, linear_shape = ctx.shapes
        scale = grad[None, :, :, None]
        grad_states = slope * scale
        grad_weight = grad_linear = None
        if ctx.needs_input_grad[1] or linear_shape is not None:
            scaled = states * scale
            shared = tuple(d for d in ALL if weight_shape[d] == 1)
            grad_weight = 0.5 * symmetric(outer_sums(scaled, states, shared))
            if linear_shape is not None:
                grad_linear = -scaled.sum_to_size(linear_shape)
        return grad_states, grad_weight, grad_linear


def log_normalizers(means: GroupedMeans, inputs: ChainInputs) -> Tensor:
    r"""Per series :math:`\tfrac12 \sum_t h'm^+ + m'\rho`, the quadratic part of log Z; (P, R)."""
    total: Tensor = _LogNormalizers.apply(  # type: ignore[no-untyped-call]
        means.filtered.detach(),
        means.pull,
        inputs.linear,
        means.predicted,
        inputs.covariance,
        inputs.precision,
    )
    return total


class _LogNormalizers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        filtered: Tensor,
        pull: Tensor,
        linear: Tensor,
        predicted: Tensor,
        covariance: Tensor,
        precision: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(filtered, pull)
        both = torch.addcmul(linear * filtered, predicted, pull)
        return 0.5 * both.sum((0, 1, 4))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[_Gradient, ...]:
        filtered, pull = ctx.saved_tensors
        scale = grad[None, :, :, None]
        grad_linear, grad_predicted = filtered * scale, pull * scale
        return (
            None,
            None,
            grad_linear,
            grad_predicted,
            0.5 * symmetric(outer_sums(grad_predicted, pull, SERIES)),
            -0.5 * symmetric(outer_sums(grad_linear, filtered, SERIES)),
        )
