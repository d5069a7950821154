"""Displays of a denoiser store what it gives, draw it, and say what is wrong."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import kstest, kurtosis, skew
from sklearn.exceptions import NotFittedError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

from tsvae.datasets import make_factor_series  # noqa: E402
from tsvae.denoiser import VAEDenoiser  # noqa: E402
from tsvae.plotting import (  # noqa: E402
    InterpolationDisplay,
    LatentNormalityDisplay,
    LatentScatterDisplay,
    LatentTraversalDisplay,
    ReconstructionDisplay,
    TrainingDisplay,
)

N_STEPS = 40
SMALL = {
    "latent_dim": 3,
    "architecture": "mlp",
    "latent": "vector",
    "hidden_sizes": (16,),
    "max_epochs": 4,
    "random_state": 0,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def data():
    return make_factor_series(60, N_STEPS, random_state=0)


@pytest.fixture(scope="module")
def frame(data):
    """Records with labels, wavelengths as columns, and a gap in each of the first rows."""
    columns = pd.Index(np.linspace(400.0, 790.0, N_STEPS), name="nm")
    table = pd.DataFrame(data.series[..., 0], columns=columns, index=[f"s{i}" for i in range(60)])
    for row in range(5):
        table.iloc[row, 10 + row : 14 + row] = np.nan
    return table


def quiet():
    """Short fits are in poor health, and say so."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def fit(X, **params):
    with quiet():
        return VAEDenoiser(**(SMALL | params)).fit(X)


@pytest.fixture(scope="module")
def denoiser(frame):
    return fit(frame)


@pytest.fixture(scope="module")
def autoencoder(data):
    two = np.concatenate([data.series, data.series.cumsum(axis=1) / 5], axis=-1)
    return fit(two, model="ae"), two


def line(ax, label):
    (found,) = [artist for artist in ax.lines if artist.get_label() == label]
    return found


# reconstruction ------------------------------------------------------------------------------


def test_a_denoised_signal_is_drawn_beside_the_clean_one_gaps_shaded(denoiser, frame, data):
    clean = pd.DataFrame(data.clean[..., 0], index=frame.index, columns=frame.columns)
    display = ReconstructionDisplay.from_estimator(
        denoiser, frame, clean=clean, series=["s3", "s0"], n_draws=40, coverage=0.8
    )
    assert isinstance(display, ReconstructionDisplay)
    denoised = denoiser.reconstruct(frame)
    for panel, row in zip(display.axes_, ("s3", "s0"), strict=True):
        assert panel.get_ylabel() == row
        assert_allclose(line(panel, "observed").get_ydata(), frame.loc[row])
        assert_allclose(line(panel, "denoised").get_ydata(), denoised.loc[row])
        assert_allclose(line(panel, "clean").get_ydata(), clean.loc[row])
        assert_allclose(line(panel, "denoised").get_xdata(), frame.columns)
    draws = denoiser.augment(frame, 40).xs("s3", level=1)
    bounds = np.quantile(draws, [0.1, 0.9], axis=0)
    assert_allclose(display.lower[:, 0], bounds[0])
    assert_allclose(display.upper[:, 0], bounds[1])
    (gap,) = [a for a in display.ax_.collections if a.get_label() == "gap"]
    box = gap.get_paths()[0].get_extents()
    assert_allclose([box.x0, box.x1], [frame.columns[13] - 5, frame.columns[16] + 5])
    assert display.axes_[-1].get_xlabel() == "nm"
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["gap", "observed", "80 % of draws", "clean", "denoised"]


def test_records_of_an_array_and_variables_are_panels(autoencoder):
    model, X = autoencoder
    display = ReconstructionDisplay.from_estimator(model, X[:4], max_series=2)
    assert display.names == [f"record {i}, variable {k}" for i in (0, 1) for k in (0, 1)]
    expected = model.reconstruct(X[:4])
    assert_allclose(display.filled, np.concatenate([expected[0], expected[1]], axis=1))
    assert display.lower is None and display.clean is None
    one = ReconstructionDisplay.from_estimator(model, X, series=7, variables=["variable 1"])
    assert_allclose(one.filled[:, 0], model.reconstruct(X)[7, :, 1])
    axes = plt.subplots(2, 1)[1]
    again = ReconstructionDisplay.from_estimator(model, X[:1], ax=axes)
    assert again.axes_ == list(axes)


