"""Model files: what goes in comes out, whole or not at all, and runs no code."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from tsvae.estimation import model_file
from tsvae.estimation.model_file import FORMAT, pack_array, read_model_file, write_model_file

HEADER = {"estimator": "Thing", "numbers": [1, 2.5, None], "names": {"a": "ä"}}


def tensors():
    return {
        "float": torch.linspace(0, 1, 7),
        "double": torch.arange(6.0, dtype=torch.float64).reshape(2, 3),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.0),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "trained": torch.ones(2, requires_grad=True),
    }


def test_round_trip(tmp_path):
    path = tmp_path / "thing.tsvae"
    write_model_file(path, HEADER, tensors())
    header, found = read_model_file(str(path), "Thing")
    assert header == {"format": FORMAT, **HEADER}
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach())
        assert not found[name].requires_grad
    assert [p.name for p in tmp_path.iterdir()] == ["thing.tsvae"]


def test_shared_memory_is_written_once_each(tmp_path):
    path = tmp_path / "thing.tsvae"
    base = torch.arange(4.0)
    write_model_file(path, HEADER, {"all": base, "part": base[1:3]})
    _, found = read_model_file(path, "Thing")
    assert found["part"].tolist() == [1.0, 2.0]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "thing.tsvae"
    write_model_file(path, HEADER, tensors())
    before = path.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(model_file.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_model_file(path, HEADER, {"other": torch.ones(2)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["thing.tsvae"]


def test_a_header_without_json_form_writes_nothing(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_model_file(tmp_path / "thing.tsvae", {"estimator": object()}, {})
    assert not list(tmp_path.iterdir())


def test_reading_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    path = tmp_path / "thing.tsvae"
    for data in (pickle.dumps(Trap()), b"\x00" * 100):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is damaged or no model file"):
            read_model_file(path, "Thing")
    torch.save({"trap": Trap()}, path)
    with pytest.raises(ValueError, match="is damaged or no model file"):
        read_model_file(path, "Thing")
    assert not (tmp_path / "trapped").exists()


def test_arrays_as_tensors():
    array = np.arange(6.0).reshape(2, 3).T
    assert pack_array(array).is_contiguous()
    np.testing.assert_array_equal(pack_array(array).numpy(), array)
