"""From panels to predictions: windows of history, batched passes of the model, original units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.building import Sizes
from tsvae.estimation.covariates import InputDesign
from tsvae.estimation.scaling import PanelScaler
from tsvae.models import SVAE
from tsvae.models.predictive import (
    NormalPredictive,
    Predictive,
    SamplePredictive,
    forecast,
    one_step_log_density,
    sample_paths,
    smooth_latents,
    smooth_values,
)
from tsvae.panel import Panel, gather
from tsvae.training import pinned_threads, resolve_device

__all__ = ["Engine", "Histories", "LatentStates", "Predictions"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ENTRIES_PER_PASS = 6_000_000  # latent entries (chains x steps x D) held at once
_MEAN_LEVELS = torch.linspace(0.005, 0.995, 100)


class Histories(NamedTuple):
    """Windows of history in model units, one per forecast.

    Attributes
    ----------
    values : ndarray (N, T, F)
        0 where hidden; row 0 is the oldest.
    mask : bool ndarray (N, T, F)
    lengths : ndarray (N,)
        Rows of each.
    inputs : ndarray (N, T, U) or None
    future_inputs : ndarray (N, H, U) or None
    """

    values: Array
    mask: Mask
    lengths: NDArray[np.int64]
    inputs: Array | None
    future_inputs: Array | None


class LatentStates(NamedTuple):
    """Smoothed latent means and variances, ``(B, T, L)``."""

    mean: Array
    variance: Array


@dataclass(frozen=True)
class Predictions:
    """Predictive distributions in model units and the way back to the data's.

    Attributes
    ----------
    parts : list of NormalPredictive or SamplePredictive
        Chunks along the first axis.
    scaler : PanelScaler
    """

    parts: list[Predictive]
    scaler: PanelScaler

    def mean(self) -> Array:
        """Means ``(N, T, F)`` in original units."""
        if self.scaler.affine:
            return self.scaler.inverse(_numpy(torch.cat([part.mean for part in self.parts])))
        inverse = [
            self.scaler.inverse(_numpy(part.quantiles(_MEAN_LEVELS).movedim(-1, 0))).mean(0)
            for part in self.parts
        ]
        return np.concatenate(inverse)

    def quantiles(self, levels: Array) -> Array:
        """Quantiles ``(N, T, F, Q)`` in original units."""
        found = torch.cat([part.quantiles(torch.as_tensor(levels)) for part in self.parts])
        return np.moveaxis(self.scaler.inverse(_numpy(found.movedim(-1, 0))), 0, -1)

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


def _numpy(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _crps(part: Predictive, truth: Tensor) -> Array:
    if isinstance(part, NormalPredictive):
        # Gneiting & Raftery 2007 (JASA 102), section 4.2.
        z = (truth - part.mean) / part.scale
        density = torch.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
        inner = z * (2.0 * torch.special.ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi)
        return _numpy(part.scale * inner)
    ordered = part.samples.sort(dim=0).values
    n_samples = len(ordered)
    rank = torch.arange(1, n_samples + 1).reshape(-1, 1, 1, 1)
    spread = ((2.0 * rank - n_samples - 1.0) * ordered).sum(0) / (n_samples * (n_samples - 1))
    return _numpy((part.samples - truth).abs().mean(0) - spread)


@dataclass(frozen=True)
class Engine:
    """Runs a fitted model on panels.

    Attributes
    ----------
    model : SVAE
    scaler : PanelScaler
    design : InputDesign
    sizes : Sizes
    device : str
    n_threads : int or None
    n_samples : int
        Draws where no closed form exists.
    widening : ndarray (F,)
        Factor of the spread of forecasts, learned on rows held back; see ``calibrate``.
    """

    model: SVAE
    scaler: PanelScaler
    design: InputDesign
    sizes: Sizes
    device: str
    n_threads: int | None
    n_samples: int
    widening: Array

    # -- windows -----------------------------------------------------------------------------

    def histories(
        self,
        panel: Panel,
        covariates: Panel | None,
        series: NDArray[np.int64],
        ends: NDArray[np.int64],
        horizon: int,
    ) -> Histories:
        """Last ``context`` rows before ``ends`` of the given series, and inputs beyond them."""
        values = self.scaler.forward(panel.values, panel.mask, panel.variables)
        starts = np.maximum(ends - self.sizes.context, 0)
        lengths = np.minimum(ends, self.sizes.context)
        width = max(int(lengths.max(initial=1)), 1)
        mask = gather(panel.mask, series, starts, width)
        mask = mask & (np.arange(width) < lengths[:, None])[..., None]
        windows = np.where(mask, gather(values, series, starts, width), 0.0)
        total = max(panel.n_steps, int(ends.max(initial=0)) + horizon)
        inputs = self.design.build(panel.index, total, covariates)
        if inputs is None:
            return Histories(windows, mask, lengths, None, None)
        return Histories(
            windows,
            mask,
            lengths,
            gather(inputs, series, starts, width),
            gather(inputs, series, ends, horizon),
        )

    # -- passes ------------------------------------------------------------------------------

    def forecast(self, histories: Histories, horizon: int) -> Predictions:
        """Distributions of the next ``horizon`` rows of every history."""
        parts = []
        with self._ready() as device:
            for chunk in self._chunks(histories, horizon):
                generator = torch.Generator().manual_seed(self.model.seed)
                part = forecast(
                    self.model,
                    *_tensors(device, chunk.values, chunk.mask),
                    horizon,
                    inputs=_tensor(device, chunk.inputs),
                    future_inputs=_tensor(device, chunk.future_inputs),
                    lengths=torch.as_tensor(chunk.lengths),
                    n_samples=self.n_samples,
                    generator=generator,
                )
                parts.append(_widen(_on_cpu(part), self.widening))
        return Predictions(parts, self.scaler)

    def sample(self, histories: Histories, horizon: int, n_samples: int, seed: int) -> Array:
        """Joint sample paths ``(S, N, H, F)`` in original units."""
        generator = torch.Generator().manual_seed(seed)
        parts = []
        with self._ready() as device:
            for chunk in self._chunks(histories, horizon, n_samples):
                paths = sample_paths(
                    self.model,
                    *_tensors(device, chunk.values, chunk.mask),
                    horizon,
                    n_samples,
                    inputs=_tensor(device, chunk.inputs),
                    future_inputs=_tensor(device, chunk.future_inputs),
                    lengths=torch.as_tensor(chunk.lengths),
                    generator=generator,
                )
                parts.append(_numpy(_widen_samples(paths.cpu(), self.widening)))
        return self.scaler.inverse(np.concatenate(parts, axis=1))

    def smooth(self, panel: Panel, covariates: Panel | None) -> Predictions:
        """Distributions of every entry given all observed ones, ``(B, T, F)``."""

        def run(x: Tensor, mask: Tensor, inputs: Tensor | None) -> Predictive:
            generator = torch.Generator().manual_seed(self.model.seed)
            return smooth_values(
                self.model, x, mask, inputs, n_samples=self.n_samples, generator=generator
            )

        pieces = self._along_time(panel, covariates, run)
        return Predictions([_join_in_time(pieces)], self.scaler)

    def latents(self, panel: Panel, covariates: Panel | None) -> LatentStates:
        """Smoothed latent moments."""
        pieces = self._along_time(
            panel, covariates, lambda x, mask, inputs: smooth_latents(self.model, x, mask, inputs)
        )
        mean = torch.cat([piece.value.mean[:, piece.keep] for piece in pieces], dim=1)
        variance = torch.cat([piece.value.variance[:, piece.keep] for piece in pieces], dim=1)
        return LatentStates(_numpy(mean), _numpy(variance))

    def log_density(self, panel: Panel, covariates: Panel | None) -> Array:
        """One-step predictive log density of each row, ``(B, T)``, in original units."""

        def run(x: Tensor, mask: Tensor, inputs: Tensor | None) -> Tensor:
            generator = torch.Generator().manual_seed(self.model.seed)
            return one_step_log_density(
                self.model, x, mask, inputs, n_samples=self.n_samples, generator=generator
            )

        pieces = self._along_time(panel, covariates, run, look_ahead=False)
        density = _numpy(torch.cat([piece.value[:, piece.keep] for piece in pieces], dim=1))
        return density + self.scaler.log_slope(panel.values, panel.mask)

    # -- plumbing ----------------------------------------------------------------------------

    def _ready(self) -> _Ready:
        return _Ready(self)

    def _chunks(self, histories: Histories, horizon: int, n_draws: int = 1) -> Iterator[Histories]:
        n_chains, width, features = histories.values.shape
        factor = features if self.model.channelwise else 1
        sampled = self.n_samples if not self.model.closed_form else n_draws
        per_chain = factor * self.model.latent_dim * max(width, sampled * horizon)
        size = max(1, _ENTRIES_PER_PASS // max(per_chain, 1))
        for start in range(0, n_chains, size):
            part = slice(start, start + size)
            known, future = histories.inputs, histories.future_inputs
            yield Histories(
                histories.values[part],
                histories.mask[part],
                histories.lengths[part],
                None if known is None else known[part],
                None if future is None else future[part],
            )

    def _along_time(
        self,
        panel: Panel,
        covariates: Panel | None,
        run: Callable[[Tensor, Tensor, Tensor | None], Any],
        look_ahead: bool = True,
    ) -> list[_Piece]:
        """Run over long series in overlapping pieces about as long as training windows.

        Memory stays bounded, and each piece has a level of its own.
        """
        values = self.scaler.forward(panel.values, panel.mask, panel.variables)
        n_steps = panel.n_steps
        inputs = self.design.build(panel.index, n_steps, covariates)
        margin = self.sizes.context
        body = margin
        pieces = []
        with self._ready() as device:
            for start in range(0, n_steps, body):
                stop = min(start + body, n_steps)
                begin = max(start - margin, 0)
                end = min(stop + margin, n_steps) if look_ahead else stop
                part = slice(begin, end)
                x, mask = _tensors(device, values[:, part], panel.mask[:, part])
                known = None if inputs is None else _tensor(device, inputs[:, part])
                keep = slice(start - begin, stop - begin)
                pieces.append(_Piece(run(x, mask, known), keep))
        return pieces


class _Piece(NamedTuple):
    """Result of a piece of time and the part of it that counts."""

    value: Any
    keep: slice


class _Ready:
    """Model on its device in eval mode, threads pinned; all restored afterwards."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.threads = pinned_threads(engine.n_threads)

    def __enter__(self) -> torch.device:
        device = resolve_device(self.engine.device)
        self.threads.__enter__()
        self.engine.model.to(device).eval()
        return device

    def __exit__(self, *details: object) -> None:
        self.engine.model.to("cpu")
        self.threads.__exit__(None, None, None)


