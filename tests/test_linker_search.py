# ruff: noqa: NPY002 -- the global generators are what is tested
"""PairVAELinker among scikit-learn's tools: pipelines, searches, copies, files, routed metadata."""

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
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tsvae import PairVAELinker

pytestmark = pytest.mark.usefixtures("short_epochs")

FAST = {"latent_dim": 2, "hidden_sizes": (8,), "max_epochs": 1, "random_state": 0}
N, T, U = 40, 12, 7
GRID = {"latent_dim": [1, 2], "weights": [(1, 1, 1, 1), (0, 0, 1, 1)]}


def small(**settings):
    return PairVAELinker(**FAST | settings)


RNG = np.random.default_rng(0)
SIZE = RNG.uniform(1, 2, (N, 1))
ROWS = pd.Index([f"s{i}" for i in range(N)], name="sample")
X = pd.DataFrame(
    np.sin(SIZE * np.linspace(0, 6, T)) + 0.05 * RNG.standard_normal((N, T)),
    index=ROWS,
    columns=[f"c{i}" for i in range(T)],
)
Y = pd.DataFrame(
    np.exp(-SIZE * np.linspace(0, 2, U)) + 0.02 * RNG.standard_normal((N, U)),
    index=ROWS,
    columns=np.linspace(400.0, 460.0, U),
)
X_GAPS = X.mask(RNG.random((N, T)) < 0.1)
Y_GAPS = Y.mask(RNG.random((N, U)) < 0.1)
X_GAPS.iloc[5:8], Y_GAPS.iloc[25:28] = np.nan, np.nan  # measured one way
STACKS = (np.stack([X, -X], axis=-1), np.stack([Y, 2 * Y, -Y], axis=-1))


def equal(first, second):
    if isinstance(first, tuple):
        for one, other in zip(first, second, strict=True):
            equal(one, other)
    elif hasattr(first, "identical"):
        assert first.identical(second)
    elif isinstance(first, pd.DataFrame):
        pd.testing.assert_frame_equal(first, second, check_exact=True)
    elif isinstance(first, pd.Series):
        pd.testing.assert_series_equal(first, second, check_exact=True)
    else:
        np.testing.assert_array_equal(first, second)


# -- pipelines and searches -------------------------------------------------------------------


def test_scaler_in_front():
    pipeline = make_pipeline(StandardScaler(), small()).fit(X, Y)
    scaled = StandardScaler().fit_transform(X)
    told = small().fit(scaled, Y)
    np.testing.assert_array_equal(pipeline.predict(X), told.predict(scaled))
    assert list(pipeline.predict(X).columns) == list(Y.columns)
    assert pipeline.score(X, Y) == told.score(scaled, Y)
    kept = make_pipeline(StandardScaler().set_output(transform="pandas"), small()).fit(X, Y)
    pd.testing.assert_index_equal(kept.predict(X).index, ROWS)


def test_missing_values_survive_a_scaler():
    pipeline = make_pipeline(StandardScaler(), small()).fit(X_GAPS, Y_GAPS)
    assert np.isfinite(pipeline.predict(X_GAPS)).all(axis=None)
    assert np.isfinite(pipeline.score(X_GAPS, Y_GAPS))


def test_codes_for_a_later_step():
    pipeline = make_pipeline(small(), Ridge()).fit(X, Y)
    codes = small().fit_transform(X, Y)
    np.testing.assert_allclose(pipeline.predict(X), Ridge().fit(codes, Y).predict(codes))


def test_transformed_targets():
    model = TransformedTargetRegressor(small(), transformer=StandardScaler())
    found = model.fit(X.to_numpy(), Y.to_numpy()).predict(X.to_numpy())
    scaler = StandardScaler().fit(Y.to_numpy())
    told = small().fit(X.to_numpy(), scaler.transform(Y.to_numpy()))
    expected = scaler.inverse_transform(told.predict(X.to_numpy()))
    np.testing.assert_array_equal(found, expected)
    one = TransformedTargetRegressor(small(), func=np.log1p, inverse_func=np.expm1)
    assert one.fit(X.to_numpy(), Y.to_numpy()[:, 3]).predict(X.to_numpy()).shape == (N,)


