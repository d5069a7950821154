"""What a back-test gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics import (
    crps_from_quantiles,
    interval_coverage,
    mean_absolute_error,
    root_mean_squared_error,
)

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]


class BacktestArrays(NamedTuple):
    """Forecasts and truth of all origins (O), series (B), steps ahead (H) and variables (F)."""

    predicted: Float  # (O, B, H, F)
    quantiles: Float | None  # (O, B, H, F, Q)
    observed: Float  # (O, B, H, F), 0 where missing
    mask: NDArray[np.bool_]  # (O, B, H, F), True where scored
    scale: Float  # (B, F) training error of the seasonal naive forecast; NaN if unknown


@dataclass(frozen=True)
class BacktestResult:
    """Forecasts from many origins, and their scores.

    Attributes
    ----------
    predictions : container
        Point forecasts, the kind of X: frames get a first row level ``origin`` (the last stamp
        known), DataArrays dims ``origin`` and ``step``, arrays a first axis.
    actual : container
        What happened, of the same form; NaN where missing.
    quantiles : container or None
        Forecast quantiles, with the further column level or dim ``quantile``, or a last axis.
    origins : ndarray of shape (n_origins,)
        Steps of history at each origin, from the earliest stamp of all series.
    origin_labels : sequence
        Last stamp known at each origin; the step count for arrays.
    horizon : int
        Steps ahead.
    levels : tuple of float
        Quantile levels.
    coverage : float or None
        Coverage of the interval that :meth:`summary` reports.
    arrays : BacktestArrays
        All of it as arrays.
    """

    predictions: Any = field(repr=False)
    actual: Any = field(repr=False)
    quantiles: Any = field(repr=False)
    origins: NDArray[np.int64]
    origin_labels: Any = field(repr=False)
    horizon: int
    levels: tuple[float, ...]
    coverage: float | None
    arrays: BacktestArrays = field(repr=False)

    def summary(self) -> pd.DataFrame:
        """Scores by quarter of the horizon, and over all of it.

        Returns
        -------
        pandas.DataFrame
            Rows: steps ahead (such as "1-6"), and "all"; columns: MAE, RMSE, MASE and, where
            quantiles were forecast, CRPS and coverage, averaged over origins, series and
            variables; n, the number of values scored. What has no observed value is NaN.

        Notes
        -----
        CRPS is :func:`tsvae.metrics.crps_from_quantiles` on `levels`.
        """
        import pandas as pd

        blocks = [block for block in np.array_split(np.arange(self.horizon), 4) if len(block)]
        rows = {_label(block): self._scores(block) for block in blocks}
        rows["all"] = self._scores(np.arange(self.horizon))
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("steps")

    def _scores(self, steps: NDArray[np.int64]) -> dict[str, float]:
        data = self.arrays
        mask, observed = data.mask[:, :, steps], data.observed[:, :, steps]
        predicted = data.predicted[:, :, steps]
        names = ["MAE", "RMSE", "MASE"] + (["CRPS"] if data.quantiles is not None else [])
        scores = dict.fromkeys(names, np.nan)
        if self.coverage is not None:
            scores["coverage"] = np.nan
        scores["n"] = int(mask.sum())
        if not mask.any():
            return scores
        scores["MAE"] = float(mean_absolute_error(observed, predicted, mask=mask))
        scores["RMSE"] = float(root_mean_squared_error(observed, predicted, mask=mask))
        scores["MASE"] = self._scaled(observed, predicted, mask)
        if data.quantiles is not None:
            quantiles = data.quantiles[:, :, steps]
            options: dict[str, Any] = {"quantiles": self.levels, "mask": mask}
            scores["CRPS"] = float(crps_from_quantiles(observed, quantiles, **options))
            if self.coverage is not None:
                bounds = quantiles[..., self._bounds()]
                scores["coverage"] = float(interval_coverage(observed, bounds, mask=mask))
        return scores

    def _scaled(self, observed: Float, predicted: Float, mask: NDArray[np.bool_]) -> float:
        """Mean absolute error in units of the naive training error; NaN if no series has one."""
        usable = self.arrays.scale > 0
        mask = mask & usable[:, None]
        if not mask.any():
            return np.nan
        scale = np.where(usable, self.arrays.scale, 1.0)[:, None]
        return float(mean_absolute_error(observed / scale, predicted / scale, mask=mask))

    def _bounds(self) -> list[int]:
        """Positions of the levels that bound the interval."""
        half = (self.coverage or 0.0) / 2
        wanted = (0.5 - half, 0.5 + half)
        return [int(np.argmin(np.abs(np.asarray(self.levels) - level))) for level in wanted]


def _label(steps: NDArray[np.int64]) -> str:
    first, last = int(steps[0]) + 1, int(steps[-1]) + 1
    return str(first) if first == last else f"{first}-{last}"
