"""Filling panels from all variables: when it is chosen, phases, pieces, files."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from tsvae import SVAEForecaster
from tsvae.estimation import joint_learning
from tsvae.estimation.joint_filling import JointFilling, phases_of
from tsvae.models.autoregression import fit_autoregression
from tsvae.models.joint_filling import fill_hidden
from tsvae.panel import read_panel


def table(n: int = 1500, seed: int = 0) -> pd.DataFrame:
    """Three hourly variables: two noisy sums of slow ones, with a busy noon each day."""
    rng = np.random.default_rng(seed)
    slow = np.zeros((n, 2))
    busy = np.where(np.arange(n) % 24 == 12, 4.0, 1.0)
    for t in range(1, n):
        slow[t] = 0.9 * slow[t - 1] + busy[t] * rng.normal(size=2)
    x = slow @ np.array([[1.0, 0.5, 1.0], [0.0, 1.0, -1.0]]) + 0.1 * rng.normal(size=(n, 3))
    index = pd.date_range("2024-01-01", periods=n, freq="h")
    return pd.DataFrame(x * [1.0, 50.0, 1e-3] + [0.0, 300.0, 1.0], index, ["a", "b", "c"])


def holes(frame: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    hidden = np.random.default_rng(seed).random(frame.shape) < 0.2
    hidden[100:120, 1] = True
    return frame.mask(hidden)


@pytest.fixture(scope="module")
def fitted() -> SVAEForecaster:
    return SVAEForecaster(4, context_length=48, latent_dim=4, random_state=0).fit(table())


def filling(n_phases: int = 0, order: int = 2) -> JointFilling:
    x = torch.from_numpy(table().to_numpy() / table().std().to_numpy())[None]
    phase = torch.zeros(1, dtype=torch.long)
    fit = fit_autoregression(x, torch.ones_like(x, dtype=torch.bool), phase, n_phases, order)
    return JointFilling(fit, None)


def test_hidden_entries_are_close_and_bands_hold(fitted):
    assert fitted._fit.filling is not None
    truth = table(600, seed=5)
    given = holes(truth)
    hidden = given.isna().to_numpy()
    filled = fitted.impute(given)
    pd.testing.assert_frame_equal(filled.where(given.notna()), given)
    error = (filled - truth).to_numpy() / truth.std().to_numpy()
    straight = (given.interpolate() - truth).to_numpy() / truth.std().to_numpy()
    assert np.nanmean(np.abs(error[hidden])) < 0.5 * np.nanmean(np.abs(straight[hidden]))
    bands = fitted.impute_quantiles(given, quantiles=[0.05, 0.95]).to_numpy().reshape(600, 3, 2)
    inside = (bands[..., 0] <= truth) & (truth <= bands[..., 1])
    assert 0.85 < inside.to_numpy()[hidden].mean() < 0.95


def test_what_fills_survives_files_pickles_and_updates(fitted, tmp_path):
    given = holes(table(200, seed=5))
    want = fitted.impute(given)
    fitted.save(tmp_path / "model.tsvae")
    for other in (
        SVAEForecaster.load(tmp_path / "model.tsvae"),
        pickle.loads(pickle.dumps(fitted)),
        pickle.loads(pickle.dumps(fitted)).update(table(1550).iloc[1500:]),
    ):
        pd.testing.assert_frame_equal(other.impute(given), want)


def test_a_panel_is_filled_series_by_series(fitted):
    parts = {name: holes(table(n, seed=n)) for name, n in (("u", 60), ("v", 300))}
    together = fitted.impute(pd.concat(parts, names=["series", "time"]))
    for name, part in parts.items():
        alone = fitted.impute(part)
        np.testing.assert_allclose(together.loc[name], alone, rtol=1e-6)


def test_nothing_stays_open(fitted):
    given = holes(table(400, seed=5))
    given.iloc[150:350] = np.nan  # whole rows, longer than a piece
    given["c"] = np.nan
    given.iloc[0, 2] = 1.0
    filled = fitted.impute(given)
    assert np.isfinite(filled.to_numpy()).all()
    middle = filled.iloc[240:260].groupby(filled.index[240:260].hour).first()
    assert abs(middle["b"].mean() - 300.0) < 0.6 * table()["b"].std()


def test_a_single_row_and_unknown_phases_are_filled(fitted):
    one = table(1)
    one.iloc[0, 0] = np.nan
    assert np.isfinite(fitted.impute(one).to_numpy()).all()


def test_few_rows_are_left_to_the_model():
    noise = np.random.default_rng(0).normal(size=(20, 2))
    model = SVAEForecaster(2, context_length=8, latent_dim=4, random_state=0).fit(noise)
    assert model._fit.filling is None
    noise[5, 0] = np.nan
    assert np.isfinite(model.impute(noise)).all()


def test_the_model_keeps_what_it_fills_better(monkeypatch):
    def fit() -> SVAEForecaster:
        return SVAEForecaster(2, context_length=24, latent_dim=4, random_state=0).fit(table(300))

    assert fit()._fit.filling.imputes
    monkeypatch.setattr(joint_learning, "_own_error", lambda *_: 0.0)
    left = fit()
    assert not left._fit.filling.imputes
    assert np.isfinite(left.impute(holes(table(300))).to_numpy()).all()


def test_known_covariates_and_other_models_have_none():
    frame, known = table(200), pd.DataFrame({"u": np.arange(200.0)}, table(200).index)
    settings = {"context_length": 24, "latent_dim": 4, "random_state": 0}
    assert SVAEForecaster(2, **settings).fit(known, frame)._fit.filling is None
    joint = SVAEForecaster(2, channels="joint", max_epochs=1, **settings).fit(frame)
    assert joint._fit.filling is None
    assert np.isfinite(joint.impute(holes(frame)).to_numpy()).all()


def test_the_busy_hour_is_found_and_gaps_in_training_do_little_harm(fitted):
    assert fitted._fit.filling.fit.n_phases == 24
    truth = table(600, seed=5)
    given = holes(truth)
    hidden = given.isna().to_numpy()
    gappy = SVAEForecaster(4, context_length=48, latent_dim=4, random_state=0)
    gappy.fit(table().mask(np.random.default_rng(3).random((1500, 3)) < 0.2))
    errors = [
        np.abs((model.impute(given) - truth) / truth.std()).to_numpy()[hidden].mean()
        for model in (fitted, gappy)
    ]
    assert errors[1] < 1.15 * errors[0]


def test_phases_are_those_of_the_clock():
    frame = table(100)
    clock = read_panel(frame).index.clock
    later = read_panel(frame.iloc[30:]).index
    assert phases_of(later, clock, 24).tolist() == [6]
    assert phases_of(read_panel(frame.to_numpy()).index, clock, 24) is None
    assert phases_of(later, None, 24) is None


def test_pieces_agree_with_one_pass_away_from_their_ends():
    one = filling(order=1)
    x = (table(400, seed=7) / table().std()).to_numpy()[None]
    mask = np.random.default_rng(0).random(x.shape) > 0.2
    found = one.fill(np.where(mask, x, 0.0), mask, ~mask, None, steps=0)
    # One version: pieces weight versions on their own.
    alone = one.fit._replace(
        **{k: getattr(one.fit, k)[:1] for k in ("coefficients", "noise", "start")}
    )
    found = JointFilling(alone, None).fill(np.where(mask, x, 0.0), mask, ~mask, None, steps=0)
    want = fill_hidden(
        alone, torch.from_numpy(np.where(mask, x, 0.0)), torch.from_numpy(mask), None, steps=0
    )
    np.testing.assert_allclose(found.mean, want.mean, atol=0.02)
    np.testing.assert_allclose(found.scale, want.variance.sqrt(), atol=0.03)


def test_entries_that_are_not_wanted_stay():
    one = filling()
    x = np.ones((2, 300, 3))
    mask = np.ones(x.shape, dtype=bool)
    mask[0, :3] = mask[1, 200] = False
    wanted = ~mask
    wanted[0] = False
    found = one.fill(np.where(mask, x, 0.0), mask, wanted, None)
    assert not found.mean[0, :3].any() and not found.scale[0].any()
    assert found.mean[1, 200].all() and found.scale[1, 200].all()
