"""Ladder VAE against torch.distributions, against the plain VAE, and its passes."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tsvae.models import VAE, HierarchicalVAE
from tsvae.models.ladder import Gaussian, Ladder, merge_gaussians
from tsvae.nn import MLPDecoder, MLPEncoder
from tsvae.training import TrainingConfig, train


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def shake(model, seed=5):
    """Priors and variances away from their start, where they are all standard."""
    with torch.no_grad():
        for head in (*model.ladder.log_var_heads, *model.ladder.prior_heads):
            head.weight.copy_(0.3 * draws(*head.weight.shape, seed=seed))
            head.bias.copy_(0.3 * draws(*head.bias.shape, seed=seed + 1))
    return model


def perceptron(n_levels=2, steps=6, features=1, **options):
    options = {"hidden_sizes": (8, 5), "latent_dim": 2} | options
    model = HierarchicalVAE.perceptron(features, steps, n_levels=n_levels, **options)
    return shake(model.double().build(draws(2, steps, features)))


def convolutional(n_levels=2, steps=11, features=2, **options):
    options = {"hidden_sizes": (4, 5, 6), "latent_dim": 2, "batch_norm": False} | options
    model = HierarchicalVAE.convolutional(features, steps, n_levels=n_levels, **options)
    return shake(model.double().build(draws(2, steps, features)))


def test_merging_is_the_normalised_product_of_two_normals():
    one, other = Gaussian(draws(5), draws(5, seed=1)), Gaussian(draws(5, seed=2), draws(5, seed=3))
    merged = merge_gaussians(one, other)
    precision = (-one.log_var).exp() + (-other.log_var).exp()
    mu = (one.mu * (-one.log_var).exp() + other.mu * (-other.log_var).exp()) / precision
    torch.testing.assert_close(merged.mu, mu)
    torch.testing.assert_close(merged.log_var.exp(), 1 / precision)
    extreme = merge_gaussians(Gaussian(one.mu, one.log_var - 700), Gaussian(other.mu, one.log_var))
    torch.testing.assert_close(extreme.mu, one.mu)


def test_one_level_is_the_plain_vae():
    encoder, decoder = MLPEncoder(1, 6, (8,)).double(), MLPDecoder(3, 6, 1, (8,)).double()
    options = {"annealing_steps": 10, "free_bits": 0.1, "n_samples": 4}
    ladder = HierarchicalVAE(
        Ladder([encoder], [], (3,)), decoder, generator=generator(7), **options
    )
    plain = VAE(encoder, decoder, 3, generator=generator(7), **options)
    x = draws(5, 6, 1)
    ladder.build(x), plain.build(x)
    for step in (0, 5, 20):
        ours, theirs = (model.training_step({"x": x}, step) for model in (ladder, plain))
        torch.testing.assert_close(ours.objective, theirs.objective)
        for name, value in theirs.diagnostics.items():
            # The divergence of a channel is that of a channel of a level.
            mine = name.replace("kl_", "kl_level_1_") if name[3:].isdigit() else name
            torch.testing.assert_close(ours.diagnostics[mine], value)
    bounds = [m.importance_weighted_bound(x, 9, chunk_size=6) for m in (ladder, plain)]
    torch.testing.assert_close(*bounds)
    torch.testing.assert_close(ladder.eval().encode(x).z, plain.eval().encode(x).z)


def by_hand(model, x, z_levels, skip):
    """Posteriors and priors of each level from the modules, one level at a time."""
    ladder = model.ladder
    features, h = [], x
    for encoder in ladder.encoders:
        h = encoder(h)
        features.insert(0, h)
    laws, state = [], None
    for i, z in enumerate(z_levels):
        mu, var = ladder.mean_heads[i](features[i]), ladder.log_var_heads[i](features[i]).exp()
        if i == 0:
            prior = Normal(torch.zeros_like(mu), torch.ones_like(mu))
            above = None
        else:
            above = ladder.expanders[i - 1](state)
            prior_mu, prior_log_var = ladder.prior_heads[i - 1](above).chunk(2, -1)
            prior_var = prior_log_var.exp()
            prior = Normal(prior_mu, prior_var.sqrt())
            precision = 1 / var + 1 / prior_var
            mu, var = (mu / var + prior_mu / prior_var) / precision, 1 / precision
        laws.append((Normal(mu, var.sqrt()), prior))
        state = torch.cat((z, above), -1) if skip and above is not None else z
    return laws, state


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("make", [perceptron, convolutional])
def test_kl_of_every_level_against_torch_distributions(make, skip):
    model = make(n_levels=3, skip=skip, scale="fixed")
    x = draws(4, *model.record_shape)
    output = model(x)
    result = model.compute_loss(x, output, beta=0.7)
    laws, state = by_hand(model, x, model.split_levels(output.z[:, 0]), skip)
    kl = [kl_divergence(q, p).flatten(1).sum(1).mean() for q, p in laws]
    assert len({round(float(value.detach()), 6) for value in kl}) == 3
    for i, value in enumerate(kl, start=1):
        torch.testing.assert_close(result.diagnostics[f"kl_level_{i}"], value.detach())
    torch.testing.assert_close(output.x_hat[:, 0], model.decoder(state))
    log_prob = Normal(output.x_hat[:, 0], 1.0).log_prob(x).flatten(1).sum(1).mean()
    size = model.record_shape[0] * model.record_shape[1]
    torch.testing.assert_close(result.objective, (0.7 * sum(kl) - log_prob) / size)


def test_draws_follow_the_posterior_of_every_level():
    model = perceptron()
    x = draws(1, 6, 1)
    output = model(x, S=4000)
    standard = (output.z - output.mu) / (0.5 * output.log_var).exp()
    assert standard.mean((0, 1)).abs().max() < 0.08
    assert (standard.std((0, 1)) - 1).abs().max() < 0.06
    # The finer level's posterior depends on the coarser draw, the coarser one's does not.
    spread = output.mu.std((0, 1))
    assert (spread[:2] < 1e-12).all()
    assert (spread[2:] > 1e-3).all()


def test_evaluation_is_deterministic_and_takes_means():
    model = perceptron().eval()
    x = draws(4, 6, 1)
    output = model(x, S=2)
    torch.testing.assert_close(output.z, output.mu)
    assert torch.equal(output.z, model.encode(x, S=2).z)
    torch.testing.assert_close(output.z[:, 0], output.z[:, 1])
    torch.testing.assert_close(model.decode(output.z).x_hat, output.x_hat)


@pytest.mark.parametrize("steps", [1, 5, 8, 33])
def test_maps_of_any_length(steps):
    model = convolutional(n_levels=3, steps=steps)
    sizes = [-(-steps // 2**k) for k in (3, 2, 1)]
    assert model.level_shapes == tuple((size, 2) for size in sizes)
    x = draws(3, steps, 2)
    output = model(x, S=2)
    assert output.x_hat.shape == (3, 2, steps, 2)
    assert output.z.shape == output.prior_mu.shape == (3, 2, 2 * sum(sizes))
    assert model.n_latent == 2 * sum(sizes)
    parts = model.split_levels(output.z)
    assert torch.equal(torch.cat([part.flatten(2) for part in parts], -1), output.z)


def test_samples_of_the_prior_go_top_down():
    model = perceptron()
    z = model.sample_prior(5000, generator())
    coarse, fine = model.split_levels(z)
    mu, log_var = model.ladder.prior_heads[0](model.ladder.expanders[0](coarse)).chunk(2, -1)
    standard = (fine - mu) / (0.5 * log_var).exp()
    for values in (coarse, standard):
        assert values.mean(0).abs().max() < 0.07
        assert (values.std(0) - 1).abs().max() < 0.05
    assert model.decode(z[:7]).x_hat.shape == (7, 6, 1)
    assert torch.equal(z, model.sample_prior(5000, generator()))


def test_bound_by_hand_and_independent_of_chunks_and_company():
    model = perceptron(scale="fixed")
    x = draws(4, 6, 1)
    codes = model.ladder.infer(x, 5, [torch.cat([n] * 4) for n in common_noise(model, 5)])
    log_q = sum(gaussian(z, law) for z, law in zip(codes.z, codes.posterior, strict=True))
    log_p = sum(gaussian(z, law) for z, law in zip(codes.z, codes.prior, strict=True))
    x_hat = model.decoder(codes.top_down)
    log_x = Normal(x_hat, 1.0).log_prob(x.repeat_interleave(5, 0)).flatten(1).sum(1)
    expected = torch.logsumexp((log_x + log_p - log_q).reshape(4, 5), 1) - torch.tensor(5.0).log()
    bound = model.importance_weighted_bound(x, 5)
    torch.testing.assert_close(bound, expected.detach())
    for chunk_size in (1, 3, 7):
        chunks = model.importance_weighted_bound(x, 5, chunk_size=chunk_size)
        torch.testing.assert_close(chunks, bound)
    torch.testing.assert_close(model.importance_weighted_bound(x[2:3], 5), bound[2:3])
    many = x[:1].expand(800, -1, -1)  # averages over independent draws of one record
    means = [
        model.importance_weighted_bound(many, n, generator=generator(), common_noise=False).mean()
        for n in (1, 5, 50)
    ]
    assert means[0] < means[1] < means[2]


def common_noise(model, n):
    source = generator()
    rows = [model.ladder.noise(1, source) for _ in range(n)]
    return [torch.cat(level) for level in zip(*rows, strict=True)]


def gaussian(z, law):
    return Normal(law.mu, (0.5 * law.log_var).exp()).log_prob(z).flatten(1).sum(1)


def test_importance_weighted_objective():
    model = perceptron(objective="iwae", scale="fixed")
    x = draws(4, 6, 1)
    output = model(x, S=3)
    result = model.compute_loss(x, output)
    ratio = Normal(output.prior_mu, (0.5 * output.prior_log_var).exp()).log_prob(output.z)
    ratio = ratio - Normal(output.mu, (0.5 * output.log_var).exp()).log_prob(output.z)
    log_x = Normal(output.x_hat, 1.0).log_prob(x[:, None]).flatten(2).sum(2)
    bound = torch.logsumexp(log_x + ratio.sum(2), 1) - torch.tensor(3.0).double().log()
    torch.testing.assert_close(result.objective, -bound.mean() / 6)


@pytest.mark.parametrize("make", [perceptron, convolutional])
def test_gradients_are_finite_and_reach_every_parameter(make):
    model = make(n_levels=3)
    x = draws(4, *model.record_shape)
    model.training_step({"x": x}, 10_000).objective.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert bool((parameter.grad != 0).any()), name


def test_training_improves_and_float32_works():
    model = HierarchicalVAE.convolutional(
        1, 16, 2, hidden_sizes=(8, 8), annealing_steps=20, generator=generator(1)
    )
    phase = torch.rand(64, 1, 1, generator=generator()) * 6.3
    x = torch.sin(phase + torch.arange(16.0)[None, :, None] * 0.6)
    model.build(x)
    config = TrainingConfig(max_epochs=60, learning_rate=0.01, device="cpu")
    before = model.importance_weighted_bound(x, 10).mean()
    train(model, lambda epoch, random: [{"x": x}], config=config, generator=generator())
    assert model.importance_weighted_bound(x, 10).mean() > before + 5.0
    assert model.active_units(x).active.any()
    assert model.active_units(x, criterion="variance").criterion.shape == (model.n_latent,)


def test_missing_entries_change_nothing():
    model = perceptron(mask_input=True).eval()
    x, mask = draws(4, 6, 1), torch.rand(4, 6, 1, generator=generator()) > 0.3
    poisoned = torch.where(mask, x, torch.nan)
    results = [model.training_step({"x": v, "mask": mask}, 0).objective for v in (x, poisoned)]
    assert torch.isfinite(results[1])
    assert torch.equal(*results)
    bounds = [model.importance_weighted_bound(v, 3, mask) for v in (x, poisoned)]
    assert torch.equal(*bounds)


def test_one_latent_dim_per_level():
    model = perceptron(latent_dim=(1, 3))
    assert model.level_shapes == ((1,), (3,))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: HierarchicalVAE.perceptron(1, 6)(draws(2, 6, 1)),
            RuntimeError,
            r"build\(sample\)",
        ),
        (lambda: HierarchicalVAE.perceptron(1, 6).level_shapes, RuntimeError, r"build\(sample\)"),
        (lambda: convolutional(n_levels=4), ValueError, "at least as many stages"),
        (lambda: perceptron(latent_dim=(1, 2, 3)), ValueError, "one per level"),
        (lambda: perceptron(n_levels=0), ValueError, "n_levels"),
        (lambda: perceptron(mmd_weight=1.0), TypeError, "mmd_weight"),
        (lambda: HierarchicalVAE(MLPEncoder(1, 6), MLPDecoder(2, 6, 1)), TypeError, "ladder"),
        (lambda: Ladder([MLPEncoder(1, 6)], [], (2, 2)), ValueError, "n levels"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_networks_that_do_not_fit_are_named():
    ladder = Ladder(
        [torch.nn.Identity(), torch.nn.AvgPool2d((2, 1))], [torch.nn.Identity()], (1, 1)
    )
    model = HierarchicalVAE(ladder, torch.nn.Identity())
    with pytest.raises(ValueError, match="expander 0"):
        model.build(draws(2, 6, 1))
    with pytest.raises(RuntimeError, match=r"build\(sample\)"):
        model(draws(2, 6, 1))


def test_same_generator_same_model_and_pickling():
    before = torch.get_rng_state()
    one, other = (perceptron(generator=generator(4)) for _ in range(2))
    copy = pickle.loads(pickle.dumps(one))
    fresh = perceptron()
    fresh.load_state_dict(one.state_dict())
    x = draws(3, 6, 1)
    results = [model(x, S=2).z for model in (one, other, copy)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert torch.equal(one.eval()(x).x_hat, fresh.eval()(x).x_hat)
    draw = [m.sample_posterior(x, 2, generator=generator()) for m in (one, copy)]
    assert torch.equal(*draw)
    assert torch.equal(before, torch.get_rng_state())
