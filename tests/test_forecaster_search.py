# ruff: noqa: NPY002 -- the global generators are what is tested
"""SVAEForecaster among scikit-learn's tools and xarray's containers."""

from __future__ import annotations

import copy
import io
import pickle
import random
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    TimeSeriesSplit,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tsvae import SVAEForecaster
from tsvae.metrics import (
    crps_from_quantiles,
    crps_from_samples,
    make_forecast_scorer,
    mean_absolute_error,
)
from tsvae.model_selection import RollingOriginSplit

pytestmark = pytest.mark.usefixtures("short_epochs")

FAST = {
    "horizon": 3,
    "context_length": 16,
    "latent_dim": 4,
    "max_epochs": 1,
    "batch_size": 4,
    "n_origins": 1,
    "n_samples": 20,
    "elbo_weight": 0.0,
    "point_estimate": True,
    "group_size": None,
    "random_state": 0,
}
N = 60


def small(**settings):
    return SVAEForecaster(**FAST | settings)


def make_table(n_rows=N, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(n_rows)
    values = 10.0 + np.sin(2 * np.pi * t / 12)[:, None] + 0.1 * rng.standard_normal((n_rows, 2))
    values[5:9, 1] = np.nan
    index = pd.date_range("2024-01-01", periods=n_rows, freq="D", name="day")
    return pd.DataFrame(values, index=index, columns=["load", "wind"])


TABLE = make_table()
PANEL = pd.concat({"x": TABLE, "y": TABLE[:50] + 1.0}, names=["site"])
STACK = np.stack([make_table(30, seed).to_numpy() + seed for seed in range(4)])
X, Y = TABLE[["load"]], TABLE["wind"].interpolate()
SPLIT = RollingOriginSplit(2, horizon=3)
GRID = {"latent_dim": [2, 4]}


def later(table, n_rows=N):
    return table.shift(n_rows, freq="D")


def search(data, cv, settings=None, **options):
    options = {"error_score": "raise", **options}
    return GridSearchCV(small(**settings or {}), GRID, cv=cv, **options).fit(data)


# -- searches ---------------------------------------------------------------------------------


@pytest.mark.slow  # two worker processes have to start
@pytest.mark.parametrize("data", [TABLE, PANEL], ids=["frame", "panel"])
def test_search_over_origins_is_the_same_in_two_processes(data, full_epochs):
    one, two = search(data, SPLIT), search(data, SPLIT, n_jobs=2)
    scores = one.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and (scores < 0).all()
    np.testing.assert_array_equal(scores, two.cv_results_["mean_test_score"])
    assert one.best_params_ == two.best_params_
    ahead, again = one.best_estimator_.predict(), two.best_estimator_.predict()
    pd.testing.assert_frame_equal(ahead, again, check_exact=True)
    assert one.best_estimator_.predict_interval().shape[0] == 3 * (1 if data is TABLE else 2)


@pytest.mark.slow
def test_fits_in_two_processes_give_the_same_forecasts(full_epochs):
    options = {"cv": SPLIT, "return_estimator": True, "error_score": "raise"}
    one = cross_validate(small(), TABLE, **options)["estimator"]
    two = cross_validate(small(), TABLE, n_jobs=2, **options)["estimator"]
    for first, second in zip(one, two, strict=True):
        pd.testing.assert_frame_equal(first.predict(), second.predict(), check_exact=True)
        pd.testing.assert_frame_equal(first.sample(2), second.sample(2), check_exact=True)


def test_search_over_series_of_an_array():
    found = search(STACK, KFold(2))
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    assert found.best_estimator_.predict().shape == (4, 3, 2)
    assert found.predict(STACK[:1]).shape == (1, 3, 2)


def test_search_over_series_of_a_dataarray():
    xr = pytest.importorskip("xarray")
    stamps = pd.date_range("2024-01-01", periods=30, freq="h")
    sites = list("abcd")
    coords = {"site": sites, "time": stamps, "variable": ["load", "wind"]}
    data = xr.DataArray(STACK, dims=list(coords), coords=coords, attrs={"units": "MW"})
    found = search(data, KFold(2), {"series": "site"})
    ahead = found.best_estimator_.predict()
    assert ahead.dims == data.dims and ahead.attrs == data.attrs
    assert list(ahead.site.values) == sites
    assert ahead.time.values[0] == np.datetime64("2024-01-02T06:00")
    assert found.cv_results_["mean_test_score"].shape == (2,)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("metric", "data", "cv"),
    [
        (crps_from_quantiles, TABLE, SPLIT),
        (mean_absolute_error, PANEL, SPLIT),
        (crps_from_samples, STACK, KFold(2)),
    ],
    ids=["frame", "panel", "stack"],
)
def test_search_by_a_forecast_metric(metric, data, cv):
    scorer = make_forecast_scorer(metric, n_samples=10)
    found = search(data, cv, scoring=scorer)
    scores = found.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and (scores < 0).all()
    assert found.best_params_["latent_dim"] == GRID["latent_dim"][int(np.argmax(scores))]


