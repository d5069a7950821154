"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn


class _Activation(NamedTuple):
    build: Callable[[], nn.Module]
    gain: float  # keeps the mean square of activations through layers


# Gains are 1 / sqrt(E[f(z)^2]) for standard normal z.
_ACTIVATIONS: dict[str, _Activation] = {
    "gelu": _Activation(nn.GELU, 1.533530),
    "relu": _Activation(nn.ReLU, 1.414214),
    "silu": _Activation(nn.SiLU, 1.676532),
    "leaky_relu": _Activation(nn.LeakyReLU, 1.414143),
    "elu": _Activation(nn.ELU, 1.245198),
    "softplus": _Activation(nn.Softplus, 1.041867),
    "tanh": _Activation(nn.Tanh, 1.592537),
    "identity": _Activation(nn.Identity, 1.0),
}


def _find_activation(name: str) -> _Activation:
    try:
        return _ACTIVATIONS[name]
    except (KeyError, TypeError):
        choices = ", ".join(sorted(_ACTIVATIONS))
        raise ValueError(f"activation={name!r} is not known; choose one of: {choices}") from None


def activation_names() -> list[str]:
    """Names that :func:`get_activation` accepts.

    Returns
    -------
    list of str

    Examples
    --------
    >>> "gelu" in activation_names()
    True
    """
    return sorted(_ACTIVATIONS)


def get_activation(name: str) -> nn.Module:
    """Build an activation by name.

    Parameters
    ----------
    name : str
        One of :func:`activation_names`.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        If the name is not known.

    Examples
    --------
    >>> get_activation("relu")
    ReLU()
    """
    return _find_activation(name).build()


def activation_gain(name: str) -> float:
    """Return the initial gain of a layer followed by this activation: 1 / rms of its output.

    Parameters
    ----------
    name : str
        One of :func:`activation_names`.

    Returns
    -------
    float
    """
    return _find_activation(name).gain
