"""Closed-form readout against the step-by-step forecast of the states."""

from __future__ import annotations

import pytest
import torch

from tsvae.lds import LDSParameters, forecast_states
from tsvae.models.readout import linear_readout

DTYPE = torch.float64
LAYOUTS = [(1, 4), (2, 2), (4, 1), (2, 3)]


def draw(generator, *shape):
    return torch.randn(*shape, dtype=DTYPE, generator=generator)


def positive(generator, *shape):
    root = draw(generator, *shape, shape[-1])
    return root @ root.mT / shape[-1] + 0.1 * torch.eye(shape[-1], dtype=DTYPE)


def system(groups, size, n_inputs=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = draw(generator, groups, size, size)
    a = 0.9 * a / torch.linalg.eigvals(a).abs().amax(-1)[:, None, None]
    return LDSParameters(
        initial_mean=draw(generator, groups, size),
        initial_covariance=positive(generator, groups, size),
        transition_matrix=a,
        noise_covariance=positive(generator, groups, size),
        input_matrix=draw(generator, groups, size, n_inputs),
        bias=draw(generator, groups, size),
    )


def starts(groups, size, n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return draw(generator, n, groups * size), positive(generator, n, groups, size)


def emission(features, latent):
    return draw(torch.Generator().manual_seed(2), features, latent)


def emitted_variance(c, covariance):
    """Diagonal of C S C' with S written out as a dense matrix, state by state."""
    rows = [
        [torch.diagonal(c @ torch.block_diag(*blocks.unbind(0)) @ c.T) for blocks in path]
        for path in covariance
    ]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("horizon", [1, 2, 7, 8, 9])
@pytest.mark.parametrize(("groups", "size"), LAYOUTS)
def test_moments_are_those_of_the_forecast_states(groups, size, horizon):
    params, c = system(groups, size), emission(3, groups * size)
    mean, covariance = starts(groups, size, 5)
    readout = linear_readout(params, c, horizon)
    ahead = forecast_states(params, mean, covariance, horizon)
    torch.testing.assert_close(readout.mean(mean), ahead.mean @ c.T)
    torch.testing.assert_close(readout.variance(covariance), emitted_variance(c, ahead.covariance))


def test_one_covariance_may_be_shared():
    params, c = system(2, 2), emission(3, 4)
    _, covariance = starts(2, 2, 1)
    readout = linear_readout(params, c, 6)
    assert readout.variance(covariance).shape == (1, 6, 3)
    many = readout.variance(covariance.expand(4, -1, -1, -1))
    torch.testing.assert_close(many, readout.variance(covariance).expand(4, -1, -1))


def test_by_hand():
    """A random walk with drift read through C = 2."""
    one = torch.ones(1, 1, dtype=DTYPE)
    params = LDSParameters(
        0 * one, one[None], one[None], 0.5 * one[None], one.new_zeros(1, 1, 0), 0.25 * one
    )
    readout = linear_readout(params, 2 * one, 3)
    assert readout.mean(10 * one).flatten().tolist() == [20.5, 21.0, 21.5]
    assert readout.variance(0.5 * one[None, None]).flatten().tolist() == [4.0, 6.0, 8.0]


def test_inputs_are_left_out():
    """The drift is the response to the bias alone."""
    params = system(2, 2, n_inputs=3)
    bare = params._replace(input_matrix=params.input_matrix[..., :0])
    for got, want in zip(
        linear_readout(params, emission(3, 4), 5),
        linear_readout(bare, emission(3, 4), 5),
        strict=True,
    ):
        assert torch.equal(got, want)


@pytest.mark.parametrize(("groups", "size"), [(1, 3), (2, 2)])
def test_gradients_are_those_of_the_forecast_states(groups, size):
    mean, covariance = starts(groups, size, 4)
    weights = draw(torch.Generator().manual_seed(3), 2, 4, 6, 3)
    found = []
    for closed in (True, False):
        free = system(groups, size)
        c, mean_, spread = emission(3, groups * size), mean.clone(), covariance.clone()
        leaves = [c, mean_, spread, free.transition_matrix, free.noise_covariance, free.bias]
        for leaf in leaves:
            leaf.requires_grad_()
        if closed:
            readout = linear_readout(free, c, 6)
            moments = readout.mean(mean_), readout.variance(spread)
        else:
            ahead = forecast_states(free, mean_, spread, 6)
            moments = ahead.mean @ c.T, emitted_variance(c, ahead.covariance)
        loss = (weights[0] * moments[0]).sum() + (weights[1] * moments[1]).sum()
        found.append(torch.autograd.grad(loss, leaves))
    for got, want in zip(*found, strict=True):
        # Off-diagonal entries of a symmetric matrix may share their derivative in any way.
        if got.ndim > 2 and got.shape[-1] == got.shape[-2] and got.shape != (groups, size, size):
            got, want = got + got.mT, want + want.mT
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
        assert want.abs().max() > 0


def test_gradients_exist_at_a_certain_start():
    """The readout itself forecasts from a covariance of zero."""
    params, c = system(2, 2), emission(3, 4)
    params.transition_matrix.requires_grad_()
    params.noise_covariance.requires_grad_()
    linear_readout(params, c, 12).spread.sum().backward()
    assert torch.isfinite(params.transition_matrix.grad).all()
    assert torch.isfinite(params.noise_covariance.grad).all()


def test_float32():
    c = emission(3, 4).float()
    params = LDSParameters(*(None if p is None else p.float() for p in system(2, 2)))
    mean, covariance = starts(2, 2, 5)
    readout = linear_readout(params, c, 8)
    exact = linear_readout(system(2, 2), emission(3, 4), 8)
    assert readout.mean(mean.float()).dtype == torch.float32
    for got, want in (
        (readout.mean(mean.float()), exact.mean(mean)),
        (readout.variance(covariance.float()), exact.variance(covariance)),
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)
