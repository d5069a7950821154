"""The optional packages, and running a graph with them."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Runner", "as_inputs", "quiet_root_logger", "require"]


def require(module: str) -> Any:
    """Import onnx, onnxruntime or a module of theirs, or raise an error that says how to install.

    Parameters
    ----------
    module : str

    Returns
    -------
    module
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"tsvae.export needs {module.partition('.')[0]}; install it with: "
            'pip install "tsvae[export]"'
        ) from error


class Runner:
    """Runs a graph on the CPU.

    Parameters
    ----------
    graph : Path or bytes
        File or content.
    n_threads : int or None, default=None
        None: onnxruntime's choice.
    """

    def __init__(self, graph: Path | bytes, n_threads: int | None = None) -> None:
        onnxruntime = require("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, not printed as well
        if n_threads is not None:
            options.intra_op_num_threads = n_threads
        content = str(graph) if isinstance(graph, Path) else graph
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Only output of the graph."""
        try:
            result: NDArray[Any] = self.session.run(None, dict(inputs))[0]
        except Exception as error:
            shapes = {name: array.shape for name, array in inputs.items()}
            raise RuntimeError(f"the graph fails for inputs of shape {shapes}: {error}") from error
        return result


@contextmanager
def quiet_root_logger() -> Iterator[None]:
    """Keep messages to the root logger away; a first one would give it a handler for good."""
    root, silent = logging.getLogger(), logging.NullHandler()
    disabled, root.disabled = root.disabled, True
    root.addHandler(silent)
    try:
        yield
    finally:
        root.removeHandler(silent)
        root.disabled = disabled


def as_inputs(names: list[str], arrays: list[NDArray[Any]], dtype: Any) -> dict[str, NDArray[Any]]:
    """Arrays by input name; all but masks in the graph's dtype."""
    return {
        name: array if array.dtype == bool else np.ascontiguousarray(array, dtype=dtype)
        for name, array in zip(names, arrays, strict=True)
    }
