"""Read DataArrays and Datasets by dim names."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .cells import Cells, array_values, as_bool_mask, check_counts, plain_label, split_missing
from .grid import build_grid
from .index import PanelIndex, consecutive_index
from .layout_xarray import DataVariable, XarrayLayout
from .panel import Panel
from .read import ReadOptions, check_row_count, finish
from .stamps import Remedies, StampTable, canonical_stamps


class Dims(NamedTuple):
    """The roles of the dims."""

    time: Hashable
    series: Hashable | None
    cells: list[Hashable]


def read_xarray(X: xr.DataArray | xr.Dataset, options: ReadOptions) -> Panel:
    """Read a DataArray or Dataset (see :func:`tsvae.panel.read_panel`)."""
    arrays = data_arrays(X, options)
    dims = _dims(arrays[0], options)
    layout = container_layout(X, arrays, dims)
    n_series = 1 if dims.series is None else arrays[0].sizes[dims.series]
    n_time = arrays[0].sizes[dims.time]
    check_counts(n_series * n_time, len(layout.keep), arrays[0].shape, options.name)
    index = _index(arrays[0], layout, dims, options)
    masks = aligned_masks(arrays, options)
    cells = _cells(arrays, masks, layout, (n_series, n_time), options)
    layout, cells = drop_unobserved(layout, cells, options)
    index = dataclasses.replace(index, layout=layout)
    # Cells without any value are land, not an error: only an empty field is one.
    return finish(cells.values, cells.observed, index, options)


def data_arrays(X: xr.DataArray | xr.Dataset, options: ReadOptions) -> list[xr.DataArray]:
    """Return the data variables; all of a Dataset must share their dims."""
    if isinstance(X, xr.DataArray):
        return [X]
    arrays = [X[name] for name in X.data_vars]
    if not arrays:
        raise ValueError(f"Found array with 0 feature(s): the Dataset {options.name} is empty.")
    for array in arrays[1:]:
        if set(array.dims) != set(arrays[0].dims):
            raise ValueError(
                f"The variables of the Dataset {options.name} must share their dims, but "
                f"{array.name!r} has {array.dims} and {arrays[0].name!r} has {arrays[0].dims}. "
                f"Select some ({options.name}[['a', 'b']]), or make the others coordinates with "
                "set_coords."
            )
    return arrays


def _dims(array: xr.DataArray, options: ReadOptions) -> Dims:
    like = None if options.like is None else options.like.layout
    known = like if isinstance(like, XarrayLayout) else None
    time = options.time if options.time is not None else (known.time_dim if known else "time")
    if time not in array.dims:
        raise ValueError(
            f"{options.name} has no dim {time!r}; its dims are {array.dims}. Name the time dim "
            "with time=, or rename it."
        )
    series = options.series
    if isinstance(series, list):
        raise TypeError(f"series must be the name of one dim of {options.name}, got {series!r}.")
    if series is not None and series not in array.dims:
        raise ValueError(f"{options.name} has no dim {series!r}; its dims are {array.dims}.")
    if series is None:
        series = known.series_dim if known else "series"
        series = series if series in array.dims else None
    return Dims(time, series, [d for d in array.dims if d not in (time, series)])


def container_layout(
    X: xr.DataArray | xr.Dataset, arrays: list[xr.DataArray], dims: Dims
) -> XarrayLayout:
    """Return the layout of an object whose dims have these roles."""
    shape = [arrays[0].sizes[d] for d in dims.cells]
    variables = [DataVariable(a.name, a.dims, dict(a.attrs)) for a in arrays]  # type: ignore[arg-type]
    coords = xr.Dataset(coords=X.coords).compute()
    return XarrayLayout(
        data_variables=variables,
        is_dataset=isinstance(X, xr.Dataset),
        time_dim=dims.time,
        series_dim=dims.series,
        cell_dims=dims.cells,
        cell_shape=shape,
        keep=np.ones(len(arrays) * int(np.prod(shape, dtype=int)), dtype=bool),
        coords=coords,
        attrs=dict(X.attrs) if isinstance(X, xr.Dataset) else {},
    )


def _index(
    array: xr.DataArray, layout: XarrayLayout, dims: Dims, options: ReadOptions
) -> PanelIndex:
    n_series = 1 if dims.series is None else array.sizes[dims.series]
    n_time = array.sizes[dims.time]
    labels = None
    if dims.series is not None and dims.series in array.coords:
        labels = array.indexes.get(dims.series)
    stamps = _stamps(array, dims, options.name)
    if options.rows is not None:
        check_row_count(options.rows, n_series * n_time)
        _check_same_stamps(stamps, options.rows, options.name)
        return dataclasses.replace(options.rows, layout=layout)
    if stamps is None:
        index = consecutive_index(layout, n_series, n_time)
        return dataclasses.replace(index, series=labels)
    table = StampTable(
        stamps,
        None,
        np.zeros(n_time, dtype=np.intp),
        None,
        options.name,
        _remedies(dims.time, options.name),
    )
    grid = build_grid(table, 1, options.step, array.indexes.get(dims.time))
    return PanelIndex(
        layout=layout,
        clock=grid.clock,
        starts=np.repeat(grid.starts, n_series),
        lengths=np.repeat(grid.lengths, n_series),
        series=labels,
        row_series=np.repeat(np.arange(n_series), n_time),
        row_step=np.tile(grid.row_step, n_series),
    )


def _stamps(array: xr.DataArray, dims: Dims, name: str) -> pd.Index | None:
    if dims.time not in array.coords:
        return None
    source = array.indexes.get(dims.time)
    if source is None:
        source = pd.Index(array[dims.time].values)
    return canonical_stamps(source, name, _remedies(dims.time, name).source)


def _remedies(time: Hashable, name: str) -> Remedies:
    return Remedies(
        source=f"{name}[{time!r}]",
        sort=f"{name}.sortby({time!r})",
        merge=f"{name}.groupby({time!r}).mean()",
        resample=f"{name}.resample({time}={{freq!r}}).mean()",
    )


def _check_same_stamps(stamps: pd.Index | None, rows: PanelIndex, name: str) -> None:
    if stamps is None or not rows.has_stamps:
        return
    theirs, codes = rows.row_stamps()
    expected = theirs[codes[: len(stamps)]]
    different = np.flatnonzero(np.asarray(stamps != expected))
    if len(different):
        row = int(different[0])
        raise ValueError(
            f"The rows of {name} do not match: row {row} is {stamps[row]}, expected "
            f"{expected[row]}. Select the same time stamps in the same order."
        )


def aligned_masks(arrays: list[xr.DataArray], options: ReadOptions) -> list[xr.DataArray] | None:
    """Return one mask per data variable with the data's dims and coordinates."""
    mask = options.mask
    if mask is None:
        return None
    if isinstance(mask, xr.Dataset):
        lacking = [a.name for a in arrays if a.name not in mask.data_vars]
        if lacking:
            raise ValueError(f"mask lacks the variable {lacking[0]!r} of {options.name}.")
        return [_aligned_mask(mask[a.name], a, options.name) for a in arrays]
    if isinstance(mask, xr.DataArray):
        return [_aligned_mask(mask, a, options.name) for a in arrays]
    array = as_bool_mask(mask)
    if array.shape != arrays[0].shape:
        raise ValueError(
            f"mask has shape {array.shape}, but {options.name} has shape {arrays[0].shape}; "
            "give one boolean for each value."
        )
    return [xr.DataArray(array, dims=a.dims) for a in arrays]


