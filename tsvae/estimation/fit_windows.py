"""Windows of single variables that a start is fitted to: a history and what came after it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.building import Sizes
from tsvae.estimation.history_filling import Shown
from tsvae.models.gaps import bridge_gaps

__all__ = ["FitWindows", "Windows", "history_rows"]

Mask = NDArray[np.bool_]

_OPERATIONS = 2e10  # multiplications that may be spent on all windows: about a second
_AT_ONCE = 4096


class Windows(NamedTuple):
    """Windows of single variables: level off, 0 where not observed.

    N = origins x F, the variables of an origin side by side.
    """

    past: Tensor  # (N, L)
    past_mask: Tensor
    future: Tensor  # (N, H)
    future_mask: Tensor
    last: Tensor  # (N, 1), last value seen
    variable: Tensor  # (N,) long


@dataclass(frozen=True)
class FitWindows:
    """All windows of a panel, as forecasts see them.

    Short gaps of the past are bridged where told so, as when forecasting. Before its first row a
    series is at its level: filters start at rest there.

    Attributes
    ----------
    shown : Shown
        Values ``(B, T, F)`` in model units, 0 where unknown, and which of them histories know.
    mask : bool ndarray (B, T, F)
        What is observed, and thus a target.
    lengths : ndarray (B,)
    sizes : Sizes
    horizon : int
        H, steps ahead.
    bridged : bool ndarray (F,)
        Variables whose short gaps are bridged.
    reach : int or None, default=None
        Steps ahead that lie inside the data in every window, later ones where they do; None: all.
    """

    shown: Shown
    mask: Mask
    lengths: NDArray[np.int64]
    sizes: Sizes
    horizon: int
    bridged: Mask
    reach: int | None = None

    @property
    def n_past(self) -> int:
        """L, rows of a history."""
        return history_rows(self.sizes)

    @property
    def inside(self) -> int:
        """Steps ahead that lie inside the data in every window."""
        return self.horizon if self.reach is None else self.reach

    @property
    def n_features(self) -> int:
        """F."""
        return int(self.mask.shape[-1])

    def blocks(self, n_blocks: int, most: float = math.inf) -> Iterator[tuple[int, Windows]]:
        """Windows of each series' blocks of time, with the block's number.

        Of very many every second, third, ... is taken: ``most`` at most, about.
        """
        starts = self.origins()
        stride = self._stride(sum(len(origins) for origins in starts), most)
        for series, origins in enumerate(starts):
            for block, part in enumerate(np.array_split(origins, n_blocks)):
                for some in _pieces(part[::stride]):
                    yield block, self._cut(series, some)

    def origins(self) -> list[NDArray[np.int64]]:
        """Rows seen before each window of a series, ``inside`` steps before its end at last."""
        found = []
        for rows in self.lengths.tolist():
            last = max(rows - self.inside, 1)
            first = min(self.n_past, last)
            if last - first < self.sizes.window:  # few whole ones: shorter histories, too
                first = min(self.sizes.min_history, last)
            found.append(np.arange(first, last + 1))
        return found

    def _stride(self, n_origins: int, most: float) -> int:
        affordable = min(_OPERATIONS / (self.n_past * (self.n_past + self.horizon)), most)
        return max(1, int(np.ceil(n_origins * self.n_features / affordable)))

    def _cut(self, series: int, origins: NDArray[np.int64]) -> Windows:
        """Windows around some origins of one series; gaps bridged, levels off."""
        length, n_features, shown, mask = self.n_past, self.n_features, self.shown, self.mask
        rows = origins[:, None] + np.arange(-length, self.horizon)
        inside = ((rows >= 0) & (rows < mask.shape[1]))[..., None]
        rows = rows.clip(0, mask.shape[1] - 1)
        known = np.concatenate(
            [shown.known[series, rows[:, :length]], mask[series, rows[:, length:]]], axis=1
        )
        x = torch.as_tensor(shown.values[series, rows], dtype=torch.float32)
        x = x.transpose(1, 2).flatten(0, 1)
        seen = torch.as_tensor(known & inside).transpose(1, 2).flatten(0, 1)
        variable = torch.arange(n_features).repeat(len(origins))
        some = torch.as_tensor(self.bridged)[variable]
        past = bridge_gaps(x[some, :length, None], seen[some, :length, None])
        x[some, :length], seen[some, :length] = past.x.squeeze(-1), past.known.squeeze(-1)
        past_mask = seen[:, :length].float()
        if self.sizes.level_entries:
            x = x - _level(x[:, :length], past_mask, self.sizes.level_entries)
        x = torch.where(seen, x, 0.0)
        any_past = past_mask.any(1, keepdim=True)  # a future without any history teaches nothing
        future_mask = (seen[:, length:] & any_past).float()
        before = torch.as_tensor(origins[:, None] < length - np.arange(length))
        past_mask = torch.maximum(past_mask, before.repeat_interleave(n_features, 0).float())
        latest = (past_mask * torch.arange(1, length + 1)).argmax(1, keepdim=True)
        last = x[:, :length].gather(1, latest)
        return Windows(x[:, :length], past_mask, x[:, length:], future_mask, last, variable)


def history_rows(sizes: Sizes) -> int:
    """L, rows of a history."""
    return max(1, min(sizes.context, sizes.window - 1))


def _level(past: Tensor, mask: Tensor, entries: int) -> Tensor:
    """Mean of the first entries of each history ``(N, 1)``."""
    first = mask * (mask.cumsum(1) <= entries)
    return (past * first).sum(1, keepdim=True) / first.sum(1, keepdim=True).clamp_min(1.0)


def _pieces(origins: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    if not len(origins):
        return []
    return np.array_split(origins, -(-len(origins) // _AT_ONCE))
