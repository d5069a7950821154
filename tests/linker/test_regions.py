"""Weights of parts of a profile: regions of the axis or one number for each position."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsvae._linker.regions import region_weights
from tsvae.panel import read_records

AXIS = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
VALUES = np.random.default_rng(0).standard_normal((3, 6))
TABLE = read_records(pd.DataFrame(VALUES, columns=AXIS)).index
ARRAY = read_records(VALUES).index


def test_no_weights_are_ones():
    np.testing.assert_array_equal(region_weights(None, TABLE, "x_regions"), np.ones(6))


def test_regions_have_their_weight_and_the_mean_is_1():
    found = region_weights({(1.0, 4.0): 5.0}, TABLE, "x_regions")
    by_hand = np.array([1.0, 5.0, 5.0, 5.0, 1.0, 1.0])  # both ends are inside
    np.testing.assert_allclose(found, by_hand * 6 / 18)
    assert found.mean() == pytest.approx(1.0)


def test_several_regions_the_later_where_they_overlap():
    given = {(0.0, 3.0): 2.0, (2.0, 4.0): 0.0, (16, 99): 4}
    found = region_weights(given, TABLE, "x_regions")
    by_hand = np.array([2.0, 2.0, 0.0, 0.0, 1.0, 4.0])
    np.testing.assert_allclose(found, by_hand / by_hand.mean())


def test_arrays_count_positions():
    found = region_weights({(1, 2): 3.0}, ARRAY, "y_regions")
    by_hand = np.array([1.0, 3.0, 3.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(found, by_hand / by_hand.mean())
    labelled = read_records(pd.DataFrame(VALUES, columns=list("abcdef"))).index
    np.testing.assert_allclose(region_weights({(1, 2): 3.0}, labelled, "y_regions"), found)


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series])
def test_one_number_for_each_position(kind):
    weights = kind([0.0, 1.0, 2.0, 3.0, 0.0, 0.0])
    expected = np.array([0.0, 1.0, 2.0, 3.0, 0.0, 0.0])
    np.testing.assert_allclose(region_weights(weights, TABLE, "x_regions"), expected)


def test_only_ratios_matter():
    one = region_weights([1, 2, 3, 4, 5, 6], TABLE, "x_regions")
    np.testing.assert_allclose(region_weights(np.arange(1, 7) * 1e3, TABLE, "x_regions"), one)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({(20.0, 30.0): 2.0}, ValueError, r"\(20, 30\) holds no position .* from 0.5 to 16"),
        ({(4.0, 1.0): 2.0}, ValueError, r"\(4, 1\) holds no position"),
        ({(1.0, 4.0): -1.0}, ValueError, "x_regions must be finite numbers >= 0, not all 0"),
        ({(0.0, 99.0): 0.0}, ValueError, "not all 0"),
        ({(1.0, 4.0): np.nan}, ValueError, "finite"),
        ({(1.0, 4.0): "much"}, TypeError, r"regions \(low, high\) to numbers"),
        ({1.0: 4.0}, TypeError, r"regions \(low, high\) to numbers"),
        ({(1.0, 2.0, 3.0): 4.0}, TypeError, r"regions \(low, high\) to numbers"),
        ([1.0, 2.0], ValueError, r"each of the 6 positions, got shape \(2,\)"),
        ([[1.0] * 6], ValueError, r"got shape \(1, 6\)"),
        ([0.0] * 6, ValueError, "not all 0"),
        ([np.inf, 1, 1, 1, 1, 1], ValueError, "finite"),
        ("whole", TypeError, r"mapping {\(low, high\): weight} or 6 numbers, got 'whole'"),
    ],
)
def test_weights_of_no_use(given, error, words):
    with pytest.raises(error, match=words):
        region_weights(given, TABLE, "x_regions")
