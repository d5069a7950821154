"""Architectures of the hierarchical VAE: its ladder and decoder made together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from tsvae.models.ladder import Ladder
from tsvae.models.ladder_networks import convolutional_ladder, perceptron_ladder
from tsvae.nn import ConvDecoder, MLPDecoder
from tsvae.nn.checks import check_size, check_sizes
from tsvae.nn.layers import private_generator

__all__ = ["HierarchicalArchitectures"]

# What DenseNet and the convolutions know; every other option is the model's.
_DENSE = ("activation", "residual", "layer_norm", "dropout", "spectral_norm")
_CONVOLUTIONAL = ("kernel_size", "activation", "batch_norm", "residual", "spectral_norm")


class HierarchicalArchitectures:
    """Constructors of :class:`~tsvae.models.HierarchicalVAE` that make the networks too."""

    if TYPE_CHECKING:  # what the constructors call is the model's own

        def __init__(self, ladder: Ladder, decoder: nn.Module, **options: Any) -> None: ...

    @classmethod
    def perceptron(
        cls,
        n_features: int,
        n_steps: int,
        latent_dim: int | Sequence[int] = 8,
        *,
        hidden_sizes: Sequence[int] = (256, 128),
        n_levels: int = 2,
        skip: bool = True,
        final_sigmoid: bool = False,
        mask_input: bool = False,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Self:
        """Model with dense networks; each level is a vector.

        Parameters
        ----------
        n_features, n_steps : int
            F and T.
        latent_dim : int or sequence of int, default=8
            Of each level; one number for all, or one per level from the coarsest on.
        hidden_sizes : sequence of int, default=(256, 128)
            Layers between record and finest level; the decoder has them in reverse.
        n_levels : int, default=2
        skip : bool, default=True
            See :class:`~tsvae.models.ladder.Ladder`.
        final_sigmoid : bool, default=False
        mask_input : bool, default=False
        generator : torch.Generator, optional
            Source of all initial parameters and draws; None: a private one with seed 0.
        **options
            ``activation``, ``residual``, ``layer_norm``, ``dropout``, ``spectral_norm`` of the
            networks, and options of the model.

        Returns
        -------
        HierarchicalVAE
            Not built yet.
        """
        generator = private_generator(generator)
        network = {**_taken(options, _DENSE), "generator": generator}
        dims = _level_dims(latent_dim, n_levels)
        channels = n_features * (2 if mask_input else 1)
        ladder = perceptron_ladder(channels, n_steps, dims, hidden_sizes, skip=skip, **network)
        widths = tuple(hidden_sizes)[::-1]
        state = _state_width(dims, widths, skip)
        decoder = MLPDecoder(
            state, n_steps, n_features, widths, final_sigmoid=final_sigmoid, **network
        )
        return cls(ladder, decoder, mask_input=mask_input, generator=generator, **options)

    @classmethod
    def convolutional(
        cls,
        n_features: int,
        n_steps: int,
        latent_dim: int | Sequence[int] = 4,
        *,
        hidden_sizes: Sequence[int] = (32, 64, 128),
        n_levels: int = 2,
        skip: bool = True,
        final_sigmoid: bool = False,
        mask_input: bool = False,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Self:
        """Model with convolutions; each level is a map along time, twice as fine as the last.

        Parameters
        ----------
        n_features, n_steps : int
            F and T.
        latent_dim : int or sequence of int, default=4
            Channels of each level's map; one number for all, or one per level from the coarsest.
        hidden_sizes : sequence of int, default=(32, 64, 128)
            Channels of each stage of stride 2, at least ``n_levels`` of them: the coarsest level
            has ceil(T / 2^stages) steps.
        n_levels : int, default=2
        skip : bool, default=True
            See :class:`~tsvae.models.ladder.Ladder`.
        final_sigmoid : bool, default=False
        mask_input : bool, default=False
        generator : torch.Generator, optional
            Source of all initial parameters and draws; None: a private one with seed 0.
        **options
            ``kernel_size``, ``activation``, ``batch_norm``, ``residual``, ``spectral_norm`` of
            the networks, and options of the model.

        Returns
        -------
        HierarchicalVAE
            Not built yet.
        """
        generator = private_generator(generator)
        network = {**_taken(options, _CONVOLUTIONAL), "generator": generator}
        dims = _level_dims(latent_dim, n_levels)
        channels = n_features * (2 if mask_input else 1)
        ladder = convolutional_ladder(channels, n_steps, dims, hidden_sizes, skip=skip, **network)
        widths = tuple(hidden_sizes)[: len(hidden_sizes) - len(dims) + 1][::-1]
        state = _state_width(dims, widths, skip)
        decoder = ConvDecoder(
            state, n_features, n_steps, widths, final_sigmoid=final_sigmoid, **network
        )
        return cls(ladder, decoder, mask_input=mask_input, generator=generator, **options)


def _level_dims(latent_dim: int | Sequence[int], n_levels: int) -> tuple[int, ...]:
    n_levels = check_size("n_levels", n_levels)
    if hasattr(latent_dim, "__index__"):
        return (check_size("latent_dim", latent_dim),) * n_levels  # type: ignore[arg-type]
    dims = check_sizes("latent_dim", latent_dim)  # type: ignore[arg-type]
    if len(dims) != n_levels:
        raise ValueError(
            f"latent_dim must be one number or one per level, n_levels={n_levels}, got {latent_dim}"
        )
    return dims


def _state_width(dims: tuple[int, ...], widths: tuple[int, ...], skip: bool) -> int:
    """Channels that the decoder is given: the finest level's and what skips it."""
    return dims[-1] + (widths[0] if skip and len(dims) > 1 else 0)


def _taken(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Take the options of the networks out of all options."""
    return {name: options.pop(name) for name in names if name in options}
