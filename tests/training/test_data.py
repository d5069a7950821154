from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsvae.training import Augmentation, SeriesRange, WindowLoader, split_validation

EXAMPLES = settings(deadline=None, derandomize=True, max_examples=40)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def panel(lengths, n_features=2, observed=0.8, seed=0):
    """Values that name their own place: 1000 * series + 10 * step + feature."""
    n_steps = max(lengths)
    series = torch.arange(len(lengths))[:, None, None]
    steps = torch.arange(n_steps)[None, :, None]
    values = 1000.0 * series + 10.0 * steps + torch.arange(n_features)
    mask = torch.rand(values.shape, generator=generator(seed)) < observed
    mask &= steps < torch.tensor(lengths)[:, None, None]
    return torch.where(mask, values, torch.nan), mask


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=5)


@EXAMPLES
@given(
    LENGTHS,
    st.integers(1, 12),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from(["balance", "keep", "fill"]),
    st.sampled_from([0.0, 0.2, 1.0]),
)
def test_every_observed_value_is_covered_and_every_window_is_right(
    lengths, window, stride, random_start, remainder, observed
):
    values, mask = panel(lengths, observed=observed)
    loader = WindowLoader(
        values,
        mask,
        window=window,
        batch_size=3,
        lengths=torch.tensor(lengths),
        inputs=torch.arange(max(lengths)).float()[None, :, None].expand(len(lengths), -1, 1),
        stride=min(stride, window),
        random_start=random_start,
        remainder=remainder,
    )
    epoch = loader(0, generator(1))
    batches = list(epoch)
    assert len(batches) == len(epoch)
    seen = torch.zeros_like(mask)
    for batch in batches:
        assert batch["x"].shape == (len(batch["start"]), window, 2) and len(batch["start"]) <= 3
        assert torch.equal(batch["visible"], batch["mask"])
        for row, (i, t) in enumerate(zip(batch["series"], batch["start"], strict=True)):
            stop = min(int(t) + window, lengths[i])
            n = stop - int(t)
            assert torch.equal(batch["mask"][row, :n], mask[i, t:stop])
            assert not bool(batch["mask"][row, n:].any())
            expected = torch.where(mask[i, t:stop], values[i, t:stop], 0.0)
            assert torch.equal(batch["x"][row, :n], expected)
            assert bool((batch["x"][row, n:] == 0).all())
            assert torch.equal(batch["inputs"][row, :n, 0], torch.arange(int(t), stop).float())
            rows = batch["mask"][row].any(dim=-1).nonzero()
            assert int(batch["lengths"][row]) == int(rows[-1]) + 1  # never an empty window
            seen[i, t:stop] = True
    assert bool((seen | ~mask).all())
    places = [
        (int(i), int(t)) for b in batches for i, t in zip(b["series"], b["start"], strict=True)
    ]
    if remainder != "fill":
        assert len(places) == len(set(places)) == epoch.n_windows


def test_random_starts_differ_between_epochs_and_follow_the_generator():
    values, mask = panel([200], observed=1.0)
    loader = WindowLoader(values, mask, window=10, batch_size=100)
    g = generator()
    first, second = (
        sorted(e["start"].tolist()) for e in (next(iter(loader(i, g))) for i in (0, 1))
    )
    again = sorted(next(iter(loader(0, generator())))["start"].tolist())
    assert first == again != second
    every = {t for epoch in range(60) for b in loader(epoch, g) for t in b["start"].tolist()}
    assert every == set(range(191))


def test_drawn_windows_are_as_many_as_asked_for_and_never_empty():
    values, mask = panel([50, 3, 20], observed=1.0)
    mask[0, 10:45] = False
    mask[1] = False
    loader = WindowLoader(
        values, mask, window=5, batch_size=64, n_windows=500, lengths=torch.tensor([50, 3, 20])
    )
    batches = list(loader(0, generator()))
    assert sum(len(b["start"]) for b in batches) == 500
    assert all(bool(b["mask"].flatten(1).any(dim=1).all()) for b in batches)
    drawn = {
        (int(i), int(t)) for b in batches for i, t in zip(b["series"], b["start"], strict=True)
    }
    assert drawn == {(0, t) for t in [*range(10), *range(41, 46)]} | {(2, t) for t in range(16)}


@pytest.mark.parametrize(
    ("remainder", "sizes"),
    [("balance", [4, 3, 3]), ("keep", [4, 4, 2]), ("drop", [4, 4]), ("fill", [4, 4, 4])],
)
def test_last_batch(remainder, sizes):
    values, mask = panel([10], observed=1.0)
    loader = WindowLoader(
        values, mask, window=1, batch_size=4, stride=1, random_start=False, remainder=remainder
    )
    assert [len(b["start"]) for b in loader(0, generator())] == sizes


def test_a_single_small_batch_is_not_dropped():
    values, mask = panel([3], observed=1.0)
    loader = WindowLoader(values, mask, window=3, batch_size=8, remainder="drop")
    assert [len(b["start"]) for b in loader(0, generator())] == [1]


