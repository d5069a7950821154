"""A denoiser's fit as a JSON header and tensors, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from tsvae._denoiser.conditions import ConditionCoder
from tsvae._denoiser.denoising import DenoiserFit
from tsvae._denoiser.density import CodeDensity
from tsvae._denoiser.filtering import ResidualFilter
from tsvae._denoiser.health import Health
from tsvae._denoiser.residuals import ResidualNoise
from tsvae._records.building import build_model
from tsvae._records.design import Design
from tsvae._records.scaling import SignalScaler
from tsvae._records.tensors import arrays_of, part_of
from tsvae.panel import PanelIndex, RecordIndex
from tsvae.training import TrainingLog

__all__ = ["pack", "unpack"]


def pack(fit: DenoiserFit) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """JSON header and tensors of a fit."""
    if fit.design.architecture == "custom":
        raise TypeError(
            "a denoiser with networks of your own (architecture=(encoder, decoder)) cannot be "
            "saved, since loading must not run code; save model_.state_dict() instead."
        )
    tensors = {f"model.{name}": t for name, t in fit.model.state_dict().items()}
    for part in ("density", "residuals", "filter"):
        for name, array in getattr(fit, part).to_arrays().items():
            tensors[f"{part}.{name}"] = torch.as_tensor(np.ascontiguousarray(array))
    health = asdict(fit.health)
    if health["kl_per_dimension"] is not None:
        health["kl_per_dimension"] = health["kl_per_dimension"].tolist()
    kind = "records" if isinstance(fit.index, RecordIndex) else "panel"
    header: dict[str, Any] = {
        "design": asdict(fit.design),
        "scaler": fit.scaler.to_dict(),
        "index": {"kind": kind, "data": fit.index.to_dict()},
        "window": fit.window,
        "supervised": fit.supervised,
        "gapless": fit.gapless,
        "conditions": None if fit.conditions is None else fit.conditions.columns,
        "health": health,
        "log": fit.log.to_dict(),
    }
    return header, tensors


def unpack(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> DenoiserFit:
    """Inverse of :func:`pack`."""
    plan = dict(header["design"])
    plan["hidden_sizes"] = tuple(plan["hidden_sizes"])
    design = Design(**plan)
    model = build_model(design, None, torch.Generator().manual_seed(0))
    model.load_state_dict(part_of(tensors, "model."))
    model.eval().requires_grad_(False)
    health = dict(header["health"])
    if health["kl_per_dimension"] is not None:
        health["kl_per_dimension"] = np.asarray(health["kl_per_dimension"])
    conditions = header["conditions"]
    reader: Any = RecordIndex if header["index"]["kind"] == "records" else PanelIndex
    return DenoiserFit(
        model=model,
        design=design,
        scaler=SignalScaler.from_dict(header["scaler"]),
        index=reader.from_dict(header["index"]["data"]),
        window=header["window"],
        supervised=bool(header["supervised"]),
        gapless=bool(header["gapless"]),
        conditions=None if conditions is None else ConditionCoder(conditions),
        density=CodeDensity.from_arrays(arrays_of(tensors, "density.")),
        residuals=ResidualNoise.from_arrays(arrays_of(tensors, "residuals.")),
        filter=ResidualFilter.from_arrays(arrays_of(tensors, "filter.")),
        health=Health(**health),
        log=TrainingLog.from_dict(header["log"]),
    )
