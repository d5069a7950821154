"""A training step of the structured VAE over one of the plain VAE; the naive loop; the JAX figures.

The plain VAE has the same encoder and decoder, likelihood, optimizer and training loop; its z is
drawn from the encoder alone: the potential of a step times a standard normal prior, with the KL
divergence in closed form. Both train on the evidence lower bound with one sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from _speed_problems import (
    Shape,
    leaves_of,
    make_problem,
    naive_filter,
    naive_training_pass,
    our_training_pass,
    relative_difference,
)
from _speed_timing import Options, Part, Ratio, Table, Times, ms, progress, race, ratio, verdict
from torch import Tensor, nn

from tsvae import lds
from tsvae.models import SVAE
from tsvae.nn import masked_log_prob
from tsvae.nn.masking import count_true
from tsvae.training import Callback, LossResult, TrainingConfig, TrainingState, train

Batch = dict[str, Tensor]
DENSE, PAIRS = "dense", "groups of two"
GROUP_SIZES = {DENSE: None, PAIRS: 2}


class Setting(NamedTuple):
    """One shape; what is asked of it; milliseconds of a JAX implementation elsewhere."""

    n_series: int
    n_steps: int
    n_features: int
    latent_dim: int
    dense_limit: float
    gappy_dense_limit: float
    jax_ms: float = 0.0
    jax_sequential_ms: float = 0.0
    jax_compile_s: float = 0.0
    jax_limit: float = 0.0
    jax_sequential_limit: float = 0.0

    def __str__(self) -> str:
        return "({:,}, {:,}, {:,}, {:,})".format(*self[:4])

    def limit(self, dynamics: str, missing: float) -> float:
        if dynamics == PAIRS:
            return 1.5 if missing else 1.2
        return self.gappy_dense_limit if missing else self.dense_limit


SETTINGS = (
    Setting(5, 24, 2340, 50, 1.5, 2.5, 282, 133, 43, 12, 6),
    Setting(32, 200, 7, 16, 1.3, 3.0, 1269, 583, 107, 6, 3),
    Setting(16, 1000, 20, 32, 1.3, 3.0, 11_800, 5_800, 64, 20, 10),
)
QUICK_SETTINGS = (
    Setting(3, 20, 30, 6, 1.5, 2.5, 282, 133, 43, 12, 6),
    Setting(4, 30, 5, 4, 1.3, 3),
)
MISSING = (0.0, 0.2, 0.5)


class PlainVAE(nn.Module):
    """The networks of a structured VAE without the structure."""

    def __init__(self, structured: SVAE) -> None:
        super().__init__()
        self.encoder, self.decoder, self.seed = structured.encoder, structured.decoder, 0

    def training_step(self, batch: Batch, step: int) -> LossResult:
        generator = torch.Generator().manual_seed(self.seed + step)
        x, visible = batch["x"], batch["visible"]
        complete = bool(visible.view(torch.uint8).amin())
        linear, precision = self.encoder(x, visible[:1] if complete else visible)
        variance = 1 / (1 + precision)
        mean = variance * linear
        noise = torch.randn(mean.shape, generator=generator)
        z = mean + variance.sqrt() * noise
        counted = None if complete else visible
        log_prob = masked_log_prob(self.decoder.likelihood, x, self.decoder(z), counted)
        kl = 0.5 * (mean.square() + (variance - 1 - variance.log())).sum()
        count = visible.numel() if complete else count_true(visible)
        return LossResult((kl - log_prob.sum()) / count, {})


class StepClock(Callback):
    """Notes both clocks when a fit starts and when each optimizer step ends."""

    def __init__(self) -> None:
        self.stamps: list[tuple[float, float]] = []

    def on_fit_start(self, state: TrainingState) -> None:
        self.stamps.append((time.perf_counter(), time.process_time()))

    def on_step_end(self, state: TrainingState) -> None:
        self.stamps.append((time.perf_counter(), time.process_time()))

    def times(self) -> Times:
        rows = [
            (1000 * (b[0] - a[0]), 1000 * (b[1] - a[1]))
            for a, b in zip(self.stamps, self.stamps[1:], strict=False)
        ]
        wall, cpu = zip(*rows, strict=True)
        return Times(list(wall), list(cpu))


class Trainer:
    """Trains one model by our loop, a few steps at a time."""

    def __init__(self, model: nn.Module, batch: Batch, threads: int) -> None:
        self.model, self.batch = model, batch
        self.config = TrainingConfig(
            max_epochs=1, batch_size=len(batch["x"]), device="cpu", n_threads=threads
        )

    def run(self, steps: int) -> Times:
        clock = StepClock()
        train(
            self.model,
            lambda epoch, generator: [self.batch] * steps,
            config=self.config,
            generator=torch.Generator().manual_seed(0),
            callbacks=[clock],
        )
        return clock.times()


class Row(NamedTuple):
    """Ratio of the structured step to the plain one."""

    setting: Setting
    dynamics: str
    missing: float
    plain: Times
    ours: Times
    first_ms: float

    @property
    def ratio(self) -> Ratio:
        return ratio(self.ours, self.plain)

    @property
    def limit(self) -> float:
        return self.setting.limit(self.dynamics, self.missing)

    def results(self) -> dict[str, Any]:
        return {
            "shape": self.setting[:4],
            "dynamics": self.dynamics,
            "missing": self.missing,
            "ratio": self.ratio._asdict(),
            "limit": self.limit,
            "plain": self.plain.summary(),
            "structured": self.ours.summary(),
            "first_step_ms": self.first_ms,
        }


def make_batch(setting: Setting, missing: float, seed: int) -> Batch:
    """Noise; each series lacks a share of its entries of its own."""
    generator = torch.Generator().manual_seed(seed)
    sizes = setting[:3]
    x = torch.randn(sizes, generator=generator)
    mask = torch.rand(sizes, generator=generator) >= missing
    return {"x": torch.where(mask, x, 0.0), "mask": mask, "visible": mask}


def make_model(setting: Setting, group_size: int | None, seed: int) -> SVAE:
    return SVAE(
        setting.n_features,
        latent_dim=setting.latent_dim,
        dynamics={"group_size": group_size},
        encoder_sizes=(128,) * 4,
        decoder_sizes=(256,) * 4,
        activation="gelu",
        residual=True,
        n_samples=1,
        forecast_weight=0.0,
        n_windows=10.0,
        seed=seed,
    )


def measure(setting: Setting, missing: float, options: Options) -> list[Row]:
    """Train the plain and the structured models in turns of a few steps."""
    batch = make_batch(setting, missing, options.seed)
    models: dict[str, nn.Module] = {
        name: make_model(setting, size, options.seed) for name, size in GROUP_SIZES.items()
    }
    models["plain"] = PlainVAE(make_model(setting, 2, options.seed))
    trainers = {name: Trainer(model, batch, options.threads) for name, model in models.items()}
    first = {name: trainer.run(2).wall[0] for name, trainer in trainers.items()}
    one_round = sum(trainer.run(2).wall[1] for trainer in trainers.values()) / 1000
    # The first step of a turn pays for the start of a fit and is left out.
    steps = int(min(10, max(2, options.budget / (5 * one_round))))
    rounds = int(min(20, max(3, options.budget / (steps * one_round))))
    found = {name: Times([], []) for name in trainers}
    for turn in range(rounds):
        for name in list(trainers)[:: 1 if turn % 2 else -1]:
            times = trainers[name].run(1 + steps)
            found[name].wall.append(Times(times.wall[1:], times.cpu[1:]).wall_ms)
            found[name].cpu.append(Times(times.wall[1:], times.cpu[1:]).cpu_ms)
    rows = [
        Row(setting, name, missing, found["plain"], found[name], first[name])
        for name in GROUP_SIZES
    ]
    for row in rows:
        judged = row.ratio.judged(options.threads)
        progress(f"{setting}, {missing:.0%} missing, {row.dynamics}: {judged:.2f}")
    return rows


def run_steps(options: Options) -> Part:
    settings = QUICK_SETTINGS if options.quick else SETTINGS
    rows = [row for s in settings for share in MISSING for row in measure(s, share, options)]
    loops = [_loop_row(s, options) for s in settings]
    holds = all(row.ratio.judged(options.threads) <= row.limit for row in rows)
    return Part(
        title="A training step: structured over plain",
        tables=[
            _step_table(rows, options.threads),
            _jax_table(rows, options.threads),
            _loop_table(loops, options.threads),
        ],
        notes=_notes(options),
        results={
            "steps": [row.results() for row in rows],
            "message_passing": [
                {"shape": loop.shape._asdict(), **{k: t.summary() for k, t in loop.times.items()}}
                for loop in loops
            ],
        },
        holds=holds and all(_beats_jax(row, options.threads) for row in rows if _is_jax_row(row)),
    )


def _notes(options: Options) -> str:
    clock = "process CPU" if options.threads == 1 else "wall"
    return (
        "Encoder 4 x 128 and decoder 4 x 256 units, GELU, residual connections, float32; forward, "
        "backward and update inside the training loop; the evidence lower bound with one sample. "
        "The plain VAE has the same networks, likelihood, optimizer and loop. Entries are missing "
        f"at random, differently in each series. {options.threads} thread(s), models in turns of "
        f"a few steps; limits apply to the median over the turns of the ratio of {clock} times. "
        "First steps include the start of the fit. The times of the JAX implementation were taken "
        "elsewhere, on two cores, with complete data and a dense transition: they are not of this "
        f"run. Ours beside them are {clock} times. The naive loop and ours do what a step asks of "
        "inference: filter, KL divergence, one sample of the posterior, backward. The loop has "
        "covariances for every series, as written down plainly."
    )


def _step_table(rows: list[Row], threads: int) -> Table:
    header = ["B, T, F, D", "missing", "transition", "ratio", "limit", "holds", "wall ratio"]
    header += ["plain, ms", "ours, ms", "plain cpu", "ours cpu", "first step, ms"]
    lines = []
    for row in rows:
        judged = row.ratio.judged(threads)
        line = [str(row.setting), f"{row.missing:.0%}", row.dynamics, f"{judged:.2f}"]
        line += [f"<= {row.limit:g}", verdict(judged <= row.limit), f"{row.ratio.wall:.2f}"]
        times = (row.plain.wall_ms, row.ours.wall_ms, row.plain.cpu_ms, row.ours.cpu_ms)
        lines.append([*line, *map(ms, times), ms(row.first_ms)])
    return Table("", header, lines)


def _is_jax_row(row: Row) -> bool:
    return bool(row.dynamics == DENSE and not row.missing and row.setting.jax_ms)


def _beats_jax(row: Row, threads: int) -> bool:
    setting, ours = row.setting, row.ours.judged_ms(threads)
    return (
        setting.jax_ms / ours >= setting.jax_limit
        and setting.jax_sequential_ms / ours >= setting.jax_sequential_limit
    )


def _jax_table(rows: list[Row], threads: int) -> Table:
    header = ["B, T, F, D", "JAX / ours", "limit", "its scan sequential / ours", "limit", "holds"]
    header += ["JAX, ms", "sequential, ms", "ours, ms", "JAX compiles, s", "our first step, s"]
    lines = []
    for row in filter(_is_jax_row, rows):
        s, ours = row.setting, row.ours.judged_ms(threads)
        lines.append(
            [
                str(s),
                f"{s.jax_ms / ours:.1f}",
                f">= {s.jax_limit:g}",
                f"{s.jax_sequential_ms / ours:.1f}",
                f">= {s.jax_sequential_limit:g}",
                verdict(_beats_jax(row, threads)),
                *map(ms, (s.jax_ms, s.jax_sequential_ms, ours)),
                f"{s.jax_compile_s:.0f}",
                f"{row.first_ms / 1000:.2f}",
            ]
        )
    return Table(
        "JAX implementation of the same model (stated figures, not of this run)", header, lines
    )


class Loop(NamedTuple):
    """Times of message passing alone."""

    shape: Shape
    times: dict[str, Times]


def _loop_row(setting: Setting, options: Options) -> Loop:
    """Check that the loop's filter is ours, then time a training pass of both."""
    shape = Shape(setting.n_series, setting.n_steps, setting.latent_dim, own=True)
    problem = make_problem(shape, options.seed)
    steps = (problem.linear.unbind(1), problem.precision.unbind(1))
    with torch.no_grad():
        theirs = naive_filter(problem.transition, problem.noise, *steps).log_normalizer
        potentials = lds.Potentials(problem.linear, problem.precision)
        ours = lds.filter_states(problem.params(), potentials).log_normalizer
    if not relative_difference(ours, theirs) < 1e-3:
        raise SystemExit(f"error: the naive loop and ours differ at {shape}")
    shared = make_problem(shape._replace(own=False), options.seed)
    generator = torch.Generator().manual_seed(options.seed)

    def one(run: Callable[..., Any], leaves: list[Tensor]) -> Callable[[], Any]:
        return lambda: run(leaves, generator)

    contest = {
        "ours, all observed": one(our_training_pass, leaves_of(shared)),
        "ours, own": one(our_training_pass, leaves_of(problem)),
        "naive loop": one(naive_training_pass, leaves_of(problem)),
    }
    return Loop(shape, race(contest, budget=options.budget))


def _loop_table(loops: list[Loop], threads: int) -> Table:
    header = ["B, T, D", "loop / ours, all observed", "loop / ours, own precisions"]
    header += ["loop, ms", "ours, all observed, ms", "ours, own precisions, ms"]
    lines = []
    for loop in loops:
        naive = loop.times["naive loop"]
        ours = [loop.times["ours, all observed"], loop.times["ours, own"]]
        line = [str(loop.shape._replace(own=False))]
        line += [f"{ratio(naive, times).judged(threads):.1f}" for times in ours]
        lines.append([*line, *(ms(times.wall_ms) for times in (naive, *ours))])
    return Table(
        "Message passing alone, beside a loop over the steps under autograd", header, lines
    )
