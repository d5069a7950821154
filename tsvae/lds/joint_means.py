r"""Means and samples of groups larger than two: linear systems in the joint precision.

Deviations :math:`\delta = z - m` from the prior's mean path m solve
:math:`H\bar\delta = r` with :math:`r_t = h_t - (\Lambda_t + f_t W) m_t` (module
``joint_elimination``), by substitution,

.. math::
    y_t = r_t + G_{t-1}' y_{t-1}, \qquad \bar\delta_t = M_t^{-1} y_t + G_t \bar\delta_{t+1}.

The filtered mean is :math:`m_t + (\Omega_t + \Lambda_t + f_t W)^{-1} y_t`.

**Samples** (perturb and optimise; Papandreou & Yuille 2010, for state-space models Durbin &
Koopman 2002): with :math:`\eta \sim N(0, H)`, :math:`H^{-1}(r + \eta)` is a draw of
:math:`\delta`, and such an :math:`\eta` is a sum over the factors of q, here
:math:`U\epsilon_t` at step t and
:math:`-A'U\epsilon_t` at the step before it with :math:`UU' = Q^{-1}`, and a root of every
potential. Nothing but means depends on the noise.

**Gradients.** :math:`d\bar\delta = H^{-1}(dr - dH\,\bar\delta)`: one more solve, and outer
products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.joint_covariances import JointCovariances
from tsvae.lds.joint_elimination import JointPrecision
from tsvae.lds.layout import times_group
from tsvae.lds.linalg import root_or_zero, safe_cholesky, symmetrize
from tsvae.lds.scans import affine_loop
from tsvae.lds.steady import Run


def solve(precision: JointPrecision, covariances: JointCovariances, right: Tensor) -> Tensor:
    """Solve ``H x = right`` for rows ``(T, N, R, K)``; differentiable in H and ``right``."""
    solution: Tensor = _Solve.apply(  # type: ignore[no-untyped-call]
        covariances.runs,
        covariances.conditional.detach(),
        covariances.gain.detach(),
        right,
        *precision,
    )
    return solution


def substitute(conditional: Tensor, gain: Tensor, right: Tensor, runs: list[Run]) -> Tensor:
    """Solve ``H x = right`` for rows, without gradient."""
    # Row vectors: G'y is y @ G, and G d is d @ G'.
    forward = affine_loop(gain, right, False, of_past=True, runs=runs)
    return affine_loop(gain.mT, forward @ conditional, True, runs=runs)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        runs: list[Run],
        conditional: Tensor,
        gain: Tensor,
        right: Tensor,
        *blocks: Tensor,
    ) -> Tensor:
        solution = substitute(conditional, gain, right, runs)
        followed, potential = blocks[-2:]
        ctx.runs = runs
        ctx.save_for_backward(conditional, gain, solution, followed)
        ctx.diagonal, ctx.groups = potential.ndim == 3, blocks[0].shape[0]
        return solution

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        conditional, gain, solution, followed = ctx.saved_tensors
        back = substitute(conditional, gain, grad, ctx.runs)
        if not any(ctx.needs_input_grad[4:]):
            return None, None, None, back, *([None] * 7)
        if ctx.diagonal:
            potential = (back * solution).sum(2).neg_()
        else:
            potential = symmetrize(back.mT @ solution).neg_()

        # (G, T, P, R, K); in float64, for Q^-1 multiplies these sums twice.
        one, two = (
            x.double().unflatten(1, (ctx.groups, -1)).transpose(1, 0) for x in (back, solution)
        )

        def outer(left: Tensor, right: Tensor) -> Tensor:
            """Sum of outer products of rows, per group."""
            return left.flatten(1, 3).mT @ right.flatten(1, 3)

        first, last = outer(one[:, :1], two[:, :1]), outer(one[:, -1:], two[:, -1:])
        every = outer(one, two)
        coupling = outer(one[:, 1:], two[:, :-1]) + outer(two[:, 1:], one[:, :-1])
        excess = None
        if bool(followed.any()):
            weight = followed.to(one.dtype).unflatten(1, (ctx.groups, -1)).transpose(1, 0)
            excess = symmetrize(outer(one * weight[..., None, None], two)).neg_()
        # What is not symmetric here has no effect: the blocks themselves always are.
        blocks = (-first, first - every, coupling, last - every)
        return None, None, None, back, *blocks, excess, None, potential


class Noise(NamedTuple):
    """Standard normal numbers behind samples, rows ``(T, N, R, K)``.

    Attributes
    ----------
    transition, potential : Tensor
    excess : Tensor or None
        For expected parameters.
    """

    transition: Tensor
    potential: Tensor
    excess: Tensor | None


class NoiseRoots(NamedTuple):
    """What standard normal rows are multiplied by: R of blocks ``R'R (G, K, K)``.

    Attributes
    ----------
    initial, arriving : Tensor
    turned : Tensor
        R A, R of the arriving block.
    excess : Tensor or None
    """

    initial: Tensor
    arriving: Tensor
    turned: Tensor
    excess: Tensor | None


def noise_roots(
    precision: JointPrecision,
    roots: tuple[Tensor, Tensor],
    transition: Tensor,
    dtype: torch.dtype,
    excess: bool,
) -> NoiseRoots:
    """Roots of the blocks, differentiable.

    Parameters
    ----------
    precision : JointPrecision
    roots : tuple of Tensor (G, K, K)
        Of the initial and the arriving block.
    transition : Tensor (G, K, K)
        A, in the precision of ``roots``.
    dtype : torch.dtype
        Of the result.
    excess : bool
        Whether there is one.

    Returns
    -------
    NoiseRoots
    """
    first, later = roots
    own = safe_cholesky(precision.excess).mT.to(dtype) if excess else None
    return NoiseRoots(first.to(dtype), later.to(dtype), (later @ transition).to(dtype), own)


def perturbation(precision: JointPrecision, roots: NoiseRoots, noise: Noise) -> Tensor:
    """Draw from N(0, H), for diagonal potentials; differentiable.

    Parameters
    ----------
    precision : JointPrecision
        With ``potential (T, N, K)``.
    roots : NoiseRoots
        U' in the module docstring.
    noise : Noise

    Returns
    -------
    Tensor (T, N, R, K)
    """
    moves = noise.transition
    initial, ahead = times_group(moves[:1], roots.initial), times_group(moves[1:], roots.arriving)
    behind = torch.nn.functional.pad(times_group(moves[1:], roots.turned), (0, 0) * 3 + (0, 1))
    total = torch.cat((initial, ahead)) - behind
    total = total + noise.potential * root_or_zero(precision.potential).unsqueeze(2)
    if noise.excess is not None and roots.excess is not None:
        weight = precision.followed.to(total.dtype)[..., None, None]
        total = total + weight * times_group(noise.excess, roots.excess)
    return total
