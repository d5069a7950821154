"""Sizes of movements in windows, against loops."""

from __future__ import annotations

import numpy as np
import pytest

from tsvae.estimation.window_sizes import cycle_of, phase_sizes, window_sizes


def test_sizes_of_windows():
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=(3, 40, 2)), rng.random((3, 40, 2)) < 0.7
    mask[0, 5:, 0] = False  # too few to know
    found = window_sizes(np.where(mask, values, 0.0), mask)
    assert np.isnan(found[0, 0])
    for b, f in ((0, 1), (1, 0), (2, 1)):
        assert found[b, f] == pytest.approx(np.log(values[b, mask[b, :, f], f].std()), abs=1e-9)
    assert np.isfinite(window_sizes(np.zeros((1, 40, 1)), np.ones((1, 40, 1), dtype=bool))).all()


@pytest.mark.parametrize(("n_steps", "cycle", "horizon"), [(40, 7, 10), (24, 12, 5), (30, 4, 4)])
def test_sizes_by_phase_by_a_loop(n_steps, cycle, horizon):
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=(2, n_steps, 2)), rng.random((2, n_steps, 2)) < 0.8
    found = phase_sizes(np.where(mask, values, 0.0), mask, cycle, horizon)
    for b in range(2):
        for f in range(2):
            for h in range(horizon):
                total = weight = 0.0
                late = n_steps + h % cycle - cycle
                for ago in range(n_steps):
                    now, before = late - ago * cycle, late - (ago + 1) * cycle
                    if before < n_steps % cycle:
                        break
                    if mask[b, now, f] and mask[b, before, f]:
                        own = 0.5 ** (ago / 7)
                        total += own * (values[b, now, f] - values[b, before, f]) ** 2
                        weight += own
                want = 0.5 * np.log(total / weight) if weight else np.nan
                np.testing.assert_allclose(found[b, h, f], want, rtol=1e-6)


def test_windows_of_one_cycle_have_no_phases():
    x = np.zeros((2, 10, 1))
    assert np.isnan(phase_sizes(x, np.ones(x.shape, dtype=bool), 6, 3)).all()


@pytest.mark.parametrize(
    ("periods", "context", "cycle"),
    [([24.0, 168.0], 512, 24), ([], 512, 0), ([288.0], 512, 0), ([365.25, 7.0], 100, 7)],
)
def test_cycle_of_a_window(periods, context, cycle):
    assert cycle_of(periods, context) == cycle
