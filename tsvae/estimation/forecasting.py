"""What the forecaster's methods compute, between reading containers and writing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsvae.estimation.checking import check_weights
from tsvae.estimation.engine import Engine, Histories, Predictions, Smoothed
from tsvae.estimation.reading import Problem
from tsvae.panel import Panel, PanelIndex, RowPositions, concat

__all__ = [
    "RowForecast",
    "continue_history",
    "forecast_rows",
    "forecast_steps",
    "history_windows",
]

Array = NDArray[np.float64]


def continue_history(history: Panel, panel: Panel, *, arrays: bool = False) -> Panel | None:
    """History with the rows of ``panel`` appended if they continue it, else None.

    Parameters
    ----------
    history, panel : Panel
    arrays : bool, default=False
        Take rows of plain arrays of one series for a continuation.
    """
    follows = history.index.continues(panel.index)
    if arrays and not panel.index.has_stamps and not history.index.has_stamps:
        follows = panel.n_series == 1 and history.n_series == 1
    return concat(history, panel) if follows else None


def require_observed(panel: Panel, name: str = "the history") -> None:
    """Raise ValueError if a series of a history has no observed value."""
    empty = ~panel.mask.any(axis=(1, 2))
    if empty.any():
        b = int(np.flatnonzero(empty)[0])
        label = "" if panel.index.series is None else f" (series {panel.index.series[b]!r})"
        raise ValueError(
            f"{name}{label} has no observed value, so there is nothing to forecast from; give at "
            "least one observed row."
        )


def history_windows(
    engine: Engine, problem: Problem, horizon: int, ends: NDArray[np.int64] | None = None
) -> Histories:
    """Last rows of every series (before ``ends``, if given)."""
    panel = problem.target
    ends = panel.lengths if ends is None else ends
    series = np.arange(panel.n_series)
    return engine.histories(panel, problem.covariates, series, ends, horizon)


@dataclass(frozen=True)
class StepForecast:
    """Predictions for the next steps of every series.

    Attributes
    ----------
    predictions : Predictions
    index : PanelIndex
        Of the future rows.
    problem : Problem
        The history.
    horizon : int
    """

    predictions: Predictions
    index: PanelIndex
    problem: Problem
    horizon: int

    def mean(self) -> Array:
        """Means ``(B, H, F)``."""
        return self.predictions.mean()

    def quantiles(self, levels: Array) -> Array:
        """Quantiles ``(B, H, F, Q)``."""
        return self.predictions.quantiles(levels)

    def place_paths(self, paths: Array) -> Array:
        """Sample paths ``(S, B, H, F)`` as they are."""
        return paths


def forecast_steps(engine: Engine, problem: Problem, horizon: int) -> StepForecast:
    """Distributions of the next ``horizon`` rows of every series."""
    require_observed(problem.target)
    index = problem.target.index.future(horizon)
    predictions = engine.forecast(history_windows(engine, problem, horizon), horizon)
    return StepForecast(predictions, index, problem, horizon)


@dataclass(frozen=True)
class RowForecast:
    """Predictions for given rows: smoothed inside the history, forecast after it.

    Attributes
    ----------
    rows, index : PanelIndex
        Of the rows asked for, with the variables of the covariates and of the target.
    series, step : ndarray (N,)
        Place of each row on the history's grid.
    lengths : ndarray (B,)
        Rows of the history.
    smoothed : Smoothed or None
    ahead : Predictions or None
    problem : Problem
        History with the covariates extended to the last row.
    horizon : int
    """

    rows: PanelIndex
    index: PanelIndex
    series: NDArray[np.int64]
    step: NDArray[np.int64]
    lengths: NDArray[np.int64]
    smoothed: Smoothed | None
    ahead: Predictions | None
    problem: Problem
    horizon: int

    def mean(self) -> Array:
        """Means on the grid of the rows ``(B, T, F)``."""
        return self.place(
            None if self.smoothed is None else self.smoothed.mean(),
            None if self.ahead is None else self.ahead.mean(),
        )

    def quantiles(self, levels: Array) -> Array:
        """Quantiles on the grid of the rows ``(B, T, F, Q)``."""
        return self.place(
            None if self.smoothed is None else self.smoothed.quantiles(levels),
            None if self.ahead is None else self.ahead.quantiles(levels),
        )

    def place_paths(self, paths: Array) -> Array:
        """Put sample paths ``(S, B, H, F)`` on the grid of the rows."""
        return np.stack([self.place(None, path) for path in paths])

    def place(self, inside: Array | None, ahead: Array | None) -> Array:
        """Pick values of the asked rows out of grid values ``(B, T, ...)`` and ``(B, H, ...)``."""
        example = inside if inside is not None else ahead
        assert example is not None
        shape = (self.rows.n_series, max(self.rows.n_steps, 1), *example.shape[2:])
        out = np.zeros(shape)
        known = self.step < self.lengths[self.series]
        row_series, row_step = self.rows.row_positions()
        if inside is not None:
            picked = inside[self.series[known], self.step[known]]
            out[row_series[known], row_step[known]] = picked
        if ahead is not None:
            later = ~known
            beyond = self.step[later] - self.lengths[self.series[later]]
            out[row_series[later], row_step[later]] = ahead[self.series[later], beyond]
        return out


def forecast_rows(
    engine: Engine,
    history: Problem,
    rows: Panel,
    index: PanelIndex,
    *,
    only_ahead: bool = False,
) -> RowForecast:
    """Predict the target at the rows of ``rows`` (covariates) beside or after a history.

    Parameters
    ----------
    engine : Engine
    history : Problem
    rows : Panel
        Covariates; rows without stamps follow the history.
    index : PanelIndex
        Rows of ``rows`` with the variables of the target.
    only_ahead : bool, default=False
        Rows inside the history are refused.

    Raises
    ------
    ValueError
        If a row lies before the history (or inside it, with ``only_ahead``).
    """
    panel = history.target
    series, step = _locate(panel, rows)
    require_observed(panel)
    lengths = panel.lengths
    if only_ahead and (step < lengths[series]).any():
        row = int(np.flatnonzero(step < lengths[series])[0])
        raise ValueError(
            f"Row {row} of X lies inside the history ({panel.index.describe()}); sample gives "
            "paths of later rows only."
        )
    horizon = int((step + 1 - lengths[series]).max(initial=0))
    extended = _extend(history, rows, series, step, horizon)
    ahead = None
    if horizon > 0:
        ahead = engine.forecast(history_windows(engine, extended, horizon), horizon)
    smoothed = None
    if (step < lengths[series]).any():
        smoothed = engine.smooth(panel, history.covariates)
    return RowForecast(
        rows.index, index, series, step, lengths, smoothed, ahead, extended, max(horizon, 1)
    )


def _locate(panel: Panel, rows: Panel) -> RowPositions:
    """Places of rows on the history's grid; those before it are refused."""
    found = panel.index.positions(rows.index)
    early = np.flatnonzero(found.step < 0)
    if len(early):
        raise ValueError(
            f"Row {int(early[0])} of X lies before the first row of the history "
            f"({panel.index.describe()}); ask for later rows, or give an earlier history=(X, y)."
        )
    return found


