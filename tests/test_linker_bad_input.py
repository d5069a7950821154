# ruff: noqa: E501 -- one case of the tables per line
"""Wrong input to PairVAELinker: one exception of the right type, its place and its remedy."""

from __future__ import annotations

import json
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError

from tsvae import PairVAELinker, VAEDenoiser
from tsvae.linker import PretrainingWarning

pytestmark = pytest.mark.usefixtures("short_epochs")

FAST = {"latent_dim": 2, "hidden_sizes": (8,), "max_epochs": 1, "random_state": 0}
N, T, U = 24, 10, 6
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((N, T)), RNG.standard_normal((N, U))
ROWS = [f"s{i}" for i in range(N)]
XF = pd.DataFrame(X, ROWS, [f"c{i}" for i in range(T)])
YF = pd.DataFrame(Y, ROWS, np.linspace(400.0, 450.0, U))
STACK = np.stack([X, -X], axis=-1)
SIGMA, Y_SIGMA = np.abs(X) + 0.1, np.abs(Y) + 0.1


def small(**settings):
    return PairVAELinker(**FAST | settings)


def changed(data, row, column, value):
    """Copy with one entry replaced."""
    if isinstance(data, pd.DataFrame):
        data = data.astype(object) if isinstance(value, str) else data.copy()
        data.iloc[row, column] = value
        return data
    data = data.copy()
    data[row, column] = value
    return data


def halves(n_y=12):
    """X in the first rows, y in the last: no sample has both."""
    first, second = X.copy(), Y.copy()
    first[12:], second[:n_y] = np.nan, np.nan
    return first, second


# What fit refuses: X, y, exception, parts of the message (the place, the remedy).
DATA = {
    "fewer rows of y": (X, Y[:5], ValueError, ["inconsistent numbers of samples: [24, 5]", "X and y hold the same samples", "has a row of NaN there"]),
    "more rows of y": (X[:5], Y, ValueError, ["[5, 24]", "a row of NaN"]),
    "rows in another order": (XF, YF[::-1], ValueError, ["The rows of y do not match those of X", "row 0 is 's23', expected 's0'", "y.loc[X.index]"]),
    "another row": (XF, YF.rename(index={"s3": "q"}), ValueError, ["row 3 is 'q', expected 's3'", "give an array if positions are meant"]),
    "Series in another order": (XF, YF[400.0][::-1], ValueError, ["The rows of y do not match", "'s23'"]),
    "no y": (X, None, ValueError, ["requires y to be passed", "y is None", "row by row"]),
    "all unpaired": (*halves(), ValueError, ["no row has both X and y", "12 rows have X alone and 12 have y alone", "at least one sample needs both"]),
    "X without a value": (X * np.nan, Y, ValueError, ["X has no observed value", "all entries are missing"]),
    "y without a value": (XF, YF * np.nan, ValueError, ["y has no observed value"]),
    "vector y without a value": (X, Y[:, 0] * np.nan, ValueError, ["y has no observed value"]),
    "X constant": (X * 0.0 + 3.0, Y, ValueError, ["X is constant", "tells records apart", "Leave that side out"]),
    "y constant": (XF, YF * 0.0, ValueError, ["y is constant", "give the records that vary"]),
    "y the same in every record": (X, np.tile(Y[:1], (N, 1)), ValueError, ["y is constant", "same in every record"]),
    "infinite X": (changed(XF, 3, 2, np.inf), YF, ValueError, ["Input X contains infinity", "column 'c2', row 3 (s3)", "X.replace([np.inf, -np.inf], np.nan)"]),
    "infinite y": (X, changed(Y, 3, 2, -np.inf), ValueError, ["Input y contains infinity", "(3, 2)", "np.where(np.isfinite(y), y, np.nan)"]),
    "infinite vector": (X, changed(Y, 3, 0, np.inf)[:, 0], ValueError, ["Input y contains infinity", "(3, 0)"]),
    "text in X": (changed(XF, 3, 2, "n/a"), YF, ValueError, ["could not convert string to float: 'n/a'", "column 'c2', row 's3' of X", "pd.to_numeric"]),
    "text in y": (XF, changed(YF, 3, 2, "n/a"), ValueError, ["'n/a'", "row 's3' of y"]),
    "labels as y": (X, ["a", "b"] * 12, ValueError, ["could not convert string to float: 'a'", "y holds strings", "encode or drop them"]),
    "y as text": (X, "spectrum", ValueError, ["could not convert string to float: 'spectrum'", "y holds strings"]),
    "y as a number": (X, 5.0, ValueError, ["Expected 2D array, got scalar array", "y"]),
    "column of X without values": (XF.assign(c3=np.nan), YF, ValueError, ["Column 'c3' of X has no observed value", "X.drop(columns=['c3'])"]),
    "column of y without values": (X, np.where(np.arange(U) == 2, np.nan, Y), ValueError, ["Column 2 of y has no observed value", "np.delete(y, 2, -1)"]),
    "X as a Series": (XF["c0"], YF, ValueError, ["Expected a 2-dimensional container", "X.to_frame()"]),
    "X of one axis": (X[0], Y, ValueError, ["Expected 2D array, got 1D array", "reshape(1, -1)"]),
    "X of four axes": (np.ones((N, 2, 2, 2)), Y, ValueError, ["dim 4", "X must be (n_records, n_steps)", "DataArray"]),
    "y of four axes": (X, np.ones((N, 2, 2, 2)), ValueError, ["dim 4", "y must be (n_records, n_steps)"]),
    "X missing": (None, Y, TypeError, ["X must be a DataFrame, Series, DataArray, Dataset or array", "NoneType"]),
    "no rows": (X[:0], Y[:0], ValueError, ["0 sample(s)", "minimum of 1 is required", "X is empty"]),
    "no rows of y": (X, Y[:0], ValueError, ["0 sample(s)", "y is empty"]),
    "no columns": (XF[[]], YF, ValueError, ["0 feature(s)", "minimum of 1 is required"]),
    "no columns of y": (X, Y[:, :0], ValueError, ["0 feature(s)", "minimum of 1 is required"]),
    "duplicate columns": (XF, YF.set_axis(["a"] * U, axis=1), ValueError, ["Column 'a' appears more than once", "duplicated()"]),
    "names of two types": (XF.rename(columns={"c0": 0}), YF, TypeError, ["['int', 'str']", "X.columns.astype(str)"]),
    "complex": (X * 1j, Y, ValueError, ["Complex data not supported: X", "real and imaginary parts"]),
    "complex y": (X, Y[:, 0] * 1j, ValueError, ["Complex data not supported: y"]),
    "sparse": (sparse.csr_array(X), Y, TypeError, ["Sparse data was passed for X", ".toarray()"]),
    "unequal rows": ([[1.0, 2.0], [3.0]], Y[:2], ValueError, ["X is a nested list of unequal lengths", "rectangular array"]),
    "unequal rows of y": (X[:2], [[1.0, 2.0], [3.0]], ValueError, ["y is a nested list of unequal lengths", "rectangular array"]),
}  # fmt: skip

