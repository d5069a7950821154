r"""Variational autoencoder.

.. math::
    z \sim N(0, I), \quad x \sim p(x | decoder(z)), \quad q(z | x) = N(\mu(x), diag(\sigma^2(x))),

trained by the evidence lower bound :math:`E_q \log p(x|z) - \beta KL(q(z|x) \| p(z))` (Kingma &
Welling 2014, arXiv 1312.6114; Higgins et al. 2017, beta-VAE) or by the importance-weighted bound
(Burda et al. 2016, arXiv 1509.00519), with free bits and an MMD penalty as options.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tsvae.models.bounds import importance_bound, log_importance_weights
from tsvae.models.family import BaseAutoencoder
from tsvae.models.gaussians import (
    channel_kl,
    gaussian_kl,
    limit_log_variance,
    sample_gaussian,
    standard_noise,
)
from tsvae.models.mmd import KernelName, check_kernel, maximum_mean_discrepancy
from tsvae.models.objectives import (
    Objective,
    mean_importance_bound,
    negative_elbo,
    rate_and_distortion,
)
from tsvae.models.outputs import ActiveUnits, EncodeResult, Posterior
from tsvae.nn import Likelihood
from tsvae.nn.checks import check_size
from tsvae.training import BetaSchedule, LossResult

__all__ = ["VAE", "ActiveUnits", "Posterior"]

_IWAE_SAMPLES = 5
_MOST_CHANNELS = 64  # of the code, whose KL is reported one by one
_VALUES_AT_ONCE = 2**20  # decoded by the importance-weighted bound: some 100 MB with 32 channels


class VAE(BaseAutoencoder):
    """Variational autoencoder with a standard normal prior.

    Parameters
    ----------
    encoder, decoder : Module
    latent_dim : int
    beta : float, default=1.0
        Weight of the KL term after annealing; 1 is the evidence lower bound, more asks for
        independent latent entries at the price of detail (beta-VAE).
    annealing_steps : int, default=10_000
        Optimizer steps over which the weight grows linearly from 0 to ``beta``, so that the
        decoder learns to use the codes before they cost something.
    free_bits : float, default=0.0
        Nats per latent entry (mean over a batch) that cost nothing; 0.5 keeps every entry in use
        where the posterior collapses. Only for ``objective="elbo"``.
    objective : {"elbo", "iwae"}, default="elbo"
        Evidence lower bound, or the tighter importance-weighted bound.
    n_samples : int or None, default=None
        Codes S per record in ``training_step``; None: 1 for the ELBO, 5 for the
        importance-weighted bound.
    mmd_weight : float, default=0.0
        Weight, in nats per record, of the squared maximum mean discrepancy between the codes of a
        batch and the prior. ``beta=0`` with a weight above 0 is the Wasserstein autoencoder;
        InfoVAE's (alpha, lambda) are ``beta = 1 - alpha, mmd_weight = alpha + lambda - 1``.
    mmd_kernel : {"imq", "rbf"}, default="imq"
    **options
        ``latent``, ``mask_input``, ``likelihood``, ``scale``, ``initial_scale``, ``min_scale``,
        ``spectral_weight``, ``generator``; see :class:`~tsvae.models.family.BaseAutoencoder`.

    References
    ----------
    Kingma & Welling 2014 (arXiv 1312.6114); Higgins et al. 2017 (ICLR, beta-VAE); Kingma et al.
    2016 (arXiv 1606.04934), equation 15 (free bits); Burda et al. 2016 (arXiv 1509.00519); Zhao et
    al. 2019 (arXiv 1706.02262), equation 6 (InfoVAE); Tolstikhin et al. 2018 (arXiv 1711.01558).

    Examples
    --------
    >>> import torch
    >>> from tsvae.nn import ConvDecoder, ConvEncoder
    >>> decoder = ConvDecoder(4, 1, 33, (16, 8), latent="vector")
    >>> model = VAE(ConvEncoder(1, (8, 16)), decoder, latent_dim=4)
    >>> x = torch.zeros(5, 33, 1)
    >>> output = model.build(x)(x, S=3)
    >>> output.x_hat.shape, output.z.shape
    (torch.Size([5, 3, 33, 1]), torch.Size([5, 3, 4]))
    >>> sorted(model.compute_loss(x, output).diagnostics)
    ['active_units', 'beta', 'distortion', 'kl_0', 'kl_1', 'kl_2', 'kl_3', 'kl_divergence',
     'log_likelihood', 'rate', 'weight']
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        beta: float = 1.0,
        annealing_steps: int = 10_000,
        free_bits: float = 0.0,
        objective: Objective = "elbo",
        n_samples: int | None = None,
        mmd_weight: float = 0.0,
        mmd_kernel: KernelName = "imq",
        **options: Any,
    ) -> None:
        if objective not in get_args(Objective):
            raise ValueError(f"objective must be 'elbo' or 'iwae', got {objective!r}")
        if n_samples is None:
            n_samples = _IWAE_SAMPLES if objective == "iwae" else 1
        super().__init__(encoder, decoder, latent_dim, n_samples=n_samples, **options)
        for name, value in (("beta", beta), ("free_bits", free_bits), ("mmd_weight", mmd_weight)):
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
        if free_bits and objective == "iwae":
            raise ValueError(
                "free_bits needs the KL term of objective='elbo'; the importance-weighted bound "
                "has none"
            )
        check_kernel(mmd_kernel)
        self.beta, self.free_bits, self.objective = float(beta), float(free_bits), objective
        self.mmd_weight, self.mmd_kernel = float(mmd_weight), mmd_kernel
        check_size("annealing_steps", annealing_steps, 0)
        self.beta_schedule = BetaSchedule(0.0, self.beta, 0, annealing_steps)

    # -- codes -------------------------------------------------------------------------------

    def _make_heads(self, features: Tensor) -> None:
        self.mean_head = self._head(features, self.latent_dim)
        # Every posterior starts with variance 1, as the prior: no overflow whatever the encoder.
        self.log_var_head = self._head(features, self.latent_dim, gain=0.0)

    def posterior(self, features: Tensor) -> Posterior:
        """q(z|x) from the encoder's output."""
        hidden = self.head_input(features)
        return Posterior(self.mean_head(hidden), limit_log_variance(self.log_var_head(hidden)))

    def _codes(
        self, features: Tensor, n_samples: int, generator: torch.Generator | None
    ) -> EncodeResult:
        return self.codes_of(self.posterior(features), n_samples, generator)

    def codes_of(
        self, posterior: Posterior, n_samples: int, generator: torch.Generator | None
    ) -> EncodeResult:
        """Draw codes from a posterior, or repeat its mean if ``generator`` is None."""
        shape = (-1, n_samples, *self.latent_shape)
        mu, log_var = (value.unsqueeze(1).expand(shape) for value in posterior)
        if generator is None:
            return EncodeResult(mu, mu, log_var)
        return EncodeResult(sample_gaussian(*posterior, n_samples, generator), mu, log_var)

    @torch.no_grad()
    def sample_posterior(
        self,
        x: Tensor,
        n_samples: int = 1,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw codes of records, in train and in eval mode.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        n_samples : int, default=1
            S.
        mask : Tensor of bool of shape (B, T, F) or None, default=None
        generator : torch.Generator or None, default=None
            None: the model's own.

        Returns
        -------
        Tensor of shape (B, S, *latent)
        """
        own = self.generator if generator is None else generator
        with self.evaluating():
            posterior = self.posterior(self.features(x, mask))
        return sample_gaussian(*posterior, check_size("n_samples", n_samples), own)

    def sample_prior(self, n_records: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes from the prior; ``decode`` them for new records.

        Parameters
        ----------
        n_records : int
            B.
        generator : torch.Generator or None, default=None
            None: the model's own.

        Returns
        -------
        Tensor of shape (B, *latent)
        """
        shape = (check_size("n_records", n_records), *self.latent_shape)
        own = self.generator if generator is None else generator
        return standard_noise(shape, self.mean_head.weight.detach(), own)

    # -- the loss ----------------------------------------------------------------------------

    def _beta(self, step: int) -> float:
        return self.beta_schedule.value(step)

    def _criterion_beta(self) -> float:
        return self.beta  # the final weight: epochs of an annealed run compare

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
        """Minus the bound, plus the MMD penalty.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
            The records that were encoded.
        output : ForwardResult
            Of a pass in train mode: in eval mode the codes are no draws, and the result is no
            bound. ``training_step`` draws codes in both.
        beta : float, default=1.0
            Weight of the KL term; in the importance-weighted bound, of log p(z) - log q(z|x).
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
            ``objective`` per value (divided by T F). Diagnostics, in nats per record:
            ``log_likelihood`` and ``kl_divergence``, the same as ``distortion`` (with the other
            sign) and ``rate``; ``active_units``, the number of latent entries with a KL above
            0.01 nats; ``beta``; ``mmd`` and ``spectral``, if they have a weight;
            ``importance_weighted_bound``, if it is the objective; and ``kl_0``, ``kl_1``, ...: the
            KL of each of the ``latent_dim`` channels of the code, of a map summed over its steps,
            so that they add up to ``kl_divergence`` (only up to 64 channels).
        """
        target = x if target is None else target
        log_prob = self.record_log_prob(target, output.x_hat, mask, likelihood, weight)
        kl = gaussian_kl(output.mu[:, 0], output.log_var[:, 0])
        diagnostics = rate_and_distortion(log_prob, kl, beta, x.dtype)
        if self.latent_dim <= _MOST_CHANNELS:
            diagnostics |= channel_kl(kl, "kl_")
        if self.objective == "iwae":
            weights = log_importance_weights(log_prob, output.z, output.mu, output.log_var, beta)
            bound = diagnostics["importance_weighted_bound"] = mean_importance_bound(weights)
            loss = -bound
        else:
            free_bits = self.free_bits if self.training else 0.0
            loss = negative_elbo(diagnostics["log_likelihood"], kl, beta, free_bits)
        if self.mmd_weight:
            diagnostics["mmd"] = self._mmd(output.z)
            loss = loss + self.mmd_weight * diagnostics["mmd"]
        loss = loss + self._penalty(target, output.x_hat, mask, likelihood, diagnostics)
        return self._result(loss, diagnostics, x)

    def _mmd(self, z: Tensor) -> Tensor:
        codes = self.flatten_codes(z).flatten(0, 1)
        generator = self.generator if self.training else torch.Generator().manual_seed(0)
        prior = standard_noise(codes.shape, codes, generator)
        return maximum_mean_discrepancy(codes, prior, self.mmd_kernel)

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
        """Lower bound on log p(x) of each record, tighter with more samples.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        n_samples : int, default=100
            S; 1 is a one-sample ELBO.
        mask : Tensor of bool of shape (B, T, F) or None, default=None
            Entries that are seen and scored.
        generator : torch.Generator or None, default=None
            None: a fresh one with seed 0, the same in every call.
        chunk_size : int or None, default=None
            Codes decoded at a time; None: as many as make a million values.
        common_noise : bool, default=True
            The same draws for every record: a record's bound then does not depend on the records
            beside it. False: independent draws, for averages over many records.

        Returns
        -------
        Tensor of shape (B,)
            In nats per record.

        References
        ----------
        Burda et al. 2016 (arXiv 1509.00519), equation 8.
        """
        check_size("n_samples", n_samples)
        if chunk_size is None:
            chunk_size = max(1, _VALUES_AT_ONCE // math.prod(self.record_shape))
        generator = torch.Generator().manual_seed(0) if generator is None else generator

        def log_likelihood(z: Tensor, rows: slice) -> Tensor:
            part = None if mask is None else mask[rows]
            return self.record_log_prob(x[rows], self.decode(z).x_hat, part)

        with self.evaluating():
            return importance_bound(
                log_likelihood,
                *self.posterior(self.features(x, mask)),
                n_samples,
                generator,
                chunk_size=check_size("chunk_size", chunk_size),
                common_noise=common_noise,
            )

    @torch.no_grad()
    def kl_per_dimension(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """KL of each latent entry, mean over records.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        mask : Tensor of bool of shape (B, T, F) or None, default=None

        Returns
        -------
        Tensor of shape (*latent,)
            In nats. Near 0 where the posterior has collapsed to the prior.
        """
        with self.evaluating():
            return gaussian_kl(*self.posterior(self.features(x, mask))).mean(0)

    @torch.no_grad()
    def active_units(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        criterion: Literal["kl", "variance"] = "kl",
        threshold: float = 0.01,
    ) -> ActiveUnits:
        """Which latent entries carry information about the records.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        mask : Tensor of bool of shape (B, T, F) or None, default=None
        criterion : {"kl", "variance"}, default="kl"
            Mean KL over records, or the variance over records of the posterior mean.
        threshold : float, default=0.01
            An entry is active above it.

        Returns
        -------
        ActiveUnits

        References
        ----------
        Burda et al. 2016 (arXiv 1509.00519), section 5.2 (variance of the posterior mean).
        """
        if criterion == "kl":
            value = self.kl_per_dimension(x, mask)
        elif criterion == "variance":
            with self.evaluating():
                value = self.posterior(self.features(x, mask)).mu.var(0, correction=0)
        else:
            raise ValueError(f"criterion must be 'kl' or 'variance', got {criterion!r}")
        return ActiveUnits(value > threshold, value)
