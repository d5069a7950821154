"""The VAE's own parts: KL, annealing, free bits, penalty, diagnostics, draws."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tsvae.models import VAE, maximum_mean_discrepancy
from tsvae.nn import MLPDecoder, MLPEncoder

B, T, F, D = 7, 5, 2, 3


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


X = draw(B, T, F)


def make(**options):
    """A model whose posterior differs from the prior in every entry but the last."""
    options = {"scale": "fixed", "annealing_steps": 0, **options}
    model = VAE(MLPEncoder(F, T, (6,)), MLPDecoder(D, T, F, (6,)), D, **options).double().build(X)
    with torch.no_grad():
        model.log_var_head.weight.copy_(0.3 * draw(*model.log_var_head.weight.shape, seed=4))
        model.log_var_head.bias.copy_(torch.tensor([-1.0, -0.5, 0.0]))
        for head in (model.log_var_head, model.mean_head):
            head.weight[-1] = 0.0
    return model


def parts(model, output):
    """Log-likelihood (B, S) and KL (B, D), by torch.distributions."""
    log_prob = Normal(output.x_hat, 1.0).log_prob(X.unsqueeze(1)).sum((-2, -1))
    q = Normal(output.mu[:, 0], torch.exp(0.5 * output.log_var[:, 0]))
    return log_prob, kl_divergence(q, Normal(torch.zeros_like(q.loc), 1.0))


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("S", [1, 4])
def test_the_loss_is_the_weighted_bound_per_value(beta, S):
    model = make()
    output = model(X, S=S)
    result = model.compute_loss(X, output, beta=beta)
    log_prob, kl = parts(model, output)
    expected = -(log_prob.mean() - beta * kl.sum(1).mean()) / (T * F)
    torch.testing.assert_close(result.objective, expected)
    diagnostics = result.diagnostics
    torch.testing.assert_close(diagnostics["log_likelihood"], log_prob.mean().detach())
    torch.testing.assert_close(diagnostics["kl_divergence"], kl.sum(1).mean().detach())
    assert diagnostics["rate"] == diagnostics["kl_divergence"]
    assert diagnostics["distortion"] == -diagnostics["log_likelihood"]
    assert float(diagnostics["active_units"]) == 2.0
    assert float(diagnostics["weight"]) == B
    assert not any(value.requires_grad for value in diagnostics.values())


def test_codes_in_train_mode_are_draws_from_the_posterior():
    model = make()
    output = model(X, S=20_000)
    std = torch.exp(0.5 * output.log_var[:, 0])
    assert bool(((output.z.mean(1) - output.mu[:, 0]).abs() < 5 * std / 20_000**0.5).all())
    torch.testing.assert_close(output.z.std(1), std, rtol=0.03, atol=0.0)
    z = model.eval().sample_posterior(X, 20_000)
    torch.testing.assert_close(z.std(1), std.detach(), rtol=0.03, atol=0.0)
    assert not model.training
    one, two = (
        model.sample_posterior(X, 2, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(one, two)


def test_annealing_is_linear_over_10_000_steps_by_default():
    model = make(annealing_steps=10_000, beta=4.0)
    betas = [
        float(model.training_step({"x": X}, s).diagnostics["beta"]) for s in (0, 5_000, 20_000)
    ]
    assert betas == pytest.approx([0.0, 2.0, 4.0])
    default = VAE(MLPEncoder(F, T), MLPDecoder(D, T, F), D)
    assert default.beta_schedule.complete_step == 10_000
    assert default.beta_schedule.beta_max == 1.0
    model.eval()
    assert float(model.training_step({"x": X}, 0).diagnostics["beta"]) == 4.0


def test_without_a_kl_term_the_criterion_has_none_either():
    model = make(beta=0.0, mmd_weight=3.0).eval()
    result = model.training_step({"x": X}, 0)
    expected = 3.0 * result.diagnostics["mmd"] - result.diagnostics["log_likelihood"]
    torch.testing.assert_close(result.objective.detach(), expected / (T * F))


def test_free_bits_are_free_in_training_alone():
    model = make(free_bits=0.5)
    output = model(X)
    log_prob, kl = parts(model, output)
    paid = sum(max(0.5, float(mean)) for mean in kl.mean(0).detach())
    result = model.compute_loss(X, output, beta=2.0)
    expected = (2.0 * paid - float(log_prob.mean().detach())) / (T * F)
    assert result.objective.item() == pytest.approx(expected)
    torch.testing.assert_close(result.diagnostics["kl_divergence"], kl.sum(1).mean().detach())
    model.eval()
    expected = (2.0 * kl.sum(1).mean() - log_prob.mean()) / (T * F)
    torch.testing.assert_close(model.compute_loss(X, output, beta=2.0).objective, expected)


def test_the_penalty_is_the_mmd_between_codes_and_prior():
    plain, model = make(), make(mmd_weight=10.0, mmd_kernel="rbf")
    output = model(X, S=2)
    state = model.generator.get_state()
    result = model.compute_loss(X, output)
    generator = torch.Generator()
    generator.set_state(state)
    prior = torch.randn(B * 2, D, generator=generator, dtype=torch.float64)
    mmd = maximum_mean_discrepancy(output.z.flatten(0, 1), prior, "rbf")
    torch.testing.assert_close(result.diagnostics["mmd"], mmd.detach())
    difference = result.objective - plain.compute_loss(X, output).objective
    torch.testing.assert_close(difference, 10.0 * mmd / (T * F))


def test_kl_per_dimension_and_active_units():
    model = make().eval()
    output = model(X)
    _, kl = parts(model, output)
    torch.testing.assert_close(model.kl_per_dimension(X), kl.mean(0).detach())
    by_kl = model.active_units(X)
    assert by_kl.active.tolist() == [True, True, False]
    torch.testing.assert_close(by_kl.criterion, kl.mean(0).detach())
    by_variance = model.active_units(X, criterion="variance")
    torch.testing.assert_close(by_variance.criterion, output.mu[:, 0].var(0, correction=0).detach())
    assert by_variance.active.tolist() == [True, True, False]
    assert not model.active_units(X, threshold=1e9).active.any()
    with pytest.raises(ValueError, match="'kl' or 'variance', got 'mean'"):
        model.active_units(X, criterion="mean")


def test_draws_from_the_prior_decode_to_records():
    model = make().eval()
    z = model.sample_prior(4000, torch.Generator().manual_seed(0))
    assert z.shape == (4000, D) and z.dtype == torch.float64
    torch.testing.assert_close(z.std(0), torch.ones(D).double(), rtol=0.05, atol=0.0)
    assert model.decode(z[:3]).x_hat.shape == (3, T, F)


def test_masked_records_have_the_bound_of_what_is_observed():
    model = make().eval()
    mask = draw(B, T, F, seed=3) > 0
    junk = torch.where(mask, X, torch.nan)
    bound = model.importance_weighted_bound(junk, 20, mask)
    torch.testing.assert_close(bound, model.importance_weighted_bound(X, 20, mask))
    torch.testing.assert_close(model.kl_per_dimension(junk, mask), model.kl_per_dimension(X, mask))
    nothing = model.importance_weighted_bound(X, 2000, torch.zeros_like(mask))
    assert float(nothing.abs().max()) < 0.1  # log of an empty product is 0


def test_a_likelihood_may_be_named_for_one_loss():
    model = make()
    output = model(X)
    result = model.compute_loss(X, output, likelihood="laplace")
    expected = torch.distributions.Laplace(output.x_hat, 1.0).log_prob(X.unsqueeze(1))
    torch.testing.assert_close(
        result.diagnostics["log_likelihood"], expected.sum((-2, -1)).mean().detach()
    )
    with pytest.raises(ValueError, match="likelihood='huber' is not known"):
        model.compute_loss(X, output, likelihood="huber")


def test_bernoulli_locations_are_logits():
    model = make(likelihood="bernoulli")
    x = (X > 0).double()
    output = model(x)
    expected = torch.distributions.Bernoulli(logits=output.x_hat).log_prob(x.unsqueeze(1))
    result = model.compute_loss(x, output)
    torch.testing.assert_close(
        result.diagnostics["log_likelihood"], expected.sum((-2, -1)).mean().detach()
    )
    torch.testing.assert_close(model.expected_values(output.x_hat), torch.sigmoid(output.x_hat))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"objective": "map"}, ValueError, "'elbo' or 'iwae', got 'map'"),
        ({"beta": -1.0}, ValueError, "beta must be a finite number >= 0, got -1.0"),
        ({"free_bits": float("nan")}, ValueError, "free_bits must be a finite number"),
        ({"mmd_weight": -0.1}, ValueError, "mmd_weight must be a finite number"),
        ({"mmd_kernel": "cosine"}, ValueError, "'imq' or 'rbf'"),
        ({"objective": "iwae", "free_bits": 0.5}, ValueError, "free_bits needs the KL term"),
        ({"annealing_steps": -1}, ValueError, "annealing_steps must be at least 0"),
        ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
        ({"momentum": 1}, TypeError, "momentum"),
    ],
)
def test_settings_are_checked(options, error, words):
    with pytest.raises(error, match=words):
        make(**options)
