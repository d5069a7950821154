"""What the benchmarks share: public data, the machine in words, reports."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

REPORTS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
PACKAGES = ("tsvae", "torch", "numpy", "scikit-learn", "pandas", "statsmodels")


class Split(NamedTuple):
    """First rows after the training, validation and test parts."""

    train_end: int
    validation_end: int
    test_end: int


class DataSet(NamedTuple):
    """A public data set and how the literature splits it."""

    file: str
    published_at: str
    period: int  # rows of the season that the naive forecast repeats; 1 repeats the last value

    def split(self, n_rows: int) -> Split:
        if self.file.startswith("ETTh"):
            return Split(12 * 30 * 24, 16 * 30 * 24, 20 * 30 * 24)
        n_train, n_test = int(0.7 * n_rows), int(0.2 * n_rows)
        return Split(n_train, n_rows - n_test, n_rows)


DATA_SETS = {
    "ETTh1": DataSet("ETTh1.csv", "https://github.com/zhouhaoyi/ETDataset (ETT-small)", 24),
    "exchange": DataSet(
        "exchange_rate.csv", "https://github.com/laiguokun/multivariate-time-series-data", 1
    ),
}


def load(name: str) -> pd.DataFrame:
    """Read a data set from ``$TSVAE_DATA`` (its root or ``forecast/``): time in the index."""
    data_set = DATA_SETS[name]
    where = f"{data_set.file} is published at {data_set.published_at}"
    root = os.environ.get("TSVAE_DATA")
    if not root:
        raise SystemExit(
            "error: set TSVAE_DATA to the folder that holds the public data sets; " + where
        )
    for path in (Path(root) / "forecast" / data_set.file, Path(root) / data_set.file):
        if path.is_file():
            frame = pd.read_csv(path, index_col=0, parse_dates=True)
            return frame.astype(np.float64)
    raise SystemExit(f"error: {data_set.file} is not in TSVAE_DATA ({root}); {where}")


def machine() -> dict[str, Any]:
    """Describe the machine without naming it."""
    import torch

    return {
        "processor": f"{os.cpu_count()} x {platform.machine()}",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        if name == "tsvae":
            import tsvae

            return tsvae.__version__
        return None


def command_line() -> str:
    """Return the command that was run, to print beside its result."""
    return shlex.join(["python", "benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])


def write_report(
    folder: Path, stem: str, *, title: str, table: str, notes: str, results: dict[str, Any]
) -> list[Path]:
    """Write ``stem.md`` for people and ``stem.json`` for programs; return their paths."""
    facts = {"date": date.today().isoformat(), "command": command_line(), **machine()}
    versions = ", ".join(f"{name} {found}" for name, found in facts["versions"].items())
    text = "\n\n".join(
        [
            f"# {title}",
            table,
            notes,
            f"`{facts['command']}`, {facts['date']}: {facts['processor']}, "
            f"{facts['accelerator'] or 'no accelerator'}, {facts['threads']} threads, "
            f"Python {facts['python']}, {versions}.",
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.md", folder / f"{stem}.json"]
    paths[0].write_text(text + "\n", encoding="utf8")
    paths[1].write_text(json.dumps({**facts, **results}, indent=2) + "\n", encoding="utf8")
    return paths
