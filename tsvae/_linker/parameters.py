"""What each parameter of the linker may be."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import Interval, StrOptions

__all__ = ["PARAMETER_CONSTRAINTS"]

_POSITIVE_INT = [Interval(Integral, 1, None, closed="left")]
_POSITIVE = [Interval(Real, 0, None, closed="neither")]
_NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]
_STEPS = [Interval(Integral, 0, None, closed="left")]
_SHARE = [Interval(Real, 0, 1, closed="neither")]

#: In the order of the signature, in the form that scikit-learn validates.
PARAMETER_CONSTRAINTS: dict[str, Any] = {
    "latent_dim": _POSITIVE_INT,
    "architecture": [StrOptions({"auto", "conv", "resnet", "mlp"}), list, tuple],
    "latent": [StrOptions({"vector", "map"})],
    "hidden_sizes": ["array-like", None],
    "activation": [str],
    "kernel_size": _POSITIVE_INT,
    "batch_norm": ["boolean"],
    "spectral_norm": ["boolean", *_POSITIVE],
    "likelihood": [str, list, tuple],
    "scale": [StrOptions({"learned", "fixed", "calibrated"})],
    "scaling": [StrOptions({"auto", "profile", "variable", "column"}), list, tuple],
    "log_scale": ["boolean", list, tuple],
    "x_regions": ["array-like", dict, None],
    "y_regions": ["array-like", dict, None],
    "input_noise": [StrOptions({"auto"}), *_NON_NEGATIVE, list, tuple],
    "weights": ["array-like"],
    "beta": _NON_NEGATIVE,
    "barlow_weight": _NON_NEGATIVE,
    "barlow_lambda": _NON_NEGATIVE,
    "projector": ["array-like", None],
    "cycle_weight": _NON_NEGATIVE,
    "paired_share": _SHARE,
    "pretrain_epochs": _STEPS,
    "freeze": [StrOptions({"X", "y", "both"}), None],
    "unfreeze_epochs": [*_STEPS, None],
    "max_epochs": _POSITIVE_INT,
    "batch_size": [Interval(Integral, 2, None, closed="left")],
    "learning_rate": [*_POSITIVE, StrOptions({"auto"})],
    "optimizer": [StrOptions({"adam", "adamw", "adafactor"})],
    "lr_schedule": [StrOptions({"cosine", "constant", "plateau", "one_cycle"})],
    "warmup_steps": _STEPS,
    "clip_norm": [*_POSITIVE, None],
    "patience": [*_POSITIVE_INT, None],
    "min_delta": _NON_NEGATIVE,
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "max_time": [*_POSITIVE, None],
    "device": [str],
    "precision": [StrOptions({"32-true", "bf16-mixed", "16-mixed"})],
    "n_threads": [*_POSITIVE_INT, None],
    "freq": "no_validation",
    "time": "no_validation",
    "series": "no_validation",
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "callbacks": [list, tuple, None],
}
