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
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tsvae.lds.components import LARGEST
from tsvae.lds.layout import (
    SeriesLayout,
    covariances_out,
    matrices_out,
    repeat_groups,
    series_layout,
)
from tsvae.lds.linalg import identity_like
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.passes import run_grouped
from tsvae.lds.potentials import Potentials, block_precision
from tsvae.lds.scans import affine_scan, covariance_recursion


class ChainExcess(NamedTuple):
    """The part of the potentials and of the normaliser that comes from expected parameters.

    Attributes
    ----------
    linear : Tensor (1, P or B; T, D)
        ``-C_zk [u_{t+1}; 1]`` at steps with a successor in the chain; one row per pattern
        without inputs.
    followed : Tensor (1 or P, T)
        1 at those steps, where ``-z' C_zz z / 2`` applies as well.
    constant : Tensor (B,)
        Part of the log-normaliser that depends on neither states nor potentials.
    by_series : bool
        Whether the rows of ``linear`` are series (there are inputs), not patterns.
    """

    linear: Tensor
    followed: Tensor
    constant: Tensor
    by_series: bool

    def shift(self, pattern: Tensor | None, n_series: int) -> Tensor:
        """Return ``linear`` for every series, ``(B, T, D)``."""
        if self.by_series:
            return self.linear
        return per_series(self.linear, pattern if len(self.linear) > 1 else None, n_series)

    def followed_steps(self, pattern: Tensor | None, n_series: int) -> Tensor:
        """Return ``followed`` for every series, ``(B, T)``."""
        return per_series(self.followed, pattern if len(self.followed) > 1 else None, n_series)


class Means(Protocol):
    """Where a ``FilterResult`` finds the states' means."""

    def filtered(self) -> Tensor:
        """E[z_t | potentials up to t], (B, T, D)."""

    def filtered_at(self, at: Tensor) -> Tensor:
        """E[z_t | potentials up to t] at one step of each series, (B, D)."""

    def predicted(self) -> Tensor:
        """E[z_t | potentials before t], (B, T, D)."""

    def normalizer(self) -> Tensor:
        """Log-normaliser less the log-determinants and the excess, (B,)."""


@dataclass(frozen=True, eq=False)
class FilterResult:
    """Filtered and predicted moments of every state.

    The means and the log-normaliser are computed when first asked for.

    Attributes
    ----------
    filtered_mean : Tensor (B, T, D)
        E[z_t | potentials up to t].
    filtered_covariance : Tensor (P, T, G, K, K)
    predicted_mean : Tensor (B, T, D)
        E[z_t | potentials before t].
    predicted_covariance : Tensor (P, T, G, K, K)
    log_normalizer : Tensor (B,)
        log of the integral of p(z) (or exp of its expected log) times all potentials.
    pattern : Tensor (B,) long or None
        Row of the covariances of each series (None: P is 1 or B). With expected parameters,
        patterns are split further where series of one pattern end at different steps.
    linear : Tensor (B, T, D)
        The potentials really applied (excess included).
    precision : Tensor (P, T, G, K, K)
        Likewise.
    residual_log_det : Tensor (P, T, G)
        log |I + P_t Lambda_t|.
    drift : Tensor (B or 1, T, D)
        c_t = B u_t + b (row 0 unused).
    excess : ChainExcess or None
        What expected parameters added; None for plug-in ones.
    layout : SeriesLayout
        Inner arrangement of the series.
    n_series : int
        B.
    """

    filtered_covariance: Tensor
    predicted_covariance: Tensor
    pattern: Tensor | None
    precision: Tensor
    residual_log_det: Tensor
    drift: Tensor
    excess: ChainExcess | None
    layout: SeriesLayout
    n_series: int
    potentials: Tensor = field(repr=False)
    means: Means = field(repr=False)
    # A value first read under no_grad must not lose the gradient of later readers.
    grad_enabled: bool = field(default_factory=torch.is_grad_enabled, repr=False)

    @cached_property
    def filtered_mean(self) -> Tensor:
        """E[z_t | potentials up to t], (B, T, D)."""
        with torch.set_grad_enabled(self.grad_enabled):
            return self.means.filtered()

    def mean_at(self, at: Tensor) -> Tensor:
        """Pick the filtered mean at one step of each series, ``at (B,)`` -> ``(B, D)``."""
        return self.means.filtered_at(at)

    @cached_property
    def predicted_mean(self) -> Tensor:
        """E[z_t | potentials before t], (B, T, D)."""
        with torch.set_grad_enabled(self.grad_enabled):
            return self.means.predicted()

    @cached_property
    def linear(self) -> Tensor:
        """Return the potentials really applied, (B, T, D)."""
        with torch.set_grad_enabled(self.grad_enabled):
            if self.excess is None:
                return self.potentials
            return self.potentials + self.excess.shift(self.pattern, self.n_series)

    @cached_property
    def log_normalizer(self) -> Tensor:
        """Log of the integral of p(z) times all potentials, (B,)."""
        with torch.set_grad_enabled(self.grad_enabled):
            log_det = self.residual_log_det.sum(dim=(1, 2))
            total = self.means.normalizer() - 0.5 * per_series(log_det, self.pattern, self.n_series)
            return total if self.excess is None else total + self.excess.constant


