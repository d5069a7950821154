"""What is measured on records as they are, for records of which less is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Growth", "measure_growth", "share_known"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_HIDDEN = (0.1, 0.3, 0.5, 0.8)  # shares of the known entries
_RECORDS = 256  # that are measured at each of them
_LARGEST = 20.0


@dataclass(frozen=True, eq=False)
class Growth:
    """How many times as large a measure is for records with gaps.

    Attributes
    ----------
    known : ndarray of shape (K,)
        Shares of entries known, increasing; the last is that of the records as they are.
    times : ndarray of shape (K,)
        At least 1, and 1 at the last.
    """

    known: Array
    times: Array

    @classmethod
    def none(cls) -> Growth:
        """Return the same for all records."""
        return cls(np.ones(1), np.ones(1))

    def at(self, known: Array) -> Array:
        """Return the factor of records with these shares of known entries.

        Examples
        --------
        >>> Growth(np.array([0.5, 1.0]), np.array([3.0, 1.0])).at(np.array([0.1, 0.75, 1.0]))
        array([3., 2., 1.])
        """
        return np.interp(known, self.known, self.times)


def share_known(mask: Mask) -> Array:
    """Share of each record's entries (N, W, F) that are known, ``(N,)``."""
    share: Array = mask.mean(axis=(1, 2))
    return share


def measure_growth(
    mask: Mask, measure: Callable[[slice, Mask], Array], seed: int
) -> tuple[Growth, ...]:
    """Hide entries of records at random, and compare measures.

    Parameters
    ----------
    mask : bool ndarray of shape (N, W, F)
    measure : callable
        Takes a slice of the records and what is known of them; returns positive numbers (M,).
    seed : int

    Returns
    -------
    tuple of Growth
        Of each of the M measures; it never falls as less is known.
    """
    chosen = slice(_RECORDS)
    shown = list(_shown(mask[chosen], seed))
    known = np.array([share_known(part).mean() for part in shown])
    sizes = np.array([measure(chosen, part) for part in shown])  # (K, M)
    times = np.maximum.accumulate(sizes / np.maximum(sizes[0], 1e-12), axis=0)
    order = np.argsort(known, kind="stable")
    return tuple(Growth(known[order], np.minimum(own[order], _LARGEST)) for own in times.T)


def _shown(mask: Mask, seed: int) -> Iterator[Mask]:
    """Generate masks: as it is, and with more and more hidden; one entry of each record stays."""
    rng = np.random.default_rng(seed)
    rank = np.where(mask, rng.random(mask.shape), np.inf)
    first = rank == rank.min(axis=(1, 2), keepdims=True)
    yield mask
    for share in _HIDDEN:
        yield mask & ((rank >= share) | first)
