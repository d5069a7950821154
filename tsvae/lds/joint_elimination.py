r"""Block elimination of the joint precision of all states, for groups larger than two.

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

one Cholesky factor per step. Differences of large numbers occur in :math:`\Omega` alone: the
elimination runs in float64 where these count, and its results are kept in the precision of the
potentials.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.linalg import identity_like
from tsvae.lds.steady import Run, Settling, equal_runs, step_views

# float32 is enough where squared pivots of M are at least this share of the largest entry of Q^-1:
# rounding of the difference Omega then stays below 1e-4 of M.
LEAST_SHARE = 1e-3
BLOCK = 1 << 18  # numbers of a block of steps


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


class Elimination:
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

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=like.device)

        self.omega, self.total = empty(n, size, size), empty(n, size, size)
        self.root = empty(n, size, size).mT  # LAPACK reads and writes by columns
        self.eye = identity_like(self.total).expand_as(self.total).contiguous()
        # L^-1 and L^-1 B' of the steps since ``start``, LL' = M: a block that stays in the cache.
        self.width = min(n_steps, max(1, BLOCK // (n * size * size)))
        self.inverses, self.turned = (empty(self.width, n, size, size) for _ in range(2))
        self.start = 0
        self.pivots = empty(n_steps, n, size)
        self.failed = torch.zeros(n_steps, n, dtype=torch.int32, device=like.device)
        # ``pull`` is G', as contiguous as products over all steps want it.
        self.conditional, self.pull = (like.new_empty(n_steps, n, size, size) for _ in range(2))
        self.before = torch.empty_like(self.pull) if keep_before else like.new_empty(0)
        self.repairing = False
        self.runs: list[Run] = []

    def factor(self, failed: Tensor, out: Tensor) -> None:
        """Inverse of the Cholesky factor of ``total``."""
        torch.linalg.cholesky_ex(self.total, out=(self.root, failed))
        if self.repairing and bool(failed.any()):
            self._repair(failed)
        torch.linalg.solve_triangular(self.root, self.eye, upper=False, out=out)

    def finish(self, stop: int) -> None:
        """Work out what follows from the factors of the steps before ``stop``."""
        inverses, turned = (x[: stop - self.start] for x in (self.inverses, self.turned))
        block = slice(self.start, stop)
        for left, target in ((inverses, self.conditional), (turned, self.pull)):
            if self.same:
                torch.matmul(left.mT, inverses, out=target[block])
            else:
                target[block] = left.mT @ inverses
        pivots = inverses.diagonal(dim1=-2, dim2=-1)
        torch.reciprocal(pivots, out=self.pivots[block])
        self.start = stop

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
        self.start = stop

    def sound(self, largest: Tensor) -> bool:
        """Whether no factor failed and no pivot is so small that rounding counts."""
        least = self.pivots.amin().square()
        return bool((self.failed == 0).all() & (least >= LEAST_SHARE * largest))


def eliminate(given: JointPrecision, keep_before: bool) -> Elimination:
    """Run in the precision of the states where that is enough, else in float64."""
    dtype = given.potential.dtype
    largest = given.arriving.diagonal(dim1=-2, dim2=-1).amax()
    if dtype != torch.float64:
        # M exceeds C = A'Q^-1 A, so this tells most of it beforehand.
        root, failed = torch.linalg.cholesky_ex(given.leaving)
        least = root.diagonal(dim1=-2, dim2=-1).amin().square()
        if bool((failed == 0).all() & (least >= LEAST_SHARE * largest)):
            work = Elimination(given, dtype, keep_before)
            _run_elimination(given, work)
            if work.sound(largest):
                return work
    work = Elimination(given, torch.float64, keep_before)
    _run_elimination(given, work)
    if bool(work.failed.any()):
        work.repairing = True
        _run_elimination(given, work)
    return work


def _run_elimination(given: JointPrecision, work: Elimination) -> None:
    n_steps, n = given.followed.shape
    repeats, dtype = n // given.arriving.shape[0], work.omega.dtype
    initial, arriving, coupling, leaving, excess = (
        part.to(dtype).repeat_interleave(repeats, dim=0) for part in given[:5]
    )
    towards, both = coupling.mT, leaving + excess
    kinds = _kinds(given.followed)
    potentials, followed = step_views(given.potential), step_views(given.followed)
    failed, inverses, turned = map(step_views, (work.failed, work.inverses, work.turned))
    target = work.total
    if given.potential.ndim == 3:
        target = target.diagonal(dim1=-2, dim2=-1)
    tolerance = _tolerance(given.potential.dtype)
    runs = _runs(given)
    settling = Settling(runs, dtype, tolerance)
    work.omega.copy_(initial)
    work.runs.clear()
    step = work.start = 0
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
        at = step - work.start
        inverse, half = inverses[at], turned[at]
        work.factor(failed[step], inverse)
        step += 1
        if last:
            half.zero_()  # nothing follows
            work.finish(step)
            return
        torch.bmm(inverse, towards, out=half)
        torch.baddbmm(arriving, half.mT, half, alpha=-1.0, out=work.omega)
        end = settling.stop(step - 1, inverse) if runs else None
        if end is not None or at + 1 == work.width:
            work.finish(step)
        if end is not None:
            work.fill(step - 1, end)
            step = end


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
