"""Point metrics against sklearn and slow loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as skm
from numpy.testing import assert_allclose

from tsvae.metrics import (
    mean_absolute_error,
    mean_absolute_scaled_error,
    root_mean_squared_error,
    symmetric_mean_absolute_percentage_error,
)

POINT = [
    mean_absolute_error,
    root_mean_squared_error,
    symmetric_mean_absolute_percentage_error,
]


def loop_metric(name, y, p, weights):
    """Slow oracle: one variable, one value at a time."""
    total, weight = 0.0, 0.0
    for value, pred, w in zip(y.ravel(), p.ravel(), weights.ravel(), strict=True):
        if np.isnan(value) or w == 0:
            continue
        if name == "mean_absolute_error":
            loss = abs(value - pred)
        elif name == "root_mean_squared_error":
            loss = (value - pred) ** 2
        else:
            size = abs(value) + abs(pred)
            loss = 2 * abs(value - pred) / size if size else 0.0
        total, weight = total + w * loss, weight + w
    mean = total / weight
    return np.sqrt(mean) if name == "root_mean_squared_error" else mean


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(3, 7, 2))
    p = rng.normal(size=(3, 7, 2))
    y[rng.random(y.shape) < 0.3] = np.nan
    return y, p, rng.random((3, 7))


@pytest.mark.parametrize("metric", POINT)
def test_against_loops_with_missing_and_weights(metric, data):
    y, p, weights = data
    raw = metric(y, p, sample_weight=weights, multioutput="raw_values")
    expected = [loop_metric(metric.__name__, y[..., f], p[..., f], weights) for f in range(2)]
    assert_allclose(raw, expected, rtol=1e-12)
    assert metric(y, p, sample_weight=weights) == pytest.approx(np.mean(expected))
    weighted = metric(y, p, sample_weight=weights, multioutput=[1, 3])
    assert weighted == pytest.approx(np.average(expected, weights=[1, 3]))


@pytest.mark.parametrize("multioutput", ["raw_values", "uniform_average", [0.3, 0.7]])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (mean_absolute_error, skm.mean_absolute_error),
        (root_mean_squared_error, skm.root_mean_squared_error),
    ],
)
def test_against_sklearn_on_complete_tables(ours, theirs, multioutput):
    rng = np.random.default_rng(1)
    y, p, w = rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), rng.random(9)
    options = {"multioutput": multioutput, "sample_weight": w}
    assert_allclose(ours(y, p, **options), theirs(y, p, **options), rtol=1e-12)


@pytest.mark.parametrize("metric", POINT)
def test_mask_is_deletion(metric, data):
    y, p, _ = data
    y = np.nan_to_num(y)
    mask = np.random.default_rng(2).random(y.shape) < 0.6
    hidden = np.where(mask, y, np.nan)
    assert metric(y, p, mask=mask) == metric(hidden, p)
    garbage = np.where(mask, p, np.inf)  # a forecast that is not scored may be anything
    assert metric(y, garbage, mask=mask) == metric(hidden, p)


def test_mask_of_leading_axes(data):
    y, p, _ = data
    rows = np.array([True, False, True])
    assert mean_absolute_error(y, p, mask=rows) == mean_absolute_error(y[rows], p[rows])


def test_frames_are_matched_by_label():
    index = pd.date_range("2024-01-01", periods=4, name="time")
    y = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [5.0, 6, np.nan, 8]}, index=index)
    p = y.add([1.0, 2.0]).fillna(0.0)
    shuffled = p.iloc[[3, 1, 0, 2], [1, 0]]
    assert_allclose(mean_absolute_error(y, shuffled, multioutput="raw_values"), [1, 2])
    assert mean_absolute_error(y.iloc[:2], shuffled) == pytest.approx(1.5)
    assert_allclose(mean_absolute_error(y, shuffled.to_numpy()[[2, 1, 3, 0]][:, ::-1]), 1.5)
    assert mean_absolute_error(y["a"], p["a"]) == 1
    assert mean_absolute_error(y["a"], p[["a"]]) == 1


def test_nullable_and_masked_arrays_carry_their_gaps():
    y = pd.DataFrame({"a": pd.array([1.0, None, 3.0], dtype="Float64")})
    assert mean_absolute_error(y, [[2.0], [9.0], [3.0]]) == 0.5
    masked = np.ma.masked_equal([1.0, -1.0, 3.0], -1.0)
    assert mean_absolute_error(masked, [2.0, 9.0, 3.0]) == 0.5


def test_xarray_is_matched_by_dims_and_labels():
    xr = pytest.importorskip("xarray")
    y = xr.DataArray(
        np.arange(6.0).reshape(3, 2), dims=("time", "v"), coords={"time": [0, 1, 2], "v": [0, 1]}
    )
    p = (y + xr.DataArray([1.0, 3.0], dims="v")).transpose("v", "time").isel(time=[2, 0, 1])
    assert_allclose(mean_absolute_error(y, p, multioutput="raw_values"), [1, 3])
    with pytest.raises(ValueError, match="lacks labels of y_true"):
        mean_absolute_error(y, p.isel(time=[0, 1]))
    with pytest.raises(ValueError, match="no dim 'v'"):
        mean_absolute_error(y, p.isel(v=0))


def test_variable_never_observed_has_no_part():
    y = np.array([[1.0, np.nan], [2.0, np.nan]])
    p = np.array([[2.0, 0.0], [4.0, np.nan]])
    raw = mean_absolute_error(y, p, multioutput="raw_values")
    assert_allclose(raw, [1.5, np.nan])
    assert mean_absolute_error(y, p) == 1.5
    assert mean_absolute_error(y, p, multioutput=[0.5, 0.5]) == 1.5
    with pytest.raises(ValueError, match="no positive weight on an observed variable"):
        mean_absolute_error(y, p, multioutput=[0.0, 1.0])


@pytest.mark.parametrize(
    ("y", "p", "options", "match"),
    [
        ([1.0, 2.0], [1.0], {}, "must have shape"),
        ([1.0, 2.0], [[1.0, 2.0]], {}, "one-dimensional"),
        (np.ones((2, 3)), np.ones((3, 2)), {}, r"\(2, 3\); got \(3, 2\)"),
        ([np.nan], [1.0], {}, "Nothing to score"),
        ([1.0], [1.0], {"mask": [False]}, "Nothing to score"),
        ([1.0], [1.0], {"sample_weight": [0.0]}, "Nothing to score"),
        ([1.0, 2.0], [1.0, np.nan], {}, r"y_pred is not finite at \(1, 0\)"),
        ([1.0, np.inf], [1.0, 1.0], {}, "infinite at"),
        ([1.0], [1.0], {"sample_weight": [-1.0]}, "not negative"),
        ([1.0], [1.0], {"mask": [True, True]}, "mask must have the shape"),
        ([1.0], [1.0], {"multioutput": "median"}, "multioutput must be"),
        ([1.0], [1.0], {"multioutput": [1.0, 2.0]}, "one weight for each of the 1"),
        (["a"], [1.0], {}, "must hold numbers"),
        (3.0, 3.0, {}, "got a scalar"),
    ],
)
@pytest.mark.parametrize("metric", POINT)
def test_errors(metric, y, p, options, match):
    with pytest.raises(ValueError, match=match):
        metric(y, p, **options)


def test_label_errors():
    y = pd.DataFrame({"a": [1.0, 2.0]}, index=[10, 11])
    with pytest.raises(ValueError, match=r"lacks 1 of the 2 row labels.*first is 10"):
        mean_absolute_error(y, pd.DataFrame({"a": [1.0, 2.0]}, index=[11, 12]))
    with pytest.raises(ValueError, match="lacks the column 'a'"):
        mean_absolute_error(y, y.rename(columns={"a": "b"}))
    with pytest.raises(ValueError, match="has a column 'b' that y_true lacks"):
        mean_absolute_error(y, y.assign(b=1.0))
    with pytest.raises(ValueError, match="row label 10 twice"):
        mean_absolute_error(y, y.iloc[[0, 0, 1]])


def loop_mase(y, p, train, season):
    """Slow MASE of one panel (B, H) with training (B, T)."""
    scaled = []
    for b in range(len(y)):
        steps = [abs(train[b, t] - train[b, t - season]) for t in range(season, train.shape[1])]
        scale = np.mean([s for s in steps if not np.isnan(s)])
        scaled += [
            abs(y[b, h] - p[b, h]) / scale for h in range(y.shape[1]) if not np.isnan(y[b, h])
        ]
    return np.mean(scaled)


@pytest.mark.parametrize("season", [1, 4])
def test_mase_of_a_panel_against_loops(season):
    rng = np.random.default_rng(3)
    y, p = rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 5, 2))
    train = rng.normal(size=(3, 20, 2)) * np.array([1.0, 10.0, 100.0])[:, None, None]
    y[0, 1, 0] = train[1, 3:5, 1] = train[2, 15:, 0] = np.nan
    expected = [loop_mase(y[..., f], p[..., f], train[..., f], season) for f in range(2)]
    options = {"y_train": train, "seasonality": season}
    raw = mean_absolute_scaled_error(y, p, multioutput="raw_values", **options)
    assert_allclose(raw, expected, rtol=1e-12)

    def frame(values):
        series, steps = np.indices(values.shape[:2])
        index = pd.MultiIndex.from_arrays([series.ravel(), steps.ravel()], names=["s", "time"])
        table = pd.DataFrame(values.reshape(-1, 2), index=index, columns=["a", "b"])
        return table.sample(frac=1.0, random_state=0)  # interleaved

    options["y_train"] = frame(train)
    assert_allclose(
        mean_absolute_scaled_error(frame(y), frame(p), multioutput="raw_values", **options),
        expected,
        rtol=1e-12,
    )


def test_mase_shares_one_training_series_over_origins():
    rng = np.random.default_rng(4)
    y, p, train = rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 5, 2)), rng.normal(size=(30, 2))
    shared = mean_absolute_scaled_error(y, p, y_train=train)
    repeated = mean_absolute_scaled_error(y, p, y_train=np.repeat(train[None], 3, axis=0))
    assert shared == pytest.approx(repeated)


def test_mase_of_naive_forecast_on_its_training_data_is_one():
    y = np.random.default_rng(5).normal(size=50)
    assert mean_absolute_scaled_error(y[1:], y[:-1], y_train=y) == pytest.approx(1.0)


def test_mase_leaves_out_constant_series_with_a_warning():
    y, p = np.ones((2, 3, 1)), np.zeros((2, 3, 1))
    train = np.stack([np.zeros((6, 1)), np.arange(6.0)[:, None] * 2])
    with pytest.warns(UserWarning, match="50.0% of the values are left out"):
        assert mean_absolute_scaled_error(y, p, y_train=train) == 0.5


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"y_train": [1.0, 1.0, 1.0]}, ValueError, "gives no scale"),
        ({"y_train": [1.0, 2.0], "seasonality": 2}, ValueError, "gives no scale"),
        ({"y_train": np.ones((4, 2))}, ValueError, "must have the 1 variables"),
        ({"y_train": np.ones((3, 4, 1))}, ValueError, "does not fit y_true"),
        ({"y_train": [1.0, 2.0], "seasonality": 0}, ValueError, "at least 1"),
        ({"y_train": [1.0, 2.0], "seasonality": 1.5}, TypeError, "integer"),
    ],
)
def test_mase_errors(options, error, match):
    with pytest.raises(error, match=match):
        mean_absolute_scaled_error([1.0, 2.0], [1.0, 2.0], **options)
