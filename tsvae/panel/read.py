"""Read any container into a Panel: the one gate for data."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .cells import (
    array_values,
    as_bool_mask,
    check_columns_observed,
    check_counts,
    check_mask_shape,
    check_not_sparse,
    split_missing,
)
from .index import PanelIndex, consecutive_index
from .layout import ArrayLayout
from .panel import Panel


class ReadOptions(NamedTuple):
    """Keywords of :func:`read_panel`."""

    mask: Any = None
    time: Hashable | None = None
    series: Hashable | Sequence[Hashable] | None = None
    freq: Any = None
    name: str = "X"
    allow_all_missing: bool = False
    allow_1d: bool = False
    like: PanelIndex | None = None
    rows: PanelIndex | None = None

    @property
    def step(self) -> Any:
        """The step to read with: ``freq``, else the clock of ``like`` if it has a step."""
        if self.freq is not None or self.like is None or not self.like.has_stamps:
            return self.freq
        return self.like.clock if self.like.clock.step is not None else None


def read_panel(
    X: Any,
    *,
    mask: Any = None,
    time: Hashable | None = None,
    series: Hashable | Sequence[Hashable] | None = None,
    freq: Any = None,
    name: str = "X",
    allow_all_missing: bool = False,
    allow_1d: bool = False,
    like: PanelIndex | None = None,
    rows: PanelIndex | None = None,
) -> Panel:
    """Read a container of one or many time series.

    Parameters
    ----------
    X : DataFrame, Series, DataArray, Dataset or array-like
        - wide frame or Series: index = time (or ``time="column"``), columns = variables
        - frame with index (series..., time): a panel
        - array of shape (n_steps, n_features) or (n_series, n_steps, n_features)
        - DataArray, Dataset: dims by name; dims other than time and series become variables

        NaN, None, NA and masked entries are missing. dask-backed xarray objects are converted
        chunk after chunk along time: memory holds the float64 result, its mask and one chunk.
    mask : same kind and shape as X, optional
        True = observed; False entries count as missing. Frames are aligned by labels.
    time : hashable, optional
        Column, index level or dim that holds the time.
    series : hashable or list, optional
        Columns (together with ``time=``) or the dim that tell the series apart.
    freq : str, offset, timedelta or int, optional
        The time step; inferred as the smallest gap where all gaps are whole multiples of it.
    name : str, default="X"
        How messages call the data.
    allow_all_missing : bool, default=False
        Accept tables with columns that have no observed value (histories at predict time).
    allow_1d : bool, default=False
        Accept 1-D arrays as one variable.
    like : PanelIndex, optional
        Read in the manner of this index: its clock, time and series names, and its cells of a
        grid (observed or not). Implies ``allow_all_missing``.
    rows : PanelIndex, optional
        The rows of X are those of this index (a target beside its covariates): arrays take its
        time axis, frames must have the same row labels.

    Returns
    -------
    Panel

    Raises
    ------
    TypeError, ValueError
        The message names the column, row or argument, what was expected, and the remedy.

    Examples
    --------
    >>> stamps = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-04"])
    >>> panel = read_panel(pd.DataFrame({"a": [1.0, 2.0, 4.0]}, index=stamps))
    >>> panel.values[0, :, 0], panel.index.freq
    (array([1., 2., 0., 4.]), 'D')
    >>> read_panel([1.0, 2.0])
    Traceback (most recent call last):
    ...
    ValueError: Expected 2D array, got 1D array instead:
    array=[1. 2.].
    Reshape your data either using array.reshape(-1, 1) if your data has a single feature or \
array.reshape(1, -1) if it contains a single sample.
    """
    options = ReadOptions(
        mask=mask,
        time=time,
        series=series,
        freq=freq,
        name=name,
        allow_all_missing=allow_all_missing or like is not None,
        allow_1d=allow_1d,
        like=like,
        rows=rows,
    )
    check_container(X, name)
    if isinstance(X, (pd.DataFrame, pd.Series)):
        from .read_frame import read_frame

        return read_frame(X, options)
    if is_xarray(X):
        from .read_xarray import read_xarray

        return read_xarray(X, options)
    return _read_array(X, options)


def check_container(X: Any, name: str) -> None:
    """Raise for what is no container of numbers: text, dicts, sparse matrices, None."""
    check_not_sparse(X, name)  # before dicts: scipy's dok_array is one
    if X is None or isinstance(X, (str, bytes, dict, set)):
        raise TypeError(
            f"{name} must be a DataFrame, Series, DataArray, Dataset or array, "
            f"got {type(X).__name__}."
        )


def is_xarray(data: Any) -> bool:
    """Say whether data is a DataArray or Dataset, without importing xarray."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(data, (xarray.DataArray, xarray.Dataset))


