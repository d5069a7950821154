"""Records with gaps: spreads and ranges that grow with what is hidden."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tsvae import PairVAELinker
from tsvae._linker.gaps import Growth, measure_growth, share_known
from tsvae._linker.ranges import SideRange
from tsvae._linker.spread import Spread


def test_growth_is_interpolated_and_held_at_its_ends():
    growth = Growth(np.array([0.2, 0.6, 0.8]), np.array([5.0, 2.0, 1.0]))
    np.testing.assert_allclose(growth.at(np.array([0.0, 0.2, 0.4, 0.8, 1.0])), [5, 5, 3.5, 1, 1])
    np.testing.assert_array_equal(Growth.none().at(np.array([0.1, 1.0])), 1.0)


def test_what_is_hidden_by_a_loop():
    mask = np.random.default_rng(0).random((40, 9, 2)) < 0.7
    mask[3] = False
    shown = []

    def measure(rows, part):
        shown.append(part)
        return np.array([2.0 / share_known(part).mean(), 3.0])

    first, second = measure_growth(mask, measure, seed=1)
    np.testing.assert_array_equal(shown[0], mask)
    for more, less in pairwise(shown):
        assert not (less & ~more).any()  # what is hidden stays hidden
        assert less[[n for n in range(40) if n != 3]].any(axis=(1, 2)).all()
    np.testing.assert_allclose(first.known, [share_known(part).mean() for part in shown[::-1]])
    np.testing.assert_allclose(first.known / mask.mean(), [0.2, 0.5, 0.7, 0.9, 1.0], atol=0.1)
    np.testing.assert_allclose(first.times, mask.mean() / first.known)
    np.testing.assert_array_equal(second.times, 1.0)


def test_a_measure_never_falls_as_less_is_known():
    sizes = iter([1.0, 3.0, 0.5, 100.0, 0.1])
    (growth,) = measure_growth(
        np.ones((5, 4, 1), dtype=bool), lambda rows, part: np.array([next(sizes)]), 0
    )
    np.testing.assert_array_equal(growth.times, [20.0, 20.0, 3.0, 3.0, 1.0])


def test_spread_and_range_use_the_share_of_each_record():
    growth = Growth(np.array([0.5, 1.0]), np.array([3.0, 1.0]))
    spread = Spread(np.ones((2, 1)), 2.0, growth)
    centre, draws = np.zeros((2, 2, 1)), np.ones((1, 2, 2, 1))
    found = spread.apply(draws, centre, np.ones((1, 1, 2, 1)), np.array([1.0, 0.5]))
    np.testing.assert_allclose(found[0, :, 0, 0], [4.0, 12.0])
    again = Spread.from_arrays(spread.to_arrays())
    np.testing.assert_array_equal(again.growth.times, growth.times)

    one = np.ones((2, 1))
    known = SideRange(np.zeros(1), np.eye(1), 1.0, one, 1.0, growth, growth)
    values, own = 2.0 * np.ones((2, 2, 1)), np.zeros((2, 2, 1))
    mask = np.array([[[True], [True]], [[True], [False]]])
    near, far = np.zeros((2, 2, 1)), 2.5 * np.ones((2, 2, 1))
    np.testing.assert_array_equal(known.outside(values, mask, own, near), [True, False])
    np.testing.assert_array_equal(known.outside(own, mask, own, far), [True, False])
    again = SideRange.from_arrays(known.to_arrays())
    np.testing.assert_array_equal(again.outside(own, mask, own, far), [True, False])


def pairs(n, seed):
    rng = np.random.default_rng(seed)
    slope, level = rng.uniform(1, 2, (n, 1)), rng.uniform(0, 1, (n, 1))
    x = np.sin(slope * np.linspace(0, 3, 12)) + level * np.linspace(0, 1, 12)
    y = np.exp(-slope * np.linspace(0, 2, 7)) + level * np.linspace(1, 0, 7)
    return x + 0.02 * rng.standard_normal(x.shape), y + 0.02 * rng.standard_normal(y.shape)


@pytest.fixture(scope="module")
def linker():
    return PairVAELinker(pretrain_epochs=0, max_epochs=12, random_state=0).fit(*pairs(300, 0))


@pytest.mark.parametrize("hidden", [0.0, 0.3, 0.6])
def test_bands_hold_what_they_say_with_gaps(linker, hidden):
    x, y = pairs(300, 1)
    x[np.random.default_rng(2).random(x.shape) < hidden] = np.nan
    band = linker.predict_interval(x)
    assert ((band.lower <= y) & (y <= band.upper)).mean() == pytest.approx(0.9, abs=0.06)
    assert linker.out_of_range(x).mean() < 0.05
    strangers = x + 1.0
    assert linker.out_of_range(strangers).mean() > 0.5
