"""Inference problems of the speed benchmark, in our terms; what we and the naive loop do with them.

B series, T steps, D latent dimensions: a random stable dense transition, diagonal potentials that
all series and steps share (all observed), or that each series and step has for its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae import lds


class Shape(NamedTuple):
    """Series, steps and latent dimensions, and whether each series has its own precisions."""

    n_series: int
    n_steps: int
    latent_dim: int
    own: bool = False

    def __str__(self) -> str:
        sizes = f"({self.n_series}, {self.n_steps}, {self.latent_dim})"
        return f"{sizes}, own precisions" if self.own else sizes


class Problem(NamedTuple):
    """``transition, noise (D, D)``, ``linear (B, T, D)``, ``precision (1 or B, T, D)``."""

    shape: Shape
    transition: Tensor
    noise: Tensor
    linear: Tensor
    precision: Tensor

    @property
    def observations(self) -> Tensor:
        """What a model that sees z + N(0, 1/precision) must have seen."""
        return self.linear / self.precision

    def params(self) -> lds.LDSParameters:
        return lds.make_parameters(self.transition, self.noise)

    def double(self) -> Problem:
        return Problem(self.shape, *(tensor.double() for tensor in self[1:]))


class Moments(NamedTuple):
    """Smoothed means ``(B, T, D)`` and covariances ``(1 or B, T, D, D)``."""

    mean: Tensor
    covariance: Tensor


class Gradient(NamedTuple):
    """Log-likelihood summed over the series, and its gradient for the transition ``(D, D)``."""

    value: Tensor
    transition: Tensor


def make_problem(shape: Shape, seed: int) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    size = shape.latent_dim
    skew, root = normal(size, size), normal(size, size)
    eye = torch.eye(size)
    rows = (shape.n_series, shape.n_steps, size) if shape.own else (1, 1, size)
    precision = 0.2 + 2.8 * torch.rand(rows, generator=generator)
    if not shape.own:
        precision = precision.repeat(1, shape.n_steps, 1)
    return Problem(
        shape,
        0.97 * torch.linalg.matrix_exp((skew - skew.mT) / math.sqrt(size)),
        0.1 * (root @ root.mT / size + eye),
        normal(shape.n_series, shape.n_steps, size),
        precision,
    )


@torch.no_grad()
def our_moments(problem: Problem) -> Moments:
    params = problem.params()
    filtered = lds.filter_states(params, lds.Potentials(problem.linear, problem.precision))
    smoothed = lds.smooth(params, filtered)
    return Moments(smoothed.smoothed_mean, smoothed.smoothed_covariance.squeeze(2))


def our_gradient(problem: Problem) -> Gradient:
    """Log-normaliser; the likelihood of observations has constants more (``constant``)."""
    transition = problem.transition.detach().requires_grad_()
    params = lds.make_parameters(transition, problem.noise)
    filtered = lds.filter_states(params, lds.Potentials(problem.linear, problem.precision))
    value = filtered.log_normalizer.sum()
    (gradient,) = torch.autograd.grad(value, transition)
    return Gradient(value.detach(), gradient)


def constant(problem: Problem) -> float:
    """Log-likelihood of the observations less the log-normaliser, summed over the series."""
    linear, precision = problem.linear.double(), problem.precision.double()
    terms = precision.log() - linear.square() / precision - math.log(2 * math.pi)
    return float(0.5 * terms.sum())


def leaves_of(problem: Problem) -> list[Tensor]:
    """Transition, noise, linear and precision as leaves of a graph."""
    return [tensor.detach().clone().requires_grad_() for tensor in problem[1:]]


def our_training_pass(leaves: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Do what a training step of the structured VAE asks of inference, forward and backward."""
    transition, noise, linear, precision = leaves
    params = lds.make_parameters(transition, noise)
    filtered = lds.filter_states(params, lds.Potentials(linear, precision))
    smoothed = lds.smooth(params, filtered)
    z = lds.sample_posterior(params, filtered, generator)
    loss = lds.local_kl(params, filtered, smoothed).sum() + z.square().sum()
    return list(torch.autograd.grad(loss, leaves))


