"""Results of the factor benchmark and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsvae.demo.report import format_table


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one seed; 1 is best."""

    model: str
    seed: int
    mig: float
    sap: float
    disentanglement: float
    completeness: float
    informativeness: float
    rmse: float
    kl: float | None
    seconds: float
    mig_per_factor: dict[str, float]


@dataclass(frozen=True)
class StudyRow:
    """One setting of the VAE."""

    beta: float
    latent_dim: int
    seed: int
    rmse: float
    kl: float
    active: int
    mig: float
    frechet: float
    discriminative: float
    seconds: float


def spread(values: Sequence[float]) -> str:
    """Mean and, of several seeds, the standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def comparison_table(results: list[Scores], *, markdown: bool) -> str:
    fields = ["mig", "sap", "disentanglement", "completeness", "informativeness"]
    header = ["model", "MIG", "SAP", "DCI disent.", "complet.", "inform.", "RMSE", "KL", "fit, s"]
    rows = []
    for name in dict.fromkeys(r.model for r in results):
        own = [r for r in results if r.model == name]
        scores = [spread([getattr(r, field) for r in own]) for field in fields]
        kl = [r.kl for r in own if r.kl is not None]
        rows.append(
            [
                name,
                *scores,
                f"{np.mean([r.rmse for r in own]):.3f}",
                f"{np.mean(kl):.1f}" if kl else "-",
                f"{np.mean([r.seconds for r in own]):.0f}",
            ]
        )
    return format_table(header, rows, markdown=markdown)


def factor_table(results: list[Scores], *, markdown: bool) -> str:
    """MIG of each factor, mean over seeds."""
    factors = list(results[0].mig_per_factor)
    rows = [
        [name]
        + [
            f"{np.mean([r.mig_per_factor[f] for r in results if r.model == name]):.2f}"
            for f in factors
        ]
        for name in dict.fromkeys(r.model for r in results)
    ]
    return format_table(["MIG", *factors], rows, markdown=markdown)


def study_table(rows: list[StudyRow], *, markdown: bool) -> str:
    header = [
        "beta",
        "code size",
        "RMSE",
        "KL, nats",
        "active",
        "MIG",
        "Frechet",
        "discriminative",
        "fit, s",
    ]
    cells = []
    for beta, size in dict.fromkeys((r.beta, r.latent_dim) for r in rows):
        own = [r for r in rows if (r.beta, r.latent_dim) == (beta, size)]
        numbers = [
            ("rmse", ".3f"),
            ("kl", ".1f"),
            ("active", ".1f" if len(own) > 1 else ".0f"),
            ("mig", ".3f"),
            ("frechet", ".2f"),
            ("discriminative", ".3f"),
            ("seconds", ".0f"),
        ]
        means = [f"{np.mean([getattr(r, name) for r in own]):{form}}" for name, form in numbers]
        cells.append([f"{beta:g}", str(size), *means])
    return format_table(header, cells, markdown=markdown)


def ahead(results: list[Scores]) -> bool:
    """Whether Ada-GVAE leads the VAE on the means of MIG, SAP and DCI disentanglement."""

    def mean(model: str, field: str) -> float:
        return float(np.mean([getattr(r, field) for r in results if r.model == model]))

    fields = ("mig", "sap", "disentanglement")
    return all(mean("Ada-GVAE", field) > mean("VAE", field) for field in fields)
