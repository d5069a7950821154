"""Training batches of paired and unpaired samples of two sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PairBatches", "SideData"]


@dataclass(frozen=True, eq=False)
class SideData:
    """Records of one side in model units.

    Attributes
    ----------
    values : Tensor of shape (N, W, F)
        0 where missing.
    mask : Tensor of bool of shape (N, W, F)
    weight : Tensor of shape (N or 1, W, F)
        Of entries in the loss.
    noise : Tensor of shape (W, F) or None, default=None
        Standard deviation of what is added to training inputs.
    """

    values: Tensor
    mask: Tensor
    weight: Tensor
    noise: Tensor | None = None

    def rows(self, chosen: Tensor, name: str) -> dict[str, Tensor]:
        """Part of a batch: the chosen records."""
        weight = self.weight if len(self.weight) == 1 else self.weight[chosen]
        return {
            name: self.values[chosen],
            f"mask_{name}": self.mask[chosen],
            f"weight_{name}": weight,
        }

    def noisy(self, chosen: Tensor, name: str, generator: torch.Generator) -> dict[str, Tensor]:
        """Part of a training batch: the chosen records, and with noise what is encoded."""
        part = self.rows(chosen, name)
        if self.noise is None:
            return part
        x = part[name]
        drawn = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
        return part | {f"input_{name}": x + self.noise.to(x) * drawn}


@dataclass(frozen=True, eq=False)
class PairBatches:
    """Source of random batches; an epoch has a fixed number of them.

    Parameters
    ----------
    a, b : SideData
        Both with a row for each sample.
    pairs, only_a, only_b : Tensor of int
        Rows of samples with both sides, and with one.
    batch_size : int
        Samples of each side.
    n_batches : int
        Of an epoch.
    paired_share : float
        Part of a batch that is paired, where there are unpaired samples: two samples or more, and
        one less than all, as far as the size allows.
    """

    a: SideData
    b: SideData
    pairs: Tensor
    only_a: Tensor
    only_b: Tensor
    batch_size: int
    n_batches: int
    paired_share: float

    def __call__(self, epoch: int, generator: torch.Generator) -> _Epoch:
        """Return the batches of an epoch."""
        return _Epoch(self, generator)

    @property
    def n_paired(self) -> int:
        """Pairs in each batch."""
        if not len(self.only_a) and not len(self.only_b):
            return self.batch_size
        return max(2, min(round(self.paired_share * self.batch_size), self.batch_size - 1))

    def draw(self, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
        """Generate the batches of an epoch."""
        n_pairs = self.n_paired
        rest = self.batch_size - n_pairs
        paired = _endless(self.pairs, n_pairs, generator)
        first = _endless(self.only_a, rest, generator)
        second = _endless(self.only_b, rest, generator)
        for _ in range(self.n_batches):
            both = next(paired)
            yield (
                self.a.noisy(torch.cat([both, next(first)]), "a", generator)
                | self.b.noisy(torch.cat([both, next(second)]), "b", generator)
                | {"n_pairs": torch.tensor(len(both))}
            )


class _Epoch:
    """The batches of one epoch: an iterable with a length."""

    def __init__(self, batches: PairBatches, generator: torch.Generator) -> None:
        self._batches, self._generator = batches, generator

    def __len__(self) -> int:
        return self._batches.n_batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self._batches.draw(self._generator)


def _endless(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows in random order, ``size`` at a time, each as often as the others; none of no rows."""
    waiting = rows[:0]
    size = min(size, len(rows)) if len(rows) else 0
    while True:
        while len(waiting) < size:
            order = torch.randperm(len(rows), generator=generator, device=generator.device)
            waiting = torch.cat([waiting, rows[order.to(rows.device)]])
        yield waiting[:size]
        waiting = waiting[size:]
