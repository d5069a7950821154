"""Methods that look inside the data: filled gaps, latent states, densities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import TransformerMixin

from tsvae._forecaster.plumbing import ForecasterPlumbing
from tsvae.estimation.checking import check_levels
from tsvae.estimation.forecasting import continue_history, latent_rows
from tsvae.estimation.reading import Problem
from tsvae.estimation.structured import StructuredFit
from tsvae.panel import concat, write, write_rows

__all__ = ["InsideMixin", "LatentDynamics"]


class LatentDynamics(NamedTuple):
    """Smoothed latent states and the modes of their transition.

    Attributes
    ----------
    mean, variance : ndarray (T, L)
        Of the first series.
    eigenvalues : complex ndarray (D,)
        Of the transition matrix.
    times : array-like (T,)
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    eigenvalues: NDArray[np.complex128]
    times: Any


# TransformerMixin is a base here, not of the forecaster alone: scikit-learn's set_output wraps
# ``transform`` only in the class that defines it.
class InsideMixin(TransformerMixin, ForecasterPlumbing):
    """Smoothed values, latent states and densities of given rows."""

    def impute(self, X: Any, *, mask: Any = None) -> Any:
        """Fill missing entries with their smoothed means; observed entries stay as they are.

        Parameters
        ----------
        X : same kind as in fit
            After ``fit(df)``.
        mask : optional
            True = observed.

        Returns
        -------
        same kind of container
        """
        panel = self._inside(X, mask, "impute")
        filled = self._engine().fill(panel).mean()
        return write(np.where(panel.mask, panel.values, filled), panel.index)

    def impute_quantiles(
        self, X: Any, *, quantiles: Sequence[float] = (0.1, 0.5, 0.9), mask: Any = None
    ) -> Any:
        """Quantiles of every entry; those of an observed entry are its value.

        Parameters
        ----------
        X : same kind as in fit
        quantiles : sequence of float, default=(0.1, 0.5, 0.9)
        mask : optional

        Returns
        -------
        same kind of container
            Columns (variable, quantile).
        """
        levels = check_levels(quantiles)
        panel = self._inside(X, mask, "impute_quantiles")
        found = self._engine().fill(panel).quantiles(levels)
        found = np.where(panel.mask[..., None], panel.values[..., None], found)
        return write(found, panel.index, levels=[("quantile", levels.tolist())])

    def transform(self, X: Any, *, mask: Any = None) -> Any:
        """Smoothed latent means, one row per row of X.

        Parameters
        ----------
        X : same kind as in fit
            After ``fit(X, y)``: covariates; latents of the rows inside the training range are
            smoothed, later ones forecast.
        mask : optional

        Returns
        -------
        same kind of container
            Columns as :meth:`get_feature_names_out`.
        """
        fitted = self._fitted()
        names = self.get_feature_names_out().tolist()
        if fitted.covariates is not None:
            return self._transform_rows(fitted, X, names)
        panel = self._inside(X, mask, "transform")
        means = self._engine().latent_means(panel, None)
        return write(means, panel.index, variables=names)

    def _transform_rows(self, fitted: StructuredFit, X: Any, names: list[str]) -> Any:
        assert fitted.covariates is not None
        rows = self._reader().rows(X, fitted.covariates)
        latent = latent_rows(self._engine(), fitted.history, rows)
        return write(latent, fitted.target.with_rows(rows.index), variables=names)

    def fit_transform(self, X: Any, y: Any = None, *, mask: Any = None) -> Any:
        """Fit, then :meth:`transform` the same rows."""
        if y is None:
            return self.fit(X, mask=mask).transform(X, mask=mask)
        return self.fit(X, y, mask=mask).transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the latent columns.

        Parameters
        ----------
        input_features : ignored
            For scikit-learn's interface.

        Returns
        -------
        ndarray of str
            ``z0, z1, ...``; with the variable's name in front if channels are independent.
        """
        fitted = self._fitted()
        latent = [f"z{d}" for d in range(fitted.model.latent_dim)]
        if not fitted.model.channelwise or fitted.model.n_features == 1:
            return np.array(latent, dtype=object)
        names = [f"{v}_{z}" for v in fitted.target.variables for z in latent]
        return np.array(names, dtype=object)

    def score_samples(self, X: Any, y: Any = None, *, mask: Any = None) -> Any:
        """Log predictive density of each row given the rows before it.

        Parameters
        ----------
        X : same kind as in fit
            Rows that continue the training stamps are a continuation, others a new series.
        y : optional
            Target, if the fit had one.
        mask : optional

        Returns
        -------
        Series, DataArray or array
            Nats, in original units; 0 for rows without observed entries.
        """
        fitted = self._fitted()
        if fitted.covariates is None:
            self._refuse_target(y, "score_samples")
            problem = Problem(self._inside(X, mask, "score_samples"), None)
        else:
            problem = self._pair(X, y, mask)
        panel = problem.target
        past = fitted.history
        joined = continue_history(past.target, panel)
        if joined is None:
            density = self._engine().log_density(panel, problem.covariates)
            return write_rows(density, panel.index, "log_density")
        known = problem.covariates
        if past.covariates is not None and known is not None:
            known = concat(past.covariates, known)
        density = self._engine().log_density(joined, known)
        series, step = past.target.index.positions(panel.index)
        own = np.zeros((panel.n_series, panel.n_steps))
        own[panel.index.row_positions()] = density[series, step]
        return write_rows(own, panel.index, "log_density")

    def latent_dynamics(self, X: Any = None) -> LatentDynamics:
        """Smoothed latent states of the first series and the transition's eigenvalues.

        Parameters
        ----------
        X : same kind as in fit, optional
            The kept training rows by default.

        Returns
        -------
        LatentDynamics
        """
        fitted = self._fitted()
        problem = fitted.history
        if X is not None:
            problem = Problem(self._inside(X, None, "latent_dynamics"), None)
        states = self._engine().latents(*problem)
        panel = problem.target
        matrix = fitted.model.dynamics.plug_in().transition_matrix.double().numpy()
        stamps = panel.index.clock.stamps(panel.index.starts[0] + np.arange(panel.lengths[0]))
        return LatentDynamics(
            states.mean[0], states.variance[0], np.linalg.eigvals(matrix).ravel(), stamps
        )
