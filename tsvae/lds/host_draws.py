r"""Draws and divergence of one chain of a larger group that all series share, on the host.

``joint_draws`` says what is worked out, and ``host_recursions`` has the covariances. Rows are those
of all series, and of their perturbed data for every draw.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.host_prior import HostPrior, Sums, prior_gradients
from tsvae.lds.host_recursions import (
    HostElimination,
    HostSmoothing,
    PivotAdjoint,
    adjoint_on_host,
    eliminate_on_host,
    smooth_on_host,
    walk,
)
from tsvae.lds.joint_means import Noise
from tsvae.lds.joint_prior import COVARIANCES_PRECISION, SUMS_PRECISION
from tsvae.lds.joint_sums import OwnSums, add_noise, matrix_sums
from tsvae.lds.natural_factor import Array, to_device
from tsvae.lds.stepping import LARGEST_ON_HOST

# Beyond so many steps lists of them cost more than calls.
MOST_STEPS = 2000


def draw_on_host(
    prior: HostPrior,
    path: Tensor | None,
    noise: Noise,
    linear: Tensor,
    precision: Tensor,
    parts: list[Tensor],
) -> tuple[Tensor, Tensor] | None:
    """Draws and local KL as those of ``joint_draws``; differentiable.

    Parameters
    ----------
    prior : HostPrior
        Of one group.
    path : Tensor (T, 1, 1, K) or None
        Mean path of the prior; None for zero.
    noise : Noise
        Rows ``(T, 1, B * S, K)``.
    linear : Tensor (B, T, K)
    precision : Tensor (1, T, K)
    parts : list of Tensor
        Parameters in the order of ``HostParameters``.

    Returns
    -------
    draws : Tensor (S, B, T, K)
    local_kl : Tensor (B,)

    None instead if a factor fails, or chains are so long, or rows so many, that others are cheaper.
    """
    rows = linear.shape[0] + noise.transition.shape[2]
    if linear.shape[1] > MOST_STEPS or rows * linear.shape[2] ** 2 > LARGEST_ON_HOST**3:
        return None
    potential = precision.detach().numpy()[0]
    with np.errstate(all="ignore"):
        chain = eliminate_on_host(prior, potential)
    if chain is None:
        return None
    means = None if path is None else path.numpy()[:, 0]
    task = _Task(prior, chain, noise, means)
    drawn: tuple[Tensor, Tensor] = _Draw.apply(  # type: ignore[no-untyped-call]
        task, linear, precision, *parts
    )
    return drawn


class _Task(NamedTuple):
    """Constants of a call."""

    prior: HostPrior
    chain: HostElimination
    noise: Noise
    path: Array | None  # (T, 1, K)


class _Kept(NamedTuple):
    """What the gradients see: rows ``(T, R, K)``."""

    smoothing: HostSmoothing
    potential: Array  # (T, K)
    states: Array
    u: Array


class _Pull:
    """What the excess adds to the information about rows of states: ``f (s - W z)``."""

    def __init__(self, prior: HostPrior, dtype: np.dtype[Any]) -> None:
        excess, size = prior.given.excess, prior.start.shape[1]
        self.there = excess is not None
        if excess is not None:
            self.weight = excess[0, :size, :size].astype(dtype)
            self.shift = -excess[0, :size, size].astype(dtype)

    def __call__(self, states: Array) -> Array:
        pulled = np.zeros_like(states)
        if self.there:
            np.subtract(self.shift, states[:-1] @ self.weight, out=pulled[:-1])
        return pulled

    def work(self, states: Array) -> Array | float:
        """``f s'z`` for rows ``(T, R, K)``: ``(R,)``."""
        return states[:-1].sum(0) @ self.shift if self.there else 0.0


