"""The benchmark of the defaults cuts, fills and scores as it says."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = ("_common", "_defaults_data", "_defaults_scores", "_defaults_methods", "defaults")


@pytest.fixture(scope="module")
def parts():
    sys.path.insert(0, str(FOLDER))
    before = set(sys.modules)
    try:
        import _defaults_data
        import _defaults_methods
        import _defaults_scores
        import defaults

        yield SimpleNamespace(
            data=_defaults_data, methods=_defaults_methods, scores=_defaults_scores, main=defaults
        )
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(MODULES) - before:
            sys.modules.pop(name, None)


def make_series(parts, values, season, longest):
    stamps = pd.period_range("2000-01", periods=len(values), freq="M")
    frame = pd.DataFrame(np.asarray(values, dtype=float), stamps)
    return parts.data.Series("made", frame, season, longest)


def test_the_last_tenth_is_held_out(parts):
    problem = parts.scores.make_problem(make_series(parts, np.arange(120), 12, 12))
    assert (problem.n_train, problem.horizon, problem.origins.tolist()) == (108, 12, [108])
    inner = parts.scores.make_problem(make_series(parts, np.arange(120), 1, 12), inner=True)
    assert (len(inner.series.frame), inner.n_train, inner.horizon) == (108, 98, 5)
    assert inner.origins.tolist() == [98, 99, 100, 101, 102, 103]


def test_long_data_have_about_a_hundred_origins(parts):
    problem = parts.scores.make_problem(make_series(parts, np.zeros(5000), 12, 12))
    assert problem.step == 4
    assert 100 <= len(problem.origins) <= 125
    assert problem.origins[-1] + problem.horizon <= 5000


def test_gaps_are_filled_without_looking_ahead(parts):
    history = np.array([[np.nan], [1.0], [np.nan], [3.0], [np.nan]])
    np.testing.assert_array_equal(parts.methods.fill_history(history).ravel(), [1, 1, 2, 3, 3])


def test_scores_are_in_units_of_the_seasonal_naive_error(parts):
    # A line of slope 1 in one variable and of slope 10 in the other: a season apart, 4 and 40.
    line = np.arange(40.0)[:, None] * [1.0, 10.0]
    line[3, 0] = np.nan
    problem = parts.scores.make_problem(make_series(parts, line, 4, 4))
    seasonal = parts.methods.run_seasonal_naive(problem)
    naive = parts.methods.run_naive(problem)
    assert seasonal.mase == pytest.approx(1.0)
    assert naive.mase == pytest.approx((1 + 2 + 3 + 4) / 4 / 4)


def test_crps_and_coverage_of_known_quantiles(parts):
    problem = parts.scores.make_problem(make_series(parts, [0.0, 1.0] * 20, 1, 4))
    shape = (len(problem.origins), 4, 1, len(parts.scores.LEVELS))
    quantiles = np.broadcast_to(np.array(parts.scores.LEVELS), shape)
    forecasts = parts.scores.Forecasts(quantiles[..., 9], quantiles)
    found = parts.scores.score(problem, "made", forecasts, 0.0, 0.0)
    # Truth is 0 or 1, quantiles are those of a uniform distribution, the scale is 1.
    assert found.mase == pytest.approx(0.5)
    levels = np.array(parts.scores.LEVELS)
    assert found.crps == pytest.approx(np.mean(2 * levels * (1 - levels)))
    assert found.coverage == 0.0


def test_the_verdict_counts_data_sets(parts):
    def made(data, method, mase, seconds=1.0):
        return parts.scores.Scores(data, method, mase, None, None, seconds, 0.0, {})

    names = parts.methods
    scores = [
        made("a", names.OURS, 0.5, 30.0),
        made("a", names.NAIVE, 0.4),
        made("a", names.SEASONAL, 0.9),
        made("b", names.OURS, 0.5, 130.0),
        made("b", names.NAIVE, 0.6),
        made("b", names.SEASONAL, 0.9),
    ]
    result = parts.main.verdict(scores)
    assert result == {
        "data_sets": 2,
        "ahead_of_naive": ["b"],
        "longest_fit_seconds": 130.0,
    }
    assert "on 1 of 2" in parts.main.verdict_text(result)
    assert "Not every fit" in parts.main.verdict_text(result)
