"""Construction of the autoencoder family: settings, lazy parts, checks of shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tsvae.models.observation import ObservationModel, ScaleKind, check_scale, family_likelihood
from tsvae.nn import Likelihood
from tsvae.nn.checks import as_positive_vector, check_size
from tsvae.nn.layers import Linear, private_generator

__all__ = ["BuiltAutoencoder", "LatentKind"]

LatentKind = Literal["vector", "map"]


class BuiltAutoencoder(nn.Module):
    """Encoder, heads, decoder and observation model, put together by :meth:`build`.

    The sizes of heads and of the observation model follow from the data; its parameters are those
    of :class:`~tsvae.models.family.BaseAutoencoder`.
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
        spectral_weight: float = 0.0,
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
        if not 0.0 <= spectral_weight < math.inf:
            raise ValueError(
                f"spectral_weight must be a finite number >= 0, got {spectral_weight!r}"
            )
        self.spectral_weight = float(spectral_weight)
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
            known = {module for module, _ in modes}
            for child in self.children():  # those made in between
                if child not in known:
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

    def _decoder_input(self, z: Tensor) -> Tensor:
        """Turn codes (N, *latent) into what the decoder is given."""
        return z

    # -- inputs ------------------------------------------------------------------------------

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

    def head_input(self, features: Tensor) -> Tensor:
        """Bring the encoder's output to what the heads read: (B, H), or (B, L, H) for a map."""
        return features if self.latent == "map" else features.flatten(1)

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
