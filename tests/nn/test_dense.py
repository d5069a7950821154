"""DenseNet and its layers: structure, private randomness, spectral bound, serialisation."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from tsvae.nn import DenseNet, activation_names, get_activation
from tsvae.nn.activations import activation_gain
from tsvae.nn.dense import DenseBlock, expand_stages
from tsvae.nn.layers import Dropout, Linear, SpectralLinear

VARIANTS = [
    {},
    {"hidden_sizes": ()},
    {"residual": False, "layer_norm": True},
    {"stage_sizes": (2, 1), "spectral_norm": True, "final_sigmoid": True},
    {"dropout": 0.3, "layer_norm": True, "activation": "relu"},
    {"spectral_norm": 0.5, "zero_last": True, "final_bias": False},
]


def build(seed: int = 0, **options) -> DenseNet:
    options = {"hidden_sizes": (8, 6), **options}
    return DenseNet(3, 4, generator=torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("options", VARIANTS)
def test_global_random_state_untouched(options):
    before = torch.get_rng_state()
    net = build(**options)
    net(torch.ones(2, 3)).sum().backward()
    net.reset_parameters()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", VARIANTS)
def test_same_generator_seed_same_network_whatever_the_global_seed(options):
    torch.manual_seed(1)
    first = build(3, **options)
    torch.manual_seed(2)
    second = build(3, **options)
    other = build(4, **options)
    for key, value in first.named_parameters():
        assert torch.equal(value, second.get_parameter(key))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first(x), second(x))
    if not options.get("zero_last"):
        assert not torch.equal(first.eval()(x), other.eval()(x))


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_copies_and_state_dict_round_trip(options, dtype):
    net = build(**options).to(dtype)
    x = torch.linspace(-1, 1, 30, dtype=dtype).reshape(2, 5, 3)
    net(x)  # moves the dropout stream and the singular vectors
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    loaded = build(9, **options).to(dtype)
    loaded.load_state_dict(net.state_dict())
    expected = net(x)
    assert expected.shape == (2, 5, 4)
    assert expected.dtype == dtype
    for twin in [*twins, loaded]:
        assert torch.equal(twin(x), expected)


def test_state_dict_holds_tensors_only():
    net = build(dropout=0.2, spectral_norm=True)
    assert all(isinstance(value, torch.Tensor) for value in net.state_dict().values())


def test_stages():
    assert expand_stages((8, 4), (1, 3)) == (8, 4, 4, 4)
    assert expand_stages(()) == ()
    assert len(build(stage_sizes=(2, 3)).blocks) == 5
    with pytest.raises(ValueError, match=r"stage_sizes has 1 entries but hidden_sizes has 2"):
        expand_stages((8, 4), (1,))


def test_residual_block_by_hand():
    x = torch.linspace(-2, 2, 12).reshape(4, 3)
    same = DenseBlock(3, 3, activation="tanh")
    same.reset_parameters()
    assert same.shortcut is None
    assert torch.allclose(same(x), x + torch.tanh(x @ same.linear.weight.T + same.linear.bias))
    wider = DenseBlock(3, 5, activation="tanh")
    wider.reset_parameters()
    hidden = torch.tanh(x @ wider.linear.weight.T)
    assert torch.allclose(wider(x), x @ wider.shortcut.weight.T + hidden)
    plain = DenseBlock(3, 3, activation="tanh", residual=False)
    plain.reset_parameters()
    assert torch.allclose(plain(x), torch.tanh(x @ plain.linear.weight.T))


def test_zero_last_starts_as_nothing_but_learns():
    net = build(zero_last=True)
    x = torch.ones(2, 3)
    assert (net(x) == 0).all()
    (net(x) - 1).square().sum().backward()
    assert net.last.weight.grad.abs().max() > 0


def test_final_sigmoid_range():
    out = build(final_sigmoid=True)(100 * torch.randn(50, 3, generator=torch.Generator()))
    assert ((out >= 0) & (out <= 1)).all()
    assert out.min() < 0.5 < out.max()


@pytest.mark.parametrize("activation", activation_names())
def test_gain_is_the_inverse_rms_of_the_activation(activation):
    z = torch.linspace(-12, 12, 200001, dtype=torch.float64)
    density = torch.exp(-0.5 * z**2) / (2 * torch.pi) ** 0.5
    mean_square = torch.trapezoid(get_activation(activation)(z) ** 2 * density, z)
    assert activation_gain(activation) == pytest.approx(float(mean_square) ** -0.5, rel=1e-5)


@pytest.mark.parametrize("activation", activation_names())
@pytest.mark.parametrize("residual", [True, False])
def test_scale_of_the_signal_survives_six_layers(activation, residual):
    net = DenseNet(64, 64, (256,) * 6, activation=activation, residual=residual)
    out = net(torch.randn(200, 64, generator=torch.Generator().manual_seed(0)))
    assert 0.2 < out.square().mean() ** 0.5 < 16


def largest_singular_value(weight: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach(), 2))


def test_spectral_norm_bound_on_weights_and_network():
    bound = 0.7
    net = DenseNet(
        6, 4, (16, 16), activation="relu", residual=False, spectral_norm=bound, generator=None
    ).double()
    layers = [module for module in net.modules() if isinstance(module, SpectralLinear)]
    assert len(layers) == 3
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(10)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(60):  # power iterations
        net(x)
    net.eval()
    for layer in layers:
        assert largest_singular_value(layer.effective_weight()) <= bound * (1 + 1e-3)
        assert largest_singular_value(layer.weight) > bound
    slopes = (net(x[:20]) - net(x[20:])).norm(dim=1) / (x[:20] - x[20:]).norm(dim=1)
    assert slopes.max() <= bound**3 * (1 + 3e-3)


def test_spectral_norm_leaves_small_and_zero_weights_alone():
    layer = SpectralLinear(5, 4, gain=0.01)
    layer.reset_parameters()
    assert torch.equal(layer.effective_weight(), layer.weight)
    zero = SpectralLinear(5, 4, gain=0.0)
    zero.reset_parameters()
    zero(torch.ones(2, 5)).sum().backward()
    assert torch.isfinite(zero.weight.grad).all()
    with torch.no_grad():
        zero.weight.copy_(torch.eye(4, 5) * 3)
    for _ in range(50):
        zero(torch.ones(2, 5))
    assert largest_singular_value(zero.effective_weight()) == pytest.approx(1.0, abs=1e-4)


def test_spectral_norm_gradient_against_finite_differences():
    layer = SpectralLinear(3, 2, gain=3.0).double().eval()
    layer.reset_parameters(torch.Generator().manual_seed(0))
    x = torch.tensor([[0.3, -0.4, 1.0]], dtype=torch.float64)

    def value(weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(value, (layer.weight.detach().requires_grad_(),))


def test_two_forward_passes_before_backward():
    net = build(spectral_norm=True, dropout=0.1)
    (net(torch.ones(2, 3)) + net(torch.zeros(2, 3))).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_dropout_moments_and_eval():
    layer = Dropout(0.25)
    layer.reset_parameters(torch.Generator().manual_seed(5))
    x = torch.ones(20000)
    first, second = layer(x), layer(x)
    assert (first == 0).double().mean() == pytest.approx(0.25, abs=0.02)
    assert first.mean() == pytest.approx(1.0, abs=0.02)
    assert not torch.equal(first, second)
    assert torch.equal(layer.eval()(x), x)


def test_every_activation_by_name():
    expected = {"gelu", "relu", "silu", "tanh", "elu", "leaky_relu", "softplus", "identity"}
    assert set(activation_names()) == expected
    for name in expected:
        assert isinstance(get_activation(name), nn.Module)
        assert torch.isfinite(build(activation=name)(torch.ones(1, 3))).all()
    assert torch.equal(get_activation("identity")(torch.arange(3)), torch.arange(3))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"activation": "swoosh"}, ValueError, "activation='swoosh'.*gelu.*tanh"),
        ({"hidden_sizes": (8, 0)}, ValueError, r"hidden_sizes\[1\] must be at least 1, got 0"),
        ({"hidden_sizes": (8, 2.5)}, TypeError, r"hidden_sizes\[1\] must be an integer"),
        ({"hidden_sizes": 128}, TypeError, "hidden_sizes must be a sequence"),
        ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and below 1, got 1.0"),
        ({"spectral_norm": -1.0}, ValueError, "spectral_norm must be True, False or a positive"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        build(**options)


def test_linear_bias_starts_at_zero_and_bound_holds():
    layer = Linear(12, 7, gain=2.0)
    layer.reset_parameters(torch.Generator().manual_seed(0))
    assert (layer.bias == 0).all()
    bound = 2.0 * (3 / 12) ** 0.5
    assert 0.8 * bound < layer.weight.abs().max() <= bound