def _aligned_mask(mask: xr.DataArray, array: xr.DataArray, name: str) -> xr.DataArray:
    if set(mask.dims) != set(array.dims):
        raise ValueError(f"mask has dims {mask.dims}, but {name} has dims {array.dims}.")
    for dim in array.dims:
        labels, theirs = array.indexes.get(dim), mask.indexes.get(dim)
        if labels is not None and theirs is not None and not labels.equals(theirs):
            mask = _reindex(mask, dim, labels, name)
        if mask.sizes[dim] != array.sizes[dim]:
            raise ValueError(
                f"mask has {mask.sizes[dim]} entries along {dim!r}, but {name} has "
                f"{array.sizes[dim]}."
            )
    return mask.transpose(*array.dims)


def _reindex(mask: xr.DataArray, dim: Hashable, labels: pd.Index, name: str) -> xr.DataArray:
    found = mask.indexes[dim].get_indexer(labels)
    if (found < 0).any():
        raise ValueError(
            f"mask lacks {plain_label(labels[found < 0][0])!r} along {dim!r} of {name}."
        )
    return mask.isel({dim: found})


def _cells(
    arrays: list[xr.DataArray],
    masks: list[xr.DataArray] | None,
    layout: XarrayLayout,
    size: tuple[int, int],
    options: ReadOptions,
) -> Cells:
    """Return rows (B * n_time, V * cells), filled chunk by chunk along time."""
    n_cells = len(layout.keep) // len(arrays)
    data = np.empty((*size, len(arrays), n_cells))
    mask = None if masks is None else np.empty(data.shape, dtype=bool)
    for number, array in enumerate(arrays):
        where = f"variable {array.name!r} of {options.name}" if layout.is_dataset else options.name
        for part in _time_parts(array, layout.time_dim):
            block = ordered(array.isel({layout.time_dim: part}), layout)
            data[:, part, number] = array_values(block.values, where).reshape(size[0], -1, n_cells)
            if mask is not None and masks is not None:
                block = ordered(masks[number].isel({layout.time_dim: part}), layout)
                mask[:, part, number] = as_bool_mask(block.values).reshape(size[0], -1, n_cells)
    n_rows, n_features = size[0] * size[1], len(layout.keep)
    rows_mask = None if mask is None else mask.reshape(n_rows, n_features)

    def place(row: int, column: int) -> str:
        return f"cell {layout.all_variables[column]!r}, time row {row % size[1]}"

    remedy = f"{options.name}.where(np.isfinite({options.name}))"
    flat = data.reshape(n_rows, n_features)
    return split_missing(flat, rows_mask, options.name, place, remedy, owned=True)


