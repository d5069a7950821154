"""Randomness of a run: everything flows from one private generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["clone_generator", "isolated_random_state"]


def clone_generator(generator: torch.Generator) -> torch.Generator:
    """Return an independent generator in the same state.

    Parameters
    ----------
    generator : torch.Generator
        Generator to copy; it is not advanced.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> twin = clone_generator(generator)
    >>> bool(torch.rand((), generator=twin) == torch.rand((), generator=generator))
    True
    """
    twin = torch.Generator(device=generator.device)
    twin.set_state(generator.get_state())
    return twin


def draw_seed(generator: torch.Generator) -> int:
    draw = torch.randint(2**62, (), generator=generator, device=generator.device)
    return int(draw)


def _global_generators(device: torch.device) -> list[torch.Generator]:
    """Torch's default generators that layers such as dropout draw from on this device."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    return generators


@contextmanager
def isolated_random_state(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seed torch's default generators from ``generator`` and restore them afterwards.

    Dropout and other layers know no generator argument. Inside the block their draws follow
    from ``generator``; outside nothing has changed.

    Parameters
    ----------
    generator : torch.Generator
        Private generator of the run; one number is drawn from it.
    device : torch.device
        Device of the run.
    """
    defaults = _global_generators(device)
    saved = [default.get_state() for default in defaults]
    seed = draw_seed(generator)
    for default in defaults:
        default.manual_seed(seed)
    try:
        yield
    finally:
        for default, state in zip(defaults, saved, strict=True):
            default.set_state(state)


def get_random_states(
    generators: dict[str, torch.Generator], device: torch.device
) -> dict[str, Tensor]:
    """States of named generators and of torch's defaults, for a checkpoint."""
    states = {name: generator.get_state() for name, generator in generators.items()}
    for index, default in enumerate(_global_generators(device)):
        states[f"default{index}"] = default.get_state()
    return states


def set_random_states(
    states: dict[str, Tensor], generators: dict[str, torch.Generator], device: torch.device
) -> None:
    """Inverse of :func:`get_random_states`; states of other devices are left out."""
    for name, generator in generators.items():
        if name in states:
            generator.set_state(states[name])
    for index, default in enumerate(_global_generators(device)):
        if f"default{index}" in states:
            default.set_state(states[f"default{index}"])
