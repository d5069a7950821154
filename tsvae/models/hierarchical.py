"""Hierarchical VAE: several latent levels, inferred top-down (ladder VAE)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tsvae.models.family import Asked
from tsvae.models.gaussians import channel_kl, free_bits_kl
from tsvae.models.hierarchical_architectures import HierarchicalArchitectures
from tsvae.models.hierarchical_outputs import (
    HierarchicalEncodeResult,
    HierarchicalForwardResult,
    joined_codes,
    level_kl,
    log_prior_ratio,
)
from tsvae.models.ladder import Ladder, LadderStates, join_levels
from tsvae.models.ladder_bounds import ladder_bound
from tsvae.models.objectives import mean_importance_bound, negative_elbo, rate_and_distortion
from tsvae.models.outputs import Posterior
from tsvae.models.vae import VAE
from tsvae.nn import Likelihood
from tsvae.nn.checks import check_size
from tsvae.training import LossResult

__all__ = ["HierarchicalVAE"]

_MOST_CHANNELS = 64  # of a level, whose KL is reported one by one
_VALUES_AT_ONCE = 2**20  # decoded by the importance-weighted bound


class HierarchicalVAE(VAE, HierarchicalArchitectures):
    r"""Ladder VAE: latent levels from coarse to fine.

    .. math::
        z_1 \sim N(0, I), \quad z_i \sim p(z_i | z_{<i}), \quad x \sim p(x | z_{\le n}),

    where the posterior of each level joins what the data say with what the coarser levels say; see
    :class:`~tsvae.models.ladder.Ladder`. :meth:`perceptron` and :meth:`convolutional` make the
    networks too.

    Codes are vectors (B, S, n_latent), all levels after each other, the coarsest first;
    ``level_shapes`` and :meth:`split_levels` take them apart.

    Parameters
    ----------
    ladder : Ladder
        Networks of the latent levels; its first encoder takes (B, T, F), or (B, T, 2 F) if
        ``mask_input``.
    decoder : Module
        Takes the ladder's top-down state, gives (B, T, F).
    **options
        See :class:`~tsvae.models.vae.VAE`, without ``mmd_weight`` (the prior is learned) and
        ``latent``.

    References
    ----------
    Sonderby et al. 2016 (arXiv 1602.02282); the deterministic top-down path (``skip``) as in
    Vahdat & Kautz 2020 (arXiv 2007.03898).

    Examples
    --------
    >>> model = HierarchicalVAE.convolutional(1, 33, latent_dim=2, hidden_sizes=(8, 16), n_levels=2)
    >>> x = torch.zeros(5, 33, 1)
    >>> output = model.build(x)(x, S=3)
    >>> model.level_shapes, output.z.shape, output.x_hat.shape
    (((9, 2), (17, 2)), torch.Size([5, 3, 52]), torch.Size([5, 3, 33, 1]))
    >>> result = model.compute_loss(x, output)
    >>> [name for name in sorted(result.diagnostics) if name.startswith("kl")]
    ['kl_divergence', 'kl_level_1', 'kl_level_1_0', 'kl_level_1_1',
     'kl_level_2', 'kl_level_2_0', 'kl_level_2_1']
    >>> model.decode(model.sample_prior(4)).x_hat.shape
    torch.Size([4, 33, 1])
    """

    encoder: Ladder

    def __init__(self, ladder: Ladder, decoder: nn.Module, **options: Any) -> None:
        if not isinstance(ladder, Ladder):
            raise TypeError(
                f"ladder must be a Ladder, got {type(ladder).__name__}; see "
                "HierarchicalVAE.perceptron and HierarchicalVAE.convolutional"
            )
        for name in ("mmd_weight", "latent"):
            if name in options:
                raise TypeError(f"HierarchicalVAE has no option {name}")
        super().__init__(ladder, decoder, sum(ladder.latent_dims), **options)

    # -- building ----------------------------------------------------------------------------

    @property
    def ladder(self) -> Ladder:
        """Networks of the latent levels."""
        return self.encoder

    @property
    def level_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each level's code, the coarsest first; known once the model is built."""
        self._require_built()
        return self.ladder.level_shapes

    def _probe_encoder(self, encoder_input: Tensor) -> Tensor:
        return encoder_input  # the ladder is tried when its heads are made

    def _make_heads(self, features: Tensor) -> None:
        self.ladder.build(features, self.generator)
        sizes = (math.prod(shape) for shape in self.ladder.level_shapes)
        self._latent_shape = (sum(sizes),)

    def _decoder_input(self, z: Tensor) -> Tensor:
        return self.ladder.generate(self.split_levels(z)).top_down

    def split_levels(self, z: Tensor) -> list[Tensor]:
        """Take codes apart.

        Parameters
        ----------
        z : Tensor of shape (..., n_latent)

        Returns
        -------
        list of Tensor, each of shape (..., *level_shape)
            The coarsest level first.
        """
        sizes = [math.prod(shape) for shape in self.level_shapes]
        parts = z.split(sizes, dim=-1)
        return [
            part.reshape(*z.shape[:-1], *shape)
            for part, shape in zip(parts, self.level_shapes, strict=True)
        ]

    def features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return records as the ladder reads them, checked."""
        self._check_records(x)
        return self.encoder_input(x, mask)

    def network_modules(self) -> list[nn.Module]:
        """Modules that mixed precision may run in half precision."""
        return [*self.ladder.encoders, *self.ladder.expanders, self.decoder]

    # -- the passes --------------------------------------------------------------------------

    def posterior(self, features: Tensor) -> Posterior:
        """q(z|x) from what the ladder reads, of finer levels at the coarser ones' means."""
        codes = self._codes(features, 1, None)
        return Posterior(codes.mu[:, 0], codes.log_var[:, 0])

    def _states(
        self, features: Tensor, n_samples: int, generator: torch.Generator | None
    ) -> LadderStates:
        noise = None
        if generator is not None:
            noise = self.ladder.noise(len(features) * n_samples, generator)
        return self.ladder.infer(features, n_samples, noise)

    def _codes(  # type: ignore[override]
        self, features: Tensor, n_samples: int, generator: torch.Generator | None
    ) -> HierarchicalEncodeResult:
        return joined_codes(self._states(features, n_samples, generator), features.shape[0])

    def _pass(
        self, features: Tensor, n_samples: int, generator: torch.Generator | None
    ) -> HierarchicalForwardResult:
        return self._decoded(self._states(features, n_samples, generator), features.shape[0])

    def _decoded(self, states: LadderStates, n_records: int) -> HierarchicalForwardResult:
        x_hat = self.decoder(states.top_down).reshape(n_records, -1, *self.record_shape)
        return HierarchicalForwardResult(x_hat, *joined_codes(states, n_records))

    def forward(
        self, x: Tensor, S: int = 1, mask: Tensor | None = None
    ) -> HierarchicalForwardResult:
        """Encode and decode; in eval mode every level takes its posterior mean.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        S : int, default=1
        mask : Tensor of bool of shape (B, T, F) or None, default=None

        Returns
        -------
        HierarchicalForwardResult
        """
        generator = self.generator if self.training else None
        return self._pass(self.features(x, mask), check_size("S", S), generator)

    def _training_output(
        self, asked: Asked, batch: dict[str, Tensor], generator: torch.Generator
    ) -> HierarchicalForwardResult:
        return self._pass(self.features(asked.x, asked.visible), self.n_samples, generator)

    @torch.no_grad()
    def sample_posterior(
        self,
        x: Tensor,
        n_samples: int = 1,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw codes of records, in train and in eval mode; see :meth:`VAE.sample_posterior`."""
        own = self.generator if generator is None else generator
        with self.evaluating():
            return self._codes(self.features(x, mask), check_size("n_samples", n_samples), own).z

    @torch.no_grad()
    def sample_prior(self, n_records: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes top-down from the prior; ``decode`` them for new records.

        Parameters
        ----------
        n_records : int
            B.
        generator : torch.Generator or None, default=None
            None: the model's own.

        Returns
        -------
        Tensor of shape (B, n_latent)
        """
        self._require_built()
        own = self.generator if generator is None else generator
        with self.evaluating():
            noise = self.ladder.noise(check_size("n_records", n_records), own)
            return join_levels(self.ladder.sample(n_records, noise).z)

    # -- the loss ----------------------------------------------------------------------------

    def compute_loss(
        self,
        x: Tensor,
        output: HierarchicalForwardResult,
        beta: float = 1.0,
        likelihood: str | Likelihood[Any] | None = None,
        mask: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> LossResult:
        """Minus the bound; see :meth:`VAE.compute_loss`.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        output : HierarchicalForwardResult
            Of a pass in train mode: in eval mode the codes are no draws.
        beta, likelihood, mask, target, weight
            See :meth:`VAE.compute_loss`.

        Returns
        -------
        LossResult
            Diagnostics of :meth:`VAE.compute_loss`, but the KL is reported by levels:
            ``kl_level_1`` (the coarsest), ... and of their channels ``kl_level_1_0``, ...
        """
        target = x if target is None else target
        log_prob = self.record_log_prob(target, output.x_hat, mask, likelihood, weight)
        kl = level_kl(output).mean(1)
        diagnostics = rate_and_distortion(log_prob, kl, beta, x.dtype)
        for i, level in enumerate(self.split_levels(kl), start=1):
            diagnostics[f"kl_level_{i}"] = free_bits_kl(level, 0.0)
            if level.shape[-1] <= _MOST_CHANNELS:
                diagnostics |= channel_kl(level, f"kl_level_{i}_")
        if self.objective == "iwae":
            weights = log_prob + beta * log_prior_ratio(output)
            bound = diagnostics["importance_weighted_bound"] = mean_importance_bound(weights)
            loss = -bound
        else:
            free_bits = self.free_bits if self.training else 0.0
            loss = negative_elbo(diagnostics["log_likelihood"], kl, beta, free_bits)
        loss = loss + self._penalty(target, output.x_hat, mask, likelihood, diagnostics)
        return self._result(loss, diagnostics, x)

    # -- evaluation --------------------------------------------------------------------------

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
    ) -> Tensor:
        """Lower bound on log p(x) of each record; see :meth:`VAE.importance_weighted_bound`."""
        if chunk_size is None:
            chunk_size = max(1, _VALUES_AT_ONCE // math.prod(self.record_shape))

        def log_weights(rows: slice, size: int, noise: list[Tensor]) -> Tensor:
            part = None if mask is None else mask[rows]
            states = self.ladder.infer(features[rows], size, noise)
            output = self._decoded(states, len(features[rows]))
            return self.record_log_prob(x[rows], output.x_hat, part) + log_prior_ratio(output)

        with self.evaluating():
            features = self.features(x, mask)
            return ladder_bound(
                log_weights,
                self.ladder,
                len(x),
                check_size("n_samples", n_samples),
                torch.Generator().manual_seed(0) if generator is None else generator,
                chunk_size=check_size("chunk_size", chunk_size),
                common_noise=common_noise,
            )

    @torch.no_grad()
    def kl_per_dimension(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """KL of each latent entry, mean over records, at one draw of the coarser levels.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        mask : Tensor of bool of shape (B, T, F) or None, default=None

        Returns
        -------
        Tensor of shape (n_latent,)
            In nats.
        """
        with self.evaluating():
            codes = self._codes(self.features(x, mask), 1, torch.Generator().manual_seed(0))
        return level_kl(codes).mean((0, 1))
