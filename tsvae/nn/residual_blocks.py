"""Residual blocks along time that halve or double the number of steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .activations import get_activation
from .checks import check_size
from .convolution_layers import BatchNorm, Convolution, ConvolutionUnit
from .layers import private_generator

__all__ = ["ResidualDown", "ResidualUp", "double_steps", "halve_steps"]


def halve_steps(x: Tensor) -> Tensor:
    """Means of neighbouring steps, (B, channels, T) to (B, channels, ceil(T / 2)).

    The last step of an odd number stands alone.
    """
    if x.shape[-1] % 2:
        x = torch.cat((x, x[..., -1:]), dim=-1)
    return functional.avg_pool1d(x, 2)


def double_steps(x: Tensor, n_steps: int) -> Tensor:
    """Every step twice, (B, channels, ceil(n_steps / 2)) to (B, channels, n_steps)."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")[..., :n_steps]


class _Residual(nn.Module):
    """activation(shortcut(x) + norm(second(first(x)))); subclasses say where steps change."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        activation: str,
        batch_norm: bool,
        spectral_bound: float | None,
    ) -> None:
        super().__init__()
        self.first = ConvolutionUnit(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            activation=activation,
            batch_norm=batch_norm,
            spectral_bound=spectral_bound,
        )
        self.second = Convolution(
            out_channels,
            out_channels,
            kernel_size,
            bias=not batch_norm,
            spectral_bound=spectral_bound,
        )
        self.norm = BatchNorm(out_channels) if batch_norm else None
        self.project: Convolution | None = None
        if in_channels != out_channels:
            self.project = Convolution(
                in_channels, out_channels, 1, bias=False, spectral_bound=spectral_bound
            )
        self.activation = get_activation(activation)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; from a private generator with seed 0 if None is given."""
        generator = private_generator(generator)
        self.first.reset_parameters(generator)
        self.second.reset_parameters(generator)
        if self.norm is not None:
            self.norm.reset_parameters()
        if self.project is not None:
            self.project.reset_parameters(generator)

    def _branch(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        return x if self.norm is None else self.norm(x)

    def _shortcut(self, x: Tensor) -> Tensor:
        return x if self.project is None else self.project(x)


class ResidualDown(_Residual):
    """Two convolutions, the first with stride 2, around a shortcut of pair means.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int, default=5
    activation : str, default="gelu"
    batch_norm : bool, default=True
    spectral_bound : float or None, default=None

    References
    ----------
    He et al. 2016 (arXiv 1512.03385), equation 2; He et al. 2019 (arXiv 1812.01187), section 4.2
    (pooling in the shortcut).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 5,
        *,
        activation: str = "gelu",
        batch_norm: bool = True,
        spectral_bound: float | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, 2, activation, batch_norm, spectral_bound
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, T) to (B, out_channels, ceil(T / 2))."""
        y: Tensor = self.activation(self._shortcut(halve_steps(x)) + self._branch(x))
        return y


class ResidualUp(_Residual):
    """Every step twice, then two convolutions around a shortcut.

    Parameters
    ----------
    in_channels, out_channels : int
    n_steps : int
        Steps of the output; the input has ceil(n_steps / 2).
    kernel_size : int, default=5
    activation : str, default="gelu"
    batch_norm : bool, default=True
    spectral_bound : float or None, default=None
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_steps: int,
        kernel_size: int = 5,
        *,
        activation: str = "gelu",
        batch_norm: bool = True,
        spectral_bound: float | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, 1, activation, batch_norm, spectral_bound
        )
        self.n_steps = check_size("n_steps", n_steps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, ceil(n_steps / 2)) to (B, out_channels, n_steps)."""
        x = double_steps(x, self.n_steps)
        y: Tensor = self.activation(self._shortcut(x) + self._branch(x))
        return y
