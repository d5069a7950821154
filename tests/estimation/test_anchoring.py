"""Forecasts between a model that takes levels off and one that keeps them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsvae import SVAEForecaster
from tsvae.estimation.anchoring import SHARE
from tsvae.panel import read_panel

SETTINGS = {"context_length": 32, "latent_dim": 8, "random_state": 0}


def swings(n_rows, seed=0):
    """Two variables that come back to a mean, and noise."""
    rng = np.random.default_rng(seed)
    slow = np.zeros((n_rows, 2))
    for t in range(1, n_rows):
        slow[t] = 0.8 * slow[t - 1] + 0.5 * rng.normal(size=2)
    return slow + 0.2 * rng.normal(size=slow.shape)


def margins(fitted, x):
    """Mean and scale of the forecasts from the end of x, before their spread is shaped."""
    engine = fitted._fitted().engine(fitted.get_params())
    ends = np.array([len(x)])
    histories = engine.histories(read_panel(x), None, np.array([0]), ends, fitted.horizon)
    return engine._margins(torch.device("cpu"), histories, fitted.horizon)


@pytest.fixture(scope="module")
def fits():
    x = swings(1000)
    x[-30:] += 2.0  # a level that the training rows hardly had
    return x, {
        w: SVAEForecaster(8, window_level=w, **SETTINGS).fit(x) for w in ("both", True, False)
    }


def test_forecasts_lie_between_those_of_the_two_models(fits):
    x, by_level = fits
    both, own, other = (margins(by_level[w], x) for w in ("both", True, False))
    assert (own.mean - other.mean).abs().max() > 0.1
    torch.testing.assert_close(both.mean, own.mean + SHARE * (other.mean - own.mean))
    torch.testing.assert_close(both.scale, own.scale)


@pytest.mark.parametrize("plain", [False, True])
def test_sample_paths_have_the_means_of_forecasts(fits, plain, monkeypatch):
    _, by_level = fits
    fitted = by_level["both"]
    if plain:
        kept = fitted._fit
        spread = type(kept.spread).plain(2, 8)
        monkeypatch.setattr(fitted, "_fit", type(kept)(**{**vars(kept), "spread": spread}))
    paths = fitted.sample(4000, random_state=0)
    values = np.stack([np.asarray(paths)[i] for i in range(4000)])
    error = values.std(0) / 4000**0.5
    mean = np.asarray(fitted.predict())
    assert (abs(values.mean(0) - mean) <= 5.0 * error).all()
    assert (abs(np.asarray(by_level[True].predict()) - mean) > 10.0 * error).any()


def test_a_file_holds_both_models(fits, tmp_path):
    x, by_level = fits
    by_level["both"].save(tmp_path / "both.tsvae")
    loaded = SVAEForecaster.load(tmp_path / "both.tsvae")
    np.testing.assert_array_equal(loaded.predict(x), by_level["both"].predict(x))


def test_data_that_move_on_are_forecast_from_where_they_are(fits):
    x, _ = fits
    fitted = SVAEForecaster(8, window_level="both", **SETTINGS).fit(x[:-60]).update(x[-60:])
    again = SVAEForecaster(8, window_level="both", **SETTINGS).fit(x[:-60])
    np.testing.assert_allclose(fitted.predict(), again.predict(x), rtol=1e-6)


ENOUGH = {
    "few rows": (swings(100), {"window_level": "both"}),
    "random walk": (
        np.random.default_rng(1).normal(size=(600, 2)).cumsum(0),
        {"window_level": "both"},
    ),
    "trained": (swings(600), {"window_level": "both", "max_epochs": 1}),
    "joint": (swings(600), {"window_level": "both", "channels": "joint", "max_epochs": 0}),
    "default": (swings(600), {}),
}


@pytest.mark.parametrize("why", ENOUGH)
def test_where_one_model_is_enough(why):
    x, more = ENOUGH[why]
    assert SVAEForecaster(8, **SETTINGS, **more).fit(x)._fitted().anchored is None
