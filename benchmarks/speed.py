"""Speed of inference and training, beside peers and beside the same networks without structure.

profile     where a training step's time goes
steps       a training step of the structured VAE over one of the plain VAE with the same networks
smoothing   posterior moments of the states, beside dynamax, statsmodels and simdkalman
likelihood  log-likelihood and its gradient for the transition, beside dynamax
growth      time and memory against the number of steps, of series and of latent dimensions
long        a million steps: a pass of training and smoothing in bounded memory
jobs        whole jobs: forecasts of many series, back-tests, a default fit, import, a grid search

Peers are optional (``pip install tsvae[bench-peers]``); one that is missing is named and left out.
All competitors of a row take turns in one process on ``--threads`` threads.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

# Part: module and its function of the options. Imported when asked for: peers read the environment.
PARTS = {
    "profile": ("_speed_profile", "run_profile"),
    "steps": ("_speed_steps", "run_steps"),
    "smoothing": ("_speed_inference", "run_smoothing"),
    "likelihood": ("_speed_inference", "run_likelihood"),
    "growth": ("_speed_growth", "run_growth"),
    "long": ("_speed_jobs", "run_long"),
    "jobs": ("_speed_jobs", "run_jobs"),
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def parse_options(reports: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--threads", type=int, default=1, help="of every competitor (default: 1)")
    parser.add_argument("--quick", action="store_true", help="small shapes; does the code run?")
    parser.add_argument(
        "--budget", type=float, default=8.0, help="seconds for each row (default: 8)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=reports, help="folder of the reports")
    parser.add_argument("--no-write", action="store_true", help="print only")
    return parser.parse_args()


def limit_threads(count: int) -> None:
    """Tell libraries that read the environment when they are loaded; children inherit it."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)
    if count == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


def main() -> int:
    options = parse_options(Path(__file__).resolve().parents[1] / "docs" / "benchmarks")
    limit_threads(options.threads)
    import torch
    from _common import write_report

    torch.set_num_threads(options.threads)
    kept = True
    for name in options.parts:
        module, function = PARTS[name]
        part = getattr(importlib.import_module(module), function)(options)
        print(f"{part.title}\n\n{part.format(markdown=False)}\n\n{part.notes}\n")
        kept = kept and part.holds is not False
        if not options.no_write and not options.quick:
            written = write_report(
                options.output,
                f"speed_{name}" + (f"_{options.threads}threads" if options.threads > 1 else ""),
                title=part.title,
                table=part.format(markdown=True),
                notes=part.notes,
                results=part.results,
            )
            print("Wrote " + " and ".join(map(str, written)) + "\n")
    return 0 if kept or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
