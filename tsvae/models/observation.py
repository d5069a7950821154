"""The observation model of the autoencoder family: a likelihood around the decoder's output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tsvae.nn import Likelihood, get_likelihood, masked_log_prob
from tsvae.nn.checks import as_positive_vector, check_size

__all__ = ["ObservationModel", "ScaleKind", "family_likelihood"]

ScaleKind = Literal["learned", "fixed", "calibrated"]

_ALIASES = {"gaussian": "normal", "student-t": "student_t"}
_MOMENTUM = 0.1  # of the running scale, as in batch normalisation


def family_likelihood(likelihood: str | Likelihood[Any], **options: Any) -> Likelihood[Any]:
    """Find a likelihood by name; "gaussian" and "student-t" are understood too.

    Parameters
    ----------
    likelihood : str or Likelihood
        See :func:`tsvae.nn.likelihood_names`.
    **options
        Passed to the class if a name was given.

    Returns
    -------
    Likelihood

    Examples
    --------
    >>> family_likelihood("gaussian")
    Normal(min_scale=0.0001)
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    name = _ALIASES.get(likelihood, likelihood) if isinstance(likelihood, str) else likelihood
    return get_likelihood(name, **options)


class ObservationModel(nn.Module):
    """p(x | x_hat), independent over entries, with one scale per feature.

    Parameters
    ----------
    n_features : int
        F.
    likelihood : str or Likelihood, default="gaussian"
        "gaussian", "laplace", "student-t", "bernoulli" or another registered one. ``x_hat`` is
        its first raw channel: the location, log odds (Bernoulli) or the log mean (counts).
    scale : {"learned", "fixed", "calibrated"}, default="learned"
        "learned": a parameter; "fixed": ``initial_scale``; "calibrated": the maximum-likelihood
        scale of each batch's residuals in closed form (normal, Laplace), and a running average of
        it in eval mode. Likelihoods without a scale (Bernoulli, Poisson) do not use it.
    initial_scale : float or sequence of float, default=1.0
        Scale at the start, or for good if "fixed".
    min_scale : float, default=1e-4
        Floor of the scale. Only for a likelihood given by name.

    References
    ----------
    Rybkin, Daniilidis & Levine 2021 (arXiv 2006.13202), equation 6 (the optimal sigma).

    Examples
    --------
    >>> import torch
    >>> model = ObservationModel(2, scale="fixed")
    >>> model.log_prob(torch.zeros(1, 3, 2), torch.zeros(1, 5, 3, 2)).shape
    torch.Size([1, 5, 3, 2])
    """

    raw_scale: Tensor
    n_updates: Tensor

    def __init__(
        self,
        n_features: int,
        likelihood: str | Likelihood[Any] = "gaussian",
        *,
        scale: ScaleKind = "learned",
        initial_scale: float | Sequence[float] | Tensor = 1.0,
        min_scale: float = 1e-4,
    ) -> None:
        super().__init__()
        self.n_features = check_size("n_features", n_features)
        self.likelihood = family_likelihood(
            likelihood, **({} if isinstance(likelihood, Likelihood) else {"min_scale": min_scale})
        )
        check_scale(scale, self.likelihood)
        self.scale_kind = scale
        self.initial_scale = as_positive_vector("initial_scale", initial_scale, n_features)
        names = self.likelihood.raw_names[1:]
        starts = self.likelihood.initial_raw(self.initial_scale)
        for name, start in zip(names, starts, strict=True):
            value = start.to(torch.get_default_dtype())
            if name == "scale" and scale != "learned":
                self.register_buffer("raw_scale", value)
            else:
                self.register_parameter(f"raw_{name}", nn.Parameter(value))
        if scale == "calibrated" and "scale" in names:
            self.register_buffer("n_updates", torch.zeros((), dtype=torch.int64))

    @property
    def calibrates(self) -> bool:
        """Whether the scale is that of the residuals."""
        return self.scale_kind == "calibrated" and "scale" in self.likelihood.raw_names

    def parameters_at(self, x_hat: Tensor, likelihood: str | Likelihood[Any] | None = None) -> Any:
        """Parameters of the likelihood.

        Parameters
        ----------
        x_hat : Tensor of shape (..., F)
        likelihood : str or Likelihood or None, default=None
            Another one than the model's; channels that this model lacks keep their initial value.

        Returns
        -------
        NamedTuple of Tensor
            See :class:`tsvae.nn.Likelihood`.
        """
        law = self.likelihood if likelihood is None else family_likelihood(likelihood)
        starts = law.initial_raw(self.initial_scale.to(x_hat))
        raw = (
            getattr(self, f"raw_{name}", start)
            for name, start in zip(law.raw_names[1:], starts, strict=True)
        )
        return law.from_raw(x_hat, *raw)

    def mean(self, x_hat: Tensor) -> Tensor:
        """Return expected values in data units: x_hat itself, probabilities or counts."""
        return self.likelihood.mean(self.parameters_at(x_hat)).expand(x_hat.shape)

    def log_prob(
        self,
        x: Tensor,
        x_hat: Tensor,
        mask: Tensor | None = None,
        likelihood: str | Likelihood[Any] | None = None,
    ) -> Tensor:
        """Log density of each entry; in train mode a calibrated scale is set by this batch.

        Parameters
        ----------
        x : Tensor of shape (B, T, F)
            Entries outside the mask may hold anything.
        x_hat : Tensor of shape (B, S, T, F)
        mask : Tensor of bool of shape (B, T, F) or None, default=None
        likelihood : str or Likelihood or None, default=None
            Another one than the model's.

        Returns
        -------
        Tensor of shape (B, S, T, F)
            In nats; 0 outside the mask.
        """
        law = self.likelihood if likelihood is None else family_likelihood(likelihood)
        if mask is not None:
            # Before the difference to x_hat is taken, so that nothing of it reaches a gradient.
            x = torch.where(mask, x, torch.zeros_like(x))
            mask = mask.unsqueeze(1)
        x = x.unsqueeze(1)
        if not (self.calibrates and self.training):
            return masked_log_prob(law, x, self.parameters_at(x_hat, law), mask)
        raw_scale = self._calibrated(x, x_hat, mask)
        params = law.from_raw(x_hat, *((raw_scale,) if "scale" in law.raw_names else ()))
        return masked_log_prob(law, x, params, mask)

    @torch.no_grad()
    def _calibrated(self, x: Tensor, x_hat: Tensor, mask: Tensor | None) -> Tensor:
        """Raw scale of the batch's residuals, which also moves the running one.

        Without gradient: at the optimal scale the loss does not depend on it to first order.
        """
        power = 1 if self.likelihood.name == "laplace" else 2
        size = (x - x_hat).abs() ** power
        seen = torch.ones_like(size) if mask is None else mask.to(size).expand(size.shape)
        count = seen.flatten(0, -2).sum(0)
        scale = ((size * seen).flatten(0, -2).sum(0) / count.clamp_min(1)) ** (1.0 / power)
        scale = scale.clamp_min(1.001 * self.likelihood.min_scale)
        (raw,) = self.likelihood.initial_raw(scale)
        raw = torch.where(count > 0, raw, self.raw_scale)
        momentum = _MOMENTUM if int(self.n_updates) else 1.0
        self.raw_scale.lerp_(raw.to(self.raw_scale), momentum)
        self.n_updates += 1
        return raw


def check_scale(scale: str, likelihood: Likelihood[Any]) -> None:
    """Check the kind of scale against the likelihood.

    Parameters
    ----------
    scale : str
    likelihood : Likelihood

    Raises
    ------
    ValueError
        If the kind is not known or has no closed form for this likelihood.
    """
    if scale not in get_args(ScaleKind):
        raise ValueError(f"scale must be 'learned', 'fixed' or 'calibrated', got {scale!r}")
    closed = likelihood.name in ("normal", "laplace") or "scale" not in likelihood.raw_names
    if scale == "calibrated" and not closed:
        raise ValueError(
            f"scale='calibrated' has a closed form for the gaussian and laplace likelihoods, not "
            f"for {likelihood.name!r}; use scale='learned'"
        )
