r"""Parameters of a (grouped) linear dynamical system.

The model, 0-based in time, for each of G independent groups of size K (D = G K):

.. math::
    z_0 \sim N(\mu_0, \Sigma_0), \qquad
    z_t = A z_{t-1} + B u_t + b + \varepsilon_t, \quad \varepsilon_t \sim N(0, Q), \; t \ge 1,

where :math:`u_t` is the input at the *arriving* step. A dense system is G = 1, K = D. Latent
vectors ``(..., D)`` list group 0 first: entry ``g * K + k`` is coordinate k of group g.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.linalg import spectral_radius


class Excess(NamedTuple):
    r"""What expectations under q(theta) have over their plug-in values.

    With :math:`w_t = [z_{t-1}; u_t; 1]`, the expected log transition is the plug-in one at
    (M, E[Q^-1]) plus ``transition_constant`` minus :math:`\tfrac12 w_t' C w_t`, and the expected
    log initial density is the plug-in one plus ``initial_constant``.

    Attributes
    ----------
    precision : Tensor (G, K+U+1, K+U+1)
        :math:`C = K V^{-1}`, regressors ordered state, inputs, bias.
    transition_constant : Tensor (G,)
        :math:`\tfrac12 (E\log|Q^{-1}| - \log|E Q^{-1}|)`, paid by every transition.
    initial_constant : Tensor (G,)
        The same for the initial covariance, less :math:`K / (2 \lambda)`.
    """

    precision: Tensor
    transition_constant: Tensor
    initial_constant: Tensor


class LDSParameters(NamedTuple):
    """Parameters of a linear dynamical system; see the module docstring.

    Attributes
    ----------
    initial_mean : Tensor (G, K)
    initial_covariance : Tensor (G, K, K)
    transition_matrix : Tensor (G, K, K)
    noise_covariance : Tensor (G, K, K)
        Q, or ``E[Q^-1]^-1`` when the parameters are expectations under q(theta).
    input_matrix : Tensor (G, K, U)
        U may be 0.
    bias : Tensor (G, K)
    excess : Excess or None
        None for plug-in parameters.
    """

    initial_mean: Tensor
    initial_covariance: Tensor
    transition_matrix: Tensor
    noise_covariance: Tensor
    input_matrix: Tensor
    bias: Tensor
    excess: Excess | None = None

    @property
    def n_groups(self) -> int:
        """Number of independent groups, G."""
        return int(self.initial_mean.shape[0])

    @property
    def group_size(self) -> int:
        """Size of each group, K."""
        return int(self.initial_mean.shape[1])

    @property
    def latent_dim(self) -> int:
        """D = G * K."""
        return self.n_groups * self.group_size

    @property
    def n_inputs(self) -> int:
        """Number of known inputs, U."""
        return int(self.input_matrix.shape[-1])


def make_parameters(
    transition_matrix: Tensor,
    noise_covariance: Tensor,
    initial_mean: Tensor | None = None,
    initial_covariance: Tensor | None = None,
    input_matrix: Tensor | None = None,
    bias: Tensor | None = None,
) -> LDSParameters:
    """Build plug-in parameters, filling defaults and adding a group axis to dense ones.

    Parameters
    ----------
    transition_matrix, noise_covariance : Tensor (G, K, K) or (K, K)
    initial_mean : Tensor (G, K) or (K,), optional
        Zero by default.
    initial_covariance : Tensor (G, K, K) or (K, K), optional
        Identity by default.
    input_matrix : Tensor (G, K, U) or (K, U), optional
        No inputs by default.
    bias : Tensor (G, K) or (K,), optional
        Zero by default.

    Returns
    -------
    LDSParameters

    Raises
    ------
    ValueError
        If a shape does not fit the transition matrix.

    Examples
    --------
    >>> make_parameters(0.9 * torch.eye(2), torch.eye(2)).latent_dim
    2
    """
    a = transition_matrix if transition_matrix.ndim == 3 else transition_matrix.unsqueeze(0)
    groups, size = int(a.shape[0]), int(a.shape[1])
    eye = torch.eye(size, dtype=a.dtype, device=a.device).expand(groups, size, size)
    zero = a.new_zeros(groups, size)
    given = {
        "noise_covariance": (noise_covariance, eye, (groups, size, size)),
        "initial_mean": (initial_mean, zero, (groups, size)),
        "initial_covariance": (initial_covariance, eye, (groups, size, size)),
        "bias": (bias, zero, (groups, size)),
        "input_matrix": (input_matrix, a.new_zeros(groups, size, 0), (groups, size, None)),
    }
    filled = {
        name: _fit_shape(name, value, default, shape)
        for name, (value, default, shape) in given.items()
    }
    return LDSParameters(
        initial_mean=filled["initial_mean"],
        initial_covariance=filled["initial_covariance"],
        transition_matrix=a,
        noise_covariance=filled["noise_covariance"],
        input_matrix=filled["input_matrix"],
        bias=filled["bias"],
    )


def _fit_shape(
    name: str, value: Tensor | None, default: Tensor, shape: tuple[int | None, ...]
) -> Tensor:
    if value is None:
        return default
    grouped = value if value.ndim == len(shape) else value.unsqueeze(0)
    fits = grouped.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, grouped.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, but the transition matrix asks for "
            f"{shape} (None: any size); a leading axis of one group may be left out."
        )
    return grouped


def to_dense(params: LDSParameters) -> LDSParameters:
    """Write a grouped system as one dense group: G = 1, K = D.

    Needed when potentials couple groups (a dense emission matrix, for instance).

    Parameters
    ----------
    params : LDSParameters

    Returns
    -------
    LDSParameters
        Same law, block-diagonal matrices, ``n_groups == 1``.
    """
    if params.n_groups == 1:
        return params
    excess = params.excess
    return LDSParameters(
        initial_mean=params.initial_mean.reshape(1, -1),
        initial_covariance=_block_diagonal(params.initial_covariance),
        transition_matrix=_block_diagonal(params.transition_matrix),
        noise_covariance=_block_diagonal(params.noise_covariance),
        input_matrix=params.input_matrix.reshape(1, params.latent_dim, params.n_inputs),
        bias=params.bias.reshape(1, -1),
        excess=None if excess is None else _dense_excess(excess, params.group_size),
    )


def _block_diagonal(blocks: Tensor) -> Tensor:
    return torch.block_diag(*blocks.unbind(0)).unsqueeze(0)


def _dense_excess(excess: Excess, group_size: int) -> Excess:
    c = excess.precision
    state = torch.block_diag(*c[:, :group_size, :group_size].unbind(0))
    # Every group sees the same inputs and bias: their mutual block adds up.
    mixed = c[:, :group_size, group_size:].reshape(state.shape[0], -1)
    shared = c[:, group_size:, group_size:].sum(0)
    top = torch.cat((state, mixed), dim=1)
    bottom = torch.cat((mixed.mT, shared), dim=1)
    return Excess(
        precision=torch.cat((top, bottom), dim=0).unsqueeze(0),
        transition_constant=excess.transition_constant.sum(0, keepdim=True),
        initial_constant=excess.initial_constant.sum(0, keepdim=True),
    )


def stabilize(transition_matrix: Tensor, spectral_radius_max: float | None = 1.0) -> Tensor:
    """Shrink each group's transition so that no eigenvalue exceeds a cap.

    Matrices within the cap pass unchanged (a unit root such as ``[[1, 1], [0, 1]]`` stays); others
    are multiplied by ``cap / radius``. The radius is differentiable for K <= 2 and a constant for
    larger K.

    Parameters
    ----------
    transition_matrix : Tensor (G, K, K)
    spectral_radius_max : float or None, default=1.0
        The cap; None switches it off.

    Returns
    -------
    Tensor (G, K, K)

    Examples
    --------
    >>> stabilize(torch.tensor([[[2.0]], [[0.5]]])).flatten()
    tensor([1.0000, 0.5000])
    """
    if spectral_radius_max is None:
        return transition_matrix
    radius = spectral_radius(transition_matrix)
    outside = radius > spectral_radius_max
    factor = torch.where(
        outside, spectral_radius_max / torch.where(outside, radius, 1.0), torch.ones_like(radius)
    )
    return transition_matrix * factor[..., None, None]
