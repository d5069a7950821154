"""Numbers per series from component-first states, with hand-written gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.components import TIME, by_blocks, symmetric_outer_sums, times_vector
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
        slope, terms = by_blocks(_quadratic_terms, states, weight, linear)
        ctx.save_for_backward(states, slope)
        ctx.shapes = weight.shape, None if linear is None else linear.shape
        return terms.sum((0, 1, 4))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[_Gradient, ...]:
        states, slope = ctx.saved_tensors
        weight_shape, linear_shape = ctx.shapes
        scale = grad[None, None, :, :, None]
        if not ctx.needs_input_grad[1] and linear_shape is None:
            return slope * scale, None, None
        shared = tuple(d for d in ALL[1:] if weight_shape[d] == 1)

        def gradients(states: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            scaled = states * scale
            linear = scaled if linear_shape is None else _sum_along(scaled, linear_shape)
            return slope * scale, symmetric_outer_sums(0.5 * scaled, states, shared), linear

        grad_states, grad_weight, grad_linear = by_blocks(gradients, states, slope)
        if weight_shape[TIME] == 1:
            grad_weight = grad_weight.sum(TIME, keepdim=True)
        if linear_shape is None:
            return grad_states, grad_weight, None
        return grad_states, grad_weight, grad_linear.neg_().sum_to_size(linear_shape)


def _quadratic_terms(
    states: Tensor, weight: Tensor, linear: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``Wx - b`` and, summed over components and groups, ``x'(Wx / 2 - b)``."""
    pulled = times_vector(weight, states)
    slope = pulled if linear is None else pulled - linear
    half = 0.5 * pulled if linear is None else torch.add(slope, pulled, alpha=-0.5)
    return slope, half.mul_(states).sum((0, 4), keepdim=True)


def _sum_along(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum over the axes, but time, that ``shape`` does not have."""
    axes = tuple(d for d in (-3, -2, -1) if shape[d] == 1 and values.shape[d] > 1)
    return values.sum(axes, keepdim=True) if axes else values


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
            symmetric_outer_sums(0.5 * grad_predicted, pull, SERIES),
            symmetric_outer_sums(-0.5 * grad_linear, filtered, SERIES),
        )
