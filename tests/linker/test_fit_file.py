"""A linker that is saved and loaded does what it did, bit for bit."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from tsvae import PairVAELinker
from tsvae._linker.fit_file import pack, unpack
from tsvae._linker.fitting import PretrainingWarning

N, STEPS_X, STEPS_Y = 30, 36, 7
pytestmark = pytest.mark.usefixtures("short_epochs")

FAST = {"latent_dim": 2, "hidden_sizes": (8,), "max_epochs": 1, "random_state": 0}


def records(unpaired=False):
    rng = np.random.default_rng(0)
    size = rng.uniform(1.0, 2.0, (N, 1))
    X = np.sin(size * np.linspace(0.0, 5.0, STEPS_X)) + 0.05 * rng.standard_normal((N, STEPS_X))
    y = np.exp(-size * np.linspace(0.0, 2.0, STEPS_Y)) + 0.01 * rng.standard_normal((N, STEPS_Y))
    if unpaired:
        X[22:26], y[26:] = np.nan, np.nan
        X[:22][rng.random((22, STEPS_X)) < 0.1] = np.nan
    return X, y


def fit(X, y, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PretrainingWarning)
        return PairVAELinker(**FAST | settings).fit(X, y)


def results(linker, X, y):
    """What every method of a fitted linker gives, by name, as arrays."""
    link = linker.link(X, y, n_best=3)
    found = {
        "predict": linker.predict(X),
        "predict_inverse": linker.predict_inverse(y),
        "sample": linker.sample(X, 3),
        "sample_inverse": linker.sample_inverse(y, 3),
        "upper": linker.predict_interval(X[:5]).upper,
        "transform": linker.transform(X),
        "transform_y": linker.transform(X, y)[1],
        "scores": link.scores,
        "best": link.best,
        "assignment": link.assignment,
        "out_of_range": linker.out_of_range(X),
        "out_of_range_inverse": linker.out_of_range_inverse(y * 9),
        "cross_correlation": linker.cross_correlation(X, y),
        "active": linker.active_units_,
    }
    return {name: np.asarray(value) for name, value in found.items()}


SETTINGS = {
    "plain": {},
    "projector": {"projector": (6, 4)},
    "logarithms": {"log_scale": (True, False)},
    "regions": {
        "scale": "calibrated",
        "x_regions": {(3, 9): 4.0},
        "y_regions": np.arange(1.0, 8.0),
    },
    "pairs of options": {
        "hidden_sizes": ((8, 6), (5,)),
        "likelihood": ("laplace", "gaussian"),
        "scaling": ("variable", "column"),
        "architecture": ("conv", "mlp"),
    },
    "stages": {
        **{"pretrain_epochs": 1, "freeze": "X", "unfreeze_epochs": 1, "weights": [1, 2, 3, 0]},
        **{"likelihood": ("bernoulli", "student_t"), "spectral_norm": True},
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_loaded_linker_does_the_same(name, tmp_path):
    settings = SETTINGS[name]
    linker = fit(*records(unpaired=name in ("plain", "projector")), **settings)
    linker.save(tmp_path / "linker.tsvae")
    state = torch.get_rng_state()
    twin = PairVAELinker.load(tmp_path / "linker.tsvae")
    assert torch.equal(torch.get_rng_state(), state)
    data = records()
    one, two = (results(which, *data) for which in (linker, twin))
    for part, value in one.items():
        np.testing.assert_array_equal(two[part], value, err_msg=part)
    assert twin.training_log_ == linker.training_log_
    assert twin.pretraining_log_ == linker.pretraining_log_
    assert (twin.n_features_in_, twin.n_latent_) == (linker.n_features_in_, linker.n_latent_)
    assert not any(p.requires_grad for p in twin.model_.parameters())
    assert not twin.model_.training
    np.testing.assert_equal(twin.get_params(), _as_in_a_file(linker.get_params()))
    twin.save(tmp_path / "again.tsvae")
    again = PairVAELinker.load(tmp_path / "again.tsvae")
    np.testing.assert_array_equal(again.predict(data[0]), one["predict"])


def _as_in_a_file(params):
    """Parameters whose arrays are lists."""
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in params.items()}


def test_a_map_of_codes(tmp_path):
    X, _ = records()
    y = np.cos(X)
    linker = fit(X, y, latent="map", hidden_sizes=(4, 4))
    linker.save(tmp_path / "linker.tsvae")
    twin = PairVAELinker.load(tmp_path / "linker.tsvae")
    np.testing.assert_array_equal(twin.predict(X), linker.predict(X))
    np.testing.assert_array_equal(twin.sample(X, 2), linker.sample(X, 2))
    np.testing.assert_array_equal(twin.link(X, y).scores, linker.link(X, y).scores)


def test_containers_and_labels_come_back(tmp_path):
    X, y = records()
    rows = pd.Index([f"r{i}" for i in range(N)], name="sample")
    frame = pd.DataFrame(X, index=rows, columns=np.linspace(0.1, 3.6, STEPS_X))
    series = pd.Series(y[:, 2], index=rows, name="peak")
    linker = fit(frame, series)
    linker.save(tmp_path / "linker.tsvae")
    twin = PairVAELinker.load(tmp_path / "linker.tsvae")
    found = twin.predict(frame)
    assert isinstance(found, pd.Series) and found.name == "peak" and found.index.equals(rows)
    assert found.equals(linker.predict(frame))
    assert_frame_equal(twin.predict_inverse(series), linker.predict_inverse(series))
    with pytest.raises(ValueError, match="axis values of X differ"):
        twin.predict(frame.iloc[:, ::-1].set_axis(range(STEPS_X), axis=1))


def test_header_is_json_and_tensors_are_tensors():
    linker = fit(*records(), projector=(4,), log_scale=True)
    header, tensors = pack(linker._fit)
    assert all(isinstance(t, torch.Tensor) for t in tensors.values())
    through = json.loads(json.dumps(header))
    params = linker.get_params(deep=False)
    twin = unpack(through, tensors, params)
    for name, value in linker._fit.model.state_dict().items():
        assert torch.equal(twin.model.state_dict()[name], value)
    again, _ = pack(twin)
    assert json.dumps(again) == json.dumps(header)
    assert twin.model.projector_sizes == (4,)


def test_what_is_missing_in_a_file_is_an_error(tmp_path):
    linker = fit(*records())
    header, tensors = pack(linker._fit)
    params = linker.get_params(deep=False)
    for name in ("model.a.mean_head.weight", "spread_b.factor", "range_a.whitening"):
        rest = {key: value for key, value in tensors.items() if key != name}
        with pytest.raises((RuntimeError, LookupError, TypeError)):
            unpack(header, rest, params)
    with pytest.raises(KeyError):
        unpack({k: v for k, v in header.items() if k != "scales"}, tensors, params)
