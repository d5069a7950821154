"""Deployment: a fitted denoiser as ONNX graphs that run without Python or torch.

.. code-block:: python

    from tsvae.export import export_onnx, quantize_onnx

    export_onnx(denoiser, "denoise.onnx")
    quantize_onnx("denoise.onnx", "denoise_int8.onnx")

    session = onnxruntime.InferenceSession("denoise.onnx")
    (clean,) = session.run(["denoised"], {"signal": x, "mask": np.isfinite(x)})  # x: (B, T, F)

A graph takes any number of records, in the units that the denoiser was fitted in: scaling is part
of it. Needs onnx and onnxruntime: ``pip install "tsvae[export]"``.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from tsvae._export.checking import Records, largest_difference
from tsvae._export.graph import Part, check_part, input_names, output_name
from tsvae._export.report import ModelCost, QuantizationReport, measure
from tsvae._export.runtime import Runner, require
from tsvae._export.writing import quantize_file, write_graph

if TYPE_CHECKING:
    from tsvae._denoiser.denoising import DenoiserFit
    from tsvae.denoiser import VAEDenoiser

__all__ = [
    "ExportResult",
    "ModelCost",
    "QuantizationReport",
    "export_onnx",
    "quantization_report",
    "quantize_onnx",
]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class ExportResult(NamedTuple):
    """An ONNX file.

    Attributes
    ----------
    path : Path
    part : {"encode", "decode", "denoise"}
    inputs : tuple of str
        Names of the graph's inputs.
    output : str
        Name of its output.
    largest_difference : float
        From the denoiser's own result, on random records; see :func:`export_onnx`.
    """

    path: Path
    part: Part
    inputs: tuple[str, ...]
    output: str
    largest_difference: float


def export_onnx(
    denoiser: VAEDenoiser,
    path: str | PathLike[str],
    part: Part = "denoise",
    *,
    dtype: Literal["float32", "float64"] = "float32",
    tolerance: float = 1e-4,
) -> ExportResult:
    """Write a part of a fitted denoiser as an ONNX graph, checked by running it.

    Parameters
    ----------
    denoiser : VAEDenoiser
        Fitted; any ``model``. With ``window=`` the graph takes windows; cutting and blending them
        stays with the caller.
    path : str or path
        File to write; nothing is written if the check fails.
    part : {"denoise", "encode", "decode"}, default="denoise"
        Signals to clean signals, signals to codes (means of q(z|x)), or codes to signals: what
        ``reconstruct``, ``encode`` and ``decode`` do.
    dtype : {"float32", "float64"}, default="float32"
        Of inputs and output. float64 for signals with an offset many times their spread, of which
        float32 would lose the digits that count. The networks compute in float32.
    tolerance : float, default=1e-4
        Largest difference from the denoiser's own result that is accepted: of signals in units of
        the training data's spread, of codes relative to the largest where that is above 1.

    Returns
    -------
    ExportResult

    Raises
    ------
    ImportError
        Without onnx or onnxruntime.
    TypeError, ValueError
        If the denoiser or a parameter is of no use.
    RuntimeError
        If torch cannot export the networks, or the graph does not give the denoiser's result.

    Notes
    -----
    Inputs, B being free:

    - ``signal`` (B, T, F), in the units of fit; missing entries may hold anything;
    - ``mask`` (B, T, F), bool: True = observed. An entry that is NaN is missing as well;
    - ``code`` (B, n_latent_), of the part "decode" instead of the two;
    - ``condition`` (B, C), only of ``model="conditional"``: numbers in their units, categories as
      their position in the list that the file's metadata hold under ``condition``.

    Output: ``denoised`` or ``decoded`` (B, T, F), or ``code`` (B, n_latent_). Further metadata, as
    JSON: ``part``, ``model``, ``n_steps``, ``variables``, ``latent_shape``, ``tsvae_version``.
    """
    check_part(part)
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}.")
    if not tolerance > 0.0:
        raise ValueError(f"tolerance must be positive, got {tolerance!r}.")
    fitted = _fit_of(denoiser)
    require("onnxruntime")
    content = write_graph(fitted, part, _DTYPES[dtype])
    difference = largest_difference(
        fitted, part, np.float64 if dtype == "float64" else np.float32, Runner(content)
    )
    if not difference <= tolerance:
        remedy = "raise tolerance if that is good enough."
        if dtype == "float32" and part != "encode":
            remedy = "use dtype='float64' if the signals' offset is large; else " + remedy
        raise RuntimeError(
            f"the graph of the part {part!r} differs from the denoiser by {difference:.2g}, more "
            f"than tolerance={tolerance:g}: nothing was written; {remedy}"
        )
    target = Path(path)
    target.write_bytes(content)
    return ExportResult(
        target, part, tuple(input_names(fitted, part)), output_name(part), difference
    )


def quantize_onnx(source: str | PathLike[str], target: str | PathLike[str]) -> Path:
    """Write an int8 version of an exported graph.

    Weights of convolutions and dense layers become 8-bit numbers (one scale per tensor), and what
    they are multiplied with is rounded to 8 bits while the graph runs, by its own range in the
    batch: the result for a record depends a little on the records beside it. Transposed
    convolutions (the decoder of ``architecture="conv"``) are stored in 8 bits but computed in
    float32; the codebook of ``model="vq"`` stays float32. :func:`quantization_report` says what
    that saves and costs.

    Parameters
    ----------
    source : str or path
        From :func:`export_onnx`.
    target : str or path

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    ImportError
        Without onnx or onnxruntime.
    FileNotFoundError
        If there is no source.
    """
    source, target = Path(source), Path(target)
    if not source.is_file():
        raise FileNotFoundError(f"{source} does not exist; write it with export_onnx first.")
    quantize_file(source, target)
    return target


def quantization_report(
    denoiser: VAEDenoiser,
    X: Any,
    *,
    clean: Any = None,
    mask: Any = None,
    condition: Any = None,
    batch_size: int = 32,
    n_repeats: int = 20,
    n_threads: int = 1,
) -> QuantizationReport:
    """Size, speed and quality of the part "denoise" in torch, as graph and as int8 graph.

    Parameters
    ----------
    denoiser : VAEDenoiser
        Fitted.
    X : same kind as in fit
        Records to denoise; with ``window=`` the windows that lie side by side.
    clean : same kind and shape as X, optional
        What the result should be.
    mask, condition : optional
        As in :meth:`VAEDenoiser.encode`.
    batch_size : int, default=32
        Records at once.
    n_repeats : int, default=20
        Times that one batch is timed; the three forms in turn, and the median of each counts.
    n_threads : int, default=1
        CPU threads of torch and onnxruntime.

    Returns
    -------
    QuantizationReport
        ``to_frame()`` for a table. Signal-to-noise ratios in dB over all records, of signals less
        the training data's mean.
    """
    from tsvae.nn.checks import check_size

    fitted = _fit_of(denoiser)
    signals = denoiser._signals(X, mask)
    windows = signals.windows(overlap=False)
    given = denoiser._given(condition, len(signals.values))
    if given is not None:
        given = given[windows.starts.series]
    target = None
    if clean is not None:
        wanted = denoiser._clean(clean, signals, "clean")
        target_windows = wanted.windows(overlap=False)
        target = np.where(target_windows.mask, target_windows.values, np.nan)
    return measure(
        fitted,
        Records(windows.values, windows.mask, np.zeros((0, 0)), given),
        target,
        batch_size=check_size("batch_size", batch_size),
        n_repeats=check_size("n_repeats", n_repeats),
        n_threads=check_size("n_threads", n_threads),
    )


def _fit_of(denoiser: Any) -> DenoiserFit:
    from tsvae.denoiser import VAEDenoiser

    if not isinstance(denoiser, VAEDenoiser):
        raise TypeError(f"denoiser must be a VAEDenoiser, got {type(denoiser).__name__}.")
    return denoiser._fitted()
