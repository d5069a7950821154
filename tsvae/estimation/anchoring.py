"""A second model, whose windows keep their level, and forecasts between the two.

A model that sees what is left of a window's level follows a series wherever it goes, and takes a
level that was there by chance for one that stays. A model that sees the level as well brings it
back to what the training rows had, too far where the series has gone elsewhere. Errors of the two
differ, most of all far ahead; a forecast between them is better than either (docs/model.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tsvae.estimation.building import Sizes
from tsvae.estimation.moments import has_many_windows
from tsvae.estimation.settings import Parameters, starts_fitted
from tsvae.estimation.start_data import StartData
from tsvae.estimation.starting import build_at_start
from tsvae.models import SVAE
from tsvae.models.predictive import NormalPredictive

__all__ = ["SHARE", "Anchored", "fit_anchored", "moved_towards", "takes_two"]

SHARE = 1.0 / 3.0  # of the second model in a forecast


class Anchored(NamedTuple):
    """A model that sees levels.

    Attributes
    ----------
    model : SVAE
    settings : dict
        Arguments of the model, JSON values.
    """

    model: SVAE
    settings: dict[str, Any]


def takes_two(params: Parameters, data: StartData, sizes: Sizes) -> bool:
    """Whether there are to be two models, and rows enough to tell where levels come back to.

    ``params`` with what training resolves: both models are to be their start.
    """
    return (
        params["window_level"] == "both"
        and sizes.level_entries > 0
        and starts_fitted(params, data.values.shape[-1])
        and params["max_epochs"] == 0
        and has_many_windows(data.lengths, sizes, sizes.horizon)
    )


def fit_anchored(
    data: StartData,
    sizes: Sizes,
    settings: dict[str, Any],
    params: Parameters,
    fixed_seasons: bool,
) -> Anchored | None:
    """Fit the second model; arguments are those that the first was built from.

    None if the last value is its forecast.
    """
    settings = {**settings, "level_entries": 0, "own_smoothing": False}
    built = build_at_start(data, replace(sizes, level_entries=0), settings, params, fixed_seasons)
    if built.persists:
        return None
    return Anchored(built.model.eval().requires_grad_(False), built.settings)


def moved_towards(own: NormalPredictive, mean: Tensor) -> NormalPredictive:
    """Forecasts with the second model's ``mean`` taken in; the scale stays."""
    return own._replace(mean=torch.lerp(own.mean, mean, SHARE))
