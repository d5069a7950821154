"""Seconds of a default fit of VAEDenoiser on many signals, and of what comes after.

10,000 signals of 512 steps with amplitude, period, phase, trend, level and noise of their own
(:func:`tsvae.datasets.make_factor_series`), from noisy signals alone, all settings default.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from _common import add_common_options, new_parser, write_report

from tsvae.demo.report import format_table

LIMIT = 300.0  # seconds of the fit that count as slow on two cores


def run(options: argparse.Namespace) -> dict[str, float]:
    from tsvae import VAEDenoiser
    from tsvae.datasets import make_factor_series
    from tsvae.metrics import signal_to_noise_ratio

    data = make_factor_series(options.signals, options.steps, random_state=options.seed)
    noisy, clean = data.series[..., 0], data.clean
    settings = {"random_state": options.seed, "verbose": options.verbose, **options.set}
    if options.threads:
        settings["n_threads"] = options.threads
    start = time.perf_counter()
    denoiser = VAEDenoiser(**settings).fit(noisy)
    fitted = time.perf_counter()
    denoised = denoiser.transform(noisy)
    done = time.perf_counter()
    return {
        "fit_seconds": fitted - start,
        "transform_seconds": done - fitted,
        "epochs": len(denoiser.training_log_.rows),
        "steps": int(denoiser.training_log_["step"][-1] or 0),
        "parameters": sum(p.numel() for p in denoiser.model_.parameters()),
        "snr_in": signal_to_noise_ratio(clean, noisy[..., None]),
        "snr_out": signal_to_noise_ratio(clean, np.asarray(denoised)[..., None]),
    }


def result_table(result: dict[str, float], *, markdown: bool) -> str:
    rows = [
        ["fit, s", f"{result['fit_seconds']:.0f}"],
        ["transform, s", f"{result['transform_seconds']:.1f}"],
        ["epochs (steps)", f"{result['epochs']} ({result['steps']:,})"],
        ["parameters", f"{result['parameters']:,}"],
        ["SNR of the signals, dB", f"{result['snr_in']:.1f}"],
        ["SNR denoised, dB", f"{result['snr_out']:.1f}"],
    ]
    return format_table(["", "value"], rows, markdown=markdown)


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--signals", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=512)
    add_common_options(parser, "VAEDenoiser")
    options = parser.parse_args()
    result = run(options)
    print(result_table(result, markdown=False))
    if not options.no_write:
        written = write_report(
            options.output,
            "denoiser_fit",
            title="A default fit of the denoiser",
            table=result_table(result, markdown=True),
            notes=f"{options.signals:,} signals of {options.steps} steps from known factors, noisy "
            "signals alone, one thread unless --threads is given.",
            results=result,
        )
        print("\nWrote " + " and ".join(map(str, written)))
    return 0 if result["fit_seconds"] < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
