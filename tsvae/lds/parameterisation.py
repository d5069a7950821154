"""q(theta) of a linear dynamical system as a torch module."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from tsvae.lds.charts import coordinates_from_transition, transition_from_coordinates
from tsvae.lds.expected import parameters_from_expectations
from tsvae.lds.natural import (
    FactorSize,
    expectations_from_standard,
    standard_from_unconstrained,
    unconstrained_from_standard,
)
from tsvae.lds.natural_gradient import natural_expectations
from tsvae.lds.natural_parameters import ThetaTerms, joint_prior_factor, natural_parameters
from tsvae.lds.parameters import LDSParameters, make_parameters, stabilize
from tsvae.lds.point_estimate import free_from_regression, log_prior_density, point_from_free
from tsvae.lds.priors import (
    MNIW,
    NIW,
    HyperParameters,
    kl_divergence,
    niw_from_mniw,
    prior_from_hyperparameters,
    sample,
)

PosteriorKind = Literal["natural", "gradient", "point"]
Chart = Literal["linear", "generator"]
RolloutNoise = Literal["expected_precision", "expected_covariance"]


class DynamicsPosterior(NamedTuple):
    """q(theta) in standard parameters.

    Attributes
    ----------
    initial : NIW
        q(mu0, Sigma0).
    transition : MNIW
        q([A B b], Q), with K + U + 1 regressors.
    """

    initial: NIW
    transition: MNIW


class LinearDynamicsPosterior(nn.Module):
    """Parameters of a linear dynamical system, as a posterior or as a point estimate.

    Parameters
    ----------
    latent_dim : int
        D.
    group_size : int, optional
        K; a divisor of D. None is one dense group.
    n_inputs : int, default=0
        U.
    posterior : {"natural", "gradient", "point"}, default="natural"
        "natural": q(theta) whose gradients are natural directions (``tsvae.lds.natural``), for
        plain descent in conjugate units. "gradient": the same q(theta) with ordinary gradients.
        "point": A, B, b, Q as they are, with minus the log prior density in place of the KL.
    chart : {"linear", "generator"}, default="linear"
        Coordinates of the (mean) transition matrix: its entries, or those of its logarithm
        (:mod:`tsvae.lds.charts`; groups of 1 or 2, stable by construction), in which ordinary
        gradient steps suit slow and fast states alike. Natural directions need "linear".
    hyper : HyperParameters, optional
        Of the prior.
    start : LDSParameters, optional
        Plug-in parameters q(theta) starts from; by default the prior mean of A, unit noise.
    strength : float, default=100.0
        Pseudo-observations behind the start. (Starting at the prior itself, with its tiny row
        precision, would make the excess ``K / lam_0`` drown every potential.)
    spectral_radius_max : float or None, default=1.0
        Cap on the spectral radius of each group in ``plug_in`` and ``sample``.
    dtype : torch.dtype, optional
        Of parameters and buffers; torch's default dtype by default.

    Raises
    ------
    ValueError
        If a setting is out of range, ``start`` has other sizes, or the chart cannot hold it.

    Examples
    --------
    >>> theta = LinearDynamicsPosterior(4, group_size=2)
    >>> theta.plug_in().transition_matrix.shape
    torch.Size([2, 2, 2])
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        group_size: int | None = None,
        n_inputs: int = 0,
        posterior: PosteriorKind = "natural",
        chart: Chart = "linear",
        hyper: HyperParameters | None = None,
        start: LDSParameters | None = None,
        strength: float = 100.0,
        spectral_radius_max: float | None = 1.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        size = latent_dim if group_size is None else group_size
        _check_settings(latent_dim, size, n_inputs, posterior, spectral_radius_max)
        _check_chart(chart, posterior)
        self.posterior: PosteriorKind = posterior
        self.chart: Chart = chart
        self.n_groups, self.group_size, self.n_inputs = latent_dim // size, size, n_inputs
        self.spectral_radius_max = spectral_radius_max
        self.hyper = HyperParameters() if hyper is None else hyper
        dtype = torch.get_default_dtype() if dtype is None else dtype
        prior = prior_from_hyperparameters(self.n_groups, size, n_inputs, self.hyper, dtype=dtype)
        for side, factor in (
            ("initial", prior.initial.as_mniw()),
            ("transition", prior.transition),
        ):
            for name, value in factor._asdict().items():
                self.register_buffer(f"prior_{side}_{name}", value, persistent=False)
        self._prior_factor = joint_prior_factor(prior.initial.as_mniw(), prior.transition)
        start = self._default_start() if start is None else start
        free = self._free_from(start, strength)
        self.initial_factor = nn.Parameter(free[0])
        self.transition_factor = nn.Parameter(free[1])
        if chart == "generator":
            coordinates = coordinates_from_transition(start.transition_matrix)
            self.transition_coordinates = nn.Parameter(coordinates.to(free[1]))

    @property
    def transition_size(self) -> FactorSize:
        """K outcomes, K + U + 1 regressors."""
        return FactorSize(self.group_size, self.group_size + self.n_inputs + 1)

    @property
    def initial_size(self) -> FactorSize:
        """K outcomes, one regressor."""
        return FactorSize(self.group_size, 1)

    @property
    def prior_initial(self) -> MNIW:
        """Prior of the initial state's mean and covariance."""
        return MNIW(*(getattr(self, f"prior_initial_{name}") for name in MNIW._fields))

    @property
    def prior_transition(self) -> MNIW:
        """Prior of ([A B b], Q)."""
        return MNIW(*(getattr(self, f"prior_transition_{name}") for name in MNIW._fields))

    def natural_parameters(self) -> list[nn.Parameter]:
        """List the parameters whose ``grad`` is a natural direction (none unless "natural")."""
        return [self.initial_factor, self.transition_factor] if self.posterior == "natural" else []

    def reset(self, start: LDSParameters, strength: float = 100.0) -> None:
        """Set the parameters from plug-in ones with ``strength`` pseudo-observations."""
        initial, transition = self._free_from(start, strength)
        with torch.no_grad():
            self.initial_factor.copy_(initial)
            self.transition_factor.copy_(transition)
            if self.chart == "generator":
                coordinates = coordinates_from_transition(start.transition_matrix)
                self.transition_coordinates.copy_(coordinates)

    def parameters_for_inference(self) -> LDSParameters:
        """Parameters for ``filter_states``: expected ones with excess, or the point estimate."""
        if self.posterior == "point":
            return self.plug_in()
        if self.posterior == "natural":
            initial = natural_expectations(self.initial_factor, self.initial_size)
            transition = natural_expectations(self.transition_factor, self.transition_size)
        else:
            initial = expectations_from_standard(
                standard_from_unconstrained(self.initial_factor, self.initial_size)
            )
            transition = expectations_from_standard(
                standard_from_unconstrained(self._transition_free(), self.transition_size)
            )
        return parameters_from_expectations(initial, transition)

    def terms(self) -> ThetaTerms:
        """Parameters for inference and ``kl()``, at the price of little more than one of them."""
        if self.posterior != "natural":
            return ThetaTerms(self.parameters_for_inference(), self.kl())
        return natural_parameters(
            self.initial_factor, self.transition_factor, self.transition_size, self._prior_factor
        )

    def plug_in(
        self,
        noise: RolloutNoise = "expected_precision",
        expected: LDSParameters | None = None,
    ) -> LDSParameters:
        """Plug-in parameters for forecasts, with the spectral radius capped.

        Parameters
        ----------
        noise : {"expected_precision", "expected_covariance"}, default="expected_precision"
            Q as ``E[Q^-1]^-1 = S / nu`` (what inference uses) or as ``E[Q] = S / (nu - K - 1)``,
            which is wider and needs nu > K + 1 (the denominator is kept above 1). The factor
            between the two counts as a constant for gradients.
        expected : LDSParameters, optional
            Result of ``parameters_for_inference``, to share the work and the graph.

        Returns
        -------
        LDSParameters
            Without excess.
        """
        if self.posterior == "point":
            return self._cap(self._point())
        params = self.parameters_for_inference() if expected is None else expected
        params = self._cap(params._replace(excess=None))
        if noise == "expected_covariance":
            degrees = self.standard().transition.degrees_of_freedom.detach()
            wider = degrees / (degrees - self.group_size - 1).clamp_min(1.0)
            params = params._replace(
                noise_covariance=params.noise_covariance * wider[:, None, None]
            )
        return params

    def standard(self) -> DynamicsPosterior:
        """q(theta) in standard parameters (ordinary gradients).

        Raises
        ------
        ValueError
            For a point estimate, which has no posterior.
        """
        if self.posterior == "point":
            raise ValueError(
                'posterior="point" holds no distribution; use plug_in(), or build the model with '
                'posterior="natural" or "gradient".'
            )
        initial = standard_from_unconstrained(self.initial_factor, self.initial_size)
        transition = standard_from_unconstrained(self._transition_free(), self.transition_size)
        return DynamicsPosterior(niw_from_mniw(initial), transition)

    def kl(self) -> Tensor:
        """KL(q(theta) || p(theta)), a scalar; minus the log prior density for a point estimate."""
        if self.posterior == "natural":
            return self.terms().kl
        if self.posterior == "gradient":
            q = self.standard()
            first = kl_divergence(q.initial.as_mniw(), self.prior_initial).sum()
            return first + kl_divergence(q.transition, self.prior_transition).sum()
        return -log_prior_density(self._point(), self.prior_initial, self.prior_transition)

    def sample(self, generator: torch.Generator) -> LDSParameters:
        """One draw of theta (the point estimate itself if there is no posterior); no gradient."""
        if self.posterior == "point":
            with torch.no_grad():
                return self.plug_in()
        q = self.standard()
        first = sample(q.initial.as_mniw(), generator)
        draw = sample(q.transition, generator)
        size = self.group_size
        return self._cap(
            LDSParameters(
                initial_mean=first.coefficients.squeeze(-1),
                initial_covariance=first.covariance,
                transition_matrix=draw.coefficients[..., :size],
                noise_covariance=draw.covariance,
                input_matrix=draw.coefficients[..., size:-1],
                bias=draw.coefficients[..., -1],
            )
        )

    def _transition_free(self) -> Tensor:
        """Free parameters of the transition factor, the matrix A taken from its chart."""
        free = self.transition_factor
        if self.chart == "linear":
            return free
        size, n_regressors = self.transition_size
        cut = size * n_regressors
        mean = free[:, :cut].unflatten(-1, (size, n_regressors))
        matrix = transition_from_coordinates(self.transition_coordinates)
        mean = torch.cat((matrix, mean[..., size:]), dim=-1)
        return torch.cat((mean.flatten(-2), free[:, cut:]), dim=-1)

    def _cap(self, params: LDSParameters) -> LDSParameters:
        capped = stabilize(params.transition_matrix, self.spectral_radius_max)
        return params._replace(transition_matrix=capped)

    def _default_start(self) -> LDSParameters:
        mean = self.prior_transition.mean
        size = self.group_size
        eye = torch.eye(size, dtype=mean.dtype).expand(self.n_groups, size, size)
        return make_parameters(mean[..., :size], eye, input_matrix=mean[..., size:-1])

    def _free_from(self, start: LDSParameters, strength: float) -> tuple[Tensor, Tensor]:
        """Unconstrained factors of the start."""
        shape = (self.n_groups, self.group_size, self.n_inputs)
        if (start.n_groups, start.group_size, start.n_inputs) != shape:
            raise ValueError(
                f"start has (groups, group size, inputs) = "
                f"{(start.n_groups, start.group_size, start.n_inputs)}; expected {shape}."
            )
        if not strength > 0:
            raise ValueError(f"strength must be positive; got {strength}.")
        regression = torch.cat(
            (start.transition_matrix, start.input_matrix, start.bias.unsqueeze(-1)), dim=-1
        )
        pairs = (
            (start.initial_mean.unsqueeze(-1), start.initial_covariance, self.prior_initial),
            (regression, start.noise_covariance, self.prior_transition),
        )
        if self.posterior == "point":
            free = [free_from_regression(mean, noise) for mean, noise, _ in pairs]
        else:
            free = [
                unconstrained_from_standard(_spread(mean, noise, prior, strength))
                for mean, noise, prior in pairs
            ]
        first, second = (part.detach().to(self.prior_transition.mean).contiguous() for part in free)
        return first, second

    def _point(self) -> LDSParameters:
        return point_from_free(self.initial_factor, self._transition_free(), self.transition_size)


