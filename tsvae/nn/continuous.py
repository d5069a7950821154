"""Likelihoods of real numbers: normal, Laplace, Student-t.

Formulas follow ``torch.distributions``, which cannot draw from a private generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .likelihood_base import Likelihood, register_likelihood
from .normal_density import HALF_LOG_TWO_PI, normal_log_prob
from .special import incomplete_beta, inverse_softplus, positive

_INITIAL_DF = 10.0
_MIN_DF = 2.01  # the variance is finite above 2


class NormalParameters(NamedTuple):
    """Mean and standard deviation."""

    loc: Tensor
    scale: Tensor


class LaplaceParameters(NamedTuple):
    """Median and mean absolute deviation."""

    loc: Tensor
    scale: Tensor


class StudentTParameters(NamedTuple):
    """Centre, scale and degrees of freedom (above 2)."""

    loc: Tensor
    scale: Tensor
    df: Tensor


def sample_shape_of(params: Sequence[Tensor], sample_shape: Sequence[int]) -> torch.Size:
    """Shape of a draw: ``sample_shape`` and then the common shape of the parameters.

    Parameters
    ----------
    params : sequence of Tensor
    sample_shape : sequence of int

    Returns
    -------
    torch.Size
    """
    return torch.Size((*sample_shape, *np.broadcast_shapes(*(value.shape for value in params))))


def standard_normal(shape: torch.Size, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normals with the dtype and device of ``like``.

    Parameters
    ----------
    shape : torch.Size
    like : Tensor
    generator : torch.Generator

    Returns
    -------
    Tensor
    """
    draw = torch.randn(shape, dtype=like.dtype, device=generator.device, generator=generator)
    return draw.to(like.device)


