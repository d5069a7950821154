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

__all__ = ["StateRoles", "precision_start", "rotation_start", "seasonal_angles", "state_roles"]

_LEVEL_SHARE, _FREE_SHARE = 4, 4  # one group in four each
_FREE_HALF_LIVES = (100.0, 30.0, 10.0, 3.0)
_N_HARMONICS = 6
_UNSEEN = 1e-4
_NOISE_SHARE = 0.01  # process variance over the stationary one, at the start


class StateRoles(NamedTuple):
    """Roles of the G groups at the start.

    Attributes
    ----------
    angles : Tensor (G,)
        Radians per step; 0 for levels.
    half_lives : Tensor (G,)
        Steps after which a disturbance has halved.
    trends : Tensor of bool (G,)
        Groups of a level and its slope.
    """

    angles: Tensor
    half_lives: Tensor
    trends: Tensor


def seasonal_angles(periods: Sequence[float], longest: float) -> list[float]:
    """Angular frequencies of seasonal periods and their harmonics, in order of importance.

    Harmonics of one order come before those of the next; those shorter than two steps, longer
    than ``longest`` or already there (within 1 %) are left out.

    Parameters
    ----------
    periods : sequence of float
        In steps.
    longest : float
        Longest period that the data can show.

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
    for order in range(1, _N_HARMONICS + 1):
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
    slow = [float(memory) * share for share in (10.0, 4.0, 1.0, 0.4)]
    levels = [*slow, *(half for half in (60.0, 20.0, 6.0, 2.0) if half < 0.3 * memory)]
    damping = [10.0 * memory, float(memory), 0.2 * memory]
    draws = torch.rand(max(n_free, 1), generator=generator)
    angles, half_lives = [], []
    for g in range(n_levels):
        angles.append(0.0)
        half_lives.append(levels[g % len(levels)])
    for g in range(n_seasonal):
        angles.append(seasons[g % len(seasons)])
        half_lives.append(damping[(g // len(seasons)) % len(damping)])
    for g in range(n_free):
        angles.append(0.5 * math.pi * float(draws[g]))
        half_lives.append(_FREE_HALF_LIVES[g % len(_FREE_HALF_LIVES)])
    trends = torch.arange(n_groups) < (1 if n_levels > 1 else 0)
    return StateRoles(torch.tensor(angles), torch.tensor(half_lives).clamp_min(1.0), trends)


def rotation_start(roles: StateRoles, n_inputs: int = 0) -> LDSParameters:
    """Damped rotations and trends with unit initial covariance and a little process noise.

    A trend's second coordinate is its slope, in units of one per tenth of a half-life.

    Parameters
    ----------
    roles : StateRoles
    n_inputs : int, default=0
        U; their effect starts at zero.

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
    noise = _NOISE_SHARE * (1.0 - radius**2 + 1e-3)
    start = make_parameters(
        rotation,
        noise[:, None, None] * eye,
        initial_covariance=eye,
        input_matrix=rotation.new_zeros(len(angle), 2, n_inputs),
    )
    single = {name: part.float() for name, part in start._asdict().items() if part is not None}
    return LDSParameters(**single)


def precision_start(roles: StateRoles, precision: float) -> list[float]:
    """Starting precision of the encoder per latent coordinate.

    Slopes are not seen: they start almost without precision of their own.

    Parameters
    ----------
    roles : StateRoles
    precision : float
        Of all other coordinates.

    Returns
    -------
    list of float, length D
    """
    return [
        precision * (_UNSEEN if coordinate == 1 and trend else 1.0)
        for trend in roles.trends.tolist()
        for coordinate in (0, 1)
    ]
