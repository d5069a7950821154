"""Roles of the latent groups at the start of training."""

from __future__ import annotations

import math

import pytest
import torch

from tsvae.lds import LinearDynamicsPosterior
from tsvae.models.start import (
    StateRoles,
    filter_bank,
    rotation_start,
    seasonal_angles,
    state_roles,
)


def roles_of(n_groups, periods=(12.0,), memory=100, seed=0):
    return state_roles(n_groups, periods, memory, torch.Generator().manual_seed(seed))


def periods_of(angles):
    return [2 * math.pi / angle for angle in angles]


# -- seasonal angles -------------------------------------------------------------------------------


def test_harmonics_go_order_by_order():
    found = periods_of(seasonal_angles([24.0, 168.0], longest=1000))
    orders = [24 / n if period == 24 else 168 / n for n in range(1, 7) for period in (24, 168)]
    # The 7th harmonic of the week would be the day; none of the first six meets one of the day's.
    assert found == pytest.approx(orders)


def test_a_harmonic_known_already_is_left_out():
    found = periods_of(seasonal_angles([24.0, 12.0], longest=1000))
    assert found == pytest.approx([24, 12, 6, 8, 4, 3, 24 / 5, 12 / 5, 2])


def test_only_what_the_steps_can_show():
    """No period below two steps (aliased) and none longer than the data can show."""
    assert periods_of(seasonal_angles([7.0], longest=100)) == pytest.approx([7, 7 / 2, 7 / 3])
    assert periods_of(seasonal_angles([365.25], longest=100)) == pytest.approx(
        [365.25 / 4, 365.25 / 5, 365.25 / 6]
    )
    assert seasonal_angles([1.5], longest=100) == []
    assert seasonal_angles([], longest=100) == []


# -- roles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_groups", [1, 2, 3, 4, 8, 16, 33])
@pytest.mark.parametrize("periods", [(), (12.0,), (24.0, 168.0)])
def test_every_group_has_a_role(n_groups, periods):
    roles = roles_of(n_groups, periods)
    assert all(part.shape == (n_groups,) for part in roles)
    assert (roles.half_lives >= 1).all()
    assert ((roles.angles >= 0) & (roles.angles <= math.pi + 1e-6)).all()


def test_counts():
    """A quarter levels, a quarter free, seasons between them."""
    roles = roles_of(16)
    assert (roles.angles == 0).sum() == 4
    assert (roles.angles[:4] == 0).all()
    harmonics = torch.tensor(seasonal_angles([12.0], 100))
    seasonal = roles.angles[4:12]
    torch.testing.assert_close(seasonal, harmonics[torch.arange(8) % len(harmonics)])
    assert (roles.angles[12:] <= 0.5 * math.pi).all()


@pytest.mark.parametrize(
    ("n_groups", "periods", "n_trends"),
    [(1, (), 0), (4, (12.0,), 0), (7, (12.0,), 0), (8, (12.0,), 1), (8, (), 1), (32, (24.0,), 1)],
)
def test_the_first_of_several_levels_is_a_trend(n_groups, periods, n_trends):
    roles = roles_of(n_groups, periods)
    assert roles.trends.tolist() == [True] * n_trends + [False] * (n_groups - n_trends)
    assert (roles.angles[roles.trends] == 0).all()


def test_a_second_round_of_harmonics_is_damped_otherwise():
    roles = roles_of(16)
    assert roles.angles[4] == roles.angles[10]
    assert roles.half_lives[4] == 1000.0 and roles.half_lives[10] == 200.0
    assert roles.memories[4] == 100.0 and roles.memories[10] == 30.0


