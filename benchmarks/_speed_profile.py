"""Where a training step's time goes: pieces of it timed alone, with the plain VAE beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from _speed_steps import (
    GROUP_SIZES,
    QUICK_SETTINGS,
    SETTINGS,
    PlainVAE,
    Setting,
    make_batch,
    make_model,
)
from _speed_timing import Options, Part, Table, clock, ms, progress
from torch import nn

from tsvae.lds import Potentials
from tsvae.models import SVAE

MISSING = (0.0, 0.5)
PIECES = (
    "plain VAE, forward and backward",
    "structured VAE, forward and backward",
    "encoder, forward",
    "parameters of q(theta) and their KL, forward and backward",
    "filter, smoother and KL, forward",
    "one sample, forward",
    "filter, smoother, KL and sample, forward and backward",
)


class Row(NamedTuple):
    """Least CPU milliseconds of each piece."""

    setting: Setting
    dynamics: str
    missing: float
    pieces: dict[str, float]

    def cells(self) -> list[str]:
        return [
            str(self.setting),
            self.dynamics,
            f"{self.missing:.0%}",
            *(ms(value) for value in self.pieces.values()),
        ]


def least(function: Callable[[], object], budget: float) -> float:
    """Return the least CPU time of a call in about `budget` seconds: the work without the rest."""
    first = clock(function).wall_ms
    rounds = int(min(50, max(3, 1000 * budget / first)))
    return min(clock(function).cpu_ms for _ in range(rounds))


def whole_step(model: nn.Module, batch: dict[str, torch.Tensor]) -> None:
    model.zero_grad(set_to_none=True)
    model.training_step(batch, 1).objective.backward()


def pieces(model: SVAE, batch: dict[str, torch.Tensor], budget: float) -> dict[str, float]:
    plain, dynamics = PlainVAE(model), model.dynamics
    window, _ = model._training_window(batch)
    given = model.potentials(window)
    leaves = Potentials(
        given.linear.detach().requires_grad_(),
        given.precision.detach().requires_grad_(),
        given.pattern,
    )
    generator = torch.Generator().manual_seed(0)
    posterior = dynamics.infer(leaves, None, window.lengths)

    def theta() -> None:
        params = dynamics.theta.parameters_for_inference()
        (dynamics.prior_kl() + params.transition_matrix.sum()).backward()

    def inference() -> None:
        found = dynamics.infer(leaves, None, window.lengths)
        z = dynamics.sample(found, 1, generator)
        (found.local_kl.sum() + z.square().sum()).backward()

    functions = (
        lambda: whole_step(plain, batch),
        lambda: whole_step(model, batch),
        lambda: model.potentials(window),
        theta,
        lambda: dynamics.infer(leaves, None, window.lengths),
        lambda: dynamics.sample(posterior, 1, generator),
        inference,
    )
    return {name: least(f, budget) for name, f in zip(PIECES, functions, strict=True)}


def run_profile(options: Options) -> Part:
    """Time the pieces for every shape, dynamics and share of missing entries."""
    rows = []
    for setting in QUICK_SETTINGS if options.quick else SETTINGS:
        for missing in MISSING:
            batch = make_batch(setting, missing, options.seed)
            for dynamics, size in GROUP_SIZES.items():
                progress(f"profile {setting} {dynamics} {missing:.0%}")
                model = make_model(setting, size, options.seed)
                found = pieces(model, batch, options.budget / 8)
                rows.append(Row(setting, dynamics, missing, found))
    results: list[dict[str, Any]] = [row._asdict() | {"setting": row.setting[:4]} for row in rows]
    legend = [[str(i + 1), piece] for i, piece in enumerate(PIECES)]
    numbers = [str(i + 1) for i in range(len(PIECES))]
    return Part(
        title="Where a training step's time goes",
        tables=(
            Table("Pieces", ["", "timed alone"], legend),
            Table(
                "Least CPU time, ms",
                ["B, T, F, D", "dynamics", "missing", *numbers],
                [row.cells() for row in rows],
            ),
        ),
        notes=f"{options.threads} thread(s). Without the optimizer's update. The networks are "
        "those of the part `steps`; a structured step also makes residuals and masks.",
        results={"rows": results},
    )
