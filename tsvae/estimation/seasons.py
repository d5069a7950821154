"""Fixed seasonal patterns: which waves, and whether data follow them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tsvae.models.start import seasonal_angles

__all__ = ["automatic_angles", "fixed_angles", "has_effect", "has_seasons", "seldom_seen"]

Array = NDArray[np.float64]

_MOST_WAVES = 60
_FEW_WAVES = 12  # that short data may have, too
_ROWS_PER_WAVE = 20
_MOST_ENTRIES = 4_000_000  # whose steps are tested for seasons
_SAME = 0.02  # of a turn per period: a harmonic of it
_FEW_CYCLES = 60.0  # of a season: too few for states to learn it


def fixed_angles(periods: list[float], n_steps: int, most_cycles: float = np.inf) -> list[float]:
    """Angular frequencies of a fixed seasonal pattern that the data can tell.

    Parameters
    ----------
    periods : list of float
    n_steps : int
        Rows of the longest series; a period must fit in twice.
    most_cycles : float, default=inf
        A period that the data hold more often is left to the states.

    Returns
    -------
    list of float
        Radians per step; no two closer than the data can resolve. At most one wave for 20 rows
        (but 12) and 60 in all.
    """
    known = [period for period in periods if 2.0 <= n_steps / period <= most_cycles]
    kept: list[float] = []
    most_waves = int(np.clip(n_steps / _ROWS_PER_WAVE, _FEW_WAVES, _MOST_WAVES))
    found = seasonal_angles(known, longest=n_steps / 2.0, n_harmonics=_MOST_WAVES)
    for angle in found[:most_waves]:
        if _is_apart(angle, kept, n_steps):
            kept.append(angle)
    return kept


def automatic_angles(periods: list[float], n_steps: int, *, often: bool = True) -> list[float]:
    """Waves of periods that the data hold seldom (at most 60 times), then of those held often.

    Parameters
    ----------
    periods : list of float
    n_steps : int
        Rows of the longest series.
    often : bool, default=True
        Add the second kind.

    Returns
    -------
    list of float
        Radians per step; at most 60 of the first kind and 12 of the second.

    Examples
    --------
    >>> [round(2 * np.pi / angle, 1) for angle in automatic_angles([24.0, 168.0], 8000)[58:62]]
    [2.8, 2.8, 2.7, 2.4]
    """
    kept = fixed_angles(periods, n_steps, _FEW_CYCLES)
    most = len(kept) + _FEW_WAVES
    held_often = [period for period in periods if often and n_steps / period > _FEW_CYCLES]
    for angle in fixed_angles(held_often, n_steps):
        if len(kept) < most and _is_apart(angle, kept, n_steps):
            kept.append(angle)
    return kept


def _is_apart(angle: float, others: list[float], n_steps: int) -> bool:
    """Whether the data can tell a wave from others."""
    return all(abs(angle - other) > 2.0 * np.pi / n_steps for other in others)


def seldom_seen(angles: list[float], periods: list[float], n_steps: int) -> NDArray[np.bool_]:
    """Say which waves belong to no period that the data hold often, more than 60 times.

    Parameters
    ----------
    angles : list of float
        Radians per step.
    periods : list of float
    n_steps : int

    Returns
    -------
    bool ndarray (len(angles),)
        False for harmonics of such a period: a day's waves are harmonics of the week, too, and say
        nothing of whether there is a week.

    Examples
    --------
    >>> angles = fixed_angles([168.0], 2000)
    >>> seldom_seen(angles, [24.0, 168.0], 2000)[:8].tolist()
    [True, True, True, True, True, True, False, True]
    """
    often = [period for period in periods if n_steps / period > _FEW_CYCLES]
    turns = np.outer(angles, often) / (2.0 * np.pi)
    return np.asarray((np.abs(turns - turns.round()) > _SAME).all(axis=1), dtype=bool)


def has_effect(values: Array, mask: NDArray[np.bool_], inputs: Array) -> NDArray[np.bool_]:
    """Whether inputs explain the steps of each variable better than chance would (BIC).

    Steps, not values: a random walk seems to follow any slow input.

    Parameters
    ----------
    values, mask : ndarray (B, T, F)
    inputs : ndarray (B, T, U)

    Returns
    -------
    bool ndarray (F,)

    References
    ----------
    Granger & Newbold 1974, J. Econometrics 2(2) (spurious regressions).

    Examples
    --------
    >>> t = np.arange(60.0)[None, :, None]
    >>> wave, walk = np.sin(t), np.random.default_rng(0).normal(size=t.shape).cumsum(1)
    >>> values = np.concatenate([wave + 0.1 * walk, walk], axis=-1)
    >>> has_effect(values, np.ones_like(values, bool), wave)
    array([ True, False])
    """
    both = mask[:, 1:] & mask[:, :-1]
    steps, moves = np.diff(values, axis=1), np.diff(inputs, axis=1)
    found = np.zeros(values.shape[-1], dtype=bool)
    for f in range(values.shape[-1]):
        seen = both[..., f]
        rows, target = moves[seen], steps[..., f][seen]
        if len(target) <= rows.shape[1] + 1 or not np.ptp(target):
            continue
        target = target - target.mean()
        fitted, _, rank, _ = np.linalg.lstsq(rows - rows.mean(0), target, rcond=1e-8)
        left = np.square(target - (rows - rows.mean(0)) @ fitted).sum()
        gain = np.log(np.square(target).sum() / max(left, np.finfo(float).tiny))
        found[f] = len(target) * gain > rank * np.log(len(target))
    return found


def has_seasons(values: Array, mask: NDArray[np.bool_], periods: list[float]) -> bool:
    """Whether the steps of any variable follow waves of the periods, see :func:`has_effect`.

    Parameters
    ----------
    values, mask : ndarray (B, T, F)
        Rows of all series on one clock.
    periods : list of float

    Returns
    -------
    bool
        False for panels of more than 4 million entries, which are not asked.

    Examples
    --------
    >>> t = np.arange(60.0)[None, :, None]
    >>> wave, walk = np.sin(t), np.random.default_rng(0).normal(size=t.shape).cumsum(1)
    >>> [has_seasons(x, np.ones_like(x, bool), [2 * np.pi]) for x in (wave, walk)]
    [True, False]
    """
    n_series, n_steps = values.shape[:2]
    angles = fixed_angles(periods, n_steps)[:_FEW_WAVES]
    if not angles or values.size > _MOST_ENTRIES:
        return False
    phase = np.arange(n_steps)[:, None] * np.asarray(angles)
    waves = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    return bool(has_effect(values, mask, np.broadcast_to(waves, (n_series, *waves.shape))).any())
