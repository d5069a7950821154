"""Where the transition begins: latent groups with roles that a reader of time series knows.

A quarter of the groups are levels and trends of several memories, most of the others are damped
rotations at the seasonal periods and their harmonics, the rest are free rotations spread over
frequencies. They are a start only: training moves all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds import LDSParameters, make_parameters

__all__ = [
    "PRECISION_START",
    "FilterBank",
    "StateRoles",
    "filter_bank",
    "rotation_start",
    "seasonal_angles",
    "state_roles",
    "with_slopes",
]

_LEVEL_SHARE, _FREE_SHARE = 4, 4  # one group in four each
_FREE_HALF_LIVES = (100.0, 30.0, 10.0, 3.0)
_N_HARMONICS = 6
_UNSEEN = 1e-3  # of a coordinate that x does not show
_TIE_NOISE = 0.02
_TREND_MEMORY = 6.0  # steps over which the level of a trend averages
_SLOPE_TURN = 0.1  # radians that a slow wave turns in a group's memory
_LEVEL_SPACING = 0.01  # shortest memory of a level over the longest
#: Precision of a complete observation at the start, in units of the prior's.
PRECISION_START = 0.1


class StateRoles(NamedTuple):
    """Roles of the G groups at the start.

    Attributes
    ----------
    angles : Tensor (G,)
        Radians per step; 0 for levels.
    half_lives : Tensor (G,)
        Steps after which a disturbance has halved.
    memories : Tensor (G,)
        Steps over which the filter averages: the start of the process noise.
    trends : Tensor of bool (G,)
        Groups of a level and its slope.
    free : Tensor of bool (G,)
        Groups without a role: rotations at random frequencies.
    """

    angles: Tensor
    half_lives: Tensor
    memories: Tensor
    trends: Tensor
    free: Tensor


def seasonal_angles(
    periods: Sequence[float], longest: float, n_harmonics: int = _N_HARMONICS
) -> list[float]:
    """Angular frequencies of seasonal periods and their harmonics, in order of importance.

    Harmonics of one order come before those of the next; those shorter than two steps, longer
    than ``longest`` or already there (within 1 %) are left out.

    Parameters
    ----------
    periods : sequence of float
        In steps.
    longest : float
        Longest period that the data can show.
    n_harmonics : int, default=6

    Returns
    -------
    list of float
        Radians per step.

    Examples
    --------
    >>> [round(2 * math.pi / angle, 2) for angle in seasonal_angles([12.0], 100)]
    [12.0, 6.0, 4.0, 3.0, 2.4, 2.0]
    """
    angles: list[float] = []
    for order in range(1, n_harmonics + 1):
        for period in periods:
            length = period / order
            angle = 2.0 * math.pi / length
            known = any(abs(angle - other) < 0.01 * other for other in angles)
            if 2.0 <= length <= longest and not known:
                angles.append(angle)
    return angles


def state_roles(
    n_groups: int, periods: Sequence[float], memory: int, generator: torch.Generator
) -> StateRoles:
    """Roles of the groups.

    Parameters
    ----------
    n_groups : int
        G.
    periods : sequence of float
        Seasonal periods in steps, most important first.
    memory : int
        Steps of history that the model reads.
    generator : torch.Generator
        Draws the free frequencies.

    Returns
    -------
    StateRoles
    """
    seasons = seasonal_angles(periods, longest=max(memory, 4))
    n_levels = max(1, n_groups // _LEVEL_SHARE) if n_groups > 1 or not seasons else 0
    n_free = n_groups // _FREE_SHARE if seasons else n_groups - n_levels
    n_seasonal = n_groups - n_levels - n_free
    draws = torch.rand(max(n_free, 1), generator=generator)
    angles, half_lives, memories = [], [], []
    for g in range(n_levels):
        # The first level carries the trend: it follows fast, its slope slowly.
        reach = float(memory) * _LEVEL_SPACING ** (max(g - 1, 0) / max(n_levels - 2, 1))
        angles.append(0.0)
        half_lives.append(10.0 * reach)
        memories.append(0.5 * reach)
    for g in range(n_seasonal):
        angle, turn = seasons[g % len(seasons)], g // len(seasons)
        angles.append(angle)
        half_lives.append((10.0, 2.0, 0.5)[turn % 3] * memory)
        memories.append((1.0, 0.3, 0.1)[turn % 3] * memory)
    for g in range(n_free):
        angles.append(0.5 * math.pi * float(draws[g]))
        half_lives.append(_FREE_HALF_LIVES[g % len(_FREE_HALF_LIVES)])
        memories.append(0.3 * half_lives[-1])
    trends = torch.arange(n_groups) < (1 if n_levels > 1 else 0)
    return StateRoles(
        torch.tensor(angles),
        torch.tensor(half_lives).clamp_min(1.0),
        torch.tensor(memories).clamp_min(1.0),
        trends,
        torch.arange(n_groups) >= n_levels + n_seasonal,
    )


def with_slopes(roles: StateRoles) -> StateRoles:
    """Let all levels but the first turn a little: their second coordinate is then a slope.

    A wave much longer than a group's memory is a level and a trend of that memory; at frequency 0
    the second coordinate would stay at zero.

    Parameters
    ----------
    roles : StateRoles

    Returns
    -------
    StateRoles

    Examples
    --------
    >>> roles = state_roles(8, [], 100, torch.Generator().manual_seed(0))
    >>> with_slopes(roles).angles[:2]
    tensor([0.0000, 0.0020])
    """
    slow = (_SLOPE_TURN / roles.memories).clamp_max(1.0)
    levels = (roles.angles == 0) & (torch.arange(len(slow)) > 0)
    return roles._replace(angles=torch.where(levels, slow, roles.angles))


def rotation_start(
    roles: StateRoles, n_inputs: int = 0, precision: float = PRECISION_START
) -> LDSParameters:
    """Damped rotations and trends with unit initial covariance and a little process noise.

    A trend's second coordinate is its slope, in units of one per tenth of a half-life.

    Parameters
    ----------
    roles : StateRoles
    n_inputs : int, default=0
        U; their effect starts at zero.
    precision : float, default=PRECISION_START
        Of an observation: the process noise starts where the filter has the roles' memories.

    Returns
    -------
    LDSParameters
        G groups of size 2.
    """
    angle, half_life = roles.angles.double(), roles.half_lives.double()
    radius = 0.5 ** (1.0 / half_life)
    cosine, sine = radius * angle.cos(), radius * angle.sin()
    rotation = torch.stack((cosine, -sine, sine, cosine), dim=1).unflatten(1, (2, 2))
    shear = torch.zeros_like(rotation)
    shear[:, 0, 1] = torch.where(roles.trends, 10.0 / half_life, 0.0)
    rotation = rotation + shear
    eye = torch.eye(2, dtype=torch.float64).expand_as(rotation)
    # Steady gain k of a random walk seen with precision L: k^2 = Q L for small k.
    gain = roles.memories.double().reciprocal()
    level_gain = torch.where(roles.trends, 1.0 / _TREND_MEMORY, gain)
    noise = torch.diag_embed(torch.stack((level_gain, gain), dim=1) ** 2) / precision
    start = make_parameters(
        rotation,
        noise,
        initial_covariance=eye,
        input_matrix=rotation.new_zeros(len(angle), 2, n_inputs),
    )
    single = {name: part.float() for name, part in start._asdict().items() if part is not None}
    return LDSParameters(**single)


class FilterBank(NamedTuple):
    """Start of encoder and decoder of one variable.

    Attributes
    ----------
    precision : Tensor (D,)
        Of an observation for each latent coordinate.
    input_scale : Tensor (D,)
        Location of a coordinate per unit of x.
    emission : Tensor (D,)
        x per unit of a coordinate.
    """

    precision: Tensor
    input_scale: Tensor
    emission: Tensor


def filter_bank(
    roles: StateRoles,
    generator: torch.Generator,
    precision: float = PRECISION_START,
    fixed_seasons: bool = False,
) -> FilterBank:
    """Start as a bank of filters: each group follows its own frequency of x.

    The first coordinate of a group sees x, the second (quadrature or slope) follows by the
    dynamics. The trend reconstructs the level; rotations of one frequency share its
    reconstruction; the other levels and free groups start with none. A little noise breaks ties.

    Parameters
    ----------
    roles : StateRoles
    generator : torch.Generator
    precision : float, default=PRECISION_START
        Of an observation.
    fixed_seasons : bool, default=False
        A fixed seasonal pattern is taken off x: rotations start with no part in it.

    Returns
    -------
    FilterBank
    """
    n_groups = len(roles.angles)
    alike = (roles.angles[:, None] - roles.angles[None, :]).abs() < 1e-6
    share = 1.0 / alike.sum(1)
    if bool(roles.trends.any()):
        share = torch.where(roles.angles == 0, roles.trends.float(), share)
    silent = roles.free | (roles.angles > 0) if fixed_seasons else roles.free
    first = torch.stack((torch.ones(n_groups), torch.zeros(n_groups)), dim=1)
    shaken = _TIE_NOISE * torch.randn(n_groups, 2, generator=generator)
    seen = precision * (first + (1.0 - first) * _UNSEEN)
    emission = torch.where(silent, 0.0, share)[:, None] * first + shaken
    return FilterBank(seen.flatten(), first.flatten(), emission.flatten())
