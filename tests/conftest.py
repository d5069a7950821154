"""What all tests share: a headless plot backend, one torch thread, small frames with gaps."""

from __future__ import annotations

import os
from contextlib import contextmanager

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    """Equal thread counts give bit-identical results, and small tests run faster on one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _close_figures():
    """Leave no open figure behind, so that matplotlib never warns about their number."""
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@contextmanager
def fewest_steps_of_an_epoch(n_steps):
    """Change how many steps make an epoch of small data."""
    from tsvae._denoiser import fitting as denoiser
    from tsvae._linker import fitting as linker
    from tsvae.estimation import fitting as forecaster

    with pytest.MonkeyPatch.context() as patch:
        for module in (denoiser, linker, forecaster):
            patch.setattr(module, "_EPOCH_STEPS", (n_steps, module._EPOCH_STEPS[1]))
        yield


@pytest.fixture(scope="module")
def short_epochs():
    """Epochs of small data have 2 steps, not 20: for tests that do not ask what was learned.

    For a module by ``pytestmark = pytest.mark.usefixtures("short_epochs")``; worker processes do
    not see it.
    """
    with fewest_steps_of_an_epoch(2):
        yield


@pytest.fixture
def full_epochs():
    """Epochs as they are, for one test of a module that has short ones."""
    with fewest_steps_of_an_epoch(20):
        yield


@pytest.fixture(scope="session")
def epochs_of():
    """``with epochs_of(n_steps):`` in fixtures of a module that has short epochs."""
    return fewest_steps_of_an_epoch


def pytest_collection_modifyitems(config, items):
    """Skip tests marked `gpu` where torch sees no CUDA device."""
    if not any("gpu" in item.keywords for item in items):
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def make_seasonal_frame(n_rows=240, *, period=12, freq="MS", missing=0.1, seed=0):
    """Trend plus season plus noise in two columns; `missing` of the entries are NaN."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_rows)
    season = np.sin(2 * np.pi * t / period)
    values = np.column_stack(
        [
            10.0 + 0.02 * t + 2.0 * season + 0.2 * rng.standard_normal(n_rows),
            -3.0
            + season
            + 0.5 * np.cos(4 * np.pi * t / period)
            + 0.1 * rng.standard_normal(n_rows),
        ]
    )
    values[rng.random(values.shape) < missing] = np.nan
    index = pd.date_range("2000-01-01", periods=n_rows, freq=freq, name="time")
    return pd.DataFrame(values, index=index, columns=["load", "temperature"])


@pytest.fixture
def seasonal_frame():
    """240 monthly rows of two seasonal variables, a tenth of the entries missing."""
    return make_seasonal_frame()


@pytest.fixture
def seasonal_panel():
    """Three monthly series (120, 100, 80 rows) in a MultiIndex frame, with gaps."""
    frames = {
        name: make_seasonal_frame(n_rows, seed=seed)
        for seed, (name, n_rows) in enumerate([("a", 120), ("b", 100), ("c", 80)])
    }
    return pd.concat(frames, names=["series"])
