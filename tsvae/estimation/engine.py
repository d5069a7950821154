"""From panels to predictions: windows of history, batched passes of the model, original units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.anchoring import moved_towards
from tsvae.estimation.building import Sizes
from tsvae.estimation.covariates import InputDesign
from tsvae.estimation.histories import Histories, cut_histories
from tsvae.estimation.joint_filling import JointFilling
from tsvae.estimation.pieces import batches_of_pieces
from tsvae.estimation.predictions import Predictions, on_cpu, to_numpy
from tsvae.estimation.scaling import PanelScaler
from tsvae.estimation.spread import ForecastSpread
from tsvae.models import SVAE
from tsvae.models.predictive import (
    NormalPredictive,
    SamplePredictive,
    forecast,
    one_step_log_density,
    sample_paths,
    smooth_latents,
    smooth_values,
)
from tsvae.models.views import Effect
from tsvae.panel import Panel, gather
from tsvae.training import pinned_threads, resolve_device

__all__ = ["Engine", "Histories", "LatentStates", "Predictions", "Smoothed"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ENTRIES_PER_PASS = 6_000_000  # entries of forecasts and their histories held at once
_STATES_PER_PASS = 2_000_000  # latent entries (chains x steps x D) of pieces of long series
_LEVELS = 8  # numbers kept of each forecast value in a pass


class LatentStates(NamedTuple):
    """Smoothed latent means and variances, ``(B, T, L)``."""

    mean: Array
    variance: Array


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
    spread : ForecastSpread
        From the model's margins to those of forecasts.
    filling : JointFilling or None
        What fills hidden entries from all variables; None: the model alone.
    anchored : SVAE or None
        A second model that forecasts are moved towards.
    """

    model: SVAE
    scaler: PanelScaler
    design: InputDesign
    sizes: Sizes
    device: str
    n_threads: int | None
    n_samples: int
    spread: ForecastSpread
    filling: JointFilling | None = None
    anchored: SVAE | None = None

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
        starts = np.maximum(ends - self.sizes.context, 0)
        lengths = np.minimum(ends, self.sizes.context)
        total = max(panel.n_steps, int(ends.max(initial=0)) + horizon)
        inputs = self.design.build(panel.index, total, covariates)
        filling = self.filling if self.filling is not None and self.filling.shows else None
        with pinned_threads(self.n_threads):
            shown = cut_histories(panel, series, starts, ends, self.scaler, inputs, filling)
        if inputs is None:
            return Histories(*shown, lengths, None, None)
        stamps = panel.index.starts[series] + np.stack([starts, ends])
        if covariates is None and self.model.channelwise and not np.ptp(stamps, axis=1).any():
            series, starts, ends = series[:1], starts[:1], ends[:1]
        if self.model.channelwise:
            used, series = np.unique(series, return_inverse=True)
            first = starts.min(initial=total)
            inputs = self._effect(inputs[used, first : ends.max(initial=0) + horizon])
            starts, ends = starts - first, ends - first
        return Histories(
            *shown,
            lengths,
            gather(inputs, series, starts, shown.known.shape[1]),
            gather(inputs, series, ends, horizon),
        )

    @torch.no_grad()
    def _effect(self, inputs: Array) -> Array:
        """Return what inputs add to x, ``(B, T, F)``: few numbers a row, where inputs are many."""
        effect = self.model.effect(_tensor(torch.device("cpu"), inputs))
        assert isinstance(effect, Tensor)
        return to_numpy(effect)

    def _given(self, device: torch.device, inputs: Array | None) -> Tensor | Effect | None:
        """Hand on inputs of histories as the model takes them."""
        found = _tensor(device, inputs)
        return Effect(found) if found is not None and self.model.channelwise else found

    # -- passes ------------------------------------------------------------------------------

    def forecast(self, histories: Histories, horizon: int) -> Predictions:
        """Distributions of the next ``horizon`` rows of every history."""
        with self._ready() as device:
            parts = [
                self.spread.shape(self._margins(device, chunk, horizon), chunk.values, chunk.mask)
                for chunk in self._chunks(histories, horizon)
            ]
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
                    inputs=self._given(device, chunk.inputs),
                    future_inputs=self._given(device, chunk.future_inputs),
                    lengths=torch.as_tensor(chunk.lengths),
                    generator=generator,
                ).cpu()
                parts.append(to_numpy(self._shaped(paths, device, chunk, horizon)))
        return self.scaler.inverse(np.concatenate(parts, axis=1))

    def _shaped(
        self, paths: Tensor, device: torch.device, chunk: Histories, horizon: int
    ) -> Tensor:
        """Give sample paths the means and the spread of forecasts, margin by margin."""
        if self.draws_forecasts:
            margins: NormalPredictive | SamplePredictive = SamplePredictive(paths)
        else:
            margins = self._margins(device, chunk, horizon)
            if self.anchored is not None:
                own = self._forecast(self.model, device, chunk, horizon)
                paths = paths + (margins.mean - own.mean)
        if self.spread.is_plain:
            return paths
        return self.spread.shape_samples(paths, margins, chunk.values, chunk.mask)

    def _margins(
        self, device: torch.device, chunk: Histories, horizon: int
    ) -> NormalPredictive | SamplePredictive:
        """Forecast as the models do."""
        own = self._forecast(self.model, device, chunk, horizon)
        if self.anchored is None or isinstance(own, SamplePredictive):
            return own
        return moved_towards(own, self._forecast(self.anchored, device, chunk, horizon).mean)

    def _forecast(
        self, model: SVAE, device: torch.device, chunk: Histories, horizon: int
    ) -> NormalPredictive | SamplePredictive:
        return on_cpu(
            forecast(
                model,
                *_tensors(device, chunk.values, chunk.mask),
                horizon,
                inputs=self._given(device, chunk.inputs),
                future_inputs=self._given(device, chunk.future_inputs),
                lengths=torch.as_tensor(chunk.lengths),
                n_samples=self.n_samples,
                generator=torch.Generator().manual_seed(model.seed),
            )
        )

    def smooth(self, panel: Panel, covariates: Panel | None) -> Smoothed:
        """Distributions of every entry given all observed ones, ``(B, T, F)``."""
        return Smoothed(self, panel, covariates)

    def fill(self, panel: Panel) -> Smoothed | Predictions:
        """Distributions of which those of hidden entries count, ``(B, T, F)``; no covariates."""
        if self.filling is None or not self.filling.imputes:
            return self.smooth(panel, None)
        wanted = ~panel.mask & (np.arange(panel.n_steps) < panel.lengths[:, None])[..., None]
        effect = self.filling.effect(self.design.build(panel.index, panel.n_steps, None))
        values = self.scaler.forward(panel.values, panel.mask, panel.variables)
        values = np.where(panel.mask, values - effect, 0.0)
        with pinned_threads(self.n_threads):
            found = self.filling.margins(values, panel.mask, wanted, panel.index)
        mean, scale = map(torch.from_numpy, (found.mean + effect, found.scale))
        return Predictions([NormalPredictive(mean, scale)], self.scaler)

    def smoothed(
        self, panel: Panel, covariates: Panel | None, summary: Callable[[Predictions], Array]
    ) -> Array:
        """Summary of the distribution of every entry given all observed ones, ``(B, T, ...)``."""

        def run(x: Tensor, mask: Tensor, inputs: Tensor | None) -> Array:
            generator = torch.Generator().manual_seed(self.model.seed)
            part = smooth_values(
                self.model, x, mask, inputs, n_samples=self.n_samples, generator=generator
            )
            return summary(Predictions([on_cpu(part)], self.scaler))

        return self._along_time(panel, covariates, run)

    def latents(self, panel: Panel, covariates: Panel | None) -> LatentStates:
        """Smoothed latent moments."""

        def run(x: Tensor, mask: Tensor, inputs: Tensor | None) -> Array:
            moments = smooth_latents(self.model, x, mask, inputs)
            return to_numpy(torch.stack([moments.mean, moments.variance], dim=-1))

        both = self._along_time(panel, covariates, run)
        return LatentStates(both[..., 0], both[..., 1])

    def latent_means(self, panel: Panel, covariates: Panel | None) -> Array:
        """Smoothed latent means ``(B, T, L)``."""
        return self._along_time(
            panel,
            covariates,
            lambda x, mask, inputs: to_numpy(smooth_latents(self.model, x, mask, inputs).mean),
        )

    def log_density(self, panel: Panel, covariates: Panel | None) -> Array:
        """One-step predictive log density of each row, ``(B, T)``, in original units."""

        def run(x: Tensor, mask: Tensor, inputs: Tensor | None) -> Array:
            generator = torch.Generator().manual_seed(self.model.seed)
            density = one_step_log_density(
                self.model, x, mask, inputs, n_samples=self.n_samples, generator=generator
            )
            return to_numpy(density)

        density = self._along_time(panel, covariates, run, look_ahead=False)
        return density + self.scaler.log_slope(panel.values, panel.mask)

    # -- plumbing ----------------------------------------------------------------------------

    def _ready(self) -> _Ready:
        return _Ready(self)

    @property
    def models(self) -> list[SVAE]:
        """All models behind forecasts."""
        return [self.model] if self.anchored is None else [self.model, self.anchored]

    @property
    def draws_forecasts(self) -> bool:
        """Whether forecasts come from sample paths."""
        model = self.model
        return not model.closed_form or bool(model.n_inputs and not model.channelwise)

    def _chunks(self, histories: Histories, horizon: int, n_draws: int = 0) -> Iterator[Histories]:
        """Parts of the histories that fit into a pass; ``n_draws``: of sample paths wanted."""
        n_chains, width, features = histories.values.shape
        factor = features if self.model.channelwise else 1
        sampled = self.n_samples if self.draws_forecasts else n_draws
        # Closed forms cut the filter's own work to size: what counts is what goes in and out.
        per_chain = features * max(width, _LEVELS * horizon)
        if sampled:
            per_chain = factor * self.model.latent_dim * max(width, sampled * horizon)
        size = max(1, _ENTRIES_PER_PASS // max(per_chain, 1))
        for start in range(0, n_chains, size):
            part = slice(start, start + size)
            yield Histories(
                histories.values[part],
                histories.mask[part],
                histories.lengths[part],
                _rows(histories.inputs, part),
                _rows(histories.future_inputs, part),
            )

    def _along_time(
        self,
        panel: Panel,
        covariates: Panel | None,
        run: Callable[[Tensor, Tensor, Tensor | None], Array],
        look_ahead: bool = True,
    ) -> Array:
        """Run over series in overlapping pieces about as long as training windows.

        Memory stays bounded, and each piece has a level of its own. ``run`` gives an array
        ``(N, width, ...)``; so many rows of it are kept as the pieces answer for.
        """
        values = self.scaler.forward(panel.values, panel.mask, panel.variables)
        inputs = self.design.build(panel.index, panel.n_steps, covariates)
        chains = panel.n_features if self.model.channelwise else 1
        draws = 1 if self.model.closed_form else self.n_samples
        batches = batches_of_pieces(
            panel.n_series,
            panel.n_steps,
            self.sizes.context,
            look_ahead=look_ahead,
            most_rows=_STATES_PER_PASS // (chains * self.model.latent_dim),
            mix=draws == 1,
        )
        out: Array | None = None
        with self._ready() as device:
            for batch in batches:
                at = (batch.series, batch.begin, batch.width)
                x, mask = _tensors(device, gather(values, *at), gather(panel.mask, *at))
                found = run(
                    x, mask, _tensor(device, None if inputs is None else gather(inputs, *at))
                )
                if out is None:
                    out = np.zeros((panel.n_series, panel.n_steps, *found.shape[2:]))
                for row, own in enumerate(found):
                    start, stop = batch.start[row], batch.stop[row]
                    first = start - batch.begin[row]
                    out[batch.series[row], start:stop] = own[first : first + stop - start]
        assert out is not None
        return out


@dataclass(frozen=True)
class Smoothed:
    """Smoothed values in original units, computed piece by piece when asked for.

    Attributes
    ----------
    engine : Engine
    panel : Panel
    covariates : Panel or None
    """

    engine: Engine
    panel: Panel
    covariates: Panel | None

    def mean(self) -> Array:
        """Means ``(B, T, F)``."""
        return self.engine.smoothed(self.panel, self.covariates, lambda found: found.mean())

    def quantiles(self, levels: Array) -> Array:
        """Quantiles ``(B, T, F, Q)``."""
        return self.engine.smoothed(
            self.panel, self.covariates, lambda found: found.quantiles(levels)
        )


class _Ready:
    """Model on its device in eval mode, threads pinned; all restored afterwards."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.threads = pinned_threads(engine.n_threads)

    def __enter__(self) -> torch.device:
        device = resolve_device(self.engine.device)
        self.threads.__enter__()
        for model in self.engine.models:
            model.to(device).eval()
        return device

    def __exit__(self, *details: object) -> None:
        for model in self.engine.models:
            model.to("cpu")
        self.threads.__exit__(None, None, None)


def _rows(inputs: Array | None, part: slice) -> Array | None:
    """Rows of some windows; the one row that all share stays."""
    return inputs if inputs is None or len(inputs) == 1 else inputs[part]


def _tensor(device: torch.device, values: Array | None) -> Tensor | None:
    # By numpy: torch.tensor takes its time over arrays in double precision.
    return None if values is None else torch.from_numpy(np.array(values, np.float32)).to(device)


def _tensors(device: torch.device, values: Array, mask: Mask) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(np.array(values, np.float32)).to(device)
    return x, torch.tensor(mask, device=device)
