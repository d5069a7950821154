"""What each parameter of the forecaster may be."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import Interval, StrOptions

__all__ = ["PARAMETER_CONSTRAINTS"]

_POSITIVE_INT = [Interval(Integral, 1, None, closed="left")]
_POSITIVE = [Interval(Real, 0, None, closed="neither")]
_NON_NEGATIVE = [Interval(Real, 0, None, closed="left")]
_FRACTION = [Interval(Real, 0, 1, closed="left")]
_STEPS = [Interval(Integral, 0, None, closed="left")]

#: In the order of the signature, in the form that scikit-learn validates.
PARAMETER_CONSTRAINTS: dict[str, Any] = {
    "horizon": _POSITIVE_INT,
    "context_length": _POSITIVE_INT,
    "latent_dim": _POSITIVE_INT,
    "hidden_sizes": ["array-like"],
    "activation": [str],
    "likelihood": [str],
    "scale": [StrOptions({"learned", "network"})],
    "final_sigmoid": ["boolean"],
    "layer_norm": ["boolean"],
    "channels": [StrOptions({"auto", "independent", "joint"})],
    "group_size": [*_POSITIVE_INT, None],
    "potential": [StrOptions({"diagonal", "block", "dense"})],
    "encoder_precision": [StrOptions({"learned", "network"})],
    "seasonal_periods": [StrOptions({"auto"}), "array-like", None],
    "seasonal_effect": ["boolean", StrOptions({"auto"})],
    "window_level": ["boolean", StrOptions({"both"})],
    "start": [StrOptions({"auto", "moments", "roles"})],
    "power_transform": [StrOptions({"log", "box-cox"}), None],
    "calendar": ["boolean"],
    "point_estimate": ["boolean"],
    "natural_gradient": ["boolean"],
    "natural_learning_rate": [*_POSITIVE, None],
    "drop_correction": ["boolean"],
    "prior_scale": _POSITIVE,
    "prior_degrees": _POSITIVE,
    "prior_precision": _POSITIVE,
    "prior_mean": [Interval(Real, -1, 1, closed="both")],
    "forecast_weight": _NON_NEGATIVE,
    "elbo_weight": [*_NON_NEGATIVE, None],
    "n_origins": _POSITIVE_INT,
    "n_samples": [Interval(Integral, 2, None, closed="left")],
    "mask_fraction": _FRACTION,
    "block_length": _STEPS,
    "noise_scale": _NON_NEGATIVE,
    "beta": _NON_NEGATIVE,
    "beta_min": _NON_NEGATIVE,
    "beta_warmup_steps": _STEPS,
    "beta_annealing_steps": _STEPS,
    "max_epochs": [Interval(Integral, 0, None, closed="left"), None],
    "batch_size": _POSITIVE_INT,
    "learning_rate": [*_POSITIVE, StrOptions({"auto"}), None],
    "optimizer": [StrOptions({"adam", "adamw", "adafactor"})],
    "lr_schedule": [StrOptions({"cosine", "constant", "plateau", "one_cycle"})],
    "warmup_steps": _STEPS,
    "clip_norm": [*_POSITIVE, None],
    "patience": [*_POSITIVE_INT, None],
    "min_delta": _NON_NEGATIVE,
    "validation_fraction": _FRACTION,
    "calibrate": ["boolean"],
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
