"""From a design to a torch model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tsvae._records.design import Design
from tsvae.models import (
    VAE,
    VQVAE,
    Autoencoder,
    ConditionalVAE,
    ConditionEmbedding,
    HierarchicalVAE,
)
from tsvae.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

__all__ = ["build_model"]

_SCALE_START = 0.5  # residual scale of standardised signals at the start


def build_model(
    design: Design, networks: tuple[nn.Module, nn.Module] | None, generator: torch.Generator
) -> Any:
    """Model of a design, built for its sizes.

    Parameters
    ----------
    design : Design
    networks : (encoder, decoder) or None
        The caller's own, for a custom architecture.
    generator : torch.Generator
        Source of the initial parameters, and the model's own afterwards.

    Returns
    -------
    BaseAutoencoder
    """
    shared = _shared_options(design, generator)
    if design.kind == "hierarchical":
        model = _hierarchical(design, shared, generator)
    else:
        encoder, decoder = networks or _networks(design, generator)
        model = _plain(design, encoder, decoder, shared)
    sample = torch.zeros(2, design.n_steps, design.n_features)
    given = {"condition": torch.zeros(2, design.n_conditions)} if design.n_conditions else {}
    try:
        return model.build(sample, **given)
    except (RuntimeError, ValueError) as error:
        if networks is None:
            raise
        raise ValueError(_misfit(design, error)) from error


def _misfit(design: Design, error: Exception) -> str:
    channels = 2 * design.n_features + design.n_conditions
    width = design.latent_dim + design.n_conditions
    return (
        "the networks of architecture=(encoder, decoder) do not fit the data: the encoder gets "
        f"(B, {design.n_steps}, {channels}), values, mask and conditions; the decoder gets codes "
        f"(B, {width}) and gives (B, {design.n_steps}, {design.n_features}). torch says: {error}"
    )


def _shared_options(design: Design, generator: torch.Generator) -> dict[str, Any]:
    options = design.options
    return {
        "latent": design.latent,
        "mask_input": True,
        "likelihood": options["likelihood"],
        "scale": options["scale"],
        "initial_scale": _SCALE_START,
        "spectral_weight": options["spectral_weight"],
        "generator": generator,
    }


def _divergence_options(design: Design) -> dict[str, Any]:
    names = ("beta", "free_bits", "mmd_weight", "objective", "n_samples")
    return {name: design.options[name] for name in names}


def _plain(design: Design, encoder: nn.Module, decoder: nn.Module, shared: dict[str, Any]) -> Any:
    """Members of the family with one encoder and one decoder."""
    parts = (encoder, decoder, design.latent_dim)
    if design.kind == "ae":
        return Autoencoder(*parts, **shared)
    if design.kind == "vq":
        return VQVAE(*parts, n_codes=design.options["n_codes"], **shared)
    options = _divergence_options(design) | shared
    if design.kind == "conditional":
        return ConditionalVAE(*parts, ConditionEmbedding(design.n_conditions), **options)
    return VAE(*parts, **options)


def _network_options(design: Design, generator: torch.Generator) -> dict[str, Any]:
    options = {"activation": design.options["activation"], "generator": generator}
    options["spectral_norm"] = design.options["spectral_norm"]
    if design.architecture in ("conv", "resnet"):
        names = ("kernel_size", "batch_norm")
        options |= {name: design.options[name] for name in names}
        options["residual"] = design.architecture == "resnet"
    elif design.options.get("layer_norm"):
        options["layer_norm"] = True
    return options


def _networks(design: Design, generator: torch.Generator) -> tuple[nn.Module, nn.Module]:
    options = _network_options(design, generator)
    sigmoid = {"final_sigmoid": design.options["final_sigmoid"]}
    sizes, steps = design.hidden_sizes, design.n_steps
    # Conditions are further channels of the encoder and further entries of the code.
    channels = 2 * design.n_features + design.n_conditions
    width = design.latent_dim + design.n_conditions
    if design.architecture == "mlp":
        return (
            MLPEncoder(channels, steps, sizes, **options),
            MLPDecoder(width, steps, design.n_features, sizes[::-1], **sigmoid, **options),
        )
    return (
        ConvEncoder(channels, sizes, **options),
        ConvDecoder(
            width,
            design.n_features,
            steps,
            sizes[::-1],
            latent=design.latent,  # type: ignore[arg-type]
            **sigmoid,
            **options,
        ),
    )


def _hierarchical(design: Design, shared: dict[str, Any], generator: torch.Generator) -> Any:
    make = HierarchicalVAE.perceptron
    if design.architecture in ("conv", "resnet"):
        make = HierarchicalVAE.convolutional
    # The prior of a ladder is learned: no MMD; its codes are vectors by themselves.
    own = {k: v for k, v in _divergence_options(design).items() if k != "mmd_weight"}
    own |= {k: v for k, v in shared.items() if k not in ("latent", "generator")}
    return make(
        design.n_features,
        design.n_steps,
        design.latent_dim,
        hidden_sizes=design.hidden_sizes,
        n_levels=design.options["n_levels"],
        final_sigmoid=design.options["final_sigmoid"],
        **_network_options(design, generator),
        **own,
    )
