r"""Recursions in time over component-first arrays, in a logarithmic number of passes.

The links of a recursion sit between steps: link i joins steps i and i + 1, so a recursion of T
steps has T - 1 links and its adjoint, which runs the other way, uses the same links transposed.

*Odd-even reduction* (affine and congruence recursions). Pairs of steps are merged,
:math:`x_{i+1} = L_i (L_{i-1} x_{i-1} + g_i) + g_{i+1}`, the recursion over every second step is
solved by the same rule, and one vectorised step fills the others: 2 log2(T) vectorised levels, in
all about twice the arithmetic of the loop. Where a single step already fills the vector units (many
series) the plain loop is cheaper and is used instead; levels small enough are handed to numpy
(module ``small_recursions``).

*Riccati recursion*, :math:`P_{t+1} = A S(P_t, \Lambda_t) A' + Q`. The map of several steps is
:math:`P \mapsto F\,S(P, J)\,F' + C`; with :math:`(K, S, X)` the update of covariance :math:`C_1` by
precision :math:`J_2` (``components.update``), two maps compose to

.. math::
    F = F_2 K F_1, \qquad C = F_2 S F_2' + C_2, \qquad J = F_1' X F_1 + J_1,

which is Särkkä & García-Fernández 2021 (arXiv 1905.13002, eq. 15-16) on covariances. Only sums of
positive-semidefinite matrices occur, so it is as stable as the loop. Loops, and stretches of time
side by side where the filter forgets, are in module ``riccati_loops``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tsvae.lds import small_recursions as small
from tsvae.lds.components import (
    TIME,
    congruence,
    posterior,
    steps,
    times_matrix,
    times_vector,
    transpose,
    update,
)
from tsvae.lds.riccati_loops import pair_loop, pair_stretches, scalar_loop

# Numbers per step and component from which a loop over steps beats the reduction.
LOOP_FROM = 2048
LOOP_BELOW = 6


class _Rule(NamedTuple):
    """One step of a recursion, on tensors or on numpy arrays.

    Attributes
    ----------
    apply : callable
        ``L x + g`` or ``L X L' + C`` of link, state and constant.
    compose : callable
        Product of two links.
    copy : callable
        Of a source into a target.
    loop : callable
    on_host : _Rule or None
        The same for small arrays.
    """

    apply: Callable[..., Any]
    compose: Callable[..., Any]
    copy: Callable[..., Any]
    loop: Callable[..., None]
    on_host: _Rule | None = None


class _Halves(NamedTuple):
    """Steps of one level: where pairs start and end, what remains, what precedes it."""

    early: slice
    late: slice
    rest: slice
    before: slice
    rest_links: slice
    inner: tuple[slice, slice]
    first: int


def _halves(n_steps: int, reverse: bool) -> _Halves:
    """Slices of an odd-even level; ``late`` steps form the next level."""
    half, odd = divmod(n_steps, 2)
    if not reverse:
        return _Halves(
            early=slice(0, 2 * half, 2),
            late=slice(1, 2 * half, 2),
            rest=slice(2, n_steps, 2),
            before=slice(1, n_steps - 1, 2),
            rest_links=slice(1, n_steps - 1, 2),
            inner=(slice(2, 2 * half - 1, 2), slice(1, 2 * half - 2, 2)),
            first=0,
        )
    return _Halves(
        early=slice(odd + 1, n_steps, 2),
        late=slice(odd, n_steps, 2),
        rest=slice(1 - odd, n_steps - 1, 2),
        before=slice(2 - odd, n_steps, 2),
        rest_links=slice(1 - odd, n_steps - 1, 2),
        inner=(slice(odd, n_steps - 3, 2), slice(odd + 1, n_steps - 2, 2)),
        first=n_steps - 1,
    )


def _at(values: Any, where: slice | int) -> Any:
    return values[..., where, :, :, :]


def _reduce(
    links: Any, constants: Any, rule: _Rule, reverse: bool, loop_from: int, out: Any
) -> None:
    n_steps = constants.shape[TIME]
    width = math.prod(constants.shape[-3:])
    if n_steps <= LOOP_BELOW or width >= loop_from:
        rule.loop(links, constants, rule.apply, reverse, out)
        return
    if rule.on_host is not None and small.is_small(constants):
        links, constants, out = map(small.as_array, (links, constants, out))
        rule = rule.on_host
    at = _halves(n_steps, reverse)
    # A late step's own link is the one towards the early step before it.
    own = slice(0, n_steps - 1, 2) if not reverse else slice(n_steps % 2, n_steps - 1, 2)
    merged = rule.apply(_at(links, own), _at(constants, at.early), _at(constants, at.late))
    outer, inner = (_at(links, where) for where in at.inner)
    _reduce(rule.compose(outer, inner), merged, rule, reverse, loop_from, _at(out, at.late))
    rule.copy(_at(out, at.first), _at(constants, at.first))
    rest = rule.apply(_at(links, at.rest_links), _at(out, at.before), _at(constants, at.rest))
    rule.copy(_at(out, at.rest), rest)


def _loop(
    links: Tensor, constants: Tensor, apply: Callable[..., Any], reverse: bool, out: Tensor
) -> None:
    moves = list(range(constants.shape[TIME]))
    if reverse:
        moves.reverse()
    links, constants, out = (x.movedim(TIME, 0).unsqueeze(-4) for x in (links, constants, out))
    link, constant, target = links.unbind(0), constants.unbind(0), out.unbind(0)
    target[moves[0]].copy_(constant[moves[0]])
    for past, now in pairwise(moves):
        target[now].copy_(apply(link[min(past, now)], target[past], constant[now]))


_HOST_AFFINE = _Rule(small.times_vector, small.times_matrix, np.copyto, small.loop)
_HOST_CONGRUENCE = _HOST_AFFINE._replace(apply=small.congruence)
_AFFINE = _Rule(times_vector, times_matrix, Tensor.copy_, _loop, _HOST_AFFINE)
_CONGRUENCE = _Rule(congruence, times_matrix, Tensor.copy_, _loop, _HOST_CONGRUENCE)


def _vector_loop(links: Tensor, constants: Tensor, reverse: bool, out: Tensor) -> None:
    """``_loop`` of an affine recursion without a temporary per step."""
    size, moves = links.shape[0], list(range(constants.shape[TIME]))
    if reverse:
        moves.reverse()
    constant, target = constants.unbind(1), out.unbind(1)
    columns = [links[:, k].unbind(1) for k in range(size)]
    entries = [out[k].unbind(0) for k in range(size)]
    target[moves[0]].copy_(constant[moves[0]])
    for past, now in pairwise(moves):
        link = min(past, now)
        torch.addcmul(constant[now], columns[0][link], entries[0][past], out=target[now])
        for k in range(1, size):
            target[now].addcmul_(columns[k][link], entries[k][past])


def affine(links: Tensor, constants: Tensor, reverse: bool = False) -> Tensor:
    """Run ``x_{i+1} = L_i x_i + g_{i+1}``; in reverse, ``x_i = L_i x_{i+1} + g_i``.

    Parameters
    ----------
    links : Tensor (K, K, T-1, P, 1 or R, G)
    constants : Tensor (K, T, P, R, G)
    reverse : bool, default=False

    Returns
    -------
    Tensor (K, T, P, R, G)
    """
    out = torch.empty_like(constants, memory_format=torch.contiguous_format)
    # Merging links costs K times a step of the states unless many series share them.
    shared = constants.shape[-2] > 1
    if constants.shape[-3:].numel() >= (LOOP_FROM if shared else LOOP_FROM // 4):
        _vector_loop(links, constants, reverse, out)
        return out
    _reduce(links, constants, _AFFINE, reverse, LOOP_FROM, out)
    return out


def congruences(links: Tensor, constants: Tensor, reverse: bool = False) -> Tensor:
    """Run ``X_{i+1} = L_i X_i L_i' + C_{i+1}`` (reverse: ``X_i = L_i X_{i+1} L_i' + C_i``).

    Parameters
    ----------
    links : Tensor (K, K, T-1, P, 1, G)
    constants : Tensor (K, K, T, P, 1, G)
    reverse : bool, default=False

    Returns
    -------
    Tensor (K, K, T, P, 1, G)
    """
    out = torch.empty_like(constants, memory_format=torch.contiguous_format)
    _reduce(links, constants, _CONGRUENCE, reverse, LOOP_FROM, out)
    return out


class _Maps(NamedTuple):
    """Maps P -> F S(P, J) F' + C of consecutive stretches of time."""

    factor: Tensor
    constant: Tensor
    precision: Tensor

    def pick(self, start: int, stop: int | None = None, stride: int = 1) -> _Maps:
        return _Maps(*(steps(part, start, stop, stride) for part in self))

    def then(self, late: _Maps) -> _Maps:
        keep, filtered, shrinkage, _ = update(self.constant, late.precision)
        return _Maps(
            times_matrix(times_matrix(late.factor, keep), self.factor),
            congruence(late.factor, filtered, late.constant),
            congruence(transpose(self.factor), shrinkage, self.precision),
        )

    def apply(self, covariance: Tensor) -> Tensor:
        return congruence(self.factor, posterior(covariance, self.precision), self.constant)


