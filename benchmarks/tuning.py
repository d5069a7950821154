"""Search the settings of a denoiser the classic way: successive halving over a grid.

Series drawn from known factors (a sinusoid on a line, with much noise), 64 steps each.
The grid holds epochs, batch size, learning rate, hidden sizes and the size of the code of a dense
variational autoencoder. ``HalvingGridSearchCV`` fits all settings on a part of the series, keeps
the best quarter, and goes on with four times the series. It sees noisy series alone: the criterion
is ``score``, the held-out log density per value. What the clean series say about the winner is
measured afterwards, on fresh series.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from _common import add_report_options, write_report
from numpy.typing import NDArray
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingGridSearchCV

from tsvae import VAEDenoiser
from tsvae.datasets import FactorSeries, make_factor_series
from tsvae.demo.report import format_table
from tsvae.metrics import signal_to_noise_ratio
from tsvae.plotting import InterpolationDisplay, ReconstructionDisplay

Array = NDArray[np.float64]

N_TRAIN, N_TEST = 2400, 500
RANGES = {"noise": (0.3, 0.6)}  # 3 to 9 dB
FACTOR, MIN_SERIES, N_FOLDS = 4, 600, 2
GRID: dict[str, list[Any]] = {
    "max_epochs": [8, 24],
    "batch_size": [32, 128],
    "learning_rate": [1e-3, 5e-3],
    "hidden_sizes": [(64,), (128, 64)],
    "latent_dim": [4, 8],
}


class Measured(NamedTuple):
    """One denoiser on fresh series."""

    name: str
    snr: float  # dB
    log_density: float  # nats per value, in training-standardised units
    seconds: float  # of the fit


def start() -> VAEDenoiser:
    """Make the denoiser whose settings are searched: dense layers, one code for each series."""
    # The criterion counts the whole divergence; so does training with beta=1.
    return VAEDenoiser(architecture="mlp", latent="vector", beta=1.0, random_state=0, device="cpu")


def search(train: Array, n_jobs: int) -> HalvingGridSearchCV:
    """Run the search on noisy series (N, T)."""
    halving = HalvingGridSearchCV(
        start(),
        GRID,
        factor=FACTOR,
        resource="n_samples",
        min_resources=MIN_SERIES,
        cv=N_FOLDS,
        random_state=0,
        n_jobs=n_jobs,
    )
    return halving.fit(train)


def measure(name: str, denoiser: VAEDenoiser, seconds: float, test: FactorSeries) -> Measured:
    """Score a fitted denoiser on fresh series, noisy and clean."""
    noisy, clean = test.series[..., 0], test.clean[..., 0]
    return Measured(
        name, pooled_snr(clean, denoiser.transform(noisy)), denoiser.score(noisy), seconds
    )


def pooled_snr(clean: Array, found: Array) -> float:
    """Powers over all series and steps, in dB."""
    return float(signal_to_noise_ratio(clean.ravel(), found.ravel()))


def fit(denoiser: VAEDenoiser, train: Array) -> float:
    """Fit and return the seconds it took."""
    begin = time.perf_counter()
    denoiser.fit(train)
    return time.perf_counter() - begin


def compare(best: HalvingGridSearchCV, train: Array, test: FactorSeries) -> list[Measured]:
    """Measure the winner beside settings that were not searched."""
    noisy, clean = test.series[..., 0], test.clean[..., 0]
    rows = [Measured("noisy series", pooled_snr(clean, noisy), np.nan, np.nan)]
    for name, denoiser in (
        ("dense, not searched", start()),
        ("all defaults (map of codes)", VAEDenoiser(random_state=0, device="cpu")),
    ):
        seconds = fit(denoiser, train)
        rows.append(measure(name, denoiser, seconds, test))
    winner = best.best_estimator_
    rows.append(measure("dense, best of the search", winner, best.refit_time_, test))
    return rows


# -- tables and pictures ---------------------------------------------------------------------------


def setting_cells(params: dict[str, Any]) -> list[str]:
    return [str(params[name]) for name in GRID]


def rung_table(results: pd.DataFrame, *, markdown: bool) -> str:
    """Write settings and criterion of each rung's best."""
    header = ["rung", "series", "settings", *GRID, "log density"]
    cells = []
    for rung, group in results.groupby("iter"):
        best = group.sort_values("mean_test_score", ascending=False).iloc[0]
        size, number = f"{best['n_resources']:,}", str(len(group))
        score = f"{best['mean_test_score']:.3f}"
        cells.append([str(rung + 1), size, number, *setting_cells(best["params"]), score])
    return format_table(header, cells, markdown=markdown)


