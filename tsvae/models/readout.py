r"""Closed-form forecasts of a linear decoder over many start states at once.

With :math:`x_{T+h} = C z_{T+h} + d + N(0, R)` the forecast from a state N(m, S) is

.. math::
    E x_{T+h} = C A^h m + C s_h + d, \qquad
    Var\,x_{T+h} = C A^h S A'^h C' + C W_h C' + R, \quad
    W_h = \sum_{i<h} A^i Q A'^i,

with :math:`s_h` the response to inputs and bias. :math:`C A^h` and :math:`W_h` are the same for
all start states, so the forecast of N states over H steps is two matrix products instead of H
recursions over N states: this is what makes training on many forecast origins cheap.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds import LDSParameters, forecast_states

__all__ = ["Readout", "linear_readout"]


class Readout(NamedTuple):
    """Forecast maps of a linear decoder.

    Attributes
    ----------
    gain : Tensor (H, F, D)
        C A^h.
    spread : Tensor (H, F)
        Diagonal of C W_h C'.
    drift : Tensor (H, F)
        C s_h for the bias alone (no inputs).
    """

    gain: Tensor
    spread: Tensor
    drift: Tensor

    def mean(self, mean: Tensor) -> Tensor:
        """``(N, D)`` start means -> ``(N, H, F)``, decoder offset left out."""
        steps, features, latent = self.gain.shape
        flat = mean @ self.gain.reshape(steps * features, latent).T
        return flat.reshape(-1, steps, features) + self.drift

    def variance(self, covariance: Tensor) -> Tensor:
        """``(N, G, K, K)`` start covariances -> ``(N, H, F)``, observation noise left out."""
        groups, size = covariance.shape[1], covariance.shape[2]
        blocks = self.gain.unflatten(-1, (groups, size))
        outer = blocks.unsqueeze(-1) * blocks.unsqueeze(-2)  # (H, F, G, K, K)
        steps, features = self.spread.shape
        flat = covariance.flatten(1) @ outer.reshape(steps * features, -1).T
        return flat.reshape(-1, steps, features) + self.spread


def linear_readout(params: LDSParameters, emission_matrix: Tensor, horizon: int) -> Readout:
    """Forecast maps for ``horizon`` steps.

    Parameters
    ----------
    params : LDSParameters
        Used plug-in.
    emission_matrix : Tensor (F, D)
        C.
    horizon : int

    Returns
    -------
    Readout
    """
    groups, size = params.n_groups, params.group_size
    power = _powers(params.transition_matrix, horizon)  # (H, G, K, K)
    c = emission_matrix.unflatten(-1, (groups, size))  # (F, G, K)
    gain = torch.einsum("fgk,hgkl->hfgl", c, power).flatten(-2)
    # W_h and s_h are the forecast from a state known to be zero.
    origin = emission_matrix.new_zeros(1, params.latent_dim)
    certain = emission_matrix.new_zeros(1, groups, size, size)
    bare = params._replace(input_matrix=params.input_matrix[..., :0])
    ahead = forecast_states(bare, origin, certain, horizon)
    spread = torch.einsum("fgk,hgkl,fgl->hf", c, ahead.covariance[0], c)
    return Readout(gain, spread, ahead.mean[0] @ emission_matrix.T)


def _powers(matrix: Tensor, horizon: int) -> Tensor:
    """A^1 .. A^H by doubling: log2(H) batched products."""
    powers = matrix.unsqueeze(0)
    while powers.shape[0] < horizon:
        powers = torch.cat((powers, powers @ powers[-1]))
    return powers[:horizon]
