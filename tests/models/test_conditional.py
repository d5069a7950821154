"""Conditional VAE: the condition reaches encoder and decoder, and is checked."""

from __future__ import annotations

import pickle

import pytest
import torch

from tsvae.models import ConditionalVAE, ConditionEmbedding
from tsvae.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from tsvae.training import TrainingConfig, train


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def conditions(n=4, seed=0):
    category = torch.randint(0, 3, (n, 1), generator=generator(seed)).double()
    return torch.cat((draws(n, 1, seed=seed), category), dim=1)


def make(embedding="onehot", mask_input=False, **options):
    embed = ConditionEmbedding(1, (3,), embedding=embedding, embedding_dim=2)
    width = embed.out_features
    model = ConditionalVAE(
        MLPEncoder(1 + mask_input + width, 6, (8,)).double(),
        MLPDecoder(2 + width, 6, 1, (8,)).double(),
        2,
        embed,
        mask_input=mask_input,
        **options,
    )
    return model.build(draws(2, 6, 1))


def make_map():
    embed = ConditionEmbedding(2)
    model = ConditionalVAE(
        ConvEncoder(1 + 2, (4,), batch_norm=False).double(),
        ConvDecoder(3 + 2, 1, 7, (4,), batch_norm=False).double(),
        3,
        embed,
        latent="map",
    )
    return model.build(draws(2, 7, 1))


@pytest.mark.parametrize("embedding", ["onehot", "learned"])
@pytest.mark.parametrize("column", [0, 1])
def test_each_condition_changes_codes_and_reconstructions(embedding, column):
    model = make(embedding).eval()
    x, condition = draws(4, 6, 1), conditions()
    other = condition.clone()
    other[:, column] = (other[:, column] + 1.0) % 3
    z = model.encode(x, condition=condition).z
    assert (model.encode(x, condition=other).z != z).flatten(1).any(1).all()
    x_hat = model.decode(z, condition).x_hat
    assert (model.decode(z, other).x_hat != x_hat).flatten(1).any(1).all()


def test_condition_enters_as_channels_and_beside_z():
    model = make().eval()
    x, condition = draws(4, 6, 1), conditions()
    onehot = torch.nn.functional.one_hot(condition[:, 1].long(), 3).double()
    embedded = torch.cat((condition[:, :1], onehot), 1)
    features = model.encoder(torch.cat((x, embedded[:, None].expand(-1, 6, -1)), -1))
    mu = model.posterior(features).mu
    encoded = model.encode(x, S=3, condition=condition)
    torch.testing.assert_close(encoded.mu[:, 1], mu)
    z = draws(4, 3, 2, seed=4)
    rows = torch.cat((z, embedded[:, None].expand(-1, 3, -1)), -1)
    x_hat = model.decoder(rows.flatten(0, 1)).reshape(4, 3, 6, 1)
    torch.testing.assert_close(model.decode(z, condition).x_hat, x_hat)


def test_maps_get_the_condition_at_every_latent_step():
    model = make_map().eval()
    z, condition = draws(2, 4, 3), draws(2, 2, seed=1)
    expected = model.decoder(torch.cat((z, condition[:, None].expand(-1, 4, -1)), -1))
    torch.testing.assert_close(model.decode(z, condition).x_hat, expected)
    output = model(draws(2, 7, 1), condition=condition)
    assert output.x_hat.shape == (2, 1, 7, 1)


def test_records_do_not_mix():
    """Each record alone gives what it gives in a batch: conditions stay with their records."""
    model = make().eval()
    x, condition = draws(5, 6, 1), conditions(5)
    whole = model(x, S=2, condition=condition)
    bound = model.importance_weighted_bound(x, 7, condition=condition, chunk_size=14)
    for i in range(5):
        row = slice(i, i + 1)
        alone = model(x[row], S=2, condition=condition[row])
        torch.testing.assert_close(alone.x_hat, whole.x_hat[row])
        one = model.importance_weighted_bound(x[row], 7, condition=condition[row])
        torch.testing.assert_close(one, bound[row])


