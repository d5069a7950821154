"""Fitting a structured VAE to a problem, and what a fitted one consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsvae.estimation.building import (
    MAX_CHANNELS,
    Sizes,
    detect_periods,
    fixed_angles,
    measure_spread,
    resolve_sizes,
    ridge,
    set_bank,
    start_model,
)
from tsvae.estimation.calibration import measure_widening, rows_to_hold_back
from tsvae.estimation.covariates import InputDesign
from tsvae.estimation.engine import Engine
from tsvae.estimation.fitting import TrainingData, fit_model
from tsvae.estimation.model_file import pack_array
from tsvae.estimation.reading import Problem
from tsvae.estimation.scaling import PanelScaler, Scaling, fit_scaler
from tsvae.lds import LDSParameters
from tsvae.models import SVAE
from tsvae.models.start import PRECISION_START
from tsvae.nn import get_likelihood
from tsvae.panel import Panel, PanelIndex, calendar_features, concat, seasonal_periods
from tsvae.training import Augmentation, BetaSchedule, Callback, TrainingConfig, TrainingLog

__all__ = ["StructuredFit", "fit_structured", "pack_fit", "unpack_fit"]

Parameters = Mapping[str, Any]

_SCALE_BOUNDS = (0.02, 0.5)
_SCALE_START = 0.4  # observation noise of standardised data at the start
_FINISH_SHARE, _FINISH_RATE = 0.3, 0.3  # of epochs and rates, for the rows held back
_ELBO_SHARE = 0.25  # of a training batch: the smoother costs more than the filter
_TRAINING_SAMPLES = 4


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
    widening : ndarray (F,)
        Factor of the spread of forecasts.
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
    widening: np.ndarray

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
        return _engine(self.model, self.scaler, self.design, self.sizes, params, self.widening)


def _engine(
    model: SVAE,
    scaler: PanelScaler,
    design: InputDesign,
    sizes: Sizes,
    params: Parameters,
    widening: np.ndarray,
) -> Engine:
    return Engine(
        model,
        scaler,
        design,
        sizes,
        params["device"],
        params["n_threads"],
        params["n_samples"],
        widening,
    )


def fit_structured(
    problem: Problem, params: Parameters, seed: int, callbacks: Sequence[Callback]
) -> StructuredFit:
    """Scale, build, start and train.

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
    scaler, values = _scale(panel, params)
    design = _design(problem, params)
    inputs = design.build(panel.index, panel.n_steps, problem.covariates)
    sizes = resolve_sizes(panel.n_steps, params["context_length"], params["horizon"])
    if not params["window_level"] or not _real(params) or params["final_sigmoid"]:
        sizes = replace(sizes, level_entries=0)
    settings = _model_settings(panel, design.n_inputs, sizes, params, seed)
    model = _start_model(panel, values, inputs, sizes, settings, params, bool(design.angles))
    beta = BetaSchedule(
        params["beta_min"],
        params["beta"],
        params["beta_warmup_steps"],
        params["beta_annealing_steps"],
    )
    data = TrainingData(values, panel.mask, panel.lengths, inputs)
    config = _config(params)
    generator = torch.Generator().manual_seed(seed)

    def train(part: TrainingData, config: TrainingConfig, beta: BetaSchedule | None) -> TrainingLog:
        return fit_model(
            model,
            part,
            sizes,
            config,
            validation_fraction=params["validation_fraction"],
            augmentation=_augmentation(params),
            generator=generator,
            callbacks=callbacks,
            beta=beta,
        )

    held_back = rows_to_hold_back(panel.lengths, sizes) if _calibrates(params, design) else 0
    widening = np.ones(panel.n_features)
    if held_back:
        log = train(data.without_last(held_back), config, beta)
        engine = _engine(model, scaler, design, sizes, params, widening)
        widening = measure_widening(engine, problem, held_back, sizes.horizon)
        log = _finish(train, data, config, log)
    else:
        log = train(data, config, beta)
    model.eval().requires_grad_(False)
    return StructuredFit(
        model,
        settings,
        scaler,
        design,
        sizes,
        panel.index,
        None if problem.covariates is None else problem.covariates.index,
        _kept(problem, sizes),
        log,
        widening,
    )


def _calibrates(params: Parameters, design: InputDesign) -> bool:
    return bool(params["calibrate"]) and _real(params) and not params["final_sigmoid"]


