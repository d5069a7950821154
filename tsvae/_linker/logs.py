"""Logarithms of intensities that may be zero or negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SignedLog", "fit_signed_log"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FLOOR = 0.01  # quantile of the magnitudes below which the scale is linear
_BOTH_SIGNS = 0.2  # share of the rarer sign from which a position holds noise about zero
_MAD_TO_SIGMA = 1.4826  # of the normal distribution
_FARTHEST = 300.0  # decades above the floor; beyond, the quotient is not a floating-point number


@dataclass(frozen=True, eq=False)
class SignedLog:
    """Logarithm of magnitudes, linear around zero, with the sign kept.

    Attributes
    ----------
    floor : ndarray of shape (F,)
        Magnitude c below which it is linear.

    Notes
    -----
    y = asinh(x / (2 c)) / ln 10: log10(x / c) for x well above c, x / (2 c ln 10) around zero,
    odd, and with an inverse everywhere.
    """

    floor: Array

    def forward(self, values: Array) -> Array:
        """Decades above the floor, of values (..., W, F)."""
        with np.errstate(over="ignore"):
            near = np.arcsinh(values / (2.0 * self.floor))
        far = np.log(np.maximum(np.abs(values), self.floor)) - np.log(self.floor)
        transformed: Array = np.where(np.isfinite(near), near, np.sign(values) * far) / np.log(10.0)
        return transformed

    def inverse(self, values: Array) -> Array:
        """Values of decades (..., W, F)."""
        size = np.abs(values) * np.log(10.0)
        with np.errstate(over="ignore"):
            near = 2.0 * self.floor * np.sinh(size)
            far = np.exp(size + np.log(self.floor))
        found = np.sign(values) * np.where(np.abs(values) < _FARTHEST, near, far)
        limit = np.finfo(float).max
        return np.clip(found, -limit, limit)

    def slope(self, values: Array) -> Array:
        """Return the derivative of :meth:`forward` at values (..., W, F): it scales errors."""
        found: Array = 1.0 / np.log(10.0) / np.hypot(2.0 * self.floor, values)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"floor": self.floor.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SignedLog:
        """Inverse of :meth:`to_dict`."""
        return cls(np.array(data["floor"], dtype=float))


def fit_signed_log(values: Array, mask: Mask) -> SignedLog:
    """Choose the floor of each variable.

    Parameters
    ----------
    values : ndarray of shape (B, W, F)
    mask : bool ndarray of shape (B, W, F)

    Returns
    -------
    SignedLog

    Notes
    -----
    The 1 % quantile of magnitudes other than zero, or the noise if that is more: a position whose
    values have both signs holds noise about zero, whose decades mean nothing.
    """
    floors = []
    for feature in range(values.shape[2]):
        seen = mask[..., feature]
        sizes = np.abs(values[..., feature][seen])
        sizes = sizes[sizes > 0.0]
        smallest = float(np.quantile(sizes, _FLOOR)) if len(sizes) else 1.0
        floors.append(max(smallest, _noise(values[..., feature], seen)))
    return SignedLog(np.array(floors))


def _noise(values: Array, mask: Mask) -> float:
    """Smallest spread among positions of (B, W) whose values have both signs; 0 without such."""
    count = np.maximum(mask.sum(axis=0), 1)
    negative = (mask & (values < 0.0)).sum(axis=0) / count
    positive = (mask & (values > 0.0)).sum(axis=0) / count
    mixed = np.minimum(negative, positive) >= _BOTH_SIGNS
    spreads = [np.median(np.abs(values[mask[:, w], w])) for w in np.flatnonzero(mixed)]
    return _MAD_TO_SIGMA * float(min(spreads, default=0.0))
