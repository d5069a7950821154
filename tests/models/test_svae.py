"""The loss of the structured VAE: against dense formulas, Monte Carlo and finite differences."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from tsvae.models import SVAE
from tsvae.models.evidence import expected_log_prob
from tsvae.models.future_masking import forecast_origins
from tsvae.models.predictive import forecast, smooth_latents, smooth_values
from tsvae.nn import get_likelihood
from tsvae.training import BetaSchedule
from tsvae.training.optim import NaturalDescent

DTYPE = torch.float64
B, T, F, U = 3, 9, 3, 2
POSTERIORS = ["natural", "gradient", "point"]


def make_batch(n_inputs=0, seed=0, missing=0.3, n_series=B, steps=T, features=F):
    """Series 1 and 2 share a pattern; of the last two rows nothing is visible, one is asked for."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_series, steps, features, dtype=DTYPE, generator=generator).cumsum(1)
    mask = torch.rand(n_series, steps, features, generator=generator) >= missing
    mask[:, 0] = True
    visible = mask & (torch.rand(mask.shape, generator=generator) > 0.1)
    if n_series > 2:
        mask[2], visible[2] = mask[1], visible[1]
    visible[:, -2:] = False
    mask[:, -1] = False
    mask[:, -2] = True
    batch = {"x": torch.where(mask, x, 0.0), "mask": mask, "visible": visible}
    if n_inputs:
        batch["inputs"] = torch.randn(n_series, steps, n_inputs, dtype=DTYPE, generator=generator)
    return batch


def make_model(
    posterior="gradient", *, move=0.1, chart="linear", group_size=2, cap=1.0, **settings
):
    """Four latent dimensions; all parameters moved away from the start."""
    settings = {"latent_dim": 4, "horizon": 2, "n_origins": 3, **settings}
    dynamics = {"group_size": group_size, "posterior": posterior, "chart": chart}
    model = SVAE(
        settings.pop("n_features", F),
        dynamics={**dynamics, "spectral_radius_max": cap},
        **settings,
    ).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(
                    move * torch.randn(parameter.shape, dtype=DTYPE, generator=generator)
                )
    return model


def loss_of(model, batch, step=0):
    return model.training_step(batch, step).objective


# -- against the exact law -------------------------------------------------------------------------


@pytest.mark.parametrize("n_inputs", [0, U])
def test_elbo_is_the_exact_log_likelihood(dense, n_inputs):
    """With Bayes' rule as the encoder and fixed parameters the bound is tight."""
    params = dense.random_system(1, 4, n_inputs)
    rng = np.random.default_rng(1)
    matrix, variance = rng.normal(size=(F, 4)), rng.uniform(0.2, 1.0, F)
    offset = rng.normal(size=F)
    model = dense.exact_model(params, matrix, variance, offset)
    batch = make_batch(n_inputs)
    batch["mask"] = batch["visible"]
    batch["x"] = torch.where(batch["mask"], batch["x"], 0.0)
    effect = 0.0
    if n_inputs:
        with torch.no_grad():
            model.covariate_matrix.copy_(torch.as_tensor(rng.normal(size=(F, n_inputs))))
        effect = (batch["inputs"] @ model.covariate_matrix.T).detach().numpy()
    result = model.training_step(batch, 0)
    total = 0.0
    for b in range(B):
        inputs = batch["inputs"][b] if n_inputs else None
        law = dense.joint(params, matrix, variance, offset, T, inputs)
        residual = (batch["x"].numpy() - effect)[b]
        total += dense.condition(law, residual, batch["visible"][b]).log_density
    want = -total / int(batch["visible"].sum())
    got = result.objective - result.diagnostics["prior_kl"]
    assert got.item() == pytest.approx(want, rel=1e-9)


