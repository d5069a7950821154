r"""Draws around smoothed means for groups of one or two dimensions, with hand-written gradients.

A draw from q(z) is a smoothed mean plus a deviation that needs no data. From
:math:`z_t | z_{t+1} \sim N(G_t z_{t+1} + \dots, V_t)` (module ``smoothing``),

.. math::
    e_t = G_t e_{t+1} + R_t \epsilon_t, \qquad R_t R_t' = V_t, \qquad z = \bar m + e.

**Gradients.** With the adjoint :math:`y_{t+1} = G_t'y_t + \bar z_{t+1}` of the recursion,
:math:`\bar G_t = y_t e_{t+1}'` and :math:`\bar R_t = y_t \epsilon_t'`, which Cholesky's
differential turns into :math:`\bar V`. From :math:`V = S - G P G'` and :math:`G = S A' P^{-1}` (S
filtered, P predicted one step later),

.. math::
    U = \bar G P^{-1} - 2\bar V G, \quad \bar S = \bar V + sym(UA), \quad \bar A = U'S, \quad
    \bar P = -\tfrac12\,sym(G'(\bar G P^{-1} + U)).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.components import (
    TIME,
    by_blocks,
    distinct,
    entries,
    inverse,
    outer_sums,
    root_entries,
    row_sums,
    steps,
    symmetric,
    times_lower,
    times_matrix,
    transpose,
)
from tsvae.lds.grouped_covariances import PATTERNS, BackwardLaws
from tsvae.lds.grouped_means import SERIES
from tsvae.lds.recursions import affine


def deviations(
    laws: BackwardLaws, filtered: Tensor, predicted: Tensor, transition: Tensor, epsilon: Tensor
) -> Tensor:
    """Deviations of draws from the smoothed means, differentiable.

    Parameters
    ----------
    laws : BackwardLaws
        Of these covariances.
    filtered, predicted : Tensor (K, K, T, P, 1, G)
        Covariances; Q acts through the predicted ones.
    transition : Tensor (K, K, 1, 1, 1, G)
        A.
    epsilon : Tensor (K, T, P, R, G)
        Standard normal numbers.

    Returns
    -------
    Tensor (K, T, P, R, G)
    """
    given = (laws, filtered, predicted, transition, epsilon)
    drawn: Tensor = _Deviations.apply(*given)  # type: ignore[no-untyped-call]
    return drawn


class _Deviations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        laws: BackwardLaws,
        filtered: Tensor,
        predicted: Tensor,
        transition: Tensor,
        epsilon: Tensor,
    ) -> Tensor:
        gain, covariance = laws
        root, moved = by_blocks(_moved, covariance, epsilon)
        drawn = affine(gain, moved, reverse=True)
        ctx.save_for_backward(filtered, predicted, transition, gain, root, epsilon, drawn)
        return drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        filtered, predicted, a, gain, root, epsilon, drawn = ctx.saved_tensors
        back = affine(transpose(gain), grad)
        grad_filtered, grad_predicted = torch.empty_like(filtered), torch.empty_like(predicted)
        end = (steps(x, -1) for x in (back, epsilon, root))
        steps(grad_filtered, -1).copy_(_covariance_gradient(*end))
        steps(grad_predicted, 0, 1).zero_()
        if back.shape[TIME] == 1:
            return None, grad_filtered, grad_predicted, torch.zeros_like(a), None
        sums = a.new_empty(*a.shape[:2], back.shape[TIME] - 1, 1, 1, a.shape[-1])
        by_blocks(
            _step_gradients,
            *(steps(x, 0, -1) for x in (back, epsilon, root, filtered)),
            *(steps(x, 1) for x in (drawn, predicted)),
            gain,
            a,
            into=(steps(grad_filtered, 0, -1), steps(grad_predicted, 1), sums),
        )
        return None, grad_filtered, grad_predicted, sums.sum(TIME, keepdim=True), None


def _moved(covariance: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct entries of R, and ``R eps``."""
    root = root_entries(distinct(covariance))
    return root, times_lower(root, epsilon)


def _step_gradients(
    back: Tensor,
    epsilon: Tensor,
    root: Tensor,
    filtered: Tensor,
    drawn: Tensor,
    predicted: Tensor,
    gain: Tensor,
    a: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by the covariances of steps with a successor, to which ``drawn`` belongs."""
    grad_gain = outer_sums(back, drawn, SERIES)
    grad_covariance = _covariance_gradient(back, epsilon, root)
    return _law_gradients(filtered, predicted, gain, grad_gain, grad_covariance, a)


def _covariance_gradient(back: Tensor, epsilon: Tensor, root: Tensor) -> Tensor:
    """Gradient of V, symmetric, from the adjoint of ``R eps``."""
    if len(root) == 1:
        return 0.5 * outer_sums(back, epsilon, SERIES) / root
    a, b, c = root.unbind(0)
    on_a, on_b, on_c = (row_sums(back[i] * epsilon[j], SERIES) for i, j in ((0, 0), (1, 0), (1, 1)))
    out = root.new_empty(2, *root[:2].shape)
    first, right, left, last = entries(out)
    torch.div(on_c, c, out=last).mul_(0.5)
    on_b = torch.addcdiv(on_b, on_c * b, c, value=-1.0).div_(a)
    torch.mul(on_b, 0.5, out=right)
    left.copy_(right)
    torch.div(torch.addcmul(on_a, on_b, b, value=-1.0), a, out=first).mul_(0.5)
    return out


def _law_gradients(
    current: Tensor,
    ahead: Tensor,
    gain: Tensor,
    grad_gain: Tensor,
    grad_covariance: Tensor,
    a: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of S_t and P_{t+1}, and of A summed over patterns; module docstring."""
    weight = times_matrix(grad_gain, inverse(ahead))
    turned = times_matrix(grad_covariance, gain)
    net = torch.sub(weight, turned, alpha=2.0, out=turned)
    now = symmetric(times_matrix(net, a)).add_(grad_covariance)
    grad_a = times_matrix(transpose(net), current).sum(PATTERNS, keepdim=True)
    ahead = symmetric(times_matrix(transpose(gain), weight.add_(net)))
    return now, ahead.mul_(-0.5), grad_a
