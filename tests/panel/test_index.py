"""PanelIndex: positions, continuation, futures, slices, serialisation, pairs of containers."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_index_equal, assert_series_equal

from tsvae.panel import (
    PanelIndex,
    concat,
    match_variables,
    read_panel,
    seasonal_periods,
    write,
)


def hours(n, start="2024-01-01", **kwargs):
    return pd.date_range(start, periods=n, freq="h", **kwargs)


def frame(index, columns=("a",)):
    values = np.arange(float(len(index) * len(columns))).reshape(len(index), -1)
    return pd.DataFrame(values, index=index, columns=list(columns))


def two_series(n_x=4, n_y=6):
    index = pd.MultiIndex.from_tuples(
        [("x", t) for t in hours(n_x)] + [("y", t) for t in hours(n_y, "2024-01-02")],
        names=["s", "t"],
    )
    return frame(index)


def test_row_positions_and_take_rows():
    data = two_series().iloc[[0, 1, 3, 4, 9]]
    panel = read_panel(data)
    series, step = panel.index.row_positions()
    assert series.tolist() == [0, 0, 0, 1, 1] and step.tolist() == [0, 1, 3, 0, 5]
    np.testing.assert_array_equal(panel.index.take_rows(panel.values)[:, 0], data["a"])


def test_positions_of_later_and_earlier_rows():
    index = read_panel(two_series()).index
    other = pd.MultiIndex.from_tuples(
        [
            ("y", pd.Timestamp("2024-01-01 22:00")),
            ("y", pd.Timestamp("2024-01-02 06:00")),
            ("x", pd.Timestamp("2024-01-01 02:00")),
            ("x", pd.Timestamp("2024-01-01 05:00")),
        ]
    )
    series, step = index.positions(read_panel(frame(other), freq="h").index)
    assert series.tolist() == [1, 1, 0, 0] and step.tolist() == [-2, 6, 2, 5]


def test_positions_of_a_single_row_use_the_known_step():
    index = read_panel(frame(hours(5))).index
    other = read_panel(frame(hours(1, "2024-01-01 08:00")[:1].append(hours(0)))).index
    assert index.positions(other).step.tolist() == [8]


def test_positions_across_resolutions_and_time_zones():
    index = read_panel(frame(hours(5, tz="UTC").as_unit("ns"))).index
    other = hours(2, "2024-01-01 06:00", tz="Europe/Berlin").as_unit("s")
    assert index.positions(read_panel(frame(other)).index).step.tolist() == [5, 6]


def test_positions_without_stamps_follow():
    index = read_panel(np.zeros((5, 1))).index
    assert index.positions(read_panel(np.zeros((2, 3))).index).step.tolist() == [5, 6]


def test_continues():
    panel = read_panel(two_series())
    index = panel.index
    assert index.continues(index.future(3))
    assert not index.continues(index)
    assert not index.continues(index.future(3).future(3))
    only_y = frame(pd.MultiIndex.from_tuples([("y", t) for t in hours(2, "2024-01-02 06:00")]))
    assert index.continues(read_panel(only_y).index)
    stranger = frame(pd.MultiIndex.from_tuples([("z", t) for t in hours(2, "2024-01-02 06:00")]))
    assert not index.continues(read_panel(stranger).index)
    arrays = read_panel(np.zeros((4, 1))).index
    assert not arrays.continues(read_panel(np.zeros((2, 1))).index)


def test_like_reads_with_the_known_clock():
    trained = read_panel(frame(hours(24))).index
    history = frame(hours(9, "2024-01-03")[[0, 2, 8]])
    assert read_panel(history, like=trained).n_steps == 9
    assert read_panel(history.iloc[:1], like=trained).index.freq == "h"
    long = history.reset_index(names="when")
    by_column = read_panel(frame(hours(5)).reset_index(names="when"), time="when").index
    assert read_panel(long, like=by_column).n_steps == 9
    off = frame(hours(3) + pd.Timedelta("5min"))
    with pytest.raises(ValueError, match=r"row 0, time 2024-01-01 00:05:00 of X does not lie"):
        read_panel(off, like=trained)


def test_futures_of_unequal_series_start_after_their_own_end():
    data = two_series()
    future = write(np.zeros((2, 2, 1)), read_panel(data).index.future(2))
    assert future.index.names == ["s", "t"]
    assert future.index.tolist() == [
        ("x", pd.Timestamp("2024-01-01 04:00")),
        ("x", pd.Timestamp("2024-01-01 05:00")),
        ("y", pd.Timestamp("2024-01-02 06:00")),
        ("y", pd.Timestamp("2024-01-02 07:00")),
    ]


@pytest.mark.parametrize(
    ("horizon", "error"), [(0, ValueError), (-1, ValueError), ("a", TypeError), (True, TypeError)]
)
def test_horizon_is_checked(horizon, error):
    with pytest.raises(error, match="horizon must be"):
        read_panel(np.zeros((3, 1))).index.future(horizon)


CONTAINERS = [
    frame(hours(4, tz="Europe/Berlin", name="t"), ["a", "b"]),
    frame(hours(4))["a"],
    frame(hours(4)).reset_index(names="when"),
    two_series(),
    frame(pd.period_range("2024-01", periods=3, freq="M")),
    frame(pd.Index([2, 4, 8]), [("a", 1), 2.5]),
    frame(pd.timedelta_range("0s", periods=3, freq="s")),
    frame(pd.date_range("2024-01-31", periods=3, freq="ME"), [pd.Timestamp("2024-01-01")]),
    np.zeros((4, 2)),
    np.zeros((2, 4, 2)),
]


@pytest.mark.parametrize("data", CONTAINERS, ids=range(len(CONTAINERS)))
def test_index_survives_pickle_copy_and_json(data):
    time = "when" if isinstance(data, pd.DataFrame) and "when" in data else None
    panel = read_panel(data, time=time)
    text = json.dumps(panel.index.to_dict(), allow_nan=False)
    for index in (
        pickle.loads(pickle.dumps(panel.index)),
        copy.deepcopy(panel.index),
        PanelIndex.from_dict(json.loads(text)),
    ):
        _assert_same(write(panel.values, index), write(panel.values, panel.index))
        values = np.zeros((panel.n_series, 2, panel.n_features))
        _assert_same(write(values, index.future(2)), write(values, panel.index.future(2)))
        assert seasonal_periods(index) == seasonal_periods(panel.index)
        assert index.describe() == panel.index.describe()


def _assert_same(left, right):
    if isinstance(left, pd.DataFrame):
        assert_frame_equal(left, right)
    elif isinstance(left, pd.Series):
        assert_series_equal(left, right)
    else:
        np.testing.assert_array_equal(left, right)


def test_saved_index_with_unknown_parts_is_refused():
    data = read_panel(np.zeros((3, 1))).index.to_dict()
    with pytest.raises(ValueError, match=r"lacks \['clock'\]"):
        PanelIndex.from_dict({k: v for k, v in data.items() if k != "clock"})
    for part in ("clock", "layout"):
        with pytest.raises(ValueError, match=r"Unknown .* kind 'evil'"):
            PanelIndex.from_dict(data | {part: {"kind": "evil"}})


def test_labels_that_json_cannot_hold_are_named():
    index = read_panel(frame(hours(3), [object()])).index
    with pytest.raises(TypeError, match=r"type object .* cannot be written to JSON"):
        index.to_dict()


def test_slice_time_counts_from_each_series_own_end():
    panel = read_panel(two_series())
    last = panel.slice_time(-2)
    np.testing.assert_array_equal(last.values[..., 0], [[2, 3], [8, 9]])
    assert_frame_equal(write(last.values, last.index), two_series().groupby("s").tail(2))
    head = panel.slice_time(None, -2)
    np.testing.assert_array_equal(head.lengths, [2, 4])
    np.testing.assert_array_equal(head.values[0, :, 0], [0, 1, 0, 0])
    assert not head.mask[0, 2:].any()
    assert head.index.continues(last.index)
    per_series = panel.slice_time(np.array([3, 0]), np.array([4, 1]))
    np.testing.assert_array_equal(per_series.values.ravel(), [3, 4])
    empty = panel.slice_time(5)
    np.testing.assert_array_equal(empty.lengths, [0, 1])
    assert panel.tail(100).n_steps == 6


def test_slices_of_arrays():
    array = np.arange(12.0).reshape(2, 6, 1)
    panel = read_panel(array).slice_time(2, -1)
    np.testing.assert_array_equal(write(panel.values, panel.index), array[:, 2:5])
    with pytest.raises(ValueError, match="share their rows"):
        read_panel(array).slice_time(np.array([0, 1]))


def test_slices_keep_gaps_and_stamps():
    data = frame(hours(8)[[0, 1, 4, 6, 7]])
    panel = read_panel(data).slice_time(2, 7)
    assert panel.n_steps == 5
    assert_frame_equal(write(panel.values, panel.index), data.iloc[2:4])
    future = write(np.zeros((1, 1, 1)), panel.index.future(1))
    assert future.index[0] == pd.Timestamp("2024-01-01 07:00")


def test_concat_appends_rows_in_time():
    data = two_series()
    panel = read_panel(data)
    head, tail = panel.slice_time(0, 3), panel.slice_time(3)
    joined = concat(head, tail)
    np.testing.assert_array_equal(joined.values, panel.values)
    np.testing.assert_array_equal(joined.mask, panel.mask)
    assert_frame_equal(write(joined.values, joined.index).sort_index(), data.sort_index())
    later = concat(panel.slice_time(0, 1), panel.slice_time(3))
    assert not later.mask[:, 1:3].any() and later.mask[:, 3].all()
    with pytest.raises(ValueError, match="Row 0 of X does not come after"):
        concat(panel, tail)
    with pytest.raises(ValueError, match="Series 'z' of new"):
        other = frame(pd.MultiIndex.from_tuples([("z", t) for t in hours(2)]))
        concat(panel, read_panel(other), name="new")
    arrays = read_panel(np.arange(8.0).reshape(2, 4, 1))
    twice = concat(arrays, arrays)
    np.testing.assert_array_equal(
        write(twice.values, twice.index)[0, :, 0], [0, 1, 2, 3, 0, 1, 2, 3]
    )


def test_target_array_takes_the_rows_of_a_frame():
    X = two_series()
    rows = read_panel(X).index
    for y in (np.arange(10.0), np.arange(10.0)[:, None]):
        panel = read_panel(y, rows=rows, allow_1d=True, name="y")
        assert panel.values.shape == (2, 6, 1)
        np.testing.assert_array_equal(panel.values[0, :, 0], [0, 1, 2, 3, 0, 0])
        np.testing.assert_array_equal(write(panel.values, panel.index), y)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[10, 9\]"):
        read_panel(np.zeros((9, 1)), rows=rows)


def test_target_frame_beside_covariates():
    X = frame(hours(5, name="t"), ["u", "v"])
    y = frame(hours(5, name="t"))["a"].rename("load")
    rows = read_panel(X).index
    panel = read_panel(y, rows=rows, name="y")
    assert_series_equal(write(panel.values, panel.index), y)
    later = frame(hours(3, "2024-01-01 07:00", name="t"), ["u", "v"])
    out = write(np.zeros((1, 3, 1)), panel.index.with_rows(read_panel(later).index))
    assert isinstance(out, pd.Series) and out.name == "load"
    assert_index_equal(out.index, later.index)
    with pytest.raises(ValueError, match=r"rows of y do not match: row 1 is .*01:00.*expected"):
        other = dataclasses.replace(rows, row_labels=y.index[[0, 2, 1, 3, 4]])
        read_panel(y, rows=other, name="y")
    with pytest.raises(ValueError, match="inconsistent numbers"):
        read_panel(y.iloc[:4], rows=rows)


def test_target_frame_beside_covariates_with_a_time_column():
    X = frame(hours(5), ["u"]).reset_index(names="when")
    y = pd.Series(np.arange(5.0), name="y")
    panel = read_panel(y, rows=read_panel(X, time="when").index)
    assert panel.index.freq == "h"
    assert_series_equal(write(panel.values, panel.index), y)


def test_covariate_array_takes_the_rows_of_a_target_frame():
    y = two_series()
    target = read_panel(y, name="y")
    X = read_panel(np.arange(20.0).reshape(10, 2), rows=target.index)
    assert X.values.shape == (2, 6, 2)
    assert_frame_equal(write(target.values, target.index.with_rows(X.index)), y)


def test_feature_names():
    assert read_panel(frame(hours(3), ["a", "b"])).feature_names.tolist() == ["a", "b"]
    assert read_panel(frame(hours(3), ["a", 1])).feature_names is None
    assert read_panel(np.zeros((3, 2))).feature_names is None


def test_match_variables():
    fitted = read_panel(frame(hours(3), ["a", "b"]))
    match_variables(fitted, fitted.index)
    match_variables(fitted, ["a", "b"])
    match_variables(read_panel(np.zeros((3, 2))), 2)
    cases = [
        (["a", "c"], r"(?s)should match those.*unseen at fit time:\n- c\n.*now missing:\n- b"),
        (["b", "a"], "must be in the same order as they were in fit"),
        (["a"], "yet now missing:\n- b"),
    ]
    for columns, message in cases:
        with pytest.raises(ValueError, match=message):
            match_variables(read_panel(frame(hours(3), columns)), fitted.index, "Model")
    three = read_panel(np.zeros((3, 3)))
    with pytest.raises(
        ValueError, match="X has 3 features, but Model is expecting 2 features as input"
    ):
        match_variables(three, 2, "Model")
    with pytest.warns(
        UserWarning, match="X does not have valid feature names, but Model was fitted"
    ):
        match_variables(read_panel(np.zeros((3, 2))), fitted.index, "Model")
    with pytest.warns(UserWarning, match="X has feature names, but Model was fitted without"):
        match_variables(fitted, 2, "Model")
    numbers = read_panel(frame(hours(3), [1, 2]))
    with pytest.raises(ValueError, match="unseen at fit time:\n- 3"):
        match_variables(read_panel(frame(hours(3), [1, 3])), numbers.index)


def test_describe_names_container_span_and_step():
    text = read_panel(two_series()).describe()
    assert text.startswith("frame of 2 series x 6 steps x 1 variables (2024-01-01 00:00:00 to ")
    assert "step h" in text
