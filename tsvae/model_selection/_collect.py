"""Parts of a panel as containers, forecasts back to arrays, and both stacked over origins."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._containers import is_table, is_xarray

if TYPE_CHECKING:
    from tsvae.panel import Panel, PanelIndex

Float = NDArray[np.float64]


def take_window(panel: Panel, start: int, stop: int) -> Any:
    """Rows of the steps `start` to `stop` (exclusive), in the caller's kind of container."""
    from tsvae.panel import write

    part = panel.slice_time(start, stop)
    return write(np.where(part.mask, part.values, np.nan), part.index)


def forecast_ids(panel: Panel, origin: int, horizon: int, *, known_rows: bool) -> Any:
    """Container of the steps after `origin` that holds in each cell its flat index in (B, H, F).

    A forecast laid beside it shows where each of its values belongs, for every kind of container.

    Parameters
    ----------
    panel : Panel
        All series on one grid.
    origin, horizon : int
        Steps of history, and ahead.
    known_rows : bool
        Whether only rows that the caller gave are asked for, not all steps.

    Returns
    -------
    container
    """
    from tsvae.panel import write

    if known_rows:
        index = panel.slice_time(origin, origin + horizon).index
    else:
        index = _future(panel, origin, horizon)
    size = panel.n_series * horizon * panel.n_features
    ids = np.arange(size, dtype=float).reshape(panel.n_series, horizon, panel.n_features)
    return write(ids, index)


def scatter(answer: Any, ids: Any, shape: tuple[int, ...], levels: list[float]) -> Float:
    """Values of a forecast container at their places in (B, H, F) or (B, H, F, Q); NaN elsewhere.

    Parameters
    ----------
    answer : container
        Forecast; may have more rows than `ids`, or lack some.
    ids : container
        Result of :func:`forecast_ids`.
    shape : tuple of int
        (B, H, F).
    levels : list of float
        Quantile levels; empty for a point forecast.

    Returns
    -------
    ndarray
    """
    if is_table(ids) and is_table(answer):
        places, values = _match_tables(answer, ids, levels)
    elif is_xarray(ids) and is_xarray(answer):
        places, values = _match_xarray(answer, ids)
    else:
        places, values = np.asarray(ids, dtype=float), np.asarray(answer, dtype=float)
    tail = (len(levels),) if levels else ()
    if values.size != places.size * int(np.prod(tail, dtype=int)):
        raise ValueError(
            f"The estimator's forecast has shape {np.shape(answer)}; expected "
            f"{(*places.shape, *tail)}, one value for each step, variable and quantile."
        )
    out = np.full((int(np.prod(shape)), *tail), np.nan)
    flat, values = places.ravel(), values.reshape(-1, *tail)
    real = ~np.isnan(flat)  # cells that were never observed have no place
    out[flat[real].astype(np.int64)] = values[real]
    return out.reshape(*shape, *tail)


def collect(
    values: Float, panel: Panel, origins: Any, labels: Any, levels: list[float] | None = None
) -> Any:
    """Forecasts (O, B, H, F) or (O, B, H, F, Q) in the caller's kind of container.

    Parameters
    ----------
    values : ndarray
        The forecasts.
    panel : Panel
        All series on one grid.
    origins : ndarray of shape (O,)
        Steps of history.
    labels : sequence of length O
        Names of the origins.
    levels : list of float, default=None
        Quantile levels of the last axis.

    Returns
    -------
    container
        With a first row level ``origin``, dims ``origin`` and ``step``, or a first axis.
    """
    from tsvae.panel import write

    extra = [("quantile", levels)] if levels else []
    horizon = values.shape[2]

    def part(number: int) -> Any:
        index = _future(panel, int(origins[number]), horizon)
        return write(values[number], index, levels=extra)

    first = part(0)
    if is_xarray(first):
        rest = [part(number) for number in range(1, len(origins))]
        return _stack_xarray([first, *rest], labels, _time_dim(panel.index))
    if not is_table(first):
        return _at_once(values, panel)
    if _has_id_columns(panel):
        import pandas as pd

        rest = [part(number) for number in range(1, len(origins))]
        names = ["origin", *first.index.names]
        return pd.concat([first, *rest], keys=list(labels), names=names)
    return _stack_tables(first, values, panel, np.asarray(origins), labels)


def _at_once(values: Float, panel: Panel) -> Float:
    """Arrays of all origins: rows lie as they do in the values."""
    shape = values.shape  # (O, B, H, F, ...)
    ndim = panel.index.layout.ndim  # type: ignore[attr-defined]
    if ndim == 3:
        return values
    rows = values.reshape(shape[0], shape[1] * shape[2], *shape[3:])
    return rows[:, :, 0] if ndim == 1 else rows


