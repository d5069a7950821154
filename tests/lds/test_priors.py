"""NIW and MNIW: moments and KL by Monte Carlo and by autograd; natural gradients by Fisher."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from tsvae import lds
from tsvae.lds import priors
from tsvae.lds.natural import (
    FactorSize,
    expectations_from_standard,
    standard_from_unconstrained,
    unconstrained_from_standard,
)
from tsvae.lds.natural_gradient import natural_expectations, natural_kl, prior_factor
from tsvae.training.optim import NaturalDescent, limit_step

SIZES = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 1), (3, 5)]


def _random_mniw(rng, size, n, groups=1, strength=1.0):
    def spd(k):
        root = rng.normal(size=(groups, k, k))
        return torch.from_numpy(strength * (root @ root.transpose(0, 2, 1) + k * np.eye(k)))

    degrees = torch.from_numpy(size + 1 + strength * (2 + 3 * rng.random(groups)))
    return lds.MNIW(
        spd(size), degrees, torch.from_numpy(rng.normal(size=(groups, size, n))), spd(n)
    )


def _draws(distribution, rng, count):
    """Independent draws through scipy: Q, then Theta given Q."""
    q = stats.invwishart(distribution.degrees_of_freedom.item(), distribution.scale[0].numpy()).rvs(
        count, random_state=rng
    )
    q = q.reshape(count, *distribution.scale.shape[1:])
    mean = distribution.mean[0].numpy()
    rows = np.linalg.cholesky(np.linalg.inv(distribution.precision[0].numpy()))
    noise = rng.normal(size=(count, *mean.shape))
    return mean + np.linalg.cholesky(q) @ noise @ rows.T, q


def _statistics(theta, q):
    w = np.linalg.inv(q)
    mixed = w @ theta
    return (
        -0.5 * w,
        mixed,
        -0.5 * theta.swapaxes(1, 2) @ mixed,
        -0.5 * np.linalg.slogdet(q)[1],
    )


# Minimal coordinates: lower halves (vech) of symmetric parts.
def _vech(matrix):
    row, column = torch.tril_indices(*matrix.shape[-2:])
    return matrix[..., row, column]


def _unvech(values, size):
    row, column = torch.tril_indices(size, size)
    full = values.new_zeros(size, size).index_put((row, column), values)
    return full + full.T - torch.diag(full.diagonal())


def _flatten(natural):
    one, two, three, four = (part[0] for part in natural)
    return torch.cat((_vech(one), two.flatten(), _vech(three), four.reshape(1)))


def _unflatten(values, size, n):
    lengths = [size * (size + 1) // 2, size * n, n * (n + 1) // 2, 1]
    one, two, three, four = values.split(lengths)
    parts = (_unvech(one, size), two.reshape(size, n), _unvech(three, n), four[0])
    return priors.NaturalParameters(*(part.unsqueeze(0) for part in parts))


def _log_normalizer(values, size, n):
    return priors.log_normalizer(priors.standard_from_natural(_unflatten(values, size, n))).sum()


@pytest.mark.parametrize(("size", "n"), SIZES)
def test_expected_statistics_are_the_gradient_of_the_log_normalizer(size, n):
    q = _random_mniw(np.random.default_rng(size + n), size, n)
    eta = _flatten(priors.natural_from_standard(q)).requires_grad_()
    (grad,) = torch.autograd.grad(_log_normalizer(eta, size, n), eta)
    expected = priors.expected_sufficient_statistics(q)
    # An off-diagonal coordinate of vech stands for two equal entries.
    first, third = (2 * x - torch.diag_embed(x.diagonal(dim1=-2, dim2=-1)) for x in expected[0::2])
    want = _flatten(priors.NaturalParameters(first, expected[1], third, expected[3]))
    torch.testing.assert_close(grad, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("size", "n"), SIZES)
def test_expected_statistics_and_kl_against_monte_carlo(size, n):
    rng = np.random.default_rng(10 * size + n)
    q, p = _random_mniw(rng, size, n, strength=2.0), _random_mniw(rng, size, n, strength=2.0)
    p = p._replace(mean=q.mean + 0.3 * (p.mean - q.mean))
    count = 10_000
    theta, cov = _draws(q, rng, count)
    expected = priors.expected_sufficient_statistics(q)
    for values, want in zip(_statistics(theta, cov), expected, strict=True):
        error = values.mean(0) - want[0].numpy()
        assert np.all(np.abs(error) < 5 * values.std(0) / np.sqrt(count) + 1e-12)

    def log_density(d):
        value = stats.invwishart(d.degrees_of_freedom.item(), d.scale[0].numpy()).logpdf(
            np.moveaxis(cov, 0, -1) if size > 1 else cov[:, 0, 0]
        )
        error = theta - d.mean[0].numpy()
        w, v = np.linalg.inv(cov), d.precision[0].numpy()
        value = value - 0.5 * np.einsum("skl,skj,sjm,lm->s", error, w, error, v)
        value = value - 0.5 * n * np.linalg.slogdet(cov)[1]
        value = value + 0.5 * size * np.linalg.slogdet(v)[1]
        return value - 0.5 * size * n * np.log(2 * np.pi)

    gap = log_density(q) - log_density(p)
    kl = priors.kl_divergence(q, p).item()
    assert abs(gap.mean() - kl) < 5 * gap.std() / np.sqrt(count)
    for d in (q, p):
        got = priors.log_density(
            lds.MNIW(*(part.expand(5, *part.shape[1:]) for part in d)),
            torch.from_numpy(theta[:5]),
            torch.from_numpy(cov[:5]),
        )
        np.testing.assert_allclose(got, log_density(d)[:5], rtol=1e-8)


@pytest.mark.parametrize(("size", "n"), SIZES)
def test_kl_against_bregman_divergence_of_the_log_normalizer(size, n):
    rng = np.random.default_rng(size)
    q, p = _random_mniw(rng, size, n), _random_mniw(rng, size, n, strength=3.0)
    eta = _flatten(priors.natural_from_standard(q)).requires_grad_()
    other = _flatten(priors.natural_from_standard(p))
    value = _log_normalizer(eta, size, n)
    (grad,) = torch.autograd.grad(value, eta)
    want = _log_normalizer(other, size, n) - value - ((other - eta) * grad).sum()
    torch.testing.assert_close(priors.kl_divergence(q, p).sum(), want.detach())
    assert priors.kl_divergence(q, q).abs().max() < 1e-10


@pytest.mark.parametrize(("size", "n"), [(1, 1), (2, 3), (3, 1)])
def test_sampler_has_the_right_moments(size, n):
    rng = np.random.default_rng(size)
    q = _random_mniw(rng, size, n, strength=2.0)
    count = 20_000
    many = lds.MNIW(*(part.expand(count, *part.shape[1:]).contiguous() for part in q))
    draw = priors.sample(many, torch.Generator().manual_seed(0))
    again = priors.sample(many, torch.Generator().manual_seed(0))
    assert torch.equal(draw.coefficients, again.coefficients)
    values = _statistics(draw.coefficients.numpy(), draw.covariance.numpy())
    for value, want in zip(values, priors.expected_sufficient_statistics(q), strict=True):
        error = value.mean(0) - want[0].numpy()
        assert np.all(np.abs(error) < 5 * value.std(0) / np.sqrt(count) + 1e-12)


def test_hyperparameters_of_the_source():
    prior = lds.prior_from_hyperparameters(3, 2, 1)
    assert prior.transition.degrees_of_freedom.tolist() == [4.0] * 3
    torch.testing.assert_close(prior.transition.scale[1], 2.0 * torch.eye(2))
    torch.testing.assert_close(prior.transition.precision[0], 0.001 * torch.eye(4))
    torch.testing.assert_close(prior.transition.mean[2], 0.9 * torch.eye(2, 4))
    assert prior.initial.strength.tolist() == pytest.approx([0.001] * 3)
    with pytest.raises(ValueError, match="scale"):
        lds.prior_from_hyperparameters(1, 1, hyper=lds.HyperParameters(scale=0.0))
    with pytest.raises(ValueError, match="degrees_of_freedom"):
        lds.prior_from_hyperparameters(1, 1, hyper=lds.HyperParameters(degrees_of_freedom=-1.0))


@pytest.mark.parametrize(("size", "n"), SIZES)
def test_parameterisations_round_trip(size, n):
    q = _random_mniw(np.random.default_rng(0), size, n, groups=3)
    xi = unconstrained_from_standard(q)
    assert xi.shape == (3, FactorSize(size, n).n_free)
    for back in (
        standard_from_unconstrained(xi, FactorSize(size, n)),
        priors.standard_from_natural(priors.natural_from_standard(q)),
    ):
        for got, want in zip(back, q, strict=True):
            torch.testing.assert_close(got, want)
    with pytest.raises(ValueError, match="degrees_of_freedom"):
        unconstrained_from_standard(q._replace(degrees_of_freedom=torch.full((3,), size - 1.0)))


def _some_loss(phi, weights):
    """A smooth function that uses every entry of phi in a non-linear way."""
    mean, noise, excess, log_det = phi
    a, b, c = weights
    first = (mean * a).sin().sum() + (noise @ b @ noise).sum() + (excess @ c).square().sum()
    return first + (mean.mT @ torch.linalg.inv(noise) @ mean * c).sum() + 2.0 * log_det.exp().sum()


def _in_coordinates(eta, direction, size, n):
    """Differential of eta -> xi, by autograd."""

    def to_xi(values):
        standard = priors.standard_from_natural(_unflatten(values, size, n))
        return unconstrained_from_standard(standard).flatten()

    return torch.autograd.functional.jvp(to_xi, eta, direction)[1]


@pytest.mark.parametrize(("size", "n"), SIZES)
def test_natural_gradient_is_inverse_fisher_times_gradient(size, n):
    rng = np.random.default_rng(size * 7 + n)
    q = _random_mniw(rng, size, n)
    shapes = ((size, n), (size, size), (n, n))
    weights = [torch.from_numpy(rng.normal(size=s)) for s in shapes]
    free = FactorSize(size, n)
    eta = _flatten(priors.natural_from_standard(q)).requires_grad_()

    def loss(values):
        standard = priors.standard_from_natural(_unflatten(values, size, n))
        return _some_loss(expectations_from_standard(standard), weights)

    (grad,) = torch.autograd.grad(loss(eta), eta)
    fisher = torch.autograd.functional.hessian(lambda e: _log_normalizer(e, size, n), eta)
    direction = torch.linalg.solve(fisher, grad).detach()
    want = _in_coordinates(eta.detach(), direction, size, n)
    xi = unconstrained_from_standard(q).requires_grad_()
    _some_loss(natural_expectations(xi, free), weights).backward()
    assert (xi.grad.flatten() - want).norm() <= 1e-4 * want.norm()


@pytest.mark.parametrize(("size", "n"), SIZES)
def test_natural_gradient_of_the_kl(size, n):
    rng = np.random.default_rng(size * 3 + n)
    q, p = _random_mniw(rng, size, n), _random_mniw(rng, size, n, strength=2.0)
    eta = _flatten(priors.natural_from_standard(q)).requires_grad_()
    value = priors.kl_divergence(priors.standard_from_natural(_unflatten(eta, size, n)), p).sum()
    (grad,) = torch.autograd.grad(value, eta)
    fisher = torch.autograd.functional.hessian(lambda e: _log_normalizer(e, size, n), eta)
    direction = torch.linalg.solve(fisher, grad)
    want = (eta - _flatten(priors.natural_from_standard(p))).detach()
    assert (direction - want).norm() <= 1e-4 * want.norm()
    xi = unconstrained_from_standard(q).requires_grad_()
    kl = natural_kl(xi, FactorSize(size, n), prior_factor(p))
    kl.backward()
    torch.testing.assert_close(kl.detach(), value.detach())
    want = _in_coordinates(eta.detach(), want, size, n)
    assert (xi.grad.flatten() - want).norm() <= 1e-8 * want.norm()


def _regression(rng, size, n, count=200):
    theta = rng.normal(size=(size, n))
    w = rng.normal(size=(count, n))
    z = w @ theta.T + 0.3 * rng.normal(size=(count, size))
    outer, mixed, inner = (torch.from_numpy(x)[None] for x in (z.T @ z, z.T @ w, w.T @ w))
    count = torch.tensor([float(count)], dtype=torch.float64)
    return lds.RegressionStatistics(outer, mixed, inner, count)


def _conjugate_loss(xi, free, prior, data):
    """KL to the prior minus the expected log-likelihood: minimal at the conjugate posterior."""
    mean, noise, excess, log_det = natural_expectations(xi, free)
    w = torch.linalg.inv(noise)
    residual = data.outcome_outer - 2 * mean @ data.outcome_regressor.mT
    residual = residual + mean @ data.regressor_outer @ mean.mT
    quadratic = (w * residual).sum() + (excess * data.regressor_outer).sum()
    log_det = 2 * log_det.sum() - torch.logdet(noise).sum()
    likelihood = 0.5 * data.n_observations.sum() * log_det - 0.5 * quadratic
    return natural_kl(xi, free, prior_factor(prior)) - likelihood


@pytest.mark.parametrize(("size", "n"), [(1, 1), (2, 3), (3, 4)])
def test_conjugate_steps(size, n):
    rng = np.random.default_rng(size)
    free = FactorSize(size, n)
    prior = _random_mniw(rng, size, n)
    data = _regression(rng, size, n)
    posterior = priors.conjugate_update(prior, data)
    target = unconstrained_from_standard(posterior)

    def gradient(point):
        xi = point.clone().requires_grad_()
        _conjugate_loss(xi, free, prior, data).backward()
        return xi.grad

    # The posterior is the fixed point.
    assert gradient(target).norm() <= 1e-8
    # A small step equals the conjugate update eta <- (1 - rho) eta + rho eta_post.
    start = _random_mniw(rng, size, n, strength=5.0)
    xi = unconstrained_from_standard(start)
    old, new = priors.natural_from_standard(start), priors.natural_from_standard(posterior)
    errors = []
    for rho in (1e-3, 5e-4):
        mixed = priors.NaturalParameters(
            *((1 - rho) * a + rho * b for a, b in zip(old, new, strict=True))
        )
        exact = unconstrained_from_standard(priors.standard_from_natural(mixed)) - xi
        errors.append((-rho * gradient(xi) - exact).norm() / exact.norm())
    assert errors[0] < 0.2 and errors[1] < 0.6 * errors[0]
    # Near the posterior one step of rho = 1 lands on it up to second order.
    gaps = []
    for distance in (1e-2, 5e-3):
        away = distance * torch.from_numpy(np.random.default_rng(1).normal(size=xi.shape))
        landed = target + away - gradient(target + away)
        gaps.append((landed - target).norm() / away.norm())
    assert gaps[0] < 0.2 and gaps[1] < 0.6 * gaps[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_descent_converges_to_the_posterior_from_a_vague_start(dtype):
    rng = np.random.default_rng(4)
    free = FactorSize(2, 3)
    prior = lds.prior_from_hyperparameters(1, 2, dtype=torch.float64).transition
    data = _regression(rng, 2, 3, 1000)
    posterior = priors.conjugate_update(prior, data)
    prior = lds.MNIW(*(part.to(dtype) for part in prior))
    data = lds.RegressionStatistics(*(part.to(dtype) for part in data))
    xi = torch.nn.Parameter(unconstrained_from_standard(prior))
    optimizer = NaturalDescent([xi], lr=1.0, trust_region=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        _conjugate_loss(xi, free, prior, data).backward()
        optimizer.step()
    reached = standard_from_unconstrained(xi.detach().double(), free)
    for got, want in zip(reached, posterior, strict=True):
        torch.testing.assert_close(got, want, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(("trust_region", "lr"), [(0.05, 1.0), (0.5, 1.0), (None, 0.1)])
def test_ten_times_the_default_step_stays_valid(trust_region, lr):
    theta = lds.LinearDynamicsPosterior(6, group_size=3, n_inputs=1)
    factors = theta.natural_parameters()
    optimizer = NaturalDescent(factors, lr=lr, trust_region=trust_region)  # by default 0.1 and 0.05
    generator = torch.Generator().manual_seed(0)
    linear = 5.0 * torch.randn(4, 30, 6, generator=generator)
    potentials = lds.Potentials(linear, torch.full((1, 30, 6), 5.0))
    inputs = torch.randn(4, 30, 1, generator=generator)
    scale = 50.0 if trust_region else 1.0
    for _ in range(40):
        optimizer.zero_grad()
        params = theta.parameters_for_inference()
        filtered = lds.filter_states(params, potentials, inputs)
        last = lds.final_state(filtered)
        ahead = lds.forecast_states(
            theta.plug_in(expected=params), last.mean, last.covariance, 5, inputs[:, :5]
        )
        loss = theta.kl() - filtered.log_normalizer.sum() + (ahead.mean - 1.0).square().sum()
        (scale * loss).backward()
        optimizer.step()
    q = theta.standard()
    assert all(torch.isfinite(part).all() for part in (*q.initial, *q.transition))
    for scale in (q.initial.scale, q.transition.scale, q.transition.precision):
        assert torch.linalg.cholesky_ex(scale.double())[1].max() == 0
    assert (q.transition.degrees_of_freedom > 2).all()
    assert (q.initial.degrees_of_freedom > 2).all() and (q.initial.strength > 0).all()


def test_trust_region_and_settings():
    step = torch.tensor([[3.0, -1.0], [0.1, 0.2], [1e30, 1e20]])
    limited = limit_step(step, 0.5)
    torch.testing.assert_close(limited[0], torch.tensor([0.5, -0.5 / 3]))
    assert torch.equal(limited[1], step[1])
    assert limited[2, 0] == pytest.approx(0.5)
    for bad in ({"lr": -1.0}, {"trust_region": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            NaturalDescent([torch.zeros(1, 1, requires_grad=True)], **bad)


@pytest.mark.parametrize("group_size", [None, 1, 2])
@pytest.mark.parametrize("posterior", ["natural", "gradient", "point"])
def test_posterior_module(posterior, group_size, oracle):
    rng = np.random.default_rng(0)
    size = 4 if group_size is None else group_size
    start = oracle.random_system(rng, 4 // size, size, 2)
    theta = lds.LinearDynamicsPosterior(
        4, group_size=group_size, n_inputs=2, posterior=posterior, start=start,
        dtype=torch.float64,
    )  # fmt: skip
    plug = theta.plug_in()
    for got, want in zip(plug[:6], start[:6], strict=True):
        torch.testing.assert_close(got, want)
    assert plug.excess is None
    assert (theta.parameters_for_inference().excess is None) == (posterior == "point")
    assert len(theta.natural_parameters()) == (2 if posterior == "natural" else 0)
    theta.kl().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.norm() > 0 for p in theta.parameters())
    draw = theta.sample(torch.Generator().manual_seed(0))
    assert draw.excess is None and not draw.transition_matrix.requires_grad
    same = theta.sample(torch.Generator().manual_seed(0))
    assert torch.equal(draw.noise_covariance, same.noise_covariance)
    if posterior == "point":
        with pytest.raises(ValueError, match="posterior"):
            theta.standard()
    else:
        wide = theta.plug_in("expected_covariance").noise_covariance
        q = theta.standard().transition
        want = q.scale / (q.degrees_of_freedom - size - 1)[:, None, None]
        torch.testing.assert_close(wide, want)
    theta.reset(start._replace(bias=start.bias + 1.0), strength=10.0)
    torch.testing.assert_close(theta.plug_in().bias, start.bias + 1.0)


def test_gradient_and_natural_agree_in_value_and_differ_in_gradient():
    kinds = [lds.LinearDynamicsPosterior(3, posterior=k) for k in ("natural", "gradient")]
    potentials = lds.Potentials(torch.ones(1, 5, 3), torch.ones(1, 5, 3))
    grads, values = [], []
    for theta in kinds:
        filtered = lds.filter_states(theta.parameters_for_inference(), potentials)
        loss = theta.kl() - filtered.log_normalizer.sum()
        loss.backward()
        values.append(loss.detach())
        grads.append(theta.transition_factor.grad)
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-3)
    # F^-1 is positive definite: both directions descend.
    assert (grads[0] * grads[1]).sum() > 0
    assert not torch.allclose(grads[0], grads[1])


def test_point_estimate_minimises_minus_log_posterior_density():
    theta = lds.LinearDynamicsPosterior(2, posterior="point", dtype=torch.float64)
    prior = lds.prior_from_hyperparameters(1, 2, dtype=torch.float64)
    params = theta.plug_in()
    coefficients = torch.cat((params.transition_matrix, params.bias.unsqueeze(-1)), -1)
    want = priors.log_density(prior.transition, coefficients, params.noise_covariance)
    first = priors.log_density(
        prior.initial.as_mniw(), params.initial_mean.unsqueeze(-1), params.initial_covariance
    )
    torch.testing.assert_close(theta.kl(), -(want + first).sum())


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"group_size": 3}, "group_size"),
        ({"n_inputs": -1}, "n_inputs"),
        ({"posterior": "exact"}, "posterior"),
        ({"spectral_radius_max": 0.0}, "spectral_radius_max"),
        ({"strength": 0.0}, "strength"),
        ({"start": lds.make_parameters(torch.eye(2), torch.eye(2))}, "start"),
    ],
)
def test_bad_settings_are_named(settings, word):
    with pytest.raises(ValueError, match=word):
        lds.LinearDynamicsPosterior(4, **settings)