# Settings that fit refuses with X and Y (or the data given).
SETTINGS = {
    "no latent_dim": ({"latent_dim": 0}, ["'latent_dim'", "[1, inf)", "Got 0"]),
    "unknown architecture": ({"architecture": "rnn"}, ["'architecture'", "'resnet'", "Got 'rnn'"]),
    "unknown architecture of y": ({"architecture": ("mlp", "rnn")}, ["architecture must be 'auto', 'conv', 'resnet' or 'mlp', or a pair", "'rnn'"]),
    "three architectures": ({"architecture": ("mlp",) * 3}, ["architecture must be one value for both sides or a pair (X, y)", "got 3 values"]),
    "networks of one's own": ({"architecture": (torch.nn.Linear(1, 1),) * 2}, ["architecture must be 'auto'", "Linear"]),
    "unknown latent": ({"latent": "grid"}, ["'latent'", "'map'", "Got 'grid'"]),
    "map of a dense code": ({"latent": "map", "architecture": "mlp", "y": X}, ["latent='map'", "architecture='mlp'", "latent='vector'"]),
    "map of other lengths": ({"latent": "map"}, ["latent='map'", "X have 10 steps and those of y 6", "Interpolate one side", "latent='vector'"]),
    "map of other stages": ({"latent": "map", "hidden_sizes": ((4, 4), (4, 4, 4)), "y": X}, ["codes of the two sides must have one shape", "the same stages"]),
    "empty layer": ({"hidden_sizes": [8, 0]}, ["hidden_sizes[1] must be a positive integer", "got 0", "None chooses"]),
    "empty layer of y": ({"hidden_sizes": (None, (8, 0))}, ["hidden_sizes[1] must be a positive integer, got 0"]),
    "layers as a number": ({"hidden_sizes": 8}, ["'hidden_sizes'", "array-like", "Got 8"]),
    "layers of one side": ({"hidden_sizes": ((8,),)}, ["hidden_sizes must be one value for both sides or a pair", "got 1 values"]),
    "half a pair of layers": ({"hidden_sizes": [None, 8]}, ["widths of both sides", "((64,), None)", "got [None, 8]"]),
    "unknown activation": ({"activation": "swoosh"}, ["activation='swoosh' is not known", "gelu"]),
    "even kernel": ({"kernel_size": 4}, ["kernel_size must be odd, got 4"]),
    "counts": ({"likelihood": "poisson"}, ["likelihood='poisson' is for counts", "choose 'gaussian'"]),
    "unknown likelihood of y": ({"likelihood": ("gaussian", "gamma")}, ["likelihood='gamma' is not known", "choose one of"]),
    "calibrated Student-t": ({"likelihood": ("gaussian", "student_t"), "scale": "calibrated"}, ["scale='calibrated'", "'student_t'", "scale='learned'"]),
    "unknown scale": ({"scale": "guessed"}, ["'scale'", "'learned'", "Got 'guessed'"]),
    "unknown scaling": ({"scaling": ("auto", "row")}, ["scaling must be 'auto', 'profile', 'variable' or 'column', or a pair", "got 'row'"]),
    "log_scale of text": ({"log_scale": ("yes", "no")}, ["log_scale must be True or False, or a pair", "got 'yes'"]),
    "three log_scales": ({"log_scale": [True, False, True]}, ["log_scale must be one value for both sides or a pair", "got 3 values"]),
    "three weights": ({"weights": (1, 1, 1)}, ["weights must be four numbers, of X from X, y from y, y from X and X from y", "got (1, 1, 1)"]),
    "weight of text": ({"weights": (1, 1, 1, "a")}, ["weights must be four numbers", "'a'"]),
    "negative weight": ({"weights": (1, -1, 1, 1)}, ["weights must be finite numbers >= 0", "(1, -1, 1, 1)"]),
    "infinite weight": ({"weights": (1, np.inf, 1, 1)}, ["weights must be finite numbers >= 0"]),
    "no weight": ({"weights": (0, 0, 0, 0)}, ["not all 0", "(0, 0, 0, 0)"]),
    "fewer region weights": ({"x_regions": np.ones(3)}, ["x_regions must have one weight for each of the 10 positions", "shape (3,)", "{(low, high): weight}"]),
    "more region weights": ({"y_regions": np.ones(T)}, ["y_regions must have one weight for each of the 6 positions", "(10,)"]),
    "negative region": ({"x_regions": -np.ones(T)}, ["x_regions must be finite numbers >= 0"]),
    "negative region of the axis": ({"y_regions": {(0, 2): -1.0}}, ["y_regions must be finite numbers >= 0", "-1.0"]),
    "no region counts": ({"x_regions": {(0, 9): 0.0}}, ["not all 0", "x_regions"]),
    "region outside the axis": ({"y_regions": {(500.0, 600.0): 2.0}, "X": XF, "y": YF}, ["y_regions: the region (500, 600) holds no position", "from 400 to 450"]),
    "region the wrong way round": ({"x_regions": {(5, 2): 2.0}}, ["x_regions: the region (5, 2) holds no position", "from 0 to 9"]),
    "negative beta": ({"beta": -1.0}, ["'beta'", "[0.0, inf)", "Got -1.0"]),
    "NaN beta": ({"beta": np.nan}, ["'beta'", "Got nan"]),
    "negative barlow_weight": ({"barlow_weight": -1.0}, ["'barlow_weight'", "[0.0, inf)"]),
    "negative barlow_lambda": ({"barlow_lambda": -1.0}, ["'barlow_lambda'", "[0.0, inf)"]),
    "empty projector layer": ({"projector": [8, 0]}, ["projector[1] must be at least 1, got 0"]),
    "no pairs in batches": ({"paired_share": 0.0}, ["'paired_share'", "(0.0, 1.0)"]),
    "negative pretrain_epochs": ({"pretrain_epochs": -1}, ["'pretrain_epochs'", "[0, inf)"]),
    "freeze of nothing": ({"freeze": "X"}, ["freeze keeps networks as pre-training left them", "set pretrain_epochs, or freeze=None"]),
    "unknown freeze": ({"freeze": "Z"}, ["'freeze'", "'both'", "Got 'Z'"]),
    "unfreeze of nothing": ({"unfreeze_epochs": 3}, ["unfreeze_epochs needs freeze='X', 'y' or 'both'"]),
    "batches of one": ({"batch_size": 1}, ["'batch_size'", "[2, inf)", "Got 1"]),
    "all validation": ({"validation_fraction": 1.0}, ["'validation_fraction'", "[0.0, 1.0)"]),
    "unknown rate": ({"learning_rate": "fast"}, ["'learning_rate'", "'auto'", "Got 'fast'"]),
    "no epochs": ({"max_epochs": 0}, ["'max_epochs'", "[1, inf)"]),
    "unknown device": ({"device": "tpu"}, ["device", "'cpu', 'cuda'", "got 'tpu'"]),
    "unknown time": ({"time": "day", "X": XF}, ["time='day' is neither a column nor an index level", "'c0'"]),
    "time of an array": ({"time": "day"}, ["time='day' needs labels", "DataFrame"]),
    "random_state of text": ({"random_state": "x"}, ["'random_state'", "an int", "Got 'x'"]),
}  # fmt: skip

