"""Intervals of a back-test rescaled by how earlier ones fared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._conformal import conformal_share
from tsvae.model_selection._tracking import track_coverage

__all__ = ["rescale_by_past"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

_MEMORY = 4.0  # horizons
_FEWEST_ORIGINS = 5
_ENOUGH_ORIGINS = 100
_GROUPS = 4  # of steps ahead
_PRIOR = 20.0  # horizons behind intervals as they are
_GRID = np.geomspace(0.5, 4.0, 1025)  # factors, 0.2 % apart
_COARSE = np.geomspace(0.5, 4.0, 129)  # 1.6 %: a variable's own, of which little is left shrunk
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
    (origin + steps ahead <= this origin), pooled over series and a group of steps. Where there
    are several variables, each takes its own factors first; what is left is then told by all of
    them together. Factors lie on a grid between 1/2 and 4, 0.2 % apart (1.6 % for a variable's
    own), on which scores are counted as origins become known, and are shrunk to 1 by the weight of
    twenty horizons; below five known origins quantiles stay. Last, all widths of a level are
    raised where intervals issued so far held too little, and lowered where they held too much
    (`track_coverage`).

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
    horizon, n_features = quantiles.shape[2:4]
    for group in np.array_split(np.arange(horizon), min(_GROUPS, horizon)):
        windows = _windows(origins, int(group[-1]) + 1, memory * horizon, enough)
        truth = _Truth(observed[:, :, group], mask[:, :, group], origins, int(group[-1]) + 1)
        own = quantiles[:, :, group]
        if n_features > 1:
            own = _rescaled(own, truth, levels, windows, together=False)
        own = _rescaled(own, truth, levels, windows, together=True)
        out[:, :, group] = _tracked(own, truth, levels, windows)
    return np.maximum.accumulate(out, axis=-1)


class _Truth(NamedTuple):
    """What came at a group of steps ahead; a horizon is ``reach`` steps."""

    observed: Float  # (O, B, h, F)
    mask: Bool
    origins: Int
    reach: int


def _rescaled(
    quantiles: Float,
    truth: _Truth,
    levels: Sequence[float],
    windows: Sequence[_Window],
    together: bool,
) -> Float:
    """Rescale quantiles ``(O, B, h, F, Q)``, of all variables together or of each by itself."""
    out = quantiles.copy()
    middle = _middle(levels)
    n_series, n_features = quantiles.shape[1], quantiles.shape[3]
    scores, seen = _scores(quantiles, truth, levels)
    grid = _GRID if together else _COARSE
    for window, counts in zip(
        windows, _counted(scores, seen, windows, grid, together), strict=True
    ):
        if window.known < _FEWEST_ORIGINS:
            continue
        recent = n_series * _horizons(truth.origins[window.first : window.known], truth.reach)
        evidence, independent = recent, recent
        if together:
            every = n_series * _horizons(truth.origins[: window.known], truth.reach)
            evidence, independent = n_features**0.5 * every, n_features * recent
        factor = _factors(counts, grid, levels, independent) ** (evidence / (evidence + _PRIOR))
        own = quantiles[window.number]
        median = own[..., [middle]]
        out[window.number] = median + factor * (own - median)
    return out


def _tracked(
    quantiles: Float, truth: _Truth, levels: Sequence[float], windows: Sequence[_Window]
) -> Float:
    """Let the widths of quantiles ``(O, B, h, F, Q)`` follow how much earlier ones have held."""
    scores, seen = _scores(quantiles, truth, levels)
    known = np.array([window.known for window in windows])
    horizons = np.minimum(np.diff(truth.origins, prepend=truth.origins[0]) / truth.reach, 1.0)
    factors = track_coverage(scores, seen, known, horizons, _coverage(levels))
    factors[known < _FEWEST_ORIGINS] = 1.0
    median = quantiles[..., [_middle(levels)]]
    return median + factors[:, None, None, None] * (quantiles - median)


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


def _counted(
    scores: Float, seen: Bool, windows: Sequence[_Window], grid: Float, together: bool
) -> Iterator[Int]:
    """How many scores of each window lie between two factors of the grid.

    ``(F, Q, G + 1)``, or ``(1, Q, G + 1)`` for all variables together.
    """
    n_features, n_levels = scores.shape[-2:]
    width, n_apart = len(grid) + 1, 1 if together else n_features
    shape = (n_apart, n_levels, width)
    places = np.searchsorted(grid, scores) + width * np.arange(n_levels)
    if not together:
        places += width * n_levels * np.arange(n_features)[:, None]

    def count(origin: int) -> Int:
        kept = places[origin][seen[origin]]
        return np.bincount(kept.ravel(), minlength=int(np.prod(shape))).reshape(shape)

    counts = np.zeros(shape, dtype=np.int64)
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


def _scores(quantiles: Float, truth: _Truth, levels: Sequence[float]) -> tuple[Float, Bool]:
    """|truth - median| over the half-width on the side of the truth, and where it is known."""
    distance = truth.observed - quantiles[..., _middle(levels)]
    widths = np.maximum(np.abs(quantiles - quantiles[..., [_middle(levels)]]), _TINY)
    scores = np.zeros(quantiles.shape)
    for place, level in enumerate(levels):
        other = int(np.argmin(np.abs(np.asarray(levels) - (1.0 - level))))
        mirrored = other if abs(levels[other] - (1.0 - level)) < 1e-9 else place
        above, below = max(place, mirrored), min(place, mirrored)
        width = np.where(distance > 0, widths[..., above], widths[..., below])
        scores[..., place] = np.abs(distance) / width
    return scores, truth.mask & np.isfinite(scores).all(-1)


def _middle(levels: Sequence[float]) -> int:
    return int(np.argmin(np.abs(np.asarray(levels) - 0.5)))


def _coverage(levels: Sequence[float]) -> Float:
    """Share that the central interval of each level holds; 0 of the median."""
    coverage = np.abs(2.0 * np.asarray(levels) - 1.0)
    coverage[_middle(levels)] = 0.0
    return coverage


def _factors(counts: Int, grid: Float, levels: Sequence[float], independent: float) -> Float:
    """Factor of each level ``(V, Q)``, from counts on the grid; 1 where nothing is counted."""
    coverage = _coverage(levels)
    share = np.array([conformal_share(level, independent) for level in coverage])
    below = counts.cumsum(-1)
    rank = np.ceil(np.round(share * below[..., -1], 9))
    place = (below < rank[..., None]).sum(-1)
    found = grid[np.minimum(place, len(grid) - 1)]
    used = (coverage > 0) & (below[..., -1] > 0)
    return np.where(used, found, 1.0)
