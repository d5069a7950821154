"""Joint samples of state paths from the posterior q(z) (backward sampling)."""

from __future__ import annotations

import torch
from torch import Tensor

from tsvae.lds.filter_result import FilterResult
from tsvae.lds.joint_pass import JointPass
from tsvae.lds.layout import covariances_out
from tsvae.lds.linalg import safe_cholesky
from tsvae.lds.parameters import LDSParameters
from tsvae.lds.passes import GroupedPass
from tsvae.lds.scans import affine_scan
from tsvae.lds.smoothing import BackwardConditionals, backward_conditionals


def sample_posterior(
    params: LDSParameters,
    filtered: FilterResult,
    generator: torch.Generator | None = None,
    n_samples: int = 1,
    *,
    conditionals: BackwardConditionals | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    r"""Draw whole paths from q(z), differentiable in everything (reparameterised).

    With a generator, groups of one or two are drawn around their smoothed means (module
    ``grouped_draws``), larger ones with diagonal potentials as smoothed means of perturbed data
    (``joint_means``), which costs no more than means. Otherwise the last state is drawn from
    its filtered law, then
    :math:`z_t = G_t z_{t+1} + \mathrm{offset}_t + V_t^{1/2} \epsilon_t` backwards
    (Frühwirth-Schnatter 1994; Carter & Kohn 1994).

    Parameters
    ----------
    params : LDSParameters
        Those given to the filter.
    filtered : FilterResult
    generator : torch.Generator, optional
        Source of the noise; needed unless ``noise`` is given.
    n_samples : int, default=1
        S.
    conditionals : BackwardConditionals, optional
        To share work with ``smooth``.
    noise : Tensor (S, B, T, D), optional
        Standard normal numbers to use instead of the generator.

    Returns
    -------
    Tensor (S, B, T, D)

    Raises
    ------
    ValueError
        If neither a generator nor noise is given, or noise has the wrong shape.
    """
    if conditionals is None:
        found = filtered.moments
        drawn = generator if noise is None else None
        if drawn is not None and isinstance(found, GroupedPass):
            return found.sample(n_samples, drawn)
        if drawn is not None and isinstance(found, JointPass) and found.diagonal:
            return found.sample(n_samples, drawn)
        conditionals = backward_conditionals(params, filtered)
    mean = filtered.filtered_mean
    noise = standard_noise((n_samples, *mean.shape), mean, generator, noise)
    layout, n_samples = filtered.layout, noise.shape[0]
    gain = layout.covariances_in(covariances_out(conditionals.gain, params.n_groups))
    root = safe_cholesky(conditionals.covariance)
    root = layout.covariances_in(covariances_out(root, params.n_groups))
    centre = conditionals.offset.repeat_interleave(n_samples, dim=2)
    paths = affine_scan(gain, centre + layout.samples_in(noise) @ root.mT, reverse=True)
    return layout.samples_out(paths, n_samples)


def standard_noise(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None, noise: Tensor | None
) -> Tensor:
    """Return ``noise`` after a check, or draw it."""
    if noise is not None:
        if tuple(noise.shape[1:]) != shape[1:]:
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}; expected (S, {shape[1]}, {shape[2]}, "
                f"{shape[3]})."
            )
        return noise
    if generator is None:
        raise ValueError("sampling needs a torch.Generator (or explicit noise); got None.")
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
