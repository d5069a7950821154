"""What model a denoiser builds: the parameters that were left to the data, decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from torch import nn

from tsvae.models.observation import family_likelihood
from tsvae.nn import activation_names

__all__ = ["Design", "check_parameters", "design_model"]

Parameters = Mapping[str, Any]

_SHORT = 32  # records with fewer steps have no shape along time to speak of
_CONV_SIZES = (32, 64, 128, 128)
_COARSEST_STEPS = 8  # fewest that stages of stride 2 leave of a record
_DENSE_SIZES = (128, 64)
_VECTOR_STEPS = 64  # a vector code is read off a map of at most so many steps


@dataclass(frozen=True)
class Design:
    """Sizes and kinds of the networks; JSON values.

    Attributes
    ----------
    kind : str
        "ae", "vae", "conditional", "hierarchical" or "vq".
    architecture : str
        "conv", "resnet", "mlp" or "custom".
    latent : str
        "vector" or "map".
    latent_dim : int
    hidden_sizes : tuple of int
    n_steps, n_features, n_conditions : int
    options : dict
        Of the networks and of the model.
    """

    kind: str
    architecture: str
    latent: str
    latent_dim: int
    hidden_sizes: tuple[int, ...]
    n_steps: int
    n_features: int
    n_conditions: int
    options: dict[str, Any]


def check_parameters(params: Parameters) -> None:
    """Raise if parameters of the denoiser have impossible values or contradict each other.

    Parameters
    ----------
    params : mapping
        Parameters of the estimator; single values have been checked.

    Raises
    ------
    ValueError, TypeError
        Naming the parameter, what it must be, and the remedy.
    """
    likelihood = family_likelihood(params["likelihood"])
    if likelihood.support == "count":
        raise ValueError(
            f"likelihood={params['likelihood']!r} is for counts; choose 'gaussian', 'laplace', "
            "'student_t' or 'bernoulli' (take the square root of counts first)."
        )
    if params["activation"] not in activation_names():
        raise ValueError(
            f"activation={params['activation']!r} is not known; choose one of "
            f"{', '.join(activation_names())}."
        )
    _check_hidden_sizes(params["hidden_sizes"])
    if params["kernel_size"] % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {params['kernel_size']}.")
    custom = not isinstance(params["architecture"], str)
    if custom:
        _check_networks(params["architecture"], params["model"])
    if params["architecture"] == "mlp" and params["latent"] == "map":
        raise ValueError(
            "latent='map' is a code along time, which architecture='mlp' has not; use 'conv' or "
            "'resnet', or latent='vector'."
        )
    if params["final_sigmoid"] and likelihood.support != "real":
        raise ValueError(
            f"final_sigmoid and likelihood={params['likelihood']!r} exclude each other: that "
            "likelihood has a sigmoid of its own; set final_sigmoid=False."
        )
    if params["objective"] == "iwae" and params["free_bits"]:
        raise ValueError("free_bits needs objective='elbo'; set free_bits=0 or objective='elbo'.")


def _check_hidden_sizes(sizes: Any) -> None:
    for place, width in enumerate(() if sizes is None else sizes):
        if isinstance(width, bool) or not isinstance(width, Integral) or width < 1:
            raise ValueError(
                f"hidden_sizes[{place}] must be a positive integer, got {width!r}; None chooses."
            )


def _check_networks(networks: Any, kind: str) -> None:
    if len(networks) != 2 or not all(isinstance(part, nn.Module) for part in networks):
        raise TypeError(
            "architecture must be 'auto', 'conv', 'resnet', 'mlp' or a pair (encoder, decoder) of "
            f"torch modules, got {networks!r}."
        )
    if kind == "hierarchical":
        raise ValueError(
            "model='hierarchical' builds networks of its own for each level; use architecture="
            "'conv', 'resnet' or 'mlp', or tsvae.models.HierarchicalVAE directly."
        )


def design_model(params: Parameters, n_steps: int, n_features: int, n_conditions: int) -> Design:
    """Decide what the parameters leave open.

    Parameters
    ----------
    params : mapping
        Of the estimator.
    n_steps, n_features, n_conditions : int
        W, F and C of the data.

    Returns
    -------
    Design
    """
    architecture = params["architecture"]
    if not isinstance(architecture, str):
        architecture = "custom"
    elif architecture == "auto":
        architecture = "mlp" if n_steps < _SHORT else "conv"
    latent = params["latent"]
    if latent == "auto":
        latent = "map" if architecture in ("conv", "resnet") else "vector"
    sizes = params["hidden_sizes"]
    hidden = _auto_sizes(architecture, latent, n_steps) if sizes is None else sizes
    names = (
        *("activation", "kernel_size", "batch_norm", "spectral_norm", "final_sigmoid"),
        *("likelihood", "scale", "beta", "free_bits", "mmd_weight", "objective", "n_samples"),
        *("n_levels", "n_codes", "spectral_weight"),
    )
    return Design(
        kind=params["model"],
        architecture=architecture,
        latent=latent,
        latent_dim=int(params["latent_dim"]),
        hidden_sizes=tuple(int(width) for width in hidden),
        n_steps=n_steps,
        n_features=n_features,
        n_conditions=n_conditions,
        options={name: params[name] for name in names}
        | {"layer_norm": bool(params.get("layer_norm", False))},
    )


def _auto_sizes(architecture: str, latent: str, n_steps: int) -> tuple[int, ...]:
    if architecture in ("mlp", "custom"):
        return _DENSE_SIZES
    stages = math.floor(math.log2(max(1.0, n_steps / _COARSEST_STEPS)))
    if latent == "vector":
        stages = min(stages, math.ceil(math.log2(max(1.0, n_steps / _VECTOR_STEPS))))
    stages = max(stages, 2)
    if latent == "map":
        stages = min(stages, len(_CONV_SIZES))
    return (*_CONV_SIZES, *[_CONV_SIZES[-1]] * max(0, stages - len(_CONV_SIZES)))[:stages]
