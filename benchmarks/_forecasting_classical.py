"""Classical peers: a linear map of the history, a vector autoregression, exponential smoothing."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from _forecasting_task import Array, Outcome, Rows, Task

from tsvae.demo.baselines import GaussianForecast
from tsvae.demo.linear import fit_linear
from tsvae.demo.report import QUANTILE_LEVELS, ScoreSum

MOST_LAGS = 48  # that AIC may choose for the vector autoregression
ETS_ROWS = 1_000  # of the training part that exponential smoothing is fitted on
VALIDATION_STEP = 48  # rows between the origins that a filling is judged from
LINEAR_WINDOW = 336


class Fitted(NamedTuple):
    """A fitted method: Gaussian forecasts (N, H, F) from origins."""

    forecast: Callable[[Rows], GaussianForecast]
    n_parameters: int
    settings: dict[str, Any]


def run_linear(task: Task) -> Outcome:
    """One ridge regression for all variables."""
    candidates = [partial(fit_linear_map, task, filling) for filling in task.fillings]
    return _run(f"linear ({LINEAR_WINDOW} rows)", task, candidates)


def run_var(task: Task) -> Outcome:
    """All variables together; statsmodels' vector autoregression, its order by AIC."""
    return _run("VAR", task, [partial(fit_var, task, filling) for filling in task.fillings])


def run_ets(task: Task) -> Outcome:
    """Each variable by itself; statsforecast's AutoETS, fitted once, its states going on.

    By AICc alone it takes no season for ETTh1, though its own AICc with one is lower or near: a
    season is offered by force as well, and the validation part decides.
    """
    families = ("ZZZ", "ZZA") if task.period > 1 else ("ZZZ",)
    pairs = itertools.product(task.fillings, families)
    return _run("AutoETS", task, [partial(fit_ets, task, *pair) for pair in pairs])


def _run(name: str, task: Task, candidates: Sequence[Callable[[], Fitted]]) -> Outcome:
    start = time.perf_counter()
    fitted = [fit() for fit in candidates]
    best = fitted[0]
    if len(fitted) > 1:
        best = min(fitted, key=partial(_validation_error, task))
    total = ScoreSum()
    for origins, actual in task.chunks():
        forecast = best.forecast(origins)
        total.add(actual, forecast.mean, forecast.quantiles(QUANTILE_LEVELS))
    scores = total.result(name, seconds=time.perf_counter() - start, n_parameters=best.n_parameters)
    return Outcome(scores, best.settings)


def _validation_error(task: Task, fitted: Fitted) -> float:
    origins, actual = task.validation_windows(VALIDATION_STEP)
    return float(np.nanmean((fitted.forecast(origins).mean - actual) ** 2))


def fit_linear_map(task: Task, filling: str) -> Fitted:
    rows = task.carried(filling)[: task.split.train_end]  # lines end where a training window does
    model = fit_linear(rows, LINEAR_WINDOW, task.horizon)
    return Fitted(
        lambda origins: model.predict(task.histories(origins, LINEAR_WINDOW, filling)),
        model.n_parameters,
        {"filling": filling},
    )


def fit_var(task: Task, filling: str) -> Fitted:
    from statsmodels.tsa.api import VAR

    result = VAR(task.filled(task.split.train_end, filling)).fit(maxlags=MOST_LAGS, ic="aic")
    matrices, intercept = np.asarray(result.coefs), np.asarray(result.intercept)
    covariance = np.asarray(result.forecast_cov(task.horizon))
    std = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))

    def forecast(origins: Rows) -> GaussianForecast:
        lags = task.histories(origins, result.k_ar, filling)[:, ::-1]  # the last row first
        means = []
        for _ in range(task.horizon):
            step = intercept + np.einsum("nlf,lgf->ng", lags, matrices, optimize=True)
            lags = np.concatenate([step[:, None], lags[:, :-1]], axis=1)
            means.append(step)
        return GaussianForecast(np.stack(means, axis=1), std)

    n_features = len(intercept)
    n_parameters = np.asarray(result.params).size + n_features * (n_features + 1) // 2
    return Fitted(forecast, n_parameters, {"lags": int(result.k_ar), "filling": filling})


def fit_ets(task: Task, filling: str, family: str) -> Fitted:
    """Fit on the last training rows; later histories begin where these do, as the states do."""
    from statsforecast.models import AutoETS

    first = max(task.split.train_end - ETS_ROWS, 0)
    train = task.filled(task.split.train_end, filling)[first:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [AutoETS(task.period, family).fit(column) for column in train.T]

    def forecast(origins: Rows) -> GaussianForecast:
        shape = (len(origins), task.horizon, len(models))
        mean, std = np.empty(shape), np.empty(shape)
        for n, origin in enumerate(origins.tolist()):
            history = task.histories(np.array([origin]), origin - first, filling)[0]
            for f, model in enumerate(models):
                mean[n, :, f], std[n, :, f] = _continue(model, history[:, f], task.horizon)
        return GaussianForecast(mean, std)

    n_parameters = sum(int(model.model_["n_params"]) for model in models)
    chosen = [model.model_["method"] for model in models]
    return Fitted(forecast, n_parameters, {"models": chosen, "filling": filling})


def _continue(model: Any, history: Array, horizon: int) -> tuple[Array, Array]:
    """Mean and deviation after a history; the bounds of a normal band tell the deviation."""
    found = model.forward(y=np.ascontiguousarray(history), h=horizon, level=[90])
    return found["mean"], (found["hi-90"] - found["mean"]) / 1.6448536269514722
