r"""Smoothed means of groups of one or two dimensions, with hand-written gradients.

Component-first arrays (module ``components``). With the filter's m, :math:`m^+`, :math:`\rho` and
:math:`E_t = A J_t` (module ``grouped_means``), :math:`\xi_t = \partial \log Z / \partial m_t`
(Bryson & Frazier 1963) gives the smoothed means without an inverse:

.. math::
    \xi_t = E_t' \xi_{t+1} + \rho_t, \qquad
    \bar m_t = m_t + P_t \xi_t = m^+_t + S_t A' \xi_{t+1}.

They minimise :math:`F(z) = U(z) + \sum_t \tfrac12 z_t'\Lambda_t z_t - h_t'z_t` with the energy of
the disturbances

.. math::
    U = \tfrac12 e_0'\Sigma_0^{-1}e_0 + \tfrac12 \sum_{t>0} e_t'Q^{-1}e_t, \qquad
    e_t = z_t - A z_{t-1} - c_t = Q\,\xi_t, \quad e_0 = \Sigma_0\,\xi_0,

which is the mean part of the local KL, :math:`\tfrac12\xi_0'\Sigma_0\xi_0 + \dots`.

**Gradients.** At the minimum, :math:`\partial_z F = 0`, so a loss with gradient g by the means
changes by :math:`-\partial_\theta (\partial_w F)`, w being the smoothed means of :math:`h = g`
without drift and start (one more pass), :math:`\omega` its :math:`\xi`:

.. math::
    \bar h = w, \quad \bar\Lambda_t = -w_t \bar m_t', \quad \bar c_t = \omega_t, \quad
    \bar A = \sum_t \xi_t w_{t-1}' + \omega_t \bar m_{t-1}', \quad \bar Q = \sum_t \omega_t \xi_t'.

The energy adds its own, :math:`\partial_z U = \xi_t - A'\xi_{t+1}` to g and :math:`-\xi` to
:math:`\omega` above, where :math:`\bar Q` gains :math:`-\tfrac12\xi\xi'`.
"""

from __future__ import annotations

from functools import partial
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
from tsvae.lds.grouped_covariances import StepMatrices
from tsvae.lds.grouped_means import (
    SERIES,
    SHARED,
    ChainInputs,
    GroupedMeans,
    constant_means,
)
from tsvae.lds.recursions import affine

_Gradient = Tensor | None


class SmoothedInputs(NamedTuple):
    """What smoothed means depend on; differentiable.

    Attributes
    ----------
    linear : Tensor (K, T, P, R, G)
        h.
    drift : Tensor (K, T or 1, 1 or P, 1 or R, G)
        c; its first step is unused.
    start : Tensor (K, 1, 1 or P, 1 or R, G)
        Mean of the first state.
    transition, noise, initial : Tensor (K, K, 1, 1, 1, G)
        A, Q, Sigma_0.
    precision : Tensor (K, K, T, P, 1, G)
        Lambda.
    """

    linear: Tensor
    drift: Tensor
    start: Tensor
    transition: Tensor
    noise: Tensor
    initial: Tensor
    precision: Tensor


class GroupedSmoothed(NamedTuple):
    """Smoothed means ``(K, T, P, R, G)`` and the energy of their disturbances ``(P, R)``."""

    mean: Tensor
    energy: Tensor


def smooth_means(
    inputs: SmoothedInputs, matrices: StepMatrices, found: GroupedMeans | None = None
) -> GroupedSmoothed:
    """Smoothed means and their energy, differentiable in every input.

    Parameters
    ----------
    inputs : SmoothedInputs
    matrices : StepMatrices
    found : GroupedMeans, optional
        Outcome of ``constant_means`` for these inputs, to share the work.

    Returns
    -------
    GroupedSmoothed
    """
    return GroupedSmoothed(*_SmoothMeans.apply(matrices, found, *inputs))  # type: ignore[no-untyped-call]


class _Path(NamedTuple):
    """Smoothed means and xi."""

    mean: Tensor
    disturbance: Tensor


def _smooth(transition: Tensor, matrices: StepMatrices, found: GroupedMeans) -> _Path:
    disturbance = affine(transpose(steps(matrices.backward, 0, -1)), found.pull, reverse=True)
    mean = torch.empty_like(found.filtered)
    steps(mean, -1).copy_(steps(found.filtered, -1))
    if mean.shape[TIME] > 1:
        by_blocks(
            _smoothed,
            steps(found.filtered, 0, -1),
            steps(disturbance, 1),
            steps(matrices.gain, 0, -1),
            transition,
            into=(steps(mean, 0, -1),),
        )
    return _Path(mean, disturbance)


def _smoothed(
    filtered: Tensor, disturbance: Tensor, gain: Tensor, transition: Tensor
) -> tuple[Tensor]:
    back = times_vector(transpose(transition), disturbance)
    return (times_vector(gain, back, plus=filtered),)


