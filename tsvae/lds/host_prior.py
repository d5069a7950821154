"""The prior of chains, on the host: a few small matrices per group, and their gradients.

``short_draws`` derives what is worked out here; ``joint_draws`` and ``grouped_chains`` use it, too.
numpy, because calls make the price, and a call of PyTorch costs several of its.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tsvae.lds.joint_prior import LEAST_PIVOT
from tsvae.lds.linalg import safe_cholesky
from tsvae.lds.natural_factor import Array, cholesky, gram, inverse_of_lower, to_device, to_host
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.scans import affine_loop

# Gradients see states, not deviations: a path that is far larger than these is left to others.
LARGEST_PATH = 100.0
# Steps of the path up to which numpy is faster than chunks of torch.
FEW_STEPS = 128


class HostParameters(NamedTuple):
    """Parameters in float64; the last three None for plug-in ones."""

    initial_mean: Array
    initial_covariance: Array
    transition_matrix: Array
    noise_covariance: Array
    bias: Array
    excess: Array | None = None
    transition_constant: Array | None = None
    initial_constant: Array | None = None


def flat(params: LDSParameters) -> list[Tensor]:
    """Tensors of the parameters in the order of ``HostParameters``."""
    parts = [*params[:4], params.bias]
    return parts if params.excess is None else [*parts, *params.excess]


@dataclass(frozen=True)
class HostPrior:
    """H_0 and c by blocks.

    Attributes
    ----------
    given : HostParameters
    initial, arriving, coupling : ndarray (G, K, K)
        Sigma_0^-1, J = Q^-1 and J A.
    leaving : ndarray (G, K, K)
        A'JA + W.
    start, drift, behind : ndarray (G, K)
        Sigma_0^-1 mu_0, J b and A'J b + the excess's part.
    constant : float
        kappa, summed over groups.
    normalizer : float
        kappa without the energies of mu_0 and b.
    expected : float
        What expected parameters add to ``normalizer``.
    roots : ndarray (2, G, K, K)
        R with ``R'R`` the initial and the arriving block.
    """

    given: HostParameters
    initial: Array
    arriving: Array
    coupling: Array
    leaving: Array
    start: Array
    drift: Array
    behind: Array
    constant: float
    normalizer: float
    expected: float
    roots: Array

    @cached_property
    def excess_root(self) -> Array:
        """Cholesky factor of W."""
        assert self.given.excess is not None
        size = self.start.shape[1]
        return _roots(self.given.excess[:, :size, :size])

    @property
    def sound(self) -> bool:
        """Whether no covariance is too close to singular."""
        covariances = (self.given.initial_covariance, self.given.noise_covariance)
        largest = np.diagonal(covariances, axis1=-2, axis2=-1).max(-1)
        # A pivot's root is one over the entry of the factor's inverse.
        shares = np.diagonal(self.roots, axis1=-2, axis2=-1).max(-1)
        return bool((shares**2 * largest * LEAST_PIVOT <= 1.0).all())

    @cached_property
    def precision(self) -> float:
        """Largest Frobenius norm of Q^-1."""
        return float((self.arriving * self.arriving).sum((1, 2)).max()) ** 0.5


def host_prior(parts: list[Tensor], n_steps: int) -> HostPrior:
    """Work out the blocks.

    Parameters
    ----------
    parts : list of Tensor
        See ``flat``.
    n_steps : int

    Returns
    -------
    HostPrior
    """
    given = HostParameters(*map(to_host, parts))
    roots = _roots(np.stack((given.initial_covariance, given.noise_covariance)))
    inverses = inverse_of_lower(roots)
    initial, arriving = gram(inverses)
    half_logs = np.log(np.diagonal(roots, axis1=-2, axis2=-1)).sum((1, 2))
    a, size = given.transition_matrix, given.bias.shape[-1]
    coupling = arriving @ a
    leaving = a.swapaxes(1, 2) @ coupling
    start = _apply(initial, given.initial_mean)
    drift = _apply(arriving, given.bias)
    behind = _apply(a.swapaxes(1, 2), drift)
    first = later = 0.0
    if given.excess is not None:
        assert given.transition_constant is not None and given.initial_constant is not None
        leaving = leaving + given.excess[:, :size, :size]
        behind = behind + given.excess[:, :size, size]
        first = given.initial_constant.sum()
        later = given.transition_constant.sum() - 0.5 * given.excess[:, size, size].sum()
    expected = float(first + (n_steps - 1) * later)
    normalizer = expected - float(half_logs[0] + (n_steps - 1) * half_logs[1])
    energy = (given.initial_mean * start).sum() + (n_steps - 1) * (given.bias * drift).sum()
    return HostPrior(
        given,
        initial,
        arriving,
        coupling,
        leaving,
        start,
        drift,
        behind,
        normalizer - 0.5 * float(energy),
        normalizer,
        expected,
        inverses,
    )


def sound_prior(
    params: LDSParameters, like: Tensor
) -> tuple[list[Tensor], HostPrior, Tensor | None] | None:
    """Parameters, prior and mean path of chains ``like`` (B, T, D).

    None if a covariance is too close to singular, or the path too long.
    """
    parts = flat(params)
    with np.errstate(all="ignore"):  # of singular covariances
        prior = host_prior(parts, like.shape[1])
        sound = prior.sound
    if not sound:
        return None
    path = mean_path(prior, like)
    if path is not None and not bool(path.abs().amax() <= LARGEST_PATH):
        return None
    return parts, prior, path


def mean_path(prior: HostPrior, like: Tensor) -> Tensor | None:
    """Mean path of the prior over the steps of ``like`` (B, T, D), (T, G, 1, K); None for zero."""
    given, steps = prior.given, like.shape[1]
    path = np.repeat(given.bias[None, :, None], steps, axis=0)
    path[0] = given.initial_mean[:, None]
    if not path.any():
        return None
    transposed = given.transition_matrix.swapaxes(1, 2)
    if steps <= FEW_STEPS:
        for before, after in pairwise(path):
            after += before @ transposed
        return to_device(path, like)
    links = to_device(transposed, like).expand(steps, -1, -1, -1)
    return affine_loop(links, to_device(path, like), False)


class Sums(NamedTuple):
    """Adjoints of the prior's blocks.

    Attributes
    ----------
    first, arrived, left : ndarray (G, K, K)
        Of Sigma_0^-1, J and A'JA + W on the diagonal of H_0.
    crossed : ndarray (G, K, K)
        Half of that of -J A, which is in H_0 twice.
    at_start, ahead, behind : ndarray (G, K)
        Of the vectors of c: Sigma_0^-1 mu_0, J b and -``HostPrior.behind``.
    constant : float
        Of kappa.
    """

    first: Array
    arrived: Array
    left: Array
    crossed: Array
    at_start: Array
    ahead: Array
    behind: Array
    constant: float


def prior_gradients(prior: HostPrior, sums: Sums, n_steps: int) -> list[Array]:
    """Gradients by the fields of ``HostParameters`` that are there."""
    given, constant = prior.given, sums.constant
    initial, j = prior.initial, prior.arriving
    later = constant * (n_steps - 1)
    a, b, mean = given.transition_matrix, given.bias[..., None], given.initial_mean[..., None]
    at_start, ahead, behind = (x[..., None] for x in (sums.at_start, sums.ahead, sums.behind))
    onwards = a @ sums.left
    reached = onwards - 2.0 * sums.crossed
    on_initial = sums.first + (at_start - 0.5 * constant * mean) @ mean.swapaxes(1, 2)
    on_initial += 0.5 * constant * given.initial_covariance
    pushed = ahead - a @ behind
    on_arriving = sums.arrived + reached @ a.swapaxes(1, 2) + 0.5 * later * given.noise_covariance
    on_arriving += (pushed - 0.5 * later * b) @ b.swapaxes(1, 2)
    grads = [
        (initial @ (at_start - constant * mean))[..., 0],
        -initial @ _symmetric(on_initial) @ initial,
        j @ (reached + onwards) - prior.drift[..., None] * behind.swapaxes(1, 2),
        -j @ _symmetric(on_arriving) @ j,
        (j @ (pushed - later * b))[..., 0],
    ]
    if given.excess is None:
        return grads
    size = a.shape[-1]
    excess = np.zeros_like(given.excess)
    excess[:, :size, :size] = sums.left
    excess[:, :size, size] = -sums.behind
    excess[:, size, size] = -0.5 * later
    each = np.ones(len(a))
    return [*grads, excess, later * each, constant * each]


def _roots(covariances: Array) -> Array:
    try:
        roots: Array = cholesky(covariances)
    except np.linalg.LinAlgError:
        roots = safe_cholesky(torch.from_numpy(covariances)).numpy()
    return roots


def _apply(matrices: Array, vectors: Array) -> Array:
    found: Array = (matrices @ vectors[..., None])[..., 0]
    return found


def _symmetric(matrices: Array) -> Array:
    found: Array = 0.5 * (matrices + matrices.swapaxes(1, 2))
    return found
