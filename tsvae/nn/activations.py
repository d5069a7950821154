"""Activations by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import nn


class _Activation(NamedTuple):
    build: Callable[[], nn.Module]
    gain: float  # keeps the variance of pre-activations through a layer


_ACTIVATIONS: dict[str, _Activation] = {
    "gelu": _Activation(nn.GELU, math.sqrt(2.0)),
    "relu": _Activation(nn.ReLU, math.sqrt(2.0)),
    "silu": _Activation(nn.SiLU, math.sqrt(2.0)),
    "leaky_relu": _Activation(nn.LeakyReLU, math.sqrt(2.0)),
    "elu": _Activation(nn.ELU, math.sqrt(1.5)),
    "softplus": _Activation(nn.Softplus, math.sqrt(2.0)),
    "tanh": _Activation(nn.Tanh, 5.0 / 3.0),
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
    """Return the initial gain of a layer followed by this activation.

    Parameters
    ----------
    name : str
        One of :func:`activation_names`.

    Returns
    -------
    float
    """
    return _find_activation(name).gain
