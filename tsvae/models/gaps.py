"""Straight lines over short gaps of a history.

A bank of filters that was fitted to complete windows knows what a value tells, not what a missing
one leaves open: each group goes on by its own dynamics meanwhile. Inside a history the values on
both sides of a short gap tell more.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LONGEST_GAP", "Bridged", "bridge_gaps"]

#: Steps of the longest gap that is bridged.
LONGEST_GAP = 24


class Bridged(NamedTuple):
    """Histories with their short gaps filled.

    Attributes
    ----------
    x : Tensor (B, T, F)
    known : Tensor of bool (B, T, F)
        Observed or bridged.
    """

    x: Tensor
    known: Tensor


def bridge_gaps(x: Tensor, seen: Tensor, longest: int = LONGEST_GAP) -> Bridged:
    """Fill gaps of up to ``longest`` steps between two observed values by straight lines.

    Parameters
    ----------
    x : Tensor (B, T, F)
    seen : Tensor of bool (B, T, F)
    longest : int, default=24

    Returns
    -------
    Bridged
        Steps before the first and after the last observed value are left as they are.

    Examples
    --------
    >>> x = torch.tensor([[[0.0], [1.0], [0.0], [4.0], [0.0]]])
    >>> seen = torch.tensor([[[False], [True], [False], [True], [False]]])
    >>> bridge_gaps(x, seen).x.flatten()
    tensor([0.0000, 1.0000, 2.5000, 4.0000, 0.0000])
    """
    if bool(seen.all()):
        return Bridged(x, seen)
    n_steps = x.shape[1]
    clock = torch.arange(n_steps, device=x.device)[None, :, None].expand_as(seen)
    before = torch.where(seen, clock, -1).cummax(1).values
    after = torch.where(seen, clock, n_steps).flip(1).cummin(1).values.flip(1)
    inside = ~seen & (before >= 0) & (after < n_steps) & (after - before - 1 <= longest)
    left = x.gather(1, before.clamp_min(0))
    right = x.gather(1, after.clamp_max(n_steps - 1))
    share = (clock - before).to(x) / (after - before).clamp_min(1).to(x)
    return Bridged(torch.where(inside, left + (right - left) * share, x), seen | inside)