def test_a_scorer_measures_the_forecast_of_the_test_rows():
    scorer = make_forecast_scorer(mean_absolute_error)
    estimator = small().fit(TABLE[:50])
    expected = np.abs(estimator.predict() - TABLE[50:53]).to_numpy().mean()
    assert scorer(estimator, TABLE[50:53]) == pytest.approx(-expected)


# -- copies, seeds, side effects --------------------------------------------------------------


def dump_and_load(estimator):
    stream = io.BytesIO()
    joblib.dump(estimator, stream)
    stream.seek(0)
    return joblib.load(stream)


COPIES = {
    "pickle": lambda f: pickle.loads(pickle.dumps(f)),
    "joblib": dump_and_load,
    "deepcopy": copy.deepcopy,
    "clone and fit": lambda f: clone(f).fit(TABLE),
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copies_are_bit_identical(duplicate):
    estimator = small().fit(TABLE)
    twin = duplicate(estimator)
    assert twin.get_params() == estimator.get_params()
    for call in (
        lambda f: f.predict(horizon=7),
        lambda f: f.predict_quantiles(),
        lambda f: f.sample(3),
        lambda f: f.transform(TABLE),
        lambda f: f.score_samples(TABLE).to_frame(),
    ):
        pd.testing.assert_frame_equal(call(twin), call(estimator), check_exact=True)


def global_states():
    kind, keys, *rest = np.random.get_state()
    torch_state = torch.random.get_rng_state()
    return (random.getstate(), (kind, keys.tolist(), rest), torch_state.tolist())


@pytest.mark.parametrize("likelihood", ["normal", "student_t"])
def test_nothing_global_is_touched(likelihood, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = global_states()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            estimator = small(likelihood=likelihood, group_size=2, point_estimate=False)
            estimator.fit(TABLE)
            estimator.predict_interval()
            estimator.sample(2)
            estimator.impute_quantiles(TABLE)
            estimator.score(TABLE)
        assert global_states() == before
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_global_seeds_do_not_matter():
    forecasts = []
    for seed in (0, 1):
        with isolated_seeds(seed):
            forecasts.append(small(likelihood="laplace").fit(TABLE).predict_quantiles())
    pd.testing.assert_frame_equal(*forecasts, check_exact=True)


class isolated_seeds:
    """Seed the global generators, and restore them."""

    def __init__(self, seed):
        self.seed = seed

    def __enter__(self):
        self.saved = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)

    def __exit__(self, *details):
        random.setstate(self.saved[0])
        np.random.set_state(self.saved[1])
        torch.random.set_rng_state(self.saved[2])


# -- the fit(X, y) form -----------------------------------------------------------------------


@pytest.mark.parametrize("convert", [lambda d: d, lambda d: d.to_numpy()], ids=["frame", "array"])
def test_cross_val_score_over_time(convert):
    options = {"cv": TimeSeriesSplit(3), "error_score": "raise"}
    data = convert(X), convert(Y)
    scores = cross_val_score(small(), *data, scoring="neg_mean_absolute_error", **options)
    assert scores.shape == (3,) and (scores < 0).all() and (scores > -1.0).all()
    r2 = cross_val_score(small(), *data, **options)
    assert (r2 <= 1.0).all()


def test_transformed_target():
    plain = TransformedTargetRegressor(small(), func=np.log, inverse_func=np.exp)
    expected = small().fit(X, np.log(Y)).predict(later(X)[:4])
    found = plain.fit(X, Y).predict(later(X)[:4])
    np.testing.assert_allclose(found, np.exp(expected), rtol=1e-6)
    scaled = TransformedTargetRegressor(small(), transformer=StandardScaler())
    found = scaled.fit(X.to_numpy(), Y.to_numpy()).predict(X.to_numpy()[:4])
    assert found.shape == (4,) and np.abs(found - 10.0).max() < 3.0


def mixed():
    """Covariates with a column of text, and what makes numbers of them."""
    table = X.assign(kind=np.where(np.arange(N) % 7 < 5, "work", "rest"))
    columns = ColumnTransformer(
        [("number", StandardScaler(), ["load"]), ("text", OneHotEncoder(), ["kind"])],
        sparse_threshold=0.0,
    )
    return table, columns


def test_pipeline_with_a_column_transformer():
    table, columns = mixed()
    pipeline = make_pipeline(columns, small())
    found = pipeline.fit(table, Y).predict(later(table)[:4])
    assert isinstance(found, pd.Series) and len(found) == 4
    numbers = columns.fit(table).transform
    expected = small().fit(numbers(table), Y).predict(numbers(table[:4]))
    np.testing.assert_array_equal(found, expected)
    scores = cross_val_score(
        pipeline,
        table,
        Y,
        cv=TimeSeriesSplit(3),
        scoring="neg_mean_absolute_error",
        error_score="raise",
    )
    assert (scores > -1.0).all()


def test_pipeline_that_keeps_frames():
    table, columns = mixed()
    columns.set_params(text=OneHotEncoder(sparse_output=False))
    pipeline = make_pipeline(columns, small()).set_output(transform="pandas")
    found = pipeline.fit(table, Y).predict(later(table)[:4])
    assert found.index.equals(later(table).index[:4]) and found.name == "wind"
    inside = pipeline.predict(table[10:14])
    assert inside.index.equals(table.index[10:14])


def test_set_output():
    latent = (
        small().set_output(transform="pandas").fit(TABLE.to_numpy()).transform(TABLE.to_numpy())
    )
    assert isinstance(latent, pd.DataFrame) and latent.shape == (N, 8)
    assert latent.columns[0] == "0_z0"


def test_scaler_in_front_of_fit_df():
    table = TABLE.to_numpy()
    pipeline = make_pipeline(StandardScaler(), small()).fit(table)
    scaled = StandardScaler().fit_transform(table)
    np.testing.assert_array_equal(pipeline.predict(table), small().fit(scaled).predict(scaled))


# -- metadata routing of the mask -------------------------------------------------------------


def routed():
    return small().set_fit_request(mask=True).set_score_request(mask=True)


def test_mask_is_routed():
    full, mask = TABLE.fillna(99.0), TABLE.notna()
    with sklearn.config_context(enable_metadata_routing=True):
        options = {"cv": SPLIT, "error_score": "raise"}
        pipeline = Pipeline([("forecast", routed())])
        found = cross_validate(pipeline, full, params={"mask": mask}, **options)["test_score"]
        plain = cross_validate(small(), TABLE, **options)["test_score"]
        np.testing.assert_array_equal(found, plain)
        searched = GridSearchCV(routed(), GRID, **options).fit(full, mask=mask)
    expected = search(TABLE, SPLIT).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(searched.cv_results_["mean_test_score"], expected)


def test_mask_of_y_is_routed():
    y = TABLE[["wind"]]
    with sklearn.config_context(enable_metadata_routing=True):
        options = {"cv": TimeSeriesSplit(2), "error_score": "raise"}
        pipeline = make_pipeline(StandardScaler(), routed())
        params = {"mask": y.notna()}
        found = cross_validate(pipeline, X, y.fillna(99.0), params=params, **options)
        plain = cross_validate(make_pipeline(StandardScaler(), small()), X, y, **options)
    np.testing.assert_array_equal(found["test_score"], plain["test_score"])


def test_mask_that_nobody_asked_for():
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="mask"),
    ):
        GridSearchCV(small(), GRID, cv=SPLIT).fit(TABLE, mask=TABLE.notna())


