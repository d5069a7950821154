"""Autoencoder without a posterior: one code per record."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tsvae.models.family import BaseAutoencoder
from tsvae.models.gaussians import standard_noise
from tsvae.models.outputs import EncodeResult

__all__ = ["Autoencoder"]


class Autoencoder(BaseAutoencoder):
    """Autoencoder: x -> z -> x_hat, trained by the likelihood of x alone.

    Parameters
    ----------
    encoder, decoder : Module
    latent_dim : int
    encoder_noise : float, default=0.0
        Standard deviation of noise on the codes while training. Some noise fills the holes
        between clusters of codes.
    **options
        ``latent``, ``mask_input``, ``likelihood``, ``scale``, ``initial_scale``, ``min_scale``,
        ``n_samples``, ``spectral_weight``, ``generator``; see
        :class:`~tsvae.models.family.BaseAutoencoder`.

    Examples
    --------
    >>> import torch
    >>> from tsvae.nn import ConvDecoder, ConvEncoder
    >>> decoder = ConvDecoder(4, 1, 33, (16, 8), latent="vector")
    >>> model = Autoencoder(ConvEncoder(1, (8, 16)), decoder, latent_dim=4)
    >>> x = torch.zeros(5, 33, 1)
    >>> model.build(x).eval()(x).x_hat.shape
    torch.Size([5, 1, 33, 1])
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        encoder_noise: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(encoder, decoder, latent_dim, **options)
        if not 0.0 <= encoder_noise < float("inf"):
            raise ValueError(f"encoder_noise must be a finite number >= 0, got {encoder_noise!r}")
        self.encoder_noise = float(encoder_noise)

    def _make_heads(self, features: Tensor) -> None:
        self.code_head = self._head(features, self.latent_dim)

    def _codes(
        self, features: Tensor, n_samples: int, generator: torch.Generator | None
    ) -> EncodeResult:
        code = self.code_head(self.head_input(features)).unsqueeze(1)
        mu = code.expand(-1, n_samples, *self.latent_shape)
        z = mu
        if self.encoder_noise and self.training and generator is not None:
            z = mu + self.encoder_noise * standard_noise(mu.shape, mu, generator)
        return EncodeResult(z, mu, None)
