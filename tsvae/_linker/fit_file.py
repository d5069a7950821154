"""A linker's fit as a JSON header and tensors, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from tsvae._linker.evidence import Evidence
from tsvae._linker.linking import LinkerFit, build_pair
from tsvae._linker.ranges import SideRange
from tsvae._linker.sides import SideScale
from tsvae._linker.spread import Spread
from tsvae._linker.translator import SideName
from tsvae._records.design import Design
from tsvae._records.tensors import arrays_of, part_of
from tsvae.training import TrainingLog

__all__ = ["pack", "unpack"]

_SIDES: tuple[SideName, SideName] = ("a", "b")


def pack(fit: LinkerFit) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """JSON header and tensors of a fit."""
    tensors = {f"model.{name}": t for name, t in fit.model.state_dict().items()}
    for side in _SIDES:
        for part, fitted in (("spread", fit.spreads[side]), ("range", fit.ranges[side])):
            for name, array in fitted.to_arrays().items():
                tensor = torch.from_numpy(np.array(array, order="C"))
                tensors[f"{part}_{side}.{name}"] = tensor
    for name, array in fit.evidence.to_arrays().items():
        tensors[f"evidence.{name}"] = torch.as_tensor(np.ascontiguousarray(array))
    header: dict[str, Any] = {
        "designs": {side: asdict(fit.designs[side]) for side in _SIDES},
        "scales": {side: fit.scales[side].to_dict() for side in _SIDES},
        "projector": fit.model.projector_sizes,
        "active": fit.active.tolist(),
        "separate": None if fit.separate is None else fit.separate.to_dict(),
        "joint": fit.joint.to_dict(),
    }
    return header, tensors


def unpack(
    header: dict[str, Any], tensors: dict[str, torch.Tensor], params: dict[str, Any]
) -> LinkerFit:
    """Inverse of :func:`pack`."""
    designs: dict[SideName, Design] = {}
    for side in _SIDES:
        plan = dict(header["designs"][side])
        plan["hidden_sizes"] = tuple(plan["hidden_sizes"])
        designs[side] = Design(**plan)
    settings = dict(params) | {"projector": header["projector"]}
    model = build_pair(designs, settings, torch.Generator().manual_seed(0))
    model.load_state_dict(part_of(tensors, "model."))
    model.eval().requires_grad_(False)
    parts = {
        f"{kind}_{side}": arrays_of(tensors, f"{kind}_{side}.")
        for kind in ("spread", "range")
        for side in _SIDES
    }
    separate = header["separate"]
    return LinkerFit(
        model=model,
        designs=designs,
        scales={side: SideScale.from_dict(header["scales"][side]) for side in _SIDES},
        spreads={side: Spread.from_arrays(parts[f"spread_{side}"]) for side in _SIDES},
        ranges={side: SideRange.from_arrays(parts[f"range_{side}"]) for side in _SIDES},
        evidence=Evidence.from_arrays(arrays_of(tensors, "evidence.")),
        active=np.array(header["active"], dtype=bool),
        separate=None if separate is None else TrainingLog.from_dict(separate),
        joint=TrainingLog.from_dict(header["joint"]),
    )
