# ruff: noqa: D102 -- overriding methods share the docstring of the base class
"""Layouts: the kind of container and its labels, and how to build it from grid values.

Grid values have shape (B, T, F, extra...): B series, T steps, F variables, and one trailing axis
for each extra level (quantiles, bounds, ...).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from .serialize import decode_index, decode_scalar, encode_index, encode_scalar

if TYPE_CHECKING:
    from .index import PanelIndex


class Level(NamedTuple):
    """A named extra axis of the values."""

    name: str
    labels: list[Any]


class Layout:
    """What is common to all layouts."""

    kind: ClassVar[str] = ""
    noun: ClassVar[str] = ""
    # True where variables have labels that must match between calls.
    labelled: ClassVar[bool] = False

    @property
    def variables(self) -> list[Any]:
        """Labels of the variables."""
        raise AttributeError("layouts define variables")

    def without_rows(self) -> Layout:
        """Drop what belongs to particular rows (coords along time)."""
        return self

    def take_rows(self, keep: np.ndarray, n_series: int) -> Layout:
        """Keep some rows; ``keep`` is bool of shape (N,)."""
        return self

    def write(
        self,
        values: np.ndarray,
        index: PanelIndex,
        variables: Sequence[Hashable] | None,
        levels: Sequence[Level],
        variable_level: str | None,
    ) -> Any:
        """Return a container of grid values (B, T, F, extra...)."""
        raise AttributeError("layouts define write")

    def write_samples(self, values: np.ndarray, index: PanelIndex) -> Any:
        """Return a container of sampled grid values (S, B, T, F)."""
        raise AttributeError("layouts define write_samples")

    def write_rows(self, values: np.ndarray, index: PanelIndex, name: str | None) -> Any:
        """Return a container of one number per row (B, T)."""
        raise AttributeError("layouts define write_rows")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        raise AttributeError("layouts define to_dict")


def common_rows(keep: np.ndarray, n_series: int, noun: str) -> np.ndarray:
    """Return the time rows that every series keeps; ValueError if they differ."""
    kept = keep.reshape(n_series, -1)
    if (kept != kept[0]).any():
        raise ValueError(f"The series of an {noun} share their rows: slice all of them alike.")
    return np.flatnonzero(kept[0])


@dataclass(frozen=True, eq=False)
class ArrayLayout(Layout):
    """Arrays: 1-D (time), 2-D (time, variable), 3-D (series, time, variable)."""

    ndim: int
    n_features: int

    kind: ClassVar[str] = "array"
    noun: ClassVar[str] = "array"

    @property
    def variables(self) -> list[Any]:
        return list(range(self.n_features))

    def take_rows(self, keep: np.ndarray, n_series: int) -> Layout:
        if self.ndim == 3:
            common_rows(keep, n_series, "array")
        return self

    def _shape(self, rows: np.ndarray, index: PanelIndex) -> np.ndarray:
        """Bring rows (N, ...) to the array's leading axes."""
        if self.ndim < 3:
            return rows
        return rows.reshape(index.n_series, -1, *rows.shape[1:])

    def write(
        self,
        values: np.ndarray,
        index: PanelIndex,
        variables: Sequence[Hashable] | None,
        levels: Sequence[Level],
        variable_level: str | None,
    ) -> np.ndarray:
        rows = index.take_rows(values)
        if self.ndim == 1 and variables is None:
            rows = rows[:, 0]
        return self._shape(rows, index)

    def write_samples(self, values: np.ndarray, index: PanelIndex) -> np.ndarray:
        rows = values[:, index.row_series, index.row_step]
        if self.ndim == 1:
            return rows[..., 0]
        if self.ndim == 2:
            return rows
        return rows.reshape(len(values), index.n_series, -1, rows.shape[-1])

    def write_rows(self, values: np.ndarray, index: PanelIndex, name: str | None) -> np.ndarray:
        return self._shape(index.take_rows(values), index)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "ndim": self.ndim, "n_features": self.n_features}


