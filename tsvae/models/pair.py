r"""Two variational autoencoders with a common code: one measurement from the other.

Each side has an encoder and a decoder of its own; the codes have one size and one meaning, so that
a code of either side can be decoded to both:

.. code-block:: text

    a (B, Ta, Fa) -> encoder a -> q(z|a) -> decoder a -> a from a
                                         -> decoder b -> b from a
    b (B, Tb, Fb) -> encoder b -> q(z|b) -> decoder b -> b from b
                                         -> decoder a -> a from b

The loss is the weighted sum of four reconstructions, the divergences of both posteriors from the
prior, and the Barlow Twins loss between the posterior means of paired samples (Lu & Jayaraman 2023,
JACS Au 3, 2510; Zbontar et al. 2021, arXiv 2103.03230).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tsvae.models.barlow import Projector
from tsvae.models.freezing import GradualFreezing
from tsvae.models.observation import ObservationModel
from tsvae.models.outputs import EncodeResult
from tsvae.models.pair_loss import SideRecords, pair_loss
from tsvae.models.pair_parts import PairForward, PairWeights, check_weights
from tsvae.models.pair_pass import pair_pass
from tsvae.models.vae import VAE
from tsvae.nn.checks import check_size
from tsvae.nn.layers import private_generator
from tsvae.training import BetaSchedule, LossResult

__all__ = ["PairForward", "PairVAE", "PairWeights", "Side"]

Side = Literal["a", "b"]
Stage = Literal["separate", "joint"]

_CRITERION_SEED = 0  # every evaluation of the criterion draws the same numbers


class PairVAE(nn.Module):
    """Two VAEs whose codes mean the same.

    Parameters
    ----------
    a, b : VAE
        The two sides; they may differ in length, channels, networks and likelihood, and must have
        codes of one shape. Their own ``beta`` is not used.
    weights : sequence of 4 float, default=(1, 1, 1, 1)
        Of a from a, b from b, b from a, a from b.
    beta : float, default=1.0
        Weight of the divergences from the prior.
    annealing_steps : int, default=0
        Steps over which that weight grows from 0.
    barlow_weight : float, default=1.0
        Weight of the Barlow Twins loss, which is divided by the size of what it compares.
    barlow_lambda : float, default=0.005
        Weight of the entries off its diagonal.
    projector : sequence of int or None, default=None
        Widths of the network through which codes are compared, shared by both sides; None: the
        posterior means themselves.
    cycle_weight : float, default=3.0
        Weight of the mean squared difference between codes of unpaired samples and those that come
        back when they are decoded to the other side and encoded there: what one side alone tells
        about the way to the other.
    generator : torch.Generator or None, default=None
        Source of the projector's initial parameters and of all draws; None: a private one, seed 0.

    Attributes
    ----------
    stage : {"joint", "separate"}
        In the separate stage each side trains alone: no term joins them.
    freezing : GradualFreezing or None
        Parts of the networks that rest at the start of the joint stage.

    Notes
    -----
    Reconstructions from the other side have a scale of their own: what one measurement does not
    tell of the other is more than the other's noise. Each side's terms are divided by its number of
    values, so that a long record does not outweigh a short one.

    References
    ----------
    Lu & Jayaraman 2023, JACS Au 3, 2510. Zbontar et al. 2021 (arXiv 2103.03230).

    Examples
    --------
    >>> from tsvae.nn import MLPDecoder, MLPEncoder
    >>> def side(steps):
    ...     return VAE(MLPEncoder(1, steps, (16,)), MLPDecoder(3, steps, 1, (16,)), latent_dim=3)
    >>> model = PairVAE(side(8), side(5))
    >>> a, b = torch.zeros(6, 8, 1), torch.zeros(6, 5, 1)
    >>> output = model.build(a, b)(a, b)
    >>> output.b_from_a.shape, output.a_from_b.shape
    (torch.Size([6, 1, 5, 1]), torch.Size([6, 1, 8, 1]))
    >>> loss = model.compute_loss(a, b, output)
    >>> [name for name in sorted(loss.diagnostics) if name.startswith("log_")]
    ['log_likelihood_a_from_a', 'log_likelihood_a_from_b', 'log_likelihood_b_from_a',
     'log_likelihood_b_from_b']
    """

    def __init__(
        self,
        a: VAE,
        b: VAE,
        *,
        weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        beta: float = 1.0,
        annealing_steps: int = 0,
        barlow_weight: float = 1.0,
        barlow_lambda: float = 0.005,
        projector: Sequence[int] | None = None,
        cycle_weight: float = 3.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, side in (("a", a), ("b", b)):
            if not isinstance(side, VAE):
                raise TypeError(f"{name} must be a tsvae.models.VAE, got {side!r}")
        self.weights = check_weights(weights)
        for name, value in (
            ("beta", beta),
            ("barlow_weight", barlow_weight),
            ("barlow_lambda", barlow_lambda),
            ("cycle_weight", cycle_weight),
        ):
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
        self.a, self.b = a, b
        self.beta = float(beta)
        self.beta_schedule = BetaSchedule(
            0.0, self.beta, 0, check_size("annealing_steps", annealing_steps, 0)
        )
        self.barlow_weight, self.barlow_lambda = float(barlow_weight), float(barlow_lambda)
        self.cycle_weight = float(cycle_weight)
        self.projector_sizes = None if projector is None else tuple(projector)
        self.generator = private_generator(generator)
        self.stage: Stage = "joint"
        self.freezing: GradualFreezing | None = None

    # -- building ----------------------------------------------------------------------------

    def build(self, sample_a: Tensor, sample_b: Tensor) -> PairVAE:
        """Make the parts whose sizes follow from the data; see :meth:`BaseAutoencoder.build`.

        Parameters
        ----------
        sample_a, sample_b : Tensor of shape (B, T, F)
            Of each side.

        Returns
        -------
        PairVAE
            Itself.

        Raises
        ------
        ValueError
            If the codes of the two sides differ in shape.
        """
        if self.a.is_built and self.b.is_built and hasattr(self, "across_a"):
            self.a.build(sample_a), self.b.build(sample_b)  # checks the shapes
            return self
        self.a.build(sample_a)
        self.b.build(sample_b)
        if self.a.latent_shape != self.b.latent_shape:
            raise ValueError(
                f"the codes of the two sides must have one shape, got {self.a.latent_shape} and "
                f"{self.b.latent_shape}; give both the same latent_dim and, for codes along time, "
                "records of the same length and networks with the same stages"
            )
        self.across_a, self.across_b = (self._across(side) for side in (self.a, self.b))
        self.projector: Projector | None = None
        if self.projector_sizes is not None:
            width = self.a.latent_dim
            self.projector = Projector(width, self.projector_sizes, self.generator)
            self.projector.to(sample_a)
        return self

    @staticmethod
    def _across(side: VAE) -> ObservationModel:
        """Observation model of a side seen from the other."""
        own = side.observation
        model = ObservationModel(
            own.n_features, own.likelihood, scale=side.scale, initial_scale=own.initial_scale
        )
        return model.to(next(side.parameters()))

    def _require_built(self) -> None:
        if not hasattr(self, "across_a"):
            raise RuntimeError(
                "this PairVAE has not been built: call build(sample_a, sample_b) with records of "
                "shape (B, T, F) of each side first"
            )

    def side(self, name: Side) -> VAE:
        """One side's VAE."""
        if name not in ("a", "b"):
            raise ValueError(f"side must be 'a' or 'b', got {name!r}")
        return self.a if name == "a" else self.b

    @property
    def latent_dim(self) -> int:
        """D."""
        return self.a.latent_dim

    # -- the passes --------------------------------------------------------------------------

    def encode(self, x: Tensor, side: Side, mask: Tensor | None = None, S: int = 1) -> EncodeResult:
        """Codes of records of one side; see :meth:`BaseAutoencoder.encode`."""
        self._require_built()
        return self.side(side).encode(x, mask, S)

    def decode(self, z: Tensor, side: Side) -> Tensor:
        """Decode codes (..., *latent) to records (..., T, F) of one side."""
        self._require_built()
        return self.side(side).decode(z).x_hat

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        S: int = 1,
        mask_a: Tensor | None = None,
        mask_b: Tensor | None = None,
        n_pairs: int | None = None,
    ) -> PairForward:
        """Encode both sides, decode each code to both.

        Parameters
        ----------
        a : Tensor of shape (Ba, Ta, Fa)
        b : Tensor of shape (Bb, Tb, Fb)
        S : int, default=1
            Codes per record: draws in train mode, copies of the mean in eval mode.
        mask_a, mask_b : Tensor of bool or None, default=None
            True = observed.
        n_pairs : int or None, default=None
            The first P rows of both are the same samples, the others have no partner. None: all.

        Returns
        -------
        PairForward
        """
        n_samples = check_size("S", S)
        self._require_built()
        generator = self.generator if self.training else None
        return pair_pass(self, a, b, (mask_a, mask_b), n_samples, n_pairs, generator)

    # -- the loss ----------------------------------------------------------------------------

    def compute_loss(
        self,
        a: Tensor,
        b: Tensor,
        output: PairForward,
        beta: float = 1.0,
        mask_a: Tensor | None = None,
        mask_b: Tensor | None = None,
        weight_a: Tensor | None = None,
        weight_b: Tensor | None = None,
    ) -> LossResult:
        """Weighted reconstructions, divergences, Barlow Twins.

        Parameters
        ----------
        a, b : Tensor of shape (B, T, F)
            The records that were encoded.
        output : PairForward
        beta : float, default=1.0
            Weight of the divergences.
        mask_a, mask_b : Tensor of bool of shape (B, T, F) or None, default=None
            Entries that count.
        weight_a, weight_b : Tensor broadcastable to (B, T, F) or None, default=None
            Factor of each entry's log-likelihood: of regions, or of measurement errors.

        Returns
        -------
        LossResult
            ``objective`` per value. Diagnostics in nats per record: ``log_likelihood_a_from_a``
            and its three sisters, ``kl_divergence_a`` and ``kl_divergence_b``; ``barlow_twins``,
            ``cycle_a``, ``cycle_b`` and ``beta``. Of unpaired batches those that join the sides are
            missing, of paired ones the cycles.
        """
        first, second = SideRecords(a, mask_a, weight_a), SideRecords(b, mask_b, weight_b)
        return pair_loss(self, first, second, output, beta)

    def training_step(self, batch: dict[str, Tensor], step: int) -> LossResult:
        """Loss of one batch; in eval mode the criterion, free of annealed weights.

        Parameters
        ----------
        batch : dict of Tensor
            ``a`` (Ba, T, F) and ``b`` (Bb, T, F); optional ``mask_a``, ``mask_b``, ``weight_a``,
            ``weight_b``; ``input_a`` and ``input_b``, what is encoded in place of ``a`` and ``b``;
            and ``n_pairs``, a number: so many first rows of both are paired.
        step : int
            Optimizer steps so far in this stage.

        Returns
        -------
        LossResult
        """
        self._require_built()
        generator = self.generator
        if self.training:
            if self.freezing is not None:
                self.freezing.apply(step)
        else:
            generator = torch.Generator().manual_seed(_CRITERION_SEED)
        mask_a, mask_b = (_as_bool(batch.get(name)) for name in ("mask_a", "mask_b"))
        n_pairs = int(batch["n_pairs"]) if "n_pairs" in batch else None
        a, b = batch["a"], batch["b"]
        shown = batch.get("input_a", a), batch.get("input_b", b)
        output = pair_pass(self, *shown, (mask_a, mask_b), 1, n_pairs, generator)
        beta = self.beta_schedule.value(step) if self.training else self.beta
        return self.compute_loss(
            a, b, output, beta, mask_a, mask_b, batch.get("weight_a"), batch.get("weight_b")
        )

    def network_modules(self) -> list[nn.Module]:
        """Modules that mixed precision may run in half precision."""
        return [*self.a.network_modules(), *self.b.network_modules()]

    # -- what one side tells of the other -------------------------------------------------------

    def expected_values(self, x_hat: Tensor, side: Side) -> Tensor:
        """Mean of a side's likelihood at ``x_hat`` (..., T, F)."""
        return self.side(side).expected_values(x_hat)

    @torch.no_grad()
    def draw_across(
        self,
        x: Tensor,
        side: Side,
        n_samples: int,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw the other side's records, without its noise, given records of one side.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
            Of ``side``.
        side : {"a", "b"}
        n_samples : int
            S.
        mask : Tensor of bool or None, default=None
        generator : torch.Generator or None, default=None
            None: the model's own.

        Returns
        -------
        Tensor of shape (B, S, T', F')
            Expected values of the other side at codes drawn from q(z | x).
        """
        self._require_built()
        own, other = (self.a, self.b) if self.side(side) is self.a else (self.b, self.a)
        z = own.sample_posterior(x, n_samples, mask, generator or self.generator)
        with other.evaluating():
            drawn: Any = other.expected_values(other.decode(z).x_hat)
            return drawn  # type: ignore[no-any-return]


def _as_bool(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.bool()
