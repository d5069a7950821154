"""What the joint precision of all states takes from the parameters: inverses and the mean path."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.layout import SeriesLayout, repeat_groups
from tsvae.lds.linalg import identity_like
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.scans import affine_scan

# Q and Sigma_0 whose least pivot is a smaller share of their largest entry are left to the
# covariance recursion, which needs no inverse of either.
LEAST_PIVOT = 1e-8


class Prior(NamedTuple):
    """Initial, arriving, coupling, leaving blocks, and the log-determinant of all."""

    blocks: tuple[Tensor, Tensor, Tensor, Tensor]
    log_det: Tensor


def prior_precisions(params: LDSParameters, n_steps: int) -> Prior | None:
    """Invert the covariances of the prior; None if one is too close to singular."""
    wide = torch.stack((params.initial_covariance, params.noise_covariance)).double()
    root, failed = torch.linalg.cholesky_ex(wide)
    pivots = root.diagonal(dim1=-2, dim2=-1)
    largest = wide.detach().diagonal(dim1=-2, dim2=-1).amax(-1)
    sound = (failed == 0) & (pivots.detach().amin(-1).square() >= LEAST_PIVOT * largest)
    if not bool(sound.all()):
        return None
    # A LAPACK inverse from the factor takes several times as long.
    half = torch.linalg.solve_triangular(root, identity_like(root), upper=False)
    initial, arriving = (half.mT @ half).unbind(0)
    first, later = 2.0 * pivots.log().sum((1, 2))
    a = params.transition_matrix.double()
    coupling = arriving @ a
    leaving = a.mT @ coupling
    return Prior((initial, arriving, coupling, leaving), -(first + (n_steps - 1) * later))


def prior_path(params: LDSParameters, drift: Tensor, layout: SeriesLayout) -> tuple[Tensor, Tensor]:
    """Mean path of the prior and the drift, per group or per series."""
    groups, size = params.n_groups, params.group_size
    if drift.shape[0] == 1:
        moves = drift[0].unflatten(1, (groups, 1, size))
        start, a = params.initial_mean.unsqueeze(1), params.transition_matrix
    else:
        moves = layout.states_in(drift)
        start = repeat_groups(params.initial_mean, layout.n_patterns).unsqueeze(1)
        a = repeat_groups(params.transition_matrix, layout.n_patterns)
    constants = torch.cat((start.expand_as(moves[:1]), moves[1:]))
    if not constants.requires_grad and not bool(constants.any()):
        return constants, moves  # at zero it stays
    return affine_scan(a.expand(len(moves), *a.shape), constants), moves


def potential_in(precision: Tensor, params: LDSParameters) -> Tensor:
    """``(P, T, D)`` -> ``(T, N, K)``; blocks -> ``(T, N, K, K)``."""
    groups, size = params.n_groups, params.group_size
    if precision.ndim == 3:
        split = precision.unflatten(2, (groups, size)).permute(1, 2, 0, 3)
        return split.flatten(1, 2)
    return precision.permute(1, 2, 0, 3, 4).flatten(1, 2)
