"""Where forecasts start, and how good they were in units of the training part's naive error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from _defaults_data import Series
from numpy.typing import NDArray

Array = NDArray[np.float64]

HELD_OUT = 0.1
MOST_ORIGINS = 100
COVERAGE = 0.9
LEVELS = [round(0.05 * k, 2) for k in range(1, 20)]


class Problem(NamedTuple):
    """One data set, cut in time."""

    series: Series
    n_train: int  # rows that methods are fitted on
    horizon: int
    step: int  # rows between origins

    @property
    def values(self) -> Array:
        """Rows x variables, NaN where missing."""
        return self.series.frame.to_numpy(dtype=float)

    @property
    def origins(self) -> NDArray[np.int64]:
        """Rows of history before each forecast."""
        last = len(self.series.frame) - self.horizon
        return np.arange(self.n_train, last + 1, self.step, dtype=np.int64)


class Forecasts(NamedTuple):
    """Forecasts from all origins."""

    mean: Array  # (O, H, F)
    quantiles: Array | None  # (O, H, F, Q) at LEVELS


@dataclass(frozen=True)
class Scores:
    """What one method reached on one data set; errors in units of the naive training error."""

    data: str
    method: str
    mase: float
    crps: float | None
    coverage: float | None
    fit_seconds: float
    forecast_seconds: float
    mase_by_variable: dict[str, float]


def make_problem(series: Series, *, inner: bool = False) -> Problem:
    """Hold the last tenth of the rows out; ``inner``: of the training part."""
    if inner:
        rows = _first_rows(len(series.frame))
        series = series._replace(frame=series.frame.iloc[:rows])
    n_rows = len(series.frame)
    n_train = _first_rows(n_rows)
    held = n_rows - n_train
    horizon = series.longest if series.longest <= held else max(held // 2, 1)
    return Problem(series, n_train, horizon, max(1, (held - horizon) // MOST_ORIGINS))


def _first_rows(n_rows: int) -> int:
    return n_rows - max(2, int(HELD_OUT * n_rows))


def naive_errors(values: Array, season: int) -> Array:
    """Mean absolute seasonal difference of each variable where both values are observed."""
    return np.nanmean(np.abs(values[season:] - values[:-season]), axis=0)


def score(
    problem: Problem, method: str, forecasts: Forecasts, fit_seconds: float, seconds: float
) -> Scores:
    """Compare with what happened, averaged over all observed values."""
    values = problem.values
    scale = naive_errors(values[: problem.n_train], problem.series.season)
    rows = problem.origins[:, None] + np.arange(problem.horizon)
    truth = values[rows]  # (O, H, F)
    error = np.abs(truth - forecasts.mean) / scale
    crps = coverage = None
    if forecasts.quantiles is not None:
        gap = truth[..., None] - forecasts.quantiles
        levels = np.array(LEVELS)
        pinball = np.maximum(levels * gap, (levels - 1.0) * gap)
        crps = float(np.nanmean(2.0 * pinball / scale[:, None]))
        inside = (forecasts.quantiles[..., 0] <= truth) & (truth <= forecasts.quantiles[..., -1])
        coverage = float(inside[np.isfinite(truth)].mean())
    names = [str(name) for name in problem.series.frame.columns]
    own = np.nanmean(error, axis=(0, 1)).tolist()
    return Scores(
        problem.series.name,
        method,
        float(np.nanmean(error)),
        crps,
        coverage,
        fit_seconds,
        seconds,
        dict(zip(names, own, strict=True)),
    )


def describe_problem(problem: Problem) -> dict[str, Any]:
    """Numbers of the cut."""
    return {
        "training_rows": problem.n_train,
        "horizon": problem.horizon,
        "origins": len(problem.origins),
    }
