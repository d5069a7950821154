"""Conformal factors of forecasts measured on rows held back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr

from tsvae import SVAEForecaster
from tsvae.estimation import structured
from tsvae.estimation.building import Sizes, resolve_sizes
from tsvae.estimation.engine import Predictions
from tsvae.estimation.held_back import measure_factors, rows_to_hold_back
from tsvae.estimation.reading import Problem
from tsvae.estimation.spread import KNOTS
from tsvae.models.predictive import NormalPredictive
from tsvae.panel import read_panel

torch = pytest.importorskip("torch")


class FixedEngine:
    """Forecasts zero with unit scale, whatever the history."""

    sizes = Sizes(100, 110, 10, 50, 20, 10)

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
    [(1.5, 1.5), (0.8, 0.8), (9.0, 4.0)],
    ids=["wider", "narrower", "bounded"],
)
def test_factors_make_intervals_cover(spread, expected):
    rng = np.random.default_rng(0)
    panel = read_panel(spread * rng.normal(size=(60_000, 1)))
    found = measure_factors(FixedEngine(), Problem(panel, None), 40_000)
    middle = len(KNOTS) // 2
    outer = np.delete(found.factors, middle, axis=1)
    np.testing.assert_allclose(outer, expected, rtol=0.08)
    assert (found.factors[:, middle] == 1.0).all()


def test_factors_by_a_plain_loop():
    rng = np.random.default_rng(0)
    x = rng.standard_t(3, size=(400, 2))
    engine = FixedEngine()
    found = measure_factors(engine, Problem(read_panel(x), None), 100)
    assert engine.ends.min() == 300
    assert engine.ends.max() + 10 <= 400
    independent = 100 / 10 * 2
    weight = 100 / 10 * 2**0.5
    coverage = 2.0 * ndtr(KNOTS[-2]) - 1.0
    sizes = sorted(abs(float(v)) / KNOTS[-2] for end in engine.ends for v in x[end])
    rank = int(np.ceil(min(1.0, coverage * (independent + 1) / independent) * len(sizes)))
    want = np.clip(sizes[rank - 1], 0.5, 4.0) ** (weight / (weight + 10.0))
    assert found.factors[0, -2] == pytest.approx(want, rel=1e-5)
    assert found.factors[0, 1] == found.factors[0, -2]


def test_no_rows_are_held_back_from_short_data():
    assert rows_to_hold_back(np.array([60]), resolve_sizes(60, 512, 24)) == 0
    assert rows_to_hold_back(np.array([4000, 1500]), resolve_sizes(4000, 512, 24)) == 150


@pytest.mark.parametrize("with_covariates", [False, True])
def test_calibrate_fits_without_the_rows_it_measures_on(monkeypatch, with_covariates):
    seen = []
    once = structured._fit_once

    def spy(problem, *rest):
        seen.append(problem)
        return once(problem, *rest)

    monkeypatch.setattr(structured, "_fit_once", spy)
    stamps = pd.date_range("2024-01-01", periods=400, freq="h")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=400).cumsum()}, index=stamps)
    data = (frame.rename(columns={"a": "u"}), frame) if with_covariates else (frame,)
    settings = {"horizon": 6, "latent_dim": 4, "context_length": 24, "random_state": 0}
    plain = SVAEForecaster(**settings).fit(*data)
    seen.clear()
    wide = SVAEForecaster(**settings, calibrate=True).fit(*data)
    assert sorted(int(problem.target.lengths[0]) for problem in seen) == [360, 400]
    for name, value in plain._fit.model.state_dict().items():
        torch.testing.assert_close(wide._fit.model.state_dict()[name], value)
    assert not np.allclose(wide._fit.spread.table, plain._fit.spread.table)


def test_calibrate_with_drawn_forecasts():
    rng = np.random.default_rng(0)
    settings = {"horizon": 4, "latent_dim": 4, "context_length": 24, "n_samples": 50}
    fit = SVAEForecaster(
        **settings, likelihood="laplace", max_epochs=1, calibrate=True, random_state=0
    ).fit(rng.normal(size=(150, 1)))
    assert not fit._fit.spread.is_plain
    assert np.isfinite(fit.predict_interval(coverage=0.9)).all()
    assert np.isfinite(fit.sample(n_samples=5)).all()
