r"""Recursions in time over component-first arrays, in a logarithmic number of passes.

The links of a recursion sit between steps: link i joins steps i and i + 1, so a recursion of T
steps has T - 1 links and its adjoint, which runs the other way, uses the same links transposed.

*Odd-even reduction* (affine and congruence recursions). Pairs of steps are merged,
:math:`x_{i+2} = L_{i+1} (L_i x_i + g_{i+1}) + g_{i+2}`, the recursion over every second step is
solved by the same rule, and one vectorised step fills the others: 2 log2(T) vectorised levels, in
all about twice the arithmetic of the loop. Products of links serve all recursions over the same
links, in both directions. Where a single step already fills the vector units (many series) the
plain loop is cheaper and is used instead; levels small enough are handed to numpy (module
``small_recursions``).

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
    distinct,
    posterior,
    steps,
    times_matrix,
    transpose,
    update,
    whole,
)
from tsvae.lds.riccati_loops import pair_loop, pair_stretches, scalar_loop

# Numbers per step and component from which a loop over steps beats the reduction.
LOOP_FROM = 2048
LOOP_BELOW = 6
_EVEN, _ODD = slice(0, None, 2), slice(1, None, 2)


class _Rule(NamedTuple):
    """One step of a recursion, on tensors or on numpy arrays.

    Attributes
    ----------
    apply : callable
        ``L x + g`` or ``L X L' + C`` of link, state and constant, into a fourth argument.
    copy : callable
        Of a source into a target.
    empty : callable
        Memory like an array's.
    loop : callable
    on_host : _Rule or None
        The same for small arrays.
    """

    apply: Callable[..., Any]
    copy: Callable[..., Any]
    empty: Callable[..., Any]
    loop: Callable[..., None]
    on_host: _Rule | None = None


def _times_vector(link: Tensor, vector: Tensor, plus: Tensor, out: Tensor) -> None:
    torch.addcmul(plus, link[:, 0], vector[0], out=out)
    for k in range(1, link.shape[1]):
        out.addcmul_(link[:, k], vector[k])


def _congruence(link: Tensor, matrix: Tensor, plus: Tensor, out: Tensor) -> None:
    """On distinct entries: row k of a symmetric matrix (K <= 2) is entries k to k + K."""
    size = link.shape[0]
    half = link[:, :1] * matrix[:size]
    for k in range(1, size):
        half.addcmul_(link[:, k : k + 1], matrix[k : k + size])
    for i in range(size):
        new, own = slice(2 * i, i + size), link[i:]
        torch.addcmul(plus[new], half[i, 0], own[:, 0], out=out[new])
        for k in range(1, size):
            out[new].addcmul_(half[i, k], own[:, k])


def _loop(
    links: Tensor, constants: Tensor, apply: Callable[..., Any], reverse: bool, out: Tensor
) -> None:
    moves = list(range(constants.shape[TIME]))
    if reverse:
        moves.reverse()
    link, constant, target = (x.movedim(TIME, 0).unbind(0) for x in (links, constants, out))
    target[moves[0]].copy_(constant[moves[0]])
    for past, now in pairwise(moves):
        apply(link[min(past, now)], target[past], constant[now], target[now])


_HOST_AFFINE = _Rule(small.times_vector, np.copyto, np.empty_like, small.loop)
_HOST_CONGRUENCE = _HOST_AFFINE._replace(apply=small.congruence)
_AFFINE = _Rule(_times_vector, Tensor.copy_, torch.empty_like, _loop, _HOST_AFFINE)
_CONGRUENCE = _Rule(_congruence, Tensor.copy_, torch.empty_like, _loop, _HOST_CONGRUENCE)


class Links:
    """Links between steps, for every recursion that runs over them one way or the other.

    Link i joins steps i and i + 1. Products of links, half of the work of a recursion, are worked
    out once.

    Parameters
    ----------
    links : Tensor (K, K, T-1, P, R, G)
        K is 1 or 2. Axes P and R of links and constants may be 1 and broadcast.
    """

    def __init__(self, links: Tensor) -> None:
        self._levels = [links]
        self._arrays: dict[int, Any] = {}

    def backward(self, constants: Tensor) -> Tensor:
        """Run ``x_i = L_i x_{i+1} + g_i``; ``constants`` as of :func:`affine`."""
        return self._run(_AFFINE, constants, True)

    def forward(self, constants: Tensor) -> Tensor:
        """Run ``x_{i+1} = L_i' x_i + g_{i+1}``: transposed."""
        return self._run(_AFFINE, constants, False)

    def congruence_backward(self, constants: Tensor) -> Tensor:
        """Run ``X_i = L_i X_{i+1} L_i' + C_i`` of distinct entries ``(2 K - 1, T, P, 1, G)``."""
        return self._run(_CONGRUENCE, constants, True)

    def congruence_forward(self, constants: Tensor) -> Tensor:
        """Run ``X_{i+1} = L_i' X_i L_i + C_{i+1}`` of distinct entries: transposed."""
        return self._run(_CONGRUENCE, constants, False)

    def _run(self, rule: _Rule, constants: Tensor, reverse: bool) -> Tensor:
        out = torch.empty_like(constants, memory_format=torch.contiguous_format)
        loop_from = LOOP_FROM
        if rule is _AFFINE and self._levels[0].shape[-2] == constants.shape[-2]:
            # Merging links costs K times a step of states that only rows on axis P share.
            loop_from = LOOP_FROM * constants.shape[-3] // (4 * self._levels[0].shape[-3])
        self._reduce(rule, 0, constants, reverse, loop_from, out)
        return out

    def _level(self, level: int, host: bool) -> Any:
        """Links between every ``2**level``-th step."""
        while len(self._levels) <= level:
            last = len(self._levels) - 1
            links = self._levels[last]
            count = links.shape[TIME] // 2
            if small.is_small(links):
                links = self._level(last, True)
                merged = small.times_matrix(*_pairs(links, count))
                self._levels.append(torch.from_numpy(merged))
                self._arrays[last + 1] = merged
            else:
                self._levels.append(times_matrix(*_pairs(links, count)))
        if not host:
            return self._levels[level]
        if level not in self._arrays:
            self._arrays[level] = small.as_array(self._levels[level])
        return self._arrays[level]

    def _reduce(
        self, rule: _Rule, level: int, constants: Any, reverse: bool, loop_from: int, out: Any
    ) -> None:
        """Fill ``out`` over every ``2**level``-th step."""
        n_steps, width = constants.shape[TIME], math.prod(constants.shape[-3:])
        if rule.on_host is not None and small.is_small(constants):
            constants, out = small.as_array(constants), small.as_array(out)
            rule = rule.on_host
        links = self._level(level, host=rule.on_host is None)
        if not reverse:
            links = links.swapaxes(0, 1)
        if n_steps <= LOOP_BELOW or width >= loop_from:
            rule.loop(links, constants, rule.apply, reverse, out)
            return
        merged = _merge(rule, links, constants, reverse)
        self._reduce(rule, level + 1, merged, reverse, loop_from, _at(out, _EVEN))
        _fill(rule, links, constants, reverse, out)


