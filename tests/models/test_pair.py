"""PairVAE: every term of the loss by hand, stages, masks, pairs, draws across."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Laplace, Normal, kl_divergence

from tsvae.models import VAE
from tsvae.models.pair import PairVAE, PairWeights
from tsvae.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

B, D = 7, 3
SHAPE_A, SHAPE_B = (6, 2), (4, 1)
SCALE_A, SCALE_B = (0.7, 1.4), 0.5
ACROSS_A, ACROSS_B = (1.1, 0.6), 0.9  # of each side as seen from the other
LAWS = {"gaussian": Normal, "laplace": Laplace}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


A, Y = draw(B, *SHAPE_A), draw(B, *SHAPE_B, seed=1)
MASK_A, MASK_B = draw(B, *SHAPE_A, seed=2) > -0.7, draw(B, *SHAPE_B, seed=3) > -0.7
WEIGHT_A, WEIGHT_B = draw(1, *SHAPE_A, seed=4).exp(), draw(B, *SHAPE_B, seed=5).exp()


def side(shape, scale, latent_dim=D, **options):
    steps, features = shape
    encoder = MLPEncoder(features * (1 + options.get("mask_input", False)), steps, (8,))
    decoder = MLPDecoder(latent_dim, steps, features, (8,), generator=generator(8))
    vae = VAE(encoder.double(), decoder.double(), latent_dim, initial_scale=scale, **options)
    return vae.build(torch.zeros(2, *shape, dtype=torch.float64))


def make(laws=("gaussian", "laplace"), **options):
    """A pair whose posteriors, and whose scales within and across, all differ."""
    sides = [
        side(shape, scale, likelihood=law)
        for shape, scale, law in zip((SHAPE_A, SHAPE_B), (SCALE_A, SCALE_B), laws, strict=True)
    ]
    model = PairVAE(*sides, **{"generator": generator(6), "cycle_weight": 0.0, **options})
    model.build(A, Y)
    with torch.no_grad():
        for place, vae in enumerate(sides):
            for head, size in ((vae.log_var_head, 0.3), (vae.mean_head, 0.7)):
                head.weight.copy_(size * draw(*head.weight.shape, seed=9 + place))
                head.bias.copy_(0.2 * draw(D, seed=11 + place))
        for across, scale in ((model.across_a, ACROSS_A), (model.across_b, ACROSS_B)):
            if "scale" in across.likelihood.raw_names:
                scale = torch.tensor(scale, dtype=torch.float64).expand(across.n_features)
                across.raw_scale.copy_(across.likelihood.initial_raw(scale)[0])
    return model


def log_likelihood(law, x, x_hat, scale, mask=None, weight=None):
    """Mean over records and draws of the weighted sum of log densities, record by record."""
    total = []
    for i in range(len(x_hat)):
        for s in range(x_hat.shape[1]):
            loc = x_hat[i, s]
            density = (
                Bernoulli(logits=loc)
                if law == "bernoulli"
                else LAWS[law](loc, torch.tensor(scale, dtype=torch.float64))
            )
            terms = density.log_prob(x[i])
            if weight is not None:
                terms = terms * weight[min(i, len(weight) - 1)]
            if mask is not None:
                terms = terms[mask[i]]
            total.append(terms.sum())
    return torch.stack(total).mean()


def divergence(result):
    law = Normal(result.mu[:, 0], (0.5 * result.log_var[:, 0]).exp())
    prior = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    return kl_divergence(law, prior).flatten(1).sum(1).mean()


def barlow(first, second, weight):
    """Equation 1 of Barlow Twins, by loops over numpy's correlations, per code entry."""
    first, second = (z.detach().reshape(-1, z.shape[-1]).numpy() for z in (first, second))
    size, loss = first.shape[1], 0.0
    for i in range(size):
        for j in range(size):
            c = np.corrcoef(first[:, i], second[:, j])[0, 1]
            loss += (1 - c) ** 2 if i == j else weight * c**2
    return loss / size


def cycle(other, law, z):
    """Mean square of what comes back less the code, code by code."""
    squares = []
    for code in z.detach().flatten(0, 1):
        record = other.decode(code[None]).x_hat
        if law == "bernoulli":
            record = torch.sigmoid(record)
        squares.append((other.encode(record, S=1).mu[0, 0] - code) ** 2)
    return torch.stack(squares).mean()


