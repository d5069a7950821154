"""How far the other side may be from its prediction: draws with a calibrated spread.

A prediction is uncertain for two reasons: the code is (draws from q(z | x) differ), and records of
one code differ (noise, and what the model does not know). Both are measured on pairs that were
held out of training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsvae._linker.gaps import Growth

__all__ = ["Spread", "fit_spread", "needed_factor"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_COVERAGE = 0.9  # that the spread is calibrated for
_WITHIN = 1.6448536269514722  # standard deviations of a normal that hold 90 %
_PRIOR_RECORDS = 10.0  # records' worth of weight that the variable's noise has at each position
_FACTORS = (0.2, 5.0)  # range of the calibrating factor
_LEAST = 1e-6  # noise in model units


@dataclass(frozen=True, eq=False)
class Spread:
    """Spread of one side's records about their prediction from the other side.

    Attributes
    ----------
    noise : ndarray of shape (W, F)
        Standard deviation, in model units, of what the code does not tell.
    factor : float
        Of noise and of the codes' draws, so that 90 % bands hold 90 % of held-out values.
    growth : Growth
        Of the factor, where less is known of the records that predict.
    """

    noise: Array
    factor: float
    growth: Growth = field(default_factory=Growth.none)

    def apply(self, draws: Array, centre: Array, standard: Array, known: Array) -> Array:
        """Draws (S, N, W, F) about predictions (N, W, F), widened, with noise of standard size.

        ``known`` (N,): share of the entries that each prediction is from.
        """
        factor = self.factor * self.growth.at(known)[:, None, None]
        spread: Array = centre + factor * (draws - centre + standard * self.noise)
        return spread

    def scale(self, draws: Array, centre: Array) -> Array:
        """Return the standard deviation (N, W, F) of a record about its prediction."""
        power = ((draws - centre) ** 2).mean(axis=0) + self.noise**2
        scale: Array = self.factor * np.sqrt(power)
        return scale

    def to_arrays(self) -> dict[str, Array]:
        """Arrays by name."""
        return {
            "noise": self.noise,
            "factor": np.array(self.factor),
            "known": self.growth.known,
            "times": self.growth.times,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Spread:
        """Inverse of :meth:`to_arrays`."""
        noise, known, times = (
            np.asarray(arrays[name], dtype=float) for name in ("noise", "known", "times")
        )
        return cls(noise, float(arrays["factor"]), Growth(known, times))


def fit_spread(values: Array, mask: Mask, draws: Array, centre: Array) -> Spread:
    """Measure noise and factor.

    Parameters
    ----------
    values : ndarray of shape (N, W, F)
        Records of one side, in model units.
    mask : bool ndarray of shape (N, W, F)
    draws : ndarray of shape (S, N, W, F)
        Their predictions at codes drawn from the posteriors of the other side.
    centre : ndarray of shape (N, W, F)
        Those at the posterior means.

    Returns
    -------
    Spread

    Notes
    -----
    At each position the noise's variance is the mean square of the residuals less the variance of
    the draws, shrunk towards that of the whole variable by the weight of ten records. The factor is
    the 90 % quantile of residuals over their standard deviations, over that of a normal.
    """
    drawn = ((draws - centre) ** 2).mean(axis=0)
    square = np.where(mask, (values - centre) ** 2, 0.0)
    excess = np.where(mask, square - drawn, 0.0)
    count = mask.sum(axis=0)
    overall = excess.sum(axis=(0, 1)) / np.maximum(count.sum(axis=0), 1)
    overall = np.maximum(overall, 0.05 * square.sum(axis=(0, 1)) / np.maximum(count.sum(axis=0), 1))
    power = (excess.sum(axis=0) + _PRIOR_RECORDS * overall) / (count + _PRIOR_RECORDS)
    noise = np.sqrt(np.maximum(power, _LEAST**2 + 0.01 * overall))
    needed = needed_factor(values, mask, draws, centre, noise)
    return Spread(noise, float(np.clip(needed, *_FACTORS)))


def needed_factor(values: Array, mask: Mask, draws: Array, centre: Array, noise: Array) -> float:
    """Factor of the spread with which 90 % bands hold 90 % of the values; 1 without any."""
    drawn = ((draws - centre) ** 2).mean(axis=0)
    relative = (np.abs(values - centre) / np.sqrt(drawn + noise**2))[mask]
    return float(np.quantile(relative, _COVERAGE) / _WITHIN) if len(relative) else 1.0
