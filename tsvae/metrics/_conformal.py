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
    worth = len(scores) if independent is None else max(independent, 1.0)
    share = min(1.0, level * (worth + 1.0) / worth)
    rank = int(np.ceil(round(share * len(scores), 9)))
    return float(np.partition(scores, rank - 1)[rank - 1])
