"""Encoder: what the entries seen at one step say about the latent state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from .checks import as_positive_vector, check_series, check_size, check_sizes
from .dense import DenseNet
from .layers import fill_normal, private_generator
from .masking import all_seen, zero_where_missing
from .special import inverse_softplus

PotentialKind = Literal["diagonal", "block", "dense"]
PrecisionKind = Literal["learned", "network"]

# The network's own precision starts small beside the one learned per entry: its location starts
# at 0, so a large start would pull the state there.
_NETWORK_PRECISION_SHARE = 0.01
_SMALLEST_WEIGHT = 1e-12


class EncoderOutput(NamedTuple):
    """Potential exp(h'z - z'Lz / 2) of every step.

    Attributes
    ----------
    linear : Tensor, shape (B, T, D)
        h.
    precision : Tensor
        L: (P, T, D) if diagonal, (P, T, G, K, K) if block, (P, T, D, D) if dense. P = 1 if all
        series share one mask, the number of patterns if ``pattern`` was given, else B.
    """

    linear: Tensor
    precision: Tensor


class SigmaEncoder(nn.Module):
    """Gaussian potential on the latent state z_t from the observed entries of x_t.

    The precision is learned per entry and depends on which entries are present, never on their
    values; it is exactly 0 when nothing is seen. The location has a linear path, which can
    represent Bayes' rule for a linear Gaussian emission exactly, and a network, which starts at 0
    and corrects it.

    With m_f = 1 for a present entry, o the offset and c_fg in R^K the loading of entry f on group
    g:

    - ``potential="diagonal"``: L_d = sum_f m_f w_fd and h_d = sum_f m_f w_fd a_fd (x_f - o_f), with
      w = softplus(W);
    - ``potential="block"``: L_g = sum_f m_f c_fg c_fg' and h_g = sum_f m_f c_fg a_f (x_f - o_f);
    - ``potential="dense"``: the same with one group of size D;
    - the network adds L net([x, m, u]) to h.

    Parameters
    ----------
    n_features : int
        F.
    latent_dim : int
        D.
    hidden_sizes : sequence of int, default=(128,)
        Width of each stage of the network; ``()``: no network, the encoder is linear in x.
    stage_sizes : sequence of int or None, default=None
        Layers in each stage; None: one each.
    activation : str, default="gelu"
    n_covariates : int, default=0
        U; covariates enter the network (they are ignored without one).
    group_size : int or None, default=None
        K, needed for ``potential="block"``; it must divide ``latent_dim``.
    skip : bool, default=True
        The linear path of the location. False: the location comes from the network alone, whose
        last layer then starts at random instead of 0.
    precision : {"learned", "network"}, default="learned"
        "network" adds a positive diagonal from the network, times the fraction of entries present.
    potential : {"diagonal", "block", "dense"}, default="diagonal"
    precision_start : float or sequence of float, default=1.0
        Initial precision of each latent dimension when all entries are present ("block" and
        "dense": its expectation).
    mask_input : bool, default=True
        Give the mask to the network. False halves its input when nothing is ever missing.
    residual, layer_norm, dropout, spectral_norm
        See :class:`DenseNet`.
    generator : torch.Generator or None, default=None
        Source of the initial parameters; None: a private one with seed 0.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range, or parameters contradict each other.

    References
    ----------
    Johnson et al. 2016 (arXiv 1603.06277), section 4.1 (recognition networks that output conjugate
    potentials). Linear emission: x = C z + o + N(0, R) gives h = C'R^-1 (x - o), L = C'R^-1 C, sums
    over the present entries for diagonal R.

    Examples
    --------
    >>> import torch
    >>> encoder = SigmaEncoder(3, 4, hidden_sizes=(16,))
    >>> x = torch.ones(2, 5, 3)
    >>> mask = torch.ones(1, 5, 3, dtype=torch.bool)
    >>> linear, precision = encoder(x, mask)
    >>> linear.shape, precision.shape
    (torch.Size([2, 5, 4]), torch.Size([1, 5, 4]))
    """

    def __init__(
        self,
        n_features: int,
        latent_dim: int,
        *,
        hidden_sizes: Sequence[int] = (128,),
        stage_sizes: Sequence[int] | None = None,
        activation: str = "gelu",
        n_covariates: int = 0,
        group_size: int | None = None,
        skip: bool = True,
        precision: PrecisionKind = "learned",
        potential: PotentialKind = "diagonal",
        precision_start: float | Sequence[float] | Tensor = 1.0,
        mask_input: bool = True,
        residual: bool = True,
        layer_norm: bool = False,
        dropout: float = 0.0,
        spectral_norm: bool | float = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_features = check_size("n_features", n_features)
        self.latent_dim = check_size("latent_dim", latent_dim)
        self.n_covariates = check_size("n_covariates", n_covariates, minimum=0)
        self.skip = skip
        self.precision_kind = precision
        self.potential = potential
        self.mask_input = mask_input
        hidden = check_sizes("hidden_sizes", hidden_sizes)
        _check_options(hidden, skip, precision, potential)
        self.group_size = _group_size(potential, group_size, self.latent_dim)
        self.precision_start = as_positive_vector(
            "precision_start", precision_start, self.latent_dim
        )
        self._build_linear_path()
        n_inputs = n_features * (2 if mask_input else 1) + self.n_covariates
        self.network: DenseNet | None = None
        if hidden:
            self.network = DenseNet(
                n_inputs,
                self.latent_dim * (2 if precision == "network" else 1),
                hidden,
                stage_sizes=stage_sizes,
                activation=activation,
                residual=residual,
                layer_norm=layer_norm,
                dropout=dropout,
                spectral_norm=spectral_norm,
                zero_last=skip,
                generator=private_generator(generator),
            )
        self.reset_parameters(generator)

    def _build_linear_path(self) -> None:
        n_features, latent_dim = self.n_features, self.latent_dim
        if self.potential == "diagonal":
            self.raw_weight = nn.Parameter(torch.zeros(n_features, latent_dim))  # W
            scale_shape: tuple[int, ...] = (n_features, latent_dim)
        else:
            n_groups = latent_dim // self.group_size
            self.loading = nn.Parameter(torch.zeros(n_features, n_groups, self.group_size))  # c
            scale_shape = (n_features,)
        if self.skip:
            self.input_scale = nn.Parameter(torch.ones(scale_shape))  # a
            self.offset = nn.Parameter(torch.zeros(n_features))  # o

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
            None: a private one with seed 0.
        """
        generator = private_generator(generator)
        share = self.precision_start / self.n_features
        if self.potential == "diagonal":
            self.raw_weight.copy_(inverse_softplus(share).expand(self.raw_weight.shape))
        else:
            fill_normal(self.loading, share.sqrt().reshape(self.loading.shape[1:]), generator)
        if self.skip:
            nn.init.zeros_(self.offset)
            if self.potential == "diagonal":
                # The location is a mean over F entries: sqrt(F) keeps its variance at one.
                fill_normal(self.input_scale, math.sqrt(self.n_features), generator)
            else:
                nn.init.ones_(self.input_scale)
        if self.network is not None:
            self.network.reset_parameters(generator)
            if self.precision_kind == "network":
                bias = self.network.last.bias
                assert bias is not None
                start = inverse_softplus(_NETWORK_PRECISION_SHARE * self.precision_start)
                bias[self.latent_dim :].copy_(start)

    @torch.no_grad()
    def set_emission(
        self, matrix: Tensor, noise_variance: Tensor, offset: Tensor | None = None
    ) -> None:
        """Set the linear path to Bayes' rule under x = C z + o + N(0, diag(R)).

        Exact for "dense"; for "block" the cross-group blocks of C'R^-1 C, and for "diagonal" its
        off-diagonal entries, cannot be represented and are left out.

        Parameters
        ----------
        matrix : Tensor, shape (F, D)
            C.
        noise_variance : Tensor, shape (F,)
            R, positive.
        offset : Tensor, shape (F,), or None
            o; None: 0.

        Raises
        ------
        ValueError
            If a shape differs, or the encoder has no linear path.
        """
        if not self.skip:
            raise ValueError("set_emission needs the linear path; build the encoder with skip=True")
        wanted = (self.n_features, self.latent_dim)
        emission = torch.as_tensor(matrix, dtype=torch.float64).cpu()
        if emission.shape != wanted:
            raise ValueError(f"matrix must have shape {wanted}, got {tuple(emission.shape)}")
        noise = as_positive_vector("noise_variance", noise_variance, self.n_features)
        shift = torch.zeros_like(noise) if offset is None else torch.as_tensor(offset).cpu()
        self.offset.copy_(shift)
        if self.potential == "diagonal":
            weight = (emission**2 / noise[:, None]).clamp_min(_SMALLEST_WEIGHT)
            self.raw_weight.copy_(inverse_softplus(weight))
            self.input_scale.copy_(emission / noise[:, None] / weight)
        else:
            self.loading.copy_((emission / noise.sqrt()[:, None]).view_as(self.loading))
            self.input_scale.copy_(noise.rsqrt())

    def learned_precision(self, mask: Tensor) -> Tensor:
        """Part of the precision that depends on the mask alone.

        Parameters
        ----------
        mask : Tensor of bool, shape (P, T, F)

        Returns
        -------
        Tensor
            (P, T, D), (P, T, G, K, K) or (P, T, D, D); 0 where nothing is seen.
        """
        return self._precision_of(mask, self._weight())

    def _weight(self) -> Tensor | None:
        """Precision that each present entry adds (diagonal potentials)."""
        return functional.softplus(self.raw_weight) if self.potential == "diagonal" else None

    def _precision_of(self, mask: Tensor, weight: Tensor | None) -> Tensor:
        if weight is not None:
            return mask.to(weight.dtype) @ weight
        loading = self.loading
        blocks = (loading.unsqueeze(-1) * loading.unsqueeze(-2)).flatten(1)  # (F, G K K)
        total = mask.to(loading.dtype) @ blocks
        n_groups, size = loading.shape[1:]
        shape = (size, size) if self.potential == "dense" else (n_groups, size, size)
        return total.view(*mask.shape[:2], *shape)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        covariates: Tensor | None = None,
        pattern: Tensor | None = None,
    ) -> EncoderOutput:
        """Potential of every step.

        Parameters
        ----------
        x : Tensor, shape (B, T, F)
            Missing entries may hold anything.
        mask : Tensor of bool, shape (B, T, F), (1, T, F) or (P, T, F) with ``pattern``
            True = present. A mask shared by all series is best given as (1, T, F) (or as an
            expanded view): its precision is then computed once.
        covariates : Tensor, shape (B, T, U), or None
            Needed if ``n_covariates`` > 0 and there is a network.
        pattern : Tensor of int, shape (B,), or None
            Which of P distinct masks each series has.

        Returns
        -------
        EncoderOutput
            With ``precision="network"`` the precision has one entry per series.

        Raises
        ------
        ValueError
            If a shape is wrong.
        """
        mask = check_series(x, mask, pattern, self.n_features).bool()
        weight = self._weight()
        if all_seen(mask):  # then all rows are alike
            own_mask = mask[:1, :1]
            one = self._precision_of(own_mask, weight)
            precision = one.expand(*mask.shape[:2], *one.shape[2:])
        else:
            own_mask = mask if pattern is None else mask[pattern]
            precision = self._precision_of(mask, weight)
        seen = zero_where_missing(x, own_mask)
        linear: Tensor | None = self._skip_linear(x, own_mask, weight) if self.skip else None
        if self.network is not None:
            outputs = self.network(*self._network_inputs(seen, own_mask, covariates))
            own_precision = precision if pattern is None else precision[pattern]
            if self.precision_kind == "network":
                fraction = own_mask.to(x.dtype).mean(-1, keepdim=True)
                extra = functional.softplus(outputs[..., self.latent_dim :]) * fraction
                own_precision = precision = self._add_diagonal(own_precision, extra)
            correction = self._multiply(own_precision, outputs[..., : self.latent_dim])
            linear = correction if linear is None else linear + correction
        assert linear is not None  # skip or network: checked when built
        return EncoderOutput(linear, precision)

    def _skip_linear(self, x: Tensor, mask: Tensor, weight: Tensor | None) -> Tensor:
        centred = zero_where_missing(x - self.offset, mask)
        if weight is not None:
            return centred @ (weight * self.input_scale)
        return (centred * self.input_scale) @ self.loading.flatten(1)

    def _network_inputs(
        self, seen: Tensor, mask: Tensor, covariates: Tensor | None
    ) -> list[Tensor]:
        """Parts of the input side by side; a mask that series share is there once."""
        parts = [seen]
        if self.mask_input:
            parts.append(mask.to(seen.dtype))
        if self.n_covariates:
            if covariates is None or covariates.shape[-1] != self.n_covariates:
                got = None if covariates is None else tuple(covariates.shape)
                raise ValueError(
                    f"covariates must have shape (B, T, {self.n_covariates}), got {got}"
                )
            parts.append(covariates.expand(*seen.shape[:2], -1))
        return parts

    def _add_diagonal(self, precision: Tensor, extra: Tensor) -> Tensor:
        if self.potential == "block":
            extra = extra.unflatten(-1, (-1, self.group_size))
        return precision + (extra if self.potential == "diagonal" else torch.diag_embed(extra))

    def _multiply(self, precision: Tensor, location: Tensor) -> Tensor:
        if self.potential == "diagonal":
            return precision * location
        if self.potential == "block":
            location = location.unflatten(-1, (-1, self.group_size))
            return (precision @ location.unsqueeze(-1)).squeeze(-1).flatten(-2)
        return (precision @ location.unsqueeze(-1)).squeeze(-1)


def _check_options(hidden: tuple[int, ...], skip: bool, precision: str, potential: str) -> None:
    if precision not in get_args(PrecisionKind):
        raise ValueError(f"precision must be 'learned' or 'network', got {precision!r}")
    if potential not in get_args(PotentialKind):
        raise ValueError(f"potential must be 'diagonal', 'block' or 'dense', got {potential!r}")
    if hidden:
        return
    if not skip:
        raise ValueError("skip=False needs a network; give hidden_sizes or set skip=True")
    if precision == "network":
        raise ValueError(
            "precision='network' needs a network; give hidden_sizes or use precision='learned'"
        )


def _group_size(potential: str, group_size: int | None, latent_dim: int) -> int:
    if potential != "block":
        return latent_dim
    if group_size is None:
        raise ValueError("potential='block' needs group_size (a divisor of latent_dim)")
    size = check_size("group_size", group_size)
    if latent_dim % size:
        raise ValueError(f"group_size={size} must divide latent_dim={latent_dim}")
    return size
