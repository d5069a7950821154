"""Draws and divergences by block elimination: against the filter and against numeric slopes."""

from __future__ import annotations

import pytest
import torch

from tsvae import lds
from tsvae.lds import drawing, filtering
from tsvae.lds.host_prior import LARGEST_PATH
from tsvae.lds.joint_draws import draw_joint_chains
from tsvae.lds.sampling import sample_posterior
from tsvae.lds.smoothing import posterior_kl

CASES = [
    # group size, groups, series, patterns, steps, expected parameters
    (3, 1, 4, 1, 5, True),
    (3, 2, 4, 4, 5, True),
    (4, 1, 3, 1, 7, False),
    (3, 2, 2, 2, 1, True),
    (3, 1, 2, 1, 40, True),
]


@pytest.fixture(params=CASES, ids=str)
def case(request, drawing_case):
    return drawing_case(*request.param)


def drawn(case, leaves, n_samples=2):
    params = case.rebuilt(leaves[2:])
    generator = torch.Generator().manual_seed(5)
    return draw_joint_chains(params, leaves[0], leaves[1], n_samples, generator)


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
    assert draw_joint_chains(params, linear, precision, 1, generator) is None
    potentials = lds.Potentials(linear, precision)
    found = drawing.draw_states(params, potentials, generator)
    filtered = lds.filter_states(params, potentials)
    want = lds.local_kl(params, filtered, lds.smooth(params, filtered))
    torch.testing.assert_close(found.local_kl, want)
    assert bool(found.draws.isfinite().all())
