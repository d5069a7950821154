"""Priors over codes: counts by hand, normalisation, sampling frequencies, saving."""

from __future__ import annotations

import itertools
import math
import pickle

import pytest
import torch

from tsvae.models.code_counts import CountTable
from tsvae.models.code_network import AutoregressiveCodePrior
from tsvae.models.code_prior import CodePrior, MarkovCodePrior


def all_sequences(n_codes, n_steps):
    return torch.tensor(list(itertools.product(range(n_codes), repeat=n_steps)))


def some_codes(n=40, steps=4, n_codes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, n_codes, (n, steps), generator=generator)
    if steps > 2:
        codes[:, 2] = (codes[:, 1] + 1) % n_codes  # something to learn
    return codes


def by_hand(codes, sequence, n_codes, order, positions, strength):
    """The recursion of the class docstring, by loops over rows."""
    rows = codes.tolist()
    log_prob = 0.0
    for t, code in enumerate(sequence):
        odds = 1.0 / n_codes
        ends = [(r, s) for r in rows for s in range(len(r))]
        here = [(r, t) for r in rows]
        longest = min(t, order)
        if positions == "every":
            levels = [(ends, 0)] + [(here, j) for j in range(longest + 1)]
        else:
            levels = [(ends, j) for j in range(longest + 1)] + [(here, t)] * (t < order)
        for places, j in levels:
            context = sequence[t - j : t]
            seen = [r[s] for r, s in places if s >= j and r[s - j : s] == context]
            odds = (seen.count(code) + strength * odds) / (len(seen) + strength)
        log_prob += math.log(odds)
    return log_prob


@pytest.mark.parametrize("positions", ["every", "start"])
@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_markov_log_prob_equals_counting_by_hand(order, positions):
    codes = some_codes()
    prior = MarkovCodePrior(3, order, positions=positions, smoothing=0.7).fit(codes)
    sequences = all_sequences(3, 4)[::7]
    expected = [by_hand(codes, s, 3, order, positions, 0.7) for s in sequences.tolist()]
    torch.testing.assert_close(
        prior.log_prob(sequences), torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.parametrize("positions", ["auto", "every", "start"])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_markov_sums_to_one_over_all_sequences(order, positions):
    prior = MarkovCodePrior(3, order, positions=positions).fit(some_codes(8))
    assert prior.log_prob(all_sequences(3, 4)).exp().sum() == pytest.approx(1.0, abs=1e-12)


def test_markov_samples_follow_its_probabilities():
    prior = MarkovCodePrior(3, 1).fit(some_codes(30, steps=3))
    n = 20_000
    draws = prior.sample(n, torch.Generator().manual_seed(1))
    sequences = all_sequences(3, 3)
    counts = (draws[:, None] == sequences).all(-1).sum(0).double()
    p = prior.log_prob(sequences).exp()
    standard_error = (p * (1 - p) / n).sqrt()
    assert ((counts / n - p).abs() < 4.5 * standard_error + 1e-4).all()


def test_start_of_a_sequence_is_its_own():
    codes = torch.tensor([[0, 1, 2, 1, 2, 1]] * 20)
    prior = MarkovCodePrior(3, 1, positions="start", smoothing=1e-6).fit(codes)
    start = prior.next_probabilities(torch.zeros(1, 0, dtype=torch.int64))
    torch.testing.assert_close(start, torch.tensor([[1.0, 0, 0]]).double(), atol=1e-5, rtol=0)


def test_positions_keep_what_belongs_at_each_place():
    """Aligned records: after 0 comes 1 early and 2 late; a homogeneous chain cannot know."""
    codes = torch.tensor([[0, 1, 0, 2]] * 50)
    auto = MarkovCodePrior(3, 1, smoothing=0.01).fit(codes)
    aligned = auto.log_prob(codes[:1])
    assert bool(auto.aligned)
    chain = MarkovCodePrior(3, 1, positions="start", smoothing=0.01).fit(codes).log_prob(codes[:1])
    assert float(aligned) > -0.01
    assert float(chain) == pytest.approx(2 * math.log(0.5), abs=0.05)


def test_a_homogeneous_chain_is_not_split_by_position():
    codes = torch.zeros(30, 20, dtype=torch.int64)
    flips = torch.rand(30, 20, generator=torch.Generator().manual_seed(0)) < 0.2
    codes = (codes + flips.cumsum(1)) % 2  # the same at every step
    assert not bool(MarkovCodePrior(2, 1).fit(codes).aligned)


def test_auto_smoothing_maximises_the_leave_one_out_likelihood():
    """Independent codes: refitting without one code is what the closed form promises."""
    codes = some_codes(12, steps=1)
    prior = MarkovCodePrior(3, 0, positions="start").fit(codes)
    strength = float(prior.tables[0].strength)

    def leave_one_out(s):
        total = 0.0
        for i in range(len(codes)):
            rest = torch.cat([codes[:i], codes[i + 1 :]])
            other = MarkovCodePrior(3, 0, positions="start", smoothing=s).fit(rest)
            total += float(other.log_prob(codes[i : i + 1]))
        return total

    best = leave_one_out(strength)
    assert all(best >= leave_one_out(10.0**e) - 1e-9 for e in (-2, -1, 0, 1, 2, 3))


def test_auto_smoothing_is_strong_for_noise_and_weak_for_rules():
    noise = MarkovCodePrior(8, 1).fit(some_codes(5, steps=3, n_codes=8))
    rule = MarkovCodePrior(8, 1, positions="start").fit(torch.arange(8).repeat(20, 2))
    assert noise.tables[1].strength > 10 * rule.tables[1].strength


def test_markov_state_survives_saving(tmp_path):
    codes = some_codes()
    prior = MarkovCodePrior(3, 2).fit(codes)
    torch.save(prior.state_dict(), tmp_path / "prior.pt")
    fresh = MarkovCodePrior(3, 2)
    fresh.load_state_dict(torch.load(tmp_path / "prior.pt", weights_only=True))
    for copy in (fresh, pickle.loads(pickle.dumps(prior)), prior.float()):
        assert copy.fitted
        torch.testing.assert_close(copy.log_prob(codes), prior.log_prob(codes), rtol=0, atol=0)


def test_refitting_forgets():
    codes = some_codes()
    twice = MarkovCodePrior(3).fit(some_codes(seed=9)).fit(codes)
    once = MarkovCodePrior(3).fit(codes)
    torch.testing.assert_close(twice.log_prob(codes), once.log_prob(codes))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: MarkovCodePrior(3).sample(2, torch.Generator()), RuntimeError, "fit"),
        (lambda: MarkovCodePrior(3).log_prob(torch.zeros(1, 2).long()), RuntimeError, "fit"),
        (lambda: MarkovCodePrior(3).fit(torch.tensor([[0, 3]])), ValueError, "got 3"),
        (lambda: MarkovCodePrior(3).fit(torch.tensor([[0, -1]])), ValueError, "got -1"),
        (lambda: MarkovCodePrior(3).fit(torch.zeros(2, 2)), TypeError, "integers"),
        (lambda: MarkovCodePrior(3).fit(torch.zeros(4).long()), ValueError, "shape"),
        (lambda: MarkovCodePrior(512, 8).fit(torch.zeros(2, 2).long()), ValueError, "order=8"),
        (lambda: MarkovCodePrior(3, positions="none"), ValueError, "positions"),
        (lambda: MarkovCodePrior(3, smoothing=0.0), ValueError, "smoothing"),
        (lambda: MarkovCodePrior(3, -1), ValueError, "order"),
        (
            lambda: (
                MarkovCodePrior(3).fit(torch.zeros(2, 2).long()).log_prob(torch.zeros(1, 3).long())
            ),
            ValueError,
            "2 steps",
        ),
        (lambda: AutoregressiveCodePrior(3, 2, validation_fraction=1.0), ValueError, "fraction"),
        (
            lambda: AutoregressiveCodePrior(3, 2).fit(torch.zeros(2, 3).long()),
            ValueError,
            "2 steps",
        ),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_count_table_moves_with_its_module_but_stays_float64():
    table = CountTable(3).half()
    assert table.strength.dtype == torch.float64


