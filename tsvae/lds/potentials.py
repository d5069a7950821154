r"""Gaussian potentials on the states and the grouping of series by missing pattern.

A potential is the factor :math:`\exp(h_t' z_t - \tfrac12 z_t' \Lambda_t z_t)`. The precisions
depend on which entries are present, not on their values, so series with the same missing pattern
share them: ``precision`` holds P distinct patterns while ``linear`` holds every series.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Potentials(NamedTuple):
    """Gaussian potentials in information form.

    Attributes
    ----------
    linear : Tensor (B, T, D)
    precision : Tensor
        ``(P, T, D)`` diagonal, ``(P, T, D, D)`` dense or ``(P, T, G, K, K)`` blocks, positive
        semidefinite; zero where nothing is seen.
    pattern : Tensor (B,) long or None
        Row of ``precision`` of each series; None when P is 1 (all share it) or B (each its own).
    """

    linear: Tensor
    precision: Tensor
    pattern: Tensor | None = None


class UniquePatterns(NamedTuple):
    """Distinct rows of a mask and where each series finds its own.

    Attributes
    ----------
    patterns : Tensor of bool (P, T, ...)
    pattern : Tensor (B,) long or None
        Row of ``patterns`` of each series; None when P is 1 or B.
    """

    patterns: Tensor
    pattern: Tensor | None


def unique_patterns(mask: Tensor) -> UniquePatterns:
    """Find the distinct missing patterns among series.

    Parameters
    ----------
    mask : Tensor (B, T, F) or (B, T) bool

    Returns
    -------
    UniquePatterns
        ``patterns (P, T, ...)`` and ``pattern (B,)``, the row of each series, None when P is 1 or
        B (patterns then keep the order of the series).

    Examples
    --------
    >>> same = unique_patterns(torch.ones(5, 3, 2, dtype=torch.bool))
    >>> same.patterns.shape[0], same.pattern is None
    (1, True)
    """
    flat = mask.reshape(mask.shape[0], -1)
    keys, index = torch.unique(_keys(flat), return_inverse=True)
    if keys.shape[0] == mask.shape[0]:
        return UniquePatterns(mask, None)  # rows with different keys differ
    order = torch.arange(mask.shape[0], device=mask.device)
    first = torch.full_like(keys, mask.shape[0]).scatter_reduce(0, index, order, "amin")
    if not bool((flat[first][index] == flat).all()):
        rows, index = torch.unique(flat, dim=0, return_inverse=True)
        if rows.shape[0] == mask.shape[0]:
            return UniquePatterns(mask, None)
        return UniquePatterns(rows.reshape(-1, *mask.shape[1:]), index)
    return UniquePatterns(mask[first], None if keys.shape[0] == 1 else index)


def _keys(flat: Tensor) -> Tensor:
    """One number per row of ``(B, n)`` that equal rows share and others hardly ever do."""
    return (flat * _weights(flat.shape[1], flat.device)).sum(1)


@lru_cache(maxsize=8)
def _weights(count: int, device: torch.device) -> Tensor:
    # Multiplicative mixing modulo 2^64; the upper half of the bits.
    weights = torch.arange(1, count + 1, device=device) * 0x5851F42D4C957F2D
    weights = (weights ^ (weights >> 29)) * 0x2545F4914F6CDD1D
    return (weights >> 32).to(torch.int32)


def chain_lengths(mask: Tensor) -> Tensor:
    """Count the steps of each series up to and including its last observed one.

    Parameters
    ----------
    mask : Tensor (B, T, F) or (B, T) bool

    Returns
    -------
    Tensor (B,) long
        0 for a series that is never observed.

    Examples
    --------
    >>> chain_lengths(torch.tensor([[True, False, True, False], [False] * 4])).tolist()
    [3, 0]
    """
    # Several times as fast as any().
    seen = mask if mask.ndim == 2 else mask.view(torch.uint8).amax(dim=-1)
    steps = torch.arange(1, seen.shape[1] + 1, device=mask.device)
    return (seen * steps).amax(dim=1)


def block_precision(precision: Tensor, n_groups: int, group_size: int) -> Tensor:
    """Bring a precision of any of the three forms to blocks ``(P, T, G, K, K)``.

    Parameters
    ----------
    precision : Tensor
        ``(P, T, D)`` diagonal, ``(P, T, D, D)`` dense (G = 1 only) or ``(P, T, G, K, K)`` blocks.
    n_groups, group_size : int
        G and K; D = G * K.

    Returns
    -------
    Tensor (P, T, G, K, K)

    Raises
    ------
    ValueError
        If the shape does not fit, or a dense precision meets a grouped transition.
    """
    latent_dim = n_groups * group_size
    shape = tuple(precision.shape)
    if precision.ndim == 5 and shape[2:] == (n_groups, group_size, group_size):
        return precision
    if precision.ndim == 3 and shape[2] == latent_dim:
        return torch.diag_embed(precision.reshape(*shape[:2], n_groups, group_size))
    if precision.ndim == 4 and shape[2:] == (latent_dim, latent_dim):
        if n_groups == 1:
            return precision.unsqueeze(2)
        raise ValueError(
            f"precision {shape} is dense and couples the {n_groups} groups of the transition; "
            "pass to_dense(params) instead of params, or a diagonal or block precision."
        )
    raise ValueError(
        f"precision has shape {shape}; expected (P, T, {latent_dim}) diagonal, "
        f"(P, T, {latent_dim}, {latent_dim}) dense or "
        f"(P, T, {n_groups}, {group_size}, {group_size}) blocks."
    )


def combine(first: Potentials, second: Potentials) -> Potentials:
    """Multiply two potentials on the same states (sum their natural parameters).

    Parameters
    ----------
    first, second : Potentials
        Of the same series and steps, precisions in the same form; pattern indices may differ.

    Returns
    -------
    Potentials
        One precision per distinct pair of patterns.

    Raises
    ------
    ValueError
        If the forms differ.
    """
    if first.precision.shape[1:] != second.precision.shape[1:]:
        raise ValueError(
            f"precisions of shapes {tuple(first.precision.shape)} and "
            f"{tuple(second.precision.shape)} are of different forms; bring both to one form "
            "(for example block_precision) before combining."
        )
    linear = first.linear + second.linear
    one, two = first.precision, second.precision
    n_series = linear.shape[0]
    if one.shape[0] == 1 or two.shape[0] == 1:
        pattern = first.pattern if two.shape[0] == 1 else second.pattern
        return Potentials(linear, one + two, pattern)
    index = [
        torch.arange(n_series, device=linear.device) if p.pattern is None else p.pattern
        for p in (first, second)
    ]
    pairs, pattern = torch.unique(torch.stack(index, dim=1), dim=0, return_inverse=True)
    if pairs.shape[0] == n_series:
        return Potentials(linear, one[index[0]] + two[index[1]], None)
    precision = one[pairs[:, 0]] + two[pairs[:, 1]]
    return Potentials(linear, precision, None if pairs.shape[0] == 1 else pattern)


def emission_potentials(
    emission_matrix: Tensor,
    noise_variance: Tensor,
    x: Tensor,
    mask: Tensor | None = None,
    offset: Tensor | None = None,
    group_size: int | None = None,
) -> Potentials:
    r"""Potentials of linear-Gaussian observations :math:`x_t = C z_t + d + N(0, diag(R))`.

    :math:`h_t = C' R^{-1} m_t (x_t - d)`, :math:`\Lambda_t = C' R^{-1} diag(m_t) C`: missing
    entries (``m = 0``) simply leave the sums.

    Parameters
    ----------
    emission_matrix : Tensor (F, D)
    noise_variance : Tensor (F,)
    x : Tensor (B, T, F)
        Values at missing entries are ignored (NaN allowed).
    mask : Tensor (B, T, F) bool, optional
        True = observed; everything by default.
    offset : Tensor (F,), optional
    group_size : int, optional
        If given and every row of ``emission_matrix`` touches one group only, blocks are returned;
        a row that couples groups makes the result dense.

    Returns
    -------
    Potentials
        One precision per distinct missing pattern.
    """
    if mask is None:
        mask = torch.ones_like(x, dtype=torch.bool)
    centred = x if offset is None else x - offset
    weighted = torch.where(mask, centred, torch.zeros_like(x)) / noise_variance
    patterns, index = unique_patterns(mask)
    weights = patterns.to(x.dtype) / noise_variance
    c = emission_matrix
    linear = weighted @ c
    if group_size is not None:
        grouped = c.reshape(c.shape[0], -1, group_size)
        if int((grouped != 0).any(-1).sum(-1).max()) <= 1:
            outer = torch.einsum("fgk,fgl->fgkl", grouped, grouped)
            return Potentials(linear, torch.tensordot(weights, outer, dims=1), index)
    outer = torch.einsum("fi,fj->fij", c, c)
    return Potentials(linear, torch.tensordot(weights, outer, dims=1), index)
