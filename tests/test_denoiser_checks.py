"""scikit-learn's own checks of VAEDenoiser, and checks in their spirit for other containers."""

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

from tsvae import VAEDenoiser

pytestmark = pytest.mark.usefixtures("short_epochs")

FAST = {
    "latent_dim": 2,
    "architecture": "mlp",
    "hidden_sizes": (8,),
    "max_epochs": 1,
    "n_importance_samples": 3,
    "random_state": 0,
}
OUTPUTS = ["signal", "latent"]


def small(**settings):
    return VAEDenoiser(**FAST | settings)


def checked(output):
    """What the checks see: everything but sizes and epochs is the default."""
    return VAEDenoiser(
        output=output, latent_dim=2, hidden_sizes=(8,), max_epochs=2, n_importance_samples=5
    )


@parametrize_with_checks([checked(output) for output in OUTPUTS])
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize("output", OUTPUTS)
def test_nothing_is_kept_from_the_checks(output):
    checks = list(estimator_checks_generator(checked(output)))
    names = [getattr(check, "func", check).__name__ for _, check in checks]
    assert len(names) >= 40
    needed = (
        "transformer_general",
        "methods_subset_invariance",
        "fit_idempotent",
        "dict_unchanged",
    )
    assert {f"check_{name}" for name in needed} <= set(names)
    tags = get_tags(checked(output))
    assert tags.input_tags.two_d_array and tags.input_tags.three_d_array
    assert tags.input_tags.allow_nan and tags.requires_fit
    assert tags.transformer_tags is not None
    assert not tags.target_tags.required
    assert not tags.non_deterministic and not tags.no_validation


# -- the same for other containers ------------------------------------------------------------

N, T = 24, 12
STAMPS = pd.date_range("2024-01-01", periods=T, freq="h", name="time")
RECORDS = [f"r{i}" for i in range(N)]


