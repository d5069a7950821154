"""Scores of interval forecasts."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsvae.metrics._containers import Float, is_frame, point_array, trailing_array
from tsvae.metrics._validation import (
    MultiOutput,
    Scored,
    average,
    blank_unscored,
    check_forecast,
    check_levels,
    check_target,
)


def interval_score(
    y_true: Any,
    y_interval: Any,
    *,
    coverage: float | None = None,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Interval (Winkler) score: the width, plus a penalty for what falls outside.

    ``(u - l) + 2/a max(l - y, 0) + 2/a max(y - u, 0)`` with ``a = 1 - coverage``. Its expectation
    is least for the central interval of the true distribution.

    Parameters
    ----------
    y_true : array-like of shape (..., n_variables) or (n_rows,)
        What happened; NaN is missing and is not scored.
    y_interval : tuple (lower, upper), array of shape (..., n_variables, 2), or DataFrame
        The interval; a tuple holds two arrays or frames of the shape of `y_true`, a frame has
        columns (variable, coverage, lower/upper) as `predict_interval` returns it.
    coverage : float, default=None
        Probability that the interval claims to hold, strictly between 0 and 1. None reads it from
        the columns of the frame, if they have one coverage only.
    mask, sample_weight, multioutput
        As in :func:`mean_absolute_error`.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        In the units of the data; lower is better.

    Raises
    ------
    ValueError
        If `coverage` is absent or not strictly between 0 and 1, a lower bound lies above its upper
        bound, shapes or labels differ, or nothing is observed.

    References
    ----------
    T. Gneiting and A. E. Raftery (2007), Strictly proper scoring rules, prediction, and
    estimation, J. American Statistical Association 102, 359-378, eq. 43.

    Examples
    --------
    >>> from tsvae.metrics import interval_score
    >>> interval_score([0.0, 3.0], ([-1.0, -1.0], [1.0, 1.0]), coverage=0.5)
    6.0
    """
    y_interval, coverage = _select_coverage(y_interval, coverage)
    if coverage is None:
        raise ValueError("coverage is needed: give the probability the interval claims to hold.")
    alpha = 1 - float(check_levels(coverage, "coverage"))
    scored = _check_interval(y_true, y_interval, mask, sample_weight)
    lower, upper = scored.y_pred[..., 0], scored.y_pred[..., 1]
    below = np.maximum(lower - scored.y_true, 0)
    above = np.maximum(scored.y_true - upper, 0)
    loss = (upper - lower) + 2 / alpha * (below + above)
    return average(loss, scored.weights, multioutput)


def interval_coverage(
    y_true: Any,
    y_interval: Any,
    *,
    coverage: float | None = None,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Fraction of what was observed that lies in the interval, bounds included.

    Parameters
    ----------
    y_true, y_interval : array-like
        As in :func:`interval_score`.
    coverage : float, default=None
        Which interval of a frame with several coverages to count; not needed otherwise.
    mask, sample_weight, multioutput
        As in :func:`mean_absolute_error`.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        Between 0 and 1; best when close to the probability the interval claims to hold.

    Raises
    ------
    ValueError
        As in :func:`interval_score`.

    Examples
    --------
    >>> from tsvae.metrics import interval_coverage
    >>> interval_coverage([0.0, 1.0, 3.0, 0.5], ([-1.0] * 4, [1.0] * 4))
    0.75
    """
    y_interval, _ = _select_coverage(y_interval, coverage)
    scored = _check_interval(y_true, y_interval, mask, sample_weight)
    inside = (scored.y_pred[..., 0] <= scored.y_true) & (scored.y_true <= scored.y_pred[..., 1])
    return average(inside.astype(float), scored.weights, multioutput)


def _select_coverage(y_interval: Any, coverage: float | None) -> tuple[Any, float | None]:
    """Reduce a (variable, coverage, bound) frame to one coverage, as a pair of frames."""
    if not is_frame(y_interval):
        return y_interval, coverage
    columns = y_interval.columns
    if columns.nlevels < 3 and "coverage" not in columns.names:
        return y_interval, coverage
    labels = list(columns.unique(level=-2))
    if coverage is None:
        if len(labels) > 1:
            raise ValueError(f"y_interval holds the coverages {labels}; choose one by coverage=.")
        coverage = float(labels[0])
    matches = [label for label in labels if abs(float(label) - coverage) < 1e-9]
    if not matches:
        raise ValueError(f"y_interval has no coverage {coverage}; it has {labels}.")
    return y_interval.xs(matches[0], axis=1, level=-2), coverage


def _check_interval(y_true: Any, y_interval: Any, mask: Any, sample_weight: Any) -> Scored:
    """Validate bounds (..., F, 2) of the target (..., F)."""
    target, weights, _ = check_target(y_true, mask, sample_weight)
    bounds = _bounds_array(y_interval, y_true)
    if bounds.ndim == 2 and target.shape == (len(bounds), 1):
        bounds = bounds[:, None, :]
    if bounds.shape == (*target.shape, 1, 2):  # one coverage, kept as an axis
        bounds = bounds.reshape((*target.shape, 2))
    bounds = check_forecast(bounds, (*target.shape, 2), "y_interval", "that of y_true + (2,)")
    bounds = blank_unscored(bounds, weights[..., None] > 0, "y_interval")
    crossed = bounds[..., 0] > bounds[..., 1]
    if crossed.any():
        place = tuple(int(i) for i in np.argwhere(crossed)[0])
        raise ValueError(
            f"y_interval has its lower bound above its upper bound at {place} "
            f"({int(crossed.sum())} such values). Give (lower, upper) in this order."
        )
    return Scored(target, bounds, weights)


def _bounds_array(y_interval: Any, y_true: Any) -> Float:
    """Bounds as one array with (lower, upper) on the last axis."""
    if isinstance(y_interval, tuple) and len(y_interval) == 2:
        pair = [point_array(bound, y_true, "y_interval") for bound in y_interval]
        if pair[0].shape != pair[1].shape:
            raise ValueError(
                f"The bounds have different shapes: {pair[0].shape} and {pair[1].shape}."
            )
        return np.stack(pair, axis=-1)
    return trailing_array(y_interval, y_true, "y_interval", ["lower", "upper"])
