"""The demo's picture: forecasts beside what came, and a gap with its filling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsvae.demo.report import QUANTILE_LEVELS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from tsvae.demo.co2 import Backtest

__all__ = ["draw", "widest_gap"]

OBSERVED, FORECAST, FILLED = "0.25", "C0", "C3"


def draw(
    series: pd.Series, result: Backtest, future: pd.DataFrame, filled: pd.DataFrame, path: Path
) -> None:
    """Draw the last forecasts of the back-test, the forecast of the future, and a filled gap.

    Parameters
    ----------
    series : pandas.Series
        The record, NaN where missing.
    result : Backtest
        Forecasts from past origins.
    future : pandas.DataFrame
        Columns ``mean`` and ``q0.05`` ... ``q0.95`` for the weeks after the record.
    filled : pandas.DataFrame
        The record with its gaps filled: columns ``mean``, ``lower`` and ``upper`` (90 %).
    path : pathlib.Path
        File to write, a PNG.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        # A figure of its own canvas: no window, and the caller's backend stays as it is.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'the picture needs matplotlib; install it with: pip install "tsvae[demo]", '
            "or pass --no-plot"
        ) from error
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1)
    _draw_forecasts(upper, series, result, future)
    _draw_gap(lower, series, filled)
    figure.savefig(path, dpi=130)


def _draw_forecasts(ax: Axes, series: pd.Series, result: Backtest, future: pd.DataFrame) -> None:
    n_shown = min(3, len(result.origins))
    horizon = result.mean.shape[1]
    first = max(0, int(result.origins[-n_shown]) - horizon)
    recent = series.iloc[first:]
    ax.plot(recent.index, recent, ".", color=OBSERVED, markersize=3, label="observed")
    quartiles = QUANTILE_LEVELS.index(0.25), QUANTILE_LEVELS.index(0.75)
    for origin, mean, quantiles in list(
        zip(result.origins, result.mean, result.quantiles, strict=True)
    )[-n_shown:]:
        weeks = series.index[origin : origin + horizon]
        _draw_bands(ax, weeks, quantiles[:, [0, *quartiles, -1]], mean)
        ax.axvline(weeks[0], color="0.8", linewidth=0.8, zorder=0)
    bands = future[["q0.05", "q0.25", "q0.75", "q0.95"]].to_numpy()
    _draw_bands(ax, future.index, bands, future["mean"])
    ax.axvline(future.index[0], color="0.8", linewidth=0.8, zorder=0)
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    ax.legend(unique.values(), unique.keys(), loc="upper left", frameon=False)
    ax.set_title(
        f"CO2 at Mauna Loa: forecasts {horizon} weeks ahead, each from the data left of its line",
        loc="left",
    )
    ax.set_ylabel("ppm")


def _draw_bands(ax: Axes, weeks: pd.Index, bands: np.ndarray, mean: np.ndarray) -> None:
    ax.fill_between(
        weeks,
        bands[:, 0],
        bands[:, 3],
        color=FORECAST,
        alpha=0.18,
        linewidth=0,
        label="90 % interval",
    )
    ax.fill_between(
        weeks,
        bands[:, 1],
        bands[:, 2],
        color=FORECAST,
        alpha=0.3,
        linewidth=0,
        label="50 % interval",
    )
    ax.plot(weeks, mean, color=FORECAST, linewidth=1.3, label="forecast")


def _draw_gap(ax: Axes, series: pd.Series, filled: pd.DataFrame) -> None:
    gap = widest_gap(series)
    around = slice(max(0, gap.start - 52), gap.stop + 52)
    observed, whole = series.iloc[around], filled["mean"].iloc[around]
    missing = whole[observed.isna()]
    bounds = filled[["lower", "upper"]].iloc[around].to_numpy().T
    ax.fill_between(
        whole.index, *bounds, color=FILLED, alpha=0.2, linewidth=0, label="90 % interval"
    )
    ax.plot(whole.index, whole, color=FILLED, linewidth=0.8, alpha=0.5)
    ax.plot(observed.index, observed, ".", color=OBSERVED, markersize=4, label="observed")
    ax.plot(missing.index, missing, "o", color=FILLED, markersize=3.5, label="filled by impute()")
    ax.axvspan(series.index[gap.start], series.index[gap.stop - 1], color="0.5", alpha=0.08)
    ax.legend(loc="best", frameon=False)
    ax.set_title(f"The widest gap of the record: {gap.stop - gap.start} weeks", loc="left")
    ax.set_ylabel("ppm")


def widest_gap(series: pd.Series) -> slice:
    """Rows of the longest run of missing values.

    Parameters
    ----------
    series : pandas.Series
        With at least one NaN.

    Returns
    -------
    slice
        First row of the run to the row after it.

    Examples
    --------
    >>> import pandas as pd
    >>> nan = float("nan")
    >>> widest_gap(pd.Series([1.0, nan, 2.0, nan, nan, 3.0]))
    slice(3, 5, None)
    """
    missing = np.concatenate([[False], series.isna().to_numpy(), [False]]).astype(int)
    edges = np.diff(missing)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    longest = int(np.argmax(stops - starts))
    return slice(int(starts[longest]), int(stops[longest]))
