"""Expected parameters, chain ends, local KL, gradients and extreme precisions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import block_diag

from tsvae import lds
from tsvae.lds import priors
from tsvae.lds.joint_prior import prior_precisions
from tsvae.lds.linalg import spectral_radius
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.scans import affine_scan, congruence_scan, covariance_recursion


def _random_posterior(rng, groups, size, n_inputs):
    n = size + n_inputs + 1

    def spd(k, scale):
        root = rng.normal(size=(groups, k, k))
        return torch.from_numpy(scale * (root @ root.transpose(0, 2, 1) + k * np.eye(k)))

    degrees = torch.from_numpy(size + 2 + 3 * rng.random(groups))
    mean = torch.from_numpy(0.4 * rng.normal(size=(groups, size, n)))
    transition = lds.MNIW(spd(size, 1.0), degrees, mean, spd(n, 2.0))
    initial = lds.NIW(
        spd(size, 1.0),
        degrees + 1,
        torch.from_numpy(rng.normal(size=(groups, size))),
        torch.from_numpy(1.0 + rng.random(groups)),
    )
    return initial, transition


def _analytic_statistics(initial, transition):
    """E_q(theta) statistics from the textbook moments, dense over groups."""
    groups, size, n = transition.mean.shape
    rest = n - size
    dim = groups * size
    w = block_diag(
        *[
            transition.degrees_of_freedom[g].item() * np.linalg.inv(transition.scale[g].numpy())
            for g in range(groups)
        ]
    )
    m = np.zeros((dim, dim + rest))
    outer = np.zeros((dim + rest, dim + rest))
    plug = np.zeros_like(outer)
    log_det = log_det0 = mm0 = 0.0
    w0, wm0 = [], []
    for g in range(groups):
        part = slice(g * size, (g + 1) * size)
        index = np.r_[np.arange(g * size, (g + 1) * size), np.arange(dim, dim + rest)]
        mean = transition.mean[g].numpy()
        m[part, index] = mean
        inner = mean.T @ w[part, part] @ mean
        plug[np.ix_(index, index)] += inner
        extra = size * np.linalg.inv(transition.precision[g].numpy())
        outer[np.ix_(index, index)] += inner + extra
        nu, scale = transition.degrees_of_freedom[g].item(), transition.scale[g].numpy()
        log_det += _log_det(nu, scale)
        nu, scale = initial.degrees_of_freedom[g].item(), initial.scale[g].numpy()
        mu, first = initial.mean[g].numpy(), nu * np.linalg.inv(scale)
        w0.append(first)
        wm0.append(first @ mu)
        mm0 += mu @ first @ mu + size / initial.strength[g].item()
        log_det0 += _log_det(nu, scale)
    first = (block_diag(*w0), np.concatenate(wm0), mm0, log_det0)
    return (w, w @ m, outer, log_det, plug), first


def _log_det(nu, scale):
    from scipy.special import digamma

    size = len(scale)
    total = sum(digamma((nu - i) / 2) for i in range(size))
    return total + size * np.log(2) - np.linalg.slogdet(scale)[1]


@pytest.mark.parametrize(("groups", "size"), [(1, 1), (1, 2), (3, 1), (2, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("sharing", ["shared", "own", "indexed"])
def test_expected_parameters_match_dense_expected_density(oracle, groups, size, sharing):
    rng = np.random.default_rng(groups * 10 + size)
    n_series, steps, n_inputs = 4, 9, 2
    initial, transition = _random_posterior(rng, groups, size, n_inputs)
    params = lds.expected_parameters(initial, transition)
    potentials = oracle.random_potentials(rng, "block", sharing, n_series, steps, groups, size)
    lengths = torch.tensor([9, 7, 1, 4])
    keep = (torch.arange(steps) < lengths[:, None]).double()
    precision = potentials.precision
    if sharing == "own":
        precision = precision * keep[:, :, None, None, None]
    potentials = potentials._replace(
        linear=potentials.linear * keep[..., None], precision=precision
    )
    inputs = torch.from_numpy(rng.normal(size=(n_series, steps, n_inputs)))
    filtered = lds.filter_states(params, potentials, inputs, lengths)
    smoothed = lds.smooth(params, filtered)
    kl = lds.local_kl(params, filtered, smoothed)
    naive = lds.local_kl_from_normalizer(potentials, smoothed, filtered.log_normalizer)
    torch.testing.assert_close(kl, naive, rtol=1e-8, atol=1e-8)

    statistics, first = _analytic_statistics(initial, transition)
    dense = oracle.dense_precisions(potentials, n_series, groups, size)
    covariances = oracle.spread(smoothed.smoothed_covariance, smoothed.pattern, n_series)
    cross = oracle.spread(smoothed.cross_covariance, smoothed.pattern, n_series)
    dim = groups * size
    for i in range(n_series):
        information = oracle.dense_information(
            statistics, first, inputs[i].numpy(), int(lengths[i]), steps
        )
        mean, covariance, log_z = oracle.condition(
            information, dense[i], potentials.linear[i].numpy()
        )
        four = covariance.reshape(steps, dim, steps, dim)
        want = np.stack([oracle.blocks(four[t, :, t], groups, size) for t in range(steps)])
        lag = np.stack([oracle.blocks(four[t, :, t + 1], groups, size) for t in range(steps - 1)])
        assert oracle.relative(smoothed.smoothed_mean[i].flatten(), mean) <= 1e-8
        assert oracle.relative(covariances[i], want) <= 1e-8
        assert oracle.relative(cross[i], lag) <= 1e-8
        assert abs(filtered.log_normalizer[i].item() - log_z) <= 1e-8 * max(1.0, abs(log_z))


def test_expected_density_against_monte_carlo():
    """The plug-in + excess split equals the average of log p over draws of theta."""
    rng = np.random.default_rng(3)
    initial, transition = _random_posterior(rng, 1, 2, 1)
    params = lds.expected_parameters(initial, transition)
    excess = params.excess
    now, before = rng.normal(size=2), rng.normal(size=2)
    w = np.concatenate([before, rng.normal(size=1), [1.0]])
    draws = 200_000
    q = stats.invwishart(transition.degrees_of_freedom.item(), transition.scale[0].numpy()).rvs(
        draws, random_state=rng
    )
    rows = np.linalg.cholesky(np.linalg.inv(transition.precision[0].numpy()))
    noise = np.linalg.cholesky(q) @ rng.normal(size=(draws, 2, 4)) @ rows.T
    theta = transition.mean[0].numpy() + noise
    error = now - theta @ w
    values = -0.5 * np.einsum("si,sij,sj->s", error, np.linalg.inv(q), error)
    values = values - 0.5 * np.linalg.slogdet(q)[1] - np.log(2 * np.pi)
    mean = transition.mean[0].numpy() @ w
    plug = stats.multivariate_normal(mean, params.noise_covariance[0].numpy()).logpdf(now)
    got = plug + excess.transition_constant.item() - 0.5 * w @ excess.precision[0].numpy() @ w
    assert abs(got - values.mean()) < 5 * values.std() / np.sqrt(draws)


@pytest.mark.parametrize("posterior", ["natural", "point"])
@pytest.mark.parametrize(("group_size", "sharing"), [(4, "own"), (2, "shared"), (1, "indexed")])
def test_padding_changes_nothing(oracle, posterior, group_size, sharing):
    rng = np.random.default_rng(11)
    n_series, steps, pad, dim, horizon = 4, 12, 24, 4, 5
    start = oracle.random_system(rng, dim // group_size, group_size, 1)
    theta = lds.LinearDynamicsPosterior(
        dim, group_size=group_size, n_inputs=1, posterior=posterior, start=start, strength=5.0,
        dtype=torch.float64,
    )  # fmt: skip
    potentials = oracle.random_potentials(
        rng, "diagonal", sharing, n_series, steps, dim // group_size, group_size
    )
    inputs = torch.from_numpy(rng.normal(size=(n_series, steps + pad + horizon, 1)))
    lengths = torch.tensor([12, 10, 12, 7]) if sharing != "shared" else torch.full((4,), 12)
    keep = (torch.arange(steps) < lengths[:, None]).double()[..., None]
    precision = potentials.precision * (keep if sharing == "own" else 1.0)
    if sharing == "indexed":
        precision = potentials.precision[potentials.pattern] * keep
        potentials = potentials._replace(pattern=None)
    linear = potentials.linear * keep

    def run(extra):
        shape = (0, 0, 0, extra)
        longer = lds.Potentials(
            torch.nn.functional.pad(linear, shape), torch.nn.functional.pad(precision, shape)
        )
        params = theta.parameters_for_inference()
        filtered = lds.filter_states(params, longer, inputs[:, : steps + extra], lengths)
        smoothed = lds.smooth(params, filtered)
        last = lds.final_state(filtered, lengths)
        rolled = lds.forecast_states(
            theta.plug_in(), last.mean, last.covariance, horizon, inputs[:, :horizon]
        )
        return filtered, smoothed, lds.local_kl(params, filtered, smoothed), rolled

    short, long = run(0), run(pad)
    inside = keep.expand_as(linear) > 0
    pairs = [
        (short[0].log_normalizer, long[0].log_normalizer),
        (short[1].smoothed_mean[inside], long[1].smoothed_mean[:, :steps][inside]),
        (short[2], long[2]),
        (short[3].mean, long[3].mean),
        (short[3].covariance, long[3].covariance),
    ]
    for one, two in pairs:
        assert (one - two).abs().max() <= 1e-9


def test_excess_on_padding_would_pull_the_state():
    """The trap itself: with the chain's end ignored, padding does move the last state."""
    theta = lds.LinearDynamicsPosterior(2, strength=3.0, dtype=torch.float64)
    linear = torch.zeros(1, 30, 2, dtype=torch.float64)
    linear[:, :6] = 3.0
    potentials = lds.Potentials(linear, (linear != 0).double())
    params = theta.parameters_for_inference()
    right = lds.smooth(params, lds.filter_states(params, potentials, None, torch.tensor([6])))
    wrong = lds.smooth(params, lds.filter_states(params, potentials))
    gap = (right.smoothed_mean - wrong.smoothed_mean)[:, 5].abs().max()
    assert gap > 1e-2


