"""Sparse tables of how often a code followed a context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["CountTable", "Counts", "check_codes"]


class Counts(NamedTuple):
    """How often a context was seen, and how often a code followed it."""

    pair: Tensor
    context: Tensor

    def blend(self, lower: Tensor, strength: Tensor | float) -> Tensor:
        """Probability of the code: counts plus ``strength`` draws from ``lower``."""
        return (self.pair + strength * lower) / (self.context + strength)

    def without_one(self) -> Counts:
        """Return the counts as they were before one of these pairs was seen."""
        return Counts(self.pair - 1.0, self.context - 1.0)


class CountTable(nn.Module):
    """Counts of (context, code) pairs, kept for the pairs that were seen.

    Contexts are integers; a pair is ``context * n_codes + code``. All contents are buffers, of
    the length that the data ask for.

    Parameters
    ----------
    n_codes : int
        K, size of the alphabet.

    Examples
    --------
    >>> table = CountTable(3)
    >>> table.fill(torch.tensor([0, 0, 1]), torch.tensor([2, 2, 0]))
    >>> table.counts(torch.tensor([0, 1, 7]), torch.tensor([2, 2, 2]))
    Counts(pair=tensor([2., 0., 0.], dtype=torch.float64),
           context=tensor([2., 1., 0.], dtype=torch.float64))
    """

    pairs: Tensor
    pair_counts: Tensor
    contexts: Tensor
    context_counts: Tensor
    strength: Tensor

    def __init__(self, n_codes: int) -> None:
        super().__init__()
        self.n_codes = n_codes
        for name in ("pairs", "contexts"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64))
            counts = f"{name.removesuffix('s')}_counts"
            self.register_buffer(counts, torch.zeros(0, dtype=torch.int64))
        self.register_buffer("strength", torch.ones((), dtype=torch.float64))

    def fill(self, context: Tensor, code: Tensor) -> None:
        """Count pairs; what was counted before is forgotten.

        Parameters
        ----------
        context, code : Tensor of int64, shape (n,)
        """
        self.pairs, self.pair_counts = torch.unique(
            context * self.n_codes + code, return_counts=True
        )
        self.contexts, self.context_counts = torch.unique(context, return_counts=True)

    def counts(self, context: Tensor, code: Tensor) -> Counts:
        """Return counts of pairs; 0 for those never seen.

        Parameters
        ----------
        context, code : Tensor of int64
            Of one shape after broadcasting.

        Returns
        -------
        Counts
            float64.
        """
        pair = _look_up(self.pairs, self.pair_counts, context * self.n_codes + code)
        return Counts(pair, _look_up(self.contexts, self.context_counts, context))

    def _apply(self, fn: Any, recurse: bool = True) -> CountTable:
        strength = self.strength
        super()._apply(fn, recurse)
        # Probabilities are float64 whatever the networks' dtype; only the device follows.
        self.strength = strength.to(self.strength.device)
        return self

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name, buffer in list(self._buffers.items()):
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor) and buffer is not None:  # lengths are the data's
                setattr(self, name, buffer.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _look_up(keys: Tensor, counts: Tensor, wanted: Tensor) -> Tensor:
    if not keys.numel():
        return torch.zeros(wanted.shape, dtype=torch.float64, device=wanted.device)
    at = torch.searchsorted(keys, wanted.contiguous()).clamp_max(keys.numel() - 1)
    return torch.where(keys[at] == wanted, counts[at], 0).double()


def check_codes(codes: Tensor, n_codes: int, n_steps: int | None = None) -> Tensor:
    """Return sequences of codes as int64.

    Parameters
    ----------
    codes : Tensor of int, shape (N, L)
    n_codes : int
        K, size of the alphabet.
    n_steps : int, optional
        L that is wanted.

    Returns
    -------
    Tensor of int64, shape (N, L)

    Raises
    ------
    TypeError
        If codes are not integers.
    ValueError
        If the shape is wrong or a code is not in 0..K-1.
    """
    if not isinstance(codes, Tensor) or codes.is_floating_point() or codes.dtype == torch.bool:
        got = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise TypeError(
            f"codes must be a tensor of integers, got {got}; VQVAE.encode(x).codes has them"
        )
    if codes.ndim != 2 or not codes.numel():
        raise ValueError(
            f"codes must have shape (N, L) with at least one entry, got {tuple(codes.shape)}"
        )
    if n_steps is not None and codes.shape[1] != n_steps:
        raise ValueError(f"codes must have {n_steps} steps, as in fit, got {codes.shape[1]}")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= n_codes:
        raise ValueError(
            f"codes must be between 0 and n_codes - 1 = {n_codes - 1}, "
            f"got {low if low < 0 else high}"
        )
    return codes.long()
