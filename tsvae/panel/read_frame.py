"""Read frames and Series."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .cells import align_frame_mask, check_counts, frame_values, plain_label, split_missing
from .grid import build_grid
from .index import PanelIndex
from .layout import FrameLayout
from .panel import Panel
from .read import ReadOptions, check_row_count, finish
from .stamps import Remedies, StampTable, canonical_stamps, index_remedies


class _Axis(NamedTuple):
    """Where the time and the series of a frame are."""

    source: pd.Index
    codes: np.ndarray | None
    series: np.ndarray
    series_labels: pd.Index | None
    time_level: int
    time_column: Hashable | None
    series_columns: list[Any]
    id_places: list[int]
    remedies: Remedies


def read_frame(X: pd.DataFrame | pd.Series, options: ReadOptions) -> Panel:
    """Read a frame or Series (see :func:`tsvae.panel.read_panel`)."""
    name = options.name
    is_series = isinstance(X, pd.Series)
    frame = pd.DataFrame({0: X}) if isinstance(X, pd.Series) else X
    if isinstance(X, pd.Series):
        frame.columns = pd.Index([X.name], tupleize_cols=False)
    check_unique_columns(frame, name)
    axis = _axis(frame, options) if options.rows is None else None
    ids = [] if axis is None else [*axis.series_columns, axis.time_column]
    data_frame = (
        frame.drop(columns=[c for c in ids if c is not None]) if ids[-1:] != [None] else frame
    )
    check_counts(len(frame), data_frame.shape[1], data_frame.shape, name)
    data = frame_values(data_frame, name)
    mask = None
    if options.mask is not None:
        mask = align_frame_mask(options.mask, data_frame, name)
    layout = _layout(X, data_frame, axis, is_series)
    index = (
        _given_rows(frame, layout, options)
        if axis is None
        else _index(frame, layout, axis, options)
    )
    columns, labels = data_frame.columns, frame.index

    def place(row: int, column: int) -> str:
        return f"column {plain_label(columns[column])!r}, row {row} ({labels[row]})"

    remedy = f"{name}.replace([np.inf, -np.inf], np.nan)"
    cells = split_missing(data, mask, name, place, remedy)
    return finish(cells.values, cells.observed, index, options)


def check_unique_columns(frame: pd.DataFrame, name: str) -> None:
    """Raise if two columns have the same label."""
    if not frame.columns.is_unique:
        label = plain_label(frame.columns[frame.columns.duplicated()][0])
        raise ValueError(
            f"Column {label!r} appears more than once in {name}. Rename or drop duplicates: "
            f"{name}.loc[:, ~{name}.columns.duplicated()]."
        )


def _layout(
    X: pd.DataFrame | pd.Series, data: pd.DataFrame, axis: _Axis | None, is_series: bool
) -> FrameLayout:
    attrs = dict(X.attrs)
    names = list(X.index.names)
    if axis is None:
        return FrameLayout(data.columns, is_series, names, len(names) - 1, attrs=attrs)
    return FrameLayout(
        columns=data.columns,
        is_series=is_series,
        index_names=names,
        time_level=axis.time_level,
        time_column=axis.time_column,
        series_columns=axis.series_columns,
        id_places=axis.id_places,
        grouped=axis.series_labels is not None,
        attrs=attrs,
    )


def _given_rows(frame: pd.DataFrame, layout: FrameLayout, options: ReadOptions) -> PanelIndex:
    """Return the index of a frame whose rows are those of another container."""
    rows = options.rows
    assert rows is not None
    check_row_count(rows, len(frame))
    if rows.row_labels is not None and not frame.index.equals(rows.row_labels):
        pairs = zip(frame.index, rows.row_labels, strict=True)
        row, mine, other = next(
            ((i, a, b) for i, (a, b) in enumerate(pairs) if a != b), (0, frame.index[0], "?")
        )
        raise ValueError(
            f"The rows of {options.name} do not match: row {row} is {mine}, expected {other}. "
            f"Select the same rows in the same order, for example {options.name}.loc[X.index]."
        )
    index = rows.with_rows(rows)
    grouped = FrameLayout(
        **{
            **vars(layout),
            "grouped": rows.series is not None,
            "time_level": getattr(rows.layout, "time_level", layout.time_level),
        }
    )
    labels = frame.index if rows.row_labels is None else rows.row_labels
    return PanelIndex(
        layout=grouped,
        clock=index.clock,
        starts=index.starts,
        lengths=index.lengths,
        series=index.series,
        row_series=index.row_series,
        row_step=index.row_step,
        row_labels=labels,
    )


def _index(
    frame: pd.DataFrame, layout: FrameLayout, axis: _Axis, options: ReadOptions
) -> PanelIndex:
    name = options.name
    stamps = canonical_stamps(axis.source, name, axis.remedies.source)
    n_series = 1 if axis.series_labels is None else len(axis.series_labels)
    table = StampTable(stamps, axis.codes, axis.series, axis.series_labels, name, axis.remedies)
    source = axis.source if axis.codes is None else None
    grid = build_grid(table, n_series, options.step, source)
    return PanelIndex(
        layout=layout,
        clock=grid.clock,
        starts=grid.starts,
        lengths=grid.lengths,
        series=axis.series_labels,
        row_series=axis.series,
        row_step=grid.row_step,
        row_labels=frame.index,
    )


def _axis(frame: pd.DataFrame, options: ReadOptions) -> _Axis:
    """Find time and series in the columns or the index."""
    time, series = _axis_names(frame, options)
    if time is not None and time in frame.columns:
        return _column_axis(frame, time, series, options.name)
    if time is not None and time not in frame.index.names:
        raise ValueError(
            f"time={time!r} is neither a column nor an index level of {options.name}; columns: "
            f"{frame.columns.tolist()[:10]}, index levels: {list(frame.index.names)}."
        )
    if series and not isinstance(frame.index, pd.MultiIndex):
        raise ValueError(
            f"series={series!r} is given without a time column; pass time= as well, or use "
            f"{options.name}.set_index({series!r}, append=True).swaplevel()."
        )
    check_counts(len(frame), 1, frame.shape, options.name)
    if isinstance(frame.index, pd.MultiIndex):
        return _level_axis(frame.index, time, series, options.name)
    zeros = np.zeros(len(frame), dtype=np.intp)
    return _Axis(frame.index, None, zeros, None, 0, None, [], [], index_remedies(options.name))


def _axis_names(frame: pd.DataFrame, options: ReadOptions) -> tuple[Hashable | None, list[Any]]:
    time: Hashable | None = options.time
    series: Any = options.series
    like = None if options.like is None else options.like.layout
    if time is None and isinstance(like, FrameLayout) and like.time_column in frame.columns:
        time = like.time_column
        series = like.series_columns if series is None else series
    if series is None:
        return time, []
    return time, list(series) if isinstance(series, list) else [series]


def _column_axis(frame: pd.DataFrame, time: Hashable, series: list[Any], name: str) -> _Axis:
    lacking = [label for label in series if label not in frame.columns]
    if lacking:
        raise ValueError(
            f"series={lacking[0]!r} is not a column of {name}; columns: "
            f"{frame.columns.tolist()[:10]}."
        )
    check_counts(len(frame), 1, frame.shape, name)
    places = [int(frame.columns.get_loc(label)) for label in [*series, time]]  # type: ignore[arg-type]
    source = pd.Index(frame[time])
    remedies = _column_remedies(time, series, name)
    if not series:
        zeros = np.zeros(len(frame), dtype=np.intp)
        return _Axis(source, None, zeros, None, 0, time, [], places, remedies)
    indexes = [pd.Index(frame[label]) for label in series]
    factors = [_factorize(index, label, name) for index, label in zip(indexes, series, strict=True)]
    codes, labels = _combine([f[0] for f in factors], [f[1] for f in factors], series)
    return _Axis(source, None, codes, labels, len(series), time, series, places, remedies)


def _column_remedies(time: Hashable, series: list[Any], name: str) -> Remedies:
    group = f"{name}.groupby({series!r})" if series else name
    return Remedies(
        source=f"{name}[{time!r}]",
        sort=f"{name}.sort_values({[*series, time]!r})",
        merge=f"{name}.groupby({[*series, time]!r}, as_index=False).mean()",
        resample=f"{group}.resample({{freq!r}}, on={time!r}).mean()",
    )


def _level_remedies(index: pd.MultiIndex, level: int, others: list[int], name: str) -> Remedies:
    labels = [n if label is None else label for n, label in enumerate(index.names)]
    groups = [labels[number] for number in others]
    return Remedies(
        source=f"{name}.index.get_level_values({labels[level]!r})",
        sort=f"{name}.sort_index()",
        merge=f"{name}.groupby(level={labels!r}).mean()",
        resample=f"{name}.groupby(level={groups!r}).resample({{freq!r}}, level={level}).mean()",
    )


def _factorize(index: pd.Index, label: Hashable, name: str) -> tuple[np.ndarray, pd.Index]:
    codes, labels = pd.factorize(index)
    _check_series_codes(codes, f"column {label!r}", name)
    return codes, pd.Index(labels)


def _check_series_codes(codes: np.ndarray, where: str, name: str) -> None:
    if len(codes) and codes.min() < 0:
        row = int(np.flatnonzero(codes < 0)[0])
        raise ValueError(f"Row {row} of {name} has no series label in {where}; drop or fill it.")


def _level_axis(index: pd.MultiIndex, time: Hashable | None, series: list[Any], name: str) -> _Axis:
    if index.nlevels < 2:
        raise ValueError(
            f"{name} has a MultiIndex with the single level {index.names[0]!r}; expected levels "
            "(series, time). Add the series level, or use a plain time index."
        )
    level = _time_level(index, time, name)
    others = [number for number in range(index.nlevels) if number != level]
    if series and set(series) != {index.names[number] for number in others}:
        raise ValueError(
            f"series={series!r} must name all index levels of {name} other than the time; levels: "
            f"{list(index.names)}."
        )
    codes = np.asarray(index.codes[level])
    if codes.min() < 0:
        row = int(np.flatnonzero(codes < 0)[0])
        raise ValueError(
            f"The time stamp of row {row} of {name} is missing (NaT). Drop the row or fill in its "
            "time."
        )
    source, codes = _used(index.levels[level], codes)
    level_codes = [np.asarray(index.codes[number]) for number in others]
    for number, part in zip(others, level_codes, strict=True):
        _check_series_codes(part, f"index level {index.names[number]!r}", name)
    names = [index.names[number] for number in others]
    row_series, labels = _combine(level_codes, [index.levels[n] for n in others], names)
    remedies = _level_remedies(index, level, others, name)
    return _Axis(source, codes, row_series, labels, level, None, [], [], remedies)


def _used(level: pd.Index, codes: np.ndarray) -> tuple[pd.Index, np.ndarray]:
    """Drop labels of a level that no row has."""
    used = np.zeros(len(level), dtype=bool)
    used[codes] = True
    if used.all():
        return level, codes
    return level[used], (np.cumsum(used) - 1)[codes]


def _time_level(index: pd.MultiIndex, time: Hashable | None, name: str) -> int:
    """Return the time level: the named one, else the last; refuse time in another level."""
    if time is not None:
        return list(index.names).index(time)
    last = index.nlevels - 1
    if is_time(index.levels[last]):
        return last
    elsewhere = [number for number in range(last) if is_time(index.levels[number])]
    if elsewhere:
        label = index.names[elsewhere[0]]
        raise ValueError(
            f"The last index level of {name} must be the time, but level {elsewhere[0]} "
            f"({label!r}) holds it. Use {name}.reorder_levels(...), or name it with time=."
        )
    return last


def is_time(level: pd.Index) -> bool:
    """Say whether labels are dates, periods or elapsed times."""
    if isinstance(level, (pd.DatetimeIndex, pd.PeriodIndex, pd.TimedeltaIndex)):
        return True
    if len(level) and type(level[0]).__module__.startswith("cftime"):
        return True
    return getattr(level.dtype, "kind", "O") == "M"


def _combine(
    codes: list[np.ndarray], levels: list[pd.Index], names: list[Any]
) -> tuple[np.ndarray, pd.Index]:
    """Return series numbers in order of appearance, and their labels."""
    joint = codes[0].astype(np.int64)
    for part, level in zip(codes[1:], levels[1:], strict=True):
        joint = joint * len(level) + part
    numbers, _ = pd.factorize(joint)
    numbers = numbers.astype(np.intp, copy=False)
    first = _first_rows(numbers)
    if len(levels) == 1:
        return numbers, levels[0].take(codes[0][first]).rename(names[0])
    picked = [part[first] for part in codes]
    return numbers, pd.MultiIndex(levels, picked, names=names)


def _first_rows(numbers: np.ndarray) -> np.ndarray:
    """Return the first row of each number 0, 1, ... (numbered in order of appearance)."""
    top = np.maximum.accumulate(numbers)
    return np.flatnonzero(np.diff(top, prepend=-1))
