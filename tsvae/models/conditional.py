"""Conditional VAE: encoder and decoder know something about the record."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tsvae.models.bounds import importance_bound
from tsvae.models.conditions import ConditionEmbedding
from tsvae.models.family import Asked
from tsvae.models.outputs import ActiveUnits, DecodeResult, EncodeResult, ForwardResult
from tsvae.models.vae import VAE
from tsvae.nn.checks import check_size

__all__ = ["ConditionalVAE"]

_VALUES_AT_ONCE = 2**20  # decoded by the importance-weighted bound
# The condition of the pass that is under way, by thread: modules between the public methods and
# the networks do not have to hand it on.
_GIVEN: ContextVar[tuple[int, Tensor] | None] = ContextVar("tsvae_condition", default=None)


class ConditionalVAE(VAE):
    r"""VAE of records given a known condition c.

    .. math:: z \sim N(0, I), \quad x \sim p(x | decoder(z, c)), \quad q(z | x, c)

    The condition's embedding is given to the encoder as E further channels, the same at every
    step, and to the decoder beside z (beside every latent step of a map). What the condition
    already says needs no room in z.

    Parameters
    ----------
    encoder : Module
        Takes (B, T, F + E), or (B, T, 2 F + E) if ``mask_input``.
    decoder : Module
        Takes (B, latent_dim + E), or (B, L, latent_dim + E) for a map; gives (B, T, F).
    latent_dim : int
        D.
    condition : ConditionEmbedding
        Continuous and categorical conditions (B, C) to (B, E); E is its ``out_features``.
    **options
        See :class:`~tsvae.models.vae.VAE`.

    References
    ----------
    Sohn, Lee & Yan 2015 (NeurIPS), section 4 (here with the prior of z independent of the
    condition, the relaxation that they name).

    Examples
    --------
    >>> from tsvae.nn import MLPDecoder, MLPEncoder
    >>> condition = ConditionEmbedding(n_continuous=1, n_categories=(3,))  # E = 4
    >>> model = ConditionalVAE(
    ...     MLPEncoder(1 + 4, 8, (16,)), MLPDecoder(2 + 4, 8, 1, (16,)), 2, condition
    ... )
    >>> x, c = torch.zeros(5, 8, 1), torch.tensor([[0.3, 2.0]]).expand(5, 2)
    >>> model.build(x, condition=c)(x, condition=c).x_hat.shape
    torch.Size([5, 1, 8, 1])
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        condition: ConditionEmbedding,
        **options: Any,
    ) -> None:
        super().__init__(encoder, decoder, latent_dim, **options)
        if not isinstance(condition, ConditionEmbedding):
            raise TypeError(
                f"condition must be a ConditionEmbedding, got {type(condition).__name__}"
            )
        self.condition = condition

    # -- the condition of a pass -------------------------------------------------------------

    @contextmanager
    def _given(self, condition: Tensor | None, n_records: int) -> Iterator[None]:
        """Embed the condition for the passes inside; None keeps that of the pass around."""
        around = _GIVEN.get()
        if condition is None:
            if around is None or around[0] != id(self):
                raise TypeError(
                    f"{type(self).__name__} needs condition=, a tensor of shape "
                    f"({n_records}, {self.condition.n_conditions}): one row per record"
                )
            yield
            return
        if condition.ndim == 2 and condition.shape[0] != n_records:
            raise ValueError(
                f"condition has {condition.shape[0]} rows, but there are {n_records} records; "
                "give one row per record"
            )
        token = _GIVEN.set((id(self), self.condition(condition)))
        try:
            yield
        finally:
            _GIVEN.reset(token)

    def _embedded(self) -> Tensor:
        given = _GIVEN.get()
        assert given is not None
        return given[1]

    def encoder_input(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Values, the mask if ``mask_input``, and the condition as channels.

        Only inside a pass, which knows the condition.
        """
        with self._given(None, len(x)):
            channels = self._embedded().to(x.dtype).unsqueeze(1).expand(-1, x.shape[1], -1)
        return torch.cat((super().encoder_input(x, mask), channels), dim=-1)

    def _decoder_input(self, z: Tensor) -> Tensor:
        with self._given(None, len(z)):
            embedded = self._embedded().to(z.dtype)
        copies = embedded.repeat_interleave(len(z) // max(len(embedded), 1), dim=0)
        if self.latent == "map":
            copies = copies.unsqueeze(1).expand(-1, z.shape[1], -1)
        return torch.cat((z, copies), dim=-1)

    # -- the passes --------------------------------------------------------------------------

    def build(
        self, sample: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Any:
        """Make the parts whose sizes follow from the data; see :meth:`VAE.build`.

        Parameters
        ----------
        sample : Tensor of shape (B, T, F)
        mask : Tensor of bool of shape (B, T, F) or None, default=None
        condition : Tensor of shape (B, C) or None, default=None
            None: zeros; only the number of columns matters.

        Returns
        -------
        ConditionalVAE
            Itself.
        """
        if self._is_built_for(sample):
            return self
        if condition is None:
            condition = sample.new_zeros(len(sample), self.condition.n_conditions)
        self.condition.to(sample.device)
        with self._given(condition, len(sample)):
            return super().build(sample, mask)

    def encode(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        S: int = 1,
        condition: Tensor | None = None,
    ) -> EncodeResult:
        """Codes of records given their conditions; see :meth:`VAE.encode`.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        mask : Tensor of bool of shape (B, T, F) or None, default=None
        S : int, default=1
        condition : Tensor of shape (B, C)

        Returns
        -------
        EncodeResult
        """
        self._require_built()
        with self._given(condition, len(x)):
            return super().encode(x, mask, S)

    def decode(self, z: Tensor, condition: Tensor | None = None) -> DecodeResult:
        """Reconstruct codes under conditions; see :meth:`VAE.decode`.

        Parameters
        ----------
        z : Tensor of shape (B, *latent) or (B, S, *latent)
        condition : Tensor of shape (B, C)

        Returns
        -------
        DecodeResult
        """
        self._require_built()
        with self._given(condition, len(z)):
            return super().decode(z)

    def forward(
        self,
        x: Tensor,
        S: int = 1,
        mask: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> ForwardResult:
        """Encode and decode; see :meth:`VAE.forward`.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        S : int, default=1
        mask : Tensor of bool of shape (B, T, F) or None, default=None
        condition : Tensor of shape (B, C)

        Returns
        -------
        ForwardResult
        """
        self._require_built()
        with self._given(condition, len(x)):
            result: ForwardResult = super().forward(x, S, mask)
            return result

    def _training_output(
        self, asked: Asked, batch: dict[str, Tensor], generator: torch.Generator
    ) -> Any:
        with self._given(self._condition_of(batch), len(asked.x)):
            return super()._training_output(asked, batch, generator)

    def reconstruct(self, batch: dict[str, Tensor]) -> Tensor:
        """Reconstruct a batch with conditions; see :meth:`BaseAutoencoder.reconstruct`."""
        self._require_built()
        with self._given(self._condition_of(batch), len(batch["x"])):
            return super().reconstruct(batch)

    def _condition_of(self, batch: dict[str, Tensor]) -> Tensor:
        if "condition" not in batch:
            raise KeyError(
                "ConditionalVAE learns from records with conditions: the batch needs "
                f"'condition' (B, {self.condition.n_conditions}); got {sorted(batch)}"
            )
        return batch["condition"]

    def network_modules(self) -> list[nn.Module]:
        """Modules that mixed precision may run in half precision."""
        return [*super().network_modules(), self.condition]

    # -- evaluation --------------------------------------------------------------------------

    def sample_posterior(
        self,
        x: Tensor,
        n_samples: int = 1,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Draw codes of records given their conditions; see :meth:`VAE.sample_posterior`."""
        self._require_built()
        with self._given(condition, len(x)):
            return super().sample_posterior(x, n_samples, mask, generator)

    @torch.no_grad()
    def importance_weighted_bound(
        self,
        x: Tensor,
        n_samples: int = 100,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        chunk_size: int | None = None,
        common_noise: bool = True,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Lower bound on log p(x | condition); see :meth:`VAE.importance_weighted_bound`."""
        self._require_built()
        if chunk_size is None:
            chunk_size = max(1, _VALUES_AT_ONCE // math.prod(self.record_shape))

        def log_likelihood(z: Tensor, rows: slice) -> Tensor:
            assert condition is not None
            part = None if mask is None else mask[rows]
            return self.record_log_prob(x[rows], self.decode(z, condition[rows]).x_hat, part)

        with self.evaluating():
            with self._given(condition, len(x)):
                posterior = self.posterior(self.features(x, mask))
            return importance_bound(
                log_likelihood,
                *posterior,
                check_size("n_samples", n_samples),
                torch.Generator().manual_seed(0) if generator is None else generator,
                chunk_size=check_size("chunk_size", chunk_size),
                common_noise=common_noise,
            )

    def kl_per_dimension(
        self, x: Tensor, mask: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        """KL of each latent entry, mean over records; see :meth:`VAE.kl_per_dimension`."""
        self._require_built()
        with self._given(condition, len(x)):
            return super().kl_per_dimension(x, mask)

    def active_units(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        criterion: Literal["kl", "variance"] = "kl",
        threshold: float = 0.01,
        condition: Tensor | None = None,
    ) -> ActiveUnits:
        """Which latent entries carry information; see :meth:`VAE.active_units`."""
        self._require_built()
        with self._given(condition, len(x)):
            return super().active_units(x, mask, criterion=criterion, threshold=threshold)
