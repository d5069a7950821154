"""Matches: scores against scipy's densities, assignments against all permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from tsvae._linker.matching import assign, gaussian_scores

RNG = np.random.default_rng(0)


def densities(centre, scale, values, mask):
    """Sums of log densities over observed entries, pair by pair."""
    found = np.zeros((len(centre), len(values)))
    for i in range(len(centre)):
        for j in range(len(values)):
            seen = mask[j]
            terms = norm.logpdf(values[j][seen], centre[i][seen], scale[i][seen])
            found[i, j] = terms.sum()
    return found


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_scores_are_sums_of_log_densities(missing):
    centre, values = RNG.standard_normal((5, 30)), RNG.standard_normal((7, 30))
    scale = RNG.uniform(0.1, 3.0, (5, 30))
    mask = RNG.random((7, 30)) >= missing
    mask[2] = missing == 0.0  # nothing is known of this one
    values = np.where(mask, values, 0.0)
    found = gaussian_scores(centre, scale, values, mask)
    difference = found - densities(centre, scale, values, mask)
    assert found.shape == (5, 7)
    # Up to a constant of the record that is scored: 2 pi, once for each observed entry.
    np.testing.assert_allclose(difference - difference[0], 0.0, atol=1e-9)
    constant = 0.5 * np.log(2.0 * np.pi) * mask.sum(axis=1)
    np.testing.assert_allclose(difference[0], constant, atol=1e-9)


def test_far_values_keep_their_digits():
    centre = np.full((1, 20), 50.0)
    values = centre + RNG.standard_normal((2, 20)) * 1e-2
    scale, mask = np.full((1, 20), 1e-2), np.ones((2, 20), dtype=bool)
    found = gaussian_scores(centre, scale, values, mask)[0]
    expected = densities(centre, scale, values, mask)[0]
    assert found[0] - found[1] == pytest.approx(expected[0] - expected[1], rel=1e-5)


def best_total(scores):
    """Largest sum over one-to-one matchings, by trying all."""
    n, m = scores.shape
    if n > m:
        return best_total(scores.T)
    return max(
        sum(scores[i, j] for i, j in enumerate(chosen)) for chosen in permutations(range(m), n)
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=st.integers(1, 5), m=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_assignment_has_the_largest_sum_of_all_permutations(n, m, seed):
    scores = np.random.default_rng(seed).standard_normal((n, m))
    found = assign(scores, 2).assignment
    used = found[found >= 0]
    assert len(set(used)) == len(used) == min(n, m)
    total = sum(scores[i, j] for i, j in enumerate(found) if j >= 0)
    assert total == pytest.approx(best_total(scores))


def test_one_to_one_where_both_want_the_same():
    scores = np.array([[5.0, 4.0], [6.0, 0.0]])
    found = assign(scores, 5)
    assert found.best.tolist() == [[0, 1], [0, 1]]
    assert found.assignment.tolist() == [1, 0]
    np.testing.assert_array_equal(found.scores, scores)


def test_best_are_in_order_and_ties_in_the_order_of_the_rows():
    scores = RNG.standard_normal((6, 9)).round(1)
    found = assign(scores, 4)
    assert found.best.shape == (6, 4)
    for row, best in zip(scores, found.best, strict=True):
        expected = sorted(range(9), key=lambda j: (-row[j], j))[:4]
        assert best.tolist() == expected
    assert assign(np.zeros((2, 3)), 3).best.tolist() == [[0, 1, 2]] * 2
    assert found.best.dtype == found.assignment.dtype == np.int64


def test_more_asked_for_than_there_are():
    found = assign(RNG.standard_normal((4, 2)), 5)
    assert found.best.shape == (4, 2)
    assert sorted(found.assignment.tolist()) == [-1, -1, 0, 1]
