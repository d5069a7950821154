"""The fitted pair at work: batches of records of one side to codes and to the other side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae._records.tensors import filled_batch
from tsvae._records.working_copy import working_copy
from tsvae.models.pair import PairVAE
from tsvae.training import pinned_threads, resolve_device

__all__ = ["SideName", "Translator", "other_side"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
SideName = Literal["a", "b"]

_VALUES_PER_BATCH = 2**15
_SMALLEST_BATCH, _LARGEST_BATCH = 8, 64
_LARGEST_DRAWN = 512  # codes at once when many are drawn for each record
_SHORT_FOR_DOUBLE = 32  # steps; longer records run in float32


def other_side(side: SideName) -> SideName:
    """Name of the other side."""
    return "b" if side == "a" else "a"


@dataclass(frozen=True, eq=False)
class Translator:
    """Batched passes of a pair of models, in model units.

    Records run in batches of one size, filled up with zeros, so that a record's result does not
    depend on the records beside it.

    Attributes
    ----------
    model : PairVAE
        Built, on the CPU.
    device : str
    n_threads : int or None
    """

    model: PairVAE
    device: str
    n_threads: int | None

    @cached_property
    def _copy(self) -> PairVAE:
        """The model on the device, in the precision of use; one copy for all passes."""
        device = resolve_device(self.device)
        steps = max(self.model.a.record_shape[0], self.model.b.record_shape[0])
        double = steps < _SHORT_FOR_DOUBLE and device.type != "mps"
        return working_copy(self.model, device, torch.float64 if double else torch.float32)

    @contextmanager
    def _ready(self) -> Iterator[PairVAE]:
        with pinned_threads(self.n_threads), torch.no_grad():
            yield self._copy

    def _batches(
        self,
        function: Callable[..., Tensor],
        model: PairVAE,
        *arrays: NDArray[Any],
        size: int | None = None,
    ) -> Array:
        """Apply a function of tensors to equal batches of the arrays' first axis."""
        like = next(model.parameters())
        if size is None:
            largest = max(array[0].size for array in arrays) if len(arrays[0]) else 1
            size = int(np.clip(_VALUES_PER_BATCH // largest, _SMALLEST_BATCH, _LARGEST_BATCH))
        parts = []
        for begin in range(0, len(arrays[0]), size):
            tensors = [filled_batch(array[begin : begin + size], size, like) for array in arrays]
            result = function(*tensors)[: len(arrays[0]) - begin]
            parts.append(result.detach().cpu().to(torch.float64).numpy())
        return np.concatenate(parts) if parts else np.zeros((0,))

    def posterior(self, values: Array, mask: Mask, side: SideName) -> Array:
        """Means and log-variances of codes, flat, ``(N, 2, n_latent)``."""
        with self._ready() as model:
            own = model.side(side)

            def encode(x: Tensor, seen: Tensor) -> Tensor:
                found = own.posterior(own.features(x, seen))
                return torch.stack([own.flatten_codes(part) for part in found], dim=1)

            return self._batches(encode, model, values, mask)

    def decode(self, codes: Array, side: SideName) -> Array:
        """Return expected values (..., W, F) of a side at flat codes (..., n_latent)."""
        leading, size = codes.shape[:-1], None
        if len(leading) > 1:
            steps, features = self.model.side(side).record_shape
            many = _VALUES_PER_BATCH // (steps * features)
            size = int(np.clip(many, _LARGEST_BATCH, _LARGEST_DRAWN))
        with self._ready() as model:
            own = model.side(side)

            def decode(z: Tensor) -> Tensor:
                return own.expected_values(own.decode(own.unflatten_codes(z)).x_hat)

            found = self._batches(decode, model, codes.reshape(-1, codes.shape[-1]), size=size)
        return found.reshape(*leading, *self.model.side(side).record_shape)

    def draws(self, posterior: Array, side: SideName, noise: Array) -> Array:
        """Return expected values of a side at codes drawn from posteriors.

        Parameters
        ----------
        posterior : ndarray of shape (N, 2, n_latent)
        side : {"a", "b"}
            To decode to.
        noise : ndarray of shape (S, 1 or N, n_latent)
            Standard normal.

        Returns
        -------
        ndarray of shape (S, N, W, F)
        """
        codes = posterior[:, 0] + np.exp(0.5 * posterior[:, 1]) * noise
        return self.decode(codes, side)
