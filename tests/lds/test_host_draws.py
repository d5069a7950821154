"""Draws of one chain on the host: against those by PyTorch, and where they leave it to these."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsvae import lds
from tsvae.lds import host_draws, host_recursions, joint_draws
from tsvae.lds.host_prior import flat, host_prior
from tsvae.lds.host_recursions import adjoint_on_host, eliminate_on_host, smooth_on_host
from tsvae.lds.joint_draws import draw_joint_chains
from tsvae.lds.stepping import LARGEST_ON_HOST, products

CASES = [
    # group size, groups, series, patterns, steps, expected parameters
    (3, 1, 4, 1, 1, True),
    (3, 1, 4, 1, 2, False),
    (4, 1, 3, 1, 24, True),
    (5, 1, 2, 1, 30, False),
    (2, 1, 2, 1, 60, False),
]


@pytest.fixture(params=CASES, ids=str)
def case(request, drawing_case):
    return drawing_case(*request.param)


def precisions(case, kind):
    """Potentials that settle as a whole, in the middle, or not at all; some hidden steps."""
    found = case.precision.detach().clone()
    steps = found.shape[1]
    if kind == "constant":
        found[:] = found[:, :1]
    if kind == "middle":
        found[:, 3 : steps - 2] = found[:, 3:4]
    if kind == "gaps":
        found[:, 1::3] = 0.0
    return found.requires_grad_()


def outcome(case, precision, n_samples=2):
    linear, *small = case.linear, *case.small
    generator = torch.Generator().manual_seed(5)
    draws, kl = draw_joint_chains(case.rebuilt(small), linear, precision, n_samples, generator)
    weights = torch.randn(draws.shape, generator=torch.Generator().manual_seed(1)).to(draws)
    total = (draws * weights).sum() + (kl * case.weights.to(kl)).sum()
    leaves = [linear, precision, *small]
    return draws, kl, *torch.autograd.grad(total, leaves, materialize_grads=True)


@pytest.mark.parametrize("kind", ["constant", "middle", "gaps", "any"])
def test_outcome_and_gradients_are_those_of_pytorch(case, kind, monkeypatch):
    precision = precisions(case, kind)
    ours = outcome(case, precision)
    assert ours[0].grad_fn.name() == "_DrawBackward"
    monkeypatch.setattr(joint_draws, "are_for_host", lambda *given: False)
    for got, want in zip(ours, outcome(case, precision), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


def test_the_host_is_taken_for_one_chain_alone(drawing_case, monkeypatch):
    taken = []
    monkeypatch.setattr(host_draws, "MOST_STEPS", 48)

    def noted(prior, potential):
        taken.append(potential.shape)
        return eliminate_on_host(prior, potential)

    monkeypatch.setattr(host_draws, "eliminate_on_host", noted)
    longest = host_draws.MOST_STEPS
    for groups, patterns, steps in ((1, 1, longest), (1, 1, longest + 1), (2, 1, 9), (1, 2, 9)):
        case = drawing_case(3, groups, 2, patterns, steps, True)
        draws, _, *_ = outcome(case, case.precision)
        assert bool(draws.isfinite().all())
    assert taken == [(longest, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_steps_share_a_slot(drawing_case, dtype, monkeypatch):
    case = drawing_case(4, 1, 3, 1, 40, True)
    prior = host_prior(flat(case.params), 40)
    potential = np.full((40, 4), 9.0, dtype=str(dtype).removeprefix("torch."))
    chain = eliminate_on_host(prior, potential)
    smoothing = smooth_on_host(chain)
    adjoint = adjoint_on_host(chain, smoothing, 0.7, potential)
    found = (chain.conditional, smoothing.smoothed, adjoint.pivots)
    monkeypatch.setattr(host_recursions, "_runs", lambda keys: [])
    chain = eliminate_on_host(prior, potential)
    smoothing = smooth_on_host(chain)
    adjoint = adjoint_on_host(chain, smoothing, 0.7, potential)
    apart = (chain.conditional, smoothing.smoothed, adjoint.pivots)
    for one, two in zip(found, apart, strict=True):
        assert len(one.values) < 40 == len(two.values)
        assert one.values.dtype == potential.dtype
        tolerance = 1e-5 if dtype == torch.float32 else 1e-10
        np.testing.assert_allclose(one.values[one.at], two.values[two.at], atol=tolerance)
        np.testing.assert_allclose(one.total(), two.total(), rtol=1e-4, atol=40 * tolerance)
        np.testing.assert_allclose(one.diagonals(), two.diagonals(), atol=tolerance)


def test_covariances_are_those_of_the_dense_precision(drawing_case):
    steps, size = 6, 3
    case = drawing_case(size, 1, 2, 1, steps, True)
    prior = host_prior(flat(case.params), steps)
    potential = case.precision.detach().numpy()[0]
    whole = np.diag(potential.reshape(-1))
    for t in range(steps):
        now = slice(t * size, (t + 1) * size)
        whole[now, now] += prior.arriving[0] if t else prior.initial[0]
        if t + 1 < steps:
            after = slice(now.stop, now.stop + size)
            whole[now, now] += prior.leaving[0]
            whole[after, now] -= prior.coupling[0]
            whole[now, after] -= prior.coupling[0].T
    chain = eliminate_on_host(prior, potential)
    smoothing = smooth_on_host(chain)
    inverse = np.linalg.inv(whole).reshape(steps, size, steps, size)
    for t in range(steps):
        slot = smoothing.smoothed.at[t]
        np.testing.assert_allclose(smoothing.smoothed.values[slot], inverse[t, :, t], atol=1e-10)
        if t + 1 < steps:
            np.testing.assert_allclose(smoothing.crossed[slot], inverse[t, :, t + 1], atol=1e-10)
    assert chain.log_det == pytest.approx(np.linalg.slogdet(whole)[1])


def test_what_has_no_factor_is_left_to_others(drawing_case):
    case = drawing_case(3, 1, 2, 1, 5, True)
    prior = host_prior(flat(case.params), 5)
    for dtype in (np.float32, np.float64):
        assert eliminate_on_host(prior, np.full((5, 3), -1e3, dtype)) is None


@pytest.mark.parametrize("size", [2, 4])
def test_what_is_not_finite_raises_no_warning(drawing_case, size):
    """It shows in the outcome, as it does with PyTorch."""
    case = drawing_case(size, 1, 3, 1, 5, True)
    linear = torch.full_like(case.linear, torch.inf)
    potentials = lds.Potentials(linear.requires_grad_(), case.precision)
    found = lds.draw_states(case.params, potentials, torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad(found.local_kl.sum() + found.draws.sum(), [linear])
    assert not bool(found.draws.isfinite().any())
    assert slope.shape == linear.shape


def test_rounding_makes_it_float64_inside():
    """Pivots a thousandth of the largest precision and less: factors in float64, then rounded."""
    noise = torch.diag(torch.tensor([1.0, 1.0, 1e-5], dtype=torch.float64))
    params = lds.make_parameters(0.5 * torch.eye(3, dtype=torch.float64), noise)
    prior = host_prior(flat(params), 20)
    potential = np.linspace(0.0, 2.0, 60).reshape(20, 3)
    wide = eliminate_on_host(prior, potential)
    narrow = eliminate_on_host(prior, potential.astype(np.float32))
    assert narrow.gain.dtype == np.float32
    one, two = (x.conditional.values[x.conditional.at] for x in (narrow, wide))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)
    assert narrow.log_det == pytest.approx(wide.log_det, rel=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("rows", [2, 2000])
def test_rows_walk_along_their_links(reverse, rows):
    """Long runs by chunks side by side where rows are few, else step by step."""
    rng = np.random.default_rng(0)
    matrices, links = 0.3 * rng.normal(size=(3, 6, 6)), [0] * 60 + [1, 2, 1] + [2] * 70
    given = rng.normal(size=(len(links) + 1, rows, 6))
    found = given.copy()
    view = found[::-1] if reverse else found
    host_recursions.walk(view, matrices, links)
    want = given[::-1] if reverse else given
    state = want[0]
    for step, link in enumerate(links, start=1):
        state = state @ matrices[link] + want[step]
        np.testing.assert_allclose(view[step], state, atol=1e-10)


@given(st.lists(st.integers(0, 3)))
def test_numbered_keys_rebuild_their_sequence(keys):
    distinct, at = host_recursions.numbered(keys)
    assert [distinct[slot] for slot in at] == keys
    assert all(one != two for one, two in pairwise(distinct))


@pytest.mark.parametrize("rows", [3, LARGEST_ON_HOST**2 + 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_by_either_library(rows, dtype):
    rng = np.random.default_rng(0)
    left = rng.normal(size=(2, LARGEST_ON_HOST, rows)).astype(dtype)
    right = rng.normal(size=(2, LARGEST_ON_HOST, 4)).astype(dtype)
    found = products(left.swapaxes(1, 2), right)
    want = np.einsum("nkr,nkc->nrc", left.astype(float), right.astype(float))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, want, atol=1e-4 if dtype == np.float32 else 1e-12)
