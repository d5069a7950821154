"""Records: signals, spectra, profiles, one per sample; containers in, the same kind out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .read import ReadOptions, check_container, is_xarray
from .record_index import RecordIndex, Records
from .record_matching import match_records
from .record_reading import read_array_records, read_frame_records, refuse_series


def read_records(
    X: Any,
    *,
    mask: Any = None,
    time: Hashable | None = None,
    series: Hashable | Sequence[Hashable] | None = None,
    freq: Any = None,
    name: str = "X",
    allow_all_missing: bool = False,
    like: RecordIndex | None = None,
) -> Records:
    """Read a container of records.

    Parameters
    ----------
    X : DataFrame, DataArray, Dataset or array-like
        - table (frame or 2-D array): rows = records, columns = axis values. The labels of columns
          are kept; columns with the levels (variable, axis value) hold several variables
        - array of shape (n_records, n_steps, n_variables)
        - frame with index (series..., time), or with ``time=``: records = series, of unequal
          lengths perhaps. Rows with other kinds of MultiIndex (no time, or an axis of floats as
          columns) are a table
        - DataArray, Dataset: the axis is the dim ``time=``, else ``time``, else the last one; the
          records are the dim ``series=``, else ``record`` or ``series``, else the first one (time
          first: one record). All other dims become variables. A time axis with dates or integers
          is read as in :func:`read_panel`, any other axis as values that all records share

        NaN, None, NA and masked entries are missing. A record may be missing altogether.
    mask : same kind and shape as X, optional
        True = observed; False entries count as missing. Frames are aligned by labels.
    time, series, freq : optional
        As in :func:`read_panel`; for xarray objects also the dims of the axis and the records.
    name : str, default="X"
        How messages call the data.
    allow_all_missing : bool, default=False
        Accept tables with columns that have no observed value.
    like : RecordIndex, optional
        Read in the manner of this index (that of fit): its dims, its step of time, its cells of a
        grid (observed or not); series of a panel are padded to its length. Implies
        ``allow_all_missing``. Whether the features match is checked by :func:`match_records`.

    Returns
    -------
    Records
        ``values`` (B, T, F) float64, 0.0 where missing; ``mask``; ``index``, the way back.

    Raises
    ------
    TypeError, ValueError
        The message names the column, row or argument, what was expected, and the remedy.

    Examples
    --------
    >>> spectra = pd.DataFrame([[1.0, None, 3.0]], columns=[400.0, 450.0, 500.0], index=["s1"])
    >>> records = read_records(spectra, allow_all_missing=True)
    >>> records.values[0, :, 0], records.index.axis_values
    (array([1., 0., 3.]), array([400., 450., 500.]))
    """
    options = ReadOptions(
        mask=mask,
        time=time,
        series=series,
        freq=freq,
        name=name,
        allow_all_missing=allow_all_missing or like is not None,
    )
    check_container(X, name)
    if isinstance(X, pd.Series):
        refuse_series(X, name)
    if isinstance(X, pd.DataFrame):
        return read_frame_records(X, options, like)
    if is_xarray(X):
        from .record_reading_xarray import read_xarray_records

        return read_xarray_records(X, options, like)
    return read_array_records(X, options)


def write_records(values: np.ndarray, index: RecordIndex) -> Any:
    """Return values as the kind of container that was read, with its labels.

    Parameters
    ----------
    values : ndarray of shape (B, T, F)
    index : RecordIndex

    Returns
    -------
    DataFrame, DataArray, Dataset or ndarray
        May share memory with ``values``. Cells of a grid that were never observed are NaN.

    Raises
    ------
    ValueError
        If the shape of values does not fit the index.

    Examples
    --------
    >>> write_records(np.zeros((1, 3, 1)), read_records([[1.0, 2.0, 3.0]]).index)
    array([[0., 0., 0.]])
    """
    _check_shape(values, _full_shape(index), "records")
    return index.write(values)


def write_record_samples(values: np.ndarray, index: RecordIndex) -> Any:
    """Return several draws of each record as a container.

    Parameters
    ----------
    values : ndarray of shape (S, B, T, F)
    index : RecordIndex

    Returns
    -------
    DataFrame, DataArray, Dataset or ndarray
        Frames have ``sample`` as first row level, xarray objects as first dim, arrays as first
        axis; ``draw`` where the records are called samples already.

    Examples
    --------
    >>> index = read_records([[1.0, 2.0, 3.0]]).index
    >>> write_record_samples(np.zeros((5, 1, 3, 1)), index).shape
    (5, 1, 3)
    """
    _check_shape(values, (len(values), *_full_shape(index)), "draws of records")
    return index.write_samples(values)


def write_codes(
    values: np.ndarray, index: RecordIndex, names: Sequence[Any], level: str = "latent"
) -> Any:
    """Return a few numbers for each record as a 2-D container.

    Parameters
    ----------
    values : ndarray of shape (B, D)
    index : RecordIndex
    names : sequence of labels, length D
    level : str, default="latent"
        Name of the new dim of xarray objects (``latent_code`` where that name is taken).

    Returns
    -------
    DataFrame, DataArray or ndarray
        With the labels of the records.

    Examples
    --------
    >>> frame = pd.DataFrame([[1.0, 2.0, 3.0]], index=["s1"])
    >>> write_codes(np.zeros((1, 2)), read_records(frame).index, ["z0", "z1"])
         z0   z1
    s1  0.0  0.0
    """
    _check_shape(values, (index.n_records, len(names)), "codes")
    return index.write_codes(values, names, level)


def write_scores(values: np.ndarray, index: RecordIndex, name: str | None = None) -> Any:
    """Return one number for each record as a Series, DataArray or array.

    Parameters
    ----------
    values : ndarray of shape (B,)
    index : RecordIndex
    name : str, optional
        Name of the Series or DataArray.
    """
    _check_shape(values, (index.n_records,), "scores")
    return index.write_scores(values, name)


def write_steps(values: np.ndarray, index: RecordIndex, name: str | None = None) -> Any:
    """Return one number for each step of each record.

    Parameters
    ----------
    values : ndarray of shape (B, T)
    index : RecordIndex
    name : str, optional
        Name of the Series or DataArray.

    Returns
    -------
    DataFrame, Series, DataArray or ndarray
        A table for tables, a Series with the row labels for frames with a time axis.

    Examples
    --------
    >>> frame = pd.DataFrame([[1.0, 2.0]], columns=[0.1, 0.2])
    >>> write_steps(np.zeros((1, 2)), read_records(frame).index)
       0.1  0.2
    0  0.0  0.0
    """
    _check_shape(values, (index.n_records, index.n_steps), "steps")
    return index.write_steps(values, name)


def _full_shape(index: RecordIndex) -> tuple[int, ...]:
    return (index.n_records, index.n_steps, index.n_features)


def _check_shape(values: np.ndarray, expected: tuple[int, ...], what: str) -> None:
    if values.shape != expected:
        raise ValueError(f"{what} have shape {values.shape}, but the index needs {expected}.")


__all__ = [
    "RecordIndex",
    "Records",
    "match_records",
    "read_records",
    "write_codes",
    "write_record_samples",
    "write_records",
    "write_scores",
    "write_steps",
]
