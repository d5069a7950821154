"""Importance-weighted bound on the log-likelihood of records."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tsvae.models.gaussians import gaussian_log_prob, standard_noise

__all__ = ["importance_bound", "log_importance_weights"]


def log_importance_weights(
    log_likelihood: Tensor, z: Tensor, mu: Tensor, log_var: Tensor, beta: float = 1.0
) -> Tensor:
    """Log p(x|z) + beta (log p(z) - log q(z|x)) under a standard normal prior.

    Parameters
    ----------
    log_likelihood : Tensor of shape (B, S)
    z, mu, log_var : Tensor of shape (B, S, *latent), broadcastable
    beta : float, default=1.0

    Returns
    -------
    Tensor of shape (B, S)
    """
    zero = torch.zeros((), dtype=z.dtype, device=z.device)
    ratio = gaussian_log_prob(z, zero, zero) - gaussian_log_prob(z, mu, log_var)
    return log_likelihood + beta * ratio.flatten(2).sum(-1)


def importance_bound(
    log_likelihood: Callable[[Tensor, slice], Tensor],
    mu: Tensor,
    log_var: Tensor,
    n_samples: int,
    generator: torch.Generator,
    *,
    chunk_size: int,
    common_noise: bool = True,
) -> Tensor:
    """Log 1/S sum_s p(x, z_s) / q(z_s | x), with few codes in memory at a time.

    Parameters
    ----------
    log_likelihood : callable
        ``log_likelihood(z, rows)`` for codes (b, s, *latent) of the records ``rows`` of the batch
        gives log p(x|z), (b, s).
    mu, log_var : Tensor of shape (B, *latent)
        Posterior.
    n_samples : int
        S.
    generator : torch.Generator
    chunk_size : int
        Codes b s decoded at a time.
    common_noise : bool, default=True
        Use the same S draws of noise for every record. A record's bound then does not depend on
        the records beside it, and records are compared under common random numbers.

    Returns
    -------
    Tensor of shape (B,)
        In nats; grows with S in expectation, towards log p(x).

    References
    ----------
    Burda, Grosse & Salakhutdinov 2016 (arXiv 1509.00519), equation 8.
    """
    if common_noise:
        # One draw at a time: the first draws are then the same for every S.
        draws = [standard_noise(mu.shape[1:], mu, generator) for _ in range(n_samples)]
        shared = torch.stack(draws)[None]
    at_once = max(1, chunk_size // n_samples)
    per_chunk = min(n_samples, max(1, chunk_size))
    bounds = []
    for start in range(0, len(mu), at_once):
        rows = slice(start, start + at_once)
        mean, part = mu[rows].unsqueeze(1), log_var[rows].unsqueeze(1)
        total = mean.new_full((len(mean),), -math.inf)
        for first in range(0, n_samples, per_chunk):
            size = min(per_chunk, n_samples - first)
            if common_noise:
                noise = shared[:, first : first + size]
            else:
                noise = standard_noise((len(mean), size, *mu.shape[1:]), mu, generator)
            z = mean + noise * torch.exp(0.5 * part)
            weights = log_importance_weights(log_likelihood(z, rows), z, mean, part)
            total = torch.logaddexp(total, torch.logsumexp(weights, dim=1))
        bounds.append(total)
    return torch.cat(bounds) - math.log(n_samples)
