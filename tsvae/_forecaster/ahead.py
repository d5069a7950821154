"""Methods that look ahead: means, quantiles, intervals and sample paths of forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsvae._forecaster.plumbing import ForecasterPlumbing
from tsvae.estimation.checking import check_coverages, check_levels
from tsvae.estimation.forecasting import (
    RowForecast,
    StepForecast,
    as_pair,
    continue_history,
    forecast_rows,
    forecast_steps,
    history_windows,
)
from tsvae.estimation.origins import forecast_origins
from tsvae.estimation.reading import Problem
from tsvae.estimation.structured import StructuredFit
from tsvae.panel import Panel, write, write_samples
from tsvae.panel.index import check_horizon

__all__ = ["AheadMixin"]


class AheadMixin(ForecasterPlumbing):
    """Forecasts, in the ``fit(df)`` form and beside known covariates."""

    def predict(
        self, X: Any = None, *, horizon: int | None = None, history: Any = None, mask: Any = None
    ) -> Any:
        """Forecast means.

        Parameters
        ----------
        X : optional
            After ``fit(df)``: a history to continue; None: the training data. After ``fit(X, y)``:
            known covariates, one row per wanted step; rows inside the training range get smoothed
            values, later ones forecasts; rows without stamps follow the training data.
        horizon : int, optional
            Steps ahead (``fit(df)`` form); as in fit by default.
        history : tuple (X, y), optional
            Another history to continue (``fit(X, y)`` form).
        mask : optional
            True = observed; of the history given.

        Returns
        -------
        same kind of container as the target

        Raises
        ------
        NotFittedError, ValueError, TypeError
        """
        found = self._predictive(X, horizon, history, mask)
        return write(found.mean(), found.index)

    def predict_quantiles(
        self,
        X: Any = None,
        *,
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        horizon: int | None = None,
        history: Any = None,
        mask: Any = None,
    ) -> Any:
        """Forecast quantiles: frames with columns (variable, quantile), arrays with a last axis.

        Parameters
        ----------
        X, horizon, history, mask : optional
            As in :meth:`predict`.
        quantiles : sequence of float, default=(0.1, 0.5, 0.9)

        Returns
        -------
        same kind of container as the target
        """
        levels = check_levels(quantiles)
        found = self._predictive(X, horizon, history, mask)
        return write(found.quantiles(levels), found.index, levels=[("quantile", levels.tolist())])

    def predict_interval(
        self,
        X: Any = None,
        *,
        coverage: float | Sequence[float] = 0.9,
        horizon: int | None = None,
        history: Any = None,
        mask: Any = None,
    ) -> Any:
        """Central forecast intervals: columns (variable, coverage, lower / upper).

        Parameters
        ----------
        X, horizon, history, mask : optional
            As in :meth:`predict`.
        coverage : float or sequence of float, default=0.9

        Returns
        -------
        same kind of container as the target
        """
        wanted = check_coverages(coverage)
        found = self._predictive(X, horizon, history, mask)
        tails = np.stack([0.5 - wanted / 2, 0.5 + wanted / 2], axis=1)
        bounds = found.quantiles(tails.ravel())
        bounds = bounds.reshape(*bounds.shape[:-1], len(wanted), 2)
        levels = [("coverage", wanted.tolist()), ("bound", ["lower", "upper"])]
        return write(bounds, found.index, levels=levels)

    def sample(
        self,
        n_samples: int = 100,
        X: Any = None,
        *,
        horizon: int | None = None,
        history: Any = None,
        mask: Any = None,
        random_state: Any = 0,
    ) -> Any:
        """Joint sample paths of the forecast.

        Steps of a path belong together; so do its variables if channels are joint. Independent
        channels vary independently of each other.

        Parameters
        ----------
        n_samples : int, default=100
        X, horizon, history, mask : optional
            As in :meth:`predict`; covariate rows inside the training range cannot be sampled.
        random_state : int or RandomState, default=0

        Returns
        -------
        frame with row levels (sample, [series], time), DataArray with dim ``sample``, or array
        """
        n_samples = check_horizon(n_samples, "n_samples")
        seed = self._draw_seed(random_state)
        found = self._predictive(X, horizon, history, mask, only_ahead=True)
        histories = history_windows(self._engine(), found.problem, found.horizon)
        paths = self._engine().sample(histories, found.horizon, n_samples, seed)
        return write_samples(found.place_paths(paths), found.index)

    def _predictive(
        self, X: Any, horizon: Any, history: Any, mask: Any, *, only_ahead: bool = False
    ) -> StepForecast | RowForecast:
        fitted = self._fitted()
        if fitted.covariates is None:
            return self._steps_ahead(fitted, X, horizon, history, mask)
        if horizon is not None:
            raise ValueError(
                "horizon is given by the rows of X after fit(X, y); leave it out, and give one row "
                "of covariates per wanted step."
            )
        if X is None:
            raise ValueError(
                "predict needs X after fit(X, y): the covariates of the wanted steps, one row each."
            )
        if mask is not None and history is None:
            raise ValueError(
                "mask belongs to the target of history=(X, y), which was not given; leave it out."
            )
        past = fitted.history if history is None else self._pair(*as_pair(history), mask)
        rows = self._reader().rows(X, fitted.covariates)
        layout = fitted.target.with_rows(rows.index)
        return forecast_rows(self._engine(), past, rows, layout, only_ahead=only_ahead)

    def _steps_ahead(
        self, fitted: StructuredFit, X: Any, horizon: Any, history: Any, mask: Any
    ) -> StepForecast:
        if history is not None:
            raise ValueError(
                "history= belongs to fit(X, y); after fit(df) give the history itself as X."
            )
        steps = check_horizon(self.horizon if horizon is None else horizon)
        problem = fitted.history
        if X is None and mask is not None:
            raise ValueError("mask belongs to a history X, which was not given; leave it out.")
        if X is not None:
            panel = self._history(X, mask)
            joined = continue_history(problem.target, panel)
            problem = Problem(panel if joined is None else joined, None)
        return forecast_steps(self._engine(), problem, steps)

    def _forecast_origins(
        self,
        panel: Panel,
        origins: NDArray[np.int64],
        horizon: int,
        quantiles: Sequence[float] | None = None,
    ) -> NDArray[np.float64]:
        """Batched forecasts of back-tests: ``(O, B, H, F)`` means or ``(O, B, H, F, Q)``."""
        found = forecast_origins(self._engine(), panel, origins, horizon)
        return found.mean() if quantiles is None else found.quantiles(check_levels(quantiles))

    def _forecast_origins_at_once(
        self,
        panel: Panel,
        origins: NDArray[np.int64],
        horizon: int,
        quantiles: Sequence[float],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means and quantiles of :meth:`_forecast_origins` from one pass."""
        found = forecast_origins(self._engine(), panel, origins, horizon)
        return found.mean(), found.quantiles(check_levels(quantiles))
