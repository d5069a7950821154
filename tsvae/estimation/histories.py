"""Windows of history that forecasts start from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.estimation.history_filling import Shown, fill_histories, rows_inside
from tsvae.estimation.joint_filling import JointFilling
from tsvae.estimation.scaling import PanelScaler
from tsvae.panel import Panel, gather

__all__ = ["Histories", "cut_histories"]

Array = NDArray[np.float64]
Int = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Histories(NamedTuple):
    """Windows of history in model units, one per forecast.

    Attributes
    ----------
    values : ndarray (N, T, F)
        0 where hidden; row 0 is the oldest.
    mask : bool ndarray (N, T, F)
        True = observed, or filled.
    lengths : ndarray (N,)
        Rows of each.
    inputs : ndarray (N or 1, T, U) or None
        One row if all windows share them. For channel-wise models their effect, (N or 1, T, F).
    future_inputs : ndarray (N or 1, H, U) or None
        Likewise, (N or 1, H, F).
    """

    values: Array
    mask: Mask
    lengths: Int
    inputs: Array | None
    future_inputs: Array | None


def cut_histories(
    panel: Panel,
    series: Int,
    starts: Int,
    ends: Int,
    scaler: PanelScaler,
    inputs: Array | None,
    filling: JointFilling | None,
) -> Shown:
    """Rows ``starts`` to ``ends`` of some series in model units, filled if ``filling`` is given.

    Parameters
    ----------
    panel : Panel
    series, starts, ends : ndarray (N,)
    scaler : PanelScaler
    inputs : ndarray (B, T, U) or None
        Of at least all rows of the panel.
    filling : JointFilling or None

    Returns
    -------
    Shown
        ``(N, W, F)`` with the rows of the longest window.
    """
    inside = rows_inside(starts, ends)
    width = inside.shape[1]
    mask = gather(panel.mask, series, starts, width) & inside
    if filling is not None and not (mask | ~inside).all():
        values = scaler.forward(panel.values, panel.mask, panel.variables)
        effect = filling.effect(None if inputs is None else inputs[:, : panel.n_steps])
        residual = np.where(panel.mask, values - effect, 0.0)
        shown = fill_histories(filling, residual, panel.mask, panel.index, series, starts, ends)
        if isinstance(effect, np.ndarray):
            added = gather(effect, series, starts, width)
            shown = shown._replace(values=np.where(shown.known, shown.values + added, 0.0))
        return shown
    if scaler.affine:
        windows = gather(panel.values, series, starts, width)
        return Shown(scaler.forward(windows, mask, panel.variables), mask)
    # entries that have no logarithm are named wherever they are
    values = scaler.forward(panel.values, panel.mask, panel.variables)
    return Shown(np.where(mask, gather(values, series, starts, width), 0.0), mask)
