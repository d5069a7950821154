"""Dense residual network, the one building block of encoders and decoders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .activations import activation_gain, get_activation
from .checks import check_size, check_sizes
from .layers import Dropout, Linear, SpectralLinear, private_generator
from .parts import joined


def expand_stages(
    hidden_sizes: Sequence[int], stage_sizes: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Width of every hidden layer.

    Parameters
    ----------
    hidden_sizes : sequence of int
        Width of each stage.
    stage_sizes : sequence of int or None, default=None
        Number of layers in each stage; None: one each.

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        If the two differ in length.

    Examples
    --------
    >>> expand_stages((128, 64), (2, 1))
    (128, 128, 64)
    """
    widths = check_sizes("hidden_sizes", hidden_sizes)
    if stage_sizes is None:
        return widths
    depths = check_sizes("stage_sizes", stage_sizes)
    if len(depths) != len(widths):
        raise ValueError(
            f"stage_sizes has {len(depths)} entries but hidden_sizes has {len(widths)}; "
            "give one number of layers for each width"
        )
    return tuple(width for width, depth in zip(widths, depths, strict=True) for _ in range(depth))


def linear_layer(
    in_features: int, out_features: int, gain: float, bias: bool, spectral_bound: float | None
) -> Linear:
    """Make a linear layer, with a bound on its spectral norm if one is given."""
    if spectral_bound is None:
        return Linear(in_features, out_features, bias=bias, gain=gain)
    return SpectralLinear(in_features, out_features, bias=bias, gain=gain, bound=spectral_bound)


class DenseBlock(nn.Module):
    """One hidden layer: shortcut(x) + dropout(activation(norm(W x + b))).

    The norm follows the linear map, not the input: the scale of an input is information.

    Parameters
    ----------
    in_features, out_features : int
    activation : str, default="gelu"
    residual : bool, default=True
        Add the input; through a linear projection without bias if the widths differ.
    layer_norm : bool, default=False
    dropout : float, default=0.0
    spectral_bound : float or None, default=None
        Largest spectral norm of each weight.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "gelu",
        residual: bool = True,
        layer_norm: bool = False,
        dropout: float = 0.0,
        spectral_bound: float | None = None,
    ) -> None:
        super().__init__()
        # A residual branch adds to the signal: without extra gain the sum grows slowly with depth.
        gain = 1.0 if residual else activation_gain(activation)
        self.residual = residual
        self.linear = linear_layer(in_features, out_features, gain, True, spectral_bound)
        self.norm = nn.LayerNorm(out_features) if layer_norm else None
        self.activation = get_activation(activation)
        self.dropout = Dropout(dropout) if dropout != 0.0 else None
        project = residual and in_features != out_features
        self.shortcut = (
            linear_layer(in_features, out_features, 1.0, False, spectral_bound) if project else None
        )

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
            None: a private one with seed 0.
        """
        generator = private_generator(generator)
        self.linear.reset_parameters(generator)
        if self.norm is not None:
            self.norm.reset_parameters()
        if self.dropout is not None:
            self.dropout.reset_parameters(generator)
        if self.shortcut is not None:
            self.shortcut.reset_parameters(generator)

    def forward(self, *parts: Tensor) -> Tensor:
        """Map (..., in_features), whole or in parts side by side, to (..., out_features)."""
        h = self.linear(*parts)
        if self.norm is not None:
            h = self.norm(h)
        h = self.activation(h)
        if self.dropout is not None:
            h = self.dropout(h)
        if not self.residual:
            return h
        if self.shortcut is not None:
            return h + self.shortcut(*parts)
        return h + (parts[0] if len(parts) == 1 else joined(parts))


class DenseNet(nn.Module):
    """Dense network with optional residual connections.

    Parameters
    ----------
    in_features, out_features : int
    hidden_sizes : sequence of int, default=(128,)
        Width of each stage; ``()`` is a single linear map.
    stage_sizes : sequence of int or None, default=None
        Number of layers of each stage; None: one each. ``hidden_sizes=(128,), stage_sizes=(4,)``
        is the same as ``hidden_sizes=(128, 128, 128, 128)``.
    activation : str, default="gelu"
        gelu, relu, silu, tanh, elu, leaky_relu, softplus or identity.
    residual : bool, default=True
        Add a layer's input to its output; through a linear projection if the widths differ.
    layer_norm : bool, default=False
    dropout : float, default=0.0
    spectral_norm : bool or float, default=False
        Bound the spectral norm of every weight; True means 1. With residual connections a block
        of width-preserving layers is then Lipschitz with 1 + bound (for 1-Lipschitz activations).
    final_sigmoid : bool, default=False
        Put the output into (0, 1).
    zero_last : bool, default=False
        Start the last layer at zero: on a skip path the network then starts as nothing.
    final_bias : bool, default=True
        Whether the last layer has a bias.
    generator : torch.Generator or None, default=None
        Source of the initial parameters; None: a private one with seed 0. Global random state is
        never used.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range.

    References
    ----------
    He et al. 2016 (arXiv 1512.03385), equations 1 and 2 (residual connection, projection).

    Examples
    --------
    >>> import torch
    >>> net = DenseNet(3, 2, hidden_sizes=(16,), stage_sizes=(2,))
    >>> net(torch.ones(5, 4, 3)).shape
    torch.Size([5, 4, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_sizes: Sequence[int] = (128,),
        *,
        stage_sizes: Sequence[int] | None = None,
        activation: str = "gelu",
        residual: bool = True,
        layer_norm: bool = False,
        dropout: float = 0.0,
        spectral_norm: bool | float = False,
        final_sigmoid: bool = False,
        zero_last: bool = False,
        final_bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.final_sigmoid = final_sigmoid
        bound = spectral_bound_of(spectral_norm)
        widths = (self.in_features, *expand_stages(hidden_sizes, stage_sizes))
        self.blocks = nn.ModuleList(
            DenseBlock(
                before,
                after,
                activation=activation,
                residual=residual,
                layer_norm=layer_norm,
                dropout=dropout,
                spectral_bound=bound,
            )
            for before, after in pairwise(widths)
        )
        gain = 0.0 if zero_last else 1.0
        self.last = linear_layer(widths[-1], self.out_features, gain, final_bias, bound)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
            None: a private one with seed 0.
        """
        generator = private_generator(generator)
        for block in self.blocks:
            assert isinstance(block, DenseBlock)
            block.reset_parameters(generator)
        self.last.reset_parameters(generator)

    def forward(self, *parts: Tensor) -> Tensor:
        """Apply the network.

        Parameters
        ----------
        *parts : Tensor, shape (..., n)
            The input, or parts of it side by side, ``in_features`` in all. Leading axes follow
            the rules of broadcasting: what all series share is given, and multiplied, once.

        Returns
        -------
        Tensor, shape (..., out_features)
        """
        for block in self.blocks:
            parts = (block(*parts),)
        x = self.last(*parts)
        return torch.sigmoid(x) if self.final_sigmoid else x


def spectral_bound_of(spectral_norm: bool | float) -> float | None:
    """Read the ``spectral_norm`` option: False is no bound, True is 1."""
    if spectral_norm is False:
        return None
    bound = float(spectral_norm)
    if not bound > 0.0:
        raise ValueError(
            f"spectral_norm must be True, False or a positive bound, got {spectral_norm!r}"
        )
    return bound
