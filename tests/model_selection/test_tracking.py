"""Widths that follow the share of truth that issued intervals held."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tsvae.model_selection._tracking import track_coverage

COVERAGE = np.array([0.9, 0.5, 0.0, 0.5, 0.9])


def problem(n_origins=60, spread=1.0, seed=0):
    """Scores of normal truth against intervals that are ``1 / spread`` as wide as they should."""
    rng = np.random.default_rng(seed)
    truth = np.abs(rng.normal(size=(n_origins, 2, 3, 4, 1))) * spread
    scores = truth / np.maximum(stats.norm.ppf(0.5 + COVERAGE / 2), 1e-12)
    seen = rng.random(truth.shape[:-1]) < 0.8
    known = np.maximum(np.arange(n_origins) - 2, 0)
    return scores, seen, known, np.full(n_origins, 0.4)


def slope(coverage):
    """Of a normal distribution's coverage in the logarithm of the width, by differences."""
    edge = stats.norm.ppf(0.5 + coverage / 2)
    held = [2 * stats.norm.cdf(edge * np.exp(d)) for d in (-1e-5, 1e-5)]
    return (held[1] - held[0]) / 2e-5


def test_by_a_plain_loop():
    scores, seen, known, horizons = problem(spread=1.3)
    found = track_coverage(scores, seen, known, horizons, COVERAGE, gain=0.2, leak=0.1)
    for place in (0, 1):
        issued, logarithm = [], 0.0
        for origin in range(len(scores)):
            if origin >= 3:  # the outcomes of origin - 3 arrive
                held = [
                    s <= issued[origin - 3]
                    for s in scores[origin - 3][..., place][seen[origin - 3]]
                ]
                missed = COVERAGE[place] - sum(held) / len(held)
                logarithm = 0.96 * logarithm + 0.08 * missed / slope(COVERAGE[place])
            issued.append(np.exp(logarithm))
        np.testing.assert_allclose(found[:, place], issued, rtol=1e-6)


@pytest.mark.parametrize("spread", [0.7, 1.0, 1.4])
def test_coverage_comes_nearer(spread):
    scores, seen, known, horizons = problem(2000, spread)
    factors = track_coverage(scores, seen, known, horizons, COVERAGE)
    for place, level in ((0, 0.9), (1, 0.5)):
        plain, tracked = (
            np.abs((scores[500:, ..., place] <= bound).mean() - level)
            for bound in (1.0, factors[500:, None, None, None, place])
        )
        assert tracked < max(0.75 * plain, 0.02)  # as much leaks as is gained


def test_without_a_leak_coverage_is_met_in_the_long_run():
    scores, seen, known, horizons = problem(4000, 1.4)
    factors = track_coverage(scores, seen, known, horizons, COVERAGE, leak=0.0)
    held = scores[200:] <= factors[200:, None, None, None]
    np.testing.assert_allclose(held[seen[200:]].mean(0)[[0, 1]], [0.9, 0.5], atol=0.01)


def test_starts_at_one_stays_within_bounds_and_leaves_the_median():
    for spread, bound in ((1e3, 2.0), (1e-3, 0.5)):
        scores, seen, known, horizons = problem(400, spread)
        factors = track_coverage(scores, seen, known, horizons, COVERAGE)
        np.testing.assert_array_equal(factors[:3], 1.0)
        np.testing.assert_array_equal(factors[:, 2], 1.0)
        assert factors.min() >= 0.5 - 1e-12
        assert factors.max() <= 2.0 + 1e-12
        np.testing.assert_allclose(factors[-1, [1, 3]], bound)


def test_origins_without_truth_change_nothing():
    scores, seen, known, horizons = problem()
    seen[10:] = False
    factors = track_coverage(scores, seen, known, horizons, COVERAGE)
    np.testing.assert_array_equal(factors[13:], np.tile(factors[12], (47, 1)))
