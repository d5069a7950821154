"""Training of two linked models: each side for itself, then together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tsvae._linker.batches import PairBatches, SideData
from tsvae._linker.pairs import Rows
from tsvae.models.freezing import GradualFreezing, layers_of
from tsvae.models.pair import PairVAE
from tsvae.training import BetaSchedule, Callback, TrainingConfig, TrainingLog, train

__all__ = ["PretrainingWarning", "TrainingSides", "fit_stages"]

Parameters = Mapping[str, Any]

_EPOCH_STEPS = (20, 80)  # fewest and most steps that make an epoch
_ANNEALED_BY = 0.5  # part of a stage after which beta has its final value
_NEGLIGIBLE = 0.02  # of all that the log-likelihood gained
_SETTLED = 0.1  # of a side's gain in pre-training, by the last fifth of the rate that was spent


class PretrainingWarning(UserWarning):
    """A side was still improving when its pre-training ended."""


class TrainingSides(NamedTuple):
    """Both sides in model units, and which rows are paired.

    Parameters
    ----------
    a, b : SideData
    rows : Rows
    """

    a: SideData
    b: SideData
    rows: Rows


class StageLogs(NamedTuple):
    """Logs of the stages; None for one that was left out.

    Parameters
    ----------
    separate : TrainingLog or None
    joint : TrainingLog
    """

    separate: TrainingLog | None
    joint: TrainingLog


def fit_stages(
    model: PairVAE,
    sides: TrainingSides,
    params: Parameters,
    generator: torch.Generator,
    callbacks: Sequence[Callback] = (),
) -> StageLogs:
    """Train ``model`` in place.

    Parameters
    ----------
    model : PairVAE
        Built.
    sides : TrainingSides
    params : mapping
        Of the estimator.
    generator : torch.Generator
    callbacks : sequence of Callback
        Of both stages.

    Returns
    -------
    StageLogs

    Warns
    -----
    PretrainingWarning
        If a side was still improving at the end of its pre-training.
    """
    separate = None
    if params["pretrain_epochs"]:
        separate = _stage(model, sides, params, "separate", generator, callbacks)
        _warn_unsettled(separate)
    model.freezing = _freezing(model, params, _epoch_steps(sides, params))
    joint = _stage(model, sides, params, "joint", generator, callbacks)
    model.freezing = None
    return StageLogs(separate, joint)


def _stage(
    model: PairVAE,
    sides: TrainingSides,
    params: Parameters,
    stage: Any,
    generator: torch.Generator,
    callbacks: Sequence[Callback],
) -> TrainingLog:
    epochs = params["pretrain_epochs"] if stage == "separate" else params["max_epochs"]
    steps = _epoch_steps(sides, params)
    annealing = int(_ANNEALED_BY * steps * epochs)
    if stage == "joint" and params["pretrain_epochs"]:
        annealing = 0  # codes are in use already
    model.stage = stage
    model.beta_schedule = BetaSchedule(0.0, model.beta, 0, annealing)
    training = _batches(sides, params, steps)
    if stage == "separate":
        everything = (sides.rows.pairs, sides.rows.only_x, sides.rows.only_y)
        training = replace(training, paired_share=_natural_share(*everything))
    return train(
        model,
        training,
        validation_batches=_validation(sides, params),
        config=_config(params, epochs, annealing),
        generator=generator,
        callbacks=callbacks,
    )


def _natural_share(pairs: np.ndarray, only_x: np.ndarray, only_y: np.ndarray) -> float:
    """Share of pairs among all samples of the side that has more."""
    return len(pairs) / (len(pairs) + max(len(only_x), len(only_y)))


def _epoch_steps(sides: TrainingSides, params: Parameters) -> int:
    rows = sides.rows
    n = len(rows.pairs) + max(len(rows.only_x), len(rows.only_y))
    return int(np.clip(int(np.ceil(n / params["batch_size"])), *_EPOCH_STEPS))


def _config(params: Parameters, epochs: int, annealing: int) -> TrainingConfig:
    names = (
        *("batch_size", "learning_rate", "optimizer", "lr_schedule", "warmup_steps"),
        *("clip_norm", "patience", "min_delta", "max_time", "device", "precision", "n_threads"),
    )
    return TrainingConfig(
        **{name: params[name] for name in names},
        max_epochs=epochs,
        early_stopping_start=annealing,
        verbose=bool(params["verbose"]),
    )


def _batches(sides: TrainingSides, params: Parameters, steps: int) -> PairBatches:
    rows = sides.rows
    pairs, only_a, only_b = map(torch.as_tensor, (rows.pairs, rows.only_x, rows.only_y))
    size = int(params["batch_size"])
    share = float(params["paired_share"])
    return PairBatches(sides.a, sides.b, pairs, only_a, only_b, size, steps, share)


def _validation(sides: TrainingSides, params: Parameters) -> list[dict[str, Tensor]] | None:
    """Batches of the pairs that are held out."""
    held_out = torch.as_tensor(sides.rows.held_out)
    if not len(held_out):
        return None
    n_parts = -(-len(held_out) // max(32, int(params["batch_size"])))
    return [
        sides.a.rows(chosen, "a")
        | sides.b.rows(chosen, "b")
        | {"n_pairs": torch.tensor(len(chosen))}
        for chosen in held_out.tensor_split(n_parts)
    ]


def _freezing(model: PairVAE, params: Parameters, steps: int) -> GradualFreezing | None:
    """Networks of the sides named by ``freeze``, to wake up from the code outwards."""
    sides = {None: (), "X": ("a",), "y": ("b",), "both": ("a", "b")}[params["freeze"]]
    if not sides:
        return None
    ways: list[list[nn.Module]] = []
    for name in sides:
        side = model.side(name)  # type: ignore[arg-type]
        ways += [layers_of(side.encoder)[::-1], layers_of(side.decoder)]
    longest = max(map(len, ways))
    layers = [way[i] for i in range(longest) for way in ways if i < len(way)]
    epochs = params["unfreeze_epochs"]
    return GradualFreezing(layers, None if epochs is None else epochs * steps)


def _warn_unsettled(log: TrainingLog) -> None:
    """Warn about sides whose likelihood still rose at the end."""
    for side, name in (("a", "X"), ("b", "y")):
        share = _late_share(log[f"log_likelihood_{side}_from_{side}"], log["learning_rate"])
        if share > _SETTLED:
            warnings.warn(
                f"Pre-training of {name} had not settled after {len(log.rows)} epochs: the last "
                f"fifth of the learning rate that was spent brought {share:.0%} of what the "
                "log-likelihood gained since the first quarter. Raise pretrain_epochs, or set "
                "pretrain_epochs=0 to train both sides together from the start.",
                PretrainingWarning,
                stacklevel=5,  # where fit was called
            )


def _late_share(course: Sequence[Any], rates: Sequence[Any]) -> float:
    """Part of the gain since the first quarter that the last fifth of the spent rate brought.

    By the rate and not by epochs: schedules that end at a rate of zero look settled at any length.
    """
    gained = np.array([np.nan if value is None else value for value in course], dtype=float)
    spent = np.cumsum([0.0 if rate is None else rate for rate in rates])
    if len(gained) < 4 or not np.isfinite(gained).all():
        return 1.0
    late = min(int(np.searchsorted(spent, 0.8 * spent[-1])), len(gained) - 2)
    gain, total = gained[-1] - gained[late], gained[-1] - gained[len(gained) // 4]
    if gain <= _NEGLIGIBLE * (gained[-1] - gained.min()) or total <= 0.0:
        return 0.0
    return float(gain / total)
