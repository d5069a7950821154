"""Expected parameters of a natural q(theta) and its divergence, by one call of autograd.

Both factors go through the same calls, and the parts of ``parameters_from_expectations`` are taken
apart on the host: calls, and slices of tensors that record gradients, cost more than all the
arithmetic.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.natural import FactorSize
from tsvae.lds.natural_factor import Array, to_device, to_host
from tsvae.lds.natural_gradient import HostFactor, PriorFactor, prior_factor
from tsvae.lds.parameters import Excess, LDSParameters
from tsvae.lds.priors import MNIW


class ThetaTerms(NamedTuple):
    """Parameters for inference and the KL of q(theta), which share their work."""

    params: LDSParameters
    kl: Tensor


def joint_prior_factor(initial: MNIW, transition: MNIW) -> PriorFactor:
    """Priors of both factors, one after the other.

    The initial state's gets as many regressors as the transition's: those that it has not are as
    in the prior, whatever is learned, and add nothing.
    """
    groups, _, regressors = transition.mean.shape
    mean = torch.zeros_like(transition.mean)
    mean[..., :1] = initial.mean
    rows = torch.eye(regressors).to(transition.precision).repeat(groups, 1, 1)
    rows[:, :1, :1] = initial.precision
    padded = MNIW(initial.scale, initial.degrees_of_freedom, mean, rows)
    return prior_factor(MNIW(*(torch.cat(pair) for pair in zip(padded, transition, strict=True))))


def natural_parameters(
    initial: Tensor, transition: Tensor, size: FactorSize, prior: PriorFactor
) -> ThetaTerms:
    """Parameters for inference, with excess, and KL; ``backward`` yields natural directions.

    Parameters
    ----------
    initial : Tensor (G, n_0)
        Unconstrained factor of the initial state (L = 1).
    transition : Tensor (G, n)
        That of the transition (L = K + U + 1: state, inputs, bias).
    size : FactorSize
        K and L of the transition.
    prior : PriorFactor
        From ``joint_prior_factor``.

    Returns
    -------
    ThetaTerms
    """
    *parts, excess, later, first, kl = _Parameters.apply(  # type: ignore[no-untyped-call]
        initial, transition, size, prior
    )
    params = LDSParameters._make((*parts, Excess(excess, later, first)))
    return ThetaTerms(params, kl)


@lru_cache(maxsize=64)
def _positions(size: FactorSize) -> Array:
    """Where the numbers of a factor with one regressor are in a larger one."""
    k, n = size
    rows = k * n + k * (k + 1) // 2
    return np.array([*range(0, k * n, n), *range(k * n, rows + 1), size.n_free - 1])


class _Parameters(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, initial: Tensor, transition: Tensor, size: FactorSize, prior: PriorFactor
    ) -> tuple[Tensor, ...]:
        groups, k = len(transition), size.outcomes
        xi = np.zeros((2 * groups, size.n_free))
        xi[:groups, _positions(size)] = to_host(initial)
        xi[groups:] = to_host(transition)
        host = ctx.host = HostFactor(xi, size, prior)
        ctx.likes = initial.detach(), transition.detach()
        ctx.set_materialize_grads(False)
        mean, noise, excess, constant = host.expectations
        parts = (
            mean[:groups, :, 0],
            noise[:groups],
            mean[groups:, :, :k],
            noise[groups:],
            mean[groups:, :, k:-1],
            mean[groups:, :, -1],
            excess[groups:],
            constant[groups:],
            constant[:groups] - 0.5 * excess[:groups, 0, 0],
        )
        kl = transition.new_tensor(host.kl)
        return *(to_device(part, transition) for part in parts), kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [None if grad is None else to_host(grad) for grad in grads]
        found = ctx.host.direction(_stacked(given, ctx.host), given[9])
        if found is None:
            return None, None, None, None
        initial, transition = ctx.likes
        groups = len(transition)
        return (
            to_device(found[:groups, _positions(ctx.host.size)], initial),
            to_device(found[groups:], transition),
            None,
            None,
        )


def _stacked(given: list[Array | None], host: HostFactor) -> list[Array | None]:
    """Gradients by phi of both factors, from those by the parts of the parameters."""
    start, spread, matrix, noise, inputs, bias, excess, later, first = given[:9]
    groups, k = len(host.expectations[0]) // 2, host.size.outcomes
    a, b = slice(groups), slice(groups, None)
    row = None if first is None else -0.5 * first
    pieces: list[list[tuple[Any, Array | None]]] = [
        [
            ((a, slice(None), 0), start),
            ((b, slice(None), slice(k)), matrix),
            ((b, slice(None), slice(k, -1)), inputs),
            ((b, slice(None), -1), bias),
        ],
        [(a, spread), (b, noise)],
        [((a, 0, 0), row), (b, excess)],
        [(a, first), (b, later)],
    ]
    return [_filled(like, parts) for like, parts in zip(host.expectations, pieces, strict=True)]


def _filled(like: Array, parts: list[tuple[Any, Array | None]]) -> Array | None:
    """Array with these parts and zeros; None if there are none."""
    if all(part is None for _, part in parts):
        return None
    filled = np.zeros_like(like)
    for where, part in parts:
        if part is not None:
            filled[where] = part
    return filled
