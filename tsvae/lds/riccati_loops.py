"""Riccati recursion step by step, and in stretches of time side by side.

Where the filter forgets, a predicted covariance depends on the recent past alone. So time is cut
into stretches that all start from Q, as if the state before were known, and run together; then each
starts again from the end of the one before it and runs until it meets what it was the first time:
from there on nothing changes. That is the arithmetic of the loop and a little more, without its
calls and without the composition of maps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tsvae.lds.components import TIME, steps

__all__ = ["pair_loop", "pair_stretches", "scalar_loop"]

_NUMBERS = 2048  # of a plane that is handled at once
_SHORTEST = 32  # steps of a stretch
_PARTS = 4  # of a stretch, after each of which is looked
_CLOSE = 8.0  # units of rounding that two runs may differ by


def scalar_loop(a: Tensor, q: Tensor, p: Tensor, precision: Tensor, out: Tensor) -> None:
    """Run the recursion of single dimensions; parameters as of :func:`pair_loop`."""
    square, noise = (a * a)[0, 0, 0], q[0, 0, 0]
    targets = out[0, 0].unbind(0)
    targets[0].copy_(p[0, 0, 0])
    one = torch.ones_like(targets[0])
    for lam, before, after in zip(
        precision[0, 0, :-1].unbind(0), targets[:-1], targets[1:], strict=True
    ):
        odds = torch.addcmul(one, before, lam)
        torch.addcmul(noise, square, torch.div(before, odds, out=odds), out=after)


def pair_loop(a: Tensor, q: Tensor, p: Tensor, precision: Tensor, out: Tensor) -> None:
    """Run the recursion of pairs on the three distinct entries of the matrices, stacked.

    Parameters
    ----------
    a, q, p : Tensor (2, 2, 1, 1, 1, G)
        A, Q and the first predicted covariance.
    precision, out : Tensor (2, 2, T, P, 1, G)
    """
    moves = _PairMoves(a, q, _distinct(precision))
    entries = torch.empty_like(moves.weights)
    entries[:, :1].copy_(_distinct(p))
    moves.run(entries, 0, entries.shape[1] - 1)
    _spread(entries, out)


class _PairMoves:
    """Steps of the recursion on distinct entries ``(3, T, P, 1, G)``; see ``components``."""

    def __init__(self, a: Tensor, q: Tensor, lam: Tensor) -> None:
        self.weights = lam
        product = lam[0] * lam[2]
        eps = torch.finfo(lam.dtype).eps
        self.determinant = torch.addcmul(product, lam[1], lam[1], value=-1.0)
        torch.maximum(self.determinant, product.mul_(eps), out=self.determinant)
        self.adjugate = torch.stack((lam[2], -lam[1], lam[0]))
        lam[1].mul_(2.0)
        self.columns, self.noise = _congruence_columns(a), _distinct(q)[:, 0]

    def run(self, entries: Tensor, first: int, last: int) -> None:
        """Fill ``entries`` after step ``first`` up to ``last``."""
        here = slice(first, last)
        states, parts = entries.unbind(1), [entry.unbind(0) for entry in entries.unbind(0)]
        weights = [entry[here].unbind(0) for entry in self.weights.unbind(0)]
        det, odds, floor = (torch.empty_like(states[0][0]) for _ in range(3))
        one, after = torch.ones_like(det), torch.empty_like(states[0])
        columns, after_parts = self.columns, after.unbind(0)
        eps = torch.finfo(det.dtype).eps
        known = zip(self.adjugate[:, here].unbind(1), self.determinant[here].unbind(0), strict=True)
        for t, (adj, dlam) in enumerate(known):
            x, y, z = (part[first + t] for part in parts)
            torch.mul(x, z, out=floor)
            torch.addcmul(floor, y, y, value=-1.0, out=det)
            torch.maximum(det, floor.mul_(eps), out=det)
            torch.addcmul(one, x, weights[0][t], out=odds)
            odds.addcmul_(y, weights[1][t]).addcmul_(z, weights[2][t]).addcmul_(det, dlam)
            torch.addcmul(states[first + t], det, adj, out=after).div_(odds)
            target = states[first + t + 1]
            torch.addcmul(self.noise, columns[0], after_parts[0], out=target)
            target.addcmul_(columns[1], after_parts[1]).addcmul_(columns[2], after_parts[2])


def _distinct(matrices: Tensor) -> Tensor:
    """``(2, 2, ...)`` -> ``(3, ...)``."""
    return torch.stack((matrices[0, 0], matrices[0, 1], matrices[1, 1]))


def _spread(entries: Tensor, out: Tensor) -> None:
    """Write distinct entries ``(3, ...)`` into matrices ``(2, 2, ...)``."""
    out[0, 0].copy_(entries[0])
    out[1, 1].copy_(entries[2])
    out[0, 1].copy_(entries[1])
    out[1, 0].copy_(entries[1])


def _congruence_columns(a: Tensor) -> list[Tensor]:
    """Columns of the 3 x 3 map of distinct entries S -> A S A'."""
    a, b, c, d = a[0, 0, 0], a[0, 1, 0], a[1, 0, 0], a[1, 1, 0]
    return [
        torch.stack((a * a, a * c, c * c)),
        torch.stack((2 * a * b, a * d + b * c, 2 * c * d)),
        torch.stack((b * b, b * d, d * d)),
    ]


