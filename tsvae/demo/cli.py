"""The ``demo`` command: options, what is printed, what is written."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsvae.demo.report import ForecastScores, format_table

if TYPE_CHECKING:
    import pandas as pd

    from tsvae.forecaster import SVAEForecaster

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Forecast the weekly CO2 record at Mauna Loa (1958 to 2001, with its real gaps; it comes with
statsmodels, nothing is downloaded) and compare with three classical methods.

The forecaster is fitted once, on the weeks before the first origin of a rolling back-test; the
baselines are fitted anew at every origin. All forecast the same weeks."""

EPILOG = """\
It prints a table (mean absolute error and CRPS in ppm, coverage of the 90 % interval, seconds)
and writes into the output folder:
  co2_forecast.csv   the weeks after the record ends: mean and quantiles
  co2_forecast.png   the last forecasts with their bands beside what came, and the widest gap,
                     filled
"""

CSV_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def add_parser(commands: Any) -> None:
    """Add the ``demo`` command to argparse's `commands`."""
    parser = commands.add_parser(
        "demo",
        help="forecast a real series with gaps, compare with baselines, draw the result",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("."),
        metavar="DIR",
        help="folder for the CSV and the picture, made if need be (default: this one)",
    )
    parser.add_argument(
        "--horizon", type=int, default=52, metavar="N", help="weeks ahead (default: 52)"
    )
    parser.add_argument(
        "--origins",
        type=int,
        default=10,
        metavar="N",
        help="forecasts of the back-test, one horizon apart (default: 10)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the forecaster's random_state (default 0)"
    )
    parser.add_argument(
        "--max-epochs",
        type=int,
        default=None,
        metavar="N",
        help="end training early: quicker and less accurate (default: the forecaster's)",
    )
    parser.add_argument("--no-plot", action="store_true", help="write no picture")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the demo with parsed `options`; return the exit status."""
    from tsvae.datasets import load_co2
    from tsvae.demo.co2 import BASELINES, backtest_baseline, backtest_forecaster, rolling_origins

    start = time.perf_counter()
    series = load_co2()["co2"]
    try:
        origins = rolling_origins(len(series), options.horizon, options.origins)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    print(
        f"Weekly CO2 at Mauna Loa: {len(series):,} weeks, "
        f"{series.index[0]:%Y-%m-%d} to {series.index[-1]:%Y-%m-%d}, "
        f"{int(series.isna().sum())} missing.\n"
        f"Back-test: {len(origins)} origins, {options.horizon} weeks ahead each, the first after "
        f"{series.index[origins[0] - 1]:%Y-%m-%d}.\n",
        flush=True,
    )
    forecaster = _make_forecaster(options)
    ours = backtest_forecaster(forecaster, series, origins, options.horizon)
    others = [backtest_baseline(name, series, origins, options.horizon) for name in BASELINES]
    print(_score_table([result.scores for result in (ours, *others)]), flush=True)

    frame = series.to_frame()
    table = forecast_table(forecaster, frame, options.horizon)
    written = [options.output / "co2_forecast.csv"]
    table.to_csv(written[0], float_format="%.3f")
    if not options.no_plot:
        from tsvae.demo.picture import draw

        written.append(options.output / "co2_forecast.png")
        draw(series, ours, table, filled_table(forecaster, frame), written[1])
    print(
        f"\nWrote {' and '.join(map(str, written))} ({time.perf_counter() - start:.0f} s in all)."
    )
    return 0


def _make_forecaster(options: argparse.Namespace) -> SVAEForecaster:
    from tsvae.forecaster import SVAEForecaster

    settings: dict[str, Any] = {"horizon": options.horizon, "random_state": options.seed}
    if options.max_epochs is not None:
        settings["max_epochs"] = options.max_epochs
    return SVAEForecaster(**settings)


def _score_table(scores: list[ForecastScores]) -> str:
    rows = [
        [s.method, f"{s.mae:.3f}", f"{s.crps:.3f}", f"{s.coverage:.1%}", f"{s.seconds:.1f}"]
        for s in scores
    ]
    return format_table(["method", "MAE", "CRPS", "90 % coverage", "seconds"], rows)


def forecast_table(forecaster: SVAEForecaster, history: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """Mean and quantiles of the weeks after `history`, one row per week.

    Parameters
    ----------
    forecaster : SVAEForecaster
        Fitted on one variable.
    history : pandas.DataFrame of shape (T, 1)
        The series to continue.
    horizon : int
        Number of weeks.

    Returns
    -------
    pandas.DataFrame of shape (horizon, 6)
        Columns ``mean``, ``q0.05`` ... ``q0.95``.
    """
    table = forecaster.predict(history, horizon=horizon).set_axis(["mean"], axis=1)
    quantiles = forecaster.predict_quantiles(history, horizon=horizon, quantiles=CSV_QUANTILES)
    for place, level in enumerate(CSV_QUANTILES):
        table[f"q{level}"] = quantiles.iloc[:, place]
    return table


def filled_table(forecaster: SVAEForecaster, frame: pd.DataFrame) -> pd.DataFrame:
    """Fill the gaps of the record, with 90 % intervals.

    Parameters
    ----------
    forecaster : SVAEForecaster
    frame : pandas.DataFrame
        One column.

    Returns
    -------
    pandas.DataFrame
        Columns ``mean``, ``lower`` and ``upper``; observed rows hold the observation thrice.
    """
    table = forecaster.impute(frame).set_axis(["mean"], axis=1)
    bounds = forecaster.impute_quantiles(frame, quantiles=[0.05, 0.95])
    return table.join(bounds.set_axis(["lower", "upper"], axis=1))
