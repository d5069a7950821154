"""Classical forecasts of one series: seasonal naive, seasonal naive with drift, ETS.

They stand beside our models in the demo and in the benchmarks. Each returns a `GaussianForecast`,
the mean and standard deviation of every step, because that is the form their textbook intervals
have.
"""

from __future__ import annotations

import warnings
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from statsmodels.tsa.exponential_smoothing.ets import ETSResults

__all__ = [
    "GaussianForecast",
    "auto_ets",
    "fill_from_earlier_season",
    "interpolate_gaps",
    "seasonal_naive",
]

Array = NDArray[np.float64]


class GaussianForecast(NamedTuple):
    """A normal distribution for every step ahead.

    Attributes
    ----------
    mean : ndarray of shape (H,) or (..., H, F)
        Expected values, in the units of the series.
    std : ndarray, broadcastable to `mean`
        Standard deviations.
    """

    mean: Array
    std: Array

    def quantiles(self, levels: ArrayLike) -> Array:
        """Quantiles at `levels`; shape ``mean.shape + (Q,)``."""
        z = np.array([NormalDist().inv_cdf(level) for level in np.atleast_1d(levels)])
        mean, std = np.broadcast_arrays(self.mean, self.std)
        return mean[..., None] + std[..., None] * z


def _check_history(history: ArrayLike, n_required: int, method: str) -> Array:
    values = np.asarray(history, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(
            f"history must be one series (1-D), got shape {values.shape}; pass one column at a time"
        )
    if len(values) < n_required:
        raise ValueError(
            f"{method} needs at least {n_required} rows of history, got {len(values)}; "
            "give a longer history or a shorter period"
        )
    return values


def seasonal_naive(
    history: ArrayLike, horizon: int, period: int, *, drift: bool = False
) -> GaussianForecast:
    """Repeat the last season, optionally shifted by the mean change from season to season.

    Parameters
    ----------
    history : array-like of shape (T,)
        The series; NaN where missing. A missing value of the last season is taken from the
        nearest earlier season that has it (with `drift`, moved on by the seasons between).
    horizon : int
        Number of steps ahead.
    period : int
        Rows of one season.
    drift : bool, default=False
        Add the mean seasonal difference for every season ahead.

    Returns
    -------
    GaussianForecast
        Mean and standard deviation, each of shape (H,).

    Raises
    ------
    ValueError
        If there are fewer than two seasons, or a place of the season is never observed.

    References
    ----------
    Hyndman, R.J. and Athanasopoulos, G. (2021), Forecasting: principles and practice, 3rd ed.,
    sections 5.2 and 5.5: the variance at step h is k sigma^2 with k = ceil(h / period), sigma the
    standard deviation of the seasonal residuals; an estimated drift adds (k se(drift))^2.

    Examples
    --------
    >>> forecast = seasonal_naive([1.0, 5.0, 2.0, 6.0, 3.0, 7.0], horizon=3, period=2, drift=True)
    >>> forecast.mean
    array([4., 8., 5.])
    """
    values = _check_history(history, 2 * period, "seasonal_naive")
    differences = values[period:] - values[:-period]
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        raise ValueError(
            f"history has {len(differences)} pairs of observed values {period} rows apart, "
            "expected at least 2; give a longer history or another period"
        )
    slope = float(differences.mean()) if drift else 0.0
    sigma = float(np.sqrt(np.mean((differences - slope) ** 2)))
    last = fill_from_earlier_season(values, period, slope)[-period:]
    if np.isnan(last).any():
        raise ValueError(
            f"row {int(np.flatnonzero(np.isnan(last))[0])} of the season of {period} rows is "
            "missing throughout the history; give a longer history or fill it"
        )

    step = np.arange(horizon)
    seasons_ahead = step // period + 1.0
    variance = seasons_ahead * sigma**2
    if drift:
        variance = variance + (seasons_ahead * sigma) ** 2 / len(differences)
    return GaussianForecast(last[step % period] + slope * seasons_ahead, np.sqrt(variance))


def fill_from_earlier_season(values: Array, period: int, slope: float = 0.0) -> Array:
    """Fill each NaN by the value one season earlier, itself filled, plus `slope`.

    Parameters
    ----------
    values : ndarray of shape (T, ...)
        Rows of time.
    period : int
        Rows of one season.
    slope : float, default=0.0
        Change from season to season.

    Returns
    -------
    ndarray of shape (T, ...)
        A copy; NaN stays where no earlier season is observed.

    Examples
    --------
    >>> fill_from_earlier_season(np.array([1.0, 5.0, np.nan, 6.0]), period=2, slope=0.5)
    array([1. , 5. , 1.5, 6. ])
    """
    filled = values.copy()
    for start in range(period, len(filled), period):
        here = filled[start : start + period]
        before = filled[start - period : start - period + len(here)]
        np.copyto(here, before + slope, where=np.isnan(here))
    return filled


def interpolate_gaps(values: ArrayLike) -> Array:
    """Fill NaN by straight lines between neighbours, and by the nearest value at the ends.

    Parameters
    ----------
    values : array-like of shape (T,)
        One series.

    Returns
    -------
    ndarray of shape (T,)
        The series without NaN.

    Raises
    ------
    ValueError
        If nothing is observed.

    Examples
    --------
    >>> interpolate_gaps([float("nan"), 1.0, float("nan"), 3.0])
    array([1., 1., 2., 3.])
    """
    values = np.asarray(values, dtype=np.float64)
    observed = np.isfinite(values)
    if not observed.any():
        raise ValueError("values are all missing; expected at least one observed value")
    rows = np.arange(len(values))
    return np.interp(rows, rows[observed], values[observed])


def auto_ets(history: ArrayLike, horizon: int, period: int) -> GaussianForecast:
    """Additive ETS with the trend (straight or damped) that has the lower AICc.

    Initial states are estimated by Holt-Winters' least squares; with those the smoothing
    parameters are fitted by maximum likelihood, and the variance is the exact one of the linear
    model. Gaps are interpolated first, because ETS cannot take them.

    Parameters
    ----------
    history : array-like of shape (T,)
        The series; NaN where missing.
    horizon : int
        Number of steps ahead.
    period : int
        Rows of one season.

    Returns
    -------
    GaussianForecast
        Mean and standard deviation, each of shape (H,).

    Raises
    ------
    ImportError
        If statsmodels is not installed.

    References
    ----------
    Hyndman, R.J. and Athanasopoulos, G. (2021), Forecasting: principles and practice, 3rd ed.,
    sections 8.5 to 8.7: the models ETS(A, A, A) and ETS(A, Ad, A).
    """
    values = interpolate_gaps(_check_history(history, 2 * period, "auto_ets"))
    with warnings.catch_warnings():
        # An optimiser that stops early still yields a candidate, and AICc judges it.
        warnings.simplefilter("ignore")
        candidates = [_fit_ets(values, period, damped) for damped in (False, True)]
        best = min(candidates, key=lambda result: result.aicc)
        prediction = best.get_prediction(start=len(values), end=len(values) + horizon - 1)
    return GaussianForecast(
        np.asarray(prediction.predicted_mean), np.sqrt(np.asarray(prediction.forecast_variance))
    )


def _fit_ets(values: Array, period: int, damped: bool) -> ETSResults:
    try:
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel
        from statsmodels.tsa.holtwinters import ExponentialSmoothing
    except ImportError as error:
        raise ImportError(
            'auto_ets needs statsmodels; install it with: pip install "tsvae[demo]"'
        ) from error

    # get_prediction needs an index to label its rows.
    endog = pd.Series(values)
    form = {"trend": "add", "damped_trend": damped, "seasonal": "add", "seasonal_periods": period}
    start = ExponentialSmoothing(endog, initialization_method="estimated", **form).fit().params
    model = ETSModel(
        endog,
        error="add",
        initialization_method="known",
        initial_level=start["initial_level"],
        initial_trend=start["initial_trend"],
        initial_seasonal=start["initial_seasons"],
        **form,
    )
    return model.fit(disp=False, maxiter=1000)
