r"""Covariances of one chain that all series share, on the host, and their adjoints.

What ``joint_elimination`` and ``joint_covariances``, whose notation is used, do for any number of
matrices a step. Here a step has one small matrix, a product of two takes no longer than a call of
PyTorch, and calls make the price: numpy and LAPACK, and steps with equal matrices share a slot. A
recursion whose coefficients do not change settles (module ``steady``) after a few steps; the rest
of such a run is one slot.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from tsvae.lds.host_prior import HostPrior
from tsvae.lds.joint_elimination import LEAST_SHARE
from tsvae.lds.natural_factor import Array
from tsvae.lds.scans import CHUNKED_BELOW
from tsvae.lds.steady import CHUNKED_FROM, SHORTEST, Run, Settling, Watch, constant_affine
from tsvae.lds.stepping import InverseRoots

# A look at a state costs a fraction of one step.
WATCH = Watch(SHORTEST, 2)


class Slots(NamedTuple):
    """Matrices of steps, equal ones once.

    Attributes
    ----------
    values : ndarray (n, K, K)
    at : list of int
        Slot of every step.
    """

    values: Array
    at: list[int]

    def diagonals(self) -> Array:
        """Of every step, ``(T, K)``."""
        found: Array = np.diagonal(self.values, axis1=1, axis2=2)[self.at]
        return found

    def total(self) -> Array:
        """Sum over steps, ``(K, K)``."""
        found: Array = (_counts(self.at, self.values) * self.values).sum(0)
        return found


class HostElimination(NamedTuple):
    """What ``joint_elimination`` finds.

    Attributes
    ----------
    conditional : Slots
        M^-1.
    gain : ndarray (n, K, K)
        G of the same slots; zero in that of the last step.
    log_det : float
        log |H|.
    potential_at : list of int
        Equal for neighbouring steps whose potentials are.
    """

    conditional: Slots
    gain: Array
    log_det: float
    potential_at: list[int]

    def to(self, dtype: np.dtype[Any]) -> HostElimination:
        """Return it in that precision."""
        conditional = self.conditional._replace(values=self.conditional.values.astype(dtype))
        return self._replace(conditional=conditional, gain=self.gain.astype(dtype))


class HostSmoothing(NamedTuple):
    """Smoothed covariances and, in the same slots, ``G_t S_{t+1}``."""

    smoothed: Slots
    crossed: Array

    def to(self, dtype: np.dtype[Any]) -> HostSmoothing:
        """Return it in that precision."""
        smoothed = self.smoothed._replace(values=self.smoothed.values.astype(dtype))
        return HostSmoothing(smoothed, self.crossed.astype(dtype))


class PivotAdjoint(NamedTuple):
    """Adjoint of M_t, and the gradient of B ``(K, K)``."""

    pivots: Slots
    coupling: Array


def numbered(keys: Iterable[Hashable]) -> tuple[list[Any], list[int]]:
    """Keys without those equal to their predecessor, and which of these each one is."""
    distinct: list[Hashable] = []
    at: list[int] = []
    for key in keys:
        if not distinct or key != distinct[-1]:
            distinct.append(key)
        at.append(len(distinct) - 1)
    return distinct, at


def eliminate_on_host(prior: HostPrior, potential: Array) -> HostElimination | None:
    """Eliminate in the precision of the potential where that is enough, else in float64.

    Parameters
    ----------
    prior : HostPrior
        Of one group.
    potential : ndarray (T, K)
        Diagonal of Lambda.

    Returns
    -------
    HostElimination or None
        None where a factor fails.
    """
    if potential.dtype == np.float64:
        return _eliminate(prior, potential, 1e-14)
    largest = float(np.diagonal(prior.arriving[0]).max())
    found = None
    if _least_pivot(prior) >= LEAST_SHARE * largest:
        found = _eliminate(prior, potential, 3e-8, LEAST_SHARE * largest)
    if found is None:
        found = _eliminate(prior, potential.astype(float), 3e-8)
        found = None if found is None else found.to(potential.dtype)
    return found


def _least_pivot(prior: HostPrior) -> float:
    """Least squared pivot of C = A'JA, which M exceeds; 0 if there is none."""
    leaving = prior.given.transition_matrix[0].T @ prior.coupling[0]
    try:
        return float(np.diagonal(np.linalg.cholesky(leaving)).min()) ** 2
    except np.linalg.LinAlgError:
        return 0.0


