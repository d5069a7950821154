"""What is missing carries no weight in training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from tsvae import SVAEForecaster
from tsvae.models import SVAE


def test_training_counts_what_is_observed_and_nothing_else(monkeypatch):
    rng = np.random.default_rng(0)
    values = 50.0 + 10.0 * np.sin(np.arange(120)[:, None] / [2.0, 3.0]) + rng.normal(size=(120, 2))
    values[rng.random(values.shape) < 0.3] = np.nan
    shares, own = [], SVAE.training_step

    def spy(self, batch, step):
        mask = batch["mask"]
        assert mask.dtype == torch.bool
        assert (batch["x"][~mask] == 0).all() and (batch["x"][mask] != 0).all()
        assert not (batch["visible"] & ~mask).any()
        if self.training:
            shares.append(mask.float().mean().item())
        return own(self, batch, step)

    monkeypatch.setattr(SVAE, "training_step", spy)
    SVAEForecaster(
        horizon=4, context_length=20, latent_dim=4, max_epochs=1, n_origins=2, random_state=0
    ).fit(pd.DataFrame(values))
    assert abs(np.mean(shares) - np.isfinite(values).mean()) < 0.05
