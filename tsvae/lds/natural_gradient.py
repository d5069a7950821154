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

This is worked out on the host (module ``natural_factor``), whatever device the states are on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.autograd.function import once_differentiable

from tsvae.lds.natural import Expectations, FactorSize
from tsvae.lds.natural_factor import (
    Array,
    Factor,
    Phi,
    Root,
    arrangement,
    factor_of,
    gram,
    phi_of,
    to_device,
    to_host,
)
from tsvae.lds.priors import MNIW


class PriorFactor(NamedTuple):
    """A prior on the host, in float64.

    Attributes
    ----------
    scale, degrees_of_freedom, mean, precision : ndarray
        As in ``MNIW``.
    constant : float
        Part of the KL that depends on the prior alone, summed over groups.
    """

    scale: Array
    degrees_of_freedom: Array
    mean: Array
    precision: Array
    constant: float


def prior_factor(prior: MNIW) -> PriorFactor:
    """Bring a prior to the host.

    Parameters
    ----------
    prior : MNIW

    Returns
    -------
    PriorFactor
    """
    scale, degrees, mean, precision = (to_host(part) for part in prior)
    k, n = mean.shape[-2:]
    gammas = special.gammaln(0.5 * (degrees[:, None] - np.arange(k))).sum()
    logs = k * (n + np.linalg.slogdet(precision)[1]) + degrees * np.linalg.slogdet(scale)[1]
    return PriorFactor(scale, degrees, mean, precision, float(gammas - 0.5 * logs.sum()))


class NaturalTerms(NamedTuple):
    """Phi of a factor and the KL to its prior, summed over groups, in nats."""

    expectations: Expectations
    kl: Tensor


