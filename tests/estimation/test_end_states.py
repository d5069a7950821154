"""Season and slope at the last row, against states turned step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsvae.estimation.end_states import Phases, find_end_states
from tsvae.models.structural import Structural, StructuralForm, _system

ANGLES = (2 * np.pi / 12, 2 * np.pi / 6)
KNOWN = np.array([0.3, ANGLES[1], ANGLES[0]])  # of the stamps, in another order


def phases(last):
    """At the last rows' clocks."""
    turned = np.asarray(last)[:, None] * KNOWN
    return Phases(KNOWN, np.concatenate([np.sin(turned), np.cos(turned)], axis=1))


def model(angles=ANGLES, trend="fixed", n_variables=2):
    form = StructuralForm(trend, tuple(angles))
    free = torch.as_tensor(np.random.default_rng(0).normal(size=len(form.names)) - 1.0)
    variance = torch.linspace(0.5, 2.0, n_variables, dtype=torch.float64)
    return Structural(form, _system(form, free), variance, 0.0)


def chains(n=2, rows=40):
    x = torch.as_tensor(np.random.default_rng(1).normal(size=(n, rows)).cumsum(1))
    return x, torch.ones_like(x, dtype=torch.bool)


@pytest.mark.parametrize("trend", ["none", "fixed"])
def test_waves_go_on_as_the_state_does(trend):
    fitted, (x, mask), last = model(trend=trend), chains(), [75, 75]
    found = find_end_states(fitted, x, mask, np.arange(2), phases(last), memory=40)
    state = fitted.end(x, mask)[0]
    first = state.shape[1] - 2 * len(ANGLES)
    for step in range(1, 30):
        state = state @ fitted.system.transition.T
        clock = (last[0] + step) * KNOWN
        waves = np.concatenate([np.sin(clock), np.cos(clock)])
        wanted = state[:, first::2].sum(1).numpy()
        np.testing.assert_allclose(found.effects @ waves, wanted, atol=1e-9)
    assert not found.effects[:, [0, 3]].any()  # a wave that the model does not have


def test_what_is_left_for_the_states():
    """How states differ, how little they are known, and how they move over a history."""
    fitted, (x, mask) = model(n_variables=1), chains(3)
    last = [75, 80, 40]
    found = find_end_states(fitted, x, mask, np.zeros(3, int), phases(last), memory=40)
    mean, variance = (part.numpy() for part in fitted.end(x, mask))
    first = mean.shape[1] - 4
    assert np.isinf(found.variance[0])
    for j, angle in enumerate(ANGLES):
        pair = mean[:, first + 2 * j : first + 2 * j + 2]
        turned = np.array(last) * angle
        waves = np.stack(
            (
                pair[:, 0] * np.sin(turned) + pair[:, 1] * np.cos(turned),
                pair[:, 0] * np.cos(turned) - pair[:, 1] * np.sin(turned),
            )
        )
        apart = waves.var(axis=1).mean() / float(fitted.variance[0])
        moves = 40 * float(fitted.system.noise[first + 2 * j])
        own = variance[:, first + 2 * j : first + 2 * j + 2].mean()
        for column in (0, 1):
            assert found.variance[first + 2 * j + column] == pytest.approx(apart + own + moves)


def test_one_season_seen_from_other_clocks_is_one_pattern():
    """Series that start at other stamps; their states at the end differ, their months do not."""
    rng = np.random.default_rng(3)
    starts, rows = np.array([0, 5, 7]), 200
    clock = starts[:, None] + np.arange(rows)
    season = 3.0 * np.cos(ANGLES[0] * clock + 1.0) + np.sin(ANGLES[1] * clock)
    x = torch.as_tensor(season + 0.1 * rng.normal(size=season.shape))
    mask = torch.ones_like(x, dtype=torch.bool)
    fitted = model(trend="none", n_variables=1)
    small = fitted.system._replace(noise=torch.full((5,), 1e-8).double())
    fitted = fitted._replace(system=small)
    found = find_end_states(
        fitted, x, mask, np.zeros(3, int), phases(starts + rows - 1), memory=100
    )
    clock = np.arange(24)[:, None] * KNOWN
    waves = np.concatenate([np.sin(clock), np.cos(clock)], axis=1)
    wanted = 3.0 * np.cos(ANGLES[0] * np.arange(24) + 1.0) + np.sin(ANGLES[1] * np.arange(24))
    np.testing.assert_allclose(found.effects[0] @ waves.T, wanted, atol=0.1)


def test_no_wave_of_the_stamps():
    (x, mask), fitted = chains(), model(angles=(0.77,), trend="none")
    for stamps in (phases([5, 5]), None):
        found = find_end_states(fitted, x, mask, np.arange(2), stamps, memory=9)
        assert found.effects is None
        assert np.isinf(found.variance).all()
        assert not found.mean.any()


def test_slopes_that_stay_are_known_beforehand():
    fitted, (x, mask) = model(angles=()), chains(4)
    variable = np.array([0, 1, 0, 1])
    found = find_end_states(fitted, x, mask, variable, None, memory=30)
    end, unknown = (part.numpy() for part in fitted.end(x, mask))
    slopes = end[:, 1] / np.sqrt(fitted.variance.numpy()[variable])
    assert found.mean[1] == pytest.approx(slopes.mean())
    assert found.variance[1] == pytest.approx(slopes.var() + unknown[:, 1].mean())
    unknown = found.without_slope()
    assert np.isinf(unknown.variance).all()
    assert not unknown.mean.any()
    damped = find_end_states(model((), "damped"), x, mask, variable, None, memory=30)
    assert np.isinf(damped.variance).all()
