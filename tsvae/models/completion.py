"""Completing rows with gaps before an autoregression is fitted to them.

Moments of pairs lose what variables say together about a third one as soon as some entries are
missing. Stochastic expectation maximisation (Celeux & Diebolt 1985, Computational Statistics
Quarterly 2) draws the missing entries given the observed ones under the present fit, and fits to
the completed rows, in turns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tsvae.models.autoregression import Autoregression, fit_autoregression
from tsvae.models.joint_filling import draw_hidden

__all__ = ["complete_rows"]

_WIDTH = 96  # rows that are drawn together
_ENTRIES_AT_ONCE = 2_000_000
_FEWEST_TURNS = 3
_TURNS_PER_SHARE = 20.0  # of missing entries: the more, the slower it goes


def complete_rows(
    x: Tensor,
    mask: Tensor,
    inside: Tensor,
    phase: Tensor,
    n_phases: int,
    order: int,
    seed: int,
    start: Autoregression | None = None,
) -> Tensor:
    """Draw missing entries of series.

    Parameters
    ----------
    x : Tensor (B, T, F)
        In float64; zero where missing.
    mask : Tensor of bool (B, T, F)
    inside : Tensor of bool (B, T)
        Rows that belong to the series.
    phase : Tensor (B,) long
        Of the first rows.
    n_phases, order : int
        Of the autoregression.
    seed : int
    start : Autoregression, optional
        A fit to begin with, which saves turns; one to pairs by default.

    Returns
    -------
    Tensor (B, T, F)
        Observed entries as they are.
    """
    missing = inside[..., None] & ~mask
    if not bool(missing.any()):
        return x
    generator = torch.Generator().manual_seed(seed)
    share = float(missing.sum() / (inside.sum() * x.shape[-1]))
    filled, known = x, mask
    turns = _FEWEST_TURNS + (round(_TURNS_PER_SHARE * share) if start is None else 0)
    for turn in range(turns):
        if turn or start is None:
            start = fit_autoregression(filled, known, phase, n_phases, order)
        n, n_steps, width = x.shape
        padding = (0, 0, 0, -n_steps % _WIDTH)
        pieces = torch.nn.functional.pad(x, padding).reshape(-1, _WIDTH, width)
        seen = torch.nn.functional.pad(mask, padding).reshape(pieces.shape)
        first = (phase[:, None] + torch.arange(0, n_steps, _WIDTH)).flatten() % max(n_phases, 1)
        at_once = max(1, _ENTRIES_AT_ONCE // (2 * _WIDTH * start.order * width**2))
        drawn = [
            draw_hidden(start, own, own_seen, own_first, generator)
            for own, own_seen, own_first in zip(
                *(t.split(at_once) for t in (pieces, seen, first)), strict=True
            )
        ]
        filled = torch.cat(drawn).reshape(n, -1, width)[:, :n_steps]
        known = inside[..., None].expand_as(mask)
        filled = torch.where(known, filled, 0.0)
    return filled
