"""Dense networks over whole records."""

from __future__ import annotations

import pytest
import torch

from tsvae.nn import DenseNet, MLPDecoder, MLPEncoder


@pytest.mark.parametrize("n_steps", [1, 2, 7])
@pytest.mark.parametrize("n_features", [1, 3])
def test_shapes(n_steps, n_features):
    encoder = MLPEncoder(n_features, n_steps, (8, 5))
    decoder = MLPDecoder(5, n_steps, n_features, (8,))
    x = torch.randn(4, n_steps, n_features, generator=torch.Generator().manual_seed(0))
    assert encoder(x).shape == (4, 5)
    assert encoder.out_features == 5
    assert decoder(encoder(x)).shape == x.shape


def test_no_hidden_layer_is_the_record_itself():
    x = torch.arange(12.0).view(2, 3, 2)
    encoder = MLPEncoder(2, 3, ())
    assert encoder.out_features == 6
    assert torch.equal(encoder(x), x.view(2, 6))


def test_the_networks_are_dense_nets_over_flat_records():
    x = torch.arange(12.0).view(2, 3, 2) / 12
    encoder, net = MLPEncoder(2, 3, (8, 5)), DenseNet(6, 5, (8,))
    torch.testing.assert_close(encoder(x), torch.nn.functional.gelu(net(x.flatten(1))))
    decoder = MLPDecoder(5, 3, 2, (8,), final_sigmoid=True)
    z = torch.ones(2, 5)
    expected = torch.sigmoid(DenseNet(5, 6, (8,))(z)).view(2, 3, 2)
    torch.testing.assert_close(decoder(z), expected)


def test_generators_and_global_state():
    before = torch.random.get_rng_state()
    one, two, three = (
        MLPEncoder(1, 4, (3,), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    x = torch.ones(1, 4, 1)
    assert torch.equal(one(x), two(x))
    assert not torch.equal(one(x), three(x))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MLPEncoder(1, 4)(torch.zeros(2, 5, 1)), r"\(B, 4, 1\), got \(2, 5, 1\)"),
        (lambda: MLPDecoder(3, 4, 1)(torch.zeros(2, 4)), r"\(B, 3\), got \(2, 4\)"),
        (lambda: MLPEncoder(1, 4, (0,)), r"hidden_sizes\[0\] must be at least 1"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()
