"""Pass of a batch through a pair of models: codes of both sides, decoded to both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tsvae.models.outputs import ForwardResult
from tsvae.models.pair_parts import PairForward, check_pairs
from tsvae.models.vae import VAE

if TYPE_CHECKING:
    from tsvae.models.pair import PairVAE

__all__ = ["pair_pass"]


def pair_pass(
    model: PairVAE,
    a: Tensor,
    b: Tensor,
    masks: tuple[Tensor | None, Tensor | None],
    n_samples: int,
    n_pairs: int | None,
    generator: torch.Generator | None,
) -> PairForward:
    """Codes of both sides, each decoded to both; without a generator the posterior means."""
    n_pairs = check_pairs(n_pairs, len(a), len(b))
    results = []
    for side, x, mask in ((model.a, a, masks[0]), (model.b, b, masks[1])):
        codes = side.codes_of(side.posterior(side.features(x, mask)), n_samples, generator)
        results.append(ForwardResult(side.decode(codes.z).x_hat, *codes))
    first, second = results
    joined = n_pairs if model.stage == "joint" else 0
    again: list[Tensor | None] = [None, None]
    if model.stage == "joint" and model.cycle_weight:
        again = [
            _sent_round(first.z[n_pairs:], model.b),
            _sent_round(second.z[n_pairs:], model.a),
        ]
    return PairForward(
        first,
        second,
        model.b.decode(first.z[:joined]).x_hat,
        model.a.decode(second.z[:joined]).x_hat,
        *again,
    )


def _sent_round(z: Tensor, other: VAE) -> Tensor | None:
    """Posterior means (U, S, *latent) of codes decoded to the other side; None of no codes."""
    if not len(z):
        return None
    decoded = other.expected_values(other.decode(z).x_hat).flatten(0, 1)
    seen = torch.ones_like(decoded, dtype=torch.bool)
    mean = other.posterior(other.features(decoded, seen)).mu
    return mean.unflatten(0, z.shape[:2])
