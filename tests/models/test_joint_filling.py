"""Vector autoregressions with seasons, and what they fill, against dense Gaussian algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsvae.models.autoregression import Autoregression, fit_autoregression
from tsvae.models.completion import complete_rows
from tsvae.models.joint_filling import draw_hidden, fill_hidden

TRANSITION = np.array([[0.8, 0.1, 0.0], [-0.2, 0.7, 0.1], [0.0, 0.3, 0.6]])
NOISE = np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.1], [0.1, 0.1, 0.5]])


def simulate(n_series: int, n_steps: int, seed: int = 0, wild: int = 0) -> torch.Tensor:
    """Draw a vector autoregression; ``wild``: a season of so many steps, its first one wild."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n_series, n_steps + 50, 3))
    root = np.linalg.cholesky(NOISE)
    for t in range(1, x.shape[1]):
        noise = rng.normal(size=(n_series, 3)) @ root.T
        if wild and t % wild == 0:
            noise *= 5.0
        x[:, t] = x[:, t - 1] @ TRANSITION.T + noise
    return torch.from_numpy(x[:, 50 - (50 % wild if wild else 0) :][:, :n_steps])


def stationary() -> np.ndarray:
    covariance = np.eye(3)
    for _ in range(2000):
        covariance = TRANSITION @ covariance @ TRANSITION.T + NOISE
    return covariance


def exact_fit(n_versions: int = 1) -> Autoregression:
    """The simulated autoregression, in two units."""
    tables = [torch.from_numpy(part)[None, None] for part in (TRANSITION, NOISE, stationary())]
    scale = torch.ones(3, dtype=torch.float64)
    mean = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    return Autoregression(mean, scale, *(t.repeat(n_versions, 1, 1, 1) for t in tables))


def dense_covariance(n_steps: int) -> np.ndarray:
    """Covariance of all entries of a window, row by row."""
    lags = [stationary()]
    for _ in range(n_steps - 1):
        lags.append(TRANSITION @ lags[-1])  # E[x_{t+k} x_t']
    at = np.arange(n_steps)
    blocks = [[lags[i - j] if i >= j else lags[j - i].T for j in at] for i in at]
    return np.block(blocks)


def whole(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def first(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(x), dtype=torch.long)


@pytest.mark.parametrize("n_versions", [1, 2])
def test_normal_filling_is_dense_conditioning(n_versions):
    x = simulate(4, 11) + torch.tensor([1.0, -2.0, 0.5])
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) > 0.4
    mask[1, 3:8] = False  # whole rows
    mask[2, :, 1] = False  # a whole variable
    mask[3] = True
    found = fill_hidden(exact_fit(n_versions), torch.where(mask, x, 0.0), mask, None, steps=0)
    covariance, centre = dense_covariance(11), np.tile([1.0, -2.0, 0.5], 11)
    for own, seen, mean, variance in zip(x, mask, found.mean, found.variance, strict=True):
        s = seen.flatten().numpy()
        gain = covariance[~s][:, s] @ np.linalg.inv(covariance[s][:, s])
        want = centre[~s] + gain @ (own.flatten().numpy()[s] - centre[s])
        left = covariance[~s][:, ~s] - gain @ covariance[s][:, ~s]
        np.testing.assert_allclose(mean.flatten()[~s], want, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(variance.flatten()[~s], left.diagonal(), rtol=1e-7)
        assert torch.equal(mean[seen], own[seen]) and not variance[seen].any()


def test_versions_are_weighted_by_the_density_of_what_is_observed():
    exact = exact_fit()
    loud = exact._replace(noise=4.0 * exact.noise, start=4.0 * exact.start)
    both = Autoregression(
        exact.mean,
        exact.scale,
        *(torch.cat(pair) for pair in zip(exact[2:], loud[2:], strict=True)),
    )
    x = simulate(1, 4) + exact.mean
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[0, 1:3, 0] = False
    one, two, mixed = (
        fill_hidden(fit, x * mask, mask, None, steps=0) for fit in (exact, loud, both)
    )
    s = mask.flatten().numpy()
    covariance = dense_covariance(4)[s][:, s]
    residual = (x - exact.mean).flatten().numpy()[s]
    logs = [
        -0.5 * (residual @ np.linalg.solve(c, residual) + np.linalg.slogdet(c)[1])
        for c in (covariance, 4.0 * covariance)
    ]
    weight = 1.0 / (1.0 + np.exp(logs[1] - logs[0]))
    want = weight * one.variance + (1.0 - weight) * two.variance  # their means are the same
    torch.testing.assert_close(mixed.variance, want)


def test_a_gap_beside_a_shock_is_less_certain_than_normal_noise_would_have_it():
    fit = exact_fit()
    x = torch.zeros(2, 12, 3, dtype=torch.float64) + fit.mean
    mask = whole(x)
    mask[:, 5, 0] = False
    x[1, 6:] += 15.0  # a step of many standard deviations
    normal, robust = (fill_hidden(fit, x * mask, mask, None, steps=n).variance for n in (0, 8))
    calm, shaken = (robust / normal)[:, 5, 0].tolist()
    assert normal[0, 5, 0] == pytest.approx(float(normal[1, 5, 0]))
    assert 0.5 < calm < 1.2 and shaken > 1.5


def test_the_fit_recovers_an_autoregression():
    x = simulate(4, 4000)
    fit = fit_autoregression(x, whole(x), first(x), 0, 1)
    scale = fit.scale.numpy()
    found = fit.coefficients[0, 0].numpy() * np.outer(scale, 1.0 / scale)
    np.testing.assert_allclose(found, TRANSITION, atol=0.03)
    noise = fit.noise[0, 0].numpy() * np.outer(scale, scale)
    np.testing.assert_allclose(noise, NOISE, atol=0.05)


def test_growth_that_moments_of_pairs_feign_is_taken_away():
    x = torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0] * 20, dtype=torch.float64)[None, :, None]
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, ::7] = False  # what is left doubles at each step
    fit = fit_autoregression(x * mask, mask, torch.zeros(1, dtype=torch.long), 0, 1)
    assert float(fit.coefficients.abs().max()) <= 1.0
    found = fill_hidden(fit, x * mask, mask, None)
    assert bool(torch.isfinite(found.mean).all())


