"""Codes of both sides, and what they say: transform, match, range, score."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from tsvae._linker.matching import LinkResult, assign
from tsvae._linker.plumbing import check_rows
from tsvae._linker.predicting import LinkerPredicting
from tsvae._linker.translator import SideName
from tsvae.models.barlow import cross_correlation
from tsvae.panel import write_codes, write_scores
from tsvae.panel.index import check_horizon

__all__ = ["LinkerCoding"]

Array = NDArray[np.float64]


class LinkerCoding(RegressorMixin, LinkerPredicting):
    """Methods about codes and matches."""

    latent_dim: int

    def _codes(self, data: Any, mask: Any, side: SideName) -> Any:
        seen = self._seen(data, mask, side)
        names = [f"z{i}" for i in range(self.n_latent_)]
        return write_codes(seen.posterior[:, 0], seen.signals.index, names)  # type: ignore[arg-type]

    def link(
        self, X: Any, y: Any, *, n_best: int = 5, mask: Any = None, y_mask: Any = None
    ) -> LinkResult:
        """Find which record of y belongs to which of X.

        Parameters
        ----------
        X : same kind as in fit, n records
        y : same kind as in fit, m records
            In any order; the numbers of records may differ.
        n_best : int, default=5
            Matches to name for each record of X.
        mask, y_mask : optional
            True = observed.

        Returns
        -------
        LinkResult
            ``scores`` (n, m), ``best`` (n, n_best) and ``assignment`` (n,): row numbers of y.

        Notes
        -----
        The score adds up three kinds of evidence: how well the record of y fits the prediction
        from X with its spread, the same the other way round, and how near the codes are. Their
        weights were fitted on held-out pairs, so that the softmax of a row of scores is about the
        probability of each candidate.
        """
        n_best = check_horizon(n_best, "n_best")
        first, second = self._seen(X, mask, "a"), self._seen(y, y_mask, "b")
        fitted = self._fitted()
        translator = fitted.translator(self.get_params(deep=False))
        scores = fitted.evidence.scores(translator, fitted.spreads, first.encoded, second.encoded)
        return assign(scores, n_best)

    def cross_correlation(self, X: Any, y: Any) -> Array:
        """Correlate the codes of both sides over paired records.

        Parameters
        ----------
        X, y : same kind as in fit
            Row by row of the same samples.

        Returns
        -------
        ndarray of shape (latent_dim, latent_dim)
            Entry (i, j): posterior mean i of X with posterior mean j of y. Of codes along time
            every latent step counts as a sample. Rows with one side alone do not count.

        Raises
        ------
        ValueError
            If no row has both sides.
        """
        first, second = self._seen(X, None, "a"), self._seen(y, None, "b")
        check_rows(second.signals, first.signals, "y")
        masks = (first.signals.mask, second.signals.mask)
        paired = np.all([mask.any(axis=(1, 2)) for mask in masks], axis=0)
        if not paired.any():
            raise ValueError("no row has both X and y; give some records measured both ways.")
        codes = (
            torch.as_tensor(seen.posterior[paired, 0].reshape(-1, int(self.latent_dim)))
            for seen in (first, second)
        )
        found: Array = cross_correlation(*codes).numpy()
        return found

    def out_of_range(self, X: Any, *, mask: Any = None) -> Any:
        """Say which records of X are unlike those of training: predictions extrapolate there.

        Parameters
        ----------
        X : same kind as in fit
        mask : optional

        Returns
        -------
        bool array, Series or DataArray of shape (n_records,)
            True where the code lies farther out, or the record is reconstructed worse, than 1.5
            times what 99 % of the training records show.
        """
        return self._outside(X, mask, "a")

    def out_of_range_inverse(self, y: Any, *, mask: Any = None) -> Any:
        """Say which records of y are unlike those of training, as :meth:`out_of_range`.

        Parameters
        ----------
        y : same kind as in fit
        mask : optional

        Returns
        -------
        bool array, Series or DataArray of shape (n_records,)
        """
        return self._outside(y, mask, "b")

    def _outside(self, data: Any, mask: Any, side: SideName) -> Any:
        fitted = self._fitted()
        seen = self._seen(data, mask, side)
        own = fitted.translator(self.get_params(deep=False)).decode(seen.posterior[:, 0], side)
        found = fitted.ranges[side].outside(seen.values, seen.signals.mask, own, seen.posterior)
        return write_scores(found, seen.signals.index, "out_of_range")  # type: ignore[arg-type]

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, *, mask: Any = None, y_mask: Any = None
    ) -> float:
        """R2 of the predictions of y, the mean over its columns.

        Parameters
        ----------
        X, y : same kind as in fit
            Missing values of y do not count.
        sample_weight : array of shape (n_records,), optional
        mask, y_mask : optional
            True = observed.

        Returns
        -------
        float
            A column that does not vary scores 1 if predicted exactly, else 0.
        """
        seen = self._seen(X, mask, "a")
        target = self._seen(y, y_mask, "b").signals
        check_rows(target, seen.signals, "y")
        predicted = self._fitted().scales["b"].inverse(self._centre(seen, "b"))
        weight = np.ones(len(seen)) if sample_weight is None else np.asarray(sample_weight, float)
        if weight.shape != (len(seen),) or not (np.isfinite(weight) & (weight >= 0.0)).all():
            raise ValueError(
                f"sample_weight must hold one number, 0 or more, for each of the {len(seen)} "
                f"records; got shape {weight.shape}."
            )
        return _column_r2(target.values, target.mask, predicted, weight)


def _column_r2(values: Array, mask: NDArray[np.bool_], predicted: Array, weight: Array) -> float:
    """Mean R2 of the columns, as scikit-learn has it, over observed values."""
    n = len(values)
    flat = [part.reshape(n, -1) for part in (values, mask, predicted)]
    if flat[1].all():
        return float(r2_score(flat[0], flat[2], sample_weight=weight))
    found = []
    for truth, seen, guess in zip(*(part.T for part in flat), strict=True):
        if seen.sum() > 1:
            found.append(r2_score(truth[seen], guess[seen], sample_weight=weight[seen]))
    if not found:
        raise ValueError("y holds no column with two observed values; there is nothing to score.")
    return float(np.mean(found))
