"""Quantiles of a back-test rescaled by how earlier ones fared."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.base import BaseEstimator

from tsvae.metrics._conformal import conformal_quantile
from tsvae.model_selection import backtest
from tsvae.model_selection._conformal import rescale_by_past

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]


def problem(n_origins=80, width=0.5, step=1, seed=0):
    """Normal truth, quantiles of ``width`` times the right spread: (O, B, H, F, Q)."""
    rng = np.random.default_rng(seed)
    observed = rng.normal(size=(n_origins, 2, 8, 3))
    quantiles = np.tile(width * stats.norm.ppf(LEVELS), (*observed.shape, 1))
    mask = rng.random(observed.shape) < 0.9
    return quantiles, np.where(mask, observed, 0.0), mask, 50 + step * np.arange(n_origins)


def test_by_a_plain_loop():
    quantiles, observed, mask, origins = problem()
    found = rescale_by_past(quantiles, observed, mask, origins, LEVELS, memory=29 / 8, enough=5)
    number, steps = 60, (2, 3)  # the second of four groups of steps
    every = [o for o in range(80) if origins[o] + 4 <= origins[number]]
    known = every[-30:]
    scores = [
        abs(observed[o, b, h, f]) / (0.5 * stats.norm.ppf(0.95))
        for o in known
        for b in range(2)
        for h in steps
        for f in range(3)
        if mask[o, b, h, f]
    ]
    horizons = (origins[known[-1]] - origins[known[0]]) / 4 + 1
    factor = conformal_quantile(np.array(scores), 0.9, 2 * 3 * horizons)
    weight = 2 * 3**0.5 * ((origins[every[-1]] - origins[every[0]]) / 4 + 1)
    factor **= weight / (weight + 20.0)
    np.testing.assert_allclose(
        found[number][:, 2:4, :, -1], factor * quantiles[number][:, 2:4, :, -1], rtol=5e-4
    )  # factors lie on a grid


def test_first_origins_stay_and_later_rows_are_not_looked_at():
    quantiles, observed, mask, origins = problem()
    found = rescale_by_past(quantiles, observed, mask, origins, LEVELS)
    np.testing.assert_array_equal(found[:6], quantiles[:6])
    rows = origins[:, None, None, None] + np.arange(8)[:, None]
    changed = np.where(rows >= 90, 1e3, observed)  # unknown at the origin 90
    again = rescale_by_past(quantiles, changed, mask, origins, LEVELS)
    np.testing.assert_array_equal(again[:41], found[:41])
    assert not np.allclose(again[60:], found[60:])


def test_origins_far_apart_are_looked_at_all_the_same():
    quantiles, observed, mask, origins = problem(n_origins=12, step=100)
    found = rescale_by_past(quantiles, observed, mask, origins, LEVELS)
    np.testing.assert_array_equal(found[:5], quantiles[:5])
    assert not np.allclose(found[6], quantiles[6])


@pytest.mark.parametrize(("width", "bound"), [(1e-4, 4.0), (1e4, 0.5)])
def test_factors_are_bounded(width, bound):
    quantiles, observed, mask, origins = problem(1500, width)
    found = rescale_by_past(quantiles, observed, mask, origins, LEVELS)
    factor = found[..., [0, 1, 3, 4]] / quantiles[..., [0, 1, 3, 4]]
    assert np.maximum(factor, 1 / factor).max() <= max(bound, 1 / bound) * (1 + 1e-9)
    np.testing.assert_allclose(factor[-1], bound, rtol=0.05)  # little is left of the prior


@pytest.mark.parametrize("width", [0.5, 1.0, 1.7])
def test_coverage_comes_near(width):
    quantiles, observed, mask, origins = problem(300, width, step=4)
    found = rescale_by_past(quantiles, observed, mask, origins, LEVELS)
    inside = (observed >= found[..., 0]) & (observed <= found[..., -1])
    assert inside[100:][mask[100:]].mean() == pytest.approx(0.9, abs=0.03)
    np.testing.assert_array_equal(found[..., 2], quantiles[..., 2])
    assert (np.diff(found, axis=-1) >= 0).all()


class Narrow(BaseEstimator):
    """Forecasts zero with bands too narrow, all origins at once."""

    def fit(self, X):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def _forecast_origins(self, panel, origins, horizon, quantiles):
        shape = (len(origins), panel.n_series, horizon, panel.n_features)
        if quantiles is None:
            return np.zeros(shape)
        return np.tile(0.4 * stats.norm.ppf(quantiles), (*shape, 1))


def test_a_backtest_covers_better():
    x = np.random.default_rng(0).normal(size=(700, 2))
    options = {"horizon": 4, "step": 2, "n_origins": 300, "coverage": 0.9}
    plain = backtest(Narrow(), x, **options).summary()
    rescaled = backtest(Narrow(), x, **options, conformal=True).summary()
    assert plain.loc["all", "coverage"] < 0.6
    assert rescaled.loc["all", "coverage"] > 0.8
    assert rescaled.loc["all", "CRPS"] < plain.loc["all", "CRPS"]
    assert rescaled.loc["all", "MAE"] == plain.loc["all", "MAE"]


def test_there_must_be_quantiles_to_rescale():
    with pytest.raises(ValueError, match="give quantiles or coverage"):
        backtest(Narrow(), np.zeros((50, 1)), horizon=4, conformal=True)