@pytest.mark.parametrize("memory", [200, 1000])
def test_levels_follow_spaced_reaches(memory):
    """Trend and first level at the memory, then equal ratios down to a hundredth of it."""
    roles = roles_of(32, memory=memory)
    half_lives, memories = roles.half_lives[:8].double(), roles.memories[:8].double()
    assert half_lives[0] == half_lives[1] == 10 * memory
    assert half_lives[-1].item() == pytest.approx(0.1 * memory)
    ratios = half_lives[2:] / half_lives[1:-1]
    torch.testing.assert_close(ratios, torch.full_like(ratios, 0.01 ** (1 / 6)))
    torch.testing.assert_close(memories, (half_lives / 20).clamp_min(1.0))


def test_nothing_is_shorter_than_a_step():
    roles = roles_of(32, memory=1)
    assert (roles.half_lives >= 1).all() and (roles.memories >= 1).all()


def test_one_group_with_a_season_is_seasonal():
    assert roles_of(1).angles.item() == pytest.approx(2 * math.pi / 12)
    assert roles_of(1, periods=()).angles.item() == 0.0


def test_without_seasons_all_but_the_levels_are_free():
    roles = roles_of(8, periods=())
    assert (roles.angles == 0).sum() == 2
    assert roles.half_lives[2:6].tolist() == [100.0, 30.0, 10.0, 3.0]


def test_free_frequencies_come_from_the_generator():
    assert torch.equal(roles_of(8).angles, roles_of(8).angles)
    one, other = roles_of(8).angles, roles_of(8, seed=1).angles
    assert torch.equal(one[:6], other[:6]) and not torch.equal(one[6:], other[6:])


def test_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    roles_of(8)
    assert torch.equal(torch.random.get_rng_state(), before)


# -- the start itself ------------------------------------------------------------------------------


def some_roles(angles, half_lives, memories, trends=None):
    trends = [False] * len(angles) if trends is None else trends
    free = [False] * len(angles)
    return StateRoles(*map(torch.tensor, (angles, half_lives, memories, trends, free)))


def test_start_turns_and_halves_as_said():
    roles = some_roles([0.0, 2 * math.pi / 12], [50.0, 24.0], [9.0, 9.0])
    a = rotation_start(roles).transition_matrix.double()
    after = torch.linalg.matrix_power(a[1], 24)  # two turns, one half-life
    torch.testing.assert_close(after, 0.5 * torch.eye(2).double(), rtol=1e-5, atol=1e-5)
    after = torch.linalg.matrix_power(a[0], 50)
    torch.testing.assert_close(after, 0.5 * torch.eye(2).double(), rtol=1e-5, atol=1e-5)


def test_a_trend_rises_by_its_slope():
    """Slope 1 lifts the level by 10 / half-life per step, both damped alike."""
    roles = some_roles([0.0, 0.0], [500.0, 500.0], [9.0, 9.0], [True, False])
    a = rotation_start(roles).transition_matrix.double()
    level, slope = 0.0, 1.0
    for _ in range(20):
        level, slope = level + slope * 10 / 500 / 0.5 ** (1 / 500), slope
        level, slope = 0.5 ** (1 / 500) * level, 0.5 ** (1 / 500) * slope
    got = torch.linalg.matrix_power(a[0], 20) @ torch.tensor([0.0, 1.0]).double()
    torch.testing.assert_close(got, torch.tensor([level, slope]).double(), rtol=1e-4, atol=1e-5)
    assert level == pytest.approx(0.4, rel=0.05)
    assert a[0, 1, 0] == 0  # the slope does not see the level
    assert a[1, 0, 1] == a[1, 1, 0] == 0  # a level has no slope


@pytest.mark.parametrize("memory", [1, 10, 100, 10_000])
@pytest.mark.parametrize("periods", [(), (12.0,), (24.0, 168.0, 8766.0)])
def test_start_is_stable_and_proper(memory, periods):
    start = rotation_start(roles_of(16, periods, memory), n_inputs=3)
    assert (torch.linalg.eigvals(start.transition_matrix).abs() < 1).all()
    assert (torch.linalg.eigvalsh(start.noise_covariance) > 0).all()
    eye = torch.eye(2).expand(16, 2, 2)
    assert torch.equal(start.initial_covariance, eye)
    assert start.input_matrix.shape == (16, 2, 3) and not start.input_matrix.any()
    assert not start.bias.any() and start.excess is None
    assert all(part.dtype == torch.float32 for part in start if part is not None)


