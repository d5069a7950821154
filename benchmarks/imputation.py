"""Fill hidden entries of ETTh1, beside simple and deep imputers.

The first twelve months of 30 days are for training, the next four for choosing settings, the next
four for testing, each variable standardised by the training rows. The test part is cut into windows
of 48 rows, each of which is a series of its own: methods see nothing outside of it. Entries are
hidden three ways: 10 % or 50 % at random, or a block of 24 rows of one variable in each window; the
same ones for all methods. Errors are those at the hidden entries, in standardised units.

Deep peers come from PyPOTS, in a process of their own (`--peers-python` or PYPOTS_PYTHON names the
interpreter of an environment that has it). A method whose package is missing is left out with a
note.

The data are read from the folder named by the environment variable TSVAE_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import add_common_options, new_parser, use_threads, write_report
from _imputation_peers import PEERS
from _imputation_pypots import DEEP, fit_deep
from _imputation_task import (
    PATTERNS,
    Filled,
    Method,
    Problem,
    Score,
    Task,
    make_task,
    patterns_of,
    score,
)

from tsvae.demo.report import QUANTILE_LEVELS, format_table


def fit_tsvae(task: Task, settings: dict[str, Any]) -> Method:
    """Fit on the complete training rows; windows are filled as a panel of series."""
    from tsvae import SVAEForecaster

    start = time.perf_counter()
    model = SVAEForecaster(**settings).fit(task.train)
    seconds = time.perf_counter() - start

    def fill(_: str, problem: Problem) -> Filled:
        frame = problem.windows.frame(problem.seen)
        shape = problem.hidden.shape
        point = model.impute(frame).to_numpy().reshape(shape)
        bands = model.impute_quantiles(frame, quantiles=QUANTILE_LEVELS).to_numpy()
        return Filled(point, bands.reshape(*shape, len(QUANTILE_LEVELS)))

    count = sum(p.numel() for p in model.model_.parameters())
    if model._fit.filling is not None:
        count += sum(table.numel() for table in model._fit.filling.tensors().values())
    return Method("SVAEForecaster, defaults", fill, count, seconds, {})


def methods_of(options: argparse.Namespace) -> dict[str, Callable[[Task], Method | None]]:
    """Every line of the tables by its name on the command line."""
    found: dict[str, Callable[[Task], Method | None]] = dict(PEERS)
    for key in DEEP:
        found[key] = partial(
            fit_deep,
            key=key,
            python=options.peers_python,
            seed=options.seed,
            keep=options.keep,
            verbose=options.verbose,
        )
    common = {"random_state": options.seed, "verbose": options.verbose}
    found["tsvae"] = partial(fit_tsvae, settings={**common, **options.set})
    return found


def run(task: Task, method: Method, part: str) -> list[Score]:
    """Fill all patterns and say so on the way."""
    scores = []
    for pattern, problem in patterns_of(getattr(task, part)):
        start = time.perf_counter()
        filled = method.fill(pattern, problem)
        seconds = time.perf_counter() - start
        if method.clock is not None:
            seconds = method.clock(problem)
        if not np.isfinite(filled.point[problem.hidden]).all():
            raise RuntimeError(f"{method.name} left entries of {pattern} without a finite value")
        scores.append(score(method, pattern, problem, filled, seconds))
    errors = ", ".join(f"{s.pattern} {s.mae:.4f}" for s in scores)
    print(f"{method.name}: {errors}", file=sys.stderr)
    return scores


def table(scores: list[Score], pattern: str, *, markdown: bool) -> str:
    header = ["method", "MAE", "MSE", "CRPS", "90 % coverage", "fit s", "impute s", "parameters"]
    rows = [
        [
            s.method,
            f"{s.mae:.4f}",
            f"{s.mse:.4f}",
            "" if s.crps is None else f"{s.crps:.4f}",
            "" if s.coverage is None else f"{s.coverage:.1%}",
            f"{s.fit_seconds:.0f}",
            f"{s.impute_seconds:.1f}",
            "" if s.n_parameters is None else f"{s.n_parameters:,}",
        ]
        for s in scores
        if s.pattern == pattern
    ]
    return format_table(header, rows, markdown=markdown)


def tables(scores: list[Score], *, markdown: bool) -> str:
    parts = [
        f"{'## ' * markdown}{title}\n\n{table(scores, pattern, markdown=markdown)}"
        for pattern, title in PATTERNS.items()
    ]
    return "\n\n".join(parts)


def notes(task: Task, part: str, missing: list[str]) -> str:
    counts = ", ".join(
        f"{p.hidden.sum():,} ({name})" for name, p in patterns_of(getattr(task, part))
    )
    shape = next(iter(getattr(task, part).values())).hidden.shape
    text = (
        f"{shape[0]:,} windows of {shape[1]} rows and {shape[2]} variables; hidden entries: "
        f"{counts}. Errors and CRPS (from 19 quantiles) at the hidden entries, in units "
        "standardised by the training rows; share of them inside the 90 % band. Every method is "
        "fitted once, to complete training rows, and fills all patterns; settings are chosen on "
        "the validation part. The protocol is described in [the index](index.md)."
    )
    return text + "".join(f" Left out: {name}, whose package is not there." for name in missing)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    names = [*PEERS, *DEEP, "tsvae"]
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"{', '.join(names)} (default: all)",
    )
    parser.add_argument("--draws", type=int, default=5, help="times each window is hidden anew")
    parser.add_argument(
        "--peers-python",
        default=os.environ.get("PYPOTS_PYTHON", sys.executable),
        metavar="PATH",
        help="interpreter of an environment that has PyPOTS (default: $PYPOTS_PYTHON, or this one)",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="keep there what the deep peers filled, and read it instead of fitting them anew",
    )
    parser.add_argument(
        "--validation", action="store_true", help="fill the validation part; writes no report"
    )
    add_common_options(parser, "SVAEForecaster")
    options = parser.parse_args(arguments)
    if options.draws < 1:
        parser.error(f"--draws must be at least 1, got {options.draws}")
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    options = parse()
    use_threads(options.threads)
    part = "validation" if options.validation else "test"
    task = make_task(options.seed, {"validation": 1, "test": 1} | {part: options.draws})
    available = methods_of(options)
    scores: list[Score] = []
    chosen: dict[str, dict[str, object]] = {}
    missing: list[str] = []
    for key in options.methods:
        method = available[key](task)
        if method is None:
            missing.append(DEEP[key].name)
            continue
        chosen[method.name] = method.settings
        scores += run(task, method, part)
    print(tables(scores, markdown=False))
    if options.no_write or options.validation:
        return
    written = write_report(
        options.output,
        "imputation",
        title="Imputation of ETTh1 in windows of 48 rows",
        table=tables(scores, markdown=True),
        notes=notes(task, part, missing),
        results={
            "settings": options.set,
            "chosen": chosen,
            "left_out": missing,
            "scores": [asdict(s) for s in scores],
        },
    )
    print("\nWrote " + " and ".join(map(str, written)))


if __name__ == "__main__":
    main()
