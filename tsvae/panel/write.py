"""Build the caller's kind of container from grid values."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .index import PanelIndex
from .layout import Level
from .panel import Panel


def write(
    values: np.ndarray,
    index: PanelIndex,
    *,
    variables: Sequence[Hashable] | None = None,
    levels: Sequence[tuple[str, Sequence[Any]]] = (),
    variable_level: str | None = None,
) -> Any:
    """Return values as the kind of container that was read, with its rows and labels.

    Parameters
    ----------
    values : ndarray of shape (B, T, F, ...)
        One trailing axis for each of ``levels``.
    index : PanelIndex
    variables : sequence of labels, optional
        Other variables than those read (latent means, ...), length F.
    levels : sequence of (name, labels)
        Extra axes, for example ``[("quantile", [0.1, 0.5, 0.9])]``: column levels of frames (a
        Series becomes a frame with these columns), dims of xarray objects, trailing axes of
        arrays.
    variable_level : str, optional
        Name of the column level or dim of ``variables``.

    Returns
    -------
    DataFrame, Series, DataArray, Dataset or ndarray

    Raises
    ------
    ValueError
        If the shape of values does not fit the index.

    Examples
    --------
    >>> import pandas as pd
    >>> from tsvae.panel import read_panel
    >>> frame = pd.DataFrame({"a": [1.0, 2.0]}, index=pd.date_range("2024-01-01", periods=2))
    >>> panel = read_panel(frame)
    >>> write(np.full((1, 1, 1), 3.0), panel.index.future(1))
                  a
    2024-01-03  3.0
    """
    named = [Level(name, list(labels)) for name, labels in levels]
    n_features = len(index.variables if variables is None else variables)
    _check_shape(values, index, (n_features, *[len(level.labels) for level in named]))
    return index.layout.write(values, index, variables, named, variable_level)


def write_samples(values: np.ndarray, index: PanelIndex) -> Any:
    """Return sample paths as a container.

    Parameters
    ----------
    values : ndarray of shape (S, B, T, F)
    index : PanelIndex

    Returns
    -------
    DataFrame, Series, DataArray, Dataset or ndarray
        Frames have row levels (sample, [series], time), xarray objects a first dim ``sample``,
        arrays a first axis.
    """
    if values.ndim != 4:
        raise ValueError(f"samples must have shape (S, B, T, F), got {values.shape}.")
    _check_shape(values[0] if len(values) else values, index, (len(index.variables),))
    return index.layout.write_samples(values, index)


def write_rows(values: np.ndarray, index: PanelIndex, name: str | None = None) -> Any:
    """Return one number per row as a Series, DataArray or array.

    Parameters
    ----------
    values : ndarray of shape (B, T)
    index : PanelIndex
    name : str, optional
        Name of the Series or DataArray.
    """
    _check_shape(values, index, ())
    return index.layout.write_rows(values, index, name)


def _check_shape(values: np.ndarray, index: PanelIndex, trailing: tuple[int, ...]) -> None:
    expected = (index.n_series, index.n_steps, *trailing)
    shape = values.shape
    # Padding beyond the index's last row is allowed.
    fits = len(shape) == len(expected) and shape[0] == expected[0] and shape[2:] == expected[2:]
    if not fits or shape[1] < expected[1]:
        raise ValueError(f"values have shape {shape}, but the index needs {expected}.")


def concat(first: Panel, second: Panel, name: str = "X") -> Panel:
    """Append the rows of a panel in time.

    Parameters
    ----------
    first : Panel
    second : Panel
        The same variables; every series starts after the last row of the same series in
        ``first``. Rows between are missing. Without stamps its rows follow directly. Series of
        ``first`` that it lacks stay as they are.
    name : str
        How messages call the second panel.

    Returns
    -------
    Panel
        With the layout of ``first``.

    Raises
    ------
    ValueError
        If variables or series differ or rows overlap.
    """
    if second.n_features != first.n_features:
        raise ValueError(f"{name} has {second.n_features} variables, not {first.n_features}.")
    head, tail = first.index, second.index
    series, step = head.positions(tail, name)
    overlap = np.flatnonzero(step < first.lengths[series])
    if len(overlap):
        row = int(overlap[0])
        raise ValueError(
            f"Row {row} of {name} does not come after the last row of its series: the data are "
            f"{head.describe()}. Give only later rows."
        )
    lengths = first.lengths.copy()
    np.maximum.at(lengths, series, step + 1)
    n_steps = int(lengths.max(initial=0))
    pad = [(0, 0), (0, n_steps - first.n_steps), (0, 0)]
    values, mask = np.pad(first.values, pad), np.pad(first.mask, pad)
    values[series, step] = tail.take_rows(second.values)
    mask[series, step] = tail.take_rows(second.mask)
    return Panel(values, mask, _append_rows(head, tail, series, step, lengths))


def _append_rows(
    head: PanelIndex, tail: PanelIndex, series: np.ndarray, step: np.ndarray, lengths: np.ndarray
) -> PanelIndex:
    row_series = np.concatenate([head.row_series, series])
    row_step = np.concatenate([head.row_step, step])
    labels = None
    if head.row_labels is not None and tail.row_labels is not None:
        labels = head.row_labels.append(tail.row_labels)
    layout = head.layout
    if head.layout.kind != "frame":
        # Arrays and xarray objects keep their rows series after series.
        order = np.lexsort((row_step, row_series))
        row_series, row_step = row_series[order], row_step[order]
        layout = head.layout.without_rows()
    return dataclasses.replace(
        head,
        layout=layout,
        lengths=lengths,
        row_series=row_series,
        row_step=row_step,
        row_labels=labels,
    )
