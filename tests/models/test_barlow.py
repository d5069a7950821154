"""Barlow Twins: correlations against numpy, the loss by loops, constants, the projector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsvae.models.barlow import Projector, barlow_twins_loss, cross_correlation

RNG = np.random.default_rng(0)
MIX = RNG.standard_normal((3, 4))
FIRST = RNG.standard_normal((20, 3)) * [0.1, 1.0, 30.0] + [0.0, 5.0, -2.0]
SECOND = 0.2 * FIRST @ MIX + RNG.standard_normal((20, 4))


def correlations(first, second):
    """By numpy, block (first, second) of the matrix of all."""
    return np.corrcoef(first.T, second.T)[: first.shape[1], first.shape[1] :]


def loss_by_loops(first, second, weight):
    """Equation 1 of the source, entry by entry."""
    n, size = first.shape
    total = 0.0
    for i in range(size):
        for j in range(size):
            product = square_i = square_j = 0.0
            mean_i, mean_j = sum(first[:, i]) / n, sum(second[:, j]) / n
            for row in range(n):
                product += (first[row, i] - mean_i) * (second[row, j] - mean_j)
                square_i += (first[row, i] - mean_i) ** 2
                square_j += (second[row, j] - mean_j) ** 2
            c = product / (square_i * square_j) ** 0.5
            total += (1.0 - c) ** 2 if i == j else weight * c**2
    return total


def tensors(*arrays, dtype=torch.float64):
    return (torch.tensor(array, dtype=dtype) for array in arrays)


def test_correlations_are_those_of_numpy():
    found = cross_correlation(*tensors(FIRST, SECOND))
    np.testing.assert_allclose(found, correlations(FIRST, SECOND), rtol=1e-10)
    assert found.shape == (3, 4)
    single = cross_correlation(*tensors(FIRST, SECOND, dtype=torch.float32))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, correlations(FIRST, SECOND), atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.005, 2.0])
def test_loss_by_loops(weight):
    first, second = FIRST, SECOND[:, :3]
    found = barlow_twins_loss(*tensors(first, second), weight)
    assert float(found) == pytest.approx(loss_by_loops(first, second, weight), rel=1e-10)


def test_lambda_is_that_of_the_source_by_default():
    first, second = tensors(FIRST, SECOND[:, :3])
    assert barlow_twins_loss(first, second) == barlow_twins_loss(first, second, 0.005)


def test_shift_and_scale_of_codes_do_not_matter():
    first, second = tensors(FIRST, SECOND[:, :3])
    scale, shift = torch.tensor([0.5, 7.0, 100.0]), torch.tensor([-3.0, 0.0, 50.0])
    moved = barlow_twins_loss(first * scale + shift, second * scale.flip(0) - shift, 0.1)
    torch.testing.assert_close(moved, barlow_twins_loss(first, second, 0.1))
    flipped = cross_correlation(-first, second)
    torch.testing.assert_close(flipped, -cross_correlation(first, second))


def test_the_order_of_samples_does_not_matter_but_the_pairing_does():
    first, second = tensors(FIRST, SECOND)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    found = cross_correlation(first[order], second[order])
    torch.testing.assert_close(found, cross_correlation(first, second))
    assert not torch.allclose(cross_correlation(first[order], second), found)


def test_constant_entries_correlate_with_nothing_and_have_finite_gradients():
    first, second = tensors(FIRST, SECOND[:, :3])
    first[:, 1] = 4.0
    first.requires_grad_(), second.requires_grad_()
    found = cross_correlation(first, second)
    assert (found[1] == 0.0).all() and (found[[0, 2]] != 0.0).all()
    barlow_twins_loss(first, second).backward()
    assert torch.isfinite(first.grad).all() and torch.isfinite(second.grad).all()
    assert first.grad[:, 0].any() and second.grad[:, 1].any()
    whole = torch.zeros(5, 3, requires_grad=True)
    loss = barlow_twins_loss(whole, whole)
    loss.backward()
    assert float(loss.detach()) == 3.0 and torch.isfinite(whole.grad).all()


def test_entries_that_hardly_move_are_not_blown_up():
    codes = torch.tensor(FIRST[:, :1]) * 1e-9
    assert abs(float(cross_correlation(codes, codes))) < 1e-8


def test_gradients_equal_finite_differences():
    first, second = (z.requires_grad_() for z in tensors(FIRST, SECOND[:, :3]))
    assert torch.autograd.gradcheck(lambda a, b: barlow_twins_loss(a, b, 0.3), (first, second))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n=st.integers(2, 30), size=st.integers(1, 5), seed=st.integers(0, 10_000), same=st.booleans()
)
def test_the_loss_is_0_only_for_the_identity(n, size, seed, same):
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((n, size))
    second = 3.0 * first - 1.0 if same else rng.standard_normal((n, size))
    matrix = cross_correlation(*tensors(first, second))
    assert (matrix.abs() <= 1.0 + 1e-9).all()
    loss = float(barlow_twins_loss(*tensors(first, second), 0.5))
    distance = float((matrix - torch.eye(size, dtype=matrix.dtype)).abs().max())
    assert loss >= 0.0
    assert (loss < 1e-12) == (distance < 1e-5)
    orthogonal = np.linalg.qr(first - first.mean(0))[0] if n > size else None
    if orthogonal is not None:  # uncorrelated entries, equal on both sides
        assert float(barlow_twins_loss(*tensors(orthogonal, 2.0 * orthogonal), 0.5)) < 1e-12


def test_errors():
    first, second = tensors(FIRST, SECOND)
    with pytest.raises(ValueError, match=r"same size, got \(3, 4\)"):
        barlow_twins_loss(first, second)
    for one, two in ((first[:5], second), (first[0], second), (first[None], second)):
        with pytest.raises(ValueError, match="one row for each sample"):
            cross_correlation(one, two)
    with pytest.raises(ValueError, match="projector"):
        Projector(3, (4, -1))
    with pytest.raises(ValueError, match="latent_dim"):
        Projector(0, (4,))


def test_projector_by_hand():
    codes = torch.tensor(FIRST)
    model = Projector(3, (6, 5, 2), torch.Generator().manual_seed(1)).double()
    hidden = FIRST
    linears = model.network[::3]
    assert [tuple(layer.weight.shape) for layer in linears] == [(6, 3), (5, 6), (2, 5)]
    for place, layer in enumerate(linears):
        hidden = hidden @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if place < 2:  # normalised over the batch and rectified, but not at the end
            hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
            hidden = np.maximum(hidden, 0.0)
    np.testing.assert_allclose(model(codes).detach(), hidden, rtol=1e-8, atol=1e-10)
    assert (hidden < 0).any()


def test_projectors_of_equal_generators_are_equal():
    state = torch.get_rng_state()
    one, two, other = (
        Projector(3, (4, 2), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    codes = torch.tensor(FIRST, dtype=torch.float32)
    assert torch.equal(one(codes), two(codes))
    assert torch.equal(one(codes), Projector(3, (4, 2))(codes))  # private, seed 0
    assert not torch.equal(one(codes), other(codes))
    assert Projector(3, [4])(codes).shape == (20, 4)
