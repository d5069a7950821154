"""Riccati recursion in stretches of time, against the loop."""

from __future__ import annotations

import math

import pytest
import torch

from tsvae.lds import recursions, riccati_loops
from tsvae.lds.components import congruence, posterior, steps
from tsvae.lds.riccati_loops import pair_loop, pair_stretches

P, G = 3, 2


def problem(n_steps, radius=0.9, noise=0.3, strength=1.0, dtype=torch.float64, gaps=0.3, seed=0):
    """Rotations that a filter with precisions of about ``strength`` follows."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.tensor([0.3, 1.1], dtype=dtype)
    a = radius * torch.stack(
        (torch.stack((angle.cos(), -angle.sin())), torch.stack((angle.sin(), angle.cos())))
    )
    eye = torch.eye(2, dtype=dtype)[:, :, None].expand(2, 2, G)
    a, q, p = (x.reshape(2, 2, 1, 1, 1, G) for x in (a, noise * eye, 3.0 * eye))
    root = torch.randn(2, 2, n_steps, P, 1, G, generator=generator, dtype=dtype)
    seen = torch.rand(n_steps, P, 1, 1, generator=generator) >= gaps
    precision = strength * congruence(root, eye.reshape(2, 2, 1, 1, 1, G)) * seen
    return a, q, p, precision


def slow_loop(a, q, p, precision):
    found = [p.expand(2, 2, 1, P, 1, G)]
    for step in range(precision.shape[2] - 1):
        after = posterior(found[-1], steps(precision, step, step + 1))
        found.append(congruence(a, after, q))
    return torch.cat(found, dim=2)


@pytest.mark.parametrize("n_steps", [1, 2, 50])
def test_loop_is_the_recursion_written_out(n_steps):
    case = problem(n_steps)
    out = torch.empty_like(case[-1])
    pair_loop(*case, out)
    torch.testing.assert_close(out, slow_loop(*case))


@pytest.mark.parametrize("n_steps", [65, 200, 231, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stretches_are_the_loop_where_the_filter_forgets(n_steps, dtype):
    case = problem(n_steps, radius=0.4, dtype=dtype)
    out, want = torch.empty_like(case[-1]), torch.empty_like(case[-1])
    pair_loop(*case, want)
    assert pair_stretches(*case, out)
    close = 20.0 * torch.finfo(dtype).eps
    torch.testing.assert_close(out, want, rtol=close, atol=close)


def test_a_filter_that_does_not_forget_is_left_to_the_reduction():
    # Nothing is seen for long stretches, and little is forgotten by itself.
    case = problem(400, radius=0.999, noise=1e-4, strength=1e-3)
    assert not pair_stretches(*case, torch.empty_like(case[-1]))
    want = torch.empty_like(case[-1])
    pair_loop(*case, want)
    torch.testing.assert_close(recursions.riccati(*case), want)


def test_one_long_gap_is_enough_to_be_left(monkeypatch):
    monkeypatch.setattr(riccati_loops, "_NUMBERS", 10 * P * G)
    case = problem(400, radius=0.99, strength=5.0, gaps=0.0)
    assert pair_stretches(*case, torch.empty_like(case[-1]))
    steps(case[-1], 100, 220).zero_()
    assert not pair_stretches(*case, torch.empty_like(case[-1]))


def test_short_recursions_are_left():
    case = problem(40)
    assert not pair_stretches(*case, torch.empty_like(case[-1]))


def test_the_recursion_takes_stretches_where_they_work(monkeypatch):
    taken = []

    def note(*given):
        taken.append(pair_stretches(*given))
        return taken[-1]

    monkeypatch.setattr(recursions, "pair_stretches", note)
    monkeypatch.setattr(recursions.small, "is_small", lambda values: False)
    case = problem(300, radius=0.7)
    torch.testing.assert_close(recursions.riccati(*case), slow_loop(*case))
    assert taken == [True]


def test_differences_that_shrink_too_slowly_are_not_waited_for():
    assert riccati_loops._meets_in(100, 25, math.e**8, math.e**4)
    assert not riccati_loops._meets_in(100, 25, math.e**8, math.e**7)
    assert not riccati_loops._meets_in(100, 25, 10.0, 11.0)
    assert not riccati_loops._meets_in(100, 25, 10.0, math.nan)
