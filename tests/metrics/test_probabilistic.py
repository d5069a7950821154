"""Quantile, sample and interval scores against closed forms, sklearn and slow loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as skm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import norm

from tsvae.metrics import (
    crps_from_quantiles,
    crps_from_samples,
    energy_score,
    interval_coverage,
    interval_score,
    mean_absolute_error,
    pinball_loss,
)


def normal_crps(y, mean, scale):
    """Closed form of the CRPS of a normal (Gneiting and Raftery 2007, eq. 21 ff.)."""
    z = (y - mean) / scale
    return scale * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))


@pytest.fixture
def panel():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(2, 5, 3))
    y[rng.random(y.shape) < 0.3] = np.nan
    return y, rng.normal(size=(6, 2, 5, 3)), rng.random((2, 5))


# quantiles -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.05, 0.5, 0.8])
def test_pinball_against_sklearn(level):
    rng = np.random.default_rng(1)
    y, p, w = rng.normal(size=(8, 2)), rng.normal(size=(8, 2)), rng.random(8)
    ours = pinball_loss(y, p, quantiles=level, sample_weight=w, multioutput="raw_values")
    theirs = skm.mean_pinball_loss(y, p, alpha=level, sample_weight=w, multioutput="raw_values")
    assert_allclose(ours, theirs, rtol=1e-12)


def test_pinball_of_several_levels_is_their_mean(panel):
    y, samples, w = panel
    levels = [0.1, 0.4, 0.9]
    quantiles = np.moveaxis(np.quantile(samples, levels, axis=0), 0, -1)
    each = [
        pinball_loss(y, quantiles[..., k], quantiles=q, sample_weight=w)
        for k, q in enumerate(levels)
    ]
    assert pinball_loss(y, quantiles, quantiles=levels, sample_weight=w) == pytest.approx(
        np.mean(each)
    )
    both = crps_from_quantiles(y, quantiles, quantiles=levels, sample_weight=w)
    assert both == pytest.approx(2 * np.mean(each))


def test_crps_from_quantiles_tends_to_the_closed_form():
    levels = (np.arange(2000) + 0.5) / 2000
    y = np.array([-1.0, 0.3, 2.5])
    quantiles = np.tile(norm.ppf(levels, loc=0.5, scale=2.0), (3, 1))
    score = crps_from_quantiles(y, quantiles, quantiles=levels)
    assert score == pytest.approx(normal_crps(y, 0.5, 2.0).mean(), rel=1e-3)


def test_crps_of_the_median_alone_is_the_absolute_error(panel):
    y, samples, _ = panel
    p = samples[0]
    assert crps_from_quantiles(y, p, quantiles=0.5) == pytest.approx(mean_absolute_error(y, p))


def test_quantile_frames_carry_their_levels():
    index = pd.date_range("2024-01-01", periods=3)
    y = pd.DataFrame({"a": [0.0, 1, 2], "b": [3.0, 4, 5]}, index=index)
    columns = pd.MultiIndex.from_product([["b", "a"], [0.1, 0.9]], names=["variable", "quantile"])
    values = np.random.default_rng(2).normal(size=(3, 4))
    p = pd.DataFrame(values, index=index[::-1], columns=columns)
    array = values[::-1].reshape(3, 2, 2)[:, ::-1]
    expected = pinball_loss(y.to_numpy(), array, quantiles=[0.1, 0.9], multioutput="raw_values")
    assert_allclose(pinball_loss(y, p, multioutput="raw_values"), expected)
    assert_allclose(
        pinball_loss(y, p, quantiles=0.9), pinball_loss(y, array[..., 1], quantiles=0.9)
    )
    assert_allclose(
        pinball_loss(y["a"], p[["a"]]), pinball_loss(y["a"], array[:, 0], quantiles=[0.1, 0.9])
    )
    with pytest.raises(ValueError, match="no column for the quantile"):
        pinball_loss(y, p, quantiles=[0.5])


@pytest.mark.parametrize("metric", [pinball_loss, crps_from_quantiles])
@pytest.mark.parametrize(
    ("p", "options", "match"),
    [
        ([[1.0, 2.0]], {"quantiles": [0.5, 1.0]}, "strictly between 0 and 1; got 1.0"),
        ([[1.0, 2.0]], {"quantiles": [0.0, 0.5]}, "strictly between 0 and 1; got 0.0"),
        ([[1.0, 2.0]], {"quantiles": []}, "non-empty"),
        ([[1.0, 2.0]], {}, "quantiles is needed"),
        ([[1.0, 2.0]], {"quantiles": [0.1, 0.5, 0.9]}, r"n_quantiles,\) = \(1, 3\)"),
        ([[1.0, np.nan]], {"quantiles": [0.1, 0.9]}, "not finite"),
    ],
)
def test_quantile_errors(metric, p, options, match):
    with pytest.raises(ValueError, match=match):
        metric([1.0], p, **options)


# samples -------------------------------------------------------------------------------------


def loop_crps(y, draws, fair):
    n = len(draws)
    spread = sum(abs(a - b) for a in draws for b in draws)
    return np.mean([abs(a - y) for a in draws]) - spread / (2 * n * (n - 1 if fair else n))


@pytest.mark.parametrize("estimator", ["fair", "empirical"])
def test_crps_from_samples_against_loops(panel, estimator):
    y, samples, w = panel
    expected = []
    for f in range(3):
        cells = [(b, t) for b in range(2) for t in range(5) if not np.isnan(y[b, t, f])]
        scores = [loop_crps(y[b, t, f], samples[:, b, t, f], estimator == "fair") for b, t in cells]
        expected.append(np.average(scores, weights=[w[c] for c in cells]))
    options = {"estimator": estimator, "sample_weight": w, "multioutput": "raw_values"}
    assert_allclose(crps_from_samples(y, samples, **options), expected, rtol=1e-10)
    mask = ~np.isnan(y)
    hidden = crps_from_samples(np.nan_to_num(y), samples, mask=mask, **options)
    assert_allclose(hidden, expected, rtol=1e-10)


def test_crps_from_samples_tends_to_the_closed_form():
    draws = np.random.default_rng(3).normal(1.0, 2.0, size=(200_000, 1))
    for y in (-2.0, 1.0, 4.0):
        score = crps_from_samples([y], draws)
        assert score == pytest.approx(normal_crps(y, 1.0, 2.0), abs=0.02)


def test_fair_crps_is_unbiased_for_few_samples():
    draws = np.random.default_rng(4).normal(size=(3, 40_000))
    y = np.zeros(40_000)
    assert crps_from_samples(y, draws) == pytest.approx(normal_crps(0.0, 0.0, 1.0), abs=0.01)
    empirical = crps_from_samples(y, draws, estimator="empirical")
    spread = 2 / np.sqrt(np.pi)  # E|X - X'| of a standard normal
    assert empirical == pytest.approx(normal_crps(0.0, 0.0, 1.0) + spread / 6, abs=0.01)


def test_crps_keeps_its_digits_at_large_offsets():
    draws = np.random.default_rng(5).normal(size=(50, 4))
    y = np.zeros(4)
    exact = crps_from_samples(y, draws)
    assert crps_from_samples(y + 2.0**30, draws + 2.0**30) == pytest.approx(exact, rel=1e-5)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=8),
    st.floats(-100, 100),
    st.sampled_from(["fair", "empirical"]),
)
def test_energy_score_in_one_dimension_is_the_crps(draws, y, estimator):
    samples = np.array(draws)[:, None]
    crps = crps_from_samples([y], samples, estimator=estimator)
    energy = energy_score([y], samples, estimator=estimator)
    assert energy == pytest.approx(crps, abs=1e-9)


def loop_energy(y, draws, fair):
    seen = ~np.isnan(y)
    y, draws, n = y[seen], [d[seen] for d in draws], len(draws)
    spread = sum(np.linalg.norm(a - b) for a in draws for b in draws)
    return np.mean([np.linalg.norm(d - y) for d in draws]) - spread / (2 * n * (n - fair))


@pytest.mark.parametrize("estimator", ["fair", "empirical"])
def test_energy_score_against_loops(panel, estimator):
    y, samples, w = panel
    fair = estimator == "fair"
    rows = [(b, t) for b in range(2) for t in range(5) if not np.isnan(y[b, t]).all()]
    scores = [loop_energy(y[row], samples[(slice(None), *row)], fair) for row in rows]
    expected = np.average(scores, weights=[w[row] for row in rows])
    assert energy_score(y, samples, estimator=estimator, sample_weight=w) == pytest.approx(expected)
    paths = [loop_energy(y[b].ravel(), samples[:, b].reshape(6, -1), fair) for b in range(2)]
    joint = energy_score(y, samples, estimator=estimator, axis=(-2, -1))
    assert joint == pytest.approx(np.mean(paths))


def test_energy_score_sees_dependence_that_the_crps_does_not():
    rng = np.random.default_rng(6)
    y = np.repeat(rng.normal(size=(500, 1)), 2, axis=1)  # two equal variables
    same = np.repeat(rng.normal(size=(60, 500, 1)), 2, axis=2)
    apart = np.stack([same[..., 0], rng.permutation(same[..., 0])], axis=-1)
    assert crps_from_samples(y, same) == pytest.approx(crps_from_samples(y, apart))
    assert energy_score(y, same) < energy_score(y, apart) - 0.01


def test_sample_frames_are_matched_by_label():
    index = pd.date_range("2024-01-01", periods=3, name="time")
    y = pd.DataFrame({"a": [0.0, 1, 2], "b": [3.0, 4, 5]}, index=index)
    draws = np.random.default_rng(7).normal(size=(4, 3, 2))
    rows = pd.MultiIndex.from_product([range(4), index], names=["sample", "time"])
    frame = pd.DataFrame(draws.reshape(-1, 2), index=rows, columns=["a", "b"])
    shuffled = frame.sample(frac=1.0, random_state=0)[["b", "a"]]
    assert crps_from_samples(y, shuffled) == pytest.approx(crps_from_samples(y.to_numpy(), draws))
    with pytest.raises(ValueError, match="needs row levels"):
        crps_from_samples(y, frame.droplevel("sample"))


def test_xarray_samples_by_dims():
    xr = pytest.importorskip("xarray")
    rng = np.random.default_rng(8)
    y = xr.DataArray(rng.normal(size=(4, 2)), dims=("time", "v"))
    draws = xr.DataArray(rng.normal(size=(5, 4, 2)), dims=("sample", "time", "v"))
    expected = crps_from_samples(y.to_numpy(), draws.to_numpy())
    assert crps_from_samples(y, draws.transpose("v", "time", "sample")) == expected
    data = y.to_dataset("v").rename({0: "a", 1: "b"})
    assert crps_from_samples(data, draws.to_dataset("v").rename({0: "a", 1: "b"})) == expected
    quantiles = xr.DataArray(rng.normal(size=(4, 2, 3)), dims=("time", "v", "quantile"))
    levels = [0.1, 0.5, 0.9]
    assert pinball_loss(
        y, quantiles.transpose("quantile", "v", "time"), quantiles=levels
    ) == pinball_loss(y.to_numpy(), quantiles.to_numpy(), quantiles=levels)


@pytest.mark.parametrize("metric", [crps_from_samples, energy_score])
@pytest.mark.parametrize(
    ("samples", "options", "match"),
    [
        (np.ones((1, 2, 2)), {}, "needs at least 2 samples; got 1"),
        (np.ones((3, 2)), {}, "samples must have shape"),
        (np.ones((3, 3, 2)), {}, "samples must have shape"),
        (np.ones((3, 2, 2)), {"estimator": "biased"}, "estimator must be one of"),
        (np.full((3, 2, 2), np.nan), {}, "samples is not finite"),
    ],
)
def test_sample_errors(metric, samples, options, match):
    with pytest.raises(ValueError, match=match):
        metric(np.ones((2, 2)), samples, **options)


def test_energy_score_axis_error():
    with pytest.raises(ValueError, match="axis must name axes"):
        energy_score(np.ones((2, 2)), np.ones((3, 2, 2)), axis=5)


# intervals -----------------------------------------------------------------------------------


def test_interval_metrics_against_loops(panel):
    y, samples, w = panel
    lower, upper = np.quantile(samples, [0.1, 0.9], axis=0)
    scores, inside, weights = [], [], []
    for cell in np.ndindex(y.shape):
        if np.isnan(y[cell]) or cell[2] != 1:
            continue
        low, high, value = lower[cell], upper[cell], y[cell]
        penalty = max(low - value, 0) + max(value - high, 0)
        scores.append(high - low + 2 / 0.2 * penalty)
        inside.append(low <= value <= high)
        weights.append(w[cell[:2]])
    options = {"coverage": 0.8, "sample_weight": w, "multioutput": "raw_values"}
    pair, stacked = (lower, upper), np.stack([lower, upper], axis=-1)
    for given_as in (pair, stacked, stacked[..., None, :]):
        score = interval_score(y, given_as, **options)
        assert score[1] == pytest.approx(np.average(scores, weights=weights))
        covered = interval_coverage(y, given_as, sample_weight=w, multioutput="raw_values")
        assert covered[1] == pytest.approx(np.average(inside, weights=weights))


def test_interval_score_is_least_for_the_true_quantiles():
    y = norm.ppf((np.arange(2000) + 0.5) / 2000)
    best = norm.ppf(0.9)

    def score(half):
        return interval_score(y, (np.full(2000, -half), np.full(2000, half)), coverage=0.8)

    assert score(best) < min(score(best * 0.9), score(best * 1.1))
    assert interval_coverage(y, (np.full(2000, -best), np.full(2000, best))) == pytest.approx(0.8)


def test_interval_frames():
    index = pd.date_range("2024-01-01", periods=2)
    y = pd.DataFrame({"a": [0.0, 5.0], "b": [1.0, 1.0]}, index=index)
    columns = pd.MultiIndex.from_product([["a", "b"], [0.5, 0.9], ["lower", "upper"]])
    frame = pd.DataFrame([[-1.0, 1, -2, 2, 0, 1, 0, 4]] * 2, index=index, columns=columns)
    raw = interval_coverage(y, frame[["b", "a"]], coverage=0.9, multioutput="raw_values")
    assert_allclose(raw, [0.5, 1.0])
    narrow = interval_score(y, frame, coverage=0.5, multioutput="raw_values")
    assert_allclose(narrow, [(2 + 2 + 4 * 4) / 2, 1.0])
    one = frame.xs(0.9, axis=1, level=1, drop_level=False)
    assert interval_score(y, one) == interval_score(y, frame, coverage=0.9)
    with pytest.raises(ValueError, match=r"holds the coverages \[0.5, 0.9\]"):
        interval_coverage(y, frame)
    with pytest.raises(ValueError, match="no coverage"):
        interval_coverage(y, frame, coverage=0.8)


@pytest.mark.parametrize(
    ("interval", "coverage", "match"),
    [
        (([2.0], [1.0]), 0.9, "lower bound above its upper bound at"),
        (([1.0], [2.0]), 1.0, "strictly between"),
        (([1.0], [2.0]), None, "coverage is needed"),
        (([1.0], [2.0, 3.0]), 0.9, "different shapes"),
        ([[1.0, 2.0, 3.0]], 0.9, "must have shape"),
        (([np.nan], [2.0]), 0.9, "not finite"),
    ],
)
def test_interval_errors(interval, coverage, match):
    with pytest.raises(ValueError, match=match):
        interval_score([1.0], interval, coverage=coverage)
