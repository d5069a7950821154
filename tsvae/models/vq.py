"""VQ-VAE: an autoencoder whose codes are entries of a codebook."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tsvae.models.code_network import AutoregressiveCodePrior
from tsvae.models.code_prior import CodePrior, MarkovCodePrior
from tsvae.models.codebook import Codebook, code_perplexity
from tsvae.models.family import Asked, BaseAutoencoder, LatentKind
from tsvae.models.outputs import DecodeResult
from tsvae.models.vq_outputs import VQEncodeResult, VQForwardResult
from tsvae.nn import Likelihood
from tsvae.nn.checks import check_size
from tsvae.training import LossResult

__all__ = ["VQVAE", "VQEncodeResult", "VQForwardResult"]

_WIDEST_SPLIT = 4  # of a latent vector, where code_dim is not given


class VQVAE(BaseAutoencoder):
    r"""Vector-quantised VAE: each latent step is one of K learned vectors.

    The encoder's output is replaced by the nearest code vector; the decoder's gradient passes
    straight through. The loss per record is

    .. math:: -\log p(x | z_q) + \beta_c \, \|z_e - sg(z_q)\|^2

    and the codebook follows the encoder by moving averages, updated by every forward pass in
    train mode. To generate, fit a prior over the sequences of codes: :meth:`fit_prior`.

    Parameters
    ----------
    encoder, decoder : Module
        See :class:`~tsvae.models.family.BaseAutoencoder`.
    latent_dim : int
        Size of the code; per latent step if it is a map.
    n_codes : int, default=128
        K, vectors of the codebook.
    code_dim : int, optional
        Length of one code vector; it must divide ``latent_dim``, which is then cut into as many
        codes. None: ``latent_dim`` itself for a map, and for a vector its largest divisor up to
        4, so that a record is more than one symbol.
    latent : {"map", "vector"}, default="map"
    commitment_weight : float, default=0.25
        Beta of the paper, where results were the same from 0.1 to 2.
    decay, epsilon, restart_after : float
        See :class:`~tsvae.models.codebook.Codebook`.
    prior : {"markov", "autoregressive"} or CodePrior, default="markov"
        Distribution of the codes; see :class:`~tsvae.models.code_prior.MarkovCodePrior` and
        :class:`~tsvae.models.code_network.AutoregressiveCodePrior`.
    prior_options : dict, optional
        Options of a prior given by name.
    **options
        Of :class:`~tsvae.models.family.BaseAutoencoder`.

    References
    ----------
    van den Oord, Vinyals & Kavukcuoglu 2017 (arXiv 1711.00937), equations 1 to 3 and section 3.3.

    Examples
    --------
    >>> from torch import nn
    >>> encoder = nn.Linear(1, 8)
    >>> model = VQVAE(encoder, nn.Linear(2, 1), latent_dim=2, n_codes=4)
    >>> x = torch.linspace(0, 1, 30).reshape(5, 6, 1)
    >>> model.build(x).encode(x).codes.shape
    torch.Size([5, 6])
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        n_codes: int = 128,
        code_dim: int | None = None,
        latent: LatentKind = "map",
        commitment_weight: float = 0.25,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        restart_after: float = 100.0,
        prior: Literal["markov", "autoregressive"] | CodePrior = "markov",
        prior_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(encoder, decoder, latent_dim, latent=latent, **options)
        self.code_dim = self._check_code_dim(code_dim)
        self.n_codes = check_size("n_codes", n_codes)
        if not commitment_weight >= 0.0:
            raise ValueError(f"commitment_weight must be at least 0, got {commitment_weight!r}")
        self.commitment_weight = float(commitment_weight)
        self.codebook = Codebook(
            self.n_codes,
            self.code_dim,
            decay=decay,
            epsilon=epsilon,
            restart_after=restart_after,
            generator=self.generator,
        )
        self.prior_options = dict(prior_options or {})
        self.prior: Any = self._check_prior(prior)

    def _check_code_dim(self, code_dim: int | None) -> int:
        if code_dim is None:
            if self.latent == "map":
                return self.latent_dim
            sizes = range(1, _WIDEST_SPLIT + 1)
            return max(size for size in sizes if self.latent_dim % size == 0)
        size = check_size("code_dim", code_dim)
        if self.latent_dim % size:
            raise ValueError(f"code_dim must divide latent_dim={self.latent_dim}, got {code_dim}")
        return size

    def _check_prior(self, prior: Any) -> Any:
        if isinstance(prior, str):
            if prior not in ("markov", "autoregressive"):
                raise ValueError(
                    f"prior must be 'markov', 'autoregressive' or a CodePrior, got {prior!r}"
                )
            if prior == "markov":
                return MarkovCodePrior(self.n_codes, **{"order": 2, **self.prior_options})
            return prior  # made by build: it needs the number of codes per record
        if not isinstance(prior, CodePrior):
            raise TypeError(
                "prior must be 'markov', 'autoregressive' or an object with fit, sample, "
                f"log_prob, fitted and n_codes, got {prior!r}"
            )
        if prior.n_codes != self.n_codes:
            raise ValueError(
                f"prior has n_codes={prior.n_codes}, but the codebook has n_codes={self.n_codes}"
            )
        return prior

    # -- codes -------------------------------------------------------------------------------

    @property
    def n_code_steps(self) -> int:
        """L, codes per record."""
        return self.n_latent // self.code_dim

    def _make_heads(self, features: Tensor) -> None:
        self.head = self._head(features, self.latent_dim)
        if self.prior == "autoregressive":
            options = {"generator": self.generator, **self.prior_options}
            network = AutoregressiveCodePrior(self.n_codes, self.n_code_steps, **options)
            self.prior = network.requires_grad_(False)  # trained by fit_prior alone

    def _codes(  # type: ignore[override]
        self, features: Tensor, n_samples: int, generator: torch.Generator | None
    ) -> VQEncodeResult:
        return self._quantised(self._continuous(features), n_samples)

    def _continuous(self, features: Tensor) -> Tensor:
        """Return encoder outputs as code vectors to be: ``(B, L, code_dim)``."""
        mu: Tensor = self.head(self.head_input(features))
        return mu.reshape(mu.shape[0], self.n_code_steps, self.code_dim)

    def _quantised(self, mu: Tensor, n_samples: int) -> VQEncodeResult:
        quantised = self.codebook(mu)
        n = mu.shape[0]  # not len(mu): exporters trace the number of records
        z, mu = (
            part.reshape(n, 1, *self.latent_shape).expand(n, n_samples, *self.latent_shape)
            for part in (quantised.z, mu)
        )
        return VQEncodeResult(z, mu, None, quantised.codes, quantised.commitment.sum(-1))

    def _pass(self, x: Tensor, mask: Tensor | None, n_samples: int) -> VQForwardResult:
        """Encode and decode; in train mode the codebook follows."""
        mu = self._continuous(self.features(x, mask))
        if self.training and not bool(self.codebook.started):
            self.codebook.start(mu, self.generator)
        codes = self._quantised(mu, n_samples)
        if self.training:
            self.codebook.update(mu, codes.codes, self.generator)
        x_hat = self.decode(codes.z[:, :1]).x_hat
        return VQForwardResult(x_hat.expand(-1, n_samples, -1, -1), *codes)

    def forward(self, x: Tensor, S: int = 1, mask: Tensor | None = None) -> VQForwardResult:
        """Encode and decode; in train mode the codebook follows the encoder's outputs.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        S : int, default=1
            Equal copies: nothing is drawn.
        mask : Tensor of bool of shape (B, T, F) or None, default=None

        Returns
        -------
        VQForwardResult
        """
        return self._pass(x, mask, check_size("S", S))

    def _training_output(
        self, asked: Asked, batch: dict[str, Tensor], generator: torch.Generator
    ) -> VQForwardResult:
        return self._pass(asked.x, asked.visible, 1)

    def decode_codes(self, codes: Tensor) -> DecodeResult:
        """Reconstruct from indices.

        Parameters
        ----------
        codes : Tensor of int64, shape (..., L)

        Returns
        -------
        DecodeResult
            ``x_hat`` of shape (..., T, F).
        """
        return self.decode(self.embed_codes(codes))

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Code vectors of indices: ``(..., L)`` to ``(..., *latent)``."""
        if codes.shape[-1:] != (self.n_code_steps,):
            raise ValueError(
                f"codes must have shape (..., {self.n_code_steps}), got {tuple(codes.shape)}"
            )
        z = self.codebook.look_up(codes)
        return z.reshape(*codes.shape[:-1], *self.latent_shape)

    def quantise(self, z: Tensor) -> Tensor:
        """Put the nearest vectors of the codebook in place of ``(..., *latent)``."""
        steps = z.reshape(*z.shape[: -len(self.latent_shape)], self.n_code_steps, self.code_dim)
        return self.embed_codes(self.codebook.nearest(steps)).to(z.dtype)

    # -- the loss ----------------------------------------------------------------------------

    def compute_loss(
        self,
        x: Tensor,
        output: VQForwardResult,
        beta: float = 1.0,
        likelihood: str | Likelihood[Any] | None = None,
        mask: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> LossResult:
        """Minus the log-likelihood, plus the commitment.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        output : VQForwardResult
        beta : float, default=1.0
            Not used: with a uniform prior the divergence is the constant L log K.
        likelihood, mask, target, weight
            See :meth:`BaseAutoencoder.compute_loss`.

        Returns
        -------
        LossResult
            Diagnostics, in nats per record: ``log_likelihood``, ``distortion`` (its negative),
            ``kl_divergence`` and ``rate`` (L log K; in eval mode, if the prior is fitted, minus
            the codes' log probability), ``commitment``, ``spectral`` if it has a weight; and
            ``perplexity`` of the batch's codes.
        """
        target = x if target is None else target
        log_prob = self.record_log_prob(target, output.x_hat, mask, likelihood, weight)
        log_likelihood, commitment = log_prob.mean(), output.commitment.mean()
        rate = self._rate(output.codes).to(log_likelihood).mean()
        diagnostics = {
            "log_likelihood": log_likelihood,
            "distortion": -log_likelihood,
            "kl_divergence": rate,
            "rate": rate,
            "commitment": commitment,
            "perplexity": code_perplexity(output.codes, self.n_codes),
        }
        loss = -log_likelihood + self.commitment_weight * commitment
        loss = loss + self._penalty(target, output.x_hat, mask, likelihood, diagnostics)
        return self._result(loss, diagnostics, x)

    # -- generation --------------------------------------------------------------------------

    def fit_prior(self, codes: Tensor, generator: torch.Generator | None = None) -> VQVAE:
        """Fit the prior to the codes of the training records.

        Parameters
        ----------
        codes : Tensor of int64, shape (N, L)
            ``encode(x).codes`` in eval mode, of all training records.
        generator : torch.Generator, optional
            Randomness of the fit; None: the model's own.

        Returns
        -------
        VQVAE
            Itself.
        """
        self._require_built()
        network = isinstance(self.prior, nn.Module)
        if network:
            self.prior.requires_grad_(True)
        try:
            self.prior.fit(codes, self.generator if generator is None else generator)
        finally:
            if network:
                self.prior.requires_grad_(False)
        return self

    @torch.no_grad()
    def sample_codes(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes from the fitted prior.

        Parameters
        ----------
        n : int
        generator : torch.Generator, optional
            None: the model's own.

        Returns
        -------
        Tensor of int64, shape (n, L)

        Raises
        ------
        RuntimeError
            If the prior is not fitted.
        """
        self._require_built()
        if not self.prior.fitted:
            raise RuntimeError(
                "the prior over codes is not fitted, so there is nothing to draw from: call "
                "fit_prior(model.eval().encode(x).codes) with the training records first"
            )
        codes: Tensor = self.prior.sample(n, self.generator if generator is None else generator)
        return codes.to(self.codebook.vectors.device)

    def sample_prior(self, n_records: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw code vectors from the fitted prior; ``decode`` them for new records.

        Parameters
        ----------
        n_records : int
            B.
        generator : torch.Generator, optional
            None: the model's own.

        Returns
        -------
        Tensor of shape (B, *latent)

        Raises
        ------
        RuntimeError
            If the prior is not fitted.
        """
        return self.embed_codes(self.sample_codes(n_records, generator))

    # -- evaluation --------------------------------------------------------------------------

    @torch.no_grad()
    def importance_weighted_bound(
        self,
        x: Tensor,
        n_samples: int = 1,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Lower bound on log p(x) of each record: log p(x | z_q) plus the codes' log probability.

        Of the sum over all sequences of codes, it keeps the one that the encoder names.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        n_samples, generator
            Not used: nothing is drawn. Here so that all models are called alike.
        mask : Tensor of bool of shape (B, T, F) or None, default=None
            Entries that are seen and scored.

        Returns
        -------
        Tensor of shape (B,)
            In nats per record, under the fitted prior, or the uniform one before.
        """
        with self.evaluating():
            output = self(x, mask=mask)
            log_prob = self.record_log_prob(x, output.x_hat, mask).squeeze(1)
            return log_prob - self._rate(output.codes).to(log_prob)

    @torch.no_grad()
    def _rate(self, codes: Tensor) -> Tensor:
        """Nats that the codes of each record cost, under the fitted prior or the uniform one."""
        if self.training or not self.prior.fitted:
            return torch.full((len(codes),), codes.shape[1] * math.log(self.n_codes))
        log_prob: Tensor = self.prior.log_prob(codes)
        return -log_prob