def test_windows_of_a_long_signal_have_its_stamps(data):
    stamps = pd.date_range("2024-01-01", periods=600, freq="h", name="time")
    values = np.random.default_rng(0).normal(size=(600, 2)) + np.sin(np.arange(600) / 5)[:, None]
    long = pd.DataFrame(values, index=stamps, columns=["flow", "level"])
    long.iloc[30:40, 0] = np.nan
    model = fit(long, window=48, max_epochs=1)
    display = ReconstructionDisplay.from_estimator(model, long, n_draws=2)
    assert display.names == ["flow", "level"]
    assert (display.times == stamps.to_numpy()).all()
    assert_allclose(display.filled, model.reconstruct(long))
    way = InterpolationDisplay.from_estimator(model, long[100:148], long[200:248], n_records=3)
    assert way.names == ["flow", "level"]
    assert way.records.shape == (3, 48, 2)
    cloud = LatentScatterDisplay.from_estimator(
        model, long, labels=np.arange(len(model.encode(long)))
    )
    assert len(cloud.coordinates) == len(model.encode(long))


def test_xarray_records_are_drawn(data):
    xr = pytest.importorskip("xarray")
    X = xr.DataArray(
        data.series[:, :, 0],
        dims=("record", "q"),
        coords={"record": np.arange(100, 160), "q": np.linspace(0, 1, N_STEPS)},
    )
    model = fit(X, max_epochs=1)
    display = ReconstructionDisplay.from_estimator(model, X, series=[103], n_draws=3)
    assert display.axis_name == "q" and display.names == ["record 103"]
    assert_allclose(display.filled[:, 0], model.reconstruct(X).sel(record=103))
    draws = model.augment(X, 3)
    expected = np.quantile(draws.isel({draws.dims[0]: slice(None)}).sel(record=103), 0.05, axis=0)
    assert_allclose(display.lower[:, 0], expected)


def test_reconstruction_says_what_is_wrong(denoiser, frame):
    make = ReconstructionDisplay.from_estimator
    with pytest.raises(KeyError, match=r"series='s99' is not one of the 60 records: 's0', "):
        make(denoiser, frame, series="s99")
    with pytest.raises(ValueError, match=r"clean must have the shape of X, \(60, 40, 1\)"):
        make(denoiser, frame, clean=frame[:50])
    with pytest.raises(ValueError, match="max_series must be at least 1"):
        make(denoiser, frame, max_series=0)
    with pytest.raises(NotFittedError):
        make(VAEDenoiser(), frame)

    class Imputer:
        def impute(self, X):
            return X

    with pytest.raises(TypeError, match="for estimators with a method reconstruct, which Imputer"):
        make(Imputer(), frame, clean=frame)


# interpolation -------------------------------------------------------------------------------


def test_the_way_between_two_records_is_drawn(denoiser, frame):
    a, b = frame.iloc[[7]], frame.iloc[[9]]
    display = InterpolationDisplay.from_estimator(denoiser, a, b, n_records=5, spherical=True)
    expected = denoiser.interpolate(a, b, 5, spherical=True)
    assert_allclose(display.records[:, :, 0], expected)
    assert len(display.ax_.lines) == 5
    for drawn, record in zip(display.ax_.lines, expected.to_numpy(), strict=True):
        assert_allclose(np.diff(drawn.get_ydata()), np.diff(record))
        assert_allclose(drawn.get_xdata(), frame.columns)
    ticks = [text.get_text() for text in display.ax_.get_yticklabels()]
    assert ticks == ["0", "0.25", "0.5", "0.75", "1"]
    assert display.ax_.get_xlabel() == "nm"
    ax = plt.subplots()[1]
    display.plot(ax=ax, offset=0.0)
    assert display.ax_ is ax
    assert_allclose(ax.lines[-1].get_ydata(), expected.iloc[-1])


def test_interpolation_says_what_is_wrong(denoiser, frame):
    with pytest.raises(ValueError, match="records must have shape"):
        InterpolationDisplay(axis=np.arange(3), records=np.zeros((2, 3)), names=[""])
    with pytest.raises(ValueError, match="one record on each side, got 2"):
        InterpolationDisplay.from_estimator(denoiser, frame[:2], frame[2:3])
    with pytest.raises(NotFittedError):
        InterpolationDisplay.from_estimator(VAEDenoiser(), frame[:1], frame[1:2])