@dataclass(frozen=True, eq=False)
class FrameLayout(Layout):
    """pandas: wide frames, Series, (series, time) frames, frames with time in a column.

    Parameters
    ----------
    columns : pd.Index
        Labels of the variables (the name of a Series).
    is_series : bool
        Whether the caller gave a Series.
    index_names : list
        Names of the index levels.
    time_level : int
        Which level is the time.
    time_column : hashable or None
        Column that holds the time.
    series_columns : list
        Columns that tell the series apart.
    id_places : list of int
        Where ``[*series_columns, time_column]`` stood among all columns.
    grouped : bool
        Whether rows belong to labelled series.
    attrs : dict
        The frame's attrs.
    """

    columns: pd.Index
    is_series: bool = False
    index_names: list[Any] = field(default_factory=lambda: [None])
    time_level: int = 0
    time_column: Hashable | None = None
    series_columns: list[Any] = field(default_factory=list)
    id_places: list[int] = field(default_factory=list)
    grouped: bool = False
    attrs: dict[Any, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "frame"
    noun: ClassVar[str] = "frame"
    labelled: ClassVar[bool] = True

    @property
    def variables(self) -> list[Any]:
        return self.columns.tolist()

    def write(
        self,
        values: np.ndarray,
        index: PanelIndex,
        variables: Sequence[Hashable] | None,
        levels: Sequence[Level],
        variable_level: str | None,
    ) -> pd.DataFrame | pd.Series:
        rows = index.take_rows(values)
        row_index = self._row_index(index)
        if self.is_series and variables is None and not levels:
            data = pd.Series(rows[:, 0], index=row_index, name=self.columns[0])
            data.attrs.update(self.attrs)
            return data
        columns = self._columns(variables, levels, variable_level)
        frame = pd.DataFrame(rows.reshape(len(rows), -1), index=row_index, columns=columns)
        self._insert_ids(frame, index, np.arange(len(rows)))
        frame.attrs.update(self.attrs)
        return frame

    def write_samples(self, values: np.ndarray, index: PanelIndex) -> pd.DataFrame | pd.Series:
        rows = values[:, index.row_series, index.row_step]
        row_index = prepend_samples(self._row_index(index), len(values))
        flat = rows.reshape(-1, rows.shape[-1])
        if self.is_series:
            return pd.Series(flat[:, 0], index=row_index, name=self.columns[0])
        frame = pd.DataFrame(flat, index=row_index, columns=self.columns)
        self._insert_ids(frame, index, np.tile(np.arange(index.n_rows), len(values)))
        frame.attrs.update(self.attrs)
        return frame

    def write_rows(self, values: np.ndarray, index: PanelIndex, name: str | None) -> pd.Series:
        return pd.Series(index.take_rows(values), index=self._row_index(index), name=name)

    def _columns(
        self,
        variables: Sequence[Hashable] | None,
        levels: Sequence[Level],
        variable_level: str | None,
    ) -> pd.Index:
        if variables is None:
            columns = self.columns
        else:
            columns = pd.Index(list(variables), name=variable_level, tupleize_cols=False)
        if not levels:
            return columns
        # A Series has no variable axis: its columns are the extra levels alone.
        first = [] if self.is_series and variables is None else [columns]
        return _product_columns(first, levels)

    def _row_index(self, index: PanelIndex) -> pd.Index:
        if index.row_labels is not None:
            return index.row_labels
        if self.time_column is not None or not index.has_stamps:
            return pd.RangeIndex(index.n_rows)
        stamps, codes = index.row_stamps()
        if self.grouped and index.series is not None:
            return self._multi_index(index, stamps, codes)
        labels = stamps if np.array_equal(codes, np.arange(len(stamps))) else stamps[codes]
        name = self.index_names[self.time_level] if self.index_names else None
        return _with_freq(labels, index.freq).rename(name)

    def _multi_index(self, index: PanelIndex, stamps: pd.Index, codes: np.ndarray) -> pd.MultiIndex:
        series: Any = index.series
        levels, level_codes = [], []
        if isinstance(series, pd.MultiIndex):
            levels = list(series.levels)
            level_codes = [np.asarray(c)[index.row_series] for c in series.codes]
        else:
            levels, level_codes = [series], [index.row_series]
        levels.insert(self.time_level, stamps)
        level_codes.insert(self.time_level, codes)
        names = self.index_names if len(self.index_names) == len(levels) else None
        return pd.MultiIndex(levels, level_codes, names=names)

    def _insert_ids(self, frame: pd.DataFrame, index: PanelIndex, rows: np.ndarray) -> None:
        """Put the columns of series and time back where they stood."""
        if self.time_column is None:
            return
        stamps, codes = index.row_stamps()
        series = index.series
        columns: list[tuple[Hashable, pd.Index]] = []
        for number, label in enumerate(self.series_columns):
            assert series is not None
            values = series.get_level_values(number) if series.nlevels > 1 else series
            columns.append((label, values[index.row_series[rows]]))
        columns.append((self.time_column, stamps[codes[rows]]))
        order = np.argsort(self.id_places) if self.id_places else range(len(columns))
        for number in order:
            label, values = columns[number]
            place = self.id_places[number] if self.id_places else number
            deep = frame.columns.nlevels
            key = (label, *[""] * (deep - 1)) if deep > 1 else label
            frame.insert(min(place, frame.shape[1]), key, values.array)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"kind": self.kind, "columns": encode_index(self.columns)}
        plain = ["is_series", "index_names", "time_level", "time_column", "series_columns"]
        for key in [*plain, "id_places", "grouped", "attrs"]:
            data[key] = encode_scalar(getattr(self, key))
        return data


