"""Filter, smoother, sampler, normaliser and forecast against dense joint-Gaussian conditioning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsvae import lds

SHAPES = [
    (1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (4, 1), (1, 5), (2, 3), (3, 2), (1, 7), (4, 2), (2, 4),
    (1, 8),
]  # fmt: skip
B, H = 4, 10
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}


def _problem(oracle, groups, size, form, sharing, dtype, n_inputs):
    rng = np.random.default_rng(1000 * groups + 100 * size + 7 * n_inputs)
    steps = int(rng.integers(2, 41)) if groups * size < 6 else 12
    params = oracle.random_system(rng, groups, size, n_inputs)
    potentials = oracle.random_potentials(rng, form, sharing, B, steps, groups, size)
    inputs = torch.from_numpy(rng.normal(size=(B, steps + H, n_inputs)))
    # The oracle sees exactly the numbers the library sees.
    params, potentials = (oracle.cast(x, dtype) for x in (params, potentials))
    return params, potentials, inputs.to(dtype)


def _inputs(inputs, part):
    return inputs[:, part] if inputs.shape[-1] else None


def _expected(oracle, params, potentials, inputs, steps_seen):
    """Dense moments of every series over all steps + H, potentials after steps_seen dropped."""
    p, pots = (oracle.cast(x, torch.float64) for x in (params, potentials))
    inputs = inputs.double().numpy()
    steps = pots.linear.shape[1]
    precision = oracle.dense_precisions(pots, B, params.n_groups, params.group_size)
    stats, first = oracle.plug_in_statistics(oracle.dense_arrays(p))
    result = []
    for i in range(B):
        total = steps + H
        information = oracle.dense_information(stats, first, inputs[i], total, total)
        lam = np.zeros((total, params.latent_dim, params.latent_dim))
        h = np.zeros((total, params.latent_dim))
        lam[:steps_seen] = precision[i, :steps_seen]
        h[:steps_seen] = pots.linear[i, :steps_seen].numpy()
        result.append(oracle.condition(information, lam, h))
    return result


def _split(oracle, moments, params, total):
    """Means (B, total, D), block covariances and lag-one cross blocks."""
    groups, size, dim = params.n_groups, params.group_size, params.latent_dim
    means = np.stack([m.reshape(total, dim) for m, _, _ in moments])
    four = [c.reshape(total, dim, total, dim) for _, c, _ in moments]
    covariances = np.stack(
        [[oracle.blocks(c[t, :, t], groups, size) for t in range(total)] for c in four]
    )
    cross = np.stack(
        [[oracle.blocks(c[t, :, t + 1], groups, size) for t in range(total - 1)] for c in four]
    )
    return means, covariances, cross


CASES = [
    (g, k, form, sharing, n_inputs)
    for i, (g, k) in enumerate(SHAPES)
    for j, form in enumerate(("diagonal", "block", "dense"))
    for sharing in (("shared", "own", "indexed")[(i + j) % 3], ("own", "indexed", "shared")[j])
    for n_inputs in ((i + j) % 3,)
    if form != "dense" or g == 1
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize(("groups", "size", "form", "sharing", "n_inputs"), CASES)
def test_moments_match_dense_conditioning(oracle, groups, size, form, sharing, n_inputs, dtype):
    params, potentials, inputs = _problem(oracle, groups, size, form, sharing, dtype, n_inputs)
    steps, tolerance = potentials.linear.shape[1], TOLERANCE[dtype]
    filtered = lds.filter_states(params, potentials, _inputs(inputs, slice(0, steps)))
    smoothed = lds.smooth(params, filtered)
    dense = _expected(oracle, params, potentials, inputs, steps)
    means, covariances, cross = _split(oracle, dense, params, steps + H)

    def check(got, want):
        assert oracle.relative(got, want) <= tolerance

    check(smoothed.smoothed_mean, means[:, :steps])
    check(oracle.spread(smoothed.smoothed_covariance, smoothed.pattern, B), covariances[:, :steps])
    check(oracle.spread(smoothed.cross_covariance, smoothed.pattern, B), cross[:, : steps - 1])
    check(filtered.log_normalizer, np.array([d[2] for d in dense]))

    last = lds.final_state(filtered)
    ahead = lds.forecast_states(
        params, last.mean, last.covariance, H, _inputs(inputs, slice(steps, None))
    )
    for h in range(H):
        check(ahead.mean[:, h], means[:, steps + h])
        check(oracle.spread(ahead.covariance[:, h], None, B), covariances[:, steps + h])

    at = steps // 2
    partial = _expected(oracle, params, potentials, inputs, at + 1)
    means, covariances, _ = _split(oracle, partial, params, steps + H)
    check(filtered.filtered_mean[:, at], means[:, at])
    check(
        oracle.spread(filtered.filtered_covariance[:, at], filtered.pattern, B),
        covariances[:, at],
    )
    if at + 1 < steps:
        check(filtered.predicted_mean[:, at + 1], means[:, at + 1])
        check(
            oracle.spread(filtered.predicted_covariance[:, at + 1], filtered.pattern, B),
            covariances[:, at + 1],
        )


@pytest.mark.parametrize(("groups", "size"), [(1, 1), (2, 2), (1, 4), (2, 3)])
@pytest.mark.parametrize("sharing", ["shared", "own", "indexed"])
def test_sampler_is_exactly_the_posterior(oracle, groups, size, sharing):
    """z = mean + L noise, and the map L, read off column by column, squares to the covariance."""
    params, potentials, inputs = _problem(
        oracle, groups, size, "diagonal", sharing, torch.float64, 1
    )
    potentials = potentials._replace(
        linear=potentials.linear[:, :6], precision=potentials.precision[:, :6]
    )
    steps, dim = potentials.linear.shape[1], params.latent_dim
    inputs = torch.cat((inputs[:, :steps], inputs[:, -H:]), dim=1)
    filtered = lds.filter_states(params, potentials, inputs[:, :steps])
    n = steps * dim
    noise = torch.zeros(n + 1, B, n, dtype=torch.float64)
    noise[1:] = torch.eye(n, dtype=torch.float64)[:, None]
    paths = lds.sample_posterior(params, filtered, noise=noise.reshape(n + 1, B, steps, dim))
    flat = paths.reshape(n + 1, B, n).numpy()
    dense = _expected(oracle, params, potentials, inputs, steps)
    for i in range(B):
        root = (flat[1:, i] - flat[0, i]).T
        assert oracle.relative(flat[0, i], dense[i][0][:n]) <= 1e-8
        assert oracle.relative(root @ root.T, dense[i][1][:n, :n]) <= 1e-8


@pytest.mark.parametrize(("groups", "size", "sharing"), [(1, 3, "shared"), (2, 2, "own")])
def test_forecast_sampler_is_exactly_the_forecast(oracle, groups, size, sharing):
    params, potentials, inputs = _problem(
        oracle, groups, size, "diagonal", sharing, torch.float64, 1
    )
    steps, dim, horizon = potentials.linear.shape[1], params.latent_dim, 4
    filtered = lds.filter_states(params, potentials, inputs[:, :steps])
    last = lds.final_state(filtered)
    n = (horizon + 1) * dim
    noise = torch.zeros(n + 1, B, n, dtype=torch.float64)
    noise[1:] = torch.eye(n, dtype=torch.float64)[:, None]
    paths = lds.sample_forecast(
        params, last.mean, last.covariance, horizon,
        inputs=inputs[:, steps : steps + horizon], noise=noise.reshape(n + 1, B, -1, dim),
    )  # fmt: skip
    flat = paths.reshape(n + 1, B, -1).numpy()
    dense = _expected(oracle, params, potentials, inputs, steps)
    part = slice(steps * dim, (steps + horizon) * dim)
    for i in range(B):
        root = (flat[1:, i] - flat[0, i]).T
        assert oracle.relative(flat[0, i], dense[i][0][part]) <= 1e-8
        assert oracle.relative(root @ root.T, dense[i][1][part, part]) <= 1e-8


def test_sample_moments_from_a_generator(oracle):
    params, potentials, inputs = _problem(oracle, 2, 2, "diagonal", "shared", torch.float64, 1)
    steps = potentials.linear.shape[1]
    filtered = lds.filter_states(params, potentials, inputs[:, :steps])
    smoothed = lds.smooth(params, filtered)
    generator = torch.Generator().manual_seed(0)
    paths = lds.sample_posterior(params, filtered, generator, 4000)
    again = lds.sample_posterior(params, filtered, torch.Generator().manual_seed(0), 4000)
    assert torch.equal(paths, again)
    spread = smoothed.smoothed_covariance.diagonal(dim1=-2, dim2=-1).flatten(2)
    error = (paths.mean(0) - smoothed.smoothed_mean) / (spread / 4000).sqrt()
    assert error.abs().max() < 5.0
    assert ((paths.var(0) / spread).log().abs().max()) < 0.15


def test_dense_system_equals_grouped(oracle):
    params, potentials, inputs = _problem(oracle, 2, 3, "diagonal", "indexed", torch.float64, 2)
    steps = potentials.linear.shape[1]
    theta = lds.LinearDynamicsPosterior(
        6, group_size=3, n_inputs=2, start=params, dtype=torch.float64
    )
    lengths = torch.tensor([steps, steps - 1, steps - 3, 1])
    for one in (params, theta.parameters_for_inference()):
        grouped = lds.filter_states(one, potentials, inputs[:, :steps], lengths)
        dense = lds.filter_states(lds.to_dense(one), potentials, inputs[:, :steps], lengths)
        torch.testing.assert_close(
            grouped.log_normalizer, dense.log_normalizer, rtol=1e-9, atol=1e-9
        )
        mean = lds.smooth(one, grouped).smoothed_mean
        other = lds.smooth(lds.to_dense(one), dense).smoothed_mean
        torch.testing.assert_close(mean, other, rtol=1e-9, atol=1e-9)


def test_many_uneven_patterns_fall_back_to_one_per_series(oracle):
    rng = np.random.default_rng(5)
    params = oracle.random_system(rng, 1, 3)
    n_series, steps = 21, 7
    pattern = torch.tensor([0] * 14 + [1, 2, 3, 4, 5, 6, 7])
    linear = torch.from_numpy(rng.normal(size=(n_series, steps, 3)))
    precision = torch.from_numpy(rng.gamma(1.0, size=(8, steps, 3)))
    few = lds.filter_states(params, lds.Potentials(linear, precision, pattern))
    each = lds.filter_states(params, lds.Potentials(linear, precision[pattern]))
    assert few.layout.expand is not None
    assert few.filtered_covariance.shape[0] == 8
    torch.testing.assert_close(few.log_normalizer, each.log_normalizer)
    mean = lds.smooth(params, few).smoothed_mean
    torch.testing.assert_close(mean, lds.smooth(params, each).smoothed_mean)
    draws = lds.sample_posterior(params, few, torch.Generator().manual_seed(1), 2)
    same = lds.sample_posterior(params, each, torch.Generator().manual_seed(1), 2)
    torch.testing.assert_close(draws, same)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_statsmodels_smoother_with_missing_values(oracle, size):
    from statsmodels.tsa.statespace.mlemodel import MLEModel

    rng = np.random.default_rng(size)
    params = oracle.random_system(rng, 1, size)
    params = params._replace(bias=torch.zeros_like(params.bias))
    p = oracle.dense_arrays(params)
    steps, n_features = 40, 3
    c = rng.normal(size=(n_features, size))
    noise = rng.gamma(2.0, size=n_features)
    x = rng.normal(size=(steps, n_features)) * 2.0
    x[rng.random(x.shape) < 0.4] = np.nan
    x[10:14] = np.nan
    model = MLEModel(x, k_states=size, initialization="known",
                     initial_state=p["mu0"], initial_state_cov=p["S0"])  # fmt: skip
    model["design"], model["obs_cov"] = c, np.diag(noise)
    model["transition"], model["selection"], model["state_cov"] = p["A"], np.eye(size), p["Q"]
    reference = model.ssm.smooth()

    tensor = torch.from_numpy(x)[None]
    mask = ~tensor.isnan()
    potentials = lds.emission_potentials(torch.from_numpy(c), torch.from_numpy(noise), tensor, mask)
    filtered = lds.filter_states(params, potentials)
    smoothed = lds.smooth(params, filtered)
    check = oracle.relative
    assert check(filtered.filtered_mean[0], reference.filtered_state.T) <= 1e-8
    assert (
        check(
            filtered.filtered_covariance[0, :, 0], reference.filtered_state_cov.transpose(2, 0, 1)
        )
        <= 1e-8
    )
    assert check(smoothed.smoothed_mean[0], reference.smoothed_state.T) <= 1e-8
    assert (
        check(
            smoothed.smoothed_covariance[0, :, 0], reference.smoothed_state_cov.transpose(2, 0, 1)
        )
        <= 1e-8
    )
    seen = mask[0].double().numpy()
    log_scale = -0.5 * (seen * (np.log(2 * np.pi * noise) + np.nan_to_num(x) ** 2 / noise)).sum()
    assert abs(filtered.log_normalizer.item() + log_scale - reference.llf) <= 1e-8 * abs(
        reference.llf
    )


@pytest.mark.parametrize("group_size", [None, 1])
def test_emission_potentials_of_grouped_emissions(group_size):
    rng = np.random.default_rng(0)
    c = torch.diag(torch.from_numpy(rng.normal(size=3)))
    x = torch.from_numpy(rng.normal(size=(2, 4, 3)))
    mask = torch.from_numpy(rng.random((2, 4, 3)) < 0.5)
    potentials = lds.emission_potentials(
        c, torch.ones(3).double(), x, mask, torch.ones(3).double(), group_size
    )
    expected = mask * c.diagonal().square()
    got = potentials.precision
    got = got.diagonal(dim1=-2, dim2=-1) if group_size is None else got[..., 0, 0]
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(potentials.linear, mask * c.diagonal() * (x - 1.0))


def test_combine_adds_potentials_over_different_patterns():
    linear = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    one = lds.Potentials(linear, torch.rand(2, 3, 2), torch.tensor([0, 1, 1, 0]))
    two = lds.Potentials(linear, torch.rand(2, 3, 2), torch.tensor([0, 0, 1, 0]))
    both = lds.combine(one, two)
    want = one.precision[one.pattern] + two.precision[two.pattern]
    assert both.precision.shape[0] == 3
    torch.testing.assert_close(both.precision[both.pattern], want)
    torch.testing.assert_close(both.linear, 2 * linear)
    shared = lds.combine(one, lds.Potentials(linear, torch.ones(1, 3, 2)))
    torch.testing.assert_close(shared.precision, one.precision + 1)
    assert torch.equal(shared.pattern, one.pattern)


def test_wrong_shapes_are_named(oracle):
    params = oracle.random_system(np.random.default_rng(0), 2, 2, 1)
    linear = torch.zeros(3, 5, 4, dtype=torch.float64)
    good = lds.Potentials(linear, linear[:1] + 1)
    inputs = torch.zeros(3, 5, 1, dtype=torch.float64)
    lds.filter_states(params, good, inputs)
    bad = [
        (good._replace(linear=linear[..., :3]), inputs, None, "linear"),
        (good._replace(precision=linear[:2]), inputs, None, "pattern"),
        (good._replace(precision=linear[:1, :4]), inputs, None, "steps"),
        (good._replace(precision=torch.eye(4).expand(1, 5, 4, 4)), inputs, None, "to_dense"),
        (good._replace(precision=linear[..., :3]), inputs, None, "precision"),
        (good._replace(pattern=torch.zeros(2, dtype=torch.long)), inputs, None, "pattern"),
        (good, None, None, "inputs"),
        (good, inputs[..., :0], None, "inputs"),
        (good, inputs, torch.tensor([5]), "lengths"),
    ]
    for potentials, given, lengths, word in bad:
        with pytest.raises(ValueError, match=word):
            lds.filter_states(params, potentials, given, lengths)
    last = lds.final_state(lds.filter_states(params, good, inputs))
    with pytest.raises(ValueError, match="horizon"):
        lds.forecast_states(params, last.mean, last.covariance, 0)
    with pytest.raises(ValueError, match="covariance"):
        lds.forecast_states(params, last.mean, last.covariance[:, :1], 2, inputs[:, :2])
    with pytest.raises(ValueError, match="mean"):
        lds.forecast_states(params, last.mean[:, :3], last.covariance, 2, inputs[:, :2])
    with pytest.raises(ValueError, match="Generator"):
        lds.sample_forecast(params, last.mean, last.covariance, 2, inputs=inputs[:, :2])
    with pytest.raises(ValueError, match="noise_covariance"):
        lds.make_parameters(torch.eye(2), torch.eye(3))
    with pytest.raises(ValueError, match="forms"):
        lds.combine(good, good._replace(precision=torch.eye(4).expand(1, 5, 4, 4)))
