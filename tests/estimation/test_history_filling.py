"""Histories filled from all variables: only from what they show, each as if it were alone."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tsvae import SVAEForecaster
from tsvae.estimation import history_filling
from tsvae.estimation.history_filling import fill_histories, fill_series
from tsvae.estimation.joint_filling import JointFilling
from tsvae.models.autoregression import fit_autoregression
from tsvae.models.joint_filling import fill_hidden
from tsvae.panel import gather, read_panel


def table(n: int = 700, seed: int = 0) -> pd.DataFrame:
    """Three hourly variables, sums of two slow ones and noise."""
    rng = np.random.default_rng(seed)
    slow = np.zeros((n, 2))
    for t in range(1, n):
        slow[t] = 0.95 * slow[t - 1] + rng.normal(size=2)
    x = slow @ np.array([[1.0, 0.5, 1.0], [0.0, 1.0, -1.0]]) + 0.1 * rng.normal(size=(n, 3))
    index = pd.date_range("2024-01-01 07:00", periods=n, freq="h")
    return pd.DataFrame(x / x.std(0), index, ["a", "b", "c"])


def holes(frame: pd.DataFrame, seed: int = 1, share: float = 0.3) -> pd.DataFrame:
    hidden = np.random.default_rng(seed).random(frame.shape) < share
    for row in range(20, len(frame) - 12, 60):
        hidden[row : row + 12, row % 3] = True
    return frame.mask(hidden)


@pytest.fixture(scope="module")
def case():
    """A filling, and a panel with gaps."""
    complete = torch.tensor(table().to_numpy())[None]
    seen = torch.ones_like(complete, dtype=torch.bool)
    fit = fit_autoregression(complete, seen, torch.zeros(1, dtype=torch.long), 0, 2)
    panel = read_panel(holes(table(seed=4)))
    return JointFilling(fit, None), np.where(panel.mask, panel.values, 0.0), panel.mask, panel.index


def windows(*pairs: tuple[int, int]) -> tuple[np.ndarray, ...]:
    starts, ends = np.array(pairs).T
    return np.zeros(len(pairs), dtype=int), starts, ends


def test_a_short_window_is_filled_as_one_piece(case):
    filling, values, mask, index = case
    shown = fill_histories(filling, values, mask, index, *windows((30, 109)))
    one = (slice(0, 1), slice(30, 109))
    found = fill_hidden(
        filling.fit, torch.from_numpy(values[one]), torch.from_numpy(mask[one]), None, steps=0
    )
    np.testing.assert_allclose(shown.values[shown.known], found.mean.numpy()[shown.known])
    np.testing.assert_array_equal(shown.values[mask[one]], values[one][mask[one]])
    sure = (
        found.variance.sqrt().numpy()
        <= np.sqrt(history_filling._MOST_OPEN) * filling.fit.scale.numpy()
    )
    np.testing.assert_array_equal(shown.known, sure)  # something is seen in its last row


def test_long_windows_are_about_what_one_piece_would_give(case, monkeypatch):
    filling, values, mask, index = case
    shown = fill_histories(filling, values, mask, index, *windows((40, 640)))
    monkeypatch.setattr(history_filling, "WIDTH", 600)
    whole = fill_histories(filling, values, mask, index, *windows((40, 640)))
    filled = whole.known & ~mask[:, 40:640]
    assert filled.sum() > 400
    np.testing.assert_allclose(shown.values[filled], whole.values[filled], atol=0.02)


@pytest.mark.parametrize("at_once", [10_000_000, 3 * 700 * 3])
def test_windows_together_are_windows_alone(case, monkeypatch, at_once):
    monkeypatch.setattr(history_filling, "_ENTRIES_AT_ONCE", at_once)
    filling, values, mask, index = case
    pairs = [(0, 300), (5, 305), (100, 612), (101, 613), (300, 340), (0, 700), (699, 700)]
    together = fill_histories(filling, values, mask, index, *windows(*pairs))
    for row, (start, end) in enumerate(pairs):
        alone = fill_histories(filling, values, mask, index, *windows((start, end)))
        np.testing.assert_allclose(together.values[row, : end - start], alone.values[0], rtol=1e-9)
        np.testing.assert_array_equal(together.known[row, : end - start], alone.known[0])
        assert not together.known[row, end - start :].any()


@pytest.mark.parametrize("end", [90, 130, 512, 700])
def test_nothing_after_the_origin_is_looked_at(case, end):
    filling, values, mask, index = case
    other, seen = values.copy(), mask.copy()
    other[:, end:], seen[:, end:] = 99.0, True
    here = windows((max(end - 400, 0), end))
    before = fill_histories(filling, values, mask, index, *here)
    after = fill_histories(filling, other, seen, index, *here)
    np.testing.assert_array_equal(before.values, after.values)
    np.testing.assert_array_equal(before.known, after.known)


def test_what_nothing_tells_stays_hidden(case):
    filling, values, mask, index = case
    mask = mask.copy()
    mask[:, 250:400], mask[:, 650:] = False, False  # all variables at once; until the end
    values = np.where(mask, values, 0.0)
    shown = fill_series(filling, values, mask, index)
    np.testing.assert_array_equal(shown.values[mask], values[mask])
    assert shown.known[:, :250].all()
    assert not shown.known[:, 300:350].any()
    assert not shown.known[:, 650:].any()
    assert (shown.values[~shown.known] == 0.0).all()
    window = fill_histories(filling, values, mask, index, *windows((150, 700)))
    assert not window.known[0, 150:200].any()
    assert not window.known[0, 500:].any()


def fit(data, **more) -> SVAEForecaster:
    settings = {"context_length": 200, "latent_dim": 8, "random_state": 0}
    return SVAEForecaster(6, **settings, **more).fit(data)


@pytest.fixture(scope="module")
def fitted() -> SVAEForecaster:
    return fit(holes(table(1200)))


def test_the_kept_history_is_filled_like_the_data(fitted):
    given = holes(table(1200))
    assert fitted._fit.filling.shows
    pd.testing.assert_frame_equal(fitted.predict(), fitted.predict(given), rtol=1e-6)
    pd.testing.assert_frame_equal(fitted.predict(), fitted.predict(given.iloc[-200:]), rtol=1e-6)


def test_arrays_without_stamps_are_filled_like_the_kept_history():
    given = holes(table(400)).to_numpy()  # whose moments of pairs belong to a growing series
    array = fit(given)
    np.testing.assert_allclose(array.predict(), array.predict(given))


def test_origins_together_are_origins_alone(fitted):
    given = holes(table(600, seed=3))
    origins = np.array([230, 400, 599])
    together = fitted._forecast_origins(read_panel(given), origins, 6)[:, 0]
    for origin, found in zip(origins, together, strict=True):
        alone = fitted.predict(given.iloc[:origin]).to_numpy()
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


def test_other_variables_tell_what_one_lacks(fitted):
    truth = table(260, seed=8)
    given = truth.copy()
    given.loc[given.index[-30:], "c"] = np.nan
    complete = fitted.predict(truth)["c"]
    filled = fitted.predict(given)["c"]
    blind = copy(fitted)
    blind._fit = replace(blind._fit, filling=None)
    alone = blind.predict(given)["c"]
    assert np.abs(filled - complete).mean() < 0.3 * np.abs(alone - complete).mean()


def test_windows_with_seasonal_effects_keep_them():
    frame = table(24 * 20)
    frame["a"] += 5.0 * np.sin(2 * np.pi * np.arange(len(frame)) / 24.0)
    given = holes(frame)
    model = fit(given, seasonal_effect=True)
    filling = model._fit.filling
    assert filling.effects is not None
    engine = model._fit.engine(model.get_params())
    panel = read_panel(given)
    ends = np.array([300])
    history = engine.histories(panel, None, np.zeros(1, dtype=int), ends, 6)
    want = gather(
        engine.scaler.forward(read_panel(frame).values, np.ones_like(panel.mask), panel.variables),
        np.zeros(1, dtype=int),
        ends - 200,
        200,
    )
    hidden = history.mask & ~panel.mask[:, 100:300]
    assert hidden.sum() > 100
    assert np.abs(history.values - want)[hidden].mean() < 0.25


def test_panels_beyond_reach_are_left_to_lines(monkeypatch):
    monkeypatch.setattr("tsvae.estimation.structured._MOST_FILLED", 10)
    model = fit(holes(table(300)))
    assert not model._fit.filling.shows
    assert np.isfinite(model.predict().to_numpy()).all()
