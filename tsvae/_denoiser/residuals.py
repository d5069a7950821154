"""What reconstructions leave out, as noise to draw: its power by step and its spectrum.

The likelihood takes residuals as independent, of one power. They are not: more is left out where
signals vary, and what is left out is correlated along time. White noise of the likelihood's scale
added to draws looks nothing like the signals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ResidualNoise", "fit_residuals"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MOST_VALUES = 2**18  # of all directions


@dataclass(frozen=True, eq=False)
class ResidualNoise:
    """Normal noise: principal directions, and noise of a given spectrum and power by step.

    Attributes
    ----------
    directions : ndarray of shape (K, W F)
        Orthonormal.
    sizes : ndarray of shape (K,)
        Standard deviations along these.
    scale : ndarray of shape (W, F)
        Standard deviation, by step, of the rest.
    spectrum : ndarray of shape (W + 1, F)
        Power of the rest, in units of its scale, at the frequencies of 2 W steps; mean 1.
    """

    directions: Array
    sizes: Array
    scale: Array
    spectrum: Array

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw noise ``(n, W, F)``."""
        steps, features = self.scale.shape
        white = rng.standard_normal((n, 2 * steps, features))
        # A circle twice as long as the window: its ends stay strangers.
        coloured = np.fft.irfft(np.sqrt(self.spectrum) * np.fft.rfft(white, axis=1), axis=1)
        along = (rng.standard_normal((n, len(self.sizes))) * self.sizes) @ self.directions
        drawn: Array = coloured[:, :steps] * self.scale + along.reshape(n, steps, features)
        return drawn

    def to_arrays(self) -> dict[str, Array]:
        """Arrays by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> ResidualNoise:
        """Inverse of :meth:`to_arrays`."""
        return cls(**{name: np.asarray(value, dtype=float) for name, value in arrays.items()})


def fit_residuals(residual: Array, mask: Mask) -> ResidualNoise:
    """Fit the noise to the residuals of training records.

    Parameters
    ----------
    residual : ndarray of shape (N, W, F)
        Signals minus decoded draws from their posteriors.
    mask : bool ndarray of shape (N, W, F)
        Where the signals are observed.

    Returns
    -------
    ResidualNoise

    Notes
    -----
    The covariance of the residuals, shrunk towards one of a stationary course times a power by
    step: the directions of N records have the weight N / (N + W F), and what remains of the
    covariance is put into the stationary form. Records with gaps give that form alone,
    since zeros in gaps would turn the directions.
    """
    flat = np.where(mask, residual, 0.0).reshape(len(residual), -1)
    directions = _principal_directions(flat) if mask.all() else np.zeros((0, flat.shape[1]))
    along = flat @ directions.T
    weight = len(flat) / (len(flat) + flat.shape[1])
    # Along the directions and beside them residuals are uncorrelated: the remains of the
    # covariance are the second moments of this.
    rest = flat - (1.0 - np.sqrt(1.0 - weight)) * along @ directions
    rest = rest.reshape(residual.shape)
    scale = np.sqrt((rest**2).sum(axis=0) / np.maximum(mask.sum(axis=0), 1))
    unit = rest / np.where(scale > 0.0, scale, 1.0)
    sizes = np.sqrt(weight * (along**2).mean(axis=0))
    return ResidualNoise(directions, sizes, scale, _spectrum(unit, mask & (scale > 0.0)))


def _principal_directions(flat: Array) -> Array:
    """All directions of residuals (N, W F), or the leading ones where there are many."""
    n, size = flat.shape
    if n == 1:
        return np.zeros((0, size))
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    return directions[: max(1, _MOST_VALUES // size)]


def _spectrum(unit: Array, mask: Mask) -> Array:
    """Power spectrum (W + 1, F) of what is stationary along time, pieces missing."""
    steps = unit.shape[1]
    products, pairs = (_products(part) for part in (unit, mask.astype(float)))
    # The taper of the biased estimate leaves no far lag that few pairs tell of.
    taper = (1.0 - np.arange(steps) / steps)[:, None]
    covariance = np.where(pairs > 0.5, products / np.maximum(pairs, 1.0), 0.0) * taper
    circle = np.concatenate([covariance, np.zeros((1, unit.shape[2])), covariance[:0:-1]])
    power = np.maximum(np.fft.rfft(circle, axis=0).real, 0.0)
    mean = (power[0] + power[-1] + 2.0 * power[1:-1].sum(axis=0)) / (2 * steps)
    return np.where(mean > 0.0, power / np.where(mean > 0.0, mean, 1.0), 1.0)


def _products(values: Array) -> Array:
    """Add up products at each lag over records and steps, (W, F)."""
    steps = values.shape[1]
    power = (np.abs(np.fft.rfft(values, 2 * steps, axis=1)) ** 2).sum(axis=0)
    return np.fft.irfft(power, axis=0)[:steps]
