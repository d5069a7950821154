"""A dense joint-Gaussian oracle of a linear dynamical system, and models that equal it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tsvae.lds import make_parameters
from tsvae.models import SVAE


def joint(params, matrix, variance, offset, steps, inputs=None):
    """Mean and covariance of x_1..x_T (flat, T * F) and of z with x, from dense parameters."""
    a, q = (_dense(part) for part in (params.transition_matrix, params.noise_covariance))
    dim = len(a)
    known = np.zeros((steps, 0)) if inputs is None else np.asarray(inputs)
    b = params.input_matrix.numpy().reshape(dim, -1)
    mean, covariance = np.zeros((steps, dim)), np.zeros((steps, steps, dim, dim))
    mean[0] = params.initial_mean.numpy().reshape(-1)
    covariance[0, 0] = _dense(params.initial_covariance)
    for t in range(1, steps):
        mean[t] = a @ mean[t - 1] + b @ known[t] + params.bias.numpy().reshape(-1)
        for s in range(t):
            covariance[t, s] = a @ covariance[t - 1, s]
            covariance[s, t] = covariance[t, s].T
        covariance[t, t] = a @ covariance[t - 1, t - 1] @ a.T + q
    z = covariance.transpose(0, 2, 1, 3).reshape(steps * dim, steps * dim)
    emission = np.kron(np.eye(steps), matrix)
    noise = np.diag(np.tile(variance, steps))
    return SimpleNamespace(
        mean=emission @ mean.reshape(-1) + np.tile(offset, steps),
        covariance=emission @ z @ emission.T + noise,
        z_mean=mean.reshape(-1),
        z_covariance=z,
        cross=z @ emission.T,
        emission=emission,
        noise=np.diag(noise),
        steps=steps,
    )


def condition(law, x, seen):
    """Law of all x and z given the seen entries of x ``(T', F)``, T' <= T, and their density."""
    flat, where = np.zeros(len(law.mean)), np.zeros(len(law.mean), bool)
    x, seen = np.asarray(x).ravel(), np.asarray(seen).ravel()
    flat[: x.size], where[: x.size] = x, seen
    residual = flat[where] - law.mean[where]
    square = law.covariance[np.ix_(where, where)]
    gain = np.linalg.solve(square, law.covariance[where]).T
    gain_z = np.linalg.solve(square, law.cross[:, where].T).T
    log_det = np.linalg.slogdet(square)[1]
    quadratic = residual @ np.linalg.solve(square, residual)
    shape = (law.steps, -1)
    z_covariance = law.z_covariance - gain_z @ law.cross.T[where]
    signal = np.einsum("ij,jk,ik->i", law.emission, z_covariance, law.emission)
    return SimpleNamespace(
        log_density=-0.5 * (quadratic + log_det + where.sum() * np.log(2 * np.pi)),
        mean=(law.mean + gain @ residual).reshape(shape),
        variance=np.diag(law.covariance - gain @ law.covariance[where]).reshape(shape),
        z_mean=(law.z_mean + gain_z @ residual).reshape(shape),
        z_variance=np.diag(z_covariance).reshape(shape),
        # Of observations made anew, with their own noise.
        fresh_mean=(law.mean + law.emission @ gain_z @ residual).reshape(shape),
        fresh_variance=(signal + law.noise).reshape(shape),
    )


def _dense(blocks):
    return torch.block_diag(*blocks).numpy()


def random_system(groups, size, n_inputs=0, seed=0):
    """Plug-in parameters away from anything special, spectral radius 0.95."""
    rng = np.random.default_rng(seed)

    def positive(scale):
        root = rng.normal(size=(groups, size, size))
        return scale * (root @ root.transpose(0, 2, 1) / size + 0.5 * np.eye(size))

    a = rng.normal(size=(groups, size, size)) + np.eye(size)
    a *= (0.95 / np.abs(np.linalg.eigvals(a)).max(axis=1))[:, None, None]
    return make_parameters(
        torch.tensor(a),
        torch.tensor(positive(0.3)),
        torch.tensor(rng.normal(size=(groups, size))),
        torch.tensor(positive(1.0)),
        torch.tensor(0.4 * rng.normal(size=(groups, size, n_inputs))),
        torch.tensor(0.3 * rng.normal(size=(groups, size))),
    )


def exact_model(params, matrix, variance, offset, posterior="point", strength=1e12, **settings):
    """A model whose encoder is Bayes' rule for its linear decoder."""
    settings = {"potential": "dense", "forecast_weight": 0.0, **settings}
    n_features = settings.pop("n_features", len(matrix))
    group_size = None if params.n_groups == 1 else params.group_size
    model = SVAE(
        n_features,
        n_inputs=settings.pop("n_inputs", params.n_inputs),
        latent_dim=params.latent_dim,
        dynamics={"group_size": group_size, "posterior": posterior},
        **settings,
    ).double()
    matrix, variance, offset = (torch.as_tensor(part) for part in (matrix, variance, offset))
    model.dynamics.theta.reset(params, strength)
    model.encoder.set_emission(matrix, variance, offset)
    with torch.no_grad():
        model.decoder.emission_matrix.copy_(matrix)
        model.decoder.offset.copy_(offset)
        (raw,) = model.decoder.likelihood.initial_raw(variance.sqrt())
        model.decoder.raw_scale.copy_(raw)
    return model


@pytest.fixture(scope="session")
def dense():
    return SimpleNamespace(
        joint=joint, condition=condition, random_system=random_system, exact_model=exact_model
    )
