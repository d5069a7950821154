"""Gaps that a model has never seen, filled by the model itself.

A model that was trained on complete records alone, without hiding entries, has learned nothing of
its mask: with gaps at zero its codes are those of another record. Here hidden entries are taken
from reconstructions, in turns, until they agree with the rest: the chain by which Rezende et al.
2014 (arXiv 1401.4082) impute missing data, at posterior means.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["complete_records"]

# As a rule, what is left of the first guess shrinks by the share that is hidden, each time.
_ROUNDS = 16


def complete_records(model: Any, x: Tensor, seen: Tensor, condition: dict[str, Tensor]) -> Tensor:
    """Fill the gaps of records in model units.

    Parameters
    ----------
    model : BaseAutoencoder
        In eval mode.
    x : Tensor of shape (B, T, F)
    seen : Tensor of bool of shape (B, T, F)
    condition : dict
        As the model takes it.

    Returns
    -------
    Tensor of shape (B, T, F)
        Records without gaps.
    """
    everything = torch.ones_like(seen)
    for _ in range(_ROUNDS):
        x_hat = model(x, mask=everything, **condition).x_hat[:, 0]
        x = torch.where(seen, x, model.expected_values(x_hat))
    return x
