"""Linear layers and dropout that never draw from a global random state.

``torch.nn.Linear`` and ``torch.nn.Dropout`` read torch's global generator.  The modules here take
a private :class:`torch.Generator` instead, so that building and training a network leaves the
caller's random state as it was.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .parts import linear_of_parts

_POWER_ITERATIONS_AT_START = 30


def private_generator(generator: torch.Generator | None = None) -> torch.Generator:
    """Return the given generator, or a fresh one with seed 0 (never the global one).

    Parameters
    ----------
    generator : torch.Generator or None, default=None

    Returns
    -------
    torch.Generator
    """
    return torch.Generator().manual_seed(0) if generator is None else generator


@torch.no_grad()
def fill_uniform(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill with U(-bound, bound), drawn in float64 on the generator's device.

    Parameters
    ----------
    parameter : Tensor
        Overwritten.
    bound : float
    generator : torch.Generator
    """
    draw = torch.empty(parameter.shape, dtype=torch.float64, device=generator.device)
    parameter.copy_(draw.uniform_(-bound, bound, generator=generator))


@torch.no_grad()
def fill_normal(parameter: Tensor, std: float | Tensor, generator: torch.Generator) -> None:
    """Fill with N(0, std^2), drawn in float64 on the generator's device.

    Parameters
    ----------
    parameter : Tensor
        Overwritten.
    std : float or Tensor
        Broadcast against the parameter.
    generator : torch.Generator
    """
    draw = torch.empty(parameter.shape, dtype=torch.float64, device=generator.device)
    draw = draw.normal_(generator=generator).to(parameter.device)
    parameter.copy_(draw * (std.to(draw) if isinstance(std, Tensor) else std))


class Linear(nn.Module):
    """Affine map whose weights start from a private generator.

    Weights are drawn from U(-b, b) with b = gain * sqrt(3 / in_features), so that the output has
    gain^2 times the mean square of the input; biases start at 0.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool, default=True
    gain : float, default=1.0
        0 starts the layer as the zero map.

    Notes
    -----
    Weights are zero until :meth:`reset_parameters` is called by the module that owns the layer.
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.gain = gain
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights and zero the bias.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
            None: a private one with seed 0.
        """
        bound = self.gain * math.sqrt(3.0 / self.in_features)
        fill_uniform(self.weight, bound, private_generator(generator))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def current_weight(self) -> Tensor:
        """Weight for one forward pass, (out_features, in_features)."""
        return self.weight

    def forward(self, *parts: Tensor) -> Tensor:
        """Map (..., in_features), whole or in parts side by side, to (..., out_features)."""
        return linear_of_parts(parts, self.current_weight(), self.bias)

    def extra_repr(self) -> str:
        """Return what repr shows."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class SpectralLinear(Linear):
    """Affine map whose weight is divided by max(1, sigma_max / bound).

    Unlike ``torch.nn.utils.parametrizations.spectral_norm`` the weight is only ever made smaller
    (so a layer may start at zero), no global random numbers are drawn, and modules can be pickled.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool, default=True
    gain : float, default=1.0
    bound : float, default=1.0
        Largest spectral norm of the weight in use.

    References
    ----------
    Miyato et al. 2018 (arXiv 1802.05957), algorithm 1 (power iteration); Gouk et al. 2021
    (arXiv 1804.04368), equation 6 (projection by the maximum with 1).
    """

    left: Tensor
    right: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        gain: float = 1.0,
        bound: float = 1.0,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias, gain=gain)
        self.bound = bound
        self.register_buffer("left", torch.full((out_features,), out_features**-0.5))
        self.register_buffer("right", torch.full((in_features,), in_features**-0.5))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and starting singular vectors, then iterate them to convergence.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
            None: a private one with seed 0.
        """
        generator = private_generator(generator)
        super().reset_parameters(generator)
        for vector in (self.left, self.right):
            fill_normal(vector, 1.0, generator)
            vector.div_(torch.linalg.vector_norm(vector))
        for _ in range(_POWER_ITERATIONS_AT_START):
            self._iterate()

    @torch.no_grad()
    def _iterate(self) -> None:
        # A zero weight would send the vectors to 0, where they would stay: keep the old ones.
        for vector, product in (
            (self.right, lambda: self.weight.T @ self.left),
            (self.left, lambda: self.weight @ self.right),
        ):
            update = product()
            norm = torch.linalg.vector_norm(update)
            vector.copy_(torch.where(norm > 0, update / norm.clamp_min(1e-30), vector))

    def effective_weight(self) -> Tensor:
        """Weight after the projection, (out_features, in_features)."""
        # Clones: the buffers change in place at the next call, before this one's backward.
        sigma = self.left.clone() @ self.weight @ self.right.clone()
        return self.weight / (sigma / self.bound).clamp_min(1.0)

    def current_weight(self) -> Tensor:
        """Weight for one forward pass; in train mode the singular vectors follow it."""
        if self.training:
            self._iterate()
        return self.effective_weight()

    def extra_repr(self) -> str:
        """Return what repr shows."""
        return f"{super().extra_repr()}, bound={self.bound}"


class Dropout(nn.Module):
    """Dropout with a private stream of random numbers.

    The stream is a seed and a count of calls; both are part of ``state_dict`` (as one tensor), so
    a resumed training run sees the same masks as an uninterrupted one.

    Parameters
    ----------
    probability : float
        Probability to drop an entry, in [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, got {probability!r}")
        self.probability = float(probability)
        self.seed = 0
        self.calls = 0

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw a new seed.

        Parameters
        ----------
        generator : torch.Generator or None, default=None
            None: a private one with seed 0.
        """
        generator = private_generator(generator)
        draw = torch.randint(2**62, (), generator=generator, device=generator.device)
        self.seed, self.calls = int(draw), 0

    def forward(self, x: Tensor) -> Tensor:
        """Drop entries of x in training mode; x itself otherwise."""
        if not self.training or self.probability == 0.0:
            return x
        generator = torch.Generator(device=x.device).manual_seed(self.seed + self.calls)
        self.calls += 1
        keep = torch.rand(x.shape, generator=generator, device=x.device) >= self.probability
        return x * keep / (1.0 - self.probability)

    def get_extra_state(self) -> Tensor:
        """Return seed and count of calls."""
        return torch.tensor([self.seed, self.calls], dtype=torch.int64)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore seed and count of calls."""
        self.seed, self.calls = (int(value) for value in state)

    def extra_repr(self) -> str:
        """Return what repr shows."""
        return f"{self.probability}"
