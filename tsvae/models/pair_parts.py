"""Parts of a pair of models: named results, weights, and their checks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from tsvae.models.outputs import ForwardResult

__all__ = ["PairForward", "PairWeights", "check_pairs", "check_weights"]


class PairWeights(NamedTuple):
    """Weights of the four reconstructions: ``ab`` is b from the code of a.

    Parameters
    ----------
    aa, bb, ab, ba : float
    """

    aa: float = 1.0
    bb: float = 1.0
    ab: float = 1.0
    ba: float = 1.0


class PairForward(NamedTuple):
    """Codes of both sides and the four reconstructions.

    Parameters
    ----------
    a, b : ForwardResult
        Each side from its own code.
    b_from_a, a_from_b : Tensor of shape (P, S, T, F)
        Each side from the other's code, of the P paired samples.
    a_again, b_again : Tensor of shape (U, S, *latent) or None
        Of the unpaired samples of each side: the posterior mean of what their code is decoded to
        on the other side. None without a cycle.
    """

    a: ForwardResult
    b: ForwardResult
    b_from_a: Tensor
    a_from_b: Tensor
    a_again: Tensor | None = None
    b_again: Tensor | None = None


def check_weights(weights: Sequence[float]) -> PairWeights:
    """Four finite weights, not all 0, by name."""
    values = tuple(float(value) for value in weights)
    if len(values) != 4 or not all(0.0 <= value < math.inf for value in values) or not any(values):
        raise ValueError(
            "weights must be four finite numbers >= 0, not all 0: of a from a, b from b, b from a "
            f"and a from b; got {tuple(weights)!r}"
        )
    return PairWeights(*values)


def check_pairs(n_pairs: int | None, n_a: int, n_b: int) -> int:
    """Check the number of paired rows of a batch; None: all."""
    if n_pairs is None:
        if n_a != n_b:
            raise ValueError(
                f"a has {n_a} rows and b has {n_b}; give n_pairs, how many first rows of both are "
                "paired"
            )
        return n_a
    if not 0 <= n_pairs <= min(n_a, n_b):
        raise ValueError(f"n_pairs must be 0 to {min(n_a, n_b)}, got {n_pairs}")
    return n_pairs
