"""Margins by a table of normal scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tsvae.estimation.table import TablePredictive, map_scores

torch = pytest.importorskip("torch")

KNOTS = torch.tensor([-1.5, -0.5, 0.0, 0.7, 1.6])


@pytest.fixture
def skewed():
    table = torch.tensor([[[-1.0, -0.4, 0.1, 1.2, 4.0]], [[-3.0, -0.2, -0.1, 0.3, 1.0]]])
    mean = torch.tensor([[[1.0], [-2.0]], [[0.5], [3.0]]])
    scale = torch.tensor([[[2.0], [0.5]], [[1.0], [4.0]]])
    return TablePredictive(mean, scale, KNOTS, table)


def test_a_table_of_the_knots_is_normal():
    mean, scale = torch.randn(3, 4, 2), torch.rand(3, 4, 2) + 0.5
    part = TablePredictive(mean, scale, KNOTS, KNOTS.repeat(4, 2, 1))
    levels = torch.tensor([0.001, 0.3, 0.5, 0.98])
    want = stats.norm.ppf(levels.numpy(), mean.numpy()[..., None], scale.numpy()[..., None])
    np.testing.assert_allclose(part.quantiles(levels), want, rtol=1e-4, atol=1e-5)
    z = (torch.randn(3, 4, 2) - mean) / scale
    phi, cdf = stats.norm.pdf(z.numpy()), stats.norm.cdf(z.numpy())
    closed = scale.numpy() * (z.numpy() * (2 * cdf - 1) + 2 * phi - np.pi**-0.5)
    np.testing.assert_allclose(part.crps(mean + scale * z), closed, rtol=1e-4, atol=1e-6)


def test_quantiles_interpolate_scores_and_go_on_as_multiples(skewed):
    levels = np.array([0.001, 0.2, 0.5, 0.8, 0.999])
    found = skewed.quantiles(torch.as_tensor(levels)).numpy()
    u = stats.norm.ppf(levels)
    for h in range(2):
        line = skewed.table[h, 0].numpy()
        want = np.interp(u, KNOTS.numpy(), line)
        want[0], want[-1] = u[0] * line[0] / -1.5, u[-1] * line[-1] / 1.6
        for b in range(2):
            scale, mean = float(skewed.scale[b, h]), float(skewed.mean[b, h])
            np.testing.assert_allclose(found[b, h, 0], mean + scale * want, rtol=1e-5)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("truth", [-40.0, -2.0, 0.6, 1.1, 5.0, 300.0])
def test_crps_is_twice_the_integral_of_pinball_losses(skewed, truth):
    levels = (np.arange(200_000) + 0.5) / 200_000
    quantiles = skewed.quantiles(torch.as_tensor(levels)).double().numpy()
    gap = truth - quantiles
    want = 2.0 * np.maximum(levels * gap, (levels - 1.0) * gap).mean(-1)
    found = skewed.crps(torch.full((2, 2, 1), truth))
    np.testing.assert_allclose(found, want, rtol=2e-4)


def test_scores_are_mapped_step_by_step(skewed):
    scores = torch.randn(50, 2, 1).sort(dim=0).values
    found = map_scores(scores, KNOTS, skewed.table)
    assert (found.diff(dim=0) > 0).all()
    at_knots = map_scores(KNOTS[:, None, None], KNOTS, skewed.table)
    np.testing.assert_allclose(at_knots.movedim(0, -1), skewed.table, rtol=1e-5, atol=1e-6)
