"""``learning_rate="auto"``: a learning-rate range test.

The rate grows exponentially from step to step (Smith 2017, arXiv 1506.01186, section 3.3); the
rate at which the objective falls fastest is taken, but at most a tenth of the one at which it
is lowest, beyond which it diverges. Model and generators are put back afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsvae.training.config import TrainingConfig
from tsvae.training.errors import divergence
from tsvae.training.optim import clip_gradients, network_optimizer, split_parameters
from tsvae.training.rng import clone_generator, get_random_states, set_random_states

if TYPE_CHECKING:
    from tsvae.training.devices import Batch, Runtime

__all__ = ["RangeTest", "learning_rate_range_test"]

_SMOOTHING = 0.8  # weight of the past in the running mean of the objective
_MAX_BATCHES = 8  # few batches, gone through in turn: less noise between steps
_LIMITS = (1e-5, 1e-1)
_CAUTIOUS = 1e-3


class RangeTest(NamedTuple):
    """Result of a range test.

    Parameters
    ----------
    learning_rates, objectives : ndarray of shape (n_steps,)
        Rates tried and the smoothed objectives before each step, relative to the untrained
        model's on the same batch.
    suggestion : float
        Rate to train with.
    """

    learning_rates: NDArray[np.float64]
    objectives: NDArray[np.float64]
    suggestion: float


def learning_rate_range_test(
    model: nn.Module,
    batches: Callable[[int, torch.Generator], Iterable[Batch]],
    *,
    config: TrainingConfig,
    generator: torch.Generator,
    runtime: Runtime,
    n_steps: int = 60,
    low: float = 1e-6,
    high: float = 1.0,
) -> RangeTest:
    """Find a learning rate for the network group.

    Parameters
    ----------
    model : Module
        Model to train; its state is the same afterwards.
    batches : callable
        ``batches(epoch, generator)``; the first batches of epoch 0 are used.
    config : TrainingConfig
        Optimizer and clipping.
    generator : torch.Generator
        Not advanced.
    runtime : Runtime
        Device and precision.
    n_steps : int, default=60
        Steps at most; a divergence ends the test.
    low, high : float
        Range of rates.

    Returns
    -------
    RangeTest

    Raises
    ------
    DivergenceError
        If the objective is not finite before anything was trained.
    """
    groups = split_parameters(model)
    rates = np.geomspace(low, high, n_steps)
    if not groups.network:
        return RangeTest(rates, np.zeros(n_steps), _CAUTIOUS)
    own = getattr(model, "generator", None)
    generators = {"run": generator} | ({"model": own} if isinstance(own, torch.Generator) else {})
    random_states = get_random_states(generators, runtime.device)
    saved = {
        name: value.detach().clone()
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }
    try:
        source = islice(batches(0, clone_generator(generator)), _MAX_BATCHES)
        data = [runtime.move(batch) for batch in source]
        raw = _sweep(model, groups.network, data, rates, config, runtime)
    finally:
        model.load_state_dict(saved, strict=False)
        model.zero_grad(set_to_none=True)
        for parameter in (*groups.network, *groups.natural):
            parameter.requires_grad_(True)  # models may freeze parts by the step
        set_random_states(random_states, generators, runtime.device)
    smoothed = _smooth(raw)
    return RangeTest(rates[: len(raw)], smoothed, suggest_rate(rates[: len(raw)], smoothed))


def _sweep(
    model: nn.Module,
    parameters: list[nn.Parameter],
    data: list[dict[str, Tensor]],
    rates: NDArray[np.float64],
    config: TrainingConfig,
    runtime: Runtime,
) -> NDArray[np.float64]:
    """Objective before each step of a run whose rate grows; ends at a divergence."""
    # Batches differ from each other by more than a small rate gains: compare each with itself.
    start = [_objective(model, batch, runtime, first=True).item() for batch in data]
    optimizer = network_optimizer(parameters, config, float(rates[0]))
    gains: list[float] = []
    for index, rate in enumerate(rates):
        model.zero_grad(set_to_none=True)
        objective = _objective(model, data[index % len(data)], runtime)
        gain = objective.item() - start[index % len(data)]
        if not math.isfinite(gain):
            break
        gains.append(gain)
        if _has_diverged(gains, float(np.std(start))):
            break
        objective.backward()
        if config.clip_norm is not None:
            clip_gradients(parameters, config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        optimizer.step()
    return np.array(gains)


def _objective(
    model: nn.Module, batch: dict[str, Tensor], runtime: Runtime, *, first: bool = False
) -> Tensor:
    """Objective at step 0 throughout: an annealed weight must not change what is tested."""
    with runtime.context(), torch.set_grad_enabled(not first):
        result = model.training_step(batch, 0)  # type: ignore[operator]
    value = result.objective.item()
    if first and not math.isfinite(value):
        raise divergence(value, result.diagnostics, epoch=0, step=0, learning_rate=None)
    objective: Tensor = result.objective
    return objective


def _has_diverged(gains: list[float], spread: float) -> bool:
    """Whether the smoothed objective rose above its start by more than it ever fell.

    Objectives may be negative (log-likelihoods), so ratios to the minimum say nothing; ``spread``
    between batches is a scale of what does not matter.
    """
    if len(gains) <= 5:
        return False
    values = np.array(gains)
    smoothed = _smooth(values)
    margin = max(-smoothed.min(), 4 * float(values[:5].std()), spread, 1e-12)
    return bool(smoothed[-1] > margin)


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential mean, corrected for its start at 0."""
    mean, result = 0.0, np.empty_like(values)
    for index, value in enumerate(values):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * value
        result[index] = mean / (1 - _SMOOTHING ** (index + 1))
    return result


def suggest_rate(rates: NDArray[np.float64], smoothed: NDArray[np.float64]) -> float:
    """Rate of steepest descent, at most a tenth of the rate with the lowest objective.

    Parameters
    ----------
    rates, smoothed : ndarray of shape (n_steps,)
        Rates and smoothed objectives.

    Returns
    -------
    float
        Between 1e-5 and 0.1.
    """
    if not smoothed.size or smoothed.min() >= smoothed[0]:
        return _CAUTIOUS  # nothing was learned at any rate
    lowest = int(np.argmin(smoothed))
    suggestion = rates[lowest] / 10
    if lowest >= 2:
        slope = np.gradient(smoothed[: lowest + 1], np.log(rates[: lowest + 1]))
        suggestion = min(suggestion, rates[int(np.argmin(slope))])
    return float(np.clip(suggestion, *_LIMITS))
