"""Networks that rest at the start of a stage of training and wake up one layer after the other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tsvae.nn.checks import check_size

__all__ = ["GradualFreezing", "layers_of"]


def layers_of(module: nn.Module) -> list[nn.Module]:
    """Smallest modules that hold parameters, in the order of their definition."""
    found: list[nn.Module] = []
    for child in module.modules():
        if list(child.parameters(recurse=False)):
            found.append(child)
    return found


class GradualFreezing:
    """Freeze layers, and release them one by one over some steps.

    Parameters
    ----------
    layers : sequence of Module
        In the order of their release.
    n_steps : int or None, default=None
        Steps until the last is released, evenly spaced; None: they stay frozen.

    Examples
    --------
    >>> layers = [nn.Linear(1, 1) for _ in range(3)]
    >>> freezing = GradualFreezing(layers, 30)
    >>> for step in (0, 10, 30):
    ...     freezing.apply(step)
    ...     print([layer.weight.requires_grad for layer in layers])
    [False, False, False]
    [True, False, False]
    [True, True, True]
    """

    def __init__(self, layers: Sequence[nn.Module], n_steps: int | None = None) -> None:
        self.layers = list(layers)
        self.n_steps = None if n_steps is None else check_size("n_steps", n_steps, 0)

    def n_released(self, step: int) -> int:
        """How many layers train at a step."""
        if self.n_steps is None:
            return 0
        if step >= self.n_steps:
            return len(self.layers)
        return len(self.layers) * step // self.n_steps

    def apply(self, step: int) -> None:
        """Set what trains at a step; frozen layers keep their running statistics too."""
        released = self.n_released(step)
        for place, layer in enumerate(self.layers):
            active = place < released
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(active)
            layer.training = active
