"""What training on the evidence lower bound asks of the states: draws and their divergence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tsvae.lds.components import LARGEST
from tsvae.lds.filtering import filter_states
from tsvae.lds.grouped_chains import draw_grouped_chains
from tsvae.lds.joint_draws import draw_joint_chains
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.potentials import Potentials
from tsvae.lds.sampling import sample_posterior
from tsvae.lds.short_draws import LONGEST_CHAIN, MOST_CHAINS, draw_short_chains
from tsvae.lds.smoothing import posterior_kl


class StateDraws(NamedTuple):
    """Joint samples of the states and their local KL.

    Attributes
    ----------
    draws : Tensor (S, B, T, D)
    local_kl : Tensor (B,)
    """

    draws: Tensor
    local_kl: Tensor


def draw_states(
    params: LDSParameters,
    potentials: Potentials,
    generator: torch.Generator,
    n_samples: int = 1,
    inputs: Tensor | None = None,
    lengths: Tensor | None = None,
) -> StateDraws:
    """Draw state paths from the posterior q(z), and compute its divergence from the prior.

    Parameters
    ----------
    params : LDSParameters
    potentials : Potentials
    generator : torch.Generator
    n_samples : int, default=1
        S, at least 1.
    inputs : Tensor (B, T, U), optional
        As for ``filter_states``.
    lengths : Tensor (B,) long, optional
        As for ``filter_states``.

    Returns
    -------
    StateDraws

    Raises
    ------
    ValueError
        If there is nothing to draw, or shapes do not fit together.

    Examples
    --------
    >>> from tsvae.lds import make_parameters
    >>> params = make_parameters(0.9 * torch.eye(2), torch.eye(2))
    >>> seen = Potentials(torch.zeros(3, 5, 2), torch.ones(1, 5, 2))
    >>> draw_states(params, seen, torch.Generator().manual_seed(0)).draws.shape
    torch.Size([1, 3, 5, 2])
    """
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}.")
    if _are_plain(params, potentials, lengths):
        like, precision = potentials.linear, potentials.precision
        if _are_short(params, potentials):
            shape = (n_samples, *like.shape)
            noise = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
            return StateDraws(*draw_short_chains(params, like, precision, noise))
        draw = draw_grouped_chains if params.group_size <= LARGEST else draw_joint_chains
        drawn = draw(params, like, precision, n_samples, generator)
        if drawn is not None:
            return StateDraws(*drawn)
    filtered = filter_states(params, potentials, inputs, lengths)
    draws = sample_posterior(params, filtered, generator, n_samples)
    return StateDraws(draws, posterior_kl(params, filtered))


def _are_plain(params: LDSParameters, potentials: Potentials, lengths: Tensor | None) -> bool:
    """Whether chains are complete and without inputs, their potentials diagonal.

    What does not fit together goes to the filter, which says why.
    """
    linear, precision = potentials.linear, potentials.precision
    if params.n_inputs or potentials.pattern is not None or precision.ndim != 3:
        return False
    if linear.ndim != 3 or linear.shape[2] != params.latent_dim or linear.numel() == 0:
        return False
    if precision.shape[1:] != linear.shape[1:]:
        return False
    if precision.shape[0] not in (1, linear.shape[0]) or linear.device.type == "mps":
        return False
    return lengths is None or bool((lengths == linear.shape[1]).all())


def _are_short(params: LDSParameters, potentials: Potentials) -> bool:
    patterns, n_steps = potentials.precision.shape[:2]
    few = params.n_groups * patterns <= MOST_CHAINS and potentials.linear.is_cpu
    return few and n_steps * params.group_size <= LONGEST_CHAIN
