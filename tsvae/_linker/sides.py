"""One side of the pairs: its units, the weights of its regions, its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsvae._linker.logs import SignedLog, fit_signed_log
from tsvae._linker.regions import region_weights
from tsvae._records.scaling import SignalScaler, fit_scaler
from tsvae._records.signals import Signals
from tsvae.panel import RecordIndex

__all__ = ["SideScale", "error_weights", "fit_side"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SHORT = 32  # records with fewer steps are scaled column by column
_LEAST_ERROR = 1e-3  # of the largest error bar of a record: no point rules alone


@dataclass(frozen=True, eq=False)
class SideScale:
    """Way between the caller's units and the model's.

    Attributes
    ----------
    index : RecordIndex
        Without rows.
    log : SignedLog or None
    scaler : SignalScaler
    weights : ndarray of shape (W,)
        Of positions in the loss, mean 1.
    """

    index: RecordIndex
    log: SignedLog | None
    scaler: SignalScaler
    weights: Array

    def forward(self, values: Array, mask: Mask) -> Array:
        """Model units of (B, W, F); 0 where missing."""
        if self.log is not None:
            values = self.log.forward(values)
        return self.scaler.forward(values, mask)

    def inverse(self, values: Array) -> Array:
        """Return the caller's units of (..., W, F)."""
        found = self.scaler.inverse(values)
        return found if self.log is None else self.log.inverse(found)

    def errors(self, sigma: Array, values: Array) -> Array:
        """Error bars of values in model units."""
        if self.log is not None:
            sigma = sigma * self.log.slope(values)
        scaled: Array = sigma / self.scaler.spread
        return scaled

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "index": self.index.to_dict(),
            "log": None if self.log is None else self.log.to_dict(),
            "scaler": self.scaler.to_dict(),
            "weights": self.weights.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SideScale:
        """Inverse of :meth:`to_dict`."""
        log = data["log"]
        return cls(
            RecordIndex.from_dict(data["index"]),
            None if log is None else SignedLog.from_dict(log),
            SignalScaler.from_dict(data["scaler"]),
            np.array(data["weights"], dtype=float),
        )


def fit_side(signals: Signals, options: dict[str, Any], name: str) -> SideScale:
    """Measure a side.

    Parameters
    ----------
    signals : Signals
    options : dict
        ``scaling``, ``log_scale``, ``regions`` and ``unit`` (whether the likelihood is of 0..1).
    name : str
        "X" or "y", for messages.

    Raises
    ------
    ValueError
        If the side is constant: there is nothing to link.
    """
    index = signals.index
    assert isinstance(index, RecordIndex)
    values, mask = signals.values, signals.mask
    log = fit_signed_log(values, mask) if options["log_scale"] else None
    if log is not None:
        values = log.forward(values)
    by = options["scaling"]
    if by == "auto":
        by = "column" if index.n_steps < _SHORT else "profile"
    scaler = fit_scaler(values, mask, by, options["unit"])
    if _is_constant(values, mask):
        raise ValueError(
            f"{name} is constant: all its observed values are the same in every record, which "
            "tells records apart no more than no measurement. Leave that side out, or give the "
            "records that vary."
        )
    weights = region_weights(options["regions"], index, f"{name.lower()}_regions")
    return SideScale(index.new_records(0), log, scaler, weights)


def _is_constant(values: Array, mask: Mask) -> bool:
    """Whether no position varies over two records or more."""
    low = np.where(mask, values, np.inf).min(axis=0)
    high = np.where(mask, values, -np.inf).max(axis=0)
    return bool(mask.any(axis=(1, 2)).sum() > 1 and not (high > low).any())


def error_weights(errors: Array, mask: Mask) -> Array:
    """Weights of entries with known error bars: inverse variances, mean 1 over each record.

    Parameters
    ----------
    errors : ndarray of shape (B, W, F)
        In model units.
    mask : bool ndarray of shape (B, W, F)

    Returns
    -------
    ndarray of shape (B, W, F)
    """
    largest = np.where(mask, errors, 0.0).max(axis=(1, 2), keepdims=True)
    relative = np.maximum(errors / np.where(largest > 0.0, largest, 1.0), _LEAST_ERROR)
    weights = np.where(mask, relative**-2.0, 0.0)
    count = np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1)
    mean = weights.sum(axis=(1, 2), keepdims=True) / count
    return weights / np.where(mean > 0.0, mean, 1.0)
