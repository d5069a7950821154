"""What quantisation saves, and what it costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tsvae._export.checking import Records, graph_inputs
from tsvae._export.graph import input_names, make_module
from tsvae._export.runtime import Runner
from tsvae._export.writing import quantize_file, write_graph
from tsvae.metrics import signal_to_noise_ratio
from tsvae.training import pinned_threads

if TYPE_CHECKING:
    import pandas as pd

    from tsvae._denoiser.denoising import DenoiserFit

__all__ = ["ModelCost", "QuantizationReport", "measure"]

Array = NDArray[np.float64]
Run = Callable[[dict[str, NDArray[Any]]], NDArray[Any]]


class ModelCost(NamedTuple):
    """One form of the denoiser.

    Attributes
    ----------
    form : {"torch", "onnx float32", "onnx int8"}
    size : int
        Bytes of the file; of torch's parameters and buffers.
    seconds : float
        Median time of one batch.
    snr_to_torch : float
        dB of torch's output over its difference from this one's; infinite for torch itself.
    snr_to_clean : float
        dB of the clean signals over their difference from the output; NaN without clean signals.
    """

    form: str
    size: int
    seconds: float
    snr_to_torch: float
    snr_to_clean: float


@dataclass(frozen=True)
class QuantizationReport:
    """Size, speed and quality of a denoiser in torch, as ONNX graph and quantised to int8.

    Attributes
    ----------
    models : tuple of ModelCost
    batch_size : int
        Records that are denoised at once for ``seconds``.
    n_repeats : int
    n_threads : int
    """

    models: tuple[ModelCost, ...]
    batch_size: int
    n_repeats: int
    n_threads: int

    def __getitem__(self, form: str) -> ModelCost:
        """Return the row of a form."""
        for model in self.models:
            if model.form == form:
                return model
        raise KeyError(f"{form!r} is none of {[model.form for model in self.models]}")

    def to_frame(self) -> pd.DataFrame:
        """Table with one row for each form."""
        import pandas as pd

        return pd.DataFrame(self.models).set_index("form")


def measure(
    fitted: DenoiserFit,
    records: Records,
    clean: Array | None,
    *,
    batch_size: int,
    n_repeats: int,
    n_threads: int,
) -> QuantizationReport:
    """Measure the three forms side by side.

    Parameters
    ----------
    fitted : DenoiserFit
    records : Records
        In the caller's units; at least one.
    clean : ndarray of shape (B, T, F) or None
        In the caller's units; NaN where not known.
    batch_size, n_repeats, n_threads : int

    Returns
    -------
    QuantizationReport
    """
    inputs = graph_inputs(fitted, "denoise", records, np.float32)
    module = make_module(fitted, "denoise", torch.float32)
    with tempfile.TemporaryDirectory() as folder, pinned_threads(n_threads):
        plain, small = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        plain.write_bytes(write_graph(fitted, "denoise", torch.float32))
        quantize_file(plain, small)
        runs: dict[str, Run] = {
            "torch": _torch_run(module, input_names(fitted, "denoise")),
            "onnx float32": Runner(plain, n_threads),
            "onnx int8": Runner(small, n_threads),
        }
        sizes = [_bytes_of(module.model), plain.stat().st_size, small.stat().st_size]
        outputs = [_in_batches(run, inputs, batch_size) for run in runs.values()]
        first = {name: _repeated(array, batch_size) for name, array in inputs.items()}
        seconds = _median_seconds(list(runs.values()), first, n_repeats)
    reference = outputs[0]
    costs = []
    for form, size, spent, output in zip(runs, sizes, seconds, outputs, strict=True):
        to_clean = np.nan if clean is None else _snr(fitted, clean, output)
        costs.append(ModelCost(form, size, spent, _snr(fitted, reference, output), to_clean))
    return QuantizationReport(tuple(costs), batch_size, n_repeats, n_threads)


def _torch_run(module: torch.nn.Module, names: list[str]) -> Run:
    def run(inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        with torch.no_grad():
            result: NDArray[Any] = module(*(torch.as_tensor(inputs[n]) for n in names)).numpy()
        return result

    return run


def _in_batches(run: Run, inputs: dict[str, NDArray[Any]], size: int) -> Array:
    n = len(next(iter(inputs.values())))
    parts = [
        run({name: array[start : start + size] for name, array in inputs.items()})
        for start in range(0, n, size)
    ]
    return np.concatenate(parts).astype(np.float64)


def _repeated(array: NDArray[Any], n: int) -> NDArray[Any]:
    """First ``n`` rows; from the beginning again where there are fewer."""
    return np.ascontiguousarray(array[np.arange(n) % len(array)])


def _median_seconds(
    runs: list[Run], inputs: dict[str, NDArray[Any]], n_repeats: int
) -> list[float]:
    """Median time of each, taken in turn: what else the machine does hits all alike."""
    times = np.zeros((n_repeats, len(runs)))
    for run in runs:
        run(inputs)
    for repeat in range(n_repeats):
        for place, run in enumerate(runs):
            start = time.perf_counter()
            run(inputs)
            times[repeat, place] = time.perf_counter() - start
    return [float(value) for value in np.median(times, axis=0)]


def _snr(fitted: DenoiserFit, wanted: Array, found: Array) -> float:
    """Signal-to-noise ratio in dB, in model units: neither offset nor units of variables count."""
    scaler = fitted.scaler
    both = [((part - scaler.location) / scaler.spread).reshape(-1, 1) for part in (wanted, found)]
    return float(signal_to_noise_ratio(*both))


def _bytes_of(model: torch.nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())
