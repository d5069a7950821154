"""Batches of pairs and single samples: who is in them, how often, in what order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from tsvae._linker.batches import PairBatches, SideData

N = 40


def side(features, shared_weight=True):
    """Records that name their row in every value."""
    values = torch.arange(N, dtype=torch.float32)[:, None, None].expand(N, 3, features).clone()
    weight = torch.ones(1, 3, features) if shared_weight else values + 100.0
    return SideData(values, values % 2 == 0, weight)


def make(pairs=range(20), only_a=range(20, 30), only_b=range(30, 40), **options):
    settings = {"batch_size": 8, "n_batches": 10, "paired_share": 0.5} | options
    rows = (torch.tensor(list(part), dtype=torch.int64) for part in (pairs, only_a, only_b))
    return PairBatches(side(1), side(2, shared_weight=False), *rows, **settings)


def rows_of(batch, name):
    return batch[name][:, 0, 0].int().tolist()


def epoch(batches, seed=0, number=0):
    return list(batches(number, torch.Generator().manual_seed(seed)))


def test_pairs_are_in_front_on_both_sides_and_singles_behind():
    for batch in epoch(make()):
        first, second = rows_of(batch, "a"), rows_of(batch, "b")
        n = int(batch["n_pairs"])
        assert n == 4 and first[:n] == second[:n]
        assert set(first[:n]) <= set(range(20))
        assert len(first) == len(second) == 8
        assert set(first[n:]) <= set(range(20, 30)) and set(second[n:]) <= set(range(30, 40))


def test_mask_and_weight_go_with_the_record():
    for batch in epoch(make(), number=3):
        for name in "ab":
            assert torch.equal(batch[f"mask_{name}"], batch[name] % 2 == 0)
        assert batch["weight_a"].shape == (1, 3, 1)  # one for all
        assert torch.equal(batch["weight_b"], batch["b"] + 100.0)


def test_noise_is_on_what_is_encoded_alone_and_of_the_size_given():
    plain = make()
    noisy = replace(plain, a=replace(plain.a, noise=torch.tensor([[0.0], [1.0], [2.0]])))
    batches = epoch(replace(noisy, n_batches=400))
    assert all("input_b" not in batch for batch in batches)
    added = torch.cat([batch["input_a"] - batch["a"] for batch in batches])
    assert added.std(0).flatten().tolist() == pytest.approx([0.0, 1.0, 2.0], rel=0.05)
    assert all(torch.equal(batch["mask_a"], batch["a"] % 2 == 0) for batch in batches)


@pytest.mark.parametrize("n_batches", [10, 7])
def test_every_sample_is_seen_equally_often(n_batches):
    pairs, first, second = Counter(), Counter(), Counter()
    for batch in epoch(make(n_batches=n_batches)):
        n = int(batch["n_pairs"])
        pairs.update(rows_of(batch, "a")[:n])
        first.update(rows_of(batch, "a")[n:])
        second.update(rows_of(batch, "b")[n:])
    for seen, rows in ((pairs, range(20)), (first, range(20, 30)), (second, range(30, 40))):
        counts = [seen[row] for row in rows]
        assert sum(counts) == 4 * n_batches
        assert max(counts) - min(counts) <= (4 * n_batches % len(rows) > 0)


def test_without_singles_all_of_a_batch_is_paired():
    batches = make(only_a=(), only_b=(), paired_share=0.2, n_batches=5)
    seen = Counter()
    for batch in epoch(batches):
        assert int(batch["n_pairs"]) == len(batch["a"]) == len(batch["b"]) == 8
        seen.update(rows_of(batch, "b"))
    assert seen == {row: 2 for row in range(20)}


def test_singles_of_one_side_only():
    for batch in epoch(make(only_a=())):
        assert int(batch["n_pairs"]) == len(batch["a"]) == 4
        assert len(batch["b"]) == 8


def test_few_samples_make_small_batches():
    for batch in epoch(make(pairs=range(3), only_b=range(30, 31))):
        assert int(batch["n_pairs"]) == 3
        assert sorted(rows_of(batch, "a")[:3]) == [0, 1, 2]
        assert len(batch["a"]) == 3 + 4 and rows_of(batch, "b")[3:] == [30]


@pytest.mark.parametrize(
    ("size", "share", "expected"),
    [(8, 0.5, 4), (8, 0.99, 7), (8, 0.01, 2), (16, 0.45, 7), (3, 0.9, 2), (2, 0.5, 2)],
)
def test_the_paired_share_leaves_room_for_both_kinds(size, share, expected):
    batches = make(batch_size=size, paired_share=share)
    assert batches.n_paired == expected
    assert len(epoch(batches)[0]["a"]) == size


def test_an_epoch_has_a_length_and_is_the_generators():
    batches = make()
    source = batches(0, torch.Generator().manual_seed(0))
    assert len(source) == len(list(source)) == 10
    one, two, other = (
        [(rows_of(b, "a"), rows_of(b, "b")) for b in epoch(batches, seed)] for seed in (3, 3, 4)
    )
    assert one == two and one != other
    state = torch.get_rng_state()
    epoch(batches)
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch.Generator().manual_seed(0)
    first, second = ([rows_of(b, "a") for b in batches(e, generator)] for e in (0, 1))
    assert first != second
