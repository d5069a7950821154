"""A linear map from the rows of the past to the next ones, fitted in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsvae.demo.baselines import GaussianForecast, interpolate_gaps

__all__ = ["LinearForecaster", "fit_linear", "history_windows"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearForecaster:
    """A linear map from the last rows of a variable to its next ones, shared by all variables.

    The last value is subtracted before and added after the map (the "N" in NLinear), so that a
    level that moves does no harm. Gaps in the history are interpolated.

    Attributes
    ----------
    weights : ndarray of shape (W + 1, H)
        The map; the last row is the bias.
    std : ndarray of shape (H, F)
        Standard deviation of the training errors at each step ahead, per variable.

    References
    ----------
    Zeng, A. et al. (2023), Are transformers effective for time series forecasting?, AAAI.
    """

    weights: Array
    std: Array

    @property
    def n_parameters(self) -> int:
        """Number of fitted weights."""
        return self.weights.size

    def predict(self, histories: ArrayLike) -> GaussianForecast:
        """Forecast from each history.

        Parameters
        ----------
        histories : array-like of shape (N, W, F)
            The W rows before each origin, without NaN.

        Returns
        -------
        GaussianForecast
            Mean of shape (N, H, F); standard deviation of shape (H, F).
        """
        x = np.asarray(histories, dtype=np.float64)
        last = x[:, -1:, :]
        mean = np.einsum("nwf,wh->nhf", x - last, self.weights[:-1], optimize=True)
        return GaussianForecast(mean + self.weights[-1][:, None] + last, self.std)


def history_windows(rows: ArrayLike, origins: NDArray[np.int64], window: int) -> Array:
    """Cut the rows before each origin, gaps filled without looking past the origin.

    Parameters
    ----------
    rows : array-like of shape (T, F)
        The series; NaN where missing.
    origins : ndarray of shape (N,)
        Rows of history before each window's end, at least `window`.
    window : int
        Rows to cut, W.

    Returns
    -------
    ndarray of shape (N, W, F)
        Gaps between observed values are interpolated; a gap at the end of a window holds the
        last value seen.

    Examples
    --------
    >>> rows = np.array([[0.0], [np.nan], [2.0], [np.nan], [4.0]])
    >>> history_windows(rows, np.array([4, 5]), window=4)[..., 0]
    array([[0., 1., 2., 2.],
           [1., 2., 3., 4.]])
    """
    values = np.asarray(rows, dtype=np.float64)
    filled = np.column_stack([interpolate_gaps(column) for column in values.T])
    places = np.arange(len(values))[:, None]
    last_seen = np.maximum.accumulate(np.where(np.isfinite(values), places, 0), axis=0)
    wanted = np.asarray(origins)[:, None] - window + np.arange(window)  # (N, W)
    seen = last_seen[np.asarray(origins) - 1]  # (N, F)
    rows_used = np.minimum(wanted[:, :, None], seen[:, None, :])
    return np.take_along_axis(
        filled[None], rows_used.reshape(1, -1, values.shape[1]), axis=1
    ).reshape(rows_used.shape)


def fit_linear(
    train: ArrayLike, window: int, horizon: int, *, ridge: float = 1.0, chunk: int = 512
) -> LinearForecaster:
    """Fit `LinearForecaster` in closed form on every window of the training rows.

    Parameters
    ----------
    train : array-like of shape (T, F)
        Training rows, standardised per variable; NaN where missing. Missing inputs are filled as
        in `history_windows`, missing targets are interpolated.
    window : int
        Rows the forecast may look back on, W.
    horizon : int
        Number of steps ahead, H.
    ridge : float, default=1.0
        Penalty on the squared weights, in units of one training window.
    chunk : int, default=512
        Windows per block of the normal equations; bounds the memory.

    Returns
    -------
    LinearForecaster
        The fitted map.

    Raises
    ------
    ValueError
        If `train` has fewer than ``window + horizon`` rows.
    """
    rows = np.asarray(train, dtype=np.float64)
    n_windows = len(rows) - window - horizon + 1
    if n_windows < 1:
        raise ValueError(
            f"train has {len(rows)} rows, expected at least window + horizon = "
            f"{window + horizon}; shorten the window"
        )
    gram = np.zeros((window + 1, window + 1))
    moment = np.zeros((window + 1, horizon))
    for x, y in _training_blocks(rows, window, horizon, chunk):
        gram += x.T @ x
        moment += x.T @ y
    penalty = np.full(window + 1, ridge)
    penalty[-1] = 0.0  # the bias is free
    weights = np.asarray(np.linalg.solve(gram + np.diag(penalty), moment), dtype=np.float64)

    square = np.zeros((horizon, rows.shape[1]))
    for x, y in _training_blocks(rows, window, horizon, chunk):
        error = (y - x @ weights).reshape(-1, rows.shape[1], horizon)
        square += (error**2).sum(axis=0).T
    return LinearForecaster(weights, np.sqrt(square / n_windows))


def _training_blocks(
    rows: Array, window: int, horizon: int, chunk: int
) -> Iterator[tuple[Array, Array]]:
    """Yield (inputs with a one appended, targets), both relative to the last input value."""
    filled = np.column_stack([interpolate_gaps(column) for column in rows.T])
    targets = np.lib.stride_tricks.sliding_window_view(filled, horizon, axis=0)  # (., F, H)
    origins = np.arange(window, len(rows) - horizon + 1)
    for block in np.array_split(origins, -(-len(origins) // chunk)):
        x = history_windows(rows, block, window).transpose(0, 2, 1).reshape(-1, window)
        y = targets[block].reshape(-1, horizon)
        last = x[:, -1:]
        yield np.concatenate([x - last, np.ones_like(last)], axis=1), y - last
