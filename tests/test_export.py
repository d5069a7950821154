"""ONNX graphs of a fitted denoiser give its own results, run without torch; int8 is measured."""

from __future__ import annotations

import json
import logging
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from torch import nn

from tsvae import VAEDenoiser

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from tsvae.export import export_onnx, quantization_report, quantize_onnx  # noqa: E402

KINDS = ("ae", "vae", "conditional", "hierarchical", "vq")
STEPS = 40


def waves(n=40, steps=STEPS, seed=0):
    """Noisy sine waves far from standard units, with gaps."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (n, 1))
    clean = np.sin(np.linspace(0, 4 * np.pi, steps) + phase)
    noisy = clean + 0.2 * rng.standard_normal(clean.shape)
    noisy[rng.random(noisy.shape) < 0.05] = np.nan
    return 500.0 + 30.0 * noisy, 500.0 + 30.0 * clean


def conditions(n=40):
    rng = np.random.default_rng(1)
    label = rng.choice(["left", "middle", "right"], n)
    return pd.DataFrame({"age": rng.uniform(20, 80, n), "side": label})


def options(kind, n=40):
    return {"condition": conditions(n)} if kind == "conditional" else {}


_FITTED = {}


def fitted(kind="vae", architecture="resnet", **settings):
    """A small denoiser that was hardly trained; made once for all tests."""
    key = (kind, architecture, *sorted(settings.items()))
    if key not in _FITTED:
        steps = settings.pop("steps", STEPS)
        denoiser = VAEDenoiser(
            3, model=kind, architecture=architecture, max_epochs=1, random_state=0, **settings
        )
        denoiser.set_params(hidden_sizes=(16,) if architecture == "mlp" else (6, 8), n_codes=8)
        _FITTED[key] = denoiser.fit(waves(steps=steps)[0], **options(kind))
    return _FITTED[key]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Export ``denoise`` of a kind and an architecture, once for all tests."""
    folder, made = tmp_path_factory.mktemp("graphs"), {}

    def export(kind, architecture):
        path = folder / f"{kind}-{architecture}.onnx"
        if path not in made:
            made[path] = export_onnx(fitted(kind, architecture), path, "denoise")
        return made[path]

    return export


