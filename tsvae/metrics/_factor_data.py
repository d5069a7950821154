"""One gate for codes and the factors they are scored on."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._containers import ALIGN_REMEDY, Float, as_float, is_frame, is_table, is_xarray

Circular = Mapping[Hashable, float] | None
Discrete = Sequence[Hashable]


class Factor(NamedTuple):
    """One known factor, ready to be predicted."""

    name: Hashable
    labels: NDArray[np.intp]  # (N,) number of each distinct value, in their order
    values: Float | None  # (N,) None where values are names
    targets: Float | None  # (N, C) what a regression predicts: the values, or cosine and sine


class FactorData(NamedTuple):
    """Codes (N, D) and the factors of the same records."""

    codes: Float
    factors: list[Factor]


def check_factor_data(
    codes: Any, factors: Any, *, discrete: Discrete = (), circular: Circular = None
) -> FactorData:
    """Validate codes and factors; rows of two tables are matched by label."""
    if is_table(codes) and is_table(factors):
        codes = _match_rows(codes, factors)
    found = as_float(codes, "codes")
    found = found[:, None] if found.ndim == 1 else found
    columns = _columns(factors)
    n_records = len(next(iter(columns.values())))
    if found.ndim != 2 or found.shape[1] == 0:
        raise ValueError(
            f"codes must have shape (n_records, n_codes); got {found.shape}. Flatten a latent map "
            "with `codes.reshape(len(codes), -1)`."
        )
    if len(found) != n_records:
        raise ValueError(
            f"codes and factors must have the same records; got {len(found)} and {n_records} rows."
        )
    if not np.isfinite(found).all():
        row, column = np.argwhere(~np.isfinite(found))[0]
        raise ValueError(f"codes is not finite in row {row}, column {column}; leave such rows out.")
    for name in [*_listed(discrete, "discrete"), *(circular or {})]:
        if name not in columns:
            raise KeyError(f"There is no factor {name!r}; factors has {list(columns)}.")
    turns = dict(circular or {})
    return FactorData(
        found,
        [_factor(name, column, name in discrete, turns) for name, column in columns.items()],
    )


def _listed(names: Any, parameter: str) -> Iterable[Hashable]:
    if isinstance(names, str):
        raise TypeError(f"{parameter} must be a list of factors; got the string {names!r}.")
    return names  # type: ignore[no-any-return]


def _match_rows(codes: Any, factors: Any) -> Any:
    if codes.index.equals(factors.index):
        return codes
    same = len(codes) == len(factors) and codes.index.is_unique
    if not same or not codes.index.sort_values().equals(factors.index.sort_values()):
        raise ValueError(f"codes and factors must have the same row labels. {ALIGN_REMEDY}")
    return codes.loc[factors.index]


def _columns(factors: Any) -> dict[Hashable, NDArray[Any]]:
    """Columns of the factors by name, or by position where there are no names."""
    columns: dict[Hashable, NDArray[Any]]
    if is_frame(factors):
        columns = {name: _plain(factors[name]) for name in factors}
        width = factors.shape[1]
    elif is_table(factors):
        columns, width = {factors.name: _plain(factors)}, 1
    else:
        array = factors.to_numpy() if is_xarray(factors) else np.asarray(factors)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise ValueError(f"factors must have shape (n_records, n_factors); got {array.shape}.")
        columns, width = {k: array[:, k] for k in range(array.shape[1])}, array.shape[1]
    if not columns or len(columns) != width:
        raise ValueError("factors must have at least one column, and no column name twice.")
    if len(next(iter(columns.values()))) < 2:
        raise ValueError("codes and factors must have at least 2 records.")
    return columns


def _plain(column: Any) -> NDArray[Any]:
    """Column of a table as numbers with NaN for what is missing, or as objects."""
    if column.dtype.kind in "iufb":
        dtype = bool if column.dtype.kind == "b" and not column.isna().any() else float
        return np.asarray(column.to_numpy(dtype=dtype, **_missing(column, dtype)))
    return np.asarray(column.astype(object).where(column.notna(), None), dtype=object)


def _missing(column: Any, dtype: type) -> dict[str, Any]:
    return {"na_value": np.nan} if dtype is float and column.isna().any() else {}


def _factor(
    name: Hashable, column: NDArray[Any], discrete: bool, turns: dict[Hashable, float]
) -> Factor:
    numeric = column.dtype.kind in "iuf"
    absent = ~np.isfinite(column) if numeric else [v is None or v != v for v in column]
    if np.any(absent):
        raise ValueError(
            f"factors is missing or infinite for {int(np.sum(absent))} records in column {name!r}, "
            f"the first is row {int(np.argmax(absent))}; leave such records out."
        )
    try:
        distinct, labels = np.unique(column, return_inverse=True)
    except TypeError:
        distinct, labels = np.unique(column.astype(str), return_inverse=True)
    if len(distinct) < 2:
        raise ValueError(
            f"The factor {name!r} is constant ({distinct[0]!r}), so that nothing can be learned "
            "about it; leave its column out."
        )
    values = column.astype(float) if numeric else None
    targets = None if values is None or discrete else _targets(name, values, turns.pop(name, None))
    if targets is None and name in turns:
        raise ValueError(f"The factor {name!r} is discrete, so it cannot be in `circular`.")
    return Factor(name, labels, values, targets)


def _targets(name: Hashable, values: Float, turn: float | None) -> Float:
    """Return a number as it is; an angle by its cosine and sine, which have no jump."""
    if turn is None:
        return values[:, None]
    if not (math.isfinite(turn) and turn > 0):
        raise ValueError(
            f"circular[{name!r}] must be the length of a full turn, a positive number such as "
            f"2 * pi; got {turn!r}."
        )
    angle = 2 * np.pi * values / turn
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)
