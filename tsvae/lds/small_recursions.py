"""Steps of recursions in numpy, for arrays so small that calls, not arithmetic, make the price.

A call of numpy costs a third of one of PyTorch, and a view a tenth. Arrays are component-first, as
in ``components``, and share the memory of tensors on the CPU.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.lds.components import TIME
from tsvae.lds.steady import SETTLING_FROM, Run, Settling, equal_runs

Array = NDArray[np.floating[Any]]

LARGEST = 16384  # numbers of an array that is taken for small
# Steps of the Riccati loop: beyond so many, a logarithmic number of passes is cheaper.
LONGEST_LOOP = 400
_LONGEST_SEARCH = 256  # steps that equal coefficients are given to settle


def is_small(values: Tensor) -> bool:
    """Whether numpy is the cheaper way."""
    return values.device.type == "cpu" and values.numel() <= LARGEST


def as_array(values: Tensor) -> Array:
    """View of a tensor on the CPU."""
    found: Array = values.detach().numpy()
    return found


def times_vector(matrix: Array, vector: Array, plus: Array, out: Array) -> None:
    """``matrix @ vector + plus``, into ``out``."""
    np.multiply(matrix[:, 0], vector[0], out=out)
    out += plus
    for k in range(1, matrix.shape[1]):
        out += matrix[:, k] * vector[k]


def times_matrix(left: Array, right: Array) -> Array:
    """``left @ right``."""
    out: Array = left[:, :1] * right[:1]
    for k in range(1, left.shape[1]):
        out += left[:, k : k + 1] * right[k : k + 1]
    return out


def congruence(factor: Array, matrix: Array, plus: Array, out: Array) -> None:
    """``factor @ matrix @ factor' + plus`` of distinct entries (``recursions``), into ``out``."""
    size = factor.shape[0]
    half = factor[:, :1] * matrix[:size]
    for k in range(1, size):
        half += factor[:, k : k + 1] * matrix[k : k + size]
    for i in range(size):
        new, own = slice(2 * i, i + size), factor[i:]
        target = out[new]
        np.multiply(half[i, 0], own[:, 0], out=target)
        target += plus[new]
        for k in range(1, size):
            target += half[i, k] * own[:, k]


def loop(links: Array, constants: Array, apply: Any, reverse: bool, out: Array) -> None:
    """Run a recursion step by step; ``apply`` is ``times_vector`` or ``congruence``."""
    moves = list(range(constants.shape[TIME]))
    if reverse:
        moves.reverse()
    first = moves[0]
    out[..., first, :, :, :] = constants[..., first, :, :, :]
    for past, now in pairwise(moves):
        link = links[..., min(past, now), :, :, :]
        state, target = out[..., past, :, :, :], out[..., now, :, :, :]
        apply(link, state, constants[..., now, :, :, :], target)


def riccati_pairs(
    transition: Tensor, noise: Tensor, initial: Tensor, precision: Tensor, out: Tensor
) -> int:
    """Predicted covariances of pairs, step by step until they settle.

    Parameters
    ----------
    transition, noise, initial : Tensor (2, 2, 1, 1, 1, G)
    precision : Tensor (2, 2, T, P, 1, G)
    out : Tensor (2, 2, T, P, 1, G)
        To be filled from its first step on.

    Returns
    -------
    int
        Steps filled: all, or fewer if a long recursion does not settle soon.
    """
    n_steps = precision.shape[TIME]
    runs = _runs(precision)
    if n_steps > LONGEST_LOOP and not runs:
        return 0
    moves = _Predictions(transition, noise, precision)
    kept = np.empty_like(moves.weights)
    state = kept[:, 0].copy()
    state[:] = _distinct(initial)[:, 0]
    settling = Settling(runs, out.dtype)
    longest = n_steps if n_steps <= LONGEST_LOOP else _LONGEST_SEARCH
    step = taken = 0
    while step < n_steps and taken < longest:
        kept[:, step] = state
        if settling.looks(step):
            end = settling.stop(torch.from_numpy(state.reshape(3, -1, 1)).transpose(0, 1))
            if end is not None:
                kept[:, step + 1 : end] = state[:, None]
                step = end - 1
        state = moves.ahead(state, step)
        step, taken = step + 1, taken + 1
    target = as_array(out)[..., :step, :, 0, :]
    target[0, 0], target[1, 1] = kept[0, :step], kept[2, :step]
    target[0, 1] = target[1, 0] = kept[1, :step]
    return step


class _Predictions:
    """Steps of the Riccati recursion on distinct entries ``(3, P, G)``; see ``components``."""

    def __init__(self, transition: Tensor, noise: Tensor, precision: Tensor) -> None:
        self.weights = lam = _distinct(precision)  # (3, T, P, G)
        self.eps = np.finfo(lam.dtype).eps
        product = lam[0] * lam[2]
        self.determinant = np.maximum(product - lam[1] * lam[1], self.eps * product)
        self.adjugate = np.stack((lam[2], -lam[1], lam[0]))
        lam[1] *= 2.0
        self.columns, self.noise = _congruence(as_array(transition)), _distinct(noise)[:, 0]

    def ahead(self, covariance: Array, step: int) -> Array:
        """Covariance predicted for the next step."""
        x, y, z = covariance
        product = x * z
        det = np.maximum(product - y * y, self.eps * product)
        odds = (covariance * self.weights[:, step]).sum(0)
        odds += det * self.determinant[step]
        odds += 1.0
        after = det * self.adjugate[:, step]
        after += covariance
        after /= odds
        moved: Array = (self.columns * after).sum(1)
        moved += self.noise
        return moved


def _runs(precision: Tensor) -> list[Run]:
    """Find runs of equal precisions, one step longer: that many predictions are the same."""
    by_step = precision.detach().movedim(TIME, 0)
    if by_step.shape[0] < SETTLING_FROM:
        return []
    found = equal_runs(by_step)
    return [Run(a, min(b + 1, by_step.shape[0])) for a, b in found]


def _distinct(matrices: Tensor) -> Array:
    """``(2, 2, T, P, 1, G)`` -> ``(3, T, P, G)``."""
    values = as_array(matrices)[:, :, :, :, 0]
    return np.stack((values[0, 0], values[0, 1], values[1, 1]))


def _congruence(transition: Array) -> Array:
    """Map of distinct entries S -> A S A', ``(3, 3, 1, G)``."""
    (a, b), (c, d) = transition[:, :, 0, :, 0]
    return np.stack(
        [
            np.stack((a * a, 2.0 * a * b, b * b)),
            np.stack((a * c, a * d + b * c, b * d)),
            np.stack((c * c, 2.0 * c * d, d * d)),
        ]
    )
