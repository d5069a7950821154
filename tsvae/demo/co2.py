"""Back-test and forecast of the weekly CO2 record at Mauna Loa, as data in and numbers out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tsvae.demo.baselines import GaussianForecast, auto_ets, seasonal_naive
from tsvae.demo.report import QUANTILE_LEVELS, ForecastScores, ScoreSum

if TYPE_CHECKING:
    import pandas as pd

    from tsvae.forecaster import SVAEForecaster

__all__ = ["BASELINES", "WEEKS_PER_YEAR", "Backtest", "backtest_baseline", "backtest_forecaster"]

WEEKS_PER_YEAR = 52

Array = NDArray[np.float64]
Baseline = Callable[[Array, int], GaussianForecast]

BASELINES: dict[str, Baseline] = {
    "seasonal naive": lambda y, h: seasonal_naive(y, h, WEEKS_PER_YEAR),
    "seasonal naive + drift": lambda y, h: seasonal_naive(y, h, WEEKS_PER_YEAR, drift=True),
    "ETS (AICc)": lambda y, h: auto_ets(y, h, WEEKS_PER_YEAR),
}


@dataclass(frozen=True)
class Backtest:
    """Forecasts of one method from several origins, and their scores.

    Attributes
    ----------
    origins : ndarray of shape (O,)
        Rows of history before each forecast.
    mean : ndarray of shape (O, H)
        Forecast means.
    quantiles : ndarray of shape (O, H, Q)
        Forecast quantiles at `tsvae.demo.report.QUANTILE_LEVELS`.
    scores : ForecastScores
        Over all origins and steps that were observed.
    """

    origins: NDArray[np.int64]
    mean: Array
    quantiles: Array
    scores: ForecastScores


def rolling_origins(n_rows: int, horizon: int, n_origins: int) -> NDArray[np.int64]:
    """Origins `horizon` rows apart, so that each of the last rows is forecast exactly once.

    Parameters
    ----------
    n_rows : int
        Rows of the series.
    horizon : int
        Steps of each forecast.
    n_origins : int
        Number of forecasts.

    Returns
    -------
    ndarray of shape (n_origins,)
        Rows of history before each forecast, ascending.

    Raises
    ------
    ValueError
        If less than four years would be left to fit on.

    Examples
    --------
    >>> rolling_origins(2284, horizon=52, n_origins=3).tolist()
    [2128, 2180, 2232]
    """
    if horizon < 1 or n_origins < 1:
        raise ValueError(
            f"horizon and origins must be at least 1, got horizon={horizon}, origins={n_origins}"
        )
    first = n_rows - horizon * n_origins
    if first < 4 * WEEKS_PER_YEAR:
        raise ValueError(
            f"{n_origins} origins of {horizon} weeks leave {max(first, 0)} of {n_rows} weeks to "
            f"fit on, expected at least {4 * WEEKS_PER_YEAR}; ask for fewer origins or a shorter "
            "horizon"
        )
    return first + horizon * np.arange(n_origins)


def _scored(
    method: str,
    values: Array,
    origins: NDArray[np.int64],
    mean: Array,
    quantiles: Array,
    seconds: float,
) -> Backtest:
    actual = np.stack([values[origin : origin + mean.shape[1]] for origin in origins])
    total = ScoreSum()
    total.add(actual, mean, quantiles)
    return Backtest(origins, mean, quantiles, total.result(method, seconds=seconds))


def backtest_baseline(
    name: str, series: pd.Series, origins: NDArray[np.int64], horizon: int
) -> Backtest:
    """Fit a baseline anew on the rows before each origin and score its forecasts.

    Parameters
    ----------
    name : str
        Key of `BASELINES`.
    series : pandas.Series
        Weekly values, NaN where missing.
    origins : ndarray of shape (O,)
        Rows of history before each forecast.
    horizon : int
        Steps ahead.

    Returns
    -------
    Backtest
        Forecasts and scores.
    """
    values = series.to_numpy(dtype=np.float64)
    start = time.perf_counter()
    forecasts = [BASELINES[name](values[:origin], horizon) for origin in origins]
    seconds = time.perf_counter() - start
    mean = np.stack([forecast.mean for forecast in forecasts])
    quantiles = np.stack([forecast.quantiles(QUANTILE_LEVELS) for forecast in forecasts])
    return _scored(name, values, origins, mean, quantiles, seconds)


def backtest_forecaster(
    forecaster: SVAEForecaster, series: pd.Series, origins: NDArray[np.int64], horizon: int
) -> Backtest:
    """Fit the forecaster once, on the rows before the first origin, and score its forecasts.

    Its parameters stay as they are from then on; at later origins it only reads the history.

    Parameters
    ----------
    forecaster : SVAEForecaster
        Unfitted; fitted in place.
    series : pandas.Series
        Weekly values, NaN where missing.
    origins : ndarray of shape (O,)
        Rows of history before each forecast.
    horizon : int
        Steps ahead.

    Returns
    -------
    Backtest
        Forecasts and scores.
    """
    from tsvae.model_selection import backtest

    frame = series.to_frame()
    start = time.perf_counter()
    forecaster.fit(frame.iloc[: origins[0]])
    result = backtest(
        forecaster,
        frame,
        horizon=horizon,
        start=int(origins[0]),
        n_origins=len(origins),
        quantiles=QUANTILE_LEVELS,
    )
    seconds = time.perf_counter() - start
    mean, quantiles = result.arrays.predicted, result.arrays.quantiles
    assert quantiles is not None  # levels were given
    values = series.to_numpy(dtype=np.float64)
    name = type(forecaster).__name__
    return _scored(name, values, origins, mean[:, 0, :, 0], quantiles[:, 0, :, 0], seconds)
