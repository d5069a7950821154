"""Whole jobs: a million steps in bounded memory, many forecasts, back-tests, a fit, a search.

Each job runs in a process of its own (``python _speed_jobs.py NAME OPTIONS``), so that its peak
memory is its own; it prints one JSON object.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from _speed_timing import Options, Part, Table, verdict
from numpy.typing import NDArray

Array = NDArray[np.float64]
MEMORY_LIMIT = 4.0  # GB
INTERVAL_LIMIT, BACKTEST_LIMIT, FIT_LIMIT = 1.5, 3.0, 60.0  # seconds, ratio, seconds
IMPORT_LIMIT, SEARCH_LIMIT = 1.25, 0.65  # ratios
# Test error of the default fit before work on speed: docs/benchmarks/forecasting_ETTh1_96.md.
ETTH1_MSE, MSE_TOLERANCE = 0.3801, 0.002


class Row(NamedTuple):
    """One figure; ``limit`` None: for information."""

    what: str
    figure: float
    unit: str
    limit: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        return None if self.limit is None else bool(self.figure <= self.limit)

    def cells(self) -> list[str]:
        limit = "" if self.limit is None else f"{self.limit:g} {self.unit}"
        figure = f"{self.figure:.4f}" if self.unit == "MSE" else f"{self.figure:,.2f}"
        return [self.what, f"{figure} {self.unit}", limit, verdict(self.holds), self.note]


def make_part(title: str, rows: Sequence[Row], notes: str) -> Part:
    table = Table("", ["what", "figure", "asked", "holds", ""], [row.cells() for row in rows])
    results = {"rows": [row._asdict() | {"holds": row.holds} for row in rows]}
    return Part(title, [table], notes, results, holds=all(row.holds is not False for row in rows))


def run_job(name: str, **options: Any) -> dict[str, Any]:
    """Run a job of this module in a process of its own."""
    command = [sys.executable, __file__, name, json.dumps(options)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# -- the jobs -----------------------------------------------------------------------------------


def waves(n_series: int, n_steps: int, n_features: int, seed: int, missing: float = 0.0) -> Array:
    """Daily waves with noise (series, step, variable); NaN where missing."""
    rng = np.random.default_rng(seed)
    phase = rng.random((n_series, 1, n_features))
    x = np.sin(2 * np.pi * (np.arange(n_steps)[None, :, None] / 24 + phase))
    x += 0.3 * rng.standard_normal(x.shape)
    x[rng.random(x.shape) < missing] = np.nan
    return x


def frame_of(x: Array) -> pd.DataFrame:
    """Hourly table; of several series with a first level ``series``."""
    n_series, n_steps, n_features = x.shape
    hours = pd.date_range("1900-01-01", periods=n_steps, freq="h")
    index: pd.Index = hours
    if n_series > 1:
        index = pd.MultiIndex.from_product([range(n_series), hours], names=["series", "time"])
    columns = [f"v{f}" for f in range(n_features)]
    return pd.DataFrame(x.reshape(-1, n_features), index=index, columns=columns)


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(function: Callable[[], object], rounds: int = 1) -> float:
    """Return the least CPU seconds of some calls."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def long_series(steps: int, channels: str, missing: float, seed: int) -> dict[str, Any]:
    """Fit for one pass, then smooth the whole series."""
    from tsvae import SVAEForecaster

    data = frame_of(waves(1, steps, 8, seed, missing))
    window, windows_per_epoch = 512 + 96, 4 * 50
    epochs = max(1, round(steps / window / windows_per_epoch))
    forecaster = SVAEForecaster(
        96, latent_dim=8, channels=channels, max_epochs=epochs, random_state=seed
    )
    jobs = {
        "fit, one pass": forecaster.fit,
        "impute": forecaster.impute,
        "transform": forecaster.transform,
        "score_samples": forecaster.score_samples,
    }
    found = {}
    for name, job in jobs.items():
        seconds = timed(partial(job, data))
        found[name] = {"seconds": seconds, "peak_gb": peak_gb()}
    return found


