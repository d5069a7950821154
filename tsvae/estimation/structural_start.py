"""A structural model as the start, where the data are few and it foresees more than a bank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.building import STRENGTH, Built, Sizes, build_model, known_mean
from tsvae.estimation.end_states import EndStates, Phases, find_end_states
from tsvae.lds import make_parameters
from tsvae.models.start import seasonal_angles
from tsvae.models.structural import Structural, fit_structural

__all__ = ["StructuralStart", "fit_structural_start", "structural_model"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MOST_ROWS = 600  # that the likelihood sees: the last ones
_MOST_CHAINS = 64  # or one of each variable
_MOST_STEPS = 600  # of chains with gaps of their own, that dynamics are fitted to
_ROWS_THEN = 300
_FEWEST_ROWS = 8  # observed, of a chain
_MOST_WAVES = 12
_LEAST_NOISE = 1e-8  # of a state, in squared units
_LEAST_STEP = 1e-9  # beside the data's spread: a constant variable


class StructuralStart(NamedTuple):
    """A fitted structural model in units of the estimator's data.

    Attributes
    ----------
    fitted : Structural
    scale : ndarray (F,)
        Standard deviation of one step of each variable: the unit of the model.
    unit : float
        The same beside the observation noise.
    pooled : ndarray (H,)
        Mean squared errors ahead of all variables, weighted, in units of the data.
    errors : ndarray (H,)
        Mean squared errors ahead, in units of ``scale``.
    end : EndStates
        ``effects`` in units of the data.
    """

    fitted: Structural
    scale: Array
    unit: float
    pooled: Array
    errors: Array
    end: EndStates


class _Chains(NamedTuple):
    """Single variables of single series, from their first observed values."""

    x: Tensor  # (N, T)
    mask: Tensor
    series: NDArray[np.int64]  # (N,)
    variable: Tensor  # (N,), among those that move
    moving: NDArray[np.bool_]  # (F,)
    step: Array  # (F,), unit of x


def fit_structural_start(
    values: Array,
    mask: Mask,
    periods: Sequence[float],
    weight: Array,
    sizes: Sizes,
    most_states: int,
    phases: Phases | None = None,
) -> StructuralStart | None:
    """Fit a structural model to the last rows.

    Parameters
    ----------
    values, mask : ndarray (B, T, F)
        Model units, no seasonal pattern taken off.
    periods : sequence of float
        Seasons that may be there, in steps.
    weight : ndarray (F,)
        Of each variable's squared errors.
    sizes : Sizes
    most_states : int
        D at most.
    phases : Phases, optional
        Of waves that the model has as inputs, for each series.

    Returns
    -------
    StructuralStart or None
        None if there are too few rows, or nothing moves.
    """
    chains = _chains(values, mask)
    if chains is None:
        return None
    angles = seasonal_angles(periods, chains.x.shape[1] / 2.0, _MOST_WAVES)
    angles = angles[: min(_MOST_WAVES, max(most_states - 2, 0) // 2)]
    some = _affordable(chains)
    fitted = fit_structural(some.x, some.mask, some.variable, angles)
    fitted = fitted.with_noise_of(chains.x, chains.mask, chains.variable)
    with torch.no_grad():
        own = _errors(fitted, chains, sizes)
    weight = (weight * np.square(chains.step))[chains.moving]
    n_rows = float(chains.mask.sum())
    wider = (n_rows + fitted.n_parameters) / max(n_rows - fitted.n_parameters, 1.0)
    noise = fitted.variance.numpy()
    system = fitted.system
    unit = math.sqrt(1.0 + float(system.emission.square() @ system.noise))
    scale = np.ones(len(chains.step))
    scale[chains.moving] = np.sqrt(noise) * chains.step[chains.moving] * unit
    errors = wider * known_mean(own / (noise * unit**2)[:, None], axis=0)
    pooled = wider * chains.moving.mean() * known_mean(own * weight[:, None], axis=0)
    end = _end(fitted, chains, phases, sizes.context)
    return StructuralStart(fitted, scale, unit, pooled, errors, end)


def _end(fitted: Structural, chains: _Chains, phases: Phases | None, memory: int) -> EndStates:
    """Take season and slope from the end of the data."""
    if phases is not None:
        phases = phases._replace(end=phases.end[chains.series])
    found = find_end_states(fitted, chains.x, chains.mask, chains.variable.numpy(), phases, memory)
    if not chains.moving.all():  # variables without movement have no slope
        found = found.without_slope()
    if found.effects is None:
        return found
    effects = np.zeros((len(chains.step), found.effects.shape[1]))
    effects[chains.moving] = found.effects * chains.step[chains.moving, None]
    return found._replace(effects=effects)


def _chains(values: Array, mask: Mask) -> _Chains | None:
    """Chains with rows enough, of variables that move."""
    values, mask = values[:, -_MOST_ROWS:], mask[:, -_MOST_ROWS:]
    both = mask[:, 1:] & mask[:, :-1]
    steps = np.where(both, np.diff(values, axis=1), 0.0)
    step = np.sqrt(np.square(steps).sum((0, 1)) / both.sum((0, 1)).clip(1))
    spread = np.sqrt(np.square(np.where(mask, values, 0.0)).sum((0, 1)) / mask.sum((0, 1)).clip(1))
    enough = mask.sum(1) >= _FEWEST_ROWS
    used = enough & (step > _LEAST_STEP * np.maximum(spread, 1.0))
    if not used.any():
        return None
    series, variable = _some(used)
    x, seen = values[series, :, variable] / step[variable, None], mask[series, :, variable]
    first = np.take_along_axis(x, seen.argmax(1)[:, None], axis=1)
    moving = np.isin(np.arange(len(step)), variable)
    return _Chains(
        torch.from_numpy(np.where(seen, x - first, 0.0)),
        torch.from_numpy(seen),
        series,
        torch.from_numpy(moving.cumsum()[variable] - 1),
        moving,
        step,
    )


def _some(used: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Series and variable of chains out of ``(B, F)``, as many of each variable."""
    most = max(_MOST_CHAINS // used.shape[1], 1)
    chosen = []
    for f in range(used.shape[1]):
        series = np.flatnonzero(used[:, f])
        if len(series) > most:
            series = series[np.linspace(0, len(series) - 1, most).round().astype(int)]
        chosen += [(b, f) for b in series]
    return tuple(np.array(chosen).T)


def _affordable(chains: _Chains) -> _Chains:
    """Take the last rows of some chains where each has a covariance recursion of its own."""
    n_steps, n_patterns = chains.x.shape[1], len(torch.unique(chains.mask, dim=0))
    if n_patterns == 1 or n_patterns * n_steps <= _MOST_STEPS:
        return chains
    rows = min(n_steps, _ROWS_THEN)
    seen = chains.mask[:, -rows:]
    told = torch.nonzero(seen.sum(1) >= _FEWEST_ROWS).flatten()
    count = min(max(_MOST_STEPS // rows, 1), len(told))
    if not count:
        return chains
    some = told[torch.linspace(0, len(told) - 1, count).round().long()]
    x, seen = chains.x[some, -rows:], seen[some]
    first = x.gather(1, seen.int().argmax(1, keepdim=True))
    variable = torch.unique(chains.variable[some], return_inverse=True)[1]
    return chains._replace(
        x=torch.where(seen, x - first, 0.0),
        mask=seen,
        variable=variable,
        series=chains.series[some],
    )


def _errors(fitted: Structural, chains: _Chains, sizes: Sizes) -> Array:
    """Mean squares of each moving variable and step ahead, as from the last row.

    Early rows know less than the last one of slope and season: squares count in units of the
    variance that the model expects there, times that at the end.
    """
    x, mask, horizon = chains.x, chains.mask, sizes.horizon
    n_steps = x.shape[1]
    at = torch.arange(n_steps)
    enough = (mask.sum(1, keepdim=True) // 2).clamp_max(sizes.min_history)
    known = mask.cumsum(1) >= enough
    ahead = at[:, None] + 1 + torch.arange(horizon)
    inside = (ahead < n_steps) & known[..., None]
    ahead = ahead.clamp_max(n_steps - 1)
    counted = (inside & mask[:, ahead]).double()
    forecasts = fitted.forecasts(x, mask, horizon)
    end = forecasts.variance[torch.arange(len(x)), n_steps - 1 - mask.flip(1).int().argmax(1)]
    squares = (x[:, ahead] - forecasts.mean).square() / forecasts.variance * end[:, None]
    total = squares.new_zeros(2, int(chains.variable.max()) + 1, horizon)
    total[0].index_add_(0, chains.variable, (squares * counted).sum(1))
    total[1].index_add_(0, chains.variable, counted.sum(1))
    return np.asarray(total[0] / total[1])


def structural_model(
    start: StructuralStart, settings: dict[str, Any], effects: Array | None, n_observed: float
) -> Built:
    """Build the structural model as a structured VAE.

    Parameters
    ----------
    start : StructuralStart
    settings : dict
        Arguments of the model that a bank would be.
    effects : ndarray (F, U) or None
        Of inputs that the structural model knows nothing of.
    n_observed : float
        Values behind it.

    Returns
    -------
    Built
    """
    system, square, end = start.fitted.system, start.unit**2, start.end
    effects = effects if end.effects is None else end.effects
    initial = torch.minimum(system.initial, torch.from_numpy(end.variance))
    settings = _dense(settings, len(system.emission), 1.0 / start.unit)
    dynamics = make_parameters(
        system.transition.float(),
        torch.diag(system.noise / square + _LEAST_NOISE).float(),
        initial_mean=torch.from_numpy(end.mean / start.unit).float(),
        initial_covariance=torch.diag(initial / square + _LEAST_NOISE).float(),
    )
    model = build_model(settings, dynamics, max(n_observed, STRENGTH))
    with torch.no_grad():
        model.encoder.set_emission(system.emission[None], torch.tensor([1.0 / square]))
        model.decoder.emission_matrix.copy_(system.emission[None])
        model.log_scale.copy_(torch.as_tensor(np.log(start.scale)))
        if effects is not None:
            model.covariate_matrix.copy_(torch.as_tensor(effects))
    return Built(model, settings, True, start.errors)


def _dense(settings: dict[str, Any], latent_dim: int, noise: float) -> dict[str, Any]:
    """Arguments of one dense group whose states are the structural ones."""
    dynamics = {"group_size": None, "posterior": "point", "chart": "linear"}
    return {
        **settings,
        "latent_dim": latent_dim,
        "dynamics": {**settings["dynamics"], **dynamics},
        "potential": "dense",
        "level_entries": 1,
        "scale_start": noise,
        "coupled": False,
        "own_smoothing": False,
    }
