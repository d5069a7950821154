"""What each parameter of the denoiser may be."""

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
    "latent_dim": _POSITIVE_INT,
    "model": [StrOptions({"ae", "vae", "conditional", "hierarchical", "vq"})],
    "architecture": [StrOptions({"auto", "conv", "resnet", "mlp"}), list, tuple],
    "latent": [StrOptions({"auto", "vector", "map"})],
    "window": [*_POSITIVE_INT, None],
    "output": [StrOptions({"signal", "latent"})],
    "hidden_sizes": ["array-like", None],
    "activation": [str],
    "kernel_size": _POSITIVE_INT,
    "batch_norm": ["boolean"],
    "spectral_norm": ["boolean", *_POSITIVE],
    "final_sigmoid": ["boolean"],
    "likelihood": [str],
    "scale": [StrOptions({"learned", "fixed", "calibrated"})],
    "scaling": [StrOptions({"auto", "variable", "column"})],
    "self_supervision": [StrOptions({"blind_spot"}), None],
    "mask_fraction": _FRACTION,
    "block_length": _STEPS,
    "noise_scale": _NON_NEGATIVE,
    "resample_noise": ["boolean"],
    "residual_filter": ["boolean"],
    "beta": _NON_NEGATIVE,
    "annealing_steps": _STEPS,
    "free_bits": _NON_NEGATIVE,
    "mmd_weight": _NON_NEGATIVE,
    "spectral_weight": _NON_NEGATIVE,
    "objective": [StrOptions({"elbo", "iwae"})],
    "n_samples": [*_POSITIVE_INT, None],
    "n_levels": _POSITIVE_INT,
    "n_codes": [Interval(Integral, 2, None, closed="left")],
    "n_importance_samples": _POSITIVE_INT,
    "max_epochs": _POSITIVE_INT,
    "batch_size": _POSITIVE_INT,
    "learning_rate": [*_POSITIVE, StrOptions({"auto"})],
    "optimizer": [StrOptions({"adam", "adamw", "adafactor"})],
    "lr_schedule": [StrOptions({"cosine", "constant", "plateau", "one_cycle"})],
    "warmup_steps": _STEPS,
    "clip_norm": [*_POSITIVE, None],
    "patience": [*_POSITIVE_INT, None],
    "min_delta": _NON_NEGATIVE,
    "validation_fraction": _FRACTION,
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
