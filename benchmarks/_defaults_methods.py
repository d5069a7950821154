"""The forecaster with its defaults, and what it is measured against."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from _defaults_scores import COVERAGE, LEVELS, Array, Forecasts, Problem, Scores, score

OURS, NAIVE, SEASONAL, ETS = "SVAEForecaster()", "naive", "seasonal naive", "AutoETS"

ETS_ROWS = 1_000  # that it is fitted on at most
_LONGEST_ETS_SEASON = 24  # longer ones AutoETS does not model
_REFIT_ROWS = 400  # up to so many rows it is fitted anew at each origin


def run_ours(
    problem: Problem, settings: dict[str, Any], build: Callable[..., Any] | None = None
) -> Scores:
    """Fit once on the training part, forecast from all origins in one batch.

    `build` makes the estimator of its settings; None: `SVAEForecaster`.
    """
    from tsvae import SVAEForecaster
    from tsvae.model_selection import backtest

    frame = problem.series.frame
    start = time.perf_counter()
    forecaster = (build or SVAEForecaster)(**{"random_state": 0, **settings})
    forecaster.fit(frame.iloc[: problem.n_train])
    fitted = time.perf_counter()
    result = backtest(
        forecaster,
        frame,
        horizon=problem.horizon,
        step=problem.step,
        start=problem.n_train,
        quantiles=LEVELS,
        coverage=COVERAGE,
        seasonality=problem.series.season,
    )
    done = time.perf_counter()
    if not np.array_equal(result.origins, problem.origins):
        raise RuntimeError("the back-test's origins are not those of the other methods")
    quantiles = result.arrays.quantiles
    if quantiles is None:
        raise RuntimeError("the back-test gave no quantiles")
    forecasts = Forecasts(result.arrays.predicted[:, 0], quantiles[:, 0])
    return score(problem, OURS, forecasts, fitted - start, done - fitted)


def fill_history(values: Array) -> Array:
    """Straight lines across gaps, the last value to the end; looks at no later row."""
    frame = pd.DataFrame(values)
    return frame.interpolate(limit_direction="forward").bfill().to_numpy()


def run_naive(problem: Problem) -> Scores:
    return _run_repeating(problem, NAIVE, 1)


def run_seasonal_naive(problem: Problem) -> Scores:
    return _run_repeating(problem, SEASONAL, problem.series.season)


def _run_repeating(problem: Problem, method: str, season: int) -> Scores:
    start = time.perf_counter()
    rows = np.arange(problem.horizon) % season
    mean = [
        fill_history(problem.values[:origin])[-season:][rows] for origin in problem.origins.tolist()
    ]
    return score(problem, method, Forecasts(np.stack(mean), None), 0.0, time.perf_counter() - start)


def run_ets(problem: Problem) -> Scores:
    """Each variable by itself; seasons of more than 24 steps are taken off by STL first."""
    fit_seconds = 0.0
    start = time.perf_counter()
    n_features = problem.values.shape[1]
    shape = (len(problem.origins), problem.horizon, n_features)
    mean, quantiles = np.empty(shape), np.empty((*shape, len(LEVELS)))
    # Fitted parameters begin with the states of the first row: later histories begin there, too.
    first = max(problem.n_train - ETS_ROWS, 0)
    train = fill_history(problem.values[: problem.n_train])[first:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for f in range(n_features):
            began = time.perf_counter()
            model = _new_ets(problem.series.season).fit(train[:, f])
            fit_seconds += time.perf_counter() - began
            for o, origin in enumerate(problem.origins.tolist()):
                history = fill_history(problem.values[:origin, f : f + 1])[first:, 0]
                found = _continue(model, problem, history)
                mean[o, :, f], quantiles[o, :, f] = found["mean"], _quantiles(found)
    seconds = time.perf_counter() - start - fit_seconds
    return score(problem, ETS, Forecasts(mean, quantiles), fit_seconds, seconds)


def _new_ets(season: int) -> Any:
    from statsforecast.models import MSTL, AutoETS

    if season > _LONGEST_ETS_SEASON:
        # Additive, as the decomposition is: bands of multiplicative errors explode.
        return MSTL(season_length=season, trend_forecaster=AutoETS(model="AZN"))
    return AutoETS(season_length=season)


def _continue(model: Any, problem: Problem, history: Array) -> dict[str, Array]:
    """Forecast after a history: with a new fit if that is quick, else with the parameters."""
    levels = [round(100 * (1 - 2 * q)) for q in LEVELS if q < 0.5]
    arguments: dict[str, Any] = {"y": history, "h": problem.horizon, "level": levels}
    if problem.n_train <= _REFIT_ROWS or problem.series.season > _LONGEST_ETS_SEASON:
        arguments["y"] = history[-ETS_ROWS:]
        found: dict[str, Array] = _new_ets(problem.series.season).forecast(**arguments)
    else:
        found = model.forward(**arguments)
    return found


def _quantiles(found: dict[str, Array]) -> Array:
    """Bounds of central intervals as quantiles at LEVELS, ``(H, Q)``."""
    columns = []
    for q in LEVELS:
        side = "lo" if q < 0.5 else "hi"
        width = round(100 * abs(1 - 2 * q))
        columns.append(found["mean"] if width == 0 else found[f"{side}-{width}"])
    return np.stack(columns, axis=-1)


def has_statsforecast() -> bool:
    """Whether the peer can be run."""
    try:
        import statsforecast  # noqa: F401
    except ImportError:
        return False
    return True


METHODS: dict[str, Callable[[Problem, dict[str, Any]], Scores]] = {
    OURS: run_ours,
    NAIVE: lambda problem, _: run_naive(problem),
    SEASONAL: lambda problem, _: run_seasonal_naive(problem),
    ETS: lambda problem, _: run_ets(problem),
}
