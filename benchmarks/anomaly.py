"""Find labelled anomalies in six streams of the Numenta Anomaly Benchmark (NAB).

Unsupervised: every method is fitted on a whole stream without its labels, sees windows of the same
length, and gives one score to each row. The labels mark the rows inside NAB's windows. Figures are
the area under the ROC curve and the average precision (PR-AUC), as they are and with each score
averaged over the rows within half a window ("smoothed"), the same for all methods.

The data are read from the folder named by the environment variable TSVAE_DATA.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from _common import add_common_options, find_file, new_parser, use_threads, write_report
from numpy.typing import NDArray

from tsvae.demo.report import format_table

Array = NDArray[np.float64]
PUBLISHED_AT = "https://github.com/numenta/NAB (data/, labels/combined_windows.json)"
STREAMS = (
    "art_daily_jumpsup",
    "ec2_cpu_utilization_825cc2",
    "machine_temperature_system_failure",
    "nyc_taxi",
    "rds_cpu_utilization_cc0c53",
    "speed_7578",
)
EXPLAINED = 0.9  # share of the variance that the principal components keep


class Stream(NamedTuple):
    """One stream: standardised values (T,) and whether each row is inside a labelled window."""

    name: str
    values: Array
    anomalous: NDArray[np.bool_]


@dataclass
class Scores:
    """How one method did on one stream."""

    method: str
    stream: str
    roc_auc: float
    pr_auc: float
    smoothed_roc_auc: float
    smoothed_pr_auc: float
    seconds: float


MEASURES = ("roc_auc", "pr_auc", "smoothed_roc_auc", "smoothed_pr_auc")


def load_stream(name: str) -> Stream:
    """Read a stream in the order of its rows; stamps serve the labels alone."""
    file = f"{name}.csv"
    frame = pd.read_csv(find_file("nab", file, PUBLISHED_AT), parse_dates=["timestamp"])
    labels = json.loads(find_file("nab", "labels.json", PUBLISHED_AT).read_text())
    stamps = frame["timestamp"]
    anomalous = np.zeros(len(frame), dtype=bool)
    for first, last in labels[file]:
        anomalous |= stamps.between(pd.Timestamp(first), pd.Timestamp(last)).to_numpy()
    values = frame["value"].to_numpy(np.float64)
    return Stream(name, (values - values.mean()) / values.std(), anomalous)


def mean_over_windows(of_windows: Array, length: int) -> Array:
    """Give each row the mean over the windows that cover it: (N,) or (N, length) to (T,)."""
    spread = np.broadcast_to(of_windows.reshape(len(of_windows), -1), (len(of_windows), length))
    rows = np.arange(len(of_windows))[:, None] + np.arange(length)
    total = np.bincount(rows.ravel(), spread.ravel())
    return total / np.bincount(rows.ravel())


def smooth(score: Array, length: int) -> Array:
    """Mean over `length` + 1 rows around each; fewer at the ends."""
    kernel = np.ones(length // 2 * 2 + 1)
    return np.convolve(score, kernel, "same") / np.convolve(np.ones(len(score)), kernel, "same")


def cut(values: Array, length: int) -> Array:
    return np.lib.stride_tricks.sliding_window_view(values, length)


def run_isolation_forest(stream: Stream, options: argparse.Namespace) -> Array:
    from sklearn.ensemble import IsolationForest

    windows = cut(stream.values, options.window)
    forest = IsolationForest(n_estimators=200, random_state=options.seed).fit(windows)
    return mean_over_windows(-forest.score_samples(windows), options.window)


def run_pca_rows(stream: Stream, options: argparse.Namespace) -> Array:
    return mean_over_windows(_pca_errors(stream.values, options.window), options.window)


def run_pca_windows(stream: Stream, options: argparse.Namespace) -> Array:
    errors = _pca_errors(stream.values, options.window)
    return mean_over_windows(errors.mean(axis=1), options.window)


def _pca_errors(values: Array, length: int) -> Array:
    """Squared reconstruction errors of the windows, (N, length)."""
    from sklearn.decomposition import PCA

    windows = cut(values, length)
    pca = PCA(n_components=EXPLAINED, svd_solver="full").fit(windows)
    return (windows - pca.inverse_transform(pca.transform(windows))) ** 2


def run_tsvae(stream: Stream, options: argparse.Namespace) -> Array:
    """Fit on the whole stream.

    A narrow code with the full weight of the prior: a wide one, as denoising has by default,
    reconstructs anomalies too. Few epochs: most of a stream is normal, and learned first.
    """
    from tsvae import VAEDenoiser

    settings: dict[str, Any] = {
        "window": options.window,
        "latent": "vector",
        "latent_dim": 8,
        "beta": 1.0,
        "max_epochs": 8,
        "random_state": options.seed,
        "verbose": options.verbose,
        **options.set,
    }
    frame = pd.DataFrame({"value": stream.values})
    denoiser = VAEDenoiser(**settings).fit(frame)
    return np.asarray(denoiser.anomaly_scores(frame), dtype=np.float64).reshape(-1)


METHODS: dict[str, tuple[str, Callable[[Stream, argparse.Namespace], Array]]] = {
    "forest": ("IsolationForest on windows", run_isolation_forest),
    "pca": ("PCA error of rows", run_pca_rows),
    "pca-windows": ("PCA error of windows", run_pca_windows),
    "tsvae": ("tsvae.VAEDenoiser", run_tsvae),
}


def run_method(name: str, stream: Stream, options: argparse.Namespace) -> Scores:
    from sklearn.metrics import average_precision_score, roc_auc_score

    label, run = METHODS[name]
    start = time.perf_counter()
    score = run(stream, options)
    seconds = time.perf_counter() - start
    if score.shape != stream.values.shape or not np.isfinite(score).all():
        raise RuntimeError(f"{label} must score each of the {len(stream.values)} rows")
    smoothed = smooth(score, options.window)
    truth = stream.anomalous
    result = Scores(
        label,
        stream.name,
        *(
            float(measure(truth, given))
            for given in (score, smoothed)
            for measure in (roc_auc_score, average_precision_score)
        ),
        seconds=seconds,
    )
    print(f"{stream.name}, {label}: {result.roc_auc:.3f}, {result.pr_auc:.3f}", file=sys.stderr)
    return result


def mean_table(scores: list[Scores], *, markdown: bool) -> str:
    """Means over the streams, a line for each method."""
    header = ["method", "ROC-AUC", "PR-AUC", "smoothed ROC-AUC", "smoothed PR-AUC", "seconds"]
    rows = []
    for method in dict.fromkeys(s.method for s in scores):
        own = [s for s in scores if s.method == method]
        means = [float(np.mean([getattr(s, name) for s in own])) for name in MEASURES]
        rows.append([method, *(f"{m:.3f}" for m in means), f"{sum(s.seconds for s in own):.0f}"])
    return format_table(header, rows, markdown=markdown)


def stream_table(scores: list[Scores], *, markdown: bool) -> str:
    """ROC-AUC / PR-AUC of each stream, a column for each method."""
    methods = list(dict.fromkeys(s.method for s in scores))
    found = {(s.stream, s.method): f"{s.roc_auc:.3f} / {s.pr_auc:.3f}" for s in scores}
    streams = dict.fromkeys(s.stream for s in scores)
    rows = [[stream, *(found[stream, method] for method in methods)] for stream in streams]
    return format_table(["ROC-AUC / PR-AUC", *methods], rows, markdown=markdown)


def draw(streams: list[Stream], path: Path) -> None:
    """Draw the streams with their labelled windows shaded."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.3 * len(streams)), layout="constrained")
    axes = figure.subplots(len(streams), 1, squeeze=False)[:, 0]
    for axis, stream in zip(axes, streams, strict=True):
        axis.plot(stream.values, color="#333333", lw=0.5)
        edges = np.flatnonzero(np.diff(stream.anomalous.astype(int), prepend=0, append=0))
        for first, last in edges.reshape(-1, 2):
            axis.axvspan(first, last - 1, color="#E69F00", alpha=0.4, lw=0)
        axis.set_title(stream.name, fontsize=9, loc="left", pad=2)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0)
        axis.tick_params(labelsize=8)
    axes[-1].set_xlabel("row", fontsize=9)
    figure.savefig(path, dpi=110)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--window", type=int, default=128, help="rows of a window")
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=STREAMS, metavar="NAME")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=list(METHODS),
        default=list(METHODS),
        metavar="NAME",
        help=f"{', '.join(METHODS)} (default: all)",
    )
    add_common_options(parser, "VAEDenoiser")
    options = parser.parse_args(arguments)
    if options.window < 2:
        parser.error(f"--window must be at least 2, got {options.window}")
    return options


def main() -> None:
    options = parse()
    use_threads(options.threads)
    streams = [load_stream(name) for name in options.streams]
    scores = [run_method(name, stream, options) for stream in streams for name in options.methods]
    title = "Anomalies in streams"
    print(f"{title}, windows of {options.window} rows\n")
    print(stream_table(scores, markdown=False) + "\n\n" + mean_table(scores, markdown=False))
    if options.no_write:
        return
    picture = options.output / "anomaly.png"
    written = write_report(
        options.output,
        "anomaly",
        title=title,
        table=mean_table(scores, markdown=True) + "\n\n" + stream_table(scores, markdown=True),
        notes=(
            f"Means over the streams, then each stream. Windows of {options.window} rows; fitted "
            "on the whole stream without labels. Seconds for all streams. The protocol is "
            "described in [the index](index.md).\n\n![The streams; labelled windows are "
            "shaded](anomaly.png)"
        ),
        results={
            "window": options.window,
            "settings": options.set,
            "scores": [asdict(score) for score in scores],
        },
    )
    draw(streams, picture)
    print("\nWrote " + " and ".join(map(str, [*written, picture])))


if __name__ == "__main__":
    main()
