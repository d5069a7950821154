"""scikit-learn's own checks of PairVAELinker, and checks in their spirit for other containers."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from tsvae import PairVAELinker

pytestmark = pytest.mark.usefixtures("short_epochs")

FAST = {"latent_dim": 2, "hidden_sizes": (8,), "max_epochs": 1, "random_state": 0}


def small(**settings):
    return PairVAELinker(**FAST | settings)


def checked():
    """What the checks see: everything but sizes, epochs and their rate is the default."""
    return PairVAELinker(latent_dim=2, hidden_sizes=(32,), max_epochs=2, learning_rate=0.03)


@parametrize_with_checks([checked()])
def test_scikit_learn_check(estimator, check, epochs_of):
    learns = "regressors_train" in str(check)  # asks for an R2 above 0.5
    with epochs_of(20 if learns else 2):
        check(estimator)


def test_nothing_is_kept_from_the_checks():
    checks = list(estimator_checks_generator(checked()))
    names = [getattr(check, "func", check).__name__ for _, check in checks]
    assert len(names) >= 40
    needed = (
        "regressors_train",
        "regressor_multioutput",
        "supervised_y_2d",
        "supervised_y_no_nan",
        "transformer_general",
        "methods_subset_invariance",
        "fit_idempotent",
        "dict_unchanged",
    )
    assert {f"check_{name}" for name in needed} <= set(names)


def test_tags():
    tags = get_tags(checked())
    assert tags.estimator_type == "regressor" and tags.regressor_tags is not None
    assert not tags.regressor_tags.poor_score
    assert tags.transformer_tags is not None and tags.requires_fit
    assert tags.target_tags.required and tags.target_tags.multi_output
    assert tags.input_tags.two_d_array and tags.input_tags.three_d_array
    assert tags.input_tags.allow_nan
    assert not tags.non_deterministic and not tags.no_validation


# -- the same for other containers ------------------------------------------------------------

N, T, U = 24, 12, 7
RECORDS = pd.Index([f"r{i}" for i in range(N)], name="record")
STAMPS = pd.date_range("2024-01-01", periods=T, freq="h", name="time")
NM = pd.Index(np.linspace(400.0, 460.0, U), name="nm")


def both(seed=0):
    """(N, T, 2) and (N, U, 2): a tenth missing, three samples measured one way, three the other."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(1, 2, (N, 1, 1))
    variable = np.arange(2)
    X = 5.0 + np.sin(size * np.linspace(0, 6, T)[:, None] + variable)
    y = np.exp(-size * np.linspace(0, 2, U)[:, None]) - variable
    for side in (X, y):
        side += 0.05 * rng.standard_normal(side.shape)
        side[rng.random(side.shape) < 0.1] = np.nan
    X[:3], y[3:6] = np.nan, np.nan
    return X, y


def tables():
    X, y = (side[..., 0] for side in both())
    return (
        pd.DataFrame(X, index=RECORDS, columns=[f"c{i}" for i in range(T)]),
        pd.DataFrame(y, index=RECORDS, columns=NM),
    )


def panels():
    parts = {
        name: pd.DataFrame(values, index=STAMPS, columns=["a", "b"])
        for name, values in zip(RECORDS, both()[0], strict=True)
    }
    return pd.concat(parts, names=["record", "time"]), tables()[1]


def arrays():
    xr = pytest.importorskip("xarray")
    X, y = both()
    channel = {"record": RECORDS, "channel": ["a", "b"], "q": np.linspace(0.1, 1.2, T)}
    spectrum = {"record": RECORDS, "wavelength": NM.to_numpy()}
    return (
        xr.DataArray(
            np.swapaxes(X, 1, 2), dims=list(channel), coords=channel, attrs={"units": "V"}, name="I"
        ),
        xr.DataArray(y[..., 0], dims=list(spectrum), coords=spectrum, attrs={"units": "1"}),
    )


CONTAINERS = {
    "array": lambda: tuple(side[..., 0] for side in both()),
    "stack": both,
    "table": tables,
    "panel": panels,
    "DataArray": arrays,
    "vector": lambda: (both()[0][..., 0], both()[1][:, 0, 0]),
    "Series": lambda: (tables()[0], tables()[1].iloc[:, 0].rename("dose")),
    "frame and array": lambda: (tables()[0], both()[1]),
}


@pytest.fixture(scope="module")
def fits():
    """One fitted estimator and its data per pair of containers."""
    return {name: (small().fit(*make()), *make()) for name, make in CONTAINERS.items()}


