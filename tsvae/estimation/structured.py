"""Fitting a structured VAE to a problem, and what a fitted one consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tsvae.estimation.anchoring import Anchored, fit_anchored, takes_two
from tsvae.estimation.building import MAX_CHANNELS, Sizes, resolve_sizes
from tsvae.estimation.calibration import fit_spread
from tsvae.estimation.covariates import InputDesign
from tsvae.estimation.engine import Engine
from tsvae.estimation.filling import learn_to_fill
from tsvae.estimation.fitting import TrainingData, fit_model
from tsvae.estimation.held_back import measure_factors, rows_to_hold_back, without_last
from tsvae.estimation.joint_filling import JointFilling
from tsvae.estimation.joint_learning import Learned, learn_jointly
from tsvae.estimation.reading import Problem
from tsvae.estimation.scaling import PanelScaler, Scaling, fit_scaler
from tsvae.estimation.seasons import automatic_angles, fixed_angles, seldom_seen
from tsvae.estimation.settings import (
    Parameters,
    augmentation_of,
    is_real,
    model_settings,
    resolve_training,
    smooths_itself,
    training_config,
)
from tsvae.estimation.spread import ForecastSpread
from tsvae.estimation.start_data import given_periods, input_effects, start_data
from tsvae.estimation.starting import build_at_start
from tsvae.estimation.window_sizes import cycle_of
from tsvae.models import SVAE
from tsvae.nn import get_likelihood
from tsvae.panel import Panel, PanelIndex, calendar_features, concat
from tsvae.training import BetaSchedule, Callback, TrainingLog, pinned_threads

__all__ = ["StructuredFit", "fit_structured"]

_MOST_ROWS = 500_000  # of a panel whose often seen seasons are tested: inputs take memory
_MOST_FILLED = 4_000_000  # entries of a panel whose gaps are filled for forecasts


@dataclass(frozen=True)
class StructuredFit:
    """A fitted structured VAE and what it needs to predict.

    Attributes
    ----------
    model : SVAE
    settings : dict
        Arguments of the model, JSON values.
    scaler : PanelScaler
    design : InputDesign
    sizes : Sizes
    target, covariates : PanelIndex
        Of the training data; ``covariates`` is None in the ``fit(df)`` form.
    history : Problem
        Rows kept for forecasts and for data that continue the training stamps.
    log : TrainingLog
    spread : ForecastSpread
        From the model's margins to those of forecasts.
    filling : JointFilling or None
        What fills hidden entries from all variables; None: the model alone.
    anchored : Anchored or None
        A second model that forecasts are moved towards.
    """

    model: SVAE
    settings: dict[str, Any]
    scaler: PanelScaler
    design: InputDesign
    sizes: Sizes
    target: PanelIndex
    covariates: PanelIndex | None
    history: Problem
    log: TrainingLog
    spread: ForecastSpread
    filling: JointFilling | None = None
    anchored: Anchored | None = None

    def append(self, new: Problem) -> StructuredFit:
        """Return the fit with new rows at the end of its history.

        Raises
        ------
        ValueError
            If they do not follow the history's last rows.
        """
        past = self.history
        target = concat(past.target, new.target)
        if past.covariates is None or new.covariates is None:
            return replace(self, history=_kept(Problem(target, None), self.sizes))
        known = concat(past.covariates, new.covariates)
        return replace(self, history=Problem(target, known))

    def engine(self, params: Parameters) -> Engine:
        """Return what runs the model, with the estimator's current device and threads."""
        return Engine(
            self.model,
            self.scaler,
            self.design,
            self.sizes,
            params["device"],
            params["n_threads"],
            params["n_samples"],
            self.spread,
            self.filling,
            None if self.anchored is None else self.anchored.model,
        )


