"""tsvae.PairVAELinker on the records of the benchmark: fit, both predictions, bands, picture."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _pairs import SIDES, Array, Gold, Matches, Pairs, Rows, match, share_inside

COVERAGE = 0.9
N_SAMPLES = 200
SHOWN = (0.1, 0.5, 0.9, 0.99)  # quantiles of the records' errors whose records are drawn

# Parameters other than the defaults, by the part of the benchmark; `--set` goes before them.
SETTINGS: dict[str, dict[str, Any]] = {
    "pairs": {},
    "few": {},
    "ecg": {"latent": "map", "beta": 0.01, "max_epochs": 20},  # beta of the denoiser's default
}


class Fit(NamedTuple):
    """A fitted linker and what it took."""

    linker: Any
    seconds: float
    settings: dict[str, Any]
    n_parameters: int


class Coverage(NamedTuple):
    """Share of the held-out values inside 90 % bands of one direction."""

    interval: float  # of predict_interval
    sample: float  # between quantiles of draws


class Bands(NamedTuple):
    lower: Array
    upper: Array


def fit_linker(x: Array, y: Array, part: str, options: argparse.Namespace) -> Fit:
    """Fit to rows of both sides; NaN is what was not measured."""
    from tsvae import PairVAELinker

    settings = {**SETTINGS[part], **options.set}
    start = time.perf_counter()
    linker = PairVAELinker(
        **{"random_state": options.seed, "verbose": options.verbose, **settings}
    ).fit(x, y)
    seconds = time.perf_counter() - start
    return Fit(linker, seconds, settings, sum(p.numel() for p in linker.model_.parameters()))


def bands(linker: Any, pairs: Pairs) -> tuple[Bands, Bands]:
    """Bounds of UV-Vis from SAXS, and of SAXS from UV-Vis."""
    found = (
        linker.predict_interval(pairs.test_x, COVERAGE),
        linker.predict_interval_inverse(pairs.test_y, COVERAGE),
    )
    forward, inverse = (Bands(np.asarray(b.lower), np.asarray(b.upper)) for b in found)
    return forward, inverse


def coverages(linker: Any, pairs: Pairs) -> tuple[Coverage, Coverage]:
    """Shares of the test part inside `predict_interval` and inside quantiles of draws."""
    draws = (
        linker.sample(pairs.test_x, N_SAMPLES),
        linker.sample_inverse(pairs.test_y, N_SAMPLES),
    )
    tail = (1 - COVERAGE) / 2
    forward, inverse = (
        Coverage(
            share_inside(actual, *band),
            share_inside(actual, *np.quantile(np.asarray(drawn), [tail, 1 - tail], axis=0)),
        )
        for actual, band, drawn in zip(
            (pairs.test_y, pairs.test_x), bands(linker, pairs), draws, strict=True
        )
    )
    return forward, inverse


def link(linker: Any, x: Array, candidates: Array, partner: Rows) -> Matches:
    """Score the links of rows of `x` to rows of `candidates`."""
    found = linker.link(x, candidates, n_best=5)
    return match(np.asarray(found.best), np.asarray(found.assignment), partner)


def code_correlation(linker: Any, pairs: Pairs) -> float:
    """Return the least correlation of both sides' codes, over the active units of the test part."""
    diagonal = np.diag(linker.cross_correlation(pairs.test_x, pairs.test_y))
    return float(diagonal[linker.active_units_].min())


def draw(linker: Any, gold: Gold, path: Path) -> None:
    """Draw test records with their predictions and bands, from good to bad ones."""
    from matplotlib.figure import Figure

    pairs = gold.pairs
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(2, len(SHOWN), squeeze=False)
    sides = (
        (pairs.test_y, linker.predict(pairs.test_x), gold.wavelength, "wavelength, nm"),
        (pairs.test_x, linker.predict_inverse(pairs.test_y), gold.q, "q, 1/nm"),
    )
    titles = (f"{SIDES[1]} from {SIDES[0]}", f"{SIDES[0]} from {SIDES[1]}")
    labels = ("extinction", "log10 intensity")
    for row, (actual, mean, grid, name), band, title, label in zip(
        axes, sides, bands(linker, pairs), titles, labels, strict=True
    ):
        errors = np.sqrt(np.mean((actual - np.asarray(mean)) ** 2, axis=1))
        ranked = np.argsort(errors)
        for axis, share in zip(row, SHOWN, strict=True):
            i = ranked[round(share * (len(ranked) - 1))]
            draw_record(axis, grid, actual[i], np.asarray(mean)[i], band.lower[i], band.upper[i])
            axis.set_title(f"{title}\nrecord at {share:.0%} of the errors: RMSE {errors[i]:.3f}")
            axis.title.set_fontsize(8.5)
            axis.set_xlabel(name, fontsize=8)
        row[0].set_ylabel(label, fontsize=8)
    for axis in axes[1]:
        axis.set_xscale("log")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)


def draw_record(
    axis: Any, grid: Array, actual: Array, mean: Array, lower: Array, upper: Array
) -> None:
    axis.fill_between(grid, lower, upper, color="#D55E00", alpha=0.3, lw=0, label="90 % band")
    axis.plot(grid, actual, color="#333333", lw=1.2, label="measured")
    axis.plot(grid, mean, color="#D55E00", lw=1.0, ls="--", label="predicted")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def draw_correlation(linker: Any, gold: Gold, path: Path) -> None:
    """Draw the cross-correlation of both sides' posterior means over the test records."""
    from matplotlib.figure import Figure

    from tsvae.plotting import CrossCorrelationDisplay

    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    CrossCorrelationDisplay.from_estimator(
        linker, gold.pairs.test_x, gold.pairs.test_y, names=SIDES, ax=figure.subplots()
    )
    figure.savefig(path, dpi=120)