class _SmoothMeans(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, matrices: StepMatrices, found: GroupedMeans | None, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        given = SmoothedInputs(*tensors)
        if found is None:
            found = constant_means(_chain(given), matrices)
        mean, disturbance = _smooth(given.transition, matrices, found)
        ctx.matrices = matrices
        ctx.shapes = given.drift.shape, given.start.shape
        ctx.save_for_backward(given.transition, mean, disturbance)
        ctx.set_materialize_grads(False)
        return mean, _energy(disturbance, given)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: _Gradient, grad_energy: _Gradient) -> tuple[_Gradient, ...]:
        transition, mean, disturbance = ctx.saved_tensors
        scale = None if grad_energy is None else grad_energy[None, None, :, :, None]
        slope = _slope(disturbance, transition, grad_mean, scale)
        back, moved = _adjoint(slope, transition, ctx.matrices)
        (grad_precision,) = by_blocks(
            lambda w, z: (symmetric_outer_sums(-w, z, SERIES),), back, mean
        )
        drift_shape, start_shape = ctx.shapes
        first, xi = steps(moved, 0, 1), steps(disturbance, 0, 1)
        net = first if scale is None else first - scale * xi
        grad_initial = _noise_gradient(first, xi, scale)
        grad_a = grad_q = torch.zeros_like(grad_initial)
        grad_drift = None
        if mean.shape[TIME] > 1:
            grad_a, grad_q, grad_drift = by_blocks(
                partial(_parameter_gradients, scale=scale, shape=drift_shape),
                steps(moved, 1),
                steps(disturbance, 1),
                steps(back, 0, -1),
                steps(mean, 0, -1),
            )
        return (
            None,
            None,
            back,
            _whole_drift(grad_drift, back, drift_shape) if ctx.needs_input_grad[3] else None,
            net.sum_to_size(start_shape),
            grad_a.sum(TIME, keepdim=True),
            grad_q.sum(TIME, keepdim=True),
            grad_initial,
            grad_precision,
        )


def _chain(given: SmoothedInputs) -> ChainInputs:
    """Arrange the inputs of a filter pass without gradients, which needs no covariances."""
    linear, drift, start, transition = given[:4]
    return ChainInputs(linear, drift, start, transition, given.precision, given.precision)


def _energy(disturbance: Tensor, given: SmoothedInputs) -> Tensor:
    first = steps(disturbance, 0, 1)
    total = (times_vector(given.initial, first) * first).sum((0, 1, 4))
    if disturbance.shape[TIME] > 1:
        (each,) = by_blocks(
            lambda xi, q: ((times_vector(q, xi) * xi).sum((0, 4), keepdim=True),),
            steps(disturbance, 1),
            given.noise,
        )
        total = total + each.sum((0, 1, 4))
    return 0.5 * total


def _slope(
    disturbance: Tensor, transition: Tensor, grad_mean: _Gradient, scale: _Gradient
) -> Tensor:
    """Gradient by the means: ``grad_mean``, and ``xi_t - A'xi_{t+1}`` of the energy, scaled."""
    if scale is None:
        return torch.zeros_like(disturbance) if grad_mean is None else grad_mean

    def own(xi: Tensor, later: _Gradient, a: Tensor, given: _Gradient) -> tuple[Tensor]:
        if later is not None:
            xi = xi - times_vector(transpose(a), later)
        return (scale * xi if given is None else torch.addcmul(given, scale, xi),)

    out = torch.empty_like(disturbance)
    now, end = (
        None if grad_mean is None else steps(grad_mean, *part) for part in ((0, -1), (-1, None))
    )
    steps(out, -1).copy_(own(steps(disturbance, -1), None, transition, end)[0])
    if out.shape[TIME] > 1:
        earlier, later = steps(disturbance, 0, -1), steps(disturbance, 1)
        by_blocks(own, earlier, later, transition, now, into=(steps(out, 0, -1),))
    return out


def _adjoint(slope: Tensor, transition: Tensor, matrices: StepMatrices) -> _Path:
    zero = slope.new_zeros(slope.shape[0], 1, 1, 1, 1)
    chain = ChainInputs(slope, zero, zero, transition, slope, slope)
    return _smooth(transition, matrices, constant_means(chain, matrices, driftless=True))


def _noise_gradient(moved: Tensor, disturbance: Tensor, scale: _Gradient) -> Tensor:
    """Gradient of Q by each step, summed over series and patterns."""
    if scale is not None:
        moved = torch.addcmul(moved, scale, disturbance, value=-0.5)
    return symmetric_outer_sums(moved, disturbance, SHARED)


def _parameter_gradients(
    moved: Tensor,
    disturbance: Tensor,
    back: Tensor,
    mean: Tensor,
    *,
    scale: _Gradient,
    shape: torch.Size,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by each step: of A and Q, summed over series and patterns; of the drift.

    ``back`` and ``mean`` are those of the step before; ``shape`` tells what shares the drift.
    """
    grad_q = _noise_gradient(moved, disturbance, scale)
    net = moved if scale is None else torch.addcmul(moved, scale, disturbance, value=-1.0)
    grad_a = outer_sums(disturbance, back, SHARED) + outer_sums(net, mean, SHARED)
    axes = tuple(d for d in SHARED if shape[d] == 1)
    return grad_a, grad_q, net.sum(axes, keepdim=True) if axes else net


def _whole_drift(grad: _Gradient, like: Tensor, shape: torch.Size) -> Tensor:
    """Gradient of the drift from that of its later steps, if any; the first one is unused."""
    if grad is None:
        return like.new_zeros(shape)
    if shape[TIME] == 1:
        return grad.sum(TIME, keepdim=True)
    return torch.cat((grad.new_zeros(shape[0], 1, *shape[2:]), grad), dim=TIME)