TERMS = {
    "a_from_a": ("a", SCALE_A),
    "b_from_b": ("b", SCALE_B),
    "b_from_a": ("b", ACROSS_B),
    "a_from_b": ("a", ACROSS_A),
}


def by_hand(model, a, b, output, laws, masks=(None, None), weights=(None, None)):
    """Terms of the loss by name, for any pass."""
    hats = {
        "a_from_a": output.a.x_hat,
        "b_from_b": output.b.x_hat,
        "b_from_a": output.b_from_a,
        "a_from_b": output.a_from_b,
    }
    data = {
        "a": (laws[0], a, masks[0], weights[0]),
        "b": (laws[1], b, masks[1], weights[1]),
    }
    terms = {}
    for name, (target, scale) in TERMS.items():
        law, x, mask, weight = data[target]
        if len(hats[name]):
            value = log_likelihood(law, x, hats[name], scale, mask, weight)
            terms[f"log_likelihood_{name}"] = value
    terms["kl_divergence_a"], terms["kl_divergence_b"] = map(divergence, (output.a, output.b))
    n = len(output.b_from_a)
    if n < len(a) and model.cycle_weight:
        terms["cycle_a"] = cycle(model.b, laws[1], output.a.z[n:])
    if n < len(b) and model.cycle_weight:
        terms["cycle_b"] = cycle(model.a, laws[0], output.b.z[n:])
    if n > 1:
        means = (output.a.mu[:n, 0], output.b.mu[:n, 0])
        terms["barlow_twins"] = torch.tensor(barlow(*means, model.barlow_lambda))
    return terms


def total(terms, weights, beta, barlow_weight, cycle_weight):
    sizes = {"a": math.prod(SHAPE_A), "b": math.prod(SHAPE_B)}
    loss = 0.0
    for weight, name in zip(weights, TERMS, strict=True):
        if f"log_likelihood_{name}" in terms:
            loss -= weight * terms[f"log_likelihood_{name}"] / sizes[name[0]]
    for name in "ab":
        loss += beta * terms[f"kl_divergence_{name}"] / sizes[name]
        loss += cycle_weight * terms.get(f"cycle_{name}", 0.0)
    return loss + barlow_weight * terms.get("barlow_twins", 0.0)


