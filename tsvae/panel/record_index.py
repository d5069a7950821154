"""RecordIndex: what kind of container records came from, and how to go back; Records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from .index import PanelIndex
    from .layout_xarray import XarrayLayout


class RecordIndex(ABC):
    """Everything needed to return from arrays (B, T, F) to the caller's container of records.

    One subclass for each kind of container; made by :func:`tsvae.panel.read_records`.
    """

    kind: ClassVar[str] = ""
    noun: ClassVar[str] = ""

    @property
    @abstractmethod
    def n_records(self) -> int:
        """Number of records, B."""

    @property
    @abstractmethod
    def n_steps(self) -> int:
        """Length of the records (padding included), T."""

    @property
    @abstractmethod
    def variables(self) -> list[Any]:
        """Labels of the variables, length F."""

    @property
    def n_features(self) -> int:
        """Number of variables, F."""
        return len(self.variables)

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each record without padding, shape (B,)."""
        return np.full(self.n_records, self.n_steps, dtype=np.int64)

    @property
    def record_labels(self) -> pd.Index | None:
        """Labels of the records; None where they have none."""
        return None

    @property
    def axis(self) -> pd.Index | None:
        """Labels of the T positions that all records share (q, wavelengths, column names)."""
        return None

    @property
    def axis_values(self) -> np.ndarray | None:
        """The axis as floats, shape (T,); None where its labels are not numbers."""
        axis = self.axis
        if axis is None or not pd.api.types.is_any_real_numeric_dtype(axis.dtype):
            return None
        return axis.to_numpy(dtype=np.float64)

    @property
    def variable_labels(self) -> list[Any] | None:
        """Labels of the variables that must match between calls; None without labels."""
        return None

    @property
    def is_table(self) -> bool:
        """Whether one row holds one record: scikit-learn's features are the columns then."""
        return False

    @property
    def n_features_in(self) -> int:
        """scikit-learn's number of features: columns of a table, else variables."""
        return self.n_steps * self.n_features if self.is_table else self.n_features

    @property
    def feature_names(self) -> np.ndarray | None:
        """Labels of scikit-learn's features as object array if all are strings, else None."""
        return None

    @property
    def xarray_layout(self) -> XarrayLayout | None:
        """Dims, coords and attrs of an xarray object; None for other containers."""
        return None

    def reading_index(self) -> PanelIndex | None:
        """Return the index in whose manner :func:`read_panel` reads other records."""
        return None

    @abstractmethod
    def write(self, values: np.ndarray) -> Any:
        """Return the container of values (B, T, F)."""

    @abstractmethod
    def write_samples(self, values: np.ndarray) -> Any:
        """Return the container of draws (S, B, T, F)."""

    @abstractmethod
    def write_codes(self, values: np.ndarray, names: Sequence[Any], level: str) -> Any:
        """Return the 2-D container of (B, D)."""

    @abstractmethod
    def write_scores(self, values: np.ndarray, name: str | None) -> Any:
        """Return the 1-D container of (B,)."""

    @abstractmethod
    def write_steps(self, values: np.ndarray, name: str | None) -> Any:
        """Return the container of one number for each step of each record (B, T)."""

    @abstractmethod
    def _renew(self, n: int, labels: pd.Index | None) -> RecordIndex:
        """Return the index of n other records."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the index as plain JSON values (see :meth:`from_dict`)."""

    def new_records(self, n: int, labels: Any = None) -> RecordIndex:
        """Return the index of ``n`` other records: generated ones, decoded ones.

        Parameters
        ----------
        n : int
            Number of records; 0 leaves a template without the labels of its records.
        labels : array-like of shape (n,), optional
            Labels of the records where the container has them; 0, 1, ... without.

        Returns
        -------
        RecordIndex
            The same kind of container, axis and variables.

        Raises
        ------
        TypeError, ValueError
            If n is not an integer >= 0, or the number of labels differs from it.

        Examples
        --------
        >>> from tsvae.panel import read_records, write_records
        >>> frame = pd.DataFrame([[1.0, 2.0]], columns=[0.1, 0.2], index=["a"])
        >>> index = read_records(frame).index.new_records(2)
        >>> write_records(np.zeros((2, 2, 1)), index)
           0.1  0.2
        0  0.0  0.0
        1  0.0  0.0
        """
        if isinstance(n, (bool, np.bool_)) or not isinstance(n, Integral):
            raise TypeError(f"n must be a number of records, got {n!r}.")
        if n < 0:
            raise ValueError(f"n must be at least 0, got {n}.")
        if labels is not None:
            labels = labels if isinstance(labels, pd.Index) else pd.Index(labels)
            if len(labels) != n:
                raise ValueError(f"{len(labels)} labels were given for {n} records.")
        return self._renew(int(n), labels)

    def describe(self) -> str:
        """Return a one-line summary for messages.

        Examples
        --------
        >>> from tsvae.panel import read_records
        >>> read_records(np.zeros((5, 2))).index.describe()
        'array of 5 records x 2 steps x 1 variables'
        """
        sizes = f"{self.n_records} records x {self.n_steps} steps x {self.n_features} variables"
        return f"{self.noun} of {sizes}"

    def __repr__(self) -> str:
        return f"RecordIndex({self.describe()})"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RecordIndex:
        """Rebuild an index from :meth:`to_dict`.

        Raises
        ------
        ValueError
            If the kind of container is unknown or a field is lacking.
        """
        kind = data.get("kind")
        try:
            if kind == "panel":
                from .record_panels import PanelRecordIndex

                return PanelRecordIndex.restore(data)
            if kind == "xarray":
                from .record_xarray import XarrayRecordIndex

                return XarrayRecordIndex.restore(data)
            if kind in ("array", "table"):
                from .record_tables import ArrayRecordIndex, TableRecordIndex

                tables: dict[str, Any] = {"array": ArrayRecordIndex, "table": TableRecordIndex}
                return tables[kind].restore(data)
        except KeyError as error:
            raise ValueError(f"A saved index lacks {error}; the file is damaged.") from error
        raise ValueError(f"Unknown kind of records {kind!r} in a saved index.")


