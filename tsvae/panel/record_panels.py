# ruff: noqa: D102 -- overriding methods share the docstring of the base class
"""Records that are the series of a panel: time stamps, unequal lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from .clock import Clock
from .index import PanelIndex
from .layout import FrameLayout
from .panel import feature_names
from .record_index import RecordIndex
from .write import write, write_rows, write_samples

if TYPE_CHECKING:
    from .layout_xarray import XarrayLayout


@dataclass(frozen=True, eq=False, repr=False)
class PanelRecordIndex(RecordIndex):
    """Series of a panel as records; shorter ones are padded at the end.

    Parameters
    ----------
    panel : PanelIndex
        Where the rows lie on the time grid.
    steps : int
        Steps of the records, padding included; at least those of the longest series.
    """

    panel: PanelIndex
    steps: int

    kind: ClassVar[str] = "panel"

    @property
    def noun(self) -> str:  # type: ignore[override]
        return self.panel.layout.noun

    @property
    def n_records(self) -> int:
        return self.panel.n_series

    @property
    def n_steps(self) -> int:
        return self.steps

    @property
    def variables(self) -> list[Any]:
        return self.panel.variables

    @property
    def lengths(self) -> np.ndarray:
        return self.panel.lengths

    @property
    def record_labels(self) -> pd.Index | None:
        return self.panel.series

    @property
    def variable_labels(self) -> list[Any] | None:
        return None if self._is_plain else self.variables

    @property
    def feature_names(self) -> np.ndarray | None:
        return None if self._is_plain else feature_names(self.panel)

    @property
    def xarray_layout(self) -> XarrayLayout | None:
        return self.panel.layout if self.panel.layout.kind == "xarray" else None  # type: ignore[return-value]

    def reading_index(self) -> PanelIndex:
        # New records have the step of fit, not its dates: other days, another phase.
        return dataclasses.replace(self.panel, clock=Clock())

    @property
    def _is_plain(self) -> bool:
        """Whether the only variable is a DataArray: its name is no label of a feature."""
        layout = self.xarray_layout
        return layout is not None and not layout.is_dataset and not layout.cell_dims

    def write(self, values: np.ndarray) -> Any:
        return write(values, self.panel)

    def write_samples(self, values: np.ndarray) -> Any:
        return write_samples(values, self.panel)

    def write_codes(self, values: np.ndarray, names: Sequence[Any], level: str) -> Any:
        if self.xarray_layout is not None:
            from .layout import Level
            from .record_xarray import record_array

            return record_array(self.xarray_layout, values, Level(level, list(names)), None)
        columns = pd.Index(list(names), tupleize_cols=False)
        return pd.DataFrame(values, index=self._frame_labels(), columns=columns, copy=False)

    def write_scores(self, values: np.ndarray, name: str | None) -> Any:
        if self.xarray_layout is not None:
            from .record_xarray import record_array

            return record_array(self.xarray_layout, values, None, name)
        return pd.Series(values, index=self._frame_labels(), name=name)

    def write_steps(self, values: np.ndarray, name: str | None) -> Any:
        return write_rows(values, self.panel, name)

    def _frame_labels(self) -> pd.Index:
        series = self.panel.series
        return pd.RangeIndex(self.n_records) if series is None else series

    def _renew(self, n: int, labels: pd.Index | None) -> PanelRecordIndex:
        """Return the index of n full-length records that start where the grid starts."""
        layout: Any
        if self.xarray_layout is not None:
            from .record_xarray import renewed_layout

            layout = renewed_layout(self.xarray_layout, n, labels)
            known = layout.coords.indexes.get(layout.series_dim)
            layout = layout.without_rows()
            series = pd.RangeIndex(n) if known is None else known
        else:
            series = _fresh_labels(self.panel.series, n, labels)
            layout = _renewed_frame_layout(self.panel.layout, series)  # type: ignore[arg-type]
        panel = dataclasses.replace(
            self.panel,
            layout=layout,
            starts=np.zeros(n, dtype=np.int64),
            lengths=np.full(n, self.steps, dtype=np.int64),
            series=series,
            row_series=np.repeat(np.arange(n), self.steps),
            row_step=np.tile(np.arange(self.steps), n),
            row_labels=None,
        )
        return PanelRecordIndex(panel, self.steps)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "panel": self.panel.to_dict(), "steps": int(self.steps)}

    @classmethod
    def restore(cls, data: Mapping[str, Any]) -> PanelRecordIndex:
        """Rebuild an index from :meth:`to_dict`."""
        return cls(PanelIndex.from_dict(data["panel"]), data["steps"])


def _fresh_labels(series: pd.Index | None, n: int, labels: pd.Index | None) -> pd.Index:
    """Return the given labels, else 0, 1, ..., under the name that the series have."""
    fresh = pd.RangeIndex(n) if labels is None else labels
    if any(level is not None for level in fresh.names):
        return fresh
    if series is None or series.nlevels != fresh.nlevels:
        return fresh.rename("record") if fresh.nlevels == 1 else fresh
    return fresh.set_names(series.names)


def _renewed_frame_layout(layout: FrameLayout, series: pd.Index) -> FrameLayout:
    """Return the layout of a frame of other series; the time stays where it stands."""
    levels = list(series.names)
    if layout.time_column is None:
        name = layout.index_names[layout.time_level]
        place = min(layout.time_level, len(levels)) if layout.grouped else len(levels)
        levels.insert(place, name)
        return dataclasses.replace(layout, grouped=True, index_names=levels, time_level=place)
    if len(levels) == len(layout.series_columns):
        return dataclasses.replace(layout, grouped=True, series_columns=levels)
    # Other columns name the series now: they stand first, the time after them.
    places = list(range(len(levels) + 1))
    return dataclasses.replace(layout, grouped=True, series_columns=levels, id_places=places)


__all__ = ["PanelRecordIndex"]