def test_elbo_of_scaled_channels_is_exact(dense):
    """Channel-wise: one chain per variable, the learned scale counted as a density."""
    params = dense.random_system(2, 2)
    matrix = np.random.default_rng(1).normal(size=(1, 4))
    one_group = params._replace(
        **{
            name: getattr(params, name)[:1]
            for name in params._fields
            if getattr(params, name) is not None
        }
    )
    matrix = matrix[:, :2]
    variance, offset = np.array([0.5]), np.array([0.3])
    model = dense.exact_model(
        one_group, matrix, variance, offset, n_features=F, channelwise=True, learn_scale=True
    )
    scale = torch.tensor([0.5, 1.0, 3.0], dtype=DTYPE)
    with torch.no_grad():
        model.log_scale.copy_(scale.log())
    batch = make_batch()
    batch["mask"] = batch["visible"]
    batch["x"] = torch.where(batch["mask"], batch["x"], 0.0)
    law = dense.joint(one_group, matrix, variance, offset, T)
    total = 0.0
    for b in range(B):
        for f in range(F):
            seen = batch["visible"][b, :, f]
            x = batch["x"][b, :, f] / scale[f]
            total += dense.condition(law, x, seen).log_density
            total -= float(seen.sum() * scale[f].log())
    result = model.training_step(batch, 0)
    got = result.objective - result.diagnostics["prior_kl"]
    assert got.item() == pytest.approx(-total / int(batch["visible"].sum()), rel=1e-9)


@pytest.mark.parametrize("potential", ["diagonal", "block", "dense"])
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_elbo_is_a_lower_bound(dense, posterior, potential):
    """Any encoder and any q(theta) of a fixed theta stay below the exact log-likelihood."""
    group_size = None if potential == "dense" else 2
    model = make_model(posterior, potential=potential, group_size=group_size, forecast_weight=0.0)
    with torch.no_grad():
        model.dynamics.theta.reset(model.dynamics.plug_in(), strength=1e9)
        params = model.dynamics.plug_in(detach=True)
        matrix = model.decoder.emission_matrix
        variance = model.decoder(matrix.new_zeros(4)).scale ** 2
        offset = model.decoder.offset
        batch = make_batch()
        result = model.training_step(batch, 0).diagnostics
    law = dense.joint(params, *(part.detach().numpy() for part in (matrix, variance, offset)), T)
    exact = sum(
        dense.condition(law, x, seen).log_density
        for x, seen in zip(batch["x"].numpy(), batch["mask"].numpy(), strict=True)
    )
    bound = -(result["reconstruction"] + result["local_kl"]).item() * int(batch["mask"].sum())
    assert bound < exact - 1e-3
    assert result["local_kl"] > 0 and result["prior_kl"].isfinite()


# -- closed forms and samples ----------------------------------------------------------------------


@pytest.mark.parametrize("channelwise", [False, True])
@pytest.mark.parametrize("potential", ["diagonal", "block"])
@torch.no_grad()
def test_closed_forms_are_what_samples_converge_to(potential, channelwise):
    model = make_model(potential=potential, channelwise=channelwise, scale_start=1.0)
    assert model.closed_form
    batch = make_batch()
    batch["x"] = 0.1 * batch["x"]  # where draws of the state meet the data
    closed = model.training_step(batch, 3).diagnostics
    model.closed_form, model.n_samples = False, 4000
    sampled = model.training_step(batch, 3).diagnostics
    assert sampled["reconstruction"].item() == pytest.approx(
        closed["reconstruction"].item(), rel=0.02
    )
    assert sampled["forecast"].item() == pytest.approx(closed["forecast"].item(), rel=0.02)
    torch.testing.assert_close(sampled["local_kl"], closed["local_kl"])


@torch.no_grad()
def test_expected_log_likelihood_by_quadrature():
    """E log N(x; Cz + d, R) = log N(x; C m + d, R) - C S C' / 2R, entry by entry."""
    model, batch = make_model(), make_batch()
    window, _ = model._training_window(batch)
    posterior = model.infer(window)
    got = expected_log_prob(model, window, posterior)
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    weights = weights / weights.sum()
    params = model.decoder(posterior.mean)
    spread = model.emitted_variance(posterior).sqrt().expand_as(params.loc)
    likelihood = torch.distributions.Normal
    want = sum(
        w * likelihood(params.loc + node * spread, params.scale).log_prob(window.x)
        for node, w in zip(nodes, weights, strict=True)
    )
    torch.testing.assert_close(got, torch.where(window.target, want, 0.0))
    assert not got[~window.target].any()


