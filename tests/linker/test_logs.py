"""Signed logarithms: decades above a floor, odd, invertible at any magnitude, slopes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsvae._linker.logs import SignedLog, fit_signed_log

RNG = np.random.default_rng(0)


def log_of(*floor):
    return SignedLog(np.array(floor))


def test_decades_above_the_floor():
    values = np.array([1e2, 1e5, -1e5, 1e9])[:, None]
    expected = np.array([2.0, 5.0, -5.0, 9.0])[:, None]
    np.testing.assert_allclose(log_of(1.0).forward(values), expected, atol=1e-4)
    np.testing.assert_allclose(log_of(1e-3).forward(1e-3 * values), expected, atol=1e-4)


def test_linear_around_zero_and_odd():
    values = np.array([-1e-3, 0.0, 1e-3])[:, None]
    found = log_of(0.5).forward(values)
    np.testing.assert_allclose(found, values / np.log(10.0), rtol=1e-6)  # x / (2 c ln 10)
    assert found[1] == 0.0
    many = RNG.standard_normal((50, 2)) * 10.0 ** RNG.uniform(-5, 5, (50, 2))
    law = log_of(0.5, 2.0)
    np.testing.assert_array_equal(law.forward(-many), -law.forward(many))
    order = np.argsort(many[:, 1])
    assert (np.diff(law.forward(many)[order, 1]) > 0.0).all()


def test_each_variable_has_its_floor():
    values = RNG.standard_normal((3, 4, 2))
    both = log_of(0.1, 10.0)
    for place, floor in enumerate((0.1, 10.0)):
        alone = log_of(floor).forward(values[..., [place]])
        np.testing.assert_array_equal(both.forward(values)[..., [place]], alone)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    exponent=st.floats(-320, 308),
    floor_exponent=st.floats(-307, 300),
    sign=st.sampled_from([-1.0, 1.0]),
)
def test_back_and_forth_at_any_magnitude(exponent, floor_exponent, sign):
    value = np.array([[sign * 10.0**exponent]])
    law = log_of(10.0**floor_exponent)
    with np.errstate(all="raise", under="ignore"):
        found = law.forward(value)
        back = law.inverse(found)
    assert np.isfinite(found).all()
    # Decades of a double have an error of 1e-14 at hundreds of decades.
    smallest = 1e-15 * 10.0**floor_exponent
    np.testing.assert_allclose(back, value, rtol=1e-11, atol=smallest)


def test_hundreds_of_decades():
    law = log_of(1e-310)
    found = law.forward(np.array([[1.0], [-1e10], [0.0]]))
    np.testing.assert_allclose(found[:, 0], [310.0, -320.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(law.inverse(found)[:, 0], [1.0, -1e10, 0.0], rtol=1e-6)


def test_the_inverse_is_finite_everywhere():
    found = log_of(2.0).inverse(np.array([[-1e9], [-400.0], [400.0], [1e9]]))
    assert np.isfinite(found).all()
    assert (np.sign(found[:, 0]) == [-1, -1, 1, 1]).all()


@pytest.mark.parametrize("floor", [1e-3, 1.0, 1e4])
def test_slopes_equal_finite_differences(floor):
    law = log_of(floor)
    values = floor * np.array([-1e4, -3.0, -0.1, 0.0, 1e-3, 1.0, 50.0, 1e6])[:, None]
    step = 1e-6 * np.maximum(np.abs(values), floor)
    expected = (law.forward(values + step) - law.forward(values - step)) / (2.0 * step)
    np.testing.assert_allclose(law.slope(values), expected, rtol=1e-6)


def test_slopes_of_large_values_are_those_of_the_logarithm():
    values = np.array([[1e3], [1e200], [-1e305]])
    expected = 1.0 / (np.abs(values) * np.log(10.0))
    np.testing.assert_allclose(log_of(1e-5).slope(values), expected, rtol=1e-6)


def test_the_floor_is_the_1_percent_quantile_of_observed_magnitudes_but_zero():
    values = np.abs(RNG.standard_normal((40, 10, 3))) * [1.0, 100.0, 1.0]
    values[::10] *= -1.0  # a tenth of each position: no noise about zero
    values[:, :5] = 0.0
    values[..., 2] = 0.0
    mask = RNG.random(values.shape) < 0.8
    poisoned = np.where(mask, values, 1e-12)
    law = fit_signed_log(poisoned, mask)
    for feature in range(2):
        sizes = sorted(
            abs(v) for v in values[..., feature][mask[..., feature]].tolist() if v != 0.0
        )
        assert law.floor[feature] == pytest.approx(np.percentile(sizes, 1.0))
        assert sum(s < law.floor[feature] for s in sizes) == pytest.approx(0.01 * len(sizes), abs=1)
    assert law.floor[2] == 1.0  # nothing to measure


def test_noise_about_zero_raises_the_floor():
    rng = np.random.default_rng(3)
    intensity = 10.0 ** np.linspace(5, -4, 30)  # decades below the noise
    values = intensity * rng.lognormal(0.0, 0.3, (500, 1)) + 2.0 * rng.standard_normal((500, 30))
    law = fit_signed_log(values[..., None], np.ones((500, 30, 1), dtype=bool))
    assert law.floor[0] == pytest.approx(2.0, rel=0.15)
    noisy = law.forward(values[:, -8:, None])
    assert np.abs(noisy).mean() < 0.25  # decades
    clean = fit_signed_log(np.abs(values[..., None]), np.ones((500, 30, 1), dtype=bool))
    assert clean.floor[0] < 0.1


def test_json():
    law = fit_signed_log(RNG.standard_normal((5, 4, 2)), np.ones((5, 4, 2), dtype=bool))
    twin = SignedLog.from_dict(json.loads(json.dumps(law.to_dict())))
    np.testing.assert_array_equal(twin.floor, law.floor)
