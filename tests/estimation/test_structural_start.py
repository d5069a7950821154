"""Where few rows are better told by level, slope and season than by a bank of filters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from tsvae import SVAEForecaster
from tsvae.estimation import starting, structural_start
from tsvae.estimation.building import resolve_sizes
from tsvae.estimation.end_states import EndStates
from tsvae.estimation.structural_start import fit_structural_start
from tsvae.models.structural import fit_structural

N = 72


def monthly(seed=0, columns=("x",), rows=N):
    """A line, a season and noise."""
    rng = np.random.default_rng(seed)
    step = np.arange(rows)
    index = pd.period_range("2001-01", periods=rows, freq="M")
    values = {
        name: scale * (5.0 * np.sin(2 * np.pi * step / 12) + 0.5 * step + rng.normal(size=rows))
        for name, scale in zip(columns, (1.0, 1e6, 1e-6), strict=False)
    }
    return pd.DataFrame(values, index=index)


def fit(frame, **settings):
    return SVAEForecaster(**{"horizon": 12, "random_state": 0, **settings}).fit(frame)


def is_structural(forecaster):
    return forecaster.model_.dynamics.group_size != 2


@pytest.fixture(scope="module")
def fitted():
    return fit(monthly(columns=("x", "y")))


def test_a_line_and_a_season_go_on(fitted):
    step = np.arange(N, N + 12)
    wanted = 5.0 * np.sin(2 * np.pi * step / 12) + 0.5 * step
    found = fitted.predict()
    assert is_structural(fitted)
    np.testing.assert_allclose(found["x"], wanted, atol=1.5)
    np.testing.assert_allclose(found["y"] / 1e6, wanted, atol=1.5)


def test_bands_hold_what_noise_does(fitted):
    bands = fitted.predict_interval(coverage=0.9)
    width = (bands["x"].iloc[:, 1] - bands["x"].iloc[:, 0]).to_numpy()
    assert (width > 2.5).all() and (width < 7.0).all()  # white noise alone: 3.3


def test_the_model_forecasts_as_the_structural_one_does(monkeypatch):
    """From the last row of the data, which fit into the history."""
    kept = []

    def keep(*args):
        kept.append((args, fit_structural_start(*args)))
        return kept[-1][1]

    def know_nothing(fitted, *_):
        size = len(fitted.system.emission)
        return EndStates(None, np.zeros(size), np.full(size, np.inf))

    monkeypatch.setattr(starting, "fit_structural_start", keep)
    frame = monthly(columns=("x", "y"))
    frame.iloc[[3, 40, 41, 70], 0] = np.nan
    usual = fit(frame, context_length=N).predict()
    monkeypatch.setattr(structural_start, "_end", know_nothing)
    forecaster = fit(frame, context_length=N)
    (args, found), scaler = kept[1], forecaster._fit.scaler
    values, mask = args[0], args[1]
    unit = found.scale / found.unit
    first = values[0, mask[0].argmax(0), [0, 1]]
    x = torch.as_tensor(np.where(mask[0], (values[0] - first) / unit, 0.0).T)
    ahead = found.fitted.forecasts(x, torch.as_tensor(mask[0].T), 12).mean[:, -1].numpy().T
    wanted = scaler.inverse((ahead * unit + first)[None])[0]
    np.testing.assert_allclose(forecaster.predict().to_numpy() / wanted, 1.0, atol=1e-3)
    np.testing.assert_allclose(usual.to_numpy() / wanted, 1.0, atol=1e-2)


def test_errors_are_those_of_forecasts_from_the_end():
    """Of white noise about a line, both known well: the noise."""
    rng = np.random.default_rng(0)
    rows = 400
    values = (0.1 * np.arange(rows) + rng.normal(size=(1, rows)))[..., None]
    sizes = resolve_sizes(rows, rows, 10)
    found = fit_structural_start(
        values, np.ones_like(values, bool), [], np.ones(1), sizes, most_states=32
    )
    assert found.fitted.form.trend == "fixed"
    np.testing.assert_allclose(found.pooled, 1.0, atol=0.15)
    np.testing.assert_allclose(found.errors * found.scale**2, found.pooled, rtol=1e-6)


@pytest.mark.parametrize("values", [np.zeros((1, 30, 1)), np.ones((2, 30, 2))])
def test_nothing_moves(values):
    sizes = resolve_sizes(30, 30, 5)
    weight = np.ones(values.shape[-1])
    assert fit_structural_start(values, np.ones_like(values, bool), [], weight, sizes, 32) is None


def test_too_few_values():
    values = np.random.default_rng(0).normal(size=(2, 30, 1))
    mask = np.zeros_like(values, bool)
    mask[:, :7] = True
    sizes = resolve_sizes(30, 30, 5)
    assert fit_structural_start(values, mask, [], np.ones(1), sizes, 32) is None


def test_variables_that_never_move_stay():
    frame = monthly()
    frame["flat"] = 7.0
    found = fit(frame).predict()
    np.testing.assert_allclose(found["flat"], 7.0, atol=1e-3)
    alone = fit(monthly()).predict()
    np.testing.assert_allclose(found["x"], alone["x"], rtol=0.02)


def test_cycles_of_their_own_are_left_to_the_bank():
    """A damped cycle of ten rows that no calendar knows of."""
    rng = np.random.default_rng(0)
    state, rows = np.zeros(2), []
    turn = 0.98 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    for _ in range(150):
        state = turn @ state + rng.normal(size=2)
        rows.append(state[0])
    index = pd.period_range("1850", periods=150, freq="Y")
    assert not is_structural(fit(pd.DataFrame({"x": rows}, index=index)))


def test_the_bank_is_kept_where_asked_for():
    assert not is_structural(fit(monthly(), start="moments"))


def test_many_windows_get_a_bank(monkeypatch):
    monkeypatch.setattr(starting, "fit_structural_start", None)  # not to be called
    rng = np.random.default_rng(0)
    fit(pd.DataFrame({"x": rng.normal(size=800)}), horizon=4, context_length=16)


def test_states_are_those_of_the_model(fitted):
    states = fitted.transform(monthly(columns=("x", "y")))
    assert states.shape[1] == fitted.n_features_in_ * fitted.model_.latent_dim


def test_it_goes_on_after_saving_and_updating(tmp_path):
    longer = monthly(columns=("x", "y"), rows=N + 6)
    some = fit(longer.iloc[:N], context_length=N + 6)
    some.save(tmp_path / "model.tsvae")
    loaded = SVAEForecaster.load(tmp_path / "model.tsvae")
    pd.testing.assert_frame_equal(loaded.predict(), some.predict())
    later = some.predict(longer)
    assert (later.index[0] - some.predict().index[0]).n == 6
    pd.testing.assert_frame_equal(loaded.update(longer.iloc[N:]).predict(), later, rtol=1e-4)


def test_gaps_are_filled_by_season_and_line(fitted):
    frame = monthly(columns=("x", "y"))
    hidden = frame.copy()
    hidden.iloc[30:36, 0] = np.nan
    filled = fitted.impute(hidden)
    np.testing.assert_allclose(filled["x"].iloc[30:36], frame["x"].iloc[30:36], atol=3.5)


def test_a_panel_of_short_series():
    frames = {k: monthly(seed=k, rows=rows) for k, rows in enumerate((40, 60, 72))}
    panel = pd.concat(frames, names=["series", "time"])
    forecaster = fit(panel)
    assert is_structural(forecaster)
    found = forecaster.predict()
    for k, frame in frames.items():
        step = np.arange(len(frame), len(frame) + 12)
        wanted = 5.0 * np.sin(2 * np.pi * step / 12) + 0.5 * step
        np.testing.assert_allclose(found.loc[k]["x"], wanted, atol=2.5)


def test_a_history_of_three_rows_has_the_season_of_its_months():
    longer = monthly(rows=N + 20)
    forecaster = fit(longer.iloc[:N])
    found = forecaster.predict(longer.iloc[N + 4 : N + 7])["x"].to_numpy()
    step = np.arange(N + 7, N + 19)
    np.testing.assert_allclose(found, 5.0 * np.sin(2 * np.pi * step / 12) + 0.5 * step, atol=2.5)


def test_seasons_are_detected_without_stamps():
    frame = monthly()
    found = fit(frame.to_numpy()).predict()
    step = np.arange(N, N + 12)
    np.testing.assert_allclose(
        found[:, 0], 5.0 * np.sin(2 * np.pi * step / 12) + 0.5 * step, atol=2.5
    )


def test_known_covariates_keep_their_effect():
    frame = monthly()
    rng = np.random.default_rng(1)
    known = pd.DataFrame({"u": rng.normal(size=N + 12)}, index=monthly(rows=N + 12).index)
    frame["x"] += 4.0 * known["u"].iloc[:N]
    forecaster = SVAEForecaster(horizon=12, random_state=0, calendar=False)
    found = forecaster.fit(known.iloc[:N], frame).predict(known.iloc[N:])
    plain = found["x"] - 4.0 * known["u"].iloc[N:]
    assert np.corrcoef(found["x"], known["u"].iloc[N:])[0, 1] > 0.5
    assert plain.diff().abs().max() < 6.0


def test_every_variable_of_a_large_panel_is_heard(monkeypatch):
    monkeypatch.setattr(structural_start, "_MOST_CHAINS", 6)
    size = np.array([1.0, 10.0, 0.1, 5.0, 3.0])
    values = size * np.random.default_rng(0).normal(size=(9, 60, 5)).cumsum(1)
    sizes = resolve_sizes(60, 40, 5)
    found = fit_structural_start(values, np.ones_like(values, bool), [], size**-2, sizes, 32)
    np.testing.assert_allclose(found.scale, size, rtol=0.4)


def test_many_patterns_of_gaps_are_told_by_some_chains(monkeypatch):
    """Each has a covariance recursion of its own: dynamics by some, noise by all."""
    seen = []

    def watch(x, mask, variable, angles):
        seen.append((tuple(x.shape), variable.tolist()))
        return fit_structural(x, mask, variable, angles)

    monkeypatch.setattr(structural_start, "fit_structural", watch)
    rng = np.random.default_rng(0)
    size = np.array([1.0, 10.0, 0.1, 5.0])
    values = size * rng.normal(size=(1, 400, 4)).cumsum(1)
    mask = rng.random(values.shape) < 0.9
    sizes = resolve_sizes(400, 100, 5)
    found = fit_structural_start(np.where(mask, values, 0), mask, [], size**-2, sizes, 32)
    assert seen == [((2, 300), [0, 1])]
    np.testing.assert_allclose(found.scale, size, rtol=0.3)


def test_detected_seasons_have_to_be_clearly_there():
    """Yearly data have no calendar: a cycle is not taken for a season."""
    rng = np.random.default_rng(3)
    rows = 5.0 + rng.normal(size=120).cumsum() * 0.1 + rng.normal(size=120)
    index = pd.period_range("1850", periods=120, freq="Y")
    found = fit(pd.DataFrame({"x": rows}, index=index)).predict()["x"]
    assert np.ptp(found) < 0.5


def test_the_rows_that_the_likelihood_sees_are_the_last(monkeypatch):
    monkeypatch.setattr(structural_start, "_MOST_ROWS", 50)
    values = np.random.default_rng(0).normal(size=(1, 200, 1))
    values[:, :150] *= 100.0
    sizes = resolve_sizes(200, 60, 5)
    found = fit_structural_start(values, np.ones_like(values, bool), [], np.ones(1), sizes, 32)
    assert found.scale[0] < 2.0
