"""A training step beside that of the public JAX implementation of the same model.

The JAX code is that of Bendekgey, Hope & Sudderth 2023 (arXiv 2306.08230), a checkout of
https://github.com/hbendekgey/SVAE-Implicit; it needs an environment of its own, such as

    pip install "jax==0.4.23" "jaxlib==0.4.23" "flax==0.8.0" "optax==0.1.9" \
        "tensorflow-probability==0.23.0" tf_keras tensorflow wandb tqdm jax-resnet \
        "numpy<2" "scipy<1.13"

Both run on this machine and take turns, a few steps each: theirs compiled, on all cores, with its
associative scan and with its own sequential scan put in place; ours on one thread and on two. The
networks are the same: dense layers with residual connections between layers of one width, their
layer norms, and nothing else. Our default networks, which also take the mask as input and have
linear paths beside them, stand in a column of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _common import write_report
from _speed_steps import SETTINGS, Setting, Trainer, make_batch, make_model
from _speed_timing import Table, ms, progress, verdict

from tsvae.models import SVAE
from tsvae.nn import SigmaDecoder, SigmaEncoder
from tsvae.nn.dense import DenseBlock

REPORT = "speed_jax"
SCANS = ("associative", "sequential")
THREADS = (1, 2)
# Threads of the process whose turn ended run on for a while, a tenth of a second in JAX.
REST_S = 0.5
NOTES = (
    "Complete data, dense transition, encoder 4 x 128 and decoder 4 x 256 units, one sample; "
    "forward, backward and update. Wall milliseconds a step, medians over turns; ratios are "
    "medians of the ratios within a turn, of the better of our columns of 1 and 2 threads. JAX: "
    "compiled, on all cores; its first step, which compiles, stands apart. Its models use an "
    "associative scan; its sequential scan, which does the same, was put in place of it. Both have "
    "the same dense networks with layer norms. Our default networks (mask as input, projection "
    "around the first layer, linear paths of encoder and decoder) are the last two columns: they "
    "do about twice the work in the networks. Half a second of rest lies between turns."
)


class Peer:
    """The JAX implementation in a process of its own."""

    def __init__(self, python: str, checkout: Path, scan: str) -> None:
        worker = Path(__file__).with_name("_jax_worker.py")
        environment = os.environ | {"PYTHONPATH": str(checkout / "svae"), "JAX_PLATFORMS": "cpu"}
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [python, "-P", str(worker), scan],  # our folder has an `inference` of its own
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, setting: Setting, steps: int) -> tuple[float, float]:
        """Milliseconds a step, and those of the first step if this was the first turn."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(*setting[:4], steps, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().split()
        if not answer:
            raise SystemExit("error: the JAX process ended; its message stands above")
        return float(answer[0]), float(answer[1])


def with_their_networks(model: SVAE, setting: Setting) -> SVAE:
    """Put networks like those of the peer in place of the default ones."""
    features, latent_dim = setting.n_features, setting.latent_dim
    model.encoder = SigmaEncoder(
        features,
        latent_dim,
        hidden_sizes=(128,) * 4,
        mask_input=False,
        skip=False,
        layer_norm=True,
    )
    model.decoder = SigmaDecoder(
        latent_dim, features, hidden_sizes=(256,) * 4, skip=False, layer_norm=True
    )
    for network in (model.encoder.network, model.decoder.network):
        assert network is not None
        given = network.blocks[0].linear
        network.blocks[0] = first = DenseBlock(
            given.in_features, given.out_features, residual=False
        )
        first.reset_parameters()
    return model


class Row(NamedTuple):
    """Milliseconds of every turn."""

    setting: Setting
    compile_ms: float
    first_ms: float
    theirs: dict[str, list[float]]  # by scan
    ours: dict[int, list[float]]  # by threads
    default: dict[int, list[float]]  # the same, our default networks

    def ratio(self, scan: str) -> float:
        return max(
            float(np.median(np.divide(self.theirs[scan], own))) for own in self.ours.values()
        )

    @property
    def holds(self) -> bool:
        return all(self.ratio(scan) >= limit for scan, limit in self.limits.items())

    @property
    def limits(self) -> dict[str, float]:
        return {SCANS[0]: self.setting.jax_limit, SCANS[1]: self.setting.jax_sequential_limit}

    def cells(self) -> list[str]:
        asked = [
            cell
            for scan, limit in self.limits.items()
            for cell in (f"{self.ratio(scan):.1f}", f">= {limit:g}")
        ]
        columns = (self.theirs, self.ours, self.default)
        times = [ms(float(np.median(t))) for column in columns for t in column.values()]
        waits = [f"{self.compile_ms / 1000:.0f}", f"{self.first_ms / 1000:.2f}"]
        return [str(self.setting), *asked, verdict(self.holds), *times, *waits]


