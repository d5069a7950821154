"""Convolutions along time, (B, channels, T) inside, whose parameters come from a generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .activations import activation_gain, get_activation
from .checks import check_size
from .dense import linear_layer

__all__ = ["BatchNorm", "Convolution", "ConvolutionUnit", "TransposedConvolution", "check_kernel"]


def check_kernel(kernel_size: int) -> int:
    """Check that a kernel is odd and return its size.

    Parameters
    ----------
    kernel_size : int

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If it is even: no padding would keep the number of steps.
    """
    size = check_size("kernel_size", kernel_size)
    if size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {size}; use {size - 1} or {size + 1}")
    return size


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that also takes a single value per channel in train mode.

    One value has no variance; there the running statistics serve, as in eval mode.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, channels, T)."""
        if self.training and x.shape[0] * x.shape[2] == 1:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)


class Convolution(nn.Module):
    """Convolution with T_out = ceil(T / stride).

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int, default=5
        Odd.
    stride : int, default=1
    bias : bool, default=True
    gain : float, default=1.0
        Root mean square of the output for inputs of mean square 1, at the start.
    spectral_bound : float or None, default=None
        Largest spectral norm of the kernel as an (out, in * kernel) matrix.

    References
    ----------
    Miyato et al. 2018 (arXiv 1802.05957), section 3 (the kernel as a matrix).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 5,
        *,
        stride: int = 1,
        bias: bool = True,
        gain: float = 1.0,
        spectral_bound: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = check_kernel(kernel_size), stride
        self.kernel = linear_layer(
            in_channels * kernel_size, out_channels, gain, bias, spectral_bound
        )

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; from a private generator with seed 0 if None is given."""
        self.kernel.reset_parameters(generator)

    def _weight(self) -> Tensor:
        shape = (self.out_channels, self.in_channels, self.kernel_size)
        return self.kernel.current_weight().reshape(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, T) to (B, out_channels, ceil(T / stride))."""
        padding = self.kernel_size // 2
        return functional.conv1d(x, self._weight(), self.kernel.bias, self.stride, padding)

    def extra_repr(self) -> str:
        """Return what repr shows."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )


class TransposedConvolution(Convolution):
    """Mirror of a convolution with stride 2: back to ``n_steps``, even or odd.

    Parameters
    ----------
    in_channels, out_channels : int
    n_steps : int
        Steps of the output; the input has ceil(n_steps / 2).
    kernel_size : int, default=5
        Odd.
    bias, gain, spectral_bound
        See :class:`Convolution`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_steps: int,
        kernel_size: int = 5,
        *,
        bias: bool = True,
        gain: float = 1.0,
        spectral_bound: float | None = None,
    ) -> None:
        # Half of the kernel's taps reach each output step.
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=2,
            bias=bias,
            gain=gain * 2.0**0.5,
            spectral_bound=spectral_bound,
        )
        self.n_steps = check_size("n_steps", n_steps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, ceil(n_steps / 2)) to (B, out_channels, n_steps)."""
        return functional.conv_transpose1d(
            x,
            self._weight().transpose(0, 1),
            self.kernel.bias,
            stride=2,
            padding=self.kernel_size // 2,
            output_padding=1 - self.n_steps % 2,
        )


class ConvolutionUnit(nn.Module):
    """Convolution, batch normalisation, activation.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int, default=5
    stride : int, default=1
    n_steps : int or None, default=None
        If given, a :class:`TransposedConvolution` to this number of steps.
    activation : str, default="gelu"
    batch_norm : bool, default=True
    spectral_bound : float or None, default=None
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 5,
        *,
        stride: int = 1,
        n_steps: int | None = None,
        activation: str = "gelu",
        batch_norm: bool = True,
        spectral_bound: float | None = None,
    ) -> None:
        super().__init__()
        gain = activation_gain(activation)
        bias = not batch_norm  # the normalisation has its own
        self.convolution: Convolution
        if n_steps is None:
            self.convolution = Convolution(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                bias=bias,
                gain=gain,
                spectral_bound=spectral_bound,
            )
        else:
            self.convolution = TransposedConvolution(
                in_channels,
                out_channels,
                n_steps,
                kernel_size,
                bias=bias,
                gain=gain,
                spectral_bound=spectral_bound,
            )
        self.norm = BatchNorm(out_channels) if batch_norm else None
        self.activation = get_activation(activation)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; from a private generator with seed 0 if None is given."""
        self.convolution.reset_parameters(generator)
        if self.norm is not None:
            self.norm.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, T) to (B, out_channels, T')."""
        x = self.convolution(x)
        if self.norm is not None:
            x = self.norm(x)
        x = self.activation(x)
        return x
