"""Windows and origins against slow loops."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tsvae.panel import count_observed, gather, rolling_origins, window_starts

lengths_strategy = st.lists(st.integers(0, 12), min_size=1, max_size=4)


def slow_starts(lengths, window, stride):
    out = []
    for number, length in enumerate(lengths):
        if length == 0:
            continue
        last = max(length - window, 0)
        starts = list(range(0, last + 1, stride))
        out += [(number, s) for s in starts + ([last] if starts[-1] != last else [])]
    return out


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lengths_strategy, st.integers(1, 6), st.integers(1, 4))
def test_window_starts(lengths, window, stride):
    series, start = window_starts(np.array(lengths), window, stride)
    assert list(zip(series, start, strict=True)) == slow_starts(lengths, window, stride)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(lengths_strategy, st.integers(1, 6), st.integers(0, 100))
def test_masked_windows_are_dropped(lengths, window, seed):
    mask = np.random.default_rng(seed).random((len(lengths), 12, 2)) < 0.2
    starts = window_starts(np.array(lengths), window)
    kept = window_starts(np.array(lengths), window, mask=mask, min_observed=2)
    counts = [mask[b, s : s + window].sum() for b, s in zip(*starts, strict=True)]
    np.testing.assert_array_equal(count_observed(mask, starts, window), counts)
    expected = [p for p, c in zip(zip(*starts, strict=True), counts, strict=True) if c >= 2]
    assert list(zip(*kept, strict=True)) == expected


@pytest.mark.parametrize("window", [1, 3, 5, 8])
def test_gather_pads_with_zeros(window):
    values = np.random.default_rng(0).normal(size=(3, 5, 2))
    series, start = np.array([2, 0, 1, 2]), np.array([0, 4, 2, 1])
    out = gather(values, series, start, window)
    padded = np.pad(values, [(0, 0), (0, 10), (0, 0)])
    expected = np.stack([padded[b, s : s + window] for b, s in zip(series, start, strict=True)])
    np.testing.assert_array_equal(out, expected)
    assert out.flags.c_contiguous and not np.shares_memory(out, values)
    mask = gather(values > 0, series, start, window)
    assert mask.dtype == bool and mask.shape == out.shape


def test_gather_without_windows_and_negative_starts():
    values = np.zeros((2, 4, 3))
    none = np.zeros(0, dtype=int)
    assert gather(values, none, none, 2).shape == (0, 2, 3)
    with pytest.raises(ValueError, match="start must not be negative, got -1"):
        gather(values, np.array([0]), np.array([-1]), 2)


def test_cover_end_is_optional():
    assert window_starts(np.array([6]), 3, 2, cover_end=False).start.tolist() == [0, 2]
    assert window_starts(np.array([6]), 3, 2).start.tolist() == [0, 2, 3]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lengths_strategy, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))
def test_rolling_origins(lengths, horizon, step, min_history, n_origins):
    expected = []
    for number, length in enumerate(lengths):
        own = [o for o in range(length - horizon, min_history - 1, -step)][:n_origins]
        expected += [(number, o) for o in reversed(own)]
    found = rolling_origins(
        np.array(lengths), horizon, step=step, min_history=min_history, n_origins=n_origins
    )
    assert list(zip(*found, strict=True)) == expected


@pytest.mark.parametrize(("window", "error"), [(0, ValueError), (2.5, TypeError)])
def test_window_is_checked(window, error):
    with pytest.raises(error, match="window must be"):
        window_starts(np.array([4]), window)
