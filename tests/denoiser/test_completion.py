"""Records with gaps, read by models that have never seen one."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tsvae import VAEDenoiser
from tsvae._denoiser import coder

T = 24
RNG = np.random.default_rng(0)


def waves(n):
    phase, size = RNG.uniform(0, 6, (n, 1)), RNG.uniform(1, 2, (n, 1))
    return 50.0 + size * np.sin(np.linspace(0, 6, T) + phase)


CLEAN = waves(400)
NOISY = CLEAN + 0.2 * RNG.standard_normal(CLEAN.shape)
NEW = waves(100)
HIDDEN = RNG.random(NEW.shape) < 0.3
GAPPY = np.where(HIDDEN, np.nan, NEW)


def fitted(**settings):
    estimator = VAEDenoiser(
        latent_dim=4, architecture="mlp", hidden_sizes=(32,), max_epochs=15, random_state=0
    )
    return estimator.set_params(**settings)


@pytest.fixture(scope="module")
def plain():
    return fitted(self_supervision=None).fit(CLEAN)


def error(estimate, where=HIDDEN):
    return np.abs(estimate - NEW)[where].mean()


def test_gaps_are_filled_before_they_are_read(plain):
    assert plain._fit.gapless
    whole = error(plain.reconstruct(NEW))
    found = plain.reconstruct(GAPPY)
    assert error(found) <= 2.0 * whole
    assert error(found, ~HIDDEN) <= 1.5 * error(plain.reconstruct(NEW), ~HIDDEN)
    as_zeros = copy.copy(plain)
    as_zeros._fit = replace(plain._fit, gapless=False)
    assert error(found) <= 0.5 * error(as_zeros.reconstruct(GAPPY))
    np.testing.assert_array_equal(as_zeros.reconstruct(NEW), plain.reconstruct(NEW))


def test_codes_are_those_of_the_whole_record(plain):
    apart = np.abs(plain.encode(GAPPY) - plain.encode(NEW)).mean()
    assert apart <= 0.25 * plain.encode(NEW).std()


def test_a_record_does_not_depend_on_those_beside_it(plain):
    mixed = np.concatenate([NEW[:3], GAPPY[3:6], np.full((1, T), np.nan)])
    found = plain.reconstruct(mixed)
    np.testing.assert_array_equal(found[:3], plain.reconstruct(NEW[:3]))
    np.testing.assert_array_equal(found[3:6], plain.reconstruct(GAPPY[3:6]))
    np.testing.assert_array_equal(found[6:], plain.reconstruct(mixed[6:]))


def test_complete_records_take_one_pass(plain, monkeypatch):
    def refuse(*given):
        raise AssertionError

    monkeypatch.setattr(coder, "complete_records", refuse)
    plain.reconstruct(NEW[:3])  # the batch is filled up by empty records
    with pytest.raises(AssertionError):
        plain.reconstruct(GAPPY[:3])


def test_clean_targets_leave_gaps_unseen_too():
    estimator = fitted().fit(NOISY, CLEAN)
    assert estimator._fit.gapless
    assert error(estimator.transform(GAPPY)) <= 2.0 * error(estimator.transform(NEW))


def test_models_that_know_gaps_read_them():
    assert not fitted(max_epochs=1).fit(CLEAN)._fit.gapless
    some = CLEAN.copy()
    some[0, 3] = np.nan
    assert not fitted(max_epochs=1, self_supervision=None).fit(some)._fit.gapless


def test_padding_is_a_gap_that_training_shows():
    """Series of unequal lengths as records: the ends of shorter ones are missing."""

    def panel(lengths):
        rows = [(i, t, CLEAN[i, t]) for i, length in enumerate(lengths) for t in range(length)]
        return pd.DataFrame(rows, columns=["series", "time", "x"]).set_index(["series", "time"])

    def gapless(lengths, **settings):
        estimator = fitted(max_epochs=1, self_supervision=None, **settings)
        return estimator.fit(panel(lengths))._fit.gapless

    assert gapless([T] * 30)
    assert not gapless([T] * 29 + [T - 5])
    assert gapless([T] * 29 + [T - 5], window=8)
    assert not gapless([T] * 29 + [6], window=8)


def test_a_file_keeps_it(plain, tmp_path):
    plain.save(tmp_path / "fit")
    loaded = VAEDenoiser.load(tmp_path / "fit")
    np.testing.assert_array_equal(loaded.reconstruct(GAPPY), plain.reconstruct(GAPPY))