def test_score_is_the_mean_r2_of_the_columns():
    estimator = small(max_epochs=5).fit(X, Y)
    predicted = estimator.predict(X)
    assert estimator.score(X, Y) == pytest.approx(r2_score(Y, predicted))
    weight = np.repeat([1.0, 0.0], N // 2)
    half = estimator.score(X[: N // 2], Y[: N // 2])
    assert estimator.score(X, Y, weight) == pytest.approx(half)
    seen = Y_GAPS.notna()
    columns = [r2_score(Y_GAPS[c][seen[c]], predicted[c][seen[c]]) for c in Y]
    assert estimator.score(X, Y_GAPS) == pytest.approx(np.mean(columns))
    flat = [side.reshape(N, -1) for side in (STACKS[1], np.empty_like(STACKS[1]))]
    stacked = small().fit(*STACKS)
    flat[1] = stacked.predict(STACKS[0]).reshape(N, -1)
    assert stacked.score(*STACKS) == pytest.approx(r2_score(*flat))
    line = small().fit(X, Y[400.0])
    assert line.score(X, Y[400.0]) == pytest.approx(r2_score(Y[400.0], line.predict(X)))


@pytest.mark.slow  # two worker processes have to start
def test_search_is_the_same_in_two_processes(full_epochs):
    def search(n_jobs):
        options = {"cv": KFold(2), "n_jobs": n_jobs, "error_score": "raise"}
        return GridSearchCV(small(), GRID, **options).fit(X_GAPS, Y_GAPS)

    one, two = search(1), search(2)
    scores = one.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and len(set(scores)) == 4
    np.testing.assert_array_equal(scores, two.cv_results_["mean_test_score"])
    assert one.best_params_ == two.best_params_
    equal(one.best_estimator_.predict(X_GAPS), two.best_estimator_.predict(X_GAPS))


def test_search_over_size_and_weights():
    options = {"cv": KFold(2, shuffle=True, random_state=0), "error_score": "raise"}
    found = GridSearchCV(small(), GRID, **options).fit(X_GAPS, Y_GAPS)
    scores = found.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and len(set(scores)) == 4
    train, test = next(options["cv"].split(X))
    twin = small(**found.cv_results_["params"][1]).fit(X_GAPS.iloc[train], Y_GAPS.iloc[train])
    expected = twin.score(X_GAPS.iloc[test], Y_GAPS.iloc[test])
    assert found.cv_results_["split0_test_score"][1] == pytest.approx(expected)
    equal(found.predict(X), found.best_estimator_.predict(X))
    equal(found.transform(X), found.best_estimator_.transform(X))
    assert found.best_params_ == {
        name: getattr(found.best_estimator_, name) for name in ("latent_dim", "weights")
    }


def test_folds_of_all_containers():
    xr = pytest.importorskip("xarray")
    names = {"record": ROWS.to_numpy(), "q": np.linspace(0.1, 1.0, T)}
    array = xr.DataArray(X.to_numpy(), dims=list(names), coords=names)
    for data in ((X.to_numpy(), Y.to_numpy()), STACKS, (X, Y[400.0]), (array, Y)):
        scores = cross_val_score(small(), *data, cv=KFold(2), error_score="raise")
        assert scores.shape == (2,) and np.isfinite(scores).all()
    found = cross_val_predict(small(), X, Y, cv=KFold(2))
    train, test = next(KFold(2).split(X))
    first = small().fit(X.iloc[train], Y.iloc[train]).predict(X.iloc[test])
    np.testing.assert_array_equal(np.asarray(found)[test], first)
    errors = cross_val_score(small(), X, Y, cv=KFold(2), scoring="neg_root_mean_squared_error")
    assert (errors < 0).all()


# -- set_output -------------------------------------------------------------------------------


def test_set_output():
    values = X.to_numpy(), Y.to_numpy()
    found = small().set_output(transform="pandas").fit(*values)
    for codes in (found.transform(values[0]), found.fit_transform(*values)):
        assert isinstance(codes, pd.DataFrame) and list(codes) == ["z0", "z1"]
        np.testing.assert_array_equal(codes, small().fit_transform(*values))
    assert isinstance(found.predict(values[0]), np.ndarray)
    kept = make_pipeline(StandardScaler(), small()).set_output(transform="pandas")
    codes = kept.fit_transform(X, Y)
    pd.testing.assert_index_equal(codes.index, ROWS)
    assert list(kept.get_feature_names_out()) == list(codes) == ["z0", "z1"]
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(small().fit_transform(*STACKS), pd.DataFrame)


def test_names_of_codes_beside_others():
    from sklearn.pipeline import FeatureUnion

    union = FeatureUnion([("codes", small()), ("raw", FunctionTransformer(None))])
    union.set_output(transform="pandas")
    found = union.fit_transform(X, Y)
    assert found.shape == (N, 2 + T)
    assert list(found)[:2] == ["codes__z0", "codes__z1"]


# -- copies, seeds, side effects --------------------------------------------------------------


def dump_and_load(estimator):
    stream = io.BytesIO()
    joblib.dump(estimator, stream)
    stream.seek(0)
    return joblib.load(stream)


def save_and_load(path):
    def copied(estimator):
        estimator.save(path)
        return PairVAELinker.load(path)

    return copied


def uses(X, y):
    return {
        "predict": lambda m: m.predict(X),
        "predict_inverse": lambda m: m.predict_inverse(y),
        "transform": lambda m: m.transform(X, y),
        "predict_interval": lambda m: m.predict_interval(X, 0.8),
        "predict_interval_inverse": lambda m: m.predict_interval_inverse(y),
        "sample": lambda m: m.sample(X, 3),
        "sample_inverse": lambda m: m.sample_inverse(y, 3),
        "link": lambda m: m.link(X, y),
        "cross_correlation": lambda m: m.cross_correlation(X, y),
        "out_of_range": lambda m: m.out_of_range(X),
        "out_of_range_inverse": lambda m: m.out_of_range_inverse(y),
        "score": lambda m: m.score(X, y),
    }


KINDS = {
    "plain": {},
    "convolutions": {"architecture": "conv", "hidden_sizes": (4, 4), "spectral_norm": True},
    "two architectures": {"architecture": ("resnet", "mlp"), "hidden_sizes": ((4, 4), None)},
    "likelihoods": {"likelihood": ("bernoulli", "student_t"), "scaling": ("variable", "column")},
    "logarithms and regions": {"log_scale": (True, False), "x_regions": {(0, 3): 2.0, (8, 9): 0}},
    "calibrated": {"scale": "calibrated", "y_regions": np.arange(1.0, U + 1)},
    "projector": {"projector": (6, 6), "weights": [1, 0, 2, 1]},
    "stages": {"pretrain_epochs": 2, "freeze": "X", "unfreeze_epochs": 1, "max_epochs": 2},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::tsvae.linker.PretrainingWarning")
def test_copies_and_files_are_bit_identical(kind, tmp_path):
    x_axis = X_GAPS.set_axis(np.arange(T), axis=1)  # what regions are in units of
    data = (x_axis, Y_GAPS)
    few = (x_axis[::3], Y_GAPS[::3])  # some of them measured one way
    estimator = small(**KINDS[kind]).fit(*data)
    path = tmp_path / "model.tsvae"
    copies = {
        "pickle": lambda m: pickle.loads(pickle.dumps(m)),
        "joblib": dump_and_load,
        "deepcopy": copy.deepcopy,
        "clone and fit": lambda m: clone(m).fit(*data),
        "file": save_and_load(path),
    }
    before = {name: use(estimator) for name, use in uses(*few).items()}
    for duplicate in copies.values():
        twin = duplicate(estimator)
        for name, value in estimator.get_params().items():
            np.testing.assert_equal(twin.get_params()[name], value)
        for name, use in uses(*few).items():
            equal(use(twin), before[name])
    assert [file.name for file in tmp_path.iterdir()] == ["model.tsvae"]
    twin = PairVAELinker.load(path)
    assert twin.n_features_in_ == T and twin.n_latent_ == estimator.n_latent_
    assert twin.training_log_.rows == estimator.training_log_.rows
    if kind == "stages":
        assert twin.pretraining_log_.rows == estimator.pretraining_log_.rows
    np.testing.assert_array_equal(twin.active_units_, estimator.active_units_)
    again = tmp_path / "again.tsvae"
    twin.save(again)
    equal(PairVAELinker.load(again).predict(few[0]), before["predict"])


def long_form(side):
    table = side.set_axis(range(side.shape[1]), axis=1).stack().rename_axis(["sample", "t"])
    return table.to_frame("v")


CONTAINERS = {
    "array": lambda: (X.to_numpy(), Y.to_numpy()),
    "stack": lambda: STACKS,
    "vector": lambda: (X.to_numpy(), Y.to_numpy()[:, 0]),
    "Series": lambda: (X, Y[400.0]),
    "Series without a name": lambda: (X, Y[400.0].rename(None)),
    "panel and table": lambda: (long_form(X), Y),
    "table and panel": lambda: (X, long_form(Y)),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_files_of_other_containers(name, tmp_path):
    data = CONTAINERS[name]()
    estimator = small().fit(*data)
    twin = save_and_load(tmp_path / "m.tsvae")(estimator)
    for use in uses(*data).values():
        equal(use(twin), use(estimator))


def test_files_of_xarray(tmp_path):
    xr = pytest.importorskip("xarray")
    record = ("record", ROWS.to_numpy())
    profile = xr.DataArray(
        X.to_numpy(),
        dims=["record", "q"],
        coords={"record": record, "q": np.linspace(0.1, 1.0, T)},
        attrs={"units": "1/nm"},
        name="I",
    )
    spectrum = xr.DataArray(
        Y.to_numpy(), dims=["record", "wavelength"], coords={"wavelength": Y.columns.to_numpy()}
    )
    target = xr.DataArray(Y[400.0].to_numpy(), dims="record", coords={"record": record})
    for y in (spectrum, target, xr.Dataset({"a": spectrum, "b": -spectrum})):
        estimator = small().fit(profile, y)
        twin = save_and_load(tmp_path / "m.tsvae")(estimator)
        for use in uses(profile, y).values():
            equal(use(twin), use(estimator))


def global_states():
    kind, keys, *rest = np.random.get_state()
    torch_state = torch.random.get_rng_state()
    return (random.getstate(), (kind, keys.tolist(), rest), torch_state.tolist())


@pytest.mark.parametrize("kind", ["plain", "convolutions", "projector", "stages"])
def test_nothing_global_is_touched(kind, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = global_states()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two epochs of pre-training settle nothing
            estimator = small(**KINDS[kind], n_threads=1) if kind != "plain" else small()
            estimator.fit(X_GAPS, Y_GAPS)
        for use in uses(X_GAPS, Y_GAPS).values():
            use(estimator)
        assert global_states() == before
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_global_seeds_do_not_matter():
    saved = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    found = []
    try:
        for seed in (0, 1):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            estimator = small(likelihood="laplace").fit(X, Y)
            found.append((estimator.sample(X, 2), estimator.predict_interval(X)))
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.random.set_rng_state(saved[2])
    equal(*found)


# -- metadata routing -------------------------------------------------------------------------


def routed(**settings):
    names = dict.fromkeys(("mask", "y_mask", "sigma", "y_sigma"), True)
    estimator = small(**settings).set_fit_request(**names)
    estimator.set_score_request(mask=True, y_mask=True)
    estimator.set_predict_request(mask=True)
    return estimator.set_transform_request(mask=True, y_mask=True)


SIGMA = X * 0.0 + np.linspace(0.1, 1.0, T)


def test_masks_and_errors_are_routed():
    full, mask, y_mask = X_GAPS.fillna(99.0), X_GAPS.notna(), Y_GAPS.notna()
    params = {"mask": mask, "y_mask": y_mask, "sigma": SIGMA, "y_sigma": Y * 0.0 + 1.0}
    with sklearn.config_context(enable_metadata_routing=True):
        options = {"cv": KFold(2), "error_score": "raise"}
        pipeline = Pipeline([("link", routed())])
        found = cross_validate(pipeline, full, Y, params=params, **options)["test_score"]
        search = GridSearchCV(routed(), {"latent_dim": [1, 2]}, **options)
        search.fit(full, Y, **params)
        predicted = search.best_estimator_.predict(full, mask=mask)
    expected = []
    for train, test in KFold(2).split(X):
        errors = {"sigma": SIGMA.iloc[train], "y_sigma": params["y_sigma"].iloc[train]}
        told = small().fit(X_GAPS.iloc[train], Y_GAPS.iloc[train], **errors)
        expected.append(told.score(X_GAPS.iloc[test], Y_GAPS.iloc[test]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    errors = {"sigma": SIGMA, "y_sigma": params["y_sigma"]}
    told = small(**search.best_params_).fit(X_GAPS, Y_GAPS, **errors)
    equal(predicted, told.predict(X_GAPS))
    plain = small(**search.best_params_).fit(X_GAPS, Y_GAPS)
    assert not np.array_equal(plain.predict(X_GAPS), predicted)


def test_mask_is_routed_through_a_pipeline():
    kept = StandardScaler().set_output(transform="pandas")
    mask = X_GAPS.notna()
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(kept, routed()).fit(X, Y, mask=mask)
        found = pipeline.predict(X, mask=mask)
        codes = pipeline.transform(X, mask=mask)
    scaled = kept.transform(X)
    told = small().fit(scaled, Y, mask=mask)
    equal(found, told.predict(scaled, mask=mask))
    equal(codes, told.transform(scaled, mask=mask))


def test_metadata_that_nobody_asked_for():
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="mask"),
    ):
        GridSearchCV(small(), GRID, cv=KFold(2)).fit(X, Y, mask=X.notna())
