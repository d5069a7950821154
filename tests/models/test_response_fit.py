"""Responses fitted to second moments, against the same sums over windows written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tsvae.lds import LinearDynamicsPosterior
from tsvae.models.fitted_start import fitted_start
from tsvae.models.moments import WindowMoments
from tsvae.models.response_fit import (
    FittedResponses,
    Objective,
    _Bank,
    _weights,
    fit_responses,
)
from tsvae.models.response_squares import (
    STIFF,
    Penalty,
    best_amplitudes,
    disturbance,
    response_rows,
    squared_errors,
    waves_of,
)
from tsvae.models.start import state_roles, with_slopes


def roles_of(n_groups, periods=(12.0,), memory=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return with_slopes(state_roles(n_groups, periods, memory, generator))


def windows_of(series, length, horizon):
    view = np.lib.stride_tricks.sliding_window_view(series, length + horizon)
    level = view[:, : length // 4].mean(1, keepdims=True)
    view = torch.as_tensor(view - level)
    return view[:, :length], view[:, length:]


def moments_of(series, length, horizon, n_blocks=4):
    x, y = windows_of(series, length, horizon)
    blocks = list(zip(x.tensor_split(n_blocks), y.tensor_split(n_blocks), strict=True))
    return WindowMoments(
        torch.stack([a.T @ a / len(a) for a, _ in blocks]),
        torch.stack([b.T @ a / len(a) for a, b in blocks]),
        torch.stack([b.square().mean(0) for _, b in blocks]),
        torch.tensor([float(len(a)) for a, _ in blocks], dtype=torch.float64),
        0,
    )


def some_responses():
    return FittedResponses(
        torch.tensor([0.0, 0.5, 1.3], dtype=torch.float64),
        torch.tensor([1.0, 0.95, 0.8], dtype=torch.float64),
        torch.tensor([0.98, 0.3, 0.6], dtype=torch.float64),
        torch.tensor([[1.0, 0.0], [0.4, -0.7], [-0.3, 0.2]], dtype=torch.float64),
        torch.tensor(np.random.default_rng(0).normal(size=(6, 6))),
        torch.linspace(0.5, 1.5, 4, dtype=torch.float64),
        Objective(torch.ones(4).double(), Penalty(0.1, False, 0.1), 0.3, torch.ones(4).double(), 9),
    )


def forecast_map(fitted, n_past, horizon):
    """M, (H, L); column 0 belongs to the oldest value."""
    waves = waves_of(fitted.angles, fitted.radius, fitted.gain, n_past, horizon)
    rows = response_rows(waves.ahead, fitted.amplitude)
    return (rows + rows @ fitted.coupling) @ waves.past.T


def test_map_is_a_filter_followed_by_a_forecast():
    fitted = some_responses()
    x = np.random.default_rng(0).normal(size=9)
    states, turns = np.zeros(3, complex), np.zeros(3, complex)
    for g in range(3):
        angle, radius, gain = (float(part[g]) for part in fitted[:3])
        turns[g] = radius * np.exp(1j * angle)
        for value in x:
            states[g] = (1.0 - gain) * turns[g] * states[g] + gain * value
    stacked = np.concatenate((states.real, states.imag))
    stacked = stacked + fitted.coupling.numpy() @ stacked
    states = stacked[:3] + 1j * stacked[3:]
    expected = np.zeros(4)
    for h in range(1, 5):
        ahead = turns**h * states
        first, second = fitted.amplitude.numpy().T
        expected[h - 1] = (first * ahead.real + second * ahead.imag).sum()
    found = forecast_map(fitted, len(x), 4) @ torch.as_tensor(x)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_errors_of_moments_are_errors_of_windows():
    series = np.random.default_rng(1).normal(size=200).cumsum()
    x, y = windows_of(series, 20, 5)
    moments = moments_of(series, 20, 5).pooled(torch.ones(4, dtype=torch.bool))
    bank = _Bank(roles_of(6), moments)
    waves = bank.waves()
    amplitude = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double()
    rows = response_rows(waves.ahead, amplitude)
    found = squared_errors(rows, bank.seen(moments, waves.past))
    direct = (y - x @ waves.past @ rows.T).square().mean(0)
    torch.testing.assert_close(found, direct)


@pytest.mark.parametrize("persistent", [False, True])
def test_amplitudes_solve_the_penalised_least_squares(persistent):
    """Against gradient zero of the penalised error, taken by autograd."""
    series = np.sin(np.arange(150) / 3.0) + 0.3 * np.random.default_rng(2).normal(size=150)
    moments = moments_of(series, 16, 4).pooled(torch.ones(4, dtype=torch.bool))
    bank = _Bank(roles_of(4), moments)
    waves, weights = bank.waves(), torch.tensor([0.5, 1.0, 1.5, 1.0], dtype=torch.float64)
    waves = type(waves)(waves.ahead.detach(), waves.past.detach())
    seen = bank.noisy(bank.seen(moments, waves.past), disturbance(waves.past), 0.1)
    amplitude = best_amplitudes(waves.ahead, seen, weights, Penalty(0.1, persistent, 0.1))

    def loss(c):
        return (weights * squared_errors(response_rows(waves.ahead, c), seen)).sum()

    c = amplitude.clone().requires_grad_()
    gradient = torch.autograd.grad(loss(c), c)[0]
    curvature = torch.autograd.functional.hessian(loss, amplitude).reshape(8, 8).diagonal() / 2.0
    size = curvature.mean()
    penalty = 0.1 * size * torch.ones(4, 2, dtype=torch.float64)
    penalty[0, 0] = STIFF * size if persistent else 0.0
    target = torch.zeros(4, 2, dtype=torch.float64)
    target[0, 0] = 1.0
    wanted = penalty * (target - amplitude)
    torch.testing.assert_close(gradient / 2.0, wanted, rtol=1e-4, atol=1e-5 * float(size))


@pytest.mark.parametrize("seed", range(4))
def test_a_random_walk_is_forecast_by_its_last_value(seed):
    """Where cross-validation alone would see it return to the level of the blocks around."""
    series = np.random.default_rng(seed).normal(size=600).cumsum()
    fitted = fit_responses(moments_of(series, 40, 8, 8), roles_of(12), 8, n_steps=20)
    assert fitted.amplitude[0].tolist() == [1.0, 0.0]
    assert not fitted.amplitude[1:].any() and not fitted.coupling.any()
    x, y = windows_of(series, 40, 8)
    found = x @ forecast_map(fitted, 40, 8).T
    last = x[:, -1:].expand_as(y)
    torch.testing.assert_close(found, last, rtol=0.0, atol=0.1)  # the anchor has a gain below 1
    naive = (y - last).square().mean(0)
    torch.testing.assert_close(fitted.errors, naive, rtol=0.05, atol=0.0)


def test_a_fit_is_kept_where_the_last_value_is_not_wanted():
    series = np.random.default_rng(0).normal(size=600).cumsum()
    moments = moments_of(series, 40, 8, 8)
    fitted = fit_responses(moments, roles_of(12), 8, n_steps=5, may_persist=False)
    assert math.isfinite(fitted.objective.penalty.size)
    assert fitted.amplitude[1:].any()


def test_a_wave_with_a_trend_is_forecast_closely():
    time = np.arange(400)
    series = np.sin(2 * math.pi * time / 12) + 0.02 * time
    fitted = fit_responses(moments_of(series, 60, 12, 8), roles_of(16, memory=60), 12)
    x, y = windows_of(series, 60, 12)
    error = (y - x @ forecast_map(fitted, 60, 12).T).square().mean()
    assert error < 5e-3 * y.var()


def test_coupling_tells_a_wave_from_a_level():
    """Each group takes all of a value for its own; the states of others tell how much is."""
    time, rng = np.arange(3000), np.random.default_rng(5)
    level = np.zeros(3000)
    for t in range(1, 3000):
        level[t] = 0.99 * level[t - 1] + rng.normal()
    series = level + 3.0 * np.sin(2 * math.pi * time / 12) * (1.0 + 0.3 * np.sin(time / 200))
    fitted = fit_responses(moments_of(series, 30, 6, 8), roles_of(6), 6, n_steps=0)
    x, y = windows_of(series, 30, 6)
    alone = fitted._replace(coupling=torch.zeros_like(fitted.coupling))
    error, before = (
        float((y - x @ forecast_map(f, 30, 6).T).square().mean()) for f in (fitted, alone)
    )
    assert error < 0.8 * before


def test_moments_pool_by_weight():
    series = np.random.default_rng(4).normal(size=101)
    x, y = windows_of(series, 10, 3)
    pooled = moments_of(series, 10, 3).pooled(torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(pooled.past, x.T @ x / len(x))
    torch.testing.assert_close(pooled.cross, y.T @ x / len(x))


def test_steps_with_negative_errors_do_not_decide_alone():
    errors = torch.tensor([1.0, 2.0, -0.1, 1.0], dtype=torch.float64)
    weights = _weights(errors, torch.ones(4).double(), torch.ones(4).double())
    assert float(weights[2] / weights[0]) <= 100.0


# -- from responses to a model ---------------------------------------------------------------------


def test_start_has_the_gains_of_the_fit():
    """Kalman recursion of each group, from its start on: the same gain at every step."""
    fitted = some_responses()
    start = fitted_start(fitted, fitted.coupling[None])
    precision = start.bank.precision.unflatten(0, (-1, 2)).double()
    for g in range(3):
        a = start.dynamics.transition_matrix[g].double()
        q = start.dynamics.noise_covariance[g].double()
        predicted = start.dynamics.initial_covariance[g].double()
        for _ in range(5):
            filtered = torch.linalg.inv(torch.linalg.inv(predicted) + precision[g].diag())
            gain = filtered @ precision[g].diag()
            expected = float(fitted.gain[g]) * torch.eye(2, dtype=torch.float64)
            torch.testing.assert_close(gain, expected, rtol=1e-4, atol=1e-5)
            predicted = a @ filtered @ a.mT + q


def test_start_spreads_as_the_errors_do():
    fitted = some_responses()
    fitted = fitted._replace(errors=torch.tensor([0.3, 0.5, 0.65, 0.75], dtype=torch.float64))
    start = fitted_start(fitted, fitted.coupling[None])
    found = []
    state = torch.diag_embed(
        (fitted.gain[:, None] / start.bank.precision.unflatten(0, (-1, 2))).double()
    )
    c = start.bank.emission.unflatten(0, (-1, 2)).double()
    a, q = start.dynamics.transition_matrix.double(), start.dynamics.noise_covariance.double()
    for _ in range(4):
        state = a @ state @ a.mT + q
        found.append(float(torch.einsum("gk,gkl,gl->", c, state, c)) + start.noise_scale**2)
    np.testing.assert_allclose(found, fitted.errors.numpy(), rtol=0.25)


@pytest.mark.parametrize("angle", [math.pi, 2.0 * math.pi, 3.1, 4.0])
def test_a_period_of_two_steps_and_beyond_has_a_logarithm(angle):
    """A harmonic of a period of two: the charts of ordinary gradients hold it, too."""
    fitted = some_responses()
    fitted = fitted._replace(angles=torch.tensor([0.0, 0.5, angle], dtype=torch.float64))
    start = fitted_start(fitted, fitted.coupling[None]).dynamics
    for posterior in ("gradient", "point"):
        theta = LinearDynamicsPosterior(
            6, group_size=2, posterior=posterior, chart="generator", start=start
        )
        held = theta.plug_in().transition_matrix
        torch.testing.assert_close(held, start.transition_matrix, rtol=1e-5, atol=2e-5)
