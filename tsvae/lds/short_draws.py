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

where :math:`tril_{1/2}` is the lower triangle with half of the diagonal. All of it runs in
float64 on matrices so small that calls, not arithmetic, make the price.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.linalg import safe_cholesky, symmetrize
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.short_pass import step_blocks

# Beyond so many numbers T K, or so many matrices G * P, steps in turn are cheaper.
LONGEST_CHAIN = 64
MOST_CHAINS = 128


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
    excess = (None, None, None) if params.excess is None else params.excess
    drawn: tuple[Tensor, Tensor] = _Draw.apply(  # type: ignore[no-untyped-call]
        linear,
        precision,
        noise,
        params.initial_mean,
        params.initial_covariance,
        params.transition_matrix,
        params.noise_covariance,
        params.bias,
        *excess,
    )
    return drawn


class _Given(NamedTuple):
    """Parameters in float64; the last three None for plug-in ones."""

    initial_mean: Tensor
    initial_covariance: Tensor
    transition_matrix: Tensor
    noise_covariance: Tensor
    bias: Tensor
    excess: Tensor | None
    transition_constant: Tensor | None
    initial_constant: Tensor | None


@lru_cache(maxsize=32)
def _moves(n_steps: int, device: torch.device) -> Tensor:
    """Tell at which steps Sigma_0^-1, Q^-1 and A'Q^-1A + W are in H_0: ``(T, 3)`` in float64."""
    first = torch.zeros(n_steps, dtype=torch.float64)
    first[0] = 1.0
    followed = torch.ones_like(first)
    followed[-1] = 0.0
    return torch.stack((first, 1.0 - first, followed), dim=1).to(device)


