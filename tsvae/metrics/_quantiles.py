"""Scores of quantile forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tsvae.metrics._containers import Float, level_values, trailing_array
from tsvae.metrics._validation import (
    MultiOutput,
    average,
    blank_unscored,
    check_forecast,
    check_levels,
    check_target,
)


def pinball_loss(
    y_true: Any,
    y_pred: Any,
    *,
    quantiles: float | Sequence[float] | None = None,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Pinball (quantile) loss, averaged over quantile levels.

    Parameters
    ----------
    y_true : array-like of shape (..., n_variables) or (n_rows,)
        What happened; NaN is missing and is not scored.
    y_pred : array-like of the shape of y_true, followed by (n_quantiles,) for a list of levels
        The forecast quantiles, or a frame with columns (variable, quantile) as
        `predict_quantiles` returns it. Frames are matched by label.
    quantiles : float or sequence of float, default=None
        The level(s), strictly between 0 and 1, in the order of the last axis of `y_pred`. None
        reads them from the columns of the frame.
    mask, sample_weight, multioutput
        As in :func:`mean_absolute_error`.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        In the units of the data; 0 is best. At level 0.5 it is half the absolute error.

    Raises
    ------
    ValueError
        If a level is not strictly between 0 and 1, shapes or labels differ, or nothing is observed.

    References
    ----------
    R. Koenker and G. Bassett (1978), Regression quantiles, Econometrica 46, 33-50, eq. 3.1.

    Examples
    --------
    >>> from tsvae.metrics import pinball_loss
    >>> round(pinball_loss([10.0], [[8.0, 12.0]], quantiles=[0.1, 0.9]), 3)
    0.2
    """
    levels, labels = _resolve_levels(y_pred, quantiles)
    target, weights, flat = check_target(y_true, mask, sample_weight)
    pred = trailing_array(y_pred, y_true, "y_pred", labels)
    single = levels.ndim == 0
    shape = (target.shape[:1] if flat else target.shape) + (() if single else levels.shape)
    layout = "that of y_true" + ("" if single else " + (n_quantiles,)")
    if pred.size == np.prod(shape, dtype=int) and pred.shape == target.shape + levels.shape:
        pred = pred.reshape(shape)  # a one-variable forecast of a one-dimensional target
    pred = check_forecast(pred, shape, "y_pred", layout).reshape((*target.shape, levels.size))
    pred = blank_unscored(pred, weights[..., None] > 0, "y_pred")
    error = target[..., None] - pred
    loss = np.maximum(levels * error, (levels - 1) * error).mean(axis=-1)
    return average(loss, weights, multioutput)


def crps_from_quantiles(
    y_true: Any,
    y_pred: Any,
    *,
    quantiles: float | Sequence[float] | None = None,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Continuous ranked probability score from forecast quantiles.

    Twice the mean pinball loss over the levels given. The CRPS is the integral over all levels of
    twice the pinball loss, so this is its quadrature with equal weights: close for levels that
    divide (0, 1) evenly, such as the midpoints ``(k - 0.5) / K``, exact in the limit, and biased
    for levels that crowd in one place. Compare only scores computed on the same levels.

    Parameters
    ----------
    y_true, y_pred, quantiles, mask, sample_weight, multioutput
        As in :func:`pinball_loss`.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        In the units of the data; 0 is best. With the one level 0.5 it is the absolute error.

    Raises
    ------
    ValueError
        As in :func:`pinball_loss`.

    References
    ----------
    T. Gneiting and R. Ranjan (2011), Comparing density forecasts using threshold- and
    quantile-weighted scoring rules, J. Business & Economic Statistics 29, 411-422, eq. 14.

    Examples
    --------
    >>> from tsvae.metrics import crps_from_quantiles
    >>> round(crps_from_quantiles([10.0], [[8.0, 12.0]], quantiles=[0.1, 0.9]), 3)
    0.4
    """
    loss = pinball_loss(
        y_true,
        y_pred,
        quantiles=quantiles,
        mask=mask,
        sample_weight=sample_weight,
        multioutput=multioutput,
    )
    return 2 * loss


def _resolve_levels(
    y_pred: Any, quantiles: float | Sequence[float] | None
) -> tuple[Float, list[Any] | None]:
    """Levels as numbers, and the column labels that carry them (None for arrays)."""
    columns = level_values(y_pred)
    if quantiles is None:
        if columns is None:
            raise ValueError(
                "quantiles is needed to read y_pred: give the levels of its last axis, or a frame "
                "with columns (variable, quantile)."
            )
        quantiles = columns
    levels = check_levels(quantiles, "quantiles")
    if columns is None:
        return levels, None
    levels = np.atleast_1d(levels)
    labels = list(y_pred.columns.unique(level=-1))
    chosen = []
    for level in levels:
        nearest = int(np.argmin(np.abs(np.asarray(columns) - level)))
        if not np.isclose(columns[nearest], level, rtol=0, atol=1e-9):
            raise ValueError(f"y_pred has no column for the quantile {level}; it has {columns}.")
        chosen.append(labels[nearest])
    return levels, chosen