# -- gradients -------------------------------------------------------------------------------------

CASES = [
    # posterior, chart, group size, potential, channelwise, inputs, hidden layers
    ("gradient", "linear", 2, "diagonal", False, 0, ()),
    ("gradient", "linear", None, "dense", False, U, ()),
    ("gradient", "generator", 2, "block", True, 0, ()),
    ("gradient", "generator", 1, "diagonal", True, U, ()),
    ("gradient", "generator", 2, "diagonal", False, U, (5,)),
    ("point", "linear", None, "dense", False, 0, ()),
    ("point", "linear", 2, "block", False, U, (5,)),
    ("point", "generator", 2, "diagonal", True, U, ()),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)))
def test_gradients_of_the_whole_loss(case):
    """Along one random direction per parameter tensor, by central differences."""
    posterior, chart, group_size, potential, channelwise, n_inputs, hidden = case
    model = make_model(
        posterior,
        chart=chart,
        group_size=group_size,
        potential=potential,
        channelwise=channelwise,
        n_inputs=n_inputs,
        encoder_sizes=hidden,
        decoder_sizes=hidden,
        level_entries=2,
        learn_scale=channelwise,
        n_samples=2,
        n_windows=3.0,
        cap=1.0 if group_size else None,  # of larger groups a cap in force counts as a constant
    )
    batch = make_batch(n_inputs)
    loss_of(model, batch).backward()
    generator = torch.Generator().manual_seed(9)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        direction = torch.randn(parameter.shape, dtype=DTYPE, generator=generator)
        values = []
        with torch.no_grad():
            for step in (1e-5, -1e-5):
                parameter.add_(step * direction)
                values.append(loss_of(model, batch).item())
                parameter.sub_(step * direction)
        want = (values[0] - values[1]) / 2e-5
        got = (parameter.grad * direction).sum().item()
        assert got == pytest.approx(want, rel=2e-5, abs=2e-7), name


def test_natural_steps_lower_the_loss():
    """Thirty steps on q(theta) alone, on the full data: nearly monotone, far below the start."""
    model = make_model("natural", move=0.0, n_windows=B, elbo_weight=1.0, forecast_weight=1.0)
    batch = make_batch()
    optimizer = NaturalDescent(model.natural_parameters(), lr=0.1 * int(batch["mask"].sum()))
    losses = []
    for _ in range(31):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    falls = np.diff(losses) < 1e-6
    assert losses[-1] < losses[0] - 0.05 and falls.mean() > 0.9


# -- what may not matter ---------------------------------------------------------------------------


def padded(batch, n=24):
    more = {}
    for name, value in batch.items():
        end = torch.zeros(value.shape[0], n, value.shape[2], dtype=value.dtype)
        more[name] = torch.cat((value, end), dim=1)
    return more


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", ["diagonal", "block", "dense", "channelwise", "sampled"])
@pytest.mark.parametrize("posterior", POSTERIORS)
@torch.no_grad()
def test_padding_changes_nothing(posterior, form, training):
    model = make_model(
        posterior,
        potential=form if form in ("block", "dense") else "diagonal",
        group_size=None if form == "dense" else 2,
        channelwise=form == "channelwise",
        level_entries=2,
    ).train(training)
    batch = make_batch()
    long = padded(batch)
    one, other = (model.training_step(b, 5) for b in (batch, long))
    assert set(one.diagnostics) == {
        "beta",
        "reconstruction",
        "local_kl",
        "prior_kl",
        "forecast",
        "weight",
    }
    for name, value in one.diagnostics.items():
        assert other.diagnostics[name].item() == pytest.approx(value.item(), abs=1e-6), name
    assert other.objective.item() == pytest.approx(one.objective.item(), abs=1e-6)
    for read in (smooth_latents, smooth_values):
        short, extended = (read(model, b["x"], b["visible"]) for b in (batch, long))
        assert (extended.mean[:, :T] - short.mean).abs().max() < 1e-6
    lengths = torch.full((B,), T)
    model.closed_form = form != "sampled"
    short = forecast(model, batch["x"], batch["visible"], 5)
    extended = forecast(model, long["x"], long["visible"], 5, lengths=lengths)
    assert (extended.mean - short.mean).abs().max() < 1e-6
    assert (extended.scale - short.scale).abs().max() < 1e-6


