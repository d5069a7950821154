"""Export the denoiser to ONNX and quantise it: size, speed and quality on an electrocardiogram.

The default denoiser is trained for a few epochs on windows of 512 samples of the first half of an
electrocardiogram with white noise (data and noise as in denoising.py) and cleans the second half:
in torch, as an ONNX graph and as an int8 ONNX graph, timed in turn in one run; then as graphs that
are quantised in other ways. Every kind of model, trained for one epoch, is exported in its three
parts and compared with torch.

The data are read from the folder named by the environment variable TSVAE_DATA.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _common import add_common_options, new_parser, write_report
from _ecg import WINDOW, load_halves
from denoising import Task, make_task

from tsvae.demo.report import format_table

BATCHES = (1, 32)
KINDS = ("ae", "vae", "conditional", "hierarchical", "vq")
PARTS = ("denoise", "encode", "decode")
FORMS = ("torch", "onnx float32", "onnx int8")
CHOSEN = "uint8 weights (quantize_onnx)"
# Name: type of the weights, operators, one scale for each output channel instead of each tensor.
CHOICES: dict[str, tuple[str, list[str], bool]] = {
    "uint8 weights, scale per channel": ("QUInt8", ["Conv", "MatMul"], True),
    "uint8 weights, dense layers alone": ("QUInt8", ["MatMul"], False),
    "int8 weights": ("QInt8", ["Conv", "MatMul"], False),
    "int8 weights, scale per channel": ("QInt8", ["Conv", "MatMul"], True),
}


def fit(task: Task, options: argparse.Namespace) -> tuple[Any, float]:
    """Fit the denoiser with clean targets; return it and the seconds that took."""
    from tsvae import VAEDenoiser

    settings = {"max_epochs": options.epochs, "random_state": options.seed, **options.set}
    denoiser = VAEDenoiser(verbose=options.verbose, n_threads=options.threads, **settings)
    start = time.perf_counter()
    denoiser.fit(task.train.noisy, clean=task.train.clean)
    return denoiser, time.perf_counter() - start


def measure_forms(denoiser: Any, task: Task, options: argparse.Namespace) -> list[dict[str, Any]]:
    from tsvae.export import quantization_report

    reports = {
        size: quantization_report(
            denoiser,
            task.test.noisy,
            clean=task.test.clean,
            batch_size=size,
            n_repeats=options.repeats,
            n_threads=options.threads,
        )
        for size in BATCHES
    }
    rows = []
    for form in FORMS:
        # In int8 the ranges of numbers are those of the batch: quality may depend on its size.
        seconds = {str(size): report[form].seconds for size, report in reports.items()}
        quality = {str(size): report[form]._asdict() for size, report in reports.items()}
        rows.append(
            {
                "form": form,
                "size": reports[BATCHES[0]][form].size,
                "seconds": seconds,
                "snr_to_torch": {size: row["snr_to_torch"] for size, row in quality.items()},
                "snr_to_clean": {size: row["snr_to_clean"] for size, row in quality.items()},
            }
        )
    return rows


def measure_choices(denoiser: Any, task: Task, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Other ways of quantising the same graph: weights, operators; against the float32 graph."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from tsvae.export import export_onnx, quantize_onnx
    from tsvae.metrics import signal_to_noise_ratio

    noisy = task.test.noisy[: BATCHES[-1], :, None].astype(np.float32)
    inputs = {"signal": noisy, "mask": np.isfinite(noisy)}
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        export_onnx(denoiser, plain)
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        files = {"float32": plain, CHOSEN: Path(folder) / "chosen.onnx"}
        quantize_onnx(plain, files[CHOSEN])
        for name, (weights, operators, per_channel) in CHOICES.items():
            files[name] = Path(folder) / f"{len(files)}.onnx"
            quantize_dynamic(
                str(prepared),
                str(files[name]),
                op_types_to_quantize=operators,
                weight_type=getattr(QuantType, weights),
                per_channel=per_channel,
            )
        runs = {name: _session(file, options.threads) for name, file in files.items()}
        outputs = {name: run.run(None, inputs)[0] for name, run in runs.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.repeats):
            for name, run in runs.items():
                start = time.perf_counter()
                run.run(None, inputs)
                times[name].append(time.perf_counter() - start)
        exact = outputs["float32"].ravel().astype(np.float64)
        return [
            {
                "choice": name,
                "size": file.stat().st_size,
                "seconds": float(np.median(times[name])),
                "snr_to_float32": float(
                    signal_to_noise_ratio(exact, outputs[name].ravel().astype(np.float64))
                ),
            }
            for name, file in files.items()
        ]


def _session(file: Path, n_threads: int) -> Any:
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = n_threads
    return onnxruntime.InferenceSession(
        str(file), session_options, providers=["CPUExecutionProvider"]
    )


def export_all(task: Task, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Largest difference of each part of each kind of model, after one epoch on few windows."""
    from tsvae import VAEDenoiser
    from tsvae.export import export_onnx

    rng = np.random.default_rng(options.seed)
    noisy, clean = task.train.noisy[:64], task.train.clean[:64]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            denoiser = VAEDenoiser(
                model=kind, max_epochs=1, random_state=options.seed, n_threads=options.threads
            )
            condition = rng.standard_normal(len(noisy)) if kind == "conditional" else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # one epoch makes no healthy model
                denoiser.fit(noisy, clean=clean, condition=condition)
            path = Path(folder) / "part.onnx"
            differences = {
                part: export_onnx(denoiser, path, part).largest_difference for part in PARTS
            }
            rows.append({"model": kind, "differences": differences})
            print(f"{kind}: {differences}", file=sys.stderr)
    return rows


