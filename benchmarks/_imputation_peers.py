"""Simple peers: straight lines, neighbours, Gaussian windows, Kalman smoothers of statsmodels.

What has settings is tried with all of them on the validation windows, pattern by pattern, and goes
on with those of the least absolute error.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from _imputation_task import WINDOW, Array, Filled, Method, Problem, Task, training_windows
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import norm

from tsvae.demo.report import QUANTILE_LEVELS

Fill = Callable[[Problem], Filled]

NEIGHBOURS = (1, 3, 5, 10, 20)
STRIDES = (1, 24)  # every hour, or windows that start at midnight as the tested ones do
RIDGES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1)
ORDERS = (1, 2, 3)
_DAY = 24
_NUGGET = 1e-6  # observation variance: filters do not like none at all


def normal_bands(mean: Array, variance: Array) -> Filled:
    """Means and quantiles of independent normal margins."""
    z = norm.ppf(QUANTILE_LEVELS)
    return Filled(mean, mean[..., None] + np.sqrt(variance.clip(0))[..., None] * z)


def choose(
    name: str,
    task: Task,
    candidates: Mapping[tuple[Any, ...], Fill],
    names: tuple[str, ...],
    start: float,
    n_parameters: Callable[[tuple[Any, ...]], int] | None = None,
) -> Method:
    """Settle each pattern's settings on the validation windows."""
    best: dict[str, tuple[Any, ...]] = {}
    for pattern, problem in task.validation.items():
        truth = problem.windows.values[problem.hidden]
        errors = {
            key: float(np.abs(truth - fill(problem).point[problem.hidden]).mean())
            for key, fill in candidates.items()
        }
        best[pattern] = min(errors, key=errors.__getitem__)
    settings = {pattern: dict(zip(names, key, strict=True)) for pattern, key in best.items()}
    return Method(
        name,
        lambda pattern, problem: candidates[best[pattern]](problem),
        None if n_parameters is None else max(map(n_parameters, best.values())),
        time.perf_counter() - start,
        settings,
    )


# -- without a model -------------------------------------------------------------------------


def fit_interpolation(task: Task) -> Method:
    return Method("linear interpolation", lambda _, problem: _by_window(problem, _line), 0, 0.0, {})


def fit_last(task: Task) -> Method:
    return Method("last value", lambda _, problem: _by_window(problem, _last), 0, 0.0, {})


def _by_window(problem: Problem, fill: Callable[[pd.DataFrame], pd.DataFrame]) -> Filled:
    found = [fill(pd.DataFrame(window)).fillna(0.0).to_numpy() for window in problem.seen]
    return Filled(np.stack(found))


def _line(window: pd.DataFrame) -> pd.DataFrame:
    return window.interpolate(limit_direction="both")


def _last(window: pd.DataFrame) -> pd.DataFrame:
    return window.ffill().bfill()


# -- neighbours ------------------------------------------------------------------------------


def fit_neighbours(task: Task) -> Method:
    """KNNImputer over rows, or over windows laid flat; number and weights of the neighbours."""
    start = time.perf_counter()
    rows = task.train.to_numpy()
    flat = training_windows(task.train, 12).reshape(-1, WINDOW * rows.shape[1])
    candidates = {
        (form, k, weights): _neighbour_fill(rows if form == "rows" else flat, k, weights)
        for form, k, weights in product(("rows", "windows"), NEIGHBOURS, ("uniform", "distance"))
        if form == "windows" or k in (5, 20)  # rows take long, and are far behind
    }
    names = ("form", "n_neighbors", "weights")
    return choose("nearest neighbours", task, candidates, names, start)


def _neighbour_fill(train: Array, k: int, weights: str) -> Fill:
    from sklearn.impute import KNNImputer

    imputer = KNNImputer(n_neighbors=k, weights=weights).fit(train)

    def fill(problem: Problem) -> Filled:
        shape = problem.seen.shape
        return Filled(imputer.transform(problem.seen.reshape(-1, train.shape[1])).reshape(shape))

    return fill


# -- the best linear estimate ----------------------------------------------------------------


def fit_gaussian_windows(task: Task) -> Method:
    """Conditional normal distribution given mean and covariance of the training windows."""
    start = time.perf_counter()
    candidates = {
        (stride, ridge): _gaussian_fill(training_windows(task.train, stride), ridge)
        for stride, ridge in product(STRIDES, RIDGES)
    }
    size = WINDOW * task.train.shape[1]
    return choose(
        "normal distribution of windows",
        task,
        candidates,
        ("stride", "ridge"),
        start,
        lambda _: size + size * (size + 1) // 2,
    )


