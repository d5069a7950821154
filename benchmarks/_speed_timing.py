"""What the parts of the speed benchmark share: fair timing of competitors, and what a part returns.

Competitors take turns, so that what else the machine does falls on all of them alike, and each
ratio is the median over the rounds of the ratio *within* a round. Both clocks are kept: wall time
is what one waits for, process CPU time is the same on one thread without the other programs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tsvae.demo.report import format_table

TURN_MS = 60.0


class Table(NamedTuple):
    """Rows of text under a caption (may be empty)."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def format(self, *, markdown: bool) -> str:
        text = format_table(self.header, self.rows, markdown=markdown)
        return f"{self.caption}\n\n{text}" if self.caption else text


class Part(NamedTuple):
    """What one part of the benchmark found; ``speed_<name>.md`` and ``.json`` are made of it.

    ``pictures`` are names of files that the part wrote to ``options.output`` (none with
    ``options.no_write``), ``holds`` says whether all limits are kept (None: there are none).
    """

    title: str
    tables: Sequence[Table]
    notes: str
    results: dict[str, Any]
    pictures: Sequence[str] = ()
    holds: bool | None = None

    def format(self, *, markdown: bool) -> str:
        tables = [table.format(markdown=markdown) for table in self.tables]
        images = [f"![{self.title}]({name})" for name in self.pictures] if markdown else []
        return "\n\n".join([*tables, *images])


class Options(argparse.Namespace):
    """What every part is given."""

    parts: list[str]
    quick: bool  # small shapes, few rounds: checks the code, measures nothing
    threads: int
    seed: int
    budget: float  # seconds that one race may take, about
    output: Path
    no_write: bool


class Times(NamedTuple):
    """Milliseconds of each round."""

    wall: list[float]
    cpu: list[float]

    @property
    def wall_ms(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_ms(self) -> float:
        return statistics.median(self.cpu)

    def judged_ms(self, threads: int) -> float:
        return self.cpu_ms if threads == 1 else self.wall_ms

    def summary(self) -> dict[str, float]:
        return {
            "wall_ms": self.wall_ms,
            "cpu_ms": self.cpu_ms,
            "least_wall_ms": min(self.wall),
            "rounds": len(self.wall),
        }


class Ratio(NamedTuple):
    """How many times one competitor's time another one takes, by both clocks."""

    wall: float
    cpu: float

    def judged(self, threads: int) -> float:
        """Return CPU time's on one thread, wall time's on several."""
        return self.cpu if threads == 1 else self.wall


def progress(text: str) -> None:
    """Say on standard error what has been measured: a part can take minutes."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def clock(function: Callable[[], object], repeats: int = 1) -> Times:
    """Time one call, or the mean of several."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        function()
    stop, stop_cpu = time.perf_counter(), time.process_time()
    return Times([1000 * (stop - wall) / repeats], [1000 * (stop_cpu - cpu) / repeats])


def race(
    competitors: dict[str, Callable[[], object]],
    *,
    budget: float = 10.0,
    fewest: int = 3,
    most: int = 50,
) -> dict[str, Times]:
    """Let competitors take turns for about `budget` seconds after one warm-up call each.

    A turn of a short call is the mean of as many as take about `TURN_MS`, or the caches that the
    others left cold would count.
    """
    for function in competitors.values():
        function()
    alone = {name: clock(function).wall_ms for name, function in competitors.items()}
    repeats = {name: max(1, round(TURN_MS / value)) for name, value in alone.items()}
    round_ms = sum(repeats[name] * value for name, value in alone.items())
    rounds = int(min(most, max(fewest, 1000 * budget / round_ms)))
    found = {name: Times([], []) for name in competitors}
    names = list(competitors)
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            times = clock(competitors[name], repeats[name])
            found[name].wall.extend(times.wall)
            found[name].cpu.extend(times.cpu)
    return found


def ratio(numerator: Times, denominator: Times) -> Ratio:
    """Median over the rounds of the ratio within a round."""
    return Ratio(
        float(np.median(np.divide(numerator.wall, denominator.wall))),
        float(np.median(np.divide(numerator.cpu, denominator.cpu))),
    )


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def ms(value: float) -> str:
    """Write milliseconds with three figures or so."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def verdict(holds: bool | None) -> str:
    return "" if holds is None else "yes" if holds else "NO"
