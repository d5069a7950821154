"""From a panel and the estimator's settings to a model that starts well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.lds import LDSParameters
from tsvae.models import SVAE
from tsvae.models.start import (
    PRECISION_START,
    FilterBank,
    filter_bank,
    rotation_start,
    state_roles,
)
from tsvae.nn.special import inverse_softplus

__all__ = [
    "Built",
    "Sizes",
    "Spread",
    "Start",
    "build_model",
    "detect_periods",
    "follow_lines",
    "known_mean",
    "measure_spread",
    "resolve_sizes",
    "ridge",
    "set_bank",
    "start_model",
]

Array = NDArray[np.float64]

#: Up to so many variables each gets its own latent chain; above, one chain serves all.
MAX_CHANNELS = 32
_N_PEAKS = 4
_ROUNDING = 1e-9  # what is smaller, beside the data, is not movement
_N_WINDOWS = 16
_TINY = 1e-8
_PEAK_RATIO = 8.0
_RIDGE = 1.0
_LINE_SHARE = 0.25  # of a window's variance that straight lines may miss
STRENGTH = 100.0  # pseudo-observations behind a start that no data speak for


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
    asked : int
        Steps ahead as asked for.
    """

    context: int
    window: int
    horizon: int
    min_history: int
    level_entries: int
    asked: int


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
    Sizes(context=60, window=60, horizon=7, min_history=26, level_entries=13, asked=24)
    """
    asked, horizon = horizon, max(1, min(horizon, longest // 8))
    window = min(context_length + horizon, longest)
    seen = max(window - horizon, 1)
    return Sizes(
        context=min(context_length, longest),
        window=window,
        horizon=horizon,
        min_history=max(1, seen // 2),
        level_entries=max(1, seen // 4),
        asked=asked,
    )


def detect_periods(values: Array, mask: NDArray[np.bool_], longest: int) -> list[float]:
    """Periods with outstanding power, for data whose stamps tell no calendar.

    A mean periodogram over series and variables of the linearly detrended data, missing entries
    at zero; local peaks well above its median count.

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


class Spread(NamedTuple):
    """Typical sizes of each variable in model units.

    Attributes
    ----------
    window : ndarray (F,)
        Standard deviation inside a window, its level taken off.
    noise : ndarray (F,)
        Standard deviation of observation noise if all short-term movement were noise.
    """

    window: Array
    noise: Array


def measure_spread(values: Array, mask: NDArray[np.bool_], sizes: Sizes) -> Spread:
    """Sizes from which levels, states and noise start.

    Parameters
    ----------
    values : ndarray (B, T, F)
        Model units, 0 where missing.
    mask : bool ndarray (B, T, F)
    sizes : Sizes

    Returns
    -------
    Spread
        1 for a variable that never moves.
    """
    n_steps = values.shape[1]
    starts = np.unique(np.linspace(0, n_steps - sizes.window, _N_WINDOWS).round().astype(int))
    squares, counts = np.zeros(values.shape[-1]), np.zeros(values.shape[-1])
    for start in starts:
        part = slice(start, start + sizes.window)
        residual, seen = _residual(values[:, part], mask[:, part], sizes.level_entries)
        squares += (residual**2).sum((0, 1))
        counts += seen.sum((0, 1))
    both = mask[:, 1:] & mask[:, :-1]
    steps = np.where(both, np.diff(values, axis=1), 0.0)
    noise = np.sqrt((steps**2).sum((0, 1)) / both.sum((0, 1)).clip(1) / 2.0)
    window = np.sqrt(squares / counts.clip(1))
    window = np.where(window > _TINY, window, 1.0)
    return Spread(window, np.where(noise > _TINY, noise, window))


def follow_lines(values: Array, mask: NDArray[np.bool_], spread: Spread) -> NDArray[np.bool_]:
    """Tell the variables that move in lines from one step to the next.

    Parameters
    ----------
    values, mask : ndarray (B, T, F)
        Model units.
    spread : Spread

    Returns
    -------
    bool ndarray (F,)
        True where the mean of two neighbours misses the value between them by a mean square of at
        most a quarter of the variance inside a window.
    """
    three = mask[:, 2:] & mask[:, 1:-1] & mask[:, :-2]
    missed = np.where(three, values[:, 1:-1] - (values[:, 2:] + values[:, :-2]) / 2.0, 0.0)
    square = (missed**2).sum((0, 1)) / three.sum((0, 1)).clip(1)
    smooth: NDArray[np.bool_] = square <= _LINE_SHARE * spread.window**2
    return smooth


def _residual(
    values: Array, mask: NDArray[np.bool_], entries: int
) -> tuple[Array, NDArray[np.bool_]]:
    first = mask & (mask.cumsum(1) <= entries)
    level = (values * first).sum(1, keepdims=True) / first.sum(1, keepdims=True).clip(1)
    return np.where(mask, values - level, 0.0), mask