# What comes beside X and y: keywords of fit, exception, parts of the message.
BESIDE = {
    "mask: another shape": ({"mask": np.ones((3, 2), bool)}, ValueError, ["mask has shape (3, 2), but X has shape (24, 10)"]),
    "y_mask: another shape": ({"y_mask": np.ones((3, 2), bool)}, ValueError, ["mask has shape (3, 2), but y has shape (24, 6)"]),
    "mask: nothing observed": ({"mask": np.zeros((N, T), bool)}, ValueError, ["X has no observed value"]),
    "mask: of shares": ({"mask": np.full((N, T), 0.5)}, TypeError, ["mask must hold booleans (True = observed), got 0.5"]),
    "masks: no pair": ({"mask": np.isfinite(halves()[0]), "y_mask": np.isfinite(halves()[1])}, ValueError, ["no row has both X and y"]),
    "mask: lacks a row": ({"X": XF, "mask": XF[1:].notna()}, ValueError, ["mask lacks row", "'s0'"]),
    "sigma: zero": ({"sigma": changed(SIGMA, 3, 2, 0.0)}, ValueError, ["sigma must be greater than 0 wherever a value is observed", "row 3"]),
    "sigma: negative": ({"y_sigma": changed(Y_SIGMA, 3, 2, -1.0)}, ValueError, ["y_sigma must be greater than 0", "row 3"]),
    "sigma: missing": ({"sigma": changed(SIGMA, 5, 2, np.nan)}, ValueError, ["sigma must be greater than 0", "row 5", "missing or not positive"]),
    "sigma: infinite": ({"sigma": changed(SIGMA, 5, 2, np.inf)}, ValueError, ["Input sigma contains infinity", "(5, 2)"]),
    "sigma: fewer rows": ({"sigma": SIGMA[:5]}, ValueError, ["sigma must hold one error bar for each value", "(5, 10, 1)", "(24, 10, 1)"]),
    "sigma: fewer columns": ({"y_sigma": Y_SIGMA[:, :2]}, ValueError, ["y_sigma must hold one error bar for each value", "(24, 2, 1)", "(24, 6, 1)"]),
    "sigma: one per record": ({"sigma": SIGMA[:, 0]}, ValueError, ["sigma must hold one error bar for each value", "(24, 1, 1)"]),
    "sigma: a number": ({"sigma": 0.1}, ValueError, ["sigma must hold one error bar for each value, got 0.1", "np.full"]),
    "sigma: text": ({"sigma": np.full((N, T), "a")}, ValueError, ["could not convert string to float: 'a'", "sigma"]),
    "sigma: rows in another order": ({"X": XF, "sigma": (XF.abs() + 0.1)[::-1]}, ValueError, ["The rows of sigma do not match", "row 0 is 's23', expected 's0'"]),
    "sigma: other columns": ({"X": XF, "sigma": (XF.abs() + 0.1).rename(columns={"c1": "z"})}, ValueError, ["unseen at fit time:\n- z", "now missing:\n- c1"]),
    "sigma: another axis": ({"y": YF, "y_sigma": (YF.abs() + 0.1).set_axis(np.arange(U), axis=1)}, ValueError, ["axis values of y_sigma differ", "position 0 is 0, expected 400.0"]),
}  # fmt: skip

