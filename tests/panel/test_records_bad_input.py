# ruff: noqa: E501 -- one case per line
"""Wrong records: the exception's type, and a message that names the place and the remedy."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

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

Q = [0.1, 0.2, 0.3]
DAYS = pd.date_range("2024-01-01", periods=3)


def table(**columns):
    frame = pd.DataFrame(np.ones((4, 3)), columns=Q, index=list("wxyz"))
    return frame.assign(**columns) if columns else frame


def put(value, row=2, column=1, X=None):
    X = table() if X is None else X.copy()
    X.iloc[row, column] = value
    return X


def named(*columns):
    return pd.DataFrame(np.ones((4, len(columns))), columns=list(columns))


def with_levels(*columns):
    return named(*columns).set_axis(pd.MultiIndex.from_tuples(columns), axis=1)


def entry(value):
    array = np.ones((4, 3), dtype=object)
    array[2, 1] = value
    return array


def panel(*rows):
    index = pd.MultiIndex.from_tuples(rows, names=("s", "t"))
    return pd.DataFrame({"a": np.ones(len(rows))}, index=index)


WRONG = {
    "none": (None, {}, TypeError, ["X must be a DataFrame", "NoneType"]),
    "string": ("data.csv", {}, TypeError, ["got str"]),
    "dict": ({"a": [1]}, {}, TypeError, ["got dict"]),
    "series": (pd.Series([1.0, 2.0]), {}, ValueError, ["Expected a 2-dimensional container but got <class 'pandas", "X.to_frame().T for one record"]),
    "panel series": (panel(("x", DAYS[0]))["a"], {}, ValueError, ["X.to_frame() for a panel of one variable"]),
    "1-D": (np.arange(3.0), {}, ValueError, ["Expected 2D array, got 1D array instead", "Reshape your data"]),
    "scalar": (3.0, {}, ValueError, ["Expected 2D array, got scalar array instead"]),
    "4-D": (np.zeros((2, 2, 2, 2)), {}, ValueError, ["Found array with dim 4", "(n_records, n_steps, n_variables)"]),
    "ragged list": ([[1.0, 2.0], [1.0]], {}, ValueError, ["unequal lengths"]),
    "no records": (np.zeros((0, 3)), {}, ValueError, ["Found array with 0 sample(s) (shape=(0, 3)) while a minimum of 1 is required."]),
    "no columns": (np.zeros((4, 0)), {}, ValueError, ["Found array with 0 feature(s) (shape=(4, 0)) while a minimum of 1 is required."]),
    "no records 3-D": (np.zeros((0, 3, 2)), {}, ValueError, ["0 sample(s) (shape=(0, 3, 2))"]),
    "no steps 3-D": (np.zeros((4, 0, 2)), {}, ValueError, ["0 feature(s) (shape=(4, 0, 2))"]),
    "table without rows": (table().iloc[:0], {}, ValueError, ["0 sample(s) (shape=(0, 3)) while a minimum of 1 is required."]),
    "table without columns": (table()[[]], {}, ValueError, ["0 feature(s) (shape=(4, 0)) while a minimum of 1 is required."]),
    "sparse": (sparse.csr_array(np.eye(3)), {}, TypeError, ["Sparse data", ".toarray()"]),
    "complex": (np.ones((3, 2), dtype=complex), {}, ValueError, ["Complex data not supported"]),
    "complex column": (table(c=np.ones(4, dtype=complex)).rename(columns=str), {}, ValueError, ["Complex data not supported", "'c'"]),
    "string array": (np.array([["a"], ["b"]]), {}, ValueError, ["could not convert string to float: 'a'"]),
    "string entry": (entry("x"), {}, ValueError, ["could not convert string to float: 'x'"]),
    "dict entry": (entry({"foo": "bar"}), {}, TypeError, ["argument must be a string or a real number, not 'dict'"]),
    "string column": (named("a", "b").assign(b=list("wxyz")), {}, TypeError, ["Column 'b'", "encode", "X.drop(columns=['b'])"]),
    "mixed column": (named("a", "b").assign(b=pd.Series([1, "?", 2, 3], dtype=object)), {}, ValueError, ["could not convert string to float: '?'", "column 'b', row 1"]),
    "date column": (named("a", "b").assign(b=pd.Timestamp("2024-01-01")), {}, TypeError, ["Column 'b'", "datetime64"]),
    "inf in an array": (np.array([[1.0, 2.0], [-np.inf, 1.0]]), {}, ValueError, ["Input X contains infinity", "(1, 0) is -inf", "np.where(np.isfinite(X), X, np.nan)"]),
    "inf in a 3-D array": (np.full((2, 2, 2), np.inf), {}, ValueError, ["(0, 0, 0) is inf"]),
    "inf in a table": (put(np.inf), {}, ValueError, ["Input X contains infinity", "column 0.2, row 2 (y) is inf", "X.replace("]),
    "all missing": (table() * np.nan, {}, ValueError, ["X has no observed value"]),
    "missing column": (table() * [1.0, np.nan, 1.0], {}, ValueError, ["Column 0.2 of X has no observed value", "X.drop(columns=[0.2])"]),
    "missing array column": (np.ones((4, 3)) * [1.0, np.nan, 1.0], {}, ValueError, ["Column 1 of X", "np.delete(X, 1, -1)"]),
    "missing variable": (np.ones((4, 3, 2)) * [1.0, np.nan], {}, ValueError, ["Column 1 of X"]),
    "masked-out column": (table(), {"mask": table() * [1.0, 0.0, 1.0] > 0}, ValueError, ["Column 0.2"]),
    "duplicate columns": (table()[[0.1, 0.1]], {}, ValueError, ["Column 0.1 appears more than once"]),
    "mixed names": (named("a", 1), {}, TypeError, ["Feature names are only supported if all input features have string names, but your input has ['int', 'str']", "X.columns.astype(str)"]),
    "three levels": (with_levels(("a", 1, "u"), ("a", 2, "u")), {}, ValueError, ["have 3 levels", "(variable, axis value)", "droplevel"]),
    "incomplete levels": (with_levels(("a", 1), ("a", 2), ("b", 1)), {}, ValueError, ["Variable 'b' of X lacks the axis value 2", "Interpolate"]),
    "missing label": (with_levels(("a", 1.0), ("a", np.nan)), {}, ValueError, ["Column 1 of X has a missing label"]),
    "panel without order": (panel(("x", DAYS[1]), ("x", DAYS[0])), {}, ValueError, ["not sorted", "row 1"]),
    "time level first": (panel((DAYS[0], "x"), (DAYS[1], "x")), {}, ValueError, ["The last index level of X must be the time"]),
    "unknown time": (table(), {"time": "date"}, ValueError, ["time='date' is neither a column nor an index level"]),
    "time of an array": (np.ones((3, 2)), {"time": "t"}, ValueError, ["time='t' needs labels"]),
    "mask's shape": (np.ones((3, 2)), {"mask": np.ones((2, 3), dtype=bool)}, ValueError, ["mask has shape (2, 3)", "(3, 2)"]),
    "mask of numbers": (np.ones((3, 1)), {"mask": np.full((3, 1), 0.5)}, TypeError, ["booleans (True = observed)", "0.5"]),
    "mask lacks a column": (table(), {"mask": table()[[0.1]].notna()}, ValueError, ["mask lacks column 0.2"]),
    "mask lacks a row": (table(), {"mask": table().notna().iloc[1:]}, ValueError, ["mask lacks row 'w'"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "options", "error", "parts"),
    [pytest.param(*case, id=name) for name, case in WRONG.items()],
)
def test_wrong_input(data, options, error, parts):
    with pytest.raises(error) as caught:
        read_records(data, **options)
    assert type(caught.value) is error
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def xarray_cases():
    xr = pytest.importorskip("xarray")
    array = xr.DataArray(np.ones((4, 3)), dims=("sample", "q"), coords={"q": Q})
    cube = xr.DataArray(np.ones((4, 2, 3)), dims=("sample", "detector", "q"))
    yield (
        array[0],
        {},
        ValueError,
        ["Expected 2D array, got 1D array instead", "expand_dims('record')"],
    )
    yield array[0, 0], {}, ValueError, ["Expected 2D array, got 1D array instead"]
    yield array, {"time": "t"}, ValueError, ["X has no dim 't'", "('sample', 'q')", "time="]
    yield array, {"series": "site"}, ValueError, ["X has no dim 'site'", "series="]
    yield array, {"series": ["q"]}, TypeError, ["series must be the name of one dim"]
    yield array, {"time": "q", "series": "q"}, ValueError, ["both name the dim 'q'"]
    yield array[:0], {}, ValueError, ["0 sample(s) (shape=(0, 3))"]
    yield array[:, :0], {}, ValueError, ["0 feature(s) (shape=(4, 0))"]
    yield array.astype(str), {}, ValueError, ["could not convert string to float"]
    yield array.astype(complex), {}, ValueError, ["Complex data not supported"]
    yield array * np.nan, {}, ValueError, ["no observed value: all entries are missing"]
    yield (
        array.where(array.q != 0.2),
        {},
        ValueError,
        ["Position q=0.2 of X has no observed value", "X.dropna('q', how='all')"],
    )
    yield (
        array.drop_vars("q").where(array.values * [1, 0, 1] > 0),
        {},
        ValueError,
        ["Position q=1 of X"],
    )
    yield (
        array.where(array.q != 0.2, np.inf),
        {},
        ValueError,
        ["contains infinity", "record 0, position 1", "X.where(np.isfinite(X))"],
    )
    yield (
        cube.where(cube.detector != 1, -np.inf),
        {},
        ValueError,
        ["record 0, position 0, variable 1 is -inf"],
    )
    yield xr.Dataset(), {}, ValueError, ["0 feature(s)"]
    yield xr.Dataset({"a": array, "b": array[0]}), {}, ValueError, ["must share their dims", "'b'"]
    yield (
        xr.Dataset({"a": array, "b": array * np.nan}),
        {},
        ValueError,
        ["Variable 'b' of X has no observed value", "X.drop_vars('b')"],
    )
    yield array, {"mask": np.ones((3, 4), dtype=bool)}, ValueError, ["mask has shape (3, 4)"]
    yield array, {"mask": array[:, :2] > 0}, ValueError, ["mask lacks 0.3 along 'q'"]
    yield array, {"mask": array[0] > 0}, ValueError, ["mask has dims ('q',)"]


def test_wrong_xarray_input():
    n_cases = 0
    for data, options, error, parts in xarray_cases():
        with pytest.raises(error) as caught:
            read_records(data, **options)
        for part in parts:
            assert part in str(caught.value), (part, str(caught.value))
        n_cases += 1
    assert n_cases == 21


def test_messages_name_the_data():
    with pytest.raises(ValueError, match=re.escape("clean has no observed value")):
        read_records(np.full((3, 1), np.nan), name="clean")


def test_tables_may_be_empty_where_allowed():
    records = read_records(np.full((3, 2), np.nan), allow_all_missing=True)
    assert not records.mask.any() and not records.values.any()
    fitted = read_records(table()).index
    assert not read_records(table() * np.nan, like=fitted).mask.any()


def test_infinity_behind_a_mask_is_missing():
    frame = put(np.inf)
    records = read_records(frame, mask=np.isfinite(frame))
    assert not records.mask[2, 1, 0] and records.values[2, 1, 0] == 0.0


OTHER = {
    "fewer columns": (np.ones((4, 3)), np.ones((4, 2)), ["X has 2 features, but VAEDenoiser is expecting 3 features as input"]),
    "fewer labelled columns": (table(), table()[Q[:2]], ["X has 2 features, but VAEDenoiser is expecting 3 features as input"]),
    "other axis": (table(), table().set_axis([0.1, 0.25, 0.35], axis=1), ["position 1 is 0.25, expected 0.2 (2 of 3 differ)", "Interpolate X to the axis of fit"]),
    "one other value": (table(), table().set_axis([0.1, 0.2, 0.31], axis=1), ["position 2 is 0.31, expected 0.3."]),
    "other order": (table(), table()[[0.1, 0.3, 0.2]], ["position 1 is 0.3, expected 0.2"]),
    "lost axis": (table(), pd.DataFrame(np.ones((4, 3))), ["position 0 is 0, expected 0.1"]),
    "fine axis, one step on": (table().set_axis([500.0, 500.0001, 500.0002], axis=1), table().set_axis([500.0001, 500.0002, 500.0003], axis=1), ["position 0 is 500.0001, expected 500.0"]),
    "dates as columns": (table().set_axis(DAYS, axis=1), table().set_axis(DAYS + pd.Timedelta("1D"), axis=1), ["position 0 is 2024-01-02 00:00:00, expected 2024-01-01 00:00:00"]),
    "other names": (named("a", "b"), named("a", "c"), ["The feature names should match those that were passed during fit.\nFeature names unseen at fit time:\n- c\nFeature names seen at fit time, yet now missing:\n- b\n"]),
    "names in other order": (named("a", "b"), named("b", "a"), ["Feature names must be in the same order as they were in fit."]),
    "more names": (named("a"), named("a", "b"), ["Feature names unseen at fit time:\n- b\n"]),
    "other steps": (np.ones((4, 3, 2)), np.ones((4, 5, 2)), ["X has 5 time steps, but VAEDenoiser is expecting 3, as in fit."]),
    "other variables": (np.ones((4, 3, 2)), np.ones((4, 3, 1)), ["X has 1 features, but VAEDenoiser is expecting 2 features as input"]),
    "table for 3-D": (np.ones((4, 3, 2)), np.ones((4, 6)), ["X has 1 variables, but VAEDenoiser is expecting 2", "array of 4 records x 6 steps"]),
    "other names of variables": (with_levels(("a", 1), ("b", 1)), with_levels(("a", 1), ("c", 1)), ["Feature names unseen at fit time:\n- c"]),
    "longer series": (panel(*[("x", t) for t in DAYS]), panel(*[("u", DAYS[0])], *[("v", t) for t in DAYS], ("v", pd.Timestamp("2024-01-04"))), ["X has 4 time steps (record 'v'), but VAEDenoiser is expecting 3", "Cut longer records"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("fitted", "later", "parts"), [pytest.param(*case, id=name) for name, case in OTHER.items()]
)
def test_other_features_than_in_fit(fitted, later, parts):
    index = read_records(fitted).index
    with pytest.raises(ValueError) as caught:
        match_records(read_records(later, like=index), index, "VAEDenoiser")
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def test_other_cells_than_in_fit():
    xr = pytest.importorskip("xarray")
    coords = {"detector": ["near", "far"], "q": Q}
    cube = xr.DataArray(np.ones((4, 2, 3)), dims=("sample", "detector", "q"), coords=coords)
    index = read_records(cube).index
    with pytest.raises(ValueError, match="coordinate 'detector' of X differs from that in fit"):
        read_records(cube.isel(detector=[1, 0]), like=index)
    shifted = read_records(cube.assign_coords(q=[0.1, 0.2, 0.4]), like=index)
    with pytest.raises(ValueError, match=r"position 2 is 0\.4, expected 0\.3"):
        match_records(shifted, index, "E")


@pytest.mark.parametrize(
    ("fitted", "later", "message"),
    [
        (named("a", "b"), np.ones((2, 2)), "X does not have valid feature names, but E was fitted with feature names"),
        (np.ones((2, 2)), named("a", "b"), "X has feature names, but E was fitted without feature names"),
    ],
)  # fmt: skip
def test_names_on_one_side_only(fitted, later, message):
    index = read_records(fitted).index
    with pytest.warns(UserWarning, match=message) as caught:
        match_records(read_records(later, like=index), index, "E")
    assert caught[0].filename == __file__


def test_axis_values_match_beside_arrays_without_a_warning():
    index = read_records(table()).index
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        match_records(read_records(np.ones((2, 3)), like=index), index, "E")


def test_shapes_of_outputs_are_checked():
    index = read_records(np.ones((4, 3))).index
    for call in (
        lambda: write_records(np.ones((4, 3)), index),
        lambda: write_records(np.ones((3, 3, 1)), index),
        lambda: write_record_samples(np.ones((4, 3, 1)), index),
        lambda: write_codes(np.ones((4, 2)), index, ["z0"]),
        lambda: write_scores(np.ones((4, 1)), index),
        lambda: write_steps(np.ones(4), index),
    ):
        with pytest.raises(ValueError, match=r"have shape .*, but the index needs"):
            call()


def test_numbers_of_new_records_are_checked():
    index = read_records(np.ones((4, 3))).index
    for n, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError), (None, TypeError)):
        with pytest.raises(error, match="n must be"):
            index.new_records(n)
    with pytest.raises(ValueError, match="3 labels were given for 2 records"):
        index.new_records(2, labels=list("abc"))


def test_damaged_files_are_refused():
    data = read_records(table()).index.to_dict()
    with pytest.raises(ValueError, match=r"lacks 'columns'.*damaged"):
        RecordIndex.from_dict({k: v for k, v in data.items() if k != "columns"})
    with pytest.raises(ValueError, match="Unknown kind of records 'pickle'"):
        RecordIndex.from_dict(data | {"kind": "pickle"})


class MeanFill(TransformerMixin, BaseEstimator):
    """Fills gaps by the mean record: the least estimator that reads and writes records."""

    def fit(self, X, y=None):
        records = read_records(X)
        self.n_features_in_ = records.n_features_in
        if records.feature_names is not None:
            self.feature_names_in_ = records.feature_names
        self.index_ = records.index
        counts = np.maximum(records.mask.sum(axis=0), 1)
        self.mean_ = records.values.sum(axis=0) / counts
        return self

    def transform(self, X):
        check_is_fitted(self)
        records = read_records(X, like=self.index_)
        match_records(records, self.index_, type(self).__name__)
        filled = np.where(records.mask, records.values, self.mean_)
        return write_records(filled, records.index)

    def get_feature_names_out(self, input_features=None):
        names = getattr(self, "feature_names_in_", None)
        return np.array([f"x{i}" for i in range(self.n_features_in_)]) if names is None else names

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        return tags


@parametrize_with_checks([MeanFill()])
def test_estimators_on_records_pass_the_checks_of_sklearn(estimator, check):
    check(estimator)
