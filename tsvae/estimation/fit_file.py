"""A fit as a JSON header and tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from tsvae.estimation.anchoring import Anchored
from tsvae.estimation.building import Sizes, build_model
from tsvae.estimation.covariates import InputDesign
from tsvae.estimation.joint_filling import JointFilling
from tsvae.estimation.model_file import pack_array
from tsvae.estimation.reading import Problem
from tsvae.estimation.scaling import PanelScaler
from tsvae.estimation.spread import ForecastSpread
from tsvae.estimation.structured import StructuredFit
from tsvae.models import SVAE
from tsvae.panel import Panel, PanelIndex
from tsvae.training import TrainingLog

__all__ = ["pack_fit", "unpack_fit"]


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
        "spread": fit.spread.to_dict(),
        "history": {},
    }
    if fit.filling is not None:
        header["filling"] = fit.filling.to_dict()
        tensors |= {f"filling.{name}": t for name, t in fit.filling.tensors().items()}
    if fit.anchored is not None:
        header["anchored"] = fit.anchored.settings
        state = fit.anchored.model.state_dict()
        tensors |= {f"anchored.{name}": t for name, t in state.items()}
    for name, panel in fit.history._asdict().items():
        header["history"][name] = None if panel is None else panel.index.to_dict()
        if panel is not None:
            tensors[f"history.{name}.values"] = pack_array(panel.values)
            tensors[f"history.{name}.mask"] = pack_array(panel.mask)
    return header, tensors


def unpack_fit(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> StructuredFit:
    """Inverse of :func:`pack_fit`."""
    model = _unpack_model(header["settings"], tensors, "model.")
    anchored = header.get("anchored")
    if anchored is not None:
        anchored = Anchored(_unpack_model(anchored, tensors, "anchored."), dict(anchored))
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
        ForecastSpread.from_dict(header["spread"]),
        _unpack_filling(header.get("filling"), tensors),
        anchored,
    )


def _unpack_model(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str) -> SVAE:
    model = build_model(settings)
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _unpack_filling(
    data: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]
) -> JointFilling | None:
    if data is None:
        return None
    own = {k.removeprefix("filling."): t for k, t in tensors.items() if k.startswith("filling.")}
    return JointFilling.from_parts(data, own)


def _unpack_panel(tensors: Mapping[str, Tensor], name: str, index: PanelIndex) -> Panel:
    values, mask = (tensors[f"{name}.{part}"].numpy() for part in ("values", "mask"))
    shape = (index.n_series, index.n_steps, len(index.variables))
    if values.shape != shape or mask.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
    return Panel(values, mask, index)
