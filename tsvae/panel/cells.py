"""Numbers of containers as float64 with NaN for missing, and their observation masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

_NUMBER_KINDS = {"floating", "integer", "mixed-integer-float", "decimal", "boolean", "empty"}


class Cells(NamedTuple):
    """Values (0.0 where missing) and observation mask of rows, both (N, F)."""

    values: np.ndarray
    observed: np.ndarray


def plain_label(label: Any) -> Any:
    """Return a label as messages show it: 0.2 rather than np.float64(0.2)."""
    if isinstance(label, tuple):
        return tuple(plain_label(part) for part in label)
    return label.item() if isinstance(label, np.generic) else label


def check_not_sparse(data: Any, name: str) -> None:
    """Raise for scipy sparse containers, in scikit-learn's words."""
    if hasattr(data, "toarray") and type(data).__module__.startswith("scipy.sparse"):
        raise TypeError(
            f"Sparse data was passed for {name}, but dense data is required. "
            "Use '.toarray()' to convert to a dense numpy array (in a Pipeline: "
            "OneHotEncoder(sparse_output=False), ColumnTransformer(sparse_threshold=0))."
        )


def check_counts(n_rows: int, n_features: int, shape: tuple[int, ...], name: str) -> None:
    """Raise for empty data, in scikit-learn's words."""
    for count, noun in ((n_rows, "sample(s)"), (n_features, "feature(s)")):
        if count == 0:
            raise ValueError(
                f"Found array with 0 {noun} (shape={shape}) while a minimum of 1 is required. "
                f"{name} is empty."
            )


def array_values(data: Any, name: str) -> np.ndarray:
    """Return an array-like as float64 with NaN where masked or missing.

    Raises
    ------
    TypeError, ValueError
        If entries are not real numbers.
    """
    check_not_sparse(data, name)
    masked = np.ma.getmaskarray(data) if isinstance(data, np.ma.MaskedArray) else None
    try:
        array = np.asarray(data.data if masked is not None else data)
    except ValueError as error:
        raise ValueError(
            f"{name} is a nested list of unequal lengths; give a rectangular array, or for series "
            f"of unequal lengths a frame with index (series, time): pd.concat(frames, keys=...). "
            f"({error})"
        ) from error
    _check_array_dtype(array, name)
    if array.dtype == object:
        array = _object_values(array, name)
    array = array.astype(np.float64, copy=False)
    if masked is not None and masked.any():
        array = np.where(masked, np.nan, array)
    return array


def _check_array_dtype(array: np.ndarray, name: str) -> None:
    kind = array.dtype.kind
    if kind == "c":
        raise ValueError(
            f"Complex data not supported: {name} has dtype {array.dtype}. Give real and imaginary "
            "parts as columns."
        )
    if kind in "US":
        first = array.ravel()[0] if array.size else ""
        raise ValueError(
            f"could not convert string to float: {str(first)!r}. {name} holds strings; "
            "encode or drop them."
        )
    if kind in "mMV":
        raise TypeError(
            f"{name} holds {array.dtype} values; expected numbers. Drop them or convert them."
        )


def _object_values(array: np.ndarray, name: str, place: Callable[[int], str] = str) -> np.ndarray:
    """Return an object array of numbers, None and NA as float64."""
    flat = array.ravel()
    missing = np.asarray(pd.isna(flat))
    if pd.api.types.infer_dtype(flat, skipna=True) not in _NUMBER_KINDS:
        for position in np.flatnonzero(~missing):
            _check_number(flat[position], name, place(int(position)))
    values = np.full(flat.shape, np.nan)
    values[~missing] = flat[~missing].astype(np.float64)
    return values.reshape(array.shape)


def _check_number(value: Any, name: str, place: str) -> None:
    """Raise what ``float(value)`` raises, with the place; strings are never numbers."""
    where = f"Entry {place} of {name}; expected numbers, None or NA."
    if isinstance(value, (str, bytes)):
        raise ValueError(
            f"could not convert string to float: {value!r}. {where} Use pd.to_numeric or encode it."
        )
    if isinstance(value, (complex, np.complexfloating)):
        raise ValueError(f"Complex data not supported: {value!r}. {where}")
    try:
        float(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}. {where}") from error


