r"""Natural gradients for MNIW (and NIW) factors in an unconstrained parameterisation.

A factor is stored as one tensor xi of shape (G, n): the mean M, unit-lower Cholesky parts and
log-diagonals of S and V (:math:`S = U e^{2d} U'` with U unit lower-triangular), and
:math:`x = \log(\nu - (K - 1))`. Every value of xi is a valid factor: S, V > 0 and nu > K - 1.

The loss sees a factor only through

.. math::
    \phi = (M,\; \bar Q = E[Q^{-1}]^{-1} = S / \nu,\; C = K V^{-1},\;
            c = \tfrac12(E\log|Q^{-1}| - \log|E Q^{-1}|)),

which is a smooth function of the mean parameters :math:`t = E[(-\tfrac12Q^{-1}, Q^{-1}\Theta,
-\tfrac12\Theta'Q^{-1}\Theta, \tfrac12\log|Q^{-1}|)]`: with W = E[Q^-1],
:math:`W = -2t_1,\; M = W^{-1}t_2,\; C = -2t_3 - t_2'W^{-1}t_2,\; c = t_4 - \tfrac12\log|W|`. Hence,
writing bars for derivatives of the loss and :math:`\bar W` for the one with respect to W,

.. math::
    \bar t_2 = W^{-1}\bar M - 2M\bar C, \quad
    \bar t_1 = -2\,sym(\bar W - W^{-1}\bar M M' + M\bar C M'), \quad
    \bar t_3 = -2\bar C, \quad \bar t_4 = \bar c.

In an exponential family the gradient in mean parameters *is* the natural gradient in natural
parameters eta (Amari 1998; Hoffman et al. 2013, eq. 14; Johnson et al. 2016, section 4.2):
:math:`F^{-1}\nabla_\eta L = \nabla_t L`. The differential of :math:`\eta \mapsto \xi` then carries
it over, and that is what ``backward`` returns as the gradient of xi. Plain descent with step rho on
xi is the conjugate update :math:`\eta \leftarrow \eta - \rho\nabla_t L` to first order. For the KL
to the prior, :math:`\nabla_t KL = \eta - \eta_0` exactly.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.linalg import inverse_positive, log_det_positive, safe_cholesky, symmetrize
from tsvae.lds.priors import MNIW, NaturalParameters, natural_from_standard

# exp(2 * 30) is far beyond any data scale and still finite in float32.
_LOG_LIMIT = 30.0


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
    """Pieces of xi, and of a direction in xi."""

    mean: Tensor
    scale: Tensor
    rows: Tensor
    degrees: Tensor


class _Roots(NamedTuple):
    """Cholesky factors and nu of a factor."""

    mean: Tensor
    scale_root: Tensor
    rows_root: Tensor
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
    diagonal = free[..., :size].clamp(-_LOG_LIMIT, _LOG_LIMIT).exp()
    if size == 1:
        return diagonal.unsqueeze(-1)
    below = free.new_zeros(*free.shape[:-1], size * size)
    below = below.index_copy(-1, _strictly_below(size, free.device), free[..., size:])
    unit = below.unflatten(-1, (size, size)) + torch.eye(size, dtype=free.dtype, device=free.device)
    return unit * diagonal.unsqueeze(-2)


@lru_cache(maxsize=64)
def _strictly_below(size: int, device: torch.device) -> Tensor:
    """Flat positions of the entries below the diagonal."""
    row, column = torch.tril_indices(size, size, offset=-1, device=device)
    return row * size + column


def free_from_root(root: Tensor) -> Tensor:
    """Inverse of ``root_from_free``."""
    size = root.shape[-1]
    diagonal = root.diagonal(dim1=-2, dim2=-1)
    unit = (root / diagonal.unsqueeze(-2)).flatten(-2)
    below = unit.index_select(-1, _strictly_below(size, root.device))
    return torch.cat((diagonal.log(), below), dim=-1)


def _roots(xi: Tensor, size: FactorSize) -> _Roots:
    parts = _split(xi, size)
    degrees = parts.degrees.clamp(-_LOG_LIMIT, _LOG_LIMIT).exp() + (size.outcomes - 1)
    return _Roots(
        parts.mean,
        root_from_free(parts.scale, size.outcomes),
        root_from_free(parts.rows, size.regressors),
        degrees,
    )


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
    return _from_roots(_roots(xi, size))


def _from_roots(roots: _Roots) -> MNIW:
    return MNIW(
        roots.scale_root @ roots.scale_root.mT,
        roots.degrees,
        roots.mean,
        roots.rows_root @ roots.rows_root.mT,
    )


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


def _wide(tensor: Tensor) -> Tensor:
    """Float64 where the device has it: these sums are small and their differences matter."""
    return tensor if tensor.device.type == "mps" else tensor.double()


def _root_direction(root: Tensor, change: Tensor) -> Tensor:
    """Differential of the free coordinates of a Cholesky factor for d(root root') = change."""
    size = root.shape[-1]
    if size == 1:
        return 0.5 * change.squeeze(-1) / root.squeeze(-1).square()
    half = torch.linalg.solve_triangular(root, change, upper=False)
    phi = torch.linalg.solve_triangular(root, half.mT, upper=False).tril_()
    phi.diagonal(dim1=-2, dim2=-1).mul_(0.5)
    diagonal = phi.diagonal(dim1=-2, dim2=-1)
    scale = root.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    unit = (root @ phi - root * diagonal.unsqueeze(-2)) / scale
    below = unit.flatten(-2).index_select(-1, _strictly_below(size, root.device))
    return torch.cat((diagonal, below), dim=-1)


def unconstrained_direction(xi: Tensor, direction: NaturalParameters, size: FactorSize) -> Tensor:
    r"""Apply the differential of eta -> xi to a direction in natural parameters.

    With :math:`V = \eta_3,\; M = \eta_2V^{-1},\; S = \eta_1 - MVM',\; \nu = \eta_4`.
    """
    return _direction(_roots(_wide(xi), size), direction, size).to(xi.dtype)


def _direction(roots: _Roots, direction: NaturalParameters, size: FactorSize) -> Tensor:
    outer, mixed, rows, count = (_wide(part) for part in direction)
    mean = roots.mean
    change = torch.cholesky_solve((mixed - mean @ rows).mT, roots.rows_root).mT
    moved = mixed @ mean.mT
    scale = symmetrize(outer - moved - moved.mT + mean @ rows @ mean.mT)
    parts = _Parts(
        change,
        _root_direction(roots.scale_root, scale),
        _root_direction(roots.rows_root, symmetrize(rows)),
        count / (roots.degrees - (size.outcomes - 1)),
    )
    return _join(parts)


def _kl(roots: _Roots, p: MNIW, size: FactorSize) -> Tensor:
    """``kl_divergence`` summed over groups, from the factors of q."""
    k, n = size
    nu, nu_p = roots.degrees, p.degrees_of_freedom
    error = roots.mean - p.mean
    order = torch.arange(k, dtype=nu.dtype, device=nu.device)
    half_q, half_p = (0.5 * (x.unsqueeze(-1) - order) for x in (nu, nu_p))
    log_rows = 2.0 * roots.rows_root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_scale = 2.0 * roots.scale_root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    ratio = (torch.cholesky_inverse(roots.rows_root) * p.precision).sum((-2, -1))
    spread = p.scale + error @ p.precision @ error.mT
    trace = (torch.cholesky_inverse(roots.scale_root) * spread).sum((-2, -1))
    rows = k * (ratio - n + log_rows - log_det_positive(p.precision))
    wishart = nu_p * (log_scale - log_det_positive(p.scale)) + nu * (trace - k)
    gammas = torch.lgamma(half_p) - torch.lgamma(half_q)
    gammas = gammas + 0.5 * (nu - nu_p).unsqueeze(-1) * torch.digamma(half_q)
    return (0.5 * (rows + wishart) + gammas.sum(-1)).sum()


class _NaturalTerms(torch.autograd.Function):
    """Phi and, with a prior, the KL to it; one direction for both."""

    @staticmethod
    def forward(
        ctx: Any, xi: Tensor, size: FactorSize, prior: MNIW | None
    ) -> tuple[Tensor | None, ...]:
        roots = _roots(_wide(xi), size)
        ctx.size, ctx.prior, ctx.dtype = size, prior, xi.dtype
        ctx.save_for_backward(*roots)
        ctx.set_materialize_grads(False)
        phi = expectations_from_standard(_from_roots(roots))
        outputs = tuple(part.to(xi.dtype) for part in phi)
        if prior is None:
            return *outputs, None
        return *outputs, _kl(roots, MNIW(*(_wide(part) for part in prior)), size).to(xi.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None]:
        roots = _Roots(*ctx.saved_tensors)
        total: NaturalParameters | None = None
        if any(grad is not None for grad in grads[:4]):
            shapes = (roots.mean, roots.scale_root, roots.rows_root, roots.degrees)
            given = [
                torch.zeros_like(like) if grad is None else _wide(grad)
                for grad, like in zip(grads[:4], shapes, strict=True)
            ]
            total = _expectation_direction(roots, *given)
        if grads[4] is not None:
            q = natural_from_standard(_from_roots(roots))
            p = natural_from_standard(MNIW(*(_wide(part) for part in ctx.prior)))
            scale = _wide(grads[4])
            pull = NaturalParameters(*(scale * (a - b) for a, b in zip(q, p, strict=True)))
            if total is None:
                total = pull
            else:
                total = NaturalParameters(*(a + b for a, b in zip(total, pull, strict=True)))
        if total is None:
            return None, None, None
        return _direction(roots, total, ctx.size).to(ctx.dtype), None, None


def _expectation_direction(
    roots: _Roots, grad_mean: Tensor, grad_noise: Tensor, grad_excess: Tensor, grad_log_det: Tensor
) -> NaturalParameters:
    """Natural direction of a loss with these gradients by phi."""
    mean = roots.mean
    root = roots.scale_root / roots.degrees.sqrt()[..., None, None]
    inverse_w = root @ root.mT
    grad_c = grad_log_det[..., None, None]
    # Derivative with respect to W: through W^-1 and through c = t_4 - log|W| / 2.
    grad_w = -inverse_w @ symmetrize(grad_noise) @ inverse_w - 0.5 * grad_c * inverse_w
    excess = symmetrize(grad_excess)
    pulled = inverse_w @ grad_mean
    return NaturalParameters(
        -2.0 * symmetrize(grad_w - pulled @ mean.mT + mean @ excess @ mean.mT),
        pulled - 2.0 * mean @ excess,
        -2.0 * excess,
        grad_log_det,
    )


class NaturalTerms(NamedTuple):
    """Phi of a factor and the KL to its prior, summed over groups, in nats."""

    expectations: Expectations
    kl: Tensor


def natural_terms(xi: Tensor, size: FactorSize, prior: MNIW) -> NaturalTerms:
    """Phi and KL of a factor; ``backward`` yields the natural direction of both at once.

    Parameters
    ----------
    xi : Tensor (G, n)
        Unconstrained factor.
    size : FactorSize
        K and L.
    prior : MNIW
        Constant.

    Returns
    -------
    NaturalTerms
    """
    *phi, kl = _NaturalTerms.apply(xi, size, prior)  # type: ignore[no-untyped-call]
    return NaturalTerms(Expectations(*phi), kl)


def natural_expectations(xi: Tensor, size: FactorSize) -> Expectations:
    """Phi of a factor; ``backward`` yields the natural direction in xi instead of the gradient.

    Parameters
    ----------
    xi : Tensor (G, n)
    size : FactorSize

    Returns
    -------
    Expectations
    """
    return Expectations(*_NaturalTerms.apply(xi, size, None)[:4])  # type: ignore[no-untyped-call]


def natural_kl(xi: Tensor, size: FactorSize, prior: MNIW) -> Tensor:
    """KL to the prior, summed over groups; natural direction ``eta - eta_0`` in ``backward``.

    Parameters
    ----------
    xi : Tensor (G, n)
        Unconstrained factor.
    size : FactorSize
        K and L.
    prior : MNIW
        Constant.

    Returns
    -------
    Tensor
        A scalar, in nats.
    """
    return natural_terms(xi, size, prior).kl
