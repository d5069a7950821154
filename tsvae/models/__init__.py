"""Torch models: a forward pass, a loss and predictive distributions; usable without estimators."""

from __future__ import annotations

from tsvae.models.ada_gvae import AdaGVAE
from tsvae.models.autoencoder import Autoencoder
from tsvae.models.barlow import Projector, barlow_twins_loss, cross_correlation
from tsvae.models.code_network import AutoregressiveCodePrior
from tsvae.models.code_prior import CodePrior, MarkovCodePrior
from tsvae.models.conditional import ConditionalVAE
from tsvae.models.conditions import ConditionEmbedding
from tsvae.models.family import BaseAutoencoder
from tsvae.models.graphical import (
    GraphicalModel,
    get_graphical_model,
    graphical_model_names,
    register_graphical_model,
)
from tsvae.models.hierarchical import HierarchicalVAE
from tsvae.models.mmd import maximum_mean_discrepancy
from tsvae.models.outputs import DecodeResult, EncodeResult, ForwardResult
from tsvae.models.pair import PairForward, PairVAE, PairWeights
from tsvae.models.svae import SVAE
from tsvae.models.vae import VAE
from tsvae.models.vq import VQVAE

__all__ = [
    "SVAE",
    "VAE",
    "VQVAE",
    "AdaGVAE",
    "Autoencoder",
    "AutoregressiveCodePrior",
    "BaseAutoencoder",
    "CodePrior",
    "ConditionEmbedding",
    "ConditionalVAE",
    "DecodeResult",
    "EncodeResult",
    "ForwardResult",
    "GraphicalModel",
    "HierarchicalVAE",
    "MarkovCodePrior",
    "PairForward",
    "PairVAE",
    "PairWeights",
    "Projector",
    "barlow_twins_loss",
    "cross_correlation",
    "get_graphical_model",
    "graphical_model_names",
    "maximum_mean_discrepancy",
    "register_graphical_model",
]
