r"""Information-form Kalman filter with Gaussian potentials, and its log-normaliser.

q(z) is proportional to :math:`p(z) \prod_t \exp(h_t'z_t - \tfrac12 z_t'\Lambda_t z_t)`. With
predicted moments :math:`(m, P)` of :math:`z_t`, multiplying by the potential gives

.. math::
    S = (P^{-1} + \Lambda)^{-1}, \qquad m^+ = m + S r, \qquad r = h - \Lambda m, \\
    \log Z_t = h'm - \tfrac12 m'\Lambda m + \tfrac12 r'Sr - \tfrac12 \log|I + P\Lambda|,

and prediction is :math:`m = A m^+ + c_t,\; P = A S A' + Q` with :math:`c_t = B u_t + b`. The means
follow :math:`m^+_t = F_t m^+_{t-1} + (I - S_t\Lambda_t) c_t + S_t h_t` with
:math:`F_t = (I - S_t\Lambda_t) A`: one affine recursion, everything else is vectorised over time.

**Expected parameters.** Under q(theta) (mean field; Johnson et al. 2016, arXiv 1603.06277, eq. 7
and appendix B.2; Zhao & Linderman 2023, arXiv 2305.16543, section 3) the expected log transition is

.. math::
    E\log p(z_t | z_{t-1}) = \log N(z_t; M w_t, E[Q^{-1}]^{-1})
    + \tfrac12(E\log|Q^{-1}| - \log|E Q^{-1}|) - \tfrac12 w_t' K V^{-1} w_t,
    \quad w_t = [z_{t-1}; u_t; 1].

So it is plug-in filtering with one more potential on :math:`z_{t-1}`. That potential is *not*
neutral on unobserved steps: applied to trailing padding it would pull the state towards zero.
Each chain therefore ends at its last observed step (``lengths``): steps with
``t < lengths - 1`` carry the excess, later ones are the plug-in forecast and contribute nothing to
the log-normaliser.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.components import LARGEST
from tsvae.lds.filter_result import Chain, ChainExcess, FilterResult, Moments
from tsvae.lds.joint_pass import run_joint
from tsvae.lds.layout import SeriesLayout, series_layout
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.passes import run_grouped
from tsvae.lds.potentials import Potentials, block_precision
from tsvae.lds.short_pass import ShortPass
from tsvae.lds.stepwise_pass import run_stepwise

# Chains of up to so many numbers T K are taken as one matrix each if there are few of them, and
# step by step if there are some: planes ask for more operations than T steps do.
SHORT_CHAIN = 64
FEW_CHAINS = 64
SOME_CHAINS = 256


def filter_states(
    params: LDSParameters,
    potentials: Potentials,
    inputs: Tensor | None = None,
    lengths: Tensor | None = None,
) -> FilterResult:
    """Run the Kalman filter.

    Parameters
    ----------
    params : LDSParameters
        Plug-in, or expected under q(theta) (``excess`` set).
    potentials : Potentials
        ``linear (B, T, D)`` and ``precision`` of P patterns in any form. Must be zero after a
        series' last observed step.
    inputs : Tensor (B, T, U), optional
        Known inputs at the arriving step (row 0 is unused). Needed when ``params`` has inputs.
    lengths : Tensor (B,) long, optional
        Steps up to and including each series' last observed one; all T by default. Only the
        excess of expected parameters depends on it.

    Returns
    -------
    FilterResult

    Raises
    ------
    ValueError
        If shapes do not fit each other.

    References
    ----------
    Johnson et al. 2016 (arXiv 1603.06277), appendix B; Zhao & Linderman 2023 (arXiv 2305.16543),
    section 3.

    Examples
    --------
    >>> from tsvae.lds import make_parameters
    >>> params = make_parameters(torch.ones(1, 1), torch.ones(1, 1))
    >>> seen = Potentials(torch.tensor([[[2.0], [0.0]]]), torch.tensor([[[1.0], [0.0]]]))
    >>> result = filter_states(params, seen)
    >>> result.filtered_mean.flatten(), result.filtered_covariance.flatten()
    (tensor([1.0000, 1.0000]), tensor([0.5000, 1.5000]))
    """
    groups, size = params.n_groups, params.group_size
    precision = potentials.precision
    if precision.ndim != 3 or precision.shape[2] != params.latent_dim:
        precision = block_precision(precision, groups, size)
    _check_shapes(params, potentials, precision, inputs, lengths)
    drift = state_drift(params, potentials.linear.shape[1], inputs)
    chain = _with_excess(params, potentials, precision, inputs, lengths)
    n_series = chain.linear.shape[0]
    layout = series_layout(n_series, chain.precision.shape[0], chain.pattern, groups, size)
    moments = _run(params, chain, drift, layout)
    return FilterResult(chain.pattern, chain.excess, layout, potentials.linear, moments)


_WAYS: dict[str, Callable[..., Moments | None]] = {
    "short": partial(run_joint, kind=ShortPass),
    "planes": run_grouped,
    "joint": run_joint,
    "stepwise": run_stepwise,
}


def ways(n_steps: int, group_size: int, n_matrices: int) -> tuple[str, ...]:
    """Exact ways to run a pass, the cheapest for the shape first.

    Parameters
    ----------
    n_steps, group_size : int
        T, K.
    n_matrices : int
        G * P, recursions of covariances.

    Returns
    -------
    tuple of str
        "short" (module ``short_pass``), "planes" (``passes``), "joint" (``joint_pass``) and
        "stepwise" (``stepwise_pass``); a way that cannot be taken leaves it to the next.
    """
    own = "planes" if group_size <= LARGEST else "joint"
    if n_steps * group_size > SHORT_CHAIN or n_matrices > SOME_CHAINS:
        return own, "stepwise"
    if n_matrices <= FEW_CHAINS:
        return "short", own, "stepwise"
    return ("joint", "planes", "stepwise") if own == "planes" else (own, "stepwise")


def _run(params: LDSParameters, chain: Chain, drift: Tensor, layout: SeriesLayout) -> Moments:
    patterns, steps = chain.precision.shape[:2]
    for way in ways(steps, params.group_size, params.n_groups * patterns):
        moments = _WAYS[way](params, chain, drift, layout)
        if moments is not None:
            return moments
    raise AssertionError("the last way takes everything")


def state_drift(params: LDSParameters, steps: int, inputs: Tensor | None) -> Tensor:
    """c_t = B u_t + b as ``(B, T, D)``, or ``(1, T, D)`` without inputs."""
    bias = params.bias.reshape(-1)
    if params.n_inputs == 0 or inputs is None:
        return bias.expand(1, steps, -1)
    return inputs @ params.input_matrix.reshape(params.latent_dim, -1).mT + bias


def _with_excess(
    params: LDSParameters,
    potentials: Potentials,
    precision: Tensor,
    inputs: Tensor | None,
    lengths: Tensor | None,
) -> Chain:
    """Find what expected parameters add to the potentials of steps that have a successor."""
    linear, pattern = potentials.linear, potentials.pattern
    if pattern is not None and precision.shape[0] == 1:
        pattern = None
    if params.excess is None:
        return Chain(linear, precision, pattern, None)
    n_series, steps = linear.shape[:2]
    clock = torch.arange(steps, device=linear.device)
    ends = clock.new_full((1,), steps)
    if lengths is None:
        lengths = ends.expand(n_series)
    else:
        precision, pattern, ends = _split_by_length(precision, pattern, lengths)
    followed = (clock < ends[:, None] - 1).to(linear.dtype)
    known = known_regressors(params, linear, inputs)[:, 1:]
    known = torch.cat((known, known.new_zeros(known.shape[0], 1, known.shape[2])), dim=1)
    each = (clock < lengths[:, None] - 1).to(linear.dtype)
    by_series = params.n_inputs > 0
    where = each if by_series else followed
    size = params.group_size
    mixed = params.excess.precision[:, :size, size:].reshape(params.latent_dim, -1)
    shift = -where[:, :, None] * (known @ mixed.mT)
    shared = params.excess.precision[:, size:, size:].sum(0)
    cost = 0.5 * (known * (known @ shared)).sum(-1)
    constant = (each * (params.excess.transition_constant.sum() - cost)).sum(1)
    constant = constant + (lengths > 0) * params.excess.initial_constant.sum()
    return Chain(linear, precision, pattern, ChainExcess(shift, followed, constant, by_series))


def known_regressors(params: LDSParameters, like: Tensor, inputs: Tensor | None) -> Tensor:
    """Known part [u_t; 1] of the regressors: ``(B or 1, T, U + 1)``."""
    if params.n_inputs == 0 or inputs is None:
        return like.new_ones(1, like.shape[1], 1)
    return torch.cat((inputs, torch.ones_like(inputs[..., :1])), dim=-1)


class _Split(NamedTuple):
    precision: Tensor
    pattern: Tensor | None
    lengths: Tensor


def _split_by_length(precision: Tensor, pattern: Tensor | None, lengths: Tensor) -> _Split:
    """Split patterns whose series end at different steps."""
    n_series, n_patterns = lengths.shape[0], precision.shape[0]
    if n_patterns == n_series and pattern is None:
        return _Split(precision, None, lengths)
    index = torch.zeros_like(lengths) if pattern is None else pattern
    pairs, split = torch.unique(torch.stack((index, lengths), 1), dim=0, return_inverse=True)
    if pairs.shape[0] == n_series:
        return _Split(precision[index], None, lengths)
    one = pairs.shape[0] == 1
    return _Split(precision[pairs[:, 0]], None if one else split, pairs[:, 1])


def _check_shapes(
    params: LDSParameters,
    potentials: Potentials,
    precision: Tensor,
    inputs: Tensor | None,
    lengths: Tensor | None,
) -> None:
    shape = tuple(potentials.linear.shape)
    if len(shape) != 3 or shape[2] != params.latent_dim or math.prod(shape[:2]) == 0:
        raise ValueError(
            f"potentials.linear has shape {shape}; expected (B, T, {params.latent_dim}) with at "
            "least one series and one step, matching the latent size of params."
        )
    if precision.shape[1] != shape[1]:
        raise ValueError(
            f"potentials.precision has {precision.shape[1]} steps but potentials.linear has "
            f"{shape[1]}; both need the same T."
        )
    pattern = potentials.pattern
    if pattern is None and precision.shape[0] not in (1, shape[0]):
        raise ValueError(
            f"precision has {precision.shape[0]} patterns for {shape[0]} series; give Potentials "
            "a `pattern` index of shape (B,), or 1 or B patterns."
        )
    if pattern is not None and pattern.shape != (shape[0],):
        raise ValueError(f"pattern has shape {tuple(pattern.shape)}; expected ({shape[0]},).")
    check_inputs(params, inputs, shape[0], shape[1])
    if lengths is not None and lengths.shape != (shape[0],):
        raise ValueError(f"lengths has shape {tuple(lengths.shape)}; expected ({shape[0]},).")


def check_inputs(params: LDSParameters, inputs: Tensor | None, n_series: int, steps: int) -> None:
    """Raise ValueError when inputs are missing or of the wrong shape."""
    expected = (n_series, steps, params.n_inputs)
    if inputs is None:
        if params.n_inputs > 0:
            raise ValueError(
                f"params have {params.n_inputs} inputs but inputs=None; pass a tensor {expected}."
            )
    elif tuple(inputs.shape) != expected:
        raise ValueError(f"inputs has shape {tuple(inputs.shape)}; expected {expected}.")
