"""One pass over groups larger than two: from parameters and potentials to moments.

``JointPass`` carries what the filter, the smoother, the sampler and the local KL share; filtered
and predicted moments are worked out when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor

from tsvae.lds.filter_result import Chain
from tsvae.lds.joint_covariances import JointCovariances, joint_covariances
from tsvae.lds.joint_elimination import JointPrecision
from tsvae.lds.joint_means import Noise, noise_roots, perturbation, solve
from tsvae.lds.joint_prior import Prior, potential_in, prior_path, prior_precisions
from tsvae.lds.layout import SeriesLayout, covariances_out, repeat_groups, times_group
from tsvae.lds.linalg import inverse_positive
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.scans import affine_scan

# Passes whose prior's mean path, which deviations are taken from, runs away, are left to others.
LARGEST_PATH = 1e6


def recorded(method: Callable[[Any], Any]) -> Any:
    """Make a cached property that records gradients if the filter did, whoever reads it first."""

    @wraps(method)
    def read(self: JointPass) -> Any:
        with torch.set_grad_enabled(self.grad_enabled):
            return method(self)

    return cached_property(read)


@dataclass(frozen=True, eq=False)
class JointPass:
    """Moments of a pass, inner arrangement ``(T, N, R, K)`` with N = G * P.

    Attributes
    ----------
    params : LDSParameters
    layout : SeriesLayout
    precision : JointPrecision
        Of the P covariance patterns.
    prior : Prior
    path : Tensor (T, N or G, R or 1, K)
        Mean path of the prior.
    drift : Tensor
        c_t, as wide as ``path``.
    given, linear : Tensor (T, N, R, K)
        Linear potentials, and those with the excess.
    grad_enabled : bool
        Whether gradients were recorded when the filter ran.
    """

    params: LDSParameters
    layout: SeriesLayout
    precision: JointPrecision
    prior: Prior
    path: Tensor
    drift: Tensor
    given: Tensor
    linear: Tensor
    grad_enabled: bool = field(default_factory=torch.is_grad_enabled, repr=False)

    @property
    def diagonal(self) -> bool:
        """Whether the potentials' precisions are diagonal."""
        return self.precision.potential.ndim == 3

    # -- covariances -------------------------------------------------------------------------

    @property
    def covariances(self) -> JointCovariances:
        """Those at hand: with smoothed ones if these were asked for first."""
        found: JointCovariances = self.__dict__.get("with_smoothed") or self.with_filtered
        return found

    @recorded
    def with_filtered(self) -> JointCovariances:
        """With those given the potentials before t."""
        return joint_covariances(self.precision, smooth=False)

    @recorded
    def with_smoothed(self) -> JointCovariances:
        """With smoothed ones."""
        return joint_covariances(self.precision, smooth=True)

    def log_det(self) -> Tensor:
        """Sum of ``log |I + P_t Lambda_t|``, (P,)."""
        return self._pattern_log_det(self.covariances.log_det)

    def _pattern_log_det(self, log_det: Tensor) -> Tensor:
        own = log_det.unflatten(0, (self.params.n_groups, -1)).sum(0)
        return (own - self.prior.log_det).to(self.linear.dtype)

    def total_precision(self) -> Tensor:
        """Precision really applied, (P, T, G, K, K)."""
        return covariances_out(self._total(self.precision), self.params.n_groups)

    def filtered_covariance(self) -> Tensor:
        """Covariances given the potentials up to t, (P, T, G, K, K)."""
        return covariances_out(self._filtered_inner, self.params.n_groups)

    def predicted_covariance(self) -> Tensor:
        """Covariances given the potentials before t, (P, T, G, K, K)."""
        return covariances_out(inverse_positive(self.with_filtered.before), self.params.n_groups)

    def smoothed_covariance(self) -> Tensor:
        """Covariances given all potentials, (P, T, G, K, K)."""
        return covariances_out(self.with_smoothed.smoothed, self.params.n_groups)

    def cross_covariance(self) -> Tensor:
        """Cov(z_t, z_{t+1}), (P, T-1, G, K, K)."""
        found = self.with_smoothed
        cross = found.gain[:-1] @ found.smoothed[1:]
        return covariances_out(cross, self.params.n_groups)

    def potential_spread(self) -> Tensor:
        """``sum_t,g tr(Lambda S)`` of the potentials alone and smoothed covariances, (P,)."""
        groups, found = self.params.n_groups, self.with_smoothed
        if self.diagonal:
            terms = (self.precision.potential * found.smoothed_diagonal).sum((0, 2))
        else:
            terms = (self.precision.potential * found.smoothed).sum((0, 2, 3))
        return terms.unflatten(0, (groups, -1)).sum(0)

    @recorded
    def _filtered_inner(self) -> Tensor:
        return inverse_positive(self.with_filtered.before + self._total(self.precision))

    def _total(self, blocks: JointPrecision) -> Tensor:
        potential = blocks.potential
        if potential.ndim == 3:
            potential = torch.diag_embed(potential)
        excess = repeat_groups(blocks.excess, potential.shape[1] // self.params.n_groups)
        followed = blocks.followed[..., None, None].to(potential.dtype)
        return potential + followed * excess.to(potential.dtype)

    # -- means -------------------------------------------------------------------------------

    @recorded
    def deviation(self) -> Tensor:
        """Smoothed means less ``path``, (T, N, R, K)."""
        return self._solve(self._right)

    def _expect_smoother(self) -> None:
        """Work out covariances with smoothed ones at once, or the elimination would run twice."""
        _ = self.covariances if "with_filtered" in self.__dict__ else self.with_smoothed

    def _solve(self, right: Tensor) -> Tensor:
        return solve(self._inner, self._inner_covariances, right)

    @recorded
    def smoothed(self) -> Tensor:
        """Smoothed means, (T, N, R, K)."""
        return self._wide(self.path) + self.deviation

    def filtered(self) -> Tensor:
        """E[z_t | potentials up to t], (B, T, D)."""
        return self.layout.states_out(self._filtered_means)

    def filtered_at(self, at: Tensor) -> Tensor:
        """E[z_t | potentials up to t] at one step of each series, (B, D)."""
        return self.filtered()[torch.arange(len(at), device=at.device), at]

    def predicted(self) -> Tensor:
        """E[z_t | potentials before t], (B, T, D)."""
        filtered = self._filtered_means
        ahead = times_group(filtered[:-1], self.params.transition_matrix.mT)
        ahead = ahead + self._wide(self.drift)[1:]
        first = self._wide(self.path)[:1].expand_as(filtered[:1])
        return self.layout.states_out(torch.cat((first, ahead)))

    def normalizer(self) -> Tensor:
        """Log-normaliser less the log-determinants and the excess, (B,).

        The largest value of the exponent: by the envelope theorem its gradient needs none of the
        maximiser's.
        """
        mean = self.smoothed.detach()
        terms = (mean * (self.linear - 0.5 * self._apply(mean))).sum(-1)
        # Residuals of the transitions see the parameters themselves.
        energy = self._energy(mean - self._wide(self.path))
        return self.layout.series_sums(terms - energy)

    def conditionals(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gain, covariance and offset of z_t given z_{t+1}, inner arrangement."""
        pulled = self._pulled @ self._inner_covariances.conditional
        path, gain = self._wide(self.path), self._inner_covariances.gain
        ahead = torch.cat((path[1:], torch.zeros_like(path[:1])))
        offset = path - ahead @ gain.mT + pulled
        return self.covariances.gain, self.covariances.conditional, offset

    def disturbance_energy(self) -> Tensor:
        """Half the squared length of the smoothed deviations under the prior, (B,)."""
        return self.layout.series_sums(self._energy(self.deviation))

    def excess_cost(self) -> Tensor:
        """Means' part of what the excess costs: ``sum_t z'Wz / 2 - s'z``, (B,)."""
        mean = self.smoothed
        pulled = self._weigh_excess(mean)
        terms = (mean * (0.5 * pulled - (self.linear - self.given))).sum(-1)
        return self.layout.series_sums(terms)

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Joint samples ``(S, B, T, D)`` of all states, for diagonal potentials."""
        steps, n, rows, size = self.linear.shape

        def draw() -> Tensor:
            like = self.linear
            return torch.randn(
                (steps, n, rows * n_samples, size),
                generator=generator,
                dtype=like.dtype,
                device=like.device,
            )

        noise = Noise(draw(), draw(), None if self.params.excess is None else draw())
        return self.samples_from(noise, n_samples)

    def samples_from(self, noise: Noise, n_samples: int) -> Tensor:
        """Turn standard normal numbers into samples ``(S, B, T, D)``."""
        transition = self.params.transition_matrix.double()
        dtype, excess = noise.potential.dtype, noise.excess is not None
        roots = noise_roots(self.precision, self.prior.roots, transition, dtype, excess)
        moved = perturbation(self._inner, roots, noise)
        right = self._right.repeat_interleave(n_samples, dim=2) + moved
        if "deviation" in self.__dict__:
            found = self._solve(right)
        else:  # the smoother is as good as always asked for, too
            self._expect_smoother()
            rows = self._right.shape[2]
            both = self._solve(torch.cat((self._right, right), dim=2))
            self.__dict__["deviation"], found = both[:, :, :rows], both[:, :, rows:]
        path = self._wide(self.path)
        if path.shape[2] > 1:
            path = path.repeat_interleave(n_samples, dim=2)
        states = path + found
        return self.layout.samples_out(states, n_samples)

    @recorded
    def _pulled(self) -> Tensor:
        """y, what the potentials up to t add to the information about z_t."""
        gain = self._inner_covariances.gain
        links = torch.cat((torch.zeros_like(gain[:1]), gain[:-1]))
        return affine_scan(links.mT, self._right)

    @recorded
    def _filtered_means(self) -> Tensor:
        covariance = self._expanded(self._filtered_inner)
        return self._wide(self.path) + self._pulled @ covariance

    @recorded
    def _right(self) -> Tensor:
        return self.linear - self._apply(self._wide(self.path))

    def _apply(self, states: Tensor) -> Tensor:
        """``(Lambda + f W) z`` for rows ``(T, N, 1 or R, K)``."""
        blocks = self._inner
        if blocks.potential.ndim == 3:
            applied = states * blocks.potential.unsqueeze(2)
        else:
            applied = states @ blocks.potential
        if self.params.excess is None:
            return applied
        return applied + self._weigh_excess(states)

    def _weigh_excess(self, states: Tensor) -> Tensor:
        """``f W z`` for rows."""
        weighed = times_group(states, self.precision.excess.to(states.dtype))
        return self._inner.followed[..., None, None].to(states.dtype) * weighed

    def _energy(self, deviation: Tensor) -> Tensor:
        """Half of ``d_0'S_0^-1 d_0 + sum_t e_t'Q^-1 e_t``, e the disturbances; (T, N, R)."""
        initial, arriving = (
            part.to(deviation.dtype) for part in (self.precision.initial, self.precision.arriving)
        )
        moves = deviation[1:] - times_group(deviation[:-1], self.params.transition_matrix.mT)
        first = deviation[:1]
        energies = (first * times_group(first, initial), moves * times_group(moves, arriving))
        return 0.5 * torch.cat([part.sum(-1) for part in energies])

    # -- arrangement -------------------------------------------------------------------------

    def _wide(self, values: Tensor) -> Tensor:
        """Per-group rows ``(T, G, 1, K)`` for every pattern; others as they are."""
        n = self.linear.shape[1]
        if values.shape[1] == n:
            return values
        return values.repeat_interleave(n // values.shape[1], dim=1)

    def _expanded(self, values: Tensor) -> Tensor:
        if self.layout.expand is None:
            return values
        split = values.unflatten(1, (self.params.n_groups, -1))
        return split.index_select(2, self.layout.expand).flatten(1, 2)

    @recorded
    def _inner(self) -> JointPrecision:
        blocks = self.precision
        return blocks._replace(
            followed=self._expanded(blocks.followed), potential=self._expanded(blocks.potential)
        )

    @recorded
    def _inner_covariances(self) -> JointCovariances:
        if self.layout.expand is None:
            return self.covariances
        found = self.covariances
        return found._replace(
            conditional=self._expanded(found.conditional), gain=self._expanded(found.gain)
        )


def run_joint(
    params: LDSParameters,
    chain: Chain,
    drift: Tensor,
    layout: SeriesLayout,
    kind: type[JointPass] = JointPass,
) -> JointPass | None:
    """Eliminate, and prepare means.

    Parameters
    ----------
    params : LDSParameters
    chain : Chain
        Potentials and excess.
    drift : Tensor (B or 1, T, D)
    layout : SeriesLayout
    kind : type, default=JointPass
        Class of the result.

    Returns
    -------
    JointPass or None
        None if a covariance is too close to singular, or the prior's mean path runs away.
    """
    prior = prior_precisions(params, chain.linear.shape[1])
    if prior is None:
        return None
    path, moves = prior_path(params, drift, layout)
    if not bool(path.detach().abs().amax() <= LARGEST_PATH):
        return None
    given = layout.states_in(chain.linear)
    linear, size = given, params.group_size
    excess, followed = None, chain.precision.new_zeros(1, chain.linear.shape[1])
    if chain.excess is not None:
        assert params.excess is not None
        excess = params.excess.precision[:, :size, :size].double()
        followed = chain.excess.followed
        linear = layout.states_in(
            chain.linear + chain.excess.shift(chain.pattern, len(chain.linear))
        )
    n_patterns = chain.precision.shape[0]
    precision = JointPrecision(
        *prior.blocks,
        excess=torch.zeros_like(prior.blocks[0]) if excess is None else excess,
        followed=followed.mT.expand(-1, n_patterns).repeat(1, params.n_groups),
        potential=potential_in(chain.precision, params),
    )
    return kind(params, layout, precision, prior, path, moves, given, linear)
