"""One forecaster without any setting on twelve public data sets: a default for everyone?

The last tenth of the rows is held out. `SVAEForecaster(random_state=0)` is fitted once on the
rows before, then forecasts one season from origins all over the held-out part, as the naive
methods and AutoETS do. Errors are in units of the training part's seasonal naive error (MASE).
With `--inner`, the same is done inside the training part: the place to try changes on.

ETTh1, exchange rates and two streams are read from the folder named by the environment variable
TSVAE_DATA; the other data come with statsmodels.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
from _common import add_common_options, new_parser, write_report
from _defaults_data import SOURCES, describe, read_series
from _defaults_methods import ETS, ETS_ROWS, METHODS, NAIVE, OURS, SEASONAL, has_statsforecast
from _defaults_scores import Problem, Scores, describe_problem, make_problem

from tsvae.demo.report import format_table

SHORT = {"tsvae": OURS, "naive": NAIVE, "seasonal": SEASONAL, "ets": ETS}
LONGEST_FIT = 120.0  # seconds


def run_all(problems: list[Problem], methods: list[str], settings: dict[str, Any]) -> list[Scores]:
    scores = []
    for problem in problems:
        for method in methods:
            found = METHODS[method](problem, settings)
            scores.append(found)
            print(
                f"{found.data} {method}: MASE {found.mase:.3f}, fit {found.fit_seconds:.1f} s, "
                f"forecasts {found.forecast_seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    return scores


def data_table(problems: list[Problem], *, markdown: bool) -> str:
    rows = []
    for problem in problems:
        facts = {**describe(problem.series), **describe_problem(problem)}
        season = facts["season"]
        rows.append(
            [
                problem.series.name,
                facts["step"],
                f"{facts['rows']:,} x {facts['variables']}",
                f"{facts['missing']:.1%}",
                "none" if season == 1 else str(season),
                str(facts["horizon"]),
                str(facts["origins"]),
            ]
        )
    header = ["data", "step", "rows x variables", "missing", "season", "horizon", "origins"]
    return format_table(header, rows, markdown=markdown)


def score_table(scores: list[Scores], *, markdown: bool) -> str:
    """MASE of each method, then what else is known of ours and of AutoETS."""
    methods = list(dict.fromkeys(s.method for s in scores))
    found = {(s.data, s.method): s for s in scores}
    full = [method for method in (OURS, ETS) if method in methods]
    names = ["tsvae" if method == OURS else method for method in full]
    header = [
        "data",
        *(f"MASE {method}" for method in methods),
        *(f"CRPS {name}" for name in names),
        *(f"90 % coverage {name}" for name in names),
        *(f"fit seconds {name}" for name in names),
    ]
    rows = []
    for data in dict.fromkeys(s.data for s in scores):
        own = [found[data, method] for method in methods]
        both = [found[data, method] for method in full]
        best = min(s.mase for s in own)
        rows.append(
            [
                data,
                *(_marked(s.mase, best, markdown) for s in own),
                *(f"{s.crps:.3f}" for s in both),
                *(f"{s.coverage:.0%}" for s in both),
                *(f"{s.fit_seconds:.1f}" for s in both),
            ]
        )
    means = [float(np.mean([s.mase for s in scores if s.method == m])) for m in methods]
    spread = [[s for s in scores if s.method == method] for method in full]
    rows.append(
        [
            "mean",
            *(_marked(mean, min(means), markdown) for mean in means),
            *(f"{np.mean([s.crps for s in own]):.3f}" for own in spread),
            *(f"{np.mean([s.coverage for s in own]):.0%}" for own in spread),
            *(f"{np.mean([s.fit_seconds for s in own]):.1f}" for own in spread),
        ]
    )
    return format_table(header, rows, markdown=markdown)


def _marked(value: float, best: float, markdown: bool) -> str:
    text = f"{value:.3f}"
    return f"**{text}**" if markdown and f"{best:.3f}" == text else text


def verdict(scores: list[Scores]) -> dict[str, Any]:
    """On how many data sets ours is ahead, and whether it was quick."""
    found = {(s.data, s.method): s for s in scores}
    names = list(dict.fromkeys(s.data for s in scores))
    result: dict[str, Any] = {"data_sets": len(names)}
    methods = {s.method for s in scores}
    if OURS not in methods:
        return result
    if {NAIVE, SEASONAL} <= methods:
        result["ahead_of_naive"] = [
            name
            for name in names
            if found[name, OURS].mase < min(found[name, m].mase for m in (NAIVE, SEASONAL))
        ]
    if ETS in methods:
        result["ahead_of_ets"] = [
            name for name in names if found[name, OURS].mase < found[name, ETS].mase
        ]
    result["longest_fit_seconds"] = max(found[name, OURS].fit_seconds for name in names)
    return result


def verdict_text(result: dict[str, Any]) -> str:
    n, lines = result["data_sets"], []
    if "ahead_of_naive" in result:
        ahead = len(result["ahead_of_naive"])
        lines.append(f"- Ahead of the better of naive and seasonal naive on {ahead} of {n}.")
    if "ahead_of_ets" in result:
        lines.append(f"- Ahead of AutoETS on {len(result['ahead_of_ets'])} of {n}.")
    if "longest_fit_seconds" in result:
        longest = result["longest_fit_seconds"]
        within = "Every fit took" if longest < LONGEST_FIT else "Not every fit took"
        lines.append(f"- {within} under 2 minutes; the longest {longest:.0f} s.")
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--data", nargs="+", choices=list(SOURCES), default=list(SOURCES), metavar="NAME"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=list(SHORT),
        default=None,
        metavar="NAME",
        help=f"{', '.join(SHORT)} (default: all; ets needs statsforecast)",
    )
    parser.add_argument(
        "--inner", action="store_true", help="inside the training part; writes no report"
    )
    add_common_options(parser, "SVAEForecaster")
    options = parser.parse_args(arguments)
    options.set = {"random_state": options.seed, "verbose": options.verbose, **options.set}
    if options.threads:
        options.set["n_threads"] = options.threads
    return options


def main() -> None:
    options = parse()
    wanted = options.methods or [name for name in SHORT if name != "ets" or has_statsforecast()]
    problems = [make_problem(read_series(name), inner=options.inner) for name in options.data]
    scores = run_all(problems, [SHORT[name] for name in wanted], options.set)
    title = "A default for everyone"
    print(f"{title}\n\n{data_table(problems, markdown=False)}\n")
    print(score_table(scores, markdown=False) + "\n")
    result = verdict(scores)
    print(verdict_text(result))
    whole = options.data == list(SOURCES) and options.methods is None
    if options.no_write or options.inner or not whole:
        return
    written = write_report(
        options.output,
        "defaults",
        title=title,
        table="\n\n".join(
            [
                score_table(scores, markdown=True),
                verdict_text(result),
                data_table(problems, markdown=True),
            ]
        ),
        notes=(
            "MASE: mean absolute error of all held-out values after all origins, each variable in "
            "units of its seasonal naive error on the training rows. CRPS in the same units, from "
            "19 quantiles. Seconds are for one fit of all variables; AutoETS is fitted on at most "
            f"{ETS_ROWS:,} rows. The protocol is described in [the index](index.md)."
        ),
        results={
            "settings": options.set,
            "verdict": result,
            "data": {
                p.series.name: {**describe(p.series), **describe_problem(p)} for p in problems
            },
            "scores": [asdict(s) for s in scores],
        },
    )
    print("\nWrote " + " and ".join(map(str, written)))


if __name__ == "__main__":
    main()
