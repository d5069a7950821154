"""What each part of the forecaster contributes: one choice taken back at a time.

Every setting is fitted as it is and measured where choices are made, never on a test part: on
ETTh1, 96 steps ahead, the models see the training rows and forecast the validation rows; on seven
small public data sets and the taxi rides the last part of the training rows is held out, as
`defaults.py --inner` does it, with errors in units of the seasonal naive error there.

The data are read from the folder named by the environment variable TSVAE_DATA and from statsmodels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import REPORTS, Split, write_report
from _defaults_data import read_series
from _defaults_methods import run_ours
from _defaults_scores import make_problem
from _forecasting_task import make_task
from forecasting import parse as parse_forecasting
from forecasting import run_tsvae

from tsvae.demo.report import format_table

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
#: What is taken back, and how.
PARTS: dict[str, dict[str, Any]] = {
    "nothing: the defaults": {},
    "fit to moments; roles, 10 epochs instead": {"start": "roles"},
    "fit to moments; roles, no training": {"start": "roles", "max_epochs": 0},
    "no epochs after it; one at 1e-4": {"max_epochs": 1, "learning_rate": 1e-4},
    "seasonal states": {"seasonal_periods": None, "seasonal_effect": False},
    "fixed seasonal pattern": {"seasonal_effect": False},
    "test of the pattern: always fixed": {"seasonal_effect": True},
    "level of each window": {"window_level": False},
    "width: 16 groups, not 64": {"latent_dim": 32},
    "independent channels: joint": {"channels": "joint", "latent_dim": 32},
    "no calibration: calibrate=True": {"calibrate": True},
}


class Found(NamedTuple):
    """Scores of one setting."""

    part: str
    mse: float
    crps: float
    coverage: float
    seconds: float
    mase: float
    small_crps: float
    small_coverage: float


def on_electricity(settings: dict[str, Any]) -> tuple[float, float, float, float]:
    """Fit on the training rows of ETTh1 and forecast the validation rows."""
    options = parse_forecasting(["--data", "ETTh1", "--threads", "1"])
    options.set = settings
    task = make_task(options)
    end = task.split.validation_end
    task = task._replace(split=Split(task.split.train_end, task.split.train_end, end))
    found = run_tsvae(task, options).scores
    return found.mse, found.crps, found.coverage, found.seconds


def on_small_data(settings: dict[str, Any]) -> tuple[float, float, float]:
    """Mean scores over the inner parts of the small data sets."""
    scores = [
        run_ours(make_problem(read_series(name), inner=True), dict(settings)) for name in SMALL
    ]
    return (
        float(np.mean([s.mase for s in scores])),
        float(np.mean([s.crps or np.nan for s in scores])),
        float(np.mean([s.coverage or np.nan for s in scores])),
    )


def measure(part: str, settings: dict[str, Any]) -> Found:
    found = Found(part, *on_electricity(settings), *on_small_data(settings))
    print(found, file=sys.stderr, flush=True)
    return found


def table(scores: list[Found], *, markdown: bool) -> str:
    header = ["taken back", "MSE", "CRPS", "coverage", "seconds", "MASE", "CRPS", "coverage"]
    rows = [
        [
            s.part,
            f"{s.mse:.4f}",
            f"{s.crps:.4f}",
            f"{s.coverage:.1%}",
            f"{s.seconds:.0f}",
            f"{s.mase:.3f}",
            f"{s.small_crps:.3f}",
            f"{s.small_coverage:.1%}",
        ]
        for s in scores
    ]
    return format_table(header, rows, markdown=markdown)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", nargs="+", type=int, metavar="N", help="numbers of the rows (default: all)"
    )
    parser.add_argument("--output", type=Path, default=REPORTS, help="folder of the report")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    parts = list(PARTS.items())
    scores = [measure(*parts[n]) for n in options.parts or range(len(parts))]
    print(table(scores, markdown=False))
    if options.no_write:
        return
    notes = (
        "Columns 2 to 5: ETTh1, 96 steps ahead, fitted on the training rows, measured on the "
        "validation rows (seconds: fit and forecasts). Columns 6 to 8: means over the inner parts "
        f"of {', '.join(SMALL)}; MASE and CRPS in units of the seasonal naive error. Coverage is "
        "of the 90 % interval. One seed. No test part is touched."
    )
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