def methods(X, y):
    """Every method that reads data."""
    return {
        "predict": lambda m: m.predict(X),
        "predict_inverse": lambda m: m.predict_inverse(y),
        "transform": lambda m: m.transform(X),
        "transform both": lambda m: m.transform(X, y),
        "predict_interval": lambda m: m.predict_interval(X, 0.5),
        "predict_interval_inverse": lambda m: m.predict_interval_inverse(y),
        "sample": lambda m: m.sample(X, 3),
        "sample_inverse": lambda m: m.sample_inverse(y, 3),
        "link": lambda m: m.link(X, y, n_best=3),
        "cross_correlation": lambda m: m.cross_correlation(X, y),
        "out_of_range": lambda m: m.out_of_range(X),
        "out_of_range_inverse": lambda m: m.out_of_range_inverse(y),
        "score": lambda m: m.score(X, y),
    }


def numbers(result):
    """Every number of a result, in order."""
    if isinstance(result, tuple):
        return np.concatenate([numbers(part) for part in result])
    return np.ravel(np.asarray(result, dtype=float))


def same(first, second):
    np.testing.assert_array_equal(numbers(first), numbers(second))


def equal(first, second):
    if hasattr(first, "identical"):
        assert first.identical(second)
    elif isinstance(first, pd.DataFrame):
        pd.testing.assert_frame_equal(first, second, check_exact=True)
    elif isinstance(first, pd.Series):
        pd.testing.assert_series_equal(first, second, check_exact=True)
    else:
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", CONTAINERS)
def test_finite_results_and_unchanged_data(fits, name):
    estimator, *data = fits[name]
    for method, call in methods(*data).items():
        assert np.isfinite(numbers(call(estimator))).all(), method
    for used, made in zip(data, CONTAINERS[name](), strict=True):
        equal(used, made)


@pytest.mark.parametrize("name", CONTAINERS)
def test_fit_changes_no_data(name):
    data, untouched = CONTAINERS[name](), CONTAINERS[name]()
    masks = [side == side for side in data]
    errors = [abs(side) * 0.0 + 1.0 for side in data]
    beside = [copy.deepcopy(each) for each in (*masks, *errors)]
    names = dict(zip(("mask", "y_mask", "sigma", "y_sigma"), (*masks, *errors), strict=True))
    small().fit(*data, **names)
    for used, made in zip((*data, *masks, *errors), (*untouched, *beside), strict=True):
        equal(used, made)


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_same_kind_comes_back(fits, name):
    estimator, X, y = fits[name]
    for found, data in ((estimator.predict(X), y), (estimator.predict_inverse(y), X)):
        assert type(found) is type(data) and np.shape(found) == np.shape(data)
        if hasattr(data, "dims"):
            assert found.dims == data.dims and found.attrs == data.attrs
            assert all(found[key].equals(data[key]) for key in data.coords)
        elif isinstance(data, pd.Series):
            assert found.name == data.name
    if name == "frame and array":
        return
    if isinstance(y, pd.DataFrame | pd.Series):
        pd.testing.assert_index_equal(estimator.predict(X).index, RECORDS)
        if isinstance(y, pd.DataFrame):
            pd.testing.assert_index_equal(estimator.predict(X).columns, y.columns)
        pd.testing.assert_index_equal(estimator.predict_inverse(y).columns, X.columns)


@pytest.mark.parametrize("name", ["stack", "panel", "DataArray"])
def test_fit_is_idempotent_and_copies_do_the_same(fits, name):
    estimator, *data = fits[name]
    before = {method: call(estimator) for method, call in methods(*data).items()}
    for twin in (clone(estimator).fit(*data), pickle.loads(pickle.dumps(estimator))):
        for method, call in methods(*data).items():
            same(before[method], call(twin))


@pytest.mark.parametrize("name", ["stack", "table", "vector"])
def test_a_record_does_not_depend_on_those_beside_it(fits, name):
    estimator, *data = fits[name]
    order = np.random.default_rng(1).permutation(N)
    kept = [side.iloc[order] if hasattr(side, "iloc") else side[order] for side in data]
    first = [side[:1] for side in kept]
    single = ("predict", "predict_inverse", "transform", "out_of_range", "out_of_range_inverse")
    for method in single:
        whole = np.asarray(methods(*data)[method](estimator), dtype=float)
        for part, rows in ((kept, order), (first, order[:1])):
            found = np.asarray(methods(*part)[method](estimator), dtype=float)
            np.testing.assert_allclose(found, whole[rows], atol=1e-9)
    for method in ("predict_interval", "predict_interval_inverse"):
        for part, rows in ((kept, order), (first, order[:1])):
            bands = zip(
                methods(*part)[method](estimator), methods(*data)[method](estimator), strict=True
            )
            for found, whole in bands:
                np.testing.assert_allclose(found, np.asarray(whole)[rows], atol=1e-9)


