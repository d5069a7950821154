"""Widths that follow the share of truth that intervals held once they had been issued."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["track_coverage"]

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

_GAIN = 0.3  # of the change that a miss asks for, per horizon
_LEAK = 0.3  # forgotten per horizon: where the past says nothing of what comes, little is lost
_BOUNDS = (-np.log(2.0), np.log(2.0))
_TINY = 1e-6


def track_coverage(
    scores: Float,
    seen: Bool,
    known: Int,
    horizons: Float,
    coverage: Float,
    gain: float = _GAIN,
    leak: float = _LEAK,
) -> Float:
    """Factors of the widths that raise them after too little coverage and lower them after much.

    Each origin's intervals are issued with the factors of its time. Once its outcomes are known,
    the logarithm of the factor moves against the difference of the share that they held from the
    level, over the slope of a normal distribution's coverage in it: after ``1 / gain`` horizons
    a lasting error of conformal widths would be undone, if nothing leaked.

    Parameters
    ----------
    scores : ndarray (O, B, H, F, Q)
        |truth - median| over the distance of the bound on that side, before these factors.
    seen : bool ndarray (O, B, H, F)
        True where the truth is scored.
    known : ndarray of int (O,)
        How many of the first origins have known outcomes at each origin, not decreasing.
    horizons : ndarray (O,)
        Horizons from the origin before to each origin, at most 1.
    coverage : ndarray (Q,)
        Share that each interval is to hold; 0 is left alone.

    Returns
    -------
    ndarray (O, Q)
        Factors between 1/2 and 2; 1 while no outcome is known.

    References
    ----------
    Gibbs & Candes 2021 (arXiv:2106.00170), equation (2); on the scale of the scores: Angelopoulos,
    Candes & Tibshirani 2023 (arXiv:2307.16895), equation (3).
    """
    edge = stats.norm.ppf(0.5 + coverage / 2)
    slope = 2.0 * edge * stats.norm.pdf(edge)  # of coverage in the logarithm of the width
    step = np.where(coverage > 0, gain / np.maximum(slope, _TINY), 0.0)
    factors = np.ones((len(scores), len(coverage)))
    logarithm = np.zeros(len(coverage))
    arrived = 0
    for origin, n_known in enumerate(known):
        for past in range(arrived, n_known):
            there = scores[past][seen[past]]
            if len(there):
                missed = coverage - (there <= factors[past]).mean(axis=0)
                logarithm = (1.0 - leak * horizons[past]) * logarithm
                logarithm = np.clip(logarithm + horizons[past] * step * missed, *_BOUNDS)
        arrived = max(arrived, n_known)
        factors[origin] = np.exp(logarithm)
    return factors
