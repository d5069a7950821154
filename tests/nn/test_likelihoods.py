"""Likelihoods against torch.distributions and scipy; sampling; gradients; registry; validation."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special as scipy_special
from scipy import stats
from torch import distributions as td

from tsvae.nn import get_likelihood, likelihood_names, register_likelihood
from tsvae.nn.likelihoods import Normal
from tsvae.nn.special import incomplete_beta, inverse_softplus

NAMES = ["normal", "laplace", "student_t", "bernoulli", "poisson", "negative_binomial"]
CONTINUOUS = ["normal", "laplace", "student_t"]
F = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw_channels(name: str, shape=(3, F), dtype=torch.float64, seed: int = 0):
    likelihood = get_likelihood(name)
    loc = torch.randn(*shape, generator=generator(seed), dtype=torch.float64) + 0.5
    others = [
        torch.randn(shape[-1], generator=generator(seed + 1 + i), dtype=torch.float64)
        for i in range(likelihood.n_outputs - 1)
    ]
    return [value.to(dtype) for value in (loc, *others)]


def reference(name: str, params: Any) -> td.Distribution:
    """The same distribution by torch; an independent implementation."""
    if name == "normal":
        return td.Normal(params.loc, params.scale)
    if name == "laplace":
        return td.Laplace(params.loc, params.scale)
    if name == "student_t":
        return td.StudentT(params.df, params.loc, params.scale)
    if name == "bernoulli":
        return td.Bernoulli(logits=params.logit)
    if name == "poisson":
        return td.Poisson(params.loc)
    size = 1.0 / params.dispersion
    return td.NegativeBinomial(size, logits=torch.log(params.loc / size))


def values_for(name: str, shape=(3, F)) -> torch.Tensor:
    draw = torch.randn(*shape, generator=generator(9), dtype=torch.float64)
    if name == "bernoulli":
        return (draw > 0).double()
    if name in ("poisson", "negative_binomial"):
        return torch.round(3 * draw.abs())
    return 2 * draw


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_mean_variance_against_torch(name, dtype):
    likelihood = get_likelihood(name)
    params = likelihood.from_raw(*raw_channels(name, dtype=dtype))
    expected = reference(name, params)
    x = values_for(name).to(dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    value = likelihood.log_prob(x, params)
    assert value.dtype == dtype
    assert torch.allclose(value, expected.log_prob(x), rtol=tolerance, atol=tolerance)
    for ours, theirs in [
        (likelihood.mean(params), expected.mean),
        (likelihood.variance(params), expected.variance),
    ]:
        assert ours.dtype == dtype
        assert torch.allclose(ours.expand(3, F), theirs, rtol=tolerance, atol=tolerance)
    if name in ("bernoulli", "poisson", "negative_binomial"):
        std = likelihood.variance(params).sqrt()
        assert torch.allclose(params.scale, std, rtol=1e-5)
        assert torch.equal(params.loc, likelihood.mean(params))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cdf_against_scipy(name, dtype):
    likelihood = get_likelihood(name)
    params = likelihood.from_raw(*raw_channels(name, dtype=dtype))
    x = (values_for(name) + (0.0 if name in CONTINUOUS else 0.4)).to(dtype)
    x[0, 0] = -3.0
    p = [np.asarray(v.double()) for v in params]
    expected = {
        "normal": lambda: stats.norm.cdf(x, *p),
        "laplace": lambda: stats.laplace.cdf(x, *p),
        "student_t": lambda: stats.t.cdf(x, p[2], loc=p[0], scale=p[1]),
        "bernoulli": lambda: stats.bernoulli.cdf(x, scipy_special.expit(p[0])),
        "poisson": lambda: stats.poisson.cdf(x, np.exp(p[0])),
        "negative_binomial": lambda: stats.nbinom.cdf(x, 1 / p[1], 1 / (1 + p[1] * np.exp(p[0]))),
    }[name]()
    value = likelihood.cdf(x, params)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, expected, atol=1e-11 if dtype == torch.float64 else 3e-6)


def test_student_t_cdf_extremes():
    likelihood = get_likelihood("student_t")
    params = likelihood.from_raw(torch.zeros(1).double(), torch.zeros(1).double(), -torch.ones(1))
    x = torch.tensor([-1e12, -1e3, 0.0, 1e-9, 1e3, 1e12], dtype=torch.float64)
    z = np.asarray(x / params.scale)
    np.testing.assert_allclose(likelihood.cdf(x, params), stats.t.cdf(z, params.df), atol=1e-13)


@given(a=st.floats(0.05, 1e4), b=st.floats(0.05, 1e4), x=st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_incomplete_beta_against_scipy(a, b, x):
    values = (torch.tensor(v, dtype=torch.float64) for v in (a, b, x))
    assert float(incomplete_beta(*values)) == pytest.approx(
        scipy_special.betainc(a, b, x), rel=1e-8, abs=1e-10
    )


@given(value=st.floats(1e-6, 1e6))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_inverse_softplus(value):
    raw = inverse_softplus(torch.tensor(value, dtype=torch.float64))
    assert float(torch.nn.functional.softplus(raw)) == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_sample_moments_and_distribution(name):
    likelihood = get_likelihood(name)
    loc, *others = raw_channels(name, shape=(2, 2), seed=3)
    if name == "student_t":
        others[1] = others[1] + 8.0  # a finite fourth moment, so that the variance can be tested
    params = likelihood.from_raw(loc, *others)
    n = 40000
    x = likelihood.sample(params, generator(1), (n,))
    assert x.shape == (n, 2, 2)
    mean, variance = likelihood.mean(params), likelihood.variance(params)
    error = (variance / n).sqrt()
    assert ((x.mean(0) - mean).abs() < 5 * error).all()
    assert torch.allclose(x.var(0), variance.expand(2, 2), rtol=0.1)
    for quantile in (0.2, 0.5, 0.9):  # the share below a point is the cdf there
        point = torch.quantile(x, quantile, dim=0)
        share = (x <= point).double().mean(0)
        assert torch.allclose(share, likelihood.cdf(point, params), atol=0.015)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sampling_is_private_reproducible_and_valid(name, dtype):
    likelihood = get_likelihood(name)
    params = likelihood.from_raw(*raw_channels(name, dtype=dtype))
    before = torch.get_rng_state()
    first = likelihood.sample(params, generator(4), (3,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert torch.equal(first, likelihood.sample(params, generator(4), (3,)))
    assert not torch.equal(first, likelihood.sample(params, generator(5), (3,)))
    assert first.shape == (3, 3, F)
    assert first.dtype == dtype
    assert likelihood.sample(params, generator(4)).shape == (3, F)
    likelihood.validate(first)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_samples_are_reparameterised(name):
    """The gradient of a sample mean of x^2 is that of the closed-form second moment."""
    likelihood = get_likelihood(name)
    raw = [torch.tensor([v]).double().requires_grad_() for v in (0.7, 0.4, 9.0)]
    raw = raw[: likelihood.n_outputs]
    sampled = likelihood.sample(likelihood.from_raw(*raw), generator(2), (200000,)).square().mean()
    params = likelihood.from_raw(*raw)
    exact = (likelihood.variance(params) + likelihood.mean(params) ** 2).sum()
    ours = torch.autograd.grad(sampled, raw)
    theirs = torch.autograd.grad(exact, raw)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=0.05, atol=0.01)
    assert likelihood.continuous


@pytest.mark.parametrize("name", ["bernoulli", "poisson", "negative_binomial"])
def test_discrete_samples_carry_no_gradient(name):
    likelihood = get_likelihood(name)
    params = likelihood.from_raw(*(raw.requires_grad_() for raw in raw_channels(name)))
    assert not likelihood.continuous
    assert not likelihood.sample(params, generator()).requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_gradients_against_finite_differences(name):
    likelihood = get_likelihood(name)
    raw = [value.requires_grad_() for value in raw_channels(name)]
    x = values_for(name)

    def value(*channels):
        return likelihood.log_prob(x, likelihood.from_raw(*channels))

    assert torch.autograd.gradcheck(value, tuple(raw))


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_large_counts_keep_precision_in_float32(name):
    likelihood = get_likelihood(name)
    raw = [torch.tensor([12.0]), torch.tensor([-9.0])][: likelihood.n_outputs]
    x = torch.tensor([162000.0])
    single = likelihood.log_prob(x, likelihood.from_raw(*raw))
    double = likelihood.log_prob(x.double(), likelihood.from_raw(*(v.double() for v in raw)))
    assert torch.allclose(single.double(), double, rtol=2e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_raw_values_stay_finite(name, dtype):
    likelihood = get_likelihood(name)
    for value in (-60.0, 60.0):
        raw = [torch.full((2,), value, dtype=dtype) for _ in range(likelihood.n_outputs)]
        params = likelihood.from_raw(*raw)
        assert torch.isfinite(likelihood.log_prob(torch.ones(2, dtype=dtype), params)).all()
        assert torch.isfinite(likelihood.mean(params)).all()
        assert torch.isfinite(likelihood.variance(params)).all()
        assert torch.isfinite(likelihood.sample(params, generator(), (50,))).all()


@pytest.mark.parametrize("name", ["normal", "laplace", "student_t", "negative_binomial"])
def test_initial_raw_inverts_the_scale(name):
    likelihood = get_likelihood(name)
    scale = torch.tensor([2e-4, 0.3, 5.0, 1e4], dtype=torch.float64)
    raw = likelihood.initial_raw(scale)
    assert len(raw) == likelihood.n_outputs - 1
    params = likelihood.from_raw(torch.zeros_like(scale), *raw)
    got = params.dispersion if name == "negative_binomial" else params.scale
    assert torch.allclose(got, scale, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_pickle_and_deepcopy(name):
    likelihood = get_likelihood(name, min_scale=0.01)
    params = likelihood.from_raw(*raw_channels(name))
    x = values_for(name)
    for twin in (copy.deepcopy(likelihood), pickle.loads(pickle.dumps(likelihood))):
        assert type(twin) is type(likelihood)
        assert twin.min_scale == 0.01
        assert torch.equal(twin.log_prob(x, params), likelihood.log_prob(x, params))


def test_registry():
    assert likelihood_names() == sorted(NAMES)
    likelihood = get_likelihood("normal")
    assert get_likelihood(likelihood) is likelihood
    for wrong in ("gaussian", 3, None, ["normal"]):
        with pytest.raises(ValueError, match=r"choose one of: bernoulli, .*student_t"):
            get_likelihood(wrong)
    with pytest.raises(ValueError, match="likelihood 'normal' exists already"):
        register_likelihood("normal")(Normal)
    with pytest.raises(TypeError, match="must be a subclass of Likelihood"):
        register_likelihood("thing")(dict)
    with pytest.raises(ValueError, match="min_scale must be positive"):
        get_likelihood("normal", min_scale=0.0)


def test_register_own_likelihood(monkeypatch):
    monkeypatch.setattr("tsvae.nn.likelihood_base._LIKELIHOODS", {})

    @register_likelihood("unit_normal")
    class UnitNormal(Normal):
        def initial_raw(self, scale):
            return super().initial_raw(torch.ones_like(scale))

    assert likelihood_names() == ["unit_normal"]
    assert isinstance(get_likelihood("unit_normal"), UnitNormal)
    assert UnitNormal.name == "unit_normal"
    assert Normal.name == "normal"


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("poisson", 1.5, "non-negative integers.*'b' contains 1.5.*likelihood='normal'"),
        ("negative_binomial", -1.0, "non-negative integers.*'b' contains -1.0"),
        ("bernoulli", 1.2, "between 0 and 1.*'b' contains 1.2.*likelihood='normal'"),
        ("normal", float("inf"), "finite numbers.*'b' contains inf.*mark it as missing"),
        ("student_t", float("nan"), "finite numbers.*'b' contains nan"),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_validate(name, bad, message, kind):
    values = np.zeros((2, 3, 2))
    values[1, 2, 1] = bad
    mask = np.ones(values.shape, dtype=bool)
    if kind == "torch":
        values, mask = torch.as_tensor(values), torch.as_tensor(mask)
    likelihood = get_likelihood(name)
    with pytest.raises(ValueError, match=message):
        likelihood.validate(values, mask, ["a", "b"])
    with pytest.raises(ValueError, match="variable 1 contains"):
        likelihood.validate(values)
    mask[1, 2, 1] = False
    likelihood.validate(values, mask, ["a", "b"])
    with pytest.raises(ValueError, match=r"mask must have the shape of the values, \(2, 3, 2\)"):
        likelihood.validate(values, mask[0], ["a", "b"])


def test_validate_one_dimensional():
    with pytest.raises(ValueError, match=r"variable 'b' contains 0\.5"):
        get_likelihood("poisson").validate(np.array([1.0, 0.5]), names=["a", "b"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", NAMES)
def test_sampling_on_the_device_with_either_generator(name, device):
    likelihood = get_likelihood(name)
    params = likelihood.from_raw(*(raw.cuda() for raw in raw_channels(name)))
    draws = [
        likelihood.sample(params, torch.Generator(device).manual_seed(1), (4,)) for _ in range(2)
    ]
    assert torch.equal(*draws)
    assert draws[0].is_cuda
    assert torch.isfinite(likelihood.log_prob(draws[0], params)).all()
    on_cpu = type(params)(*(value.cpu() for value in params))
    assert torch.allclose(
        likelihood.cdf(draws[0], params).cpu(), likelihood.cdf(draws[0].cpu(), on_cpu)
    )
