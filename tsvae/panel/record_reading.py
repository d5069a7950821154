"""Read arrays, tables and panels as records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .cells import (
    align_frame_mask,
    array_values,
    as_bool_mask,
    check_columns_observed,
    check_counts,
    check_mask_shape,
    frame_values,
    plain_label,
    split_missing,
)
from .panel import Panel
from .read import ReadOptions, check_no_labels, check_two_dims, read_panel
from .read_frame import check_unique_columns, is_time
from .record_index import RecordIndex, Records
from .record_panels import PanelRecordIndex
from .record_tables import ArrayRecordIndex, TableRecordIndex


def read_array_records(X: Any, options: ReadOptions) -> Records:
    """Read an array (record, time) or (record, time, variable)."""
    name = options.name
    check_no_labels(options)
    raw = array_values(X, name)
    _check_axes(raw, name)
    shape = raw.shape
    check_counts(shape[0], int(np.prod(shape[1:])), shape, name)
    n_columns = shape[1] if raw.ndim == 2 else shape[2]
    mask = None
    if options.mask is not None:
        mask = check_mask_shape(as_bool_mask(options.mask), shape, name).reshape(-1, n_columns)
    data = np.ascontiguousarray(raw)
    owned = not isinstance(X, np.ndarray) or not np.may_share_memory(X, data)

    def place(row: int, column: int) -> str:
        return str(tuple(int(i) for i in np.unravel_index(row * n_columns + column, shape)))

    remedy = f"np.where(np.isfinite({name}), {name}, np.nan)"
    flat = data.reshape(-1, n_columns)
    cells = split_missing(flat, mask, name, place, remedy, owned)
    if not options.allow_all_missing:
        check_columns_observed(cells.observed, range(n_columns), name, labelled=False)
    full = (shape[0], shape[1], 1 if raw.ndim == 2 else shape[2])
    index = ArrayRecordIndex(full, raw.ndim)
    return Records(cells.values.reshape(full), cells.observed.reshape(full), index)


def _check_axes(data: np.ndarray, name: str) -> None:
    check_two_dims(data)
    if data.ndim > 3:
        raise ValueError(
            f"Found array with dim {data.ndim}, while dim <= 3 is required: {name} must be "
            "(n_records, n_steps) or (n_records, n_steps, n_variables). Use a DataArray with named "
            "dims for fields."
        )


def read_frame_records(X: pd.DataFrame, options: ReadOptions, like: RecordIndex | None) -> Records:
    """Read a frame: a table of records, or a panel of series."""
    if _is_panel(X, options, like):
        return read_panel_records(X, options, like)
    return _read_table(X, options)


def _is_panel(X: pd.DataFrame, options: ReadOptions, like: RecordIndex | None) -> bool:
    """Say whether rows are the steps of series rather than records."""
    if options.time is not None or options.series is not None:
        return True
    if like is not None and like.kind == "panel":
        return True
    if not isinstance(X.index, pd.MultiIndex) or (like is not None and like.is_table):
        return False
    if any(is_time(level) for level in X.index.levels):
        return True
    # An axis of floats, or (variable, axis value), says that rows are records.
    if X.columns.nlevels > 1 or pd.api.types.is_float_dtype(X.columns.dtype):
        return False
    return pd.api.types.is_numeric_dtype(X.index.levels[-1].dtype)


def _read_table(X: pd.DataFrame, options: ReadOptions) -> Records:
    name = options.name
    columns, rows = X.columns, X.index
    check_unique_columns(X, name)
    _check_label_types(columns)
    check_counts(len(X), X.shape[1], X.shape, name)
    index = TableRecordIndex(rows, columns, dict(X.attrs))
    grid = index.read_grid(name)
    raw = frame_values(X, name)
    mask = None if options.mask is None else align_frame_mask(options.mask, X, name)

    def place(row: int, column: int) -> str:
        return f"column {plain_label(columns[column])!r}, row {row} ({rows[row]})"

    # A frame stored by columns is brought in order here, and need not be copied again.
    data = np.ascontiguousarray(raw)
    remedy = f"{name}.replace([np.inf, -np.inf], np.nan)"
    cells = split_missing(data, mask, name, place, remedy, owned=data is not raw)
    values, observed = cells
    if not options.allow_all_missing:
        check_columns_observed(observed, columns, name, labelled=True)
    if grid.column is not None:
        order = grid.column.ravel()
        values, observed = np.take(values, order, axis=1), np.take(observed, order, axis=1)
    shape = (index.n_records, index.n_steps, index.n_features)
    return Records(values.reshape(shape), np.ascontiguousarray(observed).reshape(shape), index)


def _check_label_types(columns: pd.Index) -> None:
    """Raise for names that are partly strings, in scikit-learn's words."""
    if columns.nlevels > 1 or columns.dtype != object:
        return
    types = sorted({type(label).__qualname__ for label in columns})
    if len(types) > 1 and "str" in types:
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your "
            f"input has {types} as feature name / column name types. If you want feature names to "
            "be stored and validated, you must convert them all to strings, by using X.columns = "
            "X.columns.astype(str) for example. Otherwise you can remove feature / column names "
            "from your input data, or convert them all to a non-string data type."
        )


def refuse_series(X: pd.Series, name: str) -> None:
    """Raise for a Series: one row or one column of a table, nobody knows."""
    remedy = f"{name}.to_frame().T for one record, {name}.to_frame() for records of one value"
    if X.index.nlevels > 1:
        remedy = f"{name}.to_frame() for a panel of one variable"
    raise ValueError(
        f"Expected a 2-dimensional container but got {type(X)} instead. Pass a DataFrame "
        "containing a single row (i.e. single sample) or a single column (i.e. single feature) "
        f"instead: {remedy}."
    )


def read_panel_records(X: Any, options: ReadOptions, like: RecordIndex | None) -> Records:
    """Read the series of a panel as records; shorter ones are padded at the end."""
    keywords = {**options._asdict(), "like": None if like is None else like.reading_index()}
    if isinstance(like, PanelRecordIndex) and options.freq is None:
        keywords["freq"] = like.panel.freq
    panel = read_panel(X, **keywords)
    return _padded(panel, 0 if like is None else like.n_steps)


def _padded(panel: Panel, n_steps: int) -> Records:
    steps = max(panel.n_steps, n_steps)
    values, mask = panel.values, panel.mask
    if steps > panel.n_steps:
        pad = [(0, 0), (0, steps - panel.n_steps), (0, 0)]
        values, mask = np.pad(values, pad), np.pad(mask, pad)
    return Records(values, mask, PanelRecordIndex(panel.index, steps))


__all__ = [
    "read_array_records",
    "read_frame_records",
    "read_panel_records",
    "refuse_series",
]