def intervals(n_series: int, seed: int) -> dict[str, Any]:
    """Forecast 96 steps of many series with 90 % intervals."""
    from tsvae import SVAEForecaster

    data = frame_of(waves(n_series, 512, 1, seed))
    forecaster = SVAEForecaster(96, random_state=seed).fit(data)
    found = {}
    for name, missing in {"complete": 0.0, "gaps": 0.2}.items():
        history = frame_of(waves(n_series, 512, 1, seed + 1, missing))
        seconds = timed(partial(forecaster.predict_interval, history, coverage=0.9), 3)
        found[name] = {"seconds": seconds, "peak_gb": peak_gb()}
    return found


def backtests(n_origins: int, seed: int) -> dict[str, Any]:
    """Back-test from many origins, and from one."""
    from tsvae import SVAEForecaster, backtest

    found = {}
    for name, missing in {"complete": 0.0, "gaps": 0.2}.items():
        data = frame_of(waves(1, 6000, 7, seed, missing))
        forecaster = SVAEForecaster(96, random_state=seed).fit(data[:3000])

        run = partial(backtest, forecaster, data, horizon=96, step=24, coverage=0.9)
        one = timed(partial(run, n_origins=1), 5)
        many = timed(partial(run, n_origins=n_origins), 3)
        found[name] = {"one": one, "many": many, "ratio": many / one}
    return found


def default_fit(epochs: int | None, seed: int) -> dict[str, Any]:
    """Default fit on ETTh1, and its test error."""
    from _common import DATA_SETS, load

    from tsvae import SVAEForecaster
    from tsvae.panel import read_panel

    frame = load("ETTh1")
    split = DATA_SETS["ETTh1"].split(len(frame))
    train = frame.iloc[: split.train_end]
    target = (frame - train.mean()) / train.std(ddof=0)
    forecaster = SVAEForecaster(96, random_state=seed, max_epochs=epochs)
    seconds = timed(lambda: forecaster.fit(target.iloc[: split.train_end]))
    origins = np.arange(split.validation_end, split.test_end - 96 + 1)
    start = time.process_time()
    predicted = forecaster._forecast_origins(read_panel(target), origins, 96)[:, 0]
    forecasting = time.process_time() - start
    actual = target.to_numpy()[origins[:, None] + np.arange(96)]
    mse = float(((predicted - actual) ** 2).mean())
    return {"seconds": seconds, "forecasting": forecasting, "mse": mse, "peak_gb": peak_gb()}


def search(n_jobs: int, epochs: int, seed: int) -> dict[str, Any]:
    """Grid search of 4 settings with 3 cuts, no refit; wall time, and CPU time of all processes."""
    from joblib.externals.loky import get_reusable_executor
    from sklearn.model_selection import GridSearchCV

    from tsvae import RollingOriginSplit, SVAEForecaster

    data = frame_of(waves(1, 2000, 4, seed))
    grid = {"latent_dim": [16, 32], "learning_rate": [0.01, 0.03]}
    model = SVAEForecaster(24, max_epochs=epochs, random_state=seed)
    cuts = RollingOriginSplit(3, horizon=24)
    start, cpu = time.perf_counter(), time.process_time()
    GridSearchCV(model, grid, cv=cuts, n_jobs=n_jobs, refit=False).fit(data)
    seconds = time.perf_counter() - start
    if n_jobs > 1:
        get_reusable_executor().shutdown(wait=True)  # ended children are counted
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() - cpu + children.ru_utime + children.ru_stime
    return {"seconds": seconds, "cpu": cpu}


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "long_series": long_series,
    "intervals": intervals,
    "backtests": backtests,
    "default_fit": default_fit,
    "search": search,
}


# -- the parts ----------------------------------------------------------------------------------


def run_long(options: Options) -> Part:
    steps = 20_000 if options.quick else 1_000_000
    rows = []
    for channels in ("independent", "joint"):
        for missing in (0.0, 0.2):
            found = run_job(
                "long_series", steps=steps, channels=channels, missing=missing, seed=options.seed
            )
            kind = f"{channels}, {'20 % missing' if missing else 'complete'}"
            for name, job in found.items():
                note = f"{job['seconds']:.1f} s CPU"
                rows.append(Row(f"{kind}: {name}", job["peak_gb"], "GB", MEMORY_LIMIT, note))
    notes = (
        f"An hourly table of {steps:,} steps and 8 variables, D = 8 (per variable, if channels are "
        "independent). Peak memory of the process so far (`ru_maxrss`), the data and torch itself "
        "included; the methods follow each other in one process. A pass of training takes as many "
        "windows as make up the series; smoothing (impute, transform) and densities go over it in "
        "overlapping pieces."
    )
    return make_part("A million steps in bounded memory", rows, notes)


