"""Straight lines over gaps, against numpy's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tsvae.models.gaps import bridge_gaps


@pytest.mark.parametrize("longest", [1, 3, 50])
def test_gaps_are_bridged_as_numpy_does(longest):
    rng = np.random.default_rng(0)
    x, seen = rng.normal(size=(3, 40, 2)), rng.random((3, 40, 2)) < 0.5
    x = np.where(seen, x, 0.0)
    found = bridge_gaps(torch.as_tensor(x), torch.as_tensor(seen), longest)
    for b in range(3):
        for f in range(2):
            at = np.flatnonzero(seen[b, :, f])
            wanted, known = x[b, :, f].copy(), seen[b, :, f].copy()
            for left, right in itertools.pairwise(at):
                if 1 < right - left <= longest + 1:
                    inside = np.arange(left + 1, right)
                    wanted[inside] = np.interp(inside, at, x[b, at, f])
                    known[inside] = True
            np.testing.assert_allclose(found.x[b, :, f], wanted, rtol=1e-12)
            np.testing.assert_array_equal(found.known[b, :, f], known)


def test_complete_histories_are_the_same_tensors():
    x, seen = torch.randn(2, 5, 1), torch.ones(2, 5, 1, dtype=torch.bool)
    assert bridge_gaps(x, seen).x is x


def test_nothing_seen_stays_so():
    found = bridge_gaps(torch.zeros(1, 5, 1), torch.zeros(1, 5, 1, dtype=torch.bool))
    assert not found.known.any() and not found.x.any()
