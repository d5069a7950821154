"""Every way of inference, and a training step around it, on a GPU as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsvae import lds
from tsvae.lds import filtering
from tsvae.lds.grouped_chains import draw_grouped_chains
from tsvae.lds.joint_draws import draw_joint_chains
from tsvae.lds.short_draws import draw_short_chains
from tsvae.models import SVAE

pytestmark = pytest.mark.gpu


def moved(value, device):
    """Named tuples of tensors on another device, as leaves of a graph."""
    if isinstance(value, torch.Tensor):
        value = value.detach().to(device)
        return value.requires_grad_() if value.is_floating_point() else value
    return type(value)(*(moved(x, device) for x in value)) if isinstance(value, tuple) else value


def leaves(value):
    if isinstance(value, torch.Tensor):
        return [value] if value.requires_grad else []
    return [x for part in value for x in leaves(part)] if isinstance(value, tuple) else []


def outcome(params, potentials, device):
    params, potentials = moved(params, device), moved(potentials, device)
    filtered = lds.filter_states(params, potentials)
    smoothed = lds.smooth(params, filtered)
    kl = lds.local_kl(params, filtered, smoothed)
    results = [
        filtered.filtered_mean,
        filtered.predicted_covariance,
        filtered.log_normalizer,
        smoothed.smoothed_mean,
        smoothed.smoothed_covariance,
        kl,
    ]
    total = sum(part.square().sum() for part in results)
    given = leaves((params, potentials))
    grads = torch.autograd.grad(total, given, allow_unused=True, materialize_grads=True)
    return [part.detach().cpu() for part in (*results, *grads)]


@pytest.mark.parametrize(
    ("way", "size"), [("planes", 2), ("short", 2), ("joint", 4), ("stepwise", 4)]
)
@pytest.mark.parametrize("sharing", ["shared", "own", "indexed"])
def test_inference_is_the_same(oracle, monkeypatch, way, size, sharing):
    monkeypatch.setattr(filtering, "ways", lambda *shape: (way,))
    rng = np.random.default_rng(0)
    params = oracle.random_system(rng, 2, size)
    potentials = oracle.random_potentials(rng, "diagonal", sharing, 4, 20, 2, size)
    for here, there in zip(
        outcome(params, potentials, "cpu"), outcome(params, potentials, "cuda"), strict=True
    ):
        torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sharing", ["shared", "own"])
def test_draws_of_short_chains_are_the_same(oracle, sharing):
    rng = np.random.default_rng(0)
    params = oracle.random_system(rng, 2, 2)
    potentials = oracle.random_potentials(rng, "diagonal", sharing, 4, 20, 2, 2)
    noise = torch.from_numpy(rng.normal(size=(3, *potentials.linear.shape)))
    found = []
    for device in ("cpu", "cuda"):
        given = moved((params, potentials), device)
        results = draw_short_chains(given[0], given[1].linear, given[1].precision, noise.to(device))
        total = sum(part.square().sum() for part in results)
        grads = torch.autograd.grad(total, leaves(given), allow_unused=True, materialize_grads=True)
        found.append([part.detach().cpu() for part in (*results, *grads)])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("draw", "size"), [(draw_grouped_chains, 2), (draw_joint_chains, 4)])
@pytest.mark.parametrize("sharing", ["shared", "own"])
def test_divergences_are_the_same(oracle, draw, size, sharing):
    """Draws are not: each device has its own random numbers."""
    rng = np.random.default_rng(0)
    params = oracle.random_system(rng, 2, size)
    potentials = oracle.random_potentials(rng, "diagonal", sharing, 4, 20, 2, size)
    found = []
    for device in ("cpu", "cuda"):
        given = moved((params, potentials), device)
        generator = torch.Generator(device).manual_seed(0)
        draws, kl = draw(given[0], given[1].linear, given[1].precision, 2, generator)
        assert draws.device.type == device
        total = kl.square().sum()
        grads = torch.autograd.grad(total, leaves(given), allow_unused=True, materialize_grads=True)
        found.append([part.detach().cpu() for part in (kl, *grads)])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("group_size", [None, 2])
def test_training_step_is_the_same(group_size):
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(4, 30, 6, generator=generator) < 0.8
    x = torch.where(mask, torch.randn(4, 30, 6, generator=generator), 0.0)
    found = []
    for device in ("cpu", "cuda"):
        model = SVAE(6, latent_dim=8, dynamics={"group_size": group_size}, horizon=5).to(device)
        batch = {"x": x.to(device), "mask": mask.to(device), "visible": mask.to(device)}
        model.eval()  # beta-free, origins not drawn
        result = model.training_step(batch, 0)
        result.objective.backward()
        grad = model.encoder.raw_weight.grad
        found.append((result.objective.detach().cpu(), grad.cpu()))
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-5)
