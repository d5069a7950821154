"""The estimator's parameters as settings of the model, of training and of augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsvae.estimation.building import MAX_CHANNELS, Sizes
from tsvae.nn import get_likelihood
from tsvae.panel import Panel
from tsvae.training import Augmentation, TrainingConfig

__all__ = [
    "Parameters",
    "augmentation_of",
    "is_real",
    "model_settings",
    "resolve_training",
    "smooths_itself",
    "starts_fitted",
    "training_config",
]

#: Parameters of the estimator by name.
Parameters = Mapping[str, Any]

_SCALE_START = 0.4  # observation noise of standardised data at the start
_ELBO_SHARE = 0.25  # of a training batch: the smoother costs more than the filter
_TRAINING_SAMPLES = 4
_LEAST_FITTED_DIM = 4  # an anchor and one more group


# What training does where nothing is said: a start fitted to moments is the fit already (steps of
# any size lost some of what it had found), from any other training does the work.
_FITTED = {
    "elbo_weight": 0.0,
    "learning_rate": 1e-4,
    "natural_learning_rate": 1e-4,
    "max_epochs": 0,
}
_WORK = {"elbo_weight": 0.1, "learning_rate": 0.03, "natural_learning_rate": 0.1, "max_epochs": 10}


def is_channelwise(params: Parameters, n_features: int) -> bool:
    """Whether each variable has latent chains of its own."""
    wanted = params["channels"]
    return bool(wanted == "independent" or (wanted == "auto" and n_features <= MAX_CHANNELS))


def starts_fitted(params: Parameters, n_features: int) -> bool:
    """Whether the model starts from moments: independent channels of groups of two, real data."""
    return (
        params["start"] in ("auto", "moments")
        and is_channelwise(params, n_features)
        and params["potential"] == "diagonal"
        and params["group_size"] == 2
        and params["latent_dim"] >= _LEAST_FITTED_DIM
        and is_real(params)
        and not params["final_sigmoid"]
        and params["forecast_weight"] > 0
    )


def smooths_itself(params: Parameters, n_features: int) -> bool:
    """Whether smoothing has a closed form whose readout is fitted to the data."""
    linear = not len(params["hidden_sizes"]) and params["scale"] == "learned"
    closed = linear and params["likelihood"] == "normal" and params["elbo_weight"] == 0
    return closed and starts_fitted(params, n_features)


def resolve_training(params: Parameters, n_features: int) -> dict[str, Any]:
    """Parameters with numbers in place of the ``None`` of rates, epochs and ELBO weight."""
    fitted = starts_fitted(params, n_features) and not len(params["hidden_sizes"])
    defaults = _FITTED if fitted else _WORK
    missing = {name: value for name, value in defaults.items() if params[name] is None}
    return {**params, **missing}


def is_real(params: Parameters) -> bool:
    """Whether the data may be any real number: neither counts nor 0..1."""
    return get_likelihood(params["likelihood"]).support == "real"


def model_settings(
    panel: Panel, n_inputs: int, sizes: Sizes, params: Parameters, seed: int
) -> dict[str, Any]:
    """Arguments of the model, JSON values."""
    n_features = panel.n_features
    channelwise = is_channelwise(params, n_features)
    size = params["group_size"]
    posterior = "natural" if params["natural_gradient"] else "gradient"
    if params["point_estimate"]:
        posterior = "point"
    chart = "generator" if posterior != "natural" and size in (1, 2) else "linear"
    chains = n_features if channelwise else 1
    hidden = tuple(int(width) for width in params["hidden_sizes"])
    real = is_real(params) and not params["final_sigmoid"]
    return {
        "n_features": n_features,
        "n_inputs": n_inputs,
        "latent_dim": int(params["latent_dim"]),
        "dynamics": {
            "group_size": size,
            "posterior": posterior,
            "chart": chart,
            "prior_scale": params["prior_scale"],
            "prior_degrees": params["prior_degrees"],
            "prior_precision": params["prior_precision"],
            "prior_mean": params["prior_mean"],
        },
        "channelwise": channelwise,
        "encoder_sizes": hidden,
        "decoder_sizes": hidden,
        "activation": params["activation"],
        "layer_norm": params["layer_norm"],
        "final_sigmoid": params["final_sigmoid"],
        "likelihood": params["likelihood"],
        "scale": params["scale"],
        "potential": params["potential"],
        "precision": params["encoder_precision"],
        "scale_start": _SCALE_START,
        "level_entries": sizes.level_entries,
        "learn_scale": channelwise and real and n_features > 1,
        "coupled": starts_fitted(params, n_features),
        "own_smoothing": smooths_itself(params, n_features),
        "n_samples": _TRAINING_SAMPLES,
        "elbo_weight": params["elbo_weight"],
        "elbo_share": _ELBO_SHARE,
        "forecast_weight": params["forecast_weight"],
        "horizon": sizes.horizon,
        "n_origins": params["n_origins"],
        "min_history": sizes.min_history,
        "drop_correction": params["drop_correction"],
        "n_windows": float(max(panel.lengths.sum() / sizes.window, 1.0) * chains),
        "seed": seed,
    }


def training_config(params: Parameters) -> TrainingConfig:
    """Return the settings of the training loop."""
    return TrainingConfig(
        max_epochs=params["max_epochs"],
        batch_size=params["batch_size"],
        learning_rate=params["learning_rate"],
        natural_learning_rate=params["natural_learning_rate"],
        optimizer=params["optimizer"],
        lr_schedule=params["lr_schedule"],
        warmup_steps=params["warmup_steps"],
        clip_norm=params["clip_norm"],
        patience=params["patience"],
        min_delta=params["min_delta"],
        max_time=params["max_time"],
        precision=params["precision"],
        device=params["device"],
        n_threads=params["n_threads"],
        verbose=bool(params["verbose"]),
    )


def augmentation_of(params: Parameters) -> Augmentation | None:
    """Say what training hides from the encoder or adds to its input; None: nothing."""
    if not (params["mask_fraction"] or params["block_length"] or params["noise_scale"]):
        return None
    return Augmentation(
        random_fraction=params["mask_fraction"],
        n_blocks=1 if params["block_length"] else 0,
        block_length=max(params["block_length"], 1),
        noise_scale=params["noise_scale"],
    )
