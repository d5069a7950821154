"""Couplings of single variables, against least squares over windows written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tsvae.models import own_couplings as room
from tsvae.models.coupling import coupling_rows
from tsvae.models.moments import StateMoments
from tsvae.models.own_couplings import own_couplings
from tsvae.models.response_fit import FittedResponses, Objective
from tsvae.models.response_squares import (
    Penalty,
    Seen,
    best_amplitudes,
    disturbance,
    response_rows,
    squared_errors,
    waves_of,
)

L, H, J, N = 12, 4, 4, 40


def fitted_responses(seed=0):
    rng = np.random.default_rng(seed)

    def tensor(values):
        return torch.as_tensor(np.asarray(values, dtype=float))

    objective = Objective(
        tensor([1.5, 1.0, 0.8, 0.7]), Penalty(0.1, False, 0.1), 0.3, tensor([1.0, 2, 3, 4]), L
    )
    return FittedResponses(
        tensor([0.0, 0.5, 1.3]),
        tensor([1.0, 0.95, 0.8]),
        tensor([0.98, 0.3, 0.6]),
        tensor([[1.0, 0.0], [0.4, -0.7], [-0.3, 0.2]]),
        tensor(0.1 * rng.normal(size=(6, 6))),
        tensor([1.0, 2.0, 3.0, 4.0]),
        objective,
    )


def windows(maps, noise=0.3, seed=0):
    """Histories and futures of each block and variable ``(J, F, N, L)``, ``(J, F, N, H)``."""
    rng = np.random.default_rng(seed)
    past = rng.normal(size=(J, len(maps), N, L)).cumsum(-1)
    future = np.einsum("jfnl,fhl->jfnh", past, maps)
    return past, future + noise * rng.normal(size=future.shape)


def moments_of(past, future, fitted):
    states = waves_of(*fitted[:3], L, H).past.numpy()
    z = past @ states
    return StateMoments(
        *(
            torch.as_tensor(part)
            for part in (
                z.swapaxes(-1, -2) @ z / N,
                future.swapaxes(-1, -2) @ z / N,
                (future**2).mean(2),
                0.5 * (np.diff(past, axis=-1) ** 2).mean((2, 3)),
                (past**2).mean((2, 3)),
                np.full(past.shape[:2], float(N)),
            )
        ),
        0,
    )


def maps_of(fitted, deviations):
    waves = waves_of(*fitted[:3], L, H)
    rows = response_rows(waves.ahead, fitted.amplitude)
    return np.stack(
        [((rows + rows @ (fitted.coupling + d)) @ waves.past.T).numpy() for d in deviations]
    )


def test_variables_alike_share_one_coupling():
    fitted = fitted_responses()
    past, future = windows(maps_of(fitted, [0.0, 0.0, 0.0]), noise=30.0)
    found = own_couplings(fitted, moments_of(past, future, fitted))
    assert (found.matrices - fitted.coupling).abs().max() < 0.02


def test_variables_that_differ_get_their_own():
    fitted = fitted_responses()
    rng = np.random.default_rng(1)
    deviations = [torch.as_tensor(0.5 * rng.normal(size=(6, 6))) for _ in range(2)]
    maps = maps_of(fitted, deviations)
    past, future = windows(maps)
    found = own_couplings(fitted, moments_of(past, future, fitted))
    fresh, ahead = windows(maps, seed=5)
    own = maps_of(fitted, found.matrices - fitted.coupling)
    error = ((ahead - np.einsum("jfnl,fhl->jfnh", fresh, own)) ** 2).mean()
    common = maps_of(fitted, [0.0, 0.0])
    before = ((ahead - np.einsum("jfnl,fhl->jfnh", fresh, common)) ** 2).mean()
    assert error < 0.5 * before
    assert (found.errors < fitted.errors).all()


def test_each_is_the_penalised_least_squares_of_its_variable(monkeypatch):
    monkeypatch.setattr(room, "_PENALTIES", (0.2, math.inf))
    monkeypatch.setattr(room, "_least", lambda errors: 0)
    fitted = fitted_responses()
    past, future = windows(maps_of(fitted, [0.3, -0.2]))
    found = own_couplings(fitted, moments_of(past, future, fitted)).matrices
    waves, objective = waves_of(*fitted[:3], L, H), fitted.objective
    rows = response_rows(waves.ahead, fitted.amplitude)
    states = waves.past.numpy()
    for f in range(2):
        x, y = past[:, f].reshape(-1, L), torch.as_tensor(future[:, f].reshape(-1, H))
        z = torch.as_tensor(x @ states)
        rough, size = 0.5 * (np.diff(x) ** 2).mean(), 0.1 * (x**2).mean()
        # Noise of all but the last value and shifts by a constant, as expectations.
        noise = 2.0 * rough * states[:-1].T @ states[:-1]
        ones = states.sum(0)
        seen = Seen(
            z.T @ z / len(z) + torch.as_tensor(noise + size * np.outer(ones, ones)),
            y.T @ z / len(z) + torch.as_tensor(size * ones),
            y.square().mean(0) + size,
        )
        prepared = coupling_rows(rows, objective.weights, objective.uncoupled)
        own = prepared.squares(seen, rows + rows @ fitted.coupling).solve(0.2)
        torch.testing.assert_close(found[f], fitted.coupling + own)


def test_errors_are_those_of_blocks_left_out(monkeypatch):
    monkeypatch.setattr(room, "_PENALTIES", (0.2, math.inf))
    fitted = fitted_responses()
    moments = moments_of(*windows(maps_of(fitted, [0.3, -0.2, 0.0])), fitted)
    found = room._cross_validated(fitted, moments)
    waves, objective = waves_of(*fitted[:3], L, H), fitted.objective
    added = disturbance(waves.past)
    total = torch.zeros(2, 3, H, dtype=torch.float64)
    for block in range(J):
        others = [j for j in range(J) if j != block]
        means = [part[others].mean(0) for part in moments[:5]]

        def disturbed(past, cross, future, rough, level):
            return added.added_to(Seen(past, cross, future), rough, 0.1 * level)

        pooled = disturbed(*(part.mean(0) for part in means))
        amplitude = best_amplitudes(waves.ahead, pooled, objective.weights, objective.penalty)
        rows = response_rows(waves.ahead, amplitude)
        prepared = coupling_rows(rows, objective.weights, objective.uncoupled)
        base = rows + rows @ prepared.squares(pooled).solve(0.3)
        for f in range(3):
            own = prepared.squares(disturbed(*(part[f] for part in means)), base).solve(0.2)
            target = Seen(*(part[block, f] for part in moments[:3]))
            total[0, f] += N * squared_errors(base + rows @ own, target)
            total[1, f] += N * squared_errors(base, target)
    torch.testing.assert_close(found, total)


@pytest.mark.parametrize("empty", ["one", "all"])
def test_variables_without_complete_histories_take_the_common_coupling(empty):
    fitted = fitted_responses()
    moments = moments_of(*windows(maps_of(fitted, [0.3, -0.2])), fitted)
    blank = torch.ones(2, dtype=torch.float64)
    blank[1 if empty == "one" else slice(None)] = 0.0
    parts = [part * blank.view(-1, *[1] * (part.ndim - 2)) for part in moments[:6]]
    found = own_couplings(fitted, StateMoments(*parts, 0))
    assert found.matrices.isfinite().all()
    assert found.errors.isfinite().all()
    torch.testing.assert_close(found.matrices[1], fitted.coupling)
    assert bool((found.matrices[0] != fitted.coupling).any()) == (empty == "one")
