"""Point estimate of a linear dynamical system: its free coordinates and its prior density."""

from __future__ import annotations

import torch
from torch import Tensor

from tsvae.lds.linalg import safe_cholesky
from tsvae.lds.natural import FactorSize, free_from_root, root_from_free
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.priors import MNIW, log_density

__all__ = ["free_from_regression", "log_prior_density", "point_from_free"]


def free_from_regression(coefficients: Tensor, covariance: Tensor) -> Tensor:
    """Free coordinates of a regression with its noise, each without constraints."""
    root = free_from_root(safe_cholesky(covariance))
    return torch.cat((coefficients.flatten(-2), root), dim=-1)


def point_from_free(initial: Tensor, transition: Tensor, sizes: FactorSize) -> LDSParameters:
    """Parameters of free coordinates of both regressions; ``sizes`` are the transition's."""
    size, n_regressors = sizes
    cut = size * n_regressors
    regression = transition[:, :cut].unflatten(-1, (size, n_regressors))
    initial_root = root_from_free(initial[:, size:], size)
    noise_root = root_from_free(transition[:, cut:], size)
    return LDSParameters(
        initial_mean=initial[:, :size],
        initial_covariance=initial_root @ initial_root.mT,
        transition_matrix=regression[..., :size],
        noise_covariance=noise_root @ noise_root.mT,
        input_matrix=regression[..., size:-1],
        bias=regression[..., -1],
    )


def log_prior_density(point: LDSParameters, initial: MNIW, transition: MNIW) -> Tensor:
    """Log density of a point under the priors of both regressions, a scalar."""
    first = log_density(initial, point.initial_mean.unsqueeze(-1), point.initial_covariance)
    coefficients = torch.cat(
        (point.transition_matrix, point.input_matrix, point.bias.unsqueeze(-1)), dim=-1
    )
    second = log_density(transition, coefficients, point.noise_covariance)
    return first.sum() + second.sum()
