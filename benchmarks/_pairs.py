"""Paired records of the benchmarks, and the scores of what one side says about the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from _common import find_file
from _ecg import WINDOW, load_leads, windows
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.float64]
Rows = NDArray[np.integer]  # row numbers

GOLD_FROM = (
    "(no measurement): 3,000 samples of gold spheres, each seen twice, as .npz with `saxs` (3000, "
    "256), log10 intensity from the analytic form factor of a sphere at `q_inv_nm` (0.03 to 3), "
    "noise of 3 %, and `uvvis` (3000, 256), extinction from Mie theory at `wavelength_nm` (380 to "
    "900), noise of 0.01; radius 4 to 40 nm, its relative spread 0.04 to 0.3 and the concentration "
    "0.2 to 4.5 are the same for both arrays of a sample"
)
N_TRAIN, N_TEST = 2500, 500
SIDES = ("SAXS", "UV-Vis")


class Pairs(NamedTuple):
    """Records (N, T) of both sides; row i of `x` and row i of `y` are of the same thing."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array


class Gold(NamedTuple):
    """Scattering (x) and extinction (y) of gold nanoparticles, with what the columns stand for."""

    pairs: Pairs
    q: Array  # 1/nm
    wavelength: Array  # nm


class Semi(NamedTuple):
    """Training rows (N, T), NaN on the side that was not measured."""

    x: Array
    y: Array


class Matches(NamedTuple):
    """Share of records whose partner was found."""

    top_1: float  # as the best match
    top_5: float  # among the five best
    assignment: float  # when no record is given away twice


def load_gold(*, validation: bool = False) -> Gold:
    """Read the first 2,500 samples for training, the last 500 for testing.

    With `validation`, the last 500 of the 2,500 stand in for the test part.
    """
    path = find_file("pairs", "gold_nanoparticles.npz", GOLD_FROM, verb="is simulated")
    with np.load(path) as file:
        x, y = (file[side].astype(np.float64) for side in ("saxs", "uvvis"))
        q, wavelength = (file[a].astype(np.float64) for a in ("q_inv_nm", "wavelength_nm"))
    end = N_TRAIN if validation else len(x)
    start = end - N_TEST
    train = slice(0, min(start, N_TRAIN))
    return Gold(Pairs(x[train], y[train], x[start:end], y[start:end]), q, wavelength)


def load_ecg(*, missing: float = 0.0, validation: bool = False, seed: int = 0) -> Pairs:
    """Windows of the leads MLII (x) and V5 (y); those of the training half overlap by half.

    `missing` is the share of the samples that are NaN, drawn apart for both leads of the training
    part and for MLII of the test part; V5 of the test part is complete. With `validation`, the
    last quarter of the training half stands in for the test half.
    """
    halves = load_leads(("MLII", "V5"))
    train, test = halves.train, halves.test
    if validation:
        border = 3 * train.shape[1] // 4 // WINDOW * WINDOW
        train, test = train[:, :border], train[:, border:]
    rng = np.random.default_rng([seed, 1])
    # Gaps belong to the recording: overlapping windows share them.
    train, seen = (
        np.where(rng.random(part.shape) < missing, np.nan, part) for part in (train, test[0])
    )
    x, y = (windows(lead, WINDOW, WINDOW // 2) for lead in train)
    return Pairs(x, y, *(windows(lead, WINDOW, WINDOW) for lead in (seen, test[1])))


def unpair(pairs: Pairs, n_paired: int) -> Semi:
    """Keep the first rows as pairs; of the others each side stays, without its partner."""
    x, y = pairs.x[n_paired:], pairs.y[n_paired:]
    return Semi(
        np.concatenate([pairs.x[:n_paired], x, np.full((len(y), x.shape[1]), np.nan)]),
        np.concatenate([pairs.y[:n_paired], np.full((len(x), y.shape[1]), np.nan), y]),
    )


def first_pairs(pairs: Pairs, n_paired: int) -> Pairs:
    return pairs._replace(x=pairs.x[:n_paired], y=pairs.y[:n_paired])


def rmse(actual: Array, predicted: ArrayLike) -> float:
    return float(np.sqrt(np.mean((actual - np.asarray(predicted)) ** 2)))


def pooled_r2(actual: Array, predicted: ArrayLike) -> float:
    """Explained share of the variance of all samples of all windows together."""
    error = np.sum((actual - np.asarray(predicted)) ** 2)
    return float(1 - error / np.sum((actual - actual.mean()) ** 2))


def share_inside(actual: Array, lower: ArrayLike, upper: ArrayLike) -> float:
    return float(np.mean((actual >= np.asarray(lower)) & (actual <= np.asarray(upper))))


def match(best: Rows, assignment: Rows, partner: Rows) -> Matches:
    """Score ranked partners (N, 5) and one-to-one partners (N,) against the true ones (N,)."""
    found = np.asarray(best)[:, :5] == partner[:, None]
    return Matches(
        float(found[:, 0].mean()),
        float(found.any(axis=1).mean()),
        float(np.mean(np.asarray(assignment) == partner)),
    )


def match_nearest(predicted: Array, candidates: Array, partner: Rows) -> Matches:
    """Take the candidates that are nearest to what was predicted (Euclidean distance)."""
    from scipy.spatial.distance import cdist

    distances = cdist(predicted, candidates)
    best = np.argsort(distances, axis=1, kind="stable")
    return match(best, linear_sum_assignment(distances)[1], partner)
