"""Block tridiagonal precisions, against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsvae.models.block_chain import chain_moments


def _problem(n_chains: int, n_blocks: int, width: int):
    """Random chains and their dense precisions."""
    rng = np.random.default_rng(0)
    size = n_blocks * width
    dense = np.zeros((n_chains, size, size))
    for j in range(n_blocks):
        rows = slice(max(j - 1, 0) * width, (j + 1) * width)
        root = rng.normal(size=(n_chains, rows.stop - rows.start, rows.stop - rows.start))
        dense[:, rows, rows] += root @ root.swapaxes(1, 2) + 0.1 * np.eye(root.shape[-1])
    split = dense.reshape(n_chains, n_blocks, width, n_blocks, width).swapaxes(2, 3)
    at = np.arange(n_blocks)
    return dense, split[:, at, at], split[:, at[1:], at[:-1]], rng.normal(size=(n_chains, size))


@pytest.mark.parametrize("shape", [(3, 5, 2), (1, 1, 4), (2, 7, 1)])
def test_moments_are_those_of_the_dense_inverse(shape):
    dense, diagonal, below, linear = _problem(*shape)
    n, blocks, width = shape
    found = chain_moments(
        *map(torch.from_numpy, (diagonal, below, linear.reshape(n, blocks, width)))
    )
    covariance = np.linalg.inv(dense)
    mean = np.einsum("nij,nj->ni", covariance, linear)
    np.testing.assert_allclose(found.mean.reshape(n, -1), mean, rtol=1e-8)
    split = covariance.reshape(n, blocks, width, blocks, width).swapaxes(2, 3)
    at = np.arange(blocks)
    np.testing.assert_allclose(found.covariance, split[:, at, at], rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(found.cross, split[:, at[:-1], at[1:]], rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(found.log_det, np.linalg.slogdet(dense)[1], rtol=1e-9)


def test_draws_have_the_moments_of_the_density():
    dense, diagonal, below, linear = _problem(1, 4, 2)
    n = 40_000
    repeat = [torch.from_numpy(np.repeat(part, n, 0)) for part in (diagonal, below)]
    linear_blocks = torch.from_numpy(np.repeat(linear, n, 0)).reshape(n, 4, 2)
    noise = torch.randn(n, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draws = chain_moments(*repeat, linear_blocks, noise).mean.reshape(n, -1).numpy()
    covariance = np.linalg.inv(dense[0])
    scale = np.sqrt(covariance.diagonal())
    error = (draws.mean(0) - covariance @ linear[0]) / scale
    np.testing.assert_allclose(error, 0.0, atol=4.0 / np.sqrt(n))
    error = (np.cov(draws.T) - covariance) / np.outer(scale, scale)
    np.testing.assert_allclose(error, 0.0, atol=6.0 / np.sqrt(n))


def test_a_precision_that_is_none_is_refused():
    with pytest.raises(torch.linalg.LinAlgError):
        chain_moments(-torch.ones(1, 1, 1, 1), torch.ones(1, 0, 1, 1), torch.ones(1, 1, 1))