# What a fitted one refuses.
USE = {
    "other columns": (lambda m: m.table.predict(XF.rename(columns={"c1": "q"})), ValueError, ["unseen at fit time:\n- q", "now missing:\n- c1"]),
    "fewer columns": (lambda m: m.table.transform(XF[["c0"]]), ValueError, ["now missing:\n- c1"]),
    "columns in another order": (lambda m: m.table.predict(XF[XF.columns[::-1]]), ValueError, ["must be in the same order as they were in fit"]),
    "another axis of y": (lambda m: m.table.predict_inverse(YF.set_axis(np.linspace(410.0, 460.0, U), axis=1)), ValueError, ["axis values of y differ", "position 0 is 410.0, expected 400.0", "Interpolate y"]),
    "fewer columns of an array": (lambda m: m.array.predict(X[:, :3]), ValueError, ["X has 3 features, but PairVAELinker is expecting 10"]),
    "y for X": (lambda m: m.array.predict(Y), ValueError, ["X has 6 features", "expecting 10"]),
    "X for y": (lambda m: m.array.predict_inverse(X), ValueError, ["y has 10 features", "expecting 6"]),
    "vector for a table": (lambda m: m.array.predict_inverse(Y[:, 0]), ValueError, ["y has 1 features", "expecting 6"]),
    "shorter records": (lambda m: m.stack.predict(STACK[:, :4]), ValueError, ["X has 4 time steps", "expecting 10", "fill up shorter ones with NaN"]),
    "fewer variables": (lambda m: m.stack.sample(STACK[..., :1]), ValueError, ["X has 1 features", "expecting 2"]),
    "no rows": (lambda m: m.table.predict(XF[:0]), ValueError, ["0 sample(s)", "X is empty"]),
    "infinite": (lambda m: m.table.predict(changed(XF, 3, 2, np.inf)), ValueError, ["column 'c2', row 3", "np.nan"]),
    "infinite y": (lambda m: m.table.link(XF, changed(YF, 3, 2, np.inf)), ValueError, ["Input y contains infinity", "row 3"]),
    "text": (lambda m: m.table.out_of_range(changed(XF, 3, 2, "x")), ValueError, ["column 'c2', row 's3' of X"]),
    "nothing": (lambda m: m.table.predict(None), TypeError, ["X must be a DataFrame", "NoneType"]),
    "nothing for y": (lambda m: m.table.predict_inverse(None), TypeError, ["y must be a DataFrame", "NoneType"]),
    "mask of another shape": (lambda m: m.table.predict(XF, mask=np.ones((3, 2), bool)), ValueError, ["mask has shape (3, 2)"]),
    "coverage 0": (lambda m: m.table.predict_interval(XF, 0), ValueError, ["coverage must be between 0 and 1, got 0"]),
    "coverage 1": (lambda m: m.table.predict_interval_inverse(YF, 1.0), ValueError, ["coverage must be between 0 and 1, got 1.0"]),
    "coverage in per cent": (lambda m: m.table.predict_interval(XF, 90), ValueError, ["coverage must be between 0 and 1, got 90"]),
    "coverage of text": (lambda m: m.table.predict_interval(XF, "a"), ValueError, ["coverage must be between 0 and 1, got 'a'"]),
    "coverage NaN": (lambda m: m.table.predict_interval(XF, np.nan), ValueError, ["coverage must be between 0 and 1, got nan"]),
    "no sample": (lambda m: m.table.sample(XF, 0), ValueError, ["n_samples must be at least 1, got 0"]),
    "sample of text": (lambda m: m.table.sample_inverse(YF, "a"), TypeError, ["n_samples must be a positive integer, got 'a'"]),
    "half a sample": (lambda m: m.table.sample(XF, 2.5), TypeError, ["n_samples must be a positive integer, got 2.5"]),
    "no match": (lambda m: m.table.link(XF, YF, n_best=0), ValueError, ["n_best must be at least 1, got 0"]),
    "match of text": (lambda m: m.table.link(XF, YF, n_best="all"), TypeError, ["n_best must be a positive integer, got 'all'"]),
    "correlation of other rows": (lambda m: m.table.cross_correlation(XF, YF[:5]), ValueError, ["inconsistent numbers of samples: [24, 5]"]),
    "correlation of rows in another order": (lambda m: m.table.cross_correlation(XF, YF[::-1]), ValueError, ["The rows of y do not match", "y.loc[X.index]"]),
    "correlation of no pairs": (lambda m: m.array.cross_correlation(*halves()), ValueError, ["no row has both X and y"]),
    "score of other rows": (lambda m: m.table.score(XF, YF[:5]), ValueError, ["inconsistent numbers of samples: [24, 5]"]),
    "score of rows in another order": (lambda m: m.table.score(XF, YF[::-1]), ValueError, ["The rows of y do not match"]),
    "score of nothing": (lambda m: m.table.score(XF, YF * np.nan), ValueError, ["no column with two observed values", "nothing to score"]),
    "score without y": (lambda m: m.table.score(XF, None), TypeError, ["y must be a DataFrame", "NoneType"]),
    "fewer weights": (lambda m: m.table.score(XF, YF, np.ones(3)), ValueError, ["sample_weight must hold one number, 0 or more", "24 records", "(3,)"]),
    "negative weights": (lambda m: m.table.score(XF, YF, -np.ones(N)), ValueError, ["sample_weight must hold one number, 0 or more"]),
    "missing weights": (lambda m: m.table.score(XF, YF, np.full(N, np.nan)), ValueError, ["sample_weight must hold one number, 0 or more"]),
}  # fmt: skip


