"""Known covariates, calendar features and seasonal waves as one array of model inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsvae.estimation.scaling import PanelScaler
from tsvae.panel import Panel, PanelIndex, calendar_features
from tsvae.panel.clock import Clock, clock_from_dict

__all__ = ["InputDesign"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class InputDesign:
    """How known covariates and the calendar become inputs of shape (B, T, U).

    Attributes
    ----------
    scaler : PanelScaler or None
        Of the covariates, fitted on the training data; None without covariates.
    calendar : tuple of str
        Calendar features by name; empty without.
    angles : tuple of float
        Seasonal waves, radians per step: a sine and a cosine each, their phase tied to the clock.
    clock : Clock or None
        Of the training data: where the waves have phase 0.
    """

    scaler: PanelScaler | None = None
    calendar: tuple[str, ...] = ()
    angles: tuple[float, ...] = ()
    clock: Clock | None = None

    @property
    def n_inputs(self) -> int:
        """U."""
        known = 0 if self.scaler is None else len(self.scaler.location)
        return known + len(self.calendar) + 2 * len(self.angles)

    @property
    def is_pattern(self) -> bool:
        """Whether inputs are seasonal waves and nothing else."""
        return bool(self.angles) and self.n_inputs == 2 * len(self.angles)

    def build(self, index: PanelIndex, n_steps: int, covariates: Panel | None) -> Array | None:
        """Build inputs for the first ``n_steps`` grid rows of ``index``.

        Parameters
        ----------
        index : PanelIndex
            Grid of the data; rows after its end are its future.
        n_steps : int
        covariates : Panel or None
            On the same grid; missing entries (and rows beyond it) take the training mean.

        Returns
        -------
        ndarray (B, n_steps, U) or None
            Not to be written to: series may share their rows.

        Raises
        ------
        ValueError
            If the model knows the calendar or seasons of dates, and ``index`` has no dates.
        """
        if (self.calendar or self.angles) and not index.has_stamps:
            raise ValueError(
                f"The model was fitted on time stamps, whose seasons it knows, but the data have "
                f"none ({index.describe()}). Give data with a time axis, or fit with "
                "seasonal_effect=False and calendar=False."
            )
        parts: list[Array] = []
        if self.scaler is not None:
            assert covariates is not None
            scaled = self.scaler.forward(covariates.values, covariates.mask, covariates.variables)[
                :, :n_steps
            ]
            missing = n_steps - scaled.shape[1]
            parts.append(np.pad(scaled, ((0, 0), (0, missing), (0, 0))))
        if self.calendar:
            positions = np.arange(n_steps)
            found = calendar_features(index, positions=positions)
            order = [list(found.names).index(name) for name in self.calendar]
            parts.append(found.values[..., order])
        if self.angles:
            parts.append(self._waves(index, n_steps))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts, axis=-1) if parts else None

    def _waves(self, index: PanelIndex, n_steps: int) -> Array:
        assert self.clock is not None
        starts = index.starts
        if index.clock is not self.clock and len(starts):
            # The same stamps on another clock: place them on the training data's.
            starts = self.clock.place(index.clock.stamps(starts)).position
        # Series that start together share their waves.
        unique, series = np.unique(np.asarray(starts), return_inverse=True)
        steps = unique[:, None, None] + np.arange(n_steps)[:, None]
        phase = steps * np.asarray(self.angles)
        waves = np.concatenate([np.sin(phase), np.cos(phase)], axis=-1)
        if len(unique) == 1:
            return np.broadcast_to(waves, (len(series), *waves.shape[1:]))
        return waves[series]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        scaler = None if self.scaler is None else self.scaler.to_dict()
        return {
            "scaler": scaler,
            "calendar": list(self.calendar),
            "angles": list(self.angles),
            "clock": None if self.clock is None else self.clock.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> InputDesign:
        """Rebuild from :meth:`to_dict`."""
        scaler = None if data["scaler"] is None else PanelScaler.from_dict(data["scaler"])
        clock = None if data["clock"] is None else clock_from_dict(data["clock"])
        return cls(scaler, tuple(data["calendar"]), tuple(data["angles"]), clock)
