"""Forecast a public data set by the protocol of the LTSF literature, beside two baselines.

Rows are split in time as in the Informer, DLinear and PatchTST papers. Each variable is
standardised by the training rows. Every window of the test part counts, stride 1, with a history
of at most `--context` rows that reaches back across the border. Errors are in standardised units.
With `--missing p`, that share of all entries is hidden at random from every history (training and
test); the targets are complete.

The data are read from the folder named by the environment variable TSVAE_DATA.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from _common import DATA_SETS, Split, add_common_options, load, write_report
from numpy.typing import NDArray

from tsvae.demo.baselines import GaussianForecast, fill_from_earlier_season
from tsvae.demo.linear import fit_linear, history_windows
from tsvae.demo.report import QUANTILE_LEVELS, ForecastScores, ScoreSum, format_table

Array = NDArray[np.float64]
LINEAR_WINDOW = 336


class Task(NamedTuple):
    """One forecasting problem in standardised units."""

    target: pd.DataFrame  # complete
    visible: pd.DataFrame  # what a method may see: NaN where hidden
    split: Split
    horizon: int
    context: int
    period: int
    chunk: int

    @property
    def origins(self) -> NDArray[np.int64]:
        """Rows before each test window; the first ones reach back across the border."""
        return np.arange(self.split.validation_end, self.split.test_end - self.horizon + 1)

    def chunks(self) -> Iterator[tuple[NDArray[np.int64], Array]]:
        """Yield origins and the (N, H, F) values to forecast from them."""
        windows = np.lib.stride_tricks.sliding_window_view(
            self.target.to_numpy(), self.horizon, axis=0
        )
        for start in range(0, len(self.origins), self.chunk):
            origins = self.origins[start : start + self.chunk]
            yield origins, windows[origins].transpose(0, 2, 1)


def make_task(options: argparse.Namespace) -> Task:
    frame = load(options.data)
    if options.features:
        frame = frame[options.features]
    data_set = DATA_SETS[options.data]
    split = data_set.split(len(frame))
    train = frame.iloc[: split.train_end]
    target = (frame - train.mean()) / train.std(ddof=0)
    hidden = np.random.default_rng(options.seed).random(target.shape) < options.missing
    return Task(
        target,
        target.mask(hidden),
        split,
        options.horizon,
        options.context,
        data_set.period,
        options.chunk,
    )


def run_seasonal_naive(task: Task) -> ForecastScores:
    start = time.perf_counter()
    filled = fill_from_earlier_season(task.visible.to_numpy(), task.period)
    train = task.visible.to_numpy()[: task.split.train_end]
    sigma = np.sqrt(np.nanmean((train[task.period :] - train[: -task.period]) ** 2, axis=0))
    step = np.arange(task.horizon)
    std = np.sqrt(step // task.period + 1.0)[:, None] * sigma
    total = ScoreSum()
    for origins, actual in task.chunks():
        mean = filled[origins[:, None] - task.period + step % task.period]
        total.add(actual, mean, GaussianForecast(mean, std).quantiles(QUANTILE_LEVELS))
    name = "seasonal naive" if task.period > 1 else "last value"
    return total.result(name, seconds=time.perf_counter() - start, n_parameters=0)


def run_linear(task: Task) -> ForecastScores:
    start = time.perf_counter()
    rows = task.visible.to_numpy()
    model = fit_linear(rows[: task.split.train_end], LINEAR_WINDOW, task.horizon)
    total = ScoreSum()
    for origins, actual in task.chunks():
        forecast = model.predict(history_windows(rows, origins, LINEAR_WINDOW))
        total.add(actual, forecast.mean, forecast.quantiles(QUANTILE_LEVELS))
    return total.result(
        f"linear ({LINEAR_WINDOW} rows)",
        seconds=time.perf_counter() - start,
        n_parameters=model.n_parameters,
    )


def run_tsvae(task: Task, options: argparse.Namespace) -> ForecastScores:
    """Fit on the training rows, with the defaults but for horizon and context."""
    import torch

    from tsvae import SVAEForecaster
    from tsvae.panel import read_panel

    if options.threads:
        torch.set_num_threads(options.threads)
    start = time.perf_counter()
    fitted_rows = task.visible.iloc[: task.split.train_end]
    settings: dict[str, Any] = {
        "horizon": task.horizon,
        "context_length": task.context,
        "random_state": options.seed,
        "verbose": 1 if options.verbose else 0,
        **options.set,
    }
    forecaster = SVAEForecaster(**settings).fit(fitted_rows)
    print(f"fit took {time.perf_counter() - start:.0f} s", file=sys.stderr)

    panel = read_panel(task.visible)
    total = ScoreSum()
    for origins, actual in task.chunks():
        mean = forecaster._forecast_origins(panel, origins, task.horizon)[:, 0]
        quantiles = forecaster._forecast_origins(
            panel, origins, task.horizon, quantiles=QUANTILE_LEVELS
        )[:, 0]
        total.add(actual, mean, quantiles)
    return total.result(
        "tsvae.SVAEForecaster",
        seconds=time.perf_counter() - start,
        n_parameters=sum(p.numel() for p in forecaster.model_.parameters()),
    )


def scores_table(scores: list[ForecastScores], *, markdown: bool) -> str:
    rows = [
        [
            s.method,
            f"{s.mse:.4f}",
            f"{s.mae:.4f}",
            f"{s.crps:.4f}",
            f"{s.coverage:.1%}",
            f"{s.seconds:.0f}",
            f"{s.n_parameters:,}",
        ]
        for s in scores
    ]
    header = ["method", "MSE", "MAE", "CRPS", "90 % coverage", "seconds", "parameters"]
    return format_table(header, rows, markdown=markdown)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=sorted(DATA_SETS), required=True)
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--missing", type=float, default=0.0, help="share of the history hidden")
    parser.add_argument("--features", nargs="+", help="variables to keep (default: all)")
    parser.add_argument("--context", type=int, default=512, help="rows of history at most")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=["naive", "linear", "tsvae"],
        default=None,
        metavar="NAME",
        help="naive, linear, tsvae (default: all)",
    )
    parser.add_argument("--chunk", type=int, default=256, help="origins forecast at a time")
    add_common_options(parser, "SVAEForecaster")
    options = parser.parse_args(arguments)
    if not 0 <= options.missing < 1:
        parser.error(f"--missing must be in [0, 1), got {options.missing}")
    options.set = dict(options.set)
    return options


def main() -> None:
    options = parse()
    task = make_task(options)
    methods: dict[str, Callable[[], ForecastScores]] = {
        "naive": lambda: run_seasonal_naive(task),
        "linear": lambda: run_linear(task),
        "tsvae": lambda: run_tsvae(task, options),
    }
    scores = [methods[name]() for name in options.methods or methods]
    title = f"Forecasts of {options.data}, {options.horizon} steps ahead"
    if options.missing:
        title += f", {options.missing:.0%} of the history missing"
    print(f"{title}: {len(task.origins):,} test windows\n")
    print(scores_table(scores, markdown=False))
    if options.no_write:
        return
    stem = f"forecasting_{options.data}_{options.horizon}"
    if options.missing:
        stem += f"_missing{round(100 * options.missing)}"
    written = write_report(
        options.output,
        stem,
        title=title,
        table=scores_table(scores, markdown=True),
        notes=(
            f"{len(task.origins):,} test windows, stride 1, all variables, units standardised by "
            "the training rows. Mean errors; CRPS from 19 quantiles; share of values inside the "
            "90 % interval. The protocol is described in [the index](index.md)."
        ),
        results={"settings": options.set, "scores": [asdict(score) for score in scores]},
    )
    print("\nWrote " + " and ".join(map(str, written)))


if __name__ == "__main__":
    main()
