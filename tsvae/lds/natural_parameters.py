"""Expected parameters of a natural q(theta) and its divergence, by one call of autograd.

The parts of ``parameters_from_expectations`` are taken apart on the host: slices of tensors that
record gradients cost more than all the arithmetic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.natural import FactorSize
from tsvae.lds.natural_factor import Array, to_device, to_host
from tsvae.lds.natural_gradient import HostFactor, PriorFactor
from tsvae.lds.parameters import Excess, LDSParameters


class NaturalFactor(NamedTuple):
    """A factor and its prior.

    Attributes
    ----------
    xi : Tensor (G, n)
        Unconstrained factor.
    size : FactorSize
    prior : PriorFactor
    """

    xi: Tensor
    size: FactorSize
    prior: PriorFactor


class ThetaTerms(NamedTuple):
    """Parameters for inference and the KL of q(theta), which share their work."""

    params: LDSParameters
    kl: Tensor


def natural_parameters(initial: NaturalFactor, transition: NaturalFactor) -> ThetaTerms:
    """Parameters for inference, with excess, and KL; ``backward`` yields natural directions.

    Parameters
    ----------
    initial : NaturalFactor
        Of the initial state (L = 1).
    transition : NaturalFactor
        Of the transition (L = K + U + 1: state, inputs, bias).

    Returns
    -------
    ThetaTerms
    """
    *parts, excess, later, first, kl = _Parameters.apply(  # type: ignore[no-untyped-call]
        initial.xi, transition.xi, initial, transition
    )
    params = LDSParameters._make((*parts, Excess(excess, later, first)))
    return ThetaTerms(params, kl)


class _Parameters(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, xi: Tensor, other: Tensor, initial: NaturalFactor, transition: NaturalFactor
    ) -> tuple[Tensor, ...]:
        first, later = ctx.hosts = HostFactor(*initial), HostFactor(*transition)
        ctx.set_materialize_grads(False)
        start, spread, row, log_det = first.expectations
        regression, noise, excess, constant = later.expectations
        size = noise.shape[-1]
        parts = (
            start[..., 0],
            spread,
            regression[..., :size],
            noise,
            regression[..., size:-1],
            regression[..., -1],
            excess,
            constant,
            log_det - 0.5 * row[..., 0, 0],
        )
        kl = xi.new_tensor(first.kl + later.kl)
        return *(to_device(part, xi) for part in parts), kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [None if grad is None else to_host(grad) for grad in grads]
        start, spread, matrix, noise, inputs, bias, excess, constant, log_det, weight = given
        first, later = ctx.hosts
        regression = _joined(later.expectations[0], matrix, inputs, bias)
        row = None if log_det is None else -0.5 * log_det[:, None, None]
        start = None if start is None else start[..., None]
        return (
            first.direction((start, spread, row, log_det), weight),
            later.direction((regression, noise, excess, constant), weight),
            None,
            None,
        )


def _joined(
    like: Array, matrix: Array | None, inputs: Array | None, bias: Array | None
) -> Array | None:
    """Gradient by ``[A B b]`` from those of its parts; None if all are."""
    if matrix is None and inputs is None and bias is None:
        return None
    size = like.shape[1]
    joined = np.zeros_like(like)
    for target, part in (
        (joined[..., :size], matrix),
        (joined[..., size:-1], inputs),
        (joined[..., -1], bias),
    ):
        if part is not None:
            target[...] = part
    return joined
