"""Signals in model units: centred and scaled per variable or per column, or put into 0..1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["SignalScaler", "fit_scaler"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class SignalScaler:
    """Affine map to model units.

    Attributes
    ----------
    location, spread : ndarray of shape (1 or W, F)
        Model units are (values - location) / spread.
    unit : bool
        Whether model units are 0..1.
    """

    location: Array
    spread: Array
    unit: bool

    def forward(self, values: Array, mask: Mask) -> Array:
        """Model units of (..., W, F); 0 where missing."""
        scaled = (values - self.location) / self.spread
        if self.unit:
            scaled = np.clip(scaled, 0.0, 1.0)
        return np.where(mask, scaled, 0.0)

    def inverse(self, values: Array) -> Array:
        """Original units of (..., W, F)."""
        return values * self.spread + self.location

    def log_spread(self, mask: Mask) -> Array:
        """Logarithm of the volume that one unit of each record's observed entries has, (N,)."""
        return np.where(mask, np.log(self.spread), 0.0).sum(axis=(-2, -1))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        location, spread = self.location.tolist(), self.spread.tolist()
        return {"location": location, "spread": spread, "unit": self.unit}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SignalScaler:
        """Inverse of :meth:`to_dict`."""
        location, spread = (np.array(data[name], dtype=float) for name in ("location", "spread"))
        return cls(location, spread, bool(data["unit"]))


def fit_scaler(
    values: Array, mask: Mask, by: Literal["variable", "column"], unit: bool
) -> SignalScaler:
    """Measure location and spread of signals (B, T, F) on what is observed.

    Parameters
    ----------
    values : ndarray of shape (B, T, F)
    mask : bool ndarray of shape (B, T, F)
    by : {"variable", "column"}
        One pair for each variable, or one for each position of each variable.
    unit : bool
        Smallest and largest value become 0 and 1; else mean and standard deviation 0 and 1.

    Returns
    -------
    SignalScaler
        A position without an observed value has that of its variable; a constant has spread 1 or,
        if that is more, its own magnitude's rounding.
    """
    axes = (0, 1) if by == "variable" else (0,)
    location, spread = _measure(values, mask, axes, unit)
    if by == "column":
        everywhere = _measure(values, mask, (0, 1), unit)
        unseen = ~mask.any(axis=0)
        location = np.where(unseen, everywhere[0], location)
        spread = np.where(unseen, everywhere[1], spread)
    else:
        location, spread = location[None], spread[None]
    return SignalScaler(location, spread, unit)


def _measure(values: Array, mask: Mask, axes: tuple[int, ...], unit: bool) -> tuple[Array, Array]:
    if unit:
        low = np.where(mask, values, np.inf).min(axis=axes)
        high = np.where(mask, values, -np.inf).max(axis=axes)
        seen = mask.any(axis=axes)
        low, high = np.where(seen, low, 0.0), np.where(seen, high, 1.0)
        return low, _not_constant(high - low, low)
    count = np.maximum(mask.sum(axis=axes), 1)
    location = np.where(mask, values, 0.0).sum(axis=axes) / count
    rest = np.where(mask, values - location, 0.0)
    # Scaled before squaring: 1e200 squared is not finite.
    largest = np.abs(rest).max(axis=axes, initial=0.0)
    unit_size = np.where(largest > 0.0, largest, 1.0)
    spread = unit_size * np.sqrt(((rest / unit_size) ** 2).sum(axis=axes) / count)
    return location, _not_constant(spread, location)


def _not_constant(spread: Array, location: Array) -> Array:
    """Spread, or 1 where it is nothing but rounding."""
    rounding = 1e-12 * np.abs(location)
    return np.where(spread > rounding, spread, 1.0)