def test_learns_what_the_condition_says():
    """Level given by the category, noise otherwise: decoding the prior mean returns the level."""
    levels = torch.tensor([-2.0, 0.0, 2.0]).double()
    category = torch.arange(60) % 3
    x = levels[category][:, None, None] + 0.1 * draws(60, 6, 1)
    condition = torch.stack((torch.zeros(60), category), 1).double()
    batch = {"x": x, "condition": condition}
    model = make(annealing_steps=20, scale="fixed", initial_scale=0.3)
    config = TrainingConfig(max_epochs=200, learning_rate=0.02, device="cpu")
    train(model, lambda epoch, random: [batch], config=config, generator=generator())
    model.eval()
    x_hat = model.decode(torch.zeros(3, 2).double(), condition[:3]).x_hat
    torch.testing.assert_close(x_hat.mean((1, 2)), levels, atol=0.3, rtol=0)
    assert bool(model.kl_per_dimension(x, condition=condition).sum() < 1.0)


def test_missing_entries_change_nothing():
    model = make(mask_input=True).eval()
    x, mask = draws(4, 6, 1), torch.rand(4, 6, 1, generator=generator()) > 0.3
    batch = {"x": x, "mask": mask, "condition": conditions()}
    poisoned = batch | {"x": torch.where(mask, x, torch.nan)}
    result = model.training_step(poisoned, 0).objective
    assert torch.isfinite(result)
    assert torch.equal(result, model.training_step(batch, 0).objective)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (torch.tensor([[0.0, 3.0]] * 4), "column 1 has the unknown category 3.0"),
        (torch.tensor([[0.0, -1.0]] * 4), "unknown category"),
        (torch.tensor([[0.0, 0.5]] * 4), "unknown category"),
        (torch.tensor([[float("nan"), 0.0]] * 4), "column 0 is nan"),
        (torch.zeros(4, 3), r"shape \(B, 2\)"),
        (torch.zeros(4), r"shape \(B, 2\)"),
        (torch.zeros(3, 2), "3 rows"),
    ],
)
def test_bad_conditions_are_named(condition, words):
    with pytest.raises(ValueError, match=words):
        make().encode(draws(4, 6, 1), condition=condition.double())


def test_a_batch_is_reconstructed_under_its_conditions():
    model, x, given = make().eval(), draws(4, 6, 1, seed=1), conditions(4)
    result = model.reconstruct({"x": x, "condition": given})
    torch.testing.assert_close(result, model(x, condition=given).x_hat[:, 0].detach())
    with pytest.raises(KeyError, match="needs 'condition'"):
        model.reconstruct({"x": x})


def test_missing_conditions_are_asked_for():
    model = make()
    with pytest.raises(TypeError, match="condition="):
        model(draws(4, 6, 1))
    with pytest.raises(TypeError, match="condition="):
        model.decode(draws(4, 2))
    with pytest.raises(KeyError, match="condition"):
        model.training_step({"x": draws(4, 6, 1)}, 0)
    # A failed pass leaves nothing behind.
    with pytest.raises(ValueError, match="codes"):
        model.decode(draws(4, 5), conditions())
    with pytest.raises(TypeError, match="condition="):
        model.decode(draws(4, 2))


def test_other_errors():
    unbuilt = ConditionalVAE(MLPEncoder(3, 6), MLPDecoder(4, 6, 1), 2, ConditionEmbedding(2))
    with pytest.raises(RuntimeError, match=r"build\(sample\)"):
        unbuilt(draws(2, 6, 1), condition=draws(2, 2))
    with pytest.raises(TypeError, match="ConditionEmbedding"):
        ConditionalVAE(MLPEncoder(3, 6), MLPDecoder(4, 6, 1), 2, 3)
    with pytest.raises(ValueError, match="at least one column"):
        ConditionEmbedding()
    with pytest.raises(ValueError, match="embedding"):
        ConditionEmbedding(1, embedding="binary")


def test_same_generator_same_draws_and_pickling():
    x, condition = draws(3, 6, 1), conditions(3)
    one, other = (make("learned", generator=generator(4)) for _ in range(2))
    copy = pickle.loads(pickle.dumps(one))
    results = [m(x, S=2, condition=condition).z for m in (one, other, copy)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    draw = [
        m.sample_posterior(x, 2, generator=generator(), condition=condition) for m in (one, copy)
    ]
    assert torch.equal(*draw)
    assert one.active_units(x, condition=condition).active.shape == (2,)
