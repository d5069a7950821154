"""How time and memory of inference grow with steps, series and latent dimensions.

Every size runs in a process of its own, forked from a worker that has imported torch and nothing
else; memory is the peak of the resident set over its size before the first pass.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tsvae import lds

SMOOTHING, TRAINING = "smoothing", "training pass"
PAIRS, DENSE = "groups of two", "dense"
AXES = {"T": "n_steps", "B": "n_series", "D": "latent_dim"}
NAMES = {"T": "steps T", "B": "series B", "D": "latent dimensions D"}
LIMIT, LIMITED = 1.05, ("T", "B")
LEAST_MB = 2.0  # less is the allocator's
PATIENCE_S, BLOCK_S, BLOCKS, ROUNDS = 60.0, 1.0, 2, 3


class Case(NamedTuple):
    """One point of a curve; every series and step has its own precisions."""

    axis: str
    task: str
    dynamics: str
    n_series: int
    n_steps: int
    latent_dim: int

    @property
    def size(self) -> int:
        return int(getattr(self, AXES[self.axis]))


class Cost(NamedTuple):
    """Seconds of process CPU time and megabytes."""

    seconds: float
    megabytes: float

    def least(self, other: Cost | None) -> Cost:
        """Return the lesser time; megabytes of the first look."""
        if other is None:
            return self
        return self._replace(seconds=min(self.seconds, other.seconds))


class Curve(NamedTuple):
    """Costs along one axis; what was left out is not there."""

    axis: str
    task: str
    dynamics: str
    sizes: list[int]
    costs: list[Cost]

    def exponent(self, what: str) -> float | None:
        """Fit the slope of the logarithms over the upper half of the range."""
        sizes = np.array(self.sizes, dtype=float)
        values = np.array([getattr(cost, what) for cost in self.costs])
        upper = sizes >= 0.99 * np.sqrt(sizes.min() * sizes.max())
        upper &= values > (LEAST_MB if what == "megabytes" else 0.0)
        if upper.sum() < 2:
            return None
        return float(np.polyfit(np.log(sizes[upper]), np.log(values[upper]), 1)[0])


def grid(axis: str, quick: bool) -> list[tuple[int, int, int]]:
    """Sizes (B, T, D) along an axis, two to a decade in T and B."""
    if axis == "D":
        return [(4, 100, size) for size in (4, 8, 16, 32, 64, 128)[: 3 if quick else None]]
    start = 2.0 if axis == "T" else 0.0
    counts = [round(10**e) for e in np.arange(start, start + (1.1 if quick else 4.1), 0.5)]
    return [(1, count, 8) if axis == "T" else (count, 50, 8) for count in counts]


# -- the worker ------------------------------------------------------------------------------


def make_pass(case: Case, seed: int) -> Callable[[], None]:
    """Draw the problem; return what is measured."""
    generator = torch.Generator().manual_seed(seed)
    size = 2 if case.dynamics == PAIRS else case.latent_dim
    groups = case.latent_dim // size
    skew = torch.randn(groups, size, size, generator=generator) / size**0.5
    shape = (case.n_series, case.n_steps, case.latent_dim)
    leaves = [
        0.97 * torch.linalg.matrix_exp(skew - skew.mT),
        0.2 * torch.eye(size).repeat(groups, 1, 1),
        torch.randn(shape, generator=generator),
        0.2 + 2.8 * torch.rand(shape, generator=generator),
    ]
    for leaf in leaves:
        leaf.requires_grad_(case.task == TRAINING)

    def run() -> None:
        params = lds.make_parameters(leaves[0], leaves[1])
        filtered = lds.filter_states(params, lds.Potentials(leaves[2], leaves[3]))
        smoothed = lds.smooth(params, filtered)
        if case.task == TRAINING:
            loss = lds.local_kl(params, filtered, smoothed).sum()
            torch.autograd.grad(loss + smoothed.smoothed_mean.square().sum(), leaves)

    return run


def _kilobytes(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split(field + ":")[1].split()[0])


def reset_peak() -> float:
    """Forget the peak of the resident set where the system allows; return the set's size, MB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _kilobytes("VmRSS") / 1024
    except OSError:
        return peak()


