"""What the displays of latent codes share: names, and which entries to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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


class Plane(NamedTuple):
    """Two principal components of codes."""

    centre: Float  # (D,)
    directions: Float  # (2, D)
    names: list[str]  # of the two axes


def check_plane(n_latent: int, entries: Sequence[int] | None, name: str) -> Index | None:
    """Positions of the two latent entries to draw; None for principal components.

    Parameters
    ----------
    n_latent : int
    entries : sequence of two int, or None
        None takes the two there are, if there are two.
    name : str
        How messages call `entries`.

    Returns
    -------
    ndarray of two int, or None

    Raises
    ------
    ValueError
        If codes have one entry only, or `entries` are not two of them.
    """
    if n_latent < 2:
        raise ValueError(
            "The codes have one entry; a scatter needs two. Fit with a larger latent_dim."
        )
    if entries is None:
        return np.array([0, 1]) if n_latent == 2 else None
    pair = np.asarray(entries)
    whole = np.issubdtype(pair.dtype, np.integer)
    if pair.shape != (2,) or not whole or not ((pair >= 0) & (pair < n_latent)).all():
        raise ValueError(f"{name} must be two positions from 0 to {n_latent - 1}; got {entries!r}.")
    return pair


def principal_plane(codes: Float) -> Plane:
    """First two principal components of codes (N, D), of which there are two or more."""
    centre = codes.mean(axis=0)
    _, size, directions = np.linalg.svd(codes - centre, full_matrices=False)
    share = size**2 / max(float((size**2).sum()), 1e-300)
    # The sign of a component is arbitrary; its largest weight is made positive.
    directions *= np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(1)])[
        :, None
    ]
    names = [f"principal component {k + 1} of the codes ({share[k]:.0%})" for k in (0, 1)]
    return Plane(centre, directions[:2], names)
