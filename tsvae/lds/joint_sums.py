"""Gradients of draws of larger groups by the prior: sums of outer products, on the host.

``joint_draws`` derives them; ``host_draws`` takes the same.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tsvae.lds.host_prior import HostPrior
from tsvae.lds.joint_means import Noise
from tsvae.lds.natural_factor import Array, half_lower, inverse_of_lower, to_host


def per_group(values: Tensor, groups: int) -> Array:
    """``(G P, ...)`` summed over patterns, on the host."""
    return to_host(values).reshape(groups, -1, *values.shape[1:]).sum(1)


def outer(left: Tensor, right: Tensor, groups: int) -> Array:
    """Sum of outer products of rows ``(T, G P, R, K)``, ``(G, K, K)`` on the host."""
    if groups == 1:
        return to_host(left.flatten(0, 2).mT @ right.flatten(0, 2))[None]
    one, two = (x.unflatten(1, (groups, -1)).transpose(0, 1).flatten(1, 3) for x in (left, right))
    return to_host(one.mT @ two)


class OwnSums(NamedTuple):
    """Adjoints of the blocks H_tt that covariances have, ``(G, K, K)``: at the ends, and summed."""

    first: Array
    last: Array
    every: Array


def matrix_sums(
    states: Tensor, back: Tensor, own: OwnSums, crossed: Array, groups: int
) -> tuple[Array, Array, Array, Array]:
    """Matrices of ``Sums``, from rows ``(T, G P, R, K)``."""
    first, last = (outer(states[at], back[at], groups) for at in (slice(1), slice(-1, None)))
    every = outer(states, back, groups)
    moves = outer(states[1:], back[:-1], groups) + outer(back[1:], states[:-1], groups)
    first, last, every = (0.5 * (x + x.swapaxes(1, 2)) for x in (first, last, every))
    first, last, every = first + own.first, last + own.last, every + own.every
    return first, every - first, every - last, crossed + 0.5 * moves


def vector_sums(values: Tensor, groups: int) -> tuple[Array, Array, Array]:
    """Vectors of ``Sums``, from rows ``(T, G P, R, K)``."""
    rows = values.sum(2)
    first, last, every = (per_group(x, groups) for x in (rows[0], rows[-1], rows.sum(0)))
    return first, every - first, every - last


def add_noise(grads: list[Array], prior: HostPrior, noise: Noise, q: Tensor) -> None:
    """Add what goes back through the roots that noise is multiplied by."""
    groups, a = prior.start.shape[0], prior.given.transition_matrix
    moves = noise.transition
    at_start = outer(moves[:1], q[:1], groups)
    ahead, behind = outer(moves[1:], q[1:], groups), outer(moves[1:], q[:-1], groups)
    initial, arriving = prior.roots
    grads[1] += _by_inverse_root(at_start, initial)
    grads[2] -= arriving.swapaxes(1, 2) @ behind
    grads[3] += _by_inverse_root(ahead - behind @ a.swapaxes(1, 2), arriving)
    if noise.excess is None:
        return
    root, size = prior.excess_root, a.shape[-1]
    inverse = inverse_of_lower(root)
    inner = root.swapaxes(1, 2) @ outer(q[:-1], noise.excess[:-1], groups) * half_lower(size)
    found = inverse.swapaxes(1, 2) @ inner @ inverse
    grads[5][:, :size, :size] += 0.5 * (found + found.swapaxes(1, 2))


def _by_inverse_root(grad: Array, root: Array) -> Array:
    """Gradient by a covariance, from that by the inverse of its factor: ``_InverseRoot``."""
    inner = grad @ root.swapaxes(1, 2) * half_lower(root.shape[-1])
    pulled = root.swapaxes(1, 2) @ inner @ root
    found: Array = -0.5 * (pulled + pulled.swapaxes(1, 2))
    return found
