"""The density over codes: draws have the moments of the mixture that was fitted."""

from __future__ import annotations

import numpy as np
import pytest

from tsvae._denoiser.density import CodeDensity, fit_density

N_DRAWS = 100_000


def mixture_moments(density):
    """Mean and covariance of the density in closed form."""
    weights, centres = density.weights, density.centres
    inner_mean = weights @ centres
    within = np.einsum("m,mij,mkj->ik", weights, density.factors, density.factors)
    between = (centres - inner_mean).T @ (weights[:, None] * (centres - inner_mean))
    basis = density.directions
    outside = np.eye(len(density.mean)) - basis.T @ basis
    covariance = basis.T @ (within + between) @ basis
    covariance += outside @ np.diag(density.rest**2) @ outside
    units = density.scale
    return units * (density.mean + inner_mean @ basis), covariance * np.outer(units, units)


def codes(n=400, d=5, seed=0):
    rng = np.random.default_rng(seed)
    centre = np.where(rng.random((n, 1)) < 0.3, 4.0, -1.0) * np.eye(d)[0]
    return centre + rng.standard_normal((n, d)) * [0.5, 1.0, 0.2, 0.01, 0.01] + 3.0


@pytest.mark.parametrize("log_var", [-np.inf, -1.0])
def test_draws_have_the_moments_of_the_mixture(log_var):
    mu = codes()
    density = fit_density(mu, np.full_like(mu, log_var), seed=0)
    mean, covariance = mixture_moments(density)
    draws = density.sample(N_DRAWS, np.random.default_rng(1))
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.05)
    # These in turn are those of the codes, plus the posteriors' own spread.
    own = np.exp(log_var) * np.eye(5)
    np.testing.assert_allclose(mean, mu.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(covariance, np.cov(mu.T, bias=True) + own, atol=0.02)


def test_clusters_are_kept_apart():
    density = fit_density(codes(), np.full((400, 5), -np.inf), seed=0)
    first = density.sample(10_000, np.random.default_rng(0))[:, 0] - 3.0
    assert np.mean(first > 2.0) == pytest.approx(0.3, abs=0.05)
    assert np.mean((first > 1.0) & (first < 2.0)) < 0.03  # between them lies next to nothing


@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_few_records(n):
    for d in (1, 5, 200):
        mu = np.random.default_rng(0).standard_normal((n, d))
        for log_var in (-np.inf, 0.0):
            density = fit_density(mu, np.full_like(mu, log_var), seed=0)
            draws = density.sample(20, np.random.default_rng(0))
            assert draws.shape == (20, d) and np.isfinite(draws).all()
            assert np.abs(draws).max() < 10.0


def test_equal_codes():
    density = fit_density(np.full((9, 3), 2.0), np.full((9, 3), -np.inf), seed=0)
    np.testing.assert_allclose(density.sample(50, np.random.default_rng(0)), 2.0, atol=0.01)


def test_seeds_and_arrays():
    mu = codes()
    first, second = (fit_density(mu, np.zeros_like(mu), seed=3) for _ in range(2))
    twin = CodeDensity.from_arrays(first.to_arrays())
    draws = [d.sample(7, np.random.default_rng(0)) for d in (first, second, twin)]
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])


def test_what_tells_records_apart_is_mixed_first():
    # Two clusters in a direction of little variance, known well; far more variance known badly.
    rng = np.random.default_rng(0)
    side = np.where(rng.random(400) < 0.5, 1.0, -1.0)
    mu = np.column_stack([0.1 * side, 3.0 * rng.standard_normal((400, 30))])
    log_var = np.log([1e-5] + 30 * [9.0]) * np.ones_like(mu)
    draws = fit_density(mu, log_var, seed=0).sample(2000, np.random.default_rng(1))
    assert np.mean(np.abs(np.abs(draws[:, 0]) - 0.1) < 0.02) > 0.99
    np.testing.assert_allclose(draws[:, 1:].std(axis=0), np.sqrt(18.0), rtol=0.15)
