r"""Covariances of groups larger than two, from the joint precision of all states.

After the elimination (module ``joint_elimination``), :math:`z_t | z_{t+1}` has the gain
:math:`G_t` and the covariance :math:`M_t^{-1}`, so
:math:`\bar S_t = M_t^{-1} + G_t \bar S_{t+1} G_t'`.

**Gradients.** :math:`d\Omega_{t+1} = dQ^{-1} - dB\,G - G'dB' + G'dM\,G` with
:math:`dM_t = d\Omega_t + d\Lambda_t + \dots` passes adjoints on by a congruence recursion with the
links G, and so does the smoother with the links transposed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.joint_elimination import JointPrecision, eliminate
from tsvae.lds.joint_prior import COVARIANCES_PRECISION
from tsvae.lds.linalg import symmetrize
from tsvae.lds.memory import empty
from tsvae.lds.scans import congruence_loop
from tsvae.lds.steady import SETTLING_FROM, Run, common_runs, equal_runs

# Numbers of a block of steps that the backward pass takes at once: it stays in the cache.
BLOCK = 1 << 18

_Gradient = Tensor | None


class JointCovariances(NamedTuple):
    """Outcome of the elimination and of the way back; differentiable.

    Attributes
    ----------
    before : Tensor (T, N, K, K)
        Omega, precision of z_t given the potentials before t; empty with ``smooth``.
    conditional : Tensor (T, N, K, K)
        M^-1, covariance of z_t given z_{t+1}.
    gain : Tensor (T, N, K, K)
        G; zero at the last step.
    log_det : Tensor (N,)
        log |H|, float64.
    smoothed : Tensor (T, N, K, K)
        Covariances given all potentials; empty if they were not asked for.
    smoothed_diagonal : Tensor (T, N, K)
        Their diagonals: cheaper to pass gradients to.
    runs : list of Run
        Where ``conditional`` and ``gain`` stay the same.
    """

    before: Tensor
    conditional: Tensor
    gain: Tensor
    log_det: Tensor
    smoothed: Tensor
    smoothed_diagonal: Tensor
    runs: list[Run]


def joint_covariances(precision: JointPrecision, *, smooth: bool) -> JointCovariances:
    """Eliminate forwards and, if asked to, go back.

    Parameters
    ----------
    precision : JointPrecision
    smooth : bool
        Whether smoothed covariances are wanted, in place of those before t.

    Returns
    -------
    JointCovariances
    """
    runs: list[Run] = []
    tensors = _Joint.apply(smooth, runs, *precision)  # type: ignore[no-untyped-call]
    return JointCovariances._make((*tensors, runs))


class _Joint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, smooth: bool, runs: list[Run], *inputs: Tensor) -> tuple[Tensor, ...]:
        given = JointPrecision(*inputs)
        work = eliminate(given, keep_before=not smooth)
        runs.extend(work.runs)
        ctx.runs = runs
        conditional, gain = work.conditional, work.pull.mT
        smoothed = crossed = conditional.new_empty(0)
        diagonal = smoothed
        if smooth:
            smoothed, crossed = smoothed_covariances(conditional, gain, runs)
            diagonal = smoothed.diagonal(dim1=-2, dim2=-1).clone()
        ctx.save_for_backward(*inputs, conditional, gain, smoothed, crossed)
        ctx.set_materialize_grads(False)
        log_det = 2.0 * work.pivots.log_().sum((0, 2), dtype=torch.float64)
        return work.before, conditional, gain, log_det, smoothed, diagonal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: _Gradient) -> tuple[_Gradient, ...]:
        *inputs, conditional, gain, smoothed, crossed = ctx.saved_tensors
        given = JointPrecision(*inputs)
        returned = Returned(*grads)
        done = Done(conditional, gain, smoothed, crossed, ctx.runs)
        if bool(given.arriving.norm(dim=(1, 2)).max() > COVARIANCES_PRECISION):
            returned, done = returned.double(), done.double()
        adjoint, reached, coupling = adjoint_of_pivots(returned, done, given.arriving.shape[0])
        leaving, excess = _sums(adjoint, given.followed)
        sums = (reached[0], reached[1:].sum(0), coupling, leaving, excess)
        blocks = [symmetrize(x) if i != 2 else x for i, x in enumerate(sums)]
        groups = given.arriving.shape[0]
        blocks = [x.double().unflatten(0, (groups, -1)).sum(1) for x in blocks]
        potential = adjoint
        if given.potential.ndim == 3:
            potential = adjoint.diagonal(dim1=-2, dim2=-1)
        return (None, None, *blocks, None, potential.to(conditional.dtype))


class Returned(NamedTuple):
    """Gradients that come back for ``JointCovariances``."""

    before: _Gradient = None
    conditional: _Gradient = None
    gain: _Gradient = None
    log_det: _Gradient = None
    smoothed: _Gradient = None
    smoothed_diagonal: _Gradient = None

    def double(self) -> Returned:
        """Return them in float64."""
        return Returned(*(None if grad is None else grad.double() for grad in self))


class Done(NamedTuple):
    """What the gradients see of the way there and back, ``(T, N, K, K)``.

    Attributes
    ----------
    conditional, gain, smoothed : Tensor
        As in ``JointCovariances``.
    crossed : Tensor
        ``G_t S_{t+1}``; empty without ``smoothed``.
    runs : list of Run
    """

    conditional: Tensor
    gain: Tensor
    smoothed: Tensor
    crossed: Tensor
    runs: list[Run]

    def double(self) -> Done:
        """Return it in float64."""
        gain, smoothed, crossed = self.gain.double(), self.smoothed.double(), self.crossed.double()
        return Done(self.conditional.double(), gain, smoothed, crossed, self.runs)


def smoothed_covariances(
    conditional: Tensor, gain: Tensor, runs: list[Run]
) -> tuple[Tensor, Tensor]:
    """Smoothed covariances and ``G_t S_{t+1}``."""
    crossed = empty(conditional.shape, conditional)
    smoothed = congruence_loop(gain, conditional, True, runs=runs, halves=crossed)
    return smoothed, crossed


def adjoint_of_pivots(returned: Returned, done: Done, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Adjoints of M_t and of Omega_t, ``(T, N, K, K)``; the gradient of B, ``(N or G, K, K)``."""
    gain = done.gain
    source, coupling = _adjoint_source(returned, done, groups)
    incoming = returned.before
    if incoming is not None:
        incoming = symmetrize(incoming)
        source[:-1] += gain[:-1] @ incoming[1:] @ gain[:-1].mT
    # Y_t, the adjoint of M_t; that of Omega_t adds the caller's own.
    adjoint = congruence_loop(gain, source, True, out=source, runs=_both(done.runs, source))
    reached = adjoint if incoming is None else adjoint + incoming
    coupling -= 2.0 * _contract(reached[1:], gain.mT[:-1], groups)
    return adjoint, reached, coupling


