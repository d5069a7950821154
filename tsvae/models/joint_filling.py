r"""Hidden entries given all observed ones of all variables, by a vector autoregression.

With the rows' innovations whitened, :math:`e_t = S_h^{-1/2} (y_t - \sum_k A_{h,k} y_{t-k})`, the
precision of a window is :math:`\sum_t w_t (\partial e_t / \partial y)' (\partial e_t / \partial y)`
(plus that of its first p rows), block tridiagonal in blocks of p rows; hidden entries have that
precision among themselves, see :mod:`tsvae.models.block_chain`.

Innovations have heavy tails: they are Student's t with :math:`\nu` degrees of freedom, a mixture of
normals of precisions w. Expectation maximisation (Lange, Little & Taylor 1989, JASA 84, section 3)
goes on with

.. math::
    w_t = \frac{\nu + F}{\nu + E|e_t|^2}.

Versions of the autoregression that differ in what levels may do are weighted by the density of the
observed entries, which is that of all entries over that of the hidden ones given the observed:
:math:`\log p(y_o) = \log p(y_o, E y_u) - \frac12 \log |P_{uu}| + const`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.models.autoregression import Autoregression
from tsvae.models.block_chain import ChainMoments, chain_moments

__all__ = ["Filled", "draw_hidden", "fill_hidden"]

_DEGREES = 8.0  # nu
_STEPS = 2  # of expectation maximisation


class Filled(NamedTuple):
    """Mean and variance of every entry ``(N, T, F)``; those of observed ones are exact."""

    mean: Tensor
    variance: Tensor


class _Version(NamedTuple):
    """One version's answer, in units of the scale and around the mean."""

    mean: Tensor
    variance: Tensor
    log_evidence: Tensor


class _Chain(NamedTuple):
    """A version of the autoregression laid along windows of J blocks of p rows.

    Attributes
    ----------
    maps : Tensor (N, J, p F, 2 p F)
        From the rows of the block before and its own to whitened innovations.
    log_det : Tensor (N,)
        Of the whole map.
    order : int
        P.
    """

    maps: Tensor
    log_det: Tensor
    order: int


def fill_hidden(
    fit: Autoregression, x: Tensor, mask: Tensor, phase: Tensor | None, *, steps: int = _STEPS
) -> Filled:
    """Fill hidden entries of windows.

    Parameters
    ----------
    fit : Autoregression
    x : Tensor (N, T, F)
        In float64; zero where hidden.
    mask : Tensor of bool (N, T, F)
        True = observed.
    phase : Tensor (N,) long or None
        Of the first row of each window; None: unknown, or the fit has no season.
    steps : int, default=2
        Of expectation maximisation; 0: normal innovations.

    Returns
    -------
    Filled
    """
    n_steps = x.shape[1]
    laid = _standardise(fit, x, mask, phase)
    chains = (_lay(fit, version, laid.clock) for version in range(len(fit.noise)))
    found = [_condition(chain, laid.y, laid.seen, steps) for chain in chains]
    weight = torch.softmax(torch.stack([one.log_evidence for one in found]), 0)[..., None, None]
    means = torch.stack([one.mean for one in found])
    variance = torch.stack([one.variance for one in found])
    centre = (weight * means).sum(0)
    variance = (weight * (variance + (means - centre).square())).sum(0)
    filled = torch.where(mask, x, (laid.mean + fit.scale * centre)[:, :n_steps])
    return Filled(filled, torch.where(mask, 0.0, (fit.scale**2 * variance)[:, :n_steps]))


def draw_hidden(
    fit: Autoregression,
    x: Tensor,
    mask: Tensor,
    phase: Tensor | None,
    generator: torch.Generator,
) -> Tensor:
    """Draw hidden entries, with normal innovations and levels that do not move.

    Parameters as in :func:`fill_hidden`.

    Returns
    -------
    Tensor (N, T, F)
    """
    laid = _standardise(fit, x, mask, phase)
    chain = _lay(fit, 0, laid.clock)
    blocks = laid.y.reshape(len(x), chain.maps.shape[1], -1)
    free = ~laid.seen.reshape(blocks.shape)
    noise = torch.randn(blocks.shape, dtype=x.dtype, generator=generator)
    one = torch.ones_like(blocks)
    found = _hidden_moments(_opened(chain, free), one, free, _apply(chain.maps, blocks), noise)
    y = (blocks + found.mean * free).reshape(laid.y.shape)
    return torch.where(mask, x, (laid.mean + fit.scale * y)[:, : x.shape[1]])


class _Laid(NamedTuple):
    """Windows of whole blocks, in units of the scale and around the mean."""

    y: Tensor
    seen: Tensor
    mean: Tensor
    clock: Tensor


def _standardise(fit: Autoregression, x: Tensor, mask: Tensor, phase: Tensor | None) -> _Laid:
    n_steps = x.shape[1]
    padding = (0, 0, 0, -n_steps % fit.order)  # rows of nothing, which change nothing
    clock = _clock(fit, len(x), n_steps + padding[-1], phase)
    mean = fit.mean[clock]
    seen = torch.nn.functional.pad(mask, padding)
    y = torch.where(seen, (torch.nn.functional.pad(x, padding) - mean) / fit.scale, 0.0)
    return _Laid(y, seen, mean, clock)


