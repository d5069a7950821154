"""Learning to fill hidden entries from all variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tsvae.estimation.filling import HeldOut, hold_out
from tsvae.estimation.fitting import TrainingData
from tsvae.estimation.joint_filling import JointFilling
from tsvae.models import SVAE
from tsvae.models.autoregression import Autoregression, fewest_rows, fit_autoregression
from tsvae.models.completion import complete_rows
from tsvae.models.predictive import smooth_values
from tsvae.panel import PanelIndex
from tsvae.panel.clock import Clock

__all__ = ["Learned", "learn_jointly"]

Array = NDArray[np.float64]
Int = NDArray[np.int64]
Mask = NDArray[np.bool_]

_ORDERS = (1, 2, 3)
_WIDEST = 48  # order x variables: time goes with its cube
_MOST_ENTRIES = 500_000  # that are fitted to
_TESTED_ENTRIES = 15_000
_FEWEST_TESTED = 100
_LONGEST_SEASON = 200
_FEWEST_CYCLES = 30
_SHARE = 2 / 3  # of the rows that candidates are fitted to
_MANY_SERIES = 6  # of which every third is held out
_COVERAGE, _QUANTILE = 0.9, 1.6449  # and the normal one
_WIDENINGS = (0.5, 3.0)


@dataclass(frozen=True)
class _Learner:
    """Residuals to fit to: what covariates explain is taken off.

    Attributes
    ----------
    residual : ndarray (B, T, F)
    mask : bool ndarray (B, T, F)
    clock : Clock or None
    start : ndarray (B,)
        Positions of the first rows on the clock.
    """

    residual: Array
    mask: Mask
    clock: Clock | None
    start: Int

    def complete(
        self,
        inside: Mask,
        order: int,
        n_phases: int,
        seed: int,
        start: Autoregression | None = None,
    ) -> _Learner:
        """Draw what is missing in the rows inside, and forget the others."""
        drawn = complete_rows(
            torch.from_numpy(np.where(inside[..., None], self.residual, 0.0)),
            torch.from_numpy(self.mask & inside[..., None]),
            torch.from_numpy(inside),
            torch.from_numpy(self.start % max(n_phases, 1)),
            n_phases,
            order,
            seed,
            start,
        )
        everywhere = np.broadcast_to(inside[..., None], self.mask.shape)
        return replace(self, residual=drawn.numpy(), mask=everywhere)

    def fit(self, order: int, n_phases: int) -> JointFilling:
        """Fit to the rows, which are complete."""
        found = fit_autoregression(
            torch.from_numpy(self.residual),
            torch.from_numpy(self.mask.copy()),
            torch.from_numpy(self.start % max(n_phases, 1)),
            n_phases,
            order,
        )
        return JointFilling(found, self.clock if n_phases else None)


class _Test(NamedTuple):
    """Entries hidden in windows of residuals, and their starts on the clock."""

    values: Array
    held: HeldOut
    start: Int

    def errors(self, filling: JointFilling, steps: int | None = None) -> tuple[Array, Array]:
        """Errors at the hidden entries, and the standard deviations claimed."""
        hidden, n_phases = self.held.hidden, filling.fit.n_phases
        phase = self.start % n_phases if n_phases else None
        options = {} if steps is None else {"steps": steps}
        values = np.where(self.held.visible, self.values, 0.0)
        found = filling.fill(values, self.held.visible, hidden, phase, **options)
        return (found.mean - self.values)[hidden], found.scale[hidden]


class Learned(NamedTuple):
    """What fills entries, and how well it did on some that were held out.

    Attributes
    ----------
    filling : JointFilling
    held : HeldOut
        Windows of the data with some entries hidden.
    error : float
        Mean absolute error at the hidden entries.
    """

    filling: JointFilling
    held: HeldOut
    error: float

    def beats(self, model: SVAE) -> bool:
        """Whether it fills better than the model's own smoothed values."""
        return self.error < _own_error(model, self.held)


