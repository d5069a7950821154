r"""Covariances of groups larger than two, from the joint precision of all states.

The posterior q(z) is one Gaussian with a block-tridiagonal precision H: with
:math:`B = Q^{-1}A` and :math:`C = A'Q^{-1}A`,

.. math::
    H_{tt} = \Lambda_t + [t = 0]\,\Sigma_0^{-1} + [t > 0]\,Q^{-1} + [t < T-1]\,C
             + f_t W, \qquad H_{t+1,t} = -B,

where W is the excess of expected parameters and :math:`f_t` tells where it applies. Its block
elimination is the information filter: :math:`\Omega_t` is the precision of :math:`z_t` given the
potentials before t, and

.. math::
    M_t = \Omega_t + H_{tt} - [t > 0]Q^{-1} - [t = 0]\Sigma_0^{-1}, \quad
    G_t = M_t^{-1}B', \quad \Omega_{t+1} = Q^{-1} - B\,G_t, \quad
    \log|H| = \sum_t \log|M_t|,

one Cholesky factor per step. Backwards, :math:`z_t | z_{t+1}` has the gain :math:`G_t` and the
covariance :math:`M_t^{-1}`, so :math:`\bar S_t = M_t^{-1} + G_t \bar S_{t+1} G_t'`. Differences of
large numbers occur in :math:`\Omega` alone: the elimination runs in float64 where these count, and
its results are kept in the precision of the potentials.

**Gradients.** :math:`d\Omega_{t+1} = dQ^{-1} - dB\,G - G'dB' + G'dM\,G` with
:math:`dM_t = d\Omega_t + d\Lambda_t + \dots` passes adjoints on by a congruence recursion with the
links G, and so does the smoother with the links transposed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.linalg import identity_like, symmetrize
from tsvae.lds.scans import congruence_loop
from tsvae.lds.steady import Run, Settling, equal_runs, step_views

# Numbers of a block of steps that the backward pass takes at once: it stays in the cache.
BLOCK = 1 << 18
# float32 is enough where squared pivots of M are at least this share of the largest entry of Q^-1:
# rounding of the difference Omega then stays below 1e-4 of M.
LEAST_SHARE = 1e-3

_Gradient = Tensor | None


class JointPrecision(NamedTuple):
    """Blocks of H; per-group matrices ``(G, K, K)`` in float64.

    Attributes
    ----------
    initial : Tensor
        Sigma_0^-1.
    arriving : Tensor
        Q^-1.
    coupling : Tensor
        B = Q^-1 A.
    leaving : Tensor
        C = A'Q^-1 A.
    excess : Tensor
        W, zero for plug-in parameters.
    followed : Tensor (T, N)
        f, no gradient.
    potential : Tensor (T, N, K) or (T, N, K, K)
        Lambda, in the precision of the states; N = G * P.
    """

    initial: Tensor
    arriving: Tensor
    coupling: Tensor
    leaving: Tensor
    excess: Tensor
    followed: Tensor
    potential: Tensor


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


class _Workspace:
    """Results of the elimination, and the buffers of a step.

    Parameters
    ----------
    given : JointPrecision
    dtype : torch.dtype
        Of the elimination.
    keep_before : bool
        Whether Omega is wanted.
    """

    def __init__(self, given: JointPrecision, dtype: torch.dtype, keep_before: bool) -> None:
        n_steps, n = given.followed.shape
        like, size = given.potential, given.arriving.shape[-1]
        self.same = dtype == like.dtype
        # LAPACK reads and writes by columns.
        self.omega, self.total, self.root_columns, self.inverse, self.turned = (
            torch.empty(n, size, size, dtype=dtype, device=like.device) for _ in range(5)
        )
        self.root = self.root_columns.mT
        self.eye = identity_like(self.total).expand_as(self.total).contiguous()
        self.pivots = torch.empty(n_steps, n, size, dtype=dtype, device=like.device)
        self.failed = torch.zeros(n_steps, n, dtype=torch.int32, device=like.device)
        # ``pull`` is G', as contiguous as products over all steps want it.
        self.conditional, self.pull = (like.new_empty(n_steps, n, size, size) for _ in range(2))
        self.before = torch.empty_like(self.pull) if keep_before else like.new_empty(0)
        self.repairing = False
        self.runs: list[Run] = []

    def factor(self, step: int, failed: Tensor) -> Tensor:
        """Inverse of the Cholesky factor of ``total``."""
        torch.linalg.cholesky_ex(self.total, out=(self.root, failed))
        if self.repairing and bool(failed.any()):
            self._repair(failed)
        self.pivots[step].copy_(self.root.diagonal(dim1=-2, dim2=-1))
        return torch.linalg.solve_triangular(self.root, self.eye, upper=False, out=self.inverse)

    def _repair(self, failed: Tensor) -> None:
        """Factor once more with the least diagonal that lets it through."""
        spread = self.total.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).mean(-1)
        bad = failed.clone()
        for power in range(-15, 1):
            jitter = (bad > 0) * spread * 10.0**power
            moved = self.total + jitter[:, None, None] * self.eye
            torch.linalg.cholesky_ex(moved, out=(self.root, failed))
            if not bool(failed.any()):
                return

    def fill(self, last: int, stop: int) -> None:
        """Repeat the results of step ``last`` up to ``stop``."""
        for values in (self.before, self.conditional, self.pull, self.pivots):
            if len(values):
                values[last + 1 : stop] = values[last]
        self.runs.append(Run(last, stop))

    def sound(self, largest: Tensor) -> bool:
        """Whether no factor failed and no pivot is so small that rounding counts."""
        least = self.pivots.amin().square()
        return bool((self.failed == 0).all() & (least >= LEAST_SHARE * largest))


def _elimination(given: JointPrecision, keep_before: bool) -> _Workspace:
    """Run in the precision of the states where that is enough, else in float64."""
    dtype = given.potential.dtype
    largest = given.arriving.diagonal(dim1=-2, dim2=-1).amax()
    if dtype != torch.float64:
        # M exceeds C = A'Q^-1 A, so this tells most of it beforehand.
        root, failed = torch.linalg.cholesky_ex(given.leaving)
        least = root.diagonal(dim1=-2, dim2=-1).amin().square()
        if bool((failed == 0).all() & (least >= LEAST_SHARE * largest)):
            work = _Workspace(given, dtype, keep_before)
            _run_elimination(given, work)
            if work.sound(largest):
                return work
    work = _Workspace(given, torch.float64, keep_before)
    _run_elimination(given, work)
    if bool(work.failed.any()):
        work.repairing = True
        _run_elimination(given, work)
    return work


class _Joint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, smooth: bool, runs: list[Run], *inputs: Tensor) -> tuple[Tensor, ...]:
        given = JointPrecision(*inputs)
        work = _elimination(given, keep_before=not smooth)
        runs.extend(work.runs)
        ctx.runs = runs
        conditional, gain = work.conditional, work.pull.mT
        smoothed = conditional.new_empty(0)
        diagonal = smoothed
        if smooth:
            smoothed = congruence_loop(gain, conditional, True, runs=runs)
            diagonal = smoothed.diagonal(dim1=-2, dim2=-1).clone()
        ctx.save_for_backward(*inputs, conditional, gain, smoothed)
        ctx.set_materialize_grads(False)
        log_det = 2.0 * work.pivots.log_().sum((0, 2), dtype=torch.float64)
        return work.before, conditional, gain, log_det, smoothed, diagonal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: _Gradient) -> tuple[_Gradient, ...]:
        *inputs, conditional, gain, smoothed = ctx.saved_tensors
        given = JointPrecision(*inputs)
        returned = _Returned(*grads)
        source, coupling = _adjoint_source(returned, conditional, gain, smoothed, ctx.runs)
        incoming = returned.before
        if incoming is not None:
            incoming = symmetrize(incoming)
            source[:-1] += gain[:-1] @ incoming[1:] @ gain[:-1].mT
        # Y_t, the adjoint of M_t; that of Omega_t adds the caller's own.
        adjoint = congruence_loop(gain, source, True, out=source, runs=ctx.runs)
        reached = adjoint if incoming is None else adjoint + incoming
        coupling -= 2.0 * _contract(reached[1:], gain.mT[:-1])
        leaving, excess = _sums(adjoint, given.followed)
        sums = (reached[0], reached[1:].sum(0), coupling, leaving, excess)
        groups = given.arriving.shape[0]
        blocks = [symmetrize(x) if i != 2 else x for i, x in enumerate(sums)]
        blocks = [x.double().unflatten(0, (groups, -1)).sum(1) for x in blocks]
        potential = adjoint
        if given.potential.ndim == 3:
            potential = adjoint.diagonal(dim1=-2, dim2=-1)
        return (None, None, *blocks, None, potential)


class _Returned(NamedTuple):
    """Gradients that come back for ``JointCovariances``."""

    before: _Gradient
    conditional: _Gradient
    gain: _Gradient
    log_det: _Gradient
    smoothed: _Gradient
    smoothed_diagonal: _Gradient


def _adjoint_source(
    returned: _Returned,
    conditional: Tensor,
    gain: Tensor,
    smoothed: Tensor,
    runs: list[Run],
) -> tuple[Tensor, Tensor]:
    """Sum what a step's own results add to the adjoint of M_t, and to the gradient of B."""
    n_steps, n, size, _ = conditional.shape
    later = _smoother_adjoint(returned, gain, smoothed, runs)
    source = torch.empty_like(conditional)
    coupling = conditional.new_zeros(n, size, size)
    weight = returned.log_det
    scale = 0.0 if weight is None else weight.to(conditional.dtype)[:, None, None]
    width = max(1, BLOCK // (n * size * size))
    for start in range(0, n_steps, width):
        block = slice(start, start + width)
        m, g = conditional[block], gain[block]
        own = torch.mul(m, scale, out=source[block])
        if later is not None:
            half = m @ later[block]
            own -= half @ m
            ahead = smoothed[start + 1 : start + width + 1]
            count = ahead.shape[0]
            if count:
                # 2 M^-1 Z G S, the part of dB' that comes by the smoother's gain
                turned = (half[:count] @ g[:count]) @ ahead
                _subtract_symmetric(own[:count], turned @ g[:count].mT, 2.0)
                coupling += 2.0 * turned.sum(0).mT
        if returned.conditional is not None:
            own -= m @ symmetrize(returned.conditional[block]) @ m
        if returned.gain is not None:
            count = min(width, n_steps - 1 - start)  # the last gain is a constant
            turned = m[:count] @ returned.gain[block][:count]
            _subtract_symmetric(own[:count], turned @ g[:count].mT, 1.0)
            coupling += turned.sum(0).mT
    return source, coupling


def _subtract_symmetric(target: Tensor, value: Tensor, scale: float) -> None:
    target.sub_(value, alpha=0.5 * scale).sub_(value.mT, alpha=0.5 * scale)


def _smoother_adjoint(
    returned: _Returned, gain: Tensor, smoothed: Tensor, runs: list[Run]
) -> Tensor | None:
    """Z_t: adjoint of the smoothed covariances, Z_{t+1} = dS_{t+1} + G_t' Z_t G_t."""
    if returned.smoothed is None and returned.smoothed_diagonal is None:
        return None
    if returned.smoothed is None:
        total = torch.zeros_like(smoothed)
    else:
        total = symmetrize(returned.smoothed)
    if returned.smoothed_diagonal is not None:
        total.diagonal(dim1=-2, dim2=-1).add_(returned.smoothed_diagonal)
    return congruence_loop(gain.mT, total, False, of_past=True, out=total, runs=runs)


def _contract(left: Tensor, right: Tensor) -> Tensor:
    """``sum_t left_t' right_t`` of ``(T, N, K, K)`` for every n: ``(N, K, K)``.

    One product where a single group and pattern, or a few, allow it.
    """
    if left.shape[1] == 1:
        return (left.flatten(0, 2).mT @ right.flatten(0, 2))[None]
    total = left.new_zeros(left.shape[1:])
    width = max(1, BLOCK // left[0].numel()) if left.shape[0] else 1
    for start in range(0, left.shape[0], width):
        block = slice(start, start + width)
        total += (left[block].mT @ right[block]).sum(0)
    return total


def _run_elimination(given: JointPrecision, work: _Workspace) -> None:
    n_steps, n = given.followed.shape
    repeats, dtype = n // given.arriving.shape[0], work.omega.dtype
    initial, arriving, coupling, leaving, excess = (
        part.to(dtype).repeat_interleave(repeats, dim=0) for part in given[:5]
    )
    towards, both = coupling.mT, leaving + excess
    kinds = _kinds(given.followed)
    potentials, followed = step_views(given.potential), step_views(given.followed)
    conditional, pull, failed = (
        step_views(work.conditional),
        step_views(work.pull),
        step_views(work.failed),
    )
    target = work.total
    if given.potential.ndim == 3:
        target = target.diagonal(dim1=-2, dim2=-1)
    tolerance = _tolerance(given.potential.dtype)
    runs = _runs(given)
    settling = Settling(runs, dtype, tolerance)
    work.omega.copy_(initial)
    work.runs.clear()
    step = 0
    while step < n_steps:
        if len(work.before):
            work.before[step] = work.omega
        last = step == n_steps - 1
        if kinds[step] == 1:
            torch.add(work.omega, excess if last else both, out=work.total)
        elif last:
            work.total.copy_(work.omega)
        else:
            torch.add(work.omega, leaving, out=work.total)
        if kinds[step] is None:
            work.total.addcmul_(excess, followed[step][:, None, None].to(dtype))
        target.add_(potentials[step])
        inverse = work.factor(step, failed[step])
        own, back = conditional[step], pull[step]
        if work.same:
            torch.bmm(inverse.mT, inverse, out=own)
        else:
            own.copy_(inverse.mT @ inverse)
        if last:
            back.zero_()
            return
        turned = torch.bmm(inverse, towards, out=work.turned)
        if work.same:
            torch.bmm(turned.mT, inverse, out=back)
        else:
            back.copy_(turned.mT @ inverse)
        torch.baddbmm(arriving, turned.mT, turned, alpha=-1.0, out=work.omega)
        step += 1
        end = settling.stop(step - 1, inverse) if runs else None
        if end is not None:
            work.fill(step - 1, end)
            step = end


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


def _kinds(followed: Tensor) -> list[int | None]:
    """Per step: 1 if the excess applies to all, 0 if to none, None if to some."""
    if bool((followed == followed[:, :1]).all()):
        return [int(value) for value in followed[:, 0].tolist()]
    low, high = followed.amin(1).tolist(), followed.amax(1).tolist()
    return [int(a) if a == b else None for a, b in zip(low, high, strict=True)]


def _runs(given: JointPrecision) -> list[Run]:
    """Find runs of equal blocks H_tt; the last step, which nothing follows, ends them."""
    inner = slice(0, given.followed.shape[0] - 1)
    if inner.stop < 1:
        return []
    return equal_runs(given.potential[inner], given.followed[inner])


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-8 if dtype == torch.float32 else 1e-14
