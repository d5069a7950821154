"""Moments of windows, against loops over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsvae import SVAEForecaster
from tsvae.estimation import starting
from tsvae.estimation.building import follow_lines, measure_spread, resolve_sizes
from tsvae.estimation.fit_windows import FitWindows
from tsvae.estimation.history_filling import Shown
from tsvae.estimation.moments import variable_weights, window_moments
from tsvae.estimation.seasons import has_effect
from tsvae.estimation.state_windows import measure_errors, state_moments, state_windows
from tsvae.models.readout import linear_readout
from tsvae.models.window_response import window_response

BOTH = np.array([True, True])


def panel_of(n_steps=120, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(1, n_steps, 2)).cumsum(1)
    mask = rng.random(values.shape) >= missing
    return np.where(mask, values, 0.0), mask


def bridged(x, seen):
    """Straight lines between the first and the last value seen."""
    at = np.flatnonzero(seen)
    if not len(at):
        return x, seen
    inside = np.arange(at[0], at[-1] + 1)
    x, seen = x.copy(), seen.copy()
    x[inside], seen[inside] = np.interp(inside, at, x[at]), True
    return x, seen


def windows(values, mask, sizes, horizon, origins):
    """Yield past, its mask, future and its mask of every origin and variable."""
    length = sizes.context if sizes.context < sizes.window else sizes.window - 1
    for origin in origins:
        for f in range(values.shape[-1]):
            past, seen = np.zeros(length), np.ones(length, bool)
            begin = max(origin - length, 0)
            own, own_mask = values[0, begin:origin, f], mask[0, begin:origin, f]
            own, own_mask = bridged(own, own_mask)
            first = np.flatnonzero(own_mask)[: sizes.level_entries]
            level = own[first].mean() if len(first) else 0.0
            past[length - len(own) :] = np.where(own_mask, own - level, 0.0)
            seen[length - len(own) :] = own_mask
            future, known = (
                values[0, origin : origin + horizon, f],
                mask[0, origin : origin + horizon, f],
            )
            yield f, past, seen, np.where(known, future - level, 0.0), known


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_moments_by_a_loop(missing):
    values, mask = panel_of(missing=missing)
    sizes = resolve_sizes(120, 20, 4)
    weight = np.array([2.0, 0.5])
    own = FitWindows(Shown(values, mask), mask, np.array([120]), sizes, 4, BOTH)
    moments = window_moments(own, weight)
    length = moments.past.shape[-1]
    blocks = np.array_split(np.arange(length, 117), 8)
    for block in (0, 5):
        names = ("cross", "past", "future", "last")
        shapes = ((4, length), (length,), (4,), ())
        sums = {k: np.zeros(n) for k, n in zip(names, shapes, strict=True)}
        counts = {k: np.zeros(n) for k, n in zip(names, shapes, strict=True)}
        for f, past, seen, future, known in windows(values, mask, sizes, 4, blocks[block]):
            last = past[np.flatnonzero(seen)[-1]]
            x, y = (past - last) * seen, (future - last) * known
            share = known.mean()
            parts = (np.outer(y, x), share * x * last, y * last, share * last**2)
            entries = (np.outer(known, seen), share * seen, known, share)
            for name, part, entry in zip(names, parts, entries, strict=True):
                sums[name] += weight[f] * part
                counts[name] += entry
        mean = {name: sums[name] / np.maximum(counts[name], 1.0) for name in names}
        expected = mean["cross"] + mean["past"] + mean["future"][:, None] + mean["last"]
        known = counts["cross"] > 0
        np.testing.assert_allclose(
            moments.cross[block].numpy()[known], expected[known], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("missing", [0.05, 0.2])
def test_gaps_in_a_trend_leave_its_errors_small(missing):
    # Moments of pairs of large values, each over other windows, differ by more than the errors.
    rng = np.random.default_rng(0)
    values = (0.5 * np.arange(300.0) + rng.normal(size=300))[None, :, None]
    mask = rng.random(values.shape) >= missing
    sizes = resolve_sizes(300, 40, 3)
    shown = Shown(np.where(mask, values, 0.0), mask)
    own = FitWindows(shown, mask, np.array([300]), sizes, 3, np.array([True]))
    moments = window_moments(own, np.ones(1))
    persist = torch.zeros(3, moments.past.shape[-1], dtype=torch.float64)
    persist[:, -1] = 1.0
    pooled = moments.double().pooled(torch.ones(8, dtype=torch.bool))
    errors = ((persist @ pooled.past) * persist).sum(1)
    errors = errors - 2.0 * (persist * pooled.cross).sum(1) + pooled.future
    expected = 2.0 + (0.5 * np.arange(1, 4)) ** 2
    assert (errors.numpy() < 2.0 * expected).all()
    assert (errors.numpy() > 0.5 * expected).all()


def test_variables_count_alike_where_data_are_many():
    sizes = resolve_sizes(1000, 20, 4)
    scale = np.array([0.5, 2.0])
    np.testing.assert_array_equal(variable_weights(np.array([1000]), scale, sizes, 4), 1.0)
    few = variable_weights(np.array([60]), scale, sizes, 4)
    np.testing.assert_allclose(few, [2.0, 0.5])


def test_moments_of_gaps_are_positive():
    values, mask = panel_of(missing=0.5)
    sizes = resolve_sizes(120, 20, 4)
    own = FitWindows(Shown(values, mask), mask, np.array([120]), sizes, 4, BOTH)
    moments = window_moments(own, np.ones(2))
    assert float(torch.linalg.eigvalsh(moments.past.double()).min()) > -1e-4


def test_filled_entries_are_histories_but_no_targets():
    values, mask = panel_of(missing=0.3)
    filled = np.where(mask, values, 7.0)
    sizes, lengths = resolve_sizes(120, 20, 4), np.array([120])
    shown = Shown(filled, np.ones_like(mask))
    moments = window_moments(FitWindows(shown, mask, lengths, sizes, 4, BOTH), np.ones(2))
    # The same by plain products of the windows of block 3.
    x, y, seen = [], [], []
    for origin in np.array_split(np.arange(20, 117), 8)[3]:
        for f in range(2):
            past = filled[0, origin - 20 : origin, f]
            level = past[: sizes.level_entries].mean()
            ahead = slice(origin, origin + 4)
            x.append(past - level)
            y.append(values[0, ahead, f] - level)
            seen.append(mask[0, ahead, f])
    x, y, seen = (np.array(part, dtype=float) for part in (x, y, seen))
    last = x[:, -1:]
    gap = x - last
    cross = ((y - last) * seen).T @ gap / seen.sum(0)[:, None]
    share = seen.mean(1, keepdims=True)
    at_past = (share * gap * last).sum(0) / share.sum()
    at_future = ((y - last) * seen * last).sum(0) / seen.sum(0)
    expected = cross + at_past + at_future[:, None] + (share * last**2).sum() / share.sum()
    np.testing.assert_allclose(moments.cross[3].numpy(), expected, rtol=1e-4, atol=1e-4)
    past = (share * gap).T @ gap / share.sum()
    past = past + at_past + at_past[:, None] + (share * last**2).sum() / share.sum()
    np.testing.assert_allclose(moments.past[3].numpy(), past, rtol=1e-4, atol=1e-4)


def test_errors_by_a_loop():
    values, mask = panel_of(missing=0.2)
    sizes = resolve_sizes(120, 20, 4)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(20, 3, generator=generator)
    rows = torch.randn(2, 4, 3, generator=generator)
    forecast = (rows @ states.T).numpy()
    squares, counts = np.zeros((2, 4)), np.zeros((2, 4))
    for f, past, _, future, known in windows(values, mask, sizes, 4, range(20, 117)):
        squares[f] += known * (future - forecast[f] @ past) ** 2
        counts[f] += known
    own = FitWindows(Shown(values, mask), mask, np.array([120]), sizes, 4, BOTH)
    found = measure_errors(state_windows(own, states), rows)
    np.testing.assert_allclose(found, squares / counts, rtol=1e-4)


def test_state_moments_by_a_loop():
    """Complete histories alone; targets may have gaps."""
    values, mask = panel_of(missing=0.02)
    mask[0, 70:, 1] = True
    mask[0, 100:, 0] &= np.random.default_rng(1).random(20) < 0.7
    sizes = resolve_sizes(120, 20, 4)
    states = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    weight = np.array([2.0, 0.5])
    own = FitWindows(Shown(values, mask), mask, np.array([120]), sizes, 4, np.array([False, False]))
    found = state_moments(state_windows(own, states), own, weight)
    origins = np.arange(20, 117)
    for block, f in ((2, 0), (7, 0), (7, 1)):
        kept, pasts, past, cross, square, known = 0, [], 0.0, 0.0, 0.0, 0.0
        for origin in np.array_split(origins, 8)[block]:
            history = slice(origin - 20, origin)
            if not mask[0, history, f].all():
                continue
            x = values[0, history, f]
            level = x[: sizes.level_entries].mean()
            seen = mask[0, origin : origin + 4, f]
            y = np.where(seen, values[0, origin : origin + 4, f] - level, 0.0)
            z = (x - level) @ states.numpy()
            kept, pasts = kept + 1, [*pasts, x - level]
            past, cross = past + np.outer(z, z), cross + np.outer(y, z)
            square, known = square + y**2, known + seen
        assert kept == found.weight[block, f]
        if not kept:
            continue
        size = weight[f]
        np.testing.assert_allclose(found.past[block, f], size * past / kept, rtol=1e-4)
        count = np.maximum(known, 1)
        np.testing.assert_allclose(found.cross[block, f], size * cross / count[:, None], rtol=1e-3)
        np.testing.assert_allclose(found.future[block, f], size * square / count, rtol=1e-4)
        x = np.array(pasts)
        rough = size * 0.5 * (np.diff(x, axis=1) ** 2).mean()
        np.testing.assert_allclose(found.rough[block, f], rough, rtol=1e-4)
        np.testing.assert_allclose(found.level[block, f], size * (x**2).mean(), rtol=1e-4)


def test_the_model_forecasts_as_fitted(monkeypatch):
    """Filter and roll-out of the built model are the linear maps that the moments gave."""
    kept = []
    for function in (state_windows, measure_errors):

        def keep(first, second, function=function):
            kept.append(second)
            return function(first, second)

        monkeypatch.setattr(starting, function.__name__, keep)
    clock, noise = np.arange(600), np.random.default_rng(0).normal(size=(600, 2))
    series = np.column_stack((np.sin(clock / 4.0), np.cos(clock / 9.0))) + 0.3 * noise
    forecaster = SVAEForecaster(6, context_length=40, latent_dim=16).fit(series)
    states, rows = kept
    model, wanted = forecaster.model_, (rows @ states.T).numpy()
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01
    response = window_response(model, 40, torch.zeros(1, 1, 1)).weight[:, 0]  # (L, D)
    readout = linear_readout(model.dynamics.plug_in(), model.decoder.emission_matrix, 6)
    for f, matrix in enumerate(model.coupling.matrix.detach()):
        found = readout.gain[:, 0] @ (response + response @ matrix.T).T
        np.testing.assert_allclose(found.numpy(), wanted[f, :6], atol=0.01)


def test_gaps_of_some_variables_stay():
    values, mask = panel_of(missing=0.3)
    sizes, lengths, weight = resolve_sizes(120, 20, 4), np.array([120]), np.ones(2)

    def moments(bridged, variables):
        own = Shown(values[..., variables], mask[..., variables])
        cut = FitWindows(own, own.known, lengths, sizes, 4, np.array(bridged))
        return window_moments(cut, weight[variables])

    def gram(bridged):
        return moments(bridged, [0, 1]).past

    by_both, by_first, by_none = gram([True, True]), gram([True, False]), gram([False, False])
    assert (by_first - by_both).abs().max() > 0.01
    assert (by_first - by_none).abs().max() > 0.01
    assert (moments([True], [0]).past - moments([False], [0]).past).abs().max() > 0.01


def test_lines_are_followed_by_smooth_variables_alone():
    rng = np.random.default_rng(0)
    both = np.stack((rng.normal(size=300).cumsum().cumsum(), rng.normal(size=300)), axis=-1)[None]
    mask = rng.random(both.shape) < 0.8
    spread = measure_spread(np.where(mask, both, 0.0), mask, resolve_sizes(300, 40, 4))
    found = follow_lines(np.where(mask, both, 0.0), mask, spread)
    np.testing.assert_array_equal(found, [True, False])


def test_errors_are_never_below_those_in_the_data():
    expected = torch.tensor([-0.5, 2.0], dtype=torch.float64)
    errors, weight = np.array([[1.0, 1.0], [3.0, np.nan]]), np.ones(2)
    np.testing.assert_allclose(starting._at_least(expected, errors, weight), [2.0, 2.0])


def test_effect_of_a_season_and_none_on_a_random_walk():
    rng = np.random.default_rng(0)
    clock = np.arange(80)[None, :, None]
    waves = np.concatenate([np.sin(np.pi / 2 * clock), np.cos(np.pi / 2 * clock)], -1)
    season = waves[..., :1] + 0.3 * rng.normal(size=(1, 80, 1))
    walk = rng.normal(size=(1, 80, 1)).cumsum(1)
    values = np.concatenate([season, walk, np.zeros_like(walk)], -1)
    found = has_effect(values, np.ones_like(values, bool), waves)
    assert found.tolist() == [True, False, False]


def test_states_of_many_windows_stay_within_memory(monkeypatch):
    values, mask = panel_of()
    windows = FitWindows(
        Shown(values, mask), mask, np.array([120]), resolve_sizes(120, 20, 4), 4, BOTH
    )
    states = torch.ones(20, 3)
    everything = sum(piece.states.shape[1] for piece in state_windows(windows, states))
    monkeypatch.setattr("tsvae.estimation.state_windows._NUMBERS", 11 * everything)
    some = state_windows(windows, states)
    assert {piece.block for piece in some} == set(range(8))
    assert 0 < sum(piece.states.shape[1] for piece in some) < 0.7 * everything


def test_steps_beyond_the_reach_count_where_the_data_hold_them():
    values, mask = panel_of()
    sizes, lengths = resolve_sizes(120, 20, 4), np.array([120])
    shown = Shown(values, mask)
    near = FitWindows(shown, mask, lengths, sizes, 4, BOTH)
    far = FitWindows(shown, mask, lengths, sizes, 30, BOTH, 4)
    np.testing.assert_array_equal(near.origins(), far.origins())
    for (block, some), (same, more) in zip(near.blocks(8), far.blocks(8), strict=True):
        assert block == same
        assert torch.equal(some.past, more.past)
        assert torch.equal(some.future, more.future[:, :4])
        assert torch.equal(some.future_mask, more.future_mask[:, :4])
    last = more.future_mask.view(-1, 2, 30)[-1]
    np.testing.assert_array_equal(last[:, 4:], 0.0)  # the data end there
    first = next(far.blocks(8))[1].future_mask
    assert bool(first.all())
