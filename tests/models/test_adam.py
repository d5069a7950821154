"""Adam for a few numbers, against PyTorch's."""

from __future__ import annotations

import torch

from tsvae.models.adam import Adam


def objective(one, two):
    return (one.square().sum() - 3.0) ** 2 + (one[0] * two).sin().sum()


def test_steps_are_those_of_pytorch():
    start = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64), torch.tensor([0.5]).double()
    shares = [0.5, 1.0, 0.8, 0.1] * 10
    ours = [x.clone().requires_grad_() for x in start]
    descent = Adam({ours[0]: 0.1, ours[1]: 0.02})
    theirs = [x.clone().requires_grad_() for x in start]
    optimizer = torch.optim.Adam([{"params": [x]} for x in theirs])
    for share in shares:
        descent.step(objective(*ours), share)
        for group, rate in zip(optimizer.param_groups, (0.1, 0.02), strict=True):
            group["lr"] = share * rate
        optimizer.zero_grad()
        objective(*theirs).backward()
        optimizer.step()
    for one, two, first in zip(ours, theirs, start, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(one, first)