@pytest.mark.parametrize(("groups", "size"), [(2, 1), (2, 2), (1, 3)])
def test_gradients_of_every_result(oracle, groups, size):
    rng = np.random.default_rng(size)
    n_series, steps, dim = 2, 4, groups * size
    base = oracle.random_system(rng, groups, size, 1)
    n = size + 2
    root = torch.from_numpy(rng.normal(size=(groups, n, n)))
    precision = torch.from_numpy(rng.normal(size=(n_series, steps, groups, size, size)))
    inputs = torch.from_numpy(rng.normal(size=(n_series, steps, 1))).requires_grad_()
    linear = torch.from_numpy(rng.normal(size=(n_series, steps, dim))).requires_grad_()
    lengths = torch.tensor([4, 3])
    leaves = [p.clone().requires_grad_() for p in base[:6]] + [linear, inputs, precision, root]
    for leaf in leaves:
        leaf.requires_grad_()

    def loss(mu, s0, a, q, b, bias, h, u, lam_root, excess_root):
        lam = lam_root @ lam_root.mT
        sym = [0.5 * (x + x.mT) for x in (s0, q)]
        excess = lds.Excess(excess_root @ excess_root.mT, mu.sum(1) * 0 + 0.3, mu.sum(1) * 0 - 0.2)
        params = LDSParameters(mu, sym[0], a, sym[1], b, bias, excess)
        filtered = lds.filter_states(params, lds.Potentials(h, lam), u, lengths)
        smoothed = lds.smooth(params, filtered)
        last = lds.final_state(filtered, lengths)
        ahead = lds.forecast_states(params, last.mean, last.covariance, 3, u[:, :3])
        draws = lds.sample_posterior(params, filtered, torch.Generator().manual_seed(0), 2)
        paths = lds.sample_forecast(
            params, last.mean, last.covariance, 3, torch.Generator().manual_seed(0), 2, u[:, :3]
        )
        weight = torch.arange(1.0, 1.0 + draws.numel(), dtype=draws.dtype).sin()
        return (
            filtered.log_normalizer,
            lds.local_kl(params, filtered, smoothed),
            smoothed.smoothed_covariance.square().sum() + smoothed.cross_covariance.sum(),
            (draws.flatten() * weight).sum() + paths.square().sum(),
            ahead.mean.square().sum() + ahead.covariance.square().sum(),
        )

    assert torch.autograd.gradcheck(loss, leaves, eps=1e-6, atol=1e-5, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_scans_and_riccati_pass_full_gradcheck(size, steps):
    generator = torch.Generator().manual_seed(size)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    for reverse in (False, True):
        matrices = draw(steps, 2, size, size)
        assert torch.autograd.gradcheck(
            lambda f, g, back=reverse: affine_scan(f, g, back), (matrices, draw(steps, 2, 3, size))
        )

        def quadratic(f, c, back=reverse):
            return congruence_scan(f, c @ c.mT, back)

        assert torch.autograd.gradcheck(quadratic, (matrices, draw(steps, 2, size, size)))

    def recursion(a, q, p, lam):
        return tuple(covariance_recursion(a, q @ q.mT + torch.eye(size), p @ p.mT, lam @ lam.mT))

    leaves = (draw(2, size, size), draw(2, size, size), draw(2, size, size),
              draw(steps, 2, size, size))  # fmt: skip
    assert torch.autograd.gradcheck(recursion, leaves)


@pytest.mark.parametrize("size", [1, 3])
def test_inverses_of_the_prior_equal_autograds(oracle, size):
    params = oracle.random_system(np.random.default_rng(0), 2, size)
    steps = 7

    def direct(root, initial_root, a):
        noise, first = root @ root.mT, initial_root @ initial_root.mT
        arriving, initial = torch.linalg.inv(noise), torch.linalg.inv(first)
        factors = [torch.linalg.inv(torch.linalg.cholesky(x)) for x in (first, noise)]
        log_det = -(torch.logdet(first) + (steps - 1) * torch.logdet(noise)).sum()
        return initial, arriving, arriving @ a, a.mT @ arriving @ a, *factors, log_det

    def ours(root, initial_root, a):
        own = params._replace(
            noise_covariance=root @ root.mT,
            initial_covariance=initial_root @ initial_root.mT,
            transition_matrix=a,
        )
        prior = prior_precisions(own, steps)
        return *prior.blocks, *prior.roots, prior.log_det

    leaves = [
        torch.linalg.cholesky(params.noise_covariance),
        torch.linalg.cholesky(params.initial_covariance),
        params.transition_matrix,
    ]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    for got, want in zip(ours(*leaves), direct(*leaves), strict=True):
        torch.testing.assert_close(got, want)
        weight = torch.randn_like(want)
        one, two = (
            torch.autograd.grad(x, leaves, weight, retain_graph=True, allow_unused=True)
            for x in (got, want)
        )
        for a, b in zip(one, two, strict=True):
            zero = torch.zeros(())
            a, b = (zero if x is None else x for x in (a, b))
            torch.testing.assert_close(a + torch.zeros_like(b), b + torch.zeros_like(a))


def test_gradient_of_log_normalizer_is_the_expected_statistics(oracle):
    rng = np.random.default_rng(0)
    params = oracle.random_system(rng, 2, 3)
    potentials = oracle.random_potentials(rng, "diagonal", "own", 3, 15, 2, 3)
    h, lam = potentials.linear.requires_grad_(), potentials.precision.requires_grad_()
    filtered = lds.filter_states(params, lds.Potentials(h, lam))
    smoothed = lds.smooth(params, filtered)
    grads = torch.autograd.grad(filtered.log_normalizer.sum(), (h, lam))
    second = lds.pairwise_moments(smoothed).outer.diagonal(dim1=-2, dim2=-1).flatten(2)
    torch.testing.assert_close(grads[0], smoothed.smoothed_mean)
    torch.testing.assert_close(grads[1], -0.5 * second)


@pytest.mark.parametrize("form", ["diagonal", "block"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_extreme_precisions_in_float32(oracle, size, form):
    rng = np.random.default_rng(size)
    groups, n_series, steps = 2, 3, 30
    params = oracle.cast(oracle.random_system(rng, groups, size), torch.float32)
    scale = 10.0 ** rng.uniform(-5, 5, size=(n_series, steps, groups * size))
    if form == "diagonal":
        precision = torch.from_numpy(scale).float()
    else:
        root = torch.from_numpy(rng.normal(size=(n_series, steps, groups, size, size))).float()
        spread = torch.from_numpy(scale).float().reshape(n_series, steps, groups, size, 1).sqrt()
        precision = (spread * root) @ (spread * root).mT
    where = torch.from_numpy(rng.normal(size=(n_series, steps, groups, size, 1))).float()
    blocks = lds.block_precision(precision, groups, size)
    linear = (blocks @ where).flatten(2).requires_grad_()
    precision.requires_grad_()
    filtered = lds.filter_states(params, lds.Potentials(linear, precision))
    smoothed = lds.smooth(params, filtered)
    draws = lds.sample_posterior(params, filtered, torch.Generator().manual_seed(0), 2)
    kl = lds.local_kl(params, filtered, smoothed)
    moments = (smoothed.smoothed_mean, smoothed.smoothed_covariance, smoothed.cross_covariance)
    for result in (*moments, draws, kl, filtered.log_normalizer):
        assert torch.isfinite(result).all()
    for covariance in (filtered.filtered_covariance, smoothed.smoothed_covariance):
        scaled = covariance.detach().double()
        inverse = scaled.diagonal(dim1=-2, dim2=-1).rsqrt()
        assert torch.isfinite(inverse).all()
        scaled = scaled * inverse.unsqueeze(-1) * inverse.unsqueeze(-2)
        assert torch.linalg.eigvalsh(scaled).min() > -1e-5
    (kl.sum() + draws.square().sum()).backward()
    assert torch.isfinite(linear.grad).all()
    assert torch.isfinite(precision.grad).all()

    wide = oracle.cast(params, torch.float64)
    exact = lds.filter_states(
        wide, lds.Potentials(linear.detach().double(), precision.detach().double())
    )
    reference = lds.smooth(wide, exact)
    spread = reference.smoothed_covariance
    assert oracle.relative(smoothed.smoothed_covariance.detach(), spread) <= 1e-3
    # A block precision of condition 1e10 already rounds h = Lambda z in its weak directions.
    tolerance = 1e-3 if form == "diagonal" else 5e-2
    mean = smoothed.smoothed_mean.detach()
    assert oracle.relative(mean, reference.smoothed_mean) <= tolerance
    if form == "diagonal":
        target = lds.local_kl(wide, exact, reference)
        assert oracle.relative(kl.detach(), target) <= 1e-3


def test_horizon_of_ten_thousand_is_finite():
    unit_root = torch.tensor([[[1.0, 1.0], [0.0, 1.0]], [[1.3, -0.4], [0.9, 1.1]]])
    start = lds.make_parameters(unit_root, torch.eye(2).repeat(2, 1, 1))
    theta = lds.LinearDynamicsPosterior(4, group_size=2, start=start)
    params = theta.plug_in()
    torch.testing.assert_close(params.transition_matrix[0], unit_root[0])
    ahead = lds.forecast_states(params, torch.ones(2, 4), torch.eye(2).repeat(1, 2, 1, 1), 10_000)
    assert torch.isfinite(ahead.mean).all() and torch.isfinite(ahead.covariance).all()


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_stabilize_caps_the_spectral_radius(size):
    generator = torch.Generator().manual_seed(size)
    a = 2.0 * torch.randn(20, size, size, generator=generator, dtype=torch.float64)
    radius = torch.linalg.eigvals(a).abs().amax(-1)
    capped = lds.stabilize(a, 0.95)
    after = torch.linalg.eigvals(capped).abs().amax(-1)
    torch.testing.assert_close(after, radius.clamp_max(0.95))
    inside = radius <= 0.95
    assert torch.equal(capped[inside], a[inside])
    a = a[:3].clone().requires_grad_()
    if size <= 2:
        assert torch.autograd.gradcheck(lds.stabilize, (a,))
    else:
        lds.stabilize(a).sum().backward()
        assert torch.isfinite(a.grad).all()
    assert lds.stabilize(a, None) is a


def test_expected_statistics_match_dense_moments(oracle):
    rng = np.random.default_rng(9)
    params = oracle.random_system(rng, 2, 2, 1)
    n_series, steps = 3, 6
    potentials = oracle.random_potentials(rng, "diagonal", "indexed", n_series, steps, 2, 2)
    inputs = torch.from_numpy(rng.normal(size=(n_series, steps, 1)))
    lengths = torch.tensor([6, 4, 0])
    smoothed = lds.smooth(params, lds.filter_states(params, potentials, inputs))
    got = lds.expected_statistics(params, smoothed, inputs, lengths)
    moments = lds.pairwise_moments(smoothed)
    mean = smoothed.smoothed_mean.reshape(n_series, steps, 2, 2)
    outer, mixed, regressor = (np.zeros((2, *s)) for s in ((2, 2), (2, 4), (4, 4)))
    for i in range(n_series):
        for t in range(1, int(lengths[i])):
            known = np.array([inputs[i, t, 0].item(), 1.0])
            for g in range(2):
                past, now = mean[i, t - 1, g].numpy(), mean[i, t, g].numpy()
                outer[g] += moments.outer[i, t, g].numpy()
                cross = moments.cross[i, t - 1, g].numpy().T
                mixed[g] += np.concatenate([cross, np.outer(now, known)], axis=1)
                top = np.concatenate(
                    [moments.outer[i, t - 1, g].numpy(), np.outer(past, known)], axis=1
                )
                below = np.concatenate([np.outer(known, past), np.outer(known, known)], axis=1)
                regressor[g] += np.concatenate([top, below])
    assert oracle.relative(got.transition.outcome_outer, outer) <= 1e-12
    assert oracle.relative(got.transition.outcome_regressor, mixed) <= 1e-12
    assert oracle.relative(got.transition.regressor_outer, regressor) <= 1e-12
    assert got.transition.n_observations.tolist() == [8.0, 8.0]
    assert got.initial.n_observations.tolist() == [2.0, 2.0]
    torch.testing.assert_close(got.initial.outcome_outer, moments.outer[:2, 0].sum(0))
    torch.testing.assert_close(got.initial.outcome_regressor[..., 0], mean[:2, 0].sum(0))
    posterior = priors.conjugate_update(
        priors.prior_from_hyperparameters(2, 2, 1, dtype=torch.float64).transition, got.transition
    )
    assert torch.linalg.eigvalsh(posterior.scale).min() > 0


def test_a_matrix_that_is_not_finite_has_no_radius_and_crashes_nothing():
    matrix = torch.eye(3).repeat(2, 1, 1)
    matrix[1, 0, 0] = torch.nan
    radius = spectral_radius(matrix)
    assert radius[0] == 1.0 and radius[1].isnan()