def peak() -> float:
    try:
        return _kilobytes("VmHWM") / 1024
    except OSError:
        unit = 1024 if sys.platform != "darwin" else 1024**2
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def cost_of(run: Callable[[], None]) -> Cost:
    """Peak of the first run; the fastest of several means, for others share the machine.

    Means over equal times: a moment of quiet is not enough for a short run to look fast.
    """
    before = reset_peak()
    means: list[float] = []
    megabytes = 0.0
    while len(means) < BLOCKS:
        start, spent, runs = time.process_time(), 0.0, 0
        while spent < BLOCK_S:
            run()
            spent, runs = time.process_time() - start, runs + 1
            megabytes = megabytes or max(peak() - before, 0.0)
        means.append(spent / runs)
    return Cost(min(means), megabytes)


def _child(case: Case, seed: int, threads: int, pipe: Any) -> None:
    torch.set_num_threads(threads)
    with torch.set_grad_enabled(case.task == TRAINING):
        make_pass(case._replace(n_series=1, n_steps=3), seed)()  # code is loaded when first run
        pipe.send(cost_of(make_pass(case, seed)))


def measure(case: Case, seed: int, threads: int) -> Cost | None:
    """Run one case in a child; None if it died (out of memory, as a rule)."""
    start = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(start)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(case, seed, threads, sender))
    child.start()
    sender.close()
    try:
        return Cost(*receiver.recv())
    except EOFError:
        return None
    finally:
        child.join()


def fits(case: Case, last: Case | None, cost: Cost | None) -> bool:
    """Whether the next size can be expected to end in time and within half of the free memory."""
    if last is None or cost is None:
        return True
    factor = case.size / last.size
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**2
    return factor * cost.seconds < PATIENCE_S and factor * cost.megabytes < free / 2


def curves(quick: bool, seed: int, threads: int) -> Iterator[Curve]:
    for axis in AXES:
        for dynamics in (PAIRS, DENSE):
            for task in (SMOOTHING, TRAINING):
                cases = [Case(axis, task, dynamics, *sizes) for sizes in grid(axis, quick)]
                costs = list(_ascend(cases, seed, threads))
                # A slow quarter of an hour of the machine meets all sizes alike.
                for _ in range(ROUNDS - 1):
                    again = (measure(case, seed, threads) for case in cases[: len(costs)])
                    costs = [old.least(new) for old, new in zip(costs, again, strict=True)]
                sizes = [case.size for case in cases[: len(costs)]]
                yield Curve(axis, task, dynamics, sizes, costs)


def _ascend(cases: list[Case], seed: int, threads: int) -> Iterator[Cost]:
    """Costs of one size after another, as long as they can be borne."""
    last, cost = None, None
    for case in cases:
        if not fits(case, last, cost):
            return
        cost = measure(case, seed, threads)
        if cost is None:
            return
        yield cost
        last = case


def worker(text: str) -> None:
    """Print one line of JSON for each curve."""
    for curve in curves(**json.loads(text)):
        sys.stdout.write(json.dumps(curve) + "\n")
        sys.stdout.flush()


# -- the part --------------------------------------------------------------------------------


def run_growth(options: argparse.Namespace) -> Any:
    """Measure in a fresh process, fit the exponents, draw."""
    from _speed_timing import Part

    found = _collect(options)
    checks = {
        what: [
            slope
            for curve in found
            if curve.axis in LIMITED and (slope := curve.exponent(what)) is not None
        ]
        for what in Cost._fields
    }
    holds = all(slope <= LIMIT for slopes in checks.values() for slope in slopes)
    picture = "speed_growth.png"
    if not options.no_write:
        draw(found, options.output / picture)
    return Part(
        title="Growth of time and memory",
        tables=[_exponents(found)],
        notes=_notes(options),
        results={"curves": [_results(curve) for curve in found]},
        pictures=[] if options.no_write else [picture],
        holds=holds,
    )


