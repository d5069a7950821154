"""Health of a fit: what is measured, and warnings that name the remedy at the caller's line."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import tsvae
from tsvae import PosteriorCollapseWarning, VAEDenoiser
from tsvae._denoiser.health import Health, examine, warn_about

RNG = np.random.default_rng(0)
N, T = 120, 64
SEEN = np.ones((N, T, 1), dtype=bool)


def healthy_codes(d=3):
    return RNG.standard_normal((N, d)), np.full((N, d), -3.0)


def kl_of(mu, log_var):
    import torch
    from torch.distributions import Normal, kl_divergence

    posterior = Normal(torch.tensor(mu), torch.tensor(log_var).mul(0.5).exp())
    return kl_divergence(posterior, Normal(0.0, 1.0)).mean(dim=0).numpy()


def messages(health, kind="vae", latent="vector"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_about(health, kind, latent)
    return [(each.category, str(each.message)) for each in caught]


def test_the_warning_is_public():
    assert tsvae.denoiser.PosteriorCollapseWarning is PosteriorCollapseWarning
    assert issubclass(PosteriorCollapseWarning, UserWarning)


def test_codes_without_information_have_no_clusters():
    kl = np.zeros(3)
    health = Health(kl, 0, None, 5.0)
    assert [kind for kind, _ in messages(health)] == [PosteriorCollapseWarning]
    told = messages(Health(np.ones(3), 3, None, 5.0))
    assert len(told) == 1 and "form clusters" in told[0][1]


def test_kl_and_active_units():
    mu, log_var = healthy_codes()
    mu[:, 1], log_var[:, 1] = 0.0, 0.0
    kl = kl_of(mu, log_var)
    health = examine(mu, kl, None, SEEN, np.zeros((N, T, 1)))
    assert health.kl_per_dimension is kl
    assert health.active_units == 2 and health.high_frequency_power is None
    assert messages(health) == []


@pytest.mark.parametrize("model", ["vae", "hierarchical"])
def test_kl_of_a_fit_is_that_of_the_model_prior(model):
    import torch

    X = np.random.default_rng(0).standard_normal((70, 6))  # more than one batch
    d = VAEDenoiser(2, model=model, hidden_sizes=(8, 8), max_epochs=1, random_state=0).fit(X)
    scaled = torch.tensor((X - X.mean(axis=0)) / X.std(axis=0))[..., None]
    expected = d.model_.double().kl_per_dimension(scaled).flatten()
    # A ladder draws its coarse levels, batch for batch.
    rtol = 0.05 if model == "hierarchical" else 1e-5
    np.testing.assert_allclose(d.kl_per_dimension_, expected, rtol=rtol)


def test_without_a_posterior():
    mu = np.c_[RNG.standard_normal(N), np.ones(N)]
    health = examine(mu, None, None, SEEN, np.zeros((N, T, 1)))
    assert health.kl_per_dimension is None and health.active_units == 1


def test_collapse():
    mu = np.zeros((N, 3))
    health = examine(mu, np.zeros(3), None, SEEN, np.zeros((N, T, 1)))
    ((category, text),) = messages(health)
    assert category is PosteriorCollapseWarning
    for part in ("no information", "smaller beta", "free_bits=0.5", "annealing_steps"):
        assert part in text
    assert "learning_rate" in messages(health, "ae")[0][1]


def test_lost_high_frequencies():
    steps = np.arange(T)[:, None]
    low = np.sin(2 * np.pi * steps / 32) * RNG.standard_normal((N, 1, 1))
    high = np.sin(2 * np.pi * steps / 2.5) * RNG.standard_normal((N, 1, 1))
    mu, log_var = healthy_codes()
    for share, lost in ((1.0, False), (0.9, False), (0.5, True), (0.0, True)):
        health = examine(mu, kl_of(mu, log_var), low + high, SEEN, low + share * high)
        assert health.high_frequency_power == pytest.approx(share**2, abs=0.02)
        found = messages(health)
        assert bool(found) == lost
        if lost:
            for part in ("fine detail is lost", "likelihood='laplace'", "spectral_weight=1"):
                assert part in found[0][1]


def test_high_frequencies_say_nothing_of_gaps_and_short_records():
    mu, log_var = healthy_codes()
    values = RNG.standard_normal((N, T, 1))
    gaps = SEEN.copy()
    gaps[:, 3] = False
    assert examine(mu, kl_of(mu, log_var), values, gaps, values).high_frequency_power is None
    short = values[:, :15]
    assert examine(mu, kl_of(mu, log_var), short, SEEN[:, :15], short).high_frequency_power is None
    assert examine(mu, kl_of(mu, log_var), 0 * values, SEEN, values).high_frequency_power is None


def test_clusters():
    mu, log_var = healthy_codes()
    assert examine(mu, kl_of(mu, log_var), None, SEEN, np.zeros((N, T, 1))).cluster_gain < 0.5
    apart = 0.05 * mu + 3.0 * RNG.integers(0, 3, (N, 1))
    health = examine(apart, kl_of(apart, log_var), None, SEEN, np.zeros((N, T, 1)))
    assert health.cluster_gain > 0.5
    ((_, text),) = messages(health)
    for part in ("form clusters", "source='density'", "noise_scale=0.1"):
        assert part in text
    assert messages(health, latent="map") == [] and messages(health, "ae") == []
    few = examine(apart[:20], np.ones(3), None, SEEN[:20], np.zeros((20, T, 1)))
    assert few.cluster_gain is None


def test_a_collapsed_model_warns_where_fit_was_called():
    X = np.random.default_rng(0).standard_normal((40, 6))
    collapsing = VAEDenoiser(
        2, hidden_sizes=(), beta=1e4, annealing_steps=0, learning_rate=0.05, random_state=0
    )
    with pytest.warns(PosteriorCollapseWarning, match="0 active units") as caught:
        collapsing.fit(X)
    assert collapsing.active_units_ == 0
    assert {each.filename for each in caught} == {__file__}
    with pytest.warns(PosteriorCollapseWarning) as caught:
        collapsing.fit_transform(X)
    assert {each.filename for each in caught} == {__file__}


def test_one_record_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VAEDenoiser(2, hidden_sizes=(8,), max_epochs=1, model="ae").fit([[1.0, 2.0, 3.0]])
