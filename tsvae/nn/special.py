"""Positive transforms and the incomplete beta function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_MAX_FRACTIONS = 500


def inverse_softplus(value: Tensor) -> Tensor:
    """Return the number whose softplus is ``value``.

    Parameters
    ----------
    value : Tensor
        Positive.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> import torch
    >>> raw = inverse_softplus(torch.tensor([1e-3, 1.0, 50.0], dtype=torch.float64))
    >>> torch.nn.functional.softplus(raw)
    tensor([1.0000e-03, 1.0000e+00, 5.0000e+01], dtype=torch.float64)
    """
    return value + torch.log(-torch.expm1(-value))


def positive(raw: Tensor, floor: float) -> Tensor:
    """Softplus of ``raw`` above ``floor``.

    Parameters
    ----------
    raw : Tensor
    floor : float

    Returns
    -------
    Tensor
        Every entry at least ``floor``.
    """
    return functional.softplus(raw) + floor


def widened(value: Tensor) -> Tensor:
    """Convert to float64 where the device has it (counts cancel badly in float32).

    Parameters
    ----------
    value : Tensor

    Returns
    -------
    Tensor
    """
    return value if value.device.type == "mps" else value.double()


def _away_from_zero(value: Tensor) -> Tensor:
    return torch.where(value.abs() < 1e-30, torch.full_like(value, 1e-30), value)


def _beta_fraction(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Continued fraction of the incomplete beta function by the modified Lentz method."""
    c = torch.ones_like(x)
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    total = d
    tolerance = 4.0 * torch.finfo(x.dtype).eps
    for m in range(1, _MAX_FRACTIONS + 1):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            total = total * (d * c)
        if m % 8 == 0 and bool(((d * c - 1.0).abs() <= tolerance).all()):
            break
    return total


@torch.no_grad()
def incomplete_beta(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Regularised incomplete beta function I_x(a, b), without gradients.

    Parameters
    ----------
    a, b : Tensor
        Positive, broadcastable.
    x : Tensor
        In [0, 1].

    Returns
    -------
    Tensor

    References
    ----------
    NIST Digital Library of Mathematical Functions, equations 8.17.4 (symmetry) and 8.17.22
    (continued fraction).

    Examples
    --------
    >>> import torch
    >>> one = torch.ones((), dtype=torch.float64)
    >>> round(float(incomplete_beta(one, one, 0.25 * one)), 12)
    0.25
    """
    a, b, x = torch.broadcast_tensors(a, b, x)
    swap = x > (a + 1.0) / (a + b + 2.0)  # the fraction converges fast on one side only
    p, q = torch.where(swap, b, a), torch.where(swap, a, b)
    y = torch.where(swap, 1.0 - x, x)
    log_front = (
        torch.xlogy(p, y)
        + torch.special.xlog1py(q, -y)
        - (torch.lgamma(p) + torch.lgamma(q) - torch.lgamma(p + q))
        - torch.log(p)
    )
    value = torch.exp(log_front) * _beta_fraction(p, q, y)
    return torch.where(swap, 1.0 - value, value).clamp(0.0, 1.0)
