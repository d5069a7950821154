"""Calibrated spread: noise recovered, bands that hold what they say, masks, round trip."""

from __future__ import annotations

import numpy as np
import pytest

from tsvae._linker.spread import Spread, fit_spread

STEPS, FEATURES, DRAWS = 12, 2, 120
NOISE = np.stack([np.linspace(0.2, 0.6, STEPS), np.full(STEPS, 0.05)], axis=1)


def problem(n, *, code=0.3, noise=NOISE, heavy=False, seed=0):
    """Records about their predictions: what the code leaves open, and noise."""
    rng = np.random.default_rng(seed)
    shape = (STEPS, FEATURES)
    centre = rng.standard_normal((n, *shape))
    direction = np.ones(shape) * [1.0, 0.2]
    draws = centre + code * direction * rng.standard_normal((DRAWS, n, 1, 1))
    error = rng.standard_t(4, (n, *shape)) / 2**0.5 if heavy else rng.standard_normal((n, *shape))
    truth = centre + code * direction * rng.standard_normal((n, 1, 1)) + noise * error
    return truth, np.ones(truth.shape, dtype=bool), draws, centre


def covered(spread, values, mask, draws, centre, share=0.9, seed=1):
    """Share of values within the band that quantiles of draws make."""
    rng = np.random.default_rng(seed)
    drawn = spread.apply(draws, centre, rng.standard_normal(draws.shape), np.ones(len(centre)))
    tail = (1.0 - share) / 2
    # That method's quantiles of a sample leave out what they say, however few the draws.
    low, high = np.quantile(drawn, (tail, 1.0 - tail), axis=0, method="weibull")
    return ((low <= values) & (values <= high))[mask].mean()


def test_the_noise_is_recovered():
    spread = fit_spread(*problem(1000))
    np.testing.assert_allclose(spread.noise, NOISE, rtol=0.15)
    assert spread.factor == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("code", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("heavy", [False, True])
def test_bands_hold_90_percent_of_fresh_values(code, heavy):
    spread = fit_spread(*problem(600, code=code, heavy=heavy))
    fresh = problem(600, code=code, heavy=heavy, seed=5)
    assert covered(spread, *fresh) == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize("told", [0.5, 2.0])
def test_draws_that_are_too_narrow_or_too_wide_are_corrected(told):
    truth, mask, draws, centre = problem(600)
    spread = fit_spread(truth, mask, centre + told * (draws - centre), centre)
    truth, mask, draws, centre = problem(600, seed=5)
    wrong = centre + told * (draws - centre)
    assert covered(spread, truth, mask, wrong, centre) == pytest.approx(0.9, abs=0.02)


def test_scale_is_the_standard_deviation_of_draws_about_the_prediction():
    _, _, draws, centre = problem(30)
    spread = Spread(NOISE, 1.4)
    rng = np.random.default_rng(2)
    drawn = np.concatenate(
        [
            spread.apply(draws, centre, rng.standard_normal(draws.shape), np.ones(len(centre)))
            for _ in range(20)
        ]
    )
    expected = np.sqrt(((drawn - centre) ** 2).mean(axis=0))
    np.testing.assert_allclose(spread.scale(draws, centre), expected, rtol=0.1)
    ratio = spread.scale(draws, centre) / expected
    assert ratio.mean() == pytest.approx(1.0, abs=0.005)


def test_draws_by_hand():
    draws, centre = np.array([[[[3.0]]], [[[1.0]]]]), np.array([[[2.0]]])
    spread = Spread(np.array([[0.5]]), 2.0)
    found = spread.apply(draws, centre, np.array([[[[1.0]]], [[[-2.0]]]]), np.ones(len(centre)))
    np.testing.assert_allclose(found.ravel(), [2 + 2 * (1 + 0.5), 2 + 2 * (-1 - 1.0)])
    expected = 2.0 * np.sqrt(1.0 + 0.25)  # both draws lie 1 from the prediction
    assert spread.scale(draws, centre).item() == pytest.approx(expected)


def test_missing_values_do_not_count():
    truth, mask, draws, centre = problem(1000)
    mask = np.random.default_rng(3).random(mask.shape) < 0.6
    mask[:, 4, 0] = False  # a position never observed
    poisoned = np.where(mask, truth, 1e9)
    found, clean = (fit_spread(v, mask, draws, centre) for v in (poisoned, truth))
    np.testing.assert_array_equal(found.noise, clean.noise)
    assert found.factor == clean.factor
    others = [t for t in range(STEPS) if t != 4]
    np.testing.assert_allclose(found.noise[others], NOISE[others], rtol=0.3)
    fresh = problem(1000, seed=5)
    assert covered(found, fresh[0], mask, *fresh[2:]) == pytest.approx(0.9, abs=0.02)
    # Where nothing is known the noise is like that of the variable.
    assert NOISE[:, 0].min() < found.noise[4, 0] < NOISE[:, 0].max()


def test_few_records_borrow_from_the_whole_variable():
    spread = fit_spread(*problem(3, code=0.0))
    few, many = (s.noise[:, 1] for s in (spread, fit_spread(*problem(300, code=0.0))))
    assert few.std() / few.mean() < 0.25  # three residuals alone scatter by 0.4
    np.testing.assert_allclose(many, 0.05, rtol=0.2)


@pytest.mark.parametrize("kind", ["perfect", "nothing observed"])
def test_extremes_stay_positive_and_finite(kind):
    truth, mask, draws, centre = problem(10)
    if kind == "perfect":
        truth, draws = centre.copy(), np.broadcast_to(centre, draws.shape)
    else:
        mask = np.zeros_like(mask)
    spread = fit_spread(truth, mask, draws, centre)
    assert np.isfinite(spread.noise).all() and (spread.noise > 0.0).all()
    assert 0.0 < spread.factor < np.inf
    assert (spread.scale(draws, centre) > 0.0).all()


def test_arrays():
    spread = fit_spread(*problem(50))
    twin = Spread.from_arrays(spread.to_arrays())
    np.testing.assert_array_equal(twin.noise, spread.noise)
    assert twin.factor == spread.factor and isinstance(twin.factor, float)