def _eliminate(
    prior: HostPrior, potential: Array, tolerance: float, least: float = 0.0
) -> HostElimination | None:
    """Eliminate in the precision of the potential; None below the ``least`` squared pivot."""
    (n_steps, size), dtype = potential.shape, potential.dtype
    inverses, turned = np.empty((2, n_steps, size, size), dtype)
    diagonals = inverses.reshape(n_steps, -1)[:, :: size + 1]
    inner = (prior.arriving[0] + prior.leaving[0]).astype(dtype)
    ends = {0: prior.initial[0] + prior.leaving[0], n_steps - 1: prior.arriving[0]}
    if n_steps == 1:
        ends = {0: prior.initial[0]}
    towards = np.ascontiguousarray(prior.coupling[0].T, dtype)
    factor = InverseRoots(inverses)
    changes = [False, *(potential[1:] != potential[:-1]).any(1).tolist()]
    potential_at = np.cumsum(changes).tolist()

    def take(step: int, slot: int) -> Array:
        total = inverses[slot]
        total[...] = ends.get(step, inner)
        diagonals[slot] += potential[step]
        if step:
            half = turned[slot - 1]
            total -= half.T @ half
        if not factor(slot):
            raise np.linalg.LinAlgError
        np.matmul(total, towards, out=turned[slot])
        return total

    # Nothing follows the last step, whose matrix is another for that reason.
    try:
        at = _visit([*potential_at[:-1], -1], take, dtype, tolerance)
    except np.linalg.LinAlgError:
        return None
    count = at[-1] + 1
    inverses, turned, roots = inverses[:count], turned[:count], diagonals[:count]
    turned[-1] = 0.0
    if float(roots.max()) ** 2 * least > 1.0:
        return None
    conditional = inverses.swapaxes(1, 2) @ inverses
    pull = turned.swapaxes(1, 2) @ inverses
    log_det = -2.0 * np.log(roots).sum(1, dtype=float)[at].sum()
    return HostElimination(
        Slots(conditional, at), pull.swapaxes(1, 2), float(log_det), potential_at
    )


def _visit(
    keys: Sequence[Hashable],
    take: Callable[[int, int], Array],
    dtype: np.dtype[Any],
    tolerance: float | None = None,
) -> list[int]:
    """Take steps in the order of ``keys``, which are equal where coefficients are; their slots.

    ``take(step, slot)`` works out a step, counted in that order, from the slot before, and returns
    what is watched.
    """
    kind = torch.float32 if dtype == np.float32 else torch.float64
    settling = Settling(_runs(keys), kind, tolerance, WATCH)
    at: list[int] = []
    slot = 0
    while len(at) < len(keys):
        step = len(at)
        state = take(step, slot)
        at.append(slot)
        stop = settling.stop(state) if settling.looks(step) else None
        if stop is not None:
            at.extend([slot] * (stop - step - 1))
        slot += 1
    return at


def _runs(keys: Sequence[Hashable]) -> list[Run]:
    starts = [step for step, key in enumerate(keys) if step == 0 or key != keys[step - 1]]
    return [Run(*ends) for ends in pairwise([*starts, len(keys)])]


def walk(rows: Array, matrices: Array, links: list[int]) -> None:
    """``x_t += x_{t-1} M`` in place for rows ``(T, R, K)``, from the first on.

    Parameters
    ----------
    rows : ndarray (T, R, K)
    matrices : ndarray (n, K, K)
        M.
    links : list of int
        Which of them leads to each step but the first.
    """
    _, count, size = rows.shape
    runs = []
    if count * size * size <= CHUNKED_BELOW:
        runs = [run for run in _runs(links) if run.stop - run.start > CHUNKED_FROM]
    stops = {run.start: run.stop for run in runs}
    step, last = 0, len(links)
    while step < last:
        matrix = matrices[links[step]]
        if step in stops:
            # Chunks side by side.
            block = slice(step + 1, stops[step] + 1)
            past, constants = (torch.from_numpy(x.copy()) for x in (rows[None, step], rows[block]))
            link = torch.from_numpy(matrix.copy())[None]
            rows[block] = constant_affine(link, constants[:, None], past).numpy()[:, 0]
            step = stops[step]
        else:
            rows[step + 1] += rows[step] @ matrix
            step += 1