def _merge(rule: _Rule, links: Any, constants: Any, reverse: bool) -> Any:
    """Constants of the recursion over every second step, the first one included."""
    kept, others = _at(constants, _EVEN), _at(constants, _ODD)
    merged = rule.empty(kept)
    if reverse:
        some, edge = slice(0, others.shape[TIME]), slice(others.shape[TIME], None)
        rule.apply(_at(links, _EVEN), others, _at(kept, some), _at(merged, some))
    else:
        some, edge = slice(1, None), slice(0, 1)
        before = _at(others, slice(0, kept.shape[TIME] - 1))
        rule.apply(_at(links, _ODD), before, _at(kept, some), _at(merged, some))
    rule.copy(_at(merged, edge), _at(kept, edge))
    return merged


def _fill(rule: _Rule, links: Any, constants: Any, reverse: bool, out: Any) -> None:
    """Take the steps between every second one, which ``out`` holds."""
    known, others, rest = _at(out, _EVEN), _at(constants, _ODD), _at(out, _ODD)
    if not reverse:
        before = _at(known, slice(0, others.shape[TIME]))
        rule.apply(_at(links, _EVEN), before, others, rest)
        return
    inner, edge = slice(0, known.shape[TIME] - 1), slice(known.shape[TIME] - 1, None)
    after = _at(known, slice(1, None))
    rule.apply(_at(links, _ODD), after, _at(others, inner), _at(rest, inner))
    rule.copy(_at(rest, edge), _at(others, edge))


def _at(values: Any, where: slice) -> Any:
    """Return steps of a tensor or an array (a view)."""
    return values[..., where, :, :, :]


def _pairs(links: Any, count: int) -> tuple[Any, Any]:
    """Links that follow one another."""
    return _at(links, slice(0, 2 * count, 2)), _at(links, slice(1, 2 * count, 2))


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
    if reverse:
        return Links(links).backward(constants)
    return Links(transpose(links)).forward(constants)


def congruences(links: Tensor, constants: Tensor, reverse: bool = False) -> Tensor:
    """Run ``X_{i+1} = L_i X_i L_i' + C_{i+1}`` (reverse: ``X_i = L_i X_{i+1} L_i' + C_i``).

    Parameters
    ----------
    links : Tensor (K, K, T-1, P, 1, G)
    constants : Tensor (K, K, T, P, 1, G)
        Symmetric.
    reverse : bool, default=False

    Returns
    -------
    Tensor (K, K, T, P, 1, G)
    """
    given = distinct(constants)
    if reverse:
        return whole(Links(links).congruence_backward(given)).contiguous()
    return whole(Links(transpose(links)).congruence_forward(given)).contiguous()


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