def refused(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert part in message, (part, message)
    return caught.value


@pytest.mark.parametrize(("first", "second", "error", "parts"), DATA.values(), ids=DATA)
def test_data(first, second, error, parts):
    assert type(refused(lambda: small().fit(first, second), error, parts)) is error


@pytest.mark.parametrize(("settings", "parts"), SETTINGS.values(), ids=SETTINGS)
def test_settings(settings, parts):
    settings = dict(settings)
    data = settings.pop("X", X), settings.pop("y", Y)
    refused(lambda: small(**settings).fit(*data), ValueError, parts)


TYPES = {
    "callbacks": ({"callbacks": [3]}, ["callbacks", "on_epoch_end", "3"]),
    "half a projector layer": ({"projector": [8.5]}, ["projector[0] must be an integer, got 8.5"]),
    "regions of text": ({"x_regions": {"low": 1.0}}, ["x_regions must map regions (low, high) to numbers", "'low'"]),
    "region weight of text": ({"y_regions": {(0, 2): "much"}}, ["y_regions must map regions", "'much'"]),
    "region weights of text": ({"y_regions": ["a"] * U}, ["y_regions must be a mapping {(low, high): weight} or 6 numbers"]),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "parts"), TYPES.values(), ids=TYPES)
def test_settings_of_the_wrong_type(settings, parts):
    assert type(refused(lambda: small(**settings).fit(X, Y), TypeError, parts)) is TypeError


