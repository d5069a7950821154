"""Several processes: what reaches Fabric, and one real run on two CPU processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tsvae
from tsvae.training.devices import launch

SCRIPT = """
import json, sys
import torch
from tsvae.training import LossResult, TrainingConfig, train


class Mean(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.p = torch.nn.Parameter(torch.zeros(2))
        self.natural = torch.nn.Parameter(torch.zeros(2))

    def natural_parameters(self):
        return [self.natural]

    def training_step(self, batch, step):
        value = ((self.p - batch["x"]) ** 2).mean() + ((self.natural - batch["x"]) ** 2).mean()
        return LossResult(value, {"value": value})


def batches(epoch, generator):
    # an odd number of batches: the last group must be filled up
    x = torch.randn(10, 4, 2, generator=generator)
    return [{"x": part} for part in x[:9]]


if __name__ == "__main__":
    n, strategy, accumulate, path = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    config = TrainingConfig(
        max_epochs=2, learning_rate=0.05, device="cpu", num_devices=n, strategy=strategy,
        accumulate=accumulate, n_threads=1,
    )
    model, generator = Mean(), torch.Generator().manual_seed(0)
    log = train(model, batches, config=config, generator=generator)
    result = {
        "p": model.p.tolist(), "natural": model.natural.tolist(), "steps": log["step"],
        "objective": log["objective"], "plain": type(model) is Mean,
    }
    with open(path, "w") as file:
        json.dump(result, file)
"""


def run_script(folder: Path, n: int, strategy: str, accumulate: int) -> dict:
    script, result = folder / "script.py", folder / f"{strategy}{n}.json"
    script.write_text(SCRIPT)
    root = str(Path(tsvae.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(n), strategy, str(accumulate), str(result)]
    done = subprocess.run(
        command, env=environment, cwd=folder, timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(result.read_text())


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return run_script(tmp_path_factory.mktemp("one"), 1, "auto", 2)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp"])
def test_two_processes_equal_one_that_accumulates_two_batches(tmp_path, strategy, one):
    two = run_script(tmp_path, 2, strategy, 1)
    assert two["plain"] and two["steps"] == one["steps"] == [5, 10]
    # The last group has one batch: alone it is averaged with itself, so both runs agree.
    for name in ("p", "natural"):
        torch.testing.assert_close(torch.tensor(two[name]), torch.tensor(one[name]))


def test_settings_reach_fabric(toys):
    model = toys.Quadratic()
    for strategy, expected in (("ddp", "popen"), ("auto", "popen"), ("ddp_spawn", "spawn")):
        config = toys.config(num_devices=2, strategy=strategy, precision="bf16-mixed")
        fabric = launch(model, config)
        assert fabric.strategy.num_processes == 2
        assert fabric.strategy._start_method == expected
        assert fabric.strategy.precision.precision == "bf16-mixed"


def test_one_device_opens_no_process_group(toys):
    fabric = launch(toys.Quadratic(), toys.config(strategy="ddp"))
    assert fabric.world_size == 1 and not hasattr(fabric.strategy, "num_processes")
    assert not torch.distributed.is_initialized()
