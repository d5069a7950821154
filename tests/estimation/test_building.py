"""Lengths resolved from the data, and periods found in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsvae.estimation.building import detect_periods, resolve_sizes


@given(
    longest=st.integers(2, 5000),
    context=st.integers(1, 5000),
    horizon=st.integers(1, 5000),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_sizes_fit_into_any_data(longest, context, horizon):
    sizes = resolve_sizes(longest, context, horizon)
    assert 1 <= sizes.horizon <= max(horizon, 1)
    assert 1 <= sizes.context <= min(context, longest)
    assert sizes.window <= longest
    assert sizes.min_history + sizes.horizon <= sizes.window
    assert 1 <= sizes.level_entries <= sizes.window


def test_sizes_of_long_data_are_those_asked_for():
    sizes = resolve_sizes(100_000, 512, 96)
    assert (sizes.context, sizes.horizon, sizes.window) == (512, 96, 608)


def make_waves(periods, n_steps=600, missing=0.0, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(n_steps)
    wave = sum(np.sin(2 * np.pi * t / p + k) for k, p in enumerate(periods))
    values = (0.01 * t + wave + noise * rng.standard_normal(n_steps)).reshape(1, -1, 1)
    mask = rng.random(values.shape) >= missing
    return np.where(mask, values, 0.0), mask


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("periods", [[12.0], [24.0, 7.0], [17.3]])
def test_periods_are_found(periods, missing):
    found = detect_periods(*make_waves(periods, missing=missing), 200)
    for period in periods:
        assert min(abs(p / period - 1) for p in found) < 0.02
    assert len(found) <= 4


def test_periods_are_found_in_any_variable():
    first, second = make_waves([12.0]), make_waves([30.0], seed=1)
    values = np.concatenate([first[0], second[0]], axis=-1)
    found = detect_periods(values, np.ones_like(values, dtype=bool), 200)
    for period in (12.0, 30.0):
        assert min(abs(p / period - 1) for p in found) < 0.02


def test_no_longer_period_than_asked_for():
    assert detect_periods(*make_waves([100.0], noise=0.0), 40) == [] or all(
        p <= 40 for p in detect_periods(*make_waves([100.0], noise=0.0), 40)
    )


@pytest.mark.parametrize("values", [np.zeros((1, 50, 2)), np.ones((2, 5, 1))])
def test_constant_or_short_data_have_no_period(values):
    assert detect_periods(values, np.ones_like(values, dtype=bool), 40) == []


def test_a_line_has_no_period():
    values = np.arange(200.0).reshape(1, -1, 1)
    assert detect_periods(values, np.ones_like(values, dtype=bool), 100) == []