def fit_structured(
    problem: Problem, params: Parameters, seed: int, callbacks: Sequence[Callback]
) -> StructuredFit:
    """Scale, build, start and train; with ``calibrate`` on all but the last rows first.

    Parameters
    ----------
    problem : Problem
    params : mapping
        Parameters of the estimator, checked by :func:`tsvae.estimation.checking.check_settings`.
    seed : int
    callbacks : sequence of Callback

    Returns
    -------
    StructuredFit
    """
    panel = problem.target
    check_enough(panel)
    params = resolve_training(params, panel.n_features)
    with pinned_threads(params["n_threads"]):
        fitted = _fit_once(problem, params, seed, callbacks)
        rows = rows_to_hold_back(panel.lengths, fitted.sizes) if _calibrates(params) else 0
        if not rows:
            return fitted
        earlier = _fit_once(without_last(problem, rows), params, seed, ())
        found = measure_factors(earlier.engine(params), problem, rows)
    return replace(fitted, spread=fitted.spread.widened(found.steps, found.factors))


def _fit_once(
    problem: Problem, params: Parameters, seed: int, callbacks: Sequence[Callback]
) -> StructuredFit:
    """Fit to all rows of a problem."""
    panel = problem.target
    has_levels = bool(params["window_level"]) and is_real(params) and not params["final_sigmoid"]
    scaler, values = _scale(panel, params, has_levels)
    design = _design(problem, params)
    inputs = design.build(panel.index, panel.n_steps, problem.covariates)
    sizes = resolve_sizes(panel.n_steps, params["context_length"], params["horizon"])
    if not has_levels:
        sizes = replace(sizes, level_entries=0)
    settings = model_settings(panel, design.n_inputs, sizes, params, seed)
    data = TrainingData(values, panel.mask, panel.lengths, inputs)
    periods = given_periods(panel, params)
    seldom = _seldom(panel, design, params)
    effects = input_effects(values, panel.mask, inputs, params, seldom)
    matrix = None if effects is None else effects.matrix
    learned = _learn_filling(problem, data, matrix, params, sizes, periods, seed)
    filling = None if learned is None else learned.filling
    fixed_seasons = bool(design.angles) if seldom is None else bool(seldom.any())
    start = start_data(data, effects, design, filling, panel.index, periods)
    built = build_at_start(start, sizes, settings, params, fixed_seasons)
    model, anchored = built.model, None
    if not built.persists and takes_two(params, start, sizes):
        anchored = fit_anchored(start, sizes, settings, params, fixed_seasons)
    log = _train(model, data, sizes, params, seed, callbacks)
    if learned is not None:
        filling = replace(learned.filling, imputes=learned.beats(model))
    fitted = StructuredFit(
        model,
        built.settings,
        scaler,
        design,
        sizes,
        panel.index,
        None if problem.covariates is None else problem.covariates.index,
        _kept(problem, sizes),
        log,
        ForecastSpread.plain(panel.n_features, sizes.horizon),
        filling,
        anchored,
    )
    engine = fitted.engine(params)
    if engine.draws_forecasts:
        return fitted
    cycle = cycle_of(periods, sizes.context)
    expected = built.errors if anchored is None else None
    return replace(fitted, spread=fit_spread(engine, problem, cycle, expected))


def _learn_filling(
    problem: Problem,
    data: TrainingData,
    effects: np.ndarray | None,
    params: Parameters,
    sizes: Sizes,
    periods: list[float],
    seed: int,
) -> Learned | None:
    """Learn to fill gaps from all variables, for models that are linear and see no covariates."""
    panel = problem.target
    if not smooths_itself(params, panel.n_features) or panel.n_features > MAX_CHANNELS:
        return None
    if problem.covariates is not None:
        return None
    learned = learn_jointly(data, effects, panel.index, periods, sizes.window, seed)
    if learned is None:
        return None
    shows = panel.values.size <= _MOST_FILLED
    return learned._replace(filling=replace(learned.filling, shows=shows))