def run_jobs(options: Options) -> Part:
    notes = [
        "CPU seconds of the process on one thread, least of some calls, unless stated otherwise. "
        "The search's first ratio is one of wall times and means something on an idle machine "
        "only; the second says what running side by side costs: half of it is what an idle machine "
        "with two cores would come to."
    ]
    rows = [*_forecast_rows(options), *_fit_rows(options, notes), *_import_rows(options)]
    rows += _search_rows(options)
    return make_part("Whole jobs", rows, " ".join(notes))


def _forecast_rows(options: Options) -> list[Row]:
    n_series, n_origins = (50, 20) if options.quick else (1000, 100)
    found = run_job("intervals", n_series=n_series, seed=options.seed)
    tested = run_job("backtests", n_origins=n_origins, seed=options.seed)
    name = f"{n_series:,} series, 96 steps ahead from 512, 90 % intervals"
    gaps = ", a different 20 % missing in each"
    rows = [
        Row(name, found["complete"]["seconds"], "s", INTERVAL_LIMIT),
        Row(name + gaps, found["gaps"]["seconds"], "s"),
    ]
    for kind, limit in (("complete", BACKTEST_LIMIT), ("gaps", None)):
        own = tested[kind]
        what = f"back-test, {n_origins} origins over one, 7 variables"
        note = f"{1000 * own['many']:.0f} ms over {1000 * own['one']:.0f} ms"
        suffix = "" if kind == "complete" else ", 20 % missing"
        rows.append(Row(what + suffix, own["ratio"], "x", limit, note))
    return rows


def _fit_rows(options: Options, notes: list[str]) -> list[Row]:
    if not os.environ.get("TSVAE_DATA"):
        notes.append("ETTh1 is left out: TSVAE_DATA is not set.")
        return []
    epochs = 1 if options.quick else None  # None: the default
    found = run_job("default_fit", epochs=epochs, seed=options.seed)
    note = f"{found['forecasting']:.1f} s for 2,785 forecasts of the test part"
    limit = None if options.quick else ETTH1_MSE + MSE_TOLERANCE
    return [
        Row("default fit on ETTh1, 8,640 rows x 7", found["seconds"], "s", FIT_LIMIT, note),
        Row("its test error, 96 steps ahead", found["mse"], "MSE", limit),
    ]


def _import_rows(options: Options) -> list[Row]:
    """CPU time of fresh interpreters, in turns."""
    codes = {
        "base": "import torch, sklearn, pandas",
        "import tsvae": "import tsvae",
        "from tsvae import SVAEForecaster": "from tsvae import SVAEForecaster",
        "import of all three estimators": (
            "from tsvae import SVAEForecaster, VAEDenoiser, PairVAELinker"
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(2 if options.quick else 7):
        for name, code in codes.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
            times[name].append(user + system)
    base = times.pop("base")
    rows = []
    for name, own in times.items():
        ratio = statistics.median(np.divide(own, base))
        note = f"{statistics.median(own):.2f} s over {statistics.median(base):.2f} s"
        limit = IMPORT_LIMIT if name == "import tsvae" else None
        rows.append(Row(f"{name} over torch, sklearn, pandas", ratio, "x", limit, note))
    return rows


def _search_rows(options: Options) -> list[Row]:
    epochs = 1 if options.quick else 6  # a search of about a minute and a half
    found = [run_job("search", n_jobs=n, epochs=epochs, seed=options.seed) for n in (1, 2)]
    one, two = (run["seconds"] for run in found)
    cpu_one, cpu_two = (run["cpu"] for run in found)
    limit = None if options.quick or (os.cpu_count() or 1) < 2 else SEARCH_LIMIT
    note, cpu = f"{two:.0f} s over {one:.0f} s", f"{cpu_two:.0f} s over {cpu_one:.0f} s"
    return [
        Row("GridSearchCV, n_jobs=2 over 1", two / one, "x", limit, note),
        Row("the same by CPU time of all processes", cpu_two / cpu_one, "x", None, cpu),
    ]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    print(json.dumps(JOBS[sys.argv[1]](**json.loads(sys.argv[2]))))
