"""Training batches: windows of signals beside their clean targets and conditions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tsvae.training import WindowEpoch, WindowLoader

__all__ = ["SignalBatches"]


@dataclass
class SignalBatches:
    """Adds to the batches of a :class:`~tsvae.training.WindowLoader` what a denoiser needs.

    Parameters
    ----------
    loader : WindowLoader
        Its ``inputs``, if ``has_target``, are clean values and their mask, ``(N, T, 2 F)``.
    has_target : bool
    conditions : Tensor of shape (N, C) or None
        One row for each series.
    blind_spot : bool
        Ask for the hidden entries alone.
    """

    loader: WindowLoader
    has_target: bool
    conditions: Tensor | None
    blind_spot: bool

    def __call__(self, epoch: int, generator: torch.Generator) -> SignalEpoch:
        """Return the batches of an epoch."""
        return SignalEpoch(self, self.loader(epoch, generator))

    def complete(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add target, condition and what is asked for to a batch."""
        batch = dict(batch)
        n_features = batch["x"].shape[-1]
        if self.has_target:
            clean, known = batch.pop("inputs").split(n_features, dim=-1)
            batch |= {"target": clean, "target_mask": known > 0}
        if self.blind_spot:
            batch["asked"] = batch["mask"] & ~batch["visible"].expand_as(batch["mask"])
        if self.conditions is not None:
            device = batch["series"].device
            batch["condition"] = self.conditions.to(device)[batch["series"]]
        return batch


class SignalEpoch:
    """The batches of one epoch: an iterable with a length."""

    def __init__(self, batches: SignalBatches, epoch: WindowEpoch) -> None:
        self._batches, self._epoch = batches, epoch

    def __len__(self) -> int:
        return len(self._epoch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self._epoch:
            yield self._batches.complete(batch)
