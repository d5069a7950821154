"""Which rows are pairs, which are held out, which have one side alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsvae._linker.pairs import pair_rows
from tsvae._records.signals import Signals
from tsvae.panel import read_records


def signals(has):
    """Records of three values; those that are not there are all NaN, the others partly."""
    values = np.arange(3.0 * len(has)).reshape(-1, 3)
    values[:, 0] = np.nan
    values[~np.asarray(has)] = np.nan
    records = read_records(values, allow_all_missing=True)
    return Signals(records.values, records.mask, records.index, None)


def sorted_out(has_x, has_y, fraction=0.1, seed=0):
    return pair_rows(signals(has_x), signals(has_y), fraction, seed)


def test_rows_by_what_is_known_of_them():
    rows = sorted_out([True, True, False, False, True], [True, False, True, False, True])
    assert rows.pairs.tolist() == [0, 4]
    assert rows.only_x.tolist() == [1] and rows.only_y.tolist() == [2]
    assert rows.held_out.tolist() == []  # too few to split


@pytest.mark.parametrize(
    ("n", "fraction", "expected"),
    [(19, 0.5, 0), (20, 0.1, 5), (20, 0.0, 0), (20, 0.01, 5), (100, 0.25, 25), (80, 0.1, 8)],
)
def test_the_share_held_out(n, fraction, expected):
    rows = sorted_out([True] * n, [True] * n, fraction)
    assert len(rows.held_out) == expected and len(rows.pairs) == n - expected


@pytest.mark.parametrize("n", [20, 300])
def test_pairs_to_train_on_always_remain(n):
    rows = sorted_out([True] * n, [True] * n, 0.999)
    assert len(rows.pairs) == 2 and len(rows.held_out) == n - 2


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    states=st.lists(st.integers(0, 3), min_size=1, max_size=80),
    fraction=st.floats(0.0, 0.99),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_row_is_in_one_place(states, fraction, seed):
    has_x, has_y = ([bool(state & bit) for state in states] for bit in (1, 2))
    if 3 not in states:
        with pytest.raises(ValueError, match="no row has both X and y"):
            sorted_out(has_x, has_y, fraction, seed)
        return
    rows = sorted_out(has_x, has_y, fraction, seed)
    expected = {state: [i for i, s in enumerate(states) if s == state] for state in range(4)}
    assert rows.only_x.tolist() == expected[1] and rows.only_y.tolist() == expected[2]
    assert sorted([*rows.pairs, *rows.held_out]) == expected[3]
    assert (
        len(rows.pairs) and (np.diff(rows.pairs) > 0).all() and (np.diff(rows.held_out) > 0).all()
    )


def test_the_seed_decides_and_no_global_state_is_touched():
    both = [True] * 50
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, two, other = (sorted_out(both, both, 0.2, seed).held_out.tolist() for seed in (1, 1, 2))
    assert one == two != other
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_the_message_counts_the_rows():
    with pytest.raises(ValueError, match="2 rows have X alone and 1 have y alone"):
        sorted_out([True, True, False], [False, False, True])
