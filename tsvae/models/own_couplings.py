r"""A coupling of states for each variable, close to the one that all share.

Variables differ in how their groups tell each other what to correct, but less than the noise in
couplings fitted apart. So each variable's coupling is :math:`\Delta + \Delta_f`, where
:math:`\Delta_f` minimises the errors of that variable under the penalty of module ``coupling``.
Its strength is one for all variables: that with the least cross-validated error, relative to the
errors under the common coupling and averaged over variables. With an infinite one they share it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.models.coupling import coupling_rows
from tsvae.models.moments import StateMoments, shares_apart
from tsvae.models.response_fit import FittedResponses
from tsvae.models.response_squares import (
    Disturbance,
    Seen,
    best_amplitudes,
    disturbance,
    response_rows,
    squared_errors,
    waves_of,
)

__all__ = ["OwnCouplings", "common_coupling", "own_couplings"]

_PENALTIES = (*(10.0 ** (0.5 * k) for k in range(-3, 5)), math.inf)


class OwnCouplings(NamedTuple):
    """Couplings of F variables.

    Attributes
    ----------
    matrices : Tensor (F, D, D)
        First coordinates of all groups, then second ones.
    errors : Tensor (H,)
        Mean squared error h steps ahead, cross-validated.
    """

    matrices: Tensor
    errors: Tensor


class _Fold(NamedTuple):
    """A block of time and the blocks from which it is forecast; leading axis F, where there."""

    own: Seen
    others: Seen
    pooled: Seen  # others, of all variables together
    weight: Tensor  # (F,), windows in the block


@torch.no_grad()
def own_couplings(fitted: FittedResponses, moments: StateMoments) -> OwnCouplings:
    """Find a coupling for each variable; the common one where forecasts are the last value.

    Parameters
    ----------
    fitted : FittedResponses
    moments : StateMoments
        Of the states that the fitted groups make of histories.

    Returns
    -------
    OwnCouplings
    """
    if not bool(moments.weight.any()) or math.isinf(fitted.objective.penalty.size):
        return common_coupling(fitted, moments.weight.shape[1])
    objective = fitted.objective
    total = _cross_validated(fitted, moments)
    best = _least(total @ objective.weights)
    ahead, added = _waves(fitted)
    rows = coupling_rows(
        response_rows(ahead, fitted.amplitude), objective.weights, objective.uncoupled
    )
    share = moments.weight.T / moments.weight.sum(0).clamp_min(1.0)[:, None]
    seen = _disturbed(moments, share, added, objective.penalty.shift)
    own = rows.squares(seen, rows.rows + rows.rows @ fitted.coupling).solve(_PENALTIES[best])
    gain = (total[best].sum(0) / total[-1].sum(0)).nan_to_num(1.0)
    return OwnCouplings(fitted.coupling + own, fitted.errors * gain)


def common_coupling(fitted: FittedResponses, n_features: int) -> OwnCouplings:
    """Let F variables share the coupling of all."""
    return OwnCouplings(fitted.coupling.expand(n_features, -1, -1), fitted.errors)


def _waves(fitted: FittedResponses) -> tuple[Tensor, Disturbance]:
    """Forecasts per unit of a state, and what disturbs the states."""
    waves = waves_of(
        fitted.angles, fitted.radius, fitted.gain, fitted.objective.n_past, len(fitted.errors)
    )
    return waves.ahead, disturbance(waves.past)


def _cross_validated(fitted: FittedResponses, moments: StateMoments) -> Tensor:
    """Squared errors of each penalty, summed over the windows: ``(len(_PENALTIES), F, H)``."""
    objective = fitted.objective
    ahead, added = _waves(fitted)
    total = torch.zeros(len(_PENALTIES), *moments.future.shape[1:], dtype=torch.float64)
    for fold in _folds(moments, added, objective.penalty.shift):
        amplitude = best_amplitudes(ahead, fold.pooled, objective.weights, objective.penalty)
        rows = coupling_rows(
            response_rows(ahead, amplitude), objective.weights, objective.uncoupled
        )
        base = rows.rows + rows.rows @ rows.squares(fold.pooled).solve(objective.coupling_penalty)
        squares = rows.squares(fold.others, base)
        for errors, penalty in zip(total, _PENALTIES, strict=True):
            changed = base + rows.rows @ squares.solve(penalty)
            errors += fold.weight[:, None] * squared_errors(changed, fold.own)
    return total


def _least(errors: Tensor) -> int:
    """Index of the penalty with the least mean error ``(P, F)`` beside that of the last one."""
    relative = errors / errors[-1]
    seen = relative.isfinite().all(0)
    if not bool(seen.any()):
        return len(_PENALTIES) - 1
    return int(relative[:, seen].mean(1).argmin())


def _folds(moments: StateMoments, added: Disturbance, shift: float) -> Iterator[_Fold]:
    together = _all_variables(moments)
    apart = shares_apart(moments.weight.T, moments.neighbours)  # (F, J, J)
    shares = shares_apart(together.weight.T, moments.neighbours)
    for block, weight in enumerate(moments.weight):
        pooled = _disturbed(together, shares[:, block], added, shift)
        yield _Fold(
            Seen(moments.past[block], moments.cross[block], moments.future[block]),
            _disturbed(moments, apart[:, block], added, shift),
            Seen(*(part[0] for part in pooled)),
            weight,
        )


def _all_variables(moments: StateMoments) -> StateMoments:
    """Take all variables together, as one."""
    weight = moments.weight.sum(1, keepdim=True)
    share = moments.weight / weight.clamp_min(1.0)
    past, cross, future, rough, level = (
        torch.einsum("jf,jf...->j...", share, part)[:, None] for part in moments[:5]
    )
    return StateMoments(past, cross, future, rough, level, weight, moments.neighbours)


def _disturbed(moments: StateMoments, share: Tensor, added: Disturbance, shift: float) -> Seen:
    """Moments of a mixture of blocks ``share (F, J)``, with noise and shifts of the level."""
    past, cross, future, rough, level = (
        torch.einsum("fj,jf...->f...", share, part) for part in moments[:5]
    )
    seen = (
        added.added_to(Seen(*s), r, shift * v)
        for *s, r, v in zip(past, cross, future, rough, level, strict=True)
    )
    return Seen(*(torch.stack(part) for part in zip(*seen, strict=True)))
