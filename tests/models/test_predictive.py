"""Forecasts, smoothed values and predictive densities against dense joint-Gaussian conditioning."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from tsvae.models.coupling import StateCoupling
from tsvae.models.predictive import (
    NormalPredictive,
    SamplePredictive,
    forecast,
    one_step_log_density,
    sample_paths,
    smooth_latents,
    smooth_values,
)

DTYPE = torch.float64
B, T, H, F = 3, 10, 4, 3


def close(got, want, rtol=1e-8):
    want = np.asarray(want)
    assert got.shape == want.shape
    assert np.linalg.norm(np.asarray(got) - want) <= rtol * np.linalg.norm(want)


def make_case(dense, kind, posterior="point", seed=0):
    """A model that equals its own exact law, data with gaps, and that law per chain."""
    rng = np.random.default_rng(seed)
    channelwise = kind == "channelwise"
    size, n_inputs = (2, 0) if channelwise else (4, 2 * (kind == "inputs"))
    params = dense.random_system(1, size, n_inputs, seed)
    width = 1 if channelwise else F
    matrix, variance = rng.normal(size=(width, size)), rng.uniform(0.2, 1.0, width)
    offset = rng.normal(size=width)
    settings = {"channelwise": channelwise, "learn_scale": channelwise, "n_features": F}
    if kind == "block":
        # Each variable reads one group: block potentials are then exact.
        params = dense.random_system(2, 2, 0, seed)
        matrix[:2, 2:], matrix[2:, :2] = 0.0, 0.0
        settings["potential"] = "block"
    model = dense.exact_model(params, matrix, variance, offset, posterior, **settings).eval()
    scale = np.ones(F)
    if channelwise:
        scale = np.array([0.5, 1.0, 4.0])
        with torch.no_grad():
            model.log_scale.copy_(torch.tensor(scale).log())
    x = rng.normal(size=(B, T, F)).cumsum(1)
    seen = rng.random((B, T, F)) > 0.3
    seen[1, 4:6] = False
    seen[2] = seen[1]
    seen[0, -2:] = False
    inputs = rng.normal(size=(B, T + H, n_inputs)) if n_inputs else None
    effect = np.zeros((B, T + H, F))
    if n_inputs:
        weights = rng.normal(size=(F, n_inputs))
        with torch.no_grad():
            model.covariate_matrix.copy_(torch.tensor(weights))
        effect = inputs @ weights.T
    x = np.where(seen, x, 0.0)

    def laws(rows, after=0):
        """Conditional law of each series' chains given its first ``rows`` rows."""
        for b in range(B):
            known = None if inputs is None else inputs[b, : rows + after]
            law = dense.joint(params, matrix, variance, offset, rows + after, known)
            residual = (x - effect[:, :T])[b, :rows] / scale
            if not channelwise:
                yield dense.condition(law, residual, seen[b, :rows])
                continue
            parts = [dense.condition(law, residual[:, f], seen[b, :rows, f]) for f in range(F)]
            yield SimpleNamespace(
                mean=np.concatenate([p.mean for p in parts], 1) * scale,
                variance=np.concatenate([p.variance for p in parts], 1) * scale**2,
                fresh_mean=np.concatenate([p.fresh_mean for p in parts], 1) * scale,
                fresh_variance=np.concatenate([p.fresh_variance for p in parts], 1) * scale**2,
                z_mean=np.concatenate([p.z_mean for p in parts], 1),
                z_variance=np.concatenate([p.z_variance for p in parts], 1),
                log_density=sum(p.log_density for p in parts)
                - (seen[b, :rows] * np.log(scale)).sum(),
            )

    as_tensor = None if inputs is None else torch.tensor(inputs)
    return SimpleNamespace(
        model=model,
        x=torch.tensor(x),
        seen=torch.tensor(seen),
        inputs=None if as_tensor is None else as_tensor[:, :T],
        future=None if as_tensor is None else as_tensor[:, T:],
        effect=effect,
        laws=laws,
    )


KINDS = ["plain", "block", "channelwise"]


@pytest.fixture(scope="module", params=[*KINDS, "inputs"])
def case(request, dense):
    return make_case(dense, request.param)