@pytest.mark.parametrize("n_pairs", [None, 5, 1, 0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "laws", [("gaussian", "laplace"), ("laplace", "bernoulli"), ("bernoulli", "gaussian")]
)
def test_every_term_and_the_objective_by_hand(laws, masked, n_pairs):
    weights, beta, barlow_weight = (0.5, 2.0, 3.0, 0.25), 0.3, 1.7
    options = {"barlow_weight": barlow_weight, "barlow_lambda": 0.04, "cycle_weight": 0.6}
    model = make(laws, weights=weights, **options)
    a, b = (
        (x > 0).double() if law == "bernoulli" else x for x, law in zip((A, Y), laws, strict=True)
    )
    masks = (MASK_A, MASK_B) if masked else (None, None)
    entries = (WEIGHT_A, WEIGHT_B) if masked else (None, None)
    output = model(a, b, S=3, mask_a=masks[0], mask_b=masks[1], n_pairs=n_pairs)
    result = model.compute_loss(a, b, output, beta, *masks, *entries)
    terms = by_hand(model, a, b, output, laws, masks, entries)
    for name, value in terms.items():
        torch.testing.assert_close(result.diagnostics[name], value.detach(), msg=name)
    assert set(result.diagnostics) == {*terms, "beta", "weight"}
    assert float(result.diagnostics["beta"]) == beta
    assert float(result.diagnostics["weight"]) == B
    assert not any(value.requires_grad for value in result.diagnostics.values())
    torch.testing.assert_close(result.objective, total(terms, weights, beta, barlow_weight, 0.6))
    joined = B if n_pairs is None else n_pairs
    assert output.b_from_a.shape == (joined, 3, *SHAPE_B)
    assert output.a_from_b.shape == (joined, 3, *SHAPE_A)


@pytest.mark.parametrize("place", range(4))
def test_each_weight_belongs_to_its_reconstruction(place):
    weights = [0.0] * 4
    weights[place] = 1.0
    model = make(weights=weights, barlow_weight=0.0)
    assert model.weights == PairWeights(*weights)
    output = model(A, Y)
    result = model.compute_loss(A, Y, output, beta=0.0)
    name = list(TERMS)[place]
    size = math.prod(SHAPE_A if name[0] == "a" else SHAPE_B)
    expected = by_hand(model, A, Y, output, ("gaussian", "laplace"))[f"log_likelihood_{name}"]
    torch.testing.assert_close(result.objective, -expected / size)
    result.objective.backward()
    source, target = name[-1], name[0]
    for side_name in "ab":
        vae = model.side(side_name)
        encodes = any(p.grad is not None and p.grad.any() for p in vae.encoder.parameters())
        decodes = any(p.grad is not None and p.grad.any() for p in vae.decoder.parameters())
        assert encodes == (side_name == source)
        assert decodes == (side_name == target)


def test_codes_decode_to_both_sides():
    model = make().eval()
    output = model(A, Y)
    codes = model.encode(A, "a"), model.encode(Y, "b")
    torch.testing.assert_close(output.b_from_a, model.decode(codes[0].z, "b"))
    torch.testing.assert_close(output.a_from_b, model.decode(codes[1].z, "a"))
    torch.testing.assert_close(output.a.x_hat, model.a.decode(codes[0].z).x_hat)
    assert torch.equal(codes[0].z, codes[0].mu)  # eval mode: the means
    model.train()
    assert not torch.equal(model.encode(A, "a").z, codes[0].z)


def test_rows_without_a_partner_train_their_side_alone():
    model = make(barlow_weight=1.0).eval()
    a, b, n_pairs = draw(9, *SHAPE_A), draw(5, *SHAPE_B, seed=1), torch.tensor(4)
    batch = {"a": a, "b": b, "n_pairs": n_pairs}
    reference = model.training_step(batch, 0).diagnostics
    joint = ("log_likelihood_b_from_a", "log_likelihood_a_from_b", "barlow_twins")
    other = batch | {"a": torch.cat([a[:4], 5 * draw(5, *SHAPE_A, seed=7)])}
    found = model.training_step(other, 0).diagnostics
    for name in ("log_likelihood_b_from_a", "barlow_twins"):
        torch.testing.assert_close(found[name], reference[name])
    for name in ("log_likelihood_a_from_a", "kl_divergence_a"):
        assert not torch.allclose(found[name], reference[name])
    other = batch | {"a": torch.cat([5 * draw(4, *SHAPE_A, seed=7), a[4:]])}
    found = model.training_step(other, 0).diagnostics
    for name in ("log_likelihood_b_from_a", "barlow_twins"):
        assert not torch.allclose(found[name], reference[name])
    none = model.training_step(batch | {"n_pairs": torch.tensor(0)}, 0)
    assert not set(joint) & set(none.diagnostics)
    assert float(none.diagnostics["weight"]) == 9
    one = model.training_step(batch | {"n_pairs": torch.tensor(1)}, 0)
    assert "barlow_twins" not in one.diagnostics  # one sample has no correlation
    assert torch.isfinite(one.objective)


def test_one_side_may_have_no_rows_at_all():
    model = make(cycle_weight=0.0)
    batch = {"a": A, "b": Y[:0], "n_pairs": torch.tensor(0)}
    result = model.training_step(batch, 0)
    assert torch.isfinite(result.objective)
    names = {"log_likelihood_a_from_a", "kl_divergence_a", "beta", "weight"}
    assert set(result.diagnostics) == names
    result.objective.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.b.parameters())
    assert set(make(cycle_weight=1.0).training_step(batch, 0).diagnostics) == {*names, "cycle_a"}


