"""Building the model where the data suggest to begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.building import (
    STRENGTH,
    Sizes,
    Spread,
    Start,
    detect_periods,
    follow_lines,
    measure_spread,
    ridge,
    set_bank,
    start_model,
)
from tsvae.estimation.fit_windows import FitWindows, history_rows
from tsvae.estimation.history_filling import Shown
from tsvae.estimation.moments import has_many_windows, variable_weights, window_moments
from tsvae.estimation.seasons import has_effect, has_seasons
from tsvae.estimation.settings import Parameters, is_real, starts_fitted
from tsvae.estimation.state_windows import measure_errors, state_moments, state_windows
from tsvae.lds import LDSParameters
from tsvae.models import SVAE
from tsvae.models.fitted_start import fitted_start
from tsvae.models.own_couplings import common_coupling, own_couplings
from tsvae.models.response_fit import fit_responses
from tsvae.models.response_squares import response_rows, waves_of
from tsvae.models.start import PRECISION_START, StateRoles, state_roles, with_slopes
from tsvae.panel import Panel, seasonal_periods

__all__ = ["StartData", "build_at_start", "build_model", "given_periods", "input_effects"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SCALE_BOUNDS = (0.02, 0.5)
_SHORT = 8  # horizons that data must hold
_FEWEST_FUTURES = 3  # of steps that few windows know
_FURTHER = 4  # horizons
_LEAST_ERROR_SCALE = 1e-3  # beside the spread in a window
_OFTEN_SHARE = 0.5  # of a pattern that the data hold often


def given_periods(panel: Panel, params: Parameters) -> list[float]:
    """Seasonal periods given, or those of the time stamps' calendar."""
    wanted = params["seasonal_periods"]
    if wanted is None:
        return []
    if isinstance(wanted, str):
        return seasonal_periods(panel.index)
    periods = [float(p) for p in wanted]
    if any(not p >= 2 for p in periods):
        raise ValueError(
            f"seasonal_periods={wanted!r} must be at least 2 steps each; leave shorter ones out."
        )
    return periods


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


@dataclass(frozen=True)
class StartData:
    """What a start is chosen from.

    Attributes
    ----------
    values : ndarray (B, T, F)
        Model units, effects of inputs taken off, 0 where missing.
    mask : bool ndarray (B, T, F)
    shown : Shown
        The same with gaps filled as in the histories of forecasts.
    lengths : ndarray (B,)
    effects : ndarray (F, U) or None
        What was taken off.
    periods : list of float
        Seasons, in steps.
    """

    values: Array
    mask: Mask
    shown: Shown
    lengths: NDArray[np.int64]
    effects: Array | None
    periods: list[float]


def input_effects(
    values: Array, mask: Mask, inputs: Array | None, params: Parameters, seldom: Mask | None
) -> Array | None:
    """Effects of the inputs on each variable, ``(F, U)``; None without inputs.

    ``seldom``: inputs that are waves of seldom seen periods, if all are waves and to be tested. A
    variable whose steps follow these has the whole pattern. One whose steps follow the others has
    half of theirs: states learn such a pattern, too, and follow where it changes.
    """
    if inputs is None or not is_real(params):
        return None
    if seldom is None:
        return ridge(values, mask, inputs)
    whole = has_effect(values, mask, inputs[..., seldom])
    effects = ridge(values, mask, inputs, whole)
    often = inputs[..., ~seldom]
    half = ~whole & has_effect(values, mask, often)
    effects[:, ~seldom] += _OFTEN_SHARE * ridge(values, mask, often, half)
    return effects


class Built(NamedTuple):
    """A model at its start, whether its forecasts are the last value, and errors to expect."""

    model: SVAE
    persists: bool
    errors: Array | None  # (H,), squared, in units of each variable's scale


def build_at_start(
    data: StartData,
    sizes: Sizes,
    settings: dict[str, Any],
    params: Parameters,
    fixed_seasons: bool,
) -> Built:
    """Build the model where the data suggest to begin; ``settings`` take the noise level."""
    spread = measure_spread(data.values, data.mask, sizes)
    if settings["level_entries"]:
        share = float(np.median(spread.noise / spread.window))
        settings["scale_start"] = float(np.clip(share, *_SCALE_BOUNDS))
    start = _choose_start(data, spread, sizes, settings, params, fixed_seasons)
    if start.noise_scale is not None:
        settings["scale_start"] = start.noise_scale
    model = build_model(settings, start.dynamics, start.strength)
    if start.bank is not None and settings["channelwise"] and settings["potential"] == "diagonal":
        set_bank(model, start.bank)
    with torch.no_grad():
        if settings["level_entries"] or start.scale is not None:
            scale = spread.window if start.scale is None else start.scale
            model.log_scale.copy_(torch.as_tensor(np.log(scale)))
        if data.effects is not None:
            model.covariate_matrix.copy_(torch.as_tensor(data.effects))
        if start.coupling is not None and model.coupling is not None:
            model.coupling.matrix.copy_(start.coupling)
            model.coupling.bridged.copy_(torch.as_tensor(start.bridged))
    return Built(model, start.persists, start.errors)


