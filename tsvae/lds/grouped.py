r"""Inference for groups of one or two dimensions, with hand-written gradients.

Component-first arrays (module ``components``): matrices ``(K, K, T, P, 1, G)``, states
``(K, T, P, R, G)``. With the update's J, S, X at every step (same module), predicted means m,
filtered means :math:`m^+`, and :math:`H_t = J_t A`, :math:`E_t = A J_t`:

.. math::
    m^+_t = H_t m^+_{t-1} + J_t c_t + S_t h_t, \qquad m_t = A m^+_{t-1} + c_t, \qquad
    \rho_t = J_t'h_t - X_t m_t = P_t^{-1}(m^+_t - m_t).

Smoothing needs no inverse either: :math:`\xi_t = \partial \log Z / \partial m_t` (Bryson & Frazier
1963) obeys

.. math::
    \xi_t = E_t' \xi_{t+1} + \rho_t, \qquad
    \bar m_t = m_t + P_t \xi_t = m^+_t + S_t A' \xi_{t+1},

and the mean part of the local KL is the energy of the smoothed disturbances, a sum of non-negative
terms: :math:`\tfrac12 \xi_1'\Sigma_0\xi_1 + \tfrac12 \sum_{t>1} \xi_t' Q \xi_t`.

**Gradients.** From :math:`dJ = -J\,dP\,X - S\,d\Lambda\,J`, :math:`dS = J\,dP\,J' - S\,d\Lambda\,S`
and :math:`dX = J'd\Lambda J - X\,dP\,X` follow

.. math::
    dm^+_t = J\,dP\,\rho - S\,d\Lambda\,m^+ + \dots, \qquad
    d\xi_t = -X\,dP\,\xi - J'd\Lambda\,\bar m + \dots,

with the adjoints running through the same links transposed: all gradients with respect to P, and
to :math:`\Lambda` are sums of outer products of states. The Riccati recursion passes those with
respect to P on: :math:`Y_t = \bar P_t + J'\bar S_t J + E_t' Y_{t+1} E_t`. For the smoothed
covariances :math:`\bar S_t = S_t + G_t(\bar S_{t+1} - P_{t+1})G_t'` (evaluated in Joseph's form),
with :math:`Z` the adjoint of :math:`\bar S`, :math:`Z_{t+1} \mathrel{+}= G_t'Z_tG_t`, and
:math:`N = P^{-1}(P - \bar S)P^{-1}` at step t + 1,

.. math::
    dS: Z - ZSA'NA - A'NASZ, \quad dA: -2NASZS, \quad dP: NASZG + G'ZSA'N - G'ZG.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.components import (
    congruence,
    identity_minus,
    inverse,
    outer_sums,
    symmetric,
    times_matrix,
    times_vector,
    transpose,
    update,
)
from tsvae.lds.recursions import TIME, affine, congruences, riccati, steps

ALL = (-4, -3, -2)  # time, patterns, series: what parameters are shared over
SERIES = (-2,)
_Gradient = Tensor | None


def _shift(values: Tensor, towards: int) -> Tensor:
    """Move values one step later (1) or earlier (-1), zero where nothing comes from."""
    zero = torch.zeros_like(steps(values, 0, 1))
    if towards > 0:
        return torch.cat((zero, steps(values, 0, -1)), dim=TIME)
    return torch.cat((steps(values, 1), zero), dim=TIME)


def _add_at(total: Tensor, values: Tensor, start: int, stop: int | None) -> Tensor:
    steps(total, start, stop).add_(values)
    return total


class StepMatrices(NamedTuple):
    """Constants of the gradients' chain rule (no gradient of their own); module docstring.

    Attributes
    ----------
    keep, gain, shrinkage : Tensor (K, K, T, P, 1, G)
        J, S, X.
    forward, backward : Tensor (K, K, T, P, 1, G)
        H = J A and E = A J.
    """

    keep: Tensor
    gain: Tensor
    shrinkage: Tensor
    forward: Tensor
    backward: Tensor

    def expand(self, index: Tensor | None) -> StepMatrices:
        """Repeat for each series of uneven patterns."""
        if index is None:
            return self
        return StepMatrices(*(part.index_select(-3, index) for part in self))


class GroupedCovariances(NamedTuple):
    """Predicted and filtered covariances, ``log |I + P Lambda|`` (T, P, 1, G), step matrices."""

    predicted: Tensor
    filtered: Tensor
    log_det: Tensor
    matrices: StepMatrices


def filter_covariances(
    transition: Tensor, noise: Tensor, initial: Tensor, precision: Tensor
) -> GroupedCovariances:
    """Riccati recursion; parameters ``(K, K, 1, 1, 1, G)``, precision ``(K, K, T, P, 1, G)``."""
    outputs = _Riccati.apply(transition, noise, initial, precision)  # type: ignore[no-untyped-call]
    predicted, filtered, log_det, keep, shrinkage, forward, backward = outputs
    matrices = StepMatrices(keep, filtered.detach(), shrinkage, forward, backward)
    return GroupedCovariances(predicted, filtered, log_det, matrices)


class _Riccati(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, transition: Tensor, noise: Tensor, initial: Tensor, precision: Tensor
    ) -> tuple[Tensor, ...]:
        predicted = riccati(transition, noise, initial, precision)
        keep, filtered, shrinkage, log_det = update(predicted, precision)
        forward, backward = times_matrix(keep, transition), times_matrix(transition, keep)
        ctx.save_for_backward(transition, filtered, keep, shrinkage, backward)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(keep, shrinkage, forward, backward)
        return predicted, filtered, log_det, keep, shrinkage, forward, backward

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_predicted: _Gradient,
        grad_filtered: _Gradient,
        grad_log_det: _Gradient,
        *unused: None,
    ) -> tuple[_Gradient, ...]:
        a, filtered, keep, shrinkage, links = ctx.saved_tensors
        source = torch.zeros_like(filtered)
        if grad_predicted is not None:
            source.add_(symmetric(grad_predicted))
        if grad_log_det is not None:
            source.addcmul_(shrinkage, grad_log_det)
        after = None if grad_filtered is None else symmetric(grad_filtered)
        if after is not None:
            source.add_(congruence(transpose(keep), after))
        adjoint = symmetric(congruences(transpose(steps(links, 0, -1)), source, reverse=True))
        later = steps(adjoint, 1)
        turned = times_matrix(later, a)
        spread = torch.zeros_like(filtered) if after is None else after
        spread = _add_at(spread.clone(), times_matrix(transpose(a), turned), 0, -1)
        grad_precision = -congruence(filtered, spread)
        if grad_log_det is not None:
            grad_precision.addcmul_(filtered, grad_log_det)
        grad_transition = times_matrix(turned, steps(filtered, 0, -1))
        return (
            2.0 * grad_transition.sum(ALL, keepdim=True),
            later.sum(ALL, keepdim=True),
            steps(adjoint, 0, 1).sum((TIME, -3), keepdim=True),
            grad_precision,
        )


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


def filtered_means(inputs: ChainInputs, matrices: StepMatrices) -> Tensor:
    """Compute m+ of every step, without gradient."""
    drift = inputs.drift
    known = times_vector(matrices.keep, drift)
    known = known.expand(*known.shape[:1], inputs.linear.shape[TIME], *known.shape[2:]).clone()
    first = times_vector(steps(matrices.keep, 0, 1), inputs.start)
    if known.shape[-3:] != first.shape[-3:]:
        first = first.expand(*first.shape[:2], *known.shape[-3:])
    steps(known, 0, 1).copy_(first)
    return affine(
        steps(matrices.forward, 1), times_vector(matrices.gain, inputs.linear, plus=known)
    )


def predicted_means(inputs: ChainInputs, filtered: Tensor) -> Tensor:
    """Compute m of every step, without gradient."""
    out = torch.empty_like(filtered)
    steps(out, 0, 1).copy_(inputs.start.expand_as(steps(out, 0, 1)))
    drift = inputs.drift
    drift = drift if drift.shape[TIME] == 1 else steps(drift, 1)
    steps(out, 1).copy_(times_vector(inputs.transition, steps(filtered, 0, -1), plus=drift))
    return out


class GroupedMeans(NamedTuple):
    """m+, m (differentiable) and rho (a constant); all ``(K, T, P, R, G)``."""

    filtered: Tensor
    predicted: Tensor
    pull: Tensor


def filter_means(inputs: ChainInputs, matrices: StepMatrices) -> GroupedMeans:
    """Run the recursion of the means, differentiable in every input."""
    return GroupedMeans(*_FilterMeans.apply(matrices, *inputs))  # type: ignore[no-untyped-call]


class _FilterMeans(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: StepMatrices, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = ChainInputs(*tensors)
        filtered = filtered_means(inputs, matrices)
        predicted = predicted_means(inputs, filtered)
        pull = times_vector(transpose(matrices.keep), inputs.linear)
        pull -= times_vector(matrices.shrinkage, predicted)
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
        keep, gain = ctx.matrices.keep, ctx.matrices.gain
        source = torch.zeros_like(filtered) if grad_filtered is None else grad_filtered.clone()
        if grad_predicted is not None:
            back = times_vector(transpose(transition), steps(grad_predicted, 1))
            _add_at(source, back, 0, -1)
        links = transpose(steps(ctx.matrices.forward, 1))
        adjoint = affine(links, source, reverse=True)
        turned = times_vector(transpose(keep), adjoint)
        grad_covariance = symmetric(outer_sums(turned, pull, SERIES))
        moved = turned if grad_predicted is None else turned.add_(grad_predicted)
        grad_linear = times_vector(gain, adjoint)
        grad_precision = symmetric(outer_sums(grad_linear, filtered, SERIES)).neg_()
        later = steps(moved, 1)
        grad_transition = outer_sums(later, steps(filtered, 0, -1), ALL)
        grad_drift = _sum_drift(moved, ctx.drift_shape) if ctx.needs_input_grad[2] else None
        grad_start = steps(moved, 0, 1).sum(ALL, keepdim=True)
        return (
            None,
            grad_linear,
            grad_drift,
            grad_start,
            grad_transition,
            grad_covariance,
            grad_precision,
        )


def _sum_drift(values: Tensor, shape: torch.Size) -> Tensor:
    later = steps(values, 1)
    if shape[TIME] == 1:
        return later.sum_to_size(shape)
    short = later.sum_to_size(*shape[:1], shape[1] - 1, *shape[2:])
    return torch.cat((short.new_zeros(shape[0], 1, *shape[2:]), short), dim=TIME)


class GroupedSmoothed(NamedTuple):
    """Smoothed means and xi, the derivative of log Z by the predicted means."""

    mean: Tensor
    disturbance: Tensor


def smooth_means(
    means: GroupedMeans, inputs: ChainInputs, matrices: StepMatrices
) -> GroupedSmoothed:
    """Smoothed means, differentiable in the predicted means and every input."""
    outputs = _SmoothMeans.apply(  # type: ignore[no-untyped-call]
        matrices,
        means.filtered.detach(),
        means.pull,
        means.predicted,
        inputs.linear,
        inputs.transition,
        inputs.covariance,
        inputs.precision,
    )
    return GroupedSmoothed(*outputs)


class _SmoothMeans(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        matrices: StepMatrices,
        filtered: Tensor,
        pull: Tensor,
        predicted: Tensor,
        linear: Tensor,
        transition: Tensor,
        covariance: Tensor,
        precision: Tensor,
    ) -> tuple[Tensor, Tensor]:
        links = transpose(steps(matrices.backward, 0, -1))
        disturbance = affine(links, pull, reverse=True)
        back = times_matrix(steps(matrices.gain, 0, -1), transpose(transition))
        mean = filtered.clone()
        steps(mean, 0, -1).copy_(
            times_vector(back, steps(disturbance, 1), plus=steps(filtered, 0, -1))
        )
        ctx.matrices = matrices
        ctx.save_for_backward(covariance, mean, disturbance)
        ctx.set_materialize_grads(False)
        return mean, disturbance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_mean: _Gradient, grad_disturbance: _Gradient
    ) -> tuple[_Gradient, ...]:
        covariance, mean, disturbance = ctx.saved_tensors
        matrices: StepMatrices = ctx.matrices
        if grad_mean is None:
            source = torch.zeros_like(mean) if grad_disturbance is None else grad_disturbance
        else:
            source = times_vector(covariance, grad_mean, plus=grad_disturbance)
        adjoint = affine(steps(matrices.backward, 0, -1), source)
        grad_predicted = times_vector(matrices.shrinkage, adjoint).neg_()
        if grad_mean is not None:
            grad_predicted.add_(grad_mean)
        grad_linear = times_vector(matrices.keep, adjoint)
        return (
            None,
            None,
            None,
            grad_predicted,
            grad_linear,
            outer_sums(steps(disturbance, 1), steps(grad_linear, 0, -1), ALL),
            symmetric(outer_sums(grad_predicted, disturbance, SERIES)),
            symmetric(outer_sums(grad_linear, mean, SERIES)).neg_(),
        )


def smooth_covariances(
    covariances: GroupedCovariances, transition: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Smoothed covariances and, one step shorter, Cov(z_t, z_{t+1})."""
    noise = noise.detach()  # the value is free of it: the predicted covariance carries Q
    smoothed, cross = _SmoothCovariances.apply(  # type: ignore[no-untyped-call]
        covariances.filtered, covariances.predicted, transition, noise
    )
    return smoothed, cross


