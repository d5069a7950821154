"""The spread of forecasts: what is fitted to training errors, and how it is applied."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr

from tsvae import SVAEForecaster
from tsvae.estimation.calibration import Errors, _fit_shape, _step_levels, _widened_tails
from tsvae.estimation.spread import KNOTS, ForecastSpread, step_groups
from tsvae.models.predictive import NormalPredictive, SamplePredictive

torch = pytest.importorskip("torch")


def simulated(draw, n=800, horizon=12, features=3, windows=100.0, seed=0):
    noise = draw(np.random.default_rng(seed), (n, horizon, features))
    past = np.zeros((n, 1, features))
    seen, no_past = np.ones(noise.shape, dtype=bool), np.zeros(past.shape, dtype=bool)
    return Errors(noise, np.ones(noise.shape), seen, past, no_past, 10 * windows, windows)


def shape_of(errors):
    factor = np.ones(errors.standardised.shape)
    return _fit_shape(ForecastSpread.plain(3, 12), errors, factor, step_groups(12), np.zeros(12))


def normal(rng, shape):
    return rng.normal(size=shape)


def student(rng, shape):
    return rng.standard_t(6, size=shape) / np.sqrt(6 / 4)


def test_coverage_of_students_noise():
    errors = simulated(student)
    spread = shape_of(errors)
    fresh = student(np.random.default_rng(1), (4000, 12, 3))
    table = spread.at_steps(12).table
    for low, coverage in ((0, 0.95), (1, 0.9), (2, 0.8), (4, 0.4)):
        inside = (fresh >= table[..., low]) & (fresh <= table[..., -1 - low])
        np.testing.assert_allclose(inside.mean((0, 2)), coverage, atol=0.05)


def test_shapes_are_shrunk_to_normal_ones_by_few_windows():
    def tails(independent):
        errors = simulated(student)._replace(independent=independent)
        return shape_of(errors).table - KNOTS

    few, many = tails(1.0), tails(1000.0)
    assert np.abs(few).max() < 0.2 * np.abs(many).max()


def unlike(rng, shape):
    """Errors of variance 1: even, normal, and mostly small ones with rare jumps."""
    even = rng.uniform(-(3**0.5), 3**0.5, size=shape[:-1])
    jumps = np.where(rng.random(shape[:-1]) < 0.02, 5.0, 0.5) * rng.normal(size=shape[:-1])
    jumps /= np.sqrt(0.02 * 25.0 + 0.98 * 0.25)
    return np.stack((even, rng.normal(size=shape[:-1]), jumps), axis=-1)


def test_variables_have_shapes_of_their_own_where_data_tell():
    def middle_halves(independent):
        errors = simulated(unlike, n=4000)._replace(independent=independent)
        spread = shape_of(errors)
        fresh = unlike(np.random.default_rng(1), (4000, 12, 3)) * np.exp(-spread.at_steps(12)[0])
        # The bound of 50 %, between those of 40 and 60 %.
        bound = 0.5 * (spread.at_steps(12).table[..., 8] + spread.at_steps(12).table[..., 9])
        return (np.abs(fresh) <= bound).mean((0, 1)), bound.mean(0)

    shares, bounds = middle_halves(1e5)
    np.testing.assert_allclose(shares[:2], 0.5, atol=0.05)
    assert 0.5 < shares[2] < 0.65  # bands are no narrower than the tails ask for
    few, alike = middle_halves(0.1)
    assert few[2] > 0.7 and shares[2] < few[2] - 0.08
    assert np.ptp(alike) < 0.02 < 0.2 < np.ptp(bounds)


def test_tails_of_heavy_errors_are_those_of_normal_ones_and_the_middle_is_kept():
    table = np.stack((0.8 * KNOTS, 1.2 * KNOTS))
    found = _widened_tails(table)
    np.testing.assert_array_equal(found[1], table[1])
    np.testing.assert_allclose(found[0, [1, -2]], KNOTS[[1, -2]])
    np.testing.assert_allclose(found[0, [0, -1]], KNOTS[[0, -1]])
    shares = found[0, 7:] / KNOTS[7:]
    assert 0.8 < shares[0] < 0.85 and (np.diff(shares) >= -1e-12).all()


def test_variables_differ_and_the_level_stays():
    errors = simulated(normal)
    ratio = np.array([0.5, 1.0, 2.0]) * 0.7  # all too small, as on rows that were learned from
    errors = errors._replace(standardised=errors.standardised * ratio)
    spread = shape_of(errors)
    weight = errors.independent / (errors.independent + 20.0)
    want = np.tile(weight * np.log([0.5, 1.0, 2.0]), (len(spread.steps), 1))
    np.testing.assert_allclose(spread.log_level, want, atol=0.06)
    np.testing.assert_allclose(spread.table, np.broadcast_to(KNOTS, spread.table.shape), atol=0.15)


def test_the_scale_follows_the_window_within_bounds():
    spread = replace(ForecastSpread.plain(2), gamma=0.5, centre=np.array([0.0, 1.0]))
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=(3, 40, 2)), np.ones((3, 40, 2), dtype=bool)
    values = values / values.std(1, keepdims=True)
    values[:, :, 0] *= np.array([[2.0], [1e-30], [1e30]])
    values[:, :, 1] *= np.exp(np.array([[1.0], [1.0], [3.0]]))
    mask[1, :, 1] = False
    found = spread.factor(spread.features(values, mask, 4))
    want = [[np.sqrt(2.0), 1.0], [0.25, 1.0], [4.0, np.exp(1.0)]]
    np.testing.assert_allclose(found, np.repeat(np.array(want)[:, None], 4, axis=1))


def test_the_scale_follows_the_phases_of_a_season():
    spread = replace(
        ForecastSpread.plain(1), delta=1.0, cycle=4, phase_centre=np.array([np.log(2.0)])
    )
    size = np.array([1.0, 2.0, 4.0, np.nan])
    values = np.cumsum(np.tile(size, (5, 1)), axis=0).reshape(1, 20, 1)
    mask = np.isfinite(values)
    found = spread.factor(spread.features(np.nan_to_num(values), mask, 6))
    np.testing.assert_allclose(found.ravel(), [0.5, 1.0, 2.0, 1.0, 0.5, 1.0])


@pytest.fixture
def bent():
    rng = np.random.default_rng(0)
    plain = ForecastSpread.plain(2, 6)
    table = np.sort(plain.table * 1.3 + 0.2 * rng.normal(size=plain.table.shape), axis=-1)
    level = 0.2 * rng.normal(size=plain.log_level.shape)
    phases = {"delta": 0.4, "cycle": 3, "phase_centre": np.log([1.4, 4.2])}
    return replace(plain, gamma=0.6, log_level=level, table=table, **phases)


def test_margins_of_samples_are_the_quantiles_and_ranks_stay(bent):
    rng = np.random.default_rng(1)
    mean, scale = torch.randn(2, 6, 2), torch.rand(2, 6, 2) + 0.5
    joint = torch.as_tensor(rng.normal(size=(4000, 2, 6, 2)).cumsum(2), dtype=torch.float32)
    joint = joint / torch.arange(1.0, 7.0).sqrt()[:, None]
    values, mask = rng.normal(size=(2, 30, 2)) * [[[1.0, 3.0]]], np.ones((2, 30, 2), dtype=bool)
    margins = NormalPredictive(mean, scale)
    found = bent.shape_samples(mean + scale * joint, margins, values, mask)
    assert (found.gather(0, joint.argsort(dim=0)).diff(dim=0) > -1e-4).all()
    levels = torch.tensor([0.05, 0.3, 0.5, 0.9])
    wanted = bent.shape(margins, values, mask).quantiles(levels)
    got = torch.quantile(found, levels, dim=0).movedim(0, -1)
    np.testing.assert_allclose((got - wanted) / scale[..., None], 0.0, atol=0.35)
    assert (got - wanted).abs().mean() < 0.06


def test_drawn_margins_are_scaled_about_the_median():
    plain = ForecastSpread.plain(1, 4)
    wide = plain.widened(plain.steps, np.full((len(plain.steps), len(KNOTS)), 1.5))
    samples = torch.randn(101, 2, 4, 1)
    part = wide.shape(SamplePredictive(samples), np.zeros((2, 3, 1)), np.ones((2, 3, 1), bool))
    median = samples.median(0).values
    np.testing.assert_allclose(part.samples, median + 1.5 * (samples - median), atol=1e-4)


def test_steps_between_groups_are_interpolated_and_later_ones_like_the_last(bent):
    found = bent.at_steps(20)
    for part, known in zip(found, (bent.log_level, bent.table), strict=True):
        np.testing.assert_allclose(part[0], known[0])
        np.testing.assert_allclose(part[10:], np.broadcast_to(known[-1], part[10:].shape))
        low, high = bent.steps[3], bent.steps[4]
        share = np.log(5.0 / low) / np.log(high / low)
        np.testing.assert_allclose(part[4], known[3] + share * (known[4] - known[3]))


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    size = np.exp(np.sin(np.arange(900) / 70.0))
    columns = {"a": size * rng.normal(size=900), "b": np.ones(900), "c": rng.normal(size=900)}
    return pd.DataFrame(columns, index=pd.date_range("2024-01-01", periods=900, freq="h"))


@pytest.fixture(scope="module")
def fitted(frame):
    settings = {"context_length": 48, "latent_dim": 8, "random_state": 0}
    return SVAEForecaster(6, **settings).fit(frame)


def test_a_fit_survives_a_file(fitted, frame, tmp_path):
    assert not fitted._fit.spread.is_plain
    fitted.save(tmp_path / "model")
    loaded = SVAEForecaster.load(tmp_path / "model")
    want, got = (f.predict_interval(coverage=0.9) for f in (fitted, loaded))
    pd.testing.assert_frame_equal(got, want)


def test_wild_windows_have_wider_forecasts_and_constant_ones_finite(fitted, frame):
    def width(history):
        interval = fitted.predict_interval(history, coverage=0.9)
        assert np.isfinite(interval).all(axis=None)
        return np.ptp(interval["a"].to_numpy(), axis=1).mean()

    past = frame.iloc[-48:]
    calm, wild, flat = (width(past.assign(a=past["a"] * k)) for k in (0.3, 3.0, 0.0))
    assert flat <= calm < wild
    assert np.ptp(fitted.predict_interval(coverage=0.9)["b"].to_numpy()) < 0.01


def test_samples_of_a_forecaster_have_its_quantiles(fitted):
    paths = fitted.sample(n_samples=2000, random_state=0)["a"].unstack(0).to_numpy()
    wanted = fitted.predict_quantiles(quantiles=[0.1, 0.5, 0.9])["a"].to_numpy()
    got = np.quantile(paths, [0.1, 0.5, 0.9], axis=1).T
    spread = wanted[:, [2]] - wanted[:, [0]]
    np.testing.assert_allclose((got - wanted) / spread, 0.0, atol=0.06)


def test_normal_errors_leave_normal_margins():
    errors = simulated(normal, n=4000)
    spread = shape_of(errors)
    normal_levels = np.broadcast_to(ndtr(KNOTS), spread.table.shape)
    np.testing.assert_allclose(ndtr(spread.table), normal_levels, atol=0.03)


def test_a_season_of_restless_hours_is_found():
    """Noise that is loud at one half of the day makes wide bands there."""
    rng = np.random.default_rng(1)
    loud = np.where(np.arange(2400) % 24 < 12, 1.0, 0.1)
    index = pd.date_range("2024-01-01", periods=2400, freq="h")
    frame = pd.DataFrame({"a": loud * rng.normal(size=2400)}, index=index)
    forecaster = SVAEForecaster(24, context_length=120, latent_dim=8, random_state=0).fit(frame)
    spread = forecaster._fit.spread
    assert spread.cycle == 24 and spread.delta > 0.5
    band = forecaster.predict_interval(coverage=0.9).to_numpy()
    width = band[:, -1] - band[:, 0]
    assert width[:12].mean() > 3.0 * width[12:].mean()


def test_levels_of_steps_are_those_of_the_errors_to_expect():
    scale = np.tile([[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]], (50, 1, 1))
    scale[::7] *= 30.0  # some windows have gaps
    found = _step_levels(scale, np.array([4.0, 4.0, 0.0]))
    np.testing.assert_allclose(found, np.log([2.0, 1.0, 0.5]))
    errors = simulated(normal)
    factor = np.ones(errors.standardised.shape)
    plain = ForecastSpread.plain(3, 12)
    before = _fit_shape(plain, errors, factor, step_groups(12), np.zeros(12))
    after = _fit_shape(plain, errors, factor, step_groups(12), np.log(np.full(12, 1.5)))
    np.testing.assert_allclose(after.log_level, before.log_level + np.log(1.5))
    np.testing.assert_array_equal(after.table, before.table)


@pytest.mark.parametrize("seed", [0, 2])
def test_intervals_of_an_autoregression_grow_as_its_errors_do(seed):
    noise = np.random.default_rng(seed).normal(size=800)
    series = np.zeros(800)
    for step in range(1, 800):
        series[step] = 0.8 * series[step - 1] + noise[step]
    rows = pd.DataFrame({"a": series[100:]}, index=pd.date_range("2000", periods=700))
    found = SVAEForecaster(horizon=10, random_state=0).fit(rows).predict_interval()
    width = (found.iloc[:, 1] - found.iloc[:, 0]).to_numpy() / 2
    exact = 1.645 * np.sqrt(np.cumsum(0.64 ** np.arange(10)))
    np.testing.assert_allclose(width, exact, rtol=0.2)
    assert width[-1] / width[0] > 1.35  # exactly 1.66
