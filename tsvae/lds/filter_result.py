"""Results of a filter pass: moments of the states, and where forecasts start."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tsvae.lds.layout import SeriesLayout


def per_series(values: Tensor, pattern: Tensor | None, n_series: int) -> Tensor:
    """Spread values of P patterns over the B series that use them.

    Parameters
    ----------
    values : Tensor (P, ...)
    pattern : Tensor (B,) long or None
        Row of ``values`` of each series; None when P is 1 or B.
    n_series : int
        B.

    Returns
    -------
    Tensor (B, ...)
        A view where P is 1 or B.
    """
    if pattern is not None:
        return values.index_select(0, pattern)
    return values.expand(n_series, *values.shape[1:])


class ChainExcess(NamedTuple):
    """The part of the potentials and of the normaliser that comes from expected parameters.

    Attributes
    ----------
    linear : Tensor (1, P or B; T, D)
        ``-C_zk [u_{t+1}; 1]`` at steps with a successor in the chain; one row per pattern
        without inputs.
    followed : Tensor (1 or P, T)
        1 at those steps, where ``-z' C_zz z / 2`` applies as well.
    constant : Tensor (B,)
        Part of the log-normaliser that depends on neither states nor potentials.
    by_series : bool
        Whether the rows of ``linear`` are series (there are inputs), not patterns.
    """

    linear: Tensor
    followed: Tensor
    constant: Tensor
    by_series: bool

    def shift(self, pattern: Tensor | None, n_series: int) -> Tensor:
        """Return ``linear`` for every series, ``(B, T, D)``."""
        if self.by_series:
            return self.linear
        return per_series(self.linear, pattern if len(self.linear) > 1 else None, n_series)

    def followed_steps(self, pattern: Tensor | None, n_series: int) -> Tensor:
        """Return ``followed`` for every series, ``(B, T)``."""
        return per_series(self.followed, pattern if len(self.followed) > 1 else None, n_series)


class Moments(Protocol):
    """Where a ``FilterResult`` finds the moments of the states."""

    def filtered(self) -> Tensor:
        """E[z_t | potentials up to t], (B, T, D)."""

    def filtered_at(self, at: Tensor) -> Tensor:
        """E[z_t | potentials up to t] at one step of each series, (B, D)."""

    def predicted(self) -> Tensor:
        """E[z_t | potentials before t], (B, T, D)."""

    def filtered_covariance(self) -> Tensor:
        """Cov[z_t | potentials up to t], (P, T, G, K, K)."""

    def predicted_covariance(self) -> Tensor:
        """Cov[z_t | potentials before t], (P, T, G, K, K)."""

    def total_precision(self) -> Tensor:
        """Precision of the potentials and the excess, (P, T, G, K, K)."""

    def log_det(self) -> Tensor:
        """Sum of log |I + P_t Lambda_t| over steps and groups, (P,)."""

    def normalizer(self) -> Tensor:
        """Log-normaliser less the log-determinants and the excess, (B,)."""


@dataclass(frozen=True, eq=False)
class FilterResult:
    """Filtered and predicted moments of every state, computed when first asked for.

    Attributes
    ----------
    filtered_mean : Tensor (B, T, D)
        E[z_t | potentials up to t].
    filtered_covariance : Tensor (P, T, G, K, K)
    predicted_mean : Tensor (B, T, D)
        E[z_t | potentials before t].
    predicted_covariance : Tensor (P, T, G, K, K)
    log_normalizer : Tensor (B,)
        log of the integral of p(z) (or exp of its expected log) times all potentials.
    linear : Tensor (B, T, D)
        The potentials really applied (excess included).
    precision : Tensor (P, T, G, K, K)
        Likewise.
    pattern : Tensor (B,) long or None
        Row of the covariances of each series (None: P is 1 or B). With expected parameters,
        patterns are split further where series of one pattern end at different steps.
    excess : ChainExcess or None
        What expected parameters added; None for plug-in ones.
    layout : SeriesLayout
        Inner arrangement of the series.
    n_series, n_steps : int
        B, T.
    potentials : Tensor (B, T, D)
        Linear potentials as given.
    moments : Moments
        Where the moments come from.
    grad_enabled : bool
        Whether gradients were recorded when the filter ran; the moments follow suit.
    """

    pattern: Tensor | None
    excess: ChainExcess | None
    layout: SeriesLayout
    potentials: Tensor = field(repr=False)
    moments: Moments = field(repr=False)
    # A value first read under no_grad must not lose the gradient of later readers.
    grad_enabled: bool = field(default_factory=torch.is_grad_enabled, repr=False)

    @property
    def n_series(self) -> int:
        """B."""
        return int(self.potentials.shape[0])

    @property
    def n_steps(self) -> int:
        """T."""
        return int(self.potentials.shape[1])

    @cached_property
    def filtered_mean(self) -> Tensor:
        """E[z_t | potentials up to t], (B, T, D)."""
        with torch.set_grad_enabled(self.grad_enabled):
            return self.moments.filtered()

    def mean_at(self, at: Tensor) -> Tensor:
        """Pick the filtered mean at one step of each series, ``at (B,)`` -> ``(B, D)``."""
        return self.moments.filtered_at(at)

    @cached_property
    def predicted_mean(self) -> Tensor:
        """E[z_t | potentials before t], (B, T, D)."""
        with torch.set_grad_enabled(self.grad_enabled):
            return self.moments.predicted()

    @cached_property
    def filtered_covariance(self) -> Tensor:
        """Cov[z_t | potentials up to t], (P, T, G, K, K)."""
        with torch.set_grad_enabled(self.grad_enabled):
            return self.moments.filtered_covariance()

    @cached_property
    def predicted_covariance(self) -> Tensor:
        """Cov[z_t | potentials before t], (P, T, G, K, K)."""
        with torch.set_grad_enabled(self.grad_enabled):
            return self.moments.predicted_covariance()

    @cached_property
    def precision(self) -> Tensor:
        """Return the precision really applied, (P, T, G, K, K)."""
        with torch.set_grad_enabled(self.grad_enabled):
            return self.moments.total_precision()

    @cached_property
    def linear(self) -> Tensor:
        """Return the potentials really applied, (B, T, D)."""
        with torch.set_grad_enabled(self.grad_enabled):
            if self.excess is None:
                return self.potentials
            return self.potentials + self.excess.shift(self.pattern, self.n_series)

    @cached_property
    def log_normalizer(self) -> Tensor:
        """Log of the integral of p(z) times all potentials, (B,)."""
        with torch.set_grad_enabled(self.grad_enabled):
            log_det = per_series(self.moments.log_det(), self.pattern, self.n_series)
            total = self.moments.normalizer() - 0.5 * log_det
            return total if self.excess is None else total + self.excess.constant


class Chain(NamedTuple):
    """Potentials as given, the patterns they need, and what the excess adds.

    ``precision`` is diagonal ``(P, T, D)`` or blocks ``(P, T, G, K, K)``.
    """

    linear: Tensor
    precision: Tensor
    pattern: Tensor | None
    excess: ChainExcess | None


class StateAt(NamedTuple):
    """One state of every series: ``mean (B, D)``, ``covariance (1 or B, G, K, K)``."""

    mean: Tensor
    covariance: Tensor


def final_state(filtered: FilterResult, lengths: Tensor | None = None) -> StateAt:
    """Pick the filtered state at each series' last observed step: where forecasts start.

    Parameters
    ----------
    filtered : FilterResult
    lengths : Tensor (B,) long, optional
        All T by default. A series of length 0 gives the prior of its first state.

    Returns
    -------
    StateAt
        ``mean (B, D)`` and ``covariance (1, G, K, K)`` if all share it, else ``(B, G, K, K)``.
    """
    n_series, steps = filtered.n_series, filtered.n_steps
    if lengths is None or bool((lengths == steps).all()):
        last = filtered.filtered_covariance[:, -1]
        if last.shape[0] != 1:
            last = per_series(last, filtered.pattern, n_series)
        at = torch.full((n_series,), steps - 1, device=last.device)
        return StateAt(filtered.mean_at(at), last)
    at = lengths.clamp_min(1) - 1
    index = filtered.pattern
    if index is None:
        rows = torch.arange(n_series, device=at.device)
        index = rows if filtered.filtered_covariance.shape[0] == n_series else 0 * rows
    return StateAt(filtered.mean_at(at), filtered.filtered_covariance[index, at])
