"""Signals in model units: centred and scaled per variable or per column, or put into 0..1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SignalScaler", "fit_scaler"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ROUNDING = 1e-14  # a smaller relative range is that of a constant
_FARTHEST = 1e10  # model units; float32 can square what is nearer


@dataclass(frozen=True, eq=False)
class SignalScaler:
    """Affine map to model units.

    Attributes
    ----------
    location, spread : ndarray of shape (1 or W, F)
        Model units are (values - location) / spread.
    constant : bool ndarray of shape (1 or W, F)
        Where training data are constant: they come back exactly.
    unit : bool
        Whether model units are 0..1.
    """

    location: Array
    spread: Array
    constant: Mask
    unit: bool

    def forward(self, values: Array, mask: Mask) -> Array:
        """Model units of (..., W, F); 0 where missing."""
        with np.errstate(over="ignore"):
            scaled = (values - self.location) / self.spread
        low, high = (0.0, 1.0) if self.unit else (-_FARTHEST, _FARTHEST)
        return np.where(mask, np.clip(scaled, low, high), 0.0)

    def inverse(self, values: Array) -> Array:
        """Original units of (..., W, F)."""
        return values * np.where(self.constant, 0.0, self.spread) + self.location

    def log_spread(self, mask: Mask) -> Array:
        """Logarithm of the volume that one unit of each record's observed entries has, (N,)."""
        return np.where(mask, np.log(self.spread), 0.0).sum(axis=(-2, -1))

    def told_by(self, values: Array, mask: Mask) -> SignalScaler:
        """Return the scaler that takes as constant only what clean signals (B, T, F) show so."""
        moves = mask & (np.abs(values - self.location) > _ROUNDING * np.abs(self.location))
        moving = moves.any(axis=0)
        if len(self.constant) == 1:
            moving = moving.any(axis=0, keepdims=True)
        return replace(self, constant=self.constant & ~moving)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        arrays = ("location", "spread", "constant")
        return {"unit": self.unit} | {name: getattr(self, name).tolist() for name in arrays}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SignalScaler:
        """Inverse of :meth:`to_dict`."""
        location, spread = (np.array(data[name], dtype=float) for name in ("location", "spread"))
        return cls(location, spread, np.array(data["constant"], dtype=bool), bool(data["unit"]))


class _Measures(NamedTuple):
    location: Array
    spread: Array
    constant: Mask


def fit_scaler(
    values: Array, mask: Mask, by: Literal["variable", "column", "profile"], unit: bool
) -> SignalScaler:
    """Measure location and spread of signals (B, T, F) on what is observed.

    Parameters
    ----------
    values : ndarray of shape (B, T, F)
    mask : bool ndarray of shape (B, T, F)
    by : {"variable", "column", "profile"}
        One pair for each variable, or one for each position of each variable; or the mean profile
        as location and one spread for each variable, that around the profile.
    unit : bool
        Smallest and largest value become 0 and 1; else mean and standard deviation 0 and 1.

    Returns
    -------
    SignalScaler
        A position without an observed value has that of its variable; the spread of a constant is
        its magnitude.
    """
    everywhere = _measure(values, mask, (0, 1), unit)
    if by == "variable":
        one = everywhere
        return SignalScaler(one.location[None], one.spread[None], one.constant[None], unit)
    unseen = ~mask.any(axis=0)
    found = _measure(values, mask, (0,), unit)
    parts = [np.where(unseen, a, b) for a, b in zip(everywhere, found, strict=True)]
    if by == "profile" and not unit:
        parts[1] = _pooled(parts[1], parts[2], mask.sum(axis=0), everywhere.spread)
    return SignalScaler(parts[0], parts[1], parts[2], unit)


def _pooled(spread: Array, constant: Mask, count: Array, otherwise: Array) -> Array:
    """Root mean square spread (1, F) of the positions (W, F) that vary."""
    weight = np.where(constant, 0, count)
    largest = np.where(weight > 0, spread, 0.0).max(axis=0)
    largest = np.where(largest > 0.0, largest, 1.0)  # no square of 1e200
    power = (weight * (spread / largest) ** 2).sum(axis=0) / np.maximum(weight.sum(axis=0), 1)
    return np.where(power > 0.0, largest * np.sqrt(power), otherwise)[None]


def _measure(values: Array, mask: Mask, axes: tuple[int, ...], unit: bool) -> _Measures:
    low = np.where(mask, values, np.inf).min(axis=axes, initial=np.inf)
    high = np.where(mask, values, -np.inf).max(axis=axes, initial=-np.inf)
    seen = mask.any(axis=axes)
    low, high = np.where(seen, low, 0.0), np.where(seen, high, 0.0)
    magnitude = np.maximum(np.abs(low), np.abs(high))
    width = high - low
    constant = width <= _ROUNDING * magnitude
    own = np.where(magnitude > 0.0, magnitude, 1.0)
    if unit:
        return _Measures(low, np.where(constant, own, width), constant)
    # Within 0..1 nothing overflows or cancels: neither squares of 1e200 nor 1e12 + noise.
    safe = np.where(constant, own, width)
    part = np.where(mask, (values - low) / safe, 0.0)
    count = np.maximum(mask.sum(axis=axes), 1)
    mean = part.sum(axis=axes) / count
    size = np.sqrt((np.where(mask, part - mean, 0.0) ** 2).sum(axis=axes) / count)
    location = np.where(constant, low, low + safe * mean)
    return _Measures(location, np.where(constant, own, safe * size), constant)
