"""Every container goes in and comes back with its labels."""

from __future__ import annotations

import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from pandas.testing import assert_frame_equal, assert_index_equal, assert_series_equal

from tsvae.panel import read_panel, write, write_rows, write_samples


def restore(panel):
    """Write back with NaN where missing."""
    return write(np.where(panel.mask, panel.values, np.nan), panel.index)


def hourly(n=6, **kwargs):
    return pd.date_range("2024-01-01", periods=n, freq="h", **kwargs)


def wide(n=6, **kwargs):
    values = np.arange(2.0 * n).reshape(n, 2)
    values[1, 0] = np.nan
    return pd.DataFrame(values, index=hourly(n, name="when"), columns=["a", "b"], **kwargs)


def ragged():
    """Three series of different starts, lengths and gaps."""
    parts = {
        "x": hourly(5),
        "y": hourly(8)[[2, 3, 7]],
        "z": hourly(3, tz=None)[:1],
    }
    index = pd.MultiIndex.from_tuples(
        [(k, t) for k, v in parts.items() for t in v], names=["id", "t"]
    )
    return pd.DataFrame({"a": np.arange(9.0), "b": -np.arange(9.0)}, index=index)


def test_wide_frame_returns_with_labels_and_attrs():
    frame = wide()
    frame.attrs["unit"] = "K"
    frame.columns.name = "sensor"
    panel = read_panel(frame)
    assert panel.values.shape == (1, 6, 2) and panel.values.dtype == np.float64
    assert panel.values[0, 1, 0] == 0.0 and not panel.mask[0, 1, 0]
    assert panel.mask.sum() == 11
    assert_frame_equal(restore(panel), frame)
    assert restore(panel).attrs == {"unit": "K"}


def test_reading_leaves_the_input_untouched():
    frame, array = wide(), np.array([[1.0], [np.nan]])
    before = frame.copy(deep=True)
    read_panel(frame)
    read_panel(array)
    assert_frame_equal(frame, before)
    assert np.isnan(array[1, 0])


def test_gaps_become_missing_rows_and_output_has_the_input_rows():
    frame = wide(8).iloc[[0, 1, 4, 7]]
    panel = read_panel(frame)
    assert panel.values.shape == (1, 8, 2)
    assert not panel.mask[0, [2, 3, 5, 6]].any()
    assert_frame_equal(restore(panel), frame)


@pytest.mark.parametrize("name", ["load", None, ("a", 1)])
def test_series(name):
    data = pd.Series([1.0, np.nan, 3.0], index=hourly(3), name=name)
    panel = read_panel(data)
    assert_series_equal(restore(panel), data)
    future = write(np.ones((1, 2, 1)), panel.index.future(2))
    assert isinstance(future, pd.Series) and future.name == name


def test_time_column_keeps_its_place():
    frame = wide().reset_index()[["a", "when", "b"]]
    frame.index = list("uvwxyz")
    panel = read_panel(frame, time="when")
    assert panel.variables == ["a", "b"]
    assert_frame_equal(restore(panel), frame)
    future = write(np.ones((1, 2, 2)), panel.index.future(2))
    assert future.columns.tolist() == ["a", "when", "b"]
    assert future["when"].tolist() == [
        pd.Timestamp("2024-01-01 06:00"),
        pd.Timestamp("2024-01-01 07:00"),
    ]


def test_long_frame_with_series_and_time_columns():
    frame = ragged().reset_index()
    panel = read_panel(frame, time="t", series="id")
    assert panel.index.series.tolist() == ["x", "y", "z"]
    assert_frame_equal(restore(panel), frame, check_dtype=False)
    future = write(np.zeros((3, 2, 2)), panel.index.future(2))
    assert future["id"].tolist() == ["x", "x", "y", "y", "z", "z"]


def test_unequal_series_are_left_aligned():
    frame = ragged()
    panel = read_panel(frame)
    np.testing.assert_array_equal(panel.lengths, [5, 6, 1])
    np.testing.assert_array_equal(panel.index.starts, [0, 2, 0])
    np.testing.assert_array_equal(panel.values[1, :, 0], [5, 6, 0, 0, 0, 7])
    assert not panel.mask[2, 1:].any()
    assert_frame_equal(restore(panel), frame)


