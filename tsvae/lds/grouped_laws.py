r"""Laws of every state given the next one, for groups of one or two (see ``grouped_chains``).

Component-first arrays (module ``components``) whose rows are the series: matrices
``(K, K, T, 1, P, G)``, symmetric ones by their distinct entries ``(2 K - 1, T, 1, P, G)``.

Laws are worked out in float64 and kept in the precision of the states: where noise is small, Q^-1
and A'Q^-1 A are large beside what a state is known by.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.components import (
    by_blocks,
    distinct,
    odds,
    posterior_entries,
    root_entries,
    steps,
    times_matrix,
    times_vector,
    whole,
)
from tsvae.lds.host_prior import HostPrior
from tsvae.lds.natural_factor import Array, to_device
from tsvae.lds.recursions import riccati


def planes(matrices: Array, like: Tensor) -> Tensor:
    """``(G, K, ...)`` -> ``(K, ..., 1, 1, 1, G)``."""
    found = to_device(matrices, like).movedim(0, -1).contiguous()
    return found.view(*found.shape[:-1], 1, 1, 1, found.shape[-1])


class Pull(NamedTuple):
    """What the excess of expected parameters adds to the information about states: W and s."""

    weight: Tensor
    shift: Tensor

    def on(self, states: Tensor) -> Tensor:
        """``s - W z`` of states with a successor."""
        return self.shift - times_vector(self.weight, states)


def excess_pull(prior: HostPrior, like: Tensor) -> Pull | None:
    """W and s as planes; None for plug-in parameters."""
    given, size = prior.given.excess, prior.start.shape[1]
    if given is None:
        return None
    return Pull(planes(given[:, :size, :size], like), planes(-given[:, :size, size], like))


class Laws(NamedTuple):
    """Laws N(G z', V) of a state given the next one, V = R R'.

    Attributes
    ----------
    covariance, root : Tensor (2 K - 1, T, 1, P, G)
        Distinct entries of V and of R.
    gain : Tensor (K, K, T-1, 1, P, G)
    log_det : Tensor (1, T, 1, P, 1)
        ``log |I + P (Lambda + f W)|`` of the filter, summed over groups.
    """

    covariance: Tensor
    root: Tensor
    gain: Tensor
    log_det: Tensor


def find_laws(prior: HostPrior, potential: Tensor) -> Laws:
    """Laws of every state given the next one; ``potential`` (K, T, 1, P, G)."""
    given, like = prior.given, potential
    wide = torch.empty(0, dtype=torch.float64, device=like.device)
    size, n_steps = potential.shape[:2]
    total = potential.new_zeros(2 * size - 1, *potential.shape[1:])
    total[::2].copy_(potential)
    stay = prior.leaving
    if given.excess is not None:
        weight = given.excess[:, :size, :size]
        steps(total, 0, -1).add_(distinct(planes(weight, like)))
        stay = stay - weight
    matrices = (given.transition_matrix, given.noise_covariance, given.initial_covariance)
    transition, noise, initial = (planes(x, like) for x in matrices)
    # There, patterns are on the axis before.
    by_pattern = whole(total).transpose(-3, -2)
    ahead = riccati(transition, noise, initial, by_pattern).transpose(-3, -2)
    covariance, root = torch.empty_like(total), torch.empty_like(total)
    log_det = total.new_empty(*total.shape[1:-1], 1)
    last = _laws(steps(ahead, -1), steps(total, -1), None)
    for target, part in zip((covariance, root, log_det), last, strict=True):
        steps(target, -1).copy_(part)
    gain = total.new_empty(size, size, n_steps - 1, *total.shape[2:])
    if n_steps > 1:
        by_blocks(
            _laws,
            steps(ahead, 0, -1),
            steps(total, 0, -1),
            distinct(planes(stay, wide)),
            planes(prior.coupling.swapaxes(1, 2), wide),
            into=(*(steps(x, 0, -1) for x in (covariance, root, log_det)), gain),
        )
    return Laws(covariance, root, gain, log_det)


def _laws(
    ahead: Tensor, total: Tensor, stay: Tensor | None, pull: Tensor | None = None
) -> tuple[Tensor, ...]:
    """V, R, the log-determinant and, for steps with a successor, the gain."""
    ahead, total = ahead.double(), total.double()
    log_det = torch.log1p(odds(ahead, whole(total)).total).sum(-1, keepdim=True)
    found = posterior_entries(ahead, whole(total if stay is None else total + stay))
    laws = found, root_entries(found), log_det
    return laws if pull is None else (*laws, times_matrix(whole(found), pull))
