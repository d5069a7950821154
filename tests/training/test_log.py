from __future__ import annotations

import json
import pickle

import pytest
import torch

from tsvae.training import LossResult, TrainingLog, train
from tsvae.training.meter import Meter


def filled():
    return TrainingLog(
        [
            {"epoch": 0, "step": 4, "objective": 2.0, "beta": 0.1},
            {"epoch": 1, "step": 8, "objective": float("inf"), "validation": 1.5, "beta": 0.2},
        ],
        stop_reason="max_epochs",
        best_epoch=1,
    )


def test_log_is_a_mapping_of_equally_long_lists():
    log = filled()
    assert list(log)[:3] == ["epoch", "step", "objective"]
    assert {len(column) for column in log.values()} == {2}
    assert log["validation"] == [None, 1.5] and log["beta"] == [0.1, 0.2]
    assert dict(log)["step"] == [4, 8]
    with pytest.raises(KeyError, match="no column 'loss'; its columns are epoch, step"):
        log["loss"]


def test_log_survives_pickle_and_json():
    log = filled()
    assert pickle.loads(pickle.dumps(log)) == log
    text = json.dumps(log.to_dict(), allow_nan=False)
    assert TrainingLog.from_dict(json.loads(text)).to_dict() == log.to_dict()
    assert json.loads(text)["rows"][1]["objective"] is None


def test_log_as_a_frame():
    frame = filled().to_frame()
    assert frame.index.name == "epoch" and frame.index.tolist() == [0, 1]
    assert frame.loc[1, "validation"] == 1.5 and frame["step"].tolist() == [4, 8]


def test_log_of_a_run_pickles_without_tensors(toys):
    log = train(toys.Quadratic(), toys.target, config=toys.config(), generator=toys.generator())
    assert {type(v) for row in log.rows for v in row.values()} <= {float, int, type(None)}
    assert pickle.loads(pickle.dumps(log)) == log
    assert log["fit"] == log["objective"]
    assert log["seconds"] == sorted(log["seconds"])
    assert "3 epochs" in repr(log)


def test_a_given_log_is_extended(toys):
    log = filled()
    result = train(
        toys.Quadratic(), toys.target, config=toys.config(), generator=toys.generator(), log=log
    )
    assert result is log and len(log.rows) == 5


def test_meter_means_over_many_steps_and_kinds_of_numbers():
    meter = Meter()
    for i in range(600):
        diagnostics = {"a": torch.tensor(float(i), requires_grad=True), "b": i % 2}
        if i >= 300:
            diagnostics["late"] = torch.full((3,), 2.0)
        meter.add(LossResult(torch.tensor(1.0 + i, dtype=torch.float64), diagnostics))
    assert meter.means() == {"objective": 300.5, "a": 299.5, "b": 0.5, "late": 2.0}
    assert Meter().means() == {}