@pytest.mark.parametrize("posterior", POSTERIORS)
@torch.no_grad()
def test_hidden_values_do_not_matter(posterior):
    model, batch = make_model(posterior), make_batch()
    other = {**batch, "x": torch.where(batch["mask"], batch["x"], torch.tensor(99.0, dtype=DTYPE))}
    assert loss_of(model, other) == loss_of(model, batch)


@torch.no_grad()
def test_the_encoder_sees_visible_entries_only():
    """Entries that are asked for but hidden move the loss, not the posterior."""
    model, batch = make_model(level_entries=2, encoder_sizes=(5,)), make_batch()
    asked = batch["mask"] & ~batch["visible"]
    other = {**batch, "x": batch["x"] + 7.0 * asked}
    one, two = (model.training_step(b, 0).diagnostics for b in (batch, other))
    assert asked.any() and two["reconstruction"] > one["reconstruction"] + 0.1
    assert two["local_kl"] == one["local_kl"]


@pytest.mark.parametrize("channelwise", [False, True])
@torch.no_grad()
def test_level_of_a_window_does_not_matter(channelwise):
    model, batch = make_model(level_entries=2, channelwise=channelwise), make_batch()
    shift = torch.tensor([3.0, -50.0, 0.7], dtype=DTYPE)
    moved = {**batch, "x": torch.where(batch["mask"], batch["x"] + shift, 0.0)}
    assert loss_of(model, moved).item() == pytest.approx(loss_of(model, batch).item(), abs=1e-9)
    before, after = (forecast(model, b["x"], b["visible"], 4) for b in (batch, moved))
    torch.testing.assert_close(after.mean, before.mean + shift)
    torch.testing.assert_close(after.scale, before.scale)
    plain = make_model(channelwise=channelwise)
    before, after = (forecast(plain, b["x"], b["visible"], 4) for b in (batch, moved))
    assert (after.mean - before.mean - shift).abs().max() > 0.1


@torch.no_grad()
def test_scale_of_a_variable_does_not_matter():
    model, batch = make_model(channelwise=True, learn_scale=True), make_batch()
    factor = torch.tensor([2.0, 0.1, 30.0], dtype=DTYPE)
    before, loss = forecast(model, batch["x"], batch["visible"], 4), loss_of(model, batch)
    model.log_scale.add_(factor.log())
    scaled = {**batch, "x": batch["x"] * factor}
    after = forecast(model, scaled["x"], scaled["visible"], 4)
    torch.testing.assert_close(after.mean, before.mean * factor)
    torch.testing.assert_close(after.scale, before.scale * factor)
    count = batch["mask"].sum((0, 1))
    jacobian = (count * factor.log()).sum() / count.sum()
    # Both parts of the loss are densities per value.
    torch.testing.assert_close(loss_of(model, scaled), loss + 2 * jacobian)


@torch.no_grad()
def test_covariate_effect_is_taken_off_and_put_back():
    model, batch = make_model(channelwise=True, n_inputs=U), make_batch(U)
    future = torch.randn(B, 4, U, dtype=DTYPE, generator=torch.Generator().manual_seed(1))
    model.covariate_matrix.zero_()
    loss = loss_of(model, batch)
    x, seen, inputs = batch["x"], batch["visible"], batch["inputs"]
    before = forecast(model, x, seen, 4, inputs=inputs, future_inputs=future)
    model.covariate_matrix.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]]))
    shift = inputs @ model.covariate_matrix.T
    moved = {**batch, "x": torch.where(batch["mask"], x + shift, 0.0)}
    assert loss_of(model, moved).item() == pytest.approx(loss.item(), abs=1e-10)
    after = forecast(model, moved["x"], seen, 4, inputs=inputs, future_inputs=future)
    torch.testing.assert_close(after.mean, before.mean + future @ model.covariate_matrix.T)


