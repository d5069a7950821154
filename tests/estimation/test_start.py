"""What the data say about where a model begins: spreads, effects of inputs, fixed seasons."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from tsvae import SVAEForecaster
from tsvae.estimation import structured
from tsvae.estimation.building import Sizes, measure_spread, resolve_sizes, ridge
from tsvae.estimation.seasons import automatic_angles, fixed_angles, seldom_seen
from tsvae.estimation.start_data import input_effects
from tsvae.models.start import seasonal_angles
from tsvae.panel import read_panel


def all_seen(values):
    return np.ones_like(values, dtype=bool)


# -- spread ----------------------------------------------------------------------------------------


def slow_window_spread(values, mask, sizes, starts):
    """Deviation from the mean of the first entries, window by window."""
    squares = []
    for start in starts:
        for series in range(len(values)):
            x = values[series, start : start + sizes.window]
            seen = x[mask[series, start : start + sizes.window]]
            squares.extend((seen - seen[: sizes.level_entries].mean()) ** 2)
    return np.sqrt(np.mean(squares))


def test_window_spread_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 20, 1)).cumsum(1)
    mask = rng.random(values.shape) < 0.7
    sizes = Sizes(context=12, window=20, horizon=4, min_history=6, level_entries=3, asked=4)
    got = measure_spread(np.where(mask, values, 0.0), mask, sizes)
    assert got.window[0] == pytest.approx(slow_window_spread(values, mask, sizes, [0]))


def test_windows_are_spread_over_the_data():
    """Movement in the last rows alone is seen."""
    values = np.zeros((1, 1000, 1))
    values[:, -50:] = 1.0
    sizes = resolve_sizes(1000, 80, 20)
    assert 0.05 < measure_spread(values, all_seen(values), sizes).window[0] < 0.5


def test_white_noise_is_all_noise():
    rng = np.random.default_rng(1)
    values = rng.standard_normal((2, 2000, 3)) * [1.0, 5.0, 0.2] + [100.0, 0.0, -3.0]
    sizes = resolve_sizes(2000, 200, 50)
    spread = measure_spread(values, all_seen(values), sizes)
    np.testing.assert_allclose(spread.noise, [1.0, 5.0, 0.2], rtol=0.05)
    np.testing.assert_allclose(spread.window, [1.0, 5.0, 0.2], rtol=0.1)


def test_a_slow_wave_has_little_noise():
    rng = np.random.default_rng(2)
    wave = 3.0 * np.sin(2 * np.pi * np.arange(1000) / 100).reshape(1, -1, 1)
    values = wave + 0.1 * rng.standard_normal(wave.shape)
    spread = measure_spread(values, all_seen(values), resolve_sizes(1000, 300, 50))
    assert spread.noise[0] < 0.2 < 2.0 < spread.window[0]


def test_entries_that_are_missing_do_not_count():
    rng = np.random.default_rng(3)
    values = rng.standard_normal((2, 300, 1))
    mask = rng.random(values.shape) < 0.6
    sizes = resolve_sizes(300, 60, 20)
    one = measure_spread(np.where(mask, values, 0.0), mask, sizes)
    other = measure_spread(np.where(mask, values, 1e6), mask, sizes)
    np.testing.assert_array_equal(one.window, other.window)
    np.testing.assert_array_equal(one.noise, other.noise)
    np.testing.assert_allclose(one.noise, 1.0, rtol=0.15)


def test_spread_scales_with_the_data_and_not_with_their_level():
    rng = np.random.default_rng(4)
    values = rng.standard_normal((1, 200, 2)).cumsum(1)
    sizes = resolve_sizes(200, 60, 10)
    one = measure_spread(values, all_seen(values), sizes)
    other = measure_spread(7.0 * values - 30.0, all_seen(values), sizes)
    for name in ("window", "noise"):
        np.testing.assert_allclose(getattr(other, name), 7.0 * getattr(one, name), rtol=1e-9)


@pytest.mark.parametrize("level", [0.0, 4.0])
def test_what_never_moves_has_spread_one(level):
    values = np.full((2, 40, 1), level)
    spread = measure_spread(values, all_seen(values), resolve_sizes(40, 20, 5))
    assert spread.window[0] == spread.noise[0] == 1.0


def test_what_is_never_observed_has_spread_one():
    values = np.zeros((1, 40, 1))
    spread = measure_spread(values, np.zeros_like(values, bool), resolve_sizes(40, 20, 5))
    assert spread.window[0] == spread.noise[0] == 1.0


# -- the effect of inputs --------------------------------------------------------------------------


def make_effects(missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((2, 500, 3))
    effects = np.array([[1.0, -2.0, 0.0], [0.0, 0.5, 3.0]])
    trend = np.linspace(-1, 1, 500)[:, None] * [20.0, -4.0] + [5.0, 50.0]
    values = inputs @ effects.T + trend + 0.1 * rng.standard_normal((2, 500, 2))
    mask = rng.random(values.shape) >= missing
    return np.where(mask, values, 0.0), mask, inputs, effects


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_ridge_finds_effects_beside_a_trend(missing):
    values, mask, inputs, effects = make_effects(missing)
    np.testing.assert_allclose(ridge(values, mask, inputs), effects, atol=0.03)


def test_ridge_is_the_penalised_least_squares():
    """Rows of weight 1 for the coefficients beside those of the data, as in a Bayesian prior."""
    values, mask, inputs, _ = make_effects(0.3, seed=5)
    line = np.broadcast_to(np.linspace(-1.0, 1.0, 500)[:, None], (2, 500, 1))
    design = np.concatenate([inputs, np.ones_like(line), line], axis=-1)
    for f in range(2):
        rows = np.concatenate([design[mask[..., f]], np.eye(5)[:3]])
        target = np.concatenate([values[..., f][mask[..., f]], np.zeros(3)])
        expected = np.linalg.lstsq(rows, target, rcond=None)[0][:3]
        np.testing.assert_allclose(ridge(values, mask, inputs)[f], expected, atol=1e-4)


def test_ridge_does_not_take_a_trend_for_an_effect():
    """An input that grows as the data do, too, gets less than the line."""
    rng = np.random.default_rng(6)
    line = np.linspace(-1.0, 1.0, 400).reshape(1, -1, 1)
    inputs = line + 0.3 * rng.standard_normal(line.shape)
    values = 10.0 * line + 0.1 * rng.standard_normal(line.shape)
    assert abs(ridge(values, all_seen(values), inputs).item()) < 0.1


def test_ridge_of_what_tells_nothing_is_zero():
    values, mask, inputs, _ = make_effects()
    dead = np.concatenate([inputs, np.zeros_like(inputs[..., :1])], axis=-1)
    assert (ridge(values, mask, dead)[:, -1] == 0).all()
    assert not ridge(values, np.zeros_like(mask), inputs).any()


# -- fixed seasons ---------------------------------------------------------------------------------


def test_a_period_must_fit_in_twice():
    assert fixed_angles([24.0], 47) == []
    assert fixed_angles([24.0], 48)[0] == pytest.approx(2 * np.pi / 24)


def test_a_period_too_long_takes_its_harmonics_with_it():
    """Half a year is no season of its own: a year that fits in once says nothing."""
    lengths = [2 * np.pi / angle for angle in fixed_angles([24.0, 8766.0], 9000)]
    assert lengths == pytest.approx([24 / n for n in range(1, 13)])


@pytest.mark.parametrize("n_steps", [60, 400, 20_000])
def test_waves_can_be_told_apart(n_steps):
    """No two closer than one turn in the whole of the data: least squares can separate them."""
    angles = fixed_angles([24.0, 25.0, 168.0, 8766.0], n_steps)
    assert 0 < len(angles) <= max(12, n_steps // 20)
    for i, one in enumerate(angles):
        assert 0 < one <= np.pi
        assert all(abs(one - other) > 2 * np.pi / n_steps for other in angles[:i])


def test_close_periods_need_long_data():
    """24 and 25 steps differ by one turn in 600."""
    first = 2 * np.pi / 24
    near = [a for a in fixed_angles([24.0, 25.0], 400) if abs(a - first) < 0.02]
    far = [a for a in fixed_angles([24.0, 25.0], 900) if abs(a - first) < 0.02]
    assert near == pytest.approx([first])
    assert far == pytest.approx([first, 2 * np.pi / 25])


def test_the_first_are_the_most_important():
    angles = fixed_angles([24.0, 168.0, 8766.0], 100_000)
    assert angles == pytest.approx(seasonal_angles([24.0, 168.0, 8766.0], 50_000, 60)[:60])


def test_nothing_seasonal():
    assert fixed_angles([], 1000) == [] == automatic_angles([], 1000)


@pytest.mark.parametrize("n_steps", [40, 1000, 8640, 20_000])
def test_waves_of_seldom_seen_periods_come_first(n_steps):
    periods = [24.0, 168.0, 8766.0]
    angles = automatic_angles(periods, n_steps)
    few = automatic_angles(periods, n_steps, often=False)
    assert angles[: len(few)] == few == fixed_angles(periods, n_steps, 60.0)
    added = angles[len(few) :]
    assert not seldom_seen(added, periods, n_steps).any()
    assert len(added) <= 12
    for i, one in enumerate(angles):
        assert all(abs(one - other) > 2 * np.pi / n_steps for other in angles[:i])
    assert bool(added) == (n_steps > 24 * 60)  # whether the data hold more than sixty days
    if n_steps == 8640:  # with the shortest waves of a day, which 60 of a week leave out
        np.testing.assert_allclose(added, [2 * np.pi * n / 24 for n in (9, 10, 11, 12)])


def test_large_panels_have_no_pattern_of_seasons_seen_often(monkeypatch):
    stamps = pd.date_range("2024-01-01", periods=24 * 80, freq="h")
    panel = read_panel(pd.DataFrame({"a": np.zeros(len(stamps))}, stamps))
    params = {"seasonal_periods": "auto", "seasonal_effect": "auto"}
    few = automatic_angles([24.0, 168.0], len(stamps), often=False)
    assert len(structured._season_angles(panel, params, True)) > len(few) > 0
    assert structured._season_angles(panel, params, False) == few
    monkeypatch.setattr(structured, "_MOST_ROWS", len(stamps) - 1)
    assert structured._season_angles(panel, params, True) == few


def test_a_pattern_seen_often_is_taken_off_by_half():
    """A day's pattern by half, a week's whole; a random walk has none."""
    rng = np.random.default_rng(0)
    n_steps, periods = 24 * 7 * 20, [24.0, 168.0]
    clock = np.arange(n_steps)
    day, week = np.sin(2 * np.pi * clock / 24), np.sin(2 * np.pi * clock / 168)
    noise = rng.normal(size=(3, n_steps)) * 0.1
    rows = (day + noise[0], 5.0 * week + day + noise[1], noise[2].cumsum())
    values = np.stack(rows, axis=-1)[None]
    angles = automatic_angles(periods, n_steps)
    inputs = np.stack([f(a * clock) for f in (np.sin, np.cos) for a in angles], axis=-1)[None]
    seldom = np.tile(seldom_seen(angles, periods, n_steps), 2)
    params = {"likelihood": "normal"}
    mask = np.ones_like(values, dtype=bool)
    found = input_effects(values, mask, inputs, params, seldom).matrix @ inputs[0].T
    np.testing.assert_allclose(found[0], 0.5 * day, atol=0.03)
    np.testing.assert_allclose(found[1], day + 5.0 * week, atol=0.1)
    assert not found[2].any()
    whole = input_effects(values, mask, inputs, params, None)
    np.testing.assert_allclose((whole.matrix @ inputs[0].T)[0], day, atol=0.1)


def test_periods_as_an_array_that_are_longer_than_the_data():
    wave = np.sin(np.arange(60) / 3.0)
    settings = {"horizon": 4, "context_length": 16, "latent_dim": 4, "max_epochs": 1}
    settings |= {"random_state": 0}
    array = SVAEForecaster(seasonal_periods=np.array([500.0, 600.0]), **settings)
    listed = SVAEForecaster(seasonal_periods=[500.0, 600.0], **settings)
    np.testing.assert_array_equal(
        array.fit(wave[:, None]).predict(), listed.fit(wave[:, None]).predict()
    )


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_large_counts_are_forecast_at_their_size(likelihood):
    counts = np.random.default_rng(0).poisson(1000.0, (80, 1))
    estimator = SVAEForecaster(
        4, context_length=24, latent_dim=4, max_epochs=8, likelihood=likelihood, random_state=0
    )
    mean = estimator.fit(counts).predict()
    assert ((mean > 600) & (mean < 1600)).all()


@pytest.mark.parametrize("level", [0.0, 1.0, 1e12])
def test_data_that_never_move(level):
    forecaster = SVAEForecaster(3, random_state=0).fit(np.full((100, 1), level))
    band = forecaster.predict_interval(coverage=0.9)
    assert np.isfinite(band).all()
    np.testing.assert_allclose(forecaster.predict(), level, rtol=1e-5, atol=1e-5)


def test_a_start_from_moments_is_the_fit_unless_epochs_are_asked_for():
    wave = np.sin(np.arange(90) / 3.0)[:, None]
    settings = {"horizon": 4, "context_length": 16, "latent_dim": 8, "random_state": 0}
    fitted = SVAEForecaster(**settings).fit(wave)
    assert fitted.training_log_.rows == []
    assert fitted.training_log_.stop_reason == "max_epochs"
    assert len(SVAEForecaster(**settings, max_epochs=2).fit(wave).training_log_.rows) == 2
    assert len(SVAEForecaster(**settings, start="roles").fit(wave).training_log_.rows) == 10


# -- how far ahead ---------------------------------------------------------------------------------


def line(n_rows, horizon, slope=1.0):
    time = np.arange(n_rows + horizon)
    noise = 0.05 * np.random.default_rng(2).standard_normal(len(time))
    rows = pd.DataFrame(
        {"a": slope * time + noise}, index=pd.date_range("2000", periods=len(time), freq="D")
    )
    return rows[:n_rows], rows[n_rows:]


@pytest.mark.parametrize(("n_rows", "asked", "horizon"), [(100, 24, 24), (80, 6, 24)])
def test_a_trend_goes_on_beyond_the_steps_that_many_windows_know(n_rows, asked, horizon):
    known, future = line(n_rows, horizon)
    found = SVAEForecaster(horizon=asked, random_state=0).fit(known).predict(horizon=horizon)
    last_value = (future - known["a"].iloc[-1])["a"].abs().mean()
    assert (found["a"] - future["a"]).abs().mean() < 0.4 * last_value


def test_series_on_unlike_levels_have_intervals_of_their_own_size():
    stamps = pd.date_range("2000", periods=150, freq="D")
    wave = np.sin(2 * np.pi * np.arange(150) / 7)
    noise = 0.1 * np.random.default_rng(2).standard_normal((3, 150))
    panel = pd.concat(
        pd.DataFrame({"a": level + wave + own}, index=pd.MultiIndex.from_product([[name], stamps]))
        for name, level, own in zip("xyz", (0.0, 100.0, 1e5), noise, strict=True)
    )
    found = SVAEForecaster(horizon=7, random_state=0).fit(panel).predict_interval()
    width = (found.iloc[:, 1] - found.iloc[:, 0]).mean()
    assert 0.2 < width < 0.7  # 0.33 for noise alone


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[1.0, 2.0], [np.nan] * 8 + [1.0] + [np.nan] * 9 + [2.0]])
def test_two_values_are_enough(values):
    rows = pd.DataFrame({"a": values}, index=pd.date_range("2000", periods=len(values), freq="D"))
    found = SVAEForecaster(horizon=3, random_state=0).fit(rows).predict()
    assert found["a"].between(0.9, 2.1).all()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_whole_fit_keeps_to_its_threads(monkeypatch, n_threads):
    seen, build = [], structured.build_at_start

    def note_threads(*args):
        seen.append(torch.get_num_threads())
        return build(*args)

    monkeypatch.setattr(structured, "build_at_start", note_threads)
    before = torch.get_num_threads()
    rows = pd.DataFrame({"a": np.arange(40.0)}, index=pd.date_range("2000", periods=40))
    SVAEForecaster(horizon=2, n_threads=n_threads, random_state=0).fit(rows)
    assert seen == [n_threads]
    assert torch.get_num_threads() == before
