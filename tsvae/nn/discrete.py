"""Likelihoods of fractions and counts: Bernoulli, Poisson, negative binomial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .continuous import sample_shape_of, standard_gamma
from .likelihood_base import Likelihood, register_likelihood
from .special import incomplete_beta, positive, widened

# exp(20) is 5e8: far beyond counts one would model, and finite in float32 for any forecast.
_MAX_LOG_MEAN = 20.0


class BernoulliParameters(NamedTuple):
    """Log odds."""

    logit: Tensor

    @property
    def loc(self) -> Tensor:
        """Probability of a one."""
        return torch.sigmoid(self.logit)

    @property
    def scale(self) -> Tensor:
        """Standard deviation."""
        return torch.sqrt(torch.sigmoid(self.logit) * torch.sigmoid(-self.logit))


class PoissonParameters(NamedTuple):
    """Logarithm of the rate."""

    log_rate: Tensor

    @property
    def loc(self) -> Tensor:
        """Rate."""
        return torch.exp(self.log_rate)

    @property
    def scale(self) -> Tensor:
        """Standard deviation."""
        return torch.exp(0.5 * self.log_rate)


class NegativeBinomialParameters(NamedTuple):
    """Logarithm of the mean mu, and dispersion alpha: the variance is mu + alpha mu^2."""

    log_mean: Tensor
    dispersion: Tensor

    @property
    def loc(self) -> Tensor:
        """Mean."""
        return torch.exp(self.log_mean)

    @property
    def scale(self) -> Tensor:
        """Standard deviation."""
        return torch.sqrt(self.loc + self.dispersion * self.loc**2)


def _poisson(rate: Tensor, generator: torch.Generator) -> Tensor:
    draw = torch.poisson(rate.detach().to(generator.device), generator=generator)
    return draw.to(rate.device)


@register_likelihood("bernoulli")
class Bernoulli(Likelihood[BernoulliParameters]):
    """Bernoulli likelihood; values between 0 and 1 are read as probabilities (cross-entropy).

    Parameters
    ----------
    min_scale : float, default=1e-4
        Not used; kept so that all likelihoods are built alike.
    """

    support = "unit"
    raw_names = ("loc",)
    continuous = False
    closed_form_crps = True

    def from_raw(self, *raw: Tensor) -> BernoulliParameters:
        """Turn raw channels into parameters."""
        (logit,) = raw
        return BernoulliParameters(logit)

    def initial_raw(self, scale: Tensor) -> tuple[Tensor, ...]:
        """Return starting values of the raw channels after the location."""
        return ()

    def log_prob(self, x: Tensor, params: BernoulliParameters) -> Tensor:
        """Return the log probability of each entry, (..., F)."""
        return x * params.logit - functional.softplus(params.logit)

    def mean(self, params: BernoulliParameters) -> Tensor:
        """Return the mean of each entry."""
        return params.loc

    def variance(self, params: BernoulliParameters) -> Tensor:
        """Return the variance of each entry."""
        return torch.sigmoid(params.logit) * torch.sigmoid(-params.logit)

    def cdf(self, x: Tensor, params: BernoulliParameters) -> Tensor:
        """Return the probability of a value at most x, (..., F)."""
        below_one = torch.sigmoid(-params.logit)
        value = torch.where(x < 1.0, below_one, torch.ones_like(below_one))
        return torch.where(x < 0.0, torch.zeros_like(value), value)

    def sample(
        self,
        params: BernoulliParameters,
        generator: torch.Generator,
        sample_shape: Sequence[int] = (),
    ) -> Tensor:
        """Draw values of shape (*sample_shape, ..., F)."""
        logit = params.logit.detach()
        shape = sample_shape_of(params, sample_shape)
        draw = torch.rand(shape, dtype=logit.dtype, device=generator.device, generator=generator)
        return (draw.to(logit.device) < torch.sigmoid(logit)).to(logit.dtype)

    def crps(self, x: Tensor, params: BernoulliParameters) -> Tensor:
        """Return the closed-form CRPS of each entry, (..., F)."""
        # Integral over [0, 1) of (F - [x <= 0])^2 for x in {0, 1}, which is the Brier score.
        return (params.loc - x) ** 2


@register_likelihood("poisson")
class Poisson(Likelihood[PoissonParameters]):
    """Poisson likelihood of counts with a log link.

    Parameters
    ----------
    min_scale : float, default=1e-4
        Not used; kept so that all likelihoods are built alike.

    Notes
    -----
    Log probabilities are computed in float64, because their terms cancel for large counts.
    The log rate is capped at 20.
    """

    support = "count"
    raw_names = ("loc",)
    continuous = False

    def from_raw(self, *raw: Tensor) -> PoissonParameters:
        """Turn raw channels into parameters."""
        (log_rate,) = raw
        return PoissonParameters(log_rate.clamp(max=_MAX_LOG_MEAN))

    def initial_raw(self, scale: Tensor) -> tuple[Tensor, ...]:
        """Return starting values of the raw channels after the location."""
        return ()

    def log_prob(self, x: Tensor, params: PoissonParameters) -> Tensor:
        """Return the log probability of each entry, (..., F)."""
        count, log_rate = widened(x), widened(params.log_rate)
        value = count * log_rate - torch.exp(log_rate) - torch.lgamma(count + 1.0)
        return value.to(params.log_rate.dtype)

    def mean(self, params: PoissonParameters) -> Tensor:
        """Return the mean of each entry."""
        return params.loc

    def variance(self, params: PoissonParameters) -> Tensor:
        """Return the variance of each entry."""
        return params.loc

    def cdf(self, x: Tensor, params: PoissonParameters) -> Tensor:
        """Return the probability of a value at most x, (..., F)."""
        below = torch.floor(widened(x))
        rate = torch.exp(widened(params.log_rate))
        value = torch.special.gammaincc(below.clamp_min(0.0) + 1.0, rate)
        return torch.where(below < 0.0, torch.zeros_like(value), value).to(params.log_rate.dtype)

    def sample(
        self,
        params: PoissonParameters,
        generator: torch.Generator,
        sample_shape: Sequence[int] = (),
    ) -> Tensor:
        """Draw values of shape (*sample_shape, ..., F)."""
        return _poisson(params.loc.expand(sample_shape_of(params, sample_shape)), generator)


@register_likelihood("negative_binomial")
class NegativeBinomial(Likelihood[NegativeBinomialParameters]):
    """Negative binomial likelihood of overdispersed counts, with a log link.

    The "scale" channel is the dispersion alpha: variance = mean + alpha mean^2.

    Parameters
    ----------
    min_scale : float, default=1e-4
        Floor of the dispersion; the Poisson likelihood is its limit.

    Notes
    -----
    Log probabilities are computed in float64, because their terms cancel for large counts.
    ``cdf`` carries no gradient (torch has no incomplete beta function). The log mean is capped
    at 20.
    """

    support = "count"
    raw_names = ("loc", "scale")
    continuous = False

    def from_raw(self, *raw: Tensor) -> NegativeBinomialParameters:
        """Turn raw channels into parameters."""
        log_mean, dispersion = raw
        return NegativeBinomialParameters(
            log_mean.clamp(max=_MAX_LOG_MEAN), positive(dispersion, self.min_scale)
        )

    def initial_raw(self, scale: Tensor) -> tuple[Tensor, ...]:
        """Return starting values of the raw channels after the location."""
        return (self._raw_scale(scale),)

    def log_prob(self, x: Tensor, params: NegativeBinomialParameters) -> Tensor:
        """Return the log probability of each entry, (..., F)."""
        count, log_mean = widened(x), widened(params.log_mean)
        dispersion = widened(params.dispersion)
        size = 1.0 / dispersion
        log_total = functional.softplus(torch.log(dispersion) + log_mean)  # log(1 + alpha mu)
        value = (
            torch.lgamma(count + size)
            - torch.lgamma(size)
            - torch.lgamma(count + 1.0)
            + count * (torch.log(dispersion) + log_mean)
            - (count + size) * log_total
        )
        return value.to(params.log_mean.dtype)

    def mean(self, params: NegativeBinomialParameters) -> Tensor:
        """Return the mean of each entry."""
        return params.loc

    def variance(self, params: NegativeBinomialParameters) -> Tensor:
        """Return the variance of each entry."""
        return params.loc + params.dispersion * params.loc**2

    def cdf(self, x: Tensor, params: NegativeBinomialParameters) -> Tensor:
        """Return the probability of a value at most x, (..., F)."""
        below = torch.floor(widened(x))
        dispersion = widened(params.dispersion)
        odds = dispersion * torch.exp(widened(params.log_mean))
        value = incomplete_beta(1.0 / dispersion, below.clamp_min(0.0) + 1.0, 1.0 / (1.0 + odds))
        return torch.where(below < 0.0, torch.zeros_like(value), value).to(params.log_mean.dtype)

    def sample(
        self,
        params: NegativeBinomialParameters,
        generator: torch.Generator,
        sample_shape: Sequence[int] = (),
    ) -> Tensor:
        """Draw values of shape (*sample_shape, ..., F)."""
        shape = sample_shape_of(params, sample_shape)
        dispersion = params.dispersion.detach().expand(shape)
        # A Poisson whose rate is gamma distributed with mean mu and variance alpha mu^2.
        gamma = standard_gamma(1.0 / dispersion, generator)
        return _poisson(gamma * dispersion * params.loc.detach(), generator)
