"""Level of a window, and variables folded into the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tsvae.models import SVAE
from tsvae.models.predictive import forecast, sample_paths
from tsvae.models.views import Effect, fold_channels, unfold_channels, window_level

shapes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 3))
number = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@st.composite
def windows(draw):
    shape = draw(shapes)
    x = draw(arrays(np.float64, shape, elements=number))
    mask = draw(arrays(np.bool_, shape))
    return torch.from_numpy(x), torch.from_numpy(mask)


def level_by_hand(x, mask, n_entries):
    level = np.zeros((x.shape[0], 1, x.shape[2]))
    for b in range(x.shape[0]):
        for f in range(x.shape[2]):
            first = x[b, :, f][mask[b, :, f]][:n_entries]
            level[b, 0, f] = first.numpy().mean() if len(first) else 0.0
    return level


@settings(max_examples=60, deadline=None, derandomize=True)
@given(windows(), st.integers(1, 9))
def test_level_is_the_mean_of_the_first_observed_entries(window, n_entries):
    x, mask = window
    got = window_level(x, mask, n_entries)
    assert got.shape == (x.shape[0], 1, x.shape[2])
    np.testing.assert_allclose(got.numpy(), level_by_hand(x, mask, n_entries), atol=1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(windows(), st.integers(1, 5), number)
def test_level_follows_a_shift(window, n_entries, shift):
    x, mask = window
    moved = window_level(x + shift, mask, n_entries) - window_level(x, mask, n_entries)
    seen = mask.any(dim=1, keepdim=True)
    np.testing.assert_allclose(moved.numpy(), torch.where(seen, shift, 0.0).numpy(), atol=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(windows(), st.integers(1, 5), st.data())
def test_level_leaks_nothing_of_later_entries(window, n_entries, data):
    """Once enough entries are seen, neither later values nor their mask matter."""
    x, mask = window
    cut = data.draw(st.integers(0, x.shape[1]))
    full = mask[:, :cut].sum(1, keepdim=True) >= n_entries
    other, hidden = x.clone(), mask.clone()
    other[:, cut:] += 1e6
    hidden[:, cut:] = ~hidden[:, cut:]
    before, after = window_level(x, mask, n_entries), window_level(other, hidden, n_entries)
    assert torch.equal(before[full], after[full])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(windows())
def test_no_entries_mean_no_level(window):
    x, mask = window
    assert torch.equal(window_level(x, mask, 0), torch.zeros_like(x[:, :1]))


def test_values_that_are_not_observed_do_not_matter():
    x = torch.tensor([[[float("nan"), 1.0], [4.0, float("inf")], [6.0, 3.0]]])
    mask = torch.isfinite(x)
    assert window_level(x, mask, 2).flatten().tolist() == [5.0, 2.0]


def test_level_passes_gradients_of_the_entries_it_takes():
    x = torch.zeros(1, 4, 1, requires_grad=True)
    mask = torch.tensor([[[True], [False], [True], [True]]])
    window_level(x, mask, 2).sum().backward()
    assert x.grad.flatten().tolist() == [0.5, 0.0, 0.5, 0.0]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(windows())
def test_fold_and_unfold_undo_each_other(window):
    x, _ = window
    folded = fold_channels(x)
    assert folded.shape == (x.shape[0] * x.shape[2], x.shape[1], 1)
    assert torch.equal(unfold_channels(folded, x.shape[2]), x)


def test_fold_keeps_the_variables_of_a_series_together():
    x = torch.arange(12.0).reshape(2, 3, 2)
    folded = fold_channels(x)
    for b in range(2):
        for f in range(2):
            assert torch.equal(folded[2 * b + f, :, 0], x[b, :, f])


@pytest.mark.parametrize("extra", [(5,), (5, 4)])
def test_unfold_keeps_leading_axes(extra):
    samples = torch.randn(*extra, 6, 3, 1, generator=torch.Generator().manual_seed(0))
    unfolded = unfold_channels(samples, 2)
    assert unfolded.shape == (*extra, 3, 3, 2)
    first = tuple(0 for _ in extra)
    assert torch.equal(unfolded[first], unfold_channels(samples[first], 2))


@pytest.fixture
def channelwise():
    made = SVAE(3, n_inputs=4, latent_dim=6, dynamics={"group_size": 2}, channelwise=True, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        made.covariate_matrix.copy_(torch.randn(3, 4, generator=generator))
    return made.eval()


def test_forecasts_from_effects_are_those_from_inputs(channelwise):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(5, 30, 3, generator=generator)
    inputs = torch.randn(5, 36, 4, generator=generator)
    visible = torch.rand(x.shape, generator=generator) < 0.8
    x = torch.where(visible, x, 0.0)
    parts = inputs[:, :30], inputs[:, 30:]
    effects = [Effect(channelwise.effect(part)) for part in parts]
    given = {"inputs": parts[0], "future_inputs": parts[1]}
    known = {"inputs": effects[0], "future_inputs": effects[1]}
    one, two = (forecast(channelwise, x, visible, 6, **options) for options in (given, known))
    torch.testing.assert_close(one.mean, two.mean)
    torch.testing.assert_close(one.scale, two.scale)
    without = forecast(channelwise, x, visible, 6)
    assert not torch.allclose(one.mean, without.mean)
    one, two = (
        sample_paths(
            channelwise, x, visible, 6, 2, **options, generator=torch.Generator().manual_seed(3)
        )
        for options in (given, known)
    )
    torch.testing.assert_close(one, two)