# -- scores -----------------------------------------------------------------------------------


def crps(estimator, history, truth):
    """CRPS of the forecasts of `truth` after `history`, per entry, by pinball losses."""
    levels = (np.arange(2000) + 0.5) / 2000
    found = estimator.predict_quantiles(history, quantiles=levels, horizon=len(truth)).to_numpy()
    gap = truth.to_numpy()[..., None] - found.reshape(*truth.shape, len(levels))
    return 2.0 * np.maximum(levels * gap, (levels - 1.0) * gap).mean(-1)


def test_score_of_rows_that_continue_the_training_data():
    train, test = TABLE[:50], TABLE[50:56]
    estimator = small().fit(train)
    spread = train.std(ddof=0).to_numpy()
    parts = [crps(estimator, TABLE[:end], TABLE[end : end + 3]) for end in (50, 53)]
    expected = -np.mean(np.concatenate(parts) / spread)
    assert estimator.score(test) == pytest.approx(expected, rel=1e-4)


def test_score_of_another_series():
    train = TABLE[20:]
    estimator = small().fit(train)
    other = make_table(19, seed=5).interpolate().shift(-999, freq="D")
    spread = train.std(ddof=0).to_numpy()
    parts = [crps(estimator, other[:end], other[end : end + 3]) for end in (16, 13, 10, 7, 4)]
    expected = -np.mean(np.concatenate(parts) / spread)
    assert estimator.score(other) == pytest.approx(expected, rel=1e-4)