def test_the_panel_is_neither_copied_nor_unfolded():
    values = torch.zeros(2, 200_000, 3)
    mask = torch.ones(2, 200_000, 3, dtype=torch.bool)
    loader = WindowLoader(values, mask, window=512, batch_size=4)
    assert loader.values.data_ptr() == values.data_ptr()
    assert loader.mask.data_ptr() == mask.data_ptr()
    windows = loader._windows(loader.values)
    assert windows.shape == (2, 200_000 - 511, 512, 3)
    assert windows.untyped_storage().data_ptr() == values.untyped_storage().data_ptr()
    batch = next(iter(loader(0, generator())))
    assert batch["x"].untyped_storage().nbytes() == 4 * 512 * 3 * 4
    values[:] = 7.0
    assert bool((next(iter(loader(0, generator())))["x"] == 7).all())


def test_views_with_their_own_strides_are_read_in_place():
    base = torch.arange(60.0).reshape(3, 20)
    values = base.t()[None]  # (1, 20, 3), steps and features swapped in memory
    mask = torch.ones(1, 20, 3, dtype=torch.bool)
    loader = WindowLoader(values, mask, window=4, batch_size=50, shuffle=False)
    for batch in loader(0, generator()):
        for row, t in enumerate(batch["start"].tolist()):
            assert torch.equal(batch["x"][row], values[0, t : t + 4])


def test_augmentation_hides_only_observed_entries():
    values, mask = panel([40, 25])
    loader = WindowLoader(
        values, mask, window=8, batch_size=4, augmentation=Augmentation(0.3, future_steps=2)
    )
    for batch in loader(0, generator()):
        assert not bool(batch["visible"][:, -2:].any())
        assert not bool((batch["visible"] & ~batch["mask"]).any())
        assert int(batch["lengths"].max()) == 8  # of what is observed, not of what is shown


@EXAMPLES
@given(LENGTHS, st.sampled_from([0.1, 0.2, 0.5]), st.integers(1, 12))
def test_a_split_in_time_scores_each_late_step_once_and_trains_on_none(lengths, fraction, window):
    values, mask = panel(lengths, observed=1.0)
    split = split_validation(torch.tensor(lengths), fraction, window, by="time")
    common = {"window": window, "batch_size": 7, "lengths": torch.tensor(lengths)}
    scored = torch.zeros(mask.shape[:2], dtype=torch.int)
    trained = torch.zeros_like(scored)
    if split.validation is not None:
        validation = WindowLoader(
            values, mask, ranges=split.validation, random_start=False, shuffle=False, **common
        )
        for batch in validation(0, generator()):
            for row, (i, t) in enumerate(zip(batch["series"], batch["start"], strict=True)):
                steps = batch["mask"][row].any(dim=-1).nonzero().flatten()
                counted = steps[steps >= batch["score_from"][row]]
                assert len(counted)
                scored[i, t + counted] += 1
    training = WindowLoader(values, mask, ranges=split.train, stride=1, **common)
    for batch in training(0, generator()):
        for row, (i, t) in enumerate(zip(batch["series"], batch["start"], strict=True)):
            trained[i, t + batch["mask"][row].any(dim=-1).nonzero().flatten()] += 1
    for i, length in enumerate(lengths):
        n_last = round(fraction * length)  # torch rounds half to even, as Python does
        if n_last < 1 or length - n_last < 2:
            n_last = 0
        cut = length - n_last
        assert bool((trained[i, :cut] > 0).all()) and not bool(trained[i, cut:].any())
        assert bool((scored[i, cut:length] == 1).all()) and not bool(scored[i, :cut].any())


def test_a_validation_window_reads_history():
    split = split_validation(torch.tensor([100]), 0.1, window=20, by="time")
    assert split.validation == SeriesRange(*(torch.tensor([v]) for v in (0, 80, 100, 90)))


def test_series_are_split_at_random_if_there_are_many():
    lengths = torch.full((100,), 30)
    split = split_validation(lengths, 0.2, 10, generator=generator())
    kept, aside = set(split.train.series.tolist()), set(split.validation.series.tolist())
    assert split.by == "series" and len(aside) == 20
    assert kept | aside == set(range(100)) and not kept & aside
    assert aside != set(range(80, 100))
    assert split.validation.score_from is None
    assert split_validation(lengths[:10], 0.2, 10).by == "time"
    assert split_validation(lengths[:10], 0.2, 10, by="series").validation.series.tolist() == [8, 9]


def test_too_little_data_leaves_no_validation():
    for lengths, fraction in (([1], 0.5), ([100], 0.0), ([2, 2], 0.1)):
        split = split_validation(torch.tensor(lengths), fraction, 10)
        assert split.validation is None and split.train.end.tolist() == lengths
    assert split_validation(torch.tensor([5]), 0.2, 10, by="series").validation is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 1.0}, "fraction must be >= 0 and < 1, got 1.0"),
        ({"by": "rows"}, "by must be 'auto', 'series' or 'time', got 'rows'"),
    ],
)
def test_bad_splits_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_validation(**{"lengths": torch.tensor([9]), "fraction": 0.2, "window": 3} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": torch.zeros(3, 4)}, "values must have shape"),
        ({"mask": torch.ones(1, 9, 2, dtype=torch.bool)}, "mask must have the shape of values"),
        ({"inputs": torch.zeros(1, 8, 2)}, "inputs must have the series and steps"),
        ({"window": 0}, "window must be an integer >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"n_windows": 0}, "n_windows must be"),
        ({"remainder": "pad"}, "remainder must be"),
    ],
)
def test_bad_loaders_are_named(arguments, message):
    values, mask = panel([9], n_features=1)
    with pytest.raises(ValueError, match=message):
        WindowLoader(**{"values": values, "mask": mask, "window": 3, "batch_size": 2} | arguments)