HEADER = [
    "B, T, F, D", "JAX / ours", "limit", "JAX sequential / ours", "limit", "holds", "JAX, ms",
    "sequential, ms", "ours, 1 thread, ms", "ours, 2 threads, ms", "default networks, 1 thread, ms",
    "default networks, 2 threads, ms", "JAX compiles, s", "our first step, s",
]  # fmt: skip


def measure(peers: dict[str, Peer], setting: Setting, turns: int) -> Row:
    batch = make_batch(setting, 0.0, 0)

    def trainers(same: bool) -> dict[int, Trainer]:
        models = {n: make_model(setting, None, 0) for n in THREADS}
        if same:
            models = {n: with_their_networks(model, setting) for n, model in models.items()}
        return {n: Trainer(model, batch, n) for n, model in models.items()}

    ours, default = trainers(True), trainers(False)
    first = ours[1].run(2).wall[0]
    steps = max(1, round(2000 / setting.jax_ms))
    compiles = {scan: peer.run(setting, 1)[1] for scan, peer in peers.items()}
    times: list[dict[int, list[float]]] = [{n: [] for n in THREADS} for _ in range(2)]
    row = Row(setting, compiles[SCANS[0]], first, {scan: [] for scan in peers}, *times)
    for _ in range(turns):
        for scan, peer in peers.items():
            time.sleep(REST_S)
            row.theirs[scan].append(peer.run(setting, steps)[0])
        for kind, found in ((ours, row.ours), (default, row.default)):
            time.sleep(REST_S)
            for n, trainer in kind.items():
                torch.set_num_threads(n)
                found[n].append(float(np.mean(trainer.run(1 + max(3, steps)).wall[1:])))
    progress(f"{setting}: " + ", ".join(f"{scan} {row.ratio(scan):.1f}" for scan in peers))
    return row


def _reported(folder: Path) -> dict[int, Row]:
    """Rows of the report that is there."""
    path = folder / f"{REPORT}.json"
    if not path.is_file():
        return {}
    places = {setting[:4]: at for at, setting in enumerate(SETTINGS)}
    rows = {}
    for given in json.loads(path.read_text())["rows"]:
        at = places[tuple(given["setting"])]
        times = {
            name: {int(n): values for n, values in given[name].items()}
            for name in ("ours", "default")
        }
        rows[at] = Row(**given | times | {"setting": SETTINGS[at]})
    return rows


def main() -> int:
    reports = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True, help="of SVAE-Implicit")
    parser.add_argument("--python", required=True, help="interpreter of its environment")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=range(len(SETTINGS)),
        help="of the table, from 0; the report keeps the others",
    )
    parser.add_argument("--output", type=Path, default=reports, help="folder of the report")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    peers = {scan: Peer(options.python, options.checkout, scan) for scan in SCANS}
    found = {at: measure(peers, SETTINGS[at], options.turns) for at in options.rows}
    known = {} if options.no_write else _reported(options.output)
    rows = [row for _, row in sorted((known | found).items())]
    table = Table("", HEADER, [row.cells() for row in rows])
    print(f"{table.format(markdown=False)}\n\n{NOTES}")
    if not options.no_write:
        # The report names the command, not the folders of this machine.
        sys.argv[1:] = ["--checkout", "FOLDER", "--python", "INTERPRETER"]
        sys.argv += ["--turns", str(options.turns), "--rows", *map(str, options.rows)]
        results: list[dict[str, Any]] = [
            row._asdict() | {"setting": row.setting[:4]} for row in rows
        ]
        write_report(
            options.output,
            REPORT,
            title="A training step beside the public JAX implementation",
            table=table.format(markdown=True),
            notes=NOTES,
            results={"rows": results},
        )
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
