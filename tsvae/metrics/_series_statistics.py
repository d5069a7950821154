"""A few numbers that describe a series, for comparing sets of series without a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsvae.metrics._containers import Float, as_float

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def series_statistics(series: Any) -> Float:
    """Describe each series by simple statistics.

    For each variable, in this order:

    - mean, standard deviation, skewness and excess kurtosis;
    - the quantiles 0.05, 0.25, 0.5, 0.75 and 0.95;
    - the slope: coefficient of a straight line, over the whole record;
    - mean absolute and standard deviation of the first differences, and of the second;
    - autocorrelations at lags 1, 2, 4, 8, ... below half the record;
    - shares of the power spectrum (without the mean) in octaves of frequency, from one cycle a
      record up.

    Then the correlations of each pair of variables.

    Parameters
    ----------
    series : array-like of shape (n_series, n_steps, n_variables) or (n_series, n_steps)
        At least 3 steps; nothing may be missing.

    Returns
    -------
    ndarray of shape (n_series, n_statistics)
        Shape statistics of a constant series are 0.

    Raises
    ------
    ValueError
        If the shape is another, there are fewer than 3 steps, or something is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.metrics import series_statistics
    >>> series_statistics(np.arange(12.0).reshape(2, 6)).shape
    (2, 18)
    """
    values = as_float(series, "series")
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[1] < 3:
        raise ValueError(
            "series must have shape (n_series, n_steps, n_variables) or (n_series, n_steps) with "
            f"at least 3 steps; got {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError("series has missing or infinite values; impute them first.")
    x = np.moveaxis(values, 1, -1)  # (B, F, T)
    scale = x.std(axis=-1, keepdims=True)
    # A spread of the size of rounding is that of a constant series.
    alive = scale > 1e-12 * np.abs(x).max(axis=-1, keepdims=True)
    z = np.where(alive, (x - x.mean(axis=-1, keepdims=True)) / np.where(alive, scale, 1.0), 0.0)
    per_variable = [_moments(x, z), _quantiles(x), _changes(x), _autocorrelations(z), _octaves(z)]
    flat = np.concatenate(per_variable, axis=-1).reshape(len(x), -1)
    return np.concatenate([flat, _correlations(z)], axis=1)


def _moments(x: Float, z: Float) -> Float:
    alive = (z != 0).any(axis=-1)
    kurtosis = np.where(alive, (z**4).mean(axis=-1) - 3.0, 0.0)
    return np.stack([x.mean(axis=-1), x.std(axis=-1), (z**3).mean(axis=-1), kurtosis], axis=-1)


def _quantiles(x: Float) -> Float:
    return np.moveaxis(np.quantile(x, _QUANTILES, axis=-1), 0, -1)


def _changes(x: Float) -> Float:
    """Slope, and sizes of the first and second differences."""
    time = np.linspace(-0.5, 0.5, x.shape[-1])
    found = [x @ time / (time @ time)]
    for order in (1, 2):
        difference = np.diff(x, order, axis=-1)
        found += [np.abs(difference).mean(axis=-1), difference.std(axis=-1)]
    return np.stack(found, axis=-1)


def _autocorrelations(z: Float) -> Float:
    n_steps = z.shape[-1]
    lags = [2**k for k in range(n_steps.bit_length()) if 2**k < max(n_steps / 2, 2)]
    return np.stack([(z[..., lag:] * z[..., :-lag]).sum(-1) / n_steps for lag in lags], axis=-1)


def _octaves(z: Float) -> Float:
    """Share of the power at 1, 2 to 3, 4 to 7, ... cycles a record."""
    power = np.abs(np.fft.rfft(z, axis=-1)[..., 1:]) ** 2
    total = power.sum(axis=-1, keepdims=True)
    share = power / np.where(total > 0, total, 1.0)
    starts = [2**k - 1 for k in range(share.shape[-1].bit_length())]
    return np.add.reduceat(share, starts, axis=-1)


def _correlations(z: Float) -> Float:
    matrix = z @ np.swapaxes(z, 1, 2) / z.shape[-1]
    rows, columns = np.triu_indices(z.shape[1], k=1)
    return matrix[:, rows, columns]
