"""Noise like residuals: draws have the power and the correlations of what it was fitted to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from tsvae import VAEDenoiser
from tsvae._denoiser.residuals import ResidualNoise, fit_residuals

STEPS = 24


def moving_average(n, rng):
    """Noise e_t + 0.8 e_{t-1}, twice as strong in the last third."""
    white = rng.standard_normal((n, STEPS + 1, 1))
    noise = white[:, 1:] + 0.8 * white[:, :-1]
    return noise * np.where(np.arange(STEPS) < 2 * STEPS // 3, 1.0, 2.0)[:, None]


def exact_covariance():
    sizes = np.where(np.arange(STEPS) < 2 * STEPS // 3, 1.0, 2.0)
    lags = np.abs(np.subtract.outer(np.arange(STEPS), np.arange(STEPS)))
    return np.select([lags == 0, lags == 1], [1.64, 0.8]) * np.outer(sizes, sizes)


def covariance(draws):
    flat = draws.reshape(len(draws), -1)
    return flat.T @ flat / len(flat)


@pytest.mark.parametrize(("n", "missing"), [(4000, 0.0), (4000, 0.3), (15, 0.0)])
def test_draws_have_the_covariance_of_the_residuals(n, missing):
    rng = np.random.default_rng(0)
    residual = moving_average(n, rng)
    mask = rng.random(residual.shape) >= missing
    noise = fit_residuals(np.where(mask, residual, np.nan), mask)
    assert len(noise.sizes) == (0 if missing else min(n, STEPS))
    drawn = noise.sample(20_000, np.random.default_rng(1))
    assert drawn.shape == (20_000, STEPS, 1)
    found, expected = covariance(drawn), exact_covariance()
    size = np.linalg.norm(expected)
    white = np.linalg.norm(np.trace(expected) / STEPS * np.eye(STEPS) - expected)
    assert np.linalg.norm(found - expected) < {4000: 0.16, 15: 0.5}[n] * size < white
    assert np.trace(found) == pytest.approx(np.trace(expected), rel=0.1 if n > 15 else 0.35)


def test_what_belongs_together_is_drawn_together():
    # Two variables that share one random course, and noise of their own.
    rng = np.random.default_rng(0)
    course = np.sin(np.arange(STEPS))[:, None] * [1.0, -2.0]
    residual = rng.standard_normal((500, 1, 1)) * course
    residual = residual + 0.1 * rng.standard_normal(residual.shape)
    noise = fit_residuals(residual, np.ones(residual.shape, dtype=bool))
    found = covariance(noise.sample(20_000, np.random.default_rng(1)))
    expected = np.outer(course, course) + 0.01 * np.eye(2 * STEPS)
    np.testing.assert_allclose(found, expected, atol=0.35)
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 3), (40, 2, 1), (3, 7, 2)])
def test_small_sets(shape):
    residual = np.random.default_rng(0).standard_normal(shape)
    mask = np.ones(shape, dtype=bool)
    mask[:, 0, 0] = False
    noise = fit_residuals(residual, mask)
    drawn = noise.sample(9, np.random.default_rng(0))
    assert drawn.shape == (9, *shape[1:]) and np.isfinite(drawn).all()
    assert (drawn[:, 0, 0] == 0.0).all()  # nothing was seen there
    twin = ResidualNoise.from_arrays(noise.to_arrays())
    np.testing.assert_array_equal(drawn, twin.sample(9, np.random.default_rng(0)))


def test_no_residuals_give_no_noise():
    noise = fit_residuals(np.zeros((40, 5, 1)), np.ones((40, 5, 1), dtype=bool))
    assert (noise.sample(3, np.random.default_rng(0)) == 0.0).all()


def fitted(**settings):
    rng = np.random.default_rng(0)
    noise = lfilter([1.0], [1.0, -0.9], rng.standard_normal((200, 40)), axis=1)
    data = 5.0 * np.sin(np.linspace(0, 6, 40) + rng.uniform(0, 6, (200, 1))) + noise
    options = {"architecture": "mlp", "hidden_sizes": (32,), "max_epochs": 5, "random_state": 0}
    return VAEDenoiser(2, **{**options, "self_supervision": None, **settings}).fit(data), data


@pytest.mark.parametrize("model", ["vae", "vq"])
def test_denoiser_draws_residuals_along_time(model, tmp_path):
    denoiser, data = fitted(model=model)
    plain, noisy = (denoiser.sample(2000, noise=noise) for noise in (False, "residuals"))
    added = noisy - plain
    left_out = data - denoiser.reconstruct(data)
    assert added.std() == pytest.approx(left_out.std(), rel=0.15)
    first, second = added[:, :-1].ravel(), added[:, 1:].ravel()
    assert np.corrcoef(first, second)[0, 1] > 0.5  # white noise has 0
    denoiser.save(tmp_path / "model.tsvae")
    again = VAEDenoiser.load(tmp_path / "model.tsvae").sample(2000, noise="residuals")
    np.testing.assert_array_equal(noisy, again)
    around = denoiser.augment(data[:50], 3, noise="residuals") - denoiser.augment(data[:50], 3)
    assert around.std() == pytest.approx(added.std(), rel=0.1)


def test_refusals():
    denoiser, _ = fitted(max_epochs=1)
    with pytest.raises(ValueError, match="noise must be True, False or 'residuals', got 'white'"):
        denoiser.sample(2, noise="white")
    bernoulli, _ = fitted(max_epochs=1, likelihood="bernoulli")
    with pytest.raises(ValueError, match="likelihood='bernoulli' use noise=True"):
        bernoulli.sample(2, noise="residuals")
