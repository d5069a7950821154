# ruff: noqa: NPY002 -- the global generators are what is tested
"""VAEDenoiser among scikit-learn's tools: pipelines, searches, copies, files, routed metadata."""

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
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

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
N, T = 40, 12
GRID = {"latent_dim": [1, 2]}


def small(**settings):
    return VAEDenoiser(**FAST | settings)


RNG = np.random.default_rng(0)
PHASE = RNG.uniform(0, 6, (N, 1))
CLEAN = pd.DataFrame(
    np.sin(np.linspace(0, 6, T) + PHASE),
    index=[f"s{i}" for i in range(N)],
    columns=[f"c{i}" for i in range(T)],
)
NOISY = CLEAN + 0.3 * RNG.standard_normal((N, T))
TABLE = NOISY.mask(RNG.random((N, T)) < 0.1)
STACK = np.stack([TABLE, -TABLE], axis=-1)
LABELS = (PHASE[:, 0] > 3).astype(int)
GIVEN = pd.DataFrame({"late": LABELS > 0, "phase": PHASE[:, 0]}, index=TABLE.index)


def equal(first, second):
    if isinstance(first, pd.DataFrame):
        pd.testing.assert_frame_equal(first, second, check_exact=True)
    elif isinstance(first, pd.Series):
        pd.testing.assert_series_equal(first, second, check_exact=True)
    else:
        np.testing.assert_array_equal(first, second)


# -- pipelines and searches -------------------------------------------------------------------


def test_scaler_in_front():
    pipeline = make_pipeline(StandardScaler(), small())
    found = pipeline.fit_transform(TABLE)
    scaled = StandardScaler().fit_transform(TABLE)
    np.testing.assert_array_equal(found, small().fit_transform(scaled))
    np.testing.assert_array_equal(found, pipeline.transform(TABLE))
    assert found.shape == (N, T) and np.isfinite(found).all()
    assert np.isfinite(pipeline.score(TABLE))


def test_codes_and_the_way_back_through_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), small(output="latent")).fit(TABLE)
    codes = pipeline.transform(TABLE)
    assert codes.shape == (N, 2)
    back = pipeline.inverse_transform(codes)
    scaler, denoiser = pipeline[0], pipeline[1]
    expected = scaler.inverse_transform(denoiser.reconstruct(scaler.transform(TABLE)))
    np.testing.assert_allclose(back, expected, rtol=1e-9, atol=1e-9)


def test_labels_of_a_later_step_are_no_clean_target():
    pipeline = make_pipeline(small(output="latent"), LogisticRegression())
    scores = cross_val_score(pipeline, TABLE, LABELS, cv=KFold(2), error_score="raise")
    assert ((scores >= 0) & (scores <= 1)).all()
    for y in (LABELS, [str(label) for label in LABELS], np.ones((N, 3)), GIVEN):
        equal(small().fit(TABLE, y).transform(TABLE), small().fit(TABLE).transform(TABLE))