def test_phases_have_their_own_noise_and_means():
    x = simulate(2, 4800, wild=6)
    x[:, 2::6] += 7.0
    fit = fit_autoregression(x, whole(x), first(x), 6, 1)
    size = fit.noise[0].diagonal(dim1=-2, dim2=-1).mean(-1)
    assert size[0] > 5.0 * size[3] and size[3] < size[-1] < size[0]
    assert (fit.mean[2] - fit.mean[3]).min() > 5.0
    later = fit_autoregression(x[:, 2:], whole(x[:, 2:]), first(x) + 2, 6, 1)
    torch.testing.assert_close(later.noise, fit.noise, rtol=0.1, atol=0.05)


def test_an_order_of_the_variables_changes_nothing():
    x, order = simulate(1, 600), torch.tensor([2, 0, 1])
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    seen = torch.where(mask, x, 0.0)
    one = fill_hidden(fit_autoregression(x, whole(x), first(x), 4, 2), seen, mask, first(x))
    other = x[..., order]
    two = fill_hidden(
        fit_autoregression(other, whole(x), first(x), 4, 2),
        seen[..., order],
        mask[..., order],
        first(x),
    )
    torch.testing.assert_close(two.mean, one.mean[..., order])
    torch.testing.assert_close(two.variance, one.variance[..., order])


def test_rows_of_nothing_at_the_end_change_nothing():
    x = simulate(1, 40)
    fit = fit_autoregression(simulate(1, 500), whole(simulate(1, 500)), first(x), 3, 2)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    short = fill_hidden(fit, x * mask, mask, first(x))
    padding = (0, 0, 0, 9)
    long = fill_hidden(
        fit,
        torch.nn.functional.pad(x * mask, padding),
        torch.nn.functional.pad(mask, padding),
        first(x),
    )
    torch.testing.assert_close(long.mean[:, :40], short.mean)
    torch.testing.assert_close(long.variance[:, :40], short.variance)


def test_far_from_data_comes_the_mean():
    fit, x = exact_fit(), simulate(1, 300) + exact_fit().mean
    mask = whole(x)
    mask[:, 20:] = False
    found = fill_hidden(fit, x * mask, mask, None)
    torch.testing.assert_close(found.mean[0, -1], fit.mean[0], atol=1e-3, rtol=0)
    spread = torch.from_numpy(stationary().diagonal().copy())
    torch.testing.assert_close(found.variance[0, -1], spread, rtol=1e-3, atol=0)


def test_constant_and_equal_variables_are_filled():
    x = simulate(1, 300)
    x = torch.stack((x[..., 0], x[..., 0], torch.full_like(x[..., 0], 3.0)), dim=-1)
    fit = fit_autoregression(x, whole(x), first(x), 0, 2)
    mask = whole(x)
    mask[0, 100, 0] = mask[0, 150, 2] = False
    found = fill_hidden(fit, x * mask, mask, None)
    assert abs(found.mean[0, 100, 0] - x[0, 100, 0]) < 0.1
    assert abs(found.mean[0, 150, 2] - 3.0) < 1e-6


def test_draws_agree_with_what_is_filled():
    fit = exact_fit()
    x = (simulate(1, 9) + fit.mean).repeat(4000, 1, 1)
    mask = whole(x)
    mask[:, 2:6, :2] = False
    draws = draw_hidden(fit, x * mask, mask, None, torch.Generator().manual_seed(0))
    found = fill_hidden(fit, (x * mask)[:1], mask[:1], None, steps=0)
    scale = found.variance[0].sqrt()
    assert (draws[mask] == x[mask]).all()
    np.testing.assert_allclose(draws.mean(0) - found.mean[0], 0.0, atol=float(scale.max()) * 0.08)
    np.testing.assert_allclose(draws.std(0), scale, rtol=0.06)


def test_completed_rows_give_the_fit_of_complete_ones():
    """Pairs alone would take the near collinearity of two variables for noise."""
    x = simulate(1, 3000)
    x[..., 1] = x[..., 0] + 0.1 * x[..., 1]
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    seen = torch.where(mask, x, 0.0)
    drawn = complete_rows(seen, mask, mask.any(-1) | True, first(x), 0, 1, seed=0)
    assert torch.equal(drawn[mask], x[mask])
    own, pairs, full = (
        fit_autoregression(rows, known, first(x), 0, 1).noise[0, 0]
        for rows, known in ((drawn, whole(x)), (seen, mask), (x, whole(x)))
    )
    own, pairs, full = (float(torch.linalg.slogdet(one)[1]) for one in (own, pairs, full))
    assert abs(own - full) < 0.4 * abs(pairs - full)


def test_complete_rows_stay_as_they_are():
    x = simulate(1, 50)
    assert complete_rows(x, whole(x), whole(x)[..., 0], first(x), 0, 1, seed=0) is x
