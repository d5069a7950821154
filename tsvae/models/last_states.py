r"""Filtered states after windows with gaps, where each has a missing pattern of its own.

Forecasts need the last state of a window alone. A filter that keeps nothing else stays in the
processor's cache: a step updates the moments of many chains in place, by the formulas of
:mod:`tsvae.lds.filtering` written out for groups of two with diagonal potentials,

.. math::
    S = (P + |P|\, adj\, \Lambda) / |I + P \Lambda|, \qquad m^+ = m + S (h - \Lambda m).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds import LDSParameters, Potentials
from tsvae.models.graphical import State

__all__ = ["can_filter_last", "last_states"]

_ENTRIES_AT_ONCE = 8192  # chains x groups whose moments stay in the cache
_STEPS_AT_ONCE = 16  # laid out together: few enough to stay there, too


class _Steps(NamedTuple):
    """What each step multiplies by: ``(T, ..., N, G)``."""

    linear: Tensor  # (T, 2, N, G), h
    precision: Tensor  # (T, 3, N, G), distinct entries of Lambda
    adjugate: Tensor  # (T, 3, N, G)
    determinant: Tensor  # (T, N, G)


class _Motion(NamedTuple):
    """One transition: ``(N or 1, G)`` entries."""

    matrix: list[list[Tensor]]
    bias: list[Tensor]
    congruence: list[Tensor]  # columns (3, 1, G) of S -> A S A' on distinct entries
    noise: Tensor  # (3, 1, G)


def can_filter_last(params: LDSParameters, potentials: Potentials) -> bool:
    """Say whether :func:`last_states` knows this form: pairs, diagonal potentials, no inputs."""
    return params.group_size == 2 and params.n_inputs == 0 and potentials.precision.ndim == 3


@torch.no_grad()
def last_states(
    params: LDSParameters, potentials: Potentials, lengths: Tensor, at: Tensor
) -> State:
    """Filter, and keep the state of each chain at one step.

    Parameters
    ----------
    params : LDSParameters
        See :func:`can_filter_last`.
    potentials : Potentials
    lengths : Tensor (N,) long
        Steps up to and including the last observed one.
    at : Tensor (N,) long
        Rows of each chain: the state after so many is wanted; 0 is taken for 1.

    Returns
    -------
    State
        ``mean (N, D)``, ``covariance (N, G, 2, 2)``.
    """
    n_chains = potentials.linear.shape[0]
    size = max(1, _ENTRIES_AT_ONCE // params.n_groups)
    parts = []
    for start in range(0, n_chains, size):
        part = slice(start, start + size)
        own = _chains(potentials, part)
        parts.append(_run(params, own, lengths[part], at[part].clamp_min(1) - 1))
    return State(
        torch.cat([part.mean for part in parts]), torch.cat([part.covariance for part in parts])
    )


def _chains(potentials: Potentials, part: slice) -> Potentials:
    """Potentials of some chains, a precision for each of them (or one for all)."""
    precision, pattern = potentials.precision, potentials.pattern
    if pattern is not None:
        precision = precision[pattern[part]]
    elif precision.shape[0] > 1:
        precision = precision[part]
    return Potentials(potentials.linear[part], precision, None)


def _steps(params: LDSParameters, chains: Potentials, lengths: Tensor, start: int) -> _Steps:
    """Lay some steps out, with the excess of expected parameters where a step is followed."""
    groups, rows = params.n_groups, slice(start, start + _STEPS_AT_ONCE)
    linear = _by_step(chains.linear[:, rows], groups)
    diagonal = _by_step(chains.precision[:, rows].expand(linear.shape[2], -1, -1), groups)
    first, last = diagonal.unbind(1)
    mixed = torch.zeros_like(first)
    if params.excess is not None:
        clock = start + torch.arange(linear.shape[0], device=lengths.device)
        followed = (clock[:, None] < lengths - 1).to(linear.dtype)[..., None]  # (T, N, 1)
        extra = params.excess.precision
        first = first + followed * extra[:, 0, 0]
        last = last + followed * extra[:, 1, 1]
        mixed = mixed + followed * extra[:, 0, 1]
        linear = linear - followed.unsqueeze(1) * extra[:, :2, 2].mT.unsqueeze(1)
    eps = torch.finfo(linear.dtype).eps
    product = first * last
    determinant = torch.maximum(product - mixed * mixed, eps * product)
    return _Steps(
        linear,
        torch.stack((first, mixed, last), dim=1),
        torch.stack((last, -mixed, first), dim=1),
        determinant,
    )


def _by_step(values: Tensor, groups: int) -> Tensor:
    """``(N, T, D)`` -> ``(T, 2, N, G)``."""
    return values.unflatten(-1, (groups, 2)).permute(1, 3, 0, 2).contiguous()


def _motion(params: LDSParameters) -> _Motion:
    a = params.transition_matrix.permute(1, 2, 0)
    (p, q), (r, s) = a[0], a[1]
    columns = (
        torch.stack((p * p, p * r, r * r)),
        torch.stack((2 * p * q, p * s + q * r, 2 * r * s)),
        torch.stack((q * q, q * s, s * s)),
    )
    return _Motion(
        [[p, q], [r, s]],
        list(params.bias.unbind(1)),
        [column.unsqueeze(1) for column in columns],
        _distinct(params.noise_covariance),
    )


def _distinct(matrices: Tensor) -> Tensor:
    """``(G, 2, 2)`` -> ``(3, 1, G)``."""
    return torch.stack((matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 1])).unsqueeze(1)


def _run(params: LDSParameters, chains: Potentials, lengths: Tensor, at: Tensor) -> State:
    (n_chains, n_steps), groups = chains.linear.shape[:2], params.n_groups
    motion = _motion(params)
    mean = params.initial_mean.mT.unsqueeze(1).expand(2, n_chains, groups).contiguous()
    covariance = _distinct(params.initial_covariance).expand(3, n_chains, groups).contiguous()
    kept_mean, kept = torch.empty_like(mean), torch.empty_like(covariance)
    ends = set(at.tolist())
    for t in range(n_steps):
        if t % _STEPS_AT_ONCE == 0:
            steps = _steps(params, chains, lengths, t)
        mean, covariance = _update(mean, covariance, steps, t % _STEPS_AT_ONCE)
        if t in ends:
            here = (at == t)[:, None]
            kept_mean = torch.where(here, mean, kept_mean)
            kept = torch.where(here, covariance, kept)
        mean, covariance = _advance(motion, mean, covariance)
    x, y, z = kept.unbind(0)
    matrices = torch.stack((torch.stack((x, y), -1), torch.stack((y, z), -1)), -2)
    return State(kept_mean.permute(1, 2, 0).flatten(1), matrices)


class _Moments(NamedTuple):
    mean: Tensor
    covariance: Tensor


def _update(mean: Tensor, covariance: Tensor, steps: _Steps, t: int) -> _Moments:
    """Multiply by the potentials of step t; the mean is overwritten."""
    x, y, z = covariance.unbind(0)
    l11, l12, l22 = steps.precision[t].unbind(0)
    product = x * z
    det = torch.addcmul(product, y, y, value=-1.0)
    det = torch.maximum(det, product.mul_(torch.finfo(det.dtype).eps))
    odds = torch.addcmul(torch.ones_like(x), x, l11)
    odds.addcmul_(y, l12, value=2.0).addcmul_(z, l22).addcmul_(det, steps.determinant[t])
    after = torch.addcmul(covariance, det, steps.adjugate[t]).div_(odds)
    m0, m1 = mean.unbind(0)
    h0, h1 = steps.linear[t].unbind(0)
    r0 = torch.addcmul(h0, l11, m0, value=-1.0).addcmul_(l12, m1, value=-1.0)
    r1 = torch.addcmul(h1, l12, m0, value=-1.0).addcmul_(l22, m1, value=-1.0)
    s0, s1, s2 = after.unbind(0)
    m0.addcmul_(s0, r0).addcmul_(s1, r1)
    m1.addcmul_(s1, r0).addcmul_(s2, r1)
    return _Moments(mean, after)


def _advance(motion: _Motion, mean: Tensor, covariance: Tensor) -> _Moments:
    """Plug-in prediction of the next step."""
    m0, m1 = mean.unbind(0)
    ahead = torch.empty_like(mean)
    for out, (first, last), bias in zip(ahead.unbind(0), motion.matrix, motion.bias, strict=True):
        torch.addcmul(bias, first, m0, out=out)
        out.addcmul_(last, m1)
    x, y, z = covariance.unbind(0)
    c0, c1, c2 = motion.congruence
    moved = torch.addcmul(motion.noise, c0, x).addcmul_(c1, y).addcmul_(c2, z)
    return _Moments(ahead, moved)
