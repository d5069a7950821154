r"""Component-first algebra of 1 x 1 and 2 x 2 matrices.

A batch of matrices is one tensor ``(K, K, T, P, 1, G)`` and a batch of vectors ``(K, T, P, R, G)``:
every component is a contiguous plane, so a product of a million tiny matrices is a handful of
elementwise passes, several times cheaper on a CPU than a batched matrix product. P are covariance
patterns, R the series that share one (their axis broadcasts over the matrices'), G groups.

``update`` multiplies N(m, P) by the potential of precision :math:`\Lambda` without inverting
anything. With :math:`d = |I + P\Lambda| = 1 + tr(P\Lambda) + |P||\Lambda|`, a sum of non-negative
terms, and adj the adjugate,

.. math::
    J = (I + P\Lambda)^{-1} = \frac{I + adj(\Lambda)\,adj(P)}{d}, \quad
    S = JP = \frac{P + |P|\,adj(\Lambda)}{d}, \quad
    X = \Lambda J = \frac{\Lambda + |\Lambda|\,adj(P)}{d}.

No gradients here: the callers are ``autograd.Function``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LARGEST = 2  # group sizes up to this one take the component-first path
TIME = -4
BLOCK = 65536  # numbers per plane and block of ``by_blocks``


def steps(values: Tensor, start: int, stop: int | None = None, stride: int = 1) -> Tensor:
    """Slice along time (a view)."""
    return values[..., start:stop:stride, :, :, :]


def by_blocks(
    function: Callable[..., tuple[Tensor, ...]],
    first: Tensor,
    *others: Tensor | None,
    into: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """Apply a function of single steps to blocks of time that stay in the cache.

    A long chain of elementwise passes over arrays larger than the cache would read and write main
    memory (and ask for new pages) at every pass.

    Parameters
    ----------
    function : callable
        Takes the tensors and returns a tuple of tensors with the time axis of ``first``.
    first, others : Tensor or None
        Those with one step are given whole.
    into : sequence of Tensor, optional
        Where to write the results.

    Returns
    -------
    tuple of Tensor
    """
    n_steps = first.shape[TIME]
    width = max(x.shape[-3:].numel() for x in (first, *others) if x is not None)
    size = max(1, BLOCK // width)
    if size >= n_steps and not into:
        return function(first, *others)
    results = list(into)
    for start in range(0, n_steps, size):
        parts = function(
            *(
                x if x is None or x.shape[TIME] == 1 else steps(x, start, start + size)
                for x in (first, *others)
            )
        )
        if not results:
            ends = ((*x.shape[:TIME], n_steps, *x.shape[TIME + 1 :]) for x in parts)
            results = [x.new_empty(shape) for x, shape in zip(parts, ends, strict=True)]
        for result, part in zip(results, parts, strict=True):
            steps(result, start, start + size).copy_(part)
    return tuple(results)


def times_vector(matrix: Tensor, vector: Tensor, plus: Tensor | None = None) -> Tensor:
    """``matrix @ vector + plus``."""
    if plus is None:
        out = matrix[:, 0] * vector[0]
    else:
        out = torch.addcmul(plus, matrix[:, 0], vector[0])
    for k in range(1, matrix.shape[1]):
        out.addcmul_(matrix[:, k], vector[k])
    return out


def times_matrix(left: Tensor, right: Tensor, plus: Tensor | None = None) -> Tensor:
    """``left @ right + plus``."""
    if plus is None:
        out = left[:, :1] * right[:1]
    else:
        out = torch.addcmul(plus, left[:, :1], right[:1])
    for k in range(1, left.shape[1]):
        out.addcmul_(left[:, k : k + 1], right[k : k + 1])
    return out


def transpose(matrix: Tensor) -> Tensor:
    """Transpose of every matrix (a view)."""
    return matrix.transpose(0, 1)


def congruence(factor: Tensor, matrix: Tensor, plus: Tensor | None = None) -> Tensor:
    """``factor @ matrix @ factor' + plus``."""
    return times_matrix(times_matrix(factor, matrix), transpose(factor), plus)


def distinct(matrix: Tensor) -> Tensor:
    """Distinct entries of symmetric matrices by row, ``(2 K - 1, ...)``; K is 1 or 2."""
    return matrix[0] if matrix.shape[0] == 1 else torch.cat((matrix[0], matrix[1, 1:]))


