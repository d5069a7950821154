"""Named results of the hierarchical VAE, and what follows from them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tsvae.models.gaussians import gaussian_kl, gaussian_log_prob
from tsvae.models.ladder import LadderStates, join_levels

__all__ = [
    "HierarchicalEncodeResult",
    "HierarchicalForwardResult",
    "joined_codes",
    "level_kl",
    "log_prior_ratio",
]


class HierarchicalEncodeResult(NamedTuple):
    """Codes of a batch, all levels flattened one after the other, the coarsest first.

    Parameters
    ----------
    z, mu, log_var : Tensor of shape (B, S, n_latent)
        Codes; mean and log variance of the posterior, of finer levels given the coarser codes.
    prior_mu, prior_log_var : Tensor of shape (B, S, n_latent)
        The same of the prior.
    """

    z: Tensor
    mu: Tensor
    log_var: Tensor
    prior_mu: Tensor
    prior_log_var: Tensor


class HierarchicalForwardResult(NamedTuple):
    """Codes of a batch and their reconstructions; see :class:`HierarchicalEncodeResult`."""

    x_hat: Tensor
    z: Tensor
    mu: Tensor
    log_var: Tensor
    prior_mu: Tensor
    prior_log_var: Tensor


def level_kl(codes: HierarchicalEncodeResult | HierarchicalForwardResult) -> Tensor:
    """KL of each latent entry given the coarser codes, ``(B, S, n_latent)``."""
    return gaussian_kl(codes.mu, codes.log_var, codes.prior_mu, codes.prior_log_var)


def joined_codes(states: LadderStates, n_records: int) -> HierarchicalEncodeResult:
    """Flatten levels, and take records (B) and their codes (S) apart."""
    flat = (
        join_levels(parts)
        for parts in (
            states.z,
            [law.mu for law in states.posterior],
            [law.log_var for law in states.posterior],
            [law.mu for law in states.prior],
            [law.log_var for law in states.prior],
        )
    )
    return HierarchicalEncodeResult(*(part.unflatten(0, (n_records, -1)) for part in flat))


def log_prior_ratio(output: HierarchicalForwardResult) -> Tensor:
    """Return log p(z) - log q(z | x) of each code, ``(B, S)``."""
    prior = gaussian_log_prob(output.z, output.prior_mu, output.prior_log_var)
    return (prior - gaussian_log_prob(output.z, output.mu, output.log_var)).sum(-1)
