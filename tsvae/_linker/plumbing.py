"""Between the linker's methods and what runs below: state, reading of data, file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from tsvae._linker.evidence import Encoded
from tsvae._linker.fit_file import pack, unpack
from tsvae._linker.gaps import share_known
from tsvae._linker.linking import LinkerFit
from tsvae._linker.pairs import Problem
from tsvae._linker.translator import SideName, other_side
from tsvae._records.alignment import check_labels, record_labels
from tsvae._records.signals import SignalReader, Signals
from tsvae.base import TorchEstimator
from tsvae.panel import RecordIndex, match_records, read_records, write_records

__all__ = ["LinkerPlumbing", "Seen"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_COLUMN = "__column__"  # dim of the only column of a DataArray along the records


@dataclass(frozen=True, eq=False)
class Seen:
    """Records of one side in model units, and what the model makes of them.

    Attributes
    ----------
    signals : Signals
    values : ndarray of shape (N, W, F)
    posterior : ndarray of shape (N, 2, n_latent)
    known : ndarray of shape (N,)
        Share of each record's entries.
    """

    signals: Signals
    values: Array
    posterior: Array
    known: Array

    @property
    def encoded(self) -> Encoded:
        """The records as evidence."""
        return Encoded(self.values, self.signals.mask, self.posterior)

    @property
    def labels(self) -> pd.Index | None:
        """Labels of the records."""
        return record_labels(self.signals.index)

    def __len__(self) -> int:
        return len(self.values)


class LinkerPlumbing(TorchEstimator):
    """The fitted state, and the readers of data that are compared with it."""

    # Parameters of the linker that are used here.
    time: Any
    series: Any
    freq: Any
    latent: str
    _y_form: str  # what predict makes of one column of y

    # -- the fitted state --------------------------------------------------------------------

    def _fitted(self) -> LinkerFit:
        check_is_fitted(self, "model_")
        fitted: LinkerFit = self._fit
        return fitted

    def _set_public(self, fitted: LinkerFit) -> None:
        index = fitted.scales["a"].index
        self.model_ = fitted.model
        self.training_log_ = fitted.joint
        self.pretraining_log_ = fitted.separate
        self.n_iter_ = len(fitted.joint.rows)
        self.n_features_in_ = index.n_features_in
        self.n_latent_ = int(fitted.model.a.n_latent)
        self.active_units_ = fitted.active
        names = index.feature_names
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    # -- reading -----------------------------------------------------------------------------

    def _reader(self) -> SignalReader:
        return SignalReader(None, self.time, self.series, self.freq, type(self).__name__)

    def _problem(self, X: Any, y: Any, masks: tuple[Any, Any], errors: tuple[Any, Any]) -> Problem:
        """Read training data."""
        x = self._reader().read(X, masks[0], "X")
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: give "
                "the other measurement of the same samples, row by row."
            )
        column, form = as_table(y)
        found = self._reader().read(column, as_table(masks[1])[0], "y")
        check_rows(found, x, "y")
        self._check_lengths(x.values.shape[1], found.values.shape[1])
        side = (("sigma", errors[0], x), ("y_sigma", errors[1], found))
        x_errors, y_errors = (self._errors(e, signals, name) for name, e, signals in side)
        return Problem(x, found, x_errors, y_errors, form)

    def _check_lengths(self, x_steps: int, y_steps: int) -> None:
        if self.latent == "map" and x_steps != y_steps:
            raise ValueError(
                "latent='map' is a code along a time that both sides share, but records of X have "
                f"{x_steps} steps and those of y {y_steps}. Interpolate one side to the axis of "
                "the other, or use latent='vector'."
            )

    def _errors(self, errors: Any, signals: Signals, name: str) -> Array | None:
        """Read error bars of a side."""
        if errors is None:
            return None
        index = signals.index
        assert isinstance(index, RecordIndex)
        if np.ndim(errors) == 0 and not hasattr(errors, "dims"):
            raise ValueError(
                f"{name} must hold one error bar for each value, got {errors!r}. Give an array of "
                "the shape of the data, for one error everywhere np.full(X.shape, error)."
            )
        table = as_table(errors)[0]
        found = read_records(table, name=name, like=index, allow_all_missing=True)
        if found.values.shape != signals.values.shape:
            raise ValueError(
                f"{name} must hold one error bar for each value: it has shape "
                f"{found.values.shape}, the data {signals.values.shape} (records, steps, "
                "variables)."
            )
        if found.index.kind == index.kind:
            match_records(found, index, type(self).__name__, name)
        check_labels(record_labels(found.index), record_labels(index), name)
        bad = signals.mask & ~(found.mask & (found.values > 0.0))
        if bad.any():
            row = int(np.argwhere(bad)[0][0])
            raise ValueError(
                f"{name} must be greater than 0 wherever a value is observed; row {row} has an "
                "error bar that is missing or not positive."
            )
        return found.values

    def _seen(self, data: Any, mask: Any, side: SideName) -> Seen:
        """Read other records of a side, and encode them."""
        fitted = self._fitted()
        scale, name = fitted.scales[side], "X" if side == "a" else "y"
        if side == "b":
            data, mask = as_table(data)[0], as_table(mask)[0]
        signals = self._reader().like(data, mask, scale.index, name)
        values = scale.forward(signals.values, signals.mask)
        translator = fitted.translator(self.get_params(deep=False))
        posterior = translator.posterior(values, signals.mask, side)
        return Seen(signals, values, posterior, share_known(signals.mask))

    # -- writing -----------------------------------------------------------------------------

    def _write(self, values: Array, side: SideName, labels: Any) -> Any:
        """Container of records (N, W, F) of a side, in the caller's units."""
        index = self._fitted().scales[side].index.new_records(len(values), labels)
        found = write_records(values, index)
        return found if side == "a" else from_table(found, self._y_form)

    # -- the file ----------------------------------------------------------------------------

    def _pack(self) -> tuple[dict[str, Any], dict[str, Any]]:
        header, tensors = pack(self._fitted())
        header["y_form"] = self._y_form
        return header, tensors

    def _unpack(self, header: dict[str, Any], tensors: dict[str, Any]) -> None:
        self._fit = unpack(header, tensors, self.get_params(deep=False))
        self._y_form = header["y_form"]
        self._set_public(self._fit)


