# ruff: noqa: D102 -- overriding methods share the docstring of the base class
"""Layout of DataArrays and Datasets: dims by name, coords and attrs kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from .layout import Layout, Level, common_rows
from .serialize import (
    decode_array,
    decode_scalar,
    encode_array,
    encode_scalar,
)

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from .index import PanelIndex


class DataVariable(NamedTuple):
    """Name, dim order and attrs of one variable of a Dataset (or of the DataArray)."""

    name: Hashable
    dims: tuple[Hashable, ...]
    attrs: dict[Any, Any]


@dataclass(frozen=True, eq=False)
class XarrayLayout(Layout):
    """Dims, coords and attrs of an xarray object.

    Parameters
    ----------
    data_variables : list of DataVariable
        The variables of the Dataset; the DataArray itself.
    is_dataset : bool
        Whether the caller gave a Dataset.
    time_dim, series_dim : hashable
        Names of the time dim and the series dim (None without).
    cell_dims : list
        The other dims, flattened into variables in this order.
    cell_shape : list of int
        Their sizes.
    keep : bool ndarray of shape (n_data_variables * n_cells,)
        Which variables are modelled; the others are never observed and come back as NaN.
    coords : xr.Dataset
        All coordinates, no data.
    attrs : dict
        The Dataset's attrs.
    """

    data_variables: list[DataVariable]
    is_dataset: bool
    time_dim: Hashable
    series_dim: Hashable | None
    cell_dims: list[Hashable]
    cell_shape: list[int]
    keep: np.ndarray
    coords: xr.Dataset
    attrs: dict[Any, Any]

    kind: ClassVar[str] = "xarray"
    noun: ClassVar[str] = "xarray object"
    labelled: ClassVar[bool] = True

    @property
    def all_variables(self) -> list[Any]:
        """Labels of all cells, observed or not: coordinates, after the name in a Dataset."""
        axes = [
            self._axis_labels(d, n) for d, n in zip(self.cell_dims, self.cell_shape, strict=True)
        ]
        cells: list[tuple[Any, ...]] = [()]
        for axis in axes:
            cells = [(*cell, label) for cell in cells for label in axis]
        if not self.is_dataset:
            if not axes:
                name = self.data_variables[0].name
                return [0 if name is None else name]
            return [cell[0] if len(axes) == 1 else cell for cell in cells]
        names = [variable.name for variable in self.data_variables]
        return [(name, *cell) if cell else name for name in names for cell in cells]

    @property
    def variables(self) -> list[Any]:
        return [v for v, keep in zip(self.all_variables, self.keep, strict=True) if keep]

    def _axis_labels(self, dim: Hashable, size: int) -> list[Any]:
        if dim in self.coords.coords:
            return self.coords[dim].values.tolist()
        return list(range(size))

    @property
    def sample_dim(self) -> str:
        """Name of the dim of draws; ``draw`` where a dim is called ``sample`` already."""
        return "draw" if "sample" in {*self.data_variables[0].dims, *self.coords} else "sample"

    def without_rows(self) -> Layout:
        on_time = [name for name, c in self.coords.coords.items() if self.time_dim in c.dims]
        return dataclasses.replace(self, coords=self.coords.drop_vars(on_time))

    def take_rows(self, keep: np.ndarray, n_series: int) -> Layout:
        kept = common_rows(keep, n_series, "xarray object")
        if self.time_dim not in self.coords.dims:
            return self
        return dataclasses.replace(self, coords=self.coords.isel({self.time_dim: kept}))

    def write(
        self,
        values: np.ndarray,
        index: PanelIndex,
        variables: Sequence[Hashable] | None,
        levels: Sequence[Level],
        variable_level: str | None,
    ) -> xr.DataArray | xr.Dataset:
        rows = self._rows(index.take_rows(values), index)
        if variables is not None:
            named = Level(variable_level or "variable", list(variables))
            return self.data_array(rows, index, [named, *levels])
        return self.unflatten(rows, index, levels, samples=False)

    def write_samples(self, values: np.ndarray, index: PanelIndex) -> xr.DataArray | xr.Dataset:
        rows = np.moveaxis(values[:, index.row_series, index.row_step], 0, -1)
        sample = Level(self.sample_dim, list(range(len(values))))
        return self.unflatten(self._rows(rows, index), index, [sample], samples=True)

    def write_rows(self, values: np.ndarray, index: PanelIndex, name: str | None) -> xr.DataArray:
        return self.data_array(self._rows(index.take_rows(values), index), index, [], name)

    def _rows(self, rows: np.ndarray, index: PanelIndex) -> np.ndarray:
        """Bring rows (N, ...) to (B, n_time, ...)."""
        return rows.reshape(index.n_series, -1, *rows.shape[1:])

    def _row_dims(self) -> list[Hashable]:
        """Return the row dims, the series dim (of size 1 if absent) first."""
        return [self._series_name, self.time_dim]

    @property
    def _series_name(self) -> Hashable:
        return "__series__" if self.series_dim is None else self.series_dim

    def _time_coord(self, index: PanelIndex) -> dict[Hashable, pd.Index]:
        if self.time_dim in self.coords.coords or not index.has_stamps:
            return {}
        stamps, codes = index.row_stamps()
        return {self.time_dim: stamps[codes[: index.n_rows // index.n_series]]}

    def data_array(
        self,
        rows: np.ndarray,
        index: PanelIndex,
        levels: Sequence[Level],
        name: str | None = None,
    ) -> xr.DataArray:
        """Return (series, time, levels...) values as a DataArray without cell dims."""
        import xarray as xr

        dims = [*self._row_dims(), *[level.name for level in levels]]
        array = xr.DataArray(rows, dims=dims, name=name)
        order = [d for d in self.data_variables[0].dims if d in (self.time_dim, self.series_dim)]
        array = self._drop_series(array).transpose(*order, ...)
        coords = {k: c for k, c in self.coords.coords.items() if set(c.dims) <= set(order)}
        extra = {level.name: level.labels for level in levels}
        return array.assign_coords(coords).assign_coords(self._time_coord(index) | extra)

    def _drop_series(self, array: xr.DataArray) -> xr.DataArray:
        return array.isel({self._series_name: 0}) if self.series_dim is None else array

    def unflatten(
        self, rows: np.ndarray, index: PanelIndex, levels: Sequence[Level], samples: bool
    ) -> xr.DataArray | xr.Dataset:
        """Put cells back on their dims; cells that were never observed become NaN."""
        import xarray as xr

        full = rows
        if not self.keep.all():
            full = np.full((*rows.shape[:2], len(self.keep), *rows.shape[3:]), np.nan)
            full[:, :, self.keep] = rows
        full = full.reshape(
            *rows.shape[:2], len(self.data_variables), *self.cell_shape, *rows.shape[3:]
        )
        dims = [*self._row_dims(), *self.cell_dims, *[level.name for level in levels]]
        arrays = {}
        for number, variable in enumerate(self.data_variables):
            array = self._drop_series(xr.DataArray(full[:, :, number], dims=dims))
            order = [*variable.dims, *[level.name for level in levels]]
            if samples:
                order = [levels[0].name, *variable.dims]
            array = array.transpose(*order)
            array.attrs.update(variable.attrs)
            arrays[variable.name] = array
        extra: dict[Hashable, Any] = {level.name: level.labels for level in levels}
        extra |= self._time_coord(index)
        if self.is_dataset:
            dataset = xr.Dataset(arrays, attrs=self.attrs)
            return dataset.assign_coords(self.coords.coords).assign_coords(extra)
        ((name, array),) = arrays.items()
        return array.rename(name).assign_coords(self.coords.coords).assign_coords(extra)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "is_dataset": self.is_dataset,
            "data_variables": [encode_scalar(tuple(v)) for v in self.data_variables],
            "time_dim": encode_scalar(self.time_dim),
            "series_dim": encode_scalar(self.series_dim),
            "cell_dims": encode_scalar(self.cell_dims),
            "cell_shape": [int(size) for size in self.cell_shape],
            "keep": encode_array(self.keep),
            "coords": [_encode_coord(name, c) for name, c in self.coords.coords.items()],
            "attrs": encode_scalar(self.attrs),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> XarrayLayout:
        """Rebuild a layout from :meth:`to_dict`."""
        import xarray as xr

        coords = dict(_decode_coord(item) for item in data["coords"])
        return cls(
            data_variables=[DataVariable(*decode_scalar(v)) for v in data["data_variables"]],
            is_dataset=data["is_dataset"],
            time_dim=decode_scalar(data["time_dim"]),
            series_dim=decode_scalar(data["series_dim"]),
            cell_dims=decode_scalar(data["cell_dims"]),
            cell_shape=list(data["cell_shape"]),
            keep=decode_array(data["keep"]),
            coords=xr.Dataset(coords=coords),
            attrs=decode_scalar(data["attrs"]),
        )


def _encode_coord(name: Hashable, coord: xr.DataArray) -> dict[str, Any]:
    if coord.dtype == object and coord.dims and coord.to_index().nlevels > 1:
        raise TypeError(
            f"The coordinate {name!r} is a pandas MultiIndex, which a saved model file "
            f"cannot hold; use reset_index({name!r}) before fitting."
        )
    return {
        "name": encode_scalar(name),
        "dims": encode_scalar(list(coord.dims)),
        "values": encode_array(np.asarray(coord.values)),
        "attrs": encode_scalar(dict(coord.attrs)),
    }


def _decode_coord(data: Mapping[str, Any]) -> tuple[Hashable, Any]:
    dims, attrs = decode_scalar(data["dims"]), decode_scalar(data["attrs"])
    return decode_scalar(data["name"]), (tuple(dims), decode_array(data["values"]), attrs)