@lru_cache(maxsize=32)
def _half_lower(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Ones below the diagonal, halves on it."""
    ones = torch.ones(size, size, dtype=dtype, device=device)
    return 0.5 * (ones.tril() + ones.tril(-1))


class _Prior(NamedTuple):
    """Small matrices of the prior per group, float64.

    Attributes
    ----------
    initial, arriving, coupling : Tensor (G, K, K)
        Sigma_0^-1, J = Q^-1 and J A.
    drift : Tensor (G, K)
        J b.
    own : Tensor (3, G, K, K)
        Blocks on the diagonal of H_0, as in ``_moves``.
    steps : Tensor (3, G, K)
        Vectors of c, likewise.
    constant : Tensor ()
        kappa, summed over groups.
    """

    initial: Tensor
    arriving: Tensor
    coupling: Tensor
    drift: Tensor
    own: Tensor
    steps: Tensor
    constant: Tensor


def _prior(given: _Given, n_steps: int) -> _Prior:
    covariances = torch.stack((given.initial_covariance, given.noise_covariance))
    root, failed = torch.linalg.cholesky_ex(covariances)
    if bool(failed.any()):
        root = safe_cholesky(covariances)
    initial, arriving = torch.cholesky_inverse(root).unbind(0)
    half_logs = root.diagonal(dim1=-2, dim2=-1).log().sum((1, 2))
    a, size = given.transition_matrix, given.bias.shape[-1]
    coupling = arriving @ a
    leaving = a.mT @ coupling
    mean = given.initial_mean
    start = (initial @ mean.unsqueeze(-1)).squeeze(-1)
    drift = (arriving @ given.bias.unsqueeze(-1)).squeeze(-1)
    behind = (a.mT @ drift.unsqueeze(-1)).squeeze(-1)
    first = -0.5 * (mean * start).sum() - half_logs[0]
    later = -0.5 * (given.bias * drift).sum() - half_logs[1]
    if given.excess is not None:
        leaving = leaving + given.excess[:, :size, :size]
        behind = behind + given.excess[:, :size, size]
        assert given.transition_constant is not None and given.initial_constant is not None
        first = first + given.initial_constant.sum()
        later = later + given.transition_constant.sum() - 0.5 * given.excess[:, size, size].sum()
    return _Prior(
        initial,
        arriving,
        coupling,
        drift,
        torch.stack((initial, arriving, leaving)),
        torch.stack((start, drift, -behind)),
        first + (n_steps - 1) * later,
    )


def _rows_in(values: Tensor, n_patterns: int, size: int, dtype: torch.dtype) -> Tensor:
    """``(S, B, T, D)`` -> ``(G P, R S, T K)`` of the dtype, B = P R."""
    n_samples, n_series, steps, dim = values.shape
    split = values.reshape(n_samples, n_patterns, -1, steps, dim // size, size)
    moved = split.permute(4, 1, 2, 0, 3, 5)
    rows = torch.empty(moved.shape, dtype=dtype, device=values.device).copy_(moved)
    return rows.view(-1, n_series // n_patterns * n_samples, steps * size)


def _rows_out(rows: Tensor, shape: tuple[int, ...], n_patterns: int, dtype: torch.dtype) -> Tensor:
    """Inverse of ``_rows_in``, to ``shape`` (S, B, T, D)."""
    n_samples, n_series, steps = shape[:3]
    groups = rows.shape[0] // n_patterns
    split = rows.view(groups, n_patterns, n_series // n_patterns, n_samples, steps, -1)
    moved = split.permute(3, 1, 2, 4, 0, 5)
    return torch.empty(moved.shape, dtype=dtype, device=rows.device).copy_(moved).view(shape)


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, linear: Tensor, precision: Tensor, noise: Tensor, *params: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        given = _Given(*(None if x is None else x.double() for x in params))  # type: ignore[arg-type]
        n_patterns, steps, _ = precision.shape
        groups, size = given.bias.shape
        moves = _moves(steps, linear.device)
        prior = _prior(given, steps)
        h = _rows_in(linear[None], n_patterns, size, torch.float64)
        weight = _rows_in(precision[None], n_patterns, size, torch.float64)
        epsilon = _rows_in(noise, n_patterns, size, torch.float64)
        root_inverse = _inverse_root(prior, weight, n_patterns)
        vectors = moves @ prior.steps.flatten(1)
        c = (
            vectors.view(steps, groups, size)
            .transpose(0, 1)
            .reshape(groups, 1, -1)
            .repeat_interleave(n_patterns, dim=0)
        )
        n_samples, rows = noise.shape[0], h.shape[1]
        whitened = torch.bmm(h + c, root_inverse.mT)
        both = torch.bmm(torch.cat((whitened, epsilon), dim=1), root_inverse)
        mean, states = both.split([rows, rows * n_samples], dim=1)
        states = states.unflatten(1, (rows, n_samples)) + mean.unsqueeze(2)
        u = torch.addcmul(h, mean, weight, value=-1.0)
        # What follows has no differences: the precision of the states is enough.
        root = root_inverse.to(linear.dtype)
        total = torch.bmm(root.mT, root)
        diagonal = total.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
        logs = root_inverse.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        kl = 0.5 * ((mean * (u - c)).sum(-1) - (weight * diagonal).sum(-1)) - logs
        kl = kl.view(groups, -1).sum(0) - prior.constant
        ctx.save_for_backward(weight, epsilon, root, total, mean, u, *prior[:4], *given[:-2])
        ctx.shapes = linear.shape, precision.shape
        ctx.dtypes = [None if x is None else x.dtype for x in params]
        ctx.set_materialize_grads(False)
        return _rows_out(states, noise.shape, n_patterns, linear.dtype), kl.to(linear.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_draws: Tensor | None, grad_kl: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        weight, epsilon, root, total, mean, u, *small = ctx.saved_tensors
        dtype, (n_series, steps, _), n_patterns = root.dtype, ctx.shapes[0], ctx.shapes[1][0]
        (groups, size), rows = small[0].shape[:2], mean.shape[1]
        weight, epsilon, mean, u = (x.to(dtype) for x in (weight, epsilon, mean, u))
        w = weight.new_zeros(n_series) if grad_kl is None else grad_kl.to(dtype)
        w = w.view(1, n_patterns, rows).expand(groups, -1, -1).reshape(-1, rows, 1)
        half = 0.5 * w.sum(1, keepdim=True)
        matrices = torch.bmm(total * (half * weight), total)
        back, own = 0.5 * mean, u
        if grad_draws is None:
            own = w * torch.bmm(own, total)
            back = w * back - own
        else:
            g = _rows_in(grad_draws, n_patterns, size, dtype)
            inner = torch.bmm(epsilon.mT, torch.bmm(g, root.mT)).mul_(
                _half_lower(steps * size, dtype, root.device)
            )
            matrices = torch.baddbmm(matrices, torch.bmm(root.mT, inner), root, alpha=-1.0)
            own = torch.bmm(w * u + g.unflatten(1, (rows, -1)).sum(2), total)
            back = w * back - own
        # Adjoint of H_0, not yet symmetric.
        matrices = torch.baddbmm(matrices, mean.mT, back).addcmul_(half, total)
        own_diagonal, spread = (
            x.diagonal(dim1=-2, dim2=-1).unsqueeze(1) for x in (matrices, total)
        )
        potential = own_diagonal - half * spread - 0.5 * (w * mean.square()).sum(1, keepdim=True)
        blocks = _block_sums(matrices, (groups, steps, size))
        sums = _Sums(*blocks, _step_sums((own - w * mean).sum(1), (groups, steps, size)))
        constant = -w.view(groups, -1)[0].double().sum()
        grads = _prior_gradients(sums, constant, small, steps)
        given = [None if x is None else x.to(t) for x, t in zip(grads, ctx.dtypes, strict=True)]
        return (
            _rows_out(own, (1, *ctx.shapes[0]), n_patterns, dtype)[0],
            _rows_out(potential, (1, *ctx.shapes[1]), n_patterns, dtype)[0],
            None,
            *given,
        )


def _inverse_root(prior: _Prior, weight: Tensor, n_patterns: int) -> Tensor:
    """Inverse of the Cholesky factor of ``H (G P, n, n)``."""
    groups, size, _ = prior.initial.shape
    count = weight.shape[2]
    steps = count // size
    h = weight.new_zeros(groups, count, count)
    own = torch.mm(prior.own.flatten(1).mT, _moves(steps, weight.device).mT)
    step_blocks(h, steps).copy_(own.view(groups, size, size, steps))
    step_blocks(h, steps, -1).copy_(prior.coupling.neg().unsqueeze(-1))
    h = h.repeat_interleave(n_patterns, dim=0) if n_patterns > 1 else h
    h.diagonal(dim1=-2, dim2=-1).add_(weight.squeeze(1))
    root, failed = torch.linalg.cholesky_ex(h)
    if bool(failed.any()):
        root = safe_cholesky(h + h.tril(-1).mT)
    eye = torch.zeros_like(h, memory_format=torch.contiguous_format)
    eye.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return torch.linalg.solve_triangular(root, eye, upper=False, out=torch.empty_like(eye))


class _Sums(NamedTuple):
    """Adjoints of the prior's blocks, float64.

    Attributes
    ----------
    own : Tensor (3, G, K, K)
        Of those on the diagonal.
    crossed : Tensor (G, K, K)
        Half of that of -Q^-1 A, which is in H_0 twice.
    steps : Tensor (3, G, K)
    """

    own: Tensor
    crossed: Tensor
    steps: Tensor


def _block_sums(matrices: Tensor, sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Sum blocks of ``sym(matrices)`` over steps and patterns."""
    groups, steps, size = sizes
    own = step_blocks(matrices, steps).permute(0, 3, 1, 2)
    found = _step_sums(own.flatten(2), (groups, steps, size * size)).unflatten(2, (size, size))
    crossed = step_blocks(matrices, steps, -1).sum(-1) + step_blocks(matrices, steps, 1).sum(-1).mT
    crossed = 0.5 * crossed.double().unflatten(0, (groups, -1)).sum(1)
    return symmetrize(found), crossed


def _step_sums(values: Tensor, sizes: tuple[int, int, int]) -> Tensor:
    """``(G P, T, ...)`` summed over patterns, and over steps as ``_moves`` says."""
    groups, steps, width = sizes
    summed = values.reshape(groups, -1, steps, width).double().sum(1)
    rows = _moves(steps, values.device).mT @ summed.transpose(0, 1).reshape(steps, -1)
    return rows.view(3, groups, width)


def _prior_gradients(
    sums: _Sums, constant: Tensor, small: list[Tensor | None], steps: int
) -> tuple[Tensor | None, ...]:
    """Gradients by the fields of ``_Given``, from those by blocks, vectors and kappa."""
    initial, j, _, drift = small[:4]
    given = _Given(*small[4:], None, None)  # type: ignore[arg-type, call-arg]
    assert initial is not None and j is not None and drift is not None
    later = constant * (steps - 1)
    a, b, mean = given.transition_matrix, given.bias.unsqueeze(-1), given.initial_mean.unsqueeze(-1)
    first, arrived, left = sums.own.unbind(0)
    at_start, ahead, behind = sums.steps.unsqueeze(-1).unbind(0)
    reached = a @ left - 2.0 * sums.crossed
    on_initial = first + (at_start - 0.5 * constant * mean) @ mean.mT
    on_initial = on_initial + 0.5 * constant * given.initial_covariance
    on_arriving = arrived + reached @ a.mT + 0.5 * later * given.noise_covariance
    on_arriving = on_arriving + (ahead - a @ behind - 0.5 * later * b) @ b.mT
    grads: list[Tensor | None] = [
        (initial @ (at_start - constant * mean)).squeeze(-1),
        -initial @ symmetrize(on_initial) @ initial,
        j @ (reached + a @ left) - drift.unsqueeze(-1) @ behind.mT,
        -j @ symmetrize(on_arriving) @ j,
        (j @ (ahead - a @ behind - later * b)).squeeze(-1),
    ]
    if given.excess is None:
        return *grads, None, None, None
    size = a.shape[-1]
    excess = torch.zeros_like(given.excess)
    excess[:, :size, :size] = left
    excess[:, :size, size] = -behind.squeeze(-1)
    excess[:, size, size] = -0.5 * later
    return *grads, excess, later.expand(len(a)), constant.expand(len(a))