def as_table(data: Any) -> tuple[Any, str]:
    """Bring one number per record to a table of one column; say what it was."""
    if isinstance(data, pd.Series):
        if data.name is None:
            return data.to_frame(0), "unnamed series"
        return data.to_frame(), "series"
    if data is None or isinstance(data, pd.DataFrame):
        return data, "table"
    if hasattr(data, "dims"):
        if getattr(data, "ndim", 2) != 1:
            return data, "table"
        return data.expand_dims(_COLUMN, axis=-1), "line"
    if not isinstance(data, np.ndarray):
        try:
            data = np.asarray(data)  # lists, pandas arrays, and what offers __array__ alone
        except ValueError:  # rows of unequal lengths: the reader says so
            return data, "table"
    return (data[:, None], "vector") if data.ndim == 1 else (data, "table")


def from_table(table: Any, form: str) -> Any:
    """Inverse of :func:`as_table`, for draws too."""
    if form in ("series", "unnamed series"):
        series = table.iloc[:, 0]
        return series if form == "series" else series.rename(None)
    if form == "line":
        return table.isel({_COLUMN: 0}, drop=True)
    return table[..., 0] if form == "vector" else table


def check_rows(found: Signals, x: Signals, name: str) -> None:
    """Check that a side has the rows of X.

    Raises
    ------
    ValueError
        If the number of rows or their labels differ.
    """
    if len(found.values) != len(x.values):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: "
            f"{[len(x.values), len(found.values)]}. X and {name} hold the same samples row by row; "
            "a sample without one of the measurements has a row of NaN there."
        )
    check_labels(record_labels(found.index), record_labels(x.index), name)


def direction(inverse: bool) -> tuple[SideName, SideName]:
    """Return the side that is given and the side that is wanted."""
    given: SideName = "b" if inverse else "a"
    return given, other_side(given)