def _choose_start(
    data: StartData,
    spread: Spread,
    sizes: Sizes,
    settings: dict[str, Any],
    params: Parameters,
    fixed_seasons: bool,
) -> Start:
    """Fit the start to the moments of windows where the model is linear, else choose roles."""
    periods = [p for p in data.periods if p <= sizes.context]
    if not periods and isinstance(params["seasonal_periods"], str):  # "auto"
        periods = detect_periods(data.values, data.mask, sizes.context)
    if starts_fitted(params, settings["n_features"]):
        generator = torch.Generator().manual_seed(settings["seed"])
        roles = state_roles(settings["latent_dim"] // 2, periods, sizes.context, generator)
        return fit_start(data, spread, roles, sizes, periods)
    precision = PRECISION_START
    if settings["channelwise"] and settings["level_entries"]:
        precision = settings["scale_start"] ** -2.0
    return start_model(
        settings["latent_dim"],
        params["group_size"],
        periods,
        sizes,
        settings["seed"],
        0 if settings["channelwise"] else settings["n_inputs"],
        precision,
        fixed_seasons,
    )


def fit_start(
    data: StartData,
    spread: Spread,
    roles: StateRoles,
    sizes: Sizes,
    periods: Sequence[float] = (),
) -> Start:
    """Start that forecasts as well as responses fitted to the moments of all windows.

    Parameters
    ----------
    data : StartData
    spread : Spread
    roles : StateRoles
        Where the fit begins.
    sizes : Sizes
    periods : sequence of float
        Seasons, in steps: forecasts are fitted a whole season ahead where the data allow.

    Returns
    -------
    Start
    """
    mask, lengths = data.mask, data.lengths
    ahead = _steps_ahead(lengths, sizes, periods)
    weight = variable_weights(lengths, spread.noise, sizes, ahead.inside)
    bridged = follow_lines(data.values, mask, spread)
    windows = FitWindows(data.shown, mask, lengths, sizes, ahead.all, bridged, ahead.inside)
    fitted = fit_responses(
        window_moments(windows, weight),
        with_slopes(roles),
        sizes.horizon,
        may_persist=not has_seasons(data.values, mask, list(periods)),
        asked=ahead.asked,
    )
    waves = waves_of(fitted.angles, fitted.radius, fitted.gain, windows.n_past, ahead.all)
    seen = state_windows(windows, waves.past)
    if windows.n_features > 1 and has_many_windows(lengths, sizes, ahead.inside):
        own = own_couplings(fitted, state_moments(seen, windows, weight))
    else:
        own = common_coupling(fitted, windows.n_features)
    rows = response_rows(waves.ahead, fitted.amplitude)
    errors = measure_errors(seen, rows + rows @ own.matrices)
    # Steps that are not asked for say nothing about how errors grow over the others.
    fitted = fitted._replace(errors=_at_least(own.errors, errors, weight)[: ahead.asked])
    start = fitted_start(fitted, own.matrices)
    return Start(
        start.dynamics,
        start.bank,
        _error_scale(errors[:, : ahead.asked], weight, spread.noise),
        start.noise_scale,
        max(float(mask.sum()), STRENGTH),
        start.coupling,
        bridged,
        bool(np.isinf(fitted.objective.penalty.size)),
        fitted.errors.numpy(),
    )


class _Ahead(NamedTuple):
    """Steps ahead that responses are fitted to."""

    inside: int  # inside the data in every window
    asked: int  # known in some windows, and asked for
    all: int  # known in some windows


def _steps_ahead(lengths: NDArray[np.int64], sizes: Sizes, periods: Sequence[float]) -> _Ahead:
    """Choose how far ahead to fit: a bank that is fitted to few steps bends off after them.

    Steps that are not asked for take part where the data hold no history with them side by side,
    and few directions are told by the others.
    """
    longest = int(lengths.max())
    season = min(int(np.ceil(max(periods, default=1.0))), longest // _SHORT)
    inside = max(sizes.horizon, season)
    asked = max(inside, min(sizes.asked, longest // _FEWEST_FUTURES))
    further = max(asked, min(_FURTHER * sizes.asked, longest // _FEWEST_FUTURES))
    if lengths.sum() >= history_rows(sizes) + further:
        further = asked
    return _Ahead(inside, asked, further)


def _at_least(expected: Tensor, errors: np.ndarray, weight: np.ndarray) -> Tensor:
    """Cross-validated errors, but none below those in the data: moments of pairs may give such."""
    pooled = torch.as_tensor(_known_mean(errors * weight[:, None], axis=0)).nan_to_num()
    return torch.maximum(expected, pooled)


def _error_scale(errors: np.ndarray, weight: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Size of each variable's errors beside the pooled ones that the start has as variance."""
    pooled = _known_mean(errors * weight[:, None], axis=0)
    ratio = _known_mean(errors / np.maximum(pooled, np.finfo(float).tiny), axis=1)
    floor = _LEAST_ERROR_SCALE * spread
    return np.where(np.isfinite(ratio), np.maximum(np.sqrt(np.abs(ratio)), floor), spread)


def _known_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is known along an axis; NaN where nothing is."""
    count = np.isfinite(values).sum(axis)
    return np.where(count, np.nansum(values, axis) / np.maximum(count, 1), np.nan)
