"""Intervals of a back-test rescaled by how earlier ones fared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._conformal import conformal_rank

__all__ = ["rescale_by_past"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

_MEMORY = 4.0  # horizons
_FEWEST_ORIGINS = 5
_ENOUGH_ORIGINS = 100
_GROUPS = 4  # of steps ahead
_PRIOR = 20.0  # horizons behind intervals as they are
_GRID = np.geomspace(0.5, 4.0, 4097)  # factors, 0.05 % apart
_TINY = 1e-12


def rescale_by_past(
    quantiles: Float,
    observed: Float,
    mask: Bool,
    origins: Int,
    levels: Sequence[float],
    memory: float = _MEMORY,
    enough: int = _ENOUGH_ORIGINS,
) -> Float:
    """Rescale the quantiles of each origin around the median by what was known by then.

    The factor of a level is the conformal quantile of |truth - median| over the distance of the
    interval's bound on that side from the median, over earlier origins whose outcomes are known
    (origin + steps ahead <= this origin), pooled over series and variables and over a group of
    steps. Factors lie on a grid between 1/2 and 4, 0.05 % apart, on which scores are counted as
    origins become known, and are shrunk to 1 by the weight of twenty horizons; below five known
    origins quantiles stay.

    Parameters
    ----------
    quantiles : ndarray (O, B, H, F, Q)
    observed : ndarray (O, B, H, F)
    mask : bool ndarray (O, B, H, F)
        True where the truth is known and scored.
    origins : ndarray of int (O,)
        Steps of history, increasing.
    levels : sequence of float (Q,)
        Increasing; 0.5 among them.
    memory : float, default=4.0
        Horizons back from the latest known origin that are looked at: how errors spread changes.
    enough : int, default=100
        Known origins that are looked at however long ago they were.

    Returns
    -------
    ndarray (O, B, H, F, Q)
    """
    out = quantiles.copy()
    middle = int(np.argmin(np.abs(np.asarray(levels) - 0.5)))
    _, n_series, horizon, n_features, _ = quantiles.shape
    for group in np.array_split(np.arange(horizon), min(_GROUPS, horizon)):
        scores = _scores(quantiles[:, :, group], observed[:, :, group], levels, middle)
        seen = mask[:, :, group] & np.isfinite(scores).all(-1)
        reach = int(group[-1]) + 1
        windows = _windows(origins, reach, memory * horizon, enough)
        for window, counts in zip(windows, _counted(scores, seen, windows), strict=True):
            if window.known < _FEWEST_ORIGINS or not counts.any():
                continue
            evidence = n_series * n_features**0.5 * _horizons(origins[: window.known], reach)
            weight = evidence / (evidence + _PRIOR)
            recent = _horizons(origins[window.first : window.known], reach)
            factor = _factors(counts, levels, middle, n_series * n_features * recent) ** weight
            own = quantiles[window.number][:, group]
            median = own[..., [middle]]
            out[window.number][:, group] = median + factor * (own - median)
    return np.maximum.accumulate(out, axis=-1)


class _Window(NamedTuple):
    """Origins ``first`` to ``known`` (past the last) are looked at for origin ``number``."""

    number: int
    first: int
    known: int


def _windows(origins: Int, reach: int, span: float, enough: int) -> list[_Window]:
    """Origins whose outcomes are known, at least ``enough`` and all of the last ``span`` rows."""
    known = np.searchsorted(origins, origins - reach, side="right")
    within = np.searchsorted(origins, origins - reach - span, side="left")
    first = np.maximum(np.minimum(within, known - enough), 0)
    return [_Window(*map(int, row)) for row in zip(range(len(origins)), first, known, strict=True)]


def _counted(scores: Float, seen: Bool, windows: Sequence[_Window]) -> Iterator[Int]:
    """How many scores of each window lie between two factors of the grid, ``(Q, G + 1)``."""
    n_origins, n_levels, width = len(scores), scores.shape[-1], len(_GRID) + 1
    places = np.searchsorted(_GRID, scores.reshape(n_origins, -1, n_levels))
    places += width * np.arange(n_levels)

    def count(origin: int) -> Int:
        kept = places[origin][seen[origin].ravel()]
        return np.bincount(kept.ravel(), minlength=n_levels * width).reshape(n_levels, width)

    counts = np.zeros((n_levels, width), dtype=np.int64)
    first = known = 0
    for window in windows:
        for origin in range(known, window.known):
            counts += count(origin)
        for origin in range(first, window.first):
            counts -= count(origin)
        first, known = window.first, window.known
        yield counts


def _horizons(origins: Int, reach: int) -> float:
    """Horizons of ``reach`` steps that origins make up: at most one each."""
    return min(float(len(origins)), float(origins[-1] - origins[0]) / reach + 1.0)


def _scores(quantiles: Float, observed: Float, levels: Sequence[float], middle: int) -> Float:
    """|truth - median| over the half-width on the side of the truth, ``(..., Q)``."""
    distance = observed - quantiles[..., middle]
    widths = np.maximum(np.abs(quantiles - quantiles[..., [middle]]), _TINY)
    scores = np.zeros(quantiles.shape)
    for place, level in enumerate(levels):
        other = int(np.argmin(np.abs(np.asarray(levels) - (1.0 - level))))
        mirrored = other if abs(levels[other] - (1.0 - level)) < 1e-9 else place
        above, below = max(place, mirrored), min(place, mirrored)
        width = np.where(distance > 0, widths[..., above], widths[..., below])
        scores[..., place] = np.abs(distance) / width
    return scores


def _factors(counts: Int, levels: Sequence[float], middle: int, independent: float) -> Float:
    """Factor of each level, from counts on the grid."""
    factors = np.ones(len(levels))
    for place, level in enumerate(levels):
        coverage = abs(2.0 * level - 1.0)
        if place != middle and coverage:
            below = np.cumsum(counts[place])
            rank = conformal_rank(int(below[-1]), coverage, independent)
            factors[place] = _GRID[min(int(np.searchsorted(below, rank)), len(_GRID) - 1)]
    return factors
