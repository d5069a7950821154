r"""Stretches of time over which a recursion's coefficients do not change.

Precisions depend on what is present, not on values: while nothing is missing, or everything is,
a recursion of covariances meets the same matrices at every step and settles after some tens of
steps, and a recursion of means,

.. math:: x_t = x_{t-1} M + g_t \quad (\text{rows}),

splits into about :math:`\sqrt T` chunks that run side by side from zero; the ends of chunks obey
the same recursion with :math:`M^c`, and step j of a chunk gains the end before it times
:math:`M^j`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

SHORTEST = 12  # a run of fewer steps is not worth the search
SETTLING_FROM = 32  # most recursions need 16 steps and more, and looking costs several
CHUNKED_FROM = 48  # likewise for chunks
VIEWS = 16  # steps that ``Steps`` splits at a time
TINY = 1e-300
_ROUNDING = 4.0  # spacings of numbers
PROBED_FROM = 1 << 14  # numbers from which a look at a few of them pays


class Run(NamedTuple):
    """Steps ``start <= t < stop`` with equal coefficients."""

    start: int
    stop: int


def equal_runs(*values: Tensor) -> list[Run]:
    """Find runs of steps over which all of ``values (T, ...)`` stay exactly the same.

    Parameters
    ----------
    values : Tensor (T, ...)

    Returns
    -------
    list of Run
        In order of time; none shorter than ``SHORTEST``.
    """
    n_steps = values[0].shape[0]
    if n_steps < SHORTEST:
        return []
    if all(value.stride(0) == 0 for value in values):
        return [Run(0, n_steps)]
    if sum(value.numel() for value in values) > PROBED_FROM:
        # One number of each tells nearly always that nothing stays the same.
        first = [value.as_strided((n_steps,), (value.stride(0),)) for value in values]
        if not _runs_of([x[1:] == x[:-1] for x in first], n_steps):
            return []
    return _runs_of([(x[1:] == x[:-1]).flatten(1).all(1) for x in values], n_steps)


def _runs_of(same: list[Tensor], n_steps: int) -> list[Run]:
    every = same[0] if len(same) == 1 else torch.stack(same).all(0)
    breaks = every.logical_not_().nonzero().flatten().tolist()
    edges = [0, *(step + 1 for step in breaks), n_steps]
    return [Run(*ends) for ends in pairwise(edges) if ends[1] - ends[0] >= SHORTEST]


def common_runs(one: list[Run], two: list[Run]) -> list[Run]:
    """Intersect two lists of runs."""
    found = []
    for first in one:
        for second in two:
            run = Run(max(first.start, second.start), min(first.stop, second.stop))
            if run.stop - run.start >= SHORTEST:
                found.append(run)
    return found


def mirrored(runs: list[Run], n_steps: int) -> list[Run]:
    """Return the runs of a sequence that is read backwards."""
    return [Run(n_steps - run.stop, n_steps - run.start) for run in reversed(runs)]


class Watch(NamedTuple):
    """How closely a recursion is watched.

    Attributes
    ----------
    shortest : int
        Steps of a run that is worth it.
    every : int
        Steps between two looks.
    """

    shortest: int = SETTLING_FROM
    every: int = 4


WATCH = Watch()


class Settling:
    """Watches one recursion and says when the rest of a run may be filled in.

    The change between two looks shrinks geometrically, so what is still to come is about
    change * q / (1 - q), q being the ratio of the last two changes; it must be below ``tolerance``
    of the state, matrix by matrix. Changes at rounding level count as settled.

    Parameters
    ----------
    runs : list of Run
    dtype : torch.dtype
        Of the recursion's states; sets the tolerance unless it is given.
    tolerance : float, optional
        1e-6 in float32, 1e-13 in float64.
    watch : Watch, optional
    changes : callable, optional
        Gives the relative change of every matrix from a state and the one before; of the largest
        entry by default.
    """

    def __init__(
        self,
        runs: list[Run],
        dtype: torch.dtype,
        tolerance: float | None = None,
        watch: Watch = WATCH,
        changes: Callable[[Any, Any], list[float]] | None = None,
    ) -> None:
        self.every = watch.every
        self.starts = {run.start: run for run in runs if run.stop - run.start >= watch.shortest}
        self.run: Run | None = None
        self.past: Any = None
        self.change: list[float] | None = None
        self.rounding = _ROUNDING * torch.finfo(dtype).eps
        self.changes = entry_changes if changes is None else changes
        default = 1e-6 if dtype == torch.float32 else 1e-13
        self.tolerance = default if tolerance is None else tolerance

    def looks(self, step: int) -> bool:
        """Whether ``stop`` wants to see the state of this step."""
        if step in self.starts:
            self.run, self.past, self.change = self.starts[step], None, None
        run = self.run
        return run is not None and step < run.stop - 1 and (step - run.start) % self.every == 0

    def stop(self, state: Any) -> int | None:
        """End of the run if its remaining steps equal ``state``, else None.

        To be asked where ``looks(step)``. A state is a tensor ``(N, K, K)``, or one matrix as an
        array ``(K, K)``.
        """
        if self.run is None:
            return None
        settled = self.past is not None and self._settled(self.changes(state, self.past))
        self.past = state.clone() if isinstance(state, Tensor) else state.copy()
        return self.run.stop if settled else None

    def _settled(self, change: list[float]) -> bool:
        before, self.change = self.change, change
        if before is None:
            return all(value <= self.rounding for value in change)
        return all(map(self._quiet, change, before))

    def _quiet(self, change: float, before: float) -> bool:
        """Whether what is still to come of one matrix, relative to its entries, is nothing."""
        if change <= self.rounding:
            return True
        ratio = min(change / max(before, TINY), 0.999999)
        return change * ratio <= self.tolerance * (1.0 - ratio)


def entry_changes(state: Any, past: Any) -> list[float]:
    """Largest change of every matrix, relative to its largest entry."""
    if isinstance(state, Tensor):
        changes, scales = torch.stack((state - past, state)).abs().amax((-2, -1)).tolist()
    else:
        changes, scales = ([float(np.abs(x).max())] for x in (state - past, state))
    return [a / max(b, TINY) for a, b in zip(changes, scales, strict=True)]


def covariance_changes(state: Any, past: Any, largest: float) -> list[float]:
    r"""Change of every precision F by what it does to the covariance.

    Where process noise is small, entries of F differ by orders of magnitude, and what is nothing
    beside the largest is all that is known of another state: a slope that never changes becomes
    known ever better, a tiny bit with each step. So a change is :math:`\|F^{-1}\Delta F\|` (the
    root of the trace of its square), which no choice of units changes. F is the difference of
    numbers as large as ``largest``: what these round to is no change.
    """
    now, before = (torch.as_tensor(x).view(-1, *x.shape[-2:]) for x in (state, past))
    inverse, failed = torch.linalg.inv_ex(now)
    moved = inverse @ (now - before)
    change = (moved * moved.mT).sum((-2, -1)).abs().sqrt()
    noise = _ROUNDING * torch.finfo(now.dtype).eps * largest * inverse.abs().amax((-2, -1))
    change = torch.where(change <= noise, 0.0, change)
    return torch.where(failed > 0, torch.inf, change).tolist()


class Steps:
    """Views of single steps, made as they are needed: a long run that is filled in needs few.

    Parameters
    ----------
    values : Tensor (T, ...)
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.start = 0
        self.views: tuple[Tensor, ...] = ()

    def __getitem__(self, step: int) -> Tensor:
        at = step - self.start
        if not 0 <= at < len(self.views):
            self.start = step // VIEWS * VIEWS
            self.views = self.values[self.start : self.start + VIEWS].unbind(0)
            at = step - self.start
        return self.views[at]