def last_table(results: pd.DataFrame, *, markdown: bool) -> str:
    """Write all settings of the last rung."""
    header = [*GRID, "log density", "fit, s"]
    last = results[results["iter"] == results["iter"].max()]
    cells = [
        [
            *setting_cells(row["params"]),
            f"{row['mean_test_score']:.3f} ± {row['std_test_score']:.3f}",
            f"{row['mean_fit_time']:.1f}",
        ]
        for _, row in last.sort_values("mean_test_score", ascending=False).iterrows()
    ]
    return format_table(header, cells, markdown=markdown)


def result_table(rows: list[Measured], *, markdown: bool) -> str:
    header = ["denoiser", "SNR, dB", "log density", "fit, s"]

    def number(value: float, form: str) -> str:
        return "-" if np.isnan(value) else f"{value:{form}}"

    cells = [
        [r.name, number(r.snr, ".1f"), number(r.log_density, ".3f"), number(r.seconds, ".1f")]
        for r in rows
    ]
    return format_table(header, cells, markdown=markdown)


def draw(winner: VAEDenoiser, test: FactorSeries, folder: Path) -> list[Path]:
    """Draw the winner's reconstructions, with gaps, and the way between pairs of series."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    noisy, clean = test.series[..., 0].copy(), test.clean[..., 0]
    loud = np.argsort(-test.factors["noise"].to_numpy())[:3]
    shown = noisy[loud]
    shown[:, 20:28] = np.nan
    paths = [folder / "tuning_reconstructions.png", folder / "tuning_interpolations.png"]
    display = ReconstructionDisplay.from_estimator(winner, shown, clean=clean[loud], n_draws=200)
    display.ax_.get_figure().savefig(paths[0], dpi=80)
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), layout="constrained")
    for place, ax in enumerate(axes):
        a, b = noisy[2 * place], noisy[2 * place + 1]
        InterpolationDisplay.from_estimator(winner, a, b, n_records=7, ax=ax)
        ax.set_ylabel("place on the path" if ax is axes[0] else "")
    figure.savefig(paths[1], dpi=80)
    plt.close("all")
    return paths


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="fits at once (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    add_report_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # Settings that are too small for the data are part of a grid; the search drops them.
    warnings.filterwarnings("ignore", category=UserWarning, module="tsvae")
    rng = np.random.default_rng(0)
    data = make_factor_series(N_TRAIN, ranges=RANGES, random_state=rng)
    test = make_factor_series(N_TEST, ranges=RANGES, random_state=rng)
    train = data.series[..., 0]
    begin = time.perf_counter()
    best = search(train, options.jobs)
    seconds = time.perf_counter() - begin
    results = pd.DataFrame(best.cv_results_)
    rows = compare(best, train, test)
    n_fits = len(results) * N_FOLDS
    summary = (
        f"The search took {seconds:.0f} s for {n_fits} fits, {options.jobs} at once. "
        f"Best: {best.best_params_}."
    )
    print(rung_table(results, markdown=False), last_table(results, markdown=False), sep="\n\n")
    print(f"\n{result_table(rows, markdown=False)}\n\n{summary}")
    if options.no_write:
        return
    options.output.mkdir(parents=True, exist_ok=True)
    pictures = draw(best.best_estimator_, test, options.output)
    tables = [
        "Best setting of each rung:",
        rung_table(results, markdown=True),
        "All settings of the last rung:",
        last_table(results, markdown=True),
        f"On {N_TEST} fresh series, all fitted on the same {N_TRAIN:,}:",
        result_table(rows, markdown=True),
    ]
    notes = (
        f"{summary} Series of 64 steps from known factors; search and fits see noisy series "
        "alone. Log density: `score`, nats per value in training-standardised units, for the "
        f"rungs the mean over {N_FOLDS} folds. SNR: of the denoised series against the clean "
        "ones.\n\n"
        "![Three series with the most noise and a gap](tuning_reconstructions.png)\n\n"
        "![The way between pairs of series](tuning_interpolations.png)"
    )
    paths = write_report(
        options.output,
        "tuning",
        title="Tuning a denoiser by successive halving",
        table="\n\n".join(tables),
        notes=notes,
        results={
            "best": {name: _plain(value) for name, value in best.best_params_.items()},
            "search_seconds": seconds,
            "fresh": [row._asdict() for row in rows],
        },
    )
    print(*paths, *pictures, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
