"""Filling hidden entries of panels from all variables: phases of the season, overlapping pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.models.autoregression import Autoregression
from tsvae.models.joint_filling import fill_hidden
from tsvae.panel import PanelIndex, gather
from tsvae.panel.clock import Clock, clock_from_dict

__all__ = ["OVERLAP", "WIDTH", "Blend", "JointFilling", "Margins", "Pieces", "phases_of"]

Array = NDArray[np.float64]
Int = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: Rows of a piece, and those that it shares with the next.
WIDTH, OVERLAP = 120, 24
_ENTRIES_AT_ONCE = 2_000_000  # of the maps of a batch of pieces


class Margins(NamedTuple):
    """Means and standard deviations ``(B, T, F)`` in model units."""

    mean: Array
    scale: Array


class Pieces(NamedTuple):
    """Rows that are filled together.

    Attributes
    ----------
    series, begin, stop : ndarray (P,)
        Rows from ``begin`` to ``stop``, exclusive; what lies beyond is not looked at.
    """

    series: Int
    begin: Int
    stop: Int


@dataclass(frozen=True)
class JointFilling:
    """A fitted autoregression and what it takes to fill panels by it.

    Attributes
    ----------
    fit : Autoregression
        In model units, effects of inputs taken off.
    clock : Clock or None
        Which positions have phase 0; None: no season.
    widening : float
        Factor of standard deviations, from entries held out.
    effects : Tensor (F, U) or None
        Of seasons and calendar on the variables.
    imputes : bool
        Whether it fills better than the model's own smoothed values.
    shows : bool
        Whether forecasts see their histories filled.
    """

    fit: Autoregression
    clock: Clock | None
    widening: float = 1.0
    effects: Tensor | None = None
    imputes: bool = True
    shows: bool = False

    def effect(self, inputs: Array | None) -> Array | float:
        """Effect of inputs ``(B, T, U)`` on every entry, ``(B, T, F)``; 0.0 if there is none."""
        if inputs is None or self.effects is None:
            return 0.0
        found: Array = inputs @ self.effects.numpy().T
        return found

    def margins(self, values: Array, mask: Mask, wanted: Mask, index: PanelIndex) -> Margins:
        """Distributions of the wanted entries of the series of a panel.

        Parameters
        ----------
        values : ndarray (B, T, F)
            Model units, effects taken off, 0 where hidden.
        mask : bool ndarray (B, T, F)
            True = observed.
        wanted : bool ndarray (B, T, F)
            Hidden entries to fill; what is not among them may be left at its value.
        index : PanelIndex

        Returns
        -------
        Margins
        """
        return self.fill(values, mask, wanted, phases_of(index, self.clock, self.fit.n_phases))

    def fill(
        self, values: Array, mask: Mask, wanted: Mask, phase: Int | None, **options: int
    ) -> Margins:
        """Fill series whose first rows have given phases; other parameters as in ``margins``.

        ``options`` are those of :func:`~tsvae.models.joint_filling.fill_hidden`. Pieces overlap by
        some rows and fade into each other, so that none ends abruptly.
        """
        pieces = _pieces(wanted, min(WIDTH, values.shape[1]))
        blend = Blend(values.shape)
        for piece, own in enumerate(self.fill_pieces(values, mask, phase, pieces, **options)):
            blend.add(int(pieces.series[piece]), int(pieces.begin[piece]), own)
        found = blend.margins(values)
        known = mask | ~blend.covered
        return Margins(found.mean, self.widening * np.where(known, 0.0, found.scale))

    def fill_pieces(
        self, values: Array, mask: Mask, phase: Int | None, pieces: Pieces, **options: int
    ) -> Iterator[Margins]:
        """Fill one piece after the other, ``(rows, F)``; bands are not widened yet."""
        width = int((pieces.stop - pieces.begin).max(initial=1))
        size = max(1, _ENTRIES_AT_ONCE // (2 * width * self.fit.order * values.shape[-1] ** 2))
        for start in range(0, len(pieces.series), size):
            series, begin, stop = (part[start : start + size] for part in pieces)
            inside = np.arange(width) < (stop - begin)[:, None]
            found = fill_hidden(
                self.fit,
                _tensor(gather(values, series, begin, width) * inside[..., None]),
                torch.from_numpy(gather(mask, series, begin, width) & inside[..., None]),
                None if phase is None else torch.from_numpy(phase[series] + begin),
                **options,
            )
            for rows, mean, variance in zip(
                (stop - begin).tolist(), found.mean.numpy(), found.variance.numpy(), strict=True
            ):
                yield Margins(mean[:rows], np.sqrt(variance[:rows]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values beside :meth:`tensors`."""
        return {
            "clock": None if self.clock is None else self.clock.to_dict(),
            "widening": self.widening,
            "imputes": self.imputes,
            "shows": self.shows,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Tables by name."""
        own = {} if self.effects is None else {"effects": self.effects}
        return {**self.fit._asdict(), **own}

    @classmethod
    def from_parts(cls, data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> JointFilling:
        """Rebuild from :meth:`to_dict` and :meth:`tensors`."""
        tables = dict(tensors)
        effects = tables.pop("effects", None)
        clock = None if data["clock"] is None else clock_from_dict(data["clock"])
        return cls(
            Autoregression(**tables),
            clock,
            float(data["widening"]),
            effects,
            bool(data["imputes"]),
            bool(data["shows"]),
        )


class Blend:
    """Pieces that fade into each other where they overlap.

    Parameters
    ----------
    shape : tuple of int
        (B, T, F), of what they make up.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.total, self.first, self.second = (np.zeros(shape) for _ in range(3))

    @property
    def covered(self) -> Mask:
        """Entries in any piece."""
        return np.asarray(self.total > 0)

    def add(self, series: int, begin: int, piece: Margins) -> None:
        """Add a piece whose first row is ``begin``."""
        rows = len(piece.mean)
        rise = np.arange(1, rows + 1)
        share = np.minimum(np.minimum(rise, rise[::-1]), OVERLAP)[:, None]
        at = (series, slice(begin, begin + rows))
        self.total[at] += share
        self.first[at] += share * piece.mean
        self.second[at] += share * (piece.scale**2 + piece.mean**2)

    def margins(self, values: Array) -> Margins:
        """Mixtures of the pieces; ``values`` with infinite scale where there is none."""
        total = np.maximum(self.total, 1.0)
        mean = np.where(self.covered, self.first / total, values)
        spread = np.sqrt(np.maximum(self.second / total - mean**2, 0.0))
        return Margins(mean, np.where(self.covered, spread, np.inf))


def phases_of(index: PanelIndex, clock: Clock | None, n_phases: int) -> Int | None:
    """Phase of the first row of each series ``(B,)``; None if there is none to be told."""
    if clock is None or not n_phases or not index.has_stamps or not len(index.starts):
        return None
    starts = np.asarray(index.starts)
    if index.clock is not clock:
        if index.clock.kind != clock.kind:
            return None
        starts = clock.place(index.clock.stamps(starts)).position
    return np.asarray(starts % n_phases, dtype=np.int64)


def _pieces(wanted: Mask, width: int) -> Pieces:
    """Overlapping pieces with something to fill."""
    n_steps = wanted.shape[1]
    begins = np.unique(np.append(np.arange(0, n_steps - width, WIDTH - OVERLAP), n_steps - width))
    rows = np.cumsum(np.pad(wanted.any(-1), ((0, 0), (1, 0))), axis=1)
    series, piece = np.nonzero(rows[:, begins + width] > rows[:, begins])
    return Pieces(series, begins[piece], begins[piece] + width)


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
