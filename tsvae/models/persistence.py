r"""Whether a fit foresees more than the last value does.

Blocks of time on both sides of a block tell where its level goes, so that cross-validation finds
ways back to a mean on random walks, too, and the penalty that it chooses lets forecasts follow
them. A fit is therefore kept only if its gain over the last value stands out from the differences
between blocks: with errors e_j and e0_j of a block j, both from the other blocks, of n_j windows,

.. math::
    g_j = (e^0_j - e_j) / e^0_j, \quad p_j = \frac{n_j}{\sum_i n_i}, \quad
    \bar g = \sum_j p_j g_j, \quad s^2 = \frac{J}{J - 1} \sum_j p_j^2 (g_j - \bar g)^2,

it is if :math:`\bar g / s` is above the 99 % point of Student's t with J - 1 degrees of freedom
(in the spirit of the standard error rule of Breiman et al. 1984, section 3.4.3, but stricter:
blocks are not independent). Gains are relative, so that one restless block decides nothing; e0_j
counts as a hundredth of its mean at least. Ways back to a mean on random walks are slow and gain
little: where a fifth of all errors is gone, the 95 % point is enough.
"""

from __future__ import annotations

import torch
from scipy.special import stdtrit
from torch import Tensor

__all__ = ["beats_last_value"]

_SURE, _SURE_OF_MUCH = 0.99, 0.95
_MUCH = 0.2  # of all errors
_LEAST_SHARE = 1e-2  # of the mean error: blocks without movement, or with errors from pairs


def beats_last_value(errors: Tensor, last: Tensor, windows: Tensor) -> bool:
    """Whether cross-validated errors are clearly below those of the last value.

    Parameters
    ----------
    errors, last : Tensor (J,)
        Mean squared errors in each block of time, of the fit and of the last value.
    windows : Tensor (J,)
        Windows behind them.

    Returns
    -------
    bool
        False for fewer than two blocks with windows: there nothing was held out.

    Examples
    --------
    >>> last, windows = torch.tensor([1.0, 1.2, 0.9, 1.1]), torch.ones(4)
    >>> beats_last_value(0.8 * last, last, windows)
    True
    >>> beats_last_value(torch.tensor([0.2, 1.2, 1.0, 1.1]), last, windows)
    False
    """
    used = windows > 0
    blocks = int(used.sum())
    if blocks < 2:
        return False
    share = windows[used] / windows[used].sum()
    least = (_LEAST_SHARE * last[used].mean()).clamp_min(torch.finfo(last.dtype).tiny)
    gain = (last - errors)[used] / last[used].clamp_min(least)
    mean = (share * gain).sum()
    variance = blocks / (blocks - 1) * (share * (gain - mean)).square().sum()
    much = bool((share * errors[used]).sum() < (1.0 - _MUCH) * (share * last[used]).sum())
    point = float(stdtrit(blocks - 1, _SURE_OF_MUCH if much else _SURE))
    return bool(mean > point * variance.sqrt())
