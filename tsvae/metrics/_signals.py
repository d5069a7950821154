"""How much of a signal has been recovered: SNR, PSNR and structural similarity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tsvae.metrics._containers import Float, as_float
from tsvae.metrics._validation import (
    MultiOutput,
    Scored,
    average_outputs,
    check_point,
    mean_rows,
)

DataRange = float | Float | None


def signal_to_noise_ratio(
    y_true: Any,
    y_pred: Any,
    *,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Signal-to-noise ratio in dB: 10 log10 of the signal's power over that of the error.

    Powers are pooled over all records and steps before they are divided ("output SNR" in
    denoising): a quiet record counts for little. Nothing is centred; take the mean off first if
    it is no part of the signal.

    Parameters
    ----------
    y_true : array-like of shape (..., n_variables) or (n_steps,)
        The clean signal; NaN is missing and is not scored. The last axis holds variables: write
        a table of records (n_records, n_steps) as ``X[..., None]``, else each step is scored as
        a variable of its own.
    y_pred : array-like of the same shape
        The signal that was recovered.
    mask, sample_weight, multioutput
        As in :func:`mean_absolute_error`.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        In dB; higher is better. Infinite without any error, minus infinity for a signal of zeros
        that is not recovered, NaN for one that is.

    Raises
    ------
    ValueError
        As in :func:`mean_absolute_error`.

    Examples
    --------
    >>> from tsvae.metrics import signal_to_noise_ratio
    >>> signal_to_noise_ratio([10.0, -10.0], [11.0, -9.0])
    20.0
    """
    scored = check_point(y_true, y_pred, mask, sample_weight)
    power = mean_rows(scored.y_true**2, scored.weights)
    return average_outputs(_decibel(power, _squared_error(scored)), multioutput)