class Chain(NamedTuple):
    """Potentials as given, the patterns they need, and what the excess adds.

    ``precision`` is diagonal ``(P, T, D)`` or blocks ``(P, T, G, K, K)``.
    """

    linear: Tensor
    precision: Tensor
    pattern: Tensor | None
    excess: ChainExcess | None


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
    >>> result.filtered_mean.flatten().tolist(), result.filtered_covariance.flatten().tolist()
    ([1.0, 1.0], [0.5, 1.5])
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
    run = _run_planes if size <= LARGEST else _run_general
    return run(params, chain, drift, layout)


def _run_planes(
    params: LDSParameters, chain: Chain, drift: Tensor, layout: SeriesLayout
) -> FilterResult:
    grouped = run_grouped(params, chain, drift, layout)
    covariances = grouped.covariances
    return FilterResult(
        filtered_covariance=matrices_out(covariances.filtered),
        predicted_covariance=matrices_out(covariances.predicted),
        pattern=chain.pattern,
        precision=matrices_out(grouped.precision),
        residual_log_det=covariances.log_det.squeeze(-2).transpose(0, 1),
        drift=drift,
        excess=chain.excess,
        layout=layout,
        n_series=chain.linear.shape[0],
        potentials=chain.linear,
        means=grouped,
    )


class _GeneralMeans(NamedTuple):
    """Means ``(T, N, R, K)`` and what their normaliser needs, in the inner layout."""

    layout: SeriesLayout
    after: Tensor
    before: Tensor
    potentials: Tensor
    precision: Tensor
    gain: Tensor

    def filtered(self) -> Tensor:
        return self.layout.states_out(self.after)

    def filtered_at(self, at: Tensor) -> Tensor:
        return self.filtered()[torch.arange(len(at), device=at.device), at]

    def predicted(self) -> Tensor:
        return self.layout.states_out(self.before)

    def normalizer(self) -> Tensor:
        pull = self.before @ self.precision
        residual = self.potentials - pull
        quadratic = (self.before * (self.potentials - 0.5 * pull)).sum(-1)
        quadratic = quadratic + 0.5 * (residual * (residual @ self.gain)).sum(-1)
        return self.layout.series_sums(quadratic)


def _run_general(
    params: LDSParameters, chain: Chain, drift: Tensor, layout: SeriesLayout
) -> FilterResult:
    groups, n_series = params.n_groups, chain.linear.shape[0]
    precisions = block_precision(chain.precision, groups, params.group_size)
    applied = chain.linear
    if chain.excess is not None:
        assert params.excess is not None
        weight = params.excess.precision[:, : params.group_size, : params.group_size]
        precisions = precisions + chain.excess.followed[:, :, None, None, None] * weight
        applied = applied + chain.excess.shift(chain.pattern, n_series)
    n_patterns = precisions.shape[0]
    covariance = covariance_recursion(
        repeat_groups(params.transition_matrix, n_patterns),
        repeat_groups(params.noise_covariance, n_patterns),
        repeat_groups(params.initial_covariance, n_patterns),
        precisions.permute(1, 2, 0, 3, 4).flatten(1, 2),
    )
    predicted_covariance = covariances_out(covariance.predicted, groups)
    filtered_covariance = covariances_out(covariance.filtered, groups)

    gain = layout.covariances_in(filtered_covariance)
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
    return FilterResult(
        filtered_covariance=filtered_covariance,
        predicted_covariance=predicted_covariance,
        pattern=chain.pattern,
        precision=precisions,
        residual_log_det=covariance.log_det.unflatten(1, (groups, -1)).permute(2, 0, 1),
        drift=drift,
        excess=chain.excess,
        layout=layout,
        n_series=n_series,
        potentials=chain.linear,
        means=_GeneralMeans(layout, filtered, predicted, linear, precision, gain),
    )


def per_series(values: Tensor, pattern: Tensor | None, n_series: int) -> Tensor:
    """Spread values of P patterns over the B series that use them.

    Parameters
    ----------
    values : Tensor (P, ...)
    pattern : Tensor (B,) long or None
        Row of ``values`` of each series; None when P is 1 or B.
    n_series : int
        B.

    Returns
    -------
    Tensor (B, ...)
        A view where P is 1 or B.
    """
    if pattern is not None:
        return values.index_select(0, pattern)
    return values.expand(n_series, *values.shape[1:])


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


class StateAt(NamedTuple):
    """One state of every series: ``mean (B, D)``, ``covariance (1 or B, G, K, K)``."""

    mean: Tensor
    covariance: Tensor


def final_state(filtered: FilterResult, lengths: Tensor | None = None) -> StateAt:
    """Pick the filtered state at each series' last observed step: where forecasts start.

    Parameters
    ----------
    filtered : FilterResult
    lengths : Tensor (B,) long, optional
        All T by default. A series of length 0 gives the prior of its first state.

    Returns
    -------
    StateAt
        ``mean (B, D)`` and ``covariance (1, G, K, K)`` if all share it, else ``(B, G, K, K)``.
    """
    n_series, steps = filtered.n_series, filtered.filtered_covariance.shape[1]
    if lengths is None or bool((lengths == steps).all()):
        last = filtered.filtered_covariance[:, -1]
        if last.shape[0] != 1:
            last = per_series(last, filtered.pattern, n_series)
        at = torch.full((n_series,), steps - 1, device=last.device)
        return StateAt(filtered.mean_at(at), last)
    at = lengths.clamp_min(1) - 1
    index = filtered.pattern
    if index is None:
        rows = torch.arange(n_series, device=at.device)
        index = rows if filtered.filtered_covariance.shape[0] == n_series else 0 * rows
    return StateAt(filtered.mean_at(at), filtered.filtered_covariance[index, at])
