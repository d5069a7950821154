"""What a model hands to the training loop."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["LossResult"]


class LossResult(NamedTuple):
    """Objective of one batch and the numbers worth watching.

    Parameters
    ----------
    objective : Tensor
        Scalar to minimise. In train mode the training loss; in eval mode the validation
        criterion, free of any annealed weight so that epochs can be compared.
    diagnostics : dict of str to Tensor
        Detached scalars (``"reconstruction"``, ``"local_kl"``, ``"beta"``, ...), averaged over
        an epoch for the training log. The key ``"weight"`` is special: it is the weight of this
        batch in every average over batches (for example the number of observed values).

    Examples
    --------
    >>> import torch
    >>> result = LossResult(torch.tensor(1.5), {"reconstruction": torch.tensor(1.0)})
    >>> float(result.objective)
    1.5
    """

    objective: Tensor
    diagnostics: dict[str, Tensor]