def build_model(
    settings: Mapping[str, Any], start: LDSParameters | None = None, strength: float = STRENGTH
) -> SVAE:
    """Build the model from its settings; ``start`` is where its dynamics begin."""
    settings = dict(settings)
    dynamics = {**settings.pop("dynamics"), "start": start, "strength": strength}
    n_features = settings.pop("n_features")
    for name in ("encoder_sizes", "decoder_sizes"):
        settings[name] = tuple(settings[name])
    return SVAE(n_features, dynamics=dynamics, **settings)


class Built(NamedTuple):
    """A model at its start.

    Attributes
    ----------
    model : SVAE
    settings : dict
        Arguments of the model, JSON values.
    persists : bool
        Whether there is nothing more to be told about levels.
    errors : ndarray (H,) or None
        Mean squared errors ahead to expect, in units of each variable's scale.
    """

    model: SVAE
    settings: dict[str, Any]
    persists: bool
    errors: Array | None


class Start(NamedTuple):
    """Where a model begins.

    Attributes
    ----------
    dynamics : LDSParameters or None
        None: the prior's mean.
    bank : FilterBank or None
        Of encoder and decoder, for one variable; None: random.
    scale : ndarray (F,) or None
        Unit of each variable; None: its spread in a window.
    noise_scale : float or None
        Observation noise in that unit; None: as the model has it.
    strength : float
        Observations that the dynamics rest on.
    coupling : Tensor (F, D, D) or None
        Of the states at the origin of a forecast; None: the model has none.
    bridged : bool ndarray (F,) or None
        Variables whose short gaps are bridged.
    persists : bool
        Whether forecasts are the last value.
    errors : ndarray (H,) or None
        Mean squared errors ahead to expect, in units of ``scale``.
    """

    dynamics: LDSParameters | None
    bank: FilterBank | None
    scale: Array | None = None
    noise_scale: float | None = None
    strength: float = STRENGTH
    coupling: Tensor | None = None
    bridged: NDArray[np.bool_] | None = None
    persists: bool = False
    errors: Array | None = None


def start_model(
    latent_dim: int,
    group_size: int | None,
    periods: list[float],
    sizes: Sizes,
    seed: int,
    n_inputs: int = 0,
    precision: float = PRECISION_START,
    fixed_seasons: bool = False,
) -> Start:
    """Choose starting transition, encoder and decoder: roles for groups of two."""
    if group_size != 2:
        return Start(None, None)
    generator = torch.Generator().manual_seed(seed)
    roles = state_roles(latent_dim // 2, periods, sizes.context, generator)
    return Start(
        rotation_start(roles, n_inputs, precision),
        filter_bank(roles, generator, precision, fixed_seasons),
    )


@torch.no_grad()
def set_bank(model: SVAE, bank: FilterBank) -> None:
    """Start encoder and decoder of a one-variable model as a filter bank."""
    encoder, decoder = model.encoder, model.decoder
    encoder.raw_weight.copy_(inverse_softplus(bank.precision)[None])
    encoder.input_scale.copy_(bank.input_scale[None])
    decoder.emission_matrix.copy_(bank.emission[None])


def ridge(
    values: Array,
    mask: NDArray[np.bool_],
    inputs: Array,
    keep: NDArray[np.bool_] | None = None,
) -> Array:
    """Ridge regression of each variable on the inputs, beside a line in time.

    Parameters
    ----------
    values, mask : ndarray (B, T, F)
        Model units.
    inputs : ndarray (B, T, U)
    keep : bool ndarray (F,), optional
        Variables to fit; the others get no effect. All by default.

    Returns
    -------
    ndarray (F, U)
        Where the effect of the inputs starts.
    """
    n_series, n_steps, n_inputs = inputs.shape
    line = np.linspace(-1.0, 1.0, n_steps)[:, None]
    free = np.broadcast_to(
        np.concatenate([np.ones_like(line), line], axis=1), (n_series, n_steps, 2)
    )
    design = np.concatenate([inputs, free], axis=-1)
    penalty = np.diag([_RIDGE] * n_inputs + [1e-8 * n_steps] * 2)
    matrix = np.zeros((values.shape[-1], n_inputs))
    for f in np.flatnonzero(np.ones(values.shape[-1]) if keep is None else keep):
        rows, target = design[mask[..., f]], values[..., f][mask[..., f]]
        matrix[f] = np.linalg.solve(rows.T @ rows + penalty, rows.T @ target)[:n_inputs]
    return matrix


def known_mean(values: Array, axis: int) -> Array:
    """Mean of what is known along an axis; NaN where nothing is."""
    count = np.isfinite(values).sum(axis)
    return np.where(count, np.nansum(values, axis) / np.maximum(count, 1), np.nan)
