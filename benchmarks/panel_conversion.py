"""Time the border for data: containers to `Panel` and back, 1,000 series x 1,000 steps x 5.

A tenth of the entries is missing. Each figure is the best of `--repeat` runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from _common import add_report_options, write_report

from tsvae.demo.report import format_table
from tsvae.panel import read_panel, write


class Timing(NamedTuple):
    container: str
    read_seconds: float
    write_seconds: float


def make_containers(n_series: int, n_steps: int, n_features: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((n_series, n_steps, n_features))
    values[rng.random(values.shape) < 0.1] = np.nan
    time_axis = pd.date_range("2020-01-01", periods=n_steps, freq="h", name="time")
    series = pd.RangeIndex(n_series, name="series")
    variables = [f"v{i}" for i in range(n_features)]
    index = pd.MultiIndex.from_product([series, time_axis])
    return {
        "MultiIndex frame": pd.DataFrame(
            values.reshape(-1, n_features), index=index, columns=variables
        ),
        "ndarray (series, time, variable)": values,
        "DataArray (series, time, variable)": xr.DataArray(
            values,
            dims=("series", "time", "variable"),
            coords={"series": series, "time": time_axis, "variable": variables},
        ),
        "wide frame (time x all)": pd.DataFrame(
            values.transpose(1, 0, 2).reshape(n_steps, -1), index=time_axis
        ),
    }


def best_of(repeat: int, function: Callable[[], Any]) -> tuple[float, Any]:
    best, result = float("inf"), None
    for _ in range(repeat):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def measure(name: str, container: Any, repeat: int) -> Timing:
    read_seconds, panel = best_of(repeat, lambda: read_panel(container))
    write_seconds, back = best_of(repeat, lambda: write(panel.values, panel.index))
    if type(back) is not type(container) or back.shape != container.shape:
        sys.exit(f"error: {name} came back as {type(back).__name__} of shape {back.shape}")
    return Timing(name, read_seconds, write_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--features", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3)
    add_report_options(parser)
    options = parser.parse_args()
    containers = make_containers(options.series, options.steps, options.features)
    timings = [measure(name, x, options.repeat) for name, x in containers.items()]
    header = ["container", "read, s", "write, s"]
    rows = [[t.container, f"{t.read_seconds:.2f}", f"{t.write_seconds:.2f}"] for t in timings]
    print(format_table(header, rows))
    if options.no_write:
        return
    size = f"{options.series:,} series x {options.steps:,} steps x {options.features} variables"
    written = write_report(
        options.output,
        "panel_conversion",
        title="Containers in and out",
        table=format_table(header, rows, markdown=True),
        notes=f"{size}, a tenth missing; best of {options.repeat}.",
        results={"timings": [t._asdict() for t in timings]},
    )
    print("\nWrote " + " and ".join(map(str, written)))


if __name__ == "__main__":
    main()
