"""One pass by the covariance recursion: any group size, singular covariances, growing systems.

Slower than the others; they are tested against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tsvae.lds.filter_result import Chain
from tsvae.lds.layout import SeriesLayout, covariances_out, repeat_groups
from tsvae.lds.linalg import identity_like
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.potentials import block_precision
from tsvae.lds.scans import CovarianceRecursion, affine_scan, covariance_recursion


@dataclass(frozen=True, eq=False)
class StepwisePass:
    """Moments of a pass; means ``(T, N, R, K)`` in the inner layout.

    Attributes
    ----------
    layout : SeriesLayout
    covariances : CovarianceRecursion
    total : Tensor (P, T, G, K, K)
        Precision really applied.
    after, before : Tensor (T, N, R, K)
        Filtered and predicted means.
    linear : Tensor (T, N, R, K)
        Potentials really applied.
    precision, gain : Tensor (T, N, K, K)
        Lambda and S of the inner patterns.
    """

    layout: SeriesLayout
    covariances: CovarianceRecursion
    total: Tensor
    after: Tensor
    before: Tensor
    linear: Tensor
    precision: Tensor
    gain: Tensor

    def filtered(self) -> Tensor:
        """E[z_t | potentials up to t], (B, T, D)."""
        return self.layout.states_out(self.after)

    def filtered_at(self, at: Tensor) -> Tensor:
        """E[z_t | potentials up to t] at one step of each series, (B, D)."""
        return self.filtered()[torch.arange(len(at), device=at.device), at]

    def predicted(self) -> Tensor:
        """E[z_t | potentials before t], (B, T, D)."""
        return self.layout.states_out(self.before)

    def filtered_covariance(self) -> Tensor:
        """Cov[z_t | potentials up to t], (P, T, G, K, K)."""
        return covariances_out(self.covariances.filtered, self.layout.n_groups)

    def predicted_covariance(self) -> Tensor:
        """Cov[z_t | potentials before t], (P, T, G, K, K)."""
        return covariances_out(self.covariances.predicted, self.layout.n_groups)

    def total_precision(self) -> Tensor:
        """Precision really applied, (P, T, G, K, K)."""
        return self.total

    def log_det(self) -> Tensor:
        """Sum of log |I + P_t Lambda_t| over steps and groups, (P,)."""
        return self.covariances.log_det.unflatten(1, (self.layout.n_groups, -1)).sum((0, 1))

    def normalizer(self) -> Tensor:
        """Log-normaliser less the log-determinants and the excess, (B,)."""
        pull = self.before @ self.precision
        residual = self.linear - pull
        quadratic = (self.before * (self.linear - 0.5 * pull)).sum(-1)
        quadratic = quadratic + 0.5 * (residual * (residual @ self.gain)).sum(-1)
        return self.layout.series_sums(quadratic)


def run_stepwise(
    params: LDSParameters, chain: Chain, drift: Tensor, layout: SeriesLayout
) -> StepwisePass:
    """Covariance recursion, and the means as one affine recursion.

    Parameters
    ----------
    params : LDSParameters
    chain : Chain
        Potentials and excess.
    drift : Tensor (B or 1, T, D)
    layout : SeriesLayout

    Returns
    -------
    StepwisePass
    """
    groups, n_series = params.n_groups, chain.linear.shape[0]
    precisions = block_precision(chain.precision, groups, params.group_size)
    applied = chain.linear
    if chain.excess is not None:
        assert params.excess is not None
        weight = params.excess.precision[:, : params.group_size, : params.group_size]
        precisions = precisions + chain.excess.followed[:, :, None, None, None] * weight
        applied = applied + chain.excess.shift(chain.pattern, n_series)
    n_patterns = precisions.shape[0]
    covariances = covariance_recursion(
        repeat_groups(params.transition_matrix, n_patterns),
        repeat_groups(params.noise_covariance, n_patterns),
        repeat_groups(params.initial_covariance, n_patterns),
        precisions.permute(1, 2, 0, 3, 4).flatten(1, 2),
    )
    gain = layout.covariances_in(covariances_out(covariances.filtered, groups))
    precision = layout.covariances_in(precisions)
    linear = layout.states_in(applied)
    shifts = layout.states_in(drift.expand_as(applied))
    a = repeat_groups(params.transition_matrix, layout.n_patterns)
    start = repeat_groups(params.initial_mean, layout.n_patterns).unsqueeze(1)
    shifts = torch.cat((start.expand_as(shifts[:1]), shifts[1:]))
    keep = identity_like(gain) - gain @ precision
    # Row vectors: S h is h @ S (symmetric), J c is c @ J'.
    filtered = affine_scan(keep @ a, shifts @ keep.mT + linear @ gain)
    predicted = torch.cat((shifts[:1], filtered[:-1] @ a.mT + shifts[1:]))
    return StepwisePass(
        layout, covariances, precisions, filtered, predicted, linear, precision, gain
    )
