"""linear_of_parts: the same as putting the parts side by side, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tsvae.nn import DenseNet, parts
from tsvae.nn.parts import joined, linear_of_parts


@pytest.fixture(autouse=True, scope="module")
def few_columns_are_enough():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "LEAST_COLUMNS", 1)
        yield


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def by_hand(parts, weight, bias):
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    together = torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], dim=-1)
    return functional.linear(together, weight, bias)


LEADING = [
    [(3, 5), (1, 5)],
    [(3, 5), (1, 1)],
    [(1, 5), (3, 1)],
    [(3, 5), (1, 1), (3, 5)],
    [(1, 1), (3, 5), (1, 5)],
    [(3, 5), (3, 5)],
    [(5,), (1,)],
]


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients_are_those_of_the_joint_input(leading, biased):
    parts = [draw(*lead, 2 + i, seed=i) for i, lead in enumerate(leading)]
    weight = draw(4, sum(part.shape[-1] for part in parts), seed=9)
    bias = draw(4, seed=10) if biased else None
    leaves = [weight, *parts] + ([bias] if biased else [])
    found, wanted = linear_of_parts(parts, weight, bias), by_hand(parts, weight, bias)
    assert torch.allclose(found, wanted, atol=1e-12)
    upstream = draw(*wanted.shape, seed=11).detach()
    ours = torch.autograd.grad(found, leaves, upstream)
    theirs = torch.autograd.grad(wanted, leaves, upstream)
    for one, two in zip(ours, theirs, strict=True):
        assert torch.allclose(one, two, atol=1e-12)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.booleans())
def test_any_shape(n_series, n_steps, own, shared, one_row):
    x = draw(n_series, n_steps, own)
    m = draw(1, 1 if one_row else n_steps, shared, seed=1)
    weight = draw(3, own + shared, seed=2)
    assert torch.allclose(linear_of_parts((x, m), weight, None), by_hand((x, m), weight, None))


def test_parts_without_gradient_get_none():
    x, m, weight = draw(3, 5, 2).detach(), draw(1, 5, 2, seed=1), draw(4, 4, seed=2)
    linear_of_parts((x, m), weight, None).sum().backward()
    assert x.grad is None
    assert m.grad.shape == m.shape


def test_few_shared_columns_are_put_beside_the_others(monkeypatch):
    monkeypatch.setattr(parts, "LEAST_COLUMNS", 3)
    x, weight = draw(3, 5, 2), draw(4, 5)
    narrow = linear_of_parts((x, draw(1, 1, 2, seed=1)), weight[:, :4], None)
    wide = linear_of_parts((x, draw(1, 1, 3, seed=1)), weight, None)
    assert "LinearBackward" not in type(narrow.grad_fn).__name__
    assert "LinearBackward" in type(wide.grad_fn).__name__


def test_under_autocast_plain_operations_do_the_work():
    x, m, weight = draw(3, 5, 2).float(), draw(1, 5, 2, seed=1).float(), draw(4, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_of_parts((x, m), weight, None)
    assert found.dtype == torch.bfloat16
    assert "LinearBackward" not in type(found.grad_fn).__name__
    assert torch.allclose(found.float(), by_hand((x, m), weight, None), atol=0.1)


@pytest.mark.parametrize("options", [{}, {"residual": False}, {"spectral_norm": True}], ids=str)
def test_a_network_takes_parts(options):
    net = DenseNet(5, 2, (6, 6), generator=torch.Generator().manual_seed(3), **options).double()
    net.eval()
    parts = draw(4, 3, 3), draw(1, 1, 2, seed=1)
    assert torch.allclose(net(*parts), net(joined(parts)), atol=1e-12)


def test_a_block_as_wide_as_its_parts_adds_them():
    net = DenseNet(5, 2, (5,), generator=torch.Generator().manual_seed(3)).double()
    parts = draw(4, 3, 3), draw(1, 1, 2, seed=1)
    assert net.blocks[0].shortcut is None
    assert torch.allclose(net(*parts), net(joined(parts)), atol=1e-12)
