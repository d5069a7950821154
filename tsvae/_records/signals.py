"""Reading what the user gives: records, or long series that are cut into windows.

Shapes: B series (records), T steps, F variables, W steps per window, N windows. Without
``window=`` a record is its own only window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsvae.panel import (
    PanelIndex,
    RecordIndex,
    WindowStarts,
    feature_names,
    gather,
    match_records,
    match_variables,
    read_panel,
    read_records,
    window_starts,
    write,
    write_codes,
    write_record_samples,
    write_records,
    write_rows,
    write_samples,
    write_scores,
    write_steps,
)

__all__ = ["SignalReader", "Signals", "Windows"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_HOPS_PER_WINDOW = 4  # overlapping windows that meet at each step


class Windows(NamedTuple):
    """Windows of signals.

    Attributes
    ----------
    values : ndarray of shape (N, W, F)
        0 where missing.
    mask : bool ndarray of shape (N, W, F)
    starts : WindowStarts
        Where each lies.
    """

    values: Array
    mask: Mask
    starts: WindowStarts


@dataclass(frozen=True, eq=False)
class Signals:
    """Signals in the caller's units, and the way back to the caller's container.

    Attributes
    ----------
    values : ndarray of shape (B, T, F)
        0 where missing.
    mask : bool ndarray of shape (B, T, F)
        True = observed.
    index : RecordIndex or PanelIndex
        Of records, or of series that are cut into windows.
    window : int or None
        W; None: records.
    """

    values: Array
    mask: Mask
    index: RecordIndex | PanelIndex
    window: int | None

    @property
    def steps(self) -> int:
        """W: steps of what the model sees at once."""
        return self.values.shape[1] if self.window is None else self.window

    def windows(self, overlap: bool, hops: int = _HOPS_PER_WINDOW) -> Windows:
        """Cut into windows; records are left whole.

        Parameters
        ----------
        overlap : bool
            Whether each step is in several windows, or (nearly) every one in one.
        hops : int, default=4
            How many windows meet at each step, if they overlap.
        """
        if self.window is None:
            n = len(self.values)
            starts = WindowStarts(np.arange(n), np.zeros(n, dtype=np.int64))
            return Windows(self.values, self.mask, starts)
        hop = max(1, self.window // hops) if overlap else self.window
        starts = window_starts(self.index.lengths, self.window, hop)
        values = gather(self.values, starts.series, starts.start, self.window)
        mask = gather(self.mask, starts.series, starts.start, self.window)
        inside = self.index.lengths[starts.series] - starts.start
        outside = np.arange(self.window) >= inside[:, None]
        values[outside], mask[outside] = 0.0, False
        return Windows(values, mask, starts)

    def blend(self, windows: Array, starts: WindowStarts, *, evenly: bool = False) -> Array:
        """Put windows (N, W, ...) back on the signals (B, T, ...).

        Where they overlap they are averaged, weighted to their middle or ``evenly``.
        """
        if self.window is None:
            return windows
        shape = (*self.values.shape[:2], *windows.shape[2:])
        total, weight = np.zeros(shape), np.zeros(self.values.shape[:2])
        bell = np.hanning(self.window + 2)[1:-1] + 1e-6
        if evenly:
            bell = np.ones_like(bell)
        n_steps = shape[1]
        for place, (series, start) in enumerate(zip(*starts, strict=True)):
            stop = min(start + self.window, n_steps)
            part = bell[: stop - start]
            shaped = part.reshape(-1, *[1] * (windows.ndim - 2))
            total[series, start:stop] += shaped * windows[place, : stop - start]
            weight[series, start:stop] += part
        weight[weight == 0.0] = 1.0
        return total / weight.reshape(*weight.shape, *[1] * (windows.ndim - 2))

    # -- the way back ------------------------------------------------------------------------

    def write(self, values: Array) -> Any:
        """Container of signals (B, T, F)."""
        if isinstance(self.index, RecordIndex):
            return write_records(values, self.index)
        return write(values, self.index)

    def write_samples(self, values: Array) -> Any:
        """Container of draws (S, B, T, F)."""
        if isinstance(self.index, RecordIndex):
            return write_record_samples(values, self.index)
        return write_samples(values, self.index)

    def write_steps(self, values: Array, name: str) -> Any:
        """Container of one number for each step (B, T)."""
        if isinstance(self.index, RecordIndex):
            return write_steps(values, self.index, name)
        return write_rows(values, self.index, name)

    def write_codes(self, values: Array, starts: WindowStarts, names: Sequence[str]) -> Any:
        """Container of codes (N, D), one row for each record or window."""
        if isinstance(self.index, RecordIndex):
            return write_codes(values, self.index, names)
        labels = self._window_labels(starts)
        return values if labels is None else pd.DataFrame(values, index=labels, columns=list(names))

    def write_scores(self, values: Array, starts: WindowStarts, name: str) -> Any:
        """Container of one number for each record or window (N,)."""
        if isinstance(self.index, RecordIndex):
            return write_scores(values, self.index, name)
        labels = self._window_labels(starts)
        return values if labels is None else pd.Series(values, index=labels, name=name)

    def _window_labels(self, starts: WindowStarts) -> pd.Index | None:
        """(series, first stamp) of each window, for labelled containers."""
        index = self.index
        assert isinstance(index, PanelIndex)
        if not index.layout.labelled:
            return None
        stamps: Any = starts.start
        if index.has_stamps:
            stamps = index.clock.stamps(index.starts[starts.series] + starts.start)
        if index.series is None:
            return pd.Index(stamps, name="window")
        series = index.series[starts.series]
        labels = [tuple(label) if isinstance(label, tuple) else label for label in series]
        return pd.MultiIndex.from_arrays([labels, stamps], names=["series", "window"])

    # -- scikit-learn's view -----------------------------------------------------------------

    @property
    def n_features_in(self) -> int:
        """Columns of a table, else variables."""
        if isinstance(self.index, RecordIndex):
            return self.index.n_features_in
        return len(self.index.variables)

    @property
    def feature_names(self) -> np.ndarray | None:
        """Labels of the columns if all are strings."""
        if isinstance(self.index, RecordIndex):
            return self.index.feature_names
        return feature_names(self.index)


@dataclass(frozen=True)
class SignalReader:
    """Reads containers by the estimator's own options.

    Attributes
    ----------
    window : int or None
        None: rows = records; else rows = time.
    time, series, freq
        See :func:`tsvae.panel.read_panel`.
    owner : str
        Name of the estimator, for messages.
    """

    window: int | None
    time: Any
    series: Any
    freq: Any
    owner: str

    def read(self, X: Any, mask: Any, name: str = "X", *, allow_missing: bool = False) -> Signals:
        """Read training data."""
        options: dict[str, Any] = {"time": self.time, "series": self.series, "freq": self.freq}
        options |= {"mask": mask, "name": name, "allow_all_missing": allow_missing}
        if self.window is None:
            records = read_records(X, **options)
            return Signals(records.values, records.mask, records.index, None)
        panel = read_panel(X, **options)
        return Signals(panel.values, panel.mask, panel.index, self.window)

    def like(self, X: Any, mask: Any, index: RecordIndex | PanelIndex, name: str = "X") -> Signals:
        """Read other data of the same features."""
        if isinstance(index, RecordIndex):
            records = read_records(X, mask=mask, like=index, name=name)
            match_records(records, index, self.owner, name)
            values, seen = records.values, records.mask
            return Signals(values, seen, records.index, None)
        panel = read_panel(X, mask=mask, like=index, name=name, allow_1d=len(index.variables) == 1)
        match_variables(panel, index, self.owner, name)
        return Signals(panel.values, panel.mask, panel.index, self.window)