def test_fit_twice_is_fit_once(fits):
    estimator, *data = fits["table"]
    twin = small().fit(*data).fit(*data)
    for call in methods(*data).values():
        same(call(twin), call(estimator))


def test_link_of_a_part_is_that_part(fits):
    estimator, X, y = fits["array"]
    whole = estimator.link(X, y).scores
    part = estimator.link(X[4:9], y[10:13]).scores
    np.testing.assert_allclose(part, whole[4:9, 10:13], rtol=1e-6, atol=1e-6)


def test_fit_transform_returns_one_array(fits):
    for name in ("array", "table", "panel", "DataArray"):
        estimator, X, y = fits[name]
        found = clone(estimator).fit_transform(X, y)
        assert not isinstance(found, tuple) and found.shape == (N, 2), name
        equal(found, estimator.transform(X))
        assert type(found) is type(estimator.transform(X, y)[0])


def test_codes_of_both_sides(fits):
    for estimator, X, y in fits.values():
        first, second = estimator.transform(X, y)
        equal(first, estimator.transform(X))
        assert np.shape(second) == (N, 2)


def test_fit_again_on_other_data_forgets_the_first():
    estimator = small().fit(*tables())
    assert list(estimator.feature_names_in_) == list(tables()[0])
    estimator.fit(*both())
    assert estimator.n_features_in_ == 2 and not hasattr(estimator, "feature_names_in_")
    same(estimator.predict(both()[0]), small().fit(*both()).predict(both()[0]))


def test_parameters_are_not_changed():
    settings = {"hidden_sizes": [[3], None], "callbacks": [], "weights": [1, 2, 1, 1]}
    settings |= {"x_regions": {(0, 3): 2.0}, "y_regions": np.ones(U)}
    estimator = small(**settings)
    before = copy.deepcopy(estimator.get_params())
    estimator.fit(*tables())
    for call in methods(*tables()).values():
        call(estimator)
    after = estimator.get_params()
    assert np.array_equal(before.pop("y_regions"), after.pop("y_regions"))
    assert after == before
    assert all(getattr(estimator, name) is value for name, value in settings.items())


def test_methods_change_no_attribute(fits):
    estimator, *data = fits["table"]

    def state():
        plain = {k: v for k, v in vars(estimator).items() if k not in ("_fit", "model_")}
        tensors = [*estimator.model_.state_dict().values(), estimator.model_.generator.get_state()]
        return pickle.dumps(plain), [tensor.tolist() for tensor in tensors]

    before = state()
    for call in methods(*data).values():
        call(estimator)
    assert state() == before


def test_fit_sets_only_attributes_that_say_so():
    estimator = small(pretrain_epochs=1)
    given = set(vars(estimator))
    assert given == set(estimator.get_params())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one epoch of pre-training settles nothing
        added = set(vars(estimator.fit(*tables()))) - given
    assert all(name.startswith("_") or name.endswith("_") for name in added)
    public = ("model_", "training_log_", "pretraining_log_", "n_latent_", "n_features_in_")
    assert {*public, "feature_names_in_", "n_iter_", "active_units_"} <= added
    assert len(estimator.training_log_.rows) == len(estimator.pretraining_log_.rows) == 1
    assert estimator.active_units_.shape == (2,) and estimator.active_units_.dtype == bool
    assert small().fit(*tables()).pretraining_log_ is None


def test_features_seen_in_fit(fits):
    expected = {"array": T, "stack": 2, "table": T, "panel": 2, "DataArray": 2, "vector": T}
    expected |= {"Series": T, "frame and array": T}
    assert {name: m.n_features_in_ for name, (m, *_) in fits.items()} == expected
    assert list(fits["Series"][0].feature_names_in_) == list(tables()[0])
    assert not hasattr(fits["stack"][0], "feature_names_in_")


