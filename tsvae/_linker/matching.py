"""Which record of one side belongs to which of the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

__all__ = ["LinkResult", "assign", "gaussian_scores"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class LinkResult(NamedTuple):
    """Matches of records of X with records of y.

    Attributes
    ----------
    scores : ndarray of shape (n, m)
        In nats, up to a constant for each row and column; greater is better. The softmax of a row
        is about the probability of each candidate.
    best : ndarray of int of shape (n, n_best)
        Row numbers of y for each record of X, best first.
    assignment : ndarray of int of shape (n,)
        Row number of y for each record of X, each used at most once so that the sum of the scores
        is largest; -1 where y has too few.
    """

    scores: Array
    best: NDArray[np.int64]
    assignment: NDArray[np.int64]


def gaussian_scores(centre: Array, scale: Array, values: Array, mask: Mask) -> Array:
    """Log density of each record under each prediction.

    Parameters
    ----------
    centre, scale : ndarray of shape (n, W)
        Predictions and their standard deviations.
    values : ndarray of shape (m, W)
        0 where missing.
    mask : bool ndarray of shape (m, W)

    Returns
    -------
    ndarray of shape (n, m)
        Sum over observed entries of log N(values; centre, scale) + log(2 pi) / 2, as matrix
        products.
    """
    precision = scale**-2.0
    seen = mask.astype(float)
    square = (values**2 * seen) @ precision.T
    cross = (values * seen) @ (centre * precision).T
    own = seen @ (centre**2 * precision + 2.0 * np.log(scale)).T
    scores: Array = -0.5 * (square - 2.0 * cross + own).T
    return scores


def assign(scores: Array, n_best: int) -> LinkResult:
    """Best matches of each row, and the best one-to-one matching of all.

    Parameters
    ----------
    scores : ndarray of shape (n, m)
    n_best : int

    Returns
    -------
    LinkResult
    """
    n_best = min(n_best, scores.shape[1])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :n_best]
    assignment = np.full(len(scores), -1, dtype=np.int64)
    rows, columns = linear_sum_assignment(scores, maximize=True)
    assignment[rows] = columns
    return LinkResult(scores, best.astype(np.int64), assignment)
