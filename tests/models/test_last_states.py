"""States after windows with gaps by the filter that keeps no others, against the full filter."""

from __future__ import annotations

import pytest
import torch

from tsvae.models import SVAE
from tsvae.models import last_states as module
from tsvae.models.last_states import can_filter_last, last_states

N, T, F = 7, 40, 2


def build(**settings):
    settings = {"dynamics": {"group_size": 2}} | settings
    model = SVAE(F, latent_dim=4, seed=3, **settings).double().eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def gaps():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, T, F, generator=generator, dtype=torch.float64).cumsum(1)
    seen = torch.rand(N, T, F, generator=generator) > 0.3
    seen[1] = seen[2]  # one pattern of two series
    seen[3] = False
    seen[4, 25:] = False  # ends early, forecast from its last row
    rows = torch.full((N,), T)
    seen[5, 17:], rows[5] = False, 17  # a shorter history
    return torch.where(seen, x, 0.0), seen, rows


@pytest.mark.parametrize("posterior", ["natural", "gradient", "point"])
@pytest.mark.parametrize("channelwise", [True, False])
@pytest.mark.parametrize("at_once", [4, 8192])
def test_equals_the_filter(posterior, channelwise, at_once, monkeypatch):
    monkeypatch.setattr(module, "_ENTRIES_AT_ONCE", at_once)
    dynamics = {"group_size": 2, "posterior": posterior}
    model = build(channelwise=channelwise, dynamics=dynamics)
    x, seen, rows = gaps()
    if channelwise:
        rows = rows.repeat_interleave(F)
    window = model.window(x, seen, None, model.frame(x, seen, 0.0), 0.0)
    potentials = model.potentials(window)
    filtered = model.dynamics.filter(potentials, None, window.lengths)
    want = model.dynamics.state_after(filtered, rows)
    params = model.dynamics.theta.parameters_for_inference()
    assert can_filter_last(params, potentials)
    got = last_states(params, potentials, window.lengths, rows)
    torch.testing.assert_close(got.mean, want.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.covariance, want.covariance, rtol=1e-9, atol=1e-9)


def test_one_precision_for_all_chains():
    model = build()
    x, _, rows = gaps()
    seen = torch.ones_like(x, dtype=torch.bool)
    window = model.window(x, seen, None, model.frame(x, seen, 0.0), 0.0)
    potentials = model.potentials(window)
    assert potentials.precision.shape[0] == 1
    filtered = model.dynamics.filter(potentials, None, window.lengths)
    want = model.dynamics.state_after(filtered, rows)
    params = model.dynamics.theta.parameters_for_inference()
    got = last_states(params, potentials, window.lengths, rows)
    torch.testing.assert_close(got.mean, want.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        got.covariance, want.covariance.expand_as(got.covariance), rtol=1e-9, atol=1e-9
    )


def test_float32_stays_close_over_precisions_of_ten_orders():
    model = build()
    x, seen, rows = gaps()
    window = model.window(x, seen, None, model.frame(x, seen, 0.0), 0.0)
    potentials = model.potentials(window)
    spread = 10.0 ** torch.linspace(-5, 5, T, dtype=torch.float64)[None, :, None]
    potentials = potentials._replace(
        linear=potentials.linear * spread, precision=potentials.precision * spread
    )
    exact = last_states(
        model.dynamics.theta.parameters_for_inference(), potentials, window.lengths, rows
    )
    model.float()
    single = potentials._replace(
        linear=potentials.linear.float(), precision=potentials.precision.float()
    )
    got = last_states(model.dynamics.theta.parameters_for_inference(), single, window.lengths, rows)
    assert torch.linalg.eigvalsh(got.covariance.double()).min() > 0
    torch.testing.assert_close(got.mean.double(), exact.mean, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(got.covariance.double(), exact.covariance, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{"dynamics": {"group_size": None}}, {"potential": "block"}, {"n_inputs": 1}],
)
def test_other_forms_are_left_to_the_filter(settings):
    model = build(**settings)
    x, seen, _ = gaps()
    inputs = torch.zeros(N, T, 1, dtype=torch.float64) if "n_inputs" in settings else None
    window = model.window(x, seen, inputs, model.frame(x, seen, 0.0), 0.0)
    params = model.dynamics.theta.parameters_for_inference()
    assert not can_filter_last(params, model.potentials(window))
