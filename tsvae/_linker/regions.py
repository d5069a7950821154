"""Weights of parts of a profile: arrays, or regions of its axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsvae.panel import RecordIndex

__all__ = ["region_weights"]

Array = NDArray[np.float64]


def region_weights(given: Any, index: RecordIndex, name: str) -> Array:
    """Weight of each position of a side's records.

    Parameters
    ----------
    given : mapping, array-like or None
        ``{(low, high): weight}`` in units of the axis, both ends included, or one number for each
        position. None: 1 everywhere.
    index : RecordIndex
    name : str
        Of the parameter, for messages.

    Returns
    -------
    ndarray of shape (W,)
        Mean 1.

    Raises
    ------
    ValueError, TypeError
        If regions are unknown, or weights have the wrong number or are of no use.
    """
    steps = index.n_steps
    if given is None:
        return np.ones(steps)
    if isinstance(given, Mapping):
        weights = _of_regions(given, index, name)
    else:
        weights = _of_array(given, steps, name)
    if not (np.isfinite(weights).all() and (weights >= 0.0).all() and weights.any()):
        raise ValueError(f"{name} must be finite numbers >= 0, not all 0; got {given!r}.")
    return weights / weights.mean()


def _of_array(given: Any, steps: int, name: str) -> Array:
    try:
        weights = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} must be a mapping {{(low, high): weight}} or {steps} numbers, got {given!r}."
        ) from None
    if weights.shape != (steps,):
        raise ValueError(
            f"{name} must have one weight for each of the {steps} positions, got shape "
            f"{weights.shape}; or give regions, {{(low, high): weight}}."
        )
    return weights


def _of_regions(given: Mapping[Any, Any], index: RecordIndex, name: str) -> Array:
    axis, weights = _axis(index), np.ones(index.n_steps)
    for region, weight in given.items():
        try:
            low, high = (float(end) for end in region)
            value = float(weight)
        except (TypeError, ValueError):
            raise TypeError(
                f"{name} must map regions (low, high) to numbers, got {region!r}: {weight!r}."
            ) from None
        inside = (axis >= low) & (axis <= high)
        if not inside.any():
            raise ValueError(
                f"{name}: the region ({low:g}, {high:g}) holds no position of the axis, which "
                f"runs from {axis.min():g} to {axis.max():g}."
            )
        weights[inside] = value
    return weights


def _axis(index: RecordIndex) -> Array:
    """Numeric axis values; positions 0, 1, ... without."""
    values = index.axis_values
    return np.arange(index.n_steps, dtype=float) if values is None else np.asarray(values, float)
