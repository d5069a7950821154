"""Forecast a public data set by the protocol of the LTSF literature, beside baselines and peers.

Rows are split in time as in the Informer, DLinear and PatchTST papers. Each variable is
standardised by the training rows. Every window of the test part counts, stride 1, with a history
of at most `--context` rows that reaches back across the border. Errors are in standardised units.
With `--missing p`, that share of all entries is hidden from every history (training and test), one
by one or, with `--gaps days`, in blocks of 24 rows of one variable; the targets are complete.

Peers (`--methods var ets dlinear nhits patchtst deepar`) need the extra bench-peers; one whose
package is missing is skipped. `--merge` keeps the rows of an existing report that were made by the
same protocol with the same versions, and dates each row.

The data are read from the folder named by the environment variable TSVAE_DATA.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from _common import DATA_SETS, add_common_options, new_parser, use_threads, write_report
from _forecasting_classical import run_ets, run_linear, run_var
from _forecasting_coverage import STEP, coverage_table, measure_coverage
from _forecasting_deep import run_deep
from _forecasting_report import (
    Earlier,
    Row,
    command_notes,
    filling_notes,
    make_row,
    merge_rows,
    published_notes,
    read_earlier,
    scores_table,
)
from _forecasting_task import GAPS, Outcome, Task, make_task

from tsvae.demo.baselines import GaussianForecast, fill_from_earlier_season
from tsvae.demo.report import QUANTILE_LEVELS, ScoreSum


def run_seasonal_naive(task: Task) -> Outcome:
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
    return Outcome(total.result(name, seconds=time.perf_counter() - start, n_parameters=0))


def run_tsvae(
    task: Task, options: argparse.Namespace, build: Callable[..., Any] | None = None
) -> Outcome:
    """Fit on the training rows, with the defaults but for horizon and context.

    `build` makes the estimator of its settings; None: `SVAEForecaster`.
    """
    from tsvae import SVAEForecaster
    from tsvae.panel import read_panel

    start = time.perf_counter()
    fitted_rows = task.visible.iloc[: task.split.train_end]
    settings: dict[str, Any] = {
        "horizon": task.horizon,
        "context_length": task.context,
        "random_state": options.seed,
        "verbose": 1 if options.verbose else 0,
        **options.set,
    }
    forecaster = (build or SVAEForecaster)(**settings).fit(fitted_rows)
    print(f"fit took {time.perf_counter() - start:.0f} s", file=sys.stderr)

    panel = read_panel(task.visible)
    total = ScoreSum()
    for origins, actual in task.chunks():
        mean = forecaster._forecast_origins(panel, origins, task.horizon)[:, 0]
        quantiles = forecaster._forecast_origins(
            panel, origins, task.horizon, quantiles=QUANTILE_LEVELS
        )[:, 0]
        total.add(actual, mean, quantiles)
    scores = total.result(
        "tsvae.SVAEForecaster",
        seconds=time.perf_counter() - start,
        n_parameters=_count_parameters(forecaster),
    )
    details: dict[str, Any] = {"settings": options.set}
    if options.coverage:
        details["coverage_step"] = options.coverage
        details["coverage"] = measure_coverage(forecaster, task, options.coverage)
    return Outcome(scores, details)


def _count_parameters(forecaster: Any) -> int:
    """Numbers in all models behind its forecasts."""
    members = getattr(forecaster, "members_", [forecaster])  # of a mean of several
    models = (model for member in members for model in member._engine().models)
    return sum(p.numel() for model in models for p in model.parameters())


class Method(NamedTuple):
    """What runs a method, and the package it needs beyond tsvae's own."""

    run: Callable[[Task, argparse.Namespace], Outcome]
    package: str | None = None


def deep(key: str) -> Method:
    return Method(lambda task, options: run_deep(key, task, options.seed), "neuralforecast")


METHODS = {
    "naive": Method(lambda task, _: run_seasonal_naive(task)),
    "linear": Method(lambda task, _: run_linear(task)),
    "ets": Method(lambda task, _: run_ets(task), "statsforecast"),
    "var": Method(lambda task, _: run_var(task), "statsmodels"),
    "dlinear": deep("dlinear"),
    "nhits": deep("nhits"),
    "patchtst": deep("patchtst"),
    "deepar": deep("deepar"),
    "tsvae": Method(run_tsvae),
}
DEFAULT_METHODS = ("naive", "linear", "tsvae")