def run(path, **inputs):
    """Any number of records through a graph, by onnxruntime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def graph_inputs(kind, values, mask=None, dtype=np.float32):
    """Records of a table (B, T) as the graph takes them."""
    signal = values[..., None].astype(dtype)
    mask = np.ones(signal.shape, bool) if mask is None else mask[..., None]
    inputs = {"signal": signal, "mask": mask}
    return inputs | raw_condition(kind, len(values), dtype)


def raw_condition(kind, n, dtype=np.float32):
    if kind != "conditional":
        return {}
    table = conditions(n)
    place = [["left", "middle", "right"].index(side) for side in table["side"]]
    return {"condition": np.stack([table["age"], place], axis=1).astype(dtype)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["resnet", "conv", "mlp"])
def test_every_part_of_every_model(kind, architecture, whole, tmp_path):
    denoiser = fitted(kind, architecture)
    paths = {part: tmp_path / f"{part}.onnx" for part in ("encode", "decode")}
    results = {part: export_onnx(denoiser, path, part) for part, path in paths.items()}
    assert all(result.path == paths[part] for part, result in results.items())
    results["denoise"] = whole(kind, architecture)
    paths["denoise"] = results["denoise"].path
    assert all(result.largest_difference < 2e-5 for result in results.values())
    assert results["denoise"].output == "denoised"
    for n in (1, 7):
        values = waves(n, seed=2)[0]
        rounded = values.astype(np.float32).astype(float)
        given = options(kind, n)
        inputs = graph_inputs(kind, values)
        assert results["denoise"].inputs == tuple(inputs)
        expected = denoiser.reconstruct(rounded, **given)
        found = run(paths["denoise"], **inputs)
        np.testing.assert_allclose(found[..., 0], expected, atol=30 * 1e-4)
        codes = denoiser.encode(rounded, **given)
        found = run(paths["encode"], **inputs)
        np.testing.assert_allclose(found, codes, atol=1e-4 * max(1, abs(codes).max()))
        codes = np.random.default_rng(3).normal(size=codes.shape).astype(np.float32)
        expected = denoiser.decode(codes.astype(float), **given)
        found = run(paths["decode"], code=codes, **raw_condition(kind, n))
        np.testing.assert_allclose(found[..., 0], expected, atol=30 * 1e-4)


def test_missing_entries_may_hold_anything_and_nan_is_missing(tmp_path):
    path = export_onnx(fitted(), tmp_path / "d.onnx").path
    values = waves(5, seed=4)[0]
    mask = np.isfinite(values) & (np.random.default_rng(0).random(values.shape) > 0.2)
    expected = run(path, **graph_inputs("vae", np.where(mask, values, np.nan)))
    assert np.isfinite(expected).all()
    for anything in (0.0, np.nan, np.inf, -1e30):
        inputs = graph_inputs("vae", np.where(mask, values, anything), mask)
        np.testing.assert_array_equal(run(path, **inputs), expected)
    unlike = run(path, **graph_inputs("vae", np.where(mask, values, 0.0)))
    assert np.abs(unlike - expected).max() > 1.0
    nothing = run(path, **graph_inputs("vae", np.full((2, STEPS), np.nan)))
    np.testing.assert_allclose(
        nothing[..., 0], fitted().reconstruct(np.full((2, STEPS), np.nan)), atol=30 * 1e-4
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"likelihood": "bernoulli"},
        {"final_sigmoid": True},
        {"likelihood": "laplace", "spectral_norm": True},
        {"scaling": "column"},
        {"latent": "vector"},
        {"batch_norm": False, "activation": "relu"},
        {"steps": 33},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_change_the_graph(settings, tmp_path):
    denoiser, path = fitted("vae", "conv", **settings), tmp_path / "d.onnx"
    export_onnx(denoiser, path)
    values = waves(4, settings.get("steps", STEPS), seed=5)[0]
    values[0, 0], values[1, 1] = 1e4, -1e4  # far outside of the training range
    expected = denoiser.reconstruct(values)
    found = run(path, **graph_inputs("vae", values))[..., 0]
    unit = np.nanstd(values[2:])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * unit)


def test_several_variables_in_windows(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(400, 2)).cumsum(0) * [1.0, 100.0], columns=["a", "b"])
    denoiser = VAEDenoiser(2, window=20, max_epochs=1, random_state=0, architecture="mlp")
    denoiser.fit(frame)
    path = export_onnx(denoiser, tmp_path / "w.onnx", "encode").path
    windows = frame.to_numpy().reshape(20, 20, 2)
    inputs = {"signal": windows.astype(np.float32), "mask": np.ones(windows.shape, bool)}
    codes = denoiser.encode(frame).to_numpy()
    np.testing.assert_allclose(run(path, **inputs), codes, atol=1e-4)
    metadata = {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}
    assert metadata["variables"] == ["a", "b"]
    report = quantization_report(denoiser, frame, batch_size=4, n_repeats=1)
    assert report["onnx float32"].snr_to_torch > 80.0


def test_metadata_say_what_the_graph_is(tmp_path):
    path = export_onnx(fitted("conditional"), tmp_path / "e.onnx", "encode").path
    metadata = {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}
    assert metadata["part"] == "encode" and metadata["model"] == "conditional"
    assert metadata["n_steps"] == STEPS
    assert metadata["latent_shape"] == list(fitted("conditional").model_.latent_shape)
    assert metadata["condition"] == [
        {"name": "age"},
        {"name": "side", "categories": ["left", "middle", "right"]},
    ]


def test_a_large_offset_needs_float64(tmp_path):
    values = waves()[0] + 1e9
    denoiser = VAEDenoiser(2, architecture="mlp", max_epochs=1, random_state=0).fit(values)
    path = tmp_path / "d.onnx"
    with pytest.raises(RuntimeError, match=r"use dtype='float64' if the signals' offset is large"):
        export_onnx(denoiser, path)
    assert not path.exists()
    export_onnx(denoiser, path, dtype="float64")
    found = run(path, **graph_inputs("vae", values, dtype=np.float64))[..., 0]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found - 1e9, denoiser.reconstruct(values) - 1e9, atol=30 * 1e-4)


def test_exporting_changes_nothing(tmp_path):
    denoiser = fitted()
    values = waves(6, seed=6)[0]
    before, handlers = denoiser.transform(values), list(logging.getLogger().handlers)
    state = {name: tensor.clone() for name, tensor in denoiser.model_.state_dict().items()}
    path = export_onnx(denoiser, tmp_path / "a.onnx").path
    quantize_onnx(path, tmp_path / "b.onnx")
    np.testing.assert_array_equal(denoiser.transform(values), before)
    for name, tensor in denoiser.model_.state_dict().items():
        assert bool((tensor == state[name]).all()), name
    assert logging.getLogger().handlers == handlers
    assert not logging.getLogger().disabled
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]
    again = export_onnx(denoiser, tmp_path / "c.onnx").path
    assert again.read_bytes() == path.read_bytes()


class Unusual(nn.Module):
    """A decoder by an operator that ONNX has not."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, STEPS)

    def forward(self, z):
        import torch

        return torch.special.bessel_j0(self.linear(z)).unsqueeze(-1)


