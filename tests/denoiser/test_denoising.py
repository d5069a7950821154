"""Fit and densities of the denoiser against closed forms and slow sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from tsvae import VAEDenoiser
from tsvae._denoiser.batches import SignalBatches
from tsvae.training import Augmentation, WindowLoader

FAST = {
    "latent_dim": 2,
    "architecture": "mlp",
    "hidden_sizes": (8,),
    "max_epochs": 1,
    "n_importance_samples": 3,
    "random_state": 0,
}
N, T = 50, 10
RNG = np.random.default_rng(0)
CLEAN = np.sin(np.linspace(0, 6, T) + RNG.uniform(0, 6, (N, 1)))
NOISY = CLEAN + 0.3 * RNG.standard_normal((N, T))
GAPS = np.where(RNG.random((N, T)) < 0.2, np.nan, NOISY)


def small(**settings):
    return VAEDenoiser(**FAST | settings)


def scale_of(estimator):
    observation = estimator.model_.observation
    return float(observation.parameters_at(torch.zeros(1)).scale)


# -- densities --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear():
    """A linear model is probabilistic PCA: p(x) is a normal in closed form."""
    return small(
        hidden_sizes=(), max_epochs=15, self_supervision=None, n_importance_samples=2000
    ).fit(100.0 * GAPS)


def test_log_density_of_a_linear_model(linear):
    last = linear.model_.decoder.network.last
    weight, bias = (part.detach().double().numpy() for part in (last.weight, last.bias))
    scaler = linear._fit.scaler
    location, spread = scaler.location[:, 0], scaler.spread[:, 0]
    mean = location + spread * bias
    noise = scale_of(linear) ** 2 * np.eye(T)
    covariance = (weight @ weight.T + noise) * np.outer(spread, spread)
    expected = []
    for record in 100.0 * GAPS:
        seen = np.isfinite(record)
        law = stats.multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)])
        expected.append(law.logpdf(record[seen]))
    found = linear.score_samples(100.0 * GAPS)
    # A bound, but a close one: 2,000 codes leave little of the gap, and some Monte Carlo error.
    assert -0.02 * T < found.mean() - np.mean(expected) < 0.002 * T
    assert np.median(np.abs(found - expected)) < 0.1
    log_spread = (np.log(spread) * np.isfinite(GAPS)).sum()
    score = (np.sum(expected) + log_spread) / np.isfinite(GAPS).sum()
    assert linear.score(100.0 * GAPS) == pytest.approx(score, abs=0.03)


def test_densities_follow_the_units():
    first, second = small().fit(GAPS), small().fit(1000.0 * GAPS)
    shift = np.log(1000.0) * np.isfinite(GAPS).sum(axis=1)
    found = second.score_samples(1000.0 * GAPS)
    np.testing.assert_allclose(found, first.score_samples(GAPS) - shift, rtol=1e-4, atol=1e-3)
    assert second.score(1000.0 * GAPS) == pytest.approx(first.score(GAPS), rel=1e-4)


def test_more_codes_tighten_the_bound():
    estimator = small(max_epochs=3).fit(NOISY)
    bounds = []
    for n_samples in (1, 10, 300):
        bounds.append(estimator.set_params(n_importance_samples=n_samples).score(NOISY))
    assert bounds == sorted(bounds)


def test_an_outlier_is_a_surprise():
    estimator = small(max_epochs=5).fit(NOISY)
    odd = NOISY.copy()
    odd[7, 4] += 10.0
    surprise = estimator.anomaly_scores(odd)
    assert np.unravel_index(surprise.argmax(), surprise.shape) == (7, 4)
    assert estimator.score_samples(odd).argmin() == 7
    before = estimator.anomaly_scores(NOISY)
    np.testing.assert_array_equal(np.delete(surprise, 7, 0), np.delete(before, 7, 0))


def test_scores_of_stretches_are_means_over_the_windows_around_each_step():
    window, n_steps = 16, 60
    series = np.sin(np.arange(n_steps) / 2.0)[:, None] + 0.1 * RNG.standard_normal((n_steps, 1))
    estimator = small(window=window).fit(series)
    found = estimator.anomaly_scores(series)
    scale = scale_of(estimator)
    scaler = estimator._fit.scaler
    total, count = np.zeros(n_steps), np.zeros(n_steps)
    for start in range(n_steps - window + 1):  # 16 windows of 16 steps: one at each step
        part = scaler.forward(series[start : start + window], np.ones((window, 1), dtype=bool))
        x = torch.tensor(part)[None]
        with torch.no_grad():
            x_hat = estimator.model_.double().eval()(x).x_hat[0, 0].numpy()
        surprise = -stats.norm.logpdf(part, x_hat, scale).mean()
        total[start : start + window] += surprise
        count[start : start + window] += 1
    np.testing.assert_allclose(np.ravel(found), total / count, rtol=1e-5)
    steps = estimator.anomaly_scores(series, scope="step")
    assert np.shape(steps) == np.shape(found) and not np.allclose(steps, found)
    with pytest.raises(ValueError, match="scope must be 'auto', 'step' or 'window'"):
        estimator.anomaly_scores(series, scope="record")


# -- noise ------------------------------------------------------------------------------------


def residual(estimator, data):
    """Signal minus reconstruction, in model units, where observed."""
    scaler = estimator._fit.scaler
    rest = (data - estimator.reconstruct(data)) / scaler.spread[:, 0]
    return rest[np.isfinite(rest)]


def test_noise_is_that_of_the_signals_after_clean_targets():
    estimator = small(max_epochs=3).fit(GAPS, clean=CLEAN)
    rest = residual(estimator, GAPS)
    assert scale_of(estimator) == pytest.approx(np.sqrt(np.mean(rest**2)), rel=1e-4)
    laplace = small(max_epochs=3, likelihood="laplace").fit(GAPS, clean=CLEAN)
    assert scale_of(laplace) == pytest.approx(np.abs(residual(laplace, GAPS)).mean(), rel=1e-4)
    student = small(max_epochs=3, likelihood="student_t").fit(GAPS, clean=CLEAN)
    law = student.model_.observation
    variance = float(law.likelihood.variance(law.parameters_at(torch.zeros(1))))
    assert variance == pytest.approx(np.mean(residual(student, GAPS) ** 2), rel=1e-4)


def test_a_fixed_scale_stays():
    for clean in (None, CLEAN):
        assert scale_of(small(scale="fixed").fit(GAPS, clean=clean)) == pytest.approx(0.5)


def test_clean_targets_without_noise_leave_a_smallest_scale():
    estimator = small().fit(np.ones((N, T)), clean=np.ones((N, T)))
    assert scale_of(estimator) > 0.0
    assert np.isfinite(estimator.score_samples(np.ones((N, T)))).all()


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "student_t"])
def test_samples_with_noise_have_its_scale(likelihood):
    estimator = small(likelihood=likelihood, scaling="variable").fit(50.0 * NOISY)
    spread = float(estimator._fit.scaler.spread[0, 0])
    law = estimator.model_.observation
    variance = float(law.likelihood.variance(law.parameters_at(torch.zeros(1))))
    added = estimator.sample(4000, noise=True) - estimator.sample(4000)
    assert added.std() == pytest.approx(spread * np.sqrt(variance), rel=0.05)
    assert abs(added.mean()) < 0.05 * added.std()
    around = estimator.augment(NOISY, 40, noise=True) - estimator.augment(NOISY, 40)
    assert around.std() > 0.5 * added.std()


def test_samples_of_the_bernoulli_likelihood_are_ends_of_the_range():
    values = (NOISY > 0).astype(float)
    estimator = small(likelihood="bernoulli").fit(3.0 + 2.0 * values)
    assert set(np.unique(estimator.sample(50, noise=True))) == {3.0, 5.0}
    plain = estimator.sample(50)
    assert plain.min() > 3.0 and plain.max() < 5.0


def test_augment_draws_around_the_posterior():
    estimator = small(max_epochs=3).fit(NOISY)
    codes = estimator.sample_codes(NOISY, 3000)
    np.testing.assert_allclose(codes.mean(axis=0), estimator.encode(NOISY), atol=0.1)
    kl = 0.5 * (codes.mean(0) ** 2 + codes.var(0) - 1 - np.log(codes.var(0))).mean(axis=0)
    np.testing.assert_allclose(kl, estimator.kl_per_dimension_, rtol=0.1, atol=0.02)


# -- blind spots ------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [False, True], ids=["entries", "blocks"])
def test_exactly_the_hidden_entries_are_asked_for(blocks):
    hidden = {"n_blocks": 2, "block_length": 3} if blocks else {"random_fraction": 0.3}
    mask = torch.tensor(np.isfinite(GAPS))[..., None]
    loader = WindowLoader(
        torch.tensor(np.nan_to_num(GAPS), dtype=torch.float32)[..., None],
        mask,
        window=T,
        batch_size=10,
        augmentation=Augmentation(**hidden, shared=False),
    )
    batches = SignalBatches(loader, False, None, blind_spot=True)
    patterns, n_asked = set(), 0
    for batch in batches(0, torch.Generator().manual_seed(0)):
        asked, visible = batch["asked"], batch["visible"].expand_as(batch["mask"])
        assert torch.equal(asked | (visible & batch["mask"]), batch["mask"])
        assert not (asked & visible).any() and not (asked & ~batch["mask"]).any()
        patterns |= {tuple(row.ravel().tolist()) for row in visible}
        n_asked += int(asked.sum())
    assert len(patterns) > 10  # each record has its own
    assert 0.1 < n_asked / int(mask.sum()) < 0.6


def test_without_hidden_entries_everything_is_asked_for():
    plain = small(self_supervision=None).fit(NOISY)
    nothing_hidden = small(mask_fraction=0.0).fit(NOISY)
    np.testing.assert_array_equal(plain.transform(NOISY), nothing_hidden.transform(NOISY))
    assert not np.array_equal(plain.transform(NOISY), small().fit(NOISY).transform(NOISY))


# -- quality and extremes ---------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The codes form clusters")  # they form a ring
def test_noise_is_removed_with_and_without_clean_targets():
    rng = np.random.default_rng(1)
    clean = np.sin(np.linspace(0, 6, 24) + rng.uniform(0, 6, (200, 1)))
    noisy = clean + 0.5 * rng.standard_normal(clean.shape)
    before = np.mean((noisy - clean) ** 2)
    for target in (None, clean):
        estimator = small(hidden_sizes=(64,), latent_dim=4, max_epochs=15).fit(noisy, clean=target)
        after = np.mean((estimator.transform(noisy) - clean) ** 2)
        assert after < 0.4 * before
        assert estimator.score(noisy, clean) > 0.7


SHAPES = {
    "one row": NOISY[:1],
    "one column": NOISY[:, :1],
    "one value": NOISY[:1, :1],
    "50 records": NOISY,
    "constant": np.full((8, T), 3.0),
    "large": 1e12 * NOISY,
    "small": 1e-12 * NOISY,
    "on a level": 1e12 + NOISY,
    "huge": 1e300 * NOISY,
    "whole numbers": np.round(NOISY),
}


@pytest.mark.filterwarnings("ignore:The codes")
@pytest.mark.parametrize("model", ["vae", "ae", "vq", "hierarchical"])
@pytest.mark.parametrize("name", SHAPES)
def test_extreme_data(name, model):
    data = SHAPES[name]
    estimator = small(model=model).fit(data)
    size = np.abs(data).max()
    for found in (
        estimator.transform(data),
        estimator.sample(3),
        estimator.augment(data),
        estimator.interpolate(data[0], data[-1], 3),
    ):
        assert np.isfinite(found).all() and np.abs(found).max() < 30 * size
    assert np.isfinite(estimator.score_samples(data)).all() and np.isfinite(estimator.score(data))


@pytest.mark.parametrize("scale", [1e12, 1e-12])
def test_scales_change_nothing_but_the_units(scale):
    expected = small().fit(GAPS).transform(GAPS)
    found = small().fit(scale * GAPS).transform(scale * GAPS)
    np.testing.assert_allclose(found / scale, expected, atol=1e-4)


def test_constant_columns_come_back_exactly():
    data = GAPS.copy()
    data[:, 3] = 1e-7
    data[:, 5] = 1e9
    found = small().fit(data).transform(data)
    assert (found[:, 3] == 1e-7).all() and (found[:, 5] == 1e9).all()
    assert (small().fit(data).sample(5, noise=True)[:, 5] == 1e9).all()


def test_an_outlier_of_1e300_stays_finite():
    odd = GAPS.copy()
    odd[2, 2] = 1e300
    estimator = small().fit(NOISY)
    for found in (estimator.transform(odd), estimator.encode(odd), estimator.augment(odd, 2)):
        assert np.isfinite(found).all()
    assert np.isfinite(estimator.score_samples(odd)).all()


def test_codes_of_a_codebook_are_its_vectors():
    estimator = small(model="vq", n_codes=8).fit(NOISY)
    codes = estimator.encode(NOISY)
    book = estimator.model_.codebook.vectors.detach().numpy()
    steps = codes.reshape(len(NOISY), -1, book.shape[1])
    distance = np.abs(steps[:, :, None] - book).max(-1).min(-1)
    assert distance.max() < 1e-6
    np.testing.assert_allclose(estimator.decode(codes), estimator.reconstruct(NOISY), atol=1e-6)
    between = estimator.interpolate(NOISY[0], NOISY[1], 3)
    np.testing.assert_allclose(between[0], estimator.reconstruct(NOISY)[0], atol=1e-6)
    rng = np.random.default_rng(0)
    near = codes + 1e-4 * rng.standard_normal(codes.shape)
    np.testing.assert_allclose(estimator.decode(near), estimator.decode(codes), atol=1e-6)
