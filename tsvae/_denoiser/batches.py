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
    resample_noise : bool
        Exchange the noise, signal minus target, among the records of a batch.
    """

    loader: WindowLoader
    has_target: bool
    conditions: Tensor | None
    blind_spot: bool
    resample_noise: bool = False

    def __call__(self, epoch: int, generator: torch.Generator) -> SignalEpoch:
        """Return the batches of an epoch."""
        return SignalEpoch(self, self.loader(epoch, generator), generator)

    def complete(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Add target, condition and what is asked for to a batch."""
        batch = dict(batch)
        n_features = batch["x"].shape[-1]
        if "target" in batch:  # the values without the augmentation's noise
            batch["target_mask"] = batch["mask"]
        if self.has_target:
            clean, known = batch.pop("inputs").split(n_features, dim=-1)
            batch |= {"target": clean, "target_mask": known > 0}
            if self.resample_noise:
                batch |= _with_other_noise(batch, generator)
        if self.blind_spot:
            batch["asked"] = batch["mask"] & ~batch["visible"].expand_as(batch["mask"])
        if self.conditions is not None:
            device = batch["series"].device
            batch["condition"] = self.conditions.to(device)[batch["series"]]
        return batch


class SignalEpoch:
    """The batches of one epoch: an iterable with a length."""

    def __init__(
        self, batches: SignalBatches, epoch: WindowEpoch, generator: torch.Generator
    ) -> None:
        self._batches, self._epoch, self._generator = batches, epoch, generator

    def __len__(self) -> int:
        return len(self._epoch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self._epoch:
            yield self._batches.complete(batch, self._generator)


def _with_other_noise(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Clean targets with the noise and the gaps of other records of the batch."""
    x, clean, known = batch["x"], batch["target"], batch["target_mask"]
    noise = torch.where(batch["mask"] & known, x - clean, torch.zeros_like(x))
    order = torch.randperm(len(x), generator=generator, device=generator.device).to(x.device)
    mask = (batch["mask"] & known)[order] & known
    noisy = torch.where(mask, clean + noise[order], torch.zeros_like(x))
    # A record without a common entry keeps its own noise.
    own = ~mask.any(dim=(1, 2), keepdim=True)
    mask = torch.where(own, batch["mask"], mask)
    return {"x": torch.where(own, x, noisy), "mask": mask, "visible": mask}
