"""Importance-weighted bound of a ladder: the noise of all levels, in chunks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tsvae.models.ladder import Ladder

__all__ = ["ladder_bound"]


def ladder_bound(
    log_weights: Callable[[slice, int, list[Tensor]], Tensor],
    ladder: Ladder,
    n_records: int,
    n_samples: int,
    generator: torch.Generator,
    *,
    chunk_size: int,
    common_noise: bool = True,
) -> Tensor:
    """Log 1/S sum_s p(x, z_s) / q(z_s | x), with few codes in memory at a time.

    Parameters
    ----------
    log_weights : callable
        ``log_weights(rows, s, noise)`` for s codes of each of the records ``rows``, with the
        noise of each level (b s, *level_shape), gives log p(x, z) / q(z | x), (b, s).
    ladder : Ladder
    n_records : int
        B.
    n_samples : int
        S.
    generator : torch.Generator
    chunk_size : int
        Codes b s at a time.
    common_noise : bool, default=True
        Use the same S draws of noise for every record; see
        :func:`~tsvae.models.bounds.importance_bound`.

    Returns
    -------
    Tensor of shape (B,)
        In nats.

    References
    ----------
    Burda, Grosse & Salakhutdinov 2016 (arXiv 1509.00519), equation 8.
    """
    shared: list[Tensor] = []
    if common_noise:
        # One draw at a time: the first draws are then the same for every S.
        draws = [ladder.noise(1, generator) for _ in range(n_samples)]
        shared = [torch.cat(level) for level in zip(*draws, strict=True)]
    at_once = max(1, chunk_size // n_samples)
    per_chunk = min(n_samples, chunk_size)
    bounds = []
    for start in range(0, n_records, at_once):
        rows = slice(start, min(start + at_once, n_records))
        count, parts = rows.stop - rows.start, []
        for first in range(0, n_samples, per_chunk):
            size = min(per_chunk, n_samples - first)
            if common_noise:
                noise = [torch.cat([level[first : first + size]] * count) for level in shared]
            else:
                noise = ladder.noise(count * size, generator)
            parts.append(torch.logsumexp(log_weights(rows, size, noise), dim=1))
        bounds.append(torch.logsumexp(torch.stack(parts), dim=0))
    return torch.cat(bounds) - math.log(n_samples)
