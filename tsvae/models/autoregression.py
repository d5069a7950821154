r"""A vector autoregression with seasons, fitted to moments of pairs.

.. math::
    y_t = \sum_{k=1}^p A_{h,k}\, y_{t-k} + \epsilon_t, \qquad \epsilon_t \sim N(0, S_h), \qquad
    x_t = m_h + \sigma y_t,

where h is the phase of the season at step t: at some hours of the day everything moves more than
at others, and differently. Coefficients and covariances of a phase are shrunk towards those of all
phases together, as if so many rows more had been seen that follow these.

Each fit comes in versions that differ in how much a *level* may move for good: to the second
moments of p + 1 rows, those of a constant with v times the variance of each variable are added.
That is the prior on sums of coefficients of Doan, Litterman & Sims (1984, Econometric Reviews 3(1),
section 3): with v = 0 the fit is stationary around its mean; with v > 0 it follows values that stay
where they have never been before, such as a sensor with an offset, at the price of what levels
tell. Which version holds is told by the data that are to be filled.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LEVELS", "Autoregression", "fewest_rows", "fit_autoregression"]

#: Variances v of a level beside those of the variables.
LEVELS = (0.0, 1.0)
_NUGGET = 3e-4  # variance that no neighbour explains, beside a variable's own
_PULL_COEFFICIENTS = 300.0  # rows by which those of a phase are shrunk
_PULL_CORRELATIONS = 30.0
_PULL_SCALES = 3.0
_PULL_MEANS = 10.0
_ROWS_PER_COEFFICIENT, _FEWEST_ROWS = 5, 50
_TINY = 1e-10


class Autoregression(NamedTuple):
    """Tables of M versions and H + 1 phases; the last phase stands for any.

    Attributes
    ----------
    mean : Tensor (H + 1, F)
    scale : Tensor (F,)
        sigma; all else is in its units.
    coefficients : Tensor (M, H + 1, F, p F)
        The oldest row first.
    noise : Tensor (M, H + 1, F, F)
        S.
    start : Tensor (M, H + 1, p F, p F)
        Covariance of p rows, the last of which has the phase.
    """

    mean: Tensor
    scale: Tensor
    coefficients: Tensor
    noise: Tensor
    start: Tensor

    @property
    def order(self) -> int:
        """P."""
        return self.coefficients.shape[-1] // self.coefficients.shape[-2]

    @property
    def n_phases(self) -> int:
        """H, steps of the season; 0 without."""
        return len(self.mean) - 1


class _Moments(NamedTuple):
    """Second moments of p + 1 rows, and how many rows tell them."""

    second: Tensor
    rows: float


def fewest_rows(order: int, n_features: int) -> int:
    """Rows that a fit of so many coefficients asks for."""
    return max(_ROWS_PER_COEFFICIENT * order * n_features, _FEWEST_ROWS)


def fit_autoregression(
    x: Tensor, mask: Tensor, phase: Tensor, n_phases: int, order: int
) -> Autoregression:
    """Fit to all pairs of observed entries.

    Parameters
    ----------
    x : Tensor (B, T, F)
        Zero where missing; in float64.
    mask : Tensor of bool (B, T, F)
    phase : Tensor (B,) long
        Of the first row of each series, below ``n_phases``.
    n_phases : int
        H; 0: no season.
    order : int
        P; below T.

    Returns
    -------
    Autoregression
    """
    steps = torch.arange(x.shape[1])
    clock = (phase[:, None] + steps) % max(n_phases, 1)
    mean = _phase_means(x, mask, clock, n_phases)
    residual = torch.where(mask, x - mean[clock], 0.0)
    count = mask.sum((0, 1)).clamp_min(1)
    scale = (residual.square().sum((0, 1)) / count).sqrt()
    scale = torch.where(scale > _TINY * x.abs().amax((0, 1)).clamp_min(_TINY), scale, 1.0)
    rows, seen = (_lagged(values, order) for values in (residual / scale, mask.to(x)))
    moments = _moments(rows, seen, clock[:, order:], n_phases)
    versions = [_version(moments, order, x.shape[-1], level) for level in LEVELS]
    return Autoregression(mean, scale, *(torch.stack(part) for part in zip(*versions, strict=True)))


def _phase_means(x: Tensor, mask: Tensor, clock: Tensor, n_phases: int) -> Tensor:
    """Means by phase, those of few rows drawn towards the last one, which is that of all."""
    total, count = (x * mask).sum((0, 1)), mask.sum((0, 1))
    pooled = total / count.clamp_min(1)
    means = [pooled] * (n_phases + 1)
    for h in range(n_phases):
        own = mask & (clock == h)[..., None]
        total = (x * own).sum((0, 1)) + _PULL_MEANS * pooled
        means[h] = total / (own.sum((0, 1)) + _PULL_MEANS)
    return torch.stack(means)


def _lagged(x: Tensor, order: int) -> Tensor:
    """Rows t - p to t side by side, ``(B, T - p, (p + 1) F)``."""
    n = x.shape[1] - order
    return torch.cat([x[:, k : k + n] for k in range(order + 1)], dim=-1)


def _moments(rows: Tensor, seen: Tensor, clock: Tensor, n_phases: int) -> list[_Moments]:
    """Moments by phase of the last row; then those of all rows."""
    found = []
    products = pairs = rows.new_zeros(rows.shape[-1], rows.shape[-1])
    for h in range(max(n_phases, 1)):
        z, m = rows[clock == h], seen[clock == h]
        product, pair = z.T @ z, m.T @ m
        found.append(_Moments(product / pair.clamp_min(1.0), float(pair.diagonal().mean())))
        products, pairs = products + product, pairs + pair
    pooled = _Moments(_definite(products / pairs.clamp_min(1.0)), float(pairs.diagonal().mean()))
    if not n_phases:
        return [pooled]
    return [*(part._replace(second=_definite(part.second)) for part in found), pooled]


def _definite(second: Tensor) -> Tensor:
    """Nearest matrix without negative eigenvalues: pairs alone may give some."""
    values, vectors = torch.linalg.eigh(second)
    return (vectors * values.clamp_min(0.0)) @ vectors.T


def _version(
    moments: list[_Moments], order: int, n_features: int, level: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients, noise and start of every phase for one variance of the level."""
    size = moments[-1].second.diagonal().unflatten(0, (order + 1, n_features)).mean(0)
    ones = torch.ones(order + 1, order + 1, dtype=size.dtype)
    added = level * torch.kron(ones, torch.diag(size))
    added = added + torch.diag((_NUGGET * size.clamp_min(_NUGGET)).repeat(order + 1))
    past, now = slice(0, order * n_features), slice(order * n_features, None)
    pooled = moments[-1].second + added
    common = torch.linalg.solve(pooled[past, past], pooled[past, now]).T
    damping = _damping(common, order)
    average = _left(pooled, common * damping, past, now)
    coefficients, noise, start = [], [], []
    for part in moments:
        own, n = part.second + added, part.rows
        gram = n * own[past, past] + _PULL_COEFFICIENTS * pooled[past, past]
        cross = n * own[past, now] + _PULL_COEFFICIENTS * pooled[past, past] @ common.T
        a = torch.linalg.solve(gram, cross).T * damping
        coefficients.append(a)
        noise.append(_shrunk(_left(own, a, past, now), average, n))
        last = slice(n_features, None)
        both = n * own[last, last] + _PULL_CORRELATIONS * pooled[last, last]
        start.append(both / (n + _PULL_CORRELATIONS))
    return torch.stack(coefficients), torch.stack(noise), torch.stack(start)


