"""Log densities of rows of values, given moments of their latent states."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tsvae.models.views import Window
from tsvae.nn import masked_log_prob

if TYPE_CHECKING:
    from tsvae.models.svae import SVAE

__all__ = ["normal_log_density", "sampled_log_density"]

_LOG_2PI = math.log(2.0 * math.pi)
_ENTRIES_AT_ONCE = 20_000_000  # of covariances between variables


def normal_log_density(model: SVAE, window: Window, mean: Tensor, covariance: Tensor) -> Tensor:
    """Log N(x; C m + d, C P C' + R) over the visible entries, a bounded number of rows at once."""
    n_chains, n_steps, width = window.x.shape
    at_once = max(1, _ENTRIES_AT_ONCE // (n_chains * width**2))
    parts = []
    for start in range(0, n_steps, at_once):
        rows = slice(start, start + at_once)
        own = window._replace(x=window.x[:, rows], visible=window.visible[:, rows])
        parts.append(_row_log_density(model, own, mean[:, rows], covariance[:, rows]))
    return torch.cat(parts, dim=1)


def _row_log_density(model: SVAE, window: Window, mean: Tensor, covariance: Tensor) -> Tensor:
    """Log density of rows, by Cholesky in F dimensions."""
    c = model.decoder.emission_matrix.unflatten(-1, covariance.shape[-3:-1])
    params = model.decoder(mean)
    scale = params.scale.expand(c.shape[0])
    seen = window.visible.to(mean.dtype)
    spread = torch.einsum("egk,ntgkl,fgl->ntef", c, covariance, c).expand(*seen.shape, -1)
    # Hidden entries become independent standard normals at zero: they cancel exactly.
    both = seen.unsqueeze(-1) * seen.unsqueeze(-2)
    diagonal = seen * scale**2 + (1.0 - seen)
    root = torch.linalg.cholesky(both * spread + torch.diag_embed(diagonal))
    residual = (seen * (window.x - params.loc)).unsqueeze(-1)
    white = torch.linalg.solve_triangular(root, residual, upper=False).squeeze(-1)
    log_det = 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (white.square().sum(-1) + log_det + _LOG_2PI * seen.sum(-1))


def sampled_log_density(
    model: SVAE,
    window: Window,
    mean: Tensor,
    covariance: Tensor,
    n_samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Log of the mean density over draws of the predicted state (common random numbers)."""
    root = torch.linalg.cholesky(covariance)
    total = torch.full(mean.shape[:2], -torch.inf, dtype=mean.dtype, device=mean.device)
    groups, size = covariance.shape[-3], covariance.shape[-1]
    for _ in range(n_samples):
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
        noise = noise.unflatten(-1, (groups, size)).unsqueeze(-1)
        z = mean + (root @ noise).squeeze(-1).flatten(-2)
        log_prob = masked_log_prob(
            model.decoder.likelihood, window.x, model.decoder(z), window.visible
        )
        total = torch.logaddexp(total, log_prob.sum(-1))
    return total - math.log(n_samples)