def test_rows_without_observed_values_change_no_score():
    estimator = small().fit(TABLE[:50])
    test = TABLE[50:56].copy()
    test.iloc[4:] = np.nan
    assert estimator.score(test) == pytest.approx(estimator.score(TABLE[50:54]), rel=1e-6)


def test_score_of_fit_xy_is_r2():
    estimator = small().fit(X, Y)
    found = estimator.score(X[:40], Y[:40])
    residual = Y[:40] - estimator.predict(X[:40])
    expected = 1 - (residual**2).sum() / ((Y[:40] - Y[:40].mean()) ** 2).sum()
    assert found == pytest.approx(expected)
    weight = np.arange(40.0)
    mean = np.average(Y[:40], weights=weight)
    expected = 1 - (weight * residual**2).sum() / (weight * (Y[:40] - mean) ** 2).sum()
    assert estimator.score(X[:40], Y[:40], sample_weight=weight) == pytest.approx(expected)


def test_density_of_rows_that_continue_knows_the_training_rows():
    estimator = small().fit(TABLE[:50])
    after = estimator.score_samples(TABLE[50:])
    assert after.index.equals(TABLE.index[50:]) and np.isfinite(after).all()
    kept = FAST["context_length"]
    together = estimator.score_samples(TABLE[50 - kept :])[kept:]
    np.testing.assert_allclose(after, together, rtol=1e-5, atol=1e-5)
    alone = estimator.score_samples(TABLE[50:].shift(999, freq="D"))
    assert not np.allclose(after, alone, atol=0.1)


