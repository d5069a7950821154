"""Freezing: schedule, gradients, running statistics, and the training loop around it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from tsvae.models import VAE
from tsvae.models.freezing import GradualFreezing, layers_of
from tsvae.models.pair import PairVAE
from tsvae.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from tsvae.training import TrainingConfig, train


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def network():
    torch_state = torch.get_rng_state()
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    torch.set_rng_state(torch_state)
    return model


@pytest.mark.parametrize(
    ("n_layers", "n_steps", "expected"),
    [
        (3, 30, {0: 0, 9: 0, 10: 1, 19: 1, 20: 2, 29: 2, 30: 3, 1000: 3}),
        (2, 5, {0: 0, 2: 0, 3: 1, 4: 1, 5: 2}),
        (4, 2, {0: 0, 1: 2, 2: 4}),
        (3, 0, {0: 3, 7: 3}),
        (3, None, {0: 0, 7: 0, 10**9: 0}),
        (0, 10, {0: 0, 20: 0}),
    ],
)
def test_layers_are_released_evenly(n_layers, n_steps, expected):
    layers = [nn.Linear(1, 1) for _ in range(n_layers)]
    freezing = GradualFreezing(layers, n_steps)
    for step, released in expected.items():
        assert freezing.n_released(step) == released
        freezing.apply(step)
        trained = [layer.weight.requires_grad for layer in layers]
        assert trained == [True] * released + [False] * (n_layers - released)
        assert [layer.training for layer in layers] == trained


def test_any_step_may_follow_any_other():
    layers = [nn.Linear(1, 1) for _ in range(3)]
    freezing = GradualFreezing(layers, 30)
    for step, expected in ((30, 3), (0, 0), (20, 2)):
        freezing.apply(step)
        assert sum(layer.bias.requires_grad for layer in layers) == expected


def test_impossible_numbers_of_steps():
    for n_steps in (-1, 2.5):
        with pytest.raises((ValueError, TypeError), match="n_steps"):
            GradualFreezing([nn.Linear(1, 1)], n_steps)


def test_layers_are_the_smallest_modules_with_parameters_in_order():
    inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.LayerNorm(2))
    whole = nn.Sequential(nn.Linear(3, 2), inner, nn.Dropout(0.5), nn.Linear(2, 1))
    assert layers_of(whole) == [whole[0], inner[0], inner[2], whole[3]]
    assert layers_of(inner[0]) == [inner[0]]
    assert layers_of(nn.ReLU()) == []


@pytest.mark.parametrize(
    "part",
    [
        MLPEncoder(1, 16, (8, 4), layer_norm=True),
        MLPDecoder(2, 16, 1, (4, 8)),
        ConvEncoder(1, (4, 8), residual=True),
        ConvDecoder(2, 1, 16, (8, 4), latent="vector", spectral_norm=True),
    ],
)
def test_layers_cover_every_parameter_of_a_network_once(part):
    found = [p for layer in layers_of(part) for p in layer.parameters(recurse=False)]
    assert {id(p) for p in found} == {id(p) for p in part.parameters()}
    assert len(found) == len(list(part.parameters())) > 0


def test_frozen_layers_have_no_gradient_and_keep_their_statistics():
    model = network().train()
    first, norm, _, last = model
    freezing = GradualFreezing([last, norm], 10)
    before = copy.deepcopy(model.state_dict())
    freezing.apply(0)
    x = draw(20, 3) + 5.0
    expected = nn.functional.batch_norm(
        first(x), norm.running_mean, norm.running_var, norm.weight, norm.bias
    )
    torch.testing.assert_close(norm(first(x)), expected)  # running statistics, not the batch's
    model(x).square().sum().backward()
    assert all(p.grad is None for layer in (norm, last) for p in layer.parameters())
    assert first.weight.grad.abs().sum() > 0  # gradients pass through what is frozen
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, before[f"1.{name}"])
    freezing.apply(5)
    model(x).square().sum().backward()
    assert last.weight.grad.abs().sum() > 0 and norm.weight.grad is None
    freezing.apply(10)
    model(x).square().sum().backward()
    assert norm.weight.grad is not None
    assert not torch.equal(norm.running_mean, before["1.running_mean"])


def test_frozen_spectral_layers_keep_their_singular_vectors():
    encoder = ConvEncoder(1, (4, 8), spectral_norm=True).train()
    before = copy.deepcopy(encoder.state_dict())
    layers = layers_of(encoder)
    with torch.no_grad():  # weights whose singular vectors are others
        for layer in layers:
            layer.weight.add_(draw(*layer.weight.shape))
    moved = copy.deepcopy(encoder.state_dict())
    GradualFreezing(layers).apply(0)
    encoder(draw(6, 16, 1))
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, moved[name]), name
    GradualFreezing(layers, 0).apply(0)
    encoder(draw(6, 16, 1))
    changed = [n for n, v in encoder.state_dict().items() if not torch.equal(v, moved[n])]
    assert any(name.endswith("left") for name in changed)
    assert before.keys() == moved.keys()


def side(channels=1):
    decoder = ConvDecoder(2, channels, 16, (6, 4), latent="vector", generator=generator(1))
    encoder = ConvEncoder(channels, (4, 6), generator=generator(2))
    return VAE(encoder, decoder, 2)


def pair():
    a, b = draw(24, 16, 1).cumsum(1), draw(24, 16, 2, seed=1).cumsum(1)
    return PairVAE(side(), side(2), generator=generator(3)).build(a, b), {"a": a, "b": b}


def trained(model, batch, epochs=3, **settings):
    before = copy.deepcopy(model.state_dict())
    log = train(
        model,
        lambda epoch, random: [batch] * 2,
        validation_batches=[batch],
        config=TrainingConfig(
            max_epochs=epochs, optimizer="adamw", weight_decay=0.1, device="cpu", **settings
        ),
        generator=generator(),
    )
    assert log.rows[-1]["step"] == 2 * epochs
    return {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}


def test_the_training_loop_leaves_frozen_networks_alone_bit_for_bit():
    model, batch = pair()
    layers = [*layers_of(model.a.encoder), *layers_of(model.a.decoder)]
    model.freezing = GradualFreezing(layers)
    changed = trained(model, batch)
    everything = set(model.state_dict())
    frozen = {n for n in everything if n.startswith(("a.encoder.", "a.decoder."))}
    assert len(frozen) > 20 and not changed & frozen
    assert changed == everything - frozen  # heads, scales, the other side and its statistics
    assert any("running_var" in name for name in changed)


def test_the_training_loop_releases_layers_at_their_step():
    model, batch = pair()
    layers = layers_of(model.a.decoder)
    names = {id(p): n for n, p in model.named_parameters()}
    owned = [{names[id(p)] for p in layer.parameters(recurse=False)} for layer in layers]
    # 6 steps: half of the layers wake up by step 3, all would by step 12.
    model.freezing = GradualFreezing(layers, 12)
    changed = trained(model, batch)
    awake = model.freezing.n_released(5)
    assert 0 < awake < len(layers)
    for place, own in enumerate(owned):
        assert own <= changed if place < awake else not own & changed


def test_a_range_test_before_does_not_keep_layers_from_their_release():
    model, batch = pair()
    model.freezing = GradualFreezing(layers_of(model.a.encoder), 3)
    changed = trained(model, batch, learning_rate="auto")
    assert {n for n, _ in model.a.encoder.named_parameters(prefix="a.encoder")} <= changed


def test_evaluation_neither_freezes_nor_releases():
    model, batch = pair()
    layers = layers_of(model.b.encoder)
    model.freezing = GradualFreezing(layers)
    model.eval().training_step(batch, 0)
    assert all(p.requires_grad for p in model.parameters())
    model.train().training_step(batch, 0)
    assert not any(p.requires_grad for p in model.b.encoder.parameters())
    assert all(p.requires_grad for p in model.b.mean_head.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_freeze_layers_of_their_own(copied):
    model, batch = pair()
    model.freezing = GradualFreezing(layers_of(model.a.encoder))
    twin = copied(model)
    twin.training_step(batch, 0)
    assert not any(p.requires_grad for p in twin.a.encoder.parameters())
    assert all(p.requires_grad for p in model.a.encoder.parameters())
