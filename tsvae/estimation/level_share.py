r"""How much of a window's level is taken off before the states see it.

The level of a window, the mean m of its first entries, tells where the mean y of its future will be
on average by the regression over all windows,

.. math::
    \kappa = \frac{\mathrm{cov}(m, y)}{\mathrm{var}(m)}.

Where a level stays or drifts on, it is one or above; where it comes back to a mean, it is less, and
forecasts that fall back to the whole level are too far out. States are thus told what is left of
the level and bring it back themselves. Few windows, and levels that wander, make the regression
find a return to the mean that is not there: at least a half of the level is taken off.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsvae.estimation.fit_windows import FitWindows, Windows

__all__ = ["level_shares"]

_LEAST = 0.5
_MOST_WINDOWS = 100_000
_TINY = 1e-12  # of a variance, in standardised units


def level_shares(windows: FitWindows) -> NDArray[np.float64] | None:
    """Share of the level that each variable's windows lose, between a half and one.

    Parameters
    ----------
    windows : FitWindows
        With whole levels off.

    Returns
    -------
    ndarray (F,) or None
        None where windows have no level. A half for a variable whose level never changes, as
        where all histories begin with the first row.
    """
    if not windows.sizes.level_entries:
        return None
    whole = replace(windows, level_share=np.zeros(windows.n_features))
    sums = torch.zeros(windows.n_features, 5, dtype=torch.float64)
    for _, some in whole.blocks(1, _MOST_WINDOWS):
        sums.index_add_(0, some.variable, _products(some))
    count = sums[:, 0].clamp_min(1.0)
    level, future, square, product = (sums[:, 1:] / count[:, None]).unbind(1)
    variance = square - level**2
    share = torch.where(variance > _TINY, (product - level * future) / variance, _LEAST)
    return np.asarray(share.clamp(_LEAST, 1.0))


def _products(windows: Windows) -> Tensor:
    """Count, level m, mean future y, m^2 and m y of each window ``(N, 5)``; 0 without either."""
    seen = windows.future_mask.sum(1).double()
    level = windows.level[:, 0].double()
    future = (windows.future * windows.future_mask).sum(1).double() / seen.clamp_min(1.0)
    parts = (torch.ones_like(level), level, future, level**2, level * future)
    return torch.stack(parts, dim=1) * (seen > 0)[:, None]
