"""Objectives of variational autoencoders: minus a bound on the log-likelihood, with diagnostics."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from tsvae.models.gaussians import free_bits_kl

__all__ = ["Objective", "mean_importance_bound", "negative_elbo", "rate_and_distortion"]

Objective = Literal["elbo", "iwae"]

_ACTIVE_NATS = 0.01


def rate_and_distortion(
    log_prob: Tensor, kl: Tensor, beta: float, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Diagnostics of codes, in nats per record.

    Parameters
    ----------
    log_prob : Tensor of shape (B, S)
        Log-likelihood of each record at each of its codes.
    kl : Tensor of shape (B, ...)
        KL of each latent entry of each record.
    beta : float
        Weight of the divergence, reported with the others.
    dtype : torch.dtype
        Of the number of active units and the weight.

    Returns
    -------
    dict of str to Tensor
        ``log_likelihood``, ``kl_divergence``, ``rate``, ``distortion``, ``active_units``, ``beta``.
    """
    log_likelihood, rate = log_prob.mean(), free_bits_kl(kl, 0.0)
    return {
        "log_likelihood": log_likelihood,
        "kl_divergence": rate,
        "rate": rate,
        "distortion": -log_likelihood,
        "active_units": (kl.mean(0) > _ACTIVE_NATS).sum().to(dtype),
        "beta": log_prob.new_tensor(beta, dtype=dtype),
    }


def negative_elbo(log_likelihood: Tensor, kl: Tensor, beta: float, free_bits: float) -> Tensor:
    """Minus the evidence lower bound, the divergence weighted, with free bits per entry."""
    loss = -log_likelihood
    return loss + beta * free_bits_kl(kl, free_bits) if beta else loss


def mean_importance_bound(log_weights: Tensor) -> Tensor:
    """Importance-weighted bound of log weights (B, S), mean over records."""
    return torch.logsumexp(log_weights, dim=1).mean() - math.log(log_weights.shape[1])
