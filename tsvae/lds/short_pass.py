r"""One pass over short chains: the joint precision of a group as one matrix.

Where T K is a few tens, one Cholesky factor of the whole :math:`H` (module ``joint_covariances``)
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
        steps, n, size = self._sizes
        split = self._inverse.inverse.view(n, steps, size, steps, size)
        blocks = split.diagonal(offset, dim1=1, dim2=3)  # (N, K, K, T)
        groups = self.params.n_groups
        return blocks.unflatten(0, (groups, -1)).permute(1, 4, 0, 2, 3)

    def _solve(self, right: Tensor) -> Tensor:
        rows = right.permute(1, 2, 0, 3)
        found = rows.flatten(2) @ self._wide_inverse
        return found.unflatten(2, rows.shape[2:]).permute(2, 0, 1, 3)

    @property
    def _sizes(self) -> tuple[int, int, int]:
        steps, n = self.precision.followed.shape
        return steps, n, self.params.group_size

    @recorded
    def _wide_inverse(self) -> Tensor:
        inverse = self._inverse.inverse
        if self.layout.expand is None:
            return inverse
        split = inverse.unflatten(0, (self.params.n_groups, -1))
        return split.index_select(1, self.layout.expand).flatten(0, 1)

    @recorded
    def _inverse(self) -> Inverse:
        steps, n, size = self._sizes
        blocks, groups = self.precision, self.params.n_groups
        clock = torch.eye(steps, dtype=torch.float64, device=blocks.arriving.device)
        first, last = clock[0].diag(), clock[-1].diag()
        ahead = torch.diag(clock.new_ones(steps - 1), -1)
        where = torch.stack((first, clock - first, -ahead, clock - last))
        parts = torch.stack(blocks[:4])
        total = torch.einsum("atu,agij->gtiuj", where, parts)
        total = total - torch.einsum("ut,gji->gtiuj", ahead, blocks.coupling)
        total = total.reshape(groups, 1, steps * size, steps * size)
        if self.params.excess is not None:
            followed = blocks.followed.unflatten(1, (groups, -1)).double()
            if bool((followed == followed[:, :, :1]).all()):
                followed = followed[:, :, :1]
            spread = torch.einsum("tgp,tu,gij->gptiuj", followed, clock, blocks.excess)
            total = total + spread.flatten(2, 3).flatten(3, 4)
        total = total.expand(-1, n // groups, -1, -1).flatten(0, 1)
        return Inverse(*_Invert.apply(total, self._potential_matrix()))  # type: ignore[no-untyped-call]

    def _potential_matrix(self) -> Tensor:
        """Diagonal ``(N, T K)``, or block-diagonal ``(N, T K, T K)``."""
        potential = self.precision.potential
        if self.diagonal:
            return potential.transpose(0, 1).flatten(1)
        steps, n, size = self._sizes
        clock = torch.eye(steps, dtype=potential.dtype, device=potential.device)
        spread = torch.einsum("tnij,tu->ntiuj", potential, clock)
        return spread.reshape(n, steps * size, steps * size)


class _Invert(torch.autograd.Function):
    """Inverse and log-determinant of ``prior + potential``, worked out in float64."""

    @staticmethod
    def forward(ctx: Any, prior: Tensor, potential: Tensor) -> tuple[Tensor, Tensor]:
        ctx.diagonal = potential.ndim == 2
        total = prior.clone() if ctx.diagonal else prior + potential
        if ctx.diagonal:
            total.diagonal(dim1=-2, dim2=-1).add_(potential)
        root, failed = torch.linalg.cholesky_ex(total)
        if bool(failed.any()):
            root = safe_cholesky(total)
        inverse = torch.cholesky_inverse(root).to(potential.dtype)
        ctx.save_for_backward(inverse)
        ctx.set_materialize_grads(False)
        return inverse, 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_inverse: Tensor | None, grad_log_det: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        (inverse,) = ctx.saved_tensors
        total = torch.zeros_like(inverse)
        if grad_log_det is not None:
            total = inverse * grad_log_det.to(inverse.dtype)[:, None, None]
        if grad_inverse is not None:
            total = torch.baddbmm(total, inverse @ symmetrize(grad_inverse), inverse, alpha=-1.0)
        potential = total.diagonal(dim1=-2, dim2=-1) if ctx.diagonal else total
        return total.double(), potential
