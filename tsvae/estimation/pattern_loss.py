r"""What a fitted seasonal pattern takes from the moments of what is left.

Waves fitted to all rows take the noise at their frequencies with them. In what is left, rows of
one phase add up to nothing, so that early ones seem to foretell late ones: of 20 cycles each row
carries minus a nineteenth of the others. Rows after the data do not: of white noise of variance
:math:`\sigma^2`, with a share :math:`a` of the pattern taken off, the future differs from what
moments inside the data say by

.. math::
    \Delta \operatorname{Cov}(x_t, x_u) = a c_{t-u}, \quad
    \Delta \operatorname{Var}(x_t) = 2 a c_0, \quad
    c_k = \sigma^2 \frac{2}{n} \sum_j \cos \omega_j k,

t being a step ahead and u a row of the history: there the noise of the fitted pattern is not
correlated with the residuals any more, and adds to the errors (the algebra of least squares:
residuals are :math:`(I - a H) e`, forecasts miss by :math:`e_t - a h_t' e`). :math:`\sigma^2` is
the level of the spectrum beside each wave.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pattern", "lost_covariances"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_BESIDE = 12  # frequencies that tell the noise at a wave
_NEAR = 0.75  # of the distance of frequencies: taken off, too


class Pattern(NamedTuple):
    """Waves that were taken off.

    Attributes
    ----------
    angles : ndarray (W,)
        Radians per step.
    shares : ndarray (F, W)
        How much of each variable's fitted wave, in [0, 1].
    """

    angles: Array
    shares: Array


def lost_covariances(values: Array, mask: Mask, pattern: Pattern, n_lags: int) -> Array:
    """Covariances of the noise that went with a pattern's waves.

    Parameters
    ----------
    values, mask : ndarray (B, T, F)
        What is left.
    pattern : Pattern
    n_lags : int
        K.

    Returns
    -------
    ndarray (F, K)
        At lags 0 to K - 1.
    """
    waves = np.cos(np.outer(pattern.angles, np.arange(n_lags)))
    degrees = np.where(np.isclose(pattern.angles, np.pi), 1.0, 2.0)
    lost = np.zeros((values.shape[-1], n_lags))
    for f in np.flatnonzero(pattern.shares.any(axis=1)):
        level = _spectrum_beside(values[..., f], mask[..., f], pattern.angles)
        lost[f] = (pattern.shares[f] * degrees * level / mask[..., f].sum()) @ waves
    return lost


def _spectrum_beside(values: Array, mask: Mask, angles: Array) -> Array:
    """Mean periodogram of ``(B, T)`` at the frequencies next to each wave; white noise: variance.

    Of steps, undone in the spectrum: levels that wander leak less.
    """
    both = mask[:, 1:] & mask[:, :-1]
    steps = np.where(both, np.diff(values, axis=1), 0.0)
    n_steps = steps.shape[1]
    found = np.zeros(len(angles))
    frequency = 2.0 * np.pi * np.arange(1, n_steps // 2 + 1) / max(n_steps, 1)
    power = np.square(np.abs(np.fft.rfft(steps, axis=1)[:, 1 : len(frequency) + 1])).sum(0)
    power = power / both.sum().clip(1) / (2.0 - 2.0 * np.cos(frequency))
    distance = np.abs(frequency[:, None] - angles)
    free = (distance > _NEAR * 2.0 * np.pi / max(n_steps, 1)).all(axis=1)
    if free.any():
        order = distance[free].argsort(axis=0, kind="stable")[:_BESIDE]
        found = power[free][order].mean(axis=0)
    return found