class _Draw(torch.autograd.Function):
    @staticmethod
    @np.errstate(all="ignore")  # as PyTorch: what is not finite shows in the objective
    def forward(
        ctx: Any, task: _Task, linear: Tensor, precision: Tensor, *params: Tensor
    ) -> tuple[Tensor, Tensor]:
        prior, chain, noise, path = task
        h = np.ascontiguousarray(linear.detach().numpy().transpose(1, 0, 2))
        potential, rows = precision.detach().numpy()[0], h.shape[1]
        weight, pull = potential[:, None], _Pull(prior, h.dtype)
        smoothing = smooth_on_host(chain)
        start = np.zeros_like(h[:, :1]) if path is None else path
        free = h + (pull(start) - weight * start)
        moved = _perturbation(prior, noise, weight)
        n_samples = moved.shape[1] // rows
        moved += free if n_samples == 1 else np.repeat(free, n_samples, axis=1)
        solved = _substitute(chain, np.concatenate((free, moved), axis=1))
        states = solved if path is None else solved + path
        mean = states[:, :rows]
        u = h - weight * mean
        pulled = pull(mean)
        energy = (solved[:, :rows] * (u + pulled) - mean * pulled).sum((0, 2), dtype=float)
        energy -= pull.work(mean)
        diagonals = smoothing.smoothed.diagonals()
        own = chain.log_det - float((potential * diagonals).sum(dtype=float))
        kl = 0.5 * (energy + own) - prior.normalizer
        draws = states[:, rows:].reshape(len(h), rows, n_samples, -1).transpose(2, 1, 0, 3)
        ctx.task, ctx.like = task, params[0].detach()
        ctx.kept = _Kept(smoothing, potential, states, u)
        ctx.set_materialize_grads(False)
        return to_device(draws, linear), to_device(kl, linear)

    @staticmethod
    @once_differentiable
    @np.errstate(all="ignore")
    def backward(
        ctx: Any, grad_draws: Tensor | None, grad_kl: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        prior, chain, noise, _ = ctx.task
        smoothing, potential, states, u = ctx.kept
        (steps, rows, size), dtype = u.shape, u.dtype
        w = np.zeros(rows, dtype) if grad_kl is None else grad_kl.numpy().astype(dtype)
        g = np.zeros_like(states[:, rows:])
        if grad_draws is not None:
            g = grad_draws.numpy().transpose(2, 1, 0, 3).reshape(g.shape)
        w = w[:, None]
        solved = _substitute(chain, np.concatenate((w * u, g), axis=1))
        v, q = solved[:, :rows], solved[:, rows:]  # v is w times that of ``joint_draws``
        weighted = w * states[:, :rows]
        back = np.concatenate((0.5 * weighted - v, -q), axis=1)
        linear = v + q.reshape(steps, rows, -1, size).sum(2)
        half = 0.5 * float(w.sum())
        adjoint, coupling = _covariance_adjoints(prior, chain, smoothing, half, potential)
        moved = (q * noise.potential.numpy()[:, 0]).sum(1)
        given = (
            (states * back).sum(1)
            + adjoint.diagonals()
            - half * smoothing.smoothed.diagonals()
            - 0.5 * (weighted * states[:, :rows]).sum(1)
            + _by_root(potential, moved)
        )
        ends = (adjoint.values[adjoint.at[0]], adjoint.values[adjoint.at[-1]], adjoint.total())
        own = OwnSums(*(side.astype(float)[None] for side in ends))
        turned = -0.5 * coupling.astype(float)[None]
        rest = linear - weighted
        if prior.precision > SUMS_PRECISION:
            states, back = states.astype(float), back.astype(float)
        matrices = matrix_sums(_rows(states), _rows(back), own, turned, 1)
        sums = Sums(*matrices, *_vector_sums(rest), -2.0 * half)
        grads = prior_gradients(prior, sums, steps)
        add_noise(grads, prior, noise, _rows(q))
        like = torch.from_numpy(u)
        return (
            None,
            to_device(linear.transpose(1, 0, 2), like),
            to_device(given[None], like),
            *(to_device(grad, ctx.like) for grad in grads),
        )


def _rows(values: Array) -> Tensor:
    """Rows ``(T, R, K)`` as those of tensors, ``(T, 1, R, K)``."""
    return torch.from_numpy(values).unsqueeze(1)


def _substitute(chain: HostElimination, right: Array) -> Array:
    """Solve ``H x = right`` for rows ``(T, R, K)``, in the memory of ``right``."""
    conditional, at = chain.conditional
    # Row vectors: G'y is y @ G, and G d is d @ G'.
    walk(right, chain.gain, at[:-1])
    solved: Array = right @ conditional[at]
    walk(solved[::-1], chain.gain.swapaxes(1, 2), at[:-1][::-1])
    return solved


def _perturbation(prior: HostPrior, noise: Noise, weight: Array) -> Array:
    """Draw from N(0, H): rows ``(T, R, K)``."""
    moves, dtype = noise.transition.numpy()[:, 0], weight.dtype
    initial, arriving = (root[0].astype(dtype) for root in prior.roots)
    turned = (prior.roots[1, 0] @ prior.given.transition_matrix[0]).astype(dtype)
    total: Array = noise.potential.numpy()[:, 0] * np.sqrt(weight)
    total[0] += moves[0] @ initial
    total[1:] += moves[1:] @ arriving
    total[:-1] -= moves[1:] @ turned
    if noise.excess is not None:
        total[:-1] += noise.excess.numpy()[:-1, 0] @ prior.excess_root[0].T.astype(dtype)
    return total


def _covariance_adjoints(
    prior: HostPrior,
    chain: HostElimination,
    smoothing: HostSmoothing,
    half: float,
    potential: Array,
) -> PivotAdjoint:
    if prior.precision > COVARIANCES_PRECISION:
        wide = np.dtype(np.float64)
        chain, smoothing, potential = chain.to(wide), smoothing.to(wide), potential.astype(wide)
    return adjoint_on_host(chain, smoothing, half, potential)


def _by_root(potential: Array, grad: Array) -> Array:
    """Gradient by a precision, from that by its root; zero at zero."""
    found = np.zeros_like(grad)
    return np.divide(0.5 * grad, np.sqrt(potential), out=found, where=potential > 0)


def _vector_sums(rows: Array) -> tuple[Array, Array, Array]:
    """Vectors of ``Sums``, from rows ``(T, R, K)``."""
    by_step = rows.sum(1, dtype=float)
    first, last, every = by_step[0], by_step[-1], by_step.sum(0)
    return first[None], (every - first)[None], (every - last)[None]
