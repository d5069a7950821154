"""Optimizers of the two parameter groups.

Networks are trained by Adam and its kin. Parameters listed by ``model.natural_parameters()``
receive natural gradients (their ``.grad`` is already the natural direction) and are moved by
plain descent: any rescaling by moments or by clipping would undo the geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tsvae.training.config import TrainingConfig

__all__ = [
    "NaturalDescent",
    "ParameterGroups",
    "build_optimizers",
    "clip_gradients",
    "split_parameters",
]


class NaturalDescent(Optimizer):
    """Plain descent ``p <- p - rho * grad`` for natural gradients, within a trust region.

    The step of each row of a parameter is shortened as a whole until none of its coordinates
    moves more than ``trust_region``: far from the optimum the first-order step would overshoot
    what the exact conjugate update does.

    Parameters
    ----------
    params : iterable of Parameter
        Parameters whose ``.grad`` holds the natural direction; groups along the first axis.
    lr : float, default=0.1
        The rate rho; on the loss of the full data, 1 is the full conjugate update.
    trust_region : float or None, default=0.05
        Largest change of a coordinate in one step; None switches it off.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Examples
    --------
    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([2.0])
    >>> NaturalDescent([p], lr=0.25, trust_region=None).step()
    >>> p.item()
    0.5
    >>> NaturalDescent([p], lr=0.25).step()
    >>> round(p.item(), 3)
    0.45
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.1, trust_region: float | None = 0.05
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr must be a number >= 0, got {lr!r}.")
        if trust_region is not None and not trust_region > 0:
            raise ValueError(f"trust_region must be positive or None, got {trust_region!r}.")
        super().__init__(params, {"lr": lr, "trust_region": trust_region})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Re-evaluates the objective, as in every torch optimizer.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    _descend(p, group["lr"], group["trust_region"])
        return loss


def _descend(p: Tensor, lr: float, trust_region: float | None) -> None:
    grad = p.grad
    assert grad is not None
    if trust_region is None or not grad.numel() or _largest(grad) * lr <= trust_region:
        p.sub_(grad, alpha=lr)
    else:
        p.sub_(limit_step(grad * lr, trust_region))


def _largest(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, float("inf")))


def limit_step(step: Tensor, trust_region: float | None) -> Tensor:
    """Shorten each row of ``step`` so that its largest entry stays within ``trust_region``.

    Parameters
    ----------
    step : Tensor (G, ...)
    trust_region : float or None
        None: as it is.

    Returns
    -------
    Tensor
    """
    if trust_region is None:
        return step
    rows = step.reshape(step.shape[0], -1) if step.ndim > 1 else step.reshape(1, -1)
    # Scaling by the largest entry first keeps the product finite for any finite step.
    largest = rows.abs().amax(dim=1, keepdim=True)
    shrink = (trust_region / largest.clamp_min(trust_region)).to(rows.dtype)
    return (rows * shrink).reshape(step.shape)


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> Tensor:
    """Shorten the joint gradient of parameters to a norm of at most ``largest``.

    Parameters
    ----------
    parameters : iterable of Tensor
    largest : float

    Returns
    -------
    Tensor, shape ()
        The norm before.

    Examples
    --------
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> clip_gradients([p], 10.0), p.grad
    (tensor(5.), tensor([3., 4.]))
    >>> clip_gradients([p], 1.0), p.grad
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    parameters = list(parameters)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # On a CPU asking is free; on a GPU it would wait for the norm, and the product by 1 does not.
    if norm.device.type != "cpu" or not norm <= largest:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm


class ParameterGroups(NamedTuple):
    """Trainable parameters of a model by how they are trained."""

    network: list[nn.Parameter]
    natural: list[nn.Parameter]


def split_parameters(model: nn.Module) -> ParameterGroups:
    """Split a model's trainable parameters into networks and natural-gradient ones.

    Parameters
    ----------
    model : Module
        May have a method ``natural_parameters()`` returning parameters of its own.

    Returns
    -------
    ParameterGroups

    Raises
    ------
    ValueError
        If ``natural_parameters()`` lists something that is no parameter of the model, or if
        nothing is trainable.
    """
    natural_parameters: Any = getattr(model, "natural_parameters", list)
    listed = list(natural_parameters())
    natural_ids = {id(p) for p in listed}
    trainable = [p for p in model.parameters() if p.requires_grad]
    if foreign := natural_ids - {id(p) for p in model.parameters()}:
        raise ValueError(
            f"{type(model).__name__}.natural_parameters() lists {len(foreign)} tensors that are "
            "not in model.parameters(); register them as nn.Parameter."
        )
    groups = ParameterGroups(
        network=[p for p in trainable if id(p) not in natural_ids],
        natural=[p for p in trainable if id(p) in natural_ids],
    )
    if not (groups.network or groups.natural):
        raise ValueError(
            f"{type(model).__name__} has no parameter with requires_grad=True; nothing to train."
        )
    return groups


def network_optimizer(
    parameters: list[nn.Parameter], config: TrainingConfig, learning_rate: float
) -> Optimizer:
    """Optimizer of the network group."""
    settings: dict[str, Any] = {"lr": learning_rate}
    if config.weight_decay is not None:
        settings["weight_decay"] = config.weight_decay
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(parameters, **settings)
    # One fused kernel per tensor is 3-4 times faster than the loop, on the CPU too; but it
    # handles the loss scale itself, which would hide the true norm from clipping.
    devices = {p.device.type for p in parameters}
    settings["fused"] = config.precision != "16-mixed" and devices <= {"cpu", "cuda"}
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, **settings)


def build_optimizers(
    groups: ParameterGroups, config: TrainingConfig, learning_rate: float
) -> dict[str, Optimizer]:
    """Optimizers by group name (``"network"``, ``"natural"``); empty groups are left out."""
    optimizers: dict[str, Optimizer] = {}
    if groups.network:
        optimizers["network"] = network_optimizer(groups.network, config, learning_rate)
    if groups.natural:
        optimizers["natural"] = NaturalDescent(groups.natural, lr=config.natural_learning_rate)
    return optimizers