class _SmoothCovariances(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, filtered: Tensor, predicted: Tensor, transition: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        current = steps(filtered, 0, -1)
        spread = times_matrix(transition, current)
        inverses = inverse(steps(predicted, 1))
        gain = times_matrix(transpose(spread), inverses)
        keep = identity_minus(times_matrix(gain, transition))
        constants = filtered.clone()
        joseph = congruence(keep, current, congruence(gain, noise))
        steps(constants, 0, -1).copy_(symmetric(joseph))
        smoothed = symmetric(congruences(gain, constants, reverse=True))
        cross = times_matrix(gain, steps(smoothed, 1))
        ctx.save_for_backward(predicted, transition, spread, inverses, gain, smoothed, current)
        ctx.set_materialize_grads(False)
        return smoothed, cross

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_smoothed: _Gradient, grad_cross: _Gradient
    ) -> tuple[_Gradient, ...]:
        predicted, a, spread, inverses, gain, smoothed, current = ctx.saved_tensors
        later = steps(smoothed, 1)
        source = torch.zeros_like(smoothed)
        if grad_smoothed is not None:
            source.add_(symmetric(grad_smoothed))
        if grad_cross is not None:
            _add_at(source, symmetric(times_matrix(transpose(gain), grad_cross)), 1, None)
        adjoint = symmetric(congruences(transpose(gain), source))
        before = steps(adjoint, 0, -1)
        drop = congruence(inverses, steps(predicted, 1) - later)  # N of the module docstring
        pulled = times_matrix(drop, spread)  # N A S
        turned = times_matrix(pulled, before)  # N A S Z
        grad_a = -2.0 * times_matrix(turned, current)
        mixed = symmetric(times_matrix(transpose(a), turned))
        grad_filtered = _add_at(adjoint.clone(), -2.0 * mixed, 0, -1)
        grad_ahead = 2.0 * symmetric(times_matrix(turned, gain))
        grad_ahead -= congruence(transpose(gain), before)
        if grad_cross is not None:
            # d gain = (dS A' + S dA' - gain dP) P^-1
            weight = times_matrix(times_matrix(grad_cross, later), inverses)
            _add_at(grad_filtered, symmetric(times_matrix(weight, a)), 0, -1)
            grad_a += times_matrix(transpose(weight), current)
            grad_ahead -= symmetric(times_matrix(transpose(gain), weight))
        grad_predicted = _add_at(torch.zeros_like(predicted), grad_ahead, 1, None)
        # Every step but the last is a link's start; the last one is its own smoothed state.
        return grad_filtered, grad_predicted, grad_a.sum(ALL, keepdim=True), None


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
