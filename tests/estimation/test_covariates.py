"""Known covariates and calendar features as model inputs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tsvae.estimation.covariates import InputDesign
from tsvae.estimation.scaling import fit_scaler
from tsvae.panel import calendar_features, read_panel

HOURS = pd.date_range("2024-01-01", periods=30, freq="h")


def make_known():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(5.0, 3.0, (30, 2)), index=HOURS, columns=["sun", "price"])
    table.iloc[4, 1] = np.nan
    return read_panel(table)


def fitted(known, calendar=()):
    return InputDesign(fit_scaler(known.values, known.mask, known.variables), calendar)


def test_nothing_known():
    design = InputDesign()
    assert design.n_inputs == 0
    assert design.build(make_known().index, 30, None) is None


def test_covariates_are_standardised_and_missing_ones_take_the_mean():
    known = make_known()
    inputs = fitted(known).build(known.index, 30, known)
    assert inputs.shape == (1, 30, 2)
    seen = inputs[0][known.mask[0].all(-1)]
    assert np.abs(seen[:, 0].mean()) < 0.2
    assert inputs[0, 4, 1] == 0.0
    np.testing.assert_allclose(inputs[0, :, 0].std(), 1.0)


def test_rows_beyond_the_covariates_take_the_mean():
    known = make_known()
    design = fitted(known)
    longer = design.build(known.index, 35, known)
    np.testing.assert_array_equal(longer[:, :30], design.build(known.index, 30, known))
    assert (longer[:, 30:] == 0.0).all()
    np.testing.assert_array_equal(design.build(known.index, 8, known), longer[:, :8])


def test_calendar_goes_on_after_the_data():
    known = make_known()
    names = tuple(calendar_features(known.index).names)
    design = InputDesign(None, names[:3])
    assert design.n_inputs == 3
    inputs = design.build(known.index, 54, None)
    assert inputs.shape == (1, 54, 3)
    hour = names.index("hour_of_day_sin1")
    np.testing.assert_allclose(inputs[0, :30, hour], inputs[0, 24:, hour], atol=1e-12)
    np.testing.assert_allclose(inputs[0, 6, hour], 1.0)


def test_calendar_features_come_in_the_order_of_the_fit():
    known = make_known()
    names = tuple(calendar_features(known.index).names)
    forward = InputDesign(None, names).build(known.index, 30, None)
    backward = InputDesign(None, names[::-1]).build(known.index, 30, None)
    np.testing.assert_array_equal(forward, backward[..., ::-1])


@pytest.mark.parametrize(
    "design",
    [
        InputDesign(None, ("hour_of_day_sin1",)),
        InputDesign(None, (), (0.5,), make_known().index.clock),
    ],
    ids=["calendar", "seasons"],
)
def test_dates_are_needed_where_they_were_learned_from(design):
    array = read_panel(np.ones((9, 1))).index
    with pytest.raises(ValueError, match=r"have none \(array of 1 series.*seasonal_effect=False"):
        design.build(array, 9, None)


def test_seasons_are_tied_to_the_stamps():
    known = make_known()
    design = InputDesign(None, (), (2 * np.pi / 24,), known.index.clock)
    assert design.n_inputs == 2
    waves = design.build(known.index, 30, None)
    assert waves.shape == (1, 30, 2)
    np.testing.assert_allclose(waves[:, :6], waves[:, 24:], atol=1e-9)
    part = read_panel(pd.Series(np.ones(9), index=HOURS[5:14]))
    np.testing.assert_allclose(design.build(part.index, 9, None), waves[:, 5:14], atol=1e-9)


def test_both_and_back_from_json():
    known = make_known()
    design = fitted(known, ("hour_of_day_sin1",))
    assert design.n_inputs == 3
    inputs = design.build(known.index, 33, known)
    np.testing.assert_array_equal(inputs[..., :2], fitted(known).build(known.index, 33, known))
    twin = InputDesign.from_dict(json.loads(json.dumps(design.to_dict())))
    assert twin.calendar == design.calendar
    np.testing.assert_array_equal(twin.build(known.index, 33, known), inputs)
