"""From a fitted denoiser to the bytes of a graph, and to a quantised file."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tsvae._export.graph import Part, PartModule, input_names, make_module, output_name
from tsvae._export.runtime import Runner, quiet_root_logger, require

if TYPE_CHECKING:
    from tsvae._denoiser.denoising import DenoiserFit

__all__ = ["quantize_file", "write_graph"]

_OPSET = 17  # old enough for onnxruntime 1.12
_TRACED_RECORDS = 3  # not 1: a size of 1 could be taken for a constant
# What onnxruntime's CPU kernels compute in 8 bits. The weights are unsigned: with signed ones
# convolutions were twice as slow as in float32, and the result 15 dB less exact, on a processor
# without 8-bit dot products (docs/benchmarks/export.md).
_QUANTIZED = ("Conv", "MatMul", "Gemm")
_STORED = "ConvTranspose"  # has no such kernel: 8 bits in the file, float32 in computation
_KEPT = "codebook"  # distances to the code vectors decide which is nearest


def write_graph(fitted: DenoiserFit, part: Part, dtype: torch.dtype) -> bytes:
    """ONNX graph of a part, with its description as metadata."""
    onnx = require("onnx")
    module = make_module(fitted, part, dtype)
    names, output = input_names(fitted, part), output_name(part)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Checks of shapes are Python's and become constants, as they should; and the exporter by
        # tracing, which keeps the number of records free, is announced as the old one.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                _examples(module, fitted, part),
                buffer,  # type: ignore[arg-type]
                input_names=names,
                output_names=[output],
                dynamic_axes={name: {0: "records"} for name in (*names, output)},
                opset_version=_OPSET,
                dynamo=False,
            )
        except Exception as error:
            raise RuntimeError(
                f"torch cannot export the part {part!r} of this denoiser: {error} Networks of "
                "your own may use operators that ONNX has not; replace these."
            ) from error
    graph = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(graph, _description(fitted, part))
    onnx.checker.check_model(graph)
    content: bytes = graph.SerializeToString()
    return content


def _examples(module: PartModule, fitted: DenoiserFit, part: Part) -> tuple[torch.Tensor, ...]:
    design, n = fitted.design, _TRACED_RECORDS
    shape = (n, design.n_steps, design.n_features)
    if part == "decode":
        examples = [torch.zeros(n, fitted.model.n_latent, dtype=module.dtype)]
    else:
        examples = [torch.zeros(shape, dtype=module.dtype), torch.ones(shape, dtype=torch.bool)]
    if module.columns:
        examples.append(torch.zeros(n, len(module.columns), dtype=module.dtype))
    return tuple(examples)


def _description(fitted: DenoiserFit, part: Part) -> dict[str, str]:
    """Metadata; values are JSON."""
    from tsvae import __version__

    index, design = fitted.index, fitted.design
    columns = [] if fitted.conditions is None else fitted.conditions.columns
    facts: dict[str, Any] = {
        "tsvae_version": __version__,
        "part": part,
        "model": design.kind,
        "n_steps": design.n_steps,
        "variables": [str(label) for label in index.variables],
        "latent_shape": list(fitted.model.latent_shape),
        "condition": [
            {key: column[key] for key in ("name", "categories") if key in column}
            for column in columns
        ],
    }
    return {name: json.dumps(value) for name, value in facts.items()}


def quantize_file(source: Path, target: Path) -> None:
    """Write an int8 version of a graph.

    Parameters
    ----------
    source, target : Path
    """
    require("onnxruntime")
    onnx = require("onnx")
    quantization = require("onnxruntime.quantization")
    prepare = require("onnxruntime.quantization.shape_inference").quant_pre_process
    with tempfile.TemporaryDirectory() as folder, quiet_root_logger():
        prepared = Path(folder) / "prepared.onnx"
        # Folds batch normalisation into convolutions; shapes need no symbols for that.
        prepare(str(source), str(prepared), skip_symbolic_shape=True)
        kept = [node.name for node in onnx.load(prepared).graph.node if _KEPT in node.name]
        quantization.quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=list(_QUANTIZED),
            weight_type=quantization.QuantType.QUInt8,
            nodes_to_exclude=kept,
        )
        graph = onnx.load(target)
        _store_in_8_bits(graph.graph, _STORED)
        onnx.save(graph, target)
    Runner(target)  # raises if a kernel is missing


def _store_in_8_bits(graph: Any, operator: str) -> None:
    """Keep the weights of an operator in 8 bits, one scale per output channel (axis 1).

    The weights are turned into float32 again before they are used.
    """
    onnx = require("onnx")
    weights = {tensor.name: tensor for tensor in graph.initializer}
    used = {node.input[1] for node in graph.node if node.op_type == operator}
    for name in sorted(used & set(weights)):
        values = onnx.numpy_helper.to_array(weights[name])
        if values.dtype != np.float32 or values.ndim < 3:
            continue
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        scale = np.maximum(np.abs(values).max(axis=axes) / 127.0, np.finfo(np.float32).tiny)
        shaped = scale.reshape(1, -1, *[1] * (values.ndim - 2))
        parts = {
            f"{name}_8bit": np.rint(values / shaped).astype(np.int8),
            f"{name}_scale": scale.astype(np.float32),
            f"{name}_zero": np.zeros(scale.shape, dtype=np.int8),
        }
        graph.initializer.remove(weights[name])
        graph.initializer.extend(
            onnx.numpy_helper.from_array(array, label) for label, array in parts.items()
        )
        node = onnx.helper.make_node(
            "DequantizeLinear", list(parts), [name], f"{name}_8bit", axis=1
        )
        graph.node.insert(0, node)