def _spread(mean: Tensor, noise: Tensor, prior: MNIW, strength: float) -> MNIW:
    """Posterior around a start, as if ``strength`` unit-size observations had been seen."""
    degrees = prior.degrees_of_freedom + strength
    eye = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return MNIW(
        scale=noise * degrees[:, None, None],
        degrees_of_freedom=degrees,
        mean=mean,
        precision=prior.precision + strength * eye,
    )


def _check_settings(
    latent_dim: int, size: int, n_inputs: int, posterior: str, radius: float | None
) -> None:
    if size < 1 or latent_dim < 1 or latent_dim % size:
        raise ValueError(
            f"group_size must be a positive divisor of latent_dim={latent_dim}; got {size}."
        )
    if n_inputs < 0:
        raise ValueError(f"n_inputs must not be negative; got {n_inputs}.")
    if posterior not in get_args(PosteriorKind):
        raise ValueError(f"posterior must be one of {get_args(PosteriorKind)}; got {posterior!r}.")
    if radius is not None and not radius > 0:
        raise ValueError(f"spectral_radius_max must be positive or None; got {radius}.")


def _check_chart(chart: str, posterior: str) -> None:
    if chart not in get_args(Chart):
        raise ValueError(f"chart must be one of {get_args(Chart)}; got {chart!r}.")
    if chart == "generator" and posterior == "natural":
        raise ValueError(
            'natural directions are in the entries of A; use chart="linear", or '
            'posterior="gradient" or "point" with chart="generator".'
        )
