"""Peers of the speed benchmark: dynamax, statsmodels, simdkalman; each one optional.

A potential exp(h'z - z'Lz/2) with diagonal L is, up to a constant, the density of an observation
L^-1 h of z with noise of covariance L^-1: the peers get an identity as emission matrix. dynamax
runs its sequential functions, jitted: its parallel ones can hang on two cores.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _speed_problems import Gradient, Moments, Problem


def has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def missing(*names: str) -> list[str]:
    return [name for name in names if not has(name)]


def _torch(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


class _Dynamax:
    """The arrays of a problem and dynamax's model of it.

    Covariances of the noise are given as full matrices, which is the faster of dynamax's two forms
    (a diagonal goes through Woodbury's identity). With shared precisions the parameters are not
    mapped over: covariances do not depend on the observations, so that the recursion in them runs
    once for all series, and they are returned once.
    """

    def __init__(self, problem: Problem) -> None:
        import jax.numpy as jnp
        from dynamax.linear_gaussian_ssm import inference

        self.inference = inference
        self.own = problem.shape.own
        self.size = problem.shape.latent_dim
        variance = 1 / problem.precision
        covariance = torch.diag_embed(variance if self.own else variance[0, 0])
        self.arrays = tuple(
            jnp.asarray(tensor.numpy())
            for tensor in (problem.transition, covariance, problem.observations)
        )
        self.noise = jnp.asarray(problem.noise.numpy())

    def params(self, transition: Any, covariance: Any) -> Any:
        import jax.numpy as jnp

        eye = jnp.eye(self.size)
        return self.inference.make_lgssm_params(
            jnp.zeros(self.size), eye, transition, self.noise, eye, covariance
        )


def dynamax_smoother(problem: Problem) -> Callable[[], Moments]:
    import jax

    peer = _Dynamax(problem)

    def moments(transition: Any, covariance: Any, y: Any) -> tuple[Any, Any]:
        found = peer.inference.lgssm_smoother(peer.params(transition, covariance), y)
        return found.smoothed_means, found.smoothed_covariances

    over = (None, 0, 0) if peer.own else (None, None, 0)
    mapped = jax.jit(jax.vmap(moments, over, (0, 0 if peer.own else None)))

    def run() -> Moments:
        return Moments(*jax.block_until_ready(mapped(*peer.arrays)))

    return run


def dynamax_gradient(problem: Problem) -> Callable[[], Gradient]:
    import jax

    peer = _Dynamax(problem)

    def likelihood(transition: Any, covariance: Any, y: Any) -> Any:
        params = peer.params(transition, covariance)
        return peer.inference.lgssm_filter(params, y).marginal_loglik

    over = (None, 0, 0) if peer.own else (None, None, 0)
    mapped = jax.vmap(likelihood, over)
    found = jax.jit(jax.value_and_grad(lambda *arrays: mapped(*arrays).sum()))

    def run() -> Gradient:
        return Gradient(*jax.block_until_ready(found(*peer.arrays)))

    return run


def statsmodels_smoother(problem: Problem) -> Callable[[], Moments]:
    """One series, all outputs, float64."""
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    size = problem.shape.latent_dim
    smoother = KalmanSmoother(
        k_endog=size,
        k_states=size,
        design=np.eye(size),
        obs_cov=np.diag(1 / problem.precision[0, 0].double().numpy()),
        transition=problem.transition.double().numpy(),
        selection=np.eye(size),
        state_cov=problem.noise.double().numpy(),
    )
    smoother.bind(np.ascontiguousarray(problem.observations[0].double().numpy()))
    smoother.initialize_known(np.zeros(size), np.eye(size))

    def run() -> Moments:
        found = smoother.smooth()
        covariance = np.moveaxis(found.smoothed_state_cov, -1, 0)[None]
        return Moments(found.smoothed_state.T[None], covariance)

    return run


def simdkalman_smoother(problem: Problem) -> Callable[[], Moments]:
    """Precisions shared by all series and steps, float64."""
    import simdkalman

    size = problem.shape.latent_dim
    smoother = simdkalman.KalmanFilter(
        state_transition=problem.transition.double().numpy(),
        process_noise=problem.noise.double().numpy(),
        observation_model=np.eye(size),
        observation_noise=np.diag(1 / problem.precision[0, 0].double().numpy()),
    )
    y = problem.observations.double().numpy()
    start = {"initial_value": np.zeros(size), "initial_covariance": np.eye(size)}

    def run() -> Moments:
        states = smoother.smooth(y, observations=False, **start).states
        return Moments(states.mean, states.cov)

    return run


def as_tensors(found: Moments | Gradient) -> list[torch.Tensor]:
    return [_torch(array) for array in found]


def quiet() -> None:
    """Silence what dynamax's dependencies warn about when they are loaded."""
    warnings.filterwarnings("ignore", module=r"(jax|dynamax|tensorflow_probability)(\..*)?")
