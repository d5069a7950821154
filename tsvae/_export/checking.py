"""Comparison of an exported graph with the estimator on random records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae._denoiser.coder import Coder
from tsvae._denoiser.conditions import ConditionCoder
from tsvae._denoiser.denoising import DenoiserFit
from tsvae._export.graph import Part, input_names
from tsvae._export.runtime import as_inputs

__all__ = ["Records", "estimator_output", "graph_inputs", "largest_difference", "random_records"]

Array = NDArray[np.float64]

_BATCHES = (1, 2, 9)  # sizes that are tried: the number of records is free
_MISSING = 0.2


class Records(NamedTuple):
    """What a part is given, in the caller's units.

    Attributes
    ----------
    values : ndarray of shape (B, T, F)
        NaN in some places, anything where the mask is False.
    mask : bool ndarray of shape (B, T, F)
    codes : ndarray of shape (B, D)
    given : ndarray of shape (B, C') or None
        Conditions as the model reads them.
    """

    values: Array
    mask: NDArray[np.bool_]
    codes: Array
    given: Array | None


def random_records(
    fitted: DenoiserFit, n: int, rng: np.random.Generator, dtype: type[np.floating[Any]]
) -> Records:
    """Draw records as scattered as the training data, a fifth of the entries missing."""
    design, scaler = fitted.design, fitted.scaler
    shape = (n, design.n_steps, design.n_features)
    draw = rng.random(shape) if scaler.unit else rng.standard_normal(shape)
    # What the graph is given is rounded to its dtype; the estimator must read the same numbers.
    values = (draw * scaler.spread + scaler.location).astype(dtype).astype(np.float64)
    mask = rng.random(shape) > _MISSING / 2
    values[rng.random(shape) < _MISSING / 2] = np.nan
    codes = rng.standard_normal((n, fitted.model.n_latent)).astype(np.float32).astype(np.float64)
    coder = fitted.conditions
    given = None if coder is None else _random_conditions(coder, n, rng)
    return Records(values, mask, codes, given)


def _random_conditions(coder: ConditionCoder, n: int, rng: np.random.Generator) -> Array:
    parts = []
    for column in coder.columns:
        if "categories" in column:
            n_categories = len(column["categories"])
            parts.append(np.eye(n_categories)[rng.integers(n_categories, size=n)])
        else:
            parts.append(rng.standard_normal((n, 1)))
    return np.concatenate(parts, axis=1)


def _raw_conditions(coder: ConditionCoder, given: Array) -> Array:
    """Columns as the graph takes them: numbers in their units, positions of categories."""
    raw, start = [], 0
    for column in coder.columns:
        width = len(column["categories"]) if "categories" in column else 1
        part = given[:, start : start + width]
        if "categories" in column:
            raw.append(part.argmax(axis=1))
        else:
            raw.append(part[:, 0] * column["std"] + column["mean"])
        start += width
    return np.stack(raw, axis=1).astype(np.float64)


def graph_inputs(
    fitted: DenoiserFit, part: Part, records: Records, dtype: type[np.floating[Any]]
) -> dict[str, NDArray[Any]]:
    """Name the inputs of the graph of a part."""
    arrays: list[NDArray[Any]] = [records.codes]
    if part != "decode":
        arrays = [records.values, records.mask]
    if fitted.conditions is not None:
        assert records.given is not None
        arrays.append(_raw_conditions(fitted.conditions, records.given))
    return as_inputs(input_names(fitted, part), arrays, dtype)


def estimator_output(fitted: DenoiserFit, coder: Coder, part: Part, records: Records) -> Array:
    """Compute the estimator's own result: codes (B, D), or signals (B, T, F) in its units."""
    if part == "decode":
        return fitted.scaler.inverse(coder.decode(records.codes, records.given))
    seen = records.mask & ~np.isnan(records.values)
    values = fitted.scaler.forward(np.where(seen, records.values, 0.0), seen)
    if part == "encode":
        return coder.codes(values, seen, records.given)
    return fitted.scaler.inverse(coder.reconstruct(values, seen, records.given))


def largest_difference(
    fitted: DenoiserFit,
    part: Part,
    dtype: type[np.floating[Any]],
    graph: Callable[[dict[str, NDArray[Any]]], NDArray[Any]],
) -> float:
    """Largest difference between a graph and the estimator, over batches of several sizes.

    Parameters
    ----------
    fitted : DenoiserFit
    part : str
    dtype : type
        Of the graph's inputs and outputs.
    graph : callable
        Takes inputs by name.

    Returns
    -------
    float
        Of signals in units of the training data's spread; of codes relative to the largest, where
        that is above 1.
    """
    rng = np.random.default_rng(0)
    # Gaps that a model has never seen are filled outside of the graph.
    coder = replace(fitted.coder({"device": "cpu", "n_threads": None}), gapless=False)
    largest = 0.0
    for n in _BATCHES:
        records = random_records(fitted, n, rng, dtype)
        expected = estimator_output(fitted, coder, part, records)
        found = graph(graph_inputs(fitted, part, records, dtype))
        if found.shape != expected.shape:
            raise RuntimeError(
                f"the graph gives {found.shape} for {n} records instead of {expected.shape}"
            )
        unit = fitted.scaler.spread if part != "encode" else max(1.0, np.abs(expected).max())
        difference = np.abs(found.astype(np.float64) - expected) / unit
        largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
    return largest