def _collect(options: argparse.Namespace) -> list[Curve]:
    task = {"quick": options.quick, "seed": options.seed, "threads": options.threads}
    command = [sys.executable, str(Path(__file__).resolve()), json.dumps(task)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rows = [Curve(*json.loads(line)) for line in done.stdout.splitlines()]
    return [row._replace(costs=[Cost(*cost) for cost in row.costs]) for row in rows]


def _exponents(found: list[Curve]) -> Any:
    from _speed_timing import Table, ms, verdict

    header = ["growth with", "dynamics", "task", "from", "to", "exponent of time", "of memory"]
    header += ["limit", "holds", "last time, ms", "last memory, MB"]
    lines = []
    for curve in found:
        slopes = [curve.exponent(what) for what in Cost._fields]
        limited = curve.axis in LIMITED
        kept = all(slope is None or slope <= LIMIT for slope in slopes)
        line = [NAMES[curve.axis], curve.dynamics, curve.task]
        line += [f"{curve.sizes[0]:,}", f"{curve.sizes[-1]:,}"]
        line += ["-" if slope is None else f"{slope:.2f}" for slope in slopes]
        line += [f"<= {LIMIT}", verdict(kept)] if limited else ["", ""]
        last = curve.costs[-1]
        lines.append([*line, ms(1000 * last.seconds), f"{last.megabytes:,.0f}"])
    return Table("", header, lines)


def _results(curve: Curve) -> dict[str, Any]:
    return {
        "axis": curve.axis,
        "task": curve.task,
        "dynamics": curve.dynamics,
        "sizes": curve.sizes,
        "seconds": [cost.seconds for cost in curve.costs],
        "megabytes": [cost.megabytes for cost in curve.costs],
        "exponents": {what: curve.exponent(what) for what in Cost._fields},
    }


def _notes(options: argparse.Namespace) -> str:
    return (
        "Steps: one series, D = 8. Series: 50 steps, D = 8. Latent dimensions: 4 series of 100 "
        "steps. float32; every series and step has its own precisions, so that nothing is shared. "
        "Smoothing: filter, smoothed moments, no gradients. Training pass: filter, smoother, KL "
        "divergence, backward. Each size in its own process: process CPU time (fastest of six "
        "means over a second or more, in three rounds over the sizes), peak of the resident set "
        "over its size before. Exponents are slopes of the logarithms over the upper half of the "
        f"range; memory under {LEAST_MB:g} MB is not used. Sizes that would take more than "
        f"{PATIENCE_S:g} s or half of the free memory are left out. "
        f"{options.threads} thread(s)."
    )


def draw(found: list[Curve], path: Path) -> None:
    """Time above, memory below; a column for each axis; the grey line grows in proportion."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 3, figsize=(12, 6.5), sharex="col", layout="constrained")
    styles = {SMOOTHING: "-", TRAINING: "--"}
    colours = {PAIRS: "#0072B2", DENSE: "#D55E00"}
    for column, axis in enumerate(AXES):
        for row, (what, label, unit) in enumerate(
            (("seconds", "CPU time, ms", 1000.0), ("megabytes", "peak memory, MB", 1.0))
        ):
            panel = panels[row, column]
            for curve in (c for c in found if c.axis == axis):
                values = [unit * getattr(cost, what) for cost in curve.costs]
                shown = [(s, v) for s, v in zip(curve.sizes, values, strict=True) if v > 0.1]
                if shown:
                    style = {"linestyle": styles[curve.task], "color": colours[curve.dynamics]}
                    name = f"{curve.dynamics}, {curve.task}"
                    panel.plot(*zip(*shown, strict=True), marker="o", ms=3, label=name, **style)
            panel.set(xscale="log", yscale="log")
            _guide(panel)
            panel.grid(alpha=0.3)
            if column == 0:
                panel.set_ylabel(label)
            if row == 1:
                panel.set_xlabel(NAMES[axis])
    for panel in panels[:, 2]:
        panel.set_xticks([4, 16, 64], ["4", "16", "64"], minor=False)
        panel.set_xticks([8, 32, 128], ["8", "32", "128"], minor=True)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _guide(panel: Any) -> None:
    """Draw a line of slope 1 through the middle of the panel's upper end."""
    (low, high), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    x = np.array([low, high])
    panel.plot(x, top * x / high, color="0.7", lw=1, zorder=0, label="in proportion")
    panel.set(xlim=(low, high), ylim=(bottom, top))


if __name__ == "__main__":
    worker(sys.argv[1])