# scatter -------------------------------------------------------------------------------------


def test_principal_components_of_the_codes(denoiser, frame, data):
    display = LatentScatterDisplay.from_estimator(denoiser, frame, labels=data.factors["level"])
    codes = denoiser.encode(frame).to_numpy()
    centred = codes - codes.mean(axis=0)
    variances = np.sort(np.linalg.eigvalsh(np.cov(centred.T)))[::-1]
    assert_allclose(display.coordinates.var(axis=0, ddof=1), variances[:2])
    assert display.ax_.get_xlabel() == (
        f"principal component 1 of the codes ({variances[0] / variances.sum():.0%})"
    )
    points = display.ax_.collections[0]
    assert_allclose(points.get_offsets(), display.coordinates)
    assert_allclose(points.get_array(), data.factors["level"])
    assert display.kind == "continuous" and display.colorbar_.ax.get_ylabel() == "level"


def test_entries_coloured_by_categories(denoiser, frame):
    labels = np.array(["a", "b", None] * 20, dtype=object)
    display = LatentScatterDisplay.from_estimator(
        denoiser, frame, labels=labels, entries=(2, 0), label_name="kind"
    )
    codes = denoiser.encode(frame).to_numpy()
    assert_allclose(display.coordinates, codes[:, [2, 0]])
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("z2", "z0")
    drawn = {c.get_label(): c.get_offsets() for c in display.ax_.collections}
    assert list(drawn) == ["a", "b", "none"]
    assert_allclose(drawn["b"], codes[1::3][:, [2, 0]])
    assert display.ax_.get_legend().get_title().get_text() == "kind"
    assert display.colorbar_ is None


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([0, 1, 2, 0], "categorical"),
        ([0.0, 1.0, np.nan, 0.0], "categorical"),
        ([0.5, 1.0, np.nan, 0.0], "continuous"),
        ([True, False, True, True], "categorical"),
        (list(pd.Categorical(["x", "y", "x", "y"])), "categorical"),
        (pd.Series([1, 2, None, 3], dtype="Int64"), "categorical"),
        (pd.date_range("2024", periods=4), "categorical"),
    ],
)
def test_kinds_of_labels(labels, kind):
    names = ["z0", "z1"]
    display = LatentScatterDisplay(coordinates=np.eye(4)[:, :2], axis_names=names, labels=labels)
    assert display.kind == kind
    assert sum(len(c.get_offsets()) for c in display.plot().ax_.collections) == 4


def test_many_categories_get_colours_of_their_own():
    labels = [f"kind {k}" for k in range(12)]
    display = LatentScatterDisplay(
        coordinates=np.random.default_rng(0).normal(size=(12, 2)),
        axis_names=["z0", "z1"],
        labels=labels,
    ).plot()
    colors = {tuple(c.get_facecolor()[0]) for c in display.ax_.collections}
    assert len(colors) == 12


def test_scatter_says_what_is_wrong(denoiser, frame, data):
    make = LatentScatterDisplay.from_estimator
    with pytest.raises(ValueError, match="one value for each of the 60 records; got shape"):
        make(denoiser, frame, labels=[1, 2])
    with pytest.raises(
        ValueError, match=r"entries must be two positions from 0 to 2; got \(0, 3\)"
    ):
        make(denoiser, frame, entries=(0, 3))
    with pytest.raises(ValueError, match="needs labels that are numbers"):
        make(denoiser, frame, labels=["a"] * 60, kind="continuous")
    with pytest.raises(ValueError, match="kind must be"):
        make(denoiser, frame, kind="other")
    with pytest.raises(ValueError, match="need two records or more"):
        make(denoiser, frame[:1])
    with pytest.raises(ValueError, match="larger latent_dim"):
        make(fit(frame, latent_dim=1, max_epochs=1), frame)
    with pytest.raises(NotFittedError):
        make(VAEDenoiser(), frame)


# traversal -----------------------------------------------------------------------------------


