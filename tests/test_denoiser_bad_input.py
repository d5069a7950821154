# ruff: noqa: E501 -- one case of the tables per line
"""Wrong input to VAEDenoiser: one exception of the right type, its place and its remedy."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError

from tsvae import SVAEForecaster, VAEDenoiser

pytestmark = pytest.mark.usefixtures("short_epochs")

FAST = {
    "latent_dim": 2,
    "architecture": "mlp",
    "hidden_sizes": (8,),
    "max_epochs": 1,
    "n_importance_samples": 3,
    "random_state": 0,
}
N, T = 24, 10
VALUES = np.random.default_rng(0).standard_normal((N, T))
TABLE = pd.DataFrame(VALUES, columns=[f"c{i}" for i in range(T)], index=[f"s{i}" for i in range(N)])
SPECTRA = TABLE.set_axis(np.linspace(0.1, 1.0, T), axis=1)
STACK = np.stack([VALUES, -VALUES], axis=-1)
GIVEN = pd.DataFrame({"group": ["a", "b"] * (N // 2), "dose": np.arange(24.0)}, index=TABLE.index)
STAMPS = pd.date_range("2024-01-01", periods=60, freq="h")
LONG = pd.DataFrame(np.resize(VALUES, (60, 2)), columns=["a", "b"], index=STAMPS)
LAYER = torch.nn.Linear(1, 1)


def small(**settings):
    return VAEDenoiser(**FAST | settings)


def told(**settings):
    return small(model="conditional", **settings)


def with_entry(value):
    table = TABLE.astype(object) if isinstance(value, str) else TABLE.copy()
    table.iloc[3, 2] = value
    return table


JITTER = STAMPS + pd.to_timedelta([0, 7, 3] + [0] * 57, "s")

# What fit refuses: X, exception, parts of the message (the place, the remedy).
DATA = {
    "infinite": (with_entry(np.inf), ValueError, ["column 'c2', row 3 (s3) is inf", "X.replace([np.inf, -np.inf], np.nan)"]),
    "infinite in an array": (np.where(VALUES > 2, np.inf, VALUES), ValueError, ["(7, 9) is inf", "np.where(np.isfinite(X), X, np.nan)"]),
    "text": (with_entry("n/a"), ValueError, ["could not convert string to float: 'n/a'", "column 'c2', row 's3'", "pd.to_numeric"]),
    "column without values": (TABLE.assign(c3=np.nan), ValueError, ["Column 'c3' of X has no observed value", "X.drop(columns=['c3'])"]),
    "no value at all": (TABLE * np.nan, ValueError, ["X has no observed value", "all entries are missing"]),
    "a Series": (TABLE["c0"], ValueError, ["Expected a 2-dimensional container", "X.to_frame().T for one record"]),
    "one dim": (VALUES[0], ValueError, ["Expected 2D array, got 1D array", "reshape(1, -1)"]),
    "four dims": (np.ones((2, 2, 2, 2)), ValueError, ["dim 4", "(n_records, n_steps, n_variables)", "DataArray"]),
    "nothing": (None, TypeError, ["X must be a DataFrame, Series, DataArray, Dataset or array", "NoneType"]),
    "duplicate columns": (TABLE.set_axis(["a"] * T, axis=1), ValueError, ["Column 'a' appears more than once", "duplicated()"]),
    "names of two types": (TABLE.rename(columns={"c0": 0}), TypeError, ["['int', 'str']", "X.columns.astype(str)"]),
    "no rows": (TABLE[:0], ValueError, ["0 sample(s)", "minimum of 1 is required", "X is empty"]),
    "no columns": (TABLE[[]], ValueError, ["0 feature(s)", "minimum of 1 is required"]),
    "complex": (VALUES * 1j, ValueError, ["Complex data not supported: X", "real and imaginary parts"]),
    "sparse": (sparse.csr_array(VALUES), TypeError, ["Sparse data was passed for X", ".toarray()"]),
    "unequal rows": ([[1.0, 2.0], [3.0]], ValueError, ["nested list of unequal lengths", "rectangular array"]),
}  # fmt: skip

# Settings that fit refuses with TABLE (or the data given).
SETTINGS = {
    "no latent_dim": ({"latent_dim": 0}, ["'latent_dim'", "[1, inf)", "Got 0"]),
    "unknown model": ({"model": "gan"}, ["'model'", "'vae'", "Got 'gan'"]),
    "unknown architecture": ({"architecture": "rnn"}, ["'architecture'", "'resnet'", "Got 'rnn'"]),
    "networks of the wrong size": ({"architecture": (LAYER, LAYER)}, ["architecture=(encoder, decoder)", "encoder gets (B, 10, 2)", "decoder gets codes (B, 2) and gives (B, 10, 1)"]),
    "networks for a ladder": ({"architecture": (LAYER, LAYER), "model": "hierarchical"}, ["model='hierarchical' builds networks of its own", "architecture='conv'"]),
    "levels without stages": ({"model": "hierarchical", "architecture": "conv"}, ["2 latent levels", "hidden_sizes=(8,)", "lower n_levels"]),
    "map of a dense code": ({"latent": "map"}, ["latent='map'", "architecture='mlp'", "latent='vector'"]),
    "unknown output": ({"output": "x"}, ["'output'", "'latent'", "Got 'x'"]),
    "no window": ({"window": 0, "X": LONG}, ["'window'", "[1, inf)", "Got 0"]),
    "window longer than the data": ({"window": 61, "X": LONG}, ["window=61 is longer than the longest series, 60 steps", "choose a shorter window"]),
    "columns of windows": ({"window": 16, "scaling": "column", "X": LONG}, ["scaling='column' is for records", "use scaling='variable'"]),
    "windows of unsorted rows": ({"window": 16, "X": LONG[::-1]}, ["not sorted: row 1", "X.sort_index()"]),
    "windows of jittered stamps": ({"window": 16, "X": LONG.set_axis(JITTER)}, ["Cannot infer one time step of X", "freq="]),
    "unknown freq": ({"window": 16, "freq": "fortnight", "X": LONG}, ["freq='fortnight' is not a pandas frequency", "'15min'"]),
    "unknown time": ({"time": "day"}, ["time='day' is neither a column nor an index level", "'c0'"]),
    "time of an array": ({"time": "day", "X": VALUES}, ["time='day' needs labels", "DataFrame"]),
    "sigmoid twice": ({"final_sigmoid": True, "likelihood": "bernoulli"}, ["final_sigmoid and likelihood='bernoulli' exclude each other", "set final_sigmoid=False"]),
    "counts": ({"likelihood": "poisson"}, ["likelihood='poisson' is for counts", "choose 'gaussian'"]),
    "unknown likelihood": ({"likelihood": "gamma"}, ["likelihood='gamma' is not known", "choose one of"]),
    "calibrated Student-t": ({"likelihood": "student_t", "scale": "calibrated"}, ["scale='calibrated'", "'student_t'", "scale='learned'"]),
    "unknown activation": ({"activation": "swoosh"}, ["activation='swoosh' is not known", "gelu"]),
    "even kernel": ({"kernel_size": 4}, ["kernel_size must be odd, got 4"]),
    "empty layer": ({"hidden_sizes": [8, 0]}, ["hidden_sizes[1] must be a positive integer", "got 0"]),
    "layers as a number": ({"hidden_sizes": 8}, ["'hidden_sizes'", "array-like", "Got 8"]),
    "everything hidden": ({"mask_fraction": 1.0}, ["'mask_fraction'", "[0.0, 1.0)", "Got 1.0"]),
    "blocks as long as records": ({"block_length": 10}, ["block_length=10 must be less than the 10 steps"]),
    "unknown supervision": ({"self_supervision": "noise"}, ["'self_supervision'", "'blind_spot'", "Got 'noise'"]),
    "negative beta": ({"beta": -1.0}, ["'beta'", "[0.0, inf)", "Got -1.0"]),
    "NaN beta": ({"beta": np.nan}, ["'beta'", "Got nan"]),
    "negative noise": ({"noise_scale": -1.0}, ["'noise_scale'", "[0.0, inf)"]),
    "free bits of iwae": ({"objective": "iwae", "free_bits": 0.5}, ["free_bits needs objective='elbo'", "free_bits=0"]),
    "one code": ({"n_codes": 1}, ["'n_codes'", "[2, inf)", "Got 1"]),
    "all validation": ({"validation_fraction": 1.0}, ["'validation_fraction'", "[0.0, 1.0)"]),
    "unknown rate": ({"learning_rate": "fast"}, ["'learning_rate'", "'auto'", "Got 'fast'"]),
    "unknown device": ({"device": "tpu"}, ["device", "'cpu', 'cuda'", "got 'tpu'"]),
    "no such device": ({"device": "cuda:99"}, ["device='cuda:99' is not available", "device='cpu'"]),
    "random_state of text": ({"random_state": "x"}, ["'random_state'", "an int", "Got 'x'"]),
}  # fmt: skip

# What comes beside X.
BESIDE = {
    "clean: fewer rows": (lambda: small().fit(VALUES, clean=VALUES[:5]), ["clean must hold the clean signals of X", "(5, 10, 1)", "(24, 10, 1)"]),
    "clean: fewer columns": (lambda: small().fit(VALUES, clean=VALUES[:, :5]), ["clean has 5 features", "expecting 10"]),
    "clean: fewer axes": (lambda: small().fit(VALUES, clean=VALUES[:, 0]), ["clean must hold", "(24, 10)", "got (24,)"]),
    "clean: other columns": (lambda: small().fit(TABLE, clean=TABLE.rename(columns={"c0": "z"})), ["unseen at fit time:\n- z"]),
    "clean: rows in another order": (lambda: small().fit(TABLE, clean=TABLE[::-1]), ["The rows of clean do not match", "row 0 is 's23', expected 's0'", "clean.loc[X.index]"]),
    "clean: another row": (lambda: small().fit(TABLE, TABLE.rename(index={"s3": "q"})), ["The rows of y do not match", "row 3 is 'q'", "y.loc[X.index]"]),
    "clean: other times": (lambda: small(window=16).fit(LONG, clean=LONG.shift(3, freq="h")), ["clean must hold", "series 0 starts at 2024-01-01 03:00:00", "clean.loc[X.index]"]),
    "clean: nothing": (lambda: small().fit(TABLE, clean=TABLE * np.nan), ["clean holds no observed value", "leave it out"]),
    "clean: infinite": (lambda: small().fit(TABLE, clean=with_entry(np.inf)), ["Input clean contains infinity", "column 'c2', row 3", "clean.replace"]),
    "clean: text": (lambda: small().fit(TABLE, clean=with_entry("x")), ["column 'c2', row 's3' of clean"]),
    "y: infinite": (lambda: small().fit(VALUES, np.where(VALUES > 2, np.inf, VALUES)), ["Input y contains infinity", "(7, 9)"]),
    "mask: another shape": (lambda: small().fit(VALUES, mask=np.ones((3, 2), bool)), ["mask has shape (3, 2), but X has shape (24, 10)"]),
    "mask: nothing observed": (lambda: small().fit(VALUES, mask=np.zeros((N, T), bool)), ["X has no observed value"]),
    "mask: lacks a row": (lambda: small().fit(TABLE, mask=TABLE[1:].notna()), ["mask lacks row", "'s0'"]),
    "condition: none": (lambda: told().fit(TABLE), ["model='conditional' needs condition=", "use model='vae'"]),
    "condition: not used": (lambda: small().fit(TABLE, condition=GIVEN), ["condition= was given, but model='vae'", "leave it out"]),
    "condition: fewer rows": (lambda: told().fit(TABLE, condition=GIVEN[:5]), ["one row for each of the 24 records", "(5, 2)"]),
    "condition: another order": (lambda: told().fit(TABLE, condition=GIVEN[::-1]), ["The rows of condition do not match", "'s23'", "condition.loc[X.index]"]),
    "condition: missing value": (lambda: told().fit(TABLE, condition=GIVEN.replace({"group": {"b": None}})), ["condition column 'group', row 1", "must be known", "fill it in"]),
    "condition: infinite": (lambda: told().fit(TABLE, condition=GIVEN.replace(5.0, np.inf)), ["condition column 'dose', row 5", "finite number"]),
    "condition: three axes": (lambda: told().fit(TABLE, condition=np.ones((N, 1, 1))), ["one row for each record", "(24, 1, 1)"]),
    "condition: one number": (lambda: told().fit(TABLE, condition=3.0), ["one row for each record", "got shape ()"]),
}  # fmt: skip

# What a fitted one refuses.
USE = {
    "other columns": (lambda m: m.table.transform(TABLE.rename(columns={"c1": "q"})), ValueError, ["unseen at fit time:\n- q", "now missing:\n- c1"]),
    "fewer columns": (lambda m: m.table.encode(TABLE[["c0"]]), ValueError, ["now missing:\n- c1"]),
    "columns in another order": (lambda m: m.table.score(TABLE[TABLE.columns[::-1]]), ValueError, ["must be in the same order as they were in fit"]),
    "another axis": (lambda m: m.spectra.transform(SPECTRA.set_axis(np.linspace(0.1, 1.1, T), axis=1)), ValueError, ["axis values of X differ", "position 1 is 0.21", "Interpolate X"]),
    "fewer array columns": (lambda m: m.array.transform(VALUES[:, :3]), ValueError, ["X has 3 features, but VAEDenoiser is expecting 10"]),
    "fewer variables": (lambda m: m.stack.anomaly_scores(STACK[..., :1]), ValueError, ["X has 1 features", "expecting 2"]),
    "shorter records": (lambda m: m.stack.augment(STACK[:, :4]), ValueError, ["X has 4 time steps", "expecting 10", "fill up shorter ones with NaN"]),
    "infinite": (lambda m: m.table.transform(with_entry(np.inf)), ValueError, ["column 'c2', row 3", "np.nan"]),
    "text": (lambda m: m.table.transform(with_entry("x")), ValueError, ["column 'c2', row 's3' of X"]),
    "mask of another shape": (lambda m: m.table.transform(TABLE, mask=np.ones((3, 2), bool)), ValueError, ["mask has shape (3, 2)"]),
    "windows of other columns": (lambda m: m.windows.transform(LONG.rename(columns={"a": "z"})), ValueError, ["unseen at fit time:\n- z"]),
    "windows without dates": (lambda m: m.windows.transform(LONG.reset_index(drop=True)), ValueError, ["integer time stamps", "datetime stamps are expected", "Convert the index"]),
    "codes too wide": (lambda m: m.table.decode(np.zeros((3, 5))), ValueError, ["Z must have shape (n_records, 2)", "encode()", "(3, 5)"]),
    "codes of one axis": (lambda m: m.table.decode(np.zeros(2)), ValueError, ["Z must have shape (n_records, 2)", "got (2,)"]),
    "no codes": (lambda m: m.table.decode(np.zeros((0, 2))), ValueError, ["at least one row", "(0, 2)"]),
    "missing codes": (lambda m: m.table.inverse_transform([[1.0, 2.0], [0.0, np.nan]]), ValueError, ["Z has a value that is not finite in row 1, column 1", "encode()"]),
    "codes of text": (lambda m: m.table.decode([["a", "b"]]), ValueError, ["Z must hold numbers"]),
    "no sample": (lambda m: m.table.sample(0), ValueError, ["n_samples must be at least 1, got 0"]),
    "sample of text": (lambda m: m.table.sample("a"), TypeError, ["n_samples must be a positive integer, got 'a'"]),
    "unknown source": (lambda m: m.table.sample(2, source="x"), ValueError, ["source must be 'prior' or 'density', got 'x'"]),
    "prior of an autoencoder": (lambda m: m.ae.sample(2, source="prior"), ValueError, ["model='ae' has no prior", "source='density'"]),
    "seed of text": (lambda m: m.table.sample(2, random_state="x"), ValueError, ["random_state must be an int", "'x'"]),
    "no variant": (lambda m: m.table.augment(TABLE, 0), ValueError, ["n_samples must be at least 1"]),
    "two records at one end": (lambda m: m.table.interpolate(TABLE[:2], TABLE[:1]), ValueError, ["interpolate takes one record on each side, got 2"]),
    "several windows at one end": (lambda m: m.windows.interpolate(LONG, LONG), ValueError, ["one record on each side, got 4", "one window"]),
    "no step on the way": (lambda m: m.table.interpolate(TABLE[:1], TABLE[:1], 0), ValueError, ["n_records must be at least 1"]),
    "end of another length": (lambda m: m.array.interpolate(VALUES[0, :3], VALUES[1]), ValueError, ["X has 3 features"]),
    "score of nothing": (lambda m: m.table.score(TABLE * np.nan), ValueError, ["X holds no observed value to score"]),
    "R2 of one value": (lambda m: m.table.score(TABLE, clean=TABLE.where(TABLE.max(axis=None) == TABLE)), ValueError, ["clean holds one observed value", "Give more records"]),
    "R2 of fewer records": (lambda m: m.table.score(TABLE, clean=TABLE[:4]), ValueError, ["clean must hold the clean signals of X", "(4, 10, 1)"]),
    "condition not given": (lambda m: m.told.transform(TABLE), ValueError, ["condition= is needed", "['group', 'dose']", "24 records"]),
    "condition not given to sample": (lambda m: m.told.sample(3), ValueError, ["condition= is needed", "3 records"]),
    "condition of a plain model": (lambda m: m.table.encode(TABLE, condition=GIVEN), ValueError, ["was fitted without", "leave it out"]),
    "unknown category": (lambda m: m.told.encode(TABLE, condition=GIVEN.replace("b", "z")), ValueError, ["condition column 'group', row 1", "category 'z'", "known are ['a', 'b']"]),
    "fewer conditions": (lambda m: m.told.encode(TABLE, condition=GIVEN[["group"]]), ValueError, ["condition has 1 columns, but 2 in fit", "['group', 'dose']"]),
    "conditions swapped": (lambda m: m.told.encode(TABLE, condition=GIVEN[["dose", "group"]]), ValueError, ["['dose', 'group']", "in that order"]),
    "text for a number": (lambda m: m.told.encode(TABLE, condition=GIVEN.assign(dose="x")), ValueError, ["condition column 'dose' held numbers in fit, now 'x'"]),
    "conditions of other rows": (lambda m: m.told.encode(TABLE, condition=GIVEN.rename(index={"s2": "t2"})), ValueError, ["The rows of condition do not match", "'t2'"]),
    "conditions of fewer codes": (lambda m: m.told.decode(np.zeros((3, 2)), condition=GIVEN), ValueError, ["one row for each of the 3 records", "(24, 2)"]),
}  # fmt: skip


def refused(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert part in message, (part, message)
    return caught.value


@pytest.mark.parametrize(("X", "error", "parts"), DATA.values(), ids=DATA)
def test_data(X, error, parts):
    assert type(refused(lambda: small().fit(X), error, parts)) is error


@pytest.mark.parametrize(("settings", "parts"), SETTINGS.values(), ids=SETTINGS)
def test_settings(settings, parts):
    settings = dict(settings)
    data = settings.pop("X", TABLE)
    refused(lambda: small(**settings).fit(data), ValueError, parts)


def test_settings_of_the_wrong_type():
    refused(lambda: small(callbacks=[3]).fit(TABLE), TypeError, ["callbacks", "on_epoch_end", "3"])
    for pair in ((1, 2), (LAYER,)):
        parts = ["pair (encoder, decoder) of torch modules"]
        refused(lambda pair=pair: small(architecture=pair).fit(TABLE), TypeError, parts)


@pytest.mark.parametrize(("call", "parts"), BESIDE.values(), ids=BESIDE)
def test_beside_the_data(call, parts):
    assert type(refused(call, ValueError, parts)) is ValueError


def test_a_mask_of_shares():
    parts = ["mask must hold booleans (True = observed), got 0.5"]
    refused(lambda: small().fit(VALUES, mask=np.full((N, T), 0.5)), TypeError, parts)


@pytest.fixture(scope="module")
def models():
    return SimpleNamespace(
        table=small().fit(TABLE),
        spectra=small().fit(SPECTRA),
        array=small().fit(VALUES),
        stack=small().fit(STACK),
        windows=small(window=16).fit(LONG),
        told=told().fit(TABLE, condition=GIVEN),
        ae=small(model="ae").fit(TABLE),
    )


@pytest.mark.parametrize(("call", "error", "parts"), USE.values(), ids=USE)
def test_use(models, call, error, parts):
    assert type(refused(lambda: call(models), error, parts)) is error


def test_a_refused_fit_leaves_the_last_one():
    estimator = small().fit(TABLE)
    before = estimator.transform(TABLE)
    refused(lambda: estimator.fit(TABLE[:0]), ValueError, ["X is empty"])
    pd.testing.assert_frame_equal(estimator.transform(TABLE), before)


def test_records_without_values_are_no_bad_input(models):
    table = TABLE.copy()
    table.iloc[3] = np.nan
    for estimator in (models.table, models.ae, small().fit(table)):
        for found in (
            estimator.transform(table),
            estimator.encode(table),
            estimator.augment(table, 2),
            estimator.score_samples(table),
            estimator.anomaly_scores(table),
        ):
            assert np.isfinite(found.to_numpy()).all()
        assert estimator.score_samples(table).iloc[3] == pytest.approx(0.0, abs=1e-6)
        assert (estimator.anomaly_scores(table).iloc[3] == 0.0).all()
    empty = models.table.transform(table.iloc[[3]])
    pd.testing.assert_frame_equal(empty, models.table.transform(table).iloc[[3]])


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


def forecaster(path):
    settings = {"horizon": 2, "context_length": 8, "latent_dim": 2, "max_epochs": 1}
    SVAEForecaster(**settings, n_samples=5, n_origins=1, random_state=0).fit(LONG).save(path)


FILES = {
    "cut in half": (lambda path: cut(path, 0.5), ["is damaged", "copy it anew"]),
    "empty": (lambda path: cut(path, 0.0), ["is damaged", "copy it anew"]),
    "text": (lambda path: path.write_text("load,wind\n" * 50), ["is damaged or no model file", "save()"]),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1.0] * 99)), ["is damaged or no model file", "save()"]),
    "foreign": (foreign, ["was not written by tsvae", "the library that wrote it"]),
    "of a forecaster": (forecaster, ["holds a SVAEForecaster, not a VAEDenoiser", "SVAEForecaster.load()"]),
    "newer": (lambda path: rewrite(path, lambda h: h.update(format=99)), ["has format 99", "update tsvae"]),
    "no parameters": (lambda path: rewrite(path, lambda h: h.pop("parameters") and None), ["incomplete", "'parameters'", "save()"]),
    "no design": (lambda path: rewrite(path, lambda h: h.pop("design") and None), ["incomplete", "'design'", "save()"]),
    "no scaler": (lambda path: rewrite(path, lambda h: h["scaler"].pop("spread") and None), ["incomplete", "'spread'", "save()"]),
    "index of another kind": (lambda path: rewrite(path, lambda h: h["index"]["data"].update(kind="tree")), ["incomplete or damaged", "'tree'", "save()"]),
    "another size": (lambda path: rewrite(path, lambda h: h["design"].update(latent_dim=7)), ["incomplete or damaged", "size mismatch", "save()"]),
    "no weight": (lambda path: rewrite(path, None, lambda t: t.pop("model.observation.raw_scale")), ["incomplete", "observation.raw_scale", "save()"]),
    "no density": (lambda path: rewrite(path, None, lambda t: t.pop("density.centres")), ["incomplete", "centres", "save()"]),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "parts"), FILES.values(), ids=FILES)
def test_file(models, tmp_path, damage, parts):
    path = tmp_path / "model.tsvae"
    models.table.save(path)
    damage(path)
    error = refused(lambda: VAEDenoiser.load(path), ValueError, [str(path), *parts])
    assert type(error) is ValueError


def test_a_forecaster_refuses_the_file_of_a_denoiser(models, tmp_path):
    models.table.save(tmp_path / "m.tsvae")
    parts = ["holds a VAEDenoiser, not a SVAEForecaster"]
    refused(lambda: SVAEForecaster.load(tmp_path / "m.tsvae"), ValueError, parts)


def test_file_that_is_not_there(tmp_path):
    refused(lambda: VAEDenoiser.load(tmp_path / "none"), FileNotFoundError, ["none", "save"])


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2 * T, 6)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, T)

    def forward(self, z):
        return self.layer(z)[..., None]


def test_own_networks_work_and_cannot_be_saved(tmp_path):
    networks = (Encoder(), Decoder())
    weight = networks[0].layer.weight.clone()
    estimator = small(architecture=networks).fit(TABLE)
    assert np.isfinite(estimator.transform(TABLE)).all(axis=None)
    assert estimator.encode(TABLE).shape == (N, 2)
    assert torch.equal(weight, networks[0].layer.weight)  # fit trains copies
    twin = pickle.loads(pickle.dumps(estimator))
    pd.testing.assert_frame_equal(twin.transform(TABLE), estimator.transform(TABLE))
    parts = ["networks of your own", "model_.state_dict()"]
    refused(lambda: estimator.save(tmp_path / "m.tsvae"), TypeError, parts)
    assert not list(tmp_path.iterdir())


def test_unfitted_use_of_a_file(tmp_path):
    parts = ["This VAEDenoiser instance is not fitted yet", "Call 'fit'"]
    refused(lambda: small().save(tmp_path / "m.tsvae"), NotFittedError, parts)


def test_the_table_is_long():
    assert sum(map(len, (DATA, SETTINGS, BESIDE, USE, FILES))) >= 120
