"""Between the forecaster's methods and what runs below: state, reading of data, file."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted

from tsvae.base import TorchEstimator
from tsvae.estimation.checking import check_possible
from tsvae.estimation.engine import Engine
from tsvae.estimation.fit_file import pack_fit, unpack_fit
from tsvae.estimation.reading import Problem, Reader
from tsvae.estimation.structured import StructuredFit
from tsvae.panel import Panel, feature_names

__all__ = ["ForecasterPlumbing"]


class ForecasterPlumbing(TorchEstimator):
    """The fitted state, and the readers of data that are compared with it."""

    # Parameters of the forecaster that are used here and in the groups of methods.
    horizon: int
    time: Any
    series: Any
    freq: Any

    def _set_public(self, fitted: StructuredFit) -> None:
        self.model_ = fitted.model
        self.training_log_ = fitted.log
        index = fitted.target if fitted.covariates is None else fitted.covariates
        self.n_features_in_ = len(index.variables)
        self.n_iter_ = len(fitted.log.rows)
        names = feature_names(index)
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _fitted(self) -> StructuredFit:
        check_is_fitted(self, "model_")
        fitted: StructuredFit = self._fit
        return fitted

    def _engine(self) -> Engine:
        return self._fitted().engine(self.get_params(deep=False))

    def _reader(self) -> Reader:
        return Reader(self.time, self.series, self.freq, type(self).__name__)

    def _history(self, X: Any, mask: Any) -> Panel:
        fitted = self._fitted()
        panel = self._reader().history(X, mask, fitted.target)
        check_possible(panel, fitted.settings["likelihood"])
        return panel

    def _inside(self, X: Any, mask: Any, method: str) -> Panel:
        fitted = self._fitted()
        if fitted.covariates is not None:
            raise ValueError(
                f"{method} is for models fitted by fit(df); after fit(X, y) use predict(X), which "
                "gives smoothed values for rows inside the training range."
            )
        return self._history(X, mask)

    def _refuse_target(self, y: Any, method: str) -> None:
        if y is not None:
            raise ValueError(f"y was not part of fit(df); leave it out of {method}.")

    def _pair(self, X: Any, y: Any, mask: Any) -> Problem:
        fitted = self._fitted()
        assert fitted.covariates is not None
        if y is None:
            raise ValueError(
                "y is needed beside X: the model was fitted by fit(X, y). Give the target of the "
                "rows of X; NaN where it is unknown."
            )
        problem = self._reader().pair(X, y, mask, fitted.covariates, fitted.target)
        check_possible(problem.target, fitted.settings["likelihood"])
        return problem

    def _pack(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return pack_fit(self._fitted())

    def _unpack(self, header: dict[str, Any], tensors: dict[str, Any]) -> None:
        self._fit = unpack_fit(header, tensors)
        self._set_public(self._fit)