def _clock(fit: Autoregression, n: int, n_steps: int, phase: Tensor | None) -> Tensor:
    """Phase of every row ``(N, T)``."""
    if phase is None or not fit.n_phases:
        return torch.full((n, n_steps), fit.n_phases)
    return (phase[:, None] + torch.arange(n_steps)) % fit.n_phases


def _lay(fit: Autoregression, version: int, clock: Tensor) -> _Chain:
    """Make the maps of all blocks, once for each phase that a block begins with."""
    order, width = fit.order, fit.noise.shape[-1]
    roots = _inverse_root(fit.noise[version])
    rows = torch.cat((-roots @ fit.coefficients[version], roots), dim=-1)
    n_phases = max(fit.n_phases, 1)
    blocks = []
    for first in range(fit.n_phases + 1):
        phases = [fit.n_phases] * order
        if first < fit.n_phases:
            phases = [(first + i) % n_phases for i in range(order)]
        shifted = [
            torch.nn.functional.pad(rows[h], (i * width, (order - 1 - i) * width))
            for i, h in enumerate(phases)
        ]
        blocks.append(torch.cat(shifted))
    starts = _inverse_root(fit.start[version])
    last = clock[:, order - 1]
    head = torch.nn.functional.pad(starts[last], (order * width, 0))
    maps = torch.stack(blocks)[clock[:, ::order]]
    maps[:, 0] = head
    log_det = _log_det(roots)[clock[:, order:]].sum(1) + _log_det(starts)[last]
    return _Chain(maps, log_det, order)


def _inverse_root(covariance: Tensor) -> Tensor:
    """W with ``W' W`` the inverse."""
    root = torch.linalg.cholesky(covariance)
    eye = torch.eye(root.shape[-1], dtype=root.dtype).expand_as(root)
    return torch.linalg.solve_triangular(root, eye, upper=False)


def _log_det(triangular: Tensor) -> Tensor:
    return triangular.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _condition(chain: _Chain, y: Tensor, seen: Tensor, steps: int) -> _Version:
    """Moments of hidden entries under one version."""
    shape, width = y.shape, y.shape[-1]
    blocks = y.reshape(len(y), chain.maps.shape[1], -1)
    free = ~seen.reshape(blocks.shape)
    known = _apply(chain.maps, blocks)
    opened = _opened(chain, free)
    weight = torch.ones(shape[:2], dtype=y.dtype)
    for step in range(steps + 1):
        found = _hidden_moments(opened, weight.repeat_interleave(width, 1), free, known)
        errors = known + _apply(opened, found.mean)
        squares = errors.square().reshape(shape).sum(-1)
        if step < steps:
            left = _error_variance(opened, found).reshape(shape).sum(-1)
            weight = (_DEGREES + width) / (_DEGREES + squares + left)
            weight[:, : chain.order] = 1.0  # of the start, which is normal
    if steps:
        tail = (_DEGREES + width) * torch.log1p(squares / _DEGREES)
        squares = torch.cat((squares[:, : chain.order], tail[:, chain.order :]), dim=1)
    evidence = chain.log_det - 0.5 * (squares.sum(1) + found.log_det)
    variance = found.covariance.diagonal(dim1=-2, dim2=-1) * free
    return _Version((blocks + found.mean).reshape(shape), variance.reshape(shape), evidence)


def _opened(chain: _Chain, free: Tensor) -> Tensor:
    """Close the maps to observed entries, which are no unknowns."""
    return chain.maps * torch.cat((_before(free), free), dim=-1).unsqueeze(-2)


def _before(blocks: Tensor) -> Tensor:
    """Shift to the block before; zeros before the first."""
    return torch.cat((torch.zeros_like(blocks[:, :1]), blocks[:, :-1]), dim=1)


def _apply(maps: Tensor, blocks: Tensor) -> Tensor:
    """Innovations of values ``(N, J, p F)``."""
    both = torch.cat((_before(blocks), blocks), dim=-1)
    return (maps @ both.unsqueeze(-1)).squeeze(-1)


def _hidden_moments(
    maps: Tensor, weight: Tensor, free: Tensor, known: Tensor, noise: Tensor | None = None
) -> ChainMoments:
    """Moments of hidden entries; in the place of observed ones, independent standard normals."""
    size = maps.shape[-2]
    weighted = maps * weight.reshape(known.shape).unsqueeze(-1)
    gram = weighted.mT @ maps
    linear = -(weighted.mT @ known.unsqueeze(-1)).squeeze(-1)
    diagonal = gram[..., size:, size:] + torch.diag_embed((~free).to(maps))
    diagonal[:, :-1] += gram[:, 1:, :size, :size]
    total = linear[..., size:].clone()
    total[:, :-1] += linear[:, 1:, :size]
    return chain_moments(diagonal, gram[:, 1:, size:, :size], total, noise)


def _error_variance(maps: Tensor, found: ChainMoments) -> Tensor:
    """Variance of innovations that hidden entries leave open."""
    size = maps.shape[-2]
    old, own = maps[:, 1:, :, :size], maps[..., size:]
    variance = ((own @ found.covariance) * own).sum(-1)
    earlier = (old @ found.covariance[:, :-1]) * old
    mixed = 2.0 * (old @ found.cross) * own[:, 1:]
    variance[:, 1:] += (earlier + mixed).sum(-1)
    return variance
