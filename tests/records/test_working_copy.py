"""Kept copies of models follow every change of the model that they are of."""

from __future__ import annotations

import copy
import gc
import weakref

import torch
from torch import nn

from tsvae._records.working_copy import working_copy

CPU = torch.device("cpu")


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.layers(x) + torch.randn(len(x), 4, generator=self.generator, dtype=x.dtype)


def expected(model, dtype=torch.float64):
    return copy.deepcopy(model).to(dtype).eval()(torch.ones(2, 3, dtype=dtype))


def found(model, dtype=torch.float64):
    return working_copy(model, CPU, dtype)(torch.ones(2, 3, dtype=dtype))


def test_each_change_of_the_model_is_seen():
    model = Noisy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    values = [found(model)]

    def check():
        assert torch.equal(found(model), expected(model))
        assert all(not torch.equal(found(model), value) for value in values)
        values.append(found(model))

    assert torch.equal(values[0], expected(model)) and torch.equal(values[0], found(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.layers[0].weight.data.mul_(2.0)
    check()
    with torch.no_grad():
        model.layers[0].bias.add_(1.0)
    check()
    model.layers[1].running_mean.add_(1.0)  # a buffer
    check()
    model.layers[0] = nn.Linear(3, 4)  # another module of the same shapes
    check()
    model.layers[1] = nn.Identity()  # other tensors
    check()
    model.generator.manual_seed(5)
    check()
    assert torch.equal(found(model, torch.float32), expected(model, torch.float32))
    assert found(model).dtype == torch.float64


def test_the_copy_is_kept_and_the_model_is_as_it_was():
    model = Noisy().train()
    one = working_copy(model, CPU, torch.float64)
    assert one is working_copy(model, CPU, torch.float64) and one is not model
    assert model.training and not one.training
    assert next(model.parameters()).dtype == torch.float32
    state = model.generator.get_state()
    found(model)
    assert torch.equal(model.generator.get_state(), state)
    assert working_copy(copy.deepcopy(model), CPU, torch.float64) is not one
    assert working_copy(model, torch.device("meta"), torch.float64) is not one


def test_a_copy_goes_with_its_model():
    model = Noisy()
    there = weakref.ref(working_copy(model, CPU, torch.float64))
    assert there() is not None
    del model
    gc.collect()
    assert there() is None
