"""Steps on the host are those of PyTorch."""

from __future__ import annotations

import pytest
import torch

from tsvae.lds import stepping
from tsvae.lds.joint_elimination import JointPrecision, eliminate
from tsvae.lds.scans import affine_loop, congruence_loop
from tsvae.lds.stepping import HostSteps, InverseRoots, TensorSteps, kind_of_steps

T, K, R = 9, 4, 3
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def positive(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    root = draw(*shape, shape[-1], seed=seed)
    return (root @ root.mT + torch.eye(shape[-1])).to(dtype)


@pytest.fixture
def without_host(monkeypatch):
    """Switch to PyTorch's steps."""
    return lambda: monkeypatch.setattr(stepping, "LARGEST_ON_HOST", 0)


def test_one_small_matrix_a_step_on_the_cpu_is_for_the_host():
    assert kind_of_steps(draw(T, 1, K, K)) is HostSteps
    assert kind_of_steps(draw(T, 2, K, K)) is TensorSteps
    assert kind_of_steps(draw(T, 1, K, K).to(torch.bfloat16)) is TensorSteps
    large = stepping.LARGEST_ON_HOST + 1
    assert kind_of_steps(torch.empty(1, 1, large, large)) is TensorSteps
    assert kind_of_steps(torch.empty(1, 1, K, K, device="meta")) is TensorSteps


@DTYPES
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("of_past", [False, True])
def test_recursions(without_host, dtype, reverse, of_past):
    links = (0.4 * draw(T, 1, K, K)).to(dtype).requires_grad_()
    rows, spreads = draw(T, 1, R, K, seed=1, dtype=dtype), positive(T, 1, K, seed=2, dtype=dtype)
    options = {"reverse": reverse, "of_past": of_past, "runs": []}

    def run():
        halves = torch.empty_like(spreads)
        aliased = spreads.clone()
        with torch.no_grad():
            return (
                affine_loop(links, rows, **options),
                congruence_loop(links, spreads, halves=halves, **options),
                halves,
                congruence_loop(links.mT, aliased, out=aliased, **options),
            )

    ours = run()
    without_host()
    for one, two in zip(ours, run(), strict=True):
        assert one.dtype == dtype
        assert torch.allclose(one, two, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize("n_steps", [1, 9, 40, 70])
@pytest.mark.parametrize("keep_before", [False, True])
@pytest.mark.parametrize("settles", [False, True])
def test_elimination(without_host, dtype, n_steps, keep_before, settles):
    noise, transition = positive(1, K, seed=3), 0.4 * draw(1, K, K, seed=4)
    leaving = transition.mT @ noise @ transition
    potential = draw(1 if settles else n_steps, 1, K, seed=5).abs().expand(n_steps, -1, -1)
    given = JointPrecision(
        positive(1, K, seed=6),
        noise,
        noise @ transition,
        leaving,
        torch.zeros_like(noise),
        torch.zeros(n_steps, 1, dtype=dtype),
        potential.to(dtype),
    )
    ours = eliminate(given, keep_before)
    assert ours.steps is HostSteps
    without_host()
    theirs = eliminate(given, keep_before)
    assert theirs.steps is TensorSteps
    for name in ("conditional", "pull", "pivots", "before"):
        one, two = getattr(ours, name), getattr(theirs, name)
        assert torch.allclose(one, two, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]), name


@DTYPES
def test_inverse_roots_are_those_of_lapack(dtype):
    given = positive(T, 1, K, dtype=dtype)
    found = given.clone()
    roots = InverseRoots(found.numpy()[:, 0])
    assert all(roots(step) for step in range(T))
    eye = torch.eye(K, dtype=dtype)
    assert torch.equal(found, found.tril())
    assert torch.allclose(found @ given @ found.mT, eye.expand_as(found), atol=TOLERANCE[dtype])


def test_a_matrix_that_is_not_positive_definite_is_reported():
    given = positive(2, 1, K)
    given[1, 0, -1, -1] = -1.0
    roots = InverseRoots(given.numpy()[:, 0])
    assert roots(0)
    assert not roots(1)


def test_elimination_repairs_what_rounding_broke():
    """A last pivot just below zero: PyTorch's factor with jitter takes over."""
    one = torch.ones(1, 3, 3, dtype=torch.float64)
    given = JointPrecision(
        one - 1e-13 * torch.eye(3, dtype=torch.float64),
        torch.eye(3, dtype=torch.float64)[None],
        0.0 * one,
        0.0 * one,
        0.0 * one,
        torch.zeros(1, 1, dtype=torch.float64),
        torch.zeros(1, 1, 3, dtype=torch.float64),
    )
    found = eliminate(given, keep_before=False)
    assert found.repairing
    assert bool(found.conditional.isfinite().all())
