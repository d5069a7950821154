"""Building the model where the data suggest to begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tsvae.estimation.building import (
    Sizes,
    detect_periods,
    measure_spread,
    ridge,
    set_bank,
    start_model,
)
from tsvae.estimation.settings import Parameters, is_real
from tsvae.lds import LDSParameters
from tsvae.models import SVAE
from tsvae.models.start import PRECISION_START
from tsvae.panel import Panel, seasonal_periods

__all__ = ["build_at_start", "build_model", "given_periods"]

_SCALE_BOUNDS = (0.02, 0.5)


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


def build_model(
    settings: Mapping[str, Any],
    start: LDSParameters | None = None,
) -> SVAE:
    """Build the model from its settings; ``start`` is where its dynamics begin."""
    settings = dict(settings)
    dynamics = {**settings.pop("dynamics"), "start": start}
    n_features = settings.pop("n_features")
    for name in ("encoder_sizes", "decoder_sizes"):
        settings[name] = tuple(settings[name])
    return SVAE(n_features, dynamics=dynamics, **settings)


def build_at_start(
    panel: Panel,
    values: np.ndarray,
    inputs: np.ndarray | None,
    sizes: Sizes,
    settings: dict[str, Any],
    params: Parameters,
    fixed_seasons: bool,
) -> SVAE:
    """Build the model where the data suggest to begin; ``settings`` take the noise level."""
    periods = [p for p in given_periods(panel, params) if p <= sizes.context]
    if not periods and isinstance(params["seasonal_periods"], str):  # "auto"
        periods = detect_periods(values, panel.mask, sizes.context)
    effects = None
    if inputs is not None and is_real(params):
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
    model = build_model(settings, start.dynamics)
    if start.bank is not None and settings["channelwise"] and settings["potential"] == "diagonal":
        set_bank(model, start.bank)
    with torch.no_grad():
        if settings["level_entries"]:
            model.log_scale.copy_(torch.as_tensor(np.log(spread.window)))
        if effects is not None:
            model.covariate_matrix.copy_(torch.as_tensor(effects))
    return model
