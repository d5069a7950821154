"""Back-tests: forecasts from many origins, compared with what happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from tsvae.metrics._scorer import DEFAULT_QUANTILES
from tsvae.metrics._validation import check_levels
from tsvae.model_selection._collect import collect, forecast_ids, scatter, take_window
from tsvae.model_selection._conformal import rescale_by_past
from tsvae.model_selection._result import BacktestArrays, BacktestResult
from tsvae.model_selection._split import check_count

if TYPE_CHECKING:
    from tsvae.panel import Panel

Float = NDArray[np.float64]
Int = NDArray[np.int64]


class Forecasts(NamedTuple):
    """Forecasts of all origins; NaN where none could be made."""

    predicted: Float  # (O, B, H, F)
    quantiles: Float | None  # (O, B, H, F, Q)


class Task(NamedTuple):
    """What is forecast, from where."""

    panel: Panel  # all series on one grid, so that step t is the same stamp in each
    covariates: Any  # rows of X beside those of y, or None
    origins: Int
    horizon: int
    levels: list[float]


def backtest(
    estimator: Any,
    X: Any,
    *,
    horizon: int,
    step: int | None = None,
    n_origins: int | None = None,
    start: int | None = None,
    y: Any = None,
    refit: bool = False,
    quantiles: Sequence[float] | None = None,
    coverage: float | None = None,
    conformal: bool = False,
    seasonality: int = 1,
) -> BacktestResult:
    """Forecast from many origins and compare with what happened.

    At each origin the estimator sees the rows before it, and forecasts the next `horizon` steps.
    Series are cut at the same stamp; one that has no row before an origin is not scored there.

    Parameters
    ----------
    estimator : object
        A forecaster. If it is fitted it is used as it is: fit it on rows before the first origin,
        or the scores flatter it. If not, a clone is fitted once, before the first origin.
    X : container
        Data to forecast; with `y`, covariates, one row for each row of `y`.
    horizon : int
        Steps ahead.
    step : int, default=None
        Steps between origins; None takes `horizon`.
    n_origins : int, default=None
        Number of origins. None takes 5, or with `start` as many as there are.
    start : int, default=None
        Steps of history at the first origin; None places the last origin `horizon` steps before
        the end of the data.
    y : container, default=None
        What is forecast, by an estimator fitted as ``fit(X, y)``.
    refit : bool, default=False
        Whether a clone is fitted at each origin on the rows before it.
    quantiles : sequence of float, default=None
        Levels to forecast; needed for CRPS. None takes 20 that divide (0, 1) evenly if `coverage`
        is given, else none.
    coverage : float, default=None
        Central interval of which the coverage is counted; its two bounds join the levels.
    conformal : bool, default=False
        Whether the quantiles of each origin are rescaled around the median by how those of
        earlier origins fared whose outcomes are known by then, before rescaling and after. Needs
        many origins, a few steps apart; the first ones stay as they are. The median joins the
        levels.
    seasonality : int, default=1
        Steps of one season, for MASE, whose scale is taken from the rows before the first origin.

    Returns
    -------
    BacktestResult
        Forecasts, actual values and ``summary()``.

    Raises
    ------
    ValueError
        If the data are too short, or a parameter is out of range.
    TypeError
        If a parameter that counts steps is not an integer.

    Notes
    -----
    If the estimator has a method ``_forecast_origins(panel, origins, horizon, quantiles)``, all
    origins are forecast in one call; it returns means (O, B, H, F), or for a list of quantiles
    an array (O, B, H, F, Q). One that can give both from the same pass has
    ``_forecast_origins_at_once(panel, origins, horizon, quantiles)``, which returns the two as a
    pair. Otherwise the estimator's `predict` is called origin by origin.
    """
    from tsvae.panel import read_panel

    horizon = check_count(horizon, "horizon")
    seasonality = check_count(seasonality, "seasonality")
    reading = _reading_options(estimator)
    if y is None:
        panel = _on_one_grid(read_panel(X, **reading))
    else:
        panel = _on_one_grid(read_panel(y, name="y", allow_1d=True, **reading))
    origins = choose_origins(panel.n_steps, horizon, step, n_origins, start)
    levels = _choose_levels(quantiles, coverage, conformal)
    task = Task(panel, None if y is None else X, origins, horizon, levels)
    if not refit and not _is_fitted(estimator):
        estimator = _fit_before(clone(estimator), task, int(origins[0]))
    if not refit and y is None and hasattr(estimator, "_forecast_origins"):
        forecasts = _forecast_together(estimator, task)
    else:
        forecasts = _forecast_each(estimator, task, refit)
    return _compare(task, forecasts, coverage, seasonality, conformal)


def choose_origins(
    n_steps: int, horizon: int, step: int | None, n_origins: int | None, start: int | None
) -> Int:
    """Choose the steps of history at each origin, increasing.

    Parameters
    ----------
    n_steps : int
        Steps of the data.
    horizon, step, n_origins, start
        As in :func:`backtest`.

    Returns
    -------
    ndarray of shape (n_origins,)
    """
    step = horizon if step is None else check_count(step, "step")
    last = n_steps - horizon
    if start is not None:
        start = check_count(start, "start")
        origins = np.arange(start, last + 1, step, dtype=np.int64)
        wanted = 1 if n_origins is None else check_count(n_origins, "n_origins")
        if len(origins) < wanted:
            raise ValueError(
                f"X has {n_steps} time steps, but start={start}, horizon={horizon} and {wanted} "
                f"origin(s) {step} steps apart need {start + horizon + (wanted - 1) * step}."
            )
        return origins if n_origins is None else origins[:wanted]
    wanted = 5 if n_origins is None else check_count(n_origins, "n_origins")
    first = last - (wanted - 1) * step
    if first < 1:
        raise ValueError(
            f"X has {n_steps} time steps, but {wanted} origins {step} steps apart with "
            f"horizon={horizon} need at least {1 + horizon + (wanted - 1) * step}. Lower "
            "n_origins, step or horizon."
        )
    return np.arange(first, last + 1, step, dtype=np.int64)


def _choose_levels(
    quantiles: Sequence[float] | None, coverage: float | None, conformal: bool
) -> list[float]:
    """Quantile levels to forecast, increasing, the bounds of the interval among them."""
    levels: set[float] = set()
    if quantiles is not None:
        levels |= {float(q) for q in np.atleast_1d(check_levels(quantiles, "quantiles"))}
    elif coverage is not None:
        levels |= set(DEFAULT_QUANTILES)
    if coverage is not None:
        half = float(check_levels(coverage, "coverage")) / 2
        levels |= {round(0.5 - half, 10), round(0.5 + half, 10)}
    if conformal:
        if not levels:
            raise ValueError(
                "conformal=True rescales quantiles, and none are asked for; give quantiles or "
                "coverage."
            )
        if not any(abs(level - 0.5) < 1e-9 for level in levels):
            levels.add(0.5)
    return sorted(levels)


def _on_one_grid(panel: Panel) -> Panel:
    """Shift series so that a step is the same stamp in each, and all end together."""
    index = panel.index
    shift = index.starts - index.starts.min()
    n_steps = int((shift + index.lengths).max())
    if not shift.any() and (index.lengths == n_steps).all():
        return panel
    values = np.zeros((panel.n_series, n_steps, panel.n_features))
    mask = np.zeros(values.shape, dtype=bool)
    for b, (offset, length) in enumerate(zip(shift, index.lengths, strict=True)):
        values[b, offset : offset + length] = panel.values[b, :length]
        mask[b, offset : offset + length] = panel.mask[b, :length]
    index = dataclasses.replace(
        index,
        starts=np.full_like(index.starts, index.starts.min()),
        lengths=np.full_like(index.lengths, n_steps),
        row_step=index.row_step + shift[index.row_series],
    )
    return dataclasses.replace(panel, values=values, mask=mask, index=index)


def _reading_options(estimator: Any) -> dict[str, Any]:
    """Parameters by which the estimator itself is told how to read time."""
    known = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}
    options = {name: known.get(name) for name in ("time", "series", "freq")}
    return {name: value for name, value in options.items() if value is not None}


def _is_fitted(estimator: Any) -> bool:
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def _fit_before(estimator: Any, task: Task, origin: int) -> Any:
    """Fit `estimator` on the rows before `origin`."""
    history = take_window(task.panel, 0, origin)
    if task.covariates is None:
        return estimator.fit(history)
    return estimator.fit(_covariate_rows(task, 0, origin), history)


def _covariate_rows(task: Task, start: int, stop: int) -> Any:
    """Rows of X beside the rows of y at the steps `start` to `stop` (exclusive)."""
    from sklearn.utils import _safe_indexing

    position = task.panel.index.row_step
    rows = np.flatnonzero((position >= start) & (position < stop))
    if len(task.covariates) != len(position):
        raise ValueError(
            f"X must have one row for each of the {len(position)} rows of y; it has "
            f"{len(task.covariates)}."
        )
    return _safe_indexing(task.covariates, rows)


def _forecast_together(estimator: Any, task: Task) -> Forecasts:
    """All origins in one call of the estimator's own batched forecast."""
    arguments = (task.panel, task.origins, task.horizon)
    if task.levels and hasattr(estimator, "_forecast_origins_at_once"):
        return Forecasts(*estimator._forecast_origins_at_once(*arguments, task.levels))
    predicted = np.asarray(estimator._forecast_origins(*arguments, None), dtype=float)
    quantiles = None
    if task.levels:
        quantiles = np.asarray(estimator._forecast_origins(*arguments, task.levels), dtype=float)
    return Forecasts(predicted, quantiles)


