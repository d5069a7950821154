"""Forecasts of all origins in one table, against one table per origin joined."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsvae.model_selection._collect import collect
from tsvae.panel import read_panel, write

ORIGINS, HORIZON = np.array([4, 6, 7]), 3


def hourly(n_rows, **options):
    return pd.date_range("2024-03-30", periods=n_rows, freq="h", **options)


def frames():
    values = np.arange(24.0).reshape(12, 2)
    series = pd.MultiIndex.from_product([["x", "y"], hourly(12)], names=["station", "when"])
    wide = {
        "hours": hourly(12, name="when"),
        "zone": hourly(12, tz="Europe/Berlin"),
        "months": pd.period_range("2024-01", periods=12, freq="M"),
        "numbers": pd.RangeIndex(5, 29, 2),
    }
    yield from ((name, pd.DataFrame(values, index, ["a", "b"])) for name, index in wide.items())
    yield "series", pd.Series(values[:, 0], hourly(12), name="load")
    panel = pd.DataFrame(np.arange(48.0).reshape(24, 2), series, ["a", "b"])
    yield "panel", panel
    yield "time first", panel.swaplevel().sort_index()
    yield "columns", panel.reset_index()


def one_by_one(values, panel, labels, levels):
    extra = [("quantile", levels)] if levels else []
    parts = [
        write(value, panel.slice_time(0, origin).index.future(HORIZON), levels=extra)
        for value, origin in zip(values, ORIGINS, strict=True)
    ]
    names = ["origin", *parts[0].index.names]
    return pd.concat(parts, keys=list(labels), names=names)


@pytest.mark.parametrize("levels", [None, [0.1, 0.5, 0.9]])
@pytest.mark.parametrize(
    ("name", "data"), list(frames()), ids=lambda x: x if type(x) is str else ""
)
def test_tables_equal_those_of_each_origin(name, data, levels):
    options = {
        "time first": {"time": "when"},
        "columns": {"time": "when", "series": "station"},
    }.get(name, {})
    panel = read_panel(data, **options)
    shape = (len(ORIGINS), panel.n_series, HORIZON, panel.n_features, len(levels or [1]))
    values = np.random.default_rng(0).normal(size=shape)
    values = values if levels else values[..., 0]
    labels = panel.index.clock.stamps(panel.index.starts.min() + ORIGINS - 1)
    got = collect(values, panel, ORIGINS, labels, levels)
    want = one_by_one(values, panel, labels, levels)
    check = pd.testing.assert_frame_equal if got.ndim == 2 else pd.testing.assert_series_equal
    check(got, want)


@pytest.mark.parametrize("shape", [(12,), (12, 2), (2, 12, 3)])
@pytest.mark.parametrize("levels", [None, [0.1, 0.9]])
def test_arrays_equal_those_of_each_origin(shape, levels):
    panel = read_panel(np.zeros(shape), allow_1d=True)
    size = (len(ORIGINS), panel.n_series, HORIZON, panel.n_features)
    values = np.random.default_rng(0).normal(size=(*size, 2) if levels else size)
    extra = [("quantile", levels)] if levels else []
    want = [
        write(value, panel.slice_time(0, origin).index.future(HORIZON), levels=extra)
        for value, origin in zip(values, ORIGINS, strict=True)
    ]
    np.testing.assert_array_equal(collect(values, panel, ORIGINS, ORIGINS, levels), np.stack(want))
