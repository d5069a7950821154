r"""Covariances of groups of one or two dimensions, with hand-written gradients.

Component-first arrays (module ``components``); J, S, X are an update's matrices there.

*Filter.* From :math:`dS = J\,dP\,J' - S\,d\Lambda\,S`, the Riccati recursion passes adjoints on by
a congruence recursion with the links :math:`E_t = A J_t`, transposed:
:math:`Y_t = \bar P_t + J_t'\bar S_t J_t + E_t' Y_{t+1} E_t`.

*Smoother.* :math:`\bar S_t = S_t + G_t(\bar S_{t+1} - P_{t+1})G_t'`, evaluated in Joseph's form so
that rounding leaves it positive semidefinite. With Z the adjoint of :math:`\bar S`, which obeys
:math:`Z_{t+1} \mathrel{+}= G_t'Z_tG_t`, W that of :math:`C = G\bar S_{t+1}` times
:math:`\bar S_{t+1}P^{-1}`, and :math:`U = W' - 2(G' - P^{-1}C')Z`, the gradients are

.. math::
    dS: Z + sym(A'U), \quad dA: US, \quad dP_{t+1}: -sym((U + G'Z)G),

for :math:`P^{-1}AS = G'`, so that
:math:`P^{-1}(P - \bar S_{t+1})P^{-1}AS = G' - P^{-1}C'`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.components import (
    TIME,
    by_blocks,
    congruence,
    identity_minus,
    inverse,
    steps,
    symmetric,
    times_matrix,
    transpose,
    update,
)
from tsvae.lds.recursions import congruences, riccati

ALL = (-4, -3, -2)  # time, patterns, series: what parameters are shared over
PATTERNS = (-3, -2)
_Gradient = Tensor | None


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
        outputs = by_blocks(_step_matrices, predicted, precision, transition)
        filtered, _, keep, shrinkage, _, links = outputs
        ctx.save_for_backward(transition, filtered, keep, shrinkage, links)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*outputs[2:])
        return predicted, *outputs

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
        (source,) = by_blocks(
            _riccati_source, keep, shrinkage, grad_predicted, grad_filtered, grad_log_det
        )
        adjoint = congruences(transpose(steps(links, 0, -1)), source, reverse=True)
        grad_precision = torch.empty_like(filtered)
        now = [None if x is None else steps(x, 0, -1) for x in (grad_filtered, grad_log_det)]
        grad_a, grad_q = torch.zeros_like(a), torch.zeros_like(a)
        if filtered.shape[TIME] > 1:
            shape = (*a.shape[:2], filtered.shape[TIME] - 1, 1, 1, a.shape[-1])
            grad_a, grad_q = a.new_empty(shape), a.new_empty(shape)
            by_blocks(
                _riccati_gradients,
                steps(filtered, 0, -1),
                steps(adjoint, 1),
                a,
                *now,
                into=(grad_a, grad_q, steps(grad_precision, 0, -1)),
            )
        end = [None if x is None else steps(x, -1) for x in (grad_filtered, grad_log_det)]
        last = _riccati_gradients(steps(filtered, -1), None, a, *end)[-1]
        steps(grad_precision, -1).copy_(last)
        return (
            grad_a.sum(TIME, keepdim=True),
            grad_q.sum(TIME, keepdim=True),
            symmetric(steps(adjoint, 0, 1).sum((TIME, -3), keepdim=True)),
            grad_precision,
        )


def _step_matrices(predicted: Tensor, precision: Tensor, transition: Tensor) -> tuple[Tensor, ...]:
    keep, filtered, shrinkage, log_det = update(predicted, precision)
    forward, backward = times_matrix(keep, transition), times_matrix(transition, keep)
    return filtered, log_det, keep, shrinkage, forward, backward


def _riccati_source(
    keep: Tensor,
    shrinkage: Tensor,
    grad_predicted: _Gradient,
    grad_filtered: _Gradient,
    grad_log_det: _Gradient,
) -> tuple[Tensor]:
    """Collect what a step's own results add to the adjoint of its predicted covariance."""
    source = torch.zeros_like(keep) if grad_predicted is None else grad_predicted
    if grad_filtered is not None:
        source = congruence(transpose(keep), grad_filtered, source)
    source = symmetric(source)
    if grad_log_det is not None:
        source = torch.addcmul(source, shrinkage, grad_log_det)
    return (source,)


