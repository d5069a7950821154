"""Predictive distributions in model units, and the way back to the data's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.scaling import PanelScaler
from tsvae.estimation.table import TablePredictive
from tsvae.models.predictive import NormalPredictive, SamplePredictive

__all__ = ["Predictions", "on_cpu", "to_numpy"]

Margins = NormalPredictive | SamplePredictive | TablePredictive

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MEAN_LEVELS = torch.linspace(0.005, 0.995, 100)


@dataclass(frozen=True)
class Predictions:
    """Predictive distributions in model units and the way back to the data's.

    Attributes
    ----------
    parts : list of NormalPredictive, TablePredictive or SamplePredictive
        Chunks along the first axis.
    scaler : PanelScaler
    """

    parts: Sequence[Margins]
    scaler: PanelScaler

    def mean(self) -> Array:
        """Means ``(N, T, F)`` in original units."""
        if self.scaler.affine:
            return self.scaler.inverse(to_numpy(torch.cat([part.mean for part in self.parts])))
        inverse = [
            self.scaler.inverse(to_numpy(part.quantiles(_MEAN_LEVELS).movedim(-1, 0))).mean(0)
            for part in self.parts
        ]
        return np.concatenate(inverse)

    def quantiles(self, levels: Array) -> Array:
        """Quantiles ``(N, T, F, Q)`` in original units."""
        found = torch.cat([part.quantiles(torch.as_tensor(levels)) for part in self.parts])
        return np.moveaxis(self.scaler.inverse(to_numpy(found.movedim(-1, 0))), 0, -1)

    def crps(self, values: Array, mask: Mask) -> float:
        """Mean CRPS of observed values, all in model units; NaN if there are none."""
        scores = np.concatenate(
            [
                _crps(part, truth)
                for part, truth in zip(self.parts, self._split(values), strict=True)
            ]
        )
        return float(scores[mask].mean()) if mask.any() else float("nan")

    def _split(self, values: Array) -> list[Tensor]:
        sizes = [len(part.mean) for part in self.parts]
        return list(torch.as_tensor(values, dtype=torch.float32).split(sizes))


def to_numpy(tensor: Tensor) -> Array:
    """Copy a tensor to a float64 array."""
    return tensor.detach().cpu().numpy().astype(np.float64)


def _crps(part: Margins, truth: Tensor) -> Array:
    if isinstance(part, NormalPredictive):
        # Gneiting & Raftery 2007 (JASA 102), section 4.2.
        z = (truth - part.mean) / part.scale
        density = torch.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
        inner = z * (2.0 * torch.special.ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi)
        return to_numpy(part.scale * inner)
    if isinstance(part, TablePredictive):
        return to_numpy(part.crps(truth))
    ordered = part.samples.sort(dim=0).values
    n_samples = len(ordered)
    rank = torch.arange(1, n_samples + 1).reshape(-1, 1, 1, 1)
    spread = ((2.0 * rank - n_samples - 1.0) * ordered).sum(0) / (n_samples * (n_samples - 1))
    return to_numpy((part.samples - truth).abs().mean(0) - spread)


def on_cpu(part: NormalPredictive | SamplePredictive) -> NormalPredictive | SamplePredictive:
    """Bring a distribution to the CPU."""
    if isinstance(part, NormalPredictive):
        return NormalPredictive(part.mean.cpu(), part.scale.cpu())
    return SamplePredictive(part.samples.cpu())
