"""Copies of fitted models in the precision of use.

Copying the tree of modules takes longer than a pass of a small model, so the copies are kept for as
long as their models live; the values are copied anew each time.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

__all__ = ["working_copy"]

Model = TypeVar("Model", bound=nn.Module)

_KEPT: WeakKeyDictionary[nn.Module, tuple[list[nn.Module], nn.Module]] = WeakKeyDictionary()


def working_copy(model: Model, device: torch.device, dtype: torch.dtype) -> Model:
    """Copy a model in eval mode, for passes that neither train nor change it.

    Parameters
    ----------
    model : Module
        Fitted, on the CPU. State outside of its parameters, buffers, modules and ``generator``
        must not change any more.
    device : torch.device
    dtype : torch.dtype
        Of floating-point tensors.

    Returns
    -------
    Module
        On the CPU the same object each time, its values and generator those of ``model`` now.
        Memory of other devices is not held: there it is a new one.
    """
    parts = list(model.modules())[1:]
    kept_parts, kept = _KEPT.get(model, ([], None))
    same_parts = len(parts) == len(kept_parts) and all(map(_is, parts, kept_parts))
    usable = device.type == "cpu" and same_parts and isinstance(kept, type(model))
    if usable and _refresh(kept, model, dtype):  # type: ignore[arg-type]
        return kept  # type: ignore[return-value]
    made = copy.deepcopy(model).to(device, dtype).eval()
    if device.type == "cpu":
        _KEPT[model] = (parts, made)
    return made


def _is(one: object, other: object) -> bool:
    return one is other


def _tensors(model: nn.Module) -> list[Tensor]:
    return list(chain(model.parameters(), model.buffers()))


@torch.no_grad()
def _refresh(kept: nn.Module, model: nn.Module, dtype: torch.dtype) -> bool:
    """Copy the values; False if the tensors of the two are not alike."""
    copies, originals = _tensors(kept), _tensors(model)
    if len(copies) != len(originals):
        return False
    for found, value in zip(copies, originals, strict=True):
        wanted = dtype if value.is_floating_point() else value.dtype
        if found.shape != value.shape or found.dtype != wanted:
            return False
        found.copy_(value)
    generator = getattr(model, "generator", None)
    if generator is not None:
        kept.generator.set_state(generator.get_state())  # type: ignore[operator,union-attr]
    return True
