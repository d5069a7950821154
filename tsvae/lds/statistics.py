r"""Expected sufficient statistics of q(z): what conjugate updates of q(theta) need.

With regressors :math:`w_t = [z_{t-1}; u_t; 1]`, summed over series and over the transitions inside
each chain (:math:`1 \le t \le` length - 1):

.. math::
    E[w w'], \quad E[z_t w_t'], \quad E[z_t z_t'], \quad n,

and over first states :math:`E[z_0 z_0'], E[z_0], n_0` (Johnson et al. 2016, eq. 10 and
appendix D). Adding them to natural parameters is the conjugate update.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.filter_result import per_series
from tsvae.lds.filtering import known_regressors
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.smoothing import SmootherResult


class RegressionStatistics(NamedTuple):
    """Sums of expected outer products of a (grouped) linear regression.

    Attributes
    ----------
    outcome_outer : Tensor (G, K, K)
        E[z z'].
    outcome_regressor : Tensor (G, K, L)
        E[z w'].
    regressor_outer : Tensor (G, L, L)
        E[w w'].
    n_observations : Tensor (G,)
    """

    outcome_outer: Tensor
    outcome_regressor: Tensor
    regressor_outer: Tensor
    n_observations: Tensor


class ExpectedStatistics(NamedTuple):
    """Statistics for q(initial state parameters) (L = 1) and q(transition) (L = K + U + 1)."""

    initial: RegressionStatistics
    transition: RegressionStatistics


def expected_statistics(
    params: LDSParameters,
    smoothed: SmootherResult,
    inputs: Tensor | None = None,
    lengths: Tensor | None = None,
) -> ExpectedStatistics:
    """Sum the expected sufficient statistics of all chains.

    Parameters
    ----------
    params : LDSParameters
        Gives the grouping and the number of inputs.
    smoothed : SmootherResult
    inputs : Tensor (B, T, U), optional
    lengths : Tensor (B,) long, optional
        Chain ends; all T by default.

    Returns
    -------
    ExpectedStatistics
    """
    mean = smoothed.smoothed_mean
    n_series, steps, _ = mean.shape
    groups, size = params.n_groups, params.group_size
    if lengths is None:
        lengths = torch.full((n_series,), steps, device=mean.device)
    inside = (torch.arange(1, steps, device=mean.device) < lengths[:, None]).to(mean.dtype)
    alive = (lengths > 0).to(mean.dtype)
    n_patterns = smoothed.smoothed_covariance.shape[0]
    weights = _pattern_sums(inside, smoothed.pattern, n_patterns)
    spread = smoothed.smoothed_covariance
    before = torch.einsum("pt,ptgij->gij", weights, spread[:, :-1])
    after = torch.einsum("pt,ptgij->gij", weights, spread[:, 1:])
    cross = torch.einsum("pt,ptgij->gji", weights, smoothed.cross_covariance)

    z = mean.reshape(n_series, steps, groups, size)
    known = known_regressors(params, mean, inputs)[:, 1:].expand(n_series, -1, -1)
    shared = known.unsqueeze(2).expand(-1, -1, groups, -1)
    w = torch.cat((z[:, :-1], shared), dim=-1)
    weighted = w * inside[:, :, None, None]
    extra = (0, w.shape[-1] - size)
    regressor = torch.einsum("btgi,btgj->gij", weighted, w)
    regressor = regressor + torch.nn.functional.pad(before, extra + extra)
    mixed = torch.einsum("btgi,btgj->gij", z[:, 1:], weighted)
    mixed = mixed + torch.nn.functional.pad(cross, extra)
    ahead = z[:, 1:] * inside[:, :, None, None]
    outcome = torch.einsum("btgi,btgj->gij", ahead, z[:, 1:]) + after
    transition = RegressionStatistics(outcome, mixed, regressor, inside.sum().expand(groups))
    first = z[:, 0] * alive[:, None, None]
    first_weight = _pattern_sums(alive[:, None], smoothed.pattern, n_patterns)[:, 0]
    initial = RegressionStatistics(
        outcome_outer=torch.einsum("bgi,bgj->gij", first, z[:, 0])
        + torch.einsum("p,pgij->gij", first_weight, spread[:, 0]),
        outcome_regressor=first.sum(0).unsqueeze(-1),
        regressor_outer=alive.sum().expand(groups, 1, 1),
        n_observations=alive.sum().expand(groups),
    )
    return ExpectedStatistics(initial, transition)


def _pattern_sums(weights: Tensor, pattern: Tensor | None, n_patterns: int) -> Tensor:
    """Sum per-series weights over the series of each pattern."""
    if n_patterns == weights.shape[0] and pattern is None:
        return weights
    if n_patterns == 1:
        return weights.sum(0, keepdim=True)
    total = weights.new_zeros(n_patterns, weights.shape[1])
    return total.index_add(0, pattern, weights) if pattern is not None else total


class PairwiseMoments(NamedTuple):
    """Second moments around zero of neighbouring states of each series.

    Attributes
    ----------
    outer : Tensor (B, T, G, K, K)
        E[z_t z_t'].
    cross : Tensor (B, T-1, G, K, K)
        E[z_t z_{t+1}'].
    """

    outer: Tensor
    cross: Tensor


def pairwise_moments(smoothed: SmootherResult) -> PairwiseMoments:
    """Per-series second moments of states and of neighbouring pairs.

    Parameters
    ----------
    smoothed : SmootherResult

    Returns
    -------
    PairwiseMoments
    """
    mean = smoothed.smoothed_mean
    groups, size = smoothed.smoothed_covariance.shape[2:4]
    n_series = mean.shape[0]
    z = mean.reshape(n_series, mean.shape[1], groups, size)
    spread = per_series(smoothed.smoothed_covariance, smoothed.pattern, n_series)
    cross = per_series(smoothed.cross_covariance, smoothed.pattern, n_series)
    return PairwiseMoments(
        outer=z.unsqueeze(-1) * z.unsqueeze(-2) + spread,
        cross=z[:, :-1].unsqueeze(-1) * z[:, 1:].unsqueeze(-2) + cross,
    )
