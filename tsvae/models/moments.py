"""Second moments of histories and futures, by blocks of time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Moments", "StateMoments", "WindowMoments", "roughness", "shares_apart"]


class Moments(NamedTuple):
    """Moments of one set of windows: as in :class:`WindowMoments`, without the blocks."""

    past: Tensor
    cross: Tensor
    future: Tensor


class WindowMoments(NamedTuple):
    """Moments of histories and futures, by blocks of time.

    Attributes
    ----------
    past : Tensor (J, L, L)
        G of each block; index 0 is the oldest value.
    cross : Tensor (J, H, L)
        E[y_h x].
    future : Tensor (J, H)
        E[y_h ** 2].
    weight : Tensor (J,)
        Windows behind each block.
    neighbours : int
        Blocks on either side whose windows overlap those of a block.
    """

    past: Tensor
    cross: Tensor
    future: Tensor
    weight: Tensor
    neighbours: int

    def double(self) -> WindowMoments:
        """Return the moments in double precision."""
        return WindowMoments(
            self.past.double(),
            self.cross.double(),
            self.future.double(),
            self.weight.double(),
            self.neighbours,
        )

    def everything(self) -> Moments:
        """Weighted mean over all blocks."""
        return self.pooled(torch.ones_like(self.weight, dtype=torch.bool))

    def pooled(self, blocks: Tensor) -> Moments:
        """Weighted mean over the blocks marked True."""
        share = self.weight * blocks
        share = share / share.sum()
        return Moments(
            torch.einsum("j,jab->ab", share, self.past),
            torch.einsum("j,jhl->hl", share, self.cross),
            share @ self.future,
        )


class StateMoments(NamedTuple):
    """Moments of the states after histories and of their futures, by block and variable.

    Attributes
    ----------
    past : Tensor (J, F, D, D)
    cross : Tensor (J, F, H, D)
        E[y_h z].
    future : Tensor (J, F, H)
    rough, level : Tensor (J, F)
        Of the histories: :func:`roughness`, and the mean of the squares.
    weight : Tensor (J, F)
        Windows behind each.
    neighbours : int
        As in :class:`WindowMoments`.
    """

    past: Tensor
    cross: Tensor
    future: Tensor
    rough: Tensor
    level: Tensor
    weight: Tensor
    neighbours: int


def roughness(past: Tensor) -> Tensor:
    """Half the mean square of differences between neighbours: noise, if nothing else moved."""
    diagonal = past.diagonal()
    if len(diagonal) == 1:
        return diagonal.mean()
    return 0.5 * (diagonal[1:] + diagonal[:-1]).mean() - past.diagonal(1).mean()


def shares_apart(weight: Tensor, neighbours: int) -> Tensor:
    """Shares of the blocks from which each block is forecast: those far enough away.

    Parameters
    ----------
    weight : Tensor (..., J)
        Windows behind each block.
    neighbours : int
        Blocks on either side that are left out, too, if others remain.

    Returns
    -------
    Tensor (..., J, J)
        Each row sums to 1; zero where there are no windows at all.
    """
    blocks = torch.arange(weight.shape[-1])
    distance = (blocks[:, None] - blocks).abs()
    weight = weight.unsqueeze(-2)
    shares = weight * (distance > neighbours)
    for fallback in (distance > 0, distance >= 0):
        empty = shares.sum(-1, keepdim=True) == 0
        shares = torch.where(empty, weight * fallback, shares)
    return shares / shares.sum(-1, keepdim=True).clamp_min(torch.finfo(shares.dtype).tiny)
