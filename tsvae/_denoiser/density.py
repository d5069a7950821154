"""A density over codes, fitted to those of the training records: where generation starts.

The aggregate of the posteriors differs from the prior as soon as the prior costs little; a mixture
of normals in the codes' principal subspace follows it closely enough for lifelike draws.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CodeDensity", "fit_density"]

Array = NDArray[np.float64]

_VARIANCE_KEPT = 0.999
_MOST_DIRECTIONS = 64
_MOST_COMPONENTS = 8
_RECORDS_PER_COMPONENT = 50


@dataclass(frozen=True, eq=False)
class CodeDensity:
    """Mixture of normals in a subspace, plus independent normal noise beside it.

    Attributes
    ----------
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

    mean: Array
    directions: Array
    rest: Array
    weights: Array
    centres: Array
    factors: Array

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw flat codes ``(n, D)``."""
        component = rng.choice(len(self.weights), size=n, p=self.weights)
        noise = rng.standard_normal((n, self.directions.shape[0], 1))
        inside = self.centres[component] + (self.factors[component] @ noise)[..., 0]
        outside = rng.standard_normal((n, len(self.mean))) * self.rest
        outside -= (outside @ self.directions.T) @ self.directions
        return self.mean + inside @ self.directions + outside

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
        The posteriors' own spread is part of it.
    """
    from sklearn.mixture import GaussianMixture

    mean = mu.mean(axis=0)
    centred = mu - mean
    directions = _principal_directions(centred)
    inside = centred @ directions.T
    own = np.exp(log_var).mean(axis=0)
    beside = centred - inside @ directions
    rest = np.sqrt(beside.var(axis=0) + own)
    n_components = int(np.clip(len(mu) // _RECORDS_PER_COMPONENT, 1, _MOST_COMPONENTS))
    mixture = GaussianMixture(n_components, reg_covar=1e-6, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged is good enough for drawing
        mixture.fit(inside if len(inside) > 1 else np.repeat(inside, 2, axis=0))
    spread = directions @ (own[:, None] * directions.T)
    factors = np.linalg.cholesky(mixture.covariances_ + spread)
    return CodeDensity(mean, directions, rest, mixture.weights_, mixture.means_, factors)


def _principal_directions(centred: Array) -> Array:
    """Orthonormal directions that hold nearly all variance, at most as many as are identified."""
    _, size, directions = np.linalg.svd(centred, full_matrices=False)
    power = np.cumsum(size**2)
    if not power[-1] > 0.0:
        return directions[:1]
    needed = int(np.searchsorted(power, _VARIANCE_KEPT * power[-1])) + 1
    return directions[: min(needed, _MOST_DIRECTIONS, max(1, len(centred) // 4))]
