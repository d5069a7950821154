"""Running means of diagnostics that never wait for the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tsvae.training.result import LossResult

__all__ = ["Meter"]

_FOLD_AT = 256  # steps between reads of the device; bounds the number of live scalars


class Meter:
    """Mean of the objective and of every diagnostic over the steps of an epoch.

    Values stay tensors on their device and are read once per epoch. If the diagnostics hold
    ``"weight"``, means are weighted by it.

    Examples
    --------
    >>> import torch
    >>> meter = Meter()
    >>> for value, weight in ((1.0, 1.0), (4.0, 2.0)):
    ...     meter.add(LossResult(torch.tensor(value), {"weight": torch.tensor(weight)}))
    >>> meter.means()
    {'objective': 3.0}
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Tensor, Mapping[str, Tensor | float]]] = []
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def add(self, result: LossResult) -> None:
        """Take the result of one batch."""
        diagnostics = {
            name: value.detach() if isinstance(value, Tensor) else value
            for name, value in result.diagnostics.items()
        }
        self._pending.append((result.objective.detach(), diagnostics))
        if len(self._pending) >= _FOLD_AT:
            self._fold()

    def means(self) -> dict[str, float]:
        """Means by name, ``"objective"`` first; empty if nothing was added."""
        self._fold()
        return {
            name: total / self._weights[name] if self._weights[name] else float("nan")
            for name, total in self._sums.items()
        }

    def _fold(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        columns: dict[str, tuple[list[Tensor | float], list[Tensor | float]]] = {}
        for objective, diagnostics in pending:
            weight = diagnostics.get("weight", 1.0)
            for name, value in {"objective": objective, **diagnostics}.items():
                if name != "weight":
                    values, weights = columns.setdefault(name, ([], []))
                    values.append(value)
                    weights.append(weight)
        for name, (values, weights) in columns.items():
            v, w = _read(values), _read(weights)
            self._sums[name] = self._sums.get(name, 0.0) + float((v * w).sum())
            self._weights[name] = self._weights.get(name, 0.0) + float(w.sum())


def _read(values: list[Tensor | float]) -> Tensor:
    """Scalars in one float64 tensor on the CPU, by one transfer per device."""
    tensors = [v for v in values if isinstance(v, Tensor)]
    if len(tensors) < len(values):
        return torch.tensor([float(v) for v in values], dtype=torch.float64)
    scalars = [v if v.dim() == 0 else v.float().mean() for v in tensors]
    return torch.stack(scalars).cpu().double()