def _adjoint_source(returned: Returned, done: Done, groups: int) -> tuple[Tensor, Tensor]:
    r"""Sum what a step's own results add to the adjoint of M_t, and to the gradient of B.

    With :math:`P_t = M_t^{-1}Z_t`, the smoother adds
    :math:`P M^{-1} - P\bar S - \bar S P' = -2\,sym\bigl((\bar S - \tfrac12M^{-1})P'\bigr)` to
    the one and :math:`2\sum_t (P_t G_t\bar S_{t+1})'` to the other.
    """
    conditional, gain = done.conditional, done.gain
    n_steps, n, size, _ = conditional.shape
    later = _smoother_adjoint(returned, gain, done.smoothed, done.runs)
    # Blocks of ``later`` are taken over as soon as they have been read: new memory is slow.
    source = empty(conditional.shape, conditional) if later is None else later
    coupling = conditional.new_zeros(groups if groups == 1 else n, size, size)
    weight = returned.log_det
    scale = conditional.new_zeros(n) if weight is None else weight.to(conditional.dtype)
    width = max(1, BLOCK // (n * size * size))
    for start in range(0, n_steps, width):
        block = slice(start, start + width)
        m, g = conditional[block], gain[block]
        own = source[block]
        if later is None:
            torch.mul(m, scale[:, None, None], out=own)
        else:
            half = own @ m  # P'
            turned = torch.sub(done.smoothed[block], m, alpha=0.5) @ half
            coupling += 2.0 * _contract(half, done.crossed[block], groups).mT
            torch.mul(m, scale[:, None, None], out=own)
            _subtract_symmetric(own, turned, 2.0)
        if returned.conditional is not None:
            own -= m @ symmetrize(returned.conditional[block]) @ m
        if returned.gain is not None:
            count = min(width, n_steps - 1 - start)  # the last gain is a constant
            turned = m[:count] @ returned.gain[block][:count]
            _subtract_symmetric(own[:count], turned @ g[:count].mT, 1.0)
            coupling += _summed(turned, groups).mT
    return source, coupling


def _summed(matrices: Tensor, groups: int) -> Tensor:
    """Sum over steps, and over patterns of a single group."""
    total = matrices.sum(0)
    return total.sum(0, keepdim=True) if groups == 1 else total


def _subtract_symmetric(target: Tensor, value: Tensor, scale: float) -> None:
    target.sub_(value, alpha=0.5 * scale).sub_(value.mT, alpha=0.5 * scale)


def _smoother_adjoint(
    returned: Returned, gain: Tensor, smoothed: Tensor, runs: list[Run]
) -> Tensor | None:
    """Z_t: adjoint of the smoothed covariances, Z_{t+1} = dS_{t+1} + G_t' Z_t G_t."""
    if returned.smoothed is None and returned.smoothed_diagonal is None:
        return None
    if returned.smoothed is None:
        total = empty(smoothed.shape, smoothed).zero_()
    else:
        total = symmetrize(returned.smoothed)
    if returned.smoothed_diagonal is not None:
        total.diagonal(dim1=-2, dim2=-1).add_(returned.smoothed_diagonal)
    runs = _both(runs, total)
    return congruence_loop(gain.mT, total, False, of_past=True, out=total, runs=runs)


def _both(runs: list[Run], constants: Tensor) -> list[Run]:
    """Those of ``runs`` over which the constants stay the same, too."""
    if all(run.stop - run.start < SETTLING_FROM for run in runs):
        return []
    return common_runs(runs, equal_runs(constants))


def _contract(left: Tensor, right: Tensor, groups: int) -> Tensor:
    """``sum_t left_t' right_t`` of ``(T, N, K, K)`` for every n, ``(N, K, K)``.

    For a single group, sums over its patterns, too: ``(1, K, K)``, one product.
    """
    if groups == 1:
        return (left.flatten(0, 2).mT @ right.flatten(0, 2))[None]
    total = left.new_zeros(left.shape[1:])
    width = max(1, BLOCK // left[0].numel()) if left.shape[0] else 1
    for start in range(0, left.shape[0], width):
        block = slice(start, start + width)
        total += (left[block].mT @ right[block]).sum(0)
    return total


def _sums(adjoint: Tensor, followed: Tensor) -> tuple[Tensor, Tensor]:
    """Sum ``(T, N, K, K)`` over the steps before the last, and over those with the excess."""
    followed = followed.to(adjoint.dtype)
    if bool((followed == followed[:, :1]).all()):
        inner = torch.ones_like(followed[:, 0])
        inner[-1] = 0.0
        both = torch.stack((inner, followed[:, 0])) @ adjoint.flatten(1)
        leaving, excess = both.reshape(2, *adjoint.shape[1:])
        return leaving, excess
    return adjoint[:-1].sum(0), torch.einsum("tn,tnij->nij", followed, adjoint)
