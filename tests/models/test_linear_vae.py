"""A linear VAE is probabilistic PCA: everything has a closed form (Tipping & Bishop 1999)."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import MultivariateNormal

from tsvae.models import VAE, ForwardResult
from tsvae.nn import MLPDecoder, MLPEncoder

N_STEPS, N_LATENT, N_RECORDS = 6, 2, 300


def records(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    loadings = draw(N_STEPS, N_LATENT) * torch.tensor([1.5, 0.8])
    x = draw(N_RECORDS, N_LATENT) @ loadings.T + 0.4 * draw(N_RECORDS, N_STEPS) + draw(N_STEPS)
    return x.unsqueeze(-1)


def principal(x):
    """Maximum likelihood of probabilistic PCA: log-likelihood per record, axes, noise."""
    flat = x.squeeze(-1)
    covariance = torch.cov(flat.T, correction=0)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0), vectors.flip(1)
    noise = values[N_LATENT:].mean()
    log_det = values[:N_LATENT].log().sum() + (N_STEPS - N_LATENT) * noise.log()
    log_likelihood = -0.5 * (N_STEPS * math.log(2 * math.pi) + log_det + N_STEPS)
    return SimpleNamespace(
        log_likelihood=float(log_likelihood), axes=vectors[:, :N_LATENT], noise=float(noise)
    )


def linear_vae(x, **options):
    model = VAE(
        MLPEncoder(1, N_STEPS, ()).double(),
        MLPDecoder(N_LATENT, N_STEPS, 1, ()).double(),
        N_LATENT,
        **{"annealing_steps": 0, **options},
    )
    return model.double().build(x)


def exact_output(model, x):
    """Sigma points instead of draws: expectations of quadratics are then exact."""
    mu, log_var = model.posterior(model.features(x))
    corners = math.sqrt(N_LATENT) * torch.eye(N_LATENT, dtype=x.dtype)
    points = torch.cat([corners, -corners])
    z = mu.unsqueeze(1) + points * torch.exp(0.5 * log_var).unsqueeze(1)
    shape = z.shape
    mu, log_var = (value.unsqueeze(1).expand(shape) for value in (mu, log_var))
    return ForwardResult(model.decode(z).x_hat, z, mu, log_var)


def exact_elbo(model, x):
    """ELBO per record."""
    with torch.no_grad():
        result = model.compute_loss(x, exact_output(model, x))
    return -float(result.objective) * N_STEPS


def marginal(model):
    """p(x) of a linear VAE."""
    last = model.decoder.network.last
    noise = model.observation.parameters_at(torch.zeros(1, 1).double()).scale ** 2
    covariance = last.weight @ last.weight.T + noise * torch.eye(N_STEPS).double()
    return MultivariateNormal(last.bias.detach(), covariance.detach())


@pytest.fixture(scope="module")
def fitted():
    x = records()
    model = linear_vae(x)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=400, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def closure():
        optimizer.zero_grad()
        loss = model.compute_loss(x, exact_output(model, x)).objective
        loss.backward()
        return loss

    optimizer.step(closure)
    return SimpleNamespace(model=model, x=x, pca=principal(x))


def test_the_elbo_reaches_the_likelihood_of_probabilistic_pca(fitted):
    elbo = exact_elbo(fitted.model, fitted.x)
    assert elbo == pytest.approx(fitted.pca.log_likelihood, abs=1e-4 * N_STEPS)
    assert float(marginal(fitted.model).log_prob(fitted.x.squeeze(-1)).mean()) == pytest.approx(
        fitted.pca.log_likelihood, abs=1e-4 * N_STEPS
    )
    scale = fitted.model.observation.parameters_at(torch.zeros(1, 1).double()).scale
    assert float(scale.detach() ** 2) == pytest.approx(fitted.pca.noise, rel=1e-2)


def test_posterior_means_span_the_principal_subspace(fitted):
    fitted.model.eval()
    mu = fitted.model.encode(fitted.x).mu[:, 0].detach()
    fitted.model.train()
    centred = (fitted.x - fitted.x.mean(0)).squeeze(-1)
    scores = centred @ fitted.pca.axes
    # Each set of coordinates is a linear map of the other.
    for a, b in ((mu - mu.mean(0), scores), (scores, mu - mu.mean(0))):
        residual = b - a @ torch.linalg.lstsq(a, b).solution
        assert float(residual.square().sum() / b.square().sum()) < 1e-4
    span, _ = torch.linalg.qr(fitted.model.decoder.network.last.weight.detach())
    cosines = torch.linalg.svdvals(span.T @ fitted.pca.axes)
    assert float(cosines.min()) > 1 - 1e-4


def test_sampled_steps_reach_it_too():
    x = records(1)
    model = linear_vae(x, n_samples=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for step in range(900):
        for group in optimizer.param_groups:
            group["lr"] = 0.03 * 0.5 * (1 + math.cos(math.pi * step / 900))
        optimizer.zero_grad()
        model.training_step({"x": x}, step).objective.backward()
        optimizer.step()
    gap = principal(x).log_likelihood - exact_elbo(model, x)
    assert 0.0 <= gap < 0.01 * N_STEPS
    # The criterion of the eval mode is the same bound, drawn.
    model.eval()
    criterion = -float(model.training_step({"x": x}, 0).objective.detach()) * N_STEPS
    assert criterion == pytest.approx(exact_elbo(model, x), abs=0.02 * N_STEPS)


@pytest.fixture
def loose(fitted):
    """The fitted model behind an encoder that is wrong: its bounds are loose."""
    model = linear_vae(fitted.x)
    model.load_state_dict(fitted.model.state_dict())
    with torch.no_grad():
        model.mean_head.bias.add_(0.5 * torch.exp(0.5 * model.log_var_head.bias))
        model.log_var_head.bias.add_(0.7)
    return model


def test_the_importance_weighted_bound_grows_to_the_likelihood(loose, fitted):
    x = fitted.x[:60]
    exact = marginal(loose).log_prob(x.squeeze(-1)).mean()
    sizes = (1, 2, 5, 20, 100)
    runs = torch.stack(
        [
            torch.stack(
                [
                    loose.importance_weighted_bound(
                        x, size, generator=torch.Generator().manual_seed(seed)
                    ).mean()
                    for size in sizes
                ]
            )
            for seed in range(12)
        ]
    )
    steps = runs.diff(dim=1)  # the same draws of noise, and more of them
    error = steps.std(0) / math.sqrt(len(steps))
    assert bool((steps.mean(0) > -2.0 * error).all())
    assert float(runs[:, 0].mean()) < float(exact) - 0.1
    bound = loose.importance_weighted_bound(x, 1000, common_noise=False).mean()
    assert float(bound) == pytest.approx(float(exact), abs=0.002 * N_STEPS)
    assert exact_elbo(loose, x) < float(bound)


def test_the_bound_of_a_perfect_posterior_is_exact_at_any_size(fitted):
    exact = marginal(fitted.model).log_prob(fitted.x.squeeze(-1))
    bound = fitted.model.importance_weighted_bound(fitted.x, 1)
    torch.testing.assert_close(bound, exact, rtol=0.0, atol=0.02 * N_STEPS)


@pytest.mark.parametrize("chunk_size", [1, 7, 10_000])
def test_the_bound_by_hand_whatever_the_chunks(loose, fitted, chunk_size):
    x, size = fitted.x[:4], 5
    generator = torch.Generator().manual_seed(2)
    bound = loose.importance_weighted_bound(x, size, generator=generator, chunk_size=chunk_size)
    generator = torch.Generator().manual_seed(2)
    noise = torch.stack(
        [torch.randn(N_LATENT, generator=generator, dtype=torch.float64) for _ in range(size)]
    )
    mu, log_var = loose.posterior(loose.features(x))
    q = torch.distributions.Normal(mu.unsqueeze(1), torch.exp(0.5 * log_var).unsqueeze(1))
    z = mu.unsqueeze(1) + noise * q.scale
    p_z = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    scale = loose.observation.parameters_at(torch.zeros(1, 1).double()).scale
    x_hat = loose.decode(z).x_hat
    p_x = torch.distributions.Normal(x_hat, scale).log_prob(x.unsqueeze(1)).sum((-2, -1))
    weights = p_x + p_z - q.log_prob(z).sum(-1)
    torch.testing.assert_close(bound, torch.logsumexp(weights, 1) - math.log(size))


def test_a_records_bound_does_not_depend_on_the_others(loose, fitted):
    together = loose.importance_weighted_bound(fitted.x[:5], 10)
    alone = torch.cat([loose.importance_weighted_bound(x[None], 10) for x in fitted.x[:5]])
    torch.testing.assert_close(together, alone)


def test_the_iwae_objective_is_the_bound(loose, fitted):
    x = fitted.x[:40]
    model = linear_vae(x, objective="iwae")
    model.load_state_dict(loose.state_dict())
    assert model.n_samples == 5
    output = model(x, S=5)
    result = model.compute_loss(x, output)
    q = torch.distributions.Normal(output.mu, torch.exp(0.5 * output.log_var))
    scale = model.observation.parameters_at(torch.zeros(1, 1).double()).scale
    weights = (
        torch.distributions.Normal(output.x_hat, scale).log_prob(x.unsqueeze(1)).sum((-2, -1))
        + torch.distributions.Normal(0.0, 1.0).log_prob(output.z).sum(-1)
        - q.log_prob(output.z).sum(-1)
    )
    bound = (torch.logsumexp(weights, 1) - math.log(5)).mean()
    torch.testing.assert_close(-result.objective * N_STEPS, bound)
    torch.testing.assert_close(result.diagnostics["importance_weighted_bound"], bound)
    assert float(bound.detach()) > exact_elbo(loose, x)
