"""Disentanglement, completeness and informativeness."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsvae.metrics._containers import Float
from tsvae.metrics._disentanglement import _check_classes
from tsvae.metrics._factor_data import Circular, Discrete, Factor, check_factor_data

_ESTIMATORS = ("gradient_boosting", "random_forest", "lasso")


class DCIScores(NamedTuple):
    """How codes and factors match; 1 is best for all three scores.

    Parameters
    ----------
    disentanglement : float
        Whether each code speaks of one factor: 1 less the entropy of its importances over
        factors, averaged over codes by their total importance.
    completeness : float
        Whether each factor is found in one code: 1 less the entropy over codes, averaged over
        factors.
    informativeness : float
        How well the codes together predict the factors on held-out records, averaged: R2, or
        accuracy for a discrete factor.
    importance : ndarray of shape (n_codes, n_factors)
        Importances; a column sums to 1, or to 0 where nothing was found.
    disentanglement_per_code : ndarray of shape (n_codes,)
        0 for a code that nothing was predicted from.
    completeness_per_factor : ndarray of shape (n_factors,)
        0 for a factor that nothing was found about.
    informativeness_per_factor : ndarray of shape (n_factors,)
        R2 or accuracy.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: Float
    disentanglement_per_code: Float
    completeness_per_factor: Float
    informativeness_per_factor: Float


class _Prediction(NamedTuple):
    importance: Float  # (D,) sums to 1, or 0 where nothing was found
    quality: float


def dci_scores(
    codes: Any,
    factors: Any,
    *,
    estimator: str = "gradient_boosting",
    discrete: Discrete = (),
    circular: Circular = None,
    test_size: float = 0.25,
    random_state: int | np.random.RandomState | None = None,
) -> DCIScores:
    """Disentanglement, completeness and informativeness (DCI).

    Each factor is predicted from all codes; the importances of the codes in these predictions
    tell which code speaks of which factor.

    Parameters
    ----------
    codes, factors : array-like
        As in :func:`mutual_information_gap`.
    estimator : {"gradient_boosting", "random_forest", "lasso"}, default="gradient_boosting"
        What predicts, with its importances: decrease of impurity for the trees, absolute
        coefficients of standardised codes for the lasso (penalty by cross-validation), which
        sees linear relations only.
    discrete : sequence of factor names or positions, default=()
        Numeric factors that are names of groups. Boolean and non-numeric ones always are.
    circular : mapping of factor to the length of a full turn, optional
        Factors that live on a circle, such as ``{"phase": 2 * numpy.pi}``: their cosine and sine
        are predicted and the importances averaged.
    test_size : float, default=0.25
        Share of the records that informativeness is measured on.
    random_state : int, RandomState or None, default=None
        Seed of the split and of the estimators.

    Returns
    -------
    DCIScores

    Raises
    ------
    ValueError
        As in :func:`mutual_information_gap`; also if `estimator` is none of these.
    KeyError
        If `discrete` or `circular` names a factor that does not exist.

    Notes
    -----
    Informativeness is R2 rather than the paper's normalised root mean squared error, which is
    ``sqrt(1 - R2)`` up to the sample, so that 1 is best throughout.

    References
    ----------
    C. Eastwood and C. K. I. Williams (2018), A framework for the quantitative evaluation of
    disentangled representations, ICLR, section 2.
    F. Locatello et al. (2019), Challenging common assumptions in the unsupervised learning of
    disentangled representations, ICML, appendix C (gradient boosted trees).

    Examples
    --------
    >>> import numpy as np
    >>> from tsvae.metrics import dci_scores
    >>> factors = np.random.default_rng(0).normal(size=(500, 2))
    >>> scores = dci_scores(factors[:, ::-1], factors, estimator="lasso", random_state=0)
    >>> round(scores.disentanglement, 1), round(scores.informativeness, 2)
    (1.0, 1.0)
    >>> scores.importance.round(1)
    array([[0., 1.],
           [1., 0.]])
    """
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state

    if estimator not in _ESTIMATORS:
        raise ValueError(f"estimator must be one of {_ESTIMATORS}; got {estimator!r}.")
    data = check_factor_data(codes, factors, discrete=discrete, circular=circular)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    rows = np.arange(len(data.codes))
    train, test = train_test_split(rows, test_size=test_size, random_state=seed)
    scale = data.codes[train].std(axis=0)
    standard = (data.codes - data.codes[train].mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    found = [_predict(standard, factor, train, test, estimator, seed) for factor in data.factors]
    importance = np.stack([prediction.importance for prediction in found], axis=1)
    quality = np.array([prediction.quality for prediction in found])
    return _scores(importance, quality)


def _scores(importance: Float, quality: Float) -> DCIScores:
    """Entropies of the importances (D, K), section 2 of the paper."""
    per_code = _concentration(importance)
    per_factor = _concentration(importance.T)
    weight = importance.sum(axis=1)
    total = weight.sum()
    return DCIScores(
        disentanglement=float(per_code @ weight / total) if total > 0 else 0.0,
        completeness=float(per_factor.mean()),
        informativeness=float(quality.mean()),
        importance=importance,
        disentanglement_per_code=per_code,
        completeness_per_factor=per_factor,
        informativeness_per_factor=quality,
    )


def _concentration(importance: Float) -> Float:
    """1 less the entropy of each row, in units of its largest; 0 for a row of zeros."""
    total = importance.sum(axis=1, keepdims=True)
    share = importance / np.where(total > 0, total, 1.0)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    largest = np.log(importance.shape[1]) if importance.shape[1] > 1 else 1.0
    return np.where(total[:, 0] > 0, 1.0 - entropy / largest, 0.0)


def _predict(
    codes: Float,
    factor: Factor,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    estimator: str,
    seed: int,
) -> _Prediction:
    """Find the importance of each code for one factor, and how well all of them predict it."""
    from sklearn.metrics import accuracy_score, r2_score

    if factor.targets is None:
        _check_classes(factor, factor.labels[train])
        model = _classifier(estimator, seed).fit(codes[train], factor.labels[train])
        predicted = model.predict(codes[test])
        return _Prediction(_importance(model), accuracy_score(factor.labels[test], predicted))
    models = [
        _regressor(estimator, seed).fit(codes[train], target[train]) for target in factor.targets.T
    ]
    values = np.stack([model.predict(codes[test]) for model in models], axis=1)
    quality = r2_score(factor.targets[test], values, multioutput="variance_weighted")
    return _Prediction(np.mean([_importance(model) for model in models], axis=0), float(quality))


def _importance(model: Any) -> Float:
    if hasattr(model, "feature_importances_"):
        found = np.asarray(model.feature_importances_)
    else:
        found = np.abs(np.atleast_2d(model.coef_)).mean(axis=0)
    total = found.sum()
    return found / total if total > 0 else np.zeros_like(found)


def _regressor(estimator: str, seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import LassoCV

    if estimator == "gradient_boosting":
        return GradientBoostingRegressor(random_state=seed)
    if estimator == "random_forest":
        return RandomForestRegressor(random_state=seed)
    return LassoCV(cv=5, random_state=seed)


def _classifier(estimator: str, seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    if estimator == "gradient_boosting":
        return GradientBoostingClassifier(random_state=seed)
    if estimator == "random_forest":
        return RandomForestClassifier(random_state=seed)
    return LogisticRegression(l1_ratio=1.0, solver="saga", max_iter=2000, random_state=seed)