def standard_gamma(shape: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma draws with rate 1, differentiable in the shape parameter.

    Parameters
    ----------
    shape : Tensor
        Positive shape parameters.
    generator : torch.Generator

    Returns
    -------
    Tensor
        One draw for each entry, above 0.

    References
    ----------
    Figurnov, Mohamed & Mnih 2018 (arXiv 1805.08498), section 3 (implicit gradients, torch's own).
    """
    draw = torch._standard_gamma(shape.to(generator.device), generator=generator)
    return draw.to(shape.device).clamp_min(torch.finfo(shape.dtype).tiny)


@register_likelihood("normal")
class Normal(Likelihood[NormalParameters]):
    """Normal likelihood.

    Parameters
    ----------
    min_scale : float, default=1e-4
        Floor of the standard deviation.

    References
    ----------
    CRPS: Gneiting & Raftery 2007 (JASA 102, 359), equation 21.
    """

    support = "real"
    raw_names = ("loc", "scale")
    continuous = True
    closed_form_crps = True

    def from_raw(self, *raw: Tensor) -> NormalParameters:
        """Turn raw channels into parameters."""
        loc, scale = raw
        return NormalParameters(loc, positive(scale, self.min_scale))

    def initial_raw(self, scale: Tensor) -> tuple[Tensor, ...]:
        """Return starting values of the raw channels after the location."""
        return (self._raw_scale(scale),)

    def log_prob(self, x: Tensor, params: NormalParameters) -> Tensor:
        """Return the log probability of each entry, (..., F)."""
        return normal_log_prob(x, params.loc, params.scale)

    def mean(self, params: NormalParameters) -> Tensor:
        """Return the mean of each entry."""
        return params.loc

    def variance(self, params: NormalParameters) -> Tensor:
        """Return the variance of each entry."""
        return params.scale**2

    def cdf(self, x: Tensor, params: NormalParameters) -> Tensor:
        """Return the probability of a value at most x, (..., F)."""
        return torch.special.ndtr((x - params.loc) / params.scale)

    def sample(
        self,
        params: NormalParameters,
        generator: torch.Generator,
        sample_shape: Sequence[int] = (),
    ) -> Tensor:
        """Draw values of shape (*sample_shape, ..., F)."""
        shape = sample_shape_of(params, sample_shape)
        return params.loc + params.scale * standard_normal(shape, params.loc, generator)

    def crps(self, x: Tensor, params: NormalParameters) -> Tensor:
        """Return the closed-form CRPS of each entry, (..., F)."""
        z = (x - params.loc) / params.scale
        density = torch.exp(-0.5 * z * z - HALF_LOG_TWO_PI)
        spread = z * (2.0 * torch.special.ndtr(z) - 1.0) + 2.0 * density
        return params.scale * (spread - 1.0 / math.sqrt(math.pi))


@register_likelihood("laplace")
class Laplace(Likelihood[LaplaceParameters]):
    """Laplace likelihood.

    Parameters
    ----------
    min_scale : float, default=1e-4
        Floor of the scale.

    References
    ----------
    CRPS: Jordan, Krueger & Lerch 2019 (J. Stat. Software 90(12)), appendix A.2.
    """

    support = "real"
    raw_names = ("loc", "scale")
    continuous = True
    closed_form_crps = True

    def from_raw(self, *raw: Tensor) -> LaplaceParameters:
        """Turn raw channels into parameters."""
        loc, scale = raw
        return LaplaceParameters(loc, positive(scale, self.min_scale))

    def initial_raw(self, scale: Tensor) -> tuple[Tensor, ...]:
        """Return starting values of the raw channels after the location."""
        return (self._raw_scale(scale),)

    def log_prob(self, x: Tensor, params: LaplaceParameters) -> Tensor:
        """Return the log probability of each entry, (..., F)."""
        return -(x - params.loc).abs() / params.scale - torch.log(2.0 * params.scale)

    def mean(self, params: LaplaceParameters) -> Tensor:
        """Return the mean of each entry."""
        return params.loc

    def variance(self, params: LaplaceParameters) -> Tensor:
        """Return the variance of each entry."""
        return 2.0 * params.scale**2

    def cdf(self, x: Tensor, params: LaplaceParameters) -> Tensor:
        """Return the probability of a value at most x, (..., F)."""
        z = (x - params.loc) / params.scale
        return 0.5 - 0.5 * torch.sign(z) * torch.expm1(-z.abs())

    def sample(
        self,
        params: LaplaceParameters,
        generator: torch.Generator,
        sample_shape: Sequence[int] = (),
    ) -> Tensor:
        """Draw values of shape (*sample_shape, ..., F)."""
        # The difference of two exponentials is Laplace; no logarithm of a rounded-to-zero uniform.
        shape = torch.Size((2, *sample_shape_of(params, sample_shape)))
        draw = torch.empty(shape, dtype=params.loc.dtype, device=generator.device)
        first, second = draw.exponential_(generator=generator).to(params.loc.device).unbind(0)
        return params.loc + params.scale * (first - second)

    def crps(self, x: Tensor, params: LaplaceParameters) -> Tensor:
        """Return the closed-form CRPS of each entry, (..., F)."""
        z = ((x - params.loc) / params.scale).abs()
        return params.scale * (z + torch.exp(-z) - 0.75)


@register_likelihood("student_t")
class StudentT(Likelihood[StudentTParameters]):
    """Student-t likelihood with learned degrees of freedom (above 2), for outliers.

    Parameters
    ----------
    min_scale : float, default=1e-4
        Floor of the scale.

    Notes
    -----
    ``cdf`` carries no gradient (torch has no incomplete beta function).
    """

    support = "real"
    raw_names = ("loc", "scale", "df")
    continuous = True

    def from_raw(self, *raw: Tensor) -> StudentTParameters:
        """Turn raw channels into parameters."""
        loc, scale, df = raw
        return StudentTParameters(loc, positive(scale, self.min_scale), positive(df, _MIN_DF))

    def initial_raw(self, scale: Tensor) -> tuple[Tensor, ...]:
        """Return starting values of the raw channels after the location."""
        return self._raw_scale(scale), inverse_softplus(
            torch.full_like(scale, _INITIAL_DF - _MIN_DF)
        )

    def log_prob(self, x: Tensor, params: StudentTParameters) -> Tensor:
        """Return the log probability of each entry, (..., F)."""
        df = params.df
        z = (x - params.loc) / params.scale
        normaliser = (
            torch.log(params.scale)
            + 0.5 * torch.log(df)
            + 0.5 * math.log(math.pi)
            + torch.lgamma(0.5 * df)
            - torch.lgamma(0.5 * (df + 1.0))
        )
        return -0.5 * (df + 1.0) * torch.log1p(z * z / df) - normaliser

    def mean(self, params: StudentTParameters) -> Tensor:
        """Return the mean of each entry."""
        return params.loc

    def variance(self, params: StudentTParameters) -> Tensor:
        """Return the variance of each entry."""
        return params.scale**2 * params.df / (params.df - 2.0)

    def cdf(self, x: Tensor, params: StudentTParameters) -> Tensor:
        """Return the probability of a value at most x, (..., F)."""
        z = (x - params.loc) / params.scale
        half = torch.full_like(z, 0.5)
        inside = incomplete_beta(half, 0.5 * params.df, z * z / (params.df + z * z))
        return 0.5 + 0.5 * torch.sign(z.detach()) * inside

    def sample(
        self,
        params: StudentTParameters,
        generator: torch.Generator,
        sample_shape: Sequence[int] = (),
    ) -> Tensor:
        """Draw values of shape (*sample_shape, ..., F)."""
        shape = sample_shape_of(params, sample_shape)
        normal = standard_normal(shape, params.loc, generator)
        half_df = 0.5 * params.df.expand(shape)
        spread = torch.rsqrt(standard_gamma(half_df, generator) / half_df)
        return params.loc + params.scale * normal * spread
