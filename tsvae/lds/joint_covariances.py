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
large numbers occur in :math:`\Omega` alone: the elimination runs in float64 and its results are
kept in the precision of the potentials.

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
from tsvae.lds.steady import Settling, equal_runs

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


class Elimination(NamedTuple):
    """Outcome of the block elimination; differentiable.

    Attributes
    ----------
    before : Tensor (T, N, K, K)
        Omega, precision of z_t given the potentials before t.
    conditional : Tensor (T, N, K, K)
        M^-1, covariance of z_t given z_{t+1}.
    gain : Tensor (T, N, K, K)
        G; zero at the last step.
    log_det : Tensor (N,)
        log |H|, float64.
    """

    before: Tensor
    conditional: Tensor
    gain: Tensor
    log_det: Tensor


def eliminate(precision: JointPrecision) -> Elimination:
    """Run the block elimination forwards."""
    return Elimination(*_Eliminate.apply(*precision))  # type: ignore[no-untyped-call]


def smoothed_covariances(elimination: Elimination) -> Tensor:
    """Covariances of all states given all potentials, ``(T, N, K, K)``."""
    smoothed: Tensor = _Smooth.apply(  # type: ignore[no-untyped-call]
        elimination.conditional, elimination.gain
    )
    return smoothed


class _Workspace:
    """Buffers of one elimination step in float64, and where its results go."""

    def __init__(self, n_steps: int, n: int, size: int, like: Tensor) -> None:
        def wide(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.float64, device=like.device)

        self.omega, self.total, self.root = (wide(n, size, size) for _ in range(3))
        self.inverse, self.turned = wide(n, size, size), wide(n, size, size)
        self.failed = torch.empty(n, dtype=torch.int32, device=like.device)
        self.pivots = wide(n_steps, n, size)
        self.before, self.conditional, self.gain = (
            like.new_empty(n_steps, n, size, size) for _ in range(3)
        )

    def invert(self) -> Tensor:
        """Inverse of ``total``; returns the diagonal of its Cholesky factor."""
        torch.linalg.cholesky_ex(self.total, out=(self.root, self.failed))
        if bool(self.failed.any()):
            self._repair()
        torch.cholesky_inverse(self.root, out=self.inverse)
        return self.root.diagonal(dim1=-2, dim2=-1)

    def _repair(self) -> None:
        """Factor once more with the least diagonal that lets it through."""
        spread = self.total.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).mean(-1)
        eye = identity_like(self.total)
        for power in range(-15, 1):
            jitter = (self.failed > 0) * spread * 10.0**power
            moved = self.total + jitter[:, None, None] * eye
            torch.linalg.cholesky_ex(moved, out=(self.root, self.failed))
            if not bool(self.failed.any()):
                return

    def fill(self, last: int, stop: int) -> None:
        """Repeat the results of step ``last`` up to ``stop``."""
        for values in (self.before, self.conditional, self.gain, self.pivots):
            values[last + 1 : stop] = values[last]


class _Eliminate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = JointPrecision(*inputs)
        n_steps, n = given.followed.shape
        size = given.arriving.shape[-1]
        work = _Workspace(n_steps, n, size, given.potential)
        _run_elimination(given, work)
        ctx.save_for_backward(*inputs, work.conditional, work.gain)
        ctx.set_materialize_grads(False)
        log_det = 2.0 * work.pivots.log_().sum((0, 2))
        return work.before, work.conditional, work.gain, log_det

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_before: _Gradient,
        grad_conditional: _Gradient,
        grad_gain: _Gradient,
        grad_log_det: _Gradient,
    ) -> tuple[_Gradient, ...]:
        *inputs, conditional, gain = ctx.saved_tensors
        given = JointPrecision(*inputs)
        source = _elimination_source(
            given, conditional, gain, grad_conditional, grad_gain, grad_log_det
        )
        # Y_t, the adjoint of M_t; that of Omega_t adds the caller's own.
        incoming = torch.zeros_like(source) if grad_before is None else symmetrize(grad_before)
        constants = source
        if grad_before is not None:
            ahead = gain[:-1] @ incoming[1:] @ gain[:-1].mT
            constants = torch.cat((source[:-1] + ahead, source[-1:]))
        adjoint = congruence_loop(gain, constants, True)
        reached = adjoint if grad_before is None else adjoint + incoming
        coupling = -2.0 * torch.einsum("tnij,tnlj->nil", reached[1:], gain[:-1])
        if grad_gain is not None:
            # dG = M^-1 dB' + ...; the last gain is a constant
            coupling += torch.einsum("tnij,tnjl->nli", conditional[:-1], grad_gain[:-1])
        sums = (reached[0], reached[1:].sum(0), coupling, *_sums(adjoint, given.followed))
        groups = given.arriving.shape[0]
        grads = [x.double().unflatten(0, (groups, -1)).sum(1) for x in sums]
        potential = adjoint
        if given.potential.ndim == 3:
            potential = adjoint.diagonal(dim1=-2, dim2=-1)
        return (*grads, None, potential)


