# ruff: noqa: D102 -- overriding methods share the docstring of the base class
"""Records in DataArrays and Datasets: a dim of records, a dim of the axis, all else variables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from .index import PanelIndex, consecutive_index
from .layout import Level
from .layout_xarray import XarrayLayout
from .record_index import RecordIndex
from .serialize import decode_array, encode_array

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, eq=False, repr=False)
class XarrayRecordIndex(RecordIndex):
    """Records along one dim, an axis that all of them share along another.

    Parameters
    ----------
    layout : XarrayLayout
        Its series dim holds the records (None: one record), its time dim the axis.
    sizes : tuple of int
        (B, T).
    holes : bool ndarray of shape (T, F) or None
        Cells that were never observed in fit; they come back as NaN.
    """

    layout: XarrayLayout
    sizes: tuple[int, int]
    holes: np.ndarray | None = None

    kind: ClassVar[str] = "xarray"
    noun: ClassVar[str] = "xarray object"

    @property
    def n_records(self) -> int:
        return self.sizes[0]

    @property
    def n_steps(self) -> int:
        return self.sizes[1]

    @cached_property
    def variables(self) -> list[Any]:  # type: ignore[override]
        return self.layout.variables

    @property
    def record_labels(self) -> pd.Index | None:
        return dim_labels(self.layout)

    @property
    def axis(self) -> pd.Index | None:
        return self.layout.coords.indexes.get(self.layout.time_dim)

    @property
    def variable_labels(self) -> list[Any] | None:
        return None if self.is_table else self.variables

    @property
    def is_table(self) -> bool:
        return is_plain(self.layout)

    @property
    def feature_names(self) -> np.ndarray | None:
        labels = self.variables
        if self.is_table:
            labels = [] if self.axis is None else self.axis.tolist()
        if not labels or not all(isinstance(label, str) for label in labels):
            return None
        return np.array(labels, dtype=object)

    @property
    def xarray_layout(self) -> XarrayLayout:
        return self.layout

    def reading_index(self) -> PanelIndex:
        # Without stamps: the axis is a coordinate like any other.
        return consecutive_index(self.layout, 1, 1)

    def _with_holes(self, values: np.ndarray) -> np.ndarray:
        return values if self.holes is None else np.where(self.holes, np.nan, values)

    def write(self, values: np.ndarray) -> xr.DataArray | xr.Dataset:
        return self.layout.unflatten(
            self._with_holes(values), self.reading_index(), [], samples=False
        )

    def write_samples(self, values: np.ndarray) -> xr.DataArray | xr.Dataset:
        sample = Level(self.layout.sample_dim, list(range(len(values))))
        last = np.moveaxis(self._with_holes(values), 0, -1)
        return self.layout.unflatten(last, self.reading_index(), [sample], samples=True)

    def write_codes(self, values: np.ndarray, names: Sequence[Any], level: str) -> xr.DataArray:
        return record_array(self.layout, values, Level(level, list(names)), None)

    def write_scores(self, values: np.ndarray, name: str | None) -> xr.DataArray:
        return record_array(self.layout, values, None, name)

    def write_steps(self, values: np.ndarray, name: str | None) -> xr.DataArray:
        return self.layout.data_array(values, self.reading_index(), [], name)

    def _renew(self, n: int, labels: pd.Index | None) -> XarrayRecordIndex:
        layout = renewed_layout(self.layout, n, labels)
        return XarrayRecordIndex(layout, (n, self.n_steps), self.holes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "layout": self.layout.to_dict(),
            "sizes": [int(size) for size in self.sizes],
            "holes": None if self.holes is None else encode_array(self.holes),
        }

    @classmethod
    def restore(cls, data: Mapping[str, Any]) -> XarrayRecordIndex:
        """Rebuild an index from :meth:`to_dict`."""
        n_records, n_steps = data["sizes"]
        holes = None if data["holes"] is None else decode_array(data["holes"])
        return cls(XarrayLayout.from_dict(data["layout"]), (n_records, n_steps), holes)


def is_plain(layout: XarrayLayout) -> bool:
    """Say whether a DataArray has only records and an axis: a table."""
    return not layout.is_dataset and not layout.cell_dims


def dim_labels(layout: XarrayLayout) -> pd.Index | None:
    """Return the labels of the records, None where the dim has no coordinate."""
    if layout.series_dim is None:
        return None
    return layout.coords.indexes.get(layout.series_dim)


def record_array(
    layout: XarrayLayout, values: np.ndarray, level: Level | None, name: str | None
) -> xr.DataArray:
    """Return values (B,) or (B, D) as a DataArray along the records."""
    import xarray as xr

    dim = "__record__" if layout.series_dim is None else layout.series_dim
    taken = {dim, *layout.coords.coords}
    if level is not None and level.name in taken:
        level = level._replace(name=f"{level.name}_code")
    dims = [dim] if level is None else [dim, level.name]
    array = xr.DataArray(values, dims=dims, name=name)
    if layout.series_dim is None:
        array = array.isel({dim: 0})
    coords = {k: c for k, c in layout.coords.coords.items() if set(c.dims) <= {layout.series_dim}}
    extra = {} if level is None else {level.name: level.labels}
    return array.assign_coords(coords).assign_coords(extra)


def renewed_layout(layout: XarrayLayout, n: int, labels: pd.Index | None) -> XarrayLayout:
    """Return the layout of n other records: nothing that belongs to the records of fit."""
    dim = layout.series_dim
    if dim is None:
        variables = [v._replace(dims=("record", *v.dims)) for v in layout.data_variables]
        layout = dataclasses.replace(layout, series_dim="record", data_variables=variables)
        dim = "record"
    known = dim in layout.coords.coords
    of_records = [name for name, c in layout.coords.coords.items() if dim in c.dims]
    coords = layout.coords.drop_vars(of_records)
    if known or labels is not None:
        coords = coords.assign_coords({dim: np.arange(n) if labels is None else labels.to_numpy()})
    return dataclasses.replace(layout, coords=coords)


__all__ = ["XarrayRecordIndex", "dim_labels", "is_plain", "record_array", "renewed_layout"]
