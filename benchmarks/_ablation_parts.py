"""What the ablation takes back or adds, and how."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from tsvae import SVAEForecaster


class Part(NamedTuple):
    """One row of the table.

    Attributes
    ----------
    name : str
    settings : dict
        Of the forecaster.
    change : callable
        Makes a context in which the package does without something no setting turns off.
    seeds : tuple of int
        Forecasts are the mean over these.
    gaps : bool
        Whether it is measured with entries missing, too.
    """

    name: str
    settings: dict[str, Any]
    change: Callable[[], AbstractContextManager[Any]] = nullcontext
    seeds: tuple[int, ...] = (0,)
    gaps: bool = False

    def settings_for(self, season: int) -> dict[str, Any]:
        """Return the settings for data of that season; without one they have no calendar."""
        left_out = {"calendar"} if season == 1 else set()
        return {name: value for name, value in self.settings.items() if name not in left_out}

    @property
    def build(self) -> Callable[..., Any] | None:
        """What makes the estimator of its settings; None: `SVAEForecaster` itself."""
        return partial(MeanOfSeeds, self.seeds) if len(self.seeds) > 1 else None


class MeanOfSeeds(BaseEstimator):
    """Forecasters that differ in their seed; means and quantiles are averaged."""

    def __init__(self, seeds: Sequence[int], **settings: Any) -> None:
        self.seeds = seeds
        self.settings = settings

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings of every member."""
        return {"seeds": self.seeds, **self.settings}

    def fit(self, X: Any) -> MeanOfSeeds:
        """Fit each member to the same rows."""
        import torch

        self.members_ = [
            SVAEForecaster(**{**self.settings, "random_state": seed}).fit(X) for seed in self.seeds
        ]
        self.model_ = torch.nn.ModuleList(member.model_ for member in self.members_)
        return self

    def _forecast_origins(
        self,
        panel: Any,
        origins: NDArray[np.int64],
        horizon: int,
        quantiles: Sequence[float] | None = None,
    ) -> NDArray[np.float64]:
        forecasts = [m._forecast_origins(panel, origins, horizon, quantiles) for m in self.members_]
        mean: NDArray[np.float64] = np.mean(forecasts, axis=0)
        return mean


def without_coupling() -> AbstractContextManager[Any]:
    """Leave no choice but an infinite penalty on couplings of states, which makes them zero."""
    stack = ExitStack()
    stack.enter_context(with_one_coupling())
    stack.enter_context(patch("tsvae.models.response_fit._COUPLINGS", (math.inf,)))
    return stack


def with_one_coupling() -> AbstractContextManager[Any]:
    """Let all variables share one coupling of states."""
    return patch("tsvae.models.own_couplings._PENALTIES", (math.inf,))


def without_filling() -> AbstractContextManager[Any]:
    """Let no panel be small enough for its histories to be filled from all variables."""
    return patch("tsvae.estimation.structured._MOST_FILLED", 0)


def without_bridges() -> AbstractContextManager[Any]:
    """Leave gaps of histories as they are, in fit and forecast."""
    from tsvae.models.gaps import Bridged

    def keep(x: Any, seen: Any, longest: int = 0) -> Bridged:
        return Bridged(x, seen)

    stack = ExitStack()
    stack.enter_context(without_filling())
    for module in ("tsvae.models.origins", "tsvae.estimation.fit_windows"):
        stack.enter_context(patch(f"{module}.bridge_gaps", keep))
    return stack


def without_half_patterns() -> AbstractContextManager[Any]:
    """Leave seasons that the data hold often to the states alone."""
    return patch("tsvae.estimation.start_data._OFTEN_SHARE", 0.0)


def without_lost_noise() -> AbstractContextManager[Any]:
    """Take moments inside the data for those of futures, whatever a fitted pattern took."""

    def nothing(values: Any, mask: Any, pattern: Any, n_lags: int) -> NDArray[np.float64]:
        return np.zeros((values.shape[-1], n_lags))

    return patch("tsvae.estimation.starting.lost_covariances", nothing)


def without_persistence() -> AbstractContextManager[Any]:
    """Keep the fit of the least cross-validated error, whatever its gain."""
    return patch("tsvae.models.response_fit.beats_last_value", lambda *_: True)


PARTS = (
    Part("nothing: the defaults", {}, gaps=True),
    Part("structural start of few rows", {"start": "moments"}),
    Part("fit to moments; roles, 10 epochs instead", {"start": "roles"}),
    Part("fit to moments; roles, no training", {"start": "roles", "max_epochs": 0}),
    Part("no epochs after it; one at 1e-4", {"max_epochs": 1, "learning_rate": 1e-4}),
    Part("seasonal states", {"seasonal_periods": None, "seasonal_effect": False}),
    Part("fixed seasonal pattern", {"seasonal_effect": False}),
    Part("test of the pattern: always fixed", {"seasonal_effect": True}),
    Part("half of a pattern seen often: none", {}, change=without_half_patterns),
    Part("noise that a pattern takes: ignored", {}, change=without_lost_noise),
    Part("level of each window", {"window_level": False}),
    Part("width: 16 groups, not 64", {"latent_dim": 32}),
    Part("independent channels: joint", {"channels": "joint", "latent_dim": 32}),
    Part("no calibration: calibrate=True", {"calibrate": True}),
    Part("last value where no fit is clearly better", {}, change=without_persistence),
    Part("coupling of states", {}, change=without_coupling),
    Part("own coupling for each variable: one", {}, change=with_one_coupling),
    Part("filled histories; lines alone", {}, change=without_filling, gaps=True),
    Part("both, filling and lines", {}, change=without_bridges, gaps=True),
    Part("no calendar covariates: calendar=True", {"calendar": True}),
    Part("one seed: mean of 3", {}, seeds=(0, 1, 2)),
    Part("q(theta): a point estimate", {"point_estimate": True}),
)
