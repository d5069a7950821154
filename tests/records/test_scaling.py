"""Scaling of signals: moments on what is observed, constants, extreme magnitudes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsvae._records.scaling import SignalScaler, fit_scaler

RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((30, 8, 2)) * [2.0, 5.0] + [1.0, -3.0]
MASK = RNG.random(VALUES.shape) < 0.8
SEEN = np.ma.array(VALUES, mask=~MASK)


@pytest.mark.parametrize(("by", "axes"), [("variable", (0, 1)), ("column", 0)])
def test_mean_0_and_deviation_1_where_observed(by, axes):
    scaler = fit_scaler(VALUES, MASK, by, unit=False)
    np.testing.assert_allclose(scaler.location.reshape(-1), SEEN.mean(axis=axes).reshape(-1))
    np.testing.assert_allclose(scaler.spread.reshape(-1), SEEN.std(axis=axes).reshape(-1))
    scaled = scaler.forward(VALUES, MASK)
    assert (scaled[~MASK] == 0.0).all()
    np.testing.assert_allclose(scaler.inverse(scaled)[MASK], VALUES[MASK])


@pytest.mark.parametrize("by", ["variable", "column"])
def test_unit_interval(by):
    scaler = fit_scaler(VALUES, MASK, by, unit=True)
    scaled = scaler.forward(VALUES, MASK)
    axes = (0, 1) if by == "variable" else 0
    seen = np.ma.array(scaled, mask=~MASK)
    assert (seen.min(axis=axes) == 0.0).all() and (abs(seen.max(axis=axes) - 1.0) < 1e-12).all()
    outside = scaler.forward(VALUES * 100, np.ones_like(MASK))
    assert outside.min() >= 0.0 and outside.max() <= 1.0


def test_a_position_never_observed_has_the_moments_of_its_variable():
    mask = MASK.copy()
    mask[:, 3, 1] = False
    by_column = fit_scaler(VALUES, mask, "column", unit=False)
    whole = fit_scaler(VALUES, mask, "variable", unit=False)
    assert by_column.location[3, 1] == whole.location[0, 1]
    assert by_column.spread[3, 1] == whole.spread[0, 1]
    assert not by_column.constant[3, 1]


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e12, 1e-12, 1e300])
def test_constants_come_back_exactly(value, unit):
    values = VALUES.copy()
    values[:, 2, 0] = value
    scaler = fit_scaler(values, MASK, "column", unit)
    assert scaler.constant[2, 0] and scaler.constant.sum() == 1
    found = scaler.inverse(RNG.standard_normal(values.shape))
    assert (found[:, 2, 0] == value).all()
    assert np.isfinite(scaler.forward(values + 1.0, MASK)).all()
    assert (scaler.forward(values, MASK)[:, 2, 0] == 0.0).all()


def test_constants_of_many_rows():
    values = np.full((100_001, 1, 1), 0.1)
    scaler = fit_scaler(values, np.ones_like(values, dtype=bool), "column", unit=False)
    assert scaler.constant.all() and scaler.location == 0.1


def test_clean_signals_decide_what_is_constant():
    values = VALUES.copy()
    values[:, 2:4, 0] = 5.0
    clean = values.copy()
    clean[:, 3, 0] = VALUES[:, 3, 0]
    scaler = fit_scaler(values, MASK, "column", unit=False)
    told = scaler.told_by(clean, MASK)
    assert scaler.constant[2:4, 0].all()
    assert told.constant[2, 0] and not told.constant[3, 0]
    by_variable = fit_scaler(np.full_like(values, 5.0), MASK, "variable", unit=False)
    assert by_variable.constant.all()
    assert by_variable.told_by(clean, MASK).constant.sum() == 0


@pytest.mark.parametrize("scale", [1e12, 1e-12, 1e150, 1e-150, 1e300, 1e-300])
def test_magnitudes(scale):
    scaler = fit_scaler(VALUES, MASK, "variable", unit=False)
    large = fit_scaler(VALUES * scale, MASK, "variable", unit=False)
    np.testing.assert_allclose(large.spread / scale, scaler.spread, rtol=1e-9)
    scaled = large.forward(VALUES * scale, MASK)
    np.testing.assert_allclose(scaled, scaler.forward(VALUES, MASK), rtol=1e-6, atol=1e-9)
    assert np.isfinite(large.log_spread(MASK)).all()


def test_a_small_signal_on_a_large_level():
    level = fit_scaler(VALUES + 1e12, MASK, "variable", unit=False)
    plain = fit_scaler(VALUES, MASK, "variable", unit=False)
    np.testing.assert_allclose(level.spread, plain.spread, rtol=1e-3)
    assert not level.constant.any()


def test_new_values_far_away_stay_finite():
    scaler = fit_scaler(VALUES, MASK, "variable", unit=False)
    far = scaler.forward(np.full_like(VALUES, 1e308), MASK).astype(np.float32)
    assert np.isfinite(far**2).all()


def test_log_spread_is_the_log_volume_of_the_observed_entries():
    scaler = fit_scaler(VALUES, MASK, "column", unit=False)
    expected = [sum(np.log(scaler.spread[seen])) for seen in MASK]
    np.testing.assert_allclose(scaler.log_spread(MASK), expected)


def test_json():
    scaler = fit_scaler(VALUES, MASK, "column", unit=True)
    twin = SignalScaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    for name in ("location", "spread", "constant"):
        np.testing.assert_array_equal(getattr(twin, name), getattr(scaler, name))
    assert twin.unit is True


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 2)),
    scale=st.floats(1e-100, 1e100),
    by=st.sampled_from(["variable", "column"]),
    unit=st.booleans(),
)
def test_back_and_forth(seed, shape, scale, by, unit):
    rng = np.random.default_rng(seed)
    values = np.round(rng.standard_normal(shape), 1) * scale
    mask = rng.random(shape) < 0.7
    scaler = fit_scaler(np.where(mask, values, 0.0), mask, by, unit)
    scaled = scaler.forward(values, mask)
    assert np.isfinite(scaled).all() and (scaler.spread > 0.0).all()
    found = scaler.inverse(scaled)
    np.testing.assert_allclose(found[mask], values[mask], rtol=1e-9, atol=1e-9 * scale)
