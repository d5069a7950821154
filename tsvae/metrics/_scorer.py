"""A forecast metric as a scorer for GridSearchCV and cross_val_score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tsvae.metrics._intervals import interval_coverage, interval_score
from tsvae.metrics._quantiles import crps_from_quantiles, pinball_loss
from tsvae.metrics._samples import crps_from_samples, energy_score
from tsvae.metrics._steps import continues, covers, cut_last_steps, n_rows
from tsvae.metrics._validation import check_levels

# Midpoints of 20 equal parts of (0, 1): the grid on which the quantile CRPS is least biased.
DEFAULT_QUANTILES = tuple(round((k + 0.5) / 20, 3) for k in range(20))

_RESPONSES = {
    pinball_loss: "predict_quantiles",
    crps_from_quantiles: "predict_quantiles",
    crps_from_samples: "sample",
    energy_score: "sample",
    interval_score: "predict_interval",
    interval_coverage: "predict_interval",
}
_METHODS = ("predict", "predict_quantiles", "predict_interval", "sample")


class ForecastScorer:
    """Scorer ``scorer(estimator, X, y=None) -> float``; made by :func:`make_forecast_scorer`.

    Parameters are kept as attributes of the same names.

    Parameters
    ----------
    metric : callable
        ``metric(y_true, y_pred, **metric_params)``, averaged to one number.
    horizon : int or None
        Steps hidden at the end of each new series; None takes the estimator's `horizon`.
    greater_is_better : bool
        False turns the sign of the metric.
    response_method : {"predict", "predict_quantiles", "predict_interval", "sample"}
        The method of the estimator whose result the metric is given.
    response_params : dict
        Keyword arguments of that method, besides `horizon`.
    metric_params : dict
        Keyword arguments of the metric.
    """

    def __init__(
        self,
        metric: Callable[..., Any],
        *,
        horizon: int | None,
        greater_is_better: bool,
        response_method: str,
        response_params: dict[str, Any],
        metric_params: dict[str, Any],
    ) -> None:
        self.metric = metric
        self.horizon = horizon
        self.greater_is_better = greater_is_better
        self.response_method = response_method
        self.response_params = response_params
        self.metric_params = metric_params

    def __repr__(self) -> str:
        name = getattr(self.metric, "__name__", repr(self.metric))
        return (
            f"make_forecast_scorer({name}, horizon={self.horizon}, "
            f"greater_is_better={self.greater_is_better})"
        )

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Score `estimator` on `X` (and `y`); greater is better.

        Parameters
        ----------
        estimator : object
            A fitted forecaster.
        X : container
            Series to forecast, or the covariates of `y`.
        y : container, default=None
            What is forecast, for an estimator fitted by ``fit(X, y)``.

        Returns
        -------
        float
            The metric, with its sign turned if lower is better.
        """
        forecast = getattr(estimator, self.response_method)
        if y is not None:
            actual, predicted = y, forecast(X=X, **self.response_params)
        elif continues(estimator, X):
            actual, predicted = X, self._continue(forecast, X)
        else:
            horizon = self._horizon_of(estimator)
            history, actual = cut_last_steps(X, horizon)
            predicted = forecast(X=history, horizon=horizon, **self.response_params)
        value = float(self.metric(actual, predicted, **self.metric_params))
        return value if self.greater_is_better else -value

    def _continue(self, forecast: Callable[..., Any], X: Any) -> Any:
        """Forecast from the training data until the last stamp of X is covered."""
        rows = horizon = n_rows(X)
        while True:
            predicted = forecast(horizon=horizon, **self.response_params)
            if covers(predicted, X):
                return predicted
            if horizon > 64 * rows:
                raise ValueError(
                    f"The {rows} rows of X do not end within {horizon} steps after the training "
                    "data. Score rows nearer to it, or rows of another series."
                )
            horizon *= 2  # X starts after a gap, or has gaps

    def _horizon_of(self, estimator: Any) -> int:
        horizon = self.horizon if self.horizon is not None else getattr(estimator, "horizon", None)
        if horizon is None:
            raise ValueError(
                "X does not continue the training data, so its last steps are to be hidden, but "
                "how many is not known: pass horizon= to make_forecast_scorer."
            )
        return int(horizon)


