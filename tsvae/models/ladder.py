"""Latent levels of a hierarchical model: bottom-up features, top-down distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tsvae.models.gaussians import limit_log_variance, standard_noise
from tsvae.nn.checks import check_sizes
from tsvae.nn.layers import Linear, private_generator

__all__ = ["Gaussian", "Ladder", "LadderStates", "join_levels", "merge_gaussians"]


class Gaussian(NamedTuple):
    """Diagonal normal of one level."""

    mu: Tensor
    log_var: Tensor


class LadderStates(NamedTuple):
    """Codes and distributions of all levels, the coarsest first.

    Parameters
    ----------
    z : tuple of Tensor, each of shape (N, *level_shape)
    posterior, prior : tuple of Gaussian
        Of each level, given the codes of the coarser ones.
    top_down : Tensor, shape (N, ...)
        What the decoder reads.
    """

    z: tuple[Tensor, ...]
    posterior: tuple[Gaussian, ...]
    prior: tuple[Gaussian, ...]
    top_down: Tensor


def merge_gaussians(one: Gaussian, other: Gaussian) -> Gaussian:
    r"""Product of two normals: precisions add, means are weighted by them.

    Parameters
    ----------
    one, other : Gaussian

    Returns
    -------
    Gaussian

    References
    ----------
    Sonderby et al. 2016 (arXiv 1602.02282), equations 18 and 19 of the NeurIPS version.

    Examples
    --------
    >>> unit = Gaussian(torch.tensor(0.0), torch.tensor(0.0))
    >>> merged = merge_gaussians(unit, Gaussian(torch.tensor(3.0), torch.tensor(-0.6931)))
    >>> merged.mu, merged.log_var.exp()
    (tensor(2.0000), tensor(0.3333))
    """
    # By log-odds of the precisions: no overflow where one is far more precise than the other.
    weight = torch.sigmoid(other.log_var - one.log_var)
    mu = weight * one.mu + (1.0 - weight) * other.mu
    return Gaussian(mu, -torch.logaddexp(-one.log_var, -other.log_var))


def join_levels(parts: Sequence[Tensor]) -> Tensor:
    """Flatten codes of levels (N, *level_shape) into vectors (N, n_latent)."""
    return torch.cat([part.flatten(1) for part in parts], dim=1)


class Ladder(nn.Module):
    r"""Ladder of latent levels, coarsest first.

    Generation goes down: :math:`z_1 \sim N(0, I)`, then each finer level from features of the
    coarser ones. Inference goes up through deterministic features :math:`d`, then down: each
    level's posterior is the normalised product of what the features say and the prior,

    .. math:: q(z_i | z_{<i}, x) \propto N(z_i; \hat\mu_i(d_i), \hat\sigma_i^2(d_i))\,
              p(z_i | z_{<i}).

    The coarsest level takes what the features say alone, as a plain VAE does.

    Parameters
    ----------
    encoders : sequence of Module
        Bottom-up: the first reads the record, each further one the features before it. The
        features' last axis is the channel; their other axes are those of the level's codes.
    expanders : sequence of Module
        Top-down, one less than encoders: from the state of a level to features of the next finer
        level, of that level's axes.
    latent_dims : sequence of int
        Latent channels of each level, coarsest first.
    skip : bool, default=True
        A level's state is its codes beside the features that they came from, so that finer levels
        and the decoder see all coarser ones. False: the codes alone, as in the paper.
    """

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        expanders: Sequence[nn.Module],
        latent_dims: Sequence[int],
        *,
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.latent_dims = check_sizes("latent_dims", latent_dims)
        if not len(encoders) == len(expanders) + 1 == len(self.latent_dims):
            raise ValueError(
                "a ladder of n levels has n encoders, n - 1 expanders and n latent_dims, got "
                f"{len(encoders)}, {len(expanders)} and {len(self.latent_dims)}"
            )
        self.skip = skip
        self.encoders, self.expanders = nn.ModuleList(encoders), nn.ModuleList(expanders)
        self.mean_heads, self.log_var_heads = nn.ModuleList(), nn.ModuleList()
        self.prior_heads = nn.ModuleList()
        self.level_shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def n_levels(self) -> int:
        """Number of latent levels."""
        return len(self.latent_dims)

    @property
    def built(self) -> bool:
        """Whether :meth:`build` was called."""
        return bool(self.level_shapes)

    @torch.no_grad()
    def build(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Make the heads that fit the networks.

        Parameters
        ----------
        x : Tensor
            What the first encoder reads.
        generator : torch.Generator, optional
            Source of the heads' parameters; None: a private one with seed 0.

        Returns
        -------
        Tensor
            A top-down state as the decoder will get it.

        Raises
        ------
        ValueError
            If an expander's features do not have the axes of the level that they lead to.
        """
        generator = private_generator(generator)
        features = self.bottom_up(x)
        shapes = [
            (*d.shape[1:-1], width) for d, width in zip(features, self.latent_dims, strict=True)
        ]
        self.mean_heads, self.log_var_heads = nn.ModuleList(), nn.ModuleList()
        self.prior_heads = nn.ModuleList()
        state = features[0].new_zeros((len(x), *shapes[0]))
        for i, (d, width) in enumerate(zip(features, self.latent_dims, strict=True)):
            self.mean_heads.append(_head(d, width, generator, gain=1.0))
            self.log_var_heads.append(_head(d, width, generator, gain=0.0))
            if i:
                above = self.expanders[i - 1](state)
                if above.shape[:-1] != d.shape[:-1]:
                    raise ValueError(
                        f"expander {i - 1} gives features of shape {tuple(above.shape)}, but "
                        f"level {i} (coarsest: 0) has features of shape {tuple(d.shape)}; all "
                        "axes but the last must agree"
                    )
                # Gain 0: every level starts with a standard normal prior.
                self.prior_heads.append(_head(above, 2 * width, generator, gain=0.0))
                state = self._state(above.new_zeros((len(x), *shapes[i])), above)
        self.level_shapes = tuple(shapes)
        return state

    def bottom_up(self, x: Tensor) -> list[Tensor]:
        """Deterministic features of every level, coarsest first."""
        features = []
        for encoder in self.encoders:
            x = encoder(x)
            features.append(x)
        return features[::-1]

    def noise(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Draw standard normals for ``n`` codes of every level, the coarsest first.

        Parameters
        ----------
        n : int
        generator : torch.Generator

        Returns
        -------
        list of Tensor, each of shape (n, *level_shape)
        """
        like = next(self.mean_heads.parameters()).detach()
        return [standard_noise((n, *shape), like, generator) for shape in self.level_shapes]

    def infer(
        self, x: Tensor, n_samples: int = 1, noise: Sequence[Tensor] | None = None
    ) -> LadderStates:
        """Codes of records.

        Parameters
        ----------
        x : Tensor, shape (B, ...)
        n_samples : int, default=1
            S, codes per record.
        noise : sequence of Tensor or None, default=None
            From :meth:`noise`, for N = B * S codes; None: each level takes its posterior mean.

        Returns
        -------
        LadderStates
            The copies of a record are side by side.
        """
        said = []
        heads = zip(self.bottom_up(x), self.mean_heads, self.log_var_heads, strict=True)
        for features, mean_head, log_var_head in heads:
            law = Gaussian(mean_head(features), limit_log_variance(log_var_head(features)))
            if n_samples > 1:
                law = Gaussian(*(part.repeat_interleave(n_samples, dim=0) for part in law))
            said.append(law)
        return self._descend(x.shape[0] * n_samples, said=said, noise=noise)

    def generate(self, z: Sequence[Tensor]) -> LadderStates:
        """Top-down pass of given codes.

        Parameters
        ----------
        z : sequence of Tensor, each of shape (N, *level_shape)

        Returns
        -------
        LadderStates
            Whose posterior is the prior.
        """
        return self._descend(z[0].shape[0], given=z)

    def sample(self, n: int, noise: Sequence[Tensor] | None = None) -> LadderStates:
        """Draw from the prior.

        Parameters
        ----------
        n : int
            N.
        noise : sequence of Tensor or None, default=None
            From :meth:`noise`, for N codes; None: each level takes its prior mean.

        Returns
        -------
        LadderStates
        """
        return self._descend(n, noise=noise)

    def _descend(
        self,
        n: int,
        *,
        said: list[Gaussian] | None = None,
        noise: Sequence[Tensor] | None = None,
        given: Sequence[Tensor] | None = None,
    ) -> LadderStates:
        codes, posteriors, priors = [], [], []
        above: Tensor | None = None
        state: Tensor | None = None
        for i in range(self.n_levels):
            if state is None:
                prior = self._standard(n)
            else:
                above = self.expanders[i - 1](state)
                mu, log_var = self.prior_heads[i - 1](above).chunk(2, dim=-1)
                prior = Gaussian(mu, limit_log_variance(log_var))
            posterior = prior
            if said is not None:
                posterior = said[i] if i == 0 else merge_gaussians(said[i], prior)
            z = posterior.mu if given is None else given[i]
            if given is None and noise is not None:
                z = z + noise[i] * torch.exp(0.5 * posterior.log_var)
            state = self._state(z, above)
            codes.append(z)
            posteriors.append(posterior)
            priors.append(prior)
        assert state is not None
        return LadderStates(tuple(codes), tuple(posteriors), tuple(priors), state)

    def _standard(self, n: int) -> Gaussian:
        like = next(self.mean_heads.parameters())
        zero = like.new_zeros((n, *self.level_shapes[0]))
        return Gaussian(zero, zero)

    def _state(self, z: Tensor, above: Tensor | None) -> Tensor:
        return z if above is None or not self.skip else torch.cat([z, above], dim=-1)


def _head(features: Tensor, width: int, generator: torch.Generator, gain: float) -> Linear:
    head = Linear(features.shape[-1], width, gain=gain)
    head.reset_parameters(generator)
    return head.to(features)