def test_what_comes_back_is_drawn_to_the_code_and_not_the_code_to_it():
    one, other = (make(cycle_weight=weight).eval() for weight in (2.0, 0.0))
    for model in (one, other):
        output = model(A, Y, n_pairs=4)
        model.compute_loss(A, Y, output).objective.backward()
    target = one(A, Y, n_pairs=4).a.mu[4:].detach()
    target_b = one(A, Y, n_pairs=4).b.mu[4:].detach()

    def by_hand():
        output = one(A, Y, n_pairs=4)
        back = one.b.encode(one.b.decode(output.a.z[4:, 0]).x_hat).mu
        back_b = one.a.encode(one.a.decode(output.b.z[4:, 0]).x_hat).mu
        return float(2.0 * (((back - target) ** 2).mean() + ((back_b - target_b) ** 2).mean()))

    plain = dict(other.named_parameters())
    for place, (name, parameter) in enumerate(one.named_parameters()):
        if parameter.grad is None:
            continue
        direction = draw(*parameter.shape, seed=100 + place)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(step * direction)
                values.append(by_hand())
                parameter.sub_(step * direction)
        without = plain[name].grad
        found = ((parameter.grad - (0.0 if without is None else without)) * direction).sum()
        slope = (values[0] - values[1]) / 2e-6
        assert float(found) == pytest.approx(slope, rel=1e-5, abs=1e-7), name


def test_in_the_separate_stage_nothing_joins_the_sides():
    weights = (0.5, 2.0, 3.0, 4.0)
    model = make(weights=weights, beta=0.4, projector=(5,))
    model.stage = "separate"
    state = model.generator.get_state()
    result = model.training_step({"a": A, "b": Y}, 10)
    terms = result.diagnostics
    assert set(terms) == {
        *("log_likelihood_a_from_a", "log_likelihood_b_from_b"),
        *("kl_divergence_a", "kl_divergence_b", "beta", "weight"),
    }
    expected = sum(
        0.4 * terms[f"kl_divergence_{s}"] / n - w * terms[f"log_likelihood_{s}_from_{s}"] / n
        for s, n, w in (("a", 12, 0.5), ("b", 4, 2.0))
    )
    torch.testing.assert_close(result.objective.detach(), expected)
    result.objective.backward()
    for part in (model.across_a, model.across_b, model.projector):
        assert all(p.grad is None or not p.grad.any() for p in part.parameters())
    gradients = {name: p.grad.clone() for name, p in model.a.named_parameters()}
    model.zero_grad()
    model.generator.set_state(state)
    model.training_step({"a": A, "b": 3 * Y + 1}, 10).objective.backward()
    for name, parameter in model.a.named_parameters():  # whatever the other side is
        assert torch.equal(parameter.grad, gradients[name]) and parameter.grad.any()


def test_in_the_separate_stage_a_side_has_the_gradient_of_a_plain_vae():
    model = make(weights=(1.0, 1.0, 5.0, 5.0), beta=0.4)
    model.stage = "separate"
    output = model(A, Y)
    model.compute_loss(A, Y, output, 0.4).objective.backward()
    found = {name: p.grad.clone() for name, p in model.a.named_parameters()}
    model.zero_grad()
    model.a.compute_loss(A, output_of(model.a, output.a.z, A), 0.4).objective.backward()
    for name, parameter in model.a.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)


def output_of(vae, z, x):
    """The forward pass of a VAE whose draws were ``z``."""
    posterior = vae.posterior(vae.features(x))
    noise = (z.detach() - posterior.mu.detach()[:, None]) / (
        0.5 * posterior.log_var.detach()
    ).exp()[:, None]
    redrawn = posterior.mu[:, None] + noise * (0.5 * posterior.log_var).exp()[:, None]
    codes = vae.codes_of(posterior, 1, None)._replace(z=redrawn)
    return type("Output", (), {"x_hat": vae.decode(redrawn).x_hat, **codes._asdict()})()


def test_codes_may_be_compared_behind_a_projector():
    model = make(projector=(6, 4), barlow_lambda=0.03)
    output = model(A, Y, n_pairs=5)
    result = model.compute_loss(A, Y, output)
    projected = []
    for codes in (output.a, output.b):  # batch norm without affine change, ReLU, linear: by hand
        linear, norm, _, last = model.projector.network
        hidden = codes.mu[:5, 0].detach() @ linear.weight.T + linear.bias
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt()
        projected.append(hidden.clamp_min(0.0) @ last.weight.T + last.bias)
    expected = barlow(*projected, 0.03)
    assert float(result.diagnostics["barlow_twins"]) == pytest.approx(expected, rel=1e-6)
    result.objective.backward()
    assert all(p.grad is not None for p in model.projector.parameters())


