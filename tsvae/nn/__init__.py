"""Networks: encoders, decoders and likelihoods. Knows torch and nothing else of this library.

Nothing here reads or changes a global random state: parameters are drawn, and likelihoods
sampled, from a :class:`torch.Generator`.
"""

from __future__ import annotations

from .activations import activation_names, get_activation
from .convolutional import ConvDecoder, ConvEncoder, VectorToMap
from .decoder import SigmaDecoder
from .dense import DenseNet
from .encoder import EncoderOutput, SigmaEncoder
from .likelihoods import (
    Likelihood,
    energy_crps,
    get_likelihood,
    likelihood_names,
    masked_crps,
    masked_log_prob,
    masked_mean,
    register_likelihood,
)
from .perceptron import MLPDecoder, MLPEncoder

__all__ = [
    "ConvDecoder",
    "ConvEncoder",
    "DenseNet",
    "EncoderOutput",
    "Likelihood",
    "MLPDecoder",
    "MLPEncoder",
    "SigmaDecoder",
    "SigmaEncoder",
    "VectorToMap",
    "activation_names",
    "energy_crps",
    "get_activation",
    "get_likelihood",
    "likelihood_names",
    "masked_crps",
    "masked_log_prob",
    "masked_mean",
    "register_likelihood",
]
