"""Difference between amplitude spectra: the one-dimensional counterpart of a perceptual loss."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["spectral_difference"]


def spectral_difference(
    x: Tensor, x_hat: Tensor, mask: Tensor | None = None, scale: Tensor | None = None
) -> Tensor:
    r"""Distance between the amplitude spectra of records and of their reconstructions.

    .. math::
        \sum_f \frac{1}{s_f} \sum_{k=0}^{T-1} \left| \, |\mathcal F(y_f)_k|
        - |\mathcal F(\hat x_f)_k| \, \right|, \quad
        y = \begin{cases} x & \text{where the mask is true} \\ \hat x & \text{elsewhere} \end{cases}

    with the orthonormal Fourier transform :math:`\mathcal F` along time: a frequency has the unit
    of an entry. Phases do not count: detail in the wrong place costs less than no detail, which a
    likelihood prefers.

    Parameters
    ----------
    x : Tensor of shape (B, T, F)
        Entries outside the mask may hold anything, NaN included.
    x_hat : Tensor of shape (B, S, T, F)
    mask : Tensor of bool of shape (B, T, F) or None, default=None
        Entries that count. The others are taken to be what the reconstruction says, without a
        gradient through that copy: a record without any entry that counts adds nothing.
    scale : Tensor or None, default=None
        Scale s of the likelihood, broadcastable to ``x_hat``, constant along time; None: 1. A
        residual of the size of the scale costs about 1 nat per value then, as in the likelihood.

    Returns
    -------
    Tensor of shape (B, S)
        In nats per record.

    References
    ----------
    Yamamoto, Song & Kim 2020 (arXiv 1910.11480), section 2.2: spectral losses for waveforms. Here
    one transform of the whole record, and amplitudes as they are instead of their logarithms.

    Examples
    --------
    The same sine wave shifted in time has the same amplitudes, a flat line has none:

    >>> t = torch.arange(16) * torch.pi / 4
    >>> x = torch.sin(t)[None, :, None]
    >>> shifted, flat = torch.sin(t + 1)[None, None, :, None], torch.zeros(1, 1, 16, 1)
    >>> spectral_difference(x, torch.cat((shifted, flat), dim=1)).round(decimals=3).abs()
    tensor([[0., 4.]])
    """
    x_hat = x_hat if x_hat.dtype == torch.float64 else x_hat.float()  # no transform in half
    wanted = x.to(x_hat.dtype).unsqueeze(1).expand(x_hat.shape)
    if mask is not None:
        wanted = torch.where(mask.bool().unsqueeze(1), wanted, x_hat.detach())
    difference = (_amplitudes(wanted) - _amplitudes(x_hat)).abs()
    if scale is not None:
        difference = difference / scale.detach().to(difference)
    return (difference * _copies(x.shape[1], difference)).sum(dim=(-2, -1))


def _amplitudes(x: Tensor) -> Tensor:
    return torch.fft.rfft(x, dim=-2, norm="ortho").abs()


def _copies(n_steps: int, like: Tensor) -> Tensor:
    """How often each frequency of a real transform stands in the full one, (T // 2 + 1, 1)."""
    copies = like.new_full((n_steps // 2 + 1, 1), 2.0)
    copies[0] = 1.0
    if n_steps % 2 == 0:
        copies[-1] = 1.0
    return copies
