r"""Draws and divergence of short chains, with the whole derivation written down.

What training on the evidence lower bound asks of a chain is one joint draw of its states and
:math:`KL(q(z) \| p(z))`. With all its states as one vector of length n = T K, the expected log
density of the prior is :math:`\kappa + c'z - \tfrac12 z'H_0z` (H_0 block-tridiagonal, excess of
expected parameters included), and with the potentials' h and :math:`\Lambda`

.. math::
    H = H_0 + \Lambda = LL', \quad S = H^{-1}, \quad m = S(c + h), \quad
    z = m + L^{-T}\epsilon, \\
    KL = \tfrac12 m'(u - c) + \tfrac12\log|H| - \tfrac12 tr(\Lambda S) - \kappa,
    \qquad u = h - \Lambda m .

**Gradients.** With the adjoints g of z and w of KL, v = S u, q = S g and
:math:`a = L^{-1}g`,

.. math::
    \bar h = q + wv, \quad \bar c = \bar h - wm, \quad
    \bar H_0 = sym\bigl(m(w(\tfrac12 m - v) - q)' - L^{-T}tril_{1/2}(\epsilon a')L^{-1}\bigr)
    + \tfrac w2(S + S\Lambda S), \\
    \bar\Lambda = \bar H_0 - \tfrac w2(S + mm'), \quad \bar\kappa = -w,

where :math:`tril_{1/2}` is the lower triangle with half of the diagonal. All of it runs on the
host, on matrices so small that calls, not arithmetic, make the price.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.host_prior import HostPrior, Sums, flat, host_prior, prior_gradients
from tsvae.lds.joint_prior import COVARIANCES_PRECISION
from tsvae.lds.linalg import safe_cholesky
from tsvae.lds.natural_factor import Array, array_of, half_lower, inverse_of_lower, to_device
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.short_pass import step_blocks
from tsvae.lds.stepping import products

# Beyond so many numbers T K, or so many matrices G * P, steps in turn are cheaper.
LONGEST_CHAIN = 64
MOST_CHAINS = 128
_WIDE = np.dtype(np.float64)


def draw_short_chains(
    params: LDSParameters, linear: Tensor, precision: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Joint draws of the states and local KL of complete chains without inputs; differentiable.

    Parameters
    ----------
    params : LDSParameters
        Plug-in or expected ones.
    linear : Tensor (B, T, D)
        h.
    precision : Tensor (1 or B, T, D)
        Diagonal of Lambda.
    noise : Tensor (S, B, T, D)
        Standard normal numbers.

    Returns
    -------
    draws : Tensor (S, B, T, D)
    local_kl : Tensor (B,)
        As that of ``tsvae.lds.local_kl``.
    """
    drawn: tuple[Tensor, Tensor] = _Draw.apply(  # type: ignore[no-untyped-call]
        linear, precision, noise, *flat(params)
    )
    return drawn


