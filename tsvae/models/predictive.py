"""Predictive distributions of a structured VAE: forecasts, smoothed values, log densities.

Everything here is in the units the model was trained in and runs without gradients. A linear
decoder with a normal likelihood has closed forms; otherwise joint sample paths are decoded.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds import Potentials
from tsvae.models.graphical import StatePosterior
from tsvae.models.log_density import normal_log_density, sampled_log_density
from tsvae.models.origins import states_at_origins
from tsvae.models.readout import linear_readout
from tsvae.models.smoothing_readout import fit_smoothing, fit_spread
from tsvae.models.svae import SVAE
from tsvae.models.views import Effect, Frame, Window, unfold_channels

__all__ = [
    "NormalPredictive",
    "Predictive",
    "SamplePredictive",
    "fit_smoothing_readout",
    "forecast",
    "one_step_log_density",
    "sample_paths",
    "smooth_latents",
    "smooth_values",
]

_FEWEST_HIDDEN = 8  # entries that a readout is fitted to


class NormalPredictive(NamedTuple):
    """Independent normal margins.

    Attributes
    ----------
    mean, scale : Tensor (B, T, F)
    """

    mean: Tensor
    scale: Tensor

    def quantiles(self, levels: Tensor) -> Tensor:
        """Quantiles ``(B, T, F, Q)``."""
        z = torch.special.ndtri(levels.double()).to(self.mean)
        return self.mean.unsqueeze(-1) + self.scale.unsqueeze(-1) * z


class SamplePredictive(NamedTuple):
    """Margins of joint samples.

    Attributes
    ----------
    samples : Tensor (S, B, T, F)
    """

    samples: Tensor

    @property
    def mean(self) -> Tensor:
        """Sample mean ``(B, T, F)``."""
        return self.samples.mean(0)

    @property
    def scale(self) -> Tensor:
        """Sample standard deviation ``(B, T, F)``."""
        return self.samples.std(0)

    def quantiles(self, levels: Tensor) -> Tensor:
        """Quantiles ``(B, T, F, Q)``, interpolated between order statistics."""
        values = torch.quantile(self.samples.double(), levels.double(), dim=0)
        return values.movedim(0, -1).to(self.samples)


Predictive = NormalPredictive | SamplePredictive


class _Smoothed(NamedTuple):
    window: Window
    frame: Frame
    posterior: StatePosterior


def _look(
    model: SVAE, x: Tensor, visible: Tensor, inputs: Tensor | None
) -> tuple[Window, Frame, Potentials]:
    effect = model.effect(inputs)
    frame = model.frame(x, visible, effect)
    window = model.window(x, visible, inputs, frame, effect)
    return window, frame, model.potentials(window)


def _smooth(model: SVAE, x: Tensor, visible: Tensor, inputs: Tensor | None) -> _Smoothed:
    window, frame, potentials = _look(model, x, visible, inputs)
    return _Smoothed(window, frame, model.infer(window, potentials))


def _restore(
    model: SVAE, values: Tensor, frame: Frame, effect: Tensor | float, *, spread: bool = False
) -> Tensor:
    """Undo channels, scale, level and covariate effect; ``spread``: scale only."""
    if model.channelwise:
        values = unfold_channels(values, model.n_features)
    values = values * frame.scale
    return values if spread else values + frame.level + effect


@torch.no_grad()
def forecast(
    model: SVAE,
    x: Tensor,
    visible: Tensor,
    horizon: int,
    *,
    inputs: Tensor | Effect | None = None,
    future_inputs: Tensor | Effect | None = None,
    lengths: Tensor | None = None,
    n_samples: int = 200,
    generator: torch.Generator | None = None,
) -> Predictive:
    """Distribution of the next ``horizon`` rows of every series.

    Parameters
    ----------
    model : SVAE
    x : Tensor (B, T, F)
        Histories, row 0 first; zero where not visible.
    visible : Tensor of bool (B, T, F)
    horizon : int
    inputs : Tensor (B, T, U) or Effect, optional
        Channel-wise models may be given the effect of inputs instead.
    future_inputs : Tensor (B, H, U) or Effect, optional
    lengths : Tensor (B,) long, optional
        Rows of each history; T by default.
    n_samples : int, default=200
        Paths where no closed form exists.
    generator : torch.Generator, optional
        Private one with seed 0 by default.

    Returns
    -------
    NormalPredictive or SamplePredictive
        ``(B, H, F)``.
    """
    if not model.closed_form or (model.n_inputs and not model.channelwise):
        paths = sample_paths(
            model,
            x,
            visible,
            horizon,
            n_samples,
            inputs=inputs,
            future_inputs=future_inputs,
            lengths=lengths,
            generator=generator,
        )
        return SamplePredictive(paths)
    frame, (mean, covariance) = states_at_origins(model, x, visible, inputs, lengths)
    readout = linear_readout(model.dynamics.plug_in(), model.decoder.emission_matrix, horizon)
    params = model.decoder(mean.new_zeros(model.latent_dim))
    variance = readout.variance(covariance) + params.scale**2
    location = readout.mean(mean) + model.decoder.offset
    variance = variance.expand_as(location)
    effect = model.effect(future_inputs)
    return NormalPredictive(
        _restore(model, location, frame, effect),
        _restore(model, variance.sqrt(), frame, effect, spread=True),
    )


@torch.no_grad()
def sample_paths(
    model: SVAE,
    x: Tensor,
    visible: Tensor,
    horizon: int,
    n_samples: int,
    *,
    inputs: Tensor | Effect | None = None,
    future_inputs: Tensor | Effect | None = None,
    lengths: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Joint sample paths ``(S, B, H, F)``; parameters as in :func:`forecast`."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    frame, state = states_at_origins(model, x, visible, inputs, lengths)
    moves = model.channelwise or isinstance(future_inputs, Effect)
    state_inputs = None if moves else future_inputs
    z = model.dynamics.sample_forecast(state, horizon, n_samples, generator, state_inputs)
    draws = model.decoder.likelihood.sample(model.decoder(z), generator)
    return _restore(model, draws, frame, model.effect(future_inputs))


@torch.no_grad()
def smooth_values(
    model: SVAE,
    x: Tensor,
    visible: Tensor,
    inputs: Tensor | None = None,
    *,
    n_samples: int = 100,
    generator: torch.Generator | None = None,
) -> Predictive:
    """Distribution of every entry given all visible ones, observation noise included.

    Parameters
    ----------
    model : SVAE
    x : Tensor (B, T, F)
    visible : Tensor of bool (B, T, F)
    inputs : Tensor (B, T, U), optional
    n_samples : int, default=100
        Draws where no closed form exists.
    generator : torch.Generator, optional

    Returns
    -------
    NormalPredictive or SamplePredictive
        ``(B, T, F)``.
    """
    history = _smooth(model, x, visible, inputs)
    effect = model.effect(inputs)
    if model.closed_form:
        location, variance = _smoothed_moments(model, history.posterior)
        return NormalPredictive(
            _restore(model, location, history.frame, effect),
            _restore(model, variance.sqrt(), history.frame, effect, spread=True),
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    z = model.dynamics.sample(history.posterior, n_samples, generator)
    draws = model.decoder.likelihood.sample(model.decoder(z), generator)
    return SamplePredictive(_restore(model, draws, history.frame, effect))


class _Moments(NamedTuple):
    location: Tensor
    variance: Tensor


def _smoothed_moments(model: SVAE, posterior: StatePosterior) -> _Moments:
    """Mean and variance of every entry, ``(N, T, F')``."""
    if model.smoothing is not None:
        location = model.smoothing.mean(posterior.mean)
        emitted = model.emitted_variance(posterior, model.smoothing.matrix)
        return _Moments(location, model.smoothing.total_variance(emitted).expand_as(location))
    params = model.decoder(posterior.mean)
    variance = model.emitted_variance(posterior) + params.scale**2
    return _Moments(params.loc, variance.expand_as(params.loc))


@torch.no_grad()
def fit_smoothing_readout(
    model: SVAE, x: Tensor, mask: Tensor, visible: Tensor, inputs: Tensor | None = None
) -> None:
    """Fit how values are read out of smoothed states, on entries hidden from the encoder.

    Parameters
    ----------
    model : SVAE
        Channel-wise, with ``own_smoothing``.
    x : Tensor (B, T, F)
    mask, visible : Tensor of bool (B, T, F)
        What is observed, and what the encoder may see of it.
    inputs : Tensor (B, T, U), optional
    """
    assert model.smoothing is not None
    effect = model.effect(inputs)
    frame = model.frame(x, visible, effect)
    window = model.window(x, visible, inputs, frame, effect, mask)
    seen = window._replace(x=torch.where(window.visible, window.x, 0.0))
    posterior = model.infer(seen)
    hidden = (mask & ~visible).transpose(1, 2).flatten(0, 1)
    if int(hidden.sum()) < _FEWEST_HIDDEN:
        hidden = mask.transpose(1, 2).flatten(0, 1)
    values = window.x.squeeze(-1)[hidden]
    states = posterior.mean[hidden]
    fit_smoothing(model.smoothing, states, values)
    emitted = model.emitted_variance(posterior, model.smoothing.matrix).squeeze(-1)
    residual = values - model.smoothing.mean(states).squeeze(-1)
    fit_spread(model.smoothing, residual, emitted.expand_as(hidden)[hidden])


class LatentMoments(NamedTuple):
    """Smoothed latent means and variances.

    Attributes
    ----------
    mean, variance : Tensor (B, T, L)
        L = D, or F * D (variable-major) if channel-wise.
    """

    mean: Tensor
    variance: Tensor


@torch.no_grad()
def smooth_latents(
    model: SVAE, x: Tensor, visible: Tensor, inputs: Tensor | None = None
) -> LatentMoments:
    """Smoothed latent moments; parameters as in :func:`smooth_values`."""
    posterior = _smooth(model, x, visible, inputs).posterior
    variance = posterior.covariance.diagonal(dim1=-2, dim2=-1).flatten(-2)
    if posterior.pattern is not None:
        variance = variance.index_select(0, posterior.pattern)
    variance = variance.expand_as(posterior.mean)
    return LatentMoments(_side_by_side(model, posterior.mean), _side_by_side(model, variance))


def _side_by_side(model: SVAE, states: Tensor) -> Tensor:
    """``(B * F, T, D)`` -> ``(B, T, F * D)`` if channel-wise."""
    if not model.channelwise:
        return states
    split = states.unflatten(0, (-1, model.n_features))
    return split.transpose(1, 2).flatten(-2)


@torch.no_grad()
def one_step_log_density(
    model: SVAE,
    x: Tensor,
    visible: Tensor,
    inputs: Tensor | None = None,
    *,
    n_samples: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Log density of each row's visible entries given the rows before it, ``(B, T)``.

    Zero for a row without visible entries. Parameters as in :func:`smooth_values`.
    """
    window, _, potentials = _look(model, x, visible, inputs)
    filtered = model.dynamics.filter(potentials, window.inputs, window.lengths)
    corrected = () if model.coupling is None else (model.coupling,)
    moments = model.dynamics.predicted(filtered, potentials, window.inputs, *corrected)
    if model.closed_form:
        log_density = normal_log_density(model, window, moments.mean, moments.covariance)
    else:
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        log_density = sampled_log_density(
            model, window, moments.mean, moments.covariance, n_samples, generator
        )
    if model.channelwise:
        log_density = log_density.unflatten(0, (-1, model.n_features)).sum(1)
    return log_density - (visible * model.log_scale).sum(-1)
