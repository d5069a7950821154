"""Scores of forecasts, of recovered signals, of generated series and of representations.

Metrics of forecasts and signals take arrays whose last axis holds the variables, skip what was not
observed (NaN in ``y_true``, or ``mask`` False) and average variables last, as ``sklearn.metrics``
does; scorers make them known to scikit-learn.
"""

from __future__ import annotations

from tsvae.metrics._dci import DCIScores, dci_scores
from tsvae.metrics._disentanglement import (
    mutual_information_gap,
    separated_attribute_predictability,
)
from tsvae.metrics._generation import discriminative_score, frechet_distance
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
from tsvae.metrics._series_statistics import series_statistics
from tsvae.metrics._signals import (
    peak_signal_to_noise_ratio,
    signal_to_noise_ratio,
    structural_similarity,
)

__all__ = [
    "DCIScores",
    "ForecastScorer",
    "crps_from_quantiles",
    "crps_from_samples",
    "dci_scores",
    "discriminative_score",
    "energy_score",
    "frechet_distance",
    "interval_coverage",
    "interval_score",
    "make_forecast_scorer",
    "mean_absolute_error",
    "mean_absolute_scaled_error",
    "mutual_information_gap",
    "peak_signal_to_noise_ratio",
    "pinball_loss",
    "root_mean_squared_error",
    "separated_attribute_predictability",
    "series_statistics",
    "signal_to_noise_ratio",
    "structural_similarity",
    "symmetric_mean_absolute_percentage_error",
]
