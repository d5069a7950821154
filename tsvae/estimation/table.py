"""A margin of any shape: a monotone map of normal scores, linear between knots."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["TablePredictive", "map_scores"]

Array = NDArray[np.float64]

_SQRT_2, _SQRT_PI = 2.0**0.5, np.pi**0.5


class _Lines(NamedTuple):
    """Slopes and intercepts ``(H, F, Q + 1)`` of the pieces between, before and after the knots."""

    slope: Tensor
    intercept: Tensor


class TablePredictive(NamedTuple):
    """Margins ``mean + scale * g(u)``, u standard normal, g monotone and linear between knots.

    Attributes
    ----------
    mean, scale : Tensor (B, H, F)
    knots : Tensor (Q,)
        Normal scores of the levels of the table, increasing.
    table : Tensor (H, F, Q)
        g of each step and variable at the knots, increasing. Outside of them g goes on as a
        multiple of u.
    """

    mean: Tensor
    scale: Tensor
    knots: Tensor
    table: Tensor

    def quantiles(self, levels: Tensor) -> Tensor:
        """Quantiles ``(B, H, F, Q)``."""
        scores = torch.special.ndtri(levels.double())
        standard = map_scores(scores[:, None, None], self.knots.double(), self.table.double())
        standard = standard.movedim(0, -1).to(self.mean)  # (H, F, Q)
        return self.mean.unsqueeze(-1) + self.scale.unsqueeze(-1) * standard

    def crps(self, truth: Tensor) -> Tensor:
        """Continuous ranked probability score of each entry, exact.

        The integral of (F(x) - 1[x >= truth])^2 over x, piece by piece: on each F(x) is the normal
        distribution function of a linear function of x, whose square has a closed form.
        """
        z = ((truth - self.mean) / self.scale).double()
        lines = _lines(self.knots.double(), self.table.double())
        lows = [-torch.inf, *self.knots.tolist()]
        highs = [*self.knots.tolist(), torch.inf]
        total = torch.zeros_like(z)
        for piece, (low, high) in enumerate(zip(lows, highs, strict=True)):
            slope, intercept = (line[..., piece] for line in lines)
            turn = ((z - intercept) / slope).clamp(low, high)
            below = _squared(turn) - _squared(torch.tensor(low).to(z))
            above = _squared(-turn) - _squared(torch.tensor(-high).to(z))
            total += slope * (below + above)
        return (total * self.scale).to(self.mean)


def map_scores(scores: Tensor, knots: Tensor, table: Tensor) -> Tensor:
    """Map normal scores ``(..., H, F)`` by the table of each step and variable.

    Parameters
    ----------
    scores : Tensor
        Axes of length 1 stand for all steps or variables.
    knots : Tensor (Q,)
    table : Tensor (H, F, Q)

    Returns
    -------
    Tensor (..., H, F)

    Examples
    --------
    >>> knots = torch.tensor([-1.0, 0.0, 1.0])
    >>> map_scores(torch.tensor([[0.5], [2.0]]), knots, torch.tensor([[[-1.0, 0.0, 3.0]]]))
    tensor([[1.5000],
            [6.0000]])
    """
    slope, intercept = _lines(knots, table)
    value = intercept[..., 0] + slope[..., 0] * scores
    for piece, knot in enumerate(knots.tolist(), start=1):
        value = value + (slope[..., piece] - slope[..., piece - 1]) * (scores - knot).clamp(min=0.0)
    return value


def _lines(knots: Tensor, table: Tensor) -> _Lines:
    inner = table.diff(dim=-1) / knots.diff()
    low, high = table[..., [0]] / knots[0], table[..., [-1]] / knots[-1]
    slope = torch.cat([low, inner, high], dim=-1)
    first = table - slope[..., :-1] * knots
    last = table[..., [-1]] - slope[..., [-1]] * knots[-1]
    return _Lines(slope, torch.cat([first, last], dim=-1))


def _squared(u: Tensor) -> Tensor:
    """Integral of the squared normal distribution function from -inf to u."""
    finite = u.clamp(min=-40.0)  # less is nothing; more is linear
    below = torch.special.ndtr(finite)
    density = torch.exp(-0.5 * finite**2) / (_SQRT_2 * _SQRT_PI)
    found = finite * below**2 + 2.0 * density * below
    return found - torch.special.ndtr(_SQRT_2 * finite) / _SQRT_PI
