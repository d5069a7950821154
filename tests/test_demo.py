"""The demo: its baselines, scores and table, its command line, and a run on the real data."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator

from tsvae.__main__ import main
from tsvae.datasets import load_co2
from tsvae.demo import cli
from tsvae.demo.baselines import (
    GaussianForecast,
    auto_ets,
    fill_from_earlier_season,
    interpolate_gaps,
    seasonal_naive,
)
from tsvae.demo.co2 import rolling_origins
from tsvae.demo.linear import fit_linear, history_windows
from tsvae.demo.picture import widest_gap
from tsvae.demo.report import QUANTILE_LEVELS, ScoreSum, format_table

NAN = float("nan")


# -- baselines -------------------------------------------------------------------------------------


def slow_seasonal_naive(history, horizon, period, slope):
    """Walk back season by season from each step ahead until a value is found."""
    out = []
    for h in range(horizon):
        row, seasons = len(history) + h, 0
        while row >= len(history) or np.isnan(history[row]):
            row, seasons = row - period, seasons + 1
        out.append(history[row] + slope * seasons)
    return np.array(out)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n_rows=st.integers(12, 40),
    period=st.integers(1, 4),
    horizon=st.integers(1, 11),
    drift=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_seasonal_naive_walks_back_to_the_nearest_season(n_rows, period, horizon, drift, seed):
    rng = np.random.default_rng(seed)
    history = rng.standard_normal(n_rows).cumsum()
    history[period + 4 :][rng.random(n_rows - period - 4) < 0.3] = np.nan
    pairs = [history[t] - history[t - period] for t in range(period, n_rows)]
    slope = np.nanmean(pairs) if drift else 0.0
    forecast = seasonal_naive(history, horizon, period, drift=drift)
    expected = slow_seasonal_naive(history, horizon, period, slope)
    np.testing.assert_allclose(forecast.mean, expected, rtol=1e-12, atol=1e-12)


def test_seasonal_naive_bands_grow_by_the_season():
    history = np.array([0.0, 0.0, 1.0, 3.0, 2.0, 4.0])  # differences 1, 3, 1, 1
    forecast = seasonal_naive(history, horizon=5, period=2)
    np.testing.assert_allclose(forecast.std**2, 3.0 * np.array([1, 1, 2, 2, 3]))
    # mean 1.5, variance 0.75; k seasons ahead k * 0.75, and k^2 * 0.75 / 4 for the drift itself
    drifting = seasonal_naive(history, horizon=5, period=2, drift=True)
    k = np.array([1, 1, 2, 2, 3])
    np.testing.assert_allclose(drifting.std**2, 0.75 * k + 0.75 * k**2 / 4)


def test_drift_of_a_random_walk_covers_as_promised():
    """With period 1 the model is exact, so the bands must hold what they say."""
    rng = np.random.default_rng(0)
    paths = (0.5 + rng.standard_normal((2000, 60))).cumsum(axis=1)
    inside = []
    for path in paths:
        forecast = seasonal_naive(path[:50], horizon=10, period=1, drift=True)
        low, high = forecast.quantiles([0.05, 0.95]).T
        inside.append((low <= path[50:]) & (path[50:] <= high))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize(
    ("history", "period", "message"),
    [
        (np.zeros((8, 2)), 2, r"must be one series \(1-D\), got shape \(8, 2\)"),
        (np.zeros(3), 2, "needs at least 4 rows of history, got 3"),
        ([1.0, 2.0, NAN, NAN], 2, "0 pairs of observed values 2 rows apart"),
        ([NAN, 2.0, NAN, 3.0, NAN, 4.0], 2, "row 0 of the season of 2 rows is missing throughout"),
    ],
)
def test_seasonal_naive_says_what_it_lacks(history, period, message):
    with pytest.raises(ValueError, match=message):
        seasonal_naive(history, 3, period)


def test_fill_from_earlier_season_leaves_what_was_never_seen():
    values = np.array([[NAN, 1.0], [2.0, NAN], [NAN, NAN], [NAN, 5.0], [7.0, NAN]])
    filled = fill_from_earlier_season(values, period=2)
    expected = [[NAN, 1.0], [2.0, NAN], [NAN, 1.0], [2.0, 5.0], [7.0, 1.0]]
    np.testing.assert_array_equal(filled, expected)
    assert np.isnan(values[2, 1])  # the input is untouched


def test_interpolate_gaps_refuses_what_has_no_value():
    with pytest.raises(ValueError, match="all missing"):
        interpolate_gaps([NAN, NAN])


def test_ets_follows_trend_and_season_through_gaps():
    rng = np.random.default_rng(1)
    t = np.arange(132)
    truth = 20 + 0.3 * t + 4 * np.sin(2 * np.pi * t / 12)
    history = truth[:120] + 0.1 * rng.standard_normal(120)
    history[rng.choice(100, 10, replace=False)] = np.nan
    forecast = auto_ets(history, horizon=12, period=12)
    assert np.abs(forecast.mean - truth[120:]).mean() < 0.5
    assert np.all(np.diff(forecast.std) >= 0)
    assert forecast.std[0] > 0


def test_quantiles_are_those_of_the_normal():
    forecast = GaussianForecast(np.array([1.0, 2.0]), np.array([0.5, 2.0]))
    quantiles = forecast.quantiles([0.05, 0.5, 0.95])
    np.testing.assert_allclose(quantiles[:, 1], [1.0, 2.0])
    np.testing.assert_allclose(quantiles[:, 2] - quantiles[:, 1], [0.8224268, 3.2897073], rtol=1e-6)


# -- the linear model ------------------------------------------------------------------------------


def test_linear_model_finds_a_linear_recursion():
    t = np.arange(400)
    rows = np.column_stack([np.sin(0.2 * t), 3 + np.cos(0.2 * t + 1)])
    model = fit_linear(rows[:300], window=8, horizon=5, ridge=1e-9, chunk=64)
    origins = np.array([310, 350, 380])
    forecast = model.predict(history_windows(rows, origins, 8))
    actual = np.stack([rows[o : o + 5] for o in origins])
    np.testing.assert_allclose(forecast.mean, actual, atol=1e-5)
    assert model.n_parameters == 9 * 5


def test_linear_model_equals_least_squares():
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((60, 2)).cumsum(axis=0)
    model = fit_linear(rows, window=4, horizon=3, ridge=1e-10, chunk=7)
    inputs, targets = [], []
    for start in range(60 - 7 + 1):
        for column in rows.T:
            window = column[start : start + 7] - column[start + 3]
            inputs.append([*window[:3], 1.0])  # the last value less itself is always zero
            targets.append(window[4:])
    expected, *_ = np.linalg.lstsq(np.array(inputs), np.array(targets), rcond=None)
    np.testing.assert_allclose(model.weights[[0, 1, 2, 4]], expected, atol=1e-8)


def test_windows_never_look_past_their_origin():
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((50, 2))
    rows[rng.random(rows.shape) < 0.4] = np.nan
    rows[0] = 0.0
    origins = np.arange(10, 40)
    before = history_windows(rows, origins, 8)
    for place, origin in enumerate(origins):
        changed = rows.copy()
        changed[origin:] = 99.0
        after = history_windows(changed, origins[[place]], 8)
        np.testing.assert_allclose(after[0], before[place])


# -- scores and table ------------------------------------------------------------------------------


def test_scores_in_chunks_equal_scores_at_once():
    rng = np.random.default_rng(4)
    actual = rng.standard_normal((7, 3))
    actual[1, 2] = np.nan
    forecast = GaussianForecast(rng.standard_normal((7, 3)), np.full(3, 1.2))
    quantiles = forecast.quantiles(QUANTILE_LEVELS)
    whole, parts = ScoreSum(), ScoreSum()
    whole.add(actual, forecast.mean, quantiles)
    for rows in (slice(0, 2), slice(2, 7)):
        parts.add(actual[rows], forecast.mean[rows], quantiles[rows])
    one, two = whole.result("a", seconds=1.0), parts.result("a", seconds=1.0)
    for name in ("mse", "mae", "crps", "coverage"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-12)
    assert one.mse == pytest.approx(np.nanmean((actual - forecast.mean) ** 2))


def test_crps_is_near_the_closed_form_of_the_normal():
    rng = np.random.default_rng(5)
    actual = rng.standard_normal(4000)
    forecast = GaussianForecast(np.zeros(4000), np.ones(4000))
    total = ScoreSum()
    total.add(actual, forecast.mean, forecast.quantiles(QUANTILE_LEVELS))
    # E CRPS of N(0, 1) under itself is 1 / sqrt(pi) (Gneiting & Raftery 2007, eq. 21)
    scores = total.result("normal", seconds=0.0)
    assert scores.crps == pytest.approx(1 / np.sqrt(np.pi), rel=0.05)
    assert scores.coverage == pytest.approx(0.9, abs=0.02)


def test_table_lines_up():
    text = format_table(["method", "MAE"], [["a long name", "1.0"], ["b", "10.25"]])
    widths = {len(line) for line in text.splitlines()}
    assert widths == {len("a long name") + 3 + len("10.25")}
    markdown = format_table(["method", "MAE"], [["b", "1.0"]], markdown=True)
    assert markdown.splitlines()[1] == "| ------ | --: |"


def test_origins_forecast_every_row_once():
    origins = rolling_origins(600, horizon=20, n_origins=4)
    rows = np.concatenate([np.arange(o, o + 20) for o in origins])
    np.testing.assert_array_equal(rows, np.arange(520, 600))


def test_widest_gap_of_the_record_is_in_1964():
    series = load_co2()["co2"]
    gap = widest_gap(series)
    assert gap.stop - gap.start == 18
    assert series.iloc[gap].isna().all()
    assert set(series.index[gap].year) == {1964}


def test_co2_needs_statsmodels(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.datasets", None)
    with pytest.raises(ImportError, match=r"pip install .tsvae\[demo\]"):
        load_co2()


# -- the command line ------------------------------------------------------------------------------


class DriftForecaster(BaseEstimator):
    """Stands in for the real forecaster, with the same interface."""

    def fit(self, X):
        self.n_rows_ = len(X)
        return self

    def _future(self, X, horizon):
        last = X.index[-1]
        return pd.date_range(last, periods=horizon + 1, freq="W-SAT", name="time")[1:]

    def predict(self, X, *, horizon):
        values = seasonal_naive(X["co2"], horizon, 52, drift=True).mean
        return pd.DataFrame({"co2": values}, index=self._future(X, horizon))

    def predict_quantiles(self, X, *, horizon, quantiles):
        values = seasonal_naive(X["co2"], horizon, 52, drift=True).quantiles(quantiles)
        columns = pd.MultiIndex.from_product([["co2"], quantiles], names=[None, "quantile"])
        return pd.DataFrame(values, index=self._future(X, horizon), columns=columns)

    def impute(self, X):
        return X.interpolate()

    def impute_quantiles(self, X, *, quantiles):
        filled = X.interpolate().iloc[:, 0]
        return pd.DataFrame({level: filled + level - 0.5 for level in quantiles})


@pytest.fixture
def drift_forecaster(monkeypatch):
    made = []
    monkeypatch.setattr(
        cli, "_make_forecaster", lambda _: made.append(DriftForecaster()) or made[0]
    )
    return made


def test_demo_prints_a_table_and_writes_its_files(drift_forecaster, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    assert main(["demo", "--output", str(folder), "--origins", "1"]) == 0
    printed = capsys.readouterr().out
    table = {line.split("  ")[0]: line.split() for line in printed.splitlines()}
    assert {"DriftForecaster", "seasonal naive", "seasonal naive + drift", "ETS (AICc)"} <= set(
        table
    )
    # The stand-in is the second baseline, so that their scores must be equal.
    assert table["DriftForecaster"][-4:-1] == table["seasonal naive + drift"][-4:-1]
    assert drift_forecaster[0].n_rows_ == 2284 - 52  # fitted on nothing that is forecast later

    table = pd.read_csv(folder / "co2_forecast.csv", index_col="time", parse_dates=True)
    assert list(table.columns) == ["mean", "q0.05", "q0.25", "q0.5", "q0.75", "q0.95"]
    assert len(table) == 52
    assert table.index[0] == pd.Timestamp("2002-01-05")
    assert (np.diff(table.iloc[:, 1:].to_numpy(), axis=1) >= 0).all()
    png = (folder / "co2_forecast.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 20_000


def test_demo_without_a_picture(drift_forecaster, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    command = ["demo", "--output", str(tmp_path), "--origins", "1", "--horizon", "8"]
    assert main([*command, "--no-plot"]) == 0
    assert sorted(os.listdir(tmp_path)) == ["co2_forecast.csv"]
    assert len(drift_forecaster) == 1
    assert main(command) == 1  # the picture is asked for and cannot be drawn


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--horizon", "0"], "must be at least 1, got horizon=0"),
        (["--origins", "0"], "must be at least 1, got horizon=52, origins=0"),
        (["--origins", "50"], "50 origins of 52 weeks leave 0 of 2284 weeks"),
    ],
)
def test_demo_refuses_what_cannot_be_done(words, message, tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "unused"), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "unused").exists()


def test_demo_names_a_folder_it_cannot_make(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["demo", "--output", str(tmp_path / "file" / "folder")]) == 1
    assert "file" in capsys.readouterr().err


def test_help_explains_itself():
    done = subprocess.run(
        [sys.executable, "-m", "tsvae", "demo", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for word in ("CO2", "--output", "--horizon", "--seed", "--no-plot", "co2_forecast.csv"):
        assert word in done.stdout


def test_a_command_is_asked_for(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_demo_runs_with_the_real_forecaster(tmp_path, capsys):
    """Short training: that all parts meet, not how good the forecast is."""
    words = ["--output", str(tmp_path), "--origins", "2", "--max-epochs", "1", "--horizon", "13"]
    assert main(["demo", *words]) == 0
    assert "SVAEForecaster" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "co2_forecast.csv", index_col="time", parse_dates=True)
    assert np.isfinite(table.to_numpy()).all()
    assert table["mean"].between(300, 450).all()
    assert (tmp_path / "co2_forecast.png").is_file()