def test_rows_of_series_may_interleave():
    frame = ragged().sort_index(level="t", kind="stable")
    panel = read_panel(frame)
    assert_frame_equal(restore(panel), frame)
    by_series = read_panel(ragged())
    order = panel.index.series.get_indexer(by_series.index.series)
    np.testing.assert_array_equal(panel.values[order], by_series.values)


def test_two_series_levels_and_a_time_level_in_front():
    series = [("n", 1), ("n", 2), ("s", 1)]
    index = pd.MultiIndex.from_tuples(
        [(*s, t) for s in series for t in hourly(2)], names=["side", "no", "t"]
    )
    frame = pd.DataFrame({"a": np.arange(6.0)}, index=index)
    panel = read_panel(frame)
    assert panel.index.series.tolist() == series
    assert_frame_equal(restore(panel), frame)
    swapped = frame.reorder_levels(["t", "side", "no"])
    panel = read_panel(swapped, time="t")
    assert_frame_equal(restore(panel), swapped)
    future = write(np.zeros((3, 1, 1)), panel.index.future(1))
    assert future.index.names == ["t", "side", "no"]
    assert future.index[0] == (pd.Timestamp("2024-01-01 02:00"), "n", 1)


def test_panel_rows_of_a_sliced_frame_ignore_unused_levels():
    frame = ragged().loc[["y"]]
    assert len(frame.index.levels[0]) == 3
    panel = read_panel(frame)
    assert panel.n_series == 1 and panel.n_steps == 6
    assert_frame_equal(restore(panel), frame)


@pytest.mark.parametrize("shape", [(5, 2), (3, 5, 2)])
def test_arrays(shape):
    array = np.arange(float(np.prod(shape))).reshape(shape)
    array[1, 1] = np.nan
    panel = read_panel(array)
    assert panel.values.shape == (shape if len(shape) == 3 else (1, *shape))
    np.testing.assert_array_equal(restore(panel), array)
    future = write(np.ones((panel.n_series, 4, 2)), panel.index.future(4))
    assert future.shape == (*shape[:-2], 4, 2)


def test_one_dimensional_arrays_only_on_request():
    panel = read_panel(np.arange(3.0), allow_1d=True)
    np.testing.assert_array_equal(restore(panel), np.arange(3.0))


def test_lists_booleans_and_integers():
    np.testing.assert_array_equal(read_panel([[1, 2], [3, None]]).mask[0], [[1, 1], [1, 0]])
    np.testing.assert_array_equal(read_panel(np.array([[True], [False]])).values[0, :, 0], [1, 0])


def test_masked_array_hides_values_even_infinite_ones():
    data = np.ma.masked_array([[1.0], [np.inf], [3.0]], mask=[[0], [1], [0]])
    panel = read_panel(data)
    np.testing.assert_array_equal(panel.mask[0, :, 0], [True, False, True])
    assert panel.values[0, 1, 0] == 0.0


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("Int64", [1, None, 3]),
        ("Float64", [1.0, None, 3.0]),
        ("boolean", [True, None, False]),
        ("object", [1, None, 3.5]),
        ("object", [1, pd.NA, np.nan]),
        ("double[pyarrow]", [1.0, None, 3.0]),
        ("int64[pyarrow]", [1, None, 3]),
        ("bool[pyarrow]", [True, None, False]),
        ("float32", [1.0, np.nan, 3.0]),
        ("Sparse[float]", [1.0, np.nan, 3.0]),
    ],
)
def test_nullable_arrow_and_object_columns(dtype, values):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": pd.Series(values, dtype=dtype), "b": [1.0, 2.0, 3.0]})
    panel = read_panel(frame)
    expected = [not pd.isna(v) for v in values]
    np.testing.assert_array_equal(panel.mask[0, :, 0], expected)
    numbers = [0.0 if pd.isna(v) else float(v) for v in values]
    np.testing.assert_array_equal(panel.values[0, :, 0], numbers)


