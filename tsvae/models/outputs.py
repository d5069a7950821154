"""Named results of the autoencoder family.

Shapes: B records, S codes per record, T steps, F features; ``latent`` stands for the latent shape
of the model, ``(latent_dim,)`` for a vector and ``(L, latent_dim)`` for a map along time.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["ActiveUnits", "DecodeResult", "EncodeResult", "ForwardResult", "Posterior"]


class Posterior(NamedTuple):
    """q(z|x), a normal with diagonal covariance.

    Parameters
    ----------
    mu, log_var : Tensor of shape (B, *latent)
    """

    mu: Tensor
    log_var: Tensor


class EncodeResult(NamedTuple):
    """Codes of a batch.

    Parameters
    ----------
    z : Tensor of shape (B, S, *latent)
        Codes; draws from the posterior in train mode, its mean in eval mode.
    mu : Tensor of shape (B, S, *latent)
        Posterior mean; the code itself where the model has no posterior.
    log_var : Tensor of shape (B, S, *latent) or None
        Logarithm of the posterior variance; None where the model has no posterior.
    """

    z: Tensor
    mu: Tensor
    log_var: Tensor | None


class DecodeResult(NamedTuple):
    """Reconstruction of codes.

    Parameters
    ----------
    x_hat : Tensor of shape (..., T, F)
        Location of the likelihood: the mean of a normal, the median of a Laplace, log odds of a
        Bernoulli. The leading axes are those of the codes, (B, S) or (B,).
    """

    x_hat: Tensor


class ForwardResult(NamedTuple):
    """Codes of a batch and their reconstructions.

    Parameters
    ----------
    x_hat : Tensor of shape (B, S, T, F)
        See :class:`DecodeResult`.
    z, mu : Tensor of shape (B, S, *latent)
        See :class:`EncodeResult`.
    log_var : Tensor of shape (B, S, *latent) or None
        See :class:`EncodeResult`.
    """

    x_hat: Tensor
    z: Tensor
    mu: Tensor
    log_var: Tensor | None


class ActiveUnits(NamedTuple):
    """Which latent entries carry information.

    Parameters
    ----------
    active : Tensor of bool of shape (*latent,)
    criterion : Tensor of shape (*latent,)
        What was compared with the threshold.
    """

    active: Tensor
    criterion: Tensor
