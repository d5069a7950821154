"""Torch models: a forward pass, a loss and predictive distributions; usable without estimators."""

from __future__ import annotations

from tsvae.models.graphical import (
    GraphicalModel,
    get_graphical_model,
    graphical_model_names,
    register_graphical_model,
)
from tsvae.models.svae import SVAE

__all__ = [
    "SVAE",
    "GraphicalModel",
    "get_graphical_model",
    "graphical_model_names",
    "register_graphical_model",
]