@pytest.fixture(scope="module")
def network():
    codes = some_codes(300)
    prior = AutoregressiveCodePrior(
        3, 4, embedding_dim=8, hidden_size=16, max_epochs=12, learning_rate=0.02
    )
    return prior.fit(codes, torch.Generator().manual_seed(0))


def test_network_sums_to_one_over_all_sequences(network):
    with torch.no_grad():
        total = network.log_prob(all_sequences(3, 4)).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-5)


def test_network_learns_the_rule_and_samples_it(network):
    assert network.fitted
    draws = network.sample(500, torch.Generator().manual_seed(0))
    assert (draws[:, 2] == (draws[:, 1] + 1) % 3).float().mean() > 0.95
    again = network.sample(500, torch.Generator().manual_seed(0))
    assert torch.equal(draws, again)


def test_network_samples_follow_its_probabilities(network):
    n = 20_000
    draws = network.sample(n, torch.Generator().manual_seed(2))
    sequences = all_sequences(3, 4)
    with torch.no_grad():
        p = network.log_prob(sequences).exp().double()
    counts = (draws[:, None] == sequences).all(-1).sum(0).double()
    assert ((counts / n - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-4).all()


def test_network_state_survives_saving(network):
    fresh = AutoregressiveCodePrior(3, 4, embedding_dim=8, hidden_size=16)
    assert not fresh.fitted
    fresh.load_state_dict(network.state_dict())
    codes = some_codes(5)
    with torch.no_grad():
        for copy in (fresh, pickle.loads(pickle.dumps(network))):
            assert copy.fitted
            assert torch.equal(copy.log_prob(codes), network.log_prob(codes))


def test_network_is_reproducible_and_leaves_the_global_generator():
    before = torch.get_rng_state()
    fits = []
    for _ in range(2):
        prior = AutoregressiveCodePrior(3, 4, embedding_dim=4, hidden_size=8, max_epochs=1)
        fits.append(prior.fit(some_codes(40), torch.Generator().manual_seed(5)))
    assert all(
        torch.equal(a, b) for a, b in zip(fits[0].parameters(), fits[1].parameters(), strict=True)
    )
    assert torch.equal(before, torch.get_rng_state())


def test_priors_follow_the_protocol(network):
    assert isinstance(network, CodePrior)
    assert isinstance(MarkovCodePrior(3), CodePrior)