def _forecast_each(estimator: Any, task: Task, refit: bool) -> Forecasts:
    """Origin by origin, by the public methods of the estimator."""
    means, quantiles = [], []
    for origin in task.origins.tolist():
        model = _fit_before(clone(estimator), task, origin) if refit else estimator
        means.append(_ask(model, task, origin, refit, "predict"))
        if task.levels:
            quantiles.append(_ask(model, task, origin, refit, "predict_quantiles"))
    return Forecasts(np.stack(means), np.stack(quantiles) if task.levels else None)


def _ask(model: Any, task: Task, origin: int, refit: bool, method: str) -> Float:
    """Forecast from one origin as an array (B, H, F) or (B, H, F, Q)."""
    forecast = getattr(model, method)
    levels = task.levels if method == "predict_quantiles" else []
    options: dict[str, Any] = {"quantiles": levels} if levels else {}
    ids = forecast_ids(task.panel, origin, task.horizon, known_rows=task.covariates is not None)
    shape = (task.panel.n_series, task.horizon, task.panel.n_features)
    if task.covariates is not None:
        if not refit:
            past = _covariate_rows(task, 0, origin)
            options["history"] = (past, take_window(task.panel, 0, origin))
        answer = forecast(_covariate_rows(task, origin, origin + task.horizon), **options)
    else:
        if not refit:
            options["X"] = take_window(task.panel, 0, origin)
        answer = forecast(horizon=task.horizon + _lag(task, origin), **options)
    return scatter(answer, ids, shape, levels)