def _time_parts(array: xr.DataArray, time: Hashable) -> Iterator[slice]:
    """Yield slices along time: dask chunks, or all at once."""
    sizes = array.chunksizes.get(time) if array.chunks else None
    start = 0
    for size in sizes or (array.sizes[time],):
        yield slice(start, start + size)
        start += size


def ordered(array: xr.DataArray, layout: XarrayLayout) -> xr.DataArray:
    """Return the dims in the order (series, time, cells...)."""
    series = [] if layout.series_dim is None else [layout.series_dim]
    return array.transpose(*series, layout.time_dim, *layout.cell_dims)


def drop_unobserved(
    layout: XarrayLayout, cells: Cells, options: ReadOptions
) -> tuple[XarrayLayout, Cells]:
    """Drop cells that are never observed, or those that ``like`` dropped."""
    keep = np.asarray(cells.observed.any(axis=0))
    like = None if options.like is None else options.like.layout
    if isinstance(like, XarrayLayout):
        _check_same_cells(layout, like, options.name)
        keep = like.keep
    elif not keep.any() and not options.allow_all_missing:
        raise ValueError(f"{options.name} has no observed value: all entries are missing (NaN).")
    elif not layout.cell_dims or options.allow_all_missing:
        # Without cell dims the variables are columns of a table.
        keep = np.ones_like(keep)
    if keep.all():
        return layout, cells
    kept = Cells(cells.values[:, keep], cells.observed[:, keep])
    return dataclasses.replace(layout, keep=keep), kept


def _check_same_cells(layout: XarrayLayout, like: XarrayLayout, name: str) -> None:
    """Raise if the grid of cells differs from that of fit."""
    if layout.cell_dims != like.cell_dims:
        raise ValueError(
            f"{name} has the dims {layout.cell_dims} besides time and series, but "
            f"{like.cell_dims} are expected, as in fit. Use transpose or rename."
        )
    mine = [v.name for v in layout.data_variables]
    theirs = [v.name for v in like.data_variables]
    if layout.is_dataset and mine != theirs:
        raise ValueError(f"{name} has the variables {mine}, but {theirs} are expected, as in fit.")
    for dim, size, expected in zip(
        layout.cell_dims, layout.cell_shape, like.cell_shape, strict=True
    ):
        axis: Any = layout.coords[dim].values if dim in layout.coords else None
        known: Any = like.coords[dim].values if dim in like.coords else None
        same = axis is None or known is None or np.array_equal(axis, known)
        if size != expected or not same:
            raise ValueError(
                f"The coordinate {dim!r} of {name} differs from that in fit ({size} entries, "
                f"{expected} expected). Use {name}.reindex_like or sel."
            )
