"""Conditions of records: numbers standardised, categories as indicators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["ConditionCoder", "fit_conditions"]

Array = NDArray[np.float64]

_MOST_CATEGORIES = 1000  # one column of the networks each


@dataclass(frozen=True)
class ConditionCoder:
    """Columns of conditions as numbers.

    Attributes
    ----------
    columns : list of dict
        For each column its ``name`` and either ``categories`` or ``mean`` and ``std``.
    """

    columns: list[dict[str, Any]]

    @property
    def n_outputs(self) -> int:
        """Numbers per record."""
        return sum(len(c["categories"]) if "categories" in c else 1 for c in self.columns)

    def transform(self, condition: Any, n_records: int) -> Array:
        """Conditions of ``n_records`` records, ``(B, n_outputs)``.

        Raises
        ------
        ValueError
            Other columns than in fit, another number of rows, missing values, or a category that
            fit has not seen.
        """
        table = _table(condition, n_records)
        if table.shape[1] != len(self.columns):
            raise ValueError(
                f"condition has {table.shape[1]} columns, but {len(self.columns)} in fit; give "
                f"the columns {[c['name'] for c in self.columns]}."
            )
        self._check_names(condition)
        parts = [
            self._encode(table.iloc[:, place], column) for place, column in enumerate(self.columns)
        ]
        return np.concatenate(parts, axis=1)

    def _check_names(self, condition: Any) -> None:
        if not isinstance(condition, pd.DataFrame):
            return
        names = [_plain(name) for name in condition.columns]
        known = [column["name"] for column in self.columns]
        if names != known and known != list(range(len(known))):
            raise ValueError(
                f"condition has the columns {names}, but {known} in fit; give these, in that order."
            )

    @staticmethod
    def _encode(values: pd.Series, column: dict[str, Any]) -> Array:
        name = column["name"]
        if "categories" not in column:
            numbers = _numbers(values, name)
            return ((numbers - column["mean"]) / column["std"])[:, None]
        known = column["categories"]
        found = [_plain(value) for value in values]
        for row, value in enumerate(found):
            if value not in known:
                raise ValueError(
                    f"condition column {name!r}, row {row}: the category {value!r} was not part "
                    f"of fit; known are {known}."
                )
        places = np.array([known.index(value) for value in found], dtype=int)
        return np.eye(len(known))[places]


def fit_conditions(condition: Any, n_records: int) -> ConditionCoder:
    """Learn the columns of conditions.

    Parameters
    ----------
    condition : DataFrame, Series or array-like of shape (B,) or (B, C)
        Strings, booleans and categories are categorical; numbers are continuous.
    n_records : int

    Returns
    -------
    ConditionCoder
    """
    table = _table(condition, n_records)
    columns: list[dict[str, Any]] = []
    for place, name in enumerate(table.columns):
        values = table.iloc[:, place]
        label = _plain(name)
        if _is_categorical(values):
            seen = sorted({_plain(value) for value in values}, key=str)
            if len(seen) > _MOST_CATEGORIES:
                raise ValueError(
                    f"condition column {label!r} has {len(seen)} categories, at most "
                    f"{_MOST_CATEGORIES} are allowed; give numbers as numbers, or group them."
                )
            columns.append({"name": label, "categories": seen})
        else:
            numbers = _numbers(values, label)
            spread = float(numbers.std())
            mean = float(numbers.mean())
            columns.append({"name": label, "mean": mean, "std": spread if spread > 0 else 1.0})
    return ConditionCoder(columns)


def _table(condition: Any, n_records: int) -> pd.DataFrame:
    if isinstance(condition, pd.Series):
        condition = condition.to_frame()
    if not isinstance(condition, pd.DataFrame):
        # A list may hold text beside numbers.
        array = np.asarray(condition, dtype=None if hasattr(condition, "dtype") else object)
        if array.ndim not in (1, 2):
            raise ValueError(
                f"condition must have one row for each record, got shape {array.shape}."
            )
        condition = pd.DataFrame(array.reshape(len(array), -1)).infer_objects()
    if len(condition) != n_records or not condition.shape[1]:
        raise ValueError(
            f"condition must have one row for each of the {n_records} records and at least one "
            f"column, got shape {condition.shape}."
        )
    missing = condition.isna().to_numpy()
    if missing.any():
        row, place = (int(i) for i in np.argwhere(missing)[0])
        raise ValueError(
            f"condition column {_plain(condition.columns[place])!r}, row {row}: a condition must "
            "be known; fill it in, or leave the record out."
        )
    return condition


def _is_categorical(values: pd.Series) -> bool:
    kind = values.dtype
    return pd.api.types.is_bool_dtype(kind) or not pd.api.types.is_numeric_dtype(kind)


def _numbers(values: pd.Series, name: Any) -> Array:
    try:
        numbers = values.to_numpy(dtype=float)
    except (TypeError, ValueError):
        raise ValueError(
            f"condition column {name!r} held numbers in fit, now {values.iloc[0]!r}."
        ) from None
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(f"condition column {name!r}, row {row}: infinite; give a finite number.")
    return numbers


def _plain(value: Any) -> Any:
    """Value as JSON knows it: a number, a truth value or text."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, bool | int | float | str) else str(value)