def run_methods(task: Task, options: argparse.Namespace) -> list[Row]:
    """Run what was asked for and is installed."""
    rows = []
    for key in options.methods:
        method = METHODS[key]
        if method.package and find_spec(method.package) is None:
            print(
                f"{key} is skipped: it needs {method.package}; install it with: "
                'pip install -c constraints.txt -e ".[bench-peers]"',
                file=sys.stderr,
            )
            continue
        rows.append(make_row(key, method.run(task, options)))
        print(rows[-1], file=sys.stderr)
    if not rows:
        raise SystemExit("error: none of the methods could be run")
    return rows


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--data", choices=sorted(DATA_SETS), required=True)
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--missing", type=float, default=0.0, help="share of the history hidden")
    parser.add_argument(
        "--gaps",
        choices=GAPS,
        default=GAPS[0],
        help="what --missing hides: entries at random, or blocks of 24 rows of one variable",
    )
    parser.add_argument(
        "--coverage",
        type=int,
        nargs="?",
        const=STEP,
        metavar="STEP",
        help="count for tsvae what intervals hold by quarter of the horizon, as they are and with "
        f"rolling conformal ones, from origins STEP rows apart (default: {STEP})",
    )
    parser.add_argument("--features", nargs="+", help="variables to keep (default: all)")
    parser.add_argument("--context", type=int, default=512, help="rows of history at most")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=DEFAULT_METHODS,
        metavar="NAME",
        help=f"any of {', '.join(METHODS)} (default: {' '.join(DEFAULT_METHODS)})",
    )
    parser.add_argument(
        "--merge", action="store_true", help="keep the other rows of the report that is there"
    )
    parser.add_argument("--chunk", type=int, default=256, help="origins forecast at a time")
    add_common_options(parser, "SVAEForecaster")
    options = parser.parse_args(arguments)
    if not 0 <= options.missing < 1:
        parser.error(f"--missing must be in [0, 1), got {options.missing}")
    if options.coverage is not None and options.coverage < 1:
        parser.error(f"--coverage must be at least 1, got {options.coverage}")
    return options


def describe(options: argparse.Namespace) -> tuple[str, str, dict[str, Any]]:
    """Name of the report, its title, and what must be equal for rows to stand in one table."""
    stem = f"forecasting_{options.data}_{options.horizon}"
    title = f"Forecasts of {options.data}, {options.horizon} steps ahead"
    asked = ["data", "horizon", "missing", "features", "context", "seed"]
    if options.missing:
        stem += f"_missing{round(100 * options.missing)}_{options.gaps}"
        kinds = {"entries": "single entries", "days": "days of one variable"}
        title += f", {options.missing:.0%} of the history missing ({kinds[options.gaps]})"
        asked.append("gaps")
    return stem, title, {name: getattr(options, name) for name in asked}


def coverage_part(rows: list[Row], *, markdown: bool) -> str:
    """Lay out what the intervals hold, if that was counted."""
    for row in rows:
        if "coverage" in row["details"]:
            table = coverage_table(row["details"]["coverage"], markdown=markdown)
            step = row["details"]["coverage_step"]
            return (
                f"Values of the test part inside central intervals of {row['method']}, by quarter "
                f"of the horizon, from origins {step} rows apart; conformal: rescaled by the "
                f"outcomes of earlier origins.\n\n{table}"
            )
    return ""


def main() -> None:
    options = parse()
    use_threads(options.threads)
    task = make_task(options)
    stem, title, protocol = describe(options)
    path = options.output / f"{stem}.json"
    if options.merge:
        read_earlier(path, protocol)  # refused before hours are spent
    rows = run_methods(task, options)
    earlier = read_earlier(path, protocol) if options.merge else Earlier([], {})
    rows = merge_rows(earlier, rows)
    rows.sort(key=lambda row: list(METHODS).index(row["key"]))
    print(f"{title}: {len(task.origins):,} test windows\n")
    parts = [scores_table(rows, markdown=False), coverage_part(rows, markdown=False)]
    print("\n\n".join(filter(None, parts)))
    if options.no_write:
        return
    notes = (
        f"{len(task.origins):,} test windows, stride 1, all variables, units standardised by "
        "the training rows. Mean errors; CRPS from 19 quantiles; share of values inside the "
        "90 % interval. The protocol is described in [the index](index.md)."
    )
    notes_of_rows = [
        published_notes(rows),
        filling_notes(rows) if options.missing else "",
        command_notes(rows),
        coverage_part(rows, markdown=True),
    ]
    written = write_report(
        options.output,
        stem,
        title=title,
        table=scores_table(rows, markdown=True),
        notes="\n\n".join(filter(None, [notes, *notes_of_rows])),
        results={"protocol": protocol, "scores": rows},
        earlier_versions=earlier.versions,
    )
    print("\nWrote " + " and ".join(map(str, written)))


if __name__ == "__main__":
    main()
