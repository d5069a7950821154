"""Settled recursions, chunks of means, precision of the elimination, growth of the work."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tsvae import lds
from tsvae.lds import filtering, joint_elimination, scans, small_recursions, steady, stepping
from tsvae.lds.scans import affine_loop, congruence_loop
from tsvae.lds.steady import Run, common_runs, constant_affine, equal_runs, mirrored


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_affine(matrices, constants, reverse):
    states, past = {}, None
    for t in range(len(constants))[:: -1 if reverse else 1]:
        past = constants[t] if past is None else past @ matrices[t] + constants[t]
        states[t] = past
    return torch.stack([states[t] for t in sorted(states)])


def test_runs_are_where_nothing_changes():
    values = torch.zeros(100, 3)
    values[40, 2] = 1.0
    values[90:] = 2.0
    assert equal_runs(values) == [Run(0, 40), Run(41, 90)]
    assert equal_runs(values[:, :2]) == [Run(0, 90)]
    assert equal_runs(values, draw(100, 2)) == []
    assert equal_runs(values[:5]) == []
    assert equal_runs(values[:1].expand(50, 3)) == [Run(0, 50)]
    assert mirrored([Run(0, 40), Run(41, 90)], 100) == [Run(10, 59), Run(60, 100)]
    assert common_runs([Run(0, 40), Run(41, 90)], [Run(20, 60)]) == [Run(20, 40), Run(41, 60)]


@pytest.mark.parametrize("steps", [1, 47, 48, 50, 200])
@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_of_means_equal_the_loop(steps, reverse):
    matrix, constants, past = 0.5 * draw(2, 3, 3), draw(steps, 2, 4, 3), draw(2, 4, 3, seed=1)
    matrices = matrix.expand(steps + 1, 2, 3, 3)
    if reverse:
        want = slow_affine(matrices, torch.cat((constants, past[None])), True)[:-1]
    else:
        want = slow_affine(matrices, torch.cat((past[None], constants)), False)[1:]
    torch.testing.assert_close(constant_affine(matrix, constants, past, reverse), want)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("of_past", [False, True])
def test_loops_with_runs_equal_plain_ones(reverse, of_past):
    """Runs at the start, in the middle and up to the end."""
    lengths = torch.tensor([70, 1, 60, 5, 20, 90])
    matrices = (0.3 * draw(6, 2, 3, 3)).repeat_interleave(lengths, dim=0)
    n = len(matrices)
    rows = draw(n, 2, 4, 3)
    used = matrices.roll(-1 if reverse else 1, dims=0) if of_past else matrices
    want = slow_affine(used, rows, reverse)
    torch.testing.assert_close(affine_loop(matrices, rows, reverse, of_past), want)

    lengths = torch.tensor([60, 11, 60, 5, 20, 90])
    constants = draw(6, 2, 3, 3, seed=2).repeat_interleave(lengths, dim=0)
    states, past = {}, None
    for t in range(n)[:: -1 if reverse else 1]:
        past = constants[t] if past is None else used[t] @ past @ used[t].mT + constants[t]
        states[t] = past
    want = torch.stack([states[t] for t in range(n)])
    got = congruence_loop(matrices, constants, reverse, of_past)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)
    assert torch.equal(congruence_loop(matrices, constants, reverse, of_past, out=constants), got)


def problem(steps, size, slow=0.97, precision=1.0, noise=0.1):
    skew = draw(size, size)
    turn = torch.linalg.matrix_exp((skew - skew.T) / size**0.5)
    params = lds.make_parameters(slow * turn, noise * torch.eye(size).double())
    weights = torch.full((1, steps, size), precision, dtype=torch.float64)
    return params, lds.Potentials(draw(3, steps, size, seed=3), weights)


def outcome(params, potentials):
    leaves = [
        x.clone().requires_grad_()
        for x in (params.transition_matrix, params.noise_covariance, *potentials[:2])
    ]
    params = params._replace(transition_matrix=leaves[0], noise_covariance=leaves[1])
    filtered = lds.filter_states(params, lds.Potentials(*leaves[2:]))
    smoothed = lds.smooth(params, filtered)
    kl = lds.local_kl(params, filtered, smoothed)
    total = kl.sum() + smoothed.smoothed_mean.square().sum() + filtered.log_normalizer.sum()
    grads = torch.autograd.grad(total, leaves)
    return (smoothed.smoothed_mean, smoothed.smoothed_covariance, kl, *grads)


@pytest.mark.parametrize("slow", [0.5, 0.97, 0.9999])
def test_settled_covariances_equal_unsettled_ones(monkeypatch, slow):
    params, potentials = problem(300, 4, slow=slow, precision=0.05)
    got = outcome(params, potentials)
    for module in (scans, joint_elimination):
        monkeypatch.setattr(module, "equal_runs", lambda *values: [])
    want = outcome(params, potentials)
    for one, two in zip(got, want, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_matrix_of_few_steps_settles_too(oracle, monkeypatch, dtype):
    """A look at one matrix on the host is cheap."""
    steps, factors = 24, []
    given = [oracle.cast(part, dtype) for part in problem(steps, 12, slow=0.9, precision=30.0)]
    once = stepping.InverseRoots.__call__

    def counted(self, step):
        factors.append(step)
        return once(self, step)

    monkeypatch.setattr(stepping.InverseRoots, "__call__", counted)
    got = outcome(*given)
    assert 0 < len(factors) < steps - 6
    monkeypatch.setattr(joint_elimination, "equal_runs", lambda *values: [])
    want = outcome(*given)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-11
    for one, two in zip(got, want, strict=True):
        assert oracle.relative(one.detach(), two.detach()) <= tolerance


def test_float32_of_slow_states_takes_float64_inside(oracle):
    """P / Q of ten thousand and more: rounding in float32 would leave little of Omega."""
    given = problem(2000, 3, slow=0.99999, noise=1e-5, precision=1e-3)
    given = [oracle.cast(oracle.cast(part, torch.float32), torch.float64) for part in given]
    want = outcome(*given)
    got = outcome(*(oracle.cast(part, torch.float32) for part in given))
    for one, two in zip(got[:3], want[:3], strict=True):
        assert oracle.relative(one.detach(), two.detach()) <= 1e-2


def known_ever_better(steps):
    """A restless level, a slope that stays and waves that hardly change, as one group."""
    turns = []
    for period in (11.95, 5.97, 3.98, 2.99, 2.39):
        angle = torch.tensor(2 * torch.pi / period, dtype=torch.float64)
        turns.append(torch.stack((angle.cos(), angle.sin(), -angle.sin(), angle.cos())).view(2, 2))
    trend = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    transition = torch.block_diag(trend, *turns)
    size = len(transition)
    noise = torch.tensor([0.05, 1e-8] + [8e-7] * (size - 2), dtype=torch.float64).diag()
    initial = torch.tensor([100.0, 0.3] + [3.0] * (size - 2), dtype=torch.float64).diag()
    emission = torch.tensor([1.0, 0.0] * (size // 2), dtype=torch.float64)[None]
    params = lds.make_parameters(transition, noise, initial_covariance=initial)
    x = draw(1, steps, 1, seed=2)
    seen = torch.ones(1, steps, 1, dtype=torch.bool)
    return params, lds.emission_potentials(emission, torch.ones(1).double(), x, seen), x, emission


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-3), (torch.float64, 1e-7)])
def test_what_becomes_known_ever_better_does_not_settle(oracle, dtype, near):
    """Little process noise: the filter against gains written out, covariance by covariance."""
    steps = 160
    params, potentials, x, emission = known_ever_better(steps)
    found = lds.filter_states(oracle.cast(params, dtype), oracle.cast(potentials, dtype))
    transition, noise = params.transition_matrix[0], params.noise_covariance[0]
    mean, covariance = torch.zeros(len(transition)).double(), params.initial_covariance[0]
    for t in range(steps):
        gain = covariance @ emission[0] / (1.0 + emission[0] @ covariance @ emission[0])
        mean = mean + gain * (x[0, t, 0] - emission[0] @ mean)
        kept = torch.eye(len(mean)).double() - gain[:, None] * emission
        covariance = kept @ covariance @ kept.T + gain[:, None] * gain
        root = torch.linalg.cholesky(covariance)
        off = found.filtered_covariance[0, t, 0].double() - covariance
        moved = torch.linalg.solve_triangular(root, off, upper=False)
        moved = torch.linalg.solve_triangular(root, moved.T, upper=False)
        assert float(moved.norm()) < 30 * near
        torch.testing.assert_close(found.filtered_mean[0, t].double(), mean, rtol=near, atol=near)
        mean, covariance = transition @ mean, transition @ covariance @ transition.T + noise


@pytest.mark.parametrize(("groups", "size", "steps"), [(3, 2, 100_000), (1, 4, 10_000)])
def test_long_float32_with_precisions_of_ten_orders(oracle, groups, size, steps):
    skew = draw(groups, size, size)
    a = 0.999 * torch.linalg.matrix_exp(skew - skew.mT)
    params = lds.make_parameters(a, 0.1 * torch.eye(size).double().repeat(groups, 1, 1))
    shape = (1, steps, groups * size)
    generator = torch.Generator().manual_seed(0)
    scale = 10.0 ** (10 * torch.rand(shape, generator=generator, dtype=torch.float64) - 5)
    scale *= torch.rand(shape[:2], generator=generator).unsqueeze(-1) < 0.5
    at = draw(*shape, seed=4)
    found = []
    with torch.no_grad():
        for dtype in (torch.float32, torch.float64):
            given = oracle.cast(oracle.cast(params, torch.float32), dtype)
            pair = [x.float().to(dtype) for x in (scale * at, scale)]
            smoothed = lds.smooth(given, lds.filter_states(given, lds.Potentials(*pair)))
            found.append((smoothed.smoothed_mean, smoothed.smoothed_covariance))
    for got, want in zip(*found, strict=True):
        assert torch.isfinite(got).all()
        assert oracle.relative(got, want) <= 1e-2
    spread = found[0][1].double()
    scaled = spread.diagonal(dim1=-2, dim2=-1).rsqrt()
    spread = spread * scaled.unsqueeze(-1) * scaled.unsqueeze(-2)
    assert torch.linalg.eigvalsh(spread).min() > 0


class Counter(TorchDispatchMode):
    """Counts operations."""

    def __init__(self):
        super().__init__()
        self.total = self.factors = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.total += 1
        self.factors += "cholesky_ex" in str(function)
        return function(*args, **(kwargs or {}))


def operations(n_series, steps, groups, size, *, own=False):
    """Operations of what a training step asks of inference, forward and backward."""
    eye = torch.eye(size).repeat(groups, 1, 1)
    params = lds.make_parameters(0.9 * eye, eye)
    linear = torch.ones(n_series, steps, groups * size, requires_grad=True)
    weights = torch.ones(n_series if own else 1, steps, groups * size)
    if own:
        weights += torch.rand(weights.shape, generator=torch.Generator().manual_seed(0))
    with Counter() as counter:
        filtered = lds.filter_states(params, lds.Potentials(linear, weights))
        smoothed = lds.smooth(params, filtered)
        z = lds.sample_posterior(params, filtered, torch.Generator().manual_seed(0))
        (lds.local_kl(params, filtered, smoothed).sum() + z.sum()).backward()
    return counter.total


def test_operations_do_not_grow_with_series_or_settled_steps(monkeypatch):
    """Their time is the machine's, their number is ours."""
    monkeypatch.setattr(small_recursions, "LARGEST", 0)  # numpy's are not counted
    few = operations(2, 200, 2, 2)
    assert operations(50, 200, 2, 2) == few
    assert operations(2, 800, 2, 2) <= 1.6 * few  # two levels more of the reduction
    assert operations(50, 200, 2, 2, own=True) <= 2 * few
    dense = operations(2, 200, 1, 4)
    assert operations(50, 200, 1, 4) <= 1.2 * dense
    assert operations(2, 3200, 1, 4) <= 5 * dense  # chunks: the root of T
    assert operations(2, 400, 1, 4, own=True) <= 2.2 * operations(2, 200, 1, 4, own=True)


