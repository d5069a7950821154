"""Labelled tables to aligned arrays, for the metrics only.

pandas is looked up, never imported: a table can only be given by someone who has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

ALIGN_REMEDY = "Pass arrays (`.to_numpy()`) to compare by position instead."


def is_table(obj: Any) -> bool:
    """Whether `obj` is a pandas DataFrame or Series."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(obj, pandas.DataFrame | pandas.Series)


def is_frame(obj: Any) -> bool:
    """Whether `obj` is a pandas DataFrame."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(obj, pandas.DataFrame)


def is_xarray(obj: Any) -> bool:
    """Whether `obj` is an xarray DataArray or Dataset."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(obj, xarray.DataArray | xarray.Dataset)


def as_float(obj: Any, name: str) -> Float:
    """Numbers of any container as float64, with NaN for what it calls missing."""
    try:
        if is_xarray(obj):
            return np.asarray(_data_array(obj).to_numpy(), dtype=float)
        if is_table(obj):
            return np.asarray(obj.to_numpy(dtype=float, na_value=np.nan), dtype=float)
        if isinstance(obj, np.ma.MaskedArray):
            return np.ma.filled(obj.astype(float), np.nan)
        return np.asarray(obj, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must hold numbers in one rectangular array; it could not be read: {error}"
        ) from error


def align_rows(table: Any, like: Any, name: str) -> Any:
    """Rows of `table` in the order of `like`; rows that `like` lacks are left out."""
    if table.index.equals(like.index):
        return table
    for index, owner in ((table.index, name), (like.index, "y_true")):
        if index.has_duplicates:
            label = index[index.duplicated()][0]
            raise ValueError(f"{owner} has the row label {label} twice. {ALIGN_REMEDY}")
    absent = like.index.difference(table.index, sort=False)
    if len(absent):
        raise ValueError(
            f"{name} lacks {len(absent)} of the {len(like)} row labels of y_true, the first is "
            f"{absent[0]}. {ALIGN_REMEDY}"
        )
    return table.reindex(like.index)


def align_columns(labels: Any, like: Any, name: str) -> None:
    """Raise unless `labels` are those of the frame `like`, in any order."""
    for label in like.columns:
        if label not in labels:
            raise ValueError(
                f"{name} lacks the column {label!r} of y_true; it has {list(labels)}. "
                f"{ALIGN_REMEDY}"
            )
    for label in labels:
        if label not in like.columns:
            raise ValueError(f"{name} has a column {label!r} that y_true lacks. {ALIGN_REMEDY}")


def align_dims(obj: Any, like: Any, name: str) -> Float:
    """Array of `obj`: dims and labels as in `like`, then its own dims (`sample` comes first)."""
    obj, like = _data_array(obj), _data_array(like)
    absent = [dim for dim in like.dims if dim not in obj.dims]
    if absent:
        raise ValueError(f"{name} has no dim {absent[0]!r}; y_true has the dims {like.dims}.")
    own = [dim for dim in obj.dims if dim not in like.dims]
    first = [dim for dim in own if dim == "sample"]
    last = [dim for dim in own if dim != "sample"]
    labels = {dim: like[dim] for dim in like.dims if dim in like.indexes and dim in obj.indexes}
    try:
        obj = obj.sel(labels)
    except KeyError as error:
        raise ValueError(f"{name} lacks labels of y_true: {error}. {ALIGN_REMEDY}") from error
    return as_float(obj.transpose(*first, *like.dims, *last), name)


def _data_array(obj: Any) -> Any:
    """Turn a Dataset into one DataArray with its variables last."""
    if hasattr(obj, "data_vars"):
        return obj.to_dataarray("variable").transpose(..., "variable")
    return obj


def point_array(obj: Any, like: Any, name: str) -> Float:
    """Array of a point forecast (or mask, or weights), aligned with `like` if both have labels."""
    if is_xarray(obj) and is_xarray(like):
        return align_dims(obj, like, name)
    if not (is_table(obj) and is_table(like)):
        return as_float(obj, name)
    obj = align_rows(obj, like, name)
    if is_frame(obj) and is_frame(like):
        align_columns(obj.columns, like, name)
        obj = obj[list(like.columns)]
    return as_float(obj, name)


def sample_array(obj: Any, like: Any) -> Float:
    """Array (S, ..., F) of sample paths; a frame has `sample` as its first row level."""
    if is_xarray(obj) and is_xarray(like):
        return align_dims(obj, like, "samples")
    if not is_table(obj):
        return as_float(obj, "samples")
    if obj.index.nlevels < 2:
        raise ValueError(
            "A frame of samples needs row levels (sample, ..., time), as `sample` of a forecaster "
            f"returns them; got {obj.index.nlevels} level."
        )
    draws = obj.index.unique(level=0)
    return np.stack([point_array(obj.xs(draw, level=0), like, "samples") for draw in draws])


def level_values(obj: Any) -> list[float] | None:
    """Quantile levels in the columns of a frame as `predict_quantiles` returns it, else None."""
    if not is_frame(obj) or (obj.columns.nlevels < 2 and obj.columns.name != "quantile"):
        return None
    return [float(level) for level in obj.columns.unique(level=-1)]


def trailing_array(obj: Any, like: Any, name: str, labels: list[Any] | None) -> Float:
    """Array (..., F, Q) of a forecast with a further trailing axis.

    A frame has it as the last column level; `labels` gives the order of that level.
    """
    if is_xarray(obj) and is_xarray(like):
        return align_dims(obj, like, name)
    if not is_frame(obj) or labels is None:
        return as_float(obj, name)
    if is_table(like):
        obj = align_rows(obj, like, name)
    if obj.columns.nlevels == 1:  # of a Series, which has no variable axis
        return as_float(obj[labels] if set(labels) <= set(obj.columns) else obj, name)
    layers = [obj.xs(label, axis=1, level=-1) for label in labels]
    if is_frame(like):
        align_columns(layers[0].columns, like, name)
        layers = [layer[list(like.columns)] for layer in layers]
    return np.stack([as_float(layer, name) for layer in layers], axis=-1)
