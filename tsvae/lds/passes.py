"""One filter pass in component-first planes: from parameters and potentials to means.

``GroupedPass`` carries the planes that the filter, the smoother and the local KL share. States are
converted to ``(B, T, D)`` only where a caller reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.filter_result import Chain
from tsvae.lds.grouped_covariances import (
    BackwardLaws,
    GroupedCovariances,
    StepMatrices,
    backward_laws,
    filter_covariances,
)
from tsvae.lds.grouped_draws import deviations
from tsvae.lds.grouped_means import (
    ChainInputs,
    GroupedMeans,
    constant_means,
    filter_means,
    filtered_means,
    predicted_means,
)
from tsvae.lds.grouped_smoothing import GroupedSmoothed, SmoothedInputs, smooth_means
from tsvae.lds.grouped_sums import log_normalizers, quadratic_sums
from tsvae.lds.layout import SeriesLayout, matrices_out, matrix_planes_view, to_planes
from tsvae.lds.parameters import LDSParameters


class ParameterPlanes(NamedTuple):
    """Parameters as planes: matrices ``(K, K, 1, 1, 1, G)``, start ``(K, 1, 1, 1, G)``."""

    transition: Tensor
    noise: Tensor
    initial: Tensor
    start: Tensor


class ExcessPlanes(NamedTuple):
    """What expected parameters add.

    Attributes
    ----------
    weight : Tensor (K, K, T, 1 or P, 1, G)
    shift : Tensor (K, T, 1 or P, 1 or R, G)
    """

    weight: Tensor
    shift: Tensor


@dataclass(frozen=True, eq=False)
class GroupedPass:
    """Planes of one filter pass.

    Attributes
    ----------
    layout : SeriesLayout
    parameters : ParameterPlanes
    potential : Tensor
        Precision of the potentials alone: ``(K, T, P, 1, G)`` diagonal or ``(K, K, T, P, 1, G)``.
    excess : ExcessPlanes or None
    precision : Tensor (K, K, T, P, 1, G)
        The precision really applied.
    covariances : GroupedCovariances
    inputs : ChainInputs
        For the inner patterns of ``layout``.
    matrices : StepMatrices
        Likewise.
    """

    layout: SeriesLayout
    parameters: ParameterPlanes
    potential: Tensor
    excess: ExcessPlanes | None
    precision: Tensor
    covariances: GroupedCovariances
    inputs: ChainInputs
    matrices: StepMatrices
    differentiable: bool

    @cached_property
    def planes(self) -> GroupedMeans:
        """Filtered and predicted means."""
        with torch.set_grad_enabled(self.differentiable):
            return filter_means(self.inputs, self.matrices, self._constant_planes)

    @cached_property
    def _constant_planes(self) -> GroupedMeans:
        return constant_means(self.inputs, self.matrices)

    @cached_property
    def _filtered_planes(self) -> Tensor:
        # Without gradients the predicted means are often never read.
        if self.differentiable:
            return self.planes.filtered
        return filtered_means(self.inputs, self.matrices)

    def filtered(self) -> Tensor:
        """E[z_t | potentials up to t], (B, T, D)."""
        return self.layout.planes_out(self._filtered_planes)

    def predicted(self) -> Tensor:
        """E[z_t | potentials before t], (B, T, D)."""
        if self.differentiable:
            return self.layout.planes_out(self.planes.predicted)
        return self.layout.planes_out(predicted_means(self.inputs, self._filtered_planes))

    def filtered_at(self, at: Tensor) -> Tensor:
        """E[z_t | potentials up to t] at one step of each series, (B, D)."""
        slots = self.layout.positions
        if slots is None:
            slots = torch.arange(at.shape[0], device=at.device)
        rows = self.layout.rows
        picked = self._filtered_planes[:, at, slots // rows, slots % rows]
        return picked.permute(1, 2, 0).flatten(1)

    def filtered_covariance(self) -> Tensor:
        """Cov[z_t | potentials up to t], (P, T, G, K, K)."""
        return matrices_out(self.covariances.filtered)

    def predicted_covariance(self) -> Tensor:
        """Cov[z_t | potentials before t], (P, T, G, K, K)."""
        return matrices_out(self.covariances.predicted)

    def total_precision(self) -> Tensor:
        """Precision really applied, (P, T, G, K, K)."""
        return matrices_out(self.precision)

    def log_det(self) -> Tensor:
        """Sum of log |I + P_t Lambda_t| over steps and groups, (P,)."""
        return self.covariances.log_det.sum((0, 2, 3))

    def normalizer(self) -> Tensor:
        """Log-normaliser less the log-determinants and the excess, (B,)."""
        return self.layout.slot_values(log_normalizers(self.planes, self.inputs))

    def smooth(self) -> GroupedSmoothed:
        """Smoothed means and the mean part of the local KL."""
        return self._smoothed

    @cached_property
    def _smoothed(self) -> GroupedSmoothed:
        own = self.parameters
        inputs = SmoothedInputs(
            *self.inputs[:3], own.transition, own.noise, own.initial, self.inputs.precision
        )
        with torch.set_grad_enabled(self.differentiable):
            return smooth_means(inputs, self.matrices, self._constant_planes)

    @cached_property
    def laws(self) -> BackwardLaws:
        """Laws of each state given the next one."""
        own, found = self.parameters, self.covariances
        return backward_laws(found.filtered, found.predicted, own.transition, own.noise)

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Joint samples ``(S, B, T, D)`` of all states."""
        linear = self.inputs.linear
        shape = (*linear.shape[:3], linear.shape[3] * n_samples, linear.shape[4])
        epsilon = torch.randn(shape, generator=generator, dtype=linear.dtype, device=linear.device)
        return self.samples_from(epsilon, n_samples)

    def samples_from(self, epsilon: Tensor, n_samples: int) -> Tensor:
        """Turn standard normal numbers ``(K, T, P, R * S, G)`` into samples ``(S, B, T, D)``."""
        found = self.covariances
        filtered, predicted = (
            self.layout.pattern_planes(part) for part in (found.filtered, found.predicted)
        )
        laws = self.laws.expand(self.layout.expand)
        drawn = deviations(laws, filtered, predicted, self.parameters.transition, epsilon)
        mean = self.smooth().mean
        if n_samples == 1:
            return self.layout.planes_out(mean + drawn)[None]
        states = mean.unsqueeze(-2) + drawn.unflatten(-2, (-1, n_samples))
        draws = states.unbind(-2)
        return torch.stack([self.layout.planes_out(planes.contiguous()) for planes in draws])

    def potential_spread(self, covariance: Tensor) -> Tensor:
        """``sum_t,g tr(Lambda S)`` of the potentials alone, one number per pattern."""
        if self.potential.ndim == 5:
            covariance = covariance.diagonal(dim1=0, dim2=1).movedim(-1, 0)
            return (self.potential * covariance).sum((0, 1, 3, 4))
        return (self.potential * covariance).sum((0, 1, 2, 4, 5))

    def excess_cost(self, smoothed: GroupedSmoothed) -> Tensor:
        """Means' part of what the excess costs, (P, R)."""
        assert self.excess is not None
        weight = self.layout.pattern_planes(self.excess.weight)
        return quadratic_sums(smoothed.mean, weight, self.excess.shift)