def natural_terms(xi: Tensor, size: FactorSize, prior: PriorFactor) -> NaturalTerms:
    """Phi and KL of a factor; ``backward`` yields the natural direction of both at once.

    Parameters
    ----------
    xi : Tensor (G, n)
        Unconstrained factor.
    size : FactorSize
        K and L.
    prior : PriorFactor
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
    found = _NaturalTerms.apply(xi, size, None)  # type: ignore[no-untyped-call]
    return Expectations(*found[:4])


def natural_kl(xi: Tensor, size: FactorSize, prior: PriorFactor) -> Tensor:
    """KL to the prior, summed over groups; natural direction ``eta - eta_0`` in ``backward``.

    Parameters
    ----------
    xi : Tensor (G, n)
        Unconstrained factor.
    size : FactorSize
        K and L.
    prior : PriorFactor
        Constant.

    Returns
    -------
    Tensor
        A scalar, in nats.
    """
    return natural_terms(xi, size, prior).kl


class _Divergence(NamedTuple):
    """The KL, and what its direction takes over.

    Attributes
    ----------
    value : float
    pull, spread : ndarray (G, K, L), (G, K, K)
        ``E V_0`` and ``S_0 + E V_0 E'``.
    """

    value: float
    pull: Array
    spread: Array


def _divergence(factor: Factor, phi: Phi, prior: PriorFactor) -> _Divergence:
    """``kl_divergence``, summed over groups."""
    k = factor.mean.shape[1]
    scale_p, nu_p, mean_p, rows_p, constant = prior
    nu = factor.degrees
    error = factor.mean - mean_p
    pull = error @ rows_p
    spread = scale_p + pull @ error.transpose(0, 2, 1)
    ratio = (phi.inverse_rows * rows_p).sum((1, 2))
    trace = (gram(factor.scale.inverse) * spread).sum((1, 2))
    logs = k * factor.rows.logs.sum(1) + nu_p * factor.scale.logs.sum(1)
    each = 0.5 * (k * ratio + nu * (trace - k) + (nu - nu_p) * phi.digammas) + logs
    value = constant + each.sum() - special.gammaln(phi.halves).sum()
    return _Divergence(float(value), pull, spread)


class HostFactor:
    """A factor on the host: phi, the KL to a prior, and the natural direction of both.

    Parameters
    ----------
    xi : ndarray (G, n)
        Unconstrained factor.
    size : FactorSize
    prior : PriorFactor or None
        None: without the KL.

    Attributes
    ----------
    expectations : tuple of ndarray
        As in ``Expectations``.
    kl : float
        Summed over groups; 0.0 without a prior.
    """

    def __init__(self, xi: Array, size: FactorSize, prior: PriorFactor | None) -> None:
        self.size, self.prior = size, prior
        self.factor = factor_of(xi, size)
        self.phi = phi_of(self.factor)
        self.expectations = self.phi.expectations
        self.kl = 0.0
        if prior is not None:
            self.found = _divergence(self.factor, self.phi, prior)
            self.kl = self.found.value

    def direction(self, grads: Sequence[Array | None], weight: Array | None) -> Array | None:
        """Direction in xi, from gradients by phi and the weight of the KL; None if all are."""
        total = _Direction()
        total.add_expectations(self.expectations[1], *grads)
        if weight is not None:
            assert self.prior is not None
            total.add_divergence(weight, self.factor, self.phi, self.prior, self.found)
        return total.in_coordinates(self.factor, self.phi.inverse_rows, self.size)


class _NaturalTerms(torch.autograd.Function):
    """Phi and, with a prior, the KL to it; one direction for both."""

    @staticmethod
    def forward(
        ctx: Any, xi: Tensor, size: FactorSize, prior: PriorFactor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.host, ctx.like = HostFactor(to_host(xi), size, prior), xi.detach()
        ctx.set_materialize_grads(False)
        outputs = tuple(to_device(part, xi) for part in ctx.host.expectations)
        return *outputs, None if prior is None else xi.new_tensor(ctx.host.kl)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None]:
        given = [None if grad is None else to_host(grad) for grad in grads]
        found = ctx.host.direction(given[:4], given[4])
        return None if found is None else to_device(found, ctx.like), None, None


class _Direction:
    """Sum of directions: ``delta M V``, ``delta S``, ``delta V`` and ``delta nu``; None is zero."""

    def __init__(self) -> None:
        self.pull: Array | None = None
        self.scale: Array | None = None
        self.rows: Array | None = None
        self.degrees: Array | None = None

    def add_expectations(
        self,
        noise: Array,
        mean: Array | None,
        covariance: Array | None,
        excess: Array | None,
        log_det: Array | None,
    ) -> None:
        """Natural direction of a loss with these gradients by phi."""
        if mean is not None:
            self.pull = noise @ mean
        if covariance is not None:
            self.scale = noise @ (covariance + covariance.transpose(0, 2, 1)) @ noise
        if excess is not None:
            self.rows = -(excess + excess.transpose(0, 2, 1))
        if log_det is not None:
            scale = log_det[:, None, None] * noise
            self.scale = scale if self.scale is None else self.scale + scale
            self.degrees = log_det

    def add_divergence(
        self,
        weight: Array,
        factor: Factor,
        phi: Phi,
        prior: PriorFactor,
        found: _Divergence,
    ) -> None:
        """``weight`` times the direction of the KL."""
        root = factor.rows.root
        parts = (
            found.pull,
            factor.degrees[:, None, None] * phi.expectations[1] - found.spread,
            root @ root.transpose(0, 2, 1) - prior.precision,
            factor.degrees - prior.degrees_of_freedom,
        )
        for name, part in zip(("pull", "scale", "rows", "degrees"), parts, strict=True):
            own = getattr(self, name)
            setattr(self, name, weight * part if own is None else own + weight * part)

    def in_coordinates(self, factor: Factor, inverse_rows: Array, size: FactorSize) -> Array | None:
        """Direction in xi, ``(G, n)``; None if nothing was added."""
        parts = (self.pull, self.scale, self.rows, self.degrees)
        if all(part is None for part in parts):
            return None
        like = (factor.mean, factor.scale.root, factor.rows.root, factor.degrees)
        pull, scale, rows, degrees = (
            np.zeros_like(shape) if part is None else part
            for part, shape in zip(parts, like, strict=True)
        )
        at = arrangement(size)
        return np.concatenate(
            (
                (pull @ inverse_rows).reshape(len(pull), -1),
                *_root_direction(factor.scale, scale, at.belows[0], at.strict[0]),
                *_root_direction(factor.rows, rows, at.belows[1], at.strict[1]),
                (degrees / (factor.degrees - (size.outcomes - 1)))[:, None],
            ),
            axis=1,
        )


def _root_direction(root: Root, change: Array, below: Array, strict: Array) -> tuple[Array, Array]:
    r"""Differential of the free coordinates of a Cholesky factor L for d(LL') = change.

    With :math:`X = L^{-1}\,dS\,L^{-T}`: half of X's diagonal for the log-diagonal, and
    :math:`L\,tril(X, -1)` with each column over its own scale for the unit part.
    """
    inner = root.inverse @ change @ root.inverse.transpose(0, 2, 1)
    inner = 0.5 * (inner + inner.transpose(0, 2, 1))
    scale = np.diagonal(root.root, axis1=1, axis2=2)[:, None, :]
    unit = (root.root @ (inner * strict)) / scale
    diagonal = 0.5 * np.diagonal(inner, axis1=1, axis2=2)
    return diagonal, unit.reshape(len(unit), -1)[:, below]
