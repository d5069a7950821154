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


# -- waves -----------------------------------------------------------------------------------------


def waves_design(index, periods=(24.0, 6.5)):
    return InputDesign(None, (), tuple(2 * np.pi / p for p in periods), index.clock)


def read_ones(stamps):
    return read_panel(pd.Series(np.ones(len(stamps)), index=stamps)).index


@pytest.mark.parametrize(
    "stamps",
    [
        pd.date_range("2024-03-30", periods=60, freq="h"),
        pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Berlin"),  # a clock change
        pd.date_range("2024-01-31", periods=60, freq="ME"),
        pd.date_range("2024-01-06", periods=60, freq="W-SAT"),
        pd.date_range("2024-01-01", periods=60, freq="B"),
        pd.period_range("2024-01", periods=60, freq="M"),
        pd.RangeIndex(100, 280, 3),
    ],
    ids=["hours", "zone", "month ends", "weeks", "business days", "periods", "integers"],
)
def test_the_same_stamps_have_the_same_phase_on_another_clock(stamps):
    whole = read_ones(stamps)
    design = waves_design(whole)
    waves = design.build(whole, 60, None)
    later, earlier = read_ones(stamps[25:55]), read_ones(stamps[:20])
    assert later.clock is not whole.clock
    np.testing.assert_allclose(design.build(later, 30, None), waves[:, 25:55], atol=1e-9)
    np.testing.assert_allclose(design.build(earlier, 50, None), waves[:, :50], atol=1e-9)
    # Trained on the later part: stamps before it have their phase, too.
    back = waves_design(later)
    np.testing.assert_allclose(
        back.build(whole, 60, None)[:, 25:55], back.build(later, 30, None), atol=1e-9
    )


def test_each_series_has_the_phase_of_its_own_start():
    rows = [("a", stamp) for stamp in HOURS] + [("b", stamp) for stamp in HOURS[7:20]]
    names = pd.MultiIndex.from_tuples(rows, names=["series", "time"])
    panel = read_panel(pd.DataFrame({"x": np.ones(len(rows))}, index=names))
    design = waves_design(panel.index)
    waves = design.build(panel.index, 30, None)
    np.testing.assert_allclose(waves[1, :13], waves[0, 7:20], atol=1e-9)


def test_waves_turn_at_their_angles():
    index = read_ones(HOURS)
    waves = waves_design(index).build(index, 300, None)[0]
    for k, period in enumerate((24.0, 6.5)):
        turned = waves[:, k] + 1j * waves[:, 2 + k]  # sines first, then cosines
        np.testing.assert_allclose(np.abs(turned), 1.0)
        step = np.exp(-2j * np.pi / period)
        np.testing.assert_allclose(turned[1:], turned[:-1] * step, atol=1e-9)


def test_waves_come_back_from_json():
    known = make_known()
    scaler = fit_scaler(known.values, known.mask, known.variables)
    angles = waves_design(known.index).angles
    design = InputDesign(scaler, ("hour_of_day_cos1",), angles, known.index.clock)
    assert design.n_inputs == 2 + 1 + 4
    twin = InputDesign.from_dict(json.loads(json.dumps(design.to_dict())))
    assert (twin.angles, twin.clock, twin.calendar) == (angles, known.index.clock, design.calendar)
    np.testing.assert_array_equal(
        twin.build(known.index, 40, known), design.build(known.index, 40, known)
    )
    later = read_ones(HOURS[11:])
    np.testing.assert_allclose(
        InputDesign.from_dict(waves_design(known.index).to_dict()).build(later, 19, None),
        waves_design(known.index).build(known.index, 30, None)[:, 11:],
        atol=1e-9,
    )


def test_an_empty_design_comes_back_from_json():
    assert InputDesign.from_dict(json.loads(json.dumps(InputDesign().to_dict()))) == InputDesign()
