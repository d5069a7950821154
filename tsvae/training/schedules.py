"""Schedules: learning-rate factors and the weight beta, as functions of the step.

Steps count optimizer steps from 0. A factor multiplies the peak rate of its group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["BetaSchedule", "Plateau", "learning_rate_factor"]

# One-cycle (Smith & Topin 2018, arXiv 1708.07120): rise from 1/25 of the peak over the first
# 30 % of the steps, then fall to 1/25 * 1e-4 of it.
_CYCLE_RISE = 0.3
_CYCLE_START = 1 / 25
_CYCLE_END = 1 / 25 * 1e-4


def warmup_factor(step: int, warmup_steps: int) -> float:
    """Linear warm-up: 1/w at the first step, 1 from step w-1 on."""
    return 1.0 if step + 1 >= warmup_steps else (step + 1) / warmup_steps


def cosine_factor(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Half a cosine from 1 (end of the warm-up) to 0 (``total_steps``)."""
    length = max(1, total_steps - warmup_steps)
    progress = min(max(step - warmup_steps, 0) / length, 1.0)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def one_cycle_factor(step: int, total_steps: int) -> float:
    """Cosine rise to 1 over the first 30 % of the steps, cosine fall afterwards."""
    peak = _CYCLE_RISE * total_steps
    if step < peak:
        start, end, progress = _CYCLE_START, 1.0, step / peak
    else:
        start, end = 1.0, _CYCLE_END
        progress = min((step - peak) / max(total_steps - peak, 1e-12), 1.0)
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))


def learning_rate_factor(name: str, step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Factor of the peak learning rate at a step.

    Parameters
    ----------
    name : {"cosine", "constant", "plateau", "one_cycle"}
        Shape. ``"plateau"`` is constant here; :class:`Plateau` adds its own factor.
    step : int
        Optimizer steps taken so far.
    total_steps : int
        Planned steps of the run; later steps keep the last value.
    warmup_steps : int, default=0
        Steps of linear warm-up; ``"one_cycle"`` ignores them, as it rises by itself.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> [learning_rate_factor("cosine", step, 10) for step in (0, 5, 10)]
    [1.0, 0.5, 0.0]
    >>> [learning_rate_factor("constant", step, 10, warmup_steps=4) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    if name == "one_cycle":
        return one_cycle_factor(step, total_steps)
    if name == "cosine":
        decay = cosine_factor(step, total_steps, warmup_steps)
    elif name in ("constant", "plateau"):
        decay = 1.0
    else:
        raise ValueError(
            f"name must be one of 'cosine', 'constant', 'plateau', 'one_cycle', got {name!r}."
        )
    return decay * warmup_factor(step, warmup_steps)


@dataclass
class Plateau:
    """Factor that shrinks when the criterion has stopped falling.

    Parameters
    ----------
    factor : float, default=0.5
        What the rate is multiplied by.
    patience : int, default=5
        Epochs without improvement that are endured; the next one shrinks the rate.
    min_delta : float, default=0.0
        Smallest decrease that counts.
    value : float, default=1.0
        The factor at present.
    best : float, default=inf
        Lowest criterion so far.
    bad_epochs : int, default=0
        Epochs since the last improvement or shrinkage.

    Examples
    --------
    >>> plateau = Plateau(patience=1)
    >>> [plateau.update(value) for value in (3.0, 2.0, 2.0, 2.0, 2.0)]
    [1.0, 1.0, 1.0, 0.5, 0.5]
    """

    factor: float = 0.5
    patience: int = 5
    min_delta: float = 0.0
    value: float = 1.0
    best: float = math.inf
    bad_epochs: int = 0

    def update(self, criterion: float) -> float:
        """Take the criterion of one epoch; return the factor for the next."""
        if criterion < self.best - self.min_delta:
            self.best, self.bad_epochs = criterion, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.value, self.bad_epochs = self.value * self.factor, 0
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"value": self.value, "best": self.best, "bad_epochs": self.bad_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.value, self.best = float(state["value"]), float(state["best"])
        self.bad_epochs = int(state["bad_epochs"])


@dataclass(frozen=True)
class BetaSchedule:
    """Weight of the KL terms: constant, then linear to its final value.

    ``beta_min`` for ``warmup_steps`` steps, then a straight line that reaches ``beta_max`` after
    another ``annealing_steps`` steps.

    Parameters
    ----------
    beta_min : float, default=0.001
        Weight during the warm-up: the reconstruction is learned first.
    beta_max : float, default=1.0
        Final weight; 1 is the evidence lower bound.
    warmup_steps, annealing_steps : int, default=500
        Lengths of the two phases in optimizer steps.

    Examples
    --------
    >>> beta = BetaSchedule(warmup_steps=10, annealing_steps=10)
    >>> beta.value(0), beta.value(10), beta.value(20)
    (0.001, 0.001, 1.0)
    >>> beta.complete_step
    20
    >>> beta.fit_to(total_steps=30).complete_step
    9
    """

    beta_min: float = 0.001
    beta_max: float = 1.0
    warmup_steps: int = 500
    annealing_steps: int = 500

    def __post_init__(self) -> None:
        for name in ("beta_min", "beta_max", "warmup_steps", "annealing_steps"):
            value = getattr(self, name)
            if not value >= 0 or math.isinf(value):
                raise ValueError(f"{name} must be a finite number >= 0, got {value!r}.")

    @property
    def complete_step(self) -> int:
        """First step whose value is ``beta_max``."""
        return self.warmup_steps + self.annealing_steps

    def value(self, step: int) -> float:
        """Weight at a step (counted from 0)."""
        if step >= self.complete_step:
            return self.beta_max
        if step <= self.warmup_steps:
            return self.beta_min
        progress = (step - self.warmup_steps) / self.annealing_steps
        return self.beta_min + (self.beta_max - self.beta_min) * progress

    def fit_to(self, total_steps: int, fraction: float = 0.3) -> BetaSchedule:
        """Shorten both phases so that a short fit still reaches ``beta_max``.

        Parameters
        ----------
        total_steps : int
            Planned optimizer steps.
        fraction : float, default=0.3
            Part of them after which ``beta_max`` is reached at the latest.

        Returns
        -------
        BetaSchedule
            Itself if it is short enough; else both phases scaled by the same ratio.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be between 0 and 1, got {fraction!r}.")
        limit = int(fraction * total_steps)
        if self.complete_step <= limit:
            return self
        warmup = int(self.warmup_steps * limit / self.complete_step)
        return replace(self, warmup_steps=warmup, annealing_steps=limit - warmup)