def pair_stretches(a: Tensor, q: Tensor, p: Tensor, precision: Tensor, out: Tensor) -> bool:
    """Run the recursion of pairs in stretches of time; parameters as of :func:`pair_loop`.

    Returns
    -------
    bool
        False where it is too short, not on a CPU, or does not forget within a stretch; ``out`` is
        then worth nothing.
    """
    n_links, width = precision.shape[TIME] - 1, math.prod(precision.shape[-3:])
    number = min(_NUMBERS // width, n_links // _SHORTEST)
    if number < 2 or precision.device.type != "cpu":
        return False
    length = n_links // number
    number = n_links // length
    moves = _PairMoves(a, q, _side_by_side(precision, length))
    entries = torch.empty_like(moves.weights)
    # As if the state before each stretch were known.
    entries[:, 0] = moves.noise
    _stretches(entries, number)[:, 0, 0] = _distinct(p)[:, 0]
    moves.run(entries, 0, length)
    if not _meet(moves, entries, number):
        return False
    done = number * length
    kept = _stretches(entries, number).transpose(1, 2)  # (3, N, length + 1, P, 1, G)
    _spread(kept[:, :, :-1], steps(out, 0, done).unflatten(TIME, (number, length)))
    rest = _PairMoves(a, q, _distinct(steps(precision, done)))
    tail = torch.empty_like(rest.weights)
    tail[:, 0] = kept[:, -1, -1]
    rest.run(tail, 0, tail.shape[1] - 1)
    _spread(tail, steps(out, done))
    return True


def _side_by_side(precision: Tensor, length: int) -> Tensor:
    """Distinct entries of all stretches ``(3, length + 1, N * P, 1, G)``.

    Each stretch ends with the first step of the next.
    """
    rows = [precision[i, j].unfold(0, length + 1, length) for i, j in ((0, 0), (0, 1), (1, 1))]
    return torch.stack([row.movedim(-1, 0).flatten(1, 2) for row in rows])


def _stretches(entries: Tensor, number: int) -> Tensor:
    """``(3, T, N * P, 1, G)`` -> ``(3, T, N, P, 1, G)`` (a view)."""
    return entries.unflatten(2, (number, -1))


def _meet(moves: _PairMoves, entries: Tensor, number: int) -> bool:
    """Run again from the ends of the stretches before, until nothing changes."""
    length = entries.shape[1] - 1
    before = entries[:, 0].clone()
    by_stretch = _stretches(entries, number)
    by_stretch[:, 0, 1:] = by_stretch[:, -1, :-1].clone()
    distance = first = _distance(entries[:, 0], before)
    part = -(-length // _PARTS)
    for start in range(0, length, part):
        end = min(start + part, length)
        before = entries[:, end].clone()
        moves.run(entries, start, end)
        distance = _distance(entries[:, end], before)
        if distance <= 1.0:
            return True
        if not _meets_in(length, end, first, distance):
            return False
    return False


def _distance(entries: Tensor, before: Tensor) -> float:
    """Largest difference, in units of what counts as none."""
    unit = _CLOSE * torch.finfo(before.dtype).eps * before.abs().amax(0)
    return float(((entries - before).abs().amax(0) / unit).amax())


def _meets_in(length: int, step: int, first: float, now: float) -> bool:
    """Whether a distance that goes on to shrink as it did is gone within a stretch."""
    return now < first and step * math.log(first) / math.log(first / now) < length
