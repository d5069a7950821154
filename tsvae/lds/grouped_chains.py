r"""Draws and divergence of chains with groups of one or two, by one call of autograd.

What ``short_draws`` does where a chain is one matrix and ``joint_draws`` for larger groups, in
component-first arrays (module ``components``) whose rows are the series. Predicted covariances P
come from the filter (``recursions.riccati``), the rest from the joint precision H of
``joint_elimination``: with its blocks B, C and W, f = 1 for steps with a successor and 0 for the
last one, and :math:`H_0` the part of H that is the plug-in prior's (without W),

.. math::
    V_t = (P_t^{-1} + \Lambda_t + f_t W + C)^{-1}, \qquad G_t = V_t B', \qquad
    \log|H| = \log|H_0| + \sum_t \log|I + P_t(\Lambda_t + f_t W)|

(:math:`V_{T-1}` without C). Everything else is a recursion over the links G or their transposes:

.. math::
    \phi_{t+1} = G_t'\phi_t + r_{t+1}, \quad \delta_t = G_t\delta_{t+1} + V_t\phi_t, \quad
    e_t = G_t e_{t+1} + R_t\epsilon_t, \quad \bar S_t = G_t\bar S_{t+1}G_t' + V_t

with :math:`RR' = V` and r, :math:`\delta`, u, KL of ``joint_draws``; :math:`z = m + e`.

**Gradients.** With the adjoints g of z and w of KL, y is :math:`\phi` with r = g,
:math:`a = H^{-1}(wu + g)`, and Z the adjoint of :math:`\bar S`,
:math:`Z_{t+1} = G_t'Z_tG_t - \tfrac w2\Lambda_{t+1}`. The adjoint of the pivots
:math:`V_t^{-1}`, and so of the diagonal of H, is :math:`X_t = G_tX_{t+1}G_t' + x_t` with

.. math::
    x = \tfrac w2V + VZV - VZ\bar S - \bar SZV - sym(V y d') - \tfrac12R\,M R', \qquad
    d_t = G_t e_{t+1}, \quad M = low(s\epsilon') + low(s\epsilon')', \quad s = R'y,

where low keeps what is below the diagonal and half of the diagonal, and
:math:`G_t\bar S_{t+1}G_t' = \bar S_t - V_t` saves the inverses. With that

.. math::
    \bar h = a, \quad \bar c = a - wm, \quad
    \bar\Lambda = diag(X - \tfrac w2\bar S) - m a, \quad
    \bar H = X + sym\bigl(m(\tfrac w2m - a)'\bigr), \quad
    \bar B' = \sum_t V_t\bigl(2Z_tG_t\bar S_{t+1} + y_te_{t+1}'\bigr) - 2G_tX_{t+1} + \dots,

the dots being the products of neighbours that belong to :math:`\bar H`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.components import (
    TIME,
    by_blocks,
    outer_sums,
    row_sums,
    steps,
    symmetric_outer_sums,
    times_lower,
    times_matrix,
    times_vector,
    whole,
)
from tsvae.lds.grouped_laws import Pull, excess_pull, find_laws
from tsvae.lds.host_prior import HostPrior, Sums, prior_gradients, sound_prior
from tsvae.lds.layout import pack, unpack
from tsvae.lds.natural_factor import Array, to_device, to_host
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.recursions import Links

ROWS = (-3, -2)  # samples and series


def draw_grouped_chains(
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
        Plug-in or expected ones, of group size 1 or 2.
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
    (groups, size), (n_series, n_steps, _) = prior.start.shape, linear.shape
    shape = (size, n_steps, n_series, n_samples, groups)
    noise = torch.randn(shape, generator=generator, dtype=linear.dtype, device=linear.device)
    noise = noise.transpose(2, 3).contiguous()
    planes = None if path is None else path.permute(3, 0, 2, 1).unsqueeze(2).contiguous()
    task = _Task(prior, noise, planes)
    drawn: tuple[Tensor, Tensor] = _Draw.apply(task, linear, precision, *parts)  # type: ignore[no-untyped-call]
    return drawn


class _Task(NamedTuple):
    """Constants of a call.

    Attributes
    ----------
    prior : HostPrior
    noise : Tensor (K, T, S, B, G)
    path : Tensor (K, T, 1, 1, G) or None
        Mean path of the prior, if it is not zero.
    """

    prior: HostPrior
    noise: Tensor
    path: Tensor | None


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, task: _Task, linear: Tensor, precision: Tensor, *params: Tensor
    ) -> tuple[Tensor, Tensor]:
        prior, noise, path = task
        size, excess = noise.shape[0], excess_pull(prior, linear)
        potential, h = pack(precision, 1, size), pack(linear, 1, size)
        laws = find_laws(prior, potential)
        links = Links(laws.gain)
        right = _right(h, potential, path, excess)
        start = h.new_empty(*h.shape[:2], 1 + noise.shape[2], *h.shape[3:])
        by_blocks(
            lambda f, v, r, eps: (times_vector(whole(v), f), times_lower(r, eps)),
            links.forward(right),
            laws.covariance,
            laws.root,
            noise,
            into=(start[:, :, :1], start[:, :, 1:]),
        )
        solved = links.backward(start)
        smoothed = links.congruence_backward(laws.covariance)
        shift, deviation = solved[:, :, :1], solved[:, :, 1:]
        mean = shift if path is None else shift + path
        u, cost = by_blocks(_cost, shift, mean, h, potential, smoothed, laws.log_det)
        if excess is not None and h.shape[TIME] > 1:
            parts = (steps(x, 0, -1) for x in (shift, mean))
            (extra,) = by_blocks(_excess_cost, *parts, *excess)
            steps(cost, 0, -1).add_(extra)
        kl = 0.5 * cost.sum((0, 1, 2, 4), dtype=torch.float64) - prior.expected
        ctx.save_for_backward(potential, *laws[:3], smoothed, mean, deviation, u)
        ctx.task, ctx.links = task, links
        ctx.like = params[0].detach()
        ctx.set_materialize_grads(False)
        draws = unpack(mean + deviation)
        return draws.view(-1, *linear.shape), kl.to(linear.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_draws: Tensor | None, grad_kl: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        potential, v, root, gain, smoothed, mean, deviation, u = ctx.saved_tensors
        (prior, noise, _), links = ctx.task, ctx.links
        n_series, n_patterns = u.shape[-2], potential.shape[-2]
        w = u.new_zeros(n_series) if grad_kl is None else grad_kl.to(u.dtype)
        half = 0.5 * w if n_patterns == n_series else 0.5 * w.sum(0, keepdim=True)
        w, half = (x.view(1, 1, -1, 1) for x in (w, half))
        if grad_draws is None:
            source = torch.zeros_like(noise)
        else:
            source = pack(grad_draws.flatten(0, 1), noise.shape[2], len(noise))
        pushed = links.forward(torch.cat((w * u, source), dim=2))
        back = pushed.sum(2, keepdim=True)
        (back,) = by_blocks(lambda v, f: (times_vector(whole(v), f),), v, back)
        a, y = links.backward(back), pushed[:, :, 1:]
        z = torch.zeros_like(v)
        z[::2].copy_(potential * -half)
        z = links.congruence_forward(z)
        parts = (v, smoothed, z, root, y, deviation, noise, half)
        x = links.congruence_backward(*by_blocks(_pivot_source, *parts))
        on_mean = by_blocks(_mean_gradients, mean, a, w, half, x, smoothed)
        coupling = None
        if u.shape[TIME] > 1:
            now, ahead = (0, -1), (1, None)
            (coupling,) = by_blocks(
                _coupling,
                steps(v, *now),
                gain,
                *(steps(part, *ahead) for part in (smoothed, x)),
                *(steps(part, *now) for part in (z, y)),
                steps(deviation, *ahead),
                *(steps(part, *at) for part in (mean, on_mean[0]) for at in (now, ahead)),
            )
        sums = _sums(on_mean[2], coupling, on_mean[3], -float(w.double().sum()))
        grads = prior_gradients(prior, sums, u.shape[1])
        given = [to_device(grad, ctx.like) for grad in grads]
        return None, unpack(a), unpack(on_mean[1]), *given


def _right(h: Tensor, potential: Tensor, path: Tensor | None, excess: Pull | None) -> Tensor:
    """``h + f s - (Lambda + f W) p``."""
    if path is None and excess is None:
        return h
    right = h.clone() if path is None else torch.addcmul(h, potential, path, value=-1.0)
    if excess is not None:
        states = excess.shift * 0.0 if path is None else steps(path, 0, -1)
        steps(right, 0, -1).add_(excess.on(states))
    return right


def _cost(
    shift: Tensor, mean: Tensor, h: Tensor, potential: Tensor, smoothed: Tensor, log_det: Tensor
) -> tuple[Tensor, Tensor]:
    """u, and twice what every step adds to KL but for the excess."""
    u = torch.addcmul(h, potential, mean, value=-1.0)
    own = log_det - (potential * smoothed[::2]).sum((0, -1), keepdim=True)
    return u, (shift * u).sum((0, -1), keepdim=True).add_(own)


def _excess_cost(shift: Tensor, mean: Tensor, weight: Tensor, own: Tensor) -> tuple[Tensor]:
    """Twice what the excess adds."""
    pulled = Pull(weight, own).on(mean)
    total = (shift * pulled).sub_(mean * (pulled + own))
    return (total.sum((0, -1), keepdim=True),)


def _pivot_source(
    v: Tensor,
    smoothed: Tensor,
    z: Tensor,
    root: Tensor,
    y: Tensor,
    e: Tensor,
    epsilon: Tensor,
    half: Tensor,
) -> tuple[Tensor]:
    """Distinct entries of x."""
    rows = _shared_rows(v)
    carried = e - times_lower(root, epsilon)
    inner = times_matrix(whole(z), whole(torch.sub(smoothed, v, alpha=0.5)))
    inner.add_(outer_sums(y, carried, rows), alpha=0.5)
    turned = times_matrix(whole(v), inner)
    out = torch.addcmul(_by_root(root, y, epsilon, rows), v, half)
    if len(v) > 1:
        out[1].sub_(turned[0, 1]).sub_(turned[1, 0])
    for k in range(len(turned)):
        out[2 * k].sub_(turned[k, k], alpha=2.0)
    return (out,)


def _shared_rows(of_patterns: Tensor) -> tuple[int, ...]:
    """Axes of states that share an array of patterns."""
    return ROWS if of_patterns.shape[-2] == 1 else ROWS[:1]


def _by_root(root: Tensor, y: Tensor, epsilon: Tensor, rows: tuple[int, ...]) -> Tensor:
    """Distinct entries of ``-R M R' / 2``."""
    if len(root) == 1:
        moved = row_sums(y * epsilon, rows)
        return moved.mul_(root).mul_(root).mul_(root).mul_(-0.5)
    first, below, last = root.unbind(0)
    one, mixed, two = (row_sums(y[i] * epsilon[j], rows) for i, j in ((0, 0), (1, 0), (1, 1)))
    one = one.mul_(first).addcmul_(below, mixed).mul_(-0.5)
    mixed, two = mixed.mul_(last).mul_(-0.5), two.mul_(last).mul_(-0.5)
    out = torch.empty_like(root)
    pulled = torch.mul(below, one).addcmul_(last, mixed)
    torch.mul(first, one, out=out[0]).mul_(first)
    torch.mul(first, pulled, out=out[1])
    two.mul_(last).addcmul_(below, mixed)
    torch.mul(below, pulled, out=out[2]).addcmul_(last, two)
    return out