def peak_signal_to_noise_ratio(
    y_true: Any,
    y_pred: Any,
    *,
    data_range: float | Float | None = None,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Peak signal-to-noise ratio in dB: 10 log10 of the squared range over the squared error.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (..., n_variables) or (n_steps,)
        As in :func:`signal_to_noise_ratio`.
    data_range : float, array-like of shape (n_variables,) or None, default=None
        Largest less smallest possible value; None takes that of what is scored in `y_true`. Give
        it where figures of different data are to be compared.
    mask, sample_weight, multioutput
        As in :func:`mean_absolute_error`.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        In dB; higher is better, infinite without any error.

    Raises
    ------
    ValueError
        As in :func:`mean_absolute_error`; also if the range is not positive.

    Examples
    --------
    >>> from tsvae.metrics import peak_signal_to_noise_ratio
    >>> peak_signal_to_noise_ratio([0.0, 10.0], [1.0, 9.0])
    20.0
    """
    scored = check_point(y_true, y_pred, mask, sample_weight)
    peak = _range(scored, data_range)
    return average_outputs(_decibel(peak**2, _squared_error(scored)), multioutput)


def structural_similarity(
    y_true: Any,
    y_pred: Any,
    *,
    data_range: float | Float | None = None,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    mask: Any = None,
    sample_weight: Any = None,
    multioutput: MultiOutput = "uniform_average",
) -> float | Float:
    """Structural similarity (SSIM) along time: local means, spreads and correlation.

    The index of images in one dimension: at each step, means, variances and covariance of the
    two signals under a Gaussian window. Missing steps have no weight in a window, and windows
    end with the record: their weights are scaled up to sum to 1.

    The index compares means as ratios, which has a meaning for intensities only: of a signal
    around zero and its negative, means and correlation both differ in sign, and the product
    would be positive. Both signals are therefore measured from the lowest value of `y_true`, as
    intensities are from black, so that the index does not know offset and unit.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (..., n_steps, n_variables) or (n_steps,)
        As in :func:`signal_to_noise_ratio`, time on the axis before the last.
    data_range : float, array-like of shape (n_variables,) or None, default=None
        As in :func:`peak_signal_to_noise_ratio`.
    sigma : float, default=1.5
        Standard deviation of the window in steps; it is cut at 3.5 sigma (11 steps by default).
    k1, k2 : float, default=0.01, 0.03
        Stabilise the ratios; in units of the range.
    mask, sample_weight, multioutput
        As in :func:`mean_absolute_error`. `sample_weight` weights the steps of the average, not
        those within a window.

    Returns
    -------
    float or ndarray of shape (n_variables,)
        From -1 to 1, which only equal signals reach.

    Raises
    ------
    ValueError
        As in :func:`mean_absolute_error`; also if the range, `sigma`, `k1` or `k2` is not
        positive.

    References
    ----------
    Z. Wang, A. C. Bovik, H. R. Sheikh and E. P. Simoncelli (2004), Image quality assessment: from
    error visibility to structural similarity, IEEE Trans. Image Processing 13, 600-612, eq. 13.

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.metrics import structural_similarity
    >>> wave = np.sin(np.arange(100.0))
    >>> structural_similarity(wave, wave)
    1.0
    >>> bool(structural_similarity(wave, -wave) < -0.2)
    True
    """
    for name, value in (("sigma", sigma), ("k1", k1), ("k2", k2)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number; got {value!r}.")
    scored = check_point(y_true, y_pred, mask, sample_weight)
    limit, low = _range(scored, data_range), _extremes(scored)[0]
    similarity = _similarity(scored, low, (k1 * limit) ** 2, (k2 * limit) ** 2, sigma)
    return average_outputs(mean_rows(similarity, scored.weights), multioutput)


def _squared_error(scored: Scored) -> Float:
    return mean_rows((scored.y_true - scored.y_pred) ** 2, scored.weights)


def _decibel(power: Float, error: Float) -> Float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10 * np.log10(power / error)


def _range(scored: Scored, data_range: DataRange) -> Float:
    """Range of each variable (F,); NaN for a variable of which nothing is scored."""
    low, high = _extremes(scored)
    if data_range is None:
        limit = high - low
        if (limit == 0).any():
            raise ValueError(
                f"y_true is constant in variable {int(np.argmax(limit == 0))}, which gives no "
                "range; give `data_range`."
            )
    else:
        limit, n_variables = as_float(data_range, "data_range"), len(low)
        if limit.shape not in ((), (n_variables,)) or not (limit > 0).all():
            raise ValueError(
                "data_range must be a positive number, or one for each of the "
                f"{n_variables} variables; got {data_range!r}."
            )
    return np.where(np.isnan(low), np.nan, limit)


def _extremes(scored: Scored) -> tuple[Float, Float]:
    """Lowest and highest scored target of each variable (F,); NaN where nothing is scored."""
    rows = tuple(range(scored.y_true.ndim - 1))
    seen = scored.weights > 0
    low = np.where(seen, scored.y_true, np.inf).min(axis=rows)
    high = np.where(seen, scored.y_true, -np.inf).max(axis=rows)
    alive = seen.any(axis=rows)
    return np.where(alive, low, np.nan), np.where(alive, high, np.nan)


def _similarity(scored: Scored, low: Float, c1: Float, c2: Float, sigma: float) -> Float:
    """Index at each step (..., T, F); what is not scored has no part in a window."""
    seen = (scored.weights > 0).astype(float)
    share = np.maximum(_smooth(seen, sigma), 1e-300)

    def local(values: Float) -> Float:
        return _smooth(values * seen, sigma) / share

    a, b = scored.y_true - low, scored.y_pred - low
    mean_a, mean_b = local(a), local(b)
    variance = local(a**2) - mean_a**2 + local(b**2) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    denominator = (mean_a**2 + mean_b**2 + c1) * (variance + c2)
    return np.where(seen > 0, numerator / denominator, 0.0)


def _smooth(values: Float, sigma: float) -> Float:
    """Weighted sums along time, the axis before the last, under a window cut at 3.5 sigma."""
    n_steps = values.shape[-2]
    reach = int(3.5 * sigma + 0.5)
    total = np.zeros_like(values)
    for lag in range(-min(reach, n_steps - 1), min(reach, n_steps - 1) + 1):
        weight = math.exp(-0.5 * (lag / sigma) ** 2)
        to = slice(max(0, -lag), n_steps - max(0, lag))
        source = slice(max(0, lag), n_steps - max(0, -lag))
        total[..., to, :] += weight * values[..., source, :]
    return total
