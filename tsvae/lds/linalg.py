"""Small positive-(semi)definite linear algebra, batched over leading axes.

Latent groups are tiny (1 or 2 wide) in grouped models and a LAPACK call costs far more than the
arithmetic there, so sizes 1 and 2 are written out element by element; larger sizes go to
``torch.linalg``. Everything accepts ``(..., K, K)`` and is differentiable unless said otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

_JITTER_STEPS = (0.0, 1.0, 1e2, 1e4, 1e6)


def symmetrize(matrix: Tensor) -> Tensor:
    """Return ``(X + X') / 2``."""
    return 0.5 * (matrix + matrix.mT)


def identity_like(matrix: Tensor) -> Tensor:
    """Identity of the trailing size of ``matrix``, its dtype and device."""
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _stack2(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return [[a, b], [c, d]]."""
    return torch.stack((torch.stack((a, b), dim=-1), torch.stack((c, d), dim=-1)), dim=-2)


def adjugate_2x2(matrix: Tensor) -> Tensor:
    """Adjugate ``[[d, -b], [-c, a]]`` of 2 x 2 matrices."""
    a, b, c, d = matrix.flatten(-2).unbind(-1)
    return _stack2(d, -b, -c, a)


def determinant_2x2(matrix: Tensor) -> Tensor:
    """Compute determinants of positive-semidefinite 2 x 2 matrices, never below rounding level."""
    a, b, c, d = matrix.flatten(-2).unbind(-1)
    product = a * d
    floor = torch.finfo(matrix.dtype).eps * product.detach()
    return torch.maximum(product - b * c, floor)


def safe_cholesky(matrix: Tensor) -> Tensor:
    """Lower Cholesky factor that survives rounding.

    The matrix is scaled to unit diagonal first (graded matrices whose entries span many orders of
    magnitude then factor without loss); jitter relative to that diagonal is added only to matrices
    that LAPACK refuses.

    Parameters
    ----------
    matrix : Tensor (..., K, K)
        Symmetric positive definite up to rounding.

    Returns
    -------
    Tensor (..., K, K)
        Lower-triangular factor.

    Examples
    --------
    >>> safe_cholesky(torch.tensor([[4.0, 0.0], [0.0, 9.0]]))
    tensor([[2., 0.],
            [0., 3.]])
    """
    size = matrix.shape[-1]
    info = torch.finfo(matrix.dtype)
    if size == 1:
        return matrix.clamp_min(info.tiny).sqrt()
    # The scale is a constant of the factorisation: chol(D X D) = D chol(X) for any diagonal D.
    spread = matrix.detach().diagonal(dim1=-2, dim2=-1).clamp_min(info.tiny).sqrt()
    scaled = matrix / spread.unsqueeze(-1) / spread.unsqueeze(-2)
    factor = _cholesky_2x2(scaled) if size == 2 else _cholesky_lapack(scaled)
    return factor * spread.unsqueeze(-1)


def _cholesky_2x2(matrix: Tensor) -> Tensor:
    tiny = torch.finfo(matrix.dtype).tiny
    eps = torch.finfo(matrix.dtype).eps
    a, _, c, d = matrix.flatten(-2).unbind(-1)
    first = a.clamp_min(tiny).sqrt()
    below = c / first
    second = (d - below * below).clamp_min(eps).sqrt()
    return _stack2(first, torch.zeros_like(first), below, second)


def _cholesky_lapack(scaled: Tensor) -> Tensor:
    unit = scaled.shape[-1] * torch.finfo(scaled.dtype).eps
    eye = identity_like(scaled)
    jitter = torch.zeros(scaled.shape[:-2], dtype=scaled.dtype, device=scaled.device)
    factor = scaled
    for step in _JITTER_STEPS:
        candidate = scaled if step == 0.0 else scaled + jitter[..., None, None] * eye
        factor, failed = torch.linalg.cholesky_ex(candidate)
        if not bool(failed.any()):
            break
        jitter = torch.where(failed > 0, jitter + max(step * 100.0, 1.0) * unit, jitter)
    return factor


def root_or_zero(values: Tensor) -> Tensor:
    """Square root of non-negative numbers, with gradient 0 at 0."""
    if not (values.requires_grad and torch.is_grad_enabled()):
        return values.clamp_min(0.0).sqrt()
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve ``matrix @ X = right`` for symmetric positive-definite ``matrix``."""
    size = matrix.shape[-1]
    if size == 1:
        return right / matrix
    if size == 2:
        return (adjugate_2x2(matrix) @ right) / determinant_2x2(matrix)[..., None, None]
    return torch.cholesky_solve(right, safe_cholesky(matrix))


def inverse_positive(matrix: Tensor) -> Tensor:
    """Inverse of symmetric positive-definite matrices, symmetric by construction."""
    return symmetrize(solve_positive(matrix, identity_like(matrix).expand_as(matrix)))


def log_det_positive(matrix: Tensor) -> Tensor:
    """Log-determinant of symmetric positive-definite matrices."""
    diagonal = safe_cholesky(matrix).diagonal(dim1=-2, dim2=-1)
    return 2.0 * diagonal.log().sum(-1)


@torch.no_grad()
def semidefinite_factor(matrix: Tensor) -> Tensor:
    """Find a ``W`` with ``W W' = matrix`` for positive-*semi*definite input (no gradient).

    Diagonal matrices give their elementwise root, definite ones their Cholesky factor, and
    singular ones the scaled eigenvectors of the matrix brought to unit diagonal.
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1).clamp_min(0.0)
    root = torch.diag_embed(diagonal.sqrt())
    off_diagonal = (matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))).abs()
    dense = off_diagonal.amax(dim=(-2, -1)) > 0
    if not bool(dense.any()):
        return root
    picked = matrix[dense]
    spread = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal))[dense].sqrt()
    scaled = picked / spread.unsqueeze(-1) / spread.unsqueeze(-2)
    factor, failed = torch.linalg.cholesky_ex(scaled)
    singular = failed > 0
    if bool(singular.any()):
        values, vectors = torch.linalg.eigh(symmetrize(scaled[singular]))
        factor[singular] = vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)
    root[dense] = factor * spread.unsqueeze(-1)
    return root


def spectral_radius(matrix: Tensor) -> Tensor:
    """Largest absolute eigenvalue of ``(..., K, K)``.

    Differentiable for K = 1 and 2 (closed form); a constant (detached) value for larger K, where
    the derivative of an eigenvalue may not exist.

    Examples
    --------
    >>> spectral_radius(torch.tensor([[0.0, 2.0], [-2.0, 0.0]]))
    tensor(2.)
    """
    size = matrix.shape[-1]
    if size == 1:
        return matrix[..., 0, 0].abs()
    if size == 2:
        a, b, c, d = matrix.flatten(-2).unbind(-1)
        half_trace = 0.5 * (a + d)
        determinant = a * d - b * c
        # (a-d)^2/4 + bc avoids the cancellation of trace^2/4 - det near a double root.
        discriminant = 0.25 * (a - d).square() + b * c
        real = discriminant >= 0
        one = torch.ones_like(a)
        positive = discriminant > 0
        gap = torch.where(positive, torch.where(positive, discriminant, one).sqrt(), 0.0 * a)
        modulus = torch.where(real, one, determinant).sqrt()
        return torch.where(real, half_trace.abs() + gap, modulus)
    # LAPACK may crash the process on NaN: those matrices never reach it.
    fixed = matrix.detach()
    finite = fixed.isfinite().flatten(-2).all(-1)
    radius = torch.linalg.eigvals(torch.where(finite[..., None, None], fixed, 0.0)).abs().amax(-1)
    return torch.where(finite, radius, torch.nan)
