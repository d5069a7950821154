from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsvae.training import BetaSchedule, Plateau, learning_rate_factor, train

EXAMPLES = settings(deadline=None, derandomize=True, max_examples=30)


def test_cosine_with_warm_up_by_hand():
    factors = [learning_rate_factor("cosine", s, 12, warmup_steps=4) for s in range(13)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    expected = [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(9)]
    assert factors[4:] == pytest.approx(expected)
    assert factors[8] == pytest.approx(0.5) and factors[12] == 0.0
    assert learning_rate_factor("cosine", 40, 12) == 0.0


def test_one_cycle_matches_torch():
    total, peak = 40, 0.3
    p = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([p], lr=1.0)
    # torch reaches its peak at step 0.3 * total - 1 and its end at total - 1
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=total + 1)
    values = []
    for _ in range(total + 1):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step() if len(values) <= total else None
    ours = [peak * learning_rate_factor("one_cycle", s, total) for s in range(total + 1)]
    assert ours[0] == pytest.approx(values[0]) == pytest.approx(peak / 25)
    assert max(ours) == pytest.approx(peak) == pytest.approx(max(values), rel=5e-3)
    assert ours[-1] == pytest.approx(peak / 25 * 1e-4) == pytest.approx(values[-1], rel=1e-6)
    assert ours.index(max(ours)) == 12
    assert ours[6] == pytest.approx(peak * (1 / 25 + 1) / 2)  # half-way up


def test_constant_and_unknown_names():
    assert learning_rate_factor("constant", 7, 10) == 1.0
    assert learning_rate_factor("plateau", 0, 10, warmup_steps=2) == 0.5
    with pytest.raises(ValueError, match="'one_cycle', got 'linear'"):
        learning_rate_factor("linear", 0, 10)


def test_plateau_halves_after_five_epochs_without_improvement():
    plateau = Plateau()
    factors = [plateau.update(v) for v in [2.0, 1.0] + [1.0] * 13]
    # epochs 2..6 are endured, the sixth in a row (epoch 7) halves; then six more
    assert factors == [1.0] * 7 + [0.5] * 6 + [0.25] * 2


def test_plateau_state_round_trip():
    plateau = Plateau(patience=1)
    for value in (1.0, 1.0):
        plateau.update(value)
    twin = Plateau(patience=1)
    twin.load_state_dict(plateau.state_dict())
    assert twin == plateau and twin.update(1.0) == 0.5


def test_rates_of_a_run_are_the_schedule_times_the_peak(toys):
    config = toys.config(
        max_epochs=10, learning_rate=0.2, natural_learning_rate=0.01, lr_schedule="plateau"
    )

    class Flat(toys.Quadratic):
        def training_step(self, batch, step):
            result = super().training_step(batch, step)
            return result._replace(objective=result.objective * 0.0 + 1.0)

    log = train(Flat(), toys.target, config=config, generator=toys.generator())
    assert log["learning_rate"] == pytest.approx([0.2] * 7 + [0.1] * 3)
    config = toys.config(max_epochs=4, learning_rate=0.2, lr_schedule="cosine", warmup_steps=2)
    log = train(toys.Quadratic(), toys.target, config=config, generator=toys.generator())
    assert log["learning_rate"] == pytest.approx([0.1, 0.2, 0.2, 0.1])


def test_beta_by_hand():
    beta = BetaSchedule()
    assert [beta.value(s) for s in (0, 499, 500)] == [0.001] * 3
    assert beta.value(750) == pytest.approx(0.5005)
    assert beta.value(1000) == beta.value(10**6) == 1.0
    assert beta.complete_step == 1000
    assert beta.fit_to(10_000) is beta
    short = beta.fit_to(1000)
    assert (short.warmup_steps, short.annealing_steps) == (150, 150)


@EXAMPLES
@given(
    st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 20_000), st.sampled_from([0.1, 0.3])
)
def test_beta_is_complete_in_time_and_never_falls(warmup, annealing, total, fraction):
    beta = BetaSchedule(0.01, 0.7, warmup, annealing).fit_to(total, fraction)
    limit = max(int(fraction * total), 0)
    assert beta.complete_step <= max(limit, 0) or beta.complete_step == 0
    assert beta.complete_step == min(warmup + annealing, limit)
    values = [beta.value(s) for s in range(0, beta.complete_step + 2, 7)]
    assert all(a <= b for a, b in pairwise(values))
    assert beta.value(beta.complete_step) == 0.7
    if beta.complete_step:
        assert beta.value(beta.complete_step - 1) < 0.7 and beta.value(0) == 0.01


@pytest.mark.parametrize("name", ["beta_min", "beta_max", "warmup_steps", "annealing_steps"])
def test_bad_beta_settings_are_named(name):
    with pytest.raises(ValueError, match=name):
        BetaSchedule(**{name: -1})
    with pytest.raises(ValueError, match="fraction"):
        BetaSchedule().fit_to(10, 1.5)
