"""Evidence that two records are of one sample, and how much each kind of it weighs.

Three kinds: how much better the record of y fits the prediction from X than it fits any sample, the
same of X from y, and how near the codes are. Each adds up errors that are not independent, so each
has a weight, fitted so that the softmax of the scores tells pairs apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from tsvae._linker.matching import gaussian_scores
from tsvae._linker.spread import Spread
from tsvae._linker.translator import SideName, Translator

__all__ = ["Encoded", "Evidence", "fit_evidence", "standard_draws"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_START = (0.2, 0.1, 0.3)  # weights before any pair is seen
_PRIOR_SPREAD = 2.0  # of the logarithms of the weights about the start
_PRIOR_PAIRS = 5.0  # pairs' worth of weight that a diagonal covariance of differences has
_FEWEST_PAIRS = 5  # to fit the weights on
_MOST_PAIRS = 256
_DRAWS = 64  # of each prediction, for its spread
_RECORDS_AT_ONCE = 64


class Marginal(NamedTuple):
    """What any record of a side is like.

    Attributes
    ----------
    location, scale : ndarray of shape (W, F)
        Means and standard deviations in model units.
    """

    location: Array
    scale: Array


class Encoded(NamedTuple):
    """Records of one side in model units, with their codes.

    Attributes
    ----------
    values : ndarray of shape (N, W, F)
    mask : bool ndarray of shape (N, W, F)
    posterior : ndarray of shape (N, 2, n_latent)
    """

    values: Array
    mask: Mask
    posterior: Array

    def rows(self, chosen: Any) -> Encoded:
        """Return some of the records."""
        return Encoded(self.values[chosen], self.mask[chosen], self.posterior[chosen])


def standard_draws(n: int, size: int) -> Array:
    """Return common random numbers (n, 1, size), antithetic pairs, so that their mean is 0."""
    half = np.random.default_rng(0).standard_normal(((n + 1) // 2, 1, size))
    return np.concatenate([half, -half])[:n]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Weights of the three kinds of evidence.

    Attributes
    ----------
    weights : ndarray of shape (3,)
        Of y from X, of X from y, of the codes.
    precision : ndarray of shape (n_latent, n_latent)
        Inverse covariance of the difference between the codes of a pair.
    marginals : dict of Marginal
        Of both sides.
    """

    weights: Array
    precision: Array
    marginals: dict[SideName, Marginal]

    def scores(
        self, translator: Translator, spreads: dict[SideName, Spread], a: Encoded, b: Encoded
    ) -> Array:
        """Scores (n, m) of records of X with records of y."""
        kinds = _kinds(translator, spreads, self.marginals, a, b, self.precision)
        found: Array = np.tensordot(self.weights, kinds, axes=1)
        return found

    def to_arrays(self) -> dict[str, Array]:
        """Arrays by name."""
        arrays = {"weights": self.weights, "precision": self.precision}
        for side, marginal in self.marginals.items():
            arrays |= {f"location_{side}": marginal.location, f"scale_{side}": marginal.scale}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Evidence:
        """Inverse of :meth:`to_arrays`."""
        found = {name: np.asarray(value, dtype=float) for name, value in arrays.items()}
        sides: tuple[SideName, SideName] = ("a", "b")
        marginals = {s: Marginal(found[f"location_{s}"], found[f"scale_{s}"]) for s in sides}
        return cls(found["weights"], found["precision"], marginals)


def fit_evidence(
    translator: Translator, spreads: dict[SideName, Spread], a: Encoded, b: Encoded
) -> Evidence:
    """Weigh the evidence on pairs.

    Parameters
    ----------
    translator : Translator
    spreads : dict of Spread
    a, b : Encoded
        Row by row of the same samples.

    Returns
    -------
    Evidence

    Notes
    -----
    The weights maximise the log-likelihood of the true partner among all, rows and columns, under a
    softmax of the scores, with a wide log-normal prior; of fewer than 5 pairs they are its median.
    """
    a, b = a.rows(slice(_MOST_PAIRS)), b.rows(slice(_MOST_PAIRS))
    precision = _precision(a.posterior[:, 0] - b.posterior[:, 0])
    marginals: dict[SideName, Marginal] = {"a": _marginal(a), "b": _marginal(b)}
    start = np.log(_START)
    n = len(a.values)
    if n < _FEWEST_PAIRS:
        return Evidence(np.exp(start), precision, marginals)
    kinds = _kinds(translator, spreads, marginals, a, b, precision)
    own = np.arange(n)

    def loss(log_weights: Array) -> float:
        scores = np.tensordot(np.exp(log_weights), kinds, axes=1)
        partner = 2.0 * scores[own, own].sum()
        everyone = _log_sums(scores, 0) + _log_sums(scores, 1)
        prior = 0.5 * (((log_weights - start) / _PRIOR_SPREAD) ** 2).sum()
        return float(everyone - partner + prior)

    found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 300})
    return Evidence(np.exp(found.x), precision, marginals)


