"""Scalers of panels: moments, extreme sizes, power transforms, densities."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tsvae.estimation.scaling import PanelScaler, fit_scaler

NAMES = ["a", "b"]


def make_panel(seed=0, positive=False):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((3, 40, 2)) * [2.0, 50.0] + [5.0, -7.0]
    if positive:
        values = np.exp(values / [4.0, 40.0])
    mask = rng.random(values.shape) < 0.7
    return np.where(mask, values, 0.0), mask


def test_standard_scaling_is_of_the_observed_entries():
    values, mask = make_panel()
    scaler = fit_scaler(values, mask, NAMES)
    for f in range(2):
        seen = values[..., f][mask[..., f]]
        assert scaler.location[f] == pytest.approx(seen.mean())
        assert scaler.scale[f] == pytest.approx(seen.std())
    scaled = scaler.forward(values, mask, NAMES)
    assert (scaled[~mask] == 0.0).all()
    assert scaler.affine


def test_min_max_scaling_covers_zero_to_one():
    values, mask = make_panel()
    scaled = fit_scaler(values, mask, NAMES, scaling="min-max").forward(values, mask, NAMES)
    for f in range(2):
        seen = scaled[..., f][mask[..., f]]
        assert (seen.min(), seen.max()) == (0.0, pytest.approx(1.0))


def test_no_scaling_leaves_counts_alone():
    values, mask = make_panel()
    scaler = fit_scaler(values, mask, NAMES, scaling="none")
    np.testing.assert_array_equal(scaler.forward(values, mask, NAMES), values)


@pytest.mark.parametrize("size", [1e-200, 1e-12, 1.0, 1e12, 1e200])
@pytest.mark.parametrize("scaling", ["standard", "min-max"])
def test_any_size_comes_back(size, scaling):
    values, mask = make_panel()
    scaler = fit_scaler(values * size, mask, NAMES, scaling=scaling)
    scaled = scaler.forward(values * size, mask, NAMES)
    expected = fit_scaler(values, mask, NAMES, scaling=scaling).forward(values, mask, NAMES)
    np.testing.assert_allclose(scaled, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scaler.inverse(scaled)[mask], values[mask] * size, rtol=1e-9)


@pytest.mark.parametrize(("value", "scale"), [(0.0, 1.0), (3.0, 1.0), (1e12, 1.0), (-1e-12, 1e-12)])
def test_a_constant_variable_has_scale_one_or_its_own_smaller_size(value, scale):
    values, mask = np.full((1, 9, 1), value), np.ones((1, 9, 1), dtype=bool)
    scaler = fit_scaler(values, mask, ["a"])
    assert scaler.scale[0] == pytest.approx(scale, rel=1e-12)
    assert np.abs(scaler.forward(values, mask, ["a"])).max() <= 1e-3
    np.testing.assert_allclose(scaler.inverse(np.zeros((1, 9, 1))), values)


def test_a_large_level_with_a_small_movement_is_not_constant():
    values = 1e6 + np.sin(np.arange(50.0)).reshape(1, -1, 1)
    scaler = fit_scaler(values, np.ones_like(values, dtype=bool), ["a"])
    assert scaler.scale[0] == pytest.approx(values.std(), rel=1e-6)


def test_a_variable_without_values_is_left_alone():
    values, mask = make_panel()
    mask[..., 1] = False
    scaler = fit_scaler(values, mask, NAMES)
    assert (scaler.location[1], scaler.scale[1]) == (0.0, 1.0)


def test_logarithm():
    values, mask = make_panel(positive=True)
    scaler = fit_scaler(values, mask, NAMES, transform="log")
    assert scaler.power.tolist() == [0.0, 0.0] and not scaler.affine
    logs = np.where(mask, np.log(np.where(mask, values, 1.0)), 0.0)
    plain = fit_scaler(logs, mask, NAMES)
    np.testing.assert_allclose(scaler.scale, plain.scale)
    np.testing.assert_allclose(
        scaler.forward(values, mask, NAMES), plain.forward(logs, mask, NAMES), atol=1e-12
    )


def test_box_cox_is_scipys():
    values, mask = make_panel(positive=True)
    scaler = fit_scaler(values, mask, NAMES, transform="box-cox")
    for f in range(2):
        seen = values[..., f][mask[..., f]]
        _, expected = stats.boxcox(seen)
        assert scaler.power[f] == pytest.approx(expected, abs=1e-3)
        own = scaler.forward(values, mask, NAMES)[..., f][mask[..., f]]
        theirs = stats.boxcox(seen, scaler.power[f])
        np.testing.assert_allclose(own, (theirs - theirs.mean()) / theirs.std(), rtol=1e-6)


@given(
    power=st.floats(-2.0, 2.0),
    values=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=9),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_power_transforms_come_back(power, values):
    data = np.array(values).reshape(1, -1, 1)
    mask = np.ones_like(data, dtype=bool)
    scaler = PanelScaler(np.array([0.5]), np.array([2.0]), np.array([power]))
    restored = scaler.inverse(scaler.forward(data, mask, ["a"]))
    np.testing.assert_allclose(restored, data, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-12, 1e12, 1e-100, 1e100])
def test_power_transforms_know_no_size(size):
    values, mask = make_panel(positive=True)
    small, large = (
        fit_scaler(v, mask, NAMES, transform="box-cox") for v in (values, values * size)
    )
    np.testing.assert_allclose(large.power, small.power, atol=1e-6)
    scaled = large.forward(values * size, mask, NAMES)
    np.testing.assert_allclose(scaled, small.forward(values, mask, NAMES), atol=1e-5)
    np.testing.assert_allclose(large.inverse(scaled)[mask], values[mask] * size, rtol=1e-9)


def test_the_inverse_is_finite_and_positive_anywhere():
    for power in (-1.5, 0.0, 0.7):
        scaler = PanelScaler(np.zeros(1), np.ones(1), np.array([power]))
        restored = scaler.inverse(np.array([[-1e6], [0.0], [1e6]]))
        assert np.isfinite(restored).all() and (restored >= 0).all()


@pytest.mark.parametrize("transform", [None, "log", "box-cox"])
def test_log_slope_is_the_derivative(transform):
    values, mask = make_panel(positive=True)
    scaler = fit_scaler(values, mask, NAMES, transform=transform)
    step = 1e-6 * values
    change = scaler.forward(values + step, mask, NAMES) - scaler.forward(values - step, mask, NAMES)
    slope = np.log(np.where(mask, change, 1.0) / np.where(mask, 2 * step, 1.0))
    expected = np.where(mask, slope, 0.0).sum(-1)
    np.testing.assert_allclose(scaler.log_slope(values, mask), expected, atol=1e-6)


@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_power_transforms_need_positive_values(wrong):
    values, mask = make_panel(positive=True)
    row = tuple(np.argwhere(mask[..., 1])[0])
    bad = values.copy()
    bad[(*row, 1)] = wrong
    with pytest.raises(ValueError, match=f"variable 'b' contains {wrong:g}.*power_transform=None"):
        fit_scaler(bad, mask, NAMES, transform="log")
    scaler = fit_scaler(values, mask, NAMES, transform="log")
    with pytest.raises(ValueError, match=f"variable 'b' contains {wrong:g}"):
        scaler.forward(bad, mask, NAMES)
    mask[(*row, 1)] = False  # hidden entries may be anything
    assert np.isfinite(scaler.forward(bad, mask, NAMES)).all()


@pytest.mark.parametrize("transform", [None, "box-cox"])
def test_to_json_and_back(transform):
    values, mask = make_panel(positive=True)
    scaler = fit_scaler(values, mask, NAMES, transform=transform)
    twin = PanelScaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    np.testing.assert_array_equal(
        twin.forward(values, mask, NAMES), scaler.forward(values, mask, NAMES)
    )


def test_levels_of_series_are_no_part_of_the_spread_within():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 400, 2)) * [2.0, 0.5]
    mask = rng.random(values.shape) < 0.8
    far = values + np.array([0.0, 1e3, 1e6])[:, None, None]
    found = fit_scaler(np.where(mask, far, 0.0), mask, ["a", "b"], within=True)
    expected = [
        np.sqrt(
            sum(
                ((x[m] - x[m].mean()) ** 2).sum()
                for x, m in zip(far[..., f], mask[..., f], strict=True)
            )
            / mask[..., f].sum()
        )
        for f in range(2)
    ]
    np.testing.assert_allclose(found.scale, expected, rtol=1e-6)
    np.testing.assert_allclose(found.scale, [2.0, 0.5], rtol=0.1)
    together = fit_scaler(np.where(mask, far, 0.0), mask, ["a", "b"])
    assert (together.scale > 1e5).all()
    np.testing.assert_array_equal(found.location, together.location)


def test_a_spread_within_needs_one():
    values = np.array([1.0, 5.0, np.nan])[:, None, None] * np.ones((3, 4, 1))
    mask = np.isfinite(values)
    filled = np.where(mask, values, 0.0)
    found = fit_scaler(filled, mask, ["a"], within=True)  # constant series: the pooled one
    np.testing.assert_allclose(found.scale, fit_scaler(filled, mask, ["a"]).scale)
    one = np.random.default_rng(0).normal(size=(1, 30, 1))
    seen = np.ones_like(one, dtype=bool)
    np.testing.assert_array_equal(
        fit_scaler(one, seen, ["a"], within=True).scale, fit_scaler(one, seen, ["a"]).scale
    )