def test_density_beside_covariates_that_continue_knows_the_training_rows():
    estimator = small().fit(X[:50], Y[:50])
    after = estimator.score_samples(X[50:], Y[50:])
    assert after.index.equals(TABLE.index[50:]) and np.isfinite(after).all()
    together = estimator.score_samples(X, Y)[50:]
    np.testing.assert_allclose(after, together, rtol=1e-5, atol=1e-5)
    moved = TABLE.index[50:].shift(999, freq="D")
    alone = estimator.score_samples(X[50:].set_axis(moved), Y[50:].set_axis(moved))
    assert not np.allclose(after, alone, atol=0.1)


# -- histories --------------------------------------------------------------------------------


def test_update_is_a_longer_history():
    estimator = small().fit(TABLE[:50])
    for extra in (TABLE[50:51], TABLE[51:60]):
        estimator.update(extra)
    expected = small().fit(TABLE[:50]).predict(TABLE)
    pd.testing.assert_frame_equal(estimator.predict(), expected, check_exact=True)
    assert estimator.predict().index[0] == pd.Timestamp("2024-03-01")
    pd.testing.assert_frame_equal(
        small().fit(TABLE[:50]).predict(TABLE[50:]), expected, check_exact=True
    )


def test_update_of_arrays_and_of_one_series_of_a_panel():
    values = TABLE.to_numpy()
    updated = small().fit(values[:50]).update(values[50:])
    np.testing.assert_array_equal(updated.predict(), small().fit(values[:50]).predict(values))
    panel = small().fit(PANEL)
    before = panel.predict()
    more = pd.concat({"y": TABLE[50:52] + 1.0}, names=["site"])
    after = panel.update(more).predict()
    pd.testing.assert_frame_equal(after.loc[["x"]], before.loc[["x"]], check_exact=True)
    assert after.loc["y"].index[0] == TABLE.index[52]


def test_update_of_covariates_and_target():
    estimator = small().fit(X[:50], Y[:50])
    before = estimator.predict(X[50:])
    estimator.update(X[50:55], Y[50:55])
    pd.testing.assert_series_equal(
        estimator.predict(X[55:]),
        small().fit(X[:50], Y[:50]).predict(X[55:], history=(X[:55], Y[:55])),
    )
    assert not np.array_equal(before[5:], estimator.predict(X[55:]))


def test_another_history_than_the_training_data():
    estimator = small().fit(TABLE)
    other = make_table(30, seed=3).shift(-500, freq="D")
    found = estimator.predict(other, horizon=5)
    assert found.index.equals(pd.date_range(other.index[-1], periods=6, freq="D")[1:])
    assert not np.array_equal(found, estimator.predict(horizon=5))
    many = pd.concat({"p": other, "q": TABLE}, names=["site"])
    both = estimator.predict(many)
    np.testing.assert_allclose(both.loc["p"], estimator.predict(other), rtol=1e-5)
    np.testing.assert_allclose(both.loc["q"], estimator.predict(), rtol=1e-5)


def test_a_far_horizon_is_finite():
    estimator = small().fit(TABLE)
    for found in (estimator.predict(horizon=10_000), estimator.predict_interval(horizon=10_000)):
        assert len(found) == 10_000 and np.isfinite(found.to_numpy()).all()
    assert np.isfinite(estimator.sample(2, horizon=10_000).to_numpy()).all()


def test_series_of_unequal_length():
    panel = pd.concat({"x": TABLE, "y": TABLE[7:33] + 1.0, "z": TABLE[40:44]}, names=["site"])
    estimator = small().fit(panel)
    ahead = estimator.predict()
    ends = ahead.groupby(level="site").apply(lambda part: part.index[0][1])
    assert list(ends) == [TABLE.index[59] + pd.Timedelta("1D"), TABLE.index[33], TABLE.index[44]]
    alone = estimator.predict(panel.loc[["y"]])
    np.testing.assert_allclose(ahead.loc[["y"]], alone, rtol=1e-5)
    assert estimator.impute(panel).index.equals(panel.index)
    assert estimator.transform(panel).notna().all(axis=None)
    assert np.isfinite(estimator.score_samples(panel)).all()


