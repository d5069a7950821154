"""New signals: draws around records, from the prior, from the density of codes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tsvae._denoiser.coding import DenoiserCoding
from tsvae._records.signals import Windows
from tsvae.panel.index import check_horizon

__all__ = ["DenoiserGenerating"]

Array = NDArray[np.float64]


class CodePosterior(NamedTuple):
    """q(z | x) of N windows."""

    mean: Array  # (N, D)
    spread: Array  # (N, D) standard deviations; 0 without a posterior

    def draw(self, rng: np.random.Generator) -> Array:
        """One code for each window."""
        return self.mean + self.spread * rng.standard_normal(self.mean.shape)


class DenoiserGenerating(DenoiserCoding):
    """Methods that draw."""

    def augment(
        self,
        X: Any,
        n_samples: int = 1,
        *,
        noise: bool | Literal["residuals"] = False,
        mask: Any = None,
        condition: Any = None,
        random_state: Any = 0,
    ) -> Any:
        """Variants of signals: reconstructions of draws from q(z | x).

        Parameters
        ----------
        X : same kind as in fit
        n_samples : int, default=1
            Variants of each.
        noise : bool or "residuals", default=False
            As in :meth:`sample`.
        mask, condition : optional
            As in :meth:`encode`.
        random_state : int or RandomState, default=0

        Returns
        -------
        same kind as X
            With more than one sample, frames have a first row level ``sample``, xarray objects a
            first dim and arrays a first axis.
        """
        n_samples = check_horizon(n_samples, "n_samples")
        rng = np.random.default_rng(self._draw_seed(random_state))
        signals = self._signals(X, mask)
        windows = signals.windows(overlap=False)
        given = self._given_for(condition, signals)
        given = None if given is None else given[windows.starts.series]
        fitted = self._fitted()
        coder = fitted.coder(self.get_params(deep=False))
        posterior = self._posterior(windows, given)
        draws = []
        for _ in range(n_samples):
            codes = posterior.draw(rng)
            values = self._noisy(coder.decode(codes, given), noise, rng)
            draws.append(signals.blend(fitted.scaler.inverse(values), windows.starts))
        return signals.write(draws[0]) if n_samples == 1 else signals.write_samples(np.stack(draws))

    def sample_codes(
        self,
        X: Any,
        n_samples: int = 1,
        *,
        mask: Any = None,
        condition: Any = None,
        random_state: Any = 0,
    ) -> Array:
        """Draw codes of signals from q(z | x); ``encode`` gives its mean.

        Parameters
        ----------
        X : same kind as in fit
        n_samples : int, default=1
            Draws for each record.
        mask, condition : optional
            As in :meth:`encode`.
        random_state : int or RandomState, default=0

        Returns
        -------
        ndarray of shape (n_samples, n_records, n_latent_)
            Equal draws where the model has no posterior ("ae", "vq"). With ``window=`` one row for
            each of the windows that lie side by side.
        """
        n_samples = check_horizon(n_samples, "n_samples")
        rng = np.random.default_rng(self._draw_seed(random_state))
        signals = self._signals(X, mask)
        windows = signals.windows(overlap=False)
        given = self._given_for(condition, signals)
        given = None if given is None else given[windows.starts.series]
        posterior = self._posterior(windows, given)
        return np.stack([posterior.draw(rng) for _ in range(n_samples)])

    def _posterior(self, windows: Windows, given: Array | None) -> CodePosterior:
        coder = self._fitted().coder(self.get_params(deep=False))
        found = coder.posterior(self._scaled(windows), windows.mask, given)
        return CodePosterior(found[:, 0], np.exp(0.5 * found[:, 1]))

    def sample(
        self,
        n_samples: int = 10,
        *,
        source: Literal["prior", "density"] = "density",
        noise: bool | Literal["residuals"] = False,
        condition: Any = None,
        random_state: Any = 0,
    ) -> Any:
        """Draw new signals.

        Parameters
        ----------
        n_samples : int, default=10
        source : {"prior", "density"}, default="density"
            Where codes come from: the model's prior (a standard normal; for ``model="vq"`` the
            prior fitted over codes; ``model="ae"`` has none), or a mixture of normals fitted to
            the codes of the training records, which is lifelike even if these have left the prior.
        noise : bool or "residuals", default=False
            True: draw observations from the likelihood, independent from entry to entry and of
            one power. "residuals": add noise like what reconstructions of the training records
            leave out, with its power at each step and its correlation along time. The latter
            makes draws that look like the signals, which the code's smooth ones do not.
        condition : optional
            One row for each sample, for ``model="conditional"``.
        random_state : int or RandomState, default=0

        Returns
        -------
        same kind as in fit, of ``n_samples`` records
            With ``window=`` an array (n_samples, window, n_variables).
        """
        n_samples = check_horizon(n_samples, "n_samples")
        if source not in ("prior", "density"):
            raise ValueError(f"source must be 'prior' or 'density', got {source!r}.")
        fitted = self._fitted()
        seed = self._draw_seed(random_state)
        rng = np.random.default_rng(seed)
        given = self._given(condition, n_samples)
        coder = fitted.coder(self.get_params(deep=False))
        if fitted.design.kind == "vq" or source == "prior":
            if not hasattr(fitted.model, "sample_prior"):
                raise ValueError("model='ae' has no prior; use source='density'.")
            codes = coder.sample_prior(n_samples, seed)
        else:
            codes = fitted.density.sample(n_samples, rng)
        return self._write_new(self._noisy(coder.decode(codes, given), noise, rng), None)

    def _noisy(self, values: Array, noise: Any, rng: np.random.Generator) -> Array:
        """Draw observations around expected values (model units)."""
        if isinstance(noise, str) and noise != "residuals":
            raise ValueError(f"noise must be True, False or 'residuals', got {noise!r}.")
        if not noise:
            return values
        observation = self._fitted().model.observation
        law = observation.likelihood
        if noise == "residuals":
            if law.support == "unit":
                raise ValueError(
                    "noise='residuals' adds to values that may be any number; with "
                    "likelihood='bernoulli' use noise=True."
                )
            return values + self._fitted().residuals.sample(len(values), rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        expected = torch.as_tensor(values, dtype=torch.float32)
        if law.support == "unit":
            expected = torch.logit(expected.clamp(1e-6, 1.0 - 1e-6))
        drawn = law.sample(observation.parameters_at(expected), generator)
        return drawn.expand(expected.shape).numpy().astype(np.float64)
