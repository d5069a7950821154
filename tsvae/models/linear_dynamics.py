"""The linear dynamical system as the graphical model of a structured VAE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tsvae.lds import (
    FilterResult,
    HyperParameters,
    LDSParameters,
    LinearDynamicsPosterior,
    Potentials,
    block_precision,
    draw_states,
    filter_states,
    final_state,
    forecast_states,
    local_kl,
    per_series,
    sample_forecast,
    sample_posterior,
    smooth,
)
from tsvae.lds.linalg import identity_like, safe_cholesky
from tsvae.models.graphical import (
    DrawnStates,
    State,
    StateForecast,
    StatePosterior,
    register_graphical_model,
)

__all__ = ["LinearDynamics"]


class Filtered(NamedTuple):
    """A filter pass and the parameters it ran with."""

    params: LDSParameters
    result: FilterResult


@register_graphical_model("lds")
class LinearDynamics(nn.Module):
    """Linear dynamical system with a conjugate posterior over its parameters.

    Parameters
    ----------
    latent_dim : int
        D.
    n_inputs : int, default=0
        U.
    group_size : int or None, default=2
        K, size of the independent groups; None: one dense group.
    posterior : {"natural", "gradient", "point"}, default="natural"
        See :class:`~tsvae.lds.LinearDynamicsPosterior`.
    chart : {"linear", "generator"}, default="linear"
        Coordinates of the transition matrix; see :class:`~tsvae.lds.LinearDynamicsPosterior`.
    prior_scale, prior_degrees, prior_precision, prior_mean : float
        Hyperparameters S_0, nu_0, lam_0 and M_0 of the prior.
    start : LDSParameters, optional
        Where the parameters begin.
    strength : float, default=100.0
        Pseudo-observations behind the start.
    spectral_radius_max : float or None, default=1.0
    generator : torch.Generator, optional
        Not used: the start is not drawn. Part of how graphical models are built.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        n_inputs: int = 0,
        group_size: int | None = 2,
        posterior: Literal["natural", "gradient", "point"] = "natural",
        chart: Literal["linear", "generator"] = "linear",
        prior_scale: float = 1.0,
        prior_degrees: float = 2.0,
        prior_precision: float = 0.001,
        prior_mean: float = 0.9,
        start: LDSParameters | None = None,
        strength: float = 100.0,
        spectral_radius_max: float | None = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.theta = LinearDynamicsPosterior(
            latent_dim,
            group_size=group_size,
            n_inputs=n_inputs,
            posterior=posterior,
            chart=chart,
            hyper=HyperParameters(prior_scale, prior_degrees, prior_precision, prior_mean),
            start=start,
            strength=strength,
            spectral_radius_max=spectral_radius_max,
        )

    @property
    def group_size(self) -> int:
        """K."""
        return self.theta.group_size

    def natural_parameters(self) -> list[nn.Parameter]:
        """Parameters whose ``grad`` is a natural direction."""
        return self.theta.natural_parameters()

    def prior_kl(self) -> Tensor:
        """KL divergence of q(theta) from its prior."""
        return self.theta.kl()

    def plug_in(self, *, detach: bool = False) -> LDSParameters:
        """Parameters of forecasts; ``detach``: without a gradient path to theta."""
        params = self.theta.plug_in()
        return _detach(params) if detach else params

    def filter(
        self, potentials: Potentials, inputs: Tensor | None = None, lengths: Tensor | None = None
    ) -> Filtered:
        """Filter pass alone: all that forecasts need."""
        params = self.theta.parameters_for_inference()
        return Filtered(params, filter_states(params, potentials, inputs, lengths))

    def filter_detached(
        self, potentials: Potentials, inputs: Tensor | None = None, lengths: Tensor | None = None
    ) -> Filtered:
        """Filter pass that sends no gradient to theta."""
        params = _detach(self.theta.parameters_for_inference())
        return Filtered(params, filter_states(params, potentials, inputs, lengths))

    def infer(
        self, potentials: Potentials, inputs: Tensor | None = None, lengths: Tensor | None = None
    ) -> StatePosterior:
        """Exact posterior of the states; see :class:`~tsvae.models.graphical.GraphicalModel`."""
        if not torch.is_grad_enabled():
            params = self.theta.parameters_for_inference()
            return self._infer(params, potentials, inputs, lengths)
        terms = self.theta.terms()
        posterior = self._infer(terms.params, potentials, inputs, lengths)
        return posterior._replace(prior_kl=terms.kl)

    def infer_and_sample(
        self,
        potentials: Potentials,
        n_samples: int,
        generator: torch.Generator,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> StatePosterior:
        """Infer, with ``draws``: one pass of means serves both."""
        terms = self.theta.terms()
        filtered = filter_states(terms.params, potentials, inputs, lengths)
        draws = sample_posterior(terms.params, filtered, generator, n_samples)
        posterior = _posterior(terms.params, filtered)
        return posterior._replace(prior_kl=terms.kl, draws=draws)

    def draw(
        self,
        potentials: Potentials,
        n_samples: int,
        generator: torch.Generator,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> DrawnStates:
        """Joint samples, the local KL and that of the parameters: all that the ELBO needs."""
        terms = self.theta.terms()
        found = draw_states(terms.params, potentials, generator, n_samples, inputs, lengths)
        return DrawnStates(found.draws, found.local_kl, terms.kl)

    def infer_detached(
        self, potentials: Potentials, inputs: Tensor | None = None, lengths: Tensor | None = None
    ) -> StatePosterior:
        """Posterior whose samples and moments send no gradient to theta.

        The local KL keeps the gradient of its own, -E_q[d log p(z | theta)]: the update of
        Johnson et al. 2016 (section 4.2) without the correction through q(z).
        """
        params = self.theta.parameters_for_inference()
        fixed = _detach(params)
        posterior = self._infer(fixed, potentials, inputs, lengths)
        # d log Z / d theta = E_q[d log p / d theta] with the potentials held fixed.
        still = Potentials(
            potentials.linear.detach(), potentials.precision.detach(), potentials.pattern
        )
        log_z = filter_states(params, still, inputs, lengths).log_normalizer
        own = log_z.detach() - log_z
        return posterior._replace(local_kl=posterior.local_kl + own)

    def _infer(
        self,
        params: LDSParameters,
        potentials: Potentials,
        inputs: Tensor | None,
        lengths: Tensor | None,
    ) -> StatePosterior:
        return _posterior(params, filter_states(params, potentials, inputs, lengths))

    def sample(
        self, posterior: StatePosterior, n_samples: int, generator: torch.Generator
    ) -> Tensor:
        """Joint posterior samples ``(S, B, T, D)``."""
        detail: Filtered = posterior.detail
        return sample_posterior(detail.params, detail.result, generator, n_samples)

    def states_at(self, filtered: Filtered, potentials: Potentials, steps: Tensor) -> State:
        """Return the filtered states at ``steps`` as if each chain ended there; N = len(steps) * B.

        The excess of expected parameters belongs to steps with a successor inside the chain, so a
        chain that ends at an origin has none there: the update is done anew from the predicted
        moments.
        """
        params, result = filtered
        n_series = result.filtered_mean.shape[0]
        if params.excess is None:
            mean = result.filtered_mean[:, steps].transpose(0, 1).flatten(0, 1)
            covariance = _rows(result.filtered_covariance, result.pattern, steps, n_series)
            return State(mean, covariance)
        mean = result.predicted_mean[:, steps].transpose(0, 1).flatten(0, 1)
        covariance = _rows(result.predicted_covariance, result.pattern, steps, n_series)
        precision = block_precision(potentials.precision, *covariance.shape[1:3])
        precision = _rows(precision, potentials.pattern, steps, n_series)
        linear = potentials.linear[:, steps].transpose(0, 1).flatten(0, 1)
        return _update(State(mean, covariance), linear, precision)

    def state_after(self, filtered: Filtered, lengths: Tensor) -> State:
        """Return the filtered state after the first ``lengths (B,)`` rows of each series."""
        return State(*final_state(filtered.result, lengths))

    def advance(self, state: State, steps: Tensor) -> State:
        """Carry each state forward by ``steps (N,)`` rows without observations, plug-in."""
        longest = int(steps.max()) if len(steps) else 0
        if not longest:
            return state
        params = self.plug_in()
        mean = state.mean.clone()
        covariance = state.covariance.expand(len(mean), -1, -1, -1).clone()
        for step in range(longest):
            rows = (steps > step).nonzero().squeeze(1)
            moved = _advance(params, State(mean[rows], covariance[rows]), None)
            mean[rows], covariance[rows] = moved
        return State(mean, covariance)

    def predicted(
        self,
        filtered: Filtered,
        potentials: Potentials,
        inputs: Tensor | None = None,
        correct: Callable[[Tensor], Tensor] | None = None,
    ) -> State:
        """Return the moments of every state given the steps before it, ``(B, T, ...)``.

        These are forecasts one step ahead: plug-in, from the states of :meth:`states_at`, whose
        means pass through ``correct``.
        """
        params, result = filtered
        n_series = result.predicted_mean.shape[0]
        covariance = _of_series(result.predicted_covariance, result.pattern, n_series)
        first = State(result.predicted_mean, covariance)
        if params.excess is None and correct is None:
            return first
        if params.excess is None:
            after = _of_series(result.filtered_covariance, result.pattern, n_series)
            state = State(result.filtered_mean[:, :-1], after[:, :-1])
        else:
            precision = block_precision(potentials.precision, *covariance.shape[2:4])
            precision = _of_series(precision, potentials.pattern, n_series)
            last = State(first.mean[:, :-1], covariance[:, :-1])
            state = _update(last, potentials.linear[:, :-1], precision[:, :-1])
        if correct is not None:
            state = State(correct(state.mean), state.covariance)
        ahead = _advance(self.plug_in(), state, None if inputs is None else inputs[:, 1:])
        rows = ahead.covariance.shape[0]
        return State(
            torch.cat((first.mean[:, :1], ahead.mean), dim=1),
            torch.cat((covariance[:, :1].expand(rows, -1, -1, -1, -1), ahead.covariance), dim=1),
        )

    def forecast(self, state: State, horizon: int, inputs: Tensor | None = None) -> StateForecast:
        """Moments of the next ``horizon`` states, plug-in."""
        ahead = forecast_states(self.plug_in(), state.mean, state.covariance, horizon, inputs)
        return StateForecast(ahead.mean, ahead.covariance)

    def sample_forecast(
        self,
        state: State,
        horizon: int,
        n_samples: int,
        generator: torch.Generator,
        inputs: Tensor | None = None,
        *,
        detach: bool = False,
    ) -> Tensor:
        """Joint sample paths ``(S, N, H, D)`` of the next states, plug-in."""
        params = self.plug_in(detach=detach)
        return sample_forecast(
            params, state.mean, state.covariance, horizon, generator, n_samples, inputs
        )


def _posterior(params: LDSParameters, filtered: FilterResult) -> StatePosterior:
    smoothed = smooth(params, filtered)
    return StatePosterior(
        smoothed.smoothed_mean,
        smoothed.smoothed_covariance,
        smoothed.pattern,
        local_kl(params, filtered, smoothed),
        Filtered(params, filtered),
    )


def _rows(values: Tensor, pattern: Tensor | None, steps: Tensor, n_series: int) -> Tensor:
    """``(P, T, ...)`` at ``steps``, spread over the series: ``(len(steps) * B, ...)``."""
    picked = values[:, steps]
    if values.shape[0] != n_series or pattern is not None:
        picked = per_series(picked, pattern, n_series)
    return picked.transpose(0, 1).flatten(0, 1)


def _of_series(values: Tensor, pattern: Tensor | None, n_series: int) -> Tensor:
    """``(P, ...)`` -> ``(1 or B, ...)``."""
    return values if pattern is None else per_series(values, pattern, n_series)


def _update(state: State, linear: Tensor, precision: Tensor) -> State:
    """Multiply N(m, P) by a potential: S = L (I + L' Lam L)^-1 L', m + S (h - Lam m)."""
    groups, size = precision.shape[-3:-1]
    mean = state.mean.unflatten(-1, (groups, size)).unsqueeze(-1)
    root = safe_cholesky(state.covariance)
    inner = identity_like(precision) + root.mT @ precision @ root
    half = torch.linalg.solve_triangular(safe_cholesky(inner), root.mT, upper=False)
    covariance = half.mT @ half
    residual = linear.unflatten(-1, (groups, size)).unsqueeze(-1) - precision @ mean
    moved = mean + covariance @ residual
    return State(moved.squeeze(-1).flatten(-2), covariance)


def _advance(params: LDSParameters, state: State, inputs: Tensor | None) -> State:
    """One plug-in step of states ``(..., D)``: A m + B u + b, A S A' + Q."""
    a = params.transition_matrix
    mean = state.mean.unflatten(-1, a.shape[:2]).unsqueeze(-1)
    mean = (a @ mean).squeeze(-1) + params.bias
    if inputs is not None:
        mean = mean + torch.einsum("gku,...u->...gk", params.input_matrix, inputs)
    covariance = a @ state.covariance @ a.mT + params.noise_covariance
    return State(mean.flatten(-2), covariance)


def _detach(params: Any) -> Any:
    """Detach every tensor of a (nested) named tuple."""
    if isinstance(params, Tensor):
        return params.detach()
    if isinstance(params, tuple):
        return type(params)(*(_detach(part) for part in params))
    return params
