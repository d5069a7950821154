"""Twelve public series of very different kinds, each with time stamps that a user would give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
from _common import find_file, load

ETT_SOURCE = "https://github.com/zhouhaoyi/ETDataset (ETT-small)"
NAB_SOURCE = "https://github.com/numenta/NAB (data/)"
STEPS_WITHOUT_SEASON = 12


class Source(NamedTuple):
    """How a data set is read, and its season."""

    read: Callable[[], pd.DataFrame]
    season: int  # rows; 1: none
    longest: int | None = None  # steps ahead, if not one season


class Series(NamedTuple):
    """A data set: rows = time, at a regular step; NaN = missing."""

    name: str
    frame: pd.DataFrame
    season: int
    longest: int  # steps ahead that are asked for where the held-out part has room


def _from_statsmodels(name: str) -> pd.DataFrame:
    try:
        from statsmodels import datasets
    except ImportError as error:
        raise SystemExit('error: statsmodels is missing: pip install "tsvae[bench]"') from error
    table: pd.DataFrame = getattr(datasets, name).load_pandas().data
    return table


def _co2() -> pd.DataFrame:
    from tsvae.datasets import load_co2

    return load_co2()


def _elnino() -> pd.DataFrame:
    """Read a table of years by months as one series."""
    table = _from_statsmodels("elnino")
    months = pd.period_range(f"{int(table['YEAR'].iloc[0])}-01", periods=12 * len(table), freq="M")
    return pd.DataFrame({"temperature": table.drop(columns="YEAR").to_numpy().ravel()}, months)


def _yearly(name: str) -> pd.DataFrame:
    table = _from_statsmodels(name)
    years = pd.PeriodIndex(table.iloc[:, 0].astype(int).astype(str), freq="Y")
    return table.iloc[:, 1:].set_axis(years).astype(float)


def _quarterly(name: str) -> pd.DataFrame:
    table = _from_statsmodels(name)
    first = f"{int(table['year'].iloc[0])}Q{int(table['quarter'].iloc[0])}"
    quarters = pd.period_range(first, periods=len(table), freq="Q")
    return table.drop(columns=["year", "quarter"]).set_axis(quarters).astype(float)


def _danish() -> pd.DataFrame:
    return _from_statsmodels("danish_data").to_period("Q").astype(float)


def _electricity_daily() -> pd.DataFrame:
    hourly = load("ETTh1")
    daily = hourly.resample("D").mean()
    complete = hourly.iloc[:, 0].resample("D").count() == 24
    return daily[complete.to_numpy()].asfreq("D")


def _stream(file: str, freq: str) -> pd.DataFrame:
    """Read a stream of the Numenta Anomaly Benchmark as means of regular intervals."""
    path = find_file("nab", file, NAB_SOURCE)
    table = pd.read_csv(path, index_col=0, parse_dates=True).astype(float)
    return table.resample(freq).mean()


SOURCES: dict[str, Source] = {
    "co2": Source(_co2, 52),
    "elnino": Source(_elnino, 12),
    "sunspots": Source(lambda: _yearly("sunspots"), 1),
    "nile": Source(lambda: _yearly("nile"), 1),
    "macrodata": Source(lambda: _quarterly("macrodata"), 4),
    "danish_data": Source(_danish, 4),
    "interest_inflation": Source(lambda: _quarterly("interest_inflation"), 4),
    "ETTh1": Source(lambda: load("ETTh1").asfreq("h"), 24),
    "ETTh1_daily": Source(_electricity_daily, 7),
    "exchange": Source(lambda: load("exchange").asfreq("D"), 7),
    "nyc_taxi": Source(lambda: _stream("nyc_taxi.csv", "30min"), 48),
    # Stamps drift by minutes and skip; a day of 5-minute means is longer than what is held out.
    "speed_7578": Source(lambda: _stream("speed_7578.csv", "5min"), 288, 12),
}


def read_series(name: str) -> Series:
    """Read one of :data:`SOURCES`."""
    source = SOURCES[name]
    without = STEPS_WITHOUT_SEASON if source.season == 1 else source.season
    return Series(name, source.read(), source.season, source.longest or without)


def describe(series: Series) -> dict[str, Any]:
    """Size of a data set in words and numbers."""
    frame = series.frame
    return {
        "rows": len(frame),
        "variables": frame.shape[1],
        "step": str(frame.index.freqstr),
        "missing": float(frame.isna().to_numpy().mean()),
        "season": series.season,
    }
