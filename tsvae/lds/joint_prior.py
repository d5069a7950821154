"""What the joint precision of all states takes from the parameters: inverses and the mean path."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.layout import SeriesLayout, repeat_groups
from tsvae.lds.linalg import identity_like, symmetrize
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.scans import affine_scan

# Q and Sigma_0 whose least pivot is a smaller share of their largest entry are left to the
# covariance recursion, which needs no inverse of either.
LEAST_PIVOT = 1e-8
# Gradients by Q are sums that Q^-1 multiplies twice, after they have all but cancelled. From these
# Frobenius norms of Q^-1 on, float32 loses a hundredth of them: in sums over states, and in
# covariances.
SUMS_PRECISION = 10.0
COVARIANCES_PRECISION = 300.0


class Prior(NamedTuple):
    """Inverses of the prior's covariances, float64.

    Attributes
    ----------
    blocks : tuple of Tensor (G, K, K)
        Initial, arriving, coupling and leaving blocks.
    roots : tuple of Tensor (G, K, K)
        R with ``R'R`` the initial and the arriving block.
    log_det : Tensor
        log-determinant of the prior's joint precision, all groups'.
    """

    blocks: tuple[Tensor, Tensor, Tensor, Tensor]
    roots: tuple[Tensor, Tensor]
    log_det: Tensor


def prior_precisions(params: LDSParameters, n_steps: int) -> Prior | None:
    """Invert the covariances of the prior; None if one is too close to singular."""
    wide = torch.stack((params.initial_covariance, params.noise_covariance)).double()
    roots, failed = _InverseRoot.apply(wide)  # type: ignore[no-untyped-call]
    shares = roots.diagonal(dim1=-2, dim2=-1)
    largest = wide.detach().diagonal(dim1=-2, dim2=-1).amax(-1)
    # A pivot's root is one over the entry of the factor's inverse.
    sound = (failed == 0) & (shares.detach().amax(-1).square() * largest * LEAST_PIVOT <= 1.0)
    if not bool(sound.all()):
        return None
    initial, arriving = (roots.mT @ roots).unbind(0)
    first, later = 2.0 * shares.log().sum((1, 2))
    a = params.transition_matrix.double()
    coupling = arriving @ a
    blocks = initial, arriving, coupling, a.mT @ coupling
    return Prior(blocks, roots.unbind(0), first + (n_steps - 1) * later)


class _InverseRoot(torch.autograd.Function):
    r"""Inverse R of a Cholesky factor, ``R'R = X^-1``, and LAPACK's word on failure.

    :math:`dR = -\Phi(R\,dX\,R')R` with :math:`\Phi` the lower triangle and half the diagonal.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> tuple[Tensor, Tensor]:
        factor, failed = torch.linalg.cholesky_ex(matrix)
        eye = identity_like(factor).expand_as(factor)
        root = torch.linalg.solve_triangular(factor, eye, upper=False)
        ctx.save_for_backward(root)
        ctx.mark_non_differentiable(failed)
        return root, failed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> Tensor:
        (root,) = ctx.saved_tensors
        inner = (grad @ root.mT).tril_()
        inner.diagonal(dim1=-2, dim2=-1).mul_(0.5)
        return -symmetrize(root.mT @ inner @ root)


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
