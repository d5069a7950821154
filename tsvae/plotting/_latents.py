"""What the displays of latent codes share: names, and which entries to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Index = NDArray[np.intp]

_ACTIVE_NATS = 0.01


def read_codes(estimator: Any, X: Any, condition: Any) -> Float:
    """Posterior means of records (N, D)."""
    given = {} if condition is None else {"condition": condition}
    return np.asarray(estimator.encode(X, **given), dtype=float)


def kl_of(estimator: Any) -> Float | None:
    """KL of each latent entry in nats, of an estimator that knows it."""
    kl = getattr(estimator, "kl_per_dimension_", None)
    return None if kl is None else np.asarray(kl, dtype=float)


def choose_entries(
    n_latent: int, entries: Sequence[int] | None, n_entries: int, weight: Float, active: float
) -> Index:
    """Positions of the latent entries to draw, heaviest first.

    Parameters
    ----------
    n_latent : int
    entries : sequence of int or None
        The caller's choice, in its order.
    n_entries : int
        At most, if `entries` is None.
    weight : ndarray of shape (n_latent,)
    active : float
        Entries of less weight are left out, if there are others.

    Returns
    -------
    ndarray of int

    Raises
    ------
    ValueError
        If there is no such entry.
    """
    if entries is not None:
        chosen = np.asarray(entries, dtype=int).ravel()
        bad = chosen[(chosen < 0) | (chosen >= n_latent)]
        if len(bad) or not len(chosen):
            what = f"got {bad[0]}" if len(bad) else "got none"
            raise ValueError(f"entries must be positions from 0 to {n_latent - 1}; {what}.")
        return chosen
    if n_entries < 1:
        raise ValueError(f"n_entries must be at least 1; got {n_entries}.")
    order = np.argsort(-weight, kind="stable")
    kept = order[weight[order] > active]
    return (kept if len(kept) else order)[:n_entries]


def informative_entries(
    estimator: Any, codes: Float, entries: Sequence[int] | None, n_entries: int
) -> Index:
    """Entries with the most KL; with the largest spread over `codes` where there is no KL."""
    kl = kl_of(estimator)
    if kl is None:
        return choose_entries(codes.shape[1], entries, n_entries, codes.std(axis=0), 1e-6)
    return choose_entries(codes.shape[1], entries, n_entries, kl, _ACTIVE_NATS)
