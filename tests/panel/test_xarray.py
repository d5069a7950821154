"""DataArrays and Datasets by dim names, with coords and attrs."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pandas as pd
import pytest

from tsvae.panel import PanelIndex, concat, read_panel, write, write_rows, write_samples

xr = pytest.importorskip("xarray")


def field(order=("time", "lat", "lon"), n=6, time=None):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, 3, 4))
    values[:, 1, 2:] = np.nan  # land
    values[2, 0, 0] = np.nan
    time = pd.date_range("2024-01-01", periods=n) if time is None else time
    array = xr.DataArray(
        values,
        dims=("time", "lat", "lon"),
        coords={
            "time": time,
            "lat": [10.0, 20.0, 30.0],
            "lon": [1, 2, 3, 4],
            "height": 2.0,
            "depth": (("lat", "lon"), np.arange(12.0).reshape(3, 4)),
            "season": ("time", list("wwssaa")[:n]),
        },
        name="sst",
        attrs={"units": "K"},
    )
    array["lat"].attrs["units"] = "degrees_north"
    return array.transpose(*order)


def restore(panel):
    return write(np.where(panel.mask, panel.values, np.nan), panel.index)


@pytest.mark.parametrize(
    "order", [("time", "lat", "lon"), ("lat", "time", "lon"), ("lon", "lat", "time")]
)
def test_field_with_land_round_trip(order):
    array = field(order)
    panel = read_panel(array)
    assert panel.values.shape == (1, 6, 10)
    assert panel.variables[0] == ((10.0, 1) if order[0] != "lon" else (1, 10.0))
    back = restore(panel)
    xr.testing.assert_identical(back, array)
    assert back.lat.attrs == {"units": "degrees_north"}


def test_future_of_a_field_keeps_cells_and_drops_coords_along_time():
    panel = read_panel(field())
    future = write(np.ones((1, 3, 10)), panel.index.future(3))
    assert future.dims == ("time", "lat", "lon") and future.name == "sst"
    assert future.attrs == {"units": "K"}
    assert future.time.values[0] == np.datetime64("2024-01-07")
    assert "season" not in future.coords and "depth" in future.coords
    np.testing.assert_array_equal(future.isnull().sum(["lat", "lon"]), [2, 2, 2])


def test_gaps_along_time():
    array = field().isel(time=[0, 1, 4])
    panel = read_panel(array)
    assert panel.n_steps == 5 and not panel.mask[0, 2:4].any()
    xr.testing.assert_identical(restore(panel), array)


def test_cftime_field():
    pytest.importorskip("cftime")
    time = xr.date_range("2001-01-01", periods=5, freq="MS", calendar="360_day", use_cftime=True)
    array = field(n=5, time=time)
    panel = read_panel(array)
    xr.testing.assert_identical(restore(panel), array)
    future = write(np.ones((1, 2, 10)), panel.index.future(2))
    assert str(future.time.values[0]) == "2001-06-01 00:00:00"
    index = PanelIndex.from_dict(json.loads(json.dumps(panel.index.to_dict())))
    xr.testing.assert_identical(write(panel.values, index), write(panel.values, panel.index))


@pytest.mark.parametrize(
    "order", [("time", "series", "v"), ("series", "time", "v"), ("v", "time", "series")]
)
def test_series_dim_in_any_order(order):
    values = np.random.default_rng(0).normal(size=(5, 3, 2))
    array = xr.DataArray(
        values, dims=("time", "series", "v"), coords={"series": list("xyz"), "v": ["a", "b"]}
    ).transpose(*order)
    panel = read_panel(array)
    assert panel.values.shape == (3, 5, 2)
    assert panel.index.series.tolist() == ["x", "y", "z"] and panel.variables == ["a", "b"]
    assert panel.feature_names.tolist() == ["a", "b"]
    xr.testing.assert_identical(restore(panel), array)
    future = write(np.zeros((3, 4, 2)), panel.index.future(4))
    assert future.dims == order and dict(future.sizes) == {"time": 4, "series": 3, "v": 2}
    row = write_rows(np.zeros((3, 5)), panel.index, name="logp")
    assert row.dims == tuple(d for d in order if d != "v")


def test_named_dims():
    array = xr.DataArray(np.arange(8.0).reshape(4, 2), dims=("t", "site"))
    panel = read_panel(array, time="t", series="site")
    assert panel.values.shape == (2, 4, 1)
    xr.testing.assert_identical(restore(panel), array)
    again = read_panel(array, like=panel.index)
    np.testing.assert_array_equal(again.values, panel.values)


def test_dataset_round_trip():
    array = field()
    other = (array * 2).transpose("lat", "lon", "time").rename("wind").assign_attrs(units="m/s")
    data = xr.Dataset({"sst": array, "wind": other}, attrs={"source": "test"})
    panel = read_panel(data)
    assert panel.n_features == 20 and panel.variables[0] == ("sst", 10.0, 1)
    back = restore(panel)
    xr.testing.assert_identical(back, data)
    assert back["wind"].dims == ("lat", "lon", "time")
    quantiles = write(np.zeros((1, 6, 20, 2)), panel.index, levels=[("quantile", [0.1, 0.9])])
    assert quantiles["wind"].dims == ("lat", "lon", "time", "quantile")


def test_dataset_without_cells_has_its_names_as_variables():
    data = xr.Dataset({"a": ("time", [1.0, 2.0]), "b": ("time", [3.0, np.nan])})
    panel = read_panel(data)
    assert panel.feature_names.tolist() == ["a", "b"]
    xr.testing.assert_identical(restore(panel), data)


def test_one_dimensional_dataarray():
    array = xr.DataArray([1.0, 2.0], dims="time", name="x")
    panel = read_panel(array)
    assert panel.variables == ["x"]
    xr.testing.assert_identical(restore(panel), array)


def test_levels_samples_rows_and_latents_are_named_dims():
    panel = read_panel(field())
    values = np.random.default_rng(0).normal(size=(1, 6, 10, 1, 2))
    levels = [("coverage", [0.9]), ("bound", ["lower", "upper"])]
    bounds = write(values, panel.index, levels=levels)
    assert bounds.dims == ("time", "lat", "lon", "coverage", "bound")
    picked = bounds.sel(lat=30.0, lon=4, bound="upper", coverage=0.9)
    np.testing.assert_array_equal(picked, values[0, :, -1, 0, 1])
    samples = write_samples(np.ones((5, 1, 6, 10)), panel.index)
    assert samples.dims == ("sample", "time", "lat", "lon")
    assert float(samples.sel(lat=20.0, lon=3).isnull().mean()) == 1.0
    rows = write_rows(np.arange(6.0)[None], panel.index, name="logp")
    assert rows.dims == ("time",) and rows.name == "logp" and "season" in rows.coords
    latent = write(
        np.zeros((1, 6, 2)), panel.index, variables=["z0", "z1"], variable_level="latent"
    )
    assert latent.dims == ("time", "latent") and latent.latent.values.tolist() == ["z0", "z1"]


def test_cells_follow_the_training_data():
    panel = read_panel(field())
    history = field().isel(time=slice(0, 2)).copy()
    history[:, 0, 1] = np.nan  # a trained cell, unseen in this history
    history[:, 1, 2] = 5.0  # a dropped cell
    again = read_panel(history, like=panel.index)
    assert again.n_features == 10 and not again.mask[0, :, 1].any()
    with pytest.raises(ValueError, match=r"coordinate 'lat' of X differs"):
        read_panel(history.assign_coords(lat=[1.0, 2.0, 3.0]), like=panel.index)


def test_masks():
    array = field()
    mask = xr.ones_like(array, dtype=bool)
    mask[5] = False
    expected = array.notnull() & mask
    panel = read_panel(array, mask=mask.transpose("lon", "time", "lat").isel(lon=[3, 2, 1, 0]))
    xr.testing.assert_identical(restore(panel).notnull().drop_attrs(), expected.drop_attrs())
    np.testing.assert_array_equal(panel.mask, read_panel(array, mask=mask.values).mask)
    dataset = array.to_dataset()
    np.testing.assert_array_equal(
        panel.mask, read_panel(dataset, mask=mask.to_dataset(name="sst")).mask
    )


def test_dask_is_read_chunk_by_chunk(monkeypatch):
    pytest.importorskip("dask")
    array = field()
    lazy = array.chunk({"time": 2, "lat": 2})
    seen = []
    import tsvae.panel.read_xarray as module

    original = module.array_values

    def spy(values, name):
        seen.append(values.shape)
        return original(values, name)

    monkeypatch.setattr(module, "array_values", spy)
    panel = read_panel(lazy)
    assert seen == [(2, 3, 4)] * 3
    np.testing.assert_array_equal(panel.values, read_panel(array).values)
    assert not isinstance(restore(panel).data, type(lazy.data))


def test_slices_and_concat():
    array = field()
    panel = read_panel(array)
    xr.testing.assert_identical(restore(panel.slice_time(1, 4)), array.isel(time=slice(1, 4)))
    joined = concat(panel.slice_time(0, 4), panel.slice_time(4))
    np.testing.assert_array_equal(joined.values, panel.values)
    xr.testing.assert_identical(restore(joined), array.drop_vars("season"))


@pytest.mark.parametrize("make", [field, lambda: field().to_dataset()])
def test_index_survives_pickle_copy_and_json(make):
    panel = read_panel(make())
    written = write(panel.values, panel.index)
    for index in (
        pickle.loads(pickle.dumps(panel.index)),
        copy.deepcopy(panel.index),
        PanelIndex.from_dict(json.loads(json.dumps(panel.index.to_dict(), allow_nan=False))),
    ):
        xr.testing.assert_identical(write(panel.values, index), written)
        xr.testing.assert_identical(
            write(panel.values[:, :2], index.future(2)),
            write(panel.values[:, :2], panel.index.future(2)),
        )


def test_target_beside_covariates():
    X = field()
    y = X.mean(["lat", "lon"]).rename("mean")
    rows = read_panel(X).index
    panel = read_panel(y, rows=rows)
    xr.testing.assert_identical(
        write(panel.values, panel.index).drop_vars("season"), y.fillna(0).drop_vars("season")
    )
    future = write(np.zeros((1, 6, 1)), panel.index.with_rows(rows))
    np.testing.assert_array_equal(future.time, X.time)
    with pytest.raises(ValueError, match="rows of y do not match: row 0"):
        read_panel(y.assign_coords(time=y.time + np.timedelta64(1, "D")), rows=rows, name="y")


def test_stacked_cells_round_trip_but_have_no_json():
    stacked = field().stack(cell=("lat", "lon"))
    panel = read_panel(stacked)
    xr.testing.assert_identical(restore(panel), stacked)
    assert write(np.zeros((1, 2, 10)), panel.index.future(2)).sizes == {"time": 2, "cell": 12}
    with pytest.raises(TypeError, match=r"coordinate 'cell' is a pandas MultiIndex.*reset_index"):
        panel.index.to_dict()