@pytest.mark.parametrize(("given", "error", "parts"), BESIDE.values(), ids=BESIDE)
def test_beside_the_data(given, error, parts):
    given = {"X": X, "y": Y} | given
    assert type(refused(lambda: small().fit(**given), error, parts)) is error


@pytest.fixture(scope="module")
def models():
    return SimpleNamespace(
        table=small().fit(XF, YF), array=small().fit(X, Y), stack=small().fit(STACK, Y)
    )


@pytest.mark.parametrize(("call", "error", "parts"), USE.values(), ids=USE)
def test_use(models, call, error, parts):
    assert type(refused(lambda: call(models), error, parts)) is error


def test_a_refused_fit_leaves_the_last_one():
    estimator = small().fit(XF, YF)
    before = estimator.predict(XF)
    refused(lambda: estimator.fit(XF, YF[::-1]), ValueError, ["The rows of y"])
    refused(lambda: estimator.fit(XF, np.zeros(N)), ValueError, ["y is constant"])
    pd.testing.assert_frame_equal(estimator.predict(XF), before)


def test_pretraining_that_has_not_settled_warns():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small(pretrain_epochs=2).fit(X, Y)
    assert {each.category for each in caught} == {PretrainingWarning}
    for each, name in zip(caught, "Xy", strict=True):
        assert f"Pre-training of {name} had not settled after 2 epochs" in str(each.message)
        assert "Raise pretrain_epochs" in str(each.message) and each.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small().fit(X, Y)


def test_names_on_one_side_only_warn(models):
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        models.table.predict(X)


# -- files ------------------------------------------------------------------------------------


