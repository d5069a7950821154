r"""State means of groups of one or two dimensions, with hand-written gradients.

Component-first arrays (module ``components``): matrices ``(K, K, T, P, 1, G)``, states
``(K, T, P, R, G)``. With the update's J, S, X at every step (same module), predicted means m,
filtered means :math:`m^+`, and :math:`H_t = J_t A`, :math:`E_t = A J_t`:

.. math::
    m^+_t = H_t m^+_{t-1} + J_t c_t + S_t h_t, \qquad m_t = A m^+_{t-1} + c_t, \qquad
    \rho_t = J_t'h_t - X_t m_t = P_t^{-1}(m^+_t - m_t).

**Gradients.** From :math:`dJ = -J\,dP\,X - S\,d\Lambda\,J` and
:math:`dS = J\,dP\,J' - S\,d\Lambda\,S` follows

.. math::
    dm^+_t = J\,dP\,\rho - S\,d\Lambda\,m^+ + \dots,

with the adjoint running through the same links transposed. So the gradients with respect to P and
:math:`\Lambda` are sums of outer products of states and adjoints.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.components import (
    TIME,
    by_blocks,
    outer_sums,
    steps,
    symmetric_outer_sums,
    times_vector,
    transpose,
)
from tsvae.lds.grouped_covariances import ALL, StepMatrices
from tsvae.lds.recursions import affine

SERIES = (-2,)
SHARED = (-3, -2)
_Gradient = Tensor | None


class ChainInputs(NamedTuple):
    """What means depend on; differentiable.

    Attributes
    ----------
    linear : Tensor (K, T, P, R, G)
        h.
    drift : Tensor (K, T or 1, 1 or P, 1 or R, G)
        c; its first step is unused.
    start : Tensor (K, 1, 1, 1, G)
        Mean of the first state.
    transition : Tensor (K, K, 1, 1, 1, G)
    covariance, precision : Tensor (K, K, T, P, 1, G)
        P (predicted) and Lambda.
    """

    linear: Tensor
    drift: Tensor
    start: Tensor
    transition: Tensor
    covariance: Tensor
    precision: Tensor

    def later_drift(self) -> Tensor:
        """Drift of every step but the first."""
        return self.drift if self.drift.shape[TIME] == 1 else steps(self.drift, 1)


def filtered_means(
    inputs: ChainInputs, matrices: StepMatrices, *, driftless: bool = False
) -> Tensor:
    """Compute m+ of every step, without gradient; ``driftless``: the drift is 0."""
    drift = None if driftless else inputs.drift
    (constants,) = by_blocks(_constants, matrices.gain, inputs.linear, matrices.keep, drift)
    gain, keep = steps(matrices.gain, 0, 1), steps(matrices.keep, 0, 1)
    start = _constants(gain, steps(inputs.linear, 0, 1), keep, inputs.start)
    steps(constants, 0, 1).copy_(*start)
    return affine(steps(matrices.forward, 1), constants)


def _constants(gain: Tensor, linear: Tensor, keep: Tensor, drift: Tensor | None) -> tuple[Tensor]:
    moved = None if drift is None else times_vector(keep, drift)
    return (times_vector(gain, linear, plus=moved),)


def predicted_means(inputs: ChainInputs, filtered: Tensor) -> Tensor:
    """Compute m of every step, without gradient."""
    out = torch.empty_like(filtered)
    steps(out, 0, 1).copy_(inputs.start.expand_as(steps(out, 0, 1)))
    steps(out, 1).copy_(_predict(steps(filtered, 0, -1), inputs.transition, inputs.later_drift()))
    return out


def _predict(filtered: Tensor, transition: Tensor, drift: Tensor | None) -> Tensor:
    return times_vector(transition, filtered, plus=drift)


def _pull(keep: Tensor, linear: Tensor, shrinkage: Tensor, predicted: Tensor) -> Tensor:
    pull = times_vector(transpose(keep), linear)
    pull -= times_vector(shrinkage, predicted)
    return pull


def _predict_and_pull(
    filtered: Tensor,
    transition: Tensor,
    drift: Tensor | None,
    keep: Tensor,
    linear: Tensor,
    shrinkage: Tensor,
) -> tuple[Tensor, Tensor]:
    predicted = _predict(filtered, transition, drift)
    return predicted, _pull(keep, linear, shrinkage, predicted)


class GroupedMeans(NamedTuple):
    """m+, m (differentiable) and rho (a constant); all ``(K, T, P, R, G)``."""

    filtered: Tensor
    predicted: Tensor
    pull: Tensor


@torch.no_grad()
def constant_means(
    inputs: ChainInputs, matrices: StepMatrices, *, driftless: bool = False
) -> GroupedMeans:
    """Run the recursion of the means without gradient; ``driftless``: the drift is 0."""
    filtered = filtered_means(inputs, matrices, driftless=driftless)
    predicted, pull = torch.empty_like(filtered), torch.empty_like(filtered)
    keep, shrinkage, linear = matrices.keep, matrices.shrinkage, inputs.linear
    first = steps(predicted, 0, 1)
    first.copy_(inputs.start.expand_as(first))
    parts = (steps(x, 0, 1) for x in (keep, linear, shrinkage, predicted))
    steps(pull, 0, 1).copy_(_pull(*parts))
    if filtered.shape[TIME] > 1:
        by_blocks(
            _predict_and_pull,
            steps(filtered, 0, -1),
            inputs.transition,
            None if driftless else inputs.later_drift(),
            *(steps(x, 1) for x in (keep, linear, shrinkage)),
            into=(steps(predicted, 1), steps(pull, 1)),
        )
    return GroupedMeans(filtered, predicted, pull)


def filter_means(inputs: ChainInputs, matrices: StepMatrices, found: GroupedMeans) -> GroupedMeans:
    """Attach gradients of every input to the outcome of ``constant_means``."""
    return GroupedMeans(*_FilterMeans.apply(matrices, found, *inputs))  # type: ignore[no-untyped-call]


class _FilterMeans(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, matrices: StepMatrices, found: GroupedMeans, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        inputs = ChainInputs(*tensors)
        filtered, predicted, pull = (part.detach() for part in found)
        ctx.matrices, ctx.drift_shape = matrices, inputs.drift.shape
        ctx.save_for_backward(inputs.transition, filtered, pull)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(pull)
        return filtered, predicted, pull

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_filtered: _Gradient, grad_predicted: _Gradient, unused: None
    ) -> tuple[_Gradient, ...]:
        transition, filtered, pull = ctx.saved_tensors
        matrices: StepMatrices = ctx.matrices
        source = torch.zeros_like(filtered) if grad_filtered is None else grad_filtered.clone()
        if grad_predicted is not None and filtered.shape[TIME] > 1:
            now = steps(source, 0, -1)
            by_blocks(
                lambda late, a, early: (times_vector(transpose(a), late, plus=early),),
                steps(grad_predicted, 1),
                transition,
                now,
                into=(now,),
            )
        adjoint = affine(transpose(steps(matrices.forward, 1)), source, reverse=True)
        grad_linear, grad_covariance, grad_precision, grad_mean = by_blocks(
            _filter_gradients, adjoint, filtered, pull, grad_predicted, matrices.keep, matrices.gain
        )
        (grad_transition,) = by_blocks(
            lambda left, right: (outer_sums(left, right, SHARED),),
            steps(grad_mean, 1),
            steps(filtered, 0, -1),
        )
        return (
            None,
            None,
            grad_linear,
            sum_drift(grad_mean, ctx.drift_shape) if ctx.needs_input_grad[3] else None,
            steps(grad_mean, 0, 1).sum(ALL, keepdim=True),
            grad_transition.sum(TIME, keepdim=True),
            grad_covariance,
            grad_precision,
        )


def _filter_gradients(
    adjoint: Tensor,
    filtered: Tensor,
    pull: Tensor,
    grad_predicted: _Gradient,
    keep: Tensor,
    gain: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of h, P, Lambda and of the predicted mean."""
    turned = times_vector(transpose(keep), adjoint)
    grad_covariance = symmetric_outer_sums(turned, pull, SERIES)
    grad_linear = times_vector(gain, adjoint)
    grad_precision = symmetric_outer_sums(-grad_linear, filtered, SERIES)
    if grad_predicted is not None:
        turned += grad_predicted
    return grad_linear, grad_covariance, grad_precision, turned


def sum_drift(values: Tensor, shape: torch.Size) -> Tensor:
    """Sum a gradient of the drift over what shares it; the first step is unused."""
    later = steps(values, 1)
    if shape[TIME] == 1:
        return later.sum_to_size(shape)
    short = later.sum_to_size(*shape[:1], shape[1] - 1, *shape[2:])
    return torch.cat((short.new_zeros(shape[0], 1, *shape[2:]), short), dim=TIME)
