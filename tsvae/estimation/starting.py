"""Building the model where the data suggest to begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.building import (
    STRENGTH,
    Built,
    Sizes,
    Spread,
    Start,
    build_model,
    detect_periods,
    follow_lines,
    known_mean,
    measure_spread,
    set_bank,
    start_model,
)
from tsvae.estimation.fit_windows import FitWindows, history_rows
from tsvae.estimation.moments import has_many_windows, variable_weights, window_moments
from tsvae.estimation.pattern_loss import lost_covariances
from tsvae.estimation.seasons import has_seasons
from tsvae.estimation.settings import Parameters, starts_fitted
from tsvae.estimation.start_data import StartData
from tsvae.estimation.state_windows import measure_errors, state_moments, state_windows
from tsvae.estimation.structural_start import (
    StructuralStart,
    fit_structural_start,
    structural_model,
)
from tsvae.models import SVAE
from tsvae.models.fitted_start import fitted_start
from tsvae.models.own_couplings import common_coupling, own_couplings
from tsvae.models.response_fit import fit_responses
from tsvae.models.response_squares import response_rows, waves_of
from tsvae.models.start import PRECISION_START, StateRoles, state_roles, with_slopes

__all__ = ["build_at_start"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SCALE_BOUNDS = (0.02, 0.5)
_SHORT = 8  # horizons that data must hold
_FEWEST_FUTURES = 3  # of steps that few windows know
_FURTHER = 4  # horizons
_OPTIMISM = 1.1  # errors of a structural model beside those of a bank, chosen among far more
_LEAST_ERROR_SCALE = 1e-3  # beside the spread in a window


def build_at_start(
    data: StartData,
    sizes: Sizes,
    settings: dict[str, Any],
    params: Parameters,
    fixed_seasons: bool,
) -> Built:
    """Build the model where the data suggest to begin; ``settings`` as the estimator has them."""
    spread = measure_spread(data.values, data.mask, sizes)
    own = dict(settings)
    if settings["level_entries"]:
        share = float(np.median(spread.noise / spread.window))
        own["scale_start"] = float(np.clip(share, *_SCALE_BOUNDS))
    start = _choose_start(data, spread, sizes, own, params, fixed_seasons)
    structural = _choose_structural(data, spread, sizes, settings, params, start)
    if structural is not None:
        effects = data.effects if data.plain is None else None
        return structural_model(structural, settings, effects, float(data.mask.sum()))
    if start.noise_scale is not None:
        own["scale_start"] = start.noise_scale
    model = build_model(own, start.dynamics, start.strength)
    _set_start(model, start, spread, data.effects, own)
    return Built(model, own, start.persists, start.errors)


@torch.no_grad()
def _set_start(
    model: SVAE, start: Start, spread: Spread, effects: Array | None, settings: dict[str, Any]
) -> None:
    """Set what does not come with the dynamics."""
    if start.bank is not None and settings["channelwise"] and settings["potential"] == "diagonal":
        set_bank(model, start.bank)
    if settings["level_entries"] or start.scale is not None:
        scale = spread.window if start.scale is None else start.scale
        model.log_scale.copy_(torch.as_tensor(np.log(scale)))
    if effects is not None:
        model.covariate_matrix.copy_(torch.as_tensor(effects))
    if start.coupling is not None and model.coupling is not None:
        model.coupling.matrix.copy_(start.coupling)
        model.coupling.bridged.copy_(torch.as_tensor(start.bridged))


def _choose_structural(
    data: StartData,
    spread: Spread,
    sizes: Sizes,
    settings: dict[str, Any],
    params: Parameters,
    bank: Start,
) -> StructuralStart | None:
    """Fit a structural model where rows are few, and take it if it foresees more than the bank."""
    closed = settings["own_smoothing"] and settings["level_entries"] and params["max_epochs"] == 0
    if params["start"] != "auto" or not closed or bank.errors is None:
        return None
    if has_many_windows(data.lengths, sizes, sizes.horizon):
        return None
    values, periods, limit = data.values, [], _OPTIMISM
    if data.plain is not None:
        values, periods = data.plain, [p for p in data.periods if p <= sizes.context]
        if not (periods or data.dated):  # detected ones are many, and may come from nothing
            periods = _seasons(data, sizes, params)
            limit = 1.0 if periods else limit
    weight = variable_weights(data.lengths, spread.noise, sizes, sizes.horizon)
    found = fit_structural_start(
        values, data.mask, periods, weight, sizes, settings["latent_dim"], data.phases
    )
    if found is None:
        return None
    steps = min(len(found.pooled), len(bank.errors))
    ratio = found.pooled[:steps] / bank.errors[:steps]
    return found if np.nanmean(np.log(ratio)) < np.log(limit) else None


def _seasons(data: StartData, sizes: Sizes, params: Parameters) -> list[float]:
    """Periods that a history can show: named, or detected where there are none."""
    periods = [p for p in data.periods if p <= sizes.context]
    if not periods and isinstance(params["seasonal_periods"], str):  # "auto"
        periods = detect_periods(data.values, data.mask, sizes.context)
    return periods


def _choose_start(
    data: StartData,
    spread: Spread,
    sizes: Sizes,
    settings: dict[str, Any],
    params: Parameters,
    fixed_seasons: bool,
) -> Start:
    """Fit the start to the moments of windows where the model is linear, else choose roles."""
    periods = _seasons(data, sizes, params)
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
    lost = None
    if data.pattern is not None:
        lost = lost_covariances(data.values, mask, data.pattern, windows.n_past + ahead.all)
    fitted = fit_responses(
        window_moments(windows, weight, lost),
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
    pooled = torch.as_tensor(known_mean(errors * weight[:, None], axis=0)).nan_to_num()
    return torch.maximum(expected, pooled)


def _error_scale(errors: np.ndarray, weight: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Size of each variable's errors beside the pooled ones that the start has as variance."""
    pooled = known_mean(errors * weight[:, None], axis=0)
    ratio = known_mean(errors / np.maximum(pooled, np.finfo(float).tiny), axis=1)
    floor = _LEAST_ERROR_SCALE * spread
    return np.where(np.isfinite(ratio), np.maximum(np.sqrt(np.abs(ratio)), floor), spread)
