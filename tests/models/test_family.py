"""What all members of the autoencoder family share, tried on the autoencoder and the VAE."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from tsvae.models import VAE, Autoencoder
from tsvae.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from tsvae.training import TrainingConfig, train

MODELS = [Autoencoder, VAE]


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def conv_model(kind, n_steps=21, n_features=2, latent="vector", **options):
    channels = n_features * (2 if options.get("mask_input") else 1)
    encoder = ConvEncoder(channels, (4, 6), residual=options.pop("residual", False))
    decoder = ConvDecoder(3, n_features, n_steps, (6, 4), latent=latent)
    return kind(encoder, decoder, 3, latent=latent, **options)


def built(kind, n_steps=21, n_features=2, **options):
    model = conv_model(kind, n_steps, n_features, **options)
    return model.build(draw(2, n_steps, n_features))


# -- shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("latent", ["vector", "map"])
@pytest.mark.parametrize("n_steps", [1, 2, 5, 16, 21])
def test_shapes_of_all_passes(kind, latent, n_steps):
    model = built(kind, n_steps, latent=latent)
    shape = (3,) if latent == "vector" else ((n_steps + 3) // 4, 3)
    assert model.latent_shape == shape
    assert model.n_latent == torch.Size(shape).numel()
    assert model.record_shape == (n_steps, 2)
    x = draw(4, n_steps, 2, seed=1)
    for mode in (True, False):
        model.train(mode)
        output = model(x, S=5)
        assert output.x_hat.shape == (4, 5, n_steps, 2)
        assert output.z.shape == output.mu.shape == (4, 5, *shape)
        assert (output.log_var is None) == (kind is Autoencoder)
    codes = model.encode(x).z
    assert codes.shape == (4, 1, *shape)
    assert model.decode(codes).x_hat.shape == (4, 1, n_steps, 2)
    torch.testing.assert_close(model.decode(codes[:, 0]).x_hat, model.decode(codes).x_hat[:, 0])
    flat = model.flatten_codes(codes)
    assert flat.shape == (4, 1, model.n_latent)
    assert torch.equal(model.unflatten_codes(flat), codes)


@pytest.mark.parametrize("kind", MODELS)
def test_any_module_serves_as_encoder_and_decoder(kind):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent = nn.GRU(2, 7, batch_first=True)

        def forward(self, x):
            return self.recurrent(x)[0]

    class Out(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, z):
            return self.linear(z)

    model = kind(Rows(), Out(), 3, latent="map").build(draw(2, 9, 2))
    assert model.latent_shape == (9, 3)
    encoder = nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
    lazy = kind(encoder, nn.Sequential(nn.Linear(3, 18), nn.Unflatten(1, (9, 2))), 3)
    assert lazy.build(draw(2, 9, 2))(draw(4, 9, 2)).x_hat.shape == (4, 1, 9, 2)
    result = model.training_step({"x": draw(4, 9, 2)}, 0)
    result.objective.backward()
    assert model.encoder.recurrent.weight_hh_l0.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("residual", [False, True])
def test_a_batch_of_one_record_of_one_step_trains(kind, residual):
    model = built(kind, 1, 1, residual=residual)
    result = model.training_step({"x": draw(1, 1, 1)}, 0)
    result.objective.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("kind", MODELS)
def test_float64_all_through(kind):
    x = draw(3, 21, 2, dtype=torch.float64)
    model = conv_model(kind).double().build(x)
    output = model(x, S=2)
    result = model.compute_loss(x, output)
    assert {v.dtype for v in (output.x_hat, output.z, result.objective)} == {torch.float64}
    assert {v.dtype for v in result.diagnostics.values()} == {torch.float64}
    single = conv_model(kind).build(x.float()).double()
    assert single(x).x_hat.dtype == torch.float64


# -- building --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_an_unbuilt_model_says_so(kind):
    model, x = conv_model(kind), draw(2, 21, 2)
    assert not model.is_built
    for use in (
        lambda: model.encode(x),
        lambda: model.decode(x),
        lambda: model(x),
        lambda: model.training_step({"x": x}, 0),
        lambda: model.latent_shape,
        lambda: model.expected_values(x),
    ):
        with pytest.raises(RuntimeError, match=r"not built yet: call build\(sample\)"):
            use()


@pytest.mark.parametrize("kind", MODELS)
def test_building_keeps_modes_statistics_and_random_states(kind):
    model = conv_model(kind).train()
    model.encoder.stages[0].eval()
    before, state = torch.random.get_rng_state(), copy.deepcopy(model.state_dict())
    model.build(draw(4, 21, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert model.training and model.observation.training and model.decoder.training
    assert not model.encoder.stages[0].training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    after = copy.deepcopy(model.state_dict())
    assert model.build(draw(1, 21, 2)) is model
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in after.items())


@pytest.mark.parametrize("kind", MODELS)
def test_the_generator_decides_heads_and_codes(kind):
    def outcome(seed):
        model = built(kind, generator=torch.Generator().manual_seed(seed))
        return model(draw(3, 21, 2), S=2).x_hat

    assert torch.equal(outcome(1), outcome(1))
    assert not torch.equal(outcome(1), outcome(2))


def error_cases():
    enc, dec = ConvEncoder(2, (4,)), ConvDecoder(3, 2, 21, (4,), latent="vector")
    x = draw(2, 21, 2)
    return {
        "decoder length": (
            lambda: VAE(enc, ConvDecoder(3, 2, 20, (4,), latent="vector"), 3).build(x),
            ValueError,
            r"records, \(2, 21, 2\), for codes of shape \(2, 3\), but gave \(2, 20, 2\)",
        ),
        "decoder no tensor": (
            lambda: VAE(enc, nn.LSTM(3, 2), 3).build(x),
            TypeError,
            "decoder must return a tensor, got tuple",
        ),
        "encoder no tensor": (
            lambda: VAE(nn.LSTM(2, 2), dec, 3).build(x),
            TypeError,
            "encoder must return a tensor, got tuple",
        ),
        "map from a vector": (
            lambda: VAE(MLPEncoder(2, 21), dec, 3, latent="map").build(x),
            ValueError,
            r"latent='map' needs an encoder output of shape \(B, L, H\).*got \(2, 128\)",
        ),
        "no module": (lambda: VAE(enc, "mlp", 3), TypeError, "decoder must be a torch.nn.Module"),
        "latent": (lambda: VAE(enc, dec, 3, latent="grid"), ValueError, "'vector' or 'map'"),
        "latent_dim": (lambda: VAE(enc, dec, 0), ValueError, "latent_dim must be at least 1"),
        "likelihood": (
            lambda: Autoencoder(enc, dec, 3, likelihood="cauchy"),
            ValueError,
            "likelihood='cauchy' is not known; choose one of",
        ),
        "calibrated": (
            lambda: VAE(enc, dec, 3, likelihood="student-t", scale="calibrated"),
            ValueError,
            "use scale='learned'",
        ),
        "sigmoid twice": (
            lambda: VAE(enc, MLPDecoder(3, 21, 2, final_sigmoid=True), 3, likelihood="bernoulli"),
            ValueError,
            "set final_sigmoid=False",
        ),
        "sample of records": (lambda: VAE(enc, dec, 3).build(x[0]), ValueError, r"\(B, T, F\)"),
        "sample of integers": (lambda: VAE(enc, dec, 3).build(x.long()), ValueError, "int64"),
        "empty sample": (lambda: VAE(enc, dec, 3).build(x[:0]), ValueError, "at least one record"),
        "built for others": (
            lambda: built(VAE).build(draw(2, 20, 2)),
            ValueError,
            r"built for records of shape \(21, 2\), got \(20, 2\)",
        ),
        "other records": (
            lambda: built(VAE)(draw(2, 20, 2)),
            ValueError,
            r"\(T, F\) = \(21, 2\).*got \(2, 20, 2\)",
        ),
        "other codes": (lambda: built(VAE).decode(draw(2, 4)), ValueError, r"latent = \(3,\)"),
        "flat codes": (lambda: built(VAE).unflatten_codes(draw(2, 4)), ValueError, r"\(..., 3\)"),
        "mask": (
            lambda: built(VAE)(x, mask=torch.ones(2, 21, dtype=torch.bool)),
            ValueError,
            "mask must have the shape of x",
        ),
        "mask channels": (
            lambda: VAE(enc, dec, 3, mask_input=True).build(x),
            ValueError,
            "in_features is twice the number of features",
        ),
        "samples": (lambda: built(VAE)(x, S=0), ValueError, "S must be at least 1"),
    }


@pytest.mark.parametrize("case", list(error_cases()))
def test_errors_say_what_was_expected_and_given(case):
    act, error, words = error_cases()[case]
    with pytest.raises(error, match=words):
        act()


def test_a_build_that_failed_can_be_tried_again():
    model = conv_model(VAE)
    with pytest.raises(ValueError, match="but gave"):
        model.build(draw(2, 20, 2))
    assert not model.is_built
    assert model.build(draw(2, 21, 2)).is_built


# -- masks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("mask_input", [False, True])
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("scale", ["learned", "calibrated"])
def test_what_is_masked_changes_nothing(kind, mask_input, junk, scale):
    x, mask = draw(4, 21, 2), draw(4, 21, 2, seed=7) > 0
    outcomes = []
    for filling in (0.0, junk):
        model = built(kind, mask_input=mask_input, scale=scale)
        filled = torch.where(mask, x, torch.full_like(x, filling))
        result = model.training_step({"x": filled, "mask": mask}, 20_000)
        result.objective.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        outcomes.append((result.objective, *result.diagnostics.values(), *gradients))
    for one, other in zip(*outcomes, strict=True):
        assert torch.equal(one, other)
        assert torch.isfinite(one).all()


def test_the_mask_is_seen_by_an_encoder_that_asks_for_it():
    x, mask = draw(2, 21, 2), draw(2, 21, 2, seed=7) > 0
    given = built(VAE, mask_input=True).encoder_input(x, mask)
    assert torch.equal(given, torch.cat([x * mask, mask.float()], -1))
    assert torch.equal(built(VAE).encoder_input(x, mask), x * mask)
    everything = built(VAE, mask_input=True).encoder_input(x)
    assert torch.equal(everything, torch.cat([x, torch.ones_like(x)], -1))


@pytest.mark.parametrize("kind", MODELS)
def test_only_what_is_visible_reaches_the_codes(kind):
    model = built(kind).eval()
    x, visible = draw(4, 21, 2), draw(4, 21, 2, seed=7) > 0
    asked = ~visible
    other = torch.where(visible, x, x + 1.0)
    batch = {"x": x, "visible": visible, "asked": asked}
    one = model.training_step(batch, 0)
    codes = [model.encode(value, visible).z for value in (x, other)]
    assert torch.equal(*codes)
    two = model.training_step({**batch, "x": other}, 0)
    assert float(one.objective.detach()) != float(
        two.objective.detach()
    )  # what is asked for counts


def test_what_is_asked_for_stands_for_the_whole_record():
    model = built(Autoencoder, scale="fixed").eval()
    x, mask = draw(3, 21, 2), draw(3, 21, 2, seed=7) > -1.0
    asked = mask & (draw(3, 21, 2, seed=8) > 0.5)
    x_hat = model(x, mask=mask).x_hat[:, 0]
    log_prob = torch.distributions.Normal(x_hat, 1.0).log_prob(x)
    parts = [log_prob[b][asked[b]].sum() * mask[b].sum() / asked[b].sum() for b in range(3)]
    result = model.training_step({"x": x, "mask": mask, "asked": asked}, 0)
    torch.testing.assert_close(
        result.diagnostics["log_likelihood"], torch.stack(parts).mean().detach()
    )
    assert float(result.diagnostics["weight"]) == 3.0


def test_clean_targets_are_what_the_loss_compares_with():
    model = built(Autoencoder, scale="fixed").eval()
    x, target, known = draw(3, 21, 2), draw(3, 21, 2, seed=1), draw(3, 21, 2, seed=2) > 0
    x_hat = model(x).x_hat[:, 0]
    log_prob = torch.distributions.Normal(x_hat, 1.0).log_prob(target)
    batch = {"x": x, "target": target}
    objective = model.training_step(batch, 0).objective
    torch.testing.assert_close(objective, -log_prob.mean())
    batch = {"x": x, "target": torch.where(known, target, torch.nan), "target_mask": known}
    objective = model.training_step(batch, 0).objective
    torch.testing.assert_close(objective, -(log_prob * known).mean())


# -- modes, files ----------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_batch_is_reconstructed_from_what_the_encoder_sees(kind, likelihood):
    model = built(kind, likelihood=likelihood).train()
    x = draw(5, 21, 2, seed=1).sigmoid()
    visible = draw(5, 21, 2, seed=2) > 0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = model.reconstruct({"x": x, "visible": visible})
    assert model.training and not result.requires_grad
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()
    x_hat = model(x, mask=visible).x_hat[:, 0]
    expected = x_hat.sigmoid() if likelihood == "bernoulli" else x_hat
    torch.testing.assert_close(result, expected.detach())
    x_hidden = torch.where(visible, x, torch.nan)
    torch.testing.assert_close(model.reconstruct({"x": x_hidden, "mask": visible}), result)


@pytest.mark.parametrize("kind", MODELS)
def test_eval_mode_is_deterministic_and_so_is_the_criterion(kind):
    model = built(kind).eval()
    x = draw(3, 21, 2)
    state = model.generator.get_state()
    one, two = model(x, S=3), model(x, S=3)
    assert torch.equal(one.x_hat, two.x_hat)
    assert torch.equal(one.z, one.mu)
    assert torch.equal(one.x_hat[:, 0], one.x_hat[:, 2])
    losses = [model.training_step({"x": x}, step).objective for step in (0, 50_000)]
    assert torch.equal(*losses)
    assert torch.equal(state, model.generator.get_state())


@pytest.mark.parametrize("kind", MODELS)
def test_no_global_random_numbers_are_used(kind):
    before = torch.random.get_rng_state()
    model = built(kind, n_samples=2)
    model.training_step({"x": draw(3, 21, 2)}, 0).objective.backward()
    model.eval()(draw(3, 21, 2))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", MODELS)
def test_pickled_and_copied_models_go_on_alike(kind):
    model = built(kind, scale="calibrated")
    x = draw(3, 21, 2)
    model.training_step({"x": x}, 0)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(twin(x, S=2).x_hat, copy.deepcopy(model)(x, S=2).x_hat)
    fresh = built(kind, scale="calibrated", generator=torch.Generator().manual_seed(9))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(x).x_hat, model.eval()(x).x_hat)


@pytest.mark.parametrize("kind", MODELS)
def test_the_training_loop_lowers_the_criterion(kind):
    time = torch.linspace(0, 6.28, 21)
    phase = torch.linspace(0, 3, 24)[:, None]
    x = torch.stack([torch.sin(time + phase), torch.cos(time + phase)], -1)
    options = {"annealing_steps": 0} if kind is VAE else {}
    model = conv_model(kind, **options).build(x)
    before = float(model.eval().training_step({"x": x}, 0).objective.detach())
    batch = {"x": x, "mask": torch.ones_like(x, dtype=torch.bool)}
    log = train(
        model,
        lambda epoch, generator: [batch],
        validation_batches=[batch],
        config=TrainingConfig(max_epochs=40, learning_rate=0.02, device="cpu", patience=None),
        generator=torch.Generator().manual_seed(0),
    )
    after = float(model.eval().training_step({"x": x}, 0).objective.detach())
    assert after < before - 0.3
    assert "log_likelihood" in " ".join(log.rows[-1])


def test_encoder_noise_is_on_the_codes_of_the_training_mode_alone():
    model = built(Autoencoder, encoder_noise=0.5)
    x = draw(64, 21, 2)
    output = model(x, S=8)
    assert float((output.z - output.mu).std().detach()) == pytest.approx(0.5, rel=0.1)
    assert torch.equal(model.eval()(x).z, model(x).mu)
    with pytest.raises(ValueError, match="encoder_noise must be a finite number >= 0"):
        conv_model(Autoencoder, encoder_noise=-1.0)
