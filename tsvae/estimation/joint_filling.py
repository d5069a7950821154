"""Filling hidden entries of panels from all variables: phases of the season, overlapping pieces."""

from __future__ import annotations

from collections.abc import Mapping
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

__all__ = ["JointFilling", "Margins", "phases_of"]

Array = NDArray[np.float64]
Int = NDArray[np.int64]
Mask = NDArray[np.bool_]

_WIDTH = 120  # rows of a piece
_OVERLAP = 24  # rows that it shares with the next
_ENTRIES_AT_ONCE = 2_000_000  # of the maps of a batch of pieces


class Margins(NamedTuple):
    """Means and standard deviations ``(B, T, F)`` in model units."""

    mean: Array
    scale: Array


class _Pieces(NamedTuple):
    """Series and first row of each piece."""

    series: Int
    begin: Int


@dataclass(frozen=True)
class JointFilling:
    """A fitted autoregression and what it takes to fill panels by it.

    Attributes
    ----------
    fit : Autoregression
        In model units, effects of covariates taken off.
    clock : Clock or None
        Which positions have phase 0; None: no season.
    widening : float
        Factor of standard deviations, from entries held out.
    """

    fit: Autoregression
    clock: Clock | None
    widening: float = 1.0

    def margins(self, values: Array, mask: Mask, wanted: Mask, index: PanelIndex) -> Margins:
        """Distributions of the wanted entries of the series of a panel.

        Parameters
        ----------
        values : ndarray (B, T, F)
            Model units, 0 where hidden.
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
        width = min(_WIDTH, values.shape[1])
        pieces = _pieces(wanted, width)
        rise = np.arange(1, width + 1)
        fade = np.minimum(np.minimum(rise, rise[::-1]), _OVERLAP)[:, None]
        total, first, second = (np.zeros_like(values, dtype=np.float64) for _ in range(3))
        order, n_features = self.fit.order, values.shape[-1]
        size = max(1, _ENTRIES_AT_ONCE // (2 * width * order * n_features**2))
        for start in range(0, len(pieces.series), size):
            series, begin = pieces.series[start : start + size], pieces.begin[start : start + size]
            found = fill_hidden(
                self.fit,
                _tensor(gather(values, series, begin, width)),
                torch.from_numpy(gather(mask, series, begin, width)),
                None if phase is None else torch.from_numpy(phase[series] + begin),
                **options,
            )
            for row, (mean, variance) in enumerate(
                zip(found.mean.numpy(), found.variance.numpy(), strict=True)
            ):
                at = (series[row], slice(begin[row], begin[row] + width))
                total[at] += fade
                first[at] += fade * mean
                second[at] += fade * (variance + mean**2)
        mean = np.where(total > 0, first / np.maximum(total, 1), values)
        spread = np.maximum(second / np.maximum(total, 1) - mean**2, 0.0)
        return Margins(mean, self.widening * np.sqrt(np.where(mask, 0.0, spread)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values beside :meth:`tensors`."""
        clock = None if self.clock is None else self.clock.to_dict()
        return {"clock": clock, "widening": self.widening}

    def tensors(self) -> dict[str, Tensor]:
        """Tables by name."""
        return dict(self.fit._asdict())

    @classmethod
    def from_parts(cls, data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> JointFilling:
        """Rebuild from :meth:`to_dict` and :meth:`tensors`."""
        clock = None if data["clock"] is None else clock_from_dict(data["clock"])
        return cls(Autoregression(**tensors), clock, float(data["widening"]))


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


def _pieces(wanted: Mask, width: int) -> _Pieces:
    """Overlapping pieces with something to fill."""
    n_steps = wanted.shape[1]
    begins = np.unique(np.append(np.arange(0, n_steps - width, _WIDTH - _OVERLAP), n_steps - width))
    rows = np.cumsum(np.pad(wanted.any(-1), ((0, 0), (1, 0))), axis=1)
    series, piece = np.nonzero(rows[:, begins + width] > rows[:, begins])
    return _Pieces(series, begins[piece])


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
