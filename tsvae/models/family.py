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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tsvae.models.observation import ObservationModel, ScaleKind, check_scale, family_likelihood
from tsvae.models.outputs import DecodeResult, EncodeResult, ForwardResult
from tsvae.nn import Likelihood
from tsvae.nn.checks import as_positive_vector, check_size
from tsvae.nn.layers import Linear, private_generator
from tsvae.training import LossResult

__all__ = ["Asked", "BaseAutoencoder", "LatentKind"]

LatentKind = Literal["vector", "map"]

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


class BaseAutoencoder(nn.Module):
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

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        *,
        latent: LatentKind = "vector",
        mask_input: bool = False,
        likelihood: str | Likelihood[Any] = "gaussian",
        scale: ScaleKind = "learned",
        initial_scale: float | Sequence[float] = 1.0,
        min_scale: float = 1e-4,
        n_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, module in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(module, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, got {module!r}")
        if latent not in ("vector", "map"):
            raise ValueError(f"latent must be 'vector' or 'map', got {latent!r}")
        options = {} if isinstance(likelihood, Likelihood) else {"min_scale": min_scale}
        self.likelihood = family_likelihood(likelihood, **options)
        check_scale(scale, self.likelihood)
        if self.likelihood.support != "real" and getattr(decoder, "final_sigmoid", False):
            raise ValueError(
                f"likelihood={self.likelihood.name!r} takes unbounded numbers (log odds, log "
                "means) from the decoder, but the decoder ends in a sigmoid; set "
                "final_sigmoid=False"
            )
        self.encoder, self.decoder = encoder, decoder
        self.latent_dim = check_size("latent_dim", latent_dim)
        self.latent, self.mask_input = latent, mask_input
        self.scale, self.initial_scale = scale, initial_scale
        self.n_samples = check_size("n_samples", n_samples)
        self.generator = private_generator(generator)
        self._record_shape: tuple[int, int] | None = None
        self._latent_shape: tuple[int, ...] | None = None

    # -- building ----------------------------------------------------------------------------

    @property
    def is_built(self) -> bool:
        """Whether :meth:`build` has been called."""
        return self._record_shape is not None

    @property
    def record_shape(self) -> tuple[int, int]:
        """(T, F), known once the model is built."""
        self._require_built()
        assert self._record_shape is not None
        return self._record_shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one code, known once the model is built: (D,), or (L, D) for a map."""
        self._require_built()
        assert self._latent_shape is not None
        return self._latent_shape

    @property
    def n_latent(self) -> int:
        """Numbers in one code."""
        return math.prod(self.latent_shape)

    def build(self, sample: Tensor, mask: Tensor | None = None) -> Any:
        """Make the parts whose sizes follow from the data, and check that the parts fit.

        Parameters
        ----------
        sample : Tensor of shape (B, T, F)
            One record or more; only its shape, dtype and device matter.
        mask : Tensor of bool of shape (B, T, F) or None, default=None

        Returns
        -------
        BaseAutoencoder
            Itself. A second call with records of the same shape changes nothing.

        Raises
        ------
        ValueError
            If the encoder's or the decoder's output has the wrong shape.
        TypeError
            If the encoder or the decoder does not return a tensor.
        """
        if self._is_built_for(sample):
            return self
        with self.evaluating():
            features = self._probe_encoder(self.encoder_input(sample, mask))
            self._finish_build(sample, features)
        return self

    def _finish_build(self, sample: Tensor, features: Tensor) -> None:
        """Make heads and observation model, try the decoder; unbuilt again if that fails."""
        self._record_shape = (sample.shape[1], sample.shape[2])
        try:
            steps = (features.shape[1],) if self.latent == "map" else ()
            self._latent_shape = (*steps, self.latent_dim)
            self._make_heads(features)
            self.observation = ObservationModel(
                sample.shape[-1],
                self.likelihood,
                scale=self.scale,
                initial_scale=as_positive_vector(
                    "initial_scale", self.initial_scale, sample.shape[-1]
                ),
            )
            self.observation.train(self.training)
            self.to(device=features.device, dtype=features.dtype)
            self._probe_decoder(features.new_zeros(features.shape[0], *self._latent_shape))
        except BaseException:
            self._record_shape = self._latent_shape = None
            raise

    def _is_built_for(self, sample: Tensor) -> bool:
        if not isinstance(sample, Tensor) or sample.ndim != 3 or not sample.is_floating_point():
            raise ValueError(
                "build needs a floating-point tensor of shape (B, T, F) = (records, steps, "
                f"features), got {_describe(sample)}"
            )
        if 0 in sample.shape:
            raise ValueError(f"build needs at least one record, got shape {tuple(sample.shape)}")
        if self._record_shape is None:
            return False
        if tuple(sample.shape[1:]) != self._record_shape:
            raise ValueError(
                f"this model was built for records of shape {self._record_shape}, got "
                f"{tuple(sample.shape[1:])}; make a new model for other records"
            )
        return True

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode without gradients; every module gets back the mode it had."""
        modes = [(module, module.training) for module in self.modules()]
        try:
            self.eval()
            with torch.no_grad():
                yield
        finally:
            for module, training in modes:
                module.training = training
            for child in self.children():  # those made in between
                if child not in dict(modes):
                    child.train(self.training)

    def _probe_encoder(self, encoder_input: Tensor) -> Tensor:
        features = self.encoder(encoder_input)
        if not isinstance(features, Tensor):
            raise TypeError(f"the encoder must return a tensor, got {_describe(features)}")
        wanted = "(B, L, H)" if self.latent == "map" else "(B, ...)"
        fits = features.ndim == 3 if self.latent == "map" else features.ndim >= 2
        if not fits or features.shape[0] != encoder_input.shape[0]:
            raise ValueError(
                f"latent={self.latent!r} needs an encoder output of shape {wanted} with B = "
                f"{encoder_input.shape[0]}, got {tuple(features.shape)} for an input of shape "
                f"{tuple(encoder_input.shape)}"
            )
        return features

    def _probe_decoder(self, z: Tensor) -> None:
        x_hat = self.decoder(self._decoder_input(z))
        if not isinstance(x_hat, Tensor):
            raise TypeError(f"the decoder must return a tensor, got {_describe(x_hat)}")
        wanted = (z.shape[0], *self.record_shape)
        if tuple(x_hat.shape) != wanted:
            raise ValueError(
                f"the decoder must give the shape of the records, {wanted}, for codes of shape "
                f"{tuple(z.shape)}, but gave {tuple(x_hat.shape)}; change its number of steps or "
                "features"
            )

    def _require_built(self) -> None:
        if self._record_shape is None:
            raise RuntimeError(
                f"this {type(self).__name__} is not built yet: call build(sample) with a tensor "
                "of shape (B, T, F) first"
            )

    def _head(self, features: Tensor, out_features: int, *, gain: float = 1.0) -> Linear:
        """Linear head on the encoder's output, its weights drawn from the model's generator."""
        width = self.head_input(features).shape[-1]
        head = Linear(width, out_features, gain=gain)
        head.reset_parameters(self.generator)
        return head.to(features)

    # -- hooks -------------------------------------------------------------------------------

    def _make_heads(self, features: Tensor) -> None:
        """Make the modules between encoder and code (subclasses)."""

    def _codes(
        self, features: Tensor, n_samples: int, generator: torch.Generator | None
    ) -> EncodeResult:
        """Codes from the encoder's output: here the output itself (subclasses)."""
        z = features.reshape(features.shape[0], 1, *self.latent_shape)
        z = z.expand(-1, n_samples, *self.latent_shape)
        return EncodeResult(z, z, None)

    def _decoder_input(self, z: Tensor) -> Tensor:
        """Turn codes (N, *latent) into what the decoder is given."""
        return z

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

    def encoder_input(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Values with zeros where not observed and, if ``mask_input``, the mask as channels.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
        mask : Tensor of bool of shape (B, T, F) or None, default=None
            True = observed; None: everything.

        Returns
        -------
        Tensor of shape (B, T, F) or (B, T, 2 F)
        """
        if mask is not None:
            if mask.shape != x.shape:
                raise ValueError(
                    f"mask must have the shape of x, {tuple(x.shape)}, got {tuple(mask.shape)}"
                )
            x = torch.where(mask.bool(), x, torch.zeros_like(x))
        if not self.mask_input:
            return x
        channels = torch.ones_like(x) if mask is None else mask.to(x.dtype)
        return torch.cat((x, channels), dim=-1)

    def features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Output of the encoder for records (B, T, F), checked."""
        self._check_records(x)
        features: Tensor = self.encoder(self.encoder_input(x, mask))
        return features

    def head_input(self, features: Tensor) -> Tensor:
        """Bring the encoder's output to what the heads read: (B, H), or (B, L, H) for a map."""
        return features if self.latent == "map" else features.flatten(1)

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
            ``objective`` per value (divided by T F); diagnostics in nats per record.
        """
        target = x if target is None else target
        log_prob = self.record_log_prob(target, output.x_hat, mask, likelihood, weight)
        log_likelihood = log_prob.mean()
        return self._result(-log_likelihood, {"log_likelihood": log_likelihood}, x)

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

    # -- checks ------------------------------------------------------------------------------

    def _check_records(self, x: Tensor) -> None:
        if x.ndim != 3 or tuple(x.shape[1:]) != self.record_shape:
            raise ValueError(
                f"x must have shape (B, T, F) with (T, F) = {self.record_shape}, for which this "
                f"model was built, got {tuple(x.shape)}"
            )

    def _check_codes(self, z: Tensor) -> None:
        shape = self.latent_shape
        if z.ndim <= len(shape) or tuple(z.shape[-len(shape) :]) != shape:
            raise ValueError(
                f"codes must have shape (B, *latent) or (B, S, *latent) with latent = {shape}, "
                f"got {tuple(z.shape)}"
            )


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__}"
