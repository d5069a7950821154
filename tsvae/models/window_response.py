r"""Filtered states after many windows of one missing pattern, as one matrix product.

Under a linear encoder the filtered mean after the last step is affine in the window,

.. math::
    E[z_T | x_{1..T}] = c + \sum_t F_T \cdots F_{t+1} S_t\, h(x_t), \qquad
    F_t = (I - S_t \Lambda_t) A,

with filtered covariances S_t and potentials (h, Lambda) as in :mod:`tsvae.lds.filtering`. The
weights depend on which entries are seen, not on their values: one chain gives them for all windows
in which everything is seen, and the states after N windows of T steps cost N T D multiplications
instead of N recursions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.components import LARGEST, times_matrix
from tsvae.models.linear_dynamics import Filtered, LinearDynamics
from tsvae.models.svae import SVAE
from tsvae.models.views import Window

__all__ = ["WindowResponse", "has_linear_response", "window_response"]


class WindowResponse(NamedTuple):
    """How the state after a window answers to the entries of the window.

    Attributes
    ----------
    weight : Tensor (T, F', D)
    constant : Tensor (D,)
        Mean after a window of zeros.
    covariance : Tensor (1, G, K, K)
        The same after every window.
    """

    weight: Tensor
    constant: Tensor
    covariance: Tensor

    def mean(self, x: Tensor) -> Tensor:
        """States' means ``(N, D)`` after windows ``(N, T, F')``."""
        return torch.addmm(self.constant, x.flatten(1), self.weight.flatten(0, 1))


def has_linear_response(model: SVAE) -> bool:
    """Say whether states answer linearly to what is seen: no networks, no logarithm of counts."""
    return (
        isinstance(model.dynamics, LinearDynamics)
        and model.encoder.network is None
        and model.decoder.likelihood.support != "count"
        and (model.channelwise or model.n_inputs == 0)
    )


def window_response(model: SVAE, n_steps: int, like: Tensor) -> WindowResponse:
    """Response of the state after ``n_steps`` complete rows.

    Parameters
    ----------
    model : SVAE
        See :func:`has_linear_response`.
    n_steps : int
        T.
    like : Tensor
        Of the dtype and device of the data.

    Returns
    -------
    WindowResponse
    """
    width = model.encoder.n_features
    x = like.new_zeros(1, n_steps, width)
    seen = torch.ones_like(x, dtype=torch.bool)
    window = Window(x, seen, seen, None, torch.full((1,), n_steps, device=x.device))
    filtered: Filtered = model.dynamics.filter(model.potentials(window), None, window.lengths)
    last = model.dynamics.state_after(filtered, window.lengths)
    gain = _suffix_products(filtered) @ filtered.result.filtered_covariance[0]  # (T, G, K, K)
    groups, size = gain.shape[1:3]
    slope = _encoder_slope(model, like).unflatten(-1, (groups, size))  # (F', G, K)
    weight = torch.einsum("tgkl,fgl->tfgk", gain, slope).flatten(-2)
    return WindowResponse(weight, last.mean[0], last.covariance)


def _suffix_products(filtered: Filtered) -> Tensor:
    """F_T ... F_{t+1} for every t, ``(T, G, K, K)``: log2(T) products of all steps."""
    result = filtered.result
    update = result.filtered_covariance[0] @ result.precision[0]
    eye = torch.eye(update.shape[-1], dtype=update.dtype, device=update.device)
    step = (eye - update[1:]) @ filtered.params.transition_matrix
    factors = torch.cat((step, eye.expand_as(update[:1])))
    if len(eye) > LARGEST:
        return _running_products(factors, torch.matmul, 0)
    # Component-first: a batched product of tiny matrices costs ten times its arithmetic.
    planes = factors.permute(2, 3, 0, 1).contiguous()
    return _running_products(planes, times_matrix, 2).permute(2, 3, 0, 1)


def _running_products(
    factors: Tensor, multiply: Callable[[Tensor, Tensor], Tensor], dim: int
) -> Tensor:
    """Products of each factor with all later ones, the latest on the left."""
    n_steps, reach = factors.shape[dim], 1
    while reach < n_steps:
        late = factors.narrow(dim, reach, n_steps - reach)
        ends = factors.narrow(dim, n_steps - reach, reach)
        early = factors.narrow(dim, 0, n_steps - reach)
        factors = torch.cat((multiply(late, early), ends), dim=dim)
        reach *= 2
    return factors


def _encoder_slope(model: SVAE, like: Tensor) -> Tensor:
    """Linear potential that one unit of each variable adds, ``(F', D)``."""
    unit = torch.eye(model.encoder.n_features, dtype=like.dtype, device=like.device).unsqueeze(1)
    both = torch.cat((unit, torch.zeros_like(unit[:1])))
    linear = model.encoder(both, torch.ones_like(both, dtype=torch.bool)).linear.squeeze(1)
    slope: Tensor = linear[:-1] - linear[-1]
    return slope
