"""One gate for what the metrics are given, and the averages they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsvae.metrics._containers import Float, as_float, point_array

MultiOutput = str | ArrayLike


class Scored(NamedTuple):
    """Arrays ready to be scored: zeros where nothing is scored, no NaN anywhere."""

    y_true: Float  # (..., F)
    y_pred: Float  # (..., F), (..., F, Q) or (S, ..., F)
    weights: Float  # (..., F), 0 where y_true is missing or masked


def check_target(y_true: Any, mask: Any, sample_weight: Any) -> tuple[Float, Float, bool]:
    """Target (..., F) with zeros for missing, its weights, and whether it was 1-D."""
    target = as_float(y_true, "y_true")
    flat = target.ndim == 1
    if target.ndim == 0:
        raise ValueError("y_true must have shape (..., n_variables) or (n_rows,); got a scalar.")
    if np.isinf(target).any():
        raise ValueError(f"y_true is infinite at {_first(np.isinf(target))}; mark it as NaN.")
    weights = (~np.isnan(target)).astype(float)
    if mask is not None:
        seen = point_array(mask, y_true, "mask")
        weights = weights * (_expand(seen, target.shape, "mask") != 0)
    if sample_weight is not None:
        weight = point_array(sample_weight, y_true, "sample_weight")
        if not np.isfinite(weight).all() or (weight < 0).any():
            raise ValueError("sample_weight must be finite and not negative.")
        weights = weights * _expand(weight, target.shape, "sample_weight")
    if not weights.any():
        raise ValueError(
            "Nothing to score: y_true has no observed value with a positive weight. Check that "
            "y_true is not all NaN, and `mask` and `sample_weight` not all zero."
        )
    target = np.where(weights > 0, target, 0.0)
    return (target[:, None], weights[:, None], True) if flat else (target, weights, False)


def check_forecast(pred: Float, shape: tuple[int, ...], name: str, layout: str) -> Float:
    """Check `pred` against the `shape` the target asks for; `layout` says it in words."""
    if pred.shape != shape:
        raise ValueError(f"{name} must have shape {layout} = {shape}; got {pred.shape}.")
    return pred


def blank_unscored(pred: Float, scored: NDArray[np.bool_], name: str) -> Float:
    """Zeros where nothing is scored; a forecast that is not finite elsewhere is an error."""
    scored = np.broadcast_to(scored, pred.shape)
    bad = scored & ~np.isfinite(pred)
    if bad.any():
        raise ValueError(
            f"{name} is not finite at {_first(bad)} ({int(bad.sum())} such values), where y_true "
            "is observed. A missing forecast has no error: forecast it, or exclude it by `mask`."
        )
    return np.where(scored, pred, 0.0)


def check_point(y_true: Any, y_pred: Any, mask: Any, sample_weight: Any) -> Scored:
    """Validate a point forecast of the same shape as the target."""
    target, weights, flat = check_target(y_true, mask, sample_weight)
    pred = point_array(y_pred, y_true, "y_pred")
    if pred.ndim == 1:
        pred = pred[:, None]
    if flat and pred.ndim == 2 and pred.shape[1] != 1:
        raise ValueError(f"y_true is one-dimensional; y_pred has shape {pred.shape}.")
    pred = check_forecast(pred, target.shape, "y_pred", "that of y_true")
    return Scored(target, blank_unscored(pred, weights > 0, "y_pred"), weights)


def average(loss: Float, weights: Float, multioutput: MultiOutput) -> float | Float:
    """Weighted mean over all axes but the last, then over variables."""
    return average_outputs(mean_rows(loss, weights), multioutput)


def mean_rows(loss: Float, weights: Float) -> Float:
    """Weighted mean per variable; NaN for a variable of which nothing was observed."""
    rows = tuple(range(loss.ndim - 1))
    total = weights.sum(axis=rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (loss * weights).sum(axis=rows) / np.where(total > 0, total, np.nan)


def average_outputs(raw: Float, multioutput: MultiOutput) -> float | Float:
    """Combine the per-variable scores `raw` (F,); never-observed variables have no weight."""
    if isinstance(multioutput, str):
        if multioutput == "raw_values":
            return raw
        if multioutput != "uniform_average":
            raise ValueError(
                "multioutput must be 'uniform_average', 'raw_values' or an array of one weight per "
                f"variable; got {multioutput!r}."
            )
        return float(np.nanmean(raw))
    output_weights = np.asarray(multioutput, dtype=float)
    if output_weights.shape != raw.shape:
        raise ValueError(
            f"multioutput must hold one weight for each of the {raw.size} variables; got shape "
            f"{output_weights.shape}."
        )
    observed = ~np.isnan(raw)
    if not output_weights[observed].sum() > 0:
        raise ValueError("multioutput has no positive weight on an observed variable.")
    return float(np.average(raw[observed], weights=output_weights[observed]))


def check_levels(levels: float | Sequence[float] | ArrayLike, name: str) -> Float:
    """Quantile levels or coverages as an array, each strictly between 0 and 1."""
    values = np.asarray(levels, dtype=float)
    if values.ndim > 1 or values.size == 0:
        raise ValueError(f"{name} must be a number or a flat, non-empty list; got {levels!r}.")
    outside = ~((values > 0) & (values < 1))
    if outside.any():
        raise ValueError(
            f"{name} must lie strictly between 0 and 1; got "
            f"{float(np.atleast_1d(values)[np.atleast_1d(outside)][0])!r}."
        )
    return values


def _expand(values: Float, shape: tuple[int, ...], name: str) -> Float:
    """Give `values`, whose shape leads `shape`, the full shape."""
    if values.shape != shape[: values.ndim] or values.ndim == 0:
        raise ValueError(
            f"{name} must have the shape of y_true, {shape}, or of its leading axes; got "
            f"{values.shape}."
        )
    return np.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape)


def _first(where: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(where)[0])