def riccati(transition: Tensor, noise: Tensor, initial: Tensor, precision: Tensor) -> Tensor:
    """Predicted covariances of the filter.

    Parameters
    ----------
    transition, noise, initial : Tensor (K, K, 1, 1, 1, G)
    precision : Tensor (K, K, T, P, 1, G)

    Returns
    -------
    Tensor (K, K, T, P, 1, G)
    """
    out = torch.empty_like(precision, memory_format=torch.contiguous_format)
    if precision.shape[-3:].numel() >= LOOP_FROM // 4:
        run = scalar_loop if precision.shape[0] == 1 else pair_loop
        run(transition, noise, initial, precision, out)
        return out
    done = 0
    if precision.shape[0] == 2:
        if small.is_small(precision[0, 0]):
            done = small.riccati_pairs(transition, noise, initial, precision, out)
        elif pair_stretches(transition, noise, initial, precision, out):
            done = out.shape[TIME]
    if done == out.shape[TIME]:
        return out
    if not done:
        steps(out, 0, 1).copy_(initial.expand_as(steps(out, 0, 1)))
    start = max(done - 1, 0)
    links = steps(precision, start, -1)
    maps = _Maps(transition.expand_as(links), noise.expand_as(links), links)
    _compose(maps, steps(out, start))
    if out.shape[0] == 2:
        # Rounding leaves an asymmetry of the last digit.
        out[0, 1].add_(out[1, 0]).mul_(0.5)
        out[1, 0].copy_(out[0, 1])
    return out


def _compose(maps: _Maps, out: Tensor) -> None:
    """Fill ``out`` from its first step on; map i leads from step i to i + 1."""
    n_maps = maps.precision.shape[TIME]
    if n_maps == 0:
        return
    even = 2 * (n_maps // 2)
    pairs = maps.pick(0, even, 2).then(maps.pick(1, even, 2))
    _compose(pairs, steps(out, 0, even + 1, 2))
    start = steps(out, 0, n_maps, 2)
    steps(out, 1, None, 2).copy_(maps.pick(0, None, 2).apply(start))
