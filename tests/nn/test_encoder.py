"""SigmaEncoder: Bayes' rule in information form, dependence on the mask, shapes, start."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.nn import functional

from tsvae.nn import SigmaEncoder

B, T, F, D, K, U = 3, 5, 4, 6, 2, 2
POTENTIALS = ["diagonal", "block", "dense"]
SHAPES = {"diagonal": (D,), "block": (D // K, K, K), "dense": (D, D)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(potential: str = "diagonal", seed: int = 0, **options) -> SigmaEncoder:
    options = {"hidden_sizes": (16,), "group_size": K, **options}
    return SigmaEncoder(F, D, potential=potential, generator=generator(seed), **options).double()


def awake(encoder: SigmaEncoder, seed: int = 1) -> SigmaEncoder:
    """Move every parameter away from its start, so that the network takes part."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            noise = torch.randn(parameter.shape, generator=generator(seed), dtype=parameter.dtype)
            parameter.add_(0.3 * noise)
    return encoder


def data(seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(B, T, F, generator=generator(seed), dtype=torch.float64)
    mask = torch.rand(B, T, F, generator=generator(seed + 1)) > 0.4
    mask[:, 2] = False
    return x, mask


def as_dense(precision: torch.Tensor, potential: str) -> torch.Tensor:
    if potential == "diagonal":
        return torch.diag_embed(precision)
    if potential == "dense":
        return precision
    full = torch.zeros(*precision.shape[:2], D, D, dtype=precision.dtype)
    for g in range(D // K):
        full[..., g * K : (g + 1) * K, g * K : (g + 1) * K] = precision[..., g, :, :]
    return full


def emission(potential: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A linear emission that the given kind of potential represents exactly."""
    matrix = torch.randn(F, D, generator=generator(3), dtype=torch.float64)
    if potential != "dense":
        size = 1 if potential == "diagonal" else K
        keep = torch.zeros(F, D, dtype=torch.float64)
        for f in range(F):  # each entry loads on one group only
            start = (f * size) % D
            keep[f, start : start + size] = 1
        matrix = matrix * keep
    noise = torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=torch.float64)
    offset = torch.tensor([1.0, -2.0, 0.0, 0.5], dtype=torch.float64)
    return matrix, noise, offset


@pytest.mark.parametrize("potential", POTENTIALS)
def test_linear_path_is_bayes_rule(potential):
    matrix, noise, offset = emission(potential)
    encoder = build(potential, hidden_sizes=())
    encoder.set_emission(matrix, noise, offset)
    x, mask = data()
    linear, precision = encoder(x, mask)
    prior_mean = torch.randn(D, generator=generator(4), dtype=torch.float64)
    root = torch.randn(D, D, generator=generator(5), dtype=torch.float64)
    prior_cov = root @ root.T + torch.eye(D, dtype=torch.float64)
    dense = as_dense(precision, potential)
    for b in range(B):
        for t in range(T):
            seen = mask[b, t]
            # Covariance form with only the observed rows: an independent route to the posterior.
            c, r = matrix[seen], torch.diag(noise[seen])
            gain = prior_cov @ c.T @ torch.linalg.inv(c @ prior_cov @ c.T + r)
            mean = prior_mean + gain @ (x[b, t, seen] - offset[seen] - c @ prior_mean)
            cov = prior_cov - gain @ c @ prior_cov
            information = torch.linalg.inv(prior_cov) + dense[b, t]
            rhs = torch.linalg.solve(prior_cov, prior_mean) + linear[b, t]
            assert torch.allclose(torch.linalg.inv(information), cov, atol=1e-9)
            assert torch.allclose(torch.linalg.solve(information, rhs), mean, atol=1e-9)


def test_diagonal_by_hand():
    encoder = awake(build(hidden_sizes=()))
    x, mask = data()
    linear, precision = encoder(x, mask)
    w = functional.softplus(encoder.raw_weight)
    for b, t in [(0, 0), (1, 3), (2, 4)]:
        h, lam = torch.zeros(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
        for f in range(F):
            if mask[b, t, f]:
                lam = lam + w[f]
                h = h + w[f] * encoder.input_scale[f] * (x[b, t, f] - encoder.offset[f])
        assert torch.allclose(linear[b, t], h)
        assert torch.allclose(precision[b, t], lam)


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("precision", ["learned", "network"])
@pytest.mark.parametrize("skip", [True, False])
def test_nothing_seen_is_exactly_zero(potential, precision, skip):
    encoder = awake(build(potential, precision=precision, skip=skip))
    x, mask = data()
    output = encoder(x, mask)
    assert (output.linear[:, 2] == 0).all()
    assert (output.precision[:, 2] == 0).all()
    seen = mask.any(-1)
    assert (output.linear.abs().sum(-1)[seen] > 0).all()


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("precision", ["learned", "network"])
def test_missing_values_never_matter(potential, precision):
    encoder = awake(build(potential, precision=precision))
    x, mask = data()
    clean = encoder(x.masked_fill(~mask, 0.0), mask)
    dirty_x = x.masked_fill(~mask, float("nan"))
    dirty = encoder(dirty_x, mask)
    assert torch.equal(clean.linear, dirty.linear)
    assert torch.equal(clean.precision, dirty.precision)
    (dirty.linear.sum() + dirty.precision.sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("potential", POTENTIALS)
def test_learned_precision_depends_on_the_mask_only_and_adds_over_entries(potential):
    encoder = awake(build(potential))
    x, mask = data()
    precision = encoder(x, mask).precision
    assert torch.equal(precision, encoder(5 * x + 1, mask).precision)
    first = mask.clone()
    first[..., 2:] = False
    parts = encoder(x, first).precision + encoder(x, mask & ~first).precision
    assert torch.allclose(parts, precision, atol=1e-12)
    values = torch.linalg.eigvalsh(as_dense(precision, potential))
    assert values.min() > -1e-9


@pytest.mark.parametrize("potential", POTENTIALS)
def test_network_precision_is_positive_scaled_by_the_fraction_and_depends_on_values(potential):
    encoder = awake(build(potential, precision="network", mask_input=False))
    x, _ = data()
    x = x.clone()
    x[..., 2:] = 0  # so that the network sees the same with and without these entries
    full = torch.ones(B, T, F, dtype=torch.bool)
    half = full.clone()
    half[..., 2:] = False
    extra_full = encoder(x, full).precision - encoder.learned_precision(full)
    extra_half = encoder(x, half).precision - encoder.learned_precision(half)
    assert torch.allclose(extra_half, 0.5 * extra_full)
    diagonal = torch.diagonal(as_dense(extra_full, potential), dim1=-2, dim2=-1)
    assert (diagonal > 0).all()
    assert not torch.allclose(extra_full[0, 0], extra_full[1, 0])


@pytest.mark.parametrize("potential", POTENTIALS)
def test_network_adds_precision_times_its_output(potential):
    encoder = awake(build(potential, n_covariates=U))
    x, mask = data()
    u = torch.randn(B, T, U, generator=generator(7), dtype=torch.float64)
    output = encoder(x, mask, u)
    linear_only = awake(build(potential, hidden_sizes=()))
    linear_only.load_state_dict(encoder.state_dict(), strict=False)
    seen = x * mask
    location = encoder.network(torch.cat([seen, mask.double(), u], -1))
    dense = as_dense(output.precision, potential)
    expected = linear_only(x, mask).linear + torch.einsum("btij,btj->bti", dense, location)
    assert torch.allclose(output.linear, expected)


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("how", ["one", "expanded"])
def test_shared_mask(potential, how):
    encoder = awake(build(potential))
    x, mask = data()
    shared = mask[:1]
    output = encoder(x, shared if how == "one" else shared.expand(B, T, F))
    full = encoder(x, shared.repeat(B, 1, 1))
    assert output.precision.shape == (1, T, *SHAPES[potential])
    assert full.precision.shape == (B, T, *SHAPES[potential])
    assert output.linear.shape == (B, T, D)
    assert torch.allclose(output.precision.expand_as(full.precision), full.precision)
    assert torch.allclose(output.linear, full.linear)


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("precision", ["learned", "network"])
def test_patterns(potential, precision):
    encoder = awake(build(potential, precision=precision))
    x, mask = data()
    patterns, index = mask[[2, 0]], torch.tensor([1, 0, 1])
    output = encoder(x, patterns, pattern=index)
    full = encoder(x, patterns[index])
    assert torch.allclose(output.linear, full.linear)
    got = output.precision if precision == "network" else output.precision[index]
    assert torch.allclose(got, full.precision)
    assert output.precision.shape[0] == (B if precision == "network" else 2)


@pytest.mark.parametrize("potential", POTENTIALS)
def test_start_is_linear_with_the_wanted_precision(potential):
    start = torch.linspace(0.5, 3.0, D)
    x = torch.randn(2, 3, 50, generator=generator(), dtype=torch.float64)
    mask = torch.ones(1, 3, 50, dtype=torch.bool)
    encoder = SigmaEncoder(
        50, D, hidden_sizes=(8,), potential=potential, group_size=K, precision_start=start
    ).double()
    linear, precision = encoder(x, mask)
    diagonal = torch.diagonal(as_dense(precision, potential), dim1=-2, dim2=-1)[0, 0]
    tolerance = 1e-6 if potential == "diagonal" else 0.8  # random loadings: in expectation
    assert torch.allclose(diagonal, start.double(), rtol=tolerance)
    assert torch.allclose(encoder(2 * x, mask).linear, 2 * linear)
    assert linear.abs().max() > 0


def test_start_precision_of_block_loadings_in_expectation():
    encoder = SigmaEncoder(4000, D, hidden_sizes=(), potential="dense", precision_start=2.0)
    precision = encoder.learned_precision(torch.ones(1, 1, 4000))[0, 0]
    assert torch.allclose(precision, 2.0 * torch.eye(D), atol=0.25)


def test_linear_encoder_ignores_covariates_and_has_no_network():
    encoder = build(hidden_sizes=(), n_covariates=U)
    assert encoder.network is None
    x, mask = data()
    assert encoder(x, mask).linear.shape == (B, T, D)


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("precision", ["learned", "network"])
def test_gradients_against_finite_differences(potential, precision):
    encoder = awake(build(potential, precision=precision, activation="tanh", hidden_sizes=(3,)))
    x, mask = data()
    names = [name for name, _ in encoder.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in encoder.parameters())

    def value(*parameters):
        named = dict(zip(names, parameters, strict=True))
        output = torch.func.functional_call(encoder, named, (x[:1, :2], mask[:1, :2]))
        return output.linear, output.precision

    assert torch.autograd.gradcheck(value, values)


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trips_and_global_random_state(potential, dtype):
    before = torch.get_rng_state()
    encoder = awake(build(potential, precision="network", dropout=0.1, spectral_norm=True)).to(
        dtype
    )
    assert torch.equal(torch.get_rng_state(), before)
    x, mask = data()
    x = x.to(dtype)
    loaded = build(potential, 8, precision="network", dropout=0.1, spectral_norm=True).to(dtype)
    loaded.load_state_dict(encoder.state_dict())
    twins = [copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder)), loaded]
    expected = encoder(x, mask)
    assert expected.linear.dtype == expected.precision.dtype == dtype
    for twin in twins:
        output = twin(x, mask)
        assert torch.equal(output.linear, expected.linear)
        assert torch.equal(output.precision, expected.precision)
    assert torch.equal(torch.get_rng_state(), before)


def test_reset_parameters_reproduces_the_start():
    encoder = build("block", 5)
    start = {key: value.clone() for key, value in encoder.named_parameters()}
    awake(encoder)
    # One generator drives construction (network first) and the reset alike.
    encoder.reset_parameters(generator(11))
    first = {key: value.clone() for key, value in encoder.named_parameters()}
    awake(encoder).reset_parameters(generator(11))
    for key, value in encoder.named_parameters():
        assert torch.equal(value, first[key])
    assert not torch.equal(start["loading"], first["loading"])


def test_wide_input_is_cheap_in_parameters_and_works():
    encoder = SigmaEncoder(2340, 50, hidden_sizes=(128,), stage_sizes=(4,), layer_norm=True)
    x = torch.randn(5, 24, 2340, generator=generator())
    linear, precision = encoder(x, torch.ones(1, 24, 2340, dtype=torch.bool))
    assert precision.shape == (1, 24, 50)
    assert torch.allclose(precision, torch.ones(()), rtol=1e-3)
    location = linear / precision
    assert 0.5 < location.std() < 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_sizes": (), "skip": False}, "skip=False needs a network"),
        ({"hidden_sizes": (), "precision": "network"}, "precision='network' needs a network"),
        ({"precision": "constant"}, "precision must be 'learned' or 'network'"),
        ({"potential": "banded"}, "potential must be 'diagonal', 'block' or 'dense'"),
        ({"potential": "block"}, "needs group_size"),
        ({"potential": "block", "group_size": 4}, "group_size=4 must divide latent_dim=6"),
        ({"precision_start": 0.0}, "precision_start must be positive"),
        ({"precision_start": [1.0, 2.0]}, "precision_start must be one number or 6 numbers"),
        ({"n_covariates": -1}, "n_covariates must be at least 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SigmaEncoder(F, D, **options)


def test_bad_inputs():
    encoder = build(n_covariates=U)
    x, mask = data()
    u = torch.zeros(B, T, U, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"x must have shape \(B, T, 4\), got \(3, 5, 3\)"):
        encoder(x[..., :3], mask, u)
    with pytest.raises(ValueError, match=r"mask must have shape"):
        encoder(x, mask[:, :2], u)
    with pytest.raises(ValueError, match="mask must have 1 or 3 series, got 2"):
        encoder(x, mask[:2], u)
    with pytest.raises(ValueError, match=r"covariates must have shape \(B, T, 2\), got None"):
        encoder(x, mask)
    with pytest.raises(ValueError, match=r"pattern must have shape \(3,\), got \(2,\)"):
        encoder(x, mask, u, pattern=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"matrix must have shape \(4, 6\)"):
        encoder.set_emission(torch.zeros(6, 4), torch.ones(4))
    with pytest.raises(ValueError, match="set_emission needs the linear path"):
        build(skip=False).set_emission(torch.zeros(4, 6), torch.ones(4))


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("precision", ["learned", "network"])
@pytest.mark.parametrize("how", ["each", "one", "patterns"])
def test_complete_masks_are_worked_out_once(monkeypatch, potential, precision, how):
    encoder = awake(build(potential, precision=precision, n_covariates=U))
    x, _ = data()
    covariates = torch.randn(B, T, U, generator=generator(7), dtype=torch.float64)
    count = {"each": B, "one": 1, "patterns": 2}[how]
    mask = torch.ones(count, T, F, dtype=torch.bool)
    pattern = torch.tensor([0, 1, 1]) if how == "patterns" else None

    def run():
        output = encoder(x, mask, covariates, pattern)
        loss = (output.linear * output.linear.detach()).sum() + output.precision.square().sum()
        return [*output, *torch.autograd.grad(loss, list(encoder.parameters()))]

    ours = run()
    monkeypatch.setattr("tsvae.nn.encoder.all_seen", lambda mask: False)
    for one, two in zip(ours, run(), strict=True):
        assert one.shape == two.shape
        assert torch.allclose(one, two, atol=1e-12)
