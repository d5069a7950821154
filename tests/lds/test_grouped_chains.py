"""Draws and divergences of groups of one and two: against the filter and numeric slopes."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tsvae import lds
from tsvae.lds import drawing, filtering, small_recursions
from tsvae.lds.grouped_chains import draw_grouped_chains
from tsvae.lds.host_prior import LARGEST_PATH
from tsvae.lds.sampling import sample_posterior
from tsvae.lds.smoothing import posterior_kl

CASES = [
    # group size, groups, series, patterns, steps, expected parameters
    (2, 3, 4, 1, 5, True),
    (2, 2, 3, 3, 6, True),
    (2, 2, 3, 3, 2, False),
    (1, 3, 4, 4, 7, False),
    (1, 2, 3, 1, 6, True),
    (2, 1, 2, 2, 1, True),
    (2, 3, 3, 3, 40, True),
    (2, 2, 2, 1, 250, True),
]


@pytest.fixture(params=CASES, ids=str)
def case(request, drawing_case):
    return drawing_case(*request.param)


def drawn(case, leaves, n_samples=2):
    params = case.rebuilt(leaves[2:])
    generator = torch.Generator().manual_seed(5)
    return draw_grouped_chains(params, leaves[0], leaves[1], n_samples, generator)


def slopes(case, draws, kl):
    weights = torch.randn(draws.shape, generator=torch.Generator().manual_seed(1)).to(draws)
    total = (draws * weights).sum() + (kl * case.weights.to(kl)).sum()
    return torch.autograd.grad(total, case.leaves, retain_graph=True, materialize_grads=True)


def test_outcome_and_gradients_are_those_of_the_filter(case, monkeypatch):
    """The general way, which is tested against dense conditioning, takes the same noise."""
    monkeypatch.setattr(filtering, "SHORT_CHAIN", 0)
    params = case.rebuilt(case.small)
    filtered = lds.filter_states(params, lds.Potentials(case.linear, case.precision))
    want = sample_posterior(params, filtered, torch.Generator().manual_seed(5), 2)
    want_kl = posterior_kl(params, filtered)
    draws, kl = drawn(case, case.leaves)
    torch.testing.assert_close(draws, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(kl, want_kl, rtol=1e-10, atol=1e-10)
    pairs = zip(slopes(case, draws, kl), slopes(case, want, want_kl), strict=True)
    for got, expected in pairs:
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sizes", CASES[:4], ids=str)
def test_gradients_are_numeric_slopes(sizes, drawing_case):
    case = drawing_case(*sizes)

    def outcome(*leaves):
        return drawn(case, leaves, n_samples=1)

    assert torch.autograd.gradcheck(outcome, tuple(case.leaves))


def test_each_outcome_alone_has_its_gradient(case):
    draws, kl = drawn(case, case.leaves)
    both = slopes(case, draws, kl)
    one = slopes(case, draws.detach(), kl)
    other = slopes(case, draws, kl.detach())
    for total, first, second in zip(both, one, other, strict=True):
        torch.testing.assert_close(total, first + second)


def test_hidden_steps_pass_no_gradient_by_their_root(case):
    with torch.no_grad():
        case.precision[:, 0] = 0.0
    found = slopes(case, *drawn(case, case.leaves))
    assert all(bool(part.isfinite().all()) for part in found)


def test_float32_is_close_to_float64(case):
    narrow = [leaf.detach().float().requires_grad_() for leaf in case.leaves]
    found = []
    for leaves in (narrow, case.leaves):
        _, kl = drawn(case, leaves)  # draws of another precision are others
        total = (kl * case.weights.to(kl)).sum()
        grads = torch.autograd.grad(total, leaves, materialize_grads=True)
        found.append([kl, *grads])
    for got, want in zip(*found, strict=True):
        assert got.dtype == torch.float32
        assert (got.double() - want).norm() <= 1e-4 * want.norm() + 1e-4


@pytest.mark.parametrize("own", [False, True])
def test_precisions_of_ten_orders_in_float32(own):
    """Slow states, tiny noise, sharp potentials beside none at all."""
    steps, groups = 3000, 3
    generator = torch.Generator().manual_seed(0)
    angle = torch.tensor([0.0, 0.05, 1.0], dtype=torch.float64)
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), -1).view(-1, 2, 2)
    decay = torch.tensor([0.9999, 0.999, 0.9], dtype=torch.float64).view(-1, 1, 1)
    noise = torch.tensor([1e-5, 1e-3, 0.1], dtype=torch.float64).view(-1, 1, 1)
    params = lds.make_parameters(decay * turn, noise * torch.eye(2, dtype=torch.float64))
    patterns = 2 if own else 1
    shape = (patterns, steps, 2 * groups)
    exponents = 10.0 * torch.rand(shape, generator=generator, dtype=torch.float64) - 5.0
    precision = 10.0**exponents * (torch.rand(shape, generator=generator) < 0.5)
    precision[:, 1000:1800] = 0.0
    states = torch.randn(2, steps, 2 * groups, generator=generator, dtype=torch.float64)
    found = []
    for dtype in (torch.float32, torch.float64):
        narrow = params._replace(
            **{
                name: part.to(dtype).requires_grad_()
                for name, part in params._asdict().items()
                if isinstance(part, torch.Tensor)
            }
        )
        weight = precision.to(dtype).requires_grad_()
        linear = (precision * states).to(dtype).requires_grad_()
        drawn = draw_grouped_chains(narrow, linear, weight, 1, torch.Generator().manual_seed(0))
        assert drawn is not None
        draws, kl = drawn
        assert bool(draws.isfinite().all())
        leaves = (linear, narrow.transition_matrix, narrow.noise_covariance)
        *grads, of_weight = torch.autograd.grad(kl.sum(), (*leaves, weight))
        assert bool(of_weight.isfinite().all())
        found.append([kl.double(), *(grad.double() for grad in grads)])
    for got, want in zip(*found, strict=True):
        assert (got - want).norm() <= 1e-3 * want.norm()


def test_operations_do_not_grow_with_series(monkeypatch):
    """Their time is the machine's, their number is ours."""
    monkeypatch.setattr(small_recursions, "LARGEST", 0)  # numpy's are not counted

    class Counter(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.total += 1
            return function(*args, **(kwargs or {}))

    def operations(n_series, own):
        params = lds.LinearDynamicsPosterior(8, group_size=2).plug_in()
        linear = torch.ones(n_series, 100, 8, requires_grad=True)
        precision = torch.ones(n_series if own else 1, 100, 8, requires_grad=True)
        with Counter() as counter:
            generator = torch.Generator().manual_seed(0)
            draws, kl = draw_grouped_chains(params, linear, precision, 1, generator)
            (draws.sum() + kl.sum()).backward()
        return counter.total

    assert operations(40, own=False) <= 1.1 * operations(20, own=False)
    assert operations(40, own=True) <= 1.1 * operations(20, own=True)
    assert operations(20, own=True) <= 2.0 * operations(20, own=False)


@pytest.mark.parametrize("why", ["singular", "far"])
def test_what_it_cannot_take_goes_to_the_filter(why):
    params = lds.LinearDynamicsPosterior(3, group_size=None, dtype=torch.float64).plug_in()
    if why == "singular":
        flat = torch.diag(torch.tensor([1.0, 1.0, 1e-12], dtype=torch.float64))
        params = params._replace(noise_covariance=flat[None])
    else:
        bias = torch.full_like(params.bias, 2 * LARGEST_PATH)
        params = params._replace(bias=bias)
    generator = torch.Generator().manual_seed(0)
    linear = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64)
    precision = torch.ones(1, 30, 3, dtype=torch.float64)
    assert draw_grouped_chains(params, linear, precision, 1, generator) is None
    potentials = lds.Potentials(linear, precision)
    found = drawing.draw_states(params, potentials, generator)
    filtered = lds.filter_states(params, potentials)
    want = lds.local_kl(params, filtered, lds.smooth(params, filtered))
    torch.testing.assert_close(found.local_kl, want)
    assert bool(found.draws.isfinite().all())
