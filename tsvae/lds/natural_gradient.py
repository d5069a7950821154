r"""Natural gradients of what a loss takes of MNIW (and NIW) factors.

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
:math:`F^{-1}\nabla_\eta L = \nabla_t L`. The differential of :math:`\eta = (S + MVM', MV, V, \nu)
\mapsto (M, S, V, \nu)` takes it to

.. math::
    \delta M = W^{-1}\bar M V^{-1}, \quad \delta S = -2\,sym\,\bar W
    = 2 W^{-1}\,sym(\bar{\bar Q})\,W^{-1} + \bar c\,W^{-1}, \quad
    \delta V = -2\,sym\,\bar C, \quad \delta\nu = \bar c,

and for the KL to the prior, where :math:`\nabla_t KL = \eta - \eta_0` exactly, with E = M - M_0, to

.. math::
    \delta M = E V_0 V^{-1}, \quad \delta S = S - S_0 - E V_0 E', \quad
    \delta V = V - V_0, \quad \delta\nu = \nu - \nu_0.

Their sum in the coordinates xi is what ``backward`` returns as the gradient of xi. Plain descent
with step rho on xi is the conjugate update :math:`\eta \leftarrow \eta - \rho\nabla_t L` to first
order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.linalg import log_det_positive, symmetrize
from tsvae.lds.natural import LOG_LIMIT, Expectations, FactorSize, strictly_below
from tsvae.lds.priors import MNIW


class NaturalTerms(NamedTuple):
    """Phi of a factor and the KL to its prior, summed over groups, in nats."""

    expectations: Expectations
    kl: Tensor


def natural_terms(
    xi: Tensor, size: FactorSize, prior: MNIW, constant: Tensor | None = None
) -> NaturalTerms:
    """Phi and KL of a factor; ``backward`` yields the natural direction of both at once.

    Parameters
    ----------
    xi : Tensor (G, n)
        Unconstrained factor.
    size : FactorSize
        K and L.
    prior : MNIW
        Constant.
    constant : Tensor, optional
        ``kl_constant(prior)``, if at hand.

    Returns
    -------
    NaturalTerms
    """
    if constant is None:
        constant = kl_constant(prior)
    *phi, kl = _NaturalTerms.apply(xi, size, prior, constant)  # type: ignore[no-untyped-call]
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
    found = _NaturalTerms.apply(xi, size, None, None)  # type: ignore[no-untyped-call]
    return Expectations(*found[:4])


def natural_kl(xi: Tensor, size: FactorSize, prior: MNIW, constant: Tensor | None = None) -> Tensor:
    """KL to the prior, summed over groups; natural direction ``eta - eta_0`` in ``backward``.

    Parameters
    ----------
    xi : Tensor (G, n)
        Unconstrained factor.
    size : FactorSize
        K and L.
    prior : MNIW
        Constant.
    constant : Tensor, optional
        ``kl_constant(prior)``, if at hand.

    Returns
    -------
    Tensor
        A scalar, in nats.
    """
    return natural_terms(xi, size, prior, constant).kl


def kl_constant(prior: MNIW) -> Tensor:
    """Part of the KL that depends on the prior alone, summed over groups: a float64 scalar.

    Parameters
    ----------
    prior : MNIW

    Returns
    -------
    Tensor
    """
    scale, degrees, _, precision = (_wide(part) for part in prior)
    k, n = prior.mean.shape[-2:]
    order = torch.arange(k, dtype=degrees.dtype, device=degrees.device)
    gammas = torch.lgamma(0.5 * (degrees.unsqueeze(-1) - order)).sum(-1)
    logs = k * (n + log_det_positive(precision)) + degrees * log_det_positive(scale)
    return (gammas - 0.5 * logs).sum()


def _wide(tensor: Tensor) -> Tensor:
    """Float64 where the device has it: these sums are small and their differences matter."""
    return tensor if tensor.device.type == "mps" else tensor.double()


class _Arrangement(NamedTuple):
    """Where the numbers of a factor lie in xi, which holds ``mean, scale, rows, degrees``.

    Attributes
    ----------
    logs : Tensor (K + L + 1,)
        Log-diagonals of S and V, log(nu - (K - 1)).
    units : Tensor (K K + L L,)
        Unit lower-triangular factors, in xi followed by a zero and a one.
    ends : Tensor (1, 2)
        That zero and one.
    eyes, belows : tuple of Tensor (K, K), (L, L)
        Identities; ones below the diagonal.
    half_order : Tensor (K,)
        0, 1/2, ..., (K - 1) / 2.
    """

    logs: Tensor
    units: Tensor
    ends: Tensor
    eyes: tuple[Tensor, Tensor]
    belows: tuple[Tensor, Tensor]
    half_order: Tensor


@lru_cache(maxsize=64)
def _arrangement(size: FactorSize, dtype: torch.dtype, device: torch.device) -> _Arrangement:
    k, n = size
    scale, rows = k * n, k * n + k * (k + 1) // 2
    zero = size.n_free
    logs = [*range(scale, scale + k), *range(rows, rows + n), zero - 1]
    units = []
    for width, start in ((k, scale), (n, rows)):
        unit = torch.full((width * width,), zero)
        unit[:: width + 1] = zero + 1
        below = strictly_below(width, torch.device("cpu"))
        unit[below] = start + width + torch.arange(len(below))
        units.append(unit)
    like = torch.ones(0, dtype=dtype, device=device)
    eyes = tuple(torch.eye(width).to(like) for width in size)
    return _Arrangement(
        torch.tensor(logs, device=device),
        torch.cat(units).to(device),
        torch.tensor([[0.0, 1.0]]).to(like),
        (eyes[0], eyes[1]),
        (torch.ones(k, k).tril(-1).to(like), torch.ones(n, n).tril(-1).to(like)),
        torch.arange(k).to(like) / 2,
    )


class _Roots(NamedTuple):
    """A factor: M, Cholesky factors of S and V with their inverses and log-diagonals, and nu."""

    mean: Tensor
    scale: Tensor
    scale_inverse: Tensor
    rows: Tensor
    rows_inverse: Tensor
    scale_logs: Tensor
    rows_logs: Tensor
    degrees: Tensor


def _roots(xi: Tensor, size: FactorSize) -> _Roots:
    k, n = size
    at = _arrangement(size, xi.dtype, xi.device)
    logs = xi.index_select(-1, at.logs).clamp_(-LOG_LIMIT, LOG_LIMIT)
    scales = logs.exp().split([k, n, 1], dim=-1)
    units = torch.cat((xi, at.ends.expand(len(xi), 2)), dim=-1).index_select(-1, at.units)
    flat = units.split([k * k, n * n], dim=-1)
    scale, rows = (
        unit.view(-1, width, width) * diagonal.unsqueeze(-2)
        for unit, width, diagonal in zip(flat, size, scales, strict=False)
    )
    scale_inverse, rows_inverse = (
        torch.linalg.solve_triangular(root, eye, upper=False)
        for root, eye in zip((scale, rows), at.eyes, strict=True)
    )
    mean = xi[:, : k * n].unflatten(-1, (k, n))
    scale_logs, rows_logs, _ = logs.split([k, n, 1], dim=-1)
    degrees = scales[2].squeeze(-1) + (k - 1)
    return _Roots(mean, scale, scale_inverse, rows, rows_inverse, scale_logs, rows_logs, degrees)


class _Divergence(NamedTuple):
    """The KL, and what its direction takes over.

    Attributes
    ----------
    value : Tensor ()
    pull, spread : Tensor (G, K, L), (G, K, K)
        ``E V_0`` and ``S_0 + E V_0 E'``.
    """

    value: Tensor
    pull: Tensor
    spread: Tensor


def _divergence(
    roots: _Roots, inverse_rows: Tensor, half_args: Tensor, digammas: Tensor, prior: MNIW
) -> _Divergence:
    """``kl_divergence`` less ``kl_constant``, summed over groups, from the factors of q."""
    k = roots.mean.shape[-2]
    nu, nu_p = roots.degrees, prior.degrees_of_freedom
    error = roots.mean - prior.mean
    pull = error @ prior.precision
    spread = torch.baddbmm(prior.scale, pull, error.mT)
    ratio = (inverse_rows * prior.precision).sum((-2, -1))
    inverse_scale = roots.scale_inverse.mT @ roots.scale_inverse
    trace = (inverse_scale * spread).sum((-2, -1))
    logs = k * roots.rows_logs.sum(-1) + nu_p * roots.scale_logs.sum(-1)
    halves = k * ratio + nu * (trace - k) + (nu - nu_p) * digammas
    value = 0.5 * halves.sum() + logs.sum() - torch.lgamma(half_args).sum()
    return _Divergence(value, pull, spread)


class _NaturalTerms(torch.autograd.Function):
    """Phi and, with a prior, the KL to it; one direction for both."""

    @staticmethod
    def forward(
        ctx: Any, xi: Tensor, size: FactorSize, prior: MNIW | None, constant: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        k = size.outcomes
        roots = _roots(_wide(xi), size)
        at = _arrangement(size, roots.degrees.dtype, xi.device)
        half = 0.5 * roots.degrees
        half_args = half.unsqueeze(-1) - at.half_order
        digammas = torch.digamma(half_args).sum(-1)
        noise_root = roots.scale * roots.degrees.rsqrt()[:, None, None]
        noise = noise_root @ noise_root.mT
        inverse_rows = roots.rows_inverse.mT @ roots.rows_inverse
        phi = (roots.mean, noise, k * inverse_rows, 0.5 * (digammas - k * half.log()))
        outputs = tuple(part.to(xi.dtype) for part in phi)
        ctx.size, ctx.dtype, ctx.prior = size, xi.dtype, None
        ctx.set_materialize_grads(False)
        if prior is None:
            ctx.save_for_backward(*roots, noise, inverse_rows)
            return *outputs, None
        ctx.prior = prior = MNIW(*(_wide(part) for part in prior))
        found = _divergence(roots, inverse_rows, half_args, digammas, prior)
        ctx.save_for_backward(*roots, noise, inverse_rows, found.pull, found.spread)
        assert constant is not None
        return *outputs, (found.value + constant.to(found.value)).to(xi.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        saved = ctx.saved_tensors
        roots, noise, inverse_rows = _Roots(*saved[:8]), saved[8], saved[9]
        direction = _Direction()
        if any(grad is not None for grad in grads[:4]):
            given = [None if grad is None else _wide(grad) for grad in grads[:4]]
            direction.add_expectations(noise, *given)
        if grads[4] is not None:
            direction.add_divergence(_wide(grads[4]), roots, noise, ctx.prior, *saved[10:])
        found = direction.in_coordinates(roots, inverse_rows, ctx.size)
        return None if found is None else found.to(ctx.dtype), None, None, None


class _Direction:
    """Sum of directions: ``delta M V``, ``delta S``, ``delta V`` and ``delta nu``; None is zero."""

    def __init__(self) -> None:
        self.pull: Tensor | None = None
        self.scale: Tensor | None = None
        self.rows: Tensor | None = None
        self.degrees: Tensor | None = None

    def add_expectations(
        self,
        noise: Tensor,
        mean: Tensor | None,
        covariance: Tensor | None,
        excess: Tensor | None,
        log_det: Tensor | None,
    ) -> None:
        """Natural direction of a loss with these gradients by phi."""
        if mean is not None:
            self.pull = noise @ mean
        if covariance is not None:
            self.scale = noise @ (covariance + covariance.mT) @ noise
        if excess is not None:
            self.rows = -(excess + excess.mT)
        if log_det is not None:
            scale = log_det[:, None, None] * noise
            self.scale = scale if self.scale is None else self.scale + scale
            self.degrees = log_det

    def add_divergence(
        self,
        weight: Tensor,
        roots: _Roots,
        noise: Tensor,
        prior: MNIW,
        pull: Tensor,
        spread: Tensor,
    ) -> None:
        """``weight`` times the direction of the KL."""
        parts = (
            pull,
            roots.degrees[:, None, None] * noise - spread,
            torch.baddbmm(prior.precision, roots.rows, roots.rows.mT, beta=-1.0),
            roots.degrees - prior.degrees_of_freedom,
        )
        names = ("pull", "scale", "rows", "degrees")
        for name, part in zip(names, parts, strict=True):
            own = getattr(self, name)
            setattr(self, name, weight * part if own is None else own + weight * part)

    def in_coordinates(
        self, roots: _Roots, inverse_rows: Tensor, size: FactorSize
    ) -> Tensor | None:
        """Direction in xi, ``(G, n)``; None if nothing was added."""
        parts = (self.pull, self.scale, self.rows, self.degrees)
        if all(part is None for part in parts):
            return None
        k = size.outcomes
        like = (roots.mean, roots.scale, roots.rows, roots.degrees)
        pull, scale, rows, degrees = (
            torch.zeros_like(shape) if part is None else part
            for part, shape in zip(parts, like, strict=True)
        )
        belows = _arrangement(size, scale.dtype, scale.device).belows
        return torch.cat(
            (
                (pull @ inverse_rows).flatten(1),
                *_root_direction(roots.scale, roots.scale_inverse, scale, belows[0]),
                *_root_direction(roots.rows, roots.rows_inverse, rows, belows[1]),
                (degrees / (roots.degrees - (k - 1))).unsqueeze(-1),
            ),
            dim=-1,
        )


def _root_direction(
    root: Tensor, inverse: Tensor, change: Tensor, below: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Differential of the free coordinates of a Cholesky factor L for d(LL') = change.

    With :math:`X = L^{-1}\,dS\,L^{-T}`: half of X's diagonal for the log-diagonal, and
    :math:`L\,tril(X, -1)` with each column over its own scale for the unit part.
    """
    inner = symmetrize(inverse @ change @ inverse.mT)
    scale = root.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    unit = ((root @ (inner * below)) / scale).flatten(1)
    diagonal = 0.5 * inner.diagonal(dim1=-2, dim2=-1)
    return diagonal, unit.index_select(-1, strictly_below(root.shape[-1], root.device))