def step_views(values: Tensor) -> Sequence[Tensor] | Steps:
    """Split ``(T, ...)`` into steps: at once if they are few."""
    return values.unbind(0) if values.shape[0] <= 2 * VIEWS else Steps(values)


def constant_affine(
    matrix: Tensor,
    constants: Tensor,
    past: Tensor,
    reverse: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Run ``x_t = x_{t-1} M + g_t`` with one matrix, by chunks side by side.

    Parameters
    ----------
    matrix : Tensor (N, K, K)
        M.
    constants : Tensor (L, N, R, K)
        g.
    past : Tensor (N, R, K)
        x before the first visited step.
    reverse : bool, default=False
        Visit the last step first.
    out : Tensor (L, N, R, K), optional

    Returns
    -------
    Tensor (L, N, R, K)
    """
    n_steps = constants.shape[0]
    if out is None:
        out = torch.empty_like(constants, memory_format=torch.contiguous_format)
    width = math.isqrt(n_steps)
    # Steps that fill no chunk are the last visited.
    whole = n_steps // width * width if n_steps >= CHUNKED_FROM else 0
    inside, rest = slice(0, whole), slice(whole, n_steps)
    if reverse:
        inside, rest = slice(n_steps - whole, n_steps), slice(0, n_steps - whole)
    if whole:
        chunks, target = (x[inside].unflatten(0, (-1, width)) for x in (constants, out))
        past = _chunked(matrix, chunks, past, reverse, target)
    if whole < n_steps:
        edge = (constants[rest], past[None]) if reverse else (past[None], constants[rest])
        states = torch.cat(edge)
        _accumulate(matrix, states, reverse)
        out[rest] = states[:-1] if reverse else states[1:]
    return out


def _chunked(matrix: Tensor, chunks: Tensor, past: Tensor, reverse: bool, out: Tensor) -> Tensor:
    """Run over chunks ``(C, c, N, R, K)`` into ``out``; return the last visited state."""
    count, width, n, rows, size = chunks.shape
    local = chunks.new_empty(width, n, count, rows, size)
    local.copy_(chunks.permute(1, 2, 0, 3, 4))
    _accumulate(matrix, local.flatten(2, 3), reverse)
    powers = _powers(matrix, width)
    # Every chunk is given the state before it.
    ends = local[0 if reverse else -1].transpose(0, 1)
    states = torch.cat((ends, past[None]) if reverse else (past[None], ends))
    _accumulate(powers[-1], states, reverse)
    before = states[1:] if reverse else states[:-1]
    steps = (powers.flip(0) if reverse else powers).permute(1, 2, 0, 3).flatten(2)
    carried = before.transpose(0, 1).flatten(1, 2) @ steps
    carried = carried.unflatten(2, (width, size)).unflatten(1, (count, rows))
    torch.add(local.permute(2, 0, 1, 3, 4), carried.permute(1, 3, 0, 2, 4), out=out)
    return states[0 if reverse else -1]


def _accumulate(matrix: Tensor, states: Tensor, reverse: bool) -> None:
    """``x_t += x_{t-1} M`` in place, ``(T, N, R, K)``."""
    visited = list(states.unbind(0))
    if reverse:
        visited.reverse()
    for past, state in pairwise(visited):
        state.baddbmm_(past, matrix)


def _powers(matrix: Tensor, count: int) -> Tensor:
    """M, ..., M^count: ``(count, N, K, K)``."""
    powers = matrix[None]
    while powers.shape[0] < count:
        powers = torch.cat((powers, powers @ powers[-1]))
    return powers[:count]
