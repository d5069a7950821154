"""Fit of a linker: what was read becomes a pair of models, and what they need beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tsvae._linker.batches import SideData
from tsvae._linker.evidence import Encoded, Evidence, fit_evidence, standard_draws
from tsvae._linker.fitting import Parameters, TrainingSides, fit_stages
from tsvae._linker.gaps import measure_growth
from tsvae._linker.noise import training_noise
from tsvae._linker.options import side_options
from tsvae._linker.pairs import Problem, Rows, pair_rows
from tsvae._linker.ranges import SideRange, fit_range, range_bounds
from tsvae._linker.sides import SideScale, error_weights, fit_side
from tsvae._linker.spread import Spread, fit_spread, needed_factor
from tsvae._linker.translator import SideName, Translator, other_side
from tsvae._records.building import build_model
from tsvae._records.design import Design, design_model
from tsvae._records.signals import Signals
from tsvae.models.observation import family_likelihood
from tsvae.models.pair import PairVAE
from tsvae.training import Callback, TrainingLog, pinned_threads

__all__ = ["LinkerFit", "build_pair", "fit_linker"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_EXAMINED = 1024  # records that spread and ranges are measured on
_DRAWS = 64  # of each
_FEW_DRAWS = 16  # of those with hidden entries
_ACTIVE_NATS = 0.01


@dataclass(frozen=True, eq=False)
class LinkerFit:
    """Everything a fitted linker needs; holds no training data. Side a is X, side b is y.

    Attributes
    ----------
    model : PairVAE
    designs : dict of Design
    scales : dict of SideScale
    spreads : dict of Spread
        Of each side as seen from the other.
    evidence : Evidence
        That two records are of one sample.
    ranges : dict of SideRange
    active : bool ndarray of shape (latent_dim,)
        Code channels that carry information about both sides.
    separate, joint : TrainingLog or None
    """

    model: PairVAE
    designs: dict[SideName, Design]
    scales: dict[SideName, SideScale]
    spreads: dict[SideName, Spread]
    evidence: Evidence
    ranges: dict[SideName, SideRange]
    active: Mask
    separate: TrainingLog | None
    joint: TrainingLog

    def translator(self, params: Parameters) -> Translator:
        """Model ready for batched passes."""
        return Translator(self.model, params["device"], params["n_threads"])


def fit_linker(
    problem: Problem, params: Parameters, seed: int, callbacks: Sequence[Callback]
) -> LinkerFit:
    """Fit a pair of models.

    Parameters
    ----------
    problem : Problem
    params : mapping
        Parameters of the estimator.
    seed : int
    callbacks : sequence of Callback

    Returns
    -------
    LinkerFit
    """
    rows = pair_rows(problem.x, problem.y, float(params["validation_fraction"]), seed)
    signals: dict[SideName, Signals] = {"a": problem.x, "b": problem.y}
    designs: dict[SideName, Design] = {}
    scales: dict[SideName, SideScale] = {}
    names: tuple[tuple[SideName, str], ...] = (("a", "X"), ("b", "y"))
    for side, name in names:
        options = side_options(params, side)
        found = signals[side]
        unit = family_likelihood(options["likelihood"]).support == "unit"
        scales[side] = fit_side(found, options | {"unit": unit}, name)
        designs[side] = design_model(options, found.values.shape[1], found.values.shape[2], 0)
    errors: dict[SideName, Array | None] = {"a": problem.x_errors, "b": problem.y_errors}
    data = {side: _side_data(signals[side], scales[side], errors[side]) for side, _ in names}
    data = _with_noise(data, rows, params)
    generator = torch.Generator().manual_seed(seed)
    model = build_pair(designs, params, generator)
    logs = fit_stages(
        model, TrainingSides(data["a"], data["b"], rows), params, generator, callbacks
    )
    model.eval().requires_grad_(False)
    return _measured(model, designs, scales, data, rows, params, seed, logs)


def build_pair(
    designs: dict[SideName, Design], params: Parameters, generator: torch.Generator
) -> PairVAE:
    """Pair of models of two designs.

    Raises
    ------
    ValueError
        If the codes of the two sides differ in shape.
    """
    model = PairVAE(
        build_model(designs["a"], None, generator),
        build_model(designs["b"], None, generator),
        weights=params["weights"],
        beta=float(params["beta"]),
        barlow_weight=float(params["barlow_weight"]),
        barlow_lambda=float(params["barlow_lambda"]),
        projector=params["projector"],
        cycle_weight=float(params["cycle_weight"]),
        generator=generator,
    )
    samples = [torch.zeros(2, d.n_steps, d.n_features) for d in (designs["a"], designs["b"])]
    return model.build(*samples)


def _side_data(signals: Signals, scale: SideScale, errors: Array | None) -> SideData:
    values = scale.forward(signals.values, signals.mask)
    weight = np.broadcast_to(scale.weights[:, None], values.shape[1:])[None]
    if errors is not None:
        known = scale.errors(errors, signals.values)
        weight = weight * error_weights(known, signals.mask)
    return SideData(
        torch.tensor(values, dtype=torch.float32),
        torch.tensor(signals.mask),
        torch.tensor(weight, dtype=torch.float32),
    )


def _with_noise(
    data: dict[SideName, SideData], rows: Rows, params: Parameters
) -> dict[SideName, SideData]:
    """Both sides with the noise that ``input_noise`` asks for."""
    alone: dict[SideName, Any] = {"a": rows.only_x, "b": rows.only_y}
    found = {}
    for side, only in alone.items():
        wanted = side_options(params, side)["input_noise"]
        own, other = data[side], data[other_side(side)]
        pairs = torch.as_tensor(rows.pairs)
        known = torch.cat([pairs, torch.as_tensor(only)])
        with pinned_threads(params["n_threads"]):
            noise = training_noise(
                wanted,
                *(part[known].flatten(1) for part in (own.values, own.mask)),
                *(part.values[pairs].flatten(1) for part in (own, other)),
            )
        found[side] = replace(own, noise=noise.float().view(own.values.shape[1:]))
    return found


def _measured(
    model: PairVAE,
    designs: Any,
    scales: Any,
    data: dict[SideName, SideData],
    rows: Rows,
    params: Parameters,
    seed: int,
    logs: Any,
) -> LinkerFit:
    """Add what is measured with the trained models: spread, evidence, ranges, active units."""
    translator = Translator(model, params["device"], params["n_threads"])
    pairs = rows.held_out if len(rows.held_out) else rows.pairs
    a, b = (_encoded(translator, data[side], pairs, side, seed) for side in ("a", "b"))
    spreads: dict[SideName, Spread] = {
        "b": _spread(translator, a, b, "b", seed),
        "a": _spread(translator, b, a, "a", seed),
    }
    alone: dict[SideName, Any] = {"a": rows.only_x, "b": rows.only_y}
    ranges, rates = {}, []
    for side, only in alone.items():
        known = _encoded(translator, data[side], np.concatenate([rows.pairs, only]), side, seed)
        ranges[side] = _range(translator, known, {"a": a, "b": b}[side], side, seed)
        rates.append(_rate(known.posterior).reshape(-1, model.latent_dim).sum(axis=0))
    return LinkerFit(
        model=model,
        designs=designs,
        scales=scales,
        spreads=spreads,
        evidence=fit_evidence(translator, spreads, a, b),
        ranges=ranges,
        active=np.minimum(*rates) > _ACTIVE_NATS,
        separate=logs.separate,
        joint=logs.joint,
    )


def _spread(
    translator: Translator, given: Encoded, wanted: Encoded, side: SideName, seed: int
) -> Spread:
    """Spread of one side about its predictions from the other."""

    def predicted(posterior: Array, n_draws: int) -> tuple[Array, Array]:
        noise = standard_draws(n_draws, posterior.shape[2])
        centre = translator.decode(posterior[:, 0], side)
        return translator.draws(posterior, side, noise), centre

    spread = fit_spread(wanted.values, wanted.mask, *predicted(given.posterior, _DRAWS))

    def needed(rows: slice, shown: Mask) -> Array:
        posterior = _posterior_of(translator, given.values[rows], shown, other_side(side))
        drawn = predicted(posterior, _FEW_DRAWS)
        return np.array(
            [needed_factor(wanted.values[rows], wanted.mask[rows], *drawn, spread.noise)]
        )

    (growth,) = measure_growth(given.mask, needed, seed)
    return replace(spread, growth=growth)


def _range(
    translator: Translator, known: Encoded, held_out: Encoded, side: SideName, seed: int
) -> SideRange:
    """Range of a side's records, those held out included, and how its bounds grow with gaps."""
    own = translator.decode(known.posterior[:, 0], side)
    found = fit_range(known.values, known.mask, own, known.posterior)
    new = translator.decode(held_out.posterior[:, 0], side)
    farthest, worst = range_bounds(found, held_out.values, held_out.mask, new, held_out.posterior)
    found = replace(found, farthest=max(found.farthest, farthest), worst=max(found.worst, worst))

    def bounds(rows: slice, shown: Mask) -> Array:
        values = known.values[rows]
        posterior = _posterior_of(translator, values, shown, side)
        own = translator.decode(posterior[:, 0], side)
        return np.array(range_bounds(found, values, shown, own, posterior))

    farther, worse = measure_growth(known.mask, bounds, seed)
    return replace(found, farther=farther, worse=worse)


def _posterior_of(translator: Translator, values: Array, shown: Mask, side: SideName) -> Array:
    """Codes of records of which only part is shown."""
    return translator.posterior(np.where(shown, values, 0.0), shown, side)


def _encoded(
    translator: Translator, data: SideData, rows: NDArray[np.int64], side: SideName, seed: int
) -> Encoded:
    """Rows of a side with their codes, at most ``_EXAMINED`` of them, drawn at random."""
    if len(rows) > _EXAMINED:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _EXAMINED, replace=False))
    chosen = torch.as_tensor(rows)
    values, mask = data.values[chosen].double().numpy(), data.mask[chosen].numpy()
    return Encoded(values, mask, translator.posterior(values, mask, side))


def _rate(posterior: Array) -> Array:
    """Mean over records of the KL of each code entry from the prior, in nats."""
    mean, log_var = posterior[:, 0], posterior[:, 1]
    rate: Array = 0.5 * (mean**2 + np.exp(log_var) - 1.0 - log_var).mean(axis=0)
    return rate
