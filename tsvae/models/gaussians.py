"""Diagonal normal posteriors: draws, divergences, densities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "channel_kl",
    "free_bits_kl",
    "gaussian_kl",
    "gaussian_log_prob",
    "limit_log_variance",
    "sample_gaussian",
    "standard_noise",
]

_LOG_TWO_PI = math.log(2.0 * math.pi)
_LOG_VARIANCE_RANGE = (-30.0, 20.0)  # exp stays finite and above 0 in float32, squares included


def limit_log_variance(log_var: Tensor) -> Tensor:
    """Clamp a log variance to where its exponential is a number in every dtype."""
    return log_var.clamp(*_LOG_VARIANCE_RANGE)


def standard_noise(
    shape: tuple[int, ...] | torch.Size, like: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw standard normals on the generator's device; dtype and device of ``like``."""
    draw = torch.randn(shape, dtype=like.dtype, device=generator.device, generator=generator)
    return draw.to(like.device)


def sample_gaussian(
    mu: Tensor, log_var: Tensor, n_samples: int, generator: torch.Generator
) -> Tensor:
    """Draw from N(mu, exp(log_var)), differentiable in both.

    Parameters
    ----------
    mu, log_var : Tensor of shape (B, ...)
    n_samples : int
        S.
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (B, S, ...)

    References
    ----------
    Kingma & Welling 2014 (arXiv 1312.6114), equation 10.
    """
    noise = standard_noise((mu.shape[0], n_samples, *mu.shape[1:]), mu, generator)
    return mu.unsqueeze(1) + noise * torch.exp(0.5 * log_var).unsqueeze(1)


def gaussian_kl(
    mu: Tensor,
    log_var: Tensor,
    prior_mu: Tensor | None = None,
    prior_log_var: Tensor | None = None,
) -> Tensor:
    """KL(N(mu, exp(log_var)) || prior) of each entry.

    Parameters
    ----------
    mu, log_var : Tensor of shape (...)
    prior_mu, prior_log_var : Tensor or None, default=None
        Broadcastable; None: 0, the standard normal.

    Returns
    -------
    Tensor of shape (...)
        In nats.

    References
    ----------
    Kingma & Welling 2014 (arXiv 1312.6114), appendix B.

    Examples
    --------
    >>> import torch
    >>> gaussian_kl(torch.tensor([0.0, 2.0]), torch.zeros(2))
    tensor([0., 2.])
    """
    shift = mu if prior_mu is None else mu - prior_mu
    if prior_log_var is None:
        return 0.5 * (shift**2 + torch.expm1(log_var) - log_var)
    ratio = log_var - prior_log_var
    return 0.5 * (shift**2 * torch.exp(-prior_log_var) + torch.expm1(ratio) - ratio)


def gaussian_log_prob(z: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Log density of N(mu, exp(log_var)) at each entry of z."""
    return -0.5 * ((z - mu) ** 2 * torch.exp(-log_var) + log_var + _LOG_TWO_PI)


def free_bits_kl(kl: Tensor, free_bits: float) -> Tensor:
    """Sum over latent entries of max(free_bits, mean over records of the KL).

    Parameters
    ----------
    kl : Tensor of shape (B, ...)
        KL of each latent entry of each record.
    free_bits : float
        Nats per latent entry that cost nothing more; 0 is the plain mean of sums.

    Returns
    -------
    Tensor of shape ()

    References
    ----------
    Kingma et al. 2016 (arXiv 1606.04934), equation 15.

    Examples
    --------
    >>> import torch
    >>> free_bits_kl(torch.tensor([[0.1, 2.0], [0.3, 4.0]]), 0.5)
    tensor(3.5000)
    """
    mean = kl.mean(0)
    return mean.clamp_min(free_bits).sum() if free_bits > 0.0 else mean.sum()


def channel_kl(kl: Tensor, prefix: str) -> dict[str, Tensor]:
    """KL of each channel of a code, by name: for diagnostics.

    Parameters
    ----------
    kl : Tensor of shape (B, ..., D)
        KL of each latent entry of each record.
    prefix : str
        The names are it and the number of the channel, from 0.

    Returns
    -------
    dict of str to Tensor
        D scalars in nats per record: means over records, summed over all axes between.

    Examples
    --------
    >>> import torch
    >>> channel_kl(torch.tensor([[0.0, 2.0], [1.0, 4.0]]), "kl_")
    {'kl_0': tensor(0.5000), 'kl_1': tensor(3.)}
    """
    channels = kl.detach().mean(0)
    per_channel = channels.reshape(-1, channels.shape[-1]).sum(0)
    return {f"{prefix}{i}": value for i, value in enumerate(per_channel.unbind())}