def steady_gain(noise, precision):
    """Gain of a scalar random walk's Kalman filter after many steps."""
    variance = 1.0
    for _ in range(20_000):
        predicted = variance + noise
        gain = predicted / (predicted + 1.0 / precision)
        variance = (1.0 - gain) * predicted
    return gain


@pytest.mark.parametrize("precision", [0.1, 1.0, 25.0])
@pytest.mark.parametrize("memory", [5.0, 20.0, 300.0])
def test_the_filter_averages_over_the_memory(memory, precision):
    roles = some_roles([0.0], [1e6], [memory])
    noise = rotation_start(roles, precision=precision).noise_covariance[0].double()
    assert steady_gain(noise[0, 0].item(), precision) == pytest.approx(1 / memory, rel=0.2)
    assert noise[0, 1] == noise[1, 0] == 0 and noise[0, 0] == noise[1, 1]


def test_a_trend_moves_its_level_fast_and_its_slope_slowly():
    roles = some_roles([0.0, 0.0], [1e4, 1e4], [200.0, 200.0], [True, False])
    noise = rotation_start(roles, precision=4.0).noise_covariance
    trend, level = noise.diagonal(dim1=1, dim2=2).double()
    assert steady_gain(trend[0].item(), 4.0) == pytest.approx(1 / 6, rel=0.2)
    assert trend[1] == level[0] == level[1]


