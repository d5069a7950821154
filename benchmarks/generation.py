"""Generate heartbeats and compare them with real ones that no method has seen.

Beats annotated as normal in record 100 of the MIT-BIH Arrhythmia Database, lead MLII, high-passed
at 0.5 Hz: 256 samples each, the R wave in the middle. Methods learn from the first half of the
record (`--split alternate`: from its even minutes, since the record changes slowly) and generate
as many beats as the rest holds. Figures: the Frechet distance, the discriminative score (how far
a classifier is from chance, 0 to 0.5), and the distance to the nearest training beat, where much
less than that of the held-out beats would be copying.

The data are read from the folder named by the environment variable TSVAE_DATA.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import add_common_options, new_parser, use_threads, write_report
from _ecg import Beats, load_beats
from numpy.typing import NDArray

from tsvae.demo.report import format_table

Array = NDArray[np.float64]
BEAT = 256
RATE_HZ = 360
EXPLAINED = 0.99  # share of the variance that the principal components keep
N_SHOWN = 7

# Chosen on blocks of 50 beats of the training part (alternate minutes), every third of which was
# set aside while the models learned from the others. Frechet distances of statistics there, of
# single fits (principal components and a normal distribution: 4.0). Beats are aligned, so dense
# layers, which know the place of each sample, were ahead of convolutions (4.1 and 10.0 at 64
# numbers and beta 1); a small beta is ahead, as codes come from the fitted density (2.6 at 0.3);
# so is a large code (2.0 with 96 numbers, wider layers and beta 0.1). The scale of the residuals
# is in closed form: a learned one falls too slowly (to 0.08 at residuals of 0.05).
DENSE: dict[str, Any] = {
    "architecture": "mlp",
    "hidden_sizes": (512, 256),
    "beta": 0.1,
    "scale": "calibrated",
    "max_epochs": 100,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "vae": {**DENSE, "latent_dim": 96},
    "hierarchical": {**DENSE, "latent_dim": 48, "n_levels": 2},
    # Dense layers gave glitches with discrete codes. A coarse map of 8 codes from a small book:
    # 32 codes from a book of 256 reconstruct better (residuals of 0.08 against 0.11), but draws
    # were farther from real beats (11.7 against 7.2): a thousand beats do not teach how so many
    # codes go together.
    "vq": {
        "hidden_sizes": (32, 64, 64, 64, 64),
        "latent_dim": 16,
        "n_codes": 64,
        "scale": "calibrated",
        "max_epochs": 50,
    },
}
NOISE: dict[str, Any] = {"none": False, "white": True, "residuals": "residuals"}


class Generated(NamedTuple):
    """Beats (N, 256) that a method made."""

    beats: Array
    n_parameters: int | None = None


@dataclass
class Scores:
    """How like the held-out beats those of one method are."""

    method: str
    frechet_statistics: float
    frechet_values: float
    discriminative_statistics: float
    discriminative_values: float
    nearest_training_beat: float
    seconds: float
    n_parameters: int | None


def run_real(beats: Beats, options: argparse.Namespace) -> Generated:
    """Training beats, as a generator of perfect copies would give them."""
    rng = np.random.default_rng(options.seed)
    enough = min(len(beats.test), len(beats.train))
    return Generated(beats.train[np.sort(rng.permutation(len(beats.train))[:enough])])


def run_gaussian(beats: Beats, options: argparse.Namespace) -> Generated:
    """Draw from a normal distribution: principal components and white noise for the rest."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(options.seed)
    pca = PCA(n_components=EXPLAINED, svd_solver="full").fit(beats.train)
    codes = rng.standard_normal((len(beats.test), pca.n_components_))
    signals = pca.inverse_transform(codes * np.sqrt(pca.explained_variance_))
    noise = np.sqrt(pca.noise_variance_) * rng.standard_normal(signals.shape)
    n_parameters = pca.components_.size + pca.mean_.size + len(codes[0]) + 1
    return Generated(signals + noise, n_parameters)


def run_tsvae(beats: Beats, options: argparse.Namespace, *, model: str) -> Generated:
    """Fit on the training beats, with the settings above and those of `--set`."""
    from tsvae import VAEDenoiser

    settings: dict[str, Any] = {
        "model": model,
        # These beats are the goal, not noisy views of it.
        "self_supervision": None,
        "random_state": options.seed,
        "verbose": options.verbose,
        **SETTINGS[model],
        **options.set,
    }
    denoiser = VAEDenoiser(**settings).fit(beats.train)
    drawn = denoiser.sample(
        len(beats.test),
        source=options.source,
        noise=NOISE[options.noise],
        random_state=options.seed,
    )
    return Generated(np.asarray(drawn), sum(p.numel() for p in denoiser.model_.parameters()))


METHODS: dict[str, tuple[str, Callable[[Beats, argparse.Namespace], Generated]]] = {
    "real": ("real beats (training)", run_real),
    "gaussian": ("PCA and normal distribution", run_gaussian),
    "vae": ("tsvae VAE", partial(run_tsvae, model="vae")),
    "hierarchical": ("tsvae hierarchical VAE", partial(run_tsvae, model="hierarchical")),
    "vq": ("tsvae VQ-VAE", partial(run_tsvae, model="vq")),
}


