"""Fit of a denoiser: what was read becomes a model, and what the model needs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tsvae._denoiser.coder import Coder
from tsvae._denoiser.conditions import ConditionCoder
from tsvae._denoiser.density import CodeDensity, fit_density
from tsvae._denoiser.filtering import ResidualFilter, fit_filter
from tsvae._denoiser.fitting import Parameters, TrainingSignals, fit_model, hides_entries
from tsvae._denoiser.health import Health, examine, warn_about
from tsvae._denoiser.residuals import ResidualNoise, fit_residuals
from tsvae._records.building import build_model
from tsvae._records.design import Design, design_model
from tsvae._records.scaling import SignalScaler, fit_scaler
from tsvae._records.signals import Signals, Windows
from tsvae.models.observation import family_likelihood
from tsvae.panel import Panel, PanelIndex, RecordIndex
from tsvae.training import Callback, TrainingLog

__all__ = ["DenoiserFit", "Problem", "fit_denoiser"]

Array = NDArray[np.float64]

_EXAMINED = 1024  # training windows that health and density are measured on
_SHORT_FOR_DOUBLE = 32  # steps; longer records go through convolutions in float32


@dataclass(frozen=True, eq=False)
class Problem:
    """Training data in the caller's units.

    Attributes
    ----------
    signals : Signals
    clean : Signals or None
    conditions : ConditionCoder or None
    given : ndarray of shape (B, C) or None
    """

    signals: Signals
    clean: Signals | None
    conditions: ConditionCoder | None
    given: Array | None


@dataclass(frozen=True, eq=False)
class DenoiserFit:
    """Everything a fitted denoiser needs; holds no training data.

    Attributes
    ----------
    model : BaseAutoencoder
    design : Design
    scaler : SignalScaler
    index : RecordIndex or PanelIndex
        Of the training data, without its rows.
    window : int or None
    supervised : bool
        Whether there were clean targets.
    gapless : bool
        Whether training showed no gap and hid no entry.
    conditions : ConditionCoder or None
    density : CodeDensity
    residuals : ResidualNoise
    filter : ResidualFilter
        Of what the model leaves out.
    health : Health
    log : TrainingLog
    """

    model: Any
    design: Design
    scaler: SignalScaler
    index: RecordIndex | PanelIndex
    window: int | None
    supervised: bool
    gapless: bool
    conditions: ConditionCoder | None
    density: CodeDensity
    residuals: ResidualNoise
    filter: ResidualFilter
    health: Health
    log: TrainingLog

    def coder(self, params: Parameters) -> Coder:
        """Model ready for batched passes."""
        double = self.design.n_steps < _SHORT_FOR_DOUBLE
        return Coder(self.model, params["device"], params["n_threads"], double, self.gapless)


def fit_denoiser(
    problem: Problem,
    params: Parameters,
    networks: Any,
    seed: int,
    callbacks: Sequence[Callback],
) -> DenoiserFit:
    """Fit a model to signals.

    Parameters
    ----------
    problem : Problem
    params : mapping
        Parameters of the estimator.
    networks : (encoder, decoder) or None
        The caller's own.
    seed : int
    callbacks : sequence of Callback

    Returns
    -------
    DenoiserFit
    """
    signals = problem.signals
    _check_lengths(signals, params)
    n_conditions = 0 if problem.conditions is None else problem.conditions.n_outputs
    design = design_model(params, signals.steps, signals.values.shape[2], n_conditions)
    scaler = _scaler(problem, design, params)
    training = _training_signals(problem, scaler, design)
    generator = torch.Generator().manual_seed(seed)
    model = build_model(design, networks, generator)
    log = fit_model(model, training, params, generator, callbacks)
    model.eval().requires_grad_(False)
    fit = DenoiserFit(
        model=model,
        design=design,
        scaler=scaler,
        index=_without_rows(signals),
        window=signals.window,
        supervised=problem.clean is not None,
        gapless=not hides_entries(params, problem.clean is not None) and not _has_gaps(training),
        conditions=problem.conditions,
        density=None,  # type: ignore[arg-type]
        residuals=None,  # type: ignore[arg-type]
        filter=None,  # type: ignore[arg-type]
        health=None,  # type: ignore[arg-type]
        log=log,
    )
    return _measured(fit, problem, _examined(signals, seed), params, seed)


def _check_lengths(signals: Signals, params: Parameters) -> None:
    longest = int(np.max(signals.index.lengths))
    if signals.window is not None and signals.window > longest:
        raise ValueError(
            f"window={signals.window} is longer than the longest series, {longest} steps; choose a "
            "shorter window, or window=None if rows are records."
        )
    if params["block_length"] >= signals.steps > 1:
        raise ValueError(
            f"block_length={params['block_length']} must be less than the {signals.steps} steps "
            "that the model sees at once; hidden entries are predicted from those beside them."
        )


def _measured(
    fit: DenoiserFit, problem: Problem, windows: Windows, params: Parameters, seed: int
) -> DenoiserFit:
    """Add what is measured with the trained model: noise, density of codes, health."""
    coder, scaler = fit.coder(params), fit.scaler
    values = scaler.forward(windows.values, windows.mask)
    given = None if problem.given is None else problem.given[windows.starts.series]
    posterior = coder.posterior(values, windows.mask, given)
    reconstruction = coder.reconstruct(values, windows.mask, given)
    target, mask = _target(problem, windows, scaler)
    if problem.clean is not None:
        _measure_noise(fit.model, values - reconstruction, windows.mask)
    if fit.design.kind == "vq":
        _fit_code_prior(fit.model, values, windows.mask, seed)
    learns_all = not hides_entries(params, problem.clean is not None)
    kl = None
    if hasattr(fit.model, "kl_per_dimension"):
        kl = coder.kl_per_dimension(values, windows.mask, given)
    health = examine(
        posterior[:, 0],
        kl,
        target if learns_all else None,
        mask,
        reconstruction,
    )
    if len(values) > 1:  # one record leaves nothing to tell apart
        warn_about(health, fit.design.kind, fit.design.latent)
    density = fit_density(posterior[:, 0], posterior[:, 1], seed)
    drawn = reconstruction
    if health.kl_per_dimension is not None:
        noise = np.random.default_rng(seed).standard_normal(posterior[:, 0].shape)
        drawn = coder.decode(posterior[:, 0] + np.exp(0.5 * posterior[:, 1]) * noise, given)
    residuals = fit_residuals(values - drawn, windows.mask)
    left_out = fit_filter(values - reconstruction, windows.mask)
    return replace(fit, density=density, residuals=residuals, filter=left_out, health=health)


def _scaler(problem: Problem, design: Design, params: Parameters) -> SignalScaler:
    signals, clean = problem.signals, problem.clean
    by = params["scaling"]
    if by == "auto":
        table = signals.window is None and design.n_steps < _SHORT_FOR_DOUBLE
        by = "column" if table else "variable"
    if by == "column" and signals.window is not None:
        raise ValueError(
            "scaling='column' is for records; with window= rows are time, so use "
            "scaling='variable'."
        )
    unit = params["final_sigmoid"] or family_likelihood(params["likelihood"]).support == "unit"
    scaler = fit_scaler(signals.values, signals.mask, by, unit)
    return scaler if clean is None else scaler.told_by(clean.values, clean.mask)


def _training_signals(problem: Problem, scaler: SignalScaler, design: Design) -> TrainingSignals:
    signals, clean = problem.signals, problem.clean
    index = signals.index
    return TrainingSignals(
        values=scaler.forward(signals.values, signals.mask),
        mask=signals.mask,
        lengths=np.asarray(index.lengths, dtype=np.int64),
        window=signals.steps,
        clean=None if clean is None else scaler.forward(clean.values, clean.mask),
        clean_mask=None if clean is None else clean.mask,
        conditions=problem.given,
        dense=design.architecture == "mlp",
    )


def _has_gaps(training: TrainingSignals) -> bool:
    """Whether windows lack entries: inside of series, or because a series is shorter."""
    inside = np.arange(training.mask.shape[1]) < training.lengths[:, None]
    shorter = (training.lengths < training.window).any()
    return bool(shorter or not training.mask[inside].all())


def _examined(signals: Signals, seed: int) -> Windows:
    """Choose training windows at random, at most ``_EXAMINED``, none of them empty."""
    windows = signals.windows(overlap=False)
    seen = np.flatnonzero(windows.mask.any(axis=(1, 2)))
    if len(seen) > _EXAMINED:
        seen = np.sort(np.random.default_rng(seed).choice(seen, _EXAMINED, replace=False))
    starts = type(windows.starts)(*(part[seen] for part in windows.starts))
    return Windows(windows.values[seen], windows.mask[seen], starts)


def _target(
    problem: Problem, windows: Windows, scaler: SignalScaler
) -> tuple[Array, NDArray[np.bool_]]:
    if problem.clean is None:
        return scaler.forward(windows.values, windows.mask), windows.mask
    both = problem.clean.windows(overlap=False)
    place = {
        pair: i for i, pair in enumerate(zip(*map(np.ndarray.tolist, both.starts), strict=True))
    }
    chosen = [place[pair] for pair in zip(*map(np.ndarray.tolist, windows.starts), strict=True)]
    mask = both.mask[chosen]
    return scaler.forward(both.values[chosen], mask), mask


def _measure_noise(model: Any, residual: Array, mask: NDArray[np.bool_]) -> None:
    """Give the likelihood the scale of the signals as they come, not of clean targets.

    Densities and anomaly scores are about the signals that the user has.
    """
    observation = model.observation
    law = observation.likelihood
    if "scale" not in law.raw_names or observation.scale_kind == "fixed":
        return
    power = 1 if law.name == "laplace" else 2
    count = np.maximum(mask.sum(axis=(0, 1)), 1)
    size = (np.where(mask, np.abs(residual), 0.0) ** power).sum(axis=(0, 1)) / count
    spread = size ** (1.0 / power)
    if "df" in law.raw_names:
        # The variance of Student's t is scale^2 df / (df - 2).
        params = observation.parameters_at(torch.zeros(residual.shape[-1]))
        spread *= torch.sqrt((params.df - 2.0) / params.df).detach().numpy()
    place = law.raw_names[1:].index("scale")
    wanted = torch.as_tensor(np.maximum(spread, 1e-4), dtype=observation.raw_scale.dtype)
    raw = law.initial_raw(wanted)[place]
    with torch.no_grad():
        observation.raw_scale.copy_(raw)


def _fit_code_prior(model: Any, values: Array, mask: NDArray[np.bool_], seed: int) -> None:
    with torch.no_grad():
        x = torch.as_tensor(values, dtype=torch.float32)
        codes = torch.cat(
            [
                model.encode(part, torch.as_tensor(seen)).codes
                for part, seen in zip(x.split(64), torch.as_tensor(mask).split(64), strict=True)
            ]
        )
    model.fit_prior(codes, torch.Generator().manual_seed(seed))


def _without_rows(signals: Signals) -> RecordIndex | PanelIndex:
    index = signals.index
    if isinstance(index, RecordIndex):
        return index.new_records(0)
    return Panel(signals.values, signals.mask, index).slice_time(0, 1).index
