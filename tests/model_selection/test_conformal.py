"""Quantiles of a back-test rescaled by how earlier ones fared."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.base import BaseEstimator

from tsvae.metrics._conformal import conformal_quantile
from tsvae.model_selection import _conformal, backtest
from tsvae.model_selection._conformal import rescale_by_past

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]


def problem(n_origins=80, width=0.5, step=1, seed=0, features=3):
    """Normal truth, quantiles of ``width`` times the right spread: (O, B, H, F, Q)."""
    rng = np.random.default_rng(seed)
    observed = rng.normal(size=(n_origins, 2, 8, features))
    quantiles = np.tile(width * stats.norm.ppf(LEVELS), (*observed.shape, 1))
    mask = rng.random(observed.shape) < 0.9
    return quantiles, np.where(mask, observed, 0.0), mask, 50 + step * np.arange(n_origins)


@pytest.fixture
def untracked(monkeypatch):
    """Widths that do not follow earlier coverage."""

    def ones(scores, seen, known, horizons, coverage):
        return np.ones((len(scores), len(coverage)))

    monkeypatch.setattr(_conformal, "track_coverage", ones)


def factor_of(scores, recent, weight):
    """The conformal factor of a list of scores, by its definition."""
    return conformal_quantile(np.array(scores), 0.9, recent) ** (weight / (weight + 20.0))


def scores_of(found, observed, mask, known, feature):
    """Scores of the upper level at the third and fourth step, entry by entry."""
    return [
        abs(observed[o, b, h, feature]) / found[o, b, h, feature, -1]
        for o in known
        for b in range(2)
        for h in (2, 3)
        if mask[o, b, h, feature]
    ]


def looked_at(origins, number, last):
    """Origins whose outcomes four steps ahead are known, all and the last ones."""
    every = [o for o in range(len(origins)) if origins[o] + 4 <= origins[number]]
    horizons = [(origins[some[-1]] - origins[some[0]]) / 4 + 1 for some in (every, every[-last:])]
    return every[-last:], *horizons


@pytest.mark.usefixtures("untracked")
def test_one_variable_by_a_plain_loop():
    quantiles, observed, mask, origins = problem(features=1)
    found = rescale_by_past(quantiles, observed, mask, origins, LEVELS, memory=29 / 8, enough=5)
    known, every, recent = looked_at(origins, 60, 30)
    factor = factor_of(scores_of(quantiles, observed, mask, known, 0), 2 * recent, 2 * every)
    np.testing.assert_allclose(
        found[60][:, 2:4, :, -1], factor * quantiles[60][:, 2:4, :, -1], rtol=2e-3
    )  # factors lie on a grid


@pytest.mark.usefixtures("untracked")
def test_each_variable_by_itself_and_then_all_together_by_a_plain_loop():
    quantiles, observed, mask, origins = problem(n_origins=60)
    quantiles = quantiles * np.array([0.7, 1.0, 3.0])[:, None]
    found = rescale_by_past(quantiles, observed, mask, origins, LEVELS, memory=15 / 8, enough=5)
    own = quantiles.copy()
    for number in range(8, 60):
        known, _, recent = looked_at(origins, number, 16)
        for f in range(3):
            scores = scores_of(quantiles, observed, mask, known, f)
            own[number, :, 2:4, f, -1] *= factor_of(scores, 2 * recent, 2 * recent)
    known, every, recent = looked_at(origins, 59, 16)
    scores = [s for f in range(3) for s in scores_of(own, observed, mask, known, f)]
    factor = factor_of(scores, 2 * 3 * recent, 2 * 3**0.5 * every)
    np.testing.assert_allclose(
        found[59][:, 2:4, :, -1], factor * own[59][:, 2:4, :, -1], rtol=2e-2
    )  # factors lie on a grid


def test_variables_that_differ_are_covered_alike():
    quantiles, observed, mask, origins = problem(400, 1.0, step=4)
    quantiles = quantiles * np.array([0.6, 1.0, 1.8])[:, None]
    found = rescale_by_past(quantiles, observed, mask, origins, LEVELS)
    inside = (observed >= found[..., 1]) & (observed <= found[..., 3])
    before = (observed >= quantiles[..., 1]) & (observed <= quantiles[..., 3])
    shares, plain = (
        np.array([part[200:, ..., f][mask[200:, ..., f]].mean() for f in range(3)])
        for part in (inside, before)
    )
    assert np.ptp(plain) > 0.3
    np.testing.assert_allclose(shares, 0.5, atol=0.06)


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


@pytest.mark.usefixtures("untracked")
@pytest.mark.parametrize(("width", "bound"), [(1e-4, 4.0), (1e4, 0.5)])
def test_factors_are_bounded(width, bound):
    quantiles, observed, mask, origins = problem(2500, width, features=1)
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


def test_widths_follow_coverage_where_it_changes():
    quantiles, observed, mask, origins = problem(600, 1.0, step=4)
    observed[300:] *= 1.5
    found = rescale_by_past(quantiles, observed, mask, origins, LEVELS)
    inside = (observed >= found[..., 0]) & (observed <= found[..., -1])
    for some in (slice(100, 300), slice(340, 600)):
        assert inside[some][mask[some]].mean() == pytest.approx(0.9, abs=0.02)


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
