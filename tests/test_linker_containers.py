"""PairVAELinker on every kind of container: each side's kind and labels, gaps, units, extremes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from tsvae import PairVAELinker
from tsvae._linker import predicting

pytestmark = pytest.mark.usefixtures("short_epochs")

FAST = {"latent_dim": 2, "hidden_sizes": (8,), "max_epochs": 1, "random_state": 0}
N, T, U = 40, 12, 7
Q = pd.Index(np.linspace(0.1, 1.2, T), name="q")
NM = pd.Index(np.linspace(400.0, 460.0, U), name="nm")
ROWS = pd.Index([f"s{i}" for i in range(N)], name="tube")


def small(**settings):
    return PairVAELinker(**FAST | settings)


def trained(**settings):
    """Enough training to know the samples."""
    return PairVAELinker(
        latent_dim=2, hidden_sizes=(32,), max_epochs=6, learning_rate=0.02, random_state=0
    ).set_params(**settings)


def pair(n_x=1, n_y=1, n_records=N, missing=0.0, seed=0):
    """(N, T, n_x) and (N, U, n_y) that both follow the size of the sample."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(1, 2, (n_records, 1, 1))
    X = np.sin(size * np.linspace(0, 3, T)[:, None] + np.arange(n_x))
    y = np.exp(-size * np.linspace(0, 2, U)[:, None]) - np.arange(n_y)
    for side in (X, y):
        side += 0.01 * rng.standard_normal(side.shape)
        side[rng.random(side.shape) < missing] = np.nan
    return X, y


def flat(**options):
    return tuple(side[..., 0] for side in pair(**options))


def tables(**options):
    X, y = flat(**options)
    return pd.DataFrame(X, ROWS, Q), pd.DataFrame(y, ROWS, NM)


def xarray():
    return pytest.importorskip("xarray")


def finite(data):
    assert np.isfinite(np.asarray(data, dtype=float)).all()
    return data


def everything(linker, X, y):
    """All that can be asked, finite."""
    for found in (
        linker.predict(X),
        linker.predict_inverse(y),
        *linker.transform(X, y),
        *linker.predict_interval(X),
        *linker.predict_interval_inverse(y),
        linker.sample(X, 2),
        linker.sample_inverse(y, 2),
        *linker.link(X, y),
        linker.cross_correlation(X, y),
        linker.out_of_range(X),
        linker.out_of_range_inverse(y),
        linker.score(X, y),
    ):
        finite(found)
    return linker


# -- tables of records ------------------------------------------------------------------------


def test_each_side_keeps_its_axis_and_the_rows_are_those_given():
    X, y = tables(missing=0.1)
    X.attrs["units"], y.attrs["units"] = "1/nm", "1"
    linker = everything(small().fit(X, y), X, y)
    other_rows = pd.Index([f"new{i}" for i in range(5)], name="vial")
    for made, given, wanted in ((linker.predict, X, y), (linker.predict_inverse, y, X)):
        found = made(given)
        pd.testing.assert_index_equal(found.index, ROWS)
        pd.testing.assert_index_equal(found.columns, wanted.columns)
        assert found.attrs == wanted.attrs
        new = made(given[:5].set_axis(other_rows))
        pd.testing.assert_index_equal(new.index, other_rows)
        np.testing.assert_array_equal(new, found[:5])
    lower, upper = linker.predict_interval(X)
    for bound in (lower, upper):
        pd.testing.assert_index_equal(bound.index, ROWS)
        pd.testing.assert_index_equal(bound.columns, NM)
    assert list(linker.transform(X).index) == list(ROWS)
    flags = linker.out_of_range(X)
    assert isinstance(flags, pd.Series) and flags.dtype == bool and flags.index.equals(ROWS)
    assert isinstance(linker.link(X, y).best, np.ndarray)


def test_rounded_axis_is_the_same_and_a_part_of_the_rows_will_do():
    X, y = tables()
    linker = small().fit(X, y)
    whole = linker.predict(X)
    np.testing.assert_array_equal(
        linker.predict(X.set_axis(Q.to_numpy().astype(np.float32), axis=1)), whole
    )
    pd.testing.assert_frame_equal(linker.predict(X[7:9]), whole[7:9], atol=1e-9)


