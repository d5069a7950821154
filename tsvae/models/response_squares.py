"""Amplitudes of a bank of filters by penalised least squares over second moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Disturbance",
    "Normal",
    "Penalty",
    "Seen",
    "Waves",
    "best_amplitudes",
    "disturbance",
    "normal_equations",
    "response_rows",
    "squared_errors",
    "waves_of",
]

STIFF = 1e4  # holds the anchor's amplitude at one
INPUT_NOISE = 2.0  # variance added to all but the last value, in units of their roughness
_JITTER = 1e-8


class Penalty(NamedTuple):
    """Penalty on amplitudes, in units of the mean curvature.

    Attributes
    ----------
    size : float
        On all but the anchor's.
    persistent : bool
        Hold the anchor's at one instead of leaving it free.
    shift : float
        Variance of shifts of whole windows, in units of the past's.
    """

    size: float
    persistent: bool
    shift: float


class Waves(NamedTuple):
    """What groups show: their forecasts per unit of a state, and their states per value seen."""

    ahead: Tensor  # (H, G) complex, lambda^h e^{iwh}
    past: Tensor  # (L, 2G) real: F^t k, first coordinates, then second ones


def waves_of(angles: Tensor, radius: Tensor, gain: Tensor, n_past: int, horizon: int) -> Waves:
    """Waves of groups of the given shapes."""
    steps = torch.arange(1, horizon + 1, dtype=angles.dtype)[:, None]
    ago = torch.arange(n_past - 1, -1, -1, dtype=angles.dtype)[:, None]
    ahead = torch.polar(radius**steps, angles * steps)
    seen = torch.polar(((1.0 - gain) * radius) ** ago * gain, angles * ago)
    return Waves(ahead, torch.cat((seen.real, seen.imag), dim=1))


def response_rows(ahead: Tensor, amplitude: Tensor) -> Tensor:
    """Return c A^h for every step: with z = a + ib, x = c_0 Re(A z) + c_1 Im(A z).

    ``amplitude (..., G, 2)`` makes ``(..., H, 2G)``.
    """
    first, second = amplitude.unsqueeze(-3).unbind(-1)
    real, imag = ahead.real, ahead.imag
    return torch.cat((first * real + second * imag, second * real - first * imag), dim=-1)


class Seen(NamedTuple):
    """Moments as the bank's states see them."""

    past: Tensor  # (2G, 2G), V'GV
    cross: Tensor  # (H, 2G)
    future: Tensor  # (H,)


def squared_errors(rows: Tensor, seen: Seen) -> Tensor:
    """Mean squared error of every step, ``(..., H)``, of forecasts ``rows @ states``."""
    errors: Tensor = ((rows @ seen.past - 2.0 * seen.cross) * rows).sum(-1) + seen.future
    return errors


class Disturbance(NamedTuple):
    """What noise and shifts of a level add to the moments of the states.

    Noise of all values but the last keeps responses smooth; shifts of a window and its future by
    one random constant make forecasts follow the level.
    """

    noise: Tensor  # (2G, 2G), per unit of variance
    shifted: Tensor  # (2G, 2G), per unit of variance
    level: Tensor  # (2G,), states after a history of ones

    def added_to(self, seen: Seen, rough: Tensor, shift: Tensor) -> Seen:
        """Moments as if values had noise as large as they are rough, and levels were unknown.

        Parameters
        ----------
        seen : Seen
        rough : Tensor ()
            Roughness of the histories.
        shift : Tensor ()
            Variance of the shifts.
        """
        return Seen(
            seen.past + INPUT_NOISE * rough * self.noise + shift * self.shifted,
            seen.cross + shift * self.level,
            seen.future + shift,
        )


def disturbance(past: Tensor) -> Disturbance:
    """Describe what disturbs the states that ``past (L, 2G)`` makes of a history."""
    level = past.sum(0)
    return Disturbance(past[:-1].T @ past[:-1], torch.outer(level, level), level)


class Normal(NamedTuple):
    """Normal equations of the amplitudes ``(c_0 of all groups, c_1 of all groups)``."""

    matrix: Tensor
    target: Tensor

    def solve(self, penalties: Sequence[Penalty]) -> Tensor:
        """Amplitudes ``(len(penalties), G, 2)``."""
        diagonal = self.matrix.diagonal()
        size = diagonal.mean().clamp_min(torch.finfo(diagonal.dtype).tiny)
        ridge = size * diagonal.new_tensor([penalty.size for penalty in penalties])
        held = diagonal.new_tensor([penalty.persistent for penalty in penalties])
        anchor = STIFF * size * held
        systems = self.matrix.repeat(len(penalties), 1, 1)
        added = systems.diagonal(dim1=1, dim2=2)
        added += (ridge + _JITTER * size)[:, None]
        added[:, 0] += anchor - ridge
        target = self.target.repeat(len(penalties), 1)
        target[:, 0] += anchor
        solved = torch.linalg.solve_ex(systems, target).result  # quicker than Cholesky's here
        return solved.unflatten(1, (2, -1)).mT


def normal_equations(ahead: Tensor, seen: Seen, weights: Tensor) -> Normal:
    r"""Curvature and slope of sum_h w_h e_h in the amplitudes.

    The row of step h is linear in each amplitude: c_0 puts (Re, -Im) of lambda^h e^{iwh} on the
    two coordinates of a state, c_1 puts (Im, Re). Products of two amplitudes meet the states'
    moments entry by entry.
    """
    real, imag = ahead.real, ahead.imag
    first, second = torch.cat((real, -imag), dim=1), torch.cat((imag, real), dim=1)
    weighted = weights[:, None]

    def meet(one: Tensor, other: Tensor) -> Tensor:
        product = ((weighted * one).T @ other) * seen.past
        folded: Tensor = product.unflatten(0, (2, -1)).sum(0).unflatten(1, (2, -1)).sum(1)
        return folded

    mixed = meet(first, second)
    upper = torch.cat((meet(first, first), mixed), dim=1)
    lower = torch.cat((mixed.T, meet(second, second)), dim=1)
    target = [
        (weighted * part * seen.cross).sum(0).unflatten(0, (2, -1)).sum(0)
        for part in (first, second)
    ]
    return Normal(torch.cat((upper, lower)), torch.cat(target))


def best_amplitudes(ahead: Tensor, seen: Seen, weights: Tensor, penalty: Penalty) -> Tensor:
    """Amplitudes ``(G, 2)`` of the least penalised error."""
    return normal_equations(ahead, seen, weights).solve([penalty])[0]