def waves(n_records=N, n_steps=T, seed=0):
    """Two variables of records with a tenth of the entries missing."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, (n_records, 1, 1))
    values = np.sin(np.linspace(0, 6, n_steps)[:, None] + phase + np.arange(2))
    values = 10.0 + values + 0.1 * rng.standard_normal(values.shape)
    values[rng.random(values.shape) < 0.1] = np.nan
    values[:, 0] = 10.0 + np.arange(n_records)[:, None]
    return values


def as_table():
    return pd.DataFrame(waves()[..., 0], index=RECORDS, columns=[f"c{i}" for i in range(T)])


def as_spectra():
    return as_table().set_axis(np.linspace(0.1, 1.2, T), axis=1)


def as_panel():
    parts = {
        name: pd.DataFrame(values, index=STAMPS, columns=["a", "b"])
        for name, values in zip(RECORDS, waves(), strict=True)
    }
    return pd.concat(parts, names=["record", "time"])


def as_dataarray():
    xr = pytest.importorskip("xarray")
    coords = {"record": RECORDS, "time": STAMPS, "channel": ["a", "b"]}
    return xr.DataArray(waves(), dims=list(coords), coords=coords, attrs={"units": "V"})


def as_dataset():
    return as_dataarray().to_dataset("channel")


def as_long():
    rows = pd.date_range("2024-01-01", periods=5 * T, freq="h", name="time")
    return pd.DataFrame(waves(5).reshape(-1, 2), index=rows, columns=["a", "b"])


CONTAINERS = {
    "array": (lambda: waves()[..., 0], {}),
    "stack": (waves, {}),
    "table": (as_table, {}),
    "spectra": (as_spectra, {}),
    "panel": (as_panel, {}),
    "DataArray": (as_dataarray, {}),
    "Dataset": (as_dataset, {}),
    "windows": (as_long, {"window": 16}),
    "windows of an array": (lambda: as_long().to_numpy(), {"window": 16}),
}


@pytest.fixture(scope="module")
def fits():
    """One fitted estimator and its data per container."""
    found = {}
    for name, (make, settings) in CONTAINERS.items():
        data = make()
        found[name] = (small(**settings).fit(data), data)
    return found


def methods(X):
    """Every method that reads or writes data."""
    return {
        "transform": lambda d: d.transform(X),
        "encode": lambda d: d.encode(X),
        "decode": lambda d: d.decode(np.ones((3, 2))),
        "inverse_transform": lambda d: d.inverse_transform(d.encode(X)),
        "reconstruct": lambda d: d.reconstruct(X),
        "augment": lambda d: d.augment(X),
        "augment twice": lambda d: d.augment(X, 2, noise=True),
        "sample": lambda d: d.sample(3),
        "sample of the prior": lambda d: d.sample(3, source="prior", noise=True),
        "score": lambda d: d.score(X),
        "score_samples": lambda d: d.score_samples(X),
        "anomaly_scores": lambda d: d.anomaly_scores(X),
    }


def numbers(result):
    """Every number of a result, in order."""
    if hasattr(result, "data_vars"):
        return np.concatenate([numbers(result[name]) for name in result.data_vars])
    return np.ravel(np.asarray(result))


def same(first, second):
    np.testing.assert_array_equal(numbers(first), numbers(second))


def equal(first, second):
    if hasattr(first, "identical"):
        assert first.identical(second)
    elif isinstance(first, pd.DataFrame):
        pd.testing.assert_frame_equal(first, second, check_exact=True)
    else:
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", CONTAINERS)
def test_finite_results_and_unchanged_data(fits, name):
    estimator, data = fits[name]
    for method, call in methods(data).items():
        assert np.isfinite(numbers(call(estimator))).all(), method
    equal(data, CONTAINERS[name][0]())


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_same_kind_comes_back(fits, name):
    estimator, data = fits[name]
    for method in ("transform", "augment"):
        found = methods(data)[method](estimator)
        assert type(found) is type(data)
        for labels in ("index", "columns"):
            if isinstance(data, pd.DataFrame):
                pd.testing.assert_index_equal(getattr(found, labels), getattr(data, labels))
        if hasattr(data, "dims"):
            assert found.sizes == data.sizes and found.attrs == data.attrs
            assert all(found[key].equals(data[key]) for key in data.coords)
            continue
        assert np.shape(found) == np.shape(data)


@pytest.mark.parametrize("name", CONTAINERS)
def test_fit_is_idempotent_and_copies_do_the_same(fits, name):
    estimator, data = fits[name]
    before = {method: call(estimator) for method, call in methods(data).items()}
    again = clone(estimator).fit(data)
    for twin in (again, again.fit(data), pickle.loads(pickle.dumps(estimator))):
        for method, call in methods(data).items():
            same(before[method], call(twin))


@pytest.mark.parametrize("name", ["array", "stack", "table", "spectra"])
def test_a_record_does_not_depend_on_those_beside_it(fits, name):
    estimator, data = fits[name]
    order = np.random.default_rng(1).permutation(N)
    shuffled = data.iloc[order] if isinstance(data, pd.DataFrame) else data[order]
    for method in ("transform", "encode", "score_samples", "anomaly_scores"):
        whole = np.asarray(methods(data)[method](estimator))
        np.testing.assert_allclose(
            np.asarray(methods(shuffled)[method](estimator)), whole[order], atol=1e-7
        )
        one = np.asarray(methods(shuffled[:1])[method](estimator))
        np.testing.assert_allclose(one, whole[order[:1]], atol=1e-7)


def test_fit_transform_is_fit_and_transform(fits):
    for name, (estimator, data) in fits.items():
        for output in OUTPUTS:
            twin = copy.copy(estimator).set_params(output=output)
            equal(clone(twin).fit_transform(data), twin.transform(data)), name


def test_fit_again_on_other_data_forgets_the_first():
    estimator = small().fit(as_table())
    assert list(estimator.feature_names_in_) == list(as_table())
    estimator.fit(waves())
    assert estimator.n_features_in_ == 2 and not hasattr(estimator, "feature_names_in_")
    same(estimator.transform(waves()), small().fit(waves()).transform(waves()))


def test_parameters_are_not_changed():
    settings = {"hidden_sizes": [3], "callbacks": []}
    estimator = small(**settings)
    before = copy.deepcopy(estimator.get_params())
    estimator.fit(as_table())
    for call in methods(as_table()).values():
        call(estimator)
    assert estimator.get_params() == before
    assert estimator.hidden_sizes is settings["hidden_sizes"]


def test_methods_change_no_attribute(fits):
    estimator, data = fits["table"]

    def state():
        plain = {k: v for k, v in vars(estimator).items() if k not in ("_fit", "model_")}
        tensors = [*estimator.model_.state_dict().values(), estimator.model_.generator.get_state()]
        return pickle.dumps(plain), [tensor.tolist() for tensor in tensors]

    before = state()
    for call in methods(data).values():
        call(estimator)
    assert state() == before


def test_fit_sets_only_attributes_that_say_so():
    estimator = small()
    given = set(vars(estimator))
    assert given == set(estimator.get_params())
    added = set(vars(estimator.fit(as_table()))) - given
    assert all(name.startswith("_") or name.endswith("_") for name in added)
    public = ("model_", "training_log_", "n_latent_", "n_features_in_", "feature_names_in_")
    assert {*public, "n_iter_", "active_units_", "kl_per_dimension_"} <= added


def test_features_seen_in_fit(fits):
    expected = {"array": T, "stack": 2, "table": T, "spectra": T, "panel": 2, "DataArray": 2}
    expected |= {"Dataset": 2, "windows": 2, "windows of an array": 2}
    assert {name: d.n_features_in_ for name, (d, _) in fits.items()} == expected
    assert list(fits["windows"][0].feature_names_in_) == ["a", "b"]
    assert not hasattr(fits["spectra"][0], "feature_names_in_")


def test_names_of_the_columns(fits):
    def names(name, output="signal"):
        return list(copy.copy(fits[name][0]).set_params(output=output).get_feature_names_out())

    assert names("table") == list(as_table())
    assert names("spectra") == list(as_spectra())
    assert names("array") == [f"x{i}" for i in range(T)]
    assert names("windows") == ["a", "b"]
    for name in CONTAINERS:
        assert names(name, "latent") == ["z0", "z1"]
    assert list(fits["table"][0].encode(as_table())) == ["z0", "z1"]
    assert not hasattr(fits["stack"][0], "get_feature_names_out")


@pytest.mark.parametrize("method", methods(None))
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="VAEDenoiser instance is not fitted yet"):
        methods(as_table())[method](small())


def test_the_rest_is_not_fitted_either(tmp_path):
    for call in (
        lambda d: d.save(tmp_path / "never.tsvae"),
        lambda d: d.get_feature_names_out(),
        lambda d: d.interpolate(as_table()[:1], as_table()[1:2]),
        lambda d: d.sample_codes(as_table()),
    ):
        with pytest.raises(NotFittedError, match="VAEDenoiser instance is not fitted yet"):
            call(small())
    assert not list(tmp_path.iterdir())


def test_every_parameter_is_checked():
    for name in small().get_params():
        if name in ("freq", "time", "series"):
            continue
        with pytest.raises(ValueError, match=f"The '{name}' parameter of VAEDenoiser must be"):
            small(**{name: object()}).fit(as_table())


def test_the_seed_decides(fits):
    X = as_table()
    first, second = fits["table"][0], small(random_state=1).fit(X)
    assert not np.array_equal(first.transform(X), second.transform(X))
    same(small(random_state=np.random.RandomState(0)).fit(X).transform(X), first.transform(X))
    for call in (
        lambda s: first.sample(4, random_state=s),
        lambda s: first.augment(X, 2, random_state=s),
    ):
        same(call(1), call(1))
        assert not np.array_equal(call(1), call(2))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_dtypes(dtype):
    values = (np.arange(60).reshape(10, 6) % 7 > 3).astype(dtype)
    estimator = small().fit(values)
    assert estimator.transform(values).dtype == np.float64
    assert estimator.encode(values).dtype == np.float64
    same(estimator.transform(values), small().fit(values.astype(float)).transform(values))


def test_nullable_arrow_masked_and_read_only_data(fits):
    X = as_table()
    expected = fits["table"][0].transform(X)
    for dtype in ("Float64", "double[pyarrow]"):
        if "pyarrow" in dtype:
            pytest.importorskip("pyarrow")
        same(fits["table"][0].transform(X.astype(dtype)), expected)
    values = waves()
    values.flags.writeable = False
    same(small().fit(values).transform(values), fits["stack"][0].transform(waves()))
    masked = np.ma.masked_invalid(waves())
    same(fits["stack"][0].transform(masked), fits["stack"][0].transform(waves()))


def test_mask_is_the_same_as_nan(fits):
    plain, X = fits["table"]
    full, mask = X.fillna(99.0), X.notna()
    masked = small().fit(full, mask=mask)
    for method in ("transform", "encode", "augment", "score", "score_samples", "anomaly_scores"):
        same(getattr(masked, method)(full, mask=mask), getattr(plain, method)(X))


def test_silent(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("table", "stack", "windows"):
            make, settings = CONTAINERS[name]
            estimator = small(**settings).fit(make())
            for call in methods(make()).values():
                call(estimator)
    assert capfd.readouterr() == ("", "")
