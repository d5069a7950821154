"""Priors over sequences of codes: what a VQ-VAE generates from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tsvae.models.code_counts import CountTable, check_codes
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


class _Lookup(NamedTuple):
    """A table and the context in it of each sequence, ``(N,)``."""

    table: CountTable
    context: Tensor


class MarkovCodePrior(nn.Module):
    r"""Markov chain of order k over codes, fitted by counting.

    A code given the ``j`` codes before it is a mixture of what was counted and the same with one
    code less, down to the uniform distribution (the mean of a Dirichlet posterior whose prior
    mean is the shorter context's distribution):

    .. math:: p_j(c | h_j) = \frac{n(h_j, c) + s_j\, p_{j-1}(c | h_{j-1})}{n(h_j) + s_j}

    A last table knows the position too: it backs off to the chain that does not. So the start of
    a sequence, where fewer than k codes came before, follows what sequences start with, and with
    ``positions="every"`` the chain is inhomogeneous: records that are aligned (beats cut around
    their peak, days) keep what belongs at each place.

    Parameters
    ----------
    n_codes : int
        K, size of the alphabet.
    order : int, default=1
        k, codes that the next one depends on.
    positions : {"every", "start"}, default="every"
        Where the position counts: at every step, or among the first k alone.
    smoothing : "auto" or float, default="auto"
        Strengths s_j. "auto" chooses each by the leave-one-out likelihood of the data, which the
        counts give in closed form.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range.

    References
    ----------
    MacKay & Peto 1995 (Natural Language Engineering 1, 289), equation 17 (contexts that back off
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

    def __init__(
        self,
        n_codes: int,
        order: int = 1,
        *,
        positions: Literal["every", "start"] = "every",
        smoothing: Literal["auto"] | float = "auto",
    ) -> None:
        super().__init__()
        self.n_codes = check_size("n_codes", n_codes)
        self.order = check_size("order", order, minimum=0)
        if positions not in ("every", "start"):
            raise ValueError(f"positions must be 'every' or 'start', got {positions!r}")
        if smoothing != "auto" and not (isinstance(smoothing, int | float) and smoothing > 0):
            raise ValueError(f"smoothing must be 'auto' or a positive number, got {smoothing!r}")
        self.positions = positions
        self.smoothing = smoothing
        self.tables = nn.ModuleList(CountTable(self.n_codes) for _ in range(self.order + 1))
        self.positional = CountTable(self.n_codes)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

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
        places = self._places(codes)
        for table, (context, code, _) in zip(self._all_tables(), places, strict=True):
            table.fill(context, code)
        self.steps = torch.tensor(codes.shape[1], device=codes.device)
        self._choose_strengths(places, codes)
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

    def _all_tables(self) -> Iterator[CountTable]:
        for table in (*self.tables, self.positional):
            assert isinstance(table, CountTable)
            yield table

    def _lookups(self, past: Tensor) -> Iterator[_Lookup]:
        """Tables that know about the code after ``past (N, t)``, the least specific first."""
        t = past.shape[1]
        context = past.new_zeros(len(past))
        power = 1
        for j, table in enumerate(self._all_tables()):
            if j > min(t, self.order):
                break
            if j:
                context = context + past[:, t - j] * power
                power *= self.n_codes
            yield _Lookup(table, context)
        if t < self.order or self.positions == "every":
            yield _Lookup(self.positional, context + t * self.n_codes**self.order)

    def _probability(self, past: Tensor, code: Tensor) -> Tensor:
        """p(code | past): ``(N, C)`` for codes ``(N or 1, C)``."""
        shape = torch.broadcast_shapes((len(past), 1), code.shape)
        odds = torch.full(shape, 1.0 / self.n_codes, dtype=torch.float64, device=past.device)
        for table, context in self._lookups(past):
            odds = table.counts(context[:, None], code).blend(odds, table.strength)
        return odds

    def _places(self, codes: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each table: contexts, codes and flat positions where it is looked up."""
        place = torch.arange(codes.numel(), device=codes.device).reshape(codes.shape)
        found: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {
            id(table): [] for table in self._all_tables()
        }
        for t in range(codes.shape[1]):
            for table, context in self._lookups(codes[:, :t]):
                found[id(table)].append((context, codes[:, t], place[:, t]))
        empty = codes.new_zeros(0)
        return [
            (
                torch.cat([empty, *(row[0] for row in rows)]),
                torch.cat([empty, *(row[1] for row in rows)]),
                torch.cat([empty, *(row[2] for row in rows)]),
            )
            for rows in found.values()
        ]

    def _choose_strengths(self, places: list[tuple[Tensor, Tensor, Tensor]], codes: Tensor) -> None:
        """Set the strength of each table, by leaving one code out at a time if "auto"."""
        lower = torch.full(
            (codes.numel(),), 1.0 / self.n_codes, dtype=torch.float64, device=codes.device
        )
        for table, (context, code, place) in zip(self._all_tables(), places, strict=True):
            if self.smoothing != "auto":
                table.strength = lower.new_tensor(self.smoothing)
                continue
            counts = table.counts(context, code).without_one()
            scores = [counts.blend(lower[place], s).log().sum() for s in _STRENGTHS]
            best = _STRENGTHS[int(torch.stack(scores).argmax())]
            table.strength = lower.new_tensor(best)
            lower[place] = counts.blend(lower[place], best)