# -- xarray -----------------------------------------------------------------------------------


def make_field(n_rows=40):
    """A field with two land cells and some missing entries."""
    xr = pytest.importorskip("xarray")
    rng = np.random.default_rng(0)
    t = np.arange(n_rows)[:, None, None]
    values = 15.0 + np.sin(2 * np.pi * t / 8) + np.arange(6).reshape(2, 3)
    values = values + 0.1 * rng.standard_normal(values.shape)
    values[rng.random(values.shape) < 0.1] = np.nan
    values[:, 0, 1] = values[:, 1, 2] = np.nan
    coords = {
        "time": pd.date_range("2024-01-01", periods=n_rows, freq="6h"),
        "lat": [40.0, 41.0],
        "lon": [5.0, 6.0, 7.0],
        "depth": ("lat", [10.0, 20.0]),
    }
    attrs = {"units": "degC"}
    return xr.DataArray(values, dims=("time", "lat", "lon"), coords=coords, attrs=attrs, name="sst")


LAND = [[False, True, False], [False, False, True]]


def check_field(found, field, *, extra=()):
    assert set(found.dims) == {*field.dims, *extra}
    assert found.name == "sst" and found.attrs == field.attrs
    np.testing.assert_array_equal(found.lat, field.lat)
    np.testing.assert_array_equal(found.depth, field.depth)
    missing = found.transpose("lat", "lon", ...).isnull()
    np.testing.assert_array_equal(missing.all(missing.dims[2:]), LAND)
    np.testing.assert_array_equal(missing.any(missing.dims[2:]), LAND)


def test_field_with_land():
    field = make_field()
    estimator = small().fit(field)
    assert estimator.n_features_in_ == 4
    ahead = estimator.predict()
    check_field(ahead, field)
    assert ahead.dims == field.dims
    assert ahead.time.values[0] == np.datetime64("2024-01-11T00:00")
    filled = estimator.impute(field)
    check_field(filled, field)
    seen = field.notnull().values
    np.testing.assert_array_equal(filled.values[seen], field.values[seen])
    bands = estimator.predict_quantiles(quantiles=[0.1, 0.9])
    check_field(bands, field, extra=["quantile"])
    np.testing.assert_array_equal(bands["quantile"], [0.1, 0.9])
    check_field(estimator.predict_interval(), field, extra=["coverage", "bound"])
    paths = estimator.sample(5)
    check_field(paths, field, extra=["sample"])
    assert paths.sizes["sample"] == 5 and paths.dims[0] == "sample"
    check_field(estimator.predict(field[:20], horizon=2), field)
    assert estimator.transform(field).sizes["time"] == 40
    assert estimator.score_samples(field).dims == ("time",)
    assert np.isfinite(estimator.score(field))


def test_land_by_a_mask():
    field = make_field()
    full = field.fillna(-999.0)
    estimator = small().fit(full, mask=field.notnull())
    check_field(estimator.predict(), field)
    np.testing.assert_array_equal(estimator.predict(), small().fit(field).predict())
    check_field(estimator.impute(full, mask=field.notnull()), field)


def test_order_of_dims_and_of_series():
    field = make_field()
    expected = small().fit(field).predict()
    turned = small().fit(field.transpose("lon", "time", "lat")).predict()
    assert turned.dims == ("lon", "time", "lat")
    assert turned.shape == (3, 3, 2)
    np.testing.assert_allclose(turned.transpose(*expected.dims), expected, rtol=0.05)
    per_latitude = small(series="lat").fit(field.isel(lon=[0]))
    assert per_latitude.predict().shape == (3, 2, 1)


