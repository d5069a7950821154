# ruff: noqa: E501 -- one case of the tables per line
"""Wrong input to SVAEForecaster: one exception of the right type, its place and its remedy."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError

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
    "group_size": None,
    "random_state": 0,
}
N = 30
STAMPS = pd.date_range("2024-01-01", periods=N, freq="D")
VALUES = 10.0 + np.random.default_rng(0).standard_normal((N, 2))
TABLE = pd.DataFrame(VALUES, index=STAMPS, columns=["a", "b"])
LATER = TABLE.shift(N, freq="D")
COUNTS = TABLE.round()
VALUES_AND_DATES = TABLE.set_axis([0, 1], axis=1)  # no names that an array could lack
X, Y = TABLE[["a"]], TABLE[["b"]]


def small(**settings):
    return SVAEForecaster(**FAST | settings)


def with_entry(row, column, value):
    table = TABLE.astype(object) if isinstance(value, str) else TABLE.copy()
    table.iloc[row, column] = value
    return table


def panel(*names, table=TABLE):
    return pd.concat(dict.fromkeys(names, table), names=["site", "day"])


def stamped(index):
    return TABLE.set_axis(index)


MIXED = [t.tz_localize("UTC" if i % 2 else "Asia/Tokyo") for i, t in enumerate(STAMPS)]
JITTER = STAMPS + pd.to_timedelta([0, 7, 3] + [0] * (N - 3), "s")

# What fit refuses: arguments of fit, exception, parts of the message (the place, the remedy).
DATA = {
    "infinite": ((with_entry(4, 1, np.inf),), ValueError, ["column 'b', row 4 (2024-01-05", "is inf", "X.replace([np.inf, -np.inf], np.nan)"]),
    "infinite in an array": ((np.where(VALUES > 11, np.inf, VALUES),), ValueError, ["contains infinity", "np.where(np.isfinite(X), X, np.nan)"]),
    "text": ((with_entry(4, 1, "n/a"),), ValueError, ["could not convert string to float: 'n/a'", "column 'b', row Timestamp('2024-01-05", "pd.to_numeric"]),
    "categories": ((TABLE.assign(b=pd.Categorical(["u"] * N)),), TypeError, ["Column 'b' of X has dtype category", "pd.get_dummies"]),
    "dates as values": ((TABLE.reset_index(names="day"),), TypeError, ["Column 'day'", "time='day'"]),
    "duplicate stamps": ((stamped(STAMPS[:-1].insert(3, STAMPS[2])),), ValueError, ["duplicate time stamps: row 3", "groupby(level=0).mean()"]),
    "duplicate columns": ((TABLE.set_axis(["a", "a"], axis=1),), ValueError, ["'a'", "columns"]),
    "unsorted": ((TABLE[::-1],), ValueError, ["not sorted: row 1", "X.sort_index()"]),
    "NaT": ((stamped([*STAMPS[:-1], pd.NaT]),), ValueError, ["row 29 of X is missing (NaT)", "Drop the row"]),
    "mixed time zones": ((stamped(pd.Index(MIXED, dtype=object)),), ValueError, ["mixed time zones: row 1", "utc=True"]),
    "jittered stamps": ((stamped(JITTER),), ValueError, ["Cannot infer one time step of X", "row 1", "X.resample('1D').mean()", "freq="]),
    "text stamps": ((stamped(STAMPS.astype(str)),), ValueError, ["holds str values", "pd.to_datetime"]),
    "column without values": ((TABLE.assign(b=np.nan),), ValueError, ["Column 'b' of X has no observed value", "X.drop(columns=['b'])"]),
    "array column without values": ((VALUES * [1, np.nan],), ValueError, ["Column 1 of X has no observed value", "np.delete(X, 1, -1)"]),
    "no value at all": ((VALUES * np.nan,), ValueError, ["X has no observed value", "all entries are missing"]),
    "one index level": ((TABLE.set_axis(pd.MultiIndex.from_arrays([STAMPS], names=["day"])),), ValueError, ["single level 'day'", "Add the series level"]),
    "time level first": ((panel("x", "y").swaplevel(),), ValueError, ["last index level of X must be the time", "reorder_levels"]),
    "one dim": ((VALUES[:, 0],), ValueError, ["Expected 2D array, got 1D array", "reshape(-1, 1)"]),
    "no dim": ((3.0,), ValueError, ["Expected 2D array, got scalar", "reshape(-1, 1)"]),
    "four dims": ((np.ones((2, 2, 2, 2)),), ValueError, ["dim 4", "(n_series, n_steps, n_features)", "DataArray"]),
    "unequal rows": (([[1.0, 2.0], [3.0]],), ValueError, ["X is a nested list of unequal lengths", "rectangular array"]),
    "nothing": ((None,), TypeError, ["X must be a DataFrame, Series, DataArray, Dataset or array", "NoneType"]),
    "a dict": (({"a": [1.0, 2.0]},), TypeError, ["X must be a DataFrame", "got dict"]),
    "no rows": ((TABLE[:0],), ValueError, ["0 sample(s)", "minimum of 1 is required", "X is empty"]),
    "no columns": ((TABLE[[]],), ValueError, ["0 feature(s)", "minimum of 1 is required", "X is empty"]),
    "one row": ((TABLE[:1],), ValueError, ["1 sample(s) with observed values", "at least two rows of one series; give more"]),
    "one observed row": ((np.where(np.arange(N)[:, None] == 3, VALUES, np.nan),), ValueError, ["1 sample(s) with observed values", "give more"]),
    "complex": ((VALUES * 1j,), ValueError, ["Complex data not supported: X", "real and imaginary parts as columns"]),
    "sparse": ((sparse.csr_array(VALUES),), TypeError, ["Sparse data was passed for X", ".toarray()"]),
    "sparse dict of keys": ((sparse.dok_array(VALUES),), TypeError, ["Sparse data was passed for X", ".toarray()"]),
    "y longer than X": ((VALUES[:20], VALUES[:, 0]), ValueError, ["inconsistent numbers of samples: [20, 30]"]),
    "y of other days": ((X, Y.shift(3, freq="D")), ValueError, ["rows of y do not match: row 0 is 2024-01-04", "y.loc[X.index]"]),
    "text in y": ((VALUES, ["u"] * N), ValueError, ["could not convert string to float: 'u'", "y holds strings", "encode or drop"]),
    "infinite y": ((VALUES, np.r_[VALUES[:-1, 1], np.inf]), ValueError, ["Input y contains infinity", "(29,) is inf", "np.nan"]),
    "y without values": ((VALUES, VALUES[:, 1] * np.nan), ValueError, ["y has no observed value"]),
    "covariate without values": ((X.assign(c=np.nan), Y), ValueError, ["Column 'c' of X has no observed value", "drop"]),
}  # fmt: skip

MASKS = {
    "another shape": ((VALUES,), np.ones((3, 2), bool), ValueError, ["mask has shape (3, 2), but X has shape (30, 2)", "one boolean for each value"]),
    "shape of X beside y": ((VALUES, VALUES[:, 1]), np.ones((N, 2), bool), ValueError, ["mask has shape (30, 2), but y has shape (30,)"]),
    "shares": ((VALUES,), np.full((N, 2), 0.5), TypeError, ["mask must hold booleans (True = observed), got 0.5", "notna()"]),
    "nothing observed": ((VALUES,), np.zeros((N, 2), bool), ValueError, ["X has no observed value"]),
    "lacks a column": ((TABLE,), TABLE[["a"]].notna(), ValueError, ["mask lacks column 'b' of X", "X.notna()"]),
    "lacks a row": ((TABLE,), TABLE[1:].notna(), ValueError, ["mask lacks row", "2024-01-01", "X.notna()"]),
}  # fmt: skip

# Settings that fit refuses with the data of TABLE (or those given).
SETTINGS = {
    "no horizon": ({"horizon": 0}, ["'horizon'", "int in the range [1, inf)", "Got 0"]),
    "horizon of text": ({"horizon": "a"}, ["'horizon'", "int in the range [1, inf)", "Got 'a'"]),
    "horizon of 1.5": ({"horizon": 1.5}, ["'horizon'", "int in the range [1, inf)", "Got 1.5"]),
    "negative rate": ({"learning_rate": -1}, ["'learning_rate'", "float in the range (0.0, inf)", "'auto'", "Got -1"]),
    "unknown rate": ({"learning_rate": "fast"}, ["'learning_rate'", "'auto'", "Got 'fast'"]),
    "NaN rate": ({"learning_rate": np.nan}, ["'learning_rate'", "(0.0, inf)", "Got nan"]),
    "unknown likelihood": ({"likelihood": "gamma"}, ["likelihood='gamma' is not known", "choose one of: bernoulli, laplace"]),
    "unknown channels": ({"channels": "both"}, ["'channels'", "'independent'", "'joint'", "Got 'both'"]),
    "unknown activation": ({"activation": "swoosh"}, ["activation='swoosh' is not known", "gelu"]),
    "odd latent_dim": ({"latent_dim": 5, "group_size": 2}, ["latent_dim=5 must be a multiple of group_size=2", "group_size=1 or None"]),
    "empty layer": ({"hidden_sizes": [8, 0]}, ["hidden_sizes[1] must be a positive integer", "got 0"]),
    "part of a layer": ({"hidden_sizes": [4.5]}, ["hidden_sizes[0] must be a positive integer", "got 4.5"]),
    "layers as a number": ({"hidden_sizes": 8}, ["'hidden_sizes'", "array-like", "Got 8"]),
    "period of one step": ({"seasonal_periods": [24, 1]}, ["seasonal_periods[1]", "at least 2, got 1", "leave it out"]),
    "period of text": ({"seasonal_periods": ["day"]}, ["seasonal_periods[0]", "got 'day'", "leave it out"]),
    "calendar of integers": ({"calendar": True, "X": VALUES}, ["calendar=True needs time stamps", "Set calendar=False, or give dates"]),
    "counts below 0": ({"likelihood": "poisson", "X": -COUNTS}, ["'poisson' needs non-negative integers", "variable 'a'", "likelihood='normal'"]),
    "parts of counts": ({"likelihood": "negative_binomial"}, ["'negative_binomial' needs non-negative integers", "variable 'a'", "likelihood='normal'"]),
    "log of 0": ({"power_transform": "log", "X": with_entry(3, 1, 0.0)}, ["power_transform needs positive values", "variable 'b' contains 0", "power_transform=None"]),
    "Box-Cox of -1": ({"power_transform": "box-cox", "X": with_entry(3, 1, -1.0)}, ["power_transform needs positive values", "variable 'b' contains -1", "shift the variable"]),
    "log of counts": ({"power_transform": "log", "likelihood": "poisson", "X": COUNTS}, ["power_transform='log' and likelihood='poisson' exclude each other", "set power_transform=None"]),
    "counts in 0..1": ({"final_sigmoid": True, "likelihood": "poisson", "X": COUNTS}, ["final_sigmoid", "likelihood='poisson'", "set final_sigmoid=False"]),
    "no such device": ({"device": "cuda:99"}, ["device='cuda:99' is not available", "device='cpu'"]),
    "unknown device": ({"device": "tpu"}, ["device", "'cpu', 'cuda'", "got 'tpu'"]),
    "unknown precision": ({"precision": "64"}, ["'precision'", "'32-true'", "Got '64'"]),
    "unknown freq": ({"freq": "fortnight"}, ["freq='fortnight' is not a pandas frequency", "'15min'"]),
    "unknown time": ({"time": "date"}, ["time='date' is neither a column nor an index level", "['a', 'b']"]),
    "time of an array": ({"time": "date", "X": VALUES}, ["time='date' needs labels", "DataFrame"]),
    "unknown series": ({"time": "t", "series": "id", "X": TABLE.reset_index(names="t")}, ["series='id' is not a column"]),
    "random_state of text": ({"random_state": "x"}, ["'random_state'", "an int", "Got 'x'"]),
    "all validation": ({"validation_fraction": 1.0}, ["'validation_fraction'", "[0.0, 1.0)", "Got 1.0"]),
    "one sample": ({"n_samples": 1}, ["'n_samples'", "[2, inf)", "Got 1"]),
    "no thread": ({"n_threads": 0}, ["'n_threads'", "[1, inf)", "Got 0"]),
}  # fmt: skip


def refused(call, error, parts):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert part in message, (part, message)
    return caught.value


@pytest.mark.parametrize(("data", "error", "parts"), DATA.values(), ids=DATA)
def test_data(data, error, parts):
    assert type(refused(lambda: small().fit(*data), error, parts)) is error


@pytest.mark.parametrize(("data", "mask", "error", "parts"), MASKS.values(), ids=MASKS)
def test_mask(data, mask, error, parts):
    assert type(refused(lambda: small().fit(*data, mask=mask), error, parts)) is error


@pytest.mark.parametrize(("settings", "parts"), SETTINGS.values(), ids=SETTINGS)
def test_settings(settings, parts):
    settings = dict(settings)
    data = settings.pop("X", TABLE)
    refused(lambda: small(**settings).fit(data), ValueError, parts)


def test_settings_of_the_wrong_type():
    refused(lambda: small(horizon=True).fit(TABLE), TypeError, ["horizon", "positive integer"])
    refused(lambda: small(callbacks=[3]).fit(TABLE), TypeError, ["callbacks", "on_epoch_end", "3"])


# What a fitted one refuses: `f` was fitted by fit(df), `xy` by fit(X, y), `site` on a panel,
# `array` on an array.
USE = {
    "horizon 0": (lambda m: m.f.predict(horizon=0), ValueError, ["horizon must be at least 1, got 0"]),
    "horizon of text": (lambda m: m.f.predict(horizon="a"), TypeError, ["horizon must be a positive integer, got 'a'"]),
    "horizon of 1.5": (lambda m: m.f.predict(horizon=1.5), TypeError, ["horizon must be a positive integer, got 1.5"]),
    "coverage 0": (lambda m: m.f.predict_interval(coverage=0), ValueError, ["coverage must lie between 0 and 1 (exclusive), got 0", "0.9 is 90 %"]),
    "coverage 1": (lambda m: m.f.predict_interval(coverage=1), ValueError, ["coverage must lie between 0 and 1 (exclusive), got 1", "0.9"]),
    "coverage in percent": (lambda m: m.f.predict_interval(coverage=[0.5, 90]), ValueError, ["coverage", "[0.5, 90]", "0.9 is 90 %"]),
    "coverage of text": (lambda m: m.f.predict_interval(coverage="x"), TypeError, ["coverage must lie between 0 and 1", "got 'x'"]),
    "quantile 0": (lambda m: m.f.predict_quantiles(quantiles=[0, 0.5]), ValueError, ["quantiles must lie between 0 and 1 (exclusive), got [0, 0.5]", "0.5 is the median"]),
    "quantile 1.2": (lambda m: m.f.impute_quantiles(TABLE, quantiles=[1.2]), ValueError, ["quantiles must lie between 0 and 1", "[1.2]"]),
    "no quantile": (lambda m: m.f.predict_quantiles(quantiles=[]), ValueError, ["quantiles must lie between 0 and 1", "[]"]),
    "quantile of text": (lambda m: m.f.predict_quantiles(quantiles="median"), TypeError, ["quantiles", "'median'", "0.5 is the median"]),
    "no path": (lambda m: m.f.sample(0), ValueError, ["n_samples must be at least 1, got 0"]),
    "data for a number": (lambda m: m.f.sample(TABLE), TypeError, ["n_samples must be a positive integer, got a DataFrame"]),
    "seed of text": (lambda m: m.f.sample(2, random_state="x"), ValueError, ["random_state must be an int", "'x'"]),
    "other columns": (lambda m: m.f.predict(TABLE.rename(columns={"b": "q"})), ValueError, ["unseen at fit time:\n- q", "now missing:\n- b"]),
    "fewer columns": (lambda m: m.f.impute(TABLE[["a"]]), ValueError, ["now missing:\n- b"]),
    "more columns": (lambda m: m.f.score(TABLE.assign(c=1.0)), ValueError, ["unseen at fit time:\n- c"]),
    "columns in another order": (lambda m: m.f.transform(TABLE[["b", "a"]]), ValueError, ["must be in the same order as they were in fit"]),
    "fewer array columns": (lambda m: m.array.predict(VALUES[:, :1]), ValueError, ["X has 1 features, but SVAEForecaster is expecting 2"]),
    "other covariates": (lambda m: m.xy.predict(Y), ValueError, ["unseen at fit time:\n- b", "now missing:\n- a"]),
    "history without values": (lambda m: m.f.predict(TABLE * np.nan), ValueError, ["the history has no observed value", "at least one observed row"]),
    "one series without values": (lambda m: m.site.predict(pd.concat([panel("x"), panel("y") * np.nan])), ValueError, ["series 'y'", "no observed value", "at least one observed row"]),
    "empty history": (lambda m: m.f.predict(TABLE[:0]), ValueError, ["0 sample(s)", "X is empty"]),
    "hourly history": (lambda m: m.f.predict(stamped(pd.date_range("2024", periods=N, freq="h"))), ValueError, ["row 1, time 2024-01-01 01:00:00 of X does not lie on the time grid (step D)", "Resample"]),
    "history in a time zone": (lambda m: m.f.predict(TABLE.tz_localize("UTC")), ValueError, ["UTC", "no time zone is expected", "X.tz_localize(None)"]),
    "history of integers": (lambda m: m.f.predict(TABLE.reset_index(drop=True)), ValueError, ["X has integer time stamps", "datetime stamps are expected", "Convert the index"]),
    "infinite history": (lambda m: m.f.predict(with_entry(4, 1, np.inf)), ValueError, ["column 'b', row 4", "np.nan"]),
    "mask of a history not given": (lambda m: m.f.predict(mask=TABLE.notna()), ValueError, ["mask belongs to a history X", "leave it out"]),
    "mask of another shape": (lambda m: m.f.predict(TABLE, mask=np.ones((3, 2), bool)), ValueError, ["mask has shape (3, 2), but X has shape (30, 2)"]),
    "history= after fit(df)": (lambda m: m.f.predict(history=(X, Y)), ValueError, ["history= belongs to fit(X, y)", "give the history itself as X"]),
    "impute nothing": (lambda m: m.f.impute(None), TypeError, ["X must be a DataFrame", "NoneType"]),
    "impute after fit(X, y)": (lambda m: m.xy.impute(X), ValueError, ["impute is for models fitted by fit(df)", "use predict(X)"]),
    "latents after fit(X, y)": (lambda m: m.xy.latent_dynamics(X), ValueError, ["latent_dynamics", "fit(df)"]),
    "predict without X": (lambda m: m.xy.predict(), ValueError, ["predict needs X after fit(X, y)", "one row each"]),
    "horizon= after fit(X, y)": (lambda m: m.xy.predict(X, horizon=3), ValueError, ["horizon is given by the rows of X after fit(X, y)", "leave it out"]),
    "mask without history=": (lambda m: m.xy.predict(X, mask=Y.notna()), ValueError, ["mask belongs to the target of history=(X, y)", "leave it out"]),
    "rows before the history": (lambda m: m.xy.predict(X.shift(-9, freq="D")), ValueError, ["Row 0 of X lies before the first row of the history", "history=(X, y)"]),
    "rows between the steps": (lambda m: m.xy.predict(X.shift(1, freq="h")), ValueError, ["row 0, time 2024-01-01 01:00:00 of X does not lie on the time grid", "Resample"]),
    "history of a wrong kind": (lambda m: m.xy.predict(X, history=X), TypeError, ["history must be a tuple (X, y)", "got DataFrame"]),
    "half a history": (lambda m: m.xy.predict(X, history=(X, None)), ValueError, ["y is needed beside X", "Give the target"]),
    "history of unequal length": (lambda m: m.xy.predict(X, history=(X, Y[:5])), ValueError, ["inconsistent numbers of samples: [30, 5]"]),
    "history without y": (lambda m: m.xy.predict(X, history=(X, Y * np.nan)), ValueError, ["the history has no observed value", "at least one observed row"]),
    "paths of known rows": (lambda m: m.xy.sample(2, X), ValueError, ["Row 0 of X lies inside the history", "later rows only"]),
    "score with a y": (lambda m: m.f.score(TABLE, TABLE), ValueError, ["y was not part of fit(df)", "leave it out of score"]),
    "score without y": (lambda m: m.xy.score(X), ValueError, ["score needs y after fit(X, y)", "the target at the rows of X"]),
    "densities without y": (lambda m: m.xy.score_samples(X), ValueError, ["y is needed beside X", "Give the target"]),
    "weights in fit(df)": (lambda m: m.f.score(TABLE, sample_weight=np.ones(N)), ValueError, ["sample_weight is for models fitted by fit(X, y)", "leave it out"]),
    "fewer weights": (lambda m: m.xy.score(X, Y, sample_weight=[1.0]), ValueError, ["sample_weight", "each of the 30 rows", "(1,)"]),
    "score of one row": (lambda m: m.xy.score(X[:1], Y[:1]), ValueError, ["at least two observed values of y", "give more rows"]),
    "score of nothing": (lambda m: m.f.score(TABLE * np.nan), ValueError, ["X has no observed value to score", "give more rows"]),
    "update with known rows": (lambda m: m.f.update(TABLE), ValueError, ["Row 0 of X does not come after the last row", "Give only later rows"]),
    "update between the steps": (lambda m: m.f.update(LATER.shift(1, freq="h")), ValueError, ["row 0, time 2024-01-31 01:00:00", "Resample"]),
    "update with a y": (lambda m: m.f.update(LATER, LATER), ValueError, ["y was not part of fit(df)", "leave it out of update"]),
    "update without y": (lambda m: m.xy.update(X.shift(N, freq="D")), ValueError, ["y is needed beside X", "Give the target"]),
    "update of an unknown series": (lambda m: m.site.update(panel("z", table=LATER)), ValueError, ["Series 'z' of X is not among the 2 known series", "drop it"]),
    "update of one series for two": (lambda m: m.site.update(LATER), ValueError, ["X has 1 series, but 2 are expected"]),
    "array for dates": (lambda m: m.dates.predict(VALUES), ValueError, ["fitted on time stamps", "array of 1 series", "Give data with a time axis"]),
    "device gone": (lambda m: small().fit(TABLE).set_params(device="tpu").predict(), ValueError, ["device='tpu' is not known", "'cpu'"]),
    "counts below 0 in a history": (lambda m: m.counts.predict(-COUNTS), ValueError, ["'poisson' needs non-negative integers", "variable 'a'"]),
    "log of a negative history": (lambda m: m.logs.predict(with_entry(3, 1, -2.0)), ValueError, ["power_transform needs positive values", "variable 'b' contains -2"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def models():
    return SimpleNamespace(
        f=small().fit(TABLE),
        xy=small().fit(X, Y),
        site=small().fit(panel("x", "y")),
        array=small().fit(VALUES),
        dates=small(calendar=True).fit(VALUES_AND_DATES),
        counts=small(likelihood="poisson").fit(COUNTS),
        logs=small(power_transform="log").fit(TABLE),
    )


@pytest.mark.parametrize(("call", "error", "parts"), USE.values(), ids=USE)
def test_use(models, call, error, parts):
    assert type(refused(lambda: call(models), error, parts)) is error


def test_a_refused_update_leaves_the_history(models):
    before = models.f.predict()
    refused(lambda: models.f.update(TABLE), ValueError, ["later rows"])
    pd.testing.assert_frame_equal(models.f.predict(), before)


def test_a_refused_fit_leaves_the_last_one():
    estimator = small().fit(TABLE)
    before = estimator.predict()
    refused(lambda: estimator.fit(TABLE[:1]), ValueError, ["give more"])
    pd.testing.assert_frame_equal(estimator.predict(), before)


def test_xarray_of_another_grid():
    xr = pytest.importorskip("xarray")
    dims = ("time", "lat")
    field = xr.DataArray(VALUES, dims=dims, coords={"time": STAMPS, "lat": [40.0, 50.0]})
    estimator = small().fit(field)
    cases = [
        (field.assign_coords(lat=[40.0, 51.0]), ["coordinate 'lat' of X differs", "reindex_like"]),
        (field.isel(lat=[0]), ["coordinate 'lat' of X differs", "1 entries, 2 expected"]),
        (field.rename(lat="lon"), ["dims ['lon']", "['lat'] are expected", "rename"]),
        (field.rename(time="t"), ["no dim 'time'", "time="]),
    ]
    for wrong, parts in cases:
        refused(lambda wrong=wrong: estimator.predict(wrong), ValueError, parts)


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
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, path)


def short_tensor(name):
    import torch

    return lambda path: rewrite(path, None, lambda tensors: tensors.update({name: torch.ones(3)}))


FILES = {
    "cut in half": (lambda path: cut(path, 0.5), ["is damaged", "copy it anew"]),
    "cut at the end": (lambda path: cut(path, 0.99), ["is damaged", "copy it anew"]),
    "empty": (lambda path: cut(path, 0.0), ["is damaged", "copy it anew"]),
    "text": (lambda path: path.write_text("load,wind\n" * 50), ["is damaged or no model file", "save()"]),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1.0] * 99)), ["is damaged or no model file", "save()"]),
    "foreign": (foreign, ["was not written by tsvae", "the library that wrote it"]),
    "another class": (lambda path: rewrite(path, lambda h: h.update(estimator="VAEDenoiser")), ["holds a VAEDenoiser, not a SVAEForecaster", "VAEDenoiser.load()"]),
    "newer": (lambda path: rewrite(path, lambda h: h.update(format=99)), ["has format 99", "update tsvae"]),
    "format of text": (lambda path: rewrite(path, lambda h: h.update(format="x")), ["was not written by tsvae"]),
    "header of a list": (lambda path: rewrite(path, lambda h: [1]), ["was not written by tsvae"]),
    "no parameters": (lambda path: rewrite(path, lambda h: {k: v for k, v in h.items() if k != "parameters"}), ["incomplete", "'parameters'", "save()"]),
    "no clock": (lambda path: rewrite(path, lambda h: h["target"].pop("clock") and None), ["incomplete or damaged", "clock", "save()"]),
    "another size": (lambda path: rewrite(path, lambda h: h["settings"].update(latent_dim=7)), ["incomplete or damaged", "7", "save()"]),
    "no history": (lambda path: rewrite(path, None, lambda t: t.pop("history.target.values")), ["incomplete", "history.target.values", "save()"]),
    "short history": (short_tensor("history.target.values"), ["history.target has shape (3,)", "save()"]),
    "no weight": (lambda path: rewrite(path, None, lambda t: t.pop("model.decoder.emission_matrix")), ["incomplete", "decoder.emission_matrix", "save()"]),
    "short weight": (short_tensor("model.decoder.emission_matrix"), ["incomplete or damaged", "decoder.emission_matrix", "save()"]),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "parts"), FILES.values(), ids=FILES)
def test_file(models, tmp_path, damage, parts):
    path = tmp_path / "model.tsvae"
    models.f.save(path)
    damage(path)
    error = refused(lambda: SVAEForecaster.load(path), ValueError, [str(path), *parts])
    assert type(error) is ValueError


def test_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        refused(lambda path=path: SVAEForecaster.load(path), FileNotFoundError, [str(path), "save"])


def test_file_that_cannot_be_written(models, tmp_path):
    cases = [
        (tmp_path / "no" / "m.tsvae", FileNotFoundError, ["There is no folder", "mkdir"]),
        (tmp_path, IsADirectoryError, [str(tmp_path), "name of a file in it"]),
        (None, TypeError, ["path must be the name of a file, got None"]),
    ]
    for path, error, parts in cases:
        refused(lambda path=path: models.f.save(path), error, parts)
    assert not list(tmp_path.iterdir())


def test_save_of_what_has_no_json_form(tmp_path):
    estimator = small(freq=pd.offsets.Day()).fit(TABLE)
    parts = ["parameter freq=<Day> has no JSON form", "numbers or strings"]
    refused(lambda: estimator.save(tmp_path / "m.tsvae"), TypeError, parts)
    assert not list(tmp_path.iterdir())


def test_unfitted_use(tmp_path):
    calls = {
        "predict": lambda f: f.predict(),
        "predict_quantiles": lambda f: f.predict_quantiles(),
        "predict_interval": lambda f: f.predict_interval(),
        "sample": lambda f: f.sample(),
        "impute": lambda f: f.impute(TABLE),
        "impute_quantiles": lambda f: f.impute_quantiles(TABLE),
        "transform": lambda f: f.transform(TABLE),
        "get_feature_names_out": lambda f: f.get_feature_names_out(),
        "score": lambda f: f.score(TABLE),
        "score_samples": lambda f: f.score_samples(TABLE),
        "latent_dynamics": lambda f: f.latent_dynamics(),
        "update": lambda f: f.update(LATER),
        "save": lambda f: f.save(tmp_path / "m.tsvae"),
    }
    for call in calls.values():
        refused(
            lambda call=call: call(small()),
            NotFittedError,
            ["This SVAEForecaster instance is not fitted yet", "Call 'fit'"],
        )
    assert not list(tmp_path.iterdir())


def test_the_table_is_long():
    assert sum(map(len, (DATA, MASKS, SETTINGS, USE, FILES))) >= 140
