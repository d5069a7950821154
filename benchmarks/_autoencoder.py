"""A plain convolutional autoencoder in torch alone: the deep baseline of the benchmarks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


class PlainAutoencoder(nn.Module):
    """Three strided convolutions down to a narrow feature map, and their mirror image.

    Parameters
    ----------
    hidden_sizes : tuple of int
        Channels after each halving of the length.
    code_size : int
        Channels of the code: a record of T steps is squeezed through T / 8 x `code_size` numbers.
    """

    def __init__(
        self, hidden_sizes: tuple[int, int, int] = (16, 32, 64), code_size: int = 4
    ) -> None:
        super().__init__()
        sizes = (1, *hidden_sizes)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for narrow, wide in pairwise(sizes):
            down += [nn.Conv1d(narrow, wide, 9, 2, 4), nn.BatchNorm1d(wide), nn.GELU()]
            last = [] if narrow == 1 else [nn.BatchNorm1d(narrow), nn.GELU()]
            up = [nn.ConvTranspose1d(wide, narrow, 9, 2, 4, output_padding=1), *last, *up]
        self.encoder = nn.Sequential(*down, nn.Conv1d(sizes[-1], code_size, 5, 1, 2))
        self.decoder = nn.Sequential(nn.Conv1d(code_size, sizes[-1], 5, 1, 2), nn.GELU(), *up)

    def forward(self, x: Tensor) -> Tensor:
        """Map records (B, T), T a multiple of 8, to their reconstructions."""
        return self.decoder(self.encoder(x[:, None]))[:, 0]


def fit_autoencoder(
    x: Array, target: Array, *, seed: int, n_epochs: int = 20, batch_size: int = 32
) -> PlainAutoencoder:
    """Fit by the mean squared error, Adam with one cycle of the learning rate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PlainAutoencoder()
    order = torch.Generator().manual_seed(seed)
    inputs, targets = (torch.as_tensor(a, dtype=torch.float32) for a in (x, target))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    n_steps = n_epochs * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    model.train()
    for _ in range(n_epochs):
        for rows in torch.randperm(len(inputs), generator=order).split(batch_size):
            loss = nn.functional.mse_loss(model(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def reconstruct(model: PlainAutoencoder, x: Array, batch_size: int = 256) -> Array:
    """Reconstruct records (N, T)."""
    with torch.no_grad():
        parts = torch.as_tensor(x, dtype=torch.float32).split(batch_size)
        return torch.cat([model(part) for part in parts]).double().numpy()