def test_own_networks(tmp_path):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(2 * STEPS, 8), nn.Tanh())
    decoder = nn.Sequential(nn.Linear(2, STEPS), nn.Unflatten(1, (STEPS, 1)))
    settings = {"max_epochs": 1, "random_state": 0}
    denoiser = VAEDenoiser(2, architecture=(encoder, decoder), **settings).fit(waves()[0])
    assert export_onnx(denoiser, tmp_path / "own.onnx").largest_difference < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its health nothing is asked
        denoiser = VAEDenoiser(2, architecture=(encoder, Unusual()), **settings).fit(waves()[0])
    with pytest.raises(RuntimeError, match="torch cannot export the part 'decode'"):
        export_onnx(denoiser, tmp_path / "no.onnx", "decode")
    assert not (tmp_path / "no.onnx").exists()


def test_a_graph_that_differs_is_not_written(tmp_path):
    with pytest.raises(RuntimeError, match=r"differs from the denoiser by .*nothing was written"):
        export_onnx(fitted(), tmp_path / "d.onnx", tolerance=1e-12)
    assert not list(tmp_path.iterdir())


def test_bad_input_is_refused(tmp_path):
    path = tmp_path / "d.onnx"
    with pytest.raises(ValueError, match="part must be 'encode', 'decode' or 'denoise'"):
        export_onnx(fitted(), path, "decoder")
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64'"):
        export_onnx(fitted(), path, dtype="float16")
    with pytest.raises(ValueError, match="tolerance must be positive"):
        export_onnx(fitted(), path, tolerance=0.0)
    with pytest.raises(TypeError, match="denoiser must be a VAEDenoiser, got Linear"):
        export_onnx(nn.Linear(1, 1), path)
    with pytest.raises(NotFittedError):
        export_onnx(VAEDenoiser(), path)
    with pytest.raises(FileNotFoundError, match="write it with export_onnx first"):
        quantize_onnx(path, tmp_path / "q.onnx")
    with pytest.raises(ValueError, match="n_repeats"):
        quantization_report(fitted(), waves(2)[0], n_repeats=0)


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_without_the_extra_the_message_names_it(module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"tsvae.export needs {module}; install it with: pip install \"tsvae\[export\]\""
    with pytest.raises(ImportError, match=message):
        export_onnx(fitted(), tmp_path / "d.onnx")


# -- int8 -----------------------------------------------------------------------------------------


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["resnet", "conv", "mlp"])
def test_quantised_graphs_run_and_stay_close(kind, architecture, whole, tmp_path):
    path = whole(kind, architecture).path
    small = quantize_onnx(path, tmp_path / "q.onnx")
    wanted = {"resnet": "ConvInteger", "conv": "ConvInteger", "mlp": "MatMulInteger"}
    assert wanted[architecture] in operators(small)
    values = waves(20, seed=7)[0]
    inputs = graph_inputs(kind, values)
    exact, rough = run(path, **inputs), run(small, **inputs)
    assert rough.shape == exact.shape and np.isfinite(rough).all()
    error = np.sqrt(np.mean((rough - exact) ** 2))
    # A code that is another one is a larger step than a rounded number.
    assert 0.0 < error < (0.5 if kind == "vq" else 0.1) * np.std(exact)


