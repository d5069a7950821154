"""Classical forecasts of one series: seasonal naive, seasonal naive with drift, ETS, linear.

They stand beside our models in the demo and in the benchmarks. Each returns a `GaussianForecast`,
the mean and standard deviation of every step, because that is the form their textbook intervals
have.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from statsmodels.tsa.exponential_smoothing.ets import ETSResults

__all__ = [
    "GaussianForecast",
    "LinearForecaster",
    "auto_ets",
    "fit_linear",
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
    last = _last_season(values, period, slope)

    step = np.arange(horizon)
    seasons_ahead = step // period + 1.0
    variance = seasons_ahead * sigma**2
    if drift:
        variance = variance + (seasons_ahead * sigma) ** 2 / len(differences)
    return GaussianForecast(last[step % period] + slope * seasons_ahead, np.sqrt(variance))


def _last_season(values: Array, period: int, slope: float) -> Array:
    """Value of each place of the last season, carried on from the latest season that has it."""
    last = np.full(period, np.nan)
    for seasons_back in range(1, len(values) // period + 1):
        stop = len(values) - (seasons_back - 1) * period
        candidate = values[stop - period : stop] + slope * (seasons_back - 1)
        last = np.where(np.isnan(last), candidate, last)
        if np.isfinite(last).all():
            return last
    raise ValueError(
        f"place {int(np.flatnonzero(np.isnan(last))[0])} of the season of {period} rows is never "
        "observed; give a longer history"
    )


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

    form = {"trend": "add", "damped_trend": damped, "seasonal": "add", "seasonal_periods": period}
    start = ExponentialSmoothing(values, initialization_method="estimated", **form).fit().params
    model = ETSModel(
        values,
        error="add",
        initialization_method="known",
        initial_level=start["initial_level"],
        initial_trend=start["initial_trend"],
        initial_seasonal=start["initial_seasons"],
        **form,
    )
    return model.fit(disp=False, maxiter=1000)


@dataclass(frozen=True)
class LinearForecaster:
    """A linear map from the last rows of a variable to its next ones, shared by all variables.

    The last value is subtracted before and added after the map (the "N" in NLinear), so that a
    level that moves does no harm. Gaps in the history are interpolated.

    Attributes
    ----------
    weights : ndarray of shape (W + 1, H)
        The map; the last row is the bias.
    std : ndarray of shape (H, F)
        Standard deviation of the training errors at each step ahead, per variable.

    References
    ----------
    Zeng, A. et al. (2023), Are transformers effective for time series forecasting?, AAAI.
    """

    weights: Array
    std: Array

    @property
    def n_parameters(self) -> int:
        """Number of fitted weights."""
        return self.weights.size

    def predict(self, histories: ArrayLike) -> GaussianForecast:
        """Forecast from each history.

        Parameters
        ----------
        histories : array-like of shape (N, W, F)
            The W rows before each origin, without NaN.

        Returns
        -------
        GaussianForecast
            Mean of shape (N, H, F); standard deviation of shape (H, F).
        """
        x = np.asarray(histories, dtype=np.float64)
        last = x[:, -1:, :]
        mean = np.einsum("nwf,wh->nhf", x - last, self.weights[:-1], optimize=True)
        return GaussianForecast(mean + self.weights[-1][:, None] + last, self.std)


def fit_linear(
    train: ArrayLike, window: int, horizon: int, *, ridge: float = 1.0, chunk: int = 512
) -> LinearForecaster:
    """Fit `LinearForecaster` in closed form on every window of the training rows.

    Parameters
    ----------
    train : array-like of shape (T, F)
        Training rows without NaN, standardised per variable.
    window : int
        Rows the forecast may look back on, W.
    horizon : int
        Number of steps ahead, H.
    ridge : float, default=1.0
        Penalty on the squared weights, in units of one training window.
    chunk : int, default=512
        Windows per block of the normal equations; bounds the memory.

    Returns
    -------
    LinearForecaster
        The fitted map.

    Raises
    ------
    ValueError
        If `train` has fewer than ``window + horizon`` rows.
    """
    rows = np.asarray(train, dtype=np.float64)
    n_windows = len(rows) - window - horizon + 1
    if n_windows < 1:
        raise ValueError(
            f"train has {len(rows)} rows, expected at least window + horizon = "
            f"{window + horizon}; shorten the window"
        )
    gram = np.zeros((window + 1, window + 1))
    moment = np.zeros((window + 1, horizon))
    for x, y in _window_blocks(rows, window, horizon, chunk):
        gram += x.T @ x
        moment += x.T @ y
    penalty = np.full(window + 1, ridge)
    penalty[-1] = 0.0  # the bias is free
    weights = np.asarray(np.linalg.solve(gram + np.diag(penalty), moment), dtype=np.float64)

    square = np.zeros((horizon, rows.shape[1]))
    for x, y in _window_blocks(rows, window, horizon, chunk):
        error = (y - x @ weights).reshape(-1, rows.shape[1], horizon)
        square += (error**2).sum(axis=0).T
    return LinearForecaster(weights, np.sqrt(square / n_windows))


def _window_blocks(
    rows: Array, window: int, horizon: int, chunk: int
) -> Iterator[tuple[Array, Array]]:
    """Yield (inputs with a one appended, targets), both relative to the last input value."""
    views = np.lib.stride_tricks.sliding_window_view(rows, window + horizon, axis=0)
    for start in range(0, len(views), chunk):
        block = views[start : start + chunk].reshape(-1, window + horizon)
        block = block - block[:, window - 1 : window]
        x = np.concatenate([block[:, :window], np.ones((len(block), 1))], axis=1)
        yield x, block[:, window:]
