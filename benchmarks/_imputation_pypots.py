"""SAITS, BRITS and GP-VAE of PyPOTS, each in a process of its own.

The process may run in another environment: this file imports nothing of the library, and is given
its windows in a file. Each network is fitted once, to windows of 48 training rows that start every
12 rows; a third of them has 10 % of its entries hidden at random, a third 50 %, a third a block of
24 rows of one variable, so that the network knows what it will meet. (SAITS hides a fifth of what
is left and is asked for it, as it always does.) The validation windows, hidden the same three ways,
stop it early.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _imputation_task import Method, Problem, Task

Array = NDArray[np.float64]

STRIDE, BATCH, PATIENCE = 12, 32, 10
_NOT_THERE = 3  # exit status


class Deep(NamedTuple):
    """A network of PyPOTS: its name, its class, its arguments."""

    name: str
    model: str
    settings: dict[str, Any]


DEEP: dict[str, Deep] = {
    "saits": Deep(
        "SAITS (PyPOTS)",
        "SAITS",
        {
            "n_layers": 2,
            "d_model": 64,
            "n_heads": 4,
            "d_k": 16,
            "d_v": 16,
            "d_ffn": 128,
            "dropout": 0.1,
            "epochs": 120,
        },
    ),
    "brits": Deep("BRITS (PyPOTS)", "BRITS", {"rnn_hidden_size": 128, "epochs": 70}),
    "gpvae": Deep(
        "GP-VAE (PyPOTS)",
        "GPVAE",
        {
            "latent_size": 16,
            "encoder_sizes": (128, 128),
            "decoder_sizes": (128, 128),
            "window_size": 24,
            "epochs": 60,
        },
    ),
}


# -- this side: hands windows over and takes them back ----------------------------------------


def fit_deep(
    task: Task, key: str, python: str, seed: int, keep: Path | None, verbose: bool
) -> Method | None:
    """Fit a network and fill the validation and test windows; None: PyPOTS is not there.

    What it filled is read from the folder ``keep`` if it is there, and else put there.
    """
    from _imputation_task import Filled, Method

    problems = [problem for part in (task.validation, task.test) for problem in part.values()]
    tensors = _tensors(task, seed)
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.npz"
        found = (keep or Path(folder)).resolve() / f"{key}-{_digest(key, seed, tensors)}.npz"
        if not found.is_file():
            np.savez(given, **tensors)
            command = [python, str(Path(__file__).resolve()), key, str(given), str(found)]
            quiet = None if verbose else subprocess.DEVNULL
            # Not from this folder: PyPOTS writes into the folder it is started from.
            done = subprocess.run(
                [*command, "--seed", str(seed)], stdout=quiet, stderr=quiet, cwd=folder, check=False
            )
            if done.returncode == _NOT_THERE:
                print(f"{DEEP[key].name} is left out: {python} has no PyPOTS", file=sys.stderr)
                return None
            done.check_returncode()
        with np.load(found) as file:
            facts = json.loads(str(file["facts"]))
            filled = [file[f"filled{i}"] for i in range(len(problems))]

    def number(problem: Problem) -> int:
        return next(i for i, other in enumerate(problems) if other is problem)

    settings = {**DEEP[key].settings, **{k: facts[k] for k in ("version", "best_epoch")}}
    return Method(
        DEEP[key].name,
        lambda _, problem: Filled(filled[number(problem)].astype(float)),
        facts["n_parameters"],
        facts["fit_seconds"],
        settings,
        lambda problem: float(facts["seconds_to_fill"][number(problem)]),
    )


def _digest(key: str, seed: int, tensors: dict[str, Array]) -> str:
    """Name of a fit: it changes with the windows and with the settings."""
    digest = hashlib.sha256(repr((DEEP[key], STRIDE, BATCH, PATIENCE, seed)).encode())
    for name, values in tensors.items():
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:12]


def _tensors(task: Task, seed: int) -> dict[str, Array]:
    """Windows to train on, to stop by, and to fill."""
    from _imputation_task import hide, training_windows

    rng = np.random.default_rng([seed, 2])
    complete = training_windows(task.train, STRIDE)
    train = complete.copy()
    share = rng.permutation(len(train)) % len(task.test)
    for number, pattern in enumerate(task.test):
        rows = share == number
        train[rows] = np.where(hide(pattern, train[rows].shape, rng), np.nan, train[rows])
    problems = [*task.validation.values(), *task.test.values()]
    stop = task.validation.values()
    tensors = {f"problem{i}": problem.seen for i, problem in enumerate(problems)}
    return {
        "train": train,
        "validation": np.concatenate([problem.seen for problem in stop]),
        "validation_truth": np.concatenate([problem.windows.values for problem in stop]),
        **tensors,
    }


# -- the other side: PyPOTS --------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("key", choices=sorted(DEEP))
    parser.add_argument("given", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        import pypots
        import torch

        network = importlib.import_module("pypots.imputation")
    except ImportError:
        sys.exit(_NOT_THERE)
    from pypots.utils.random import set_random_seed

    torch.set_num_threads(1)
    set_random_seed(options.seed)
    with np.load(options.given) as file:
        given = {name: file[name].astype(np.float32) for name in file.files}
    chosen = DEEP[options.key]
    model = getattr(network, chosen.model)(
        n_steps=given["train"].shape[1],
        n_features=given["train"].shape[2],
        batch_size=BATCH,
        patience=PATIENCE,
        device="cpu",
        **chosen.settings,
    )
    start = time.perf_counter()
    model.fit(
        {"X": given["train"]},
        {"X": given["validation"], "X_ori": given["validation_truth"]},
    )
    facts: dict[str, Any] = {"fit_seconds": time.perf_counter() - start}
    facts["version"] = pypots.__version__
    facts["best_epoch"] = int(model.best_epoch)
    facts["n_parameters"] = sum(p.numel() for p in model.model.parameters())
    filled, seconds = {}, []
    for i in range(sum(name.startswith("problem") for name in given)):
        start = time.perf_counter()
        found = np.asarray(model.impute({"X": given[f"problem{i}"]}))
        filled[f"filled{i}"] = found.reshape(given[f"problem{i}"].shape)  # GP-VAE: one draw
        seconds.append(time.perf_counter() - start)
    facts["seconds_to_fill"] = seconds
    np.savez(options.found, facts=json.dumps(facts), **filled)


if __name__ == "__main__":
    main()
