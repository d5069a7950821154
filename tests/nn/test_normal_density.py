"""The hand-written normal density against torch.distributions and numerical differences."""

from __future__ import annotations

import pytest
import torch
from torch import distributions as td

from tsvae.nn.normal_density import normal_log_prob

SHAPES = {
    "a scale per variable": ((4, 6, 3), (4, 6, 3), (3,)),
    "a scale per entry": ((4, 6, 3), (4, 6, 3), (4, 6, 3)),
    "draws of the location": ((4, 6, 3), (2, 4, 6, 3), (3,)),
    "one location, scales of entries": ((4, 6, 3), (3,), (4, 6, 3)),
    "one of each": ((5,), (), ()),
    "values shared by draws, scale of draws": ((6, 3), (1, 6, 3), (2, 1, 3)),
}


def arguments(shapes):
    generator = torch.Generator().manual_seed(0)
    x, loc, raw = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return x, loc, raw.exp()


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_value_and_gradients_against_torch(shapes):
    values = {}
    for name, density in [
        ("ours", normal_log_prob),
        ("theirs", lambda x, loc, scale: td.Normal(loc, scale).log_prob(x)),
    ]:
        given = [a.clone().requires_grad_() for a in arguments(shapes)]
        value = density(*given)
        weight = torch.linspace(-1.0, 2.0, value.numel(), dtype=value.dtype).view_as(value)
        values[name] = (value, *torch.autograd.grad((weight * value).sum(), given))
    for ours, theirs in zip(values["ours"], values["theirs"], strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_gradients_against_differences(shapes):
    given = [a.requires_grad_() for a in arguments(shapes)]
    assert torch.autograd.gradcheck(normal_log_prob, given)


@pytest.mark.parametrize("wanted", range(3))
def test_gradient_of_one_argument_alone(wanted):
    given = list(arguments(SHAPES["a scale per variable"]))
    given[wanted].requires_grad_()
    (alone,) = torch.autograd.grad(normal_log_prob(*given).sum(), given[wanted])
    every = [a.detach().requires_grad_() for a in given]
    together = torch.autograd.grad(normal_log_prob(*every).sum(), every)
    assert torch.equal(alone, together[wanted])


def test_float32_beside_float64():
    given = arguments(SHAPES["a scale per variable"])
    value = normal_log_prob(*(a.float() for a in given))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), normal_log_prob(*given), rtol=1e-5, atol=1e-5)


def test_upstream_gradient_is_not_written_to():
    x, loc, scale = arguments(SHAPES["a scale per entry"])
    loc.requires_grad_()
    upstream = torch.ones_like(x)
    normal_log_prob(x, loc, scale).backward(upstream)
    assert torch.equal(upstream, torch.ones_like(x))
