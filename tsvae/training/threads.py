"""Torch's CPU threads during a fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["pinned_threads"]


@contextmanager
def pinned_threads(n_threads: int | None = None) -> Iterator[None]:
    """Use a fixed number of CPU threads inside the block, then restore the old number.

    Sums are split over threads, so results are bit-identical only at equal thread count.

    Parameters
    ----------
    n_threads : int or None
        Number of threads; None leaves it alone (and still restores what others change).

    Examples
    --------
    >>> import torch
    >>> before = torch.get_num_threads()
    >>> with pinned_threads(1):
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    before = torch.get_num_threads()
    if n_threads is not None and n_threads != before:
        torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
