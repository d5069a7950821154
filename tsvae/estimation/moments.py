"""Second moments of windows of a panel: all that the start of a linear model needs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.building import Sizes
from tsvae.estimation.history_filling import Shown
from tsvae.models.gaps import bridge_gaps
from tsvae.models.moments import WindowMoments

__all__ = ["measure_errors", "variable_weights", "window_moments"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_N_BLOCKS = 8
_OPERATIONS = 2e10  # multiplications that may be spent: about a second
_WINDOWS_AT_ONCE = 4096
_FEW_WINDOWS = 5.0  # histories with futures, side by side


class _Windows(NamedTuple):
    """Windows of single variables: level off, 0 where not observed."""

    past: Tensor  # (N, L)
    past_mask: Tensor
    future: Tensor  # (N, H)
    future_mask: Tensor
    last: Tensor  # (N, 1), last value seen
    variable: Tensor  # (N,) long


def window_moments(
    shown: Shown,
    mask: Mask,
    lengths: NDArray[np.int64],
    weight: Array,
    sizes: Sizes,
    horizon: int,
    bridged: Mask,
) -> WindowMoments:
    """Moments of histories and futures of all variables, by blocks of time.

    Short gaps of the past are bridged where told so, as when forecasting. Pairs of entries count
    where both are known, so that other gaps cost precision, not bias. Before its first row a series
    is at its level: filters start at rest there.

    Parameters
    ----------
    shown : Shown
        Values ``(B, T, F)`` in model units, 0 where unknown, and which of them histories know.
    mask : bool ndarray (B, T, F)
        What is observed, and thus a target.
    lengths : ndarray (B,)
    weight : ndarray (F,)
        Of each variable's squares, see :func:`variable_weights`.
    sizes : Sizes
    horizon : int
        H, steps ahead.
    bridged : bool ndarray (F,)
        Variables whose short gaps are bridged.

    Returns
    -------
    WindowMoments
    """
    length = _past_rows(sizes)
    starts = _origins(lengths, sizes, horizon)
    stride = _stride(sum(len(s) for s in starts) * mask.shape[-1], length, horizon)
    by_variable = torch.as_tensor(np.sqrt(weight), dtype=torch.float32)
    sums = [_Sums(length, horizon) for _ in range(_N_BLOCKS)]
    for series, origins in enumerate(starts):
        for block, part in enumerate(np.array_split(origins, _N_BLOCKS)):
            for some in _pieces(part[::stride]):
                windows = _cut(shown, mask, series, some, length, horizon, sizes, bridged)
                sums[block].add(windows, by_variable[windows.variable])
    spacing = max(1.0, max((len(s) for s in starts), default=1) / _N_BLOCKS)
    return _finish(sums, int(np.ceil(horizon / spacing)))


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
    if int(lengths.sum()) >= _FEW_WINDOWS * (_past_rows(sizes) + horizon):
        return np.ones_like(scale)
    weight: Array = np.exp(np.log(scale).mean()) / scale
    return weight


def measure_errors(
    shown: Shown,
    mask: Mask,
    lengths: NDArray[np.int64],
    forecast: Tensor,
    sizes: Sizes,
    bridged: Mask,
) -> Array:
    """Mean squared error of each variable and step, ``(F, H)``; NaN where nothing is observed.

    Parameters
    ----------
    shown, mask, lengths, sizes, bridged
        As in :func:`window_moments`.
    forecast : Tensor (H, L)
        Linear map from a history to its future.
    """
    horizon, length = forecast.shape
    starts = _origins(lengths, sizes, horizon)
    stride = _stride(sum(len(s) for s in starts) * mask.shape[-1], length, horizon)
    squares = torch.zeros(mask.shape[-1], horizon)
    counts = torch.zeros_like(squares)
    for series, origins in enumerate(starts):
        for some in _pieces(origins[::stride]):
            windows = _cut(shown, mask, series, some, length, horizon, sizes, bridged)
            error = (windows.future - windows.past @ forecast.T.float()) * windows.future_mask
            squares.index_add_(0, windows.variable, error.square())
            counts.index_add_(0, windows.variable, windows.future_mask)
    return np.asarray((squares / counts).double())


def _past_rows(sizes: Sizes) -> int:
    return max(1, min(sizes.context, sizes.window - 1))


def _origins(lengths: NDArray[np.int64], sizes: Sizes, horizon: int) -> list[NDArray[np.int64]]:
    """Rows seen before each window of a series, its future inside the data."""
    found = []
    for rows in lengths.tolist():
        last = max(rows - horizon, 1)
        first = min(_past_rows(sizes), last)
        if last - first < sizes.window:  # few whole ones: shorter histories, too
            first = min(sizes.min_history, last)
        found.append(np.arange(first, last + 1))
    return found


def _stride(n_windows: int, length: int, horizon: int) -> int:
    affordable = _OPERATIONS / (length * (length + horizon))
    return max(1, int(np.ceil(n_windows / affordable)))


def _pieces(origins: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    if not len(origins):
        return []
    return np.array_split(origins, -(-len(origins) // _WINDOWS_AT_ONCE))


def _cut(
    shown: Shown,
    mask: Mask,
    series: int,
    origins: NDArray[np.int64],
    length: int,
    horizon: int,
    sizes: Sizes,
    bridged: Mask,
) -> _Windows:
    """Windows around some origins of one series, all its variables; gaps bridged, levels off."""
    rows = origins[:, None] + np.arange(-length, horizon)
    inside = ((rows >= 0) & (rows < mask.shape[1]))[..., None]
    rows = rows.clip(0, mask.shape[1] - 1)
    known = np.concatenate(
        [shown.known[series, rows[:, :length]], mask[series, rows[:, length:]]], axis=1
    )
    x = torch.as_tensor(shown.values[series, rows], dtype=torch.float32)
    x = x.transpose(1, 2).flatten(0, 1)
    seen = torch.as_tensor(known & inside).transpose(1, 2).flatten(0, 1)
    variable = torch.arange(mask.shape[-1]).repeat(len(origins))
    some = torch.as_tensor(bridged)[variable]
    past = bridge_gaps(x[some, :length, None], seen[some, :length, None])
    x[some, :length], seen[some, :length] = past.x.squeeze(-1), past.known.squeeze(-1)
    past_mask = seen[:, :length].float()
    if sizes.level_entries:
        first = past_mask * (past_mask.cumsum(1) <= sizes.level_entries)
        level = (x[:, :length] * first).sum(1, keepdim=True) / first.sum(1, keepdim=True).clamp_min(
            1.0
        )
        x = x - level
    x = torch.where(seen, x, 0.0)
    any_past = past_mask.any(1, keepdim=True)  # a future without any history teaches nothing
    future_mask = (seen[:, length:] & any_past).float()
    before = torch.as_tensor(origins[:, None] < length - np.arange(length))
    past_mask = torch.maximum(past_mask, before.repeat_interleave(mask.shape[-1], 0).float())
    latest = (past_mask * torch.arange(1, length + 1)).argmax(1, keepdim=True)
    last = x[:, :length].gather(1, latest)
    return _Windows(x[:, :length], past_mask, x[:, length:], future_mask, last, variable)


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

    def add(self, windows: _Windows, weight: Tensor) -> None:
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
