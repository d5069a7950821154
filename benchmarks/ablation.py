"""What each part of the forecaster contributes: one choice taken back at a time.

Every setting is fitted as it is and measured where choices are made, never on a test part: on
ETTh1, 96 steps ahead, the models see the training rows and forecast the validation rows; on seven
small public data sets and the taxi rides the last part of the training rows is held out, as
`defaults.py --inner` does it, with errors in units of the seasonal naive error there. What
concerns gaps is measured on ETTh1 with 30 % of the entries of all histories missing, too.

`--parts` with `--merge` keeps the other rows of the report that is there.

The data are read from the folder named by the environment variable TSVAE_DATA and from statsmodels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _ablation_parts import PARTS, Part
from _common import Split, add_report_options, new_parser, write_report
from _defaults_data import read_series
from _defaults_methods import run_ours
from _defaults_scores import Scores, make_problem
from _forecasting_task import make_task
from forecasting import parse as parse_forecasting
from forecasting import run_tsvae

from tsvae.demo.report import ForecastScores, format_table

SMALL = (
    "co2",
    "elnino",
    "sunspots",
    "nile",
    "macrodata",
    "danish_data",
    "interest_inflation",
    "nyc_taxi",
)
LONG = ("ETTh1", "ETTh1-gaps")
MISSING = 0.3


class Found(NamedTuple):
    """Scores of one setting; None where it was not measured."""

    part: str
    mse: float | None = None
    crps: float | None = None
    coverage: float | None = None
    seconds: float | None = None
    gaps_mse: float | None = None
    gaps_crps: float | None = None
    gaps_coverage: float | None = None
    mase: float | None = None
    small_crps: float | None = None
    small_coverage: float | None = None
    mase_of: dict[str, float] = {}  # noqa: RUF012 - never changed


def on_electricity(part: Part, missing: float = 0.0) -> ForecastScores:
    """Fit on the training rows of ETTh1 and forecast the validation rows."""
    options = parse_forecasting(["--data", "ETTh1", "--threads", "1", "--missing", str(missing)])
    options.set = dict(part.settings)
    task = make_task(options)
    end = task.split.validation_end
    task = task._replace(split=Split(task.split.train_end, task.split.train_end, end))
    return run_tsvae(task, options, part.build).scores


def on_small_data(part: Part, names: list[str]) -> list[Scores]:
    """Fit on all but the inner parts of the small data sets, and forecast these."""
    problems = (make_problem(read_series(name), inner=True) for name in names)
    return [run_ours(p, part.settings_for(p.series.season), part.build) for p in problems]


def measure(part: Part, data: list[str]) -> Found:
    scores: dict[str, Any] = {}
    with part.change():
        if "ETTh1" in data:
            long = on_electricity(part)
            scores |= {name: getattr(long, name) for name in ("mse", "crps", "coverage", "seconds")}
        if "ETTh1-gaps" in data and part.gaps:
            long = on_electricity(part, MISSING)
            scores |= {f"gaps_{name}": getattr(long, name) for name in ("mse", "crps", "coverage")}
        small = on_small_data(part, [name for name in data if name in SMALL])
    if small:
        scores |= {
            "mase": float(np.mean([s.mase for s in small])),
            "small_crps": float(np.mean([s.crps or np.nan for s in small])),
            "small_coverage": float(np.mean([s.coverage or np.nan for s in small])),
            "mase_of": {s.data: s.mase for s in small},
        }
    found = Found(part.name, **scores)
    print(found, file=sys.stderr, flush=True)
    return found


def merged(folder: Path, scores: Sequence[Found]) -> list[Found]:
    """Put new rows in place of those of the report that is there, in the order of the parts."""
    path = folder / "ablation.json"
    if not path.exists():
        raise SystemExit(f"error: {path} is not there; run all parts without --merge")
    earlier = [Found(**row) for row in json.loads(path.read_text(encoding="utf8"))["scores"]]
    rows = {row.part: row for row in [*earlier, *scores]}
    return [rows[part.name] for part in PARTS if part.name in rows]


COLUMNS = (
    ("mse", "MSE", ".4f"),
    ("crps", "CRPS", ".4f"),
    ("coverage", "coverage", ".1%"),
    ("seconds", "seconds", ".0f"),
    ("gaps_mse", f"MSE, {MISSING:.0%} missing", ".4f"),
    ("mase", "MASE", ".3f"),
    ("small_crps", "CRPS", ".3f"),
    ("small_coverage", "coverage", ".1%"),
)


def table(scores: list[Found], *, markdown: bool) -> str:
    def cell(value: float | None, form: str) -> str:
        return "" if value is None else f"{value:{form}}"

    header = ["taken back", *(title for _, title, _ in COLUMNS)]
    rows = [[s.part, *(cell(getattr(s, name), form) for name, _, form in COLUMNS)] for s in scores]
    return format_table(header, rows, markdown=markdown)


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--parts",
        nargs="+",
        type=int,
        choices=range(len(PARTS)),
        metavar="N",
        help="numbers of the rows (default: all): "
        + "; ".join(f"{n} {part.name}".replace("%", "%%") for n, part in enumerate(PARTS)),
    )
    everything = [*LONG, *SMALL]
    parser.add_argument(
        "--data",
        nargs="+",
        choices=everything,
        default=everything,
        metavar="NAME",
        help=f"{', '.join(everything)} (default: all; some alone write no report)",
    )
    parser.add_argument(
        "--merge", action="store_true", help="keep the other rows of the report that is there"
    )
    add_report_options(parser)
    options = parser.parse_args()
    numbers = range(len(PARTS)) if options.parts is None else options.parts
    scores = [measure(PARTS[n], options.data) for n in numbers]
    if options.merge:
        scores = merged(options.output, scores)
    print(table(scores, markdown=False))
    if options.no_write or set(options.data) != set(everything):
        return
    notes = (
        "Columns 2 to 5: ETTh1, 96 steps ahead, fitted on the training rows, measured on the "
        f"validation rows (seconds: fit and forecasts). Column 6: the same with {MISSING:.0%} of "
        "the entries of all histories missing, where it concerns gaps. Columns 7 to 9: means over "
        f"the inner parts of {', '.join(SMALL)}; MASE and CRPS in units of the seasonal naive "
        "error. Coverage is of the 90 % interval. One seed, but where the row says so. Yearly data "
        "have no calendar covariates. No test part is touched."
    )
    if options.merge:
        notes += f" Of the last run: {', '.join(PARTS[n].name for n in numbers)}."
    write_report(
        options.output,
        "ablation",
        title="What each part of the forecaster contributes",
        table=table(scores, markdown=True),
        notes=notes,
        results={"scores": [s._asdict() for s in scores]},
    )


if __name__ == "__main__":
    main()
