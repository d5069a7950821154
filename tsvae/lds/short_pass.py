r"""One pass over short chains: the joint precision of a group as one matrix.

Where T K is a few tens, one Cholesky factor of the whole :math:`H` (module ``joint_elimination``)
costs less than T steps in turn, whose arithmetic is nothing and whose calls are everything. Its
inverse holds every smoothed moment,

.. math:: \bar\delta = H^{-1} r, \qquad dH^{-1} = -H^{-1}\,dH\,H^{-1}, \qquad
          d\log|H| = tr(H^{-1}\,dH).

Filtered moments, where asked for, are those of ``JointPass``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.joint_elimination import JointPrecision
from tsvae.lds.joint_pass import JointPass, recorded
from tsvae.lds.linalg import safe_cholesky, symmetrize


class Inverse(NamedTuple):
    """``H^-1 (N, T K, T K)`` in the precision of the states, ``log |H| (N,)`` in float64."""

    inverse: Tensor
    log_det: Tensor


class ShortPass(JointPass):
    """Moments of a pass over short chains; see ``JointPass``."""

    def log_det(self) -> Tensor:
        """Sum of ``log |I + P_t Lambda_t|``, (P,)."""
        return self._pattern_log_det(self._inverse.log_det)

    def smoothed_covariance(self) -> Tensor:
        """Covariances given all potentials, (P, T, G, K, K)."""
        return self._blocks(0)

    def cross_covariance(self) -> Tensor:
        """Cov(z_t, z_{t+1}), (P, T-1, G, K, K)."""
        return self._blocks(1)

    def potential_spread(self) -> Tensor:
        """``sum_t,g tr(Lambda S)`` of the potentials alone and smoothed covariances, (P,)."""
        potential = self.precision.potential
        if self.diagonal:
            diagonal = self._inverse.inverse.diagonal(dim1=-2, dim2=-1)
            terms = (potential.transpose(0, 1).flatten(1) * diagonal).sum(1)
            return terms.unflatten(0, (self.params.n_groups, -1)).sum(0)
        covariance = self._blocks(0).permute(1, 2, 0, 3, 4).flatten(1, 2)
        terms = (potential * covariance).sum((0, 2, 3))
        return terms.unflatten(0, (self.params.n_groups, -1)).sum(0)

    def _blocks(self, offset: int) -> Tensor:
        steps = self.precision.followed.shape[0]
        blocks = step_blocks(self._inverse.inverse, steps, offset)
        groups = self.params.n_groups
        return blocks.unflatten(0, (groups, -1)).permute(1, 4, 0, 2, 3)

    def _expect_smoother(self) -> None:
        pass  # one inverse holds it all

    def _solve(self, right: Tensor) -> Tensor:
        rows = right.permute(1, 2, 0, 3)
        found = rows.flatten(2) @ self._wide_inverse
        return found.unflatten(2, rows.shape[2:]).permute(2, 0, 1, 3)

    @recorded
    def _wide_inverse(self) -> Tensor:
        inverse = self._inverse.inverse
        if self.layout.expand is None:
            return inverse
        split = inverse.unflatten(0, (self.params.n_groups, -1))
        return split.index_select(1, self.layout.expand).flatten(0, 1)

    @recorded
    def _inverse(self) -> Inverse:
        return Inverse(*_Invert.apply(*self.precision))  # type: ignore[no-untyped-call]


def step_blocks(matrices: Tensor, steps: int, offset: int = 0) -> Tensor:
    """View blocks (t - offset, t) of ``(N, T K, T K)`` as ``(N, K, K, T)``."""
    n, size = matrices.shape[0], matrices.shape[1] // steps
    return matrices.view(n, steps, size, steps, size).diagonal(offset, dim1=1, dim2=3)


class _Invert(torch.autograd.Function):
    """Inverse and log-determinant of H, worked out in float64."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        given = JointPrecision(*inputs)
        total = _assemble(given)
        root, failed = torch.linalg.cholesky_ex(total)
        if bool(failed.any()):
            root = safe_cholesky(total + total.tril(-1).mT)
        inverse = torch.cholesky_inverse(root).to(given.potential.dtype)
        ctx.save_for_backward(*inputs[-2:], inverse)
        ctx.groups = given.arriving.shape[0]
        ctx.set_materialize_grads(False)
        return inverse, 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_inverse: Tensor | None, grad_log_det: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        followed, potential, inverse = ctx.saved_tensors
        steps = followed.shape[0]
        total = torch.zeros_like(inverse)
        if grad_log_det is not None:
            total = inverse * grad_log_det.to(inverse.dtype)[:, None, None]
        if grad_inverse is not None:
            total = torch.baddbmm(total, inverse @ symmetrize(grad_inverse), inverse, alpha=-1.0)
        own = step_blocks(total, steps)
        coupling = step_blocks(total, steps, -1).sum(-1).mul_(-2.0)
        inner = own[..., :-1].sum(-1)
        excess = own @ followed.mT[:, None, :, None].to(own.dtype)
        every = inner + own[..., -1]
        sums = (own[..., 0], every - own[..., 0], coupling, inner, excess.squeeze(-1))
        grads = [x.double().unflatten(0, (ctx.groups, -1)).sum(1) for x in sums]
        if potential.ndim == 3:
            diagonal = total.diagonal(dim1=-2, dim2=-1).unflatten(1, (steps, -1))
            return (*grads, None, diagonal.transpose(0, 1))
        return (*grads, None, own.permute(3, 0, 1, 2))


def _assemble(given: JointPrecision) -> Tensor:
    """Lower triangle of H, ``(N, T K, T K)`` in float64."""
    steps, n = given.followed.shape
    groups, size, _ = given.arriving.shape
    initial, arriving, coupling, leaving, excess = (
        part.repeat_interleave(n // groups, dim=0) for part in given[:5]
    )
    total = arriving.new_zeros(n, steps * size, steps * size)
    own = step_blocks(total, steps)
    own.copy_((arriving + leaving).unsqueeze(-1))
    own[..., 0] += initial - arriving
    own[..., -1] -= leaving
    followed = given.followed.mT[:, None, None].to(own.dtype)
    own.addcmul_(excess.unsqueeze(-1), followed)
    step_blocks(total, steps, -1).copy_(coupling.neg().unsqueeze(-1))
    if given.potential.ndim == 3:
        total.diagonal(dim1=-2, dim2=-1).add_(given.potential.transpose(0, 1).flatten(1))
    else:
        own.add_(given.potential.permute(1, 2, 3, 0))
    return total
