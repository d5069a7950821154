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
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

CHECK_EVERY = 4  # steps between two looks at whether a recursion has settled
SHORTEST = 12  # a run of fewer steps is not worth the search
CHUNKED_FROM = 48  # likewise for chunks
VIEWS = 64  # steps that ``Steps`` splits at a time


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
    # One number of each tells nearly always that nothing stays the same.
    first = [value.as_strided((n_steps,), (value.stride(0),)) for value in values]
    runs = _runs_of([x[1:] == x[:-1] for x in first], n_steps)
    if not runs:
        return []
    return _runs_of([(x[1:] == x[:-1]).flatten(1).all(1) for x in values], n_steps)


def _runs_of(same: list[Tensor], n_steps: int) -> list[Run]:
    breaks = (~torch.stack(same).all(0)).nonzero().flatten().tolist()
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


class Settling:
    """Watches one recursion and says when the rest of a run may be filled in.

    The change over ``CHECK_EVERY`` steps shrinks geometrically, so what is still to come is about
    change * q / (1 - q), q being the ratio of the last two changes; it must be below ``tolerance``
    of the largest entry, matrix by matrix. Changes at rounding level count as settled.

    Parameters
    ----------
    runs : list of Run
    dtype : torch.dtype
        Of the recursion's states; sets the tolerance unless it is given.
    tolerance : float, optional
        1e-6 in float32, 1e-13 in float64.
    """

    def __init__(self, runs: list[Run], dtype: torch.dtype, tolerance: float | None = None) -> None:
        self.starts = {run.start: run for run in runs}
        self.run: Run | None = None
        self.past: Tensor | None = None
        self.change: Tensor | None = None
        self.rounding = 4.0 * torch.finfo(dtype).eps
        default = 1e-6 if dtype == torch.float32 else 1e-13
        self.tolerance = default if tolerance is None else tolerance

    def stop(self, step: int, state: Tensor) -> int | None:
        """End of the run if its remaining steps equal ``state (N, K, K)``, else None."""
        if step in self.starts:
            self.run, self.past, self.change = self.starts[step], None, None
        run = self.run
        if run is None or step >= run.stop - 1 or (step - run.start) % CHECK_EVERY:
            return None
        settled = self.past is not None and self._settled(state, self.past)
        self.past = state.clone()
        return run.stop if settled else None

    def _settled(self, state: Tensor, past: Tensor) -> bool:
        scale = state.abs().amax((-2, -1))
        change, before = (state - past).abs().amax((-2, -1)), self.change
        self.change = change
        quiet = change <= self.rounding * scale
        if before is not None:
            ratio = (change / before.clamp_min(torch.finfo(change.dtype).tiny)).clamp_max(0.999999)
            quiet |= change * ratio / (1.0 - ratio) <= self.tolerance * scale
        return bool(quiet.all())


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
    return values.unbind(0) if values.shape[0] <= 4 * VIEWS else Steps(values)


def constant_affine(matrix: Tensor, constants: Tensor, past: Tensor) -> Tensor:
    """Run ``x_t = x_{t-1} M + g_t`` with one matrix, by chunks side by side.

    Parameters
    ----------
    matrix : Tensor (N, K, K)
        M.
    constants : Tensor (L, N, R, K)
        g.
    past : Tensor (N, R, K)
        x before the first step.

    Returns
    -------
    Tensor (L, N, R, K)
    """
    n_steps, n, rows, size = constants.shape
    if n_steps < CHUNKED_FROM:
        return _sequential(matrix, constants, past)
    width = math.isqrt(n_steps)
    count = -(-n_steps // width)
    padded = torch.nn.functional.pad(constants, (0, 0) * 3 + (0, count * width - n_steps))
    chunks = padded.unflatten(0, (count, width)).permute(1, 2, 0, 3, 4)  # (c, N, C, R, K)
    local = _sequential(matrix, chunks.flatten(2, 3), past.new_zeros(n, count * rows, size))
    powers = _powers(matrix, width)
    ends = local[-1].unflatten(1, (count, rows)).transpose(0, 1)
    ends = _sequential(powers[-1], ends, past)
    before = torch.cat((past[None], ends[:-1])).transpose(0, 1).flatten(1, 2)
    carried = before @ powers.permute(1, 2, 0, 3).reshape(n, size, width * size)
    local += carried.unflatten(2, (width, size)).permute(2, 0, 1, 3)
    states = local.unflatten(2, (count, rows)).permute(2, 0, 1, 3, 4)
    return states.flatten(0, 1)[:n_steps]


def _sequential(matrix: Tensor, constants: Tensor, past: Tensor) -> Tensor:
    out = torch.empty_like(constants, memory_format=torch.contiguous_format)
    for constant, state in zip(constants.unbind(0), out.unbind(0), strict=True):
        torch.baddbmm(constant, past, matrix, out=state)
        past = state
    return out


def _powers(matrix: Tensor, count: int) -> Tensor:
    """M, ..., M^count: ``(count, N, K, K)``."""
    powers = matrix[None]
    while powers.shape[0] < count:
        powers = torch.cat((powers, powers @ powers[-1]))
    return powers[:count]
