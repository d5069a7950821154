"""Between the denoiser's methods and what runs below: state, reading of data, file."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from tsvae._denoiser.conditions import ConditionCoder, fit_conditions
from tsvae._denoiser.denoising import DenoiserFit, Problem
from tsvae._denoiser.fit_file import pack, unpack
from tsvae._records.alignment import (
    check_labels,
    check_same_place,
    dressed,
    record_labels,
    same_shape,
)
from tsvae._records.signals import SignalReader, Signals, Windows
from tsvae.base import TorchEstimator

__all__ = ["DenoiserPlumbing", "find_target"]

Array = NDArray[np.float64]


class DenoiserPlumbing(TorchEstimator):
    """The fitted state, and the readers of data that are compared with it."""

    # Parameters of the denoiser that are used here and in the groups of methods.
    model: str
    architecture: Any
    window: int | None
    output: str
    time: Any
    series: Any
    freq: Any
    n_importance_samples: int

    # -- the fitted state --------------------------------------------------------------------

    def _fitted(self) -> DenoiserFit:
        check_is_fitted(self, "model_")
        fitted: DenoiserFit = self._fit
        return fitted

    def _set_public(self, fitted: DenoiserFit, n_features_in: int, names: Any) -> None:
        self.model_ = fitted.model
        self.training_log_ = fitted.log
        self.n_iter_ = len(fitted.log.rows)
        self.n_features_in_ = n_features_in
        self.n_latent_ = int(fitted.model.n_latent)
        self.active_units_ = fitted.health.active_units
        self.kl_per_dimension_ = fitted.health.kl_per_dimension
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    # -- reading -----------------------------------------------------------------------------

    def _reader(self) -> SignalReader:
        return SignalReader(self.window, self.time, self.series, self.freq, type(self).__name__)

    def _problem(self, X: Any, y: Any, clean: Any, condition: Any, mask: Any) -> Problem:
        """Read training data."""
        reader = self._reader()
        signals = reader.read(X, mask)
        target = None
        name, found = find_target(X, y, clean)
        if found is not None:
            target = self._clean(dressed(found, X, name), signals, name)
        conditions = self._fit_conditions(condition, signals)
        given = None
        if conditions is not None:
            given = conditions.transform(condition, len(signals.values))
        return Problem(signals, target, conditions, given)

    def _clean(self, clean: Any, signals: Signals, name: str) -> Signals:
        found = self._reader().like(clean, None, signals.index, name)
        check_same_place(found, signals, name)
        if not found.mask.any():
            raise ValueError(f"{name} holds no observed value; leave it out.")
        return found

    def _fit_conditions(self, condition: Any, signals: Signals) -> ConditionCoder | None:
        if self.model == "conditional":
            if condition is None:
                raise ValueError(
                    "model='conditional' needs condition=, one row for each record; use "
                    "model='vae' without conditions."
                )
            _check_rows(condition, signals)
            return fit_conditions(condition, len(signals.values))
        if condition is not None:
            raise ValueError(
                f"condition= was given, but model={self.model!r} does not use it; set "
                "model='conditional' or leave it out."
            )
        return None

    def _signals(self, X: Any, mask: Any) -> Signals:
        """Read other data of the fitted features."""
        fitted = self._fitted()
        return replace(self._reader(), window=fitted.window).like(X, mask, fitted.index)

    def _given_for(self, condition: Any, signals: Signals) -> Array | None:
        """Conditions of the records that were given."""
        if self._fitted().conditions is not None:
            _check_rows(condition, signals)
        return self._given(condition, len(signals.values))

    def _given(self, condition: Any, n_records: int) -> Array | None:
        """Conditions of new records."""
        coder = self._fitted().conditions
        if coder is None:
            if condition is not None:
                raise ValueError(
                    f"condition= was given, but model={self.model!r} was fitted without; leave it "
                    "out."
                )
            return None
        if condition is None:
            raise ValueError(
                f"condition= is needed: the model was fitted with conditions "
                f"{[column['name'] for column in coder.columns]}; give one row for each of the "
                f"{n_records} records."
            )
        return coder.transform(condition, n_records)

    def _scaled(self, windows: Windows) -> Array:
        """Windows in model units."""
        return self._fitted().scaler.forward(windows.values, windows.mask)

    def _own_networks(self) -> Any:
        """Copy the caller's networks: fit must not change parameters."""
        if isinstance(self.architecture, str):
            return None
        return tuple(copy.deepcopy(part) for part in self.architecture)

    # -- the file ----------------------------------------------------------------------------

    def _pack(self) -> tuple[dict[str, Any], dict[str, Any]]:
        header, tensors = pack(self._fitted())
        names = getattr(self, "feature_names_in_", None)
        header["n_features_in"] = int(self.n_features_in_)
        header["feature_names_in"] = None if names is None else list(names)
        return header, tensors

    def _unpack(self, header: dict[str, Any], tensors: dict[str, Any]) -> None:
        names = header["feature_names_in"]
        self._fit = unpack(header, tensors)
        labels = None if names is None else np.array(names, dtype=object)
        self._set_public(self._fit, int(header["n_features_in"]), labels)


def find_target(X: Any, y: Any, clean: Any) -> tuple[str, Any]:
    """Name of the clean target and what it is; None without one."""
    if clean is None and y is not None and same_shape(y, X):
        return "y", y
    return "clean", clean


def _check_rows(condition: Any, signals: Signals) -> None:
    labels = condition.index if isinstance(condition, pd.DataFrame | pd.Series) else None
    check_labels(labels, record_labels(signals.index), "condition")