def _gaussian_fill(windows: Array, ridge: float) -> Fill:
    flat = windows.reshape(len(windows), -1)
    centre = flat.mean(0)
    covariance = np.cov(flat.T) + ridge * np.eye(flat.shape[1])

    def fill(problem: Problem) -> Filled:
        mean = problem.windows.values.reshape(len(problem.hidden), -1).copy()
        variance = np.zeros_like(mean)
        for row, hidden in enumerate(problem.hidden.reshape(mean.shape)):
            seen = ~hidden
            both = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, hidden)])
            mean[row, hidden] = centre[hidden] + (mean[row, seen] - centre[seen]) @ both
            own = covariance.diagonal()[hidden]
            variance[row, hidden] = own - (covariance[np.ix_(seen, hidden)] * both).sum(0)
        shape = problem.hidden.shape
        return normal_bands(mean.reshape(shape), variance.reshape(shape))

    return fill


# -- Kalman smoothers ------------------------------------------------------------------------


def fit_trend(task: Task) -> Method:
    """Local linear trend of each variable, variances by maximum likelihood."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    start = time.perf_counter()
    models, variances = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bounds that are reached
        for name in task.train:
            model = UnobservedComponents(task.train[name].to_numpy(), "lltrend")
            models.append(model)
            variances.append(model.fit(disp=0).params)
    seconds = time.perf_counter() - start

    def fill(pattern: str, problem: Problem) -> Filled:
        mean, variance = np.zeros(problem.seen.shape), np.zeros(problem.seen.shape)
        for f, (model, params) in enumerate(zip(models, variances, strict=True)):
            for row, window in enumerate(problem.seen[..., f]):
                found = model.clone(window).smooth(params)
                mean[row, :, f] = found.smoothed_state[0]
                variance[row, :, f] = found.smoothed_state_cov[0, 0] + params[0]
        return normal_bands(mean, variance)

    return Method("local linear trend (statsmodels)", fill, 3 * len(models), seconds, {})


def fit_autoregression(task: Task) -> Method:
    """Kalman smoother of a vector autoregression by least squares.

    Its order is chosen, and whether each variable's mean at each hour of the day is taken off.
    """
    start = time.perf_counter()
    candidates = {
        (order, daily): _autoregression_fill(task.train, order, daily)
        for order, daily in product(ORDERS, (False, True))
    }
    n = task.train.shape[1]
    return choose(
        "vector autoregression (statsmodels)",
        task,
        candidates,
        ("order", "hour_of_day"),
        start,
        lambda key: n * n * key[0] + n * (n + 1) // 2 + n * (_DAY if key[1] else 1),
    )


def _autoregression_fill(train: pd.DataFrame, order: int, daily: bool) -> Fill:
    from statsmodels.tsa.api import VAR
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    hours: NDArray[np.int64] = pd.DatetimeIndex(train.index).hour.to_numpy()
    rows = train.to_numpy()
    pattern = np.stack([rows[hours == h].mean(0) for h in range(_DAY)])
    if not daily:
        pattern = np.broadcast_to(rows.mean(0), pattern.shape)
    fitted = VAR(rows - pattern[hours]).fit(order, trend="n")
    n = rows.shape[1]
    size = n * order
    transition, selection = np.eye(size, k=-n), np.eye(size, n)
    transition[:n] = np.concatenate(list(fitted.coefs), axis=1)
    noise = np.asarray(fitted.sigma_u)
    stationary = solve_discrete_lyapunov(transition, selection @ noise @ selection.T)

    def smooth(window: Array) -> Any:
        # A smoother of its own for each window: one that is bound anew keeps its first data.
        smoother = KalmanSmoother(k_endog=n, k_states=size, k_posdef=n)
        smoother["design"], smoother["transition"] = np.eye(n, size), transition
        smoother["selection"], smoother["state_cov"] = selection, noise
        smoother["obs_cov"] = _NUGGET * np.eye(n)
        smoother.bind(np.asfortranarray(window.T))
        smoother.initialize_known(np.zeros(size), stationary)
        return smoother.smooth()

    def fill(problem: Problem) -> Filled:
        hour = problem.windows.stamps.hour.to_numpy().reshape(problem.seen.shape[:2])
        mean, variance = np.zeros(problem.seen.shape), np.zeros(problem.seen.shape)
        for row, window in enumerate(problem.seen):
            found = smooth(window - pattern[hour[row]])
            mean[row] = found.smoothed_state[:n].T + pattern[hour[row]]
            variance[row] = found.smoothed_state_cov.diagonal(axis1=0, axis2=1)[:, :n] + _NUGGET
        return normal_bands(mean, variance)

    return fill


PEERS: dict[str, Callable[[Task], Method]] = {
    "interpolation": fit_interpolation,
    "last": fit_last,
    "neighbours": fit_neighbours,
    "gaussian": fit_gaussian_windows,
    "trend": fit_trend,
    "autoregression": fit_autoregression,
}