@dataclass(frozen=True, eq=False)
class Records:
    """Records of one length: signals, spectra, profiles.

    Attributes
    ----------
    values : ndarray of shape (B, T, F)
        float64, C-ordered, 0.0 where missing.
    mask : bool ndarray of shape (B, T, F)
        True = observed; padding is False.
    index : RecordIndex
        The way back to the caller's container.

    Examples
    --------
    >>> from tsvae.panel import read_records
    >>> records = read_records([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]])
    >>> records.values.shape, records.mask[0, :, 0], records.n_features_in
    ((2, 3, 1), array([ True, False,  True]), 3)
    """

    values: np.ndarray
    mask: np.ndarray
    index: RecordIndex

    @property
    def n_records(self) -> int:
        """Number of records, B."""
        return self.values.shape[0]

    @property
    def n_steps(self) -> int:
        """Length of the records (padding included), T."""
        return self.values.shape[1]

    @property
    def n_features(self) -> int:
        """Number of variables, F."""
        return self.values.shape[2]

    @property
    def n_features_in(self) -> int:
        """scikit-learn's number of features: columns of a table, else variables."""
        return self.index.n_features_in

    @property
    def feature_names(self) -> np.ndarray | None:
        """Labels of scikit-learn's features as object array if all are strings, else None."""
        return self.index.feature_names

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each record without padding, shape (B,)."""
        return self.index.lengths

    @property
    def observed_records(self) -> np.ndarray:
        """Which records have an observed value, bool of shape (B,)."""
        return np.asarray(self.mask.any(axis=(1, 2)))

    def describe(self) -> str:
        """Return a one-line summary for messages."""
        return self.index.describe()


__all__ = ["RecordIndex", "Records"]
