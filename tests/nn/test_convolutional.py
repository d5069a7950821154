"""Convolutional encoders and decoders: any length, exact mirror, private randomness."""

from __future__ import annotations

import io
import pickle

import pytest
import torch
from torch.nn import functional

from tsvae.nn import ConvDecoder, ConvEncoder, VectorToMap
from tsvae.nn.convolution_layers import BatchNorm, Convolution, TransposedConvolution
from tsvae.nn.residual_blocks import double_steps, halve_steps

LENGTHS = (1, 2, 3, 5, 8, 17, 64, 101)
RNG = torch.Generator().manual_seed(3)


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=RNG, dtype=dtype)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("n_steps", LENGTHS)
def test_the_decoder_mirrors_the_encoder(n_steps, residual):
    sizes = (4, 6, 8)
    encoder = ConvEncoder(2, sizes, residual=residual)
    x = draw(3, n_steps, 2)
    features = encoder(x)
    assert features.shape == (3, -(-n_steps // 8), 8)
    assert features.shape[1] == encoder.out_steps(n_steps)
    assert encoder.out_features == 8
    decoder = ConvDecoder(8, 2, n_steps, sizes[::-1], residual=residual)
    assert decoder.in_steps == features.shape[1]
    assert decoder(features).shape == x.shape
    vector = ConvDecoder(5, 2, n_steps, sizes[::-1], latent="vector", residual=residual)
    assert vector(draw(3, 5)).shape == x.shape


def test_channels_of_the_mirror_are_those_of_the_encoder():
    encoder = ConvEncoder(3, (4, 6, 8))
    decoder = ConvDecoder(8, 3, 40, (8, 6, 4))
    down = [tuple(stage.convolution._weight().shape[:2]) for stage in encoder.stages]
    up = [tuple(stage.convolution._weight().shape[:2]) for stage in decoder.stages]
    up.append(tuple(decoder.outlet._weight().shape[:2]))
    assert down == [shape[::-1] for shape in up[::-1]]


@pytest.mark.parametrize("n_steps", [1, 2, 7, 8])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_transposed_convolution_is_the_adjoint(n_steps, kernel_size):
    """<conv(x), y> = <x, transposed(y)> for the same kernel."""
    down = Convolution(3, 4, kernel_size, stride=2, bias=False).double()
    up = TransposedConvolution(4, 3, n_steps, kernel_size, bias=False).double()
    down.reset_parameters(RNG)
    with torch.no_grad():
        up.kernel.weight.copy_(down._weight().transpose(0, 1).reshape(3, -1))
    x = draw(2, 3, n_steps, dtype=torch.float64)
    y = draw(2, 4, (n_steps + 1) // 2, dtype=torch.float64)
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum())


def test_convolution_is_torchs():
    layer = Convolution(2, 3, 5, stride=2)
    layer.reset_parameters(RNG)
    twin = torch.nn.Conv1d(2, 3, 5, stride=2, padding=2)
    with torch.no_grad():
        twin.weight.copy_(layer.kernel.weight.view(3, 2, 5))
        twin.bias.copy_(layer.kernel.bias)
    x = draw(2, 2, 11)
    torch.testing.assert_close(layer(x), twin(x))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_signals_keep_their_size_at_the_start(residual, activation):
    options = {"batch_norm": False, "activation": activation, "residual": residual}
    encoder = ConvEncoder(2, (32, 64), **options, generator=torch.Generator().manual_seed(1))
    decoder = ConvDecoder(64, 2, 256, (64, 32), **options)
    features = encoder(draw(8, 256, 2))
    size = float(features.detach().square().mean())
    assert 0.2 < size < 8.0
    output = decoder(features / size**0.5).detach()
    assert 0.05 < float(output.square().mean()) < 20.0


@pytest.mark.parametrize("residual", [False, True])
def test_one_record_of_one_latent_step_trains(residual):
    encoder = ConvEncoder(1, (4, 4), residual=residual).train()
    decoder = ConvDecoder(4, 1, 1, (4, 4), residual=residual).train()
    output = decoder(encoder(draw(1, 1, 1)))
    output.square().sum().backward()
    assert all(
        p.grad is None or torch.isfinite(p.grad).all()
        for p in (*encoder.parameters(), *decoder.parameters())
    )
    assert torch.isfinite(output).all()


def test_batch_norm_is_torchs_where_torchs_works():
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm1d(3)
    for shape in [(4, 3, 5), (1, 3, 2), (2, 3, 1)]:
        x = draw(*shape)
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    before = ours.running_mean.clone()
    x = draw(1, 3, 1)
    torch.testing.assert_close(ours(x), theirs.eval()(x))
    torch.testing.assert_close(ours.running_mean, before)


@pytest.mark.parametrize("n_steps", [1, 2, 5, 6])
def test_halved_and_doubled_steps_by_hand(n_steps):
    x = draw(2, 3, n_steps)
    pairs = [x[..., t : t + 2].mean(-1) for t in range(0, n_steps, 2)]
    torch.testing.assert_close(halve_steps(x), torch.stack(pairs, -1))
    coarse = draw(2, 3, (n_steps + 1) // 2)
    expected = torch.stack([coarse[..., t // 2] for t in range(n_steps)], -1)
    torch.testing.assert_close(double_steps(coarse, n_steps), expected)


def test_final_sigmoid_is_the_sigmoid_of_the_same_network():
    plain = ConvDecoder(4, 2, 9, (8,))
    bounded = ConvDecoder(4, 2, 9, (8,), final_sigmoid=True)
    z = draw(3, 5, 4)
    torch.testing.assert_close(bounded.eval()(z), torch.sigmoid(plain.eval()(z)))


@pytest.mark.parametrize("residual", [False, True])
def test_spectral_norm_bounds_every_kernel(residual):
    encoder = ConvEncoder(2, (8, 8), spectral_norm=0.7, residual=residual)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(10.0)
    encoder.train()
    for _ in range(20):  # the power iteration follows the weights
        encoder(draw(2, 16, 2))
    encoder.eval()
    kernels = [m for m in encoder.modules() if isinstance(m, Convolution)]
    assert len(kernels) == (5 if residual else 2)
    for layer in kernels:
        assert float(torch.linalg.matrix_norm(layer._weight().flatten(1), 2)) < 0.71


def test_building_leaves_the_global_random_state():
    before = torch.random.get_rng_state()
    ConvEncoder(1, (4,), residual=True, spectral_norm=True)
    ConvDecoder(2, 1, 9, (4, 4), latent="vector", residual=True)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_generator_decides_the_parameters():
    def weights(seed):
        encoder = ConvEncoder(1, (4, 4), generator=torch.Generator().manual_seed(seed))
        return torch.cat([p.flatten() for p in encoder.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_float64_and_pickle():
    encoder = ConvEncoder(1, (4, 4), residual=True, spectral_norm=True).double().eval()
    x = draw(2, 7, 1, dtype=torch.float64)
    again = pickle.loads(pickle.dumps(encoder))
    assert encoder(x).dtype == torch.float64
    assert torch.equal(again(x), encoder(x))
    buffer = io.BytesIO()
    torch.save(encoder.state_dict(), buffer)
    buffer.seek(0)
    fresh = ConvEncoder(1, (4, 4), residual=True, spectral_norm=True).double().eval()
    fresh.load_state_dict(torch.load(buffer))
    assert torch.equal(fresh(x), encoder(x))


def test_gradients_are_right():
    decoder = ConvDecoder(2, 1, 5, (3, 3), residual=True, batch_norm=False).double()
    z = draw(2, 2, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(decoder, (z,))


def test_vector_to_map_is_one_linear_map():
    layer = VectorToMap(3, 4, 5)
    z = draw(2, 3)
    expected = functional.linear(z, layer.linear.weight, layer.linear.bias).view(2, 4, 5)
    torch.testing.assert_close(layer(z), expected)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ConvEncoder(1, ()), ValueError, "hidden_sizes must have at least one"),
        (lambda: ConvEncoder(1, kernel_size=4), ValueError, "must be odd, got 4; use 3 or 5"),
        (lambda: ConvEncoder(1, activation="x"), ValueError, "activation='x' is not known"),
        (lambda: ConvEncoder(1, spectral_norm=-1.0), ValueError, "spectral_norm must be"),
        (lambda: ConvEncoder(1.5), TypeError, "in_features must be an integer"),
        (lambda: ConvDecoder(1, 1, 0), ValueError, "n_steps must be at least 1"),
        (lambda: ConvDecoder(1, 1, 9, latent="both"), ValueError, "latent must be 'map'"),
        (lambda: ConvEncoder(2)(draw(1, 8, 1)), ValueError, r"\(B, T, 2\), got \(1, 8, 1\)"),
        (lambda: ConvDecoder(2, 1, 9)(draw(1, 9, 2)), ValueError, r"\(B, \*\(2, 2\)\), got"),
    ],
)
def test_errors_name_the_remedy(make, error, words):
    with pytest.raises(error, match=words):
        make()