def _rows_in(values: Tensor, n_patterns: int, size: int, dtype: np.dtype[Any]) -> Array:
    """``(S, B, T, D)`` -> ``(G P, R S, T K)`` of the dtype, B = P R."""
    n_samples, n_series, steps, dim = values.shape
    split = array_of(values).reshape(n_samples, n_patterns, -1, steps, dim // size, size)
    moved = np.array(split.transpose(4, 1, 2, 0, 3, 5), dtype=dtype, order="C")
    return moved.reshape(-1, n_series // n_patterns * n_samples, steps * size)


def _rows_out(rows: Array, shape: tuple[int, ...], n_patterns: int, like: Tensor) -> Tensor:
    """Inverse of ``_rows_in``, to ``shape`` (S, B, T, D), with the type of ``like``."""
    n_samples, n_series, steps = shape[:3]
    groups = len(rows) // n_patterns
    split = rows.reshape(groups, n_patterns, n_series // n_patterns, n_samples, steps, -1)
    return to_device(split.transpose(3, 1, 2, 4, 0, 5), like).view(shape)


def _by_series(values: Tensor, groups: int, n_patterns: int, dtype: np.dtype[Any]) -> Array:
    """``(B,)`` -> ``(G P, R, 1)``."""
    split = array_of(values).astype(dtype).reshape(n_patterns, -1, 1)
    return split if groups == 1 else np.tile(split, (groups, 1, 1))


class _Draw(torch.autograd.Function):
    @staticmethod
    @np.errstate(all="ignore")  # as PyTorch: what is not finite shows in the objective
    def forward(
        ctx: Any, linear: Tensor, precision: Tensor, noise: Tensor, *params: Tensor
    ) -> tuple[Tensor, Tensor]:
        n_patterns, steps, _ = precision.shape
        prior = host_prior(list(params), steps)
        groups, size = prior.start.shape
        h = _rows_in(linear[None], n_patterns, size, _WIDE)
        weight = _rows_in(precision[None], n_patterns, size, _WIDE)
        epsilon = _rows_in(noise, n_patterns, size, _WIDE)
        root = _inverse_root(prior, weight, n_patterns)
        c = _prior_linear(prior, steps, n_patterns)
        n_samples, rows = noise.shape[0], h.shape[1]
        whitened = products(h + c, root.swapaxes(1, 2))
        both = products(np.concatenate((whitened, epsilon), axis=1), root)
        mean, states = both[:, :rows], both[:, rows:]
        states = states.reshape(len(h), rows, n_samples, -1) + mean[:, :, None]
        u = h - mean * weight
        logs = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1, keepdims=True)
        # What follows has no differences: the precision of the states is enough, as a rule.
        if prior.precision <= COVARIANCES_PRECISION and linear.dtype != torch.float64:
            root = root.astype(np.float32)
        diagonal = (root * root).sum(1, keepdims=True)  # of S
        kl = 0.5 * ((mean * (u - c)).sum(2) - (weight * diagonal).sum(2)) - logs
        kl = kl.reshape(groups, -1).sum(0) - prior.constant
        ctx.kept = _Kept(prior, weight, epsilon, root, diagonal, mean, u)
        ctx.shapes = linear.shape, precision.shape
        ctx.likes = linear.detach(), params[0].detach()
        ctx.set_materialize_grads(False)
        return _rows_out(states, noise.shape, n_patterns, linear), to_device(kl, linear)

    @staticmethod
    @once_differentiable
    @np.errstate(all="ignore")
    def backward(
        ctx: Any, grad_draws: Tensor | None, grad_kl: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        prior, *kept = ctx.kept
        root, dtype = kept[2], kept[2].dtype
        weight, epsilon, _, spread, mean, u = (part.astype(dtype, copy=False) for part in kept)
        n_patterns, steps, _ = ctx.shapes[1]
        (groups, size), rows = prior.start.shape, mean.shape[1]
        w = np.zeros((len(mean), rows, 1), dtype)
        if grad_kl is not None:
            w = _by_series(grad_kl, groups, n_patterns, dtype)
        half = 0.5 * w.sum(1, keepdims=True)
        # Adjoint of H_0 as L^-T inner L^-1 and means' part, not yet symmetric.
        inner = products(root * (half * weight), root.swapaxes(1, 2))
        inner.reshape(len(inner), -1)[:, :: steps * size + 1] += half[:, 0]
        pulled = w * u
        if grad_draws is not None:
            g = _rows_in(grad_draws, n_patterns, size, dtype)
            pulled += g.reshape(len(g), rows, -1, steps * size).sum(2)
            noisy = products(epsilon.swapaxes(1, 2), products(g, root.swapaxes(1, 2)))
            noisy *= half_lower(steps * size, dtype.type)
            inner -= noisy
        own = products(products(pulled, root.swapaxes(1, 2)), root)
        back = 0.5 * w * mean - own
        matrices = products(products(root.swapaxes(1, 2), inner), root)
        matrices += products(mean.swapaxes(1, 2), back)
        own_diagonal = np.diagonal(matrices, axis1=1, axis2=2)[:, None]
        potential = own_diagonal - half * spread - 0.5 * (w * (mean * mean)).sum(1, keepdims=True)
        sums = Sums(
            *_block_sums(matrices, groups, steps),
            *_vector_sums(own - w * mean, groups, steps),
            0.0 if grad_kl is None else -float(array_of(grad_kl).sum(dtype=float)),
        )
        grads = prior_gradients(prior, sums, steps)
        like, given_like = ctx.likes
        return (
            _rows_out(own, (1, *ctx.shapes[0]), n_patterns, like)[0],
            _rows_out(potential, (1, *ctx.shapes[1]), n_patterns, like)[0],
            None,
            *(to_device(grad, given_like) for grad in grads),
        )


class _Kept(NamedTuple):
    """What the gradients see."""

    prior: HostPrior
    weight: Array
    epsilon: Array
    root: Array
    spread: Array
    mean: Array
    u: Array


def _prior_linear(prior: HostPrior, steps: int, n_patterns: int) -> Array:
    """Linear part c of the log prior, ``(G P, 1, T K)``."""
    groups, size = prior.start.shape
    c = np.empty((groups, steps, size))
    c[:] = (prior.drift - prior.behind)[:, None]
    c[:, 0] = prior.start - prior.behind
    c[:, -1] = prior.drift if steps > 1 else prior.start
    if n_patterns > 1:
        c = np.repeat(c, n_patterns, axis=0)
    return c.reshape(groups * n_patterns, 1, -1)


def _inverse_root(prior: HostPrior, weight: Array, n_patterns: int) -> Array:
    """Inverse of the Cholesky factor of ``H (G P, n, n)``."""
    root = _banded_root(prior, weight, n_patterns)
    if root is None:
        root = _dense_root(prior, torch.from_numpy(weight), n_patterns).numpy()
    return inverse_of_lower(root)


def _banded_root(prior: HostPrior, weight: Array, n_patterns: int) -> Array | None:
    """Cholesky factor of H; None for larger groups, and if it fails.

    One band holds all chains one after the other: LAPACK does with 2 K entries of a column what
    takes it several times as long with all of them.
    """
    (groups, size), count = prior.start.shape, weight.shape[2]
    steps = count // size
    if size > 2:
        return None
    # Entry (t, k, d) lies d below the diagonal in the column of coordinate k of step t.
    band = np.zeros((groups, steps, size, 2 * size))
    for k in range(size):
        inner, beyond = slice(0, size - k), slice(size - k, 2 * size - k)
        band[:, :, k, inner] = (prior.arriving + prior.leaving)[:, None, k:, k]
        band[:, 0, k, inner] = (prior.initial + prior.leaving)[:, k:, k]
        last = prior.arriving if steps > 1 else prior.initial
        band[:, -1, k, inner] = last[:, k:, k]
        band[:, :-1, k, beyond] = -prior.coupling[:, None, :, k]
    if n_patterns > 1:
        band = np.repeat(band, n_patterns, axis=0)
    band = band.reshape(-1, 2 * size)
    band[:, 0] += weight.reshape(-1)
    factor, failed = lapack.dpbtrf(band.T, lower=1, overwrite_ab=1)
    if failed:
        return None
    columns = factor.reshape(2 * size, -1, count)
    root = np.zeros((columns.shape[1], count, count))
    flat = root.reshape(len(root), -1)
    for below in range(min(2 * size, count)):
        # Entries of a diagonal are one row and one column apart.
        flat[:, below * count :: count + 1] = columns[below, :, : count - below]
    return root


def _dense_root(prior: HostPrior, weight: Tensor, n_patterns: int) -> Tensor:
    """Cholesky factor of H, whatever its groups."""
    (groups, size), count = prior.start.shape, weight.shape[2]
    steps = count // size
    own = np.empty((groups, size, size, steps))
    own[:] = (prior.arriving + prior.leaving)[..., None]
    own[..., 0] = prior.initial + prior.leaving
    own[..., -1] = prior.arriving if steps > 1 else prior.initial
    h = weight.new_zeros(groups, count, count)
    step_blocks(h, steps).copy_(torch.from_numpy(own))
    step_blocks(h, steps, -1).copy_(torch.from_numpy(-prior.coupling[..., None]))
    h = h.repeat_interleave(n_patterns, dim=0) if n_patterns > 1 else h
    h.diagonal(dim1=-2, dim2=-1).add_(weight.squeeze(1))
    root, failed = torch.linalg.cholesky_ex(h)
    if bool(failed.any()):
        root = safe_cholesky(h + h.tril(-1).mT)
    return root


@lru_cache(maxsize=32)
def _near_diagonal(steps: int, size: int) -> tuple[Array, Array]:
    """Flat positions of the blocks of steps ``(K, K, T)`` and of neighbours ``(K, K, 2 (T - 1))``.

    Blocks above the diagonal are read transposed.
    """
    whole = np.arange((steps * size) ** 2).reshape(steps, size, steps, size)
    at = np.arange(steps)
    below, above = whole[at[1:], :, at[:-1]], whole[at[:-1], :, at[1:]].swapaxes(1, 2)
    own, beside = whole[at, :, at], np.concatenate((below, above))
    return np.moveaxis(own, 0, -1).copy(), np.moveaxis(beside, 0, -1).copy()


def _block_sums(matrices: Array, groups: int, steps: int) -> tuple[Array, Array, Array, Array]:
    """Sum blocks of ``sym(matrices)`` over patterns, and over steps as ``Sums`` says."""
    size = matrices.shape[-1] // steps
    host = matrices.reshape(len(matrices), -1)
    own, beside = (
        host.take(at, axis=1).reshape(groups, len(host) // groups, *at.shape)
        for at in _near_diagonal(steps, size)
    )
    ends = (own[..., at].sum(1, dtype=float) for at in (0, -1))
    sums = np.stack((*ends, own.sum((1, -1), dtype=float)))
    first, last, every = 0.5 * (sums + sums.swapaxes(2, 3))
    return first, every - first, every - last, 0.5 * beside.sum((1, -1), dtype=float)


def _vector_sums(rows: Array, groups: int, steps: int) -> tuple[Array, Array, Array]:
    """Sum rows ``(G P, R, T K)`` over rows and patterns, and over steps as ``Sums`` says."""
    by_pattern = rows.sum(1, dtype=float)
    host = by_pattern.reshape(groups, -1, steps, rows.shape[-1] // steps).sum(1)
    every = host.sum(1)
    return host[:, 0], every - host[:, 0], every - host[:, -1]
