"""Priors over sequences of codes: what a VQ-VAE generates from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from tsvae.models.code_counts import Counts, CountTable, check_codes
from tsvae.nn.checks import check_size

__all__ = ["CodePrior", "MarkovCodePrior"]

# Strengths tried by smoothing="auto", strongest first: ties (too few data to tell) go to it.
_STRENGTHS = tuple(10.0 ** (exponent / 4) for exponent in range(12, -9, -1))
_LARGEST_KEY = 2**62


@runtime_checkable
class CodePrior(Protocol):
    """Distribution over sequences of codes ``(N, L)``, each in 0..K-1."""

    n_codes: int

    @property
    def fitted(self) -> bool:
        """Whether :meth:`fit` was called (or a fitted state loaded)."""

    def fit(self, codes: Tensor, generator: torch.Generator | None = None) -> CodePrior:
        """Fit to sequences ``(N, L)``."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw sequences ``(n, L)``."""

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log probability of each sequence in nats, ``(N,)``."""


class _Places(NamedTuple):
    """Where a table is looked up: contexts, the codes after them, their flat indices."""

    context: Tensor
    code: Tensor
    at: Tensor


class MarkovCodePrior(nn.Module):
    r"""Markov chain of order k over codes, fitted by counting.

    A code given the ``j`` codes before it is a mixture of what was counted and the same with one
    code less, down to the uniform distribution (the mean of a Dirichlet posterior whose prior
    mean is the shorter context's distribution):

    .. math:: p_j(c | h_j) = \frac{n(h_j, c) + s_j\, p_{j-1}(c | h_{j-1})}{n(h_j) + s_j}

    With ``positions="start"`` the first k codes are counted by position too, as fewer than k
    came before: a sequence begins with what sequences begin with. With ``positions="every"`` all
    counts are by position, before any context is dropped (an inhomogeneous chain): records that
    are aligned, such as beats cut around their peak, keep what belongs at each place.

    Parameters
    ----------
    n_codes : int
        K, size of the alphabet.
    order : int, default=1
        k, codes that the next one depends on.
    positions : {"auto", "every", "start"}, default="auto"
        Where the position counts: at every step, or among the first k alone. "auto" takes the
        one with the higher leave-one-out likelihood.
    smoothing : "auto" or float, default="auto"
        Strengths s_j. "auto" chooses each by the leave-one-out likelihood of the data, which the
        counts give in closed form.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range.

    References
    ----------
    MacKay & Peto 1995 (Natural Language Engineering 1, 289), section 3 (contexts that back off
    by a Dirichlet prior).

    Examples
    --------
    >>> codes = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 2, 1]])
    >>> prior = MarkovCodePrior(3, smoothing=1e-3).fit(codes)
    >>> prior.log_prob(torch.tensor([[0, 1, 2]])).exp().round(decimals=2)
    tensor([0.6700], dtype=torch.float64)
    >>> prior.sample(4, torch.Generator().manual_seed(0)).shape
    torch.Size([4, 3])
    """

    steps: Tensor
    aligned: Tensor

    def __init__(
        self,
        n_codes: int,
        order: int = 1,
        *,
        positions: Literal["auto", "every", "start"] = "auto",
        smoothing: Literal["auto"] | float = "auto",
    ) -> None:
        super().__init__()
        self.n_codes = check_size("n_codes", n_codes)
        self.order = check_size("order", order, minimum=0)
        if positions not in ("auto", "every", "start"):
            raise ValueError(f"positions must be 'auto', 'every' or 'start', got {positions!r}")
        if smoothing != "auto" and not (isinstance(smoothing, int | float) and smoothing > 0):
            raise ValueError(f"smoothing must be 'auto' or a positive number, got {smoothing!r}")
        self.positions = positions
        self.smoothing = smoothing
        self.tables = nn.ModuleList(CountTable(self.n_codes) for _ in range(self.order + 2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("aligned", torch.zeros((), dtype=torch.bool))

    @property
    def fitted(self) -> bool:
        """Whether :meth:`fit` was called (or a fitted state loaded)."""
        return int(self.steps) > 0

    @property
    def n_steps(self) -> int:
        """L, steps of the fitted sequences.

        Raises
        ------
        RuntimeError
            If nothing was fitted.
        """
        steps = int(self.steps)
        if not steps:
            raise RuntimeError("this MarkovCodePrior is not fitted; call fit(codes) first")
        return steps

    @torch.no_grad()
    def fit(self, codes: Tensor, generator: torch.Generator | None = None) -> MarkovCodePrior:
        """Count; a second call forgets the first.

        Parameters
        ----------
        codes : Tensor of int, shape (N, L)
        generator : torch.Generator, optional
            Not used: counting draws nothing. Here for the protocol.

        Returns
        -------
        MarkovCodePrior
            Itself.

        Raises
        ------
        TypeError, ValueError
            If codes are not integers in 0..K-1, or contexts outnumber 64-bit integers.
        """
        codes = check_codes(codes, self.n_codes)
        if self.n_codes ** (self.order + 1) * codes.shape[1] > _LARGEST_KEY:
            raise ValueError(
                f"order={self.order} with n_codes={self.n_codes} has more contexts than 64-bit "
                "integers; lower order"
            )
        self.steps = torch.tensor(codes.shape[1], device=codes.device)
        kinds = {"auto": (False, True), "start": (False,), "every": (True,)}[self.positions]
        scores = [self._count(codes, aligned) for aligned in kinds]
        if scores[-1] < max(scores):
            self._count(codes, aligned=False)
        return self

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log probability of each sequence.

        Parameters
        ----------
        codes : Tensor of int, shape (N, L)

        Returns
        -------
        Tensor of float64, shape (N,)
            In nats.
        """
        codes = check_codes(codes, self.n_codes, self.n_steps)
        total = torch.zeros(len(codes), dtype=torch.float64, device=codes.device)
        for t in range(codes.shape[1]):
            total = total + self._probability(codes[:, :t], codes[:, t : t + 1]).squeeze(1).log()
        return total

    def next_probabilities(self, past: Tensor) -> Tensor:
        """Distribution of the code after the given ones.

        Parameters
        ----------
        past : Tensor of int64, shape (N, t)
            Codes so far; t may be 0.

        Returns
        -------
        Tensor of float64, shape (N, K)
        """
        return self._probability(past, torch.arange(self.n_codes, device=past.device)[None])

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw sequences.

        Parameters
        ----------
        n : int
        generator : torch.Generator
            Only source of random numbers; on any device.

        Returns
        -------
        Tensor of int64, shape (n, L)
        """
        codes = self.steps.new_zeros((check_size("n", n), self.n_steps))
        for t in range(codes.shape[1]):
            odds = self.next_probabilities(codes[:, :t]).to(generator.device)
            codes[:, t] = torch.multinomial(odds, 1, generator=generator).squeeze(1)
        return codes

    def _lookups(self, past: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Go through the tables that know about the code after ``past (N, t)``.

        Gives the number of each and the context in it, the least specific first.
        """
        t = past.shape[1]
        context = past.new_zeros(len(past))
        place = t * self.n_codes**self.order
        aligned = bool(self.aligned)
        if aligned:
            yield 0, context
        power = 1
        for j in range(min(t, self.order) + 1):
            if j:
                context = context + past[:, t - j] * power
                power *= self.n_codes
            yield (j + 1, context + place) if aligned else (j, context)
        if not aligned and t < self.order:
            yield self.order + 1, context + place

    def _table(self, number: int) -> CountTable:
        table = self.tables[number]
        assert isinstance(table, CountTable)
        return table

    def _probability(self, past: Tensor, code: Tensor) -> Tensor:
        """p(code | past): ``(N, C)`` for codes ``(N or 1, C)``."""
        shape = np.broadcast_shapes((len(past), 1), code.shape)
        odds = torch.full(shape, 1.0 / self.n_codes, dtype=torch.float64, device=past.device)
        for number, context in self._lookups(past):
            table = self._table(number)
            odds = table.counts(context[:, None], code).blend(odds, table.strength)
        return odds

    def _count(self, codes: Tensor, aligned: bool) -> float:
        """Fill all tables and set their strengths; the leave-one-out log-likelihood."""
        self.aligned = torch.tensor(aligned, device=codes.device)
        lower = torch.full(
            (codes.numel(),), 1.0 / self.n_codes, dtype=torch.float64, device=codes.device
        )
        for number, places in enumerate(self._places(codes)):
            table = self._table(number)
            table.fill(places.context, places.code)
            counts = table.counts(places.context, places.code).without_one()
            strength = self._strength(counts, lower[places.at])
            table.strength = lower.new_tensor(strength)
            lower[places.at] = counts.blend(lower[places.at], strength)
        return float(lower.log().sum())

    def _strength(self, counts: Counts, lower: Tensor) -> float:
        if self.smoothing != "auto":
            return float(self.smoothing)
        scores = [counts.blend(lower, s).log().sum() for s in _STRENGTHS]
        return _STRENGTHS[int(torch.stack(scores).argmax())]

    def _places(self, codes: Tensor) -> list[_Places]:
        """For each table, where in the data it is looked up."""
        index = torch.arange(codes.numel(), device=codes.device).reshape(codes.shape)
        rows: list[list[tuple[Tensor, ...]]] = [[] for _ in self.tables]
        for t in range(codes.shape[1]):
            for number, context in self._lookups(codes[:, :t]):
                rows[number].append((context, codes[:, t], index[:, t]))
        empty = (codes.new_zeros(0),) * 3
        return [_Places(*map(torch.cat, zip(empty, *row, strict=True))) for row in rows]