def _log_sums(scores: Array, axis: int) -> float:
    """Sum of the log-sum-exp along an axis; SciPy's takes most of the time of a small fit."""
    largest = scores.max(axis=axis, keepdims=True)
    sums = np.exp(scores - largest).sum(axis=axis)
    return float(largest.sum() + np.log(sums).sum())


def _marginal(records: Encoded) -> Marginal:
    """Means and spreads at each position, shrunk towards those of the variable."""
    values, mask = records.values, records.mask
    count, prior = mask.sum(axis=0), _PRIOR_PAIRS
    whole = np.maximum(count.sum(axis=0), 1)
    seen = np.where(mask, values, 0.0)
    location = (seen.sum(axis=0) + prior * seen.sum(axis=(0, 1)) / whole) / (count + prior)
    square = np.where(mask, (values - location) ** 2, 0.0)
    overall = np.maximum(square.sum(axis=(0, 1)) / whole, 1e-12)
    return Marginal(location, np.sqrt((square.sum(axis=0) + prior * overall) / (count + prior)))


def _precision(differences: Array) -> Array:
    """Inverse covariance of differences (N, D) about 0, shrunk towards its diagonal."""
    n = len(differences)
    power = np.maximum((differences**2).mean(axis=0), 1e-12)
    covariance = differences.T @ differences + _PRIOR_PAIRS * np.diag(power)
    return np.asarray(np.linalg.inv(covariance / (n + _PRIOR_PAIRS)), dtype=float)


def _kinds(
    translator: Translator,
    spreads: dict[SideName, Spread],
    marginals: dict[SideName, Marginal],
    a: Encoded,
    b: Encoded,
    precision: Array,
) -> Array:
    """Evidence of each kind, in nats, (3, n, m)."""
    forward = _one_way(translator, spreads["b"], a, b, "b") - _at_random(marginals["b"], b)
    backward = _one_way(translator, spreads["a"], b, a, "a") - _at_random(marginals["a"], a)
    first, second = a.posterior[:, 0], b.posterior[:, 0]
    sizes = [np.einsum("nk,kl,nl->n", codes, precision, codes) for codes in (first, second)]
    distance = sizes[0][:, None] - 2.0 * first @ precision @ second.T + sizes[1]
    return np.stack([forward, backward.T, -0.5 * distance])


def _at_random(marginal: Marginal, candidates: Encoded) -> Array:
    """Log density (m,) of the candidates as any records: long ones are not more likely for that."""
    m = len(candidates.values)
    found = gaussian_scores(
        marginal.location.reshape(1, -1),
        marginal.scale.reshape(1, -1),
        candidates.values.reshape(m, -1),
        candidates.mask.reshape(m, -1),
    )
    return np.asarray(found[0], dtype=float)


def _one_way(
    translator: Translator, spread: Spread, given: Encoded, candidates: Encoded, wanted: SideName
) -> Array:
    """Log density of the candidates under the predictions from the given records."""
    posterior = given.posterior
    centre = translator.decode(posterior[:, 0], wanted)
    noise = standard_draws(_DRAWS, posterior.shape[2])
    scale = np.empty_like(centre)
    for begin in range(0, len(centre), _RECORDS_AT_ONCE):
        part = slice(begin, begin + _RECORDS_AT_ONCE)
        draws = translator.draws(posterior[part], wanted, noise)
        scale[part] = spread.scale(draws, centre[part])
    n, m = len(centre), len(candidates.values)
    return gaussian_scores(
        centre.reshape(n, -1),
        scale.reshape(n, -1),
        candidates.values.reshape(m, -1),
        candidates.mask.reshape(m, -1),
    )
