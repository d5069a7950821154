"""Predictions of a fitted model."""

from __future__ import annotations

import numpy as np
import pytest

from tsvae import SVAEForecaster


@pytest.mark.parametrize("channels", ["independent", "joint"])
def test_predictions_do_not_depend_on_what_may_still_learn(channels):
    """A fitted model is frozen; the same model with gradients on predicts the same."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)).cumsum(0) * [1.0, 20.0]
    fitted = SVAEForecaster(
        4, context_length=16, latent_dim=4, max_epochs=1, channels=channels, random_state=0
    ).fit(x)
    assert abs(fitted.model_.log_scale).max() > 0.1  # the scale of variables counts
    frozen = fitted.predict(), fitted.transform(x), fitted.score_samples(x)
    fitted.model_.requires_grad_(True)
    free = fitted.predict(), fitted.transform(x), fitted.score_samples(x)
    for got, want in zip(free, frozen, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
