"""Dense networks over whole records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .activations import get_activation
from .checks import check_size, check_sizes
from .dense import DenseNet

__all__ = ["MLPDecoder", "MLPEncoder"]


class MLPEncoder(nn.Module):
    """Dense network over flattened records: (B, T, F) to (B, H).

    Parameters
    ----------
    in_features : int
        Channels of the input: F, or 2 F if the mask comes with the values.
    n_steps : int
        T.
    hidden_sizes : sequence of int, default=(256, 128)
        Width of each layer; H is the last. ``()``: the flattened record itself, so that a model's
        linear head is all there is.
    activation : str, default="gelu"
    **options
        ``residual``, ``layer_norm``, ``dropout``, ``spectral_norm`` and ``generator`` of
        :class:`DenseNet`.

    Examples
    --------
    >>> import torch
    >>> MLPEncoder(2, 10, (32, 16))(torch.zeros(3, 10, 2)).shape
    torch.Size([3, 16])
    """

    def __init__(
        self,
        in_features: int,
        n_steps: int,
        hidden_sizes: Sequence[int] = (256, 128),
        *,
        activation: str = "gelu",
        **options: Any,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.n_steps = check_size("n_steps", n_steps)
        self.hidden_sizes = check_sizes("hidden_sizes", hidden_sizes)
        self.activation = get_activation(activation)
        self.network: DenseNet | None = None
        if self.hidden_sizes:
            *inner, last = self.hidden_sizes
            self.network = DenseNet(
                self.in_features * self.n_steps, last, inner, activation=activation, **options
            )

    @property
    def out_features(self) -> int:
        """H, width of the output."""
        return self.hidden_sizes[-1] if self.hidden_sizes else self.in_features * self.n_steps

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; from a private generator with seed 0 if None is given.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
        """
        if self.network is not None:
            self.network.reset_parameters(generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, in_features) to (B, H)."""
        if tuple(x.shape[1:]) != (self.n_steps, self.in_features):
            raise ValueError(
                f"x must have shape (B, {self.n_steps}, {self.in_features}), got {tuple(x.shape)}"
            )
        x = x.flatten(1)
        return x if self.network is None else self.activation(self.network(x))


class MLPDecoder(nn.Module):
    """Dense network from a vector to a whole record: (B, D) to (B, T, F).

    Parameters
    ----------
    latent_dim : int
        D.
    n_steps : int
        T.
    out_features : int
        F.
    hidden_sizes : sequence of int, default=(128, 256)
        Width of each layer; ``()``: a single linear map.
    activation : str, default="gelu"
    final_sigmoid : bool, default=False
        Put the output into (0, 1).
    **options
        ``residual``, ``layer_norm``, ``dropout``, ``spectral_norm`` and ``generator`` of
        :class:`DenseNet`.

    Examples
    --------
    >>> import torch
    >>> MLPDecoder(4, 10, 2, (16, 32))(torch.zeros(3, 4)).shape
    torch.Size([3, 10, 2])
    """

    def __init__(
        self,
        latent_dim: int,
        n_steps: int,
        out_features: int,
        hidden_sizes: Sequence[int] = (128, 256),
        *,
        activation: str = "gelu",
        final_sigmoid: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.latent_dim = check_size("latent_dim", latent_dim)
        self.shape = (check_size("n_steps", n_steps), check_size("out_features", out_features))
        self.final_sigmoid = final_sigmoid
        self.network = DenseNet(
            self.latent_dim,
            n_steps * out_features,
            hidden_sizes,
            activation=activation,
            final_sigmoid=final_sigmoid,
            **options,
        )

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; from a private generator with seed 0 if None is given.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
        """
        self.network.reset_parameters(generator)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, D) to (B, T, F)."""
        if tuple(z.shape[1:]) != (self.latent_dim,):
            raise ValueError(f"z must have shape (B, {self.latent_dim}), got {tuple(z.shape)}")
        y: Tensor = self.network(z)
        return y.reshape(-1, *self.shape)
