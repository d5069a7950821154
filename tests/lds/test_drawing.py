"""Draws and divergences of short chains: against the filter and against numeric slopes."""

from __future__ import annotations

import pytest
import torch

from tsvae import lds
from tsvae.lds import drawing
from tsvae.lds.short_draws import draw_short_chains

CASES = [
    # group size, groups, series, patterns, steps, expected parameters
    (2, 3, 4, 1, 5, True),
    (2, 3, 4, 4, 5, True),
    (1, 2, 3, 1, 7, True),
    (3, 1, 2, 2, 4, False),
    (2, 2, 3, 3, 1, True),
]


@pytest.fixture(params=CASES, ids=str)
def case(request, drawing_case):
    return drawing_case(*request.param)


def test_divergence_and_its_gradient_are_those_of_the_filter(case):
    params = case.rebuilt(case.small)
    _, kl = draw_short_chains(params, case.linear, case.precision, case.noise)
    filtered = lds.filter_states(params, lds.Potentials(case.linear, case.precision))
    want = lds.local_kl(params, filtered, lds.smooth(params, filtered))
    torch.testing.assert_close(kl, want, rtol=1e-10, atol=1e-10)
    slopes = [
        torch.autograd.grad((part * case.weights).sum(), case.leaves, retain_graph=True)
        for part in (kl, want)
    ]
    for got, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_draws_have_the_law_of_the_posterior(case, oracle):
    """The map from noise to draws is affine: its offset and its matrix tell mean and covariance."""
    params = case.rebuilt(case.small)
    potentials = lds.Potentials(case.linear, case.precision)
    n_series, steps, dim = case.linear.shape
    groups, size = params.n_groups, params.group_size
    eye = torch.eye(steps * dim, dtype=torch.float64).view(-1, 1, steps, dim)
    noise = torch.cat((torch.zeros_like(eye[:1]), eye)).expand(-1, n_series, -1, -1)
    with torch.no_grad():
        draws, _ = draw_short_chains(params, case.linear, case.precision, noise)
        smoothed = lds.smooth(params, lds.filter_states(params, potentials))
    torch.testing.assert_close(draws[0], smoothed.smoothed_mean)
    root = (draws[1:] - draws[0]).permute(1, 2, 3, 0).flatten(1, 2)  # (B, T D, noise)
    covariance = (root @ root.mT).view(n_series, steps, dim, steps, dim)
    own = covariance.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    blocks = own.reshape(n_series, steps, groups, size, groups, size)
    found = blocks.diagonal(dim1=2, dim2=4).permute(0, 1, 4, 2, 3)
    want = lds.per_series(smoothed.smoothed_covariance, smoothed.pattern, n_series)
    torch.testing.assert_close(found, want)
    crossed = covariance.diagonal(1, dim1=1, dim2=3).permute(0, 3, 1, 2)  # Cov(z_t, z_t+1)
    crossed = crossed.reshape(n_series, steps - 1, groups, size, groups, size)
    crossed = crossed.diagonal(dim1=2, dim2=4).permute(0, 1, 4, 2, 3)
    pairs = lds.per_series(smoothed.cross_covariance, smoothed.pattern, n_series)
    torch.testing.assert_close(crossed, pairs)


def test_gradients_are_numeric_slopes(case):
    def outcome(linear, precision, *small):
        return draw_short_chains(case.rebuilt(small), linear, precision, case.noise)

    assert torch.autograd.gradcheck(outcome, tuple(case.leaves))


def test_float32_is_close_to_float64(case):
    narrow = [leaf.detach().float().requires_grad_() for leaf in case.leaves]
    found = []
    for leaves in (narrow, case.leaves):
        draws, kl = draw_short_chains(
            case.rebuilt(leaves[2:]), leaves[0], leaves[1], case.noise.to(leaves[0])
        )
        total = draws.square().sum() + (kl * case.weights.to(kl)).sum()
        found.append([draws, kl, *torch.autograd.grad(total, leaves)])
    for got, want in zip(*found, strict=True):
        assert got.dtype == torch.float32
        error = (got.double() - want).norm()
        assert error <= 1e-4 * want.norm() + 1e-4


@pytest.mark.parametrize("why", ["long", "many", "padded", "indexed", "inputs"])
def test_other_chains_take_the_filter(monkeypatch, why):
    """Same law by the other way: the divergence does not depend on the way taken."""
    generator = torch.Generator().manual_seed(0)
    n_inputs = 1 if why == "inputs" else 0
    params = lds.LinearDynamicsPosterior(4, group_size=2, n_inputs=n_inputs).plug_in()
    linear = torch.randn(3, 6, 4, generator=generator)
    pattern, lengths, inputs = None, None, torch.ones(3, 6, 1) if n_inputs else None
    precision = torch.ones(3, 6, 4)
    if why == "long":
        monkeypatch.setattr(drawing, "LONGEST_CHAIN", 11)
    if why == "many":
        monkeypatch.setattr(drawing, "MOST_CHAINS", 5)
    if why == "padded":
        lengths = torch.tensor([6, 5, 6])
        linear[1, 5] = precision[1, 5] = 0.0
    if why == "indexed":
        pattern, precision = torch.tensor([0, 1, 0]), precision[:2]
    potentials = lds.Potentials(linear, precision, pattern)
    monkeypatch.setattr(drawing, "draw_short_chains", None)
    found = lds.draw_states(params, potentials, generator, 2, inputs, lengths)
    filtered = lds.filter_states(params, potentials, inputs, lengths)
    want = lds.local_kl(params, filtered, lds.smooth(params, filtered))
    torch.testing.assert_close(found.local_kl, want)
    assert found.draws.shape == (2, 3, 6, 4)


@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize(
    ("linear", "precision", "named"),
    [
        ((3, None, 6), (1, None, 2), "potentials.linear"),
        ((3, None, 2), (1, None, 6), "precision"),
        ((3, None, 2), (2, None, 2), "patterns"),
        ((0, None, 2), (1, None, 2), "at least one series"),
    ],
)
def test_shapes_that_do_not_fit_are_named(steps, linear, precision, named):
    params = lds.make_parameters(0.9 * torch.eye(2), torch.eye(2))
    shapes = ([steps if n is None else n for n in shape] for shape in (linear, precision))
    potentials = lds.Potentials(*(torch.ones(shape) for shape in shapes))
    with pytest.raises(ValueError, match=named):
        drawing.draw_states(params, potentials, torch.Generator().manual_seed(0))


def test_no_samples_are_an_error():
    params = lds.make_parameters(0.9 * torch.eye(2), torch.eye(2))
    potentials = lds.Potentials(torch.ones(3, 5, 2), torch.ones(1, 5, 2))
    with pytest.raises(ValueError, match="n_samples"):
        drawing.draw_states(params, potentials, torch.Generator(), n_samples=0)
