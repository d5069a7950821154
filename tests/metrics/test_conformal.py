"""Conformal quantiles."""

from __future__ import annotations

import numpy as np
import pytest

from tsvae.metrics._conformal import conformal_quantile


@pytest.mark.parametrize("n", [1, 4, 19, 100])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_rank_by_a_plain_loop(n, level):
    scores = np.random.default_rng(n).normal(size=n)
    best = max(scores)
    for score in sorted(scores, reverse=True):
        if sum(s <= score for s in scores) >= (n + 1) * level - 1e-9:
            best = score
    assert conformal_quantile(scores, level) == best


def test_a_further_score_is_covered():
    rng = np.random.default_rng(0)
    scores = rng.exponential(size=(20_000, 10))
    bound = np.array([conformal_quantile(row[:-1], 0.8) for row in scores])
    assert (scores[:, -1] <= bound).mean() == pytest.approx(0.8, abs=0.01)


def test_repeated_scores_count_once_where_said():
    scores = np.random.default_rng(0).normal(size=9)
    repeated = np.repeat(scores, 7)
    assert conformal_quantile(repeated, 0.8, independent=9) == conformal_quantile(scores, 0.8)
