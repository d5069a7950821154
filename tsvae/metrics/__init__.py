"""Scores of forecasts: points, quantiles, intervals and samples, and scorers for scikit-learn.

Every metric takes arrays whose last axis holds the variables, skips what was not observed (NaN in
``y_true``, or ``mask`` False) and averages variables last, as ``sklearn.metrics`` does.
"""

from __future__ import annotations

from tsvae.metrics._intervals import interval_coverage, interval_score
from tsvae.metrics._point import (
    mean_absolute_error,
    mean_absolute_scaled_error,
    root_mean_squared_error,
    symmetric_mean_absolute_percentage_error,
)
from tsvae.metrics._quantiles import crps_from_quantiles, pinball_loss
from tsvae.metrics._samples import crps_from_samples, energy_score
from tsvae.metrics._scorer import ForecastScorer, make_forecast_scorer

__all__ = [
    "ForecastScorer",
    "crps_from_quantiles",
    "crps_from_samples",
    "energy_score",
    "interval_coverage",
    "interval_score",
    "make_forecast_scorer",
    "mean_absolute_error",
    "mean_absolute_scaled_error",
    "pinball_loss",
    "root_mean_squared_error",
    "symmetric_mean_absolute_percentage_error",
]
