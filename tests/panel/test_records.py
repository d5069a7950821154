"""Records of every kind go in and come back with their labels."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from pandas.testing import assert_frame_equal, assert_index_equal, assert_series_equal

from tsvae.panel import (
    RecordIndex,
    match_records,
    read_records,
    write_codes,
    write_record_samples,
    write_records,
    write_scores,
    write_steps,
)

xr = pytest.importorskip("xarray")

Q = [0.01, 0.02, 0.05]
DAYS = pd.date_range("2024-01-01", periods=4, name="t")


def numbers(*shape, missing=True):
    values = np.random.default_rng(0).normal(size=shape)
    if missing:
        values.flat[1] = np.nan
    return values


def table(n=4, columns=Q, **kwargs):
    frame = pd.DataFrame(numbers(n, len(columns)), columns=columns, **kwargs)
    frame.attrs["unit"] = "mV"
    return frame


def two_variables(order=None):
    """Columns (variable, axis value); ``order`` permutes them."""
    columns = pd.MultiIndex.from_product([["saxs", "waxs"], Q], names=["technique", "q"])
    frame = pd.DataFrame(numbers(4, 6), columns=columns, index=list("abcd"))
    return frame if order is None else frame.iloc[:, order]


def ragged(stamps=DAYS):
    """Three series of lengths 4, 2 and 1."""
    rows = [("x", t) for t in stamps] + [("y", t) for t in stamps[[1, 3]]] + [("z", stamps[2])]
    index = pd.MultiIndex.from_tuples(rows, names=["id", "t"])
    return pd.DataFrame(numbers(7, 2), index=index, columns=["a", "b"])


def spectra(order=("sample", "q")):
    array = xr.DataArray(
        numbers(4, 3),
        dims=("sample", "q"),
        coords={
            "sample": list("abcd"),
            "q": Q,
            "temperature": ("sample", [1.0, 2.0, 3.0, 4.0]),
            "sigma": ("q", [0.1, 0.2, 0.3]),
            "beam": 7,
        },
        name="saxs",
        attrs={"unit": "1/cm"},
    )
    array["q"].attrs["unit"] = "1/nm"
    return array.transpose(*order)


def images():
    """Records with two detectors; one cell of the second is never observed."""
    values = numbers(4, 2, 3)
    values[:, 1, 0] = np.nan
    coords = {"detector": ["near", "far"], "q": Q}
    return xr.DataArray(values, dims=("sample", "detector", "q"), coords=coords)


def land():
    """Records with a 2 x 2 grid of cells beside the axis, one cell never observed."""
    values = numbers(4, 2, 2, 3)
    values[:, 1, 0] = np.nan
    coords = {"lat": [10.0, 20.0], "lon": [1, 2]}
    return xr.DataArray(values, dims=("record", "lat", "lon", "depth"), coords=coords)


def timed(order=("patient", "time", "lead")):
    coords = {"patient": [7, 8, 9], "time": DAYS.rename("time"), "lead": ["I", "II"]}
    array = xr.DataArray(numbers(3, 4, 2), dims=("patient", "time", "lead"), coords=coords)
    return array.transpose(*order)


def dataset():
    one = spectra()
    return xr.Dataset({"saxs": one, "error": one.T * 2}, attrs={"source": "test"})


CONTAINERS = {
    "array": (lambda: numbers(4, 3), {}, (4, 3, 1)),
    "array 3-D": (lambda: numbers(4, 3, 2), {}, (4, 3, 2)),
    "array of one value": (lambda: np.array([[2.0]]), {}, (1, 1, 1)),
    "table": (table, {}, (4, 3, 1)),
    "table of strings": (lambda: table(columns=["a", "b", "c"], index=list("wxyz")), {}, (4, 3, 1)),
    "table of dates": (lambda: table(index=DAYS), {}, (4, 3, 1)),
    "table of repeated rows": (lambda: table(index=[0, 0, 1, 1]), {}, (4, 3, 1)),
    "table with date columns": (lambda: table(columns=DAYS), {}, (4, 4, 1)),
    "table of string levels": (
        lambda: table(index=pd.MultiIndex.from_product([[1, 2], ["u", "v"]])),
        {},
        (4, 3, 1),
    ),
    "table of trials with a float axis": (
        lambda: table(index=pd.MultiIndex.from_product([["m", "n"], [0, 1]])),
        {},
        (4, 3, 1),
    ),
    "table of two variables": (two_variables, {}, (4, 3, 2)),
    "table of interleaved variables": (
        lambda: two_variables([0, 3, 1, 4, 2, 5]),
        {},
        (4, 3, 2),
    ),
    "panel": (ragged, {}, (3, 4, 2)),
    "panel of numbered steps": (lambda: ragged(pd.RangeIndex(4)), {}, (3, 4, 2)),
    "long panel": (
        lambda: ragged().reset_index(),
        {"time": "t", "series": "id"},
        (3, 4, 2),
    ),
    "one series": (lambda: ragged().loc["x"], {"time": "t"}, (1, 4, 2)),
    "spectra": (spectra, {}, (4, 3, 1)),
    "spectra, axis first": (lambda: spectra(("q", "sample")), {"time": "q"}, (4, 3, 1)),
    "spectra, records named": (lambda: spectra(("q", "sample")), {"series": "sample"}, (4, 3, 1)),
    "spectra without labels": (
        lambda: spectra().reset_coords(drop=True).drop_vars(["sample", "q"]),
        {},
        (4, 3, 1),
    ),
    "spectra in seconds": (lambda: spectra().rename(q="time"), {}, (4, 3, 1)),
    "images": (images, {}, (4, 3, 2)),
    "images, axis in the middle": (
        lambda: images().transpose("sample", "q", "detector"),
        {"time": "q"},
        (4, 3, 2),
    ),
    "land": (land, {}, (4, 3, 3)),
    "timed": (timed, {}, (3, 4, 2)),
    "timed, records last": (
        lambda: timed(("time", "lead", "patient")),
        {"series": "patient"},
        (3, 4, 2),
    ),
    "one timed record": (lambda: timed()[0], {}, (1, 4, 2)),
    "one record in seconds": (
        lambda: xr.DataArray(numbers(3, 2), dims=("time", "lead"), coords={"time": Q}),
        {},
        (1, 3, 2),
    ),
    "dataset": (dataset, {}, (4, 3, 2)),
    "timed dataset": (lambda: timed().to_dataset("lead"), {}, (3, 4, 2)),
}
every_container = pytest.mark.parametrize(
    ("make", "options", "shape"), [pytest.param(*c, id=name) for name, c in CONTAINERS.items()]
)


def restore(records):
    """Write back with NaN where missing."""
    return write_records(np.where(records.mask, records.values, np.nan), records.index)


def assert_same(found, expected):
    """Compare two containers of one kind, labels and attributes included."""
    assert type(found) is type(expected)
    if isinstance(expected, pd.DataFrame):
        assert_frame_equal(found, expected, check_freq=False)
        assert found.attrs == expected.attrs
    elif isinstance(expected, pd.Series):
        assert_series_equal(found, expected)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    else:
        xr.testing.assert_identical(found, expected)


@every_container
def test_round_trip(make, options, shape):
    X = make()
    before = copy.deepcopy(X)
    records = read_records(X, **options)
    assert records.values.shape == records.mask.shape == shape
    assert (records.n_records, records.n_steps, records.n_features) == shape
    assert records.values.dtype == np.float64 and records.mask.dtype == bool
    assert records.values.flags.c_contiguous and records.mask.flags.c_contiguous
    assert not records.values[~records.mask].any() and np.isfinite(records.values).all()
    assert_same(restore(records), X)
    assert_same(X, before)
    match_records(records, records.index, "E")


@every_container
def test_reading_like_fit_gives_the_same_records(make, options, shape):
    fitted = read_records(make(), **options)
    again = read_records(make(), like=fitted.index, **options)
    np.testing.assert_array_equal(again.values, fitted.values)
    np.testing.assert_array_equal(again.mask, fitted.mask)
    match_records(again, fitted.index, "E")
    remembered = read_records(make(), like=fitted.index)
    assert remembered.values.shape == shape
    template = fitted.index.new_records(0)
    bare = read_records(make(), like=template, **options)
    np.testing.assert_array_equal(bare.values, fitted.values)
    match_records(bare, template, "E")


@every_container
def test_index_survives_pickle_copy_and_json(make, options, shape):
    records = read_records(make(), **options)
    expected = restore(records)
    text = json.dumps(records.index.to_dict(), allow_nan=False)
    for index in (
        pickle.loads(pickle.dumps(records.index)),
        copy.deepcopy(records.index),
        RecordIndex.from_dict(json.loads(text)),
    ):
        found = write_records(np.where(records.mask, records.values, np.nan), index)
        assert_same(found, expected)
        again = read_records(make(), like=index, **options)
        np.testing.assert_array_equal(again.values, records.values)
        match_records(again, index, "E")
        assert_same(
            write_records(np.ones((2, *shape[1:])), index.new_records(2)),
            write_records(np.ones((2, *shape[1:])), records.index.new_records(2)),
        )


@every_container
def test_outputs_have_one_entry_for_each_record(make, options, shape):
    index = read_records(make(), **options).index
    n_records = shape[0]
    codes = write_codes(np.arange(2.0 * n_records).reshape(n_records, 2), index, ["z0", "z1"])
    scores = write_scores(np.arange(float(n_records)), index, "score")
    np.testing.assert_array_equal(np.asarray(codes).ravel(), np.arange(2.0 * n_records))
    np.testing.assert_array_equal(np.asarray(scores).ravel(), np.arange(float(n_records)))
    if index.record_labels is None:
        return
    if isinstance(codes, pd.DataFrame):
        assert_index_equal(codes.index, index.record_labels)
        assert_index_equal(scores.index, index.record_labels)
        assert codes.columns.tolist() == ["z0", "z1"] and scores.name == "score"
    else:
        dim = codes.dims[0]
        assert codes.dims == (dim, "latent") and codes["latent"].values.tolist() == ["z0", "z1"]
        assert_index_equal(codes.indexes[dim], index.record_labels)
        assert scores.dims == (dim,) and scores.name == "score"


@every_container
def test_new_records_can_be_written_and_read_again(make, options, shape):
    index = read_records(make(), **options).index
    values = np.random.default_rng(1).normal(size=(5, *shape[1:]))
    written = write_records(values, index.new_records(0).new_records(5))
    if isinstance(written, (xr.DataArray, xr.Dataset)):
        options = options | ({"series": "record"} if "record" in written.dims else {})
    elif options:
        options = {"time": "t"} | {k: v for k, v in options.items() if k == "series"}
    again = read_records(written, like=index, **options)
    mask = np.broadcast_to(again.mask, values.shape)
    np.testing.assert_array_equal(again.values, np.where(mask, values, 0.0))
    assert again.index.kind == index.kind
    assert mask.mean() > 0.8  # only cells never observed in fit are lacking
    match_records(again, index, "E")
    names = again.index.record_labels
    assert names is None or names.tolist() == list(range(5))


def test_fresh_labels_keep_their_names():
    index = read_records(table(index=pd.Index([3, 5, 7, 9], name="probe"))).index
    assert_index_equal(index.new_records(2).record_labels, pd.RangeIndex(2, name="probe"))
    given = index.new_records(2, labels=["u", "v"])
    assert write_scores(np.zeros(2), given).index.tolist() == ["u", "v"]
    panel = read_records(ragged()).index
    frame = write_records(np.zeros((1, 4, 2)), panel.new_records(1, labels=["new"]))
    assert frame.index.names == ["id", "t"] and frame.index[0] == ("new", DAYS[0])
    xarray = read_records(spectra()).index
    array = write_records(np.zeros((2, 3, 1)), xarray.new_records(2, labels=["u", "v"]))
    assert array["sample"].values.tolist() == ["u", "v"]
    assert set(array.coords) == {"sample", "q", "sigma", "beam"}


def test_stacked_records_are_saved_as_a_template():
    stacked = spectra().expand_dims(day=[1, 2]).stack(probe=("day", "sample"))
    records = read_records(stacked, time="q")
    assert records.values.shape == (8, 3, 1)
    xr.testing.assert_identical(restore(records), stacked)
    with pytest.raises(TypeError, match=r"'probe' is a pandas MultiIndex.*reset_index"):
        records.index.to_dict()
    index = RecordIndex.from_dict(json.loads(json.dumps(records.index.new_records(0).to_dict())))
    written = write_records(records.values[:2], index.new_records(2))
    assert written.dims == ("q", "probe") and written["probe"].values.tolist() == [0, 1]


def test_panels_start_where_the_training_data_start():
    index = read_records(ragged()).index.new_records(2)
    frame = write_records(np.zeros((2, 4, 2)), index)
    assert frame.index.get_level_values("t").tolist() == DAYS.tolist() * 2


def test_draws_come_with_a_sample_axis():
    draws = np.random.default_rng(0).normal(size=(5, 4, 3, 1))
    assert write_record_samples(draws, read_records(numbers(4, 3)).index).shape == (5, 4, 3)
    frame = write_record_samples(draws, read_records(table()).index)
    assert frame.index.names == ["sample", None] and frame.columns.tolist() == Q
    np.testing.assert_array_equal(frame.loc[3].to_numpy(), draws[3, :, :, 0])
    frame = write_record_samples(
        draws, read_records(table(index=range(4)).rename_axis("sample")).index
    )
    assert frame.index.names == ["draw", "sample"]
    array = write_record_samples(draws, read_records(spectra()).index)
    assert array.dims == ("draw", "sample", "q")
    array = write_record_samples(
        np.ones((2, 3, 4, 2)), read_records(timed().rename(lead="sample")).index
    )
    assert array.dims == ("draw", "patient", "time", "sample")
    array = write_record_samples(draws, read_records(spectra().rename(sample="id")).index)
    assert array.dims == ("sample", "id", "q")
    np.testing.assert_array_equal(array.sel(sample=2).values, draws[2, :, :, 0])
    mixed = two_variables([5, 0, 3, 1, 4, 2])
    draws = np.random.default_rng(0).normal(size=(2, 4, 3, 2))
    index = read_records(mixed).index
    frame = write_record_samples(draws, index)
    assert_frame_equal(frame.loc[1], write_records(draws[1], index))
    panel = write_record_samples(np.ones((2, 3, 4, 2)), read_records(ragged()).index)
    assert panel.index.names == ["sample", "id", "t"] and len(panel) == 14


def test_steps():
    values = np.arange(12.0).reshape(4, 3)
    index = read_records(numbers(4, 3, 2)).index
    np.testing.assert_array_equal(write_steps(values, index), values)
    frame = write_steps(values, read_records(two_variables()).index)
    assert_frame_equal(
        frame, pd.DataFrame(values, index=list("abcd"), columns=pd.Index(Q, name="q"))
    )
    array = write_steps(values, read_records(images()).index, "anomaly")
    assert array.dims == ("sample", "q") and array.name == "anomaly"
    np.testing.assert_array_equal(array.values, values)
    series = write_steps(np.arange(12.0).reshape(3, 4), read_records(ragged()).index, "anomaly")
    assert series.name == "anomaly" and series.index.equals(ragged().index)
    assert series.tolist() == [0, 1, 2, 3, 4, 6, 8]
    assert write_steps(np.ones((3, 4)), read_records(timed()).index).dims == ("patient", "time")


def test_two_variables_lie_where_their_labels_say():
    frame = two_variables([5, 0, 3, 1, 4, 2])
    records = read_records(frame)
    for place, variable in enumerate(records.index.variables):
        for step, q in enumerate(records.index.axis):
            expected = frame[(variable, q)].fillna(0.0).to_numpy()
            np.testing.assert_array_equal(records.values[:, step, place], expected)
    assert records.index.axis.name == "q" and records.n_features_in == 6


def test_ragged_series_are_padded_at_the_end():
    records = read_records(ragged())
    assert records.lengths.tolist() == [4, 3, 1]
    assert records.mask[:, :, 1].tolist() == [
        [False, True, True, True],
        [True, False, True, False],
        [True, False, False, False],
    ]


def test_series_of_later_calls_are_padded_to_the_length_of_fit():
    fitted = read_records(ragged()).index
    late = ragged().loc[["y", "z"]]
    late.index = late.index.set_levels(late.index.levels[1] + pd.Timedelta("100D7h"), level=1)
    records = read_records(late, like=fitted)
    assert records.values.shape == (2, 4, 2) and records.lengths.tolist() == [3, 1]
    assert_frame_equal(restore(records), late)
    match_records(records, fitted, "E")
    one = read_records(late.loc["y"], like=fitted)
    assert one.values.shape == (1, 4, 2)
    assert_frame_equal(restore(one), late.loc["y"], check_freq=False)


def test_cells_never_observed_come_back_missing():
    records = read_records(images())
    assert records.mask[:, 0, 1].sum() == 0
    filled = write_records(np.ones((4, 3, 2)), records.index)
    assert filled.isnull().sum() == 4 and filled.sel(detector="far", q=Q[0]).isnull().all()
    records = read_records(land())
    assert records.index.variables == [(10.0, 1), (10.0, 2), (20.0, 2)]
    filled = write_records(np.ones((4, 3, 3)), records.index)
    assert filled.sel(lat=20.0, lon=1).isnull().all() and filled.isnull().sum() == 12
    # Values in a dropped cell, and none in a kept one, change nothing of the shape.
    later = land().copy(data=np.ones((4, 2, 2, 3)))
    later[:, 0, 1] = np.nan
    again = read_records(later, like=records.index)
    assert again.values.shape == (4, 3, 3) and not again.mask[:, :, 1].any()


@pytest.mark.parametrize(
    ("dtype", "missing"),
    [
        ("Float64", pd.NA),
        ("Int32", pd.NA),
        ("boolean", pd.NA),
        ("float32", np.nan),
        ("double[pyarrow]", None),
        ("int64[pyarrow]", None),
        ("object", None),
        ("object", pd.NA),
        ("Sparse[float64]", np.nan),
    ],
)
def test_dtypes(dtype, missing):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    frame = pd.DataFrame({c: pd.array([1, missing, 0], dtype="object") for c in "ab"})
    frame = frame.astype(dtype) if dtype != "object" else frame
    records = read_records(frame)
    np.testing.assert_array_equal(records.values[:, :, 0], [[1, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(records.mask[:, :, 0], [[True] * 2, [False] * 2, [True] * 2])
    assert restore(records).dtypes.tolist() == [np.float64] * 2


def test_integers_lists_and_masked_arrays():
    np.testing.assert_array_equal(read_records([[1, 2], [3, 4]]).values[..., 0], [[1, 2], [3, 4]])
    masked = np.ma.array([[1.0, np.inf], [3.0, 4.0]], mask=[[False, True], [False, False]])
    records = read_records(masked)
    np.testing.assert_array_equal(records.values[..., 0], [[1, 0], [3, 4]])
    np.testing.assert_array_equal(records.mask[..., 0], ~masked.mask)


def test_reading_owns_its_memory():
    array = numbers(4, 3, missing=False)
    for X in (array, pd.DataFrame(array, copy=False), np.asfortranarray(array), array[:, :, None]):
        records = read_records(X)
        assert not np.shares_memory(records.values, np.asarray(X))
        records.values[:] = 7.0
        assert not (np.asarray(X) == 7.0).any()


@every_container
def test_masks(make, options, shape):
    X = make()
    rng = np.random.default_rng(3)
    if isinstance(X, pd.DataFrame):
        mask = pd.DataFrame(rng.random(X.shape) < 0.8, index=X.index, columns=X.columns)
        if "series" in options:
            mask[["id", "t"]] = X[["id", "t"]]
            mask = mask[["a", "b"]]
    elif isinstance(X, np.ndarray):
        mask = rng.random(X.shape) < 0.8
    else:
        mask = X.notnull().copy()
        target = mask if isinstance(mask, xr.DataArray) else mask[next(iter(mask))]
        target.data[:] = target.data & (rng.random(target.shape) < 0.8)
    hidden = read_records(X, mask=mask, allow_all_missing=True, **options)
    full = read_records(X, allow_all_missing=True, **options)
    assert not (hidden.mask & ~full.mask).any() and not hidden.values[~hidden.mask].any()
    np.testing.assert_array_equal(hidden.values, np.where(hidden.mask, full.values, 0.0))
    if isinstance(X, np.ndarray):
        np.testing.assert_array_equal(hidden.index.write(hidden.mask), mask & ~np.isnan(X))
    if isinstance(X, pd.DataFrame) and not options:
        found = restore(hidden).notna().to_numpy()
        np.testing.assert_array_equal(found, mask.to_numpy() & X.notna().to_numpy())


def test_masks_are_aligned_by_labels():
    frame = table(index=list("abcd"))
    mask = frame.notna()
    mask.loc["b", Q[2]] = False
    shuffled = mask.iloc[[2, 0, 3, 1], [2, 0, 1]]
    records = read_records(frame, mask=shuffled)
    np.testing.assert_array_equal(records.mask[..., 0], mask.to_numpy())
    array = spectra()
    lazy = array.notnull() & (array.q < 0.03)
    records = read_records(array, mask=lazy.isel(q=[2, 1, 0]).T, allow_all_missing=True)
    np.testing.assert_array_equal(records.mask[..., 0], lazy.values)


def test_a_record_may_be_missing_altogether():
    for X in (numbers(4, 3, missing=False), table(), spectra(), numbers(4, 3, 2)):
        values = X.copy()
        if isinstance(values, pd.DataFrame):
            values.iloc[2] = np.nan
        else:
            values[2] = np.nan
        records = read_records(values)
        assert records.observed_records.tolist() == [True, True, False, True]


def test_dask_is_read_chunk_by_chunk(monkeypatch):
    pytest.importorskip("dask")
    import tsvae.panel.record_reading_xarray as module

    seen = []
    original = module.array_values
    monkeypatch.setattr(
        module, "array_values", lambda v, name: seen.append(v.shape) or original(v, name)
    )
    lazy = spectra().chunk({"sample": 2, "q": 1})
    records = read_records(lazy, mask=lazy.notnull())
    assert seen == [(2, 3), (2, 3)]
    np.testing.assert_array_equal(records.values, read_records(spectra()).values)
    xr.testing.assert_identical(restore(records), spectra())
    assert not isinstance(restore(records).data, type(lazy.data))
    timed_lazy = read_records(timed().chunk({"patient": 1, "time": 2}))
    np.testing.assert_array_equal(timed_lazy.values, read_records(timed()).values)


def test_names_and_numbers_of_features():
    strings = read_records(table(columns=["a", "b", "c"]))
    assert strings.feature_names.tolist() == ["a", "b", "c"] and strings.n_features_in == 3
    assert read_records(table()).feature_names is None
    assert read_records(numbers(4, 3)).n_features_in == 3
    assert read_records(numbers(4, 3, 2)).n_features_in == 2
    assert read_records(ragged()).feature_names.tolist() == ["a", "b"]
    assert read_records(spectra()).n_features_in == 3 and read_records(spectra()).index.is_table
    assert read_records(spectra()).feature_names is None
    assert read_records(dataset()).feature_names.tolist() == ["saxs", "error"]
    assert read_records(timed()[:, :, 0].rename("ecg")).feature_names is None
    genes = spectra().assign_coords(q=["u", "v", "w"])
    assert read_records(genes).feature_names.tolist() == ["u", "v", "w"]
    index = read_records(two_variables()).index
    assert index.variables == ["saxs", "waxs"] and index.feature_names is None
    np.testing.assert_array_equal(index.axis_values, Q)
    assert read_records(table(columns=["a", "b", "c"])).index.axis_values is None


def test_the_same_records_in_other_containers_match():
    values = numbers(4, 3)
    kinds = [
        values,
        values[:, :, None],
        pd.DataFrame(values, columns=Q),
        pd.DataFrame(values, columns=np.array(Q) * (1 + 1e-9)),
        pd.DataFrame(values, columns=np.array(Q, dtype="float32")),
        xr.DataArray(values, dims=("sample", "q"), coords={"q": Q}),
        xr.DataArray(values, dims=("sample", "time")),
    ]
    for fitted in kinds:
        index = read_records(fitted).index
        for X in kinds:
            records = read_records(X, like=index)
            match_records(records, index, "E")
            np.testing.assert_array_equal(records.values[..., 0], np.nan_to_num(values))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_table_comes_back(data):
    n_records = data.draw(st.integers(1, 5))
    n_steps = data.draw(st.integers(1, 5))
    n_features = data.draw(st.integers(1, 3))
    numbers = st.one_of(st.floats(allow_infinity=False, width=64), st.integers(-5, 5).map(float))
    size = n_records * n_steps * n_features
    cells = data.draw(st.lists(numbers, min_size=size, max_size=size))
    values = np.array(cells).reshape(n_records, n_steps, n_features)
    axis = data.draw(
        st.lists(st.integers(-1000, 1000), min_size=n_steps, max_size=n_steps, unique=True)
    )
    pairs = [(f, t) for f in range(n_features) for t in axis]
    order = data.draw(st.permutations(range(len(pairs))))
    flat = np.moveaxis(values, 1, 2).reshape(n_records, -1)
    frame = pd.DataFrame(flat, columns=pd.MultiIndex.from_tuples(pairs)).iloc[:, order]
    array = xr.DataArray(values, dims=("n", "axis", "f"), coords={"axis": axis})
    for X, options in ((values, {}), (frame, {}), (array, {"time": "axis"})):
        records = read_records(X, allow_all_missing=True, **options)
        assert_same(restore(records), X)
        text = json.dumps(records.index.to_dict(), allow_nan=False)
        index = RecordIndex.from_dict(json.loads(text))
        assert_same(
            write_records(records.values, index), write_records(records.values, records.index)
        )
        np.testing.assert_array_equal(records.mask.sum(), (~np.isnan(values)).sum())


def test_reading_arrays_imports_neither_torch_nor_xarray():
    code = (
        "import sys; from tsvae.panel import read_records, write_records;"
        "r = read_records([[1.0, 2.0]]); write_records(r.values, r.index);"
        "assert not {'torch', 'xarray', 'dask'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