def make_forecast_scorer(
    metric: Callable[..., Any],
    horizon: int | None = None,
    *,
    greater_is_better: bool = False,
    response_method: str | None = None,
    quantiles: Sequence[float] | None = None,
    coverage: float = 0.9,
    n_samples: int = 100,
    **metric_params: Any,
) -> ForecastScorer:
    """Make a scorer of forecasts from a metric.

    What the estimator is asked depends on the data:

    - with `y` (an estimator fitted by ``fit(X, y)``): the forecast for the rows of X, against y;
    - X with stamps after those of the training data: the forecast from the training data, for
      the stamps of X. A 2-D array has no stamps and counts as such a continuation: with gaps
      between training and test rows (``RollingOriginSplit(gap=...)``) use frames;
    - any other X, and series-first 3-D arrays: new series, of which the last `horizon` steps are
      hidden and forecast from those before.

    Parameters
    ----------
    metric : callable
        One of :mod:`tsvae.metrics`, or any ``metric(y_true, y_pred)``.
    horizon : int, default=None
        Steps hidden at the end of each new series; None takes the estimator's `horizon`.
    greater_is_better : bool, default=False
        False turns the sign of the metric, so that the search can maximise it.
    response_method : {"predict", "predict_quantiles", "predict_interval", "sample"}, default=None
        What the metric is given; None chooses it for the metrics of this package, and takes
        "predict" for others.
    quantiles : sequence of float, default=None
        Levels to forecast; None takes 20 levels that divide (0, 1) evenly.
    coverage : float, default=0.9
        Coverage of the interval to forecast.
    n_samples : int, default=100
        Number of sample paths.
    **metric_params
        Passed on to the metric.

    Returns
    -------
    ForecastScorer
        ``scorer(estimator, X, y=None)``; it can be pickled if the metric can.

    Raises
    ------
    ValueError
        If a parameter has no such value.

    Examples
    --------
    >>> from tsvae.metrics import crps_from_quantiles, make_forecast_scorer
    >>> make_forecast_scorer(crps_from_quantiles, horizon=24)
    make_forecast_scorer(crps_from_quantiles, horizon=24, greater_is_better=False)
    """
    if not callable(metric):
        raise TypeError(f"metric must be callable, such as tsvae.metrics.*; got {metric!r}.")
    for name, count in (("horizon", horizon), ("n_samples", n_samples)):
        if count is None:
            continue
        if isinstance(count, bool) or not isinstance(count, int | np.integer):
            raise TypeError(f"{name} must be an integer; got {count!r}.")
        if count < 1:
            raise ValueError(f"{name} must be at least 1; got {count}.")
    method = response_method or _RESPONSES.get(metric, "predict")
    if method not in _METHODS:
        raise ValueError(f"response_method must be one of {_METHODS}; got {response_method!r}.")
    levels = [float(q) for q in check_levels(quantiles or DEFAULT_QUANTILES, "quantiles")]
    check_levels(coverage, "coverage")
    response: dict[str, dict[str, Any]] = {
        "predict": {},
        "predict_quantiles": {"quantiles": levels},
        "predict_interval": {"coverage": coverage},
        "sample": {"n_samples": n_samples},
    }
    if metric in (pinball_loss, crps_from_quantiles):
        metric_params = {"quantiles": levels, **metric_params}
    if metric in (interval_score, interval_coverage):
        metric_params = {"coverage": coverage, **metric_params}
    return ForecastScorer(
        metric,
        horizon=horizon,
        greater_is_better=greater_is_better,
        response_method=method,
        response_params=response[method],
        metric_params=metric_params,
    )
