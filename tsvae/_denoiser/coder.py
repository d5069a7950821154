"""The fitted model at work: batches of windows to codes, reconstructions and densities.

Short records run in float64. Longer ones, through convolutions, run in float32 in batches of one
size, filled up with zeros, so that a record's result does not depend on the records beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae._denoiser.completion import complete_records
from tsvae._records.tensors import filled_batch
from tsvae._records.working_copy import working_copy
from tsvae.training import pinned_threads, resolve_device

__all__ = ["Coder", "possible_codes"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_VALUES_PER_BATCH = 2**15
_SMALLEST_BATCH, _LARGEST_BATCH = 8, 64


@dataclass(frozen=True, eq=False)
class Coder:
    """Batched passes of a model, in model units.

    Attributes
    ----------
    model : BaseAutoencoder
        Built, on the CPU.
    device : str
    n_threads : int or None
    double : bool
        Compute in float64.
    gapless : bool, default=False
        Whether the model has never seen a gap: it then fills gaps before it reads records.
    """

    model: Any
    device: str
    n_threads: int | None
    double: bool
    gapless: bool = False

    @property
    def batch_size(self) -> int:
        """Records at once."""
        steps, features = self.model.record_shape
        size = _VALUES_PER_BATCH // (steps * features)
        return int(np.clip(size, _SMALLEST_BATCH, _LARGEST_BATCH))

    @contextmanager
    def _ready(self) -> Iterator[Any]:
        device = resolve_device(self.device)
        double = self.double and device.type != "mps"
        dtype = torch.float64 if double else torch.float32
        if hasattr(self.model, "fit_prior"):  # tables that are no tensors of the model
            model = copy.deepcopy(self.model).to(device, dtype).eval()
        else:
            model = working_copy(self.model, device, dtype)
        with pinned_threads(self.n_threads), torch.no_grad():
            yield model

    def _batches(
        self, function: Callable[..., Tensor], model: Any, arrays: list[NDArray[Any] | None]
    ) -> Array:
        """Apply a function of tensors to equal batches of the arrays' first axis."""
        like = next(model.parameters())
        first = next(array for array in arrays if array is not None)
        size, parts = self.batch_size, []
        for begin in range(0, len(first), size):
            tensors = [
                None if array is None else filled_batch(array[begin : begin + size], size, like)
                for array in arrays
            ]
            result = function(*tensors)[: len(first) - begin]
            parts.append(result.detach().cpu().to(torch.float64).numpy())
        return np.concatenate(parts) if parts else np.zeros((0,))

    def _readable(
        self, model: Any, x: Tensor, seen: Tensor, given: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Give records as the model can read them."""
        some = seen.any(2).any(1).view(-1, 1, 1)  # others are empty, or fill up a batch
        if not self.gapless or torch.equal(seen, some.expand_as(seen)):
            return x, seen
        whole = complete_records(model, x, seen, _condition(given))
        return torch.where(some, whole, x), some.expand_as(seen)

    def codes(self, values: Array, mask: Mask, condition: Array | None) -> Array:
        """Posterior means, flat, ``(N, n_latent)``."""
        with self._ready() as model:

            def encode(x: Tensor, seen: Tensor, given: Tensor | None) -> Tensor:
                found = model.encode(*self._readable(model, x, seen, given), **_condition(given))
                codes = possible_codes(model, found.mu[:, 0])
                return model.flatten_codes(codes)  # type: ignore[no-any-return]

            return self._batches(encode, model, [values, mask, condition])

    def posterior(self, values: Array, mask: Mask, condition: Array | None) -> Array:
        """Posterior means and log-variances, ``(N, 2, n_latent)``; -inf without a posterior."""
        with self._ready() as model:

            def encode(x: Tensor, seen: Tensor, given: Tensor | None) -> Tensor:
                found = model.encode(*self._readable(model, x, seen, given), **_condition(given))
                mu = model.flatten_codes(possible_codes(model, found.mu[:, 0]))
                log_var = torch.full_like(mu, -torch.inf)
                if found.log_var is not None:
                    log_var = model.flatten_codes(found.log_var[:, 0])
                return torch.stack((mu, log_var), dim=1)

            return self._batches(encode, model, [values, mask, condition])

    def kl_per_dimension(self, values: Array, mask: Mask, condition: Array | None) -> Array:
        """Return the KL of each code entry in nats, mean over records, by the model's own prior."""
        size, total = self.batch_size, np.zeros(self.model.n_latent)
        with self._ready() as model:
            like = next(model.parameters())
            for begin in range(0, len(values), size):
                part = slice(begin, begin + size)
                x, seen, given = (
                    None if array is None else filled_batch(array[part], len(array[part]), like)
                    for array in (values, mask, condition)
                )
                found = model.kl_per_dimension(x, seen, **_condition(given)).flatten()
                total += len(values[part]) * found.cpu().to(torch.float64).numpy()
        return total / len(values)

    def decode(self, codes: Array, condition: Array | None) -> Array:
        """Decode flat codes, or the nearest possible ones, to expected values, ``(N, W, F)``."""
        with self._ready() as model:

            def decode(z: Tensor, given: Tensor | None) -> Tensor:
                z = possible_codes(model, model.unflatten_codes(z))
                x_hat = model.decode(z, **_condition(given)).x_hat
                return model.expected_values(x_hat)  # type: ignore[no-any-return]

            return self._batches(decode, model, [codes, condition])

    def reconstruct(self, values: Array, mask: Mask, condition: Array | None) -> Array:
        """Decode the posterior means to expected values, ``(N, W, F)``."""
        with self._ready() as model:

            def reconstruct(x: Tensor, seen: Tensor, given: Tensor | None) -> Tensor:
                x, seen = self._readable(model, x, seen, given)
                x_hat = model(x, mask=seen, **_condition(given)).x_hat[:, 0]
                return model.expected_values(x_hat)  # type: ignore[no-any-return]

            return self._batches(reconstruct, model, [values, mask, condition])

    def log_prob(self, values: Array, mask: Mask, hidden: Mask, condition: Array | None) -> Array:
        """Log density of hidden entries given the others, ``(N, W, F)``; 0 elsewhere."""
        with self._ready() as model:

            def surprise(x: Tensor, seen: Tensor, asked: Tensor, given: Tensor | None) -> Tensor:
                asked = asked & seen
                whole, read = self._readable(model, x, seen & ~asked, given)
                x_hat = model(whole, mask=read, **_condition(given)).x_hat
                return model.observation.log_prob(x, x_hat, asked)[:, 0]  # type: ignore[no-any-return]

            return self._batches(surprise, model, [values, mask, hidden, condition])

    def reconstruction_log_prob(self, values: Array, mask: Mask, condition: Array | None) -> Array:
        """Log density of observed entries at the posterior mean, ``(N, W, F)``."""
        with self._ready() as model:

            def density(x: Tensor, seen: Tensor, given: Tensor | None) -> Tensor:
                whole, read = self._readable(model, x, seen, given)
                x_hat = model(whole, mask=read, **_condition(given)).x_hat
                return model.observation.log_prob(x, x_hat, seen)[:, 0]  # type: ignore[no-any-return]

            return self._batches(density, model, [values, mask, condition])

    def log_density(
        self, values: Array, mask: Mask, condition: Array | None, n_samples: int
    ) -> Array:
        """Importance-weighted bound on each record's log density, ``(N,)``."""
        if not hasattr(self.model, "importance_weighted_bound"):
            return self.reconstruction_log_prob(values, mask, condition).sum(axis=(1, 2))
        with self._ready() as model:

            def bound(x: Tensor, seen: Tensor, given: Tensor | None) -> Tensor:
                # A fresh generator: common random numbers for all records and calls.
                return model.importance_weighted_bound(  # type: ignore[no-any-return]
                    x, n_samples, seen, torch.Generator().manual_seed(0), **_condition(given)
                )

            return self._batches(bound, model, [values, mask, condition])

    def sample_prior(self, n: int, seed: int) -> Array:
        """Flat codes drawn from the prior, ``(n, n_latent)``."""
        with self._ready() as model:
            z = model.sample_prior(n, torch.Generator().manual_seed(seed))
            codes: Array = model.flatten_codes(z).cpu().to(torch.float64).numpy()
            return codes


def possible_codes(model: Any, codes: Tensor) -> Tensor:
    """Codes that records can have: those of a codebook, where the model has one."""
    return model.quantise(codes) if hasattr(model, "codebook") else codes  # type: ignore[no-any-return]


def _condition(given: Tensor | None) -> dict[str, Tensor]:
    return {} if given is None else {"condition": given}
