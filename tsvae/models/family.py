"""What all members of the autoencoder family share.

A member is an encoder and a decoder, any two modules, with a latent code between them:

.. code-block:: text

    x (B, T, F) -> encoder -> features -> heads -> z (B, S, *latent)
    z (B, S, *latent) -> decoder -> x_hat (B, S, T, F)

The base holds what does not depend on the kind of code: ``build``, checks, masks, the likelihood,
the reading of a training batch. A subclass writes three hooks, ``_make_heads``, ``_codes`` and
``compute_loss``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsvae.models.building import BuiltAutoencoder, LatentKind
from tsvae.models.observation import family_likelihood
from tsvae.models.outputs import DecodeResult, EncodeResult, ForwardResult
from tsvae.models.spectral import spectral_difference
from tsvae.nn import Likelihood
from tsvae.nn.checks import check_size
from tsvae.training import LossResult

__all__ = ["Asked", "BaseAutoencoder", "LatentKind"]

_CRITERION_SEED = 0  # every evaluation of the criterion draws the same numbers


class Asked(NamedTuple):
    """What a training batch shows and what it asks for.

    Parameters
    ----------
    x, visible : Tensor of shape (B, T, F)
        What the encoder reads, and which entries of it.
    target, mask : Tensor of shape (B, T, F)
        What the reconstruction is compared with, and where.
    weight : Tensor of shape (B,) or None
        Factor of each record's log-likelihood: entries known per entry asked for.
    """

    x: Tensor
    visible: Tensor
    target: Tensor
    mask: Tensor
    weight: Tensor | None


class BaseAutoencoder(BuiltAutoencoder):
    """Encoder, latent code, decoder, likelihood; the base of the family.

    Parameters
    ----------
    encoder : Module
        Takes (B, T, F), or (B, T, 2 F) if ``mask_input``. For ``latent="vector"`` its output, of
        any shape (B, ...), is flattened; for ``latent="map"`` it must be (B, L, H).
    decoder : Module
        Takes codes (B, *latent), gives (B, T, F).
    latent_dim : int
        Size of the code; per latent step if it is a map.
    latent : {"vector", "map"}, default="vector"
        One code per record, or a map of codes along time.
    mask_input : bool, default=False
        Give the encoder the mask as F further channels.
    likelihood : str or Likelihood, default="gaussian"
    scale : {"learned", "fixed", "calibrated"}, default="learned"
    initial_scale : float or sequence of float, default=1.0
    min_scale : float, default=1e-4
        See :class:`~tsvae.models.observation.ObservationModel` for these four.
    n_samples : int, default=1
        Codes S per record in ``training_step``.
    spectral_weight : float, default=0.0
        Weight of the difference between the amplitude spectra of target and reconstruction, see
        :func:`~tsvae.models.spectral.spectral_difference`. It keeps fine detail that a likelihood
        smooths away. Targets should be clean: the spectrum of noise is learned as well.
    generator : torch.Generator or None, default=None
        Source of the heads' initial parameters and of all draws; None: a private one, seed 0.

    Notes
    -----
    A subclass defines

    - ``_make_heads(features)``: modules between encoder and code, from one output of the encoder;
    - ``_codes(features, n_samples, generator)``: the :class:`EncodeResult`; ``generator`` is None
      where the result must be deterministic;
    - ``compute_loss(x, output, beta, likelihood, mask, target, weight)``.

    It may override ``_decoder_input(z)``, ``_training_output(asked, batch, generator)`` and
    ``_beta(step)``.
    """

    # -- hooks -------------------------------------------------------------------------------

    def _codes(
        self, features: Tensor, n_samples: int, generator: torch.Generator | None
    ) -> EncodeResult:
        """Codes from the encoder's output: here the output itself (subclasses)."""
        z = features.reshape(features.shape[0], 1, *self.latent_shape)
        z = z.expand(-1, n_samples, *self.latent_shape)
        return EncodeResult(z, z, None)

    def _training_output(
        self, asked: Asked, batch: dict[str, Tensor], generator: torch.Generator
    ) -> Any:
        """Forward pass of a training batch, with draws in eval mode too."""
        codes = self._codes(self.features(asked.x, asked.visible), self.n_samples, generator)
        return ForwardResult(self.decode(codes.z).x_hat, *codes)

    def _beta(self, step: int) -> float:
        """Weight of the KL terms at a training step."""
        return 1.0

    # -- the passes --------------------------------------------------------------------------

    def features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Output of the encoder for records (B, T, F), checked."""
        self._check_records(x)
        features: Tensor = self.encoder(self.encoder_input(x, mask))
        return features

    def encode(self, x: Tensor, mask: Tensor | None = None, S: int = 1) -> EncodeResult:
        """Codes of records.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
            Entries outside the mask may hold anything, NaN included.
        mask : Tensor of bool of shape (B, T, F) or None, default=None
            True = observed; None: everything.
        S : int, default=1
            Codes per record. Draws in train mode; equal copies in eval mode.

        Returns
        -------
        EncodeResult
            ``z``, ``mu`` and ``log_var``, each (B, S, *latent).
        """
        generator = self.generator if self.training else None
        return self._codes(self.features(x, mask), check_size("S", S), generator)

    def decode(self, z: Tensor) -> DecodeResult:
        """Reconstruct codes.

        Parameters
        ----------
        z : Tensor of shape (..., *latent)

        Returns
        -------
        DecodeResult
            ``x_hat`` of shape (..., T, F).
        """
        self._check_codes(z)
        leading = z.shape[: z.ndim - len(self.latent_shape)]
        x_hat = self.decoder(self._decoder_input(z.reshape(-1, *self.latent_shape)))
        return DecodeResult(x_hat.reshape(*leading, *self.record_shape))

    def forward(self, x: Tensor, S: int = 1, mask: Tensor | None = None) -> Any:
        """Encode and decode.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        S : int, default=1
            Codes per record.
        mask : Tensor of bool of shape (B, T, F) or None, default=None

        Returns
        -------
        ForwardResult
        """
        codes = self.encode(x, mask, S)
        if self.training:
            return ForwardResult(self.decode(codes.z).x_hat, *codes)
        x_hat = self.decode(codes.z[:, :1]).x_hat  # all codes of a record are equal
        return ForwardResult(x_hat.expand(-1, S, -1, -1), *codes)

    def expected_values(self, x_hat: Tensor) -> Tensor:
        """Mean of the likelihood at ``x_hat`` (..., T, F): x_hat itself unless it is a logit."""
        self._require_built()
        return self.observation.mean(x_hat)

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> Tensor:
        """Reconstruct a training batch: expected values at the means of its codes.

        Parameters
        ----------
        batch : dict of Tensor
            See :meth:`training_step`; the encoder sees what it sees there.

        Returns
        -------
        Tensor of shape (B, T, F)
        """
        self._require_built()
        asked = self.read_batch(batch)
        with self.evaluating():
            codes = self.encode(asked.x, asked.visible)
            return self.expected_values(self.decode(codes.z[:, 0]).x_hat)

    # -- codes as vectors --------------------------------------------------------------------

    def flatten_codes(self, z: Tensor) -> Tensor:
        """Bring codes (..., *latent) to (..., n_latent)."""
        self._check_codes(z)
        return z.flatten(z.ndim - len(self.latent_shape))

    def unflatten_codes(self, z: Tensor) -> Tensor:
        """Bring vectors (..., n_latent) to codes (..., *latent)."""
        if z.shape[-1:] != (self.n_latent,):
            raise ValueError(
                f"flat codes must have shape (..., {self.n_latent}), got {tuple(z.shape)}"
            )
        return z.unflatten(-1, self.latent_shape)

    # -- the loss ----------------------------------------------------------------------------

    def compute_loss(
        self,
        x: Tensor,
        output: Any,
        beta: float = 1.0,
        likelihood: str | Likelihood[Any] | None = None,
        mask: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> LossResult:
        """Loss of a forward pass: minus the log-likelihood (subclasses add their terms).

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
            The records that were encoded.
        output : ForwardResult
        beta : float, default=1.0
            Weight of the divergence of the codes.
        likelihood : str or Likelihood or None, default=None
            Another one than the model's.
        mask : Tensor of bool of shape (B, T, F) or None, default=None
            Entries of the target that count; the others may hold anything.
        target : Tensor of shape (B, T, F) or None, default=None
            What the reconstruction is compared with; None: x.
        weight : Tensor of shape (B,) or None, default=None
            Factor of each record's log-likelihood.

        Returns
        -------
        LossResult
            ``objective`` per value (divided by T F); diagnostics in nats per record:
            ``log_likelihood``, and ``spectral`` if it has a weight.
        """
        target = x if target is None else target
        log_prob = self.record_log_prob(target, output.x_hat, mask, likelihood, weight)
        log_likelihood = log_prob.mean()
        diagnostics = {"log_likelihood": log_likelihood}
        penalty = self._penalty(target, output.x_hat, mask, likelihood, diagnostics)
        return self._result(-log_likelihood + penalty, diagnostics, x)

    def _penalty(
        self,
        target: Tensor,
        x_hat: Tensor,
        mask: Tensor | None,
        likelihood: str | Likelihood[Any] | None,
        diagnostics: dict[str, Tensor],
    ) -> Tensor:
        """Weighted spectral difference, in nats per record; noted in the diagnostics."""
        if not self.spectral_weight:
            return x_hat.new_zeros(())
        law = self.likelihood if likelihood is None else family_likelihood(likelihood)
        parameters = self.observation.parameters_at(x_hat, law)
        # A scale that follows from the location (Bernoulli) differs from step to step: 1 instead.
        scale = parameters.scale if law.support == "real" else None
        difference = spectral_difference(target, law.mean(parameters), mask, scale)
        diagnostics["spectral"] = difference.mean()
        return self.spectral_weight * diagnostics["spectral"]

    def record_log_prob(
        self,
        x: Tensor,
        x_hat: Tensor,
        mask: Tensor | None = None,
        likelihood: str | Likelihood[Any] | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Log-likelihood of each record under each of its codes.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        x_hat : Tensor of shape (B, S, T, F)
        mask, likelihood, weight
            See :meth:`compute_loss`.

        Returns
        -------
        Tensor of shape (B, S)
            In nats.
        """
        self._check_records(x)
        mask = None if mask is None else mask.bool()
        log_prob = self.observation.log_prob(x, x_hat, mask, likelihood).sum(dim=(-2, -1))
        return log_prob if weight is None else log_prob * weight[:, None]

    def _result(self, loss: Tensor, diagnostics: dict[str, Tensor], x: Tensor) -> LossResult:
        """Wrap a loss in nats per record: divided by T F, diagnostics detached, batch weighted."""
        detached = {name: value.detach() for name, value in diagnostics.items()}
        detached["weight"] = x.new_tensor(float(x.shape[0]))
        return LossResult(loss / math.prod(self.record_shape), detached)

    def training_step(self, batch: dict[str, Tensor], step: int) -> LossResult:
        """Loss of one batch; in eval mode the criterion, free of annealed weights.

        Parameters
        ----------
        batch : dict of Tensor
            ``x`` (B, T, F); optional ``mask`` (observed), ``visible`` (what of it the encoder
            sees), ``asked`` (what of it the reconstruction is compared with), ``target`` and
            ``target_mask`` (clean records), all (B, T, F).
        step : int
            Optimizer steps so far, for schedules.

        Returns
        -------
        LossResult

        Notes
        -----
        Where only a part of a record is asked for, its log-likelihood is scaled up to the whole,
        so that the balance with the divergence stays that of complete records.
        """
        self._require_built()
        generator = self.generator
        if not self.training:
            generator = torch.Generator().manual_seed(_CRITERION_SEED)
        asked = self.read_batch(batch)
        output = self._training_output(asked, batch, generator)
        beta = self._beta(step) if self.training else self._criterion_beta()
        return self.compute_loss(
            asked.x, output, beta, mask=asked.mask, target=asked.target, weight=asked.weight
        )

    def _criterion_beta(self) -> float:
        """Weight of the KL terms in the validation criterion."""
        return 1.0

    @staticmethod
    def read_batch(batch: dict[str, Tensor]) -> Asked:
        """Fill in what a training batch leaves out.

        Parameters
        ----------
        batch : dict of Tensor
            See :meth:`training_step`.

        Returns
        -------
        Asked
        """
        x = batch["x"]
        mask = batch["mask"].bool() if "mask" in batch else torch.ones_like(x, dtype=torch.bool)
        visible = batch["visible"].bool() if "visible" in batch else mask
        target, known = batch.get("target", x), mask
        if "target" in batch:
            known = batch.get("target_mask", torch.ones_like(mask)).bool()
        if "asked" not in batch:
            return Asked(x, visible, target, known, None)
        counted = known & batch["asked"].bool()
        weight = known.sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp_min(1)
        return Asked(x, visible, target, counted, weight.to(x.dtype))

    def network_modules(self) -> list[nn.Module]:
        """Modules that mixed precision may run in half precision."""
        return [self.encoder, self.decoder]
