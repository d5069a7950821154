"""Calendar covariates and seasonal periods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsvae.panel import calendar_features, read_panel, seasonal_periods


def index_of(stamps):
    return read_panel(pd.Series(np.arange(float(len(stamps))), index=stamps)).index


PERIODS = [
    ("s", [60, 3600]),
    ("min", [60, 1440, 10080]),
    ("15min", [96, 672]),
    ("30min", [48, 336]),
    ("h", [24, 168, 8766]),
    ("6h", [4, 28, 1461]),
    ("D", [7, 365.25]),
    ("B", [5, 365.25 * 5 / 7]),
    ("W-SUN", [365.25 / 7]),
    ("MS", [12]),
    ("ME", [12]),
    ("QE-DEC", [4]),
    ("YS-JAN", []),
]


@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
@pytest.mark.parametrize(("freq", "expected"), PERIODS)
def test_seasonal_periods(freq, expected, tz):
    stamps = pd.date_range("2024-01-01", periods=20, freq=freq, tz=tz)
    assert seasonal_periods(index_of(stamps)) == pytest.approx(expected)


PERIOD_AXES = [
    ("h", [24, 168, 8766]),
    ("D", [7, 365.25]),
    ("M", [12]),
    ("Q-DEC", [4]),
    ("Y-DEC", []),
    ("2M", [6]),
]


@pytest.mark.parametrize(("freq", "expected"), PERIOD_AXES)
def test_seasonal_periods_of_periods(freq, expected):
    stamps = pd.period_range("2024-01-01", periods=9, freq=freq)
    assert seasonal_periods(index_of(stamps)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("calendar", "freq", "expected"),
    [
        ("noleap", "D", [7, 365]),
        ("360_day", "D", [7, 360]),
        ("standard", "MS", [12]),
        ("360_day", "MS", [12]),
        ("noleap", "YS", []),
    ],
)
def test_seasonal_periods_of_cftime(calendar, freq, expected):
    xr = pytest.importorskip("xarray")
    pytest.importorskip("cftime")
    stamps = xr.date_range("2001-01-01", periods=5, freq=freq, calendar=calendar, use_cftime=True)
    assert seasonal_periods(index_of(stamps)) == pytest.approx(expected)
    features = calendar_features(index_of(stamps), 2)
    assert features.values.shape == (1, 7, len(features.names))
    assert np.isfinite(features.values).all()


@pytest.mark.parametrize(
    "stamps", [pd.RangeIndex(5), pd.timedelta_range("0h", periods=5, freq="h")]
)
def test_axes_outside_the_calendar_have_none(stamps):
    index = index_of(stamps)
    assert seasonal_periods(index) == []
    features = calendar_features(index, 3)
    assert features.values.shape == (1, 8, 0) and features.names == []


def test_arrays_and_single_stamps_have_no_season():
    assert seasonal_periods(read_panel(np.zeros((4, 1))).index) == []
    assert seasonal_periods(index_of(pd.DatetimeIndex(["2024-01-01"]))) == []
    assert calendar_features(index_of(pd.DatetimeIndex(["2024-01-01"]))).names == []


def test_hourly_features_by_hand():
    stamps = pd.date_range("2024-02-28", periods=48, freq="h", tz="Europe/Berlin")
    values, names = calendar_features(index_of(stamps[:40]), 8)
    assert values.shape == (1, 48, 14) and len(names) == 14
    table = pd.DataFrame(values[0], columns=names, index=stamps)
    hour = 2 * np.pi * stamps.hour / 24
    np.testing.assert_allclose(table["hour_of_day_sin1"], np.sin(hour), atol=1e-12)
    np.testing.assert_allclose(table["hour_of_day_cos2"], np.cos(2 * hour), atol=1e-12)
    day = 2 * np.pi * (stamps.day_of_week + stamps.hour / 24) / 7
    np.testing.assert_allclose(table["day_of_week_sin3"], np.sin(3 * day), atol=1e-12)
    year = 2 * np.pi * (stamps.day_of_year - 1 + stamps.hour / 24) / 366
    np.testing.assert_allclose(table["day_of_year_cos1"], np.cos(year), atol=1e-12)


@pytest.mark.parametrize(
    ("freq", "cycles"),
    [
        ("h", {"hour", "week", "year"}),
        ("D", {"week", "year"}),
        ("W-SUN", {"year"}),
        ("MS", {"year"}),
        ("YS", set()),
    ],
)
def test_cycles_that_make_sense(freq, cycles):
    names = calendar_features(index_of(pd.date_range("2024-01-01", periods=4, freq=freq))).names
    assert {name.split("_")[0 if "hour" in name else 2] for name in names} == cycles


def test_chosen_cycles_and_positions():
    index = index_of(pd.date_range("2024-01-01", periods=4, freq="D"))
    features = calendar_features(index, names=["day_of_week"], positions=np.array([7, 0, 14]))
    np.testing.assert_allclose(features.values[0, 0], features.values[0, 1])
    with pytest.raises(ValueError, match="names must be 'auto' or a list"):
        calendar_features(index, names=["moon"])


def test_unequal_series_have_their_own_calendar():
    stamps = pd.date_range("2024-01-01", periods=10, freq="D")
    rows = pd.MultiIndex.from_tuples([("x", t) for t in stamps] + [("y", t) for t in stamps[3:5]])
    index = read_panel(pd.DataFrame({"a": 1.0}, index=rows)).index
    values = calendar_features(index, 2).values
    assert values.shape == (2, 12, 10)
    np.testing.assert_allclose(values[1, :9], values[0, 3:])
