r"""Smoothed moments: backward conditionals, smoother, local KL divergence.

Given the future, :math:`z_t | z_{t+1}` depends only on the filtered moments :math:`(m^+_t, S_t)`:

.. math::
    z_t | z_{t+1} \sim N\big(m^+_t + G_t (z_{t+1} - m_{t+1}),\; V_t\big), \quad
    G_t = S_t A' P_{t+1}^{-1}, \quad V_t = (I - G_t A) S_t (I - G_t A)' + G_t Q G_t',

with :math:`V_t` in Joseph's form, so positive semidefinite whatever the rounding. Averaging over
:math:`z_{t+1}` is the Rauch-Tung-Striebel smoother, itself an affine and a congruence recursion:
:math:`\bar m_t = G_t \bar m_{t+1} + (m^+_t - G_t m_{t+1})`,
:math:`\bar S_t = G_t \bar S_{t+1} G_t' + V_t`, and
:math:`Cov(z_t, z_{t+1}) = G_t \bar S_{t+1}`.

Potentials of expected parameters (the excess) are part of the filter's potentials, so the
transition between states is always the plug-in one here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.filter_result import FilterResult, per_series
from tsvae.lds.grouped_covariances import SmoothedCovariances, smooth_covariances
from tsvae.lds.grouped_smoothing import GroupedSmoothed
from tsvae.lds.joint_pass import JointPass
from tsvae.lds.layout import covariances_out, matrices_out, matrix_planes_view, repeat_groups
from tsvae.lds.linalg import identity_like, solve_positive, symmetrize
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.passes import GroupedPass
from tsvae.lds.potentials import Potentials, block_precision
from tsvae.lds.scans import affine_scan, congruence_scan


class BackwardConditionals(NamedTuple):
    """q(z_t | z_{t+1}) = N(G_t z_{t+1} + offset_t, V_t) in the inner layout.

    Attributes
    ----------
    gain : Tensor (T, N, K, K)
        Zero at the last step.
    covariance : Tensor (T, N, K, K)
    offset : Tensor (T, N', R, K)
        The filtered mean at the last step.
    """

    gain: Tensor
    covariance: Tensor
    offset: Tensor


@dataclass(frozen=True, eq=False)
class SmootherResult:
    """Posterior moments of every state given all potentials.

    Attributes
    ----------
    smoothed_mean : Tensor (B, T, D)
    smoothed_covariance : Tensor (P, T, G, K, K)
    cross_covariance : Tensor (P, T-1, G, K, K)
        Cov(z_t, z_{t+1}).
    pattern : Tensor (B,) long or None
        Row of the covariances of each series; as in ``FilterResult``.
    planes : GroupedSmoothed or None
        Component-first arrays that ``local_kl`` shares with ``smooth`` (groups of one or two).
    cross : callable
        Works out ``cross_covariance`` when it is asked for.
    grad_enabled : bool
        Whether gradients were recorded then; ``cross_covariance`` follows suit.
    """

    smoothed_mean: Tensor
    smoothed_covariance: Tensor
    pattern: Tensor | None
    cross: Callable[[], Tensor] = field(repr=False)
    planes: GroupedSmoothed | None = field(default=None, repr=False)
    grad_enabled: bool = field(default_factory=torch.is_grad_enabled, repr=False)

    @cached_property
    def cross_covariance(self) -> Tensor:
        """Cov(z_t, z_{t+1}), (P, T-1, G, K, K)."""
        with torch.set_grad_enabled(self.grad_enabled):
            return self.cross()


def backward_conditionals(params: LDSParameters, filtered: FilterResult) -> BackwardConditionals:
    """Conditionals q(z_t | z_{t+1}), shared by the smoother and the sampler.

    Parameters
    ----------
    params : LDSParameters
        Those given to the filter.
    filtered : FilterResult

    Returns
    -------
    BackwardConditionals
    """
    if isinstance(filtered.moments, JointPass):
        return BackwardConditionals(*filtered.moments.conditionals())
    layout = filtered.layout
    n_patterns = filtered.filtered_covariance.shape[0]
    a = repeat_groups(params.transition_matrix, n_patterns)
    q = repeat_groups(params.noise_covariance, n_patterns)
    current = filtered.filtered_covariance.permute(1, 2, 0, 3, 4).flatten(1, 2)
    following = filtered.predicted_covariance.permute(1, 2, 0, 3, 4).flatten(1, 2)[1:]
    gain = solve_positive(following, a @ current[:-1]).mT
    keep = identity_like(gain) - gain @ a
    covariance = keep @ current[:-1] @ keep.mT + gain @ q @ gain.mT
    covariance = torch.cat((symmetrize(covariance), current[-1:]))
    gain = torch.cat((gain, torch.zeros_like(current[-1:])))

    mean = layout.states_in(filtered.filtered_mean)
    ahead = layout.states_in(filtered.predicted_mean)[1:]
    inner = layout.covariances_in(covariances_out(gain, params.n_groups))
    offset = torch.cat((mean[:-1] - ahead @ inner[:-1].mT, mean[-1:]))
    return BackwardConditionals(gain, covariance, offset)


def smooth(
    params: LDSParameters,
    filtered: FilterResult,
    conditionals: BackwardConditionals | None = None,
) -> SmootherResult:
    """Run the Rauch-Tung-Striebel smoother.

    Parameters
    ----------
    params : LDSParameters
        Those given to the filter.
    filtered : FilterResult
    conditionals : BackwardConditionals, optional
        From ``backward_conditionals``, to share the work with ``sample_posterior``.

    Returns
    -------
    SmootherResult

    References
    ----------
    Rauch, Tung & Striebel 1965; Joseph's form as in Bucy & Joseph 1968.
    """
    moments = filtered.moments
    if conditionals is None and isinstance(moments, GroupedPass):
        return _smooth_planes(filtered, moments)
    if conditionals is None and isinstance(moments, JointPass):
        return _smooth_joint(filtered, moments)
    if conditionals is None:
        conditionals = backward_conditionals(params, filtered)
    layout = filtered.layout
    covariance = congruence_scan(conditionals.gain, conditionals.covariance, reverse=True)
    gain = conditionals.gain
    inner = layout.covariances_in(covariances_out(conditionals.gain, params.n_groups))
    mean = affine_scan(inner, conditionals.offset, reverse=True)
    return SmootherResult(
        smoothed_mean=layout.states_out(mean),
        smoothed_covariance=covariances_out(covariance, params.n_groups),
        pattern=filtered.pattern,
        cross=lambda: covariances_out(gain[:-1] @ covariance[1:], params.n_groups),
    )


def _smooth_joint(filtered: FilterResult, joint: JointPass) -> SmootherResult:
    covariance = joint.smoothed_covariance()
    mean = filtered.layout.states_out(joint.smoothed)
    return SmootherResult(mean, covariance, filtered.pattern, joint.cross_covariance)


def _smooth_planes(filtered: FilterResult, grouped: GroupedPass) -> SmootherResult:
    states = grouped.smooth()
    covariance, cross = _covariances(grouped)
    return SmootherResult(
        smoothed_mean=filtered.layout.planes_out(states.mean),
        smoothed_covariance=matrices_out(covariance),
        pattern=filtered.pattern,
        cross=lambda: matrices_out(cross),
        planes=states,
    )


def expected_potential(potentials: Potentials, smoothed: SmootherResult) -> Tensor:
    """Per series, ``sum_t E_q[h_t'z_t - z_t' Lambda_t z_t / 2]``.

    Parameters
    ----------
    potentials : Potentials
        The encoder's (without excess).
    smoothed : SmootherResult

    Returns
    -------
    Tensor (B,)
    """
    mean = smoothed.smoothed_mean
    n_series, steps, _ = mean.shape
    groups, size = smoothed.smoothed_covariance.shape[2:4]
    precision = block_precision(potentials.precision, groups, size)
    split = mean.reshape(n_series, steps, groups, size)
    spread = _trace_per_series(
        precision, potentials.pattern, smoothed.smoothed_covariance, smoothed.pattern, n_series
    )
    each = per_series(precision, potentials.pattern, n_series)
    quadratic = (split * (each @ split.unsqueeze(-1)).squeeze(-1)).sum(dim=(1, 2, 3))
    return (potentials.linear * mean).sum(dim=(1, 2)) - 0.5 * (quadratic + spread)


def _trace_per_series(
    first: Tensor,
    first_pattern: Tensor | None,
    second: Tensor,
    second_pattern: Tensor | None,
    n_series: int,
) -> Tensor:
    """Sum over t, g of tr(first second) per series, at the coarsest sharing possible."""
    if first.shape[0] == 1 or second.shape[0] == 1:
        traces = (first * second).sum(dim=(1, 2, 3, 4))
        pattern = second_pattern if first.shape[0] == 1 else first_pattern
        return per_series(traces, pattern, n_series)
    one = per_series(first, first_pattern, n_series)
    return (one * per_series(second, second_pattern, n_series)).sum(dim=(1, 2, 3, 4))


def local_kl_from_normalizer(
    potentials: Potentials, smoothed: SmootherResult, log_normalizer: Tensor
) -> Tensor:
    """Local KL by its definition, ``E_q[sum of log potentials] - log Z``; ``(B,)``.

    Simple, but the two terms are large and nearly equal when the potentials are sharp;
    ``local_kl`` gives the same number without that cancellation.

    Parameters
    ----------
    potentials : Potentials
        The encoder's (without excess).
    smoothed : SmootherResult
    log_normalizer : Tensor (B,)
        Of the filter.

    Returns
    -------
    Tensor (B,)
        In nats.
    """
    return expected_potential(potentials, smoothed) - log_normalizer


def local_kl(params: LDSParameters, filtered: FilterResult, smoothed: SmootherResult) -> Tensor:
    r"""``E_q(theta) KL(q(z) || p(z | theta))`` up to each chain's end, per series.

    Equal to ``sum_t E_q[h'z - z'Lz/2] - log Z`` (log Z holding the constants of the expected log
    density), computed step by step in a form whose terms have the size of the result. With
    :math:`e = m^+ - m` (the update), :math:`d = \bar m - m^+` (the smoothing correction),

    .. math::
        KL_t = \tfrac12 e'P^{-1}e + e'P^{-1}d - \tfrac12 d'\Lambda d
               - \tfrac12 tr(\Lambda \bar S) + \tfrac12 \log|I + P\Lambda|,

    which follows from :math:`r = h - \Lambda m = (P^{-1} + \Lambda) e`. The excess of expected
    parameters is part of :math:`\Lambda` and h here; its expectation is added back.

    Parameters
    ----------
    params : LDSParameters
        Those given to the filter.
    filtered : FilterResult
    smoothed : SmootherResult

    Returns
    -------
    Tensor (B,)
        Non-negative for plug-in parameters, up to rounding.
    """
    if smoothed.planes is not None and isinstance(filtered.moments, GroupedPass):
        covariance = matrix_planes_view(smoothed.smoothed_covariance)
        return _local_kl_planes(filtered, filtered.moments, smoothed.planes, covariance)
    if isinstance(filtered.moments, JointPass):
        return _local_kl_joint(filtered, filtered.moments)
    layout = filtered.layout
    updated = layout.states_in(filtered.filtered_mean)
    update = updated - layout.states_in(filtered.predicted_mean)
    correction = layout.states_in(smoothed.smoothed_mean) - updated
    precision = layout.covariances_in(filtered.precision)
    predicted = layout.covariances_in(filtered.predicted_covariance)
    whitened = solve_positive(predicted, update.mT).mT
    terms = (whitened * (0.5 * update + correction)).sum(-1)
    terms = terms - 0.5 * (correction * (correction @ precision)).sum(-1)
    spread = (filtered.precision * smoothed.smoothed_covariance).sum(dim=(1, 2, 3, 4))
    shared = 0.5 * (filtered.moments.log_det() - spread)
    kl = layout.series_sums(terms) + per_series(shared, filtered.pattern, filtered.n_series)
    return kl + _excess_cost(params, filtered, smoothed)


def posterior_kl(params: LDSParameters, filtered: FilterResult) -> Tensor:
    """``local_kl`` where smoothed moments are wanted for nothing else.

    Parameters
    ----------
    params : LDSParameters
        Those given to the filter.
    filtered : FilterResult

    Returns
    -------
    Tensor (B,)
    """
    moments = filtered.moments
    if isinstance(moments, GroupedPass):
        return _local_kl_planes(filtered, moments, moments.smooth(), _covariances(moments).smoothed)
    if isinstance(moments, JointPass):
        return _local_kl_joint(filtered, moments)
    return local_kl(params, filtered, smooth(params, filtered))


def _covariances(grouped: GroupedPass) -> SmoothedCovariances:
    return smooth_covariances(grouped.covariances, grouped.parameters.transition, grouped.laws)


def _local_kl_planes(
    filtered: FilterResult, grouped: GroupedPass, states: GroupedSmoothed, covariance: Tensor
) -> Tensor:
    # The excess is in Lambda and its expectation is added back: only the potentials' own remains.
    shared = 0.5 * (grouped.log_det() - grouped.potential_spread(covariance))
    kl = filtered.layout.slot_values(states.energy)
    kl = kl + per_series(shared, filtered.pattern, filtered.n_series)
    if filtered.excess is None:
        return kl
    cost = filtered.layout.slot_values(grouped.excess_cost(states))
    return kl + cost - filtered.excess.constant


def _local_kl_joint(filtered: FilterResult, joint: JointPass) -> Tensor:
    # As for planes: the excess and its expectation cancel but for the means' part.
    shared = 0.5 * (joint.log_det() - joint.potential_spread())
    kl = joint.disturbance_energy() + per_series(shared, filtered.pattern, filtered.n_series)
    if filtered.excess is None:
        return kl
    return kl + joint.excess_cost() - filtered.excess.constant


def _excess_cost(params: LDSParameters, filtered: FilterResult, smoothed: SmootherResult) -> Tensor:
    """E_q of minus what expected parameters add to the log density, per series."""
    if filtered.excess is None or params.excess is None:
        return smoothed.smoothed_mean.new_zeros(filtered.n_series)
    groups, size = params.n_groups, params.group_size
    weight = params.excess.precision[:, :size, :size]
    mean = smoothed.smoothed_mean
    split = mean.unflatten(-1, (groups, size))
    pulled = (weight @ split.unsqueeze(-1)).squeeze(-1)
    pattern, n_series = filtered.pattern, filtered.n_series
    followed = filtered.excess.followed_steps(pattern, n_series)
    quadratic = (followed * (split * pulled).sum(dim=(2, 3))).sum(1)
    traces = (weight * smoothed.smoothed_covariance).sum(dim=(2, 3, 4))
    spread = (followed * per_series(traces, smoothed.pattern, n_series)).sum(1)
    cost = 0.5 * (quadratic + spread) - (filtered.excess.shift(pattern, n_series) * mean).sum(
        dim=(1, 2)
    )
    return cost - filtered.excess.constant
