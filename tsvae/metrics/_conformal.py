"""Conformal quantiles: how large a score must be expected."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["conformal_quantile"]

Float = NDArray[np.float64]


def conformal_quantile(scores: Float, level: float, independent: float | None = None) -> float:
    """Bound that a further exchangeable score stays below with probability ``level``.

    Parameters
    ----------
    scores : ndarray (n,)
        At least one.
    level : float
        In (0, 1).
    independent : float, optional
        How many independent scores they are worth; n by default.

    Returns
    -------
    float
        The score of rank ``ceil((n + 1) * level)``; the largest if there are too few.

    References
    ----------
    Lei, G'Sell, Rinaldo, Tibshirani & Wasserman 2018 (JASA 113), Algorithm 2.

    Examples
    --------
    >>> conformal_quantile(np.arange(1.0, 20.0), 0.9)
    18.0
    >>> conformal_quantile(np.arange(1.0, 6.0), 0.9)
    5.0
    """
    rank = conformal_rank(len(scores), level, independent)
    return float(np.partition(scores, rank - 1)[rank - 1])


def conformal_rank(n_scores: int, level: float, independent: float | None = None) -> int:
    """Rank, from 1, of the score that :func:`conformal_quantile` takes.

    Examples
    --------
    >>> conformal_rank(19, 0.9)
    18
    """
    share = conformal_share(level, n_scores if independent is None else independent)
    return int(np.ceil(round(share * n_scores, 9)))


def conformal_share(level: float, independent: float) -> float:
    """Share of the scores that the bound of a level is not below: a little more than the level.

    Examples
    --------
    >>> round(conformal_share(0.9, 100), 6)
    0.909
    >>> conformal_share(0.9, 5)
    1.0
    """
    worth = max(independent, 1.0)
    return min(1.0, level * (worth + 1.0) / worth)
