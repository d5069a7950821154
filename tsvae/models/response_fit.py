r"""Forecast responses of a bank of filters, fitted to second moments of windows.

A channel-wise linear model forecasts the value h steps ahead as a linear map of the L values seen,

.. math::
    \hat x_{T+h} = \sum_{t=0}^{L-1} M_{h,t}\, x_{T-t}, \qquad
    M_{h,t} = \sum_g c_g A_g^h F_g^t k_g,

with transitions A_g, steady filters F_g = (I - K_g e') A_g and gains k_g of groups g of two. For
damped rotations with isotropic noise both are rotations by one angle, with radii
:math:`\lambda_g > \mu_g`: the filter forgets faster than the forecast, as a Kalman gain makes it.
The mean squared error over all windows is quadratic in M and needs their moments alone,

.. math::
    e_h = m_h' G m_h - 2\, m_h' r_h + v_h, \qquad
    G = E[x x'],\ r_h = E[y_h x],\ v_h = E[y_h^2],

so an epoch over all data costs one product of size L x L x 2G. The amplitudes c are found by least
squares at every step (variable projection, Golub & Pereyra 1973), angles and radii by gradient
descent. An anchor group holds the last value. A penalty shrinks all other amplitudes, so that
forecasts tend to a free share of the last value, or to all of it: persistence. Which, and how much,
is chosen by cross-validation over blocks of time. Where neither clearly beats the last value there
(:mod:`tsvae.models.persistence`), that is the forecast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.models.adam import Adam
from tsvae.models.coupling import coupling_rows
from tsvae.models.moments import Moments, WindowMoments, roughness, shares_apart
from tsvae.models.persistence import beats_last_value
from tsvae.models.response_squares import (
    Disturbance,
    Penalty,
    Seen,
    Waves,
    best_amplitudes,
    disturbance,
    normal_equations,
    response_rows,
    squared_errors,
    waves_of,
)
from tsvae.models.start import StateRoles

__all__ = ["FittedResponses", "Objective", "fit_responses"]

#: Share of the present value in the anchor group's level: nearly all of it.
ANCHOR_GAIN = 0.98
_SIZES = tuple(10.0 ** (0.5 * k) for k in range(-6, 5))  # of penalties, 1e-3 to 1e2
_ANGLE_RATE = 0.02  # of the rate of the radii
_COUPLINGS = (*(10.0 ** (0.5 * k) for k in range(-4, 4)), math.inf)  # penalties on couplings
_SHIFTS = (1.0, 0.1, 0.01)  # variances of shifts, in units of the past's
_WARM_UP = 0.1
_BEYOND = 0.25  # weight of steps beyond the horizon
_FURTHER = 0.004  # of steps further ahead than asked for: they decide where others do not
_REWEIGHT_EVERY = 10
_LEAST_ERROR = 1e-8  # of the variance ahead
_LEAST_SHARE = 1e-2  # of the errors of most steps


class Objective(NamedTuple):
    """What amplitudes and coupling minimise.

    Attributes
    ----------
    weights : Tensor (H,)
        Of the steps ahead.
    penalty : Penalty
        On amplitudes; of infinite size where forecasts are the last value.
    coupling_penalty : float
    uncoupled : Tensor (H,)
        Mean squared errors without coupling, positive.
    n_past : int
        L, values seen.
    """

    weights: Tensor
    penalty: Penalty
    coupling_penalty: float
    uncoupled: Tensor
    n_past: int


class FittedResponses(NamedTuple):
    """A fitted bank of G groups; the first one is the anchor.

    Attributes
    ----------
    angles : Tensor (G,)
        Radians per step.
    radius : Tensor (G,)
        lambda, of the transition.
    gain : Tensor (G,)
        1 - mu / lambda, share of a new value in the state.
    amplitude : Tensor (G, 2)
        c, x per unit of a state.
    coupling : Tensor (2G, 2G)
        Delta, see :mod:`tsvae.models.coupling`; first coordinates of all groups, then second ones.
    errors : Tensor (H,)
        Mean squared error h steps ahead, cross-validated.
    objective : Objective
    """

    angles: Tensor
    radius: Tensor
    gain: Tensor
    amplitude: Tensor
    coupling: Tensor
    errors: Tensor
    objective: Objective


def fit_responses(
    moments: WindowMoments,
    roles: StateRoles,
    horizon: int,
    *,
    n_steps: int = 60,
    rate: float = 0.1,
    may_persist: bool = True,
    asked: int | None = None,
) -> FittedResponses:
    """Fit angles, radii, gains and amplitudes to the moments of windows.

    Parameters
    ----------
    moments : WindowMoments
    roles : StateRoles
        G groups where the fit begins; the first is replaced by the anchor.
    horizon : int
        Steps ahead that count; those beyond count less.
    n_steps : int, default=60
        Gradient steps.
    rate : float, default=0.1
        Peak rate of Adam on the logarithms of the rates of decay.
    may_persist : bool, default=True
        Take the last value where no fit is clearly better.
    asked : int or None, default=None
        Steps ahead beyond which others count hardly at all; None: all that the moments hold.

    Returns
    -------
    FittedResponses
        float64.

    References
    ----------
    Golub & Pereyra 1973, SIAM J. Numer. Anal. 10(2) (variable projection).
    """
    moments = moments.double()
    ahead = torch.arange(moments.cross.shape[1])
    counts = torch.where(ahead < horizon, 1.0, _BEYOND).double()
    if asked is not None:
        counts[asked:] = _FURTHER
    fits = [_fit(moments, roles, counts, persistent, n_steps, rate) for persistent in (False, True)]
    clear = [fit.fitted for fit in fits if fit.is_clear or not may_persist]
    if not clear:
        return fits[-1].last_value
    return min(clear, key=lambda fitted: float(counts @ (fitted.errors / clear[0].errors)))


def _fit(
    moments: WindowMoments,
    roles: StateRoles,
    counts: Tensor,
    persistent: bool,
    n_steps: int,
    rate: float,
) -> _Fit:
    everything = moments.everything()
    bank = _Bank(roles, everything)
    weights = counts
    chosen = bank.choose_penalty(moments, weights, persistent)
    peaks = {bank.angles: _ANGLE_RATE * rate, bank.log_decay: rate, bank.log_forgetting: rate}
    descent = Adam(peaks)
    for step in range(n_steps):
        errors = bank.errors(everything, weights, chosen.penalty)
        descent.step((weights * errors).mean(), _schedule(step, n_steps))
        if step % _REWEIGHT_EVERY == _REWEIGHT_EVERY - 1:
            weights = _weights(errors.detach(), everything.future, counts)
            chosen = bank.choose_penalty(moments, weights, persistent)
    chosen = bank.choose_penalty(moments, weights, persistent)
    return bank.result(moments, weights, chosen)


def _weights(errors: Tensor, future: Tensor, counts: Tensor) -> Tensor:
    """Weights of the steps ahead: inverse errors, as in a likelihood; mean 1 where asked for."""
    inverse = counts / _positive(errors, future)
    return inverse * (counts > _FURTHER).sum() / inverse.sum()


def _positive(errors: Tensor, future: Tensor) -> Tensor:
    """Errors, but none far below all others: moments of pairs may even have negative ones."""
    least = (_LEAST_ERROR * future.mean()).clamp_min(_LEAST_ERROR**2)
    return errors.clamp_min(max(float(least), _LEAST_SHARE * float(errors.median())))


def _schedule(step: int, n_steps: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    warm = max(1.0, _WARM_UP * n_steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(n_steps - warm, 1.0)))


class _Fit(NamedTuple):
    fitted: FittedResponses
    last_value: FittedResponses  # of the same groups
    is_clear: bool  # that the first is better


class _Choice(NamedTuple):
    penalty: Penalty
    errors: Tensor  # (H,), cross-validated


class _Fold(NamedTuple):
    own: Seen
    others: Seen
    weight: Tensor


class _Bank:
    """Free parameters of the groups, and the least squares between them."""

    def __init__(self, roles: StateRoles, moments: Moments) -> None:
        decay = math.log(2.0) / roles.half_lives.double()
        forgetting = 1.0 / roles.memories.double()
        self.angles = roles.angles.double()[1:].clone().requires_grad_()
        self.log_decay = decay[1:].log().requires_grad_()
        self.log_forgetting = forgetting[1:].log().requires_grad_()
        self.horizon, self.n_past = moments.cross.shape
        self.rough = roughness(moments.past)
        self.level = moments.past.diagonal().mean()

    def shape(self) -> tuple[Tensor, Tensor, Tensor]:
        """Angles, radii and gains, the anchor's first."""
        one = torch.ones(1, dtype=torch.float64)
        radius = torch.exp(-self.log_decay.exp())
        gain = -torch.expm1(-self.log_forgetting.exp())
        return (
            torch.cat((0.0 * one, self.angles)),
            torch.cat((one, radius)),
            torch.cat((ANCHOR_GAIN * one, gain)),
        )

    def waves(self) -> Waves:
        return waves_of(*self.shape(), self.n_past, self.horizon)

    def seen(self, moments: Moments, past: Tensor) -> Seen:
        """Moments of the states."""
        return Seen(past.T @ moments.past @ past, moments.cross @ past, moments.future)

    def noisy(self, seen: Seen, added: Disturbance, shift: float) -> Seen:
        """Moments as if histories had noise, and no window's level were known."""
        return added.added_to(seen, self.rough, shift * self.level)

    def errors(self, moments: Moments, weights: Tensor, penalty: Penalty) -> Tensor:
        """Mean squared error of every step at the best amplitudes, which are held fixed."""
        waves = self.waves()
        added = disturbance(waves.past)
        seen = self.noisy(self.seen(moments, waves.past), added, penalty.shift)
        with torch.no_grad():
            amplitude = best_amplitudes(waves.ahead, seen, weights, penalty)
        return squared_errors(response_rows(waves.ahead, amplitude), seen)

    @torch.no_grad()
    def choose_penalty(self, moments: WindowMoments, weights: Tensor, persistent: bool) -> _Choice:
        """Penalty with the least cross-validated error, and that error of every step."""
        waves = self.waves()
        added = disturbance(waves.past)
        by_shift = {
            shift: [Penalty(size, persistent, shift) for size in _SIZES] for shift in _SHIFTS
        }
        penalties = [penalty for own in by_shift.values() for penalty in own]
        total = weights.new_zeros(len(penalties), len(weights))
        for fold in self.folds(moments, waves):
            amplitudes = [
                normal_equations(waves.ahead, self.noisy(fold.others, added, shift), weights).solve(
                    own
                )
                for shift, own in by_shift.items()
            ]
            rows = response_rows(waves.ahead, torch.cat(amplitudes))
            total += fold.weight * squared_errors(rows, fold.own)
        best = int((total @ weights).argmin())
        return _Choice(penalties[best], total[best] / moments.weight.sum())

    def folds(self, moments: WindowMoments, waves: Waves) -> Iterator[_Fold]:
        """Each block, and the blocks from which it is forecast."""
        blocks = [
            self.seen(Moments(*block), waves.past) for block in zip(*moments[:3], strict=True)
        ]
        stacked = [torch.stack(part) for part in zip(*blocks, strict=True)]
        shares = shares_apart(moments.weight, moments.neighbours)
        for own, weight, share in zip(blocks, moments.weight, shares, strict=True):
            yield _Fold(own, Seen(*(torch.tensordot(share, part, 1) for part in stacked)), weight)

    @torch.no_grad()
    def choose_coupling(
        self,
        moments: WindowMoments,
        waves: Waves,
        weights: Tensor,
        penalty: Penalty,
        uncoupled: Tensor,
    ) -> tuple[float, Tensor]:
        """Penalty on the coupling with the least cross-validated error, and each block's (J, H).

        ``uncoupled``: errors (H,) without coupling, positive.
        """
        errors = []
        added = disturbance(waves.past)
        for fold in self.folds(moments, waves):
            others = self.noisy(fold.others, added, penalty.shift)
            amplitude = best_amplitudes(waves.ahead, others, weights, penalty)
            rows = response_rows(waves.ahead, amplitude)
            squares = coupling_rows(rows, weights, uncoupled).squares(others)
            coupled = (rows + rows @ squares.solve(size) for size in _COUPLINGS)
            errors.append(torch.stack([squared_errors(own, fold.own) for own in coupled]))
        by_block = torch.stack(errors, dim=1)
        best = int((moments.weight @ by_block @ weights).argmin())
        return _COUPLINGS[best], by_block[best]

    @torch.no_grad()
    def result(self, moments: WindowMoments, weights: Tensor, chosen: _Choice) -> _Fit:
        """Return the groups at the best amplitudes and coupling, and at the last value."""
        waves = self.waves()
        everything = moments.everything()
        added = disturbance(waves.past)
        seen = self.noisy(self.seen(everything, waves.past), added, chosen.penalty.shift)
        amplitude = best_amplitudes(waves.ahead, seen, weights, chosen.penalty)
        uncoupled = _positive(chosen.errors, moments.future)
        size, by_block = self.choose_coupling(moments, waves, weights, chosen.penalty, uncoupled)
        rows = response_rows(waves.ahead, amplitude)
        coupling = coupling_rows(rows, weights, uncoupled).squares(seen).solve(size)
        objective = Objective(weights, chosen.penalty, size, uncoupled, self.n_past)
        share = moments.weight / moments.weight.sum()
        fitted = FittedResponses(*self.shape(), amplitude, coupling, share @ by_block, objective)
        last = self.last_value_errors(moments, waves)
        kept = _at_last_value(fitted, share @ last, moments.future)
        is_clear = beats_last_value(by_block @ weights, last @ weights, moments.weight)
        return _Fit(fitted, kept, is_clear)

    def last_value_errors(self, moments: WindowMoments, waves: Waves) -> Tensor:
        """Mean squared errors (J, H) of the anchor alone, in each block."""
        rows = response_rows(waves.ahead, _anchor_alone(waves.ahead.shape[1]))
        return torch.stack([squared_errors(rows, fold.own) for fold in self.folds(moments, waves)])


def _anchor_alone(n_groups: int) -> Tensor:
    """Amplitudes (G, 2) with which forecasts are the last value."""
    amplitude = torch.zeros(n_groups, 2, dtype=torch.float64)
    amplitude[0, 0] = 1.0
    return amplitude


def _at_last_value(fitted: FittedResponses, errors: Tensor, future: Tensor) -> FittedResponses:
    """Forecast the last value, with the errors that it has."""
    objective = fitted.objective
    penalty = Penalty(math.inf, True, objective.penalty.shift)
    return fitted._replace(
        amplitude=_anchor_alone(len(fitted.amplitude)),
        coupling=torch.zeros_like(fitted.coupling),
        errors=errors,
        objective=objective._replace(
            penalty=penalty, coupling_penalty=math.inf, uncoupled=_positive(errors, future)
        ),
    )
