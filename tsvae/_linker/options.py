"""Parameters that may differ between the sides, and what the networks' design needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from tsvae._linker.translator import SideName
from tsvae._records.design import check_parameters

__all__ = ["check_options", "side_options"]

Parameters = Mapping[str, Any]

#: Parameters that are one value for both sides, or a pair (X, y).
PAIRED = ("architecture", "hidden_sizes", "likelihood", "scaling", "log_scale", "input_noise")

_KINDS = {
    "architecture": (("auto", "conv", "resnet", "mlp"), "'auto', 'conv', 'resnet' or 'mlp'"),
    "scaling": (
        ("auto", "profile", "variable", "column"),
        "'auto', 'profile', 'variable' or 'column'",
    ),
    "log_scale": ((True, False), "True or False"),
}
_DENSE_SIZES = (256, 256)
#: What members of the family have and a linked side does not choose.
_FIXED = {
    "model": "vae",
    "final_sigmoid": False,
    "free_bits": 0.0,
    "mmd_weight": 0.0,
    "objective": "elbo",
    "n_samples": 1,
    "n_levels": 1,
    "n_codes": 2,
    "spectral_weight": 0.0,
    "layer_norm": True,
}


def _one(params: Parameters, name: str, side: SideName) -> Any:
    """Value of one side."""
    value = params[name]
    if name == "hidden_sizes":
        pair = value is not None and any(w is None or _is_list(w) for w in value)
    else:
        pair = _is_list(value)
    if not pair:
        return value
    if len(value) != 2:
        raise ValueError(
            f"{name} must be one value for both sides or a pair (X, y), got {len(value)} values: "
            f"{value!r}."
        )
    return value[0 if side == "a" else 1]


def side_options(params: Parameters, side: SideName) -> dict[str, Any]:
    """Return one side's options, complete for the design of its networks.

    Parameters
    ----------
    params : mapping
        Of the estimator.
    side : {"a", "b"}

    Returns
    -------
    dict
    """
    options = dict(params) | _FIXED | {name: _one(params, name, side) for name in PAIRED}
    options["regions"] = params["x_regions" if side == "a" else "y_regions"]
    if options["architecture"] == "auto":
        options["architecture"] = "conv" if params["latent"] == "map" else "mlp"
    if options["hidden_sizes"] is None and options["architecture"] == "mlp":
        options["hidden_sizes"] = _DENSE_SIZES
    return options


def _check_weights(weights: Any) -> None:
    if len(weights) != 4 or not all(isinstance(weight, Real) for weight in weights):
        raise ValueError(
            "weights must be four numbers, of X from X, y from y, y from X and X from y; got "
            f"{weights!r}."
        )
    if not all(0.0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ValueError(f"weights must be finite numbers >= 0, not all 0; got {weights!r}.")


def _check_noise(noise: Any) -> None:
    if isinstance(noise, str) and noise == "auto":
        return
    if isinstance(noise, bool) or not isinstance(noise, Real) or not 0.0 <= float(noise) < math.inf:
        raise ValueError(
            "input_noise must be 'auto' or a finite number >= 0, in standard deviations of each "
            f"column, or a pair (X, y) of these; got {noise!r}."
        )


def _check_pair_of_sizes(sizes: Any) -> None:
    """Raise for a list of numbers and lists."""
    parts = [] if sizes is None else [width is None or _is_list(width) for width in sizes]
    if any(parts) and not all(parts):
        raise ValueError(
            "hidden_sizes must be the widths of both sides, such as (64, 64), or a pair (X, y) of "
            f"widths or None, such as ((64,), None); got {sizes!r}."
        )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def check_options(params: Parameters) -> None:
    """Raise if parameters of the linker have impossible values or contradict each other.

    Parameters
    ----------
    params : mapping
        Of the estimator; single values have been checked.

    Raises
    ------
    ValueError, TypeError
        Naming the parameter, what it must be, and the remedy.
    """
    _check_weights(params["weights"])
    _check_pair_of_sizes(params["hidden_sizes"])
    for side in ("a", "b"):
        options = side_options(params, side)  # type: ignore[arg-type]
        for name, (allowed, words) in _KINDS.items():
            if not any(options[name] is a or options[name] == a for a in allowed):
                raise ValueError(
                    f"{name} must be {words}, or a pair of these; got {options[name]!r}."
                )
        _check_noise(options["input_noise"])
        check_parameters(options)
    if params["unfreeze_epochs"] is not None and params["freeze"] is None:
        raise ValueError("unfreeze_epochs needs freeze='X', 'y' or 'both'.")
    if params["freeze"] is not None and not params["pretrain_epochs"]:
        raise ValueError(
            "freeze keeps networks as pre-training left them; set pretrain_epochs, or freeze=None."
        )