@pytest.mark.parametrize("posterior", POSTERIORS)
@torch.no_grad()
def test_channelwise_is_one_model_per_variable(posterior):
    whole, batch = make_model(posterior, channelwise=True, elbo_share=1.0), make_batch()
    one = make_model(posterior, n_features=1, channelwise=True)
    state = {k: v for k, v in whole.state_dict().items() if k != "log_scale"}
    one.load_state_dict(state, strict=False)
    found = whole.eval().training_step(batch, 0).diagnostics
    one.eval()
    counts, parts = [], {"reconstruction": [], "local_kl": []}
    ahead = forecast(whole, batch["x"], batch["visible"], 4)
    inside = smooth_values(whole, batch["x"], batch["visible"])
    for f in range(F):
        alone = {name: value[..., f : f + 1] for name, value in batch.items()}
        result = one.training_step(alone, 0).diagnostics
        counts.append(alone["mask"].sum().item())
        for name, values in parts.items():
            values.append(result[name].item())
        got = forecast(one, alone["x"], alone["visible"], 4)
        torch.testing.assert_close(got.mean[..., 0], ahead.mean[..., f])
        torch.testing.assert_close(got.scale[..., 0], ahead.scale[..., f])
        got = smooth_values(one, alone["x"], alone["visible"])
        torch.testing.assert_close(got.mean[..., 0], inside.mean[..., f])
    for name, values in parts.items():
        want = np.average(values, weights=counts)
        assert found[name].item() == pytest.approx(want, rel=1e-9), name


# -- parts of the loss -----------------------------------------------------------------------------


def theta_gradients(model, batch):
    model.zero_grad()
    loss_of(model, batch).backward()
    return [
        torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for p in model.dynamics.parameters()
    ]


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("hidden", [(), (5,)])
def test_drop_correction_cuts_forecasts_and_reconstruction(posterior, hidden):
    settings = {"decoder_sizes": hidden, "beta": BetaSchedule(0.0, 0.0, 0, 0)}
    batch = make_batch()
    networks = []
    for drop in (True, False):
        model = make_model(posterior, drop_correction=drop, **settings)
        reached = any(bool(g.any()) for g in theta_gradients(model, batch))
        assert reached is not drop
        networks.append(
            [p.grad for p in (*model.encoder.parameters(), *model.decoder.parameters())]
        )
    for cut, whole in zip(*networks, strict=True):
        torch.testing.assert_close(cut, whole)  # the networks learn as before


