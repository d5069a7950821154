"""Displays of a linker store what it gives, draw it, and say what is wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

from matplotlib.collections import LineCollection, PathCollection  # noqa: E402
from matplotlib.colors import to_rgba  # noqa: E402

from tsvae.panel import read_records, write_codes, write_records  # noqa: E402
from tsvae.plotting import (  # noqa: E402
    CrossCorrelationDisplay,
    CrossPrediction,
    CrossReconstructionDisplay,
    PairedLatentDisplay,
)

N, X_STEPS, Y_STEPS = 40, 30, 50


class Interval(NamedTuple):
    lower: object
    upper: object


def as_table(side):
    if isinstance(side, pd.Series):
        return side.to_frame("y")
    return side[:, None] if isinstance(side, np.ndarray) and side.ndim == 1 else side


class LinearLinker:
    """Two linear maps with common codes: what a linker must offer, without training."""

    def __init__(self, latent_dim=3, *, log_scale=False):
        self.latent_dim = latent_dim
        self.log_scale = log_scale

    def get_params(self, deep=True):
        return {"latent_dim": self.latent_dim, "log_scale": self.log_scale}

    def fit(self, X, y):
        self.indices_ = [
            read_records(as_table(side), allow_all_missing=True).index for side in (X, y)
        ]
        sides = [self._read(side, k) for k, side in enumerate((X, y))]
        paired = np.logical_and(*[np.isfinite(side).any(axis=1) for side in sides])
        sides = [np.where(np.isfinite(s), s, np.nanmean(s, axis=0))[paired] for s in sides]
        self.means_ = [side.mean(axis=0) for side in sides]
        both = np.hstack([side - mean for side, mean in zip(sides, self.means_, strict=True)])
        maps = np.linalg.svd(both / both.std(axis=0), full_matrices=False)[2][: self.latent_dim]
        codes = both / both.std(axis=0) @ maps.T
        codes /= codes.std(axis=0)
        maps = np.linalg.lstsq(codes, both, rcond=None)[0]
        self.noise_ = ((both - codes @ maps) ** 2).mean()
        self.maps_ = np.split(maps, [sides[0].shape[1]], axis=1)
        self.spreads_ = [(sides[1 - k] - self._predict(sides[k], k)).std(axis=0) for k in (0, 1)]
        self.active_units_ = np.arange(self.latent_dim) < max(self.latent_dim - 1, 1)
        self.n_predicted_ = []
        return self

    def _read(self, side, k):
        records = read_records(as_table(side), like=self.indices_[k])
        values = np.where(records.mask, records.values, np.nan)
        values = values.reshape(len(values), -1)
        return np.log(np.maximum(values, 1e-3)) if self._log(k) else values

    def _log(self, k):
        return self.log_scale[k] if isinstance(self.log_scale, tuple) else self.log_scale

    def _codes(self, values, k):
        filled = np.where(np.isfinite(values), values - self.means_[k], 0.0)
        precision = self.maps_[k] @ self.maps_[k].T + self.noise_ * np.eye(self.latent_dim)
        return filled @ np.linalg.solve(precision, self.maps_[k]).T

    def _predict(self, values, k):
        return self._codes(values, k) @ self.maps_[1 - k] + self.means_[1 - k]

    def _answer(self, given, k, shift=0.0):
        values = self._read(given, k)
        self.n_predicted_.append(len(values))
        found = self._predict(values, k)
        if np.any(shift):
            found = found + shift * self.spreads_[k]
        if self._log(1 - k):
            found = np.exp(found)
        template, labels = (
            self.indices_[1 - k],
            read_records(as_table(given), like=self.indices_[k]).index,
        )
        index = template.new_records(len(values), labels.record_labels)
        return write_records(found.reshape(-1, template.n_steps, template.n_features), index)

    def _interval(self, given, k, coverage):
        z = norm.ppf(0.5 + coverage / 2)
        return Interval(self._answer(given, k, -z), self._answer(given, k, z))

    def predict(self, X, *, mask=None):
        return self._answer(X, 0)

    def predict_inverse(self, y, *, mask=None):
        return self._answer(y, 1)

    def predict_interval(self, X, coverage=0.9):
        return self._interval(X, 0, coverage)

    def predict_interval_inverse(self, y, coverage=0.9):
        return self._interval(y, 1, coverage)

    def transform(self, X, y=None):
        names = [f"z{k}" for k in range(self.latent_dim)]
        codes = []
        for k, side in enumerate((X, y)):
            index = read_records(as_table(side), like=self.indices_[k]).index
            codes.append(write_codes(self._codes(self._read(side, k), k), index, names))
        return tuple(codes)

    def cross_correlation(self, X, y):
        values = [self._read(side, k) for k, side in enumerate((X, y))]
        paired = np.logical_and(*[np.isfinite(side).any(axis=1) for side in values])
        codes = [self._codes(side, k)[paired] for k, side in enumerate(values)]
        return np.corrcoef(*codes, rowvar=False)[: self.latent_dim, self.latent_dim :]


def draw_pairs(n=N, seed=0):
    """Two kinds of spectra, of three common factors and some noise."""
    rng = np.random.default_rng(seed)
    q, nm = np.linspace(0.1, 3.0, X_STEPS), np.linspace(400.0, 800.0, Y_STEPS)
    radius, place, width = rng.uniform(0, 1, (3, n, 1))
    x = np.exp(-(q**2) * (0.5 + radius)) * (1 + 0.5 * np.cos(3 * q * (1 + 0.2 * place))) + 0.02
    x *= np.exp(0.04 * rng.standard_normal(x.shape))
    y = np.exp(-0.5 * ((nm - 550 - 80 * radius - 60 * place) / (40 + 40 * width)) ** 2)
    return q, nm, x, y + 0.02 * rng.standard_normal(y.shape), radius[:, 0]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def frames():
    q, nm, x, y, _ = draw_pairs()
    rows = [f"s{k}" for k in range(N)]
    X = pd.DataFrame(x, index=rows, columns=pd.Index(q, name="q, 1/nm"))
    Y = pd.DataFrame(y, index=rows, columns=pd.Index(nm, name="wavelength, nm"))
    Y.iloc[0], X.iloc[2] = np.nan, np.nan  # unpaired
    Y.iloc[1, 10:16] = np.nan  # partly missing
    return X, Y


@pytest.fixture(scope="module")
def linker(frames):
    return LinearLinker().fit(*frames)


def line(ax, label):
    (found,) = [artist for artist in ax.lines if artist.get_label() == label]
    return found


def band(ax, label):
    """Lower and upper bound of a band at each step."""
    (found,) = [artist for artist in ax.collections if artist.get_label() == label]
    corners = found.get_paths()[0].vertices
    return {x: (ys.min(), ys.max()) for x, ys in pd.Series(corners[:, 1]).groupby(corners[:, 0])}


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


# cross-reconstruction ------------------------------------------------------------------------


def test_both_sides_of_a_record_are_drawn_beside_their_predictions(linker, frames):
    X, Y = frames
    display = CrossReconstructionDisplay.from_estimator(
        linker, X, Y, records=["s7", "s1"], coverage=0.8, names=("SAXS", "UV-Vis")
    )
    assert isinstance(display, CrossReconstructionDisplay)
    assert (display.records, display.n_rows, len(display.axes_)) == (["s7", "s1"], 2, 4)
    y_of_x, x_of_y = linker.predict(X), linker.predict_inverse(Y)
    bounds = linker.predict_interval(X, coverage=0.8)
    for row, label in enumerate(["s7", "s1"]):
        left, right = display.axes_[2 * row : 2 * row + 2]
        assert_allclose(line(left, "measured").get_ydata(), Y.loc[label])
        assert_allclose(line(left, "predicted").get_ydata(), y_of_x.loc[label])
        assert_allclose(line(left, "predicted").get_xdata(), Y.columns)
        assert_allclose(line(right, "measured").get_ydata(), X.loc[label])
        assert_allclose(line(right, "predicted").get_ydata(), x_of_y.loc[label])
        assert left.get_ylabel() == label
        found = band(left, "80 % band")
        assert_allclose(
            [found[q] for q in Y.columns[[5, 20]]],
            np.stack([bounds.lower.loc[label], bounds.upper.loc[label]], axis=1)[[5, 20]],
        )
    assert [ax.get_title(loc="left") for ax in display.axes_[:2]] == [
        "UV-Vis from SAXS",
        "SAXS from UV-Vis",
    ]
    xlabels = [ax.get_xlabel() for ax in display.axes_]
    assert xlabels == ["", "", "wavelength, nm", "q, 1/nm"]
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["80 % band", "measured", "predicted"]


def test_the_first_paired_records_are_drawn_and_predicted_alone(linker, frames):
    linker.n_predicted_.clear()
    display = CrossReconstructionDisplay.from_estimator(linker, *frames, max_records=2)
    assert display.records == ["s1", "s3"]
    assert linker.n_predicted_ == [2] * 6  # point, lower and upper, both ways


def test_what_was_not_measured_is_said(linker, frames):
    display = CrossReconstructionDisplay.from_estimator(
        linker, *frames, records=["s0", "s2"], names=("SAXS", "UV-Vis")
    )
    assert [texts(ax) for ax in display.axes_] == [
        ["not measured"],
        ["no UV-Vis to predict from"],
        ["no SAXS to predict from"],
        ["not measured"],
    ]
    assert np.isnan(display.to_x.predicted[0]).all() and np.isnan(display.to_y.truth[0]).all()
    assert_allclose(display.to_y.predicted[0, :, 0], linker.predict(frames[0].loc[["s0"]]).iloc[0])
    assert np.isnan(display.to_y.lower[1]).all()


def test_nothing_to_predict_from_in_any_record(linker, frames):
    display = CrossReconstructionDisplay.from_estimator(linker, *frames, records="s0")
    assert np.isnan(display.to_x.predicted).all() and np.isnan(display.to_x.upper).all()
    display.figure_.canvas.draw()


def test_variables_of_arrays_have_rows_of_their_own():
    x, y = draw_pairs()[2:4]
    x = np.stack([x, x.cumsum(axis=1) / 10, x**2], axis=-1)
    model = LinearLinker().fit(x, y)
    display = CrossReconstructionDisplay.from_estimator(model, x, y, records=[5, 9])
    assert display.n_rows == 4 and display.to_x.variables == ["variable 0", "variable 1"]
    assert [ax.axison for ax in display.axes_] == [True, True, False, True] * 2
    expected = model.predict_inverse(y)
    assert_allclose(line(display.axes_[7], "predicted").get_ydata(), expected[9, :, 1])
    assert_allclose(line(display.axes_[4], "measured").get_ydata(), y[9])
    assert display.axes_[4].get_ylabel() == "record 9"
    one = CrossReconstructionDisplay.from_estimator(
        model, x, y, records=np.array([5]), variables=["variable 2"]
    )
    assert_allclose(one.to_x.truth[0, :, 0], x[5, :, 2])


def test_xarray_records_and_panels_are_drawn():
    xr = pytest.importorskip("xarray")
    q, _, x, y, _ = draw_pairs()
    X = xr.DataArray(x, dims=("record", "q"), coords={"record": np.arange(100, 100 + N), "q": q})
    stamps = pd.date_range("2024-01-01", periods=Y_STEPS, freq="h")
    rows = pd.MultiIndex.from_product([range(100, 100 + N), stamps], names=["sample", "time"])
    Y = pd.DataFrame({"flow": y.ravel(), "level": (y**2).ravel()}, index=rows)
    model = LinearLinker().fit(X, Y)
    display = CrossReconstructionDisplay.from_estimator(model, X, Y, records=[103, 101])
    assert display.records == ["record 103", "record 101"]
    assert display.to_y.variables == ["flow", "level"] and display.to_x.axis_name == "q"
    assert_allclose(display.to_y.predicted[1, :, 1], model.predict(X).loc[101, "level"])
    assert_allclose(display.to_x.predicted[0, :, 0], model.predict_inverse(Y).sel(record=103))
    cloud = PairedLatentDisplay.from_estimator(model, X, Y)
    assert cloud.n_pairs == N
    heat = CrossCorrelationDisplay.from_estimator(model, X, Y)
    assert_allclose(heat.correlation, model.cross_correlation(X, Y))


def test_labels_of_fit_serve_data_without(linker, frames):
    X, Y = frames[0][3:], frames[1][3:]
    display = CrossReconstructionDisplay.from_estimator(linker, X.to_numpy(), Y.to_numpy())
    assert_allclose(display.to_y.axis, Y.columns)
    assert (display.to_y.axis_name, display.to_x.axis_name) == ("wavelength, nm", "q, 1/nm")
    assert display.records == ["record 0", "record 1", "record 2"]


def test_columns_with_names_and_one_target():
    x, y = draw_pairs()[2:4]
    X = pd.DataFrame(x[:, :4], columns=["chins", "sit-ups", "a very long column name", "jumps"])
    model = LinearLinker(1).fit(X, y[:, 20])
    display = CrossReconstructionDisplay.from_estimator(model, X, y[:, 20], max_records=1)
    ticks = [text.get_text() for text in display.axes_[1].get_xticklabels()]
    assert ticks == ["chins", "sit-ups", "a very long…", "jumps"]
    assert_allclose(line(display.ax_, "measured").get_ydata(), y[:1, 20])
    (bar,) = display.ax_.collections
    bounds = model.predict_interval(X)
    assert_allclose(bar.get_segments()[0][:, 1], [bounds.lower[0, 0], bounds.upper[0, 0]])
    series = pd.Series(y[:, 20], name="weight")
    again = CrossReconstructionDisplay.from_estimator(model, X, series, max_records=1)
    assert_allclose(again.to_y.truth, display.to_y.truth)


def test_many_names_of_columns_are_left_out():
    x, y = draw_pairs()[2:4]
    X = pd.DataFrame(x, columns=[f"column {k}" for k in range(X_STEPS)])
    display = CrossReconstructionDisplay.from_estimator(LinearLinker().fit(X, y), X, y)
    assert display.axes_[-1].get_xlabel() == "step"
    assert_allclose(display.to_x.axis, np.arange(X_STEPS))


def test_a_side_modelled_in_logarithms_has_a_logarithmic_axis():
    x, y = draw_pairs()[2:4]
    model = LinearLinker(log_scale=(True, False)).fit(x, y)
    x[3, 4] = 0.0  # has no place on the axis, nor has a bound below zero
    model.predict_interval_inverse = lambda y, coverage: Interval(
        model.predict_inverse(y) - 1.0, model.predict_inverse(y) + 1.0
    )
    display = CrossReconstructionDisplay.from_estimator(model, x, y, records=3)
    left, right = display.axes_
    assert (left.get_yscale(), right.get_yscale()) == ("linear", "log")
    display.figure_.canvas.draw()
    smallest = min(x[3][x[3] > 0].min(), display.to_x.predicted.min())
    assert right.get_ylim()[0] > smallest / 30
    assert display.to_x.lower.min() < 0  # stored as it is


def test_negative_values_have_a_place_on_a_logarithmic_axis():
    truth = np.array([-0.1, 0.0, 0.1, 1.0, 10.0, 100.0])[None, :, None]
    side = CrossPrediction(np.arange(6), truth, np.abs(truth), truth - 1, truth + 1, log_scale=True)
    zero = side._replace(truth=0 * truth, predicted=0 * truth)
    display = CrossReconstructionDisplay(to_y=side, to_x=zero, records=["a"]).plot()
    assert [ax.get_yscale() for ax in display.axes_] == ["symlog", "linear"]
    display.figure_.canvas.draw()
    assert display.ax_.get_ylim()[0] < -1.1
    assert "band" in [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_axes_given_are_used(linker, frames):
    figure, axes = plt.subplots(2, 2)
    display = CrossReconstructionDisplay.from_estimator(linker, *frames, max_records=2, ax=axes)
    assert display.axes_ == list(axes.ravel()) and display.figure_ is figure
    ax = plt.subplots()[1]
    assert display.plot(ax=ax) is display
    assert not ax.axison and len(display.axes_) == 4 and display.ax_.figure is ax.figure
    with pytest.raises(ValueError, match="ax must hold 4 axes, one for each panel; got 3"):
        display.plot(ax=plt.subplots(3)[1])


def test_cross_reconstruction_says_what_is_wrong(linker, frames):
    X, Y = frames
    make = CrossReconstructionDisplay.from_estimator
    with pytest.raises(KeyError, match=r"records='s99' is not one of the 40 records: 's0', "):
        make(linker, X, Y, records="s99")
    with pytest.raises(ValueError, match="records must name one record or more"):
        make(linker, X, Y, records=[])
    with pytest.raises(ValueError, match="max_records must be at least 1; got 0"):
        make(linker, X, Y, max_records=0)
    with pytest.raises(ValueError, match="coverage"):
        make(linker, X, Y, coverage=1.0)
    with pytest.raises(KeyError, match="variables='z' is not one of"):
        make(linker, X, Y, variables=["z"])
    with pytest.raises(ValueError, match=r"names must be two strings.*got 'ab'"):
        make(linker, X, Y, names="ab")
    with pytest.raises(ValueError, match=r"y must be as it was in fit, .*\(50, 1\).*got \(49, 1\)"):
        make(linker, X, Y.iloc[:, 1:], records="s0")
    with pytest.raises(TypeError, match=r"with a method predict_inverse, such as tsvae.PairVAE"):
        make(type("Peer", (), {"predict": lambda self, X: X})(), X, Y)
    with pytest.raises(TypeError, match=r"got the class LinearLinker. .*LinearLinker\(\).fit\(X"):
        make(LinearLinker, X, Y)
    side = CrossPrediction(np.arange(3), np.zeros((1, 3, 1)), np.zeros((1, 3, 1)))
    wrong = side._replace(upper=np.zeros((1, 2, 1)))
    with pytest.raises(ValueError, match=r"to_x.upper must have shape \(1, 3, 1\).*got \(1, 2, 1"):
        CrossReconstructionDisplay(to_y=side, to_x=wrong, records=["a"])


@pytest.mark.parametrize(
    "display", [CrossReconstructionDisplay, PairedLatentDisplay, CrossCorrelationDisplay]
)
def test_records_must_belong_together(display, linker, frames):
    X, Y = frames
    with pytest.raises(ValueError, match=r"X has 40 and y 39. Give a row of NaN on the side"):
        display.from_estimator(linker, X, Y[1:])
    with pytest.raises(ValueError, match=r"row 0 is 's0' in X and 's39' in y.*y.loc\[X.index\]"):
        display.from_estimator(linker, X, Y[::-1])


# paired codes --------------------------------------------------------------------------------


def clouds(display):
    return [c.get_offsets() for c in display.ax_.collections if isinstance(c, PathCollection)]


def segments(display):
    (lines,) = [c for c in display.ax_.collections if isinstance(c, LineCollection)]
    return np.array(lines.get_segments())


def test_pairs_of_two_entries_are_joined(linker, frames):
    display = PairedLatentDisplay.from_estimator(
        linker, *frames, dims=(2, 0), names=("SAXS", "UV-Vis")
    )
    of_x, of_y = (np.asarray(codes)[:, [2, 0]] for codes in linker.transform(*frames))
    paired = [k for k in range(N) if k not in (0, 2)]
    assert display.n_pairs == N - 2
    assert_array_equal(display.pairs, paired)
    assert_allclose(segments(display), np.stack([of_x, of_y], axis=1)[paired])
    drawn_x, drawn_y = clouds(display)
    assert_allclose(np.delete(drawn_x, 2, axis=0), np.delete(of_x, 2, axis=0))
    assert_allclose(np.delete(drawn_y, 0, axis=0), np.delete(of_y, 0, axis=0))
    assert np.isnan(display.x_coordinates[2]).all() and np.isnan(display.y_coordinates[0]).all()
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("z2", "z0")
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["code of SAXS", "code of UV-Vis", "pair (38)"]


def test_principal_components_are_those_of_both_clouds(linker, frames):
    display = PairedLatentDisplay.from_estimator(linker, *frames)
    of_x, of_y = map(np.asarray, linker.transform(*frames))
    both = np.concatenate([np.delete(of_x, 2, axis=0), np.delete(of_y, 0, axis=0)])
    values, vectors = np.linalg.eigh(np.cov(both.T))
    expected = (of_x - both.mean(axis=0)) @ vectors[:, ::-1][:, :2]
    assert_allclose(
        np.abs(np.delete(display.x_coordinates, 2, axis=0)), np.abs(np.delete(expected, 2, axis=0))
    )
    share = values[::-1] / values.sum()
    assert display.ax_.get_xlabel() == f"principal component 1 of the codes ({share[0]:.0%})"
    two = LinearLinker(2).fit(*frames)
    plain = PairedLatentDisplay.from_estimator(two, *frames)
    assert plain.axis_names == ["z0", "z1"]
    assert_allclose(plain.y_coordinates[3], np.asarray(two.transform(*frames)[1])[3])


def test_lines_are_spread_over_the_pairs(linker, frames):
    display = PairedLatentDisplay.from_estimator(linker, *frames, max_pairs=5)
    assert len(display.pairs) == len(segments(display)) == 5
    assert (display.pairs[0], display.pairs[-1]) == (1, N - 1)
    assert [len(cloud) for cloud in clouds(display)] == [N, N]
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend[-1] == "pair (5 of 38)"
    none = PairedLatentDisplay.from_estimator(linker, *frames, max_pairs=0)
    assert len(segments(none)) == 0 and len(none.pairs) == 0


def test_colours_are_categories_and_markers_are_sides(linker, frames):
    shapes = pd.Series(["rod", "sphere", None, "rod"] * 10, name="shape")
    display = PairedLatentDisplay.from_estimator(linker, *frames, labels=shapes)
    points = [c for c in display.ax_.collections if isinstance(c, PathCollection)]
    assert [len(c.get_offsets()) for c in points] == [10, 10, 20, 20, 10, 10]  # none, rod, sphere
    assert_allclose(points[3].get_offsets()[1:], display.y_coordinates[shapes == "rod"][1:])
    assert tuple(points[2].get_facecolor()[0]) == tuple(points[3].get_facecolor()[0])
    assert len(points[2].get_paths()[0].vertices) != len(points[3].get_paths()[0].vertices)
    legends = [a for a in display.ax_.get_children() if isinstance(a, matplotlib.legend.Legend)]
    (colors,) = [a for a in legends if a.get_title().get_text() == "shape"]
    assert [text.get_text() for text in colors.get_texts()] == ["none", "rod", "sphere"]
    assert to_rgba(colors.legend_handles[1].get_color()) == tuple(points[2].get_facecolor()[0])


def test_colours_of_numbers_have_one_scale_for_both_sides(linker, frames):
    radius = draw_pairs()[4]
    radius[4] = np.nan
    display = PairedLatentDisplay.from_estimator(
        linker, *frames, labels=radius, label_name="radius"
    )
    points = [c for c in display.ax_.collections if isinstance(c, PathCollection)]
    assert [c.get_clim() for c in points[1::2]] == [(np.nanmin(radius), np.nanmax(radius))] * 2
    assert_allclose(points[1].get_array(), radius[~np.isnan(radius)])
    assert display.colorbar_.ax.get_ylabel() == "radius" and display.kind == "continuous"


def test_clouds_of_one_shape_have_one_scale_on_both_axes():
    points = np.random.default_rng(0).normal(size=(30, 2))
    for width, aspect in ((1.0, 1.0), (50.0, "auto")):
        wide = points * [width, 1.0]
        display = PairedLatentDisplay(
            x_coordinates=wide, y_coordinates=wide, axis_names=["z0", "z1"]
        )
        assert display.plot().ax_.get_aspect() == aspect


def test_paired_codes_say_what_is_wrong(linker, frames):
    make = PairedLatentDisplay.from_estimator
    with pytest.raises(ValueError, match=r"dims must be two positions from 0 to 2; got \(0, 3\)"):
        make(linker, *frames, dims=(0, 3))
    with pytest.raises(ValueError, match=r"dims must be two different positions; got \(1, 1\)"):
        make(linker, *frames, dims=(1, 1))
    with pytest.raises(ValueError, match="labels must hold one value for each of the 40 records"):
        make(linker, *frames, labels=["a"])
    with pytest.raises(ValueError, match=r"max_pairs must be 0 .* or more; got -1"):
        make(linker, *frames, max_pairs=-1)
    with pytest.raises(TypeError, match=r"max_pairs must be an int; got 2.5"):
        make(linker, *frames, max_pairs=2.5)
    with pytest.raises(ValueError, match="larger latent_dim"):
        make(LinearLinker(1).fit(*frames), *frames)
    with pytest.raises(ValueError, match="two codes or more"):
        make(linker, frames[0][:1], frames[1][:1])
    one_sided = type("Denoiser", (), {"transform": lambda self, X, y=None: np.zeros((N, 3))})()
    with pytest.raises(TypeError, match=r"gives two sets of codes.*that of Denoiser gives ndarray"):
        make(one_sided, *frames)
    with pytest.raises(TypeError, match="needs a fitted linker with a method transform"):
        make(object(), *frames)
    with pytest.raises(ValueError, match=r"must both have shape \(n_records, 2\)"):
        PairedLatentDisplay(
            x_coordinates=np.zeros((2, 2)), y_coordinates=np.zeros((3, 2)), axis_names=["a", "b"]
        )


# cross-correlation ---------------------------------------------------------------------------


def test_the_matrix_is_drawn_and_active_units_are_framed(linker, frames):
    display = CrossCorrelationDisplay.from_estimator(linker, *frames, names=("SAXS", "UV-Vis"))
    expected = linker.cross_correlation(*frames)
    (image,) = display.ax_.images
    assert_allclose(image.get_array(), expected)
    assert image.get_clim() == (-1.0, 1.0)
    assert [patch.get_xy() for patch in display.ax_.patches] == [(-0.5, -0.5), (0.5, 0.5)]
    mean = (expected[0, 0] + expected[1, 1]) / 2
    assert display.diagonal_mean == pytest.approx(mean)
    title = f"mean of the diagonal over 2 active units (framed): {mean:.2f}"
    assert display.ax_.get_title(loc="left") == title
    weights = [label.get_fontweight() for label in display.ax_.get_xticklabels()]
    assert weights == ["bold", "bold", "normal"]
    labels = (display.ax_.get_ylabel(), display.ax_.get_xlabel())
    assert labels == ("code of SAXS", "code of UV-Vis")
    assert texts(display.ax_)[0] == f"{expected[0, 0]:.2f}"
    ax = plt.subplots()[1]
    assert display.plot(ax=ax) is display and display.ax_ is ax


def test_constant_codes_and_no_active_unit():
    matrix = np.array([[0.8, -0.004], [np.nan, np.nan]])
    display = CrossCorrelationDisplay(correlation=matrix)
    assert display.diagonal_mean == pytest.approx(0.8)
    assert texts(display.plot().ax_) == ["0.80", "0.00", "–", "–"]
    none = CrossCorrelationDisplay(correlation=matrix, active=[False, False]).plot()
    assert np.isnan(none.diagonal_mean) and not none.ax_.patches
    assert none.ax_.get_title(loc="left") == "no active unit"


def test_many_units_have_fewer_ticks_and_no_numbers():
    display = CrossCorrelationDisplay(correlation=np.eye(40), active=np.arange(40) < 3).plot()
    ticks = [text.get_text() for text in display.ax_.get_yticklabels()]
    assert ticks == [f"z{k}" for k in range(0, 40, 3)]
    assert not texts(display.ax_) and len(display.ax_.patches) == 3


def test_cross_correlation_says_what_is_wrong(linker, frames):
    X, Y = frames
    with pytest.raises(ValueError, match=r"two records or more that were measured.*got 1"):
        CrossCorrelationDisplay.from_estimator(linker, X[:2], Y[:2])
    with pytest.raises(TypeError, match="needs a fitted linker with a method cross_correlation"):
        CrossCorrelationDisplay.from_estimator(object(), X, Y)
    with pytest.raises(ValueError, match=r"shape \(n_latent, n_latent\); got \(2, 3\)"):
        CrossCorrelationDisplay(correlation=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="one bool for each of the 2 units; got shape"):
        CrossCorrelationDisplay(correlation=np.eye(2), active=[0, 1])
