"""Clean targets and conditions beside X: record for record, whatever containers they come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tsvae._records.signals import Signals
from tsvae.panel import PanelIndex, RecordIndex

__all__ = ["check_labels", "check_same_place", "dressed", "record_labels", "same_shape"]


def same_shape(y: Any, X: Any) -> bool:
    """Whether y can be a clean target: two axes or more, and the shape of X."""
    shape = _shape(y)
    return len(shape) > 1 and shape == _shape(X)


def _shape(data: Any) -> tuple[Any, ...]:
    if hasattr(data, "data_vars"):
        return (*data.data_vars, *data.sizes.items())
    shape = getattr(data, "shape", None)
    if shape is None:
        try:
            shape = np.asarray(data).shape
        except ValueError:  # rows of unequal lengths
            return ()
    return tuple(shape)


def dressed(data: Any, X: Any, name: str) -> Any:
    """Give an array of X's shape the labels of X, and take them from a frame beside an array.

    A step of a pipeline may return an array for a frame: positions are meant then.

    Raises
    ------
    ValueError
        If the number of axes differs.
    """
    ours, theirs = _shape(data), _shape(X)
    if len(ours) != len(theirs) and not (hasattr(data, "dims") or hasattr(X, "dims")):
        raise ValueError(
            f"{name} must hold the clean signals of X in the same shape, {theirs}; got {ours}."
        )
    if ours != theirs:
        return data
    labelled = hasattr(data, "dims") or isinstance(data, pd.DataFrame | pd.Series)
    if isinstance(X, np.ndarray) and isinstance(data, pd.DataFrame):
        return data.to_numpy()
    if labelled or hasattr(X, "data_vars"):
        return data
    if isinstance(X, pd.DataFrame):
        return pd.DataFrame(np.asarray(data), index=X.index, columns=X.columns)
    if isinstance(X, pd.Series):
        return pd.Series(np.asarray(data), index=X.index, name=X.name)
    return X.copy(data=np.asarray(data)) if hasattr(X, "dims") else data


def check_same_place(found: Signals, signals: Signals, name: str) -> None:
    """Check that clean signals are those of X, record for record and step for step.

    Raises
    ------
    ValueError
        If shapes, labels of records or first time stamps differ.
    """
    if found.values.shape != signals.values.shape:
        raise ValueError(
            f"{name} must hold the clean signals of X, record for record: it has shape "
            f"{found.values.shape}, X {signals.values.shape} (records, steps, variables)."
        )
    check_labels(record_labels(found.index), record_labels(signals.index), name)
    ours, theirs = (_first_stamps(each.index) for each in (found, signals))
    if ours is None or theirs is None or ours.equals(theirs):
        return
    place = int(np.flatnonzero(np.asarray(ours != theirs))[0])
    raise ValueError(
        f"{name} must hold the clean signals of X, step for step: series {place} starts at "
        f"{ours[place]}, that of X at {theirs[place]}. Select the rows of X, for a frame "
        f"{name}.loc[X.index]."
    )


def record_labels(index: RecordIndex | PanelIndex) -> pd.Index | None:
    """Labels of records or series."""
    return index.record_labels if isinstance(index, RecordIndex) else index.series


def check_labels(found: pd.Index | None, known: pd.Index | None, name: str) -> None:
    """Check the row labels of what comes beside X; rows 0, 1, ... beside others go by position.

    Raises
    ------
    ValueError
        If both have labels that differ in value or in order.
    """
    if found is None or known is None or len(found) != len(known) or found.equals(known):
        return
    shuffled = found.nlevels == known.nlevels and found.sort_values().equals(known.sort_values())
    if not shuffled and (_is_plain(found) or _is_plain(known)):
        return
    place = int(np.flatnonzero([a != b for a, b in zip(found, known, strict=True)])[0])
    raise ValueError(
        f"The rows of {name} do not match those of X: row {place} is {found[place]!r}, expected "
        f"{known[place]!r}. Bring them in the order of X, {name}.loc[X.index], or give an array if "
        "positions are meant."
    )


def _is_plain(labels: pd.Index) -> bool:
    return labels.nlevels == 1 and labels.equals(pd.RangeIndex(len(labels)))


def _first_stamps(index: RecordIndex | PanelIndex) -> pd.Index | None:
    """First time stamp of each series; None without stamps."""
    panel = getattr(index, "panel", None) if isinstance(index, RecordIndex) else index
    if panel is None or not panel.has_stamps:
        return None
    stamps: pd.Index = panel.clock.stamps(panel.starts)
    return stamps
