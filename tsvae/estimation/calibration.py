"""How forecasts spread, measured on windows of the training rows."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from tsvae.estimation.engine import Engine
from tsvae.estimation.following import fit_exponents
from tsvae.estimation.reading import Problem
from tsvae.estimation.spread import (
    KNOTS,
    LOG_BOUND,
    ForecastSpread,
    monotone,
    step_groups,
)
from tsvae.estimation.window_sizes import phase_sizes, window_sizes
from tsvae.panel import rolling_origins

__all__ = ["fit_spread"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Int = NDArray[np.int64]

_MOST_WINDOWS = 1000
_MOST_ENTRIES = 20_000_000  # of their histories
_AHEAD = 12  # entries of a history that cost as much as one of a forecast
_FEWEST_WINDOWS = 10  # independent ones, for a spread that follows them
_PRIOR_SHAPE = 20.0  # horizons behind the normal shape
_PRIOR_SKEW = 100.0  # and behind a symmetric one
_PRIOR_OWN = 20.0  # of one variable, behind the shape of all
_PRIOR_LEVEL = 20.0
_UPPER = -2  # knot of the level 0.95
_LOG_NO_ERROR = np.log(1e-3)  # beside the model's scale: a constant variable
_LOG_STEPS = (-np.log(2.0), np.log(2.0))  # of a step's level beside the model's
_TINY = 1e-12


class Errors(NamedTuple):
    """Forecast errors of training windows (N), in units of the model's scale.

    Attributes
    ----------
    standardised, scale : ndarray (N, H, F)
    seen : bool ndarray (N, H, F)
    values : ndarray (N, T, F)
        The windows.
    mask : bool ndarray (N, T, F)
    independent : float
        Horizons that the data make up; variables count by the root of their number.
    windows : float
        The same for windows with their history.
    """

    standardised: Array
    scale: Array
    seen: Mask
    values: Array
    mask: Mask
    independent: float
    windows: float


def fit_spread(
    engine: Engine, problem: Problem, cycle: int = 0, expected: Array | None = None
) -> ForecastSpread:
    """Fit how forecasts spread to the errors of training windows.

    What training errors can tell is kept: how errors grow with the size of what the window shows,
    how variables differ, and the shape. The level at each step is that of the errors to expect, or
    of the model's scale: errors on rows that the model has learned from are too small.

    Parameters
    ----------
    engine : Engine
        With normal forecasts and a plain spread.
    problem : Problem
        Training data.
    cycle : int, default=0
        Steps of a season by whose phases errors may differ; 0: none.
    expected : ndarray (H,), optional
        Mean squared errors ahead on rows that were left out, in units of each variable's scale.

    Returns
    -------
    ForecastSpread
        Plain if there is nothing to measure.
    """
    horizon = engine.sizes.horizon
    plain = ForecastSpread.plain(problem.target.n_features, horizon)
    errors = _training_errors(engine, problem)
    if errors is None:
        return plain
    groups = step_groups(horizon)
    centre = _mean(window_sizes(errors.values, errors.mask))
    spread = replace(plain, centre=centre, cycle=cycle)
    if cycle:
        phases = phase_sizes(errors.values, errors.mask, cycle, cycle)
        spread = replace(spread, phase_centre=_mean(phases.reshape(-1, phases.shape[-1])))
    features = spread.features(errors.values, errors.mask, horizon)
    if errors.windows >= _FEWEST_WINDOWS:
        found = fit_exponents(errors.standardised, errors.seen, features, groups)
        spread = replace(spread, gamma=float(found[0]), delta=float(found[1]))
    steps = np.zeros(horizon)
    if expected is not None:
        unit = engine.model.log_scale.detach().exp().cpu().numpy()
        steps = _step_levels(errors.scale / unit, expected[:horizon])
    return _fit_shape(spread, errors, spread.factor(features), groups, steps)


def _training_errors(engine: Engine, problem: Problem) -> Errors | None:
    """Errors on windows that divide the data evenly; None if no window has any."""
    panel, sizes = problem.target, engine.sizes
    entries = _MOST_ENTRIES // (panel.n_features * max(sizes.context, _AHEAD * sizes.horizon))
    at_most = int(np.clip(entries, 1, _MOST_WINDOWS))
    long = panel.lengths.max() >= 2 * sizes.window
    least = sizes.context if long else sizes.min_history
    starts = np.maximum(panel.lengths - sizes.horizon - least + 1, 0).sum()
    if not starts:
        return None
    step = max(1, int(np.ceil(starts / at_most)))
    series, ends = rolling_origins(panel.lengths, sizes.horizon, step=step, min_history=least)
    histories = engine.histories(panel, problem.covariates, series, ends, sizes.horizon)
    predictions = engine.forecast(histories, sizes.horizon)
    mean = np.concatenate([part.mean.numpy() for part in predictions.parts])
    scale = np.concatenate([part.scale.numpy() for part in predictions.parts])
    values = engine.scaler.forward(panel.values, panel.mask, panel.variables)
    at = (series[:, None], ends[:, None] + np.arange(sizes.horizon))
    seen = panel.mask[at] & np.asarray(histories.mask.any(axis=1))[:, None]
    if not seen.any():
        return None
    standardised = np.where(seen, (values[at] - mean) / np.maximum(scale, _TINY), 0.0)
    width = panel.n_features**0.5
    rows = float(panel.lengths.sum()) * width
    return Errors(
        standardised,
        scale,
        seen,
        histories.values,
        histories.mask,
        rows / sizes.horizon,
        rows / sizes.window,
    )


def _mean(sizes: Array) -> Array:
    """Mean log size of each variable; 0 where none is known."""
    known = np.isfinite(sizes)
    return np.where(known, sizes, 0.0).sum(0) / known.sum(0).clip(1)


def _step_levels(scale: Array, expected: Array) -> Array:
    """Logarithm of errors to expect beside the model's scale ``(N, H, F)``, at each step.

    States that decay by themselves and observation noise cannot make errors grow just as they do.
    """
    typical = np.square(np.median(scale, axis=0)).mean(axis=1)
    ratio = np.maximum(expected, _TINY) / np.maximum(typical, _TINY)
    return np.clip(0.5 * np.log(ratio), *_LOG_STEPS)


def _fit_shape(
    spread: ForecastSpread, errors: Errors, factor: Array, groups: list[Int], steps: Array
) -> ForecastSpread:
    """Levels and standardised quantiles of each variable, for each group of steps."""
    narrowed = errors.standardised / factor
    weight = errors.independent / (errors.independent + _PRIOR_LEVEL)
    levels, tables = [], []
    for group in groups:
        seen, plain, own = errors.seen[:, group], errors.standardised[:, group], narrowed[:, group]
        count = seen.sum((0, 1))
        before, after = (np.log(_rms(part, count)) for part in (plain, own))
        used = (count > 0) & (before > _LOG_NO_ERROR)
        pooled = before[used].mean() if used.any() else 0.0
        level = weight * (before - pooled) + after - before + steps[group].mean()
        levels.append(np.where(used, np.clip(level, -LOG_BOUND, LOG_BOUND), 0.0))
        tables.append(_shapes(own / _rms(own, count), seen & used, errors))
    return replace(spread, log_level=np.array(levels), table=np.array(tables))


def _rms(values: Array, count: Int) -> Array:
    return np.maximum(np.sqrt(np.square(values).sum((0, 1)) / count.clip(1)), _TINY)


def _shapes(values: Array, seen: Mask, errors: Errors) -> Array:
    """Quantiles at the knots ``(F, Q)``, of errors ``(N, h, F)`` with variance 1.

    Those of all variables are shrunk to normal ones, and each variable's own to theirs.
    """
    n_features = values.shape[-1]
    if not seen.any():
        return np.tile(KNOTS, (n_features, 1))
    found = np.quantile(values[seen], ndtr(KNOTS))
    symmetric, skew = _halves(found)
    weight = errors.independent / (errors.independent + _PRIOR_SHAPE)
    table = np.tile(KNOTS + weight * (symmetric - KNOTS), (n_features, 1))
    horizons = errors.independent / n_features**0.5
    own_weight = horizons / (horizons + _PRIOR_OWN)
    for variable in np.flatnonzero(seen.any((0, 1))):
        own = np.quantile(values[..., variable][seen[..., variable]], ndtr(KNOTS))
        table[variable] += own_weight * (_halves(own)[0] - symmetric)
    skewness = errors.independent / (errors.independent + _PRIOR_SKEW) * skew
    return monotone(_widened_tails(table) + skewness)


def _halves(quantiles: Array) -> tuple[Array, Array]:
    """Symmetric part and skewness."""
    return (quantiles - quantiles[::-1]) / 2.0, (quantiles + quantiles[::-1]) / 2.0


def _widened_tails(table: Array) -> Array:
    """Make a 90 % interval no narrower than the normal one, and others in between.

    Errors with heavy tails have most of their variance there: next to their standard deviation
    the rest is narrow, too narrow for rows that behave otherwise than the training rows.
    """
    short = np.maximum(1.0, KNOTS[_UPPER] / np.maximum(table[:, [_UPPER]], _TINY))
    return table * short ** np.minimum(1.0, np.abs(KNOTS / KNOTS[_UPPER]))
