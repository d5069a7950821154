r"""Closed-form multi-step forecasts and forecast paths of the states.

:math:`m_{h} = A m_{h-1} + B u_h + b` and :math:`P_h = A P_{h-1} A' + Q` for h = 1..H, starting from
the filtered state at the last observed step. Expected parameters are used plug-in: the excess
belongs to chains that were observed, not to a forecast.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.filtering import check_inputs, state_drift
from tsvae.lds.layout import SeriesLayout, covariances_out, repeat_groups, series_layout
from tsvae.lds.linalg import safe_cholesky
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.sampling import standard_noise
from tsvae.lds.scans import affine_scan, congruence_scan


class ForecastResult(NamedTuple):
    """Forecast moments; step 0 of the arrays is one step ahead.

    Attributes
    ----------
    mean : Tensor (B, H, D)
    covariance : Tensor (1 or B, H, G, K, K)
    """

    mean: Tensor
    covariance: Tensor


def forecast_states(
    params: LDSParameters,
    mean: Tensor,
    covariance: Tensor,
    horizon: int,
    inputs: Tensor | None = None,
) -> ForecastResult:
    """Mean and covariance of the next ``horizon`` states.

    Parameters
    ----------
    params : LDSParameters
        Used plug-in.
    mean : Tensor (B, D)
        Filtered mean at the last observed step (``final_state``).
    covariance : Tensor (P, G, K, K)
        P = 1 (shared) or B.
    horizon : int
        H >= 1.
    inputs : Tensor (B, H, U), optional
        Inputs at the arriving steps.

    Returns
    -------
    ForecastResult

    Raises
    ------
    ValueError
        If shapes do not fit or the horizon is below 1.

    Examples
    --------
    >>> from tsvae.lds import make_parameters
    >>> walk = make_parameters(torch.ones(1, 1), torch.ones(1, 1))
    >>> ahead = forecast_states(walk, torch.ones(1, 1), torch.ones(1, 1, 1, 1), 3)
    >>> ahead.mean.flatten().tolist(), ahead.covariance.flatten().tolist()
    ([1.0, 1.0, 1.0], [2.0, 3.0, 4.0])
    """
    layout = _plan(params, mean, covariance, horizon, inputs)
    n_patterns = covariance.shape[0]
    a = repeat_groups(params.transition_matrix, n_patterns)
    q = repeat_groups(params.noise_covariance, n_patterns)
    start = covariance.transpose(0, 1).flatten(0, 1).unsqueeze(0)
    constants = torch.cat((start, q.expand(horizon, *q.shape)))
    spread = congruence_scan(a.expand(horizon + 1, *a.shape), constants)[1:]
    path = affine_scan(
        a.expand(horizon + 1, *a.shape), _drive(params, layout, mean, horizon, inputs)
    )
    return ForecastResult(layout.states_out(path[1:]), covariances_out(spread, params.n_groups))


def sample_forecast(
    params: LDSParameters,
    mean: Tensor,
    covariance: Tensor,
    horizon: int,
    generator: torch.Generator | None = None,
    n_samples: int = 1,
    inputs: Tensor | None = None,
    *,
    noise: Tensor | None = None,
) -> Tensor:
    """Joint sample paths of the next ``horizon`` states.

    Parameters
    ----------
    params, mean, covariance, horizon, inputs
        As in ``forecast_states``.
    generator : torch.Generator, optional
        Needed unless ``noise`` is given.
    n_samples : int, default=1
        S.
    noise : Tensor (S, B, H + 1, D), optional
        Standard normal numbers to use; row 0 moves the starting state.

    Returns
    -------
    Tensor (S, B, H, D)
    """
    layout = _plan(params, mean, covariance, horizon, inputs)
    shape = (n_samples, mean.shape[0], horizon + 1, mean.shape[1])
    noise = standard_noise(shape, mean, generator, noise)
    n_samples = noise.shape[0]
    a = repeat_groups(params.transition_matrix, layout.n_patterns)
    root = repeat_groups(safe_cholesky(params.noise_covariance), layout.n_patterns)
    first = safe_cholesky(covariance).transpose(0, 1).flatten(0, 1)
    shocks = layout.samples_in(noise)
    shocks = torch.cat((shocks[:1] @ first.mT, shocks[1:] @ root.mT))
    drive = _drive(params, layout, mean, horizon, inputs).repeat_interleave(n_samples, dim=2)
    path = affine_scan(a.expand(horizon + 1, *a.shape), drive + shocks)
    return layout.samples_out(path[1:], n_samples)


def _plan(
    params: LDSParameters, mean: Tensor, covariance: Tensor, horizon: int, inputs: Tensor | None
) -> SeriesLayout:
    groups, size = params.n_groups, params.group_size
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1; got {horizon}.")
    if mean.ndim != 2 or mean.shape[1] != params.latent_dim:
        raise ValueError(f"mean has shape {tuple(mean.shape)}; expected (B, {params.latent_dim}).")
    n_series = mean.shape[0]
    fits = covariance.ndim == 4 and tuple(covariance.shape[1:]) == (groups, size, size)
    if not fits or covariance.shape[0] not in (1, n_series):
        raise ValueError(
            f"covariance has shape {tuple(covariance.shape)}; expected (1 or {n_series}, "
            f"{groups}, {size}, {size}); `final_state` gives it in that form."
        )
    check_inputs(params, inputs, n_series, horizon)
    return series_layout(n_series, covariance.shape[0], None, groups, size)


def _drive(
    params: LDSParameters,
    layout: SeriesLayout,
    mean: Tensor,
    horizon: int,
    inputs: Tensor | None,
) -> Tensor:
    drift = state_drift(params, horizon, inputs).expand(mean.shape[0], -1, -1)
    return layout.states_in(torch.cat((mean.unsqueeze(1), drift), dim=1))
