"""Noise on training inputs: what it is measured from, against plain computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from tsvae import PairVAELinker
from tsvae._linker import noise
from tsvae._linker.noise import noise_share, predictability, training_noise, unexplained

RNG = np.random.default_rng(0)


def t(values):
    return torch.as_tensor(values)


def seen(values):
    return torch.ones(values.shape, dtype=torch.bool)


def test_errors_of_all_columns_are_those_of_one_ridge_regression_each():
    known, new = RNG.standard_normal((30, 5)) @ RNG.standard_normal((5, 5)), np.eye(5)[:4] + 0.3
    found = noise._left_out_squares(t(known), t(new), seen(new)).numpy()
    mean = known.mean(axis=0)
    unit = np.square(known - mean).sum() / 5
    for penalty, squares in zip(noise._COLUMN_PENALTIES, found, strict=True):
        for j in range(5):
            others = np.arange(5) != j
            plain = Ridge(alpha=penalty * unit, fit_intercept=False, solver="svd")
            plain.fit((known - mean)[:, others], (known - mean)[:, j])
            # The diagonal of the penalty counts for the column itself, too: it leaves slopes alone.
            missed = (new - mean)[:, j] - plain.predict((new - mean)[:, others])
            assert squares[j] == pytest.approx(np.square(missed).sum(), rel=1e-6)


def test_each_record_is_predicted_from_the_others_alone():
    given, wanted = RNG.standard_normal((25, 3)), RNG.standard_normal((25, 2))
    found = noise._press(t(rbf_kernel(given, gamma=0.3)), t(wanted))
    for penalty, square in zip(noise._PENALTIES, found, strict=True):
        plain = KernelRidge(kernel="rbf", gamma=0.3, alpha=penalty)
        predicted = cross_val_predict(plain, given, wanted, cv=LeaveOneOut())
        assert square == pytest.approx(np.square(wanted - predicted).sum(), rel=1e-6)


def test_predictability_is_that_of_the_best_kernel_ridge_regression():
    given = 3.0 * RNG.standard_normal((20, 3))
    wanted = np.sin(given[:, :2]) + 0.1 * RNG.standard_normal((20, 2))
    wanted -= wanted.mean(axis=0)
    errors = []
    for width in noise._WIDTHS:
        for penalty in noise._PENALTIES:
            gamma = width / given.var(axis=0).sum()
            plain = KernelRidge(kernel="rbf", gamma=gamma, alpha=penalty)
            predicted = cross_val_predict(plain, given, wanted, cv=LeaveOneOut())
            errors.append(np.square(wanted - predicted).sum())
    expected = 1.0 - min(errors) / np.square(wanted).sum()
    assert predictability(t(given), t(wanted)) == pytest.approx(expected, rel=1e-6)


def test_columns_of_a_smooth_profile_leave_the_noise_alone_and_those_of_a_table_all():
    phase = RNG.uniform(0, 6, (200, 1))
    profile = np.sin(np.linspace(0, 3, 40) + phase) + 0.05 * RNG.standard_normal((200, 40))
    table = 3.0 * RNG.standard_normal((200, 6))
    assert unexplained(t(profile), seen(profile)).numpy() == pytest.approx(
        np.full(40, 0.05), rel=0.4
    )
    assert unexplained(t(table), seen(table)).numpy() == pytest.approx(table.std(axis=0), rel=0.05)


def test_missing_entries_and_constant_columns_do_no_harm():
    values = RNG.standard_normal((100, 4))
    values[:, 2] = 0.0
    mask = RNG.random(values.shape) < 0.7
    mask[:, 3] = False
    found = unexplained(t(np.where(mask, values, 0.0)), t(mask)).numpy()
    assert np.isfinite(found).all() and found[2] == found[3] == 0.0 and (found[:2] > 0.3).all()


def test_few_rows_count_as_unexplained_and_unpredictable():
    values = RNG.standard_normal((6, 3))
    assert unexplained(t(values), seen(values)).numpy() == pytest.approx(values.std(axis=0))
    assert predictability(t(values), t(values)) == 0.0
    assert noise_share(0.0, 6) == 1.0


def test_predictability_is_high_for_a_smooth_rule_and_about_zero_for_chance():
    x = RNG.standard_normal((300, 3))
    rule = np.tanh(x @ RNG.standard_normal((3, 4)))
    assert predictability(t(x), t(rule)) > 0.95
    assert predictability(t(x), t(RNG.standard_normal((300, 4)))) < 0.1
    assert predictability(t(x), t(np.zeros((300, 2)))) == 0.0


def test_share_falls_with_pairs_and_with_what_is_told():
    assert noise_share(0.5, 400) == pytest.approx(2 * noise_share(0.5, 1600))
    assert noise_share(0.9, 400) < noise_share(0.5, 400) < noise_share(0.1, 400) == 1.0
    assert noise_share(1.0, 400) == 0.0


def test_a_number_is_in_standard_deviations_of_each_column():
    values = RNG.standard_normal((50, 3)) * [1.0, 2.0, 0.0]
    values = t(values)
    found = training_noise(0.5, values, seen(values), values, values).numpy()
    assert found == pytest.approx(0.5 * values.numpy().std(axis=0))


def test_a_table_with_little_to_learn_is_not_learned_by_heart():
    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((120, 8)), rng.standard_normal((300, 8))
    y = 0.5 * x[:, :1] + rng.standard_normal((120, 1))
    settings = {"latent_dim": 4, "hidden_sizes": (64,), "max_epochs": 20, "random_state": 0}
    error = {}
    for wanted in ("auto", 0.0):
        linker = PairVAELinker(input_noise=wanted, validation_fraction=0.0, **settings).fit(x, y)
        error[wanted] = np.square(linker.predict(new) - 0.5 * new[:, :1]).mean()
    assert error["auto"] < 0.6 * error[0.0]


@pytest.mark.parametrize("wrong", [-0.1, "some", np.nan, (0.1, "much"), (0.1,), True])
def test_wrong_noise_is_refused(wrong):
    with pytest.raises(ValueError, match="input_noise"):
        PairVAELinker(input_noise=wrong, max_epochs=1).fit(np.eye(5), np.eye(5))
