"""How many values central intervals of the forecaster hold, by quarter of the horizon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from _forecasting_task import Task

from tsvae.demo.report import format_table

COVERAGES = (0.5, 0.8, 0.9, 0.95)
STEP = 5  # rows between origins; coprime to day and week
BANDS = ("plain", "conformal")


def measure_coverage(forecaster: Any, task: Task, step: int = STEP) -> list[dict[str, Any]]:
    """Count on the test part, with bands as they are and with rolling conformal ones.

    Rolling: those of each origin are rescaled by how earlier ones fared, from the validation part
    on, as far as their outcomes are known by then. Outcomes that are hidden are not known; the
    count is of complete targets.
    """
    return [row for bands in BANDS for row in _count(forecaster, task, step, bands)]


def _count(forecaster: Any, task: Task, step: int, bands: str) -> list[dict[str, Any]]:
    from tsvae.model_selection import backtest

    first, reach = task.split.validation_end, task.split.validation_end - task.split.train_end
    if bands == "conformal":
        first -= reach // step * step  # the same origins of the test part
    bounds = {level: _bounds(level) for level in COVERAGES}
    found = backtest(
        forecaster,
        task.visible.iloc[: task.split.test_end],
        horizon=task.horizon,
        step=step,
        start=first,
        quantiles=sorted({q for pair in bounds.values() for q in pair}),
        conformal=bands == "conformal",
    )
    quantiles = found.arrays.quantiles
    if quantiles is None:
        raise RuntimeError("the back-test gave no quantiles")
    tested = found.origins >= task.split.validation_end
    quantiles = quantiles[tested, 0]  # (O, H, F, Q)
    actual = task.target.to_numpy()[found.origins[tested][:, None] + np.arange(task.horizon)]
    rows = []
    for level, (low, high) in bounds.items():
        lower, upper = (quantiles[..., found.levels.index(q)] for q in (low, high))
        inside = (lower <= actual) & (actual <= upper)
        quarters = [float(part.mean()) for part in np.array_split(inside, 4, axis=1) if part.size]
        rows.append(
            {"bands": bands, "level": level, "all": float(inside.mean()), "quarters": quarters}
        )
    return rows


def _bounds(level: float) -> tuple[float, float]:
    return round(0.5 - level / 2, 10), round(0.5 + level / 2, 10)


def coverage_table(rows: Sequence[dict[str, Any]], *, markdown: bool) -> str:
    """Lay out what `measure_coverage` found."""
    n_quarters = max(len(row["quarters"]) for row in rows)
    header = ["bands", "interval", *(f"quarter {n + 1}" for n in range(n_quarters)), "all steps"]
    cells = [
        [
            row["bands"],
            f"{row['level']:.0%}",
            *(f"{share:.1%}" for share in row["quarters"]),
            f"{row['all']:.1%}",
        ]
        for row in rows
    ]
    return format_table(header, cells, markdown=markdown)
