"""Predict one measurement from the other and find out which records belong together.

Four parts. `pairs`: SAXS and UV-Vis of 3,000 gold nanoparticle samples, simulated; each side from
the other, root mean square errors and coverage of bands. `few`: the same with 100 pairs, all other
training records without their partner. `link`: which of 500 shuffled UV-Vis records belongs to
which SAXS record. `ecg`: lead V5 from lead MLII of record 100 of the MIT-BIH Arrhythmia Database,
with complete records and with 20 % of the samples missing.

The data are read from the folder named by the environment variable TSVAE_DATA. The reports (of the
first three parts, and of `ecg`) are written after runs with all methods on the test parts, and
after others if `--output` is given.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import _linking_ours as ours
import numpy as np
from _common import REPORTS, add_common_options, new_parser, use_threads, write_report
from _filters import interpolate
from _pair_peers import PEERS, Folds, last_quarter, shuffled_folds
from _pairs import (
    SIDES,
    Array,
    Gold,
    Matches,
    Pairs,
    first_pairs,
    load_ecg,
    load_gold,
    match_nearest,
    pooled_r2,
    rmse,
    unpair,
)

from tsvae.demo.report import format_table

OURS = "tsvae"
LABELS = {**{name: peer.label for name, peer in PEERS.items()}, OURS: "tsvae.PairVAELinker"}
GOLD_METHODS = ("pls", "cca", "ridge", "knn", "mlp", "trees", OURS)
ECG_METHODS = ("pls", "ridge", "filter", "mlp", OURS)
METHODS = tuple(LABELS)
PARTS = ("pairs", "few", "link", "ecg")
N_PAIRED = 100
MISSING = 0.2
DIRECTIONS = (f"{SIDES[0]} to {SIDES[1]}", f"{SIDES[1]} to {SIDES[0]}")


class BothWays(NamedTuple):
    """What a method predicts for the test part, and what that took."""

    forward: Array
    inverse: Array
    seconds: float
    settings: Any
    fit: ours.Fit | None = None


class Table(NamedTuple):
    """A table of the report, and the same for programs."""

    title: str
    header: list[str]
    rows: list[list[str]]
    results: Any
    note: str = ""

    def text(self, *, markdown: bool) -> str:
        title = f"## {self.title}" if markdown else self.title
        table = format_table(self.header, self.rows, markdown=markdown)
        return "\n\n".join(filter(None, [title, table, self.note]))


@dataclass
class Study:
    """Data and fits that several parts share; each is read or made when first needed."""

    options: argparse.Namespace
    fits: dict[str, BothWays] = field(default_factory=dict)

    @cached_property
    def gold(self) -> Gold:
        return load_gold(validation=self.options.validation)

    def both_ways(self, name: str) -> BothWays:
        if name not in self.fits:
            self.fits[name] = predict_both(name, self.gold.pairs, "pairs", self.options)
        return self.fits[name]

    def methods(self, known: tuple[str, ...]) -> list[str]:
        return [name for name in known if name in self.options.methods]


def predict_both(name: str, pairs: Pairs, part: str, options: argparse.Namespace) -> BothWays:
    """Fit a peer once a direction, or the linker once."""
    if name == OURS:
        return predict_ours(pairs.x, pairs.y, pairs, part, options)
    start = time.perf_counter()
    folds = shuffled_folds(len(pairs.x), options.seed)
    forward = PEERS[name].fit(pairs.x, pairs.y, folds, options.seed)
    inverse = PEERS[name].fit(pairs.y, pairs.x, folds, options.seed)
    found = forward.predict(pairs.test_x), inverse.predict(pairs.test_y)
    settings = {DIRECTIONS[0]: forward.settings, DIRECTIONS[1]: inverse.settings}
    return BothWays(*found, time.perf_counter() - start, settings)


def predict_ours(
    x: Array, y: Array, pairs: Pairs, part: str, options: argparse.Namespace
) -> BothWays:
    """Fit the linker to `x` and `y`, then predict the test part of `pairs`."""
    start = time.perf_counter()
    fit = ours.fit_linker(x, y, part, options)
    found = fit.linker.predict(pairs.test_x), fit.linker.predict_inverse(pairs.test_y)
    seconds = time.perf_counter() - start
    forward, inverse = (np.asarray(side) for side in found)
    return BothWays(forward, inverse, seconds, fit.settings, fit)


def error_row(label: str, both: BothWays, pairs: Pairs) -> dict[str, Any]:
    """Describe the errors of one method; print them, as the next method may take long."""
    row = {
        "method": label,
        "rmse": [rmse(pairs.test_y, both.forward), rmse(pairs.test_x, both.inverse)],
        "seconds": both.seconds,
        "n_parameters": both.fit.n_parameters if both.fit else None,
        "settings": both.settings,
    }
    say(f"{label}: {row['rmse'][0]:.4f}, {row['rmse'][1]:.4f}; {both.settings}", both.seconds)
    return row


def error_table(title: str, rows: list[dict[str, Any]]) -> Table:
    header = ["method", *(f"{way}, RMSE" for way in DIRECTIONS), "seconds"]
    cells = [
        [r["method"], *(f"{value:.3f}" for value in r["rmse"]), f"{r['seconds']:.0f}"] for r in rows
    ]
    return Table(title, header, cells, rows)


def run_pairs(study: Study) -> list[Table]:
    """Each side from the other."""
    pairs = study.gold.pairs
    names = study.methods(GOLD_METHODS)
    rows = [error_row(LABELS[name], study.both_ways(name), pairs) for name in names]
    tables = [error_table(f"One side from the other, {len(pairs.x):,} training pairs", rows)]
    if OURS in names:
        tables.append(coverage_table(study.both_ways(OURS).fit, pairs))
    return tables


def coverage_table(fit: Any, pairs: Pairs) -> Table:
    found = ours.coverages(fit.linker, pairs)
    least = ours.code_correlation(fit.linker, pairs)
    units = int(np.sum(fit.linker.active_units_))
    rows = [
        [way, f"{100 * c.interval:.1f} %", f"{100 * c.sample:.1f} %"]
        for way, c in zip(DIRECTIONS, found, strict=True)
    ]
    say(f"coverage {found}, least correlation of codes {least:.3f}", 0)
    header = ["direction", "predict_interval", f"quantiles of {ours.N_SAMPLES} draws"]
    results = {
        "coverage": dict(zip(DIRECTIONS, (c._asdict() for c in found), strict=True)),
        "least_code_correlation": least,
        "active_units": units,
    }
    note = f"Codes of both sides correlate by {least:.3f} or more on all {units} active units."
    return Table("Coverage of 90 % bands", header, rows, results, note)


def run_few(study: Study) -> list[Table]:
    """Predict the same from 100 pairs; ours also learns from records without a partner."""
    pairs = study.gold.pairs
    few, semi = first_pairs(pairs, N_PAIRED), unpair(pairs, N_PAIRED)
    rows = []
    for name in study.methods(GOLD_METHODS):
        label = LABELS[name] + (", pairs alone" if name == OURS else "")
        rows.append(error_row(label, predict_both(name, few, "few", study.options), few))
        if name == OURS:
            both = predict_ours(semi.x, semi.y, pairs, "few", study.options)
            rows.append(error_row(LABELS[name] + ", and unpaired records", both, pairs))
    n_single = len(pairs.x) - N_PAIRED
    title = f"{N_PAIRED} training pairs, {n_single:,} records of each side without a partner"
    return [error_table(title, rows)]


def run_link(study: Study) -> list[Table]:
    """Which UV-Vis record belongs to which SAXS record."""
    pairs = study.gold.pairs
    order = np.random.default_rng([study.options.seed, 2]).permutation(len(pairs.test_y))
    candidates, partner = pairs.test_y[order], np.argsort(order)
    rows: list[tuple[str, Matches]] = []
    for name in study.methods(GOLD_METHODS):
        both = study.both_ways(name)
        if both.fit:
            found = ours.link(both.fit.linker, pairs.test_x, candidates, partner)
        else:
            found = match_nearest(both.forward, candidates, partner)
        label = LABELS[name] + ("" if both.fit else ", nearest neighbour")
        say(f"{label}: {found}", 0)
        rows.append((label, found))
    header = ["method", "top-1", "top-5", "one-to-one assignment"]
    cells = [[label, *(f"{share:.3f}" for share in found)] for label, found in rows]
    results = [{"method": label, **found._asdict()} for label, found in rows]
    return [Table(f"{len(order)} shuffled pairs: partners found", header, cells, results)]


def run_ecg(study: Study) -> list[Table]:
    """Lead V5 from lead MLII, complete and with gaps."""
    rows: dict[str, dict[str, Any]] = {}
    for missing in (0.0, MISSING):
        options = study.options
        pairs = load_ecg(missing=missing, validation=options.validation, seed=options.seed)
        for name in study.methods(ECG_METHODS):
            start = time.perf_counter()
            predicted, settings = predict_lead(name, pairs, options)
            seconds = time.perf_counter() - start
            score = pooled_r2(pairs.test_y, predicted)
            row = rows.setdefault(name, {"r2": [], "seconds": [], "settings": []})
            for key, value in (("r2", score), ("seconds", seconds), ("settings", settings)):
                row[key].append(value)
            say(f"{LABELS[name]}, {missing:.0%} missing: R2 {score:.4f}; {settings}", seconds)
    header = ["method", "complete, R2", f"{MISSING:.0%} missing, R2", "seconds"]
    cells = [
        [LABELS[name], *(f"{v:.4f}" for v in row["r2"]), f"{sum(row['seconds']):.0f}"]
        for name, row in rows.items()
    ]
    results = [{"method": LABELS[name], **row} for name, row in rows.items()]
    return [Table("Lead V5 from lead MLII", header, cells, results)]


def predict_lead(name: str, pairs: Pairs, options: argparse.Namespace) -> tuple[Array, Any]:
    """Ours gets gaps as NaN; in those of the peers, straight lines are drawn first."""
    if name == OURS:
        fit = ours.fit_linker(pairs.x, pairs.y, "ecg", options)
        return np.asarray(fit.linker.predict(pairs.test_x)), fit.settings
    folds: Folds = last_quarter(len(pairs.x))
    fitted = PEERS[name].fit(interpolate(pairs.x), interpolate(pairs.y), folds, options.seed)
    return fitted.predict(interpolate(pairs.test_x)), fitted.settings


RUN: dict[str, Callable[[Study], list[Table]]] = {
    "pairs": run_pairs,
    "few": run_few,
    "link": run_link,
    "ecg": run_ecg,
}


def say(text: str, seconds: float) -> None:
    print(text + (f" ({seconds:.0f} s)" if seconds else ""), file=sys.stderr, flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    choose = partial(parser.add_argument, nargs="+", metavar="NAME")
    choose("--parts", choices=PARTS, default=PARTS, help=f"{', '.join(PARTS)} (default: all)")
    choose("--methods", choices=METHODS, default=METHODS, help=", ".join(METHODS))
    parser.add_argument(
        "--validation",
        action="store_true",
        help="test on the end of the training parts instead, to choose settings",
    )
    add_common_options(parser, "PairVAELinker")
    parser.set_defaults(output=None)
    options = parser.parse_args(arguments)
    return options


class Report(NamedTuple):
    """A report of some parts: its file, title and notes."""

    file: str
    title: str
    parts: tuple[str, ...]
    methods: tuple[str, ...]
    notes: str


REPORT_OF = (
    Report(
        "linking",
        "One measurement from the other",
        ("pairs", "few", "link"),
        GOLD_METHODS,
        "Root mean square errors in units of the data (log10 intensity; extinction). Seconds for "
        "choosing settings, fit and prediction, both directions together. The linker is fitted "
        "once for both directions and for the links.",
    ),
    Report(
        "linking_ecg",
        "One lead of an electrocardiogram from another",
        ("ecg",),
        ECG_METHODS,
        "R2 pooled over all samples of the test windows. Seconds for choosing settings, fit and "
        "prediction.",
    ),
)


def write(study: Study, report: Report, tables: list[Table], folder: Path) -> None:
    """Write the tables, and a picture if the linker was fitted to the pairs."""
    fit = study.fits[OURS].fit if OURS in study.fits and "pairs" in report.parts else None
    picture = folder / f"{report.file}.png"
    correlation = folder / f"{report.file}_correlation.png"
    notes = (
        report.notes
        + (" On the validation parts." if study.options.validation else "")
        + " The protocol is described in [the index](index.md)."
    )
    if fit:
        notes += f"\n\n![Test records with predictions and 90 % bands]({picture.name})"
        notes += f"\n\n![Correlation of the codes of both sides]({correlation.name})"
    written = write_report(
        folder,
        report.file,
        title=report.title,
        table="\n\n".join(table.text(markdown=True) for table in tables),
        notes=notes,
        results={
            "settings": {**ours.SETTINGS, "--set": study.options.set},
            "tables": {table.title: table.results for table in tables},
        },
    )
    if fit:
        ours.draw(fit.linker, study.gold, picture)
        ours.draw_correlation(fit.linker, study.gold, correlation)
        written += [picture, correlation]
    print("\nWrote " + " and ".join(map(str, written)))


def main() -> None:
    options = parse()
    use_threads(options.threads)
    study = Study(options)
    tables = {part: RUN[part](study) for part in PARTS if part in options.parts}
    print("\n\n".join(t.text(markdown=False) for made in tables.values() for t in made))
    for report in REPORT_OF:
        made = [table for part in report.parts for table in tables.get(part, [])]
        whole = set(report.parts) <= set(tables) and set(report.methods) <= set(options.methods)
        measured = whole and not options.validation
        if made and not options.no_write and (measured or options.output is not None):
            write(study, report, made, options.output or REPORTS)


if __name__ == "__main__":
    main()
