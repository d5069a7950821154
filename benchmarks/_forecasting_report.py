"""The table of the forecasting benchmark: rows of this run, and rows kept from an earlier one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from _common import command_line, machine
from _forecasting_task import Outcome

from tsvae.demo.report import format_table

Row = dict[str, Any]
FILLING_NAMES = {"lines": "straight lines", "last": "last value", "season": "season before"}
_HEADER = ["method", "MSE", "MAE", "CRPS", "90 % coverage", "seconds", "parameters"]


def make_row(key: str, outcome: Outcome) -> Row:
    """One method's scores, with the day and the command they were found by."""
    found = {"date": date.today().isoformat(), "command": command_line()}
    return {"key": key, **asdict(outcome.scores), "details": outcome.details, **found}


class Earlier(NamedTuple):
    """What an existing report has to give."""

    rows: list[Row]
    versions: dict[str, str]


def read_earlier(path: Path, protocol: Mapping[str, Any]) -> Earlier:
    """Read the report at `path`, if there is one, whose rows are to stand beside those of this run.

    Raises
    ------
    SystemExit
        If protocol, machine or versions differ: such rows do not belong into one table.
    """
    if not path.is_file():
        return Earlier([], {})
    found = json.loads(path.read_text(encoding="utf8"))
    differing = _differences(found, {**machine(), "protocol": dict(protocol)})
    if differing:
        raise SystemExit(
            f"error: --merge cannot keep the rows of {path.name}, whose {', '.join(differing)} "
            "differ; run all methods again without --merge"
        )
    return Earlier(found["scores"], found["versions"])


def merge_rows(earlier: Earlier, new: Sequence[Row]) -> list[Row]:
    """Add those earlier rows that this run has not."""
    replaced = {row["key"] for row in new}
    return [*(row for row in earlier.rows if row["key"] not in replaced), *new]


def _differences(found: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs; a package that only one of the runs had is no difference."""
    names = ["protocol", "processor", "accelerator", "threads", "python"]
    differing = [name for name in names if found.get(name) != now[name]]
    before, after = found.get("versions", {}), now["versions"]
    both = before.keys() & after.keys()
    return differing + sorted(name for name in both if before[name] != after[name])


def scores_table(rows: Sequence[Row], *, markdown: bool) -> str:
    """Lay the rows out; with a column of dates where they differ."""
    cells = [
        [
            row["method"],
            f"{row['mse']:.4f}",
            f"{row['mae']:.4f}",
            f"{row['crps']:.4f}",
            f"{row['coverage']:.1%}",
            f"{row['seconds']:.0f}",
            f"{row['n_parameters']:,}",
        ]
        for row in rows
    ]
    header = list(_HEADER)
    if len({row["date"] for row in rows}) > 1:
        header.append("date")
        cells = [[*line, row["date"]] for line, row in zip(cells, rows, strict=True)]
    return format_table(header, cells, markdown=markdown)


def command_notes(rows: Sequence[Row]) -> str:
    """Name the runs that the rows are from, if there were several."""
    methods: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        methods.setdefault((row["date"], row["command"]), []).append(row["method"])
    if len(methods) < 2:
        return ""
    return "\n".join(
        f"- {', '.join(names)}: `{command}`, {day}." for (day, command), names in methods.items()
    )


def filling_notes(rows: Sequence[Row]) -> str:
    """Say how the gaps were filled for the methods that do not take them."""
    methods: dict[str, list[str]] = {}
    for row in rows:
        details = row["details"]
        filling = details.get("filling_and_choices", details).get("filling")
        if filling is not None:
            methods.setdefault(filling, []).append(row["method"])
    chosen = "; ".join(
        f"{FILLING_NAMES[filling]}: {', '.join(names)}" for filling, names in methods.items()
    )
    return f"Fillings of gaps, chosen on the validation part: {chosen}." if chosen else ""


def published_notes(rows: Sequence[Row]) -> str:
    """Say of each peer whether it reaches what was published for it."""
    lines = []
    for row in rows:
        published = row["details"].get("published_mse")
        if published is not None:
            within = row["details"]["within_5_percent"]
            verdict = "within 5 %" if within else "not within 5 %, so that this row does not count"
            lines.append(
                f"- {row['method']}: MSE {row['mse']:.3f}, published {published:.3f}: {verdict}."
            )
    return "\n".join(lines)
