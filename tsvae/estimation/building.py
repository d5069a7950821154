"""From a panel and the estimator's settings to a model that starts well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tsvae.lds import LDSParameters
from tsvae.models import SVAE
from tsvae.models.start import precision_start, rotation_start, state_roles

__all__ = ["Sizes", "Start", "detect_periods", "regress", "resolve_sizes", "start_model"]

Array = NDArray[np.float64]

#: Up to so many variables each gets its own latent chain; above, one chain serves all.
MAX_CHANNELS = 32
#: Precision of a complete observation at the start, in units of the prior's.
PRECISION_START = 0.1
_N_PEAKS = 4
_ROUNDING = 1e-9  # what is smaller, beside the data, is not movement
_PEAK_RATIO = 8.0
_RIDGE = 1.0


@dataclass(frozen=True)
class Sizes:
    """Lengths and shapes resolved from the data.

    Attributes
    ----------
    context : int
        Rows of history a forecast reads.
    window : int
        Rows of a training window.
    horizon : int
        Steps of the training forecasts.
    min_history : int
        Rows that a training forecast has seen at least.
    level_entries : int
        Entries that define the level of a window.
    """

    context: int
    window: int
    horizon: int
    min_history: int
    level_entries: int


def resolve_sizes(longest: int, context_length: int, horizon: int) -> Sizes:
    """Fit context and horizon to the data.

    Parameters
    ----------
    longest : int
        Rows of the longest series.
    context_length, horizon : int
        As asked for.

    Returns
    -------
    Sizes
        A training window takes ``context + horizon`` rows where the data has them.

    Examples
    --------
    >>> resolve_sizes(10_000, 512, 96).window
    608
    >>> resolve_sizes(60, 512, 24)
    Sizes(context=60, window=60, horizon=24, min_history=18, level_entries=9)
    """
    horizon = max(1, min(horizon, longest // 2))
    window = min(context_length + horizon, longest)
    seen = max(window - horizon, 1)
    return Sizes(
        context=min(context_length, longest),
        window=window,
        horizon=horizon,
        min_history=max(1, seen // 2),
        level_entries=max(1, seen // 4),
    )


def detect_periods(values: Array, mask: NDArray[np.bool_], longest: int) -> list[float]:
    """Periods with outstanding power, for data whose stamps tell no calendar.

    A mean periodogram over series and variables of the linearly detrended data, missing entries
    at zero; local peaks well above the median around them count.

    Parameters
    ----------
    values : ndarray (B, T, F)
        Model units, 0 where missing.
    mask : bool ndarray (B, T, F)
    longest : int
        Longest period looked for, in steps.

    Returns
    -------
    list of float
        Strongest first; at most four.

    Examples
    --------
    >>> t = np.arange(300.0)
    >>> wave = np.sin(2 * np.pi * t / 12.5).reshape(1, -1, 1)
    >>> [round(p, 1) for p in detect_periods(wave, np.ones_like(wave, bool), 100)]
    [12.5]
    """
    n_steps = values.shape[1]
    if n_steps < 8:
        return []
    time = np.linspace(-1.0, 1.0, n_steps)[:, None]
    weight = mask.sum(1, keepdims=True).clip(1)
    centred = np.where(mask, values - (values * mask).sum(1, keepdims=True) / weight, 0.0)
    slope = (centred * time).sum(1, keepdims=True) / (mask * time**2).sum(1, keepdims=True).clip(1)
    centred = np.where(mask, centred - slope * time, 0.0)
    if np.abs(centred).max() <= _ROUNDING * np.abs(values).max():
        return []
    n_fft = 4 * n_steps  # zero padding: periods finer than the grid of whole cycles
    power = (np.abs(np.fft.rfft(centred * np.hanning(n_steps)[:, None], n_fft, axis=1)) ** 2).mean(
        axis=(0, 2)
    )
    return _peaks(power, n_fft, longest)


def _peaks(power: Array, n_fft: int, longest: int) -> list[float]:
    inner = np.arange(1, len(power) - 1)
    peak = inner[(power[inner] > power[inner - 1]) & (power[inner] >= power[inner + 1])]
    periods = n_fft / peak
    peak = peak[(periods >= 2.0) & (periods <= longest)]
    background = np.median(power[1:]) if len(power) > 1 else 0.0
    peak = peak[power[peak] > _PEAK_RATIO * background]
    strongest = peak[np.argsort(power[peak])[::-1]][:_N_PEAKS]
    if not len(strongest):
        return []
    strongest = strongest[power[strongest] > 0.02 * power[strongest[0]]]
    return [float(n_fft / (k + _vertex(power, k))) for k in strongest]


def _vertex(power: Array, k: int) -> float:
    """Offset of a parabola's top through the logs of three neighbours."""
    left, top, right = np.log(power[k - 1 : k + 2] + np.finfo(float).tiny)
    bend = left - 2.0 * top + right
    return 0.0 if bend == 0 else float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5))


class Start(NamedTuple):
    """Where a model begins.

    Attributes
    ----------
    dynamics : LDSParameters or None
        None: the prior's mean.
    precision : list of float or float
        Of the encoder, per latent coordinate.
    """

    dynamics: LDSParameters | None
    precision: list[float] | float


def start_model(
    latent_dim: int,
    group_size: int | None,
    periods: list[float],
    sizes: Sizes,
    seed: int,
    n_inputs: int = 0,
) -> Start:
    """Starting transition and precision: roles for groups of two, plain for others."""
    if group_size != 2:
        return Start(None, PRECISION_START)
    generator = torch.Generator().manual_seed(seed)
    roles = state_roles(latent_dim // 2, periods, sizes.context, generator)
    return Start(rotation_start(roles, n_inputs), precision_start(roles, PRECISION_START))


@torch.no_grad()
def regress(model: SVAE, values: Array, mask: NDArray[np.bool_], inputs: Array) -> None:
    """Start the covariate effect from a ridge regression of each variable on the inputs.

    Parameters
    ----------
    model : SVAE
    values, mask : ndarray (B, T, F)
        Model units.
    inputs : ndarray (B, T, U)
    """
    design = np.concatenate([inputs, np.ones_like(inputs[..., :1])], axis=-1)
    matrix = np.zeros((values.shape[-1], inputs.shape[-1]))
    offsets = np.zeros(values.shape[-1])
    for f in range(values.shape[-1]):
        seen = mask[..., f]
        rows, target = design[seen], values[..., f][seen]
        penalty = _RIDGE * np.eye(rows.shape[1])
        penalty[-1, -1] = 1e-8
        solution = np.linalg.solve(rows.T @ rows + penalty, rows.T @ target)
        matrix[f], offsets[f] = solution[:-1], solution[-1]
    model.covariate_matrix.copy_(torch.as_tensor(matrix))
    if model.level_entries == 0 and not model.channelwise:
        model.decoder.offset.copy_(torch.as_tensor(offsets))
