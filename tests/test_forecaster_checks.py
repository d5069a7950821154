"""scikit-learn's own checks of SVAEForecaster, and checks in their spirit for ``fit(df)``."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from tsvae import SVAEForecaster

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
    "random_state": 0,
}

EXPECTED_FAILURES = {
    "check_methods_sample_order_invariance": (
        "rows are steps of time: shuffled rows are another series"
    ),
    "check_methods_subset_invariance": (
        "rows are steps of time: rows without stamps follow the training data from its first step "
        "on, whatever rows they were cut from"
    ),
    "check_regressor_data_not_an_array": (
        "the check compares arrays with frames, whose RangeIndex holds time stamps: rows of the "
        "training stamps are smoothed, rows of an array follow the training data"
    ),
}


def small(**settings):
    return SVAEForecaster(**FAST | settings)


@parametrize_with_checks(
    [small(point_estimate=False)],  # a point estimate from 20 steps may extrapolate a trend
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
    xfail_strict=True,
)
def test_scikit_learn_check(estimator, check, epochs_of):
    learns = "regressors_train" in str(check)  # asks for an R2 above 0.5
    with epochs_of(20 if learns else 2):
        check(estimator)


def test_nothing_is_kept_from_the_checks():
    names = [
        getattr(check, "func", check).__name__ for _, check in estimator_checks_generator(small())
    ]
    assert len(names) >= 50
    assert set(EXPECTED_FAILURES) <= set(names)
    assert len(EXPECTED_FAILURES) <= 8
    tags = get_tags(small())
    assert tags.input_tags.two_d_array and tags.input_tags.three_d_array
    assert tags.input_tags.allow_nan and tags.target_tags.multi_output
    assert tags.requires_fit and is_regressor(small())
    assert not tags.regressor_tags.poor_score
    assert not tags.non_deterministic and not tags.no_validation


# -- the same for fit(df) ---------------------------------------------------------------------

STAMPS = pd.date_range("2024-01-01", periods=48, freq="h", name="time")


def wave(n_rows=48, columns=("load", "wind"), seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(n_rows)[:, None]
    values = np.sin(2 * np.pi * (t / 12 + np.arange(len(columns)) / 5))
    values = 10.0 + values + 0.1 * rng.standard_normal(values.shape)
    values[rng.random(values.shape) < 0.1] = np.nan
    values[0] = 10.0
    index = pd.date_range("2024-01-01", periods=n_rows, freq="h", name="time")
    return pd.DataFrame(values, index=index, columns=list(columns))


def as_array(df):
    return df.to_numpy()


def as_stack(df):
    return df.to_numpy().reshape(2, -1, df.shape[1])


def as_panel(df):
    half = len(df) // 2
    return pd.concat({"a": df[:half], "b": df[:half] + 1.0}, names=["site", "time"])


def as_dataarray(df):
    xr = pytest.importorskip("xarray")
    dims = ("time", "variable")
    return xr.DataArray(df, dims=dims, coords={"time": df.index, "variable": list(df)})


def as_dataset(df):
    xr = pytest.importorskip("xarray")
    return xr.Dataset.from_dataframe(df)


CONTAINERS = {
    "frame": lambda df: df,
    "series": lambda df: df["load"],
    "panel": as_panel,
    "array": as_array,
    "stack": as_stack,
    "DataArray": as_dataarray,
    "Dataset": as_dataset,
}


@pytest.fixture(scope="module")
def fitted():
    return small().fit(wave())


@pytest.fixture(scope="module")
def fits():
    """One fitted estimator and its data per container."""
    found = {}
    for name, convert in CONTAINERS.items():
        data = convert(wave())
        found[name] = (small().fit(data), data)
    return found


def methods(X):
    """Every method that reads or writes data, on an estimator fitted by ``fit(df)``."""
    return {
        "predict": lambda f: f.predict(),
        "predict of a history": lambda f: f.predict(X),
        "predict_quantiles": lambda f: f.predict_quantiles(),
        "predict_interval": lambda f: f.predict_interval(),
        "sample": lambda f: f.sample(3),
        "impute": lambda f: f.impute(X),
        "impute_quantiles": lambda f: f.impute_quantiles(X),
        "transform": lambda f: f.transform(X),
        "score": lambda f: f.score(X),
        "score_samples": lambda f: f.score_samples(X),
        "latent_dynamics": lambda f: f.latent_dynamics(),
    }


def numbers(result):
    """Every number of a result, in order."""
    if isinstance(result, tuple):
        return np.concatenate([numbers(part) for part in result[:3]])
    if hasattr(result, "data_vars"):
        return np.concatenate([numbers(result[name]) for name in result.data_vars])
    return np.ravel(np.asarray(result))


def same(first, second):
    np.testing.assert_array_equal(numbers(first), numbers(second))


def test_fit_is_idempotent():
    X = wave()
    estimator = small().fit(X)
    before = {name: call(estimator) for name, call in methods(X).items()}
    estimator.fit(X)
    for name, call in methods(X).items():
        same(before[name], call(estimator))


def test_fit_again_on_other_data_forgets_the_first():
    estimator = small().fit(wave(columns=("a", "b", "c")))
    estimator.fit(wave()[["load"]])
    fresh = small().fit(wave()[["load"]])
    assert estimator.n_features_in_ == 1
    assert list(estimator.feature_names_in_) == ["load"]
    same(estimator.predict(), fresh.predict())
    estimator.fit(as_array(wave()))
    assert not hasattr(estimator, "feature_names_in_")


@pytest.mark.parametrize("name", CONTAINERS)
def test_data_are_not_changed(fits, name):
    estimator, data = fits[name]
    before = CONTAINERS[name](wave())
    for call in methods(data).values():  # `data` is what it was fitted on
        call(estimator)
    if name in ("array", "stack"):
        np.testing.assert_array_equal(data, before)
    elif name in ("DataArray", "Dataset"):
        assert data.identical(before)
    elif name == "series":
        pd.testing.assert_series_equal(data, before)
    else:
        pd.testing.assert_frame_equal(data, before)


def test_read_only_data_will_do():
    data = as_array(wave())
    data.flags.writeable = False
    same(small().fit(data).predict(), small().fit(data.copy()).predict())


def test_parameters_are_not_changed(fitted):
    settings = {"hidden_sizes": [3], "seasonal_periods": [12.0, 6.0], "callbacks": []}
    estimator = small(**settings)
    before = copy.deepcopy(estimator.get_params())
    estimator.fit(wave())
    for call in methods(wave()).values():
        call(estimator)
    assert estimator.get_params() == before
    assert estimator.hidden_sizes is settings["hidden_sizes"]


def test_methods_change_no_attribute(fitted):
    before = pickle.dumps({k: v for k, v in vars(fitted).items() if k != "_fit"})
    state = {k: v.clone() for k, v in fitted.model_.state_dict().items()}
    for call in methods(wave()).values():
        call(fitted)
    assert pickle.dumps({k: v for k, v in vars(fitted).items() if k != "_fit"}) == before
    assert all(bool((v == state[k]).all()) for k, v in fitted.model_.state_dict().items())


def test_fit_sets_only_attributes_that_say_so():
    estimator = small()
    given = set(vars(estimator))
    assert given == set(estimator.get_params())
    estimator.fit(wave())
    added = set(vars(estimator)) - given
    assert all(name.startswith("_") or name.endswith("_") for name in added)
    assert {"model_", "training_log_", "n_features_in_", "feature_names_in_", "n_iter_"} <= added


def test_features_seen_in_fit(fits):
    for name, (estimator, _) in fits.items():
        assert estimator.n_features_in_ == (1 if name == "series" else 2)
    assert list(fits["frame"][0].feature_names_in_) == ["load", "wind"]
    assert fits["frame"][0].feature_names_in_.dtype == object
    assert list(fits["panel"][0].feature_names_in_) == ["load", "wind"]
    assert not hasattr(fits["array"][0], "feature_names_in_")
    assert not hasattr(small().fit(wave().set_axis([0, 1], axis=1)), "feature_names_in_")


def test_names_of_the_latent_columns(fits):
    names = fits["frame"][0].get_feature_names_out()
    assert names.dtype == object and len(set(names)) == 8
    assert list(names[:5]) == ["load_z0", "load_z1", "load_z2", "load_z3", "wind_z0"]
    assert list(fits["frame"][0].transform(wave()).columns) == list(names)
    assert list(fits["series"][0].get_feature_names_out()) == ["z0", "z1", "z2", "z3"]
    joint = small(channels="joint").fit(wave())
    assert list(joint.get_feature_names_out()) == ["z0", "z1", "z2", "z3"]
    assert joint.transform(wave()).shape == (48, 4)


@pytest.mark.parametrize("method", methods(None))
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="SVAEForecaster instance is not fitted yet"):
        methods(wave())[method](small())


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f.update(wave()),
        lambda f: f.save("never.tsvae"),
        lambda f: f.get_feature_names_out(),
    ],
    ids=["update", "save", "get_feature_names_out"],
)
def test_the_rest_is_not_fitted_either(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFittedError, match="SVAEForecaster instance is not fitted yet"):
        call(small())
    assert not list(tmp_path.iterdir())


READERS = ["predict of a history", "impute", "impute_quantiles", "transform", "score"]
READERS += ["score_samples"]


@pytest.mark.parametrize("method", READERS)
def test_other_columns_than_in_fit(fitted, method):
    def call(X):
        return methods(X)[method](fitted)

    with pytest.raises(ValueError, match="unseen at fit time:\n- sun\n"):
        call(wave().rename(columns={"wind": "sun"}))
    with pytest.raises(ValueError, match="yet now missing:\n- wind\n"):
        call(wave()[["load"]])
    with pytest.raises(ValueError, match="unseen at fit time:\n- sun\n"):
        call(wave().assign(sun=1.0))
    with pytest.raises(ValueError, match="must be in the same order as they were in fit"):
        call(wave()[["wind", "load"]])


@pytest.mark.parametrize("method", READERS)
def test_another_number_of_columns(fits, method):
    estimator, data = fits["array"]
    text = "X has 1 features, but SVAEForecaster is expecting 2 features as input"
    with pytest.raises(ValueError, match=text):
        methods(data[:, :1])[method](estimator)


def test_an_array_for_a_frame_warns_of_its_names():
    estimator = small(seasonal_effect=False).fit(wave())
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        found = estimator.predict(wave().to_numpy())
    np.testing.assert_array_equal(found, estimator.predict(wave()))


@pytest.mark.parametrize("duplicate", [clone, copy.deepcopy, copy.copy])
def test_copies_before_fit(duplicate):
    twin = duplicate(small(latent_dim=6))
    assert twin.get_params() == small(latent_dim=6).get_params()
    same(twin.fit(wave()).predict(), small(latent_dim=6).fit(wave()).predict())


def test_clone_of_a_fitted_one_is_not_fitted(fitted):
    twin = clone(fitted)
    assert set(vars(twin)) == set(fitted.get_params())


@pytest.mark.parametrize("name", CONTAINERS)
def test_pickles_predict_the_same(fits, name):
    estimator, data = fits[name]
    for twin in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
        for call in methods(data).values():
            same(call(estimator), call(twin))


def test_set_params(fitted):
    twin = copy.deepcopy(fitted)
    assert twin.set_params(horizon=5) is twin
    assert len(twin.predict()) == 5
    assert len(fitted.predict()) == 3
    with pytest.raises(ValueError, match="Invalid parameter 'depth' for estimator"):
        twin.set_params(depth=3)
    twin.set_params(horizon="a")  # judged by fit
    with pytest.raises(ValueError, match="'horizon' parameter of SVAEForecaster"):
        twin.fit(wave())


def test_every_parameter_is_checked():
    for name in small().get_params():
        if name in ("freq", "time", "series"):
            continue
        with pytest.raises(ValueError, match=f"The '{name}' parameter of SVAEForecaster must be"):
            small(**{name: object()}).fit(wave())


def test_the_seed_decides():
    X = wave()
    first, second = small(random_state=3).fit(X), small(random_state=3).fit(X)
    other = small(random_state=4).fit(X)
    for call in methods(X).values():
        same(call(first), call(second))
    assert not np.array_equal(first.predict(), other.predict())
    state = np.random.RandomState(3)
    same(small(random_state=np.random.RandomState(3)).fit(X).predict(), first.predict())
    assert not np.array_equal(
        small(random_state=state).fit(X).predict(), small(random_state=state).fit(X).predict()
    )


def test_sample_paths_follow_their_seed(fitted):
    same(fitted.sample(4, random_state=1), fitted.sample(4, random_state=1))
    assert not np.array_equal(fitted.sample(4, random_state=1), fitted.sample(4, random_state=2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, bool])
def test_dtypes(dtype):
    values = (np.arange(60).reshape(30, 2) % 7 > 3).astype(dtype)
    estimator = small().fit(values)
    assert estimator.predict().dtype == np.float64
    assert estimator.transform(values).dtype == np.float64
    same(estimator.predict(), small().fit(values.astype(float)).predict())


def test_nullable_and_arrow_columns():
    X = wave()
    expected = small().fit(X).predict()
    for dtype in ("Float64", "double[pyarrow]"):
        if "pyarrow" in dtype:
            pytest.importorskip("pyarrow")
        same(small().fit(X.astype(dtype)).predict(), expected)
    masked = np.ma.masked_invalid(X)
    same(small().fit(masked).predict(), small().fit(as_array(X)).predict())


def test_no_result_has_a_nan(fits):
    for estimator, data in fits.values():
        for name, call in methods(data).items():
            assert np.isfinite(numbers(call(estimator))).all(), name


def test_the_same_kind_comes_back(fits):
    for name, (estimator, data) in fits.items():
        assert type(estimator.predict()) is type(data), name
        assert type(estimator.impute(data)) is type(data), name
    frame, _ = fits["frame"]
    ahead = frame.predict()
    assert ahead.index.equals(pd.date_range("2024-01-03", periods=3, freq="h", name="time"))
    assert ahead.index.name == "time" and list(ahead) == ["load", "wind"]
    assert fits["series"][0].predict().name == "load"
    panel, data = fits["panel"]
    assert panel.predict().index.names == ["site", "time"]
    assert list(panel.predict().index.get_level_values(0)) == list("aaabbb")
    assert panel.impute(data).index.equals(data.index)
    assert fits["array"][0].predict(horizon=5).shape == (5, 2)
    assert fits["stack"][0].predict().shape == (2, 3, 2)
    assert fits["array"][0].predict_quantiles().shape == (3, 2, 3)
    assert fits["array"][0].predict_interval(coverage=[0.5, 0.9]).shape == (3, 2, 2, 2)
    assert fits["array"][0].sample(7).shape == (7, 3, 2)
    intervals = frame.predict_interval(coverage=[0.5, 0.9])
    assert intervals.columns.names == ["variable", "coverage", "bound"]
    assert intervals.shape == (3, 8)
    assert frame.sample(7).index.names == ["sample", "time"]


def test_quantiles_and_intervals_are_ordered(fits):
    for estimator, _ in fits.values():
        found = estimator.predict_quantiles(quantiles=[0.05, 0.25, 0.5, 0.75, 0.95])
        if hasattr(found, "data_vars"):
            found = found.to_dataarray()
        if hasattr(found, "dims"):
            found = found.transpose(..., "quantile")
        levels = np.asarray(found).reshape(-1, 5)
        assert (np.diff(levels, axis=1) > 0).all()


def test_observed_entries_are_kept_by_impute(fits):
    for name in ("frame", "array", "stack", "panel"):
        estimator, data = fits[name]
        filled, given = np.asarray(estimator.impute(data)), np.asarray(data)
        seen = ~np.isnan(given)
        assert not seen.all()
        np.testing.assert_array_equal(filled[seen], given[seen])


def test_mask_is_the_same_as_nan():
    X = wave()
    full = X.fillna(99.0)
    mask = X.notna()
    masked, plain = small().fit(full, mask=mask), small().fit(X)
    same(masked.predict(), plain.predict())
    same(masked.predict(full, mask=mask), plain.predict(X))
    same(masked.transform(full, mask=mask), plain.transform(X))
    same(masked.impute(full, mask=mask), plain.impute(X))
    assert masked.score(full, mask=mask) == plain.score(X)
    same(masked.score_samples(full, mask=mask), plain.score_samples(X))


def test_fit_transform_is_fit_and_transform():
    X = wave()
    same(small().fit_transform(X), small().fit(X).transform(X))
    y = X[["load"]]
    same(small().fit_transform(X[["wind"]], y), small().fit(X[["wind"]], y).transform(X[["wind"]]))


def test_silent(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator = small().fit(wave())
        for call in methods(wave()).values():
            call(estimator)
    assert capfd.readouterr() == ("", "")
