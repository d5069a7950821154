"""Exact inference in linear dynamical systems, as pure functions of torch tensors.

Shapes: B series, T steps, D = G * K latent dimensions in G independent groups of size K, U inputs,
H horizon, S samples, P distinct missing patterns (covariances are computed once per pattern).

>>> import torch
>>> from tsvae import lds
>>> params = lds.make_parameters(0.9 * torch.eye(2), 0.1 * torch.eye(2))
>>> x = torch.zeros(1, 5, 3)
>>> potentials = lds.emission_potentials(torch.ones(3, 2), torch.ones(3), x)
>>> filtered = lds.filter_states(params, potentials)
>>> lds.smooth(params, filtered).smoothed_mean.shape
torch.Size([1, 5, 2])
"""

from __future__ import annotations

from tsvae.lds.drawing import StateDraws, draw_states
from tsvae.lds.expected import expected_parameters, parameters_from_expectations
from tsvae.lds.filter_result import (
    ChainExcess,
    FilterResult,
    StateAt,
    final_state,
    per_series,
)
from tsvae.lds.filtering import filter_states
from tsvae.lds.forecasting import ForecastResult, forecast_states, sample_forecast
from tsvae.lds.natural import (
    Expectations,
    FactorSize,
    expectations_from_standard,
    standard_from_unconstrained,
    unconstrained_from_standard,
)
from tsvae.lds.natural_gradient import natural_expectations, natural_kl, natural_terms
from tsvae.lds.parameterisation import DynamicsPosterior, LinearDynamicsPosterior
from tsvae.lds.parameters import Excess, LDSParameters, make_parameters, stabilize, to_dense
from tsvae.lds.potentials import (
    Potentials,
    UniquePatterns,
    block_precision,
    chain_lengths,
    combine,
    emission_potentials,
    unique_patterns,
)
from tsvae.lds.priors import (
    MNIW,
    NIW,
    DynamicsPrior,
    HyperParameters,
    conjugate_update,
    prior_from_hyperparameters,
)
from tsvae.lds.sampling import sample_posterior
from tsvae.lds.smoothing import (
    BackwardConditionals,
    SmootherResult,
    backward_conditionals,
    expected_potential,
    local_kl,
    local_kl_from_normalizer,
    smooth,
)
from tsvae.lds.statistics import (
    ExpectedStatistics,
    PairwiseMoments,
    RegressionStatistics,
    expected_statistics,
    pairwise_moments,
)

__all__ = [
    "MNIW",
    "NIW",
    "BackwardConditionals",
    "ChainExcess",
    "DynamicsPosterior",
    "DynamicsPrior",
    "Excess",
    "Expectations",
    "ExpectedStatistics",
    "FactorSize",
    "FilterResult",
    "ForecastResult",
    "HyperParameters",
    "LDSParameters",
    "LinearDynamicsPosterior",
    "PairwiseMoments",
    "Potentials",
    "RegressionStatistics",
    "SmootherResult",
    "StateAt",
    "StateDraws",
    "UniquePatterns",
    "backward_conditionals",
    "block_precision",
    "chain_lengths",
    "combine",
    "conjugate_update",
    "draw_states",
    "emission_potentials",
    "expectations_from_standard",
    "expected_parameters",
    "expected_potential",
    "expected_statistics",
    "filter_states",
    "final_state",
    "forecast_states",
    "local_kl",
    "local_kl_from_normalizer",
    "make_parameters",
    "natural_expectations",
    "natural_kl",
    "natural_terms",
    "pairwise_moments",
    "parameters_from_expectations",
    "per_series",
    "prior_from_hyperparameters",
    "sample_forecast",
    "sample_posterior",
    "smooth",
    "stabilize",
    "standard_from_unconstrained",
    "to_dense",
    "unconstrained_from_standard",
    "unique_patterns",
]
