r"""Season and slope at the end of the data, which histories of any length are to begin with.

A structural model finds them in the history it is given, and a short one tells little. A slope that
stays is its state's mean there; waves whose phase is tied to the time stamps carry the season: a
state :math:`s` at the last row, of clock :math:`\tau`, goes on as

.. math::
    s_1 \cos \omega (t - \tau) + s_2 \sin \omega (t - \tau)
    = (s_1 \sin \omega \tau + s_2 \cos \omega \tau) \sin \omega t
    + (s_1 \cos \omega \tau - s_2 \sin \omega \tau) \cos \omega t,

and what is left for the states is how they differ from that: as series do, as they are not known,
and as they move over a history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tsvae.models.structural import Structural

__all__ = ["EndStates", "Phases", "find_end_states"]

Array = NDArray[np.float64]
Int = NDArray[np.int64]

_ALIKE = 1e-6  # radians per step


class Phases(NamedTuple):
    """Waves tied to time stamps.

    Attributes
    ----------
    angles : ndarray (W,)
        Radians per step.
    end : ndarray (B, 2 W)
        Sines, then cosines, at the last row of the grid.
    """

    angles: Array
    end: Array


class EndStates(NamedTuple):
    """What is known beforehand of the states of any history.

    Attributes
    ----------
    effects : ndarray (F, 2 W) or None
        Fixed pattern, of sines, then cosines; None: no wave is tied to the stamps.
    mean : ndarray (D,)
        In units of the observation noise: of the slope, 0 of the others.
    variance : ndarray (D,)
        In units of the observation noise's; infinite where nothing is known.
    """

    effects: Array | None
    mean: Array
    variance: Array

    def without_slope(self) -> EndStates:
        """Leave the slope unknown."""
        sloped = self.mean != 0
        return self._replace(
            mean=np.where(sloped, 0.0, self.mean), variance=np.where(sloped, np.inf, self.variance)
        )


def find_end_states(
    fitted: Structural,
    x: Tensor,
    mask: Tensor,
    variable: Int,
    phases: Phases | None,
    memory: int,
) -> EndStates:
    """Find season and slope at the last row: means of the chains, of all or of each variable.

    Parameters
    ----------
    fitted : Structural
    x, mask : Tensor (N, T)
        Chains.
    variable : ndarray (N,)
    phases : Phases or None
        ``end (N, 2 W)``: of each chain.
    memory : int
        Rows of a history.

    Returns
    -------
    EndStates
        ``effects`` in units of x.
    """
    end, unknown = (part.numpy() for part in fitted.end(x, mask))
    noise = fitted.variance.numpy()[variable, None]
    moved = memory * fitted.system.noise.numpy()
    mean, variance = np.zeros(end.shape[1]), np.full(end.shape[1], np.inf)
    if fitted.form.trend == "fixed":
        slopes = end[:, 1] / np.sqrt(noise[:, 0])
        mean[1] = slopes.mean()
        variance[1] = slopes.var() + unknown[:, 1].mean() + moved[1]
    tied = [] if phases is None else _tied(fitted.form.angles, phases.angles)
    if phases is None or not tied:
        return EndStates(None, mean, variance)
    effects = np.zeros((len(fitted.variance), phases.end.shape[1]))
    start = end.shape[1] - 2 * len(fitted.form.angles)
    for own_wave, wave in tied:
        pair = [start + 2 * own_wave, start + 2 * own_wave + 1]
        columns = [wave, len(phases.angles) + wave]
        (first, second), (sine, cosine) = end[:, pair].T, phases.end[:, columns].T
        own = np.stack((first * sine + second * cosine, first * cosine - second * sine), axis=1)
        for f in range(len(effects)):
            effects[f, columns] = own[variable == f].mean(0)
        apart = np.square(own - effects[variable][:, columns]) / noise
        variance[pair] = apart.mean() + unknown[:, pair].mean() + moved[pair]
    return EndStates(effects, mean, variance)


def _tied(angles: Sequence[float], known: Array) -> list[tuple[int, int]]:
    """Pairs of a wave of the model and the same of the stamps."""
    near = np.abs(np.subtract.outer(np.asarray(angles), known)) < _ALIKE
    return [(j, int(row.argmax())) for j, row in enumerate(near) if row.any()]
