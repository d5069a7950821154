"""Pictures of what the estimators do, in scikit-learn's Display convention.

A display stores the data it draws; ``from_estimator`` makes one from a fitted estimator,
``plot(ax=None)`` draws it and returns it, with ``figure_``, ``ax_`` and ``axes_`` set. Needs
matplotlib (``pip install "tsvae[plot]"``), which is imported when something is drawn.
"""

from __future__ import annotations

from tsvae.plotting._cross_correlation import CrossCorrelationDisplay
from tsvae.plotting._cross_prediction import CrossPrediction
from tsvae.plotting._cross_reconstruction import CrossReconstructionDisplay
from tsvae.plotting._dynamics import LatentDynamicsDisplay
from tsvae.plotting._forecast import ForecastDisplay
from tsvae.plotting._interpolation import InterpolationDisplay
from tsvae.plotting._latent_normality import LatentNormalityDisplay
from tsvae.plotting._latent_scatter import LatentScatterDisplay
from tsvae.plotting._latent_traversal import LatentTraversalDisplay
from tsvae.plotting._paired_latents import PairedLatentDisplay
from tsvae.plotting._reconstruction import ReconstructionDisplay
from tsvae.plotting._training import TrainingDisplay

__all__ = [
    "CrossCorrelationDisplay",
    "CrossPrediction",
    "CrossReconstructionDisplay",
    "ForecastDisplay",
    "InterpolationDisplay",
    "LatentDynamicsDisplay",
    "LatentNormalityDisplay",
    "LatentScatterDisplay",
    "LatentTraversalDisplay",
    "PairedLatentDisplay",
    "ReconstructionDisplay",
    "TrainingDisplay",
]
