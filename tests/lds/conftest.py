"""Dense joint-Gaussian oracles in plain numpy, and random problems, for the tests of lds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from tsvae import lds


def dense_information(statistics, first, inputs, length, steps):
    """Information form of log p over z_0..z_{steps-1} for one series.

    ``statistics`` = (E[Q^-1], E[Q^-1 Theta], E[Theta'Q^-1 Theta], E log|Q^-1|, plug-in outer) and
    ``first`` = (E[S0^-1], E[S0^-1 mu], E[mu'S0^-1 mu], E log|S0^-1|). Transitions inside the chain
    use the expectations; later ones the plug-in outer product and log-determinant.
    """
    w, wm, outer, log_det, plug_outer = statistics
    dim = w.shape[0]
    n = dim * steps
    precision, linear = np.zeros((n, n)), np.zeros(n)
    w0, wm0, mm0, log_det0 = first
    precision[:dim, :dim] += w0
    linear[:dim] += wm0
    constant = 0.5 * log_det0 - 0.5 * mm0 - 0.5 * dim * np.log(2 * np.pi)
    if length == 0:
        constant += 0.5 * (np.linalg.slogdet(w0)[1] - log_det0)
        constant += 0.5 * (mm0 - wm0 @ np.linalg.solve(w0, wm0))
    for t in range(1, steps):
        inside = t < length
        square = outer if inside else plug_outer
        half = 0.5 * (log_det if inside else np.linalg.slogdet(w)[1])
        known = np.concatenate([inputs[t], [1.0]])
        now, past = slice(t * dim, (t + 1) * dim), slice((t - 1) * dim, t * dim)
        precision[now, now] += w
        precision[now, past] -= wm[:, :dim]
        precision[past, now] -= wm[:, :dim].T
        precision[past, past] += square[:dim, :dim]
        linear[now] += wm[:, dim:] @ known
        linear[past] -= square[:dim, dim:] @ known
        constant += half - 0.5 * known @ square[dim:, dim:] @ known
        constant -= 0.5 * dim * np.log(2 * np.pi)
    return precision, linear, constant


def plug_in_statistics(p):
    """Statistics of a plug-in system given as a dict of dense numpy arrays."""
    w = np.linalg.inv(p["Q"])
    theta = np.concatenate([p["A"], p["B"], p["b"][:, None]], axis=1)
    outer = theta.T @ w @ theta
    w0 = np.linalg.inv(p["S0"])
    first = (w0, w0 @ p["mu0"], p["mu0"] @ w0 @ p["mu0"], np.linalg.slogdet(w0)[1])
    return (w, w @ theta, outer, np.linalg.slogdet(w)[1], outer), first


def condition(information, potential_precisions, potential_linear):
    """Mean, covariance and log-normaliser after multiplying by potentials."""
    precision, linear, constant = information
    precision = precision + block_diag(*potential_precisions)
    linear = linear + potential_linear.reshape(-1)
    covariance = np.linalg.inv(precision)
    covariance = 0.5 * (covariance + covariance.T)
    mean = covariance @ linear
    log_z = constant + 0.5 * linear @ mean + 0.5 * len(linear) * np.log(2 * np.pi)
    return mean, covariance, log_z - 0.5 * np.linalg.slogdet(precision)[1]


def random_system(rng, groups, size, n_inputs=0):
    """Random stable grouped parameters as float64 torch tensors."""
    from tsvae.lds import LDSParameters

    def spd(scale):
        root = rng.normal(size=(groups, size, size))
        return scale * (root @ root.transpose(0, 2, 1) / size + 0.5 * np.eye(size))

    a = rng.normal(size=(groups, size, size))
    a *= (0.9 / np.abs(np.linalg.eigvals(a)).max(axis=1))[:, None, None]
    arrays = (
        rng.normal(size=(groups, size)),
        spd(1.0),
        a,
        spd(0.5),
        rng.normal(size=(groups, size, n_inputs)),
        rng.normal(size=(groups, size)),
    )
    return LDSParameters(*(torch.from_numpy(x) for x in arrays))


def dense_arrays(params):
    """Dense numpy arrays of parameters, block by block, without the library's own to_dense."""
    return {
        "mu0": params.initial_mean.numpy().reshape(-1),
        "S0": block_diag(*params.initial_covariance.numpy()),
        "A": block_diag(*params.transition_matrix.numpy()),
        "Q": block_diag(*params.noise_covariance.numpy()),
        "B": params.input_matrix.numpy().reshape(params.latent_dim, -1),
        "b": params.bias.numpy().reshape(-1),
    }


def dense_precisions(potentials, n_series, groups, size):
    """Per-series dense precisions (B, T, D, D) of any form."""
    value = potentials.precision.detach().numpy()
    if value.ndim == 3:
        value = np.einsum("ptd,de->ptde", value, np.eye(value.shape[-1]))
    elif value.ndim == 5:
        full = np.zeros((*value.shape[:2], groups * size, groups * size))
        for g in range(groups):
            part = slice(g * size, (g + 1) * size)
            full[:, :, part, part] = value[:, :, g]
        value = full
    if potentials.pattern is not None:
        return value[potentials.pattern.numpy()]
    return np.broadcast_to(value, (n_series, *value.shape[1:]))


def random_potentials(rng, form, sharing, n_series, steps, groups, size):
    """Random potentials, about a third of the steps without any."""
    from tsvae.lds import Potentials

    dim = groups * size
    rows = {"shared": 1, "own": n_series, "indexed": 2}[sharing]
    pattern = torch.from_numpy(rng.permutation(np.arange(n_series) % 2))
    seen = rng.random((rows, steps)) < 0.65
    if form == "diagonal":
        precision = rng.gamma(1.0, 2.0, size=(rows, steps, dim)) * seen[..., None]
        precision *= rng.random(precision.shape) < 0.8
    else:
        shape = (rows, steps, dim, 1) if form == "dense" else (rows, steps, groups, size, 1)
        root = rng.normal(size=(*shape[:-1], max(1, shape[-2] - 1)))
        precision = root @ np.swapaxes(root, -1, -2)
        precision *= seen.reshape(rows, steps, *([1] * (precision.ndim - 2)))
    linear = rng.normal(size=(n_series, steps, dim)) * 2.0
    index = pattern.numpy() if sharing == "indexed" else np.zeros(n_series, int)
    where = seen if sharing == "own" else seen[index]
    linear *= where[..., None]
    return Potentials(
        torch.from_numpy(linear),
        torch.from_numpy(precision),
        pattern if sharing == "indexed" else None,
    )


def spread(value, pattern, n_series):
    """Covariances of patterns -> per series, numpy."""
    value = value.detach().numpy()
    if pattern is not None:
        return value[pattern.numpy()]
    return np.broadcast_to(value, (n_series, *value.shape[1:]))


def blocks(matrix, groups, size):
    """Diagonal blocks (G, K, K) of a dense matrix."""
    return np.stack(
        [matrix[g * size : (g + 1) * size, g * size : (g + 1) * size] for g in range(groups)]
    )


def relative(got, want):
    """Norm-wise relative error."""
    got, want = np.asarray(got, dtype=float), np.asarray(want, dtype=float)
    assert got.shape == want.shape, (got.shape, want.shape)
    return np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-12)


def cast(named, dtype):
    """Cast the floating tensors of a NamedTuple, recursively."""

    def one(value):
        if isinstance(value, torch.Tensor):
            return value.to(dtype) if value.is_floating_point() else value
        return value if value is None else cast(value, dtype)

    return type(named)(*(one(value) for value in named))


class DrawingCase:
    """Parameters as free leaves, potentials and noise, all in float64."""

    def __init__(self, size, groups, series, patterns, steps, expected):
        rng = np.random.default_rng(size + 10 * steps)
        dim = groups * size

        def draw(*shape):
            return torch.from_numpy(rng.normal(size=shape))

        theta = lds.LinearDynamicsPosterior(
            dim, group_size=size, posterior="gradient", strength=10.0, dtype=torch.float64
        )
        with torch.no_grad():
            for parameter in theta.parameters():
                parameter += 0.1 * draw(*parameter.shape)
        self.params = theta.parameters_for_inference() if expected else theta.plug_in()
        self.linear = draw(series, steps, dim).requires_grad_()
        self.precision = (2.0 * draw(patterns, steps, dim).square()).requires_grad_()
        self.noise = draw(2, series, steps, dim)
        self.weights = draw(series)
        small = [*self.params[:4], self.params.bias]
        small += [] if self.params.excess is None else [*self.params.excess]
        self.small = [part.detach().clone().requires_grad_() for part in small]

    @property
    def leaves(self):
        return [self.linear, self.precision, *self.small]

    def rebuilt(self, small):
        """Parameters of the leaves; matrices that are symmetric stay so under any slope."""
        mean, initial, transition, noise, bias, *excess = small
        params = self.params._replace(
            initial_mean=mean,
            initial_covariance=0.5 * (initial + initial.mT),
            transition_matrix=transition,
            noise_covariance=0.5 * (noise + noise.mT),
            bias=bias,
        )
        if not excess:
            return params
        first = 0.5 * (excess[0] + excess[0].mT)
        return params._replace(excess=lds.Excess(first, *excess[1:]))


@pytest.fixture(scope="session")
def oracle():
    return SimpleNamespace(
        dense_information=dense_information,
        plug_in_statistics=plug_in_statistics,
        condition=condition,
        random_system=random_system,
        dense_arrays=dense_arrays,
        dense_precisions=dense_precisions,
        random_potentials=random_potentials,
        spread=spread,
        blocks=blocks,
        relative=relative,
        cast=cast,
    )


@pytest.fixture(scope="session")
def drawing_case():
    return DrawingCase
