"""Convolutional encoder and its mirror, for records (B, T, F) of any length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .activations import get_activation
from .checks import check_size, check_sizes
from .convolution_layers import (
    Convolution,
    ConvolutionUnit,
    TransposedConvolution,
    check_kernel,
)
from .dense import spectral_bound_of
from .layers import Linear, private_generator
from .residual_blocks import ResidualDown, ResidualUp

__all__ = ["ConvDecoder", "ConvEncoder", "VectorToMap", "halved_steps"]


def halved_steps(n_steps: int, n_stages: int) -> tuple[int, ...]:
    """List the steps before, between and after stages of stride 2.

    Parameters
    ----------
    n_steps : int
    n_stages : int

    Returns
    -------
    tuple of int
        ``n_stages + 1`` of them.

    Examples
    --------
    >>> halved_steps(21, 3)
    (21, 11, 6, 3)
    """
    steps = [check_size("n_steps", n_steps)]
    for _ in range(n_stages):
        steps.append((steps[-1] + 1) // 2)
    return tuple(steps)


def _check_stages(hidden_sizes: Sequence[int]) -> tuple[int, ...]:
    widths = check_sizes("hidden_sizes", hidden_sizes)
    if not widths:
        raise ValueError("hidden_sizes must have at least one entry, one per stage; got none")
    return widths


class ConvEncoder(nn.Module):
    """Stages of stride 2: (B, T, F) to (B, L, hidden_sizes[-1]), L = ceil(T / 2^n).

    Parameters
    ----------
    in_features : int
        Channels of the input: F, or 2 F if the mask comes with the values.
    hidden_sizes : sequence of int, default=(32, 64, 128)
        Channels of each stage.
    kernel_size : int, default=5
        Odd.
    activation : str, default="gelu"
    batch_norm : bool, default=True
    residual : bool, default=False
        Residual blocks (two convolutions and a shortcut) as stages.
    spectral_norm : bool or float, default=False
        Bound the spectral norm of every kernel as a matrix; True means 1.
    generator : torch.Generator or None, default=None
        Source of the initial parameters; None: a private one with seed 0.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range.

    Examples
    --------
    >>> import torch
    >>> encoder = ConvEncoder(2, (8, 16))
    >>> encoder(torch.zeros(3, 21, 2)).shape, encoder.out_steps(21)
    (torch.Size([3, 6, 16]), 6)
    """

    def __init__(
        self,
        in_features: int,
        hidden_sizes: Sequence[int] = (32, 64, 128),
        *,
        kernel_size: int = 5,
        activation: str = "gelu",
        batch_norm: bool = True,
        residual: bool = False,
        spectral_norm: bool | float = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.hidden_sizes = _check_stages(hidden_sizes)
        options: dict[str, Any] = {
            "kernel_size": check_kernel(kernel_size),
            "activation": activation,
            "batch_norm": batch_norm,
            "spectral_bound": spectral_bound_of(spectral_norm),
        }
        if not residual:
            options["stride"] = 2
        block = ResidualDown if residual else ConvolutionUnit
        self.stages = nn.ModuleList(
            block(before, after, **options)
            for before, after in pairwise((self.in_features, *self.hidden_sizes))
        )
        self.reset_parameters(generator)

    @property
    def out_features(self) -> int:
        """Channels of the output."""
        return self.hidden_sizes[-1]

    def out_steps(self, n_steps: int) -> int:
        """Return the steps L of the output for an input of ``n_steps``.

        Parameters
        ----------
        n_steps : int

        Returns
        -------
        int
        """
        return halved_steps(n_steps, len(self.hidden_sizes))[-1]

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; from a private generator with seed 0 if None is given.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
        """
        generator = private_generator(generator)
        for stage in self.stages:
            stage.reset_parameters(generator)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Encode.

        Parameters
        ----------
        x : Tensor of shape (B, T, in_features)

        Returns
        -------
        Tensor of shape (B, L, out_features)

        Raises
        ------
        ValueError
            If x has another shape.
        """
        if x.ndim != 3 or x.shape[2] != self.in_features:
            raise ValueError(
                f"x must have shape (B, T, {self.in_features}), got {tuple(x.shape)}; with the "
                "mask as channels in_features is twice the number of features"
            )
        x = x.transpose(1, 2)
        for stage in self.stages:
            x = stage(x)
        return x.transpose(1, 2)


class VectorToMap(nn.Module):
    """Linear map of a vector to a feature map along time: (B, D) to (B, L, C).

    Parameters
    ----------
    latent_dim : int
        D.
    n_steps : int
        L.
    out_features : int
        C.
    generator : torch.Generator or None, default=None
        Source of the initial parameters; None: a private one with seed 0.

    Examples
    --------
    >>> import torch
    >>> VectorToMap(4, 6, 16)(torch.zeros(3, 4)).shape
    torch.Size([3, 6, 16])
    """

    def __init__(
        self,
        latent_dim: int,
        n_steps: int,
        out_features: int,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.shape = (check_size("n_steps", n_steps), check_size("out_features", out_features))
        self.linear = Linear(check_size("latent_dim", latent_dim), n_steps * out_features)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; from a private generator with seed 0 if None is given.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
        """
        self.linear.reset_parameters(generator)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, D) to (B, L, C)."""
        y: Tensor = self.linear(z)
        return y.reshape(-1, *self.shape)


class ConvDecoder(nn.Module):
    """Mirror of :class:`ConvEncoder`: a latent map (B, L, D) or vector (B, D) to (B, T, F).

    Parameters
    ----------
    in_features : int
        D, size of the code (per latent step if a map).
    out_features : int
        F.
    n_steps : int
        T. A map has ``in_steps`` = ceil(T / 2^n) steps, as the encoder gives them.
    hidden_sizes : sequence of int, default=(128, 64, 32)
        Channels at the input of each stage; those of the encoder in reverse.
    latent : {"map", "vector"}, default="map"
        What the code is; a vector is first brought to a map by a linear layer.
    kernel_size : int, default=5
        Odd.
    activation : str, default="gelu"
    batch_norm : bool, default=True
    residual : bool, default=False
        Residual blocks as stages, and one convolution after the last.
    spectral_norm : bool or float, default=False
        Bound the spectral norm of every kernel as a matrix; True means 1.
    final_sigmoid : bool, default=False
        Put the output into (0, 1).
    generator : torch.Generator or None, default=None
        Source of the initial parameters; None: a private one with seed 0.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range.

    Examples
    --------
    >>> import torch
    >>> decoder = ConvDecoder(4, 2, 21, (16, 8))
    >>> decoder.in_steps, decoder(torch.zeros(3, 6, 4)).shape
    (6, torch.Size([3, 21, 2]))
    >>> ConvDecoder(4, 2, 21, (16, 8), latent="vector")(torch.zeros(3, 4)).shape
    torch.Size([3, 21, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        n_steps: int,
        hidden_sizes: Sequence[int] = (128, 64, 32),
        *,
        latent: Literal["map", "vector"] = "map",
        kernel_size: int = 5,
        activation: str = "gelu",
        batch_norm: bool = True,
        residual: bool = False,
        spectral_norm: bool | float = False,
        final_sigmoid: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if latent not in ("map", "vector"):
            raise ValueError(f"latent must be 'map' or 'vector', got {latent!r}")
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.hidden_sizes = _check_stages(hidden_sizes)
        self.steps = halved_steps(n_steps, len(self.hidden_sizes))[::-1]
        self.latent, self.final_sigmoid = latent, final_sigmoid
        self.activation = get_activation(activation)
        first, last = self.hidden_sizes[0], self.hidden_sizes[-1]
        self.inlet: VectorToMap | Linear = (
            VectorToMap(self.in_features, self.in_steps, first)
            if latent == "vector"
            else Linear(self.in_features, first)
        )
        outlet: dict[str, Any] = {
            "kernel_size": check_kernel(kernel_size),
            "spectral_bound": spectral_bound_of(spectral_norm),
        }
        options = {**outlet, "activation": activation, "batch_norm": batch_norm}
        block = ResidualUp if residual else ConvolutionUnit
        # Plain: the last stage is the outlet, a convolution without normalisation and activation.
        widths = (*self.hidden_sizes, last) if residual else self.hidden_sizes
        self.stages = nn.ModuleList(
            block(before, after, n_steps=steps, **options)
            for (before, after), steps in zip(pairwise(widths), self.steps[1:], strict=False)
        )
        self.outlet: Convolution = (
            Convolution(last, self.out_features, **outlet)
            if residual
            else TransposedConvolution(last, self.out_features, self.n_steps, **outlet)
        )
        self.reset_parameters(generator)

    @property
    def n_steps(self) -> int:
        """T, steps of the output."""
        return self.steps[-1]

    @property
    def in_steps(self) -> int:
        """L, steps of the map that the stages begin with."""
        return self.steps[0]

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; from a private generator with seed 0 if None is given.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
        """
        generator = private_generator(generator)
        self.inlet.reset_parameters(generator)
        for stage in self.stages:
            stage.reset_parameters(generator)  # type: ignore[operator]
        self.outlet.reset_parameters(generator)

    def forward(self, z: Tensor) -> Tensor:
        """Decode.

        Parameters
        ----------
        z : Tensor of shape (B, L, D) or, for ``latent="vector"``, (B, D)

        Returns
        -------
        Tensor of shape (B, T, F)

        Raises
        ------
        ValueError
            If z has another shape.
        """
        shape = (
            (self.in_features,) if self.latent == "vector" else (self.in_steps, self.in_features)
        )
        if tuple(z.shape[1:]) != shape:
            raise ValueError(f"z must have shape (B, *{shape}), got {tuple(z.shape)}")
        x = self.activation(self.inlet(z)).transpose(1, 2)
        for stage in self.stages:
            x = stage(x)
        x = self.outlet(x).transpose(1, 2)
        return torch.sigmoid(x) if self.final_sigmoid else x
