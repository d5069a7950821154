"""Forecast term of a structured VAE: the future of random origins is hidden and asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tsvae.lds import Potentials, chain_lengths
from tsvae.models.readout import linear_readout
from tsvae.models.views import Window

if TYPE_CHECKING:
    from tsvae.models.svae import SVAE

__all__ = ["forecast_loss", "forecast_origins"]

_LOG_2PI = 1.8378770664093453


def forecast_loss(
    model: SVAE,
    window: Window,
    potentials: Potentials,
    filtered: Any,
    generator: torch.Generator,
) -> Tensor:
    """Minus the predictive log density per value, over random origins and all steps ahead."""
    steps = int(chain_lengths(window.target).max())  # origins do not depend on padding
    horizon = min(model.horizon, steps - 1)
    if horizon < 1:
        return window.x.new_zeros(())
    origins = forecast_origins(model, steps, horizon, generator).to(window.x.device)
    ahead = origins[:, None] + 1 + torch.arange(horizon, device=origins.device)  # (K, H)
    inside = (ahead < steps)[:, None, :, None]
    ahead = ahead.clamp_max(steps - 1)
    y = window.x[:, ahead].transpose(0, 1)  # (K, N, H, F')
    counts = (window.target[:, ahead].transpose(0, 1) & inside).flatten(0, 1)
    y = y.flatten(0, 1)
    inputs = window.inputs
    if inputs is not None:
        inputs = inputs[:, ahead].transpose(0, 1).flatten(0, 1)
    state = model.dynamics.states_at(filtered, potentials, origins)
    if model.coupling is not None:
        state = state._replace(mean=model.coupling(state.mean))
    if model.closed_form and inputs is None:
        log_prob = _closed_forecast(model, state, y, horizon)
    else:
        log_prob = _sampled_forecast(model, state, y, inputs, generator)
    return -torch.where(counts, log_prob, 0.0).sum() / counts.sum().clamp_min(1)


def forecast_origins(model: SVAE, steps: int, horizon: int, generator: torch.Generator) -> Tensor:
    """Random origins (rows seen - 1), early enough for a whole horizon where possible."""
    last = max(steps - 1 - horizon, min(model.min_history, steps - 1) - 1, 0)
    first = min(max(model.min_history - 1, 0), last)
    if not model.training:
        count = min(model.n_origins, last - first + 1)
        return torch.linspace(first, last, count).round().long()
    return torch.randint(first, last + 1, (model.n_origins,), generator=generator)


def _closed_forecast(model: SVAE, state: Any, y: Tensor, horizon: int) -> Tensor:
    readout = linear_readout(
        model.dynamics.plug_in(detach=model.drop_correction),
        model.decoder.emission_matrix,
        horizon,
    )
    params = model.decoder(y.new_zeros(model.latent_dim))
    mean = readout.mean(state.mean) + model.decoder.offset
    variance = readout.variance(state.covariance) + params.scale**2
    return -0.5 * ((y - mean) ** 2 / variance + variance.log() + _LOG_2PI)


def _sampled_forecast(
    model: SVAE, state: Any, y: Tensor, inputs: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Log of the mean density over sampled paths: a lower bound that tightens with S."""
    z = model.dynamics.sample_forecast(
        state, y.shape[1], model.n_samples, generator, inputs, detach=model.drop_correction
    )
    log_prob = model.decoder.likelihood.log_prob(y, model.decoder(z))
    return torch.logsumexp(log_prob, dim=0) - torch.log(y.new_tensor(float(model.n_samples)))