def test_drop_correction_keeps_the_conjugate_update():
    """What theta receives is beta times its own KL terms, whatever the data terms weigh."""
    batch = make_batch()
    gradients = [
        theta_gradients(make_model("gradient", drop_correction=True, forecast_weight=w), batch)
        for w in (0.0, 7.0)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
        assert one.abs().max() > 1e-4


@torch.no_grad()
def test_beta_follows_its_schedule():
    schedule = BetaSchedule(0.1, 1.0, 2, 4)
    model, batch = make_model(beta=schedule, forecast_weight=0.0), make_batch()
    for step in (0, 4, 6, 50):
        result = model.training_step(batch, step)
        parts = result.diagnostics
        assert parts["beta"].item() == pytest.approx(schedule.value(step))
        want = parts["reconstruction"] + parts["beta"] * (parts["local_kl"] + parts["prior_kl"])
        assert result.objective.item() == pytest.approx(want.item())
    model.eval()
    result = model.training_step(batch, 0)
    assert result.diagnostics["beta"].item() == 1.0  # the criterion does not move with beta


@torch.no_grad()
def test_weights_of_the_parts():
    batch = make_batch()
    both = make_model(elbo_weight=0.3, forecast_weight=2.0).training_step(batch, 1)
    bound = make_model(elbo_weight=1.0, forecast_weight=0.0).training_step(batch, 1).objective
    ahead = make_model(elbo_weight=0.0, forecast_weight=1.0).training_step(batch, 1).objective
    torch.testing.assert_close(both.objective, 0.3 * bound + 2.0 * ahead)


@pytest.mark.parametrize("drop_correction", [False, True])
@pytest.mark.parametrize("channelwise", [False, True])
@torch.no_grad()
def test_share_of_the_batch(channelwise, drop_correction):
    """The bound is that of the first series; validation takes all."""
    settings = {"forecast_weight": 0.0, "channelwise": channelwise}
    part = make_model(elbo_share=2 / 3, drop_correction=drop_correction, **settings)
    whole, batch = make_model(**settings), make_batch()
    first = {name: value[:2] for name, value in batch.items()}
    got, want = part.training_step(batch, 0), whole.training_step(first, 0)
    for name in ("reconstruction", "local_kl"):
        torch.testing.assert_close(got.diagnostics[name], want.diagnostics[name])
    torch.testing.assert_close(
        part.eval().training_step(batch, 0).objective,
        whole.eval().training_step(batch, 0).objective,
    )


@torch.no_grad()
def test_score_from_counts_later_steps_only():
    model, batch = make_model(forecast_weight=0.0), make_batch()
    late = {**batch, "score_from": torch.full((B,), 4)}
    clock = torch.arange(T)[:, None] >= 4
    window, _ = model._training_window(late)
    assert torch.equal(window.target, batch["mask"] & clock)
    assert torch.equal(window.visible, batch["visible"])
    assert loss_of(model, late) != loss_of(model, batch)
    assert model.training_step(late, 0).diagnostics["weight"] == (batch["mask"] & clock).sum()


@torch.no_grad()
def test_forecast_term_is_the_forecast(dense):
    """Each origin's densities, from dense conditioning on the rows it has seen."""
    params = dense.random_system(1, 4)
    rng = np.random.default_rng(3)
    matrix, variance, offset = rng.normal(size=(F, 4)), rng.uniform(0.3, 1, F), rng.normal(size=F)
    model = dense.exact_model(
        params, matrix, variance, offset, forecast_weight=1.0, horizon=3, n_origins=4
    ).eval()
    batch = make_batch()
    last = T - 1  # the final row is not asked for
    origins = forecast_origins(model, last, 3, torch.Generator()).tolist()
    assert len(set(origins)) == 4
    law = dense.joint(params, matrix, variance, offset, T)
    total, count = 0.0, 0
    for b in range(B):
        x, mask, seen = (batch[k][b].numpy() for k in ("x", "mask", "visible"))
        for origin in origins:
            known = np.where(np.arange(T)[:, None] <= origin, seen, False)
            found = dense.condition(law, x, known)
            ahead = slice(origin + 1, min(origin + 4, last))
            density = torch.distributions.Normal(
                torch.tensor(found.mean[ahead]), torch.tensor(found.variance[ahead]).sqrt()
            ).log_prob(torch.as_tensor(x[ahead]))
            total += density[torch.as_tensor(mask[ahead])].sum().item()
            count += mask[ahead].sum()
    got = model.training_step(batch, 0).diagnostics["forecast"].item()
    assert got == pytest.approx(-total / count, rel=1e-9)


# -- modes, copies, odd data -----------------------------------------------------------------------


def test_eval_mode_is_deterministic_and_training_depends_on_the_step():
    model, batch = make_model(decoder_sizes=(5,)), make_batch(steps=30)
    training = [loss_of(model, batch, step).item() for step in (0, 0, 1)]
    assert training[0] == training[1] != training[2]
    model.eval()
    assert loss_of(model, batch, 0).item() == loss_of(model, batch, 9).item()


def test_global_random_state_is_untouched():
    batch = make_batch()
    before = torch.get_rng_state().clone()
    model = make_model(decoder_sizes=(5,))
    loss_of(model, batch).backward()
    forecast(model, batch["x"], batch["visible"], 2, n_samples=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    again = make_model(decoder_sizes=(5,))
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_copies(posterior):
    model, batch = make_model(posterior, n_inputs=U), make_batch(U)
    loss_of(model, batch).backward()
    loaded = make_model(posterior, n_inputs=U, move=0.0)
    assert loss_of(loaded, batch) != loss_of(model, batch)
    loaded.load_state_dict(model.state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert loss_of(twin, batch) == loss_of(model, batch)


def data_of(likelihood, generator):
    x = torch.randn(4, 12, F, generator=generator)
    support = get_likelihood(likelihood).support
    if support == "unit":
        return (x > 0).float()
    return x.exp().mul(3).round() if support == "count" else x


@pytest.mark.parametrize("channelwise", [False, True])
@pytest.mark.parametrize("scale", ["learned", "network"])
@pytest.mark.parametrize(
    "likelihood", ["normal", "laplace", "student_t", "bernoulli", "poisson", "negative_binomial"]
)
def test_every_likelihood_trains_with_gaps(likelihood, scale, channelwise):
    generator = torch.Generator().manual_seed(2)
    x = data_of(likelihood, generator)
    mask = torch.rand(x.shape, generator=generator) > 0.3
    batch = {"x": torch.where(mask, x, 0.0), "mask": mask, "visible": mask}
    model = SVAE(
        F,
        latent_dim=4,
        encoder_sizes=(8,),
        decoder_sizes=(8,),
        likelihood=likelihood,
        scale=scale,
        channelwise=channelwise,
        horizon=3,
    )
    natural = {id(p) for p in model.natural_parameters()}
    rest = [p for p in model.parameters() if id(p) not in natural and p.requires_grad]
    optimizers = [NaturalDescent(model.natural_parameters(), lr=1.0), torch.optim.Adam(rest, 1e-2)]
    for step in range(2):
        loss = loss_of(model, batch, step)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        assert loss.isfinite()
    assert loss_of(model, batch).isfinite()
    ahead = forecast(model, batch["x"], batch["visible"], 4, n_samples=5)
    assert ahead.mean.isfinite().all() and (ahead.scale >= 0).all()


@pytest.mark.parametrize("precision", ["learned", "network"])
def test_network_precision_and_shared_patterns(precision):
    """Patterns shared by some series change nothing: as if each had its own."""
    model = make_model(precision=precision, encoder_sizes=(6,), potential="block")
    batch = make_batch()
    single = [
        smooth_latents(model, batch["x"][b : b + 1], batch["visible"][b : b + 1]) for b in range(B)
    ]
    together = smooth_latents(model, batch["x"], batch["visible"])
    for name in ("mean", "variance"):
        want = torch.cat([getattr(one, name) for one in single])
        torch.testing.assert_close(getattr(together, name), want)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("channelwise", [False, True])
def test_nothing_visible(dense, posterior, channelwise):
    """A finite loss, and the prior as the forecast."""
    model, batch = make_model(posterior, channelwise=channelwise), make_batch()
    batch["visible"] = torch.zeros_like(batch["visible"])
    loss = loss_of(model, batch)
    loss.backward()
    assert loss.isfinite() and all(
        p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters()
    )
    found = forecast(model, batch["x"], batch["visible"], 3)
    matrix = model.decoder.emission_matrix.detach().numpy()
    variance = model.decoder(torch.zeros(4, dtype=DTYPE)).scale.detach().numpy() ** 2
    offset = model.decoder.offset.detach().numpy()
    law = dense.joint(model.dynamics.plug_in(detach=True), matrix, variance, offset, T + 3)
    want = law.mean.reshape(T + 3, -1)[T:]
    spread = np.diag(law.covariance).reshape(T + 3, -1)[T:]
    for b in range(B):
        np.testing.assert_allclose(found.mean[b], np.broadcast_to(want, (3, F)), rtol=1e-9)
        np.testing.assert_allclose(found.scale[b] ** 2, np.broadcast_to(spread, (3, F)), rtol=1e-9)


def test_nothing_observed_at_all():
    model, batch = make_model(), make_batch()
    empty = {name: torch.zeros_like(value) for name, value in batch.items()}
    loss = loss_of(model, empty)
    loss.backward()
    assert math.isfinite(loss.item())


def test_one_row():
    model = make_model()
    batch = make_batch(steps=3)
    single = {name: value[:, :1] for name, value in batch.items()}
    assert loss_of(model, single).isfinite()
