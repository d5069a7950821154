"""SigmaDecoder: start, scales, final sigmoid, shapes, serialisation."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from tsvae.nn import SigmaDecoder, get_likelihood, likelihood_names

D, F = 3, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(seed: int = 0, **options) -> SigmaDecoder:
    options = {"hidden_sizes": (8,), **options}
    return SigmaDecoder(D, F, generator=generator(seed), **options).double()


def latents(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, D, generator=generator(1), dtype=torch.float64)


def awake(decoder: SigmaDecoder) -> SigmaDecoder:
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator(2)))
    return decoder


def test_starts_as_the_given_linear_emission():
    matrix = torch.randn(F, D, generator=generator(3), dtype=torch.float64)
    offset, scale = [1.0, 2.0, -3.0, 0.0], [0.1, 1.0, 2.0, 30.0]
    decoder = build(initial_matrix=matrix, initial_offset=offset, initial_scale=scale)
    z = latents(5)
    params = decoder(z)
    assert torch.allclose(params.loc, z @ matrix.T + torch.tensor(offset), atol=1e-6)
    assert torch.allclose(params.scale, torch.tensor(scale, dtype=torch.float64), rtol=1e-5)
    awake(decoder).reset_parameters(generator(9))
    assert torch.allclose(decoder(z).loc, params.loc)
    assert torch.allclose(decoder(z).scale, params.scale)


def test_location_is_linear_plus_network():
    decoder = awake(build())
    z = latents(2, 5)
    expected = z @ decoder.emission_matrix.T + decoder.offset + decoder.network(z)
    assert torch.allclose(decoder(z).loc, expected)
    bent = decoder(2 * z).loc - 2 * decoder(z).loc + decoder(0 * z).loc
    assert bent.abs().max() > 1e-3


def test_linear_only_and_network_only():
    linear = awake(build(hidden_sizes=()))
    z = latents(6)
    assert linear.network is None
    assert torch.allclose(linear(z).loc, z @ linear.emission_matrix.T + linear.offset)
    bent = awake(build(skip=False))
    assert not hasattr(bent, "emission_matrix")
    assert torch.allclose(bent(z).loc, bent.offset + bent.network(z))
    assert build(skip=False)(z).loc.std() > 0  # its network does not start at zero


@pytest.mark.parametrize("hidden_sizes", [(), (8,)])
def test_scales(hidden_sizes):
    z = latents(7)
    learned = build(hidden_sizes=hidden_sizes)
    assert learned(z).scale.shape == (F,)
    assert learned(z).scale.requires_grad
    fixed = build(hidden_sizes=hidden_sizes, scale="fixed", initial_scale=0.3)
    assert not fixed(z).scale.requires_grad
    assert torch.allclose(awake(fixed)(z).scale, torch.tensor(0.3, dtype=torch.float64))
    skip = not hidden_sizes
    network = build(hidden_sizes=hidden_sizes, scale="network", initial_scale=0.7, skip=skip)
    assert network(z).scale.shape == (7, F)
    assert torch.allclose(network(z).scale, torch.tensor(0.7, dtype=torch.float64), rtol=1e-5)
    assert awake(network)(z).scale.std(0).min() > 0
    assert (network(z).scale > 0).all()


def test_network_scale_and_location_do_not_mix():
    decoder = awake(build(scale="network"))
    z = latents(4)
    outputs = decoder.network(z)
    params = decoder(z)
    linear = z @ decoder.emission_matrix.T + decoder.offset
    assert torch.allclose(params.loc, linear + outputs[:, :F])
    raw = decoder.raw_scale + outputs[:, F:]
    assert torch.allclose(params.scale, torch.nn.functional.softplus(raw) + 1e-4)


@pytest.mark.parametrize("scale", ["learned", "network", "fixed"])
@pytest.mark.parametrize("name", likelihood_names())
def test_every_likelihood_and_leading_dimensions(name, scale):
    decoder = awake(build(likelihood=name, scale=scale))
    for shape in [(), (2,), (2, 3), (4, 2, 3)]:
        z = latents(*shape)
        params = decoder(z)
        assert params.loc.shape == (*shape, F)
        x = decoder.likelihood.sample(params, generator(3))
        value = decoder.likelihood.log_prob(x, params)
        assert value.shape == (*shape, F)
        assert torch.isfinite(value).all()
    decoder.likelihood.log_prob(x, params).sum().backward()
    for key, parameter in decoder.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def test_degrees_of_freedom_learned_beside_a_fixed_scale():
    decoder = build(likelihood="student_t", scale="fixed", initial_scale=0.5)
    names = {name for name, _ in decoder.named_parameters()}
    assert "raw_df" in names
    assert "raw_scale" not in names
    params = decoder(latents(2))
    assert torch.allclose(params.df, torch.tensor(10.0, dtype=torch.float64), rtol=1e-5)
    assert "raw_scale" in decoder.state_dict()


def test_negative_binomial_dispersion():
    decoder = build(likelihood="negative_binomial", initial_scale=0.25, initial_offset=1.5)
    params = decoder(torch.zeros(1, D, dtype=torch.float64))
    assert torch.allclose(params.dispersion, torch.tensor(0.25, dtype=torch.float64), rtol=1e-5)
    assert torch.allclose(params.log_mean, torch.tensor(1.5, dtype=torch.float64))


def test_final_sigmoid():
    decoder = awake(build(final_sigmoid=True))
    z = latents(20)
    plain = copy.deepcopy(decoder)
    plain.final_sigmoid = False
    loc = decoder(z).loc
    assert torch.allclose(loc, torch.sigmoid(plain(z).loc))
    far = decoder(1e6 * z).loc
    assert ((far >= 0) & (far <= 1)).all()
    bernoulli = build(likelihood="bernoulli", final_sigmoid=True)  # has its own sigmoid
    twin = build(likelihood="bernoulli")
    assert torch.equal(bernoulli(z).loc, twin(z).loc)


def test_likelihood_object_is_used_as_given():
    decoder = build(likelihood=get_likelihood("normal", min_scale=0.2), initial_scale=0.5)
    with torch.no_grad():
        decoder.raw_scale.fill_(-100)
    assert torch.allclose(decoder(latents(1)).scale, torch.tensor(0.2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", ["learned", "network", "fixed"])
def test_round_trips_and_global_random_state(scale, dtype):
    before = torch.get_rng_state()
    options = {"scale": scale, "likelihood": "student_t", "dropout": 0.1, "spectral_norm": True}
    decoder = awake(build(**options)).to(dtype)
    loaded = build(8, **options).to(dtype)
    loaded.load_state_dict(decoder.state_dict())
    twins = [copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder)), loaded]
    z = latents(2, 3).to(dtype)
    expected = decoder(z)
    assert expected.loc.dtype == expected.scale.dtype == dtype
    for twin in twins:
        for got, wanted in zip(twin(z), expected, strict=True):
            assert torch.equal(got, wanted)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_against_finite_differences():
    decoder = awake(build(scale="network", activation="tanh", hidden_sizes=(3,)))
    names = [name for name, _ in decoder.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in decoder.parameters())

    def value(z, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return tuple(torch.func.functional_call(decoder, named, (z,)))

    assert torch.autograd.gradcheck(value, (latents(2).requires_grad_(), *values))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"likelihood": "gauss"}, "likelihood='gauss' is not known; choose one of: bernoulli"),
        ({"scale": "free"}, "scale must be 'learned', 'network' or 'fixed', got 'free'"),
        ({"skip": False, "hidden_sizes": ()}, "skip=False needs a network"),
        ({"final_sigmoid": True, "likelihood": "poisson"}, "final_sigmoid puts the location"),
        ({"initial_scale": 1e-5}, "above min_scale=0.0001, got 1e-05"),
        ({"initial_scale": -1.0}, "initial_scale must be positive"),
        ({"initial_offset": [0.0, 1.0]}, "initial_offset must be one number or 4 numbers"),
        ({"initial_offset": float("nan")}, "initial_offset must be finite"),
        ({"initial_matrix": torch.zeros(3, 4)}, r"initial_matrix must have shape \(4, 3\)"),
        ({"initial_matrix": torch.zeros(4, 3), "skip": False}, "initial_matrix needs the linear"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_bad_latent_size():
    with pytest.raises(ValueError, match=r"z must have shape \(..., 3\), got \(2, 5\)"):
        build()(torch.zeros(2, 5, dtype=torch.float64))