def _read_array(X: Any, options: ReadOptions) -> Panel:
    name = options.name
    check_no_labels(options)
    data = array_values(X, name)
    shape = data.shape
    _check_ndim(data, options)
    layout = ArrayLayout(ndim=data.ndim, n_features=1 if data.ndim == 1 else shape[-1])
    n_features = layout.n_features
    n_rows = shape[0] * (shape[1] if data.ndim == 3 else 1)
    check_counts(n_rows, n_features, shape, name)
    mask = None
    if options.mask is not None:
        mask = check_mask_shape(as_bool_mask(options.mask), shape, name)
        mask = mask.reshape(n_rows, n_features)
    index = _array_index(layout, shape, options)
    owned = not isinstance(X, np.ndarray) or not np.shares_memory(X, data)

    def place(row: int, column: int) -> str:
        return str(tuple(int(i) for i in np.unravel_index(row * n_features + column, shape)))

    remedy = f"np.where(np.isfinite({name}), {name}, np.nan)"
    cells = split_missing(data.reshape(n_rows, n_features), mask, name, place, remedy, owned)
    return finish(cells.values, cells.observed, index, options)


def check_no_labels(options: ReadOptions) -> None:
    """Raise if labels are named for data that have none."""
    for argument in ("time", "series", "freq"):
        if getattr(options, argument) is not None:
            raise ValueError(
                f"{argument}={getattr(options, argument)!r} needs labels, but {options.name} is an "
                "array without them; give a DataFrame or DataArray."
            )


def check_two_dims(data: np.ndarray) -> None:
    """Raise for scalars and 1-D arrays, in scikit-learn's words."""
    if data.ndim < 2:
        raise ValueError(
            f"Expected 2D array, got {'1D' if data.ndim else 'scalar'} array instead:\n"
            f"array={data}.\n"
            "Reshape your data either using array.reshape(-1, 1) if your data has a single "
            "feature or array.reshape(1, -1) if it contains a single sample."
        )


def _check_ndim(data: np.ndarray, options: ReadOptions) -> None:
    """Raise for arrays that are not 2-D or 3-D, in scikit-learn's words."""
    name = options.name
    if data.ndim == 0 or not options.allow_1d:
        check_two_dims(data)
    if data.ndim > 3:
        raise ValueError(
            f"Found array with dim {data.ndim}, while dim <= 3 is required: {name} must be "
            "(n_steps, n_features) or (n_series, n_steps, n_features). Use a DataArray with named "
            "dims for fields."
        )


def _array_index(layout: ArrayLayout, shape: tuple[int, ...], options: ReadOptions) -> PanelIndex:
    rows = options.rows
    if rows is None:
        n_series, n_steps = (shape[0], shape[1]) if layout.ndim == 3 else (1, shape[0])
        return consecutive_index(layout, n_series, n_steps)
    if layout.ndim == 3 and shape[0] != rows.n_series:
        raise inconsistent_rows([rows.n_series, shape[0]])
    check_row_count(rows, shape[0] * (shape[1] if layout.ndim == 3 else 1))
    return PanelIndex.with_rows(consecutive_index(layout, 1, 1), rows)


def check_row_count(rows: PanelIndex, n_rows: int) -> None:
    """Raise if data does not have the rows of another, in scikit-learn's words."""
    if rows.n_rows != n_rows:
        raise inconsistent_rows([rows.n_rows, n_rows])


def inconsistent_rows(counts: list[int]) -> ValueError:
    """Return scikit-learn's error for data of unequal length."""
    return ValueError(f"Found input variables with inconsistent numbers of samples: {counts}")


def finish(
    values: np.ndarray,
    observed: np.ndarray,
    index: PanelIndex,
    options: ReadOptions,
) -> Panel:
    """Put rows (N, F) on the grid and check that every column is observed."""
    if not options.allow_all_missing:
        labelled = index.layout.labelled
        check_columns_observed(observed, index.variables, options.name, labelled)
    return Panel(_scatter(values, index), _scatter(observed, index), index)


def _scatter(rows: np.ndarray, index: PanelIndex) -> np.ndarray:
    """Return grid values (B, T, F) of rows (N, F); no copy where rows already fill the grid.

    Always C-ordered: sums round differently in another memory layout, and equal data must give
    equal fits.
    """
    shape = (index.n_series, index.n_steps, rows.shape[1])
    flat = index.row_series * index.n_steps + index.row_step
    if len(flat) == shape[0] * shape[1] and np.array_equal(flat, np.arange(len(flat))):
        return np.ascontiguousarray(rows).reshape(shape)
    grid = np.zeros((shape[0] * shape[1], shape[2]), dtype=rows.dtype)
    grid[flat] = rows
    return grid.reshape(shape)


__all__ = ["ReadOptions", "finish", "is_xarray", "read_panel"]
