"""Filter of residuals: against slow sums; noise is left out, what stands out is given back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsvae import VAEDenoiser
from tsvae._denoiser.filtering import ResidualFilter, fit_filter

N, STEPS, F = 30, 64, 2


def bump(width=4.0):
    return np.exp(-0.5 * ((np.arange(STEPS) - 40) / width) ** 2)


def kernel(lag, scale):
    """Normal kernel, cut off at four standard deviations and of sum 1."""
    radius = int(4 * scale + 0.5)
    total = sum(np.exp(-0.5 * (k / scale) ** 2) for k in range(-radius, radius + 1))
    return np.exp(-0.5 * (lag / scale) ** 2) / total if abs(lag) <= radius else 0.0


def slow_filter(residual, mask, scale, noise):
    """What one scale keeps of one course, entry by entry."""
    steps, wide = range(len(residual)), max(2 * scale, 8.0)
    known = [t for t in steps if mask[t]]
    smoothed, noisier = np.zeros(len(residual)), np.zeros(len(residual))
    for t in steps:
        total = sum(kernel(t - s, scale) for s in known)
        smoothed[t] = sum(kernel(t - s, scale) * residual[s] for s in known) / total
        small = scale / np.sqrt(2)
        noisier[t] = sum(kernel(t - s, small) for s in known) / total**2
    kept = np.zeros(len(residual))
    for t in steps:
        weights = [kernel(t - s, wide) for s in known]
        power = sum(w * smoothed[s] ** 2 for w, s in zip(weights, known, strict=True))
        power /= sum(weights)
        kept[t] = smoothed[t] * max(0.0, power - 2 * noise * noisier[t]) / power
    return kept


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_against_slow_sums(missing):
    rng = np.random.default_rng(0)
    residual = rng.standard_normal((2, STEPS, F)) + 3 * bump()[:, None]
    mask = rng.random(residual.shape) >= missing
    scales, noise = np.array([2.0, 1.0]), np.array([[0.14, 0.2], [0.3, 0.25]])
    found = ResidualFilter(scales, noise, np.full(F, 100.0))(np.where(mask, residual, 0.0), mask)
    for i in range(2):
        for f in range(F):
            left, expected = np.where(mask[i, :, f], residual[i, :, f], 0.0), 0.0
            for scale, power in zip(scales, noise[:, f], strict=True):
                part = slow_filter(left, mask[i, :, f], scale, power)
                left, expected = left - np.where(mask[i, :, f], part, 0.0), expected + part
            np.testing.assert_allclose(found[i, :, f], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_noise_is_left_out_and_what_stands_out_is_kept(missing):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((400, STEPS, F)) * [1.0, 10.0]
    mask = rng.random(noise.shape) >= missing
    fitted = fit_filter(np.where(mask, noise, 0.0), mask)
    np.testing.assert_array_equal(fitted.scales, [2.0, 1.0])
    # The power of smoothed white noise in closed form.
    if not missing:
        expected = np.array([1.0, 100.0]) / (2 * 2.0 * np.sqrt(np.pi))
        np.testing.assert_allclose(fitted.noise[0], expected, rtol=0.1)
    kept = fitted(noise, mask)
    assert (kept**2).mean() < 0.02 * (noise**2).mean()
    course = bump()[:, None] * [4.0, 40.0]
    error = fitted(np.where(mask, noise + course, 0.0), mask) - course
    assert (error**2).mean() < 0.12 * (course**2).mean()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.floats(1e-6, 1e6), st.floats(0.0, 0.99))
def test_units_do_not_matter_and_records_do_not_meet(seed, unit, missing):
    rng = np.random.default_rng(seed)
    residual = rng.standard_normal((N, STEPS, F)) + bump()[:, None] * 5
    mask = rng.random(residual.shape) >= missing
    residual = np.where(mask, residual, 0.0)
    fitted = fit_filter(residual, mask)
    kept = fitted(residual, mask)
    assert np.isfinite(kept).all()
    scaled = fit_filter(unit * residual, mask)(unit * residual, mask)
    np.testing.assert_allclose(scaled, unit * kept, rtol=1e-6, atol=1e-9 * unit)
    alone = fitted(residual[3:5], mask[3:5])
    np.testing.assert_allclose(alone, kept[3:5], rtol=1e-9, atol=1e-12)
    # Only known entries are looked at.
    other = np.where(mask, residual, 1e3)
    np.testing.assert_array_equal(fitted(other, mask), kept)


def test_in_long_gaps_nothing_is_kept():
    residual = np.ones((1, 200, 1))
    mask = np.ones(residual.shape, dtype=bool)
    mask[:, 60:160] = False
    fitted = ResidualFilter(np.array([4.0, 2.0, 1.0]), np.full((3, 1), 1e-4), np.ones(1))
    kept = fitted(residual, mask)[0, :, 0]
    np.testing.assert_array_equal(kept[90:130], 0.0)
    np.testing.assert_allclose(kept[:50], 1.0, atol=0.05)


def test_single_spikes_stay_noise():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((400, STEPS, 1))
    mask = np.ones(noise.shape, dtype=bool)
    fitted = fit_filter(noise, mask)
    one, two = noise.copy(), noise.copy()
    one[:, 30], two[:, 30:32] = 100.0, 100.0
    assert abs(fitted(one, mask)).max() < 3.5
    assert fitted(two, mask)[:, 30:32].min() > 20.0


def test_short_records_are_left_alone():
    residual = np.full((4, 31, 1), 5.0)
    mask = np.ones(residual.shape, dtype=bool)
    fitted = fit_filter(residual, mask)
    assert fitted.noise.shape == (0, 1)
    np.testing.assert_array_equal(fitted(residual, mask), 0.0)
    no_records = fit_filter(np.ones((4, 40, 1)), np.ones((4, 40, 1), dtype=bool))
    assert no_records(np.ones((0, 40, 1)), np.ones((0, 40, 1), dtype=bool)).shape == (0, 40, 1)


def signals(n=60, seed=0):
    rng = np.random.default_rng(seed)
    clean = np.sin(np.arange(STEPS) / 4 + rng.uniform(0, 6, (n, 1)))
    return clean, clean + 0.3 * rng.standard_normal(clean.shape)


def test_a_denoiser_gives_back_what_it_has_not_seen(tmp_path):
    clean, noisy = signals()
    settings = {"latent_dim": 2, "hidden_sizes": (8, 8), "max_epochs": 3, "random_state": 0}
    d = VAEDenoiser(**settings).fit(noisy, clean=clean)
    odd, odd_noisy = (part + 3 * bump(3.0) for part in signals(20, 1))
    plain, filtered = d.reconstruct(odd_noisy), d.transform(odd_noisy)
    assert ((filtered - odd) ** 2).mean() < 0.5 * ((plain - odd) ** 2).mean()
    assert d.score(odd_noisy, odd) > 1 - ((filtered - odd) ** 2).mean() / odd.var() - 0.02
    d.save(tmp_path / "d.tsvae")
    np.testing.assert_array_equal(
        VAEDenoiser.load(tmp_path / "d.tsvae").transform(odd), d.transform(odd)
    )
    off = VAEDenoiser(**settings, residual_filter=False).fit(noisy, clean=clean)
    np.testing.assert_array_equal(off.transform(odd_noisy), plain)


@pytest.mark.parametrize(
    "settings", [{"self_supervision": None}, {"likelihood": "bernoulli"}, {"final_sigmoid": True}]
)
def test_no_filter_where_residuals_are_not_noise_or_values_are_bounded(settings):
    _, noisy = signals(20)
    d = VAEDenoiser(2, hidden_sizes=(4,), max_epochs=1, random_state=0, **settings).fit(noisy)
    np.testing.assert_array_equal(d.transform(noisy), d.reconstruct(noisy))