def naive_training_pass(leaves: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Do the same as loops that autograd records: filter, backward sampling, KL by the sample."""
    transition, noise, linear, precision = leaves
    h, weights = linear.unbind(1), precision.unbind(1)
    forward = naive_filter(transition, noise, h, weights)
    z = naive_samples(transition, noise, forward, generator)
    energy = (linear * z - 0.5 * precision * z.square()).sum()
    loss = energy - forward.log_normalizer.sum() + z.square().sum()
    return list(torch.autograd.grad(loss, leaves))


class NaiveFilter(NamedTuple):
    """Filtered moments by step, and the log-normaliser ``(B,)``."""

    means: list[Tensor]
    covariances: list[Tensor]
    log_normalizer: Tensor


def naive_filter(
    transition: Tensor, noise: Tensor, h: tuple[Tensor, ...], weights: tuple[Tensor, ...]
) -> NaiveFilter:
    """Kalman filter of a batch of series, step by step, every series with its own covariances."""
    n_series, size = h[0].shape
    eye = torch.eye(size, dtype=h[0].dtype)
    mean, covariance = torch.zeros_like(h[0]), eye.expand(n_series, size, size)
    means: list[Tensor] = []
    covariances: list[Tensor] = []
    log_z = h[0].new_zeros(n_series)
    for linear, weight in zip(h, weights, strict=True):
        if means:
            mean = means[-1] @ transition.mT
            covariance = transition @ covariances[-1] @ transition.mT + noise
        root = torch.linalg.cholesky(covariance)
        inner = torch.linalg.cholesky(eye + root.mT @ (weight.unsqueeze(-1) * root))
        half = torch.linalg.solve_triangular(inner, root.mT, upper=False)
        updated = half.mT @ half
        residual = linear - weight * mean
        step = (updated @ residual.unsqueeze(-1)).squeeze(-1)
        log_det = inner.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        exponent = (linear * mean - 0.5 * weight * mean.square() + 0.5 * residual * step).sum(-1)
        log_z = log_z + exponent - log_det
        means.append(mean + step)
        covariances.append(updated)
    return NaiveFilter(means, covariances, log_z)


def naive_samples(
    transition: Tensor, noise: Tensor, forward: NaiveFilter, generator: torch.Generator
) -> Tensor:
    """Backward sampling, step by step; ``(B, T, D)``."""
    eye = torch.eye(transition.shape[0], dtype=transition.dtype)

    def draw(mean: Tensor, covariance: Tensor) -> Tensor:
        eps = torch.randn(mean.shape, dtype=mean.dtype, generator=generator)
        root = torch.linalg.cholesky(covariance + 1e-6 * eye)
        return mean + (root @ eps.unsqueeze(-1)).squeeze(-1)

    z = draw(forward.means[-1], forward.covariances[-1])
    path = [z]
    for mean, covariance in zip(
        reversed(forward.means[:-1]), reversed(forward.covariances[:-1]), strict=True
    ):
        ahead = torch.linalg.cholesky(transition @ covariance @ transition.mT + noise)
        gain = torch.cholesky_solve(transition @ covariance, ahead).mT
        keep = eye - gain @ transition
        spread = keep @ covariance @ keep.mT + gain @ noise @ gain.mT
        centre = mean + (gain @ (z - mean @ transition.mT).unsqueeze(-1)).squeeze(-1)
        z = draw(centre, spread)
        path.append(z)
    return torch.stack(path[::-1], dim=1)


def relative_difference(first: Tensor, second: Tensor) -> float:
    """Largest difference over the largest size."""
    scale = second.abs().max().double()
    return float((first.double() - second.double()).abs().max() / scale)
