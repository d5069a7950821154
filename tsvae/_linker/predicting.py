"""From one side to the other: predictions, draws, bands."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae._linker.evidence import standard_draws
from tsvae._linker.plumbing import LinkerPlumbing, Seen, direction, from_table
from tsvae.panel import write_record_samples
from tsvae.panel.index import check_horizon

__all__ = ["Band", "LinkerPredicting"]

Array = NDArray[np.float64]

_BAND_DRAWS = 400
_VALUES_AT_ONCE = 2**23  # drawn for bands


class Band(NamedTuple):
    """Interval of each value.

    Attributes
    ----------
    lower, upper : same container as a prediction
    """

    lower: Any
    upper: Any


class LinkerPredicting(LinkerPlumbing):
    """Methods that say one measurement by the other."""

    random_state: Any

    def predict(self, X: Any, *, mask: Any = None) -> Any:
        """Y of records of X.

        Parameters
        ----------
        X : same kind as in fit
            NaN = missing.
        mask : same kind and shape as X, optional
            True = observed.

        Returns
        -------
        same kind as y in fit
            With y's columns and the row labels of X.
        """
        return self._predicted(X, mask, inverse=False)

    def predict_inverse(self, y: Any, *, mask: Any = None) -> Any:
        """X of records of y, as :meth:`predict` the other way.

        Parameters
        ----------
        y : same kind as in fit
        mask : same kind and shape as y, optional

        Returns
        -------
        same kind as X in fit
        """
        return self._predicted(y, mask, inverse=True)

    def _predicted(self, data: Any, mask: Any, inverse: bool) -> Any:
        given, wanted = direction(inverse)
        seen = self._seen(data, mask, given)
        values = self._fitted().scales[wanted].inverse(self._centre(seen, wanted))
        return self._write(values, wanted, seen.labels)

    def _centre(self, seen: Seen, wanted: Any) -> Array:
        """Prediction in model units."""
        translator = self._fitted().translator(self.get_params(deep=False))
        return translator.decode(seen.posterior[:, 0], wanted)

    def _drawn(self, seen: Seen, wanted: Any, codes: Array, noise: Array) -> Array:
        """Draws (S, N, W, F) with a calibrated spread, by standard normal numbers."""
        fitted = self._fitted()
        translator = fitted.translator(self.get_params(deep=False))
        centre = translator.decode(seen.posterior[:, 0], wanted)
        draws = translator.draws(seen.posterior, wanted, codes)
        scaled = fitted.spreads[wanted].apply(draws, centre, noise, seen.known)
        scale = fitted.scales[wanted]
        return scale.inverse(np.clip(scaled, 0.0, 1.0) if scale.scaler.unit else scaled)

    def sample(self, X: Any, n_samples: int = 100, *, mask: Any = None) -> Any:
        """Draw y given X, with the spread that held-out pairs have.

        Parameters
        ----------
        X : same kind as in fit
        n_samples : int, default=100
        mask : optional
            True = observed.

        Returns
        -------
        array (n_samples, n_records, ...), DataArray with a first dim "sample", or DataFrame with a
        first row level "sample"; "draw" where the records are called samples
            Draws of one sample are one course: what the code leaves open moves together; noise is
            added on top, independent from value to value.
        """
        return self._sampled(X, n_samples, mask, inverse=False)

    def sample_inverse(self, y: Any, n_samples: int = 100, *, mask: Any = None) -> Any:
        """Draw X given y, as :meth:`sample` the other way.

        Parameters
        ----------
        y : same kind as in fit
        n_samples : int, default=100
        mask : optional

        Returns
        -------
        as :meth:`sample`
        """
        return self._sampled(y, n_samples, mask, inverse=True)

    def _sampled(self, data: Any, n_samples: int, mask: Any, inverse: bool) -> Any:
        n_samples = check_horizon(n_samples, "n_samples")
        given, wanted = direction(inverse)
        seen = self._seen(data, mask, given)
        rng = np.random.default_rng(self._seed())
        codes = rng.standard_normal((n_samples, len(seen), self.n_latent_))
        shape = self._fitted().model.side(wanted).record_shape
        noise = rng.standard_normal((n_samples, len(seen), *shape))
        values = self._drawn(seen, wanted, codes, noise)
        index = self._fitted().scales[wanted].index.new_records(len(seen), seen.labels)
        found = write_record_samples(values, index)
        return found if inverse else from_table(found, self._y_form)

    def predict_interval(self, X: Any, coverage: float = 0.9, *, mask: Any = None) -> Band:
        """Interval of each value of y given X.

        Parameters
        ----------
        X : same kind as in fit
        coverage : float, default=0.9
            Share of values inside.
        mask : optional

        Returns
        -------
        Band
            ``lower`` and ``upper``, each like a prediction: quantiles of 400 draws, the same
            random numbers in every call.
        """
        return self._band(X, coverage, mask, inverse=False)

    def predict_interval_inverse(self, y: Any, coverage: float = 0.9, *, mask: Any = None) -> Band:
        """Interval of each value of X given y, as :meth:`predict_interval` the other way.

        Parameters
        ----------
        y : same kind as in fit
        coverage : float, default=0.9
        mask : optional

        Returns
        -------
        Band
        """
        return self._band(y, coverage, mask, inverse=True)

    def _band(self, data: Any, coverage: float, mask: Any, inverse: bool) -> Band:
        if not isinstance(coverage, Real) or not 0.0 < coverage < 1.0:
            raise ValueError(f"coverage must be between 0 and 1, got {coverage!r}.")
        given, wanted = direction(inverse)
        seen = self._seen(data, mask, given)
        tail = 0.5 * (1.0 - float(coverage))
        shape = self._fitted().model.side(wanted).record_shape
        codes = standard_draws(_BAND_DRAWS, self.n_latent_)
        noise = np.random.default_rng(1).standard_normal((_BAND_DRAWS, 1, *shape))
        part = max(1, _VALUES_AT_ONCE // noise.size)
        bounds = []
        for begin in range(0, len(seen), part):
            chosen = Seen(
                seen.signals,
                seen.values[begin : begin + part],
                seen.posterior[begin : begin + part],
                seen.known[begin : begin + part],
            )
            drawn = self._drawn(chosen, wanted, codes, noise)
            # Quantiles of a sample that leave out what they say, however few the draws.
            bounds.append(np.quantile(drawn, (tail, 1.0 - tail), axis=0, method="weibull"))
        lower, upper = np.concatenate(bounds, axis=1)
        return Band(*(self._write(bound, wanted, seen.labels) for bound in (lower, upper)))