@pytest.fixture(scope="module", params=KINDS)
def closed_case(request, dense):
    """Without inputs of the state, whose forecasts are samples (tested below)."""
    return make_case(dense, request.param)


# -- exact laws ------------------------------------------------------------------------------------


def test_smoothed_values(case):
    found = smooth_values(case.model, case.x, case.seen, case.inputs)
    assert isinstance(found, NormalPredictive)
    for b, law in enumerate(case.laws(T)):
        close(found.mean[b], law.fresh_mean + case.effect[b, :T])
        close(found.scale[b] ** 2, law.fresh_variance)
        hidden = ~case.seen[b].numpy()  # of these, what is known of the entry itself
        close(found.mean[b].numpy()[hidden], (law.mean + case.effect[b, :T])[hidden])
        close(found.scale[b].numpy()[hidden] ** 2, law.variance[hidden])


def test_smoothed_latents(case):
    found = smooth_latents(case.model, case.x, case.seen, case.inputs)
    for b, law in enumerate(case.laws(T)):
        close(found.mean[b], law.z_mean)
        close(found.variance[b], law.z_variance)


def test_forecast(closed_case):
    case = closed_case
    found = forecast(case.model, case.x, case.seen, H)
    assert isinstance(found, NormalPredictive)
    for b, law in enumerate(case.laws(T, H)):
        close(found.mean[b], law.mean[T:])
        close(found.scale[b] ** 2, law.variance[T:])


def test_forecast_after_some_rows(closed_case):
    """Histories of different lengths in one batch."""
    case = closed_case
    lengths = torch.tensor([T, 7, T - 1])
    clock = torch.arange(T)[None, :, None]
    seen = case.seen & (clock < lengths[:, None, None])
    found = forecast(case.model, case.x, seen, H, lengths=lengths)
    for b, rows in enumerate(lengths.tolist()):
        law = list(case.laws(rows, H))[b]
        close(found.mean[b], law.mean[rows:])
        close(found.scale[b] ** 2, law.variance[rows:])


def test_one_step_log_densities_sum_to_the_log_likelihood(case):
    found = one_step_log_density(case.model, case.x, case.seen, case.inputs)
    assert found.shape == (B, T)
    close(found.sum(1), [law.log_density for law in case.laws(T)])
    shorter = [law.log_density for law in case.laws(T - 1)]
    close(found[:, :-1].sum(1), shorter)
    assert not found[0, -2:].any() and found[1].count_nonzero() == T - 2


@pytest.mark.parametrize("posterior", ["point", "natural"])
def test_densities_of_many_variables_are_worked_out_in_pieces(dense, monkeypatch, posterior):
    case = make_case(dense, "joint", posterior)
    whole = one_step_log_density(case.model, case.x, case.seen)
    monkeypatch.setattr("tsvae.models.log_density._ENTRIES_AT_ONCE", 3 * B * F * F)
    close(one_step_log_density(case.model, case.x, case.seen), whole, 1e-12)


@pytest.mark.parametrize("kind", ["plain", "inputs", "channelwise"])
def test_sampled_paths_have_the_exact_moments(dense, kind):
    case = make_case(dense, kind)
    n = 8000
    paths = sample_paths(
        case.model,
        case.x,
        case.seen,
        H,
        n,
        inputs=case.inputs,
        future_inputs=case.future,
        generator=torch.Generator().manual_seed(0),
    )
    assert paths.shape == (n, B, H, F)
    for b, law in enumerate(case.laws(T, H)):
        want, deviation = law.mean[T:] + case.effect[b, T:], np.sqrt(law.variance[T:])
        error = (paths[:, b].mean(0).numpy() - want) / deviation * np.sqrt(n)
        assert np.abs(error).max() < 5
        spread = paths[:, b].std(0).numpy() / deviation
        assert np.abs(spread - 1).max() < 5 / np.sqrt(2 * n)