def _finish(
    train: Callable[..., TrainingLog],
    data: TrainingData,
    config: TrainingConfig,
    log: TrainingLog,
) -> TrainingLog:
    """Go on with all rows, the ones held back included, at a lower rate."""
    rate = config.learning_rate
    final = replace(
        config,
        max_epochs=max(1, round(_FINISH_SHARE * config.max_epochs)),
        learning_rate=rate if isinstance(rate, str) else _FINISH_RATE * rate,
        natural_learning_rate=_FINISH_RATE * config.natural_learning_rate,
    )
    return log.extended(train(data, final, None))


def check_enough(panel: Panel) -> None:
    """Raise ValueError if there is nothing to learn dynamics from."""
    observed = panel.mask.any(-1).sum(1)
    if observed.max(initial=0) < 2:
        raise ValueError(
            f"the data have {int(observed.max(initial=0))} sample(s) with observed values, while a "
            "minimum of 2 is required: dynamics need at least two rows of one series; give more."
        )


def _real(params: Parameters) -> bool:
    return get_likelihood(params["likelihood"]).support == "real"


def _scale(panel: Panel, params: Parameters) -> tuple[PanelScaler, np.ndarray]:
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
        and _real(params)
        and not params["final_sigmoid"]
    ):
        angles = tuple(fixed_angles(_periods(problem.target, params), problem.target.n_steps))
    return InputDesign(scaler, names, angles, index.clock if angles else None)


def _periods(panel: Panel, params: Parameters) -> list[float]:
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


def _model_settings(
    panel: Panel, n_inputs: int, sizes: Sizes, params: Parameters, seed: int
) -> dict[str, Any]:
    n_features = panel.n_features
    channelwise = params["channels"] == "independent" or (
        params["channels"] == "auto" and n_features <= MAX_CHANNELS
    )
    size = params["group_size"]
    posterior = "natural" if params["natural_gradient"] else "gradient"
    if params["point_estimate"]:
        posterior = "point"
    chart = "generator" if posterior != "natural" and size in (1, 2) else "linear"
    chains = n_features if channelwise else 1
    hidden = tuple(int(width) for width in params["hidden_sizes"])
    real = _real(params) and not params["final_sigmoid"]
    return {
        "n_features": n_features,
        "n_inputs": n_inputs,
        "latent_dim": int(params["latent_dim"]),
        "dynamics": {
            "group_size": size,
            "posterior": posterior,
            "chart": chart,
            "prior_scale": params["prior_scale"],
            "prior_degrees": params["prior_degrees"],
            "prior_precision": params["prior_precision"],
            "prior_mean": params["prior_mean"],
        },
        "channelwise": channelwise,
        "encoder_sizes": hidden,
        "decoder_sizes": hidden,
        "activation": params["activation"],
        "layer_norm": params["layer_norm"],
        "final_sigmoid": params["final_sigmoid"],
        "likelihood": params["likelihood"],
        "scale": params["scale"],
        "potential": params["potential"],
        "precision": params["encoder_precision"],
        "scale_start": _SCALE_START,
        "level_entries": sizes.level_entries,
        "learn_scale": channelwise and real and n_features > 1,
        "n_samples": _TRAINING_SAMPLES,
        "elbo_weight": params["elbo_weight"],
        "elbo_share": _ELBO_SHARE,
        "forecast_weight": params["forecast_weight"],
        "horizon": sizes.horizon,
        "n_origins": params["n_origins"],
        "min_history": sizes.min_history,
        "drop_correction": params["drop_correction"],
        "n_windows": float(max(panel.lengths.sum() / sizes.window, 1.0) * chains),
        "seed": seed,
    }


def _build(
    settings: Mapping[str, Any],
    start: LDSParameters | None = None,
) -> SVAE:
    settings = dict(settings)
    dynamics = {**settings.pop("dynamics"), "start": start}
    n_features = settings.pop("n_features")
    for name in ("encoder_sizes", "decoder_sizes"):
        settings[name] = tuple(settings[name])
    return SVAE(n_features, dynamics=dynamics, **settings)