def smooth_on_host(elimination: HostElimination) -> HostSmoothing:
    """Smoothed covariances, ``S_t = M_t^-1 + G_t S_{t+1} G_t'``."""
    (conditional, at), gain = elimination.conditional, elimination.gain
    found, crossed = np.empty((2, len(at), *gain.shape[1:]), gain.dtype)
    back = at[::-1]

    def take(step: int, slot: int) -> Array:
        here = back[step]
        if step:
            np.matmul(gain[here], found[slot - 1], out=crossed[slot])
            np.matmul(crossed[slot], gain[here].T, out=found[slot])
            found[slot] += conditional[here]
        else:
            found[slot], crossed[slot] = conditional[here], 0.0
        return found[slot]

    slots = _visit(back, take, gain.dtype)
    count = slots[-1] + 1
    return HostSmoothing(Slots(found[:count], slots[::-1]), crossed[:count])


def adjoint_on_host(
    elimination: HostElimination, smoothing: HostSmoothing, half: float, potential: Array
) -> PivotAdjoint:
    r"""Adjoint of the pivots and of B, where :math:`w(\tfrac12\log|H| - \tfrac12tr(\Lambda S))` is.

    Parameters
    ----------
    elimination : HostElimination
    smoothing : HostSmoothing
    half : float
        w / 2.
    potential : ndarray (T, K)
        Diagonal of Lambda.

    Returns
    -------
    PivotAdjoint
    """
    source, coupling = _pivot_sources(elimination, smoothing, half, potential)
    at, gain = elimination.conditional.at, elimination.gain
    found = np.empty((len(at), *gain.shape[1:]), gain.dtype)
    back, own = at[::-1], source.at[::-1]

    def take(step: int, slot: int) -> Array:
        if step:
            link = gain[back[step]]
            np.matmul(link @ found[slot - 1], link.T, out=found[slot])
            found[slot] += source.values[own[step]]
        else:
            found[slot] = source.values[own[step]]
        return found[slot]

    slots = _visit(list(zip(back, own, strict=True)), take, gain.dtype)[::-1]
    # Y_{t+1} G_t', once for every combination.
    moves, move_at = numbered(zip(slots[1:], at[:-1], strict=True))
    if moves:
        one, two = np.array(moves).T
        scaled = gain[two] * (2.0 * _counts(move_at, gain))
        coupling -= _summed(found[one], scaled.swapaxes(1, 2))
    return PivotAdjoint(Slots(found[: slots[0] + 1], slots), coupling)


def _pivot_sources(
    elimination: HostElimination, smoothing: HostSmoothing, half: float, potential: Array
) -> tuple[Slots, Array]:
    """Sum what a step's own results add to the adjoint of M_t, and to the gradient of B.

    As ``joint_covariances._adjoint_source``.
    """
    (conditional, at), gain = elimination.conditional, elimination.gain
    later = _smoother_adjoint(elimination, -half * potential)
    # Z_t, S_t and M_t of every combination of theirs that occurs.
    keys, own_at = numbered(zip(later.at, smoothing.smoothed.at, at, strict=True))
    z, s, m = np.array(keys).T
    own = conditional[m]
    p = later.values[z] @ own  # P'
    turned = (smoothing.smoothed.values[s] - 0.5 * own) @ p
    p *= 2.0 * _counts(own_at, gain)
    coupling = _summed(smoothing.crossed[s], p)
    own *= half
    own -= turned
    own -= turned.swapaxes(1, 2)
    return Slots(own, own_at), coupling


def _counts(at: list[int], like: Array) -> Array:
    """Count the steps of every slot, ``(n, 1, 1)``."""
    return np.bincount(at).astype(like.dtype)[:, None, None]


def _smoother_adjoint(elimination: HostElimination, diagonals: Array) -> Slots:
    """Z_t: adjoint of the smoothed covariances, ``Z_{t+1} = D_{t+1} + G_t' Z_t G_t``."""
    at, gain = elimination.conditional.at, elimination.gain
    found = np.empty((len(at), *gain.shape[1:]), gain.dtype)
    own = found.reshape(len(at), -1)[:, :: gain.shape[1] + 1]

    def take(step: int, slot: int) -> Array:
        if step:
            link = gain[at[step - 1]]
            np.matmul(link.T @ found[slot - 1], link, out=found[slot])
        else:
            found[slot] = 0.0
        own[slot] += diagonals[step]
        return found[slot]

    keys = list(zip([-1, *at[:-1]], elimination.potential_at, strict=True))
    slots = _visit(keys, take, gain.dtype)
    return Slots(found[: slots[-1] + 1], slots)


def _summed(left: Array, right: Array) -> Array:
    """``sum_n left_n' right_n``."""
    # One product so large that numpy's BLAS would start threads of its own.
    one, two = (
        torch.from_numpy(np.ascontiguousarray(x).reshape(-1, x.shape[2])) for x in (left, right)
    )
    found: Array = (one.mT @ two).numpy()
    return found
