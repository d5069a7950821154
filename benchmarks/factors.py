"""Do the codes of the autoencoders find the factors that made the data?

Sinusoids on a line with five known factors: amplitude, period, phase, trend and level; the noise
has one level, as a decoder with one scale has no reason to encode it. Models see pairs of series
that differ in one factor. PCA, VAE and beta-VAE take the views as series like any other; Ada-GVAE
knows that they are pairs, not what they share. The mutual information gap (MIG), the separated
attribute predictability (SAP) and disentanglement, completeness and informativeness (DCI) are those
of posterior means of fresh series.

With --study: reconstruction, KL, MIG and likeness of generated series for several beta and sizes of
the code of the VAE.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from _common import add_report_options, new_parser, write_report
from _factor_results import (
    Scores,
    StudyRow,
    ahead,
    comparison_table,
    factor_table,
    study_table,
)
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from tsvae.datasets import FactorPairs, FactorSeries, make_factor_pairs, make_factor_series
from tsvae.metrics import (
    dci_scores,
    discriminative_score,
    frechet_distance,
    mutual_information_gap,
    separated_attribute_predictability,
)
from tsvae.models import VAE, AdaGVAE
from tsvae.nn import MLPDecoder, MLPEncoder
from tsvae.training import TrainingConfig, train

Array = NDArray[np.float64]
Batch = dict[str, Tensor]

NOISE = 0.1
RANGES: dict[str, float] = {"noise": NOISE}
N_PAIRS, N_TEST, N_STEPS = 5000, 3000, 64
N_DCI = 1500  # gradient boosting is the slow part of the scores
LATENT_DIM, BETA = 10, 4.0
HIDDEN_SIZES = (256, 256)
STUDY_BETAS, STUDY_SIZES = (0.5, 1.0, 4.0, 10.0), (10, 20, 50, 128)


class Data(NamedTuple):
    """Pairs to learn from and fresh series to score on; values as drawn."""

    pairs: FactorPairs
    test: FactorSeries

    @property
    def scale(self) -> float:
        return float(np.concatenate([view.series for view in self.pairs[:2]]).std())


class Budget(NamedTuple):
    """Length of a training."""

    n_steps: int
    n_pairs: int = 128  # a batch; for models without pairs twice as many series
    learning_rate: float = 1e-3


class Codes(NamedTuple):
    """What a model makes of the test series."""

    codes: Array  # (N, D) posterior means
    reconstruction: Array  # (N, T, 1) in units of the data
    kl: Array | None  # (D,) nats, mean over series


def make_data(seed: int) -> Data:
    rng = np.random.default_rng(seed)
    return Data(
        make_factor_pairs(N_PAIRS, N_STEPS, n_changed=1, ranges=RANGES, random_state=rng),
        make_factor_series(N_TEST, N_STEPS, ranges=RANGES, random_state=rng),
    )


def as_tensor(series: Array, scale: float) -> Tensor:
    return torch.as_tensor(series / scale, dtype=torch.float32)


# -- models ----------------------------------------------------------------------------------------


def make_model(kind: type[VAE], latent_dim: int, beta: float, n_steps: int, seed: int) -> VAE:
    """MLP encoder and decoder; the KL term is annealed over the first quarter of the steps."""
    generator = torch.Generator().manual_seed(seed)
    encoder = MLPEncoder(1, N_STEPS, HIDDEN_SIZES, residual=False, generator=generator)
    sizes = HIDDEN_SIZES[::-1]
    decoder = MLPDecoder(latent_dim, N_STEPS, 1, sizes, residual=False, generator=generator)
    options: dict[str, Any] = {"beta": beta, "annealing_steps": n_steps // 4}
    return kind(encoder, decoder, latent_dim, scale="learned", generator=generator, **options)


def paired(first: Tensor, second: Tensor) -> Batch:
    return {"x": first, "x_pair": second}


def unpaired(first: Tensor, second: Tensor) -> Batch:
    return {"x": torch.cat([first, second])}


def batches_of(
    data: Data, n_pairs: int, collate: Callable[[Tensor, Tensor], Batch]
) -> Callable[[int, torch.Generator], list[Batch]]:
    """Epochs of shuffled pairs."""
    first, second = (as_tensor(view.series, data.scale) for view in data.pairs[:2])

    def epoch(_: int, generator: torch.Generator) -> list[Batch]:
        order = torch.randperm(len(first), generator=generator)
        order = order[: len(order) // n_pairs * n_pairs]
        return [collate(first[rows], second[rows]) for rows in order.split(n_pairs)]

    return epoch


def fit(
    kind: type[VAE], data: Data, *, beta: float, latent_dim: int, seed: int, budget: Budget
) -> VAE:
    model = make_model(kind, latent_dim, beta, budget.n_steps, seed)
    model.build(as_tensor(data.test.series[:2], data.scale))
    config = TrainingConfig(
        max_epochs=-(-budget.n_steps // (N_PAIRS // budget.n_pairs)),
        max_steps=budget.n_steps,
        batch_size=budget.n_pairs,
        learning_rate=budget.learning_rate,
        device="cpu",
    )
    collate = paired if kind is AdaGVAE else unpaired
    train(
        model,
        batches_of(data, budget.n_pairs, collate),
        config=config,
        generator=torch.Generator().manual_seed(seed),
    )
    return model.eval()


@torch.no_grad()
def encode(model: VAE, data: Data) -> Codes:
    x = as_tensor(data.test.series, data.scale)
    found = model.encode(x)
    x_hat = model.decode(found.z[:, 0]).x_hat
    return Codes(
        found.mu[:, 0].double().numpy(),
        x_hat.double().numpy() * data.scale,
        model.kl_per_dimension(x).double().numpy(),
    )


def encode_by_pca(data: Data, latent_dim: int, seed: int) -> Codes:
    train_series = np.concatenate([view.series[..., 0] for view in data.pairs[:2]])
    pca = PCA(latent_dim, random_state=seed).fit(train_series)
    codes = pca.transform(data.test.series[..., 0])
    return Codes(codes, pca.inverse_transform(codes)[..., None], None)


# -- scores ----------------------------------------------------------------------------------------


def root_mean_square(error: Array) -> float:
    return float(np.sqrt(np.mean(error**2)))


def score(model: str, seed: int, found: Codes, data: Data, seconds: float) -> Scores:
    factors = data.test.varied
    gaps = mutual_information_gap(found.codes, factors, multioutput="raw_values")
    dci = dci_scores(found.codes[:N_DCI], factors.iloc[:N_DCI], random_state=seed)
    return Scores(
        model=model,
        seed=seed,
        mig=float(np.mean(gaps)),
        sap=float(separated_attribute_predictability(found.codes, factors)),
        disentanglement=dci.disentanglement,
        completeness=dci.completeness,
        informativeness=dci.informativeness,
        rmse=root_mean_square(found.reconstruction - data.test.clean),
        kl=None if found.kl is None else float(found.kl.sum()),
        seconds=seconds,
        mig_per_factor=dict(zip(factors, np.asarray(gaps).tolist(), strict=True)),
    )


def compare(seed: int, budget: Budget) -> list[Scores]:
    """Score all models on the data of one seed."""
    data = make_data(seed)
    start = time.perf_counter()
    found = encode_by_pca(data, LATENT_DIM, seed)
    results = [score("PCA", seed, found, data, time.perf_counter() - start)]
    for name, kind, beta in (
        ("VAE", VAE, 1.0),
        (f"beta-VAE ({BETA:g})", VAE, BETA),
        ("Ada-GVAE", AdaGVAE, 1.0),
    ):
        start = time.perf_counter()
        model = fit(kind, data, beta=beta, latent_dim=LATENT_DIM, seed=seed, budget=budget)
        seconds = time.perf_counter() - start
        results.append(score(name, seed, encode(model, data), data, seconds))
    return results


@torch.no_grad()
def generate(model: VAE, data: Data, seed: int) -> Array:
    """Decode draws from the prior: means, in units of the data."""
    z = model.sample_prior(N_TEST, torch.Generator().manual_seed(seed))
    return model.decode(z).x_hat.double().numpy() * data.scale


def study(beta: float, latent_dim: int, seed: int, budget: Budget) -> StudyRow:
    """Train the VAE once and measure what it keeps, and what it generates."""
    data = make_data(seed)
    start = time.perf_counter()
    model = fit(VAE, data, beta=beta, latent_dim=latent_dim, seed=seed, budget=budget)
    seconds = time.perf_counter() - start
    found, drawn = encode(model, data), generate(model, data, seed)
    assert found.kl is not None
    return StudyRow(
        beta=beta,
        latent_dim=latent_dim,
        seed=seed,
        rmse=root_mean_square(found.reconstruction - data.test.clean),
        kl=float(found.kl.sum()),
        active=int((found.kl > 0.01).sum()),
        mig=float(mutual_information_gap(found.codes, data.test.varied)),
        frechet=frechet_distance(data.test.clean, drawn),
        discriminative=discriminative_score(
            data.test.clean[:1000], drawn[:1000], random_state=seed
        ),
        seconds=seconds,
    )


def floor(seed: int) -> tuple[float, float]:
    """Frechet distance and discriminative score of real series against other real ones."""
    data = make_data(seed)
    other = data.pairs.first.clean[:N_TEST]
    return (
        frechet_distance(data.test.clean, other),
        discriminative_score(data.test.clean[:1000], other[:1000], random_state=seed),
    )


# -- reports ---------------------------------------------------------------------------------------


DATA_NOTES = (
    f"{N_PAIRS:,} pairs of series of {N_STEPS} steps that differ in one of five factors, noise "
    f"{NOISE:g}; scored on {N_TEST:,} fresh series. RMSE: reconstruction from the posterior mean "
    "against the series without noise, in units of the data."
)


def run_comparison(options: argparse.Namespace, budget: Budget) -> bool:
    results = [r for seed in options.seeds for r in compare(seed, budget)]
    print(
        comparison_table(results, markdown=False), factor_table(results, markdown=False), sep="\n\n"
    )
    notes = (
        f"{DATA_NOTES} Code size {LATENT_DIM}, MLPs of {HIDDEN_SIZES}, {budget.n_steps:,} steps of "
        f"{budget.n_pairs} pairs. Mean and standard deviation over {len(options.seeds)} seeds "
        "(data and model). DCI by gradient boosting. Ada-GVAE knows which series are pairs, the "
        "others do not; its lead is what that knowledge is worth."
    )
    if not options.no_write:
        tables = [f(results, markdown=True) for f in (comparison_table, factor_table)]
        written = write_report(
            options.output,
            "factors",
            title="Factors of known series in the codes",
            table="\n\n".join(tables),
            notes=notes,
            results={"runs": [asdict(r) for r in results]},
        )
        print("\nWrote " + " and ".join(map(str, written)))
    return ahead(results)


def run_study(options: argparse.Namespace, budget: Budget) -> bool:
    rows = [
        study(beta, size, seed, budget)
        for beta, size in product(STUDY_BETAS, STUDY_SIZES)
        for seed in options.seeds
    ]
    print(study_table(rows, markdown=False))
    frechet, discriminative = np.mean([floor(seed) for seed in options.seeds], axis=0)
    notes = (
        f"{DATA_NOTES} VAE, MLPs of {HIDDEN_SIZES}, {budget.n_steps:,} steps of "
        f"{2 * budget.n_pairs} series; seeds {options.seeds}. Active: code entries with a "
        "KL above 0.01 nats. Frechet distance by simple statistics and discriminative score by a "
        "random forest on them, of decoded draws from the prior against series without noise; two "
        f"sets of real series have {frechet:.2f} and {discriminative:.3f}."
    )
    print("\n" + notes)
    if not options.no_write:
        written = write_report(
            options.output,
            "factors_study",
            title="VAE on factor data: beta and the size of the code",
            table=study_table(rows, markdown=True),
            notes=notes,
            results={"runs": [asdict(r) for r in rows]},
        )
        print("\nWrote " + " and ".join(map(str, written)))
    return True


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--study", action="store_true", help="sweep beta and the code's size")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="default: 0 1 2, and 0 alone for the study"
    )
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps of each model")
    add_report_options(parser)
    options = parser.parse_args()
    options.seeds = options.seeds or ([0] if options.study else [0, 1, 2])
    torch.set_num_threads(1)  # small matrices: more threads cost more than they give
    passed = (run_study if options.study else run_comparison)(options, Budget(options.steps))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
