"""Errors of point forecasts."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tsvae.metrics._containers import Float, as_float, is_table
from tsvae.metrics._validation import (
    MultiOutput,
    average,
    average_outputs,
    check_point,
    mean_rows,
)


def mean_absolute_error(
    y_true: Any,
    y_pred: Any,
    *,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Mean absolute error over what was observed.

    Parameters
    ----------
    y_true : array-like of shape (..., n_variables) or (n_rows,)
        What happened; NaN is missing and is not scored. The axes before the last may be steps,
        (series, steps), (origins, series, steps) and so on.
    y_pred : array-like of the same shape
        The forecast. If both are frames, rows and columns are matched by label; rows that
        `y_true` lacks are not scored.
    mask : array-like of bool, default=None
        True where `y_true` counts, of the shape of `y_true` or of its leading axes.
    sample_weight : array-like, default=None
        Weights, of the shape of `y_true` or of its leading axes.
    multioutput : {"uniform_average", "raw_values"} or array-like of shape (n_variables,)
        How variables are combined. A variable of which nothing was observed is NaN in
        ``"raw_values"`` and has no part in an average.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        In the units of the data; 0 is best.

    Raises
    ------
    ValueError
        If shapes or labels differ, the forecast is not finite where the target is observed, or
        nothing is observed.

    Examples
    --------
    >>> from tsvae.metrics import mean_absolute_error
    >>> mean_absolute_error([1.0, 2.0, float("nan")], [1.0, 4.0, 9.0])
    1.0
    """
    scored = check_point(y_true, y_pred, mask, sample_weight)
    return average(np.abs(scored.y_true - scored.y_pred), scored.weights, multioutput)