def latent_rows(engine: Engine, history: Problem, rows: Panel) -> Array:
    """Latent means at the rows of ``rows``: smoothed inside the history, forecast after it."""
    panel = history.target
    series, step = _locate(panel, rows)
    horizon = max(int((step + 1 - panel.lengths[series]).max(initial=0)), 0)
    extended = _extend(history, rows, series, step, horizon)
    pad = [(0, 0), (0, horizon), (0, 0)]
    longer = Panel(np.pad(panel.values, pad), np.pad(panel.mask, pad), panel.index)
    latent = engine.latent_means(longer, extended.covariates)
    out = np.zeros((rows.n_series, max(rows.index.n_steps, 1), latent.shape[-1]))
    out[rows.index.row_positions()] = latent[series, step]
    return out


def as_pair(history: Any) -> tuple[Any, Any]:
    """``history=(X, y)`` or TypeError."""
    if not isinstance(history, tuple) or len(history) != 2:
        raise TypeError(
            f"history must be a tuple (X, y) of covariates and target, got "
            f"{type(history).__name__}."
        )
    return history


def masked_r2(truth: Array, predicted: Array, seen: NDArray[np.bool_], weight: Any) -> float:
    """R2 over observed entries, averaged over variables."""
    from sklearn.metrics import r2_score  # slow to import

    scores = []
    weight = check_weights(weight, len(truth))
    for f in range(truth.shape[-1]):
        rows = seen[:, f]
        if rows.sum() >= 2:
            own = None if weight is None else weight[rows]
            scores.append(r2_score(truth[rows, f], predicted[rows, f], sample_weight=own))
    if not scores:
        raise ValueError("R2 needs at least two observed values of y; give more rows.")
    return float(np.mean(scores))


def _extend(
    history: Problem,
    rows: Panel,
    series: NDArray[np.int64],
    step: NDArray[np.int64],
    horizon: int,
) -> Problem:
    """History whose covariates reach to the last asked row; steps not listed stay unknown."""
    known = history.covariates
    assert known is not None
    pad = [(0, 0), (0, max(horizon, 0)), (0, 0)]
    values, mask = np.pad(known.values, pad), np.pad(known.mask, pad)
    later = step >= history.target.lengths[series]
    at = (series[later], step[later])
    values[at] = rows.index.take_rows(rows.values)[later]
    mask[at] = rows.index.take_rows(rows.mask)[later]
    return Problem(history.target, Panel(values, mask, known.index))
