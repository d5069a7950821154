"""Per-variable scaling of a panel: fitted on observed training entries, undone on output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["PanelScaler", "fit_scaler"]

Array = NDArray[np.float64]
Transform = Literal["log", "box-cox"]
Scaling = Literal["standard", "min-max", "none"]

# A spread below this share of the variable's size is rounding, not variation.
_CONSTANT = 1e-10
# Largest logarithm of x / unit that comes back: finite beside units of 1e-150 to 1e150.
_MAX_LOG = 350.0


@dataclass(frozen=True)
class PanelScaler:
    """Map between original units and model units, per variable.

    ``model = (g(x) - location) / scale`` with g the identity, or the logarithm or Box-Cox of
    ``x / unit``.

    Attributes
    ----------
    location, scale : ndarray (F,)
    power : ndarray (F,) or None
        Box-Cox exponents (0: logarithm); None: g is the identity.
    unit : ndarray (F,) or None
        Typical size of each variable, so that powers keep their digits at any scale; None: 1.
    """

    location: Array
    scale: Array
    power: Array | None = None
    unit: Array | None = None

    @property
    def affine(self) -> bool:
        """Whether the map is affine (no power transform)."""
        return self.power is None

    def forward(self, values: Array, mask: NDArray[np.bool_], names: list[Any]) -> Array:
        """Bring observed entries to model units; hidden ones become 0.

        Raises
        ------
        ValueError
            If a power transform meets an entry that is not positive.
        """
        if self.power is not None:
            values = _power(values, mask, self.power, names, self.unit)
        return np.where(mask, (values - self.location) / self.scale, 0.0)

    def inverse(self, values: Array) -> Array:
        """Bring ``(..., F)`` back to original units."""
        restored = values * self.scale + self.location
        if self.power is None:
            return restored
        original = _inverse_power(restored, self.power)
        return original if self.unit is None else original * self.unit

    def log_slope(self, values: Array, mask: NDArray[np.bool_]) -> Array:
        """Log of d model / d original, summed over the observed entries of each row ``(B, T)``."""
        slope = np.broadcast_to(-np.log(self.scale), values.shape)
        if self.power is not None:
            logs = np.log(np.where(mask, values, 1.0))
            shift = 0.0 if self.unit is None else np.log(self.unit)
            slope = slope + (self.power - 1.0) * logs - self.power * shift
        return np.where(mask, slope, 0.0).sum(-1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; see :func:`PanelScaler.from_dict`."""
        fields = ("location", "scale", "power", "unit")
        arrays = {name: getattr(self, name) for name in fields}
        return {name: None if array is None else array.tolist() for name, array in arrays.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PanelScaler:
        """Rebuild from :meth:`to_dict`."""
        location, scale = (np.asarray(data[k], dtype=float) for k in ("location", "scale"))
        power, unit = (
            None if data[k] is None else np.asarray(data[k], dtype=float) for k in ("power", "unit")
        )
        return cls(location, scale, power, unit)


def fit_scaler(
    values: Array,
    mask: NDArray[np.bool_],
    names: list[Any],
    *,
    scaling: Scaling = "standard",
    transform: Transform | None = None,
    within: bool = False,
) -> PanelScaler:
    """Fit a scaler on the observed entries of a panel.

    Parameters
    ----------
    values : ndarray (B, T, F)
    mask : bool ndarray (B, T, F)
    names : list
        Labels of the variables, for messages.
    scaling : {"standard", "min-max", "none"}
        Mean 0 and standard deviation 1; range 0 to 1; or as it is.
    transform : {"log", "box-cox"} or None
        Applied first; needs positive values.
    within : bool, default=False
        Standard deviation about each series' own mean, where levels are no part of the model.

    Returns
    -------
    PanelScaler
        Constant variables get scale 1, or their own size if that is smaller.

    Raises
    ------
    ValueError
        If a transform meets values that are not positive.
    """
    power = unit = None
    if transform is not None:
        _check_positive(values, mask, names)
        unit = _geometric_mean(values, mask)
        power = _fit_power(values / unit, mask, transform)
        values = _power(values, mask, power, names, unit)
    n_features = values.shape[-1]
    location, scale = np.zeros(n_features), np.ones(n_features)
    if scaling != "none":
        for f in range(n_features):
            seen = values[..., f][mask[..., f]]
            if len(seen):
                location[f], scale[f] = _centre_and_spread(seen, scaling)
            if within and len(values) > 1 and scaling == "standard":
                scale[f] = _spread_within(values[..., f], mask[..., f]) or scale[f]
    return PanelScaler(location, scale, power, unit)


def _centre_and_spread(seen: Array, scaling: Scaling) -> tuple[float, float]:
    size = float(np.abs(seen).max())
    if scaling == "min-max":
        centre = float(seen.min())
        spread = float(seen.max()) - centre
    else:
        # Dividing by the size first keeps the squares of 1e200 and of 1e-200 representable.
        unit = seen / size if size > 0 else seen
        centre = float(unit.mean()) * (size or 1.0)
        spread = float(unit.std()) * (size or 1.0)
    if spread > _CONSTANT * size:
        return centre, spread
    return centre, min(size, 1.0) or 1.0


def _spread_within(values: Array, mask: NDArray[np.bool_]) -> float:
    """Take the standard deviation of series ``(B, T)`` about their own means."""
    size = float(np.abs(values[mask]).max(initial=0.0))
    if not size:
        return 0.0
    unit = np.where(mask, values / size, 0.0)
    count = mask.sum(-1, keepdims=True)
    centred = np.where(mask, unit - unit.sum(-1, keepdims=True) / count.clip(1), 0.0)
    spread = float(np.sqrt(np.square(centred).sum() / count.sum()))
    return spread * size if spread > _CONSTANT else 0.0


def _check_positive(values: Array, mask: NDArray[np.bool_], names: list[Any]) -> None:
    wrong = mask & (values <= 0)
    if wrong.any():
        f = int(np.flatnonzero(wrong.any(axis=tuple(range(wrong.ndim - 1))))[0])
        value = values[..., f][wrong[..., f]][0]
        raise ValueError(
            f"power_transform needs positive values, but variable {names[f]!r} contains {value:g}; "
            "use power_transform=None, or shift the variable first."
        )


def _geometric_mean(values: Array, mask: NDArray[np.bool_]) -> Array:
    counts = mask.sum(axis=(0, 1)).clip(1)
    return np.exp(np.log(np.where(mask, values, 1.0)).sum(axis=(0, 1)) / counts)


def _fit_power(values: Array, mask: NDArray[np.bool_], transform: Transform) -> Array:
    power = np.zeros(values.shape[-1])
    if transform == "box-cox":
        for f in range(len(power)):
            seen = values[..., f][mask[..., f]]
            if len(seen) > 1 and np.ptp(seen) > _CONSTANT * seen.max():
                power[f] = float(np.clip(stats.boxcox_normmax(seen, method="mle"), -2.0, 2.0))
    return power


def _power(
    values: Array, mask: NDArray[np.bool_], power: Array, names: list[Any], unit: Array | None
) -> Array:
    _check_positive(values, mask, names)
    logs = np.log(np.where(mask, values if unit is None else values / unit, 1.0))
    safe = np.where(power == 0, 1.0, power)
    return np.where(power == 0, logs, np.expm1(safe * logs) / safe)


def _inverse_power(values: Array, power: Array) -> Array:
    safe = np.where(power == 0, 1.0, power)
    # Outside the range of Box-Cox nothing is left but its end; log1p keeps tiny powers exact.
    inner = np.maximum(safe * values, np.nextafter(-1.0, 0.0))
    logs = np.where(power == 0, values, np.log1p(inner) / safe)
    return np.exp(np.clip(logs, -_MAX_LOG, _MAX_LOG))
