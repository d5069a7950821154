"""A known linear dynamical system is recovered from noisy data with gaps."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def recovery():
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("recovery", FOLDER / "recovery.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["recovery"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("recovery", None)


def test_the_data_are_as_described(recovery):
    rng = np.random.default_rng(0)
    system = recovery.make_system(rng)
    found = np.sort_complex(np.linalg.eigvals(system.transition))
    np.testing.assert_allclose(found, np.sort_complex(recovery.true_eigenvalues()))
    data = recovery.draw(system, 20_000, rng)
    signal = data.complete.var(0) - system.emission_variance
    decibel = 10 * np.log10(signal / system.emission_variance)
    assert np.abs(decibel - 10).max() < 1
    assert abs(data.hidden.mean() - 0.2) < 0.01
    assert recovery.eigenvalue_error(found[::-1]) < 1e-12
    assert recovery.eigenvalue_error(found * 0.9) > 0.09


@pytest.mark.slow
def test_recovery(recovery):
    result = recovery.run(seed=0, max_epochs=12)
    assert result.eigenvalue_error <= 0.02
    assert result.train_true - result.train_learned <= 0.02
    assert result.test_true - result.test_learned <= 0.02
    assert result.imputation_ratio <= 1.05
    assert result.passed