def conv_side(latent="map", channels=1, sizes=(4, 6), steps=16):
    decoder = ConvDecoder(D, channels, steps, sizes[::-1], latent=latent)
    return VAE(ConvEncoder(channels, sizes), decoder, D, latent=latent)


def test_steps_of_map_codes_count_as_samples():
    a, b = draw(5, 16, 1).float(), draw(5, 16, 2, seed=1).float()
    model = PairVAE(conv_side(), conv_side(channels=2)).build(a, b).eval()
    steps, width = model.a.latent_shape
    assert steps > 1 and width == D
    output = model(a, b, n_pairs=4)
    result = model.compute_loss(a, b, output)
    expected = barlow(output.a.mu[:4, 0], output.b.mu[:4, 0], 0.005)
    assert float(result.diagnostics["barlow_twins"]) == pytest.approx(expected, rel=1e-4)
    for name in "ab":
        own = getattr(output, name)
        found = float(result.diagnostics[f"kl_divergence_{name}"])
        assert found == pytest.approx(float(divergence(own).detach()), rel=1e-4, abs=1e-5)


def test_empty_cross_passes_leave_batch_statistics_alone():
    a, b = draw(5, 16, 1).float(), draw(5, 16, 2, seed=1).float()
    model = PairVAE(conv_side("vector"), conv_side("vector", 2)).build(a, b)
    model.stage = "separate"
    output = model(a, b)
    assert len(output.a_from_b) == len(output.b_from_a) == 0
    plain = conv_side("vector").build(a)  # from the same start
    plain.features(a)
    plain.decode(output.a.z)
    found = dict(model.a.named_buffers())
    for name, buffer in plain.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(found[name], buffer, msg=name)


def test_the_divergence_grows_over_the_annealing_steps():
    model = make(beta=2.0, annealing_steps=10)
    batch = {"a": A, "b": Y}
    found = [float(model.training_step(batch, step).diagnostics["beta"]) for step in (0, 5, 99)]
    assert found == pytest.approx([0.0, 1.0, 2.0])
    assert float(make(beta=2.0).training_step(batch, 0).diagnostics["beta"]) == 2.0


