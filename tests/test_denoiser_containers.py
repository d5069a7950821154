"""VAEDenoiser on every kind of container: the same kind comes back, labels kept, gaps filled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsvae import VAEDenoiser
from tsvae._records.signals import SignalReader

pytestmark = pytest.mark.usefixtures("short_epochs")

FAST = {
    "latent_dim": 2,
    "architecture": "mlp",
    "hidden_sizes": (8,),
    "max_epochs": 1,
    "n_importance_samples": 3,
    "random_state": 0,
}
N, T = 24, 12
STAMPS = pd.date_range("2024-01-01", periods=T, freq="h", name="time")
NAMES = [f"r{i}" for i in range(N)]
Q = np.linspace(0.1, 1.2, T)


def small(**settings):
    return VAEDenoiser(**FAST | settings)


def waves(n_records=N, n_steps=T, n_variables=2, missing=0.2, seed=0):
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, (n_records, 1, 1))
    values = np.sin(np.linspace(0, 6, n_steps)[:, None] + phase + np.arange(n_variables))
    values += 0.1 * rng.standard_normal(values.shape)
    values[rng.random(values.shape) < missing] = np.nan
    values[0] = 0.5
    return values


def long_frame(n_rows=90, seed=0):
    """Rows = time, with missing entries and missing rows."""
    index = pd.date_range("2024-01-01", periods=n_rows, freq="h", name="time")
    frame = pd.DataFrame(waves(1, n_rows, seed=seed)[0], index=index, columns=["a", "b"])
    rng = np.random.default_rng(seed)
    frame += np.sin(np.arange(n_rows) / 3)[:, None] + 0.1 * rng.standard_normal(frame.shape)
    frame[rng.random(frame.shape) < 0.2] = np.nan
    return frame.drop(frame.index[40:47])


def xarray():
    return pytest.importorskip("xarray")


def finite(data):
    assert np.isfinite(np.asarray(data, dtype=float)).all()
    return data


# -- tables of records ------------------------------------------------------------------------


def test_spectra_keep_their_axis_and_labels():
    table = pd.DataFrame(waves()[..., 0], index=pd.Index(NAMES, name="sample"), columns=Q)
    table.columns.name = "q"
    table.attrs["units"] = "1/nm"
    d = small().fit(table)
    for found in (d.transform(table), d.reconstruct(table), d.augment(table)):
        finite(found)
        pd.testing.assert_index_equal(found.index, table.index)
        pd.testing.assert_index_equal(found.columns, table.columns)
        assert found.attrs == table.attrs
    draws = finite(d.augment(table, 3))
    assert draws.index.names == ["draw", "sample"]
    assert draws.shape == (3 * N, T) and draws.columns.equals(table.columns)
    assert d.sample(4).columns.equals(table.columns) and len(d.sample(4)) == 4
    assert finite(d.encode(table)).index.equals(table.index)
    back = d.decode(d.encode(table)[:5])
    pd.testing.assert_index_equal(back.index, table.index[:5])
    np.testing.assert_allclose(back, d.transform(table)[:5], atol=1e-6)
    assert finite(d.score_samples(table)).index.equals(table.index)
    surprise = finite(d.anomaly_scores(table))
    assert surprise.shape == table.shape and surprise.columns.equals(table.columns)
    assert (surprise.to_numpy()[table.isna().to_numpy()] == 0.0).all()
    way = d.interpolate(table.iloc[0], table.iloc[[1]], 5)
    assert way.shape == (5, T) and way.columns.equals(table.columns)
    ends = d.transform(table.iloc[:2])
    np.testing.assert_allclose(way.iloc[[0, 4]], ends, atol=1e-6)


def test_rounded_axis_is_the_same_and_a_part_of_the_rows_will_do():
    table = pd.DataFrame(waves()[..., 0], index=NAMES, columns=Q)
    d = small().fit(table)
    whole = d.transform(table)
    rounded = table.set_axis(Q.astype(np.float32), axis=1)
    np.testing.assert_array_equal(d.transform(rounded), whole)
    pd.testing.assert_frame_equal(d.transform(table[7:9]), whole[7:9], atol=1e-7)


def test_two_variables_in_column_levels():
    columns = pd.MultiIndex.from_product([["u", "v"], Q[:6]], names=["variable", "q"])
    table = pd.DataFrame(waves()[..., 0], index=NAMES, columns=columns)
    d = small().fit(table)
    pd.testing.assert_index_equal(finite(d.transform(table)).columns, columns)
    assert d.model_.record_shape == (6, 2)
    assert finite(d.anomaly_scores(table)).shape == (N, 6)


def test_arrays_of_two_and_three_axes():
    for data in (waves()[..., 0], waves()):
        d = small().fit(data)
        assert finite(d.transform(data)).shape == data.shape
        assert finite(d.augment(data, 3)).shape == (3, *data.shape)
        assert finite(d.sample(4, noise=True)).shape == (4, *data.shape[1:])
        assert finite(d.anomaly_scores(data)).shape == (N, T)
        assert finite(d.score_samples(data)).shape == (N,)
        assert finite(d.interpolate(data[0], data[1], 3)).shape == (3, *data.shape[1:])
        assert d.sample_codes(data, 5).shape == (5, N, 2)


def make_panel():
    parts = {}
    for i, name in enumerate(NAMES):
        n_steps = T - i % 4
        start = STAMPS + pd.Timedelta(days=i)
        parts[name] = pd.DataFrame(waves()[i][:n_steps], index=start[:n_steps], columns=["a", "b"])
    return pd.concat(parts, names=["record", "time"])


def test_panel_of_unequal_lengths():
    panel = make_panel()
    d = small().fit(panel)
    found = finite(d.transform(panel))
    pd.testing.assert_index_equal(found.index, panel.index)
    pd.testing.assert_index_equal(found.columns, panel.columns)
    codes = finite(d.encode(panel))
    assert list(codes.index) == NAMES and codes.index.name == "record"
    assert finite(d.anomaly_scores(panel)).index.equals(panel.index)
    assert list(finite(d.score_samples(panel)).index) == NAMES
    assert d.decode(codes).index.get_level_values("record").nunique() == N
    later = panel.loc[["r3", "r5"]].rename(index=lambda t: t + pd.Timedelta(days=400), level="time")
    moved = d.transform(later)
    pd.testing.assert_index_equal(moved.index, later.index)
    np.testing.assert_allclose(moved, found.loc[["r3", "r5"]], atol=1e-7)


def test_conditions_and_clean_targets_beside_a_panel():
    panel = make_panel()
    given = pd.DataFrame({"size": np.arange(N)}, index=NAMES)
    d = small(model="conditional").fit(panel, clean=panel.fillna(0.0), condition=given)
    assert finite(d.transform(panel, condition=given)).shape == panel.shape
    assert finite(d.sample(2, condition=[[3.0], [5.0]])).shape == (2 * T, 2)


# -- xarray -----------------------------------------------------------------------------------


def make_dataarray():
    coords = {"sample": NAMES, "q": Q, "batch": ("sample", np.arange(N) % 3)}
    return xarray().DataArray(
        waves()[..., 0], dims=["sample", "q"], coords=coords, attrs={"units": "1/cm"}, name="I"
    )


def test_dataarray_with_coords_and_attrs():
    data = make_dataarray()
    d = small().fit(data)
    found = finite(d.transform(data))
    assert found.dims == data.dims and found.name == "I" and found.attrs == data.attrs
    assert all(found[name].equals(data[name]) for name in data.coords)
    codes = finite(d.encode(data))
    assert codes.dims == ("sample", "latent") and codes["batch"].equals(data["batch"])
    back = d.decode(codes.isel(sample=[3, 4]))
    assert list(back["sample"].values) == NAMES[3:5]
    np.testing.assert_allclose(back, found[3:5], atol=1e-6)
    assert finite(d.augment(data, 2)).sizes == {"draw": 2, "sample": N, "q": T}
    assert finite(d.sample(3)).sizes == {"sample": 3, "q": T}
    assert finite(d.score_samples(data)).dims == ("sample",)
    assert finite(d.anomaly_scores(data)).sizes == data.sizes
    turned = d.transform(data.transpose("q", "sample")[:, :5])
    np.testing.assert_allclose(turned.transpose("sample", "q"), found[:5], atol=1e-7)
    way = d.interpolate(data.isel(sample=[0]), data.isel(sample=[1]), 4)
    assert way.sizes == {"sample": 4, "q": T}


def test_dataset():
    data = xarray().Dataset({"I": make_dataarray(), "J": 2 * make_dataarray()}, attrs={"k": 1})
    d = small().fit(data)
    found = d.transform(data)
    assert isinstance(found, type(data)) and found.attrs == data.attrs
    assert set(found.data_vars) == {"I", "J"} and found["I"].attrs == data["I"].attrs
    finite(found.to_dataarray())
    assert d.n_features_in_ == 2


LAND = np.array([[False, True, False], [False, False, True]])


def make_grid(n_steps=T, records=True):
    base = waves(N if records else 1, n_steps, 6).reshape(-1, n_steps, 2, 3)
    values = np.where(LAND, np.nan, base + np.arange(6).reshape(2, 3))
    stamps = pd.date_range("2024-01-01", periods=n_steps, freq="6h")
    coords = {"time": stamps, "lat": [40.0, 41.0], "lon": [5.0, 6.0, 7.0]}
    dims = ["record", *coords] if records else list(coords)
    values = values if records else values[0]
    return xarray().DataArray(values, dims=dims, coords=coords, attrs={"units": "degC"}, name="sst")


def check_land(found, grid):
    assert found.attrs == grid.attrs and found.name == grid.name
    missing = found.isnull().transpose(..., "lat", "lon").to_numpy()
    np.testing.assert_array_equal(missing, np.broadcast_to(LAND, missing.shape))


@pytest.mark.parametrize("records", [True, False], ids=["records", "windows"])
def test_land_comes_back_as_nan(records):
    grid = make_grid(T if records else 60, records)
    d = small(window=None if records else 16).fit(grid)
    assert d.n_features_in_ == 4
    for found in (d.transform(grid), d.augment(grid), d.augment(grid, 2)):
        check_land(found, grid)
    assert d.transform(grid).dims == grid.dims and d.transform(grid).sizes == grid.sizes
    np.testing.assert_array_equal(d.transform(grid)["time"], grid["time"])
    finite(d.anomaly_scores(grid))
    full = grid.fillna(-999.0)
    masked = small(window=d.window).fit(full, mask=grid.notnull())
    assert masked.transform(full, mask=grid.notnull()).identical(d.transform(grid))
    if records:
        check_land(d.sample(2), grid)


def test_dask_arrays():
    pytest.importorskip("dask.array")
    data = make_dataarray()
    lazy = data.chunk({"sample": 7})
    np.testing.assert_array_equal(
        small().fit(lazy).transform(lazy), small().fit(data).transform(data)
    )


# -- windows of long series -------------------------------------------------------------------


def test_windows_of_a_frame():
    frame = long_frame()
    d = small(window=16).fit(frame)
    found = finite(d.transform(frame))
    pd.testing.assert_index_equal(found.index, frame.index)
    pd.testing.assert_index_equal(found.columns, frame.columns)
    codes = finite(d.encode(frame))
    assert codes.index.name == "window" and codes.shape == (6, 2)
    assert codes.index[1] == frame.index[0] + pd.Timedelta(hours=16)
    assert finite(d.score_samples(frame)).index.equals(codes.index)
    assert finite(d.anomaly_scores(frame)).index.equals(frame.index)
    assert d.decode(codes).shape == (6, 16, 2) and d.sample(3).shape == (3, 16, 2)
    assert d.interpolate(frame[:16], frame[20:36], 4).shape == (4, 16, 2)
    assert np.isfinite(d.score(frame))


def test_windows_of_a_panel_with_series_shorter_than_the_window():
    panel = pd.concat(
        {"x": long_frame(), "y": long_frame(50, 1), "z": long_frame(60, 2)[:5]}, names=["site"]
    )
    d = small(window=16).fit(panel)
    pd.testing.assert_index_equal(finite(d.transform(panel)).index, panel.index)
    codes = finite(d.encode(panel))
    assert codes.index.names == ["series", "window"] and list(codes.loc["z"].index) == [
        panel.loc["z"].index[0]
    ]
    finite(d.augment(panel, 2))
    short = d.transform(panel.loc[["z"]])
    np.testing.assert_allclose(short, d.transform(panel).loc[["z"]], atol=1e-7)
    assert finite(d.transform(panel.loc[["z"]].iloc[:1])).shape == (1, 2)


def test_windows_of_arrays_and_of_a_series():
    frame = long_frame()
    values = frame.to_numpy()
    d = small(window=16).fit(values)
    assert finite(d.transform(values)).shape == values.shape
    assert finite(d.anomaly_scores(values)).shape == (len(values),)
    stack = np.stack([values, values[::-1]])
    found = finite(small(window=16).fit(stack).transform(stack))
    assert found.shape == stack.shape
    load = frame["a"]
    denoised = finite(small(window=16).fit(load).transform(load))
    assert isinstance(denoised, pd.Series) and denoised.name == "a"
    pd.testing.assert_index_equal(denoised.index, load.index)


def test_a_window_of_one_step_and_of_the_whole_series():
    frame = long_frame()
    n_steps = 90
    for window in (1, n_steps):
        assert finite(small(window=window).fit_transform(frame)).shape == frame.shape


def test_the_fitted_window_counts():
    frame = long_frame()
    d = small(window=16).fit(frame)
    before = d.transform(frame)
    pd.testing.assert_frame_equal(d.set_params(window=20).transform(frame), before)


def test_clean_targets_of_windows():
    frame = long_frame()
    clean = frame.fillna(0.0)
    found = small(window=16).fit(frame, clean=clean).transform(frame)
    by_y = small(window=16).fit(frame, clean).transform(frame)
    pd.testing.assert_frame_equal(found, by_y)
    assert np.isfinite(small(window=16).fit(frame).score(frame, clean))


# -- windows and their blending against slow loops --------------------------------------------


def read(data, window):
    return SignalReader(window, None, None, None, "VAEDenoiser").read(data, None)


def slow_windows(values, mask, lengths, window, hop):
    """Windows from the start at every hop, and the last one at the end of the series."""
    found = []
    for b, length in enumerate(lengths):
        last = max(length - window, 0)
        starts = [*range(0, last + 1, hop)]
        starts += [] if starts[-1] == last else [last]
        for start in starts:
            piece, seen = np.zeros((window, values.shape[2])), np.zeros((window, values.shape[2]))
            for t in range(start, min(start + window, length)):
                piece[t - start], seen[t - start] = values[b, t], mask[b, t]
            found.append((b, start, piece, seen.astype(bool)))
    return found


PANEL = pd.concat(
    {"x": long_frame(), "y": long_frame(37, 1), "z": long_frame(60, 2)[:5]}, names=["site"]
)


@pytest.mark.parametrize("window", [1, 5, 16, 37, 90])
@pytest.mark.parametrize("overlap", [True, False])
def test_windows_and_blending_against_a_slow_loop(window, overlap):
    signals = read(PANEL, window)
    windows = signals.windows(overlap)
    lengths = [90, 37, 5]
    hop = max(1, window // 4) if overlap else window
    expected = slow_windows(signals.values, signals.mask, lengths, window, hop)
    assert [tuple(pair) for pair in zip(*windows.starts, strict=True)] == [e[:2] for e in expected]
    np.testing.assert_array_equal(windows.values, np.stack([e[2] for e in expected]))
    np.testing.assert_array_equal(windows.mask, np.stack([e[3] for e in expected]))

    draws = np.random.default_rng(0).standard_normal(windows.values.shape)
    found = signals.blend(draws, windows.starts)
    bell = [0.5 - 0.5 * np.cos(2 * np.pi * (i + 1) / (window + 1)) + 1e-6 for i in range(window)]
    for b, length in enumerate(lengths):
        for t in range(length):
            parts = [
                (bell[t - start], draws[place, t - start])
                for place, (series, start, *_) in enumerate(expected)
                if series == b and start <= t < start + window
            ]
            assert parts
            mean = sum(w * x for w, x in parts) / sum(w for w, _ in parts)
            np.testing.assert_allclose(found[b, t], mean, rtol=1e-9, atol=1e-12)


def test_blending_windows_of_a_signal_gives_the_signal():
    signals = read(PANEL, 16)
    windows = signals.windows(overlap=True)
    np.testing.assert_allclose(
        signals.blend(windows.values, windows.starts), signals.values, rtol=1e-12
    )


def test_blend_of_records_is_themselves():
    signals = read(waves(), None)
    windows = signals.windows(overlap=True)
    assert windows.values is signals.values
    assert signals.blend(windows.values, windows.starts) is signals.values
