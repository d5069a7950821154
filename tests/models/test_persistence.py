"""Gains over the last value, against the formula written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from tsvae.models.persistence import beats_last_value


def statistic(gain, windows):
    """Weighted mean over its standard error, block by block."""
    total = sum(windows)
    mean = sum(n * g for n, g in zip(windows, gain, strict=True)) / total
    blocks = sum(n > 0 for n in windows)
    spread = sum((n / total * (g - mean)) ** 2 for n, g in zip(windows, gain, strict=True))
    return mean / (blocks / (blocks - 1) * spread) ** 0.5


@pytest.mark.parametrize("seed", range(20))
def test_follows_a_test_of_students(seed):
    rng = np.random.default_rng(seed)
    windows = rng.integers(0, 5, size=8) * 10.0
    last, errors = rng.uniform(0.5, 2.0, size=(2, 8))
    errors = errors * rng.uniform(0.1, 1.0)
    gain = np.where(windows > 0, 1.0 - errors / last, 0.0)
    sure = 0.95 if (windows @ errors) / (windows @ last) < 0.8 else 0.99
    wanted = statistic(gain, windows) > stats.t.ppf(sure, (windows > 0).sum() - 1)
    assert beats_last_value(*map(torch.tensor, (errors, last, windows))) == wanted


def test_a_mean_of_equal_blocks_is_the_usual_one_sample_test():
    rng = np.random.default_rng(1)
    for shift in np.linspace(0.0, 1.0, 21):
        gain = 0.08 * (shift + rng.normal(size=6))
        wanted = stats.ttest_1samp(gain, 0.0, alternative="greater").pvalue < 0.01
        last = torch.full((6,), 5.0, dtype=torch.float64)
        errors = last * (1.0 - torch.tensor(gain))
        assert beats_last_value(errors, last, torch.ones(6).double()) == wanted


@pytest.mark.parametrize(("share", "wanted"), [(0.75, True), (0.85, False)])
def test_a_fifth_of_the_errors_is_much(share, wanted):
    """The same statistic, between the 95 % and the 99 % point, for large gains and smaller ones."""
    signs = torch.tensor([1.0, -1.0] * 4).double()
    errors = share + 1.1 * (1.0 - share) * signs
    last = torch.ones(8).double()
    t = statistic((1.0 - errors).tolist(), [1.0] * 8)
    assert stats.t.ppf(0.95, 7) < t < stats.t.ppf(0.99, 7)
    assert beats_last_value(errors, last, torch.ones(8)) == wanted


def test_one_block_of_large_errors_is_not_enough():
    """Nearly all errors gone, but in one block of eight."""
    last = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 50.0]).double()
    errors = torch.tensor([1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.0, 5.0]).double()
    assert not beats_last_value(errors, last, torch.ones(8))


def test_one_restless_block_does_not_decide():
    """Gains of half of the errors in each block, one of them ten times as large as the others."""
    last = torch.tensor([1.0, 1.1, 0.9, 1.0, 1.2, 1.0, 1.0, 10.0])
    share = torch.tensor([0.5, 0.6, 0.5, 0.4, 0.5, 0.6, 0.5, 0.5])
    assert beats_last_value(share * last, last, torch.ones(8))


def test_without_two_blocks_nothing_is_clear():
    errors, last = torch.tensor([0.1, 0.1]), torch.tensor([1.0, 1.0])
    assert not beats_last_value(errors, last, torch.tensor([3.0, 0.0]))
    assert not beats_last_value(errors[:1], last[:1], torch.ones(1))


@pytest.mark.parametrize("last", [[1.0, 2.0, 3.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
def test_the_same_errors_are_no_gain(last):
    last = torch.tensor(last)
    assert not beats_last_value(last, last, torch.ones(3))


def test_a_block_without_movement_takes_no_part():
    """Also one whose errors, from pairs of entries, are below zero."""
    last = torch.tensor([1.0, 1.1, 0.9, 1.0, 1.2, 1.0, 1.0, 0.0])
    errors = torch.tensor([0.5, 0.6, 0.5, 0.4, 0.5, 0.6, 0.5, 0.0])
    assert beats_last_value(errors, last, torch.ones(8))
    assert beats_last_value(errors - 1e-3 * (last == 0), last - 1e-3 * (last == 0), torch.ones(8))
