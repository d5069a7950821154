"""Forecasts from many origins at once, and how good they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.estimation.engine import Engine
from tsvae.estimation.forecasting import continue_history
from tsvae.estimation.predictions import Predictions
from tsvae.panel import Panel, rolling_origins

__all__ = ["OriginForecast", "forecast_origins", "origin_crps"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OriginForecast:
    """Predictions for the steps after each origin.

    Attributes
    ----------
    predictions : Predictions
        Of all series from the first origin, then from the second, ...
    n_origins : int
    """

    predictions: Predictions
    n_origins: int

    def mean(self) -> Array:
        """Means ``(O, B, H, F)``."""
        return self._by_origin(self.predictions.mean())

    def quantiles(self, levels: Array) -> Array:
        """Quantiles ``(O, B, H, F, Q)``."""
        return self._by_origin(self.predictions.quantiles(levels))

    def _by_origin(self, flat: Array) -> Array:
        return flat.reshape(self.n_origins, -1, *flat.shape[1:])


def forecast_origins(
    engine: Engine, panel: Panel, origins: NDArray[np.int64], horizon: int
) -> OriginForecast:
    """Forecast every series from every origin, batched.

    Parameters
    ----------
    engine : Engine
    panel : Panel
    origins : ndarray of int (O,)
        Rows of history before each forecast.
    horizon : int

    Returns
    -------
    OriginForecast
    """
    n_series = panel.n_series
    ends = np.repeat(np.asarray(origins, dtype=np.int64), n_series)
    series = np.tile(np.arange(n_series), len(origins))
    histories = engine.histories(panel, None, series, ends, horizon)
    return OriginForecast(engine.forecast(histories, horizon), len(origins))


class _Scored(NamedTuple):
    series: NDArray[np.int64]
    origin: NDArray[np.int64]


def origin_crps(engine: Engine, history: Panel, panel: Panel, context: int, horizon: int) -> float:
    """Mean CRPS over rolling origins in model units.

    Rows that continue the history are forecast from it, every ``horizon`` rows. Other data are
    new series: their first rows are history, their last ``horizon`` steps are always scored.

    Parameters
    ----------
    engine : Engine
    history : Panel
        Kept training rows.
    panel : Panel
        Data to score.
    context : int
        Rows of history at most.
    horizon : int

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If nothing can be scored.
    """
    joined = continue_history(history, panel, arrays=True)
    if joined is not None:
        first = history.lengths
        scored = _every(first, joined.lengths, horizon)
        data = joined
    else:
        data = panel
        scored = _inside(panel, horizon)
    histories = engine.histories(data, None, scored.series, scored.origin, horizon)
    seen = histories.mask.any(axis=(1, 2))
    truth, mask = _truth(engine, data, scored, horizon)
    mask = mask & np.asarray(seen)[:, None, None]
    if not mask.any():
        raise ValueError(
            f"X has no observed value to score after its history ({panel.describe()}, horizon "
            f"{horizon}); give more rows, or fit with a shorter horizon."
        )
    return engine.forecast(histories, horizon).crps(truth, mask)


def _every(first: NDArray[np.int64], last: NDArray[np.int64], horizon: int) -> _Scored:
    """Origins ``first, first + horizon, ...`` below ``last``, series by series."""
    counts = np.maximum(-(-(last - first) // horizon), 0)
    series = np.repeat(np.arange(len(first)), counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return _Scored(series, first[series] + number * horizon)


def _inside(panel: Panel, horizon: int) -> _Scored:
    """Origins inside new series: from the end backwards, each with some history."""
    shortest = int(panel.lengths.min())
    steps = min(horizon, max(shortest // 2, 1))
    min_history = max(1, min(shortest - steps, horizon))
    found = rolling_origins(panel.lengths, steps, step=horizon, min_history=min_history)
    return _Scored(np.asarray(found.series), np.asarray(found.origin))


def _truth(
    engine: Engine, panel: Panel, scored: _Scored, horizon: int
) -> tuple[Array, NDArray[np.bool_]]:
    values = engine.scaler.forward(panel.values, panel.mask, panel.variables)
    steps = scored.origin[:, None] + np.arange(horizon)
    inside = steps < panel.n_steps
    at = (scored.series[:, None], np.minimum(steps, panel.n_steps - 1))
    return values[at], panel.mask[at] & inside[..., None]