def test_explicit_mask_joins_nan():
    frame = wide()
    mask = pd.DataFrame(True, index=frame.index, columns=frame.columns)
    mask.iloc[3, 1] = False
    shuffled = mask.iloc[::-1][["b", "a"]]
    expected = frame.notna().to_numpy() & mask.to_numpy()
    for given_mask in (mask, shuffled, mask.to_numpy(), mask.astype(int).to_numpy()):
        np.testing.assert_array_equal(read_panel(frame, mask=given_mask).mask[0], expected)


def test_mask_hides_infinity_and_fits_every_kind():
    data = pd.Series([1.0, np.inf, 2.0], index=hourly(3))
    panel = read_panel(data, mask=pd.Series([True, False, True], index=data.index))
    np.testing.assert_array_equal(panel.mask.ravel(), [True, False, True])
    array = np.ones((2, 3, 1))
    mask = np.array([[[1], [1], [0]], [[0], [1], [1]]], dtype=bool)
    np.testing.assert_array_equal(read_panel(array, mask=mask).mask, mask)


def test_all_missing_columns_are_accepted_on_request():
    frame = wide().assign(c=np.nan)
    panel = read_panel(frame, allow_all_missing=True)
    assert not panel.mask[..., 2].any() and panel.n_features == 3


LEVELS = [("quantile", [0.1, 0.5, 0.9])]
BOUNDS = [("coverage", [0.9]), ("bound", ["lower", "upper"])]


def test_extra_column_levels_of_frames():
    panel = read_panel(wide())
    values = np.arange(6 * 2 * 3.0).reshape(1, 6, 2, 3)
    frame = write(values, panel.index, levels=LEVELS)
    assert frame.columns.names == ["variable", "quantile"]
    np.testing.assert_array_equal(frame["b"][0.9], values[0, :, 1, 2])
    interval = write(values[..., None, :2], panel.index, levels=BOUNDS)
    assert interval.columns.tolist()[1] == ("a", 0.9, "upper")
    np.testing.assert_array_equal(interval[("b", 0.9, "lower")], values[0, :, 1, 0])


def test_extra_levels_of_series_arrays_and_time_columns():
    data = wide()["b"]
    panel = read_panel(data)
    frame = write(np.zeros((1, 6, 1, 3)), panel.index, levels=LEVELS)
    assert frame.columns.tolist() == [0.1, 0.5, 0.9] and frame.columns.name == "quantile"
    both = write(np.zeros((1, 6, 1, 1, 2)), panel.index, levels=BOUNDS)
    assert both.columns.names == ["coverage", "bound"]
    array = write(np.zeros((2, 4, 3, 3)), read_panel(np.zeros((2, 4, 3))).index, levels=LEVELS)
    assert array.shape == (2, 4, 3, 3)
    column = read_panel(wide().reset_index(), time="when")
    frame = write(np.zeros((1, 6, 2, 3)), column.index, levels=LEVELS)
    assert frame.columns[0] == ("when", "") and frame.shape == (6, 7)


def test_multiindex_columns_get_further_levels():
    frame = wide()
    frame.columns = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["u", "v"])
    panel = read_panel(frame)
    assert_frame_equal(restore(panel), frame)
    written = write(np.zeros((1, 6, 2, 3)), panel.index, levels=LEVELS)
    assert written.columns.names == ["u", "v", "quantile"]
    assert written.columns[4] == ("b", 2, 0.5)


def test_other_variables_and_rows():
    panel = read_panel(ragged())
    latent = write(np.zeros((3, 6, 1)), panel.index, variables=["z0"])
    assert latent.columns.tolist() == ["z0"] and len(latent) == 9
    score = write_rows(np.arange(18.0).reshape(3, 6), panel.index, name="logp")
    assert score.name == "logp"
    assert_index_equal(score.index, ragged().index)
    assert score.tolist() == [0, 1, 2, 3, 4, 6, 7, 11, 12]
    assert write_rows(np.zeros((2, 4)), read_panel(np.zeros((2, 4, 1))).index).shape == (2, 4)
    assert write_rows(np.zeros((1, 4)), read_panel(np.zeros((4, 1))).index).shape == (4,)


