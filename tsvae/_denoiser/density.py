"""A density over codes, fitted to those of the training records: where generation starts.

The aggregate of the posteriors differs from the prior as soon as the prior costs little. Codes are
measured in standard deviations of the posteriors, so that the directions that tell records apart
best come first: a mixture of normals in these, normals of their own in the others.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CodeDensity", "fit_density"]

Array = NDArray[np.float64]

_VARIANCE_KEPT = 0.999
_MOST_DIRECTIONS = 128
# A mixture in more directions, or with more components, has too few records for its covariances:
# of 760 heartbeats, 10 to 20 directions and 2 to 4 components gave the most lifelike draws.
_MOST_MIXED = 16
_COMPONENTS = (1, 2, 4, 8)
_RECORDS_PER_COMPONENT = 50
_RECORDS_PER_DIRECTION = 4


@dataclass(frozen=True, eq=False)
class CodeDensity:
    """Mixture of normals in a subspace, plus independent normal noise beside it.

    Attributes
    ----------
    scale : ndarray of shape (D,)
        Units of the codes; everything else is in these.
    mean : ndarray of shape (D,)
    directions : ndarray of shape (K, D)
        Orthonormal.
    rest : ndarray of shape (D,)
        Standard deviation outside the subspace.
    weights : ndarray of shape (M,)
    centres : ndarray of shape (M, K)
    factors : ndarray of shape (M, K, K)
        Cholesky factors of the components' covariances.
    """

    scale: Array
    mean: Array
    directions: Array
    rest: Array
    weights: Array
    centres: Array
    factors: Array

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw flat codes ``(n, D)``."""
        component = rng.choice(len(self.weights), size=n, p=self.weights)
        noise = rng.standard_normal((n, self.directions.shape[0]))
        inside = self.centres[component]
        for number, factor in enumerate(self.factors):
            inside[component == number] += noise[component == number] @ factor.T
        outside = rng.standard_normal((n, len(self.mean))) * self.rest
        outside -= (outside @ self.directions.T) @ self.directions
        return self.scale * (self.mean + inside @ self.directions + outside)

    def to_arrays(self) -> dict[str, Array]:
        """Arrays by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> CodeDensity:
        """Inverse of :meth:`to_arrays`."""
        return cls(**{name: np.asarray(value, dtype=float) for name, value in arrays.items()})


def fit_density(mu: Array, log_var: Array, seed: int) -> CodeDensity:
    """Fit the density to the posteriors of training records.

    Parameters
    ----------
    mu, log_var : ndarray of shape (N, D)
        -inf where there is no posterior.
    seed : int

    Returns
    -------
    CodeDensity
        Of draws from the posteriors: their own spread is part of it.
    """
    own = np.exp(log_var).mean(axis=0)
    spread = own > 0.0
    scale = np.where(spread, np.sqrt(np.where(spread, own, 1.0)), 1.0)
    mean = (mu / scale).mean(axis=0)
    centred = mu / scale - mean
    directions = _principal_directions(centred)
    inside = centred @ directions.T
    beside = centred - inside @ directions
    rest = np.sqrt(beside.var(axis=0) + spread)
    mixture = _fit_mixture(inside, seed)
    covariances = mixture.covariances + directions @ (spread[:, None] * directions.T)
    factors = np.linalg.cholesky(covariances)
    return CodeDensity(scale, mean, directions, rest, mixture.weights, mixture.centres, factors)


class _Mixture(NamedTuple):
    weights: Array  # (M,)
    centres: Array  # (M, K)
    covariances: Array  # (M, K, K)


def _fit_mixture(inside: Array, seed: int) -> _Mixture:
    """Mix normals in the leading directions, as many as the Bayesian criterion is for."""
    from sklearn.mixture import GaussianMixture

    inside = inside if len(inside) > 1 else np.repeat(inside, 2, axis=0)
    n, k = inside.shape
    leading = inside[:, : min(k, _MOST_MIXED)]
    numbers = [m for m in _COMPONENTS if m == 1 or n >= m * _RECORDS_PER_COMPONENT]
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged is good enough for drawing
        for number in numbers:
            mixture = GaussianMixture(number, reg_covar=1e-6, random_state=seed).fit(leading)
            found.append((mixture.bic(leading), number, mixture))
    best = min(found, key=lambda entry: entry[:2])[2]
    centres = np.zeros((best.n_components, k))
    centres[:, : leading.shape[1]] = best.means_
    # Principal directions are uncorrelated: one variance for each that is not mixed.
    covariances = np.tile(np.diag(inside.var(axis=0) + 1e-6), (best.n_components, 1, 1))
    covariances[:, : leading.shape[1], : leading.shape[1]] = best.covariances_
    return _Mixture(best.weights_, centres, covariances)


def _principal_directions(centred: Array) -> Array:
    """Orthonormal directions that hold nearly all variance, at most as many as are identified."""
    _, size, directions = np.linalg.svd(centred, full_matrices=False)
    power = np.cumsum(size**2)
    if not power[-1] > 0.0:
        return directions[:1]
    needed = int(np.searchsorted(power, _VARIANCE_KEPT * power[-1])) + 1
    identified = max(1, len(centred) // _RECORDS_PER_DIRECTION)
    return directions[: min(needed, _MOST_DIRECTIONS, identified)]
