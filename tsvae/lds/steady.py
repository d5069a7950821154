r"""Stretches of time over which a recursion's coefficients do not change.

Precisions depend on what is present, not on values: while nothing is missing, or everything is,
a recursion of covariances meets the same matrices at every step and settles after some tens of
steps, and a recursion of means,

.. math:: x_t = x_{t-1} M + g_t \quad (\text{rows}),

is a convolution: chunks of it are one product with the block-triangular matrix of powers of M, and
the ends of chunks obey the same recursion with :math:`M^c`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 16  # steps that one product takes at once
CHECK_EVERY = 16  # steps between two looks at whether a recursion has settled
SHORTEST = 32  # a run of fewer steps is not worth the search


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
    flat = [value.reshape(n_steps, -1) for value in values]
    # One number of each tells nearly always that nothing stays the same.
    for columns in (slice(0, 1), slice(None)):
        same = torch.ones(n_steps - 1, dtype=torch.bool, device=flat[0].device)
        for value in flat:
            same &= (value[1:, columns] == value[:-1, columns]).all(1)
        breaks = (~same).nonzero().flatten().tolist()
        edges = [0, *(step + 1 for step in breaks), n_steps]
        runs = [Run(*ends) for ends in pairwise(edges) if ends[1] - ends[0] >= SHORTEST]
        if not runs:
            break
    return runs


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


def constant_affine(matrix: Tensor, constants: Tensor, past: Tensor) -> Tensor:
    """Run ``x_t = x_{t-1} M + g_t`` with one matrix, by chunks.

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
    if n_steps <= CHUNK:
        states = []
        for constant in constants.unbind(0):
            past = torch.baddbmm(constant, past, matrix)
            states.append(past)
        return torch.stack(states)
    powers = _powers(matrix)
    count = -(-n_steps // CHUNK)
    padded = torch.nn.functional.pad(constants, (0, 0) * 3 + (0, count * CHUNK - n_steps))
    chunks = padded.unflatten(0, (count, CHUNK)).permute(2, 0, 3, 1, 4)  # (N, C, R, c, K)
    local = chunks.reshape(n, count * rows, CHUNK * size) @ _convolution(powers)
    local = local.reshape(n, count, rows, CHUNK, size)
    ends = constant_affine(powers[-1], local[..., -1, :].transpose(0, 1), past)
    before = torch.cat((past[None], ends[:-1])).transpose(0, 1).reshape(n, count * rows, size)
    carried = before @ powers[1:].permute(1, 2, 0, 3).reshape(n, size, CHUNK * size)
    states = local + carried.reshape(local.shape)
    return states.permute(1, 3, 0, 2, 4).flatten(0, 1)[:n_steps]


def _powers(matrix: Tensor) -> Tensor:
    """I, M, ..., M^CHUNK: ``(CHUNK + 1, N, K, K)``."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    powers = torch.stack((eye.expand_as(matrix), matrix))
    while powers.shape[0] <= CHUNK:
        powers = torch.cat((powers, powers[1:] @ powers[-1]))
    return powers[: CHUNK + 1]


def _convolution(powers: Tensor) -> Tensor:
    """Matrix of a chunk without past: row block i, column block j holds M^(j-i), 0 below."""
    _, n, size, _ = powers.shape
    clock = torch.arange(CHUNK, device=powers.device)
    lag = clock - clock[:, None]
    blocks = powers[lag.clamp_min(0)] * (lag >= 0)[..., None, None, None]
    return blocks.permute(2, 0, 3, 1, 4).reshape(n, CHUNK * size, CHUNK * size)
