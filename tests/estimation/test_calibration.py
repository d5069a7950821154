"""Widening of forecasts measured on rows held back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsvae import SVAEForecaster
from tsvae.estimation.building import resolve_sizes
from tsvae.estimation.calibration import measure_widening, rows_to_hold_back
from tsvae.estimation.engine import Predictions
from tsvae.estimation.reading import Problem
from tsvae.models.predictive import NormalPredictive
from tsvae.panel import read_panel

torch = pytest.importorskip("torch")


class FixedEngine:
    """Forecasts zero with unit scale, whatever the history."""

    class scaler:
        affine = True

        @staticmethod
        def forward(values, mask, names):
            return values

    def histories(self, panel, covariates, series, ends, horizon):
        self.ends = ends

        class Seen:
            mask = np.ones((len(ends), 1, panel.n_features), dtype=bool)

        return Seen()

    def forecast(self, histories, horizon):
        shape = (len(self.ends), horizon, histories.mask.shape[-1])
        return Predictions([NormalPredictive(torch.zeros(shape), torch.ones(shape))], self.scaler)


@pytest.mark.parametrize(
    ("spread", "expected"),
    [(1.5, 1.5), (0.3, 1.0), (9.0, 2.0)],
    ids=["wider", "never narrower", "bounded"],
)
def test_widening_is_the_root_mean_square_of_standardised_errors(spread, expected):
    rng = np.random.default_rng(0)
    panel = read_panel(spread * rng.normal(size=(6000, 1)))
    widening = measure_widening(FixedEngine(), Problem(panel, None), 4000, 10)
    assert widening == pytest.approx([expected], rel=0.05)


def test_forecasts_start_inside_the_rows_held_back_and_end_with_the_data():
    engine = FixedEngine()
    panel = read_panel(np.zeros((100, 1)))
    measure_widening(engine, Problem(panel, None), 30, 10)
    assert engine.ends.min() == 70
    assert engine.ends.max() + 10 <= 100


def test_no_rows_are_held_back_from_short_data():
    assert rows_to_hold_back(np.array([60]), resolve_sizes(60, 512, 24)) == 0
    assert rows_to_hold_back(np.array([4000, 1500]), resolve_sizes(4000, 512, 24)) == 150


def test_calibrate_trains_on_and_never_narrows():
    stamps = pd.date_range("2024-01-01", periods=600, freq="h")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=600).cumsum()}, index=stamps)
    settings = {"horizon": 6, "max_epochs": 3, "latent_dim": 8, "context_length": 48}
    plain = SVAEForecaster(**settings, random_state=0).fit(frame)
    wide = SVAEForecaster(**settings, random_state=0, calibrate=True).fit(frame)
    assert len(plain.training_log_["epoch"]) == 3
    assert wide.training_log_["epoch"] == [0, 1, 2, 3]
    assert (wide._fit.widening >= 1).all()
    assert wide.predict().notna().all(axis=None)
