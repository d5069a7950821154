"""What a start is chosen from: values without the effects of inputs, with seasons named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.estimation.building import ridge
from tsvae.estimation.covariates import InputDesign
from tsvae.estimation.end_states import Phases
from tsvae.estimation.fitting import TrainingData
from tsvae.estimation.history_filling import Shown, fill_series
from tsvae.estimation.joint_filling import JointFilling
from tsvae.estimation.pattern_loss import Pattern
from tsvae.estimation.seasons import has_effect
from tsvae.estimation.settings import Parameters, is_real
from tsvae.panel import Panel, PanelIndex, seasonal_periods

__all__ = ["Effects", "StartData", "given_periods", "input_effects", "start_data"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_OFTEN_SHARE = 0.5  # of a pattern that the data hold often


def given_periods(panel: Panel, params: Parameters) -> list[float]:
    """Seasonal periods given, or those of the time stamps' calendar."""
    wanted = params["seasonal_periods"]
    if wanted is None:
        return []
    if isinstance(wanted, str):
        return seasonal_periods(panel.index)
    periods = [float(p) for p in wanted]
    if any(not p >= 2 for p in periods):
        raise ValueError(
            f"seasonal_periods={wanted!r} must be at least 2 steps each; leave shorter ones out."
        )
    return periods


class Effects(NamedTuple):
    """Effects of the inputs on each variable.

    Attributes
    ----------
    matrix : ndarray (F, U)
    share : ndarray (F, U)
        How much of what was fitted it holds, 0 to 1.
    """

    matrix: Array
    share: Array


@dataclass(frozen=True)
class StartData:
    """What a start is chosen from.

    Attributes
    ----------
    values : ndarray (B, T, F)
        Model units, effects of inputs taken off, 0 where missing.
    mask : bool ndarray (B, T, F)
    shown : Shown
        The same with gaps filled as in the histories of forecasts.
    lengths : ndarray (B,)
    effects : ndarray (F, U) or None
        What was taken off.
    periods : list of float
        Seasons, in steps.
    plain : ndarray (B, T, F) or None
        Before effects were taken off; None if these are more than a seasonal pattern.
    pattern : Pattern or None
        What was taken off, if it is a seasonal pattern alone.
    phases : Phases or None
        Of the pattern's waves.
    dated : bool
        Whether time stamps tell the seasons.
    """

    values: Array
    mask: Mask
    shown: Shown
    lengths: NDArray[np.int64]
    effects: Array | None
    periods: list[float]
    plain: Array | None = None
    pattern: Pattern | None = None
    phases: Phases | None = None
    dated: bool = True


def input_effects(
    values: Array, mask: Mask, inputs: Array | None, params: Parameters, seldom: Mask | None
) -> Effects | None:
    """Effects of the inputs on each variable; None without inputs.

    ``seldom``: inputs that are waves of seldom seen periods, if all are waves and to be tested. A
    variable whose steps follow these has the whole pattern. One whose steps follow the others has
    half of theirs: states learn such a pattern, too, and follow where it changes.
    """
    if inputs is None or not is_real(params):
        return None
    if seldom is None:
        matrix = ridge(values, mask, inputs)
        return Effects(matrix, np.ones_like(matrix))
    whole = has_effect(values, mask, inputs[..., seldom])
    effects = ridge(values, mask, inputs, whole)
    share = np.zeros_like(effects)
    share[whole] = 1.0
    often = inputs[..., ~seldom]
    half = ~whole & has_effect(values, mask, often)
    effects[:, ~seldom] += _OFTEN_SHARE * ridge(values, mask, often, half)
    share[np.ix_(half, ~seldom)] = _OFTEN_SHARE
    return Effects(effects, share)


def start_data(
    data: TrainingData,
    effects: Effects | None,
    design: InputDesign,
    filling: JointFilling | None,
    index: PanelIndex,
    periods: list[float],
) -> StartData:
    """Take effects off, and fill gaps as in the histories of forecasts."""
    values, mask, matrix, pattern, phases = data.values, data.mask, None, None, None
    if effects is not None and data.inputs is not None:
        matrix = effects.matrix
        values = np.where(mask, values - data.inputs @ matrix.T, 0.0)
        if design.is_pattern:  # sines before cosines
            angles = np.array(design.angles)
            pattern = Pattern(angles, effects.share[:, : len(angles)])
            phases = Phases(angles, data.inputs[:, -1])
    shown = Shown(values, mask)
    inside = (np.arange(mask.shape[1]) < data.lengths[:, None])[..., None]
    if filling is not None and filling.shows and not (mask | ~inside).all():
        shown = fill_series(filling, values, mask, index)
    plain = data.values if data.inputs is None or pattern is not None else None
    return StartData(
        values,
        mask,
        shown,
        data.lengths,
        effects=matrix,
        periods=periods,
        plain=plain,
        pattern=pattern,
        phases=phases,
        dated=index.has_stamps,
    )
