"""Roles of the latent groups at the start of training."""

from __future__ import annotations

import math

import pytest
import torch

from tsvae.lds import LinearDynamicsPosterior
from tsvae.models.start import StateRoles, rotation_start, seasonal_angles, state_roles


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
    assert roles.angles.shape == roles.half_lives.shape == (n_groups,)
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


def test_a_second_round_of_harmonics_is_damped_otherwise():
    roles = roles_of(16)
    assert roles.angles[4] == roles.angles[10]
    assert roles.half_lives[4] == 1000.0 and roles.half_lives[10] == 100.0


def test_levels_have_several_memories():
    roles = roles_of(32)
    levels = roles.half_lives[:8].tolist()
    # Short ones only below 0.3 of the memory; then from the beginning again.
    assert levels == pytest.approx([1000, 400, 100, 40, 20, 6, 2, 1000])


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


def test_start_turns_and_halves_as_said():
    roles = StateRoles(torch.tensor([0.0, 2 * math.pi / 12]), torch.tensor([50.0, 24.0]))
    a = rotation_start(roles).transition_matrix.double()
    after = torch.linalg.matrix_power(a[1], 24)  # two turns, one half-life
    torch.testing.assert_close(after, 0.5 * torch.eye(2).double(), rtol=1e-5, atol=1e-5)
    after = torch.linalg.matrix_power(a[0], 50)
    torch.testing.assert_close(after, 0.5 * torch.eye(2).double(), rtol=1e-5, atol=1e-5)


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


def test_noise_is_small_beside_the_state():
    """Stationary variance of a damped rotation is noise / (1 - radius^2)."""
    start = rotation_start(roles_of(16))
    noise = start.noise_covariance[:, 0, 0].double()
    radius = torch.linalg.eigvals(start.transition_matrix).abs().amax(-1).double()
    stationary = noise / (1 - radius**2)
    assert (stationary > 0.009).all() and (stationary < 0.05).all()


@pytest.mark.parametrize("chart", ["linear", "generator"])
def test_dynamics_begin_there(chart):
    start = rotation_start(roles_of(8))
    theta = LinearDynamicsPosterior(
        16, group_size=2, posterior="gradient", chart=chart, start=start
    )
    got = theta.plug_in()
    torch.testing.assert_close(got.transition_matrix, start.transition_matrix, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.noise_covariance, start.noise_covariance, rtol=1e-4, atol=1e-7)