def _lag(task: Task, origin: int) -> int:
    """Count the steps from the last row of a series to be scored to the origin."""
    index = task.panel.index
    last = np.full(index.n_series, -1)
    before = index.row_step < origin
    np.maximum.at(last, index.row_series[before], index.row_step[before])
    ahead = task.panel.mask[:, origin : origin + task.horizon].any(axis=(1, 2))
    lags = (origin - 1 - last)[ahead & (last >= 0)]
    return int(lags.max(initial=0))


def _compare(
    task: Task,
    forecasts: Forecasts,
    coverage: float | None,
    seasonality: int,
    conformal: bool,
) -> BacktestResult:
    """Put forecasts and truth side by side."""
    panel, origins, horizon = task.panel, task.origins, task.horizon
    steps = origins[:, None] + np.arange(horizon)
    observed = np.moveaxis(panel.values[:, steps], 0, 1)
    seen = np.moveaxis(panel.mask[:, steps], 0, 1)
    started = np.stack([panel.mask[:, :origin].any(axis=(1, 2)) for origin in origins])
    scored = seen & started[:, :, None, None]
    if not scored.any():
        raise ValueError("Nothing to score: no value after any origin is observed.")
    if conformal and forecasts.quantiles is not None:
        rescaled = rescale_by_past(forecasts.quantiles, observed, scored, origins, task.levels)
        forecasts = forecasts._replace(quantiles=rescaled)
    first = int(origins[0])
    scale = _naive_scale(panel.values[:, :first], panel.mask[:, :first], seasonality)
    truth = np.where(seen, observed, np.nan)
    labels = _origin_labels(panel, origins)
    return BacktestResult(
        predictions=collect(forecasts.predicted, panel, origins, labels),
        actual=collect(truth, panel, origins, labels),
        quantiles=None
        if forecasts.quantiles is None
        else collect(forecasts.quantiles, panel, origins, labels, task.levels),
        origins=origins,
        origin_labels=labels,
        horizon=horizon,
        levels=tuple(task.levels),
        coverage=coverage,
        arrays=BacktestArrays(forecasts.predicted, forecasts.quantiles, observed, scored, scale),
    )


def _origin_labels(panel: Panel, origins: Int) -> Any:
    """Last stamp known at each origin; steps of history where there are no stamps."""
    index = panel.index
    if not index.has_stamps:
        return origins
    return index.clock.stamps(index.starts.min() + origins - 1)


def _naive_scale(values: Float, mask: NDArray[np.bool_], season: int) -> Float:
    """Training error of the seasonal naive forecast for each series and variable; NaN if none."""
    pairs = mask[:, season:] & mask[:, :-season]
    error = np.abs(values[:, season:] - values[:, :-season])
    count = pairs.sum(axis=1)
    return np.where(pairs, error, 0.0).sum(axis=1) / np.where(count > 0, count, np.nan)
