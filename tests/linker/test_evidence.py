"""Evidence for links: each kind by hand, the weights against a grid, few pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from tsvae import PairVAELinker
from tsvae._linker.evidence import (
    Encoded,
    Evidence,
    Marginal,
    _kinds,
    fit_evidence,
    standard_draws,
)

N = 40


def samples(n=N, seed=0):
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((n, 2))
    maps = np.random.default_rng(7).standard_normal((2, 2, 9))
    x, y = (np.tanh(factors @ m) + 0.1 * rng.standard_normal((n, 9)) for m in maps)
    return x, y[:, :6]


@pytest.fixture(scope="module")
def linker():
    return PairVAELinker(2, hidden_sizes=(16,), max_epochs=10, random_state=0).fit(*samples(120))


def encoded(linker, x, y):
    return linker._seen(x, None, "a").encoded, linker._seen(y, None, "b").encoded


def kinds_of(linker, a, b, precision):
    fitted = linker._fitted()
    translator = fitted.translator(linker.get_params())
    marginals = fitted.evidence.marginals
    return _kinds(translator, fitted.spreads, marginals, a, b, precision)


def test_every_kind_by_hand(linker):
    x, y = samples(6, 1)
    y[2, 3] = np.nan
    a, b = encoded(linker, x, y)
    precision = np.array([[2.0, 0.3], [0.3, 1.0]])
    found = kinds_of(linker, a, b, precision)
    fitted = linker._fitted()
    translator = fitted.translator(linker.get_params())
    draws = standard_draws(64, 2)
    for place, (given, wanted, side) in enumerate(((a, b, "b"), (b, a, "a"))):
        centre = translator.decode(given.posterior[:, 0], side)
        scale = fitted.spreads[side].scale(translator.draws(given.posterior, side, draws), centre)
        for i in range(6):
            for j in range(6):
                seen = wanted.mask[j]
                law = stats.norm(centre[i][seen], scale[i][seen])
                any_record = stats.norm(*(part[seen] for part in fitted.evidence.marginals[side]))
                truth = wanted.values[j][seen]
                expected = law.logpdf(truth).sum() - any_record.logpdf(truth).sum()
                indices = (i, j) if side == "b" else (j, i)
                assert found[place][indices] == pytest.approx(expected, rel=1e-8)
    difference = a.posterior[1, 0] - b.posterior[4, 0]
    assert found[2, 1, 4] == pytest.approx(-0.5 * difference @ precision @ difference)


def test_weights_are_the_best_for_the_pairs(linker):
    a, b = encoded(linker, *samples(N, 2))
    fitted = linker._fitted()
    found = fit_evidence(fitted.translator(linker.get_params()), fitted.spreads, a, b)
    translator = fitted.translator(linker.get_params())
    kinds = _kinds(translator, fitted.spreads, found.marginals, a, b, found.precision)

    def loss(weights):
        scores = np.tensordot(weights, kinds, axes=1)
        rows = scores.diagonal() - logsumexp(scores, axis=1)
        columns = scores.diagonal() - logsumexp(scores, axis=0)
        prior = 0.5 * (((np.log(weights) - np.log([0.2, 0.1, 0.3])) / 2.0) ** 2).sum()
        return prior - rows.sum() - columns.sum()

    best = loss(found.weights)
    for factor in (0.8, 1.25):
        for place in range(3):
            other = found.weights.copy()
            other[place] *= factor
            assert loss(other) > best - 1e-3
    assert best < loss(np.ones(3))


def test_few_pairs_leave_the_weights_as_they_start(linker):
    a, b = encoded(linker, *samples(4, 3))
    fitted = linker._fitted()
    found = fit_evidence(fitted.translator(linker.get_params()), fitted.spreads, a, b)
    np.testing.assert_allclose(found.weights, [0.2, 0.1, 0.3])
    assert np.linalg.eigvalsh(found.precision).min() > 0.0


def test_arrays_and_rows():
    one, other = (Marginal(np.full((2, 1), size), np.ones((2, 1))) for size in (0.0, 5.0))
    evidence = Evidence(np.array([1.0, 2.0, 3.0]), np.eye(2), {"a": one, "b": other})
    again = Evidence.from_arrays(evidence.to_arrays())
    np.testing.assert_array_equal(again.weights, evidence.weights)
    np.testing.assert_array_equal(again.marginals["b"].location, other.location)
    many = Encoded(np.zeros((3, 2, 1)), np.ones((3, 2, 1), bool), np.zeros((3, 2, 2)))
    assert [len(part) for part in many.rows([0, 2])] == [2, 2, 2]


def test_draws_are_antithetic():
    draws = standard_draws(5, 3)
    assert draws.shape == (5, 1, 3)
    np.testing.assert_array_equal(standard_draws(4, 3).sum(axis=0), 0.0)


def test_link_ranks_by_the_scores(linker):
    x, y = samples(12, 4)
    found = linker.link(x, y[::-1], n_best=3)
    assert found.scores.shape == (12, 12) and found.best.shape == (12, 3)
    np.testing.assert_array_equal(found.best[:, 0], found.scores.argmax(axis=1))
    assert sorted(found.assignment) == list(range(12))
    top = found.best == np.arange(12)[::-1, None]
    assert top.any(axis=1).mean() > 0.6
