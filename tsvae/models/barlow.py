r"""Redundancy reduction between two sets of codes of the same samples (Barlow Twins).

.. math::
    C_{ij} = \mathrm{corr}(z^a_i, z^b_j), \quad
    L = \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \ne i} C_{ij}^2

Zbontar et al. 2021 (arXiv 2103.03230), equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tsvae.nn.checks import check_size, check_sizes
from tsvae.nn.layers import Linear, private_generator

__all__ = ["Projector", "barlow_twins_loss", "cross_correlation"]

_LEAST_SPREAD = 1e-4  # entries that hardly move are not blown up to unit variance


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Correlate every entry of one set of codes with every entry of the other.

    Parameters
    ----------
    first, second : Tensor of shape (B, D) and (B, E)
        Row by row of the same samples.

    Returns
    -------
    Tensor of shape (D, E)
        Between -1 and 1; 0 where an entry is constant.

    Raises
    ------
    ValueError
        If the numbers of rows differ.

    Examples
    --------
    >>> z = torch.tensor([[0.0, 1.0], [1.0, -1.0], [2.0, 1.0], [3.0, -1.0]])
    >>> cross_correlation(z, z).diagonal().round(decimals=3)
    tensor([1., 1.])
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise ValueError(
            "codes must have shapes (B, D) and (B, E) with one row for each sample, got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    return _standardised(first).T @ _standardised(second) / len(first)


def _standardised(codes: Tensor) -> Tensor:
    centred = codes - codes.mean(0)
    # Clamped before the root, whose slope at 0 is infinite.
    return centred / (centred**2).mean(0).clamp_min(_LEAST_SPREAD**2).sqrt()


def barlow_twins_loss(first: Tensor, second: Tensor, off_diagonal: float = 0.005) -> Tensor:
    """Return the loss of two sets of codes of the same samples.

    Parameters
    ----------
    first, second : Tensor of shape (B, D)
    off_diagonal : float, default=0.005
        lambda, weight of the entries off the diagonal; the default is the source's.

    Returns
    -------
    Tensor, a scalar

    References
    ----------
    Zbontar et al. 2021 (arXiv 2103.03230), equation 1.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> barlow_twins_loss(z, z), barlow_twins_loss(z, -z)
    (tensor(0.), tensor(8.))
    """
    correlation = cross_correlation(first, second)
    if correlation.shape[0] != correlation.shape[1]:
        raise ValueError(
            f"both sets of codes must have the same size, got {tuple(correlation.shape)}"
        )
    diagonal = correlation.diagonal()
    rest = (correlation**2).sum() - (diagonal**2).sum()
    return ((1.0 - diagonal) ** 2).sum() + off_diagonal * rest


class Projector(nn.Module):
    """Dense network from codes to the space in which they are compared.

    Linear layers with batch normalisation and ReLU between them, as in the source.

    Parameters
    ----------
    latent_dim : int
    sizes : sequence of int
        Widths of the layers; the last is that of the output.
    generator : torch.Generator or None, default=None
        Source of the initial parameters; None: a private one, seed 0.

    References
    ----------
    Zbontar et al. 2021 (arXiv 2103.03230), section 2.2.

    Examples
    --------
    >>> Projector(4, (16, 8))(torch.zeros(3, 4)).shape
    torch.Size([3, 8])
    """

    def __init__(
        self, latent_dim: int, sizes: Sequence[int], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        widths = (check_size("latent_dim", latent_dim), *check_sizes("projector", sizes))
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [Linear(narrow, wide), nn.BatchNorm1d(wide), nn.ReLU()]
        self.network = nn.Sequential(*layers[:-2])
        generator = private_generator(generator)
        for layer in self.network:
            if isinstance(layer, Linear):
                layer.reset_parameters(generator)

    def forward(self, codes: Tensor) -> Tensor:
        """Map (B, D) to (B, E)."""
        projected: Tensor = self.network(codes)
        return projected
