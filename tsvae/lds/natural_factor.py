"""MNIW factors on the host: numpy, float64; a few numbers each, so calls make the price."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from scipy.linalg import lapack
from torch import Tensor

from tsvae.lds.natural import LOG_LIMIT, FactorSize

Array = NDArray[Any]
# Rows and columns up to which formulas for single entries are cheaper than LAPACK's calls.
FEW = 3

_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


def array_of(tensor: Tensor) -> Array:
    """View a tensor, or its copy on the host, as an array without its graph."""
    tensor = tensor.detach().cpu()
    if tensor.dtype not in _DTYPES:  # numpy has no bfloat16
        tensor = tensor.double()
    found: Array = tensor.numpy()
    return found


def to_host(tensor: Tensor) -> Array:
    """Bring a tensor to the host, in float64 and without its graph."""
    return np.asarray(array_of(tensor), dtype=np.float64)  # at half the price of a call of PyTorch


def to_device(array: Array, like: Tensor) -> Tensor:
    """Bring an array to the device and the dtype of ``like``."""
    if like.is_cpu and like.dtype in _DTYPES:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=_DTYPES[like.dtype]))
    return torch.from_numpy(np.ascontiguousarray(array)).to(like)


class Arrangement(NamedTuple):
    """Where the numbers of a factor lie in xi, which holds ``mean, scale, rows, degrees``.

    Attributes
    ----------
    logs : ndarray (K + L + 1,)
        Log-diagonals of S and V, log(nu - (K - 1)).
    units : tuple of ndarray (K, K), (L, L)
        Unit lower-triangular factors of S and V, in xi followed by a zero and a one.
    belows : tuple of ndarray
        Flat positions in such a factor of the entries below the diagonal.
    strict : tuple of ndarray (K, K), (L, L)
        Ones below the diagonal.
    """

    logs: Array
    units: tuple[Array, Array]
    belows: tuple[Array, Array]
    strict: tuple[Array, Array]


@lru_cache(maxsize=64)
def arrangement(size: FactorSize) -> Arrangement:
    """Arrangement of a factor of that size."""
    k, n = size
    scale, rows = k * n, k * n + k * (k + 1) // 2
    zero = size.n_free
    units, belows, strict = [], [], []
    for width, start in ((k, scale), (n, rows)):
        unit = np.full((width, width), zero)
        np.fill_diagonal(unit, zero + 1)
        row, column = np.tril_indices(width, -1)
        unit[row, column] = start + width + np.arange(len(row))
        units.append(unit)
        belows.append(row * width + column)
        strict.append(np.tri(width, k=-1))
    logs = np.array([*range(scale, scale + k), *range(rows, rows + n), zero - 1])
    return Arrangement(logs, *((pair[0], pair[1]) for pair in (units, belows, strict)))


class Root(NamedTuple):
    """Cholesky factor of S or V, its inverse and its log-diagonal."""

    root: Array
    inverse: Array
    logs: Array


class Factor(NamedTuple):
    """M, roots of S and V, and nu."""

    mean: Array
    scale: Root
    rows: Root
    degrees: Array


def factor_of(xi: Array, size: FactorSize) -> Factor:
    """Read unconstrained factors ``(G, n)``."""
    k, n = size
    at = arrangement(size)
    logs = np.minimum(np.maximum(xi[:, at.logs], -LOG_LIMIT), LOG_LIMIT)  # less than np.clip takes
    scales = np.exp(logs)
    wide = np.zeros((len(xi), size.n_free + 2))
    wide[:, :-2] = xi
    wide[:, -1] = 1.0
    roots = []
    for unit, start, stop in ((at.units[0], 0, k), (at.units[1], k, k + n)):
        root = wide[:, unit] * scales[:, None, start:stop]
        roots.append(Root(root, inverse_of_lower(root), logs[:, start:stop]))
    mean = xi[:, : k * n].reshape(-1, k, n)
    return Factor(mean, roots[0], roots[1], scales[:, -1] + (k - 1))


def cholesky(matrices: Array) -> Array:
    """Cholesky factors of ``(..., n, n)``, from their lower triangles.

    Raises
    ------
    LinAlgError
        If one is not positive definite.
    """
    size = matrices.shape[-1]
    if size > FEW:
        return np.linalg.cholesky(matrices)
    root = np.zeros_like(matrices)
    for j in range(size):
        for i in range(j, size):
            rest = matrices[..., i, j]
            for before in range(j):
                rest = rest - root[..., i, before] * root[..., j, before]
            if i > j:
                root[..., i, j] = rest / root[..., j, j]
            elif (rest > 0.0).all():
                root[..., j, j] = np.sqrt(rest)
            else:
                raise np.linalg.LinAlgError("Matrix is not positive definite")
    return root


def inverse_of_lower(root: Array) -> Array:
    """Invert lower-triangular matrices ``(..., n, n)``."""
    size = root.shape[-1]
    if size > FEW:
        return _inverse_by_lapack(root)
    inverse = np.zeros_like(root)
    for i in range(size):
        pivot = 1.0 / root[..., i, i]
        inverse[..., i, i] = pivot
        for j in range(i):
            inner = root[..., i, j] * inverse[..., j, j]
            for between in range(j + 1, i):
                inner += root[..., i, between] * inverse[..., between, j]
            inverse[..., i, j] = -inner * pivot
    return inverse


def _inverse_by_lapack(root: Array) -> Array:
    inverse = root.copy()
    # LAPACK's columns are our rows: what is lower here is upper there.
    for matrix in inverse.reshape(-1, *root.shape[-2:]).swapaxes(1, 2):
        _, failed = lapack.dtrtri(matrix, lower=0, overwrite_c=1)
        if failed:  # a zero on the diagonal
            matrix[...] = np.inf
    return inverse


def gram(left: Array) -> Array:
    """``left' left`` for every group."""
    product: Array = left.swapaxes(-1, -2) @ left
    return product


@lru_cache(maxsize=64)
def half_lower(size: int, dtype: type = np.float64) -> Array:
    """Ones below the diagonal, halves on it: not to be written to."""
    return (np.tri(size) - 0.5 * np.eye(size)).astype(dtype)


class Phi(NamedTuple):
    """``Expectations``, V^-1, and what the KL takes over: (nu - k) / 2 and sums of digammas."""

    expectations: tuple[Array, Array, Array, Array]
    inverse_rows: Array
    halves: Array
    digammas: Array


def phi_of(factor: Factor) -> Phi:
    """Compute phi of a factor, as ``expectations_from_standard`` does."""
    k = factor.mean.shape[1]
    half = 0.5 * factor.degrees
    halves = half[:, None] - 0.5 * np.arange(k)
    digammas = special.psi(halves).sum(1)
    root = factor.scale.root / np.sqrt(factor.degrees)[:, None, None]
    noise = root @ root.transpose(0, 2, 1)
    inverse_rows = gram(factor.rows.inverse)
    log_det = 0.5 * (digammas - k * np.log(half))
    phi = (factor.mean, noise, k * inverse_rows, log_det)
    return Phi(phi, inverse_rows, halves, digammas)
