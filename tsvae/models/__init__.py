"""Torch models: a forward pass, a loss and predictive distributions; usable without estimators."""

from __future__ import annotations

from tsvae.models.code_network import AutoregressiveCodePrior
from tsvae.models.code_prior import CodePrior, MarkovCodePrior
from tsvae.models.graphical import (
    GraphicalModel,
    get_graphical_model,
    graphical_model_names,
    register_graphical_model,
)
from tsvae.models.svae import SVAE

__all__ = [
    "SVAE",
    "AutoregressiveCodePrior",
    "CodePrior",
    "GraphicalModel",
    "MarkovCodePrior",
    "get_graphical_model",
    "graphical_model_names",
    "register_graphical_model",
]
