"""States after complete windows by one shared response, against a filter pass over each window."""

from __future__ import annotations

import pytest
import torch

from tsvae.models import SVAE
from tsvae.models.linear_dynamics import LinearDynamics
from tsvae.models.predictive import forecast, sample_paths
from tsvae.models.window_response import has_linear_response, window_response

T, F = 9, 2
CASES = {
    "channels": {"channelwise": True, "level_entries": 3},
    "joint": {},
    "blocks": {"potential": "block"},
    "dense": {"dynamics": {"group_size": None}},
    "point": {"channelwise": True, "dynamics": {"group_size": 2, "posterior": "point"}},
}


def build(**settings):
    torch.manual_seed(0)
    model = SVAE(F, latent_dim=4, seed=3, **settings).double().eval()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.decoder.offset.add_(0.5)
    return model


def windows(count, generator=None):
    generator = generator or torch.Generator().manual_seed(1)
    x = torch.randn(count, T, F, generator=generator, dtype=torch.float64).cumsum(1)
    return x, torch.ones_like(x, dtype=torch.bool)


def each_alone(model, x, seen, **options):
    parts = [forecast(model, x[i : i + 1], seen[i : i + 1], 4, **options) for i in range(len(x))]
    return torch.cat([p.mean for p in parts]), torch.cat([p.scale for p in parts])


@pytest.mark.parametrize("case", CASES)
def test_equals_forecasts_window_by_window(case):
    model = build(**CASES[case])
    assert has_linear_response(model)
    x, seen = windows(20)
    got = forecast(model, x, seen, 4)
    mean, scale = each_alone(model, x, seen)
    torch.testing.assert_close(got.mean, mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.scale.expand_as(scale), scale, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", ["channels", "joint"])
def test_windows_with_gaps_and_short_ones_keep_their_places(case):
    model = build(**CASES[case])
    x, seen = windows(40)
    seen[3, 2:5, 0] = seen[17, -1] = seen[30, :4] = False
    lengths = torch.full((40,), T)
    lengths[8], seen[8, 5:] = 5, False
    x = torch.where(seen, x, 0.0)
    got = forecast(model, x, seen, 4, lengths=lengths)
    for i in range(40):
        own = lengths[i : i + 1]
        alone = forecast(model, x[i : i + 1], seen[i : i + 1], 4, lengths=own)
        torch.testing.assert_close(got.mean[i], alone.mean[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(got.scale[i], alone.scale[0], rtol=1e-9, atol=1e-9)


def test_weights_are_the_derivative_of_the_state():
    model = build(**CASES["joint"])
    x = torch.zeros(1, T, F, dtype=torch.float64, requires_grad=True)
    seen = torch.ones_like(x, dtype=torch.bool)
    window = model.window(x, seen, None, model.frame(x, seen, 0.0), 0.0)
    filtered = model.dynamics.filter(model.potentials(window), None, window.lengths)
    last = model.dynamics.state_after(filtered, window.lengths).mean[0]
    slopes = [torch.autograd.grad(entry, x, retain_graph=True)[0][0] for entry in last]
    response = window_response(model, T, x.detach())
    torch.testing.assert_close(response.weight.detach(), torch.stack(slopes, dim=-1))


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder_sizes": (4,)},
        {"likelihood": "poisson"},
        {"n_inputs": 1},
    ],
)
def test_what_is_not_linear_is_filtered(settings):
    assert not has_linear_response(build(**settings))


def test_one_chain_is_filtered_whatever_the_number_of_windows(monkeypatch):
    chains = []
    run = LinearDynamics.filter

    def counted(self, potentials, inputs=None, lengths=None):
        chains.append(potentials.linear.shape[0])
        return run(self, potentials, inputs, lengths)

    monkeypatch.setattr(LinearDynamics, "filter", counted)
    model = build(**CASES["channels"])
    for count in (20, 200):
        forecast(model, *windows(count), 4)
        sample_paths(model, *windows(count), 4, 2)
    assert chains == [1, 1, 1, 1]
