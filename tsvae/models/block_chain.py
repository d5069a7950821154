r"""Gaussian vectors whose precision is block tridiagonal.

With blocks :math:`D_j` on and :math:`B_j` below the diagonal (rows j, columns j - 1), the block
Cholesky factor has :math:`L_j L_j' = D_j - U_j' U_j` on and :math:`U_j'` below the diagonal, where
:math:`U_j = L_{j-1}^{-1} B_j'`. Means come by substitution, and those blocks of the inverse that a
precision of this form has itself by going back,

.. math::
    S_{j,j} = L_j^{-T} (I + U_{j+1} S_{j+1,j+1} U_{j+1}') L_j^{-1}, \qquad
    S_{j,j+1} = -L_j^{-T} U_{j+1} S_{j+1,j+1}

(Takahashi, Fagan & Chen 1973; Rue & Held 2005, Gaussian Markov Random Fields, section 2.4). Time
and memory grow with the number of blocks, not with its square.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ChainMoments", "chain_moments"]


class ChainMoments(NamedTuple):
    """Moments of N chains of J blocks of W numbers.

    Attributes
    ----------
    mean : Tensor (N, J, W)
    covariance : Tensor (N, J, W, W)
        Of each block.
    cross : Tensor (N, J - 1, W, W)
        Of block j with block j + 1.
    log_det : Tensor (N,)
        Of the precision.
    """

    mean: Tensor
    covariance: Tensor
    cross: Tensor
    log_det: Tensor


def chain_moments(
    diagonal: Tensor, below: Tensor, linear: Tensor, noise: Tensor | None = None
) -> ChainMoments:
    """Moments of the density proportional to ``exp(linear' x - x' P x / 2)``.

    Parameters
    ----------
    diagonal : Tensor (N, J, W, W)
        Blocks of P on its diagonal.
    below : Tensor (N, J - 1, W, W)
        Blocks ``(j + 1, j)`` of P.
    linear : Tensor (N, J, W)
    noise : Tensor (N, J, W), optional
        Standard normal numbers that turn the mean into a draw.

    Returns
    -------
    ChainMoments

    Raises
    ------
    torch.linalg.LinAlgError
        If P is not positive definite.

    Examples
    --------
    >>> two = torch.full((1, 2, 1, 1), 2.0)
    >>> found = chain_moments(two, -torch.ones(1, 1, 1, 1), torch.ones(1, 2, 1))
    >>> found.mean.flatten()  # of [[2, -1], [-1, 2]]
    tensor([1.0000, 1.0000])
    """
    inverses: list[Tensor] = []
    links: list[Tensor] = []
    white: list[Tensor] = []
    drawn: list[Tensor] = []
    log_det = linear.new_zeros(len(linear))
    eye = torch.eye(linear.shape[-1], dtype=linear.dtype, device=linear.device)
    eye = eye.expand_as(diagonal[:, 0])
    for j, (block, own) in enumerate(
        zip(diagonal.unbind(1), linear.unsqueeze(-1).unbind(1), strict=True)
    ):
        if j:
            link = inverses[-1] @ below[:, j - 1].mT
            links.append(link)
            block = block - link.mT @ link
            own = own - link.mT @ white[-1]
        root = torch.linalg.cholesky(block)
        inverses.append(torch.linalg.solve_triangular(root, eye, upper=False))
        white.append(inverses[-1] @ own)
        if noise is not None:
            drawn.append(white[-1] + noise[:, j].unsqueeze(-1))
        log_det = log_det + 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _go_back(inverses, links, drawn or white, log_det)


def _go_back(
    inverses: list[Tensor], links: list[Tensor], white: list[Tensor], log_det: Tensor
) -> ChainMoments:
    mean = [inverses[-1].mT @ white[-1]]
    covariance = [inverses[-1].mT @ inverses[-1]]
    cross: list[Tensor] = []
    for j in range(len(inverses) - 2, -1, -1):
        inverse, link = inverses[j], links[j]
        gain = inverse.mT @ link
        mean.append(inverse.mT @ white[j] - gain @ mean[-1])
        cross.append(-gain @ covariance[-1])
        covariance.append(inverse.mT @ inverse - cross[-1] @ gain.mT)
    empty = log_det.new_zeros(len(log_det), 0, *inverses[0].shape[1:])
    return ChainMoments(
        torch.stack(mean[::-1], 1).squeeze(-1),
        torch.stack(covariance[::-1], 1),
        torch.stack(cross[::-1], 1) if cross else empty,
        log_det,
    )
