"""Likelihoods by name, and masked scores built on them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from .continuous import (
    Laplace,
    LaplaceParameters,
    Normal,
    NormalParameters,
    StudentT,
    StudentTParameters,
)
from .discrete import (
    Bernoulli,
    BernoulliParameters,
    NegativeBinomial,
    NegativeBinomialParameters,
    Poisson,
    PoissonParameters,
)
from .likelihood_base import Likelihood, get_likelihood, likelihood_names, register_likelihood
from .masking import zero_where_missing

__all__ = [
    "Bernoulli",
    "BernoulliParameters",
    "Laplace",
    "LaplaceParameters",
    "Likelihood",
    "NegativeBinomial",
    "NegativeBinomialParameters",
    "Normal",
    "NormalParameters",
    "Poisson",
    "PoissonParameters",
    "StudentT",
    "StudentTParameters",
    "energy_crps",
    "get_likelihood",
    "likelihood_names",
    "masked_crps",
    "masked_log_prob",
    "masked_mean",
    "register_likelihood",
]

Reduction = Literal["none", "sum", "mean"]


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over observed entries; 0 if there is none.

    Parameters
    ----------
    values : Tensor
    mask : Tensor of bool or None, default=None
        Broadcastable to ``values``; True = observed.

    Returns
    -------
    Tensor, shape ()

    Examples
    --------
    >>> import torch
    >>> masked_mean(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    if mask is None:
        return values.mean()
    count = mask.bool().expand(values.shape).sum().clamp_min(1)
    return zero_where_missing(values, mask).sum() / count


def _reduce(values: Tensor, mask: Tensor | None, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return zero_where_missing(values, mask)
    if reduction == "sum":
        return zero_where_missing(values, mask).sum()
    if reduction == "mean":
        return masked_mean(values, mask)
    raise ValueError(f"reduction must be 'none', 'sum' or 'mean', got {reduction!r}")


def masked_log_prob(
    likelihood: Likelihood[Any],
    x: Tensor,
    params: Any,
    mask: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Log probability of observed entries.

    Parameters
    ----------
    likelihood : Likelihood
    x : Tensor, shape (..., F)
        Missing entries may hold anything, NaN included: they reach neither value nor gradient.
    params : NamedTuple of Tensor
        Parameters of the likelihood, as made by ``likelihood.from_raw``.
    mask : Tensor of bool or None, default=None
        Broadcastable to (..., F); True = observed. None: all observed.
    reduction : {"none", "sum", "mean"}, default="none"
        "none" gives (..., F) with 0 at missing entries; "mean" is per observed entry.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import torch
    >>> normal = get_likelihood("normal")
    >>> params = NormalParameters(torch.zeros(2), torch.ones(2))
    >>> x = torch.tensor([0.0, float("nan")])
    >>> masked_log_prob(normal, x, params, torch.tensor([True, False]))
    tensor([-0.9189,  0.0000])
    """
    return _reduce(likelihood.log_prob(zero_where_missing(x, mask), params), mask, reduction)


def masked_crps(
    likelihood: Likelihood[Any],
    x: Tensor,
    params: Any,
    mask: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Closed-form CRPS of observed entries.

    Parameters
    ----------
    likelihood : Likelihood
        One with ``closed_form_crps``.
    x : Tensor, shape (..., F)
        Missing entries may hold anything.
    params : NamedTuple of Tensor
    mask : Tensor of bool or None, default=None
        Broadcastable to (..., F); True = observed. None: all observed.
    reduction : {"none", "sum", "mean"}, default="none"

    Returns
    -------
    Tensor
    """
    return _reduce(likelihood.crps(zero_where_missing(x, mask), params), mask, reduction)


def energy_crps(
    samples: Tensor,
    x: Tensor,
    mask: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """Fair CRPS of samples: unbiased for the CRPS of the distribution they come from.

    mean_i |X_i - x| - 1 / (2 S (S - 1)) sum_{i != j} |X_i - X_j|, computed from sorted samples in
    O(S log S). Differentiable in the samples and in x.

    Parameters
    ----------
    samples : Tensor, shape (S, ..., F)
        At least two, along the first axis.
    x : Tensor, shape (..., F)
        Missing entries may hold anything.
    mask : Tensor of bool or None, default=None
        Broadcastable to (..., F); True = observed. None: all observed.
    reduction : {"none", "sum", "mean"}, default="none"

    Returns
    -------
    Tensor
        Shape (..., F) for reduction="none", else ().

    Raises
    ------
    ValueError
        If there are fewer than two samples.

    References
    ----------
    Gneiting & Raftery 2007 (JASA 102, 359), equation 21; Ferro 2014 (Q. J. R. Meteorol. Soc. 140,
    1917), equation 4 (the fair version); Zamo & Naveau 2018 (Math. Geosci. 50, 209), equation 10.

    Examples
    --------
    >>> import torch
    >>> energy_crps(torch.tensor([[0.0], [2.0]]), torch.tensor([1.0]))
    tensor([0.])
    """
    n_samples = samples.shape[0]
    if n_samples < 2:
        raise ValueError(f"energy_crps needs at least 2 samples, got {n_samples}; draw more")
    distance = (samples - zero_where_missing(x, mask)).abs().mean(0)
    ordered = torch.sort(samples, dim=0).values
    rank = torch.arange(1, n_samples + 1, device=samples.device, dtype=samples.dtype)
    weight = (2.0 * rank - n_samples - 1.0) / (n_samples * (n_samples - 1.0))
    spread = torch.tensordot(weight, ordered, dims=1)
    return _reduce(distance - spread, mask, reduction)
