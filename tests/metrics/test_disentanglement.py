"""MIG, SAP and DCI: perfect and random codes, sklearn as oracle, circular and discrete factors."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mutual_info_score

from tsvae.metrics import (
    dci_scores,
    mutual_information_gap,
    separated_attribute_predictability,
)

SCORES = [
    mutual_information_gap,
    separated_attribute_predictability,
    lambda *args, **options: dci_scores(*args, estimator="lasso", **options),
]


@pytest.fixture
def factors():
    return np.random.default_rng(0).uniform(size=(4000, 3))


def disordered(factors):
    """A rotation: every factor is found in two codes alike, and somewhat in the third."""
    mixing = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3
    return (factors - 0.5) @ mixing


# -- mutual information gap ------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
def test_gap_of_perfect_and_random_codes(factors, strategy):
    codes = np.column_stack([-factors[:, 2], 2 * factors[:, 0], factors[:, 1], factors[:, 1] * 0])
    bias = 19**2 / (2 * 4000) / math.log(20)  # of the second best code's information
    raw = mutual_information_gap(codes, factors, strategy=strategy, multioutput="raw_values")
    assert_allclose(raw, 1 - bias, atol=0.02)
    random = np.random.default_rng(1).normal(size=(4000, 5))
    assert mutual_information_gap(random, factors, strategy=strategy) < 0.005
    assert mutual_information_gap(disordered(factors), factors, strategy=strategy) < 0.05


def test_gap_is_exactly_one_for_balanced_discrete_factors():
    """A full grid: no bias, as independent variables are exactly independent in the sample."""
    a, b = (g.ravel() for g in np.meshgrid(np.arange(5), np.arange(4)))
    grid = np.column_stack([a, b])
    assert mutual_information_gap(grid[:, ::-1], grid) == pytest.approx(1.0, abs=1e-12)
    doubled = np.column_stack([grid, grid])  # no code leads
    assert mutual_information_gap(doubled, grid) == pytest.approx(0.0, abs=1e-12)


def test_gap_against_sklearns_mutual_information():
    rng = np.random.default_rng(2)
    factors = rng.integers(0, 6, size=(500, 2))
    codes = np.column_stack([factors[:, 0] + rng.integers(0, 3, 500), rng.integers(0, 9, 500)])
    codes = np.column_stack([codes, factors.sum(axis=1)])
    expected = []
    for v in factors.T:
        ranked = sorted(mutual_info_score(v, z) for z in codes.T)
        expected.append((ranked[-1] - ranked[-2]) / mutual_info_score(v, v))
    found = mutual_information_gap(codes, factors, multioutput="raw_values")
    assert_allclose(found, expected, rtol=1e-10)


def test_bins_against_numpys_histogram(factors):
    codes = disordered(factors)
    rows = []
    for v in factors.T:
        information = []
        for z in codes.T:
            joint = np.histogram2d(z, v, bins=20)[0]
            information.append(mutual_info_score(None, None, contingency=joint))
        counts = np.histogram(v, bins=20)[0] / len(v)
        ranked = sorted(information)
        rows.append((ranked[-1] - ranked[-2]) / -(counts @ np.log(counts)))
    found = mutual_information_gap(codes, factors, strategy="uniform", multioutput="raw_values")
    assert_allclose(found, rows, rtol=1e-6, atol=1e-9)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999))
def test_gap_knows_order_only(seed):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(300, 2))
    codes = factors @ rng.normal(size=(2, 3)) + 0.1 * rng.normal(size=(300, 3))
    found = mutual_information_gap(codes, factors)
    assert mutual_information_gap(np.exp(codes), factors**3) == pytest.approx(found, abs=1e-12)
    rows, columns = rng.permutation(300), rng.permutation(3)
    shuffled = mutual_information_gap(codes[rows][:, columns], factors[rows])
    assert shuffled == pytest.approx(found, abs=1e-12)
    with_dead_code = np.column_stack([codes, np.full(300, 7.0)])
    assert mutual_information_gap(with_dead_code, factors) == pytest.approx(found, abs=1e-12)


def test_gap_of_one_code():
    a = np.repeat(np.arange(4), 5)
    assert mutual_information_gap(a, a) == pytest.approx(1.0)


# -- separated attribute predictability ------------------------------------------------------------


def test_predictability_of_perfect_and_random_codes(factors):
    assert separated_attribute_predictability(5 - 2 * factors, factors) > 0.995
    random = np.random.default_rng(1).normal(size=(4000, 5))
    assert separated_attribute_predictability(random, factors) < 0.005
    assert separated_attribute_predictability(disordered(factors), factors) < 0.03


def test_predictability_against_regression(factors):
    codes = disordered(factors)[:500]
    expected = []
    for v in factors[:500].T:
        scores = [LinearRegression().fit(z[:, None], v).score(z[:, None], v) for z in codes.T]
        expected.append(sorted(scores)[-1] - sorted(scores)[-2])
    found = separated_attribute_predictability(codes, factors[:500], multioutput="raw_values")
    assert_allclose(found, expected, atol=1e-12)
    mean = separated_attribute_predictability(codes, factors[:500], multioutput=[1, 2, 3])
    assert mean == pytest.approx(np.average(expected, weights=[1, 2, 3]))


def test_predictability_of_an_angle():
    """On the circle a code that runs with the angle has a jump; its cosine has none."""
    rng = np.random.default_rng(3)
    angle = rng.uniform(0, 360, size=(2000, 1))
    radian = np.deg2rad(angle)
    codes = np.column_stack([np.cos(radian), rng.normal(size=2000)])
    options = {"circular": {0: 360.0}}
    assert separated_attribute_predictability(codes, angle) < 0.01
    assert separated_attribute_predictability(codes, angle, **options) == pytest.approx(0.5, 0.1)
    both = np.column_stack([np.cos(radian), np.sin(radian)])
    targets = LinearRegression().fit(both[:, :1], both)
    expected = (
        1
        - ((both - targets.predict(both[:, :1])) ** 2).sum()
        / ((both - both.mean(axis=0)) ** 2).sum()
    )
    found = separated_attribute_predictability(both[:, :1], angle, **options)
    assert found == pytest.approx(expected)
    shifted = separated_attribute_predictability(codes, (angle + 360) % 720 - 360, **options)
    assert shifted == pytest.approx(separated_attribute_predictability(codes, angle, **options))


def test_predictability_of_names():
    rng = np.random.default_rng(4)
    names = np.array(["b", "a", "c"])[rng.integers(0, 3, 600)]
    sizes = {"a": 0.0, "b": 5.0, "c": 10.0}
    known = np.array([sizes[name] for name in names]) + 0.1 * rng.normal(size=600)
    codes = np.column_stack([rng.normal(size=600), known])
    table = pd.DataFrame({"group": names, "on": known > 4})
    raw = separated_attribute_predictability(codes, table, random_state=0, multioutput="raw_values")
    assert raw[1] > 0.4  # 1 less chance, 1/2
    assert 0.25 < raw[0] <= 0.7  # 1 less chance, 1/3; the middle group is no side of a threshold
    numbers = separated_attribute_predictability(
        codes, pd.factorize(names, sort=True)[0], discrete=[0], random_state=0
    )
    assert numbers == pytest.approx(raw[0])


def test_dead_code_predicts_nothing(factors):
    codes = np.column_stack([factors[:, 0], np.full(4000, 0.1)])
    found = separated_attribute_predictability(codes, factors[:, :1])
    assert found == pytest.approx(1.0)


# -- disentanglement, completeness, informativeness ------------------------------------------------


@pytest.mark.parametrize("estimator", ["gradient_boosting", "random_forest", "lasso"])
def test_dci_of_perfect_and_random_codes(factors, estimator):
    rng = np.random.default_rng(5)
    factors, idle = factors[:600], rng.normal(size=600)
    codes = np.column_stack([factors[:, 1], -factors[:, 0], 3 * factors[:, 2], idle])
    scores = dci_scores(codes, factors, estimator=estimator, random_state=0)
    assert scores.disentanglement > 0.98
    assert scores.completeness > 0.98
    assert scores.informativeness > 0.98
    assert_allclose(scores.importance.argmax(axis=0), [1, 0, 2])
    blind = dci_scores(rng.normal(size=(600, 4)), factors, estimator=estimator, random_state=0)
    assert blind.informativeness < 0.05
    if estimator != "lasso":  # finds a few tiny coefficients, or none
        assert blind.disentanglement < 0.15
        assert blind.completeness < 0.15


def test_dci_tells_disentangled_from_complete(factors):
    """Two codes for one factor each: disentangled, not complete. And the other way round."""
    rng = np.random.default_rng(6)
    v = factors[:1000, :2]
    noise = 0.2 * rng.normal(size=(1000, 4))
    codes = np.column_stack([v[:, 0], v[:, 0], v[:, 1], v[:, 1]]) + noise
    split = dci_scores(codes, v, estimator="lasso", random_state=0)
    assert split.disentanglement > 0.9
    assert split.completeness == pytest.approx(0.5, abs=0.06)  # 1 - log 2 / log 4
    merged = dci_scores(v.sum(axis=1), v, estimator="lasso", random_state=0)
    assert merged.disentanglement == pytest.approx(0.0, abs=1e-9)
    assert merged.completeness == 1.0
    turned = dci_scores(disordered(factors[:1000]), factors[:1000], estimator="lasso")
    assert turned.disentanglement < 0.05
    assert turned.informativeness > 0.98


def test_dci_from_its_importances(factors):
    """The entropies of section 2 of the paper, by loops over the importances."""
    codes = disordered(factors[:400]) + 0.5 * factors[:400]
    scores = dci_scores(codes, factors[:400], random_state=0)
    r = scores.importance
    assert_allclose(r.sum(axis=0), 1.0)
    d = [1 + sum(p * math.log(p, 3) for p in r[i] / r[i].sum()) for i in range(3)]
    c = [1 + sum(p * math.log(p, 3) for p in r[:, j] / r[:, j].sum()) for j in range(3)]
    assert_allclose(scores.disentanglement_per_code, d)
    assert_allclose(scores.completeness_per_factor, c)
    assert scores.disentanglement == pytest.approx(np.average(d, weights=r.sum(axis=1)))
    assert scores.completeness == pytest.approx(np.mean(c))
    assert scores.informativeness == pytest.approx(scores.informativeness_per_factor.mean())
    again = dci_scores(codes, factors[:400], random_state=0)
    assert_allclose(again.importance, r, rtol=0)


def test_dci_of_codes_that_know_nothing(factors):
    scores = dci_scores(np.zeros((300, 2)), factors[:300], estimator="lasso", random_state=0)
    assert scores.disentanglement == scores.completeness == 0.0
    assert scores.informativeness <= 0.0
    assert_allclose(scores.importance, 0.0)


@pytest.mark.parametrize("estimator", ["gradient_boosting", "random_forest", "lasso"])
def test_dci_of_names_and_angles(estimator):
    rng = np.random.default_rng(7)
    group, angle = rng.integers(0, 3, 500), rng.uniform(0, 2 * np.pi, 500)
    codes = np.column_stack([np.cos(angle), np.sin(angle), group + 0.1 * rng.normal(size=500)])
    table = pd.DataFrame({"group": np.array(list("abc"))[group], "angle": angle})
    scores = dci_scores(
        codes, table, estimator=estimator, circular={"angle": 2 * np.pi}, random_state=0
    )
    assert_allclose(scores.informativeness_per_factor, 1.0, atol=0.05)
    assert_allclose(scores.importance[:, 0], [0, 0, 1], atol=0.15)
    assert_allclose(scores.importance[:, 1], [0.5, 0.5, 0], atol=0.15)


# -- what they share -------------------------------------------------------------------------------


def test_frames_are_matched_by_label(factors):
    codes = pd.DataFrame(factors[:200] * 2, columns=list("xyz"))
    table = pd.DataFrame(factors[:200], columns=["u", "v", "w"])
    for score in SCORES[:2]:
        assert score(codes.iloc[::-1], table) == pytest.approx(score(codes, table))
    with pytest.raises(ValueError, match="same row labels"):
        mutual_information_gap(codes.set_axis(range(1, 201)), table)


def test_nullable_columns():
    table = pd.DataFrame({"a": pd.array(range(50), dtype="Int64"), "b": [True, False] * 25})
    codes = table.astype(float).to_numpy()
    assert separated_attribute_predictability(codes, table, random_state=0) > 0.4
    gap = table.astype({"a": "Int64"})
    gap.loc[3, "a"] = pd.NA
    with pytest.raises(ValueError, match=r"missing .* 1 records in column 'a', the first is row 3"):
        mutual_information_gap(codes, gap)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("codes", "factors", "match"),
    [
        (np.ones((4, 2)), np.ones((4, 1)), "factor 0 is constant"),
        (np.ones((4, 2)), np.arange(5.0), "same records; got 4 and 5"),
        (np.full((4, 2), np.nan), np.arange(4.0), "codes is not finite in row 0, column 0"),
        (np.ones((4, 2, 1)), np.arange(4.0), r"codes must have shape \(n_records, n_codes\)"),
        (np.ones((4, 2)), np.ones((4, 2, 1)), "factors must have shape"),
        (np.ones((4, 2)), [0.0, 1.0, np.nan, 2.0], "missing or infinite .* first is row 2"),
        (np.ones((4, 2)), np.ones((4, 0)), "at least one column"),
        (np.ones((1, 2)), np.ones((1, 1)), "at least 2 records"),
        (
            np.ones((4, 2)),
            pd.DataFrame({"g": ["a", None, "b", "a"]}),
            "missing or infinite for 1 records in column 'g'",
        ),
    ],
)
def test_errors(score, codes, factors, match):
    with pytest.raises(ValueError, match=match):
        score(codes, factors)


@pytest.mark.parametrize("score", SCORES[1:])
def test_errors_of_discrete_and_circular(score):
    codes, v = np.arange(20.0), np.arange(20.0)
    with pytest.raises(KeyError, match="no factor 'phase'"):
        score(codes, v, circular={"phase": 6.3})
    with pytest.raises(KeyError, match="no factor 1"):
        score(codes, v, discrete=[1])
    with pytest.raises(TypeError, match="must be a list"):
        score(codes, v, discrete="phase")
    with pytest.raises(ValueError, match="length of a full turn"):
        score(codes, v, circular={0: 0.0})
    with pytest.raises(ValueError, match="discrete, so it cannot be in `circular`"):
        score(codes, v, discrete=[0], circular={0: 6.3})
    with pytest.raises(ValueError, match="only 1 records"):
        score(codes, v, discrete=[0])


@pytest.mark.parametrize(
    ("options", "match"),
    [({"n_bins": 1}, "n_bins must be"), ({"strategy": "kmeans"}, "strategy must be one of")],
)
def test_errors_of_bins(options, match):
    with pytest.raises(ValueError, match=match):
        mutual_information_gap(np.arange(9.0), np.arange(9.0), **options)


def test_errors_of_estimators():
    with pytest.raises(ValueError, match="estimator must be one of"):
        dci_scores(np.arange(9.0), np.arange(9.0), estimator="ridge")
