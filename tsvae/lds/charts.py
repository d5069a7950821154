r"""Coordinates of a stable transition matrix in which ordinary gradient steps are well scaled.

An optimizer that moves each entry of A by a similar amount cannot keep a half-life of thousands of
steps: 0.9999 and 0.99 differ by less than one step of a usual learning rate. For groups of one and
two the transition is therefore written as :math:`A = \exp(\Gamma)` with

.. math::
    \Gamma = -a I + \begin{pmatrix} b & c - \omega \\ c + \omega & -b \end{pmatrix}, \quad
    a = e^{\alpha}, \quad (b, c) = a\,\frac{(p, q)}{\sqrt{1 + p^2 + q^2}},

in free coordinates :math:`(\alpha, \omega, p, q)`: log decay rate, angular frequency, and a shear
that allows two real eigenvalues (a damped trend, for one). The eigenvalues of Gamma are
:math:`-a \pm \sqrt{b^2 + c^2 - \omega^2}` with :math:`b^2 + c^2 < a^2`, so every value of the
coordinates is stable. In closed form, with :math:`\delta^2 = b^2 + c^2 - \omega^2` and N the
traceless part, :math:`A = e^{-a}(\cosh\delta\, I + \tfrac{\sinh\delta}{\delta} N)`.

The condition :math:`b^2 + c^2 < a^2` is that of dissipative generators: no disturbance grows, not
even for a while. A damped trend ``[[r, s], [0, r]]``, for one, is reached if
:math:`|s| < -2 r \log r`.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["GENERATOR_SIZES", "coordinates_from_transition", "transition_from_coordinates"]

#: Number of coordinates by group size.
GENERATOR_SIZES = {1: 1, 2: 4}

_SMALL = 1e-4
_LARGEST_SHEAR = 0.999
_HALF_TURN = 1e-5  # of the radius: this near to -r I a matrix is taken as the rotation by pi
_SLOWEST, _FASTEST = 1e-6, 20.0
# Coordinates act as if within these: a half-life of six million steps at one end, and on all sides
# room for their squares in float32.
_LOG_RATES = (-16.0, 10.0)
_LARGEST_TURN, _LARGEST_FREE = 1e4, 1e3


def transition_from_coordinates(coordinates: Tensor) -> Tensor:
    """Stable transition matrices from free coordinates.

    Parameters
    ----------
    coordinates : Tensor (G, 1) or (G, 4)
        alpha, or (alpha, omega, p, q). Beyond [-16, 10] for alpha, [-1e4, 1e4] for omega and
        [-1e3, 1e3] for p and q the nearest bound is used.

    Returns
    -------
    Tensor (G, K, K)
        K = 1 or 2; spectral radius below 1, up to rounding.

    Examples
    --------
    >>> quarter_turn = torch.tensor([[-20.0, torch.pi / 2, 0.0, 0.0]])
    >>> transition_from_coordinates(quarter_turn).round(decimals=3).abs()
    tensor([[[0., 1.],
             [1., 0.]]])
    """
    rate = coordinates[:, 0].clamp(*_LOG_RATES).exp()
    if coordinates.shape[1] == 1:
        return (-rate).exp()[:, None, None]
    omega = coordinates[:, 1].clamp(-_LARGEST_TURN, _LARGEST_TURN)
    p, q = coordinates[:, 2:].clamp(-_LARGEST_FREE, _LARGEST_FREE).unbind(1)
    stretch = 1.0 + p * p + q * q
    shear = rate / stretch.sqrt()
    b, c = shear * p, shear * q
    cosh, sinhc = _damped_hyperbolic(
        b * b + c * c - omega * omega, rate, rate * rate / stretch + omega * omega
    )
    rows = (cosh + sinhc * b, sinhc * (c - omega), sinhc * (c + omega), cosh - sinhc * b)
    return torch.stack(rows, dim=1).unflatten(1, (2, 2))


def _damped_hyperbolic(square: Tensor, rate: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    """Return e^-a cosh(delta) and e^-a sinh(delta) / delta, given delta^2, a and a^2 - delta^2.

    Of real eigenvalues the two exponentials are taken one by one, so that a large rate does not
    make 0 * inf, and the slow one is e^-(gap / (a + delta)), without the cancellation in a - delta.
    """
    real = square > _SMALL
    delta = torch.where(real, square, torch.ones_like(square)).sqrt()
    slow, fast = (-gap / (rate + delta)).exp(), (-rate - delta).exp()
    cosh, sinhc = _hyperbolic(torch.where(real, torch.zeros_like(square), square))
    damping = (-rate).exp()
    return (
        torch.where(real, 0.5 * (slow + fast), damping * cosh),
        torch.where(real, 0.5 * (slow - fast) / delta, damping * sinhc),
    )


def _hyperbolic(square: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosh(delta) and sinh(delta) / delta of delta^2, which may be negative."""
    near = square.abs() < _SMALL
    one = torch.ones_like(square)
    size = torch.where(near, one, square.abs()).sqrt()
    growing = square > 0
    # Guard the branch that is not taken: its gradient must stay finite.
    real, turn = torch.where(growing, size, one), torch.where(growing, one, size)
    cosh = torch.where(growing, real.cosh(), turn.cos())
    sinhc = torch.where(growing, real.sinh() / real, turn.sin() / turn)
    series_c = 1.0 + square / 2.0 + square * square / 24.0
    series_s = 1.0 + square / 6.0 + square * square / 120.0
    return torch.where(near, series_c, cosh), torch.where(near, series_s, sinhc)


