"""Structural models: the likelihood and forecasts against dense Gaussians, and what is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tsvae.models.structural import StructuralForm, _Data, _fit, _system, fit_structural

ANGLES = (2 * math.pi / 6, 2 * math.pi / 3)
FORMS = [
    StructuralForm(),
    StructuralForm("fixed"),
    StructuralForm("damped", ANGLES),
    StructuralForm("none", (*ANGLES, math.pi)),
]


def system_of(form, seed=0):
    free = torch.as_tensor(np.random.default_rng(seed).normal(size=len(form.names)))
    return _system(form, free)


def dense(system, n_steps):
    """Covariance of the states of all steps, by powers of the transition written out."""
    transition, noise, initial = (
        part.numpy()
        for part in (system.transition, torch.diag(system.noise), torch.diag(system.initial))
    )
    size = len(transition)
    powers = [np.linalg.matrix_power(transition, k) for k in range(n_steps)]
    lower = np.block(
        [
            [powers[t - s] if t >= s else np.zeros((size, size)) for s in range(n_steps)]
            for t in range(n_steps)
        ]
    )
    shocks = np.kron(np.eye(n_steps), noise)
    shocks[:size, :size] = initial
    return lower @ shocks @ lower.T


def seen_covariance(system, n_steps):
    """Of the observations, noise variance 1."""
    show = np.kron(np.eye(n_steps), system.emission.numpy()[None])
    return show @ dense(system, n_steps) @ show.T + np.eye(n_steps)


def chains(missing=0.2, seed=0, n_steps=11):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, n_steps)).cumsum(1)
    mask = rng.random(x.shape) >= missing
    return np.where(mask, x, 0.0), mask, np.array([0, 1, 0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_likelihood_is_that_of_a_dense_gaussian(form, missing):
    """With the noise of each variable at its maximum, written out."""
    x, mask, variable = chains(missing)
    system = system_of(form)
    covariance = seen_covariance(system, x.shape[1])
    counts, squares, log_dets = np.zeros(2), np.zeros(2), 0.0
    for row, seen, f in zip(x, mask, variable, strict=True):
        part = covariance[np.ix_(seen, seen)]
        counts[f] += seen.sum()
        squares[f] += row[seen] @ np.linalg.solve(part, row[seen])
        log_dets += np.linalg.slogdet(part)[1]
    variance = squares / counts
    wanted = 0.5 * (counts * np.log(variance)).sum() + 0.5 * log_dets
    data = _Data(torch.as_tensor(x), torch.as_tensor(mask), torch.as_tensor(variable))
    found, noise = data.likelihood(system)
    np.testing.assert_allclose(noise.numpy(), variance, rtol=1e-9)
    assert float(found) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_forecasts_are_those_of_dense_conditioning(form):
    x, mask, variable = chains(0.3, seed=1)
    n_steps, horizon = x.shape[1], 4
    system = system_of(form, seed=1)
    data = _Data(torch.as_tensor(x), torch.as_tensor(mask), torch.as_tensor(variable))
    fitted = _fit(data, form)._replace(system=system)
    ahead = fitted.forecasts(data.x, data.mask, horizon)
    covariance = seen_covariance(system, n_steps + horizon)
    for n in range(len(x)):
        for t in range(n_steps):
            seen = np.flatnonzero(mask[n, : t + 1])
            later = np.arange(t + 1, t + 1 + horizon)
            gain = np.zeros((horizon, 0))
            if len(seen):
                gain = np.linalg.solve(
                    covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, later)]
                ).T
            rest = covariance[np.ix_(later, later)] - gain @ covariance[np.ix_(seen, later)]
            np.testing.assert_allclose(ahead.mean[n, t], gain @ x[n, seen], atol=1e-8)
            np.testing.assert_allclose(ahead.variance[n, t], np.diag(rest), rtol=1e-8)


def test_gradients_lead_to_a_maximum():
    """No parameter moved by itself makes the likelihood larger."""
    rng = np.random.default_rng(2)
    x = torch.as_tensor(rng.normal(size=(1, 80)).cumsum(1) + rng.normal(size=(1, 80)))
    data = _Data(x - x[:, :1], torch.ones_like(x, dtype=torch.bool), torch.zeros(1).long())
    fitted = _fit(data, StructuralForm())
    ratio = float(fitted.system.noise[0].log())
    values = [
        float(data.likelihood(_system(fitted.form, torch.tensor([ratio + move]).double()))[0])
        for move in (-0.3, 0.0, 0.3)
    ]
    assert values[1] < values[0] and values[1] < values[2]


def fit_to(series, angles=ANGLES):
    x = torch.as_tensor(series)[None]
    seen = torch.ones_like(x, dtype=torch.bool)
    return fit_structural(x - x[:, :1], seen, torch.zeros(1, dtype=torch.long), angles)


STEPS = np.arange(90)


@pytest.mark.parametrize("seed", range(3))
def test_a_season_and_a_line_are_found(seed):
    noise = 0.3 * np.random.default_rng(seed).normal(size=90)
    fitted = fit_to(np.sin(2 * np.pi * STEPS / 6) * 2 + 0.2 * STEPS + noise)
    assert fitted.form.angles == ANGLES
    assert fitted.form.trend != "none"
    assert math.sqrt(fitted.variance[0]) == pytest.approx(0.3, rel=0.25)


@pytest.mark.parametrize("seed", range(3))
def test_white_noise_and_a_random_walk_get_a_level_alone(seed):
    noise = np.random.default_rng(seed).normal(size=90)
    flat = fit_to(noise)
    assert flat.form == StructuralForm()
    assert float(flat.system.noise[0]) < 0.05
    walk = fit_to(noise.cumsum())
    assert walk.form == StructuralForm()
    assert float(walk.system.noise[0]) > 3.0


def test_variables_share_dynamics_and_keep_their_own_noise():
    rng = np.random.default_rng(0)
    x = torch.as_tensor(rng.normal(size=(2, 200)) * [[1.0], [10.0]])
    seen = torch.ones_like(x, dtype=torch.bool)
    fitted = fit_structural(x - x[:, :1], seen, torch.arange(2))
    assert math.sqrt(fitted.variance[1] / fitted.variance[0]) == pytest.approx(10.0, rel=0.15)