def _has_id_columns(panel: Panel) -> bool:
    """Whether a frame holds time or series in columns beside the variables."""
    return getattr(panel.index.layout, "time_column", None) is not None


def _stack_tables(first: Any, values: Float, panel: Panel, origins: Any, labels: Any) -> Any:
    """Table of all origins: the first one's columns, its rows with later stamps.

    The same as joining one table per origin, at a hundredth of the work.
    """
    import pandas as pd

    n_origins, n_rows = len(origins), len(first)
    shift = np.repeat(origins - origins[0], n_rows)
    rows = np.tile(np.arange(n_rows), n_origins)
    names = ["origin", *first.index.names]
    levels = [pd.Index(list(labels))]
    codes = [np.repeat(np.arange(n_origins), n_rows)]
    index = _future(panel, int(origins[0]), values.shape[2])
    if not index.has_stamps:
        levels.append(first.index)
        codes.append(rows)
    else:
        position = (index.starts[index.row_series] + index.row_step)[rows] + shift
        unique, at = np.unique(position, return_inverse=True)
        own, own_codes = [], []
        if isinstance(first.index, pd.MultiIndex):
            own, own_codes = list(first.index.levels), [np.asarray(c) for c in first.index.codes]
            own_codes = [code[rows] for code in own_codes]
        time_level = index.layout.time_level if own else 0  # type: ignore[attr-defined]
        own[time_level : time_level + 1] = [index.clock.stamps(unique)]
        own_codes[time_level : time_level + 1] = [at]
        levels += own
        codes += own_codes
    row_index = pd.MultiIndex(levels, codes, names=names)
    data = values.reshape(n_origins * n_rows, -1)
    if isinstance(first, pd.Series):
        table = pd.Series(data[:, 0], index=row_index, name=first.name)
    else:
        table = pd.DataFrame(data, index=row_index, columns=first.columns)
    table.attrs.update(first.attrs)
    return table


def _future(panel: Panel, origin: int, horizon: int) -> PanelIndex:
    """Index of the steps after an origin; all series of the panel are on one grid."""
    index = panel.index
    return dataclasses.replace(index, lengths=np.full_like(index.lengths, origin)).future(horizon)


def _time_dim(index: PanelIndex) -> Any:
    return getattr(index.layout, "time_dim", "time")


def _stack_xarray(parts: list[Any], labels: Any, dim: Any) -> Any:
    """Stack along `origin`; time becomes a coordinate of (origin, step)."""
    import xarray as xr

    stepped = []
    for part in parts:
        part = part.assign_coords(step=(dim, np.arange(1, part.sizes[dim] + 1)))
        stepped.append(part.swap_dims({dim: "step"}))
    return xr.concat(
        stepped,
        xr.DataArray(np.asarray(labels), dims="origin", name="origin"),
        join="override",
        coords="different",
        compat="equals",
    )


def _match_tables(answer: Any, ids: Any, levels: list[float]) -> tuple[Float, Float]:
    """Bring a forecast table to the rows and columns of `ids`."""
    if not answer.index.equals(ids.index):
        if answer.index.has_duplicates:
            raise ValueError("The estimator's forecast has the same stamp of a series twice.")
        if not answer.index.isin(ids.index).any():
            raise ValueError(
                f"The estimator's forecast is for other stamps (first {answer.index[0]}) than "
                f"those after the origin (first {ids.index[0]})."
            )
        answer = answer.reindex(ids.index)
    places = ids.to_numpy(dtype=float)
    if not hasattr(ids, "columns"):
        return places, answer.to_numpy(dtype=float)
    if levels and answer.columns.nlevels > 1:
        chosen = [answer.xs(label, axis=1, level=-1) for label in answer.columns.unique(level=-1)]
        layers = [layer[list(ids.columns)].to_numpy(dtype=float) for layer in chosen]
        return places, np.stack(layers, axis=-1)
    if hasattr(answer, "columns") and answer.columns.nlevels == ids.columns.nlevels:
        answer = answer[list(ids.columns)]
    return places, answer.to_numpy(dtype=float)


def _match_xarray(answer: Any, ids: Any) -> tuple[Float, Float]:
    """Bring a forecast to the dims and labels of `ids`, further dims last."""
    if hasattr(ids, "data_vars"):
        ids = ids.to_dataarray("variable").transpose(..., "variable")
        answer = answer.to_dataarray("variable")
    labels = {dim: ids[dim] for dim in ids.dims if dim in ids.indexes and dim in answer.indexes}
    answer = answer.reindex(labels).transpose(*ids.dims, ...)
    return ids.to_numpy(), answer.to_numpy().astype(float)
