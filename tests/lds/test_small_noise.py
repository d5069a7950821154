"""Gradients by Q and A in float32: differences of sums that are larger by 1 / Q twice."""

from __future__ import annotations

import pytest
import torch

from tsvae import lds
from tsvae.lds.grouped_chains import draw_grouped_chains
from tsvae.lds.joint_draws import draw_joint_chains
from tsvae.lds.short_draws import draw_short_chains

WIDE = {"dtype": torch.float64}


def by_filter(params, linear, precision):
    potentials = lds.Potentials(linear, precision)
    filtered = lds.filter_states(params, potentials)
    smoothed = lds.smooth(params, filtered)
    return smoothed.smoothed_mean, lds.local_kl(params, filtered, smoothed)


def in_groups(params, linear, precision):
    return draw_grouped_chains(params, linear, precision, 1, generator())


def jointly(params, linear, precision):
    return draw_joint_chains(params, linear, precision, 1, generator())


def on_host(params, linear, precision):
    """One pattern and few steps: the same on the host."""
    return jointly(params, linear, precision[:1])


def short(params, linear, precision):
    noise = torch.randn(1, *linear.shape, generator=generator(), **WIDE)
    return draw_short_chains(params, linear, precision, noise.to(linear.dtype))


def generator():
    return torch.Generator().manual_seed(0)


def level_and_noise(least):
    """One coordinate of nearly no noise adds up another of much."""
    transition = torch.tensor([[0.95, 1.0], [0.0, 0.9]], **WIDE)
    return transition, torch.diag(torch.tensor([least, 1.0], **WIDE))


def turned_level(least):
    transition, noise = level_and_noise(least)
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]], **WIDE)
    return turn @ transition @ turn.T, turn @ noise @ turn.T


def two_levels(least):
    pairs = zip(level_and_noise(least), level_and_noise(0.5), strict=True)
    transition, noise = (torch.block_diag(*pair) for pair in pairs)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator(), **WIDE))
    return turn @ transition @ turn.T, turn @ noise @ turn.T


def integrated_walk(step):
    transition = torch.tensor([[1.0, step], [0.0, 1.0]], **WIDE)
    noise = [[step**3 / 3.0, step**2 / 2.0], [step**2 / 2.0, step]]
    return transition, torch.tensor(noise, **WIDE)


@pytest.mark.parametrize(
    ("way", "steps", "system"),
    [
        (in_groups, 200, level_and_noise(1e-2)),
        (in_groups, 200, level_and_noise(1e-4)),
        (in_groups, 200, turned_level(1e-2)),
        (in_groups, 200, turned_level(1e-4)),
        (in_groups, 200, integrated_walk(0.1)),
        (jointly, 200, two_levels(0.1)),
        (jointly, 200, two_levels(1e-2)),
        (jointly, 200, two_levels(1e-3)),
        (jointly, 200, two_levels(1e-5)),
        (jointly, 200, integrated_walk(0.01)),
        (on_host, 24, two_levels(0.1)),
        (on_host, 24, two_levels(1e-2)),
        (on_host, 24, two_levels(1e-3)),
        (on_host, 24, two_levels(1e-5)),
        (on_host, 24, integrated_walk(0.01)),
        (by_filter, 200, two_levels(1e-3)),
        (by_filter, 200, two_levels(1e-4)),
        (short, 24, level_and_noise(1e-2)),
        (short, 24, level_and_noise(1e-5)),
        (short, 24, integrated_walk(0.01)),
    ],
)
def test_gradients_are_those_of_float64(way, steps, system):
    transition, noise = system
    dim, root = len(noise), torch.linalg.cholesky(noise)
    source = {"generator": generator(), **WIDE}
    state, path = torch.randn(3, dim, **source), []
    for _ in range(steps):
        path.append(state)
        state = state @ transition.T + torch.randn(3, dim, **source) @ root.T
    precision = 2.0 * torch.rand(3, steps, dim, **source)
    precision *= torch.rand(3, steps, 1, **source) < 0.5
    seen = torch.stack(path, 1) + torch.randn(3, steps, dim, **source)
    found = []
    for dtype in (torch.float32, torch.float64):
        params = lds.make_parameters(transition.to(dtype), noise.to(dtype))
        matrices = [params.transition_matrix, params.noise_covariance]
        leaves = [part.clone().requires_grad_() for part in matrices]
        params = params._replace(transition_matrix=leaves[0], noise_covariance=leaves[1])
        _, kl = way(params, (precision * seen).to(dtype), precision.to(dtype))
        by_a, by_q = torch.autograd.grad(kl.sum(), leaves)
        found.append([kl.double(), root.T @ by_a[0].double(), root.T @ by_q[0].double() @ root])
    for got, want in zip(*found, strict=True):
        assert (got - want).norm() <= 1e-2 * want.norm()