@torch.no_grad()
def coordinates_from_transition(transition: Tensor) -> Tensor:
    """Coordinates of given transition matrices; the nearest reachable ones where none exist.

    Parameters
    ----------
    transition : Tensor (G, K, K)
        K = 1 or 2, positive determinant, no negative real eigenvalues but those of a rotation by
        half a turn (a period of two steps), ``-r I`` up to rounding.

    Returns
    -------
    Tensor (G, 1) or (G, 4)

    Raises
    ------
    ValueError
        If K is above 2, or a matrix has no real logarithm.
    """
    size = transition.shape[-1]
    if size not in GENERATOR_SIZES:
        raise ValueError(
            f'chart="generator" is for group_size 1 or 2; got {size}. Use chart="linear".'
        )
    matrix = transition.double()
    determinant = matrix[:, 0, 0] if size == 1 else torch.linalg.det(matrix)
    half_trace = matrix.diagonal(dim1=1, dim2=2).mean(1)
    half_turn = _is_half_turn(matrix, half_trace)
    real = (half_trace**2 >= determinant) & ~half_turn
    if bool((determinant <= 0).any()) or bool((real & (half_trace <= 0)).any()):
        raise ValueError(
            "a transition matrix has a negative or zero eigenvalue and no real logarithm; start "
            'from another matrix or use chart="linear".'
        )
    rate = (-determinant.log() / size).clamp(_SLOWEST, _FASTEST)
    if size == 1:
        return rate.log()[:, None].to(transition)
    unit = matrix / determinant.sqrt()[:, None, None]
    cosh = 0.5 * (unit[:, 0, 0] + unit[:, 1, 1])
    delta = torch.where(cosh > 1, torch.acosh(cosh.clamp_min(1)), torch.acos(cosh.clamp(-1, 1)))
    sinhc = _hyperbolic(torch.where(cosh > 1, delta**2, -(delta**2)))[1]
    eye = torch.eye(2, dtype=unit.dtype, device=unit.device)
    traceless = (unit - cosh[:, None, None] * eye) / sinhc[:, None, None]
    turn = torch.tensor([[0.0, -torch.pi], [torch.pi, 0.0]], dtype=unit.dtype, device=unit.device)
    traceless = torch.where(half_turn[:, None, None], turn, traceless)
    b = traceless[:, 0, 0]
    c = 0.5 * (traceless[:, 0, 1] + traceless[:, 1, 0])
    omega = 0.5 * (traceless[:, 1, 0] - traceless[:, 0, 1])
    shear = torch.stack((b, c), dim=1) / rate[:, None]
    length = shear.norm(dim=1, keepdim=True)
    shear = shear * (_LARGEST_SHEAR / length.clamp_min(_LARGEST_SHEAR))
    free = shear / (1.0 - shear.square().sum(1, keepdim=True)).sqrt()
    return torch.cat((rate.log()[:, None], omega[:, None], free), dim=1).to(transition)


def _is_half_turn(matrix: Tensor, half_trace: Tensor) -> Tensor:
    """Which pairs are ``-r I`` up to rounding; their logarithm is any rotation by pi."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    rest = torch.linalg.matrix_norm(matrix - half_trace[:, None, None] * eye)
    return (half_trace < 0) & (rest <= _HALF_TURN * half_trace.abs()) & (len(eye) == 2)