def _mean_gradients(
    mean: Tensor, a: Tensor, w: Tensor, half: Tensor, x: Tensor, smoothed: Tensor
) -> tuple[Tensor, ...]:
    """``wm/2 - a``; gradient by Lambda; by every diagonal block of H and by c, all series.

    In float64 what is multiplied by Q^-1 twice, after it has all but cancelled.
    """
    weighted = w * mean
    back = torch.sub(0.5 * weighted, a)
    seen = row_sums(mean * a, _shared_rows(x))
    potential = torch.addcmul(x[::2], smoothed[::2], half, value=-1.0).sub_(seen)
    own = symmetric_outer_sums(mean.double(), back.double(), ROWS)
    own += whole(x.sum(-2, keepdim=True, dtype=torch.float64))
    vectors = torch.sub(a, weighted, out=weighted)
    return back, potential, own, vectors.sum(ROWS, keepdim=True, dtype=torch.float64)


def _coupling(
    v: Tensor,
    gain: Tensor,
    smoothed: Tensor,
    x: Tensor,
    z: Tensor,
    y: Tensor,
    e: Tensor,
    mean: Tensor,
    ahead: Tensor,
    back: Tensor,
    back_ahead: Tensor,
) -> tuple[Tensor]:
    """Half of the adjoint of -B by every step, all patterns; e, S and X are those of the next.

    In float64, as ``_mean_gradients``.
    """
    v, gain, smoothed, x, z, y, e = (part.double() for part in (v, gain, smoothed, x, z, y, e))
    mean, ahead, back, back_ahead = (part.double() for part in (mean, ahead, back, back_ahead))
    inner = times_matrix(whole(z), times_matrix(gain, whole(smoothed)))
    inner.add_(outer_sums(y, e, _shared_rows(v)), alpha=0.5)
    turned = times_matrix(whole(v), inner).sub_(times_matrix(gain, whole(x)))
    moves = outer_sums(ahead, back, ROWS).add_(outer_sums(back_ahead, mean, ROWS))
    own = turned.sum(-2, keepdim=True).transpose(0, 1)
    return (torch.sub(0.5 * moves, own),)


def _sums(blocks: Tensor, coupling: Tensor | None, vectors: Tensor, constant: float) -> Sums:
    """Adjoints of the prior from those of every step, summed over series."""
    own, pulls = (
        [_on_host(part) for part in (steps(x, 0, 1), steps(x, -1), x)] for x in (blocks, vectors)
    )
    crossed = own[0] * 0.0 if coupling is None else _on_host(coupling)
    first, last, every = own
    return Sums(
        first,
        every - first,
        every - last,
        crossed,
        pulls[0],
        pulls[2] - pulls[0],
        pulls[2] - pulls[1],
        constant,
    )


def _on_host(planes: Tensor) -> Array:
    """``(K, ..., T, 1, 1, G)`` summed over time: ``(G, K, ...)``."""
    found: Array = np.moveaxis(to_host(planes.sum((-4, -3, -2))), -1, 0)
    return found
