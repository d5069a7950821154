"""MNIW (and NIW) factors in an unconstrained parameterisation.

A factor is stored as one tensor xi of shape (G, n): the mean M, unit-lower Cholesky parts and
log-diagonals of S and V (``S = U e^{2d} U'`` with U unit lower-triangular), and
``x = log(nu - (K - 1))``. Every value of xi is a valid factor: S, V > 0 and nu > K - 1.

All that a loss needs of a factor is phi (``Expectations``); its natural gradient is in module
``natural_gradient``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.linalg import inverse_positive, safe_cholesky
from tsvae.lds.priors import MNIW

# exp(2 * 30) is far beyond any data scale and still finite in float32.
LOG_LIMIT = 30.0


class Expectations(NamedTuple):
    """phi: all that expected log densities need of a factor.

    Attributes
    ----------
    mean : Tensor (G, K, L)
    noise_covariance : Tensor (G, K, K)
        ``E[Q^-1]^-1``.
    excess : Tensor (G, L, L)
        ``K V^-1``.
    log_det_excess : Tensor (G,)
        ``(E log|Q^-1| - log|E Q^-1|) / 2``.
    """

    mean: Tensor
    noise_covariance: Tensor
    excess: Tensor
    log_det_excess: Tensor


class FactorSize(NamedTuple):
    """K outcomes and L regressors of a factor."""

    outcomes: int
    regressors: int

    @property
    def n_free(self) -> int:
        """Length of xi for one group."""
        k, n = self.outcomes, self.regressors
        return k * n + k * (k + 1) // 2 + n * (n + 1) // 2 + 1


class _Parts(NamedTuple):
    """Pieces of xi."""

    mean: Tensor
    scale: Tensor
    rows: Tensor
    degrees: Tensor


def _split(xi: Tensor, size: FactorSize) -> _Parts:
    k, n = size
    lengths = [k * n, k * (k + 1) // 2, n * (n + 1) // 2, 1]
    mean, scale, rows, degrees = xi.split(lengths, dim=-1)
    return _Parts(mean.unflatten(-1, (k, n)), scale, rows, degrees.squeeze(-1))


def _join(parts: _Parts) -> Tensor:
    mean, scale, rows, degrees = parts
    return torch.cat((mean.flatten(-2), scale, rows, degrees.unsqueeze(-1)), dim=-1)


def root_from_free(free: Tensor, size: int) -> Tensor:
    """Log-diagonals, then the strictly lower unit part -> Cholesky factor."""
    diagonal = free[..., :size].clamp(-LOG_LIMIT, LOG_LIMIT).exp()
    if size == 1:
        return diagonal.unsqueeze(-1)
    below = free.new_zeros(*free.shape[:-1], size * size)
    below = below.index_copy(-1, _strictly_below(size, free.device), free[..., size:])
    unit = below.unflatten(-1, (size, size)) + torch.eye(size, dtype=free.dtype, device=free.device)
    return unit * diagonal.unsqueeze(-2)


@lru_cache(maxsize=64)
def _strictly_below(size: int, device: torch.device) -> Tensor:
    """Flat positions of the entries of a square matrix below its diagonal."""
    row, column = torch.tril_indices(size, size, offset=-1, device=device)
    return row * size + column


def free_from_root(root: Tensor) -> Tensor:
    """Inverse of ``root_from_free``."""
    size = root.shape[-1]
    diagonal = root.diagonal(dim1=-2, dim2=-1)
    unit = (root / diagonal.unsqueeze(-2)).flatten(-2)
    below = unit.index_select(-1, _strictly_below(size, root.device))
    return torch.cat((diagonal.log(), below), dim=-1)


def unconstrained_from_standard(distribution: MNIW) -> Tensor:
    """MNIW -> xi.

    Parameters
    ----------
    distribution : MNIW

    Returns
    -------
    Tensor (G, n)
        n as in ``FactorSize.n_free``.

    Raises
    ------
    ValueError
        If nu does not exceed K - 1.
    """
    size = distribution.scale.shape[-1]
    spare = distribution.degrees_of_freedom - (size - 1)
    if not bool((spare > 0).all()):
        raise ValueError(
            f"degrees_of_freedom must exceed K - 1 = {size - 1}; got "
            f"{distribution.degrees_of_freedom.min().item():g}."
        )
    return _join(
        _Parts(
            distribution.mean,
            free_from_root(safe_cholesky(distribution.scale)),
            free_from_root(safe_cholesky(distribution.precision)),
            spare.log(),
        )
    )


def standard_from_unconstrained(xi: Tensor, size: FactorSize) -> MNIW:
    """Xi -> MNIW, differentiable.

    Parameters
    ----------
    xi : Tensor (G, n)
        Any finite values.
    size : FactorSize
        K and L.

    Returns
    -------
    MNIW
    """
    parts = _split(xi, size)
    scale = root_from_free(parts.scale, size.outcomes)
    rows = root_from_free(parts.rows, size.regressors)
    spare = parts.degrees.clamp(-LOG_LIMIT, LOG_LIMIT).exp()
    return MNIW(scale @ scale.mT, spare + (size.outcomes - 1), parts.mean, rows @ rows.mT)


def expectations_from_standard(distribution: MNIW) -> Expectations:
    """Phi of an MNIW, differentiable in the ordinary sense.

    Parameters
    ----------
    distribution : MNIW

    Returns
    -------
    Expectations
    """
    size = distribution.scale.shape[-1]
    degrees = distribution.degrees_of_freedom
    order = torch.arange(size, dtype=degrees.dtype, device=degrees.device)
    digamma = torch.digamma(0.5 * (degrees.unsqueeze(-1) - order)).sum(-1)
    return Expectations(
        distribution.mean,
        distribution.scale / degrees[..., None, None],
        size * inverse_positive(distribution.precision),
        0.5 * (digamma - size * (0.5 * degrees).log()),
    )
