r"""Structural time-series models: level, slope and season as one small linear dynamical system.

.. math::
    x_t = l_t + \sum_j s_{j,t} + e_t, \quad
    l_{t+1} = l_t + b_t + \eta_t, \quad b_{t+1} = \phi b_t + \zeta_t, \quad
    s_{j,t+1} = R(\omega_j) s_{j,t} + \kappa_{j,t},

a few variances and a damping that the exact likelihood tells from a few dozen rows, where a bank of
filters has too much to choose from. Variances are in units of that of the observation noise, whose
size each variable has for itself: it is concentrated out of the likelihood. States at the start
have prior variances of their own, found with the others, so that the likelihoods of forms with and
without a slope or a season compare (Harvey 1989, sections 2.3 and 4.5; their number of parameters
counts by AICc, Hurvich & Tsai 1989).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from tsvae.lds import (
    FilterResult,
    LDSParameters,
    emission_potentials,
    filter_states,
    make_parameters,
    per_series,
)

__all__ = ["Ahead", "Structural", "StructuralForm", "fit_structural"]

Vector = NDArray[np.float64]

_LOG_BOUNDS = (-14.0, 14.0)  # of variances beside the observation noise
_DAMPING = (0.7, 0.995)
_DAMPING_BOUNDS = (-6.0, 6.0)  # of its logit between these
_LEVEL_PRIOR = 100.0  # of the level, beside what one step adds: rows are taken from the first one
_LEAST_VARIANCE = 1e-12
_LEVEL_STARTS = (-1.0, 3.0)
_STARTS = {
    "slope": -4.0,
    "slope_start": -3.0,
    "damping": 2.0,
    "season": -8.0,
    "season_start": 0.0,
}
_STEPS = {"maxiter": 60, "ftol": 1e-5}


class StructuralForm(NamedTuple):
    """What a model consists of beside its level.

    Attributes
    ----------
    trend : {"none", "fixed", "damped"}
        A slope that stays, or one that fades and moves.
    angles : tuple of float
        Waves of the season, radians per step; empty: none.
    """

    trend: str = "none"
    angles: tuple[float, ...] = ()

    @property
    def names(self) -> list[str]:
        """Free parameters."""
        trend = {
            "none": [],
            "fixed": ["slope_start"],
            "damped": ["slope_start", "slope", "damping"],
        }[self.trend]
        return ["level", *trend, *(["season", "season_start"] if self.angles else [])]


class System(NamedTuple):
    """A linear system of D states, noise variance 1 on what is seen.

    Attributes
    ----------
    transition : Tensor (D, D)
    noise, initial : Tensor (D,)
        Variances, each state for itself.
    emission : Tensor (D,)
    """

    transition: Tensor
    noise: Tensor
    initial: Tensor
    emission: Tensor

    def parameters(self) -> LDSParameters:
        """As one dense group."""
        return make_parameters(
            self.transition,
            torch.diag(self.noise),
            initial_covariance=torch.diag(self.initial),
        )


class Ahead(NamedTuple):
    """Forecasts from every row.

    Attributes
    ----------
    mean : Tensor (N, T, H)
    variance : Tensor (N, T, H)
        Beside the observation noise's, which it holds.
    """

    mean: Tensor
    variance: Tensor


class Structural(NamedTuple):
    """A fitted structural model.

    Attributes
    ----------
    form : StructuralForm
    system : System
        float64.
    variance : Tensor (F,)
        Of each variable's observation noise.
    criterion : float
        AICc.
    """

    form: StructuralForm
    system: System
    variance: Tensor
    criterion: float

    @property
    def n_parameters(self) -> int:
        """Free parameters beside the variables' noise."""
        return len(self.form.names)

    @torch.no_grad()
    def with_noise_of(self, x: Tensor, mask: Tensor, variable: Tensor) -> Structural:
        """Take the noise of variables from other chains ``(N, T)``; the dynamics stay."""
        _, variance = _Data(x.double(), mask, variable).likelihood(self.system)
        return self._replace(variance=variance)

    @torch.no_grad()
    def forecasts(self, x: Tensor, mask: Tensor, horizon: int) -> Ahead:
        """Moments of the H steps after each row of chains ``(N, T)``."""
        system, filtered = self.system, _filter(self.system, x, mask)
        rows = [system.emission]
        for _ in range(horizon):
            rows.append(rows[-1] @ system.transition)
        ahead = torch.stack(rows[1:])  # (H, D)
        added = 1.0 + (torch.stack(rows[:-1]).square() @ system.noise).cumsum(0)
        covariance = filtered.filtered_covariance[:, :, 0]
        variance = torch.einsum("hi,ptij,hj->pth", ahead, covariance, ahead) + added
        return Ahead(
            filtered.filtered_mean @ ahead.T, per_series(variance, filtered.pattern, len(x))
        )

    @torch.no_grad()
    def end(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variances ``(N, D)`` of the states at the last row of chains ``(N, T)``.

        Variances in units of the observation noise's.
        """
        filtered = _filter(self.system, x, mask)
        variance = filtered.filtered_covariance[:, -1, 0].diagonal(dim1=-2, dim2=-1)
        return filtered.filtered_mean[:, -1], per_series(variance, filtered.pattern, len(x))


def fit_structural(
    x: Tensor, mask: Tensor, variable: Tensor, angles: Sequence[float] = ()
) -> Structural:
    """Fit structural models by exact maximum likelihood; the one with the least AICc.

    Parameters
    ----------
    x : Tensor (N, T)
        Chains, each taken from its first observed value; 0 where not observed.
    mask : Tensor of bool (N, T)
    variable : Tensor (N,) long
        Whose noise each chain has.
    angles : sequence of float
        Waves of a season that may be there, radians per step.

    Returns
    -------
    Structural
        First with or without the season, then with or without slopes.
    """
    data = _Data(x.double(), mask, variable)
    best = _fit(data, StructuralForm())
    if angles:
        best = min(best, _fit(data, StructuralForm(angles=tuple(angles))), key=_criterion)
    for trend in ("fixed", "damped"):
        best = min(best, _fit(data, best.form._replace(trend=trend)), key=_criterion)
    return best


def _criterion(fitted: Structural) -> float:
    return fitted.criterion


class _Data:
    """Chains, and what the concentrated likelihood needs of them."""

    def __init__(self, x: Tensor, mask: Tensor, variable: Tensor) -> None:
        self.x, self.mask, self.variable = torch.where(mask, x, 0.0), mask, variable
        self.n_variables = int(variable.max()) + 1
        # Chains of zeros beside them: what is left of the likelihood without the data.
        self.both = torch.cat((self.x, torch.zeros_like(self.x)))
        self.both_masks = torch.cat((mask, mask))
        self.counts = self._by_variable(mask.sum(1).double()).clamp_min(1.0)
        self.squares = self.x.square().sum(1)

    def _by_variable(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.n_variables).index_add(0, self.variable, values)

    def likelihood(self, system: System) -> tuple[Tensor, Tensor]:
        """Minus the concentrated log likelihood, and the variance of each variable's noise."""
        own, without = _filter(system, self.both, self.both_masks).log_normalizer.chunk(2)
        residual = self._by_variable(self.squares - 2.0 * (own - without))
        variance = (residual / self.counts).clamp_min(_LEAST_VARIANCE)
        return 0.5 * (self.counts * variance.log()).sum() - without.sum(), variance


def _filter(system: System, x: Tensor, mask: Tensor) -> FilterResult:
    potentials = emission_potentials(
        system.emission[None], torch.ones_like(system.emission[:1]), x[..., None], mask[..., None]
    )
    return filter_states(system.parameters(), potentials)


def _fit(data: _Data, form: StructuralForm) -> Structural:
    """Maximise the likelihood from a quiet and a restless level."""

    def objective(vector: Vector) -> tuple[float, Vector]:
        free = torch.tensor(vector, requires_grad=True)
        value, _ = data.likelihood(_system(form, free))
        (slope,) = torch.autograd.grad(value, free)
        return float(value.detach()), slope.numpy()

    bounds = [_DAMPING_BOUNDS if name == "damping" else _LOG_BOUNDS for name in form.names]
    found = min(
        (
            minimize(objective, start, jac=True, bounds=bounds, method="L-BFGS-B", options=_STEPS)
            for start in _starts(form)
        ),
        key=lambda result: float(result.fun),
    )
    with torch.no_grad():
        system = _system(form, torch.tensor(found.x))
        value, variance = data.likelihood(system)
    count, n = float(data.counts.sum()), len(form.names) + data.n_variables
    penalty = n + n * (n + 1.0) / max(count - n - 1.0, 1.0)
    return Structural(form, system, variance, 2.0 * (float(value) + penalty))


def _starts(form: StructuralForm) -> Iterator[Vector]:
    for level in _LEVEL_STARTS:
        yield np.array([level, *(_STARTS[name] for name in form.names[1:])])


def _system(form: StructuralForm, free: Tensor) -> System:
    """Lay out level, slope and pairs of waves."""
    value = dict(zip(form.names, free, strict=True))
    one, zero = free.new_ones(()), free.new_zeros(())
    level = value["level"].exp()
    blocks, emission = [one.view(1, 1)], [one]
    noise, initial = [level], [_LEVEL_PRIOR * (1.0 + level)]
    if form.trend != "none":
        damping, moves = one, zero
        if form.trend == "damped":
            low, high = _DAMPING
            damping = low + (high - low) * torch.sigmoid(value["damping"])
            moves = value["slope"].exp()
        blocks = [torch.stack((one, one, zero, damping)).view(2, 2)]
        noise.append(moves)
        initial.append(value["slope_start"].exp())
        emission.append(zero)
    for angle in form.angles:
        cosine, sine = math.cos(angle), math.sin(angle)
        blocks.append(free.new_tensor([[cosine, sine], [-sine, cosine]]))
        noise += [value["season"].exp()] * 2
        initial += [value["season_start"].exp()] * 2
        emission += [one, zero]
    return System(torch.block_diag(*blocks), *map(torch.stack, (noise, initial, emission)))
