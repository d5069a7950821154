"""Containers read and cut along time: which rows are which steps of which series.

Only stamps are read, never values, so it also works for tables of covariates with text columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._containers import is_table, is_xarray

Int = NDArray[np.int64]


class Steps(NamedTuple):
    """Position of every row of a container on one time grid, and its series."""

    positions: Int  # (n_rows,) 0 = the earliest stamp of all
    series: Int  # (n_rows,) code of the series; zeros if there is one
    axis: int  # axis of the container along which the rows lie


def n_rows(X: Any) -> int:
    """Count the time rows of X; of a panel, its distinct stamps."""
    if is_xarray(X):
        return int(X.sizes[time_dim(X)])
    if is_table(X):
        return len(X.index.unique(level=-1))
    shape = np.shape(X)
    return int(shape[1] if len(shape) == 3 else shape[0])


def time_dim(X: Any) -> str:
    """Name of the time dim of an xarray object."""
    if "time" in X.dims:
        return "time"
    raise ValueError(f"X has no dim 'time', only {list(X.dims)}; rename its time dim to 'time'.")


def read_steps(X: Any) -> Steps:
    """Read which step of which series each row of a container is.

    Parameters
    ----------
    X : container
        Frame, Series, array or DataArray.

    Returns
    -------
    Steps
        Gaps in the stamps count as steps where the stamps have one step; else each distinct
        stamp is one step.
    """
    if is_table(X):
        return _table_steps(X.index)
    if is_xarray(X):
        dim = time_dim(X)
        positions = np.arange(X.sizes[dim], dtype=np.int64)
        if dim in X.indexes:
            positions = _table_steps(X.indexes[dim]).positions
        axis = 0 if hasattr(X, "data_vars") else X.dims.index(dim)
        return Steps(positions, np.zeros_like(positions), axis)
    axis = 1 if np.ndim(X) == 3 else 0
    positions = np.arange(np.shape(X)[axis], dtype=np.int64)
    return Steps(positions, np.zeros_like(positions), axis)


def take_steps(X: Any, where: NDArray[np.bool_], axis: int) -> Any:
    """Rows of a container for which `where` is True, as the same kind of container."""
    if is_table(X):
        return X.loc[where]
    if is_xarray(X):
        return X.isel({time_dim(X): np.flatnonzero(where)})
    return np.compress(where, X, axis=axis)


def cut_last_steps(X: Any, horizon: int) -> tuple[Any, Any]:
    """History of X, and the last `horizon` steps of each of its series."""
    steps = read_steps(X)
    last = np.zeros(steps.series.max(initial=0) + 1, dtype=np.int64)
    np.maximum.at(last, steps.series, steps.positions)
    future = steps.positions > last[steps.series] - horizon
    for code in np.unique(steps.series):
        if future[steps.series == code].all():
            raise ValueError(
                f"X has a series of {int((steps.series == code).sum())} rows; hiding its last "
                f"horizon={horizon} steps leaves no history. Give longer series or lower horizon."
            )
    return take_steps(X, ~future, steps.axis), take_steps(X, future, steps.axis)


def continues(estimator: Any, X: Any) -> bool:
    """Whether all rows of X come after the data that `estimator` was fitted on.

    Told from the labels of a one-step forecast, so that it holds for every estimator.
    """
    if not is_table(X) and not is_xarray(X):
        return np.ndim(X) < 3
    try:
        first = _bounds(estimator.predict(horizon=1), last=False)
        own = _bounds(X, last=False)
        return all(name in first and bool(first[name] <= own[name]) for name in own)
    except TypeError:  # stamps of another kind cannot be compared: another series
        return False


def covers(predicted: Any, X: Any) -> bool:
    """Whether a forecast reaches the last stamp of every series of X."""
    if not ((is_table(X) and is_table(predicted)) or (is_xarray(X) and is_xarray(predicted))):
        return True
    reached = _bounds(predicted, last=True)
    return all(name in reached and reached[name] >= end for name, end in _bounds(X, True).items())


def _bounds(X: Any, last: bool) -> dict[Any, Any]:
    """First or last stamp of each series of a labelled container."""
    if is_xarray(X):
        stamps = X.indexes[time_dim(X)]
        return {None: stamps.max() if last else stamps.min()}
    index = X.index
    if "sample" in index.names:
        index = index.droplevel("sample")
    if index.nlevels == 1:
        return {None: index.max() if last else index.min()}
    frame = index.unique().to_frame(index=False).iloc[:, -1]
    grouped = frame.groupby([index.unique().get_level_values(k) for k in range(index.nlevels - 1)])
    return dict(grouped.max() if last else grouped.min())


def _table_steps(index: Any) -> Steps:
    """Read the steps of the rows of a table from its row labels."""
    from tsvae.panel import read_panel

    if len(index):
        rows = index.to_frame(index=False).iloc[:, :0].set_axis(index).assign(row=1.0)
        try:
            grid = read_panel(rows).index
        except (ValueError, TypeError):
            return _ranked_steps(index)
        series, step = grid.row_positions()
        position = grid.starts[series] + step
        return Steps(position - position.min(), np.asarray(series, dtype=np.int64), 0)
    return Steps(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0)


def _ranked_steps(index: Any) -> Steps:
    """Count distinct stamps as steps, where the stamps have no common step.

    That is no error here: the estimator may be told the step (`freq`), or the rows be covariates.
    """
    stamps = index.unique(level=-1).sort_values()
    rank = stamps.get_indexer(index.get_level_values(-1)).astype(np.int64)
    series = np.zeros(len(index), dtype=np.int64)
    if index.nlevels > 1:
        series = index.droplevel(-1).factorize()[0].astype(np.int64)
    return Steps(rank, series, 0)
