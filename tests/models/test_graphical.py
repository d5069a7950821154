"""The protocol and registry of graphical models, and the linear dynamical system behind it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tsvae.lds import (
    Potentials,
    block_precision,
    expected_statistics,
    filter_states,
    forecast_states,
    local_kl_from_normalizer,
    sample_forecast,
    sample_posterior,
    smooth,
)
from tsvae.lds.linalg import inverse_positive
from tsvae.lds.priors import SufficientStatistics, expected_sufficient_statistics
from tsvae.models import get_graphical_model, graphical_model_names, register_graphical_model
from tsvae.models import graphical as registry
from tsvae.models.graphical import GraphicalModel, State
from tsvae.models.linear_dynamics import LinearDynamics

DTYPE = torch.float64
B, T, U = 4, 9, 2
POSTERIORS = ["natural", "gradient", "point"]
SHARING = ["shared", "own", "indexed"]


def draw(generator, *shape):
    return torch.randn(*shape, dtype=DTYPE, generator=generator)


def dynamics(posterior="gradient", group_size=2, n_inputs=0, **settings):
    """Four latent dimensions, moved away from the start so that nothing is symmetric."""
    model = LinearDynamics(
        4, n_inputs=n_inputs, group_size=group_size, posterior=posterior, **settings
    ).double()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * draw(generator, *parameter.shape))
    return model


def potentials_of(sharing, seed=0):
    """Random diagonal potentials; the last steps are unseen, and some before them."""
    generator = torch.Generator().manual_seed(seed)
    rows = {"shared": 1, "own": B, "indexed": 2}[sharing]
    seen = torch.rand(rows, T, generator=generator) < 0.7
    seen[:, 0] = True
    seen[:, -3] = True
    seen[:, -2:] = False
    pattern = torch.tensor([0, 1, 1, 0]) if sharing == "indexed" else None
    precision = (1.0 + draw(generator, rows, T, 4) ** 2) * seen[..., None]
    where = seen[pattern] if pattern is not None else seen
    linear = 2.0 * draw(generator, B, T, 4) * where[..., None]
    return Potentials(linear, precision, pattern)


LENGTHS = torch.full((B,), T - 2)


def inputs_of(n_inputs, steps=T, n=B):
    if not n_inputs:
        return None
    return draw(torch.Generator().manual_seed(5), n, steps, n_inputs)


# -- registry --------------------------------------------------------------------------------------


@pytest.fixture
def own_registry(monkeypatch):
    graphical_model_names()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


def test_lds_is_there():
    assert "lds" in graphical_model_names()
    assert get_graphical_model("lds") is LinearDynamics


def test_unknown_name_lists_those_there_are():
    with pytest.raises(ValueError, match=r"'hmm' is not known; choose one of \[.*'lds'.*\]"):
        get_graphical_model("hmm")


def test_a_model_of_ones_own(own_registry):
    @register_graphical_model("own")
    class Own(nn.Module):
        pass

    assert get_graphical_model("own") is Own
    assert graphical_model_names() == sorted(["lds", "own"])


def test_a_name_is_given_once(own_registry):
    with pytest.raises(ValueError, match=r"'lds' exists already \(LinearDynamics\)"):
        register_graphical_model("lds")(nn.Module)
    assert get_graphical_model("lds") is LinearDynamics


def test_linear_dynamics_follows_the_protocol():
    methods = [
        name
        for name, member in vars(GraphicalModel).items()
        if callable(member) and not name.startswith("_")
    ]
    assert {"infer", "sample", "prior_kl", "states_at", "forecast"} <= set(methods)
    assert [name for name in methods if not callable(getattr(LinearDynamics, name, None))] == []


# -- inference -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_infer_is_the_filter_and_smoother(posterior, sharing):
    model, potentials = dynamics(posterior, n_inputs=U), potentials_of(sharing)
    inputs = inputs_of(U)
    got = model.infer(potentials, inputs, LENGTHS)
    params = model.theta.parameters_for_inference()
    filtered = filter_states(params, potentials, inputs, LENGTHS)
    smoothed = smooth(params, filtered)
    torch.testing.assert_close(got.mean, smoothed.smoothed_mean)
    torch.testing.assert_close(got.covariance, smoothed.smoothed_covariance)
    by_definition = local_kl_from_normalizer(potentials, smoothed, filtered.log_normalizer)
    torch.testing.assert_close(got.local_kl, by_definition, rtol=1e-8, atol=1e-8)
    assert (got.pattern is None) == (smoothed.pattern is None)


def test_dense_dynamics():
    model = dynamics(group_size=None)
    assert model.group_size == 4
    assert model.infer(potentials_of("shared"), None, LENGTHS).covariance.shape == (1, T, 1, 4, 4)


def test_natural_parameters_and_prior_kl():
    natural, ordinary = dynamics("natural"), dynamics("gradient")
    assert len(natural.natural_parameters()) == 2 and ordinary.natural_parameters() == []
    torch.testing.assert_close(natural.prior_kl(), ordinary.prior_kl())
    assert natural.prior_kl().ndim == 0 and natural.prior_kl() > 0


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_sample_is_joint_and_reproducible(posterior):
    model, potentials = dynamics(posterior), potentials_of("indexed")
    found = model.infer(potentials, None, LENGTHS)
    z = model.sample(found, 3, torch.Generator().manual_seed(1))
    params = model.theta.parameters_for_inference()
    filtered = filter_states(params, potentials, None, LENGTHS)
    want = sample_posterior(params, filtered, torch.Generator().manual_seed(1), 3)
    assert z.shape == (3, B, T, 4)
    torch.testing.assert_close(z, want)


def test_samples_have_the_posterior_moments():
    model = dynamics()
    with torch.no_grad():
        found = model.infer(potentials_of("shared"), None, LENGTHS)
        z = model.sample(found, 4000, torch.Generator().manual_seed(1))
    deviation = found.covariance.diagonal(dim1=-2, dim2=-1).flatten(-2).sqrt()
    error = (z.mean(0) - found.mean) / deviation * math.sqrt(len(z))
    assert error.abs().max() < 5
    torch.testing.assert_close(
        z.std(0) / deviation, torch.ones_like(error), rtol=0, atol=5 / math.sqrt(2 * len(z))
    )


# -- inference whose result is cut from theta ------------------------------------------------------


def trainable(potentials):
    return potentials._replace(
        linear=potentials.linear.clone().requires_grad_(),
        precision=potentials.precision.clone().requires_grad_(),
    )


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_detached_has_the_same_values(posterior, sharing):
    model, inputs = dynamics(posterior, n_inputs=U), inputs_of(U)
    one, other = trainable(potentials_of(sharing)), trainable(potentials_of(sharing))
    whole = model.infer(one, inputs, LENGTHS)
    cut = model.infer_detached(other, inputs, LENGTHS)
    for name in ("mean", "covariance", "local_kl"):
        torch.testing.assert_close(getattr(cut, name), getattr(whole, name), msg=name)
    samples = [model.sample(p, 2, torch.Generator().manual_seed(3)) for p in (whole, cut)]
    torch.testing.assert_close(samples[1], samples[0])
    # The networks see the same gradient as ever.
    for found, potentials in ((whole, one), (cut, other)):
        (found.local_kl.sum() + found.mean.square().sum()).backward()
        assert potentials.linear.grad.abs().max() > 0
    torch.testing.assert_close(other.linear.grad, one.linear.grad)
    torch.testing.assert_close(other.precision.grad, one.precision.grad)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_detached_moments_and_samples_send_nothing_to_theta(posterior):
    model = dynamics(posterior)
    potentials = trainable(potentials_of("indexed"))
    cut = model.infer_detached(potentials, None, LENGTHS)
    samples = model.sample(cut, 2, torch.Generator().manual_seed(0))
    (cut.mean.sum() + cut.covariance.sum() + samples.sum()).backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert potentials.linear.grad.abs().max() > 0


def expected_log_density(model, statistics):
    """E_q(z) E_q(theta) log p(z | theta) from the sums of states and the mean of t(theta)."""
    theta = model.theta
    if theta.posterior == "point":
        point = theta.plug_in()
        regression = torch.cat(
            (point.transition_matrix, point.input_matrix, point.bias.unsqueeze(-1)), dim=-1
        )
        means = [
            plug_in_statistics(point.initial_mean.unsqueeze(-1), point.initial_covariance),
            plug_in_statistics(regression, point.noise_covariance),
        ]
    else:
        q = theta.standard()
        means = [expected_sufficient_statistics(f) for f in (q.initial.as_mniw(), q.transition)]
    total = 0.0
    for sums, mean in zip(statistics, means, strict=True):
        parts = (sums.outcome_outer, sums.outcome_regressor, sums.regressor_outer)
        for part, weight in zip(parts, mean[:3], strict=True):
            total = total + (part * weight).sum()
        total = total + (sums.n_observations * mean.half_log_det).sum()
        total = total - 0.5 * sums.n_observations.sum() * theta.group_size * math.log(2 * math.pi)
    return total


def plug_in_statistics(coefficients, covariance):
    precision = inverse_positive(covariance)
    weighted = precision @ coefficients
    half_log_det = -0.5 * torch.logdet(covariance)
    outer = coefficients.mT @ weighted
    return SufficientStatistics(-0.5 * precision, weighted, -0.5 * outer, half_log_det)


@pytest.mark.parametrize("group_size", [2, None])
@pytest.mark.parametrize("posterior", ["gradient", "point"])
def test_detached_local_kl_has_its_own_gradient(posterior, group_size):
    """-E_q[d log p(z | theta)], q(z) as it is: by central differences of that expectation."""
    # No cap: of groups above two its radius counts as a constant for gradients.
    model = dynamics(posterior, group_size, n_inputs=U, spectral_radius_max=None)
    potentials, inputs = potentials_of("indexed"), inputs_of(U)
    model.infer_detached(potentials, inputs, LENGTHS).local_kl.sum().backward()
    with torch.no_grad():
        params = model.theta.parameters_for_inference()
        filtered = filter_states(params, potentials, inputs, LENGTHS)
        statistics = expected_statistics(params, smooth(params, filtered), inputs, LENGTHS)
        for parameter in model.parameters():
            want = torch.zeros_like(parameter)
            for at in range(parameter.numel()):
                values = []
                for step in (1e-5, -1e-5):
                    parameter.view(-1)[at] += step
                    values.append(-expected_log_density(model, statistics).item())
                    parameter.view(-1)[at] -= step
                want.view(-1)[at] = (values[0] - values[1]) / 2e-5
            torch.testing.assert_close(parameter.grad, want, rtol=1e-5, atol=1e-5)
            assert want.abs().max() > 1e-2


def test_the_whole_gradient_is_another():
    """Otherwise the test above could not tell the two apart."""
    gradients = []
    for name in ("infer", "infer_detached"):
        model = dynamics("gradient")
        getattr(model, name)(potentials_of("own"), None, LENGTHS).local_kl.sum().backward()
        gradients.append(model.theta.transition_factor.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-2


# -- states from which forecasts start -------------------------------------------------------------


def rows(values, pattern):
    if pattern is not None:
        return values[pattern]
    return values.expand(B, *values.shape[1:])


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("group_size", [2, None])
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_states_at_is_the_filter_of_a_chain_cut_there(posterior, group_size, sharing):
    model = dynamics(posterior, group_size, n_inputs=U)
    potentials, inputs = potentials_of(sharing), inputs_of(U)
    filtered = model.filter(potentials, inputs, LENGTHS)
    steps = torch.tensor([0, 2, 5, T - 3])
    states = model.states_at(filtered, potentials, steps)
    groups, size = filtered.params.n_groups, filtered.params.group_size
    assert states.mean.shape == (len(steps) * B, 4)
    assert states.covariance.shape == (len(steps) * B, groups, size, size)
    for number, step in enumerate(steps.tolist()):
        cut = filter_states(
            model.theta.parameters_for_inference(),
            Potentials(
                potentials.linear[:, : step + 1],
                potentials.precision[:, : step + 1],
                potentials.pattern,
            ),
            inputs[:, : step + 1],
            torch.full((B,), step + 1),
        )
        part = slice(number * B, (number + 1) * B)
        torch.testing.assert_close(states.mean[part], cut.filtered_mean[:, -1])
        covariance = rows(cut.filtered_covariance[:, -1], cut.pattern)
        torch.testing.assert_close(states.covariance[part], covariance)


def test_states_at_differs_from_the_filter_where_there_is_excess():
    """Otherwise the test above could not tell the two apart."""
    model, potentials = dynamics("gradient"), potentials_of("own")
    filtered = model.filter(potentials, None, LENGTHS)
    state = model.states_at(filtered, potentials, torch.tensor([2]))
    inside = filtered.result.filtered_covariance[:, 2]
    assert ((state.covariance - inside).abs().amax(dim=(1, 2, 3)) > 1e-3).all()


def test_states_at_with_lengths_that_differ():
    """The excess splits patterns of the filter; the potentials keep theirs."""
    model, potentials = dynamics("gradient"), potentials_of("shared")
    lengths = torch.tensor([T - 2, 4, 4, T - 2])
    seen = torch.arange(T) < lengths[:, None]
    potentials = potentials._replace(
        linear=potentials.linear * seen[..., None],
        precision=potentials.precision * seen[:2, :, None],
        pattern=torch.tensor([0, 1, 1, 0]),
    )
    filtered = model.filter(potentials, None, lengths)
    state = model.states_at(filtered, potentials, torch.tensor([2, 6]))
    for number, step in enumerate((2, 6)):
        cut = filter_states(filtered.params, potentials, None, lengths.clamp_max(step + 1))
        part = slice(number * B, (number + 1) * B)
        torch.testing.assert_close(state.mean[part], cut.filtered_mean[:, step])
        covariance = rows(cut.filtered_covariance[:, step], cut.pattern)
        torch.testing.assert_close(state.covariance[part], covariance)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_states_at_sends_gradients(posterior):
    model, potentials = dynamics(posterior), trainable(potentials_of("indexed"))
    state = model.states_at(
        model.filter(potentials, None, LENGTHS), potentials, torch.tensor([1, 4])
    )
    (state.mean.square().sum() + state.covariance.sum()).backward()
    leaves = [potentials.linear, potentials.precision, *model.parameters()]
    assert all(leaf.grad.isfinite().all() and leaf.grad.abs().max() > 0 for leaf in leaves)
    assert not potentials.linear.grad[:, 5:].any()  # nothing of what comes after the last origin


@pytest.mark.parametrize("sharing", SHARING)
def test_state_after_the_last_row(sharing):
    """The end of the chain carries no excess: it is what states_at gives there."""
    model, potentials = dynamics("gradient"), potentials_of(sharing)
    filtered = model.filter(potentials, None, LENGTHS)
    last = model.state_after(filtered, LENGTHS)
    same = model.states_at(filtered, potentials, LENGTHS[:1] - 1)
    torch.testing.assert_close(last.mean, same.mean)
    torch.testing.assert_close(rows(last.covariance, None), same.covariance)


@pytest.mark.parametrize("group_size", [2, None])
@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("sharing", SHARING)
def test_predicted_are_the_moments_before_the_step(sharing, posterior, group_size):
    """Forecasts of the state before, one step ahead; the initial moments for the first step."""
    model, potentials = dynamics(posterior, group_size, n_inputs=U), potentials_of(sharing)
    inputs = inputs_of(U)
    filtered = model.filter(potentials, inputs, LENGTHS)
    ahead = model.predicted(filtered, potentials, inputs)
    start = filtered.params.initial_covariance
    torch.testing.assert_close(ahead.mean[0, 0], filtered.params.initial_mean.flatten())
    torch.testing.assert_close(rows(ahead.covariance, None)[0, 0], start)
    for t in (0, 3, 5):
        state = model.states_at(filtered, potentials, torch.tensor([t]))
        one = model.forecast(state, 1, inputs[:, t + 1 : t + 2])
        torch.testing.assert_close(ahead.mean[:, t + 1], one.mean[:, 0])
        torch.testing.assert_close(rows(ahead.covariance[:, t + 1], None), one.covariance[:, 0])


def test_filter_detached():
    model, potentials = dynamics("gradient"), trainable(potentials_of("own"))
    whole = model.filter(potentials, None, LENGTHS)
    cut = model.filter_detached(potentials, None, LENGTHS)
    torch.testing.assert_close(cut.result.filtered_mean, whole.result.filtered_mean)
    cut.result.filtered_mean.sum().backward()
    assert potentials.linear.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


# -- forecasts -------------------------------------------------------------------------------------


def start_of(n=B):
    generator = torch.Generator().manual_seed(8)
    root = draw(generator, n, 2, 2, 2)
    return State(draw(generator, n, 4), root @ root.mT + 0.1 * torch.eye(2, dtype=DTYPE))


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_forecast_is_plug_in(posterior):
    model, state = dynamics(posterior, n_inputs=U), start_of()
    inputs = inputs_of(U, steps=6)
    got = model.forecast(state, 6, inputs)
    params = model.plug_in()
    assert params.excess is None
    want = forecast_states(params, state.mean, state.covariance, 6, inputs)
    torch.testing.assert_close(got.mean, want.mean)
    torch.testing.assert_close(got.covariance, want.covariance)


@pytest.mark.parametrize("detach", [False, True])
def test_sample_forecast(detach):
    model, state = dynamics(), start_of()
    generator = torch.Generator().manual_seed(2)
    z = model.sample_forecast(state, 5, 3, generator, detach=detach)
    assert z.shape == (3, B, 5, 4) and z.requires_grad is not detach
    generator = torch.Generator().manual_seed(2)
    want = sample_forecast(model.plug_in(), state.mean, state.covariance, 5, generator, 3)
    torch.testing.assert_close(z, want, check_device=False)


def test_dense_potentials_need_dense_dynamics():
    potentials = potentials_of("shared")
    dense = potentials._replace(precision=torch.diag_embed(potentials.precision))
    with pytest.raises(ValueError, match="dense and couples the 2 groups"):
        dynamics().infer(dense, None, LENGTHS)
    whole = dynamics(group_size=None)
    torch.testing.assert_close(
        whole.infer(dense, None, LENGTHS).mean, whole.infer(potentials, None, LENGTHS).mean
    )
    assert block_precision(dense.precision, 1, 4).shape == (1, T, 1, 4, 4)


@pytest.mark.parametrize("group_size", [2, 4])
def test_draws_along_with_the_posterior_are_those_asked_for_after_it(group_size):
    generator = torch.Generator().manual_seed(0)
    model = LinearDynamics(4, group_size=group_size)
    linear = torch.randn(3, 40, 4, generator=generator)
    potentials = Potentials(linear, torch.ones(1, 40, 4))
    apart = model.infer(potentials)
    draws = model.sample(apart, 2, torch.Generator().manual_seed(1))
    both = model.infer_and_sample(potentials, 2, torch.Generator().manual_seed(1))
    torch.testing.assert_close(both.draws, draws)
    for name in ("mean", "covariance", "local_kl", "prior_kl"):
        torch.testing.assert_close(getattr(both, name), getattr(apart, name))
    torch.testing.assert_close(both.prior_kl, model.prior_kl())
