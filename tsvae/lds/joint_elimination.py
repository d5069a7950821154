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

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.linalg import identity_like
from tsvae.lds.memory import empty
from tsvae.lds.steady import (
    SHORTEST,
    WATCH,
    Run,
    Settling,
    Watch,
    covariance_changes,
    equal_runs,
)
from tsvae.lds.stepping import HostSteps, InverseRoots, TensorSteps, kind_of_steps

# float32 is enough where squared pivots of M are at least this share of the largest entry of Q^-1:
# rounding of the difference Omega then stays below 1e-4 of M.
LEAST_SHARE = 1e-3
# A look at a state costs several steps of tensors, but a fraction of one step on the host.
_WATCHES = {HostSteps: Watch(SHORTEST, 2), TensorSteps: WATCH}
# Numbers and steps of a block.
BLOCK = 1 << 18
WIDTH = 32


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
    """Results of the elimination, and a block of steps that stays in the cache.

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

        def block(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=like.device)

        width = max(1, min(n_steps, BLOCK // (n * size * size), WIDTH))
        # M, L^-1 and L^-1 B', LL' = M; LAPACK reads and writes L by columns.
        self.totals, self.inverses, self.turned = (block(width, n, size, size) for _ in range(3))
        self.root = block(n, size, size).mT
        self.steps = kind_of_steps(self.inverses)
        on_host = self.steps is HostSteps
        self.single = InverseRoots(HostSteps.views(self.inverses)) if on_host else None
        self.failed = torch.zeros(width, n, dtype=torch.int32, device=like.device)
        self.eye = identity_like(self.totals).expand(n, size, size).contiguous()
        self.broken = torch.zeros((), dtype=torch.bool, device=like.device)
        self.pivots = block(n_steps, n, size)
        # ``pull`` is G', as contiguous as products over all steps want it.
        shape = (n_steps, n, size, size)
        self.conditional, self.pull = (empty(shape, like) for _ in range(2))
        self.before = empty(shape, like) if keep_before else like.new_empty(0)
        self.omegas = torch.empty_like(self.totals) if keep_before else None
        self.repairing = False
        self.runs: list[Run] = []
        self.done = 0

    def restart(self) -> None:
        """Forget the steps taken so far."""
        self.runs.clear()
        self.broken.zero_()
        self.done = 0

    def factor(self, at: int) -> None:
        """Inverse of the Cholesky factor of M in slot ``at``."""
        total, failed, out = self.totals[at], self.failed[at], self.inverses[at]
        torch.linalg.cholesky_ex(total, out=(self.root, failed))
        if self.repairing and bool(failed.any()):
            self._repair(total, failed)
        torch.linalg.solve_triangular(self.root, self.eye, upper=False, out=out)

    def finish(self, count: int) -> None:
        """Work out what follows from the factors of the next ``count`` steps."""
        slots = slice(self.done, self.done + count)
        inverses, turned = (x[:count].flatten(0, 1) for x in (self.inverses, self.turned))
        for left, target in ((inverses, self.conditional), (turned, self.pull)):
            into = target[slots].flatten(0, 1)
            if self.same:
                torch.bmm(left.mT, inverses, out=into)
            else:
                into.copy_(torch.bmm(left.mT, inverses))
        diagonals = self.inverses[:count].diagonal(dim1=-2, dim2=-1)
        torch.reciprocal(diagonals, out=self.pivots[slots])
        self.broken |= self.failed[:count].any()
        if self.omegas is not None:
            self.before[slots] = self.omegas[:count]
        self.done = slots.stop

    def spread(self) -> None:
        """Move results, side by side so far, to their steps, and repeat them over ``runs``."""
        slot, stop = self.done, self.pivots.shape[0]
        for run in reversed(self.runs):
            count = stop - run.stop
            for values in (self.conditional, self.pull, self.pivots, self.before):
                if values.numel():
                    values[run.stop : stop] = values[slot - count : slot].clone()
                    values[run.start + 1 : run.stop] = values[slot - count - 1]
            slot, stop = slot - count, run.start + 1

    def _repair(self, total: Tensor, failed: Tensor) -> None:
        """Factor once more with the least diagonal that lets it through."""
        spread = total.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).mean(-1)
        bad = failed.clone()
        for power in range(-15, 1):
            jitter = (bad > 0) * spread * 10.0**power
            moved = total + jitter[:, None, None] * self.eye
            torch.linalg.cholesky_ex(moved, out=(self.root, failed))
            if not bool(failed.any()):
                return

    def sound(self, largest: float) -> bool:
        """Whether no factor failed and no pivot is so small that rounding counts."""
        return not bool(self.broken) and float(self.pivots.amin()) ** 2 >= LEAST_SHARE * largest


def eliminate(given: JointPrecision, keep_before: bool) -> Elimination:
    """Run in the precision of the states where that is enough, else in float64."""
    dtype = given.potential.dtype
    if dtype != torch.float64:
        largest = float(given.arriving.diagonal(dim1=-2, dim2=-1).amax())
        # M exceeds C = A'Q^-1 A, so this tells most of it beforehand.
        root, failed = torch.linalg.cholesky_ex(given.leaving)
        least = float(root.diagonal(dim1=-2, dim2=-1).amin()) ** 2
        if not bool(failed.any()) and least >= LEAST_SHARE * largest:
            work = Elimination(given, dtype, keep_before)
            _run_elimination(given, work)
            if work.sound(largest):
                return work
    work = Elimination(given, torch.float64, keep_before)
    _run_elimination(given, work)
    if bool(work.broken):
        work.repairing = True
        _run_elimination(given, work)
    return work


def _run_elimination(given: JointPrecision, work: Elimination) -> None:
    n_steps, dtype, steps = given.followed.shape[0], work.totals.dtype, work.steps
    blocks = _constants(given, dtype, whole=work.omegas is None)
    towards, arriving = steps.one(blocks.coupling.mT.contiguous()), steps.one(blocks.arriving)
    totals, inverses = steps.views(work.totals), steps.views(work.inverses)
    turned, turned_t = steps.views(work.turned), steps.views(work.turned.mT)
    omegas = None if work.omegas is None else steps.views(work.omegas)
    watch = _WATCHES[steps]
    runs = _runs(given, blocks, watch.shortest)
    # Where C is much larger than what is added to it, M tells nothing of when that settles.
    leaving = steps.one(blocks.leaving) if dtype == torch.float64 else None
    changes = None
    if leaving is not None:
        largest = float(given.arriving.diagonal(dim1=-2, dim2=-1).amax())
        changes = partial(covariance_changes, largest=largest)
    settling = Settling(runs, dtype, _tolerance(given.potential.dtype), watch, changes)
    work.restart()
    step = at = loaded = 0
    while step < n_steps:
        if at == loaded:
            if at == work.totals.shape[0]:
                work.finish(at)
                at = 0
            loaded = at + blocks.load(given, work.totals[at:], step)
        half = at - 1  # of the step before, which may be the last of the block
        total = totals[at]
        if omegas is not None:
            if step == 0:
                omegas[at][...] = steps.one(blocks.initial)
            else:
                steps.subtract_product(arriving, turned_t[half], turned[half], out=omegas[at])
            total += omegas[at]
        elif step > 0:
            steps.subtract_product(total, turned_t[half], turned[half], out=total)
        if work.single is None or work.repairing:
            work.factor(at)
        else:
            inverses[at][...] = total
            if not work.single(at):
                work.broken.fill_(True)
        steps.product(inverses[at], towards, out=turned[at])
        end = None
        if settling.looks(step):
            end = settling.stop(inverses[at] if leaving is None else total - leaving)
        at, step = at + 1, step + 1
        if end is not None:
            work.runs.append(Run(step - 1, end))
            step, loaded = end, at
    work.turned[at - 1].zero_()  # nothing follows
    work.finish(at)
    work.spread()


class _Constants(NamedTuple):
    """Blocks for every matrix, ``(N, K, K)``, in the precision of the elimination.

    ``excess`` is None where it applies nowhere, ``whole`` tells whether steps are loaded with what
    Omega has of its own, initial or arriving.
    """

    initial: Tensor
    arriving: Tensor
    coupling: Tensor
    leaving: Tensor
    excess: Tensor | None
    whole: bool

    def load(self, given: JointPrecision, out: Tensor, start: int) -> int:
        """Put what a step adds to M into ``out``, from step ``start`` on; return how many."""
        n_steps = given.followed.shape[0]
        count = min(out.shape[0], n_steps - start)
        block, out = slice(start, start + count), out[:count]
        out.copy_(self.arriving + self.leaving if self.whole else self.leaving)
        if start == 0 and self.whole:
            torch.add(self.initial, self.leaving, out=out[0])
        if block.stop == n_steps:
            ends = self.arriving if n_steps > 1 else self.initial
            out[-1] = ends if self.whole else 0.0
        if self.excess is not None:
            out.addcmul_(self.excess, given.followed[block, :, None, None].to(out.dtype))
        potential = given.potential[block]
        target = out.diagonal(dim1=-2, dim2=-1) if potential.ndim == 3 else out
        target.add_(potential)
        return count


def _constants(given: JointPrecision, dtype: torch.dtype, whole: bool) -> _Constants:
    repeats = given.followed.shape[1] // given.arriving.shape[0]

    def wide(part: Tensor) -> Tensor:
        part = part.to(dtype)
        return part.repeat_interleave(repeats, dim=0) if repeats > 1 else part

    initial, arriving, coupling, leaving = (wide(part) for part in given[:4])
    excess = wide(given.excess) if bool(given.followed.any()) else None
    return _Constants(initial, arriving, coupling, leaving, excess, whole)


def _runs(given: JointPrecision, blocks: _Constants, shortest: int) -> list[Run]:
    """Find runs of equal blocks H_tt; the last step, which nothing follows, ends them."""
    inner = slice(0, given.followed.shape[0] - 1)
    if inner.stop < shortest:
        return []
    if blocks.excess is None:
        return equal_runs(given.potential[inner])
    return equal_runs(given.potential[inner], given.followed[inner])


def _tolerance(dtype: torch.dtype) -> float:
    return 3e-8 if dtype == torch.float32 else 1e-14