def test_rows_with_several_levels():
    X, y = tables()
    rows = pd.MultiIndex.from_arrays([["a", "b"] * (N // 2), ROWS], names=["batch", "tube"])
    X, y = X.set_axis(rows), y.set_axis(rows)
    found = small().fit(X, y).predict(X)
    pd.testing.assert_index_equal(found.index, rows)
    pd.testing.assert_index_equal(found.columns, NM)


def test_frame_beside_array():
    X, y = tables(missing=0.1)
    plain = small().fit(X.to_numpy(), y.to_numpy())
    for data, kinds in (
        ((X, y.to_numpy()), (np.ndarray, pd.DataFrame)),
        ((X.to_numpy(), y), (pd.DataFrame, np.ndarray)),
    ):
        linker = everything(small().fit(*data), *data)
        found = linker.predict(data[0]), linker.predict_inverse(data[1])
        assert tuple(map(type, found)) == kinds
        np.testing.assert_array_equal(found[0], plain.predict(X.to_numpy()))
        frame = found[0] if isinstance(found[0], pd.DataFrame) else found[1]
        assert frame.index.equals(pd.RangeIndex(N))
    assert isinstance(small().fit(X, y.to_numpy()).transform(X), pd.DataFrame)


def test_lists():
    X, y = flat()
    found = small().fit(X.tolist(), y.tolist()).predict(X.tolist())
    np.testing.assert_array_equal(found, small().fit(X, y).predict(X))


@pytest.mark.parametrize("n_variables", [(1, 1), (2, 3), (3, 1)])
def test_three_axes_with_other_lengths_and_channels(n_variables):
    X, y = pair(*n_variables, missing=0.2)
    linker = everything(small().fit(X, y), X, y)
    assert linker.predict(X).shape == y.shape and linker.predict_inverse(y).shape == X.shape
    assert linker.model_.a.record_shape == (T, n_variables[0])
    assert linker.model_.b.record_shape == (U, n_variables[1])
    assert linker.sample(X[:4], 3).shape == (3, 4, *y.shape[1:])
    assert linker.predict_interval_inverse(y[:4]).lower.shape == (4, *X.shape[1:])


def test_two_variables_in_column_levels():
    X, y = pair(2, 1)
    columns = pd.MultiIndex.from_product([["u", "v"], Q], names=["variable", "q"])
    table = pd.DataFrame(np.swapaxes(X, 1, 2).reshape(N, -1), ROWS, columns)
    other = pd.DataFrame(y[..., 0], ROWS, NM)
    linker = everything(small().fit(table, other), table, other)
    assert linker.model_.a.record_shape == (T, 2)
    found = linker.predict_inverse(other)
    pd.testing.assert_index_equal(found.columns, columns)
    stack = small().fit(X, y[..., 0])
    np.testing.assert_array_equal(found["v"], stack.predict_inverse(y[..., 0])[..., 1])
    shuffled = table[columns[np.random.default_rng(0).permutation(2 * T)]]
    both = small().fit(shuffled, shuffled + 1.0)
    pd.testing.assert_index_equal(both.predict(shuffled).columns, shuffled.columns)


# -- one number for each record ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["dose", None, 0, ("dose", "mg")])
def test_a_series_comes_back(name):
    X, y = tables()
    line = y.iloc[:, 2].rename(name)
    linker = everything(small().fit(X, line), X, line)
    for found in (linker.predict(X), *linker.predict_interval(X)):
        assert isinstance(found, pd.Series) and found.name == name
        pd.testing.assert_index_equal(found.index, ROWS)
    draws = linker.sample(X, 3)
    assert isinstance(draws, pd.Series) and draws.name == name
    assert draws.index.names == ["sample", "tube"] and len(draws) == 3 * N
    pd.testing.assert_index_equal(linker.predict_inverse(line).columns, Q)


def test_a_vector_comes_back():
    X, y = flat()
    for line in (y[:, 2], y[:, 2].tolist(), pd.array(y[:, 2]), pd.Index(y[:, 2])):
        linker = everything(small().fit(X, line), X, line)
        assert linker.predict(X).shape == (N,) and linker.sample(X, 3).shape == (3, N)
        assert linker.predict_interval(X).upper.shape == (N,)
    column = small().fit(X, y[:, 2:3])
    assert column.predict(X).shape == (N, 1) and column.sample(X, 3).shape == (3, N, 1)
    np.testing.assert_array_equal(linker.predict(X), column.predict(X)[:, 0])
    nullable = pd.array([None, None, *y[2:, 2]], dtype="Float64")
    gaps = np.r_[np.nan, np.nan, y[2:, 2]]
    np.testing.assert_array_equal(
        small().fit(X, nullable).predict(X), small().fit(X, gaps).predict(X)
    )


# -- panels: rows = (series, time) ------------------------------------------------------------


def as_panel(values, lengths=None):
    parts = {}
    for i, (name, record) in enumerate(zip(ROWS, values, strict=True)):
        n_steps = len(record) if lengths is None else lengths[i]
        start = pd.Timestamp("2024-01-01") + pd.Timedelta(days=i)
        stamps = pd.date_range(start, periods=n_steps, freq="h", name="time")
        columns = [f"v{j}" for j in range(record.shape[1])]
        parts[name] = pd.DataFrame(record[:n_steps], stamps, columns)
    return pd.concat(parts, names=["tube", "time"])


@pytest.mark.parametrize("side", ["X", "y", "both"])
def test_panels(side):
    stacks = pair(2, 2, missing=0.1)
    X, y = tables(missing=0.1)
    X = X if side == "y" else as_panel(stacks[0])
    y = y if side == "X" else as_panel(stacks[1])
    linker = everything(small().fit(X, y), X, y)
    for found, wanted in ((linker.predict(X), y), (linker.predict_inverse(y), X)):
        assert found.shape == wanted.shape
        pd.testing.assert_index_equal(found.columns, wanted.columns)
        assert found.index.names == wanted.index.names
        labels = found.index.get_level_values("tube").unique()
        pd.testing.assert_index_equal(labels, ROWS)
    assert list(linker.transform(X).index) == list(ROWS)
    assert list(linker.out_of_range(X).index) == list(ROWS)
    few = X.loc[list(ROWS[4:6])]
    labels = linker.predict(few).index.get_level_values("tube").unique()
    assert list(labels) == ["s4", "s5"]


def test_panel_of_unequal_lengths():
    panel = as_panel(pair(2)[0], [T - i % 4 for i in range(N)])
    y = tables()[1]
    linker = everything(small().fit(panel, y), panel, y)
    assert linker.predict(panel).index.equals(ROWS)
    back = linker.predict_inverse(y[:3])
    assert back.shape == (3 * T, 2) and back.index.names == ["tube", "time"]
    late = panel.loc[["s3", "s5"]].rename(index=lambda t: t + pd.Timedelta(days=400), level="time")
    found = linker.predict(late)
    np.testing.assert_allclose(found, linker.predict(panel).loc[["s3", "s5"]], atol=1e-9)


# -- xarray -----------------------------------------------------------------------------------


def dataarrays(**options):
    X, y = flat(**options)
    coords = {"record": ROWS.to_numpy(), "q": Q.to_numpy(), "batch": ("record", np.arange(N) % 3)}
    spectrum = {"record": ROWS.to_numpy(), "wavelength": NM.to_numpy()}
    return (
        xarray().DataArray(X, coords, ["record", "q"], name="I", attrs={"units": "1/cm"}),
        xarray().DataArray(y, spectrum, ["record", "wavelength"], name="A", attrs={"lamp": "D2"}),
    )


def test_dataarrays_with_coords_and_attrs():
    X, y = dataarrays(missing=0.1)
    linker = everything(small().fit(X, y), X, y)
    for found, wanted in ((linker.predict(X), y), (linker.predict_inverse(y), X)):
        assert found.dims == wanted.dims and found.name == wanted.name
        assert found.attrs == wanted.attrs
        for dim in wanted.dims:
            np.testing.assert_array_equal(found[dim], wanted[dim])
    assert linker.sample(X, 2).sizes == {"sample": 2, "record": N, "wavelength": U}
    assert linker.predict_interval(X).lower.dims == y.dims
    codes = linker.transform(X)
    assert codes.dims == ("record", "latent") and codes["batch"].equals(X["batch"])
    assert linker.out_of_range(X).dims == ("record",)
    some = linker.predict(X.isel(record=[5, 2]))
    assert list(some["record"].values) == ["s5", "s2"]
    np.testing.assert_allclose(some, linker.predict(X)[[5, 2]], atol=1e-9)
    turned = linker.predict(X.transpose("q", "record"))
    np.testing.assert_array_equal(turned, linker.predict(X))


def test_dataarray_beside_a_frame():
    X, frame = dataarrays()[0], tables()[1]
    linker = everything(small().fit(X, frame), X, frame)
    found = linker.predict(X)
    assert list(found.index) == list(ROWS) and found.columns.equals(NM)
    np.testing.assert_array_equal(found, small().fit(*tables()).predict(tables()[0]))
    back = linker.predict_inverse(frame[3:5])
    assert back.dims == X.dims and list(back["record"].values) == ["s3", "s4"]


def test_dataarray_of_one_number_for_each_record():
    X, y = dataarrays()
    line = y[:, 2]
    linker = everything(small().fit(X, line), X, line)
    found = linker.predict(X)
    assert found.dims == ("record",) and found.attrs == line.attrs and found.name == line.name
    np.testing.assert_array_equal(found["record"], X["record"])
    assert linker.sample(X, 3).sizes == {"sample": 3, "record": N}
    assert linker.predict_inverse(line).sizes == X.sizes


def test_dataset():
    X, y = dataarrays()
    data = xarray().Dataset({"I": X, "J": 2 * X}, attrs={"k": 1})
    linker = everything_but_arrays(small().fit(data, y), data, y)
    found = linker.predict_inverse(y)
    assert isinstance(found, type(data)) and set(found.data_vars) == {"I", "J"}
    assert found.attrs == data.attrs and found["I"].attrs == X.attrs
    assert linker.n_features_in_ == 2


def everything_but_arrays(linker, X, y):
    finite(linker.predict(X))
    finite(linker.predict_inverse(y).to_dataarray())
    finite(linker.link(X, y).scores)
    return linker


def test_land_comes_back_as_nan():
    land = np.array([[False, True, False], [False, False, True]])
    cells = np.where(land, np.nan, 1.0 + np.arange(6).reshape(2, 3))
    X, y = flat()
    coords = {
        "record": ROWS.to_numpy(),
        "time": pd.date_range("2024-01-01", periods=U, freq="6h"),
        "lat": [40.0, 41.0],
        "lon": [5.0, 6.0, 7.0],
    }
    grid = xarray().DataArray(
        y[:, :, None, None] * cells, coords, list(coords), name="sst", attrs={"units": "degC"}
    )
    linker = small().fit(X, grid)
    for found in (linker.predict(X), *linker.predict_interval(X), linker.sample(X, 2)):
        assert found.attrs == grid.attrs and found.name == "sst"
        missing = found.isnull().transpose(..., "lat", "lon").to_numpy()
        np.testing.assert_array_equal(missing, np.broadcast_to(land, missing.shape))
    finite(linker.predict_inverse(grid))
    assert linker.predict(X).sizes == grid.sizes


# -- what is missing --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tables, flat, pair])
def test_unpaired_rows_on_both_sides(kind):
    data = kind()
    for side, rows in zip(data, (slice(0, 10), slice(20, 35)), strict=True):
        (side.iloc if hasattr(side, "iloc") else side)[rows] = np.nan
    linker = everything(small().fit(*data), *data)
    paired = np.r_[10:20, 35:40]
    dropped = [side.iloc[paired] if hasattr(side, "iloc") else side[paired] for side in data]
    alone = small().fit(*dropped)
    assert not np.array_equal(linker.predict(data[0]), alone.predict(data[0]))
    rows = np.asarray(linker.predict(data[0]))[:10]
    np.testing.assert_array_equal(rows, np.broadcast_to(rows[0], rows.shape))  # nothing known
    whole = linker.cross_correlation(*data)
    np.testing.assert_allclose(whole, linker.cross_correlation(*dropped), atol=1e-9)


def test_more_unpaired_rows_of_one_side_alone():
    for name in (0, 1):
        data = flat()
        data[name][5:] = np.nan
        everything(small().fit(*data), *data)


def test_half_of_everything_missing():
    X, y = flat(missing=0.5)
    X[:, 3], y[:, 2] = np.nan, np.nan
    X[0, 3], y[1, 2] = 0.1, 0.2  # seen once
    everything(small().fit(X, y), X, y)
    nothing = np.full((2, T), np.nan)
    finite(small().fit(X, y).predict(nothing))


def test_masks_stand_for_nan():
    full = tables()
    rng = np.random.default_rng(1)
    mask, y_mask = (side.notna() & (rng.random(side.shape) < 0.8) for side in full)
    mask.iloc[3], y_mask.iloc[6] = False, False
    gaps = full[0].where(mask), full[1].where(y_mask)
    expected = small().fit(*gaps).predict(gaps[0])
    found = small().fit(*full, mask=mask, y_mask=y_mask).predict(full[0], mask=mask)
    pd.testing.assert_frame_equal(found, expected)
    arrays = small().fit(*full, mask=mask.to_numpy(), y_mask=y_mask.to_numpy())
    pd.testing.assert_frame_equal(arrays.predict(full[0], mask=mask.to_numpy()), expected)
    shuffled = small().fit(*full, mask=mask[::-1], y_mask=y_mask[::-1])  # aligned by label
    pd.testing.assert_frame_equal(shuffled.predict(gaps[0]), expected)
    line = small().fit(full[0], full[1].iloc[:, 0], y_mask=y_mask.iloc[:, 0])
    finite(line.predict(full[0]))


# -- error bars, regions, logarithms ----------------------------------------------------------


def test_error_bars_say_which_points_count(full_epochs):
    X, y = tables()
    rng = np.random.default_rng(2)
    y_sigma = y * 0.0 + np.where(rng.random(y.shape) < 0.4, 1.0, 0.01)
    noisy = y + rng.standard_normal(y.shape) * y_sigma
    plain = trained().fit(X, noisy)
    told = trained().fit(X, noisy, y_sigma=y_sigma)

    def error(linker):
        return float(((linker.predict(X) - y) ** 2).mean(axis=None))

    assert error(told) < 0.5 * error(plain)


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_error_bars_have_no_unit_of_their_own(factor):
    X, y = flat(missing=0.1)
    sigma = np.random.default_rng(0).uniform(0.1, 1.0, X.shape)
    expected = small().fit(X, y, sigma=sigma).predict(X)
    found = small().fit(X, y, sigma=factor * sigma).predict(X)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_error_bars_where_nothing_was_measured_are_not_looked_at():
    X, y = flat(missing=0.2)
    sigma = np.where(np.isnan(X), 0.0, 0.3)
    found = small().fit(X, y, sigma=sigma).predict(X)
    nowhere = np.where(np.isnan(X), np.nan, 0.3)
    np.testing.assert_array_equal(small().fit(X, y, sigma=nowhere).predict(X), found)


def test_error_bars_of_all_containers():
    for X, y in (tables(missing=0.1), pair(2, 2, missing=0.1), dataarrays(missing=0.1)):
        errors = {"sigma": abs(X) + 0.1, "y_sigma": abs(y) * 0.0 + 0.2}
        finite(small().fit(X, y, **errors).predict(X))
    X, y = tables()
    framed = small().fit(X, y, sigma=abs(X) + 0.1)
    beside = small().fit(X, y, sigma=(abs(X) + 0.1).to_numpy())
    pd.testing.assert_frame_equal(framed.predict(X), beside.predict(X))
    line = small().fit(X, y.iloc[:, 0], y_sigma=abs(y.iloc[:, 0]) + 0.1)
    finite(line.predict(X))


def test_regions_in_units_of_the_axis():
    X, y = tables()
    weight = np.where((Q >= 0.1) & (Q <= 0.35), 4.0, 1.0)
    y_weight = np.where(NM >= 441.0, 0.0, 1.0)
    settings = {"x_regions": {(0.1, 0.35): 4.0}, "y_regions": {(441.0, 460.0): 0}}
    regions = small(**settings).fit(X, y)
    numbers = small(x_regions=weight, y_regions=list(y_weight)).fit(X, y)
    pd.testing.assert_frame_equal(regions.predict(X), numbers.predict(X))
    positions = small(x_regions={(0, 2): 4.0}, y_regions={(5, 6): 0.0})
    found = positions.fit(X.to_numpy(), y.to_numpy()).predict(X.to_numpy())
    np.testing.assert_array_equal(found, regions.predict(X))
    assert not np.array_equal(small().fit(X, y).predict(X), regions.predict(X))
    arrays = dataarrays()
    np.testing.assert_array_equal(small(**settings).fit(*arrays).predict(arrays[0]), found)


def test_a_region_with_more_weight_fits_better(full_epochs):
    X, y = tables()
    rng = np.random.default_rng(0)
    other = y + np.where(np.arange(U) < 3, 0.0, 1.0) * rng.standard_normal(y.shape)
    heavy = trained(y_regions={(400.0, 420.0): 50.0}).fit(X, other)
    light = trained(y_regions={(400.0, 420.0): 0.02}).fit(X, other)
    part = list(NM[:3])

    def error(linker):
        return float(((linker.predict(X) - other)[part] ** 2).mean(axis=None))

    assert error(heavy) < error(light)


def intensities():
    """Six decades with zeros and negatives, as of counts less a background."""
    X, y = tables()
    rng = np.random.default_rng(3)
    y = 10.0 ** (6.0 * y)
    y = y.mask(rng.random(y.shape) < 0.05, 0.0)
    return X, y.mask(rng.random(y.shape) < 0.03, -2.0)


def test_logarithms_come_back_in_the_units_given(full_epochs):
    X, y = intensities()
    linker = everything(trained(log_scale=(False, True)).fit(X, y), X, y)
    rest = y > 10.0
    decades = np.log10(linker.predict(X).clip(lower=1e-3)) - np.log10(y.where(rest))
    assert decades.abs().median(axis=None) < 0.5
    lower, upper = linker.predict_interval(X)
    assert (lower <= upper).all(axis=None)
    assert 0.6 < ((y >= lower) & (y <= upper)).mean(axis=None) <= 1.0
    both = everything(small(log_scale=True).fit(y, y.to_numpy()), y, y.to_numpy())
    pd.testing.assert_index_equal(both.predict_inverse(y.to_numpy()).columns, NM)


def test_logarithms_with_error_bars_and_extremes():
    X, y = intensities()
    finite(small(log_scale=(False, True)).fit(X, y, y_sigma=abs(y) * 0.1 + 1.0).predict(X))
    for factor in (1e-12, 1e12):
        plain = small(log_scale=(False, True)).fit(X, y)
        scaled = small(log_scale=(False, True)).fit(X, factor * y)
        np.testing.assert_allclose(scaled.predict(X), factor * plain.predict(X), rtol=1e-3)


# -- codes along time -------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["auto", "conv", "resnet"])
def test_codes_along_time(architecture):
    X = np.random.default_rng(0).standard_normal((N, 16, 1)).cumsum(axis=1)
    y = np.concatenate([np.sin(X), X**2], axis=2)
    X[:5], y[5:9] = np.nan, np.nan
    linker = small(latent="map", architecture=architecture, hidden_sizes=(4, 4)).fit(X, y)
    everything(linker, X, y)
    steps = linker.n_latent_ // 2
    assert steps > 1 and linker.n_latent_ == 2 * steps
    assert linker.transform(X).shape == (N, 2 * steps)
    assert list(linker.get_feature_names_out())[-1] == f"z{2 * steps - 1}"
    assert linker.cross_correlation(X, y).shape == (2, 2)
    assert linker.active_units_.shape == (2,)


def test_convolutions_with_one_code_for_records_of_other_lengths():
    X, y = pair(2, 1)
    linker = small(architecture="conv", hidden_sizes=(4, 4)).fit(X, y)
    everything(linker, X, y)
    two = small(architecture=("conv", "mlp"), hidden_sizes=((4, 4), None)).fit(X, y)
    assert everything(two, X, y).n_latent_ == 2


# -- extremes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(1e12, 1e-12), (1e-12, 1e12)])
def test_huge_and_tiny_scales(first, second):
    X, y = flat(missing=0.1)
    plain = small().fit(X, y)
    scaled = everything(small().fit(first * X, second * y), first * X, second * y)
    np.testing.assert_allclose(scaled.predict(first * X), second * plain.predict(X), rtol=1e-5)
    np.testing.assert_allclose(
        scaled.predict_inverse(second * y), first * plain.predict_inverse(y), rtol=1e-5, atol=1e-18
    )
    found, expected = scaled.link(first * X, second * y), plain.link(X, y)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3, atol=1e-3)


def test_a_large_offset():
    X, y = flat()
    plain, moved = small().fit(X, y), small().fit(X + 1e9, y - 1e9)
    found = moved.predict(X + 1e9) + 1e9
    np.testing.assert_allclose(found, plain.predict(X), atol=1e-3)


@pytest.mark.parametrize("scaling", ["auto", "profile", "variable", "column"])
@pytest.mark.parametrize("n_records", [1, 2, 3])
def test_few_records(n_records, scaling):
    X, y = flat(n_records=n_records)
    linker = small(scaling=scaling).fit(X, y)
    for found in (linker.predict(X), linker.predict_inverse(y), linker.sample(X, 2)):
        finite(found)
    if n_records > 1:  # there is no R2 of one
        everything(linker, X, y)
    assert not linker.out_of_range(X).any() and not linker.out_of_range_inverse(y).any()


def test_few_columns():
    X, y = flat(missing=0.1)
    for data in ((X[:, :1], y), (X, y[:, 1:2]), (X[:, 2:3], y[:, 1:2])):
        everything(small().fit(*data), *data)
    everything(small(architecture="conv").fit(X[:, :1], y[:, :1]), X[:, :1], y[:, :1])


def test_constant_columns_come_back_exactly():
    X, y = tables()
    X[Q[3]], y[NM[0]] = 7.25, -1e12
    linker = everything(small().fit(X, y), X, y)
    assert (linker.predict(X)[NM[0]] == -1e12).all()
    assert (linker.predict_inverse(y)[Q[3]] == 7.25).all()


@pytest.mark.parametrize("factor", [1e3, 1e12, 1e300])
def test_records_far_away_are_finite_and_flagged(factor):
    X, y = flat()
    linker = small().fit(X, y)
    everything(linker, factor * X, y)
    finite(linker.predict_inverse(factor * y))
    finite(linker.predict_interval_inverse(factor * y))
    assert linker.out_of_range(factor * (X + 1.0)).all()
    assert linker.out_of_range_inverse(factor * (y + 1.0)).all()


# -- what is out of range, bands, draws, links ------------------------------------------------


@pytest.fixture(scope="module")
def fitted(epochs_of):
    X, y = tables()
    with epochs_of(20):
        return trained().fit(X, y), X, y


def test_out_of_range(fitted):
    linker, X, y = fitted
    assert linker.out_of_range(X).mean() < 0.05 and linker.out_of_range_inverse(y).mean() < 0.05
    fresh_X, fresh_y = tables(seed=7)
    assert linker.out_of_range(fresh_X).mean() < 0.2
    assert linker.out_of_range_inverse(fresh_y).mean() < 0.2
    assert linker.out_of_range(X + 3.0).all() and linker.out_of_range_inverse(y + 3.0).all()
    strange = X.copy()
    strange.iloc[4] = strange.iloc[4].to_numpy()[::-1]  # usual values in an unusual order
    flags = linker.out_of_range(strange)
    assert flags["s4"] and flags.drop("s4").equals(linker.out_of_range(X).drop("s4"))
    one = X.copy()
    one.iloc[2, 5] = 1e6
    assert linker.out_of_range(one)["s2"]
    hidden = linker.out_of_range(one, mask=one < 1e5)
    assert not hidden["s2"]


@pytest.mark.parametrize("way", ["predict_interval", "predict_interval_inverse"])
def test_bands_are_nested(fitted, way):
    linker, X, y = fitted
    data = X if way == "predict_interval" else y
    inner = getattr(linker, way)(data, 0.5)
    middle = getattr(linker, way)(data)
    outer = getattr(linker, way)(data, np.float32(0.99))
    chain = [outer.lower, middle.lower, inner.lower, inner.upper, middle.upper, outer.upper]
    for low, high in pairwise(chain):
        assert (low < high).all(axis=None)
    target = y if way == "predict_interval" else X
    for coverage, band in ((0.5, inner), (0.9, middle), (0.99, outer)):
        inside = ((target >= band.lower) & (target <= band.upper)).mean(axis=None)
        assert inside > coverage - 0.3


def test_bands_do_not_depend_on_how_many_records_are_drawn_at_once(fitted, monkeypatch):
    linker, X, _ = fitted
    whole = linker.predict_interval(X)
    monkeypatch.setattr(predicting, "_VALUES_AT_ONCE", 7000)  # two records
    for found, expected in zip(linker.predict_interval(X), whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_values_between_two_bounds_stay_there():
    X, y = flat(missing=0.1)
    linker = small(likelihood=("gaussian", "bernoulli")).fit(X, y)
    low, high = np.nanmin(y, axis=0), np.nanmax(y, axis=0)
    margin = 1e-9
    for found in (linker.predict(X), *linker.predict_interval(X, 0.99), *linker.sample(X, 20)):
        assert (found >= low - margin).all() and (found <= high + margin).all()


def test_draws_have_the_spread_of_the_bands(fitted):
    linker, X, _ = fitted
    draws = linker.sample(X[:6], 600)
    assert draws.index.names == ["sample", "tube"] and draws.columns.equals(NM)
    band = linker.predict_interval(X[:6], 0.8)
    grouped = draws.groupby(level="tube", sort=False)
    width = band.upper - band.lower
    for quantile, bound in ((0.1, band.lower), (0.9, band.upper)):
        apart = (grouped.quantile(quantile).loc[bound.index] - bound).abs()
        assert (apart < 0.2 * width).all(axis=None)
    centre = linker.predict(X[:6])
    assert ((grouped.mean().loc[centre.index] - centre).abs() < 0.2 * width).all(axis=None)


def test_link_finds_the_sample(fitted):
    linker, X, y = fitted
    order = np.random.default_rng(0).permutation(N)
    found = linker.link(X, y.iloc[order], n_best=5)
    assert found.scores.shape == (N, N) and found.best.shape == (N, 5)
    truth = np.argsort(order)
    assert (found.best == truth[:, None]).any(axis=1).mean() > 0.5  # one in eight by chance
    assert sorted(found.assignment) == list(range(N))
    best = np.take_along_axis(found.scores, found.best, axis=1)
    assert (np.diff(best, axis=1) <= 0).all()
    np.testing.assert_array_equal(best[:, 0], found.scores.max(axis=1))
    total = found.scores[np.arange(N), found.assignment].sum()
    assert total >= np.trace(found.scores[:, truth]) - 1e-9


@pytest.mark.parametrize(("n", "m"), [(3, 10), (10, 3), (1, 1), (5, 1)])
def test_link_of_other_numbers_of_records(fitted, n, m):
    linker, X, y = fitted
    found = linker.link(X[:n], y[:m], n_best=4)
    assert found.scores.shape == (n, m) and found.best.shape == (n, min(4, m))
    assert found.assignment.shape == (n,)
    used = found.assignment[found.assignment >= 0]
    assert len(used) == min(n, m) == len(set(used))
    assert (found.assignment == -1).sum() == max(0, n - m)


def test_link_with_missing_entries(fitted):
    linker, X, y = fitted
    rng = np.random.default_rng(5)
    X, y = (side.mask(rng.random(side.shape) < 0.3) for side in (X, y))
    found = linker.link(X, y)
    finite(found.scores)
    assert (found.best == np.arange(N)[:, None]).any(axis=1).mean() > 0.4
    X.iloc[0], y.iloc[1] = np.nan, np.nan
    finite(linker.link(X, y).scores)


def test_cross_correlation_of_the_codes(fitted):
    linker, X, y = fitted
    found = linker.cross_correlation(X, y)
    first, second = linker.transform(X, y)
    expected = np.corrcoef(first.T, second.T)[:2, 2:]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (np.diag(found)[linker.active_units_] > 0.8).all()
    assert linker.active_units_.any()
