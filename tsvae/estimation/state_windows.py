"""Windows as fitted groups see them: states after histories, and what came next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.fit_windows import FitWindows, Windows
from tsvae.estimation.moments import N_BLOCKS, neighbouring_blocks
from tsvae.models.moments import StateMoments

__all__ = ["StateWindows", "measure_errors", "state_moments", "state_windows"]

Array = NDArray[np.float64]

_NUMBERS = 6e7  # that are held at once: 240 MB


class StateWindows(NamedTuple):
    """Some windows of one block of time, by variable.

    Attributes
    ----------
    block : int
    states : Tensor (F, N, D)
        After the histories.
    future : Tensor (F, N, H)
        0 where not observed.
    known : Tensor (F, N, H)
    complete : Tensor (F, N)
        1 for histories without gaps.
    rough, level : Tensor (F, N)
        Half the mean square of differences between neighbours, and the mean square.
    """

    block: int
    states: Tensor
    future: Tensor
    known: Tensor
    complete: Tensor
    rough: Tensor
    level: Tensor


def state_windows(windows: FitWindows, states: Tensor) -> list[StateWindows]:
    """Take windows through the groups: all, or as many as memory allows.

    Parameters
    ----------
    windows : FitWindows
    states : Tensor (L, D)
        States per value seen.

    Returns
    -------
    list of StateWindows
    """
    most = _NUMBERS / (states.shape[1] + 2 * windows.horizon)
    return [
        _seen(block, some, states.float(), windows.n_features)
        for block, some in windows.blocks(N_BLOCKS, most)
    ]


def _seen(block: int, windows: Windows, states: Tensor, n_features: int) -> StateWindows:
    past = windows.past
    rough = 0.5 * past.diff(dim=1).square().mean(1) if past.shape[1] > 1 else past[:, 0] ** 2
    parts = (
        past @ states,
        windows.future,
        windows.future_mask,
        windows.past_mask.amin(1),
        rough,
        past.square().mean(1),
    )
    by_variable = (x.unflatten(0, (-1, n_features)).transpose(0, 1).contiguous() for x in parts)
    return StateWindows(block, *by_variable)


def state_moments(
    pieces: Sequence[StateWindows], windows: FitWindows, weight: Array
) -> StateMoments:
    """Moments of the states after complete histories, and of their futures.

    Parameters
    ----------
    pieces : sequence of StateWindows
        All of them.
    windows : FitWindows
        Where they come from.
    weight : ndarray (F,)
        Of each variable's squares.

    Returns
    -------
    StateMoments
        float64.
    """
    n_features, horizon = windows.n_features, windows.horizon
    width = pieces[0].states.shape[-1]
    shapes = ((width, width), (horizon, width), (horizon,), (), (), (), (horizon,))
    totals = [torch.zeros(N_BLOCKS, n_features, *shape, dtype=torch.float64) for shape in shapes]
    for piece in pieces:
        for total, found in zip(totals, _sums(piece), strict=True):
            total[piece.block] += found
    past, cross, future, rough, level, count, targets = totals
    size = torch.as_tensor(weight, dtype=torch.float64)
    each, ahead = size / count.clamp_min(1.0), size[:, None] / targets.clamp_min(1.0)
    return StateMoments(
        past * each[..., None, None],
        cross * ahead[..., None],
        future * ahead,
        rough * each,
        level * each,
        count,
        neighbouring_blocks(windows),
    )


def _sums(piece: StateWindows) -> tuple[Tensor, ...]:
    """Add up the windows with complete histories, in the order of ``StateMoments``, and targets."""
    complete = piece.complete
    states, future = piece.states * complete[..., None], piece.future * complete[..., None]
    return (
        states.mT @ states,
        future.mT @ states,
        future.square().sum(1),
        (piece.rough * complete).sum(1),
        (piece.level * complete).sum(1),
        complete.sum(1),
        (piece.known * complete[..., None]).sum(1),
    )


def measure_errors(pieces: Sequence[StateWindows], rows: Tensor) -> Array:
    """Mean squared error of each variable and step, ``(F, H)``; NaN where nothing is observed.

    Parameters
    ----------
    pieces : sequence of StateWindows
        All of them, those with gaps, too.
    rows : Tensor (F, H, D)
        Forecasts per unit of a state, for each variable.
    """
    ahead = rows.float().mT
    squares, counts = torch.zeros(2, *rows.shape[:2])
    for piece in pieces:
        error = (piece.future - piece.states @ ahead) * piece.known
        squares += error.square_().sum(1)
        counts += piece.known.sum(1)
    return np.asarray((squares / counts).double())
