"""One series of any container as plain arrays to draw."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._containers import as_float, is_frame, is_table, is_xarray
from tsvae.metrics._steps import time_dim

Float = NDArray[np.float64]


class Track(NamedTuple):
    """Values of one series over time."""

    times: NDArray[Any]  # (T,) datetime64[ns] or numbers
    values: Float  # (T, F), or (T, F, Q) for quantiles
    names: list[str]  # (F,)


def read_track(X: Any, *, series: Any = None, trailing: bool = False, start: int = 0) -> Track:
    """Read one series of a container.

    Parameters
    ----------
    X : container
        Frame, Series, DataArray, Dataset or array of any kind the forecaster takes.
    series : label or int, default=None
        Which series of a panel: its label in a frame or DataArray, its position in a 3-D array.
        None takes the first.
    trailing : bool, default=False
        Whether X has a further axis of quantiles: the last column level, the dim ``quantile``,
        or the last axis of an array.
    start : int, default=0
        Position of the first row of an array, which has no stamps.

    Returns
    -------
    Track

    Raises
    ------
    KeyError
        If there is no such series.
    """
    if is_table(X):
        return _table_track(X, series, trailing)
    if is_xarray(X):
        return _xarray_track(X, series, trailing)
    values = as_float(X, "X")
    if values.ndim == 3 + trailing:
        position = 0 if series is None else int(series)
        if not -len(values) <= position < len(values):
            raise KeyError(f"series={series!r} is not one of the {len(values)} series of X.")
        values = values[position]
    if values.ndim == 1 + trailing:
        values = values[:, None]
    names = [f"variable {k}" for k in range(values.shape[1])]
    return Track(np.arange(start, start + len(values)), values, names)


def quantile_levels(X: Any) -> list[float] | None:
    """Quantile levels that a labelled container carries."""
    if is_frame(X) and (X.columns.nlevels > 1 or X.columns.name == "quantile"):
        return [float(level) for level in X.columns.unique(level=-1)]
    if is_xarray(X) and "quantile" in X.coords:
        return [float(level) for level in X["quantile"].to_numpy()]
    return None


def select_variables(
    names: Sequence[str], variables: Sequence[Any] | None, max_variables: int
) -> list[int]:
    """Positions of the variables to draw."""
    if max_variables < 1:
        raise ValueError(f"max_variables must be at least 1; got {max_variables}.")
    if variables is None:
        return list(range(min(len(names), max_variables)))
    wanted = [str(variable) for variable in variables]
    unknown = [variable for variable in wanted if variable not in names]
    if unknown:
        raise KeyError(f"variables={unknown[0]!r} is not one of {list(names)}.")
    return [list(names).index(variable) for variable in wanted]


def plain_times(index: Any) -> NDArray[Any]:
    """Stamps of a pandas index as datetime64 (of the wall clock) or numbers."""
    pandas = sys.modules["pandas"]
    if isinstance(index, pandas.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pandas.DatetimeIndex):
        return index.tz_localize(None).to_numpy(dtype="datetime64[ns]")
    if isinstance(index, pandas.TimedeltaIndex):
        return np.asarray(index.total_seconds(), dtype=float)
    values = index.to_numpy()
    if len(values) and hasattr(values[0], "dayofyr"):  # cftime, of any calendar
        return np.array([date.year + (date.dayofyr - 1) / 365.25 for date in values])
    if np.issubdtype(values.dtype, np.number):
        return values
    try:
        return pandas.DatetimeIndex(index).tz_localize(None).to_numpy(dtype="datetime64[ns]")
    except (TypeError, ValueError):
        return np.arange(len(values))


def _table_track(X: Any, series: Any, trailing: bool) -> Track:
    if X.index.nlevels > 1:
        keys = X.index.droplevel(-1)
        key = keys[0] if series is None else series
        if key not in keys:
            raise KeyError(f"series={series!r} is not one of {list(keys.unique()[:10])}.")
        X = X.loc[keys == key] if not isinstance(key, tuple) else X.loc[[k == key for k in keys]]
        X = X.set_axis(X.index.get_level_values(-1), axis=0).sort_index()
    times = plain_times(X.index)
    if trailing and is_frame(X) and X.columns.nlevels > 1:
        levels = X.columns.unique(level=-1)
        layers = [X.xs(level, axis=1, level=-1) for level in levels]
        names = [_join(label) for label in layers[0].columns]
        values = np.stack([as_float(layer, "X") for layer in layers], axis=-1)
        return Track(times, values, names)
    values = as_float(X, "X")
    if trailing and is_frame(X):  # of a Series, which has no variable axis
        return Track(times, values[:, None], ["value"])
    if not is_frame(X):
        return Track(times, values[:, None], ["value" if X.name is None else str(X.name)])
    return Track(times, values, [_join(label) for label in X.columns])


def _xarray_track(X: Any, series: Any, trailing: bool) -> Track:
    dim = time_dim(X)
    if hasattr(X, "data_vars"):
        X = X.to_dataarray("variable")
    if "series" in X.dims:
        if series is not None and series not in X.indexes.get("series", range(X.sizes["series"])):
            raise KeyError(f"series={series!r} is not in the dim 'series' of X.")
        labelled = series is not None and "series" in X.indexes
        X = X.sel(series=series) if labelled else X.isel(series=series or 0)
    last = ["quantile"] if trailing else []
    others = [d for d in X.dims if d not in (dim, *last)]
    values = as_float(X.transpose(dim, *others, *last), "X")
    labels = [[f"{d}={v}" if d != "variable" else str(v) for v in X[d].to_numpy()] for d in others]
    names = [", ".join(parts) for parts in _product(labels)] or [str(X.name or "value")]
    tail = values.shape[values.ndim - len(last) :]
    values = values.reshape((len(values), len(names), *tail))
    times = plain_times(X.indexes[dim]) if dim in X.indexes else np.arange(len(values))
    return Track(times, values, names)


def _product(labels: list[list[str]]) -> list[tuple[str, ...]]:
    import itertools

    return list(itertools.product(*labels)) if labels else []


def _join(label: Any) -> str:
    return ", ".join(str(part) for part in label) if isinstance(label, tuple) else str(label)
