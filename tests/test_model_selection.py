"""Rolling-origin splits, scorers under search, and back-tests, with a seasonal naive forecaster."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    TimeSeriesSplit,
    check_cv,
    cross_val_score,
)

from tsvae import metrics
from tsvae.metrics import make_forecast_scorer
from tsvae.model_selection import RollingOriginSplit, backtest
from tsvae.panel import read_panel, write, write_samples

LEVELS = (0.05, 0.5, 0.95)


class SeasonalNaive(BaseEstimator):
    """Repeats the last season; bands of fixed width. Counts its calls."""

    def __init__(self, season=1, width=1.0, horizon=4):
        self.season = season
        self.width = width
        self.horizon = horizon

    def fit(self, X, y=None):
        self.panel_ = read_panel(X, allow_all_missing=True)
        return self

    def _steps(self, X, horizon):
        panel = self.panel_ if X is None else read_panel(X, like=self.panel_.index)
        out = np.zeros((panel.n_series, horizon, panel.n_features))
        for b, length in enumerate(panel.lengths):
            for f in range(panel.n_features):
                past = panel.values[b, :length, f][panel.mask[b, :length, f]]
                if len(past):
                    season = past[-self.season :]
                    out[b, :, f] = np.resize(season, horizon)
        return out, panel.index.future(horizon)

    def predict(self, X=None, *, horizon=None):
        return write(*self._steps(X, horizon or self.horizon))

    def predict_quantiles(self, X=None, *, horizon=None, quantiles=LEVELS):
        mean, index = self._steps(X, horizon or self.horizon)
        values = mean[..., None] + self.width * (np.asarray(quantiles) - 0.5)
        return write(values, index, levels=[("quantile", list(quantiles))])

    def predict_interval(self, X=None, *, horizon=None, coverage=0.9):
        mean, index = self._steps(X, horizon or self.horizon)
        values = mean[..., None, None] + self.width * coverage / 2 * np.array([-1.0, 1.0])
        levels = [("coverage", [coverage]), ("bound", ["lower", "upper"])]
        return write(values, index, levels=levels)

    def sample(self, X=None, *, horizon=None, n_samples=10):
        mean, index = self._steps(X, horizon or self.horizon)
        spread = self.width * np.linspace(-0.5, 0.5, n_samples)
        return write_samples(mean + spread[:, None, None, None], index)


class BatchedNaive(SeasonalNaive):
    """The same with the batched hook, and no other way to forecast."""

    def _forecast_origins(self, panel, origins, horizon, quantiles):
        means = []
        for origin in origins:
            past = np.where(panel.mask, panel.values, np.nan)[:, :origin]
            out = np.zeros((panel.n_series, horizon, panel.n_features))
            for b, f in np.ndindex(panel.n_series, panel.n_features):
                seen = past[b, :, f][~np.isnan(past[b, :, f])]
                out[b, :, f] = np.resize(seen[-self.season :], horizon) if len(seen) else 0.0
            means.append(out)
        mean = np.stack(means)
        if quantiles is None:
            return mean
        return mean[..., None] + self.width * (np.asarray(quantiles) - 0.5)

    def predict(self, X=None, *, horizon=None):
        raise AssertionError("the hook must be used")


def make_frame(n=40, seed=0, freq="D"):
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=n, freq=freq, name="time")
    return pd.DataFrame(rng.normal(size=(n, 2)).cumsum(axis=0), index=index, columns=["a", "b"])


def make_panel(seed=0):
    """Three series: one starts later, one ends earlier; rows interleaved by time."""
    parts = {"x": make_frame(40, 1), "y": make_frame(40, 2).iloc[12:], "z": make_frame(40, 3)[:33]}
    return pd.concat(parts, names=["series"]).sort_index(level="time", kind="stable")


def make_xarray(dims=("time", "lat", "lon")):
    xr = pytest.importorskip("xarray")
    values = np.random.default_rng(4).normal(size=(40, 2, 3)).cumsum(axis=0)
    coords = {"time": pd.date_range("2024-01-01", periods=40), "lat": [0.0, 1.0], "lon": [1, 2, 3]}
    array = xr.DataArray(values, dims=("time", "lat", "lon"), coords=coords, name="t")
    return array.transpose(*dims)


# RollingOriginSplit --------------------------------------------------------------------------


def test_windows_of_an_array():
    splits = list(RollingOriginSplit(3, horizon=2, step=3, gap=1).split(np.zeros((12, 2))))
    expected = [(4 - 1, [4, 5]), (7 - 1, [7, 8]), (10 - 1, [10, 11])]
    for (train, test), (stop, rows) in zip(splits, expected, strict=True):
        assert_array_equal(train, np.arange(stop))
        assert_array_equal(test, rows)


def test_equals_time_series_split():
    X = np.zeros((23, 1))
    ours = RollingOriginSplit(4, horizon=3, gap=2, max_train_size=6).split(X)
    theirs = TimeSeriesSplit(4, test_size=3, gap=2, max_train_size=6).split(X)
    for (train, test), (their_train, their_test) in zip(ours, theirs, strict=True):
        assert_array_equal(train, their_train)
        assert_array_equal(test, their_test)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    n=st.integers(1, 60),
    n_splits=st.integers(1, 4),
    horizon=st.integers(1, 8),
    step=st.none() | st.integers(1, 8),
    gap=st.integers(0, 3),
    size=st.none() | st.integers(1, 10),
    least=st.none() | st.integers(1, 10),
)
def test_windows_hold_what_they_promise(n, n_splits, horizon, step, gap, size, least):
    if size is not None and least is not None and least > size:
        with pytest.raises(ValueError, match="min_train_size"):
            RollingOriginSplit(n_splits, horizon=horizon, max_train_size=size, min_train_size=least)
        return
    cv = RollingOriginSplit(
        n_splits, horizon=horizon, step=step, gap=gap, max_train_size=size, min_train_size=least
    )
    needed = (least or 1) + gap + horizon + (n_splits - 1) * (step or horizon)
    X = np.zeros((n, 1))
    if n < needed:
        with pytest.raises(ValueError, match=f"needs at least {needed}"):
            list(cv.split(X))
        return
    splits = list(cv.split(X))
    assert len(splits) == cv.get_n_splits(X) == n_splits
    assert splits[-1][1][-1] == n - 1
    for train, test in splits:
        assert len(test) == horizon
        assert test[0] - train[-1] == gap + 1
        assert_array_equal(np.diff(test), 1)
        assert len(train) == (train[-1] + 1 if size is None else min(size, train[-1] + 1))
        assert len(train) >= min(least or 1, size or n)
    assert_array_equal(np.diff([test[0] for _, test in splits]), step or horizon)


@pytest.mark.parametrize("freq", ["h", "D", "W", "ME", "QS", "B"])
def test_gaps_in_the_index_count_as_steps(freq):
    full = make_frame(40, freq=freq)
    lost = [3, 20, 33, 34, 37]
    frame = full.drop(full.index[lost])
    cv = RollingOriginSplit(2, horizon=5, step=4, gap=1)
    for (train, test), (full_train, full_test) in zip(cv.split(frame), cv.split(full), strict=True):
        assert frame.index[train].equals(full.index[full_train].difference(full.index[lost]))
        assert frame.index[test].equals(full.index[full_test].difference(full.index[lost]))


@pytest.mark.parametrize(
    "convert",
    [
        lambda frame: frame,
        lambda frame: frame["a"],
        lambda frame: frame.set_axis(frame.index.to_period("D")),
        lambda frame: frame.tz_localize("Europe/Berlin"),
        lambda frame: frame.reset_index(drop=True),
        lambda frame: frame.assign(kind="text"),
        lambda frame: frame.to_numpy().tolist(),
    ],
    ids=["frame", "series", "period", "tz", "range", "text", "list"],
)
def test_containers_are_cut_alike(convert):
    frame = make_frame(20)
    cv = RollingOriginSplit(2, horizon=3)
    for (train, test), (a, b) in zip(
        cv.split(convert(frame)), cv.split(frame.to_numpy()), strict=True
    ):
        assert_array_equal(train, a)
        assert_array_equal(test, b)


def test_dataarray_with_time_first():
    array = make_xarray()
    train, test = next(RollingOriginSplit(1, horizon=4).split(array))
    assert_array_equal(train, np.arange(36))
    assert_array_equal(test, np.arange(36, 40))
    gone = array.isel(time=[k for k in range(40) if k != 37])
    assert len(next(RollingOriginSplit(1, horizon=4).split(gone))[1]) == 3


@pytest.mark.parametrize("order", ["series", "time", "shuffled"])
def test_panels_are_cut_at_one_stamp(order):
    panel = make_panel()
    if order == "series":
        panel = panel.sort_index()
    elif order == "shuffled":
        panel = panel.iloc[np.random.default_rng(0).permutation(len(panel))]
    stamps = pd.date_range("2024-01-01", periods=40)
    cv = RollingOriginSplit(3, horizon=5, step=13)
    for k, (train, test) in enumerate(cv.split(panel)):
        origin = stamps[40 - (2 - k) * 13 - 5]
        time = panel.index.get_level_values("time")
        series = panel.index.get_level_values("series")
        before = time < origin
        ahead = (time >= origin) & (time < origin + pd.Timedelta(5, "D"))
        ahead &= series.isin(series[before])  # nothing to forecast a new series from
        assert_array_equal(train, np.flatnonzero(before))
        assert_array_equal(test, np.flatnonzero(ahead))
    assert "z" not in series[test]  # it ended before


def test_series_without_history_are_not_tested():
    panel = make_panel()
    cv = RollingOriginSplit(1, horizon=30)
    ((train, test),) = cv.split(panel)
    assert set(panel.index[train].get_level_values("series")) == {"x", "z"}
    assert set(panel.index[test].get_level_values("series")) == {"x", "z"}


def test_stamps_without_a_step_count_as_they_are():
    index = pd.to_datetime(
        ["2024-01-01 00:00:00.013", "2024-01-02", "2024-01-05 03:01", "2024-02-01"],
        format="ISO8601",
    )
    train, test = next(RollingOriginSplit(1, horizon=2).split(pd.DataFrame({"a": 1.0}, index)))
    assert_array_equal(train, [0, 1])
    assert_array_equal(test, [2, 3])


def test_repr_copy_and_check_cv():
    cv = RollingOriginSplit(3, horizon=24, gap=2)
    assert "horizon=24" in repr(cv) and "n_splits=3" in repr(cv)
    assert check_cv(cv) is cv
    for other in (copy.deepcopy(cv), pickle.loads(pickle.dumps(cv)), clone(cv, safe=False)):
        assert repr(other) == repr(cv)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"horizon": 0}, ValueError, "horizon must be at least 1; got 0"),
        ({"horizon": 2.0}, TypeError, "horizon must be an integer; got 2.0"),
        ({"horizon": "a"}, TypeError, "horizon must be an integer; got 'a'"),
        ({"horizon": True}, TypeError, "horizon must be an integer"),
        ({"horizon": 2, "n_splits": 0}, ValueError, "n_splits must be at least 1"),
        ({"horizon": 2, "step": 0}, ValueError, "step must be at least 1"),
        ({"horizon": 2, "gap": -1}, ValueError, "gap must be at least 0"),
        ({"horizon": 2, "max_train_size": 0}, ValueError, "max_train_size must be at least 1"),
        ({"horizon": 2, "min_train_size": 1.5}, TypeError, "min_train_size must be an integer"),
    ],
)
def test_parameter_errors(options, error, match):
    with pytest.raises(error, match=match):
        RollingOriginSplit(**options)


def test_data_errors():
    cv = RollingOriginSplit(2, horizon=5, min_train_size=4, gap=1)
    with pytest.raises(ValueError, match=r"X has 14 time steps.*needs at least 15"):
        list(cv.split(np.zeros((14, 1))))
    with pytest.raises(ValueError, match="KFold to split over series"):
        list(cv.split(np.zeros((3, 40, 2))))
    with pytest.raises(ValueError, match=r"X.transpose\('time', ...\)"):
        list(cv.split(make_xarray(("lat", "time", "lon"))))
    with pytest.raises(ValueError, match=r"X.to_dataarray\(\)"):
        list(cv.split(make_xarray().to_dataset()))
    with pytest.raises(ValueError, match="X is needed"):
        list(cv.split(None))
    with pytest.raises(ValueError, match="no rows"):
        list(cv.split(np.zeros((0, 1))))
    frame = make_frame(40)
    with pytest.raises(ValueError, match="The test window of split 0 has no rows"):
        list(RollingOriginSplit(2, horizon=5).split(frame.drop(frame.index[30:35])))


# scorers -------------------------------------------------------------------------------------


def score_by_hand(X, cv, season):
    """Mean absolute error of the seasonal naive over the splits of one frame."""
    scores = []
    for train, test in cv.split(X):
        past = X.iloc[train].to_numpy()[-season:]
        forecast = np.resize(past, (cv.horizon, 2))
        scores.append(np.abs(X.iloc[test].to_numpy() - forecast).mean())
    return np.array(scores)


@pytest.mark.parametrize("kind", ["frame", "array", "xarray"])
def test_cross_val_score_of_a_continuation(kind):
    frame = make_frame(40)
    cv = RollingOriginSplit(3, horizon=4)
    X = {
        "frame": frame,
        "array": frame.to_numpy(),
        "xarray": frame.rename_axis(columns="v").stack().to_xarray(),
    }[kind]
    scorer = make_forecast_scorer(metrics.mean_absolute_error)
    scores = cross_val_score(SeasonalNaive(2), X, scoring=scorer, cv=cv, error_score="raise")
    assert_allclose(-scores, score_by_hand(frame, cv, 2))


def test_gap_is_rolled_through():
    frame = make_frame(40)
    scorer = make_forecast_scorer(metrics.mean_absolute_error)
    model = SeasonalNaive(1).fit(frame[:30])
    error = np.abs(frame[33:36] - frame.iloc[29]).to_numpy().mean()
    assert scorer(model, frame[33:36]) == pytest.approx(-error)
    with pytest.raises(ValueError, match="do not end within"):
        scorer(model, frame.iloc[[30]].set_axis(frame.index[[29]] + pd.Timedelta(900, "D")))


def test_new_series_hides_its_last_steps():
    frame, other = make_frame(40), make_frame(15, 7).shift(-3000, freq="D")
    scorer = make_forecast_scorer(metrics.mean_absolute_error, horizon=3)
    model = SeasonalNaive(1).fit(frame)
    error = np.abs(other[-3:] - other.iloc[-4]).to_numpy().mean()
    assert scorer(model, other) == pytest.approx(-error)
    with pytest.raises(ValueError, match="leaves no history"):
        scorer(model, other[:3])


@pytest.mark.parametrize("kind", ["array", "xarray"])
def test_series_first_arrays_under_kfold(kind):
    X = np.random.default_rng(5).normal(size=(6, 20, 2))
    given_as = X
    if kind == "xarray":
        xr = pytest.importorskip("xarray")
        stamps = pd.date_range("2024-01-01", periods=20)
        coords = {"series": list("abcdef"), "time": stamps}
        given_as = xr.DataArray(X, dims=("series", "time", "v"), coords=coords)
    scorer = make_forecast_scorer(metrics.root_mean_squared_error, horizon=5)
    scores = cross_val_score(
        SeasonalNaive(1), given_as, scoring=scorer, cv=KFold(3), error_score="raise"
    )
    for score, (_, test) in zip(scores, KFold(3).split(X), strict=True):
        error = X[test, -5:] - X[test, -6:-5]
        expected = np.sqrt((error**2).mean(axis=(0, 1))).mean()
        assert score == pytest.approx(-expected)


def test_grid_search_over_a_panel():
    panel = make_panel()
    search = GridSearchCV(
        SeasonalNaive(),
        {"season": [1, 3]},
        scoring=make_forecast_scorer(metrics.mean_absolute_error),
        cv=RollingOriginSplit(3, horizon=4),
        error_score="raise",
    ).fit(panel)
    expected = []
    for train, test in RollingOriginSplit(3, horizon=4).split(panel):
        history, future = panel.iloc[train], panel.iloc[test]
        errors = []
        for key, rows in future.groupby(level="series"):
            # Series that ended early are forecast from their own last row.
            last = history.xs(key, level="series").iloc[-1]
            errors.append(np.abs(rows - last).to_numpy())
        expected.append(np.concatenate(errors).mean(axis=0).mean())
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(-np.mean(expected))
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])


# All but the scaled error, which needs the training data.
FORECAST_METRICS = (
    "crps_from_quantiles",
    "crps_from_samples",
    "energy_score",
    "interval_coverage",
    "interval_score",
    "mean_absolute_error",
    "pinball_loss",
    "root_mean_squared_error",
    "symmetric_mean_absolute_percentage_error",
)


@pytest.mark.parametrize("kind", ["frame", "panel", "series", "array", "xarray", "dataset"])
def test_every_metric_of_forecasts_as_a_scorer(kind):
    frame = make_frame(40)
    X = {
        "frame": frame,
        "panel": make_panel(),
        "series": frame["a"],
        "array": frame.to_numpy(),
        "xarray": make_xarray(),
        "dataset": make_xarray().to_dataset(name="t"),
    }[kind]
    if kind == "dataset":
        model, test = SeasonalNaive().fit(X.isel(time=slice(36))), X.isel(time=slice(36, 40))
        truth = make_xarray().to_numpy().reshape(40, -1)
        splits = [(model, test)]
    elif kind == "xarray":
        splits = [(SeasonalNaive().fit(X[:36]), X[36:])]
        truth = X.to_numpy().reshape(40, -1)
    else:
        train, test = next(iter(RollingOriginSplit(1, horizon=4).split(X)))
        pick = X.iloc if hasattr(X, "iloc") else X
        splits = [(SeasonalNaive().fit(pick[train]), pick[test])]
        truth = None if kind == "panel" else np.asarray(X).reshape(40, -1)
    scores = {
        name: make_forecast_scorer(getattr(metrics, name), n_samples=8)(*splits[0])
        for name in FORECAST_METRICS
    }
    assert all(np.isfinite(value) and value <= 0 for value in scores.values())
    if truth is not None:
        error = truth[36:] - truth[35]
        assert scores["mean_absolute_error"] == pytest.approx(-np.abs(error).mean())
        assert scores["interval_coverage"] == pytest.approx(-(np.abs(error) <= 0.45).mean())
        spread = 0.5 * np.linspace(-1, 1, 8)
        draws = np.broadcast_to(truth[35], error.shape) + spread[:, None, None]
        expected = metrics.crps_from_samples(truth[36:], draws)
        assert scores["crps_from_samples"] == pytest.approx(-expected)


def test_scorer_of_the_covariate_form():
    rng = np.random.default_rng(6)
    X = make_frame(30)
    y = pd.Series(X["a"] * 2 + rng.normal(size=30), index=X.index, name="y")
    model = LinearRegression().fit(X[:20], y[:20])
    score = make_forecast_scorer(metrics.mean_absolute_error)(model, X[20:], y[20:])
    assert score == pytest.approx(-np.abs(model.predict(X[20:]) - y[20:]).mean())


def test_scorer_is_picklable_and_signed():
    scorer = make_forecast_scorer(metrics.mean_absolute_error, greater_is_better=True)
    frame = make_frame(20)
    model = SeasonalNaive().fit(frame[:16])
    copied = pickle.loads(pickle.dumps(scorer))
    assert copied(model, frame[16:]) == scorer(model, frame[16:]) > 0
    assert "mean_absolute_error" in repr(scorer)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"metric": "mae"}, TypeError, "metric must be callable"),
        ({"horizon": 0}, ValueError, "horizon must be at least 1"),
        ({"horizon": 1.5}, TypeError, "horizon must be an integer"),
        ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
        ({"response_method": "transform"}, ValueError, "response_method must be one of"),
        ({"quantiles": [0.0, 0.5]}, ValueError, "quantiles must lie strictly"),
        ({"coverage": 1.0}, ValueError, "coverage must lie strictly"),
    ],
)
def test_scorer_errors(options, error, match):
    with pytest.raises(error, match=match):
        make_forecast_scorer(**{"metric": metrics.mean_absolute_error, **options})


# backtest ------------------------------------------------------------------------------------


def cases():
    frame = make_frame(40)
    gappy = frame.drop(frame.index[[20, 21, 33, 34]])
    return {
        "frame": frame,
        "gaps": gappy,
        "series": frame["a"],
        "array": frame.to_numpy(),
        "array3": np.random.default_rng(8).normal(size=(3, 40, 2)),
        "panel": make_panel(),
        "xarray": make_xarray(),
        "dataset": make_xarray().to_dataset(name="t"),
    }


@pytest.mark.parametrize("kind", list(cases()))
def test_batched_and_looped_backtests_agree(kind):
    X = cases()[kind]
    options = {"horizon": 5, "step": 3, "n_origins": 4, "coverage": 0.8}
    season = 1 if kind == "gaps" else 3  # rows lost before an origin shift the season of a loop
    looped = backtest(SeasonalNaive(season).fit(X), X, **options)
    batched = backtest(BatchedNaive(season).fit(X), X, **options)
    mask = looped.arrays.mask
    assert_array_equal(mask, batched.arrays.mask)
    assert_array_equal(looped.arrays.observed, batched.arrays.observed)
    if kind != "panel":  # a series that ended is forecast from its own last row in a loop
        assert_allclose(looped.arrays.predicted[mask], batched.arrays.predicted[mask])
        assert_allclose(looped.arrays.quantiles[mask], batched.arrays.quantiles[mask])
        pd.testing.assert_frame_equal(looped.summary(), batched.summary())


def test_backtest_of_a_frame_against_a_loop():
    frame = make_frame(40)
    frame.iloc[38, 0] = np.nan
    result = backtest(SeasonalNaive(1).fit(frame[:20]), frame, horizon=8, step=4, start=20)
    assert_array_equal(result.origins, [20, 24, 28, 32])
    assert list(result.origin_labels) == list(frame.index[[19, 23, 27, 31]])
    assert result.predictions.index.names == ["origin", "time"]
    errors = []
    for origin in result.origins:
        label = frame.index[origin - 1]
        rows = result.predictions.loc[label]
        assert rows.index.equals(frame.index[origin : origin + 8])
        assert_allclose(rows, np.tile(frame.iloc[origin - 1], (8, 1)))
        pd.testing.assert_frame_equal(
            result.actual.loc[label], frame[origin : origin + 8], check_freq=False
        )
        errors.append((frame[origin : origin + 8] - frame.iloc[origin - 1]).to_numpy())
    errors = np.stack(errors)  # (O, H, F)
    summary = result.summary()
    assert list(summary.index) == ["1-2", "3-4", "5-6", "7-8", "all"]
    assert list(summary.columns) == ["MAE", "RMSE", "MASE", "n"]
    for row, steps in zip(summary.index, [*np.split(np.arange(8), 4), np.arange(8)], strict=True):
        part = errors[:, steps]
        assert summary.loc[row, "MAE"] == pytest.approx(
            np.nanmean(np.abs(part), axis=(0, 1)).mean()
        )
        rmse = np.sqrt(np.nanmean(part**2, axis=(0, 1))).mean()
        assert summary.loc[row, "RMSE"] == pytest.approx(rmse)
        scale = np.abs(np.diff(frame[:20], axis=0)).mean(axis=0)
        mase = np.nanmean(np.abs(part) / scale, axis=(0, 1)).mean()
        assert summary.loc[row, "MASE"] == pytest.approx(mase)
        assert summary.loc[row, "n"] == np.isfinite(part).sum()


def test_backtest_quantiles_and_coverage():
    frame = make_frame(40)
    model = SeasonalNaive(1, width=4.0).fit(frame[:20])
    result = backtest(model, frame, horizon=4, n_origins=3, quantiles=[0.3, 0.7], coverage=0.8)
    assert result.levels == (0.1, 0.3, 0.7, 0.9)
    assert list(result.quantiles.columns.names) == ["variable", "quantile"]
    error = (result.actual - result.predictions).to_numpy()
    summary = result.summary().loc["all"]
    assert summary["coverage"] == pytest.approx((np.abs(error) <= 4.0 * 0.4).mean())
    crps = metrics.crps_from_quantiles(
        result.actual.to_numpy(),
        result.quantiles.to_numpy().reshape(-1, 2, 4),
        quantiles=result.levels,
    )
    assert summary["CRPS"] == pytest.approx(crps)
    assert metrics.crps_from_quantiles(result.actual, result.quantiles) == pytest.approx(crps)


@pytest.mark.parametrize("kind", list(cases()))
def test_backtest_returns_the_callers_container(kind):
    X = cases()[kind]
    result = backtest(SeasonalNaive(1).fit(X), X, horizon=4, n_origins=3, coverage=0.5)
    for part in (result.predictions, result.actual):
        if kind == "array":
            assert part.shape == (3, 4, 2)
        elif kind == "array3":
            assert part.shape == (3, 3, 4, 2)
        elif kind in ("xarray", "dataset"):
            assert type(part) is type(X)
            data = part if kind == "xarray" else part["t"]
            assert data.dims == ("origin", "step", "lat", "lon")
            assert data["time"].dims == ("origin", "step")
            assert data["time"].values[0, 0] == make_xarray()["time"].values[28]
            assert data["origin"].values[0] == make_xarray()["time"].values[27]
        else:
            assert type(part) is type(X)
            assert part.index.names == ["origin", *X.index.names]
    if kind == "xarray":
        assert result.quantiles.dims == ("origin", "step", "lat", "lon", "quantile")
        assert_allclose(result.actual.to_numpy()[2], make_xarray().to_numpy()[36:40])


def test_backtest_ragged_panel_against_a_loop():
    panel = make_panel()
    result = backtest(SeasonalNaive(1).fit(panel), panel, horizon=6, step=12, n_origins=3)
    stamps = pd.date_range("2024-01-01", periods=40)
    assert_array_equal(result.origins, [10, 22, 34])
    names = list(read_panel(panel).index.series)
    for o, origin in enumerate(result.origins):
        for b, name in enumerate(names):
            rows = panel.xs(name, level="series").reindex(stamps)
            past, future = rows[:origin].dropna(), rows[origin : origin + 6]
            expected = future.notna().to_numpy() & (len(past) > 0)
            assert_array_equal(result.arrays.mask[o, b], expected)
            if len(past):
                seen = expected.any(axis=1)
                assert_allclose(
                    result.arrays.predicted[o, b][seen], np.tile(past.iloc[-1], (seen.sum(), 1))
                )
    assert not result.arrays.mask[0, names.index("y")].any()  # "y" starts at step 12
    assert not result.arrays.mask[2, names.index("z")].any()  # "z" ends at step 33


class WithFreq(SeasonalNaive):
    """Is told the step of the data, which two rows do not show."""

    def __init__(self, season=1, width=1.0, horizon=4, freq=None):
        super().__init__(season, width, horizon)
        self.freq = freq

    def fit(self, X, y=None):
        self.panel_ = read_panel(X, freq=self.freq)
        return self


def test_backtest_reads_time_as_the_estimator_does():
    frame = make_frame(40)[::2]  # every second day
    model = WithFreq(freq="D").fit(frame)
    result = backtest(model, frame, horizon=6, n_origins=2)
    assert_array_equal(result.origins, [27, 33])  # 39 days, of which 20 have a row
    assert result.arrays.mask[0, 0].any(axis=1).sum() == 3


def test_origin_inside_a_gap_looks_past_it():
    frame = make_frame(40)
    gappy = frame.drop(frame.index[28:31])
    result = backtest(SeasonalNaive(1).fit(gappy), gappy, horizon=10, n_origins=1)
    assert_array_equal(result.origins, [30])
    assert result.arrays.mask[0, 0].any(axis=1).sum() == 9
    assert_allclose(result.arrays.predicted[0, 0], np.tile(frame.iloc[27], (10, 1)))


class Recorder(SeasonalNaive):
    """Keeps how many rows each fit saw, on the class, since clones are fitted."""

    seen: list = []

    def fit(self, X, y=None):
        Recorder.seen.append(len(X))
        return super().fit(X)


def test_refit_and_unfitted_estimators():
    frame = make_frame(40)
    Recorder.seen = []
    refitted = backtest(Recorder(2), frame, horizon=4, n_origins=3, refit=True)
    assert Recorder.seen == [28, 32, 36]
    Recorder.seen = []
    model = Recorder(2)
    once = backtest(model, frame, horizon=4, n_origins=3)
    assert Recorder.seen == [28]
    assert not hasattr(model, "panel_")
    assert_allclose(refitted.arrays.predicted, once.arrays.predicted)


def test_backtest_of_the_covariate_form():
    X = make_frame(40)
    y = X["a"] * 2 - X["b"]
    y.iloc[37] = np.nan
    result = backtest(LinearRegression(), X, y=y, horizon=5, n_origins=3, refit=True)
    mask = result.arrays.mask
    assert mask.sum() == 14
    assert_allclose(result.arrays.predicted[mask], result.arrays.observed[mask], atol=1e-9)
    assert isinstance(result.predictions, pd.Series)
    array = backtest(
        LinearRegression(), X.to_numpy(), y=y.to_numpy(), horizon=5, n_origins=3, refit=True
    )
    assert_allclose(array.arrays.predicted, result.arrays.predicted)
    with pytest.raises(ValueError, match="X must have one row for each of the 40 rows of y"):
        backtest(LinearRegression(), X[:30], y=y, horizon=5, refit=True)


class CovariateNaive(BaseEstimator):
    """Fitted by (X, y); continues the last y of `history`."""

    def fit(self, X, y):
        self.last_ = y.iloc[-1]
        return self

    def predict(self, X, *, history=None):
        last = self.last_ if history is None else history[1].iloc[-1]
        assert history is None or len(history[0]) == len(history[1])
        return pd.DataFrame(np.tile(last, (len(X), 1)), index=X.index, columns=["a", "b"])


def test_covariate_form_continues_a_history():
    y = make_frame(40)
    model = CovariateNaive().fit(y[:10], y[:10])
    result = backtest(model, make_frame(40, 9), y=y, horizon=5, n_origins=3)
    for o, origin in enumerate(result.origins):
        assert_allclose(result.arrays.predicted[o, 0], np.tile(y.iloc[origin - 1], (5, 1)))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"horizon": 0}, ValueError, "horizon must be at least 1"),
        ({"horizon": "a"}, TypeError, "horizon must be an integer"),
        ({"horizon": 10}, ValueError, "need at least 51"),
        ({"horizon": 5, "step": 0}, ValueError, "step must be at least 1"),
        ({"horizon": 5, "n_origins": 0}, ValueError, "n_origins must be at least 1"),
        ({"horizon": 5, "start": 38}, ValueError, "need 43"),
        ({"horizon": 5, "start": 0}, ValueError, "start must be at least 1"),
        ({"horizon": 5, "coverage": 1.2}, ValueError, "coverage must lie strictly"),
        ({"horizon": 5, "quantiles": [0.5, 2]}, ValueError, "quantiles must lie strictly"),
        ({"horizon": 5, "seasonality": 0}, ValueError, "seasonality must be at least 1"),
    ],
)
def test_backtest_errors(options, error, match):
    frame = make_frame(40)
    with pytest.raises(error, match=match):
        backtest(SeasonalNaive(1).fit(frame), frame, **options)


def test_a_forecast_of_other_shape_or_stamps_is_refused():
    class Short(SeasonalNaive):
        def predict(self, X=None, *, horizon=None):
            return super().predict(X, horizon=horizon).to_numpy()[:-1]

    class Elsewhere(SeasonalNaive):
        def predict(self, X=None, *, horizon=None):
            return super().predict(X, horizon=horizon).shift(900, freq="D")

    frame = make_frame(40)
    with pytest.raises(ValueError, match=r"has shape \(3, 2\); expected \(4, 2\)"):
        backtest(Short().fit(frame), frame, horizon=4)
    with pytest.raises(ValueError, match="for other stamps"):
        backtest(Elsewhere().fit(frame), frame, horizon=4)
