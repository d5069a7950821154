"""Parameters and KL of a natural q(theta) in one call: against those of its two factors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsvae import lds
from tsvae.lds.natural_factor import cholesky, inverse_of_lower
from tsvae.lds.natural_gradient import natural_kl, prior_factor


def outcome(params, kl, parts):
    """Weighted sum of some of the results; 0 stands for the divergence."""
    flat = [kl, *params[:6], *params.excess]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in flat]
    return sum((flat[i] * weights[i]).sum() for i in parts)


def factor(theta, name):
    prior = getattr(theta, f"prior_{name}")
    return getattr(theta, f"{name}_factor"), getattr(theta, f"{name}_size"), prior_factor(prior)


@pytest.mark.parametrize("size, n_inputs", [(1, 0), (2, 0), (2, 3), (4, 1)])
@pytest.mark.parametrize("parts", [range(10), [0], [3], [5, 6], [9], [1, 2, 4]], ids=str)
def test_results_and_directions_are_those_of_the_factors(size, n_inputs, parts):
    theta = lds.LinearDynamicsPosterior(
        3 * size, group_size=size, n_inputs=n_inputs, strength=8.0, dtype=torch.float64
    )
    rng = np.random.default_rng(size)
    with torch.no_grad():
        for xi in theta.natural_parameters():
            xi += torch.from_numpy(0.1 * rng.normal(size=xi.shape))
    params, kl = theta.terms()
    apart = theta.parameters_for_inference()
    want_kl = natural_kl(*factor(theta, "initial")) + natural_kl(*factor(theta, "transition"))
    torch.testing.assert_close(theta.kl(), kl)
    torch.testing.assert_close(kl, want_kl)
    for got, want in zip((*params[:6], *params.excess), (*apart[:6], *apart.excess), strict=True):
        torch.testing.assert_close(got, want)
    directions = [
        torch.autograd.grad(
            outcome(*found, parts), theta.natural_parameters(), materialize_grads=True
        )
        for found in ((params, kl), (apart, want_kl))
    ]
    for got, want in zip(*directions, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("size", range(1, 6))
def test_inverses_of_triangular_matrices(size):
    rng = np.random.default_rng(size)
    root = np.tril(rng.normal(size=(2, 3, size, size))) + 2.0 * np.eye(size)
    found = inverse_of_lower(root)
    np.testing.assert_allclose(found @ root, np.broadcast_to(np.eye(size), root.shape), atol=1e-12)
    assert not np.triu(found, 1).any()


@pytest.mark.parametrize("size", range(1, 6))
def test_factors_of_small_matrices(size):
    rng = np.random.default_rng(size)
    root = rng.normal(size=(2, 3, size, size))
    given = root @ root.swapaxes(-1, -2) + np.eye(size)
    np.testing.assert_allclose(cholesky(given), np.linalg.cholesky(given), atol=1e-12)
    given[1, 2, -1, -1] = -1.0
    with pytest.raises(np.linalg.LinAlgError):
        cholesky(given)