def _tensor(device: torch.device, values: Array | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32, device=device)


def _tensors(device: torch.device, values: Array, mask: Mask) -> tuple[Tensor, Tensor]:
    x = torch.tensor(values, dtype=torch.float32, device=device)
    return x, torch.tensor(mask, device=device)


def _widen(part: Predictive, factor: Array) -> Predictive:
    """Spread around the mean times ``factor`` per variable."""
    by = torch.as_tensor(factor, dtype=torch.float32)
    if bool((by == 1.0).all()):
        return part
    if isinstance(part, NormalPredictive):
        return NormalPredictive(part.mean, part.scale * by)
    return SamplePredictive(_widen_samples(part.samples, factor))


def _widen_samples(samples: Tensor, factor: Array) -> Tensor:
    mean = samples.mean(0)
    return mean + (samples - mean) * torch.as_tensor(factor, dtype=samples.dtype)


def _on_cpu(part: Predictive) -> Predictive:
    if isinstance(part, NormalPredictive):
        return NormalPredictive(part.mean.cpu(), part.scale.cpu())
    return SamplePredictive(part.samples.cpu())


def _join_in_time(pieces: list[_Piece]) -> Predictive:
    if isinstance(pieces[0].value, NormalPredictive):
        mean = torch.cat([piece.value.mean[:, piece.keep].cpu() for piece in pieces], dim=1)
        scale = torch.cat([piece.value.scale[:, piece.keep].cpu() for piece in pieces], dim=1)
        return NormalPredictive(mean, scale)
    samples = [piece.value.samples[:, :, piece.keep].cpu() for piece in pieces]
    return SamplePredictive(torch.cat(samples, dim=2))
