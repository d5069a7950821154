"""Displays carry the right data in their artists and follow scikit-learn's Display convention."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

from matplotlib.collections import PolyCollection  # noqa: E402

from tsvae.panel import read_panel, write  # noqa: E402
from tsvae.plotting import (  # noqa: E402
    ForecastDisplay,
    LatentDynamicsDisplay,
    ReconstructionDisplay,
    TrainingDisplay,
)
from tsvae.plotting._dynamics import find_modes  # noqa: E402


class Latent(NamedTuple):
    mean: np.ndarray
    variance: np.ndarray
    eigenvalues: np.ndarray
    times: object


class Forecaster(BaseEstimator):
    """Last value with a band of fixed width; fills gaps with zeros."""

    horizon = 5

    def predict_quantiles(self, X, *, horizon=None, quantiles=(0.1, 0.5, 0.9)):
        panel = read_panel(X)
        last = np.stack([v[n - 1] for v, n in zip(panel.values, panel.lengths, strict=True)])
        horizon = horizon or self.horizon
        mean = np.repeat(last[:, None], horizon, axis=1)
        values = mean[..., None] + np.asarray(quantiles) - 0.5
        levels = [("quantile", list(quantiles))]
        return write(values, panel.index.future(horizon), levels=levels)

    def impute(self, X):
        panel = read_panel(X)
        return write(panel.values, panel.index)

    def latent_dynamics(self, X=None):
        mean = np.arange(20.0)[:, None] * np.array([0.1, 3.0, 1.0])
        turn = 0.9 * np.exp(2j * np.pi / 12)
        eigenvalues = np.array([turn, turn.conjugate(), 0.5])
        return Latent(mean, np.full((20, 3), 4.0), eigenvalues, X.index[:20])


class Imputer(Forecaster):
    def impute_quantiles(self, X, quantiles):
        panel = read_panel(X)
        values = panel.values[..., None] + 10 * (np.asarray(quantiles) - 0.5)
        return write(values, panel.index, levels=[("quantile", list(quantiles))])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def frame():
    index = pd.date_range("2024-01-01", periods=50, freq="h", name="time")
    values = np.random.default_rng(0).normal(size=(50, 2)).cumsum(axis=0)
    return pd.DataFrame(values, index=index, columns=["load", "wind"])


def line(ax, label):
    (found,) = [artist for artist in ax.lines if artist.get_label() == label]
    return found


def band(ax, label):
    (found,) = [
        artist
        for artist in ax.collections
        if isinstance(artist, PolyCollection) and artist.get_label() == label
    ]
    return found.get_paths()[0].vertices[:, 1]


# forecast ------------------------------------------------------------------------------------


def test_forecast_display_draws_history_forecast_bands_and_actual(frame):
    history, actual = frame[:40], frame[40:45]
    display = ForecastDisplay.from_estimator(
        Forecaster(), history, actual=actual, coverages=[0.5, 0.9], history_length=12
    )
    assert isinstance(display, ForecastDisplay)
    assert len(display.axes_) == 2 and display.ax_ is display.axes_[0]
    for k, (ax, name) in enumerate(zip(display.axes_, frame.columns, strict=True)):
        assert ax.get_ylabel() == name
        assert_allclose(line(ax, "history").get_ydata(), history.iloc[-12:, k])
        assert_allclose(line(ax, "forecast").get_ydata(), np.repeat(history.iloc[-1, k], 5))
        assert_allclose(line(ax, "actual").get_ydata(), actual.iloc[:, k])
        assert (line(ax, "forecast").get_xdata() == actual.index.to_numpy()).all()
        last = history.iloc[-1, k]
        for coverage in (0.5, 0.9):
            drawn = band(ax, f"{coverage * 100:g} % interval")
            assert drawn.min() == pytest.approx(last - coverage / 2)
            assert drawn.max() == pytest.approx(last + coverage / 2)
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["history", "90 % interval", "50 % interval", "forecast", "actual"]
    display.figure_.canvas.draw()
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.y0 >= display.ax_.get_window_extent().y1  # outside of the data


def test_forecast_display_uses_the_axes_given(frame):
    figure, axes = plt.subplots(2, 1)
    display = ForecastDisplay.from_estimator(Forecaster(), frame, ax=axes)
    assert display.axes_ == list(axes) and display.figure_ is figure
    single = plt.subplots()[1]
    display = ForecastDisplay.from_estimator(Forecaster(), frame, variables=["wind"], ax=single)
    assert display.ax_ is single and display.names == ["wind"]
    figure, divided = plt.subplots()
    assert display.plot(ax=divided) is display
    display = ForecastDisplay.from_estimator(Forecaster(), frame, ax=divided)
    assert len(display.axes_) == 2 and display.figure_ is figure
    assert not divided.axison
    with pytest.raises(ValueError, match=r"ax must hold 2 axes.*got 3"):
        ForecastDisplay.from_estimator(Forecaster(), frame, ax=plt.subplots(3, 1)[1])


def test_forecast_display_of_other_containers(frame):
    xr = pytest.importorskip("xarray")
    panel = pd.concat({"x": frame, "y": frame * 2}, names=["series"])
    last = frame.iloc[-1].to_numpy()
    array3 = np.stack([frame.to_numpy(), 2 * frame.to_numpy()])
    field = xr.DataArray(
        frame.to_numpy(), dims=("time", "lat"), coords={"time": frame.index, "lat": [10, 20]}
    )
    cases = [
        (frame["load"], {}, last[:1], ["load"]),
        (panel, {"series": "y"}, 2 * last, ["load", "wind"]),
        (panel, {}, last, ["load", "wind"]),
        (frame.to_numpy(), {"quantiles": True}, last, ["variable 0", "variable 1"]),
        (array3, {"series": 1, "quantiles": True}, 2 * last, ["variable 0", "variable 1"]),
        (field, {}, last, ["lat=10", "lat=20"]),
        (field.to_dataset(name="t"), {}, last, ["t, lat=10", "t, lat=20"]),
        (frame.set_axis(frame.index.to_period("h")), {}, last, ["load", "wind"]),
        (frame.tz_localize("UTC"), {}, last, ["load", "wind"]),
    ]
    for X, options, expected, names in cases:
        options = {key: value for key, value in options.items() if key != "quantiles"}
        display = ForecastDisplay.from_estimator(Forecaster(), X, **options)
        assert_allclose(display.median, np.tile(expected, (5, 1)))
        if not isinstance(X, pd.Series):
            assert display.names == names
        assert display.times[0] > display.history_times[-1]
        assert len(np.unique(np.diff(display.times))) == 1


def test_forecast_display_of_many_variables_and_one_step(frame):
    wide = pd.concat([frame.add_suffix(str(k)) for k in range(4)], axis=1)
    display = ForecastDisplay.from_estimator(Forecaster(), wide, max_variables=3)
    assert display.names == list(wide.columns[:3])
    short = ForecastDisplay.from_estimator(Forecaster(), frame, horizon=1)
    assert line(short.ax_, "forecast").get_marker() == "o"
    assert len(short.ax_.collections) == 2  # the bands are bars


def test_forecast_display_from_predictions_of_an_array():
    quantiles = np.arange(12.0).reshape(4, 1, 3)
    display = ForecastDisplay.from_predictions(quantiles, quantiles=[0.1, 0.5, 0.9])
    assert_allclose(display.median[:, 0], [1, 4, 7, 10])
    assert list(display.bands) == [0.8]
    assert display.plot().ax_.get_xlabel() == "time"


def test_forecast_display_errors(frame):
    with pytest.raises(ValueError, match="coverages must lie strictly"):
        ForecastDisplay.from_estimator(Forecaster(), frame, coverages=[1.0])
    with pytest.raises(KeyError, match="variables='rain' is not one of"):
        ForecastDisplay.from_estimator(Forecaster(), frame, variables=["rain"])
    with pytest.raises(ValueError, match="max_variables must be at least 1"):
        ForecastDisplay.from_estimator(Forecaster(), frame, max_variables=0)
    with pytest.raises(ValueError, match="quantiles is needed"):
        ForecastDisplay.from_predictions(np.zeros((4, 1, 3)))
    with pytest.raises(ValueError, match="has 3 quantiles on its last axis; quantiles lists 2"):
        ForecastDisplay.from_predictions(np.zeros((4, 1, 3)), quantiles=[0.1, 0.9])
    panel = pd.concat({"x": frame}, names=["series"])
    with pytest.raises(KeyError, match="series='q' is not one of"):
        ForecastDisplay.from_estimator(Forecaster(), panel, series="q")


# reconstruction ------------------------------------------------------------------------------


def test_reconstruction_display_draws_gaps_and_bands(frame):
    gappy = frame.copy()
    gappy.iloc[10:14, 0] = np.nan
    display = ReconstructionDisplay.from_estimator(Imputer(), gappy, coverage=0.8)
    ax = display.axes_[0]
    observed, filled = line(ax, "observed").get_ydata(), line(ax, "filled").get_ydata()
    assert_allclose(observed, gappy["load"])
    expected = np.full(50, np.nan)
    expected[9:15] = gappy["load"].fillna(0.0)[9:15]  # reaches both neighbours
    assert_allclose(filled, expected)
    drawn = band(ax, "80 % interval")
    inside = gappy["load"].iloc[[9, 14]]
    assert drawn.min() == pytest.approx(min(-4.0, *inside))
    assert drawn.max() == pytest.approx(max(4.0, *inside))
    assert np.isnan(line(display.axes_[1], "filled").get_ydata()).all()


def test_reconstruction_display_without_quantiles(frame):
    frame.iloc[3] = np.nan
    axes = plt.subplots(2, 1)[1]
    display = ReconstructionDisplay.from_estimator(Forecaster(), frame, ax=axes)
    assert display.axes_ == list(axes) and not display.ax_.collections
    assert display.lower is None
    assert display.plot() is display


def test_reconstruction_display_errors(frame):
    with pytest.raises(ValueError, match="must have one shape"):
        ReconstructionDisplay.from_predictions(frame, frame[:-1])
    with pytest.raises(ValueError, match="quantiles must have shape"):
        ReconstructionDisplay.from_predictions(frame, frame, quantiles=np.zeros((50, 2, 3)))
    with pytest.raises(ValueError, match="coverage must lie strictly"):
        ReconstructionDisplay.from_estimator(Imputer(), frame, coverage=0.0)


# latent dynamics -----------------------------------------------------------------------------


def test_latent_display_draws_states_eigenvalues_and_table(frame):
    display = LatentDynamicsDisplay.from_estimator(Forecaster(), frame, coverage=0.9, max_latents=2)
    assert [ax.get_ylabel() for ax in display.axes_] == ["z1", "z2"]  # those that vary most
    latent = Forecaster().latent_dynamics(frame)
    assert_allclose(display.axes_[0].lines[0].get_ydata(), latent.mean[:, 1])
    vertices = display.axes_[0].collections[0].get_paths()[0].vertices[:, 1]
    half = NormalDist().inv_cdf(0.95) * 2.0
    assert vertices.min() == pytest.approx(-half)
    assert vertices.max() == pytest.approx(57.0 + half)
    dots = display.circle_ax_.collections[0].get_offsets()
    assert_allclose(dots[:, 0] + 1j * dots[:, 1], latent.eigenvalues)
    (table,) = display.table_ax_.tables
    cells = [[table[r, c].get_text().get_text() for c in range(3)] for r in range(3)]
    half_life = np.log(0.5) / np.log(0.9)
    assert cells == [
        ["|λ|", "period", "half-life"],
        ["0.900", "12.0", f"{half_life:.1f}"],
        ["0.500", "–", "1.0"],
    ]
    assert "1 of less variance not shown" in display.ax_.get_title(loc="left")


def test_latent_states_are_named_as_the_estimator_names_them(frame):
    class Named(Forecaster):
        def get_feature_names_out(self):
            return np.array(["load_z0", "load_z1", "wind_z0"], dtype=object)

    display = LatentDynamicsDisplay.from_estimator(Named(), frame, max_latents=2)
    assert [ax.get_ylabel() for ax in display.axes_] == ["load_z1", "wind_z0"]
    with pytest.raises(ValueError, match="names must name the 3 latent states; got 1"):
        LatentDynamicsDisplay(
            times=np.arange(4),
            mean=np.zeros((4, 3)),
            variance=np.ones((4, 3)),
            eigenvalues=np.zeros(3),
            names=["a"],
        )


def test_latent_display_in_the_axes_given(frame):
    figure, ax = plt.subplots()
    display = LatentDynamicsDisplay.from_estimator(Forecaster(), frame, ax=ax)
    assert display.figure_ is figure and not ax.axison
    assert display.plot() is display
    with pytest.raises(ValueError, match="cannot be divided"):
        display.plot(ax=plt.figure().add_axes((0, 0, 1, 1)))


def test_modes_of_a_transition_matrix():
    angle, size = 2 * np.pi / 7, 0.5 ** (1 / 30)
    rotation = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.zeros((5, 5))
    matrix[:2, :2] = rotation
    matrix[2, 2], matrix[3, 3], matrix[4, 4] = 1.0, -0.25, 0.0
    basis = np.random.default_rng(1).normal(size=(5, 5))
    modes = find_modes(np.linalg.eigvals(basis @ matrix @ np.linalg.inv(basis)))
    assert len(modes.periods) == 4
    assert_allclose(modes.periods[:3], [np.inf, 7.0, 2.0])
    assert modes.half_lives[0] > 1e9
    assert_allclose(modes.half_lives[1:3], [30.0, 0.5])


def test_latent_display_errors():
    with pytest.raises(ValueError, match="mean and variance must both have shape"):
        LatentDynamicsDisplay(
            times=np.arange(3),
            mean=np.zeros((3, 2)),
            variance=np.zeros((3, 1)),
            eigenvalues=np.zeros(2),
        )


# training ------------------------------------------------------------------------------------


class Log(dict):
    best_epoch = 2


class Trained(BaseEstimator):
    def fit(self, log):
        self.training_log_ = log
        return self


LOG = Log(
    epoch=[0, 1, 2, 3],
    objective=[4.0, 3.0, 2.0, 1.5],
    validation=[5.0, None, 3.0, None],
    learning_rate=[1e-3, 1e-3, 5e-4, 0.0],
    beta=[0.0, 0.5, 1.0, 1.0],
    seconds=[1.0, 2.0, 3.0, 4.0],
)


def test_training_display_draws_the_log():
    display = TrainingDisplay.from_estimator(Trained().fit(LOG))
    assert len(display.axes_) == 3
    assert_allclose(line(display.ax_, "objective").get_ydata(), LOG["objective"])
    assert_allclose(line(display.ax_, "validation").get_xdata(), [0, 2])
    assert_allclose(line(display.ax_, "validation").get_ydata(), [5, 3])
    assert_allclose(line(display.ax_, "best epoch (2)").get_xdata(), [2, 2])
    assert [ax.get_ylabel() for ax in display.axes_] == ["objective", "learning rate", "beta"]
    assert_allclose(display.axes_[1].lines[0].get_ydata(), LOG["learning_rate"])
    assert_allclose(display.axes_[2].lines[0].get_ydata(), LOG["beta"])


def test_training_display_reads_frames_and_the_librarys_log():
    class Framed:
        def to_frame(self):
            return pd.DataFrame(LOG)

    framed = TrainingDisplay.from_estimator(Trained().fit(Framed()))
    assert_allclose(framed.log["objective"], LOG["objective"])
    assert framed.best_epoch is None
    log_module = pytest.importorskip("tsvae.training.log")
    log = log_module.TrainingLog([{"epoch": 0, "objective": 2.0}, {"epoch": 1, "objective": 1.0}])
    display = TrainingDisplay.from_estimator(Trained().fit(log))
    assert len(display.axes_) == 1  # nothing else was measured
    assert_allclose(line(display.ax_, "objective").get_ydata(), [2.0, 1.0])


def test_training_display_uses_the_axes_given_and_says_what_is_wrong():
    ax = plt.subplots()[1]
    display = TrainingDisplay({"objective": [1.0, 0.5]})
    assert display.plot(ax=ax) is display and display.ax_ is ax
    with pytest.raises(ValueError, match="needs a column 'objective'"):
        TrainingDisplay({"loss": [1.0]})
    with pytest.raises(NotFittedError):
        TrainingDisplay.from_estimator(Trained())


def test_a_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "tsvae\[plot\]"'):
        TrainingDisplay({"objective": [1.0]}).plot()


def test_importing_displays_does_not_import_matplotlib():
    import subprocess
    import sys

    code = "import tsvae.plotting, tsvae.metrics, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
