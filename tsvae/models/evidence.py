"""Evidence lower bound of a structured VAE over a batch of windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tsvae.lds import Potentials
from tsvae.models.graphical import DrawnStates, StatePosterior
from tsvae.models.views import Window
from tsvae.nn import masked_log_prob

if TYPE_CHECKING:
    from tsvae.models.svae import SVAE

__all__ = ["EvidenceTerms", "evidence_share", "evidence_terms", "expected_log_prob"]


class EvidenceTerms(NamedTuple):
    """Sums over a batch, each divided by the number of observed values."""

    reconstruction: Tensor
    local_kl: Tensor
    prior_kl: Tensor


def evidence_share(
    model: SVAE, window: Window, potentials: Potentials
) -> tuple[Window, Potentials]:
    """Series that the ELBO is taken over: an unbiased share of the batch while training."""
    n_series = window.x.shape[0]
    width = model.n_features if model.channelwise else 1
    count = max(1, round(model.elbo_share * n_series / width)) * width
    if count >= n_series or not model.training:
        return window, potentials
    pattern = potentials.pattern
    precision = potentials.precision
    if pattern is not None:
        pattern = pattern[:count]
    elif precision.shape[0] == n_series:
        precision = precision[:count]
    part = Window(
        window.x[:count],
        window.target[:count],
        window.visible[:count],
        None if window.inputs is None else window.inputs[:count],
        window.lengths[:count],
        window.complete,
    )
    return part, Potentials(potentials.linear[:count], precision, pattern)


def evidence_terms(
    model: SVAE,
    window: Window,
    posterior: StatePosterior | DrawnStates,
    generator: torch.Generator,
) -> EvidenceTerms:
    """Reconstruction and divergences of a batch, from its posterior or draws of it."""
    n_values = window.n_values.clamp_min(1)
    if model.closed_form:
        assert isinstance(posterior, StatePosterior)
        log_prob = expected_log_prob(model, window, posterior)
    else:
        z = posterior.draws
        if z is None:
            assert isinstance(posterior, StatePosterior)
            z = model.dynamics.sample(posterior, model.n_samples, generator)
        likelihood, params = model.decoder.likelihood, model.decoder(z)
        log_prob = masked_log_prob(likelihood, window.x, params, window.counted)
        log_prob = log_prob.sum() / model.n_samples
    per_window = n_values / window.x.shape[0]
    prior_kl = posterior.prior_kl
    if prior_kl is None:
        prior_kl = model.dynamics.prior_kl()
    prior_kl = prior_kl / (model.n_windows * per_window)
    return EvidenceTerms(-log_prob.sum() / n_values, posterior.local_kl.sum() / n_values, prior_kl)


def expected_log_prob(model: SVAE, window: Window, posterior: StatePosterior) -> Tensor:
    """E_q log N(x; C z + d, R) in closed form."""
    params = model.decoder(posterior.mean)
    log_prob = masked_log_prob(model.decoder.likelihood, window.x, params, window.counted)
    variance = model.emitted_variance(posterior)
    extra = torch.where(window.target, 0.5 * variance / params.scale**2, 0.0)
    return log_prob - extra