def test_samples():
    panel = read_panel(ragged())
    values = np.random.default_rng(0).normal(size=(4, 3, 6, 2))
    frame = write_samples(values, panel.index)
    assert frame.index.names == ["sample", "id", "t"] and len(frame) == 36
    np.testing.assert_array_equal(frame.loc[2].to_numpy(), panel.index.take_rows(values[2]))
    single = write_samples(values[:, :1], read_panel(wide()).index)
    assert single.index.names == ["sample", "when"]
    assert write_samples(values[:, :1, :3, :1], read_panel(np.zeros((3, 1))).index).shape == (
        4,
        3,
        1,
    )
    assert write_samples(values, read_panel(np.zeros((3, 6, 2))).index).shape == (4, 3, 6, 2)
    column = write_samples(values[:, :1], read_panel(wide().reset_index(), time="when").index)
    assert column.columns.tolist() == ["when", "a", "b"] and len(column) == 24
    series = write_samples(values[:, :1, :, :1], read_panel(wide()["a"]).index)
    assert isinstance(series, pd.Series) and series.loc[3].tolist() == values[3, 0, :, 0].tolist()


def test_write_refuses_wrong_shapes():
    index = read_panel(wide()).index
    with pytest.raises(ValueError, match=r"shape \(1, 6, 3\), but the index needs \(1, 6, 2\)"):
        write(np.zeros((1, 6, 3)), index)
    with pytest.raises(ValueError, match="must have shape"):
        write_samples(np.zeros((1, 6, 2)), index)


def test_frames_do_not_load_the_xarray_half():
    code = (
        "import sys, pandas as pd; from tsvae.panel import read_panel, write;"
        "p = read_panel(pd.DataFrame({'a': [1., 2.]})); write(p.values, p.index);"
        "assert 'tsvae.panel.layout_xarray' not in sys.modules;"
        "assert 'tsvae.panel.read_xarray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@st.composite
def random_panels(draw):
    """Frames of 1 to 4 hourly series with random rows, in random interleaving."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for label in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, 6))
        hours = np.sort(rng.choice(12, size=n, replace=False))
        rows += [(f"s{label}", int(h)) for h in [0, 1][: draw(st.integers(0, 2))] if h not in hours]
        rows += [(f"s{label}", int(h)) for h in hours]
    rows = sorted(set(rows))
    order = np.argsort(rng.random(len(rows)))
    picked = sorted(range(len(rows)), key=lambda i: (rows[i][1], order[i]))
    chosen = picked if draw(st.booleans()) else range(len(rows))
    base = pd.Timestamp("2024-03-30", tz=draw(st.sampled_from([None, "Europe/Berlin"])))
    tuples = [(rows[i][0], base + pd.Timedelta(hours=rows[i][1])) for i in chosen]
    index = pd.MultiIndex.from_tuples(tuples, names=["s", "t"])
    values = rng.normal(size=(len(rows), 2))
    values[rng.random(values.shape) < 0.3] = np.nan
    return pd.DataFrame(values, index=index, columns=["a", "b"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(random_panels())
def test_random_panels_round_trip(frame):
    panel = read_panel(frame, freq="h", allow_all_missing=True)
    assert_frame_equal(restore(panel), frame)
    assert panel.mask.sum() == frame.notna().to_numpy().sum()
    for number, label in enumerate(panel.index.series):
        own = frame.xs(label, level="s")
        grid = own.reindex(pd.date_range(own.index[0], own.index[-1], freq="h"))
        n = len(grid)
        assert panel.lengths[number] == n
        np.testing.assert_array_equal(panel.mask[number, :n], grid.notna())
        np.testing.assert_array_equal(panel.values[number, :n], grid.fillna(0.0))
        assert not panel.mask[number, n:].any()