def test_the_criterion_is_deterministic_and_free_of_annealing():
    model = make(beta=2.0, annealing_steps=10).eval()
    batch = {"a": A, "b": Y, "mask_a": MASK_A, "weight_b": WEIGHT_B}
    state = model.generator.get_state()
    found = [model.training_step(batch, step) for step in (0, 5, 1000)]
    assert torch.equal(found[0].objective, found[1].objective)
    assert torch.equal(found[0].objective, found[2].objective)
    assert float(found[0].diagnostics["beta"]) == 2.0
    assert torch.equal(model.generator.get_state(), state)
    # It draws codes: a bound, not the loss at the means.
    means = model.compute_loss(A, Y, model(A, Y, mask_a=MASK_A), 2.0, MASK_A, weight_b=WEIGHT_B)
    assert not torch.allclose(means.objective, found[0].objective)
    model.train()
    first, second = (model.training_step(batch, 99).objective for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("projector", [None, (5, 4)])
def test_gradients_equal_finite_differences(projector):
    model = make(("gaussian", "bernoulli"), projector=projector, beta=0.5, cycle_weight=0.0)
    model.eval()
    batch = {
        **{"a": A, "b": (Y > 0).double(), "mask_a": MASK_A, "mask_b": MASK_B},
        **{"weight_a": WEIGHT_A, "weight_b": WEIGHT_B, "n_pairs": torch.tensor(5)},
    }
    model.training_step(batch, 0).objective.backward()
    for place, (name, parameter) in enumerate(model.named_parameters()):
        direction = draw(*parameter.shape, seed=100 + place)
        expected = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(step * direction)
                expected.append(float(model.training_step(batch, 0).objective))
                parameter.sub_(step * direction)
        slope = (expected[0] - expected[1]) / 2e-6
        found = 0.0 if parameter.grad is None else float((parameter.grad * direction).sum())
        assert found == pytest.approx(slope, rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("mask_input", [False, True])
def test_masked_entries_poison_neither_loss_nor_gradient(mask_input):
    def run(a, b, masks, weight):
        sides = [side(s, 1.0, mask_input=mask_input) for s in (SHAPE_A, SHAPE_B)]
        model = PairVAE(*sides, generator=generator(6)).build(A, Y)
        batch = {"a": a, "b": b, "mask_a": masks[0], "mask_b": masks[1], "weight_a": weight}
        result = model.training_step(batch, 0)
        result.objective.backward()
        return result.objective.detach(), [p.grad for p in model.parameters()]

    masks = (MASK_A.clone(), MASK_B.clone())
    masks[0][0] = False  # nothing of this record is known
    clean = run(A, Y, masks, WEIGHT_A)
    dirty = [torch.where(m, x, torch.nan) for x, m in zip((A, Y), masks, strict=True)]
    poisoned = run(*dirty, masks, WEIGHT_A)
    assert torch.isfinite(clean[0]) and torch.equal(clean[0], poisoned[0])
    for one, two in zip(clean[1], poisoned[1], strict=True):
        assert torch.isfinite(two).all() and torch.equal(one, two)
    as_numbers = run(*dirty, [m.double() for m in masks], WEIGHT_A)
    assert torch.equal(as_numbers[0], clean[0])


def test_equal_codes_have_finite_gradients():
    model = make(barlow_weight=1.0)
    same = A[:1].expand(B, -1, -1)
    model.training_step({"a": same, "b": Y}, 0).objective.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("to", ["a", "b"])
@pytest.mark.parametrize("law", ["gaussian", "bernoulli"])
def test_draws_across_are_expected_values_at_posterior_draws(to, law):
    model = make((law, law))
    given = "b" if to == "a" else "a"
    x = A if given == "a" else Y
    mask = MASK_A if given == "a" else MASK_B
    found = model.draw_across(x, given, 4, mask, generator(3))
    own, other = model.side(given), model.side(to)
    with torch.no_grad():
        posterior = own.posterior(own.features(x, mask))
        noise = torch.randn(B, 4, D, generator=generator(3), dtype=torch.float64)
        z = posterior.mu[:, None] + noise * torch.exp(0.5 * posterior.log_var)[:, None]
        expected = other.decode(z).x_hat
    if law == "bernoulli":
        expected = torch.sigmoid(expected)
    torch.testing.assert_close(found, expected)
    assert found.shape == (B, 4, *(SHAPE_A if to == "a" else SHAPE_B))
    assert model.training and not found.requires_grad
    first, second = (model.draw_across(x, given, 2) for _ in range(2))
    assert not torch.equal(first, second)  # the model's own generator
    torch.testing.assert_close(model.expected_values(other.decode(z).x_hat, to), expected)


def test_one_build_is_enough():
    model = make()
    before = {name: id(p) for name, p in model.named_parameters()}
    assert model.build(A, Y) is model
    assert {name: id(p) for name, p in model.named_parameters()} == before
    with pytest.raises(ValueError, match="built for records of shape"):
        model.build(A[:, :5], Y)
    assert model.latent_dim == D
    parts = [*model.a.network_modules(), *model.b.network_modules()]
    assert model.network_modules() == parts


def test_across_scales_are_their_own_and_train():
    model = make()
    assert not torch.equal(model.across_a.raw_scale, model.a.observation.raw_scale)
    model.training_step({"a": A, "b": Y}, 0).objective.backward()
    for part in (model.across_a, model.across_b, model.a.observation, model.b.observation):
        assert part.raw_scale.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": (1, 1, 1)}, "four finite numbers"),
        ({"weights": (1, 1, 1, -1)}, "four finite numbers"),
        ({"weights": (1, 1, 1, math.nan)}, "four finite numbers"),
        ({"weights": (0, 0, 0, 0)}, "not all 0"),
        ({"beta": -1.0}, "beta must be a finite number >= 0, got -1.0"),
        ({"barlow_weight": math.inf}, "barlow_weight must be a finite number >= 0, got inf"),
        ({"cycle_weight": math.nan}, "cycle_weight must be a finite number >= 0, got nan"),
        ({"barlow_lambda": -0.1}, "barlow_lambda must be a finite number >= 0, got -0.1"),
        ({"annealing_steps": -1}, "annealing_steps"),
        ({"projector": (4, 0)}, "projector"),
    ],
)
def test_impossible_options(options, words):
    with pytest.raises(ValueError, match=words):
        make(**options)