@pytest.mark.parametrize("convert", [lambda d: d, np.asarray], ids=["frame", "array"])
def test_y_of_the_shape_of_X_is_the_clean_target(convert):
    X, clean = convert(TABLE), convert(CLEAN)
    told = small().fit(X, clean=clean).transform(X)
    equal(small().fit(X, clean).transform(X), told)
    equal(small().fit_transform(X, clean), told)
    assert not np.array_equal(told, small().fit(X).transform(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an array beside a frame means positions
        for other in (CLEAN, CLEAN.to_numpy(), CLEAN.to_numpy().tolist()):
            equal(small().fit(X, other).transform(X), told)


def test_score_with_and_without_clean_signals():
    estimator = small(max_epochs=3).fit(TABLE)
    found = estimator.score(TABLE, CLEAN)
    rest = CLEAN - estimator.transform(TABLE)
    expected = 1 - (rest**2).sum(axis=None) / ((CLEAN - CLEAN.mean(axis=None)) ** 2).sum(axis=None)
    assert found == pytest.approx(expected)
    assert estimator.score(TABLE, clean=CLEAN) == found
    n_values = TABLE.notna().sum(axis=None)
    log_spread = np.log(TABLE.std(ddof=0)) * TABLE.notna()
    density = (estimator.score_samples(TABLE) + log_spread.sum(axis=1)).sum() / n_values
    assert estimator.score(TABLE) == pytest.approx(density)
    assert estimator.score(TABLE, LABELS) == estimator.score(TABLE)


def test_weighted_score():
    estimator = small().fit(TABLE)
    weight = np.repeat([1.0, 0.0], N // 2)
    half = TABLE[: N // 2], CLEAN[: N // 2]
    for data, part in (((TABLE,), half[:1]), ((TABLE, CLEAN), half)):
        found = estimator.score(*data, sample_weight=weight)
        assert found == pytest.approx(estimator.score(*part))
        assert found != estimator.score(*data)
    for wrong in (np.ones(3), -weight, weight * np.nan):
        with pytest.raises(ValueError, match="sample_weight must hold one number, 0 or more"):
            estimator.score(TABLE, sample_weight=wrong)


@pytest.mark.slow  # two worker processes have to start
def test_search_is_the_same_in_two_processes(full_epochs):
    def search(n_jobs):
        options = {"cv": KFold(2), "n_jobs": n_jobs, "error_score": "raise"}
        return GridSearchCV(small(), GRID, **options).fit(TABLE)

    one, two = search(None), search(2)
    scores = one.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and len(set(scores)) == 2
    np.testing.assert_array_equal(scores, two.cv_results_["mean_test_score"])
    assert one.best_params_ == two.best_params_
    equal(one.best_estimator_.transform(TABLE), two.best_estimator_.transform(TABLE))
    equal(one.transform(TABLE), one.best_estimator_.transform(TABLE))


def test_search_with_clean_signals():
    options = {"cv": KFold(2, shuffle=True, random_state=0), "error_score": "raise"}
    found = GridSearchCV(small(), GRID, **options).fit(TABLE, CLEAN)
    scores = found.cv_results_["mean_test_score"]
    assert (scores <= 1).all()
    train, test = next(options["cv"].split(TABLE))
    twin = small(latent_dim=1).fit(TABLE.iloc[train], CLEAN.iloc[train])
    expected = twin.score(TABLE.iloc[test], CLEAN.iloc[test])
    assert found.cv_results_["split0_test_score"][0] == pytest.approx(expected)


def test_folds_of_stacks_and_of_dataarrays():
    xr = pytest.importorskip("xarray")
    coords = {"record": list(TABLE.index), "q": np.linspace(0.1, 1.0, T)}
    array = xr.DataArray(TABLE.to_numpy(), dims=list(coords), coords=coords)
    for data in (STACK, array):
        scores = cross_val_score(small(), data, cv=KFold(2), error_score="raise")
        assert np.isfinite(scores).all()
        found = GridSearchCV(small(), GRID, cv=KFold(2), error_score="raise").fit(data)
        assert type(found.transform(data)) is type(data)


def test_column_transformer():
    wide = TABLE.assign(batch=np.arange(N) % 3)
    columns = ColumnTransformer(
        [("signal", small(output="latent"), list(TABLE)), ("batch", "passthrough", ["batch"])]
    )
    found = columns.fit_transform(wide)
    assert found.shape == (N, 3)
    assert list(columns.get_feature_names_out()) == ["signal__z0", "signal__z1", "batch__batch"]
    np.testing.assert_array_equal(found[:, :2], small(output="latent").fit_transform(TABLE))


# -- set_output -------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["signal", "latent"])
def test_set_output(output):
    values = TABLE.to_numpy()
    found = small(output=output).set_output(transform="pandas").fit(values).transform(values)
    names = [f"x{i}" for i in range(T)] if output == "signal" else ["z0", "z1"]
    assert isinstance(found, pd.DataFrame) and list(found.columns) == names
    np.testing.assert_array_equal(found, small(output=output).fit_transform(values))
    kept = make_pipeline(StandardScaler(), small(output=output)).set_output(transform="pandas")
    frame = kept.fit_transform(TABLE)
    assert frame.index.equals(TABLE.index)
    assert list(frame.columns) == (list(TABLE) if output == "signal" else names)
    assert list(kept.get_feature_names_out()) == list(frame.columns)


def test_three_axes_opt_out_of_set_output():
    estimator = small().set_output(transform="pandas").fit(STACK)
    assert isinstance(estimator.transform(STACK), np.ndarray)
    assert estimator.transform(STACK).shape == STACK.shape
    codes = small(output="latent").set_output(transform="pandas").fit(STACK).transform(STACK)
    assert list(codes.columns) == ["z0", "z1"]
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(small().fit_transform(STACK), np.ndarray)


def test_set_output_of_spectra():
    spectra = TABLE.set_axis(np.linspace(0.1, 1.0, T), axis=1)
    found = small().set_output(transform="pandas").fit_transform(spectra)
    assert list(found.columns) == list(spectra.columns)
    pd.testing.assert_index_equal(found.index, spectra.index)
    plain = small().fit_transform(spectra)
    pd.testing.assert_index_equal(plain.columns, spectra.columns)


# -- copies, seeds, side effects --------------------------------------------------------------


def dump_and_load(estimator):
    stream = io.BytesIO()
    joblib.dump(estimator, stream)
    stream.seek(0)
    return joblib.load(stream)


def save_and_load(path):
    def copied(estimator):
        estimator.save(path)
        return VAEDenoiser.load(path)

    return copied


def uses(X, **given):
    few = {name: value[:3] for name, value in given.items()}
    return [
        lambda d: d.transform(X, **given),
        lambda d: d.encode(X, **given),
        lambda d: d.decode(np.ones((3, d.n_latent_)), **few),
        lambda d: d.augment(X, 2, noise=True, **given),
        lambda d: d.sample(3, noise=True, **few),
        lambda d: d.score_samples(X, **given),
        lambda d: d.anomaly_scores(X, **given),
        lambda d: d.score(X, **given),
    ]


KINDS = {
    "autoencoder": {"model": "ae"},
    "vae": {},
    "convolutions": {"architecture": "conv", "spectral_norm": True},
    "vector of residual blocks": {"architecture": "resnet", "latent": "vector"},
    "conditional": {"model": "conditional"},
    "ladder": {"model": "hierarchical", "n_levels": 2},
    "ladder of maps": {"model": "hierarchical", "architecture": "conv", "hidden_sizes": (4, 4)},
    "codebook": {"model": "vq", "n_codes": 4, "architecture": "conv"},
    "bernoulli": {"likelihood": "bernoulli"},
    "student": {"likelihood": "student_t"},
    "calibrated": {"scale": "calibrated", "final_sigmoid": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_files_are_bit_identical(kind, tmp_path):
    given = {"condition": GIVEN} if kind == "conditional" else {}
    estimator = small(**KINDS[kind]).fit(TABLE, **given)
    path = tmp_path / "model.tsvae"
    copies = {
        "pickle": lambda d: pickle.loads(pickle.dumps(d)),
        "joblib": dump_and_load,
        "deepcopy": copy.deepcopy,
        "clone and fit": lambda d: clone(d).fit(TABLE, **given),
        "file": save_and_load(path),
    }
    before = [use(estimator) for use in uses(TABLE, **given)]
    for duplicate in copies.values():
        twin = duplicate(estimator)
        assert twin.get_params() == estimator.get_params()
        for use, found in zip(uses(TABLE, **given), before, strict=True):
            equal(use(twin), found)
    assert [file.name for file in tmp_path.iterdir()] == ["model.tsvae"]
    twin = VAEDenoiser.load(path)
    assert twin.n_features_in_ == T and list(twin.feature_names_in_) == list(TABLE)
    assert twin.training_log_.rows == estimator.training_log_.rows
    assert twin.active_units_ == estimator.active_units_
    if kind != "autoencoder":
        few = {name: value[:2] for name, value in given.items()}
        equal(twin.sample(2, source="prior", **few), estimator.sample(2, source="prior", **few))


CONTAINERS = {
    "array": lambda: TABLE.to_numpy(),
    "stack": lambda: STACK,
    "spectra": lambda: TABLE.set_axis(np.linspace(0.1, 1.0, T), axis=1),
    "panel": lambda: (
        TABLE.stack()
        .rename_axis(["record", "t"])
        .to_frame("v")
        .rename(index=lambda name: int(name[1:]), level="t")
    ),
    "windows": lambda: pd.DataFrame(
        STACK.reshape(-1, 2), index=pd.date_range("2024", periods=N * T, freq="h")
    ).set_axis(["a", "b"], axis=1),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_files_of_other_containers(name, tmp_path):
    data = CONTAINERS[name]()
    estimator = small(window=16 if name == "windows" else None).fit(data)
    twin = save_and_load(tmp_path / "m.tsvae")(estimator)
    for use in uses(data):
        equal(use(twin), use(estimator))


def test_files_of_xarray(tmp_path):
    xr = pytest.importorskip("xarray")
    coords = {"record": list(TABLE.index), "q": np.linspace(0.1, 1.0, T), "day": ("record", LABELS)}
    array = xr.DataArray(
        TABLE.to_numpy(), dims=["record", "q"], coords=coords, attrs={"units": "V"}, name="I"
    )
    for data in (array, xr.Dataset({"I": array, "J": -array})):
        estimator = small().fit(data)
        twin = save_and_load(tmp_path / "m.tsvae")(estimator)
        for use in uses(data)[:-1]:
            assert use(twin).identical(use(estimator))


def global_states():
    kind, keys, *rest = np.random.get_state()
    torch_state = torch.random.get_rng_state()
    return (random.getstate(), (kind, keys.tolist(), rest), torch_state.tolist())


@pytest.mark.parametrize("kind", ["vae", "vector of residual blocks", "ladder", "codebook"])
def test_nothing_global_is_touched(kind, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = global_states()
        estimator = small(**KINDS[kind], n_threads=1).fit(TABLE)
        for use in uses(TABLE):
            use(estimator)
        estimator.interpolate(TABLE[:1], TABLE[1:2])
        estimator.sample(2, source="prior")
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
            found.append(small(likelihood="laplace").fit(TABLE).augment(TABLE, noise=True))
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.random.set_rng_state(saved[2])
    equal(*found)


# -- metadata routing -------------------------------------------------------------------------


def routed(**settings):
    names = {"mask": True, "condition": True}
    estimator = small(**settings).set_fit_request(clean=True, **names)
    return estimator.set_transform_request(**names).set_score_request(clean=True, **names)


def test_mask_clean_and_condition_are_routed():
    full, mask = TABLE.fillna(99.0), TABLE.notna()
    with sklearn.config_context(enable_metadata_routing=True):
        options = {"cv": KFold(2), "error_score": "raise"}
        pipeline = Pipeline([("denoise", routed())])
        params = {"mask": mask, "clean": CLEAN}
        found = cross_validate(pipeline, full, params=params, **options)["test_score"]
        plain = cross_validate(small(), TABLE, CLEAN, **options)["test_score"]
        np.testing.assert_array_equal(found, plain)
        search = GridSearchCV(routed(model="conditional"), GRID, **options)
        search.fit(full, mask=mask, clean=CLEAN, condition=GIVEN)
        best = search.best_estimator_
    told = small(model="conditional", **search.best_params_)
    expected = told.fit(TABLE, clean=CLEAN, condition=GIVEN).transform(TABLE, condition=GIVEN)
    equal(best.transform(full, mask=mask, condition=GIVEN), expected)


def test_condition_is_routed_through_a_pipeline():
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), routed(model="conditional"))
        pipeline.fit(TABLE, condition=GIVEN)
        found = pipeline.transform(TABLE, condition=GIVEN)
    scaled = StandardScaler().fit_transform(TABLE)
    told = small(model="conditional").fit(scaled, condition=GIVEN)
    np.testing.assert_array_equal(found, told.transform(scaled, condition=GIVEN))


def test_metadata_that_nobody_asked_for():
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="mask"),
    ):
        GridSearchCV(small(), GRID, cv=KFold(2)).fit(TABLE, mask=TABLE.notna())
