"""Frechet distance against closed forms and scipy's matrix root; telling sets apart."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats
from scipy.linalg import sqrtm
from sklearn.linear_model import LogisticRegression

from tsvae.metrics import discriminative_score, frechet_distance, series_statistics


def with_moments(mean, covariance, n, seed):
    """Sample of exactly this mean and covariance (n, M)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, len(mean)))
    z -= z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
    return mean + z @ np.linalg.cholesky(covariance).T


def random_covariance(rng, n):
    root = rng.normal(size=(n, n))
    return root @ root.T + 0.1 * np.eye(n)


@pytest.mark.parametrize("seed", range(3))
def test_frechet_of_known_gaussians(seed):
    rng = np.random.default_rng(seed)
    means, covariances = rng.normal(size=(2, 5)), [random_covariance(rng, 5) for _ in range(2)]
    samples = [
        with_moments(m, c, n, seed) for m, c, n in zip(means, covariances, (40, 70), strict=True)
    ]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = ((means[0] - means[1]) ** 2).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(*samples, features=None) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_commuting_covariances_is_the_closed_form():
    scales = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 0.5]])
    a, b = (with_moments(np.zeros(3), np.diag(s**2), 30, k) for k, s in enumerate(scales))
    expected = ((scales[0] - scales[1]) ** 2).sum()
    assert frechet_distance(a, b, features=None) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_singular_covariances():
    """Fewer series than features: still finite, not negative, exact for a shift."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 200))
    assert frechet_distance(a, a, features=None) == 0.0
    assert frechet_distance(a, a + 3.0, features=None) == pytest.approx(9 * 200)
    b = rng.normal(size=(4, 200))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    eigenvalues = np.linalg.eigvals(cov_a @ cov_b).real
    trace = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * trace
    assert frechet_distance(a, b, features=None) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), n_variables=st.integers(1, 3))
def test_frechet_does_not_know_the_order_of_series(seed, n_variables):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(12, 20, n_variables)), rng.normal(size=(9, 20, n_variables)) + 0.5
    found = frechet_distance(a, b)
    assert found > 0
    shuffled = frechet_distance(a[rng.permutation(12)], b[rng.permutation(9)])
    assert shuffled == pytest.approx(found, rel=1e-8)
    assert frechet_distance(a, a[::-1]) == pytest.approx(0.0, abs=1e-8)
    plain = frechet_distance(a, b, features=None)
    assert frechet_distance(b, a, features=None) == pytest.approx(plain, rel=1e-9)
    turn = np.linalg.qr(rng.normal(size=(20, 20)))[0]  # of all values at once: rotations
    turned = [np.einsum("st,btf->bsf", turn, x) for x in (a, b)]
    assert frechet_distance(*turned, features=None) == pytest.approx(plain, rel=1e-8)


def test_frechet_by_statistics_does_not_know_units():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 30)), rng.normal(size=(60, 30)).cumsum(axis=1)
    found = frechet_distance(a, b)
    assert frechet_distance(1e9 * a, 1e9 * b) == pytest.approx(found, rel=1e-6)
    assert frechet_distance(1e-9 * a, 1e-9 * b) == pytest.approx(found, rel=1e-6)


def test_frechet_grows_with_the_difference():
    rng = np.random.default_rng(1)
    real, same = rng.normal(size=(2, 400, 40)).cumsum(axis=2)
    noise = rng.normal(size=(400, 40))
    found = [frechet_distance(real, same + s * noise) for s in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found)
    assert found[1] > 2 * found[0]


def test_frechet_shrinks_with_the_number_of_series():
    rng = np.random.default_rng(2)
    found = [frechet_distance(*rng.normal(size=(2, n, 20)), features=None) for n in (100, 1600)]
    assert found[1] < found[0] / 8


def test_features_by_a_callable():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(20, 6, 2)), rng.normal(size=(25, 6, 2)) + 1
    shapes = []

    def mean(x):
        shapes.append(x.shape)
        return x.mean(axis=(1, 2))

    m, n = a.mean(axis=(1, 2)), b.mean(axis=(1, 2))
    expected = (m.mean() - n.mean()) ** 2 + (m.std(ddof=1) - n.std(ddof=1)) ** 2
    assert frechet_distance(a, b, features=mean) == pytest.approx(expected)
    assert shapes == [(20, 6, 2), (25, 6, 2)]


def test_statistics_against_scipy():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(6, 40)).cumsum(axis=1)
    found = series_statistics(x)
    assert_allclose(found[:, 0], x.mean(1))
    assert_allclose(found[:, 1], x.std(1))
    assert_allclose(found[:, 2], stats.skew(x, axis=1))
    assert_allclose(found[:, 3], stats.kurtosis(x, axis=1))
    assert_allclose(found[:, 4:9], np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1).T)
    assert_allclose(found[:, 9], [np.polyfit(np.linspace(0, 1, 40), row, 1)[0] for row in x])
    for column, order in ((10, 1), (12, 2)):
        assert_allclose(found[:, column], np.abs(np.diff(x, order)).mean(1))
        assert_allclose(found[:, column + 1], np.diff(x, order).std(1))
    centred = x - x.mean(1, keepdims=True)
    for column, lag in zip(range(14, 19), (1, 2, 4, 8, 16), strict=True):
        r = (centred[:, lag:] * centred[:, :-lag]).sum(1) / (centred**2).sum(1)
        assert_allclose(found[:, column], r)
    power = np.abs(np.fft.rfft(centred)) ** 2
    for column, (low, high) in zip(
        range(19, 24), [(1, 2), (2, 4), (4, 8), (8, 16), (16, 21)], strict=True
    ):
        assert_allclose(found[:, column], power[:, low:high].sum(1) / power[:, 1:].sum(1))
    assert found.shape == (6, 24)


def test_statistics_of_several_variables():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 16, 3))
    found = series_statistics(x)
    single = [series_statistics(x[..., f]) for f in range(3)]
    assert_allclose(found[:, :-3], np.concatenate(single, axis=1))
    for b in range(4):
        r = np.corrcoef(x[b].T)
        assert_allclose(found[b, -3:], [r[0, 1], r[0, 2], r[1, 2]])


def test_statistics_of_constant_series_are_finite():
    found = series_statistics(np.full((2, 10), 0.1))
    assert np.isfinite(found).all()
    assert_allclose(found[:, 2:4], 0.0)
    constant, noise = np.full((5, 10), 0.1), np.random.default_rng(0).normal(size=(5, 10))
    assert frechet_distance(constant, constant) == 0.0
    assert math.isfinite(frechet_distance(constant, noise))


def test_discriminative_score():
    rng = np.random.default_rng(6)
    real, same, other = rng.normal(size=(3, 100, 24))
    real, same = real.cumsum(axis=1), same.cumsum(axis=1)
    found = discriminative_score(real, same, random_state=0)
    assert found < 0.12  # 0.03 expected
    assert discriminative_score(real, other, random_state=0) > 0.45
    assert found == discriminative_score(real, same, random_state=0)


def test_discriminative_score_is_balanced():
    """A classifier that always says "real" is right nine times in ten, and knows nothing."""
    rng = np.random.default_rng(7)
    real, few = rng.normal(size=(90, 8)), rng.normal(size=(10, 8))
    constant = LogisticRegression(C=1e-12)
    assert discriminative_score(real, few, classifier=constant, random_state=0) == 0.0


def test_discriminative_score_of_a_linear_classifier_on_values():
    rng = np.random.default_rng(8)
    real, fake = rng.normal(size=(500, 4)), rng.normal(size=(500, 4))
    fake[:, 0] += 2.0
    found = discriminative_score(
        real, fake, classifier=LogisticRegression(), features=None, random_state=0
    )
    assert found == pytest.approx(stats.norm.cdf(1.0) - 0.5, abs=0.04)  # Bayes accuracy


def test_frames_of_records():
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=(2, 10, 12))
    found = frechet_distance(pd.DataFrame(a), pd.DataFrame(b))
    assert found == pytest.approx(frechet_distance(a, b), rel=1e-9)


@pytest.mark.parametrize("score", [frechet_distance, discriminative_score])
@pytest.mark.parametrize(
    ("real", "generated", "options", "match"),
    [
        (np.ones((3, 4)), np.ones((3, 5)), {}, "same steps and variables"),
        (np.ones((1, 4)), np.ones((3, 4)), {}, "real must have shape .* at least 2"),
        (np.ones((3, 4)), np.ones(4), {}, "generated must have shape"),
        (np.ones((3, 4)), np.full((3, 4), np.nan), {}, "generated is missing .* series 0"),
        (np.ones((3, 4)), np.ones((3, 4)), {"features": "mean"}, "features must be 'statistics'"),
        (np.ones((3, 4)), np.ones((3, 4)), {"features": lambda x: x[:1]}, "one row of finite"),
        (np.ones((3, 2)), np.ones((3, 2)), {}, "at least 3 steps"),
    ],
)
def test_errors(score, real, generated, options, match):
    if score is discriminative_score:
        options = {**options, "cv": 2}
    with pytest.raises(ValueError, match=match):
        score(real, generated, **options)


@pytest.mark.parametrize("cv", [1, 4])
def test_folds_must_fit(cv):
    with pytest.raises(ValueError, match="cv must be from 2 to the size of the smaller set"):
        discriminative_score(np.ones((3, 4)), np.ones((9, 4)), cv=cv)