def test_errors():
    with pytest.raises(TypeError, match=r"b must be a tsvae\.models\.VAE"):
        PairVAE(side(SHAPE_A, 1.0), torch.nn.Linear(2, 2))
    unlike = PairVAE(side(SHAPE_A, 1.0), side(SHAPE_B, 1.0, latent_dim=2))
    for use in (
        lambda: unlike(A, Y),
        lambda: unlike.training_step({"a": A, "b": Y}, 0),
        lambda: unlike.encode(A, "a"),
        lambda: unlike.decode(A, "a"),
        lambda: unlike.draw_across(A, "a", 2),
    ):
        with pytest.raises(RuntimeError, match=r"call build\(sample_a, sample_b\)"):
            use()
    with pytest.raises(ValueError, match=r"one shape, got \(3,\) and \(2,\)"):
        unlike.build(A, Y)
    maps = PairVAE(conv_side(), conv_side(steps=32))
    with pytest.raises(ValueError, match="records of the same length"):
        maps.build(torch.zeros(2, 16, 1), torch.zeros(2, 32, 1))
    model = make()
    with pytest.raises(ValueError, match="a has 7 rows and b has 3; give n_pairs"):
        model(A, Y[:3])
    for n_pairs in (4, -1):
        with pytest.raises(ValueError, match=f"n_pairs must be 0 to 3, got {n_pairs}"):
            model(A, Y[:3], n_pairs=n_pairs)
    for use in (lambda: model.side("X"), lambda: model.draw_across(A, "c", 2)):
        with pytest.raises(ValueError, match="side must be 'a' or 'b'"):
            use()
    with pytest.raises(ValueError, match="x must have shape"):
        model(Y, A)
    with pytest.raises(KeyError, match="'b'"):
        model.training_step({"a": A}, 0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_draw_and_train_as_the_original(copied):
    model = make(projector=(4,))
    twin = copied(model)
    batch = {"a": A, "b": Y, "n_pairs": torch.tensor(5)}
    results = [m.training_step(batch, 3) for m in (model, twin)]
    assert torch.equal(results[0].objective, results[1].objective)
    assert twin.generator is not model.generator
    results[0].objective.backward()
    assert all(p.grad is None for p in twin.parameters())


def test_no_global_random_state_is_touched():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = make(projector=(4,))
    model.training_step({"a": A, "b": Y}, 0).objective.backward()
    model.eval().training_step({"a": A, "b": Y}, 0)
    model.draw_across(A, "a", 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    one, two = (make(projector=(4,), generator=generator(3)) for _ in range(2))
    batch = {"a": A, "b": Y}
    assert torch.equal(one.training_step(batch, 0).objective, two.training_step(batch, 0).objective)


def test_unpaired_codes_go_round_by_the_other_side():
    model = make(("gaussian", "gaussian"), cycle_weight=2.0).train()
    output = model(A, Y, n_pairs=2)
    model.cycle_weight = 0.0
    plain = model.compute_loss(A, Y, output._replace(a_again=None, b_again=None))
    model.cycle_weight = 2.0
    loss = model.compute_loss(A, Y, output)
    expected = 0.0
    for name, result, again, other in (
        ("a", output.a, output.a_again, model.b),
        ("b", output.b, output.b_again, model.a),
    ):
        decoded = other.decode(result.z[2:, 0]).x_hat
        by_hand = other.posterior(other.features(decoded, torch.ones_like(decoded).bool())).mu
        torch.testing.assert_close(again[:, 0], by_hand)
        error = ((by_hand - result.z[2:, 0]) ** 2).mean()
        torch.testing.assert_close(loss.diagnostics[f"cycle_{name}"], error)
        expected = expected + 2.0 * error
    torch.testing.assert_close(loss.objective - plain.objective, expected)
    assert model(A, Y).a_again is None  # nothing is unpaired
    model.stage = "separate"
    assert model(A, Y, n_pairs=2).b_again is None
