"""Smoothing and likelihood: ours beside dynamax, statsmodels and simdkalman, same numbers first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import _speed_peers as peers
from _speed_problems import (
    Gradient,
    Problem,
    Shape,
    constant,
    make_problem,
    our_gradient,
    our_moments,
    relative_difference,
)
from _speed_timing import (
    Options,
    Part,
    Table,
    Times,
    geometric_mean,
    ms,
    progress,
    race,
    ratio,
    verdict,
)

SHAPES = (Shape(5, 24, 50), Shape(32, 200, 16), Shape(16, 1000, 32))
LONG_SHAPES = (Shape(1, 10_000, 8), Shape(1, 100_000, 4))
QUICK_SHAPES = (Shape(3, 20, 6), Shape(4, 50, 4), Shape(2, 30, 8))
QUICK_LONG_SHAPES = (Shape(1, 200, 8), Shape(1, 500, 4))
TOLERANCE = 1e-3  # float32 against float32, over the largest entry
SMOOTHING_LIMIT, LIKELIHOOD_LIMIT, STATSMODELS_LIMIT = 3.0, 2.0, 3.0

Contest = dict[str, Callable[[], Any]]


class Row(NamedTuple):
    """Times of all competitors on one problem."""

    shape: Shape
    times: dict[str, Times]
    differences: dict[str, float]

    def advantage(self, peer: str, ours: str, threads: int) -> float | None:
        if peer not in self.times:
            return None
        return ratio(self.times[peer], self.times[ours]).judged(threads)

    def results(self) -> dict[str, Any]:
        return {
            "shape": self.shape._asdict(),
            "times": {name: times.summary() for name, times in self.times.items()},
            "differences": self.differences,
        }


def run_smoothing(options: Options) -> Part:
    peers.quiet()
    short, long = _shapes(options)
    shapes = [*short, *long, *(s._replace(own=True) for s in short)]
    rows = [
        _contest(_smoothers(make_problem(shape, options.seed), short, long), shape, options)
        for shape in shapes
    ]
    compared = _against_dynamax(rows, options.threads)
    doubles = [row for row in rows if "statsmodels" in row.times or "simdkalman" in row.times]
    statsmodels = [a for r in rows if (a := r.advantage("statsmodels", "ours64", options.threads))]
    checks = [
        _check("dynamax: least ratio", compared, min, 1.0),
        _check("dynamax: geometric mean", compared, geometric_mean, SMOOTHING_LIMIT),
        _check("statsmodels", statsmodels, min, STATSMODELS_LIMIT),
    ]
    return Part(
        title="Smoothing: means and covariances of all states, forward",
        tables=[
            _table("dynamax, float32", rows, ["dynamax"], "ours", options),
            _table("float64", doubles, ["statsmodels", "simdkalman"], "ours64", options),
            _checks_table(checks),
        ],
        notes=_notes(options, peers.missing("dynamax", "statsmodels", "simdkalman"))
        + "statsmodels returns all that it can, and stops its covariance recursion when it has "
        "converged.",
        results=_results(rows, checks),
        holds=_holds(checks),
    )


def run_likelihood(options: Options) -> Part:
    peers.quiet()
    short, _ = _shapes(options)
    shapes = [*short, *(s._replace(own=True) for s in short)]
    rows = [
        _contest(_likelihoods(make_problem(shape, options.seed)), shape, options)
        for shape in shapes
    ]
    compared = _against_dynamax(rows, options.threads)
    checks = [
        _check("dynamax: least ratio", compared, min, 1.0),
        _check("dynamax: geometric mean", compared, geometric_mean, LIKELIHOOD_LIMIT),
    ]
    return Part(
        title="Log-likelihood and its gradient for the transition",
        tables=[
            _table("dynamax, float32", rows, ["dynamax"], "ours", options),
            _checks_table(checks),
        ],
        notes=_notes(options, peers.missing("dynamax")),
        results=_results(rows, checks),
        holds=_holds(checks),
    )


def _shapes(options: Options) -> tuple[Sequence[Shape], Sequence[Shape]]:
    return (QUICK_SHAPES, QUICK_LONG_SHAPES) if options.quick else (SHAPES, LONG_SHAPES)


def _smoothers(problem: Problem, short: Sequence[Shape], long: Sequence[Shape]) -> Contest:
    """Who takes part: simdkalman on the short shapes, statsmodels on the first long one."""
    shape = problem.shape
    contest: Contest = {"ours": lambda: our_moments(problem)}
    if peers.has("dynamax"):
        contest["dynamax"] = peers.dynamax_smoother(problem)
    if shape in short and peers.has("simdkalman"):
        contest["simdkalman"] = peers.simdkalman_smoother(problem)
    if shape == long[0] and peers.has("statsmodels"):
        contest["statsmodels"] = peers.statsmodels_smoother(problem)
    if {"simdkalman", "statsmodels"} & contest.keys():
        double = problem.double()
        contest["ours64"] = lambda: our_moments(double)
    return contest


def _likelihoods(problem: Problem) -> Contest:
    contest: Contest = {"ours": lambda: our_gradient(problem)}
    if peers.has("dynamax"):
        shift = constant(problem)
        run = peers.dynamax_gradient(problem)

        def log_normalizer() -> Gradient:
            found = run()
            return Gradient(found.value - shift, found.transition)

        contest["dynamax"] = log_normalizer
    return contest


def _contest(contest: Contest, shape: Shape, options: Options) -> Row:
    """Check that all competitors find the same, then time them."""
    ours = peers.as_tensors(contest["ours"]())
    differences = {}
    for name in contest.keys() - {"ours"}:
        theirs = peers.as_tensors(contest[name]())
        pairs = zip(ours, theirs, strict=True)
        differences[name] = max(relative_difference(a, b) for a, b in pairs)
        if not differences[name] < TOLERANCE:
            raise SystemExit(
                f"error: {name} and ours differ by {differences[name]:.2g} of the largest entry at "
                f"{shape}; expected less than {TOLERANCE:g}."
            )
    row = Row(shape, race(contest, budget=options.budget), differences)
    progress(f"{shape}: " + ", ".join(f"{name} {ms(t.cpu_ms)}" for name, t in row.times.items()))
    return row


def _against_dynamax(rows: Sequence[Row], threads: int) -> list[float]:
    return [found for row in rows if (found := row.advantage("dynamax", "ours", threads))]


class Check(NamedTuple):
    """A figure and the limit that it must reach; None without the peer."""

    name: str
    value: float | None
    limit: float

    @property
    def holds(self) -> bool | None:
        return None if self.value is None else self.value >= self.limit


def _check(
    name: str, values: Sequence[float], reduce: Callable[[Sequence[float]], float], limit: float
) -> Check:
    return Check(name, reduce(values) if values else None, limit)


def _holds(checks: Sequence[Check]) -> bool | None:
    known = [check.holds for check in checks if check.holds is not None]
    return all(known) if known else None


def _checks_table(checks: Sequence[Check]) -> Table:
    rows = [
        [
            check.name,
            "not measured" if check.value is None else f"{check.value:.1f}",
            f">= {check.limit:g}",
            verdict(check.holds),
        ]
        for check in checks
    ]
    return Table("Times as fast as", ["peer", "ratio", "limit", "holds"], rows)


def _table(
    caption: str, rows: Sequence[Row], others: Sequence[str], ours: str, options: Options
) -> Table:
    header = ["B, T, D"]
    for peer in others:
        header += [f"{peer} / ours", f"{peer}, ms", f"{peer} cpu"]
    header += ["ours, ms", "ours cpu", "difference"]
    lines = []
    for row in rows:
        line = [str(row.shape)]
        for peer in others:
            found = row.advantage(peer, ours, options.threads)
            times = row.times.get(peer)
            line += ["-" if found is None else f"{found:.1f}"]
            line += ["-", "-"] if times is None else [ms(times.wall_ms), ms(times.cpu_ms)]
        own = row.times[ours]
        apart = max((row.differences[p] for p in others if p in row.differences), default=None)
        line += [ms(own.wall_ms), ms(own.cpu_ms), "-" if apart is None else f"{apart:.0e}"]
        lines.append(line)
    return Table(caption, header, lines)


def _notes(options: Options, absent: Sequence[str]) -> str:
    clock = "process CPU" if options.threads == 1 else "wall"
    return (
        "Dense random stable transition; the same potentials for every competitor, as observations "
        f"of the state. {options.threads} thread(s) each, in turns in one process; ratios are "
        f"medians within rounds, of {clock} time. 'Difference' is the largest between the results, "
        "over the largest entry. Without 'own precisions' all series and steps share theirs. "
        "dynamax: sequential functions, jitted and mapped over the series, compilation excluded; "
        "where precisions are shared its covariances are computed and returned once for all series "
        "(parameters are not mapped over), and noise is given in the faster of its two forms. "
        + (f"Not installed, so not measured: {', '.join(absent)}. " if absent else "")
    )


def _results(rows: Sequence[Row], checks: Sequence[Check]) -> dict[str, Any]:
    return {
        "rows": [row.results() for row in rows],
        "checks": [{**check._asdict(), "holds": check.holds} for check in checks],
    }
