"""Windows of a panel as batches, gathered by index arithmetic where the data lies.

Shapes: N series, T steps, F features, U inputs, W window, B windows per batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from tsvae.training.augment import Augmentation, observed_lengths
from tsvae.training.splits import SeriesRange, whole_series

__all__ = ["WindowEpoch", "WindowIndex", "WindowLoader"]


class WindowIndex(NamedTuple):
    """Which windows: one entry per window, int64.

    Parameters
    ----------
    series, start : Tensor of shape (n,)
        Series and first step of the window.
    score_from : Tensor of shape (n,) or None
        First step of the window, counted from its start, that counts.
    end : Tensor of shape (n,) or None
        Step of the series from which on nothing may be seen; None if no window reaches it.
    """

    series: Tensor
    start: Tensor
    score_from: Tensor | None = None
    end: Tensor | None = None


@dataclass
class WindowLoader:
    """Batches of windows of a panel: ``loader(epoch, generator)`` gives those of one epoch.

    The panel stays where and as it is; a batch copies its own windows only.

    Parameters
    ----------
    values : Tensor of shape (N, T, F)
        Values; those not observed are never read.
    mask : Tensor of bool of shape (N, T, F)
        True = observed.
    window : int
        Steps per window W. Shorter series are padded at the end with mask = False.
    batch_size : int
        Windows per batch at most.
    inputs : Tensor of shape (N, T, U), optional
        Known covariates.
    lengths : Tensor of int of shape (N,), optional
        Steps of each series; T by default.
    ranges : SeriesRange, optional
        Parts of series to use, from :func:`split_validation`; all of them by default.
    stride : int, optional
        Steps between windows; half a window by default. The first and the last window of each
        part are always there, so with ``stride <= window`` every step is covered.
    random_start : bool, default=True
        Shift the grid of windows at random in each epoch.
    n_windows : int, optional
        Draw so many windows at random instead of walking over the grid.
    shuffle : bool, default=True
        Random order of the windows.
    remainder : {"balance", "keep", "drop", "fill"}, default="balance"
        When the windows do not fill the last batch: make all batches (nearly) equal, keep the
        small one, leave it out, or fill it with windows of the epoch's beginning.
    augmentation : Augmentation, optional
        Self-supervision; without it ``visible`` is ``mask``.
    device : torch.device, optional
        Where to put the panel; where it is by default.

    Notes
    -----
    Each batch is a dictionary: ``x`` (B, W, F), 0 where not observed; ``mask`` and ``visible``
    (B, W, F), bool; ``lengths`` (B,), last observed step + 1; ``series`` and ``start`` (B,);
    ``inputs`` (B, W, U) if given; ``score_from`` (B,), first step of the window that counts, if
    the ranges have it: each step of a part then counts in exactly one window of a fixed grid.
    Windows with nothing observed (or nothing that counts) are skipped.

    Examples
    --------
    >>> import torch
    >>> values = torch.arange(10.0).reshape(1, 10, 1)
    >>> loader = WindowLoader(values, torch.ones(1, 10, 1, dtype=torch.bool), window=4,
    ...                       batch_size=2, stride=3, random_start=False, shuffle=False)
    >>> [batch["start"].tolist() for batch in loader(0, torch.Generator())]
    [[0, 3], [6]]
    """

    values: Tensor
    mask: Tensor
    window: int
    batch_size: int
    inputs: Tensor | None = None
    lengths: Tensor | None = None
    ranges: SeriesRange | None = None
    stride: int | None = None
    random_start: bool = True
    n_windows: int | None = None
    shuffle: bool = True
    remainder: Literal["balance", "keep", "drop", "fill"] = "balance"
    augmentation: Augmentation | None = None
    device: torch.device | None = None

    def __post_init__(self) -> None:
        self._check()
        self.stride = self.stride or max(1, self.window // 2)
        n_series, n_steps = self.values.shape[:2]
        if self.lengths is None:
            self.lengths = torch.full((n_series,), n_steps)
        if self.ranges is None:
            self.ranges = whole_series(torch.arange(n_series), self.lengths.cpu().long())
        self.mask = self.mask.bool()
        # Observed steps before each step, to see at once which windows hold any.
        observed = self.mask.any(dim=-1).cumsum(dim=1, dtype=torch.int32).cpu()
        self._observed = torch.nn.functional.pad(observed, (1, 0))
        self._move_and_pad(n_steps)

    def _check(self) -> None:
        if self.values.dim() != 3:
            raise ValueError(
                f"values must have shape (series, steps, features), got {tuple(self.values.shape)}."
            )
        if self.mask.shape != self.values.shape:
            raise ValueError(
                f"mask must have the shape of values {tuple(self.values.shape)}, "
                f"got {tuple(self.mask.shape)}."
            )
        if self.inputs is not None and self.inputs.shape[:2] != self.values.shape[:2]:
            raise ValueError(
                f"inputs must have the series and steps of values {tuple(self.values.shape[:2])}, "
                f"got {tuple(self.inputs.shape[:2])}."
            )
        for name in ("window", "batch_size", "stride", "n_windows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")
        if self.remainder not in ("balance", "keep", "drop", "fill"):
            raise ValueError(
                f"remainder must be 'balance', 'keep', 'drop' or 'fill', got {self.remainder!r}."
            )

    def _move_and_pad(self, n_steps: int) -> None:
        """Put the panel on the device; pad it only if no window fits into it."""
        assert self.ranges is not None
        device = self.device or self.values.device
        begin, end = self.ranges.begin, self.ranges.end
        self._short = bool((end - begin < self.window).any())
        beyond = (begin + self.window)[end - begin < self.window]
        missing = max(0, int(beyond.max()) - n_steps) if self._short else 0
        for name in ("values", "mask", "inputs"):
            value = getattr(self, name)
            if value is not None:
                value = value.to(device)
                if missing:
                    value = torch.nn.functional.pad(value, (0, 0, 0, missing))
                setattr(self, name, value)
        self.device = device

    def __call__(self, epoch: int, generator: torch.Generator) -> WindowEpoch:
        """Windows of an epoch.

        Parameters
        ----------
        epoch : int
            Not used: what differs between epochs comes from the generator.
        generator : torch.Generator
            Draws starts, order and augmentation.

        Returns
        -------
        WindowEpoch
            Iterable of batches, with a length.
        """
        index = self._drawn(generator) if self.n_windows else self._grid(generator)
        if self.shuffle:
            order = torch.randperm(
                len(index.start), generator=generator, device=generator.device
            ).cpu()
            index = _select(index, order)
        return WindowEpoch(self, index, generator)

    def _grid(self, generator: torch.Generator) -> WindowIndex:
        """Windows at equal distances, the first and the last of each part always among them."""
        assert self.ranges is not None and self.stride is not None
        _, begin, end, score_from = self.ranges
        last = (end - begin - self.window).clamp(min=0)
        count = (last + self.stride - 1) // self.stride + 1
        phase = torch.zeros_like(begin)
        if self.random_start:
            size, device = begin.shape, generator.device
            drawn = torch.randint(1, self.stride + 1, size, generator=generator, device=device)
            phase, count = drawn.cpu(), count + (last > 0)
        part = torch.repeat_interleave(torch.arange(len(begin)), count)
        offset = torch.arange(len(part)) - (count.cumsum(0) - count)[part]
        shift = torch.minimum((offset * self.stride - phase[part]).clamp(min=0), last[part])
        start = begin[part] + shift
        # A shifted grid can meet its clamped first or last window twice.
        fresh = torch.ones_like(start, dtype=torch.bool)
        fresh[1:] = (start[1:] != start[:-1]) | (part[1:] != part[:-1])
        part, start = part[fresh], start[fresh]
        scored = None if score_from is None else self._scored_once(part, start, score_from)
        return self._observed_only(part, start, scored)

    def _scored_once(self, part: Tensor, start: Tensor, score_from: Tensor) -> Tensor:
        """First step that counts in each window: what an earlier window scored counts no more."""
        before = torch.zeros_like(start)
        before[1:] = torch.where(part[1:] == part[:-1], start[:-1] + self.window, 0)
        return torch.maximum(score_from[part], before)

    def _drawn(self, generator: torch.Generator) -> WindowIndex:
        """Windows whose starts are drawn from all that are possible."""
        assert self.ranges is not None and self.n_windows is not None
        _, begin, end, score_from = self.ranges
        possible = (end - begin - self.window).clamp(min=0) + 1
        upto = possible.cumsum(0)
        found: list[WindowIndex] = []
        missing = self.n_windows
        for _ in range(16):  # empty windows are drawn again, but not for ever
            total, device = int(upto[-1]), generator.device
            draw = torch.randint(total, (missing,), generator=generator, device=device).cpu()
            part = torch.searchsorted(upto, draw, right=True)
            start = begin[part] + draw - (upto - possible)[part]
            scored = None if score_from is None else score_from[part]
            found.append(self._observed_only(part, start, scored))
            missing -= len(found[-1].start)
            if missing == 0:
                break
        columns = zip(*found, strict=True)
        return _map(torch.cat, list(columns))

    def _observed_only(self, part: Tensor, start: Tensor, scored: Tensor | None) -> WindowIndex:
        """Leave out windows without an observed step (that counts)."""
        assert self.ranges is not None
        series = self.ranges.series[part]
        stop = torch.minimum(start + self.window, self.ranges.end[part])
        first = start if scored is None else torch.maximum(start, scored)
        # An empty stretch (first >= stop) holds nothing: both counts are the same.
        seen = self._observed[series, stop] > self._observed[series, torch.minimum(first, stop)]
        relative = None if scored is None else (scored - start).clamp(min=0)
        end = self.ranges.end[part] if self._short else None
        return _select(WindowIndex(series, start, relative, end), seen)

    def gather(self, index: WindowIndex) -> dict[str, Tensor]:
        """Copy the windows of one batch out of the panel.

        Parameters
        ----------
        index : WindowIndex
            Windows, on the panel's device.

        Returns
        -------
        dict of str to Tensor
            The batch, without ``visible``.
        """
        series, start, score_from, end = index
        mask = self._windows(self.mask)[series, start]
        if end is not None:
            steps = start[:, None] + torch.arange(self.window, device=start.device)
            mask = mask & (steps < end[:, None])[..., None]
        x = self._windows(self.values)[series, start]
        batch = {"x": torch.where(mask, x, torch.zeros_like(x)), "mask": mask}
        if self.inputs is not None:
            batch["inputs"] = self._windows(self.inputs)[series, start]
        batch |= {"lengths": observed_lengths(mask), "series": series, "start": start}
        if score_from is not None:
            batch["score_from"] = score_from
        return batch

    def _windows(self, panel: Tensor) -> Tensor:
        """View of shape (N, T - W + 1, W, ...): all windows, without a copy."""
        n, t, f = panel.shape
        by_series, by_step, by_feature = panel.stride()
        return panel.as_strided(
            (n, t - self.window + 1, self.window, f),
            (by_series, by_step, by_step, by_feature),
            panel.storage_offset(),
        )


def _map(function: Callable[[Any], Tensor], index: Sequence[Any]) -> WindowIndex:
    """Apply a function to every column that is there (a sequence of columns alike)."""
    return WindowIndex(*(None if _absent(column) else function(column) for column in index))  # type: ignore[arg-type]


def _absent(column: Any) -> bool:
    return column is None or (isinstance(column, tuple) and column[0] is None)


def _select(index: WindowIndex, chosen: Tensor | slice) -> WindowIndex:
    return _map(lambda column: column[chosen], index)


class WindowEpoch:
    """The batches of one epoch: an iterable with a length.

    Parameters
    ----------
    loader : WindowLoader
        Copies the windows out of its panel.
    index : WindowIndex
        Windows in their order.
    generator : torch.Generator
        Draws the augmentation, batch by batch.
    """

    def __init__(
        self, loader: WindowLoader, index: WindowIndex, generator: torch.Generator
    ) -> None:
        self._loader, self._generator = loader, generator
        self._ends = _batch_ends(len(index.start), loader.batch_size, loader.remainder)
        if loader.remainder == "fill" and self._ends and self._ends[-1] > len(index.start):
            wrapped = torch.arange(self._ends[-1]) % len(index.start)
            index = _select(index, wrapped)
        self.index = index

    @property
    def n_windows(self) -> int:
        """Windows in this epoch."""
        return len(self.index.start)

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        loader = self._loader
        assert loader.device is not None
        index = _map(lambda column: column.to(loader.device), self.index)
        begin = 0
        for end in self._ends:
            batch = loader.gather(_select(index, slice(begin, end)))
            if loader.augmentation is None:
                batch["visible"] = batch["mask"]
            else:
                batch = loader.augmentation.augment_batch(batch, self._generator)
            yield batch
            begin = end


def _batch_ends(n: int, size: int, remainder: str) -> list[int]:
    """Where each batch ends in the list of windows."""
    if n == 0:
        return []
    count = math.ceil(n / size)
    if remainder == "balance":
        return [-(-(i + 1) * n // count) for i in range(count)]
    ends = [min((i + 1) * size, n) for i in range(count)]
    if n % size:
        if remainder == "drop" and count > 1:
            ends.pop()
        elif remainder == "fill":
            ends[-1] = count * size
    return ends
