"""Check that records are like those of fit, in scikit-learn's words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .cells import plain_label
from .panel import compare_labels, warn_names
from .record_index import RecordIndex, Records

# Axis values may be rounded (float32, text) but not shifted.
_ROUNDING = 1e-6
_PART_OF_A_STEP = 1e-3


def match_records(
    records: Records,
    fitted_index: RecordIndex,
    estimator_name: str = "the estimator",
    name: str = "X",
) -> None:
    """Check that records have the length, axis and variables seen in fit.

    Parameters
    ----------
    records : Records
        The new data, read with ``like=fitted_index``.
    fitted_index : RecordIndex
        Index of the data of fit.
    estimator_name : str
        How messages call the estimator.
    name : str
        How messages call the data.

    Raises
    ------
    ValueError
        If the number, the names or the order of columns or variables differ, if numeric axis
        values differ (rounding aside), or if records have another length. Series of a panel may
        be shorter than in fit: the rest of them counts as missing.

    Warns
    -----
    UserWarning
        If only one side has feature names.

    Examples
    --------
    >>> from tsvae.panel import read_records
    >>> fitted = read_records(np.zeros((4, 3))).index
    >>> match_records(read_records(np.zeros((4, 2))), fitted, "VAEDenoiser")
    Traceback (most recent call last):
    ...
    ValueError: X has 2 features, but VAEDenoiser is expecting 3 features as input.
    """
    found = records.index
    named, fitted_named = found.feature_names is not None, fitted_index.feature_names is not None
    if named != fitted_named:
        warn_names(named, estimator_name, name)
    elif named:
        compare_labels(_list(found.feature_names), _list(fitted_index.feature_names))
    same_kind = found.is_table == fitted_index.is_table
    if same_kind and found.n_features_in != fitted_index.n_features_in:
        raise ValueError(
            f"{name} has {found.n_features_in} features, but {estimator_name} is expecting "
            f"{fitted_index.n_features_in} features as input."
        )
    _match_shape(found, fitted_index, estimator_name, name)
    if not named and not fitted_named:
        _match_variables(found, fitted_index)
    _match_axis(_axis(found), _axis(fitted_index), name)


def _axis(index: RecordIndex) -> pd.Index | None:
    """Return the axis where its labels are not the feature names already compared."""
    return None if index.is_table and index.feature_names is not None else index.axis


def _list(labels: np.ndarray | None) -> list[Any]:
    return [] if labels is None else labels.tolist()


def _match_shape(found: RecordIndex, fitted: RecordIndex, estimator: str, name: str) -> None:
    if found.n_features != fitted.n_features:
        raise ValueError(
            f"{name} has {found.n_features} variables, but {estimator} is expecting "
            f"{fitted.n_features}, as in fit: {name} is a {found.describe()}."
        )
    if found.n_steps == fitted.n_steps:
        return
    where = ""
    if found.kind == "panel":
        longest = int(np.argmax(found.lengths))
        labels = found.record_labels
        where = f" (record {longest if labels is None else plain_label(labels[longest])!r})"
    raise ValueError(
        f"{name} has {found.n_steps} time steps{where}, but {estimator} is expecting "
        f"{fitted.n_steps}, as in fit. Cut longer records, and fill up shorter ones with NaN."
    )


def _match_variables(found: RecordIndex, fitted: RecordIndex) -> None:
    if found.variable_labels is not None and fitted.variable_labels is not None:
        compare_labels(found.variable_labels, fitted.variable_labels)


def _match_axis(found: pd.Index | None, fitted: pd.Index | None, name: str) -> None:
    """Raise at the first axis value that differs; both sides have the same length."""
    if found is None or fitted is None:
        return
    different = np.flatnonzero(_differs(found, fitted))
    if not len(different):
        return
    place = int(different[0])
    more = "" if len(different) == 1 else f" ({len(different)} of {len(fitted)} differ)"
    new, known = plain_label(found[place]), plain_label(fitted[place])
    raise ValueError(
        f"The axis values of {name} differ from those in fit: position {place} is {new}, expected "
        f"{known}{more}. Interpolate {name} to the axis of fit, or give an array if the positions "
        "are meant."
    )


def _differs(found: pd.Index, fitted: pd.Index) -> np.ndarray:
    """Return which labels differ; numbers may differ by rounding."""
    numeric = pd.api.types.is_any_real_numeric_dtype
    if not (numeric(found.dtype) and numeric(fitted.dtype)):
        pairs = zip(found.tolist(), fitted.tolist(), strict=True)
        return np.array([a != b for a, b in pairs], dtype=bool)
    new, known = found.to_numpy(dtype=np.float64), fitted.to_numpy(dtype=np.float64)
    gaps = np.abs(np.diff(np.sort(known)))
    tolerance = _ROUNDING * np.abs(known)
    tolerance = np.minimum(tolerance, _PART_OF_A_STEP * gaps.min(initial=np.inf))
    return ~(np.abs(new - known) <= tolerance)


__all__ = ["match_records"]
