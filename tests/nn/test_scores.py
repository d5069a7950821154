"""Masked reductions and CRPS."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from tsvae.nn import (
    energy_crps,
    get_likelihood,
    likelihood_names,
    masked_crps,
    masked_log_prob,
    masked_mean,
)
from tsvae.nn.likelihoods import BernoulliParameters, LaplaceParameters, NormalParameters

NAMES = ["normal", "laplace", "student_t", "bernoulli", "poisson", "negative_binomial"]
GARBAGE = [float("nan"), float("inf"), -1e300]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw_channels(name: str) -> list[torch.Tensor]:
    n_outputs = get_likelihood(name).n_outputs
    return [
        torch.randn(2, 3, generator=generator(i), dtype=torch.float64).requires_grad_()
        for i in range(n_outputs)
    ]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", NAMES)
def test_masked_entries_reach_neither_value_nor_gradient(name, garbage):
    likelihood = get_likelihood(name)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    x = torch.ones(2, 3, dtype=torch.float64)
    dirty = torch.where(mask, x, torch.full_like(x, garbage))
    raw = raw_channels(name)
    value = masked_log_prob(likelihood, dirty, likelihood.from_raw(*raw), mask)
    expected = likelihood.log_prob(x, likelihood.from_raw(*raw))
    assert (value[~mask] == 0).all()
    assert torch.equal(value[mask], expected[mask])
    gradients = torch.autograd.grad(value.sum(), raw)
    expected_gradients = torch.autograd.grad(expected[mask].sum(), raw)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(got, wanted)
        assert (got[~mask] == 0).all()


def test_reductions():
    likelihood = get_likelihood("normal")
    params = NormalParameters(torch.zeros(3), torch.ones(3))
    x = torch.tensor([[0.0, 1.0, float("nan")], [2.0, float("nan"), float("nan")]])
    mask = ~torch.isnan(x)
    each = masked_log_prob(likelihood, x, params, mask)
    total = masked_log_prob(likelihood, x, params, mask, reduction="sum")
    assert total == pytest.approx(stats.norm.logpdf([0.0, 1.0, 2.0]).sum(), rel=1e-6)
    assert each.sum() == pytest.approx(float(total))
    mean = masked_log_prob(likelihood, x, params, mask, reduction="mean")
    assert mean == pytest.approx(float(total) / 3)
    full = torch.zeros(2, 3)
    assert masked_log_prob(likelihood, full, params).shape == (2, 3)
    assert masked_log_prob(likelihood, full, params, reduction="mean") == pytest.approx(-0.918939)
    assert masked_mean(x, torch.zeros_like(mask)) == 0.0
    with pytest.raises(ValueError, match="reduction must be 'none', 'sum' or 'mean', got 'max'"):
        masked_log_prob(likelihood, x, params, mask, reduction="max")


def test_sample_axis_and_shared_mask_broadcast():
    likelihood = get_likelihood("normal")
    loc = torch.randn(4, 2, 5, 3, generator=generator(), dtype=torch.float64)
    params = NormalParameters(loc, torch.ones(3, dtype=torch.float64))
    x = torch.zeros(2, 5, 3, dtype=torch.float64)
    mask = torch.rand(1, 5, 3, generator=generator()) > 0.5
    value = masked_log_prob(likelihood, x, params, mask)
    assert value.shape == (4, 2, 5, 3)
    mean = masked_log_prob(likelihood, x, params, mask, reduction="mean")
    assert mean == pytest.approx(float(value.sum() / (mask.sum() * 8)))


def crps_by_integration(cdf, x: float) -> float:
    """Integral of (F(y) - [y >= x])^2: the definition."""
    below = integrate.quad(lambda y: cdf(y) ** 2, -np.inf, x, epsabs=1e-11)[0]
    above = integrate.quad(lambda y: (1 - cdf(y)) ** 2, x, np.inf, epsabs=1e-11)[0]
    return below + above


@pytest.mark.parametrize("x", [-4.0, 0.3, 0.5, 2.5])
def test_closed_form_against_the_definition(x):
    loc, scale = torch.tensor(0.5).double(), torch.tensor(0.8).double()
    value = torch.tensor(x).double()
    normal = get_likelihood("normal").crps(value, NormalParameters(loc, scale))
    expected = crps_by_integration(stats.norm(0.5, 0.8).cdf, x)
    assert float(normal) == pytest.approx(expected, abs=1e-8)
    laplace = get_likelihood("laplace").crps(value, LaplaceParameters(loc, scale))
    expected = crps_by_integration(stats.laplace(0.5, 0.8).cdf, x)
    assert float(laplace) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("x", [0.0, 1.0])
def test_bernoulli_crps_is_the_integral_over_the_unit_interval(x):
    p = 0.3
    params = BernoulliParameters(torch.logit(torch.tensor(p).double()))
    value = get_likelihood("bernoulli").crps(torch.tensor(x).double(), params)
    assert float(value) == pytest.approx(((1 - p) - (x <= 0)) ** 2)


@pytest.mark.parametrize("name", ["normal", "laplace", "bernoulli"])
def test_crps_gradients_and_propriety(name):
    likelihood = get_likelihood(name)
    raw = [torch.tensor([[0.4], [-0.3]]).double().requires_grad_()]
    raw += [torch.tensor([0.2]).double().requires_grad_()][: likelihood.n_outputs - 1]
    x = torch.tensor([[1.0], [0.0]]).double()
    assert torch.autograd.gradcheck(
        lambda *channels: likelihood.crps(x, likelihood.from_raw(*channels)), tuple(raw)
    )
    # Proper: averaged over draws from the truth, the truth scores better than a shifted forecast.
    truth = likelihood.from_raw(*(value.detach() for value in raw))
    moved = likelihood.from_raw(raw[0].detach() + 0.7, *(value.detach() for value in raw[1:]))
    draws = likelihood.sample(truth, generator(1), (20000,))
    assert likelihood.crps(draws, truth).mean() < likelihood.crps(draws, moved).mean()


def test_closed_form_flag_tells_the_truth():
    for name in likelihood_names():
        likelihood = get_likelihood(name)
        params = likelihood.from_raw(*(value.detach() for value in raw_channels(name)))
        x = torch.ones(2, 3, dtype=torch.float64)
        if likelihood.closed_form_crps:
            assert likelihood.crps(x, params).shape == (2, 3)
        else:
            with pytest.raises(ValueError, match=f"{name!r} has no closed-form CRPS.*energy_crps"):
                likelihood.crps(x, params)


def test_masked_crps():
    likelihood = get_likelihood("normal")
    params = NormalParameters(torch.zeros(2), torch.ones(2))
    x = torch.tensor([0.0, float("nan")])
    value = masked_crps(likelihood, x, params, torch.tensor([True, False]), reduction="mean")
    assert value == pytest.approx((np.sqrt(2) - 1) / np.sqrt(np.pi))


def brute_force(samples: np.ndarray, x: float) -> float:
    n = len(samples)
    pairs = np.abs(samples[:, None] - samples[None, :]).sum()
    return np.abs(samples - x).mean() - pairs / (2 * n * (n - 1))


@pytest.mark.parametrize("n_samples", [2, 3, 11])
def test_energy_crps_against_brute_force(n_samples):
    samples = torch.randn(n_samples, 2, 3, generator=generator(), dtype=torch.float64)
    x = torch.randn(2, 3, generator=generator(1), dtype=torch.float64)
    value = energy_crps(samples, x)
    for i in range(2):
        for j in range(3):
            expected = brute_force(samples[:, i, j].numpy(), float(x[i, j]))
            assert float(value[i, j]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_samples", [2, 5])
def test_energy_crps_is_unbiased_for_the_closed_form(n_samples):
    likelihood = get_likelihood("normal")
    params = NormalParameters(torch.tensor([0.3]).double(), torch.tensor([1.4]).double())
    x = torch.tensor([1.1]).double()
    repeats = 100000
    samples = likelihood.sample(params, generator(2), (n_samples, repeats))
    values = energy_crps(samples, x.expand(repeats, 1))
    error = float(values.std() / repeats**0.5)
    assert float(values.mean()) == pytest.approx(float(likelihood.crps(x, params)), abs=4 * error)
    # The plain (V-statistic) estimator is biased by more than that: the test can tell them apart.
    spread = 1.4 / np.sqrt(np.pi)
    assert spread / n_samples > 20 * error


def test_energy_crps_gradient_mask_and_errors():
    samples = torch.randn(4, 2, 3, generator=generator(), dtype=torch.float64).requires_grad_()
    x = torch.zeros(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: energy_crps(s, x), (samples,))
    mask = torch.tensor([[True, False, True], [True, True, False]])
    dirty = torch.where(mask, x, torch.full_like(x, float("nan")))
    value = energy_crps(samples, dirty, mask)
    assert torch.equal(value, energy_crps(samples, x) * mask)
    gradient = torch.autograd.grad(value.sum(), samples)[0]
    assert torch.isfinite(gradient).all()
    assert (gradient[:, ~mask] == 0).all()
    mean = energy_crps(samples, dirty, mask, reduction="mean")
    assert float(mean.detach()) == pytest.approx(float(value.detach().sum() / 4))
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        energy_crps(samples[:1], x)