def run_grouped(
    params: LDSParameters, chain: Chain, drift: Tensor, layout: SeriesLayout
) -> GroupedPass:
    """Covariances of a filter pass, and everything its means need.

    Parameters
    ----------
    params : LDSParameters
        Of group size 1 or 2.
    chain : Chain
        Potentials and excess.
    drift : Tensor (B or 1, T, D)
    layout : SeriesLayout

    Returns
    -------
    GroupedPass
    """
    parameters = _parameter_planes(params)
    potential = _potential_planes(chain.precision, params)
    precision = potential
    if potential.ndim == 5:
        precision = _Diagonal.apply(potential)  # type: ignore[no-untyped-call]
    linear, excess = layout.planes_in(chain.linear), None
    if chain.excess is not None:
        excess = _excess_planes(params, chain, layout)
        precision, linear = precision + excess.weight, linear + excess.shift
    transition, noise, initial, start = parameters
    covariances = filter_covariances(transition, noise, initial, precision)
    if drift.shape[0] == 1 and params.n_inputs == 0:
        moves = to_planes(drift[:, :1], 1, params.group_size)
    else:
        moves = layout.planes_in(drift)
    inputs = ChainInputs(
        linear,
        moves,
        start,
        transition,
        layout.pattern_planes(covariances.predicted),
        layout.pattern_planes(precision),
    )
    matrices = covariances.matrices.expand(layout.expand)
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    return GroupedPass(
        layout, parameters, potential, excess, precision, covariances, inputs, matrices,
        differentiable,
    )  # fmt: skip


def _parameter_planes(params: LDSParameters) -> ParameterPlanes:
    def planes(matrices: Tensor) -> Tensor:
        return matrix_planes_view(matrices[None, None]).contiguous()

    return ParameterPlanes(
        planes(params.transition_matrix),
        planes(params.noise_covariance),
        planes(params.initial_covariance),
        params.initial_mean.mT[:, None, None, None].contiguous(),
    )


def _potential_planes(precision: Tensor, params: LDSParameters) -> Tensor:
    if precision.ndim == 3:
        return to_planes(precision, precision.shape[0], params.group_size)
    blocks = precision.reshape(*precision.shape[:2], params.n_groups, *precision.shape[-2:])
    return matrix_planes_view(blocks).contiguous()


class _Diagonal(torch.autograd.Function):
    """Planes of diagonal matrices from those of their diagonals."""

    @staticmethod
    def forward(ctx: object, diagonal: Tensor) -> Tensor:
        out = diagonal.new_zeros(diagonal.shape[0], *diagonal.shape)
        for k, entry in enumerate(diagonal.unbind(0)):
            out[k, k].copy_(entry)
        return out

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return torch.stack([grad[k, k] for k in range(grad.shape[0])])


def _excess_planes(params: LDSParameters, chain: Chain, layout: SeriesLayout) -> ExcessPlanes:
    assert params.excess is not None and chain.excess is not None
    size = params.group_size
    own = params.excess.precision[:, :size, :size]
    weight = matrix_planes_view(own[None, None]).contiguous()
    shift, followed = chain.excess.linear, chain.excess.followed.mT[:, :, None, None]
    if chain.excess.by_series:
        shift = layout.planes_in(shift)
    else:
        shift = layout.pattern_planes(to_planes(shift, shift.shape[0], size))
    return ExcessPlanes(weight * followed, shift)