def test_one_entry_moves_and_the_others_stay(denoiser, frame):
    display = LatentTraversalDisplay.from_estimator(
        denoiser, frame[:1], n_entries=2, limits=(-2, 2), n_values=5
    )
    kl = denoiser.kl_per_dimension_
    order = np.argsort(-kl)[:2]
    assert display.entries.tolist() == order.tolist()
    assert_allclose(display.values, np.tile([-2, -1, 0, 1, 2], (2, 1)))
    for row, entry in enumerate(order):
        codes = np.repeat(denoiser.encode(frame[:1]).to_numpy(), 5, axis=0)
        codes[:, entry] = [-2, -1, 0, 1, 2]
        expected = denoiser.decode(codes).to_numpy()
        assert_allclose(display.records[row, :, :, 0], expected)
        for drawn, record in zip(display.axes_[row].lines, expected, strict=True):
            assert_allclose(drawn.get_ydata(), record)
        assert display.axes_[row].get_ylabel() == f"z{entry}\n{kl[entry]:.2f} nats"
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["-2", "-1", "0", "1", "2"]


def test_without_a_prior_entries_move_as_the_codes_do(autoencoder):
    model, X = autoencoder
    display = LatentTraversalDisplay.from_estimator(
        model, X, n_entries=2, variables=["variable 1"], limits=(-1, 1), n_values=3
    )
    codes = model.encode(X)
    order = np.argsort(-codes.std(axis=0))[:2]
    assert display.entries.tolist() == order.tolist()
    centre, size = codes.mean(axis=0)[order], codes.std(axis=0)[order]
    assert_allclose(display.values, centre[:, None] + size[:, None] * [-1, 0, 1])
    moved = np.tile(codes.mean(axis=0), (3, 1))
    moved[:, order[1]] = display.values[1]
    assert_allclose(display.records[1, :, :, 0], model.decode(moved)[..., 1])
    assert display.kl is None and display.axes_[0].get_ylabel() == f"z{order[0]}\nvariable 1"


def test_conditions_of_a_traversal_are_those_of_the_first_record(frame):
    condition = pd.DataFrame({"site": ["a", "b"] * 30}, index=frame.index)
    with quiet():
        model = VAEDenoiser(**(SMALL | {"model": "conditional", "max_epochs": 1}))
        model.fit(frame, condition=condition)
    display = LatentTraversalDisplay.from_estimator(
        model, frame, condition=condition, entries=[0], unit="codes", n_values=2
    )
    codes = np.tile(model.encode(frame, condition=condition).to_numpy().mean(axis=0), (2, 1))
    codes[:, 0] = display.values[0]
    expected = model.decode(codes, condition=condition.iloc[[0, 0]])
    assert_allclose(display.records[0, :, :, 0], expected)
    way = InterpolationDisplay.from_estimator(
        model, frame[:1], frame[1:2], n_records=2, condition=condition[1:2]
    )
    given = {"condition": condition[1:2]}
    assert_allclose(way.records[..., 0], model.interpolate(frame[:1], frame[1:2], 2, **given))


def test_traversal_says_what_is_wrong(denoiser, autoencoder, frame):
    make = LatentTraversalDisplay.from_estimator
    for options, words in (
        ({"entries": [3]}, "entries must be positions from 0 to 2; got 3"),
        ({"n_entries": 0}, "n_entries must be at least 1"),
        ({"limits": (3, -3)}, r"limits must be two finite numbers \(low, high\)"),
        ({"n_values": 1}, "n_values must be at least 2"),
        ({"unit": "other"}, "unit must be"),
        ({"unit": "codes"}, "give several different records"),
    ):
        with pytest.raises(ValueError, match=words):
            make(denoiser, frame[:1], **options)
    with pytest.raises(KeyError, match="variables='z' is not one of"):
        make(autoencoder[0], autoencoder[1], variables=["z"])
    with pytest.raises(ValueError, match="must have shape"):
        LatentTraversalDisplay(
            axis=np.arange(4), records=np.zeros((1, 3, 4, 1)), entries=[0], values=np.zeros((1, 2))
        )
    with pytest.raises(NotFittedError):
        make(VAEDenoiser(), frame)


# normality -----------------------------------------------------------------------------------