def test_names_of_the_codes(fits):
    for estimator, X, _ in fits.values():
        assert list(estimator.get_feature_names_out()) == ["z0", "z1"]
        codes = estimator.transform(X)
        if isinstance(codes, pd.DataFrame):
            assert list(codes) == ["z0", "z1"]
            pd.testing.assert_index_equal(codes.index, RECORDS)


@pytest.mark.parametrize("method", methods(None, None))
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="PairVAELinker instance is not fitted yet"):
        methods(*tables())[method](small())


def test_the_rest_is_not_fitted_either(tmp_path):
    for call in (
        lambda m: m.save(tmp_path / "never.tsvae"),
        lambda m: m.get_feature_names_out(),
        lambda m: m.transform(None),
    ):
        with pytest.raises(NotFittedError, match="PairVAELinker instance is not fitted yet"):
            call(small())
    assert not list(tmp_path.iterdir())


def test_every_parameter_is_checked():
    for name in small().get_params():
        if name in ("freq", "time", "series"):
            continue
        with pytest.raises(ValueError, match=f"The '{name}' parameter of PairVAELinker must be"):
            small(**{name: object()}).fit(*tables())


def test_the_seed_decides(fits):
    first, X, y = fits["table"]
    second = small(random_state=1).fit(X, y)
    assert not np.array_equal(first.predict(X), second.predict(X))
    drawn = small(random_state=np.random.RandomState(0)).fit(X, y)
    same(drawn.predict(X), first.predict(X))
    same(first.sample(X, 4), first.sample(X, 4))
    other = copy.copy(first).set_params(random_state=5)
    assert not np.array_equal(other.sample(X, 4), first.sample(X, 4))
    same(other.predict_interval(X), first.predict_interval(X))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_dtypes(dtype):
    X = (np.arange(60).reshape(10, 6) % 7 > 3).astype(dtype)
    y = (np.arange(40).reshape(10, 4) % 3 > 1).astype(dtype)
    estimator = small().fit(X, y)
    assert estimator.predict(X).dtype == np.float64
    assert estimator.transform(X).dtype == np.float64
    assert estimator.out_of_range(X).dtype == bool
    plain = small().fit(X.astype(float), y.astype(float))
    same(estimator.predict(X), plain.predict(X))


def test_nullable_arrow_masked_and_read_only_data(fits):
    estimator, X, y = fits["table"]
    for dtype in ("Float64", "double[pyarrow]"):
        if "pyarrow" in dtype:
            pytest.importorskip("pyarrow")
        same(estimator.predict(X.astype(dtype)), estimator.predict(X))
        same(estimator.predict_inverse(y.astype(dtype)), estimator.predict_inverse(y))
    stack, X, y = fits["stack"]
    for side in (X, y):
        side.flags.writeable = False
    same(small().fit(X, y).predict(X), stack.predict(X))
    masked = [np.ma.masked_invalid(side) for side in (X, y)]
    same(small().fit(*masked).predict(masked[0]), stack.predict(X))


@pytest.mark.parametrize("name", ["stack", "table", "Series"])
def test_mask_is_the_same_as_nan(fits, name):
    plain, X, y = fits[name]
    mask, y_mask = (side == side for side in (X, y))
    full = [
        side.fillna(99.0) if hasattr(side, "fillna") else np.nan_to_num(side, nan=99.0)
        for side in (X, y)
    ]
    masked = small().fit(*full, mask=mask, y_mask=y_mask)
    for method in ("predict", "transform", "out_of_range", "predict_interval", "sample"):
        same(getattr(masked, method)(full[0], mask=mask), getattr(plain, method)(X))
    for method in ("predict_inverse", "out_of_range_inverse", "predict_interval_inverse"):
        same(getattr(masked, method)(full[1], mask=y_mask), getattr(plain, method)(y))
    same(masked.sample_inverse(full[1], 3, mask=y_mask), plain.sample_inverse(y, 3))
    same(masked.transform(*full, mask=mask, y_mask=y_mask), plain.transform(X, y))
    same(masked.link(*full, mask=mask, y_mask=y_mask), plain.link(X, y))
    assert masked.score(*full, mask=mask, y_mask=y_mask) == plain.score(X, y)
    found = small().fit_transform(*full, mask=mask, y_mask=y_mask)
    same(found, plain.transform(X))


def test_silent(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("table", "stack", "Series"):
            data = CONTAINERS[name]()
            estimator = small().fit(*data)
            for call in methods(*data).values():
                call(estimator)
    assert capfd.readouterr() == ("", "")