def close_groups(got, start, keep):
    torch.testing.assert_close(
        got.transition_matrix[keep], start.transition_matrix[keep], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(got.noise_covariance, start.noise_covariance, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(got.initial_covariance, start.initial_covariance)
    torch.testing.assert_close(got.input_matrix, start.input_matrix)


@pytest.mark.parametrize("posterior", ["natural", "gradient", "point"])
def test_dynamics_begin_there(posterior):
    start = rotation_start(roles_of(8), n_inputs=2)
    theta = LinearDynamicsPosterior(16, group_size=2, n_inputs=2, posterior=posterior, start=start)
    close_groups(theta.plug_in(), start, torch.arange(8))


@pytest.mark.parametrize("posterior", ["gradient", "point"])
def test_the_generator_chart_begins_as_near_as_it_can(posterior):
    """No disturbance may grow there, as a trend's does: a slow turn that starts as a rise."""
    roles = roles_of(8)
    start = rotation_start(roles)
    theta = LinearDynamicsPosterior(
        16, group_size=2, posterior=posterior, chart="generator", start=start
    )
    got = theta.plug_in()
    close_groups(got, start, ~roles.trends)
    # The symmetric part of the generator is held to the decay, the turning part stays.
    decay = math.log(2) / roles.half_lives[0].item()
    turn = 0.5 * start.transition_matrix[0, 0, 1].item() * math.exp(decay)
    nearest = [[-decay, turn + 0.999 * decay], [0.999 * decay - turn, -decay]]
    expected = torch.linalg.matrix_exp(torch.tensor(nearest).double())
    trend = got.transition_matrix[0].double()
    torch.testing.assert_close(trend, expected, rtol=1e-3, atol=1e-5)
    assert trend[0, 1] > 0 and torch.linalg.eigvals(trend).abs().max() < 1


# -- the filter bank -------------------------------------------------------------------------------


def banks_of(roles, precision=0.1, fixed_seasons=False, n_seeds=400):
    """Mean emission over seeds, so that the noise that breaks ties is gone, and one bank."""
    banks = [
        filter_bank(roles, torch.Generator().manual_seed(seed), precision, fixed_seasons)
        for seed in range(n_seeds)
    ]
    emission = torch.stack([bank.emission for bank in banks]).mean(0)
    return emission.unflatten(0, (-1, 2)), banks[0]


def frequencies_of(roles, keep):
    """Groups by frequency."""
    found = {}
    for group in torch.arange(len(roles.angles))[keep].tolist():
        found.setdefault(round(roles.angles[group].item(), 5), []).append(group)
    return found


@pytest.mark.parametrize("n_groups", [4, 16, 32])
def test_shares_of_a_frequency_sum_to_one(n_groups):
    roles = roles_of(n_groups)
    emission, _ = banks_of(roles)
    n_free = n_groups // 4
    for angle, groups in frequencies_of(roles, slice(0, n_groups - n_free)).items():
        shares = emission[groups, 0]
        assert shares.sum().item() == pytest.approx(1.0, abs=0.01), angle
        if angle > 0:
            torch.testing.assert_close(
                shares, torch.full_like(shares, 1 / len(groups)), rtol=0, atol=0.01
            )
    assert emission[n_groups - n_free :].abs().max() < 0.01
    assert emission[:, 1].abs().max() < 0.01  # quadrature and slope are never read


def test_the_trend_alone_gives_the_level():
    emission, _ = banks_of(roles_of(16))
    assert emission[0, 0].item() == pytest.approx(1.0, abs=0.01)
    assert emission[1:4].abs().max() < 0.01


def test_a_fixed_seasonal_pattern_leaves_rotations_no_part():
    roles = roles_of(16)
    emission, _ = banks_of(roles, fixed_seasons=True)
    assert emission[roles.angles > 0].abs().max() < 0.01
    assert emission[0, 0].item() == pytest.approx(1.0, abs=0.01)


def test_slope_and_quadrature_are_unseen():
    _, bank = banks_of(roles_of(16), precision=7.0, n_seeds=1)
    precision, scale = (part.unflatten(0, (16, 2)) for part in (bank.precision, bank.input_scale))
    torch.testing.assert_close(precision[:, 0], torch.full((16,), 7.0))
    assert (precision[:, 1] > 0).all() and (precision[:, 1] < 0.01 * precision[:, 0]).all()
    assert (scale[:, 0] == 1).all() and (scale[:, 1] == 0).all()


def test_ties_are_broken_by_the_generator():
    roles = roles_of(16)
    one, again, other = (
        filter_bank(roles, torch.Generator().manual_seed(seed)).emission for seed in (0, 0, 1)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert len(one.unique()) == len(one)
    before = torch.random.get_rng_state()
    filter_bank(roles, torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_bank_follows_a_line():
    """Filter and decode a noisy line with the trend alone: late errors are near the noise."""
    roles = roles_of(8, memory=200)
    start = rotation_start(roles, precision=4.0)
    a, q = start.transition_matrix[0].double(), start.noise_covariance[0].double()
    noise = 0.5 * torch.randn(400, generator=torch.Generator().manual_seed(3)).double()
    line = 0.02 * torch.arange(400).double()
    mean, covariance = torch.zeros(2).double(), torch.eye(2).double()
    errors = []
    for truth, shake in zip(line, noise, strict=True):
        mean, covariance = a @ mean, a @ covariance @ a.T + q
        errors.append((mean[0] - truth).item())
        gain = covariance[:, 0] / (covariance[0, 0] + 0.25)  # 1 / precision
        mean = mean + gain * (truth + shake - mean[0])
        covariance = covariance - torch.outer(gain, covariance[0])
    late = torch.tensor(errors[200:])
    assert late.square().mean().sqrt() < 0.35 and late.mean().abs() < 0.15


def test_without_seasons_all_groups_but_the_levels_start_silent():
    generator = torch.Generator().manual_seed(0)
    roles = state_roles(16, [], 100, generator)
    emission = filter_bank(roles, generator).emission.unflatten(0, (-1, 2))[:, 0]
    assert roles.free.sum() == 12
    assert emission[0] == pytest.approx(1.0, abs=0.1)
    assert emission[1:].abs().max() < 0.1
