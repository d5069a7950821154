"""The graphical-model room of a structured VAE: a small protocol and a registry.

A structured VAE asks its graphical model for five things only: the posterior of the latent states
under Gaussian potentials, joint samples of it, the KL divergence of its parameters' posterior from
their prior, the state from which a forecast starts, and that forecast. The linear dynamical system
is the first implementation; switching systems, hidden Markov models and mixtures fit the same
protocol, one file each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from tsvae.lds import Potentials

__all__ = [
    "DrawnStates",
    "GraphicalModel",
    "State",
    "StateForecast",
    "StatePosterior",
    "get_graphical_model",
    "graphical_model_names",
    "register_graphical_model",
]


class StatePosterior(NamedTuple):
    """Posterior of the latent states of every series.

    Attributes
    ----------
    mean : Tensor (B, T, D)
        Smoothed means.
    covariance : Tensor (P, T, G, K, K)
        Smoothed covariances, one per distinct missing pattern.
    pattern : Tensor (B,) long or None
        Row of ``covariance`` of each series; None when P is 1 or B.
    local_kl : Tensor (B,)
        KL divergence of q(z) from its prior, expected under the parameters' posterior.
    detail : Any
        What the implementation keeps for sampling and forecasting.
    prior_kl : Tensor or None
        What ``prior_kl()`` would give, where it comes almost free with the rest.
    draws : Tensor (S, B, T, D) or None
        Joint samples, where they were asked for along with the rest.
    """

    mean: Tensor
    covariance: Tensor
    pattern: Tensor | None
    local_kl: Tensor
    detail: Any
    prior_kl: Tensor | None = None
    draws: Tensor | None = None


class DrawnStates(NamedTuple):
    """What the evidence lower bound asks of the states.

    Attributes
    ----------
    draws : Tensor (S, B, T, D)
        Joint samples of the posterior.
    local_kl : Tensor (B,)
        As in ``StatePosterior``.
    prior_kl : Tensor ()
        What ``prior_kl()`` would give.
    """

    draws: Tensor
    local_kl: Tensor
    prior_kl: Tensor


class State(NamedTuple):
    """Distribution of one latent state of N chains.

    Attributes
    ----------
    mean : Tensor (N, D)
    covariance : Tensor (1 or N, G, K, K)
    """

    mean: Tensor
    covariance: Tensor


class StateForecast(NamedTuple):
    """Moments of the next H states of N chains.

    Attributes
    ----------
    mean : Tensor (N, H, D)
    covariance : Tensor (1 or N, H, G, K, K)
    """

    mean: Tensor
    covariance: Tensor


class GraphicalModel(Protocol):
    """What a structured VAE needs of its graphical model (a ``torch.nn.Module``).

    Optional: ``infer_and_sample(potentials, n_samples, generator, inputs, lengths)``, which gives
    the result of ``infer`` with ``draws`` where both together are cheaper than apart; and ``draw``
    with the same arguments, which gives ``DrawnStates`` and no more.
    """

    latent_dim: int

    def infer(
        self, potentials: Potentials, inputs: Tensor | None, lengths: Tensor | None
    ) -> StatePosterior:
        """Exact posterior of the states under the potentials."""
        ...

    def sample(
        self, posterior: StatePosterior, n_samples: int, generator: torch.Generator
    ) -> Tensor:
        """Joint posterior samples, ``(S, B, T, D)``."""
        ...

    def prior_kl(self) -> Tensor:
        """KL divergence of the parameters' posterior from their prior, a scalar."""
        ...

    def filter(self, potentials: Potentials, inputs: Tensor | None, lengths: Tensor | None) -> Any:
        """Run the filter alone; what it returns is kept in ``StatePosterior.detail`` by infer."""
        ...

    def states_at(self, filtered: Any, potentials: Potentials, steps: Tensor) -> State:
        """Return the filtered states at ``steps``, step-major: N = len(steps) * B."""
        ...

    def state_after(self, filtered: Any, lengths: Tensor) -> State:
        """Return the filtered state after the first ``lengths (B,)`` rows."""
        ...

    def predicted(self, filtered: Any, potentials: Potentials, inputs: Tensor | None) -> State:
        """Return the moments of every state given the steps before it, ``(B, T, ...)``."""
        ...

    def forecast(self, state: State, horizon: int, inputs: Tensor | None) -> StateForecast:
        """Moments of the next states."""
        ...

    def sample_forecast(
        self,
        state: State,
        horizon: int,
        n_samples: int,
        generator: torch.Generator,
        inputs: Tensor | None,
        *,
        detach: bool = False,
    ) -> Tensor:
        """Joint sample paths of the next states, ``(S, N, H, D)``."""
        ...


ModelClass = TypeVar("ModelClass", bound=type)

_REGISTRY: dict[str, type] = {}


def register_graphical_model(name: str) -> Callable[[ModelClass], ModelClass]:
    """Class decorator that makes a graphical model available by name.

    Parameters
    ----------
    name : str

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If the name is taken.
    """

    def add(cls: ModelClass) -> ModelClass:
        if name in _REGISTRY:
            raise ValueError(
                f"graphical model {name!r} exists already ({_REGISTRY[name].__name__}); choose "
                "another name."
            )
        _REGISTRY[name] = cls
        return cls

    return add


def graphical_model_names() -> list[str]:
    """Names that :func:`get_graphical_model` accepts.

    Examples
    --------
    >>> "lds" in graphical_model_names()
    True
    """
    _load_builtin()
    return sorted(_REGISTRY)


def get_graphical_model(name: str) -> type:
    """Look a graphical model up by name.

    Parameters
    ----------
    name : str

    Returns
    -------
    type

    Raises
    ------
    ValueError
        If the name is not known.
    """
    _load_builtin()
    if name not in _REGISTRY:
        raise ValueError(
            f"graphical model {name!r} is not known; choose one of {sorted(_REGISTRY)}, or add it "
            "with register_graphical_model."
        )
    return _REGISTRY[name]


def _load_builtin() -> None:
    from tsvae.models import linear_dynamics  # noqa: F401  (registers itself)
