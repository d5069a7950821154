"""What a likelihood is: the base class and the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from .special import inverse_softplus

Parameters = TypeVar("Parameters", bound=tuple[Tensor, ...])
LikelihoodClass = TypeVar("LikelihoodClass", bound="type[Likelihood[Any]]")
Support = Literal["real", "unit", "count"]

_SUPPORTS = {
    "real": "finite numbers",
    "unit": "numbers between 0 and 1",
    "count": "non-negative integers",
}


class Likelihood(ABC, Generic[Parameters]):
    """Distribution of each observed entry given the decoder's output, independent over entries.

    A subclass names its raw channels, turns them into a NamedTuple of parameters, and says how
    likely a value is under these. Every parameter tuple has ``loc`` (the centre, in data units)
    and ``scale``, both broadcastable to (..., F).

    Parameters
    ----------
    min_scale : float, default=1e-4
        Floor of the scale, in data units (of standardised data): a series that can be
        reconstructed exactly would otherwise drive the density to infinity.

    Attributes
    ----------
    name : str
        Name in the registry.
    support : {"real", "unit", "count"}
        What values are possible.
    raw_names : tuple of str
        The unconstrained channels per variable; the first is always the location.
    continuous : bool
        Whether samples are reparameterised (differentiable in the parameters).
    closed_form_crps : bool
        Whether :meth:`crps` is available.
    """

    name: ClassVar[str]
    support: ClassVar[Support]
    raw_names: ClassVar[tuple[str, ...]]
    continuous: ClassVar[bool]
    closed_form_crps: ClassVar[bool] = False

    def __init__(self, *, min_scale: float = 1e-4) -> None:
        if not min_scale > 0.0:
            raise ValueError(f"min_scale must be positive, got {min_scale!r}")
        self.min_scale = float(min_scale)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(min_scale={self.min_scale:g})"

    @property
    def n_outputs(self) -> int:
        """Number of raw channels per variable."""
        return len(self.raw_names)

    @abstractmethod
    def from_raw(self, *raw: Tensor) -> Parameters:
        """Turn raw channels into parameters.

        Parameters
        ----------
        *raw : Tensor, each broadcastable to (..., F)
            In the order of ``raw_names``, unconstrained.

        Returns
        -------
        NamedTuple of Tensor
        """

    @abstractmethod
    def initial_raw(self, scale: Tensor) -> tuple[Tensor, ...]:
        """Return starting values of the raw channels after the location.

        Parameters
        ----------
        scale : Tensor, shape (F,)
            Wanted initial scale.

        Returns
        -------
        tuple of Tensor, shape (F,)
            ``n_outputs - 1`` of them.
        """

    @abstractmethod
    def log_prob(self, x: Tensor, params: Parameters) -> Tensor:
        """Log density (or log probability) of each entry.

        Parameters
        ----------
        x : Tensor, shape (..., F)
        params : NamedTuple of Tensor

        Returns
        -------
        Tensor, shape (..., F)
            In nats.
        """

    @abstractmethod
    def mean(self, params: Parameters) -> Tensor:
        """Mean of each entry, broadcastable to (..., F)."""

    @abstractmethod
    def variance(self, params: Parameters) -> Tensor:
        """Variance of each entry, broadcastable to (..., F)."""

    @abstractmethod
    def cdf(self, x: Tensor, params: Parameters) -> Tensor:
        """Probability of a value at most x.

        Parameters
        ----------
        x : Tensor, shape (..., F)
        params : NamedTuple of Tensor

        Returns
        -------
        Tensor, shape (..., F)
        """

    @abstractmethod
    def sample(
        self, params: Parameters, generator: torch.Generator, sample_shape: Sequence[int] = ()
    ) -> Tensor:
        """Draw values; differentiable in the parameters if ``continuous``.

        Parameters
        ----------
        params : NamedTuple of Tensor
        generator : torch.Generator
            Only source of random numbers. It may live on another device than the parameters.
        sample_shape : sequence of int, default=()

        Returns
        -------
        Tensor, shape (*sample_shape, ..., F)
        """

    def crps(self, x: Tensor, params: Parameters) -> Tensor:
        """Continuous ranked probability score of each entry, in closed form.

        Parameters
        ----------
        x : Tensor, shape (..., F)
        params : NamedTuple of Tensor

        Returns
        -------
        Tensor, shape (..., F)
            In the units of x; smaller is better.

        Raises
        ------
        ValueError
            If this likelihood has no closed form.
        """
        raise ValueError(
            f"likelihood {self.name!r} has no closed-form CRPS; draw samples and use energy_crps"
        )

    def validate(
        self, values: Any, mask: Any = None, names: Sequence[object] | None = None
    ) -> None:
        """Check that observed values are possible under this likelihood.

        Parameters
        ----------
        values : array-like, shape (..., F)
        mask : array-like of bool or None, default=None
            True = observed; same shape. None: all observed.
        names : sequence or None, default=None
            Name of each variable, used in the message.

        Raises
        ------
        ValueError
            Naming the first variable with an impossible value, the value, and the remedy.
        """
        data = torch.as_tensor(values)
        wrong = ~self._possible(data)
        if mask is not None:
            seen = torch.as_tensor(mask)
            if seen.shape != data.shape:
                raise ValueError(
                    f"mask must have the shape of the values, {tuple(data.shape)}, "
                    f"got {tuple(seen.shape)}"
                )
            wrong = wrong & seen.bool()
        if not bool(wrong.any()):
            return
        variable = (
            int(wrong.flatten(0, -2).any(0).nonzero()[0])
            if wrong.ndim > 1
            else int(wrong.nonzero()[0])
        )
        value = data[..., variable][wrong[..., variable]].flatten()[0].item()
        name = variable if names is None else names[variable]
        remedy = (
            "remove it or mark it as missing"
            if self.support == "real"
            else "use likelihood='normal' or transform the variable"
        )
        raise ValueError(
            f"likelihood={self.name!r} needs {_SUPPORTS[self.support]}, but variable {name!r} "
            f"contains {value!r}; {remedy}"
        )

    def _possible(self, data: Tensor) -> Tensor:
        possible = torch.isfinite(data)
        if self.support == "unit":
            return possible & (data >= 0) & (data <= 1)
        if self.support == "count":
            return possible & (data >= 0) & (data == torch.round(data))
        return possible

    def _raw_scale(self, scale: Tensor) -> Tensor:
        """Invert ``positive(raw, min_scale)``."""
        if bool((scale <= self.min_scale).any()):
            raise ValueError(
                f"the initial or fixed scale must be above min_scale={self.min_scale:g}, got "
                f"{float(scale.min()):g}; raise the scale or lower min_scale of the likelihood"
            )
        return inverse_softplus(scale - self.min_scale)


_LIKELIHOODS: dict[str, type[Likelihood[Any]]] = {}


def register_likelihood(
    name: str, *, overwrite: bool = False
) -> Callable[[LikelihoodClass], LikelihoodClass]:
    """Class decorator that makes a likelihood available by name.

    Parameters
    ----------
    name : str
    overwrite : bool, default=False
        Allow to replace an existing entry.

    Returns
    -------
    callable
        Decorator that sets ``cls.name`` and returns the class.

    Raises
    ------
    ValueError
        If the name is taken and ``overwrite`` is False.
    TypeError
        If the decorated object is not a subclass of :class:`Likelihood`.
    """

    def add(cls: LikelihoodClass) -> LikelihoodClass:
        if not (isinstance(cls, type) and issubclass(cls, Likelihood)):
            raise TypeError(f"a likelihood must be a subclass of Likelihood, got {cls!r}")
        if name in _LIKELIHOODS and not overwrite:
            raise ValueError(
                f"likelihood {name!r} exists already ({_LIKELIHOODS[name].__name__}); choose "
                "another name or pass overwrite=True"
            )
        cls.name = name
        _LIKELIHOODS[name] = cls
        return cls

    return add


def likelihood_names() -> list[str]:
    """Names that :func:`get_likelihood` accepts.

    Returns
    -------
    list of str
    """
    return sorted(_LIKELIHOODS)


def get_likelihood(likelihood: str | Likelihood[Any], **options: Any) -> Likelihood[Any]:
    """Build a likelihood by name.

    Parameters
    ----------
    likelihood : str or Likelihood
        A name, or a likelihood, which is returned as it is.
    **options
        Passed to the class, for example ``min_scale``.

    Returns
    -------
    Likelihood

    Raises
    ------
    ValueError
        If the name is not known.

    Examples
    --------
    >>> from tsvae.nn import get_likelihood
    >>> get_likelihood("student_t")
    StudentT(min_scale=0.0001)
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    try:
        cls = _LIKELIHOODS[likelihood]
    except (KeyError, TypeError):
        choices = ", ".join(likelihood_names())
        raise ValueError(
            f"likelihood={likelihood!r} is not known; choose one of: {choices}, or add it with "
            "register_likelihood"
        ) from None
    return cls(**options)