@pytest.mark.parametrize("steps", [24, 200])
def test_one_elimination_serves_draws_and_posterior(steps):
    """Whichever is asked for first."""
    counts = []
    for draws_first in (False, True):
        params, potentials = problem(steps, 4)
        potentials = potentials._replace(precision=potentials.precision.expand(3, -1, -1).clone())
        potentials.precision.mul_(1.0 + draw(3, steps, 4).abs())
        with Counter() as counter:
            filtered = lds.filter_states(params, potentials)
            for draws_now in (draws_first, not draws_first):
                if draws_now:
                    lds.sample_posterior(params, filtered, torch.Generator().manual_seed(0))
                else:
                    lds.local_kl(params, filtered, lds.smooth(params, filtered))
        counts.append(counter.factors)
    assert counts[0] == counts[1]


def test_the_way_fits_the_shape():
    assert operations(5, 24, 25, 2) <= 500
    assert filtering.ways(24, 2, 25)[0] == "short"
    assert filtering.ways(24, 2, 125)[0] == "joint"
    assert filtering.ways(24, 2, 10_000)[0] == "planes"
    assert filtering.ways(1000, 2, 16)[0] == "planes"
    assert filtering.ways(1000, 32, 1)[0] == "joint"


def test_views_are_made_in_blocks():
    values = torch.arange(1000)
    views = steady.Steps(values)
    assert [int(views[i]) for i in (0, 999, 63, 64, 500)] == [0, 999, 63, 64, 500]
    assert len(views.views) <= steady.VIEWS