def _damping(coefficients: Tensor, order: int) -> Tensor:
    """Factors ``(p F,)`` that take away the growth of an autoregression, if it has any.

    Moments of pairs, each from entries of its own, may belong to no stationary series; over long
    gaps growth would leave nothing of the precision of numbers.
    """
    width = len(coefficients)
    companion = torch.diag(coefficients.new_ones((order - 1) * width), width)
    companion[-width:] = coefficients
    growth = float(torch.linalg.eigvals(companion).abs().max())
    lags = torch.arange(order, 0, -1).repeat_interleave(width)
    return max(growth, 1.0) ** -lags.to(coefficients)


def _left(second: Tensor, a: Tensor, past: slice, now: slice) -> Tensor:
    """Covariance of what the coefficients leave."""
    cross = a @ second[past, now]
    return second[now, now] - cross - cross.T + a @ second[past, past] @ a.T


def _shrunk(own: Tensor, average: Tensor, count: float) -> Tensor:
    """Covariance with its scales and, more so, its correlations drawn to the average."""
    mine, common = own.diagonal().sqrt(), average.diagonal().sqrt()
    weight = count / (count + _PULL_SCALES)
    scale = (weight * mine.square() + (1.0 - weight) * common.square()).sqrt()
    weight = count / (count + _PULL_CORRELATIONS)
    correlation = weight * own / torch.outer(mine, mine)
    correlation = correlation + (1.0 - weight) * average / torch.outer(common, common)
    return correlation * torch.outer(scale, scale)
