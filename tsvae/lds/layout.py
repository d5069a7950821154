"""Arrangement of a batch of series by the covariance pattern they share.

Outside, states are ``(B, T, D)`` and covariances ``(P, T, G, K, K)``. Inside, everything is time
first with one matrix axis N = G * P: covariances ``(T, N, K, K)`` and states ``(T, N, R, K)``,
where R series share each pattern (shorter patterns are padded by repeating a series; the padding
is never read back). One batched product then serves all series of a step.

Groups of one or two dimensions use component-first *planes* instead (module ``components``):
states ``(K, T, P, R, G)`` and matrices ``(K, K, T, P, 1, G)``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class SeriesLayout(NamedTuple):
    """How B series sit in P patterns of R rows.

    Attributes
    ----------
    n_groups, group_size, n_patterns, rows : int
        G, K, P, R.
    slots : Tensor (P * R,) long or None
        Series in each slot; None when slots are the series in order.
    positions : Tensor (B,) long or None
        Slot of each series.
    expand : Tensor (B,) long or None
        If set, covariances are repeated per series (patterns too uneven to be padded).
    """

    n_groups: int
    group_size: int
    n_patterns: int
    rows: int
    slots: Tensor | None
    positions: Tensor | None
    expand: Tensor | None

    def states_in(self, states: Tensor) -> Tensor:
        """``(B, T, D)`` -> ``(T, G * P, R, K)``."""
        if self.slots is not None:
            states = states.index_select(0, self.slots)
        steps = states.shape[1]
        split = states.reshape(self.n_patterns, self.rows, steps, self.n_groups, self.group_size)
        moved = split.permute(2, 3, 0, 1, 4)
        return moved.reshape(steps, -1, self.rows, self.group_size)

    def states_out(self, states: Tensor) -> Tensor:
        """``(T, G * P, R, K)`` -> ``(B, T, D)``."""
        steps = states.shape[0]
        split = states.reshape(steps, self.n_groups, self.n_patterns, self.rows, self.group_size)
        moved = split.permute(2, 3, 0, 1, 4).reshape(self.n_patterns * self.rows, steps, -1)
        return moved if self.positions is None else moved.index_select(0, self.positions)

    def samples_in(self, noise: Tensor) -> Tensor:
        """``(S, B, T, D)`` -> ``(T, G * P, R * S, K)``, samples of a series side by side."""
        draws = [self.states_in(draw) for draw in noise.unbind(0)]
        return torch.stack(draws, dim=3).flatten(2, 3)

    def samples_out(self, states: Tensor, n_samples: int) -> Tensor:
        """Inverse of ``samples_in``."""
        split = states.unflatten(2, (self.rows, n_samples))
        return torch.stack([self.states_out(draw) for draw in split.unbind(3)])

    def covariances_in(self, covariances: Tensor) -> Tensor:
        """``(P, T, G, K, K)`` -> ``(T, G * P, K, K)`` of the inner patterns."""
        if self.expand is not None:
            covariances = covariances.index_select(0, self.expand)
        return covariances.permute(1, 2, 0, 3, 4).flatten(1, 2)

    def planes_in(self, states: Tensor) -> Tensor:
        """``(B, T, D)`` -> ``(K, T, P, R, G)``."""
        if self.slots is not None:
            states = states.index_select(0, self.slots)
        return to_planes(states, self.n_patterns, self.group_size)

    def planes_out(self, planes: Tensor) -> Tensor:
        """``(K, T, P, R, G)`` -> ``(B, T, D)``."""
        states: Tensor = _FromPlanes.apply(planes)  # type: ignore[no-untyped-call]
        return states if self.positions is None else states.index_select(0, self.positions)

    def pattern_planes(self, planes: Tensor) -> Tensor:
        """Arrays of the covariance patterns ``(..., T, P, 1, G)`` for the inner patterns."""
        if self.expand is None or planes.shape[-3] == 1:
            return planes
        return planes.index_select(-3, self.expand)

    def slot_values(self, values: Tensor) -> Tensor:
        """Numbers of the slots ``(P, R)`` -> ``(B,)``."""
        flat = values.reshape(-1)
        return flat if self.positions is None else flat.index_select(0, self.positions)

    def series_sums(self, values: Tensor) -> Tensor:
        """Per-row numbers ``(T, G * P, R)`` summed over time and groups -> ``(B,)``."""
        summed = values.sum(0).reshape(self.n_groups, -1).sum(0)
        return summed if self.positions is None else summed.index_select(0, self.positions)


def pack(states: Tensor, n_patterns: int, size: int) -> Tensor:
    """``(P * R, T, G * K)`` -> ``(K, T, P, R, G)``, without gradient."""
    n_series, n_steps, dim = states.shape
    split = states.reshape(n_patterns, n_series // n_patterns, n_steps, dim // size, size)
    out = states.new_empty(size, n_steps, *split.shape[:2], dim // size)
    for k in range(size):
        out[k].copy_(split[..., k].permute(2, 0, 1, 3))
    return out


def unpack(planes: Tensor) -> Tensor:
    """Inverse of ``pack``."""
    size, n_steps, n_patterns, rows, groups = planes.shape
    out = planes.new_empty(n_patterns, rows, n_steps, groups, size)
    if size == 2 and planes.dtype in (torch.float32, torch.float64):
        # Pairs of numbers are complex numbers in memory: one interleaving pass.
        pairs = torch.view_as_complex(out).permute(2, 0, 1, 3)
        torch.complex(planes[0], planes[1], out=pairs)
        return out.reshape(n_patterns * rows, n_steps, groups * size)
    for k in range(size):
        out[..., k].copy_(planes[k].permute(1, 2, 0, 3))
    return out.reshape(n_patterns * rows, n_steps, groups * size)


class _ToPlanes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, n_patterns: int, size: int) -> Tensor:
        return pack(states, n_patterns, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return unpack(grad), None, None


class _FromPlanes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: Tensor) -> Tensor:
        ctx.sizes = planes.shape[2], planes.shape[0]
        return unpack(planes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return pack(grad, *ctx.sizes)


def to_planes(states: Tensor, n_patterns: int, size: int) -> Tensor:
    """``(P * R, T, G * K)`` -> ``(K, T, P, R, G)``."""
    planes: Tensor = _ToPlanes.apply(states, n_patterns, size)  # type: ignore[no-untyped-call]
    return planes


def matrix_planes_view(matrices: Tensor) -> Tensor:
    """``(P, T, G, K, K)`` -> ``(K, K, T, P, 1, G)`` (a view)."""
    return matrices.permute(3, 4, 1, 0, 2).unsqueeze(-2)


def matrices_out(planes: Tensor) -> Tensor:
    """``(K, K, T, P, 1, G)`` -> ``(P, T, G, K, K)`` (a view)."""
    return planes.squeeze(-2).permute(3, 2, 4, 0, 1)


def repeat_groups(matrices: Tensor, n_patterns: int) -> Tensor:
    """Repeat per-group arrays ``(G, ...)`` for every pattern: ``(G * P, ...)``."""
    shape = matrices.shape
    repeated = matrices.unsqueeze(1).expand(shape[0], n_patterns, *shape[1:])
    return repeated.reshape(shape[0] * n_patterns, *shape[1:])


def times_group(states: Tensor, matrices: Tensor) -> Tensor:
    """Rows ``(T, G * P, R, K)`` times the matrix ``(G, K, K)`` of their group, in one product."""
    if matrices.shape[0] == 1:
        return states @ matrices[0]
    split = states.unflatten(1, (matrices.shape[0], -1)).transpose(0, 1)  # (G, T, P, R, K)
    product = split.flatten(1, 3) @ matrices
    return product.unflatten(1, split.shape[1:4]).transpose(0, 1).flatten(1, 2)


def covariances_out(covariances: Tensor, n_groups: int) -> Tensor:
    """``(T, G * P, K, K)`` -> ``(P, T, G, K, K)`` (a view)."""
    return covariances.unflatten(1, (n_groups, -1)).permute(2, 0, 1, 3, 4)


def series_layout(
    n_series: int, n_patterns: int, pattern: Tensor | None, n_groups: int, group_size: int
) -> SeriesLayout:
    """Plan the arrangement of ``n_series`` series over ``n_patterns`` patterns.

    Raises
    ------
    ValueError
        If several patterns come without an index.
    """
    if n_patterns == 1:
        return SeriesLayout(n_groups, group_size, 1, n_series, None, None, None)
    if pattern is None:
        if n_patterns != n_series:
            raise ValueError(
                f"precision has {n_patterns} patterns for {n_series} series; give Potentials a "
                "`pattern` index of shape (B,), or 1 or B patterns."
            )
        return SeriesLayout(n_groups, group_size, n_series, 1, None, None, None)
    counts = torch.bincount(pattern, minlength=n_patterns)
    rows = int(counts.max())
    if n_patterns * rows > 4 * n_series:
        return SeriesLayout(n_groups, group_size, n_series, 1, None, None, pattern)
    order = torch.argsort(pattern, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.arange(n_series, device=pattern.device) - starts[pattern[order]]
    slot_of_sorted = pattern[order] * rows + rank
    positions = torch.empty_like(order)
    positions[order] = slot_of_sorted
    slots = torch.zeros(n_patterns * rows, dtype=torch.long, device=pattern.device)
    slots[positions] = torch.arange(n_series, device=pattern.device)
    return SeriesLayout(n_groups, group_size, n_patterns, rows, slots, positions, None)
