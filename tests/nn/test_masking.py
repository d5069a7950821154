"""Zeros in place of what is missing."""

from __future__ import annotations

import pytest
import torch

from tsvae.nn.masking import count_true, zero_where_missing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_equals_where(dtype):
    values = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[0, 0] = torch.nan
    values[1, 1] = -torch.inf
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[0] = mask[1] = False
    want = torch.where(mask, values, 0.0)
    assert torch.equal(zero_where_missing(values, mask), want)
    assert torch.equal(zero_where_missing(values.transpose(1, 2), mask.T), want.transpose(1, 2))
    assert torch.equal(zero_where_missing(values, mask.to(dtype)), want)
    assert zero_where_missing(values, None) is values
    assert not (zero_where_missing(-values, mask)[:, :2].signbit()).any()


def test_gradient_stops_at_what_is_missing():
    values = torch.tensor([1.0, torch.nan, 3.0], requires_grad=True)
    zero_where_missing(values, torch.tensor([True, False, True])).square().sum().backward()
    assert values.grad.tolist() == [2.0, 0.0, 6.0]


def test_what_is_complete_stays_as_it_is():
    values = torch.randn(3, 4)
    assert zero_where_missing(values, torch.ones(3, 4, dtype=torch.bool)) is values
    wide = zero_where_missing(values, torch.ones(2, 1, 1, dtype=torch.bool))
    assert torch.equal(wide, values.expand(2, 3, 4))
    empty = torch.zeros(0, 4)
    assert zero_where_missing(empty, torch.ones(0, 4, dtype=torch.bool)).shape == (0, 4)


@pytest.mark.parametrize("dim", [None, (0,), (0, 1)])
def test_count_true_is_the_sum(dim):
    mask = torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(0)) < 0.4
    for given in (mask, mask.transpose(0, 2)):
        assert torch.equal(count_true(given, dim).long(), given.sum(dim=dim))
