"""How much wider forecasts must be, measured on rows that the model has not learned from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from tsvae.estimation.building import Sizes
from tsvae.estimation.engine import Engine
from tsvae.estimation.reading import Problem
from tsvae.estimation.spread import KNOTS, step_centres, step_groups
from tsvae.metrics._conformal import conformal_quantile

__all__ = ["HeldBack", "measure_factors", "rows_to_hold_back", "without_last"]

Array = NDArray[np.float64]
Int = NDArray[np.int64]
Mask = NDArray[np.bool_]

_SHARE = 0.1  # of the rows held back
_FEWEST_BLOCKS = 2  # horizons that the rows held back must hold
_OVERLAP = 8  # forecasts start so many times in a horizon
_PRIOR = 10.0  # horizons behind a factor of 1
_BOUNDS = (0.5, 4.0)
_MIDDLE = len(KNOTS) // 2
_TINY = 1e-12


class HeldBack(NamedTuple):
    """Factors of distances from the median, ``(K, Q)``, at groups of steps ``(K,)`` and knots."""

    steps: Array
    factors: Array


def rows_to_hold_back(lengths: Int, sizes: Sizes) -> int:
    """Rows at the end of each series that calibration is measured on.

    Parameters
    ----------
    lengths : ndarray (B,)
    sizes : Sizes

    Returns
    -------
    int
        A tenth of the shortest series, at least two horizons; 0 if that would leave less than
        two windows' worth of rows to learn from.

    Examples
    --------
    >>> from tsvae.estimation.building import resolve_sizes
    >>> rows_to_hold_back(np.array([8640]), resolve_sizes(8640, 512, 96))
    864
    >>> rows_to_hold_back(np.array([100]), resolve_sizes(100, 512, 24))
    0
    """
    shortest = int(lengths.min())
    rows = max(int(_SHARE * shortest), _FEWEST_BLOCKS * sizes.horizon)
    enough = shortest - rows >= max(sizes.window, 4 * rows)
    return rows if enough else 0


def without_last(problem: Problem, rows: int) -> Problem:
    """Leave the last ``rows`` rows of each series out."""
    known = problem.covariates
    return Problem(
        problem.target.slice_time(None, -rows),
        None if known is None else known.slice_time(None, problem.target.lengths - rows),
    )


def measure_factors(engine: Engine, problem: Problem, rows: int) -> HeldBack:
    """Conformal quantiles of errors over half-widths, for each group of steps and each level.

    An error is measured beside the distance of the interval's bound from the median on the side
    of the truth. Scores are pooled over series and variables; forecasts that overlap do not count
    as further evidence. Factors are shrunk to 1 by the weight of ten horizons.

    Parameters
    ----------
    engine : Engine
        Of a model that has not seen the last ``rows`` rows.
    problem : Problem
        All rows.
    rows : int

    Returns
    -------
    HeldBack
    """
    horizon, panel = engine.sizes.horizon, problem.target
    back = np.arange(rows, horizon - 1, -max(1, horizon // _OVERLAP))
    ends = (panel.lengths[:, None] - back).ravel()
    series = np.repeat(np.arange(panel.n_series), len(back))
    histories = engine.histories(panel, problem.covariates, series, ends, horizon)
    parts = engine.forecast(histories, horizon).parts
    levels = torch.as_tensor(ndtr(KNOTS))
    bounds = np.concatenate([part.quantiles(levels).double().numpy() for part in parts])
    values = engine.scaler.forward(panel.values, panel.mask, panel.variables)
    at = (series[:, None], ends[:, None] + np.arange(horizon))
    seen = panel.mask[at] & np.asarray(histories.mask.any(axis=1))[:, None]
    horizons = rows / horizon * panel.n_series
    factors = [
        _group_factors(values[at][:, group], bounds[:, group], seen[:, group], horizons)
        for group in step_groups(horizon)
    ]
    return HeldBack(step_centres(horizon), np.array(factors))


def _group_factors(values: Array, bounds: Array, seen: Mask, horizons: float) -> Array:
    """Factors ``(Q,)``, alike on both sides, from truth (N, h, F) and quantiles (N, h, F, Q)."""
    factors = np.ones(len(KNOTS))
    if not seen.any():
        return factors
    distance = values[seen] - bounds[seen][:, _MIDDLE]
    widths = np.maximum(np.abs(bounds[seen] - bounds[seen][:, [_MIDDLE]]), _TINY)
    n_features = values.shape[-1]
    evidence = horizons * n_features**0.5
    weight = evidence / (evidence + _PRIOR)
    for knot in range(_MIDDLE + 1, len(KNOTS)):
        width = np.where(distance > 0, widths[:, knot], widths[:, -1 - knot])
        coverage = 2.0 * float(ndtr(KNOTS[knot])) - 1.0
        found = conformal_quantile(np.abs(distance) / width, coverage, horizons * n_features)
        factor = np.clip(found, *_BOUNDS) ** weight
        factors[[knot, -1 - knot]] = factor
    return factors