def _riccati_gradients(
    filtered: Tensor,
    later: _Gradient,
    a: Tensor,
    grad_filtered: _Gradient,
    grad_log_det: _Gradient,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of A and Q (summed over patterns) and Lambda from the next step's adjoint."""
    spread = torch.zeros_like(filtered) if grad_filtered is None else symmetric(grad_filtered)
    grad_a = grad_q = filtered
    if later is not None:
        later = symmetric(later)
        turned = times_matrix(later, a)
        spread = times_matrix(transpose(a), turned, spread)
        grad_a = times_matrix(turned, filtered).sum(PATTERNS, keepdim=True).mul_(2.0)
        grad_q = later.sum(PATTERNS, keepdim=True)
    grad_precision = congruence(filtered, spread).neg_()
    if grad_log_det is not None:
        grad_precision.addcmul_(filtered, grad_log_det)
    return grad_a, grad_q, grad_precision


class BackwardLaws(NamedTuple):
    """Gains (K, K, T-1, P, 1, G) and covariances (K, K, T, P, 1, G) of z_t given z_{t+1}."""

    gain: Tensor
    covariance: Tensor

    def expand(self, index: Tensor | None) -> BackwardLaws:
        """Repeat for each series of uneven patterns."""
        if index is None:
            return self
        return BackwardLaws(*(part.index_select(-3, index) for part in self))


@torch.no_grad()
def backward_laws(
    filtered: Tensor, predicted: Tensor, transition: Tensor, noise: Tensor
) -> BackwardLaws:
    """Laws of z_t given z_{t+1}, constants; the last one is the filtered one."""
    covariance = torch.empty_like(filtered, memory_format=torch.contiguous_format)
    steps(covariance, -1).copy_(steps(filtered, -1))
    gain, found = by_blocks(
        _conditionals, steps(filtered, 0, -1), steps(predicted, 1), transition, noise
    )
    steps(covariance, 0, -1).copy_(found)
    return BackwardLaws(gain, covariance)


class SmoothedCovariances(NamedTuple):
    """``smoothed (K, K, T, P, 1, G)`` and, one step shorter, ``cross = Cov(z_t, z_{t+1})``."""

    smoothed: Tensor
    cross: Tensor


def smooth_covariances(
    covariances: GroupedCovariances, transition: Tensor, laws: BackwardLaws
) -> SmoothedCovariances:
    """Run the Rauch-Tung-Striebel recursion of covariances; Q acts through the predicted ones."""
    outputs = _SmoothCovariances.apply(  # type: ignore[no-untyped-call]
        laws, covariances.filtered, covariances.predicted, transition
    )
    return SmoothedCovariances(*outputs)


class _SmoothCovariances(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, laws: BackwardLaws, filtered: Tensor, predicted: Tensor, transition: Tensor
    ) -> tuple[Tensor, Tensor]:
        gain, constants = laws
        smoothed = congruences(gain, constants, reverse=True)
        (cross,) = by_blocks(lambda g, s: (times_matrix(g, s),), gain, steps(smoothed, 1))
        ctx.save_for_backward(filtered, predicted, transition, gain, smoothed, cross)
        ctx.set_materialize_grads(False)
        return smoothed, cross

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_smoothed: _Gradient, grad_cross: _Gradient
    ) -> tuple[_Gradient, ...]:
        filtered, predicted, a, gain, smoothed, cross = ctx.saved_tensors
        adjoint = congruences(transpose(gain), _smoother_source(gain, grad_smoothed, grad_cross))
        grad_filtered, grad_predicted = torch.empty_like(smoothed), torch.empty_like(smoothed)
        # The last smoothed covariance is the filtered one.
        steps(grad_filtered, -1).copy_(symmetric(steps(adjoint, -1)))
        steps(grad_predicted, 0, 1).zero_()
        if smoothed.shape[TIME] == 1:
            return None, grad_filtered, grad_predicted, torch.zeros_like(a)
        sums = a.new_empty(*a.shape[:2], smoothed.shape[TIME] - 1, 1, 1, a.shape[-1])
        by_blocks(
            _smoother_gradients,
            steps(filtered, 0, -1),
            steps(predicted, 1),
            steps(smoothed, 1),
            cross,
            gain,
            steps(adjoint, 0, -1),
            a,
            grad_cross,
            into=(steps(grad_filtered, 0, -1), steps(grad_predicted, 1), sums),
        )
        return None, grad_filtered, grad_predicted, sums.sum(TIME, keepdim=True)


def _smoother_source(gain: Tensor, grad_smoothed: _Gradient, grad_cross: _Gradient) -> Tensor:
    """Collect what a step's own results add to the adjoint of its smoothed covariance."""
    if grad_smoothed is None:
        size, n_links = gain.shape[0], gain.shape[TIME]
        source = gain.new_zeros(size, size, n_links + 1, *gain.shape[-3:])
    else:
        source = torch.empty_like(grad_smoothed, memory_format=torch.contiguous_format)
        by_blocks(lambda own: (symmetric(own),), grad_smoothed, into=(source,))
    if grad_cross is not None and gain.shape[TIME]:
        later = steps(source, 1)
        by_blocks(
            lambda own, g, c: (own + symmetric(times_matrix(transpose(g), c)),),
            later,
            gain,
            grad_cross,
            into=(later,),
        )
    return source


def _conditionals(
    current: Tensor, ahead: Tensor, transition: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Gain and covariance of z_t given z_{t+1}; see ``smoothing``."""
    gain = times_matrix(transpose(times_matrix(transition, current)), inverse(ahead))
    keep = identity_minus(times_matrix(gain, transition))
    return gain, symmetric(congruence(keep, current, congruence(gain, noise)))


def _smoother_gradients(
    current: Tensor,
    ahead: Tensor,
    later: Tensor,
    cross: Tensor,
    gain: Tensor,
    adjoint: Tensor,
    a: Tensor,
    grad_cross: _Gradient,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of S_t and P_{t+1}, and of A summed over patterns; module docstring."""
    adjoint, inverses, back = symmetric(adjoint), inverse(ahead), transpose(gain)
    turned = times_matrix(inverses, transpose(cross))
    turned = times_matrix(torch.sub(back, turned, out=turned), adjoint).mul_(-2.0)
    if grad_cross is not None:
        # d gain = (dS A' + S dA' - gain dP) P^-1
        turned += transpose(times_matrix(times_matrix(grad_cross, later), inverses))
    now = symmetric(times_matrix(transpose(a), turned)).add_(adjoint)
    grad_a = times_matrix(turned, current).sum(PATTERNS, keepdim=True)
    turned += times_matrix(back, adjoint)
    return now, symmetric(times_matrix(turned, gain)).neg_(), grad_a
