"""Series with known factors: the formula by a loop, ranges, independence, pairs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tsvae.datasets import FACTOR_NAMES, make_factor_pairs, make_factor_series


def test_formula_by_a_loop():
    data = make_factor_series(3, 9, random_state=1)
    for i, row in data.factors.iterrows():
        for t in range(9):
            wave = row.amplitude * math.sin(2 * math.pi * (t - 4) / row.period + row.phase)
            expected = row.level + row.trend * (t - 4) / 4 + wave
            assert data.clean[i, t, 0] == pytest.approx(expected, abs=1e-12)


def test_shapes_ranges_and_names():
    data = make_factor_series(2000, 40, random_state=0)
    assert data.series.shape == data.clean.shape == (2000, 40, 1)
    assert tuple(data.factors) == FACTOR_NAMES
    low, high = data.factors.min(), data.factors.max()
    assert (low >= [0.5, 10, -math.pi / 2, -1, 0.05, -1]).all()
    assert (high <= [1.5, 20, math.pi / 2, 1, 0.3, 1]).all()
    assert ((high - low) > 0.98 * np.array([1, 10, math.pi, 2, 0.25, 2])).all()
    correlation = np.corrcoef(data.factors.T) - np.eye(6)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(2000)  # independent


def test_noise_has_the_stated_spread():
    data = make_factor_series(200, 500, random_state=0)
    found = (data.series - data.clean).std(axis=(1, 2))
    assert_allclose(found, data.factors["noise"], rtol=0.15)  # 4.7 standard errors
    assert_allclose((found / data.factors["noise"]).mean(), 1.0, atol=0.01)


def test_factors_can_be_read_from_a_clean_series():
    """Identifiable: least squares from the middle of the ranges finds the factors again."""
    from scipy.optimize import least_squares

    data = make_factor_series(8, 64, ranges={"noise": 0.0}, random_state=3)
    offset = np.arange(64) - 31.5

    def error(p, x):
        wave = p[0] * np.sin(2 * np.pi * offset / p[1] + p[2])
        return p[4] + p[3] * offset / 31.5 + wave - x

    names = ["amplitude", "period", "phase", "trend", "level"]
    for i in range(8):
        x = data.clean[i, :, 0]
        fits = [
            least_squares(error, [1.0, period, phase, 0.0, 0.0], args=(x,))
            for period in (18.0, 23.0, 29.0)
            for phase in (-0.8, 0.8)
        ]
        # Among the solutions inside the ranges only one fits.
        good = [f.x for f in fits if f.cost < 1e-12 and f.x[0] > 0 and abs(f.x[2]) < math.pi / 2]
        assert good
        for found in good:
            assert_allclose(found, data.factors.loc[i, names], atol=1e-4)


def test_random_state():
    first, again = (make_factor_series(5, random_state=7) for _ in range(2))
    assert_array_equal(first.series, again.series)
    assert not np.array_equal(first.series, make_factor_series(5, random_state=8).series)
    old = make_factor_series(5, random_state=np.random.RandomState(0))
    assert_array_equal(
        old.series, make_factor_series(5, random_state=np.random.RandomState(0)).series
    )
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_factor_series(5)
    assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_fixed_factors_are_not_varied():
    data = make_factor_series(50, ranges={"noise": 0.0, "trend": 0.5}, random_state=0)
    assert list(data.varied) == ["amplitude", "period", "phase", "level"]
    assert_array_equal(data.series, data.clean)
    assert (data.factors["trend"] == 0.5).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    n_changed=st.one_of(st.none(), st.integers(1, 4)),
    fixed=st.sets(st.sampled_from(["trend", "noise"]), max_size=2),
    seed=st.integers(0, 99),
)
def test_pairs_share_all_but_the_changed_factors(n_changed, fixed, seed):
    ranges = {name: 0.1 for name in fixed}
    pairs = make_factor_pairs(40, 16, n_changed=n_changed, ranges=ranges, random_state=seed)
    differ = pairs.first.factors != pairs.second.factors
    pd.testing.assert_frame_equal(differ, pairs.changed)
    counts = differ.sum(axis=1)
    if n_changed is None:
        assert counts.between(1, 5 - len(fixed)).all()
        assert counts.nunique() > 1
    else:
        assert (counts == n_changed).all()
    assert not differ[list(fixed)].to_numpy().any()
    same = ~differ.to_numpy()[:, [0, 1, 2, 3, 5]].any(axis=1)  # all but the noise
    equal = np.isclose(pairs.first.clean, pairs.second.clean).all(axis=(1, 2))
    assert_array_equal(same, equal)


def test_pairs_choose_every_factor_equally_often():
    changed = make_factor_pairs(6000, 8, random_state=0).changed
    assert_allclose(changed.mean(), 1 / 6, atol=0.02)  # four standard errors


def test_noise_of_the_views_is_their_own():
    pairs = make_factor_pairs(5, 32, n_changed=1, random_state=0)
    noise = [(view.series - view.clean).ravel() for view in (pairs.first, pairs.second)]
    assert abs(np.corrcoef(noise)[0, 1]) < 0.35


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_series": 0}, ValueError, "n_series must be at least 1"),
        ({"n_series": 2.0}, TypeError, "n_series must be an integer"),
        ({"n_steps": 7}, ValueError, "n_steps must be at least 8"),
        ({"ranges": {"frequency": 1.0}}, KeyError, "names the factor 'frequency'"),
        ({"ranges": {"level": (1.0, 1.0)}}, ValueError, "low < high"),
        ({"ranges": {"level": (1.0, 2.0, 3.0)}}, ValueError, r"pair \(low, high\)"),
        ({"ranges": {"level": np.nan}}, ValueError, "finite"),
        ({"ranges": {"period": 0.0}}, ValueError, "must be positive"),
        ({"ranges": {"noise": (-0.1, 0.1)}}, ValueError, "must be not negative"),
    ],
)
def test_errors(options, error, match):
    for make in (make_factor_series, make_factor_pairs):
        with pytest.raises(error, match=match):
            make(**options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_changed": 0}, "at least 1"),
        ({"n_changed": 7}, "at most the 6"),
        ({"n_changed": 6, "ranges": {"noise": 0.1}}, "at most the 5"),
        ({"ranges": dict.fromkeys(FACTOR_NAMES, 1.0)}, "fixes every factor"),
    ],
)
def test_pair_errors(options, match):
    with pytest.raises(ValueError, match=match):
        make_factor_pairs(**options)
