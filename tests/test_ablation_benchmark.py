"""The ablation takes back what it says, and puts it back afterwards."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tsvae.panel import read_panel

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def parts():
    sys.path.insert(0, str(FOLDER))
    before = set(sys.modules)
    try:
        import _ablation_parts
        import ablation

        yield SimpleNamespace(parts=_ablation_parts, main=ablation)
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(sys.modules) - before:
            if str(FOLDER) in (getattr(sys.modules[name], "__file__", None) or ""):
                sys.modules.pop(name)


def named(parts, name):
    return next(part for part in parts.parts.PARTS if part.name == name)


def make_rows(missing=0.0):
    rng = np.random.default_rng(0)
    clock = np.arange(150)
    waves = np.column_stack([np.sin(2 * np.pi * clock / 12), np.cos(2 * np.pi * clock / 7)])
    rows = waves + 0.1 * rng.standard_normal(waves.shape)
    return np.where(rng.random(rows.shape) < missing, np.nan, rows)


def fit(parts, part, rows, **settings):
    build = part.build or parts.parts.SVAEForecaster
    fixed = {"horizon": 6, "latent_dim": 8, "context_length": 48, "random_state": 0}
    with part.change():  # of a bank, where few rows might have a structural start
        return build(**{"start": "moments", **fixed, **part.settings, **settings}).fit(rows)


@pytest.fixture(scope="module")
def default(parts):
    return fit(parts, named(parts, "nothing: the defaults"), make_rows())


def test_states_are_not_coupled_inside_the_context_alone(parts, default):
    from tsvae.models import response_fit

    choices = response_fit._COUPLINGS
    uncoupled = fit(parts, named(parts, "coupling of states"), make_rows())
    assert not uncoupled.model_.coupling.matrix.any()
    assert default.model_.coupling.matrix.any()
    assert response_fit._COUPLINGS is choices


def test_variables_share_a_coupling_inside_the_context_alone(parts):
    for name, alike in (
        ("own coupling for each variable: one", True),
        ("nothing: the defaults", False),
    ):
        found = fit(parts, named(parts, name), make_rows(), context_length=12, horizon=4)
        first, second = found.model_.coupling.matrix
        assert bool((first == second).all()) == alike


def test_fits_without_clear_gain_are_kept_inside_the_context_alone(parts):
    walk = np.random.default_rng(1).normal(size=(150, 2)).cumsum(0)
    kept = fit(parts, named(parts, "nothing: the defaults"), walk)
    loose = fit(parts, named(parts, "last value where no fit is clearly better"), walk)
    last = np.repeat(walk[-1:], 6, axis=0)
    np.testing.assert_allclose(kept.predict(), last, atol=0.1)
    assert np.abs(loose.predict() - last).max() > 1.0


def test_patterns_seen_often_are_left_to_states_inside_the_context_alone(parts):
    stamps = pd.date_range("2024-01-01", periods=500, freq="D", name="time")
    weeks = np.sin(2 * np.pi * np.arange(500) / 7)[:, None]
    rows = pd.DataFrame(weeks + 0.1 * np.random.default_rng(0).normal(size=(500, 1)), stamps)
    for name, off in (
        ("half of a pattern seen often: none", True),
        ("nothing: the defaults", False),
    ):
        model = fit(parts, named(parts, name), rows).model_
        assert bool((model.covariate_matrix == 0).all()) == off


def test_gaps_are_not_filled_inside_the_context_alone(parts, default):
    rows = make_rows(missing=0.3)
    lines = fit(parts, named(parts, "filled histories; lines alone"), make_rows())
    assert default._fit.filling.shows
    assert not lines._fit.filling.shows
    np.testing.assert_allclose(default.predict(), lines.predict())
    assert np.abs(default.predict(rows) - lines.predict(rows)).max() > 1e-3
    bridged = lines.predict(rows)
    with named(parts, "both, filling and lines").change():
        left = lines.predict(rows)
    assert np.abs(left - bridged).max() > 1e-3
    np.testing.assert_array_equal(lines.predict(rows), bridged)


def test_fits_bridge_no_gaps_inside_the_context(parts):
    from tsvae.estimation import fit_windows
    from tsvae.models import origins

    x, seen = torch.tensor([[[0.0], [9.0], [2.0]]]), torch.tensor([[[True], [False], [True]]])
    with named(parts, "both, filling and lines").change():
        for module in (fit_windows, origins):
            found = module.bridge_gaps(x, seen)
            assert torch.equal(found.x, x)
            assert torch.equal(found.known, seen)
    assert fit_windows.bridge_gaps(x, seen).known.all()


def test_a_bank_is_fitted_to_few_rows_alone(parts):
    rows = pd.DataFrame(
        np.arange(60.0) + np.random.default_rng(0).normal(size=60),
        pd.period_range("2001-01", periods=60, freq="M"),
    )
    for name, bank in (("structural start of few rows", True), ("nothing: the defaults", False)):
        part = named(parts, name)
        settings = {"start": "auto"} | part.settings
        assert (fit(parts, part, rows, **settings).model_.coupling is not None) == bank


def test_forecasts_of_seeds_are_averaged(parts, default):
    part = named(parts, "one seed: mean of 3")
    assert part.seeds == (0, 1, 2)
    mean = fit(parts, part._replace(seeds=(0, 1)), make_rows())
    other = fit(parts, named(parts, "nothing: the defaults"), make_rows(), random_state=1)
    panel, origins = read_panel(make_rows()), np.array([100, 140])
    for quantiles in (None, [0.1, 0.9]):
        expected = [m._forecast_origins(panel, origins, 6, quantiles) for m in (default, other)]
        found = mean._forecast_origins(panel, origins, 6, quantiles)
        np.testing.assert_allclose(found, np.mean(expected, axis=0))
    import forecasting

    sizes = [forecasting._count_parameters(forecaster) for forecaster in (mean, default)]
    assert sizes[0] == 2 * sizes[1] == 2 * sum(p.numel() for p in default.model_.parameters())


def test_parts_are_those_the_forecaster_has(parts):
    names = [part.name for part in parts.parts.PARTS]
    assert len(names) == len(set(names))
    for part in parts.parts.PARTS:
        parts.parts.SVAEForecaster(**part.settings)


def test_yearly_data_have_no_calendar(parts):
    part = named(parts, "no calendar covariates: calendar=True")
    assert part.settings_for(season=1) == {}
    assert part.settings_for(season=24) == {"calendar": True}


def test_what_was_not_measured_stays_empty(parts):
    found = parts.main.Found("a", mse=0.5)
    line = parts.main.table([found], markdown=True).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["a", "0.5000", *[""] * 7]


def test_rows_of_the_report_that_is_there_are_kept(parts, tmp_path):
    with pytest.raises(SystemExit, match=r"run all parts without --merge"):
        parts.main.merged(tmp_path, [])
    first, second, last = (part.name for part in parts.parts.PARTS[:3])
    rows = [parts.main.Found(name, mse=1.0, mase_of={"co2": 2.0}) for name in (first, last)]
    text = json.dumps({"scores": [row._asdict() for row in rows]})
    (tmp_path / "ablation.json").write_text(text, encoding="utf8")
    new = [parts.main.Found(name, mse=3.0) for name in (last, second)]
    assert parts.main.merged(tmp_path, new) == [rows[0], new[1], new[0]]
