"""How errors follow features of windows: simulated, and against a general optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from tsvae.estimation.following import fit_exponents
from tsvae.estimation.spread import step_groups

N, H, F = 800, 12, 3
GROUPS = step_groups(H)


def normal(rng, shape):
    return rng.normal(size=shape)


def student(rng, shape):
    return rng.standard_t(6, size=shape) / np.sqrt(6 / 4)


def simulated(draw, gamma, delta, seed=0):
    rng = np.random.default_rng(seed)
    size = np.broadcast_to(rng.normal(0.0, 0.6, size=(N, 1, F)), (N, H, F))
    features = np.stack((size, rng.normal(0.0, 0.5, size=(N, H, F))), axis=-1)
    errors = draw(rng, (N, H, F)) * np.exp(features @ np.array([gamma, delta]))
    seen = rng.random(errors.shape) < 0.9
    return np.where(seen, errors, 0.0), seen, features


@pytest.mark.parametrize("draw", [normal, student])
@pytest.mark.parametrize(("gamma", "delta"), [(0.3, 0.8), (0.8, 0.0), (0.0, 0.4)])
def test_exponents_are_recovered(draw, gamma, delta):
    found = fit_exponents(*simulated(draw, gamma, delta), GROUPS)
    np.testing.assert_allclose(found, [gamma, delta], atol=0.06)


def test_exponents_are_the_most_likely_ones():
    errors, seen, features = simulated(student, 0.4, 0.7)

    def loss(theta):
        total, scaled = (
            (seen * (features @ theta)).sum(),
            np.abs(errors) * np.exp(-features @ theta),
        )
        for group in GROUPS:
            count = seen[:, group].sum((0, 1))
            total += (count * np.log(scaled[:, group].sum((0, 1)))).sum()
        return total / errors.size

    want = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6}).x
    found = fit_exponents(errors, seen, features, GROUPS)
    np.testing.assert_allclose(found, want, rtol=0.01)  # shrunk a little


def test_errors_that_run_the_other_way_are_not_followed():
    errors, seen, features = simulated(normal, -0.5, 0.5)
    found = fit_exponents(errors, seen, features, GROUPS)
    assert found[0] == 0.0
    assert found[1] == pytest.approx(0.5, abs=0.1)


def test_nothing_to_follow():
    errors, seen, features = simulated(normal, 0.5, 0.5)
    np.testing.assert_array_equal(fit_exponents(errors, seen, 0.0 * features, GROUPS), 0.0)
    few = (part[:5] for part in (errors, seen, features))
    np.testing.assert_array_equal(fit_exponents(*few, GROUPS), 0.0)
    assert np.isfinite(fit_exponents(0.0 * errors, seen, features, GROUPS)).all()
