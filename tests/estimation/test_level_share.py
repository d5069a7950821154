"""How much of a window's level is taken off, against regressions window by window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import linregress

from tsvae import SVAEForecaster
from tsvae.estimation.building import resolve_sizes
from tsvae.estimation.fit_windows import FitWindows
from tsvae.estimation.history_filling import Shown
from tsvae.estimation.level_share import level_shares


def windows_of(values, mask=None, context=20, horizon=4):
    """Windows of a panel ``(B, T, F)``, no gaps bridged."""
    mask = np.ones(values.shape, bool) if mask is None else mask
    values = np.where(mask, values, 0.0)
    n_series, n_steps, n_features = values.shape
    sizes = resolve_sizes(n_steps, context, horizon)
    lengths = np.full(n_series, n_steps)
    return FitWindows(
        Shown(values, mask), mask, lengths, sizes, horizon, np.zeros(n_features, bool)
    )


def autoregression(phi, n_steps, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n_steps)
    for t in range(1, n_steps):
        x[t] += phi * x[t - 1]
    return x


def slow_slope(x, seen, windows):
    """Regression of the future's mean on that of the first entries, origin by origin."""
    levels, futures = [], []
    for origin in windows.origins()[0]:
        past = slice(max(origin - windows.n_past, 0), origin)
        ahead = slice(origin, origin + windows.horizon)
        first = x[past][seen[past]][: windows.sizes.level_entries]
        if seen[ahead].any() and len(first):
            levels.append(first.mean())
            futures.append(x[ahead][seen[ahead]].mean())
    return linregress(levels, futures).slope


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("n_steps", [40, 300])
def test_share_is_the_slope_of_a_regression(n_steps, missing):
    rng = np.random.default_rng(3)
    values = np.stack([autoregression(phi, n_steps, 5) for phi in (0.0, 0.97, 0.99)], -1)[None]
    values[..., 2] += 0.1 * np.arange(n_steps)
    mask = rng.random(values.shape) >= missing
    windows = windows_of(values, mask)
    want = [slow_slope(values[0, :, f], mask[0, :, f], windows) for f in range(3)]
    np.testing.assert_allclose(level_shares(windows), np.clip(want, 0.5, 1.0), atol=1e-5)


def test_what_comes_back_slowly_has_a_share_between():
    """The slope of an autoregression follows from its autocovariances."""
    phi, windows = 0.985, windows_of(autoregression(0.985, 200_000)[None, :, None], context=40)
    first, ahead = np.arange(windows.sizes.level_entries), 40 + np.arange(windows.horizon)
    covariance = (phi ** np.abs(ahead[:, None] - first)).mean()
    variance = (phi ** np.abs(first[:, None] - first)).mean()
    assert 0.55 < covariance / variance < 0.65
    np.testing.assert_allclose(level_shares(windows), covariance / variance, atol=0.02)


def test_bounds():
    rng = np.random.default_rng(0)
    noise, line = rng.normal(size=400), np.arange(400) / 100.0
    jumps = np.repeat([-1.0, 1.0], 200)
    still = np.zeros(400)
    values = np.stack([noise, line, jumps, still], -1)[None]
    shares = level_shares(windows_of(values))
    assert shares[0] == 0.5
    assert shares[1] == 1.0
    assert 0.5 < shares[2] < 1.0
    assert shares[3] == 0.5


def test_series_of_a_panel_keep_their_levels():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 80, 1)) + 10.0 * rng.normal(size=(6, 1, 1))
    assert level_shares(windows_of(values))[0] > 0.95
    alone = level_shares(windows_of(values[:1] - values[:1].mean()))
    assert alone[0] == 0.5


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_units_do_not_matter(scale):
    values = autoregression(0.98, 300)[None, :, None]
    own = level_shares(windows_of(values))
    np.testing.assert_allclose(level_shares(windows_of(scale * values)), own, rtol=1e-5)


def test_no_levels_no_share():
    windows = windows_of(autoregression(0.9, 100)[None, :, None])
    assert level_shares(replace(windows, sizes=replace(windows.sizes, level_entries=0))) is None


def test_windows_lose_their_share():
    windows = windows_of(np.random.default_rng(0).normal(size=(1, 60, 2)) + 3.0)
    share = np.array([0.25, 0.75])
    raw, own = (
        next(iter(replace(windows, level_share=s).blocks(1)))[1] for s in (np.zeros(2), share)
    )
    off = torch.as_tensor(share).float()[raw.variable, None] * raw.level
    torch.testing.assert_close(own.future, raw.future - off)
    inside = raw.past != 0.0  # rows before the first one are at rest
    torch.testing.assert_close(own.past, torch.where(inside, raw.past - off, 0.0))
    torch.testing.assert_close(own.level, raw.level)


def test_a_fit_measures_shares_and_keeps_them(tmp_path):
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"noise": rng.normal(size=600), "line": 0.02 * np.arange(600)})
    f = SVAEForecaster(12, context_length=48, random_state=0).fit(x)
    assert f._fit.model.level_share.tolist() == [0.5, 1.0]
    f.save(tmp_path / "file")
    loaded = SVAEForecaster.load(tmp_path / "file")
    assert loaded._fit.model.level_share.tolist() == [0.5, 1.0]
    pd.testing.assert_frame_equal(loaded.predict(), f.predict())