def test_inputs_of_the_state_are_forecast_by_samples(dense):
    case = make_case(dense, "inputs")
    found = forecast(
        case.model, case.x, case.seen, H, inputs=case.inputs, future_inputs=case.future
    )
    assert isinstance(found, SamplePredictive) and found.samples.shape == (200, B, H, F)
    again = forecast(
        case.model, case.x, case.seen, H, inputs=case.inputs, future_inputs=case.future
    )
    assert torch.equal(found.samples, again.samples)


@pytest.mark.parametrize("posterior", ["natural", "gradient"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sure_posterior_is_a_point(dense, kind, posterior):
    """With many pseudo-observations q(theta) gives what the point estimate gives."""
    case = make_case(dense, kind, posterior)
    found = forecast(case.model, case.x, case.seen, H)
    inside = smooth_values(case.model, case.x, case.seen)
    density = one_step_log_density(case.model, case.x, case.seen)
    for b, law in enumerate(case.laws(T, H)):
        close(found.mean[b], law.mean[T:], rtol=1e-6)
        close(inside.mean[b], law.fresh_mean[:T], rtol=1e-6)
        assert density[b].sum().item() == pytest.approx(law.log_density, rel=1e-6)


@pytest.mark.parametrize("posterior", ["natural", "gradient", "point"])
def test_density_of_a_row_is_that_of_its_forecast(dense, posterior):
    """score_samples and predict agree, under an unsure posterior, too."""
    case = make_case(dense, "channelwise", posterior)
    if posterior != "point":
        plug_in = case.model.dynamics.plug_in(detach=True)
        case.model.dynamics.theta.reset(plug_in, strength=20.0)
    seen = torch.ones_like(case.seen)
    x = case.x + torch.randn(case.x.shape, generator=torch.Generator().manual_seed(3))
    density = one_step_log_density(case.model, x, seen)
    for t in (1, 4, T - 1):
        ahead = forecast(case.model, x[:, :t], seen[:, :t], 1)
        want = norm(ahead.mean[:, 0], ahead.scale[:, 0]).logpdf(x[:, t]).sum(-1)
        close(density[:, t], want)


# -- sampled distributions -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "channelwise"])
def test_sampled_distributions_converge_to_the_closed_ones(dense, kind):
    case = make_case(dense, kind)
    closed = (
        forecast(case.model, case.x, case.seen, H),
        smooth_values(case.model, case.x, case.seen),
        one_step_log_density(case.model, case.x, case.seen),
    )
    case.model.closed_form = False
    n = 6000
    ahead = forecast(case.model, case.x, case.seen, H, n_samples=n)
    inside = smooth_values(case.model, case.x, case.seen, n_samples=n)
    for sampled, exact in zip((ahead, inside), closed, strict=False):
        assert isinstance(sampled, SamplePredictive)
        error = (sampled.mean - exact.mean) / exact.scale * np.sqrt(n)
        assert error.abs().max() < 5
        assert (sampled.scale / exact.scale - 1).abs().max() < 5 / np.sqrt(2 * n)
        levels = torch.tensor([0.1, 0.5, 0.9])
        gap = (sampled.quantiles(levels) - exact.quantiles(levels)) / exact.scale.unsqueeze(-1)
        assert gap.abs().max() < 0.12
    density = one_step_log_density(case.model, case.x, case.seen, n_samples=n)
    # A mean of densities: close where the row is not far out.
    usual = closed[2] > torch.quantile(closed[2], 0.25)
    assert (density - closed[2])[usual].abs().max() < 0.5
    assert (density - closed[2])[usual].mean().abs() < 0.05


def test_quantiles():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(2, 3, 4, dtype=DTYPE, generator=generator)
    scale = 0.5 + torch.rand(2, 3, 4, dtype=DTYPE, generator=generator)
    levels = torch.tensor([0.05, 0.5, 0.9])
    found = NormalPredictive(mean, scale).quantiles(levels)
    want = norm(mean[..., None], scale[..., None]).ppf(levels.double().numpy())
    close(found, want)
    samples = torch.randn(50, 2, 3, 4, dtype=DTYPE, generator=generator)
    found = SamplePredictive(samples).quantiles(levels)
    close(found, np.moveaxis(np.quantile(samples.numpy(), levels.double().numpy(), axis=0), 0, -1))
    close(SamplePredictive(samples).mean, samples.numpy().mean(0))
    close(SamplePredictive(samples).scale, samples.numpy().std(0, ddof=1))


def test_a_long_horizon_is_finite_and_settles(dense):
    case = make_case(dense, "plain")
    found = forecast(case.model, case.x, case.seen, 10_000)
    assert found.mean.isfinite().all() and found.scale.isfinite().all()
    torch.testing.assert_close(found.mean[:, -1], found.mean[:, -500])
    torch.testing.assert_close(found.mean[0, -1], found.mean[1, -1])
    assert (found.scale[:, 1:] > 0).all()


def test_generators_decide_the_draws(dense):
    case = make_case(dense, "plain")
    draws = [
        sample_paths(
            case.model, case.x, case.seen, 2, 3, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_single_precision_agrees(case):
    double = smooth_values(case.model, case.x, case.seen, case.inputs)
    try:
        model = case.model.float()
        inputs = None if case.inputs is None else case.inputs.float()
        single = smooth_values(model, case.x.float(), case.seen, inputs)
    finally:
        case.model.double()
    assert single.mean.dtype == torch.float32
    error = (single.mean - double.mean).norm() / double.mean.norm()
    assert error < 1e-3


@pytest.fixture
def coupled(dense):
    """A case without inner gaps, its model coupled."""
    case = make_case(dense, "channelwise")
    case.model.coupling = StateCoupling(2, F).double()
    with torch.no_grad():
        matrix = torch.tensor([[0.1, -0.4], [0.3, 0.2]])
        case.model.coupling.matrix.copy_(torch.arange(1.0, F + 1)[:, None, None] * matrix)
    case.model.coupling.bridged.fill_(False)
    case.seen = torch.ones_like(case.seen)
    return case


def test_a_coupling_acts_on_the_state_after_the_last_value_seen(coupled):
    """Coupled there, then carried over the rows that follow."""
    model, n_seen = coupled.model, [T - 2, T, T]
    coupled.seen[0, -2:] = False
    found = forecast(model, coupled.x, coupled.seen, H)
    params = model.requires_grad_(False).dynamics.plug_in()
    a, bias = params.transition_matrix[0].numpy(), params.bias[0].numpy()
    scale = model.log_scale.exp().numpy()
    for b, rows in enumerate(n_seen):
        part = coupled.x[b : b + 1, :rows], coupled.seen[b : b + 1, :rows]
        z = smooth_latents(model, *part).mean[0, -1].unflatten(0, (F, 2)).numpy()
        z = z + np.stack([m @ own for m, own in zip(model.coupling.matrix.numpy(), z, strict=True)])
        for step in range(rows, T + H):
            z = z @ a.T + bias.flatten()
            if step >= T:
                value = z @ model.decoder.emission_matrix[0].numpy() + model.decoder.offset.item()
                close(found.mean[b, step - T], value * scale, rtol=1e-6)


def test_density_of_a_row_is_that_of_its_coupled_forecast(coupled):
    ahead = forecast(coupled.model, coupled.x[:, :-1], coupled.seen[:, :-1], 1)
    density = one_step_log_density(coupled.model, coupled.x, coupled.seen)
    wanted = norm.logpdf(coupled.x[:, -1], ahead.mean[:, 0], ahead.scale[:, 0]).sum(1)
    np.testing.assert_allclose(density[:, -1], wanted, rtol=1e-8)


def test_inner_gaps_are_bridged_before_a_coupling(coupled):
    coupled.seen[1, 4:6] = False
    waiting = forecast(coupled.model, coupled.x, coupled.seen, H)
    coupled.model.coupling.bridged.fill_(True)
    found = forecast(coupled.model, coupled.x, coupled.seen, H)
    filled = coupled.x.clone()
    for step, share in ((4, 1 / 3), (5, 2 / 3)):
        filled[1, step] = (1 - share) * coupled.x[1, 3] + share * coupled.x[1, 6]
    wanted = forecast(coupled.model, filled, torch.ones_like(coupled.seen), H)
    torch.testing.assert_close(found.mean, wanted.mean)
    assert (waiting.mean[1] - found.mean[1]).abs().max() > 1e-3
