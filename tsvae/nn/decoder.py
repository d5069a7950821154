"""Decoder: from the latent state to the parameters of the likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from .checks import as_positive_vector, as_vector, check_size, check_sizes
from .dense import DenseNet
from .layers import fill_normal, private_generator
from .likelihood_base import Likelihood
from .likelihoods import get_likelihood

ScaleKind = Literal["learned", "network", "fixed"]


class SigmaDecoder(nn.Module):
    """Likelihood parameters of each variable: loc = C z + d + net(z).

    The network's last layer starts at zero beside a linear path, so that the decoder starts as a
    linear emission.

    Parameters
    ----------
    latent_dim : int
        D.
    n_features : int
        F.
    hidden_sizes : sequence of int, default=(128,)
        Width of each stage of the network; ``()``: no network, the location is linear in z.
    stage_sizes : sequence of int or None, default=None
        Layers in each stage; None: one each.
    activation : str, default="gelu"
    likelihood : str or Likelihood, default="normal"
    scale : {"learned", "network", "fixed"}, default="learned"
        One learned scale per variable; a learned function of z (linear in the unconstrained scale
        if ``hidden_sizes=()``); or ``initial_scale``, not learned. Likelihoods without a scale
        (Bernoulli, Poisson) do not use it. Degrees of freedom are always learned per variable.
    skip : bool, default=True
        The linear path C z. False: the location comes from the network alone.
    final_sigmoid : bool, default=False
        Put the location into (0, 1), for data scaled to that range. The Bernoulli likelihood does
        this by itself.
    initial_scale : float or sequence of float, default=1.0
        Scale of each variable at the start; for negative_binomial the dispersion.
    initial_matrix : Tensor of shape (F, D) or None, default=None
        Initial C; None: random with variance 1 / D.
    initial_offset : float or sequence of float, default=0.0
        Initial d, of the unconstrained location (log odds for a final sigmoid or Bernoulli, log
        mean for counts).
    min_scale : float, default=1e-4
        Floor of the scale; see :class:`Likelihood`. Only for a likelihood given by name.
    residual, layer_norm, dropout, spectral_norm
        See :class:`DenseNet`.
    generator : torch.Generator or None, default=None
        Source of the initial parameters; None: a private one with seed 0.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range, or parameters contradict each other.

    Examples
    --------
    >>> import torch
    >>> decoder = SigmaDecoder(4, 3, hidden_sizes=(16,))
    >>> params = decoder(torch.zeros(2, 5, 4))
    >>> params.loc.shape, params.scale.shape
    (torch.Size([2, 5, 3]), torch.Size([3]))
    """

    def __init__(
        self,
        latent_dim: int,
        n_features: int,
        *,
        hidden_sizes: Sequence[int] = (128,),
        stage_sizes: Sequence[int] | None = None,
        activation: str = "gelu",
        likelihood: str | Likelihood[Any] = "normal",
        scale: ScaleKind = "learned",
        skip: bool = True,
        final_sigmoid: bool = False,
        initial_scale: float | Sequence[float] | Tensor = 1.0,
        initial_matrix: Tensor | None = None,
        initial_offset: float | Sequence[float] | Tensor = 0.0,
        min_scale: float = 1e-4,
        residual: bool = True,
        layer_norm: bool = False,
        dropout: float = 0.0,
        spectral_norm: bool | float = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim = check_size("latent_dim", latent_dim)
        self.n_features = check_size("n_features", n_features)
        self.likelihood = get_likelihood(
            likelihood, **({"min_scale": min_scale} if isinstance(likelihood, str) else {})
        )
        hidden = check_sizes("hidden_sizes", hidden_sizes)
        self._check_options(hidden, scale, skip, final_sigmoid)
        self.scale_kind = scale
        self.skip = skip
        self.final_sigmoid = final_sigmoid and self.likelihood.support == "real"
        self._network_scale = scale == "network" and "scale" in self.likelihood.raw_names
        self._start_matrix = self._check_matrix(initial_matrix)
        self._start_offset = as_vector("initial_offset", initial_offset, n_features)
        self._start_raw = self.likelihood.initial_raw(
            as_positive_vector("initial_scale", initial_scale, n_features)
        )
        self._build_parameters()
        self.network: DenseNet | None = None
        if hidden or self._network_scale:
            self.network = DenseNet(
                self.latent_dim,
                self.n_features * (bool(hidden) + self._network_scale),
                hidden,
                stage_sizes=stage_sizes,
                activation=activation,
                residual=residual,
                layer_norm=layer_norm,
                dropout=dropout,
                spectral_norm=spectral_norm,
                zero_last=skip,
                final_bias=False,  # the offset and the raw scale are its bias
                generator=private_generator(generator),
            )
        self._network_location = bool(hidden)
        self.reset_parameters(generator)

    def _check_options(
        self, hidden: tuple[int, ...], scale: str, skip: bool, final_sigmoid: bool
    ) -> None:
        if scale not in get_args(ScaleKind):
            raise ValueError(f"scale must be 'learned', 'network' or 'fixed', got {scale!r}")
        if not skip and not hidden:
            raise ValueError("skip=False needs a network; give hidden_sizes or set skip=True")
        if final_sigmoid and self.likelihood.support == "count":
            raise ValueError(
                f"final_sigmoid puts the location into (0, 1), but likelihood="
                f"{self.likelihood.name!r} is for counts; set final_sigmoid=False"
            )

    def _check_matrix(self, matrix: Tensor | None) -> Tensor | None:
        if matrix is None:
            return None
        if not self.skip:
            raise ValueError("initial_matrix needs the linear path; set skip=True")
        value = torch.as_tensor(matrix, dtype=torch.float64).detach().cpu().clone()
        wanted = (self.n_features, self.latent_dim)
        if value.shape != wanted:
            raise ValueError(f"initial_matrix must have shape {wanted}, got {tuple(value.shape)}")
        return value

    def _build_parameters(self) -> None:
        if self.skip:
            shape = (self.n_features, self.latent_dim)
            self.emission_matrix = nn.Parameter(torch.zeros(shape))  # C
        self.offset = nn.Parameter(torch.zeros(self.n_features))  # d
        self._raw_names = tuple(f"raw_{name}" for name in self.likelihood.raw_names[1:])
        for name in self._raw_names:
            if name == "raw_scale" and self.scale_kind == "fixed":
                self.register_buffer(name, torch.zeros(self.n_features))
            else:
                self.register_parameter(name, nn.Parameter(torch.zeros(self.n_features)))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; given initial values are set again.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
            None: a private one with seed 0.
        """
        generator = private_generator(generator)
        if self.skip:
            fill_normal(self.emission_matrix, self.latent_dim**-0.5, generator)
            if self._start_matrix is not None:
                self.emission_matrix.copy_(self._start_matrix)
        self.offset.copy_(self._start_offset)
        for name, start in zip(self._raw_names, self._start_raw, strict=True):
            getattr(self, name).copy_(start)
        if self.network is not None:
            self.network.reset_parameters(generator)
            if self._network_scale:  # every scale starts at its initial value
                self.network.last.weight[-self.n_features :].zero_()

    def forward(self, z: Tensor) -> Any:
        """Decode latent states.

        Parameters
        ----------
        z : Tensor, shape (..., D)

        Returns
        -------
        NamedTuple of Tensor
            Parameters of the likelihood: ``loc`` of shape (..., F); ``scale`` of shape (F,), or
            (..., F) if it comes from the network.

        Raises
        ------
        ValueError
            If the last axis is not D.
        """
        if z.shape[-1:] != (self.latent_dim,):
            raise ValueError(f"z must have shape (..., {self.latent_dim}), got {tuple(z.shape)}")
        outputs = None if self.network is None else self.network(z)
        loc: Tensor = self.offset
        if self.skip:
            loc = functional.linear(z, self.emission_matrix, self.offset)
        if outputs is not None and self._network_location:
            loc = loc + outputs[..., : self.n_features]
        if self.final_sigmoid:
            loc = torch.sigmoid(loc)
        raw = {name: getattr(self, name) for name in self._raw_names}
        if outputs is not None and self._network_scale:
            raw["raw_scale"] = raw["raw_scale"] + outputs[..., -self.n_features :]
        return self.likelihood.from_raw(loc, *raw.values())
