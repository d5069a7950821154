r"""Draws and divergence of chains with larger groups, by one call of autograd.

What ``short_draws`` does where a chain is one matrix, by the block elimination of
``joint_elimination``. Draws perturb and optimise, as in ``joint_means``. With deviations
:math:`\delta = m - p` from the prior's mean path p, s and W the excess and :math:`\kappa_0` the
prior's normaliser,

.. math::
    z = p + H^{-1}(r + \eta), \quad r = h + fs - (\Lambda + fW)p, \quad \eta \sim N(0, H), \\
    KL = \tfrac12\delta'(u + f(s - Wm)) + f(\tfrac12m'Wm - s'm)
         + \tfrac12\log|H| - \tfrac12 tr(\Lambda S) - \kappa_0, \qquad u = h - \Lambda m .

**Gradients.** With the adjoints g of z and w of KL, :math:`v = H^{-1}u` and
:math:`q = H^{-1}g`,

.. math::
    \bar h = q + wv, \quad \bar c = \bar h - wm, \quad \bar\eta = q, \quad
    \bar H = sym\bigl(w\,m(\tfrac12 m - v)' - qz'\bigr) + \dots, \quad
    \bar\Lambda = \bar H - \tfrac w2(S + mm') + \dots,

c as in ``short_draws``; the dots are what covariances and :math:`\eta` add.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.host_draws import draw_on_host
from tsvae.lds.host_prior import HostPrior, Sums, prior_gradients, sound_prior
from tsvae.lds.joint_covariances import Done, Returned, adjoint_of_pivots, smoothed_covariances
from tsvae.lds.joint_elimination import JointPrecision, eliminate
from tsvae.lds.joint_means import Noise, NoiseRoots, perturbation, substitute
from tsvae.lds.joint_prior import COVARIANCES_PRECISION, SUMS_PRECISION
from tsvae.lds.joint_sums import OwnSums, add_noise, matrix_sums, per_group, vector_sums
from tsvae.lds.layout import SeriesLayout, series_layout, times_group
from tsvae.lds.linalg import root_or_zero
from tsvae.lds.natural_factor import to_device
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.stepping import are_for_host


def draw_joint_chains(
    params: LDSParameters,
    linear: Tensor,
    precision: Tensor,
    n_samples: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor] | None:
    """Joint draws of the states and local KL of complete chains without inputs; differentiable.

    Parameters
    ----------
    params : LDSParameters
        Plug-in or expected ones.
    linear : Tensor (B, T, D)
        h.
    precision : Tensor (1 or B, T, D)
        Diagonal of Lambda.
    n_samples : int
        S.
    generator : torch.Generator

    Returns
    -------
    draws : Tensor (S, B, T, D)
    local_kl : Tensor (B,)
        As that of ``tsvae.lds.local_kl``.

    None instead if a covariance is too close to singular, or the prior's mean path too long.
    """
    found = sound_prior(params, linear)
    if found is None:
        return None
    parts, prior, path = found
    groups, size = prior.start.shape
    layout = series_layout(linear.shape[0], precision.shape[0], None, groups, size)
    shape = (linear.shape[1], groups * layout.n_patterns, layout.rows * n_samples, size)

    def draw() -> Tensor:
        like = linear
        return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)

    noise = Noise(draw(), draw(), None if params.excess is None else draw())
    if are_for_host(groups * layout.n_patterns, size, linear):
        on_host = draw_on_host(prior, path, noise, linear, precision, parts)
        if on_host is not None:
            return on_host
    drawn: tuple[Tensor, Tensor] = _Draw.apply(  # type: ignore[no-untyped-call]
        _Task(prior, layout, noise, path, n_samples), linear, precision, *parts
    )
    return drawn


class _Task(NamedTuple):
    """Constants of a call."""

    prior: HostPrior
    layout: SeriesLayout
    noise: Noise
    path: Tensor | None
    n_samples: int


def _wide(values: Tensor, layout: SeriesLayout, dim: int = 0) -> Tensor:
    """Values of groups for every pattern."""
    patterns = layout.n_patterns
    return values if patterns == 1 else values.repeat_interleave(patterns, dim=dim)


def _blocks(prior: HostPrior, layout: SeriesLayout, precision: Tensor) -> JointPrecision:
    wide = torch.empty(0, dtype=torch.float64, device=precision.device)
    excess, size = np.zeros_like(prior.leaving), prior.start.shape[1]
    if prior.given.excess is not None:
        excess = prior.given.excess[:, :size, :size]
    blocks = (prior.initial, prior.arriving, prior.coupling, prior.leaving - excess, excess)
    steps = precision.shape[1]
    split = precision.unflatten(2, prior.start.shape).permute(1, 2, 0, 3)
    followed = precision.new_zeros(steps, prior.start.shape[0] * layout.n_patterns)
    if prior.given.excess is not None:
        followed[:-1] = 1.0
    parts = [to_device(x, wide) for x in blocks]
    return JointPrecision._make((*parts, followed, split.flatten(1, 2)))


class _Pull:
    """What the excess adds to the information about rows of states: ``f (s - W z)``."""

    def __init__(self, prior: HostPrior, layout: SeriesLayout, like: Tensor) -> None:
        size = prior.start.shape[1]
        self.there = prior.given.excess is not None
        if prior.given.excess is not None:
            self.weight = to_device(prior.given.excess[:, :size, :size], like)
            shift = to_device(-prior.given.excess[:, :size, size], like)
            self.shift = _wide(shift, layout).unsqueeze(1)

    def __call__(self, states: Tensor) -> Tensor:
        pulled = torch.zeros_like(states)
        if self.there:
            torch.sub(self.shift, times_group(states[:-1], self.weight), out=pulled[:-1])
        return pulled

    def work(self, states: Tensor) -> Tensor:
        """``f s'z`` for rows ``(T, N, R, K)``: ``(N, R)``."""
        if not self.there:
            return states.new_zeros(states.shape[1:3])
        return (states[:-1].sum(0) * self.shift).sum(-1)


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, task: _Task, linear: Tensor, precision: Tensor, *params: Tensor
    ) -> tuple[Tensor, Tensor]:
        prior, layout, noise, path, n_samples = task
        given = _blocks(prior, layout, precision)
        work = eliminate(given, keep_before=False)
        conditional, gain = work.conditional, work.pull.mT
        smoothed, crossed = smoothed_covariances(conditional, gain, work.runs)
        if path is None:
            path = linear.new_zeros(linear.shape[1], prior.start.shape[0], 1, prior.start.shape[1])
        path = _wide(path, layout, dim=1)
        potential, pull = given.potential.unsqueeze(2), _Pull(prior, layout, linear)
        h = layout.states_in(linear)
        right = torch.addcmul(h + pull(path), potential, path, value=-1.0)
        moved = perturbation(given, _noise_roots(prior, linear), noise)
        moved += right.repeat_interleave(n_samples, dim=2)
        solved = substitute(conditional, gain, torch.cat((right, moved), dim=2), work.runs)
        states = solved + path
        rows = layout.rows
        mean, draws = states[:, :, :rows], states[:, :, rows:]
        u = torch.addcmul(h, potential, mean, value=-1.0)
        pulled = pull(mean)
        energy = (solved[:, :, :rows] * (u + pulled) - mean * pulled).sum((0, 3)) - pull.work(mean)
        spread = (given.potential * smoothed.diagonal(dim1=-2, dim2=-1)).sum((0, 2))
        own = work.pivots.log_().sum((0, 2), dtype=torch.float64) - 0.5 * spread.double()
        kl = 0.5 * energy.double() + own[:, None]
        kl = kl.view(prior.start.shape[0], -1).sum(0) - prior.normalizer
        ctx.save_for_backward(conditional, gain, smoothed, crossed, given.potential, states, u)
        ctx.task, ctx.runs = task, work.runs
        ctx.like = params[0].detach()
        ctx.set_materialize_grads(False)
        return layout.samples_out(draws, n_samples), kl.to(linear.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_draws: Tensor | None, grad_kl: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        conditional, gain, smoothed, crossed, potential, states, u = ctx.saved_tensors
        prior, layout, noise, _, n_samples = ctx.task
        rows, groups = layout.rows, prior.start.shape[0]
        w = u.new_zeros(layout.n_patterns * rows) if grad_kl is None else grad_kl.to(u.dtype)
        w = w.view(1, -1, rows).expand(groups, -1, -1).reshape(-1, rows, 1)
        if grad_draws is None:
            g = torch.zeros_like(states[:, :, rows:])
        else:
            g = layout.samples_in(grad_draws)
        solved = substitute(conditional, gain, torch.cat((w * u, g), dim=2), ctx.runs)
        v, q = solved[:, :, :rows], solved[:, :, rows:]  # v is w times that above
        mean = states[:, :, :rows]
        weighted = w * mean
        back = torch.cat((torch.sub(0.5 * weighted, v), -q), dim=2)
        linear = v + q.unflatten(2, (rows, n_samples)).sum(3)
        half = 0.5 * w.sum(1)  # of patterns
        returned = Returned(log_det=half[:, 0].double(), smoothed_diagonal=-half * potential)
        done = Done(conditional, gain, smoothed, crossed, ctx.runs)
        if prior.precision > COVARIANCES_PRECISION:
            returned, done = returned.double(), done.double()
        adjoint, _, coupling = adjoint_of_pivots(returned, done, groups)
        precision = (
            (states * back).sum(2)
            + adjoint.diagonal(dim1=-2, dim2=-1).to(u.dtype)
            - half * smoothed.diagonal(dim1=-2, dim2=-1)
            - 0.5 * (weighted * mean).sum(2)
            + _by_root(potential, (q * noise.potential).sum(2))
        )
        total = 0.0 if grad_kl is None else -float(grad_kl.double().sum())
        turned = -0.5 * per_group(coupling, groups)
        if prior.precision > SUMS_PRECISION:
            states, back = states.double(), back.double()
        sides = (adjoint[0], adjoint[-1], adjoint.sum(0))
        own = OwnSums(*(per_group(side, groups) for side in sides))
        matrices = matrix_sums(states, back, own, turned, groups)
        vectors = vector_sums(linear - weighted, groups)
        grads = prior_gradients(prior, Sums(*matrices, *vectors, total), len(u))
        add_noise(grads, prior, noise, q)
        given = [to_device(grad, ctx.like) for grad in grads]
        shaped = precision.unflatten(1, (groups, -1)).permute(2, 0, 1, 3).flatten(2)
        return None, layout.states_out(linear), shaped, *given


def _by_root(potential: Tensor, grad: Tensor) -> Tensor:
    """Gradient by a precision, from that by its root; zero at zero."""
    root = root_or_zero(potential)
    return torch.where(root > 0, 0.5 * grad / root, 0.0)


def _noise_roots(prior: HostPrior, like: Tensor) -> NoiseRoots:
    initial, arriving = prior.roots
    excess = None
    if prior.given.excess is not None:
        excess = to_device(prior.excess_root.swapaxes(1, 2), like)
    return NoiseRoots(
        to_device(initial, like),
        to_device(arriving, like),
        to_device(arriving @ prior.given.transition_matrix, like),
        excess,
    )
