"""Scores of sample paths (ensembles)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsvae.metrics._containers import Float, sample_array
from tsvae.metrics._validation import (
    MultiOutput,
    Scored,
    average,
    blank_unscored,
    check_forecast,
    check_target,
)

_ESTIMATORS = ("fair", "empirical")


def crps_from_samples(
    y_true: Any,
    samples: Any,
    *,
    estimator: str = "fair",
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Continuous ranked probability score from samples: E|X - y| - E|X - X'| / 2.

    Parameters
    ----------
    y_true : array-like of shape (..., n_variables) or (n_rows,)
        What happened; NaN is missing and is not scored.
    samples : array-like of shape (n_samples, ...), then the shape of y_true
        Draws of the forecast, or a frame with `sample` as its first row level.
    estimator : {"fair", "empirical"}, default="fair"
        ``"fair"`` averages |X - X'| over distinct pairs: unbiased for the distribution the draws
        come from, so scores of different numbers of samples can be compared. ``"empirical"``
        is the score of the draws themselves as a discrete distribution; it is larger by the mean
        difference divided by twice the number of samples.
    mask, sample_weight, multioutput
        As in :func:`mean_absolute_error`.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        In the units of the data; lower is better. For one draw the empirical score is the
        absolute error.

    Raises
    ------
    ValueError
        If shapes or labels differ, a draw is not finite where the target is observed, nothing is
        observed, or there is one draw and `estimator` is "fair".

    References
    ----------
    T. Gneiting and A. E. Raftery (2007), Strictly proper scoring rules, prediction, and
    estimation, J. American Statistical Association 102, 359-378, eq. 21.
    C. A. T. Ferro (2014), Fair scores for ensemble forecasts, Quarterly J. Royal Meteorological
    Society 140, 1917-1923.

    Examples
    --------
    >>> from tsvae.metrics import crps_from_samples
    >>> crps_from_samples([1.0], [[0.0], [2.0]], estimator="empirical")
    0.5
    """
    scored = _check_samples(y_true, samples, estimator, mask, sample_weight)
    n_samples = len(scored.y_pred)
    # Errors, not draws: |X - X'| is unchanged and large offsets do not eat its digits.
    error = np.sort(scored.y_pred - scored.y_true, axis=0)
    rank = 2.0 * np.arange(n_samples) - (n_samples - 1)
    spread = np.tensordot(rank, error, axes=1) / _n_pairs(n_samples, estimator)
    return average(np.abs(error).mean(axis=0) - spread, scored.weights, multioutput)


def energy_score(
    y_true: Any,
    samples: Any,
    *,
    estimator: str = "fair",
    axis: int | tuple[int, ...] = -1,
    mask: Any = None,
    sample_weight: Any = None,
) -> float:
    """Energy score: the CRPS of a vector, E||X - y|| - E||X - X'|| / 2.

    It also sees whether the draws depend on each other as the variables do, which the CRPS,
    taken one variable at a time, does not. Variables should share a scale.

    Parameters
    ----------
    y_true : array-like of shape (..., n_variables) or (n_rows,)
        What happened. A missing entry is left out of the norm of its vector.
    samples : array-like of shape (n_samples, ...), then the shape of y_true
        Draws of the forecast, or a frame with `sample` as its first row level.
    estimator : {"fair", "empirical"}, default="fair"
        As in :func:`crps_from_samples`.
    axis : int or tuple of int, default=-1
        Axes of `y_true` that make up one vector: -1 scores the variables of each step jointly,
        (-2, -1) whole paths.
    mask : array-like of bool, default=None
        As in :func:`mean_absolute_error`.
    sample_weight : array-like, default=None
        Weights of the vectors, of the shape of `y_true` or of its leading axes. Within one
        vector the largest counts.

    Returns
    -------
    float
        Lower is better. For one variable it equals the CRPS.

    Raises
    ------
    ValueError
        As in :func:`crps_from_samples`; also if `axis` is not an axis of `y_true`.

    References
    ----------
    T. Gneiting and A. E. Raftery (2007), Strictly proper scoring rules, prediction, and
    estimation, J. American Statistical Association 102, 359-378, eq. 22.

    Examples
    --------
    >>> from tsvae.metrics import energy_score
    >>> energy_score([[0.0, 0.0]], [[[3.0, 4.0]], [[3.0, 4.0]]])
    5.0
    """
    scored = _check_samples(y_true, samples, estimator, mask, sample_weight)
    n_axes = scored.y_true.ndim
    axes = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    if not axes or any(not -n_axes <= a < n_axes for a in axes):
        raise ValueError(f"axis must name axes of y_true, which has {n_axes}; got {axis!r}.")
    axes = tuple(sorted({a % n_axes for a in axes}))
    error = np.where(scored.weights > 0, scored.y_pred - scored.y_true, 0.0)
    error = np.moveaxis(error, [a + 1 for a in axes], range(-len(axes), 0))
    error = error.reshape((*error.shape[: error.ndim - len(axes)], -1))
    weights = scored.weights.max(axis=axes)
    spread = _mean_distance(error) / _n_pairs(len(error), estimator)
    score = np.linalg.norm(error, axis=-1).mean(axis=0) - spread
    return float(np.sum(score * weights) / np.sum(weights))


def _check_samples(
    y_true: Any, samples: Any, estimator: str, mask: Any, sample_weight: Any
) -> Scored:
    """Validate draws (S, ..., F) of the target (..., F)."""
    if estimator not in _ESTIMATORS:
        raise ValueError(f"estimator must be one of {_ESTIMATORS}; got {estimator!r}.")
    target, weights, _ = check_target(y_true, mask, sample_weight)
    draws = sample_array(samples, y_true)
    if draws.ndim == 2 and target.ndim == 2 and target.shape[1] == 1:
        draws = draws[..., None]
    shape = draws.shape[:1] + target.shape
    draws = check_forecast(draws, shape, "samples", "(n_samples,) + that of y_true")
    if len(draws) < (2 if estimator == "fair" else 1):
        raise ValueError(
            f"estimator={estimator!r} needs at least {2 if estimator == 'fair' else 1} samples; "
            f"got {len(draws)}."
        )
    return Scored(target, blank_unscored(draws, weights > 0, "samples"), weights)


def _n_pairs(n_samples: int, estimator: str) -> int:
    """Count the ordered pairs, with or without those of a draw with itself."""
    return n_samples * (n_samples - 1 if estimator == "fair" else n_samples)


def _mean_distance(error: Float) -> Float:
    """Sum over unordered pairs of draws of their distance, in O(S) memory."""
    total = np.zeros(error.shape[1:-1])
    for i in range(len(error) - 1):
        total += np.linalg.norm(error[i + 1 :] - error[i], axis=-1).sum(axis=0)
    return total
