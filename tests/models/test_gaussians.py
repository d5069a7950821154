"""Normal posteriors, free bits and MMD against torch.distributions, by hand and by loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tsvae.models import maximum_mean_discrepancy
from tsvae.models.gaussians import (
    free_bits_kl,
    gaussian_kl,
    gaussian_log_prob,
    limit_log_variance,
    sample_gaussian,
)

GENERATOR = torch.Generator().manual_seed(11)


def draw(*shape):
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def normal(mu, log_var):
    return Normal(mu, torch.exp(0.5 * log_var))


def test_divergences_are_those_of_torch():
    mu, log_var, prior_mu, prior_log_var = (3.0 * draw(4, 5) for _ in range(4))
    zero = torch.zeros_like(mu)
    torch.testing.assert_close(
        gaussian_kl(mu, log_var), kl_divergence(normal(mu, log_var), normal(zero, zero))
    )
    torch.testing.assert_close(
        gaussian_kl(mu, log_var, prior_mu, prior_log_var),
        kl_divergence(normal(mu, log_var), normal(prior_mu, prior_log_var)),
    )
    z = draw(4, 5)
    torch.testing.assert_close(gaussian_log_prob(z, mu, log_var), normal(mu, log_var).log_prob(z))


def test_divergence_near_the_prior_keeps_its_digits():
    """KL = log_var^2 / 4 for small log_var, which 1 - 1 cancels in float32."""
    log_var = torch.tensor([1e-3])
    assert float(gaussian_kl(torch.zeros(1), log_var)) == pytest.approx(0.25e-6, rel=0.1)


def test_draws_have_the_moments_of_the_posterior():
    mu, log_var = torch.tensor([[1.0, -2.0]]).double(), torch.tensor([[0.5, -1.0]]).double()
    z = sample_gaussian(mu, log_var, 40_000, torch.Generator().manual_seed(0))
    assert z.shape == (1, 40_000, 2)
    std = torch.exp(0.5 * log_var)
    assert bool(((z.mean(1) - mu).abs() < 4 * std / 200).all())
    torch.testing.assert_close(z.var(1), log_var.exp(), rtol=0.03, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_limited_log_variances_have_finite_exponentials(dtype):
    value = limit_log_variance(torch.tensor([-1e30, 0.3, 1e30], dtype=dtype))
    assert torch.isfinite(gaussian_kl(torch.zeros(3, dtype=dtype), value)).all()
    assert torch.isfinite(gaussian_log_prob(torch.ones(3, dtype=dtype), value * 0, value)).all()
    assert float(value[1]) == pytest.approx(0.3)


def test_free_bits_by_hand():
    kl = torch.tensor([[[0.2, 1.0], [0.0, 0.5]], [[0.4, 3.0], [0.1, 0.9]]])
    # means over records: 0.3, 2.0, 0.05, 0.7
    assert float(free_bits_kl(kl, 0.5)) == pytest.approx(0.5 + 2.0 + 0.5 + 0.7)
    assert float(free_bits_kl(kl, 0.0)) == pytest.approx(0.3 + 2.0 + 0.05 + 0.7)


def test_free_bits_stop_the_gradient_of_free_entries():
    kl = torch.tensor([[0.2, 1.0], [0.4, 3.0]], requires_grad=True)
    free_bits_kl(kl, 0.5).backward()
    assert kl.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


def slow_kernel(a, b, kernel):
    distance = sum((p - q) ** 2 for p, q in zip(a.tolist(), b.tolist(), strict=True))
    spread = 2.0 * len(a)
    if kernel == "rbf":
        return math.exp(-distance / spread)
    scales = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    return sum(s * spread / (s * spread + distance) for s in scales) / len(scales)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_is_the_double_loop(kernel):
    x, y = draw(6, 3), 0.5 + draw(5, 3)
    inside_x = [
        slow_kernel(a, b, kernel) for i, a in enumerate(x) for j, b in enumerate(x) if i != j
    ]
    inside_y = [
        slow_kernel(a, b, kernel) for i, a in enumerate(y) for j, b in enumerate(y) if i != j
    ]
    across = [slow_kernel(a, b, kernel) for a in x for b in y]
    expected = sum(inside_x) / 30 + sum(inside_y) / 20 - 2 * sum(across) / 30
    assert float(maximum_mean_discrepancy(x, y, kernel)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_is_unbiased_and_sees_a_shift(kernel):
    same = [float(maximum_mean_discrepancy(draw(30, 4), draw(30, 4), kernel)) for _ in range(60)]
    mean = sum(same) / 60
    error = (sum((v - mean) ** 2 for v in same) / 59 / 60) ** 0.5
    assert abs(mean) < 3 * error
    shifted = maximum_mean_discrepancy(draw(30, 4) + 1.0, draw(30, 4), kernel)
    assert float(shifted) > max(same)


def test_mmd_of_one_code_is_zero_with_a_gradient():
    x = draw(1, 3).requires_grad_()
    value = maximum_mean_discrepancy(x, draw(1, 3))
    value.backward()
    assert value.item() == 0.0
    assert x.grad.tolist() == [[0.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="'imq' or 'rbf', got 'cosine'"):
        maximum_mean_discrepancy(draw(2, 1), draw(2, 1), "cosine")