def learn_jointly(
    data: TrainingData,
    effects: Array | None,
    index: PanelIndex,
    periods: Sequence[float],
    window: int,
    seed: int,
) -> Learned | None:
    """Fit what fills entries from all variables.

    Order and season are those with the least absolute errors at entries hidden in the last third of
    the rows (or, of many series, in every third one), after a fit to the others; their errors say
    how wide bands are, too. What is kept is fitted to all rows.

    Parameters
    ----------
    data : TrainingData
    effects : ndarray (F, U) or None
        Of the inputs.
    index : PanelIndex
        Of the data.
    periods : sequence of float
        Candidates for the season, in steps.
    window : int
        Rows of windows to test with, at most.
    seed : int

    Returns
    -------
    Learned or None
        None where data are too few.
    """
    data, start = _limited(data, np.asarray(index.starts))
    first = _first_held_out(data.lengths)
    if not (data.lengths > first).any():
        return None
    held = hold_out(data, first, window, _TESTED_ENTRIES, seed)
    if held.hidden.sum() < _FEWEST_TESTED:
        return None
    clock = index.clock if index.has_stamps else None
    learner = _Learner(_residual(data.values, data.inputs, effects), data.mask, clock, start)
    steps = np.arange(data.mask.shape[1])
    inside, early = steps < data.lengths[:, None], steps < first[:, None]
    n_phases = 0 if clock is None else _season(periods, int(first.sum()))
    residual = _residual(held.values, held.inputs, effects)
    test = _Test(residual, held, start[held.series] + held.begin)
    orders = [k for k in _ORDERS if _is_enough(data.mask & early[..., None], k)]
    if not orders:
        return None
    middle = orders[len(orders) // 2]
    before = learner.complete(early, middle, n_phases, seed)
    candidates = [before.fit(*pair) for pair in product(orders, sorted({0, n_phases}))]
    best = min(candidates, key=lambda one: float(np.abs(test.errors(one, 0)[0]).mean()))
    errors, scale = test.errors(best)
    chosen = best.fit.order, best.fit.n_phases
    final = learner.complete(inside, *chosen, seed, best.fit).fit(*chosen)
    final = replace(
        final,
        widening=_widening(errors, scale),
        effects=None if effects is None else torch.from_numpy(effects),
    )
    return Learned(final, held, float(np.abs(errors).mean()))


def _is_enough(early: Mask, order: int) -> bool:
    """Whether there are entries enough for coefficients of an order."""
    longest = int(early.any(-1).sum(1).max())
    n_features = early.shape[-1]
    if order > 1 and order * n_features > _WIDEST:
        return False
    return bool(early.sum() >= n_features * fewest_rows(order, n_features) and longest > order)


def _limited(data: TrainingData, start: Int) -> tuple[TrainingData, Int]:
    """Part of the data that is affordable: of each series its last rows, of many some."""
    n_series, n_steps, n_features = data.values.shape
    rows = max(_MOST_ENTRIES // n_features, 1)
    begin = max(n_steps - rows, 0)
    kept = np.unique(np.linspace(0, n_series - 1, max(1, rows // n_steps)).round().astype(int))
    if n_series * n_steps <= rows:
        kept, begin = np.arange(n_series), 0
    inputs = None if data.inputs is None else data.inputs[kept, begin:]
    part = TrainingData(
        data.values[kept, begin:],
        data.mask[kept, begin:],
        np.maximum(data.lengths[kept] - begin, 0),
        inputs,
    )
    return part, start[kept] + begin


def _first_held_out(lengths: Int) -> Int:
    """First row of each series that is held out."""
    if len(lengths) < _MANY_SERIES:
        return np.ceil(_SHARE * lengths).astype(np.int64)
    return np.where(np.arange(len(lengths)) % 3 == 2, 0, lengths)


def _season(periods: Sequence[float], n_rows: int) -> int:
    """Find the shortest season that has been seen often; 0 if there is none."""
    for period in sorted(periods):
        often = n_rows >= _FEWEST_CYCLES * period
        if period == round(period) and period <= _LONGEST_SEASON and often:
            return int(period)
    return 0


def _residual(values: Array, inputs: Array | None, effects: Array | None) -> Array:
    """Values without the effect of inputs."""
    if inputs is None or effects is None:
        return values
    return values - inputs @ effects.T


def _own_error(model: SVAE, held: HeldOut) -> float:
    """Mean absolute error of the model's smoothed values."""
    shown = np.where(held.visible, held.values, 0.0)
    found = smooth_values(
        model,
        torch.tensor(shown, dtype=torch.float32),
        torch.tensor(held.visible),
        held.input_tensor,
    )
    return float(np.abs(found.mean.numpy() - held.values)[held.hidden].mean())


def _widening(errors: Array, scale: Array) -> float:
    """Factor by which a band of 90 % has to be widened to hold as many of the errors."""
    ratio = np.abs(errors) / np.maximum(scale, np.finfo(float).tiny)
    return float(np.clip(np.quantile(ratio, _COVERAGE) / _QUANTILE, *_WIDENINGS))
