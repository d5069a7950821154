from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsvae.training import Augmentation, observed_lengths
from tsvae.training.augment import hidden_blocks, hidden_entries, hidden_future

EXAMPLES = settings(deadline=None, derandomize=True, max_examples=25)
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 3))
AUGMENTATIONS = st.builds(
    Augmentation,
    random_fraction=st.sampled_from([0.0, 0.3, 1.0]),
    n_blocks=st.integers(0, 3),
    block_length=st.integers(0, 20),
    future_steps=st.integers(0, 20),
    future_probability=st.sampled_from([0.5, 1.0]),
    noise_scale=st.sampled_from([0.0, 0.5]),
    shuffle=st.booleans(),
    shared=st.booleans(),
    varied=st.booleans(),
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def panel(shape, seed=0):
    g = generator(seed)
    mask = torch.rand(shape, generator=g) < 0.7
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    return torch.where(mask, x, torch.nan), mask


@EXAMPLES
@given(AUGMENTATIONS, SHAPES, st.integers(0, 5))
def test_invariants(augmentation, shape, seed):
    x, mask = panel(shape, seed)
    x_before, mask_before = x.clone(), mask.clone()
    result = augmentation(x, mask, generator(seed))
    again = augmentation(x, mask, generator(seed))
    assert all(torch.equal(a, b) for a, b in zip(result, again, strict=True))
    assert not bool((result.visible & ~result.mask).any())
    assert not bool(result.x.isnan().any()) and result.x.dtype == x.dtype
    assert bool((result.x[~result.mask] == 0).all())
    assert torch.equal(mask, mask_before) and torch.equal(x.isnan(), x_before.isnan())
    # the multiset of observed values of each series and variable is untouched
    clean = torch.where(mask, x, 0.0)
    assert torch.equal(result.target.sort(dim=1).values, clean.sort(dim=1).values)
    if not augmentation.shuffle:
        assert torch.equal(result.mask, mask) and torch.equal(result.target, clean)
    if not augmentation.noise_scale:
        assert torch.equal(result.x, result.target)


def test_nothing_asked_for_changes_nothing():
    x, mask = panel((2, 5, 2))
    result = Augmentation()(x, mask, generator())
    assert torch.equal(result.visible, mask)


def test_fraction_of_hidden_entries():
    hidden = hidden_entries((50, 40, 10), 0.2, generator())
    assert hidden.float().mean().item() == pytest.approx(0.2, abs=0.01)


@EXAMPLES
@given(SHAPES, st.integers(1, 15), st.integers(0, 9))
def test_one_block_is_contiguous_in_one_variable(shape, length, seed):
    hidden = hidden_blocks(shape, 1, length, generator(seed))
    for series in hidden:
        columns = series.any(dim=0).nonzero().flatten()
        assert len(columns) == 1
        steps = series[:, columns[0]].nonzero().flatten()
        assert len(steps) == min(length, shape[1]) == int(steps[-1] - steps[0]) + 1


def test_blocks_reach_every_step_and_variable():
    hidden = hidden_blocks((400, 6, 3), 1, 2, generator())
    assert bool(hidden.any(dim=0).all())


@EXAMPLES
@given(SHAPES, st.integers(0, 15))
def test_the_future_is_the_last_steps(shape, steps):
    hidden = hidden_future(shape, steps)
    assert hidden.shape == (1, *shape[1:])
    assert int(hidden[0, :, 0].sum()) == min(steps, shape[1])
    assert bool(hidden[:, max(0, shape[1] - steps) :].all())


def test_shared_patterns_are_the_same_for_all_series():
    mask = torch.ones(5, 30, 4, dtype=torch.bool)
    settings = {"random_fraction": 0.3, "n_blocks": 2, "block_length": 4}
    shared = Augmentation(**settings)
    assert shared.hidden((5, 30, 4), generator()).shape == (1, 30, 4)
    visible = shared(torch.zeros(5, 30, 4), mask, generator()).visible
    assert bool((visible == visible[:1]).all())
    own = Augmentation(**settings, shared=False)(torch.zeros(5, 30, 4), mask, generator()).visible
    assert not bool((own == own[:1]).all())


def test_noise_has_its_scale_and_stays_on_observed_entries():
    mask = torch.ones(20, 50, 10, dtype=torch.bool)
    mask[:, ::2] = False
    result = Augmentation(noise_scale=0.3)(torch.zeros(20, 50, 10), mask, generator())
    assert result.x[mask].std().item() == pytest.approx(0.3, rel=0.05)
    assert bool((result.x[~mask] == 0).all()) and bool((result.target == 0).all())


def test_shuffling_keeps_rows_together_and_moves_inputs_along():
    t = torch.arange(6.0)[None, :, None].expand(3, 6, 1)
    x = torch.cat([t, 10 * t], dim=-1)
    mask = torch.ones(3, 6, 2, dtype=torch.bool)
    mask[:, 5] = False
    batch = {"x": x, "mask": mask, "inputs": 100 * t, "lengths": observed_lengths(mask)}
    result = Augmentation(shuffle=True).augment_batch(batch, generator())
    seen = result["mask"][..., 0]
    assert torch.equal(result["x"][..., 1], 10 * result["x"][..., 0])
    assert torch.equal(result["inputs"][seen][:, 0], 100 * result["x"][seen][:, 0])
    assert not torch.equal(result["x"], torch.where(mask, x, 0.0))
    assert not torch.equal(result["x"][0], result["x"][1])  # each series in its own order
    assert torch.equal(result["lengths"], observed_lengths(result["mask"]))
    assert torch.equal(batch["x"], x)


def test_the_future_is_hidden_with_its_probability():
    augmentation, g = Augmentation(future_steps=1, future_probability=0.25), generator()
    drawn = [bool(augmentation.hidden((1, 2, 1), g).any()) for _ in range(400)]
    assert sum(drawn) / 400 == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize(
    ("name", "value"),
    [("random_fraction", 1.5), ("future_probability", -1), ("noise_scale", -1), ("n_blocks", -1)],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*got {value}"):
        Augmentation(**{name: value})


def test_varied_shares_differ_between_series():
    hidden = hidden_entries((400, 300, 1), 0.4, generator(), varied=True)
    share = hidden.double().mean((1, 2))
    assert 0.38 < share.mean() < 0.42
    assert 0.13 < share.amin() < 0.26 < 0.54 < share.amax() < 0.67
    assert abs(share.std() - 0.4 / 12**0.5) < 0.015  # evenly spread over the range
    plain = hidden_entries((400, 300, 1), 0.4, generator()).double().mean((1, 2))
    assert plain.std() < 0.035
