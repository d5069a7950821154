"""Second moments of windows of a panel: all that the start of a linear model needs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.building import Sizes
from tsvae.estimation.fit_windows import FitWindows, Windows, history_rows
from tsvae.models.moments import WindowMoments

__all__ = [
    "N_BLOCKS",
    "has_many_windows",
    "neighbouring_blocks",
    "variable_weights",
    "window_moments",
]

Array = NDArray[np.float64]

N_BLOCKS = 8
_FEW_WINDOWS = 5.0  # histories with futures, side by side


def window_moments(windows: FitWindows, weight: Array, lost: Array | None = None) -> WindowMoments:
    """Moments of histories and futures of all variables, by blocks of time.

    Pairs of entries count where both are known, so that gaps which remain cost precision, not bias.

    Parameters
    ----------
    windows : FitWindows
    weight : ndarray (F,)
        Of each variable's squares, see :func:`variable_weights`.
    lost : ndarray (F, K), optional
        Covariances at lags 0 to K - 1 >= L + H - 1 that are to be added back, see
        :func:`~tsvae.estimation.pattern_loss.lost_covariances`.

    Returns
    -------
    WindowMoments
    """
    by_variable = torch.as_tensor(np.sqrt(weight), dtype=torch.float32)
    sums = [_Sums(windows.n_past, windows.horizon) for _ in range(N_BLOCKS)]
    for block, some in windows.blocks(N_BLOCKS):
        sums[block].add(some, by_variable[some.variable])
    found = _finish(sums, neighbouring_blocks(windows))
    if lost is None or not lost.any():
        return found
    return _with_lost(found, windows, torch.as_tensor((weight[:, None] * lost).mean(axis=0)))


def _with_lost(moments: WindowMoments, windows: FitWindows, lost: Tensor) -> WindowMoments:
    """Moments of futures outside the data, of whose noise ``lost (K,)`` is not in a pattern."""
    length, horizon = windows.n_past, windows.horizon
    back = torch.arange(length, 0, -1)  # rows before the origin
    rows = torch.as_tensor(np.concatenate(windows.origins()))
    inside = (rows[:, None] >= back).double().mean(0)
    cross = lost[torch.arange(horizon)[:, None] + back] * inside
    return moments._replace(cross=moments.cross + cross, future=moments.future + 2.0 * lost[0])


def variable_weights(lengths: NDArray[np.int64], scale: Array, sizes: Sizes, horizon: int) -> Array:
    """Weight of each variable's squared errors.

    Parameters
    ----------
    lengths : ndarray (B,)
    scale : ndarray (F,)
        Short-term movement of each variable.
    sizes : Sizes
    horizon : int

    Returns
    -------
    ndarray (F,)
        1 for all; by the inverse of ``scale`` where data hold few windows, so that one restless
        variable does not decide for all: halfway to one relative error for all.
    """
    if has_many_windows(lengths, sizes, horizon):
        return np.ones_like(scale)
    weight: Array = np.exp(np.log(scale).mean()) / scale
    return weight


def has_many_windows(lengths: NDArray[np.int64], sizes: Sizes, horizon: int) -> bool:
    """Whether data hold at least five histories with futures side by side."""
    return int(lengths.sum()) >= _FEW_WINDOWS * (history_rows(sizes) + horizon)


def neighbouring_blocks(windows: FitWindows) -> int:
    """Blocks on either side whose windows overlap those of a block."""
    longest = max((len(origins) for origins in windows.origins()), default=1)
    return int(np.ceil(windows.inside / max(1.0, longest / N_BLOCKS)))


class _Sums:
    """Sums over the windows of a block, and how many entries are behind each.

    Values are taken from the last one seen, b, which every window has: moments of pairs, each from
    entries of its own, would not fit together where a trend makes them large beside the errors.
    A history counts as much as there are values in its future.
    """

    def __init__(self, length: int, horizon: int) -> None:
        shapes = {
            "past": (length, length),
            "cross": (horizon, length),
            "future": (horizon,),
            "past_last": (length,),
            "future_last": (horizon,),
            "last": (1,),
        }
        self.total = {name: torch.zeros(shape) for name, shape in shapes.items()}
        self.count = {name: torch.zeros(shape) for name, shape in shapes.items()}
        self.n_windows = 0

    def add(self, windows: Windows, weight: Tensor) -> None:
        seen, ahead = windows.past_mask, windows.future_mask
        last = windows.last * weight[:, None]
        x = (windows.past * weight[:, None] - last) * seen
        y = (windows.future * weight[:, None] - last) * ahead
        share = ahead.mean(1, keepdim=True).sqrt()
        self._add(self.total, x, y, last, share)
        if bool(seen.all()) and bool(ahead.all()):
            for count in self.count.values():
                count += len(x)
        elif bool(seen.all()):
            per_step = ahead.sum(0)
            own = {"cross": per_step[:, None], "future": per_step, "future_last": per_step}
            for name, count in self.count.items():
                count += own.get(name, per_step.mean())
        else:
            self._add(self.count, seen, ahead, torch.ones_like(last), share)
        self.n_windows += int(ahead.any(1).sum())

    @staticmethod
    def _add(sums: dict[str, Tensor], x: Tensor, y: Tensor, last: Tensor, share: Tensor) -> None:
        sums["cross"] += y.T @ x
        sums["future"] += y.square().sum(0)
        sums["future_last"] += (y * last).sum(0)
        x, last = x * share, last * share
        sums["past"] += x.T @ x
        sums["past_last"] += (x * last).sum(0)
        sums["last"] += last.square().sum(0)


def _finish(sums: list[_Sums], neighbours: int) -> WindowMoments:
    """Means of every block; a block takes from all blocks what it has never seen."""
    mean = {}
    for name in sums[0].total:
        total = torch.stack([s.total[name] for s in sums]).double()
        count = torch.stack([s.count[name] for s in sums]).double()
        overall = total.sum(0) / count.sum(0).clamp_min(1.0)
        mean[name] = torch.where(count > 0, total / count.clamp_min(1.0), overall)
    at_past, at_future, last = mean["past_last"], mean["future_last"], mean["last"]
    past = mean["past"] + at_past[:, :, None] + at_past[:, None] + last[:, :, None]
    cross = mean["cross"] + at_past[:, None] + at_future[:, :, None] + last[:, :, None]
    future = mean["future"] + 2.0 * at_future + last
    counts = torch.stack([s.count["past"] for s in sums])
    if bool((counts != counts[:, :1, :1]).any()):
        past = _positive(past)
    weight = torch.tensor([float(s.n_windows) for s in sums])
    return WindowMoments(past, cross, future, weight, neighbours)


def _positive(matrices: Tensor) -> Tensor:
    """Nearest positive semi-definite matrices: moments of pairs may have negative directions."""
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp_min(0.0).unsqueeze(-2)) @ vectors.mT
