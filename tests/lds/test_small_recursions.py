"""Recursions of small arrays in numpy, against those of tensors."""

from __future__ import annotations

import pytest
import torch

from tsvae.lds import recursions, small_recursions


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def covariances(size, *shape, seed=0):
    """Positive definite matrices, component-first."""
    root = random(size, size, *shape, seed=seed)
    return torch.einsum("ik...,jk...->ij...", root, root) + 0.1 * torch.eye(
        size, dtype=root.dtype
    ).view(size, size, *(1 for _ in shape))


@pytest.fixture
def on_tensors(monkeypatch):
    """Run a recursion without numpy."""

    def run(function, *args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(small_recursions, "LARGEST", 0)
            return function(*args, **options)

    return run


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("n_steps", [1, 2, 7, 8, 50])
@pytest.mark.parametrize("size", [1, 2])
def test_reductions_are_those_of_tensors(on_tensors, size, n_steps, reverse):
    links = 0.5 * random(size, size, n_steps - 1, 3, 1, 4)
    vectors = random(size, n_steps, 3, 5, 4, seed=1)
    matrices = covariances(size, n_steps, 3, 1, 4, seed=2)
    for function, constants in (
        (recursions.affine, vectors),
        (recursions.congruences, matrices),
    ):
        assert small_recursions.is_small(constants)
        expected = on_tensors(function, links, constants, reverse)
        torch.testing.assert_close(function(links, constants, reverse), expected)


def small_problem(precision):
    shape = (1, 1, 1, 4)
    transition = 0.6 * random(2, 2, *shape, seed=3)
    noise, initial = covariances(2, *shape, seed=4), covariances(2, *shape, seed=5)
    return transition, noise, initial, precision


@pytest.mark.parametrize("n_steps", [1, 2, 33, 150, small_recursions.LONGEST_LOOP + 50])
@pytest.mark.parametrize("equal", [False, True])
def test_predicted_covariances_are_those_of_tensors(on_tensors, n_steps, equal):
    precision = covariances(2, 1 if equal else n_steps, 3, 1, 4)
    precision = precision.expand(-1, -1, n_steps, -1, -1, -1).contiguous()
    given = small_problem(precision)
    expected = on_tensors(recursions.riccati, *given)
    torch.testing.assert_close(recursions.riccati(*given), expected, rtol=1e-9, atol=1e-11)


def test_precisions_may_change_after_the_recursion_has_settled(on_tensors):
    first, later = covariances(2, 1, 3, 1, 4), covariances(2, 1, 3, 1, 4, seed=9)
    parts = [first.expand(-1, -1, 120, -1, -1, -1), later.expand(-1, -1, 80, -1, -1, -1)]
    given = small_problem(torch.cat(parts, dim=2))
    expected = on_tensors(recursions.riccati, *given)
    torch.testing.assert_close(recursions.riccati(*given), expected, rtol=1e-9, atol=1e-11)


def test_settled_steps_are_filled_in():
    """Few steps are worked out of many with one precision."""
    precision = covariances(2, 1, 3, 1, 4).expand(-1, -1, 5_000, -1, -1, -1).contiguous()
    given = small_problem(precision)
    out = torch.empty_like(precision)
    assert small_recursions.riccati_pairs(*given, out) == 5_000
    torch.testing.assert_close(out[:, :, 300:], out[:, :, 300:301].expand_as(out[:, :, 300:]))


def test_a_long_recursion_that_does_not_settle_is_handed_on(on_tensors):
    """A random walk with next to no evidence: its covariance grows for thousands of steps."""
    n_steps = small_recursions.LONGEST_LOOP + 200
    precision = 1e-9 * covariances(2, 1, 3, 1, 4).expand(-1, -1, n_steps, -1, -1, -1).contiguous()
    transition = torch.eye(2, dtype=torch.float64).view(2, 2, 1, 1, 1, 1).expand(-1, -1, 1, 1, 1, 4)
    _, noise, initial, _ = small_problem(precision)
    given = (transition, noise, initial, precision)
    out = torch.empty_like(precision)
    filled = small_recursions.riccati_pairs(*given, out)
    assert 0 < filled < n_steps
    expected = on_tensors(recursions.riccati, *given)
    torch.testing.assert_close(recursions.riccati(*given), expected, rtol=1e-9, atol=1e-11)
