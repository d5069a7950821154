"""Range of the training records: distances and misfits by hand, strangers found, round trip."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from tsvae._linker.ranges import SideRange, fit_range

N, STEPS, D = 400, 10, 3
MIX = np.array([[1.0, 0.0, 0.0], [0.8, 0.3, 0.0], [0.0, 0.1, 5.0]])
NOISE = np.linspace(0.1, 0.5, STEPS)[:, None]
LOADINGS = np.random.default_rng(9).standard_normal((D, STEPS, 1))


def records(n=N, seed=0, missing=0.2, shift=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    codes = scale * rng.standard_normal((n, D)) @ MIX.T + [1.0, -2.0, 0.5] + shift
    own = np.einsum("nd,dtf->ntf", codes, LOADINGS)
    values = own + NOISE * rng.standard_normal(own.shape)
    mask = rng.random(own.shape) >= missing
    return np.where(mask, values, 0.0), mask, own, np.stack([codes, np.zeros_like(codes)], axis=1)


def measures(values, mask, own, posterior, known_codes, noise):
    """Mahalanobis distances by scipy, and misfits record by record."""
    location = known_codes.mean(axis=0)
    inverse = np.linalg.inv(np.cov(known_codes.T, bias=True))
    distance = [mahalanobis(code, location, inverse) for code in posterior[:, 0]]
    misfit = [
        np.sqrt((((v - o) / noise)[m] ** 2).mean()) if m.any() else 0.0
        for v, o, m in zip(values, own, mask, strict=True)
    ]
    return np.array(distance), np.array(misfit)


def test_bounds_are_one_and_a_half_times_the_99_percent_quantiles():
    values, mask, own, posterior = records()
    found = fit_range(values, mask, own, posterior)
    residual = np.where(mask, values - own, np.nan)
    np.testing.assert_allclose(found.noise, np.sqrt(np.nanmean(residual**2, axis=0)))
    distance, misfit = measures(values, mask, own, posterior, posterior[:, 0], found.noise)
    assert found.farthest == pytest.approx(1.5 * np.quantile(distance, 0.99))
    assert found.worst == pytest.approx(1.5 * np.quantile(misfit, 0.99))
    new = records(seed=1, scale=1.6)
    distance, misfit = measures(*new, posterior[:, 0], found.noise)
    expected = (distance > found.farthest) | (misfit > found.worst)
    np.testing.assert_array_equal(found.outside(*new), expected)
    assert 0 < expected.sum() < N


def test_records_of_the_same_kind_are_within_and_strangers_are_not():
    found = fit_range(*records())
    assert found.outside(*records()).mean() < 0.01
    assert found.outside(*records(seed=1)).mean() < 0.01
    assert found.outside(*records(seed=1, shift=[0.0, 3.0, 0.0])).mean() > 0.95
    values, mask, own, posterior = records(seed=1)
    assert found.outside(values + 3.0 * NOISE, mask, own, posterior).mean() > 0.95


def test_codes_are_far_by_their_own_spread():
    found = fit_range(*records())
    values, mask, own, posterior = records(seed=1, n=2)
    steps = np.array([[0.0, 0.0, 8.0], [8.0, 0.0, 0.0]])  # where the spreads are 5 and 1
    posterior[:, 0] = found.location + steps
    assert found.outside(values, mask, own, posterior).tolist() == [False, True]


def test_missing_values_do_not_count():
    values, mask, own, posterior = records()
    poisoned = np.where(mask, values, 1e6)
    one, two = (fit_range(v, mask, own, posterior) for v in (values, poisoned))
    np.testing.assert_array_equal(one.noise, two.noise)
    assert one.worst == two.worst
    np.testing.assert_array_equal(
        one.outside(values, mask, own, posterior), one.outside(poisoned, mask, own, posterior)
    )
    empty = np.zeros_like(mask)
    assert np.isfinite(fit_range(values, empty, own, posterior).worst)
    within = posterior.copy()
    within[:, 0] = one.location
    assert not one.outside(poisoned, empty, own, within).any()


@pytest.mark.parametrize("constant", ["one entry", "all codes", "residuals"])
def test_what_does_not_vary_makes_no_false_alarm(constant):
    values, mask, own, posterior = records()
    if constant == "one entry":
        posterior[:, 0, 1] = 4.0
    elif constant == "all codes":
        posterior[:, 0] = 4.0
    else:
        values = np.where(mask, own, 0.0)
    found = fit_range(values, mask, own, posterior)
    assert all(np.isfinite(part).all() for part in found.to_arrays().values())
    rounded = posterior * (1.0 + 1e-9)
    assert found.outside(values, mask, own, rounded).mean() <= 0.01
    if constant != "residuals":  # and yet a code that moves where none did is a stranger
        moved = posterior.copy()
        moved[:, 0, 1] += 1.0
        assert found.outside(values, mask, own, moved).all()


def test_one_record():
    values, mask, own, posterior = records(n=1)
    found = fit_range(values, mask, own, posterior)
    assert not found.outside(values, mask, own, posterior).any()
    assert found.outside(*records(n=0)).shape == (0,)


def test_arrays():
    data = records()
    found = fit_range(*data)
    twin = SideRange.from_arrays(found.to_arrays())
    assert twin.farthest == found.farthest and twin.worst == found.worst
    new = records(seed=1, scale=1.6)
    np.testing.assert_array_equal(twin.outside(*new), found.outside(*new))