def rewrite(path, change_header=None, change_tensors=None):
    """Read a model file, change it, and write it back."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["tsvae"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if change_header is not None:
        header = change_header(header) or header
    if change_tensors is not None:
        change_tensors(tensors)
    save_file(tensors, path, metadata={"tsvae": json.dumps(header)})


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def foreign(path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, path)


def denoiser(path):
    VAEDenoiser(latent_dim=2, hidden_sizes=(8,), max_epochs=1, random_state=0).fit(X).save(path)


FILES = {
    "cut in half": (lambda path: cut(path, 0.5), ["is damaged", "copy it anew"]),
    "empty": (lambda path: cut(path, 0.0), ["is damaged", "copy it anew"]),
    "text": (lambda path: path.write_text("load,wind\n" * 50), ["is damaged or no model file", "save()"]),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1.0] * 99)), ["is damaged or no model file", "save()"]),
    "foreign": (foreign, ["was not written by tsvae", "the library that wrote it"]),
    "of a denoiser": (denoiser, ["holds a VAEDenoiser, not a PairVAELinker", "VAEDenoiser.load()"]),
    "newer": (lambda path: rewrite(path, lambda h: h.update(format=99)), ["has format 99", "update tsvae"]),
    "no parameters": (lambda path: rewrite(path, lambda h: h.pop("parameters") and None), ["incomplete", "'parameters'", "save()"]),
    "no designs": (lambda path: rewrite(path, lambda h: h.pop("designs") and None), ["incomplete", "'designs'", "save()"]),
    "one side's design": (lambda path: rewrite(path, lambda h: h["designs"].pop("b") and None), ["incomplete", "'b'", "save()"]),
    "no form of y": (lambda path: rewrite(path, lambda h: h.pop("y_form") and None), ["incomplete", "'y_form'", "save()"]),
    "no scaler": (lambda path: rewrite(path, lambda h: h["scales"]["b"]["scaler"].pop("spread") and None), ["incomplete", "'spread'", "save()"]),
    "index of another kind": (lambda path: rewrite(path, lambda h: h["scales"]["a"]["index"].update(kind="tree")), ["incomplete or damaged", "'tree'", "save()"]),
    "another size": (lambda path: rewrite(path, lambda h: h["designs"]["a"].update(hidden_sizes=[7])), ["incomplete or damaged", "size mismatch", "save()"]),
    "codes of other sizes": (lambda path: rewrite(path, lambda h: h["designs"]["a"].update(latent_dim=7)), ["incomplete or damaged", "one shape", "save()"]),
    "no weight": (lambda path: rewrite(path, None, lambda t: t.pop(next(n for n in t if n.startswith("model.a.")))), ["incomplete", "Missing key", "save()"]),
    "no spread": (lambda path: rewrite(path, None, lambda t: t.pop("spread_a.noise")), ["incomplete", "noise", "save()"]),
    "no range": (lambda path: rewrite(path, None, lambda t: t.pop("range_b.location")), ["incomplete", "location", "save()"]),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "parts"), FILES.values(), ids=FILES)
def test_file(models, tmp_path, damage, parts):
    path = tmp_path / "model.tsvae"
    models.table.save(path)
    damage(path)
    error = refused(lambda: PairVAELinker.load(path), ValueError, [str(path), *parts])
    assert type(error) is ValueError


def test_a_denoiser_refuses_the_file_of_a_linker(models, tmp_path):
    models.table.save(tmp_path / "m.tsvae")
    parts = ["holds a PairVAELinker, not a VAEDenoiser", "PairVAELinker.load()"]
    refused(lambda: VAEDenoiser.load(tmp_path / "m.tsvae"), ValueError, parts)


def test_file_that_is_not_there(tmp_path):
    refused(lambda: PairVAELinker.load(tmp_path / "none"), FileNotFoundError, ["none", "save"])


def test_unfitted_use(tmp_path):
    parts = ["This PairVAELinker instance is not fitted yet", "Call 'fit'"]
    for call in (
        lambda m: m.save(tmp_path / "m.tsvae"),
        lambda m: m.predict(XF),
        lambda m: m.predict_inverse(YF),
        lambda m: m.link(XF, YF),
        lambda m: m.sample(XF),
    ):
        refused(lambda call=call: call(small()), NotFittedError, parts)
    assert not list(tmp_path.iterdir())


def test_the_table_is_long():
    assert sum(map(len, (DATA, SETTINGS, TYPES, BESIDE, USE, FILES))) >= 150
