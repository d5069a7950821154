"""Checks beyond the table of parameter constraints: items of lists, parameters that must agree."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsvae.nn import activation_names, get_likelihood
from tsvae.panel import Panel
from tsvae.panel.index import check_horizon

__all__ = ["check_coverages", "check_levels", "check_possible", "check_settings", "check_weights"]

Array = NDArray[np.float64]


def check_settings(params: Mapping[str, Any]) -> None:
    """Raise if parameters of the forecaster have impossible values or contradict each other.

    Parameters
    ----------
    params : mapping
        Parameters of the estimator; single values have been checked.

    Raises
    ------
    ValueError, TypeError
        Naming the parameter, what it must be, and the remedy.

    Examples
    --------
    >>> check_settings({"horizon": 24, "likelihood": "gamma"})
    Traceback (most recent call last):
    ...
    ValueError: likelihood='gamma' is not known; choose one of: bernoulli, laplace, ...
    """
    check_horizon(params["horizon"])
    likelihood = get_likelihood(params["likelihood"])
    if params["power_transform"] is not None and likelihood.support == "count":
        raise ValueError(
            f"power_transform={params['power_transform']!r} and likelihood={likelihood.name!r} "
            "exclude each other: counts are modelled as they are; set power_transform=None."
        )
    if params["activation"] not in activation_names():
        raise ValueError(
            f"activation={params['activation']!r} is not known; choose one of "
            f"{', '.join(activation_names())}."
        )
    _check_hidden_sizes(params["hidden_sizes"])
    _check_periods(params["seasonal_periods"])
    size = params["group_size"]
    if size is not None and params["latent_dim"] % size:
        raise ValueError(
            f"latent_dim={params['latent_dim']} must be a multiple of group_size={size}; change "
            "one of them, or use group_size=1 or None."
        )


def _check_hidden_sizes(sizes: Any) -> None:
    for place, width in enumerate(sizes):
        if isinstance(width, bool) or not isinstance(width, Integral) or width < 1:
            raise ValueError(
                f"hidden_sizes[{place}] must be a positive integer (the width of a layer), got "
                f"{width!r}; () is a model without hidden layers."
            )


def _check_periods(periods: Any) -> None:
    if periods is None or isinstance(periods, str):
        return
    for place, period in enumerate(periods):
        try:
            long_enough = 2.0 <= float(period) < np.inf
        except (TypeError, ValueError):
            long_enough = False
        if not long_enough:
            raise ValueError(
                f"seasonal_periods[{place}] must be a number of steps, at least 2, got {period!r}; "
                "leave it out."
            )


def check_possible(panel: Panel, likelihood: str) -> None:
    """Raise ValueError if counts are modelled and the panel holds other values."""
    found = get_likelihood(likelihood)
    if found.support == "count":
        found.validate(panel.values, panel.mask, panel.variables)


def check_levels(quantiles: Any) -> Array:
    """Quantile levels as an array, or ValueError.

    Examples
    --------
    >>> check_levels(0.5)
    array([0.5])
    """
    return _inside_unit(quantiles, "quantiles", "0.5 is the median")


def check_coverages(coverage: Any) -> Array:
    """Interval coverages as an array, or ValueError."""
    return _inside_unit(coverage, "coverage", "0.9 is 90 %")


def _inside_unit(given: Any, name: str, hint: str) -> Array:
    text = f"{name} must lie between 0 and 1 (exclusive), got {given!r}; {hint}."
    try:
        levels = np.atleast_1d(np.asarray(given, dtype=float))
    except (TypeError, ValueError):
        raise TypeError(text) from None
    if levels.ndim != 1 or not levels.size or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(text)
    return levels


def check_weights(sample_weight: Any, n_rows: int) -> Array | None:
    """Weights of rows as an array, or ValueError."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=float)
    if weights.shape != (n_rows,) or not (weights >= 0).all():
        raise ValueError(
            f"sample_weight must hold one non-negative number for each of the {n_rows} rows of X, "
            f"got shape {weights.shape}."
        )
    return weights
