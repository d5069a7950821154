"""SNR, PSNR and SSIM against definitions, skimage's conventions by slow loops, and masks."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from tsvae.metrics import (
    peak_signal_to_noise_ratio,
    root_mean_squared_error,
    signal_to_noise_ratio,
    structural_similarity,
)

ALL = [signal_to_noise_ratio, peak_signal_to_noise_ratio, structural_similarity]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(3, 20, 2)).cumsum(axis=1)
    return y, y + 0.3 * rng.normal(size=y.shape), rng.random(y.shape) < 0.7


def slow_similarity(a, b, seen, low, limit, sigma=1.5, k1=0.01, k2=0.03):
    """Index at each step of one record (T,), window by window."""
    c1, c2, reach = (k1 * limit) ** 2, (k2 * limit) ** 2, int(3.5 * sigma + 0.5)
    index = {}
    for t in range(len(a)):
        if not seen[t]:
            continue
        near = [s for s in range(len(a)) if abs(s - t) <= reach and seen[s]]
        w = np.array([math.exp(-((s - t) ** 2) / (2 * sigma**2)) for s in near])
        w /= w.sum()
        mean_a, mean_b = w @ a[near] - low, w @ b[near] - low
        a_near, b_near = a[near] - low, b[near] - low
        var_a, var_b = w @ (a_near - mean_a) ** 2, w @ (b_near - mean_b) ** 2
        cov = w @ ((a_near - mean_a) * (b_near - mean_b))
        luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        index[t] = luminance * (2 * cov + c2) / (var_a + var_b + c2)
    return index


@pytest.mark.parametrize("sigma", [0.8, 1.5, 20.0])
@pytest.mark.parametrize("complete", [True, False])
def test_similarity_against_a_slow_loop(data, sigma, complete):
    y, p, seen = data
    seen = np.ones_like(seen) if complete else seen
    weight = np.random.default_rng(1).random(y.shape)
    expected = []
    for f in range(2):
        observed = y[..., f][seen[..., f]]
        low, limit = observed.min(), observed.max() - observed.min()
        found, weights = [], []
        for b in range(3):
            index = slow_similarity(y[b, :, f], p[b, :, f], seen[b, :, f], low, limit, sigma)
            found += index.values()
            weights += [weight[b, t, f] for t in index]
        expected.append(np.average(found, weights=weights))
    options = {"mask": seen, "sample_weight": weight, "sigma": sigma}
    raw = structural_similarity(y, p, multioutput="raw_values", **options)
    assert_allclose(raw, expected, rtol=1e-10)
    assert structural_similarity(y, p, **options) == pytest.approx(np.mean(expected))


def test_similarity_inside_a_record_is_that_of_gaussian_filters():
    """scipy's filter with truncate=3.5, as skimage uses it, away from the borders."""
    from scipy.ndimage import gaussian_filter1d

    rng = np.random.default_rng(2)
    a, b = rng.uniform(size=60), rng.uniform(size=60)
    a[0] = b[0] = 0.0  # already measured from the lowest value
    smooth = lambda x: gaussian_filter1d(x, 1.5, truncate=3.5)  # noqa: E731
    mean_a, mean_b = smooth(a), smooth(b)
    var = smooth(a**2) - mean_a**2 + smooth(b**2) - mean_b**2
    cov = smooth(a * b) - mean_a * mean_b
    c1, c2 = 0.03**2, 0.09**2  # of a range of 3
    expected = ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var + c2)
    )
    inside = np.zeros(60)
    inside[5:-5] = 1.0
    found = structural_similarity(a, b, data_range=3.0, sample_weight=np.maximum(inside, 1e-14))
    assert found == pytest.approx(expected[5:-5].mean(), rel=1e-10)


def test_decibels_by_definition(data):
    y, p, seen = data
    power, error, peak = [], [], []
    for f in range(2):
        a, b = y[..., f][seen[..., f]], p[..., f][seen[..., f]]
        power.append(sum(a**2) / len(a))
        error.append(sum((a - b) ** 2) / len(a))
        peak.append(max(a) - min(a))
    expected = [10 * math.log10(s / e) for s, e in zip(power, error, strict=True)]
    found = signal_to_noise_ratio(y, p, mask=seen, multioutput="raw_values")
    assert_allclose(found, expected, rtol=1e-12)
    expected = [20 * math.log10(r / math.sqrt(e)) for r, e in zip(peak, error, strict=True)]
    found = peak_signal_to_noise_ratio(y, p, mask=seen, multioutput="raw_values")
    assert_allclose(found, expected, rtol=1e-12)


def test_psnr_and_rmse_agree(data):
    y, p, _ = data
    rmse = root_mean_squared_error(y, p, multioutput="raw_values")
    found = peak_signal_to_noise_ratio(y, p, data_range=[2.0, 5.0], multioutput="raw_values")
    assert_allclose(found, 20 * np.log10(np.array([2.0, 5.0]) / rmse))