def _start_model(
    panel: Panel,
    values: np.ndarray,
    inputs: np.ndarray | None,
    sizes: Sizes,
    settings: dict[str, Any],
    params: Parameters,
    fixed_seasons: bool,
) -> SVAE:
    """Build the model where the data suggest to begin; ``settings`` take the noise level."""
    periods = [p for p in _periods(panel, params) if p <= sizes.context]
    if not periods and params["seasonal_periods"] == "auto":
        periods = detect_periods(values, panel.mask, sizes.context)
    effects = None
    if inputs is not None and _real(params):
        effects = ridge(values, panel.mask, inputs)
        values = np.where(panel.mask, values - inputs @ effects.T, 0.0)
    spread = measure_spread(values, panel.mask, sizes)
    if settings["level_entries"]:
        share = float(np.median(spread.noise / spread.window))
        settings["scale_start"] = float(np.clip(share, *_SCALE_BOUNDS))
    precision = PRECISION_START
    if settings["channelwise"] and settings["level_entries"]:
        precision = settings["scale_start"] ** -2.0
    n_inputs = 0 if settings["channelwise"] else settings["n_inputs"]
    start = start_model(
        settings["latent_dim"],
        params["group_size"],
        periods,
        sizes,
        settings["seed"],
        n_inputs,
        precision,
        fixed_seasons,
    )
    model = _build(settings, start.dynamics)
    if start.bank is not None and settings["channelwise"] and settings["potential"] == "diagonal":
        set_bank(model, start.bank)
    with torch.no_grad():
        if settings["level_entries"]:
            model.log_scale.copy_(torch.as_tensor(np.log(spread.window)))
        if effects is not None:
            model.covariate_matrix.copy_(torch.as_tensor(effects))
    return model


def _config(params: Parameters) -> TrainingConfig:
    return TrainingConfig(
        max_epochs=params["max_epochs"],
        batch_size=params["batch_size"],
        learning_rate=params["learning_rate"],
        natural_learning_rate=params["natural_learning_rate"],
        optimizer=params["optimizer"],
        lr_schedule=params["lr_schedule"],
        warmup_steps=params["warmup_steps"],
        clip_norm=params["clip_norm"],
        patience=params["patience"],
        min_delta=params["min_delta"],
        max_time=params["max_time"],
        precision=params["precision"],
        device=params["device"],
        n_threads=params["n_threads"],
        verbose=bool(params["verbose"]),
    )


def _augmentation(params: Parameters) -> Augmentation | None:
    if not (params["mask_fraction"] or params["block_length"] or params["noise_scale"]):
        return None
    return Augmentation(
        random_fraction=params["mask_fraction"],
        n_blocks=1 if params["block_length"] else 0,
        block_length=max(params["block_length"], 1),
        noise_scale=params["noise_scale"],
    )


def _kept(problem: Problem, sizes: Sizes) -> Problem:
    """Rows kept in the fitted estimator.

    All of them beside covariates, whose rows inside the training range are predicted, too.
    """
    if problem.covariates is not None:
        return problem
    panel = problem.target
    return Problem(panel.tail(sizes.context), None)


# -- files -----------------------------------------------------------------------------------


def pack_fit(fit: StructuredFit) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """JSON header and tensors of a fit."""
    tensors = {f"model.{name}": t for name, t in fit.model.state_dict().items()}
    header: dict[str, Any] = {
        "settings": fit.settings,
        "scaler": fit.scaler.to_dict(),
        "design": fit.design.to_dict(),
        "sizes": asdict(fit.sizes),
        "target": fit.target.to_dict(),
        "covariates": None if fit.covariates is None else fit.covariates.to_dict(),
        "log": fit.log.to_dict(),
        "widening": fit.widening.tolist(),
        "history": {},
    }
    for name, panel in fit.history._asdict().items():
        header["history"][name] = None if panel is None else panel.index.to_dict()
        if panel is not None:
            tensors[f"history.{name}.values"] = pack_array(panel.values)
            tensors[f"history.{name}.mask"] = pack_array(panel.mask)
    return header, tensors


def unpack_fit(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> StructuredFit:
    """Inverse of :func:`pack_fit`."""
    model = _build(header["settings"])
    state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(state)
    model.eval().requires_grad_(False)
    panels: dict[str, Panel | None] = {}
    for name, index in header["history"].items():
        panels[name] = None
        if index is not None:
            panels[name] = _unpack_panel(tensors, f"history.{name}", PanelIndex.from_dict(index))
    covariates = header["covariates"]
    target = panels["target"]
    if target is None:
        raise KeyError("history of the target")
    return StructuredFit(
        model,
        dict(header["settings"]),
        PanelScaler.from_dict(header["scaler"]),
        InputDesign.from_dict(header["design"]),
        Sizes(**header["sizes"]),
        PanelIndex.from_dict(header["target"]),
        None if covariates is None else PanelIndex.from_dict(covariates),
        Problem(target, panels["covariates"]),
        TrainingLog.from_dict(header["log"]),
        np.asarray(header["widening"], dtype=float),
    )


def _unpack_panel(tensors: Mapping[str, Tensor], name: str, index: PanelIndex) -> Panel:
    values, mask = (tensors[f"{name}.{part}"].numpy() for part in ("values", "mask"))
    shape = (index.n_series, index.n_steps, len(index.variables))
    if values.shape != shape or mask.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
    return Panel(values, mask, index)
