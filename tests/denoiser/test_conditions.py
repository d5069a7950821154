"""Conditions of records as numbers, and what comes beside X matched by its labels."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tsvae._denoiser.conditions import ConditionCoder, fit_conditions
from tsvae._records.alignment import check_labels, dressed, same_shape

TABLE = pd.DataFrame({"group": list("abca"), "dose": [1.0, 2.0, 3.0, 6.0], "ok": [True, False] * 2})


def test_numbers_are_standardised_and_categories_are_indicators():
    coder = fit_conditions(TABLE, 4)
    found = coder.transform(TABLE, 4)
    assert coder.n_outputs == found.shape[1] == 3 + 1 + 2
    np.testing.assert_array_equal(found[:, :3], np.eye(3)[[0, 1, 2, 0]])
    np.testing.assert_allclose(found[:, 3], (TABLE["dose"] - 3.0) / TABLE["dose"].std(ddof=0))
    np.testing.assert_array_equal(found[:, 4:], np.eye(2)[[1, 0, 1, 0]])


@pytest.mark.parametrize(
    ("condition", "n_outputs"),
    [
        ([1, 2, 3], 1),
        (np.array(["x", "y", "x"]), 2),
        (np.array([[1.0, 2.0]] * 3), 2),
        (pd.Series(["u", "v", "w"], dtype="category"), 3),
        (pd.Series([True, False, True]), 2),
        ([["x", 1.0], ["y", 2.0], ["y", 3.0]], 3),
        (pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-01"])), 2),
        (pd.Series([1, 2, 3], dtype="Int64"), 1),
    ],
)
def test_kinds(condition, n_outputs):
    coder = fit_conditions(condition, 3)
    found = coder.transform(condition, 3)
    assert found.shape == (3, n_outputs) and np.isfinite(found).all()
    twin = ConditionCoder(json.loads(json.dumps(coder.columns)))
    np.testing.assert_array_equal(twin.transform(condition, 3), found)


def test_constant_numbers():
    np.testing.assert_array_equal(fit_conditions([5.0] * 3, 3).transform([5.0] * 3, 3), 0.0)


def test_an_array_for_a_frame_goes_by_position():
    coder = fit_conditions(TABLE, 4)
    np.testing.assert_array_equal(coder.transform(TABLE.to_numpy(), 4), coder.transform(TABLE, 4))


def test_too_many_categories():
    names = [str(i) for i in range(1001)]
    with pytest.raises(ValueError, match="has 1001 categories, at most 1000"):
        fit_conditions(names, 1001)


@pytest.mark.parametrize(
    ("found", "known", "fine"),
    [
        (["a", "b"], ["a", "b"], True),
        (["b", "a"], ["a", "b"], False),
        (["a", "c"], ["a", "b"], False),
        ([0, 1], ["a", "b"], True),  # no labels beside labels
        ([5, 9], [0, 1], True),
        ([0, 1], [1, 0], False),  # the same labels in another order
        ([5, 9], [9, 5], False),
        ([5, 9], [5, 8], False),
    ],
)
def test_row_labels(found, known, fine):
    found, known = pd.Index(found), pd.Index(known)
    if fine:
        check_labels(found, known, "clean")
        return
    with pytest.raises(ValueError, match=r"rows of clean do not match .* clean.loc\[X.index\]"):
        check_labels(found, known, "clean")


def test_shapes_of_clean_targets():
    X = np.zeros((4, 3))
    assert same_shape(np.ones((4, 3)), X) and same_shape([[1.0] * 3] * 4, X)
    assert same_shape(pd.DataFrame(X), X)
    for y in (np.zeros(4), np.zeros((3, 4)), list("abcd"), [[1.0], [2.0, 3.0]], "text", 3):
        assert not same_shape(y, X)
    assert not same_shape(np.zeros(4), np.zeros(4))


def test_arrays_wear_the_labels_of_X():
    X = pd.DataFrame(np.zeros((2, 3)), index=["a", "b"], columns=list("xyz"))
    found = dressed(np.ones((2, 3)), X, "clean")
    assert found.index.equals(X.index) and found.columns.equals(X.columns)
    assert isinstance(dressed(X, np.zeros((2, 3)), "clean"), np.ndarray)
    assert dressed(X, X, "clean") is X
    with pytest.raises(ValueError, match=r"y must hold the clean signals .* \(2, 3\); got \(2,\)"):
        dressed(np.ones(2), X, "y")