def test_dataset():
    xr = pytest.importorskip("xarray")
    field = make_field()
    data = xr.Dataset({"sst": field, "air": field + 3.0}, attrs={"source": "ship"})
    estimator = small().fit(data)
    ahead = estimator.predict()
    assert isinstance(ahead, xr.Dataset) and ahead.attrs == data.attrs
    assert set(ahead.data_vars) == {"sst", "air"}
    assert ahead["air"].dims == field.dims
    assert float(ahead["air"].mean() - ahead["sst"].mean()) == pytest.approx(3.0, abs=0.2)
    check_field(ahead["sst"], field)
    check_field(estimator.impute(data)["sst"], field)
    assert "quantile" in estimator.predict_quantiles().dims
    assert estimator.sample(2).sizes["sample"] == 2


def test_dask_arrays():
    pytest.importorskip("dask.array")
    field = make_field()
    lazy = field.chunk({"time": 7, "lat": 1})
    estimator = small().fit(lazy)
    np.testing.assert_array_equal(estimator.predict(), small().fit(field).predict())
    check_field(estimator.impute(lazy), field)
    assert lazy.chunks is not None


# -- files ------------------------------------------------------------------------------------


def as_dataset(table):
    xr = pytest.importorskip("xarray")
    return xr.Dataset.from_dataframe(table.rename_axis("time"))


KINDS = {
    "frame": lambda: TABLE,
    "series": lambda: TABLE["load"],
    "panel": lambda: PANEL,
    "time column": lambda: TABLE.reset_index(),
    "periods": lambda: TABLE.to_period("D"),
    "integers": lambda: TABLE.reset_index(drop=True),
    "time zone": lambda: TABLE.tz_localize("Europe/Berlin"),
    "array": lambda: TABLE.to_numpy(),
    "stack": lambda: STACK,
    "DataArray": make_field,
    "Dataset": lambda: as_dataset(TABLE),
}


def equal(first, second):
    if hasattr(first, "identical"):
        assert first.identical(second)
    elif isinstance(first, pd.DataFrame):
        pd.testing.assert_frame_equal(first, second, check_exact=True)
    elif isinstance(first, pd.Series):
        pd.testing.assert_series_equal(first, second, check_exact=True)
    else:
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind, tmp_path):
    data = KINDS[kind]()
    time = "day" if kind == "time column" else None
    estimator = small(group_size=2, time=time).fit(data)
    estimator.save(tmp_path / "model.tsvae")
    assert [path.name for path in tmp_path.iterdir()] == ["model.tsvae"]
    twin = SVAEForecaster.load(tmp_path / "model.tsvae")
    assert twin.get_params() == estimator.get_params()
    assert twin.n_features_in_ == estimator.n_features_in_
    assert twin.training_log_.rows == estimator.training_log_.rows
    for call in (
        lambda f: f.predict(),
        lambda f: f.predict_interval(coverage=[0.5, 0.9]),
        lambda f: f.sample(2),
        lambda f: f.predict(data),
        lambda f: f.impute(data),
        lambda f: f.transform(data),
        lambda f: f.score_samples(data),
        lambda f: f.score(data),
    ):
        equal(call(estimator), call(twin))


def test_saved_with_covariates_and_after_update(tmp_path):
    path = tmp_path / "model.tsvae"
    estimator = small(group_size=2, hidden_sizes=(4,), calendar=True, power_transform="box-cox")
    estimator.fit(X[:50], Y[:50]).update(X[50:55], Y[50:55])
    estimator.save(path)
    estimator.save(path)  # replaces the file
    twin = SVAEForecaster.load(path)
    assert twin.hidden_sizes == (4,)
    equal(estimator.predict(X[40:]), twin.predict(X[40:]))
    equal(estimator.predict_quantiles(X[55:]), twin.predict_quantiles(X[55:]))
    again = pickle.loads(pickle.dumps(twin))
    equal(estimator.transform(X), again.transform(X))
    assert twin.update(X[55:], Y[55:]).predict(later(X)[:1]).index[0] == later(X).index[0]
