"""Read DataArrays and Datasets as records."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .cells import Cells, array_values, as_bool_mask, check_counts, plain_label, split_missing
from .layout_xarray import XarrayLayout
from .read import ReadOptions
from .read_frame import is_time
from .read_xarray import (
    Dims,
    aligned_masks,
    container_layout,
    data_arrays,
    drop_unobserved,
    ordered,
)
from .record_index import RecordIndex, Records
from .record_reading import read_panel_records
from .record_xarray import XarrayRecordIndex, is_plain

# Dims of these names hold the records wherever they stand.
RECORD_DIMS = ("record", "series")


class _Roles(NamedTuple):
    """The dim along which a record runs, the dim of the records, whether time stamps count."""

    axis: Hashable
    record: Hashable | None
    stamped: bool


def read_xarray_records(
    X: xr.DataArray | xr.Dataset, options: ReadOptions, like: RecordIndex | None
) -> Records:
    """Read a DataArray or Dataset (see :func:`tsvae.panel.read_records`)."""
    arrays = data_arrays(X, options)
    roles = _roles(arrays[0], options, like)
    if roles.stamped:
        named = options._replace(time=roles.axis, series=roles.record)
        return read_panel_records(X, named, like)
    return _read_axis(X, arrays, roles, options, like)


def _roles(array: xr.DataArray, options: ReadOptions, like: RecordIndex | None) -> _Roles:
    known = None if like is None else like.xarray_layout
    dims = array.dims
    _check_named(dims, options)
    axis = options.time
    if axis is None:
        axis = _first(["time"] if known is None else [known.time_dim, "time"], dims)
    record = options.series
    if record is None:
        record = _first([known.series_dim] if known is not None else [], dims)
    if record is None:
        record = _first([d for d in RECORD_DIMS if d != axis], dims)
    if axis is None:
        others = [dim for dim in dims if dim != record]
        axis = others[-1] if others else None
    if axis is None or (record is None and len(dims) == 1 and axis != "time"):
        raise ValueError(
            f"Expected 2D array, got 1D array instead: {options.name} has the dims {dims}; "
            "expected one of records and one of their axis. Use "
            f"{options.name}.expand_dims('record') for one record."
        )
    timed = _is_timed(array, axis)
    if record is None and (dims[0] != axis or not (timed or axis == "time")):
        record = next(dim for dim in dims if dim != axis)
    return _Roles(axis, record, timed)


def _check_named(dims: tuple[Hashable, ...], options: ReadOptions) -> None:
    for argument, dim in (("time", options.time), ("series", options.series)):
        if isinstance(dim, list):
            raise TypeError(
                f"{argument} must be the name of one dim of {options.name}, got {dim!r}."
            )
        if dim is not None and dim not in dims:
            raise ValueError(
                f"{options.name} has no dim {dim!r}; its dims are {dims}. Name another with "
                f"{argument}=, or rename it."
            )
    if options.time is not None and options.time == options.series:
        raise ValueError(f"time and series both name the dim {options.time!r}; give two dims.")


def _first(names: list[Any], dims: tuple[Hashable, ...]) -> Hashable | None:
    return next((name for name in names if name is not None and name in dims), None)


def _is_timed(array: xr.DataArray, axis: Hashable) -> bool:
    """Say whether the axis has time stamps; fractions (seconds, q) are values of an axis."""
    labels = array.indexes.get(axis)
    if labels is None:
        return False
    return is_time(labels) or (axis == "time" and pd.api.types.is_integer_dtype(labels.dtype))


def _read_axis(
    X: xr.DataArray | xr.Dataset,
    arrays: list[xr.DataArray],
    roles: _Roles,
    options: ReadOptions,
    like: RecordIndex | None,
) -> Records:
    first = arrays[0]
    cell_dims = [d for d in first.dims if d not in (roles.axis, roles.record)]
    layout = container_layout(X, arrays, Dims(roles.axis, roles.record, cell_dims))
    n_records = 1 if roles.record is None else first.sizes[roles.record]
    sizes = (n_records, first.sizes[roles.axis])
    check_counts(sizes[0], sizes[1] * len(layout.keep), first.shape, options.name)
    cells = _cells(arrays, aligned_masks(arrays, options), layout, sizes, options)
    options = options._replace(
        like=None if like is None else like.reading_index(),
        allow_all_missing=options.allow_all_missing or like is not None,
    )
    layout, cells = drop_unobserved(layout, cells, options)
    shape = (*sizes, int(layout.keep.sum()))
    observed = np.ascontiguousarray(cells.observed).reshape(shape)
    holes = like.holes if isinstance(like, XarrayRecordIndex) else None
    if not options.allow_all_missing:
        holes = _holes(observed, layout, options.name)
    index = XarrayRecordIndex(layout, sizes, holes)
    return Records(np.ascontiguousarray(cells.values).reshape(shape), observed, index)


def _cells(
    arrays: list[xr.DataArray],
    masks: list[xr.DataArray] | None,
    layout: XarrayLayout,
    sizes: tuple[int, int],
    options: ReadOptions,
) -> Cells:
    """Return rows (B * T, variables), filled chunk by chunk along the records."""
    n_cells, name = len(layout.keep) // len(arrays), options.name
    data = np.empty((*sizes, len(arrays), n_cells))
    mask = None if masks is None else np.empty(data.shape, dtype=bool)
    for number, array in enumerate(arrays):
        where = f"variable {array.name!r} of {name}" if layout.is_dataset else name
        for part in _record_parts(array, layout.series_dim):
            shape = data[part, :, number].shape
            block = _part(array, part, layout)
            data[part, :, number] = array_values(block.values, where).reshape(shape)
            if mask is not None and masks is not None:
                block = _part(masks[number], part, layout)
                mask[part, :, number] = as_bool_mask(block.values).reshape(shape)

    def place(row: int, column: int) -> str:
        record, step = divmod(row, sizes[1])
        return f"record {record}, position {step}, variable {layout.all_variables[column]!r}"

    n_rows, n_features = sizes[0] * sizes[1], len(layout.keep)
    flat = data.reshape(n_rows, n_features)
    rows_mask = None if mask is None else mask.reshape(n_rows, n_features)
    remedy = f"{name}.where(np.isfinite({name}))"
    return split_missing(flat, rows_mask, name, place, remedy, owned=True)


def _record_parts(array: xr.DataArray, record: Hashable | None) -> Iterator[slice]:
    """Yield slices along the records: dask chunks, or all at once."""
    if record is None:
        yield slice(None)
        return
    sizes = array.chunksizes.get(record) if array.chunks else None
    start = 0
    for size in sizes or (array.sizes[record],):
        yield slice(start, start + size)
        start += size


def _part(array: xr.DataArray, part: slice, layout: XarrayLayout) -> xr.DataArray:
    if layout.series_dim is not None:
        array = array.isel({layout.series_dim: part})
    return ordered(array, layout)


def _holes(observed: np.ndarray, layout: XarrayLayout, name: str) -> np.ndarray | None:
    """Return the cells (T, F) of a grid that are never observed; ValueError in a table."""
    seen = np.asarray(observed.any(axis=0))
    if seen.all():
        return None
    if is_plain(layout):
        place = int(np.flatnonzero(~seen[:, 0])[0])
        dim = layout.time_dim
        axis = layout.coords.indexes.get(dim)
        label = place if axis is None else plain_label(axis[place])
        raise ValueError(
            f"Position {dim}={label} of {name} has no observed value (all missing). Drop it, for "
            f"example {name}.dropna({dim!r}, how='all')."
        )
    empty = np.flatnonzero(~seen.any(axis=0))
    if len(empty):
        label = layout.variables[empty[0]]
        raise ValueError(
            f"Variable {label!r} of {name} has no observed value (all missing). Drop it, for "
            f"example {name}.drop_vars({label!r})."
        )
    return ~seen


__all__ = ["RECORD_DIMS", "read_xarray_records"]