def whole(entries: Tensor) -> Tensor:
    """Symmetric matrices ``(K, K, ...)`` of their distinct entries: a view, not to be written."""
    size = (entries.shape[0] + 1) // 2
    return entries.unfold(0, size, 1).movedim(-1, 1)


def symmetric(matrix: Tensor) -> Tensor:
    """``(X + X') / 2``."""
    return matrix if matrix.shape[0] == 1 else torch.add(matrix, transpose(matrix)).mul_(0.5)


def identity_minus(matrix: Tensor) -> Tensor:
    """``I - X``."""
    out = -matrix
    for k in range(matrix.shape[0]):
        out[k, k].add_(1.0)
    return out


def entries(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Entries of 2 x 2 matrices by row (views; cheaper than indexing each)."""
    (a, b), (c, d) = (row.unbind(0) for row in matrix.unbind(0))
    return a, b, c, d


def determinant(matrix: Tensor) -> Tensor:
    """Compute determinants of positive-semidefinite matrices, never below rounding level."""
    if matrix.shape[0] == 1:
        return matrix[0, 0]
    a, b, _, d = entries(matrix)
    product = a * d
    exact = torch.addcmul(product, b, b, value=-1.0)
    return torch.maximum(exact, product.mul_(torch.finfo(matrix.dtype).eps), out=exact)


def plus_adjugate(matrix: Tensor, scale: Tensor, other: Tensor, divisor: Tensor) -> Tensor:
    """``(matrix + scale * adj(other)) / divisor`` for symmetric 2 x 2 matrices."""
    out = torch.empty_like(matrix, memory_format=torch.contiguous_format)
    (a, b, _, d), (e, f, _, h) = entries(matrix), entries(other)
    first, mixed, copied, last = entries(out)
    torch.addcmul(a, scale, h, out=first).div_(divisor)
    torch.addcmul(b, scale, f, value=-1.0, out=mixed).div_(divisor)
    torch.addcmul(d, scale, e, out=last).div_(divisor)
    copied.copy_(mixed)
    return out


def inverse(matrix: Tensor) -> Tensor:
    """Inverse of symmetric positive-definite matrices."""
    if matrix.shape[0] == 1:
        return matrix.reciprocal()
    scale = determinant(matrix).reciprocal_()
    out = torch.empty_like(matrix, memory_format=torch.contiguous_format)
    torch.mul(matrix[1, 1], scale, out=out[0, 0])
    torch.mul(matrix[0, 0], scale, out=out[1, 1])
    torch.mul(matrix[0, 1], scale.neg_(), out=out[0, 1])
    out[1, 0].copy_(out[0, 1])
    return out


class Odds(NamedTuple):
    """|P|, |Lambda| and |I + P Lambda| - 1."""

    covariance: Tensor
    precision: Tensor
    total: Tensor


def odds(covariance: Tensor, precision: Tensor) -> Odds:
    """Compute the determinants of an update."""
    if covariance.shape[0] == 1:
        product = covariance[0, 0] * precision[0, 0]
        return Odds(covariance[0, 0], precision[0, 0], product)
    one, two = determinant(covariance), determinant(precision)
    (a, b, _, d), (e, f, _, h) = entries(covariance), entries(precision)
    total = torch.mul(a, e).addcmul_(b, f, value=2.0).addcmul_(d, h).addcmul_(one, two)
    return Odds(one, two, total)


def posterior(covariance: Tensor, precision: Tensor) -> Tensor:
    """S = (P^-1 + Lambda)^-1."""
    found = odds(covariance, precision)
    if covariance.shape[0] == 1:
        return covariance / (1.0 + found.total)
    return plus_adjugate(covariance, found.covariance, precision, found.total.add_(1.0))


def posterior_entries(covariance: Tensor, precision: Tensor) -> Tensor:
    """Distinct entries of ``posterior``."""
    found = odds(covariance, precision)
    divisor = found.total.add_(1.0)
    if covariance.shape[0] == 1:
        return covariance[0] / divisor
    (a, b, _, d), (e, f, _, h) = entries(covariance), entries(precision)
    out = torch.empty((3, *divisor.shape), dtype=divisor.dtype, device=divisor.device)
    first, mixed, last = out.unbind(0)
    torch.addcmul(a, found.covariance, h, out=first)
    torch.addcmul(b, found.covariance, f, value=-1.0, out=mixed)
    torch.addcmul(d, found.covariance, e, out=last)
    return out.div_(divisor)


def root_entries(covariance: Tensor) -> Tensor:
    """Cholesky factors by row; what rounding leaves of a singular covariance stays positive.

    Both by distinct entries: the zero of a factor is left out.
    """
    info = torch.finfo(covariance.dtype)
    out = torch.empty_like(covariance, memory_format=torch.contiguous_format)
    torch.clamp_min(covariance[0], info.tiny, out=out[0]).sqrt_()
    if len(covariance) == 1:
        return out
    _, c, w = covariance.unbind(0)
    first, below, last = out.unbind(0)
    torch.div(c, first, out=below)
    torch.addcmul(w, below, below, value=-1.0, out=last)
    floor = torch.mul(w, info.eps).clamp_min_(info.tiny)
    torch.maximum(last, floor, out=last).sqrt_()
    return out


def times_lower(root: Tensor, vector: Tensor) -> Tensor:
    """``R @ vector`` of ``root_entries``."""
    if len(root) == 1:
        return root * vector
    out = root[:2] * vector[0]
    out[1].addcmul_(root[2], vector[1])
    return out


class Update(NamedTuple):
    """J = (I + P Lambda)^-1, S = J P, X = Lambda J (module docstring); log |I + P Lambda|."""

    keep: Tensor
    posterior: Tensor
    shrinkage: Tensor
    log_det: Tensor


def update(covariance: Tensor, precision: Tensor) -> Update:
    """Multiply by a potential."""
    found = odds(covariance, precision)
    log_det = torch.log1p(found.total)
    divisor = found.total.add_(1.0)
    if covariance.shape[0] == 1:
        return Update(
            divisor.reciprocal()[None, None], covariance / divisor, precision / divisor, log_det
        )
    return Update(
        _keep(covariance, precision, divisor),
        plus_adjugate(covariance, found.covariance, precision, divisor),
        plus_adjugate(precision, found.precision, covariance, divisor),
        log_det,
    )


def _keep(covariance: Tensor, precision: Tensor, divisor: Tensor) -> Tensor:
    (p, q, _, r), (a, b, _, c) = entries(covariance), entries(precision)
    out = torch.empty_like(covariance, memory_format=torch.contiguous_format)
    first, right, left, last = entries(out)
    mixed = b * q
    torch.addcmul(mixed, c, r, out=first).add_(1.0)
    torch.addcmul(mixed, a, p, out=last).add_(1.0)
    torch.mul(c, q, out=right).addcmul_(b, p).neg_()
    torch.mul(b, r, out=left).addcmul_(a, q).neg_()
    return out.div_(divisor)


def symmetric_outer_sums(left: Tensor, right: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Symmetric part of ``outer_sums(left, right, dims)``."""
    if left.shape[0] == 1:
        return outer_sums(left, right, dims)
    mixed = (left[0] * right[1]).addcmul_(left[1], right[0])
    off = row_sums(mixed, dims).mul_(0.5)
    out = off.new_empty(2, 2, *off.shape)
    (first, upper), (lower, last) = (row.unbind(0) for row in out.unbind(0))
    upper.copy_(off)
    lower.copy_(off)
    first.copy_(row_sums(torch.mul(left[0], right[0], out=mixed), dims))
    last.copy_(row_sums(torch.mul(left[1], right[1], out=mixed), dims))
    return out


def outer_sums(left: Tensor, right: Tensor, dims: tuple[int, ...]) -> Tensor:
    """``sum(left right')`` over ``dims`` of the planes (kept as 1): ``(K, K, ...)``."""
    size = left.shape[0]
    shape = np.broadcast_shapes(left.shape[1:], right.shape[1:])
    if all(shape[dim] == 1 for dim in dims):
        return left[:, None] * right[None]
    buffer = left.new_empty(shape)
    rows = []
    for i in range(size):
        for j in range(size):
            torch.mul(left[i], right[j], out=buffer)
            rows.append(buffer.sum(dims, keepdim=True))
    return torch.stack(rows).unflatten(0, (size, size))


def row_sums(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sum over ``dims`` (kept as 1); what has one number along them is returned itself."""
    if all(values.shape[dim] == 1 for dim in dims):
        return values
    return values.sum(dims, keepdim=True)
