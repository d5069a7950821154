"""CPU milliseconds of exact inference in linear dynamics, alone.

64 latent dimensions in groups of one or two, float32. ``train`` is filter, smoother and local KL of
28 series x 607 steps, forward and backward, with all series sharing one missing pattern or each its
own, for plug-in and for expected parameters; ``filter`` is the filter alone, without gradients, as
a forecast needs it. Times are process CPU times: other programs on the machine count little.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from _common import add_report_options, new_parser, write_report
from torch import Tensor

from tsvae import lds
from tsvae.demo.report import format_table

LATENT_DIM = 64
READ_AT = torch.tensor([100, 300, 500, 606])


class Case(NamedTuple):
    """One line of the report."""

    task: str
    group_size: int
    n_series: int
    n_steps: int
    n_patterns: int
    expected: bool = False


CASES = [
    *(Case("train", k, 28, 607, p, e) for k in (2, 1) for p in (1, 28) for e in (False, True)),
    *(Case("filter", 2, b, 512, p) for b, p in ((448, 1), (112, 112))),
]


class Problem(NamedTuple):
    """Leaves of the graph, and the constant part of expected parameters."""

    leaves: list[Tensor]
    excess: lds.Excess | None

    def build(self) -> tuple[lds.LDSParameters, lds.Potentials]:
        a, q, start, first, linear, precision = self.leaves
        none = start.new_zeros(*start.shape, 0)
        params = lds.LDSParameters(start, first, a, q, none, 0 * start, self.excess)
        return params, lds.Potentials(linear, precision)


def make_problem(case: Case, seed: int) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def outer(size: int) -> Tensor:
        root = normal(groups, size, size)
        return root @ root.mT

    size, groups = case.group_size, LATENT_DIM // case.group_size
    skew = normal(groups, size, size)
    transition = 0.97 * torch.linalg.matrix_exp(skew - skew.mT)
    eye = torch.eye(size).repeat(groups, 1, 1)
    shape = (case.n_patterns, case.n_steps, LATENT_DIM)
    leaves = [
        transition,
        0.1 * (outer(size) + eye),
        normal(groups, size),
        eye,
        normal(case.n_series, case.n_steps, LATENT_DIM),
        3.0 * torch.rand(shape, generator=generator),
    ]
    for leaf in leaves:
        leaf.requires_grad_(case.task == "train")
    zero = torch.zeros(groups)
    excess = lds.Excess(0.01 * outer(size + 1), zero, zero) if case.expected else None
    return Problem(leaves, excess)


def train_pass(problem: Problem) -> None:
    for leaf in problem.leaves:
        leaf.grad = None
    params, potentials = problem.build()
    filtered = lds.filter_states(params, potentials)
    smoothed = lds.smooth(params, filtered)
    loss = lds.local_kl(params, filtered, smoothed).sum() + smoothed.smoothed_mean.square().sum()
    read = filtered.filtered_mean if params.excess is None else filtered.predicted_mean
    (loss + read[:, READ_AT].square().sum()).backward()


@torch.no_grad()
def filter_pass(problem: Problem) -> None:
    lds.final_state(lds.filter_states(*problem.build()))


def milliseconds(function: Callable[[], None], repeats: int) -> list[float]:
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(1000 * (time.process_time() - start))
    return times


def run(case: Case, options: argparse.Namespace) -> dict[str, float]:
    problem = make_problem(case, options.seed)
    one = train_pass if case.task == "train" else filter_pass
    times = milliseconds(lambda: one(problem), options.repeats)
    return {"median_ms": statistics.median(times), "least_ms": min(times)}


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    add_report_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = [{**case._asdict(), **run(case, options)} for case in CASES]
    header = ["task", "group", "series", "steps", "patterns", "expected", "median, ms", "least, ms"]
    rows = [
        [f"{x:.0f}" if isinstance(x, float) else str(x) for x in result.values()]
        for result in results
    ]
    print(format_table(header, rows, markdown=False))
    if not options.no_write:
        written = write_report(
            options.output,
            "inference",
            title="Inference in linear dynamics",
            table=format_table(header, rows, markdown=True),
            notes=f"Process CPU time, {LATENT_DIM} latent dimensions, float32.",
            results={"cases": results},
        )
        print("\nWrote " + " and ".join(map(str, written)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