def root_mean_squared_error(
    y_true: Any,
    y_pred: Any,
    *,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Root of the mean squared error over what was observed.

    The root is taken per variable, before variables are averaged, as
    :func:`sklearn.metrics.root_mean_squared_error` does.

    Parameters
    ----------
    y_true, y_pred, mask, sample_weight, multioutput
        As in :func:`mean_absolute_error`.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        In the units of the data; 0 is best.

    Raises
    ------
    ValueError
        As in :func:`mean_absolute_error`.

    Examples
    --------
    >>> from tsvae.metrics import root_mean_squared_error
    >>> root_mean_squared_error([0.0, 0.0], [3.0, 3.0])
    3.0
    """
    scored = check_point(y_true, y_pred, mask, sample_weight)
    squared = mean_rows((scored.y_true - scored.y_pred) ** 2, scored.weights)
    return average_outputs(np.sqrt(squared), multioutput)


def symmetric_mean_absolute_percentage_error(
    y_true: Any,
    y_pred: Any,
    *,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Symmetric MAPE: the mean of 2 |y - p| / (|y| + |p|), between 0 and 2.

    A fraction, not a percentage. Where target and forecast are both zero the error is zero.

    Parameters
    ----------
    y_true, y_pred, mask, sample_weight, multioutput
        As in :func:`mean_absolute_error`.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        0 is best, 2 is worst.

    Raises
    ------
    ValueError
        As in :func:`mean_absolute_error`.

    References
    ----------
    S. Makridakis (1993), Accuracy measures: theoretical and practical concerns, Int. J.
    Forecasting 9, 527-529.

    Examples
    --------
    >>> from tsvae.metrics import symmetric_mean_absolute_percentage_error
    >>> symmetric_mean_absolute_percentage_error([1.0, 0.0], [3.0, 0.0])
    0.5
    """
    scored = check_point(y_true, y_pred, mask, sample_weight)
    total = np.abs(scored.y_true) + np.abs(scored.y_pred)
    error = 2 * np.abs(scored.y_true - scored.y_pred) / np.where(total > 0, total, 1.0)
    return average(error, scored.weights, multioutput)


def mean_absolute_scaled_error(
    y_true: Any,
    y_pred: Any,
    *,
    y_train: Any,
    seasonality: int = 1,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Mean absolute error in units of the training error of the seasonal naive forecast.

    Each series and variable has its own scale: the mean of ``|y_t - y_{t-m}|`` over the pairs of
    training steps that were both observed. Series whose scale is zero (constant) or unknown (no
    pair) cannot be scaled and are left out with a warning.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (..., n_steps, n_variables) or (n_steps,)
        As in :func:`mean_absolute_error`, time on the axis before the last. Frames with row
        levels (series, time) are scaled series by series.
    y_train : array-like of shape (..., n_training_steps, n_variables) or (n_training_steps,)
        What the scale is measured on; its leading axes are those of `y_true`, or absent when all
        share one training series. NaN is missing. Rows count as steps: a step that was not
        recorded must be a row of NaN.
    seasonality : int, default=1
        Steps `m` of one season: 24 for hourly data with a daily rhythm, 1 for the last value.
    mask, sample_weight, multioutput
        As in :func:`mean_absolute_error`.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        Below 1 the forecast errs less than the naive one did on the training data.

    Raises
    ------
    ValueError
        As in :func:`mean_absolute_error`; also if `seasonality` is not a positive integer, or no
        series has a scale.

    References
    ----------
    R. J. Hyndman and A. B. Koehler (2006), Another look at measures of forecast accuracy, Int. J.
    Forecasting 22, 679-688, section 3.

    Examples
    --------
    >>> from tsvae.metrics import mean_absolute_scaled_error
    >>> mean_absolute_scaled_error([5.0, 6.0], [4.0, 8.0], y_train=[0.0, 2.0, 1.0])
    1.0
    """
    if isinstance(seasonality, bool) or not isinstance(seasonality, int | np.integer):
        raise TypeError(f"seasonality must be an integer number of steps; got {seasonality!r}.")
    if seasonality < 1:
        raise ValueError(f"seasonality must be at least 1 step; got {seasonality}.")
    scored = check_point(y_true, y_pred, mask, sample_weight)
    scale = _naive_scale(y_true, y_train, int(seasonality), scored.y_true.shape)
    usable = scale > 0  # False for NaN as well
    weights = np.where(usable, scored.weights, 0.0)
    left_out = float(np.mean(weights[scored.weights > 0] == 0))
    if left_out == 1.0:
        raise ValueError(
            f"y_train gives no scale: no variable changes over {seasonality} steps between observed"
            " values. Give a longer y_train, or use mean_absolute_error."
        )
    if left_out:
        warnings.warn(
            f"{left_out:.1%} of the values are left out of the MASE: their series are constant or "
            f"too short in y_train for seasonality={seasonality}.",
            UserWarning,
            stacklevel=2,
        )
    error = np.abs(scored.y_true - scored.y_pred) / np.where(usable, scale, 1.0)
    return average(error, weights, multioutput)


def _naive_scale(y_true: Any, y_train: Any, season: int, shape: tuple[int, ...]) -> Float:
    """Seasonal naive training error, of the shape of the target."""
    if is_table(y_train) and y_train.index.nlevels > 1:
        return np.broadcast_to(_panel_scale(y_true, y_train, season), shape)
    train = as_float(y_train, "y_train")
    train = train[:, None] if train.ndim == 1 else train
    if train.ndim < 2 or train.shape[-1] != shape[-1]:
        raise ValueError(
            f"y_train must have the {shape[-1]} variables of y_true on its last axis; got shape "
            f"{train.shape}."
        )
    step = np.abs(train[..., season:, :] - train[..., :-season, :])
    pairs = (~np.isnan(step)).sum(axis=-2, keepdims=True)
    scale = np.nansum(step, axis=-2, keepdims=True) / np.where(pairs > 0, pairs, np.nan)
    try:
        return np.broadcast_to(scale, shape)
    except ValueError as error:
        raise ValueError(
            f"y_train of shape {train.shape} does not fit y_true of shape {shape}: the axes before "
            "(steps, variables) must be those of y_true, or absent."
        ) from error


def _panel_scale(y_true: Any, y_train: Any, season: int) -> Float:
    """Scale of each row of a (series, time) table, from the training rows of its series."""
    if not is_table(y_true) or y_true.index.nlevels != y_train.index.nlevels:
        raise ValueError("y_train has row levels (series, time); y_true must have them too.")
    levels = list(range(y_train.index.nlevels - 1))
    train = y_train.sort_index(level=-1).astype(float)
    if hasattr(train, "columns") and hasattr(y_true, "columns"):
        train = train[list(y_true.columns)]
    step = train.groupby(level=levels, sort=False).diff(season).abs()
    scale = step.groupby(level=levels, sort=False).mean().reindex(y_true.index.droplevel(-1))
    values = as_float(scale, "y_train")
    return values[:, None] if values.ndim == 1 else values