def test_limits():
    y = np.sin(np.arange(30.0))
    assert signal_to_noise_ratio(y, y) == math.inf
    assert peak_signal_to_noise_ratio(y, y) == math.inf
    assert structural_similarity(y, y) == 1.0
    assert signal_to_noise_ratio(y, 0 * y) == 0.0
    assert structural_similarity(y, -y) < 0
    assert structural_similarity(y[:1], y[:1] + 1, data_range=1.0) < 1  # one step


def test_snr_of_added_noise():
    rng = np.random.default_rng(3)
    y = rng.normal(size=(50, 2000, 1))
    for snr in (0.0, 10.0):
        noisy = y + 10 ** (-snr / 20) * rng.normal(size=y.shape)
        assert signal_to_noise_ratio(y, noisy) == pytest.approx(snr, abs=0.05)


def test_similarity_does_not_know_the_offset():
    rng = np.random.default_rng(4)
    y, p = rng.normal(size=50), rng.normal(size=50)
    found = structural_similarity(y, p)
    assert structural_similarity(y + 1e6, p + 1e6) == pytest.approx(found, rel=1e-7)


def test_similarity_of_a_slow_wave_and_its_negative():
    """Local means differ in sign as the correlation does; their product must not count as like."""
    wave = np.sin(np.arange(200) / 10)
    assert structural_similarity(wave, -wave) < structural_similarity(wave, 0 * wave) < 0.5


@pytest.mark.parametrize("metric", ALL)
def test_mask_is_missing_and_garbage_beneath_does_not_matter(metric, data):
    y, p, seen = data
    expected = metric(y, p, mask=seen)
    assert metric(np.where(seen, y, np.nan), p) == expected
    assert metric(y, np.where(seen, p, np.inf), mask=seen) == expected


@settings(max_examples=10, deadline=None, derandomize=True)
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_units_and_order_of_records_do_not_matter(scale, seed):
    rng = np.random.default_rng(seed)
    y, p = rng.normal(size=(2, 4, 15, 2))
    order = rng.permutation(4)
    for metric in ALL:
        found = metric(y, p)
        assert metric(scale * y, scale * p) == pytest.approx(found, rel=1e-9)
        assert metric(y[order], p[order]) == pytest.approx(found, rel=1e-9)
        backwards = metric(y[:, ::-1], p[:, ::-1])
        assert backwards == pytest.approx(found, rel=1e-9)
    assert -1 <= structural_similarity(y, p) <= 1


def test_variable_never_observed_has_no_part(data):
    y, p, _ = data
    gap = y.copy()
    gap[..., 1] = np.nan
    for metric in ALL:
        raw = metric(gap, p, multioutput="raw_values")
        assert np.isnan(raw[1])
        assert metric(gap, p) == raw[0] == pytest.approx(metric(y[..., :1], p[..., :1]))


def test_frames_are_matched_by_label():
    y = pd.DataFrame({"a": np.sin(np.arange(9.0)), "b": np.cos(np.arange(9.0))})
    p = y.add([0.1, 0.2])
    for metric in ALL:
        assert metric(y, p.iloc[::-1, ::-1]) == metric(y, p)


@pytest.mark.parametrize(
    ("metric", "options", "match"),
    [
        (peak_signal_to_noise_ratio, {"data_range": 0.0}, "data_range must be a positive"),
        (peak_signal_to_noise_ratio, {"data_range": [1.0, 1.0]}, "each of the 1 variables"),
        (structural_similarity, {"data_range": -1.0}, "data_range must be a positive"),
        (structural_similarity, {"sigma": 0.0}, "sigma must be a positive"),
        (structural_similarity, {"k2": np.nan}, "k2 must be a positive"),
    ],
)
def test_errors(metric, options, match):
    with pytest.raises(ValueError, match=match):
        metric([1.0, 2.0], [1.0, 3.0], **options)


@pytest.mark.parametrize("metric", ALL[1:])
def test_constant_signal_has_no_range(metric):
    with pytest.raises(ValueError, match="constant in variable 0"):
        metric([2.0, 2.0], [1.0, 3.0])
    assert math.isfinite(metric([2.0, 2.0], [1.0, 3.0], data_range=1.0))


@pytest.mark.parametrize("metric", ALL)
def test_shared_errors(metric):
    with pytest.raises(ValueError, match="Nothing to score"):
        metric([np.nan], [1.0])
    with pytest.raises(ValueError, match="not finite"):
        metric([1.0, 2.0], [1.0, np.nan])
    with pytest.raises(ValueError, match="must have shape"):
        metric(np.ones((2, 3)), np.ones((3, 2)))
