"""Panel: values, mask and index of one or many series on an even time grid."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .index import PanelIndex
from .windows import gather


@dataclass(frozen=True, eq=False)
class Panel:
    """One or many series on an even time grid.

    Attributes
    ----------
    values : ndarray of shape (B, T, F)
        float64, 0.0 where missing. Row 0 of each series is its first stamp; shorter series are
        padded at the end.
    mask : bool ndarray of shape (B, T, F)
        True = observed; padding is False.
    index : PanelIndex
        The way back to the caller's container.

    Examples
    --------
    >>> from tsvae.panel import read_panel
    >>> panel = read_panel(np.array([[1.0], [np.nan], [3.0]]))
    >>> panel.values[0, :, 0], panel.mask[0, :, 0]
    (array([1., 0., 3.]), array([ True, False,  True]))
    """

    values: np.ndarray
    mask: np.ndarray
    index: PanelIndex

    @property
    def lengths(self) -> np.ndarray:
        """Grid rows of each series, shape (B,)."""
        return self.index.lengths

    @property
    def variables(self) -> list[Any]:
        """Labels of the variables, length F."""
        return self.index.variables

    @property
    def feature_names(self) -> np.ndarray | None:
        """Variable labels as object array if all of them are strings, else None."""
        return feature_names(self.index)

    @property
    def n_series(self) -> int:
        """Number of series, B."""
        return self.values.shape[0]

    @property
    def n_steps(self) -> int:
        """Number of grid rows, T."""
        return self.values.shape[1]

    @property
    def n_features(self) -> int:
        """Number of variables, F."""
        return self.values.shape[2]

    def slice_time(
        self, start: int | np.ndarray | None = None, stop: int | np.ndarray | None = None
    ) -> Panel:
        """Return grid rows ``start`` to ``stop`` (exclusive) of every series.

        Parameters
        ----------
        start, stop : int or ndarray of shape (B,), optional
            Grid rows; negative ones count from each series' own end.

        Returns
        -------
        Panel
            Left-aligned copy. A series without rows in the slice stays with length 0.

        Examples
        --------
        >>> from tsvae.panel import read_panel
        >>> panel = read_panel(np.arange(6.0).reshape(6, 1))
        >>> panel.slice_time(-2).values.ravel()
        array([4., 5.])
        """
        begin = self._bound(0 if start is None else start)
        end = self._bound(self.lengths if stop is None else stop)
        lengths = np.maximum(end - begin, 0)
        index = self.index
        step, series = index.row_step, index.row_series
        keep = (step >= begin[series]) & (step < end[series])
        part = index.select_rows(keep, index.starts + begin, lengths)
        return self._gather(part, begin, lengths)

    def _bound(self, bound: int | np.ndarray) -> np.ndarray:
        """Return slice bounds per series within [0, length]."""
        bound = np.broadcast_to(np.asarray(bound, dtype=np.int64), (self.n_series,))
        bound = np.where(bound < 0, bound + self.lengths, bound)
        return np.clip(bound, 0, self.lengths)

    def _gather(self, index: PanelIndex, begin: np.ndarray, lengths: np.ndarray) -> Panel:
        n_steps = int(lengths.max(initial=0))
        if (begin == begin[0]).all():
            part = slice(int(begin[0]), int(begin[0]) + n_steps)
            values, mask = self.values[:, part].copy(), self.mask[:, part].copy()
        else:
            series = np.arange(self.n_series)
            values = gather(self.values, series, begin, n_steps)
            mask = gather(self.mask, series, begin, n_steps)
        outside = np.arange(n_steps) >= lengths[:, None]
        if outside.any():
            values[outside], mask[outside] = 0.0, False
        return Panel(values, mask, index)

    def tail(self, n_steps: int) -> Panel:
        """Return the last ``n_steps`` grid rows of every series (all of shorter ones)."""
        return self.slice_time(np.maximum(self.lengths - n_steps, 0))

    def describe(self) -> str:
        """Return a one-line summary for messages."""
        return self.index.describe()


def feature_names(index: PanelIndex) -> np.ndarray | None:
    """Return the variable labels of labelled containers if all are strings, else None.

    Parameters
    ----------
    index : PanelIndex

    Returns
    -------
    object ndarray of shape (F,) or None
    """
    labels = index.variables
    if not index.layout.labelled or not all(isinstance(label, str) for label in labels):
        return None
    return np.array(labels, dtype=object)


def match_variables(
    panel: Panel,
    expected: PanelIndex | Sequence[Hashable] | int,
    estimator_name: str = "the estimator",
    name: str = "X",
) -> None:
    """Check that data has the variables seen in fit, in scikit-learn's words.

    Parameters
    ----------
    panel : Panel
        The new data.
    expected : PanelIndex, sequence of labels or int
        The variables of fit; labels count only if all are strings (or both sides are labelled
        containers); an int is a number of variables without labels.
    estimator_name : str
        How messages call the estimator.
    name : str
        How messages call the data.

    Raises
    ------
    ValueError
        If the number, the names or the order of variables differ.

    Warns
    -----
    UserWarning
        If only one side has names.
    """
    fitted, seen, both_labelled = _labels_of(expected, panel)
    named = feature_names(panel.index) is not None
    fitted_named = bool(fitted) and all(isinstance(label, str) for label in fitted or [])
    if isinstance(expected, PanelIndex):
        fitted_named = feature_names(expected) is not None
    if named != fitted_named:
        warn_names(named, estimator_name, name)
    elif fitted is not None and (named or both_labelled):
        compare_labels(panel.variables, fitted)
    if panel.n_features != seen:
        raise ValueError(
            f"{name} has {panel.n_features} features, but {estimator_name} is expecting {seen} "
            "features as input."
        )


def _labels_of(
    expected: PanelIndex | Sequence[Hashable] | int, panel: Panel
) -> tuple[list[Any] | None, int, bool]:
    """Return labels, number, and whether both sides come from labelled containers."""
    if isinstance(expected, PanelIndex):
        labels = expected.variables
        return labels, len(labels), expected.layout.labelled and panel.index.layout.labelled
    if isinstance(expected, (int, np.integer)):
        return None, int(expected), False
    return list(expected), len(expected), False


def warn_names(named: bool, estimator_name: str, name: str) -> None:
    """Warn, two calls up, that only one side has feature names."""
    text = f"{name} does not have valid feature names, but {estimator_name} was fitted with feature"
    if named:
        text = f"{name} has feature names, but {estimator_name} was fitted without feature"
    warnings.warn(f"{text} names", UserWarning, stacklevel=3)


def compare_labels(found: list[Any], fitted: list[Any]) -> None:
    """Raise where labels or their order differ from those of fit."""
    if found == fitted:
        return
    message = "The feature names should match those that were passed during fit.\n"
    unexpected = [label for label in found if label not in set(fitted)]
    missing = [label for label in fitted if label not in set(found)]
    if unexpected:
        message += "Feature names unseen at fit time:\n" + _bullets(unexpected)
    if missing:
        message += "Feature names seen at fit time, yet now missing:\n" + _bullets(missing)
    if not unexpected and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(message)


def _bullets(labels: list[Any], limit: int = 5) -> str:
    text = "".join(f"- {label}\n" for label in sorted(labels, key=str)[:limit])
    return text + ("- ...\n" if len(labels) > limit else "")