def forms_table(rows: list[dict[str, Any]], *, markdown: bool) -> str:
    header = ["", "kB", *(f"ms, batch of {size}" for size in BATCHES)]
    header += ["SNR to torch, dB", "SNR to clean, dB"]
    largest = str(BATCHES[-1])
    cells = [
        [
            row["form"],
            f"{row['size'] / 1000:.0f}",
            *(f"{1000 * row['seconds'][str(size)]:.1f}" for size in BATCHES),
            "" if row["form"] == "torch" else f"{row['snr_to_torch'][largest]:.1f}",
            f"{row['snr_to_clean'][largest]:.2f}",
        ]
        for row in rows
    ]
    return format_table(header, cells, markdown=markdown)


def choices_table(rows: list[dict[str, Any]], *, markdown: bool) -> str:
    header = ["", "kB", f"ms, batch of {BATCHES[-1]}", "SNR to float32, dB"]
    cells = [
        [
            row["choice"],
            f"{row['size'] / 1000:.0f}",
            f"{1000 * row['seconds']:.1f}",
            "" if np.isinf(row["snr_to_float32"]) else f"{row['snr_to_float32']:.1f}",
        ]
        for row in rows
    ]
    return format_table(header, cells, markdown=markdown)


def parts_table(rows: list[dict[str, Any]], *, markdown: bool) -> str:
    cells = [[r["model"], *(f"{r['differences'][part]:.1e}" for part in PARTS)] for r in rows]
    return format_table(["model", *PARTS], cells, markdown=markdown)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--snr", type=float, default=10.0, help="of the input, dB")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=30, help="of each timing")
    parser.add_argument("--stride", type=int, default=256, help="between training windows")
    add_common_options(parser, "VAEDenoiser")
    parser.set_defaults(threads=1, missing=0.0)
    options = parser.parse_args(arguments)
    return options


def main() -> None:
    options = parse()
    import torch

    torch.set_num_threads(options.threads)
    task = make_task(load_halves(), options.snr, options)
    denoiser, seconds = fit(task, options)
    forms = measure_forms(denoiser, task, options)
    choices = measure_choices(denoiser, task, options)
    parts = export_all(task, options)
    title = "The denoiser in ONNX, and in 8 bits"
    tables = [forms_table(forms, markdown=False), choices_table(choices, markdown=False)]
    print("\n\n".join([title, *tables, parts_table(parts, markdown=False)]))
    if options.no_write:
        return
    without = float(
        10
        * np.log10(np.mean(task.test.clean**2) / np.mean((task.test.noisy - task.test.clean) ** 2))
    )
    written = write_report(
        options.output,
        "export",
        title=title,
        table=forms_table(forms, markdown=True),
        notes=(
            f"Part `denoise` of the default denoiser after {options.epochs} epochs with clean "
            f"targets ({seconds:.0f} s), on {len(task.test.noisy):,} windows of {WINDOW} samples "
            f"at {without:.1f} dB. Median times of {options.repeats} repeats, the three forms in "
            f"turn; {options.threads} thread. Size: torch's parameters and buffers, and the files. "
            "Signal-to-noise ratios of all windows: torch's output over the difference from it, "
            "and clean windows over the difference from them.\n\n"
            "Ways of quantising the same graph, on the first batch:\n\n"
            + choices_table(choices, markdown=True)
            + "\n\nLargest difference from torch on random records, of signals in units of the "
            "training data's spread, of codes relative to the largest; models of one epoch:\n\n"
            + parts_table(parts, markdown=True)
        ),
        results={
            "settings": options.set,
            "forms": forms,
            "choices": choices,
            "parts": parts,
            "fit_seconds": seconds,
        },
    )
    print("\nWrote " + " and ".join(map(str, written)))


if __name__ == "__main__":
    main()
