"""Toy models whose training can be followed by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tsvae.training import LossResult, TrainingConfig


class Quadratic(nn.Module):
    """Mean over the batch of 0.5 * |p - x|^2; its gradient is p - mean(x)."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.zeros(size))
        self.steps: list[int] = []
        self.modes: list[bool] = []

    def training_step(self, batch, step):
        self.steps.append(step)
        self.modes.append(self.training)
        value = 0.5 * ((self.p - batch["x"]) ** 2).sum(-1).mean()
        return LossResult(value, {"fit": value.detach(), "step": torch.tensor(float(step))})


class TwoGroups(Quadratic):
    """A network parameter p and a natural one, both pulled by steep quadratics."""

    def __init__(self) -> None:
        super().__init__(2)
        self.natural = nn.Parameter(torch.zeros(2))

    def natural_parameters(self):
        return [self.natural]

    def training_step(self, batch, step):
        network = 500 * ((self.p - batch["x"]) ** 2).mean()
        natural = 50 * ((self.natural - batch["x"].mean(0)) ** 2).sum()
        return LossResult(network + natural, {"network": network, "natural": natural})


class Network(nn.Module):
    """Regression with dropout and draws of its own."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
        torch.random.set_rng_state(state)
        self.generator = torch.Generator().manual_seed(seed)

    def training_step(self, batch, step):
        noise = 0.01 * torch.randn(batch["x"].shape, generator=self.generator)
        value = ((self.net(batch["x"] + noise) - batch["y"]) ** 2).mean()
        return LossResult(value, {"mse": value.detach()})

    def reconstruct(self, batch):
        return self.net(batch["x"])


def _regression_batches(epoch, generator):
    """Four batches of 16 in an order and with noise of the epoch."""
    x = torch.linspace(-1, 1, 64)[:, None] ** torch.arange(1, 5)
    y = x.sum(-1, keepdim=True)
    order = torch.randperm(64, generator=generator)
    return [{"x": x[part], "y": y[part]} for part in order.split(16)]


@pytest.fixture
def toys():
    return SimpleNamespace(
        Quadratic=Quadratic,
        TwoGroups=TwoGroups,
        Network=Network,
        regression_batches=_regression_batches,
        config=lambda **settings: TrainingConfig(
            **{"device": "cpu", "max_epochs": 3, "lr_schedule": "constant"} | settings
        ),
        generator=lambda seed=0: torch.Generator().manual_seed(seed),
        target=lambda epoch, generator: [{"x": torch.tensor([[1.0, -2.0, 3.0]])}],
    )
