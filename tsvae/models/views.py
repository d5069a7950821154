"""How a structured VAE sees a batch of windows: covariate effect, level, scale, channels.

The model works on residuals: what known covariates explain is taken off first, then the level of
the window, then a learned scale per variable; channel-wise models fold variables into the batch.
All of it is undone on the way out, and counted in the likelihood.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.nn.masking import count_true

__all__ = ["Effect", "Frame", "Window", "fold_channels", "unfold_channels", "window_level"]


class Window(NamedTuple):
    """A batch as the graphical model sees it.

    Attributes
    ----------
    x : Tensor (N, T, F')
        Residuals, zero where not observed. Channel-wise: N = B * F and F' = 1.
    target, visible : Tensor of bool (N, T, F')
        Entries that count in the loss, and those shown to the encoder.
    inputs : Tensor (N, T, U) or None
        Known inputs of the state.
    lengths : Tensor (N,) long
        Steps up to and including the last visible one.
    complete : bool
        Whether every entry is known to be shown and to count; looked up on CPUs alone.
    """

    x: Tensor
    target: Tensor
    visible: Tensor
    inputs: Tensor | None
    lengths: Tensor
    complete: bool = False

    @property
    def counted(self) -> Tensor | None:
        """``target``, or None if every entry counts."""
        return None if self.complete else self.target

    @property
    def n_values(self) -> Tensor:
        """Number of entries that count, ``()`` int32."""
        if self.complete:
            return torch.tensor(self.target.numel(), dtype=torch.int32)
        return count_true(self.target)


class Effect(NamedTuple):
    """What known covariates add to x, worked out beforehand: it stands for inputs.

    Attributes
    ----------
    values : Tensor (B, T, F)
    """

    values: Tensor


class Frame(NamedTuple):
    """What was taken off a window, to be put back: ``x = effect + level + scale * residual``.

    Attributes
    ----------
    level : Tensor (B, 1, F) or float
        0.0 without levels.
    scale : Tensor (F,) or float
        1.0 without scales.
    """

    level: Tensor | float
    scale: Tensor | float


def window_level(x: Tensor, mask: Tensor, n_entries: int) -> Tensor:
    """Mean of the first ``n_entries`` observed entries of each variable.

    A fixed number of *first* entries, so that the level leaks nothing about what comes later and
    means the same for a window in training and a history in use.

    Parameters
    ----------
    x : Tensor (B, T, F)
    mask : Tensor of bool (B, T, F)
    n_entries : int
        At least 1.

    Returns
    -------
    Tensor (B, 1, F)
        Zero for a variable never observed.

    Examples
    --------
    >>> x = torch.tensor([[[5.0], [9.0], [7.0], [1.0]]])
    >>> seen = torch.tensor([[[True], [False], [True], [True]]])
    >>> window_level(x, seen, 2).item()
    6.0
    """
    first = mask & (mask.cumsum(1) <= n_entries)
    total = torch.where(first, x, torch.zeros_like(x)).sum(1, keepdim=True)
    return total / first.sum(1, keepdim=True).clamp_min(1)


def fold_channels(tensor: Tensor) -> Tensor:
    """``(B, T, F)`` -> ``(B * F, T, 1)``."""
    return tensor.transpose(1, 2).flatten(0, 1).unsqueeze(-1)


def unfold_channels(tensor: Tensor, n_features: int) -> Tensor:
    """``(..., B * F, T, 1)`` -> ``(..., B, T, F)``."""
    return tensor.squeeze(-1).unflatten(-2, (-1, n_features)).transpose(-1, -2)