def test_transposed_convolutions_are_stored_in_8_bits(tmp_path):
    denoiser = fitted("vae", "conv", batch_norm=False, activation="relu")  # nothing to fold
    path = export_onnx(denoiser, tmp_path / "f.onnx", "decode").path
    small = quantize_onnx(path, tmp_path / "q.onnx")
    graphs = [onnx.load(file).graph for file in (path, small)]
    exact, stored = (
        {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer} for graph in graphs
    )
    nodes = [n for n in graphs[1].node if n.op_type == "ConvTranspose"]
    kept = {n.output[0]: n.input for n in graphs[1].node if n.op_type == "DequantizeLinear"}
    assert len(nodes) == 2
    for node in nodes:
        weights, scale, zero = (stored[name] for name in kept[node.input[1]])
        assert weights.dtype == np.int8 and not zero.any()
        restored = weights * scale[:, None]
        error = np.abs(restored - exact[node.input[1]])
        assert error.max() > 0.0 and (error <= 0.5001 * scale[:, None]).all()


def test_the_codebook_is_not_quantised(tmp_path):
    path = export_onnx(fitted("vq"), tmp_path / "f.onnx").path
    assert [n for n in onnx.load(path).graph.node if "codebook" in n.name and n.op_type == "MatMul"]
    small = quantize_onnx(path, tmp_path / "q.onnx")
    kept = [n.op_type for n in onnx.load(small).graph.node if "codebook" in n.name]
    assert "MatMul" in kept and "MatMulInteger" not in kept


def test_the_report_measures_all_three_forms():
    denoiser = VAEDenoiser(
        4, architecture="resnet", hidden_sizes=(32, 64), max_epochs=4, random_state=0
    )
    values, clean = waves(60)
    denoiser.fit(values, clean=clean)
    report = quantization_report(denoiser, values, clean=clean, batch_size=8, n_repeats=3)
    table = report.to_frame()
    assert list(table.index) == ["torch", "onnx float32", "onnx int8"]
    assert list(table.columns) == ["size", "seconds", "snr_to_torch", "snr_to_clean"]
    assert report["onnx int8"].size < 0.5 * report["onnx float32"].size
    assert (table["seconds"] > 0.0).all()
    assert report["torch"].snr_to_torch == np.inf
    assert report["onnx float32"].snr_to_torch > 90.0
    assert 20.0 < report["onnx int8"].snr_to_torch < 60.0
    error = denoiser.reconstruct(values) - clean
    oracle = 10 * np.log10(np.sum((clean - np.nanmean(values)) ** 2) / np.sum(error**2))
    assert report["torch"].snr_to_clean == pytest.approx(oracle, abs=0.02)
    assert report["onnx int8"].snr_to_clean == pytest.approx(oracle, abs=1.0)
    without = quantization_report(denoiser, values[:3], batch_size=8, n_repeats=1)
    assert np.isnan(without.to_frame()["snr_to_clean"]).all()
    with pytest.raises(KeyError, match="is none of"):
        report["int8"]
