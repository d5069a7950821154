"""ETTh1 in windows of 48 rows with entries hidden three ways, and the scores of filled ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from _common import DATA_SETS, load
from numpy.typing import NDArray

from tsvae.demo.report import QUANTILE_LEVELS
from tsvae.metrics import crps_from_quantiles, interval_coverage, mean_absolute_error

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

WINDOW, BLOCK = 48, 24
PATTERNS = {
    "random10": "10 % of the entries hidden at random",
    "random50": "50 % of the entries hidden at random",
    "blocks": f"A block of {BLOCK} rows of one variable hidden",
}


class Windows(NamedTuple):
    """Windows of one part of the data, side by side.

    Attributes
    ----------
    values : ndarray (N, T, F)
        Complete, standardised.
    stamps : DatetimeIndex (N * T)
    names : list of str
    """

    values: Array
    stamps: pd.DatetimeIndex
    names: list[str]

    def repeat(self, times: int) -> Windows:
        """All windows several times over, to be hidden anew each time."""
        stamps = pd.DatetimeIndex(np.tile(self.stamps.to_numpy(), times))
        return Windows(np.tile(self.values, (times, 1, 1)), stamps, self.names)

    def frame(self, values: Array) -> pd.DataFrame:
        """One series per window: rows (window, time)."""
        n_windows, n_rows, n_features = values.shape
        index = pd.MultiIndex.from_arrays(
            [np.repeat(np.arange(n_windows), n_rows), self.stamps], names=["window", "time"]
        )
        return pd.DataFrame(values.reshape(-1, n_features), index, columns=self.names)


class Problem(NamedTuple):
    """Windows with some entries hidden from the methods.

    Attributes
    ----------
    windows : Windows
    hidden : bool ndarray (N, T, F)
    """

    windows: Windows
    hidden: Mask

    @property
    def seen(self) -> Array:
        """What a method may see: NaN where hidden."""
        return np.where(self.hidden, np.nan, self.windows.values)


class Task(NamedTuple):
    """Training rows and the problems by pattern, all in standardised units."""

    train: pd.DataFrame
    validation: dict[str, Problem]
    test: dict[str, Problem]


class Filled(NamedTuple):
    """Windows with hidden entries filled.

    Attributes
    ----------
    point : ndarray (N, T, F)
    quantiles : ndarray (N, T, F, Q) or None
        At `QUANTILE_LEVELS`.
    """

    point: Array
    quantiles: Array | None = None


class Method(NamedTuple):
    """A fitted method: what fills windows, its parameters, seconds of its fit.

    ``fill(pattern, problem)``; ``settings`` are those that were chosen on the validation part;
    ``clock(problem)`` says how long filling took where another process did it.
    """

    name: str
    fill: Callable[[str, Problem], Filled]
    n_parameters: int | None
    fit_seconds: float
    settings: dict[str, object]
    clock: Callable[[Problem], float] | None = None


@dataclass(frozen=True)
class Score:
    """Errors of one method at the hidden entries of one pattern."""

    method: str
    pattern: str
    mae: float
    mse: float
    crps: float | None
    coverage: float | None
    fit_seconds: float
    impute_seconds: float
    n_parameters: int | None


def hide(pattern: str, shape: tuple[int, int, int], rng: np.random.Generator) -> Mask:
    """Draw which entries are hidden, a pattern of its own for each window."""
    if pattern.startswith("random"):
        return rng.random(shape) < int(pattern.removeprefix("random")) / 100
    n_windows, n_rows, n_features = shape
    first = rng.integers(n_rows - BLOCK + 1, size=n_windows)
    steps = np.arange(n_rows) - first[:, None]
    variable = rng.integers(n_features, size=n_windows)[:, None] == np.arange(n_features)
    return ((steps >= 0) & (steps < BLOCK))[:, :, None] & variable[:, None, :]


def make_task(seed: int, draws: dict[str, int]) -> Task:
    """Read, standardise by the training rows, cut, hide.

    Parameters
    ----------
    seed : int
    draws : dict
        How often each window of the part ("validation", "test") is hidden anew.
    """
    frame = load("ETTh1")
    split = DATA_SETS["ETTh1"].split(len(frame))
    train = frame.iloc[: split.train_end]
    scaled = (frame - train.mean()) / train.std(ddof=0)
    parts = {
        "validation": scaled.iloc[split.train_end : split.validation_end],
        "test": scaled.iloc[split.validation_end : split.test_end],
    }
    problems = {}
    for offset, (name, rows) in enumerate(parts.items()):
        rng = np.random.default_rng([seed, offset])
        windows = _cut(rows).repeat(draws[name])
        problems[name] = {
            pattern: Problem(windows, hide(pattern, windows.values.shape, rng))
            for pattern in PATTERNS
        }
    return Task(scaled.iloc[: split.train_end], problems["validation"], problems["test"])


def _cut(rows: pd.DataFrame) -> Windows:
    n_windows = len(rows) // WINDOW
    rows = rows.iloc[: n_windows * WINDOW]
    values = rows.to_numpy().reshape(n_windows, WINDOW, rows.shape[1])
    return Windows(values, pd.DatetimeIndex(rows.index), list(rows.columns))


def training_windows(train: pd.DataFrame, stride: int) -> Array:
    """Overlapping windows of the training rows, ``(N, T, F)``."""
    windows = np.lib.stride_tricks.sliding_window_view(train.to_numpy(), WINDOW, axis=0)
    return np.ascontiguousarray(windows[::stride].transpose(0, 2, 1))


def score(method: Method, pattern: str, problem: Problem, filled: Filled, seconds: float) -> Score:
    """Compare filled windows with the complete ones, at the hidden entries."""
    truth, point = problem.windows.values[problem.hidden], filled.point[problem.hidden]
    crps = coverage = None
    if filled.quantiles is not None:
        levels = filled.quantiles[problem.hidden]
        crps = float(crps_from_quantiles(truth, levels, quantiles=QUANTILE_LEVELS))
        coverage = float(interval_coverage(truth, (levels[:, 0], levels[:, -1])))
    return Score(
        method.name,
        pattern,
        float(mean_absolute_error(truth, point)),
        float(np.mean((truth - point) ** 2)),
        crps,
        coverage,
        method.fit_seconds,
        seconds,
        method.n_parameters,
    )


def patterns_of(problems: dict[str, Problem]) -> Iterator[tuple[str, Problem]]:
    """Patterns in the order of the tables."""
    return ((pattern, problems[pattern]) for pattern in PATTERNS)