def test_the_summary_compares_with_a_standard_normal():
    codes = np.random.default_rng(0).gamma(2.0, size=(500, 2))
    summary = LatentNormalityDisplay(codes=codes, entries=[4, 1]).summary
    assert_allclose(summary.mean, codes.mean(axis=0))
    assert_allclose(summary.standard_deviation, codes.std(axis=0))
    assert_allclose(summary.skewness, skew(codes))
    assert_allclose(summary.excess_kurtosis, kurtosis(codes))
    assert_allclose(summary.distance, [kstest(column, "norm").statistic for column in codes.T])


def test_draws_from_the_aggregated_posterior_are_shown(denoiser, frame):
    display = LatentNormalityDisplay.from_estimator(denoiser, frame, n_entries=2, n_draws=3)
    order = np.argsort(-denoiser.kl_per_dimension_)[:2]
    draws = denoiser.sample_codes(frame, 3).reshape(-1, 3)
    assert_allclose(display.codes, draws[:, order])
    assert display.entries.tolist() == order.tolist()
    summary = display.summary
    assert display.ax_.get_title(loc="left") == (
        f"z{order[0]}: mean {summary.mean[0]:.2f}, sd {summary.standard_deviation[0]:.2f}, "
        f"KS {summary.distance[0]:.2f}"
    )
    heights = [bar.get_height() * bar.get_width() for bar in display.ax_.patches]
    assert sum(heights) == pytest.approx(1.0)
    assert display.ax_.get_xlabel() == "value" and display.ax_.get_ylabel() == "density"
    figure, ax = plt.subplots()
    display.plot(ax=ax, kind="qq")
    assert display.figure_ is figure and not ax.axison and len(display.axes_) == 2
    levels = (np.arange(180) + 0.5) / 180
    assert_allclose(
        line(display.ax_, "codes").get_ydata(), np.quantile(display.codes[:, 0], levels)
    )


def test_draws_of_codes_are_those_of_the_posterior(denoiser, frame):
    draws = denoiser.sample_codes(frame[:20], 400)
    mean = denoiser.encode(frame[:20]).to_numpy()
    spread = draws.std(axis=0)
    assert draws.shape == (400, 20, 3)
    assert (np.abs(draws.mean(axis=0) - mean) < 5 * spread / 20).all()
    assert (spread > 0).all()
    assert_allclose(denoiser.sample_codes(frame[:20], 400), draws)
    other = denoiser.sample_codes(frame[:20], 400, random_state=1)
    assert not np.allclose(other, draws)
    # KL of q(z | x) from the prior, by the moments of the draws, against the closed form of fit.
    kl = 0.5 * (mean**2 + spread**2 - 1 - 2 * np.log(spread)).mean(axis=0)
    assert_allclose(kl, denoiser.kl_per_dimension_, rtol=0.35, atol=0.05)


def test_normality_says_what_is_wrong(denoiser, frame):
    make = LatentNormalityDisplay.from_estimator
    with pytest.raises(ValueError, match="kind must be 'histogram' or 'qq'; got 'kde'"):
        make(denoiser, frame, kind="kde")
    with pytest.raises(ValueError, match="entries must be positions from 0 to 2; got -1"):
        make(denoiser, frame, entries=[-1])
    with pytest.raises(ValueError, match=r"codes must have shape \(n_draws, 1\)"):
        LatentNormalityDisplay(codes=np.zeros((1, 1)), entries=[0])
    with pytest.raises(NotFittedError):
        make(VAEDenoiser(), frame)


# training ------------------------------------------------------------------------------------


def test_the_log_of_a_denoiser_shows_rate_distortion_and_active_units(denoiser):
    display = TrainingDisplay.from_estimator(denoiser)
    labels = [ax.get_ylabel() for ax in display.axes_]
    assert labels == [
        "objective",
        "distortion, nats",
        "rate, nats",
        "active units",
        "learning rate",
        "beta",
    ]
    log = denoiser.training_log_
    assert_allclose(display.axes_[1].lines[0].get_ydata(), log["distortion"])
    assert_allclose(display.axes_[2].lines[0].get_ydata(), log["rate"])
    assert_allclose(display.axes_[3].lines[0].get_ydata(), log["active_units"])


def test_epochs_have_whole_numbers():
    display = TrainingDisplay({"objective": [3.0, 2.0, 1.5]}).plot()
    display.figure_.canvas.draw()
    ticks = display.ax_.get_xticks()
    assert_allclose(ticks, np.round(ticks))
