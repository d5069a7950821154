"""Denoise an electrocardiogram with white noise, beside filters and a plain autoencoder.

Lead MLII of record 100 of the MIT-BIH Arrhythmia Database, high-passed at 0.5 Hz, unit variance.
Methods are fitted on windows of the first half and clean windows of 512 samples of the second.
Figures are output signal-to-noise ratios, pooled over the second half. With `--missing p`, that
share of all noisy samples, drawn at random, is hidden; every method must return all of them.

The data are read from the folder named by the environment variable TSVAE_DATA.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import _filters as filters
import numpy as np
from _common import add_common_options, new_parser, use_threads, write_report
from _ecg import WINDOW, Halves, load_halves, windows
from numpy.typing import NDArray

from tsvae.demo.report import format_table

Array = NDArray[np.float64]
SHOWN = 3  # test window in the picture


class Windows(NamedTuple):
    """Windows (N, 512) of one half; noisy ones have NaN where a sample is missing."""

    clean: Array
    noisy: Array


class Task(NamedTuple):
    """Denoising at one noise level."""

    snr: float
    noise_variance: float
    train: Windows
    test: Windows


class Denoised(NamedTuple):
    """What a method made of the test windows."""

    windows: Array
    n_parameters: int | None = None
    settings: dict[str, Any] | None = None


@dataclass
class Scores:
    """Output signal-to-noise ratios of one method, dB; keys are input ratios."""

    method: str
    training: str
    snr: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    n_parameters: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


Method = Callable[[Task, argparse.Namespace], Denoised]


def make_task(halves: Halves, snr: float, options: argparse.Namespace) -> Task:
    """Noise and gaps belong to the recording: overlapping windows share them."""
    variance = 10 ** (-snr / 10)
    both = []
    for number, (half, stride) in enumerate(
        ((halves.train, options.stride), (halves.test, WINDOW)), start=1
    ):
        # Of the noise only its scale depends on the level: the draw is the same at all levels.
        rng = np.random.default_rng([options.seed, number])
        noisy = half + np.sqrt(variance) * rng.standard_normal(len(half))
        noisy[rng.random(len(half)) < options.missing] = np.nan
        both.append(Windows(windows(half, WINDOW, stride), windows(noisy, WINDOW, stride)))
    return Task(snr, variance, *both)


def run_nothing(task: Task, options: argparse.Namespace) -> Denoised:
    return Denoised(filters.interpolate(task.test.noisy))


def run_wavelet_two_levels(task: Task, options: argparse.Namespace) -> Denoised:
    settings = {"wavelet": "sym8", "level": 2}
    noisy = filters.interpolate(task.test.noisy)
    return Denoised(filters.bayes_shrink(noisy, **settings), settings=settings)


def run_wavelet(task: Task, options: argparse.Namespace) -> Denoised:
    return _run_tuned(filters.tune_wavelet, task)


def run_savitzky_golay(task: Task, options: argparse.Namespace) -> Denoised:
    return _run_tuned(filters.tune_savitzky_golay, task)


def _run_tuned(tune: Callable[[Array, Array, float], filters.Tuned], task: Task) -> Denoised:
    tuned = tune(filters.interpolate(task.train.noisy), task.train.clean, task.noise_variance)
    return Denoised(tuned.apply(filters.interpolate(task.test.noisy)), settings=tuned.settings)


def run_wiener(task: Task, options: argparse.Namespace) -> Denoised:
    wiener = filters.Wiener(task.train.clean, task.noise_variance)
    return Denoised(wiener.apply(filters.interpolate(task.test.noisy)))


def run_wiener_observed(task: Task, options: argparse.Namespace) -> Denoised:
    wiener = filters.Wiener(task.train.clean, task.noise_variance)
    return Denoised(wiener.apply_to_observed(task.test.noisy))


def run_autoencoder(task: Task, options: argparse.Namespace) -> Denoised:
    from _autoencoder import fit_autoencoder, reconstruct

    model = fit_autoencoder(
        filters.interpolate(task.train.noisy), task.train.clean, seed=options.seed
    )
    clean = reconstruct(model, filters.interpolate(task.test.noisy))
    return Denoised(clean, sum(p.numel() for p in model.parameters()))


def run_tsvae(task: Task, options: argparse.Namespace, *, clean: bool) -> Denoised:
    """Fit on the training windows, with the defaults but for `--set`; gaps stay NaN."""
    from tsvae import VAEDenoiser

    settings: dict[str, Any] = {
        "random_state": options.seed,
        "verbose": options.verbose,
        **options.set,
    }
    denoiser = VAEDenoiser(**settings)
    denoiser.fit(task.train.noisy, clean=task.train.clean if clean else None)
    found = np.asarray(denoiser.transform(task.test.noisy))
    return Denoised(found, sum(p.numel() for p in denoiser.model_.parameters()), options.set)


class Entry(NamedTuple):
    """A line of the table: its name, what it learns from, what makes it."""

    label: str
    training: str
    run: Method


METHODS: dict[str, Entry] = {
    "input": Entry("input", "nothing", run_nothing),
    "wavelet-2": Entry("BayesShrink wavelet, 2 levels", "nothing", run_wavelet_two_levels),
    "wavelet": Entry("BayesShrink wavelet", "clean (settings)", run_wavelet),
    "savgol": Entry("Savitzky-Golay", "clean (settings)", run_savitzky_golay),
    "wiener": Entry("Wiener filter", "clean (covariance)", run_wiener),
    "wiener-observed": Entry(
        "Wiener filter, observed samples only", "clean (covariance)", run_wiener_observed
    ),
    "autoencoder": Entry("plain autoencoder", "clean targets", run_autoencoder),
    "tsvae-clean": Entry("tsvae.VAEDenoiser", "clean targets", partial(run_tsvae, clean=True)),
    "tsvae-noisy": Entry("tsvae.VAEDenoiser", "noisy alone", partial(run_tsvae, clean=False)),
}


def run_methods(
    tasks: list[Task], options: argparse.Namespace
) -> tuple[list[Scores], dict[str, Array]]:
    """Score the methods at all levels; keep a window of each, at the first level, to draw."""
    from tsvae.metrics import signal_to_noise_ratio

    scores, shown = [], {}
    for name in options.methods:
        label, training, run = METHODS[name]
        score = Scores(label, training)
        for task in tasks:
            start = time.perf_counter()
            found = run(task, options)
            score.seconds += time.perf_counter() - start
            key = f"{task.snr:g}"
            score.snr[key] = float(
                signal_to_noise_ratio(task.test.clean.ravel(), found.windows.ravel())
            )
            score.n_parameters = found.n_parameters
            if found.settings:
                score.settings[key] = found.settings
            shown.setdefault(name, found.windows[SHOWN])
            print(f"{label} ({training}), {key} dB: {score.snr[key]:.2f} dB", file=sys.stderr)
        scores.append(score)
    return scores, shown


def scores_table(scores: list[Scores], *, markdown: bool) -> str:
    levels = list(scores[0].snr)
    header = ["method", "learns from", *(f"{s} dB" for s in levels), "seconds", "parameters"]
    rows = [
        [
            s.method,
            s.training,
            *(f"{s.snr[level]:.2f}" for level in levels),
            f"{s.seconds:.0f}",
            "" if s.n_parameters is None else f"{s.n_parameters:,}",
        ]
        for s in scores
    ]
    return format_table(header, rows, markdown=markdown)


def draw(task: Task, scores: list[Scores], shown: dict[str, Array], path: Path) -> None:
    """Draw one test window: noisy, clean, and what each method made of it."""
    from matplotlib.figure import Figure

    names = [name for name in shown if name != "input"]
    figure = Figure(figsize=(9, 1.2 + 1.15 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    clean, noisy = task.test.clean[SHOWN], task.test.noisy[SHOWN]
    for axis, name in zip(axes, names, strict=True):
        axis.plot(noisy, color="#BBBBBB", lw=0.6, label="noisy")
        axis.plot(clean, color="#333333", lw=1.2, label="clean")
        axis.plot(shown[name], color="#D55E00", lw=1.0, label="estimate")
        axis.set_title(
            f"{METHODS[name].label}, {METHODS[name].training}", fontsize=9, loc="left", pad=2
        )
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    axes[-1].set_xlabel("sample (360 Hz)", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--snr", type=float, nargs="+", default=[0, 5, 10], help="of the input, dB")
    parser.add_argument("--missing", type=float, default=0.0, help="share of the samples hidden")
    parser.add_argument("--stride", type=int, default=256, help="between training windows")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=list(METHODS),
        default=None,
        metavar="NAME",
        help=f"{', '.join(METHODS)} (default: all that differ)",
    )
    add_common_options(parser, "VAEDenoiser")
    options = parser.parse_args(arguments)
    if not 0 <= options.missing < 1:
        parser.error(f"--missing must be in [0, 1), got {options.missing}")
    if options.stride < 1:
        parser.error(f"--stride must be at least 1, got {options.stride}")
    if options.methods is None:  # without gaps both Wiener filters are one
        options.methods = [m for m in METHODS if options.missing or m != "wiener-observed"]
    return options


def main() -> None:
    options = parse()
    use_threads(options.threads)
    halves = load_halves()
    tasks = [make_task(halves, snr, options) for snr in options.snr]
    title = "Denoising an electrocardiogram"
    if options.missing:
        title += f", {options.missing:.0%} of the samples missing"
    sizes = f"{len(tasks[0].train.clean):,} training windows, {len(tasks[0].test.clean):,} test"
    scores, shown = run_methods(tasks, options)
    print(f"{title}: {sizes} windows\n\n" + scores_table(scores, markdown=False))
    if options.no_write:
        return
    stem = "denoising" + (f"_missing{round(100 * options.missing)}" if options.missing else "")
    written = write_report(
        options.output,
        stem,
        title=title,
        table=scores_table(scores, markdown=True),
        notes=(
            f"Output signal-to-noise ratio in dB at each ratio of the input, pooled over all test "
            f"windows; {sizes} windows of {WINDOW} samples, training windows every "
            f"{options.stride}. Seconds for all levels, fit and test. The protocol is described "
            f"in [the index](index.md).\n\n![One test window at {options.snr[0]:g} dB]({stem}.png)"
        ),
        results={"settings": options.set, "scores": [asdict(score) for score in scores]},
    )
    draw(tasks[0], scores, shown, options.output / f"{stem}.png")
    print("\nWrote " + " and ".join(map(str, [*written, options.output / f"{stem}.png"])))


if __name__ == "__main__":
    main()