def _product_columns(first: list[pd.Index], levels: Sequence[Level]) -> pd.Index:
    """Return the columns (variable levels..., extra levels...), variables varying slowest."""
    names = [level.name for level in levels]
    if not first and len(levels) == 1:
        return pd.Index(levels[0].labels, name=names[0], tupleize_cols=False)
    extra = pd.MultiIndex.from_product([level.labels for level in levels], names=names)
    if not first:
        return extra
    columns = first[0]
    repeated = columns.repeat(len(extra))
    arrays = [repeated.get_level_values(i) for i in range(repeated.nlevels)]
    tiled = np.tile(np.arange(len(extra)), len(columns))
    arrays += [extra.get_level_values(i)[tiled] for i in range(extra.nlevels)]
    head: list[Any] = list(columns.names)
    if columns.nlevels == 1 and head[0] is None:
        head = ["variable"]
    return pd.MultiIndex.from_arrays(arrays, names=[*head, *names])


def prepend_samples(rows: pd.Index, n_samples: int) -> pd.MultiIndex:
    """Return the index (sample, row levels...), samples varying slowest.

    Where rows are called samples themselves, the new level is ``draw``.
    """
    first = "draw" if "sample" in rows.names else "sample"
    sample = np.repeat(np.arange(n_samples), len(rows))
    if isinstance(rows, pd.MultiIndex):
        levels = [pd.RangeIndex(n_samples), *rows.levels]
        codes = [sample, *[np.tile(np.asarray(c), n_samples) for c in rows.codes]]
        return pd.MultiIndex(levels, codes, names=[first, *rows.names])
    codes = [sample, np.tile(np.arange(len(rows)), n_samples)]
    if not rows.is_unique:
        return pd.MultiIndex.from_arrays([sample, rows[codes[1]]], names=[first, rows.name])
    return pd.MultiIndex([pd.RangeIndex(n_samples), rows], codes, names=[first, rows.name])


def _with_freq(labels: pd.Index, freq: Any) -> pd.Index:
    """Attach the frequency to datetimes where pandas agrees with it."""
    if freq is None or not isinstance(labels, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        return labels
    try:
        return type(labels)(labels, freq=freq)
    except ValueError:
        return labels


def layout_from_dict(data: dict[str, Any]) -> Layout:
    """Rebuild a layout from its ``to_dict``."""
    kind = data.get("kind")
    if kind == "array":
        return ArrayLayout(data["ndim"], data["n_features"])
    if kind == "frame":
        fields = {k: decode_scalar(v) for k, v in data.items() if k not in ("kind", "columns")}
        columns: Any = decode_index(data["columns"])
        return FrameLayout(columns=columns, **fields)
    if kind == "xarray":
        from .layout_xarray import XarrayLayout

        return XarrayLayout.from_dict(data)
    raise ValueError(f"Unknown layout kind {kind!r} in a saved index.")
