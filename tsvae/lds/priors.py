r"""Conjugate priors: matrix-normal-inverse-Wishart and normal-inverse-Wishart, in groups.

MNIW over (Theta, Q), Theta of size K x L with L regressors (row precision V):

.. math::
    Q \sim IW(S, \nu), \qquad \Theta | Q \sim MN(M, Q, V^{-1}),
    \qquad E[Q^{-1}] = \nu S^{-1}, \quad
    E[\Theta'Q^{-1}\Theta] = M' E[Q^{-1}] M + K V^{-1}.

The NIW over (mean, covariance) is the case L = 1 with V = lambda and Theta = the mean, so one
implementation serves both. In exponential-family form (Johnson et al. 2016, appendix B)

.. math::
    t = (-\tfrac12 Q^{-1},\; Q^{-1}\Theta,\; -\tfrac12\Theta'Q^{-1}\Theta,\; \tfrac12\log|Q^{-1}|),
    \qquad \eta = (S + MVM',\; MV,\; V,\; \nu),

with log-normaliser (constants of the base measure left out)

.. math::
    A(\eta) = \log\Gamma_K(\nu/2) + \tfrac{\nu K}{2}\log 2 - \tfrac\nu2\log|S|
              - \tfrac K2\log|V| + \tfrac{KL}2\log 2\pi.

Regression statistics (``statistics.RegressionStatistics``) add to eta entry by entry: that *is* the
conjugate update.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.linalg import inverse_positive, log_det_positive, safe_cholesky, symmetrize
from tsvae.lds.statistics import RegressionStatistics


class MNIW(NamedTuple):
    """Matrix-normal-inverse-Wishart, one per group.

    Attributes
    ----------
    scale : Tensor (G, K, K)
        S of the inverse Wishart.
    degrees_of_freedom : Tensor (G,)
        nu > K - 1.
    mean : Tensor (G, K, L)
        M.
    precision : Tensor (G, L, L)
        V, precision over regressors.
    """

    scale: Tensor
    degrees_of_freedom: Tensor
    mean: Tensor
    precision: Tensor


class NIW(NamedTuple):
    """Normal-inverse-Wishart, one per group.

    Attributes
    ----------
    scale : Tensor (G, K, K)
    degrees_of_freedom : Tensor (G,)
    mean : Tensor (G, K)
    strength : Tensor (G,)
        lambda, in pseudo-observations.
    """

    scale: Tensor
    degrees_of_freedom: Tensor
    mean: Tensor
    strength: Tensor

    def as_mniw(self) -> MNIW:
        """Write the same law as an MNIW with a single regressor equal to 1."""
        return MNIW(
            self.scale,
            self.degrees_of_freedom,
            self.mean.unsqueeze(-1),
            self.strength[..., None, None],
        )


class NaturalParameters(NamedTuple):
    """eta of an MNIW; see the module docstring."""

    outcome_outer: Tensor
    outcome_regressor: Tensor
    regressor_outer: Tensor
    degrees_of_freedom: Tensor


class SufficientStatistics(NamedTuple):
    """Expected t of an MNIW; see the module docstring."""

    negative_half_precision: Tensor
    precision_mean: Tensor
    negative_half_outer: Tensor
    half_log_det: Tensor


class RegressionDraw(NamedTuple):
    """One draw: ``coefficients (G, K, L)`` and ``covariance (G, K, K)``."""

    coefficients: Tensor
    covariance: Tensor


def niw_from_mniw(distribution: MNIW) -> NIW:
    """Read an MNIW with one regressor as a NIW."""
    return NIW(
        distribution.scale,
        distribution.degrees_of_freedom,
        distribution.mean.squeeze(-1),
        distribution.precision[..., 0, 0],
    )


class HyperParameters(NamedTuple):
    """Scalars of the default priors (the source's values).

    Attributes
    ----------
    scale : float
        S_0; S = K * S_0 * I.
    degrees_of_freedom : float
        nu_0; nu = K + nu_0.
    precision : float
        lam_0; V = lam_0 * I.
    mean : float
        M_0; transition mean M_0 * [I | 0].
    """

    scale: float = 1.0
    degrees_of_freedom: float = 2.0
    precision: float = 0.001
    mean: float = 0.9


class DynamicsPrior(NamedTuple):
    """Priors of a linear dynamical system.

    Attributes
    ----------
    initial : NIW
        p(mu0, Sigma0).
    transition : MNIW
        p([A B b], Q), with K + U + 1 regressors.
    """

    initial: NIW
    transition: MNIW


def prior_from_hyperparameters(
    n_groups: int,
    group_size: int,
    n_inputs: int = 0,
    hyper: HyperParameters | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> DynamicsPrior:
    """Build the NIW and MNIW priors from four scalars.

    Parameters
    ----------
    n_groups, group_size, n_inputs : int
        G, K, U; the transition has L = K + U + 1 regressors (state, inputs, bias).
    hyper : HyperParameters, optional
    dtype, device : optional
        Of the tensors.

    Returns
    -------
    DynamicsPrior

    Raises
    ------
    ValueError
        If a hyperparameter leaves its range.

    Examples
    --------
    >>> prior = prior_from_hyperparameters(n_groups=1, group_size=2)
    >>> prior.transition.mean[0]
    tensor([[0.9000, 0.0000, 0.0000],
            [0.0000, 0.9000, 0.0000]])
    """
    hyper = HyperParameters() if hyper is None else hyper
    for name in ("scale", "precision"):
        value = getattr(hyper, name)
        if not value > 0:
            raise ValueError(f"hyperparameter {name} must be positive; got {value}.")
    if not hyper.degrees_of_freedom > -1:
        raise ValueError(
            "hyperparameter degrees_of_freedom is added to the group size and must exceed -1; "
            f"got {hyper.degrees_of_freedom}."
        )
    n_regressors = group_size + n_inputs + 1
    eye = torch.eye(group_size, n_regressors, dtype=dtype, device=device)
    scale = group_size * hyper.scale * eye[:, :group_size]
    degrees = torch.full((n_groups,), group_size + hyper.degrees_of_freedom).to(eye)
    row = hyper.precision * torch.eye(n_regressors).to(eye)
    transition = MNIW(
        scale.repeat(n_groups, 1, 1),
        degrees,
        (hyper.mean * eye).repeat(n_groups, 1, 1),
        row.repeat(n_groups, 1, 1),
    )
    initial = NIW(
        transition.scale.clone(),
        degrees.clone(),
        eye.new_zeros(n_groups, group_size),
        torch.full_like(degrees, hyper.precision),
    )
    return DynamicsPrior(initial, transition)


def natural_from_standard(distribution: MNIW) -> NaturalParameters:
    """(S, nu, M, V) -> eta."""
    mean, precision = distribution.mean, distribution.precision
    mixed = mean @ precision
    return NaturalParameters(
        distribution.scale + mixed @ mean.mT,
        mixed,
        precision,
        distribution.degrees_of_freedom,
    )


def standard_from_natural(natural: NaturalParameters) -> MNIW:
    """Eta -> (S, nu, M, V)."""
    precision = natural.regressor_outer
    mean = natural.outcome_regressor @ inverse_positive(precision)
    scale = symmetrize(natural.outcome_outer - mean @ natural.outcome_regressor.mT)
    return MNIW(scale, natural.degrees_of_freedom, mean, precision)


def conjugate_update(prior: MNIW, statistics: RegressionStatistics) -> MNIW:
    """Posterior after seeing (expected) regression statistics.

    Parameters
    ----------
    prior : MNIW
        K outcomes, L regressors.
    statistics : RegressionStatistics
        Sums over the transitions seen, of the same K and L.

    Returns
    -------
    MNIW
        eta plus the statistics, in standard parameters.

    References
    ----------
    Johnson et al. 2016 (arXiv 1603.06277), appendix B.
    """
    eta = natural_from_standard(prior)
    return standard_from_natural(
        NaturalParameters(*(old + new for old, new in zip(eta, statistics, strict=True)))
    )


def _digamma_sum(degrees: Tensor, size: int) -> Tensor:
    order = torch.arange(size, dtype=degrees.dtype, device=degrees.device)
    return torch.digamma(0.5 * (degrees.unsqueeze(-1) - order)).sum(-1)


def _lgamma_sum(degrees: Tensor, size: int) -> Tensor:
    """Log of the multivariate gamma function at degrees / 2, without its constant."""
    order = torch.arange(size, dtype=degrees.dtype, device=degrees.device)
    return torch.lgamma(0.5 * (degrees.unsqueeze(-1) - order)).sum(-1)


def expected_log_det(distribution: MNIW) -> Tensor:
    """``E log |Q^-1|``, ``(G,)``."""
    size = distribution.scale.shape[-1]
    degrees = distribution.degrees_of_freedom
    return _digamma_sum(degrees, size) + size * math.log(2.0) - log_det_positive(distribution.scale)


def expected_sufficient_statistics(distribution: MNIW) -> SufficientStatistics:
    """E[t], the mean parameters."""
    size = distribution.scale.shape[-1]
    mean = distribution.mean
    degrees = distribution.degrees_of_freedom[..., None, None]
    precision = degrees * inverse_positive(distribution.scale)
    outer = mean.mT @ precision @ mean + size * inverse_positive(distribution.precision)
    return SufficientStatistics(
        -0.5 * precision, precision @ mean, -0.5 * outer, 0.5 * expected_log_det(distribution)
    )


def log_normalizer(distribution: MNIW) -> Tensor:
    """A(eta), ``(G,)``; see the module docstring."""
    size, n_regressors = distribution.mean.shape[-2:]
    degrees = distribution.degrees_of_freedom
    return (
        _lgamma_sum(degrees, size)
        + 0.25 * size * (size - 1) * math.log(math.pi)
        + 0.5 * size * math.log(2.0) * degrees
        - 0.5 * degrees * log_det_positive(distribution.scale)
        - 0.5 * size * log_det_positive(distribution.precision)
        + 0.5 * size * n_regressors * math.log(2.0 * math.pi)
    )


def log_density(distribution: MNIW, coefficients: Tensor, covariance: Tensor) -> Tensor:
    """Log p(Theta, Q) with respect to Lebesgue measure, ``(G,)``."""
    size, n_regressors = distribution.mean.shape[-2:]
    error = coefficients - distribution.mean
    outer = distribution.scale + error @ distribution.precision @ error.mT
    log_det = log_det_positive(covariance)
    trace = (inverse_positive(covariance) * outer).sum(dim=(-2, -1))
    power = distribution.degrees_of_freedom + size + 1 + n_regressors
    return -0.5 * power * log_det - 0.5 * trace - log_normalizer(distribution)


def kl_divergence(q: MNIW, p: MNIW) -> Tensor:
    """KL(q || p) per group, ``(G,)``.

    The matrix-normal part averaged over Q plus the inverse-Wishart part; every term has the size
    of the result (no difference of log-normalisers of data size).
    """
    size, n_regressors = q.mean.shape[-2:]
    nu_q, nu_p = q.degrees_of_freedom, p.degrees_of_freedom
    error = q.mean - p.mean
    inverse_scale = inverse_positive(q.scale)
    ratio = (inverse_positive(q.precision) * p.precision).sum(dim=(-2, -1))
    moved = nu_q * (inverse_scale * (error @ p.precision @ error.mT)).sum(dim=(-2, -1))
    log_rows = log_det_positive(q.precision) - log_det_positive(p.precision)
    normal = 0.5 * (size * (ratio - n_regressors + log_rows) + moved)
    log_scales = log_det_positive(q.scale) - log_det_positive(p.scale)
    trace = (inverse_scale * p.scale).sum(dim=(-2, -1))
    wishart = 0.5 * nu_p * log_scales + 0.5 * nu_q * (trace - size)
    wishart = wishart + _lgamma_sum(nu_p, size) - _lgamma_sum(nu_q, size)
    return normal + wishart + 0.5 * (nu_q - nu_p) * _digamma_sum(nu_q, size)


def sample(distribution: MNIW, generator: torch.Generator) -> RegressionDraw:
    """Draw (Theta, Q) of every group, by Bartlett's decomposition.

    Parameters
    ----------
    distribution : MNIW
    generator : torch.Generator

    Returns
    -------
    RegressionDraw
        No gradient.
    """
    with torch.no_grad():
        mean, scale = distribution.mean, distribution.scale
        size = scale.shape[-1]
        order = torch.arange(size, dtype=scale.dtype, device=scale.device)
        shape = 0.5 * (distribution.degrees_of_freedom.unsqueeze(-1) - order)
        chi = (2.0 * torch._standard_gamma(shape, generator=generator)).sqrt()
        chi = chi.clamp_min(torch.finfo(scale.dtype).tiny ** 0.5)
        below = torch.randn(scale.shape, generator=generator, dtype=scale.dtype).to(scale)
        bartlett = below.tril(-1) + torch.diag_embed(chi)
        # Q^-1 = X X' with X = Ls^-T T, so Q = Y Y' with Y = Ls T^-T.
        root = torch.linalg.solve_triangular(bartlett, safe_cholesky(scale).mT, upper=False).mT
        covariance = symmetrize(root @ root.mT)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean)
        rows = safe_cholesky(distribution.precision)
        spread = torch.linalg.solve_triangular(rows, noise, upper=False, left=False)
        return RegressionDraw(mean + root @ spread, covariance)