def nearest(series: Array, reference: Array) -> float:
    """Median root mean square distance to the nearest of `reference`, itself left out."""
    from sklearn.metrics import pairwise_distances

    distances = pairwise_distances(series, reference)
    distances[distances < 1e-6] = np.inf  # a training beat among themselves
    return float(np.median(distances.min(axis=1)) / np.sqrt(series.shape[1]))


def run_method(name: str, beats: Beats, options: argparse.Namespace) -> tuple[Scores, Generated]:
    from tsvae.metrics import discriminative_score, frechet_distance

    label, run = METHODS[name]
    start = time.perf_counter()
    generated = run(beats, options)
    seconds = time.perf_counter() - start
    made = generated.beats
    scores = Scores(
        label,
        *(frechet_distance(beats.test, made, features=f) for f in ("statistics", None)),
        *(
            discriminative_score(beats.test, made, features=f, random_state=options.seed)
            for f in ("statistics", None)
        ),
        nearest_training_beat=nearest(made, beats.train),
        seconds=seconds,
        n_parameters=generated.n_parameters,
    )
    print(f"{label}: {scores}", file=sys.stderr)
    return scores, generated


def scores_table(scores: list[Scores], *, markdown: bool) -> str:
    header = [
        "method",
        "Frechet (statistics)",
        "Frechet (values)",
        "discriminative (statistics)",
        "discriminative (values)",
        "nearest training beat",
        "seconds",
        "parameters",
    ]
    rows = [
        [
            s.method,
            f"{s.frechet_statistics:.2f}",
            f"{s.frechet_values:.2f}",
            f"{s.discriminative_statistics:.3f}",
            f"{s.discriminative_values:.3f}",
            f"{s.nearest_training_beat:.3f}",
            f"{s.seconds:.0f}",
            "" if s.n_parameters is None else f"{s.n_parameters:,}",
        ]
        for s in scores
    ]
    return format_table(header, rows, markdown=markdown)


def draw(beats: Beats, made: dict[str, Array], path: Path, seed: int) -> None:
    """Draw some held-out beats, and under them as many of each method, picked at random."""
    from matplotlib.figure import Figure

    rows = {"real (held out)": beats.test, **made}
    rng = np.random.default_rng(seed)
    figure = Figure(figsize=(10, 1.45 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), N_SHOWN, sharex=True, sharey=True, squeeze=False)
    milliseconds = 1000 * (np.arange(BEAT) - BEAT // 2) / RATE_HZ
    for line, (label, series) in zip(axes, rows.items(), strict=True):
        color = "#333333" if series is beats.test else "#0072B2"
        for axis, number in zip(line, rng.permutation(len(series))[:N_SHOWN], strict=True):
            axis.plot(milliseconds, series[number], color=color, lw=0.9)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=7)
        line[0].set_title(label, fontsize=9, loc="left", pad=3)
    figure.supxlabel("milliseconds from the R wave", fontsize=9)
    figure.savefig(path, dpi=110)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=list(METHODS),
        default=list(METHODS),
        metavar="NAME",
        help=f"{', '.join(METHODS)} (default: all)",
    )
    parser.add_argument(
        "--split",
        choices=["halves", "alternate"],
        default="halves",
        help="train on the first half and test on the second, or on even and odd minutes",
    )
    parser.add_argument(
        "--source",
        choices=["density", "prior"],
        default="density",
        help="of codes: a density fitted to those of the training beats, or the model's prior",
    )
    parser.add_argument(
        "--noise",
        choices=list(NOISE),
        default="residuals",
        help="to add: none, that of the likelihood (white, of one power), or what resembles the "
        "residuals (default)",
    )
    add_common_options(parser, "VAEDenoiser")
    options = parser.parse_args(arguments)
    return options


def main() -> None:
    options = parse()
    use_threads(options.threads)
    beats = load_beats(BEAT, alternate=options.split == "alternate")
    found = {name: run_method(name, beats, options) for name in options.methods}
    scores = [score for score, _ in found.values()]
    made = {METHODS[name][0]: g.beats for name, (_, g) in found.items() if name != "real"}
    made_by = [name for name in found if name in SETTINGS]
    held_out = nearest(beats.test, beats.train)
    title = "Generating heartbeats"
    if options.split == "alternate":
        title += ", alternate minutes"
    sizes = f"{len(beats.train):,} training beats, {len(beats.test):,} held-out ones"
    distance = f"Held-out beats have their nearest training beat at {held_out:.3f}."
    print(f"{title}: {sizes}\n\n{scores_table(scores, markdown=False)}\n\n{distance}")
    if options.no_write:
        return
    stem = "generation" if options.split == "halves" else "generation_alternate"
    picture = options.output / f"{stem}.png"
    written = write_report(
        options.output,
        stem,
        title=title,
        table=scores_table(scores, markdown=True),
        notes=(
            f"{sizes}, and as many generated as held out; codes from the {options.source}, "
            f"noise: {options.noise}. Each set against the "
            f"held-out beats; less is better. {distance} The protocol is described in "
            f"[the index](index.md).\n\n![Real beats and generated ones]({stem}.png)"
        ),
        results={
            "source": options.source,
            "noise": options.noise,
            "settings": {name: {**SETTINGS.get(name, {}), **options.set} for name in made_by},
            "held_out_nearest_training_beat": held_out,
            "scores": [asdict(score) for score in scores],
        },
    )
    if made:
        draw(beats, made, picture, options.seed)
        written.append(picture)
    print("\nWrote " + " and ".join(map(str, written)))


if __name__ == "__main__":
    main()
