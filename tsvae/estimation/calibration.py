"""How much wider forecasts must be than the training data suggest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tsvae.estimation.building import Sizes
from tsvae.estimation.engine import Engine
from tsvae.estimation.reading import Problem

__all__ = ["measure_widening", "rows_to_hold_back"]

Array = NDArray[np.float64]

_SHARE = 0.1  # of the rows held back
_FEWEST_BLOCKS = 2  # horizons that the rows held back must hold
_PRIOR_BLOCKS = 1.0  # weight of "no widening", in horizons
_BOUNDS = (1.0, 2.0)


def rows_to_hold_back(lengths: NDArray[np.int64], sizes: Sizes) -> int:
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


def measure_widening(engine: Engine, problem: Problem, rows: int, horizon: int) -> Array:
    """Root mean square of standardised forecast errors on the last rows of every series.

    Forecasts start every half horizon inside the rows held back, so that all lie after what the
    model has learned from. The mean is taken over horizons and shrunk towards 1 by the weight of
    one horizon; forecasts are never narrowed.

    Parameters
    ----------
    engine : Engine
    problem : Problem
    rows : int
        Rows held back at the end of each series.
    horizon : int

    Returns
    -------
    ndarray (F,)
        Between 1 and 2.
    """
    panel = problem.target
    back = np.arange(rows, horizon - 1, -max(1, horizon // 2))
    ends = (panel.lengths[:, None] - back).ravel()
    series = np.repeat(np.arange(panel.n_series), len(back))
    histories = engine.histories(panel, problem.covariates, series, ends, horizon)
    predictions = engine.forecast(histories, horizon)
    mean = np.concatenate([part.mean.numpy() for part in predictions.parts])
    scale = np.concatenate([part.scale.numpy() for part in predictions.parts])
    values = engine.scaler.forward(panel.values, panel.mask, panel.variables)
    at = (series[:, None], ends[:, None] + np.arange(horizon))
    with_history = np.asarray(histories.mask.any(axis=(1, 2)))
    seen = panel.mask[at] & with_history[:, None, None]
    squares = np.where(seen, ((values[at] - mean) / scale) ** 2, 0.0).sum((0, 1))
    counts = seen.sum((0, 1))
    blocks = counts / horizon / 2.0  # forecasts overlap by half
    mean_square = squares / counts.clip(1)
    shrunk = (_PRIOR_BLOCKS + blocks * mean_square) / (_PRIOR_BLOCKS + blocks)
    return np.clip(np.sqrt(shrunk), *_BOUNDS)
