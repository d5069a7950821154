"""How forecasts spread: by the window's own size, and in a shape that training errors show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from tsvae.estimation.table import TablePredictive, map_scores
from tsvae.estimation.window_sizes import phase_sizes, window_sizes
from tsvae.models.predictive import NormalPredictive, SamplePredictive

__all__ = [
    "KNOTS",
    "LOG_BOUND",
    "ForecastSpread",
    "SpreadSteps",
    "monotone",
    "step_centres",
    "step_groups",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Normal scores of the levels that shapes are measured at.
KNOTS = ndtri(np.array([0.025, 0.05, *np.arange(0.1, 0.95, 0.1), 0.95, 0.975]))

_MOST_GROUPS = 8
_TINY = 1e-12
_NUMBERS = ("gamma", "delta", "cycle")
_ARRAYS = ("centre", "phase_centre", "steps", "log_level", "table")
LOG_BOUND = np.log(4.0)  # of the factor by which a window's scale differs
_LEAST_SLOPE = 0.05  # of a quantile function beside the normal one


def step_groups(horizon: int) -> list[NDArray[np.int64]]:
    """Group steps ahead (0-based) that share a shape; groups further ahead are longer.

    Examples
    --------
    >>> [len(group) for group in step_groups(96)]
    [1, 1, 3, 4, 7, 14, 24, 42]
    >>> step_groups(1)
    [array([0])]
    """
    edges = np.unique(np.round(np.geomspace(1, horizon + 1, _MOST_GROUPS + 1)).astype(np.int64))
    return [np.arange(a, b) - 1 for a, b in pairwise(edges)]


def step_centres(horizon: int) -> Array:
    """Geometric mean of the steps ahead (1-based) of each group, ``(K,)``."""
    return np.array([np.exp(np.log(group + 1.0).mean()) for group in step_groups(horizon)])


class _Ahead(NamedTuple):
    """A spread at the steps of one horizon: level ``(H, F)``, table ``(H, F, Q)``."""

    level: Tensor
    table: Tensor


class SpreadSteps(NamedTuple):
    """A spread at each step ahead: ``(H, F)`` and ``(H, F, Q)``."""

    log_level: Array
    table: Array


@dataclass(frozen=True)
class ForecastSpread:
    """From the model's normal margins to those that forecasts have.

    The scale of a forecast is the model's, times ``exp(gamma * (log s - centre))``, s the standard
    deviation of the window's observed entries, times ``exp(delta * (log d - phase_centre))``, d the
    size of changes from cycle to cycle at the step's phase, times ``exp(log_level)``; its shape is
    a table of standardised quantiles of each variable. Steps between the groups' centres are
    interpolated.

    Attributes
    ----------
    gamma, delta : float
        0: all windows, all phases spread alike.
    centre, phase_centre : ndarray (F,)
        Mean log s and log d of training windows.
    cycle : int
        Steps of the season that has phases; 0: none.
    steps : ndarray (K,)
        Centres of the groups of steps, 1-based.
    log_level : ndarray (K, F)
    table : ndarray (K, F, Q)
        Standardised quantiles at the normal scores :data:`KNOTS`.
    """

    gamma: float
    delta: float
    centre: Array
    phase_centre: Array
    cycle: int
    steps: Array
    log_level: Array
    table: Array

    @classmethod
    def plain(cls, n_features: int, horizon: int = 1) -> ForecastSpread:
        """Spread that leaves forecasts as they are."""
        steps = step_centres(horizon)
        table = np.tile(KNOTS, (len(steps), n_features, 1))
        zeros = np.zeros((len(steps), n_features))
        centre = np.zeros(n_features)
        return cls(0.0, 0.0, centre, centre, 0, steps, zeros, table)

    @property
    def is_plain(self) -> bool:
        """Whether forecasts stay as they are."""
        follows = self.gamma or self.delta
        return not follows and not self.log_level.any() and bool((self.table == KNOTS).all())

    def features(self, values: Array, mask: Mask, horizon: int) -> Array:
        """Logarithms of s and d about their centres, ``(N, H, F, 2)``; 0 where not known."""
        shape = (len(values), horizon, values.shape[-1])
        size = np.broadcast_to((window_sizes(values, mask) - self.centre)[:, None], shape)
        phase = np.zeros(shape)
        if self.cycle:
            phase = phase_sizes(values, mask, self.cycle, horizon) - self.phase_centre
        return np.nan_to_num(np.stack((size, phase), axis=-1))

    def factor(self, features: Array) -> Array:
        """Factor of the scale ``(N, H, F)``; within 1/4 and 4."""
        exponent = features @ np.array([self.gamma, self.delta])
        return np.exp(np.clip(exponent, -LOG_BOUND, LOG_BOUND))

    def shape(
        self, part: NormalPredictive | SamplePredictive, values: Array, mask: Mask
    ) -> NormalPredictive | SamplePredictive | TablePredictive:
        """Give forecasts from windows ``(N, T, F)`` their spread."""
        if self.is_plain:
            return part
        ahead = self._ahead(part.mean.shape[1])
        if isinstance(part, SamplePredictive):
            return SamplePredictive(_rescale_ranks(part.samples, ahead.table))
        horizon = part.mean.shape[1]
        scale = part.scale * self._factor(values, mask, horizon) * ahead.level
        return TablePredictive(part.mean, scale, torch.as_tensor(KNOTS).to(scale), ahead.table)

    def shape_samples(
        self,
        samples: Tensor,
        margins: NormalPredictive | SamplePredictive,
        values: Array,
        mask: Mask,
    ) -> Tensor:
        """Map the margins of joint samples ``(S, N, H, F)``; their ranks stay."""
        ahead = self._ahead(samples.shape[2])
        if isinstance(margins, SamplePredictive):
            return _rescale_ranks(samples, ahead.table)
        horizon = samples.shape[2]
        scale = margins.scale * self._factor(values, mask, horizon) * ahead.level
        scores = (samples - margins.mean) / margins.scale
        return margins.mean + scale * map_scores(
            scores, torch.as_tensor(KNOTS).to(scores), ahead.table
        )

    def widened(self, steps: Array, factors: Array) -> ForecastSpread:
        """Distances from the median times ``factors`` ``(L, Q)``, given at ``steps`` ``(L,)``."""
        own = _interpolated(self.steps, steps, factors)[:, None]
        middle = self.table[..., [len(KNOTS) // 2]]
        table = monotone(middle + own * (self.table - middle))
        return replace(self, table=table)

    def _factor(self, values: Array, mask: Mask, horizon: int) -> Tensor:
        factor = self.factor(self.features(values, mask, horizon))
        return torch.as_tensor(factor, dtype=torch.float32)

    def _ahead(self, horizon: int) -> _Ahead:
        at = self.at_steps(horizon)
        return _Ahead(
            torch.as_tensor(np.exp(at.log_level), dtype=torch.float32),
            torch.as_tensor(at.table, dtype=torch.float32),
        )

    def at_steps(self, horizon: int) -> SpreadSteps:
        """Levels and tables at steps 1 to ``horizon``; those of the last group further ahead."""
        wanted = np.arange(1.0, horizon + 1)
        return SpreadSteps(
            _interpolated(wanted, self.steps, self.log_level),
            _interpolated(wanted, self.steps, self.table),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; see :meth:`from_dict`."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return numbers | {name: getattr(self, name).tolist() for name in _ARRAYS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ForecastSpread:
        """Rebuild from :meth:`to_dict`."""
        arrays = {name: np.asarray(data[name], dtype=float) for name in _ARRAYS}
        numbers: dict[str, Any] = {name: data[name] for name in _NUMBERS}
        return cls(**(numbers | arrays))


def _interpolated(wanted: Array, steps: Array, known: Array) -> Array:
    """Values ``(W, ...)`` at steps ``(W,)`` of what is known ``(K, ...)``, linear in their logs."""
    lines = known.reshape(len(steps), -1).T
    found = [np.interp(np.log(wanted), np.log(steps), line) for line in lines]
    return np.stack(found, axis=1).reshape(len(wanted), *known.shape[1:])


def monotone(table: Array) -> Array:
    """Table ``(..., Q)`` that increases from knot to knot and has both signs."""
    rise = np.maximum(np.diff(table), _LEAST_SLOPE * np.diff(KNOTS))
    start = np.minimum(table[..., :1], _LEAST_SLOPE * KNOTS[0])
    table = np.concatenate([start, start + np.cumsum(rise, axis=-1)], axis=-1)
    table[..., -1] = np.maximum(table[..., -1], _LEAST_SLOPE * KNOTS[-1])
    return table


def _rescale_ranks(samples: Tensor, table: Tensor) -> Tensor:
    """Scale samples ``(S, N, H, F)`` about their median as the table does normal scores."""
    n_samples = len(samples)
    ordered, order = samples.sort(dim=0)
    median = samples.median(dim=0).values
    scores = torch.special.ndtri((torch.arange(n_samples).double() + 0.5) / n_samples)
    scores = torch.where(scores.abs() < _TINY, torch.full_like(scores, 1e-3), scores)
    scores = scores[:, None, None]
    factor = (map_scores(scores, torch.as_tensor(KNOTS), table.double()) / scores).to(samples)
    wider = median + factor[:, None] * (ordered - median)  # (S, 1, H, F)
    wider = wider.cummax(dim=0).values
    return torch.empty_like(samples).scatter_(0, order, wider)
