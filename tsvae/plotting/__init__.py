"""Pictures of forecasts, fills, latent dynamics and training, in scikit-learn's Display convention.

A display stores the data it draws; ``from_estimator`` makes one from a fitted estimator,
``plot(ax=None)`` draws it and returns it, with ``figure_``, ``ax_`` and ``axes_`` set. Needs
matplotlib (``pip install "tsvae[plot]"``), which is imported when something is drawn.
"""

from __future__ import annotations

from tsvae.plotting._dynamics import LatentDynamicsDisplay
from tsvae.plotting._forecast import ForecastDisplay
from tsvae.plotting._reconstruction import ReconstructionDisplay
from tsvae.plotting._training import TrainingDisplay

__all__ = [
    "ForecastDisplay",
    "LatentDynamicsDisplay",
    "ReconstructionDisplay",
    "TrainingDisplay",
]
