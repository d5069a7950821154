# ruff: noqa: D102 -- overriding methods share the docstring of the base class
"""Records in arrays and in tables: rows are records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from .cells import plain_label
from .layout import prepend_samples
from .record_index import RecordIndex
from .serialize import decode_index, decode_scalar, encode_index, encode_scalar


@dataclass(frozen=True, eq=False, repr=False)
class ArrayRecordIndex(RecordIndex):
    """Arrays (record, time) and (record, time, variable).

    Parameters
    ----------
    shape : tuple of int
        (B, T, F).
    ndim : int
        2 or 3, axes of the caller's array.
    """

    shape: tuple[int, int, int]
    ndim: int

    kind: ClassVar[str] = "array"
    noun: ClassVar[str] = "array"

    @property
    def n_records(self) -> int:
        return self.shape[0]

    @property
    def n_steps(self) -> int:
        return self.shape[1]

    @property
    def variables(self) -> list[Any]:
        return list(range(self.shape[2]))

    @property
    def is_table(self) -> bool:
        return self.ndim == 2

    def write(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(values.shape[:-1]) if self.ndim == 2 else values

    def write_samples(self, values: np.ndarray) -> np.ndarray:
        return self.write(values)

    def write_codes(self, values: np.ndarray, names: Sequence[Any], level: str) -> np.ndarray:
        return values

    def write_scores(self, values: np.ndarray, name: str | None) -> np.ndarray:
        return values

    def write_steps(self, values: np.ndarray, name: str | None) -> np.ndarray:
        return values

    def _renew(self, n: int, labels: pd.Index | None) -> ArrayRecordIndex:
        return ArrayRecordIndex((n, *self.shape[1:]), self.ndim)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "shape": list(self.shape), "ndim": self.ndim}

    @classmethod
    def restore(cls, data: Mapping[str, Any]) -> ArrayRecordIndex:
        """Rebuild an index from :meth:`to_dict`."""
        n_records, n_steps, n_features = data["shape"]
        return cls((n_records, n_steps, n_features), data["ndim"])


class ColumnGrid(NamedTuple):
    """Where the cell (step, variable) stands among the columns of a table.

    Attributes
    ----------
    axis : pd.Index
        Labels of the T steps.
    variables : list
        Labels of the F variables.
    column : int ndarray of shape (T, F) or None
        Column of each cell; None where columns are the steps of one variable.
    """

    axis: pd.Index
    variables: list[Any]
    column: np.ndarray | None


def column_grid(columns: pd.Index, name: str = "X") -> ColumnGrid:
    """Return the grid of flat columns (axis) or of columns with levels (variable, axis).

    Raises
    ------
    ValueError
        If there are more levels, or variables differ in their axis values.
    """
    if columns.nlevels == 1:
        return ColumnGrid(columns, [0], None)
    if columns.nlevels > 2:
        raise ValueError(
            f"The columns of {name} have {columns.nlevels} levels {list(columns.names)}; expected "
            "one (axis values) or two (variable, axis value). Drop or join the others, for "
            f"example {name}.columns = {name}.columns.droplevel(...)."
        )
    variable, variables = pd.factorize(columns.get_level_values(0))
    step, axis = pd.factorize(columns.get_level_values(1))
    if variable.min(initial=0) < 0 or step.min(initial=0) < 0:
        place = int(np.flatnonzero((variable < 0) | (step < 0))[0])
        raise ValueError(
            f"Column {place} of {name} has a missing label: {plain_label(columns[place])!r}."
        )
    column = np.full((len(axis), len(variables)), -1)
    column[step, variable] = np.arange(len(columns))
    if (column < 0).any():
        late, lacking = (int(i[0]) for i in np.nonzero(column < 0))
        label, value = plain_label(variables[lacking]), plain_label(axis[late])
        raise ValueError(
            f"Variable {label!r} of {name} lacks the axis value {value!r} that others have; all "
            "variables share one axis. Interpolate them to it, or model them apart."
        )
    labels = pd.Index(axis, name=columns.names[1], tupleize_cols=False)
    return ColumnGrid(labels, list(variables), column)


@dataclass(frozen=True, eq=False, repr=False)
class TableRecordIndex(RecordIndex):
    """Tables: rows = records, columns = axis values, or (variable, axis value).

    Parameters
    ----------
    rows, columns : pd.Index
        Labels of the frame.
    attrs : dict
        The frame's attrs.
    """

    rows: pd.Index
    columns: pd.Index
    attrs: dict[Any, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "table"
    noun: ClassVar[str] = "table"

    @cached_property
    def grid(self) -> ColumnGrid:
        """Where steps and variables stand among the columns."""
        return column_grid(self.columns)

    def read_grid(self, name: str) -> ColumnGrid:
        """Return the grid; messages call the data by its name."""
        grid = column_grid(self.columns, name)
        self.__dict__["grid"] = grid
        return grid

    @property
    def n_records(self) -> int:
        return len(self.rows)

    @property
    def n_steps(self) -> int:
        return len(self.grid.axis)

    @property
    def variables(self) -> list[Any]:
        return self.grid.variables

    @property
    def record_labels(self) -> pd.Index | None:
        return self.rows

    @property
    def axis(self) -> pd.Index | None:
        return self.grid.axis

    @property
    def variable_labels(self) -> list[Any] | None:
        return None if self.grid.column is None else self.grid.variables

    @property
    def is_table(self) -> bool:
        return True

    @property
    def feature_names(self) -> np.ndarray | None:
        labels = self.columns.tolist()
        if not all(isinstance(label, str) for label in labels):
            return None
        return np.array(labels, dtype=object)

    def _flat(self, values: np.ndarray) -> np.ndarray:
        """Return (..., T, F) as (..., columns)."""
        flat = values.reshape(*values.shape[:-2], -1)
        if self.grid.column is None:
            return flat
        order = np.empty(self.grid.column.size, dtype=np.intp)
        order[self.grid.column.ravel()] = np.arange(len(order))
        return np.take(flat, order, axis=-1)

    def _frame(self, data: np.ndarray, rows: pd.Index, columns: Any) -> pd.DataFrame:
        frame = pd.DataFrame(data, index=rows, columns=columns, copy=False)
        frame.attrs.update(self.attrs)
        return frame

    def write(self, values: np.ndarray) -> pd.DataFrame:
        return self._frame(self._flat(values), self.rows, self.columns)

    def write_samples(self, values: np.ndarray) -> pd.DataFrame:
        flat = self._flat(values)
        rows = prepend_samples(self.rows, len(values))
        return self._frame(flat.reshape(len(rows), -1), rows, self.columns)

    def write_codes(self, values: np.ndarray, names: Sequence[Any], level: str) -> pd.DataFrame:
        columns = pd.Index(list(names), tupleize_cols=False)
        return self._frame(values, self.rows, columns)

    def write_scores(self, values: np.ndarray, name: str | None) -> pd.Series:
        return pd.Series(values, index=self.rows, name=name)

    def write_steps(self, values: np.ndarray, name: str | None) -> pd.DataFrame:
        return self._frame(values, self.rows, self.grid.axis)

    def _renew(self, n: int, labels: pd.Index | None) -> TableRecordIndex:
        if labels is None:
            name = self.rows.name if self.rows.nlevels == 1 else None
            labels = pd.RangeIndex(n, name=name)
        return TableRecordIndex(labels, self.columns, self.attrs)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "rows": encode_index(self.rows),
            "columns": encode_index(self.columns),
            "attrs": encode_scalar(self.attrs),
        }

    @classmethod
    def restore(cls, data: Mapping[str, Any]) -> TableRecordIndex:
        """Rebuild an index from :meth:`to_dict`."""
        rows: Any = decode_index(data["rows"])
        columns: Any = decode_index(data["columns"])
        return cls(rows, columns, decode_scalar(data["attrs"]))


__all__ = ["ArrayRecordIndex", "ColumnGrid", "TableRecordIndex", "column_grid"]
