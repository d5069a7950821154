"""Noise that a fitted pattern takes, against the algebra of least squares."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsvae import SVAEForecaster
from tsvae.estimation.pattern_loss import Pattern, lost_covariances

N, PERIOD = 240, 12
ANGLES = np.array([2 * np.pi * k / PERIOD for k in range(1, PERIOD // 2 + 1)])


def waves(rows):
    phase = np.arange(rows)[:, None] * ANGLES
    both = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    return both[:, np.abs(both).max(0) > 1e-6]  # no sine at the shortest period


def residual_map(share):
    design = waves(N)
    return np.eye(N) - share * design @ np.linalg.solve(design.T @ design, design.T)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_moments_of_futures_outside_the_data(share):
    """Of white noise: what is lost is what covariances beyond the data have more than inside."""
    horizon, size = PERIOD, 3.0
    design, later = waves(N), waves(N + horizon)[N:]
    inside = residual_map(share)
    among = size**2 * inside @ inside.T
    miss = -share * later @ np.linalg.solve(design.T @ design, design.T)
    beyond = size**2 * (np.eye(horizon) + miss @ miss.T)
    across = size**2 * miss @ inside.T  # (H, N)
    lags = np.array([np.diagonal(among, k).mean() for k in range(3 * PERIOD)])
    values = size * np.random.default_rng(0).normal(size=(40, N))
    values = (values @ inside.T).reshape(-1, N, 1)  # many draws, to know the spectrum well
    pattern = Pattern(ANGLES, np.full((1, len(ANGLES)), share))
    lost = lost_covariances(values, np.ones_like(values, bool), pattern, len(lags))[0]
    lost = lost * len(values)  # of a pattern fitted to each of them
    cross = np.array([across[0, N - k] for k in range(1, len(lags))])
    np.testing.assert_allclose(lags[1:] + lost[1:], cross, atol=0.02 * lost[0] + 0.01 * size**2)
    assert lags[0] + 2 * lost[0] == pytest.approx(np.diag(beyond).mean(), rel=0.02)


def test_levels_that_wander_do_not_leak():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(40, N, 1)) + 0.2 * rng.normal(size=(40, N, 1)).cumsum(1)
    pattern = Pattern(ANGLES[1:], np.ones((1, len(ANGLES) - 1)))
    seen = np.ones_like(values, bool)
    quiet = lost_covariances(rng.normal(size=values.shape), seen, pattern, 1)
    assert 1.0 < lost_covariances(values, seen, pattern, 1)[0, 0] / quiet[0, 0] < 1.5


def test_variables_without_a_pattern_lose_nothing():
    values = np.random.default_rng(2).normal(size=(1, N, 2))
    shares = np.array([[1.0] * len(ANGLES), [0.0] * len(ANGLES)])
    lost = lost_covariances(values, np.ones_like(values, bool), Pattern(ANGLES, shares), 5)
    assert lost[0, 0] > 0
    assert not lost[1].any()


def test_forecasts_do_not_swing_back_from_noise():
    """White noise about a monthly pattern: nothing foretells the noise."""
    index = pd.period_range("1990-01", periods=N + PERIOD, freq="M")
    pattern = 4.0 * np.cos(2 * np.pi * (np.arange(N + PERIOD) / PERIOD))
    distances = []
    for seed in range(2):
        noise = np.random.default_rng(seed).normal(size=N + PERIOD)
        frame = pd.DataFrame({"x": pattern + noise}, index=index)
        forecaster = SVAEForecaster(horizon=PERIOD, start="moments", random_state=0)
        found = forecaster.fit(frame.iloc[:N]).predict()["x"].to_numpy()
        design = np.column_stack([np.ones(N + PERIOD), waves(N + PERIOD)])
        fit = np.linalg.lstsq(design[:N], frame["x"].to_numpy()[:N], rcond=None)[0]
        distances.append(np.mean((found - design[N:] @ fit) ** 2))
    assert np.mean(distances) < 0.05  # beside a noise variance of 1
