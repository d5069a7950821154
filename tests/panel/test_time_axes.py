"""Steps are found or asked for; futures continue the calendar."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_index_equal

from tsvae.panel import read_panel, write


def panel_of(index, **kwargs):
    return read_panel(pd.DataFrame({"a": np.arange(float(len(index)))}, index=index), **kwargs)


def future_of(panel, horizon):
    return write(np.zeros((1, horizon, 1)), panel.index.future(horizon)).index


REGULAR = [
    "s", "10ms", "min", "15min", "30min", "h", "6h", "D", "2D", "W-SUN", "W-WED", "2W-MON", "B",
    "MS", "ME", "BMS", "BME", "QS-JAN", "QE-DEC", "QE-NOV", "QS-FEB", "BQE-DEC", "YS-JAN",
    "YE-DEC", "YE-JUN", "2MS", "2YS-JAN",
]  # fmt: skip


@pytest.mark.parametrize("tz", [None, "Europe/Berlin", "UTC"])
@pytest.mark.parametrize("freq", REGULAR)
def test_regular_axes_are_inferred_and_continued(freq, tz):
    full = pd.date_range("2022-03-11", periods=60, freq=freq, tz=tz)
    known = pd.DatetimeIndex(list(full[:40]), name="t")  # no freq attribute
    assert known.freq is None
    panel = panel_of(known)
    assert panel.n_steps == 40 and panel.index.freq == full.freqstr
    assert_index_equal(future_of(panel, 20), full[40:].rename("t"), exact=False)
    assert future_of(panel, 20).freq is not None


@pytest.mark.parametrize("freq", REGULAR)
def test_gaps_keep_the_step(freq):
    full = pd.date_range("2022-03-11", periods=80, freq=freq)
    rows = np.r_[0:12, 15, 16, 20:60]
    panel = panel_of(full[rows])
    assert panel.n_steps == 60
    np.testing.assert_array_equal(np.flatnonzero(panel.mask[0, :, 0]), rows)
    assert_index_equal(future_of(panel, 20), full[60:], exact=False)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetime_resolutions_are_kept(unit):
    index = pd.date_range("2024-01-01", periods=5, freq="h").as_unit(unit)
    assert future_of(panel_of(index), 2).unit == unit


def test_hours_across_daylight_saving():
    spring = pd.date_range("2024-03-30 22:00", periods=8, freq="h", tz="Europe/Berlin")
    autumn = pd.date_range("2024-10-26 22:00", periods=8, freq="h", tz="Europe/Berlin")
    for full in (spring, autumn):
        panel = panel_of(full[:3])
        assert_index_equal(future_of(panel, 5), full[3:])


def test_days_across_daylight_saving_keep_local_midnight():
    full = pd.date_range("2024-03-28", periods=8, freq="D", tz="Europe/Berlin")
    panel = panel_of(pd.DatetimeIndex(list(full[:5])))
    assert panel.n_steps == 5  # one of the gaps is 23 hours
    assert (future_of(panel, 3).hour == 0).all()
    assert_index_equal(future_of(panel, 3), full[5:], exact=False)


def test_a_daily_time_that_does_not_exist_is_shifted():
    index = pd.date_range("2024-03-28 02:30", periods=3, freq="D").tz_localize("Europe/Berlin")
    stamps = future_of(panel_of(index), 2)
    assert stamps[0] == pd.Timestamp("2024-03-31 03:00", tz="Europe/Berlin")
    assert stamps[1] == pd.Timestamp("2024-04-01 02:30", tz="Europe/Berlin")
    joined = index.append(stamps)
    assert panel_of(joined, freq="D").n_steps == 5


def test_month_ends_and_days_of_month():
    ends = pd.to_datetime(["2023-11-30", "2023-12-31", "2024-01-31"])
    assert future_of(panel_of(ends), 2).strftime("%Y-%m-%d").tolist() == [
        "2024-02-29",
        "2024-03-31",
    ]
    fifteenth = pd.to_datetime(["2024-01-15", "2024-02-15", "2024-04-15"])
    panel = panel_of(fifteenth)
    assert panel.n_steps == 4 and panel.index.freq is None
    assert future_of(panel, 1)[0] == pd.Timestamp("2024-05-15")
    thirtieth = pd.to_datetime(["2023-12-30", "2024-01-30", "2024-02-29", "2024-03-30"])
    assert future_of(panel_of(thirtieth), 1)[0] == pd.Timestamp("2024-04-30")


def test_leap_years():
    days = pd.to_datetime(["2024-02-26", "2024-02-27", "2024-02-28"])
    assert future_of(panel_of(days), 2).day.tolist() == [29, 1]
    years = pd.to_datetime(["2021-02-28", "2022-02-28", "2023-02-28"])
    assert future_of(panel_of(years), 1)[0] == pd.Timestamp("2024-02-29")  # month ends


def test_time_of_day_of_daily_and_monthly_stamps():
    days = pd.date_range("2024-01-30 09:30", periods=4, freq="D")
    assert_index_equal(future_of(panel_of(days[:2]), 2), days[2:])
    months = pd.date_range("2024-01-31 23:00", periods=5, freq="ME")
    assert_index_equal(future_of(panel_of(months[:3]), 2), months[3:])


def test_business_days_with_a_holiday():
    full = pd.bdate_range("2024-01-01", periods=20)
    panel = panel_of(full[:15].delete(7))
    assert panel.n_steps == 15 and panel.index.freq == "B"
    assert_index_equal(future_of(panel, 5), full[15:], exact=False)


@pytest.mark.parametrize("freq", ["M", "Q-DEC", "Y-DEC", "W-SUN", "D", "h", "15min", "2M"])
def test_periods(freq):
    full = pd.period_range("2023-12-29", periods=12, freq=freq, name="p")
    panel = panel_of(full[[0, 1, 2, 3, 7]])
    assert panel.n_steps == 8 and panel.index.freq == full.freqstr
    assert_index_equal(future_of(panel, 4), full[8:])


@pytest.mark.parametrize(
    ("index", "future"),
    [
        (pd.RangeIndex(5), pd.RangeIndex(5, 8)),
        (pd.RangeIndex(10, 60, 10), pd.RangeIndex(60, 90, 10)),
        (pd.Index([3, 4, 6]), pd.Index([7, 8, 9])),
        (pd.Index([0.0, 2.0, 6.0]), pd.Index([8.0, 10.0, 12.0])),
        (pd.Index([1, 2], dtype="Int64"), pd.Index([3, 4, 5])),
        (pd.Index([7]), pd.Index([8, 9, 10])),
        (pd.to_timedelta([0, 2, 4], "s"), pd.timedelta_range("6s", periods=3, freq="2s")),
        (pd.Index([1, 2, 3], dtype=object), pd.Index([4, 5, 6])),
    ],
)
def test_integers_and_timedeltas(index, future):
    assert_index_equal(future_of(panel_of(index), 3), future, exact="equiv")


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard", "proleptic_gregorian"])
@pytest.mark.parametrize("freq", ["D", "6h", "MS", "ME", "QS-JAN", "YS-JAN"])
def test_cftime(calendar, freq):
    xr = pytest.importorskip("xarray")
    pytest.importorskip("cftime")
    full = xr.date_range("2003-12-01", periods=12, freq=freq, calendar=calendar, use_cftime=True)
    panel = panel_of(full[[0, 1, 2, 3, 6]])
    assert panel.n_steps == 7
    future = future_of(panel, 5)
    assert type(future).__name__ == "CFTimeIndex"
    assert list(future) == list(full[7:])


def test_cftime_days_of_month_clip():
    cftime = pytest.importorskip("cftime")
    dates = [cftime.DatetimeNoLeap(2000, m, d) for m, d in [(1, 30), (2, 28), (3, 30)]]
    future = future_of(panel_of(pd.Index(dates, dtype=object)), 1)
    assert future[0] == cftime.DatetimeNoLeap(2000, 4, 30)


@pytest.mark.parametrize(
    "index",
    [
        pd.Index([pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02")], dtype=object),
        pd.CategoricalIndex(pd.date_range("2024-01-01", periods=2)),
        pd.Index([pd.Timestamp("2024-01-01").date(), pd.Timestamp("2024-01-02").date()]),
        pd.Index([pd.Period("2024-01-01", "D"), pd.Period("2024-01-02", "D")], dtype=object),
    ],
)
def test_stamps_in_disguise(index):
    panel = panel_of(index)
    assert panel.index.has_stamps and panel.n_steps == 2
    assert_index_equal(write(panel.values, panel.index).index, index)
    assert str(future_of(panel, 1)[0])[:10] == "2024-01-03"


def test_arrow_timestamps():
    pytest.importorskip("pyarrow")
    index = pd.Index(pd.date_range("2024-01-01", periods=3, tz="UTC")).astype(
        "timestamp[us, tz=UTC][pyarrow]"
    )
    panel = panel_of(index)
    assert panel.index.freq == "D"
    assert_index_equal(write(panel.values, panel.index).index, index)


@pytest.mark.parametrize(
    ("freq", "steps"), [("h", 7), (pd.Timedelta("30min"), 13), (pd.offsets.Hour(1), 7), ("3h", 3)]
)
def test_given_freq(freq, steps):
    index = pd.to_datetime(["2024-01-01 00:00", "2024-01-01 03:00", "2024-01-01 06:00"])
    assert panel_of(index, freq=freq).n_steps == steps


def test_given_freq_on_one_row_and_finer_than_the_resolution():
    one = pd.DatetimeIndex(["2023-02-28"])
    assert future_of(panel_of(one, freq="ME"), 1)[0] == pd.Timestamp("2023-03-31")
    assert future_of(panel_of(one, freq="D"), 1)[0] == pd.Timestamp("2023-03-01")
    seconds = pd.DatetimeIndex(["2024-01-01 00:00:00", "2024-01-01 00:00:01"]).as_unit("s")
    assert panel_of(seconds, freq="250ms").n_steps == 5
    assert future_of(panel_of(seconds, freq="250ms"), 1)[0].microsecond == 250_000


def test_own_freq_of_a_one_row_index():
    assert future_of(panel_of(pd.date_range("2024-01-31", periods=1, freq="ME")), 1)[0] == (
        pd.Timestamp("2024-02-29")
    )


def test_an_unknown_step_matters_only_for_the_future():
    panel = panel_of(pd.DatetimeIndex(["2024-01-01"]))
    assert panel.n_steps == 1 and panel.index.freq is None
    assert len(write(panel.values, panel.index)) == 1
    with pytest.raises(ValueError, match=r"time step of X is unknown.*Pass freq="):
        panel.index.future(1)


def test_integer_freq():
    assert panel_of(pd.Index([0, 10, 20]), freq=5).n_steps == 5


def test_step_between_series_of_one_row_each():
    index = pd.MultiIndex.from_tuples(
        [("a", pd.Timestamp("2024-01-01")), ("b", pd.Timestamp("2024-01-03"))]
    )
    panel = read_panel(pd.DataFrame({"v": [1.0, 2.0]}, index=index))
    np.testing.assert_array_equal(panel.index.starts, [0, 1])


def test_a_weekly_alias_takes_the_weekday_of_the_data():
    stamps = pd.DatetimeIndex(["2024-01-03", "2024-01-17"])  # Wednesdays
    panel = panel_of(stamps, freq="W")
    assert panel.n_steps == 3 and panel.index.freq == "W-WED"


def test_fixed_and_dateutil_zones():
    for zone in ("+05:30", "dateutil/Europe/Berlin"):
        full = pd.date_range("2024-03-30 20:00", periods=8, freq="h", tz=zone)
        panel = panel_of(full[:4])
        saved = type(panel.index).from_dict(panel.index.to_dict())
        for index in (panel.index, saved):
            future = write(np.zeros((1, 4, 1)), index.future(4)).index
            np.testing.assert_array_equal(future.asi8, full[4:].asi8)


def test_years_beyond_nanoseconds():
    stamps = pd.DatetimeIndex(np.array(["3000-01-01", "3100-01-01", "3200-01-01"], dtype="M8[s]"))
    assert future_of(panel_of(stamps), 1)[0].year == 3300
