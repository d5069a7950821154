"""VQ-VAE: gradients, codebook in training, codes, prior, generation."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import nn

from tsvae.models import VQVAE, MarkovCodePrior
from tsvae.training import TrainingConfig, train


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def linear(n_in, n_out, seed=0, dtype=torch.float64):
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(draws(n_out, n_in, seed=seed))
        layer.bias.copy_(draws(n_out, seed=seed + 1))
    return layer


def flat_networks(steps=6, latent=8, dtype=torch.float64):
    encoder = nn.Sequential(nn.Flatten(), linear(steps, 5, dtype=dtype), nn.Tanh())
    decoder = nn.Sequential(linear(latent, steps, 4, dtype=dtype), nn.Unflatten(1, (steps, 1)))
    return encoder, decoder


def map_model(n_codes=4, dtype=torch.float64, features=2, **options):
    model = VQVAE(
        linear(options.pop("width", features), 5, dtype=dtype),
        linear(3, features, 7, dtype=dtype),
        latent_dim=3,
        n_codes=n_codes,
        **options,
    )
    return model.build(draws(2, 6, features, dtype=dtype))


def test_encoder_gradient_equals_finite_differences_of_the_surrogate():
    """The whole model's loss as a function of one weight, codes and shift held where they are."""
    model = map_model(scale="fixed", commitment_weight=0.4)
    model.codebook.started.fill_(True)
    x, weight = draws(4, 6, 2), model.encoder.weight
    output = model(x)
    codes, mu = output.codes, output.mu.detach()
    shift = output.z.detach() - mu
    z_q = output.z.detach()
    model.compute_loss(x, output).objective.backward()

    def surrogate():
        mu = model.head(model.encoder(x)).unsqueeze(1)
        x_hat = model.decoder((mu + shift).flatten(0, 1)).unsqueeze(1)
        log_prob = torch.distributions.Normal(x_hat, 1.0).log_prob(x.unsqueeze(1)).sum((-2, -1))
        commitment = ((mu - z_q) ** 2).flatten(1).sum(1)
        return (-log_prob.mean() + 0.4 * commitment.mean()) / 12

    assert codes.shape == (4, 6)
    with torch.no_grad():
        for index in [(0, 0), (2, 1), (4, 0)]:
            step, kept = 1e-6, weight[index].clone()
            weight[index] = kept + step
            up = surrogate()
            weight[index] = kept - step
            down = surrogate()
            weight[index] = kept
            numeric = (up - down) / (2 * step)
            torch.testing.assert_close(weight.grad[index], numeric, rtol=1e-5, atol=1e-8)


def test_loss_and_diagnostics_by_hand():
    model = map_model(scale="fixed").eval()
    x = draws(4, 6, 2)
    output = model(x)
    result = model.compute_loss(x, output)
    log_prob = torch.distributions.Normal(output.x_hat[:, 0], 1.0).log_prob(x).sum((1, 2)).mean()
    commitment = ((output.mu - output.z) ** 2).sum((1, 2, 3)).mean()
    share = torch.bincount(output.codes.flatten(), minlength=4) / 24
    perplexity = math.exp(-sum(p * math.log(p) for p in share.tolist() if p))
    torch.testing.assert_close(result.objective, (-log_prob + 0.25 * commitment) / 12)
    torch.testing.assert_close(result.diagnostics["log_likelihood"], log_prob.detach())
    assert float(result.diagnostics["kl_divergence"]) == pytest.approx(6 * math.log(4))
    assert float(result.diagnostics["perplexity"]) == pytest.approx(perplexity, rel=1e-6)


def test_z_is_the_nearest_code_vector_and_codes_decode():
    model = map_model().eval()
    x = draws(4, 6, 2)
    encoded = model.encode(x, S=2)
    assert encoded.z.shape == encoded.mu.shape == (4, 2, 6, 3)
    distance = torch.cdist(encoded.mu[:, 0], model.codebook.vectors)
    assert torch.equal(distance.argmin(-1), encoded.codes)
    torch.testing.assert_close(model.embed_codes(encoded.codes), encoded.z[:, 0])
    torch.testing.assert_close(model.decode_codes(encoded.codes).x_hat, model(x).x_hat[:, 0])
    assert encoded.log_var is None


def test_training_passes_move_the_codebook_and_evaluation_does_not():
    model = map_model()
    x = draws(4, 6, 2)
    before = model.codebook.vectors.clone()
    model.encode(x)
    model.eval().training_step({"x": x}, 0)
    assert torch.equal(model.codebook.vectors, before)
    model.train().training_step({"x": x}, 0)
    assert bool(model.codebook.started)
    rows = {tuple(row) for row in model.encode(x).mu.flatten(0, 2).tolist()}
    started = model.codebook.vectors.clone()
    assert not torch.equal(started, before)
    assert rows  # placed on outputs, then one moving-average step towards their means
    model.training_step({"x": x}, 1)
    assert not torch.equal(model.codebook.vectors, started)


def test_vector_latents_are_cut_into_codes():
    model = VQVAE(*flat_networks(), latent_dim=8, latent="vector", n_codes=5)
    model.build(draws(2, 6, 1)).eval()
    x = draws(3, 6, 1)
    encoded = model.encode(x)
    assert encoded.codes.shape == (3, 2)  # code_dim 4
    assert encoded.z.shape == (3, 1, 8)
    vectors = model.codebook.vectors[encoded.codes].reshape(3, 8)
    torch.testing.assert_close(encoded.z[:, 0], vectors)
    assert model.flatten_codes(encoded.z).shape == (3, 1, 8)


