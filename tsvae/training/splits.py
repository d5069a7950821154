"""Splits of a panel into training and validation parts."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["SeriesRange", "ValidationSplit", "split_validation", "whole_series"]

_MANY_VALIDATION_SERIES = 8  # so many make a validation set of their own


class SeriesRange(NamedTuple):
    """Parts of series from which windows are cut; one entry per part.

    Parameters
    ----------
    series, begin, end : Tensor of int64 of shape (n,)
        Index of the series and its usable steps ``begin <= t < end``.
    score_from : Tensor of int64 of shape (n,) or None
        First step that counts; earlier ones are history only.
    """

    series: Tensor
    begin: Tensor
    end: Tensor
    score_from: Tensor | None = None


class ValidationSplit(NamedTuple):
    """Training and validation parts of a panel.

    Parameters
    ----------
    train : SeriesRange
        Parts to train on.
    validation : SeriesRange or None
        Parts to validate on; None if the data is too short to spare any.
    by : {"series", "time"}
        How it was split.
    """

    train: SeriesRange
    validation: SeriesRange | None
    by: Literal["series", "time"]


def split_validation(
    lengths: Tensor,
    fraction: float,
    window: int,
    by: Literal["auto", "series", "time"] = "auto",
    generator: torch.Generator | None = None,
) -> ValidationSplit:
    """Set a part of the data aside for validation.

    Parameters
    ----------
    lengths : Tensor of int of shape (N,)
        Steps of each series.
    fraction : float
        Part for validation, 0 <= fraction < 1.
    window : int
        Window length W: how much history a validation window may read.
    by : {"auto", "series", "time"}, default="auto"
        Whole series, chosen at random, or the last part of the time of each. "auto" takes
        series if at least 8 would be set aside. In time, windows read up to half a window or
        more of history before the cut, but only steps after the cut count (``score_from``).
    generator : torch.Generator, optional
        Chooses the series; without it the last ones are taken.

    Returns
    -------
    ValidationSplit

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import torch
    >>> split = split_validation(torch.tensor([100]), 0.2, window=24)
    >>> split.by, split.train.end.tolist(), split.validation.begin.tolist()
    ('time', [80], [68])
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be >= 0 and < 1, got {fraction!r}.")
    if by not in ("auto", "series", "time"):
        raise ValueError(f"by must be 'auto', 'series' or 'time', got {by!r}.")
    lengths = lengths.detach().cpu().long()
    n_series = len(lengths)
    n_validation = round(fraction * n_series)
    if by == "auto":
        by = "series" if n_validation >= _MANY_VALIDATION_SERIES else "time"
    if by == "time":
        return _split_in_time(lengths, fraction, window)
    if fraction > 0:
        n_validation = min(max(1, n_validation), n_series - 1)
    order = torch.arange(n_series)
    if generator is not None:
        draw = torch.randperm(n_series, generator=generator, device=generator.device)
        order = draw.cpu()
    kept, aside = (
        part.sort().values for part in order.split([n_series - n_validation, n_validation])
    )
    validation = whole_series(aside, lengths) if n_validation else None
    return ValidationSplit(whole_series(kept, lengths), validation, "series")


def whole_series(series: Tensor, lengths: Tensor) -> SeriesRange:
    """Parts that hold all steps of the given series."""
    return SeriesRange(series, torch.zeros_like(series), lengths[series])


def _split_in_time(lengths: Tensor, fraction: float, window: int) -> ValidationSplit:
    everything = torch.arange(len(lengths))
    n_last = (lengths * fraction).round().long()
    cut = lengths - n_last
    # A cut needs a step to score after it and at least two to learn from before it.
    usable = (n_last >= 1) & (cut >= 2)
    train = SeriesRange(everything, torch.zeros_like(cut), torch.where(usable, cut, lengths))
    if not bool(usable.any()):
        return ValidationSplit(train, None, "time")
    scored = n_last.clamp(max=max(1, window // 2))  # steps scored by the first window
    begin = (cut - (window - scored)).clamp(min=0)
    validation = SeriesRange(everything[usable], begin[usable], lengths[usable], cut[usable])
    return ValidationSplit(train, validation, "time")
