"""The forecasting benchmark cuts, fills and merges as it says, and its peers are what they are."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.base import BaseEstimator

from tsvae.demo.report import ForecastScores

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = (
    "_common",
    "_forecasting_classical",
    "_forecasting_coverage",
    "_forecasting_deep",
    "_forecasting_deepar",
    "_forecasting_report",
    "_forecasting_task",
    "forecasting",
)


def needs(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def parts():
    sys.path.insert(0, str(FOLDER))
    before = set(sys.modules)
    try:
        import _common
        import _forecasting_classical
        import _forecasting_coverage
        import _forecasting_deep
        import _forecasting_report
        import _forecasting_task
        import forecasting

        yield SimpleNamespace(
            common=_common,
            task=_forecasting_task,
            classical=_forecasting_classical,
            coverage=_forecasting_coverage,
            deep=_forecasting_deep,
            report=_forecasting_report,
            main=forecasting,
        )
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(MODULES) - before:
            sys.modules.pop(name, None)


def make_task(parts, *, missing=0.0, n_rows=400, horizon=4, period=8):
    rng = np.random.default_rng(0)
    step = np.arange(n_rows)
    noise = 0.1 * rng.standard_normal((n_rows, 2))
    values = np.column_stack([np.sin(2 * np.pi * step / period), np.cos(step / 5)]) + noise
    target = pd.DataFrame(
        values, pd.date_range("2020", periods=n_rows, freq="h"), columns=["a", "b"]
    )
    visible = target.mask(rng.random(target.shape) < missing)
    split = parts.task.Split(n_rows // 2, 3 * n_rows // 4, n_rows - 10)
    return parts.task.Task("made", target, visible, split, horizon, 40, period, 32)


def test_every_window_of_the_test_part_is_cut_once(parts):
    task = make_task(parts)
    origins, values = (np.concatenate(found) for found in zip(*task.chunks(), strict=True))
    np.testing.assert_array_equal(origins, np.arange(300, 387))
    np.testing.assert_array_equal(values[-1], task.target.to_numpy()[386:390])


def test_validation_windows_end_inside_the_validation_part(parts):
    origins, values = make_task(parts).validation_windows(every=5)
    assert (origins[0], origins[-1]) == (200, 295)
    assert values.shape == (20, 4, 2)


@pytest.mark.parametrize("filling", ["lines", "last", "season"])
def test_histories_are_filled_without_looking_ahead(parts, filling):
    task = make_task(parts, missing=0.4)
    origins = np.array([150, 301])
    found = task.histories(origins, 30, filling)
    later = task.visible.copy()
    later.iloc[301:] = 1e6
    np.testing.assert_array_equal(
        found, task._replace(visible=later).histories(origins, 30, filling)
    )
    seen = task.visible.to_numpy()[271:301]
    np.testing.assert_array_equal(found[1][np.isfinite(seen)], seen[np.isfinite(seen)])
    assert np.isfinite(found).all()


def test_fillings_are_offered_where_something_is_missing(parts):
    assert make_task(parts).fillings == ("lines",)
    assert make_task(parts, missing=0.2).fillings == ("lines", "last", "season")
    assert make_task(parts, missing=0.2, period=1).fillings == ("lines", "last")


def test_the_last_value_is_carried_into_gaps(parts):
    task = make_task(parts)
    visible = task.target.copy()
    visible.iloc[[0, 5, 6], 0] = np.nan
    found = task._replace(visible=visible).filled(10, "last")[:, 0]
    rows = task.target.to_numpy()[:, 0]
    expected = np.concatenate([rows[[1]], rows[1:5], rows[[4, 4]], rows[7:10]])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("gaps", ["entries", "days"])
def test_the_share_asked_for_is_hidden(parts, gaps):
    hidden = parts.task.hide((3000, 3), 0.3, gaps, seed=0)
    assert hidden.mean() == pytest.approx(0.3, abs=0.01)
    assert (hidden.mean(axis=0) > 0.2).all()
    np.testing.assert_array_equal(hidden, parts.task.hide((3000, 3), 0.3, gaps, seed=0))
    assert not parts.task.hide((3000, 3), 0.0, gaps, seed=0).any()


def test_days_are_hidden_in_one_piece(parts):
    column = np.pad(parts.task.hide((3000, 2), 0.1, "days", seed=1)[:, 0].astype(int), 1)
    first, after = (np.flatnonzero(np.diff(column) == sign) for sign in (1, -1))
    assert (after - first).min() == parts.task.DAY
    assert len(set(first % parts.task.DAY)) > 5


def test_the_linear_map_takes_the_filling_with_the_least_validation_error(parts, monkeypatch):
    monkeypatch.setattr(parts.classical, "LINEAR_WINDOW", 24)
    task = make_task(parts, missing=0.3)
    origins, actual = task.validation_windows(parts.classical.VALIDATION_STEP)
    errors = {
        filling: np.nanmean(
            (parts.classical.fit_linear_map(task, filling).forecast(origins).mean - actual) ** 2
        )
        for filling in task.fillings
    }
    outcome = parts.classical.run_linear(task)
    assert outcome.details["filling"] == min(errors, key=errors.get)


class Constant(BaseEstimator):
    """Normal quantiles that know nothing of the data but their size."""

    fitted_ = True

    def __init__(self, std):
        self.std = std

    def fit(self, X):
        return self

    def _forecast_origins(self, panel, origins, horizon, quantiles=None):
        shape = (len(origins), panel.n_series, horizon, panel.n_features)
        if quantiles is None:
            return np.zeros(shape)
        return np.broadcast_to(self.std * norm.ppf(quantiles), (*shape, len(quantiles)))


def test_coverage_is_counted_by_quarter_with_and_without_conformal_bands(parts):
    rng = np.random.default_rng(0)
    target = pd.DataFrame(rng.standard_normal((3000, 2)), columns=["a", "b"])
    split = parts.task.Split(1000, 2000, 2900)
    task = parts.task.Task("made", target, target, split, 8, 40, 1, 32)
    rows = parts.coverage.measure_coverage(Constant(0.5), task, step=2)
    assert [row["level"] for row in rows] == [0.5, 0.8, 0.9, 0.95] * 2
    plain, conformal = rows[2], rows[6]
    expected = 0.589  # P(|x| < 1.645 / 2)
    assert plain["quarters"] == pytest.approx([expected] * 4, abs=0.04)
    assert conformal["quarters"] == pytest.approx([0.9] * 4, abs=0.03)
    assert "conformal" in parts.coverage.coverage_table(rows, markdown=True)


def test_coverage_is_of_complete_targets_of_the_test_part(parts):
    target = pd.DataFrame(np.zeros((400, 1)), columns=["a"])
    target.iloc[300:] = 5.0
    split = parts.task.Split(200, 300, 400)
    visible = target.copy()
    visible.iloc[310:380] = np.nan
    task = parts.task.Task("made", target, visible, split, 8, 40, 1, 32)
    rows = parts.coverage.measure_coverage(Constant(1.0), task, step=3)
    assert rows[0]["all"] == 0.0


def test_reports_are_named_by_what_is_hidden(parts):
    def describe(*arguments):
        return parts.main.describe(parts.main.parse(["--data", "ETTh1", *arguments]))

    stem, _, protocol = describe()
    assert stem == "forecasting_ETTh1_96"
    assert "gaps" not in protocol
    stem, title, protocol = describe("--missing", "0.3", "--gaps", "days")
    assert stem == "forecasting_ETTh1_96_missing30_days"
    assert "days" in title
    assert protocol["gaps"] == "days"
    assert describe("--missing", "0.3")[0].endswith("_missing30_entries")


def test_var_forecasts_are_those_of_statsmodels(parts):
    from statsmodels.tsa.api import VAR

    task = make_task(parts)
    fitted = parts.classical.fit_var(task, "lines")
    rows = task.target.to_numpy()
    result = VAR(rows[:200]).fit(maxlags=parts.classical.MOST_LAGS, ic="aic")
    found = fitted.forecast(np.array([310, 333]))
    for n, origin in enumerate([310, 333]):
        expected, lower, upper = result.forecast_interval(
            rows[origin - result.k_ar : origin], steps=4, alpha=0.1
        )
        np.testing.assert_allclose(found.mean[n], expected, atol=1e-10)
        np.testing.assert_allclose(found.std * 2 * 1.6448536269514722, upper - lower, rtol=1e-8)
    assert fitted.settings["lags"] == result.k_ar


@needs("statsforecast")
def test_ets_goes_on_from_the_rows_it_was_fitted_on(parts):
    task = make_task(parts)
    outcome = parts.classical.run_ets(task)
    assert outcome.scores.mae < 0.6
    assert 0.5 < outcome.scores.coverage <= 1
    assert outcome.details["models"][0].endswith("A)")  # the season of the first variable


@needs("neuralforecast")
@pytest.mark.slow
@pytest.mark.parametrize("key", ["dlinear", "deepar"])
def test_networks_are_scored_on_the_same_windows(parts, monkeypatch, key):
    recipe = parts.deep.RECIPES[key]
    settings = {**recipe.settings}
    if key == "deepar":
        settings["trajectory_samples"] = 20
    short = recipe._replace(
        window=24, settings=settings, steps=30, check_every=10, choices={}, batch=32
    )
    monkeypatch.setitem(parts.deep.RECIPES, key, short)
    outcome = parts.deep.run_deep(key, make_task(parts, missing=0.1), seed=0)
    assert outcome.scores.mse < 1.0
    assert 0.3 < outcome.scores.coverage <= 1
    assert outcome.details["filling_and_choices"]["filling"] in ("lines", "last", "season")


@needs("neuralforecast")
@pytest.mark.slow
def test_networks_see_the_rows_before_the_origin(parts):
    """A model of one linear map without training: its forecast is that map of the history."""
    task = make_task(parts)
    recipe = parts.deep.RECIPES["dlinear"]._replace(window=24, steps=1, check_every=1, choices={})
    parts.deep._be_quiet()
    trained = parts.deep._train(recipe, task, "squared", 0, {"filling": "lines"})
    found = parts.deep._forecast(trained, recipe, task, np.array([300, 350])).mean
    import torch

    for n, origin in enumerate([300, 350]):
        history = task.target.to_numpy()[origin - 24 : origin].T
        window = torch.tensor(history[:, :, None], dtype=torch.float32)
        with torch.no_grad():
            expected = trained.network({"insample_y": window})[..., 0].numpy().T
        np.testing.assert_allclose(found[n], expected, atol=1e-5)


def make_row(parts, key, mse):
    scores = ForecastScores(key, mse, 1.0, 1.0, 0.9, 2.0, 3)
    return parts.report.make_row(key, parts.task.Outcome(scores))


def write(parts, path, rows, protocol, changes=None):
    facts = {**parts.report.machine(), "protocol": protocol, "scores": rows}
    path.write_text(json.dumps(facts | (changes or {})))


def test_rows_of_an_earlier_run_are_kept(parts, tmp_path):
    path, protocol = tmp_path / "report.json", {"horizon": 4}
    assert parts.report.read_earlier(path, protocol) == ([], {})
    rows = [make_row(parts, "a", 1.0), make_row(parts, "b", 2.0)]
    versions = {**parts.report.machine()["versions"], "of-the-earlier-run": "1.0"}
    write(parts, path, rows, protocol, {"versions": versions})
    earlier = parts.report.read_earlier(path, protocol)
    assert earlier.versions == versions
    rows = parts.report.merge_rows(earlier, [make_row(parts, "b", 3.0)])
    assert [(row["key"], row["mse"]) for row in rows] == [("a", 1.0), ("b", 3.0)]


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"protocol": {"horizon": 5}}, "protocol"), ({"versions": {"numpy": "1.0"}}, "numpy")],
)
def test_rows_that_do_not_compare_are_refused(parts, tmp_path, changes, named):
    path = tmp_path / "report.json"
    write(parts, path, [make_row(parts, "a", 1.0)], {"horizon": 4}, changes)
    with pytest.raises(SystemExit, match=named):
        parts.report.read_earlier(path, {"horizon": 4})


def test_the_table_dates_rows_of_different_days(parts):
    rows = [make_row(parts, "a", 1.0), make_row(parts, "b", 2.0)]
    assert "date" not in parts.report.scores_table(rows, markdown=True)
    rows[0]["date"] = "2020-01-01"
    assert "2020-01-01" in parts.report.scores_table(rows, markdown=True)


def test_the_report_names_the_runs_it_is_from(parts):
    rows = [make_row(parts, "a", 1.0), make_row(parts, "b", 2.0)]
    assert parts.report.command_notes(rows) == ""
    rows[0]["command"] = "python benchmarks/forecasting.py --methods a"
    assert "- a: `python benchmarks/forecasting.py --methods a`" in parts.report.command_notes(rows)


def test_the_report_says_how_gaps_were_filled(parts):
    rows = [make_row(parts, key, 1.0) for key in ("a", "b", "c")]
    rows[0]["details"] = {"filling": "last"}
    rows[1]["details"] = {"filling_and_choices": {"filling": "lines"}}
    assert "last value: a; straight lines: b." in parts.report.filling_notes(rows)
    assert parts.report.filling_notes(rows[2:]) == ""


def test_the_report_says_which_peers_count(parts):
    row = make_row(parts, "dlinear", 0.4)
    row["details"] = {"published_mse": 0.375, "within_5_percent": False}
    assert "does not count" in parts.report.published_notes([row])
    assert parts.report.published_notes([make_row(parts, "a", 1.0)]) == ""


def test_a_peer_that_is_not_installed_is_skipped(parts, monkeypatch, capsys):
    monkeypatch.setattr(parts.main, "find_spec", lambda name: None)
    options = SimpleNamespace(methods=["naive", "dlinear"])
    rows = parts.main.run_methods(make_task(parts), options)
    assert [row["key"] for row in rows] == ["naive"]
    assert "dlinear is skipped: it needs neuralforecast" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="none of the methods"):
        parts.main.run_methods(make_task(parts), SimpleNamespace(methods=["dlinear"]))


def test_settings_are_collected_the_last_one_counts(parts):
    options = parts.main.parse(
        ["--data", "ETTh1", "--set", "a=1", "--set", "b=x", "--set", "a=(2,)"]
    )
    assert options.set == {"a": (2,), "b": "x"}
    assert parts.main.parse(["--data", "ETTh1"]).set == {}


@pytest.mark.parametrize("output", [["--output", "/some/where"], ["--output=/some/where"]])
def test_the_command_in_reports_names_no_folder(parts, monkeypatch, output):
    monkeypatch.setattr(sys, "argv", ["/a/forecasting.py", "--data", "ETTh1", *output, "--merge"])
    assert parts.common.command_line() == "python benchmarks/forecasting.py --data ETTh1 --merge"
