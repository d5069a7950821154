"""Vector quantisation: a codebook that follows its encoder by moving averages."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsvae.nn.checks import check_size
from tsvae.nn.layers import fill_normal, private_generator

__all__ = ["Codebook", "Quantized", "code_perplexity"]


class Quantized(NamedTuple):
    """What quantisation makes of encoder outputs ``(..., D)``.

    Parameters
    ----------
    z : Tensor, shape (..., D)
        Nearest code vectors, with the gradient of the encoder output (straight-through).
    codes : Tensor of int64, shape (...)
        Their indices.
    commitment : Tensor, shape (...)
        Squared distance from encoder output to code vector; its gradient reaches the encoder.
    """

    z: Tensor
    codes: Tensor
    commitment: Tensor


def code_perplexity(codes: Tensor, n_codes: int) -> Tensor:
    """Effective number of codes in use: exp of the entropy of their frequencies.

    Parameters
    ----------
    codes : Tensor of int64
        Of any shape.
    n_codes : int
        K, size of the alphabet.

    Returns
    -------
    Tensor, shape ()
        Between 1 and K.

    Examples
    --------
    >>> code_perplexity(torch.tensor([0, 1, 2, 3]), 8)
    tensor(4.)
    """
    share = functional.one_hot(codes.flatten(), n_codes).float().mean(0)
    return torch.exp(-torch.special.xlogy(share, share).sum())


class Codebook(nn.Module):
    r"""Code vectors, each the moving average of the encoder outputs nearest to it.

    .. math::
        N_k &\leftarrow \gamma N_k + (1 - \gamma) n_k, \quad
        m_k \leftarrow \gamma m_k + (1 - \gamma) \sum_{i: c_i = k} z_i, \\
        e_k &= m_k / \tilde N_k, \quad
        \tilde N_k = \frac{N_k + \epsilon}{N + K \epsilon} N, \quad N = \sum_k N_k

    A vector is dead when it was nearest to none of so many outputs that an average one would have
    been used ``restart_after`` times. It moves to a random output of the batch, with the mean
    count. Encoders move fast at first, and one that has left its codebook behind maps all records
    to one code: restarts must come within a few batches, long before a moving count of
    :math:`\gamma = 0.99` has decayed.

    Parameters
    ----------
    n_codes : int
        K, number of vectors.
    dim : int
        D, their length.
    decay : float, default=0.99
        Moving average's gamma, in [0, 1): a memory of about 100 batches.
    epsilon : float, default=1e-5
        Laplace smoothing of the counts.
    restart_after : float, default=100.0
        Uses that a dead code has missed, compared with an average one; ``inf`` never restarts.
    generator : torch.Generator, optional
        Source of the vectors before the first update; None: a private one with seed 0.

    References
    ----------
    van den Oord et al. 2017 (arXiv 1711.00937), equations 1 and 2 (quantisation), 6 to 8 in
    appendix A.1 (moving averages); Dhariwal et al. 2020 (arXiv 2005.00341), section 3.1 (restarts).

    Examples
    --------
    >>> book = Codebook(2, 1)
    >>> _ = book.vectors.copy_(torch.tensor([[0.0], [1.0]]))
    >>> book(torch.tensor([[0.2], [0.9]])).codes
    tensor([0, 1])
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor
    idle: Tensor
    started: Tensor

    def __init__(
        self,
        n_codes: int,
        dim: int,
        *,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        restart_after: float = 100.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_codes, self.dim = check_size("n_codes", n_codes), check_size("dim", dim)
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay!r}")
        if not epsilon > 0.0:
            raise ValueError(f"epsilon must be positive, got {epsilon!r}")
        if not restart_after > 0.0:
            raise ValueError(f"restart_after must be positive, got {restart_after!r}")
        self.decay, self.epsilon = float(decay), float(epsilon)
        self.restart_after = float(restart_after)
        self.register_buffer("vectors", torch.zeros(self.n_codes, self.dim))
        self.register_buffer("counts", torch.ones(self.n_codes))
        self.register_buffer("sums", torch.zeros(self.n_codes, self.dim))
        self.register_buffer("idle", torch.zeros(self.n_codes))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        fill_normal(self.vectors, 1.0, private_generator(generator))
        self.sums.copy_(self.vectors)

    def nearest(self, z: Tensor) -> Tensor:
        """Index of the vector nearest to each output: ``(..., D)`` to ``(...)``."""
        vectors = self.vectors.to(z.dtype)
        # |z - e|^2 without |z|^2, which is the same for every vector.
        distance = vectors.square().sum(-1) - 2.0 * z @ vectors.T
        return distance.argmin(-1)

    def look_up(self, codes: Tensor) -> Tensor:
        """Vectors of codes: ``(...)`` to ``(..., D)``."""
        return self.vectors[codes]

    def forward(self, z: Tensor) -> Quantized:
        """Quantise; never changes the codebook.

        Parameters
        ----------
        z : Tensor, shape (..., D)

        Returns
        -------
        Quantized
        """
        codes = self.nearest(z.detach())
        vectors = self.look_up(codes).to(z.dtype)
        return Quantized(
            z=z + (vectors - z).detach(),
            codes=codes,
            commitment=(z - vectors).square().sum(-1),
        )

    @torch.no_grad()
    def start(self, z: Tensor, generator: torch.Generator) -> None:
        """Place the vectors on random outputs of a batch.

        Parameters
        ----------
        z : Tensor, shape (..., D)
        generator : torch.Generator
        """
        z = z.detach().flatten(0, -2).to(self.vectors)
        self.vectors.copy_(self._picked(z, generator))
        self.counts.fill_(len(z) / self.n_codes)
        self.sums.copy_(self.vectors * self.counts[:, None])
        self.idle.zero_()
        self.started.fill_(True)

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """Follow a batch of encoder outputs, then restart dead codes from it.

        Parameters
        ----------
        z : Tensor, shape (..., D)
        codes : Tensor of int64, shape (...)
            Nearest codes of z.
        generator : torch.Generator
            Chooses the outputs that dead codes move to.
        """
        z = z.detach().flatten(0, -2).to(self.vectors)
        # Products with one-hot rows, not scattered sums: the same bits on every run and device.
        assigned = functional.one_hot(codes.flatten(), self.n_codes).to(z.dtype)
        uses = assigned.sum(0)
        self.counts.lerp_(uses, 1.0 - self.decay)
        self.sums.lerp_(assigned.T @ z, 1.0 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + self.epsilon) / (total + self.n_codes * self.epsilon) * total
        self.vectors.copy_(self.sums / smoothed[:, None])
        self.idle.copy_(torch.where(uses > 0, 0.0, self.idle + len(z) / self.n_codes))
        self._restart(z, total / self.n_codes, generator)

    def _restart(self, z: Tensor, mean_count: Tensor, generator: torch.Generator) -> None:
        dead = self.idle >= self.restart_after
        fresh = self._picked(z, generator)
        self.vectors.copy_(torch.where(dead[:, None], fresh, self.vectors))
        self.counts.copy_(torch.where(dead, mean_count, self.counts))
        self.sums.copy_(torch.where(dead[:, None], fresh * mean_count, self.sums))
        self.idle.masked_fill_(dead, 0.0)

    def _picked(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """K rows of ``z (n, D)`` in random order, repeated where n < K."""
        order = torch.randperm(len(z), generator=generator, device=generator.device)
        index = torch.arange(self.n_codes, device=order.device) % len(z)
        return z[order[index].to(z.device)]

    def extra_repr(self) -> str:
        """Return what repr shows."""
        return f"{self.n_codes}, {self.dim}, decay={self.decay}"
