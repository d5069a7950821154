"""From signals to codes and back: transform, encode, decode, reconstruct, interpolate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsvae._denoiser.fitting import hides_entries
from tsvae._denoiser.plumbing import DenoiserPlumbing
from tsvae._records.signals import Signals
from tsvae.panel import RecordIndex, write_records
from tsvae.panel.index import check_horizon

__all__ = ["DenoiserCoding"]

Array = NDArray[np.float64]


class DenoiserCoding(DenoiserPlumbing):
    """Methods that pass signals through the model without randomness."""

    def encode(self, X: Any, *, mask: Any = None, condition: Any = None) -> Any:
        """Codes of signals: means of q(z | x), or the vectors of the codebook (``model="vq"``).

        Parameters
        ----------
        X : same kind as in fit
        mask : optional
            True = observed.
        condition : optional
            One row for each record, for ``model="conditional"``.

        Returns
        -------
        array, DataFrame or DataArray of shape (n_records, n_latent_)
            With ``window=`` one row for each of the windows that lie side by side.
        """
        signals = self._signals(X, mask)
        windows = signals.windows(overlap=False)
        given = self._given_for(condition, signals)
        coder = self._fitted().coder(self.get_params(deep=False))
        chosen = None if given is None else given[windows.starts.series]
        codes = coder.codes(self._scaled(windows), windows.mask, chosen)
        return signals.write_codes(codes, windows.starts, self._code_names())

    def decode(self, Z: Any, *, condition: Any = None) -> Any:
        """Signals of codes; of the nearest vectors of the codebook (``model="vq"``).

        Parameters
        ----------
        Z : array, DataFrame or DataArray of shape (n_records, n_latent_)
        condition : optional
            One row for each record, for ``model="conditional"``.

        Returns
        -------
        same kind as in fit
            Labels of the records are those of Z. With ``window=`` an array
            (n_records, window, n_variables).
        """
        self._fitted()
        codes, labels = self._read_codes(Z)
        given = self._given(condition, len(codes))
        coder = self._fitted().coder(self.get_params(deep=False))
        return self._write_new(coder.decode(codes, given), labels)

    def reconstruct(self, X: Any, *, mask: Any = None, condition: Any = None) -> Any:
        """Signals as the model sees them: decoded from their codes, gaps filled.

        What the codes do not hold is missing; :meth:`transform` gives it back where it is
        more than noise.

        Parameters
        ----------
        X : same kind as in fit
        mask, condition : optional
            As in :meth:`encode`.

        Returns
        -------
        same kind as X
        """
        signals = self._signals(X, mask)
        given = self._given_for(condition, signals)
        return signals.write(self._reconstructed(signals, given))

    def _reconstructed(
        self, signals: Signals, given: Array | None, *, filtered: bool = False
    ) -> Array:
        """Signals (B, T, F) through the model; with ``filtered`` and what it should have kept."""
        windows = signals.windows(overlap=True)
        fitted = self._fitted()
        chosen = None if given is None else given[windows.starts.series]
        coder = fitted.coder(self.get_params(deep=False))
        scaled = self._scaled(windows)
        values = coder.reconstruct(scaled, windows.mask, chosen)
        if filtered and self._filters_residuals():
            values += fitted.filter(scaled - values, windows.mask)
        return signals.blend(fitted.scaler.inverse(values), windows.starts)

    def _filters_residuals(self) -> bool:
        """Whether residuals are noise and more, along an axis of time, of values without bounds."""
        fitted = self._fitted()
        denoises = fitted.supervised or hides_entries(self.get_params(deep=False), False)
        return bool(self.residual_filter and denoises and not fitted.scaler.unit)

    def interpolate(
        self, a: Any, b: Any, n_records: int = 8, *, spherical: bool = False, condition: Any = None
    ) -> Any:
        """Signals on the way from one to the other, evenly spaced between their codes.

        Parameters
        ----------
        a, b : one record each
            A table of one row, a row (Series or 1-D array), or an array (time, variable).
        n_records : int, default=8
            The first is the reconstruction of ``a``, the last that of ``b``.
        spherical : bool, default=False
            Along a great circle instead of a line, which keeps the length of the codes.
        condition : optional
            One row, for ``model="conditional"``.

        Returns
        -------
        same kind as in fit, of ``n_records`` records
        """
        n_records = check_horizon(n_records, "n_records")
        first, last = self._one_code(a, condition), self._one_code(b, condition)
        codes = _between(first, last, n_records, spherical)
        given = self._given(condition, 1)
        given = None if given is None else np.repeat(given, n_records, axis=0)
        coder = self._fitted().coder(self.get_params(deep=False))
        return self._write_new(coder.decode(codes, given), None)

    def _one_code(self, record: Any, condition: Any) -> Array:
        signals = self._one_record(record)
        windows = signals.windows(overlap=False)
        if len(windows.values) != 1:
            raise ValueError(
                f"interpolate takes one record on each side, got {len(windows.values)}; with "
                "window= it takes one window."
            )
        coder = self._fitted().coder(self.get_params(deep=False))
        codes: Array = coder.codes(self._scaled(windows), windows.mask, self._given(condition, 1))
        return codes[0]

    def _one_record(self, record: Any) -> Signals:
        fitted = self._fitted()
        if isinstance(record, pd.Series) and fitted.window is None:
            record = record.to_frame().T
        elif isinstance(record, np.ndarray | list | tuple):
            record = np.asarray(record, dtype=float)
            shape = (fitted.design.n_steps, fitted.design.n_features)
            if (record.ndim == 1 and fitted.window is None and shape[1] == 1) or (
                fitted.window is None and record.shape == shape and shape != (1, 1)
            ):
                record = record[None]
            elif record.ndim == 1 and fitted.window is not None:
                record = record[:, None]
        return self._signals(record, None)

    # -- codes and new records in containers -------------------------------------------------

    def _code_names(self) -> list[str]:
        return [f"z{i}" for i in range(self.n_latent_)]

    def _read_codes(self, Z: Any) -> tuple[Array, Any]:
        """Codes (N, D) and the labels of their rows."""
        labels = _row_labels(Z)
        try:
            codes = np.asarray(Z, dtype=float)
        except (TypeError, ValueError):
            raise ValueError("Z must hold numbers, one row of codes for each record.") from None
        if codes.ndim != 2 or codes.shape[1] != self.n_latent_ or not len(codes):
            raise ValueError(
                f"Z must have shape (n_records, {self.n_latent_}), as encode() gives it, with at "
                f"least one row; got {codes.shape}."
            )
        bad = np.argwhere(~np.isfinite(codes))
        if len(bad):
            row, column = (int(i) for i in bad[0])
            raise ValueError(
                f"Z has a value that is not finite in row {row}, column {column}; codes have no "
                "gaps, so give those of encode()."
            )
        return codes, labels

    def _write_new(self, values: Array, labels: Any) -> Any:
        """Container of records that were not given: decoded, generated (N, W, F, model units)."""
        fitted = self._fitted()
        signals = fitted.scaler.inverse(values)
        if not isinstance(fitted.index, RecordIndex):
            return signals
        return write_records(signals, fitted.index.new_records(len(signals), labels))


def _row_labels(Z: Any) -> pd.Index | None:
    if isinstance(Z, pd.DataFrame):
        return Z.index
    dims = getattr(Z, "dims", ())
    return Z.indexes[dims[0]] if dims and dims[0] in Z.indexes else None


def _between(first: Array, last: Array, n: int, spherical: bool) -> Array:
    """Points from first to last, (n, D)."""
    weight = np.linspace(0.0, 1.0, n)[:, None] if n > 1 else np.zeros((1, 1))
    sizes = np.linalg.norm(first), np.linalg.norm(last)
    if spherical and min(sizes) > 0.0:
        cosine = np.clip(first @ last / (sizes[0] * sizes[1]), -1.0, 1.0)
        angle = float(np.arccos(cosine))
        if 1e-6 < angle < np.pi - 1e-6:
            left = np.sin((1.0 - weight) * angle) / np.sin(angle)
            right = np.sin(weight * angle) / np.sin(angle)
            size = sizes[0] ** (1.0 - weight) * sizes[1] ** weight
            points: Array = size * (left * first / sizes[0] + right * last / sizes[1])
            return points
    straight: Array = (1.0 - weight) * first + weight * last
    return straight
