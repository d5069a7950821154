# ruff: noqa: E501 -- one case per line
"""Wrong input: the exception's type, and a message that names the place and the remedy."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tsvae.panel import read_panel

DAYS = pd.date_range("2024-01-01", periods=5)


def table(**columns):
    data = {"a": np.arange(5.0), "b": np.ones(5)} | columns
    return pd.DataFrame(data, index=DAYS)


def at(*stamps):
    return pd.DataFrame({"a": np.arange(float(len(stamps)))}, index=pd.DatetimeIndex(stamps))


def panel_frame(*rows, names=("s", "t")):
    index = pd.MultiIndex.from_tuples(rows, names=names)
    return pd.DataFrame({"a": np.arange(float(len(rows)))}, index=index)


def with_entry(value, row=2, column=1):
    array = np.ones((4, 3), dtype=object)
    array[row, column] = value
    return array


T1, T2, T3 = DAYS[:3]
MIXED = pd.Index(
    [pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2024-01-02", tz="Asia/Tokyo")]
)

VALUES = {
    "none": (None, {}, TypeError, ["X must be a DataFrame", "NoneType"]),
    "string": ("data.csv", {}, TypeError, ["X must be a DataFrame", "got str"]),
    "dict": ({"a": [1]}, {}, TypeError, ["got dict"]),
    "1d": (np.arange(3.0), {}, ValueError, ["Expected 2D array, got 1D array instead", "Reshape your data"]),
    "scalar": (3.0, {}, ValueError, ["Expected 2D array, got scalar array instead"]),
    "4d": (np.zeros((2, 2, 2, 2)), {}, ValueError, ["Found array with dim 4", "DataArray"]),
    "ragged list": ([[[1.0], [2.0]], [[1.0]]], {}, ValueError, ["unequal lengths", "pd.concat"]),
    "no rows": (np.zeros((0, 3)), {}, ValueError, ["0 sample(s) (shape=(0, 3)) while a minimum of 1 is required."]),
    "no columns": (np.zeros((12, 0)), {}, ValueError, ["0 feature(s) (shape=(12, 0)) while a minimum of 1 is required."]),
    "no series": (np.zeros((0, 4, 1)), {}, ValueError, ["0 sample(s)"]),
    "frame without rows": (table().iloc[:0], {}, ValueError, ["0 sample(s)"]),
    "frame without columns": (table()[[]], {}, ValueError, ["0 feature(s) (shape=(5, 0)) while a minimum of 1 is required."]),
    "panel without rows": (panel_frame(("x", T1)).iloc[:0], {}, ValueError, ["0 sample(s)"]),
    "only a time column": (pd.DataFrame({"t": DAYS}), {"time": "t"}, ValueError, ["0 feature(s)"]),
    "sparse": (sparse.csr_array(np.eye(3)), {}, TypeError, ["Sparse data", ".toarray()"]),
    "sparse matrix": (sparse.coo_matrix(np.eye(3)), {}, TypeError, ["Sparse data", ".toarray()"]),
    "complex": (np.ones((3, 2), dtype=complex), {}, ValueError, ["Complex data not supported"]),
    "complex column": (table(c=np.ones(5, dtype=complex)), {}, ValueError, ["Complex data not supported", "'c'"]),
    "complex entry": (with_entry(1j), {}, ValueError, ["Complex data not supported"]),
    "string array": (np.array([["a"], ["b"]]), {}, ValueError, ["could not convert string to float: 'a'"]),
    "string entry": (with_entry("x"), {}, ValueError, ["could not convert string to float: 'x'"]),
    "dict entry": (with_entry({"foo": "bar"}), {}, TypeError, ["argument must be a string or a real number, not 'dict'"]),
    "datetime array": (np.array([["2024-01-01"]], dtype="M8[D]"), {}, TypeError, ["datetime64", "expected numbers"]),
    "string column": (table(c=list("vwxyz")), {}, TypeError, ["Column 'c'", "encode", "drop"]),
    "categorical column": (table(c=pd.Categorical([1, 2, 1, 2, 1])), {}, TypeError, ["Column 'c'", "category", "get_dummies"]),
    "datetime column": (table(c=DAYS), {}, TypeError, ["Column 'c'", "time='c'"]),
    "timedelta column": (table(c=DAYS - DAYS[0]), {}, TypeError, ["Column 'c'", "X.drop(columns=['c'])"]),
    "period column": (table(c=DAYS.to_period("D")), {}, TypeError, ["Column 'c'", "period[D]"]),
    "mixed column": (table(c=pd.Series([1, "?", 2, 3, 4], dtype=object, index=DAYS)), {}, ValueError, ["could not convert string to float: '?'", "column 'c'", "2024-01-02"]),
    "inf in a frame": (table(c=[1, 2, np.inf, 4, 5]), {}, ValueError, ["Input X contains infinity", "column 'c', row 2 (2024-01-03"]),
    "inf in an array": (np.array([[1.0], [-np.inf]]), {}, ValueError, ["Input X contains infinity", "(1, 0)"]),
    "all missing": (table() * np.nan, {}, ValueError, ["no observed value", "all entries"]),
    "missing column": (table(c=np.nan), {}, ValueError, ["Column 'c'", "no observed value", "X.drop(columns=['c'])"]),
    "missing array column": (np.array([[1.0, np.nan]] * 3), {}, ValueError, ["Column 1", "no observed value"]),
    "masked-out column": (table(), {"mask": table().notna().assign(b=False)}, ValueError, ["Column 'b'"]),
    "duplicate columns": (table()[["a", "a"]], {}, ValueError, ["Column 'a' appears more than once", "duplicated()"]),
}  # fmt: skip

TIMES = {
    "unsorted": (at(T1, T3, T2), {}, ValueError, ["not sorted", "row 2", "2024-01-02", "X.sort_index()"]),
    "descending": (table()[::-1], {}, ValueError, ["not sorted", "row 1"]),
    "duplicate": (at(T1, T2, T2, T3), {}, ValueError, ["duplicate time stamps", "row 2", "2024-01-02", "groupby", ".mean()"]),
    "shuffled integers": (pd.DataFrame({"a": [1.0, 2, 3]}, index=[4, 0, 2]), {}, ValueError, ["not sorted", "row 1"]),
    "duplicate integers": (pd.DataFrame({"a": [1.0, 2, 3]}, index=[0, 0, 2]), {}, ValueError, ["duplicate", "row 1"]),
    "unsorted time column": (at(T1, T3, T2).reset_index(names="t"), {"time": "t"}, ValueError, ["not sorted", "row 2", "X.sort_values(['t'])"]),
    "duplicate in a long frame": (panel_frame(("x", T1), ("x", T1)).reset_index(), {"time": "t", "series": "s"}, ValueError, ["row 1, series 'x'", "X.groupby(['s', 't'], as_index=False).mean()"]),
    "string time column": (table().assign(t=list("vwxyz")), {"time": "t"}, ValueError, ["holds str values", "pd.to_datetime(X['t'])"]),
    "unsorted panel of numbers": (panel_frame((7, T2), (8, T1), (7, T1)), {}, ValueError, ["row 2, series 7, "]),
    "unsorted panel": (panel_frame(("x", T2), ("y", T1), ("x", T1)), {}, ValueError, ["not sorted", "row 2, series 'x'"]),
    "duplicate in a panel": (panel_frame(("x", T1), ("y", T1), ("x", T1)), {}, ValueError, ["duplicate", "row 2, series 'x'"]),
    "NaT": (at(T1, pd.NaT), {}, ValueError, ["row 1 of X is missing (NaT)", "Drop the row"]),
    "NaT in a panel": (panel_frame(("x", T1), ("x", pd.NaT)), {}, ValueError, ["row 1 of X is missing (NaT)"]),
    "no series label": (panel_frame(("x", T1), (None, T1)), {}, ValueError, ["Row 1 of X has no series label", "'s'"]),
    "NaN in a float index": (pd.DataFrame({"a": [1.0, 2]}, index=[0.0, np.nan]), {}, ValueError, ["row 1", "missing"]),
    "mixed zones": (pd.DataFrame({"a": [1.0, 2.0]}, index=MIXED), {}, ValueError, ["mixed time zones", "row 1", "utc=True"]),
    "string stamps": (pd.DataFrame({"a": [1.0]}, index=["2024-01-01"]), {}, ValueError, ["holds str values", "pd.to_datetime"]),
    "mixed stamps": (pd.DataFrame({"a": [1.0, 2.0]}, index=pd.Index([1, "x"], dtype=object)), {}, ValueError, ["mix types", "row 1"]),
    "fractional stamps": (pd.DataFrame({"a": [1.0, 2.0]}, index=[0.0, 0.1]), {}, ValueError, ["whole numbers", "row 1", "0.1", "to_timedelta"]),
    "jitter": (at(*(pd.date_range("2024", periods=6, freq="h") + pd.to_timedelta([0, 3, -2, 5, 0, 0], "s"))), {}, ValueError, ["Cannot infer one time step", "row 1", "resample('1h').mean()", "freq="]),
    "uneven days": (at(DAYS[0], DAYS[2], "2024-01-06"), {}, ValueError, ["Cannot infer one time step", "row 2", "freq="]),
    "uneven integers": (pd.DataFrame({"a": [1.0, 2, 3]}, index=[0, 2, 5]), {}, ValueError, ["Cannot infer one time step", "row 2, time 5", "freq=1"]),
    "phases": (panel_frame(("x", T1), ("x", T3), ("y", T2), ("y", DAYS[3])), {}, ValueError, ["do not share one time grid", "row 2, series 'y'"]),
    "off the given freq": (at("2024-01-01 00:00", "2024-01-01 00:40"), {"freq": "30min"}, ValueError, ["row 1", "not on the grid of freq='30min'"]),
    "weekend with business freq": (at("2024-01-05", "2024-01-06"), {"freq": "B"}, ValueError, ["row 1", "freq='B'"]),
    "months off the given freq": (at("2024-01-01", "2024-02-02"), {"freq": "MS"}, ValueError, ["freq='MS'"]),
    "unknown freq": (table(), {"freq": "fortnight"}, ValueError, ["freq='fortnight' is not a pandas frequency", "'15min'"]),
    "outdated freq": (table(), {"freq": "H"}, ValueError, ["freq='H'"]),
    "unsupported freq": (table(), {"freq": "SME"}, ValueError, ["not supported", "'MS'"]),
    "negative freq": (table(), {"freq": "-1D"}, ValueError, ["positive step"]),
    "number as freq": (table(), {"freq": 3}, TypeError, ["freq must be a pandas alias", "got 3"]),
    "alias for integers": (table().reset_index(drop=True), {"freq": "D"}, TypeError, ["freq must be an integer"]),
    "zero freq": (table().reset_index(drop=True), {"freq": 0}, ValueError, ["positive step"]),
    "other freq of periods": (table().set_axis(DAYS.to_period("D")), {"freq": "h"}, ValueError, ["differs from the freq 'D'", "asfreq"]),
    "absurd grid": (pd.DataFrame({"a": np.ones(4)}, index=pd.DatetimeIndex(["1970-01-01 00:00:00", "1970-01-01 00:00:01", "2000-01-01", "2020-01-01"])), {}, ValueError, ["more than 100 times", "coarser freq="]),
    "one index level": (pd.DataFrame({"a": [1.0]}, index=pd.MultiIndex.from_tuples([(T1,)], names=["t"])), {}, ValueError, ["single level 't'", "(series, time)"]),
    "time level first": (panel_frame((T1, 7), (T2, 7), names=("t", "s")), {}, ValueError, ["last index level of X must be the time", "'t'", "reorder_levels"]),
    "unknown time": (table(), {"time": "date"}, ValueError, ["time='date' is neither a column nor an index level", "['a', 'b']"]),
    "unknown series column": (table().reset_index(names="t"), {"time": "t", "series": "id"}, ValueError, ["series='id' is not a column"]),
    "series without time": (table(), {"series": "a"}, ValueError, ["without a time column", "time="]),
    "incomplete series levels": (panel_frame(("x", T1)), {"series": ["q"]}, ValueError, ["must name all index levels"]),
    "time of an array": (np.ones((3, 1)), {"time": "t"}, ValueError, ["time='t' needs labels"]),
    "freq of an array": (np.ones((3, 1)), {"freq": "D"}, ValueError, ["freq='D' needs labels"]),
}  # fmt: skip

MASKS = {
    "shape": (table(), {"mask": np.ones((5, 3), dtype=bool)}, ValueError, ["mask has shape (5, 3)", "(5, 2)"]),
    "array shape": (np.ones((3, 2)), {"mask": np.ones((2, 3), dtype=bool)}, ValueError, ["mask has shape (2, 3)"]),
    "lacks a column": (table(), {"mask": table()[["a"]].notna()}, ValueError, ["mask lacks column 'b'"]),
    "lacks a row": (table(), {"mask": table().notna().iloc[1:]}, ValueError, ["mask lacks row", "2024-01-01"]),
    "no booleans": (np.ones((3, 1)), {"mask": np.full((3, 1), 0.5)}, TypeError, ["booleans (True = observed)", "0.5"]),
    "strings": (np.ones((1, 1)), {"mask": [["yes"]]}, TypeError, ["booleans"]),
    "NA": (table(), {"mask": table().notna().astype("boolean").mask(table() == 0)}, TypeError, ["booleans"]),
    "duplicate rows": (table(), {"mask": pd.concat([table().notna()] * 2)}, ValueError, ["duplicate row labels"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "options", "error", "parts"),
    [
        pytest.param(*case, id=name)
        for part in (VALUES, TIMES, MASKS)
        for name, case in part.items()
    ],
)
def test_wrong_input(data, options, error, parts):
    with pytest.raises(error) as caught:
        read_panel(data, **options)
    assert type(caught.value) is error
    for part in parts:
        assert part in str(caught.value)


def test_the_name_of_the_data_is_in_the_message():
    with pytest.raises(ValueError, match=re.escape("history has no observed value")):
        read_panel(np.full((3, 1), np.nan), name="history")


def test_other_time_axes_than_in_fit():
    fitted = read_panel(table()).index
    cases = [
        (table().tz_localize("UTC"), "have UTC, but no time zone"),
        (table().reset_index(drop=True), "has integer time stamps"),
        (table().set_axis(DAYS.to_period("D")), "has periods"),
        (table().set_axis(DAYS + pd.Timedelta("1h")), "does not lie on the time grid"),
    ]
    for data, message in cases:
        with pytest.raises(ValueError, match=message):
            fitted.positions(read_panel(data).index)
        with pytest.raises(ValueError, match=message):
            read_panel(data, like=fitted)
    aware = read_panel(table().tz_localize("UTC")).index
    with pytest.raises(ValueError, match=r"have no time zone, but UTC.*tz_localize\('UTC'\)"):
        read_panel(table(), like=aware)
    monthly = read_panel(at("2024-01-01", "2024-02-01").to_period("M")).index
    with pytest.raises(ValueError, match="freq 'D', but 'M' is expected"):
        read_panel(table().to_period("D"), like=monthly)


def xarray_cases():
    xr = pytest.importorskip("xarray")
    array = xr.DataArray(np.ones((5, 3)), dims=("time", "x"), coords={"time": DAYS})
    other = xr.DataArray([1.0, 2.0, 3.0], dims="x")
    yield array.rename(time="t"), {}, ValueError, ["no dim 'time'", "time="]
    yield array, {"series": "site"}, ValueError, ["no dim 'site'"]
    yield array, {"series": ["x"]}, TypeError, ["series must be the name of one dim"]
    yield array * np.nan, {}, ValueError, ["no observed value"]
    yield array.where(array.x != 1, np.inf), {}, ValueError, ["contains infinity", "cell 1"]
    yield array[[0, 2, 1]], {}, ValueError, ["not sorted", "row 2"]
    yield array[[0, 1, 1]], {}, ValueError, ["duplicate", "row 2"]
    yield array[:0], {}, ValueError, ["0 sample(s)"]
    yield array[:, :0], {}, ValueError, ["0 feature(s)"]
    yield array.astype(str), {}, ValueError, ["could not convert string to float"]
    yield array.astype(complex), {}, ValueError, ["Complex data not supported"]
    yield xr.Dataset(), {}, ValueError, ["0 feature(s)"]
    yield xr.Dataset({"a": array, "b": other}), {}, ValueError, ["'b'", "set_coords"]
    yield xr.Dataset({"a": ("time", list("vwxyz"))}), {}, ValueError, ["variable 'a'"]
    yield array, {"mask": np.ones((3, 5), dtype=bool)}, ValueError, ["mask has shape (3, 5)"]
    yield array, {"mask": array[:4] > 0}, ValueError, ["mask lacks", "'time'"]
    yield array, {"mask": other > 0}, ValueError, ["mask has dims ('x',)"]


def test_wrong_xarray_input():
    n_cases = 0
    for data, options, error, parts in xarray_cases():
        with pytest.raises(error) as caught:
            read_panel(data, **options)
        for part in parts:
            assert part in str(caught.value), (part, str(caught.value))
        n_cases += 1
    assert n_cases == 17
