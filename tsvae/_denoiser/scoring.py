"""How likely signals are: densities, skill, anomaly scores."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import r2_score

from tsvae._denoiser.fitting import hides_entries
from tsvae._denoiser.generating import DenoiserGenerating
from tsvae._denoiser.plumbing import find_target
from tsvae._records.alignment import dressed
from tsvae._records.signals import Signals, Windows

__all__ = ["DenoiserScoring"]

Array = NDArray[np.float64]

_PARTS = 4  # each entry is hidden in one of so many passes
_WINDOWS_PER_STEP = 16  # whose surprise is averaged


class DenoiserScoring(DenoiserGenerating):
    """Methods that judge signals."""

    def score_samples(self, X: Any, *, mask: Any = None, condition: Any = None) -> Any:
        """Log density of each record.

        An importance-weighted lower bound (``n_importance_samples`` codes, the same random numbers
        for every record and call); for ``model="ae"``, which is no density model, the likelihood
        of the reconstruction.

        Parameters
        ----------
        X : same kind as in fit
        mask, condition : optional
            As in :meth:`encode`.

        Returns
        -------
        array, Series or DataArray of shape (n_records,)
            Nats, in the units of X; with ``window=`` one for each of the windows side by side.
        """
        signals = self._signals(X, mask)
        windows = signals.windows(overlap=False)
        given = self._given_for(condition, signals)
        density = self._log_density(windows, given) - self._fitted().scaler.log_spread(windows.mask)
        return signals.write_scores(density, windows.starts, "log_density")

    def _log_density(self, windows: Windows, given: Array | None) -> Array:
        """Nats per window, in model units."""
        coder = self._fitted().coder(self.get_params(deep=False))
        given = None if given is None else given[windows.starts.series]
        density = coder.log_density(
            self._scaled(windows), windows.mask, given, self.n_importance_samples
        )
        # The bound of nothing is not quite the 0 that it bounds.
        return np.where(windows.mask.any(axis=(1, 2)), density, 0.0)

    def score(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        clean: Any = None,
        mask: Any = None,
        condition: Any = None,
    ) -> float:
        """Skill; greater is better.

        Parameters
        ----------
        X : same kind as in fit
        y, clean : optional
            Clean signals. ``y`` counts only if it has the shape of X.
        sample_weight : array of shape (n_records,), optional
            Of the records; with ``window=`` of the series.
        mask, condition : optional
            As in :meth:`encode`.

        Returns
        -------
        float
            With clean signals the R2 of the denoised ones; without, the mean log density per
            observed value in training-standardised units, so that records with gaps compare.
        """
        signals = self._signals(X, mask)
        given = self._given_for(condition, signals)
        weight = _weights(sample_weight, len(signals.values))
        name, target = find_target(X, y, clean)
        if target is not None:
            known = self._clean(dressed(target, X, name), signals, name)
            denoised = self._reconstructed(signals, given, filtered=True)
            return _r2(known, denoised, weight, name)
        windows = signals.windows(overlap=False)
        weight = weight[windows.starts.series]
        n_values = (weight * windows.mask.sum(axis=(1, 2))).sum()
        if not n_values > 0.0:
            raise ValueError("X holds no observed value to score; give records with observations.")
        return float((weight * self._log_density(windows, given)).sum() / n_values)

    def anomaly_scores(
        self,
        X: Any,
        *,
        scope: Literal["auto", "step", "window"] = "auto",
        mask: Any = None,
        condition: Any = None,
    ) -> Any:
        """Surprise of each time step: high where signals are not like those of fit.

        Parameters
        ----------
        X : same kind as in fit
        scope : {"auto", "step", "window"}, default="auto"
            "step": each entry is hidden in turn (a quarter of all at a time) and predicted from
            the rest; its score is minus the log density under that prediction. It finds single
            bad values. A model that was trained without blind spots compares with the
            reconstruction. "window": minus the log density of the windows (records) that a step
            lies in, given their codes, averaged. It finds stretches that behave differently.
            auto: "window" with ``window=``, else "step".
        mask, condition : optional
            As in :meth:`encode`.

        Returns
        -------
        one number for each step of X, in a container of its kind
            Nats per observed variable, in training-standardised units; 0 where nothing is
            observed.
        """
        if scope not in ("auto", "step", "window"):
            raise ValueError(f"scope must be 'auto', 'step' or 'window', got {scope!r}.")
        signals = self._signals(X, mask)
        if scope == "auto":
            scope = "step" if signals.window is None else "window"
        hops = {} if scope == "step" else {"hops": _WINDOWS_PER_STEP}
        windows = signals.windows(overlap=True, **hops)
        given = self._given_for(condition, signals)
        given = None if given is None else given[windows.starts.series]
        each = self._surprise(windows, given) if scope == "step" else self._misfit(windows, given)
        per_step = signals.blend(each, windows.starts, evenly=scope == "window")
        seen = signals.mask.sum(axis=2)
        total = np.where(signals.mask, per_step, 0.0).sum(axis=2)
        return signals.write_steps(total / np.maximum(seen, 1), "anomaly_score")

    def _misfit(self, windows: Windows, given: Array | None) -> Array:
        """Mean over each window of minus the log density given its code, (N, W, F)."""
        coder = self._fitted().coder(self.get_params(deep=False))
        density = coder.reconstruction_log_prob(self._scaled(windows), windows.mask, given)
        count = np.maximum(windows.mask.sum(axis=(1, 2)), 1)
        mean = -density.sum(axis=(1, 2)) / count
        return np.broadcast_to(mean[:, None, None], density.shape)

    def _surprise(self, windows: Windows, given: Array | None) -> Array:
        """Minus log density of each observed entry, (N, W, F)."""
        fitted = self._fitted()
        params = self.get_params(deep=False)
        coder = fitted.coder(params)
        values = self._scaled(windows)
        if not hides_entries(params, fitted.supervised):
            return -coder.reconstruction_log_prob(values, windows.mask, given)
        rng = np.random.default_rng(0)
        # Where an entry is hidden depends on its place alone: equal records, equal scores.
        part = rng.permuted(np.arange(values[0].size) % _PARTS).reshape(values.shape[1:])
        total = np.zeros(values.shape)
        for number in range(_PARTS):
            hidden = np.broadcast_to(part == number, values.shape)
            total -= coder.log_prob(values, windows.mask, hidden, given)
        return total


def _weights(sample_weight: Any, n_records: int) -> Array:
    if sample_weight is None:
        return np.ones(n_records)
    weight = np.asarray(sample_weight, dtype=float)
    if weight.shape != (n_records,) or not (np.isfinite(weight) & (weight >= 0.0)).all():
        raise ValueError(
            f"sample_weight must hold one number, 0 or more, for each of the {n_records} records; "
            f"got shape {weight.shape}."
        )
    return weight


def _r2(clean: Signals, denoised: Array, weight: Array, name: str) -> float:
    """R2 over all entries whose clean value is known."""
    if clean.mask.sum() < 2:
        raise ValueError(
            f"{name} holds one observed value; R2 needs two or more. Give more records."
        )
    each = np.broadcast_to(weight[:, None, None], clean.mask.shape)
    truth, found, counted = (part[clean.mask] for part in (clean.values, denoised, each))
    return float(r2_score(truth, found, sample_weight=counted))
