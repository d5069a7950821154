"""What the benchmarks share: public data, the machine in words, reports."""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

REPORTS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
PACKAGES = (
    "tsvae",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "statsmodels",
    "statsforecast",
    "neuralforecast",
    "pytorch-lightning",
    "dynamax",
    "jax",
    "simdkalman",
    "PyWavelets",
    "onnx",
    "onnxruntime",
)


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


def find_file(folder: str, file: str, source: str, *, verb: str = "is published at") -> Path:
    """Find a file in ``$TSVAE_DATA`` (its root or `folder` in it), or say where it comes from."""
    where = f"{file} {verb} {source}"
    root = os.environ.get("TSVAE_DATA")
    if not root:
        raise SystemExit(
            "error: set TSVAE_DATA to the folder that holds the public data sets; " + where
        )
    for path in (Path(root) / folder / file, Path(root) / file):
        if path.is_file():
            return path
    raise SystemExit(f"error: {file} is not in TSVAE_DATA ({root}); {where}")


def load(name: str) -> pd.DataFrame:
    """Read a forecasting data set: time in the index, variables in the columns."""
    data_set = DATA_SETS[name]
    path = find_file("forecast", data_set.file, data_set.published_at)
    return pd.read_csv(path, index_col=0, parse_dates=True).astype(np.float64)


def setting(text: str) -> tuple[str, Any]:
    """Read ``NAME=VALUE``; a value that is no Python literal stays a string."""
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


class AddSetting(argparse.Action):
    """Collect settings in a dict."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        name, value = values
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), name: value})


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """Make the parser of a script that is described as its docstring is laid out."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_common_options(parser: argparse.ArgumentParser, estimator: str) -> None:
    """Add what the benchmarks of one estimator share."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set",
        type=setting,
        action=AddSetting,
        default={},
        metavar="NAME=VALUE",
        help=f"a parameter of {estimator} other than its default; may be repeated",
    )
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's)")
    parser.add_argument("--verbose", action="store_true", help="show the training")
    add_report_options(parser)


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add where the report goes, if anywhere."""
    parser.add_argument("--output", type=Path, default=REPORTS, help="folder of the report")
    parser.add_argument("--no-write", action="store_true", help="print only")


def use_threads(count: int | None) -> None:
    """Tell torch how many threads to use, if it is said."""
    if count:
        import torch

        torch.set_num_threads(count)


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
    """Return the command that was run, less where its report went, to print beside its result."""
    arguments = [word for word in sys.argv[1:] if not word.startswith("--output=")]
    if "--output" in arguments:
        at = arguments.index("--output")
        del arguments[at : at + 2]
    return shlex.join(["python", "benchmarks/" + Path(sys.argv[0]).name, *arguments])


def write_report(
    folder: Path,
    stem: str,
    *,
    title: str,
    table: str,
    notes: str,
    results: dict[str, Any],
    earlier_versions: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write ``stem.md`` for people and ``stem.json`` for programs; return their paths.

    `earlier_versions` are those of packages that only an earlier run, whose rows are kept, had.
    """
    facts = {"date": date.today().isoformat(), "command": command_line(), **machine()}
    facts["versions"] = {**(earlier_versions or {}), **facts["versions"]}
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
