"""Named results of the VQ-VAE."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["VQEncodeResult", "VQForwardResult"]


class VQEncodeResult(NamedTuple):
    """Codes of a batch.

    Parameters
    ----------
    z : Tensor of shape (B, S, *latent)
        Code vectors, with the gradient of ``mu`` (straight-through). All S are equal: nothing
        is drawn.
    mu : Tensor of shape (B, S, *latent)
        Encoder output before quantisation.
    log_var : None
        There is no posterior variance.
    codes : Tensor of int64, shape (B, L)
        Indices of the code vectors.
    commitment : Tensor of shape (B,)
        Squared distance between ``mu`` and ``z``, for the loss.
    """

    z: Tensor
    mu: Tensor
    log_var: None
    codes: Tensor
    commitment: Tensor


class VQForwardResult(NamedTuple):
    """Codes of a batch and their reconstructions; see :class:`VQEncodeResult`."""

    x_hat: Tensor
    z: Tensor
    mu: Tensor
    log_var: None
    codes: Tensor
    commitment: Tensor
