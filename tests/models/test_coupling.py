"""Coupling of states, against the same least squares written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tsvae.models.coupling import _EVENNESS, StateCoupling, coupling_rows
from tsvae.models.response_squares import Seen

D, H, N = 5, 7, 60


def case(seed=0):
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(N, D)) @ rng.normal(size=(D, D))
    futures = states @ rng.normal(size=(D, H)) + rng.normal(size=(N, H))
    rows, weights, errors = rng.normal(size=(H, D)), rng.uniform(0.5, 2, H), rng.uniform(1, 3, H)
    return states, futures, rows, weights, errors


def solve(penalty, base=None):
    states, futures, rows, weights, errors = case()
    seen = Seen(
        torch.as_tensor(states.T @ states / N),
        torch.as_tensor(futures.T @ states / N),
        torch.as_tensor((futures**2).mean(0)),
    )
    rows, weights, errors = map(torch.as_tensor, (rows, weights, errors))
    return coupling_rows(rows, weights, errors).squares(seen, base).solve(penalty)


@pytest.mark.parametrize("moved", [False, True])
def test_coupling_is_the_least_of_the_penalised_errors(moved):
    """A least-squares problem over all windows, steps and entries, in one dense matrix."""
    states, futures, rows, weights, errors = case()
    base = np.random.default_rng(9).normal(size=rows.shape) if moved else rows
    penalty, size = 0.3, (states**2).mean()
    root = np.sqrt(weights)
    # vec(E X Z') = (Z kron E) vec(X), columns first
    data = np.kron(states, root[:, None] * rows) / math.sqrt(N)
    target = (root[:, None] * (futures.T - base @ states.T)).flatten(order="F") / math.sqrt(N)
    prior = np.sqrt(weights * errors / errors.mean())[:, None] * rows
    even = _EVENNESS * (prior**2).sum(0).mean()
    scale = math.sqrt(penalty * size)
    stacked = np.vstack(
        (data, scale * np.kron(np.eye(D), prior), scale * math.sqrt(even) * np.eye(D * D))
    )
    wanted = np.linalg.lstsq(
        stacked, np.concatenate((target, np.zeros(len(stacked) - len(target)))), rcond=None
    )[0].reshape(D, D, order="F")
    found = solve(penalty, torch.as_tensor(base) if moved else None)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-7, atol=1e-9)


def test_an_infinite_penalty_leaves_states_alone():
    assert float(solve(math.inf).abs().max()) == 0.0


def test_states_without_movement_ask_for_nothing():
    zero = Seen(torch.zeros(D, D).double(), torch.zeros(H, D).double(), torch.zeros(H).double())
    rows = coupling_rows(
        torch.zeros(H, D).double(), torch.ones(H).double(), torch.zeros(H).double()
    )
    np.testing.assert_array_equal(rows.squares(zero).solve(0.1).numpy(), 0.0)


def test_several_are_solved_at_once():
    states, futures, rows, weights, errors = map(torch.as_tensor, case())
    both = [states, 0.3 * states.roll(3, 0)]
    apart = [Seen(z.T @ z / N, futures.T @ z / N, futures.square().mean(0)) for z in both]
    together = Seen(*(torch.stack(part) for part in zip(*apart, strict=True)))
    prepared = coupling_rows(rows, weights, errors)
    wanted = torch.stack([prepared.squares(seen).solve(0.3) for seen in apart])
    torch.testing.assert_close(prepared.squares(together).solve(0.3), wanted)


def test_module_adds_what_other_states_tell_each_variable():
    coupling = StateCoupling(3, 2)
    states = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))  # 2 series
    torch.testing.assert_close(coupling(states), states)
    with torch.no_grad():
        coupling.matrix[0, 0, 2] = 2.0
        coupling.matrix[1, 1, 0] = -1.0
    wanted = states.clone()
    wanted[::2, :, 0] += 2.0 * states[::2, :, 2]
    wanted[1::2, :, 1] -= states[1::2, :, 0]
    torch.testing.assert_close(coupling(states), wanted)
    torch.testing.assert_close(coupling(states[:, 0]), wanted[:, 0])