def test_missing_entries_change_nothing():
    model = map_model(mask_input=True, width=4).eval()
    x, mask = draws(4, 6, 2), torch.rand(4, 6, 2, generator=generator()) > 0.3
    poisoned = torch.where(mask, x, torch.nan)
    results = [model.training_step({"x": value, "mask": mask}, 0) for value in (x, poisoned)]
    assert torch.isfinite(results[1].objective)
    assert torch.equal(results[0].objective, results[1].objective)
    assert not torch.equal(model.encode(x).codes, model.encode(x, mask).codes)


def test_learns_and_generates_what_it_has_seen():
    """Records of two kinds, half on and half off: samples must be of these two kinds."""
    kinds = torch.tensor([[1.0] * 3 + [-1.0] * 3, [-1.0] * 3 + [1.0] * 3])
    kind = torch.randint(0, 2, (200,), generator=generator())
    x = (kinds[kind] + 0.05 * draws(200, 6, dtype=torch.float32)).unsqueeze(-1)
    model = map_model(n_codes=8, dtype=torch.float32, features=1, scale="calibrated")

    def batches(epoch, random):
        order = torch.randperm(200, generator=random)
        return [{"x": x[part]} for part in order.split(50)]

    config = TrainingConfig(max_epochs=40, learning_rate=0.02, device="cpu")
    log = train(model, batches, config=config, generator=generator())
    assert log.rows[-1]["objective"] < log.rows[0]["objective"]
    model.eval()
    error = (model(x).x_hat[:, 0] - x).square().mean().sqrt()
    assert bool(error < 0.15)
    uniform = model.importance_weighted_bound(x).mean()
    model.fit_prior(model.encode(x).codes)
    assert model.importance_weighted_bound(x).mean() > uniform + 3.0
    new = model.decode(model.sample_prior(100, generator(1))).x_hat
    distance = (new.squeeze(-1)[:, None] - kinds).abs().amax(-1).amin(-1)
    assert (distance < 0.4).float().mean() > 0.85  # 2 in 64 by chance


def test_bound_adds_the_priors_log_probability():
    model = map_model(scale="fixed").eval()
    x = draws(30, 6, 2)
    output = model(x)
    codes = output.codes
    model.fit_prior(codes)
    log_prob = torch.distributions.Normal(output.x_hat[:, 0], 1.0).log_prob(x).sum((1, 2))
    expected = log_prob + MarkovCodePrior(4, 2).fit(codes).log_prob(codes)
    torch.testing.assert_close(model.importance_weighted_bound(x), expected)
    kl = model.compute_loss(x, output).diagnostics["kl_divergence"]
    torch.testing.assert_close(kl, -model.prior.log_prob(codes).mean())


def test_autoregressive_prior():
    model = map_model(
        prior="autoregressive", prior_options={"hidden_size": 8, "max_epochs": 2}
    ).eval()
    assert not any(p.requires_grad for p in model.prior.parameters())
    assert not model.prior.fitted
    model.fit_prior(model.encode(draws(20, 6, 2)).codes)
    assert model.sample_codes(5, generator()).shape == (5, 6)
    assert not any(p.requires_grad for p in model.prior.parameters())


def test_unbuilt_and_unfitted_say_what_to_call():
    model = VQVAE(linear(2, 5), linear(3, 2), latent_dim=3)
    with pytest.raises(RuntimeError, match=r"build\(sample\)"):
        model(draws(2, 6, 2))
    with pytest.raises(RuntimeError, match="fit_prior"):
        map_model().sample_prior(2)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"code_dim": 2}, ValueError),
        ({"prior": "uniform"}, ValueError),
        ({"prior": 3}, TypeError),
        ({"prior": MarkovCodePrior(5)}, ValueError),
        ({"commitment_weight": -1.0}, ValueError),
        ({"n_codes": 0}, ValueError),
    ],
)
def test_bad_options_are_named(options, error):
    with pytest.raises(error, match=next(iter(options))):
        VQVAE(linear(2, 5), linear(3, 2), latent_dim=3, **options)


def test_pickle_and_state_dict_keep_the_fitted_model():
    model = map_model()
    x = draws(20, 6, 2)
    model.training_step({"x": x}, 0)
    model.eval().fit_prior(model.encode(x).codes)
    copy = pickle.loads(pickle.dumps(model))
    fresh = map_model().eval()
    fresh.load_state_dict(model.state_dict())
    for other in (copy, fresh):
        assert torch.equal(other(x).x_hat, model(x).x_hat)
        codes = other.sample_codes(6, generator(3))
        assert torch.equal(codes, model.sample_codes(6, generator(3)))


def test_same_generator_same_model_and_the_global_one_is_left_alone():
    before = torch.get_rng_state()
    models = []
    for _ in range(2):
        model = map_model(generator=generator(5))
        for step in range(3):
            model.training_step({"x": draws(4, 6, 2)}, step)
        models.append(model.codebook.vectors)
    assert torch.equal(*models)
    assert torch.equal(before, torch.get_rng_state())