def _run_elimination(given: JointPrecision, work: _Workspace) -> None:
    n_steps, n = given.followed.shape
    repeats = n // given.arriving.shape[0]
    initial, arriving, coupling, leaving, excess = (
        part.repeat_interleave(repeats, dim=0) for part in given[:5]
    )
    towards = coupling.mT.contiguous()
    both = leaving + excess
    kinds = _kinds(given.followed)
    potentials, followed = given.potential.unbind(0), given.followed.unbind(0)
    diagonal = work.total.diagonal(dim1=-2, dim2=-1)
    settling = Settling(_runs(given), torch.float64, _tolerance(given.potential.dtype))
    work.omega.copy_(initial)
    step = 0
    while step < n_steps:
        work.before[step].copy_(work.omega)
        last = step == n_steps - 1
        if kinds[step] == 1:
            torch.add(work.omega, excess if last else both, out=work.total)
        elif last:
            work.total.copy_(work.omega)
        else:
            torch.add(work.omega, leaving, out=work.total)
        if kinds[step] is None:
            work.total.addcmul_(excess, followed[step][:, None, None].double())
        (diagonal if given.potential.ndim == 3 else work.total).add_(potentials[step])
        work.pivots[step].copy_(work.invert())
        work.conditional[step].copy_(work.inverse)
        if last:
            work.gain[step].zero_()
            return
        torch.bmm(work.inverse, towards, out=work.turned)
        work.gain[step].copy_(work.turned)
        torch.baddbmm(arriving, coupling, work.turned, alpha=-1.0, out=work.omega)
        step += 1
        end = settling.stop(step - 1, work.inverse) if settling.starts else None
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
    low, high = followed.amin(1).tolist(), followed.amax(1).tolist()
    return [int(a) if a == b else None for a, b in zip(low, high, strict=True)]


def _runs(given: JointPrecision) -> list[Any]:
    """Runs of equal blocks H_tt; the last step, which nothing follows, ends them."""
    inner = slice(0, given.followed.shape[0] - 1)
    if inner.stop < 1:
        return []
    return equal_runs(given.potential[inner], given.followed[inner])


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-8 if dtype == torch.float32 else 1e-14


def _elimination_source(
    given: JointPrecision,
    conditional: Tensor,
    gain: Tensor,
    grad_conditional: _Gradient,
    grad_gain: _Gradient,
    grad_log_det: _Gradient,
) -> Tensor:
    """What a step's own results add to the adjoint of M_t."""
    if grad_log_det is None:
        source = torch.zeros_like(conditional)
    else:
        source = conditional * grad_log_det.to(conditional.dtype)[:, None, None]
    inner = None
    if grad_gain is not None:
        groups = given.coupling.shape[0]
        repeats = conditional.shape[1] // groups
        coupling = given.coupling.to(gain.dtype).repeat_interleave(repeats, dim=0)
        inner = symmetrize(grad_gain @ coupling)
    if grad_conditional is not None:
        own = symmetrize(grad_conditional)
        inner = own if inner is None else inner.add_(own)
    if inner is None:
        return source
    return source.sub_(conditional @ inner @ conditional)


class _Smooth(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, conditional: Tensor, gain: Tensor) -> Tensor:
        smoothed = congruence_loop(gain, conditional, True)
        ctx.save_for_backward(gain, smoothed)
        return smoothed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gain, smoothed = ctx.saved_tensors
        # Z_{t+1} = grad_{t+1} + G_t' Z_t G_t
        links = torch.cat((torch.zeros_like(gain[:1]), gain[:-1].mT))
        adjoint = congruence_loop(links, symmetrize(grad), False)
        grad_gain = torch.zeros_like(gain)
        torch.matmul(adjoint[:-1] @ gain[:-1], smoothed[1:], out=grad_gain[:-1])
        return adjoint, grad_gain.mul_(2.0)
