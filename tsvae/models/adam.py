"""Adam for a few numbers, without an optimizer object.

The first optimizer that PyTorch makes in a process imports its compiler, two to three seconds; a
whole fit to moments takes five.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Adam"]

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Adam:
    """Gradient descent with running moments.

    Parameters
    ----------
    rates : mapping of Tensor to float
        Leaves that require a gradient, and their step sizes.

    References
    ----------
    Kingma & Ba 2015, arXiv 1412.6980, algorithm 1.
    """

    def __init__(self, rates: Mapping[Tensor, float]) -> None:
        self.rates = list(rates.items())
        self.means = [torch.zeros_like(leaf) for leaf in rates]
        self.squares = [torch.zeros_like(leaf) for leaf in rates]
        self.count = 0

    def step(self, objective: Tensor, share: float = 1.0) -> None:
        """Move all leaves against the gradient of ``objective``, by ``share`` of their rates."""
        gradients = torch.autograd.grad(objective, [leaf for leaf, _ in self.rates])
        self.count += 1
        first, second = (1.0 - beta**self.count for beta in _BETAS)
        moments = zip(self.rates, gradients, self.means, self.squares, strict=True)
        with torch.no_grad():
            for (leaf, rate), gradient, mean, square in moments:
                mean.lerp_(gradient, 1.0 - _BETAS[0])
                square.lerp_(gradient.square(), 1.0 - _BETAS[1])
                scale = (square / second).sqrt_().add_(_EPSILON)
                leaf.addcdiv_(mean, scale, value=-share * rate / first)
