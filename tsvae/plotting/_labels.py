"""Labels of records as colours: what kind they are, which are missing, how they are written."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

LabelKind = Literal["auto", "categorical", "continuous"]

_MOST_CATEGORIES = 10


def read_labels(labels: Any, n_records: int) -> NDArray[Any]:
    """One label for each record: floats if all are numbers, else objects."""
    found = np.asarray(labels, dtype=object)
    if found.shape != (n_records,):
        raise ValueError(
            f"labels must hold one value for each of the {n_records} records; got shape "
            f"{found.shape}."
        )
    known = found[~missing_labels(found)]
    if any(isinstance(value, bool | np.bool_ | str) for value in known):
        return found
    try:
        return np.where(missing_labels(found), np.nan, found).astype(float)
    except (TypeError, ValueError):
        return found


def resolve_kind(kind: LabelKind, labels: NDArray[Any] | None) -> LabelKind:
    """Check `kind`, and choose one where it is "auto" and there are labels.

    Parameters
    ----------
    kind : {"auto", "categorical", "continuous"}
        auto: numbers are continuous, except for at most ten different whole numbers.
    labels : ndarray or None
        As :func:`read_labels` gives them.

    Returns
    -------
    {"auto", "categorical", "continuous"}

    Raises
    ------
    ValueError
        If there is no such kind, or labels that are no numbers are to be continuous.
    """
    if kind not in ("auto", "categorical", "continuous"):
        raise ValueError(f"kind must be 'auto', 'categorical' or 'continuous'; got {kind!r}.")
    if labels is None:
        return kind
    if kind == "auto":
        return _kind_of(labels)
    if kind == "continuous" and labels.dtype == object:
        raise ValueError("kind='continuous' needs labels that are numbers.")
    return kind


def missing_labels(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which labels are None, NaN, NaT or NA."""
    return np.array([_is_missing(value) for value in labels.tolist()], dtype=bool)


def known_labels(labels: NDArray[Any]) -> list[Any]:
    """Different labels in order, missing ones left out."""
    return sorted(set(labels[~missing_labels(labels)].tolist()), key=_sort_key)


def has_label(labels: NDArray[Any], label: Any) -> NDArray[np.bool_]:
    """Which records have this label."""
    same = [not _is_missing(value) and value == label for value in labels.tolist()]
    return np.array(same, dtype=bool)


def write_label(label: Any) -> str:
    """Text of a label in a legend."""
    return f"{label:g}" if isinstance(label, float) else str(label)


def _is_missing(value: Any) -> bool:
    same = value == value  # NaN and NaT are not, of NA nobody knows
    return value is None or not isinstance(same, bool | np.bool_) or not same


def _kind_of(labels: NDArray[Any]) -> LabelKind:
    if labels.dtype == object:
        return "categorical"
    known = np.unique(labels[~np.isnan(labels)])
    whole = bool((known == np.round(known)).all())
    return "categorical" if whole and len(known) <= _MOST_CATEGORIES else "continuous"


def _sort_key(label: Any) -> tuple[bool, Any]:
    return (isinstance(label, str), label if isinstance(label, str | float) else str(label))
