"""The benchmark on known factors: its parts, and Ada-GVAE ahead of the VAE."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from tsvae.models import VAE, AdaGVAE

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def factors():
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("factors", FOLDER / "factors.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["factors"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("factors", None)


@pytest.fixture(scope="module")
def data(factors):
    return factors.make_data(100)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_models_see_the_same_series(factors, data):
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    pairs = factors.batches_of(data, 128, factors.paired)(0, generators[0])
    singles = factors.batches_of(data, 128, factors.unpaired)(0, generators[1])
    assert len(pairs) == len(singles) == 5000 // 128
    for pair, single in zip(pairs, singles, strict=True):
        both = torch.cat([pair["x"], pair["x_pair"]])
        assert torch.equal(both, single["x"])
    differ = (data.pairs.first.factors != data.pairs.second.factors).sum(axis=1)
    assert (differ == 1).all()


def test_codes_of_an_untrained_model_and_of_pca(factors, data):
    model = factors.make_model(VAE, 6, 1.0, 100, 0)
    model.build(factors.as_tensor(data.test.series[:2], data.scale)).eval()
    found = factors.encode(model, data)
    assert found.codes.shape == (factors.N_TEST, 6)
    assert found.reconstruction.shape == data.test.clean.shape
    assert_allclose(found.kl, 0.5 * (found.codes**2).mean(axis=0), rtol=1e-4)  # unit variances
    everything = factors.encode_by_pca(data, 64, 0)
    assert_allclose(everything.reconstruction, data.test.series, atol=1e-8)


def test_reconstruction_is_in_units_of_the_data(factors, data):
    budget = factors.Budget(150)
    model = factors.fit(VAE, data, beta=1.0, latent_dim=10, seed=0, budget=budget)
    found = factors.encode(model, data)
    spread = (data.test.clean - data.test.clean.mean()).std()
    assert factors.root_mean_square(found.reconstruction - data.test.clean) < 0.7 * spread
    drawn = factors.generate(model, data, 0)
    assert drawn.shape == (factors.N_TEST, factors.N_STEPS, 1)
    assert 0.3 * spread < drawn.std() < 2 * spread


def test_verdict(factors):
    def result(model, value):
        scores = dict.fromkeys(["mig", "sap", "disentanglement"], value)
        rest = dict.fromkeys(["completeness", "informativeness", "rmse", "kl", "seconds"], 1.0)
        return factors.Scores(model, 0, **scores, **rest, mig_per_factor={"level": value})

    better, worse = result("Ada-GVAE", 0.6), result("VAE", 0.5)
    assert factors.ahead([better, worse])
    assert not factors.ahead([result("Ada-GVAE", 0.5), worse])
    table = factors.comparison_table([better, worse, result("VAE", 0.3)], markdown=True)
    assert "0.400 ± 0.141" in table  # of the VAE's two seeds
    assert "0.60" in factors.factor_table([better, worse], markdown=False)


@pytest.mark.slow
def test_pairs_disentangle(factors, data):
    """Fewer steps than in the report, one seed, a clear lead all the same."""
    budget = factors.Budget(500)
    gap = {}
    for kind in (VAE, AdaGVAE):
        model = factors.fit(kind, data, beta=1.0, latent_dim=10, seed=100, budget=budget)
        codes = factors.encode(model, data).codes
        gap[kind] = factors.mutual_information_gap(codes, data.test.varied)
    assert gap[AdaGVAE] > gap[VAE] + 0.1
    assert np.isfinite(list(gap.values())).all()
