"""Checks of sizes and of numbers per variable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def check_size(name: str, value: int, minimum: int = 1) -> int:
    """Check an integer size and return it.

    Parameters
    ----------
    name : str
        Name of the parameter, used in the message.
    value : int
    minimum : int, default=1

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If the value is not an integer.
    ValueError
        If the value is smaller than ``minimum``.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    size = value.__index__()
    if size < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {size}")
    return size


def check_sizes(name: str, values: Iterable[int]) -> tuple[int, ...]:
    """Check a sequence of integer sizes and return it as a tuple.

    Parameters
    ----------
    name : str
        Name of the parameter, used in the message.
    values : iterable of int

    Returns
    -------
    tuple of int
    """
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise TypeError(f"{name} must be a sequence of integers such as (128, 128), got {values!r}")
    return tuple(check_size(f"{name}[{i}]", value) for i, value in enumerate(values))


def as_vector(name: str, value: float | Sequence[float] | Tensor, size: int) -> Tensor:
    """Expand one number, or check one number per entry, to a float64 vector.

    Parameters
    ----------
    name : str
        Name of the parameter, used in the message.
    value : float, sequence of float or Tensor
    size : int
        Wanted length.

    Returns
    -------
    Tensor, shape (size,)

    Raises
    ------
    ValueError
        If the shape differs or an entry is not finite.
    """
    vector = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    if vector.ndim == 0:
        vector = vector.expand(size)
    if vector.shape != (size,):
        raise ValueError(
            f"{name} must be one number or {size} numbers, got shape {tuple(vector.shape)}"
        )
    if not bool(torch.isfinite(vector).all()):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return vector.clone()


def as_positive_vector(name: str, value: float | Sequence[float] | Tensor, size: int) -> Tensor:
    """Like :func:`as_vector`, and every entry must be positive.

    Parameters
    ----------
    name : str
    value : float, sequence of float or Tensor
    size : int

    Returns
    -------
    Tensor, shape (size,)
    """
    vector = as_vector(name, value, size)
    if bool((vector <= 0).any()):
        raise ValueError(f"{name} must be positive, got {value!r}")
    return vector


def check_series(x: Tensor, mask: Tensor, pattern: Tensor | None, n_features: int) -> Tensor:
    """Check series and their masks; one mask that was expanded comes back as it was before.

    Parameters
    ----------
    x : Tensor, shape (B, T, F)
    mask : Tensor, shape (B or 1, T, F), or (P, T, F) with ``pattern``
    pattern : Tensor, shape (B,), or None
        Which mask each series has.
    n_features : int
        F.

    Returns
    -------
    Tensor
        The mask.

    Raises
    ------
    ValueError
        If a shape is wrong.
    """
    if x.ndim != 3 or x.shape[-1] != n_features:
        raise ValueError(f"x must have shape (B, T, {n_features}), got {tuple(x.shape)}")
    n_series, n_steps, _ = x.shape
    if mask.ndim != 3 or mask.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"mask must have shape (B or 1, {n_steps}, {n_features}), got {tuple(mask.shape)}"
        )
    if pattern is not None:
        if pattern.shape != (n_series,):
            raise ValueError(f"pattern must have shape ({n_series},), got {tuple(pattern.shape)}")
        return mask
    if mask.shape[0] not in (1, n_series):
        raise ValueError(
            f"mask must have 1 or {n_series} series, got {mask.shape[0]}; give pattern= for "
            "a set of distinct masks"
        )
    shared = n_series > 1 and mask.shape[0] > 1 and mask.stride(0) == 0
    return mask[:1] if shared else mask
