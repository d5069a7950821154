"""Component-first inference of groups of one and two against the loops of the general path."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tsvae import lds
from tsvae.lds import components, filtering, recursions
from tsvae.lds.joint_means import Noise
from tsvae.lds.passes import GroupedPass
from tsvae.lds.scans import affine_scan, congruence_scan, covariance_recursion

STEPS = [1, 2, 3, 6, 7, 8, 13, 64, 101]


def _draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _flat(planes):
    """``(K, K, T, P, 1, G)`` -> ``(T, P * G, K, K)``."""
    return planes.permute(2, 3, 4, 5, 0, 1).flatten(1, 3)


@pytest.fixture(params=[1, 10**9], ids=["loop", "reduction"])
def forced(request, monkeypatch):
    """Both ways through the recursions, whatever the size of the problem."""
    monkeypatch.setattr(recursions, "LOOP_FROM", request.param)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("reverse", [False, True])
def test_recursions_equal_the_loops(forced, size, steps, reverse):
    links = 0.7 * _draw(0, size, size, steps - 1, 3, 1, 2)
    states = _draw(1, size, steps, 3, 4, 2)
    root = _draw(2, size, size, steps, 3, 1, 2)
    constants = components.times_matrix(root, components.transpose(root))
    # The general path keeps a matrix at each step, ignored at the first visited one.
    unused = torch.zeros(1, 6, size, size, dtype=torch.float64)
    order = (_flat(links), unused) if reverse else (unused, _flat(links))
    matrices = torch.cat(order)
    rows = states.permute(1, 2, 4, 3, 0).flatten(1, 2)
    want = affine_scan(matrices, rows, reverse).unflatten(1, (3, 2)).permute(4, 0, 1, 3, 2)
    torch.testing.assert_close(recursions.affine(links, states, reverse), want)
    want = congruence_scan(matrices, _flat(constants), reverse)
    torch.testing.assert_close(_flat(recursions.congruences(links, constants, reverse)), want)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("steps", STEPS)
def test_links_serve_recursions_in_both_directions(forced, size, steps):
    """Whichever comes first and makes their products; several rows of states over each link."""
    links = 0.7 * _draw(0, size, size, steps - 1, 1, 3, 2)
    states = _draw(1, size, steps, 2, 3, 2)
    entries = _draw(2, 2 * size - 1, steps, 1, 3, 2)
    given = recursions.Links(links)
    for constants, forward, backward, recursion in (
        (states, given.forward, given.backward, recursions.affine),
        (entries, given.congruence_forward, given.congruence_backward, None),
    ):
        for reverse, found in ((False, forward(constants)), (True, backward(constants))):
            one_way = links if reverse else components.transpose(links)
            if recursion is None:
                want = recursions.congruences(one_way, components.whole(constants), reverse)
                found = components.whole(found)
            else:
                rows = [recursion(one_way, part, reverse) for part in constants.split(1, dim=2)]
                want = torch.cat(rows, dim=2)
            torch.testing.assert_close(found, want)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("steps", STEPS)
def test_riccati_equals_the_loop(forced, size, steps):
    def spd(seed, *shape):
        root = _draw(seed, size, size, *shape)
        return components.times_matrix(root, components.transpose(root))

    precision = spd(0, steps, 3, 1, 2) * (_draw(5, steps, 3, 1, 2) > 0)
    a, q, first = _draw(1, size, size, 1, 1, 1, 2), spd(2, 1, 1, 1, 2), spd(3, 1, 1, 1, 2)
    got = _flat(recursions.riccati(a, q, first, precision))
    repeated = (_flat(x.expand(-1, -1, -1, 3, -1, -1))[0] for x in (a, q, first))
    want = covariance_recursion(*repeated, _flat(precision)).predicted
    torch.testing.assert_close(got, want)
    assert torch.equal(got, got.mT)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("dims", [(-2,), (-3, -2)])
def test_symmetric_sums_of_products(size, dims):
    left, right = _draw(0, size, 5, 3, 4, 2), _draw(1, size, 5, 3, 4, 2)
    both = torch.einsum("i...,j...->ij...", left, right)
    want = (0.5 * (both + both.transpose(0, 1))).sum(dims, keepdim=True)
    torch.testing.assert_close(components.symmetric_outer_sums(left, right, dims), want)


def _leaves(oracle, rng, groups, size, sharing, steps, excess, inputs):
    params = oracle.random_system(rng, groups, size, inputs)
    form = "diagonal" if sharing != "indexed" else "block"
    potentials = oracle.random_potentials(rng, form, sharing, 4, steps, groups, size)
    n = size + inputs + 1
    root = torch.from_numpy(rng.normal(size=(groups, n, n)))
    if excess:
        constant = torch.from_numpy(rng.normal(size=groups))
        params = params._replace(excess=lds.Excess(0.1 * root @ root.mT, constant, 2 * constant))
    known = torch.from_numpy(rng.normal(size=(4, steps, inputs))) if inputs else None
    return params, potentials, known


def _outcome(params, potentials, known, lengths):
    """Every result of a pass, and a scalar that weighs all their entries."""
    filtered = lds.filter_states(params, potentials, known, lengths)
    smoothed = lds.smooth(params, filtered)
    results = {
        "filtered_mean": filtered.filtered_mean,
        "predicted_mean": filtered.predicted_mean,
        "filtered_covariance": filtered.filtered_covariance,
        "predicted_covariance": filtered.predicted_covariance,
        "log_normalizer": filtered.log_normalizer,
        "linear": filtered.linear,
        "precision": filtered.precision,
        "smoothed_mean": smoothed.smoothed_mean,
        "smoothed_covariance": smoothed.smoothed_covariance,
        "cross_covariance": smoothed.cross_covariance,
        "local_kl": lds.local_kl(params, filtered, smoothed),
    }
    total = sum(
        (torch.arange(1.0, 1.0 + x.numel(), dtype=x.dtype).sin() * x.flatten()).sum()
        for x in results.values()
    )
    return results, total


def _symmetric(params):
    """Gradients by a symmetric matrix are only defined up to an antisymmetric part."""

    def half(x):
        return 0.5 * (x + x.mT)

    excess = params.excess
    if excess is not None:
        excess = excess._replace(precision=half(excess.precision))
    return params._replace(
        noise_covariance=half(params.noise_covariance),
        initial_covariance=half(params.initial_covariance),
        excess=excess,
    )


def _run(given, lengths, outcome=_outcome):
    """Results and gradients with respect to everything given."""
    leaves = []

    def leaf(value):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            leaves.append(value.clone().requires_grad_())
            return leaves[-1]
        return type(value)(*map(leaf, value)) if isinstance(value, tuple) else value

    params, potentials, known = (leaf(part) for part in given)
    results, total = outcome(_symmetric(params), potentials, known, lengths)
    grads = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return results, [g if g.ndim < 4 else 0.5 * (g + g.mT) for g in grads]


WAYS = [
    ("planes", 1, 65536), ("planes", 2, 65536), ("planes", 2, 16), ("short", 1, 0), ("short", 2, 0),
    ("short", 3, 0), ("joint", 2, 0), ("joint", 3, 0),
]  # fmt: skip


@pytest.mark.parametrize(("way", "size", "block"), WAYS)
@pytest.mark.parametrize("sharing", ["shared", "own", "indexed"])
@pytest.mark.parametrize(
    ("excess", "inputs", "ends"), [(False, 0, False), (True, 0, False), (True, 2, True)]
)
def test_every_way_equals_the_stepwise_one(
    oracle, monkeypatch, way, size, block, sharing, excess, inputs, ends
):
    """Values and gradients, each entry weighed."""
    monkeypatch.setattr(components, "BLOCK", block or components.BLOCK)
    for steps in (1, 2, 3, 17):
        rng = np.random.default_rng(steps)
        given = _leaves(oracle, rng, 2, size, sharing, steps, excess, inputs)
        lengths = torch.tensor([steps, steps, max(1, steps - 2), 0]) if ends else None
        with monkeypatch.context() as patch:
            patch.setattr(filtering, "ways", lambda *shape: (way,))
            results, grads = _run(given, lengths)
            patch.setattr(filtering, "ways", lambda *shape: ("stepwise",))
            wanted, want_grads = _run(given, lengths)
        for name, value in results.items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-8, atol=1e-8, msg=name)
        for got, want in zip(grads, want_grads, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("way", ["planes", "short", "joint", "stepwise"])
def test_one_series_with_inputs_is_as_one_of_many(oracle, monkeypatch, way):
    monkeypatch.setattr(filtering, "ways", lambda *shape: (way,))
    params, potentials, known = _leaves(oracle, np.random.default_rng(0), 2, 2, "own", 9, True, 2)
    many, _ = _outcome(params, potentials, known, None)
    alone = potentials._replace(linear=potentials.linear[:1], precision=potentials.precision[:1])
    one, _ = _outcome(params, alone, known[:1], None)
    for name in ("smoothed_mean", "filtered_mean", "predicted_mean", "local_kl", "log_normalizer"):
        torch.testing.assert_close(one[name], many[name][:1])


def _sampled(moments, way, noise):
    """Samples made of chosen normal numbers ``(S, J, B, T, D)``, J kinds of noise."""
    layout, n_samples, kinds = moments.layout, *noise.shape[:2]
    if way == "planes":
        parts = [
            torch.stack([layout.planes_in(draw) for draw in noise[:, j]], dim=-2).flatten(-3, -2)
            for j in range(kinds)
        ]
        return moments.samples_from(parts[0], n_samples)
    parts = [layout.samples_in(noise[:, j]) for j in range(kinds)]
    return moments.samples_from(Noise(*parts), n_samples)


@pytest.mark.parametrize(
    ("way", "size"), [("planes", 1), ("planes", 2), ("short", 2), ("joint", 2), ("joint", 3)]
)
@pytest.mark.parametrize("sharing", ["shared", "own"])
def test_draws_have_the_law_of_the_posterior(oracle, monkeypatch, way, size, sharing):
    """z = mean + L noise, and the map L, read off column by column, squares to the covariance."""
    monkeypatch.setattr(filtering, "ways", lambda *shape: (way,))
    steps, n_series = 5, 4
    params, potentials, known = _leaves(
        oracle, np.random.default_rng(1), 2, size, sharing, steps, True, 1
    )
    lengths = torch.tensor([5, 5, 3, 5]) if sharing == "own" else None
    filtered = lds.filter_states(params, potentials, known, lengths)
    smoothed = lds.smooth(params, filtered)
    dim = 2 * size
    n = 3 * steps * dim
    noise = torch.zeros(n + 1, n_series, n, dtype=torch.float64)
    noise[1:] = torch.eye(n, dtype=torch.float64)[:, None]
    noise = noise.reshape(n + 1, n_series, 3, steps, dim).transpose(1, 2)
    flat = _sampled(filtered.moments, way, noise).flatten(2)
    torch.testing.assert_close(flat[0], smoothed.smoothed_mean.flatten(1))
    for i in range(n_series):
        root = (flat[1:, i] - flat[0, i]).T
        spread = (root @ root.T).reshape(steps, dim, steps, dim)
        row = 0 if smoothed.smoothed_covariance.shape[0] == 1 else i
        for g, t in itertools.product(range(2), range(steps)):
            part = slice(g * size, (g + 1) * size)
            want = smoothed.smoothed_covariance[row, t, g]
            torch.testing.assert_close(spread[t, part, t, part], want)
            if t + 1 < steps:
                want = smoothed.cross_covariance[row, t, g]
                torch.testing.assert_close(spread[t, part, t + 1, part], want)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("sharing", ["shared", "own", "indexed"])
@pytest.mark.parametrize("block", [None, 20])
@pytest.mark.parametrize("steps", [1, 2, 17])
def test_draws_equal_the_stepwise_ones(oracle, monkeypatch, size, sharing, block, steps):
    """The same map from normal numbers to paths, and the same gradients."""
    monkeypatch.setattr(components, "BLOCK", block or components.BLOCK)
    rng = np.random.default_rng(steps)
    given = _leaves(oracle, rng, 2, size, sharing, steps, True, 1)
    noise = torch.from_numpy(rng.normal(size=(2, *given[1].linear.shape)))
    weights = torch.from_numpy(rng.normal(size=noise.shape))

    def outcome(params, potentials, known, lengths):
        filtered = lds.filter_states(params, potentials, known, lengths)
        if isinstance(filtered.moments, GroupedPass):
            draws = _sampled(filtered.moments, "planes", noise[:, None])
        else:
            draws = lds.sample_posterior(params, filtered, noise=noise)
        return draws, (draws * weights).sum() + draws.square().sum()

    found = []
    for way in ("planes", "stepwise"):
        monkeypatch.setattr(filtering, "ways", lambda *shape, way=way: (way,))
        draws, grads = _run(given, None, outcome)
        found.append((draws, *grads))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("radius", [0.9, 1.0])
def test_ten_thousand_steps_in_float32(oracle, radius):
    """Precisions of ten orders of magnitude, long gaps, against float64."""
    generator = torch.Generator().manual_seed(0)
    steps, groups = 10_000, 3
    angle = torch.tensor([0.1, 1.0, 2.5], dtype=torch.float64)
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), -1)
    params = lds.make_parameters(
        radius * turn.reshape(3, 2, 2), 0.1 * torch.eye(2, dtype=torch.float64).repeat(3, 1, 1)
    )
    shape = (1, steps, 2 * groups)
    scale = 10.0 ** (10 * torch.rand(shape, generator=generator, dtype=torch.float64) - 5)
    scale *= torch.rand(shape[:2], generator=generator).unsqueeze(-1) < 0.5
    scale[:, 4000:4500] = 0.0
    at = torch.randn((2, *shape[1:]), generator=generator, dtype=torch.float64)
    outcomes = []
    for dtype in (torch.float32, torch.float64):
        leaves = [x.to(torch.float32).to(dtype).requires_grad_() for x in (scale * at, scale)]
        given = oracle.cast(params, torch.float32)
        given = oracle.cast(given, dtype)
        filtered = lds.filter_states(given, lds.Potentials(*leaves))
        smoothed = lds.smooth(given, filtered)
        kl = lds.local_kl(given, filtered, smoothed)
        kl.sum().backward()
        outcomes.append((smoothed.smoothed_mean, smoothed.smoothed_covariance, kl))
        assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)
    for got, want in zip(*outcomes, strict=True):
        assert oracle.relative(got.detach(), want.detach()) <= 1e-4


def test_lazy_results_keep_their_gradient():
    params = lds.make_parameters(0.5 * torch.eye(2), torch.eye(2))
    linear = torch.ones(1, 4, 2, requires_grad=True)
    filtered = lds.filter_states(params, lds.Potentials(linear, torch.ones(1, 4, 2)))
    with torch.no_grad():
        assert torch.isfinite(filtered.log_normalizer).all()
        assert torch.isfinite(filtered.predicted_mean).all()
    filtered.log_normalizer.sum().backward()
    assert linear.grad.abs().min() > 0
    with torch.no_grad():
        again = lds.filter_states(params, lds.Potentials(linear, torch.ones(1, 4, 2)))
    assert not again.filtered_mean.requires_grad
    torch.testing.assert_close(again.filtered_mean, filtered.filtered_mean.detach())
    torch.testing.assert_close(again.predicted_mean, filtered.predicted_mean.detach())
    torch.testing.assert_close(again.log_normalizer, filtered.log_normalizer.detach())
    torch.testing.assert_close(
        lds.final_state(again, torch.tensor([3])).mean, filtered.filtered_mean[:, 2].detach()
    )


@pytest.mark.parametrize("inputs", [0, 1])
def test_permuted_patterns_of_every_series(oracle, inputs):
    """As many patterns as series, in another order."""
    rng = np.random.default_rng(0)
    params, potentials, known = _leaves(oracle, rng, 2, 2, "own", 9, True, inputs)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = potentials._replace(precision=potentials.precision[order.argsort()], pattern=order)
    for lengths in (None, torch.tensor([9, 7, 9, 4])):
        want, _ = _outcome(params, potentials, known, lengths)
        got, _ = _outcome(params, shuffled, known, lengths)
        for name in ("linear", "filtered_mean", "smoothed_mean", "local_kl", "log_normalizer"):
            torch.testing.assert_close(got[name], want[name])