def frame_values(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return the columns of a frame as float64 (N, F) with NaN for every kind of missing.

    Raises
    ------
    TypeError, ValueError
        If a column does not hold real numbers; names the column and the remedy.
    """
    dtypes = list(frame.dtypes)
    if all(isinstance(d, np.dtype) and d.kind in "fiub" for d in dtypes):
        return frame.to_numpy(dtype=np.float64)
    values = np.empty(frame.shape, dtype=np.float64)
    for number, dtype in enumerate(dtypes):
        column = frame.iloc[:, number]
        _check_column_dtype(dtype, plain_label(frame.columns[number]), name)
        if _is_object(dtype):
            labels, label = frame.index, plain_label(frame.columns[number])
            values[:, number] = _object_values(
                column.to_numpy(),
                name,
                lambda row, labels=labels, label=label: (  # type: ignore[misc]
                    f"in column {label!r}, row {plain_label(labels[row])!r}"
                ),
            )
        else:
            values[:, number] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def _is_object(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind == "O"


def _check_column_dtype(dtype: Any, label: Any, name: str) -> None:
    if pd.api.types.is_complex_dtype(dtype):
        raise ValueError(
            f"Complex data not supported: column {label!r} of {name} is {dtype}. Give real and "
            "imaginary parts as columns."
        )
    numeric = pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)
    if (numeric and not isinstance(dtype, pd.CategoricalDtype)) or _is_object(dtype):
        return
    remedy = f"drop it: {name}.drop(columns=[{label!r}])"
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(dtype):
        remedy = f"encode it (pd.get_dummies, OrdinalEncoder) or {remedy}"
    elif pd.api.types.is_datetime64_any_dtype(dtype):
        remedy = f"name it with time={label!r} if it is the time axis, or {remedy}"
    raise TypeError(f"Column {label!r} of {name} has dtype {dtype}; expected numbers; {remedy}.")


def as_bool_mask(mask: Any, name: str = "mask") -> np.ndarray:
    """Return a mask as bool array; 0/1 integers are accepted.

    Raises
    ------
    TypeError, ValueError
        If entries are neither booleans nor 0/1.
    """
    check_not_sparse(mask, name)
    array = np.asarray(mask)
    if array.dtype == bool:
        return array
    if array.dtype == object:
        bad = [v for v in array.ravel() if not isinstance(v, (bool, np.bool_))]
    elif array.dtype.kind in "iuf":
        bad = array[(array != 0) & (array != 1)].ravel().tolist()
    else:
        bad = [array.dtype]
    if bad:
        raise TypeError(
            f"{name} must hold booleans (True = observed), got {bad[0]!r}. Use X.notna()."
        )
    return array.astype(bool)


def align_frame_mask(mask: Any, frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return a mask as (N, F) rows of a frame; frames and Series are aligned by labels."""
    if isinstance(mask, pd.Series):
        mask = mask.to_frame(frame.columns[0]) if frame.shape[1] == 1 else mask.to_frame()
    if not isinstance(mask, pd.DataFrame):
        array = as_bool_mask(mask)
        if array.ndim == 1 and frame.shape[1] == 1:
            array = array[:, None]
        return check_mask_shape(array, frame.shape, name)
    if not mask.columns.equals(frame.columns):
        lacking = [label for label in frame.columns if label not in mask.columns]
        if lacking:
            label = plain_label(lacking[0])
            raise ValueError(f"mask lacks column {label!r} of {name}; use {name}.notna().")
        mask = mask[list(frame.columns)]
    if not mask.index.equals(frame.index):
        mask = _align_rows(mask, frame, name)
    return as_bool_mask(mask.to_numpy())


def _align_rows(mask: pd.DataFrame, frame: pd.DataFrame, name: str) -> pd.DataFrame:
    if not mask.index.is_unique:
        label = plain_label(mask.index[mask.index.duplicated()][0])
        raise ValueError(f"mask has duplicate row labels (first: {label!r}).")
    found = mask.index.get_indexer(frame.index)
    if (found < 0).any():
        label = plain_label(frame.index[found < 0][0])
        raise ValueError(f"mask lacks row {label!r} of {name}; use {name}.notna().")
    return mask.iloc[found]


def check_mask_shape(mask: np.ndarray, shape: Sequence[int], name: str) -> np.ndarray:
    """Return the mask if it has the data's shape."""
    if mask.shape != tuple(shape):
        raise ValueError(
            f"mask has shape {mask.shape}, but {name} has shape {tuple(shape)}; "
            "give one boolean for each value."
        )
    return mask


def split_missing(
    data: np.ndarray,
    mask: np.ndarray | None,
    name: str,
    place: Callable[[int, int], str],
    remedy: str,
    owned: bool = False,
) -> Cells:
    """Split rows (N, F) with NaN into values and mask.

    Parameters
    ----------
    data : ndarray of shape (N, F)
    mask : bool ndarray of shape (N, F) or None
        False entries count as missing whatever their value.
    place : callable
        Names an entry (row, column) for a message.
    remedy : str
        Code that replaces infinite values, for a message.
    owned : bool
        Whether ``data`` may be overwritten.

    Raises
    ------
    ValueError
        If an observed value is infinite.
    """
    observed = np.isfinite(data)
    complete = bool(observed.all())
    if not complete:
        infinite = np.isinf(data)
        if mask is not None:
            infinite &= mask
        if infinite.any():
            row, column = (int(i[0]) for i in np.nonzero(infinite))
            raise ValueError(
                f"Input {name} contains infinity or a value too large for dtype('float64'): "
                f"{place(row, column)} is {data[row, column]}. Replace it by NaN, "
                f"for example {remedy}."
            )
    if mask is not None:
        observed &= mask
        complete = complete and bool(mask.all())
    values = data if owned else data.copy()
    if not complete:
        np.copyto(values, 0.0, where=~observed)
    return Cells(values, observed)


def check_columns_observed(
    observed: np.ndarray, labels: Sequence[Any], name: str, labelled: bool
) -> None:
    """Raise if a column of a table has no observed value."""
    empty = np.flatnonzero(~observed.any(axis=0))
    if not len(empty):
        return
    if len(empty) == len(labels):
        raise ValueError(f"{name} has no observed value: all entries are missing (NaN).")
    label = plain_label(labels[empty[0]])
    remedy = f"{name}.drop(columns=[{label!r}])" if labelled else f"np.delete({name}, {label}, -1)"
    raise ValueError(
        f"Column {label!r} of {name} has no observed value (all missing). Drop it, for example "
        f"{remedy}."
    )
