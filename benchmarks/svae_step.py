"""Milliseconds per training step of the structured VAE on a wide, short, gappy batch.

5 series x 24 steps x 2,340 variables, 50 latent dimensions with a dense transition, encoder of
4 x 128 and decoder of 4 x 256 units with residual connections, GELU, LayerNorm and a final sigmoid,
beta warm-up. After the steps it checks that the loss fell, that nothing is NaN, and that forecasts
of 10 and of 10,000 steps are finite.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import NamedTuple

import numpy as np
import torch
from _common import add_report_options, new_parser, use_threads, write_report
from torch import Tensor

from tsvae.demo.report import format_table
from tsvae.models import SVAE
from tsvae.models.predictive import forecast
from tsvae.training import BetaSchedule, Callback, TrainingConfig, TrainingState, train

N_SERIES, N_STEPS, N_FEATURES, LATENT_DIM = 5, 24, 2340, 50
HORIZONS = (10, 10_000)
Batch = dict[str, Tensor]


class Result(NamedTuple):
    """What a run showed; losses per observed value, in eval mode and thus free of beta."""

    steps: int
    loss_before: float
    loss_after: float
    first_step_ms: float
    median_step_ms: float
    slowest_step_ms: float
    seconds: float
    parameters: int
    forecasts_finite: bool

    @property
    def passed(self) -> bool:
        return self.loss_after < self.loss_before and self.forecasts_finite


class StepClock(Callback):
    """Notes when each optimizer step ended."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_fit_start(self, state: TrainingState) -> None:
        self.stamps.append(time.perf_counter())

    def on_step_end(self, state: TrainingState) -> None:
        self.stamps.append(time.perf_counter())

    @property
    def milliseconds(self) -> list[float]:
        return (1000 * np.diff(self.stamps)).tolist()


def make_batch(seed: int, missing: float) -> Batch:
    """Smooth waves in (0, 1) that the variables mix; a share of the entries is missing."""
    rng = np.random.default_rng(seed)
    t = np.arange(N_STEPS)[None, :, None]
    phase = rng.uniform(0, 2 * np.pi, (N_SERIES, 1, 3))
    states = np.sin(2 * np.pi * t / np.array([24.0, 12.0, 7.0]) + phase)
    field = states @ rng.standard_normal((3, N_FEATURES))
    field += 0.1 * rng.standard_normal(field.shape)
    mask = torch.from_numpy(rng.random(field.shape) >= missing)
    values = torch.from_numpy(1 / (1 + np.exp(-field))).float()
    return {"x": torch.where(mask, values, 0.0), "mask": mask, "visible": mask}


def make_model(options: argparse.Namespace) -> SVAE:
    return SVAE(
        N_FEATURES,
        latent_dim=LATENT_DIM,
        dynamics={"group_size": options.group_size},
        encoder_sizes=(128,) * 4,
        decoder_sizes=(256,) * 4,
        activation="gelu",
        residual=True,
        layer_norm=True,
        final_sigmoid=True,
        horizon=HORIZONS[0],
        beta=BetaSchedule().fit_to(options.steps),
        seed=options.seed,
    )


@torch.no_grad()
def evaluate(model: SVAE, batch: Batch) -> float:
    model.eval()
    loss = model.training_step(batch, 0).objective.item()
    model.train()
    return loss


@torch.no_grad()
def forecasts_are_finite(model: SVAE, batch: Batch, seed: int) -> bool:
    """Forecast by samples, then roll one path out far and decode it in pieces."""
    model.eval()
    near, far = HORIZONS
    found = forecast(model, batch["x"], batch["visible"], near, n_samples=20)
    frame = model.frame(batch["x"], batch["visible"], 0.0)
    window = model.window(batch["x"], batch["visible"], None, frame, 0.0)
    potentials = model.potentials(window)
    filtered = model.dynamics.filter(potentials, window.inputs, window.lengths)
    last = torch.tensor([batch["x"].shape[1] - 1])
    state = model.dynamics.states_at(filtered, potentials, last)
    generator = torch.Generator().manual_seed(seed)
    path = model.dynamics.sample_forecast(state, far, 1, generator, None)
    decoded = (model.decoder(z).loc for z in path.split(1000, dim=2))
    return all(bool(part.isfinite().all()) for part in (found.mean, found.scale, *decoded))


def run(options: argparse.Namespace) -> Result:
    batch = make_batch(options.seed, options.missing)
    model, clock = make_model(options), StepClock()
    before = evaluate(model, batch)
    start = time.perf_counter()
    train(
        model,
        lambda epoch, generator: [batch],
        config=TrainingConfig(max_epochs=options.steps, batch_size=N_SERIES, device=options.device),
        generator=torch.Generator().manual_seed(options.seed),
        callbacks=[clock],
    )
    seconds = time.perf_counter() - start
    return Result(
        steps=len(clock.milliseconds),
        loss_before=before,
        loss_after=evaluate(model, batch),
        first_step_ms=clock.milliseconds[0],
        median_step_ms=statistics.median(clock.milliseconds),
        slowest_step_ms=max(clock.milliseconds),
        seconds=seconds,
        parameters=sum(p.numel() for p in model.parameters()),
        forecasts_finite=forecasts_are_finite(model, batch, options.seed),
    )


def result_table(result: Result, *, markdown: bool) -> str:
    rows = [
        ["training steps", f"{result.steps:,}"],
        ["median step, ms", f"{result.median_step_ms:.1f}"],
        ["first step, ms", f"{result.first_step_ms:.1f}"],
        ["slowest step, ms", f"{result.slowest_step_ms:.1f}"],
        ["all steps, s", f"{result.seconds:.1f}"],
        ["loss per value before", f"{result.loss_before:.3f}"],
        ["loss per value after", f"{result.loss_after:.3f}"],
        ["parameters", f"{result.parameters:,}"],
        ["forecasts of 10 and 10,000 steps finite", "yes" if result.forecasts_finite else "NO"],
    ]
    return format_table(["", "value"], rows, markdown=markdown)


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--group-size", type=int, help="size of the groups (default: one, dense)")
    parser.add_argument("--missing", type=float, default=0.2, help="share of the entries missing")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's)")
    parser.add_argument("--seed", type=int, default=0)
    add_report_options(parser)
    options = parser.parse_args()
    use_threads(options.threads)
    result = run(options)
    print(result_table(result, markdown=False))
    if not options.no_write:
        written = write_report(
            options.output,
            "svae_step",
            title="A training step of the structured VAE",
            table=result_table(result, markdown=True),
            notes=f"{N_SERIES} series x {N_STEPS} steps x {N_FEATURES:,} variables, "
            f"{LATENT_DIM} latent dimensions, {options.missing:.0%} of the entries missing; "
            f"encoder 4 x 128, decoder 4 x 256, device {options.device}.",
            results=result._asdict(),
        )
        print("\nWrote " + " and ".join(map(str, written)))
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