def _train(
    model: SVAE,
    data: TrainingData,
    sizes: Sizes,
    params: Parameters,
    seed: int,
    callbacks: Sequence[Callback],
) -> TrainingLog:
    """Train by gradient steps, if any are asked for, and freeze the model."""
    beta = BetaSchedule(
        params["beta_min"],
        params["beta"],
        params["beta_warmup_steps"],
        params["beta_annealing_steps"],
    )
    log = fit_model(
        model,
        data,
        sizes,
        training_config(params),
        validation_fraction=params["validation_fraction"],
        augmentation=augmentation_of(params),
        generator=torch.Generator().manual_seed(seed),
        callbacks=callbacks,
        beta=beta,
    )
    model.eval().requires_grad_(False)
    if model.smoothing is not None:
        learn_to_fill(model, data, sizes, seed)
    return log


def _calibrates(params: Parameters) -> bool:
    return bool(params["calibrate"]) and is_real(params) and not params["final_sigmoid"]


def check_enough(panel: Panel) -> None:
    """Raise ValueError if there is nothing to learn dynamics from."""
    observed = panel.mask.any(-1).sum(1)
    if observed.max(initial=0) < 2:
        raise ValueError(
            f"the data have {int(observed.max(initial=0))} sample(s) with observed values, while a "
            "minimum of 2 is required: dynamics need at least two rows of one series; give more."
        )


def _scale(panel: Panel, params: Parameters, has_levels: bool) -> tuple[PanelScaler, np.ndarray]:
    likelihood = get_likelihood(params["likelihood"])
    scaling: Scaling = "standard"
    if likelihood.support == "count":
        scaling = "none"
    elif likelihood.support == "unit" or params["final_sigmoid"]:
        scaling = "min-max"
    scaler = fit_scaler(
        panel.values,
        panel.mask,
        panel.variables,
        scaling=scaling,
        transform=params["power_transform"],
        within=has_levels,
    )
    return scaler, scaler.forward(panel.values, panel.mask, panel.variables)


def _design(problem: Problem, params: Parameters) -> InputDesign:
    known = problem.covariates
    scaler = None if known is None else fit_scaler(known.values, known.mask, known.variables)
    names: tuple[str, ...] = ()
    if params["calendar"]:
        names = tuple(calendar_features(problem.target.index).names)
        if not names:
            raise ValueError(
                "calendar=True needs time stamps with hours, weekdays or seasons; the data have "
                f"none ({problem.target.index.describe()}). Set calendar=False, or give dates."
            )
    index = problem.target.index
    angles: tuple[float, ...] = ()
    if (
        params["seasonal_effect"]
        and index.has_stamps
        and is_real(params)
        and not params["final_sigmoid"]
    ):
        angles = tuple(_season_angles(problem.target, params, scaler is None and not names))
    return InputDesign(scaler, names, angles, index.clock if angles else None)


def _season_angles(panel: Panel, params: Parameters, alone: bool) -> list[float]:
    """Seasonal waves; "auto" takes those of often seen periods only where it can test them."""
    periods = given_periods(panel, params)
    if params["seasonal_effect"] != "auto":
        return fixed_angles(periods, panel.n_steps)
    few_rows = panel.n_series * panel.n_steps <= _MOST_ROWS
    return automatic_angles(periods, panel.n_steps, often=alone and few_rows)


def _seldom(panel: Panel, design: InputDesign, params: Parameters) -> np.ndarray | None:
    """Which inputs are waves of seldom seen periods; None: no pattern is tested."""
    if params["seasonal_effect"] != "auto" or not design.is_pattern:
        return None
    periods = given_periods(panel, params)
    return np.tile(seldom_seen(list(design.angles), periods, panel.n_steps), 2)


def _kept(problem: Problem, sizes: Sizes) -> Problem:
    """Rows kept in the fitted estimator.

    All of them beside covariates, whose rows inside the training range are predicted, too.
    """
    if problem.covariates is not None:
        return problem
    panel = problem.target
    return Problem(panel.tail(sizes.context), None)
