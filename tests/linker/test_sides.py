"""One side's units: scaling, logarithms, error bars by the delta method, weights of entries."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tsvae._linker.sides import SideScale, error_weights, fit_side
from tsvae._records.signals import Signals
from tsvae.panel import read_records

RNG = np.random.default_rng(0)
STEPS = 40
PROFILE = 10.0 * np.exp(-np.arange(STEPS) / 10.0)
SIZES = np.linspace(0.1, 3.0, STEPS)
VALUES = PROFILE + RNG.standard_normal((30, STEPS)) * SIZES
VALUES[RNG.random(VALUES.shape) < 0.2] = np.nan
OPTIONS = {"scaling": "auto", "log_scale": False, "regions": None, "unit": False}


def read(values):
    records = read_records(values)
    return Signals(records.values, records.mask, records.index, None)


def fit(values=VALUES, name="X", **options):
    signals = read(values)
    return fit_side(signals, OPTIONS | options, name), signals


def test_profile_scaling_keeps_the_relative_sizes_of_positions():
    scale, signals = fit(scaling="profile")
    mean, deviation = np.nanmean(VALUES, axis=0), np.nanstd(VALUES, axis=0)
    count = (~np.isnan(VALUES)).sum(axis=0)
    pooled = np.sqrt((count * deviation**2).sum() / count.sum())
    expected = np.nan_to_num((VALUES - mean) / pooled)
    scaled = scale.forward(signals.values, signals.mask)
    np.testing.assert_allclose(scaled[..., 0], expected, atol=1e-12)
    assert scaled[signals.mask].std() == pytest.approx(1.0)
    spreads = np.nanstd(np.where(signals.mask, scaled, np.nan)[..., 0], axis=0)
    np.testing.assert_allclose(spreads, deviation / pooled)  # small ones stay small


def test_short_records_are_scaled_column_by_column():
    short, _ = fit(VALUES[:, :31])
    np.testing.assert_allclose(short.scaler.spread[:, 0], np.nanstd(VALUES[:, :31], axis=0))
    long, _ = fit(VALUES[:, :32])
    assert long.scaler.spread.shape == (1, 1)
    assert long.scaler.location.shape == (32, 1)
    one, _ = fit(VALUES, scaling="variable")
    assert one.scaler.location.shape == one.scaler.spread.shape == (1, 1)
    assert one.scaler.location[0, 0] == pytest.approx(np.nanmean(VALUES))


@pytest.mark.parametrize("log_scale", [False, True])
@pytest.mark.parametrize("scaling", ["profile", "variable", "column"])
@pytest.mark.parametrize("unit", [False, True])
def test_back_and_forth(scaling, log_scale, unit):
    scale, signals = fit(scaling=scaling, log_scale=log_scale, unit=unit)
    scaled = scale.forward(signals.values, signals.mask)
    assert (scaled[~signals.mask] == 0.0).all()
    np.testing.assert_allclose(
        scale.inverse(scaled)[signals.mask], signals.values[signals.mask], rtol=1e-9
    )
    draws = np.stack([scaled, scaled])  # any leading axes
    np.testing.assert_array_equal(scale.inverse(draws)[1], scale.inverse(scaled))
    if unit:
        assert scaled.min() >= 0.0 and scaled.max() <= 1.0


def test_logarithms_come_before_the_scaling():
    scale, signals = fit(log_scale=True, scaling="column")
    decades = np.arcsinh(VALUES / (2 * scale.log.floor)) / np.log(10)
    np.testing.assert_allclose(scale.scaler.location[:, 0], np.nanmean(decades, axis=0))
    scaled = scale.forward(signals.values, signals.mask)
    expected = (decades - np.nanmean(decades, axis=0)) / np.nanstd(decades, axis=0)
    np.testing.assert_allclose(scaled[..., 0], np.nan_to_num(expected), atol=1e-12)


@pytest.mark.parametrize("log_scale", [False, True])
@pytest.mark.parametrize("scaling", ["profile", "column"])
def test_error_bars_by_the_delta_method(scaling, log_scale):
    scale, signals = fit(scaling=scaling, log_scale=log_scale)
    sigma = RNG.uniform(0.1, 2.0, signals.values.shape)
    step = 1e-6
    everywhere = np.ones_like(signals.mask)
    ahead, behind = (scale.forward(signals.values + s, everywhere) for s in (step, -step))
    expected = sigma * (ahead - behind) / (2.0 * step)
    np.testing.assert_allclose(scale.errors(sigma, signals.values), expected, rtol=1e-4)


def test_weights_are_inverse_variances_with_mean_1_over_each_record():
    errors = RNG.uniform(0.5, 3.0, (4, 6, 2))
    mask = RNG.random(errors.shape) < 0.7
    found = error_weights(np.where(mask, errors, np.nan), mask)
    for i in range(4):
        known = mask[i]
        inverse = 1.0 / errors[i][known] ** 2
        np.testing.assert_allclose(found[i][known], inverse / inverse.mean())
        assert (found[i][~known] == 0.0).all()
    np.testing.assert_allclose(error_weights(7.0 * errors, mask), found)
    np.testing.assert_allclose(error_weights(np.full_like(errors, 3.0), mask), mask.astype(float))


def test_no_point_rules_alone_and_records_without_a_value_weigh_nothing():
    errors = np.ones((2, 5, 1))
    errors[0, 2] = 1e-30
    mask = np.ones(errors.shape, dtype=bool)
    mask[1] = False
    found = error_weights(errors, mask)
    assert np.isfinite(found).all() and (found[1] == 0.0).all()
    assert found[0, 2] / found[0, 0] == pytest.approx(1e6)


def test_region_weights_and_axis_belong_to_the_side():
    frame = pd.DataFrame(VALUES, columns=np.linspace(0.0, 3.9, STEPS))
    scale, signals = fit(frame, regions={(0.0, 0.95): 3.0})
    assert scale.weights.mean() == pytest.approx(1.0)
    assert scale.weights[0] / scale.weights[-1] == pytest.approx(3.0)
    assert (scale.weights > 1.0).sum() == 10
    assert scale.index.n_records == 0 and scale.index.n_steps == STEPS
    np.testing.assert_array_equal(scale.index.axis_values, signals.index.axis_values)
    with pytest.raises(ValueError, match="y_regions: the region"):
        fit(frame, "y", regions={(7.0, 8.0): 3.0})


@pytest.mark.parametrize("log_scale", [False, True])
def test_constant_sides(log_scale):
    for values in (np.full((5, STEPS), 2.0), np.tile(PROFILE, (5, 1))):
        holes = values.copy()
        holes[0, 3] = np.nan
        for given in (values, holes):
            with pytest.raises(ValueError, match="y is constant: all its observed values"):
                fit(given, "y", log_scale=log_scale)
    moving = np.tile(PROFILE, (5, 1))
    moving[2, 7] += 1.0
    scale, signals = fit(moving, log_scale=log_scale)
    scaled = scale.forward(signals.values, signals.mask)
    np.testing.assert_allclose(scale.inverse(scaled)[..., 0], moving)


@pytest.mark.parametrize("log_scale", [False, True])
def test_json(log_scale):
    frame = pd.DataFrame(VALUES, columns=np.linspace(0.1, 0.4, STEPS))
    scale, signals = fit(frame, log_scale=log_scale, regions=np.arange(STEPS))
    twin = SideScale.from_dict(json.loads(json.dumps(scale.to_dict())))
    np.testing.assert_array_equal(twin.weights, scale.weights)
    one, two = (s.forward(signals.values, signals.mask) for s in (scale, twin))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(twin.inverse(one), scale.inverse(one))
    sigma = np.ones_like(one)
    np.testing.assert_array_equal(twin.errors(sigma, one), scale.errors(sigma, one))
    np.testing.assert_array_equal(twin.index.axis_values, scale.index.axis_values)
